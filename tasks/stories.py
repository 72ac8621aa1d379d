"""The files of the Story Cloze Test (ROCStories): names, rows, the original's split. common/examples.py makes ids."""

import os
import re
import stat
from argparse import Namespace

from tasks.base import Split, Task, as_text
from tasks.readers import doubled_quotes, read_rows
from text_utils import has_tokens
from utils import HIDDEN, is_there

SPLIT_SEED = 3535999445  # the original's, of the split into training and validation stories
N_VALID = 374  # validation stories of the original

VAL_NAME = 'cloze_test_val__spring2016 - cloze_test_ALL_val.csv'
TEST_NAME = 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv'
SENTENCES = [f'InputSentence{i}' for i in range(1, 5)]
ENDINGS = ['RandomFifthSentenceQuiz1', 'RandomFifthSentenceQuiz2']
LABEL = 'AnswerRightEnding'


def cloze_rank(name: str, kind: str):
    """A key that sorts the names of story files of a kind, 'val' or 'test', the best first; None for other files.

    A name that says the kind comes before cloze_test.csv, which is taken for the test file; then 2016 comes first.
    """
    stem, extension = os.path.splitext(name.lower())
    if extension not in ('.csv', '.tsv') or name.startswith(HIDDEN):
        return None
    stem, n_titles = re.subn('cloze[^a-z]*test', 'cloze ', stem)  # the "test" of the title says no kind
    words = {*re.findall('[a-z]+|[0-9]+', stem)}
    if kind in words and words & {'cloze', '2016', '2018'}:
        return False, '2016' not in words
    if kind == 'test' and n_titles and not words & {'val', 'valid', 'validation', 'train', 'dev'}:
        return True, '2016' not in words
    return None


def find_cloze_file(data_dir: str, kind: str) -> str:
    """Path of the 'val' (labelled: training and validation) or 'test' file of the Story Cloze Test in `data_dir`.

    The name under which the original reads it comes first, then csv and tsv files by `cloze_rank`. Raises
    FileNotFoundError, with the names looked for, or ValueError where two files are as good.
    """
    exact = VAL_NAME if kind == 'val' else TEST_NAME
    if is_there(os.path.join(data_dir, exact)):
        return os.path.join(data_dir, exact)
    if not is_there(data_dir, stat.S_ISDIR):
        raise FileNotFoundError(f'{data_dir} is not a folder: --data_dir names the folder with the stories')
    ranks = {name: cloze_rank(name, kind) for name in sorted(os.listdir(data_dir))}
    ranks = {name: rank for name, rank in ranks.items() if rank}
    if not ranks:
        raise FileNotFoundError(
            f'{data_dir} has no Story Cloze {kind} file: looked for "{exact}", then csv or tsv names with "{kind}" '
            f'and "cloze" or a year (cloze_test_{kind}__winter2018-..., cloze_test_ALL_{kind}.csv, ...)')
    best = [name for name, rank in ranks.items() if rank == min(ranks.values())]
    if len(best) > 1:
        raise ValueError(f'{data_dir} has several {kind} files ({", ".join(best)}): keep one, or name it "{exact}"')
    return os.path.join(data_dir, best[0])


def read_cloze(path: str, labelled: bool | None = None):
    """Stories of one file: lists of the four sentences joined, the first endings, the second, and labels 0 or 1.

    labelled: True wants a label in every row, False ignores them, None takes them where the file has them. The labels
    are None where there are none. Raises ValueError with file and row where something is wrong with one.
    """
    names = [*SENTENCES, *ENDINGS]
    rows = list(read_rows(path, [*names, LABEL] if labelled else names, LABEL))
    if not rows:
        raise ValueError(f'{path} has no stories')
    if not any(label for _, (*_, label) in rows):
        if labelled:
            raise ValueError(f'{path}: {LABEL} is empty in all rows: this is not the file with the labels')
        labelled = False
    stories, endings1, endings2, labels = [], [], [], []
    for i, (place, values) in enumerate(rows, start=1):
        fields, label = [str(value) for value in values[:len(names)]], as_text(values[-1])
        for name, field in zip(names, fields, strict=True):
            if not has_tokens(field):
                raise ValueError(f'{path}, {place} (story {i}): {name} is empty: {field[:40]!r} has no tokens')
        if labelled is not False:
            if label not in ('1', '2'):
                raise ValueError(f'{path}, {place} (story {i}): {LABEL} is {label[:40]!r}, not 1 or 2')
            labels.append(int(label) - 1)
        stories.append(' '.join(fields[:4]))
        endings1.append(fields[4])
        endings2.append(fields[5])
    return stories, endings1, endings2, labels or None


def split_cloze(path: str, n_valid: int, n_train: int | None = None):
    """The stories of the labelled file as (stories, endings 1, endings 2, labels), for training and for validation.

    The split is the original's: n_valid stories are for validation, and of the rest all or the first n_train train.
    """
    import numpy as np
    fields = read_cloze(path, labelled=True)
    n = len(fields[0])
    if not 0 < n_valid < n:
        raise ValueError(f'{path} has {n} stories, so n_valid={n_valid} of them cannot be set aside for validation')
    order = np.random.RandomState(SPLIT_SEED).permutation(n).tolist()  # as in scikit-learn, which takes long to import
    return tuple(tuple([field[i] for i in chosen] for field in fields)
                 for chosen in (order[n_valid:][:n_train], order[:n_valid]))


def rocstories(data_dir: str, n_train: int | None = None, n_valid: int = N_VALID):
    """The Story Cloze Test as the port returns it: training and validation as `split_cloze` has them, and (stories,
    endings 1, endings 2) of the test file."""
    train, valid = split_cloze(find_cloze_file(data_dir, 'val'), n_valid, n_train)
    return train, valid, read_cloze(find_cloze_file(data_dir, 'test'), labelled=False)[:3]


def load_stories(task: Task, options: Namespace) -> tuple[Split, Split, Split]:
    path = find_cloze_file(options.data_dir, 'val')
    labelled = split_cloze(path, options.n_valid)
    train, valid = (split_of(path, texts, labels) for *texts, labels in labelled)
    return train, valid, read_stories(task, find_cloze_file(options.data_dir, 'test'), options)


def read_stories(task: Task, path: str, options: Namespace) -> Split:
    *texts, labels = read_cloze(path)
    return split_of(path, texts, labels)


def split_of(path: str, texts: list, labels: list | None) -> Split:
    return Split(tuple(texts), labels, notes=tuple(doubled_quotes(path, texts[1] + texts[2])))
