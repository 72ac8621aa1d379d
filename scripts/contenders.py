"""The contenders of bench.py: training steps of this repository and of others, evaluation, generation.

A training step is a function of a batch on the CPU: it moves the batch to the device, computes, and updates parameters.
"""

import copy
import importlib.util
import os
import re
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
from datasets import SPECIAL, Examples
from model_pytorch import DEFAULT_CONFIG, LMModel, dotdict
from opt import OpenAIAdam
from utils import read_text
from zero_shot import with_positions

N_TOKENS, T_DATA = 40478, 77  # the released vocabulary; n_ctx that ROCStories needs


# Network, device and stories

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


# Variants of our own steps

def dtypes_of(device):
    """The values of --dtype that the device has instructions for; the last one is the fastest on most GPUs."""
    if device.type == 'cuda':
        is_recent = torch.cuda.get_device_capability(device) >= (8, 0)  # has tf32 and bfloat16 in hardware
        return ['float32', 'tf32', 'bfloat16'] if is_recent else ['float32', 'float16']
    return ['float32', 'bfloat16'] if device.type == 'mps' or cpu_has_bfloat16() else ['float32']


def cpu_has_bfloat16():
    """Without AVX-512, products in bfloat16 take fifty times as long as in float32."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def variants(device):
    """Name -> (--dtype, --plain) of the variants of train.py that a device can run."""
    dtypes = dtypes_of(device)
    found = {'plain': ('float32', True)}
    if device.type == 'cuda':  # tells what the dtype gains from what fast.py gains
        found[f'plain, {dtypes[-1]}'] = (dtypes[-1], True)
    return found | {f'train.py, {dtype}': (dtype, False) for dtype in dtypes}


def can_compile(device):
    """torch.compile makes code for CUDA with triton, which needs a C compiler."""
    has_compiler = os.environ.get('CC') or shutil.which('cc') or shutil.which('gcc') or shutil.which('clang')
    return device.type == 'cuda' and bool(has_compiler and importlib.util.find_spec('triton'))


def build(cfg, n_ctx, device, module=model_pytorch):
    torch.manual_seed(0)
    return module.DoubleHeadModel(cfg, cfg.n_tokens + 2, 'multiple_choice', cfg.n_tokens + 3 + n_ctx, n_ctx).to(device)


# Steps of fine-tuning: functions of X, M and Y

def our_step(cfg, n_ctx, device, dtype, plain, compiled=False, n_towers=1):
    """The training step of train.py."""
    model = build(cfg, n_ctx, device)
    losses = train.Losses(torch.compile(model, dynamic=False) if compiled else model, 0.5, plain)
    adam = OpenAIAdam(losses.parameters(), 6.25e-5, 'warmup_linear', 0.002, 1000, l2=0.01, max_grad_norm=1)
    scaler = grad_scaler(device, dtype)

    def step(*batch):
        _, autocast = choose_device(str(device), dtype)  # sets tf32, which is global, for each step
        train.update(losses, adam, batch, n_towers, autocast, scaler)
    return step


def port_step(cfg, n_ctx, device, path):
    """The training step of a checkout of the port at `path`: its model, loss compute and optimizer."""
    model_module, loss_module, opt_module = (load_module(path, name) for name in PORT_FILES)
    model = build(cfg, n_ctx, device, model_module).train()
    adam = opt_module.OpenAIAdam(model.parameters(), lr=6.25e-5, schedule='warmup_linear', warmup=0.002, t_total=1000,
                                 b1=0.9, b2=0.999, e=1e-8, l2=0.01, vector_l2=False, max_grad_norm=1)
    criterion = nn.CrossEntropyLoss(reduction='none')
    compute = loss_module.MultipleChoiceLossCompute(criterion, criterion, 0.5, adam)

    def step(X, M, Y):
        choose_device(str(device), 'float32')
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
        choose_device(str(device), 'float32')
        X, M, Y = X.to(device).long(), M.to(device), Y.to(device)
        ids = X[..., 0]
        out = model(input_ids=ids, mc_token_ids=M.sum(-1).long() - 1, labels=ids.masked_fill(M == 0, -100), mc_labels=Y)
        (out.mc_loss + 0.5 * out.loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        adam.step()
        adam.zero_grad()
    return step


def has_transformers() -> bool:
    """True if the transformers library is installed, and can use this version of torch."""
    if not importlib.util.find_spec('transformers'):
        return False
    import transformers
    return transformers.is_torch_available()


def training_steps(args, cfg, n_ctx, device):
    """Name -> function that builds a step of fine-tuning, for all contenders that are installed or given."""
    builders = {name: partial(our_step, cfg, n_ctx, device, *how) for name, how in variants(device).items()}
    if can_compile(device):
        *_, half = dtypes_of(device)
        builders[f'plain, {half}, compiled'] = partial(our_step, cfg, n_ctx, device, half, True, compiled=True)
    if has_transformers():
        builders['transformers'] = partial(transformers_step, cfg, n_ctx, device)
    if 'port' in checkouts(args):
        builders['port'] = partial(port_step, cfg, n_ctx, device, checkouts(args)['port'])
    return builders


# Steps of pre-training: functions of tokens (B, n_ctx + 1), which they compute a tower of n_batch at a time

def lm_options(cfg, n_ctx):
    """The options of pretrain.py, with its defaults, for a network of this size."""
    options = pretrain.parse_args(['--data_dir', '.', '--vocab_size', str(cfg.n_tokens)])
    return dotdict(vars(options), **{**cfg, 'n_ctx': n_ctx})


def our_lm_step(cfg, n_ctx, device, n_batch, dtype):
    """The training step of pretrain.py."""
    ranks, scaler = Ranks(), grad_scaler(device, dtype)
    _, runner, opt = pretrain.build(lm_options(cfg, n_ctx), cfg.n_tokens, 1000, device, ranks)

    def step(tokens):
        _, autocast = choose_device(str(device), dtype)
        return pretrain.update(runner, opt, tokens.to(device), n_batch, autocast, scaler)
    return step


def plain_lm_step(cfg, n_ctx, device, n_batch, dtype, compiled=False):
    """model_pytorch.py as it is written, with whole logits, and torch's cross entropy, clipping and AdamW."""
    torch.manual_seed(42)
    model = LMModel(cfg, vocab=cfg.n_tokens + n_ctx, n_ctx=n_ctx).to(device).train()
    transformer = model.transformer
    adam = torch.optim.AdamW(model.parameters(), lr=2.5e-4, weight_decay=0.01)

    def losses(model, part):
        logits = model(with_positions(transformer, part[:, :-1]))  # (n_batch, n_ctx, V)
        return F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
    return lm_step(torch.compile(model, dynamic=False) if compiled else model, losses, adam, device, n_batch, dtype)


def nanogpt_step(cfg, n_ctx, device, n_batch, dtype, path, compiled=False):
    """The training step of a checkout of nanoGPT at `path`, with a network of the same size."""
    module = load_module(path, NANOGPT_FILE)
    torch.manual_seed(42)
    model = module.GPT(module.GPTConfig(
        block_size=n_ctx, vocab_size=cfg.n_tokens, n_layer=cfg.n_layer, n_head=cfg.n_head, n_embd=cfg.n_embd,
        dropout=cfg.resid_pdrop, bias=True)).to(device).train()
    adam = model.configure_optimizers(weight_decay=0.01, learning_rate=2.5e-4, betas=(0.9, 0.999),
                                      device_type=device.type)

    def losses(model, part):
        return model(part[:, :-1].contiguous(), part[:, 1:].contiguous())[1]
    return lm_step(torch.compile(model, dynamic=False) if compiled else model, losses, adam, device, n_batch, dtype)


def lm_step(model, loss_of, optimizer, device, n_batch, dtype):
    """The usual loop: the mean loss of each tower, backward; then clipping at norm 1 and an update."""
    scaler = grad_scaler(device, dtype)

    def step(tokens):
        _, autocast = choose_device(str(device), dtype)
        parts, losses = tokens.to(device).split(n_batch), []
        for part in parts:
            with autocast:
                loss = loss_of(model, part) / len(parts)
            scaler.scale(loss).backward()
            losses.append(loss.detach())
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()
    return step


def lm_steps(args, cfg, n_ctx, device, n_batch):
    """Name -> (dtype, function that builds the step), for all contenders that are given."""
    shape, dtypes, nanogpt = (cfg, n_ctx, device, n_batch), dtypes_of(device), checkouts(args).get('nanoGPT')
    half, steps = dtypes[-1], {'plain': ('float32', partial(plain_lm_step, *shape, 'float32'))}
    if device.type == 'cuda':
        steps[f'plain, {half}'] = half, partial(plain_lm_step, *shape, half)
    for dtype in dtypes:
        steps[f'pretrain.py, {dtype}'] = dtype, partial(our_lm_step, *shape, dtype)
    if nanogpt:
        for dtype in dtypes:
            steps[f'nanoGPT, {dtype}'] = dtype, partial(nanogpt_step, *shape, dtype, nanogpt)
    if can_compile(device):
        steps[f'plain, {half}, compiled'] = half, partial(plain_lm_step, *shape, half, compiled=True)
        if nanogpt:
            steps[f'nanoGPT, {half}, compiled'] = half, partial(nanogpt_step, *shape, half, nanogpt, compiled=True)
    return steps


# Checkouts of others, given by --against

PORT_FILES, NANOGPT_FILE = ('model_pytorch.py', 'loss.py', 'opt.py'), 'model.py'


def checkouts(args):
    """'port' or 'nanoGPT' -> the path of its checkout. Raises ValueError for a folder that is neither."""
    found = {}
    for path in args.against or ():
        model_py = os.path.join(path, NANOGPT_FILE)
        if all(os.path.isfile(os.path.join(path, name)) for name in PORT_FILES):
            found['port'] = path
        elif os.path.isfile(model_py) and re.search(r'^class GPTConfig\b', read_text(model_py), re.MULTILINE):
            found['nanoGPT'] = path
        else:
            raise ValueError(f'--against {path} is neither a checkout of the port ({", ".join(PORT_FILES)}) nor of '
                             f'nanoGPT ({NANOGPT_FILE} with the class GPTConfig)')
    return found


def load_module(folder, name):
    """Run a Python file whose name may be that of one of our modules; returns it as a module of another name."""
    spec = importlib.util.spec_from_file_location(f'against_{name.removesuffix(".py")}', os.path.join(folder, name))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and torch.compile look for it
    spec.loader.exec_module(module)
    return module


# Evaluation, generation

def evaluators(model, stories, n, n_batch, device):
    """Name -> function that returns the task logits of the first n stories, computed n_batch at a time."""
    def evaluate(model, dtype, plain):
        _, autocast = choose_device(str(device), dtype)
        args = SimpleNamespace(n_batch=n_batch, n_gpu=1, plain=plain)
        return train.evaluate(SimpleNamespace(args=args, ranks=Ranks(), autocast=autocast), model, stories, n)

    ours = fast.use_fast_layers(copy.deepcopy(model))  # it changes the layers of a model
    return {name: partial(evaluate, model if plain else ours, dtype, plain)
            for name, (dtype, plain) in variants(device).items()}


def language_model(cfg, device):
    """The transformer of a language model with random weights, and a prompt of 128 ids."""
    torch.manual_seed(0)
    model = LMModel(cfg, vocab=cfg.n_tokens + 512).to(device).eval()
    return model.transformer, torch.randint(cfg.n_tokens, (128,)).tolist()


@torch.no_grad()
def recompute(transformer, n_vocab, ids, gen_len):
    """Greedy continuation without a cache: for each token, the plain network computes all steps again."""
    ids = torch.tensor([ids], device=transformer.embed.weight.device)
    for _ in range(gen_len):
        h = transformer(with_positions(transformer, ids))
        logits = h[:, -1] @ transformer.embed.weight[:n_vocab].T
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[0, -gen_len:].tolist()
