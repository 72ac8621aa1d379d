"""Five updates of the network at full size against the numbers of the TensorFlow code. Takes minutes and 3 GiB."""

import json

import numpy as np
import pytest
import torch
import torch.nn as nn
from reference import Golden, assert_close

import fast
from loss import MultipleChoiceLossCompute, train_loss
from model_pytorch import DEFAULT_CONFIG, DoubleHeadModel, dotdict, load_openai_pretrained_model
from opt import OpenAIAdam

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
    """Ten shards in the released layout, with the random numbers of the golden's seed."""
    path, c = tmp_path_factory.mktemp('shards'), Golden('fullsize').config
    C, rs, arrays = c.n_embd, np.random.RandomState(c.shard_seed), []
    block = [[1, C, 3 * C], [3 * C], [1, C, C], [C], [C], [C], [1, C, 4 * C], [4 * C], [1, 4 * C, C], [C], [C], [C]]
    shapes = [[c.n_ctx_stored, C], [c.n_vocab, C]] + block * c.n_layer
    for i, shape in enumerate(shapes):
        is_gain = i >= 2 and (i - 2) % 12 in (4, 10)
        arrays.append((rs.standard_normal(shape) * 0.02 + (1 if is_gain else 0)).astype(np.float32).ravel())
    for i, shard in enumerate(np.array_split(np.concatenate(arrays), 10)):
        np.save(path / f'params_{i}.npy', shard)
    (path / 'params_shapes.json').write_text(json.dumps(shapes))
    return path


def full_size_model(c, path):
    cfg = dotdict(DEFAULT_CONFIG, **{key: c[key] for key in DEFAULT_CONFIG})
    model = DoubleHeadModel(cfg, c.clf_token, 'multiple_choice', c.n_vocab + c.n_special + c.n_ctx, c.n_ctx)
    np.random.seed(c.np_seed)
    load_openai_pretrained_model(model, n_ctx=c.n_ctx, n_special=c.n_special, path=path)
    clf_w = np.random.RandomState(c.clf_seed).standard_normal((c.n_embd, 1)) * 0.02
    with torch.no_grad():
        model.task_head.linear.weight.copy_(torch.from_numpy(clf_w.T))
    return model


def sampled(c, model):
    """TensorFlow's name, parameter, and sampled indices of the flat parameter, in the order of the golden."""
    rs = np.random.RandomState(c.sample_seed)
    for variable, p in zip(c.variables, model.parameters(), strict=True):
        places = rs.randint(0, p.numel(), 48)
        if variable.endswith('c_attn/b:0'):  # the gradient of keys is rounding error
            places = places[(places < c.n_embd) | (places >= 2 * c.n_embd)]
        yield variable, p, torch.from_numpy(places)


def plain_losses(model, X, M, Y, lm_coef):
    criterion = nn.CrossEntropyLoss(reduction='none')
    lm_logits, clf_logits = model(X)
    compute = MultipleChoiceLossCompute(criterion, criterion, lm_coef)
    clf_losses, lm_losses = compute(X, Y, M, clf_logits, lm_logits, only_return_losses=True)
    return train_loss(clf_losses, lm_losses, lm_coef), clf_losses, lm_losses


@pytest.mark.parametrize('losses', [plain_losses, fast.double_head_losses])
def test_five_updates_at_full_size_are_those_of_the_original(shards, losses):
    golden, c = Golden('fullsize'), Golden('fullsize').config
    model = full_size_model(c, shards).train()
    if losses is fast.double_head_losses:
        model = fast.use_fast_layers(model)
    opt = OpenAIAdam(model.parameters(), lr=c.lr, schedule=c.lr_schedule, warmup=c.lr_warmup, t_total=c.n_updates_total,
                     b1=c.b1, b2=c.b2, e=c.e, l2=c.l2, vector_l2=c.vector_l2, max_grad_norm=c.max_grad_norm)
    for i in range(c.n_updates):
        X, M, Y = golden[f'X/{i}'].long(), golden[f'M/{i}'].float(), golden[f'Y/{i}'].long()
        loss, clf_losses, lm_losses = losses(model, X, M, Y, c.lm_coef)
        assert_close(loss.detach(), golden['step/train_loss'][i], what=f'train_loss {i}')
        assert_close(clf_losses.detach(), golden['step/clf_losses'][i], what=f'clf_losses {i}')
        assert_close(lm_losses.detach(), golden['step/lm_losses'][i], what=f'lm_losses {i}')
        loss.backward()
        if i == 0:
            for variable, p, places in sampled(c, model):
                assert_close(p.grad.flatten()[places], golden[f'grad/{variable}'], what=variable)
            norms = torch.stack([p.grad.norm() for p in model.parameters()])
            assert_close(norms, golden['grad_norms'], atol=1e-5, rtol=2e-4)
        opt.step()
        opt.zero_grad()
        assert opt.grad_norm.item() == pytest.approx(golden['step/grad_global_norm'][i].item(), rel=2e-4)
    for variable, p, places in sampled(c, model):
        if variable != 'model/clf/b:0':  # its gradient is rounding error
            assert_close(p.detach().flatten()[places], golden[f'after/{variable}'], what=variable)
