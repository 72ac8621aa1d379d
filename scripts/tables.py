"""Reproduce the tables of the paper, and the left half of figure 2, on the data that is there.

    python scripts/tables.py 5 --data_dir glue/ --datasets cola,stsb --rows full,no_pretraining --seeds 42-46
    python scripts/tables.py 5 --data_dir glue/ --vary lr=1e-4,3e-4,1e-3 dropout=0,0.1 --model_path model/books/
    python scripts/tables.py figure2 --data_dir data/ --datasets race,mnli --layers 0-12

Other options are those of train.py. A cell is one run of train.py for each seed. --vary tries all combinations of these
values for each cell, with the first seed, and takes those with the best score on dev for all seeds: no row loses by
settings that only suit another. Runs that are complete are not repeated, so that the same command continues after an
interruption. The shortest tasks come first. The scores, choices and options go to --results, and from there into the
table in --log_dir, with the set that each number was measured on: the paper's GLUE scores come from a server that has
the labels of the test sets, and a score on the dev set is not the same thing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.options import INCIDENTAL, Parser, seed_list
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


def values_of(text):
    """'lr=1e-4,3e-4' -> ('lr', ['1e-4', '3e-4'])"""
    name, equals, values = text.partition('=')
    if not equals or not all(values.split(',')):
        raise ValueError(text)
    return name, values.split(',')


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
    group.add_argument('--vary', nargs='+', type=values_of, metavar='NAME=LIST', help='values of options '
                       'of train.py to choose from, on dev; dropout means all four rates')
    group.add_argument('--results', default='results/', metavar='FOLDER', help='a json file of all scores goes here')
    group.add_argument('--layers', type=seed_list, default='0-12', metavar='LIST', help='for figure2: values of '
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

import itertools
import json
import os
import zipfile

import numpy as np

import train
from analysis import figure, legend_below
from common.checkpoint import environment
from model_pytorch import read_shapes
from scripts.report import table
from tasks.baseline import tfidf_score
from utils import write_whole

GLUE = ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli')  # the tasks of GLUE's server
DROPOUTS = ('embd_pdrop', 'attn_pdrop', 'resid_pdrop', 'clf_pdrop')
HEADER = ('task', 'row', 'metric', 'set', 'n', 'runs', 'median [least..greatest]', 'p', 'one answer for all',
          'best constant answer', 'TF-IDF', 'paper')


def rows_of(args):
    """The rows of a table: name -> options of train.py."""
    if args.what == 'figure2':
        return {f'{n} blocks': ['--n_transfer', str(n)] for n in args.layers}
    return {row: ROWS[row] for row in args.rows}


def variants_of(args):
    """The combinations of --vary: name -> options of train.py. Without --vary one, which has no name."""
    variants = {}
    for values in itertools.product(*(values for _, values in args.vary or ())):
        pairs = [(name, value) for (name, _), value in zip(args.vary or (), values, strict=True)]
        options = [f'--{option}={value}' for name, value in pairs
                   for option in (DROPOUTS if name == 'dropout' else [name])]
        variants[','.join(f'{name}={value}' for name, value in pairs)] = options
    return variants


def options_of(args, task, row, variant, seed):
    """The options of train.py for one run."""
    desc = '-'.join([task, row.replace(' ', '-'), *([variant] if variant else []), str(seed)])
    options = train.parse_args([*args.rest, '--dataset', task, '--desc', desc, '--seed', str(seed), '--resume',
                                '--submit', *variants_of(args)[variant], *rows_of(args)[row]])
    options.submission_dir = os.path.join(options.submission_dir, desc)  # all seeds write the same names
    return options


def read_all(args):
    """The examples of each task, the shortest first: task -> Splits; and for each task without data the reason.

    FileNotFoundError if weights are missing.
    """
    splits, missing = {}, {}
    first = {task: options_of(args, task, row, next(iter(variants_of(args))), args.seeds[0])
             for task in args.datasets for row in rows_of(args)}
    for task, options in first.items():
        if options.n_transfer >= 0:
            read_shapes(options.model_path)  # before hours of other rows
        try:
            splits[task] = TASKS[task].load(options)
        except FileNotFoundError as e:
            missing[task] = str(e)
    sizes = {task: sum(len(text) for field in train_split.texts for text in field)
             for task, (train_split, *_) in splits.items()}
    return {task: splits[task] for task in sorted(sizes, key=sizes.get)}, missing


def run(args, task, row, variant, seed):
    options = options_of(args, task, row, variant, seed)
    print(f'{options.desc}:')
    return train.main(options)


def run_cell(args, task, row):
    """The runs of a cell, one for each seed; the variant that was chosen, and the dev scores of all that were tried."""
    variants, tried = list(variants_of(args)), {}
    if len(variants) > 1:
        tried = {variant: run(args, task, row, variant, args.seeds[0]).valid_score for variant in variants}
    chosen = max(tried, key=tried.get) if tried else variants[0]
    return [run(args, task, row, chosen, seed) for seed in args.seeds], chosen, tried


def scores_of_runs(results, kind):
    """The scores of runs on the `valid` or `test` examples, {part: [one for each run]}; '' is the whole set."""
    prefix = 'va_score' if kind == 'valid' else 'test_score'
    lines = [result.best if kind == 'valid' else result.test or {} for result in results]
    lines = [line for line in lines if prefix in line]  # a test file may have no labels
    parts = [name for name in lines[0] if name == prefix or name.startswith(f'{prefix}_')] if lines else []
    return {name.removeprefix(prefix).removeprefix('_'): [line[name] for line in lines] for name in parts}


def tfidf_scores(task, splits):
    """What a linear model on TF-IDF reaches: {'valid': score, 'test': score}, where there are labels."""
    train_split, *others = splits
    return {kind: tfidf_score(TASKS[task], train_split, split)
            for kind, split in zip(('valid', 'test'), others, strict=True) if split and split.labels is not None}


def measured_cell(task, row, runs, chosen, tried):
    """A cell as the results file keeps it: all but the texts."""
    first = runs[0]
    return dict(task=task, row=row, metric=first.metric, seeds=[one.options['seed'] for one in runs], chosen=chosen,
                tried=tried, options={name: first.options[name] for name in sorted(first.options)
                                      if name not in (*INCIDENTAL, 'desc', 'seed')},
                n=first.n_examples, degenerate=sum(one.degenerate for one in runs),
                seconds=[round(one.seconds) for one in runs],
                trivial=dict(valid=first.valid_trivial, test=first.test_trivial),
                scores={kind: scores_of_runs(runs, kind) for kind in ('valid', 'test')})


def p_value(cell, full, kind, part):
    """The probability, by a paired t-test on the same seeds, of such a difference from the row full; '' without it."""
    ours, theirs = (one['scores'][kind].get(part, []) for one in (cell, full or cell))
    if full is None or cell is full or len(ours) < 2 or cell['seeds'] != full['seeds'] or ours == theirs:
        return ''
    from scipy.stats import ttest_rel
    return f'{ttest_rel(ours, theirs).pvalue:.3f}'


def lines_of_table(results):
    """The rows of the table, as HEADER has them, from the contents of a results file."""
    full = {cell['task']: cell for cell in results['cells'] if cell['row'] == 'full'}
    for cell in results['cells']:
        task, row = cell['task'], cell['row']
        for kind, where in (('valid', 'dev'), ('test', 'test')):
            for part, values in cell['scores'][kind].items():
                theirs = TASKS[task].paper.get(part, {}).get(row)
                spread = f'{np.median(values):.1f}'
                if len(values) > 1:
                    spread += f' [{min(values):.1f}..{max(values):.1f}]'
                trivial, tfidf = cell['trivial'][kind], results['tfidf'].get(task, {}).get(kind)
                yield [f'{task} {part}'.strip(), row, cell['metric'], where, '' if part else str(cell['n'][kind]),
                       str(len(values)), spread, p_value(cell, full.get(task), kind, part),
                       f'{cell["degenerate"]} of {len(cell["seeds"])}', '' if part else f'{trivial:.1f}',
                       '' if part or tfidf is None else f'{tfidf:.1f}',
                       f'{theirs} ({TASKS[task].paper_set})' if theirs else '']
    for task in results['missing']:
        yield [task, 'no data', *[''] * (len(HEADER) - 2)]


def write_zip(runs, folder):
    """The files that GLUE's server takes, from the best seed on the dev set of the row full. runs: of each cell."""
    wanted, files = [name for task in GLUE for name in TASKS[task].submission.values()], {}
    for (_, row), of_cell in runs.items():
        best = max(of_cell, key=lambda one: one.valid_score)
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
    """Dev scores over the number of transferred blocks: a line through the medians, and the spread of the seeds."""
    with figure(path, (9, 5)) as fig:
        ax = fig.subplots()
        for i, task in enumerate(dict.fromkeys(cell['task'] for cell in results['cells'])):
            cells = [cell for cell in results['cells'] if cell['task'] == task]
            blocks = [int(cell['row'].split()[0]) for cell in cells]
            values = [cell['scores']['valid'][''] for cell in cells]
            ax.plot(blocks, [np.median(of_cell) for of_cell in values], color=f'C{i}', linewidth=2, marker='o',
                    label=f'{task} ({cells[0]["metric"]})')
            ax.fill_between(blocks, list(map(min, values)), list(map(max, values)), color=f'C{i}', alpha=0.15)
            ax.axhline(cells[0]['trivial']['valid'], color=f'C{i}', linestyle='--', linewidth=1)
        ax.set(xlabel='blocks transferred from the pre-trained network (0: the embeddings alone)', ylabel='score (%)',
               title='best epoch on dev; dashed: the best constant answer')
        ax.locator_params(axis='x', integer=True)
        legend_below(fig)


def main(args):
    """Run what is missing and write results, table or figure; returns {(task, row): results of each seed}."""
    splits, missing = read_all(args)
    for task, reason in missing.items():
        print(f'{task}: no data: {reason}')
    if not splits:
        raise FileNotFoundError('there is no data for any of these tasks')
    name, runs = args.what if args.what == 'figure2' else f'table{args.what}', {}
    results = dict(about=environment(), missing=list(missing), cells=[],
                   tfidf={task: tfidf_scores(task, of_task) for task, of_task in splits.items()})
    for task in splits:
        for row in rows_of(args):
            runs[task, row], chosen, tried = run_cell(args, task, row)
            results['cells'].append(measured_cell(task, row, runs[task, row], chosen, tried))
            with write_whole(os.path.join(args.results, f'{name}.json')) as f:
                json.dump(results, f, indent=1)
    options = options_of(args, task, row, chosen, args.seeds[0])
    lines, path = table(HEADER, list(lines_of_table(results))), os.path.join(options.log_dir, f'{name}.md')
    with write_whole(path) as f:
        f.write('\n'.join(lines) + '\n')
    print(*lines, f'table: {path}', sep='\n')
    if args.what == 'figure2':
        draw(results, os.path.join(options.log_dir, 'figure2.png'))
    if args.zip:
        write_zip(runs, os.path.dirname(options.submission_dir))
    return runs


if __name__ == '__main__':
    run_script(main, args)
