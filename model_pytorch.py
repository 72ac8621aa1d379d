"""OpenAI's first GPT ("Improving Language Understanding by Generative Pre-Training", 2018): the network, its heads,
and the loader for the released weights.

A 12-layer decoder-only transformer: learned positions, layer normalisation after each residual sum, tanh-gelu.
Module and parameter names are those of the TensorFlow variables: `h.0.attn.c_attn.w` is `model/h0/attn/c_attn/w`.

Tokens, special tokens and positions share a single table, `embed`, in that order; a position is looked up as just
another id, and the two embeddings are summed. So a network input `x` has two ids per step:

    x[..., 0] = [ _start_  story ...  _delimiter_  ending ...  _classify_  0 0 ]     token ids
    x[..., 1] = [ n+0      n+1   ...                                       n+T-1 ]   position ids, n = tokens + special

Shapes below: N sequences (batch B times K choices), T steps (positions in a sequence), C = n_embd, H = n_head, V = rows
of the table. "The original" is OpenAI's TensorFlow code, "the port" huggingface/pytorch-openai-transformer-lm.

train.py computes the same numbers through fast.py; `train.py --plain` runs this file as written. pretrain.py runs
`TransformerModel` below, with dropout and loss of fast.py.
"""

import json
import math
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from utils import how_to_get, write_whole


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


swish = F.silu                              # x * sigmoid(x)
ACT_FNS = {'relu': F.relu, 'swish': swish, 'gelu': gelu}


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
    """The original's convolution, of width rf = 1: x @ w + b with `w` (nx, nf), input dimension first."""

    def __init__(self, nf: int, rf: int, nx: int):
        super().__init__()
        if rf != 1:
            raise ValueError(f'rf={rf}: the network has convolutions of width 1 only')
        self.w = nn.Parameter(torch.empty(nx, nf).normal_(std=0.02))
        self.b = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return torch.addmm(self.b, x.reshape(-1, x.size(-1)), self.w).view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Masked multi-head self-attention, nx wide. n_ctx: ignored; kept so that calls written for the port work."""

    def __init__(self, nx: int, n_ctx: int, cfg, scale: bool = False):
        super().__init__()
        if nx % cfg.n_head:
            raise ValueError(f'n_embd={nx} cannot be split into n_head={cfg.n_head} equal heads')
        self.n_head, self.scale = cfg.n_head, scale
        self.c_attn = Conv1D(3 * nx, 1, nx)
        self.c_proj = Conv1D(nx, 1, nx)
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
        if not self.scale:
            q = q * math.sqrt(q.size(-1))                              # undoes the division below, as the port asks
        if not (self.training and self.attn_dropout.p > 0):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        w = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))                              # (N, H, T, T)
        future = torch.ones(w.shape[-2:], dtype=torch.bool, device=w.device).triu(1)    # (T, T)
        low = max(-1e9, torch.finfo(w.dtype).min)                      # -1e9 as in the original, -65504 in float16
        w = F.softmax(w.masked_fill(future, low), dim=-1)
        return self.attn_dropout(w) @ v

    def forward(self, x):
        q, k, v = self.split_heads(self.c_attn(x))                     # each (N, H, T, C/H)
        return self.resid_dropout(self.c_proj(self.merge_heads(self.attend(q, k, v))))


class MLP(nn.Module):
    """Position-wise feed-forward network, n_state wide inside (4 C in a block)."""

    def __init__(self, n_state: int, cfg):
        super().__init__()
        if cfg.afn not in ACT_FNS:
            raise ValueError(f'afn={cfg.afn!r} is not an activation: choose from {", ".join(ACT_FNS)}')
        self.c_fc = Conv1D(n_state, 1, cfg.n_embd)
        self.c_proj = Conv1D(cfg.n_embd, 1, n_state)
        self.act = ACT_FNS[cfg.afn]
        self.dropout = nn.Dropout(cfg.resid_pdrop)

    def forward(self, x):
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, n_ctx: int, cfg, scale: bool = False):
        super().__init__()
        self.attn = Attention(cfg.n_embd, n_ctx, cfg, scale)
        self.ln_1 = LayerNorm(cfg.n_embd)
        self.mlp = MLP(4 * cfg.n_embd, cfg)
        self.ln_2 = LayerNorm(cfg.n_embd)

    def forward(self, x):
        n = self.ln_1(x + self.attn(x))
        return self.ln_2(n + self.mlp(n))


def check_ids(x: Tensor, fits: bool, shape: str):
    """Raise ValueError, saying what x must be, unless it `fits` and has two integer ids for each step."""
    if not fits or x.size(-1) != 2 or x.dtype not in (torch.int32, torch.int64):
        raise ValueError(f'x is {x.dtype} of shape {tuple(x.shape)}: give token and position ids, int64 or int32, '
                         f'of shape {shape}')


def look_up(x: Tensor, we: Tensor) -> Tensor:
    """The rows of the table we (V, C) at token and position ids x (..., 2), added up: (..., C).

    Raises ValueError for an id outside the table; on a GPU this would need a wait, and CUDA's own error comes later.
    """
    try:
        return F.embedding(x, we).sum(dim=-2)
    except IndexError:
        wrong = x[(x < 0) | (x >= len(we))][0]
        raise ValueError(f'id {wrong} is not in the table, whose {len(we)} rows are tokens, special tokens and '
                         'positions: encode with the vocabulary of this network') from None


class TransformerModel(nn.Module):
    """The network without a head.

    vocab: rows of the table = tokens + special tokens + n_ctx positions. n_ctx: the longest sequence.
    """

    def __init__(self, cfg, vocab: int = 40990, n_ctx: int = 512):
        super().__init__()
        self.vocab, self.n_ctx = vocab, n_ctx
        self.embed = nn.Embedding.from_pretrained(torch.empty(vocab, cfg.n_embd).normal_(std=0.02), freeze=False)
        self.drop = nn.Dropout(cfg.embd_pdrop)
        self.h = nn.ModuleList(Block(n_ctx, cfg, scale=True) for _ in range(cfg.n_layer))
        self._register_load_state_dict_pre_hook(accept_other_names, with_module=True)

    def dropped_table(self) -> Tensor:
        """The table `we` (V, C) of one update: in training dropout is applied to all of it once, before the lookup."""
        return self.drop(self.embed.weight)

    def forward(self, x: Tensor, we: Tensor | None = None) -> Tensor:
        """Hidden states of the last block.

        x: (..., T, 2) token and position ids; leading axes are merged. we: the table to look up in, by default a
        fresh `dropped_table()`; give it to decode with the same one. Returns (N, T, C).
        Raises ValueError for x of another shape or type, for more than n_ctx steps, and as `look_up` does.
        """
        check_ids(x, x.dim() >= 2, '(..., T, 2)')
        T = x.size(-2)
        if T > self.n_ctx:
            raise ValueError(f'{T} tokens but n_ctx={self.n_ctx}: truncate, or build the model with a larger n_ctx')
        x = x.reshape(-1, T, 2)
        we = self.dropped_table() if we is None else we
        h = look_up(x, we)                                             # (N, T, C)
        for block in self.h:
            h = block(h)
        return h


class LMHead(nn.Module):
    """Language-model logits over all rows of the table, which is also the decoder (tied weights)."""

    def __init__(self, model: TransformerModel, cfg, trunc_and_reshape: bool = True):
        super().__init__()
        self.trunc_and_reshape = trunc_and_reshape
        self.decoder = nn.Linear(cfg.n_embd, model.vocab, bias=False, device='meta')     # without memory of its own
        self.decoder.weight = model.embed.weight

    def forward(self, h: Tensor, we: Tensor | None = None) -> Tensor:
        """h (N, T, C) -> (N * (T-1), V): the last step predicts nothing; without truncation (N, T, V).

        we: the table of this update (see `TransformerModel.dropped_table`), by default the clean one.
        """
        if self.trunc_and_reshape:
            h = h[:, :-1].flatten(0, 1)
        return F.linear(h, self.decoder.weight if we is None else we)


def states_at(token: int, h: Tensor, x: Tensor) -> Tensor:
    """Hidden state at the first `token` of each sequence: (N, T, C), (..., T, 2) -> (N, C)."""
    ids = x[..., 0].reshape(-1, x.size(-2))                            # (N, T)
    is_token = ids == token                                            # (N, T)
    if not is_token.any(-1).all():
        raise ValueError(f'a sequence has no token {token}, whose state is asked for')
    where = is_token.int().argmax(-1)                                  # (N,)
    return h[torch.arange(len(h), device=h.device), where]


class TaskHead(nn.Module):
    """The one new layer of fine-tuning, with dropout: `score` maps the states (N, C) at the classify tokens of h
    (N, T, C) to logits."""
    shape = '(B, K, T, 2)'

    def __init__(self, clf_token: int, cfg, n_class: int = 1):
        super().__init__()
        self.clf_token = clf_token
        self.dropout = nn.Dropout(cfg.clf_pdrop)
        self.linear = nn.Linear(cfg.n_embd, n_class)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        check_ids(x, x.dim() == 4, self.shape)
        return self.score(states_at(self.clf_token, h, x), x.size(1))


class MultipleChoiceHead(TaskHead):
    """One score for each of K choices: h (B*K, T, C), x (B, K, T, 2) -> (B, K)."""

    def score(self, clf_h: Tensor, n_choice: int) -> Tensor:
        clf_h = clf_h.unflatten(0, (-1, n_choice))                     # (B, K, C)
        # one mask per example, shared by its choices, so that dropout cannot favour a choice
        mask = self.dropout(torch.ones_like(clf_h[:, :1]))             # (B, 1, C)
        return self.linear(clf_h * mask).squeeze(-1)


class ClfHead(TaskHead):
    """Classification of one sequence: h (B, T, C), x (B, T, 2), or (B, 1, T, 2), -> (B, n_class)."""
    shape = '(B, T, 2)'

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return super().forward(h, x[:, None] if x.dim() == 3 else x)

    def score(self, clf_h: Tensor, n_choice: int = 1) -> Tensor:
        if n_choice != 1:
            raise ValueError(f'{n_choice} sequences an example, but this head classifies one: x must be {self.shape}')
        return self.linear(self.dropout(clf_h))


class SimilarityHead(TaskHead):
    """Similarity of two texts in both orders, whose states are added (paper, 3.3): x (B, 2, T, 2) -> (B, n_class)."""
    shape = '(B, 2, T, 2)'

    def score(self, clf_h: Tensor, n_choice: int = 2) -> Tensor:
        if n_choice != 2:
            raise ValueError(f'{n_choice} sequences an example, but this head adds two: x must be {self.shape}')
        both = clf_h.unflatten(0, (-1, 2)).sum(dim=1)                  # (B, C)
        return self.linear(self.dropout(both))                         # the orders share one mask


class LMModel(nn.Module):
    """Transformer with the language-model head: x (..., T, 2) -> logits, or next-token probabilities, (N, T, V).

    Probabilities are zero for the n_ctx position rows, which are no tokens. Raises ValueError where no row is left.
    """

    def __init__(self, cfg, vocab: int = 40990, n_ctx: int = 512, return_probs: bool = False):
        super().__init__()
        self.transformer = TransformerModel(cfg, vocab=vocab, n_ctx=n_ctx)
        self.lm_head = LMHead(self.transformer, cfg, trunc_and_reshape=False)
        self.return_probs = return_probs
        self._register_load_state_dict_pre_hook(accept_other_names, with_module=True)
        self.register_load_state_dict_post_hook(tie)

    def forward(self, x: Tensor) -> Tensor:
        we = self.transformer.dropped_table()
        lm_logits = self.lm_head(self.transformer(x, we), we)
        if not self.return_probs:
            return lm_logits
        n_tokens = lm_logits.size(-1) - self.transformer.n_ctx
        if n_tokens < 1:
            raise ValueError(f'n_ctx={self.transformer.n_ctx} leaves no token in a table of {lm_logits.size(-1)} rows')
        is_position = torch.arange(lm_logits.size(-1), device=x.device) >= n_tokens
        return F.softmax(lm_logits.masked_fill(is_position, -torch.inf), dim=-1)


class DoubleHeadModel(nn.Module):
    """Transformer with a language-model head and a task head: x -> (lm_logits, task_logits).

    task_head_type: 'multiple_choice', 'similarity' (a number), ('similarity', n_class), 'inference' (three classes) or
    ('classification', n_class). Both heads and the lookup share one draw of the embedding dropout, as in the original.
    """

    def __init__(self, cfg, clf_token: int, task_head_type, vocab: int = 40990, n_ctx: int = 512):
        super().__init__()
        self.transformer = TransformerModel(cfg, vocab=vocab, n_ctx=n_ctx)
        self.lm_head = LMHead(self.transformer, cfg)
        match task_head_type:
            case 'multiple_choice':
                self.task_head = MultipleChoiceHead(clf_token, cfg)
            case 'similarity':
                self.task_head = SimilarityHead(clf_token, cfg)
            case ('similarity', n_class):
                self.task_head = SimilarityHead(clf_token, cfg, n_class)
            case 'inference':                                          # entailment, contradiction, neutral
                self.task_head = ClfHead(clf_token, cfg, n_class=3)
            case ('classification', n_class):
                self.task_head = ClfHead(clf_token, cfg, n_class)
            case _:
                raise ValueError(f"task_head_type={task_head_type!r}: give 'multiple_choice', 'similarity', "
                                 "'inference', ('similarity', n_class) or ('classification', n_class)")
        self._register_load_state_dict_pre_hook(accept_other_names, with_module=True)
        self.register_load_state_dict_post_hook(tie)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        we = self.transformer.dropped_table()
        h = self.transformer(x, we)
        return self.lm_head(h, we), self.task_head(h, x)


def plain_name(name: str) -> str:
    """The name of a parameter without what nn.DataParallel and torch.compile put into it."""
    return '.'.join(part for part in name.split('.') if part not in ('module', '_orig_mod'))


def accept_other_names(module, state_dict, prefix, *_):
    """Before loading: map the names of wrapped models, and of the port, to the module's own; drop mask buffers.

    Raises ValueError where decoder and table differ, which are one parameter here. (Torch passes a copy of the dict.)
    """
    own = {plain_name(name): name for name, _ in module.named_parameters(remove_duplicate=False)}
    plain = {plain_name(name[len(prefix):]): state_dict.pop(name) for name in list(state_dict)}
    table, decoder = plain.get('transformer.embed.weight'), plain.get('lm_head.decoder.weight')
    is_tied = table is None or decoder is None or torch.equal(decoder.to(table).nan_to_num(), table.nan_to_num())
    if not is_tied:
        raise ValueError('lm_head.decoder.weight differs from transformer.embed.weight, but the decoder of this '
                         'network is its table: these parameters are those of another network')
    for name, value in plain.items():
        if not name.endswith(('.attn.b', 'pos_emb_mask')):
            state_dict[prefix + own.get(name, name)] = value


def tie(module, _):
    """After loading: the decoder is the table again, also where `load_state_dict(assign=True)` made new parameters."""
    module.lm_head.decoder.weight = module.transformer.embed.weight


# The released weights: ten one-dimensional chunks of one flat float32 vector that holds, one after the other, the
# positions, the tokens and twelve arrays a block; params_shapes.json lists their shapes.

N_SHARDS = 10
BLOCK_PARAMS = ('attn.c_attn.w', 'attn.c_attn.b', 'attn.c_proj.w', 'attn.c_proj.b', 'ln_1.g', 'ln_1.b',
                'mlp.c_fc.w', 'mlp.c_fc.b', 'mlp.c_proj.w', 'mlp.c_proj.b', 'ln_2.g', 'ln_2.b')


def released_shapes(n_ctx: int, n_vocab: int, C: int, n_layer: int) -> list[list[int]]:
    """Shapes of the arrays in the order of the release; convolutions have a leading axis of width 1."""
    block = [[1, C, 3 * C], [3 * C], [1, C, C], [C], [C], [C], [1, C, 4 * C], [4 * C], [1, 4 * C, C], [C], [C], [C]]
    return [[n_ctx, C], [n_vocab, C]] + block * n_layer


def open_release(path: str) -> tuple[list[list[int]], list[Tensor]]:
    """The array shapes in `path`/params_shapes.json, and the ten shards beside it, mapped and not read. Raises
    FileNotFoundError or ValueError where they are not one model, before anything of its size is allocated."""
    name = os.path.join(path, 'params_shapes.json')
    if not os.path.isfile(name):
        raise FileNotFoundError(f'{name} is missing: {how_to_get(path)}; model/sample/ holds a small model to try')
    try:
        with open(name, encoding='utf-8') as f:
            shapes = json.loads(f.read(2 ** 20))
        (n_ctx, C), (n_vocab, _) = shapes[:2]
        right = shapes == released_shapes(n_ctx, n_vocab, C, (len(shapes) - 2) // 12)
        if not right or any(type(n) is not int or n < 1 for shape in shapes for n in shape):
            raise ValueError
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError(f'{name} does not list the shapes of a released model (positions, tokens, '
                         f'12 arrays a block): {how_to_get(path)}') from None
    lengths = shard_lengths(sum(map(math.prod, shapes)))
    return shapes, [open_shard(path, i, length) for i, length in enumerate(lengths)]


def shard_lengths(n_total: int) -> list[int]:
    """The lengths of the pieces into which np.array_split cuts n_total numbers: the first ones may be one longer."""
    return [(n_total + N_SHARDS - 1 - i) // N_SHARDS for i in range(N_SHARDS)]


def open_shard(path: str, i: int, length: int) -> Tensor:
    """Shard i of a release, checked to have so many numbers, as a memory map."""
    name = os.path.join(path, f'params_{i}.npy')
    if not os.path.isfile(name):
        raise FileNotFoundError(f'{name} is missing: {how_to_get(path)}')
    try:
        shard = np.lib.format.open_memmap(name, mode='c')  # never unpickles or writes
    except OSError as e:  # says nothing about what is in the file
        raise OSError(e.errno, e.strerror, name) from None
    except Exception as e:  # a damaged header raises a dozen kinds
        reason = (str(e) or type(e).__name__).splitlines()[0][:80]
        raise ValueError(f'{name} is truncated or not a plain numpy array ({reason}): {how_to_get(path)}') from None
    if os.path.getsize(name) != shard.offset + shard.nbytes:
        raise ValueError(f'{name} goes on after its array: {how_to_get(path)}')
    if shard.dtype != np.float32 or shard.shape != (length,):
        raise ValueError(f'{name} holds {shard.dtype} {list(shard.shape)}, params_shapes.json wants float32 '
                         f'[{length}]: the files do not belong together, or were swapped; {how_to_get(path)}')
    return torch.from_numpy(shard)


def pieces(shards, sizes):
    """Cut arrays where those of other `sizes` end: yields (which of these, offset in it, piece), in order."""
    i, offset = 0, 0
    for shard in shards:
        while len(shard):
            piece = shard[:sizes[i] - offset]
            yield i, offset, piece
            shard, offset = shard[len(piece):], offset + len(piece)
            if offset == sizes[i]:
                i, offset = i + 1, 0


def transformer_of(model):
    """The TransformerModel in a model with heads, in nn.DataParallel, or in what torch.compile returns."""
    return next(module for module in model.modules() if isinstance(module, TransformerModel))


def arrays_of(model, n_ctx: int, n_special: int, n_blocks: int) -> list[Tensor]:
    """Parameters of a TransformerModel in the order of the release: positions, tokens, twelve a block."""
    we = model.embed.weight
    params = {plain_name(name): p for name, p in model.named_parameters()}
    blocks = [params[f'h.{i}.{name}'] for i in range(n_blocks) for name in BLOCK_PARAMS]
    return [we[len(we) - n_ctx:], we[:len(we) - n_ctx - n_special], *blocks]


def check_fits(model, shapes, n_ctx: int, n_special: int, n_blocks: int, path: str):
    """Raise ValueError, saying what to change, unless arrays of these shapes fill the table and n_blocks blocks."""
    (n_stored, C), (n_vocab, _) = shapes[:2]
    n_rows, n_embd = model.embed.weight.shape
    if C != n_embd:
        raise ValueError(f'{path}: weights are {C} wide, model has n_embd={n_embd}: build it with n_embd={C}')
    if n_ctx > n_stored:
        raise ValueError(f'{path}: checkpoint has {n_stored} positions, model wants n_ctx={n_ctx}: '
                         f'pass n_ctx <= {n_stored}')
    if n_ctx != model.n_ctx:
        raise ValueError(f'n_ctx={n_ctx} to load, but the model was built with n_ctx={model.n_ctx}: make them equal')
    if n_vocab + n_special + n_ctx != n_rows:
        raise ValueError(f'{path}: {n_vocab} tokens + {n_special} special + {n_ctx} positions stored, but the model '
                         f'has a table of {n_rows} rows: give n_special and n_ctx that add up')
    if 12 * n_blocks > len(shapes) - 2:
        raise ValueError(f'{path}: checkpoint has {(len(shapes) - 2) // 12} blocks, model wants {n_blocks}: build it '
                         'with fewer (n_layer), or transfer fewer (n_transfer)')


@torch.no_grad()
def load_openai_pretrained_model(model, n_ctx=-1, n_special=-1, n_transfer=12, n_embd=768, path='./model/',
                                 path_names='./'):
    """Copy the released weights into `model`, as the original's train.py does.

    model: a TransformerModel, or what has one inside (heads, nn.DataParallel, torch.compile). n_ctx: how many positions
    to keep (-1: all that are stored); must be the model's n_ctx. n_special: rows between tokens and positions (-1:
    none), drawn N(0, 0.02) from NumPy's global generator. n_transfer: blocks to initialise, besides the embeddings
    (more than there are: all; -1: nothing, but the special rows are drawn, so that the shuffles after it are the
    same). path: the folder of the shards. n_embd, path_names: ignored; kept so that calls written for the port work.

    Shards are mapped, not read, so no second copy of the model is ever in memory. Raises ValueError or
    FileNotFoundError, before anything is copied, where the files are not those of such a model.
    """
    model = transformer_of(model)
    n_special, n_blocks = max(n_special, 0), min(n_transfer, len(model.h))
    special = (np.random.randn(n_special, model.embed.weight.size(1)) * 0.02).astype(np.float32)
    if n_transfer == -1:
        return
    if n_transfer < -1:
        raise ValueError(f'n_transfer={n_transfer}: give a number of blocks, or -1 for none and no embeddings')
    shapes, shards = open_release(path)
    sizes = [math.prod(shape) for shape in shapes]
    n_ctx = shapes[0][0] if n_ctx == -1 else n_ctx
    check_fits(model, shapes, n_ctx, n_special, n_blocks, path)
    for i, shard in enumerate(shards):
        if not torch.stack(shard.aminmax()).isfinite().all():  # quicker than to ask each number
            raise ValueError(f'{os.path.join(path, f"params_{i}.npy")} holds numbers that are not finite: '
                             f'{how_to_get(path)}')

    targets = arrays_of(model, n_ctx, n_special, n_blocks)
    model.embed.weight[-n_ctx - n_special:-n_ctx].copy_(torch.from_numpy(special))
    for i, offset, piece in pieces(shards, sizes):
        if i == len(targets):
            break
        target = targets[i].view(-1)[offset:offset + len(piece)]  # without the positions after n_ctx
        target.copy_(piece[:len(target)])


@torch.no_grad()
def save_openai_pretrained_model(model, path, n_special=0):
    """Write the weights of `model` into the folder `path` in the layout of the release, for the loader above.

    model, path: as above. n_special: rows between tokens and positions, left out. Every file is written whole. Raises
    ValueError, before anything is written, for weights that are not finite and where no token is left.
    """
    model, n_special = transformer_of(model), max(n_special, 0)
    if model.vocab <= n_special + model.n_ctx:
        raise ValueError(f'n_special={n_special} leaves no token in a table of {model.vocab} rows, of which the last '
                         f'{model.n_ctx} are positions')
    arrays = arrays_of(model, model.n_ctx, n_special, len(model.h))
    if not all(array.float().isfinite().all() for array in arrays):
        raise ValueError(f'the weights hold numbers that are not finite, so nothing was written to {path}')
    shapes = released_shapes(model.n_ctx, *arrays[1].shape, len(model.h))
    lengths = shard_lengths(sum(array.numel() for array in arrays))
    for i, offset, piece in pieces([array.reshape(-1) for array in arrays], lengths):
        if offset == 0:
            shard = np.empty(lengths[i], dtype=np.float32)
        shard[offset:offset + len(piece)] = piece.float().cpu()
        if offset + len(piece) == lengths[i]:
            with write_whole(os.path.join(path, f'params_{i}.npy'), 'wb') as f:
                np.save(f, shard)
    with write_whole(os.path.join(path, 'params_shapes.json')) as f:
        json.dump(shapes, f)
