"""The scores of the paper's tasks, in percent, and what they are worth: the score of the best constant answer."""

import numpy as np

from tasks.base import NO_LABEL


def accuracy(labels, predictions):
    from sklearn.metrics import accuracy_score
    return accuracy_score(labels, predictions)


def f1(labels, predictions):
    """F1 of class 1."""
    from sklearn.metrics import f1_score
    return f1_score(labels, predictions, zero_division=0.)


def matthews(labels, predictions):
    """Matthews correlation; 0 where all predictions are of one class."""
    from sklearn.metrics import matthews_corrcoef
    return matthews_corrcoef(labels, predictions)


def pearson(labels, predictions):
    """Linear correlation; 0 where one of the two is constant."""
    from scipy.stats import pearsonr
    return 0. if is_constant(labels) or is_constant(predictions) else pearsonr(labels, predictions).statistic


def spearman(labels, predictions):
    """Correlation of ranks; 0 where one of the two is constant."""
    from scipy.stats import spearmanr
    return 0. if is_constant(labels) or is_constant(predictions) else spearmanr(labels, predictions).statistic


METRICS = {metric.__name__: metric for metric in (accuracy, f1, matthews, pearson, spearman)}


def is_constant(values) -> bool:
    """Whether all values are the same."""
    return bool(np.ptp(values) == 0)


def has_label(labels):
    """Which examples are scored, (N,), of class numbers with NO_LABEL or of numbers with NaN (N,)."""
    return labels == labels if labels.dtype.kind == 'f' else labels != NO_LABEL


def scores(metrics, labels, predictions, positive=1) -> dict:
    """{name of a metric: score in percent} of class numbers, some perhaps NO_LABEL, or of numbers, (N,) each.

    positive: the class of F1.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    scored = has_label(labels)
    labels, predictions = labels[scored], predictions[scored]
    of_class = labels == positive, predictions == positive
    return {name: 100 * float(METRICS[name](*(of_class if name == 'f1' else (labels, predictions))))
            for name in metrics}


def trivial_score(metric: str, labels, n_class: int, positive=1) -> float:
    """The score, in percent, of the best answer that is the same for all examples; n_class 0: labels are numbers."""
    constants = range(n_class) if n_class else [0.]
    return max(scores([metric], labels, np.full(len(labels), constant), positive)[metric] for constant in constants)
