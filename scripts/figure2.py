"""Draw the paper's figure 2: what the blocks of the pre-trained network are worth, and what it can do untrained.

    python scripts/tables.py figure2 --data_dir glue/ --datasets cola,sst2 --seeds 42-44 --model_path model/books/
    python scripts/figure2.py --snapshots save/books/snapshots --data_dir glue/

The left half is drawn from the results of the first command. For the right half this script runs zero_shot.py on the
networks that `pretrain.py --snapshots` kept, and adds each score to --results, from which the same command goes on.
--data_dir has the Story Cloze files and the folders CoLA, SST-2, DPRD and BLiMP, of which every tenth pair is taken.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.options import Parser
from common.shell import begin_script, run_script


def parse_args(argv=None):
    parser = Parser('scripts/figure2.py', __doc__, '--snapshots FOLDER --data_dir FOLDER ')
    parser.add_argument('--snapshots', required=True, metavar='FOLDER', help='networks, named by their updates')
    parser.add_argument('--data_dir', required=True, metavar='FOLDER', help='the data of all tasks')
    parser.add_argument('--results', default='log/zero_shot.json', metavar='FILE', help='the scores')
    parser.add_argument('--transfer', default='log/figure2.json', metavar='FILE', help='results of the first command')
    parser.add_argument('--figure', default='log/figure2.png', metavar='FILE', help='the picture')
    return parser.parse_args(argv)


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import hashlib
import itertools
import os

import numpy as np

import zero_shot
from analysis import figure
from common.checkpoint import MERGES, VOCABULARY, environment
from common.trained import hash_model
from tasks.metrics import trivial_score
from utils import read_sealed, write_sealed

# dataset of zero_shot.py -> metric, and the file that is drawn, of those that it is scored on
DRAWN = {'rocstories': ('accuracy', 1), 'winograd': ('accuracy', 1), 'sst2': ('accuracy', -1), 'cola': ('matthews', 0),
         'blimp': ('accuracy', -1)}
NAMES = {'rocstories': 'Story Cloze', 'winograd': 'DPRD', 'sst2': 'SST-2', 'cola': 'CoLA', 'blimp': 'BLiMP',
         'stsb': 'STS-B', 'rte': 'RTE', 'mrpc': 'MRPC', 'qnli': 'QNLI'}
COLORS = {dataset: f'C{i}' for i, dataset in enumerate(NAMES)}  # the same in both halves


def constant_answer(dataset, data_dir):
    """The best constant answer's score on the file that is drawn, and a hash of the examples; for BLiMP 50 and ''."""
    if dataset == 'blimp':
        return 50., ''
    files = zero_shot.PROBLEMS[dataset](data_dir)
    labels = np.array((files[1:] if dataset == 'cola' else files)[DRAWN[dataset][1]].labels)
    digest = hashlib.sha256(repr([file[1:] for file in files]).encode()).hexdigest()  # without their paths
    return trivial_score(DRAWN[dataset][0], labels, int(labels.max()) + 1), digest


def measure(args):
    """Run what is missing: about, constant {dataset: score}, examples {dataset: hash}, scores {updates: scores}."""
    results = read_sealed(args.results) if os.path.exists(args.results) else {'scores': {}}
    results['about'] = dict(environment(), snapshots=os.path.basename(os.path.dirname(os.path.abspath(args.snapshots))))
    found = {dataset: constant_answer(dataset, args.data_dir) for dataset in DRAWN}
    earlier = results.get('examples', {})
    results['constant'], results['examples'] = ({name: of[i] for name, of in found.items()} for i in (0, 1))
    snapshots = sorted(filter(str.isdecimal, os.listdir(args.snapshots)), key=int)
    results['scores'] = {updates: results['scores'].get(updates, {}) for updates in snapshots}
    changed = [dataset for dataset in DRAWN if earlier.get(dataset) not in (None, results['examples'][dataset])]
    for scores, dataset in itertools.product(results['scores'].values(), changed):
        scores.pop(dataset, None)
    for updates, scores in results['scores'].items():
        folder = os.path.join(args.snapshots, updates)
        weights = hash_model(folder, *(os.path.join(folder, name) for name in (VOCABULARY, MERGES)))['weights']
        if scores.get('weights') != weights:  # of another network
            scores.clear()
            scores['weights'] = weights
        for dataset in DRAWN:
            if dataset not in scores:
                print(f'after {updates} updates:')
                options = zero_shot.parse_args(['--dataset', dataset, '--data_dir', args.data_dir,
                                                '--model_path', folder])
                scores[dataset] = zero_shot.main(options, every=10)[DRAWN[dataset][1]]
                write_sealed(args.results, results, indent=1)
    return results


def draw_lines(ax, scores, constant):
    """A line through the medians of each task, their spread as a band, and its best constant answer, dashed.

    scores: {dataset: {place on the axis: the scores of the seeds}}. constant: {dataset: score}.
    """
    for dataset, of_dataset in scores.items():
        color, x = COLORS[dataset], sorted(of_dataset)
        values = [of_dataset[place] for place in x]
        ax.plot(x, list(map(np.median, values)), color=color, linewidth=2, marker='o', markersize=4, clip_on=False)
        ax.fill_between(x, list(map(min, values)), list(map(max, values)), color=color, alpha=0.15, linewidth=0)
        ax.axhline(constant[dataset], color=color, linestyle='--', linewidth=1)
    places = set().union(*scores.values())
    ax.set_xlim(min(places), max(places))
    place, low, high = -np.inf, *ax.get_ylim()
    ends = sorted((np.median(of_dataset[max(of_dataset)]), dataset) for dataset, of_dataset in scores.items())
    for score, dataset in ends:  # names of lines that end close together stand one above another
        place = max(score, place + 0.05 * (high - low))
        ax.annotate(NAMES[dataset], (1.02, place), xycoords=('axes fraction', 'data'), color=COLORS[dataset],
                    va='center')
    ax.spines[['top', 'right']].set_visible(False)


def draw(results, transfer, path):
    """Both halves; transfer: the results of `scripts/tables.py figure2`."""
    with figure(path, (10, 4.5)) as fig:
        left, right = fig.subplots(1, 2)
        scores, constant = {}, {}
        for cell in transfer['cells'].values():
            options = cell['options']
            n = min(options['n_transfer'], options['n_layer'])
            scores.setdefault(cell['task'], {})[n] = cell['scores']['valid']['']
            constant[cell['task']] = cell['trivial']['valid']
        draw_lines(left, scores, constant)
        left.set(xlabel='blocks taken from the pre-trained network', ylabel='score on dev (%)', title='Fine-tuned',
                 xticks=sorted(set().union(*scores.values())))
        right.set_xscale('symlog', linthresh=1)  # with a place for 0
        draw_lines(right, {dataset: {int(n): [of_snapshot[dataset]] for n, of_snapshot in results['scores'].items()}
                           for dataset in DRAWN}, results['constant'])
        right.set(xlabel='updates of pre-training', title='Not fine-tuned')
        right.xaxis.set_major_formatter('{x:,.0f}')
        fig.supxlabel('dashed: the best constant answer; CoLA: Matthews, STS-B: Pearson, others: accuracy',
                      fontsize='small')


def main(args):
    transfer = read_sealed(args.transfer)  # its error comes before the work
    results = measure(args)
    draw(results, transfer, args.figure)
    return results


if __name__ == '__main__':
    run_script(main, args)
