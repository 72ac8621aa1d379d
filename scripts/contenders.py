"""The contenders of bench.py: training steps of this repository and of others, evaluation, generation.

A training step is a function of a batch on the CPU: it moves the batch to the device, computes, and updates parameters.
"""

import copy
import importlib.util
import os
import shutil
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import fast
import model_pytorch
import pretrain
import train
from common.device import Ranks, choose_device, grad_scaler
from common.examples import SPECIAL, Examples
from model_pytorch import DEFAULT_CONFIG, LMModel, dotdict
from opt import OpenAIAdam
from zero_shot import with_positions

N_TOKENS, T_DATA = 40478, 77  # the released vocabulary; n_ctx that ROCStories needs
WITHOUT_TOWERS = ('transformers', 'port')
HAS_TRANSFORMERS = importlib.util.find_spec('transformers') is not None


def setup(args):
    """The network's size and the device."""
    size = dict(n_embd=32, n_head=2, n_layer=2, n_tokens=200) if args.toy else dict(n_tokens=N_TOKENS)
    return dotdict(DEFAULT_CONFIG, **size), choose_device(args.device, 'float32')[0]


def drawn_stories(n, n_tokens, n_ctx=T_DATA, full=False):
    """n Examples of random ids, with lengths like those of ROCStories; full: each sequence fills n_ctx."""
    rng, max_len = np.random.RandomState(0), n_ctx - 3
    n_story = rng.normal(41, 8, n).clip(1, max_len * 4 // 5).astype(int)  # (n,)
    n_ending = rng.normal(9, 3, (2, n)).clip(1, max_len - n_story).astype(int)  # (2, n)
    if full:
        n_story[:] = max_len * 4 // 5
        n_ending[:] = max_len - n_story
    fields = [[rng.randint(0, n_tokens, length) for length in lengths] for lengths in (n_story, *n_ending)]
    encoder = {**dict.fromkeys(range(n_tokens)), **{token: n_tokens + i for i, token in enumerate(SPECIAL)}}
    return Examples('choices', fields, rng.randint(0, 2, n), encoder, n_ctx, max_len=n_ctx)


def get_batch(stories, B, i):
    """X (B, 2, T, 2), M (B, 2, T) and Y (B,) of round i."""
    indices = np.arange(i * B, (i + 1) * B) % len(stories)
    return [torch.from_numpy(array) for array in (*stories.batch(indices), stories.labels[indices])]


def drawn_tokens(cfg, B, n_ctx, i):
    """The batch of pre-training of round i: (B, n_ctx + 1) random ids, in a list."""
    return [torch.randint(cfg.n_tokens, (B, n_ctx + 1), generator=torch.Generator().manual_seed(i))]


def dtypes_of(device):
    """float32, and the half precision that the device has instructions for."""
    if device.type == 'cuda':
        return ['float32', 'bfloat16' if torch.cuda.get_device_capability(device) >= (8, 0) else 'float16']
    has_bfloat16 = device.type == 'mps' or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # else it is fifty times slower
    return ['float32', 'bfloat16'] if has_bfloat16 else ['float32']


def variants(device):
    """Name -> (--dtype, --plain) of the variants of train.py that a device can run."""
    return {'plain': ('float32', True)} | {f'train.py, {dtype}': (dtype, False) for dtype in dtypes_of(device)}


def compiled_dtypes(args, device):
    """The dtypes in which compiled contenders are measured: none where torch.compile lacks a compiler, which is of C
    (and triton) for CUDA and of C++ for a CPU."""
    compiler = shutil.which('cc' if device.type == 'cuda' else 'c++')
    can_compile = compiler and (device.type == 'cpu' or device.type == 'cuda' and importlib.util.find_spec('triton'))
    return dtypes_of(device) if can_compile and not args.toy else []


def build(cfg, n_ctx, device, module=model_pytorch):
    torch.manual_seed(0)
    return module.DoubleHeadModel(cfg, cfg.n_tokens + 2, 'multiple_choice', cfg.n_tokens + 3 + n_ctx, n_ctx).to(device)


# Steps of fine-tuning: functions of X, M and Y

def our_step(cfg, n_ctx, device, n_towers, dtype, plain, compiled=False):
    """The training step of train.py."""
    model = build(cfg, n_ctx, device)
    losses = train.Losses(torch.compile(model, dynamic=False) if compiled else model, 0.5, plain)
    adam = OpenAIAdam(losses.parameters(), 6.25e-5, 'warmup_linear', 0.002, 1000, l2=0.01, max_grad_norm=1)
    scaler, (_, autocast) = grad_scaler(device, dtype), choose_device(str(device), dtype)

    def step(*batch):
        train.update(losses, adam, batch, n_towers, autocast, scaler)
    return step


def port_step(cfg, n_ctx, device, path):
    """The training step of a checkout of the port at `path`: its model, loss compute and optimizer."""
    model_module, loss_module, opt_module = (load_module(path, name) for name in ('model_pytorch', 'loss', 'opt'))
    model = build(cfg, n_ctx, device, model_module).train()
    adam = opt_module.OpenAIAdam(model.parameters(), lr=6.25e-5, schedule='warmup_linear', warmup=0.002, t_total=1000,
                                 b1=0.9, b2=0.999, e=1e-8, l2=0.01, vector_l2=False, max_grad_norm=1)
    criterion = nn.CrossEntropyLoss(reduction='none')
    compute = loss_module.MultipleChoiceLossCompute(criterion, criterion, 0.5, adam)

    def step(X, M, Y):
        X, M, Y = X.to(device).long(), M.to(device), Y.to(device)
        lm_logits, clf_logits = model(X)
        compute(X, Y, M, clf_logits, lm_logits)
    return step


def transformers_step(cfg, n_ctx, device):
    """`OpenAIGPTDoubleHeadsModel` of the transformers library with torch's AdamW, and gradient clipping."""
    from transformers import OpenAIGPTConfig, OpenAIGPTDoubleHeadsModel
    model = OpenAIGPTDoubleHeadsModel(OpenAIGPTConfig(
        vocab_size=cfg.n_tokens + 3, n_positions=n_ctx, n_embd=cfg.n_embd, n_layer=cfg.n_layer, n_head=cfg.n_head,
        num_labels=1)).to(device).train()
    adam = torch.optim.AdamW(model.parameters(), lr=6.25e-5, weight_decay=0.01)

    def step(X, M, Y):
        X, M, Y = X.to(device).long(), M.to(device), Y.to(device)
        ids = X[..., 0]
        out = model(input_ids=ids, mc_token_ids=M.sum(-1).long() - 1, labels=ids.masked_fill(M == 0, -100), mc_labels=Y)
        (out.mc_loss + 0.5 * out.loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        adam.step()
        adam.zero_grad()
    return step


def training_steps(args, cfg, n_ctx, device, n_towers=1):
    """Name -> function that builds a step of fine-tuning, for all contenders that are installed or given. Ours compute
    a batch in n_towers parts; `WITHOUT_TOWERS` are the names of those that cannot."""
    ours = partial(our_step, cfg, n_ctx, device, n_towers)
    builders = {name: partial(ours, *how) for name, how in variants(device).items()}
    builders |= {f'plain, compiled, {dtype}': partial(ours, dtype, True, compiled=True)
                 for dtype in compiled_dtypes(args, device)}
    if HAS_TRANSFORMERS:
        builders['transformers'] = partial(transformers_step, cfg, n_ctx, device)
    if args.port:
        builders['port'] = partial(port_step, cfg, n_ctx, device, args.port)
    return builders


# Steps of pre-training: functions of tokens (B, n_ctx + 1), which they compute n_batch at a time

def our_lm_step(cfg, n_ctx, device, n_batch, dtype):
    """The training step of pretrain.py, with its defaults."""
    options = pretrain.parse_args(['--data_dir', '.', '--vocab_size', str(cfg.n_tokens)])
    _, runner, opt = pretrain.build(dotdict(vars(options), **{**cfg, 'n_ctx': n_ctx}), cfg.n_tokens, 1000, device,
                                    Ranks())
    return lm_step(runner, opt, device, n_batch, dtype)


def plain_lm_step(cfg, n_ctx, device, n_batch, dtype, compiled=False):
    """model_pytorch.py as it is written, with whole logits and torch's cross entropy."""
    torch.manual_seed(42)
    model = LMModel(cfg, vocab=cfg.n_tokens + n_ctx, n_ctx=n_ctx).to(device)
    adam = OpenAIAdam(model.parameters(), 2.5e-4, 'warmup_cosine', 0.002, 1000, l2=0.01, max_grad_norm=1)

    def loss_of(model, x, targets):
        logits = model(with_positions(model.transformer, x))  # (n_batch, n_ctx, V)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return lm_step(MeanLoss(model, loss_of, compiled), adam, device, n_batch, dtype)


def nanogpt_step(cfg, n_ctx, device, n_batch, dtype, path, compiled=False):
    """The training step of a checkout of nanoGPT at `path`, with a network of the same size."""
    module = load_module(path, 'model')
    torch.manual_seed(42)
    model = module.GPT(module.GPTConfig(
        block_size=n_ctx, vocab_size=cfg.n_tokens, n_layer=cfg.n_layer, n_head=cfg.n_head, n_embd=cfg.n_embd,
        dropout=cfg.resid_pdrop, bias=True)).to(device)
    adam = model.configure_optimizers(weight_decay=0.01, learning_rate=2.5e-4, betas=(0.9, 0.999),
                                      device_type=device.type)

    def clip(*_):
        nn.utils.clip_grad_norm_(model.parameters(), 1)
    adam.register_step_pre_hook(clip)
    loss = MeanLoss(model, lambda model, x, targets: model(x, targets)[1], compiled)
    return lm_step(loss, adam, device, n_batch, dtype)


class MeanLoss(nn.Module):
    """The part of n_batch sequences in the mean loss of an update, in the form that pretrain.py calls.

    loss_of: a function of the model, x and targets, both (n_batch, n_ctx), to their mean loss.
    """

    def __init__(self, model, loss_of, compiled=False):
        super().__init__()
        self.model, self.loss_of = torch.compile(model, dynamic=False) if compiled else model, loss_of

    def forward(self, tokens, n_targets):
        x, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        return self.loss_of(self.model, x, targets) * targets.numel() / n_targets


def lm_step(runner, optimizer, device, n_batch, dtype):
    scaler, (_, autocast) = grad_scaler(device, dtype), choose_device(str(device), dtype)
    return lambda tokens: pretrain.update(runner, optimizer, tokens.to(device), n_batch, autocast, scaler)


def lm_steps(args, cfg, n_ctx, device, n_batch):
    """Name -> function that builds a step of pre-training, for all contenders that are given."""
    shape, dtypes = (cfg, n_ctx, device, n_batch), dtypes_of(device)
    builders = {'plain': partial(plain_lm_step, *shape, 'float32')}
    builders |= {f'pretrain.py, {dtype}': partial(our_lm_step, *shape, dtype) for dtype in dtypes}
    builders |= {f'plain, compiled, {dtype}': partial(plain_lm_step, *shape, dtype, compiled=True)
                 for dtype in compiled_dtypes(args, device)}
    if args.nanogpt:
        theirs = partial(nanogpt_step, *shape, path=args.nanogpt)
        builders |= {f'nanoGPT, {dtype}': partial(theirs, dtype) for dtype in dtypes}
        builders |= {f'nanoGPT, compiled, {dtype}': partial(theirs, dtype, compiled=True)
                     for dtype in compiled_dtypes(args, device)}
    return builders


def load_module(folder, name):
    """Run a Python file whose name may be that of one of our modules; returns it as a module of another name."""
    spec = importlib.util.spec_from_file_location(f'against_{name}', os.path.join(folder, f'{name}.py'))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and torch.compile look for it
    spec.loader.exec_module(module)
    return module


def evaluators(model, stories, n, n_batch, device):
    """Name -> function that returns the task logits of the first n stories, computed n_batch at a time."""
    def evaluate(model, dtype, plain):
        run = SimpleNamespace(args=SimpleNamespace(n_batch=n_batch, n_gpu=1, plain=plain), ranks=Ranks(),
                              autocast=choose_device(str(device), dtype)[1])
        return train.evaluate(run, model, stories, n)

    ours = fast.use_fast_layers(copy.deepcopy(model))  # it changes the layers of a model
    return {name: partial(evaluate, model if plain else ours, dtype, plain)
            for name, (dtype, plain) in variants(device).items()}


@torch.no_grad()
def recompute(transformer, n_vocab, gen_len, ids):
    """Greedy continuation without a cache: for each token, the plain network computes all steps again."""
    ids = torch.tensor([ids], device=transformer.embed.weight.device)
    for _ in range(gen_len):
        h = transformer(with_positions(transformer, ids))
        logits = h[:, -1] @ transformer.embed.weight[:n_vocab].T
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[0, -gen_len:].tolist()
