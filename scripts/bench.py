"""Measure speed, memory and numerical errors, beside the plain path, `transformers`, and checkouts of others.

    python scripts/bench.py                                             # all sections, one after the other
    python scripts/bench.py --only train --rounds 9 --against ../port   # one section; the others stay in the file
    python scripts/bench.py --device cuda --against ../port ../nanoGPT  # what a GPU can measure, all contenders
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from options import Parser, add_path_args, finish_paths, number
from shell import begin_script, is_out_of_memory, run_script

SECTION_NAMES = ('train', 'memory', 'pretrain', 'evaluate', 'correct', 'precision', 'load', 'encode', 'startup', 'run',
                 'generate', 'curves')


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
    group.add_argument('--data_dir', default='data/', metavar='FOLDER', help='the Story Cloze files, if you have them')
    add_path_args(group, 'model/', 'the released vocabulary')
    args = finish_paths(parser.parse_args(argv))
    args.out = args.out or ('BENCHMARKS.toy.md' if args.toy else 'BENCHMARKS.md')
    return args


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import copy
import importlib.metadata
import importlib.util
import multiprocessing
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

import analysis
import fast
import generate
import train
from device import Ranks, choose_device, grad_scaler, matmul_flops
from model_pytorch import DEFAULT_CONFIG, TransformerModel, dotdict
from pretrain import flops_of_token
from scripts.contenders import (
    ENCODER,
    LOADERS,
    N_TOKENS,
    T_DATA,
    books,
    build,
    checkouts,
    drawn_stories,
    drawn_tokens,
    dtypes_of,
    encoders,
    evaluators,
    get_batch,
    get_stories,
    has_stories,
    language_model,
    lm_options,
    lm_steps,
    load_module,
    our_lm_step,
    our_step,
    recompute,
    save_weights,
    setup,
    story_argv,
    training_steps,
    variants,
    without_dropout,
)
from scripts.report import (
    bf16_peak,
    draw,
    machine,
    provenance,
    ratio_table,
    read_report,
    spread,
    table,
    take_turns,
    write_report,
)
from utils import read_text

METHOD = (
    'Each section, and each peak of memory, is measured in its own process. In each round all contenders of a '
    'comparison run one after the other, because the speed of a machine changes with time. Figures are medians, with '
    'the smallest and the largest value in brackets; a ratio is that of two times of the same round, and above 1 where '
    'the row is faster. `plain` is model_pytorch.py as it is written, on padded batches and with whole logits: what '
    '`train.py --plain` computes. Weights are random. Stories are real if the Story Cloze files are in --data_dir and '
    'the released vocabulary is in --model_path; otherwise they are random ids of the same lengths.')
OURS = 'train.py, float32'
SMALL_GPU = 11 * 2 ** 30                                # bytes for tensors on a card of 12 GB; CUDA takes the others
REFERENCE_FLOPS = 1e11                                  # a second, of the machine that the costs in SECTIONS are for
# The fine-tuning of goldens/e2e/lm_coef_0: a small network with random weights learns the stories within a minute.
SMALL_ARGV = ('--n_embd 64 --n_head 4 --n_layer 2 --n_batch 8 --n_gpu 1 --n_iter 6 --lr 1e-3 --lm_coef 0 '
              '--embd_pdrop 0 --attn_pdrop 0 --resid_pdrop 0 --clf_pdrop 0').split()


# Separate processes

def run_apart(function, *args):
    """function(*args) in a new process, so that the memory of earlier measurements does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def speed(args):
    """The device's type, and the operations a second of its matrix products in float32. Run it in a new process."""
    device, autocast = choose_device(args.device, 'float32')
    return device.type, matmul_flops(device, autocast, fast.product)


def step_cost(args, name, B, n_ctx, rounds):
    """Median seconds of a training step, and the peak memory of this process in MiB. Run it in a new process."""
    cfg, device = setup(args)
    step = training_steps(args, cfg, n_ctx, device)[name]()
    stories = drawn_stories(B, n_ctx, cfg.n_tokens, full=n_ctx != T_DATA)
    seconds = take_turns({name: step}, partial(get_batch, stories, B), rounds, device, name)[name]
    return (float(np.median(seconds)), peak_of(device) / 2 ** 20) if seconds else (np.nan, np.nan)


def step_costs(args, names, points, rounds):
    """Name -> seconds of a training step for each (B, n_ctx) of `points`, and name -> MiB; nan: too much memory."""
    seconds, mib = {}, {}
    for name in names:
        costs = [run_apart(step_cost, args, name, *point, rounds)
                 for point in tqdm(points, name, ncols=80, leave=False, disable=None)]
        seconds[name], mib[name] = zip(*costs, strict=True)
    return seconds, mib


def default_peak(args, script):
    """MiB that updates with the defaults of train.py or pretrain.py take at most; a GPU has SMALL_GPU for them.

    None: they do not fit. Run it in a new process.
    """
    cfg, device = setup(args)
    if device.type == 'cuda':
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1., SMALL_GPU / total), device.index or 0)
    if script == 'train.py':
        step = our_step(cfg, T_DATA, device, 'float32', plain=False, n_towers=4)
        inputs = partial(get_batch, drawn_stories(32, T_DATA, cfg.n_tokens), 32)
    else:
        options = lm_options(cfg, 32 if args.toy else 512)
        step = our_lm_step(cfg, options.n_ctx, device, options.micro_batch, 'float32')
        inputs = partial(drawn_tokens, cfg, 2 * options.micro_batch, options.n_ctx)   # a third tower adds no memory
    return peak_of(device) / 2 ** 20 if take_turns({script: step}, inputs, 1, device, script)[script] else None


def peak_of(device):
    """The largest memory so far, in bytes: of tensors on a GPU, or resident memory of this process."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == 'linux':                                        # here ru_maxrss includes the parent's peak
        return 1024 * int(re.search(r'VmHWM:\s*(\d+) kB', read_text('/proc/self/status'))[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def loading_peak(args, name, folder):
    """MiB that loading takes beside the network. Run it in a new process."""
    cfg, cpu = setup(args)[0], torch.device('cpu')
    model = TransformerModel(cfg, vocab=cfg.n_tokens + 512)
    before = peak_of(cpu)
    LOADERS[name](model, folder)
    return (peak_of(cpu) - before) / 2 ** 20


def errors_in(args, dtype, plain, deterministic):
    """Relative errors of the numbers that train.py computes, and whether they are the same twice.

    First losses and gradients of a small network against OpenAI's code; then hidden states, logits, losses and
    gradients of the network against its plain path in float32 on the CPU. Run it in a new process.
    """
    cfg, device = setup(args)
    expected = numbers_of(cfg, torch.device('cpu'), 'float32', True)
    once, twice = (numbers_of(cfg, device, dtype, plain, deterministic) for _ in range(2))

    golden = load_module(ROOT / 'tests', 'reference.py').Golden('forward')
    module = train.Losses(golden.model().to(device), golden.config.lm_coef, plain)
    names = [name for name, _ in module.model.named_parameters()]
    theirs = [torch.stack([golden['clf_losses'].mean(), golden['lm_losses'].mean()]),
              torch.cat([golden.parameter(name, 'grad/').flatten() for name in names])]
    ours = losses_and_gradients(module, [golden[name] for name in 'XMY'], device, dtype)
    errors = [relative_error(*pair) for pair in (*zip(ours, theirs, strict=True), *zip(once, expected, strict=True))]
    return errors, all(map(torch.equal, once, twice))


def numbers_of(cfg, device, dtype, plain, deterministic=False):
    """Hidden states of real tokens, logits of the task, mean losses and gradients without dropout, all on the CPU.

    The hidden states are those of `TransformerModel.forward`, the others what train.py computes.
    """
    _, autocast = choose_device(str(device), dtype, deterministic)
    stories = drawn_stories(4, T_DATA, cfg.n_tokens)
    module = train.Losses(build(without_dropout(cfg), T_DATA, device), 0.5, plain)
    X, M, Y = get_batch(stories, 4, 0)
    run = SimpleNamespace(args=SimpleNamespace(n_batch=4, n_gpu=1, plain=plain), ranks=Ranks(), autocast=autocast)
    logits = train.evaluate(run, module.model, stories, 4)
    with torch.no_grad(), autocast:
        h = module.model.transformer(X.to(device)).float().cpu()       # (8, T, C)
    return [h[M.bool().flatten(0, 1)], logits, *losses_and_gradients(module, [X, M, Y], device, dtype)]


def losses_and_gradients(module, batch, device, dtype):
    """The mean losses (2,) and all gradients, in one vector, of a step of train.py, which changes no parameter here."""
    _, autocast = choose_device(str(device), dtype)
    scaler, gradients = grad_scaler(device, dtype), []
    parameters = list(module.parameters())
    still = torch.optim.SGD(parameters, lr=0.)
    still.register_step_pre_hook(lambda *_: gradients.append(torch.cat([p.grad.flatten() for p in parameters])))
    for _ in range(20):                                                # float16: until the scale of the loss fits
        losses = train.update(module, still, batch, 1, autocast, scaler)
        if gradients:
            return losses.detach().cpu(), gradients[0].cpu()
    raise ArithmeticError(f'gradients in {dtype} are not finite, whatever the scale of the loss')


def relative_error(ours, exact):
    """The norm of the difference, relative to the norm of the exact numbers."""
    return float((ours - exact).norm() / exact.norm())


def seconds_of_run(argv, log_path):
    """Seconds of a run of train.py from its log: in total, before the first update, each epoch, after the last one."""
    start = time.time()
    subprocess.run([sys.executable, str(ROOT / 'train.py'), *argv], check=True)
    end = time.time()
    options, *lines = analysis.read_log(log_path)
    times = [start, options['time'], *(line['time'] for line in lines if 'va_cost' in line), end]
    return [end - start, *np.diff(times)]


def folders(path):
    """Options of train.py that write all its files into one folder."""
    return [f'--{kind}_dir={path}' for kind in ('log', 'save', 'submission')]


# Sections: each returns lines of BENCHMARKS.md, and its docstring is the heading

def bench_train(args, cfg, device):
    """Fine-tuning step"""
    stories, which = get_stories(args, cfg)
    steps = {name: make() for name, make in training_steps(args, cfg, stories.n_ctx, device).items()}
    lines = [f'Both losses, clipping and Adam; {which}.']
    for B in (8, 20, 32, 64) if device.type == 'cuda' else (8,):
        seconds = take_turns(steps, partial(get_batch, stories, B), args.rounds, device, f'steps of {B} examples')
        lines += ['', f'Batches of {B}:', '', *ratio_table(seconds, B, 'examples', ('plain', 'transformers', 'port'))]
    return lines


def bench_memory(args, cfg, device):
    """Peak memory in training"""
    names = [name for name in training_steps(args, cfg, T_DATA, device) if name != 'train.py, tf32']
    _, mib = step_costs(args, names, [(20, T_DATA)], rounds=1)
    peaks = {script: run_apart(default_peak, args, script) for script in ('train.py', 'pretrain.py')}
    is_gpu, [of_plain] = device.type == 'cuda', mib['plain']
    rows = [[name, f'{peak / of_plain:.2f}', f'{peak:.0f}'] if peak > 0 else [name, '', 'more than there is']
            for name, [peak] in mib.items()]
    limit = f', where {SMALL_GPU / 2 ** 30:.0f} GiB are allowed, as on a GPU of 12 GB' if is_gpu else ''
    return [f'{"Allocated on the GPU" if is_gpu else "Resident memory of the process, Python and torch too"}; drawn '
            'stories, fine-tuning in batches of 20.', '', *table(['', 'of plain', 'MiB'], rows), '',
            *(f'Updates with the defaults of `{script}` in float32 {f"take {peak:.0f} MiB" if peak else "do not fit"}'
              f'{limit}.' for script, peak in peaks.items())]


def bench_pretrain(args, cfg, device):
    """Pre-training step"""
    B, n_ctx, n_batch = (4, 32, 2) if args.toy else (64, 512, 8) if device.type == 'cuda' else (4, 512, 4)
    contenders = lm_steps(args, cfg, n_ctx, device, n_batch)
    steps = {name: contender.build() for name, contender in contenders.items()}
    reached = {dtype: matmul_flops(*choose_device(str(device), dtype), fast.product) for dtype in dtypes_of(device)}
    seconds = take_turns(steps, partial(drawn_tokens, cfg, B, n_ctx), args.rounds, device, 'pre-training')
    with torch.device('meta'):                                         # its size is all that is asked for
        flops = B * n_ctx * flops_of_token(TransformerModel(cfg, vocab=cfg.n_tokens + n_ctx, n_ctx=n_ctx))
    peak, share = bf16_peak(device), {}
    for name, values in seconds.items():
        if values:
            rate = flops / np.median(values)
            share[name] = [f'{100 * rate / reached[contenders[name].dtype]:.0f} %']
            share[name] += [f'{100 * rate / peak:.0f} %'] if peak else []
    header = ['of matrix products in this dtype', *(['of the bfloat16 peak'] if peak else [])]
    *_, half = dtypes_of(device)
    bases = 'plain', 'nanoGPT, float32', f'nanoGPT, {half}, compiled'
    rates = ', '.join(f'{rate / 1e12:.3g} in {dtype}' for dtype, rate in sorted(reached.items()))
    return [f'{B} sequences of {n_ctx} random tokens, {n_batch} at a time, with dropout, clipping and Adam. The '
            f'network needs {flops / 1e12:.3g} TFLOP for it; matrix products reach here, in TFLOP/s: {rates}'
            + (f'; the peak of this GPU in bfloat16 is {peak / 1e12:.0f}' if peak else '') + '.', '',
            *ratio_table(seconds, B * n_ctx, 'tokens', bases, header, share)]


def bench_evaluate(args, cfg, device):
    """Evaluation at batch 32"""
    stories, which = get_stories(args, cfg)
    contenders = evaluators(build(cfg, stories.n_ctx, device), stories, 96, 32, device)
    seconds = take_turns(contenders, lambda _: (), args.rounds, device, 'evaluating')
    return [f'The logits of both endings of 96 stories; {which}.', '', *ratio_table(seconds, 96, 'examples')]


def bench_correct(args, cfg, device):
    """Numbers in each --dtype"""
    dtypes = dict.fromkeys([*dtypes_of(device), *(['float16'] if device.type == 'cuda' else [])])
    how = {'plain': ('float32', True, False), **{f'train.py, {dtype}': (dtype, False, False) for dtype in dtypes},
           'train.py, float32, --deterministic': ('float32', False, True)}
    rows = []
    for name in tqdm(how, 'comparing', ncols=80, leave=False, disable=None):
        errors, is_same = run_apart(errors_in, args, *how[name])
        rows.append([name, *(f'{error:.0e}' if error else '0' for error in errors), 'yes' if is_same else 'no'])
    header = ['', *(f'small network, {what}' for what in ('losses', 'gradients')),
              *(f'full size, {what}' for what in ('hidden states', 'logits', 'losses', 'gradients')), 'same bits twice']
    return ["Relative errors (of norms), without dropout: a small network against the numbers of OpenAI's code in "
            'tests/goldens; then random weights of full size and 4 drawn stories against the plain path in float32 on '
            'the CPU. In float16 the loss is scaled.', '', *table(header, rows)]


def bench_precision(args, cfg, device):
    """Test accuracy in each --dtype"""
    accuracies = fine_tuning_accuracies(args, device)
    rows = [[name, *(spread(by_name[name]) for by_name in accuracies.values())] for name in accuracies['sample']]
    header = ['', *(f'{what}, {len(by_name[OURS])} seeds' for what, by_name in accuracies.items())]
    return ['Whole fine-tuning runs on the sample and, from small random weights (64 wide, 2 layers), on the Story '
            'Cloze Test.', '', *table(header, rows)]


def fine_tuning_accuracies(args, device):
    """Task -> {name: test accuracies over seeds}"""
    tasks, accuracies = {'sample': ['--dataset', 'sample']}, {}
    seeds = ['--seeds', '42-43', '--n_iter', '1'] if args.toy else ['--seeds', '42-44']
    with tempfile.TemporaryDirectory() as folder:
        if has_stories(args):
            save_weights(dotdict(DEFAULT_CONFIG, n_embd=64, n_head=4, n_layer=2, n_tokens=N_TOKENS), folder)
            tasks['Story Cloze'] = [*story_argv(args), '--model_path', folder, *SMALL_ARGV]
        for what, argv in tasks.items():
            accuracies[what] = {}
            for name, (dtype, plain) in variants(device).items():
                if not plain:
                    options = [*argv, *seeds, *folders(folder), '--device', args.device, '--dtype', dtype, '--submit']
                    accuracies[what][name] = [run.test_accuracy for run in train.main(train.parse_args(options))]
    return accuracies


def bench_load(args, cfg, device):
    """Loading the released weights"""
    model = TransformerModel(cfg, vocab=cfg.n_tokens + 512)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(cfg, folder)
        n_bytes = sum(os.path.getsize(path) for path in Path(folder).glob('*.npy'))
        contenders = {name: partial(load, model, folder) for name, load in LOADERS.items()}
        seconds = take_turns(contenders, lambda _: (), args.rounds, device, 'loading')
        peaks = {name: [f'{run_apart(loading_peak, args, name, folder):.0f}'] for name in LOADERS}
    return ['From shards in the page cache into a network in memory. plain: np.load of all shards, one vector, its '
            'arrays, copies into the parameters, as the port does; ours also refuses files that are damaged.', '',
            *ratio_table(seconds, n_bytes / 1e6, 'MB', more=['MiB beside the network'], cells=peaks)]


def bench_encode(args, cfg, device):
    """Encoding books"""
    contenders, n_vocab = encoders(args)
    texts = books(args.rounds + 1, 20_000 if args.toy else 2_000_000)
    ids = {name: encode(texts[0]) for name, encode in contenders.items()}
    same = 100 * np.mean([a == b for a, b in zip(*ids.values(), strict=True)])
    seconds = take_turns(contenders, lambda i: [texts[i]], args.rounds, device, 'encoding')
    n_tokens = np.mean([sum(map(len, contenders[ENCODER](text))) for text in texts[1:]])
    return [f'{len(texts[0])} lines of made-up books, about {n_tokens:,.0f} tokens of a vocabulary of {n_vocab:,}, '
            'other lines in each round; one thread each, while corpus.py has a process on each core. tokenizers '
            f'{importlib.metadata.version("tokenizers")} has the tokenizer.json that convert.py writes; it gives the '
            f'ids of 2018 for {same:.2f} % of these lines.', '',
            *ratio_table(seconds, n_tokens, 'tokens', bases=['tokenizers'])]


def bench_startup(args, cfg, device):
    """From the command to the first update"""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        save_weights(cfg, folder)
        for i in range(args.rounds + 1):
            log_path, start = os.path.join(folder, f'{i}.jsonl'), time.time()
            argv = [*story_argv(args), *folders(folder), '--model_path', folder, '--desc', str(i)]
            process = subprocess.Popen([sys.executable, str(ROOT / 'train.py'), *argv], stdout=subprocess.DEVNULL)
            while process.poll() is None and not os.path.exists(log_path):
                time.sleep(0.01)
            process.kill()
            process.wait()
            seconds.append(analysis.read_log(log_path)[0]['time'] - start)
    return ['`python train.py --dataset rocstories`: imports, encoding of the stories, 466 MB of weights read, checked '
            f'and hashed. Files are in the page cache. {spread(seconds[1:])} s; the first run, which had to encode the '
            f'stories, {seconds[0]:.2f} s.']


def bench_run(args, cfg, device):
    """A complete fine-tuning run"""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        save_weights(cfg, folder)
        for dtype in dtypes_of(device) if device.type == 'cuda' else ['float32']:
            argv = [*story_argv(args), *folders(folder), '--model_path', folder, '--desc', dtype, '--dtype', dtype]
            seconds = seconds_of_run([*argv, '--submit'], os.path.join(folder, f'{dtype}.jsonl'))
            rows.append([dtype, *(f'{s:.1f}' for s in seconds)])
    header = ['', 'seconds, all', 'before the first update', *(f'epoch {i}' for i in (1, 2, 3)), 'test predictions']
    return ['`python train.py --dataset rocstories --submit` with random weights of full size: 3 epochs of 46 updates '
            'of 32 examples, with an evaluation of 374 + 374 stories after each epoch; then 1871 test predictions.', '',
            *table(header, rows)]


def bench_generate(args, cfg, device):
    """Generation, 100 tokens after 128"""
    transformer, prompt = language_model(cfg, device)
    ours = fast.use_fast_layers(copy.deepcopy(transformer))
    gen_len = 10 if args.toy else 100

    def cached(prompt):
        return [ids.item() for ids in generate.sample(ours, cfg.n_tokens, prompt, gen_len, temperature=0)]

    contenders = {'plain': lambda prompt: recompute(transformer, cfg.n_tokens, prompt, gen_len), 'generate.py': cached}
    ids, expected = cached(prompt), contenders['plain'](prompt)
    seconds = take_turns(contenders, lambda _: [prompt], args.rounds, device, 'generating')
    same = 'the same tokens' if ids == expected else 'OTHER TOKENS'
    return [f'Greedy, float32; plain computes all steps again for each token; {same}.', '',
            *ratio_table(seconds, gen_len, 'tokens')]


def bench_curves(args, cfg, device):
    """Costs as the work grows"""
    sizes, lengths = ([1, 2, 4], [16, 32]) if args.toy else ([1, 2, 4, 8, 16, 32], [64, 128, 256, 512])
    seconds_of_size, mib_of_size = step_costs(args, ('plain', OURS), [(B, T_DATA) for B in sizes], 3)
    seconds_of_length, mib_of_length = step_costs(args, ('plain', OURS), [(2, n_ctx) for n_ctx in lengths], 3)
    if any(np.isnan(mib).any() for mib in (*mib_of_size.values(), *mib_of_length.values())):
        raise MemoryError('the picture needs all its points')
    steps, tokens_rates = generation_rates(args, cfg, device)
    gib_of_size, gib_of_length = ({name: np.divide(mib, 1024) for name, mib in costs.items()}
                                  for costs in (mib_of_size, mib_of_length))
    examples, tokens = 'examples in a batch', 'tokens of a sequence (4 sequences, no padding)'
    picture = f'bench_{device.type}.png'
    draw([(examples, 'training step (s): lower is better', sizes, seconds_of_size),
          (tokens, 'training step (s): lower is better', lengths, seconds_of_length),
          (examples, 'memory in training (GiB): lower is better', sizes, gib_of_size),
          (tokens, 'memory in training (GiB): lower is better', lengths, gib_of_length),
          (examples, 'evaluation (examples/s): higher is better', sizes,
           evaluation_rates(args, cfg, device, sizes)),
          ('tokens so far', 'generation (tokens/s): higher is better', steps, tokens_rates)],
         os.path.join(os.path.dirname(args.out), picture),
         f'{machine(device)}, torch {torch.__version__}, {time.strftime("%Y-%m-%d")}')

    step, fixed = np.polyfit(sizes, seconds_of_size[OURS], 1)
    mib_of_example, fixed_mib = np.polyfit(sizes, mib_of_size[OURS], 1)
    per_token = 1000 * (np.array(seconds_of_length[OURS]) - fixed) / (4 * np.array(lengths))     # 2 x 2 sequences
    rates = tokens_rates['generate.py']
    return [f'![time and memory against batch and length]({picture})', '',
            f'- A training step costs {1000 * fixed:.0f} ms (Adam, the norm of the gradients, the dropout of the '
            f'table) and {1000 * step:.3g} ms per example; {fixed_mib:.0f} MiB and {mib_of_example:.1f} MiB per '
            'example.',
            f'- Without the fixed part a token costs {per_token[0]:.2g} ms at {lengths[0]} steps and '
            f'{per_token[-1]:.2g} ms at {lengths[-1]}: attention weights grow with the square of the length.',
            f'- Generation makes {rates[0]:.0f} tokens/s after {steps[0]} steps, {rates[-1]:.0f} after {steps[-1]}; '
            'without the cache each token costs the computation of all earlier steps.']


def evaluation_rates(args, cfg, device, sizes):
    """Name -> examples/s at each batch size."""
    stories, _ = get_stories(args, cfg)
    model, n = build(cfg, stories.n_ctx, device), max(sizes)
    seconds = [take_turns(evaluators(model, stories, n, B, device), lambda _: (), 3, device, 'evaluating')
               for B in sizes]
    return {name: [n / np.median(times[name]) for times in seconds] for name in variants(device)}


def generation_rates(args, cfg, device):
    """Numbers of earlier steps, and name -> tokens/s after that many steps."""
    transformer, prompt = language_model(cfg, device)
    ours = fast.use_fast_layers(copy.deepcopy(transformer))
    steps, window = ([4, 12], 2) if args.toy else ([16, 32, 64, 128, 256, 496], 8)
    ticks = []
    for ids in generate.sample(ours, cfg.n_tokens, prompt[:2], steps[-1] + window, temperature=0):
        ids.tolist()                                                   # waits for a GPU
        ticks.append(time.perf_counter())
    rates = {'plain': [], 'generate.py': [window / (ticks[n - 2 + window] - ticks[n - 2]) for n in steps]}
    for n in steps:
        recompute(transformer, cfg.n_tokens, (prompt * 4)[:n], 1)      # not counted
        start = time.perf_counter()
        recompute(transformer, cfg.n_tokens, (prompt * 4)[:n], 3)
        rates['plain'].append(3 / (time.perf_counter() - start))
    return steps, rates


class Section(NamedTuple):
    measure: Callable       # (args, cfg, device) -> lines
    fixed: float            # seconds that processes, files and launches take
    work: float             # seconds of arithmetic, on a machine of REFERENCE_FLOPS with --rounds 5
    has_rounds: bool        # whether the arithmetic grows with --rounds


SECTIONS = {'train': Section(bench_train, 150, 250, True), 'memory': Section(bench_memory, 120, 460, False),
            'pretrain': Section(bench_pretrain, 60, 270, True), 'evaluate': Section(bench_evaluate, 20, 220, True),
            'correct': Section(bench_correct, 90, 90, False), 'precision': Section(bench_precision, 300, 0, False),
            'load': Section(bench_load, 40, 0, False), 'encode': Section(bench_encode, 60, 0, False),
            'startup': Section(bench_startup, 60, 0, False), 'run': Section(bench_run, 120, 3000, False),
            'generate': Section(bench_generate, 20, 250, True), 'curves': Section(bench_curves, 200, 1100, False)}
NEEDS_STORIES = ('startup', 'run')
NEEDS_NO_GPU = ('load', 'encode')                       # files are read and texts encoded on the CPU


def heading(name, kind):
    """The heading of a section measured on a device of this kind."""
    return f'{SECTIONS[name].measure.__doc__} ({"GPU" if kind == "cuda" else kind.upper()})'


def command_of(args, name):
    """The command that measures a section; folders are named without what is above them."""
    words = ['python scripts/bench.py', '--only', name, '--rounds', str(args.rounds)]
    words += ['--device', args.device] if args.device != 'auto' else []
    words += ['--against', *(os.path.basename(os.path.abspath(path)) for path in args.against)] if args.against else []
    return ' '.join([*words, '--toy'] if args.toy else words)


def measure(args, name):
    """Measure one section, print it, and replace it in the report. Other sections of the report do not change."""
    cfg, device = setup(args)
    lines = SECTIONS[name].measure(args, cfg, device)
    title, text = heading(name, device.type), '\n'.join([provenance(command_of(args, name), device), '', *lines])
    print(f'## {title}\n\n{text}\n', flush=True)
    sections = read_report(args.out) | {title: text}
    titles = [heading(name, kind) for kind in ('cpu', 'cuda', 'mps') for name in SECTIONS]
    in_order = {title: sections[title] for title in (*titles, *sections) if title in sections}
    write_report(args.out, METHOD, in_order, [name for name in SECTIONS if name not in NEEDS_NO_GPU
                                              and heading(name, 'cuda') not in sections])
    print(f'written: {args.out}')


def minutes_for(args, names, flops):
    """About how long these sections take where matrix products reach `flops` a second."""
    sections = [SECTIONS[name] for name in names]
    return sum(section.fixed + section.work * REFERENCE_FLOPS / flops * ((args.rounds + 1) / 6 if section.has_rounds
                                                                         else 1) for section in sections) / 60


def main(args):
    checkouts(args)                                     # raises, if it does, before anything is measured
    names, left_out = list(args.only or SECTIONS), {}
    if not has_stories(args):
        left_out = dict.fromkeys(NEEDS_STORIES, 'it needs the Story Cloze files, the released vocabulary and full size')
    if not importlib.util.find_spec('tokenizers'):
        left_out['encode'] = 'it compares with the library tokenizers: pip install -r requirements-dev.txt'
    if set(names) - set(left_out):
        kind, flops = run_apart(speed, args)
        if kind == 'cuda':
            left_out |= dict.fromkeys(NEEDS_NO_GPU, 'it does not use a GPU: add --device cpu')
    for name in names.copy():
        if name in left_out:
            names.remove(name)
            print(f'{name} is left out: {left_out[name]}')
    if names and not args.toy:
        print(f'{", ".join(names)}: about {minutes_for(args, names, flops):.0f} minutes', flush=True)
    for name in tqdm(names, 'sections', ncols=80, disable=None):
        try:
            run_apart(measure, args, name)
        except Exception as e:
            if not (is_out_of_memory(e) or isinstance(e, BrokenProcessPool)):
                raise
            print(f'{name} is left out: not enough memory, or its process was killed', flush=True)


if __name__ == '__main__':
    run_script(main, args)
