"""scripts/tables.py on made-up GLUE folders: what is run, what is not run again, and what the table says."""

import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from toy import NO_DROPOUT, WORDS, toy_argv

from scripts import tables


def write_tasks(folder, n=30):
    """CoLA (text, no header) and RTE (pair) of n training and 8 validation rows, and 5 test rows without labels."""
    rng = np.random.RandomState(0)
    sizes = dict(train=n, dev=8, test=5)
    for name in ('CoLA', 'RTE'):
        (folder / name).mkdir()
    for split, size in sizes.items():
        labels = [i % 2 for i in range(size)]
        texts = [' '.join([*rng.choice(WORDS[8:], 3), WORDS[label]]) for label in labels]
        cola = [f's\t{label}\t\t{text}' for label, text in zip(labels, texts, strict=True)]
        rte = ['index\tsentence1\tsentence2\tlabel']
        rte += [f'{i}\t{text}\tdad\t{("entailment", "not_entailment")[label]}'
                for i, (label, text) in enumerate(zip(labels, texts, strict=True))]
        if split == 'test':
            cola = ['index\tsentence', *(f'{i}\t{text}' for i, text in enumerate(texts))]
            rte = [line.rpartition('\t')[0] for line in rte]
        (folder / 'CoLA' / f'{split}.tsv').write_text('\n'.join(cola) + '\n')
        (folder / 'RTE' / f'{split}.tsv').write_text('\n'.join(rte) + '\n')


@pytest.fixture
def run(tmp_path):
    write_tasks(tmp_path)

    def run(*argv):
        rest = toy_argv(tmp_path, *NO_DROPOUT, '--n_iter', '1')
        return tables.main(tables.parse_args([*argv, *rest]))
    return run


def test_a_table_is_made_of_runs_that_are_done_once(run, tmp_path, capsys):
    argv = ['5', '--datasets', 'rte,cola,qqp', '--rows', 'full', '--seeds', '1-2', '--zip']
    results = run(*argv)
    out = capsys.readouterr().out
    assert re.search(r'^qqp: no data: .*QQP', out, re.MULTILINE)
    assert '4 runs of 6 are to be done: rte-full-1, rte-full-2, cola-full-1, cola-full-2' in out
    assert out.index('\ncola-full-1:') < out.index('\nrte-full-1:')  # the shorter texts first
    assert list(results) == [('rte', 'full'), ('cola', 'full')]
    lines = (tmp_path / 'log' / 'table5.md').read_text().splitlines()
    assert len(lines) == 2 + 2 + 1
    cells = [cell.strip() for cell in lines[3].split('|')[1:-1]]
    scores = sorted(result.valid_score for result in results['cola', 'full'])
    assert cells[:6] == ['cola', 'full', 'matthews', 'dev', '8', '2']
    assert cells[6] == f'{np.median(scores):.1f} [{scores[0]:.1f}..{scores[1]:.1f}]'
    assert cells[8:] == ['0.0', '45.4 (GLUE test)', '57.6']
    assert lines[-1].startswith('| qqp | no data |')
    with zipfile.ZipFile(tmp_path / 'submission' / 'glue.zip') as archive:
        assert archive.namelist() == ['CoLA.tsv', 'RTE.tsv']
        best = max(results['rte', 'full'], key=lambda result: result.valid_score)
        assert archive.read('RTE.tsv').decode() == open(best.submission).read()
    again = run(*argv)
    out = capsys.readouterr().out
    assert 'are to be done' not in out and out.count('is complete') == 4
    assert (tmp_path / 'log' / 'table5.md').read_text().splitlines() == lines and list(again) == list(results)


def test_the_rows_of_table_5_are_options():
    plan = tables.plan(tables.parse_args(['5', '--datasets', 'cola', '--seeds', '7', '--lr', '1e-3']))
    assert [(row, one.n_transfer, one.lm_coef) for (_, row), [one] in plan.items()] == [
        ('full', 12, 0.5), ('no_pretraining', -1, 0.5), ('no_lm', 12, 0.)]
    assert all((one.seed, one.lr, one.submit) == (7, 1e-3, True) for [one] in plan.values())
    argv = ['5', '--datasets', 'cola', '--lm_coef', '0.7', '--n_tran', '2']  # a row keeps what it is named after
    plan = tables.plan(tables.parse_args(argv))
    assert [(one.n_transfer, one.lm_coef) for [one] in plan.values()] == [(2, 0.7), (-1, 0.7), (2, 0.)]


def test_a_best_evaluation_within_the_first_epoch_is_the_one_in_the_table():
    best = dict(n_epochs=0, n_updates=2000, va_score=60., va_score_near=61.)
    run = SimpleNamespace(best=best, best_epoch=0, log=[dict(best, n_updates=1000, va_score=40.), best], test=None)
    assert tables.measured([run, run], 'valid') == {'': [60., 60.], 'near': [61., 61.]}
    assert tables.measured([run], 'test') == {}


def test_figure_2_transfers_more_and_more_blocks(run, tmp_path, capsys, monkeypatch):
    figures = []
    monkeypatch.setattr(tables, 'legend_below', figures.append)
    results = run('figure2', '--datasets', 'cola', '--layers', '0,3')
    [[ax]] = [fig.axes for fig in figures]
    assert [(line.get_linestyle(), line.get_ydata().tolist()) for line in ax.lines] == [
        (style, [run.best[f'{part}_score'] for [run] in results.values()])
        for style, part in (('--', 'tr'), ('-', 'va'))]
    assert ax.get_ylim()[1] == 100 and ax.get_ylim()[0] < min(line.get_ydata().min() for line in ax.lines)
    assert ax.get_title() == 'best epoch on dev (dashed: training), one seed: higher is better'
    assert ax.get_ylabel() == 'score (%)' and ax.lines[1].get_label() == 'cola (matthews)'
    assert [result.options['n_transfer'] for [result] in results.values()] == [0, 3]
    assert (tmp_path / 'log' / 'figure2.png').read_bytes().startswith(b'\x89PNG')
    assert f'figure: {tmp_path}/log/figure2.png' in capsys.readouterr().out


@pytest.mark.parametrize('argv, words', [
    (['5', '--datasets', 'colla'], "invalid list of rocstories"), (['2', '--rows', 'half'], 'invalid list of full'),
    (['5', '--seed', '3'], '--seed has no effect here'), (['5', '--layers', 'x'], 'invalid layers'),
    (['6'], 'invalid choice'), (['5', '--no_such_option'], 'unrecognized arguments')])
def test_wrong_options_are_one_line(argv, words, run):
    with pytest.raises(ValueError, match=words):
        run(*argv)


def test_without_any_data_there_is_no_table(run, tmp_path):
    with pytest.raises(FileNotFoundError, match='no data for any of these tasks'):
        run('2', '--datasets', 'snli,mnli')
    assert not (tmp_path / 'log').exists()
