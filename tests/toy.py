"""Toy stories, a toy model folder and runs of train.py on them, for several test files."""

import contextlib
import csv
import io
import os
from pathlib import Path

import numpy as np
from reference import GOLDENS

import train
from tasks.stories import ENDINGS, LABEL, SENTENCES, TEST_NAME, VAL_NAME

ROOT = Path(__file__).parents[1]
TOY = GOLDENS / 'loader' / 'model'                     # 124 tokens, 24 positions, 3 blocks 16 wide
VOCABULARY, MERGES = 'encoder_bpe_40000.json', 'vocab_40000.bpe'
HEADER = ['InputStoryid', *SENTENCES, *ENDINGS, LABEL]
WORDS = 'the cat sat and dad found new red ball in park mom like play rain old day sad happy friend'.split()
NO_DROPOUT = [f'--{name}_pdrop=0' for name in ('embd', 'attn', 'resid', 'clf')]


def as_csv(rows, delimiter=',', end='\n'):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(rows)
    return out.getvalue()


def write(path, rows, **kwargs):
    """Write rows as a CSV file; returns its path as a string."""
    path.write_text(as_csv(rows, **kwargs), newline='', encoding='utf-8')
    return str(path)


@contextlib.contextmanager
def without_rights(folder):
    """In this context the folder may not be read, not even by root, who becomes another user."""
    user, mode = os.geteuid(), os.stat(folder).st_mode
    os.chmod(folder, 0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        os.chmod(folder, mode)


def story(i, label=1):
    """A row of a story file."""
    return [f'id-{i}', *(f'Sentence {k} of story {i}, with "quotes".' for k in range(1, 5)), f'Ending {i}a.',
            f'Ending {i}b.', str(label)]


def folder_of(folder, n=20):
    """A folder with two story files of n stories each."""
    for name in (VAL_NAME, TEST_NAME):
        write(folder / name, [HEADER] + [story(i, 1 + i % 2) for i in range(n)])
    return folder


def toy_stories(n, seed):
    """Rows of stories whose right ending says `happy`, the wrong one `sad`."""
    rng = np.random.RandomState(seed)
    rows = [HEADER]
    for i in range(n):
        sentences = [' '.join(rng.choice(WORDS[:17], 3)) for _ in range(4)]
        endings = ['mom sad', 'mom happy'][::-1 if i % 2 else 1]
        rows.append([f'id-{seed}-{i}', *sentences, *endings, str(1 + (i % 2 == 0))])
    return rows


def with_stories(folder):
    """A folder with the two story files: 50 stories to train on, 11 to test."""
    write(folder / VAL_NAME, toy_stories(50, 0))
    write(folder / TEST_NAME, toy_stories(11, 1))       # odd, so that the last batch of evaluation is short
    return folder


def toy_argv(folder, *argv):
    """Options of a run on the stories in `folder` that takes a second: 20 updates, two evaluations."""
    return ['--data_dir', str(folder), '--model_path', str(TOY), '--n_embd', '16', '--n_head', '4', '--n_layer', '3',
            '--n_ctx', '24', '--n_valid', '10', '--n_batch', '2', '--n_gpu', '2', '--lr', '1e-2', '--n_iter', '2',
            '--log_dir', str(folder / 'log'), '--save_dir', str(folder / 'save'),
            '--submission_dir', str(folder / 'submission'), '--device', 'cpu', *argv]


def toy_run(folder, *argv):
    """Run train.main on the stories in `folder`; returns its results."""
    return train.main(train.parse_args(toy_argv(folder, *argv)))


def files(folder):
    """{path: contents} of the files that runs have written, except locks."""
    return {path: path.read_bytes() for name in ('log', 'save') for path in sorted((folder / name).rglob('*'))
            if path.is_file() and not path.name.endswith('.lock')}
