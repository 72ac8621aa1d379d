"""What lets a run be stopped at any moment and go on as if it had not been: checkpoints, generators, signals, locks.

Also the place of a process among those that torchrun starts.
"""

import hashlib
import importlib.metadata
import os
import platform
import random
import signal
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from datasets import SPECIAL
from model_pytorch import DEFAULT_CONFIG
from utils import make_path, read_json, write_whole


def generator_states() -> dict:
    """The states of Python's, NumPy's and torch's generators, as what `torch.load(weights_only=True)` reads back."""
    name, keys, *rest = np.random.get_state()
    return dict(python=random.getstate(), numpy=[name, torch.from_numpy(keys.astype(np.int64)), *rest],
                torch=torch.get_rng_state(), cuda=torch.cuda.get_rng_state_all())


def set_generator_states(states: dict):
    """Put the generators back into the states that `generator_states` returned."""
    random.setstate(states['python'])
    name, keys, *rest = states['numpy']
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states['torch'])
    torch.cuda.set_rng_state_all(states['cuda'][:torch.cuda.device_count()])


def save_state(path: str, state: dict):
    """Write tensors and plain values as one whole file; what was there before stays until then."""
    with write_whole(path, 'wb') as f:
        try:
            torch.save(state, f)
        except RuntimeError as e:
            if isinstance(e.__context__, OSError):                     # of a full disk, which torch reports oddly
                raise e.__context__ from None
            raise


def load_state(path: str, device='cpu') -> dict:
    """Read a file of `save_state`; nothing is unpickled but tensors and plain values. Raises ValueError if damaged."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} is missing, or is not a file')
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():
            raise ValueError('check sums differ')                      # torch does not look at them
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as e:                                             # torch raises a dozen kinds for damaged files
        reason = (str(e) or type(e).__name__).splitlines()[0][:80]
        raise ValueError(f'{path} is damaged, or no file of this program ({reason})') from None


def load_parameters(model, state: dict, path: str):
    """`model.load_state_dict(state)`, or a ValueError of one line if `state`, from `path`, is of another network."""
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as e:
        reason = str(e).splitlines()[-1].strip()[:120]
        raise ValueError(f'{path} holds the parameters of another network ({reason})') from None


def read_config(folder):
    """The config.json of a run: its options, and what its data implied. Raises FileNotFoundError or ValueError."""
    path = os.path.join(folder, 'config.json')
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} is missing: --desc and --save_dir name a run that was trained here')
    config = read_json(path)
    try:
        options = config['options']
        whole = (set(options) >= {*DEFAULT_CONFIG, 'encoder_path', 'bpe_path'} and options['n_head'] > 0
                 and config['max_len'] == options['n_ctx'] // 2 - 2 and 6 <= config['n_ctx'] <= options['n_ctx']
                 and config['clf_token'] == config['n_vocab'] + SPECIAL.index('_classify_'))
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f'{path} is damaged, or no file of this program')
    return config


def environment(**files) -> dict:
    """What numbers depend on besides options: versions, the commit, and the sha256 of files.

    files: lists of paths by what they are; a list of several is hashed as a whole. The commit is None outside a
    checkout.
    """
    def sha256(path):
        with open(path, 'rb') as f:
            return hashlib.sha256(f.read()).digest()

    with ThreadPoolExecutor() as pool:                                 # the weights alone would take 0.7 s
        digests = {name: list(pool.map(sha256, paths)) for name, paths in files.items()}
    git = ['git', '-C', os.path.dirname(os.path.abspath(__file__)), 'describe', '--always', '--dirty', '--abbrev=40',
           '--exclude=*']
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True,
                                env={**os.environ, 'GIT_OPTIONAL_LOCKS': '0'}).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    versions = {name: importlib.metadata.version(name) for name in ('torch', 'numpy', 'spacy', 'ftfy')}
    return dict(python=platform.python_version(), **versions, threads=torch.get_num_threads(), commit=commit,
                **{name: (d[0] if len(d) == 1 else hashlib.sha256(b''.join(d)).digest()).hex()
                   for name, d in digests.items()})


class Signals:
    """While open, the first Ctrl-C or SIGTERM is only noted, as `received`; a second one has its usual effect."""

    def __enter__(self):
        self.received = 0
        self.before = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def note(self, number, _):
        self.received = number
        self.restore()

    def restore(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __exit__(self, *_):
        self.restore()


class Stopped(Exception):
    """A signal ended the run after its state was saved; `status` is the exit status that tells so."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.status = 128 + number


def lock(path: str):
    """Hold `path` for this process, or raise ValueError if another holds it. Keep what is returned until the end."""
    import fcntl
    f = open(make_path(path), 'w')
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        f.close()
        raise ValueError(f'another run holds {path}: wait for it, or choose another --desc') from None
    return f


def set_aside(paths) -> list[str]:
    """Rename the files and folders that exist, all with the first number that is free: a.jsonl -> a.1.jsonl."""
    paths = [path.rstrip('/') for path in paths if os.path.lexists(path)]
    n = 1
    while any(os.path.lexists(numbered(path, n)) for path in paths):
        n += 1
    for path in paths:
        os.rename(path, numbered(path, n))
    return [numbered(path, n) for path in paths]


def numbered(path, n):
    stem, extension = os.path.splitext(path)
    return f'{stem}.{n}{extension}'
