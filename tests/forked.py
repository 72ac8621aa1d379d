"""Runs of the scripts in new processes, forked from a process with all imports, so that they start without delay."""

import importlib
import multiprocessing
import os
import resource
import signal
import socket
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from toy import toy_argv

import fast
import pretrain
import train
from common.shell import one_line_errors

TESTS = Path(__file__).parent


def start_process(target, *args, **kwargs):
    """Call `target(*args, connection, **kwargs)` in a new process; returns it and our end of the connection."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['forked', 'warm'])
    before = os.environ.get('PYTHONPATH', '')
    os.environ['PYTHONPATH'] = os.pathsep.join([str(TESTS), str(TESTS.parent), before])
    ours, other = multiprocessing.Pipe()
    process = context.Process(target=target, args=(*args, other), kwargs=kwargs)
    process.start()                                                     # the first starts the server too
    other.close()                                                       # so that its end shows here
    os.environ['PYTHONPATH'] = before
    return process, ours


def start(folder, argv, **kwargs):
    """Start `python train.py ARGV`, or another script; see `script` for the rest. Returns the process."""
    return start_process(script, folder, argv, **kwargs)[0]


def script(folder, argv, _, name='train', signal_at=None, limit=None, env=None, poison_after=None,
           touch_at_update=None):
    """What `python NAME.py ARGV` does, with its output in files out and err of `folder`, RANK in the names.

    signal_at: (signal, 'update', 'evaluate' or 'LMLoss', n) has it send itself a signal at the n-th of them. limit: no
    file may grow beyond so many bytes. env: environment variables. poison_after: a weight is NaN after so many updates.
    touch_at_update: a file to make when the first update begins.
    """
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.update(env or {})
    module = importlib.import_module(name)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if signal_at:
        number, where, n = signal_at
        places = dict(update=(module, 'update'), LMLoss=(pretrain.LMLoss, 'forward'),
                      evaluate=(fast, 'task_logits') if name == 'train' else (pretrain, 'validate'))
        before_call(*places[where], n, lambda *_: os.kill(os.getpid(), number))
    if poison_after:
        before_call(train, 'update', poison_after + 1,
                    lambda runner, *_: runner.model.transformer.h[1].mlp.c_fc.w.data.fill_(float('nan')))
    if touch_at_update:
        before_call(module, 'update', 1, lambda *_: touch_at_update.touch())
    rank = os.environ.get('RANK', '')
    with open(folder / f'out{rank}', 'w') as out, open(folder / f'err{rank}', 'w') as err:
        with redirect_stdout(out), redirect_stderr(err):
            with one_line_errors():
                module.main(module.parse_args(argv))


def before_call(module, name, n, act):
    """Before the n-th call of a function, call `act` with the arguments of that call."""
    original, calls = getattr(module, name), iter(range(1, 10_000))

    def changed(*args):
        if next(calls) == n:
            act(*args)
        return original(*args)
    setattr(module, name, changed)


def finish(process, *statuses):
    """Wait for a process and check that it ends with one of `statuses`."""
    process.join(60)
    hangs = process.exitcode is None
    if hangs:
        process.kill()
    assert not hangs and process.exitcode in statuses, process.exitcode


def kill(process):
    """Kill a process. Returns whether it was running; a process that had ended before must have status 0."""
    process.kill()
    process.join()
    if process.exitcode == -signal.SIGKILL:
        return True
    finish(process, 0)
    return False


def free_port():
    with socket.socket() as s:
        s.bind(('localhost', 0))
        return str(s.getsockname()[1])


def run_two(folder, *argv, name='train', status=0, kill_after=None, **kwargs):
    """Run train.py, or another script with all of its options, in two processes, as torchrun starts them.

    status: of both, or of each. kwargs are for the second alone.
    """
    env = dict(WORLD_SIZE='2', MASTER_ADDR='localhost', MASTER_PORT=free_port())
    argv = toy_argv(folder, *argv) if name == 'train' else argv
    both = [start(folder, argv, name=name, env={**env, 'RANK': str(rank), 'LOCAL_RANK': str(rank)},
                  **(kwargs if rank else {})) for rank in (0, 1)]
    if kill_after:
        time.sleep(kill_after)
        for process in both:
            process.kill()
    for process, expected in zip(both, status if isinstance(status, tuple) else (status, status), strict=True):
        finish(process, *{expected, 0} if kill_after else {expected})   # it may have been done before the kill
