"""The made-up data: its files, what they have on purpose to break careless readers, and that an ending without its
story does not show which is right."""
import csv
import io
import re
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

from data import make_sample
from tasks import TASKS
from tasks.stories import TEST_NAME, VAL_NAME

SCRIPT = Path(make_sample.__file__)
SAMPLE = SCRIPT.parent / 'sample'
NAMES = (VAL_NAME, TEST_NAME)
TABLES = ('CoLA/train.tsv', 'CoLA/dev.tsv', 'RTE/train.tsv', 'RTE/dev.tsv', 'MRPC/msr_paraphrase_train.txt',
          'MRPC/msr_paraphrase_test.txt', 'STS-B/original/sts-train.csv', 'STS-B/original/sts-test.csv')


def read(name):
    with open(SAMPLE / name, encoding='utf-8', newline='') as f:
        return list(csv.reader(f))


@pytest.fixture(scope='module')
def files():
    """The rows of the two committed files, without their headers."""
    return [read(name)[1:] for name in NAMES]


def endings(row):
    """Row -> right ending, wrong ending."""
    return (row[5], row[6]) if row[7] == '1' else (row[6], row[5])


WORLD_WORDS = [re.compile(rf'\b({"|".join(re.escape(words) for group in world for words in group)})\b')
               for world in make_sample.parse(make_sample.WORLDS)]


def worlds_of(text):
    """The worlds of which `text` has a place, a thing or an action."""
    return {i for i, words in enumerate(WORLD_WORDS) if words.search(text)}


def test_committed_files_are_what_the_generator_writes(tmp_path):
    make_sample.main(make_sample.parse_args(['--out', str(tmp_path)]))
    made, committed = ({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*')
                        if path.is_file() and path.name != 'README.md'} for folder in (tmp_path, SAMPLE))
    assert sorted(made) == sorted(committed) and {*NAMES, *TABLES} < {*made}
    assert made == committed


def test_the_files_of_the_other_tasks_are_small():
    assert 250e3 < sum(len(text.encode()) for text in make_sample.stand_ins().values()) < 400e3


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


@pytest.mark.parametrize('name', TABLES)
def test_tables_have_open_quotes_blanks_and_missing_values(name):
    text = (SAMPLE / name).read_bytes().decode('utf-8-sig')
    rows = [line.split('\t') for line in re.split('\r?\n', text) if line]
    texts = [field for row in rows for field in row]
    assert ('n/a' in texts) == ('train' in name)
    assert sum(field.startswith('"') for field in texts) >= 6
    assert sum(field.count('"') % 2 and field[0] != '"' for field in texts if field) >= 6
    assert sum(field.endswith(' ') for field in texts) >= 6
    careless = list(csv.reader(io.StringIO(text, newline=''), delimiter='\t'))
    assert len(careless) < len(rows)  # a reader that minds quotes loses rows


def test_tables_have_the_line_ends_and_columns_of_the_official_files():
    files = {name: (SAMPLE / name).read_bytes() for name in TABLES}
    for name, content in files.items():
        assert content.startswith(b'\xef\xbb\xbf') == content.endswith(b'\r\n') == ('MRPC' in name)
        assert content.count(b'\r') == (content.count(b'\n') if 'MRPC' in name else 0)
        assert content.endswith(b'\n') == (name != 'CoLA/dev.tsv')
    columns = {name: Counter(line.count(b'\t') + 1 for line in content.split(b'\n') if line)
               for name, content in files.items()}
    assert columns['CoLA/train.tsv'] == {4: 480}
    assert columns['STS-B/original/sts-train.csv'] == {7: 293, 9: 27}
    assert columns['MRPC/msr_paraphrase_train.txt'] == {5: 441} and columns['RTE/dev.tsv'] == {4: 121}
    marks = Counter(line.split(b'\t')[2] for line in files['CoLA/train.tsv'].split(b'\n') if line)
    assert {*marks} == {b'', b'*'} and min(marks.values()) > 200


@pytest.mark.parametrize('name, sizes', [('cola', (480, 120, 40)), ('rte', (320, 120, 40)), ('mrpc', (320, 120, 120)),
                                         ('stsb', (320, 120, 120)), ('race', (144, 48, 72))])
def test_every_row_is_read(name, sizes):
    task = TASKS[f'sample-{name}']
    splits = task.load(Namespace(data_dir=str(SAMPLE)))
    assert tuple(len(split.texts[0]) for split in splits) == sizes
    *labelled, test = splits
    assert (test.labels is None) == (name in ('cola', 'rte'))  # as in the official files
    for split in labelled if test.labels is None else splits:
        assert len(split.labels) == len(split.texts[0])
        most = Counter(split.labels).most_common(1)[0][1]
        assert most < (0.36 if name in ('race', 'stsb') else 0.6) * len(split.labels)
    texts = [text for split in splits for field in split.texts for text in field]
    assert all(text == text.strip() and len(text.split('\t')) == 1 for text in texts)
    if name == 'race':
        articles, questions = splits[0].texts[:2]
        assert all(article.count('\n') == 1 for article in articles) and sum('_' in text for text in questions) == 72
        assert splits[2].parts == {'middle': slice(0, 36), 'high': slice(36, 72)}
    else:
        assert 'n/a' in texts and any(text.startswith('"') for text in texts)


def test_numbers_of_passages_are_not_in_the_order_of_their_names():
    names = [path.stem for path in (SAMPLE / 'RACE' / 'train' / 'middle').iterdir()]
    assert sorted(names) != sorted(names, key=int) and len(names) == 12


@pytest.mark.parametrize('name', ['rte', 'mrpc'])
def test_single_words_do_not_show_the_label_of_a_pair(name):
    """What counts is whether both texts are of one world, so that no word speaks for a label."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    train, valid, _ = TASKS[f'sample-{name}'].load(Namespace(data_dir=str(SAMPLE)))
    pairs, valid_pairs = ([' '.join(pair) for pair in zip(*split.texts, strict=True)] for split in (train, valid))
    words = CountVectorizer().fit(pairs)
    guess = LogisticRegression(max_iter=1000).fit(words.transform(pairs), train.labels)
    assert guess.score(words.transform(valid_pairs), valid.labels) < 0.6


def test_answers_of_race_belong_to_the_world_of_their_passage():
    """The right one, and no other."""
    for split in TASKS['sample-race'].load(Namespace(data_dir=str(SAMPLE))):
        for (article, _, *answers), label in zip(zip(*split.texts, strict=True), split.labels, strict=True):
            [world] = worlds_of(article)
            assert [i for i, answer in enumerate(answers) if worlds_of(answer) == {world}] == [label]


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
