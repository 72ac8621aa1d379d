"""Work of several processes: shared out among new ones, or done by one while the others wait for it."""

import contextlib
import errno
import os
import pickle
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from filelock import FileLock, Timeout
from tqdm import tqdm

from utils import at_terminal, errors_named, make_path, remove_parts

SAY_EVERY = 60  # seconds between two lines about the progress of long work in a log file
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of network file systems

# the program of a new process, which finds modules in the same folders as this one
PROGRAM = 'import sys; sys.path[:] = {path!r}; from common.workers import serve; serve()'


@contextlib.contextmanager
def lock(path, wait=''):
    """Hold the lock file `path`, and remove it at the end. ValueError if another process holds it; with `wait`, a line
    to print, this one waits. Where the file system has no locks, a line says so, and nothing is held.
    """
    held = FileLock(make_path(path), fallback_to_soft=False)
    try:
        with errors_named(path):
            held.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise ValueError(f'another run holds {path}: wait for it, or choose another --desc') from None
        print(wait, file=sys.stderr)
        held.acquire()
    except OSError as e:
        if e.errno not in NO_LOCKS:
            raise
        print(f'{e}: nothing keeps another run from writing the same files', file=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)  # before its release: a process that waits locks a new file
        held.release()


def make_once(path, make):
    """Call `make`, which writes the file `path`, unless it exists. Other processes that need it wait."""
    if os.path.isfile(path):
        return
    folder, name = os.path.split(path)
    with lock(os.path.join(folder, f'.{name}.lock'), f'another process makes {path}: waiting for it'):
        if not os.path.isfile(path):
            remove_parts(path)
            make()


def progress(desc, items=None, total=None, **options):
    """A tqdm bar, over the items if there are any; in a log file, a line about once a minute instead."""
    if at_terminal():
        return tqdm(items, desc, total, leave=False, unit='', unit_scale=items is None, ncols=80, **options)
    return tqdm(items, desc, total, leave=False, mininterval=SAY_EVERY, miniters=1, delay=SAY_EVERY,
                bar_format='{desc}: {percentage:.0f} %, {remaining} left{postfix}\n', **options)


def share_out(work, jobs, n_proc, desc) -> list:
    """[work(job) for job in jobs], computed in n_proc new processes; in this one if n_proc < 2. Shows progress.

    work: a function of a module, or functools.partial of one, which is imported in the new processes; torch cannot be.
    An exception of `work` is raised here, ChildProcessError if a process is killed. The processes end when this
    function or this process does.
    """
    if n_proc < 2:
        return list(progress(desc, map(work, jobs), len(jobs)))
    # a process of its own session gets no Ctrl-C: it ends when its pipe is closed
    processes = [subprocess.Popen([sys.executable, '-c', PROGRAM.format(path=sys.path)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, start_new_session=True) for _ in range(n_proc)]
    idle = queue.SimpleQueue()
    for process in processes:
        idle.put((process, [work]))  # the first message is the function

    def call(job):
        process, first = idle.get()
        try:
            return ask(process, *first, job)
        finally:
            idle.put((process, []))
    threads = ThreadPoolExecutor(n_proc)
    try:
        return list(progress(desc, threads.map(call, jobs), len(jobs)))
    finally:
        for process in processes:
            process.kill()
        threads.shutdown(cancel_futures=True)
        for process in processes:
            with contextlib.suppress(OSError), process:  # OSError: not all was sent
                pass


def ask(process, *messages):
    """Send messages to a process and return its answer to the last, or raise its exception."""
    try:
        for message in messages:
            pickle.dump(message, process.stdin)
        process.stdin.flush()
        value, error = pickle.load(process.stdout)
    except (EOFError, OSError, pickle.UnpicklingError):
        raise ChildProcessError(f'process {process.pid}, which did a part of the work, was killed: not enough memory?'
                                ) from None
    if error:
        raise error
    return value


def serve():
    """Answer the messages on stdin until it is closed: the first is a function, which is called with the others."""
    sys.modules['torch'] = None  # spaCy imports it if it can: seconds, 200 MB
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # the worker's prints go to stderr, because stdout carries the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        work = pickle.load(sys.stdin.buffer)
        while True:
            job = pickle.load(sys.stdin.buffer)
            try:
                answer = work(job), None
            except Exception as e:
                answer = None, e
            pickle.dump(answer, answers)
            answers.flush()
