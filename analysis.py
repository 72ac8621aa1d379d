"""Summarise the logs of runs over seeds: `python analysis.py log/*.jsonl`.

Runs of train.py that differ only in the seed are one configuration. Prints the scores of each configuration, compares
configurations of a task on the seeds that they share, and draws two figures, with a row for each task. For logs of
pretrain.py: prints the best perplexity of each, and draws their losses in one figure.
"""

from common.options import INCIDENTAL, Parser
from common.shell import begin_script, run_script


def parse_args(argv=None):
    parser = Parser('analysis.py', __doc__, 'LOG [LOG ...] ')
    group = parser.add_argument_group('what to read and to draw')
    group.add_argument('logs', nargs='+', metavar='LOG', help='logs of train.py, one for each seed, and of pretrain.py')
    group.add_argument('--figure_dir', default='log/', metavar='FOLDER', help='figures go here: learning_curves.png '
                       'and accuracies.png, or pretraining.png')
    group.add_argument('--no_figures', action='store_true', help='draw none')
    return parser.parse_args(argv)


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import csv
import json
import os
from contextlib import contextmanager, suppress
from itertools import combinations, product

import numpy as np

from common.examples import find_cloze_file, read_cloze
from utils import read_text, shown, write_whole

PUBLISHED = (('paper, best run: 86.5', 86.5, '-'), ("authors' code, median of 10: 85.8", 85.8, '--'))
# These options may differ between runs of one configuration. Files are compared by the hashes of their contents.
NOT_CONFIGURATION = ('seed', 'seeds', 'desc', 'time', 'environment', 'label_type', *INCIDENTAL)
# contents of files, by their hashes -> the option that says where the files were
HASHES = dict(weights='model_path', texts='data_dir', vocabulary='encoder_path', merges='bpe_path', ids='data_dir')
LOSSES = ('tr_loss', 'va_loss')  # of a language model, in nats a token
NUMBERS = ('seed', 'n_iter', 'time', 'n_epochs', 'n_updates', 'va_cost', 'va_acc', 'va_score', 'test_acc', 'test_score',
           'va_trivial', 'test_trivial', *LOSSES)  # what a log must have as numbers, where it has them
KINDS = ['validation', 'test']
TRIVIAL = {kind: f'{kind}_trivial' for kind in KINDS}  # the score of the best constant answer
NAMES = dict(f1='F1', matthews='Matthews correlation', pearson='Pearson correlation', acc='accuracy')  # of scores


def read_predictions(path: str) -> list[int]:
    """The `prediction` column of a submission (index<TAB>prediction)."""
    rows = csv.DictReader(read_text(path).split('\n'), delimiter='\t')
    try:
        if 'prediction' not in (rows.fieldnames or ()):
            raise KeyError('prediction')  # also where there are no rows
        return np.array([int(row['prediction']) for row in rows], dtype=np.int32).tolist()
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error):
        raise ValueError(f'{path} is not a submission: it needs a column prediction with whole numbers') from None


def read_log(path: str) -> list[dict]:
    """The lines of a run's log: options, evaluations, test result if there is one. Ignores a partial last line."""
    *lines, last = read_text(path).split('\n')
    try:
        lines = [json.loads(line) for line in lines]
        with suppress(ValueError):  # after a crash the last line may be partial
            lines.append(json.loads(last))
    except (ValueError, RecursionError):
        raise ValueError(f'{path} is not a log of train.py: a line is not json') from None
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict):
            raise ValueError(f'{path} is not a log of train.py: line {number} is not an object')
        for key in NUMBERS:
            if not (type(line.get(key, 0)) in (int, float) and abs(line.get(key, 0)) < 10 ** 12):
                raise ValueError(f'{path} is not a log of train.py: line {number}: {key} is not a finite number')
    return lines


def score(line: dict, kind='va'):
    """The task's first metric in a line of a log, or the accuracy, or None if the line has neither."""
    return line.get(f'{kind}_score', line.get(f'{kind}_acc'))


def metric_of(line: dict) -> str:
    """The name of the first metric of an evaluation, which is the task's own."""
    return next((NAMES[key[3:]] for key in line if key.startswith('va_') and key[3:] in NAMES), 'score')


def report(name: str, valid: float, test: float | None, metric='accuracy'):
    """Print the two scores of a run, in percent, in the original's words, and return them."""
    print(f'{name} Valid {metric.title()}: {valid:.2f}')
    print(f'{name} Test {metric.title()}:  ' + ('unknown' if test is None else f'{test:.2f}'))
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


def read_run(path: str) -> tuple[dict, list[dict]]:
    """One log as a row of the frame of runs, and rows of the frame of evaluations."""
    options, *lines = read_log(path) or [{}]
    environment = options.get('environment') if isinstance(options.get('environment'), dict) else {}
    configuration = {key: value for key, value in options.items() if key not in (*NOT_CONFIGURATION, *HASHES)}
    task, train = configuration.pop('dataset', 'all runs'), options.get('train')
    for key in HASHES.keys() & environment.keys():
        configuration[key] = environment[key]
        configuration[f'{key} of'] = train if train and HASHES[key] == 'data_dir' else options.get(HASHES[key])
    if train:
        task = os.path.basename(str(train))
    result, name = next((line for line in lines[::-1] if score(line, 'test') is not None), {}), shown(path)
    try:
        evaluations = [dict(path=name, n_epochs=line['n_epochs'], n_updates=line['n_updates'], va_cost=line['va_cost'],
                            metric=metric_of(line), score=score(line), trivial=line.get('va_trivial'))
                       for line in lines if score(line) is not None]
        last = evaluations[-1] if evaluations else dict(n_epochs=-1, metric='score', trivial=None)
        # ascii() removes line breaks and characters that a console may not have
        return {ascii(key)[1:-1]: ascii(value).strip('\'"') for key, value in configuration.items()} | dict(
            path=name, task=ascii(task).strip('\'"'), metric=last['metric'], seed=options['seed'],
            time=options['time'],
            validation=max((line['score'] for line in evaluations), default=None), test=score(result, 'test'),
            validation_trivial=last['trivial'], test_trivial=result.get('test_trivial'),
            complete=max((line['n_epochs'] for line in evaluations), default=-1) >= options['n_iter']), evaluations
    except (KeyError, RecursionError):
        raise ValueError(f'{path} does not hold the options of a run, or n_updates, va_cost of evaluations') from None


def name_runs(runs, options):
    """The name of each run's configuration, a Series: the task, if there are several, and what differs in a task.

    options: a frame of the options. Files are named by where they were, and only if nothing else tells runs apart.
    """
    names = runs.task if runs.task.nunique() > 1 else runs.task.str[:0]
    for key in options:
        if key not in HASHES and key.removesuffix(' of') not in HASHES:
            differs = options.groupby(runs.task)[key].transform('nunique') > 1
            names += (f' {key}=' + options[key]).where(differs, '')
    for key in filter(options.columns.__contains__, HASHES):
        differs = options.groupby(names)[key].transform('nunique') > 1
        places = options.groupby(key)[f'{key} of'].transform('first')
        contents = options.groupby(places)[key]  # several, if files at a place were changed
        numbers = ' (' + contents.transform(lambda hashes: hashes.factorize()[0] + 1).astype(str) + ')'
        words = f' {key} of ' + places + numbers.where(contents.transform('nunique') > 1, '')
        names += words.where(differs, '')
    return names.where(names != '', runs.task).str.strip()


def read_runs(paths):
    """A frame of the latest complete run of each configuration and seed, one of evaluations, and lines about others."""
    import pandas as pd
    rows, evaluations = zip(*map(read_run, dict.fromkeys(paths)), strict=True)
    evaluations = pd.DataFrame(sum(evaluations, []), columns=['path', 'n_updates', 'va_cost', 'score'])
    runs = pd.DataFrame(rows).astype(dict.fromkeys([*KINDS, *TRIVIAL.values()], float))
    notes = [f'{path}: left out, the run is not complete' for path in runs.path[~runs.complete]]
    runs = runs[runs.complete].sort_values('time', kind='stable')
    options = runs.drop(columns=['path', 'task', 'metric', 'seed', 'time', 'complete', *KINDS, *TRIVIAL.values()])
    runs['name'] = name_runs(runs, options.fillna('None').sort_index(axis=1))
    runs['latest'] = runs.groupby(['name', 'metric', 'seed']).path.transform('last')
    notes += [f'{path}: left out, {latest} is a later run of the same options and seed'
              for path, latest in zip(runs.path, runs.latest, strict=True) if path != latest]
    runs = runs[runs.path == runs.latest].sort_index()
    return runs, evaluations, notes


def describe(scores) -> str:
    """Median, best, range, quartiles, mean and its 95 % t interval, of scores in percent; or the only one."""
    import pandas as pd
    from scipy.stats import t
    x = pd.Series(scores, dtype=float).dropna()
    if len(x) < 2:
        return f'{x.iloc[0]:.2f}, one run' if len(x) else 'unknown'
    n, mean, _, low, q1, median, q3, high = x.describe()
    return (f'median {median:.2f}, best {high:.2f}, range {low:.2f} to {high:.2f}, quartiles {q1:.2f} to {q3:.2f}, '
            f'mean {mean:.2f} +- {t.interval(0.95, n - 1)[1] * x.sem():.2f} (95 % t interval), n = {n:.0f}')


def comparisons(runs):
    """A line for each pair of configurations of a task with two or more common seeds, and each kind of score."""
    from scipy.stats import permutation_test
    for (_, metric), of_task in runs.groupby(['task', 'metric'], sort=False):
        for (a, b), kind in product(combinations(of_task.name.unique(), 2), KINDS):
            by_seed = of_task.pivot(index='seed', columns='name', values=kind)
            d = (by_seed[a] - by_seed[b]).dropna()
            if len(d) > 1:
                test = permutation_test((d,), np.sum, permutation_type='samples', n_resamples=2 ** 16, random_state=0)
                yield (f'{a} minus {b}: {d.mean():+.2f} {kind} {metric} on {len(d)} shared seeds, '
                       f'p = {test.pvalue:.3g} (paired sign-flip test)')


@contextmanager
def figure(path, size):
    """A matplotlib figure of this size in inches, which is written to `path` at the end. Text may have dollar signs."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('figures need matplotlib: pip install matplotlib, or give --no_figures') from None
    with matplotlib.rc_context({'text.parse_math': False, 'font.size': 11, 'axes.grid': True, 'grid.alpha': 0.3}):
        fig = Figure(size, layout='constrained')
        yield fig
        with write_whole(path, 'wb') as f:
            fig.savefig(f, format='png', dpi=160)  # 9 inches are 1440 pixels
    print(f'figure: {path}')


def line_style(i):
    """Colour, marker and dashes of line number `i` of a panel. Lines that lie on each other stay visible."""
    return dict(color=f'C{i % 10}', marker='osD^vP*X'[i % 8], linestyle=('-', '--', '-.', ':')[i % 4], linewidth=2)


def legend_below(fig, title=None):
    """One legend for all panels of a figure: each label once, in as many columns as there is room for."""
    handles = {label: handle for ax in fig.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    n_columns = max(1, min(len(handles), int(11 * fig.get_figwidth()) // (max(map(len, handles)) + 10)))
    fig.legend(handles.values(), handles, loc='outside lower center', ncols=n_columns, title=title, handlelength=4)
    fig.set_figheight(fig.get_figheight() + 0.2 * (-(-len(handles) // n_columns) + (title is not None)))


def scale_scores(ax, scores, metric):
    """Let the y axis of a panel begin at a multiple of ten below the least score, with room for marks at 100."""
    least = np.nanmin(scores)
    bottom = 10 * np.floor((least - max(2, 0.15 * (100 - least))) / 10)
    ax.set(ylim=(bottom, 100 + 0.04 * (100 - bottom)), ylabel=f'{metric} (%)')
    ax.locator_params(axis='y', nbins=6, steps=(1, 2, 5, 10))


def draw_constants(ax, scores):
    """A line in a panel at the score of the best constant answer, where logs have it; several if it differs."""
    for value in scores.dropna().unique():
        ax.axhline(value, color='grey', linestyle=':', linewidth=2, label='the best constant answer', zorder=0)


def draw_curves(path, runs, evaluations, styles):
    """Draw scores and costs over updates, for each configuration the median and the range of its runs."""
    tasks = runs.groupby(['task', 'metric'], sort=False)
    with figure(path, (9, 4.2 * len(tasks))) as fig:
        panels = fig.subplots(len(tasks), 2, squeeze=False)
        for (curve, cost), ((task, metric), of_task) in zip(panels, tasks, strict=True):
            for name, of_name in of_task.groupby('name', sort=False):
                drawn, style = evaluations[evaluations.path.isin(of_name.path)], styles[name]
                label = name + (f' ({len(of_name)} seeds)' if len(of_name) > 1 else '')
                for ax, key in (curve, 'score'), (cost, 'va_cost'):
                    by_run = drawn.pivot_table(index='n_updates', columns='path', values=key, aggfunc='last')
                    ax.plot(by_run.median(axis=1), **style, label=label)
                    ax.fill_between(by_run.index, by_run.min(axis=1), by_run.max(axis=1), color=style['color'],
                                    alpha=0.2, linewidth=0)
            of_task_too = evaluations[evaluations.path.isin(of_task.path)]
            for ax in curve, cost:
                ax.set(xlabel='updates', xlim=(0, 1.05 * of_task_too.n_updates.max()))
            draw_constants(curve, of_task.validation_trivial)
            curve.set_title(f'{task}\nvalidation: higher is better')
            scale_scores(curve, [*of_task_too.score, *of_task.validation_trivial], metric)
            cost.set(title=f'{task}\nvalidation: lower is better', ylabel='cost')
        legend_below(fig, 'lines: medians; areas: all seeds' if runs.name.duplicated().any() else None)


def draw_scores(path, runs, styles):
    """Draw the validation and test scores of all runs, and the median of each configuration."""
    tasks, kinds = runs.groupby(['task', 'metric'], sort=False), [kind for kind in KINDS if runs[kind].notna().any()]
    with figure(path, (9, 4.2 * len(tasks))) as fig:
        panels = fig.subplots(len(tasks), len(kinds), squeeze=False)
        for row, ((task, metric), of_task) in zip(panels, tasks, strict=True):
            published = PUBLISHED if task == 'rocstories' and of_task.test.notna().any() else ()
            names = of_task.name.unique()
            for ax, kind in zip(row, kinds, strict=True):
                if of_task[kind].isna().all():
                    ax.set_axis_off()
                    continue
                for x, name in enumerate(names):
                    values = of_task[of_task.name == name].sort_values('seed', kind='stable')[kind].dropna()
                    if values.empty:
                        continue
                    places = np.linspace(x - 0.2, x + 0.2, len(values) + 2)[1:-1]
                    ax.plot(places, values, **styles[name] | dict(linestyle=''), label=name)
                    ax.hlines(values.median(), x - 0.3, x + 0.3, color='k')
                    ax.annotate(f'{values.median():.1f}', (x + 0.32, values.median()), va='center')
                draw_constants(ax, of_task[TRIVIAL[kind]])
                ax.set(title=f'{task}\n{kind}: higher is better', xticks=[], xlim=(-0.7, len(names) - 0.3))
                scale_scores(ax, [*of_task[kinds].min(), *of_task[[TRIVIAL[kind] for kind in kinds]].min(),
                                  *(value for _, value, _ in published)], metric)
            for label, value, style in published:
                ax.axhline(value, color='grey', linestyle=style, label=label, zorder=0)  # test is the last panel
        several = runs.name.duplicated().any()
        legend_below(fig, 'line and number: median; seeds from left to right' if several else None)


def pretraining_of(path):
    """The validations in a log of pretrain.py, as (n_updates, tr_loss, va_loss) arrays; None for another log."""
    keys = ('n_updates', *LOSSES)
    lines = [line for line in read_log(path) if line.keys() >= {*keys}]
    return [np.array([line[key] for line in lines], float) for key in keys] if lines else None


def draw_pretraining(curves, folder):
    """Draw the losses of language models over updates: {path: as `pretraining_of` returns them}."""
    with figure(os.path.join(folder, 'pretraining.png'), (9, 4.5)) as fig:
        ax = fig.subplots()
        for i, (path, (n_updates, training, validation)) in enumerate(curves.items()):
            name, best = os.path.splitext(os.path.basename(shown(path)))[0], np.exp(min(validation.min(), 700))
            style = line_style(i) | dict(linestyle='-', markevery=-(-len(n_updates) // 25))
            ax.plot(n_updates, training, **style | dict(linestyle='--', marker='.', linewidth=1))
            ax.plot(n_updates, validation, **style, label=f'{name}, best perplexity {best:.2f}')
        ax.set(title='language model, held-out text (dashed: training): lower is better', xlabel='updates',
               ylabel='loss (nats per token)')
        ax.set_xlim(0, 1.03 * max([1, *(n_updates[-1] for n_updates, *_ in curves.values())]))
        legend_below(fig)


def main(args):
    curves = {path: curve for path in dict.fromkeys(args.logs) if (curve := pretraining_of(path))}
    for path, (_, _, losses) in curves.items():
        print(f'{path}: best perplexity on held-out text {np.exp(min(losses.min(), 700)):.2f}')
    if curves and not args.no_figures:
        draw_pretraining(curves, args.figure_dir)
    logs = [path for path in args.logs if path not in curves]
    return compare(args, logs) if logs else None


def compare(args, logs):
    """Summarise logs of train.py; returns the frame of runs."""
    runs, evaluations, notes = read_runs(logs)
    for line in notes:
        print(line)
    if runs.empty:
        raise ValueError(f'none of {len(logs)} logs is of a complete run')
    for (name, metric), group in runs.groupby(['name', 'metric'], sort=False):
        seeds = sorted(group.seed)
        print(f'{name}: {"seeds" if len(seeds) > 1 else "seed"} {" ".join(map(str, seeds))}')
        for kind in KINDS:
            print(f'  {kind} {metric}: {describe(group[kind])}')
    for line in comparisons(runs):
        print(line)
    if not args.no_figures:
        styles = {name: line_style(i) for i, name in enumerate(runs.name.unique())}
        draw_curves(os.path.join(args.figure_dir, 'learning_curves.png'), runs, evaluations, styles)
        draw_scores(os.path.join(args.figure_dir, 'accuracies.png'), runs, styles)
    return runs


if __name__ == '__main__':
    run_script(main, args)
