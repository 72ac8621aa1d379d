"""The substitute for ROCStories: its files, and that an ending without its story does not show which is right."""
import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data import make_sample

SCRIPT = Path(make_sample.__file__)
NAMES = (make_sample.LABELLED_CSV, make_sample.TEST_CSV)


def read(name):
    with open(SCRIPT.parent / 'sample' / name, encoding='utf-8', newline='') as f:
        return list(csv.reader(f))


@pytest.fixture(scope='module')
def files():
    """The rows of the two committed files, without their headers."""
    return [read(name)[1:] for name in NAMES]


def endings(row):
    """Row -> right ending, wrong ending."""
    return (row[5], row[6]) if row[7] == '1' else (row[6], row[5])


def worlds_of(text):
    """The worlds of which `text` has a place, a thing or an action."""
    return {i for i, world in enumerate(make_sample.parse(make_sample.WORLDS))
            if any(re.search(rf'\b{re.escape(words)}\b', text) for group in world for words in group)}


def test_committed_files_are_what_the_generator_writes(tmp_path):
    make_sample.main(make_sample.parse_args(['--out', str(tmp_path)]))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(NAMES)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (SCRIPT.parent / 'sample' / name).read_bytes()


def test_format_is_that_of_the_real_files():
    for name, n_stories in zip(NAMES, (1080, 400), strict=True):
        header, *rows = read(name)
        assert header == ('InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,'
                          'RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding').split(',')
        assert len(rows) == n_stories
        for row in rows:
            assert re.fullmatch(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', row[0])
            assert all(re.fullmatch(r"[A-Z][A-Za-z', -]+\.", sentence) for sentence in row[1:7]), row
            assert row[7] in ('1', '2')


def test_labels_are_balanced_and_endings_differ(files):
    for rows in files:
        assert Counter(row[7] for row in rows) == {'1': len(rows) / 2, '2': len(rows) / 2}
        assert all(row[5] != row[6] for row in rows)


def test_no_story_occurs_twice(files):
    stories = [' '.join(row[1:5]) for rows in files for row in rows]
    assert len(set(stories)) == len(stories)
    ids = [row[0] for rows in files for row in rows]
    assert len(set(ids)) == len(ids)


def test_unlabelled_text_is_disjoint_from_the_labelled_files(files):
    texts = make_sample.unlabelled(20000, make_sample.SEED)
    stories = {' '.join(row[1:5]) for rows in files for row in rows}
    assert len(set(texts)) == len(texts) == 20000
    begun = {'. '.join(text.split('. ')[:4]) + '.' for text in texts}
    assert not begun & stories


def test_unlabelled_text_skips_labelled_stories_that_it_draws(monkeypatch):
    texts = make_sample.unlabelled(50, 1)
    taken = texts[10].split('. ')
    row = ['id', *(f'{sentence}.' for sentence in taken[:4]), taken[4], 'Another ending.', '1']
    monkeypatch.setattr(make_sample, 'labelled', lambda: [[row]])
    again = make_sample.unlabelled(50, 1)
    assert texts[10] not in again
    assert again[:49] == texts[:10] + texts[11:]


def test_another_seed_gives_other_stories(files):
    other = make_sample.labelled(make_sample.SEED + 1)
    stories, others = ({' '.join(row[1:5]) for rows in group for row in rows} for group in (files, other))
    assert len(stories & others) < 10
    assert len(set(make_sample.unlabelled(1000, 1)) & set(make_sample.unlabelled(1000, 2))) < 10
    assert make_sample.unlabelled(100, 1) == make_sample.unlabelled(100, 1)


def test_endings_of_each_world_are_right_as_often_as_wrong(files):
    for rows in files:
        right, wrong = Counter(), Counter()
        for row in rows:
            one, other = map(worlds_of, endings(row))
            right.update(one)
            wrong.update(other)
        assert right == wrong == {0: len(rows) / 2, 1: len(rows) / 2}


def test_right_ending_belongs_to_the_world_of_the_story(files):
    for rows in files:
        for row in rows:
            story, (right, wrong) = worlds_of(' '.join(row[1:5])), map(worlds_of, endings(row))
            assert len(story) == 1 and right == story and wrong == {0, 1} - story, row


def test_an_ending_repeats_nothing_that_was_seen_or_done_in_its_story(files):
    words = {words for world in make_sample.parse(make_sample.WORLDS) for group in world for words in group}
    for rows in files:
        for row in rows:
            story = ' '.join(row[1:5])
            repeated = [w for w in words if re.search(rf'\b{w}\b', row[5] + row[6]) and re.search(rf'\b{w}\b', story)]
            assert not repeated, row


def test_the_right_ending_cannot_be_told_from_endings_alone(files):
    np = pytest.importorskip('numpy')
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    train, test = files
    words = CountVectorizer(ngram_range=(1, 2)).fit([ending for row in train for ending in row[5:7]])
    X, X_test = (words.transform([row[6] for row in rows]) - words.transform([row[5] for row in rows])
                 for rows in files)
    y, y_test = (np.array([row[7] == '2' for row in rows]) for rows in files)
    assert LogisticRegression(max_iter=1000).fit(X, y).score(X_test, y_test) <= 0.56


def test_the_right_ending_cannot_be_told_from_common_words(files):
    """The ending that shares more words with the story, or its last sentence, is right in half of the cases."""
    for first in 1, 4:
        score = 0
        for row in (row for rows in files for row in rows):
            story = set(re.findall(r'\w+', ' '.join(row[first:5]).lower()))
            right, wrong = (len(story & set(re.findall(r'\w+', e.lower()))) for e in endings(row))
            score += 1 if right > wrong else 0.5 if right == wrong else 0
        assert 0.44 < score / sum(map(len, files)) < 0.56, first


def run(*args):
    return subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True)


def test_the_command_line_writes_one_story_per_line(tmp_path):
    out = tmp_path / 'new' / 'stories.txt'
    done = run('--unlabelled', '30', '--seed', '5', '--out', str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert out.read_text(encoding='utf-8').splitlines() == make_sample.unlabelled(30, 5)
    assert [p.name for p in out.parent.iterdir()] == ['stories.txt']


@pytest.mark.parametrize('args', [('--unlabelled', '30'), ('--unlabelled', '0', '--out', 'x'),
                                  ('--unlabelled', '3', '--out', str(SCRIPT / 'x')),
                                  ('--unlabelled', '3', '--out', str(SCRIPT.parent))])
def test_mistakes_end_in_one_line(args):
    done = run(*args)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr and len(done.stderr.strip().splitlines()) == 1
