"""OpenAI's first GPT ("Improving Language Understanding by Generative Pre-Training", 2018): the network, its heads,
and the loader for the released weights.

A 12-layer decoder-only transformer: learned positions, layer normalisation after each residual sum, tanh-gelu.
Module and parameter names are those of the TensorFlow variables: `h.0.attn.c_attn.w` is `model/h0/attn/c_attn/w`.

Tokens, special tokens and positions share a single table, `embed`, in that order; a position is looked up as just
another id, and the two embeddings are summed. So a network input `x` has two ids per step:

    x[..., 0] = [ _start_  story ...  _delimiter_  ending ...  _classify_  0 0 ]     token ids
    x[..., 1] = [ V+0      V+1   ...                                       V+T-1 ]   position ids, V = tokens + special

Shapes below: N sequences (batch B times K choices), T steps, C = n_embd, H = n_head, V = rows of the table.
"""

import json
import math
import os
import re

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class dotdict(dict):
    """A dict whose keys are attributes too; an unknown name raises instead of coming back as None."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f'no setting {name!r}: there are {", ".join(self)}') from None

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__


DEFAULT_CONFIG = dotdict(n_embd=768, n_head=12, n_layer=12, embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1,
                         afn='gelu', clf_pdrop=0.1)


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit in its tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return F.gelu(x, approximate='tanh')


ACT_FNS = {'relu': F.relu, 'swish': F.silu, 'gelu': gelu}


class LayerNorm(nn.Module):
    """Normalisation over the last axis, epsilon inside the root, then gain `g` and bias `b`."""

    def __init__(self, n_state: int, e: float = 1e-5):
        super().__init__()
        self.g = nn.Parameter(torch.ones(n_state))
        self.b = nn.Parameter(torch.zeros(n_state))
        self.e = e

    def forward(self, x):
        return F.layer_norm(x, self.g.shape, self.g, self.b, self.e)


class Conv1D(nn.Module):
    """The original's convolution of width 1: x @ w + b with `w` (n_in, n_out), input dimension first."""

    def __init__(self, n_out: int, n_in: int):
        super().__init__()
        self.w = nn.Parameter(torch.empty(n_in, n_out).normal_(std=0.02))
        self.b = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return torch.addmm(self.b, x.reshape(-1, x.size(-1)), self.w).view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Masked multi-head self-attention."""

    def __init__(self, cfg):
        super().__init__()
        if cfg.n_embd % cfg.n_head:
            raise ValueError(f'n_embd={cfg.n_embd} cannot be split into n_head={cfg.n_head} equal heads')
        self.n_head = cfg.n_head
        self.c_attn = Conv1D(3 * cfg.n_embd, cfg.n_embd)
        self.c_proj = Conv1D(cfg.n_embd, cfg.n_embd)
        self.attn_dropout = nn.Dropout(cfg.attn_pdrop)
        self.resid_dropout = nn.Dropout(cfg.resid_pdrop)

    def split_heads(self, qkv):
        """Queries, keys and values side by side (N, T, 3C) -> each (N, H, T, C/H)."""
        N, T, C3 = qkv.shape
        return (t.view(N, T, self.n_head, -1).transpose(1, 2) for t in qkv.split(C3 // 3, dim=2))

    def merge_heads(self, a):
        """(N, H, T, C/H) -> (N, T, C)."""
        return a.transpose(1, 2).flatten(2)

    def attend(self, q, k, v):
        """softmax(q k' / sqrt(C/H)) v, where a step sees itself and the steps before it; all (N, H, T, C/H)."""
        if not (self.training and self.attn_dropout.p > 0):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        w = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))                              # (N, H, T, T)
        future = torch.ones(w.shape[-2:], dtype=torch.bool, device=w.device).triu(1)    # (T, T)
        w = F.softmax(w.masked_fill(future, -1e9), dim=-1)                               # -1e9 as in the original
        return self.attn_dropout(w) @ v

    def forward(self, x):
        q, k, v = self.split_heads(self.c_attn(x))                     # each (N, H, T, C/H)
        return self.resid_dropout(self.c_proj(self.merge_heads(self.attend(q, k, v))))


class MLP(nn.Module):
    """Position-wise feed-forward network, four times as wide inside."""

    def __init__(self, cfg):
        super().__init__()
        if cfg.afn not in ACT_FNS:
            raise ValueError(f'afn={cfg.afn!r} is not an activation: choose from {", ".join(ACT_FNS)}')
        self.c_fc = Conv1D(4 * cfg.n_embd, cfg.n_embd)
        self.c_proj = Conv1D(cfg.n_embd, 4 * cfg.n_embd)
        self.act = ACT_FNS[cfg.afn]
        self.dropout = nn.Dropout(cfg.resid_pdrop)

    def forward(self, x):
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.attn = Attention(cfg)
        self.ln_1 = LayerNorm(cfg.n_embd)
        self.mlp = MLP(cfg)
        self.ln_2 = LayerNorm(cfg.n_embd)

    def forward(self, x):
        n = self.ln_1(x + self.attn(x))
        return self.ln_2(n + self.mlp(n))


class TransformerModel(nn.Module):
    """The network without a head.

    vocab: rows of the table = tokens + special tokens + n_ctx positions. n_ctx: the longest sequence.
    """

    def __init__(self, cfg, vocab: int = 40990, n_ctx: int = 512):
        super().__init__()
        self.vocab, self.n_ctx = vocab, n_ctx
        self.embed = nn.Embedding.from_pretrained(torch.empty(vocab, cfg.n_embd).normal_(std=0.02), freeze=False)
        self.drop = nn.Dropout(cfg.embd_pdrop)
        self.h = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layer))
        self.register_load_state_dict_pre_hook(accept_port_names)

    def dropped_table(self) -> Tensor:
        """The table `we` (V, C) of one step: in training the *whole* of it is dropped out, before the lookup."""
        return self.drop(self.embed.weight)

    def forward(self, x: Tensor, we: Tensor | None = None) -> Tensor:
        """Hidden states of the last block.

        x: (..., T, 2) token and position ids; leading axes are merged. we: the table to look up in, by default a
        fresh `dropped_table()`; give it to decode with the same one. Returns (N, T, C).
        """
        T = x.size(-2)
        if T > self.n_ctx:
            raise ValueError(f'{T} tokens but n_ctx={self.n_ctx}: truncate, or build the model with a larger n_ctx')
        x = x.reshape(-1, T, 2)
        we = self.dropped_table() if we is None else we
        h = F.embedding(x, we).sum(dim=2)                              # (N, T, 2, C) -> (N, T, C)
        for block in self.h:
            h = block(h)
        return h


class LMHead(nn.Module):
    """Language-model logits over all rows of the table, which is also the decoder (tied weights)."""

    def __init__(self, model: TransformerModel, cfg, trunc_and_reshape: bool = True):
        super().__init__()
        self.trunc_and_reshape = trunc_and_reshape
        self.decoder = nn.Linear(cfg.n_embd, model.vocab, bias=False, device='meta')
        self.decoder.weight = model.embed.weight

    def forward(self, h: Tensor, we: Tensor | None = None) -> Tensor:
        """h (N, T, C) -> (N * (T-1), V): the last step predicts nothing; without truncation (N, T, V).

        we: the table of this step (see `TransformerModel.dropped_table`), by default the clean one.
        """
        if self.trunc_and_reshape:
            h = h[:, :-1].flatten(0, 1)
        return F.linear(h, self.decoder.weight if we is None else we)


def states_at(token: int, h: Tensor, x: Tensor) -> Tensor:
    """Hidden state at the first `token` of each sequence: (N, T, C), (..., T, 2) -> (N, C)."""
    ids = x[..., 0].reshape(-1, x.size(-2))                            # (N, T)
    where = (ids == token).int().argmax(-1)                            # (N,)
    return h[torch.arange(len(h), device=h.device), where]


def task_linear(n_in: int, n_out: int) -> nn.Linear:
    """The one new layer of fine-tuning: weight N(0, 0.02), bias 0."""
    linear = nn.Linear(n_in, n_out)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear


class MultipleChoiceHead(nn.Module):
    """One score for each of K choices: h (B*K, T, C), x (B, K, T, 2) -> (B, K)."""

    def __init__(self, clf_token: int, cfg):
        super().__init__()
        self.clf_token = clf_token
        self.dropout = nn.Dropout(cfg.clf_pdrop)
        self.linear = task_linear(cfg.n_embd, 1)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.score(states_at(self.clf_token, h, x), x.size(-3))

    def score(self, clf_h: Tensor, n_choice: int) -> Tensor:
        """Classify-token states (B*K, C) -> (B, K)."""
        clf_h = clf_h.unflatten(0, (-1, n_choice))                     # (B, K, C)
        # one mask per example, shared by its choices, so that dropout cannot favour a choice
        mask = self.dropout(torch.ones_like(clf_h[:, :1]))             # (B, 1, C)
        return self.linear(clf_h * mask).squeeze(-1)


class ClfHead(nn.Module):
    """Classification of one sequence: h (B, T, C), x (B, T, 2) or (B, 1, T, 2) -> (B, n_class)."""

    def __init__(self, clf_token: int, cfg, n_class: int):
        super().__init__()
        self.clf_token = clf_token
        self.dropout = nn.Dropout(cfg.clf_pdrop)
        self.linear = task_linear(cfg.n_embd, n_class)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.score(states_at(self.clf_token, h, x))

    def score(self, clf_h: Tensor, n_choice: int = 1) -> Tensor:
        """Classify-token states (B, C) -> (B, n_class)."""
        return self.linear(self.dropout(clf_h))


class SimilarityHead(nn.Module):
    """Similarity of two texts given in both orders: h (2B, T, C), x (B, 2, T, 2) -> (B, n_class).

    The states of the two orders are added, then one linear layer (paper, section 3.3).
    """

    def __init__(self, clf_token: int, cfg, n_class: int = 1):
        super().__init__()
        self.clf_token = clf_token
        self.dropout = nn.Dropout(cfg.clf_pdrop)
        self.linear = task_linear(cfg.n_embd, n_class)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.score(states_at(self.clf_token, h, x))

    def score(self, clf_h: Tensor, n_choice: int = 2) -> Tensor:
        """Classify-token states (B*2, C) -> (B, n_class)."""
        return self.linear(self.dropout(clf_h.unflatten(0, (-1, 2)).sum(dim=1)))


class LMModel(nn.Module):
    """Transformer with the language-model head: x (..., T, 2) -> logits, or next-token probabilities, (N, T, V).

    Probabilities are zero for the n_ctx position rows, which are no tokens.
    """

    def __init__(self, cfg, vocab: int = 40990, n_ctx: int = 512, return_probs: bool = False):
        super().__init__()
        self.transformer = TransformerModel(cfg, vocab=vocab, n_ctx=n_ctx)
        self.lm_head = LMHead(self.transformer, cfg, trunc_and_reshape=False)
        self.return_probs = return_probs
        self.register_load_state_dict_pre_hook(accept_port_names)

    def forward(self, x: Tensor) -> Tensor:
        we = self.transformer.dropped_table()
        lm_logits = self.lm_head(self.transformer(x, we), we)
        if not self.return_probs:
            return lm_logits
        is_position = torch.arange(lm_logits.size(-1), device=x.device) >= lm_logits.size(-1) - self.transformer.n_ctx
        return F.softmax(lm_logits.masked_fill(is_position, -torch.inf), dim=-1)


class DoubleHeadModel(nn.Module):
    """Transformer with a language-model head and a task head: x -> (lm_logits, task_logits).

    task_head_type: 'multiple_choice', 'similarity', 'inference' (three classes) or ('classification', n_class).
    Both heads and the lookup share one draw of the embedding dropout, as in the original's `model`.
    """

    def __init__(self, cfg, clf_token: int, task_head_type, vocab: int = 40990, n_ctx: int = 512):
        super().__init__()
        self.transformer = TransformerModel(cfg, vocab=vocab, n_ctx=n_ctx)
        self.lm_head = LMHead(self.transformer, cfg)
        if task_head_type == 'multiple_choice':
            self.task_head = MultipleChoiceHead(clf_token, cfg)
        elif task_head_type == 'similarity':
            self.task_head = SimilarityHead(clf_token, cfg)
        elif task_head_type == 'inference':
            self.task_head = ClfHead(clf_token, cfg, n_class=3)        # entailment, contradiction, neutral
        elif not isinstance(task_head_type, str) and tuple(task_head_type)[:1] == ('classification',):
            _, n_class = task_head_type
            self.task_head = ClfHead(clf_token, cfg, n_class)
        elif not isinstance(task_head_type, str) and tuple(task_head_type)[:1] == ('similarity',):
            _, n_class = task_head_type
            self.task_head = SimilarityHead(clf_token, cfg, n_class)
        else:
            raise ValueError(f"task_head_type={task_head_type!r}: give 'multiple_choice', 'similarity', 'inference' "
                             "or ('classification', n_class)")
        self.register_load_state_dict_pre_hook(accept_port_names)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        we = self.transformer.dropped_table()
        h = self.transformer(x, we)
        return self.lm_head(h, we), self.task_head(h, x)


def accept_port_names(module, state_dict, prefix, *_):
    """Load state dicts of the earlier PyTorch port: no `module.` prefix, no mask buffers.

    A pre-hook of `load_state_dict`; it works on the copy of the dict that torch makes.
    """
    for name in list(state_dict):
        if not prefix and name.startswith('module.'):
            state_dict[name.removeprefix('module.')] = state_dict.pop(name)
    for name in list(state_dict):
        if re.search(r'(^|\.)h\.\d+\.attn\.b$|(^|\.)pos_emb_mask$', name):
            del state_dict[name]


# The released weights: ten one-dimensional chunks of one flat float32 vector that holds, one after the other, the
# positions, the tokens and twelve arrays a block; params_shapes.json lists their shapes.

N_SHARDS = 10
BLOCK_PARAMS = ('attn.c_attn.w', 'attn.c_attn.b', 'attn.c_proj.w', 'attn.c_proj.b', 'ln_1.g', 'ln_1.b',
                'mlp.c_fc.w', 'mlp.c_fc.b', 'mlp.c_proj.w', 'mlp.c_proj.b', 'ln_2.g', 'ln_2.b')
HOW_TO_GET = 'python model/download.py fetches the released files'


def read_shapes(path: str) -> list[list[int]]:
    """The array shapes in `path`/params_shapes.json, checked to be positions, tokens and twelve arrays a block."""
    name = os.path.join(path, 'params_shapes.json')
    if not os.path.isfile(name):
        raise FileNotFoundError(f'{name} is missing: {HOW_TO_GET}')
    try:
        with open(name, encoding='utf-8') as f:
            shapes = json.load(f)
        C = shapes[0][1]
        block = [[1, C, 3 * C], [3 * C], [1, C, C], [C], [C], [C], [1, C, 4 * C], [4 * C], [1, 4 * C, C], [C], [C], [C]]
        n_layer = (len(shapes) - 2) // 12
        assert shapes == [[shapes[0][0], C], [shapes[1][0], C]] + block * n_layer
        assert all(isinstance(n, int) and n > 0 for shape in shapes for n in shape)
    except (ValueError, LookupError, TypeError, AssertionError):
        raise ValueError(f'{name} does not list the shapes of a released model (positions, tokens, '
                         f'12 arrays a block): {HOW_TO_GET}') from None
    return shapes


def open_shards(path: str, n_total: int) -> list[np.ndarray]:
    """The ten shards as memory maps, checked to be pieces of `n_total` float32 numbers; nothing is read yet."""
    lengths = [len(piece) for piece in np.array_split(np.empty(n_total, dtype=np.bool_), N_SHARDS)]
    shards = []
    for i, length in enumerate(lengths):
        name = os.path.join(path, f'params_{i}.npy')
        if not os.path.isfile(name):
            raise FileNotFoundError(f'{name} is missing: {HOW_TO_GET}')
        try:
            shard = np.lib.format.open_memmap(name, mode='r')          # never unpickles
        except Exception as e:                                         # a damaged header raises a dozen kinds
            reason = (str(e) or type(e).__name__).splitlines()[0][:80]
            raise ValueError(f'{name} is truncated or not a plain numpy array ({reason}): {HOW_TO_GET}') from None
        if shard.dtype != np.float32 or shard.shape != (length,):
            raise ValueError(f'{name} holds {shard.dtype} {list(shard.shape)}, params_shapes.json wants float32 '
                             f'[{length}]: the files do not belong together, or were swapped; {HOW_TO_GET}')
        shards.append(shard)
    return shards


@torch.no_grad()
def load_openai_pretrained_model(model, n_ctx=-1, n_special=-1, n_transfer=12, n_embd=768, path='./model/',
                                 path_names='./'):
    """Copy the released weights into `model`, as the original's train.py does.

    model: a TransformerModel, or a model that has one as `.transformer`. n_ctx: how many positions to keep (-1: all
    that are stored). n_special: rows between tokens and positions (-1: none), drawn N(0, 0.02) from NumPy's global
    generator. n_transfer: blocks to initialise, besides the embeddings (more than there are: all; -1: nothing at all,
    though the special rows are still drawn, so that batches are the same). path: the folder with params_*.npy.
    n_embd and path_names are the port's; the model itself says what they said.

    Each shard is read straight into the parameters, so no second copy of the model is ever in memory.
    Raises ValueError or FileNotFoundError, before anything is copied, where the files are not those of such a model.
    """
    model = getattr(model, 'transformer', model)
    we, n_embd = model.embed.weight, model.embed.weight.size(1)
    special = (np.random.randn(max(n_special, 0), n_embd) * 0.02).astype(np.float32)
    if n_transfer == -1:
        return
    if n_transfer < -1:
        raise ValueError(f'n_transfer={n_transfer}: give a number of blocks, or -1 for none and no embeddings')
    shapes = read_shapes(path)
    (n_stored, n_embd_stored), (n_vocab, _) = shapes[:2]
    n_ctx = n_stored if n_ctx == -1 else n_ctx
    n_blocks = min(n_transfer, len(model.h))
    if n_embd_stored != n_embd:
        raise ValueError(f'{path}: weights are {n_embd_stored} wide, model has n_embd={n_embd}: build it with '
                         f'n_embd={n_embd_stored}')
    if n_ctx > n_stored:
        raise ValueError(f'{path}: checkpoint has {n_stored} positions, model wants n_ctx={n_ctx}: '
                         f'pass n_ctx <= {n_stored}')
    if n_vocab + len(special) + n_ctx != len(we):
        raise ValueError(f'{path}: {n_vocab} tokens + {len(special)} special + {n_ctx} positions stored, but the model '
                         f'has a table of {len(we)} rows: give n_special and n_ctx that add up')
    if 12 * n_blocks > len(shapes) - 2:
        raise ValueError(f'{path}: checkpoint has {(len(shapes) - 2) // 12} blocks, model wants {n_blocks}: build it '
                         'with fewer (n_layer), or transfer fewer (n_transfer)')
    params = dict(model.named_parameters())
    names = [f'h.{i}.{name}' for i in range(n_blocks) for name in BLOCK_PARAMS]
    targets = [we[n_vocab + len(special):], we[:n_vocab], *(params[name] for name in names)]
    sizes = [math.prod(shape) for shape in shapes]
    shards = open_shards(path, sum(sizes))
    we[n_vocab:n_vocab + len(special)].copy_(torch.from_numpy(special))

    ends = np.cumsum(sizes)                                            # where each array ends in the flat vector
    start = 0                                                          # where this shard starts in it
    for i in range(N_SHARDS):
        shard, shards[i] = shards[i], None                             # unmapped as soon as it has been copied
        with np.errstate(all='ignore'):
            finite = np.isfinite(shard.sum())                          # NaN and infinity survive a sum
        if not finite:
            raise ValueError(f'{os.path.join(path, f"params_{i}.npy")} holds numbers that are not finite: {HOW_TO_GET}')
        for target, size, end in zip(targets, sizes, ends, strict=False):
            lo, hi = max(start, end - size), min(start + len(shard), end - size + target.numel())
            if lo < hi:                                                # this shard holds a piece of this array
                piece = torch.from_numpy(np.array(shard[lo - start:hi - start]))
                target.view(-1)[lo - (end - size):hi - (end - size)].copy_(piece)
        start += len(shard)
    for name in names:
        if name.endswith('.g') and (params[name] > 0).float().mean() < 0.7:
            raise ValueError(f'{path}: the layer-norm gains {name} are not mostly positive, so shards were swapped or '
                             f'belong to another model: {HOW_TO_GET}')


@torch.no_grad()
def save_openai_pretrained_model(model, path, n_special=0):
    """Write the weights of `model` into the folder `path` in the layout of the release, for the loader above.

    model: a TransformerModel, or a model that has one as `.transformer`. n_special: rows between tokens and positions,
    which are left out. One shard at a time is copied, and every file is written whole.
    """
    model = getattr(model, 'transformer', model)
    we, params = model.embed.weight, dict(model.named_parameters())
    names = [f'h.{i}.{name}' for i in range(len(model.h)) for name in BLOCK_PARAMS]
    arrays = [we[-model.n_ctx:], we[:len(we) - model.n_ctx - n_special], *(params[name] for name in names)]
    shapes = [list(array.shape) for array in arrays[:2]]
    shapes += [[1] * name.endswith('.w') + list(params[name].shape) for name in names]     # convolutions of width 1
    flat = [array.reshape(-1) for array in arrays]
    starts = np.cumsum([0, *map(len, flat)])
    os.makedirs(path, exist_ok=True)
    lo = 0
    for i, numbers in enumerate(np.array_split(np.empty(starts[-1], dtype=np.bool_), N_SHARDS)):
        hi = lo + len(numbers)
        pieces = [piece[max(lo - start, 0):max(hi - start, 0)] for piece, start in zip(flat, starts, strict=False)]
        shard = torch.cat(pieces).float().cpu().numpy()
        write_file(os.path.join(path, f'params_{i}.npy'), lambda f, shard=shard: np.save(f, shard))
        lo = hi
    write_file(os.path.join(path, 'params_shapes.json'), lambda f: f.write(json.dumps(shapes).encode()))


def write_file(name, write):
    """Call `write` on a temporary file beside `name`, then give it that name."""
    try:
        with open(f'{name}.part', 'wb') as f:
            write(f)
        os.replace(f'{name}.part', name)
    finally:
        if os.path.exists(f'{name}.part'):
            os.remove(f'{name}.part')
