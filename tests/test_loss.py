"""Masked means and the training loss against numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn as nn

from loss import ClassificationLossCompute, MultipleChoiceLossCompute, train_loss

CRITERION = nn.CrossEntropyLoss(reduction='none')
LOG2, LOG4 = math.log(2), math.log(4)


def uniform_logits(n, V):
    """Every token as likely as any other: each step costs log(V)."""
    return torch.zeros(n, V, requires_grad=True)


def test_losses_are_means_over_the_real_tokens():
    X = torch.zeros(1, 2, 4, 2, dtype=torch.int32)
    X[0, 0, :, 0] = torch.tensor([1, 2, 3, 0])
    M = torch.tensor([[[1., 1, 1, 0], [1, 1, 0, 0]]])
    logits = torch.zeros(6, 4)
    logits[0, 2] = math.log(3)                   # step 0 of the first sequence: the next token, 2, has 3/(3+3)
    logits[2] = torch.tensor([0., 9, 9, 9])      # predicts padding: must not count
    clf_logits = torch.tensor([[0., math.log(3)]])
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.5)
    clf, lm = compute(X, torch.tensor([1]), M, clf_logits, logits, only_return_losses=True)
    assert clf.tolist() == pytest.approx([math.log(4 / 3)])
    assert lm.tolist() == pytest.approx([(LOG2 + LOG4) / 2, LOG4])
    alone = compute(X, torch.tensor([1]), M, clf_logits, only_return_losses=True)
    assert alone.tolist() == clf.tolist()


def test_training_loss_is_a_mean_over_examples_and_over_sequences():
    loss = train_loss(torch.tensor([1., 3.]), torch.tensor([4., 8., 4., 8.]), 0.5)
    assert loss.item() == 2 + 0.5 * 6
    assert train_loss(torch.tensor([1., 3.]), torch.tensor([math.nan]), 0).item() == 2


@pytest.mark.parametrize('compute_class, lead', [(MultipleChoiceLossCompute, (3, 2)),
                                                 (ClassificationLossCompute, (3,))])
def test_both_classes_step_the_optimizer_and_return_a_float(compute_class, lead):
    X, M = torch.zeros(*lead, 5, 2, dtype=torch.long), torch.ones(*lead, 5)
    lm_logits, clf_logits = uniform_logits(math.prod(lead) * 4, 4), torch.zeros(3, 2, requires_grad=True)
    opt = torch.optim.SGD([lm_logits, clf_logits], lr=1.)
    loss = compute_class(CRITERION, CRITERION, 0.5, opt)(X, torch.tensor([0, 1, 0]), M, clf_logits, lm_logits)
    assert isinstance(loss, float) and loss == pytest.approx(LOG2 + 0.5 * LOG4)
    assert clf_logits.tolist() == [[pytest.approx(s / 6), pytest.approx(-s / 6)] for s in (1, -1, 1)]
    assert clf_logits.grad is None


def test_without_an_optimizer_gradients_add_up():
    clf_logits = torch.zeros(1, 2, requires_grad=True)
    X, M, Y = torch.zeros(1, 2, 3, 2, dtype=torch.long), torch.ones(1, 2, 3), torch.tensor([0])
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.)
    compute(X, Y, M, clf_logits)
    once = clf_logits.grad.clone()
    compute(X, Y, M, clf_logits)
    assert torch.equal(clf_logits.grad, 2 * once)
