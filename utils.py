"""Small things that several scripts use: batches, logs, files written whole, options, the choice of a device."""

import contextlib
import json
import os
import random
import sys
import time

import numpy as np
from tqdm import tqdm


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
def write_whole(path, mode='w'):
    """Open a temporary file beside `path` that takes its name once it is complete, or is removed."""
    part = f'{make_path(path)}.{os.getpid()}.part'
    try:
        with open(part, mode, encoding=None if 'b' in mode else 'utf-8', newline=None if 'b' in mode else '\n') as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


class ResultLogger:
    """One json object per line: first the options of the run, then what `log` is given. Each line has a `time`."""

    def __init__(self, path, **kwargs):
        self.f_log = open(make_path(path), 'w', encoding='utf-8')
        self.log(**kwargs)

    def log(self, **kwargs):
        kwargs.setdefault('time', time.time())
        self.f_log.write(json.dumps(kwargs) + '\n')
        self.f_log.flush()

    def close(self):
        self.f_log.close()


def set_seed(seed: int):
    """Seed Python's, NumPy's and torch's generators."""
    import torch
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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
    group.add_argument('--afn', default=cfg.afn, help='activation: gelu, swish or relu')
    for name, what in (('embd', 'the embedding table'), ('attn', 'attention weights'),
                       ('resid', 'the output of each attention and feed-forward layer')):
        group.add_argument(f'--{name}_pdrop', type=float, default=cfg[f'{name}_pdrop'], help=f'dropout of {what}')


def add_device_args(parser):
    """Where and how precisely to compute: --device, --dtype."""
    group = parser.add_argument_group('device')
    group.add_argument('--device', default='auto', help='cuda, mps, cpu, cuda:1, ...; auto takes the first there is')
    group.add_argument('--dtype', default='float32', choices=['float32', 'tf32', 'bfloat16'],
                       help='of matrix products; parameters, softmax and losses stay float32')


def defaults_of_model(parser, argv):
    """Let the model folder have its say: an hparams.json in it holds the defaults of the network's options."""
    path = parser.parse_known_args(argv)[0].model_path
    name = os.path.join(path, 'hparams.json')
    if not os.path.isfile(name):
        return
    try:
        with open(name, encoding='utf-8') as f:
            defaults = dict(json.load(f))
    except (ValueError, TypeError):
        raise ValueError(f'{name} is not a json object of options') from None
    for key in defaults:
        if parser.get_default(key) is None:
            raise ValueError(f'{name}: {key!r} is no option of the network')
    parser.set_defaults(**defaults)


def finish_paths(args):
    """Fill in --encoder_path and --bpe_path: the files of the model folder."""
    args.encoder_path = args.encoder_path or os.path.join(args.model_path, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_path, 'vocab_40000.bpe')
    return args


def choose_device(name: str, dtype: str):
    """The torch device of --device, and the context that --dtype's forward passes run in.

    float32 is strict. tf32 rounds the inputs of matrix products on CUDA. bfloat16 is autocast. Raises ValueError for a
    device that is not there.
    """
    import torch
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f'--device {name}: {str(e).splitlines()[0]}') from None
    torch.set_float32_matmul_precision('high' if dtype == 'tf32' else 'highest')
    if dtype == 'bfloat16':
        return device, torch.autocast(device.type, dtype=torch.bfloat16)
    return device, contextlib.nullcontext()


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
