"""The row of a task; and how tables are found and read, one each for training, validation and test examples."""

import itertools
import math
import os
import re
import stat
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

from tasks.readers import doubled_quotes, read_rows
from text_utils import has_tokens
from utils import is_there

WORDS = {'train': ('train',), 'validation': ('dev', 'validation', 'valid', 'val'), 'test': ('test', 'labelled_test')}
NO_LABEL = -1  # the class number of an example that is predicted but not scored; where labels are numbers, NaN
EXTENSIONS = ('.tsv', '.txt', '.jsonl', '.json', '.csv', '.parquet')


class Split(NamedTuple):
    """N examples as text."""
    texts: tuple  # fields, each a list of N texts
    labels: list | None  # class numbers, or numbers where the task has no classes, or NO_LABEL; None: not labelled
    parts: dict = {}  # name -> slice of the examples that are also scored by themselves: {'matched': slice(9815)}
    notes: tuple = ()  # what was left out or looks wrong, one sentence each

    def take(self, rows: list) -> 'Split':
        """The examples with these indices, all labelled."""
        return Split(tuple([field[i] for i in rows] for field in self.texts), [self.labels[i] for i in rows])

    def noted(self, note: str) -> 'Split':
        """The examples with one note more."""
        return self._replace(notes=(*self.notes, note))


def rows_of(files: 'Files', path: str, broken: list | None):
    """Place, texts and label of each row of a table, as `read_rows` gives them."""
    return read_rows(path, files.columns, files.label, files.bare, broken)


class Files(NamedTuple):
    """Where examples lie, in the official archive or in a re-distribution: names of folders, files and columns."""
    folders: tuple  # names of the folder, the official one first
    columns: tuple  # for each text, the name or the names that its column may have
    label: tuple  # the names that the column of the label may have
    patterns: tuple = ('{}',)  # names of a file without its extension; {} stands for train, dev or test
    parts: tuple = ('',)  # validation and test examples lie in one file for each part
    bare: dict = {}  # tables without a header: number of columns -> indices of the texts and of the label
    labels: dict = {}  # label in a file -> class number; empty: files have the names of classes, or their numbers
    no_majority: tuple = ()  # examples with these labels are not trained on and not scored
    skip_broken: bool = False  # nor are rows with a wrong number of columns
    answers: tuple = ()  # files with the labels of the test examples, for a test file without labels
    rows: Callable = rows_of  # reads the rows of a file; another function where files are not tables


class Task(NamedTuple):
    """All that the programs know of a task: a row of the table in tasks/__init__.py."""
    files: Files | None  # None: `loader` and `reader` know them
    form: str  # a name in examples.FORMS
    classes: tuple  # names in the order of the logits, which is Hugging Face's too; empty: the label is a number
    metrics: tuple  # names in tasks/metrics.py; the first chooses the best epoch
    submission: dict  # part of the test examples, '' for all -> name of the file with their predictions
    written: tuple = ()  # what this file has for each class; empty: the name of the class
    limits: tuple = ()  # the least and the greatest label, if it is a number
    positive: int = 1  # the class that F1 is of
    ties_by_cost: bool = False  # of epochs with equal scores, the one with the least cost is best, not the first
    defaults: dict = {}  # options of train.py that differ from the original's defaults
    zero_shot: bool = False  # zero_shot.py has this task too
    paper: dict = {}  # part of the test examples -> {row of the paper's table 5: its score in percent}
    paper_set: str = 'test'  # the examples on which the paper has these scores
    loader: Callable | None = None  # (task, options) -> three Splits, where load_tables is not enough
    reader: Callable | None = None  # (task, path, options) -> Split, where read_tables is not enough

    def load(self, options: Namespace) -> tuple[Split, Split, Split | None]:
        """Training, validation and test examples, the last if there are any; options: of train.py."""
        return (self.loader or load_tables)(self, options)

    def read(self, path: str, options: Namespace) -> Split:
        """The examples of one file, labelled or not."""
        return self.reader(self, path, options) if self.reader else read_tables(self, [path])

    @property
    def head(self):
        """DoubleHeadModel's task_head_type."""
        return head_type(self.form, self.classes)

    def predictions(self, logits, scale=None):
        """Class numbers, or numbers in the unit of the labels and within their limits: logits (N, n_out) -> array (N,).
        scale: mean and deviation of the training numbers, where the task has no classes."""
        if self.classes:
            return logits.argmax(1).numpy()
        numbers = logits[:, 0].double().numpy() * scale[1] + scale[0]
        return numbers.clip(*self.limits) if self.limits else numbers

    def named(self, metric: str) -> str:
        """The name of a metric, with the class that it is of: 'f1 of spam'."""
        return f'{metric} of {self.classes[self.positive]}' if metric == 'f1' else metric

    def answers(self, logits, scale, names=()) -> list[str]:
        """Predictions as text: names of classes, by default the task's own, or numbers in the unit of the labels."""
        predictions = self.predictions(logits, scale)
        if self.classes:
            return [(names or self.classes)[prediction] for prediction in predictions]
        digits = 3 if self.limits else max(3, 2 - math.floor(math.log10(scale[1])))  # a hundredth of the deviation
        return [f'{number:.{digits}f}' for number in predictions]


def head_type(form: str, classes):
    """DoubleHeadModel's task_head_type for a form and its classes; no classes: the label is a number."""
    if form in ('choices', 'question'):
        return 'multiple_choice'
    n_out = len(classes) or 1  # no classes: one output, the number
    return ('similarity' if form == 'both' else 'classification', n_out)


# Finding files

def places(files: Files) -> list[str]:
    """The folders of --data_dir where the files of a task may lie, the first choice first. '' is --data_dir itself, the
    last because its files may be of another task."""
    return [*files.folders, *(f'{above}/{folder}' for above in ('glue_data', 'glue') for folder in files.folders), '']


def stems(files: Files, kind: str, part: str = '') -> list[str]:
    """The names without extension that a file of a kind may have: train, validation or test; the first choice first."""
    endings = (f'_{part}', f'-{part}') if part else ('',)
    return [pattern.format(word + ending)
            for pattern, word, ending in itertools.product(files.patterns, WORDS[kind], endings)]


def files_of(folder: str, files: Files, kind: str, part: str = '') -> list[str]:
    """Paths of the file of a kind, or of its shards; empty without one. ValueError if a shard is missing."""
    for stem in stems(files, kind, part):
        path = os.path.join(folder, stem)
        whole = [path + extension for extension in (*EXTENSIONS, '') if is_there(path + extension)]
        if found := whole[:1] or shards_of(path):
            return found
    return []


def shards_of(stem: str) -> list[str]:
    """Paths of the files train-00000-of-00002.parquet, train-00001-of-00002.parquet of the stem train, in order."""
    folder, name = os.path.split(stem)
    if not is_there(folder or '.', stat.S_ISDIR):
        return []
    shard = re.compile(re.escape(name) + r'-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?\.(?:parquet|jsonl|json|csv)')
    found = sorted(filter(shard.fullmatch, os.listdir(folder or '.')))
    if found:
        n = int(shard.fullmatch(found[0])[2])
        if len(found) != n:
            raise ValueError(f'{folder}: {len(found)} of the {n} files {name}-*-of-*')
    return [os.path.join(folder, name) for name in found]


def no_files(folder: str, files: Files, kind: str) -> FileNotFoundError:
    """The error where a folder has no files of a kind, with the names looked for."""
    parts = [''] if kind == 'train' else files.parts
    names = [stem for part in parts for stem in stems(files, kind, part)]
    return FileNotFoundError(f'{folder} has no {kind.replace("train", "training")} file of {files.folders[0]}: looked '
                             f'for {", ".join(names)} ({", ".join(EXTENSIONS)})')


def find_folder(data_dir: str, files: Files, kind: str = 'train', find: Callable = files_of) -> str:
    """The first with files of a kind, as `find` gives them, of the `places`, then of their subfolders data, which the
    hub has. FileNotFoundError without one."""
    for place in [*places(files), *(os.path.join(place, 'data') for place in places(files))]:
        folder = os.path.join(data_dir, place) if place else data_dir
        if find(folder, files, kind):
            return folder
    raise FileNotFoundError(f'{no_files(data_dir, files, kind)}, in it, in its {", ".join(places(files)[:-1])}, and in '
                            'data/ in each of them')


# Reading them

def as_text(label) -> str:
    """A label as text, the same for the same value in all files. 1.0 is 1: pandas makes it in a column with gaps."""
    return '' if label is None else re.sub(r'^([+-]?[0-9]+)\.0+$', r'\1', str(label))


def unscored(task: Task):
    """The label of an example that is predicted but not scored."""
    return NO_LABEL if task.classes else math.nan


def label_of(task: Task, class_of: dict, label: str, where: str):
    """The class number of a label, or its number; None where there is none. ValueError for an unknown label."""
    if label in ('', '-1'):  # Hugging Face writes -1 where GLUE has no label
        return None
    if task.classes:
        if label not in class_of:
            raise ValueError(f'{where}: label {label[:40]!r} is not one of {", ".join(class_of)}')
        return class_of[label]
    low, high = task.limits
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f'{where}: {task.files.label[0]} {label[:40]!r} is not a number from {low:g} to {high:g}')
    return number


def build_split(task: Task, names: tuple, rows: list, path: str, labelled: bool = False, notes=()) -> Split:
    """The Split of rows (place in files, texts, label as text or None for NO_LABEL), with notes of what looks wrong."""
    if not rows:
        raise ValueError(f'{path} has no examples')
    class_of = task.files.labels or {name: i for i, of in enumerate(task.classes) for name in (of, str(i))}
    labels = [unscored(task) if label is None else label_of(task, class_of, label, where) for where, _, label in rows]
    if {*labels} <= {None, unscored(task)}:  # math.nan is one object
        labels = [None] * len(labels)
    n_unlabelled = labels.count(None)
    if labelled and n_unlabelled == len(labels):
        raise ValueError(f'{path} has no labels (column {" or ".join(task.files.label)})')
    if 0 < n_unlabelled < len(labels):
        raise ValueError(f'{rows[labels.index(None)][0]}: the label is missing, but other examples have one')
    empty = [f'{where}: {name}' for where, texts, _ in rows
             for name, text in zip(names, texts, strict=True) if not has_tokens(text)]
    if empty:
        notes = (*notes, f'{empty[0]} is empty, as {len(empty)} texts are; they are kept')
    notes = (*notes, *doubled_quotes(path, (text for _, texts, _ in rows for text in texts)))
    fields = tuple(map(list, zip(*(texts for _, texts, _ in rows), strict=True)))
    return Split(fields, None if n_unlabelled else labels, notes=tuple(notes))


def read_tables(task: Task, paths: list[str], labelled: bool = False) -> Split:
    """The examples of a file or of its shards. labelled: each must have a label, and rows for which the file has none
    are left out; otherwise there is an example for every row, so that prediction i is that of row i."""
    files, rows, notes = task.files, [], []
    how = 'are left out' if labelled else 'are predicted but not scored'
    for path in paths:
        broken, n_without = [], 0
        for place, (*texts, label) in files.rows(files, path, broken if files.skip_broken else None):
            texts = [str(text) for text in texts]
            is_scored = as_text(label) not in files.no_majority and (label != '' or any(texts))  # and no blank row
            n_without += not is_scored
            if is_scored or not labelled:
                rows.append((f'{path}, {place}', texts, as_text(label) if is_scored else None))
        if broken:
            lines = [*map(str, broken[:5]), '...'] if len(broken) > 5 else map(str, broken)
            notes.append(f'{path}: {len(broken)} rows with another number of columns than the header {how}: '
                         f'lines {", ".join(lines)}')
        if n_without > len(broken):  # broken rows are counted too
            notes.append(f'{path}: {n_without - len(broken)} examples without a gold label {how}')
    names = tuple(name if isinstance(name, str) else name[0] for name in files.columns)
    return build_split(task, names, rows, paths[0], labelled, notes)


def join(splits: dict) -> Split:
    """One Split of several, {name: Split}, with a part for each name. It has labels if all have."""
    parts, start = {}, 0
    for name, split in splits.items():
        n = len(split.texts[0])
        parts[name] = slice(start, start + n)
        start += n
    fields = zip(*(split.texts for split in splits.values()), strict=True)
    labels = [split.labels for split in splits.values()]
    return Split(tuple(list(itertools.chain(*field)) for field in fields),
                 None if None in labels else list(itertools.chain(*labels)), parts,
                 tuple(itertools.chain(*(split.notes for split in splits.values()))))


def read_kind(task: Task, folder: str, kind: str, labelled: bool = False) -> Split | None:
    """The validation or test examples in a folder, with all parts that are there; None without any."""
    paths = {part: files_of(folder, task.files, kind, part) for part in task.files.parts}
    splits = {part: read_tables(task, of_part, labelled) for part, of_part in paths.items() if of_part}
    if not splits:
        return None
    if task.files.parts == ('',):
        return splits['']
    missing = [part for part in task.files.parts if part not in splits]
    joined = join(splits)
    return joined.noted(f'{folder} has no {kind} examples of {missing[0]}') if missing else joined


def with_labels(test: Split, answers: Split, path: str) -> Split:
    """A test Split with the labels of the same texts in another file, if it has each, and with one label only."""
    labels = {}
    for *texts, label in zip(*answers.texts, answers.labels, strict=True):
        labels.setdefault(tuple(texts), set()).add(label)
    found = [labels.get(texts, ()) for texts in zip(*test.texts, strict=True)]
    if any(len(of_text) != 1 for of_text in found):
        return test
    return test._replace(labels=[label for [label] in found]).noted(f'labels of the test are from {path}')


def read_test(task: Task, folder: str) -> Split | None:
    """The test examples in a folder, labelled if they or a file beside them are; None without any."""
    test = read_kind(task, folder, 'test')
    for name in task.files.answers:
        path = os.path.join(folder, name)
        if test and test.labels is None and is_there(path):
            test = with_labels(test, read_tables(task, [path], labelled=True), path)
    return test


def load_tables(task: Task, options: Namespace) -> tuple[Split, Split, Split | None]:
    """Training, validation and test of a task that comes in three files, or in more for its parts."""
    files = task.files
    folder = find_folder(options.data_dir, files)
    train = read_tables(task, files_of(folder, files, 'train'), labelled=True)
    valid = read_kind(task, folder, 'validation', labelled=True)
    if valid is None:
        raise no_files(folder, files, 'validation')
    return train, valid, read_test(task, folder)
