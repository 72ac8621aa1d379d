import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy import HEADER, TOY, folder_of, story, toy_argv, with_stories, write

import analysis
import train
from common import checkpoint
from common.device import choose_device
from datasets import TEST_NAME


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
    with pytest.raises(ValueError, match='p.tsv is not a submission'):
        run(files)
    (files / 'p.tsv').write_text(f'index\tprediction\n0\t{10 ** 30}\n')
    with pytest.raises(ValueError, match='p.tsv is not a submission'):
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


def log_of(path, seed, accuracies, test=None, time=0., n_iter=2, task='rocstories', **options):
    """A log of a run with these validation accuracies, one for each epoch."""
    lines = [dict(seed=seed, n_iter=n_iter, dataset=task, desc=path.stem, time=time, lr=1, **options)]
    lines += [dict(n_epochs=i + 1, n_updates=46 * (i + 1), tr_cost=0.5, va_cost=0.6 - 0.1 * i, tr_acc=90., va_acc=acc)
              for i, acc in enumerate(accuracies)]
    if test is not None:
        lines.append(dict(test_acc=test, time=time))
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return str(path)


@pytest.fixture
def logs(tmp_path):
    """Two configurations on seeds 1 to 4, a run that is not complete, and an older one of seed 1."""
    paths = [log_of(tmp_path / f'{coef}-{seed}.jsonl', seed, [80., 82. + seed + coef], 84. + seed * (1 + coef),
                    time=10., lm_coef=coef) for coef in (0., 0.5) for seed in range(1, 5)]
    return paths + [log_of(tmp_path / 'short.jsonl', 9, [50.], lm_coef=0.),
                    log_of(tmp_path / 'older.jsonl', 1, [10., 10.], 10., time=5., lm_coef=0.)]


def test_a_log_of_pretraining_is_drawn(tmp_path, logs, capsys):
    lines = [dict(data_dir='text'), *(dict(n_epochs=n / 10, n_updates=n, tr_loss=5 - n / 10, va_loss=math.log(9 - n))
                                      for n in range(1, 6))]
    path = tmp_path / 'mine.jsonl'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert analysis.main(analysis.parse_args([str(path), '--figure_dir', str(tmp_path)])) is None
    assert capsys.readouterr().out == (f'{path}: best perplexity on held-out text 4.00\n'
                                       f'figure: {tmp_path}/pretraining.png\n')
    assert (tmp_path / 'pretraining.png').read_bytes().startswith(b'\x89PNG')
    assert seeds_of(path, *logs) == {'lm_coef=0.0': [1, 2, 3, 4], 'lm_coef=0.5': [1, 2, 3, 4]}      # both kinds at once
    path.write_text('{}\n{"va_loss": 1, "tr_loss": null, "n_updates": 1}\n')
    with pytest.raises(ValueError, match='mine.jsonl is not a log of .* line 2: tr_loss is not a finite number'):
        analysis.main(analysis.parse_args([str(path)]))


def test_losses_of_pretraining(drawn, tmp_path):
    paths = [tmp_path / f'{name}.jsonl' for name in ('small', 'large $_$')]
    for path in paths:
        lines = [{}, *(dict(n_updates=n, tr_loss=6., va_loss=math.log(9 - n)) for n in range(1, 6))]
        path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    [fig] = drawn(*map(str, paths))
    [ax] = fig.axes
    assert legend(fig) == ['small, best perplexity 4.00', 'large $_$, best perplexity 4.00']
    assert ax.get_ylabel() == 'loss (nats per token)' and ax.get_xlim()[0] == 0
    assert [line.get_linestyle() for line in ax.lines] == ['--', '-'] * 2 and 'lower is better' in ax.get_title()
    assert len({line.get_marker() for line in ax.lines[1::2]}) == 2                        # they lie on each other


def seeds_of(*logs) -> dict:
    """{name of a configuration: its seeds}, which analysis.py reads from the logs."""
    runs = analysis.main(analysis.parse_args([*map(str, logs), '--no_figures']))
    return runs.groupby('name').seed.apply(list).to_dict()


@pytest.mark.parametrize('line, name', [
    (dict(va_score=100., va_acc=100., va_f1=100.), 'accuracy'), (dict(va_score=100., va_f1=100., va_acc=100.), 'F1'),
    (dict(va_acc=60.), 'accuracy'), (dict(va_score=1.), 'score')])
def test_a_score_has_the_name_of_the_first_metric(line, name):
    assert analysis.metric_of(line) == name


def test_runs_that_were_chosen_by_another_metric_are_others(logs, tmp_path):
    for metric in ('f1', 'matthews'):
        text = Path(logs[0]).read_text()
        (tmp_path / f'{metric}.jsonl').write_text(text.replace('"va_acc"', f'"va_score": 7.0, "va_{metric}"'))
    runs, *_ = analysis.read_runs([logs[0], *(str(tmp_path / f'{metric}.jsonl') for metric in ('f1', 'matthews'))])
    assert runs.metric.tolist() == ['accuracy', 'F1', 'Matthews correlation']


def test_seeds_of_a_configuration_are_summed_up(logs, capsys):
    assert seeds_of(*logs) == {'lm_coef=0.0': [1, 2, 3, 4], 'lm_coef=0.5': [1, 2, 3, 4]}
    out = capsys.readouterr().out
    assert f'{logs[-2]}: left out, the run is not complete' in out
    assert f'{logs[-1]}: left out, {logs[0]} is a later run of the same options and seed' in out
    # 85 86 87 88: the deviation is 1.291, Student's t for three degrees of freedom 3.1824, the half width 2.0543
    assert ('test accuracy: median 86.50, best 88.00, range 85.00 to 88.00, quartiles 85.75 to 87.25, '
            'mean 86.50 +- 2.05 (95 % t interval), n = 4') in out
    # differences of -0.5 for validation and -0.5, -1, -1.5, -2 for test: of 16 sign flips two are as far from 0
    assert 'lm_coef=0.0 minus lm_coef=0.5: -0.50 validation accuracy on 4 shared seeds, p = 0.125 (' in out
    assert 'lm_coef=0.0 minus lm_coef=0.5: -1.25 test accuracy on 4 shared seeds, p = 0.125 (' in out


def p_of(differences) -> str:
    """The p-value printed for two configurations whose test accuracies differ by these numbers."""
    rows = [dict(task='x', metric='accuracy', name=name, seed=seed, validation=np.nan, test=50 + sign * d / 2)
            for seed, d in enumerate(differences) for name, sign in (('a', 1), ('b', -1))]
    line, = analysis.comparisons(pd.DataFrame(rows))
    return line[line.index('p = '):]


def test_sign_flips():
    assert p_of([1, 1, 1, 1, -1]) == 'p = 0.375 (paired sign-flip test)'  # |sum| is 3 or 5 in 2 * (5 + 1) of 32 cases
    assert p_of([1.] * 10) == 'p = 0.00195 (paired sign-flip test)'  # 2 / 1024
    assert p_of([0., 0.]) == 'p = 1 (paired sign-flip test)'
    assert p_of([0.1] * 16) == 'p = 3.05e-05 (paired sign-flip test)'        # exact: 2 / 2 ** 16
    assert p_of([0.1] * 20) == 'p = 3.05e-05 (paired sign-flip test)'        # drawn: 2 / (2 ** 16 + 1)


def test_only_runs_of_one_task_are_compared(tmp_path, capsys):
    paths = [log_of(tmp_path / f'{task}-{seed}.jsonl', seed, [80., 81.], task=task) for task in 'ab' for seed in (1, 2)]
    assert seeds_of(*paths) == {'a': [1, 2], 'b': [1, 2]}
    assert ' minus ' not in capsys.readouterr().out


def test_accuracies_of_any_task(capsys):
    assert analysis.report('MNLI', 81.256, 80.) == (81.256, 80.)
    assert capsys.readouterr().out == 'MNLI Valid Accuracy: 81.26\nMNLI Test Accuracy:  80.00\n'


def test_scores_of_tasks_without_classes(tmp_path, capsys):
    """Numbers from -100 to 100 choose the best evaluation. A line's score is used before its accuracy."""
    for seed in (1, 2):
        lines = [dict(seed=seed, n_iter=2, time=1, dataset='stsb')]
        lines += [dict(n_epochs=n, n_updates=n, va_cost=1., va_score=10. * seed - 40 * n) for n in (1, 2)]
        lines += [dict(test_score=-5. * seed)]
        (tmp_path / f'{seed}.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    seeds_of(tmp_path / '1.jsonl', tmp_path / '2.jsonl')
    out = capsys.readouterr().out
    assert 'validation score: median -25.00, best -20.00' in out and 'test score: median -7.50, best -5.00' in out
    assert 'accuracy' not in out
    assert analysis.score(dict(va_acc=90., va_score=50.)) == 50 and analysis.score(dict(va_acc=90.)) == 90


def test_contents_of_files_belong_to_a_configuration_and_paths_do_not(tmp_path):
    paths = [log_of(tmp_path / f'{i}.jsonl', i, [80., 81.], model_path=str(i),
                    environment=dict(weights=w, commit=str(i)))
             for i, w in enumerate(('aaaaaaaaaaaa', 'aaaaaaaaaaaa', 'bbbbbbbbbbbb'))]
    assert seeds_of(*paths) == {'weights of 0': [0, 1], 'weights of 2': [2]}
    assert analysis.describe([None]) == 'unknown' and analysis.describe([80.]) == '80.00, one run'


def test_runs_are_named_in_words(tmp_path, capsys):
    """By the task, where there are several; by files only where nothing else tells runs of a task apart."""
    def log(i, task, seed, **options):
        files = dict(texts='1ee2014c', ids='99', weights='77') | options.pop('files', {})
        return log_of(tmp_path / f'{i}.jsonl', seed, [80., 81.], task=task, model_path='model/sample/',
                      environment=files, data_dir='data/', **options)
    paths = [log(0, 'cola', 1, n_batch=32, files=dict(texts='5', ids='5')), log(1, 'rte', 1, n_batch=8, lr_warmup=0.1),
             log(2, 'rte', 1, n_batch=8, lr_warmup=0.2)]
    assert seeds_of(*paths) == {'cola': [1], 'rte lr_warmup=0.1': [1], 'rte lr_warmup=0.2': [1]}
    paths = [log(3, 'own', 1, train='a/letters.csv'),
             log(4, 'own', 1, train='a/letters.csv', files=dict(texts='5', ids='6'))]
    assert seeds_of(*paths) == {'texts of a/letters.csv (1)': [1], 'texts of a/letters.csv (2)': [1]}
    capsys.readouterr()
    assert seeds_of(paths[0]) == {'letters.csv': [1]}
    assert capsys.readouterr().out == (
        'letters.csv: seed 1\n  validation accuracy: 81.00, one run\n  test accuracy: unknown\n')


def test_a_log_whose_name_is_not_utf_8_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b'l\xe9.jsonl')
    log_of(path, 1, [80., 81.])
    assert seeds_of(path) == {'rocstories': [1]}


def test_options_of_any_kind_are_told_apart_by_all_of_their_text(tmp_path):
    values = ['warmup_cosine', 'warmup_constant', [1, 2], {'a': [1]}, None, 'a\nb', '$_$', '\ud800']
    paths = [log_of(tmp_path / f'{i}.jsonl', 1, [80., 81.], schedule=value) for i, value in enumerate(values)]
    names = ['warmup_cosine', 'warmup_constant', '[1, 2]', "{'a': [1]}", 'None', 'a\\nb', '$_$', '\\ud800']
    assert seeds_of(*paths) == {f'schedule={name}': [1] for name in names}
    if importlib.util.find_spec('matplotlib'):
        analysis.main(analysis.parse_args([*paths, '--figure_dir', str(tmp_path)]))


TOO_DEEP = '[' * 100_000 + ']' * 100_000


@pytest.mark.parametrize('number, text', [
    (0, '"seed": "1"'), (0, '"seed": [1]'), (0, f'"seed": {10 ** 400}'), (0, '"n_iter": "2"'), (0, '"n_iter": NaN'),
    (0, '"time": {}'), (0, f'"lr": {TOO_DEEP}'), (0, f'"lr": {"[" * 100_000}'),
    (1, '"n_epochs": "2"'), (1, '"n_epochs": true'), (1, '"n_updates": null'), (1, '"va_cost": NaN'),
    (1, '"va_cost": Infinity'), (1, '"va_score": []'), (1, '"va_acc": 1e400'),
    (1, f'"va_acc": {"9" * 5000}'), (2, '"test_acc": "50"')], ids=lambda x: str(x)[:20])
def test_a_damaged_log_is_named_in_one_line(tmp_path, number, text):
    """Text is added to a line of a good log. If a key occurs twice, json uses its last value."""
    path = tmp_path / 'x.jsonl'
    lines = ['"seed": 1, "n_iter": 1, "time": 0', '"n_epochs": 1, "n_updates": 1, "va_cost": 1, "va_acc": 50',
             '"test_acc": 50']
    path.write_text(''.join(f'{{{line}}}\n' for line in lines))
    assert seeds_of(path) == {'all runs': [1]}
    lines[number] += f', {text}'
    path.write_text(''.join(f'{{{line}}}\n' for line in lines))
    with pytest.raises(ValueError, match='is not a log of train.py|does not hold') as raised:
        seeds_of(path)
    message = str(raised.value)
    assert message.startswith(str(path)) and '\n' not in message and len(message) < 300


@pytest.mark.parametrize('key', ['n_epochs', 'n_updates', 'va_cost'])
def test_an_evaluation_that_lacks_a_number_is_named(tmp_path, key):
    path = log_of(tmp_path / 'x.jsonl', 1, [80., 81.])
    text = Path(path).read_text()
    Path(path).write_text(text.replace(f'"{key}"', '"other"', 1))
    with pytest.raises(ValueError, match='x.jsonl does not hold .* evaluations'):
        seeds_of(path)


def test_importing_analysis_imports_no_library_of_statistics():
    code = 'import analysis, sys; print({"pandas", "scipy", "sklearn", "matplotlib"} & set(sys.modules))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                          cwd=Path(analysis.__file__).parent).stdout == 'set()\n'


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that runs analysis.py on logs and returns the figures, which are not rendered."""
    figures, matplotlib = [], pytest.importorskip('matplotlib.figure')
    monkeypatch.setattr(matplotlib.Figure, 'savefig', lambda fig, *_, **__: figures.append(fig))

    def run(*logs):
        figures.clear()
        analysis.main(analysis.parse_args([*logs, '--figure_dir', str(tmp_path)]))
        return figures
    return run


def legend(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_seeds_of_one_configuration_are_one_line_and_a_mark_each(drawn, tmp_path):
    logs = [log_of(tmp_path / f'{seed}.jsonl', seed, [80., 84 + seed, 83.], 80. + seed) for seed in (3, 1, 2)]
    curves, scores = drawn(*logs)
    curve, cost = curves.axes
    assert legend(curves) == ['rocstories (3 seeds)'] and len(curves.legends) == 1
    [[line], [dashed]] = curve.lines, cost.lines
    assert line.get_ydata().tolist() == [80, 86, 83]
    assert line.get_xdata().tolist() == dashed.get_xdata().tolist() == [46, 92, 138]
    assert curve.get_ylim() == (70, 101.2) and curve.get_xlim()[0] == 0
    assert (curve.get_title(), curve.get_ylabel()) == ('rocstories\nvalidation: higher is better', 'accuracy (%)')
    assert (cost.get_title(), cost.get_ylabel()) == ('rocstories\nvalidation: lower is better', 'cost')
    assert legend(scores)[1:] == ['paper, best run: 86.5', "authors' code, median of 10: 85.8"]
    assert [ax.texts[0].get_text() for ax in scores.axes] == ['86.0', '82.0']                # the medians
    assert all(ax.get_ylim() == (70, 101.2) for ax in scores.axes)


def test_many_seeds_are_summed_up(drawn, tmp_path):
    logs = [log_of(tmp_path / f'{coef}-{seed}.jsonl', seed, [60., 70. + seed + coef], task='x', lm_coef=coef)
            for coef in (0, 9) for seed in range(10)]
    curves, scores = drawn(*logs)
    curve = curves.axes[0]
    assert legend(curves) == ['lm_coef=0 (10 seeds)', 'lm_coef=9 (10 seeds)']
    assert [line.get_ydata().tolist() for line in curve.lines] == [[60, 74.5], [60, 83.5]]
    assert [area.get_datalim(curve.transData).intervaly.tolist() for area in curve.collections] == [[60, 79], [60, 88]]
    [panel] = scores.axes                                              # no run has a test score
    assert legend(scores) == ['lm_coef=0', 'lm_coef=9'] and panel.get_title() == 'x\nvalidation: higher is better'
    assert [line.get_ydata().tolist() for line in panel.lines] == [[*range(70, 80)], [*range(79, 89)]]


@pytest.mark.parametrize('metric, scores, label, limits', [
    ('matthews', [-5., 12.], 'Matthews correlation (%)', (-30, 105.2)),
    ('pearson', [60., 75.], 'Pearson correlation (%)', (50, 102)),
    ('f1', [100.], 'F1 (%)', (90, 100.4)), ('acc', [50., 50.], 'accuracy (%)', (40, 102.4)),
    ('other', [50.], 'score (%)', (40, 102.4))])
def test_axes_fit_any_metric(drawn, tmp_path, metric, scores, label, limits):
    lines = [dict(seed=1, n_iter=len(scores), dataset='x', time=0)]
    lines += [{'n_epochs': n, 'n_updates': n, 'va_cost': 0.5, 'va_score': score, f'va_{metric}': score}
              for n, score in enumerate(scores, start=1)]
    path = tmp_path / 'x.jsonl'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    curve, _ = drawn(str(path))[0].axes
    assert curve.get_ylabel() == label and curve.get_ylim() == limits


def test_each_task_has_its_row_its_metric_and_its_constant_answer(drawn, tmp_path):
    paths = []
    for task, metric, trivial in (('cola', 'matthews', 0.), ('rte', 'acc', 52.5), ('cola', 'matthews', 0.)):
        lines = [dict(seed=len(paths), n_iter=1, dataset=task, time=0)]
        lines += [{'n_epochs': 1, 'n_updates': 9, 'va_cost': 0.5, 'va_score': 100., f'va_{metric}': 100.,
                   'va_trivial': trivial}, dict(test_score=60., test_trivial=trivial + 1)]
        paths.append(tmp_path / f'{len(paths)}.jsonl')
        paths[-1].write_text(''.join(json.dumps(line) + '\n' for line in lines))
    curves, scores = drawn(*map(str, paths))
    labels = [ax.get_ylabel() for ax in scores.axes]
    assert labels == ['Matthews correlation (%)'] * 2 + ['accuracy (%)'] * 2
    assert [ax.get_ylabel() for ax in curves.axes] == [labels[0], 'cost', labels[2], 'cost']
    assert [ax.get_title().split('\n')[0] for ax in scores.axes] == ['cola', 'cola', 'rte', 'rte']
    lines = [line for ax in scores.axes for line in ax.lines if line.get_label() == 'the best constant answer']
    assert [line.get_ydata()[0] for line in lines] == [0, 1, 52.5, 53.5]
    for fig in curves, scores:
        assert legend(fig).count('the best constant answer') == 1
        for ax in fig.axes:
            low, high = ax.get_ylim()
            assert all(low < y < high for line in ax.lines for y in line.get_ydata())     # marks are not cut


@pytest.mark.parametrize('name', ['module://no_such_package.backend', 'no_such_backend'])
def test_a_backend_of_jupyter_that_is_not_here_is_not_needed(logs, tmp_path, name):
    pytest.importorskip('matplotlib')
    argv = [sys.executable, analysis.__file__, *logs, '--figure_dir', str(tmp_path / 'figures')]
    done = subprocess.run(argv, env={**os.environ, 'MPLBACKEND': name}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '') and (tmp_path / 'figures' / 'accuracies.png').exists()


def test_figures_are_drawn(logs, tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    folder = tmp_path / 'figures'
    analysis.main(analysis.parse_args([*logs, '--figure_dir', str(folder)]))
    for name in ('learning_curves.png', 'accuracies.png'):
        assert (folder / name).read_bytes().startswith(b'\x89PNG') and (folder / name).stat().st_size > 10_000
    for name in [name for name in sys.modules if name.split('.')[0] == 'matplotlib']:
        monkeypatch.setitem(sys.modules, name, None)
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
    *lines, valid, test, last = capsys.readouterr().out.splitlines()
    assert valid == f'valid accuracy: {analysis.describe([r.valid_accuracy for r in many])}'
    assert test.startswith('test accuracy: ') and last.startswith(f'python analysis.py {tmp_path}/log/many-*.jsonl')
    assert [line for line in lines if line.startswith('---')] == ['--- seed 3, 1 of 2: many-3 ---',
                                                                  '--- seed 4, 2 of 2: many-4 ---']
    written = [json.loads(line) for line in Path(many[0].log_path).read_text().splitlines()]
    assert written[-1]['test_trivial'] == many[0].test_trivial and written[1]['va_trivial'] == many[0].valid_trivial
    assert (tmp_path / 'submission' / 'many-3' / 'ROCStories.tsv').exists()
    again = run('--seeds', '3,4,6', '--desc', 'many', '--resume')
    assert capsys.readouterr().out.count('is complete') == 2 and again[2].desc == 'many-6'
    logs = [str(tmp_path / 'log' / f'many-{seed}.jsonl') for seed in (3, 4, 6)]
    frame = analysis.main(analysis.parse_args([*logs, str(tmp_path / 'log' / 'one.jsonl'), '--no_figures']))
    assert list(frame.seed) == [3, 4, 6]                               # seed 4 once: the run `one` is earlier
    assert list(frame.test) == [r.test_accuracy for r in again]


def test_the_log_says_what_a_run_depended_on(tmp_path):
    with_stories(tmp_path)
    results = train.main(train.parse_args(toy_argv(tmp_path, '--n_iter', '1')))
    options = json.loads(Path(results.log_path).read_text().splitlines()[0])
    environment = options['environment']
    assert (environment['device'], environment['processes']) == ('cpu', 1)
    assert environment['torch'] == importlib.metadata.version('torch')
    assert environment['vocabulary'] == hashlib.sha256((TOY / 'encoder_bpe_40000.json').read_bytes()).hexdigest()
    assert environment.keys() >= {'python', 'numpy', 'spacy', 'ftfy', 'commit', 'merges', 'weights', 'texts', 'ids',
                                  'threads'}


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
