"""--dataset own: the reader's own file of examples, as a task, without a line of code.

The training file says what the classes are. They are kept in config.json of the run, as are the options that say which
columns are read, so that a run can be used without its training file.
"""

import csv
import math
import random
import re
from argparse import Namespace
from collections import Counter
from typing import NamedTuple

from tasks.base import Split, Task, as_text, unscored
from tasks.readers import doubled_quotes, read_rows
from tasks.stories import N_VALID, SPLIT_SEED
from text_utils import has_tokens

# --form -> the form of examples.FORMS, the least and the greatest number of columns, and what these are
COLUMNS = {
    'text': ('text', 1, math.inf, 'one column, or several whose texts are joined'),
    'pair': ('pair', 2, 2, 'two columns: first text,second text'),
    'both': ('both', 2, 2, 'two columns, whose order does not matter'),
    'choices': ('question', 4, math.inf, 'context,question,answer,answer,... or without a question '
                'context,,answer,answer,...'),
}
METRICS = {'class': ('accuracy', 'f1', 'matthews'), 'right answer': ('accuracy',), 'number': ('pearson', 'spearman')}
DEFAULTS = dict(n_batch=32, n_gpu=1, n_valid=None)  # of train.py's options
VALID_PART = 5  # without --valid, a fifth of the examples, at most N_VALID, are for validation
FEW, MANY = 10, 50  # a class with fewer examples, and more classes than this, look wrong
NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')
WHOLE = re.compile(r'[+-]?\d+(\.0+)?')
ID = re.compile(r'(?=.*\d)\S{1,40}')  # a text without blanks, with a digit


def columns_of(text: str) -> list[str]:
    """'title,"a, b"' -> ['title', 'a, b']"""
    try:
        return [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]
    except csv.Error as e:
        raise ValueError(f'--text {text}: {e}') from None


def fields_of(form: str, texts: list[str]) -> list[str]:
    """The fields of an example, from the texts of its columns; form: of examples.FORMS."""
    return [' '.join(filter(None, texts))] if form == 'text' else texts


def first_empty(form: str, fields: list[str]) -> int | None:
    """The index of the first field without tokens, None without one. The question may be empty."""
    for i, field in enumerate(fields):
        if not has_tokens(field) and (form, i) != ('question', 1):
            return i
    return None


class Rows(NamedTuple):
    """The rows of a file."""
    path: str
    places: list  # 'line 3', for messages
    texts: list  # of each row the texts of its columns
    labels: list | None  # as text; None in a blank row
    notes: list  # what looks wrong


def read_own_rows(path: str, options: Namespace, labelled: bool = False, found=None) -> Rows:
    """The rows of a file. labelled: each needs texts and a label, and blank rows are left out; otherwise all or none
    have a label, and all are predicted. found: rows as `read_rows` gives them, instead of those of the file."""
    names, form, rows = columns_of(options.text), COLUMNS[options.form][0], Rows(path, [], [], [], [])
    columns, blank, empties = [name for name in names if name], [], []
    found = found or read_rows(path, [*columns, options.label] if labelled else columns, options.label)
    for place, values in found:
        texts, label = [str(value) for value in values[:len(columns)]], values[len(columns)]
        label = ' '.join((label if isinstance(label, str) else as_text(label)).split())
        if is_blank := not (label or any(texts)):
            blank.append(f'{path}, {place}')
            if labelled:
                continue
        if len(columns) < len(names):
            texts.insert(1, '')  # no question
        empty = first_empty(form, fields_of(form, texts))
        if empty is not None:
            empties.append(f'{path}, {place}: {" and ".join(columns) if form == "text" else names[empty]} is empty')
            if labelled:
                raise ValueError(empties[0])
        rows.places.append(place)
        rows.texts.append(texts)
        rows.labels.append(None if is_blank else label)
    if not rows.places:
        raise ValueError(f'{path} has no examples')
    rows.notes.extend(doubled_quotes(path, (text for texts in rows.texts for text in texts)))
    if blank and labelled:
        rows.notes.append(f'{blank[0]} is blank, as {len(blank)} rows are; they are left out')
    if empties:
        rows.notes.append(f'{empties[0]}, as are the texts of {len(empties)} rows; they are predicted')
    if '' not in rows.labels and any(rows.labels):
        return rows
    if labelled or any(rows.labels):
        why = '' if labelled else ', but other examples have a label'
        raise ValueError(f'{path}, {rows.places[rows.labels.index("")]}: {options.label} is empty{why}')
    return rows._replace(labels=None)


def listed(names) -> str:
    """'a, b, c, ...'"""
    return ', '.join(names[:10]) + (', ...' if len(names) > 10 else '')


def all_numbers(texts) -> bool:
    return all(map(NUMBER.fullmatch, texts))


def classes_of(rows: Rows, options: Namespace) -> tuple:
    """The names of the classes: the labels of the training examples, or the columns of the answers."""
    if options.number:
        return ()
    if options.form == 'choices':
        names = tuple(columns_of(options.text)[2:])
        numbers = ({str(base + i) for i in range(len(names))} - {*names} for base in (0, 1))
        if options.label_base is None and any(of_base.issuperset(rows.labels) for of_base in numbers):
            raise ValueError(f'{rows.path}, {rows.places[0]}: {options.label} {rows.labels[0]} may be counted from 0 '
                             'or from 1: --label_base says which')
        return names
    classes = tuple(sorted(set(rows.labels)))
    if len(classes) == 1:
        raise ValueError(f'{rows.path}: all {len(rows.labels)} examples have the same {options.label}, {classes[0]}: '
                         'there is nothing to learn')
    if len(classes) == len(rows.labels):
        raise ValueError(f'{rows.path}: no two examples have the same {options.label}, so it does not name classes'
                         + ('; for numbers to estimate give --number' if all_numbers(classes) else ''))
    return classes


def kind_of_labels(options: Namespace) -> str:
    """What the label is, a key of METRICS."""
    return 'number' if options.number else 'right answer' if options.form == 'choices' else 'class'


def labels_are_classes(task: Task) -> bool:
    """False where labels are numbers, or say which answer is right."""
    return bool(task.classes) and task.form != 'question'


def label_of(task: Task, base: int | None, texts: list[str], label: str) -> int | float:
    """The number of the class of an example, or its number; base: --label_base. ValueError if the label is wrong."""
    if not task.classes:
        if not (NUMBER.fullmatch(label) and math.isfinite(float(label))):
            raise ValueError(f'{label[:40]!r} is not a finite number')
        return float(label)
    if task.form == 'question':
        return right_answer(base, task.classes, texts[2:], label)
    if label not in task.classes:  # another format may write 1.0 as 1, and True as true
        label = {spelling(name): name for name in task.classes}.get(spelling(label), label)
    if label not in task.classes:
        raise ValueError(f'{label[:40]!r} is not a class of the training examples, which are {listed(task.classes)}')
    return task.classes.index(label)


def spelling(label: str) -> str:
    """A label as all formats may write it."""
    return label.lower() if label.lower() in ('true', 'false') else as_text(label)


def right_answer(base: int | None, names: tuple, answers: list[str], label: str) -> int:
    """The index of the right answer, which the label gives by its number, its column or its text."""
    last, label = len(answers) - 1, as_text(label)
    if base is not None:
        if label not in [str(base + i) for i in range(last + 1)]:
            raise ValueError(f'{label[:40]!r} is not a number of an answer, {base} to {base + last}')
        return int(label) - base
    found = {i for i, (name, answer) in enumerate(zip(names, answers, strict=True))
             if label.lower() == name.lower() or label == ' '.join(as_text(answer).split())}
    if len(found) != 1:
        why = 'is more than one answer' if found else f'is neither the text of an answer nor one of {listed(names)}'
        raise ValueError(f'{label[:40]!r} {why}')
    return found.pop()


def to_split(task: Task, options: Namespace, rows: Rows) -> Split:
    """The rows as fields, with class numbers or numbers as labels."""
    examples = [fields_of(task.form, texts) for texts in rows.texts]
    fields = tuple(map(list, zip(*examples, strict=True)))
    if rows.labels is None:
        return Split(fields, None, notes=tuple(rows.notes))
    labels = []
    for place, texts, label in zip(rows.places, rows.texts, rows.labels, strict=True):
        try:
            labels.append(unscored(task) if label is None else label_of(task, options.label_base, texts, label))
        except ValueError as e:
            raise ValueError(f'{rows.path}, {place}: {options.label} {e}') from None
    return Split(fields, labels, notes=tuple(rows.notes))


def own_task(options: Namespace, classes: tuple, positive: int) -> Task:
    """The task of own data with these classes. positive: the one that F1 is of."""
    kind = kind_of_labels(options)
    metrics = METRICS[kind] if kind != 'class' else ('accuracy', 'f1') if len(classes) == 2 else ('accuracy',)
    metrics = tuple(dict.fromkeys([options.metric or metrics[0], *metrics]))
    return Task(None, COLUMNS[options.form][0], classes, metrics, {'': f'{options.desc}.tsv'}, positive=positive,
                ties_by_cost=True,  # small validation sets have many equal scores
                reader=read_own)


def load(options: Namespace, train_rows=None) -> tuple[Task, tuple[Split, Split, Split | None]]:
    """The task, and training, validation and test examples, the last if there are any.

    train_rows: what `read_rows` gives for the training file, if the examples do not come from a file.
    """
    rows = read_own_rows(options.train, options, True, train_rows)
    if train_rows is None and all(map(WHOLE.fullmatch, rows.labels)):  # 1.0 is 1, but version 2.0 is not 2
        rows = rows._replace(labels=[as_text(label) for label in rows.labels])
    classes, counts = classes_of(rows, options), Counter(rows.labels)
    if options.metric == 'f1' and len(classes) != 2:
        raise ValueError(f'--metric f1 is for two classes: {rows.path} has {len(classes)}')
    # F1 is of the rarer class, which is the one that is looked for; of two equal ones, of the last
    rarest = min(reversed(range(len(classes))), key=lambda i: counts[classes[i]], default=0)
    task = own_task(options, classes, rarest)
    train = to_split(task, options, rows)._replace(notes=tuple(doubts(task, options, rows)))
    if options.valid:
        valid = to_split(task, options, read_own_rows(options.valid, options, labelled=True))
        order = random.Random(SPLIT_SEED).sample(range(len(train.labels)), len(train.labels))
        train = train.take(order)._replace(notes=train.notes)  # files are often sorted by class
    else:
        train, valid = split_off(task, options, train)
    return task, (train, valid, task.read(options.test, options) if options.test else None)


def saved_task(config: dict) -> Task:
    """The task of a run of own data, from its config.json, without its training file."""
    return own_task(Namespace(**config['options']), tuple(config['classes']), config['positive'])


def read_own(task: Task, path: str, options: Namespace) -> Split:
    """The examples of one file, labelled or not."""
    return to_split(task, options, read_own_rows(path, options))


def split_off(task: Task, options: Namespace, split: Split) -> tuple[Split, Split]:
    """Training and validation examples, by the original's seed, with the classes in the same proportion in both."""
    from sklearn.model_selection import train_test_split
    n = len(split.labels)
    n_valid = options.n_valid or min(N_VALID, n // VALID_PART)
    counts = Counter(split.labels)
    by_class = labels_are_classes(task)
    single = [i for i, label in enumerate(split.labels) if by_class and counts[label] == 1]  # these are trained on
    rest = sorted({*range(n)} - {*single})
    if not 0 < n_valid < len(rest):
        raise ValueError(f'{n_valid} of the {n} examples of {options.train} cannot be set aside for validation: give '
                         '--valid FILE or another --n_valid')
    notes, stratify = list(split.notes), [split.labels[i] for i in rest] if by_class else None
    if single:
        notes.append('classes with one example have none for validation: '
                     + listed([task.classes[split.labels[i]] for i in single]))
    if by_class and min(n_valid, len(rest) - n_valid) < len(counts) - len(single):
        stratify = None
        notes.append(f'{n_valid} validation examples of {len(rest)} cannot have all classes: they are drawn at random')
    parts = train_test_split(rest, test_size=n_valid, random_state=SPLIT_SEED, stratify=stratify)
    return split.take(parts[0] + single)._replace(notes=tuple(notes)), split.take(parts[1])


def doubts(task: Task, options: Namespace, rows: Rows):
    """Sentences about what looks wrong with the training examples."""
    yield from rows.notes
    for name, texts in zip(columns_of(options.text), zip(*rows.texts, strict=True), strict=True):
        texts = [text for text in texts if text]
        if texts and all_numbers(texts):
            yield f'all texts of column {name} are numbers, which the network reads as words'
        elif len(set(texts)) == len(texts) > 1 and all(map(ID.fullmatch, texts)):
            yield f'column {name} looks like ids, not like texts: {", ".join(texts[:3])}, ...'
    if not labels_are_classes(task):
        return
    classes = task.classes
    if len(classes) > MANY or all_numbers(classes) and any('.' in name for name in classes):
        yield (f'{options.label} has {len(classes)} classes, {listed(classes)}'
               + ('; for numbers to estimate give --number' if all_numbers(classes) else ''))
    few = [f'{name} ({n})' for name, n in sorted(Counter(rows.labels).items()) if n < FEW]
    if few:
        yield f'{len(few)} of {len(classes)} classes have less than {FEW} examples: {listed(few)}'


# The options of train.py for it

OPTIONS = ('train', 'valid', 'test', 'text', 'label', 'form', 'number', 'label_base', 'metric')


def add_options(parser):
    """The options of --dataset own. Those that are not given are None."""
    group = parser.add_argument_group('data of your own (--dataset own)', 'csv, tsv (no quotes), jsonl or parquet')
    group.add_argument('--train', metavar='FILE', help='training examples')
    group.add_argument('--text', metavar='COLUMNS', help='columns of the texts: title,body. A name with a comma is '
                       'written between double quotes. What each --form takes: '
                       + '; '.join(f'{form}: {what}' for form, (*_, what) in COLUMNS.items()))
    group.add_argument('--label', metavar='COLUMN', help='column of the class; with --form choices of the right '
                       "answer, given by its column's name or its exact text")
    group.add_argument('--form', choices=COLUMNS, help='what an example is (default: text)')
    group.add_argument('--number', action='store_true', default=None, help='the label is a number to estimate')
    group.add_argument('--label_base', type=int, choices=[0, 1], help='with --form choices: the label is the number of '
                       'the right answer, counted from 0 or from 1')
    group.add_argument('--metric', choices=dict.fromkeys(sum(METRICS.values(), ())),
                       help='score that chooses the best epoch (default: accuracy, with --number pearson). F1 is that '
                       'of the rarer of two classes')
    group.add_argument('--valid', metavar='FILE', help='validation examples (default: --n_valid of the training file, '
                       f'a fifth but at most {N_VALID}, stratified by class)')
    group.add_argument('--test', metavar='FILE', help='examples to predict after training, labelled or not')


def check_options(args):
    """Complete the options of own data. ValueError for those that are missing, do not fit, or have no effect."""
    given = [name for name in OPTIONS if getattr(args, name) is not None]
    if args.predict:
        if given:
            raise ValueError(f'--{given[0]} has no effect with --predict: {args.desc} knows its columns and classes')
        return
    if args.dataset != 'own':
        if given:
            raise ValueError(f'--{given[0]} needs --dataset own')
        return
    for name in ('train', 'text', 'label'):
        if not getattr(args, name):
            raise ValueError(f'--dataset own needs --{name}: --train reviews.csv --text title,body --label stars')
    args.form = args.form or 'text'
    columns = columns_of(args.text)
    _, least, most, what = COLUMNS[args.form]
    if not least <= len(columns) <= most:
        raise ValueError(f'--text {args.text}: --form {args.form} takes {what}')
    for i, name in enumerate(columns):
        if not name and not (args.form == 'choices' and i == 1):
            raise ValueError(f'--text {args.text}: column {i + 1} has no name')
        if name and name.lower() in (other.lower() for other in [*columns[:i], args.label]):
            raise ValueError(f'column {name} is named twice in --text and --label')
    if args.form == 'choices' and args.number:
        raise ValueError('--number has no effect with --form choices: the label is the right answer')
    kind = kind_of_labels(args)
    if args.metric not in (None, *METRICS[kind]):
        raise ValueError(f'--metric {args.metric}: where the label is a {kind}, scores are {", ".join(METRICS[kind])}')
    args.analysis |= bool(args.test)  # a test file is there to be predicted
