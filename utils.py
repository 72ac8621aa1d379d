"""Small things that several scripts use: batches, logs, files written whole, options, the choice of a device."""

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import sys
import time

from tqdm import tqdm


def encode_dataset(*splits, encoder):
    """Turn the text fields of each split into lists of ids; other fields (labels) stay as they are.

    splits: sequences of fields, each a list of strings or of numbers. Returns a list of lists of fields.
    """
    return [[encoder.encode(field) if len(field) and isinstance(field[0], str) else field for field in split]
            for split in splits]


def encode_once(*splits, encoder, files, folder):
    """`encode_dataset`, remembered in `folder`, so that a second run needs neither the text tools nor their time.

    The name of the file there is a hash of all that ids depend on: the texts, `files` (vocabulary, merges and the code
    that splits) and the versions of the libraries. So nothing stale can be found, and a file that is not what was
    written is not believed.
    """
    versions = [platform.python_version(), *(importlib.metadata.version(name) for name in ('spacy', 'ftfy'))]
    key = [hashlib.sha256(json.dumps([splits, versions]).encode()).hexdigest()]
    for path in files:
        with open(path, 'rb') as f:
            key.append(hashlib.sha256(f.read()).hexdigest())
    path = os.path.join(folder, f'{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json')
    with contextlib.suppress(OSError, ValueError), open(path, encoding='utf-8') as f:
        digest, text = f.read().split('\n')
        if hashlib.sha256(text.encode()).hexdigest() == digest:
            return json.loads(text)
    encoded = encode_dataset(*splits, encoder=encoder)
    text = json.dumps(encoded)
    with write_whole(path) as f:
        f.write(f'{hashlib.sha256(text.encode()).hexdigest()}\n{text}')
    return encoded


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
def write_whole(path, mode='w'):
    """Open a temporary file beside `path` that takes its name once it is complete, or is removed."""
    part = f'{make_path(path)}.{os.getpid()}.part'
    try:
        with open(part, mode, encoding=None if 'b' in mode else 'utf-8', newline=None if 'b' in mode else '\n') as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as e:
        e.filename = e.filename or path                                # a full disk does not say where it is full
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


def read_text(path):
    """The text of a file. Raises FileNotFoundError for what is no regular file, ValueError for what is not UTF-8."""
    if not os.path.isfile(path):                                       # opening a named pipe would wait for ever
        raise FileNotFoundError(f'{path} is missing, or is not a file')
    try:
        with open(path, encoding='utf-8', newline='') as f:
            return f.read()
    except UnicodeDecodeError as e:
        raise ValueError(f'{path} is not text: byte {e.start} is not UTF-8') from None


def read_json(path) -> dict:
    """The json object in a file. Raises OSError or ValueError, with its name."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f'{path} is not a json object: {e}') from None
    if not isinstance(value, dict):
        raise ValueError(f'{path} is not a json object')
    return value


class ResultLogger:
    """One json object per line: first the options of the run, then what `log` is given. Each line has a `time`.

    earlier: lines to begin with after the options. A line is appended in one piece, or not at all.
    """

    def __init__(self, path, *earlier, **kwargs):
        kwargs.setdefault('time', time.time())
        with write_whole(path) as f:
            f.writelines(json.dumps(line) + '\n' for line in (kwargs, *earlier))
        self.f_log = open(path, 'ab', buffering=0)

    def log(self, **kwargs):
        kwargs.setdefault('time', time.time())
        end = self.f_log.seek(0, os.SEEK_END)
        line = (json.dumps(kwargs) + '\n').encode()
        if self.f_log.write(line) != len(line):                        # the disk took a part of it
            self.f_log.truncate(end)
            raise OSError(f'{self.f_log.name}: no room for another line')

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


def add_model_args(parser, cfg):
    """The network's size, activation and dropout, with the defaults of `cfg`."""
    group = parser.add_argument_group('network')
    group.add_argument('--n_ctx', type=int, default=512, help='longest sequence, in tokens')
    group.add_argument('--n_embd', type=int, default=cfg.n_embd, help='width')
    group.add_argument('--n_head', type=int, default=cfg.n_head, help='attention heads')
    group.add_argument('--n_layer', type=int, default=cfg.n_layer, help='blocks')
    group.add_argument('--afn', default=cfg.afn, choices=['gelu', 'swish', 'relu'], help='activation')
    for name, what in (('embd', 'the embedding table'), ('attn', 'attention weights'),
                       ('resid', 'the output of each attention and feed-forward layer')):
        group.add_argument(f'--{name}_pdrop', type=float, default=cfg[f'{name}_pdrop'], help=f'dropout of {what}')


def defaults_of_model(parser, argv):
    """Let the model folder have its say: an hparams.json in it holds the defaults of the network's options."""
    path = parser.parse_known_args(argv)[0].model_path
    name = os.path.join(path, 'hparams.json')
    if not os.path.lexists(name):
        return
    defaults = read_json(name)
    for key, value in defaults.items():
        kind = type(parser.get_default(key))
        if kind not in (int, float, str):
            raise ValueError(f'{name}: {key!r} is no option of the network')
        if type(value) is not kind and (type(value), kind) != (int, float):
            raise ValueError(f'{name}: {key} is {value!r}, but must be of type {kind.__name__}')
    parser.set_defaults(**defaults)


def finish_paths(args):
    """Fill in --encoder_path and --bpe_path: the files of the model folder."""
    args.encoder_path = args.encoder_path or os.path.join(args.model_path, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_path, 'vocab_40000.bpe')
    return args


def check_options(args):
    """Raise ValueError for the first option out of its range, before anything is written."""
    for names, low, below in (
            ('n_iter n_batch n_gpu n_valid n_embd n_head n_layer', 1, math.inf),
            ('n_ctx', 6, math.inf),                                    # three special tokens, a story and an ending
            ('n_transfer', -1, max(12, args.n_layer) + 1),
            ('seed', 0, 2**32),
            ('embd_pdrop attn_pdrop resid_pdrop clf_pdrop lr_warmup b1 b2', 0, 1),
            ('lr lm_coef l2 e checkpoint_minutes', 0, math.inf),
            ('max_grad_norm', -math.inf, math.inf)):
        for name in names.split():
            value = getattr(args, name)
            if not low <= value < below:                               # NaN is in no range
                raise ValueError(f'{name}={value}: must be at least {low} and below {below}')
    if args.n_embd % args.n_head:
        raise ValueError(f'n_embd={args.n_embd} cannot be split into n_head={args.n_head} equal heads')


def run_script(main, parse_args):
    """Run `main(parse_args())`; a user's mistake ends in one line on stderr and exit status 2.

    Other exceptions say their status by an attribute `status`.
    """
    try:
        main(parse_args())
    except (ValueError, OSError, ArithmeticError) as e:
        message, status = f'error: {e}', 2
    except KeyboardInterrupt:
        message, status = 'interrupted', 130
    except Exception as e:
        if not hasattr(e, 'status'):
            raise
        message, status = str(e), e.status
    else:
        return
    print(f'{os.path.basename(sys.argv[0])}: {message}', file=sys.stderr)
    sys.exit(status)
