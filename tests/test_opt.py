"""Optimizer and schedules against the numbers of the TensorFlow code."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Golden, assert_close, needs_float16, without_noise

from loss import MultipleChoiceLossCompute
from opt import FUSED, SCHEDULES, OpenAIAdam, warmup_constant, warmup_cosine, warmup_linear

RUNS = Golden('optimizer').config.runs


@pytest.fixture(ids=['fused', 'plain'], params=[
    pytest.param(True, marks=pytest.mark.skipif(not FUSED, reason='this torch has no fused kernel on a CPU')), False])
def fused(request, monkeypatch):
    """The fused kernel, and the plain one, which runs where torch does not have it."""
    monkeypatch.setattr('opt.FUSED', request.param)


def golden_run(golden, run):
    params = {name: nn.Parameter(golden[f'init/{name}'].clone()) for name in golden.config.parameter_order}
    c = golden.config
    opt = OpenAIAdam(params.values(), lr=c.lr, schedule=run['lr_schedule'], warmup=run['lr_warmup'],
                     t_total=run['t_total'], b1=c.b1, b2=c.b2, e=c.e, l2=run['l2'], vector_l2=run['vector_l2'],
                     max_grad_norm=run['max_grad_norm'])
    return params, opt


def step(golden, params, opt, i):
    for name, p in params.items():
        p.grad = golden[f'grad/{name}'][i].clone()
    opt.step()


def written_out(params, steps, lr, schedule, warmup, t_total, b1, b2, e, l2, vector_l2, max_grad_norm):
    """The formulas of the docstring in float64: yields the parameters after each update. steps: lists of gradients."""
    params = [p.double() for p in params]
    m, v = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    for t, grads in enumerate(steps):
        norm = math.sqrt(sum(g.double().square().sum().item() for g in grads))
        clip = max_grad_norm / max(norm, max_grad_norm) if max_grad_norm > 0 else 1
        lrt = lr * SCHEDULES[schedule](t / t_total, warmup) * math.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1))
        for i, g in enumerate(g.double() * clip for g in grads):
            m[i], v[i] = b1 * m[i] + (1 - b1) * g, b2 * v[i] + (1 - b2) * g ** 2
            decay = l2 if params[i].ndim > 1 or vector_l2 else 0
            params[i] = params[i] - lrt * (m[i] / (v[i].sqrt() + e) + decay * params[i])
        yield params


@pytest.mark.parametrize('run', RUNS, ids=lambda run: run['id'])
def test_every_update_is_that_of_the_original(fused, run):
    """Past t_total the schedules follow the original's formulas, but the optimizer refuses to take a step."""
    golden, c = Golden('optimizer'), Golden('optimizer').config
    params, opt = golden_run(golden, run)
    formula = written_out([p.detach() for p in params.values()],
                          [[golden[f'grad/{name}'][i] for name in params] for i in range(c.n_steps)], c.lr,
                          run['lr_schedule'], run['lr_warmup'], run['t_total'], c.b1, c.b2, c.e, run['l2'],
                          run['vector_l2'], run['max_grad_norm'])
    for i, by_hand in enumerate(formula):
        for name, p in zip(params, by_hand, strict=True):
            assert_close(p.float(), golden[f'{run["id"]}/after/{name}'][i], atol=4e-6, what=f'{name}, update {i}')
        if i <= run['t_total']:
            step(golden, params, opt, i)
            for name, p in params.items():
                assert_close(p.detach(), golden[f'{run["id"]}/after/{name}'][i], atol=4e-6, what=f'{name}, update {i}')
            if run['max_grad_norm'] > 0:
                assert opt.grad_norm.item() == pytest.approx(c.gradient_global_norms[i], rel=1e-5)
        else:
            before = copy.deepcopy(opt.state_dict()), [p.detach().clone() for p in params.values()]
            with pytest.raises(ValueError, match=f'9 updates are done, but t_total={run["t_total"]} is the end'):
                step(golden, params, opt, i)
            assert str(opt.state_dict()) == str(before[0])
            assert all(torch.equal(p, q) for p, q in zip(params.values(), before[1], strict=True))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_update_is_the_written_formula(data):
    draw, number = data.draw, st.floats(0, 0.99)
    shapes = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4))
    options = dict(lr=draw(st.floats(0, 0.1)), schedule=draw(st.sampled_from(sorted(SCHEDULES))),
                   warmup=draw(st.one_of(number, st.floats(1, 9))), t_total=draw(st.integers(4, 20)), b1=draw(number),
                   b2=draw(number), e=draw(st.floats(1e-8, 1)), l2=draw(number), vector_l2=draw(st.booleans()),
                   max_grad_norm=draw(st.sampled_from([-1, 0, 0.5, 1e4])))
    torch.manual_seed(draw(st.integers(0, 99)))
    params = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    steps = [[torch.randn(shape, dtype=torch.float64) * 10 ** i for shape in shapes] for i in (0, -3, 1)]
    opt = OpenAIAdam(params, **options)
    for grads, expected in zip(steps, written_out([p.detach() for p in params], steps, **options), strict=True):
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        opt.step()
        for p, q in zip(params, expected, strict=True):
            assert_close(p.detach(), q, atol=1e-6, rtol=1e-6)


def test_training_steps_are_those_of_the_original():
    golden = Golden('train_steps')
    model, c = golden.model().train(), golden.config
    opt = OpenAIAdam(model.parameters(), lr=c.lr, schedule=c.lr_schedule, warmup=c.lr_warmup, t_total=c.n_updates_total,
                     b1=c.b1, b2=c.b2, e=c.e, l2=c.l2, vector_l2=c.vector_l2, max_grad_norm=c.max_grad_norm)
    criterion = nn.CrossEntropyLoss(reduction='none')
    compute = MultipleChoiceLossCompute(criterion, criterion, c.lm_coef, opt)
    for i, (X, Y, M) in enumerate(zip(golden['X'], golden['Y'], golden['M'], strict=True)):
        lm_logits, clf_logits = model(X)
        theirs = golden['step/clf_logits'][i]  # their difference: the common bias is noise
        assert_close(clf_logits.diff(), theirs.diff())
        loss = compute(X, Y, M, clf_logits, lm_logits)
        assert loss == pytest.approx(golden['step/train_loss'][i].item(), abs=1e-5)
        assert opt.grad_norm.item() == pytest.approx(golden['step/grad_global_norm'][i].item(), rel=1e-5)
        if i + 1 in c.save_after:
            for name, p in model.named_parameters():
                theirs = golden.parameter(name, f'after/{i + 1}/')
                assert_close(without_noise(name, p.detach()), without_noise(name, theirs), atol=2e-6,
                             what=f'{name} after {i + 1}')


@pytest.mark.parametrize('interrupt_at, other_torch', [
    (1, {}), (5, {}), (5, dict(fused=True, foreach=True, unknown=True)), (5, dict(fused=None, foreach=None))])
def test_a_restored_optimizer_goes_on_as_if_never_stopped(fused, interrupt_at, other_torch):
    """Also from the state of another version of torch, whose groups say otherwise how it computes."""
    golden = Golden('optimizer')
    run = next(run for run in RUNS if run['max_grad_norm'] > 0 and run['l2'] > 0 and run['lr_warmup'] == 0.3)
    params, opt = golden_run(golden, run)
    for i in range(golden.config.n_steps):
        if i == interrupt_at:
            state = copy.deepcopy(opt.state_dict())
            for group in state['param_groups']:
                group |= other_torch
            values = {name: p.detach().clone() for name, p in params.items()}
            params, opt = golden_run(golden, run)
            with torch.no_grad():
                for name, p in params.items():
                    p.copy_(values[name])
            opt.load_state_dict(state)
        step(golden, params, opt, i)
    for name, p in params.items():
        assert_close(p.detach(), golden[f'{run["id"]}/after/{name}'][-1], atol=4e-6, what=name)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_is_an_optimizer_too(copied):
    layer = nn.Linear(3, 2)
    opt = OpenAIAdam(layer.parameters(), 0.1, 'warmup_linear', 0, 10, l2=0.01, max_grad_norm=1)
    other, other_opt = copied((layer, opt))
    for one, of_one in ((layer, opt), (other, other_opt)):
        one(torch.ones(1, 3)).sum().backward()
        of_one.step()
    assert torch.equal(layer.weight, other.weight) and torch.equal(opt.grad_norm, other_opt.grad_norm)
    other_opt.load_state_dict(opt.state_dict())
    other_opt.add_param_group({'params': [nn.Parameter(torch.ones(2))]})
    assert other_opt.param_groups[-1]['schedule'] == 'warmup_linear'


@pytest.mark.parametrize('settings, message', [
    (dict(schedule='nonsense'), "schedule='nonsense'"), (dict(l2=-5), 'l2=-5'), (dict(b1=2.), 'b1=2.0'),
    (dict(lr=-1.), 'lr=-1.0'), (dict(t_total=0), 't_total=0')])
def test_a_group_has_no_setting_out_of_range(settings, message):
    group = dict(params=[nn.Parameter(torch.ones(2))], **settings)
    with pytest.raises(ValueError, match=message):
        OpenAIAdam([group], 0.1, 'warmup_linear', 0, 10)


def test_the_first_update_of_a_warm_up_changes_nothing():
    p = nn.Parameter(torch.ones(2, 2))
    opt = OpenAIAdam([p], lr=1, schedule='warmup_linear', warmup=0.1, t_total=10, l2=0.1)
    p.grad = torch.ones(2, 2)
    opt.step()
    assert (p == 1).all()
    opt.step()
    assert (p < 1).all()


def test_groups_share_one_norm_and_keep_their_own_rate(fused):
    a, b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))
    opt = OpenAIAdam([{'params': [a]}, {'params': [b], 'lr': 0.5}], lr=1., schedule='warmup_constant',
                     warmup=0, t_total=10, max_grad_norm=1, e=1.)
    a.grad, b.grad = torch.full((3,), 3.), torch.full((4,), 3.)
    opt.step()
    g = 3 / math.sqrt(7 * 9)
    expected = math.sqrt(1 - .999) / (1 - .9) * .1 * g / (math.sqrt(.001) * g + 1)  # k = 1, by hand
    assert_close(a.detach(), torch.full((3,), -expected), atol=1e-6)
    assert_close(b.detach(), torch.full((4,), -expected / 2), atol=1e-6)
    assert opt.param_groups[0]['lr'] == 1.  # the peak rate, not that of this step


def test_schedules_by_hand():
    assert warmup_linear(0.) == 0 and warmup_linear(0.001) == pytest.approx(0.5 * 0.999)
    assert warmup_linear(0.5) == 0.5 and warmup_linear(1.) == 0
    assert warmup_constant(0.1, 0.2) == pytest.approx(0.5) and warmup_constant(0.9) == 1
    assert warmup_cosine(0.25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert warmup_cosine(0.1, 0.4) == pytest.approx(0.25)
    assert all(schedule(0., 0) == 1 for schedule in SCHEDULES.values())  # no warm-up: full rate at once


@pytest.mark.parametrize('name, value', [
    ('lr', -1), ('lr', math.nan), ('lr', math.inf), ('warmup', -0.1), ('warmup', math.inf), ('b1', 1.0),
    ('b2', -0.1), ('e', -1e-8), ('l2', -1), ('t_total', 0), ('schedule', 'warmup_quadratic'),
    ('max_grad_norm', math.nan)])
def test_a_bad_argument_is_named_with_its_value(name, value):
    good = dict(lr=1e-3, schedule='warmup_linear', warmup=0.1, t_total=10)
    with pytest.raises(ValueError, match=f'{name}={value!r}'):
        OpenAIAdam([nn.Parameter(torch.zeros(1))], **{**good, name: value})


@needs_float16
@pytest.mark.parametrize('unscale', [False, True])
def test_a_grad_scaler_changes_no_update_and_a_skipped_one_counts_nowhere(fused, unscale):
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        net, x = nn.Linear(8, 4), torch.randn(16, 8) * 1e-3
        opt = OpenAIAdam(net.parameters(), lr=1e-3, schedule='warmup_linear', warmup=0.2, t_total=10, e=1e-4,
                         max_grad_norm=1)
        scaler = torch.amp.GradScaler('cpu', init_scale=65536., enabled=enabled)
        for i in (1, 2, math.inf, 3, 4):
            if i == math.inf and not enabled:
                continue  # without a scaler an overflow is not skipped
            opt.zero_grad()
            scaler.scale((net(x) * i).pow(2).mean()).backward()
            if unscale:
                scaler.unscale_(opt)
            scaler.step(opt)
            scaler.update()
        assert opt.param_groups[0]['t'] == 4
        results.append([*net.parameters(), opt.grad_norm])
    for a, b in zip(*results, strict=True):
        assert_close(a, b, atol=0, rtol=1e-6)


def test_a_state_from_before_the_first_update_can_be_loaded(fused):
    """Also where a scaler has skipped all updates."""
    results, x, settings = [], torch.randn(16, 8), dict(lr=1e-3, schedule='warmup_linear', warmup=0.2, t_total=10)
    for loads in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(8, 4)
        opt = OpenAIAdam(net.parameters(), **settings)
        if loads:
            opt.load_state_dict(OpenAIAdam(net.parameters(), **settings).state_dict())
        for _ in range(3):
            opt.zero_grad()
            net(x).pow(2).mean().backward()
            opt.step()
        results.append(net.weight)
    assert torch.equal(*results)


HALF, BFLOAT, FLOAT, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize('dtypes', [
    pytest.param([HALF], marks=needs_float16), [BFLOAT], [DOUBLE], [FLOAT, BFLOAT],
    pytest.param([DOUBLE, HALF, FLOAT], marks=needs_float16)], ids=str)
def test_clipping_works_in_every_precision(fused, dtypes):
    params = [nn.Parameter(torch.ones(4, 4, dtype=dtype)) for dtype in dtypes]
    opt = OpenAIAdam(params, lr=0.1, schedule='warmup_constant', warmup=0, t_total=10, max_grad_norm=1, e=1.)
    for p in params:
        p.grad = torch.full_like(p, 60000)  # the norm is more than float16 can hold
    opt.step()
    norm = 60000 * 4 * math.sqrt(len(params))
    assert opt.grad_norm.item() == pytest.approx(norm, rel=1e-2)
    g = 60000 / norm
    expected = 1 - 0.1 * math.sqrt(.001) / .1 * .1 * g / (math.sqrt(.001) * g + 1)
    for p in params:
        assert_close(p.detach().double(), torch.full((4, 4), expected, dtype=DOUBLE), atol=4e-3)
        assert_close(opt.state[p]['exp_avg'].double(), torch.full((4, 4), 0.1 * g, dtype=DOUBLE), atol=0, rtol=1e-2)


def test_parameters_may_come_with_their_names():
    settings = dict(lr=1e-3, schedule='warmup_linear', warmup=0.1, t_total=10, l2=0.1)
    model = nn.Linear(3, 2)
    named, plain = OpenAIAdam(model.named_parameters(), **settings), OpenAIAdam(model.parameters(), **settings)
    assert [[p.ndim for p in group['params']] for group in named.param_groups] == [[2], [1]]
    assert named.state_dict() == plain.state_dict()


def test_calls_of_the_port_work():
    with pytest.warns(UserWarning, match='OpenAIAdam ignores max_norm'):
        opt = OpenAIAdam([nn.Parameter(torch.zeros(2, 2))], lr=1e-3, schedule='warmup_linear', warmup=2, t_total=10,
                         b1=0.8, b2=0.99, max_norm=1)
    assert opt.param_groups[0]['b1'] == 0.8 and opt.param_groups[0]['b2'] == 0.99
