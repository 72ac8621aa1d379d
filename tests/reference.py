"""The numbers of the original TensorFlow code (tests/goldens), as models and tensors of this repository."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn

from common.device import choose_device
from model_pytorch import DEFAULT_CONFIG, DoubleHeadModel, TransformerModel, dotdict, load_openai_pretrained_model
from text_utils import TextEncoder

GOLDENS = Path(__file__).parent / 'goldens'
SHARED = Path(__file__).parents[2] / 'shared'       # the real stories and vocabulary, if available


def computes_float16() -> bool:
    """Whether torch computes float16 on a CPU; old versions do not."""
    try:
        return bool(choose_device('cpu', 'float16'))
    except ValueError:
        return False


needs_float16 = pytest.mark.skipif(not computes_float16(), reason='this torch has no float16 on a CPU')


class Golden:
    """One .npz file: its configuration, its arrays as tensors, and a model with its weights."""

    def __init__(self, name):
        with np.load(GOLDENS / f'{name}.npz') as arrays:
            self.config = dotdict(json.loads(str(arrays['config'])))
            self.arrays = {key: arrays[key] for key in arrays.files if key != 'config'}

    def __getitem__(self, key):
        return torch.from_numpy(self.arrays[key])

    def model(self):
        c = self.config
        cfg = dotdict(DEFAULT_CONFIG, **{key: c[key] for key in DEFAULT_CONFIG})
        model = DoubleHeadModel(cfg, c.clf_token, 'multiple_choice', c.n_vocab + c.n_special + c.n_ctx, c.n_ctx)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(self.parameter(name, ''))
        return model

    def parameter(self, name, prefix):
        """The array of one of our parameters: `prefix` is '', 'grad/' or 'after/K/'."""
        if name == 'transformer.embed.weight':
            return self[prefix + 'model/we:0']
        if name.startswith('task_head'):
            array = self[prefix + f'model/clf/{"w" if name.endswith("weight") else "b"}:0']
            return array.mT if array.ndim == 2 else array
        layer, *rest = name.removeprefix('transformer.h.').split('.')
        array = self[prefix + f'model/h{layer}/{"/".join(rest)}:0']
        return array[0] if array.ndim == 3 else array           # TensorFlow's convolutions have a width axis of 1


def without_noise(name, array):
    """Remove entries whose gradient is only rounding error: the key part of c_attn.b, and the classifier bias."""
    if name.endswith('c_attn.b'):
        q, _, v = array.chunk(3)
        return torch.cat([q, v])
    return array if name != 'task_head.linear.bias' else array[:0]


def assert_close(ours, theirs, atol=1e-5, rtol=0.0, what=''):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol, msg=lambda text: f'{what}: {text}')


def compiled(module):
    """torch.compile(module); old versions of torch refuse new versions of Python, and then the test is skipped."""
    try:
        return torch.compile(module)
    except RuntimeError as e:
        pytest.skip(str(e))


def record_dropout(model):
    """name -> [(input, output), ...] of each dropout layer, filled as the model runs."""
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            def keep(_, args, out, name=name):
                seen.setdefault(name, []).append((args[0].detach(), out.detach()))
            module.register_forward_hook(keep)
    return seen


def assert_dropped(pairs, rate, name):
    """Check that a share `rate` of all inputs became 0 and that the others were scaled up."""
    x, out = (torch.cat([t.flatten() for t in ts]) for ts in zip(*pairs, strict=True))
    assert abs(((x != 0) & (out == 0)).sum() / (x != 0).sum() - rate) < 0.02, name
    assert_close(out[out != 0], x[out != 0] / (1 - rate), rtol=1e-6, what=name)


def toy_language_model():
    """(transformer, encoder) of the toy model, with larger embeddings, so that the best token is clear."""
    folder = GOLDENS / 'loader' / 'model'
    cfg = dotdict(DEFAULT_CONFIG, n_embd=16, n_head=4, n_layer=3)
    transformer = TransformerModel(cfg, vocab=124 + 24, n_ctx=24).eval()
    load_openai_pretrained_model(transformer, path=folder)
    with torch.no_grad():
        transformer.embed.weight.mul_(8)
    return transformer, TextEncoder(folder / 'encoder_bpe_40000.json', folder / 'vocab_40000.bpe')
