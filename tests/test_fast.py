"""The fast paths against the plain model."""

import copy

import pytest
import torch
import torch.nn as nn
from reference import Golden, assert_close, assert_dropped, record_dropout
from test_model import CLF, ROWS, TINY, T, assert_gradients

import fast
from loss import MultipleChoiceLossCompute, train_loss
from model_pytorch import DoubleHeadModel, dotdict


def ragged(B, K=2, seed=0, shared=True):
    """Sequences of 3 to T steps that begin alike within an example, and their mask."""
    g = torch.Generator().manual_seed(seed)
    X, M = torch.zeros(B, K, T, 2, dtype=torch.int32), torch.zeros(B, K, T)
    for b in range(B):
        story = torch.randint(0, 30, (T,), generator=g)
        for k in range(K):
            n = int(torch.randint(1, T - 2, (), generator=g))
            ending = torch.randint(0, 30, (n,), generator=g)
            ids = torch.cat([torch.tensor([30]), story[:T - 2 - n] if shared else ending[:1], ending,
                             torch.tensor([CLF])])[:T]
            ids[-1] = CLF
            X[b, k, :len(ids), 0], M[b, k, :len(ids)] = ids, 1
    X[..., 1] = torch.arange(ROWS - T, ROWS)
    return X, M


def plain_losses(model, X, M, Y, lm_coef):
    criterion = nn.CrossEntropyLoss(reduction='none')
    lm_logits, clf_logits = model(X)
    clf, lm = MultipleChoiceLossCompute(criterion, criterion, lm_coef)(X, Y, M, clf_logits, lm_logits,
                                                                       only_return_losses=True)
    return train_loss(clf, lm, lm_coef), clf, lm


@pytest.mark.parametrize('name', ['forward', 'forward_relu', 'forward_swish', 'forward_lm0'])
def test_packed_training_has_the_numbers_of_the_original(name):
    golden = Golden(name)
    model = golden.model().train()
    loss, clf_losses, lm_losses = fast.double_head_losses(model, golden['X'], golden['M'], golden['Y'],
                                                          golden.config.lm_coef)
    assert_close(loss, golden['train_loss'])
    assert_close(clf_losses, golden['clf_losses'])
    if lm_losses is not None:
        assert_close(lm_losses, golden['lm_losses'])
    loss.backward()
    assert_gradients(golden, model)
    logits = fast.choice_logits(model.eval(), golden['X'], golden['M'])
    assert_close(logits, golden['eval/clf_logits'])


@pytest.mark.parametrize('chunk', [1, 5, 1000])
@pytest.mark.parametrize('B, K', [(1, 2), (4, 2), (3, 5)])
def test_packed_training_is_the_plain_one(monkeypatch, chunk, B, K):
    monkeypatch.setattr(fast, 'LM_CHUNK', chunk)
    torch.manual_seed(B)
    cfg = dotdict(TINY, embd_pdrop=0., attn_pdrop=0., resid_pdrop=0., clf_pdrop=0.)
    plain = DoubleHeadModel(cfg, CLF, 'multiple_choice', ROWS, T).train()
    nn.init.normal_(plain.task_head.linear.weight)
    packed = copy.deepcopy(plain)
    (X, M), Y = ragged(B, K, seed=chunk), torch.arange(B) % K
    theirs, ours = plain_losses(plain, X, M, Y, 0.5), fast.double_head_losses(packed, X, M, Y, 0.5)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)
    (theirs[0] / 3).backward()
    (ours[0] / 3).backward()
    for (name, p), q in zip(plain.named_parameters(), packed.parameters(), strict=True):
        assert_close(q.grad, p.grad, atol=1e-6, rtol=1e-5, what=name)


@pytest.mark.parametrize('B, K, shared', [(1, 2, True), (5, 2, True), (5, 2, False), (3, 4, True), (3, 1, True)])
def test_shared_evaluation_is_the_plain_one(B, K, shared):
    model = DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T).eval()
    nn.init.normal_(model.task_head.linear.weight)
    X, M = ragged(B, K, seed=B, shared=shared)
    assert_close(fast.choice_logits(model, X, M), model(X)[1].detach())


def test_choices_that_are_the_same_get_the_same_logits():
    model = DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T).eval()
    X, M = ragged(4)
    X[1, 1], M[1, 1] = X[1, 0], M[1, 0]                 # the second has no row of its own
    logits = fast.choice_logits(model, X, M)
    assert_close(logits, model(X)[1].detach())
    assert logits[1, 0] == logits[1, 1]


def test_evaluation_computes_the_common_story_once():
    X, M = ragged(4)
    every = fast.pack(X, M, CLF)
    packing = fast.pack(X, M, CLF, share=True)
    common = int(((X[:, 0] == X[:, 1]).all(-1) & M.bool().all(1)).int().cumprod(-1).sum())
    assert len(every.ids) == M.sum() and len(packing.ids) == M.sum() - common and common > 4
    assert torch.equal(packing.ids[packing.row_of][M[:, :, :packing.row_of.size(1)].flatten(0, 1).bool()], X[M.bool()])


def test_evaluation_with_dropout_on_is_refused():
    with pytest.raises(ValueError, match='evaluation mode'):
        fast.choice_logits(DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T).train(), *ragged(1))


@pytest.mark.parametrize('use_dropout', [lambda model: model, fast.use_fast_dropout], ids=['torch', 'fast'])
def test_packed_dropout_has_the_rates_and_scopes_of_the_plain_one(use_dropout):
    """Every site drops its own rate; the table once, whole; the classify state once for all choices."""
    rates = dotdict(TINY, embd_pdrop=0.1, attn_pdrop=0.2, resid_pdrop=0.3, clf_pdrop=0.4)
    model = use_dropout(DoubleHeadModel(rates, CLF, 'multiple_choice', ROWS, T)).train()
    seen = record_dropout(model)
    torch.manual_seed(0)
    for seed in range(60):
        X, M = ragged(16, seed=seed)
        fast.double_head_losses(model, X, M, torch.zeros(16), 0.5)
    assert len(seen) == 2 + 3 * TINY.n_layer
    for name, pairs in seen.items():
        rate = next(rates[site + '_pdrop'] for site, key in (('attn', 'attn_dropout'), ('embd', 'transformer.drop'),
                                                             ('clf', 'task_head'), ('resid', '')) if key in name)
        assert_dropped(pairs, rate, name)
    assert len(seen['transformer.drop']) == 60 and seen['transformer.drop'][0][0].shape == (ROWS, 16)
    assert seen['task_head.dropout'][0][0].shape == (16, 1, 16)


@pytest.mark.parametrize('p', [0.05, 0.1, 0.5])
@pytest.mark.parametrize('n', [1, 2, 40])
def test_fast_dropout_drops_each_number_by_itself(n, p):
    """First and last too, and two neighbours no more or less often than by chance."""
    torch.manual_seed(n)
    draws = 4000
    dropped = torch.zeros(draws, n)
    for row in dropped:
        row[fast.dropped_positions(n, p)] += 1
    assert set(dropped.unique().tolist()) <= {0, 1}
    variance = p * (1 - p)
    assert (dropped.mean(0) - p).abs().max() < 4.5 * (variance / draws) ** 0.5
    together = torch.cov(dropped.T).reshape(n, n).fill_diagonal_(0)
    assert together.abs().max() < 5 * variance / draws ** 0.5


def test_fast_dropout_goes_backward_through_what_it_kept():
    layer = fast.Dropout(0.3).train()
    x = torch.rand(8, 9).T.requires_grad_()             # not contiguous
    out = layer(x)
    out.backward(torch.ones_like(out) * 2)
    assert_close(x.grad, 2 * (out != 0) / 0.7, atol=1e-6)
    assert_close(out, x * x.grad / 2, atol=1e-6)
    assert layer.eval()(x) is x
