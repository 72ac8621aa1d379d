"""Work that is shared out among processes: results, errors, processes that are killed, and interrupts."""

import functools
import os
import signal
import subprocess
import threading
import time

import pytest

from common.workers import share_out


@pytest.fixture
def started(monkeypatch):
    """The processes that `share_out` has started."""
    processes = []

    class Process(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            processes.append(self)
            super().__init__(*args, **kwargs)
    monkeypatch.setattr('common.workers.subprocess.Popen', Process)
    return processes


def have_ended(processes, n):
    """Whether there are n processes, which have ended and were waited for."""
    return len(processes) == n and all(process.returncode is not None for process in processes)


@pytest.mark.parametrize('n_proc', [1, 3])
def test_results_are_in_the_order_of_the_jobs(n_proc, started):
    assert share_out(functools.partial(max, 4), [1, 9, 5, 2], n_proc, 'test') == [4, 9, 5, 4]
    assert have_ended(started, n_proc if n_proc > 1 else 0)
    assert share_out(len, [], n_proc, 'test') == []


def test_the_work_is_done_in_other_processes_without_torch():
    where = share_out(eval, ['__import__("os").getpid()'] * 8, 2, 'test')
    assert len(where) == 8 and os.getpid() not in where and len({*where}) <= 2
    job = '__import__("text_utils").load_rules() and __import__("sys").modules["torch"]'
    assert share_out(eval, [job], 2, 'test') == [None]


def test_what_the_work_prints_is_no_answer():
    assert share_out(print, ['a', 'b'], 2, 'test') == [None, None]


@pytest.mark.parametrize('n_proc', [1, 2])
def test_an_error_of_the_work_is_raised_here(n_proc, started):
    with pytest.raises(ValueError, match='x'):
        share_out(int, ['1', 'x', '3'] + ['4'] * 100, n_proc, 'test')
    assert have_ended(started, n_proc if n_proc > 1 else 0)


@pytest.mark.parametrize('job', [f'__import__("os").kill(__import__("os").getpid(), {signal.SIGKILL})',
                                 '__import__("os")._exit(0)'])
def test_a_process_that_is_killed_is_an_error_and_no_hang(job, started):
    with pytest.raises(ChildProcessError, match='was killed: not enough memory'):
        share_out(eval, ['1', job, *['2'] * 20], 2, 'test')
    assert have_ended(started, 2)


def test_an_interrupt_ends_all_processes_at_once(started):
    begun = time.monotonic()
    timer = threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        share_out(time.sleep, [60] * 6, 2, 'test')
    assert time.monotonic() - begun < 20 and have_ended(started, 2)
