"""Training with towers in several processes of torchrun is the same as in one process."""

import json
import os
import subprocess
import sys

import pytest
import torch
from forked import run_two
from reference import assert_close, without_noise
from toy import NO_DROPOUT, ROOT, toy_argv

import train


def test_two_processes_train_and_evaluate_as_one(folder):
    argv = [*NO_DROPOUT, '--lr', '1e-3', '--submit']
    one = train.main(train.parse_args(toy_argv(folder, '--desc', 'one', *argv)))
    run_two(folder, '--desc', 'two', *argv)
    assert 'best on validation' in (folder / 'out0').read_text() and not (folder / 'out1').read_text()
    two = json.loads((folder / 'save' / 'two' / 'results.json').read_text())
    assert two['n_updates'] == 20
    assert_close(torch.tensor(two['losses']), torch.tensor(one.losses), atol=2e-6)
    assert_close(torch.tensor(two['test_logits']), torch.tensor(one.test_logits), atol=2e-5)
    a, b = (torch.load(folder / 'save' / name / 'best_params.pt', weights_only=True) for name in ('one', 'two'))
    for name in a:
        assert_close(without_noise(name, b[name]), without_noise(name, a[name]), atol=1e-6, what=name)


def test_a_process_without_a_batch_to_evaluate_waits_for_the_others(folder):
    """10 validation stories are one batch of 20: the second process has none."""
    argv = [*NO_DROPOUT, '--lr', '1e-3', '--n_batch', '10', '--submit']
    one = train.main(train.parse_args(toy_argv(folder, '--desc', 'one', *argv)))
    run_two(folder, '--desc', 'two', *argv)
    two = json.loads((folder / 'save' / 'two' / 'results.json').read_text())
    assert_close(torch.tensor(two['test_logits']), torch.tensor(one.test_logits), atol=2e-5)


def test_prediction_is_the_work_of_one_process(folder, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='--predict runs in one process'):
        train.main(train.parse_args(toy_argv(folder, '--predict', 'x.csv')))


def test_processes_that_cannot_share_the_towers_are_told_so(folder, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='2 processes cannot share --n_gpu 3 towers equally'):
        train.main(train.parse_args(toy_argv(folder, '--n_gpu', '3')))


@pytest.mark.slow
def test_one_failing_process_ends_the_run_with_its_own_message(folder):
    """Only process 1 has a device that does not exist."""
    code = ('import os, sys, train\n'
            'argv = sys.argv[1:] + (["--device", "tpu9"] if os.environ["RANK"] == "1" else [])\n'
            'from common.shell import run_script\n'
            'run_script(train.main, train.parse_args(argv))\n')
    (folder / 'one_fails.py').write_text(code)
    run = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
                          str(folder / 'one_fails.py'), *toy_argv(folder)], cwd=ROOT, capture_output=True, text=True,
                         env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
    assert run.returncode != 0 and 'error: --device tpu9' in run.stderr
