"""One run and its files: begin or resume, save, stop on a signal, log, finish.

A run DESC has a log, log/DESC.jsonl, and a folder, save/DESC. While it trains the folder holds checkpoint.pt; when it
is complete results.json is written, the last of its files, and the checkpoint goes. The folder of a fine-tuned network
holds all that is needed to use it (config.json, best_params.pt, vocabulary and merges), so it can be moved or sent.
"""

import errno
import importlib.metadata
import math
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common.options import INCIDENTAL, ROOT
from common.shell import printable
from common.workers import lock
from utils import (
    ResultLogger,
    at_terminal,
    check_file,
    read_sealed,
    remove_parts,
    seal,
    sha256,
    write_sealed,
    write_whole,
)

VOCABULARY, MERGES = 'encoder_bpe_40000.json', 'vocab_40000.bpe'  # their names in every folder
INPUTS = ('model_path', 'encoder_path', 'bpe_path', 'data_dir', 'token_dir', 'train', 'valid', 'test')  # options


class Stopped(Exception):
    """A signal ended the run after its state was saved. `status`, the exit status, is 128 + the signal."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.status = 128 + number


class Signals:
    """From `catch` to `release`, the first Ctrl-C, SIGTERM or SIGHUP is only noted, as `received`; a second one has its
    usual effect. Outside the main thread Python allows no handlers, and signals keep their usual effect.
    """

    def __init__(self):
        self.received, self.handlers = 0, {}

    def catch(self):
        if threading.current_thread() is threading.main_thread():
            names = ('SIGINT', 'SIGTERM', 'SIGHUP')  # Windows has no SIGHUP
            numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
            self.handlers = {number: signal.signal(number, self.receive) for number in numbers
                             if signal.getsignal(number) is not signal.SIG_IGN}  # nohup ignores SIGHUP

    def receive(self, number, _):
        self.received = number
        self.release()
        with suppress(OSError):  # the signal may have interrupted a print
            os.write(2, f'{os.path.basename(sys.argv[0])}: signal received: saving and stopping, a second one ends at '
                     'once\n'.encode())

    def release(self):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}


class Run:
    """The files of one run, from its beginning to its end. The script keeps the loop:

        with Run(args, ranks, device, autocast) as run:  # no other process has this --desc
            if results := run.complete_results():
                return results
            state = run.begin(dict(model=model, opt=opt), data_hash, dict(n_updates=0, n_total=n_total))
            while state['n_updates'] < n_total:
                ...
                run.log(n_updates=..., loss=...)
                run.save_or_stop()  # raises Stopped after a signal
            run.save()
            return run.finish(results)

    All that changes in a run is in `state` (plain values and tensors), in the parts that have a state_dict, and in the
    generators, so that a checkpoint of these continues it bit for bit. The first process writes the files.
    """

    def __init__(self, args, ranks, device, autocast):
        self.args, self.ranks, self.device, self.autocast = args, ranks, device, autocast
        self.log_path = os.path.join(args.log_dir, f'{args.desc}.jsonl')
        self.folder = os.path.join(args.save_dir, args.desc)
        self.last_path, self.results_path = self.path('checkpoint.pt'), self.path('results.json')
        self.signals, self.stack = Signals(), ExitStack()

    def path(self, name):
        """Path of a file in the folder of the run."""
        return os.path.join(self.folder, name)

    def __enter__(self):
        for name in INPUTS:
            path = getattr(self.args, name, None)
            if path and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.folder)):
                raise ValueError(f'--{name} {path} lies in {self.folder}, which the run would replace: choose another '
                                 '--desc')
        folders = {os.path.realpath(folder) for folder in (self.args.log_dir, self.args.save_dir)}
        with self.stack as stack:  # an error below releases the locks
            for folder in sorted(folders) if self.ranks.rank == 0 else ():
                stack.enter_context(lock(os.path.join(folder, f'.{self.args.desc}.lock')))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.signals.release()
        self.parts = {}  # so that Ranks.leave can free the model
        self.stack.close()

    def complete_results(self):
        """With --resume, results.json of a complete run. ValueError names a file that was changed or is missing."""
        if not (self.args.resume and os.path.lexists(self.results_path)):
            return None
        results = read_sealed(self.results_path)
        self.refuse_other_options(results['options'], self.results_path)
        for name, (size, written) in results.get('files', {}).items():
            path = self.path(name)
            if not os.path.isfile(path) or os.path.getsize(path) != size or sha256(path) != written:
                raise ValueError(f'{path} is not the file that the complete run wrote, or is missing: choose another '
                                 f'--desc, or delete {self.results_path} to train again')
        self.print(f'{self.args.desc} is complete')
        return results

    def begin(self, parts, data_hash, state, **about):
        """Continue from the checkpoint with --resume; otherwise rename the files of an earlier run, and begin.

        parts: objects with a state_dict, by name, at least the `model` and the optimizer `opt`. data_hash: of the data;
        a run continues with the same data only. state: at least n_updates and n_total. about: what the first line of
        the log says besides the options. Returns the state of the checkpoint, or the one given, with `log` (its first
        line has the options, the others are what `log` was called with) and `seconds`.
        """
        self.parts, self.data_hash = parts, data_hash
        self.state = {**state, 'log': [{**vars(self.args), **about, 'time': time.time()}], 'seconds': 0.}
        for path in (self.log_path, self.folder) if self.ranks.rank == 0 else ():
            remove_parts(path)
        if self.args.resume and os.path.lexists(self.last_path):
            self.restore()
        elif self.ranks.rank == 0:
            if os.path.isfile(self.last_path) and not os.path.isfile(self.results_path):
                raise ValueError(f'{self.folder} holds an interrupted run: add --resume to continue it, choose another '
                                 '--desc, or delete that folder')
            if self.args.resume:
                self.print(f'nothing to resume in {self.folder}: the run begins')
            for path in set_aside([self.log_path, self.folder]):
                self.print(f'the files of an earlier run are now in {path}')
        self.ranks.agree('checkpoints', self.state['n_updates'])
        self.started = self.saved_at = time.monotonic()
        if self.ranks.rank == 0:
            options, *earlier = self.state['log']
            self.logger = ResultLogger(self.log_path, *earlier, **options)
            self.stack.callback(self.logger.close)
        self.signals.catch()
        return self.state

    def restore(self):
        """Continue from the checkpoint. Raises ValueError if it is damaged, or of other options, data or processes."""
        path, saved = self.last_path, load_state(self.last_path)  # on the CPU, where generator states must be
        if not isinstance(saved, dict) or saved.pop('sha256', None) != seal_of(path, saved):
            raise ValueError(f'{path} is not as a run wrote it: it is damaged, or of another version of this program')
        self.refuse_other_options(saved['state']['log'][0], path)
        if saved['data'] != self.data_hash:
            raise ValueError(f'{path}: the interrupted run had other data, another vocabulary or other weights')
        if len(saved['generators']) != self.ranks.size:
            raise ValueError(f'{path}: the interrupted run had {len(saved["generators"])} processes, each with a '
                             f'generator of its own, this one has {self.ranks.size}: start as many')
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        set_generator_states(saved['generators'][self.ranks.rank])
        self.state |= saved['state']  # what an earlier version did not keep has the value of the beginning

    def refuse_other_options(self, options, path):
        """Raise ValueError where a run, whose options `path` holds, cannot be continued with the present ones."""
        now = vars(self.args)
        changed = [name for name in now if name not in INCIDENTAL and now[name] != options.get(name)]
        if changed:
            raise ValueError(f'{path}: the run to resume had other options: ' + ', '.join(
                f'--{name} {options.get(name)}, now {now[name]}' for name in changed))

    def seconds(self):
        """Seconds that the run has taken, without its interruptions."""
        return self.state['seconds'] + time.monotonic() - self.started

    def save_or_stop(self):
        """Save a checkpoint when it is time; after a signal save one and raise Stopped. All processes do the same."""
        is_due = time.monotonic() - self.saved_at >= 60 * self.args.checkpoint_minutes
        is_due, received = self.ranks.largest([int(is_due), int(self.signals.received)], self.device)
        if is_due or received:
            self.save()
        if received:
            raise Stopped(received, f'stopped after update {self.state["n_updates"]} of {self.state["n_total"]}; the '
                          'same command with --resume continues')

    def begin_update(self):
        """Remember the generators, so that `drop_update` can undo what an update has drawn."""
        self.generators = generator_states()

    def drop_update(self):
        """After a signal, within an update: save the state before it, and raise Stopped. With several processes the
        update is finished, because all must stop after the same one."""
        if self.signals.received and self.ranks.size == 1:
            set_generator_states(self.generators)
            self.save_or_stop()

    def save(self):
        """Write the checkpoint."""
        generators = self.ranks.gather(generator_states())
        if self.ranks.rank == 0:
            self.check_parameters()
            saved = {name: part.state_dict() for name, part in self.parts.items()}
            saved |= dict(generators=generators, data=self.data_hash, state={**self.state, 'seconds': self.seconds()})
            save_state(self.last_path, {**saved, 'sha256': seal_of(self.last_path, saved)})
        self.saved_at = time.monotonic()

    def log(self, **line):
        """Add a line to the log. Raises ArithmeticError if one of its numbers is not finite."""
        for name, value in line.items():
            if isinstance(value, float) and not math.isfinite(value):
                self.raise_diverged(f'{name} is {value} after update {self.state["n_updates"]}')
        line['time'] = time.time()
        if self.ranks.rank == 0:
            self.logger.log(**line)
        self.state['log'].append(line)

    def check_parameters(self):
        """Raise ArithmeticError if parameters of the model are not finite: they are not worth keeping."""
        if not all_finite(self.parts['model'].state_dict()):
            self.raise_diverged(f'parameters are not finite after update {self.state["n_updates"]}')

    def raise_diverged(self, what):
        """End the run: `what` is not finite."""
        last = f'last checkpoint: {self.last_path}' if os.path.isfile(self.last_path) else 'no checkpoint yet'
        raise ArithmeticError(f'{what}: lower --lr? {last}')

    def print(self, text):
        """Print a line, on one process. A reader that is gone (`| head`) counts as a signal to stop."""
        if self.ranks.rank == 0:
            try:
                (tqdm.write if at_terminal() else print)(printable(text))  # above a progress bar
                sys.stdout.flush()
            except BrokenPipeError:
                sys.stdout = open(os.devnull, 'w')  # so that Python does not complain at its end
                self.signals.received = self.signals.received or getattr(signal, 'SIGPIPE', 13)

    def keep_vocabulary(self, encoder_path, bpe_path, folder=''):
        """Copy vocabulary and merges into the folder of the run, or into one in it."""
        if self.ranks.rank == 0:
            for source, name in ((encoder_path, VOCABULARY), (bpe_path, MERGES)):
                with open(source, 'rb') as f, write_whole(self.path(folder + name), 'wb') as g:
                    g.write(f.read())

    def finish(self, results):
        """Write results.json, which makes the run complete; returns the results with the run's options and seconds."""
        self.signals.release()
        results = dict(results, desc=self.args.desc, options=vars(self.args), seconds=self.seconds())
        if self.ranks.rank == 0:
            paths = [path for path in Path(self.folder).rglob('*') if path.is_file()]
            results['files'] = {path.relative_to(self.folder).as_posix(): (path.stat().st_size, sha256(path))
                                for path in paths if path.name not in ('checkpoint.pt', 'results.json')}
            write_sealed(self.results_path, results)
            with suppress(FileNotFoundError):
                os.remove(self.last_path)
        return results


def generator_states() -> dict:
    """The states of Python's, NumPy's and torch's generators, in types that `torch.load(weights_only=True)` reads."""
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
    """Write tensors and plain values to a file. An earlier file stays until the new one is complete."""
    with write_whole(path, 'wb') as f:
        try:
            torch.save(state, f)
        except RuntimeError as e:
            if isinstance(e.__context__, OSError):  # torch wraps the OSError of a full disk
                raise e.__context__ from None
            raise


def check_archive(path):
    """Raise ValueError for a zip archive that is damaged, or that unpacks to more than the file has."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError('compressed')  # neither torch nor numpy's savez does it
        if sum(member.file_size for member in members) > os.path.getsize(path):
            raise ValueError('members overlap')
        if archive.testzip():
            raise ValueError('check sums differ')  # torch does not compare them


def load_state(path: str) -> dict:
    """Read a file of `save_state`, to the CPU: tensors and plain values alone. Raises ValueError if it is damaged."""
    check_file(path)
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
        with warnings.catch_warnings(action='ignore'):  # torch warns of some pickles before it refuses them
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as e:  # torch raises a dozen kinds for damaged files
        if isinstance(e, OSError) and e.errno not in (None, errno.EINVAL):  # it cannot be read; EINVAL: a wrong offset
            e.filename = e.filename or path
            raise
        reason = (str(e) or type(e).__name__).splitlines()[0][:80]
        raise ValueError(f'{path} is damaged, or not a torch file ({reason})') from None


def seal_of(path: str, saved: dict) -> str:
    """The hash of the plain values of a checkpoint and of the types and shapes of its tensors; '' for no checkpoint.

    Tensors of whole numbers (orders, generators) are hashed too. Parameters and moments are not, because that takes
    seconds, and load_state compares check sums of them.
    """
    def kind_of(tensor):
        numbers = tensor.tolist() if is_plain(tensor) and tensor.dtype in (torch.int64, torch.uint8) else None
        return str(tensor.dtype), tensor.shape, is_plain(tensor), numbers
    try:
        return seal(path, saved, kind_of)
    except (AttributeError, TypeError, ValueError, RecursionError):
        return ''


def is_plain(tensor) -> bool:
    """True for a tensor with all its numbers in memory: not sparse, and not one number repeated."""
    return (isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.device.type != 'meta'
            and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size())


def all_finite(state: dict) -> bool:
    """True if all numbers of a state dict are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


def commit_of_code() -> str | None:
    """The commit of this checkout, with -dirty if Python files were changed; None for a copy that is no checkout.
    Neither another repository around it nor git's variables, as within a hook, count."""
    def git(*command):
        return subprocess.run(['git', '--git-dir', os.path.join(ROOT, '.git'), '--work-tree', ROOT, *command],
                              cwd=ROOT, env=variables, capture_output=True, text=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith('GIT_')}
    with suppress(OSError):  # there is no git
        if commit := git('rev-parse', '--verify', 'HEAD').stdout.strip():
            return commit + '-dirty' * bool(git('diff', '--quiet', 'HEAD', '--', '*.py').returncode)


def environment() -> dict:
    """Versions, threads and commit, on which the numbers of a run depend too."""
    versions = {name: importlib.metadata.version(name) for name in ('torch', 'numpy', 'spacy', 'ftfy')}
    return dict(python=platform.python_version(), **versions, threads=torch.get_num_threads(), commit=commit_of_code())


def set_aside(paths) -> list[str]:
    """Rename all files and folders that exist, or none, with the first number free for all: a.jsonl -> a.1.jsonl.

    A folder that cannot be renamed, because a volume or a layer of Docker begins there, is copied and emptied.
    """
    paths = [path for path in paths if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path))]
    n = 1
    while any(os.path.lexists(with_number(path, n)) for path in paths):
        n += 1
    copied = []
    with ExitStack() as undo:
        for path in paths:
            new = with_number(path, n)
            try:
                os.rename(path, new)
                undo.callback(os.rename, new, path)
            except OSError as e:
                if e.errno not in (errno.EXDEV, errno.EBUSY) or not os.path.isdir(path):
                    raise
                undo.callback(shutil.rmtree, new, ignore_errors=True)
                shutil.copytree(path, new, symlinks=True)
                copied.append(path)
        undo.pop_all()
    for entry in [entry for path in copied for entry in os.scandir(path)]:
        shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.remove(entry)
    return [with_number(path, n) for path in paths]


def with_number(path, n):
    """log/a.jsonl -> log/a.1.jsonl, save/a -> save/a.1"""
    stem, extension = os.path.splitext(path) if path.endswith(('.jsonl', '.tsv')) else (path, '')
    return f'{stem}.{n}{extension}'
