"""fast.py gives the numbers of the plain model and of the original, for every head."""

import copy
from unittest.mock import patch

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Golden, assert_close, assert_dropped, needs_float16, record_dropout

import fast
from common import cpu
from common.device import choose_device
from loss import MultipleChoiceLossCompute, task_losses, train_loss
from model_pytorch import DEFAULT_CONFIG, MLP, Attention, DoubleHeadModel, dotdict

TINY = dotdict(DEFAULT_CONFIG, n_embd=16, n_head=4, n_layer=2)
STILL = dotdict(TINY, embd_pdrop=0., attn_pdrop=0., resid_pdrop=0., clf_pdrop=0.)
START, DELIM, CLF = 30, 31, 32  # tokens 0..29, special 30..32, positions 33..48
ROWS, T = 49, 16
HEADS = ['multiple_choice', ('classification', 3), 'similarity', ('similarity', 2)]


def ragged(B, form='choices', K=2, seed=0, n_tokens=30):
    """Sequences of different lengths of a form, 'choices', 'pair' (both orders) or 'text': X (B, K, T, 2), M."""
    g = torch.Generator().manual_seed(seed)

    def field(longest):
        n = 5 if longest else int(torch.randint(1, 5, (), generator=g))
        return torch.randint(0, n_tokens, (n,), generator=g).tolist()
    X = torch.zeros(B, {'choices': K, 'pair': 2, 'text': 1}[form], T, 2, dtype=torch.int32)
    M = torch.zeros(X.shape[:3])
    for b in range(B):
        one, other = field(b == 0), field(b == 0)
        texts = {'choices': [one + [DELIM] + (field(False) if k else other) for k in range(K)], 'text': [one],
                 'pair': [one + [DELIM] + other, other + [DELIM] + one]}[form]
        for k, text in enumerate(texts):
            ids = [START, *text, CLF]
            X[b, k, :len(ids), 0], M[b, k, :len(ids)] = torch.tensor(ids), 1
    X[..., 1] = torch.arange(ROWS - T, ROWS)
    assert (M[..., :int(M.sum(-1).max())] == 0).any()  # even the longest sequence has padding
    return X, M


def of_head(head, B, K=2, **kwargs):
    """X, M, Y for a head."""
    name, n_out = (head, 1) if isinstance(head, str) else head
    X, M = ragged(B, {'multiple_choice': 'choices', 'similarity': 'pair', 'classification': 'text'}[name], K, **kwargs)
    if head == 'similarity':
        return X, M, torch.linspace(-1, 5, B, dtype=torch.float64)
    return X, M, torch.arange(B, dtype=torch.int32) % (K if head == 'multiple_choice' else n_out)


def build(head, cfg=STILL):
    """A model with larger weights than those of a new model, so that attention and head have an effect."""
    model = DoubleHeadModel(cfg, CLF, head, ROWS, T)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


def plain_losses(model, X, M, Y, lm_coef):
    """What `fast.double_head_losses` returns, from model_pytorch.py and loss.py."""
    lm_logits, clf_logits = model(X)
    clf, lm = MultipleChoiceLossCompute(nn.CrossEntropyLoss(reduction='none'), task_losses, lm_coef)(
        X, Y, M, clf_logits, lm_logits, only_return_losses=True)
    return train_loss(clf, lm, lm_coef), clf, lm if lm_coef else None


def plain_logits(model, X, M):
    return model(X)[1].detach()


def by_onednn(yes):
    """On any processor: large and small products by oneDNN, or none."""
    return patch.multiple(cpu, uses_onednn=lambda: yes and cpu.has_onednn(), LARGE=1)


@pytest.mark.parametrize('losses, logits, onednn', [
    (plain_losses, plain_logits, False), (fast.double_head_losses, fast.task_logits, False),
    (fast.double_head_losses, fast.task_logits, True)], ids=['plain', 'fast', 'onednn'])
@pytest.mark.parametrize('name', ['forward', 'forward_relu', 'forward_swish', 'forward_lm0'])
def test_both_paths_have_the_numbers_of_the_original(name, losses, logits, onednn):
    golden = Golden(name)
    model = golden.model().train()
    if losses is not plain_losses:
        model = fast.use_fast_layers(model)
    with by_onednn(onednn):
        check_numbers(golden, model, losses, logits)


def check_numbers(golden, model, losses, logits):
    loss, clf_losses, lm_losses = losses(model, golden['X'], golden['M'], golden['Y'], golden.config.lm_coef)
    assert_close(loss, golden['train_loss'])
    assert_close(clf_losses, golden['clf_losses'])
    if lm_losses is not None:
        assert_close(lm_losses, golden['lm_losses'])
    loss.backward()
    for parameter, p in model.named_parameters():
        assert_close(p.grad, golden.parameter(parameter, 'grad/'), what=parameter)
    assert_close(logits(model.eval(), golden['X'], golden['M']), golden['eval/clf_logits'])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(HEADS), st.integers(2, 4), st.integers(2, 4), st.integers(0, 10**6), st.sampled_from([2, 30]),
       st.sampled_from([0, 0.5]), st.sampled_from([1, 5, 1000]), st.booleans())
def test_the_fast_path_is_the_plain_one(head, B, K, seed, n_tokens, lm_coef, chunk, onednn):
    """Losses, gradients and evaluation. With 2 tokens, endings often begin alike or are the same."""
    torch.manual_seed(seed)
    plain = build(head).train()
    ours = fast.use_fast_layers(copy.deepcopy(plain))
    X, M, Y = of_head(head, B, K, seed=seed, n_tokens=n_tokens)
    with patch.object(fast, 'LM_CHUNK', chunk), by_onednn(onednn):
        losses, expected = fast.double_head_losses(ours, X, M, Y, lm_coef), plain_losses(plain, X, M, Y, lm_coef)
        for a, b in zip(losses, expected, strict=True):
            assert a is b or a.shape == b.shape
            assert_close(a, b, rtol=1e-5)
        (losses[0] / 3).backward()
        (expected[0] / 3).backward()
        logits = fast.task_logits(ours.eval(), X, M)
    for (name, p), (same_name, q) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        assert name == same_name
        assert_close(q.grad, p.grad, atol=1e-6, rtol=1e-5, what=name)
    assert_close(logits, plain_logits(plain.eval(), X, M))


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-6), ('bfloat16', 0.01)])
@pytest.mark.parametrize('onednn', [False, True])
def test_an_mlp_is_that_of_the_plain_network_and_keeps_no_gelu(dtype, tolerance, onednn):
    """Output without and with gradients, the gradients, the bytes that its backward pass needs, and oneDNN's own gelu
    where the processor has it."""
    torch.manual_seed(0)
    x = torch.randn(3, 50, 64, requires_grad=True)
    plain = MLP(256, dotdict(TINY, n_embd=64)).eval()
    layer = fast.use_fast_layers(nn.ModuleList([copy.deepcopy(plain)]))[0]
    expected = plain(x)
    expected.square().sum().backward()
    gradients = [t.grad.clone() for t in (x, *plain.parameters())]
    x.grad, kept = None, {}

    def keep(t):
        kept[t.data_ptr()] = t.numel() * t.element_size()
        return t

    if dtype == 'bfloat16':
        onednn = onednn and cpu.has_onednn() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with by_onednn(onednn), patch.object(cpu, 'onednn', side_effect=cpu.onednn) as by_library:
        with choose_device('cpu', dtype)[1], torch.no_grad():
            out = layer(x)
        assert any('gelu' in call.args for call in by_library.mock_calls) == (onednn and cpu.has_onednn())
        with choose_device('cpu', dtype)[1], torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            y = layer(x)
        y.float().square().sum().backward()
    weights = {p.data_ptr() for p in (*layer.parameters(), x)}
    if dtype == 'float32':  # what c_fc makes of 150 rows
        assert sum(size for at, size in kept.items() if at not in weights) == 150 * 256 * 4
    for a, b in zip((out, y, x.grad, *(p.grad for p in layer.parameters())), (expected, expected, *gradients),
                    strict=True):
        assert a.shape == b.shape and (a - b).norm() < tolerance * b.norm()


@pytest.mark.parametrize('dtype, L, tolerance', [(torch.float32, 7, 1e-6), (torch.float32, fast.SHORT + 5, 1e-6),
                                                 (torch.bfloat16, fast.SHORT + 5, 0.02)])
@pytest.mark.parametrize('shared', [False, True], ids=['causal', 'a mask'])
@pytest.mark.parametrize('p', [0, 1e-12], ids=['without dropout', 'with it'])
def test_attention_is_that_of_the_plain_network(dtype, L, tolerance, shared, p):
    """Output and gradients, beside float64."""
    torch.manual_seed(0)
    attn = Attention(48, L, dotdict(n_head=3, attn_pdrop=p, resid_pdrop=0), scale=True).train()
    qkv = torch.randn(3, 2, 3, L, 16, dtype=torch.float64, requires_grad=True)
    visible = (torch.rand(2, 1, L, L) < 0.5).tril() | torch.eye(L, dtype=torch.bool) if shared else None
    scores = (qkv[0] @ qkv[1].transpose(-2, -1) / 4).masked_fill(
        ~(torch.ones(L, L).tril().bool() if visible is None else visible), -torch.inf)
    expected = scores.softmax(-1) @ qkv[2]
    weights = torch.randn_like(expected)
    [gradient] = torch.autograd.grad((expected * weights).sum(), qkv)
    out = fast.attend(attn, *qkv.to(dtype), visible)
    [ours] = torch.autograd.grad((out.double() * weights).sum(), qkv)
    for a, b in ((out.double(), expected), (ours, gradient)):
        assert (a - b).norm() < tolerance * b.norm()


def test_the_layouts_are_those_of_the_drawing():
    """Story 1 2 3, endings 4 9 and 9, as in the docstring of fast.py; 9 is the classify token."""
    X = torch.tensor([[[1, 2, 3, 4, 9, 0, 0], [1, 2, 3, 9, 0, 0, 0]]])
    M, X = (X > 0).float(), torch.stack([X, torch.arange(20, 27).expand_as(X)], dim=-1)
    packing = fast.pack(X, M, 9)
    assert packing.ids[:, 0].tolist() == [1, 2, 3, 4, 9, 1, 2, 3, 9]
    assert packing.grid.tolist() == packing.row_of.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 8]]
    assert packing.clf_row.tolist() == [4, 8] and fast.pack(X, M, -1).clf_row.tolist() == [0, 5]
    packing = fast.pack_shared(X, M, 9)
    assert packing.ids.tolist() == [[1, 20], [2, 21], [3, 22], [4, 23], [9, 24], [9, 23]]
    assert packing.grid.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert packing.row_of[0].tolist() == [0, 1, 2, 3, 4] and packing.row_of[1, :4].tolist() == [0, 1, 2, 5]
    assert packing.visible[0, 0].nonzero()[-4:].tolist() == [[5, 0], [5, 1], [5, 2], [5, 5]]
    assert packing.visible_at_clf().tolist() == [packing.visible[0, 0, i].tolist() for i in (4, 5)]
    for pack in fast.pack, fast.pack_shared:
        with pytest.raises(ValueError, match='classify token'):  # the second choice has no 4
            pack(X, M, 4)


def test_each_beginning_that_several_choices_share_is_computed_once():
    """Of the choices 1 2 3 9, 1 2 4 5 9 and 1 2 4 6 9, as two questions about one text."""
    X = torch.tensor([[[1, 2, 3, 9, 0], [1, 2, 4, 5, 9], [1, 2, 4, 6, 9]]])
    M, X = (X > 0).float(), torch.stack([X, torch.arange(20, 25).expand_as(X)], dim=-1)
    packing = fast.pack_shared(X, M, 9)
    assert packing.ids[:, 0].tolist() == [1, 2, 3, 9, 4, 5, 9, 6, 9]
    seen = [packing.ids[visible.nonzero().flatten(), 0].tolist() for visible in packing.visible_at_clf()]
    assert seen == [[1, 2, 3, 9], [1, 2, 4, 5, 9], [1, 2, 4, 6, 9]]


@pytest.mark.parametrize('pack', [fast.pack, fast.pack_shared])
@pytest.mark.parametrize('form, K', [('text', 1), ('pair', 2), ('choices', 2), ('choices', 4)])
def test_rows_hold_the_real_tokens_and_come_back_from_the_slots(pack, form, K):
    X, M = ragged(5, form, K, seed=K)
    packing = pack(X, M, CLF)
    rows = torch.rand(len(packing.ids), 3)
    assert torch.equal(packing.to_rows(packing.to_slots(rows)), rows)
    assert torch.equal(packing.ids[packing.row_of][M[..., :packing.row_of.size(1)].flatten(0, 1).bool()], X[M.bool()])
    assert (packing.ids[packing.clf_row, 0] == CLF).all()
    if pack is fast.pack_shared:  # a row for each of the different beginnings
        beginnings = {(b, *X[b, k, :t + 1, 0].tolist()) for b, k, t in M.nonzero().tolist()}
        assert len(packing.ids) == len(beginnings) and (len(beginnings) < M.sum()) == (K > 1)
    else:
        assert len(packing.ids) == M.sum()


@pytest.mark.parametrize('head', HEADS)
def test_only_choices_are_shared(monkeypatch, head):
    monkeypatch.setattr(fast, 'pack' if head == 'multiple_choice' else 'pack_shared', None)
    X, M, _ = of_head(head, 3)
    fast.task_logits(build(head).eval(), X, M)


def test_choices_that_are_the_same_get_the_same_logits():
    model = build('multiple_choice').eval()
    X, M = ragged(4)
    X[1, 1], M[1, 1] = X[1, 0], M[1, 0]  # pack_shared has no row for the second
    logits = fast.task_logits(model, X, M)
    assert_close(logits, plain_logits(model, X, M))
    assert logits[1, 0] == logits[1, 1]


def test_evaluation_with_dropout_on_is_refused():
    with pytest.raises(ValueError, match='training mode'):
        fast.task_logits(build('multiple_choice').train(), *ragged(1))


def test_a_second_derivative_is_refused():
    model = build('multiple_choice')
    loss, *_ = fast.double_head_losses(model, *ragged(2), torch.tensor([0, 1]), 0.5)
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(loss, model.parameters(), create_graph=True)


@pytest.mark.parametrize('pack', [fast.pack, fast.pack_shared])
@pytest.mark.parametrize('change, words', [
    (lambda X, M: (X[:, 0], M), r'X \(2, 16, 2\) and M \(2, 2, 16\)'),
    (lambda X, M: (X, M[:, :1]), r'M \(2, 1, 16\)'),
    (lambda X, M: (X[..., :1], M), r'X \(2, 2, 16, 1\)'),
    (lambda X, M: (X, M.flip(-1)), 'then zeros'),
    (lambda X, M: (X, M * (torch.arange(T) != 1)), 'then zeros'),
    (lambda X, M: (X, M * (X[..., 0] != CLF)), 'classify token'),
    (lambda X, M: (X, M * 0), 'classify token')])
def test_arrays_that_do_not_belong_together_are_refused(pack, change, words):
    with pytest.raises(ValueError, match=words):
        pack(*change(*ragged(2)), CLF)


@pytest.mark.parametrize('head', HEADS)
def test_an_id_that_is_no_row_of_the_table_is_named(head):
    X, M, Y = of_head(head, 3)
    X[1, 0, 1, 0] = 60
    for compute in (lambda model: fast.double_head_losses(model, X, M, Y, 0.5),
                    lambda model: fast.task_logits(model.eval(), X, M)):
        with pytest.raises(ValueError, match=f'id 60 is not in the table, whose {ROWS} rows are tokens'):
            compute(build(head))


def test_labels_that_do_not_fit_the_head_are_refused():
    for head, Y in (('multiple_choice', torch.zeros(2)), ('similarity', torch.tensor([0, 1])),
                    (('classification', 3), torch.tensor([0, 1, 2]))):
        X, M, _ = of_head(head, 2)
        with pytest.raises(ValueError, match='do not fit Y'):
            fast.double_head_losses(build(head), X, M, Y, 0.5)


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('dtype, error', [
    pytest.param(torch.float16, 0.01, marks=needs_float16), (torch.bfloat16, 0.08)])
def test_half_precision_has_finite_losses_and_the_gradients_of_float32(head, dtype, error):
    model = build(head).train()
    X, M, Y = of_head(head, 4)
    fast.double_head_losses(model, X, M, Y, 0.5)[0].backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with torch.autocast('cpu', dtype):
        losses = fast.double_head_losses(model, X, M, Y, 0.5)
        logits = fast.task_logits(model.eval(), X, M)
    assert all(loss.isfinite().all() and loss.dtype == torch.float32 for loss in losses) and logits.isfinite().all()
    (losses[0] * 2**12).backward()  # as GradScaler scales it
    for p, grad in zip(model.parameters(), expected, strict=True):
        assert (p.grad / 2**12 - grad).norm() < error * expected[0].norm()


@pytest.mark.parametrize('dtype', [pytest.param(torch.float16, marks=needs_float16), torch.bfloat16])
@pytest.mark.parametrize('parameters_too', [False, True], ids=['autocast', 'half'])
def test_gradients_of_small_weights_do_not_vanish_in_half_precision(dtype, parameters_too):
    """The gradients are computed in the forward pass, before the loss scale is known."""
    torch.manual_seed(0)
    h, we = torch.randn(300, 8).to(dtype).float(), torch.randn(50, 8).to(dtype).float()
    targets, weights = torch.randint(0, 50, (300,)), torch.rand(300) * 1e-9
    grads = []
    for half in (False, True):
        kind = dtype if half and parameters_too else torch.float32
        inputs = [t.to(kind, copy=True).requires_grad_() for t in (h, we)]
        with torch.autocast('cpu', dtype, enabled=half):
            total, losses = fast.WeightedCrossEntropy.apply(*inputs, targets, weights)
        assert losses.dtype == torch.float32
        (total * 1e9).backward()
        assert all(t.grad.dtype == t.dtype for t in inputs)
        grads.append([t.grad.float() for t in inputs])
    for exact, ours in zip(*grads, strict=True):
        assert (ours - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_loss_of_an_impossible_token_is_exact(dtype):
    """Its probability, exp(-199.7), is no float32, and 199.7 is no bfloat16 number."""
    we = torch.tensor([[200.], [0.30078125]])
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype != torch.float32):
        _, [loss] = fast.WeightedCrossEntropy.apply(torch.ones(1, 1), we, torch.tensor([1]), torch.ones(1))
    assert loss == 199.69921875


def test_a_batch_without_targets_has_no_language_model_loss():
    model = build('multiple_choice')
    X, M = ragged(2)
    X[:, :, 0, 0] = CLF
    M[..., 1:] = 0
    loss, clf_losses, lm_losses = fast.double_head_losses(model, X, M, torch.tensor([0, 1]), 0.5)
    loss.backward()
    assert lm_losses.tolist() == [0] * 4 and loss == clf_losses.mean()


@pytest.mark.parametrize('use_dropout', [lambda model: model, fast.use_fast_layers], ids=['torch', 'fast'])
def test_packed_dropout_has_the_rates_and_scopes_of_the_plain_one(use_dropout):
    """Each site has its own rate. The whole table is dropped once, the classify state once for all choices."""
    rates = dotdict(TINY, embd_pdrop=0.1, attn_pdrop=0.2, resid_pdrop=0.3, clf_pdrop=0.4)
    model = use_dropout(build('multiple_choice', rates)).train()
    seen = record_dropout(model)
    torch.manual_seed(0)
    for seed in range(60):
        X, M = ragged(16, seed=seed)
        fast.double_head_losses(model, X, M, torch.zeros(16, dtype=torch.long), 0.5)
    assert len(seen) == 2 + 3 * TINY.n_layer
    for name, pairs in seen.items():
        rate = next(rates[site + '_pdrop'] for site, key in (('attn', 'attn_dropout'), ('embd', 'transformer.drop'),
                                                             ('clf', 'task_head'), ('resid', '')) if key in name)
        assert_dropped(pairs, rate, name)
    assert len(seen['transformer.drop']) == 60 and seen['transformer.drop'][0][0].shape == (ROWS, 16)
    assert seen['task_head.dropout'][0][0].shape == (16, 1, 16)


def test_fast_layers_replace_the_plain_ones():
    model = nn.Sequential(nn.Dropout(0.1).eval(), nn.ModuleDict({'inner': nn.Dropout(0.2)}), nn.AlphaDropout())
    assert fast.use_fast_layers(model) is model
    layers = model[0], model[1]['inner']
    assert type(layers[0]) is type(layers[1]) is fast.Dropout and type(model[2]) is nn.AlphaDropout
    assert [(layer.p, layer.training) for layer in layers] == [(0.1, False), (0.2, True)]
    for afn, kind in (('gelu', fast.MLP), ('relu', MLP)):
        mlp = MLP(8, dotdict(TINY, afn=afn))
        mlp.dropout.eval()
        mlp = fast.use_fast_layers(nn.ModuleList([mlp]))[0]
        assert mlp.training and not mlp.dropout.training
        assert [type(layer) for layer in (mlp, mlp.c_fc, mlp.dropout)] == [kind, fast.Conv1D, fast.Dropout]


@pytest.mark.parametrize('p', [0.05, 0.1, 0.5])
@pytest.mark.parametrize('n', [1, 2, 40])
def test_fast_dropout_drops_each_number_by_itself(n, p):
    """Also the first and the last, and each pair of neighbours as often as by chance."""
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


def test_gradients_of_fast_dropout_are_those_of_the_kept_numbers():
    layer = fast.Dropout(0.3).train()
    x = torch.rand(8, 9).T.requires_grad_()  # not contiguous
    out = layer(x)
    out.backward(torch.ones_like(out) * 2)
    assert_close(x.grad, 2 * (out != 0) / 0.7, atol=1e-6)
    assert_close(out, x * x.grad / 2, atol=1e-6)
    again = layer(x)
    assert [t.dtype for t in again.grad_fn.saved_tensors] == [torch.int32]  # half of what int64 takes
    assert layer.eval()(x) is x
