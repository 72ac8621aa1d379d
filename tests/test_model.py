"""The network and its heads against the numbers of the TensorFlow code."""

import copy
import inspect

import pytest
import torch
import torch.nn as nn
from reference import Golden, assert_close, assert_dropped, compiled, needs_float16, record_dropout

from loss import MultipleChoiceLossCompute, train_loss
from model_pytorch import (
    DEFAULT_CONFIG,
    MLP,
    Attention,
    Block,
    ClfHead,
    Conv1D,
    DoubleHeadModel,
    LayerNorm,
    LMHead,
    LMModel,
    MultipleChoiceHead,
    SimilarityHead,
    TransformerModel,
    dotdict,
    swish,
)
from opt import OpenAIAdam

TINY = dotdict(DEFAULT_CONFIG, n_embd=16, n_head=4, n_layer=2)
CLF = 32  # tokens 0..29, special 30..32, positions 33..40
ROWS, T = 41, 8


def ids(*shape, seed=0):
    """Token and position ids (*shape, T, 2), each sequence with one classify token at its end."""
    x = torch.randint(0, 30, (*shape, T, 2), generator=torch.Generator().manual_seed(seed))
    x[..., 0, 0], x[..., T - 1, 0] = 30, CLF
    x[..., 1] = torch.arange(ROWS - T, ROWS)
    return x


def losses(golden, model):
    compute = MultipleChoiceLossCompute(nn.CrossEntropyLoss(reduction='none'), nn.CrossEntropyLoss(reduction='none'),
                                        golden.config.lm_coef)
    lm_logits, clf_logits = model(golden['X'])
    clf_losses, lm_losses = compute(golden['X'], golden['Y'], golden['M'], clf_logits, lm_logits,
                                    only_return_losses=True)
    return lm_logits, clf_logits, clf_losses, lm_losses


def assert_gradients(golden, model):
    for name, p in model.named_parameters():
        assert_close(p.grad, golden.parameter(name, 'grad/'), what=name)


@pytest.mark.parametrize('name', ['forward', 'forward_relu', 'forward_swish', 'forward_lm0'])
def test_forward_and_gradients_are_those_of_the_original(name):
    golden = Golden(name)
    model = golden.model().train()
    inputs = []
    for block in model.transformer.h:
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    lm_logits, clf_logits, clf_losses, lm_losses = losses(golden, model)
    for i, h in enumerate(inputs):
        assert_close(h, golden[f'h{i}_in'], what=f'input of block {i}')
    assert_close(model.transformer(golden['X']), golden['h'], what='h')
    assert_close(clf_logits, golden['clf_logits'])
    assert_close(clf_losses, golden['clf_losses'])
    if 'lm_logits' in golden.arrays:
        assert_close(lm_logits, golden['lm_logits'])
        assert_close(lm_losses, golden['lm_losses'])
    loss = train_loss(clf_losses, lm_losses, golden.config.lm_coef)
    assert_close(loss, golden['train_loss'])
    loss.backward()
    assert_gradients(golden, model)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), torch.inf)
    assert_close(norm, golden['grad_global_norm'], atol=1e-5, rtol=1e-5)

    with torch.no_grad():
        _, clf_logits, clf_losses, lm_losses = losses(golden, model.eval())
    assert_close(clf_logits, golden['eval/clf_logits'])
    assert_close(clf_losses, golden['eval/clf_losses'])
    assert_close(lm_losses, golden['eval/lm_losses'])


class Recorded(nn.Dropout):
    """A dropout that draws a given mask (1 = kept)."""

    def __init__(self, p, mask):
        super().__init__(p)
        self.mask = mask

    def forward(self, x):
        return x * self.mask.view(x.shape) / (1 - self.p)


def test_recorded_dropout_masks_give_the_numbers_of_the_original():
    golden = Golden('dropout')
    model, cfg = golden.model().train(), golden.config
    model.transformer.drop = Recorded(cfg.embd_pdrop, golden['mask/embd'])
    for i, block in enumerate(model.transformer.h):
        block.attn.attn_dropout = Recorded(cfg.attn_pdrop, golden[f'mask/h{i}/attn/weights'])
        block.attn.resid_dropout = Recorded(cfg.resid_pdrop, golden[f'mask/h{i}/attn/resid'])
        block.mlp.dropout = Recorded(cfg.resid_pdrop, golden[f'mask/h{i}/mlp/resid'])
    model.task_head.dropout = Recorded(cfg.clf_pdrop, golden['mask/clf'])
    assert_close(model.transformer(golden['X']), golden['h'])
    _, clf_logits, clf_losses, lm_losses = losses(golden, model)
    assert_close(clf_logits, golden['clf_logits'])
    assert_close(clf_losses, golden['clf_losses'])
    assert_close(lm_losses, golden['lm_losses'])
    loss = train_loss(clf_losses, lm_losses, cfg.lm_coef)
    assert_close(loss, golden['train_loss'])
    loss.backward()
    assert_gradients(golden, model)


def test_dropout_falls_where_it_falls_in_the_original():
    """Zeros and scale at each site, with the rates of goldens/dropout.json. The table is dropped once per step."""
    rates = dotdict(TINY, embd_pdrop=0.1, attn_pdrop=0.2, resid_pdrop=0.3, clf_pdrop=0.4)
    model = DoubleHeadModel(rates, CLF, 'multiple_choice', ROWS, T).train()
    seen = record_dropout(model)
    torch.manual_seed(0)
    for seed in range(60):
        model(ids(16, 2, seed=seed))
    expected = {'transformer.drop': 0.1, 'task_head.dropout': 0.4}
    for i in range(rates.n_layer):
        expected |= {f'transformer.h.{i}.attn.attn_dropout': 0.2, f'transformer.h.{i}.attn.resid_dropout': 0.3,
                     f'transformer.h.{i}.mlp.dropout': 0.3}
    assert seen.keys() == expected.keys()
    for name, rate in expected.items():
        assert_dropped(seen[name], rate, name)
    assert len(seen['transformer.drop']) == 60  # once per step, for lookup and decoder
    assert seen['transformer.drop'][0][0].shape == (ROWS, 16)  # the whole table
    assert seen['task_head.dropout'][0][0].shape == (16, 1, 16)  # one mask for both choices


def test_lm_logits_decode_with_the_table_that_was_looked_up_in():
    model = DoubleHeadModel(dotdict(TINY, embd_pdrop=0.5, attn_pdrop=0., resid_pdrop=0., clf_pdrop=0.), CLF,
                            'multiple_choice', ROWS, T).train()
    x = ids(1, 2)
    torch.manual_seed(3)
    lm_logits, _ = model(x)
    torch.manual_seed(3)
    we = model.transformer.dropped_table()
    assert (we == 0).float().mean() > 0.4
    h = model.transformer(x, we)
    assert_close(lm_logits, h[:, :-1].reshape(-1, 16) @ we.T)


@pytest.mark.skipif('assign' not in inspect.signature(nn.Module.load_state_dict).parameters, reason='an older torch')
def test_decoder_and_table_are_one_parameter_after_assigning_too():
    cfg = dotdict(DEFAULT_CONFIG, n_embd=8, n_head=2, n_layer=1)
    for build in (lambda: DoubleHeadModel(cfg, 5, 'multiple_choice', vocab=20, n_ctx=4), lambda: LMModel(cfg, 20, 4)):
        model, other = build(), build()
        other.load_state_dict({name: p.clone() for name, p in model.state_dict().items()}, assign=True)
        assert other.lm_head.decoder.weight is other.transformer.embed.weight
        assert len(list(other.parameters())) == len(list(model.parameters()))
        model.load_state_dict(other.state_dict())


def test_fused_attention_is_the_written_out_one():
    model = TransformerModel(dotdict(TINY, attn_pdrop=1e-9), ROWS, T)
    attn = model.h[0].attn
    q, k, v = torch.randn(3, 2, 4, T, 4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    assert_close(attn.train().attend(q, k, v), attn.eval().attend(q, k, v), atol=1e-6)


def test_a_step_does_not_see_later_ones():
    model = TransformerModel(TINY, ROWS, T).eval()
    x = ids(3)
    y = x.clone()
    y[:, 5, 0] = (y[:, 5, 0] + 1) % 30
    a, b = model(x), model(y)
    assert_close(a[:, :5], b[:, :5], atol=0)
    assert (a[:, 5:] - b[:, 5:]).abs().amax(-1).min() > 1e-3


def test_shapes_of_the_drop_in_surface():
    x = ids(5, 3)
    model = TransformerModel(TINY, vocab=ROWS, n_ctx=T)
    h = model(x)
    assert h.shape == (15, T, 16)
    assert model(x[0, 0]).shape == (1, T, 16)
    assert LMHead(model, TINY)(h).shape == (15 * (T - 1), ROWS)
    assert LMHead(model, TINY, trunc_and_reshape=False)(h).shape == (15, T, ROWS)
    assert MultipleChoiceHead(CLF, TINY)(h, x).shape == (5, 3)
    assert ClfHead(CLF, TINY, 7)(h, x.view(15, T, 2)).shape == (15, 7)
    assert SimilarityHead(CLF, TINY)(model(x[:, :2]), x[:, :2]).shape == (5, 1)
    for head, shape in (('multiple_choice', (5, 3)), ('inference', (5, 3)), (('classification', 4), (5, 4)),
                        (['classification', 4], (5, 4)), ('similarity', (5, 1)), (('similarity', 2), (5, 2))):
        data = {'multiple_choice': x, 'similarity': x[:, :2]}.get(head if isinstance(head, str) else head[0], x[:, 0])
        lm_logits, logits = DoubleHeadModel(TINY, CLF, head, vocab=ROWS, n_ctx=T)(data)
        assert logits.shape == shape and lm_logits.shape[-1] == ROWS


def test_similarity_adds_the_states_of_both_orders():
    head = SimilarityHead(CLF, TINY).eval()
    h, x = torch.randn(6, T, 16), ids(3, 2)
    h.requires_grad_()
    expected = (h[0::2, -1] + h[1::2, -1]) @ head.linear.weight.T + head.linear.bias
    assert_close(head(h, x), expected, atol=1e-6)
    swapped = h.view(3, 2, T, 16).flip(1).reshape(6, T, 16)
    assert_close(head(swapped, x), expected, atol=1e-6)


def test_similarity_draws_one_mask_for_both_orders():
    head = SimilarityHead(CLF, dotdict(TINY, clf_pdrop=0.5), n_class=4).train()
    clf_h = torch.randn(3, 2, 16)
    seen = record_dropout(head)
    logits = head.score(clf_h.flatten(0, 1), 2)
    (x, out), = seen['dropout']
    assert_close(x, clf_h.sum(1))
    assert_close(logits, head.linear(out))
    assert logits.shape == (3, 4) and (out == 0).any() and (out != 0).any()


@pytest.mark.parametrize('head, n_choice', [('multiple_choice', 3), ('similarity', 2), (('similarity', 5), 2),
                                            ('inference', 1), (('classification', 2), 1)])
def test_score_of_the_classify_states_is_the_head(head, n_choice):
    model = DoubleHeadModel(TINY, CLF, head, ROWS, T).eval()
    x = ids(4, n_choice)
    h = model.transformer(x)
    clf_h = h[:, -1]  # `ids` ends with the classify token
    assert_close(model.task_head(h, x), model.task_head.score(clf_h, n_choice), atol=0)
    assert_close(model(x)[1], model.task_head(h, x), atol=1e-6)
    if n_choice != 3:
        with pytest.raises(ValueError, match='3 sequences an example'):
            model.task_head.score(clf_h.repeat(3, 1), 3)


@pytest.mark.parametrize('head, shape, wanted', [
    ('multiple_choice', (6,), r'\(B, K, T, 2\)'), ('multiple_choice', (2, 3, 2), r'\(B, K, T, 2\)'),
    ('similarity', (6,), r'\(B, 2, T, 2\)'), ('similarity', (2, 3), r'\(B, 2, T, 2\)'),
    ('inference', (), r'\(B, T, 2\)'), ('inference', (2, 2), r'\(B, T, 2\)'),
    ('inference', (2, 2, 1), r'\(B, T, 2\)')])
def test_a_head_refuses_input_with_other_axes(head, shape, wanted):
    with pytest.raises(ValueError, match=wanted):
        DoubleHeadModel(TINY, CLF, head, ROWS, T)(ids(*shape))


@pytest.mark.parametrize('x, words', [
    (torch.zeros(4, T, dtype=torch.long), r'shape \(4, 8\): give token and position ids'),
    (torch.zeros(T, dtype=torch.long), r'shape \(8,\): give'), (torch.zeros(4, T, 3, dtype=torch.long), '3'),
    (torch.zeros(4, T, 2), 'x is torch.float32'), (torch.zeros(4, T, 2, dtype=torch.bool), 'x is torch.bool')])
def test_ids_of_another_shape_or_type_are_refused(x, words):
    for model in (LMModel(TINY, ROWS, T), TransformerModel(TINY, ROWS, T)):
        with pytest.raises(ValueError, match=words):
            model(x)


@pytest.mark.parametrize('wrong', [ROWS, -1, 10 ** 12])
def test_an_id_that_is_no_row_of_the_table_is_named(wrong):
    x = ids(2)
    x[1, 3, 0] = wrong
    for model in (LMModel(TINY, ROWS, T), TransformerModel(TINY, ROWS, T)):
        with pytest.raises(ValueError, match=f'id {wrong} is not in the table, whose {ROWS} rows are tokens'):
            model(x)


def test_heads_read_the_classify_token_wherever_it_is():
    head = ClfHead(CLF, TINY, 2).eval()
    x = ids(2)
    x[1, :, 0] = torch.tensor([30, 1, 2, CLF, 0, 0, 0, 0])
    h = torch.randn(2, T, 16)
    assert_close(head(h, x), head.linear(torch.stack([h[0, 7], h[1, 3]])))


def test_next_token_probabilities_leave_out_the_positions():
    model = LMModel(TINY, vocab=ROWS, n_ctx=T, return_probs=True).eval()
    probs = model(ids(2))
    assert probs.shape == (2, T, ROWS)
    assert_close(probs.sum(-1), torch.ones(2, T), atol=1e-6)
    assert (probs[..., -T:] == 0).all() and (probs[..., :-T] > 0).all()


def test_new_layers_start_as_in_the_original():
    torch.manual_seed(0)
    wide = dotdict(TINY, n_embd=256)
    model = DoubleHeadModel(wide, CLF, ('classification', 50), vocab=500, n_ctx=T)
    for name, p in model.named_parameters():
        if name.endswith('.g'):
            assert (p == 1).all()
        elif p.ndim == 1:
            assert (p == 0).all(), name
        else:
            assert abs(p.std() - 0.02) < 0.001 and abs(p.mean()) < 0.001, name


def test_parameter_names_are_the_documented_ones():
    names = set(DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T).state_dict())
    assert {'transformer.embed.weight', 'transformer.h.0.attn.c_attn.w', 'transformer.h.1.ln_2.b',
            'lm_head.decoder.weight', 'task_head.linear.weight', 'task_head.linear.bias'} <= names
    assert len(names) == 2 + 12 * 2 + 2


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'])
def test_a_state_dict_of_the_port_or_of_a_wrapped_model_loads(prefix):
    model = DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T)
    saved = {prefix + name: value.clone() for name, value in model.state_dict().items()}
    for i in range(TINY.n_layer):
        saved[f'{prefix}transformer.h.{i}.attn.b'] = torch.tril(torch.ones(T, T)).view(1, 1, T, T)
    fresh = DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T)
    fresh.load_state_dict(saved)
    for name, value in fresh.state_dict().items():
        assert_close(value, model.state_dict()[name], atol=0, what=name)
    lm = LMModel(TINY, ROWS, T, return_probs=True)
    lm.load_state_dict({**lm.state_dict(), 'pos_emb_mask': torch.zeros(1, 1, ROWS),
                        'transformer.h.0.attn.b': torch.zeros(1, 1, T, T)})
    with pytest.raises(RuntimeError, match='surprise'):
        lm.load_state_dict({**lm.state_dict(), 'surprise': torch.zeros(1)})


def test_a_model_with_a_compiled_block_loads_its_own_state_and_a_plain_one():
    plain, model = (DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T) for _ in range(2))
    model.transformer.h[1] = compiled(model.transformer.h[1])
    model.load_state_dict(plain.state_dict())
    model.load_state_dict(model.state_dict())
    plain.load_state_dict(model.state_dict())
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_decoder_that_is_not_the_table_is_refused(prefix):
    model = DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T)
    before = copy.deepcopy(model.state_dict())
    saved = {prefix + name: value + 1 for name, value in before.items()}
    saved[prefix + 'lm_head.decoder.weight'][3, 3] += 1
    for load in (model.load_state_dict, nn.DataParallel(model).load_state_dict)[:2 if prefix else 1]:
        with pytest.raises(ValueError, match='lm_head.decoder.weight differs from transformer.embed.weight'):
            load(saved)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_decoder_stays_tied_through_copies_and_loading():
    model = copy.deepcopy(DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T))
    assert model.lm_head.decoder.weight is model.transformer.embed.weight
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    assert model.lm_head.decoder.weight is model.transformer.embed.weight


@pytest.mark.parametrize('change, words', [
    (dict(n_head=3), 'n_head=3'), (dict(afn='tanh'), "afn='tanh'")])
def test_a_wrong_configuration_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        TransformerModel(dotdict(TINY, **change), ROWS, T)


def test_other_wrong_arguments_are_named():
    with pytest.raises(ValueError, match='task_head_type'):
        DoubleHeadModel(TINY, CLF, 'multiple-choice', ROWS, T)
    with pytest.raises(ValueError, match='8 tokens but n_ctx=4'):
        TransformerModel(TINY, ROWS, 4)(ids(2))
    with pytest.raises(AttributeError, match='n_heads'):
        _ = DEFAULT_CONFIG.n_heads
    with pytest.raises(ValueError, match='n_ctx=512 leaves no token in a table of 41 rows'):
        LMModel(TINY, ROWS, return_probs=True)(ids(2))
    with pytest.raises(ValueError, match='rf=3'):
        Conv1D(5, 3, 4)


def test_calls_of_the_port_make_the_same_layers():
    x = torch.randn(2, T, 16)
    block = Block(T, TINY, scale=True).eval()
    assert block(x).shape == x.shape and block.attn.scale
    assert MLP(48, TINY)(x).shape == x.shape and LayerNorm(16)(x).shape == x.shape
    assert Conv1D(5, 1, 16)(x).shape == (2, T, 5)
    assert_close(swish(x), x * torch.sigmoid(x))


@pytest.mark.parametrize('training', [True, False])
def test_attention_without_scale_divides_by_nothing(training):
    attn = Attention(16, T, dotdict(TINY, attn_pdrop=1e-9)).train(training)
    q, k, v = torch.randn(3, 2, 4, T, 4)
    past = torch.ones(T, T).tril()
    w = torch.softmax(q @ k.mT * past - 1e9 * (1 - past), dim=-1)
    assert_close(attn.attend(q, k, v), w @ v)


@needs_float16
@pytest.mark.parametrize('autocast', [True, False])
def test_float16_trains_and_evaluates(autocast):
    torch.manual_seed(0)
    model = DoubleHeadModel(TINY, CLF, 'multiple_choice', ROWS, T).train()
    x, before = ids(4, 2), model.state_dict()['transformer.h.0.mlp.c_fc.w'].clone()
    model = model if autocast else model.half()
    opt = OpenAIAdam(model.parameters(), 1e-3, 'warmup_constant', 0, 10, e=1e-4, max_grad_norm=1)
    for _ in range(3):
        opt.zero_grad()
        with torch.autocast('cpu', dtype=torch.float16, enabled=autocast):
            lm_logits, clf_logits = model(x)
        (lm_logits.float().logsumexp(-1).mean() + clf_logits.float().square().mean()).backward()
        opt.step()
    assert lm_logits.dtype == torch.float16
    assert all(p.isfinite().all() for p in model.parameters())
    assert (model.transformer.h[0].mlp.c_fc.w.detach().float() - before).abs().max() > 1e-4
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.float16, enabled=autocast):
        half = model.eval()(x)[1]
    assert_close(half.float(), model.float()(x)[1].detach(), atol=2e-3)


@needs_float16
def test_in_float16_a_step_does_not_see_later_ones_either():
    attn = Attention(16, T, dotdict(TINY, attn_pdrop=1e-9), scale=True).half().train()
    q, k, v = torch.randn(3, 2, 4, T, 4, dtype=torch.float16)
    a = attn.attend(q, k, v)
    k[:, :, 5:], v[:, :, 5:] = 7, 7
    assert_close(attn.attend(q, k, v)[:, :, :5], a[:, :, :5], atol=0)
