"""The results of `model_pytorch.py` and `loss.py` with less arithmetic: train.py trains and evaluates with this file.

`model_pytorch.py` is the network to read, and `train.py --plain` runs it. This file leaves out only work on which no
result depends, so without dropout it has the same numbers up to rounding, and tests hold the two together:

- No real token attends to padding. Only attention computes on it.
- The loss needs the logits of the language model at real tokens alone. They are made there, a few rows at a time.
- A prediction needs the last block at the classify token alone.
- The common beginning of the choices of an example is evaluated once: without dropout, causal attention gives it the
  same states in each choice.
- Dropout draws only the positions of its zeros: other random numbers than torch's, with the same distribution.
- On a CPU attention makes fewer passes over its scores.

A *row* is one real token: all layers but attention work on rows (R, C). A *slot* is a cell of a padded grid (G, L):
attention works on slots, on each line of the grid separately. There are two layouts, here for one example, the story
s1 s2 s3 with the endings a1 a2 and b1 (without special tokens):

                   rows and their numbers        grid: the row in each slot
    pack           s1 s2 s3 a1 a2 s1 s2 s3 b1    0 1 2 3 4      one line for each sequence;
                    0  1  2  3  4  5  6  7  8    5 6 7 8 8      the second 8 is padding
    pack_shared    s1 s2 s3 a1 a2 b1             0 1 2 3 4 5    one line for each example;
                    0  1  2  3  4  5                            b1 sees the rows 0 1 2 5, and not 3 4
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import model_pytorch
from common.cpu import add_product, gelu_of_product, product, product_dtype
from loss import task_losses, train_loss
from model_pytorch import gelu

LM_CHUNK = 256  # rows of language-model logits in memory at a time
SHORT = 128  # tokens; for sequences up to this length torch's fused attention is slower than `attend` on a CPU


class Packing(NamedTuple):
    """R rows of N = B * K sequences of at most T tokens, and a grid of G lines of L slots. A slot of padding holds the
    number of some row; no real token sees that slot."""
    ids: Tensor  # (R, 2)  token and position id of each row
    row_of: Tensor  # (N, T)  the row of each token
    clf_row: Tensor  # (N,)  the row of each classify token
    grid: Tensor  # (G, L)  the row in each slot
    slot_of: Tensor  # (R,)  the slot of each row: line * L + column
    visible: Tensor | None  # (G, 1, L, L)  the slots that each slot sees; None: itself and all before it

    # F.embedding(index, rows) is rows[index]; on a CPU its backward pass is faster than that of indexing.
    def to_slots(self, rows):
        return F.embedding(self.grid, rows)  # (R, C) -> (G, L, C)

    def to_rows(self, slots):
        return F.embedding(self.slot_of, slots.flatten(0, 1))  # (G, L, C) -> (R, C)

    def visible_at_clf(self):
        """The slots that each classify token sees, in its line of the grid: (N, L), bool"""
        slot, L = self.slot_of[self.clf_row], self.grid.size(1)  # (N,)
        if self.visible is None:
            return torch.arange(L, device=slot.device) <= (slot % L)[:, None]
        return self.visible.flatten(0, 2)[slot]  # (G, 1, L, L) -> (G * L, L) -> (N, L)


def pack(X: Tensor, M: Tensor, clf_token: int) -> Packing:
    """The layout for training: each real token is a row, and the grid (N, T) is that of X, a line for each sequence.

    X (B, K, T, 2) ids, M (B, K, T) 1 on real tokens. Raises ValueError for other shapes, and if M is anything but ones,
    which include the classify token, followed by zeros.
    """
    X, real, clf_step = cut_to_longest(X, M, clf_token)  # (B, K, T, 2), (B, K, T), (B, K, 1)
    row_of = row_numbers(real)  # (B, K, T)
    grid, clf_row = row_of.flatten(0, 1), row_of.gather(-1, clf_step).flatten()  # (N, T), (N,)
    return Packing(X[real], grid, clf_row, grid, real.flatten().nonzero().squeeze(1), None)


def pack_shared(X: Tensor, M: Tensor, clf_token: int) -> Packing:
    """The layout for evaluation: the common beginning of several choices is in the rows once, and each example is a
    line of the grid. A choice sees its own tokens and no others. Arguments and errors as in `pack`.
    """
    X, real, clf_step = cut_to_longest(X, M, clf_token)  # (B, K, T, 2), (B, K, T), (B, K, 1)
    alike = (X[:, :, None] == X[:, None]).all(-1) & (real[:, :, None] == real[:, None])  # (B, K, K, T)
    first = alike.int().cumprod(-1).argmax(2)  # (B, K, T)  the first choice with this beginning
    has_row = real & (first == torch.arange(X.size(1), device=X.device)[:, None])  # (B, K, T)
    row_of = row_numbers(has_row).gather(1, first)  # (B, K, T)
    example, choice, step = has_row.nonzero().unbind(1)  # each (R,)
    n_rows = has_row.sum((1, 2))  # (B,)
    filled = torch.arange(int(n_rows.max()), device=X.device) < n_rows[:, None]  # (B, L)
    grid = row_numbers(filled)  # (B, L)
    line = torch.arange(len(X), device=X.device)[:, None]  # (B, 1)
    sees = row_of.transpose(1, 2)[line, step[grid]] == grid[:, :, None]  # (B, L, K)  the choices that have the slot
    visible = sees.transpose(1, 2)[line, choice[grid]]  # (B, L, L)  by the choice of each slot
    return Packing(X[has_row], row_of.flatten(0, 1), row_of.gather(-1, clf_step).flatten(), grid,
                   filled.flatten().nonzero().squeeze(1), visible.tril()[:, None])


def cut_to_longest(X, M, clf_token):
    """Drop the steps that are padding everywhere: X (B, K, T, 2), M as bool (B, K, T), classify steps (B, K, 1)."""
    if X.ndim != 4 or X.size(-1) != 2 or X.shape[:-1] != M.shape:
        raise ValueError(f'X {tuple(X.shape)} and M {tuple(M.shape)}: must be (B, K, T, 2) and (B, K, T)')
    real = M.bool()  # (B, K, T)
    is_clf = (X[..., 0] == clf_token) | (clf_token < 0)  # (B, K, T)  -1: there is none
    if (real[..., 1:] > real[..., :-1]).any() or not (is_clf & real).any(-1).all():
        raise ValueError('M must have ones and then zeros in each sequence, and the classify token under a one')
    T = int(real.sum(-1).max())
    return X[:, :, :T], real[:, :, :T], is_clf.int().argmax(-1, keepdim=True)


def row_numbers(mask):
    """The numbers 0, 1, 2 and so on where the mask is True, elsewhere the number of the last True before it."""
    return (mask.flatten().cumsum(0) - 1).view_as(mask)


def move(tensor, device):
    """The tensor on `device`. It is copied from pinned memory, so that the CPU does not wait for the GPU."""
    if device.type == 'cuda' and tensor.device.type == 'cpu':
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_device(tensors, device):
    """The same named tuple of tensors, on `device`."""
    return type(tensors)(*(t if t is None else move(t, device) for t in tensors))


class Dropout(nn.Dropout):
    """nn.Dropout that draws the positions of the zeros, where nn.Dropout draws one number for each element.

    The distribution is the same. At rate 0.1 this saves a sixth of a training step on a CPU, and no mask of the size of
    the input is kept. On a GPU, and at rates above 0.5, it does what nn.Dropout does.
    """

    def forward(self, x):
        if not self.training or not 0 < self.p <= 0.5 or x.device.type != 'cpu':
            return super().forward(x)
        return ZeroAt.apply(x, dropped_positions(x.numel(), self.p), 1 / (1 - self.p))


def dropped_positions(n: int, p: float) -> Tensor:
    """Positions of the dropped ones among n numbers, each dropped with probability p: their gaps are geometric."""
    n_draws = int(n * p + 6 * math.sqrt(n * p)) + 6  # too few with a probability of about 1e-9
    ends = torch.zeros(1, dtype=torch.float64)
    while ends[-1] <= n:
        ends = torch.cat([ends, ends[-1] + torch.empty(n_draws, dtype=torch.float64).geometric_(p).cumsum(0)])
    return ends[1:torch.searchsorted(ends, n, right=True)].long() - 1


class ZeroAt(torch.autograd.Function):
    """x * scale, with zeros at the given positions of the flat x."""

    @staticmethod
    def forward(ctx, x, positions, scale):
        ctx.save_for_backward(positions.int() if x.numel() < 2 ** 31 else positions)  # of half the size
        ctx.scale = scale
        out = torch.mul(x.contiguous(), scale)
        out.view(-1).index_fill_(0, positions, 0)
        return out

    @staticmethod
    def backward(ctx, grad):
        [positions] = ctx.saved_tensors
        return ZeroAt.apply(grad, positions.long(), ctx.scale), None, None


class Conv1D(nn.Module):
    """The layer `model_pytorch.Conv1D` with the same parameters, by the faster library, which cpu.py chooses."""

    def __init__(self, conv: model_pytorch.Conv1D):
        super().__init__()
        self.w, self.b = conv.w, conv.b

    def forward(self, x):
        return product(x.flatten(0, -2), self.w, self.b).view(*x.shape[:-1], -1)


class Attention(model_pytorch.Attention):
    """The layer `model_pytorch.Attention` with the same parameters, which calls `attend`."""

    def __init__(self, attn: model_pytorch.Attention):
        nn.Module.__init__(self)
        self.__dict__.update(attn.__dict__)

    def attend(self, q, k, v):
        return attend(self, q, k, v)


def attend(attn, q, k, v, visible=None):
    """`Attention.attend` of a layer with scale, in fewer passes over the scores. visible: see `Packing`.

    Torch's fused attention keeps no scores, but on a CPU it is faster only in float32, for long sequences and without
    dropout. In bfloat16 its backward pass takes two to four times as long as this.
    """
    drops, L = attn.training and attn.attn_dropout.p > 0, q.size(2)
    if drops and q.device.type != 'cpu':
        return model_pytorch.Attention.attend(attn, q, k, v)
    if not drops and (q.device.type != 'cpu' or q.dtype == torch.float32 and L > SHORT):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None)
    if visible is None:
        visible = torch.ones(L, L, dtype=torch.bool).tril()
    low = max(-1e9, torch.finfo(q.dtype).min)  # as in `Attention.attend`
    hidden = torch.zeros(visible.shape, dtype=q.dtype).masked_fill_(~visible, low)  # adding is faster than filling
    w = (q @ k.transpose(-2, -1)).div_(math.sqrt(q.size(-1))).add_(hidden).softmax(-1)  # (G, H, L, L)
    return attn.attn_dropout(w) @ v


class MLP(nn.Module):
    """The layer `model_pytorch.MLP` with gelu and the same parameters."""

    def __init__(self, mlp: model_pytorch.MLP):
        super().__init__()
        self.c_fc, self.c_proj, self.dropout = mlp.c_fc, mlp.c_proj, mlp.dropout

    def forward(self, x):
        rows = x.flatten(0, -2)  # (R, C)
        if torch.is_grad_enabled():
            out = GeluProduct.apply(self.c_fc(rows), self.c_proj.w, self.c_proj.b)
        else:
            out = self.c_proj(gelu_of_product(rows, self.c_fc.w, self.c_fc.b))
        return self.dropout(out).view(x.shape)


class GeluProduct(torch.autograd.Function):
    """gelu(x) @ w + b, which keeps x alone for the backward pass and computes gelu(x) again there. That saves a fifth
    of the memory that a block keeps, and takes 1 % of the time of a training step."""

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return product(gelu(x), w, b)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        grad_x = torch.ops.aten.gelu_backward(product(grad, w.T.to(grad.dtype)), x, approximate='tanh')
        return grad_x, product(gelu(x).T, grad).to(w.dtype), grad.sum(0).to(w.dtype)


def use_fast_layers(model):
    """Replace each nn.Dropout, convolution, attention with scale and MLP with gelu in a model by one of this file, with
    the same rate, mode and parameters; returns the model."""
    for parent in reversed(list(model.modules())):  # an MLP after its own layers
        for name, child in list(parent.named_children()):
            layer = None
            if type(child) is nn.Dropout:
                layer = Dropout(child.p)
            elif type(child) is model_pytorch.Conv1D:
                layer = Conv1D(child)
            elif type(child) is model_pytorch.Attention and child.scale:
                layer = Attention(child)
            elif type(child) is model_pytorch.MLP and child.act is gelu:
                layer = MLP(child)
            if layer:
                layer.training = child.training  # .train() would change the layers inside too
                setattr(parent, name, layer)
    return model


def attention(attn, rows, packing):
    """`Attention.forward` on rows (R, C)."""
    q, k, v = attn.split_heads(packing.to_slots(attn.c_attn(rows)))  # each (G, H, L, C/H)
    a = attend(attn, q, k, v, packing.visible)  # (G, H, L, C/H)
    return attn.resid_dropout(attn.c_proj(packing.to_rows(attn.merge_heads(a))))


def hidden_rows(transformer, packing, we, n_layer=None):
    """`TransformerModel.forward` on rows, with the table we (V, C), through n_layer blocks, by default all: (R, C)."""
    h = model_pytorch.look_up(packing.ids, we)  # (R, C)
    for block in transformer.h[:n_layer]:
        n = block.ln_1(h + attention(block.attn, h, packing))
        h = block.ln_2(n + block.mlp(n))
    return h


def block_at_clf(block, rows, packing):
    """`Block.forward` without dropout on rows (R, C), only for the classify tokens: (N, C)."""
    w, b, C = block.attn.c_attn.w, block.attn.c_attn.b, rows.size(1)
    G, L = packing.grid.shape
    x = F.embedding(packing.clf_row, rows)  # (N, C)
    q = product(x, w[:, :C], b[:C]).view(G, -1, C)  # (G, N/G, C)
    k, v = packing.to_slots(product(rows, w[:, C:], b[C:])).chunk(2, dim=-1)  # each (G, L, C)
    q, k, v = (t.unflatten(-1, (block.attn.n_head, -1)).transpose(1, 2) for t in (q, k, v))
    visible = packing.visible_at_clf().view(G, 1, -1, L)  # (G, 1, N/G, L)
    a = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (G, H, N/G, C/H)
    n = block.ln_1(x + block.attn.c_proj(block.attn.merge_heads(a)).flatten(0, 1))  # (N, C)
    return block.ln_2(n + block.mlp(n))


class WeightedCrossEntropy(torch.autograd.Function):
    """sum(weights * cross entropy of h @ we.T), with logits and gradients made chunk by chunk in the forward pass.

    h (R, C), we (V, C), targets (R,), weights (R,) -> the sum, and the losses (R,), which carry no gradient. Products
    are in the dtype of autocast, softmax and kept gradients in float32. The backward pass can run only once.
    """

    @staticmethod
    def forward(ctx, h, we, targets, weights):
        dtype = product_dtype(h)
        wide = torch.promote_types(h.dtype, torch.float32)
        h_, we_ = h.to(dtype), we.to(dtype)  # (R, C), (V, C)
        # the size of the weights is applied in the backward pass: times small weights, float16 gradients underflow
        scale = weights.abs().max().clamp(min=1e-30) if len(weights) else weights.new_ones(())
        shares = (weights / scale)[:, None]  # (R, 1)
        weighted_h = (h_ * shares).to(dtype)  # (R, C)
        grad_h, grad_we = torch.empty_like(h, dtype=wide), torch.zeros_like(we, dtype=wide)  # (R, C), (V, C)
        losses = torch.empty_like(weights, dtype=wide)  # (R,)
        wants_gradients = any(ctx.needs_input_grad[:2])
        n_chunks = max(math.ceil(len(h) / LM_CHUNK), 1)
        for lo, hi in pairwise(len(h) * i // n_chunks for i in range(n_chunks + 1)):  # of equal length
            logits = product(h_[lo:hi], we_.T)  # (chunk, V)
            probs = logits.softmax(1, dtype=wide)  # (chunk, V)
            at_target = torch.arange(hi - lo, device=h.device), targets[lo:hi]
            # - log p of the target by way of the largest p of its row, because the target's may underflow
            losses[lo:hi] = logits.amax(1).to(wide) - logits[at_target] - probs.amax(1).log()
            if not wants_gradients:  # as in validation
                continue
            probs[at_target] -= 1  # now the gradient of the logits
            grad = probs.to(dtype)
            grad_h[lo:hi] = product(grad, we_)
            add_product(grad_we, grad.T, weighted_h[lo:hi])
            del logits, probs, grad  # or they would stay while the next ones are made
        grad_h.mul_(shares)
        ctx.grads = grad_h, grad_we, scale
        ctx.mark_non_differentiable(losses)
        return (weights * losses).sum(), losses

    @staticmethod
    def backward(ctx, grad_sum, _):
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError('the loss of fast.py has no second derivative: model_pytorch.py and loss.py have')
        grad_h, grad_we, scale = ctx.grads
        del ctx.grads
        return grad_h.mul_(grad_sum * scale), grad_we.mul_(grad_sum * scale), None, None


def lm_targets(packing):
    """The rows of a `pack` that have a next token, these next tokens, the sequences that they belong to, and weights,
    1 / number of targets in the sequence: each (L,)."""
    sequence = packing.slot_of // packing.grid.size(1)  # (R,)
    rows = (sequence[:-1] == sequence[1:]).nonzero().squeeze(1)  # (L,)  rows of a sequence lie side by side
    sequence = sequence[rows]  # (L,)
    return rows, packing.ids[rows + 1, 0].long(), sequence, 1 / torch.bincount(sequence)[sequence]


def double_head_losses(model, X, M, Y, lm_coef: float):
    """The losses of a training step of `DoubleHeadModel`, with any head.

    X (B, K, T, 2) ids, M (B, K, T) 1 on real tokens: K choices, the two orders of a pair, or one text. Y (B,): class
    numbers if integer, numbers to predict if floating. Leave all three on the CPU, which then does not wait for a GPU.
    Returns the training loss, which carries the gradient, the losses of the task (B,) and those of the language model
    (B*K,), None where lm_coef is 0. Raises ValueError as `pack` and `task_losses` do.
    """
    head, we = model.task_head, model.transformer.dropped_table()  # we (V, C)
    packed = pack(X, M, head.clf_token)
    packing = to_device(packed, we.device)
    h = hidden_rows(model.transformer, packing, we)  # (R, C)
    logits = head.score(F.embedding(packing.clf_row, h), X.size(1))  # (B, n_out)
    clf_losses = task_losses(logits, move(torch.as_tensor(Y), we.device))
    if lm_coef == 0:
        return train_loss(clf_losses, None, lm_coef), clf_losses, None
    rows, tokens, sequence, weights = (move(t, we.device) for t in lm_targets(packed))  # each (L,)
    N = len(packing.row_of)
    lm_loss, losses = WeightedCrossEntropy.apply(F.embedding(rows, h), we, tokens, weights / N)
    lm_losses = losses.new_zeros(N).index_add_(0, sequence, losses * weights)
    return train_loss(clf_losses, lm_loss, lm_coef), clf_losses, lm_losses  # lm_loss is lm_losses.mean()


def check_evaluates(model):
    """Raise ValueError for a model in training mode, which would draw dropout."""
    if model.training:
        raise ValueError('the model is in training mode, with dropout: call its eval() first')


@torch.no_grad()
def task_logits(model, X, M):
    """The logits (B, n_out) of any head of `DoubleHeadModel`. Raises ValueError in training mode and as `pack` does."""
    check_evaluates(model)
    transformer, head = model.transformer, model.task_head
    # both orders of a pair differ from their second token on: sharing would only make lines of twice the length
    share = isinstance(head, model_pytorch.MultipleChoiceHead) and X.size(1) > 1
    packing = pack_shared(X, M, head.clf_token) if share else pack(X, M, head.clf_token)
    we = transformer.embed.weight  # (V, C)
    packing = to_device(packing, we.device)
    rows = hidden_rows(transformer, packing, we, n_layer=len(transformer.h) - 1)  # (R, C)
    return head.score(block_at_clf(transformer.h[-1], rows, packing), X.size(1))
