"""Reproduce the tables of the paper, and the left half of figure 2, on the data that is there.

    python scripts/tables.py 5 --data_dir glue/ --datasets cola,stsb --rows full,no_pretraining --seeds 42-44
    python scripts/tables.py figure2 --data_dir data/ --datasets race,mnli --layers 0-12

Other options are those of train.py. Each cell is one run of train.py for each seed. Runs that are complete are not
repeated, so that the same command continues after an interruption. The shortest tasks come first. The table is printed
and written to --log_dir, with the set that each number was measured on: the paper's GLUE scores come from a server that
has the labels of the test sets, and a score on the dev set is not the same thing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.options import Parser, seed_list
from common.shell import begin_script, run_script
from tasks import TASKS

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
    parser.allow_abbrev = False  # --seed is an option of train.py, not --seeds
    group = parser.add_argument_group('what to make')
    group.add_argument('what', choices=TABLES, help='table of the paper, or figure2')
    group.add_argument('--datasets', type=names(TASKS), metavar='LIST',
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
import zipfile

import numpy as np

import train
from analysis import figure, legend_below, line_style, scale_scores
from model_pytorch import read_shapes
from scripts.report import table
from utils import write_whole

GLUE = ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli')  # the tasks of GLUE's server
HEADER = ('task', 'row', 'metric', 'set', 'n', 'runs', 'median [least..greatest]', 'one answer for all',
          'best constant answer', 'paper', 'others, dev')


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
                one.submission_dir = os.path.join(one.submission_dir, desc)  # all seeds write the same names
                runs[task, row].append(one)
    return runs


def is_complete(options):
    return os.path.exists(os.path.join(options.save_dir, options.desc, 'results.json'))


def sizes_of(runs):
    """The length of the training texts of each task, in characters; and for each task without data the reason.

    FileNotFoundError if weights are missing.
    """
    sizes, missing = {}, {}
    for (task, _), (first, *_) in runs.items():
        if first.n_transfer >= 0:
            read_shapes(first.model_path)  # before hours of other rows
        if task in sizes or task in missing:
            continue
        try:
            train_split, *_ = TASKS[task].load(first)
            sizes[task] = sum(len(text) for field in train_split.texts for text in field)
        except FileNotFoundError as e:
            missing[task] = str(e)
    return sizes, missing


def results_of(runs, sizes):
    """Run what is not complete, the shortest task first: (task, row) -> the results of each seed."""
    results = {key: [] for key in runs if key[0] in sizes}
    for key in sorted(results, key=lambda key: sizes[key[0]]):
        for options in runs[key]:
            print(f'{options.desc}:')
            results[key].append(train.main(options))
    return results


def measured(results, kind):
    """The scores of runs on the `valid` or `test` examples, {part: [one for each run]}; '' is the whole set."""
    prefix = 'va_score' if kind == 'valid' else 'test_score'
    lines = [result.best if kind == 'valid' else result.test or {} for result in results]
    lines = [line for line in lines if prefix in line]  # a test file may have no labels
    parts = [name for name in lines[0] if name == prefix or name.startswith(f'{prefix}_')] if lines else []
    return {name.removeprefix(prefix).removeprefix('_'): [line[name] for line in lines] for name in parts}


def measured_rows(results, missing):
    """The rows of the table, as HEADER has them."""
    for (task, row), runs in results.items():
        of_paper, paper_set, others_dev = TASKS[task].paper, TASKS[task].paper_set, TASKS[task].others_dev
        for kind, where in (('valid', 'dev'), ('test', 'test')):
            for part, values in measured(runs, kind).items():
                theirs = of_paper.get(part, {}).get(row)
                n = runs[0].n_examples[kind] if not part else ''
                spread = f'{np.median(values):.1f}'
                if len(values) > 1:
                    spread += f' [{min(values):.1f}..{max(values):.1f}]'
                yield [f'{task} {part}'.strip(), row, runs[0].metric, where, str(n), str(len(values)), spread,
                       f'{sum(run.degenerate for run in runs)} of {len(runs)}',
                       '' if part else f'{getattr(runs[0], f"{kind}_trivial"):.1f}',
                       f'{theirs} ({paper_set})' if theirs else '',
                       str(others_dev) if others_dev and kind == 'valid' and row == 'full' and not part else '']
    for task in missing:
        yield [task, 'no data', *[''] * (len(HEADER) - 2)]


def write_zip(args, results, folder):
    """The files that GLUE's server takes, from the best seed on the dev set of the row full."""
    wanted, files = [name for task in GLUE for name in TASKS[task].submission.values()], {}
    for (_, row), runs in results.items():
        best = max(runs, key=lambda run: run.valid_score)
        if row == 'full' and getattr(best, 'submission', None):
            files |= {os.path.basename(path): path for path in best.submission.split(', ')}
    path = os.path.join(folder, 'glue.zip')
    with write_whole(path, 'wb') as f, zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as archive:
        found = [name for name in wanted if name in files]
        for name in found:
            archive.write(files[name], name)
    lacking = [name for name in wanted if name not in found]
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
    sizes, missing = sizes_of(runs)
    for task, reason in missing.items():
        print(f'{task}: no data: {reason}')
    if not sizes:
        raise FileNotFoundError('there is no data for any of these tasks')
    first = next(iter(runs.values()))[0]
    todo = [options.desc for (task, _), seeds in runs.items() if task in sizes for options in seeds
            if not is_complete(options)]
    if todo:
        print(f'{len(todo)} runs of {sum(map(len, runs.values()))} are to be done: {", ".join(todo)}')
    results = results_of(runs, sizes)
    name = args.what if args.what == 'figure2' else f'table{args.what}'
    lines = table(HEADER, list(measured_rows(results, missing)))
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
