"""Measure speed and memory, beside the plain path, `transformers`, and checkouts of others.

    python scripts/bench.py                                         # all sections, one after the other
    python scripts/bench.py --only train --rounds 9 --port ../port  # one section; the others stay in the file
    python scripts/bench.py --device cuda --nanogpt ../nanoGPT      # what a GPU can measure
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.options import Parser, number
from common.shell import begin_script, is_out_of_memory, run_script

SECTION_NAMES = ('train', 'memory', 'pretrain', 'evaluate', 'small', 'generate', 'curves')


def parse_args(argv=None):
    parser = Parser('scripts/bench.py', __doc__)
    group = parser.add_argument_group('what to measure')
    group.add_argument('--only', nargs='+', choices=SECTION_NAMES, help='sections (default: all); others stay')
    group.add_argument('--rounds', type=number(int, 1), default=5, help='rounds of each comparison, after a first one')
    group.add_argument('--port', metavar='FOLDER', help='a checkout of the port, for the section train')
    group.add_argument('--nanogpt', metavar='FOLDER', help='a checkout of nanoGPT, for the section pretrain')
    group.add_argument('--toy', action='store_true', help='use a tiny network, to test this script')
    group.add_argument('--device', default='auto', help='cuda, mps or cpu; auto: the first available one')
    group.add_argument('--out', metavar='FILE', default='BENCHMARKS.md', help='the report; its picture goes to docs/')
    args = parser.parse_args(argv)
    if args.toy and args.out == parser.get_default('out'):
        raise ValueError('--toy needs --out: its figures would replace those of a real network')
    return args


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import copy
import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import torch

import fast
import generate
from model_pytorch import LMModel, dotdict
from scripts import contenders, report
from utils import read_text

SMALL = dict(n_embd=256, n_head=4, n_layer=4, n_tokens=8192)  # as model/books

METHOD = (
    'Each section, and each peak of memory, is measured in its own process. In each round all contenders of a '
    'comparison run one after the other, because the speed of a machine changes with time. Figures are medians, with '
    'the smallest and the largest value in brackets; a ratio compares two times of the same round, and is above 1 '
    'where the row is faster. `plain` is model_pytorch.py as it is written, on padded batches and with whole logits: '
    'what `train.py --plain` computes. Weights are random, and stories are random ids of the lengths of real ones.')


def run_apart(function, *args):
    """function(*args) in a new process, so that the memory of earlier measurements does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def peak_of(device):
    """The largest memory so far, in MiB: of tensors on a GPU, otherwise resident memory of this process, from Linux."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2 ** 20
    return int(re.search(r'VmHWM:\s*(\d+) kB', read_text('/proc/self/status'))[1]) / 2 ** 10


def step_cost(args, name, B, n_ctx, rounds, n_parts=1, pretraining=False):
    """Median seconds of a contender's training step of B examples in n_parts, and the peak of memory in MiB."""
    cfg, device = contenders.setup(args)
    if pretraining:
        steps = contenders.lm_steps(args, cfg, n_ctx, device, B // n_parts)
        batch = partial(contenders.drawn_tokens, cfg, B, n_ctx)
    else:
        steps = contenders.training_steps(args, cfg, n_ctx, device, n_parts)
        stories = contenders.drawn_stories(B, cfg.n_tokens, n_ctx, full=n_ctx != contenders.T_DATA)
        batch = partial(contenders.get_batch, stories, B)
    seconds = report.take_turns({name: steps[name]()}, batch, rounds, device)[name]
    return float(np.median(seconds[1:])), peak_of(device)


# Sections: each returns lines of BENCHMARKS.md

def bench_train(args, cfg, device):
    B, stories = 32 if device.type == 'cuda' else 8, contenders.drawn_stories(512, cfg.n_tokens)
    steps = {name: make() for name, make in contenders.training_steps(args, cfg, stories.n_ctx, device).items()}
    seconds = report.take_turns(steps, partial(contenders.get_batch, stories, B), args.rounds, device)
    return [f'Both losses, clipping and Adam, for batches of {B}.', '',
            *report.ratio_table(seconds, B, 'examples', ('plain', 'transformers', 'port'))]


def bench_memory(args, cfg, device):
    n_ctx, rows = 32 if args.toy else 512, []
    for what, T, pretraining, names in (
            ('fine-tuning', contenders.T_DATA, False, contenders.training_steps(args, cfg, contenders.T_DATA, device)),
            ('pre-training', n_ctx, True, contenders.lm_steps(args, cfg, n_ctx, device, 8))):
        mib = {}
        for name in (name for name in names if 'compiled' not in name):
            n_parts = 1 if name in contenders.WITHOUT_TOWERS else 2  # in the second there are gradients of the first
            mib[name] = run_apart(step_cost, args, name, 8 * n_parts, T, 1, n_parts, pretraining)[1]
        rows += [[f'{what}: {name}', f'{peak / mib["plain"]:.2f}', f'{peak:.0f}'] for name, peak in mib.items()]
    memory = 'Allocated on the GPU' if device.type == 'cuda' else 'Resident memory of the process, Python and torch too'
    return [f'{memory}, in the default runs of train.py and pretrain.py: 8 stories or 8 sequences of {n_ctx} tokens at '
            'a time, whose gradients add up. transformers and the port take 8 stories in a step.', '',
            *report.table(['', 'of plain', 'MiB'], rows)]


def bench_pretrain(args, cfg, device):
    B, n_ctx, n_batch = (4, 32, 2) if args.toy else (64, 512, 8) if device.type == 'cuda' else (4, 512, 4)
    if cfg.n_embd == SMALL['n_embd']:
        B, n_ctx, n_batch = 32, 256, 16
    steps = {name: make() for name, make in contenders.lm_steps(args, cfg, n_ctx, device, n_batch).items()}
    seconds = report.take_turns(steps, partial(contenders.drawn_tokens, cfg, B, n_ctx), args.rounds, device)
    return [f'{B} sequences of {n_ctx} random tokens, {n_batch} at a time, with dropout, clipping and Adam.', '',
            *report.ratio_table(seconds, B * n_ctx, 'tokens', ('plain', 'nanoGPT, float32'))]


def bench_evaluate(args, cfg, device):
    stories = contenders.drawn_stories(96, cfg.n_tokens)
    runs = contenders.evaluators(contenders.build(cfg, stories.n_ctx, device), stories, 96, 32, device)
    seconds = report.take_turns(runs, lambda _: (), args.rounds, device)
    return ['The logits of both endings of 96 stories.', '', *report.ratio_table(seconds, 96, 'examples')]


def bench_small(args, cfg, device):
    """The sections train, pretrain and evaluate for a network of the size of model/books."""
    small = cfg if args.toy else dotdict(cfg, **SMALL)
    parts = {'Fine-tuning': bench_train, 'Pre-training': bench_pretrain, 'Evaluation': bench_evaluate}
    return [line for what, bench in parts.items() for line in (f'### {what}', '', *bench(args, small, device), '')]


def bench_generate(args, cfg, device):
    torch.manual_seed(0)
    transformer = LMModel(cfg, vocab=cfg.n_tokens + 512).to(device).eval().transformer
    prompt = torch.randint(cfg.n_tokens, (128,)).tolist()
    ours = fast.use_fast_layers(copy.deepcopy(transformer))
    gen_len = 10 if args.toy else 100

    def cached(prompt):
        return [ids.item() for ids in generate.sample(ours, cfg.n_tokens, prompt, gen_len, temperature=0)]

    runs = {'plain': partial(contenders.recompute, transformer, cfg.n_tokens, gen_len), 'generate.py': cached}
    seconds = report.take_turns(runs, lambda _: [prompt], args.rounds, device)
    return ['Greedy, float32; plain computes all steps again for each token.', '',
            *report.ratio_table(seconds, gen_len, 'tokens')]


def bench_curves(args, cfg, device):
    sizes, lengths = ([1, 2, 4], [16, 32]) if args.toy else ([1, 2, 4, 8, 16, 32], [64, 128, 256, 512])
    names, panels = ('plain', 'train.py, float32'), []
    for x_label, x, points in (
            ('examples in a batch', sizes, [(B, contenders.T_DATA) for B in sizes]),
            ('tokens of a sequence (4 sequences, no padding)', lengths, [(2, n_ctx) for n_ctx in lengths])):
        costs = {name: [run_apart(step_cost, args, name, *point, 3) for point in points] for name in names}
        for i, title in enumerate(('training step (s): lower is better', 'memory in training (MiB): lower is better')):
            panels.append((x_label, title, x, {name: [cost[i] for cost in of_name] for name, of_name in costs.items()}))
    picture = f'docs/bench_{device.type}.png'
    report.draw(panels, os.path.join(os.path.dirname(args.out), picture),
                f'{report.machine(device)}, torch {torch.__version__}, {time.strftime("%Y-%m-%d")}')
    return [f'![time and memory against batch and length]({picture})']


# name -> heading in the report, function
SECTIONS = {
    'train': ('Fine-tuning step', bench_train),
    'memory': ('Peak memory in training', bench_memory),
    'pretrain': ('Pre-training step', bench_pretrain),
    'evaluate': ('Evaluation at batch 32', bench_evaluate),
    'small': ('A small network, 4 blocks, 256 wide', bench_small),
    'generate': ('Generation, 100 tokens after 128', bench_generate),
    'curves': ('Costs as the work grows', bench_curves),
}


def measure(args, name):
    """Measure one section, print it, and replace it in the report. Other sections of the report do not change."""
    cfg, device = contenders.setup(args)
    what, bench = SECTIONS[name]
    lines = bench(args, cfg, device)
    command = f'python scripts/bench.py --only {name} --rounds {args.rounds} --device {device.type}'
    heading = f'{what} ({"GPU" if device.type == "cuda" else device.type.upper()})'
    text = '\n'.join([report.provenance(command + ' --toy' * args.toy, device), '', *lines])
    print(f'## {heading}\n\n{text}\n', flush=True)
    report.write_report(args.out, METHOD, report.read_report(args.out) | {heading: text})


def main(args):
    os.environ['TORCHINDUCTOR_FORCE_DISABLE_CACHES'] = '1'  # the first round then always compiles
    for name in args.only or SECTIONS:
        try:
            run_apart(measure, args, name)
        except Exception as e:
            if not (is_out_of_memory(e) or isinstance(e, BrokenProcessPool)):
                raise
            print(f'{name} is left out: not enough memory, or its process was killed', flush=True)


if __name__ == '__main__':
    run_script(main, args)
