"""From logits to per-example losses, to the training loss, to an update.

Training calls `fast.double_head_losses`, which uses the functions and computes the language model's loss in chunks.
`train.py --plain` and notebooks use the class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(logits):
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def task_losses(logits: Tensor, Y: Tensor) -> Tensor:
    """The loss of each example, (B,): cross-entropy of class numbers, squared error of other numbers.

    Y (B,) is integer and logits (B, n_class), or Y floating and logits (B, 1). Raises ValueError for other shapes.
    """
    if Y.shape != logits.shape[:1] or Y.is_floating_point() != (logits.size(1) == 1):
        raise ValueError(f'logits {tuple(logits.shape)} do not fit Y {tuple(Y.shape)} of {Y.dtype}: '
                         'floating Y (B,) need logits (B, 1), integer Y (B,) need logits (B, n_class), n_class > 1')
    logits = at_least_float32(logits)
    if Y.is_floating_point():
        return F.mse_loss(logits.squeeze(1), Y.to(logits.dtype), reduction='none')
    return F.cross_entropy(logits, Y.long(), reduction='none')


def train_loss(clf_losses: Tensor, lm_losses: Tensor | None, lm_coef: float) -> Tensor:
    """mean(clf_losses) + lm_coef * mean(lm_losses): the mean over examples, and over all of their sequences."""
    if lm_losses is None or lm_coef == 0:
        return clf_losses.mean()
    return clf_losses.mean() + lm_coef * lm_losses.mean()


class MultipleChoiceLossCompute:
    """Losses of the two heads; without only_return_losses, then a backward pass and an update.

    lm_criterion, clf_criterion: losses of (n, classes) logits and (n,) targets, not reduced. lm_coef: weight of the
    language-model loss. opt: optimizer to step after each call; without one, gradients add up.
    """

    def __init__(self, lm_criterion, clf_criterion, lm_coef: float, opt=None):
        self.lm_criterion, self.clf_criterion, self.lm_coef, self.opt = lm_criterion, clf_criterion, lm_coef, opt

    def __call__(self, X, Y, M, clf_logits, lm_logits=None, only_return_losses=False):
        """X (..., T, 2) ids, Y (B,) labels, M (..., T) 1 on real tokens, lm_logits (N * (T-1), V) -> the training loss
        as a float, after backward and update. With only_return_losses the tensors (clf_losses (B,), lm_losses (N,)), or
        clf_losses alone where there are no lm_logits. Raises ValueError for shapes that do not fit."""
        Y = torch.as_tensor(Y, device=clf_logits.device)
        if len(Y) != len(clf_logits):
            raise ValueError(f'Y has {len(Y)} labels, clf_logits are for {len(clf_logits)} examples')
        clf_losses = self.clf_criterion(at_least_float32(clf_logits), Y if Y.is_floating_point() else Y.long())
        lm_losses = None if lm_logits is None else self.lm_losses(X, M, lm_logits)
        if only_return_losses:
            return clf_losses if lm_losses is None else (clf_losses, lm_losses)
        loss = train_loss(clf_losses, lm_losses, self.lm_coef)
        loss.backward()
        if self.opt is not None:
            self.opt.step()
            self.opt.zero_grad()
        return loss.item()

    def lm_losses(self, X, M, lm_logits):
        """Mean next-token loss of each sequence over its real tokens, 0 for a sequence of one token: (N,)."""
        T = X.size(-2)
        if X.shape[:-1] != M.shape or len(lm_logits) * T != M.numel() * (T - 1):
            raise ValueError(f'X {tuple(X.shape)}, M {tuple(M.shape)}, lm_logits {tuple(lm_logits.shape)} do not fit')
        targets = X.reshape(-1, T, 2)[:, 1:, 0].long()  # (N, T-1)  the next token
        mask = M.reshape(-1, T)[:, 1:]  # (N, T-1)  1 on real tokens
        losses = self.lm_criterion(at_least_float32(lm_logits), targets.flatten()).view_as(mask)
        total = mask.sum(1)
        return (losses * mask).sum(1) / torch.where(total > 0, total, 1)


class ClassificationLossCompute(MultipleChoiceLossCompute):
    """The same for one sequence an example: X (B, T, 2), M (B, T)."""
