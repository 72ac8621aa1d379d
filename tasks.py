"""The tasks that train.py knows: where the examples of each lie, what their labels are called, how they are scored."""

import itertools
import math
import os
import re
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from random import Random
from typing import NamedTuple

from datasets import find_cloze_file, head_type, read_cloze, split_cloze
from readers import lines_of, read_rows
from text_utils import has_tokens
from utils import read_json

MRPC_SEED, N_MRPC_DEV = 42, 408                         # of the split where GLUE's own of MRPC is not known
QNLI_ROWS = {104743: 'v2', 5463: 'v2', 108436: 'v1', 5732: 'v1'}       # rows of the training and validation files


class Split(NamedTuple):
    """N examples as text."""
    texts: tuple            # fields, each a list of N texts
    labels: list | None     # class numbers, or plain numbers where the task has no classes; None: not labelled
    parts: dict = {}        # name -> slice of the examples that are also scored by themselves: {'matched': slice(9815)}
    notes: tuple = ()       # what was left out or looks wrong, one sentence each


def noted(split: Split, note: str) -> Split:
    """The Split with one note more."""
    return split._replace(notes=(*split.notes, note))


class Task(NamedTuple):
    """All that train.py knows of a task."""
    load: Callable[[Namespace], tuple]         # options of train.py -> training, validation, test Split; test or None
    read: Callable[[str, Namespace], Split]    # path, options -> the examples of one file, labelled or not
    form: str               # one of FORMS
    classes: tuple          # names in the order of the logits; empty: the label is a number
    metrics: tuple          # of METRICS; the first chooses the best epoch
    files: dict             # part of the test examples, '' for all -> name of the file of predictions
    written: tuple = ()     # what is written for each class; empty: its name
    limits: tuple = ()      # the least and the greatest number that is written
    ties_by_cost: bool = False      # of epochs with equal scores, the best has the least cost; False: it is the first

    @property
    def head(self):
        """DoubleHeadModel's task_head_type."""
        return head_type(self.form, self.classes)


class Source(NamedTuple):
    """Files of a task, of the official archive or of a re-distribution: their names, columns and labels."""
    folders: tuple          # names of the folder, the official one first
    columns: tuple          # of each text, the names its column may have
    label: tuple            # names its column may have
    classes: tuple          # in the order in which Hugging Face's files number them; empty: the label is a number
    labels: dict            # label in a file -> class
    patterns: tuple = ('{}',)                  # of a file's name without extension; {} is train, dev or test
    parts: tuple = ('',)    # validation and test come in so many files
    bare: dict = {}         # layouts without a header, as for read_rows
    no_majority: tuple = ()                    # labels of examples that are left out
    skip_broken: bool = False                  # whether rows with another number of columns are left out
    limits: tuple = ()      # of a label that is a number
    answers: tuple = ()     # files that have the labels of the test examples where the test file has none


def numbered(*classes):
    """Classes, and the labels of files that write their names or Hugging Face's numbers for them."""
    return classes, {label: i for i, name in enumerate(classes) for label in (name, str(i))}


WORDS = {'train': ('train',), 'validation': ('dev', 'validation', 'valid'), 'test': ('test', 'labelled_test')}
EXTENSIONS = ('.tsv', '.txt', '.jsonl', '.json', '.csv', '.parquet')
NLI = numbered('entailment', 'neutral', 'contradiction')
TWO_WAY = numbered('entailment', 'not_entailment')
PAIR = (('sentence1', 'premise'), ('sentence2', 'hypothesis'))
COLA = Source(('CoLA', 'cola'), ('sentence',), ('label',), *numbered('unacceptable', 'acceptable'), bare={4: (3, 1)})
SST2 = Source(('SST-2', 'sst2', 'SST2', 'sst-2'), ('sentence',), ('label',), *numbered('negative', 'positive'),
              patterns=('{}', 'original/stsa.binary.{}', 'stsa.binary.{}'),
              answers=('labelled_test.tsv', 'original/stsa.binary.test', 'stsa.binary.test'))
MRPC = Source(('MRPC', 'mrpc'), (('#1 String', 'sentence1'), ('#2 String', 'sentence2')), ('Quality', 'label'),
              *numbered('not_equivalent', 'equivalent'), patterns=('{}', 'msr_paraphrase_{}'),
              answers=('msr_paraphrase_test.txt',))
STSB = Source(('STS-B', 'stsb', 'STSB', 'sts-b'), ('sentence1', 'sentence2'), ('score', 'label'), (), {},
              patterns=('{}', 'original/sts-{}', 'sts-{}'), bare={7: (5, 6, 4), 9: (5, 6, 4)}, limits=(0., 5.),
              answers=('original/sts-test.csv', 'sts-test.csv'))
QQP = Source(('QQP', 'qqp'), ('question1', 'question2'), ('is_duplicate', 'label'),
             *numbered('not_duplicate', 'duplicate'), skip_broken=True)
MNLI = Source(('MNLI', 'mnli'), PAIR, ('gold_label', 'label'), *NLI, no_majority=('-',),
              parts=('matched', 'mismatched'), patterns=('{}', 'original/multinli_1.0_{}', 'multinli_1.0_{}'))
QNLI = Source(('QNLI', 'qnli', 'QNLIv2'), ('question', 'sentence'), ('label',), *TWO_WAY)
RTE = Source(('RTE', 'rte'), ('sentence1', 'sentence2'), ('label',), *TWO_WAY)
WNLI = Source(('WNLI', 'wnli'), ('sentence1', 'sentence2'), ('label',), *numbered('not_entailment', 'entailment'))
SNLI = Source(('snli_1.0', 'SNLI', 'snli'), PAIR, ('gold_label', 'label'), *NLI, no_majority=('-', '-1'),
              patterns=('snli_1.0_{}', '{}', 'plain_text/{}'))
SCITAIL = Source(('SciTailV1.1', 'SciTail', 'scitail'), PAIR, ('gold_label', 'label'), ('entails', 'neutral'),
                 {'entails': 0, 'entailment': 0, 'neutral': 1}, bare={3: (0, 1, 2), 4: (0, 1, 2)},
                 patterns=('tsv_format/scitail_1.0_{}', 'snli_format/scitail_1.0_{}', 'snli_format/{}',
                           'dgem_format/scitail_1.0_structure_{}', 'scitail_1.0_{}', 'scitail_1.0_structure_{}', '{}',
                           'tsv_format/{}'))
AX = Source(('diagnostic', 'AX', 'ax'), PAIR, ('gold_label', 'label'), *NLI, patterns=('diagnostic', 'AX', '{}'))
RACE = Source(('RACE', 'race'), ('article', 'question', 'options'), ('answer',), *numbered(*'ABCD'),
              patterns=('all/{}', '{}'))
LEVELS = ('middle', 'high')             # of RACE: schools of the exams


def places(source: Source) -> list[str]:
    """The folders of --data_dir where the files of a task may lie, the first choice first; '' is --data_dir."""
    return ['', *source.folders, *(f'{above}/{folder}' for above in ('glue_data', 'glue') for folder in source.folders)]


def files_of(folder: str, source: Source, kind: str, part: str = '') -> list[str]:
    """Paths of the file, or of its shards, of a kind: train, validation or test; empty without one.

    Raises ValueError if some of the shards are missing.
    """
    endings = (f'_{part}', f'-{part}') if part else ('',)
    for pattern, word, ending in itertools.product(source.patterns, WORDS[kind], endings):
        stem = os.path.join(folder, pattern.format(word + ending))
        extensions = ('', *EXTENSIONS) if 'stsa' in pattern else EXTENSIONS
        whole = [stem + extension for extension in extensions if os.path.isfile(stem + extension)]
        if found := whole[:1] or shards_of(stem):
            return found
    return []


def shards_of(stem: str) -> list[str]:
    """Paths of the files train-00000-of-00002.parquet, train-00001-of-00002.parquet of the stem train, in order."""
    folder, name = os.path.split(stem)
    if not os.path.isdir(folder or '.'):
        return []
    shard = re.compile(re.escape(name) + r'-(\d{5})-of-(\d{5})\.(?:parquet|jsonl|json|csv)')
    found = sorted(filter(shard.fullmatch, os.listdir(folder or '.')))
    if found and len(found) != int(shard.fullmatch(found[0])[2]):
        raise ValueError(f'{folder}: {len(found)} of the {int(shard.fullmatch(found[0])[2])} files {name}-*-of-*')
    return [os.path.join(folder, name) for name in found]


def names_of(source: Source, kind: str) -> str:
    """The names of files that `files_of` looks for, as words of a message."""
    names = [pattern.format(word + (part and f'_{part}')) for pattern in source.patterns for word in WORDS[kind]
             for part in (source.parts if kind != 'train' else [''])]
    return f'{", ".join(names)} ({", ".join(EXTENSIONS)})'


def find_folder(data_dir: str, source: Source, find=None, names: str = '', kind: str = 'train') -> str:
    """The first folder with files of a kind: train or validation. FileNotFoundError with the names looked for.

    find, names: a function that gives these files of a folder, and their names, where `files_of` is not enough.
    """
    if not os.path.isdir(data_dir):
        raise FileNotFoundError(f'{data_dir} is not a folder: --data_dir names the folder with the files of the task')
    for place in places(source):
        folder = os.path.join(data_dir, place) if place else data_dir
        if find(folder) if find else files_of(folder, source, kind):
            return folder
    raise FileNotFoundError(f'{data_dir} has no {kind.replace("train", "training")} file of {source.folders[0]}: '
                            f'looked for {names or names_of(source, kind)}, in it and in its '
                            f'{", ".join(places(source)[1:])}')


def as_text(label) -> str:
    """A label as text files write it: 1.0, which pandas makes of a 1 in a column with gaps, is 1; None is empty."""
    return '' if label is None else str(int(label) if isinstance(label, float) and label.is_integer() else label)


def class_of(source: Source, label: str, where: str):
    """The class or number of a label, None where there is none. ValueError for an unknown label."""
    if label in ('', '-1'):                                            # Hugging Face writes -1 where GLUE has no label
        return None
    if source.classes:
        if label not in source.labels:
            raise ValueError(f'{where}: label {label[:40]!r} is not one of {", ".join(source.labels)}')
        return source.labels[label]
    low, high = source.limits
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f'{where}: {source.label[0]} {label[:40]!r} is not a number from {low:g} to {high:g}')
    return number


def stanford_rows(path: str):
    """Place, sentence and label of each row of stsa.binary.*: the label, a blank, the sentence with escapes."""
    for number, line in enumerate(lines_of(path), start=1):
        label, blank, text = line.strip().partition(' ')
        if blank:
            text = text.replace('-lrb-', '(').replace('-rrb-', ')').replace('\\/', '/')
            yield f'line {number}', [text.strip(), label]
        elif label:
            raise ValueError(f'{path}, line {number}: not a label, a blank and a sentence')


class Examples:
    """Collects the texts and labels of a Split, and what is to be said of them."""

    def __init__(self, source: Source, names: tuple):
        self.source, self.names = source, names                        # names of the fields, for messages
        self.texts, self.labels = tuple([] for _ in names), []
        self.unlabelled = self.empty = None                            # the first of each
        self.n_empty = 0

    def add(self, where: str, texts, label):
        for field, text in zip(self.texts, texts, strict=True):
            field.append(text)
        self.labels.append(class_of(self.source, as_text(label), where))
        if self.labels[-1] is None:
            self.unlabelled = self.unlabelled or where
        for name, text in zip(self.names, texts, strict=True):
            if not has_tokens(text):
                self.n_empty += 1
                self.empty = self.empty or f'{where}: {name}'

    def split(self, path: str, labelled: bool, notes=()) -> Split:
        """The examples. ValueError if there are none, or if some or, with `labelled`, all have no label."""
        if not self.labels:
            raise ValueError(f'{path} has no examples')
        n_unlabelled = self.labels.count(None)
        if labelled and n_unlabelled == len(self.labels):
            raise ValueError(f'{path} has no labels (column {" or ".join(self.source.label)})')
        if 0 < n_unlabelled < len(self.labels):
            raise ValueError(f'{self.unlabelled}: the label is missing, but other examples have one')
        if self.n_empty:
            notes = (*notes, f'{self.empty} is empty, as {self.n_empty} texts are; they are kept')
        return Split(self.texts, None if n_unlabelled else self.labels, notes=tuple(notes))


def read_files(source: Source, paths: list[str], labelled: bool = False) -> Split:
    """The examples of a file or of its shards. labelled: each must have a label.

    Raises ValueError or OSError with the file, and the line, of what is wrong.
    """
    names = tuple(name if isinstance(name, str) else name[0] for name in source.columns)
    examples, notes = Examples(source, names), []
    for path in paths:
        broken, n_left_out = [], 0
        rows = (stanford_rows(path) if os.path.basename(path).startswith('stsa.') else
                read_rows(path, source.columns, source.label, source.bare, broken if source.skip_broken else None))
        for place, (*texts, label) in rows:
            if as_text(label) in source.no_majority:
                n_left_out += 1
            else:
                examples.add(f'{path}, {place}', [str(text) for text in texts], label)
        if os.path.basename(path) == 'stsa.binary.train':
            notes.append(f'{path} has the sentences only, not the phrases that GLUE trains on')
        if broken:
            lines = ', '.join(map(str, broken[:5])) + ', ...' * (len(broken) > 5)
            notes.append(f'{path}: {len(broken)} rows with another number of columns than the header are left out: '
                         f'lines {lines}')
        if n_left_out:
            notes.append(f'{path}: {n_left_out} examples without a gold label are left out')
    return examples.split(paths[0], labelled, notes)


def join(splits: dict) -> Split:
    """One Split of several, {name: Split}, with a part for each name. It has labels if all have."""
    parts, start = {}, 0
    for name, split in splits.items():
        parts[name] = slice(start, start := start + len(split.texts[0]))
    texts = tuple(sum(fields, []) for fields in zip(*(split.texts for split in splits.values()), strict=True))
    labels = [split.labels for split in splits.values()]
    return Split(texts, None if None in labels else sum(labels, []), parts,
                 tuple(note for split in splits.values() for note in split.notes))


def read_kind(source: Source, folder: str, kind: str, labelled: bool = False) -> Split | None:
    """The validation or test examples in a folder, with all parts that are there; None without any."""
    files = {part: files_of(folder, source, kind, part) for part in source.parts}
    splits = {part: read_files(source, paths, labelled) for part, paths in files.items() if paths}
    return join(splits)._replace(parts={}) if {*splits} == {''} else join(splits) if splits else None


def with_labels(test: Split, answers: Split, path: str) -> Split:
    """A test Split with the labels of the same texts in another file, if that has each, with one label."""
    labels = {}
    for *texts, label in zip(*answers.texts, answers.labels, strict=True):
        labels.setdefault(tuple(texts), set()).add(label)
    found = [labels.get(texts, ()) for texts in zip(*test.texts, strict=True)]
    if any(len(of_text) != 1 for of_text in found):
        return test
    return noted(test._replace(labels=[label for [label] in found]), f'labels of the test are from {path}')


def read_test(source: Source, folder: str) -> Split | None:
    """The test examples in a folder, labelled if they or a file beside them are; None without any."""
    test = read_kind(source, folder, 'test')
    for name in source.answers:
        path = os.path.join(folder, name)
        if test and test.labels is None and os.path.isfile(path):
            test = with_labels(test, read_files(source, [path], labelled=True), path)
    return test


def load_files(source: Source, options: Namespace) -> tuple[Split, Split, Split | None]:
    """Training, validation and test of a task that comes in three files, or in more for its parts."""
    folder = find_folder(options.data_dir, source)
    train = read_files(source, files_of(folder, source, 'train'), labelled=True)
    valid = read_kind(source, folder, 'validation', labelled=True)
    if valid is None:
        raise FileNotFoundError(f'{folder} has training examples of {source.folders[0]}, but no validation file: '
                                f'looked for {names_of(source, "validation")}')
    return train, valid, read_test(source, folder)


def read_file(source: Source, path: str, options: Namespace) -> Split:
    """The examples of one file, labelled or not."""
    return read_files(source, [path])


def load_qnli(options: Namespace) -> tuple[Split, Split, Split | None]:
    """QNLI, with a note of its version: the paper's number is on v1, the server takes v2."""
    train, valid, test = load_files(QNLI, options)
    versions = {QNLI_ROWS.get(len(split.labels)) for split in (train, valid)}
    name = f'QNLI {versions.pop()}' if len(versions) == 1 and None not in versions else 'neither QNLI v1 nor v2'
    return noted(train, f'by the numbers of its rows this is {name}'), valid, test


def load_mnli(options: Namespace) -> tuple[Split, Split, Split | None]:
    """MNLI; the test also has GLUE's diagnostic examples, where they are, as the part AX."""
    train, valid, test = load_files(MNLI, options)
    folder = find_folder(options.data_dir, MNLI)
    files = files_of(folder, AX._replace(patterns=('diagnostic', 'AX')), 'test')     # not test.tsv
    for above in (folder, os.path.dirname(os.path.abspath(folder))):
        for name in AX.folders:
            files = files or files_of(os.path.join(above, name), AX, 'test')
    if test and files:
        both = join({'': test, 'AX': read_files(AX, files)})
        test = both._replace(parts={**test.parts, 'AX': both.parts['AX']})
    return train, valid, test


def load_mrpc(options: Namespace) -> tuple[Split, Split, Split | None]:
    """MRPC: GLUE's files, or Microsoft's two with the ids of GLUE's validation examples or a split of our own."""
    folder = find_folder(options.data_dir, MRPC)
    glue = MRPC._replace(patterns=('{}',))
    raw = files_of(folder, MRPC._replace(patterns=('msr_paraphrase_{}',)), 'train')
    if not raw or files_of(folder, glue, 'train') and files_of(folder, glue, 'validation'):
        train, valid, test = load_files(glue, options)
        return noted(train, f'MRPC is split as the files in {folder} are'), valid, test
    examples = read_files(MRPC, raw, labelled=True)
    n = len(examples.labels)
    ids_path = next((path for name in ('mrpc_dev_ids.tsv', 'dev_ids.tsv')
                     if os.path.isfile(path := os.path.join(folder, name))), None)
    if ids_path:
        wanted = {tuple(line.split()) for line in lines_of(ids_path) if line.strip()}
        ids = [tuple(pair) for _, (*pair, _) in read_rows(raw[0], ('#1 ID', '#2 ID'))]
        chosen = {i for i, pair in enumerate(ids) if pair in wanted}
        if not 0 < len(chosen) < n or {ids[i] for i in chosen} != wanted:
            raise ValueError(f'{ids_path} has {len(wanted)} pairs of ids, and {len(chosen)} of them are in {raw[0]}')
        how = f'validation examples are those of {ids_path}'
    else:
        chosen = {*Random(MRPC_SEED).sample(range(n), min(N_MRPC_DEV, n // 4))}
        how = f'without mrpc_dev_ids.tsv {len(chosen)} validation examples are drawn at random, not those of GLUE'
    train, valid = (Split(tuple([field[i] for i in rows] for field in examples.texts),
                          [examples.labels[i] for i in rows])
                    for rows in ([i for i in range(n) if i not in chosen], sorted(chosen)))
    return train._replace(notes=(*examples.notes, f'MRPC is read from {raw[0]}: {how}')), valid, read_test(MRPC, folder)


def passages(folder: str) -> list[str]:
    """Paths of the files 1.txt, 2.txt, ... of a folder, by their numbers; the order of the disk would be another."""
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    numbers = sorted(int(name[:-4]) for name in names if re.fullmatch('[0-9]+[.]txt', name))
    return [os.path.join(folder, f'{number}.txt') for number in numbers]


def race_files(folder: str, kind: str) -> list[str]:
    """Paths of the files of a kind of RACE, middle before high: the archive's folders, or Hugging Face's files."""
    found = [path for word in WORDS[kind] for level in LEVELS
             for path in passages(os.path.join(folder, word, level))]
    found = found or [path for level in LEVELS
                      for path in files_of(folder, RACE._replace(patterns=(f'{level}/{{}}',)), kind)]
    return found or files_of(folder, RACE, kind)


def race_rows(path: str):
    """Place, level, (article, question, options) and answer of each question in a file of RACE."""
    if not path.endswith('.txt'):                                      # Hugging Face's: a row for each question
        for place, (name, *texts, answer) in read_rows(path, ('example_id', *RACE.columns), RACE.label, lists=True):
            yield place, next((level for level in LEVELS if str(name).startswith(level)), ''), texts, answer
        return
    passage = read_json(path)
    article, questions, options = (passage.get(name) for name in ('article', 'questions', 'options'))
    answers = passage.get('answers', [None] * len(questions) if isinstance(questions, list) else None)
    if not (isinstance(article, str) and all(isinstance(field, list) for field in (questions, options, answers))
            and len(questions) == len(options) == len(answers)):
        raise ValueError(f'{path} is no passage of RACE: article, and as many questions as options and answers')
    article, level = article.strip(), os.path.basename(os.path.dirname(os.path.abspath(path)))
    for i, texts in enumerate(zip(questions, options, answers, strict=True), start=1):
        yield f'question {i}', level, (article, *texts[:2]), texts[2]


def read_race(paths: list[str], labelled: bool = False, in_parts: bool = True) -> Split:
    """The questions of files of RACE: article, question, four options.

    The levels are parts, middle before high; without in_parts the order is that of the files.
    """
    names = ('article', 'question', *(f'option {letter}' for letter in RACE.classes))
    levels, articles = {level: Examples(RACE, names) for level in (*LEVELS, '')}, {}
    for path in paths:
        for place, level, (article, question, options), answer in race_rows(path):
            if not isinstance(article, str):
                raise ValueError(f'{path}, {place}: the article is not a text')
            if not (isinstance(question, str) and isinstance(options, list) and len(options) == len(RACE.classes)
                    and all(isinstance(option, str) for option in options)):
                raise ValueError(f'{path}, {place}: not a question and a list of {len(RACE.classes)} options')
            article = articles.setdefault(article, article)            # once in memory for all its questions
            levels[level if level in LEVELS and in_parts else ''].add(
                f'{path}, {place}', [article, question.strip(), *(option.strip() for option in options)], answer)
    splits = {level: examples.split(paths[0], labelled) for level, examples in levels.items() if examples.labels}
    if not splits:
        raise ValueError(f'{paths[0]} has no questions')
    return join(splits) if '' not in splits else join(splits)._replace(parts={})


def load_race(options: Namespace) -> tuple[Split, Split, Split | None]:
    """RACE, trained on middle and high together."""
    folder = find_folder(options.data_dir, RACE, partial(race_files, kind='train'),
                         'train/middle/1.txt, train/high/1.txt, ..., or middle/train, high/train, all/train, train '
                         f'({", ".join(EXTENSIONS)})')
    train, valid, test = (race_files(folder, kind) for kind in ('train', 'validation', 'test'))
    if not valid:
        raise FileNotFoundError(f'{folder} has training examples of RACE, but no validation examples: looked for '
                                'dev/middle/, dev/high/ and files validation')
    return (read_race(train, labelled=True)._replace(parts={}), read_race(valid, labelled=True),
            read_race(test) if test else None)


def read_race_file(path: str, options: Namespace) -> Split:
    """The questions of one file, or of a folder with folders middle and high."""
    if not os.path.isdir(path):
        return read_race([path], in_parts=False)
    paths = [file for folder in (*(os.path.join(path, level) for level in LEVELS), path) for file in passages(folder)]
    if not paths:
        raise FileNotFoundError(f'{path} has no passages: files 1.txt, 2.txt, ... in it, or in middle/ and high/')
    return read_race(paths)


def read_stories(path: str, options: Namespace) -> Split:
    """The stories of one file."""
    *texts, labels = read_cloze(path)
    return Split(tuple(texts), labels)


def load_stories(options: Namespace) -> tuple[Split, Split, Split]:
    """Story Cloze Test: training, validation, test."""
    labelled = split_cloze(find_cloze_file(options.data_dir, 'val'), options.n_valid)
    train, valid = (Split(tuple(texts), labels) for *texts, labels in labelled)
    return train, valid, read_stories(find_cloze_file(options.data_dir, 'test'), options)


def of_source(source: Source, form: str, metrics: tuple, files, load=None, **more) -> Task:
    """The Task of a Source. files: name of the file of predictions, or one for each part of the test."""
    return Task(load or partial(load_files, source), partial(read_file, source), form, source.classes, metrics,
                files if isinstance(files, dict) else {'': files}, limits=source.limits,
                **more)


ROCSTORIES = Task(load_stories, read_stories, 'choices', ('0', '1'), ('accuracy',), {'': 'ROCStories.tsv'})
ACCURACY, F1, AS_NUMBERS = ('accuracy',), ('f1', 'accuracy'), ('0', '1')
TASKS = {
    'rocstories': ROCSTORIES,
    'cola': of_source(COLA, 'text', ('matthews', 'accuracy'), 'CoLA.tsv', written=AS_NUMBERS),
    'sst2': of_source(SST2, 'text', ACCURACY, 'SST-2.tsv', written=AS_NUMBERS),
    'mrpc': of_source(MRPC, 'both', F1, 'MRPC.tsv', load_mrpc, written=AS_NUMBERS),
    'stsb': of_source(STSB, 'both', ('pearson', 'spearman'), 'STS-B.tsv'),
    'qqp': of_source(QQP, 'both', F1, 'QQP.tsv', written=AS_NUMBERS),
    'mnli': of_source(MNLI, 'pair', ACCURACY, {'matched': 'MNLI-m.tsv', 'mismatched': 'MNLI-mm.tsv', 'AX': 'AX.tsv'},
                      load_mnli),
    'qnli': of_source(QNLI, 'pair', ACCURACY, 'QNLI.tsv', load_qnli),
    'rte': of_source(RTE, 'pair', ACCURACY, 'RTE.tsv'),
    'wnli': of_source(WNLI, 'pair', ACCURACY, 'WNLI.tsv', written=AS_NUMBERS),
    'snli': of_source(SNLI, 'pair', ACCURACY, 'SNLI.tsv'),
    'scitail': of_source(SCITAIL, 'pair', ACCURACY, 'SciTail.tsv'),
    'race': Task(load_race, read_race_file, 'question', RACE.classes, ACCURACY, {'': 'RACE.tsv'}),
}
# the made-up data of data/make_sample.py
TASKS['sample'] = ROCSTORIES._replace(files={'': 'sample.tsv'})
TASKS |= {f'sample-{name}': TASKS[name]._replace(files={'': f'sample-{name}.tsv'})
          for name in ('cola', 'rte', 'mrpc', 'stsb', 'race')}
