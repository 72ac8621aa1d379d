"""The linear model on TF-IDF, on made-up examples of each form whose answer is in the words."""

import numpy as np
import pytest

from tasks.base import Split, Task
from tasks.baseline import tfidf_predictions

GOOD, BAD = 'good fine happy glad'.split(), 'bad poor sad angry'.split()


def a_task(form, classes=('a', 'b')):
    return Task(None, form, classes, ('accuracy',), {})


def examples(form, n, seed):
    """n examples of a form: good words are class 1; a pair is of class 1 if its texts share their word."""
    rng = np.random.RandomState(seed)
    labels = rng.randint(2, size=n)
    words = [str(rng.choice([BAD, GOOD][label])) for label in labels]
    others = [str(rng.choice([GOOD, BAD][label])) for label in labels]
    if form == 'text':
        return Split(([f'it was a {word} day' for word in words],), labels.tolist())
    if form in ('pair', 'both'):
        seconds = [word if label else other for word, other, label in zip(words, others, labels, strict=True)]
        return Split(([f'a {word} day' for word in words], [f'the {word} week' for word in seconds]), labels.tolist())
    rights = rng.randint(2, size=n)
    good, bad = ([f'mom was {rng.choice(side)}' for _ in range(n)] for side in (GOOD, BAD))
    firsts = [(bad, good)[int(right == 0)][i] for i, right in enumerate(rights)]
    lasts = [(bad, good)[int(right == 1)][i] for i, right in enumerate(rights)]
    before = [['a story'] * n] * (2 if form == 'question' else 1)
    return Split((*before, firsts, lasts), rights.tolist())


@pytest.mark.parametrize('form', ['text', 'pair', 'both', 'choices', 'question'])
def test_what_words_tell_is_predicted(form):
    train, valid = examples(form, 200, 0), examples(form, 50, 1)
    assert (tfidf_predictions(a_task(form), train, valid) == valid.labels).mean() > 0.9


def test_numbers():
    rng = np.random.RandomState(0)
    counts = rng.randint(1, 5, size=120)
    texts = [' '.join(['plain'] * 3 + GOOD[:n]) for n in counts]
    train, valid = Split((texts[:100],), counts[:100].tolist()), Split((texts[100:],), counts[100:].tolist())
    assert np.corrcoef(tfidf_predictions(a_task('text', ()), train, valid), counts[100:])[0, 1] > 0.9
