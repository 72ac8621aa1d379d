"""From texts, which come from tasks/, to ids (`encode_texts`), and to the arrays of the network (`to_arrays`)."""

import hashlib
import itertools

import numpy as np

# the port has rocstories here, and its files are named by this module
from tasks.stories import SPLIT_SEED, TEST_NAME, VAL_NAME, find_cloze_file, read_cloze, rocstories  # noqa: F401

SPECIAL = ('_start_', '_delimiter_', '_classify_')  # added to the vocabulary, in this order
MOST_UNKNOWN, MOST_A_WORD = 0.01, 2  # of text that the vocabulary fits: share of unknown tokens, tokens a word
LARGEST_GROUP = 8  # examples with the same context that are evaluated together

# How the fields of an example become the K sequences that the network reads (section 3.3 of the paper). A field is a
# list of ids, or an array with the lengths of such lists: `+` joins two texts, and adds their lengths.
FORMS = {
    'text': lambda text: [(text,)],
    'pair': lambda first, second: [(first, second)],  # premise and hypothesis
    'both': lambda first, second: [(first, second), (second, first)],  # two texts without a natural order
    'choices': lambda context, *answers: [(context, answer) for answer in answers],
    'question': lambda context, question, *answers: [(context + question, answer) for answer in answers],
}


def kept_lengths(form: str, lengths, n_ctx: int, max_len: int):
    """The number of ids of each field, from its beginning, that sequences of n_ctx use: lengths (N, F) -> (N, F).

    choices: each field is cut to max_len, as in the original; then the context, where n_ctx was fitted to shorter ones.
    question: the context loses its end; question and answers only where they exceed half of n_ctx. Two texts: the
    longer loses its end first: with room for 6 ids, 9 and 2 become 4 and 2, and 9 and 8 become 3 and 3.
    """
    if form == 'text':
        return np.minimum(lengths, n_ctx - 2)
    room = n_ctx - 3
    if form == 'choices':
        context, answers = np.split(np.minimum(lengths, min(max_len, room)), [1], axis=1)  # (N, 1), (N, K)
        return np.hstack([np.minimum(context, room - answers.max(1, keepdims=True)), answers])
    if form == 'question':
        context, question, answers = np.split(lengths, [1, 2], axis=1)  # (N, 1), (N, 1), (N, K)
        question, answers = kept_of_two(question, answers, np.maximum(n_ctx // 2, room - context))
        return np.hstack([np.minimum(context, room - question - answers.max(1, keepdims=True)), question, answers])
    return np.hstack(kept_of_two(*np.split(lengths, 2, axis=1), room))


def kept_of_two(first, second, room):
    """Kept lengths of two texts that share `room`: lengths (N, 1), and (N, K): each of K texts with the first."""
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
    """The n_ctx that the data needs, at most the given one; the length fields are cut to; how many examples are cut.

    splits: tuples of fields, each N lists of ids, or a Ragged. Raises ValueError for an n_ctx below 6.
    """
    if n_ctx < 6:
        raise ValueError(f'n_ctx={n_ctx}: at least 6 are needed for three special tokens and the texts')
    lengths, max_len = np.concatenate([lengths_of(fields) for fields in splits]), n_ctx // 2 - 2  # (N, F)
    kept = kept_lengths(form, lengths, n_ctx, max_len)  # (N, F)
    return int(sequence_lengths(form, kept).max()), max_len, int((kept < lengths).any(1).sum())


def to_arrays(sequences, encoder, n_ctx: int):
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
    X[..., 1] = np.arange(len(encoder), len(encoder) + n_ctx)  # position rows follow the special ones
    return X, M


def transform_roc(X1, X2, X3, encoder, max_len: int, n_ctx: int):
    """`to_arrays` stories and their two endings, N id lists each: X (N, 2, n_ctx, 2), M (N, 2, n_ctx)."""
    stories = ([field[:max_len] for field in story] for story in zip(X1, X2, X3, strict=True))
    return to_arrays([FORMS['choices'](*story) for story in stories], encoder, n_ctx)


class Ragged:
    """N lists of ids in one flat array, equal lists once: two bytes an id, where Python's lists take some forty."""

    def __init__(self, ids, ends, rows):
        self.ids, self.ends = ids, ends  # (all ids,), (D,)  where each distinct list ends
        self.rows = rows  # (N,)  which of them each list is

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return self.ids[self.ends[row - 1] if row else 0:self.ends[row]].tolist()

    @property
    def lengths(self):
        """(N,)  the number of ids of each list"""
        return np.diff(self.ends, prepend=0)[self.rows]


def encode_texts(fields, encoder) -> list[Ragged]:
    """The ids of each field, a list of texts. Each distinct text is encoded once, with a progress bar at a terminal."""
    row_of = {}  # text -> the number of texts before it
    rows = [np.fromiter((row_of.setdefault(text, len(row_of)) for text in field), np.int32, len(field))
            for field in fields]
    lists = encoder.encode(list(row_of))
    dtype = np.uint16 if len(encoder.encoder) <= 2 ** 16 else np.int32
    ids = np.fromiter(itertools.chain.from_iterable(lists), dtype)
    ends = np.cumsum([len(one) for one in lists], dtype=np.int64)
    return [Ragged(ids, ends, of_field) for of_field in rows]


def unfamiliar(ids, vocabulary) -> list[str]:
    """Sentences about text for which the vocabulary, {token: id}, was not made, from the ids of the text, (N,)."""
    n = np.bincount(ids, minlength=len(vocabulary))
    n_words = n[[i for token, i in vocabulary.items() if token.endswith('</w>')]].sum()
    notes = []
    if n[0] > MOST_UNKNOWN * n.sum():
        notes.append(f'{100 * n[0] / n.sum():.1f} % of the tokens are not in the vocabulary (digits? another '
                     'alphabet?), and the network cannot tell them apart')
    if n[1:].sum() > MOST_A_WORD * n_words > 0:
        notes.append(f'a word takes {n[1:].sum() / n_words:.1f} tokens, where English text takes 1.2 (another '
                     'language?)')
    return notes


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
        self.labels = labels if labels is None else np.array(labels)  # (N,)  integers, or floats
        lengths = lengths_of(fields)  # (N, F)
        self.kept = kept_lengths(form, lengths, n_ctx, max_len)  # (N, F)  ids of each field that are used
        self.n_cut = int((self.kept < lengths).any(1).sum())  # examples that are not used as a whole
        self.lengths = sequence_lengths(form, self.kept)  # (N, K)  real tokens of each sequence

    def __len__(self):
        return len(self.lengths)

    def batch(self, indices):
        """X (B, K, n_ctx, 2), M (B, K, n_ctx) of the examples `indices`; see `to_arrays`."""
        examples = ([field[i][:n] for field, n in zip(self.fields, self.kept[i], strict=True)] for i in indices)
        return to_arrays([FORMS[self.form](*fields) for fields in examples], self.encoder, self.n_ctx)

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
