"""The cells of notebook.ipynb run in order, and their output is right."""

import json
import shutil

import pytest
import torch
from reference import assert_close
from toy import ROOT, TOY, toy_run, with_stories

pytest.importorskip('matplotlib', reason='needs pip install matplotlib')


@pytest.fixture
def cells():
    notebook = json.loads((ROOT / 'notebook.ipynb').read_text(encoding='utf-8'))
    return [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']


def replace(cells, old, new):
    assert f"= '{old}'" in cells[0]
    cells[0] = cells[0].replace(f"= '{old}'", f'= {str(new)!r}')


@pytest.mark.parametrize('which', ['sample', 'toy'])
def test_the_notebook_runs(cells, which, tmp_path, monkeypatch, capsys):
    """In the root folder, with the log of a toy run instead of a longer one; also with another model."""
    if which == 'sample' and not (ROOT / 'model' / 'sample' / 'params_9.npy').is_file():
        pytest.skip('model/sample is not there')
    import matplotlib.pyplot as plt
    plt.switch_backend('agg')
    monkeypatch.chdir(ROOT)
    toy_run(with_stories(tmp_path), '--desc', 'tuned', '--n_iter', '1')
    capsys.readouterr()
    figures, names = [], {}
    monkeypatch.setattr(plt, 'show', lambda: figures.append(plt.gcf().axes))
    replace(cells, 'log/sample.jsonl', tmp_path / 'log' / 'tuned.jsonl')
    if which == 'toy':
        shutil.copytree(TOY, tmp_path / 'toy')
        (tmp_path / 'toy' / 'hparams.json').write_text(json.dumps(dict(n_embd=16, n_head=4, n_layer=3)))
        replace(cells, 'model/sample/', tmp_path / 'toy')
    try:
        for cell in cells:
            exec(cell, names)
    finally:
        torch.set_grad_enabled(True)
        plt.close('all')
    out = capsys.readouterr().out
    assert 'parameters' in out and 'hidden states (1, ' in out and '<- the right one' in out
    assert out.count('[temperature') == 4
    (next_token,), (attention,), (loss, accuracy) = figures
    assert len(next_token.patches) == 10 and 0 < sum(bar.get_width() for bar in next_token.patches) <= 1
    weights = torch.as_tensor(attention.images[0].get_array())
    assert torch.allclose(weights.sum(1), torch.ones(len(weights))) and not weights.triu(1).any()
    attn, x = names['attn'], names['block_input']
    _, _, v = attn.split_heads(attn.c_attn(x))
    assert_close(attn.c_proj(attn.merge_heads(names['w'] @ v)), attn(x))       # the network uses these weights
    assert [label.get_text() for label in attention.get_yticklabels()] == names['tokens'][:len(weights)]
    assert len(loss.lines) == len(accuracy.lines) == 2
    saved = [json.loads(line) for line in (tmp_path / 'log' / 'tuned.jsonl').read_text().splitlines()][1:]
    assert loss.lines[1].get_ydata().tolist() == [line['va_cost'] for line in saved]

