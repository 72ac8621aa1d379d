"""Figure 2: on two snapshots of a toy network, a few sentences for each task, and made-up scores of transfer."""

import json
import shutil

import numpy as np
import pytest
from toy import TOY, toy_stories, write

import zero_shot
from scripts import figure2
from tasks.stories import TEST_NAME, VAL_NAME
from utils import write_sealed


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / 'data'
    for name in ('CoLA', 'SST-2', 'DPRD', 'BLiMP/data'):
        (folder / name).mkdir(parents=True)
    for name in (VAL_NAME, TEST_NAME):
        write(folder / name, toy_stories(6, 0))
    lines = [f'x\t{i % 2}\t\tthe cat {word}' for i, word in enumerate('sat found ball park mom day'.split())]
    for name in ('train', 'dev'):
        (folder / 'CoLA' / f'{name}.tsv').write_text('\n'.join(lines) + '\n')
        (folder / 'SST-2' / f'{name}.tsv').write_text('sentence\tlabel\nthe cat sat\t0\nmom happy\t1\n')
    record = 'The cat saw the dog when it sat in the park.\nit\nThe cat,the dog\nThe cat\n\n'
    for name in ('train', 'test'):
        (folder / 'DPRD' / f'{name}.c.txt').write_text(record)
    pair = dict(linguistics_term='agreement', sentence_good='the cat sat', sentence_bad='cat the sat')
    (folder / 'BLiMP' / 'data' / 'a.jsonl').write_text(json.dumps(pair) + '\n')
    return folder


def test_each_snapshot_is_scored_once_and_drawn(data, tmp_path, monkeypatch):
    for updates in (0, 3):
        shutil.copytree(TOY, tmp_path / 'snapshots' / str(updates))
        (tmp_path / 'snapshots' / str(updates) / 'hparams.json').write_text(
            json.dumps(dict(n_embd=16, n_head=4, n_layer=3, n_ctx=24)))
    cells = {f'cola {n}': dict(task='cola', options=dict(n_transfer=n, n_layer=3), trivial=dict(valid=0.),
                               scores=dict(valid={'': [n, n + 2., n + 4.]})) for n in (12, 0, 1)}
    cells['sst2 2'] = dict(task='sst2', options=dict(n_transfer=2, n_layer=3), trivial=dict(valid=51.),
                           scores=dict(valid={'': [50.]}))
    write_sealed(tmp_path / 'transfer.json', dict(cells=cells))
    drawn, draw_lines = [], figure2.draw_lines
    monkeypatch.setattr(figure2, 'draw_lines', lambda ax, *rest: (drawn.append(rest), draw_lines(ax, *rest)))
    args = figure2.parse_args(['--transfer', str(tmp_path / 'transfer.json'),
                               '--snapshots', str(tmp_path / 'snapshots'), '--data_dir', str(data),
                               '--results', str(tmp_path / 'r.json'), '--figure', str(tmp_path / 'f.png')])
    results = figure2.main(args)
    assert results['scores'].keys() == {'0', '3'} and results['scores']['0'].keys() == {'weights', *figure2.DRAWN}
    assert results['constant'] == dict(rocstories=50, winograd=100, sst2=50, cola=0, blimp=50)
    left, right = drawn
    assert left == ({'cola': {3: [12, 14, 16], 0: [0, 2, 4], 1: [1, 3, 5]}, 'sst2': {2: [50]}}, {'cola': 0, 'sst2': 51})
    assert right[0]['sst2'] == {n: [results['scores'][str(n)]['sst2']] for n in (0, 3)}
    assert (tmp_path / 'f.png').read_bytes().startswith(b'\x89PNG')
    monkeypatch.setattr(zero_shot, 'main', None)  # nothing is measured again
    assert figure2.main(args)['scores'] == results['scores']
    weights = np.load(tmp_path / 'snapshots' / '3' / 'params_0.npy')
    np.save(tmp_path / 'snapshots' / '3' / 'params_0.npy', -weights)
    monkeypatch.setattr(zero_shot, 'main', lambda *_, **__: [77, 77, 77])  # but of another network it is
    again = figure2.main(args)['scores']
    assert again['0'] == results['scores']['0'] and again['3']['cola'] == again['3']['blimp'] == 77
    path = data / 'SST-2' / 'dev.tsv'
    path.write_text(path.read_text().replace('happy', 'sad'))  # and of other examples
    monkeypatch.setattr(zero_shot, 'main', lambda *_, **__: [33, 33, 33])
    again = figure2.main(args)['scores']
    assert [again[n]['sst2'] for n in '03'] == [33, 33] and again['3']['cola'] == 77
