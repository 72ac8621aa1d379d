"""What the logs of runs say, over seeds: `python analysis.py log/*.jsonl`.

Runs that differ in nothing but the seed are one configuration. Prints the accuracies of each, compares configurations
on the seeds they share, lists the test stories that most seeds get wrong, and draws two figures.
"""

import csv
import io
import json
import os
from contextlib import suppress
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from datasets import find_cloze_file, read_cloze
from utils import Parser, make_path, read_json, read_text, run_script

PUBLISHED = (('paper, best: 86.5', 86.5, '-'), ("authors' code, median of 10: 85.8", 85.8, '--'),
             ('PyTorch port, one run: 85.84', 85.84, ':'))
# what may differ between runs of one configuration; of files the contents count, by their hashes
NOT_CONFIGURATION = ('seed', 'seeds', 'desc', 'time', 'environment', 'data_dir', 'log_dir', 'save_dir',
                     'submission_dir', 'model_path', 'encoder_path', 'bpe_path', 'submit', 'analysis', 'predict',
                     'resume', 'checkpoint_minutes')
HASHES = ('texts', 'ids', 'vocabulary', 'merges', 'weights')
KINDS = ('validation', 'test')


def read_predictions(path: str) -> list[int]:
    """The `prediction` column of a submission (index<TAB>prediction)."""
    try:
        return [int(row['prediction']) for row in csv.DictReader(io.StringIO(read_text(path)), delimiter='\t')]
    except (KeyError, TypeError, csv.Error):
        raise ValueError(f'{path} is not a submission: it needs a column prediction with numbers') from None
    except ValueError as e:
        if path in str(e):
            raise
        raise ValueError(f'{path} is not a submission: {e}') from None


def read_log(path: str) -> list[dict]:
    """The lines of a run's log: first its options, then one evaluation each. A last line cut short is left out."""
    *lines, rest = read_text(path).split('\n')
    try:
        lines = [json.loads(line) for line in lines]
        with suppress(ValueError):                                     # a crash may have cut it short
            lines += [json.loads(rest)] * bool(rest)
    except (ValueError, RecursionError):
        raise ValueError(f'{path} is not a log of train.py: a line is not json') from None
    for line in lines:
        accuracy = line.get('va_acc', 0) if isinstance(line, dict) else ''
        if not isinstance(accuracy, float | int) or not 0 <= accuracy <= 100:
            raise ValueError(f'{path} is not a log of train.py: a line is no object, or an accuracy no percentage')
    return lines


def rocstories(data_dir: str, pred_path: str, log_path: str):
    """Print and return, in percent, the best validation accuracy in the log and the accuracy on the test file.

    The second is None, and said to be unknown, where the test file has no labels.
    """
    accuracies = [line['va_acc'] for line in read_log(log_path) if 'va_acc' in line]
    if not accuracies:
        raise ValueError(f'{log_path} has no evaluation yet')
    wrong, n = wrong_stories(data_dir, pred_path)
    print(f'ROCStories Valid Accuracy: {max(accuracies):.2f}')
    test_accuracy = None if wrong is None else 100 * (1 - len(wrong) / n)
    print('ROCStories Test Accuracy:  ' +
          ('unknown, the test file has no labels' if wrong is None else f'{test_accuracy:.2f}'))
    return max(accuracies), test_accuracy


def wrong_stories(data_dir: str, pred_path: str):
    """Indices of the test stories predicted wrong (None where the file has no labels), and the number of stories."""
    path = find_cloze_file(data_dir, 'test')
    labels, predictions = read_cloze(path)[-1], read_predictions(pred_path)
    if labels is None:
        return None, len(predictions)
    if len(labels) != len(predictions):
        raise ValueError(f'{pred_path} has {len(predictions)} predictions, {path} has {len(labels)} stories')
    return np.flatnonzero(np.array(labels) != predictions).tolist(), len(labels)


def test_path(log_path: str) -> str:
    """The json file beside a log that holds the test accuracy of its run, and which stories it gets wrong."""
    return f'{os.path.splitext(log_path)[0]}.test'


def read_test(path: str) -> dict:
    """What `test_path` names: {test_acc: in percent, wrong: [index, ...]}."""
    found = read_json(path)
    try:
        assert 0 <= found['test_acc'] <= 100 and all(isinstance(i, int) and i >= 0 for i in found['wrong'])
    except (KeyError, TypeError, AssertionError):
        raise ValueError(f'{path} is damaged, or no file of train.py: it holds no test accuracy') from None
    return found


class Finished(NamedTuple):
    """A complete run, from its log."""
    path: str
    options: dict
    lines: list             # one a evaluation
    scores: dict            # 'validation' and, where known, 'test': accuracy in percent
    wrong: list | None      # indices of the test stories it gets wrong


def read_runs(paths):
    """The complete runs in the logs, the latest of each configuration and seed, and a line on each log left out."""
    runs, left_out = {}, []
    for path in paths:
        options, *lines = read_log(path) or [{}]
        lines = [line for line in lines if 'va_acc' in line]
        final = read_test(test_path(path)) if os.path.lexists(test_path(path)) else {}
        if not {'seed', 'n_iter', 'time'} <= set(options):
            raise ValueError(f'{path} is not a log of train.py: its first line does not hold the options of a run')
        if not lines or lines[-1]['n_epochs'] < options['n_iter']:
            left_out.append(f'{path}: left out, the run is not complete')
            continue
        scores = {'validation': max(line['va_acc'] for line in lines)}
        if final:
            scores['test'] = final['test_acc']
        run = Finished(path, options, lines, scores, final.get('wrong'))
        key = json.dumps(configuration(options) | {'seed': options['seed']}, sort_keys=True)
        older, newer = sorted([runs.get(key, run), run], key=lambda run: run.options['time'])
        if older is not newer:
            left_out.append(f'{older.path}: left out, {newer.path} is a later run of the same options and seed')
        runs[key] = newer
    return list(runs.values()), left_out


def configuration(options: dict) -> dict:
    """What a run was besides its seed: options, and hashes of the data, the vocabulary and the weights."""
    hashes = {key: value for key, value in options.get('environment', {}).items() if key in HASHES}
    return {key: value for key, value in options.items() if key not in NOT_CONFIGURATION} | hashes


def group_by_configuration(runs) -> dict:
    """{name: its runs by seed}; a name says in what a configuration differs from the others."""
    def words(value):
        return str(value)[:8] if isinstance(value, str) else str(value)

    configurations = [configuration(run.options) for run in runs]
    keys = {key for one in configurations for key in one}
    differing = sorted(key for key in keys if len({str(one.get(key)) for one in configurations}) > 1)
    groups = {}
    for run, one in zip(runs, configurations, strict=True):
        name = ' '.join(f'{key}={words(one.get(key))}' for key in differing) or 'all runs'
        groups.setdefault(name, {})[run.options['seed']] = run
    return groups


def describe(accuracies) -> str:
    """Median, best, spread, mean and the 95 % interval of the mean by Student's t, of accuracies in percent."""
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    if not known:
        return 'unknown'
    low, q1, median, q3, high = np.percentile(known, [0, 25, 50, 75, 100])
    text = f'median {median:.2f}, best {high:.2f}, range {low:.2f} to {high:.2f}, quartiles {q1:.2f} to {q3:.2f}'
    if len(known) > 1:
        from scipy.stats import t
        half = t.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / np.sqrt(len(known))
        text += f', mean {np.mean(known):.2f} +- {half:.2f} (95 % t interval)'
    return f'{text}, n = {len(known)}'


def sign_flip_test(differences) -> float:
    """Two-sided p of paired differences, were each as likely to be its negative: exact for 16 or fewer, then drawn."""
    d = np.asarray(differences, dtype=float)
    if len(d) <= 16:
        signs = np.array(list(product((1, -1), repeat=len(d))))
    else:
        signs = np.random.default_rng(0).choice((1, -1), size=(2 ** 16, len(d)))
        signs[0] = 1                                                   # what was seen is one of the cases
    return float(np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-9))


def comparisons(groups):
    """A line for each two configurations that share two seeds or more, for each kind of accuracy."""
    for (a, runs_a), (b, runs_b) in combinations(groups.items(), 2):
        for kind in KINDS:
            seeds = [seed for seed in runs_a if seed in runs_b and
                     kind in runs_a[seed].scores and kind in runs_b[seed].scores]
            if len(seeds) > 1:
                d = [runs_a[seed].scores[kind] - runs_b[seed].scores[kind] for seed in seeds]
                least = 0.5 ** (len(seeds) - 1)
                yield (f'{a} minus {b}: {np.mean(d):+.2f} {kind} accuracy on {len(seeds)} shared seeds, '
                       f'p = {sign_flip_test(d):.3g} (paired sign-flip test; the least possible is {least:.2g})')


def hard_stories(runs):
    """[(index, number of runs that get it wrong)] of the test stories that more than half of the runs get wrong."""
    wrong = [run.wrong for run in runs if run.wrong is not None]
    counts = np.bincount([i for one in wrong for i in one], minlength=1)
    order = np.argsort(-counts, kind='stable')
    return [(int(i), int(counts[i])) for i in order if 2 * counts[i] > len(wrong)], len(wrong)


def draw(groups, folder) -> list[str]:
    """Learning curves and the distribution of accuracies as two PNGs; returns their paths."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError('figures need matplotlib: pip install matplotlib, or give --no_figures') from None
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    colours = dict(zip(groups, plt.get_cmap('tab10').colors * (1 + len(groups) // 10), strict=False))
    paths = [os.path.join(folder, name) for name in ('learning_curves.png', 'accuracies.png')]

    fig, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout='constrained')
    for ax, key, label in zip(axes, ('va_acc', 'va_cost'), ('validation accuracy (%)', 'validation cost (nats)'),
                              strict=True):
        for name, runs in groups.items():
            for run in runs.values():
                ax.plot(*zip(*((line['n_updates'], line[key]) for line in run.lines), strict=True), '.-',
                        color=colours[name], alpha=0.35, linewidth=1)
            ax.plot([], [], '.-', color=colours[name], label=f'{name} ({len(runs)} seeds)')
        ax.set(xlabel='updates', ylabel=label)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize='small')
    fig.savefig(make_path(paths[0]), dpi=150)

    is_rocstories = all(run.options.get('dataset') == 'rocstories' for runs in groups.values() for run in runs.values())
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout='constrained', sharey=True)
    for ax, kind in zip(axes, KINDS, strict=True):
        for x, (name, runs) in enumerate(groups.items()):
            known = [run.scores[kind] for run in runs.values() if kind in run.scores]
            if known:
                ax.boxplot([known], positions=[x], widths=0.5, showfliers=False, medianprops=dict(color='black'))
                ax.plot(x + np.linspace(-0.12, 0.12, len(known)), known, 'o', color=colours[name], alpha=0.7)
        if kind == 'test' and is_rocstories:
            for label, value, style in PUBLISHED:
                ax.axhline(value, color='grey', linestyle=style, linewidth=1, label=label)
            ax.legend(fontsize='small')
        ax.set_xticks(range(len(groups)), [name.replace(' ', '\n') for name in groups])
        ax.set(title=kind, ylabel='accuracy (%)', xlim=(-0.6, len(groups) - 0.4))
        ax.grid(axis='y', alpha=0.3)
    fig.savefig(paths[1], dpi=150)
    plt.close('all')
    return paths


def parse_args(argv=None):
    parser = Parser(__doc__)
    parser.add_argument('logs', nargs='+', help='logs of train.py, one a seed')
    parser.add_argument('--figure_dir', default='log/', help='learning_curves.png and accuracies.png go here')
    parser.add_argument('--no_figures', action='store_true', help='only print')
    return parser.parse_args(argv)


def main(args):
    runs, left_out = read_runs(args.logs)
    for line in left_out:
        print(line)
    if not runs:
        raise ValueError(f'none of {len(args.logs)} logs is of a complete run')
    groups = group_by_configuration(runs)
    for name, by_seed in groups.items():
        print(f'{name}: seeds {" ".join(map(str, sorted(by_seed)))}')
        for kind in KINDS:
            print(f'  {kind} accuracy: {describe([run.scores.get(kind) for run in by_seed.values()])}')
        hard, n = hard_stories(by_seed.values())
        if n:
            print(f'  test stories that most of {n} runs get wrong: {len(hard)}' + ':' * bool(hard),
                  *(f'{i} ({count})' for i, count in hard))
    for line in comparisons(groups):
        print(line)
    if not args.no_figures:
        for path in draw(groups, args.figure_dir):
            print(f'figure: {path}')
    return groups


if __name__ == '__main__':
    run_script(main, parse_args)
