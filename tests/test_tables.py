"""scripts/tables.py on made-up GLUE folders: what is run, what is not run again, and what the table says."""

import json
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from toy import NO_DROPOUT, WORDS, toy_argv

from scripts import tables
from utils import read_sealed


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
        return tables.main(tables.parse_args([*argv, '--results', str(tmp_path / 'results'), *rest]))
    return run


def test_a_table_is_made_of_runs_that_are_done_once(run, tmp_path, capsys):
    argv = ['5', '--datasets', 'rte,cola,qqp', '--rows', 'full', '--seeds', '1-2', '--zip']
    results = run(*argv)
    out = capsys.readouterr().out
    assert re.search(r'^qqp: no data: .*QQP', out, re.MULTILINE)
    assert out.index('\ncola-full-1:') < out.index('\nrte-full-1:')  # the shorter texts first
    assert list(results) == [('cola', 'full'), ('rte', 'full')]
    lines = (tmp_path / 'log' / 'table5.md').read_text().splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines[:5]]
    assert cells[0] == ['task', 'metric', 'examples', 'full', 'constant', 'TF-IDF', 'paper']
    scores = sorted(result.valid_score for result in results['cola', 'full'])
    spread = f'{np.median(scores):.1f} [{scores[0]:.1f}..{scores[1]:.1f}]'
    assert cells[2][:3] == ['cola', 'matthews', 'dev, 8'] and cells[2][3].startswith(spread)
    assert cells[2][4] == '0.0' and cells[2][6] == '45.4 (GLUE test)' and cells[3][0] == 'rte'
    assert -100 <= float(cells[2][5]) <= 100  # TF-IDF
    assert cells[4][0] == 'qqp: no data'
    assert 'cola: 3 blocks, 16 wide, 1 epochs, 30 training examples, seeds 1, 2.' in '\n'.join(lines)
    with zipfile.ZipFile(tmp_path / 'submission' / 'glue.zip') as archive:
        assert archive.namelist() == ['CoLA.tsv', 'RTE.tsv']
        best = max(results['rte', 'full'], key=lambda result: result.valid_score)
        assert archive.read('RTE.tsv').decode() == open(best.submission).read()
    again = run(*argv)
    out = capsys.readouterr().out
    assert out.count('is complete:') == 4 and 'updates' not in out
    assert (tmp_path / 'log' / 'table5.md').read_text().splitlines() == lines and list(again) == list(results)


def test_rows_of_another_network_or_of_other_options_leave(run, tmp_path, capsys):
    argv = ['5', '--datasets', 'cola', '--seeds', '1-2']
    run(*argv, '--rows', 'full', '--vary', 'lr=1e-3,1e-2')
    run(*argv, '--rows', 'no_pretraining,no_lm', '--vary', 'lr=1e-3,1e-2')
    path = tmp_path / 'results' / 'table5.json'
    assert list(read_sealed(path)['cells']) == ['cola full', 'cola no_pretraining', 'cola no_lm']
    capsys.readouterr()
    run(*argv, '--rows', 'no_lm', '--l2', '0.1', '--save_dir', str(tmp_path / 'other'))
    assert list(read_sealed(path)['cells']) == ['cola no_lm']
    assert f'{path}: "cola full" leaves: its runs had other options, examples or weights' in capsys.readouterr().out
    cola = tmp_path / 'CoLA' / 'dev.tsv'
    cola.write_text(''.join(cola.read_text().splitlines(keepends=True)[:6]))
    run(*argv, '--rows', 'full', '--l2', '0.1', '--save_dir', str(tmp_path / 'other'))
    assert list(read_sealed(path)['cells']) == ['cola full']  # the others were scored on other examples
    cola.unlink()
    run('5', '--datasets', 'cola,rte', '--rows', 'full')
    assert 'no data' not in '\n'.join(tables.lines_of_table(read_sealed(path)))  # there are runs of cola


def test_each_cell_takes_the_values_that_are_best_on_dev_with_the_first_seed(run, tmp_path, capsys):
    results = run('5', '--datasets', 'cola', '--rows', 'full,no_pretraining', '--seeds', '1-3',
                  '--vary', 'lr=1e-9,1e-2', 'dropout=0,0.5')
    kept = read_sealed(tmp_path / 'results' / 'table5.json')
    for cell, runs in zip(kept['cells'].values(), results.values(), strict=True):
        assert list(cell['tried']) == ['lr=1e-9,dropout=0', 'lr=1e-9,dropout=0.5', 'lr=1e-2,dropout=0',
                                       'lr=1e-2,dropout=0.5']
        assert cell['chosen'] == max(cell['tried'], key=cell['tried'].get)
        assert cell['scores']['valid'][''] == [one.valid_score for one in runs] and cell['seeds'] == [1, 2, 3]
        assert cell['scores']['valid'][''][0] == max(cell['tried'].values())
        lr, dropout = (float(part.split('=')[1]) for part in cell['chosen'].split(','))
        options = cell['options']
        assert (options['lr'], options['embd_pdrop'], options['clf_pdrop']) == (lr, dropout, dropout)
    assert [cell['options']['n_transfer'] for cell in kept['cells'].values()] == [12, -1]
    assert 'text' not in kept['cells']['cola full'] and str(tmp_path) not in json.dumps(kept)
    assert ' | full | no pretraining | constant |' in tables.lines_of_table(kept)[0]
    notes = '\n'.join(tables.notes_of_table(kept))
    assert f'- full: {kept["cells"]["cola full"]["chosen"]} (on dev with seed 1, lr=1e-9,dropout=0: ' in notes


def test_the_results_of_other_tasks_stay(run, tmp_path):
    run('5', '--datasets', 'rte', '--rows', 'full,no_lm')
    run('5', '--datasets', 'cola', '--rows', 'full')
    kept = read_sealed(tmp_path / 'results' / 'table5.json')
    assert list(kept['cells']) == ['rte full', 'rte no_lm', 'cola full'] and kept['tfidf'].keys() == {'rte', 'cola'}
    assert [line.split('|')[5] for line in tables.lines_of_table(kept)[2:]][1] == '  '  # no_lm of cola: not run


def test_the_p_value_is_that_of_a_paired_test():
    """Differences 1, 2, 3 of three seeds: t = 2 / (1 / sqrt(3)) = 3.46 with 2 degrees of freedom, p = 0.074."""
    full, other = (dict(task='rte', row=row, seeds=[1, 2, 3], scores=dict(valid={'': values}))
                   for row, values in (('full', [61., 63., 65.]), ('no_lm', [60., 61., 62.])))
    assert round(tables.p_value(other, full, 'valid', ''), 3) == 0.074
    assert tables.p_value(full, full, 'valid', '') is None
    constant = dict(full, row='no_lm', scores=dict(valid={'': [score + 0.1 for score in full['scores']['valid']['']]}))
    assert tables.p_value(constant, full, 'valid', '') is None  # a t-test would say p < 0.001
    assert tables.p_value(dict(other, seeds=[4, 5, 6]), full, 'valid', '') is None
    assert tables.cell_text(dict(other, degenerate=1), full, 'valid', '') == (
        '61.0 [60.0..62.0], p 0.074, 1 of 3 runs constant')


def test_the_rows_of_table_5_are_options():
    args = tables.parse_args(['5', '--datasets', 'cola', '--seeds', '7', '--lr', '1e-3'])
    found = [tables.options_of(args, 'cola', row, '', 7) for row in tables.rows_of(args)]
    assert [(one.n_transfer, one.lm_coef) for one in found] == [(12, 0.5), (-1, 0.5), (12, 0.)]
    assert all((one.seed, one.lr, one.submit) == (7, 1e-3, True) for one in found)
    args = tables.parse_args(['5', '--datasets', 'cola', '--lm_coef', '0.7', '--n_tran', '2'])
    found = [tables.options_of(args, 'cola', row, '', 7) for row in tables.rows_of(args)]
    assert [(one.n_transfer, one.lm_coef) for one in found] == [(2, 0.7), (-1, 0.7), (2, 0.)]  # as the row is named


def test_a_best_evaluation_within_the_first_epoch_is_the_one_in_the_table():
    best = dict(n_epochs=0, n_updates=2000, va_score=60., va_score_near=61.)
    run = SimpleNamespace(best=best, best_epoch=0, log=[dict(best, n_updates=1000, va_score=40.), best], test=None)
    assert tables.scores_of_runs([run, run], 'valid') == {'': [60., 60.], 'near': [61., 61.]}
    assert tables.scores_of_runs([run], 'test') == {}


def test_figure_2_transfers_more_and_more_blocks_with_the_choice_of_the_whole_network(run, tmp_path, capsys):
    results = run('figure2', '--datasets', 'cola', '--layers', '0,2', '--vary', 'lr=1e-9,1e-2')
    assert list(results) == [('cola', 'full'), ('cola', '0 blocks'), ('cola', '2 blocks')]
    assert [run.options['n_transfer'] for [run] in results.values()] == [12, 0, 2]
    kept = read_sealed(tmp_path / 'results' / 'figure2.json')
    assert len({cell['chosen'] for cell in kept['cells'].values()}) == 1
    assert [len(cell['tried']) for cell in kept['cells'].values()] == [2, 0, 0]


@pytest.mark.parametrize('argv, words', [
    (['5', '--datasets', 'colla'], "invalid list of rocstories"), (['2', '--rows', 'half'], 'invalid list of full'),
    (['5', '--seed', '3'], '--seed has no effect here'), (['5', '--layers', 'x'], 'invalid seed_list'),
    (['5', '--vary', 'lr'], 'invalid values_of'),
    (['6'], 'invalid choice'), (['5', '--no_such_option'], 'unrecognized arguments')])
def test_wrong_options_are_one_line(argv, words, run):
    with pytest.raises(ValueError, match=words):
        run(*argv)


def test_without_any_data_there_is_no_table(run, tmp_path):
    with pytest.raises(FileNotFoundError, match='no data for any of these tasks'):
        run('2', '--datasets', 'snli,mnli')
    assert not (tmp_path / 'log').exists()
