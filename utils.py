"""Functions that several scripts share: batches, logs, reading and writing files."""

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import stat
import sys
import time
from pathlib import Path

MAX_JSON, MAX_TEXT = 2 ** 25, 2 ** 30  # bytes; the released vocabulary has 2 ** 20, SNLI 2 ** 29
HIDDEN = ('.', '~$')  # macOS, editors and Excel create files whose names begin like this
UTF_16 = 'UTF-16: save it as UTF-8'
NO_TEXT = {b'\xff\xfe': UTF_16, b'\xfe\xff': UTF_16, b'\x1f\x8b': 'compressed by gzip: gunzip it first',
           b'PK\x03\x04': 'a zip archive or .xlsx: unpack it, or save it as CSV (UTF-8)',
           b'\xd0\xcf\x11\xe0': 'an .xls file: save it as CSV (UTF-8)', b'\x89PNG': 'a picture', b'%PDF': 'a PDF',
           b'PAR1': 'parquet: its name must end in .parquet'}  # first bytes of a file -> its format


def encode_dataset(*splits, encoder):
    """The splits, each a list of fields, with ids instead of texts. Fields of numbers (labels) stay as they are."""
    return [[encoder.encode(field) if len(field) and isinstance(field[0], str) else field for field in split]
            for split in splits]


def iter_data(*datas, n_batch=128, truncate=False, verbose=False, max_batches=float('inf')):
    """Consecutive batches of arrays of the same length: a tuple of slices for each, or the slice of a single array.

    truncate: omit the last batch if it is short. verbose: show a progress bar.
    """
    from tqdm import tqdm  # here, so that model_pytorch.py needs torch and numpy alone
    n = len(datas[0])
    if truncate:
        n = n // n_batch * n_batch
    n = int(min(n, max_batches * n_batch))
    for i in tqdm(range(0, n, n_batch), ncols=80, leave=False, disable=not verbose):
        batch = tuple(data[i:min(i + n_batch, n)] for data in datas)
        yield batch[0] if len(batch) == 1 else batch


def make_path(f):
    """Create the folder of the file `f`, and return `f`."""
    os.makedirs(os.path.dirname(f) or '.', exist_ok=True)
    return f


@contextlib.contextmanager
def errors_named(path):
    """Add the file name to an OSError that has none: write and fsync on a full disk do not name the file."""
    try:
        yield
    except OSError as e:
        if type(e) is OSError and e.errno is None:  # numpy's error for a short write has no errno
            raise OSError(f'{path}: {e}: is the disk full?') from e
        e.filename = e.filename or path
        raise


@contextlib.contextmanager
def write_whole(path, mode='w'):
    """Open a temporary file beside `path`. It is renamed to `path` when it is complete, and removed after an error.

    The temporary name is random and mode x refuses an existing file, so another user cannot put a link there.
    """
    part = f'{make_path(path)}.{os.urandom(8).hex()}.part'
    options = {} if 'b' in mode else dict(encoding='utf-8', newline='\n')
    try:
        with errors_named(path):
            with open(part, mode.replace('w', 'x'), **options) as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


def at_terminal() -> bool:
    """True if stderr is a terminal. What takes its place, for a log, may not say."""
    return getattr(sys.stderr, 'isatty', bool)()


def shown(path) -> str:
    """The name of a file as text that any program can write: bytes that are not UTF-8 become codes like \\xfc."""
    return os.fsencode(path).decode(errors='backslashreplace')


def is_there(path, kind=stat.S_ISREG) -> bool:
    """Whether a path is a regular file, or with stat.S_ISDIR a folder. OSError if it may not be looked at, or is at the
    end of a link to nothing."""
    try:
        return kind(os.stat(path).st_mode)
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
    for link in (path, *Path(path).parents):
        if os.path.islink(link) and not os.path.exists(link):
            raise FileNotFoundError(f'{path} is missing, or is not a file: {link} is a link to nothing')
    return False


def remove_parts(path):
    """Remove what killed processes have left of a file that `write_whole` writes, or of the files in a folder."""
    path = glob.escape(path)
    for part in glob.glob(f'{path}.*.part') + glob.glob(f'{path}/**/*.part', recursive=True):
        os.remove(part)


def check_file(path, max_bytes=math.inf, hint=''):
    """Raise FileNotFoundError, with the hint, for anything but a regular file; ValueError if the file is too long."""
    if not is_there(path):  # opening a named pipe would wait forever
        raise FileNotFoundError(f'{path} is missing, or is not a file{hint}')
    size = os.path.getsize(path)
    if size > max_bytes:
        raise ValueError(f'{path} has {size:,} bytes, but such a file has at most {max_bytes:,}')


def check_start(path, start):
    """Raise ValueError if a file begins with the bytes of another format than UTF-8 text."""
    what = next((what for beginning, what in NO_TEXT.items() if start.startswith(beginning)), None)
    if what or b'\0' in start[:2]:  # UTF-16: one of a letter's two bytes is zero
        raise ValueError(f'{path}, line 1: not UTF-8 text, but {what or UTF_16}')


def read_text(path, max_bytes=MAX_TEXT, hint='') -> str:
    """The text of a UTF-8 file, line ends unchanged."""
    check_file(path, max_bytes, hint)
    with errors_named(path), open(path, 'rb') as f:
        data = f.read(max_bytes)
    check_start(path, data)
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        line, byte = e.object[:e.start].count(b'\n') + 1, e.object[e.start]
        raise ValueError(f'{path}, line {line}: byte 0x{byte:02x} is not UTF-8: save it as UTF-8') from None


def read_json(path, max_bytes=MAX_JSON, hint='') -> dict:
    """The json object in a file. Raises OSError or ValueError, with the file name."""
    text = read_text(path, max_bytes, hint)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f'{path} is not a json object: {e}') from None
    if not isinstance(value, dict):
        raise ValueError(f'{path} is not a json object')
    return value


def sha256(*paths, max_bytes=math.inf) -> str:
    """The hash of a file, which must not be longer than max_bytes; of several, the hash of their hashes."""
    digests = []
    for path in paths:
        check_file(path, max_bytes)
        with open(path, 'rb') as f:
            digests.append(hashlib.file_digest(f, 'sha256'))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b''.join(digest.digest() for digest in digests)).hexdigest()


def seal(path, value: dict, default=None) -> str:
    """The hash of a file's name and of a json object in it. default: as json.dumps takes it."""
    text = json.dumps([os.path.basename(path), value], sort_keys=True, default=default)
    return hashlib.sha256(text.encode()).hexdigest()


def write_sealed(path, value: dict, indent=None):
    """Write a json object with its hash, by which `read_sealed` notices any change."""
    with write_whole(path) as f:
        json.dump({**value, 'sha256': seal(path, value)}, f, indent=indent)


def read_sealed(path, max_bytes=MAX_JSON, hint='') -> dict:
    """The object in a file of `write_sealed`. Raises OSError, or ValueError with the hint if it was changed."""
    value = read_json(path, max_bytes)
    if value.pop('sha256', None) != seal(path, value):
        raise ValueError(f'{path} is not as this program wrote it: it is damaged, or edited, or of another '
                         f'version{hint}')
    return value


def how_to_get(folder) -> str:
    """What to do about weights or a vocabulary in a folder that cannot be used."""
    if os.path.isfile(folder):
        return f'{folder} is a file, and --model_path names a folder'
    if os.path.exists(os.path.join(folder, 'best_params.pt')):
        return ('it is a run of train.py: generate.py, zero_shot.py and convert.py take it as --desc '
                + os.path.basename(os.path.abspath(folder)))
    books = Path(__file__).parent / 'model' / 'books'
    return (f'python model/download.py --model_path {folder} fetches the released files; without them, --model_path '
            f'{books}/ is a small network')


class ResultLogger:
    """Writes one json object per line: first the options of the run, then the arguments of `log`. All have a `time`.

    earlier: lines to write after the options. Each line is written completely or not at all.
    """

    def __init__(self, path, *earlier, **kwargs):
        kwargs.setdefault('time', time.time())
        with write_whole(path) as f:
            f.writelines(json.dumps(line) + '\n' for line in (kwargs, *earlier))
        self.path, self.f_log = path, open(path, 'ab', buffering=0)

    def log(self, **kwargs):
        kwargs.setdefault('time', time.time())
        line, end = (json.dumps(kwargs) + '\n').encode(), self.f_log.seek(0, os.SEEK_END)
        with errors_named(self.path):
            if self.f_log.write(line) != len(line):  # the disk is full: remove the partial line
                self.f_log.truncate(end)
                raise OSError(errno.ENOSPC, 'no room for another line')

    def close(self):
        self.f_log.close()
