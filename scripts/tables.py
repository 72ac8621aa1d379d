"""Reproduce the tables of the paper, and the left half of figure 2, on the data that is there.

    python scripts/tables.py 5 --data_dir glue/ --datasets cola,stsb --rows full,no_pretraining --seeds 42-44
    python scripts/tables.py figure2 --data_dir data/ --datasets race,mnli --layers 0-12

Other options are those of train.py. Each cell is one run of train.py for each seed. Runs that are complete are not
repeated, so that the same command continues after an interruption. The cheapest come first. The table is printed and
written to --log_dir, with the set that each number was measured on: the paper's GLUE scores come from a server that has
the labels of the test sets, and a score on the dev set is not the same thing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from options import DATASETS, Parser, seed_list
from shell import begin_script, run_script

ROWS = {  # a row of table 5 -> options of train.py
    'full': [],
    'no_pretraining': ['--n_transfer', '-1'],
    'no_lm': ['--lm_coef', '0'],
}
TABLES = {  # tasks of a table, in the paper's order
    '2': ('mnli', 'snli', 'scitail', 'qnli', 'rte'),
    '3': ('rocstories', 'race'),
    '4': ('cola', 'sst2', 'mrpc', 'stsb', 'qqp'),
    '5': ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte'),
    'figure2': ('race', 'mnli'),
}


def layers(text):
    """'0-12' or '0,6,12' -> numbers of blocks that are taken from the released network"""
    first, dash, last = text.partition('-')
    return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(',')]


def names(known):
    """The `type` of an option with some of the `known` names, between commas."""
    def convert(text):
        found = text.split(',')
        if unknown := [name for name in found if name not in known]:
            raise ValueError(unknown)
        return found
    convert.__name__ = f'list of {", ".join(known)}'
    return convert


def parse_args(argv=None):
    """The options of scripts/tables.py, with those of train.py as `rest`."""
    parser = Parser('scripts/tables.py', __doc__, '{2,3,4,5,figure2} ')
    parser.allow_abbrev = False                                        # --seed is an option of train.py, not --seeds
    group = parser.add_argument_group('what to make')
    group.add_argument('what', choices=TABLES, help='table of the paper, or figure2')
    group.add_argument('--datasets', type=names([name for name in DATASETS if name != 'own']), metavar='LIST',
                       help='some tasks, between commas (default: those of the paper)')
    group.add_argument('--rows', type=names(ROWS), metavar='LIST', help=f'rows of table 5: {",".join(ROWS)} (default: '
                       'all; the other tables have the row full)')
    group.add_argument('--seeds', type=seed_list, default='42', metavar='LIST', help='42-44, or 1,2,5')
    group.add_argument('--layers', type=layers, default='0-12', metavar='LIST', help='for figure2: values of '
                       '--n_transfer')
    group.add_argument('--zip', action='store_true', help="write glue.zip for GLUE's server into --submission_dir: the "
                       'predictions of the seed that is best on the dev set, of the row full')
    rest = []
    args = parser.complete(parser.read(argv, rest))
    args.rest = rest
    args.datasets = args.datasets or list(TABLES[args.what])
    args.rows = args.rows or (list(ROWS) if args.what == '5' else ['full'])
    chosen = [option for option in args.rest if option.split('=')[0] in ('--dataset', '--seed', '--desc',
                                                                         '--n_transfer')]
    if chosen:
        raise ValueError(f'{chosen[0]} has no effect here: this script chooses it for each run')
    return args


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import os
import time
import zipfile
from argparse import Namespace

import numpy as np
import torch

import train
from analysis import figure, legend_below, line_style, scale_scores
from checkpoint import Run
from device import Ranks, device_of
from model_pytorch import read_shapes
from scripts.report import table
from tasks import TASKS
from utils import write_whole

PAPER = {                                               # (task, part) -> set, and the scores of the rows
    ('cola', ''): ('GLUE test', dict(full=45.4, no_pretraining=18.9, no_lm=47.9)),
    ('sst2', ''): ('GLUE test', dict(full=91.3, no_pretraining=84.0, no_lm=92.0)),
    ('mrpc', ''): ('GLUE test', dict(full=82.3, no_pretraining=79.4, no_lm=84.9)),
    ('stsb', ''): ('GLUE test', dict(full=82.0, no_pretraining=30.9, no_lm=83.2)),
    ('qqp', ''): ('GLUE test', dict(full=70.3, no_pretraining=65.5, no_lm=69.8)),
    ('mnli', 'matched'): ('GLUE test', dict(full=82.1)),
    ('mnli', 'mismatched'): ('GLUE test', dict(full=81.4)),
    ('mnli', ''): ('GLUE test', dict(full=81.8, no_pretraining=75.7, no_lm=81.1)),
    ('qnli', ''): ('GLUE test of QNLI v1', dict(full=88.1, no_pretraining=71.2, no_lm=86.9)),
    ('rte', ''): ('GLUE test', dict(full=56.0, no_pretraining=53.8, no_lm=54.4)),
    ('snli', ''): ('test', dict(full=89.9)),
    ('scitail', ''): ('test', dict(full=88.3)),
    ('race', 'middle'): ('test', dict(full=62.9)),
    ('race', 'high'): ('test', dict(full=57.4)),
    ('race', ''): ('test', dict(full=59.0)),
    ('rocstories', ''): ('test', dict(full=86.5)),
}
OTHERS = {'cola': 57.6, 'stsb': 85.1, 'mnli': 77.2}     # dev, one run each of openai-gpt in transformers: jiant#881
GLUE_FILES = ('CoLA', 'SST-2', 'MRPC', 'STS-B', 'QQP', 'MNLI-m', 'MNLI-mm', 'QNLI', 'RTE', 'WNLI', 'AX')
HEADER = ('task', 'row', 'metric', 'set', 'n', 'runs', 'median [least..greatest]', 'one answer for all',
          'best constant answer', 'paper', 'others, dev')
N_TIMED = 3                                             # updates from which the time of all is estimated


def plan(args):
    """The options of train.py for each run: (task, row) -> one Namespace for each seed."""
    if args.what == 'figure2':
        rows = {f'{n} blocks': ['--n_transfer', str(n)] for n in args.layers}
    else:
        rows = {row: ROWS[row] for row in args.rows}
    runs = {}
    for task in args.datasets:
        for row, options in rows.items():
            runs[task, row] = []
            for seed in args.seeds:
                desc = f'{task}-{row.replace(" ", "-")}-{seed}'
                one = train.parse_args([*args.rest, '--dataset', task, '--desc', desc, '--seed', str(seed), '--resume',
                                        '--submit', *options])
                one.submission_dir = os.path.join(one.submission_dir, desc)      # all seeds write the same names
                runs[task, row].append(one)
    return runs


def is_complete(options):
    return os.path.exists(os.path.join(options.save_dir, options.desc, 'results.json'))


def cost_of(options, data):
    """Real tokens that a run computes in training."""
    return float(data.train.lengths.sum()) * options.n_iter


def seconds_a_token(options, data):
    """The time of a few updates of the network that `options` name, for each token."""
    device, autocast = device_of(options)
    _, runner, opt = train.build(Run(options, Ranks(), device, autocast), TASKS[options.dataset], data)
    n_batch, seconds = options.n_batch * options.n_gpu, []
    for i in range(N_TIMED + 1):                                       # the first one warms up
        where = np.arange(i * n_batch, (i + 1) * n_batch) % len(data.train)
        batch = [torch.from_numpy(t) for t in (*data.train.batch(where), data.train.labels[where])]
        started = time.perf_counter()
        train.update(runner, opt, batch, options.n_gpu, autocast)
        seconds.append((time.perf_counter() - started) / data.train.lengths[where].sum())
    return float(np.median(seconds[1:]))


def load(runs):
    """What is needed to plan: task -> cost in tokens of one run, task without data -> the reason, and options and data
    of the cheapest task, None without any. FileNotFoundError if weights are missing."""
    for first, *_ in runs.values():
        if first.n_transfer >= 0:
            read_shapes(first.model_path)                              # before hours of other rows
    costs, missing, cheapest = {}, {}, None
    for task, first in {task: first for (task, _), (first, *_) in runs.items()}.items():
        options = Namespace(**vars(first) | dict(n_transfer=-1))       # lengths and times need no weights
        try:
            splits = TASKS[task].load(options)
        except FileNotFoundError as e:
            missing[task] = str(e)
            continue
        data = train.load_data(options, TASKS[task]._replace(load=lambda options, splits=splits: splits))
        costs[task] = cost_of(options, data)
        if costs[task] == min(costs.values()):
            cheapest = options, data
    return costs, missing, cheapest


def results_of(runs, costs):
    """Run what is not complete, the cheapest first: (task, row) -> the results of each seed."""
    results = {key: [] for key in runs if key[0] in costs}
    for key in sorted(results, key=lambda key: costs[key[0]]):
        for options in runs[key]:
            print(f'{options.desc}:')
            results[key].append(train.main(options))
    return results


def measured(results, kind):
    """The scores of runs on the `valid` or `test` examples, {part: [one for each run]}; '' is the whole set."""
    prefix = 'va_score' if kind == 'valid' else 'test_score'
    lines = [result.best if kind == 'valid' else result.test or {} for result in results]
    lines = [line for line in lines if prefix in line]                 # a test file may have no labels
    parts = [name for name in lines[0] if name == prefix or name.startswith(f'{prefix}_')] if lines else []
    return {name.removeprefix(prefix).removeprefix('_'): [line[name] for line in lines] for name in parts}


def table_rows(results, missing):
    """The rows of the table, as HEADER has them."""
    for (task, row), runs in results.items():
        for kind, where in (('valid', 'dev'), ('test', 'test')):
            for part, values in measured(runs, kind).items():
                theirs_on, theirs = PAPER.get((task, part), ('', {}))
                n = runs[0].n_examples[kind] if not part else ''
                spread = f'{np.median(values):.1f}'
                if len(values) > 1:
                    spread += f' [{min(values):.1f}..{max(values):.1f}]'
                yield [f'{task} {part}'.strip(), row, runs[0].metric, where, str(n), str(len(values)), spread,
                       f'{sum(run.degenerate for run in runs)} of {len(runs)}',
                       '' if part else f'{getattr(runs[0], f"{kind}_trivial"):.1f}',
                       f'{theirs[row]} ({theirs_on})' if row in theirs else '',
                       str(OTHERS[task]) if kind == 'valid' and row == 'full' and not part and task in OTHERS else '']
    for task in missing:
        yield [task, 'no data', *[''] * (len(HEADER) - 2)]


def write_zip(args, results, folder):
    """The files that GLUE's server takes, from the best seed on the dev set of the row full."""
    files = {}
    for (_, row), runs in results.items():
        best = max(runs, key=lambda run: run.valid_score)
        if row == 'full' and getattr(best, 'submission', None):
            files |= {os.path.basename(path): path for path in best.submission.split(', ')}
    path = os.path.join(folder, 'glue.zip')
    with write_whole(path, 'wb') as f, zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as archive:
        found = [name for name in GLUE_FILES if f'{name}.tsv' in files]
        for name in found:
            archive.write(files[f'{name}.tsv'], f'{name}.tsv')
    lacking = [name for name in GLUE_FILES if name not in found]
    print(f'{path}: {len(found)} files' + (f'; the server also wants {", ".join(lacking)}' if lacking else ''))


def draw(results, path):
    """Scores over the number of transferred blocks, two lines for each task: dev and training."""
    n_seeds, least = max(map(len, results.values())), 100
    with figure(path, (9, 5)) as fig:
        ax = fig.subplots()
        for i, task in enumerate(dict.fromkeys(task for task, _ in results)):
            rows = [(int(row.split()[0]), runs) for (name, row), runs in results.items() if name == task]
            style = line_style(i) | dict(clip_on=False)
            for key, more in (('tr_score', dict(linestyle='--', marker='', linewidth=1.2)),
                              ('va_score', dict(linestyle='-', label=f'{task} ({rows[0][1][0].metric})'))):
                medians = [np.median([run.best[key] for run in runs]) for _, runs in rows]
                ax.plot([n for n, _ in rows], medians, **style | more)
                least = min(least, *medians)
        ax.set(xlabel='blocks transferred from the pre-trained network (0: the embeddings alone)',
               title='best epoch on dev (dashed: training), ' + (
                   f'median of {n_seeds} seeds' if n_seeds > 1 else 'one seed') + ': higher is better')
        scale_scores(ax, least, 'score')
        ax.locator_params(axis='x', integer=True)
        legend_below(fig)


def main(args):
    """Run what is missing and write the table or the figure; returns {(task, row): results}."""
    runs = plan(args)
    costs, missing, cheapest = load(runs)
    for task, reason in missing.items():
        print(f'{task}: no data: {reason}')
    if not costs:
        raise FileNotFoundError('there is no data for any of these tasks')
    first = next(iter(runs.values()))[0]
    todo = {key: sum(not is_complete(options) for options in of_row) for key, of_row in runs.items() if key[0] in costs}
    if any(todo.values()):
        speed = seconds_a_token(*cheapest)
        hours = {key: costs[key[0]] * n * speed / 3600 for key, n in todo.items() if n}
        print(f'{sum(todo.values())} runs of {sum(map(len, runs.values()))} are to be done, about '
              f'{sum(hours.values()):.1f} hours: ' + ', '.join(
                  f'{" ".join(key)} {hours[key]:.1f}' for key in sorted(hours, key=lambda key: costs[key[0]])))
    results = results_of(runs, costs)
    name = args.what if args.what == 'figure2' else f'table{args.what}'
    lines = table(HEADER, list(table_rows(results, missing)))
    path = os.path.join(first.log_dir, f'{name}.md')
    with write_whole(path) as f:
        f.write('\n'.join(lines) + '\n')
    print(*lines, f'table: {path}', sep='\n')
    if args.what == 'figure2':
        draw(results, os.path.join(first.log_dir, 'figure2.png'))
    if args.zip:
        write_zip(args, results, os.path.dirname(first.submission_dir))
    return results


if __name__ == '__main__':
    run_script(main, args)
