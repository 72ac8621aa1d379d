"""From the files of a task to fields of text, and from fields of ids to the arrays the network takes."""

import os
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from text_utils import has_tokens
from utils import find_columns, read_table

SPLIT_SEED = 3535999445                     # the original's, of the split into training and validation stories

VAL_NAME = 'cloze_test_val__spring2016 - cloze_test_ALL_val.csv'
TEST_NAME = 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv'
SPECIAL = ('_start_', '_delimiter_', '_classify_')       # added to the vocabulary, in this order
SENTENCES = [f'InputSentence{i}' for i in range(1, 5)]
ENDINGS = ['RandomFifthSentenceQuiz1', 'RandomFifthSentenceQuiz2']
LABEL = 'AnswerRightEnding'


def cloze_rank(name: str, kind: str):
    """How well a file name says 'val' or 'test' of the Story Cloze Test: the least is the best; None: not at all.

    A further word `test` comes before `cloze_test` alone, and the hand-out of 2016 before later ones.
    """
    words = [word.lower() for word in re.findall('[Cc]loze|[A-Z]?[a-z]+|[A-Z]+|[0-9]+', os.path.splitext(name)[0])]
    text = ' '.join(words)
    explicit = kind in text.replace('cloze test', 'cloze').split()
    implicit = kind == 'test' and 'cloze test' in text and 'val' not in words
    if name.startswith(('.', '~$')) or not (explicit or implicit) or not re.search('cloze|2016|2018', text):
        return None                                                    # hidden files and the locks of Excel are no data
    return not explicit, 0 if '2016' in words else 2 if '2018' in words else 1


def find_cloze_file(data_dir: str, kind: str) -> str:
    """Path of the 'val' (labelled: training and validation) or 'test' file of the Story Cloze Test in `data_dir`.

    The name under which the original reads it comes first, then csv and tsv files by `cloze_rank`. Raises
    FileNotFoundError, with the names looked for, or ValueError where two files are as good.
    """
    exact = VAL_NAME if kind == 'val' else TEST_NAME
    if os.path.isfile(os.path.join(data_dir, exact)):
        return os.path.join(data_dir, exact)
    if not os.path.isdir(data_dir):
        raise FileNotFoundError(f'{data_dir} is not a folder: --data_dir names the folder with the Story Cloze files')
    names = [name for name in sorted(os.listdir(data_dir)) if cloze_rank(name, kind)]
    tables = [name for name in names if name.lower().endswith(('.csv', '.tsv'))]
    if not tables:
        raise FileNotFoundError(
            f'{data_dir} has no Story Cloze {kind} file: looked for "{exact}", then csv or tsv names with "{kind}" '
            f'and "cloze" or a year (cloze_test_{kind}__winter2018-..., cloze_test_ALL_{kind}.csv, ...)'
            + (f'; {names[0]} is neither: unpack it, or save it as CSV (UTF-8)' if names else ''))
    first = min(cloze_rank(name, kind) for name in tables)
    best = [name for name in tables if cloze_rank(name, kind) == first]
    if len(best) > 1:
        raise ValueError(f'{data_dir} has several {kind} files ({", ".join(best)}): keep one, or name it "{exact}"')
    return os.path.join(data_dir, best[0])


def read_cloze(path: str, labelled: bool | None = None):
    """Stories of one file: lists of the four sentences joined, the first endings, the second, and labels 0 or 1.

    labelled: True wants a label in every row, False ignores them, None takes them where the file has them. The labels
    are None where there are none. Raises ValueError with file and row where something is wrong with one.
    """
    header, rows = read_table(path)
    wanted = SENTENCES + ENDINGS
    columns = find_columns(path, header, [*wanted, LABEL] if labelled else wanted)[:len(wanted)]
    if not rows:
        raise ValueError(f'{path} has a header but no story')
    label = next((i for i, name in enumerate(header) if name.strip().lower() == LABEL.lower()), None)
    if label is not None and not any(row[label].strip() for _, row in rows):
        if labelled:
            raise ValueError(f'{path}: {LABEL} is empty in all rows: this is not the file with the labels')
        label = None
    stories, endings1, endings2, labels = [], [], [], []
    for i, (line, row) in enumerate(rows, start=1):
        where = f'{path}, line {line} (story {i})'
        *sentences, ending1, ending2 = fields = [row[column] for column in columns]
        for name, field in zip(wanted, fields, strict=True):
            if not has_tokens(field):
                raise ValueError(f'{where}: {name} is empty: {field[:40]!r} has no tokens')
        if label is not None and labelled is not False:
            if row[label].strip() not in ('1', '2'):
                raise ValueError(f'{where}: {LABEL} is {row[label]!r}, not 1 or 2')
            labels.append(int(row[label]) - 1)
        stories.append(' '.join(sentences))
        endings1.append(ending1)
        endings2.append(ending2)
    return stories, endings1, endings2, labels or None


def rocstories(data_dir: str, n_train: int | None = None, n_valid: int = 374):
    """The Story Cloze Test as the original splits it.

    Returns (stories, endings 1, endings 2, labels) for training and for validation, both from the labelled file, and
    (stories, endings 1, endings 2) for test. n_valid stories are for validation, and of the rest all or the first
    n_train for training.
    """
    from sklearn.model_selection import train_test_split
    path = find_cloze_file(data_dir, 'val')
    fields = read_cloze(path, labelled=True)
    test = read_cloze(find_cloze_file(data_dir, 'test'), labelled=False)[:3]
    n = len(fields[0])
    if not 0 < n_valid < n:
        raise ValueError(f'{path} has {n} stories, so n_valid={n_valid} of them cannot be set aside for validation')
    splits = train_test_split(*fields, test_size=n_valid, random_state=SPLIT_SEED)
    return tuple(field[:n_train] for field in splits[0::2]), tuple(splits[1::2]), test


def cloze_length(story, *endings, max_len):
    """Ids of one story and its longer ending, each cut to max_len."""
    return len(story[:max_len]) + max(len(ending[:max_len]) for ending in endings)


def fit_n_ctx(splits, n_ctx: int) -> tuple[int, int, int]:
    """What the data needs: n_ctx, at most the given one; the length that fields are cut to; how many stories are cut.

    splits: (stories, endings 1, endings 2) as id lists, one triple a split.
    """
    if n_ctx < 6:
        raise ValueError(f'n_ctx={n_ctx}: at least 6 are needed for three special tokens, a story and an ending')
    max_len = n_ctx // 2 - 2
    triples = [triple for split in splits for triple in zip(*split, strict=True)]
    longest = max(cloze_length(*triple, max_len=max_len) for triple in triples)
    n_cut = sum(any(len(field) > max_len for field in triple) for triple in triples)
    return min(longest + 3, n_ctx), max_len, n_cut


def transform_roc(X1, X2, X3, encoder, max_len: int, n_ctx: int):
    """Pack [_start_] story [_delimiter_] ending [_classify_], once for each ending.

    X1, X2, X3: id lists of N stories and their two endings. encoder: token -> id, the three special tokens included.
    Returns X (N, 2, n_ctx, 2) int32, token and position ids, and M (N, 2, n_ctx) float32, 1 on real tokens.
    """
    start, delimiter, classify = (encoder[token] for token in SPECIAL)
    X = np.zeros((len(X1), 2, n_ctx, 2), dtype=np.int32)
    M = np.zeros((len(X1), 2, n_ctx), dtype=np.float32)
    for i, (story, *endings) in enumerate(zip(X1, X2, X3, strict=True)):
        for k, ending in enumerate(endings):
            ids = [start, *story[:max_len], delimiter, *ending[:max_len], classify]
            X[i, k, :len(ids), 0] = ids
            M[i, k, :len(ids)] = 1
    X[..., 1] = np.arange(len(encoder), len(encoder) + n_ctx)          # position rows follow the special ones
    return X, M


def argmax(logits):
    """Predicted choice of each example: (N, K) -> (N,)."""
    return np.argmax(logits, axis=1)


class Task(NamedTuple):
    """All that train.py knows of a task."""
    load: Callable          # (data_dir, n_valid=) -> train, valid, test fields
    pack: Callable          # (fields of ids, encoder, max_len, n_ctx) -> X, M
    head: object            # DoubleHeadModel's task_head_type
    predict: Callable       # logits (N, K) -> predictions (N,)
    filename: str           # of the predictions, inside --submission_dir
    defaults: dict          # options that differ from the reference's defaults


TASKS = {
    'rocstories': Task(rocstories, transform_roc, 'multiple_choice', argmax, 'ROCStories.tsv', {}),
    # stories written for this repository and a small model pre-trained on more of them: the whole job in a minute
    'sample': Task(rocstories, transform_roc, 'multiple_choice', argmax, 'sample.tsv',
                   dict(data_dir='data/sample/', model_path='model/sample/', n_valid=120, n_batch=8, n_gpu=1, n_iter=3,
                        lr=1e-3, lr_warmup=0.15, embd_pdrop=0., attn_pdrop=0., resid_pdrop=0., clf_pdrop=0.)),
}
