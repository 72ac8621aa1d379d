"""Summarise the logs of runs over seeds: `python analysis.py log/*.jsonl`.

Runs of train.py that differ only in the seed are one configuration. Prints the accuracies of each configuration,
compares configurations on the seeds that they share, lists the test stories that most runs predict wrong, and draws two
figures. For logs of pretrain.py: prints the best perplexity of each, and draws their losses in one figure.
"""

import csv
import json
import os
from contextlib import suppress
from itertools import combinations, cycle, product

import numpy as np

from datasets import find_cloze_file, read_cloze
from utils import INCIDENTAL, Parser, read_text, run_script, write_whole

PUBLISHED = (('paper, best: 86.5', 86.5, '-'), ("authors' code, median of 10: 85.8", 85.8, '--'),
             ('PyTorch port, one run: 85.84', 85.84, ':'))
# These options may differ between runs of one configuration. Files are compared by the hashes of their contents.
NOT_CONFIGURATION = ('seed', 'seeds', 'desc', 'time', 'environment', *INCIDENTAL)
HASHES = ('texts', 'ids', 'vocabulary', 'merges', 'weights')
RANGES = (dict.fromkeys(('va_acc', 'va_score', 'test_acc', 'test_score'), ('percentage', -100, 100)) |
          dict.fromkeys(('seed', 'n_iter', 'time', 'n_epochs', 'n_updates', 'va_cost'), ('number', 0, 10 ** 12)))
KINDS = ['validation', 'test']


def read_predictions(path: str) -> list[int]:
    """The `prediction` column of a submission (index<TAB>prediction)."""
    rows = csv.DictReader(read_text(path).split('\n'), delimiter='\t')
    try:
        return np.array([int(row['prediction']) for row in rows], dtype=np.int32).tolist()
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error):
        raise ValueError(f'{path} is not a submission: it needs a column prediction with whole numbers') from None


def read_log(path: str) -> list[dict]:
    """The lines of a run's log: options, evaluations, test result if there is one. Ignores a partial last line."""
    *lines, last = read_text(path).split('\n')
    try:
        lines = [json.loads(line) for line in lines]
        with suppress(ValueError):                                     # after a crash the last line may be partial
            lines.append(json.loads(last))
    except (ValueError, RecursionError):
        raise ValueError(f'{path} is not a log of train.py: a line is not json') from None
    for number, line in enumerate(lines, start=1):
        prefix = f'{path} is not a log of train.py: line {number}'
        if not isinstance(line, dict):
            raise ValueError(f'{prefix} is no object')
        for key, (what, low, high) in RANGES.items():
            if key in line and not (type(line[key]) in (int, float) and low <= line[key] <= high):
                raise ValueError(f'{prefix}: {key} is no {what} from {low} to {high}')
        indices = line.get('wrong') or []
        if type(indices) is not list or not all(type(i) is int and 0 <= i < 10 ** 7 for i in indices):
            raise ValueError(f'{prefix}: wrong is no list of indices of test examples')
    return lines


def score(line: dict, kind='va'):
    """The task's first metric in a line of a log, or the accuracy, or None if the line has neither."""
    return line.get(f'{kind}_score', line.get(f'{kind}_acc'))


def report(name: str, valid: float, test: float | None, metric='accuracy'):
    """Print the two scores of a run, in percent, in the original's words, and return them."""
    print(f'{name} Valid {metric.title()}: {valid:.2f}')
    print(f'{name} Test {metric.title()}:  ' + ('unknown, no labelled test file' if test is None else f'{test:.2f}'))
    return valid, test


def rocstories(data_dir: str, pred_path: str, log_path: str):
    """Print and return the best validation accuracy in the log, and the test accuracy (None without labels)."""
    from sklearn.metrics import accuracy_score
    scores = [score(line) for line in read_log(log_path) if score(line) is not None]
    if not scores:
        raise ValueError(f'{log_path} has no evaluation yet')
    path = find_cloze_file(data_dir, 'test')
    labels, predictions = read_cloze(path)[-1], read_predictions(pred_path)
    if labels is not None and len(labels) != len(predictions):
        raise ValueError(f'{pred_path} has {len(predictions)} predictions, {path} has {len(labels)} stories')
    return report('ROCStories', max(scores), None if labels is None else 100 * accuracy_score(labels, predictions))


def wrong(labels, predictions) -> list[int]:
    """Indices of the wrong predictions."""
    return np.flatnonzero(np.asarray(labels) != np.asarray(predictions)).tolist()


def read_run(path: str) -> tuple[dict, list[dict]]:
    """One log as a row of the frame of runs, and rows of the frame of evaluations."""
    options, *lines = read_log(path) or [{}]
    environment = options.get('environment') if isinstance(options.get('environment'), dict) else {}
    configuration = {'dataset': None} | {key: value for key, value in options.items() if key not in NOT_CONFIGURATION}
    configuration |= {key: value for key, value in environment.items() if key in HASHES}
    result = next((line for line in lines[::-1] if score(line, 'test') is not None), {})
    try:
        evaluations = [dict(path=path, n_epochs=line['n_epochs'], n_updates=line['n_updates'], va_cost=line['va_cost'],
                            va_acc=line.get('va_acc'), score=score(line)) for line in lines if score(line) is not None]
        # ascii() removes line breaks and characters that a console may not have
        return {ascii(key)[1:-1]: ascii(value).strip('\'"') for key, value in configuration.items()} | dict(
            path=path, seed=options['seed'], time=options['time'], test=score(result, 'test'),
            wrong=result.get('wrong'), validation=max((line['score'] for line in evaluations), default=None),
            complete=max((line['n_epochs'] for line in evaluations), default=-1) >= options['n_iter']), evaluations
    except (KeyError, RecursionError):
        raise ValueError(f'{path} does not hold the options of a run, or n_updates, va_cost of evaluations') from None


def read_runs(paths):
    """A frame of the latest complete run of each configuration and seed, a frame of evaluations, and messages about the
    ignored logs. The column `name` has the options in which configurations differ.
    """
    import pandas as pd
    rows, evaluations = zip(*map(read_run, dict.fromkeys(paths)), strict=True)
    evaluations = pd.DataFrame(sum(evaluations, []), columns=['path', 'n_updates', 'va_cost', 'va_acc', 'score'])
    runs = pd.DataFrame(rows).astype(dict.fromkeys(KINDS, float))
    left_out = [f'{path}: left out, the run is not complete' for path in runs.path[~runs.complete]]
    runs = runs[runs.complete].sort_values('time', kind='stable')
    options = runs.drop(columns=['path', 'seed', 'time', 'complete', *KINDS, 'wrong']).fillna('None').sort_index(axis=1)
    differing = options.loc[:, options.nunique() > 1]
    runs['name'] = [' '.join(f'{key}={value[:8] if key in HASHES else value}' for key, value in row.items())
                    or 'all runs' for _, row in differing.iterrows()]
    runs['latest'] = runs.groupby(['name', 'seed']).path.transform('last')
    left_out += [f'{path}: left out, {latest} is a later run of the same options and seed'
                 for path, latest in zip(runs.path, runs.latest, strict=True) if path != latest]
    runs = runs[runs.path == runs.latest].sort_index()
    return runs, evaluations.merge(runs[['path', 'name']]), left_out


def describe(accuracies) -> str:
    """Median, best, range, quartiles, mean and the 95 % t interval of the mean, of accuracies in percent."""
    import pandas as pd
    from scipy.stats import t
    x = pd.Series(accuracies, dtype=float).dropna()
    if x.empty:
        return 'unknown'
    n, mean, _, low, q1, median, q3, high = x.describe()
    interval = f', mean {mean:.2f} +- {t.interval(0.95, n - 1)[1] * x.sem():.2f} (95 % t interval)' if n > 1 else ''
    return (f'median {median:.2f}, best {high:.2f}, range {low:.2f} to {high:.2f}, quartiles {q1:.2f} to {q3:.2f}'
            f'{interval}, n = {n:.0f}')


def comparisons(runs, metric):
    """A line for each pair of configurations of a task with two or more common seeds, and each kind of accuracy."""
    from scipy.stats import permutation_test
    for _, of_task in runs.groupby('dataset', sort=False):
        for (a, b), kind in product(combinations(of_task.name.unique(), 2), KINDS):
            by_seed = of_task.pivot(index='seed', columns='name', values=kind)
            d = (by_seed[a] - by_seed[b]).dropna()
            if len(d) > 1:
                test = permutation_test((d,), np.sum, permutation_type='samples', n_resamples=2 ** 16, random_state=0)
                least = 2 / min(2 ** len(d), 2 ** 16 + 1)              # with 17 seeds or more the signs are drawn
                yield (f'{a} minus {b}: {d.mean():+.2f} {kind} {metric} on {len(d)} shared seeds, '
                       f'p = {test.pvalue:.3g} (paired sign-flip test; the least possible is {least:.2g})')


def draw(runs, evaluations, metric, folder):
    """Draw learning curves and the distribution of accuracies as two PNG files."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError('figures need matplotlib: pip install matplotlib, or give --no_figures') from None
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullLocator
    colours = dict(zip(runs.name.unique(), cycle(matplotlib.colormaps['tab10'].colors), strict=False))
    with matplotlib.rc_context({'text.parse_math': False, 'font.size': 11, 'axes.grid': True, 'grid.alpha': 0.3}):
        figures = [Figure((9, 4.3 + 0.2 * len(colours)), layout='constrained') for _ in range(2)]
        (curve, cost), panels = figures[0].subplots(1, 2), figures[1].subplots(1, 2, sharey=True)
        for ax, key in (curve, 'score'), (cost, 'va_cost'):
            for name, lines in evaluations.groupby('name', sort=False):
                by_run = lines.pivot_table(index='n_updates', columns='path', values=key, aggfunc='last')
                ax.plot(by_run, color=colours[name], alpha=0.6, linewidth=0.7)
                ax.plot(by_run.median(axis=1), '.-', color=colours[name], linewidth=2.5, label=name)
        metric, nats = (f'{metric} (%)', ' (nats)') if metric == 'accuracy' else (metric, '')
        curve.set(title=f'validation {metric}, higher is better', xlabel='updates (thick: median)')
        cost.set(title=f'validation cost{nats}, lower is better', xlabel='updates (thick: median)', yscale='log')
        cost.yaxis.set(major_locator=MaxNLocator(6), minor_locator=NullLocator(), major_formatter='{x:g}')
        for ax, kind in zip(panels, KINDS, strict=True):
            for x, (name, values) in enumerate(runs.groupby('name', sort=False)[kind]):
                ax.boxplot([values.dropna()], positions=[x], widths=0.6, showfliers=False, medianprops={'color': 'k'})
                ax.plot(np.linspace(x - 0.2, x + 0.2, len(values)), values, 'o', color=colours[name], label=name)
            ax.set(title=f'{kind} {metric}, higher is better', xlabel='box: quartiles', xticks=[], ymargin=0.15)
        for label, value, style in PUBLISHED if (runs.dataset == 'rocstories').all() else ():
            panels[1].axhline(value, color='grey', linestyle=style, label=label)
        for fig, name in zip(figures, ('learning_curves.png', 'accuracies.png'), strict=True):
            fig.axes[0].set_ylim(top=100)
            fig.legend(*fig.axes[-1].get_legend_handles_labels(), loc='outside lower center')
            with write_whole(os.path.join(folder, name), 'wb') as f:
                fig.savefig(f, format='png', dpi=200)
            print(f'figure: {os.path.join(folder, name)}')


def pretraining_of(path):
    """The validations in a log of pretrain.py, as (n_updates, tr_loss, va_loss) arrays; None for another log."""
    lines = [line for line in read_log(path) if 'va_loss' in line]
    keys = ('n_updates', 'tr_loss', 'va_loss')
    if not all(type(line.get(key)) in (int, float) for line in lines for key in keys):
        raise ValueError(f'{path} is damaged: {", ".join(keys)} are not numbers')
    return [np.array([line[key] for line in lines]) for key in keys] if lines else None


def draw_pretraining(curves, folder):
    """Draw the losses of language models over updates: {path: as `pretraining_of` returns them}."""
    from matplotlib.figure import Figure
    figure = Figure((9, 4.5), layout='constrained')
    axis = figure.subplots()
    for i, (path, (n_updates, training, validation)) in enumerate(curves.items()):
        name = os.path.splitext(os.path.basename(path))[0]
        axis.plot(n_updates, training, '--', color=f'C{i % 10}', label=f'{name}, training')
        axis.plot(n_updates, validation, '.-', color=f'C{i % 10}', linewidth=2, label=f'{name}, held-out text')
    axis.set(title='language model, lower is better', xlabel='updates', ylabel='loss of a token (nats)')
    axis.grid(alpha=0.3)
    axis.legend()
    path = os.path.join(folder, 'pretraining.png')
    with write_whole(path, 'wb') as f:
        figure.savefig(f, format='png', dpi=200)
    print(f'figure: {path}')


def parse_args(argv=None):
    parser = Parser(__doc__)
    parser.add_argument('logs', nargs='+', help='logs of train.py, one for each seed, and of pretrain.py')
    parser.add_argument('--figure_dir', default='log/', help='folder for the figures: learning_curves.png and '
                        'accuracies.png, or pretraining.png')
    parser.add_argument('--no_figures', action='store_true', help='do not draw figures')
    return parser.parse_args(argv)


def main(args):
    curves = {path: curve for path in dict.fromkeys(args.logs) if (curve := pretraining_of(path))}
    for path, (_, _, losses) in curves.items():
        print(f'{path}: best perplexity on held-out text {np.exp(losses.min()):.2f}')
    if curves and not args.no_figures:
        draw_pretraining(curves, args.figure_dir)
    logs = [path for path in args.logs if path not in curves]
    return compare(args, logs) if logs else None


def compare(args, logs):
    """Summarise logs of train.py; returns the frame of runs."""
    runs, evaluations, left_out = read_runs(logs)
    for line in left_out:
        print(line)
    if runs.empty:
        raise ValueError(f'none of {len(logs)} logs is of a complete run')
    metric = 'accuracy' if (evaluations.va_acc == evaluations.score).all() else 'score'
    for name, group in runs.groupby('name', sort=False):
        print(f'{name}: seeds {" ".join(map(str, sorted(group.seed)))}')
        for kind in KINDS:
            print(f'  {kind} {metric}: {describe(group[kind])}')
        sets = group.wrong.dropna().map(set)
        counts = sets.explode().value_counts().sort_index().sort_values(ascending=False, kind='stable')
        hard = [f'{index} ({count})' for index, count in counts.items() if 2 * count > len(sets)]
        if len(sets):
            print(f'  test stories that most of {len(sets)} runs get wrong: {len(hard)}' + (':' if hard else ''), *hard)
    for line in comparisons(runs, metric):
        print(line)
    if not args.no_figures:
        draw(runs, evaluations, metric, args.figure_dir)
    return runs


if __name__ == '__main__':
    run_script(main, parse_args)
