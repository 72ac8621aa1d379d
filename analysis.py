"""From predictions and the log of a run to the two accuracies that the original prints."""

import csv
import json

import numpy as np

from datasets import find_cloze_file, read_cloze


def read_predictions(path: str) -> list[int]:
    """The `prediction` column of a submission (index<TAB>prediction)."""
    with open(path, encoding='utf-8', newline='') as f:
        rows = list(csv.DictReader(f, delimiter='\t'))
    try:
        return [int(row['prediction']) for row in rows]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{path} is not a submission: it needs a column prediction with numbers') from None


def read_log(path: str) -> list[dict]:
    """The lines of a run's log: first its options, then one evaluation each."""
    with open(path, encoding='utf-8') as f:
        try:
            return [json.loads(line) for line in f]
        except ValueError:
            raise ValueError(f'{path} is not a log of train.py: a line is not json') from None


def rocstories(data_dir: str, pred_path: str, log_path: str):
    """Print and return, in percent, the best validation accuracy in the log and the accuracy on the test file.

    The second is None, and said to be unknown, where the test file has no labels.
    """
    accuracies = [line['va_acc'] for line in read_log(log_path) if 'va_acc' in line]
    if not accuracies:
        raise ValueError(f'{log_path} has no evaluation yet')
    valid_accuracy, test_accuracy = max(accuracies), None
    print(f'ROCStories Valid Accuracy: {valid_accuracy:.2f}')
    path = find_cloze_file(data_dir, 'test')
    labels, predictions = read_cloze(path)[-1], read_predictions(pred_path)
    if labels is None:
        print('ROCStories Test Accuracy:  unknown, the test file has no labels')
    elif len(labels) != len(predictions):
        raise ValueError(f'{pred_path} has {len(predictions)} predictions, {path} has {len(labels)} stories')
    else:
        test_accuracy = float(np.mean(np.array(labels) == predictions)) * 100
        print(f'ROCStories Test Accuracy:  {test_accuracy:.2f}')
    return valid_accuracy, test_accuracy
