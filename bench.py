"""Time this repository's paths against its own plain model, against `transformers`, and against any checkout of a port.

    python bench.py                          # full size, writes BENCHMARKS.md and its pictures; about half an hour
    python bench.py --only train --rounds 9 --against ../port

All contenders of a comparison take turns in one process, round after round, so that a machine whose speed drifts
treats them alike; figures are medians, with the smallest and largest. Weights are random and sequences have the
lengths of ROCStories (drawn, seeded), so nothing has to be downloaded. Peak memory is that of a process of its own.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn as nn
from tqdm import tqdm

import fast
import loss
import model_pytorch
import opt
from model_pytorch import DEFAULT_CONFIG, dotdict
from train import Losses, update
from utils import choose_device, run_script, write_whole

N_TOKENS, T_DATA = 40478, 77                            # the released vocabulary; n_ctx that ROCStories needs
SECTIONS = ('train', 'memory', 'evaluate', 'curves')


def make_batch(B, T, n_tokens, seed=0, full=False):
    """X (B, 2, T, 2), M (B, 2, T), Y (B,): a story of about 38 tokens and two endings of about 9, as in ROCStories.

    full: sequences that fill all T steps.
    """
    rng = np.random.RandomState(seed)
    X, M = np.zeros((B, 2, T, 2), dtype=np.int32), np.zeros((B, 2, T), dtype=np.float32)
    for b in range(B):
        room = T - 3
        n_story = room * 4 // 5 if full else int(np.clip(rng.normal(41, 8), 1, room * 4 // 5))
        story = rng.randint(0, n_tokens, n_story)
        for k in range(2):
            n = room - n_story if full else int(np.clip(rng.normal(9, 3), 1, room - n_story))
            ids = [n_tokens, *story, n_tokens + 1, *rng.randint(0, n_tokens, n), n_tokens + 2]
            X[b, k, :len(ids), 0], M[b, k, :len(ids)] = ids, 1
    X[..., 1] = np.arange(n_tokens + 3, n_tokens + 3 + T)
    return torch.from_numpy(X), torch.from_numpy(M), torch.from_numpy(rng.randint(0, 2, B))


def build(cfg, T, device, module=model_pytorch):
    torch.manual_seed(0)
    return module.DoubleHeadModel(cfg, cfg.n_tokens + 2, 'multiple_choice', cfg.n_tokens + 3 + T, T).to(device)


def plain_step(cfg, T, device, modules=(model_pytorch, loss, opt)):
    """A training step of the documented surface, which is also the port's: model, loss compute, optimizer."""
    model_module, loss_module, opt_module = modules
    model = build(cfg, T, device, model_module).train()
    adam = opt_module.OpenAIAdam(model.parameters(), lr=6.25e-5, schedule='warmup_linear', warmup=0.002, t_total=1000,
                                 b1=0.9, b2=0.999, e=1e-8, l2=0.01, vector_l2=False, max_grad_norm=1)
    criterion = nn.CrossEntropyLoss(reduction='none')
    compute = loss_module.MultipleChoiceLossCompute(criterion, criterion, 0.5, adam)

    def step(X, M, Y):
        X, M, Y = X.to(device).long(), M.to(device), Y.to(device)
        lm_logits, clf_logits = model(X)
        compute(X, Y, M, clf_logits, lm_logits)
    return step


def fast_step(cfg, T, device, ctx):
    """The step that train.py takes."""
    model = build(cfg, T, device)
    adam = opt.OpenAIAdam(model.parameters(), 6.25e-5, 'warmup_linear', 0.002, 1000, l2=0.01, max_grad_norm=1)
    runner = Losses(model, 0.5)
    return lambda X, M, Y: update(runner, adam, (X, M, Y), 1, ctx)


def transformers_step(cfg, T, device):
    """`OpenAIGPTDoubleHeadsModel` of the transformers library with torch's AdamW, and gradient clipping."""
    from transformers import OpenAIGPTConfig, OpenAIGPTDoubleHeadsModel
    model = OpenAIGPTDoubleHeadsModel(OpenAIGPTConfig(
        vocab_size=cfg.n_tokens + 3, n_positions=T, n_embd=cfg.n_embd, n_layer=cfg.n_layer, n_head=cfg.n_head,
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


def port_modules(path):
    """model_pytorch, loss and opt of another checkout with this repository's surface."""
    modules = []
    for name in ('model_pytorch', 'loss', 'opt'):
        spec = importlib.util.spec_from_file_location(f'against_{name}', os.path.join(path, f'{name}.py'))
        modules.append(importlib.util.module_from_spec(spec))
        spec.loader.exec_module(modules[-1])
    return modules


def train_steps(args, cfg, T, device):
    """Name -> training step, of all that can be compared here."""
    steps = {'plain': plain_step(cfg, T, device), 'train.py': fast_step(cfg, T, device, nullcontext()),
             'train.py, bfloat16': fast_step(cfg, T, device, torch.autocast(device.type, dtype=torch.bfloat16))}
    if importlib.util.find_spec('transformers'):
        steps['transformers'] = transformers_step(cfg, T, device)
    if args.against:
        steps['against'] = plain_step(cfg, T, device, port_modules(args.against))
    return steps


def take_turns(contenders, inputs, rounds, device, what):
    """Seconds of each contender in each round: name -> list. The round before the first does not count."""
    seconds = {name: [] for name in contenders}
    for i in tqdm(range(-1, rounds), desc=what, ncols=80, leave=False, disable=None):
        for name, run in contenders.items():
            start = time.perf_counter()
            run(*inputs(i + 1))
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
            if i >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values, digits=2):
    return f'{np.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})'


def ratio_table(seconds, n_examples, base='plain'):
    """Rows of a table: seconds, examples/s, and how many times as fast as `base`, round by round."""
    rows = ['| | s (min–max) | examples/s | times as fast as plain |', '|---|---|---|---|']
    for name, values in seconds.items():
        ratios = np.array(seconds[base]) / np.array(values)
        rows.append(f'| {name} | {spread(values)} | {n_examples / np.median(values):.2f} | {spread(ratios)} |')
    return rows


def bench_train(args, cfg, device):
    B = 8
    steps = train_steps(args, cfg, T_DATA, device)
    seconds = take_turns(steps, lambda i: make_batch(B, T_DATA, cfg.n_tokens, i), args.rounds, device, 'training steps')
    return [f'## Training step, batch {B}', '', *ratio_table(seconds, B)]


def bench_evaluate(args, cfg, device):
    B = 32
    model = build(cfg, T_DATA, device).eval()

    @torch.no_grad()
    def plain(X, M, _):
        return model(X.to(device).long())[1]

    def shared(X, M, _):
        return fast.choice_logits(model, X, M)

    def shared_bfloat16(X, M, _):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return fast.choice_logits(model, X, M)

    contenders = {'plain': plain, 'train.py': shared, 'train.py, bfloat16': shared_bfloat16}
    seconds = take_turns(contenders, lambda i: make_batch(B, T_DATA, cfg.n_tokens, i), args.rounds, device,
                         'evaluating')
    X, M, Y = make_batch(B, T_DATA, cfg.n_tokens)
    with torch.no_grad():
        exact = plain(X, M, Y)
        error = {name: (run(X, M, Y).float() - exact).abs().max().item() for name, run in contenders.items()}
    return [f'## Evaluation, batch {B}', '', *ratio_table(seconds, B), '',
            'Largest difference of a logit from the plain path: '
            + ', '.join(f'{name} {value:.1e}' for name, value in error.items()) + '.']


def one_process(args, name, B, T, steps=2):
    """Peak memory in MiB, and the seconds of the last step, of a process that takes a few training steps."""
    command = [sys.executable, __file__, '--one', name, '--batch', str(B), '--length', str(T), '--device', args.device,
               '--rounds', str(steps)] + ['--toy'] * args.toy + (['--against', args.against] if args.against else [])
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def run_one(args, cfg, device):
    step = {'plain': lambda: plain_step(cfg, args.length, device),
            'train.py': lambda: fast_step(cfg, args.length, device, nullcontext()),
            'transformers': lambda: transformers_step(cfg, args.length, device),
            'against': lambda: plain_step(cfg, args.length, device, port_modules(args.against))}[args.one]()
    batch = make_batch(args.batch, args.length, cfg.n_tokens, full=args.length != T_DATA)
    for _ in range(args.rounds):
        start = time.perf_counter()
        step(*batch)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    peak = (torch.cuda.max_memory_allocated(device) / 1024 if device.type == 'cuda'
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(json.dumps([peak / 1024, seconds]))


def bench_memory(args, cfg, device):
    names = ['plain', 'train.py'] + ['transformers'] * bool(importlib.util.find_spec('transformers'))
    names += ['against'] * bool(args.against)
    rows = ['| | MiB | of plain |', '|---|---|---|']
    peaks = {name: one_process(args, name, 20, T_DATA)[0] for name in names}
    rows += [f'| {name} | {peak:.0f} | {peak / peaks["plain"]:.2f} |' for name, peak in peaks.items()]
    return ['## Peak memory of a process, training at batch 20', '', *rows]


def bench_curves(args, cfg, device):
    """Seconds and memory of a training step against batch and length; examples/s of evaluation against batch."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    batches, lengths = ([1, 2, 4], [16, 32]) if args.toy else ([1, 2, 4, 8, 16, 32], [64, 128, 256, 512])
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout='constrained')
    for name in ('plain', 'train.py'):
        by_batch = [one_process(args, name, B, T_DATA) for B in tqdm(batches, desc=name, leave=False, disable=None)]
        by_length = [one_process(args, name, 2, T) for T in tqdm(lengths, desc=name, leave=False, disable=None)]
        axes[0].plot(batches, [s for _, s in by_batch], 'o-', label=name)
        axes[1].plot(batches, [mib / 1024 for mib, _ in by_batch], 'o-', label=name)
        axes[2].plot(lengths, [s for _, s in by_length], 'o-', label=name)
    for axis, x, y in ((axes[0], 'examples in a batch', 's per training step'),
                       (axes[1], 'examples in a batch', 'GiB, peak of the process'),
                       (axes[2], 'steps of a sequence (batch 2, no padding)', 's per training step')):
        axis.set(xlabel=x, ylabel=y, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    picture = os.path.join(os.path.dirname(args.out), 'bench_training.png')
    with write_whole(picture, 'wb') as f:
        figure.savefig(f, dpi=110, format='png')
    return ['## Curves', '', f'![time and memory of a training step]({os.path.basename(picture)})']


def main(args):
    device, _ = choose_device(args.device, 'float32')
    cfg = dotdict(DEFAULT_CONFIG, n_tokens=N_TOKENS)
    if args.toy:
        cfg = dotdict(cfg, n_embd=32, n_head=2, n_layer=2, n_tokens=200)
    if args.one:
        return run_one(args, cfg, device)
    sections = {'train': bench_train, 'memory': bench_memory, 'evaluate': bench_evaluate, 'curves': bench_curves}
    cpu = f'{cpu_name()}, {torch.get_num_threads()} threads'
    where = torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu
    lines = ['# Benchmarks', '', f'`python bench.py`, {time.strftime("%Y-%m-%d")}, {where}, Python '
             f'{platform.python_version()}, torch {torch.__version__}.', '',
             __doc__.split('\n\n')[2].replace('\n', ' ').strip()]
    for section in args.only or SECTIONS:
        rows = sections[section](args, cfg, device)
        print('\n'.join(rows), '\n', flush=True)
        lines += ['', *rows]
    with write_whole(args.out) as f:
        f.write('\n'.join(lines) + '\n')
    print(f'written: {args.out}')


def cpu_name():
    """The processor, as Linux names it; elsewhere what Python knows."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as f:
            return next(line.split(':', 1)[1].strip() for line in f if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=SECTIONS, help='these sections alone (default: all)')
    parser.add_argument('--rounds', type=int, default=5, help='counted rounds of each comparison')
    parser.add_argument('--against', metavar='PATH', help='checkout of a port to compare with')
    parser.add_argument('--device', default='auto', help='cuda, mps, cpu; auto takes the first there is')
    parser.add_argument('--out', default='BENCHMARKS.md', help='file to write')
    parser.add_argument('--toy', action='store_true', help='a tiny network, to see that it works')
    parser.add_argument('--one', help=argparse.SUPPRESS)                # a process of its own, for its peak memory
    parser.add_argument('--batch', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--length', type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_script(main, parse_args)
