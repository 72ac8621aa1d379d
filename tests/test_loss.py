"""Masked means and the training loss against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn as nn

from loss import ClassificationLossCompute, MultipleChoiceLossCompute, task_losses, train_loss

CRITERION = nn.CrossEntropyLoss(reduction='none')
LOG2, LOG4 = math.log(2), math.log(4)


def uniform_logits(n, V):
    """All tokens are equally likely, so that each step costs log(V)."""
    return torch.zeros(n, V, requires_grad=True)


def test_losses_are_means_over_the_real_tokens():
    X = torch.zeros(1, 2, 4, 2, dtype=torch.int32)
    X[0, 0, :, 0] = torch.tensor([1, 2, 3, 0])
    M = torch.tensor([[[1., 1, 1, 0], [1, 1, 0, 0]]])
    logits = torch.zeros(6, 4)
    logits[0, 2] = math.log(3)  # step 0 of the first sequence: the next token, 2, has 3/(3+3)
    logits[2] = torch.tensor([0., 9, 9, 9])  # predicts padding: must not count
    clf_logits = torch.tensor([[0., math.log(3)]])
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.5)
    clf, lm = compute(X, torch.tensor([1]), M, clf_logits, logits, only_return_losses=True)
    assert clf.tolist() == pytest.approx([math.log(4 / 3)])
    assert lm.tolist() == pytest.approx([(LOG2 + LOG4) / 2, LOG4])
    alone = compute(X, torch.tensor([1]), M, clf_logits, only_return_losses=True)
    assert alone.tolist() == clf.tolist()


def test_any_mask_gives_a_weighted_mean():
    X, M, logits = torch.randint(4, (2, 1, 5, 2)), torch.rand(2, 1, 5) / 100, torch.randn(8, 4)
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.5)
    losses = CRITERION(logits, X[:, 0, 1:, 0].flatten()).view(2, 4)
    expected = (losses * M[:, 0, 1:]).sum(1) / M[:, 0, 1:].sum(1)
    torch.testing.assert_close(compute.lm_losses(X, M, logits), expected)


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


def test_a_sequence_without_targets_has_loss_0():
    X, M = torch.zeros(1, 2, 3, 2, dtype=torch.long), torch.tensor([[[1., 1, 1], [1, 0, 0]]])
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.5)
    _, lm = compute(X, torch.tensor([0]), M, torch.zeros(1, 2), torch.zeros(4, 4), only_return_losses=True)
    assert lm.tolist() == pytest.approx([LOG4, 0])


@pytest.mark.parametrize('Y', [torch.tensor([1, 0], dtype=torch.int32), np.array([1, 0], dtype=np.int32),
                               torch.tensor([1, 0], dtype=torch.uint8)])
def test_labels_of_any_integer_type_are_class_numbers(Y):
    logits = torch.tensor([[0., math.log(3)], [0, math.log(3)]])
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.5)
    assert compute(None, Y, None, logits, only_return_losses=True).tolist() == pytest.approx([math.log(4 / 3), LOG4])
    assert task_losses(logits, torch.as_tensor(Y)).tolist() == pytest.approx([math.log(4 / 3), LOG4])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_losses_of_half_precision_are_float32(dtype):
    """Half precision cannot hold the label 1 + 2**-12, nor its loss."""
    wide = torch.promote_types(dtype, torch.float32)
    logits, Y = torch.tensor([[3.], [-1]], dtype=dtype), torch.tensor([1 + 2**-12, -1], dtype=torch.float64)
    losses = task_losses(logits, Y)
    assert losses.dtype == wide and losses.tolist() == pytest.approx([(2 - 2**-12)**2, 0], rel=1e-7)
    compute = MultipleChoiceLossCompute(CRITERION, task_losses, 0.5)
    X, M = torch.zeros(2, 1, 3, 2, dtype=torch.long), torch.ones(2, 1, 3)
    clf, lm = compute(X, Y, M, logits, torch.zeros(4, 4, dtype=dtype), only_return_losses=True)
    assert clf.tolist() == losses.tolist() and clf.dtype == lm.dtype == wide
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.5)
    assert compute(X, torch.tensor([0, 1]), M, logits.expand(2, 2), only_return_losses=True).dtype == wide


@pytest.mark.parametrize('shape, Y', [((2, 1), [0, 0]), ((2, 2), [0., 1.]), ((2, 2), [0]), ((2, 1), [[0.], [1.]])])
def test_labels_that_do_not_fit_the_logits_are_refused(shape, Y):
    with pytest.raises(ValueError, match=r'logits \(2, .\) do not fit Y'):
        task_losses(torch.zeros(shape), torch.tensor(Y))


@pytest.mark.parametrize('change, words', [
    (dict(Y=torch.zeros(2, dtype=torch.long)), 'Y has 2 labels, clf_logits are for 3'),
    (dict(M=torch.ones(3, 2, 4)), r'X \(3, 2, 5, 2\), M \(3, 2, 4\)'),
    (dict(M=torch.ones(2, 3, 5)), r'M \(2, 3, 5\)'),
    (dict(lm_logits=torch.zeros(30, 4)), r'lm_logits \(30, 4\) do not fit')])
def test_arrays_that_do_not_belong_together_are_refused(change, words):
    arguments = dict(X=torch.zeros(3, 2, 5, 2, dtype=torch.long), Y=torch.tensor([0, 1, 0]), M=torch.ones(3, 2, 5),
                     clf_logits=torch.zeros(3, 2), lm_logits=torch.zeros(24, 4))
    compute = MultipleChoiceLossCompute(CRITERION, CRITERION, 0.5)
    compute(**arguments, only_return_losses=True)
    with pytest.raises(ValueError, match=words):
        compute(**{**arguments, **change})
