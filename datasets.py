"""From the files of a task to fields of text, and from fields of ids to the arrays the network takes."""

import contextlib
import functools
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
from workers import one_at_a_time, share_out

SPLIT_SEED = 3535999445                     # the original's, of the split into training and validation stories

VAL_NAME = 'cloze_test_val__spring2016 - cloze_test_ALL_val.csv'
TEST_NAME = 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv'
SPECIAL = ('_start_', '_delimiter_', '_classify_')       # added to the vocabulary, in this order
SENTENCES = [f'InputSentence{i}' for i in range(1, 5)]
ENDINGS = ['RandomFifthSentenceQuiz1', 'RandomFifthSentenceQuiz2']
LABEL = 'AnswerRightEnding'
JOB = 2 ** 18                               # characters that a process encodes at a time, a fifth of a second's work
PER_PROCESS = 2 ** 22                       # characters that pay for starting a process, which takes two seconds
LARGEST_GROUP = 8                           # examples with the same context that are evaluated together


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
    fields = read_cloze(path, labelled=True)
    n = len(fields[0])
    if not 0 < n_valid < n:
        raise ValueError(f'{path} has {n} stories, so n_valid={n_valid} of them cannot be set aside for validation')
    order = np.random.RandomState(SPLIT_SEED).permutation(n).tolist()  # as in scikit-learn, which takes long to import
    return tuple(tuple([field[i] for i in chosen] for field in fields)
                 for chosen in (order[n_valid:][:n_train], order[:n_valid]))


def rocstories(data_dir: str, n_train: int | None = None, n_valid: int = 374):
    """The Story Cloze Test as the port returns it: training and validation as `split_cloze` has them, and (stories,
    endings 1, endings 2) of the test file."""
    train, valid = split_cloze(find_cloze_file(data_dir, 'val'), n_valid, n_train)
    return train, valid, read_cloze(find_cloze_file(data_dir, 'test'), labelled=False)[:3]


# How the fields of an example become the K sequences that the network reads (section 3.3 of the paper). A field is a
# list of ids, or the lengths of such lists: the sum of two lists is both texts as one, that of two lengths its length.
FORMS = {
    'text': lambda text: [(text,)],
    'pair': lambda first, second: [(first, second)],                   # premise and hypothesis
    'both': lambda first, second: [(first, second), (second, first)],  # two texts without a natural order
    'choices': lambda context, *answers: [(context, answer) for answer in answers],
    'question': lambda context, question, *answers: [(context + question, answer) for answer in answers],
}


def head_type(form: str, classes):
    """DoubleHeadModel's task_head_type for a form and its classes; no classes: the label is a number."""
    if form in ('choices', 'question'):
        return 'multiple_choice'
    n_out = len(classes) or 1                                          # no classes: one output, the number
    return ('similarity' if form == 'both' else 'classification', n_out)


def kept_lengths(form: str, lengths, n_ctx: int, max_len: int):
    """How many ids of each field, from its beginning, are used in sequences of n_ctx: lengths (N, F) -> (N, F).

    choices: each field is cut to max_len, as in the original; then, with --predict, the end of the context where the
    run had shorter examples. question: the context loses its end; question and answers are cut, as two texts are, only
    where they exceed half of n_ctx. Two texts: the longer loses its end first: with room for 6 ids, 9 and 2 become 4
    and 2, and 9 and 8 become 3 and 3.
    """
    if form == 'text':
        return np.minimum(lengths, n_ctx - 2)
    room = n_ctx - 3
    if form == 'choices':
        context, answers = np.split(np.minimum(lengths, min(max_len, room)), [1], axis=1)           # (N, 1), (N, K)
        return np.hstack([np.minimum(context, room - answers.max(1, keepdims=True)), answers])
    if form == 'question':
        context, question, answers = np.split(lengths, [1, 2], axis=1)                    # (N, 1), (N, 1), (N, K)
        question, answers = kept_of_two(question, answers, np.maximum(n_ctx // 2, room - context))
        return np.hstack([np.minimum(context, room - question - answers.max(1, keepdims=True)), question, answers])
    return np.hstack(kept_of_two(*np.split(lengths, 2, axis=1), room))


def kept_of_two(first, second, room):
    """What is kept of two texts that share `room`: lengths (N, 1), and (N, K) for one of K second texts."""
    longest = second.max(1, keepdims=True)
    return (np.minimum(first, np.maximum(room - longest, room - room // 2)),
            np.minimum(second, np.maximum(room - first, room // 2)))


def sequence_lengths(form: str, kept):
    """Real tokens in each of the K sequences of N examples: lengths of fields (N, F) -> (N, K)."""
    return np.stack([sum(texts) + len(texts) + 1 for texts in FORMS[form](*kept.T)], axis=1)


def lengths_of(fields):
    """The number of ids of each text of F fields, each a Ragged or N lists of ids: (N, F)."""
    return np.stack([field.lengths if isinstance(field, Ragged) else np.fromiter(map(len, field), np.int64, len(field))
                     for field in fields], axis=1)


def fit_n_ctx(splits, n_ctx: int, form: str = 'choices') -> tuple[int, int, int]:
    """What the data needs: n_ctx, at most the given one; the length that fields are cut to; how many examples are cut.

    splits: tuples of fields, each N lists of ids, or a Ragged.
    """
    if n_ctx < 6:
        raise ValueError(f'n_ctx={n_ctx}: at least 6 are needed for three special tokens and the texts')
    lengths, max_len = np.concatenate([lengths_of(fields) for fields in splits]), n_ctx // 2 - 2     # (N, F)
    kept = kept_lengths(form, lengths, n_ctx, max_len)                 # (N, F)
    return int(sequence_lengths(form, kept).max()), max_len, int((kept < lengths).any(1).sum())


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
    """N lists of ids. Equal lists are stored once, and all of them in one flat array: two bytes an id, where Python's
    lists take some forty."""

    def __init__(self, ids, ends, rows):
        self.ids, self.ends = ids, ends                                # (all ids,), (D,)  where each distinct list ends
        self.rows = rows                                               # (N,)  which of them each list is

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return self.ids[self.ends[row - 1] if row else 0:self.ends[row]].tolist()

    @property
    def lengths(self):
        """(N,)  the number of ids of each list"""
        return np.diff(self.ends, prepend=0)[self.rows]


def ids_of(encoder, texts):
    """The ids of all texts in a row, and how many each has: arrays."""
    encoded = encoder.encode(texts, verbose=False)
    dtype = np.uint16 if len(encoder.encoder) <= 2 ** 16 else np.int32
    return np.fromiter(itertools.chain.from_iterable(encoded), dtype), np.fromiter(map(len, encoded), np.int64)


def encode_texts(fields, encoder) -> list[Ragged]:
    """The ids of each field, a list of texts. Each distinct text is encoded once, with a progress bar at a terminal.

    Long data is encoded in several processes, in which `encoder` is a copy of the given one.
    """
    row_of = {}                                                        # text -> the number of texts before it
    rows = [np.fromiter((row_of.setdefault(text, len(row_of)) for text in field), np.int32, len(field))
            for field in fields]
    texts = list(row_of)
    del row_of
    ends = np.cumsum([len(text) for text in texts])                    # in characters
    total = int(ends[-1]) if texts else 0
    cuts = [0, *np.unique(np.searchsorted(ends, range(JOB, total, JOB), side='right')).tolist(), len(texts)]
    jobs = [texts[lo:hi] for lo, hi in itertools.pairwise(cuts) if lo < hi]
    sizes = [sum(map(len, job)) for job in jobs]
    n_proc = min(os.cpu_count(), total // PER_PROCESS, len(jobs))
    with tqdm(desc='encoding', total=total, unit_scale=True, unit=' characters', ncols=80, leave=False,
              disable=None) as bar:
        parts = share_out(functools.partial(ids_of, encoder), jobs, n_proc, bar, sizes)
    ids, lengths = zip(*parts, strict=True) if parts else ([np.empty(0, np.uint16)], [np.empty(0, np.int64)])
    ids, ends = np.concatenate(ids), np.cumsum(np.concatenate(lengths))
    return [Ragged(ids, ends, one) for one in rows]


def encode_once(fields, encoder, files, folder) -> list[Ragged]:
    """`encode_texts`, remembered in `folder`: a second run needs neither the text tools nor their time.

    fields: lists of texts. files: vocabulary and merges. The name of the file is a hash of all that ids depend on: the
    texts, `files`, text_utils.py and the versions of the libraries. A damaged file is written anew. Of several
    processes one encodes, and the others wait.
    """
    versions = [platform.python_version(), *(importlib.metadata.version(name) for name in ('spacy', 'ftfy'))]
    key = hashlib.sha256(json.dumps(versions).encode())
    for path in (*files, text_utils.__file__):
        with open(path, 'rb') as f:
            key.update(hashlib.sha256(f.read()).digest())
    key.update(hash_texts(fields).digest())
    path = os.path.join(folder, f'{key.hexdigest()}.npz')
    with one_at_a_time(path):
        encoded = remembered(path, fields)
        if encoded is None:
            encoded = encode_texts(fields, encoder)
            with write_whole(path, 'wb') as f:
                np.savez(f, ids=encoded[0].ids, ends=encoded[0].ends,
                         **{f'rows_{i}': one.rows for i, one in enumerate(encoded)})
    return encoded


def remembered(path, fields):
    """What `encode_once` wrote for these fields; None if the file is missing or damaged (zip files have check sums)."""
    if os.path.isfile(path):
        with contextlib.suppress(Exception):                           # numpy raises a dozen kinds for damaged files
            check_archive(path)
            with np.load(path, allow_pickle=False) as saved:
                ids, ends = saved['ids'], saved['ends']
                encoded = [Ragged(ids, ends, saved[f'rows_{i}']) for i in range(len(fields))]
            if [len(one) for one in encoded] == [len(field) for field in fields]:
                return encoded
    return None


def hash_ids(fields):
    """The sha256 of what `encode_texts` gave for several fields."""
    digest = hashlib.sha256()
    for part in (fields[0].ids, fields[0].ends, *(field.rows for field in fields)):
        digest.update(part)
    return digest


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
        self.form, self.fields, self.encoder, self.n_ctx = form, fields, encoder, n_ctx
        self.labels = labels if labels is None else np.array(labels)   # (N,)  integers, or floats
        lengths = lengths_of(fields)                                   # (N, F)
        self.kept = kept_lengths(form, lengths, n_ctx, max_len)        # (N, F)  ids of each field that are used
        self.n_cut = int((self.kept < lengths).any(1).sum())           # examples that are not used as a whole
        self.lengths = sequence_lengths(form, self.kept)               # (N, K)  real tokens of each sequence

    def __len__(self):
        return len(self.lengths)

    def batch(self, indices):
        """X (B, K, n_ctx, 2), M (B, K, n_ctx) of the examples `indices`; see `pack`."""
        examples = ([field[i][:n] for field, n in zip(self.fields, self.kept[i], strict=True)] for i in indices)
        return pack([FORMS[self.form](*fields) for fields in examples], self.encoder, self.n_ctx)

    def batches(self, n: int, n_batch: int) -> list:
        """The first n examples for evaluation: indices (G, Q) of G groups of Q examples, at most n_batch in all.

        The examples of a group have the same context, which is then computed once; Q is 1 where the form is not
        'question'. Groups of like length are together, so that there is less padding.
        """
        contexts = self.fields[0].rows[:n].tolist() if self.form == 'question' else range(n)
        longest, limit, groups = self.lengths[:n].max(1).tolist(), min(n_batch, LARGEST_GROUP), {}
        for i, context in enumerate(contexts):
            groups.setdefault(context, []).append(i)
        groups = [group[i:i + limit] for group in groups.values() for i in range(0, len(group), limit)]
        groups.sort(key=lambda group: (len(group), max(longest[i] for i in group)))
        batches = []
        for size, same in itertools.groupby(groups, len):
            together, step = np.array([*same]), n_batch // size
            batches += [together[i:i + step] for i in range(0, len(together), step)]
        return batches
