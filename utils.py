"""Small things that several scripts use: batches, logs, files written whole, options, the choice of a device."""

import argparse
import contextlib
import csv
import errno
import io
import json
import math
import os
import re
import signal
import sys
import time
import zipfile

from tqdm import tqdm

from interrupt import end_interrupted

# Options that do not change what a run computes: where files are (their contents are compared by hashes) and how the
# run is interrupted. A run can be resumed with others, and runs that differ in them alone are one configuration.
INCIDENTAL = ('data_dir', 'log_dir', 'save_dir', 'submission_dir', 'token_dir', 'model_path', 'encoder_path',
              'bpe_path', 'resume', 'checkpoint_minutes', 'submit', 'analysis', 'predict', 'n_proc')
MAX_JSON, MAX_TEXT = 2 ** 25, 2 ** 30                   # bytes; the released vocabulary has 2 ** 20, SNLI 2 ** 29
UTF_16 = 'UTF-16: save it as UTF-8'
NO_TEXT = {b'\xff\xfe': UTF_16, b'\xfe\xff': UTF_16, b'\x1f\x8b': 'compressed by gzip: gunzip it first',
           b'PK\x03\x04': 'a zip archive or .xlsx: unpack it, or save it as CSV (UTF-8)',
           b'\xd0\xcf\x11\xe0': 'an .xls file: save it as CSV (UTF-8)'}                  # first bytes: what it is
NO_MEMORY = ("can't allocate memory", 'not enough memory', 'out of memory', 'Storage size calculation overflowed')


def encode_dataset(*splits, encoder):
    """Turn the text fields of each split into lists of ids; other fields (labels) stay as they are.

    splits: sequences of fields, each a list of strings or of numbers. Returns a list of lists of fields.
    """
    return [[encoder.encode(field) if len(field) and isinstance(field[0], str) else field for field in split]
            for split in splits]


def iter_data(*datas, n_batch=128, truncate=False, verbose=False, max_batches=float('inf')):
    """Consecutive batches of equally long arrays: a tuple of slices, or one slice where one array is given.

    truncate: leave out the last batch if it is short. verbose: show a progress bar.
    """
    n = len(datas[0])
    if truncate:
        n = n // n_batch * n_batch
    n = int(min(n, max_batches * n_batch))
    for i in tqdm(range(0, n, n_batch), ncols=80, leave=False, disable=not verbose):
        batch = tuple(data[i:min(i + n_batch, n)] for data in datas)
        yield batch[0] if len(batch) == 1 else batch


def make_path(f):
    """Create the folder that the file `f` is to lie in; returns `f`."""
    folder = os.path.dirname(f)
    if folder:
        os.makedirs(folder, exist_ok=True)
    return f


@contextlib.contextmanager
def errors_named(path):
    """Name the file in an OSError that has no name: write and fsync do not say where the disk is full."""
    try:
        yield
    except OSError as e:
        if type(e) is OSError and e.errno is None:                     # numpy counts the bytes and has no errno
            raise OSError(f'{path}: {e}: is the disk full?') from e
        e.filename = e.filename or path
        raise


@contextlib.contextmanager
def write_whole(path, mode='w'):
    """Open a temporary file beside `path` that takes its name once it is complete, or is removed.

    Nobody can plant a link under the temporary name: it is random, and mode x refuses a name that exists.
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


def read_bytes(path, max_bytes=MAX_TEXT, hint='') -> bytes:
    """The content of a file. Raises FileNotFoundError, with the hint, for what is no regular file, and ValueError for
    a file of more than max_bytes.
    """
    if not os.path.isfile(path):                                       # opening a named pipe would wait for ever
        raise FileNotFoundError(f'{path} is missing, or is not a file{hint}')
    size = os.path.getsize(path)
    if size > max_bytes:
        raise ValueError(f'{path} has {size:,} bytes, but such a file has at most {max_bytes:,}')
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
    """The text of a UTF-8 file, line ends as they are. Raises what `read_bytes` raises, ValueError for other bytes."""
    data = read_bytes(path, max_bytes, hint)
    what = next((what for beginning, what in NO_TEXT.items() if data.startswith(beginning)), None)
    if what or b'\0' in data[:2]:                                      # half of a letter in UTF-16 is zero
        raise ValueError(f'{path}, line 1: not UTF-8 text, but {what or UTF_16}')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        line = data[:e.start].count(b'\n') + 1
        raise ValueError(f'{path}, line {line}: byte 0x{data[e.start]:02x} is not UTF-8: save it as UTF-8') from None


def read_json(path, max_bytes=MAX_JSON, hint='') -> dict:
    """The json object in a file. Raises OSError or ValueError, with its name."""
    text = read_text(path, max_bytes, hint)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f'{path} is not a json object: {e}') from None
    if not isinstance(value, dict):
        raise ValueError(f'{path} is not a json object')
    return value


def read_table(path, delimiter=None):
    """Header and rows of a table: a list of names and a list of (line number, fields), without blank rows.

    delimiter: a tab in a .tsv file; in others what the header has most of, commas, semicolons or tabs. Between tabs
    quotes are characters of the text, elsewhere the file is strict CSV. Raises what `read_text` raises, and ValueError
    with file and line for a row that has not as many fields as the header.
    """
    text, start = read_text(path), 1
    if excel := re.match('sep=([,;\t])\r?\n', text):
        delimiter, text, start = excel[1], text[excel.end():], 2
    elif delimiter is None and str(path).lower().endswith('.tsv'):
        delimiter = '\t'
    elif delimiter is None:
        delimiter = max(',;\t', key=text.lstrip().partition('\n')[0].count)
    quoting = csv.QUOTE_NONE if delimiter == '\t' else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, quoting=quoting, strict=True)
    header, rows, line = None, [], start
    try:
        for row in reader:
            if not any(field.strip() for field in row):
                pass                                                   # a blank line, or Excel's of commas alone
            elif header is None:
                header = row
            elif len(row) != len(header):
                hint = ': a tab or line break inside a field?' if delimiter == '\t' else ''
                raise ValueError(f'{path}, line {line}: {len(row)} columns, the header has {len(header)}{hint}')
            else:
                rows.append((line, row))
            line = start + reader.line_num
    except csv.Error as e:
        raise ValueError(f'{path}, line {line}: {e}') from None
    return header or [], rows


def find_columns(path, header, names) -> list[int]:
    """Places of the named columns in a header, in whatever case. Raises ValueError for those that are not there."""
    header = [name.strip().lower() for name in header]
    if missing := [name for name in names if name.lower() not in header]:
        raise ValueError(f'{path}, line 1: no column {", ".join(missing)}: the first row names the columns, between '
                         'tabs in a .tsv file, else between commas')
    return [header.index(name.lower()) for name in names]


class ResultLogger:
    """One json object per line: first the options of the run, then what `log` is given. Each line has a `time`.

    earlier: lines to begin with after the options. A line is appended in one piece, or not at all. A log that was
    removed is written again.
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
            if self.f_log.write(line) != len(line):                    # a full disk took the beginning
                self.f_log.truncate(end)
                raise OSError(errno.ENOSPC, 'no room for another line')

    def close(self):
        self.f_log.close()


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults are shown where there are any, and the text above the options stays as it is."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """The parser of every script: help shows `doc` and defaults, and a mistake is a ValueError of one line."""

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=HelpFormatter)

    def error(self, message):
        raise ValueError(message)


def add_path_args(parser):
    """Where things are: --model_path, --encoder_path, --bpe_path."""
    group = parser.add_argument_group('files')
    group.add_argument('--model_path', default='model/', help='folder with the weights in the released layout')
    group.add_argument('--encoder_path', help='vocabulary (default: encoder_bpe_40000.json in --model_path)')
    group.add_argument('--bpe_path', help='merges (default: vocab_40000.bpe in --model_path)')


def number(kind, low, below=math.inf):
    """The `type` of an option: a number of `kind` (int, float), low <= number < below. NaN is in no range."""
    def convert(text):
        value = kind(text)
        if not low <= value < below:
            limit = '' if below == math.inf else f' and below {below}'
            raise argparse.ArgumentTypeError(f'{text}: must be at least {low}{limit}, and finite')
        return value
    convert.__name__ = kind.__name__                                   # what argparse calls text that is no number
    return convert


def run_name(text):
    """The `type` of --desc: a name of files, not a path."""
    if not text or text.startswith('.') or set(text) & set('/\\:\0') or len(text) > 200:
        raise argparse.ArgumentTypeError(f'{text!r} is not the name of a run: it names files, so no path, no slash, '
                                         'and no dot at its beginning')
    return text


def add_run_args(group):
    """What every run has: --desc, --log_dir, --save_dir, --resume, --checkpoint_minutes, --seed."""
    group.add_argument('--desc', type=run_name, help='name of the run and its files')
    group.add_argument('--log_dir', default='log/', help='DESC.jsonl goes here')
    group.add_argument('--save_dir', default='save/', help='what is trained goes to DESC/ in here')
    group.add_argument('--resume', action='store_true', help='continue the interrupted run of this --desc')
    group.add_argument('--checkpoint_minutes', type=number(float, 0), default=5, help='time between checkpoints; 0: '
                       'every update')
    group.add_argument('--seed', type=number(int, 0, 2 ** 32), default=42, help='of all generators')


def add_model_args(parser, cfg):
    """The network's size, activation and dropout, with the defaults of `cfg`."""
    group = parser.add_argument_group('network')
    group.add_argument('--n_ctx', type=number(int, 1), default=512, help='longest sequence, in tokens')
    group.add_argument('--n_embd', type=number(int, 1), default=cfg.n_embd, help='width')
    group.add_argument('--n_head', type=number(int, 1), default=cfg.n_head, help='attention heads')
    group.add_argument('--n_layer', type=number(int, 1), default=cfg.n_layer, help='blocks')
    group.add_argument('--afn', default=cfg.afn, choices=['gelu', 'swish', 'relu'], help='activation')
    for name, what in (('embd', 'the embedding table'), ('attn', 'attention weights'),
                       ('resid', 'the output of each attention and feed-forward layer')):
        group.add_argument(f'--{name}_pdrop', type=number(float, 0, 1), default=cfg[f'{name}_pdrop'],
                           help=f'dropout of {what}')


def defaults_of_model(parser, argv):
    """Take the defaults of the network's options from hparams.json in --model_path, where there is one."""
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
    parser.set_defaults(**{key: str(value) for key, value in defaults.items()})      # text is checked as an option is


def finish_paths(args):
    """Fill in --encoder_path and --bpe_path: the files of the model folder."""
    args.encoder_path = args.encoder_path or os.path.join(args.model_path, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_path, 'vocab_40000.bpe')
    return args


def is_out_of_memory(e) -> bool:
    """Whether an exception is Python's, numpy's or one of torch's for too little memory."""
    if isinstance(e, MemoryError) or type(e).__name__ == 'OutOfMemoryError':
        return True
    return isinstance(e, RuntimeError) and any(words in str(e) for words in NO_MEMORY)


def run_script(main, parse_args):
    """Run `main(parse_args())`; a user's mistake ends in one line on stderr and exit status 2.

    Other exceptions say their status by an attribute `status`.
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
        message, status = 'stopped: nobody reads the output any more', 141
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
    except OSError:                                                    # or Python would try, and complain, at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
