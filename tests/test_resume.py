"""A run that is killed, stopped or out of disk space continues, with the result of an uninterrupted run."""

import errno
import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from forked import finish, kill, run_two, start
from reference import assert_close, needs_float16
from toy import MERGES, NO_DROPOUT, ROOT, TOY, VOCABULARY, files, toy_argv, toy_stories, with_stories, write

import train
from common import checkpoint
from common.checkpoint import Stopped, load_state, lock, save_state, set_aside
from datasets import TEST_NAME, VAL_NAME

EVERY_UPDATE = ['--checkpoint_minutes', '0']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The files of a run that was not interrupted."""
    folder = with_stories(tmp_path_factory.mktemp('whole'))
    run(folder, '--desc', 'whole', '--analysis')
    return outcome(folder, 'whole')


def run(folder, *argv, status=0, **kwargs):
    """Run train.py in a new process. Returns the last line on stderr."""
    finish(start(folder, toy_argv(folder, *argv), **kwargs), status)
    return error(folder)


def error(folder):
    return ((folder / 'err').read_text().splitlines() or [''])[-1]


def outcome(folder, desc):
    """The contents of all files of a run, without times and its name."""
    assert sorted(os.listdir(folder / 'save' / desc)) == ['best_params.pt', 'config.json', VOCABULARY, 'results.json',
                                                          MERGES]
    results = json.loads((folder / 'save' / desc / 'results.json').read_text())
    log = [json.loads(line) for line in (folder / 'log' / f'{desc}.jsonl').read_text().splitlines()]
    assert len(log) == 4 and log[0]['desc'] == desc                     # options, two evaluations, the test score
    for line in log + results['log']:
        del line['time']
    best = torch.load(folder / 'save' / desc / 'best_params.pt', weights_only=True)
    kept = {key: results[key] for key in ('losses', 'log', 'best_epoch', 'valid_accuracy', 'test_logits')}
    return kept, log[1:], {name: p.numpy().tobytes() for name, p in best.items()}


@pytest.mark.parametrize('n_kills', [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moments_a_run_ends_bit_for_bit_as_if_it_had_not_been(folder, whole, n_kills):
    """Every fifth kill comes while the run is starting, the others while it trains, evaluates or writes."""
    argv, began = ['--analysis', *EVERY_UPDATE], folder / 'began'

    def start_training(desc):
        began.unlink(missing_ok=True)
        process = start(folder, toy_argv(folder, '--desc', desc, '--resume', *argv), touch_at_update=began)
        while process.exitcode is None and not began.exists():
            time.sleep(0.001)
        return process

    process, clock = start_training('timed'), time.monotonic()
    finish(process, 0)
    duration = time.monotonic() - clock
    assert outcome(folder, 'timed') == whole
    moments, kills, n_resumed, desc = random.Random(5), 0, 0, 'killed'
    while kills < n_kills:
        n_resumed += (folder / 'save' / desc / 'checkpoint.pt').exists()
        if kills % 5 == 0:
            process = start(folder, toy_argv(folder, '--desc', desc, '--resume', *argv))
            process.join(moments.uniform(0, 0.3))
        else:
            process = start_training(desc)
            process.join(moments.uniform(0, 0.5) * duration)
        if kill(process):
            kills += 1
        else:
            assert outcome(folder, desc) == whole
            desc, duration = f'killed-again-{kills}', 0.9 * duration    # the machine may be faster now
    run(folder, '--desc', desc, '--resume', *argv)
    assert outcome(folder, desc) == whole
    assert n_resumed >= n_kills // 2


@pytest.mark.parametrize('number, where, n, done', [
    (signal.SIGINT, 'update', 13, 13), (signal.SIGHUP, 'update', 1, 1),
    (signal.SIGINT, 'evaluate', 10, 20), (signal.SIGTERM, 'evaluate', 2, 10)])
def test_a_signal_ends_the_step_saves_and_says_how_to_continue(folder, whole, number, where, n, done):
    argv, status = ['--desc', 'stopped', '--analysis'], 128 + number
    assert run(folder, *argv, status=status, signal_at=(number, where, n)).endswith(
        f': stopped after update {done} of 20; the same command with --resume continues')
    checkpoint = torch.load(folder / 'save' / 'stopped' / 'checkpoint.pt', weights_only=True)
    assert checkpoint['state']['n_updates'] == done
    before = files(folder)
    assert 'holds an interrupted run: add --resume' in run(folder, *argv, status=2)
    assert files(folder) == before
    run(folder, *argv, '--resume')
    assert outcome(folder, 'stopped') == whole


@pytest.fixture
def stopped(folder):
    """A folder with a run that was stopped after update 13, past its first evaluation; train.main of its --resume."""
    run(folder, '--desc', 'stopped', status=143, signal_at=(signal.SIGTERM, 'update', 13))
    return lambda *argv: train.main(train.parse_args(toy_argv(folder, '--desc', 'stopped', '--resume', *argv)))


@pytest.mark.parametrize('argv, words', [
    (['--lr', '1e-3', '--seed', '1'], 'other options: --seed 42, now 1, --lr 0.01, now 0.001'),
    (['--embd_pdrop', '0'], 'other options: --embd_pdrop 0.1, now 0.0')])
def test_only_the_same_options_continue_a_run(folder, stopped, argv, words):
    before = files(folder)
    with pytest.raises(ValueError, match=words) as raised:
        stopped(*argv)
    assert '\n' not in str(raised.value) and files(folder) == before


def test_only_the_same_stories_continue_a_run(folder, stopped):
    before = files(folder)
    write(folder / VAL_NAME, toy_stories(50, 2))
    with pytest.raises(ValueError, match='had other data, another vocabulary or other weights'):
        stopped()
    assert files(folder) == before


def test_a_complete_run_is_left_alone(folder, stopped, capsys):
    stopped('--analysis')
    before = files(folder)
    capsys.readouterr()
    results = stopped()
    assert 'stopped is complete' in capsys.readouterr().out and files(folder) == before
    assert results.n_updates == 20 and results.valid_accuracy == 100
    with pytest.raises(ValueError, match='--n_iter 2, now 3'):
        stopped('--n_iter', '3')
    # a run killed between its last two steps is complete too, and a new run of that name can begin
    (folder / 'save' / 'stopped' / 'checkpoint.pt').write_bytes(b'')
    stopped()
    capsys.readouterr()
    train.main(train.parse_args(toy_argv(folder, '--desc', 'stopped')))
    assert (folder / 'save' / 'stopped.1' / 'results.json').exists()
    stopped('--analysis')  # is not trained again for it
    out = capsys.readouterr().out
    assert '--desc stopped --predict FILE predicts' in out and 'ROCStories Valid Accuracy: 100.00' in out


@pytest.mark.parametrize('damage, message', [
    (lambda path: path.unlink(), 'best_params.pt is missing, .* the run cannot go on without it'),
    (lambda path: path.write_bytes(path.read_bytes()[:-9] + b'damaged!!'), 'best_params.pt is not what this run')])
def test_the_best_parameters_of_an_interrupted_run_are_those_that_it_wrote(folder, damage, message):
    argv = ['--desc', 'stopped', '--lr', '0']  # so that those of the first epoch stay the best
    run(folder, *argv, status=143, signal_at=(signal.SIGTERM, 'update', 13))
    damage(folder / 'save' / 'stopped' / 'best_params.pt')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train.main(train.parse_args(toy_argv(folder, *argv, '--resume')))
    assert not (folder / 'save' / 'stopped' / 'results.json').exists()


def test_resuming_what_was_never_begun_begins_it_and_says_so(folder, capsys):
    argv = toy_argv(folder, '--desc', 'new', '--resume')
    assert train.main(train.parse_args(argv)).n_updates == 20
    assert f'nothing to resume in {folder}/save/new: the run begins\n' in capsys.readouterr().out
    train.main(train.parse_args(toy_argv(folder, '--desc', 'other')))
    assert 'nothing to resume' not in capsys.readouterr().out


def test_a_full_disk_loses_nothing(folder, stopped, whole):
    before = files(folder)
    checkpoint = folder / 'save' / 'stopped' / 'checkpoint.pt'
    for limit in (500, 5000, checkpoint.stat().st_size - 1000):
        assert 'File too large' in run(folder, '--desc', 'stopped', '--resume', *EVERY_UPDATE, status=2, limit=limit)
        after = files(folder)
        assert not list(folder.rglob('*.part')) and after[checkpoint] == before[checkpoint]
        assert set(after) == set(before)
        log = folder / 'log' / 'stopped.jsonl'
        assert after[log] == before[log]
    run(folder, '--desc', 'stopped', '--resume', '--analysis')
    assert outcome(folder, 'stopped') == whole


def test_a_line_that_does_not_fit_is_not_begun(tmp_path):
    """If there is only room for a part of the line, that part is removed again."""
    code = ('import resource, sys; from utils import ResultLogger\n'
            'logger = ResultLogger(sys.argv[1], lr=1)\n'
            'resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n'
            'logger.log(text="x" * 1000)\n')
    path = tmp_path / 'log.jsonl'
    ended = subprocess.run([sys.executable, '-c', code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert 'OSError' in ended.stderr and 'no room for another line' in ended.stderr
    assert [json.loads(line)['lr'] for line in path.read_text().splitlines()] == [1]


@pytest.mark.parametrize('option', ['log_dir', 'save_dir', 'submission_dir'])
def test_a_folder_that_cannot_be_written_loses_nothing(folder, stopped, whole, option):
    """A folder below a file, which even root cannot make."""
    before = files(folder)
    (folder / 'file').touch()
    with pytest.raises((OSError, ValueError)) as raised:
        stopped('--submit', f'--{option}', str(folder / 'file' / 'x'))
    assert '\n' not in str(raised.value) and 'file/x' in str(raised.value)
    after = files(folder)
    assert (folder / 'save' / 'stopped' / 'checkpoint.pt') in after
    if option != 'submission_dir':
        assert after == before
    stopped('--analysis')                                              # continues with the right folder
    assert outcome(folder, 'stopped') == whole


def test_two_runs_of_one_name_are_refused(folder, stopped):
    before = files(folder)
    with lock(str(folder / 'save' / '.stopped.lock')):
        with pytest.raises(ValueError, match='another run holds .*stopped.lock: wait for it, or choose another --desc'):
            stopped()
        assert files(folder) == before
    both = str(folder / 'log')
    argv = toy_argv(folder, '--desc', 'both', '--log_dir', both, '--save_dir', both + '/')
    assert train.main(train.parse_args(argv)).n_updates == 20           # the same folder for both is allowed


def test_locks_go_with_their_runs(folder, stopped):
    def locks():
        return sorted(path.name for name in ('log', 'save') for path in (folder / name).glob('.*'))
    assert locks() == []
    with pytest.raises(ValueError, match='other options'):
        stopped('--lr', '3')
    assert locks() == []
    (folder / 'save' / '.stopped.lock').touch()                        # of a run that was killed, or a copy
    stopped()
    assert locks() == []


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_does_not_stop_a_run(folder, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(fcntl, 'flock', flock)
    (folder / 'save').mkdir()
    (folder / 'save' / '.x.lock').touch()
    assert train.main(train.parse_args(toy_argv(folder, '--desc', 'x', '--n_iter', '1'))).n_updates == 10
    assert f"{folder}/save/.x.lock': nothing keeps another run from writing the same files" in capsys.readouterr().err


@pytest.mark.parametrize('name, damage', [
    ('best_params.pt', os.remove), ('config.json', lambda path: path.write_text(path.read_text() + ' ')),
    (VOCABULARY, os.remove), (MERGES, lambda path: path.write_text('#version'))])
def test_a_complete_run_names_a_file_that_is_missing_or_changed(folder, toy, name, damage):
    toy('--desc', 'x')
    toy('--desc', 'x', '--resume')
    damage(folder / 'save' / 'x' / name)
    with pytest.raises(ValueError, match=f'save/x/{name} is not the file that the complete run wrote, or is missing'):
        toy('--desc', 'x', '--resume')


@pytest.mark.parametrize('number', [errno.EXDEV, errno.EBUSY, errno.EACCES])
def test_files_are_set_aside_all_or_none(tmp_path, monkeypatch, number):
    """A folder from a layer of a Docker image, or a volume, cannot be renamed; it is copied. With EACCES nothing is."""
    log, folder = tmp_path / 'a.jsonl', tmp_path / 'a'
    (folder / 'sub').mkdir(parents=True)
    for path in (log, folder / 'x', folder / 'sub' / 'y', tmp_path / 'a.1'):
        path.write_text(path.name)
    rename = os.rename

    def refused(path, new):
        if str(path) == str(folder):
            raise OSError(number, os.strerror(number), path, None, new)
        rename(path, new)

    monkeypatch.setattr(os, 'rename', refused)
    before = {path: path.read_text() for path in tmp_path.rglob('*') if path.is_file()}
    if number == errno.EACCES:
        with pytest.raises(PermissionError, match='a'):
            set_aside([str(log), str(folder)])
        assert {path: path.read_text() for path in tmp_path.rglob('*') if path.is_file()} == before
    else:
        assert set_aside([str(log), str(folder), str(tmp_path / 'absent')]) == [f'{tmp_path}/a.2.jsonl', f'{folder}.2']
        assert (tmp_path / 'a.2' / 'sub' / 'y').read_text() == 'y' and os.listdir(folder) == [] and not log.exists()
        assert set_aside([str(folder)]) == []                          # an empty folder is no earlier run


def test_half_written_files_do_not_stay_in_folders_that_are_set_aside(folder, toy):
    toy('--desc', 'x', '--n_iter', '1')
    (folder / 'save' / 'x' / 'sub').mkdir()
    for name in ('save/x/best_params.pt', 'save/x/sub/a', 'log/x.jsonl'):
        (folder / f'{name}.0123456789abcdef.part').touch()
    toy('--desc', 'x', '--n_iter', '1')
    assert (folder / 'save' / 'x.1' / 'best_params.pt').exists() and not [*folder.rglob('*.part')]


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(tmp_path):
    save_state(str(tmp_path / 'x.pt'), dict(a=1))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match='Too many open files'):
            load_state(str(tmp_path / 'x.pt'))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_commit_is_that_of_our_own_checkout(tmp_path, monkeypatch):
    git = ['git', '-C', str(tmp_path), '-c', 'user.email=a@b', '-c', 'user.name=n']
    monkeypatch.setattr(checkpoint, 'ROOT', str(tmp_path / 'inside'))
    (tmp_path / 'inside').mkdir()
    subprocess.run([*git, 'init', '-q'], check=True)
    subprocess.run([*git, 'commit', '-q', '--allow-empty', '-m', 'x'], check=True)
    monkeypatch.setenv('GIT_DIR', str(tmp_path / '.git'))
    assert checkpoint.commit_of_code() is None                         # a copy inside another repository
    monkeypatch.setattr(checkpoint, 'ROOT', str(tmp_path))
    monkeypatch.setenv('GIT_DIR', '/nowhere')                          # as within a hook of another repository
    commit = checkpoint.commit_of_code()
    assert len(commit) == 40
    (tmp_path / 'a.py').write_text('')
    monkeypatch.delenv('GIT_DIR')
    subprocess.run([*git, 'add', 'a.py'], check=True)
    assert checkpoint.commit_of_code() == f'{commit}-dirty'


def test_a_loss_that_is_not_finite_stops_the_run(folder):
    message = run(folder, '--desc', 'nan', *EVERY_UPDATE, status=2, poison_after=12)
    assert 'the loss of update 13 (epoch 2, batch 3) is nan (classification), nan (language model)' in message
    assert message.endswith(f'last checkpoint: {folder}/save/nan/checkpoint.pt')
    state = torch.load(folder / 'save' / 'nan' / 'checkpoint.pt', weights_only=True)
    assert state['state']['n_updates'] == 12


def test_two_processes_stop_together_and_go_on_as_if_they_had_not(folder):
    run_two(folder, '--desc', 'whole', '--analysis')
    run_two(folder, '--desc', 'stopped', '--analysis', status=143, signal_at=(signal.SIGTERM, 'update', 7))
    assert 'stopped after update 7 of 20' in (folder / 'err1').read_text()
    run_two(folder, '--desc', 'stopped', '--analysis', '--resume')
    assert outcome(folder, 'stopped') == outcome(folder, 'whole')
    with pytest.raises(ValueError, match='had 2 processes, .* this one has 1'):
        run_two(folder, '--desc', 'half', status=143, signal_at=(signal.SIGTERM, 'update', 7))
        train.main(train.parse_args(toy_argv(folder, '--desc', 'half', '--resume')))


@pytest.mark.slow
def test_two_processes_killed_at_random_moments(folder):
    run_two(folder, '--desc', 'whole', '--analysis')
    began = time.monotonic()
    run_two(folder, '--desc', 'timed', '--analysis', *EVERY_UPDATE)
    duration = time.monotonic() - began
    moments = random.Random(1)
    for _ in range(8):
        run_two(folder, '--desc', 'killed', '--analysis', '--resume', *EVERY_UPDATE, status=-signal.SIGKILL,
                kill_after=moments.uniform(0.3, 0.6) * duration)
    run_two(folder, '--desc', 'killed', '--analysis', '--resume', *EVERY_UPDATE)
    assert outcome(folder, 'killed') == outcome(folder, 'whole')


@pytest.mark.slow
def test_torchrun_hands_the_signal_on(folder):
    """A real torchrun: SIGTERM to it stops both processes after a step, and --resume continues."""
    argv = toy_argv(folder, '--desc', 'stopped', '--analysis', '--n_iter', '200')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', 'train.py']
    process = subprocess.Popen([*command, *argv], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    log = folder / 'log' / 'stopped.jsonl'
    while process.poll() is None and not (log.exists() and log.read_text().count('\n') > 2):
        time.sleep(0.1)
    process.terminate()
    assert 'the same command with --resume continues' in process.communicate(timeout=60)[1]
    state = torch.load(folder / 'save' / 'stopped' / 'checkpoint.pt', weights_only=True)['state']
    assert 20 <= state['n_updates'] < 2000
    ended = subprocess.run([*command, *argv, '--resume'], cwd=ROOT, capture_output=True, text=True,
                           env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert ended.returncode == 0 and 'best on validation' in ended.stdout


class ClosedAfter:
    """A standard output whose reader ends after n lines, as with `| head -n`."""

    def __init__(self, n):
        self.left = 2 * n                               # a line is two calls of write

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError

    def flush(self):
        pass


def test_a_closed_standard_output_stops_the_run_as_a_signal_does(folder, whole, monkeypatch):
    argv = toy_argv(folder, '--desc', 'piped', '--analysis')
    monkeypatch.setattr(sys, 'stdout', ClosedAfter(5))          # three warnings, and what the run will do
    with pytest.raises(Stopped, match='stopped after update 11 of 20; the same command with --resume') as stopped:
        train.main(train.parse_args(argv))
    monkeypatch.undo()
    assert stopped.value.status == 128 + signal.SIGPIPE
    train.main(train.parse_args([*argv, '--resume']))
    assert outcome(folder, 'piped') == whole


def test_outside_the_main_thread_a_run_goes_on_without_signals(folder, whole):
    argv, results = toy_argv(folder, '--desc', 'thread', '--analysis'), []
    thread = threading.Thread(target=lambda: results.append(train.main(train.parse_args(argv))))
    thread.start()
    thread.join()
    assert results[0].n_updates == 20 and outcome(folder, 'thread') == whole


@pytest.mark.parametrize('n', [13, 20])
def test_parameters_that_are_not_finite_are_not_kept(folder, monkeypatch, n):
    """Whether or not a later loss would be NaN too."""
    update, calls = train.update, iter(range(1, 100))

    def poisoned(runner, *args):
        losses = update(runner, *args)
        if next(calls) == n:
            runner.model.transformer.h[1].mlp.c_fc.w.data[0, 0] = float('nan')
        return losses

    monkeypatch.setattr(train, 'update', poisoned)
    with pytest.raises(ArithmeticError, match=f'after update {n}|loss of update {n + 1}') as raised:
        train.main(train.parse_args(toy_argv(folder, '--desc', 'nan', '--analysis')))
    assert 'lower --lr' in str(raised.value) and '\n' not in str(raised.value)
    assert 'NaN' not in (folder / 'log' / 'nan.jsonl').read_text()
    best = torch.load(folder / 'save' / 'nan' / 'best_params.pt', weights_only=True)
    assert all(p.isfinite().all() for p in best.values())
    best['task_head.linear.bias'][0] = float('inf')
    torch.save(best, folder / 'save' / 'nan' / 'best_params.pt')
    with pytest.raises(ValueError, match='best_params.pt holds parameters that are not finite'):
        train.main(train.parse_args(toy_argv(folder, '--desc', 'nan', '--predict', str(folder / VAL_NAME))))


@needs_float16
def test_half_precision_trains_is_resumed_and_predicts(folder):
    argv = ['--dtype', 'float16', '--submit', *NO_DROPOUT]
    single = train.main(train.parse_args(toy_argv(folder, '--desc', 'single', *NO_DROPOUT)))
    one = train.main(train.parse_args(toy_argv(folder, '--desc', 'half', *argv)))
    assert_close(torch.tensor(one.losses[:5]), torch.tensor(single.losses[:5]), atol=2e-2)
    assert one.valid_accuracy == 100
    run(folder, '--desc', 'stopped', *argv, status=143, signal_at=(signal.SIGTERM, 'update', 7))
    two = train.main(train.parse_args(toy_argv(folder, '--desc', 'stopped', *argv, '--resume')))
    assert two.losses == one.losses and two.test_logits == one.test_logits


def test_a_run_has_all_it_needs_and_can_be_moved(folder, tmp_path):
    """A run has copies of vocabulary and merges: the model folder may change, and the run's folder may be moved."""
    shutil.copytree(TOY, tmp_path / 'model')
    argv = ['--model_path', str(tmp_path / 'model'), '--desc', 'kept']
    trained = train.main(train.parse_args(toy_argv(folder, *argv, '--submit')))
    tokens = json.loads((tmp_path / 'model' / VOCABULARY).read_text())
    reversed_ids = json.dumps(dict(zip(tokens, list(tokens.values())[::-1], strict=True)))
    (tmp_path / 'model' / VOCABULARY).write_text(reversed_ids)
    shutil.move(folder / 'save' / 'kept', tmp_path / 'elsewhere' / 'sent')
    argv = ['--save_dir', str(tmp_path / 'elsewhere'), '--desc', 'sent', '--predict', str(folder / TEST_NAME),
            '--submission_dir', str(tmp_path), '--device', 'cpu']
    assert train.main(train.parse_args(argv)).logits.tolist() == pytest.approx(np.array(trained.test_logits), abs=1e-6)
    with pytest.raises(ValueError, match='is not the vocabulary that sent was trained with'):
        train.main(train.parse_args([*argv, '--encoder_path', str(tmp_path / 'model' / VOCABULARY)]))
    argv += ['--encoder_path', str(TOY / VOCABULARY), '--bpe_path', str(TOY / MERGES)]
    (tmp_path / 'elsewhere' / 'sent' / VOCABULARY).unlink()
    assert train.main(train.parse_args(argv)).accuracy == 100
    with pytest.raises(ValueError, match='best_params.pt is not what the run wrote'):
        other = train.main(train.parse_args(toy_argv(folder, '--desc', 'other', '--seed', '1')))
        shutil.copy(other.best_path, tmp_path / 'elsewhere' / 'sent' / 'best_params.pt')
        train.main(train.parse_args(argv))
