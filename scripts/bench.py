"""Measure speed and memory, beside the plain path, `transformers`, and checkouts of others.

    python scripts/bench.py                                             # all sections, one after the other
    python scripts/bench.py --only train --rounds 9 --against ../port   # one section; the others stay in the file
    python scripts/bench.py --device cuda --against ../port ../nanoGPT  # what a GPU can measure, all contenders
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.options import Parser, number
from common.shell import begin_script, is_out_of_memory, run_script

SECTION_NAMES = ('train', 'memory', 'pretrain', 'evaluate', 'generate', 'curves')


def parse_args(argv=None):
    parser = Parser('scripts/bench.py', __doc__)
    group = parser.add_argument_group('what to measure')
    group.add_argument('--only', nargs='+', choices=SECTION_NAMES, help='these sections; the others of the report do '
                       'not change (default: all)')
    group.add_argument('--rounds', type=number(int, 1), default=5, help='rounds of each comparison, after a first one')
    group.add_argument('--against', nargs='+', metavar='FOLDER', help='checkouts to compare with: of the '
                       'port (train), of nanoGPT (pretrain)')
    group.add_argument('--toy', action='store_true', help='use a tiny network, to test this script')
    group.add_argument('--device', default='auto', help='cuda, mps or cpu; auto: the first available one')
    group = parser.add_argument_group('files')
    group.add_argument('--out', metavar='FILE', help='the report; its picture is beside it (default: BENCHMARKS.md, '
                       'with --toy BENCHMARKS.toy.md)')
    args = parser.parse_args(argv)
    args.out = args.out or ('BENCHMARKS.toy.md' if args.toy else 'BENCHMARKS.md')
    return args


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import copy
import math
import multiprocessing
import os
import re
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

import fast
import generate
from common.device import choose_device
from model_pytorch import TransformerModel
from scripts import contenders, report
from utils import read_text

METHOD = (
    'Each section, and each peak of memory, is measured in its own process. In each round all contenders of a '
    'comparison run one after the other, because the speed of a machine changes with time. Figures are medians, with '
    'the smallest and the largest value in brackets; a ratio compares two times of the same round, and is above 1 '
    'where the row is faster. `plain` is model_pytorch.py as it is written, on padded batches and with whole logits: '
    'what `train.py --plain` computes. Weights are random, and stories are random ids of the lengths of real ones.')
OURS = 'train.py, float32'


# Separate processes

def run_apart(function, *args):
    """function(*args) in a new process, so that the memory of earlier measurements does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def peak_of(device):
    """The largest memory so far, in MiB: of tensors on a GPU, or resident memory of this process."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2 ** 20
    if sys.platform == 'linux':  # here ru_maxrss includes the parent's peak
        return int(re.search(r'VmHWM:\s*(\d+) kB', read_text('/proc/self/status'))[1]) / 2 ** 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20


def step_cost(args, name, B, n_ctx, rounds):
    """Median seconds of a training step, and the peak of memory in MiB; nan if they are too much for the machine."""
    cfg, device = contenders.setup(args)
    step = contenders.training_steps(args, cfg, n_ctx, device)[name]()
    stories = contenders.drawn_stories(B, cfg.n_tokens, n_ctx, full=n_ctx != contenders.T_DATA)
    batch = partial(contenders.get_batch, stories, B)
    seconds = report.take_turns({name: step}, batch, rounds, device, name)[name]
    return (float(np.median(seconds)), peak_of(device)) if seconds else (np.nan, np.nan)


def step_costs(args, names, points, rounds):
    """Name -> seconds of a training step for each (B, n_ctx) of `points`, and name -> MiB."""
    seconds, mib = {}, {}
    for name in names:
        costs = [run_apart(step_cost, args, name, *point, rounds)
                 for point in tqdm(points, name, ncols=80, leave=False, disable=None)]
        seconds[name], mib[name] = zip(*costs, strict=True)
    return seconds, mib


def default_peak(args, script):
    """The peak of memory in MiB, or nan, of updates with the defaults of train.py or pretrain.py."""
    cfg, device = contenders.setup(args)
    if script == 'train.py':
        step = contenders.our_step(cfg, contenders.T_DATA, device, 'float32', plain=False, n_towers=4)
        inputs = partial(contenders.get_batch, contenders.drawn_stories(32, cfg.n_tokens), 32)
    else:
        options = contenders.lm_options(cfg, 32 if args.toy else 512)
        step = contenders.our_lm_step(cfg, options.n_ctx, device, options.micro_batch, 'float32')
        B = 2 * options.micro_batch  # a third tower adds no memory
        inputs = partial(contenders.drawn_tokens, cfg, B, options.n_ctx)
    return peak_of(device) if report.take_turns({script: step}, inputs, 1, device, script)[script] else np.nan


# Sections: each returns lines of BENCHMARKS.md

def bench_train(args, cfg, device):
    stories = contenders.drawn_stories(512, cfg.n_tokens)
    steps = {name: make() for name, make in contenders.training_steps(args, cfg, stories.n_ctx, device).items()}
    lines = ['Both losses, clipping and Adam.']
    for B in (8, 20, 32, 64) if device.type == 'cuda' else (8,):
        batch = partial(contenders.get_batch, stories, B)
        seconds = report.take_turns(steps, batch, args.rounds, device, f'steps of {B} examples')
        bases = 'plain', 'transformers', 'port'
        lines += ['', f'Batches of {B}:', '', *report.ratio_table(seconds, B, 'examples', bases)]
    return lines


def bench_memory(args, cfg, device):
    names = list(contenders.training_steps(args, cfg, contenders.T_DATA, device))
    _, mib = step_costs(args, names, [(20, contenders.T_DATA)], rounds=1)
    [plain] = mib['plain']
    rows = [[name, f'{peak / plain:.2f}', f'{peak:.0f}'] for name, [peak] in mib.items()]
    what = 'Allocated on the GPU' if device.type == 'cuda' else 'Resident memory of the process, Python and torch too'
    lines = [f'{what}; fine-tuning in batches of 20. nan: more than there is.', '',
             *report.table(['', 'of plain', 'MiB'], rows), '']
    for script in ('train.py', 'pretrain.py'):
        peak = run_apart(default_peak, args, script)
        lines.append(f'Updates with the defaults of `{script}` in float32 take {peak:.0f} MiB.')
    return lines


def matmul_flops(device, autocast, product=torch.matmul) -> float:
    """Operations a second in the product of two large square matrices: the network cannot be faster on this device."""
    size = 1024 if device.type == 'cpu' else 8192  # long enough to hide the start of a GPU's work
    a, best = torch.ones(size, size, device=device), math.inf
    with torch.no_grad(), autocast:
        for _ in range(4):
            started = time.perf_counter()
            product(a, a)[0, 0].item()  # waits for the device
            best = min(best, time.perf_counter() - started)
    return 2 * size ** 3 / best


def flops_of_token(model) -> int:
    """Operations of a training step for each token of sequences of n_ctx: 6 for each parameter, and 12 for each pair
    of states that attention compares (PaLM, appendix B)."""
    return 6 * sum(p.numel() for p in model.parameters()) + 12 * len(model.h) * model.embed.weight.size(1) * model.n_ctx


def bench_pretrain(args, cfg, device):
    B, n_ctx, n_batch = (4, 32, 2) if args.toy else (64, 512, 8) if device.type == 'cuda' else (4, 512, 4)
    lm_steps = contenders.lm_steps(args, cfg, n_ctx, device, n_batch)
    steps = {name: make() for name, (_, make) in lm_steps.items()}
    dtypes = contenders.dtypes_of(device)
    reached = {dtype: matmul_flops(*choose_device(str(device), dtype), fast.product) for dtype in dtypes}
    tokens = partial(contenders.drawn_tokens, cfg, B, n_ctx)
    seconds = report.take_turns(steps, tokens, args.rounds, device, 'pre-training')

    with torch.device('meta'):  # only its size is needed
        flops = B * n_ctx * flops_of_token(TransformerModel(cfg, vocab=cfg.n_tokens + n_ctx, n_ctx=n_ctx))
    share = {name: [f'{100 * flops / np.median(seconds[name]) / reached[dtype]:.0f} %']
             for name, (dtype, _) in lm_steps.items() if seconds[name]}
    rates = ', '.join(f'{rate / 1e12:.3g} in {dtype}' for dtype, rate in sorted(reached.items()))
    bases = 'plain', 'nanoGPT, float32', f'nanoGPT, {dtypes[-1]}, compiled'
    return [f'{B} sequences of {n_ctx} random tokens, {n_batch} at a time, with dropout, clipping and Adam. The '
            f'network needs {flops / 1e12:.3g} TFLOP for it; matrix products reach here, in TFLOP/s: {rates}.', '',
            *report.ratio_table(seconds, B * n_ctx, 'tokens', bases, ['of matrix products in this dtype'], share)]


def bench_evaluate(args, cfg, device):
    stories = contenders.drawn_stories(96, cfg.n_tokens)
    runs = contenders.evaluators(contenders.build(cfg, stories.n_ctx, device), stories, 96, 32, device)
    seconds = report.take_turns(runs, lambda _: (), args.rounds, device, 'evaluating')
    return ['The logits of both endings of 96 stories.', '', *report.ratio_table(seconds, 96, 'examples')]


def bench_generate(args, cfg, device):
    transformer, prompt = contenders.language_model(cfg, device)
    ours = fast.use_fast_layers(copy.deepcopy(transformer))
    gen_len = 10 if args.toy else 100

    def cached(prompt):
        return [ids.item() for ids in generate.sample(ours, cfg.n_tokens, prompt, gen_len, temperature=0)]

    def plain(prompt):
        return contenders.recompute(transformer, cfg.n_tokens, prompt, gen_len)

    same = 'the same tokens' if cached(prompt) == plain(prompt) else 'OTHER TOKENS'
    runs = {'plain': plain, 'generate.py': cached}
    seconds = report.take_turns(runs, lambda _: [prompt], args.rounds, device, 'generating')
    return [f'Greedy, float32; plain computes all steps again for each token; {same}.', '',
            *report.ratio_table(seconds, gen_len, 'tokens')]


def bench_curves(args, cfg, device):
    T = contenders.T_DATA
    sizes, lengths = ([1, 2, 4], [16, 32]) if args.toy else ([1, 2, 4, 8, 16, 32], [64, 128, 256, 512])
    seconds_of_size, mib_of_size = step_costs(args, ('plain', OURS), [(B, T) for B in sizes], 3)
    seconds_of_length, mib_of_length = step_costs(args, ('plain', OURS), [(2, n_ctx) for n_ctx in lengths], 3)
    if any(np.isnan(mib).any() for mib in (*mib_of_size.values(), *mib_of_length.values())):
        raise MemoryError('the picture needs all its points')
    steps, tokens_rates = generation_rates(args, cfg, device)
    examples, tokens = 'examples in a batch', 'tokens of a sequence (4 sequences, no padding)'
    time_title, memory_title = 'training step (s): lower is better', 'memory in training (MiB): lower is better'
    picture = f'bench_{device.type}.png'
    report.draw([(examples, time_title, sizes, seconds_of_size),
                 (tokens, time_title, lengths, seconds_of_length),
                 (examples, memory_title, sizes, mib_of_size),
                 (tokens, memory_title, lengths, mib_of_length),
                 (examples, 'evaluation (examples/s): higher is better', sizes,
                  evaluation_rates(args, cfg, device, sizes)),
                 ('tokens so far', 'generation (tokens/s): higher is better', steps, tokens_rates)],
                os.path.join(os.path.dirname(args.out), picture),
                f'{report.machine(device)}, torch {torch.__version__}, {time.strftime("%Y-%m-%d")}')
    return [f'![time and memory against batch and length]({picture})']


def evaluation_rates(args, cfg, device, sizes):
    """Name -> examples/s at each batch size."""
    n = max(sizes)
    stories, model = contenders.drawn_stories(n, cfg.n_tokens), contenders.build(cfg, contenders.T_DATA, device)
    rates = {name: [] for name in contenders.variants(device)}
    for B in sizes:
        runs = contenders.evaluators(model, stories, n, B, device)
        for name, seconds in report.take_turns(runs, lambda _: (), 3, device, 'evaluating').items():
            rates[name].append(n / np.median(seconds))
    return rates


def generation_rates(args, cfg, device):
    """Numbers of earlier steps, and name -> tokens/s after that many steps."""
    transformer, prompt = contenders.language_model(cfg, device)
    ours = fast.use_fast_layers(copy.deepcopy(transformer))
    steps, window = ([4, 12], 2) if args.toy else ([16, 32, 64, 128, 256, 496], 8)
    ticks = []
    for ids in generate.sample(ours, cfg.n_tokens, prompt[:2], steps[-1] + window, temperature=0):
        ids.tolist()  # waits for a GPU
        ticks.append(time.perf_counter())
    rates = {'plain': [], 'generate.py': [window / (ticks[n - 2 + window] - ticks[n - 2]) for n in steps]}
    for n in steps:
        ids = (prompt * 4)[:n]
        contenders.recompute(transformer, cfg.n_tokens, ids, 1)  # not counted
        start = time.perf_counter()
        contenders.recompute(transformer, cfg.n_tokens, ids, 3)
        rates['plain'].append(3 / (time.perf_counter() - start))
    return steps, rates


# name -> heading in the report, function
SECTIONS = {
    'train': ('Fine-tuning step', bench_train),
    'memory': ('Peak memory in training', bench_memory),
    'pretrain': ('Pre-training step', bench_pretrain),
    'evaluate': ('Evaluation at batch 32', bench_evaluate),
    'generate': ('Generation, 100 tokens after 128', bench_generate),
    'curves': ('Costs as the work grows', bench_curves),
}


def heading(name, kind):
    """The heading of a section measured on a device of this kind."""
    return f'{SECTIONS[name][0]} ({"GPU" if kind == "cuda" else kind.upper()})'


def command_of(args, name):
    """The command that measures a section; folders are named without what is above them."""
    words = ['python scripts/bench.py', '--only', name, '--rounds', str(args.rounds)]
    words += ['--device', args.device] if args.device != 'auto' else []
    words += ['--against', *(os.path.basename(os.path.abspath(path)) for path in args.against)] if args.against else []
    return ' '.join([*words, '--toy'] if args.toy else words)


def measure(args, name):
    """Measure one section, print it, and replace it in the report. Other sections of the report do not change."""
    cfg, device = contenders.setup(args)
    lines = SECTIONS[name][1](args, cfg, device)
    title = heading(name, device.type)
    text = '\n'.join([report.provenance(command_of(args, name), device), '', *lines])
    print(f'## {title}\n\n{text}\n', flush=True)
    sections = report.read_report(args.out) | {title: text}
    titles = [heading(name, kind) for kind in ('cpu', 'cuda', 'mps') for name in SECTIONS]
    in_order = {title: sections[title] for title in (*titles, *sections) if title in sections}
    waiting = [name for name in SECTIONS if heading(name, 'cuda') not in sections]
    report.write_report(args.out, METHOD, in_order, waiting)
    print(f'written: {args.out}')


def main(args):
    contenders.checkouts(args)  # a wrong --against ends the script before anything is measured
    for name in tqdm(args.only or SECTIONS, 'sections', ncols=80, disable=None):
        try:
            run_apart(measure, args, name)
        except Exception as e:
            if not (is_out_of_memory(e) or isinstance(e, BrokenProcessPool)):
                raise
            print(f'{name} is left out: not enough memory, or its process was killed', flush=True)


if __name__ == '__main__':
    run_script(main, args)
