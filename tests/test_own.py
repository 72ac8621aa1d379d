"""own.py and classifier.py: anybody's file is a task, its faults are named, and the run does without it afterwards."""

import csv
import datetime
import functools
import json
import math
import shutil
import sys
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from toy import NO_DROPOUT, TOY, WORDS

import classifier
import train
from datasets import unfamiliar
from model_pytorch import LMModel, load_openai_pretrained_model
from tasks import TASKS, baseline, own
from tasks.base import NO_LABEL
from tasks.metrics import METRICS, scores

TINY = ['--model_path', str(TOY), '--n_embd', '16', '--n_head', '4', '--n_layer', '3', '--n_ctx', '24', '--n_iter', '2',
        '--n_batch', '8', '--lr', '4e-3', '--lm_coef', '0', '--device', 'cpu', *NO_DROPOUT]
ANSWERS = 'context,question,one,two,three'
FORMS = {  # columns, label, more options, classes
    'text': ('title,body', 'mood', [], ('happy', 'sad')),
    'pair': ('title,body', 'mood', ['--form', 'pair'], ('happy', 'sad')),
    'both': ('title,body', 'mood', ['--form', 'both'], ('happy', 'sad')),
    'number': ('body', 'points', ['--number'], ()),
    'choices': (ANSWERS, 'right', ['--form', 'choices'], ('one', 'two', 'three')),
}


def made_up(n, seed):
    """N examples, each with the columns of all forms: the body says whether it is happy or sad, and so do answers."""
    rng, rows = np.random.RandomState(seed), []
    for _ in range(n):
        title, body, context, question, *answers = (' '.join(rng.choice(WORDS[:17], 3)) for _ in range(7))
        mood, right = rng.choice(['happy', 'sad']), rng.randint(3)
        answers = [f'{text} {"happy" if i == right else "sad"}' for i, text in enumerate(answers)]
        rows.append(dict(title=title, body=f'{body} {mood}', mood=mood, points=12.5 if mood == 'happy' else 9,
                         context=context, question=question, **dict(zip(('one', 'two', 'three'), answers, strict=True)),
                         right=('one', 'two', 'three')[right]))
    return rows


def write_rows(path, rows):
    """Write rows, dictionaries, in the format that the name says. Returns the path as a string."""
    with open(path, 'w', newline='', encoding='utf-8-sig' if path.suffix == '.csv' else 'utf-8') as f:
        if path.suffix == '.jsonl':
            f.writelines(json.dumps(row) + '\n' for row in rows)
        elif path.suffix == '.tsv':
            f.writelines('\t'.join(map(str, row)) + '\n' for row in (rows[0], *(row.values() for row in rows)))
        else:
            writer = csv.DictWriter(f, rows[0], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def folders(folder):
    return [f'--{name}_dir={folder / name}' for name in ('log', 'save', 'submission')]


def run(folder, path, form, *argv):
    """Train on a file; returns the results."""
    text, label, more, _ = FORMS[form]
    return train.main(train.parse_args(['--dataset', 'own', '--train', path, '--text', text, '--label', label, *more,
                                        *TINY, *folders(folder), *argv]))


def task_of(folder, *argv, text='text', label='stars', train_file='train.csv'):
    """The splits and the task of options."""
    args = train.parse_args(['--dataset', 'own', '--train', str(folder / train_file), '--text', text, '--label', label,
                             *argv])
    task, splits = own.load(args)
    return splits, task


def table(folder, name, *lines):
    (folder / name).write_text('\n'.join(lines) + '\n')


def reviews(folder, labels, name='train.csv'):
    """A file of texts, all different, with these labels."""
    table(folder, name, 'text,stars', *(f'{WORDS[i % 10]} of {i},{label}' for i, label in enumerate(labels)))


@pytest.mark.parametrize('form', FORMS)
def test_a_run_of_a_file_does_without_it_and_predicts_by_name(form, tmp_path, capsys):
    """Scores are those of the written predictions, and Python predicts what the command line does."""
    path, rows = write_rows(tmp_path / 'train.csv', made_up(60, 0)), made_up(11, 1)
    test = write_rows(tmp_path / 'test.jsonl', rows)
    results = run(tmp_path, path, form, '--desc', 'mine', '--test', test)
    columns, label, _, classes = FORMS[form]
    assert results.n_examples == dict(train=48, valid=12, test=11)
    assert f'mine Test {results.metric.title()}:' in capsys.readouterr().out
    _, *lines = (tmp_path / 'submission' / 'mine.tsv').read_text().splitlines()
    predicted, labels = [line.split('\t')[1] for line in lines], [row.pop(label) for row in rows]
    expected = (np.equal(predicted, labels).mean() if classes else
                np.corrcoef(np.array(predicted, float), labels)[0, 1])
    assert results.test_score == pytest.approx(100 * expected, abs=0.5)

    (tmp_path / 'train.csv').unlink()
    new = write_rows(tmp_path / 'new.csv', rows)
    again = train.main(train.parse_args(['--predict', new, '--desc', 'mine', '--device', 'cpu', *folders(tmp_path)]))
    assert again.scores == {}
    header, *lines = (tmp_path / 'submission' / 'mine-new.tsv').read_text().splitlines()
    assert header.split('\t') == ['index', 'prediction', *classes]
    assert [line.split('\t')[1] for line in lines] == predicted

    shutil.move(tmp_path / 'save' / 'mine', tmp_path / 'moved')
    with pytest.raises(FileNotFoundError, match='mine/config.json is missing'):
        classifier.load('mine')
    model = classifier.load(tmp_path / 'moved', device='cpu')
    texts = [[row[name] for name in columns.split(',')] for row in rows]
    answers = model.predict(texts)
    assert model.classes == classes and model.predict([]) == [] and model.predict(texts) == answers
    assert 'not complete' not in capsys.readouterr().err
    (tmp_path / 'moved' / 'results.json').unlink()
    assert classifier.load(tmp_path / 'moved', device='cpu').classes == classes
    assert 'moved has no results.json: perhaps the run is not complete' in capsys.readouterr().err
    config = json.loads((tmp_path / 'moved' / 'config.json').read_text())
    for scale in (-1, 'x', [], {'x': 3}, [1., 0.], None if form == 'number' else [0., 1.]):
        (tmp_path / 'moved' / 'config.json').write_text(json.dumps(config | dict(scale=scale)))
        with pytest.raises(ValueError, match='config.json is not as this program wrote it'):
            classifier.load(tmp_path / 'moved', device='cpu')
    (tmp_path / 'moved' / 'config.json').write_text(json.dumps(config))
    if not classes:
        assert [f'{number:.3f}' for number in answers] == predicted
        assert abs(np.mean(answers) - np.mean(labels)) < 3  # in the unit of the labels, which are 9 or 12.5
        return
    assert [name for name, _ in answers] == predicted
    for line, (_, probabilities) in zip(lines, answers, strict=True):
        assert list(probabilities) == list(classes)
        assert [float(p) for p in line.split('\t')[2:]] == pytest.approx(list(probabilities.values()), abs=1e-5)


def test_of_epochs_with_equal_scores_the_one_with_the_least_cost_is_kept(tmp_path):
    """The paper's tasks keep the first, as OpenAI's code does."""
    path = write_rows(tmp_path / 'train.csv', made_up(60, 0))
    results = run(tmp_path, path, 'text', '--n_iter', '6', '--lr', '1e-5')
    best = max(line['va_score'] for line in results.log)
    equal = [line for line in results.log if line['va_score'] == best]
    least = min(equal, key=lambda line: line['va_cost'])
    assert len(equal) > 1 and least is not equal[0] and results.best_epoch == least['n_epochs']
    assert train.merit(TASKS['sst2'], least) == train.merit(TASKS['sst2'], equal[0])


def test_what_a_file_says_is_learned(tmp_path):
    path = write_rows(tmp_path / 'train.csv', made_up(60, 0))
    test = write_rows(tmp_path / 'test.csv', made_up(40, 1))
    results = run(tmp_path, path, 'text', '--test', test, '--n_batch', '4', '--n_iter', '5')
    assert results.test_score >= 90 and not results.degenerate


def test_formats_and_quotes_give_the_same_examples(tmp_path):
    rows = made_up(20, 0)
    rows[0]['title'], rows[1]['title'], rows[2]['title'] = ' "n/a" ', 'a, b; "c', 'NA'
    splits = []
    for extension in ('csv', 'tsv', 'jsonl'):
        name = f'train.{extension}'
        write_rows(tmp_path / name, rows)
        splits.append(task_of(tmp_path, text='title,body', label='mood', train_file=name)[0])
    (train_split, valid, test), *others = splits
    assert test is None and len(valid.labels) == 4
    assert {f'"n/a" {rows[0]["body"]}', f'a, b; "c {rows[1]["body"]}', f'NA {rows[2]["body"]}'} <= {
        *train_split.texts[0], *valid.texts[0]}
    assert all(other == splits[0] for other in others)


def test_numbers_of_json_are_the_classes_of_csv(tmp_path):
    """A column with a gap comes out of pandas as floats."""
    reviews(tmp_path, [1, 2] * 10)
    table(tmp_path, 'valid.jsonl', '{"text": "some", "stars": 2.0}', '{"text": "more", "stars": 1}')
    (_, valid, _), task = task_of(tmp_path, '--valid', str(tmp_path / 'valid.jsonl'))
    assert task.classes == ('1', '2') and valid.labels == [1, 0] and task.metrics == ('accuracy', 'f1')


def test_columns_are_named_in_any_case_and_with_commas(tmp_path):
    table(tmp_path, 'train.csv', 'Title ,"What, then?",Stars', *(f'title {i},,{i % 3}' for i in range(20)))
    (split, _, _), _ = task_of(tmp_path, text='title,"what, then?"', label='stars')
    assert split.texts[0][0].startswith('title ')


def test_the_split_has_the_classes_in_proportion_and_is_always_the_same(tmp_path):
    reviews(tmp_path, [*'aaaaaaaaab' * 10, 'c'])
    (train_split, valid, _), task = task_of(tmp_path, '--n_valid', '20')
    assert Counter(valid.labels) == {0: 18, 1: 2} and Counter(train_split.labels) == {0: 72, 1: 8, 2: 1}
    assert task_of(tmp_path, '--n_valid', '20')[0][:2] == (train_split, valid)
    texts = [*train_split.texts[0], *valid.texts[0]]
    assert len(set(texts)) == 101 and texts != sorted(texts)
    assert 'classes with one example have none for validation: c' in train_split.notes


@pytest.mark.parametrize('n, expected', [(20, 4), (2000, 374)])
def test_a_fifth_is_for_validation_but_not_more_than_the_original_had(n, expected, tmp_path):
    reviews(tmp_path, range(n))
    (_, valid, _), _ = task_of(tmp_path, '--number')
    assert len(valid.labels) == expected


def test_a_label_that_a_line_of_json_lacks_is_empty(tmp_path):
    reviews(tmp_path, 'ab' * 10)
    table(tmp_path, 'new.jsonl', '{"text": "some"}', '{"text": "more", "stars": "b"}')
    with pytest.raises(ValueError, match='new.jsonl, line 1: stars is empty, but other examples have a label'):
        task_of(tmp_path, '--test', str(tmp_path / 'new.jsonl'))
    with pytest.raises(ValueError, match='new.jsonl, line 1: stars is empty$'):
        task_of(tmp_path, train_file='new.jsonl')


@pytest.mark.parametrize('number', [[], ['--number']])
def test_blank_rows_are_not_trained_on_but_predicted(number, tmp_path):
    reviews(tmp_path, [1, 2] * 10)
    table(tmp_path, 'test.csv', 'text,stars', 'some,1', ',', 'more,2', '"",""', 'again,1', ',')
    (_, valid, test), _ = task_of(tmp_path, *number, *(f'--{kind}={tmp_path}/test.csv' for kind in ('valid', 'test')))
    assert valid.texts == (['some', 'more', 'again'],) and test.texts == (['some', '', 'more', '', 'again'],)
    expected = [1., math.nan, 2., math.nan, 1.] if number else [0, NO_LABEL, 1, NO_LABEL, 0]
    assert repr(test.labels) == repr(expected)
    metric, predictions = ('spearman', [1, 5, 2, 5, 1]) if number else ('accuracy', [0, 1, 1, 1, 1])
    assert scores([metric], test.labels, predictions)[metric] == pytest.approx(100 if number else 200 / 3)
    table(tmp_path, 'blank.csv', 'text,stars', '""," "', ',', '"",')
    assert task_of(tmp_path, f'--test={tmp_path}/blank.csv')[0][2].labels is None


@pytest.mark.parametrize('form, columns, row', [('text', 'text', ',b'), ('both', 'text,more', '&nbsp;,a,b')])
def test_a_row_without_text_is_not_trained_on_but_predicted(form, columns, row, tmp_path):
    name = f'{columns},stars\n'
    lines = [f'some text,{"more," if form == "both" else ""}{"ab"[i % 2]}\n' for i in range(20)]
    (tmp_path / 'train.csv').write_text(name + ''.join(lines))
    (tmp_path / 'test.csv').write_text(name + ''.join([*lines[:3], f'{row}\n', *lines[:2]]))
    (_, _, test), _ = task_of(tmp_path, '--form', form, '--test', str(tmp_path / 'test.csv'), text=columns)
    assert len(test.texts[0]) == 6 and test.labels == [0, 1, 0, 1, 0, 1]
    [note] = test.notes
    assert 'test.csv, line 5: text is empty, as are the texts of 1 rows' in note
    with pytest.raises(ValueError, match='test.csv, line 5: text is empty'):
        task_of(tmp_path, '--form', form, text=columns, train_file='test.csv')


def test_values_of_a_frame_name_the_same_classes_in_all_formats_and_in_lists(tmp_path):
    pandas, _ = pytest.importorskip('pandas'), pytest.importorskip('pyarrow', exc_type=ImportError)
    for values, names in (([1., 2.] * 10, ('1', '2')), ([True, False] * 10, ('False', 'True')),
                          ([1, 2] * 10, ('1', '2')), ([0.5, 1e300] * 10, ('0.5', '1e+300'))):
        for dtype in (None, object):
            frame = pandas.DataFrame({'text': [f'text {i}' for i in range(20)],
                                      'stars': pandas.Series(values, dtype=dtype)})
            frame.to_csv(tmp_path / 'a.csv', index=False)
            frame.to_json(tmp_path / 'a.jsonl', orient='records', lines=True)
            frame.to_parquet(tmp_path / 'a.parquet')
            frame.to_csv(tmp_path / 'a.tsv', index=False, sep='\t')
            for name in ('a.csv', 'a.tsv', 'a.parquet', 'a.jsonl'):
                assert task_of(tmp_path, train_file=name)[1].classes == names, name
    for i, labels in enumerate((np.arange(20) % 2 == 0, [True, False] * 10, np.array([True, False] * 10, object))):
        model = classifier.fit([f'the cat {i}' for i in range(20)], list(labels), desc=f'bool{i}',
                               **OPTIONS | in_folder(tmp_path))
        assert [*map(str, model.classes)] == ['False', 'True']


def test_doubled_quotes_of_a_tsv_are_noted(tmp_path):
    pandas = pytest.importorskip('pandas')
    frame = pandas.DataFrame({'title': ['x', 'y'] * 6, 'stars': [*'ab'] * 6,
                              'body': ['"The goats" he said, "are here"', 'She took the "tram"'] * 6})
    frame.to_csv(tmp_path / 'train.csv', index=False)
    frame.to_csv(tmp_path / 'a.tsv', index=False, sep='\t')
    for name, n in (('train.csv', 0), ('a.tsv', 1)):
        (train_split, _, test), task = task_of(tmp_path, '--test', str(tmp_path / name), text='title,body')
        assert sum('quotes in texts are doubled' in note for note in test.notes) == n
        again = task_of(tmp_path, text='title,body', train_file=name)[0][0]
        assert sum('quotes in texts are doubled' in note for note in again.notes) == n


@pytest.mark.parametrize('labels, expected', [
    (['15.', '2', '40', '2'], [0, 1, 2, 1]), (['15', '15.0', '15', '15'], None), (['0', '3', '2', '2'], [1, 2, 0, 0]),
    (['2', '1', '1', '2'], 'may be counted from 0'), (['two', '2', '15.', '3'], [1, 1, 0, 2]),
    (['15.', '9', '15.', '2'], "line 3: right '9' is neither the text"), (['15.', '5', '2', '2'], 'is more than one')])
def test_numbers_may_be_the_texts_of_answers(labels, expected, tmp_path):
    """Labels are numbers of answers if all of the training file can be; what they are is not asked in later files."""
    answers = {'15.': ['15.', '2', '40'], '15': ['15', '15.0', '3'], '0': ['2', '0', '3'], '2': ['1', '2', '7'],
               'two': ['15.', '2', '3']}[labels[0]]
    rows = [['Mom', *(answers if label != '5' else ['5', '5', '7']), label] for label in labels]
    table(tmp_path, 'train.csv', 'context,one,two,three,right', *map(','.join, rows * 3))
    options = dict(text='context,,one,two,three', label='right')
    if isinstance(expected, list):
        argv = ['--form', 'choices', '--valid', str(tmp_path / 'train.csv'), '--test', str(tmp_path / 'test.csv')]
        table(tmp_path, 'test.csv', 'context,one,two,three,right', 'Mom,3,2,7,2')
        (_, valid, test), _ = task_of(tmp_path, *argv, **options)
        assert valid.labels == expected * 3 and test.labels == [1]
    else:
        with pytest.raises(ValueError, match=expected or 'is more than one answer'):
            task_of(tmp_path, '--form', 'choices', **options)


@pytest.mark.parametrize('argv, label, expected', [
    ([], 'two', 1), ([], 'TWO', 1), ([], 'the red ball', 2), ([], ' the  old', 1),
    (['--label_base', '0'], '0', 0), (['--label_base', '1'], '1', 0), (['--label_base', '1'], '3', 2),
    ([], '1', 'train.csv, line 2: right 1 may be counted from 0 or from 1: --label_base says which'),
    ([], 'the', "line 2: right 'the' is neither the text of an answer nor one of one, two, three"),
    (['--label_base', '0'], '3', "line 2: right '3' is not a number of an answer, 0 to 2"),
    (['--label_base', '0'], 'two', "line 2: right 'two' is not a number of an answer, 0 to 2")])
def test_a_right_answer_is_given_by_its_column_its_text_or_its_number(argv, label, expected, tmp_path):
    table(tmp_path, 'train.csv', 'context,one,two,three,right',
          *[f'Mom found,a cat,the  old,the red ball,{label}'] * 5)
    options = ['--form', 'choices', *argv]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected.replace('(', '.')):
            task_of(tmp_path, *options, text='context,,one,two,three', label='right')
    else:
        (split, _, _), task = task_of(tmp_path, *options, text='context,,one,two,three', label='right')
        assert split.labels == [expected] * 4 and task.classes == ('one', 'two', 'three')
        assert [field[0] for field in split.texts] == ['Mom found', '', 'a cat', 'the  old', 'the red ball']


@pytest.mark.parametrize('argv, message', [
    (['--train', 'a.csv'], '--train needs --dataset own'),
    (['--dataset', 'sample', '--number'], '--number needs --dataset own'),
    (['--predict', 'a.csv', '--desc', 'x', '--text', 'a'], '--text has no effect with --predict: x knows its columns'),
    (['--dataset', 'own'], 'needs --train'),
    (['--dataset', 'own', '--train', 'a.csv'], 'needs --text'),
    (['--dataset', 'own', '--train', 'a.csv', '--text', 'a'], 'needs --label')])
def test_options_that_are_missing_or_without_effect(argv, message):
    with pytest.raises(ValueError, match=message):
        train.parse_args(argv)


@pytest.mark.parametrize('text, argv, message', [
    ('a', ['--form', 'pair'], '--text a: --form pair takes two columns'),
    ('a,b,c', ['--form', 'both'], 'takes two columns'),
    ('a,b,c', ['--form', 'choices'], 'takes context,question,answer,answer'),
    ('a,,b', [], 'column 2 has no name'),
    (',b', ['--form', 'pair'], 'column 1 has no name'),
    ('a,A', [], 'column A is named twice'),
    ('a,stars', [], 'column stars is named twice in --text and --label'),
    ('a,b,c,d', ['--form', 'choices', '--number'], '--number has no effect with --form choices')])
def test_options_that_do_not_fit_together(text, argv, message):
    with pytest.raises(ValueError, match=message):
        train.parse_args(['--dataset', 'own', '--train', 'train.csv', '--text', text, '--label', 'stars', *argv])


@pytest.mark.parametrize('labels, argv, message', [
    ('aaaa', [], 'train.csv: all 4 examples have the same stars, a'),
    ('1234', [], 'no two examples have the same stars.* give --number'),
    ('abcd', [], 'no two examples have the same stars, so it does not name classes$'),
    (['1', '2.5', 'x'], ['--number'], "train.csv, line 4: stars 'x' is not a finite number"),
    (['1', 'inf'], ['--number'], "line 3: stars 'inf' is not a finite number"),
    (['1', '1e999'], ['--number'], "line 3: stars '1e999' is not a finite number"),
    (['1', ''], ['--number'], 'line 3: stars is empty'),
    (['a', 'b', '', 'a'], [], 'train.csv, line 4: stars is empty$'),
    ('abab', ['--n_valid', '4'], '4 of the 4 examples of .*train.csv cannot be set aside'),
    ('aab', [], '0 of the 3 examples of .* give --valid FILE'),
    ([], [], 'train.csv has no examples')])
def test_labels_from_which_nothing_can_be_learned(labels, argv, message, tmp_path):
    reviews(tmp_path, labels)
    with pytest.raises(ValueError, match=message):
        task_of(tmp_path, *argv)


@pytest.mark.parametrize('lines, message', [
    (['text,stars', 'some,a', 'more,c'], "other.csv, line 3: stars 'c' is not a class of the .*, which are a, b"),
    (['text,stars', 'some,', 'more,b'], 'other.csv, line 2: stars is empty'),
    (['body,stars', 'some,a'], 'other.csv, line 1: no column text.* body, stars')])
@pytest.mark.parametrize('kind', ['valid', 'test'])
def test_rows_that_do_not_fit_the_training_file(kind, lines, message, tmp_path):
    reviews(tmp_path, 'ab' * 10)
    table(tmp_path, 'other.csv', *lines)
    with pytest.raises(ValueError, match=message):
        task_of(tmp_path, f'--{kind}', str(tmp_path / 'other.csv'))


def test_a_test_file_may_have_no_labels_but_a_validation_file_must(tmp_path):
    reviews(tmp_path, 'ab' * 10)
    for name, lines, message in (('without.csv', ['text', 'some'], 'line 1: no column stars'),
                                 ('empty.csv', ['text,stars', 'some,'], 'line 2: stars is empty$')):
        table(tmp_path, name, *lines)
        (_, _, test), _ = task_of(tmp_path, '--test', str(tmp_path / name))
        assert test.labels is None and test.texts == (['some'],)
        with pytest.raises(ValueError, match=message):
            task_of(tmp_path, '--valid', str(tmp_path / name))


@pytest.mark.parametrize('lines, text, argv, notes', [
    ([f'text {i},{"ab"[i % 2]}' for i in range(30)], 'text', [], []),
    ([f'text {i},{"ab"[i < 3]}' for i in range(30)], 'text', [], ['1 of 2 classes have less than 10 examples: b (3)']),
    ([f'text {i},{i % 2 + 0.5}' for i in range(30)], 'text', [],
     ['stars has 2 classes, 0.5, 1.5; for numbers to estimate give --number']),
    ([f'text {i},{i % 2 + 0.5}' for i in range(30)], 'text', ['--number'], []),
    ([f'text {i},c{i // 10}' for i in range(510)], 'text', [],
     ['stars has 51 classes, c0, c1, c10, c11, c12, c13, c14, c15, c16, c17, ...']),
    ([f'{i * 1.5},{"ab"[i % 2]}' for i in range(30)], 'text', [],
     ['all texts of column text are numbers, which the network reads as words']),
    ([f'tt{i},{"ab"[i % 2]}' for i in range(30)], 'text', [],
     ['column text looks like ids, not like texts: tt0, tt1, tt2, ...']),
    ([f'tt{i % 9},{"ab"[i % 2]}' for i in range(30)], 'text', [], [])])
def test_what_looks_wrong_is_said(lines, text, argv, notes, tmp_path):
    table(tmp_path, 'train.csv', 'text,stars', *lines)
    (split, _, _), _ = task_of(tmp_path, *argv, text=text)
    assert list(split.notes) == notes


def test_few_validation_examples_are_drawn_at_random(tmp_path):
    reviews(tmp_path, 'abc' * 4)
    (split, valid, _), _ = task_of(tmp_path, '--n_valid', '2')
    assert len(valid.labels) == 2 and '2 validation examples of 12 cannot have all classes' in split.notes[-1]


def test_an_interrupted_run_continues_only_with_the_same_file(tmp_path, monkeypatch):
    path = write_rows(tmp_path / 'train.csv', made_up(60, 0))
    whole = run(tmp_path, path, 'text', '--desc', 'whole')
    update, n = train.update, iter(range(7))

    def interrupted(*args, **kwargs):
        if next(n, None) is None:
            raise KeyboardInterrupt
        return update(*args, **kwargs)

    monkeypatch.setattr(train, 'update', interrupted)
    argv = ['--desc', 'parts', '--checkpoint_minutes', '0']
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, path, 'text', *argv)
    monkeypatch.undo()
    other = write_rows(tmp_path / 'other.csv', made_up(60, 1))
    with pytest.raises(ValueError, match='data'):
        run(tmp_path, other, 'text', *argv, '--resume')
    same = write_rows(tmp_path / 'same.jsonl', made_up(60, 0))
    results = run(tmp_path, same, 'text', *argv, '--resume')
    assert results.losses == whole.losses and len(results.losses) == 12
    renamed = [row | dict(mood=row['mood'].upper()) for row in made_up(60, 0)]  # the same numbers of classes
    with pytest.raises(ValueError, match='other data'):
        run(tmp_path, write_rows(tmp_path / 'other.csv', renamed), 'text', *argv, '--resume')


def test_seeds_share_the_file_and_have_names_of_their_own(tmp_path):
    path = write_rows(tmp_path / 'train.csv', made_up(40, 0))
    first, second = run(tmp_path, path, 'pair', '--desc', 'mine', '--seeds', '1,2', '--test', path)
    assert first.losses != second.losses
    assert (tmp_path / 'submission' / 'mine-2' / 'mine.tsv').is_file()
    assert classifier.load(tmp_path / 'save' / 'mine-1', device='cpu').classes == ('happy', 'sad')


OPTIONS = dict(model_path=TOY, n_embd=16, n_head=4, n_layer=3, n_ctx=24, n_iter=1, n_batch=4, device='cpu', lm_coef=0)


def in_folder(folder):
    return {f'{name}_dir': folder / name for name in ('log', 'save', 'submission')}


def test_from_python_a_file_and_lists_train_the_same_network(tmp_path):
    rows = made_up(30, 0)
    path, options = write_rows(tmp_path / 'train.csv', rows), OPTIONS | in_folder(tmp_path)
    model = classifier.fit(path, text=['title', 'body'], label='mood', form='pair', desc='file', seed=0, **options)
    other = classifier.fit([(row['title'], row['body']) for row in rows], [row['mood'] for row in rows], form='pair',
                           desc='lists', seed=0, plain=False, **options)
    answers, others = (one.predict([('the cat', 'mom sad'), ('dad', 'a friend')]) for one in (model, other))
    assert [name for name, _ in answers] == [name for name, _ in others]
    assert answers[0][1] == others[0][1] and sum(answers[0][1].values()) == pytest.approx(1)


def test_from_python_choices_are_tuples_and_labels_numbers(tmp_path):
    examples = [('the cat', '', f'sat {i}', 'ran') for i in range(20)]
    model = classifier.fit(examples, np.arange(20) % 2, form='choices', label_base=0, desc='lists',
                           **OPTIONS | in_folder(tmp_path))
    [(name, probabilities)] = model.predict(examples[:1])
    assert name in probabilities and list(probabilities) == ['answer_1', 'answer_2']


def test_what_python_gives_wrongly_is_said(tmp_path, toy):
    rows = [(row['body'], row['mood']) for row in made_up(20, 0)]
    texts, labels = zip(*rows, strict=True)
    options = OPTIONS | in_folder(tmp_path)
    for arguments, more, message in (
            ((texts, labels[1:]), {}, '20 examples, 19 labels'), (([], []), {}, '0 examples'),
            ((texts[0], labels), {}, 'give a list'), (([1, 2], [0, 1]), {}, '1 is not a text'),
            (([('a', 'b'), 'c'], [0, 1]), {}, 'all as many texts'), ((texts, labels), dict(foo=3), '--foo=3'),
            ((texts, labels), dict(seeds='1-3'), 'fit trains one network')):
        with pytest.raises(ValueError, match=message):
            classifier.fit(*arguments, **options, **more)
    assert not (tmp_path / 'save').exists()
    model = classifier.fit(texts, labels, desc='mine', **options)
    for examples, message in (('a text', 'give a list'), ([''], 'example 0 has an empty text'),
                              (['fine', 3], '3 is not a text or a tuple')):
        with pytest.raises(ValueError, match=message):
            model.predict(examples)
    toy('--desc', 'stories')  # a run of another task
    stories = classifier.load(tmp_path / 'save' / 'stories')
    assert list(stories.predict([('the cat sat', 'mom sad', 'mom happy')])[0][1]) == ['0', '1']
    with pytest.raises(ValueError, match='example 0 has 2 texts, not 3 as the examples of stories'):
        stories.predict([('the cat sat', 'mom sad')])
    frame = pd.DataFrame([('the cat sat', 'mom sad', 'mom happy')] * 2)
    assert len(stories.predict(pd.Series([*frame.itertuples(index=False)]))) == 2
    with pytest.raises(ValueError, match='are of type DataFrame'):  # no columns are known by name
        stories.predict(frame)


def test_a_dataframe_is_read_by_the_names_of_its_columns(tmp_path):
    rows = made_up(30, 0)
    frame, options = pd.DataFrame(rows), OPTIONS | in_folder(tmp_path)
    path = write_rows(tmp_path / 'train.csv', rows)
    model = classifier.fit(path, text='title,body', label='mood', desc='file', **options)
    others = [classifier.fit(frame, text=['title', 'body'], label='mood', desc='frame', **options),
              classifier.fit(frame[['title', 'body']], frame['mood'], desc='parts', **options)]
    expected = model.predict([(row['title'], row['body']) for row in rows])
    for other in (model, *others):
        assert other.classes == ('happy', 'sad')
        assert other.predict(frame) == other.predict(frame[['body', 'points', 'title']]) == expected
        assert other.predict(frame.iloc[3]) == model.predict([(rows[3]['title'], rows[3]['body'])])
        with pytest.raises(ValueError, match='no column title: it has body, mood'):
            other.predict(frame[['body', 'mood']])
    series = classifier.fit(frame['body'], frame['mood'].astype('category'), desc='series', **options)
    assert series.predict(frame['body']) == series.predict(frame) == series.predict(frame['body'].to_numpy())
    two = pd.DataFrame([('the cat', 'a, b', 'sat', 'ran', i % 2) for i in range(20)], columns=[*'cd', 'x, y', 'z', 'r'])
    choices = classifier.fit(two, text='c,,"x, y",z', label='r', form='choices', label_base=0, desc='two', **options)
    assert choices.classes == ('x, y', 'z')
    assert choices.predict(two) == choices.predict([('the cat', '', 'sat', 'ran')] * 20)
    assert model.predict(pd.Series({0: 'x', 'title': rows[3]['title'], 'body': rows[3]['body']})) == expected[3:4]
    shouted = frame.rename(columns={'title': 'TITLE', 'body': ' body'})[['TITLE', ' body']]
    assert model.predict(shouted.iloc[3]) == expected[3:4]  # one example, not two


def test_a_cell_of_a_dataframe_is_what_it_is_in_a_file(tmp_path):
    """A missing text is empty, and a number is its text."""
    frame = pd.DataFrame(made_up(20, 0))
    frame.loc[7, 'title'], frame.loc[8, 'title'], frame['page'] = None, pd.NA, np.arange(20)
    frame.to_csv(tmp_path / 'a.csv', index=False)
    how = dict(text='title,body,page', label='mood', **OPTIONS | in_folder(tmp_path))
    one = classifier.fit(str(tmp_path / 'a.csv'), desc='file', **how)
    other = classifier.fit(frame, desc='frame', **how)
    assert one.predict(frame) == other.predict(frame) == one.predict(pd.read_csv(tmp_path / 'a.csv'))
    frame['page'] = [datetime.date(2020, 1, 1)] * 20
    with pytest.raises(ValueError, match='example 0: .*2020.* not all texts or numbers'):
        one.predict(frame)
    with pytest.raises(ValueError, match='valid is of type DataFrame: give the path of a file'):
        classifier.fit(frame, valid=frame, desc='never', **how)


def test_the_labels_are_no_text(tmp_path):
    frame = pd.DataFrame(made_up(20, 0))[['title', 'mood']]
    with pytest.raises(ValueError, match='column mood holds the labels: text= names'):
        classifier.fit(frame, frame['mood'], desc='never', **OPTIONS | in_folder(tmp_path))
    model = classifier.fit(frame['title'].rename('label'), frame['mood'].tolist(), desc='one',
                           **OPTIONS | in_folder(tmp_path))
    assert model.columns() == ['label'] and model.classes == ('happy', 'sad')


def test_a_training_file_may_be_sorted_by_class(tmp_path, monkeypatch):
    """The first rows of the training examples are scored after each epoch, and TF-IDF takes MAX_ROWS of them."""
    monkeypatch.setattr(baseline, 'MAX_ROWS', 60)
    reviews(tmp_path, 'a' * 80 + 'b' * 80)
    (train_split, valid, _), task = task_of(tmp_path, f'--valid={tmp_path}/train.csv')
    assert 20 < sum(train_split.labels[:60]) < 40 and sorted(train_split.texts[0]) == sorted(valid.texts[0])
    assert 0 <= baseline.tfidf_score(task, train_split, valid) <= 100


@pytest.mark.parametrize('labels, later, names, expected', [
    ([1., 1.5], [1., 1.5], ('1.0', '1.5'), [0, 1]), (['true', 'false'], [True, False], ('false', 'true'), [1, 0]),
    ([1., 2.], [1, 2], ('1', '2'), [0, 1])])
def test_classes_of_a_csv_are_found_in_other_formats(labels, later, names, expected, tmp_path):
    texts = [f'text {i}' for i in range(20)]
    pd.DataFrame(dict(text=texts, stars=labels * 10)).to_csv(tmp_path / 'train.csv', index=False)
    pd.DataFrame(dict(text=texts, stars=later * 10)).to_json(tmp_path / 'a.jsonl', orient='records', lines=True)
    (_, _, test), task = task_of(tmp_path, f'--test={tmp_path}/a.jsonl')
    assert task.classes == names and test.labels == expected * 10


def test_numbers_of_a_database_are_numbers(tmp_path):
    pyarrow, parquet = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    labels = [Decimal('1.50'), Decimal('2.00')] * 10
    table_of = pyarrow.table(dict(text=[f'text {i}' for i in range(20)], stars=labels))
    parquet.write_table(table_of, tmp_path / 'a.parquet')
    (train_split, *_), _ = task_of(tmp_path, '--number', train_file='a.parquet')
    assert {*train_split.labels} == {1.5, 2.}
    assert task_of(tmp_path, train_file='a.parquet')[1].classes == ('1.5', '2')


def test_a_logger_may_stand_for_stderr(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', SimpleNamespace(write=len, flush=list))
    path = write_rows(tmp_path / 'train.csv', made_up(20, 0))
    model = classifier.fit(path, text='body', label='mood', desc='one', **OPTIONS | in_folder(tmp_path))
    assert len(model.predict(['the cat'])) == 1


@pytest.mark.parametrize('names', [['How do you "feel",\nreally?', '"q"'], [0, 1], ['a, b', ' c']])
def test_columns_may_have_any_names(names, tmp_path):
    frame = pd.DataFrame({names[0]: ['the cat', 'mom sad'] * 10, 'between': 1, names[1]: [*'ab'] * 10})
    model = classifier.fit(frame, text=names[:1], label=names[1], desc='mine', **OPTIONS | in_folder(tmp_path))
    assert model.classes == ('a', 'b') and model.columns() == [str(names[0])]
    assert model.predict(frame)[:2] == model.predict(['the cat', 'mom sad'])
    if names == [0, 1]:  # the labels of the column's rows are the numbers of columns too
        assert model.predict(frame.loc[3]) == model.predict(['mom sad'])
        with pytest.raises(ValueError, match='the Series may be a row or a column: give a DataFrame or a list'):
            model.predict(frame[0])


@pytest.mark.parametrize('labels, classes', [
    ([0, 1], (0, 1)), (np.array([10, 9]), (10, 9)), (np.array([0., 2.5]), (0., 2.5)), ([True, False], (False, True)),
    (np.array([True, False]), (False, True)), (torch.tensor([3, -1]), (-1, 3)), (['b', 'a'], ('a', 'b')),
    (pd.Series([1, 2], dtype='Int64'), (1, 2)), ([torch.tensor(1), np.int8(2)], (1, 2)), ([0, 'a'], ('0', 'a')),
    (['1.0', '2.0'], ('1.0', '2.0')), (pd.Series(['a', 'b'], name='text_1'), ('a', 'b')),
    (pd.Series([False, True], dtype='boolean'), (False, True)), (np.array(['b', 'a'], object), ('a', 'b'))])
def test_classes_have_the_type_of_the_labels(labels, classes, tmp_path):
    texts = [f'{word} of' for word in WORDS[:17]] + ['the end']
    labels = [labels[i % 2] for i in range(18)] if not isinstance(labels, pd.Series) else pd.concat([labels] * 9)
    model = classifier.fit(texts, labels, desc='mine', **OPTIONS | in_folder(tmp_path))
    for one in (model, classifier.load(tmp_path / 'save' / 'mine', device='cpu')):
        [(found, probabilities)] = one.predict(texts[:1])
        assert one.classes == tuple(probabilities) == classes and found in classes
        assert [type(name) for name in (*one.classes, found)] == [type(classes[0])] * 3


@pytest.mark.parametrize('labels, classes, later', [
    (['1.0', '2'], ('1', '2'), ['2.0', '1']), (['2.0', '2.10'], ('2.0', '2.10'), ['2.0', '2.0'])])
def test_whole_numbers_have_one_spelling_and_versions_their_own(labels, classes, later, tmp_path):
    reviews(tmp_path, labels * 10)
    reviews(tmp_path, later * 10, 'later.csv')
    (training, valid, _), task = task_of(tmp_path, '--valid', str(tmp_path / 'later.csv'))
    numbered = sorted((int(text.split()[-1]), label) for text, label in zip(training.texts[0], training.labels,
                                                                            strict=True))
    assert task.classes == classes and [label for _, label in numbered] == [0, 1] * 10
    assert valid.labels == ([1, 0] if '1' in classes else [0, 0]) * 10


@pytest.mark.parametrize('examples', [
    'a text', b'bytes', {'text': ['a', 'b']}, {'a', 'b'}, 3, None, np.array('a'), torch.tensor(3), ['fine', None],
    ['fine', float('nan')], ['fine', {'text': 'b'}], ['fine', ['b', None]], [b'a'], ['fine', 'half \ud800'],
    np.array([['a'], ['b']]), ['fine', pd.NA], pd.DataFrame({'other': ['a']}),
    pd.DataFrame({'text_1': ['fine', None]})])
def test_what_is_no_list_of_examples_is_refused(examples, tmp_path, fitted):
    with pytest.raises(ValueError, match='of type|example 1|no column text_1'):
        fitted.predict(examples)
    with pytest.raises(ValueError, match='of type|example 1|2 labels'):
        classifier.fit(examples, [0, 1], desc='never', **OPTIONS | in_folder(tmp_path))
    assert not (tmp_path / 'save').exists()


@pytest.mark.parametrize('labels, message', [
    (['a', None], 'label 1 is missing'), (['a', ' '], 'label 1 is missing'), ([0., np.nan], 'label 1 is missing'),
    (pd.Series([1, pd.NA], dtype='Int64'), 'label 1 is missing'), ([pd.NaT, 'a'], 'label 0 is missing'),
    ([1, datetime.date(2020, 1, 1)], 'label 1: 2020-01-01 .* of type date'), (np.eye(2), 'label 0: .* of type ndarray'),
    ([1, {2}], 'label 1: .* of type set'), ([1, 2j], 'label 1: .* of type complex'), ({0: 'a', 1: 'b'}, 'of type dict'),
    (torch.tensor([[0], [1]]), 'label 0: .* of type Tensor'), ('ab', 'labels are of type str'),
    (None, 'of type NoneType'),
    (pd.DataFrame({'a': [1, 2]}), 'labels are of type DataFrame'), (7, 'labels are of type int'),
    ([0, 0], 'examples: all 2 examples have the same label, 0'), ([1, 2], 'examples: no two examples have the same')])
def test_labels_that_are_missing_or_something_else(labels, message, tmp_path):
    """No message names a file, as there is none."""
    with pytest.raises(ValueError, match=message) as error:
        classifier.fit(['some text', 'more'], labels, desc='never', **OPTIONS | in_folder(tmp_path))
    assert 'line' not in str(error.value) and 'jsonl' not in str(error.value) and not (tmp_path / 'save').exists()


@pytest.fixture(scope='module')
def fitted(tmp_path_factory):
    """A classifier of one text."""
    texts = [f'{word} of' for word in WORDS[:18]]
    return classifier.fit(texts, [0, 1] * 9, desc='mine', **OPTIONS | in_folder(tmp_path_factory.mktemp('fitted')))


@pytest.mark.parametrize('labels, name', [('aaab', 'b'), ('abbb', 'a'), ('aabb', 'b')])
def test_f1_is_that_of_the_rarer_class_which_is_named(labels, name, tmp_path, capsys):
    """Of two equal classes, that of the last."""
    rows = [dict(body=f'{WORDS[i % 17]} {label}', mood=label) for i, label in enumerate(labels * 12)]
    path = write_rows(tmp_path / 'train.csv', rows)
    results = run(tmp_path, path, 'text', '--text', 'body', '--valid', path, '--test', path, '--metric', 'f1')
    out = capsys.readouterr().out
    assert f'f1 is that of the class {name}\nepoch updates tr_cost va_cost tr_f1 va_f1' in out
    predictions = [line.split('\t')[1] for line in (tmp_path / 'submission' / 'own.tsv').read_text().splitlines()[1:]]
    expected = f1_score([*labels * 12], predictions, pos_label=name, zero_division=0.)
    assert results.metric == 'f1' and results.test_score == pytest.approx(100 * expected)
    share = (labels * 12).count(name) / 48
    assert results.valid_trivial == pytest.approx(100 * 2 * share / (1 + share))  # all answers are this class
    again = train.main(train.parse_args(['--predict', path, '--desc', 'own', '--device', 'cpu', *folders(tmp_path)]))
    assert again.scores['f1'] == pytest.approx(100 * expected) and f'f1 of {name} {100 * expected:.2f}' in (
        capsys.readouterr().out)


@pytest.mark.parametrize('labels, argv, expected', [
    ('abab', [], ('accuracy', 'f1')), ('abab', ['matthews'], ('matthews', 'accuracy', 'f1')),
    ('abab', ['f1'], ('f1', 'accuracy')), ('abcabc', [], ('accuracy',)),
    ('abcabc', ['matthews'], ('matthews', 'accuracy')),
    ('abcabc', ['f1'], '--metric f1 is for two classes: .*train.csv has 3'),
    ('abab', ['pearson'], '--metric pearson: where the label is a class, scores are accuracy, f1, matthews'),
    ('1234', ['spearman', '--number'], ('spearman', 'pearson')),
    ('1234', ['accuracy', '--number'], 'are pearson, spearman'),
    ('abab', ['auc'], 'invalid choice')])
def test_the_metric_can_be_chosen(labels, argv, expected, tmp_path):
    reviews(tmp_path, labels)
    argv = ['--metric', *argv, '--n_valid', '1'] if argv else ['--n_valid', '1']
    if isinstance(expected, tuple):
        assert task_of(tmp_path, *argv)[1].metrics == expected
        assert {*own.METRICS['class'], *own.METRICS['number']} == {*METRICS}
    else:
        with pytest.raises(ValueError, match=expected):
            task_of(tmp_path, *argv)


@pytest.mark.parametrize('training, later, message', [
    (['0', '1e300', '2e300'], '0', 'from 0 to 2e.300, whose variance cannot be computed'),
    (['-1e308', '1e308', '1.7e308'], '0', 'variance cannot be'), (['0', '1e-200', '0'], '0', 'variance cannot be'),
    (['0', '1e200', '3'], '0', 'variance cannot'), (['0', '1', '2'], '1e200', 'number 1e.200 is too far from'),
    (['0', '1', '2'], '1.7e308', 'too far'), (['0', '1e99', '3e99'], '-1e99', None),
    (['1e-99', '2e-99', '0'], '0', None)])
@pytest.mark.parametrize('kind', ['valid', 'test'])
def test_numbers_with_which_nothing_can_be_computed_are_refused_before_training(kind, training, later, message,
                                                                               tmp_path):
    reviews(tmp_path, training * 10)
    reviews(tmp_path, [later, *training], 'later.csv')
    args = train.parse_args(['--dataset', 'own', '--train', str(tmp_path / 'train.csv'), '--text', 'text', '--label',
                             'stars', '--number', f'--{kind}', str(tmp_path / 'later.csv'), *TINY])
    if message is None:
        _, data = train.load_data(args)
        assert np.abs(data.train.labels).max() < 3
    else:
        with pytest.raises(ValueError, match=message):
            train.load_data(args)


def test_a_blank_row_does_not_hide_such_a_number(tmp_path):
    reviews(tmp_path, ['0', '1', '2'] * 10)
    table(tmp_path, 'later.csv', 'text,stars', 'the cat,1', ',', 'sad,1e300')
    args = train.parse_args(['--dataset', 'own', '--train', str(tmp_path / 'train.csv'), '--text', 'text', '--label',
                             'stars', '--number', '--test', str(tmp_path / 'later.csv'), *TINY])
    with pytest.raises(ValueError, match='number 1e.300 is too far'):
        train.load_data(args)


def test_longer_texts_than_those_of_training_are_read_whole(tmp_path, capsys):
    """The positions that training did not need are those of the weights. Without weights there are none."""
    path, options = write_rows(tmp_path / 'train.csv', made_up(30, 0)), OPTIONS | in_folder(tmp_path)
    fit = functools.partial(classifier.fit, path, text='body', label='mood', **options)
    model, scratch = fit(desc='loaded'), fit(desc='scratch', n_transfer=-1)
    trained_with = json.loads((tmp_path / 'save' / 'loaded' / 'results.json').read_text())['n_ctx']
    assert trained_with < 12 and model.trained.config['n_ctx'] == 24 and scratch.trained.config['n_ctx'] == trained_with
    weights = LMModel(model.trained.options, vocab=124 + 24, n_ctx=24)
    load_openai_pretrained_model(weights, n_ctx=24, n_transfer=3, path=str(TOY))
    n = 24 - trained_with
    assert torch.equal(model.trained.model.transformer.embed.weight[-n:], weights.transformer.embed.weight[-n:])
    capsys.readouterr()
    long, longer = ('the cat sat ' * 2 + 'mom happy', 'the cat sat ' * 2 + 'mom sad')
    assert model.predict([long]) != model.predict([longer]) and 'are cut' not in capsys.readouterr().out
    assert scratch.predict([long]) == scratch.predict([longer]) and 'are cut' in capsys.readouterr().out
    short = [('mom happy',), ('the cat sad',)]
    together = model.predict([*short, (long,)])
    for (name, alone), (other, beside) in zip(model.predict(short), together, strict=False):
        assert name == other and alone == pytest.approx(beside, abs=1e-6)


def test_text_for_which_the_vocabulary_was_not_made_is_named(tmp_path, capsys):
    rows = [dict(text=f'今天 天气 {"很好" if i % 2 else "不好"}', label=i % 2) for i in range(20)]
    path = write_rows(tmp_path / 'train.csv', rows)
    train.main(train.parse_args(['--dataset', 'own', '--train', path, '--text', 'text', '--label', 'label', *TINY,
                                 *folders(tmp_path)]))
    assert 'warning: 100.0 % of the tokens are not in the vocabulary' in capsys.readouterr().out
    train.main(train.parse_args(['--desc', 'own', '--predict', path, '--device', 'cpu', *folders(tmp_path)]))
    assert 'warning: 100.0 % of the tokens' in capsys.readouterr().out
    vocabulary = {'<unk>': 0, 'a': 1, 'b</w>': 2, 'c</w>': 3}
    for ids, notes in (([1, 2, 3] * 9, []), ([0] + [2, 3] * 50, []), ([0, 0] + [2, 3] * 50, ['2.0 % of the tokens']),
                       ([1, 1, 2], ['a word takes 3.0 tokens']), ([1, 2], []), ([], []), ([0, 1], ['50.0 %'])):
        found = unfamiliar(np.array(ids, np.uint16), vocabulary)
        assert len(found) == len(notes) and all(map(str.startswith, found, notes))
