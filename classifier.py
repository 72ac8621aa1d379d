"""Classifiers from Python: train one on a file of examples, load any finished run of train.py, predict.

    import classifier
    model = classifier.fit('reviews.csv', text='title,body', label='stars', desc='reviews')
    model = classifier.load('save/reviews')                # later, without reviews.csv
    model.predict(['A quiet farm.'])                       # -> [('5', {'1': 0.02, ..., '5': 0.71})]
"""

import json
import os
import tempfile

import train
from common.checkpoint import Run
from common.device import Ranks, device_of
from common.predict import logits_of, task_of_trained
from common.trained import open_trained
from tasks import own
from tasks.base import Split


def fit(examples, labels=None, **options):
    """Train as `train.py --dataset own` does, with its output and its files, and return the `Classifier`.

    examples: the path of a file, with text= and label= the names of its columns; or a list of texts, or of tuples of
    texts as `Classifier.predict` takes them, with the list of their labels. options: options of train.py by name; a
    flag is True.
    """
    if labels is not None:
        return fit_lists([as_tuple(example) for example in as_list(examples)], list(labels), options)
    args = train.parse_args(argv_of(dataset='own', train=os.fspath(examples), **options))
    train.main(args)
    return load(os.path.join(args.save_dir, args.desc), device=args.device, dtype=args.dtype)


def fit_lists(examples, labels, options):
    """`fit` of tuples of texts, by way of a file."""
    n = len(examples[0]) if examples else 0
    if not n or {*map(len, examples)} != {n} or len(labels) != len(examples):
        raise ValueError(f'{len(examples)} examples, {len(labels)} labels: each needs a label, and all as many texts')
    names = [f'text_{i}' for i in range(1, n + 1)]
    if options.get('form') == 'choices':
        names = ['context', 'question', *(f'answer_{i}' for i in range(1, n - 1))]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'examples.jsonl')
        with open(path, 'w', encoding='utf-8') as f:
            for example, label in zip(examples, labels, strict=True):
                f.write(json.dumps({**dict(zip(names, example, strict=True)), 'label': label}, default=str) + '\n')
        return fit(path, text=','.join(names), label='label', **options)


def load(folder, **options):
    """The `Classifier` of a finished run of train.py: folder is its save/DESC. options: device, dtype, n_batch, ...

    Raises FileNotFoundError or ValueError where files are missing, damaged, or do not belong together.
    """
    save_dir, desc = os.path.split(os.path.abspath(folder))
    return Classifier(train.parse_args(argv_of(predict='-', save_dir=save_dir, desc=desc, **options)))


class Classifier:
    """A trained network that takes texts. `classes` are the names of its classes; empty: it estimates a number."""

    def __init__(self, args):
        self.args = args
        self.trained = open_trained(args)
        self.task = task_of_trained(self.trained)
        self.classes = self.task.classes
        self.run = Run(args, Ranks(), *device_of(args))

    def predict(self, examples):
        """For each example the name of its class and the probabilities, {name: p}; or, without classes, a number.

        examples: a list of texts; where an example has several texts, of tuples of them: (first, second), or with
        choices (context, question, answer, ...), or as the task has them. Where the run joined the texts of several
        columns, a tuple is joined too.
        """
        fields = [self.checked(i, as_tuple(example)) for i, example in enumerate(as_list(examples))]
        if not fields:
            return []
        split = Split(tuple(map(list, zip(*fields, strict=True))), None)
        logits = logits_of(self.run, self.trained, self.task, split)
        if not self.classes:
            return self.task.in_units(self.task.predictions(logits), self.trained.config['scale']).tolist()
        return [(self.classes[row.argmax()], dict(zip(self.classes, row.tolist(), strict=True)))
                for row in logits.softmax(1)]

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


def as_list(examples):
    """The examples as a list. A single text is refused: it would be a list of letters."""
    if isinstance(examples, str):
        raise ValueError('give a list of examples, also for one: [text]')
    return list(examples)


def as_tuple(example):
    """An example as a list of texts."""
    texts = list(example) if isinstance(example, (list, tuple)) else [example]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{str(example)[:40]} is not a text or a tuple of texts')
    return texts


def argv_of(**options):
    """n_iter=3, submit=True -> ['--n_iter=3', '--submit']; options that are None or False are left out."""
    values = {name: value for name, value in options.items() if value is not None and value is not False}
    return [f'--{name}' if value is True else
            f'--{name}={",".join(map(str, value)) if isinstance(value, (list, tuple)) else value}'
            for name, value in values.items()]
