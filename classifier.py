"""Classifiers from Python: train one on a file, a DataFrame or lists of examples, load any finished run of train.py.

    import classifier
    model = classifier.fit('reviews.csv', text='title,body', label='stars', desc='reviews')
    model = classifier.load('save/reviews')                # later, without reviews.csv
    model.predict(['A quiet farm.'])                       # -> [('5', {'1': 0.02, ..., '5': 0.71})]
"""

import csv
import io
import os
from collections.abc import Mapping, Set

import numpy as np
import pandas
import torch

import train
from common.checkpoint import Run
from common.device import Ranks, device_of
from common.predict import examples_of, logits_of, task_of_trained
from common.trained import open_trained
from tasks import own
from tasks.base import Split
from tasks.readers import find_column, find_columns, plain

# types of labels, and how a class gets its type back from its name
LABELS = {'str': str, 'int': int, 'float': float, 'bool': lambda name: name.lower() == 'true'}


def fit(examples, labels=None, **options):
    """Train as `train.py --dataset own` does, with its output and its files, and return the `Classifier`.

    examples: the path of a file, with text= and label= the names of its columns; a DataFrame, with these or with a list
    of labels; or a list of texts, or of tuples of texts as `Classifier.predict` takes them, with the list of their
    labels. The classes have the type of the labels. options: options of train.py by name; a flag is True.

    Raises ValueError, with the index, for an example or a label that is missing or something else.
    """
    rows, label_type = None, 'str'
    for name in ('seeds', 'dataset', 'train'):
        if options.get(name) is not None:
            raise ValueError(f'{name} has no effect here: fit trains one network, on the examples that it is given')
    for name in ('valid', 'test'):
        if not isinstance(options.get(name), (str, os.PathLike, type(None))):
            raise ValueError(f'{name} is of type {type(options[name]).__name__}: give the path of a file')
    if labels is not None or not isinstance(examples, (str, os.PathLike)):
        rows, label_type, options = rows_of(examples, labels, options)
        examples = 'examples'
    args = train.parse_args(argv_of(dataset='own', train=os.fspath(examples), **options))
    args.label_type = label_type  # a key of LABELS, for config.json
    train.main(args, rows)
    return load(os.path.join(args.save_dir, args.desc), device=args.device, dtype=args.dtype)


def rows_of(examples, labels, options):
    """Examples as `read_rows` gives those of a file; the type of the labels; and options with the columns' names."""
    names, label_name = options.get('text'), options.get('label')
    if names is not None:  # a column may have a number as its name
        names = list(map(str, names)) if isinstance(names, (list, tuple)) else own.columns_of(str(names))
    series_name = str(getattr(labels, 'name', None) or 'label')
    if isinstance(examples, pandas.DataFrame):
        if labels is None and label_name is not None:
            labels = [label for label, in columns_in(examples, [str(label_name)])]
        labels = as_list('labels', labels)
        if names is None:
            names, answers = list(map(str, examples)), list(map(str, labels))
            if same := [name for name, values in examples.items() if list(map(str, values)) == answers]:
                raise ValueError(f'column {same[0]} holds the labels: text= names the columns of the texts')
        examples = texts_in(examples, filter(None, names))
    elif isinstance(examples, pandas.Series) and examples.name:
        names = [str(examples.name)]
    examples = [texts_of(i, example) for i, example in enumerate(as_list('examples', examples))]
    labels = [label_of(i, label) for i, label in enumerate(as_list('labels', labels))]
    n = len(examples[0]) if examples else 0
    if not n or {*map(len, examples)} != {n} or len(labels) != len(examples):
        raise ValueError(f'{len(examples)} examples, {len(labels)} labels: each needs a label, and all as many texts')
    if names is None and options.get('form') == 'choices':
        names = ['context', 'question', *(f'answer_{i}' for i in range(1, n - 1))]
    names, types = names or [f'text_{i}' for i in range(1, n + 1)], {type(label).__name__ for label in labels}
    if len([*filter(None, names)]) != n:
        raise ValueError(f'text= names {len(names)} columns, but an example has {n} texts')
    if label_name is None:
        label_name = 'label' if series_name in names else series_name  # labels made of the texts have their name
        while label_name in names:
            label_name += '_'
    rows = [(f'example {i}', [*texts, plain(label)])
            for i, (texts, label) in enumerate(zip(examples, labels, strict=True))]
    return rows, types.pop() if len(types) == 1 else 'str', dict(options, text=names, label=str(label_name))


def load(folder, **options):
    """The `Classifier` of a finished run of train.py: folder is its save/DESC. options: device, dtype, n_batch, ...

    Raises FileNotFoundError or ValueError where files are missing, damaged, or do not belong together.
    """
    save_dir, desc = os.path.split(os.path.abspath(folder))
    return Classifier(train.parse_args(argv_of(predict='-', save_dir=save_dir, desc=desc, **options)))


class Classifier:
    """A trained network that takes texts. `classes` are the names of its classes, or what they were in the labels given
    to `fit`: whole numbers, True and False. Without classes it estimates a number."""

    def __init__(self, args):
        self.args = args
        self.trained = open_trained(args)
        self.task = task_of_trained(self.trained)
        names, kind = self.task.classes, LABELS[getattr(self.trained.options, 'label_type', 'str')]
        self.classes = tuple(map(kind, names)) if own.labels_are_classes(self.task) else names
        self.run = Run(args, Ranks(), *device_of(args))

    def predict(self, examples):
        """For each example its class and the probabilities, {class: p}; or, without classes, a number.

        examples: a list of texts; where an example has several texts, of tuples of them: (first, second), or with
        choices (context, question, answer, ...), or as the task has them. Where the run joined the texts of several
        columns, a tuple is joined too. A DataFrame has the columns of the training file, among others.
        Raises ValueError, with the index, for an example that is something else.
        """
        names = self.columns()
        if isinstance(examples, pandas.Series) and names:
            header = list(map(str, examples.index))
            if all(find_column(header, name) for name in names if name):  # a row of a DataFrame
                if pandas.api.types.is_integer_dtype(examples.index):
                    raise ValueError('the Series may be a row or a column: give a DataFrame or a list')
                examples = examples.to_frame().T
        if isinstance(examples, pandas.DataFrame) and names:
            examples = texts_in(examples, names)
        fields = [self.checked(i, texts_of(i, example)) for i, example in enumerate(as_list('examples', examples))]
        if not fields:
            return []
        split = Split(tuple(map(list, zip(*fields, strict=True))), None)
        logits = logits_of(self.run, self.trained, examples_of(self.trained, self.task, split))
        if not self.classes:
            return self.task.predictions(logits, self.trained.config['scale']).tolist()
        return [(self.classes[row.argmax()], dict(zip(self.classes, row.tolist(), strict=True)))
                for row in logits.softmax(1)]

    def columns(self):
        """The names of the columns of the texts of an example, '' for no question; empty where a task has none."""
        if self.trained.options.dataset == 'own':
            return own.columns_of(self.trained.options.text)
        return self.task.files.columns if self.task.files else ()

    def checked(self, i, texts):
        """The fields of example i. ValueError if it has not as many texts as the network was trained on."""
        form, n_answers = self.task.form, len(self.classes)
        n = {'text': 1, 'pair': 2, 'both': 2, 'choices': 1 + n_answers, 'question': 2 + n_answers}[form]
        fields = own.fields_of(form, texts)
        if len(fields) != n:
            raise ValueError(f'example {i} has {len(fields)} texts, not {n} as the examples of {self.args.desc}')
        if own.first_empty(form, fields) is not None:
            raise ValueError(f'example {i} has an empty text')
        return fields


def columns_in(frame, names):
    """The values of these columns of a DataFrame, a tuple for each row; '' for a column without a name."""
    names = list(names)
    indices = iter(find_columns('the DataFrame', 'header', list(map(str, frame)), list(filter(None, names))))
    columns = [frame.iloc[:, next(indices)] if name else [''] * len(frame) for name in names]
    return list(zip(*columns, strict=True))


def texts_in(frame, names) -> list:
    """The texts in these columns of a DataFrame, a list for each row, as in a file: '' for a value that is missing, and
    the text of a number. ValueError, with the index, for anything else."""
    rows = []
    for i, values in enumerate(columns_in(frame, names)):
        values = ['' if pandas.isna(value) is True else value for value in map(as_python, values)]
        try:
            rows.append([str(plain(value)) for value in values])
        except (TypeError, UnicodeError):
            raise ValueError(f'example {i}: {str(values)[:80]} are not all texts or numbers') from None
    return rows


def as_python(value):
    """A scalar of numpy or torch as Python's; other values as they are."""
    is_scalar = isinstance(value, (np.generic, np.ndarray, torch.Tensor)) and value.ndim == 0
    return value.item() if is_scalar else value


def as_list(what: str, values) -> list:
    """The examples or labels as a list. ValueError for one text, which would be a list of letters, and other types."""
    try:
        if isinstance(values, (str, bytes, Mapping, Set, pandas.DataFrame)):
            raise TypeError
        return list(values)
    except TypeError:
        raise ValueError(f'{what} are of type {type(values).__name__}: give a list, also for one: [text]') from None


def texts_of(i: int, example) -> list[str]:
    """Example i as a list of texts."""
    texts = list(example) if isinstance(example, (list, tuple)) else [example]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f'example {i}: {str(text)[:40]} is not a text or a tuple of texts, but of type '
                             f'{type(text).__name__}')
    try:
        return [plain(text) for text in texts]
    except UnicodeError:
        raise ValueError(f'example {i} has half of a character, which is no text') from None


def label_of(i: int, label):
    """Label i as a str, int, float or bool; scalars of numpy and torch are converted."""
    label = as_python(label)
    kind = type(label).__name__
    if pandas.isna(label) is True or kind == 'str' and not label.strip():
        raise ValueError(f'label {i} is missing')
    if kind not in LABELS:
        raise ValueError(f'label {i}: {str(label)[:40]} is not a text or a number, but of type {kind}')
    return label


def argv_of(**options):
    """submit=True, text=['a', 'b, c'] -> ['--submit', '--text=a,"b, c"']; None and False give no option."""
    argv = []
    for name, value in options.items():
        if isinstance(value, (list, tuple)):
            csv.writer(out := io.StringIO()).writerow(value)
            value = out.getvalue().removesuffix('\r\n')
        if value is not None and value is not False:
            argv.append(f'--{name}' if value is True else f'--{name}={value}')
    return argv
