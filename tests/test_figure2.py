"""The right half of figure 2, on two snapshots of a toy network and a few sentences for each task."""

import json
import shutil

import pytest
from toy import TOY, toy_stories, write

import zero_shot
from scripts import figure2
from tasks.stories import TEST_NAME, VAL_NAME


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
    args = figure2.parse_args(['--snapshots', str(tmp_path / 'snapshots'), '--data_dir', str(data),
                               '--results', str(tmp_path / 'r.json'), '--figure', str(tmp_path / 'f.png')])
    results = figure2.main(args)
    assert results['scores'].keys() == {'0', '3'} and results['scores']['0'].keys() == {*figure2.DRAWN}
    assert results['constant'] == dict(rocstories=50, winograd=100, sst2=50, cola=0, blimp=50)
    assert (tmp_path / 'f.png').read_bytes().startswith(b'\x89PNG')
    monkeypatch.setattr(zero_shot, 'main', None)  # nothing is measured again
    assert figure2.main(args)['scores'] == results['scores']
