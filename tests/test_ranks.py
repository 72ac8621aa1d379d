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

import classifier
import pretrain
import train
from common.device import Ranks
from tasks.stories import TEST_NAME


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


@pytest.mark.parametrize('env', [dict(WORLD_SIZE='2'), dict(RANK='3'), dict(RANK='', WORLD_SIZE=''),
                                 dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='1', MASTER_ADDR='localhost')])
def test_one_process_predicts_whatever_the_environment_says(env, toy, folder, monkeypatch):
    toy('--desc', 'one', '--n_iter', '1')
    predict = toy_argv(folder, '--desc', 'one', '--predict', str(folder / TEST_NAME), '--dtype', 'auto')
    expected = train.main(train.parse_args(predict)).logits
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert torch.equal(train.main(train.parse_args(predict)).logits, expected)
    assert len(classifier.load(folder / 'save' / 'one', device='cpu').predict([('the cat', 'mom sad', 'dad')])) == 1


@pytest.mark.parametrize('env, message', [
    (dict(RANK='3'), 'RANK=3, WORLD_SIZE=1, LOCAL_RANK=0, which torchrun does not set so: unset RANK'),
    (dict(RANK='', WORLD_SIZE=''), 'RANK=, WORLD_SIZE=,'), (dict(WORLD_SIZE='two'), 'WORLD_SIZE=two'),
    (dict(RANK='-1'), 'RANK=-1'), (dict(WORLD_SIZE='0'), 'WORLD_SIZE=0'), (dict(LOCAL_RANK='x'), 'LOCAL_RANK=x'),
    (dict(WORLD_SIZE='2'), 'WORLD_SIZE=2, but no MASTER_ADDR: unset RANK')])
def test_an_environment_that_is_not_torchruns_is_named(env, message, folder, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        train.main(train.parse_args(toy_argv(folder)))
    with pytest.raises(ValueError, match=message):
        pretrain.main(pretrain.parse_args(['--data_dir', str(folder), '--device', 'cpu', '--vocab_size', '99']))


def test_a_process_group_of_the_readers_own_program(folder):
    """Each process predicts its own texts, trains with the other, loads what they have trained, and the group stays."""
    run_two(folder, name='in_my_group')
    results = [json.loads((folder / f'out{rank}').read_text().splitlines()[-1]) for rank in (0, 1)]
    assert [result['n'] for result in results] == [1, 3] and all(result['group'] for result in results)
    assert results[0]['first'] != results[1]['first']


def test_processes_that_cannot_share_the_towers_are_told_so(folder, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='2 processes cannot share --n_gpu 3 towers equally'):
        train.main(train.parse_args(toy_argv(folder, '--n_gpu', '3')))


@pytest.mark.parametrize('is_different, words', [
    (lambda value: isinstance(value, str) and len(value) == 64, 'different data or weights'),
    (lambda value: value == 0, 'different checkpoints')])
def test_processes_with_other_files_do_not_train_together(folder, monkeypatch, is_different, words):
    """Two machines may have folders of their own."""
    monkeypatch.setattr(Ranks, 'gather', lambda self, value: [value, None if is_different(value) else value])
    with pytest.raises(ValueError, match=words):
        train.main(train.parse_args(toy_argv(folder)))


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
