"""From the files of a task to fields of text, and from fields of ids to the arrays the network takes."""

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import re

import numpy as np
from tqdm import tqdm

import text_utils
from readers import find_columns, read_table
from text_utils import has_tokens
from utils import check_archive, write_whole

SPLIT_SEED = 3535999445                     # the original's, of the split into training and validation stories

VAL_NAME = 'cloze_test_val__spring2016 - cloze_test_ALL_val.csv'
TEST_NAME = 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv'
SPECIAL = ('_start_', '_delimiter_', '_classify_')       # added to the vocabulary, in this order
SENTENCES = [f'InputSentence{i}' for i in range(1, 5)]
ENDINGS = ['RandomFifthSentenceQuiz1', 'RandomFifthSentenceQuiz2']
LABEL = 'AnswerRightEnding'


def cloze_rank(name: str, kind: str):
    """A key that sorts the names of story files of a kind, 'val' or 'test', the best first; None for other files.

    A name with the word `test` besides `cloze_test` wins over one with `cloze_test` alone, 2016 over later years.
    """
    words = [word.lower() for word in re.findall('[Cc]loze|[A-Z]?[a-z]+|[A-Z]+|[0-9]+', os.path.splitext(name)[0])]
    text = ' '.join(words)
    explicit = kind in text.replace('cloze test', 'cloze').split()
    implicit = kind == 'test' and 'cloze test' in text and not {'val', 'valid', 'validation', 'train', 'dev'} & {*words}
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
    names = [name for name in sorted(os.listdir(data_dir)) if cloze_rank(name, kind) is not None]
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


def split_cloze(path: str, n_valid: int, n_train: int | None = None):
    """The stories of the labelled file as (stories, endings 1, endings 2, labels), for training and for validation.

    The split is the original's: n_valid stories are for validation, and of the rest all or the first n_train train.
    """
    from sklearn.model_selection import train_test_split
    fields = read_cloze(path, labelled=True)
    n = len(fields[0])
    if not 0 < n_valid < n:
        raise ValueError(f'{path} has {n} stories, so n_valid={n_valid} of them cannot be set aside for validation')
    splits = train_test_split(*fields, test_size=n_valid, random_state=SPLIT_SEED)
    return tuple(field[:n_train] for field in splits[0::2]), tuple(splits[1::2])


def rocstories(data_dir: str, n_train: int | None = None, n_valid: int = 374):
    """The Story Cloze Test as the port returns it: training and validation as `split_cloze` has them, and (stories,
    endings 1, endings 2) of the test file."""
    train, valid = split_cloze(find_cloze_file(data_dir, 'val'), n_valid, n_train)
    return train, valid, read_cloze(find_cloze_file(data_dir, 'test'), labelled=False)[:3]


# How the fields of an example become the K sequences that the network reads (section 3.3 of the paper)
FORMS = {
    'text': lambda text: [(text,)],
    'pair': lambda first, second: [(first, second)],                   # premise and hypothesis
    'both': lambda first, second: [(first, second), (second, first)],  # two texts without a natural order
    'choices': lambda context, *answers: [(context, answer) for answer in answers],
}


def head_type(form: str, classes):
    """DoubleHeadModel's task_head_type for a form and its classes; no classes: the label is a number."""
    if form == 'choices':
        return 'multiple_choice'
    n_out = len(classes) or 1                                          # no classes: one output, the number
    return ('similarity' if form == 'both' else 'classification', n_out)


def cut(form: str, fields, n_ctx: int, max_len: int) -> list:
    """The fields (ids) of one example, short enough for sequences of n_ctx.

    choices: each field is cut to max_len, as in the original; then, with --predict, the end of the context where the
    run had shorter examples. Otherwise the longer text loses its end first: with room for 6 ids, 9 and 2 become 4 and
    2, and 9 and 8 become 3 and 3.
    """
    if form == 'choices':
        context, *answers = (field[:min(max_len, n_ctx - 3)] for field in fields)
        return [context[:n_ctx - 3 - max(map(len, answers))], *answers]
    if form == 'text':
        return [fields[0][:n_ctx - 2]]
    first, second = fields
    room = n_ctx - 3
    return [first[:max(room - len(second), room - room // 2)], second[:max(room - len(first), room // 2)]]


def sequence_lengths(form: str, fields) -> list[int]:
    """Real tokens in each of the K sequences of one example."""
    return [sum(map(len, texts)) + len(texts) + 1 for texts in FORMS[form](*fields)]


def fit_n_ctx(splits, n_ctx: int, form: str = 'choices') -> tuple[int, int, int]:
    """What the data needs: n_ctx, at most the given one; the length that fields are cut to; how many examples are cut.

    splits: tuples of fields, each N lists of ids.
    """
    if n_ctx < 6:
        raise ValueError(f'n_ctx={n_ctx}: at least 6 are needed for three special tokens and the texts')
    max_len, longest, n_cut = n_ctx // 2 - 2, 0, 0
    for split in splits:
        for fields in zip(*split, strict=True):
            short = cut(form, fields, n_ctx, max_len)
            longest = max(longest, *sequence_lengths(form, short))
            n_cut += list(map(len, short)) != list(map(len, fields))
    return longest, max_len, n_cut


def pack(sequences, encoder, n_ctx: int):
    """Pack [_start_] text [_delimiter_] text [_classify_], or with one text [_start_] text [_classify_].

    sequences: N lists of K tuples of texts, as ids. encoder: token -> id, the three special tokens included.
    Returns X (N, K, n_ctx, 2) int32, token and position ids, and M (N, K, n_ctx) float32, 1 on real tokens.
    """
    start, delimiter, classify = (encoder[token] for token in SPECIAL)
    shape = len(sequences), len(sequences[0]) if sequences else 0, n_ctx
    X, M = np.zeros((*shape, 2), dtype=np.int32), np.zeros(shape, dtype=np.float32)
    for i, example in enumerate(sequences):
        for k, texts in enumerate(example):
            ids = [start]
            for text in texts:
                ids += [*text, delimiter]
            ids[-1] = classify
            X[i, k, :len(ids), 0] = ids
            M[i, k, :len(ids)] = 1
    X[..., 1] = np.arange(len(encoder), len(encoder) + n_ctx)          # position rows follow the special ones
    return X, M


def transform_roc(X1, X2, X3, encoder, max_len: int, n_ctx: int):
    """`pack` stories and their two endings, N id lists each: X (N, 2, n_ctx, 2), M (N, 2, n_ctx)."""
    stories = ([field[:max_len] for field in story] for story in zip(X1, X2, X3, strict=True))
    return pack([FORMS['choices'](*story) for story in stories], encoder, n_ctx)


class Ragged:
    """N lists of ids in one flat array: two bytes an id, where Python's lists take some forty."""

    def __init__(self, ids, ends):
        self.ids, self.ends = ids, ends                                # (all ids,), (N,)  where each list ends

    def __len__(self):
        return len(self.ends)

    def __getitem__(self, i):
        return self.ids[self.ends[i - 1] if i else 0:self.ends[i]]


def encode_texts(texts, encoder, desc):
    """The ids of N texts, as a Ragged. A progress bar named `desc` is shown at a terminal."""
    dtype = np.uint16 if len(encoder.encoder) <= 2 ** 16 else np.int32
    parts, lengths = [np.empty(0, dtype)], []
    for lo in tqdm(range(0, len(texts), 1024), desc, ncols=80, leave=False, disable=None):
        encoded = encoder.encode(texts[lo:lo + 1024], verbose=False)
        lengths += map(len, encoded)
        parts.append(np.fromiter(itertools.chain.from_iterable(encoded), dtype))
    return Ragged(np.concatenate(parts), np.cumsum(lengths))


def encode_once(fields, encoder, files, folder):
    """`encode_texts` of each field, remembered in `folder`: a second run needs neither the text tools nor their time.

    fields: lists of texts. files: vocabulary and merges. The name of the file is a hash of all that ids depend on: the
    texts, `files`, text_utils.py and the versions of the libraries. A damaged file is written anew (zip files have
    check sums).
    """
    versions = [platform.python_version(), *(importlib.metadata.version(name) for name in ('spacy', 'ftfy'))]
    key = hashlib.sha256(json.dumps(versions).encode())
    for path in (*files, text_utils.__file__):
        with open(path, 'rb') as f:
            key.update(hashlib.sha256(f.read()).digest())
    key.update(hash_texts(fields).digest())
    path = os.path.join(folder, f'{key.hexdigest()}.npz')
    if os.path.isfile(path):
        with contextlib.suppress(Exception):                           # numpy raises a dozen kinds for damaged files
            check_archive(path)
            with np.load(path, allow_pickle=False) as saved:
                kept = [Ragged(saved[f'ids_{i}'], saved[f'ends_{i}']) for i in range(len(fields))]
            if [len(one) for one in kept] == [len(field) for field in fields]:
                return kept
    encoded = [encode_texts(field, encoder, 'encoding') for field in fields]
    with write_whole(path, 'wb') as f:
        np.savez(f, **{f'ids_{i}': one.ids for i, one in enumerate(encoded)},
                 **{f'ends_{i}': one.ends for i, one in enumerate(encoded)})
    return encoded


def hash_texts(fields):
    """The sha256 of lists of texts; which text ends where counts."""
    digest = hashlib.sha256()
    for field in fields:
        digest.update(f'{len(field)} texts\n'.encode())
        for text in field:
            digest.update(f'{len(text)} {text}'.encode('utf-8', 'surrogatepass'))
    return digest


class Examples:
    """N examples as ids; `batch` packs those of a batch when they are used, so that large tasks fit into memory."""

    def __init__(self, form: str, fields, labels, encoder, n_ctx: int, max_len: int):
        self.form, self.fields, self.encoder, self.n_ctx, self.max_len = form, fields, encoder, n_ctx, max_len
        self.labels = labels if labels is None else np.array(labels)   # (N,)  integers, or floats
        lengths = [sequence_lengths(form, self.fields_of(i)) for i in range(len(fields[0]))]
        self.lengths = np.array(lengths)                               # (N, K)  real tokens of each sequence

    def __len__(self):
        return len(self.lengths)

    def fields_of(self, i):
        """The fields (ids) of example i, cut to n_ctx."""
        return cut(self.form, [field[i] for field in self.fields], self.n_ctx, self.max_len)

    def batch(self, indices):
        """X (B, K, n_ctx, 2), M (B, K, n_ctx) of the examples `indices`; see `pack`."""
        return pack([FORMS[self.form](*self.fields_of(i)) for i in indices], self.encoder, self.n_ctx)
