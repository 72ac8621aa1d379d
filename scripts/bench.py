"""Time this repository's paths against its own plain model, against `transformers`, and against any checkout of a port.

    python scripts/bench.py                                             # everything, full size: well over an hour
    python scripts/bench.py --only train --rounds 9 --against ../port   # one section; the others stay in the file

A section has a process of its own. All contenders of a comparison take turns in it, round after round, so that a
machine whose speed drifts treats them alike; figures are medians, with the smallest and largest in brackets, and a
ratio is that of two times of one round. Peak memory is that of a process of its own. Weights are random, so no weights
have to be downloaded. With the Story Cloze files in --data_dir and the released vocabulary in --model_path the batches
are real ones; otherwise they are drawn with the lengths of ROCStories, and what cannot do without is left out.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn as nn
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import generate
import loss
import model_pytorch
import opt
import train
from datasets import find_cloze_file
from device import Ranks, choose_device
from model_pytorch import DEFAULT_CONFIG, LMModel, TransformerModel, dotdict, save_openai_pretrained_model
from utils import Parser, add_path_args, finish_paths, run_script, write_whole
from zero_shot import with_positions

N_TOKENS, T_DATA = 40478, 77                            # the released vocabulary; n_ctx that ROCStories needs
TOY = dict(n_embd=32, n_head=2, n_layer=2)
# The fine-tuning of goldens/e2e/lm_coef_0: small random weights that learn the stories within a minute.
SMALL = dict(n_embd=64, n_head=4, n_layer=2)
SMALL_ARGV = ('--n_embd 64 --n_head 4 --n_layer 2 --n_batch 8 --n_gpu 1 --n_iter 6 --lr 1e-3 --lm_coef 0 '
              '--embd_pdrop 0 --attn_pdrop 0 --resid_pdrop 0 --clf_pdrop 0').split()
NOT_MEASURED = 'Not measured.'


# What is measured on

def make_batch(B, T, n_tokens, seed=0, full=False):
    """X (B, 2, T, 2), M (B, 2, T), Y (B,): a story of about 41 tokens and two endings of about 9, as in ROCStories.

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


def story_argv(args):
    """Options of train.py for the real stories and the released vocabulary."""
    return ['--data_dir', args.data_dir, '--encoder_path', args.encoder_path, '--bpe_path', args.bpe_path,
            '--device', args.device]


def has_stories(args):
    try:
        train.load_encoder(args.encoder_path, args.bpe_path)
        find_cloze_file(args.data_dir, 'test')
        return not args.toy
    except (OSError, ValueError):
        return False


def batches(args, cfg, B):
    """A function from the number of a round to a batch (X, M, Y), and what the batches are."""
    if not has_stories(args):
        return lambda i: make_batch(B, T_DATA, cfg.n_tokens, i), 'drawn stories'
    options = train.parse_args([*story_argv(args), '--n_transfer', '-1'])
    arrays = train.load_data(options, train.TASKS['rocstories']).train
    return lambda i: tuple(t[i * B:(i + 1) * B] for t in arrays), 'real stories'


@contextlib.contextmanager
def shards(size):
    """A folder with random weights of a network of this size in the released layout."""
    with tempfile.TemporaryDirectory() as folder:
        save_openai_pretrained_model(TransformerModel(dotdict(DEFAULT_CONFIG, **size), vocab=N_TOKENS + 512), folder)
        yield folder


# Contenders

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


def fast_step(cfg, T, device, dtype='float32'):
    """The step that train.py takes."""
    model = build(cfg, T, device)
    adam = opt.OpenAIAdam(model.parameters(), 6.25e-5, 'warmup_linear', 0.002, 1000, l2=0.01, max_grad_norm=1)
    runner = train.Losses(model, 0.5)

    def step(X, M, Y):
        _, ctx = choose_device(str(device), dtype)
        train.update(runner, adam, (X, M, Y), 1, ctx)
    return step


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


def dtypes(device):
    """The values of --dtype that differ on a device."""
    return ['float32', 'tf32', 'bfloat16'] if device.type == 'cuda' else ['float32', 'bfloat16']


def contenders(args, cfg, T, device):
    """Name -> function that builds a training step, of all that can be compared here."""
    steps = {'plain': lambda: plain_step(cfg, T, device)}
    steps |= {f'train.py, {dtype}': lambda dtype=dtype: fast_step(cfg, T, device, dtype) for dtype in dtypes(device)}
    if importlib.util.find_spec('transformers'):
        steps['transformers'] = lambda: transformers_step(cfg, T, device)
    if args.against:
        steps['against'] = lambda: plain_step(cfg, T, device, port_modules(args.against))
    return steps


def wait_for(device):
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def take_turns(contenders, inputs, rounds, device, what):
    """Seconds of each contender in each round: name -> list. The round before the first does not count."""
    seconds = {name: [] for name in contenders}
    for i in tqdm(range(-1, rounds), desc=what, ncols=80, leave=False, disable=None):
        for name, run in contenders.items():
            start = time.perf_counter()
            run(*inputs(i + 1))
            wait_for(device)
            if i >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values, digits=2):
    return f'{np.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})'


def ratio_table(seconds, n, unit, bases=('plain',)):
    """Rows of a table: seconds, n units in that time, and how many times as fast as each of `bases`, round by round."""
    bases = [base for base in bases if base in seconds]
    rows = [f'| | seconds | {unit}/s |' + ''.join(f' times as fast as {base} |' for base in bases),
            '|---|---|---|' + '---|' * len(bases)]
    for name, values in seconds.items():
        ratios = [spread(np.array(seconds[base]) / np.array(values)) for base in bases]
        rows.append('| ' + ' | '.join([name, spread(values), f'{n / np.median(values):.2f}', *ratios]) + ' |')
    return rows


# Sections: each returns lines of BENCHMARKS.md

def bench_train(args, cfg, device):
    """Training step at batch 8"""
    B = 8
    steps = {name: make() for name, make in contenders(args, cfg, T_DATA, device).items()}
    inputs, which = batches(args, cfg, B)
    seconds = take_turns(steps, inputs, args.rounds, device, 'training steps')
    return [f'Both losses, clipping and Adam; {which}.', '',
            *ratio_table(seconds, B, 'examples', ('plain', 'transformers', 'against'))]


def bench_memory(args, cfg, device):
    """Peak memory, training at batch 20"""
    names = [name for name in contenders(args, cfg, T_DATA, device) if name != 'train.py, tf32']
    peaks = {name: one_process(args, name, 20, T_DATA)['mib'] for name in tqdm(names, leave=False, disable=None)}
    what = 'Allocated on the GPU' if device.type == 'cuda' else 'Resident memory of the process, Python and torch too'
    return [f'{what}; drawn stories.', '', '| | MiB | of plain |', '|---|---|---|',
            *(f'| {name} | {peak:.0f} | {peak / peaks["plain"]:.2f} |' for name, peak in peaks.items())]


def evaluators(model, device, n_batch):
    """Name -> function from X, M, Y to task logits, n_batch examples at a time."""
    @torch.no_grad()
    def plain(X, M, _):
        return torch.cat([model(x.to(device).long())[1] for x in X.split(n_batch)]).cpu()

    def shared(dtype):
        def run(X, M, _):
            _, ctx = choose_device(str(device), dtype)
            return train.evaluate(model, X, M, n_batch, ctx, Ranks())
        return run

    return {'plain': plain} | {f'train.py, {dtype}': shared(dtype) for dtype in dtypes(device)}


def bench_evaluate(args, cfg, device):
    """Evaluation at batch 32"""
    n = 96
    inputs, which = batches(args, cfg, n)
    run = evaluators(build(cfg, T_DATA, device).eval(), device, 32)
    seconds = take_turns(run, inputs, args.rounds, device, 'evaluating')
    return [f'The logits of both endings of {n} stories; {which}.', '', *ratio_table(seconds, n, 'examples')]


def bench_precision(args, cfg, device):
    """What --dtype does to the numbers"""
    model = build(cfg, T_DATA, device).eval()
    nn.init.normal_(model.task_head.linear.weight)       # logits of about 30, so that their rounding shows
    batch = batches(args, cfg, 32)[0](0)
    logits = {name: run(*batch) for name, run in evaluators(model, device, 32).items()}
    exact = logits.pop('plain')
    accuracies = fine_tuning_accuracies(args, device)
    rows = ['| | largest error of a logit, relative to the largest logit | ' + ' | '.join(
                f'{what}: test accuracy, {len(next(iter(found.values())))} seeds' for what, found in accuracies.items())
            + ' |', '|---|---|' + '---|' * len(accuracies)]
    for dtype, ours in zip(dtypes(device), logits.values(), strict=True):
        error = (ours - exact).abs().max() / exact.abs().max()
        rows.append(f'| {dtype} | {error:.1e} | ' + ' | '.join(
            spread(found[dtype]) for found in accuracies.values()) + ' |')
    return ['Logits of the full-size network against the plain path in float32; accuracies of whole fine-tuning runs '
            'on the sample and on the Story Cloze Test from small random weights (64 wide, 2 layers). tf32 exists on a '
            'GPU only.', '', *rows]


def fine_tuning_accuracies(args, device):
    """what -> {dtype: test accuracies over seeds}"""
    seeds = '42-43' if args.toy else '42-44'
    tasks = {'sample': ['--dataset', 'sample', *['--n_iter', '1'] * args.toy]}
    with contextlib.ExitStack() as stack:
        if has_stories(args):
            weights = stack.enter_context(shards(SMALL))
            tasks['Story Cloze'] = [*story_argv(args), '--model_path', weights, *SMALL_ARGV]
        found = {}
        for what, argv in tasks.items():
            for dtype in dtypes(device):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                files = [f'--{kind}_dir={folder}' for kind in ('log', 'save', 'submission')]
                options = [*argv, *files, '--seeds', seeds, '--dtype', dtype, '--device', args.device, '--analysis']
                with contextlib.redirect_stdout(sys.stderr):
                    runs = train.main(train.parse_args(options))
                found.setdefault(what, {})[dtype] = [run.test_accuracy for run in runs]
    return found


def bench_startup(args, cfg, device):
    """From the command to the first update"""
    if not has_stories(args):
        return [NOT_MEASURED + ' It needs the Story Cloze files and the released vocabulary.']
    code = ('import sys, time; began = float(sys.argv.pop(1))\n'
            'import train; argv = sys.argv[1:]\n'
            'def update(*_): raise SystemExit(print(time.time() - began))\n'
            'train.update = update; train.main(train.parse_args(argv))')
    with shards({}) as weights, tempfile.TemporaryDirectory() as folder:
        argv = [*story_argv(args), '--model_path', weights,
                *(f'--{kind}_dir={folder}' for kind in ('log', 'save', 'submission'))]
        seconds = []
        for i in range(args.rounds + 1):
            run = subprocess.run([sys.executable, '-c', code, str(time.time()), *argv, '--desc', str(i)], check=True,
                                 capture_output=True, text=True)
            seconds.append(float(run.stdout.splitlines()[-1]))
    return ['`python train.py --dataset rocstories`: imports, stories to ids, 466 MB of weights read, checked and '
            'hashed. Files are warm.', '', f'{spread(seconds[1:])} s; the first of these runs, which had to encode the '
            f'stories, {seconds[0]:.2f} s.']


def bench_run(args, cfg, device):
    """A complete fine-tuning run"""
    if not has_stories(args):
        return [NOT_MEASURED + ' It needs the Story Cloze files and the released vocabulary.']
    rows = ['| | seconds, all | before the first update | updates and files | evaluations | test predictions |',
            '|---|' + '---|' * 5]
    with shards({}) as weights, tempfile.TemporaryDirectory() as folder:
        for dtype in ('float32', 'bfloat16') if device.type == 'cuda' else ('float32',):
            argv = [*story_argv(args), '--model_path', weights, '--dtype', dtype, '--analysis',
                    *(f'--{kind}_dir={folder}/{dtype}' for kind in ('log', 'save', 'submission'))]
            rows.append(f'| {dtype} | ' + ' | '.join(f'{s:.1f}' for s in run_times(argv)) + ' |')
    return ['`python train.py --dataset rocstories --submit --analysis` with random weights of full size: 3 epochs of '
            '46 updates of 32 examples, an evaluation of 374 + 374 stories after each, 1871 test predictions.', '',
            *rows]


def run_times(argv):
    """Seconds of a run of train.py in this process: all, before the first update, updates, evaluations, predictions."""
    spans = dict(update=[], evaluate=[])

    def timed(name, function):
        def run(*args):
            start = time.time()
            result = function(*args)
            spans[name].append((start, time.time()))
            return result
        return run

    start = time.time()
    with mock.patch.multiple(train, **{name: timed(name, getattr(train, name)) for name in spans}):
        with contextlib.redirect_stdout(sys.stderr):
            train.main(train.parse_args(argv))
    total, first = time.time() - start, spans['update'][0][0] - start
    *evaluations, predictions = [end - begin for begin, end in spans['evaluate']]      # each waits for its results
    return total, first, total - first - sum(evaluations) - predictions, sum(evaluations), predictions


@torch.no_grad()
def recompute(model, n_vocab, ids, gen_len):
    """Greedy continuation that runs all steps so far through the plain model for every token."""
    ids = torch.tensor([ids], device=model.transformer.embed.weight.device)
    for _ in range(gen_len):
        h = model.transformer(with_positions(model.transformer, ids))
        logits = h[:, -1] @ model.transformer.embed.weight[:n_vocab].T
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        yield ids[0, -1].item()


def language_model(cfg, device):
    """A network of random weights as a language model, and a prompt of 128 ids."""
    torch.manual_seed(0)
    model = LMModel(cfg, vocab=cfg.n_tokens + 512).to(device).eval()
    return model, torch.randint(cfg.n_tokens, (128,)).tolist()


def continuations(model, n_tokens, gen_len):
    """Name -> function from a prompt to its greedy continuation, with the cache of keys and values and without."""
    def cached(prompt):
        return [i.item() for i in generate.sample(model.transformer, n_tokens, prompt, gen_len, temperature=0)]

    return {'plain': lambda prompt: list(recompute(model, n_tokens, prompt, gen_len)), 'generate.py': cached}


def bench_generate(args, cfg, device):
    """Generation, 100 tokens after 128"""
    model, prompt = language_model(cfg, device)
    both = continuations(model, cfg.n_tokens, 10 if args.toy else 100)
    made = {name: run(prompt) for name, run in both.items()}
    seconds = take_turns(both, lambda i: [prompt], args.rounds, device, 'generating')
    same = 'the same tokens' if made['plain'] == made['generate.py'] else 'OTHER TOKENS'
    return [f'Greedy, float32; plain runs all steps so far for every token; {same}.', '',
            *ratio_table(seconds, len(made['plain']), 'tokens')]


def one_process(args, name, B, T):
    """Peak memory, 'mib', and the median of the seconds of a few training steps, 'seconds', in a process of its own."""
    command = [sys.executable, __file__, '--one', name, '--batch', str(B), '--length', str(T), '--device', args.device,
               *['--toy'] * args.toy, *(['--against', args.against] if args.against else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def run_one(args, cfg, device):
    step = contenders(args, cfg, args.length, device)[args.one]()
    batch = make_batch(args.batch, args.length, cfg.n_tokens, full=args.length != T_DATA)
    seconds = take_turns({'it': step}, lambda _: batch, 3, device, args.one)['it']
    peak = torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else peak_of_process()
    print(json.dumps(dict(mib=peak / 2 ** 20, seconds=float(np.median(seconds)))))


def peak_of_process():
    """The most memory, in bytes, that this process had resident."""
    try:
        with open('/proc/self/status', encoding='ascii') as f:
            return 1024 * int(re.search(r'VmHWM:\s*(\d+) kB', f.read())[1])
    except OSError:                                                    # of Linux's getrusage a parent's peak is part
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def bench_curves(args, cfg, device):
    """Costs as the work grows"""
    batch_sizes, lengths = ([1, 2, 4], [16, 32]) if args.toy else ([1, 2, 4, 8, 16, 32], [64, 128, 256, 512])
    ours = 'train.py, float32'
    by_batch, by_length = ({name: [one_process(args, name, *point) for point in tqdm(points, desc=name, leave=False,
                                                                                      disable=None)]
                            for name in ('plain', ours)}
                           for points in ([(B, T_DATA) for B in batch_sizes], [(2, T) for T in lengths]))
    evaluated = evaluation_rates(args, cfg, device, batch_sizes)
    made = generation_rates(args, cfg, device)
    panels = [('examples in a batch', 's per training step', batch_sizes, of(by_batch, 'seconds')),
              ('examples in a batch', 'GiB while training', batch_sizes, of(by_batch, 'mib', 1024)),
              ('examples in a batch', 'examples/s in evaluation', batch_sizes, evaluated),
              ('steps of a sequence (batch 2, no padding)', 's per training step', lengths, of(by_length, 'seconds')),
              ('steps of a sequence (batch 2, no padding)', 'GiB while training', lengths, of(by_length, 'mib', 1024)),
              ('steps so far', 'tokens/s in generation', *made)]
    picture = f'bench_{device.type}.png'
    draw(panels, os.path.join(os.path.dirname(args.out), picture))

    seconds, mib = (of(by_batch, key)[ours] for key in ('seconds', 'mib'))
    (step, fixed), (more, base) = np.polyfit(batch_sizes, seconds, 1), np.polyfit(batch_sizes, mib, 1)
    per_token = [1000 * (s - fixed) / (4 * T) for s, T in zip(of(by_length, 'seconds')[ours], lengths, strict=True)]
    where, rates = made[0], made[1]['generate.py']
    return [f'![time and memory against batch and length]({picture})', '',
            f'- Training is linear in the examples of a batch after a fixed part (Adam, the norm of the gradients, the '
            f'dropout of the table): {fixed:.2f} s + {step:.3f} s an example, {base:.0f} MiB + {more:.0f} MiB an '
            f'example.',
            f'- It is linear in real tokens but for attention, whose weights grow with the square of the length: '
            f'beside the fixed part {per_token[0]:.1f} ms a token at {lengths[0]} steps, {per_token[-1]:.1f} ms at '
            f'{lengths[-1]}.',
            '- Evaluation is linear in examples; a story costs once, whatever the number of its endings.',
            f'- A token generated with the cache costs all weights once and attention to the steps so far: '
            f'{rates[0]:.0f} tokens/s after {where[0]} steps, {rates[-1]:.0f} after {where[-1]}. Without the cache it '
            f'costs all steps so far again.']


def of(results, key, unit=1):
    """Name -> one of the measured numbers of each point."""
    return {name: [point[key] / unit for point in points] for name, points in results.items()}


def evaluation_rates(args, cfg, device, batch_sizes):
    """Name -> examples/s at each batch size."""
    model, n = build(cfg, T_DATA, device).eval(), max(batch_sizes)
    inputs, rates = batches(args, cfg, n)[0], {'plain': [], 'train.py, float32': []}
    for B in batch_sizes:
        run = evaluators(model, device, B)
        seconds = take_turns({name: run[name] for name in rates}, inputs, 3, device, 'evaluating')
        for name in rates:
            rates[name].append(n / np.median(seconds[name]))
    return rates


def generation_rates(args, cfg, device):
    """Steps so far, and name -> tokens/s there."""
    model, prompt = language_model(cfg, device)
    steps, window = ([4, 12], 2) if args.toy else ([16, 64, 128, 256, 384, 496], 8)
    ticks = [time.perf_counter() for _ in generate.sample(model.transformer, cfg.n_tokens, prompt[:2],
                                                          steps[-1] + window, temperature=0)]
    ids = (prompt * 4)[:steps[-1]]
    plain = []
    for n in steps:
        start = time.perf_counter()
        plain.append(3 / (len(list(recompute(model, cfg.n_tokens, ids[:n], 3))) and time.perf_counter() - start))
    return steps, {'plain': plain, 'generate.py': [window / (ticks[n - 2 + window] - ticks[n - 2]) for n in steps]}


def draw(panels, path):
    """A picture of (x label, y label, x, {name: y}) panels, three in a row."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), layout='constrained')
    for axis, (x_label, y_label, x, lines) in zip(axes.flat, panels, strict=True):
        for name, y in lines.items():
            axis.plot(x, y, 'o-', label=name)
        axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    with write_whole(path, 'wb') as f:
        figure.savefig(f, dpi=100, format='png')
    plt.close(figure)


SECTIONS = {'train': bench_train, 'memory': bench_memory, 'evaluate': bench_evaluate, 'precision': bench_precision,
            'startup': bench_startup, 'run': bench_run, 'generate': bench_generate, 'curves': bench_curves}


# The report

def heading(name, kind):
    return f'{SECTIONS[name].__doc__} ({"GPU" if kind == "cuda" else kind.upper()})'


def read_report(path):
    """heading -> text of the sections of an earlier report."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding='utf-8') as f:
        parts = re.split(r'^## ', f.read(), flags=re.MULTILINE)[1:]
    return {title: text.strip() for title, text in (part.split('\n', 1) for part in parts)}


def write_report(path, sections):
    """Write all sections, those of a CPU and a GPU even if they have no figures yet."""
    order = [heading(name, kind) for kind in ('cpu', 'cuda', 'mps') for name in SECTIONS]
    lines = ['# Benchmarks', '', ' '.join(__doc__.split('\n\n')[2].split())]
    for title in order:
        if title in sections or not title.endswith('(MPS)'):
            lines += ['', f'## {title}', '', sections.get(title, NOT_MEASURED)]
    with write_whole(path) as f:
        f.write('\n'.join(lines) + '\n')


def provenance(args, name, device):
    """When, where and by what command a section was measured."""
    where = torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name()
    packages = [f'{package} {importlib.metadata.version(package)}' for package in ('torch', 'transformers')
                if importlib.util.find_spec(package)]
    command = f'python scripts/bench.py --only {name}'
    command += f' --rounds {args.rounds}' * (args.rounds != 5) + ' --toy' * args.toy
    return (f'*`{command}`, {time.strftime("%Y-%m-%d")}: {where}, {torch.get_num_threads()} threads, Python '
            f'{platform.python_version()}, {", ".join(packages)}*')


def cpu_name():
    """The processor, as Linux names it; elsewhere what Python knows."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as f:
            return next(line.split(':', 1)[1].strip() for line in f if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(args):
    device, _ = choose_device(args.device, 'float32')
    cfg = dotdict(DEFAULT_CONFIG, n_tokens=N_TOKENS)
    if args.toy:
        cfg = dotdict(cfg, **TOY, n_tokens=200)
    if args.one:
        return run_one(args, cfg, device)
    names = args.only or list(SECTIONS)
    if len(names) > 1:                                                 # what one leaves in memory slows the next
        for name in names:
            one = argparse.Namespace(**{**vars(args), 'only': [name]})
            process = multiprocessing.get_context('spawn').Process(target=main, args=[one])
            process.start()
            process.join()
            if process.exitcode:
                raise ValueError(f'--only {name} failed')
        return
    [name] = names
    lines = [provenance(args, name, device), '', *SECTIONS[name](args, cfg, device)]
    print('\n'.join([f'## {heading(name, device.type)}', '', *lines]), '\n', flush=True)
    write_report(args.out, read_report(args.out) | {heading(name, device.type): '\n'.join(lines)})
    print(f'written: {args.out}')


def parse_args(argv=None):
    parser = Parser(__doc__)
    parser.add_argument('--only', nargs='+', choices=SECTIONS, help='these sections alone; the others stay as they are')
    parser.add_argument('--rounds', type=int, default=5, help='counted rounds of each comparison')
    parser.add_argument('--against', metavar='PATH', help='checkout of a port to compare with')
    parser.add_argument('--data_dir', default='data/', help='folder with the Story Cloze files, if there are')
    parser.add_argument('--device', default='auto', help='cuda, mps, cpu; auto takes the first there is')
    parser.add_argument('--out', help='file to write, pictures go beside it (default: BENCHMARKS.md, with --toy '
                        'BENCHMARKS.toy.md)')
    parser.add_argument('--toy', action='store_true', help='a tiny network, to see that it works')
    parser.add_argument('--one', help=argparse.SUPPRESS)                # a process of its own, for its peak memory
    parser.add_argument('--batch', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--length', type=int, help=argparse.SUPPRESS)
    add_path_args(parser)
    args = finish_paths(parser.parse_args(argv))
    args.out = args.out or ('BENCHMARKS.toy.md' if args.toy else 'BENCHMARKS.md')
    return args


if __name__ == '__main__':
    run_script(main, parse_args)
