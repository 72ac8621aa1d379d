"""Encode a folder of text once, into one memory-mapped file of token ids that pretrain.py reads.

The text is cut into pieces, of several files or of a part of one, and the result for each piece is a file, so that an
interrupted run only has to process the missing pieces. File names contain a hash of text and vocabulary, so that other
tokens are never used by mistake. If two runs need the same file, one writes it and the other waits.
"""

import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import stat
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.workers import make_once, progress, share_out
from text_utils import MAX_CACHED, MAX_CACHED_LEN, TextEncoder, clean, words_of_chunk
from utils import HIDDEN, MAX_JSON, MAX_TEXT, is_there, read_sealed, sha256, write_sealed, write_whole

PIECE = 2 ** 22  # bytes of a piece, which then continues to the end of its line
LONGEST_LINE = 2 ** 22  # further bytes; a longer line is cut after a space
MAX_WORDS = 2 ** 19  # different words from which merges are learned
N_HEADER = 128  # bytes of the header of our .npy files


class Span(NamedTuple):
    """A part of a file."""
    path: str
    start: int  # its first byte
    size: int  # bytes
    crc: int  # check sum of its bytes
    ends_line: bool


def text_files(data_dir):
    """Sorted paths of the *.txt files in a folder and its subfolders, linked ones too. Prints how many other files are
    ignored. OSError for what cannot be read, ValueError for a link to a folder that it is in."""
    if not is_there(data_dir, stat.S_ISDIR):
        raise FileNotFoundError(f'{data_dir} is not a folder: --data_dir names the folder with the text')

    def cannot_be_read(error):
        raise error

    texts, others, seen = [], [], set()
    for folder, subfolders, names in os.walk(Path(data_dir), onerror=cannot_be_read, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(HIDDEN)]
        for path in (os.path.join(folder, name) for name in subfolders):
            above = Path(os.path.abspath(path)).parents
            if os.path.islink(path) and any(os.path.samefile(path, folder) for folder in above):
                raise ValueError(f'{path} is a link to a folder that it is in: remove it')
        for path in (os.path.join(folder, name) for name in names if not name.startswith(HIDDEN)):
            (texts if is_there(path) and path.lower().endswith('.txt') else others).append(path)
    texts.sort()
    for path in texts:
        if (target := os.path.realpath(path)) in seen:
            raise ValueError(f'{path} is a link to another text of this folder, which would be read twice: remove it')
        seen.add(target)
    if not texts:
        raise FileNotFoundError(f'{data_dir} and its subfolders have no *.txt file')
    if others := sorted(others):
        print(f'{data_dir}: ignored {len(others)} files that are not *.txt: {", ".join(others[:3])}', file=sys.stderr)
    return texts


def cut(data_dir):
    """The text as pieces, which are lists of spans, and its hash. Raises what `text_files` and `blocks_of` raise."""
    paths, pieces, digest, n_bytes = text_files(data_dir), [], hashlib.sha256(), PIECE
    with progress('reading', total=sum(map(os.path.getsize, paths))) as bar:
        for path in paths:
            for start, block, ends_line in blocks_of(path):
                if n_bytes >= PIECE:  # the last piece is full
                    pieces.append([])
                    n_bytes = 0
                pieces[-1].append(Span(path, start, len(block), zlib.crc32(block), ends_line))
                n_bytes += len(block)
                digest.update(block)
                bar.update(len(block))
            digest.update(b'\0')  # marks the end of a file
    return pieces, digest.hexdigest()


def blocks_of(path):
    """The content of a file in blocks: (first byte, bytes, True if a line ends after them)."""
    start, line = 0, 1
    with open(path, 'rb') as f:
        while block := f.read(PIECE) + f.readline(LONGEST_LINE):
            ends_line = block.endswith(b'\n') or not f.read(1)
            if not ends_line:  # cut before this line or, if no other line is before it, before its last word
                end = block.rfind(b'\n') + 1
                ends_line = end > 0
                block = block[:end or block.rstrip(b' ').rfind(b' ') + 1]
            if not block:
                raise ValueError(f'{path}, line {line}: more than {LONGEST_LINE:,} bytes without spaces between words '
                                 'are not text: take the file out of the folder')
            wrong = block.find(b'\0')
            try:
                block.decode('utf-8')
            except UnicodeDecodeError as e:
                wrong = e.start
            if wrong >= 0:
                line += block[:wrong].count(b'\n')
                raise ValueError(f'{path}, line {line}: byte 0x{block[wrong]:02x} is not UTF-8 text: save the file as '
                                 'UTF-8, or take it out of the folder')
            yield start, block, ends_line
            start, line = start + len(block), line + block.count(b'\n')
            f.seek(start)


def lines_of_span(span):
    with open(span.path, 'rb') as f:
        f.seek(span.start)
        block = f.read(span.size)
    if zlib.crc32(block) != span.crc:
        raise ValueError(f'{span.path} was changed while it was read: run again')
    return block.decode('utf-8-sig').split('\n')


words_of_short_chunk = functools.lru_cache(MAX_CACHED)(words_of_chunk)


def count_words(job):
    """Count the words of a piece, from which the merges are learned, and write {word: count}."""
    piece, target = job
    words, chunks = Counter(), Counter()
    for span in piece:
        for line in lines_of_span(span):
            chunks.update(clean(line).split())
    for chunk, n in chunks.items():
        for word in (words_of_short_chunk if len(chunk) <= MAX_CACHED_LEN else words_of_chunk)(chunk):
            words[word] += n
    write_sealed(target, dict(counts=words))


@functools.lru_cache(1)
def text_encoder(encoder_path, bpe_path, key):
    """The encoder of this process. Another `key` means that the files have changed, and they are read again."""
    return TextEncoder(encoder_path, bpe_path)


def encode_piece(encoder_paths, key, job):
    """Write the ids of a piece, with a newline token after every line that has tokens."""
    piece, target = job
    encoder = text_encoder(*encoder_paths, key)
    newline, ids = encoder.encoder.get('\n</w>', 0), []
    for span in piece:
        for line in encoder.encode(lines_of_span(span), verbose=False):
            if line:
                ids += *line, newline
        if line and not span.ends_line:
            ids.pop()  # the line goes on in the next span
    dtype = dtype_of(len(encoder.encoder))
    write_ids(target, len(ids), dtype, [np.array(ids, dtype).tobytes()])


def dtype_of(n_vocab):
    """The smallest dtype that holds all ids."""
    return np.dtype(np.uint16 if n_vocab <= 2 ** 16 else np.uint32)


def header_of(n_tokens, dtype):
    """The N_HEADER bytes at the beginning of an .npy file of n_tokens ids."""
    f = io.BytesIO()
    np.lib.format.write_array_header_1_0(f, dict(descr=dtype.str, fortran_order=False, shape=(n_tokens,)))
    return f.getvalue()


def write_ids(path, n_tokens, dtype, blocks):
    """Write n_tokens ids, given as blocks of bytes, as an .npy file with the sha256 of its bytes at the end."""
    digest = hashlib.sha256()
    with write_whole(path, 'wb') as f:
        for block in itertools.chain([header_of(n_tokens, dtype)], blocks):
            digest.update(block)
            f.write(block)
        f.write(digest.digest())


def open_tokens(path, n_vocab):
    """Memory map of the ids in a file of `write_ids`. ValueError if it was changed, or is of another vocabulary."""
    dtype, digest = dtype_of(n_vocab), hashlib.sha256()
    n_tokens = max(os.path.getsize(path) - N_HEADER - digest.digest_size, 0) // dtype.itemsize
    with open(path, 'rb') as f:
        digest.update(header := f.read(N_HEADER))
        is_valid = header == header_of(n_tokens, dtype)
        for start in range(0, n_tokens, PIECE) if is_valid else ():  # pages of a memory map count as resident memory
            ids = np.fromfile(f, dtype, min(PIECE, n_tokens - start))
            digest.update(ids)
            is_valid = is_valid and ids.max() < n_vocab
        is_valid = is_valid and f.read() == digest.digest()
    if not is_valid:
        raise ValueError(f'{path} is not as this program wrote it for this vocabulary: remove it, and the text is '
                         'encoded again')
    return np.memmap(path, dtype, 'r', offset=N_HEADER, shape=(n_tokens,))


def each_piece(work, pieces, folder, n_proc, what):
    """Call work((piece, file)) for each piece whose file is missing, in n_proc processes. Returns all the files."""
    # the names contain the number of pieces, so that pieces of another cut are not taken
    jobs = [(piece, os.path.join(folder, f'{i:06}-of-{len(pieces):06}')) for i, piece in enumerate(pieces)]
    todo = [job for job in jobs if not os.path.isfile(job[1])]
    share_out(work, todo, min(n_proc, len(todo)), what)
    return [target for _, target in jobs]


def learn_vocabulary(words, vocab_size):
    """Learn characters and merges from {word: count}. Returns {token: id} and the text of the merges' file.

    The tokens are <unk>, each character within a word and at its end, the merged symbols, and the newline. They are
    vocab_size, or fewer: where no pair of symbols occurs twice any more, or two merges make the same token. Merges are
    learned from the MAX_WORDS most frequent words, which need about a gigabyte.
    """
    try:
        from subword_nmt import learn_bpe as library
    except ImportError:
        raise ValueError('--vocab_size learns merges with subword-nmt: pip install subword-nmt==0.3.8') from None
    counts = Counter()
    for word, n in words.items():
        for char in word:
            counts[char] += n
    chars = sorted(counts, key=lambda char: (-counts[char], char))
    n_merges = vocab_size - 2 * len(chars) - 2
    if n_merges < 0:
        raise ValueError(f'--vocab_size {vocab_size}: the text has {len(chars)} different characters, which alone make '
                         f'{2 * len(chars) + 2} tokens')
    by_count = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS]
    merges = io.StringIO()
    library.tqdm = functools.partial(progress, 'learning merges')  # its own bar fills log files
    by_count = [(word, n) for word, n in by_count if len(word) > 1]  # the library fails where no word has a pair
    text = io.StringIO(''.join(f'{word} {n}\n' for word, n in by_count) or 'ab 0\n')
    library.learn_bpe(text, merges, n_merges, is_dict=True)
    merges = merges.getvalue()
    merged = (line.replace(' ', '') for line in merges.split('\n')[1:-1])
    tokens = dict.fromkeys(['<unk>', *chars, *(f'{char}</w>' for char in chars), *merged, '\n</w>'])
    return {token: i for i, token in enumerate(tokens)}, merges


def hashes_of(args) -> list[str]:
    """The hashes of vocabulary and merges."""
    return [sha256(path, max_bytes=MAX_JSON) for path in (args.encoder_path, args.bpe_path)]


def key_of(args, text_hash) -> str:
    """The hash of text and vocabulary, which ids depend on."""
    return hashlib.sha256(' '.join([text_hash, *hashes_of(args)]).encode()).hexdigest()[:32]


def write_vocabulary(args, pieces, sums_path):
    """Learn merges and vocabulary from the text and write them to --bpe_path and --encoder_path, and their hashes."""
    counts, words = os.path.join(os.path.dirname(args.encoder_path), 'counts'), Counter()
    paths = each_piece(count_words, pieces, counts, args.n_proc, 'counting words')
    for path in progress('adding counts', paths):
        words.update(read_sealed(path, MAX_TEXT, ': remove it, and words are counted again')['counts'])
    if not words:
        raise ValueError(f'{args.data_dir}: the text is empty')
    encoder, merges = learn_vocabulary(words, args.vocab_size)
    with write_whole(args.bpe_path) as f:
        f.write(merges)
    with write_whole(args.encoder_path) as f:
        json.dump(encoder, f)
    write_sealed(sums_path, dict(hashes=hashes_of(args)))


def write_tokens(args, pieces, path, key, n_vocab):
    """Encode the pieces and write their ids to one file."""
    folder = path.removesuffix('.npy')
    work = functools.partial(encode_piece, (args.encoder_path, args.bpe_path), key)
    parts = each_piece(work, pieces, folder, args.n_proc, 'encoding')
    n_tokens = sum(len(open_tokens(part, n_vocab)) for part in parts)  # a memory map keeps a file open: one at a time
    if not n_tokens:
        raise ValueError(f'{args.data_dir}: the text is empty')
    write_ids(path, n_tokens, dtype_of(n_vocab), (open_tokens(part, n_vocab).tobytes() for part in parts))


def load_tokens(args):
    """The ids of the text (a memory map), their hash and n_vocab. The text is encoded if no earlier run has done so.

    With --vocab_size the vocabulary is learned if needed, and args.encoder_path and args.bpe_path are set to it.
    """
    pieces, text_hash = cut(args.data_dir)
    if args.vocab_size:
        folder = os.path.join(args.token_dir, f'vocabulary-{args.vocab_size}-{text_hash[:32]}')
        args.encoder_path = os.path.join(folder, 'encoder_bpe_40000.json')
        args.bpe_path = os.path.join(folder, 'vocab_40000.bpe')
        sums_path = os.path.join(folder, 'hashes.json')
        make_once(sums_path, lambda: write_vocabulary(args, pieces, sums_path))
        if read_sealed(sums_path)['hashes'] != hashes_of(args):
            raise ValueError(f'{folder}: vocabulary or merges are not those that were learned: remove that folder, and '
                             'they are learned again')
        shutil.rmtree(os.path.join(folder, 'counts'), ignore_errors=True)  # also if a kill came before this
    n_vocab = len(TextEncoder(args.encoder_path, args.bpe_path).encoder)
    key = key_of(args, text_hash)
    path = os.path.join(args.token_dir, f'{key}.npy')
    make_once(path, lambda: write_tokens(args, pieces, path, key, n_vocab))
    shutil.rmtree(path.removesuffix('.npy'), ignore_errors=True)
    return open_tokens(path, n_vocab), key, n_vocab
