"""The tasks that train.py knows: where the examples of each lie, what their labels are called, how they are scored."""

from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

from datasets import find_cloze_file, head_type, read_cloze, split_cloze


class Split(NamedTuple):
    """N examples as text."""
    texts: tuple            # fields, each a list of N texts
    labels: list | None     # class numbers, or plain numbers where the task has no classes; None: not labelled
    parts: dict = {}        # name -> slice of the examples that are also scored by themselves: {'matched': slice(9815)}
    notes: tuple = ()       # what was left out or looks wrong, one sentence each


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
    defaults: dict = {}     # options that differ from the reference's defaults

    @property
    def head(self):
        """DoubleHeadModel's task_head_type."""
        return head_type(self.form, self.classes)


def read_stories(path: str, options: Namespace) -> Split:
    """The stories of one file."""
    *texts, labels = read_cloze(path)
    return Split(tuple(texts), labels)


def load_stories(options: Namespace) -> tuple[Split, Split, Split]:
    """Story Cloze Test: training, validation, test."""
    labelled = split_cloze(find_cloze_file(options.data_dir, 'val'), options.n_valid)
    train, valid = (Split(tuple(texts), labels) for *texts, labels in labelled)
    return train, valid, read_stories(find_cloze_file(options.data_dir, 'test'), options)


ROCSTORIES = Task(load_stories, read_stories, 'choices', ('0', '1'), ('accuracy',), {'': 'ROCStories.tsv'})
TASKS = {
    'rocstories': ROCSTORIES,
    # stories written for this repository and a small model pre-trained on more of them: the whole job in a minute
    'sample': ROCSTORIES._replace(
        files={'': 'sample.tsv'},
        defaults=dict(data_dir='data/sample/', model_path='model/sample/', n_valid=120, n_batch=8, n_gpu=1, n_iter=3,
                      lr=1e-3, lr_warmup=0.15, embd_pdrop=0., attn_pdrop=0., resid_pdrop=0., clf_pdrop=0.)),
}
