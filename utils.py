"""Functions that several scripts share: batches, logs, reading and writing files, options, errors."""

import argparse
import contextlib
import errno
import json
import math
import os
import signal
import sys
import time
import zipfile

from tqdm import tqdm

from interrupt import end_interrupted

# Options that do not change what a run computes: paths (files are compared by hashes), and how a run is interrupted.
# They may change when a run is resumed, and analysis.py ignores them when it compares runs.
INCIDENTAL = ('data_dir', 'log_dir', 'save_dir', 'submission_dir', 'token_dir', 'model_path', 'encoder_path',
              'bpe_path', 'train', 'valid', 'test', 'resume', 'checkpoint_minutes', 'submit', 'analysis', 'predict',
              'n_proc')
MAX_JSON, MAX_TEXT = 2 ** 25, 2 ** 30                   # bytes; the released vocabulary has 2 ** 20, SNLI 2 ** 29
UTF_16 = 'UTF-16: save it as UTF-8'
NO_TEXT = {b'\xff\xfe': UTF_16, b'\xfe\xff': UTF_16, b'\x1f\x8b': 'compressed by gzip: gunzip it first',
           b'PK\x03\x04': 'a zip archive or .xlsx: unpack it, or save it as CSV (UTF-8)',
           b'\xd0\xcf\x11\xe0': 'an .xls file: save it as CSV (UTF-8)'}      # first bytes of a file -> its format
NO_MEMORY = ("can't allocate memory", 'not enough memory', 'out of memory', 'Storage size calculation overflowed')


def encode_dataset(*splits, encoder):
    """The splits, each a list of fields, with ids instead of texts. Fields of numbers (labels) stay as they are."""
    return [[encoder.encode(field) if len(field) and isinstance(field[0], str) else field for field in split]
            for split in splits]


def iter_data(*datas, n_batch=128, truncate=False, verbose=False, max_batches=float('inf')):
    """Consecutive batches of arrays of the same length: a tuple of slices for each, or the slice of a single array.

    truncate: omit the last batch if it is short. verbose: show a progress bar.
    """
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
    """Add the file name to an OSError that has none, such as that of write and fsync on a full disk."""
    try:
        yield
    except OSError as e:
        if type(e) is OSError and e.errno is None:                     # numpy's error for a short write has no errno
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


def check_file(path, max_bytes, hint=''):
    """FileNotFoundError, with the hint, if a path is not that of a regular file; ValueError if the file is too long."""
    if not os.path.isfile(path):                                       # opening a named pipe would wait forever
        raise FileNotFoundError(f'{path} is missing, or is not a file{hint}')
    size = os.path.getsize(path)
    if size > max_bytes:
        raise ValueError(f'{path} has {size:,} bytes, but such a file has at most {max_bytes:,}')


def check_start(path, start):
    """Raise ValueError if a file begins with the bytes of another format than UTF-8 text."""
    what = next((what for beginning, what in NO_TEXT.items() if start.startswith(beginning)), None)
    if what or b'\0' in start[:2]:                                     # UTF-16: one of a letter's two bytes is zero
        raise ValueError(f'{path}, line 1: not UTF-8 text, but {what or UTF_16}')


def read_bytes(path, max_bytes=MAX_TEXT, hint='') -> bytes:
    """The content of a file. FileNotFoundError, with the hint, if it is not a regular file; ValueError if too long."""
    check_file(path, max_bytes, hint)
    with errors_named(path), open(path, 'rb') as f:
        return f.read(max_bytes)


def check_archive(path):
    """Raise ValueError for a zip archive that is damaged, or that unpacks to more than the file has."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError('compressed')                             # neither torch nor numpy's savez does it
        if sum(member.file_size for member in members) > os.path.getsize(path):
            raise ValueError('members overlap')
        if archive.testzip():
            raise ValueError('check sums differ')                      # torch does not compare them


def read_text(path, max_bytes=MAX_TEXT, hint='') -> str:
    """The text of a UTF-8 file, line ends unchanged. Raises what `read_bytes` raises, and ValueError if not UTF-8."""
    data = read_bytes(path, max_bytes, hint)
    check_start(path, data)
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        data = e.object                                                # without the byte-order mark
        line = data[:e.start].count(b'\n') + 1
        raise ValueError(f'{path}, line {line}: byte 0x{data[e.start]:02x} is not UTF-8: save it as UTF-8') from None


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


class ResultLogger:
    """Writes one json object per line: first the options of the run, then the arguments of `log`. All have a `time`.

    earlier: lines to write after the options. Each line is written completely or not at all. If the log file is
    removed during the run, it is written again.
    """

    def __init__(self, path, *earlier, **kwargs):
        kwargs.setdefault('time', time.time())
        self.path, self.lines = path, [kwargs, *earlier]
        self.begin()

    def begin(self):
        with write_whole(self.path) as f:
            f.writelines(json.dumps(line) + '\n' for line in self.lines)
        self.f_log = open(self.path, 'ab', buffering=0)

    def log(self, **kwargs):
        kwargs.setdefault('time', time.time())
        self.lines.append(kwargs)
        if not os.fstat(self.f_log.fileno()).st_nlink:
            self.close()
            return self.begin()
        line, end = (json.dumps(kwargs) + '\n').encode(), self.f_log.seek(0, os.SEEK_END)
        with errors_named(self.path):
            if self.f_log.write(line) != len(line):                    # the disk is full: remove the partial line
                self.f_log.truncate(end)
                raise OSError(errno.ENOSPC, 'no room for another line')

    def close(self):
        self.f_log.close()


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults that are not None or False, and does not wrap the text above the options."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """The parser of every script: help shows `doc` and defaults, and a wrong option raises ValueError."""

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=HelpFormatter)

    def error(self, message):
        raise ValueError(message)


def add_path_args(parser):
    """Paths of files: --model_path, --encoder_path, --bpe_path."""
    group = parser.add_argument_group('files')
    group.add_argument('--model_path', default='model/', help='folder with the weights in the released layout')
    group.add_argument('--encoder_path', help='vocabulary (default: encoder_bpe_40000.json in --model_path)')
    group.add_argument('--bpe_path', help='merges (default: vocab_40000.bpe in --model_path)')


def number(kind, low, below=math.inf):
    """The `type` of an option whose value is a `kind` (int, float) with low <= value < below. Refuses NaN."""
    def convert(text):
        value = kind(text)
        if not low <= value < below:
            limit = '' if below == math.inf else f' and below {below}'
            raise argparse.ArgumentTypeError(f'{text}: must be at least {low}{limit}, and finite')
        return value
    convert.__name__ = kind.__name__                                   # argparse says: invalid int value
    return convert


def run_name(text):
    """The `type` of --desc: a name of files, not a path."""
    if not text or text.startswith('.') or set(text) & set('/\\:\0') or len(text) > 200:
        raise argparse.ArgumentTypeError(f'{text!r} is not the name of a run: it names files, so it must not be a '
                                         'path, contain a slash or start with a dot')
    return text


def add_run_args(group):
    """The options of every run: --desc, --log_dir, --save_dir, --resume, --checkpoint_minutes, --seed."""
    group.add_argument('--desc', type=run_name, help='name of the run and its files')
    group.add_argument('--log_dir', default='log/', help='folder for the log, DESC.jsonl')
    group.add_argument('--save_dir', default='save/', help='folder for the folder DESC/ of the trained network')
    group.add_argument('--resume', action='store_true', help='continue the interrupted run of this --desc')
    group.add_argument('--checkpoint_minutes', type=number(float, 0), default=5,
                       help='time between checkpoints; 0 saves one after every update')
    group.add_argument('--seed', type=number(int, 0, 2 ** 32), default=42, help='seed of all random generators')


def add_model_args(parser, cfg):
    """Options for the network's size, activation and dropout, with the defaults of `cfg`."""
    group = parser.add_argument_group('network')
    group.add_argument('--n_ctx', type=number(int, 1), default=512, help='longest sequence, in tokens')
    group.add_argument('--n_embd', type=number(int, 1), default=cfg.n_embd, help='width of the hidden states')
    group.add_argument('--n_head', type=number(int, 1), default=cfg.n_head, help='number of attention heads')
    group.add_argument('--n_layer', type=number(int, 1), default=cfg.n_layer, help='number of blocks')
    group.add_argument('--afn', default=cfg.afn, choices=['gelu', 'swish', 'relu'], help='activation function')
    for name, what in (('embd', 'the embedding table'), ('attn', 'attention weights'),
                       ('resid', 'the output of each attention and feed-forward layer')):
        group.add_argument(f'--{name}_pdrop', type=number(float, 0, 1), default=cfg[f'{name}_pdrop'],
                           help=f'dropout rate of {what}')


def defaults_of_model(parser, argv):
    """Take the defaults of the network's options from hparams.json in --model_path, if it exists."""
    name = os.path.join(parser.parse_known_args(argv)[0].model_path, 'hparams.json')
    if not os.path.lexists(name):
        return
    defaults = read_json(name)
    for key, value in defaults.items():
        kind = type(parser.get_default(key))
        if kind not in (int, float, str):
            raise ValueError(f'{name}: {key!r} is no option of the network')
        if type(value) is not kind and (type(value), kind) != (int, float):
            raise ValueError(f'{name}: {key} is {value!r}, but must be of type {kind.__name__}')
    parser.set_defaults(**{key: str(value) for key, value in defaults.items()})      # argparse checks text defaults


def finish_paths(args):
    """Set --encoder_path and --bpe_path, if they are not given, to the files in the model folder. Returns args."""
    args.encoder_path = args.encoder_path or os.path.join(args.model_path, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_path, 'vocab_40000.bpe')
    return args


def is_out_of_memory(e) -> bool:
    """Whether an exception of Python, numpy or torch says that there is not enough memory."""
    return (isinstance(e, MemoryError) or type(e).__name__ == 'OutOfMemoryError'
            or isinstance(e, RuntimeError) and any(words in str(e) for words in NO_MEMORY))


def run_script(main, parse_args):
    """Run `main(parse_args())`. An error that a user can correct is one line on stderr, and exit status 2.

    An exception with an attribute `status` gives the exit status; others end in a traceback.
    """
    try:
        if signal.getsignal(signal.SIGINT) is end_interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main(parse_args())
        print(end='', flush=True)
        return
    except SystemExit as e:                                            # --help
        message, status = '', e.code
    except BrokenPipeError:
        message, status = 'stopped: the reader of the output has ended', 141
    except KeyboardInterrupt:
        message, status = 'interrupted', 130
    except Exception as e:
        if is_out_of_memory(e):
            message, status = f'error: not enough memory: {e}', 2
        elif isinstance(e, (ValueError, OSError, ArithmeticError)):
            message, status = f'error: {e}', 2
        elif hasattr(e, 'status'):
            message, status = str(e), e.status
        else:
            raise
    if message:
        message = f'{os.path.basename(sys.argv[0])}: {" ".join(message.split())}'
        print(message if len(message) < 500 else f'{message[:300]} ... {message[-150:]}', file=sys.stderr)
    try:
        print(end='', flush=True)
    except OSError:                                                    # at exit Python would flush again and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
