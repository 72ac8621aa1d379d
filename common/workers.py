"""Work of several processes: shared out among new ones, or done by one while the others wait for it."""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from filelock import FileLock, Timeout
from tqdm import tqdm

from utils import TimeLeft, make_path


@contextlib.contextmanager
def one_at_a_time(path):
    """Only one process at a time is in this context for a file `path`; the others wait for it, and say so."""
    lock = FileLock(make_path(os.path.join(os.path.dirname(path), f'.{os.path.basename(path)}.lock')))
    try:
        acquired = lock.acquire(blocking=False)
    except Timeout:
        print(f'another process makes {path}: waiting for it', file=sys.stderr)
        acquired = lock.acquire()
    with acquired:
        yield


class Lines:
    """Like a tqdm bar, for log files: one line a minute."""

    def __init__(self, desc, total, initial=0):
        self.desc, self.total, self.n, self.time_left = desc, total, initial, TimeLeft(total, initial)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, n=1):
        """n more units are done."""
        self.n += n
        if left := self.time_left.say(self.n):
            print(f'{self.desc}: {100 * self.n / self.total:.0f} %, {left}', file=sys.stderr)


def progress(desc, total, initial=0):
    """A tqdm bar of bytes or other small units; `Lines` if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return Lines(desc, total, initial)
    return tqdm(desc=desc, total=total, initial=initial, unit='', unit_scale=True, ncols=80, leave=False)


def share_out(work, jobs, n_proc, bar, steps=None) -> list:
    """[work(job) for job in jobs], computed in n_proc new processes; in this one if n_proc < 2.

    work: a function of a module, or functools.partial of one, which is imported in the new processes; torch cannot be.
    bar: a tqdm bar, which goes on by 1 after each job, or by steps[i]. An exception of `work` is raised here.
    ChildProcessError if a process is killed. The processes end when this function or this process does.
    """
    steps = steps or [1] * len(jobs)
    if n_proc < 2:
        return list(advancing(map(work, jobs), bar, steps))
    # a process of its own session gets no Ctrl-C: it ends when its pipe is closed
    processes = [subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  start_new_session=True) for _ in range(n_proc)]
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
        return list(advancing(threads.map(call, jobs), bar, steps))
    finally:
        for process in processes:
            process.kill()
        threads.shutdown(cancel_futures=True)
        for process in processes:
            with contextlib.suppress(OSError), process:  # OSError: not all was sent
                pass


def advancing(results, bar, steps):
    """The results, one by one, with the bar going on by a step after each."""
    for result, step in zip(results, steps, strict=True):
        bar.update(step)
        yield result


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


if __name__ == '__main__':
    serve()
