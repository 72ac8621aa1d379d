"""The cells of notebook.ipynb run in order, and their output is right."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from reference import assert_close
from toy import ROOT, TOY

from datasets import TEST_NAME, VAL_NAME

pytest.importorskip('matplotlib', reason='needs pip install matplotlib')
NOTEBOOK = json.loads((ROOT / 'notebook.ipynb').read_text(encoding='utf-8'))
SIZES = 'N_STORIES, N_VALID = 2000, 120 '


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """The code of the cells, for fewer stories, in a folder that has the first lines of the sample's files."""
    (tmp_path / 'data' / 'sample').mkdir(parents=True)
    for name, n in ((VAL_NAME, 53), (TEST_NAME, 9), ('letters.csv', 41)):
        lines = (ROOT / 'data' / 'sample' / name).read_text(encoding='utf-8').splitlines(keepends=True)
        (tmp_path / 'data' / 'sample' / name).write_text(''.join(lines[:n]), encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    first, *others = (''.join(cell['source']) for cell in NOTEBOOK['cells'] if cell['cell_type'] == 'code')
    assert SIZES in first
    return [first.replace(SIZES, 'N_STORIES, N_VALID = 60, 12 '), *others]


@pytest.mark.parametrize('which', ['sample', 'toy'])
def test_the_notebook_runs(cells, which, tmp_path, monkeypatch, capsys):
    import matplotlib.pyplot as plt
    plt.switch_backend('agg')
    for name in 'books', 'sample':
        shutil.copytree(TOY if which == 'toy' else ROOT / 'model' / 'sample', tmp_path / 'model' / name)
        if which == 'toy':
            sizes = dict(n_embd=16, n_head=4, n_layer=3, n_ctx=24)
            (tmp_path / 'model' / name / 'hparams.json').write_text(json.dumps(sizes))
    figures, names = [], {}
    monkeypatch.setattr(plt, 'show', lambda: figures.append(plt.gcf().axes))
    with plt.rc_context():
        for cell in cells:
            exec(cell, names)
        plt.close('all')
    out = capsys.readouterr().out
    (next_token,), (attention, *_), (losses,), (costs, accuracies) = figures

    assert f'{names["transformer"].n_ctx} positions' in out and out.count('[temperature') == 2
    assert len(next_token.patches) == 8 and 0 < sum(bar.get_width() for bar in next_token.patches) <= 100
    weights = torch.as_tensor(attention.images[0].get_array())
    assert torch.allclose(weights.sum(1), torch.tensor(100.)) and not weights.triu(1).any()
    attn, x = names['attn'], names['block_input']
    _, _, v = attn.split_heads(attn.c_attn(x))
    assert_close(attn.c_proj(attn.merge_heads(names['w'] @ v)), attn(x))       # the network uses these weights
    assert [label.get_text() for label in attention.get_yticklabels()] == names['words']

    log = [json.loads(line) for line in (tmp_path / 'save/notebook/log/pretrained.jsonl').read_text().splitlines()][1:]
    assert losses.lines[1].get_ydata().tolist() == [line['va_loss'] for line in log]
    assert out.count('_start_') == out.count('_classify_') == 2
    for run, line, bar in zip(names['runs'].values(), costs.lines, accuracies.patches, strict=True):
        assert line.get_ydata()[0] == pytest.approx(np.mean([loss for loss, _ in run.losses[:10]]))
        assert line.get_xdata()[-1] == run.n_updates == 5 and bar.get_height() == run.valid_accuracy
    assert [run.options['n_transfer'] for run in names['runs'].values()] == [12, -1]
    assert accuracies.get_ylim() == (0, 100)
    assert len(re.findall(r'^(?:country|town) \(\d+\.\d %\): ', out, re.MULTILINE)) == 2
    assert out.count('<- the right one') == 1 and '% of 8 answers are right' in out


def test_the_file_is_small_and_its_outputs_are_of_this_code():
    text = json.dumps(NOTEBOOK)
    assert len(text) < 400_000 and 'Traceback' not in text and '/tmp' not in text and '/work' not in text
    code = [cell for cell in NOTEBOOK['cells'] if cell['cell_type'] == 'code']
    assert [cell['execution_count'] for cell in code] == [*range(1, len(code) + 1)]
    assert sum('image/png' in output.get('data', ()) for cell in code for output in cell['outputs']) == 4


TIMES = r'\d+ min \d+ s|(?<=\d\.\d\d )\d+$'  # of a run; tokens a second
NUMBER = r'-?\d+(?:\.\d+)?'


@pytest.mark.slow
def test_the_stored_outputs_are_what_the_cells_print_now(tmp_path, monkeypatch, capsys):
    """All words, and the numbers but for rounding on another processor."""
    import matplotlib.pyplot as plt
    plt.switch_backend('agg')
    for name in ('data/sample', 'model/sample', 'model/books'):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names = {}
    with plt.rc_context():
        for cell in [cell for cell in NOTEBOOK['cells'] if cell['cell_type'] == 'code']:
            exec(''.join(cell['source']), names)
            stored = ''.join(line for output in cell['outputs'] for line in output.get('text', ()))
            texts = stored, capsys.readouterr().out
            stored, printed = (re.sub(TIMES, '', text, flags=re.MULTILINE) for text in texts)
            assert re.sub(NUMBER, '#', printed) == re.sub(NUMBER, '#', stored)
            numbers = [[float(number) for number in re.findall(NUMBER, text)] for text in (printed, stored)]
            assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=1.1)
        plt.close('all')
