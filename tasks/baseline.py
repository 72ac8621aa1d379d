"""A yardstick for the network: a linear model on TF-IDF of words, trained and scored on the same examples."""

import numpy as np

from tasks.base import Split, Task
from tasks.metrics import scores

MAX_ROWS = 20_000  # training examples; more change the score little and take minutes
MAX_WEIGHTS = 2 ** 21  # of the linear model: features times classes, for which the solver needs half a gigabyte
N_BEFORE = {'choices': 1, 'question': 2}  # texts before the answers, see examples.FORMS


def tfidf_score(task: Task, train: Split, split: Split) -> float:
    """The score of `tfidf_predictions` on a labelled Split, in percent, by the task's first metric."""
    first = task.metrics[0]
    return scores([first], np.array(split.labels), tfidf_predictions(task, train, split), task.positive)[first]


def tfidf_predictions(task: Task, train: Split, split: Split):
    """Class numbers, or numbers, that logistic or ridge regression predicts for a Split: array (N,).

    Features of a text are its words and pairs of neighbouring words. Two texts add what they share and where they
    differ. Each answer of a choice is scored by itself, with what it shares with the texts before it.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    texts, labels = [field[:MAX_ROWS] for field in train.texts], np.array(train.labels[:MAX_ROWS])
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r'(?u)\w+|[^\w\s]',
                                 max_features=MAX_WEIGHTS // max(len(task.classes), 1))
    vectorizer.fit(text for field in texts for text in field)
    model = LogisticRegression(C=10, max_iter=1000) if task.classes else Ridge()
    if task.form not in N_BEFORE:
        model.fit(features(vectorizer, task.form, texts), labels)
        return model.predict(features(vectorizer, task.form, split.texts))
    n_answers = len(texts) - N_BEFORE[task.form]
    is_right = labels == np.arange(n_answers)[:, None]  # (K, N)
    model.fit(features(vectorizer, task.form, texts), is_right.ravel())
    scores = model.decision_function(features(vectorizer, task.form, split.texts))  # (K * N,)
    return scores.reshape(n_answers, -1).argmax(0)


def features(vectorizer, form: str, texts):
    """A sparse matrix of N rows, one an example; for choices K * N rows, all first answers before all second ones."""
    from scipy.sparse import csr_matrix, hstack, vstack

    if form == 'text':
        return vectorizer.transform(texts[0])
    if form not in N_BEFORE:
        a, b = map(vectorizer.transform, texts)
        alike = a.multiply(b)
        return hstack([alike, csr_matrix(alike.sum(1)), abs(a - b), b if form == 'pair' else a + b]).tocsr()
    n = N_BEFORE[form]
    context = vectorizer.transform(' '.join(parts) for parts in zip(*texts[:n], strict=True))
    answers = map(vectorizer.transform, texts[n:])
    return vstack([hstack([answer, csr_matrix(answer.multiply(context).sum(1))]) for answer in answers]).tocsr()
