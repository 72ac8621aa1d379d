"""Reproduce the tables of the paper, and the left half of figure 2, on the data that is there.

    python scripts/tables.py 5 --data_dir glue/ --datasets cola,stsb --rows full,no_pretraining --seeds 42-46
    python scripts/tables.py 5 --data_dir glue/ --vary lr=1e-4,3e-4,1e-3 dropout=0,0.1 --model_path model/books/
    python scripts/tables.py figure2 --data_dir data/ --datasets race,mnli --layers 0-11

Other options are those of train.py. A cell is one run of train.py for each seed. --vary tries all combinations of these
values for each cell, with the first seed, and takes those with the best score on dev for all seeds: no row loses by
settings that only suit another. In figure 2 all numbers of blocks have what the whole network has chosen. Runs that are
complete are not repeated, so that the same command continues after an interruption. The shortest tasks come first. The
scores, choices and options go to --results, beside those of other tasks, and from there into the table in --log_dir,
with the set that each number was measured on: the paper's GLUE scores come from a server that has the labels of the
test sets, and a score on the dev set is not the same thing. scripts/figure2.py draws figure 2.
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
    group.add_argument('what', choices=TABLES, metavar='TABLE', help='table of the paper, or figure2')
    group.add_argument('--datasets', type=names(TASKS), metavar='LIST',
                       help='some tasks, between commas (default: those of the paper)')
    group.add_argument('--rows', type=names(ROWS), metavar='LIST', help=f'rows of table 5: {",".join(ROWS)} (default: '
                       'all; the other tables have the row full)')
    group.add_argument('--seeds', type=seed_list, default='42', metavar='LIST', help='42-44, or 1,2,5')
    group.add_argument('--vary', nargs='+', type=values_of, metavar='NAME=LIST', help='values of options '
                       'of train.py to choose from, on dev; dropout means all four rates')
    group.add_argument('--results', default='log/', metavar='FOLDER', help='a json file of all scores goes here')
    group.add_argument('--layers', type=seed_list, default='0-11', metavar='LIST', help='for figure2: values of '
                       '--n_transfer, beside the whole network')
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
import os
import shlex
import zipfile
from contextlib import redirect_stdout
from io import StringIO

import numpy as np

import train
from common.checkpoint import environment
from common.device import choose_device
from model_pytorch import open_release
from scripts.report import machine, table
from tasks.baseline import tfidf_score
from utils import read_sealed, shown, write_sealed, write_whole

GLUE = ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli')  # the tasks of GLUE's server
DROPOUTS = ('embd_pdrop', 'attn_pdrop', 'resid_pdrop', 'clf_pdrop')
def rows_of(args):
    """The rows of a table: name -> options of train.py."""
    if args.what == 'figure2':
        return {'full': [], **{f'{n} blocks': ['--n_transfer', str(n)] for n in args.layers}}
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
    """The examples of each task, the shortest first: task -> Splits; and for each task without data the reason."""
    splits, missing = {}, {}
    first = {task: options_of(args, task, row, next(iter(variants_of(args))), args.seeds[0])
             for task in args.datasets for row in rows_of(args)}
    for task, options in first.items():
        if options.n_transfer >= 0:
            open_release(options.model_path)  # before hours of other rows
        try:
            splits[task] = TASKS[task].load(options)
        except FileNotFoundError as e:
            missing[task] = str(e)
    sizes = {task: sum(len(text) for field in train_split.texts for text in field)
             for task, (train_split, *_) in splits.items()}
    return {task: splits[task] for task in sorted(sizes, key=sizes.get)}, missing


def run(args, task, row, variant, seed):
    """The results of one run; of a complete run, only a line is printed."""
    options = options_of(args, task, row, variant, seed)
    if not os.path.exists(os.path.join(options.save_dir, options.desc, 'results.json')):
        print(f'{options.desc}:')
        return train.main(options)
    with redirect_stdout(StringIO()):
        result = train.main(options)
    print(f'{options.desc} is complete: {result.valid_score:.2f} on dev')
    return result


def run_cell(args, task, row, variants):
    """The runs of a cell, one for each seed; the variant that was chosen, and the dev scores of all that were tried."""
    tried = {}
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


def measured_cell(task, row, runs, chosen, tried):
    """A cell as the results file keeps it: all but the texts."""
    first = runs[0]
    return dict(task=task, row=row, command=shown(shlex.join(['python', 'scripts/tables.py', *sys.argv[1:]])),
                about=dict(environment(), machine=machine(choose_device(first.options['device'], 'float32')[0])),
                weights=first.hashes.get('weights'), texts=first.hashes['texts'], metric=first.metric,
                seeds=[one.options['seed'] for one in runs],
                chosen=chosen, tried=tried, options={name: first.options[name] for name in sorted(first.options)
                                      if name not in (*INCIDENTAL, 'desc', 'seed')},
                n=first.n_examples, degenerate=sum(one.degenerate for one in runs),
                seconds=[round(one.seconds) for one in runs],
                trivial=dict(valid=first.valid_trivial, test=first.test_trivial),
                scores={kind: scores_of_runs(runs, kind) for kind in ('valid', 'test')})


def stand_together(cell, other) -> bool:
    """True if two cells of a task may stand in one line: their examples are the same, and the weights that they began
    with, if any, and their options differ only in what rows and --vary set."""
    varied = {pair.partition('=')[0] for one in (cell, other) for pair in one['chosen'].split(',')}
    varied |= {'n_transfer', 'lm_coef', *(DROPOUTS if 'dropout' in varied else ())}
    same_options = all(cell['options'][name] == other['options'].get(name) for name in cell['options'].keys() - varied)
    same_files = all(len({cell.get(name), other.get(name), None}) <= 2 for name in ('weights', 'texts'))
    return same_options and same_files and cell['n'] == other['n']


def p_value(cell, full, kind, part):
    """The probability, by a paired t-test on the same seeds, of such a difference from the row full, or None."""
    ours, theirs = (one['scores'][kind].get(part, []) for one in (cell, full or cell))
    if full is None or cell is full or len(ours) < 2 or cell['seeds'] != full['seeds']:
        return None
    if np.ptp(np.subtract(ours, theirs)) < 1e-9:  # the test needs differences that differ
        return None
    from scipy.stats import ttest_rel
    return ttest_rel(ours, theirs).pvalue


def cell_text(cell, full, kind, part):
    """Median, least and greatest score of a cell; beside other rows than full the p-value."""
    values = cell['scores'][kind].get(part)
    if not values:
        return ''
    spread = f' [{min(values):.1f}..{max(values):.1f}]' if len(values) > 1 else ''
    constant = f', {cell["degenerate"]} of {len(cell["seeds"])} runs constant' if cell['degenerate'] else ''
    p = p_value(cell, full, kind, part)
    chance = '' if p is None else f', p {p:.3f}' if p >= 0.001 else ', p < 0.001'
    return f'{np.median(values):.1f}{spread}{chance}{constant}'


def lines_of_table(results):
    """A Markdown table of the contents of a results file: tasks down, rows of the paper's table across."""
    rows = list(dict.fromkeys(cell['row'] for cell in results['cells'].values()))
    tasks, lines = dict.fromkeys(cell['task'] for cell in results['cells'].values()), []
    for task in tasks:
        cells = {cell['row']: cell for cell in results['cells'].values() if cell['task'] == task}
        first = next(iter(cells.values()))
        for kind, where in (('valid', 'dev'), ('test', 'test')):
            for part in first['scores'][kind]:
                beside = [first['trivial'][kind], results['tfidf'].get(task, {}).get(kind)]
                theirs = TASKS[task].paper.get(part, {}) if kind == 'test' or not first['scores']['test'] else {}
                known = ' / '.join(str(theirs.get(row, '-')) for row in rows if len(theirs) > 1 or row == 'full')
                lines.append([f'{task} {part}'.strip(), first['metric'], f'{where}, {first["n"][kind]}',
                              *(cell_text(cells[row], cells.get('full'), kind, part) if row in cells else ''
                                for row in rows),
                              *('' if part or one is None else f'{one:.1f}' for one in beside),
                              f'{known} ({TASKS[task].paper_set})' if theirs else ''])
    missing = [[f'{task}: no data', *[''] * (len(rows) + 5)] for task in results['missing'] if task not in tasks]
    return table(['task', 'metric', 'examples', *(row.replace('_', ' ') for row in rows), 'constant', 'TF-IDF',
                  'paper'], lines + missing)


def notes_of_table(results):
    """What stands below the table: how its numbers were made, and what each cell chose."""
    lines = ['Median [least..greatest] of the seeds; p: paired t-test against full; constant: the best single answer.']
    for task in dict.fromkeys(cell['task'] for cell in results['cells'].values()):
        cells = [cell for cell in results['cells'].values() if cell['task'] == task]
        first, options = cells[0], cells[0]['options']
        lines += ['', f'{task}: {options["n_layer"]} blocks, {options["n_embd"]} wide, {options["n_iter"]} epochs, '
                  f'{first["n"]["train"]} training examples, seeds {", ".join(map(str, first["seeds"]))}. '
                  f'`{first["command"]}`, ' + ', '.join(f'{name} {value}' for name, value in first['about'].items())]
        for cell in cells:
            tried = '; '.join(f'{name}: {score:.1f}' for name, score in cell['tried'].items())
            lines += [f'- {cell["row"]}: {cell["chosen"]} (on dev with seed {cell["seeds"][0]}, {tried})'] * bool(tried)
    return lines


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


def main(args):
    """Run what is missing and write results, table or figure; returns {(task, row): results of each seed}."""
    splits, missing = read_all(args)
    for task, reason in missing.items():
        print(f'{task}: no data: {reason}')
    if not splits:
        raise FileNotFoundError('there is no data for any of these tasks')
    name, runs = args.what if args.what == 'figure2' else f'table{args.what}', {}
    path = os.path.join(args.results, f'{name}.json')
    results = read_sealed(path) if os.path.exists(path) else dict(tfidf={}, cells={})
    results['missing'] = list(missing)
    for task, (train_split, *others) in splits.items():
        results['tfidf'][task] = {
            kind: tfidf_score(TASKS[task], train_split, split)
            for kind, split in zip(('valid', 'test'), others, strict=True) if split and split.labels is not None}
        variants = list(variants_of(args))
        for row in rows_of(args):
            runs[task, row], chosen, tried = run_cell(args, task, row, variants)
            if args.what == 'figure2':
                variants = [chosen]
            cell = measured_cell(task, row, runs[task, row], chosen, tried)
            for key, other in list(results['cells'].items()):
                if other['task'] == task and not stand_together(cell, other):
                    print(f'{path}: "{key}" leaves: its runs had other options, examples or weights')
                    del results['cells'][key]
            results['cells'][f'{task} {row}'] = cell
            write_sealed(path, results, indent=1)
    options = options_of(args, task, row, chosen, args.seeds[0])
    lines, table_path = lines_of_table(results), os.path.join(options.log_dir, f'{name}.md')
    with write_whole(table_path) as f:
        f.write('\n'.join([*lines, '', *notes_of_table(results)]) + '\n')
    print(*lines, f'table: {table_path}', sep='\n')
    if args.zip:
        write_zip(runs, os.path.dirname(options.submission_dir))
    return runs


if __name__ == '__main__':
    run_script(main, args)
