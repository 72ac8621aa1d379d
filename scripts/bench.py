"""Compare the speed of this repository with its own plain path, with `transformers`, and with a checkout of a port.

    python scripts/bench.py                                             # all sections at full size: over an hour
    python scripts/bench.py --only train --rounds 9 --against ../port   # one section; the others stay in the file
"""

import importlib.util
import multiprocessing
import os
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import analysis
import generate
import model_pytorch
import train
from datasets import SPECIAL, Examples, find_cloze_file
from device import Ranks, choose_device
from model_pytorch import DEFAULT_CONFIG, LMModel, TransformerModel, dotdict, save_openai_pretrained_model
from opt import OpenAIAdam
from scripts.report import draw, provenance, ratio_table, read_report, spread, table, take_turns, write_report
from tasks import TASKS
from text_utils import TextEncoder
from utils import Parser, add_path_args, finish_paths, number, read_text, run_script
from zero_shot import with_positions

METHOD = (
    'Each section, and each peak of memory, is measured in its own process. In each round all contenders of a '
    'comparison run one after the other, because the speed of a machine changes with time. Figures are medians, with '
    'the smallest and the largest value in brackets; a ratio is that of two times of the same round. `plain` is what '
    '`train.py --plain` computes. Weights are random. Stories are real if the Story Cloze files are in --data_dir and '
    'the released vocabulary is in --model_path; otherwise they are random ids of the same lengths.')
N_TOKENS, T_DATA = 40478, 77                            # the released vocabulary; n_ctx that ROCStories needs
OURS = 'train.py, float32'
# The fine-tuning of goldens/e2e/lm_coef_0: a small network with random weights learns the stories within a minute.
SMALL_ARGV = ('--n_embd 64 --n_head 4 --n_layer 2 --n_batch 8 --n_gpu 1 --n_iter 6 --lr 1e-3 --lm_coef 0 '
              '--embd_pdrop 0 --attn_pdrop 0 --resid_pdrop 0 --clf_pdrop 0').split()


# Network, device and stories

def setup(args):
    """The network's size and the device."""
    size = dict(n_embd=32, n_head=2, n_layer=2, n_tokens=200) if args.toy else dict(n_tokens=N_TOKENS)
    return dotdict(DEFAULT_CONFIG, **size), choose_device(args.device, 'float32')[0]


def story_argv(args):
    """Options of train.py for the real stories and the released vocabulary."""
    return ['--data_dir', args.data_dir, '--encoder_path', args.encoder_path, '--bpe_path', args.bpe_path,
            '--device', args.device]


def folders(path):
    """Options of train.py that write all its files into one folder."""
    return [f'--{kind}_dir={path}' for kind in ('log', 'save', 'submission')]


def has_stories(args):
    """Whether the Story Cloze files and the released vocabulary can be used."""
    try:
        find_cloze_file(args.data_dir, 'test')
        return not args.toy and TextEncoder(args.encoder_path, args.bpe_path).n_vocab == N_TOKENS
    except (OSError, ValueError):
        return False


def drawn_stories(n, n_ctx, n_tokens, full=False):
    """n Examples of random ids, with lengths like those of ROCStories; full: each sequence fills n_ctx."""
    rng, max_len = np.random.RandomState(0), n_ctx - 3
    n_story = rng.normal(41, 8, n).clip(1, max_len * 4 // 5).astype(int)         # (n,)
    n_ending = rng.normal(9, 3, (2, n)).clip(1, max_len - n_story).astype(int)   # (2, n)
    if full:
        n_story[:] = max_len * 4 // 5
        n_ending[:] = max_len - n_story
    fields = [[rng.randint(0, n_tokens, length) for length in lengths] for lengths in (n_story, *n_ending)]
    encoder = {**dict.fromkeys(range(n_tokens)), **{token: n_tokens + i for i, token in enumerate(SPECIAL)}}
    return Examples('choices', fields, rng.randint(0, 2, n), encoder, n_ctx, max_len=n_ctx)


def get_stories(args, cfg):
    """The training Examples of ROCStories or, without them, random ones; and the words that say which."""
    if not has_stories(args):
        return drawn_stories(512, T_DATA, cfg.n_tokens), 'drawn stories'
    options = train.parse_args([*story_argv(args), '--n_transfer', '-1'])
    return train.load_data(options, TASKS['rocstories']).train, 'real stories'


def get_batch(stories, B, i):
    """X (B, 2, T, 2), M (B, 2, T) and Y (B,) of round i."""
    indices = np.arange(i * B, (i + 1) * B) % len(stories)
    return [torch.from_numpy(array) for array in (*stories.batch(indices), stories.labels[indices])]


def save_weights(size, folder):
    """Random weights of a network of this size, in the released layout."""
    save_openai_pretrained_model(TransformerModel(dotdict(DEFAULT_CONFIG, **size), vocab=N_TOKENS + 512), folder)


# Contenders

def build(cfg, n_ctx, device, module=model_pytorch):
    torch.manual_seed(0)
    return module.DoubleHeadModel(cfg, cfg.n_tokens + 2, 'multiple_choice', cfg.n_tokens + 3 + n_ctx, n_ctx).to(device)


def ours(device):
    """Name -> (--dtype, whether --plain) of the variants of train.py that a device can run."""
    dtypes = ['float32', 'tf32', 'bfloat16'] if device.type == 'cuda' else ['float32', 'bfloat16']
    return {'plain': ('float32', True), **{f'train.py, {dtype}': (dtype, False) for dtype in dtypes}}


def our_step(cfg, n_ctx, device, dtype, plain):
    """The training step of train.py."""
    losses = train.Losses(build(cfg, n_ctx, device), 0.5, plain)
    adam = OpenAIAdam(losses.parameters(), 6.25e-5, 'warmup_linear', 0.002, 1000, l2=0.01, max_grad_norm=1)

    def step(*batch):
        _, autocast = choose_device(str(device), dtype)                # sets tf32, which is global, for each step
        train.update(losses, adam, batch, 1, autocast)
    return step


def port_step(cfg, n_ctx, device, path):
    """The training step of a checkout of the port at `path`: its model, loss compute and optimizer."""
    model_module, loss_module, opt_module = (SimpleNamespace(**runpy.run_path(os.path.join(path, name)))
                                             for name in ('model_pytorch.py', 'loss.py', 'opt.py'))
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


def has_transformers() -> bool:
    """Whether the transformers library is installed, and can use this version of torch."""
    if not importlib.util.find_spec('transformers'):
        return False
    import transformers
    return transformers.is_torch_available()


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


def training_steps(args, cfg, n_ctx, device):
    """Name -> function that builds a training step, for all contenders that are installed or given."""
    builders = {name: partial(our_step, cfg, n_ctx, device, *how) for name, how in ours(device).items()}
    if has_transformers():
        builders['transformers'] = partial(transformers_step, cfg, n_ctx, device)
    if args.against:
        builders['against'] = partial(port_step, cfg, n_ctx, device, args.against)
    return builders


def evaluators(model, stories, n, n_batch, device):
    """Name -> function that returns the task logits of the first n stories, computed n_batch at a time."""
    def evaluate(losses, dtype):
        _, autocast = choose_device(str(device), dtype)
        return train.evaluate(losses, stories, n, n_batch, autocast, Ranks())

    return {name: partial(evaluate, train.Losses(model, 0.5, plain), dtype)
            for name, (dtype, plain) in ours(device).items()}


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


# Separate processes

def run_apart(function, *args):
    """function(*args) in a new process, so that the memory of earlier measurements does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def step_cost(args, name, B, n_ctx):
    """Median seconds of a training step, and the peak memory of this process in MiB. Run it in a new process."""
    cfg, device = setup(args)
    step = training_steps(args, cfg, n_ctx, device)[name]()
    stories = drawn_stories(B, n_ctx, cfg.n_tokens, full=n_ctx != T_DATA)
    seconds = take_turns({name: step}, partial(get_batch, stories, B), 3, device, name)[name]
    peak = torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else peak_of_process()
    return float(np.median(seconds)), peak / 2 ** 20


def step_costs(args, names, points):
    """Name -> seconds of a training step for each (B, n_ctx) of `points`, and name -> MiB."""
    seconds, mib = {}, {}
    for name in names:
        costs = [run_apart(step_cost, args, name, *point) for point in tqdm(points, name, leave=False, disable=None)]
        seconds[name], mib[name] = zip(*costs, strict=True)
    return seconds, mib


def peak_of_process():
    """The largest resident memory of this process, in bytes."""
    if sys.platform == 'linux':                                        # here ru_maxrss includes the parent's peak
        return 1024 * int(re.search(r'VmHWM:\s*(\d+) kB', read_text('/proc/self/status'))[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def seconds_of_run(argv, log_path):
    """Seconds of a run of train.py from its log: in total, before the first update, each epoch, after the last one."""
    start = time.time()
    subprocess.run([sys.executable, str(ROOT / 'train.py'), *argv], check=True)
    end = time.time()
    options, *lines = analysis.read_log(log_path)
    times = [start, options['time'], *(line['time'] for line in lines if 'va_cost' in line), end]
    return [end - start, *np.diff(times)]


# Sections: each returns lines of BENCHMARKS.md, and its docstring is the heading

def bench_train(args, cfg, device):
    """Training step at batch 8"""
    stories, which = get_stories(args, cfg)
    steps = {name: make() for name, make in training_steps(args, cfg, stories.n_ctx, device).items()}
    seconds = take_turns(steps, partial(get_batch, stories, 8), args.rounds, device, 'training steps')
    return [f'Both losses, clipping and Adam; {which}.', '',
            *ratio_table(seconds, 8, 'examples', ('plain', 'transformers', 'against'))]


def bench_memory(args, cfg, device):
    """Peak memory, training at batch 20"""
    names = [name for name in training_steps(args, cfg, T_DATA, device) if name != 'train.py, tf32']
    _, mib = step_costs(args, names, [(20, T_DATA)])
    what = 'Allocated on the GPU' if device.type == 'cuda' else 'Resident memory of the process, Python and torch too'
    rows = [[name, f'{peak:.0f}', f'{peak / mib["plain"][0]:.2f}'] for name, [peak] in mib.items()]
    return [f'{what}; drawn stories.', '', *table(['', 'MiB', 'of plain'], rows)]


def bench_evaluate(args, cfg, device):
    """Evaluation at batch 32"""
    stories, which = get_stories(args, cfg)
    contenders = evaluators(build(cfg, stories.n_ctx, device), stories, 96, 32, device)
    seconds = take_turns(contenders, lambda _: (), args.rounds, device, 'evaluating')
    return [f'The logits of both endings of 96 stories; {which}.', '', *ratio_table(seconds, 96, 'examples')]


def bench_precision(args, cfg, device):
    """What --dtype does to the numbers"""
    stories, _ = get_stories(args, cfg)
    model = build(cfg, stories.n_ctx, device)
    nn.init.normal_(model.task_head.linear.weight)                     # logits of about 30 show rounding errors
    logits = {name: run() for name, run in evaluators(model, stories, 32, 32, device).items()}
    accuracies = fine_tuning_accuracies(args, device)
    rows = []
    for name in accuracies['sample']:
        error = (logits[name] - logits['plain']).abs().max() / logits['plain'].abs().max()
        rows.append([name, f'{error:.1e}', *(spread(by_name[name]) for by_name in accuracies.values())])
    header = ['', 'largest error of a logit, relative to the largest logit',
              *(f'{what}: test accuracy, {len(by_name[OURS])} seeds' for what, by_name in accuracies.items())]
    return ['Logits against the plain path in float32; accuracies of whole fine-tuning runs on the sample and, from '
            'small random weights (64 wide, 2 layers), on the Story Cloze Test. tf32 exists on a GPU only.', '',
            *table(header, rows)]


def fine_tuning_accuracies(args, device):
    """Task -> {name: test accuracies over seeds}"""
    tasks, accuracies = {'sample': ['--dataset', 'sample']}, {}
    seeds = ['--seeds', '42-43', '--n_iter', '1'] if args.toy else ['--seeds', '42-44']
    with tempfile.TemporaryDirectory() as folder:
        if has_stories(args):
            save_weights(dict(n_embd=64, n_head=4, n_layer=2), folder)
            tasks['Story Cloze'] = [*story_argv(args), '--model_path', folder, *SMALL_ARGV]
        for what, argv in tasks.items():
            accuracies[what] = {}
            for name, (dtype, plain) in ours(device).items():
                if not plain:
                    options = [*argv, *seeds, *folders(folder), '--device', args.device, '--dtype', dtype, '--submit']
                    accuracies[what][name] = [run.test_accuracy for run in train.main(train.parse_args(options))]
    return accuracies


def bench_startup(args, cfg, device):
    """From the command to the first update"""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        save_weights({}, folder)
        for i in range(args.rounds + 1):
            log_path, start = os.path.join(folder, f'{i}.jsonl'), time.time()
            argv = [*story_argv(args), *folders(folder), '--model_path', folder, '--desc', str(i)]
            process = subprocess.Popen([sys.executable, str(ROOT / 'train.py'), *argv], stdout=subprocess.DEVNULL)
            while process.poll() is None and not os.path.exists(log_path):
                time.sleep(0.01)
            process.kill()
            seconds.append(analysis.read_log(log_path)[0]['time'] - start)
    return ['`python train.py --dataset rocstories`: imports, encoding of the stories, 466 MB of weights read, checked '
            f'and hashed. Files are in the page cache. {spread(seconds[1:])} s; the first run, which had to encode the '
            f'stories, {seconds[0]:.2f} s.']


def bench_run(args, cfg, device):
    """A complete fine-tuning run"""
    dtypes, rows = ['float32', 'bfloat16'] if device.type == 'cuda' else ['float32'], []
    with tempfile.TemporaryDirectory() as folder:
        save_weights({}, folder)
        for dtype in dtypes:
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
    gen_len = 10 if args.toy else 100

    def cached(prompt):
        return [ids.item() for ids in generate.sample(transformer, cfg.n_tokens, prompt, gen_len, temperature=0)]

    contenders = {'plain': lambda prompt: recompute(transformer, cfg.n_tokens, prompt, gen_len), 'generate.py': cached}
    ids, expected = cached(prompt), contenders['plain'](prompt)
    seconds = take_turns(contenders, lambda _: [prompt], args.rounds, device, 'generating')
    same = 'the same tokens' if ids == expected else 'OTHER TOKENS'
    return [f'Greedy, float32; plain computes all steps again for each token; {same}.', '',
            *ratio_table(seconds, gen_len, 'tokens')]


def bench_curves(args, cfg, device):
    """Costs as the work grows"""
    sizes, lengths = ([1, 2, 4], [16, 32]) if args.toy else ([1, 2, 4, 8, 16, 32], [64, 128, 256, 512])
    seconds_of_size, mib_of_size = step_costs(args, ('plain', OURS), [(B, T_DATA) for B in sizes])
    seconds_of_length, mib_of_length = step_costs(args, ('plain', OURS), [(2, n_ctx) for n_ctx in lengths])
    steps, tokens_rates = generation_rates(args, cfg, device)
    examples, tokens = 'examples in a batch', 'steps of a sequence (batch 2, no padding)'
    picture = f'bench_{device.type}.png'
    draw([(examples, 's per training step', sizes, seconds_of_size),
          (examples, 'MiB while training', sizes, mib_of_size),
          (examples, 'examples/s in evaluation', sizes, evaluation_rates(args, cfg, device, sizes)),
          (tokens, 's per training step', lengths, seconds_of_length),
          (tokens, 'MiB while training', lengths, mib_of_length),
          ('earlier steps', 'tokens/s in generation', steps, tokens_rates)],
         os.path.join(os.path.dirname(args.out), picture))

    step, fixed = np.polyfit(sizes, seconds_of_size[OURS], 1)
    mib_of_example, fixed_mib = np.polyfit(sizes, mib_of_size[OURS], 1)
    per_token = 1000 * (np.array(seconds_of_length[OURS]) - fixed) / (4 * np.array(lengths))     # 2 x 2 sequences
    rates = tokens_rates['generate.py']
    return [f'![time and memory against batch and length]({picture})', '',
            f'- A training step costs {fixed:.2f} s (Adam, the norm of the gradients, the dropout of the table) and '
            f'{step:.3f} s per example; {fixed_mib:.0f} MiB and {mib_of_example:.0f} MiB per example.',
            f'- Without the fixed part a token costs {per_token[0]:.1f} ms at {lengths[0]} steps and '
            f'{per_token[-1]:.1f} ms at {lengths[-1]}: attention weights grow with the square of the length.',
            f'- Generation makes {rates[0]:.0f} tokens/s after {steps[0]} steps, {rates[-1]:.0f} after {steps[-1]}; '
            'without the cache each token costs the computation of all earlier steps.']


def evaluation_rates(args, cfg, device, sizes):
    """Name -> examples/s at each batch size."""
    stories, _ = get_stories(args, cfg)
    model, n = build(cfg, stories.n_ctx, device), max(sizes)
    seconds = [take_turns(evaluators(model, stories, n, B, device), lambda _: (), 3, device, 'evaluating')
               for B in sizes]
    return {name: [n / np.median(times[name]) for times in seconds] for name in ours(device)}


def generation_rates(args, cfg, device):
    """Numbers of earlier steps, and name -> tokens/s after that many steps."""
    transformer, prompt = language_model(cfg, device)
    steps, window = ([4, 12], 2) if args.toy else ([16, 64, 128, 256, 384, 496], 8)
    ticks = [time.perf_counter() for _ in generate.sample(transformer, cfg.n_tokens, prompt[:2], steps[-1] + window,
                                                          temperature=0)]
    rates = {'plain': [], 'generate.py': [window / (ticks[n - 2 + window] - ticks[n - 2]) for n in steps]}
    for n in steps:
        start = time.perf_counter()
        recompute(transformer, cfg.n_tokens, (prompt * 4)[:n], 3)
        rates['plain'].append(3 / (time.perf_counter() - start))
    return steps, rates


SECTIONS = {'train': bench_train, 'memory': bench_memory, 'evaluate': bench_evaluate, 'precision': bench_precision,
            'startup': bench_startup, 'run': bench_run, 'generate': bench_generate, 'curves': bench_curves}


def heading(name, kind):
    """The heading of a section measured on a device of this kind."""
    return f'{SECTIONS[name].__doc__} ({"GPU" if kind == "cuda" else kind.upper()})'


def measure(args, name):
    """Measure one section, print it, and replace it in the report. Other sections of the report do not change."""
    cfg, device = setup(args)
    lines = SECTIONS[name](args, cfg, device)
    command = f'python scripts/bench.py --only {name} --rounds {args.rounds}' + (' --toy' if args.toy else '')
    title, text = heading(name, device.type), '\n'.join([provenance(command, device), '', *lines])
    print(f'## {title}\n\n{text}\n', flush=True)
    sections = read_report(args.out) | {title: text}
    titles = [heading(name, kind) for kind in ('cpu', 'cuda', 'mps') for name in SECTIONS]
    in_order = {title: sections[title] for title in (*titles, *sections) if title in sections}
    write_report(args.out, METHOD, in_order, [name for name in SECTIONS if heading(name, 'cuda') not in sections])
    print(f'written: {args.out}')


def main(args):
    with_stories = has_stories(args)
    for name in args.only or SECTIONS:
        if name in ('startup', 'run') and not with_stories:
            print(f'{name} is left out: it needs the Story Cloze files, the released vocabulary and full size')
        else:
            run_apart(measure, args, name)


def parse_args(argv=None):
    parser = Parser(f'{__doc__}\n{METHOD}')
    parser.add_argument('--only', nargs='+', choices=SECTIONS, help='measure these sections; the others do not change')
    parser.add_argument('--rounds', type=number(int, 1), default=5, help='rounds of each comparison, after a first one')
    parser.add_argument('--against', metavar='PATH', help='checkout of a port to compare with')
    parser.add_argument('--data_dir', default='data/', help='folder with the Story Cloze files, if you have them')
    parser.add_argument('--device', default='auto', help='cuda, mps or cpu; auto: the first available one')
    parser.add_argument('--out', help='file to write; the picture is beside it (default: BENCHMARKS[.toy].md)')
    parser.add_argument('--toy', action='store_true', help='use a tiny network, to test this script')
    add_path_args(parser)
    args = finish_paths(parser.parse_args(argv))
    args.out = args.out or ('BENCHMARKS.toy.md' if args.toy else 'BENCHMARKS.md')
    return args


if __name__ == '__main__':
    run_script(main, parse_args)
