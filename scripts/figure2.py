"""The right half of the paper's figure 2: what a network can do without training for it, while it is pre-trained.

    python scripts/figure2.py --snapshots save/books/snapshots --data_dir tasks/

Runs zero_shot.py on the networks that `pretrain.py --snapshots` kept, adds each score to --results (so that the same
command continues after an interruption), and draws them over the number of updates. --data_dir has the Story Cloze
files and the folders CoLA, SST-2, DPRD and BLiMP. BLiMP takes every tenth pair here.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.options import Parser
from common.shell import begin_script, run_script


def parse_args(argv=None):
    parser = Parser('scripts/figure2.py', __doc__, '--snapshots FOLDER --data_dir FOLDER ')
    parser.add_argument('--snapshots', required=True, metavar='FOLDER', help='folder of networks; their names are the '
                        'numbers of updates')
    parser.add_argument('--data_dir', required=True, metavar='FOLDER', help='the data of all tasks')
    parser.add_argument('--results', default='results/zero_shot.json', metavar='FILE', help='the scores')
    parser.add_argument('--figure', default='docs/figure2.png', metavar='FILE', help='the picture')
    return parser.parse_args(argv)


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import json
import os

import numpy as np

import zero_shot
from analysis import figure
from common.checkpoint import environment
from tasks.metrics import trivial_score
from utils import read_json, write_whole

# dataset of zero_shot.py -> its name in the picture, metric, and the file that is drawn, of those that it is scored on
DRAWN = {'rocstories': ('Story Cloze, test', 'accuracy', 1), 'winograd': ('DPRD, test', 'accuracy', 1),
         'sst2': ('SST-2, test', 'accuracy', -1), 'cola': ('CoLA, dev', 'matthews', 0),
         'blimp': ('BLiMP', 'accuracy', -1)}


def constant_answer(dataset, data_dir):
    """The score of the best constant answer on the file that is drawn; 50 for BLiMP, where it is a coin."""
    if dataset == 'blimp':
        return 50.
    files = zero_shot.PROBLEMS[dataset](data_dir)
    labels = np.array((files[1:] if dataset == 'cola' else files)[DRAWN[dataset][2]].labels)
    return trivial_score(DRAWN[dataset][1], labels, int(labels.max()) + 1)


def score_of(dataset, data_dir, model_path):
    """The score of a network on the file that is drawn."""
    options = zero_shot.parse_args(['--dataset', dataset, '--data_dir', data_dir, '--model_path', model_path])
    return zero_shot.main(options, every=10)[DRAWN[dataset][2]]


def measure(args):
    """Run what is missing; returns {'about': ..., 'constant': {dataset: score}, 'scores': {updates: scores}}."""
    results = read_json(args.results) if os.path.exists(args.results) else {'scores': {}}
    results['about'] = dict(environment(), snapshots=os.path.basename(os.path.dirname(os.path.abspath(args.snapshots))))
    results['constant'] = {dataset: constant_answer(dataset, args.data_dir) for dataset in DRAWN}
    for updates in sorted(filter(str.isdecimal, os.listdir(args.snapshots)), key=int):
        scores = results['scores'].setdefault(updates, {})
        for dataset in DRAWN:
            if dataset not in scores:
                print(f'after {updates} updates:')
                scores[dataset] = score_of(dataset, args.data_dir, os.path.join(args.snapshots, updates))
                with write_whole(args.results) as f:
                    json.dump(results, f, indent=1)
    return results


def draw(results, path):
    """Scores over updates, a line for each task with its name at the end, and its constant answer dashed."""
    updates = sorted(map(int, results['scores']))
    with figure(path, (9, 5)) as fig:
        ax = fig.subplots()
        ax.set_xscale('symlog', linthresh=1)
        ends = []
        for i, (dataset, (name, metric, _)) in enumerate(DRAWN.items()):
            scores = [results['scores'][str(n)][dataset] for n in updates]
            ax.plot(updates, scores, color=f'C{i}', linewidth=2, marker='o', markersize=4)
            ax.axhline(results['constant'][dataset], color=f'C{i}', linestyle='--', linewidth=1)
            ends.append((scores[-1], f'{name}' + (' (Matthews)' if metric == 'matthews' else ''), f'C{i}'))
        place = -np.inf
        for score, name, color in sorted(ends):  # names of lines that end close together stand below each other
            place = max(score, place + 0.045 * np.diff(ax.get_ylim())[0])
            ax.annotate(name, (1.01, place), xycoords=('axes fraction', 'data'), color=color, va='center')
        ax.set(xlabel='updates of pre-training (dashed: the best constant answer)', ylabel='score (%)',
               title='What the network can do without being trained for it', xlim=(-0.1, updates[-1] * 1.3))


def main(args):
    results = measure(args)
    draw(results, args.figure)
    return results


if __name__ == '__main__':
    run_script(main, args)
