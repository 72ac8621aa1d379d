"""Optimizer and schedules against the numbers of the TensorFlow code."""

import copy
import math

import pytest
import torch
import torch.nn as nn
from reference import Golden, assert_close, without_noise

from loss import MultipleChoiceLossCompute
from opt import SCHEDULES, OpenAIAdam, warmup_constant, warmup_cosine, warmup_linear

RUNS = Golden('optimizer').config.runs


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


@pytest.mark.parametrize('run', RUNS, ids=lambda run: run['id'])
def test_every_update_is_that_of_the_original(run):
    golden = Golden('optimizer')
    params, opt = golden_run(golden, run)
    for i in range(golden.config.n_steps):
        step(golden, params, opt, i)
        for name, p in params.items():
            assert_close(p.detach(), golden[f'{run["id"]}/after/{name}'][i], atol=4e-6, what=f'{name}, update {i}')
    if run['max_grad_norm'] > 0:
        assert opt.grad_norm.item() == pytest.approx(golden.config.gradient_global_norms[-1], rel=1e-5)


def test_training_steps_are_those_of_the_original():
    golden = Golden('train_steps')
    model, c = golden.model().train(), golden.config
    opt = OpenAIAdam(model.parameters(), lr=c.lr, schedule=c.lr_schedule, warmup=c.lr_warmup, t_total=c.n_updates_total,
                     b1=c.b1, b2=c.b2, e=c.e, l2=c.l2, vector_l2=c.vector_l2, max_grad_norm=c.max_grad_norm)
    criterion = nn.CrossEntropyLoss(reduction='none')
    compute = MultipleChoiceLossCompute(criterion, criterion, c.lm_coef, opt)
    for i, (X, Y, M) in enumerate(zip(golden['X'], golden['Y'], golden['M'], strict=True)):
        lm_logits, clf_logits = model(X)
        theirs = golden['step/clf_logits'][i]                     # their difference: the common bias is noise
        assert_close(clf_logits.diff(), theirs.diff())
        loss = compute(X, Y, M, clf_logits, lm_logits)
        assert loss == pytest.approx(golden['step/train_loss'][i].item(), abs=1e-5)
        assert opt.grad_norm.item() == pytest.approx(golden['step/grad_global_norm'][i].item(), rel=1e-5)
        if i + 1 in c.save_after:
            for name, p in model.named_parameters():
                theirs = golden.parameter(name, f'after/{i + 1}/')
                assert_close(without_noise(name, p.detach()), without_noise(name, theirs), atol=2e-6,
                             what=f'{name} after {i + 1}')


@pytest.mark.parametrize('interrupt_at', [1, 5])
def test_a_restored_optimizer_goes_on_as_if_never_stopped(interrupt_at):
    golden = Golden('optimizer')
    run = next(run for run in RUNS if run['max_grad_norm'] > 0 and run['l2'] > 0 and run['lr_warmup'] == 0.3)
    params, opt = golden_run(golden, run)
    for i in range(golden.config.n_steps):
        if i == interrupt_at:
            state = copy.deepcopy(opt.state_dict())
            values = {name: p.detach().clone() for name, p in params.items()}
            params, opt = golden_run(golden, run)
            with torch.no_grad():
                for name, p in params.items():
                    p.copy_(values[name])
            opt.load_state_dict(state)
        step(golden, params, opt, i)
    for name, p in params.items():
        assert_close(p.detach(), golden[f'{run["id"]}/after/{name}'][-1], atol=4e-6, what=name)


def test_the_first_update_of_a_warm_up_changes_nothing():
    p = nn.Parameter(torch.ones(2, 2))
    opt = OpenAIAdam([p], lr=1, schedule='warmup_linear', warmup=0.1, t_total=10, l2=0.1)
    p.grad = torch.ones(2, 2)
    opt.step()
    assert (p == 1).all()
    opt.step()
    assert (p < 1).all()


def test_groups_share_one_norm_and_keep_their_own_rate():
    a, b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))
    opt = OpenAIAdam([{'params': [a]}, {'params': [b], 'lr': 0.5}], lr=1., schedule='warmup_constant',
                     warmup=0, t_total=10, max_grad_norm=1, e=1.)
    a.grad, b.grad = torch.full((3,), 3.), torch.full((4,), 3.)
    opt.step()
    g = 3 / math.sqrt(7 * 9)
    expected = math.sqrt(1 - .999) / (1 - .9) * .1 * g / (math.sqrt(.001) * g + 1)      # k = 1, by hand
    assert_close(a.detach(), torch.full((3,), -expected), atol=1e-6)
    assert_close(b.detach(), torch.full((4,), -expected / 2), atol=1e-6)
    assert opt.param_groups[0]['lr'] == 1.                               # the peak, not this step's rate


def test_schedules_by_hand():
    assert warmup_linear(0.) == 0 and warmup_linear(0.001) == pytest.approx(0.5 * 0.999)
    assert warmup_linear(0.5) == 0.5 and warmup_linear(1.) == 0
    assert warmup_constant(0.1, 0.2) == pytest.approx(0.5) and warmup_constant(0.9) == 1
    assert warmup_cosine(0.25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert warmup_cosine(0.1, 0.4) == pytest.approx(0.25)
    assert all(schedule(0., 0) == 1 for schedule in SCHEDULES.values())  # no warm-up: full rate at once


@pytest.mark.parametrize('name, value', [
    ('lr', -1), ('lr', math.nan), ('lr', math.inf), ('warmup', -0.1), ('warmup', 1), ('b1', 1.0),
    ('b2', -0.1), ('e', -1e-8), ('l2', -1), ('t_total', 0), ('schedule', 'warmup_quadratic'),
    ('max_grad_norm', math.nan)])
def test_a_bad_argument_is_named_with_its_value(name, value):
    good = dict(lr=1e-3, schedule='warmup_linear', warmup=0.1, t_total=10)
    with pytest.raises(ValueError, match=f'{name}={value!r}'):
        OpenAIAdam([nn.Parameter(torch.zeros(1))], **{**good, name: value})
