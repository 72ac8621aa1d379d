import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_datasets import HEADER, folder_of, story, write
from test_resume import with_stories
from test_train import TOY, toy_argv

import analysis
import checkpoint
import train
from datasets import TEST_NAME
from device import choose_device


@pytest.fixture
def files(tmp_path):
    """A test file of four stories (labels 0 1 0 1), predictions (0 1 1 1) and a log of two evaluations."""
    folder_of(tmp_path, n=4)
    (tmp_path / 'p.tsv').write_text('index\tprediction\n0\t0\n1\t1\n2\t1\n3\t1\n')
    lines = [{'desc': 'x', 'lr': 1}, {'va_acc': 70.123}, {'va_acc': 60.}]
    (tmp_path / 'other-name.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return tmp_path


def run(folder):
    return analysis.rocstories(str(folder), str(folder / 'p.tsv'), str(folder / 'other-name.jsonl'))


def test_the_two_lines_of_the_original(files, capsys):
    assert run(files) == (70.123, 75.)
    assert capsys.readouterr().out == 'ROCStories Valid Accuracy: 70.12\nROCStories Test Accuracy:  75.00\n'


def test_a_test_file_without_labels(files, capsys):
    write(files / TEST_NAME, [row[:-1] for row in [HEADER] + [story(i) for i in range(4)]])
    assert run(files) == (70.123, None)
    assert 'Test Accuracy:  unknown' in capsys.readouterr().out


def test_wrong_files_are_named(files):
    (files / 'p.tsv').write_text('index\tprediction\n0\t1\n')
    with pytest.raises(ValueError, match='has 1 predictions, .* has 4 stories'):
        run(files)
    (files / 'p.tsv').write_text('nothing\n')
    with pytest.raises(ValueError, match='p.tsv has 0 predictions'):
        run(files)
    (files / 'p.tsv').write_text('index\tguess\n0\t1\n')
    with pytest.raises(ValueError, match='p.tsv is not a submission'):
        run(files)
    (files / 'other-name.jsonl').write_text('{"desc": "x"}\n')
    with pytest.raises(ValueError, match='no evaluation yet'):
        run(files)
    (files / 'other-name.jsonl').write_text('{"desc": "x"\n')
    with pytest.raises(ValueError, match='is not a log'):
        run(files)


def log_of(path, seed, accuracies, test=None, wrong=(), time=0., n_iter=2, **options):
    """A log of a run with these validation accuracies, one an epoch."""
    lines = [dict(seed=seed, n_iter=n_iter, dataset='rocstories', desc=path.stem, time=time, lr=1, **options)]
    lines += [dict(n_epochs=i + 1, n_updates=46 * (i + 1), tr_cost=0.5, va_cost=0.6 - 0.1 * i, tr_acc=90., va_acc=acc)
              for i, acc in enumerate(accuracies)]
    if test is not None:
        path.with_suffix('.test').write_text(json.dumps(dict(test_acc=test, wrong=list(wrong))))
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return str(path)


@pytest.fixture
def logs(tmp_path):
    """Two configurations on seeds 1 to 4, a run that is not complete, and an older one of seed 1."""
    paths = [log_of(tmp_path / f'{coef}-{seed}.jsonl', seed, [80., 82. + seed + coef], 84. + seed * (1 + coef),
                    range(seed), time=10., lm_coef=coef) for coef in (0., 0.5) for seed in range(1, 5)]
    return paths + [log_of(tmp_path / 'short.jsonl', 9, [50.], lm_coef=0.),
                    log_of(tmp_path / 'older.jsonl', 1, [10., 10.], 10., time=5., lm_coef=0.)]


def test_seeds_of_a_configuration_are_summed_up(logs, capsys):
    groups = analysis.main(analysis.parse_args([*logs, '--no_figures']))
    assert {name: sorted(runs) for name, runs in groups.items()} == {
        'lm_coef=0.0': [1, 2, 3, 4], 'lm_coef=0.5': [1, 2, 3, 4]}
    out = capsys.readouterr().out
    assert f'{logs[-2]}: left out, the run is not complete' in out
    assert f'{logs[-1]}: left out, {logs[0]} is a later run of the same options and seed' in out
    # 85 86 87 88: the deviation is 1.291, Student's t for three degrees of freedom 3.1824, the half width 2.0543
    assert ('test accuracy: median 86.50, best 88.00, range 85.00 to 88.00, quartiles 85.75 to 87.25, '
            'mean 86.50 +- 2.05 (95 % t interval), n = 4') in out
    assert 'test stories that most of 4 runs get wrong: 2: 0 (4) 1 (3)' in out      # story 2 is wrong in half of them
    # differences of -0.5 for validation and -0.5, -1, -1.5, -2 for test: of 16 sign flips two are as far from 0
    assert 'lm_coef=0.0 minus lm_coef=0.5: -0.50 validation accuracy on 4 shared seeds, p = 0.125 (' in out
    assert 'lm_coef=0.0 minus lm_coef=0.5: -1.25 test accuracy on 4 shared seeds, p = 0.125 (' in out


def test_sign_flips():
    assert analysis.sign_flip_test([1, 1, 1, 1, -1]) == 12 / 32         # |sum| is 3 or 5 in 2 * (5 + 1) of 32 cases
    assert analysis.sign_flip_test([1.] * 10) == 2 / 1024
    assert analysis.sign_flip_test([0., 0.]) == 1
    assert analysis.sign_flip_test([0.1] * 20) == pytest.approx(1 / 2 ** 16)        # drawn: what was seen is one
    from scipy.stats import permutation_test
    d = np.random.default_rng(1).normal(0.5, 1, 9)
    theirs = permutation_test((d,), np.mean, permutation_type='samples', n_resamples=10_000)
    assert analysis.sign_flip_test(d) == pytest.approx(theirs.pvalue)


def test_what_the_files_hold_belongs_to_a_configuration_and_where_they_are_does_not(tmp_path):
    paths = [log_of(tmp_path / f'{i}.jsonl', i, [80., 81.], model_path=str(i),
                    environment=dict(weights=w, commit=str(i)))
             for i, w in enumerate(('aaaaaaaaaaaa', 'aaaaaaaaaaaa', 'bbbbbbbbbbbb'))]
    groups = analysis.main(analysis.parse_args([*paths, '--no_figures']))
    assert {name: sorted(by_seed) for name, by_seed in groups.items()} == {
        'weights=aaaaaaaa': [0, 1], 'weights=bbbbbbbb': [2]}
    assert analysis.describe([None]) == 'unknown' and 'mean' not in analysis.describe([80.])


def test_figures_are_drawn(logs, tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    folder = tmp_path / 'figures'
    analysis.main(analysis.parse_args([*logs, '--figure_dir', str(folder)]))
    for name in ('learning_curves.png', 'accuracies.png'):
        assert (folder / name).read_bytes().startswith(b'\x89PNG') and (folder / name).stat().st_size > 10_000
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ValueError, match='pip install matplotlib'):
        analysis.main(analysis.parse_args(logs))


def test_no_complete_run_is_an_error(logs):
    with pytest.raises(ValueError, match='none of 1 logs is of a complete run'):
        analysis.main(analysis.parse_args([logs[-2]]))


def test_runs_over_seeds_are_single_runs_and_can_be_resumed(tmp_path, capsys):
    with_stories(tmp_path)

    def run(*argv):
        return train.main(train.parse_args(toy_argv(tmp_path, '--analysis', '--lr', '1e-3', *argv)))

    single = run('--seed', '4', '--desc', 'one')
    many = run('--seeds', '3-4', '--desc', 'many')
    assert [r.desc for r in many] == ['many-3', 'many-4'] and many[1].losses == single.losses != many[0].losses
    accuracies = [r.valid_accuracy for r in many]
    assert f'valid accuracy: {analysis.describe(accuracies)}' in capsys.readouterr().out
    assert (tmp_path / 'submission' / 'many-3' / 'ROCStories.tsv').exists()
    again = run('--seeds', '3,4,6', '--desc', 'many', '--resume')
    assert capsys.readouterr().out.count('is complete') == 2 and again[2].desc == 'many-6'
    logs = [str(tmp_path / 'log' / f'many-{seed}.jsonl') for seed in (3, 4, 6)]
    groups = analysis.main(analysis.parse_args([*logs, str(tmp_path / 'log' / 'one.jsonl'), '--no_figures']))
    assert [sorted(by_seed) for by_seed in groups.values()] == [[3, 4, 6]]         # seed 4 once: `one` is the earlier
    assert [run.scores['test'] for run in groups['all runs'].values()] == [r.test_accuracy for r in again]


def test_the_log_says_what_a_run_depended_on(tmp_path):
    with_stories(tmp_path)
    results = train.main(train.parse_args(toy_argv(tmp_path, '--n_iter', '1')))
    options = json.loads(Path(results.log_path).read_text().splitlines()[0])
    found = options['environment']
    assert found['torch'] == torch.__version__ and found['device'] == 'cpu' and found['processes'] == 1
    assert found['vocabulary'] == hashlib.sha256((TOY / 'encoder_bpe_40000.json').read_bytes()).hexdigest()
    assert {'python', 'numpy', 'spacy', 'ftfy', 'commit', 'merges', 'weights', 'texts', 'ids', 'threads'} <= set(found)


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert checkpoint.environment()['commit'] is None


def test_deterministic_turns_on_torchs_own_switch(monkeypatch):
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    try:
        choose_device('cpu', 'float32', deterministic=True)
        assert torch.are_deterministic_algorithms_enabled() and os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop('CUBLAS_WORKSPACE_CONFIG', None)
