"""The network's numbers with less arithmetic, for multiple choice; tests hold each function to the plain model.

Training does no work on padding: everything but attention runs on one row per real token, and language-model logits are
made only where the loss looks, a chunk at a time. Evaluation, where dropout is off, also computes what the choices of
an example have in common once (with causal attention its states are the same), and of the last block only what the
classify token needs. `model_pytorch.py` is the network to read; this file only orders its parts differently.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from loss import train_loss

LM_CHUNK = 256                              # rows of language-model logits in memory at a time


class Packing(NamedTuple):
    """R rows, one for each real token, of N sequences of T steps; and G x L places, where attention works on them.

    As it comes, a sequence has its steps for places. With choices that share their beginning an example has one
    sequence of places: what is shared, then what each choice goes on with, which sees nothing of the other choices.
    """
    ids: Tensor             # (R, 2)  token and position ids
    row_of: Tensor          # (N, T)  the row of each step; on padding some row, which no real token sees
    clf_row: Tensor         # (N,)    the row of the classify token
    grid: Tensor            # (G, L)  the row at each place; on padding some row
    place_of: Tensor        # (R,)    the place g * L + l of each row
    seen: Tensor | None     # (G, 1, L, L)  which places each sees; None: itself and those before it

    # F.embedding takes rows as index_select does; on a CPU its backward pass is no scatter, which is slow there

    def pad(self, rows):
        """(R, C) -> (G, L, C)"""
        return F.embedding(self.grid, rows)

    def pack(self, places):
        """(G, L, C) -> (R, C)"""
        return F.embedding(self.place_of, places.flatten(0, 1))

    def at_clf(self, rows):
        """(R, C) -> (N, C), the rows of the classify tokens"""
        return F.embedding(self.clf_row, rows)


def pack(X: Tensor, M: Tensor, clf_token: int, share: bool = False) -> Packing:
    """The rows of X (B, K, T, 2), M (B, K, T), cut to the longest sequence.

    share: the steps that all choices of an example have in common get one row together.
    """
    real = M.bool()
    T = int(real.sum(-1).max())
    X, real = X[:, :, :T], real[:, :, :T]
    own = real.clone()                                                 # the steps that have a row of their own
    if share:
        common = ((X == X[:, :1]).all(-1) & real).all(1).int().cumprod(-1).bool()            # (B, T)
        own[:, 1:] &= ~common[:, None]
    row_of = (own.flatten().cumsum(0) - 1).view_as(own)                # the last row begun; right where `own`
    if share:
        row_of = torch.where(own, row_of, row_of[:, :1])
    step_of = own.flatten().nonzero().squeeze(1)
    clf_step = (X[..., 0].flatten(0, 1) == clf_token).int().argmax(-1, keepdim=True)         # (N, 1)
    ids, row_of_step = X.reshape(-1, 2)[step_of], row_of.flatten(0, 1)
    clf_row = row_of_step.gather(1, clf_step).squeeze(1)
    if not share:
        return Packing(ids, row_of_step, clf_row, row_of_step, step_of, None)

    B, K, _ = own.shape
    n_rows = own.sum((1, 2))                                           # (B,)  of each example, side by side
    first, L = n_rows.cumsum(0) - n_rows, int(n_rows.max())
    grid = first[:, None] + torch.arange(L, device=X.device).minimum(n_rows[:, None] - 1)
    example, step = step_of // (K * T), step_of % T
    place_of = torch.arange(len(step_of), device=X.device) + (torch.arange(B, device=X.device) * L - first)[example]
    choice, is_common = (step_of // T % K)[grid], common[example, step][grid]                # (B, L)
    seen = (choice[:, :, None] == choice[:, None]) | is_common[:, None]                      # (B, L, L)
    return Packing(ids, row_of_step, clf_row, grid, place_of, seen.tril()[:, None])


def move(tensor, device):
    """The tensor on `device`, from pinned memory, so that a GPU is not waited for."""
    if device.type == 'cuda' and tensor.device.type == 'cpu':
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_device(tensors, device):
    """The same named tuple of tensors, on `device`."""
    return type(tensors)(*(t if t is None else move(t, device) for t in tensors))


class Dropout(nn.Dropout):
    """The same distribution from fewer random numbers: which are dropped, not of each whether it is.

    A tenth of them at rate 0.1, and no mask as large as the input is kept. For a CPU, where drawing them takes a sixth
    of a training step; on a GPU, and at rates for which it does not pay, this is nn.Dropout.
    """

    def forward(self, x):
        if not self.training or not 0 < self.p <= 0.5 or x.device.type != 'cpu':
            return super().forward(x)
        return ZeroAt.apply(x, dropped_positions(x.numel(), self.p), 1 / (1 - self.p))


def dropped_positions(n: int, p: float) -> Tensor:
    """Which of n numbers are dropped, each with probability p: the gaps between them are geometric."""
    ends, some = torch.zeros(1, dtype=torch.float64), int(n * p + 6 * math.sqrt(n * p)) + 6
    while ends[-1] <= n:                                               # once, but for one time in a billion
        ends = torch.cat([ends, ends[-1] + torch.empty(some, dtype=torch.float64).geometric_(p).cumsum(0)])
    return ends[1:torch.searchsorted(ends, n, right=True)].long() - 1


class ZeroAt(torch.autograd.Function):
    """x * scale, but zero at the given positions of the flat x."""

    @staticmethod
    def forward(ctx, x, positions, scale):
        ctx.save_for_backward(positions)
        ctx.scale = scale
        return ZeroAt.zero(x, positions, scale)

    @staticmethod
    def backward(ctx, grad):
        return ZeroAt.zero(grad, *ctx.saved_tensors, ctx.scale), None, None

    @staticmethod
    def zero(x, positions, scale):
        out = torch.mul(x.contiguous(), scale)
        out.view(-1).index_fill_(0, positions, 0)
        return out


def use_fast_dropout(model):
    """Have all dropout of a model drawn by `Dropout`; returns the model."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout                                 # its rate, hooks and place stay as they are
    return model


def attention(attn, rows, packing):
    """`Attention.forward` on rows (R, C)."""
    q, k, v = attn.split_heads(packing.pad(attn.c_attn(rows)))         # each (G, H, L, C/H)
    if packing.seen is None:
        a = attn.attend(q, k, v)
    else:
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=packing.seen)
    return attn.resid_dropout(attn.c_proj(packing.pack(attn.merge_heads(a))))


def hidden_rows(transformer, packing, we, n_layer=None):
    """`TransformerModel.forward` on rows, through the first n_layer blocks: (R, C)."""
    h = F.embedding(packing.ids, we).sum(dim=1)
    for block in transformer.h[:n_layer]:
        n = block.ln_1(h + attention(block.attn, h, packing))
        h = block.ln_2(n + block.mlp(n))
    return h


class WeightedCrossEntropy(torch.autograd.Function):
    """sum(weights * cross entropy of h @ we.T), with logits and gradients made chunk by chunk in the forward pass.

    h (R, C), we (V, C), targets (R,), weights (R,) -> the sum, and the losses (R,), which carry no gradient. Under
    autocast the products are taken in its dtype; the softmax is float32 always. Goes backward once.
    """

    @staticmethod
    def forward(ctx, h, we, targets, weights):
        kind = h.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h.dtype
        h_, we_ = h.to(dtype), we.to(dtype)
        grad_h, grad_we = torch.empty_like(h), None
        losses = torch.empty_like(weights)
        n_chunks = max(math.ceil(len(h) / LM_CHUNK), 1)
        for lo, hi in pairwise(len(h) * i // n_chunks for i in range(n_chunks + 1)):         # equally long
            part = slice(lo, hi)
            log_p = (h_[part] @ we_.T).log_softmax(1, dtype=torch.float32)         # (chunk, V)
            target = targets[part, None]
            losses[part] = -log_p.gather(1, target).squeeze(1)
            grad = log_p.exp_()
            grad[torch.arange(len(grad), device=grad.device), targets[part]] -= 1
            grad = grad.mul_(weights[part, None]).to(dtype)
            grad_h[part] = grad @ we_
            if grad_we is None:
                grad_we = (grad.T @ h_[part]).to(we.dtype)
            elif dtype == we.dtype:
                grad_we.addmm_(grad.T, h_[part])
            else:
                grad_we += grad.T @ h_[part]
        ctx.grads = grad_h, grad_we
        ctx.mark_non_differentiable(losses)
        return (weights * losses).sum(), losses

    @staticmethod
    def backward(ctx, grad_sum, _):
        grad_h, grad_we = ctx.grads
        del ctx.grads
        return grad_h.mul_(grad_sum), grad_we.mul_(grad_sum), None, None


class Targets(NamedTuple):
    """What the language model is to predict: L of the R rows have a next token."""
    rows: Tensor            # (L,)  the rows
    ids: Tensor             # (L,)  their next tokens
    sequence: Tensor        # (L,)  the sequence they belong to
    share: Tensor           # (L,)  1 / targets in the sequence, so that shares add up to its mean


def lm_targets(packing: Packing) -> Targets:
    """The next-token targets of a packing in which no rows are shared."""
    sequence = packing.place_of // packing.grid.size(1)                # (R,)  rows of a sequence lie side by side
    rows = (sequence[:-1] == sequence[1:]).nonzero().squeeze(1)
    sequence = sequence[rows]
    return Targets(rows, packing.ids[rows + 1, 0].long(), sequence, 1 / torch.bincount(sequence)[sequence])


def double_head_losses(model, X, M, Y, lm_coef: float):
    """The losses of a training step of `DoubleHeadModel` with the multiple-choice head.

    X (B, K, T, 2) ids, M (B, K, T) 1 on real tokens, Y (B,). Left on the CPU, X and M are packed there, and a GPU
    never has to be waited for. Returns the training loss, which carries the gradient, the classification losses (B,)
    and the language-model losses (B*K,), None where lm_coef is 0.
    """
    transformer, head = model.transformer, model.task_head
    device = transformer.embed.weight.device
    packing = pack(X, M, head.clf_token)
    targets = to_device(lm_targets(packing), device) if lm_coef != 0 else None
    packing = to_device(packing, device)
    we = transformer.dropped_table()
    h = hidden_rows(transformer, packing, we)                          # (R, C)
    clf_logits = head.score(packing.at_clf(h), X.size(1))
    clf_losses = F.cross_entropy(clf_logits, move(Y.long(), device), reduction='none')
    if targets is None:
        return train_loss(clf_losses, None, lm_coef), clf_losses, None
    N = len(packing.row_of)
    lm_loss, losses = WeightedCrossEntropy.apply(F.embedding(targets.rows, h), we, targets.ids, targets.share / N)
    lm_losses = losses.new_zeros(N).index_add_(0, targets.sequence, losses * targets.share)
    return clf_losses.mean() + lm_coef * lm_loss, clf_losses, lm_losses


@torch.no_grad()
def choice_logits(model, X, M):
    """The task logits (B, K) of `DoubleHeadModel` with the multiple-choice head, in evaluation mode.

    Raises ValueError in training mode: with dropout on, choices share nothing.
    """
    if model.training:
        raise ValueError('choice_logits shares states between choices, so the model must be in evaluation mode')
    transformer, head, K = model.transformer, model.task_head, X.size(1)
    packing = to_device(pack(X, M, head.clf_token, share=True), transformer.embed.weight.device)
    rows = hidden_rows(transformer, packing, transformer.embed.weight, n_layer=-1)
    last, C = transformer.h[-1], rows.size(-1)
    w, b = last.attn.c_attn.w, last.attn.c_attn.b
    x = packing.at_clf(rows)                                           # (N, C)
    q = torch.addmm(b[:C], x, w[:, :C]).view(-1, K, C)                 # queries at the classify tokens alone,
    kv = packing.pad(torch.addmm(b[C:], rows, w[:, C:]))               # keys and values everywhere: (B, L, 2C)
    q, k, v = (t.unflatten(-1, (last.attn.n_head, -1)).transpose(1, 2) for t in (q, *kv.chunk(2, dim=-1)))
    seen = packing.seen.squeeze(1).flatten(0, 1)[packing.place_of[packing.clf_row]]          # (N, L)
    a = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.view(len(kv), 1, K, -1))
    n = last.ln_1(x + last.attn.c_proj(last.attn.merge_heads(a)).flatten(0, 1))
    return head.score(last.ln_2(n + last.mlp(n)), K)
