"""Files of the tasks in all their layouts, made of invented sentences, give the examples or one line of error."""

import itertools
import json
import math
import os
import random
import re
import tracemalloc
from argparse import Namespace

import pytest
from toy import as_csv, without_rights

from common.trained import open_run
from tasks import TASKS
from tasks.base import NO_LABEL
from tasks.readers import find_columns, read_rows, table_rows

TRAPS = ['"Ana left.', 'Bo said "no.', 'n/a', 'NA', 'null', 'None', 'nan', 'He,she; they',
         'a\u2028b\x85c\x0cd\x1ce', "x''\\t"]
RTE = [{'sentence1': text, 'sentence2': f'{text} Twice.', 'label': i % 2} for i, text in enumerate(TRAPS)]
TWO_WAY = ('entailment', 'not_entailment')
TWO = RTE[:2]


def options(folder, **more):
    return Namespace(data_dir=str(folder), n_valid=374, seed=42, **more)


def load(task, folder):
    return TASKS[task].load(options(folder))


def read(task, path):
    return TASKS[task].read(str(path), options('.'))


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def tsv(*rows, end='\n'):
    return ''.join('\t'.join(map(str, row)) + end for row in rows)


def jsonl(rows):
    return ''.join(json.dumps(row) + '\n' for row in rows)


def import_pyarrow():
    return pytest.importorskip('pyarrow', reason='this pyarrow refuses this numpy', exc_type=ImportError)


def as_parquet(path, rows):
    pyarrow = import_pyarrow()
    from pyarrow import parquet
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def rte_tsv(rows, names=TWO_WAY):
    return tsv(['index', 'sentence1', 'sentence2', 'label'],
               *([i, *[*row.values()][:2], names[row['label']]] for i, row in enumerate(rows)))


def expected(rows):
    return ([row['sentence1'] for row in rows], [row['sentence2'] for row in rows]), [row['label'] for row in rows]


def one_line(error, *words):
    message = str(error.value)
    assert '\n' not in message and all(word in message for word in words), message


@pytest.mark.parametrize('change', [
    lambda text: text, lambda text: '\ufeff' + text.replace('\n', '\r\n'), lambda text: text[:-1],
    lambda text: text + '\n', lambda text: text + '\r\n \n', lambda text: text.replace('\t', ' \t '),
    lambda text: text.replace('sentence1', 'Sentence1')])
def test_a_tsv_file_has_no_quotes_and_only_line_feeds_end_its_rows(tmp_path, change):
    split = read('rte', put(tmp_path / 'train.tsv', change(rte_tsv(RTE))))
    assert split == (*expected(RTE), {}, ())


def test_a_table_of_crlf_lines_has_no_carriage_return_at_their_ends(tmp_path):
    path = put(tmp_path / 'x.tsv', 'a\tb\r\n"c\rd\te\r\n')
    assert list(table_rows(path)) == [(1, ['a', 'b']), (2, ['"c\rd', 'e'])]


def test_all_formats_give_the_same(tmp_path):
    csv = as_csv([list(RTE[0])] + [list(row.values()) for row in RTE])
    records = [{'idx': i, 'label': row['label'], **row} for i, row in enumerate(RTE)]
    paths = [put(tmp_path / 'a.tsv', rte_tsv(RTE)), put(tmp_path / 'a.txt', rte_tsv(RTE)), put(tmp_path / 'a.csv', csv),
             put(tmp_path / 'b.csv', '\ufeff' + as_csv([['label', 'sentence1', 'sentence2']] + [  # transformers' header
                 [row['label'], row['sentence1'], row['sentence2']] for row in RTE], ';', '\r\n')),
             put(tmp_path / 'a.jsonl', jsonl(records)), put(tmp_path / 'b.jsonl', '\n'.join(
                 json.dumps(row, ensure_ascii=False) for row in records)),
             put(tmp_path / 'list.json', json.dumps(records, indent=1)), as_parquet(tmp_path / 'a.parquet', records)]
    for path in paths:
        assert read('rte', path) == (*expected(RTE), {}, ()), path


def test_json_and_parquet_numbers_nulls_and_truth_values(tmp_path):
    rows = [{'a': None, 'b': 1, 'c': True}, {'a': ' x ', 'b': 2.5, 'c': False}, {'a': 'NaN', 'b': None, 'c': None}]
    for path in (put(tmp_path / 'x.jsonl', jsonl(rows)), as_parquet(tmp_path / 'x.parquet', rows)):
        assert [fields for _, fields in read_rows(path, ('a', ('z', 'B')), 'c')] == [
            ['', 1, 'True'], ['x', 2.5, 'False'], ['NaN', '', '']]
        assert [fields for _, fields in read_rows(path, ['a'], 'label')] == [['', None], ['x', None], ['NaN', None]]
    rows = [{'premise': 'a', 'hypothesis': 'b', 'label': label} for label in (1., float('nan'), 0.)]
    with pytest.raises(ValueError, match='row 2: the label is missing'):  # pandas' gap in a column of numbers
        read('mnli', as_parquet(tmp_path / 'y.parquet', rows))
    assert [place for place, _ in read_rows(tmp_path / 'x.jsonl', ['a'])] == ['line 1', 'line 2', 'line 3']


@pytest.mark.parametrize('name, data, words', [
    ('x.tsv', 'sentence1\tlabel\na\t0\n', 'line 1: no column sentence2 or hypothesis: it'),
    ('x.tsv', rte_tsv(TWO) + '9\tone\ttwo\n', 'line 4: 3 columns, not 4'),
    ('x.tsv', rte_tsv(TWO) + '9\to\tne\ttwo\tentailment\n', 'line 4: 5 columns, not 4: is a'),
    ('x.tsv', rte_tsv(TWO, ['entailment', 'yes']), "line 3: label 'yes' is not one of entailment, 0, not_entailment"),
    ('x.tsv', rte_tsv(TWO, ['entailment', '']), 'line 3: the label is missing, but other examples have one'),
    ('x.tsv', rte_tsv([]), 'has no examples'), ('x.tsv', '', 'line 1: no column sentence1 or premise, sentence2'),
    ('x.tsv', rte_tsv(TWO).encode() + b'9\t\xff\tb\tentailment\n', 'line 4: byte 0xff is not UTF-8'),
    ('x.tsv', b'\xef\xbb\xbf\xe9', 'line 1: byte 0xe9 is not UTF-8'),
    ('x.tsv', rte_tsv(TWO).encode('utf-16'), 'UTF-16: save it as UTF-8'), ('x.tsv', b'\x1f\x8b\x08', 'gunzip it'),
    ('x.csv', 'sentence1,sentence2,label\na,"b\nc",0\n"d,e,1\n', 'line 4: unexpected end of data'),
    ('x.csv', 'sentence1,sentence2,label\na,"b",0\na, b,c,1\n', 'line 3: 4 columns, not 3: is a delimiter'),
    ('x.csv', 'sentence1,sentence2,label\n"a "b" c",d,1\n', 'inside quotes a quote is written twice'),
    ('x.csv', '', 'line 1: no column sentence1 or premise, '), ('x.csv', '', 'it has none'),
    ('x.jsonl', jsonl(TWO) + '{"sentence1": "a"', 'line 3: not json'),
    ('x.jsonl', jsonl(TWO) + '3', 'line 3: not a json'),
    ('x.jsonl', jsonl(TWO) + '{"sentence1": "a"}', 'line 3: the label is missing, but other examples have one'),
    ('x.jsonl', '{"text": "a", "label": 0}', 'sentence2 or hypothesis: it has text, label'),
    ('x.jsonl', '{}', 'sentence2 or hypothesis: it has none'),
    ('x.jsonl', '{"label": 0, "sentence1": "a", "label": 1}', "line 1: not json: the key 'label' comes twice"),
    ('x.jsonl', jsonl([dict(TWO[0], sentence2={'a': 1})]), "line 1: sentence2 is \"{'a': 1}\", not a text or a number"),
    ('x.jsonl', jsonl([dict(TWO[0], sentence2=['a'])]), "line 1: sentence2 is \"['a']\", not a text"),
    ('x.jsonl', '{"sentence1": "\\ud800", "sentence2": "a", "label": 0}', 'line 1: sentence1 is'),
    ('x.jsonl', '[' * 100_000, 'line 1: not json'), ('x.json', '[1]', 'row 1: not a json object'),
    ('x.json', '{"sentence1": {"0": "a"}, "sentence2": {"0": "b"}}', 'line 1: sentence1 is'),
    ('x.jsonl', '', 'has no examples'), ('x.parquet', b'PAR1 no', 'no parquet file'),
    ('x.parquet', b'', 'no parquet file')])
def test_what_is_wrong_is_named_by_file_and_place(tmp_path, name, data, words):
    if name == 'x.parquet':
        import_pyarrow()
    path = put(tmp_path / name, data)
    with pytest.raises(ValueError) as error:
        read('rte', path)
    one_line(error, str(path), words)


def test_wrong_fields_of_parquet_are_named(tmp_path):
    path = as_parquet(tmp_path / 'x.parquet', [dict(TWO[0], label=0), dict(TWO[0], label=7)])
    with pytest.raises(ValueError) as error:
        read('rte', path)
    one_line(error, f"{path}, row 2: label '7' is not one of")
    with pytest.raises(ValueError) as error:
        read('cola', path)
    one_line(error, f'{path}, schema: no column sentence: it has sentence1, sentence2, label')


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'pyarrow', None)
    with pytest.raises(ValueError) as error:
        read('rte', put(tmp_path / 'x.parquet', b''))
    one_line(error, 'x.parquet', 'pip install pyarrow')


def test_a_tsv_file_is_read_in_little_memory(tmp_path):
    wide = tsv(['sentence1', 'parse', 'sentence2', 'label'], *([str(i), 'x' * 2000, 'b', 0] for i in range(3000)))
    path = put(tmp_path / 'wide.tsv', wide)  # 6 MB
    tracemalloc.start()
    n = sum(1 for _ in read_rows(path, ('sentence1', 'sentence2'), 'label'))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 3000 and peak < 300_000


def test_a_column_is_found_by_the_first_name_that_is_there():
    assert find_columns('x', 'line 1', ['Label1', ' GOLD_LABEL', 'label'], [('gold_label', 'label'), 'label1']) == [
        1, 0, None]
    with pytest.raises(ValueError, match='x, line 1: no column a or b, c: it has d'):
        find_columns('x', 'line 1', ['d'], [('a', 'b'), 'd', 'c'])


@pytest.mark.parametrize('place', ['', 'RTE', 'rte', 'glue_data/RTE', 'glue/rte', 'glue/RTE'])
def test_the_folder_of_a_task_is_found(tmp_path, place):
    for name, rows in (('train', RTE), ('dev', TWO)):
        put(tmp_path / place / f'{name}.tsv', rte_tsv(rows))
    train, valid, test = load('rte', tmp_path)
    assert train == (*expected(RTE), {}, ()) and valid == (*expected(TWO), {}, ()) and test is None


def test_a_missing_file_is_an_error_with_the_names_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load('cola', tmp_path)
    one_line(error, f'{tmp_path} has no training file of CoLA: looked for train (.tsv, ', '.parquet)', 'glue_data/CoLA')
    with pytest.raises(FileNotFoundError, match='absent has no training file of CoLA'):
        load('cola', tmp_path / 'absent')
    put(tmp_path / 'mnli' / 'train.jsonl', '')
    put(tmp_path / 'rte' / 'train.tsv', rte_tsv(RTE))
    with pytest.raises(FileNotFoundError) as error:
        load('rte', tmp_path)
    one_line(error, 'rte has no validation file of RTE: looked for dev, validation')
    with pytest.raises(FileNotFoundError) as error:
        load('race', tmp_path)
    one_line(error, 'no training file of RACE: looked for train/middle/1, ')
    with pytest.raises(ValueError, match='train.jsonl has no examples'):
        load('mnli', tmp_path)


def test_shards_are_read_in_order_and_none_may_be_missing(tmp_path):
    for i, row in enumerate(RTE):
        as_parquet(tmp_path / 'rte' / f'train-{i:05d}-of-{len(RTE):05d}.parquet', [row])
    as_parquet(tmp_path / 'rte' / 'validation-00000-of-00001.parquet', TWO)
    as_parquet(tmp_path / 'rte' / 'test-00000-of-00001.parquet', [dict(row, label=-1) for row in TWO])
    train, valid, test = load('rte', tmp_path)
    assert train == (*expected(RTE), {}, ()) and valid == (*expected(TWO), {}, ())
    assert test == (expected(TWO)[0], None, {}, ())
    (tmp_path / 'rte' / 'train-00003-of-00010.parquet').unlink()
    with pytest.raises(ValueError) as error:
        load('rte', tmp_path)
    one_line(error, f'{tmp_path}/rte: 9 of the 10 files train-*-of-*')


@pytest.mark.parametrize('task, columns, numbers, names', [
    ('rte', ('sentence1', 'sentence2'), [0, 1], ['entailment', 'not_entailment']),
    ('qnli', ('question', 'sentence'), [0, 1], ['entailment', 'not_entailment']),
    ('wnli', ('sentence1', 'sentence2'), [0, 1], ['not_entailment', 'entailment']),
    ('snli', ('premise', 'hypothesis'), [0, 1, 2], ['entailment', 'neutral', 'contradiction']),
    ('mnli', ('premise', 'hypothesis'), [0, 1, 2], ['entailment', 'neutral', 'contradiction']),
    ('mrpc', ('sentence1', 'sentence2'), [0, 1], ['not_equivalent', 'equivalent']),
    ('qqp', ('question1', 'question2'), [0, 1], ['not_duplicate', 'duplicate']),
    ('cola', ('sentence',), [0, 1], ['unacceptable', 'acceptable']),
    ('sst2', ('sentence',), [0, 1], ['negative', 'positive'])])
def test_numbers_of_hugging_face_and_names_are_the_same_classes(tmp_path, task, columns, numbers, names):
    for labels in (numbers, [float(n) for n in numbers], names):
        rows = [{**{name: f'{name} {i}.' for name in columns}, 'label': label, 'idx': i}
                for i, label in enumerate(labels)]
        split = read(task, put(tmp_path / 'x.jsonl', jsonl(reversed(rows))))
        assert [TASKS[task].classes[label] for label in split.labels] == names[::-1]
        assert split.texts == tuple([f'{name} {i}.' for i in reversed(range(len(names)))] for name in columns)


def test_scitail_has_its_own_names_and_no_numbers(tmp_path):
    rows = [['Ice melts.', 'Ice can melt.', 'entails'], ['Sand is "dry.', 'Sand flies.', 'neutral']]
    texts = ([rows[0][0], rows[1][0]], [rows[0][1], rows[1][1]])
    objects = [{'sentence1': a, 'sentence2': b, 'gold_label': c.replace('entails', 'entailment')} for a, b, c in rows]
    folder = tmp_path / 'SciTailV1.1'
    for kind in ('train', 'dev', 'test'):
        put(folder / 'snli_format' / f'scitail_1.0_{kind}.txt', jsonl(objects))
    assert [split[:2] for split in load('scitail', tmp_path)] == [(texts, [0, 1])] * 3
    for kind in ('train', 'dev', 'test'):
        put(folder / 'tsv_format' / f'scitail_1.0_{kind}.tsv', tsv(*rows))
        put(folder / 'dgem_format' / f'scitail_1.0_structure_{kind}.tsv', tsv(*([*row, 'a<>b'] for row in rows)))
    assert [split[:2] for split in load('scitail', tmp_path)] == [(texts, [0, 1])] * 3
    assert read('scitail', folder / 'dgem_format' / 'scitail_1.0_structure_dev.tsv')[:2] == (texts, [0, 1])
    for wrong, words in ((['a', 'b', '0'], "line 3: label '0' is not one of entails, entailment, neutral"),
                         (['a', 'b'], 'line 3: 2 columns, not 3 or 4')):
        with pytest.raises(ValueError) as error:
            read('scitail', put(tmp_path / 'x.tsv', tsv(*rows, wrong)))
        one_line(error, words)


def test_cola_has_a_header_in_its_test_file_only(tmp_path):
    rows = [['ab1', 1, '', '"The cat sat.'], ['ab1', 0, '*', 'Cat the "sat.'], ['cd2', 1, '', 'n/a']]
    put(tmp_path / 'CoLA' / 'train.tsv', tsv(*rows))
    put(tmp_path / 'CoLA' / 'dev.tsv', tsv(*rows[1:])[:-1])
    put(tmp_path / 'CoLA' / 'test.tsv', tsv(['index', 'sentence'], [0, 'Who "sat?']))
    texts = [row[3] for row in rows]
    assert load('cola', tmp_path) == ((([*texts],), [1, 0, 1], {}, ()), ((texts[1:],), [0, 1], {}, ()),
                                      ((['Who "sat?'],), None, {}, ()))
    with pytest.raises(ValueError) as error:
        read('cola', put(tmp_path / 'x.tsv', tsv(*rows, ['ab1', 1, 'A short row.'])))
    one_line(error, 'x.tsv, line 4: 3 columns, not 4')


def qqp_tsv(n):
    return tsv(['id', 'qid1', 'qid2', 'question1', 'question2', 'is_duplicate'],
               *([i, i, i, f'Why "{i}?', f'How {i}?', i % 2] for i in range(n)))


def test_broken_rows_of_qqp_are_not_trained_on_but_keep_their_place_among_predictions(tmp_path):
    lines = qqp_tsv(6).splitlines(keepends=True)
    lines[3:3] = ['7\t7\t7\tWhy is\n', 'it broken?\tHow?\t1\n']
    for kind in ('train', 'dev', 'test'):
        path = put(tmp_path / f'{kind}.tsv', ''.join(lines))
    *labelled, test = load('qqp', tmp_path)
    for kind, split in zip(('train', 'dev'), labelled, strict=True):
        assert split.texts[0] == [f'Why "{i}?' for i in range(6)] and split.labels == [0, 1, 0, 1, 0, 1]
        assert split.notes == (f'{tmp_path}/{kind}.tsv: 2 rows with another number of columns than the header are left '
                               'out: lines 4, 5',)
    assert test == read('qqp', path) and test.labels == [0, 1, NO_LABEL, NO_LABEL, 0, 1, 0, 1]
    assert test.texts[0] == ['Why "0?', 'Why "1?', '', '', *(f'Why "{i}?' for i in range(2, 6))]
    assert 'are predicted but not scored: lines 4, 5' in test.notes[0]
    unlabelled = tsv(['id', 'question1', 'question2'], [0, 'Why?', 'How?'], [1, 'Why'])
    with pytest.raises(ValueError, match='test.tsv, line 3: 2 columns'):  # a row less would shift predictions
        read('qqp', put(tmp_path / 'test.tsv', unlabelled))


@pytest.mark.parametrize('name', ['jsonl', 'txt', 'hf', 'hf with floats'])
def test_examples_of_snli_without_a_majority_are_not_trained_on_but_predicted(tmp_path, name):
    labels = ['entailment', '-', 'neutral', 'contradiction', '-']
    for kind in ('train', 'dev', 'test'):
        rows = [{'gold_label': label, 'sentence1': f'{kind} {i}.', 'sentence2': '"b'} for i, label in enumerate(labels)]
        if 'hf' in name:
            number = float if 'floats' in name else int
            rows = [{'premise': row['sentence1'], 'hypothesis': row['sentence2'], 'label': number(n)}
                    for row, n in zip(rows, [0, -1, 1, 2, -1], strict=True)]
            name_there = f'{kind.replace("dev", "validation")}-00000-of-00001.parquet'
            as_parquet(tmp_path / 'snli' / 'plain_text' / name_there, rows)
        elif name == 'jsonl':
            put(tmp_path / 'snli_1.0' / f'snli_1.0_{kind}.jsonl', jsonl(rows))
        else:
            put(tmp_path / 'snli_1.0' / f'snli_1.0_{kind}.txt', tsv(rows[0], *(row.values() for row in rows)))
    *labelled, test = load('snli', tmp_path)
    for kind, split in zip(('train', 'dev'), labelled, strict=True):
        assert split.texts[0] == [f'{kind} 0.', f'{kind} 2.', f'{kind} 3.'] and split.labels == [0, 1, 2]
        [note] = split.notes
        assert note.endswith(': 2 examples without a gold label are left out')
    assert test.texts[0] == [f'test {i}.' for i in range(5)] and test.labels == [0, NO_LABEL, 1, 2, NO_LABEL]
    [note] = test.notes
    assert note.endswith(': 2 examples without a gold label are predicted but not scored')
    none = read('snli', put(tmp_path / 'x.jsonl', jsonl([dict(gold_label='-', sentence1='a', sentence2='b')] * 3)))
    assert len(none.texts[0]) == 3 and none.labels is None


def test_stsb_in_both_layouts_and_labels_of_the_test_from_the_other(tmp_path):
    rows = [['news', 'x', '2012', i, score, f'"A man, {i}, who, for, a, day, ran.', f'A dog {i}.']
            for i, score in enumerate(['0.000', '5.000', '2.6'])]
    glue = ['index genre filename year old_index source1 source2 sentence1 sentence2 score'.split(),
            *([i, *row[:4], 'none', 'none', *row[5:], row[4]] for i, row in enumerate(rows))]
    texts = [row[5] for row in rows], [row[6] for row in rows]
    for kind in ('train', 'dev', 'test'):
        put(tmp_path / 'STS-B' / 'original' / f'sts-{kind}.csv', tsv(*rows[:2], [*rows[2], 'licence', 'url']))
    assert load('stsb', tmp_path) == ((texts, [0., 5., 2.6], {}, ()),) * 3
    for kind in ('train', 'dev', 'test'):
        put(tmp_path / 'STS-B' / f'{kind}.tsv', tsv(*(row[:9] if kind == 'test' else row for row in glue)))
    *labelled, test = load('stsb', tmp_path)
    assert labelled == [(texts, [0., 5., 2.6], {}, ())] * 2
    assert test[:2] == (texts, [0., 5., 2.6]) and 'sts-test.csv' in test.notes[0]
    put(tmp_path / 'STS-B' / 'original' / 'sts-test.csv', tsv(*rows[:2]))  # one text is missing: no labels
    assert load('stsb', tmp_path)[2] == (texts, None, {}, ())
    for wrong in ('5.1', '-0.5', 'nan', 'high'):
        path = put(tmp_path / 'x.tsv', tsv(*glue[:3], [*glue[3][:9], wrong]))
        with pytest.raises(ValueError) as error:
            read('stsb', path)
        one_line(error, f"{path}, line 4: score '{wrong}' is not a number from 0 to 5")


def mrpc_rows(n, start=0):
    return [[i % 3 and 1, 100 + i, 200 + i, f'"One {i}.', f'Two "{i}.'] for i in range(start, start + n)]


def with_raw_mrpc(folder):
    header = ['Quality', '#1 ID', '#2 ID', '#1 String', '#2 String']
    for kind, rows in (('train', mrpc_rows(20)), ('test', mrpc_rows(3, 50))):
        put(folder / 'MRPC' / f'msr_paraphrase_{kind}.txt', '\ufeff' + tsv(header, *rows, end='\r\n'))
    return header


def test_mrpc_from_the_raw_files(tmp_path):
    with_raw_mrpc(tmp_path)
    train, valid, test = load('mrpc', tmp_path)
    assert len(train.labels) == 15 and len(valid.labels) == 5 and load('mrpc', tmp_path)[1] == valid
    assert {*zip(*train.texts, train.labels, strict=True)} | {*zip(*valid.texts, valid.labels, strict=True)} == {
        (row[3], row[4], row[0]) for row in mrpc_rows(20)}
    assert test == ((['"One 50.', '"One 51.', '"One 52.'], ['Two "50.', 'Two "51.', 'Two "52.']), [1, 0, 1], {}, ())
    assert 'without mrpc_dev_ids.tsv 5 validation examples are drawn at random' in train.notes[0]
    put(tmp_path / 'MRPC' / 'mrpc_dev_ids.tsv', tsv([117, 217], [102, 202]))
    train, valid, _ = load('mrpc', tmp_path)
    assert valid[:2] == ((['"One 2.', '"One 17.'], ['Two "2.', 'Two "17.']), [1, 1]) and len(train.labels) == 18
    assert 'mrpc_dev_ids.tsv' in train.notes[0]
    put(tmp_path / 'MRPC' / 'mrpc_dev_ids.tsv', tsv([117, 217], [102, 999]))
    with pytest.raises(ValueError, match='mrpc_dev_ids.tsv has 2 pairs of ids, and 1 of them are in .*train.txt'):
        load('mrpc', tmp_path)


def test_mrpc_from_glues_files_with_the_test_labels_of_the_raw_file(tmp_path):
    header = with_raw_mrpc(tmp_path)
    put(tmp_path / 'MRPC' / 'test.tsv', tsv(['index', *header[1:]], *([i, *row[1:]] for i, row in
                                                                     enumerate(mrpc_rows(3, 50)))))
    train, valid, test = load('mrpc', tmp_path)  # as the download script leaves it
    assert len(train.labels) == 15 and test.labels == [1, 0, 1] and 'msr_paraphrase_test.txt' in test.notes[0]
    put(tmp_path / 'MRPC' / 'train.tsv', tsv(header, *mrpc_rows(4)))
    put(tmp_path / 'MRPC' / 'dev.tsv', tsv(header, *mrpc_rows(2, 4)))
    train, valid, test = load('mrpc', tmp_path)
    assert train.labels == [0, 1, 1, 0] and valid.labels == [1, 1] and test.labels == [1, 0, 1]
    assert 'MRPC is split as the files in' in train.notes[0]


def test_sst2_takes_test_labels_where_all_texts_are_found(tmp_path):
    for kind in ('train', 'dev'):
        put(tmp_path / f'{kind}.tsv', tsv(['sentence', 'label'], ['a "fine film ', 1], ['dull ', 0]))
    put(tmp_path / 'test.tsv', tsv(['index', 'sentence'], [0, 'so (very) good . '], [1, 'bad'], [2, 'bad']))
    put(tmp_path / 'original' / 'stsa.binary.test', '0 bad\n1 so -lrb- very -rrb- good .\n')
    assert load('sst2', tmp_path)[2].labels is None  # "( very )" is not "(very)"
    put(tmp_path / 'original' / 'stsa.binary.test', '0 bad\n1 so -lrb-very-rrb- good .\n')
    train, valid, test = load('sst2', tmp_path)
    assert train == valid == ((['a "fine film', 'dull'],), [1, 0], {}, ())
    assert test[:2] == ((['so (very) good .', 'bad', 'bad'],), [1, 0, 0]) and 'stsa.binary.test' in test.notes[0]
    put(tmp_path / 'labelled_test.tsv', tsv(['sentence', 'label'], ['so (very) good .', 1], ['bad', 0], ['bad', 1]))
    assert load('sst2', tmp_path)[2].labels == [1, 0, 0]  # ambiguous there: the next file is taken
    put(tmp_path / 'original' / 'stsa.binary.test', '0 bad\nbroken\n')
    with pytest.raises(ValueError, match='stsa.binary.test, line 2: not a label, a blank and a sentence'):
        load('sst2', tmp_path)


MNLI_COLUMNS = ('index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse '
                'sentence2_parse sentence1 sentence2').split()


def mnli_tsv(n, name, labels=()):
    rows = ([i, i, i, 'fiction', '(', '(', '(', '(', f'{name} {i}. ', '"n/a', *labels] for i in range(n))
    names = [*(f'label{i + 1}' for i in range(len(labels) - 1)), 'gold_label'] if labels else []
    return tsv(MNLI_COLUMNS + names, *rows)


def test_mnli_has_parts_in_order_and_the_diagnostic_examples(tmp_path):
    put(tmp_path / 'MNLI' / 'train.tsv', mnli_tsv(3, 'train', ['contradiction', 'neutral']))
    for part, n in (('matched', 2), ('mismatched', 3)):
        put(tmp_path / 'MNLI' / f'dev_{part}.tsv', mnli_tsv(n, part, [*['neutral'] * 5, 'contradiction']))
        put(tmp_path / 'MNLI' / f'test_{part}.tsv', mnli_tsv(n, part))
    train, valid, test = load('mnli', tmp_path)
    assert train == ((['train 0.', 'train 1.', 'train 2.'], ['"n/a'] * 3), [1] * 3, {}, ())
    texts = ['matched 0.', 'matched 1.', 'mismatched 0.', 'mismatched 1.', 'mismatched 2.']
    parts = {'matched': slice(0, 2), 'mismatched': slice(2, 5)}
    assert valid == ((texts, ['"n/a'] * 5), [2] * 5, parts, ()) and test == (valid.texts, None, parts, ())
    put(tmp_path / 'diagnostic' / 'diagnostic.tsv', tsv(['index', 'sentence1', 'sentence2'], [0, 'AX.', 'Ax?']))
    test = load('mnli', tmp_path)[2]
    assert test == (([*texts, 'AX.'], ['"n/a'] * 5 + ['Ax?']), None, {**parts, 'AX': slice(5, 6)}, ())
    assert {*test.parts} == {*TASKS['mnli'].submission}
    (tmp_path / 'MNLI' / 'dev_mismatched.tsv').unlink()
    assert load('mnli', tmp_path)[1].notes == (f'{tmp_path}/MNLI has no validation examples of mismatched',)


def test_the_version_of_qnli_is_noted(tmp_path):
    rows = [[0, 'Who?', 'He.', 'entailment']] * 5463
    for name, n in (('train', 3), ('dev', 5463)):
        put(tmp_path / 'QNLI' / f'{name}.tsv', tsv(['index', 'question', 'sentence', 'label'], *rows[:n]))
    assert load('qnli', tmp_path)[0].notes == ('by the numbers of its rows this is neither QNLI v1 nor v2',)
    put(tmp_path / 'QNLI' / 'train.tsv', tsv(['index', 'question', 'sentence', 'label'], *rows))
    assert load('qnli', tmp_path)[0].notes == ('by the numbers of its rows this is QNLI v2',)


def passage(level, number, n=2, **more):
    return {'article': f'{level} {number}\nruns. ', 'questions': [f'"Who {k} _ ?' for k in range(n)],
            'options': [['Ann', '"Bo', 'n/a', '4']] * n, 'answers': ['D', 'B', 'A', 'C'][:n],
            'id': f'{level}{number}.txt', **more}


def test_race_is_read_by_numbers_with_its_levels_as_parts(tmp_path, monkeypatch):
    listdir = os.listdir
    monkeypatch.setattr(os, 'listdir', lambda path: sorted(listdir(path)))  # 10.txt comes before 2.txt
    for kind, (level, number) in itertools.product(('train', 'dev', 'test'),
                                                   [('high', 3), ('middle', 10), ('middle', 2)]):
        put(tmp_path / 'RACE' / kind / level / f'{number}.txt', json.dumps(passage(level, number)))
    train, valid, test = load('race', tmp_path)
    articles = ['middle 2\nruns.'] * 2 + ['middle 10\nruns.'] * 2 + ['high 3\nruns.'] * 2
    answers = ([text] * 6 for text in ('Ann', '"Bo', 'n/a', '4'))
    assert valid.texts == (articles, ['"Who 0 _ ?', '"Who 1 _ ?'] * 3, *answers)
    assert valid == test == (valid.texts, [3, 1] * 3, {'middle': slice(0, 4), 'high': slice(4, 6)}, ())
    assert train == (valid.texts, valid.labels, {}, ())
    assert valid.texts[0][0] is valid.texts[0][1]  # one article in memory for its questions
    folder = tmp_path / 'RACE' / 'dev'
    os.rename(tmp_path / 'RACE' / 'test' / 'high', tmp_path / 'away')
    [note] = load('race', tmp_path)[2].notes
    assert note == f'{tmp_path}/RACE/test/middle/2.txt: there are questions of middle alone'
    assert read('race', folder) == valid and read('race', folder / 'high' / '3.txt').labels == [3, 1]
    questions = [{'example_id': f'{level}{number}.txt', 'article': f'{level} {number}\nruns.',
                  'question': f'"Who {k} _ ?', 'options': ['Ann', '"Bo', 'n/a', '4'], 'answer': 'DB'[k]}
                 for level, number in (('high', 3), ('middle', 2), ('middle', 10)) for k in range(2)]
    for kind in ('train', 'validation', 'test'):
        as_parquet(tmp_path / 'hf' / 'race' / 'all' / f'{kind}-00000-of-00001.parquet', questions)
    *others, again = load('race', tmp_path / 'hf')
    assert others == [train, valid] and again[:3] == test[:3]
    assert len(again.notes) == 1 and 'not in the order of the file' in again.notes[0]  # of RACE.tsv
    texts = others[1].texts
    assert texts[0][0] is texts[0][1]


@pytest.mark.parametrize('change, words', [
    ({'answers': ['A', 'E']}, "question 2: label 'E' is not one of A,"), ({'answers': ['A']}, 'is no passage of RACE'),
    ({'questions': 5}, 'is no passage of RACE'),
    ({'options': [['a', 'b', 'c', 'd'], ['a', 'b']]}, 'question 2: not an article, a question and a list of 4 options'),
    ({'options': [['a', 'b', 'c', 'd'], ['a', 'b', 'c', None]]}, 'question 2: not an article'),
    ({'questions': [3, 'x']}, 'question 1: not an article'), ({'article': None}, 'is no passage of RACE')])
def test_a_broken_passage_is_named(tmp_path, change, words):
    for kind, number in (('train', 1), ('train', 2), ('dev', 1)):
        put(tmp_path / kind / 'high' / f'{number}.txt', json.dumps(passage('high', number)))
    path = put(tmp_path / 'train' / 'high' / '2.txt', json.dumps(passage('high', 2, **change)))
    with pytest.raises(ValueError) as error:
        load('race', tmp_path)
    one_line(error, str(path), words)
    put(path, '{"article": "a"')
    with pytest.raises(ValueError, match='2.txt is not a json object'):
        load('race', tmp_path)


def test_an_empty_text_is_kept_and_noted(tmp_path):
    rows = [dict(row, sentence2='&nbsp;' if i in (3, 5) else row['sentence2']) for i, row in enumerate(RTE)]
    split = read('rte', put(tmp_path / 'x.tsv', rte_tsv(rows)))
    assert split[:2] == expected(rows)
    assert split.notes == (f'{tmp_path}/x.tsv, line 5: sentence2 is empty, as 2 texts are; they are kept',)


@pytest.mark.parametrize('name, text, texts', [
    ('x.csv', 'text\na\n""\nb\n', ['a', '', 'b']), ('x.csv', 'text\na\n\n\nb\n', ['a', '', '', 'b']),
    ('x.csv', 'text\r\na\r\n\r\nb\r\n', ['a', '', 'b']), ('x.csv', 'text\na\nb\n""\n', ['a', 'b', '']),
    ('x.csv', 'id,text\n1,a\n,\n"","b\nc"\n,\n\n , \n', ['a', '', 'b\nc']),
    ('x.csv', ',,\nid,text,\n1,a,\n,,\n \n,\n3,b,\n,,\n,,\n', ['a', '', '', 'b']),
    ('x.csv', 'sep=;\nid;text\n1;a\n;\n2;b\n;\n', ['a', '', 'b']), ('x.csv', 'id,text\n1,a\n"",""\n', ['a', '']),
    ('x.tsv', 'text\na\n\nb\n', ['a', '', 'b']), ('x.tsv', 'id\ttext\n1\ta\n\t\n\n4\tb\n\t\n\n', ['a', '', 'b']),
    ('x.jsonl', '{"id": 1}\n{"text": "a"}\n\n{"text": null}\n{}\n', ['', 'a', '', '']),
    ('x.json', '[{"text": "a"}, {}, {"text": "b"}]', ['a', '', 'b'])])
def test_blank_rows_keep_their_place_but_at_the_end(name, text, texts, tmp_path):
    """A blank line of several columns is no row: nothing that writes tables leaves the delimiters out."""
    assert [fields[0] for _, fields in read_rows(put(tmp_path / name, text), ['text'])] == texts


@pytest.mark.parametrize('task, rows, labels', [
    ('rte', [['a', 'b', 0], ['0', '', 1], ['', '', ''], ['c', 'd', 0]], [0, 1, NO_LABEL, 0]),
    ('stsb', [['a', 'b', 2.5], ['', '', ''], ['c', 'd', 1]], [2.5, math.nan, 1.]),
    ('rte', [['a', 'b'], ['', ''], ['c', 'd']], None)])
def test_a_blank_row_of_a_task_is_not_trained_on_but_predicted(task, rows, labels, tmp_path):
    header = ['sentence1', 'sentence2', 'score' if task == 'stsb' else 'label'][:len(rows[0])]
    for kind in ('train', 'dev', 'test'):
        path = put(tmp_path / f'{kind}.csv', as_csv([header, *rows]))
    split = read(task, path)
    assert split.texts[0] == [row[0] for row in rows] and repr(split.labels) == repr(labels)
    if labels:
        train, valid, test = load(task, tmp_path)
        assert repr(test) == repr(split) and train.labels == valid.labels == [row[2] for row in rows if row[2] != '']


@pytest.mark.parametrize('header, found', [
    (['Text', 'text'], 1), (['TEXT', ' text', 'Text'], 1), ([' text ', 'text'], 1), (['label', 'Text'], 1),
    (['text', 'label', 'text'], None), (['Text', 'TEXT'], None), (['Text', 'TEXT', 'text'], 2)])
def test_of_several_columns_the_exact_name_wins_and_equal_ones_are_refused(header, found, tmp_path):
    """In all formats; a key of json comes twice as another error."""
    pyarrow = import_pyarrow()
    from pyarrow import parquet
    values = [str(i) for i in range(len(header))]
    table = pyarrow.table([pyarrow.array([value]) for value in values], names=header)
    parquet.write_table(table, tmp_path / 'x.parquet')
    paths = [tmp_path / 'x.parquet', put(tmp_path / 'x.tsv', tsv(header, values))]
    if header != [' text ', 'text']:  # csv leaves out the blank before a field
        paths.append(put(tmp_path / 'x.csv', as_csv([header, values])))
    if len({*header}) == len(header):
        paths.append(put(tmp_path / 'x.jsonl', jsonl([dict(zip(header, values, strict=True))])))
    for path in paths:
        if found is None:
            with pytest.raises(ValueError) as error:
                list(read_rows(path, ['text']))
            one_line(error, str(path), 'several columns of the same name, column 1')
        else:
            assert [fields[0] for _, fields in read_rows(path, ['text'])] == [str(found)]
    if header == ['text', 'label', 'text']:  # other columns may share a name
        assert [[fields[0] for _, fields in read_rows(path, ['label'])] for path in paths] == [['1']] * 3


def test_blanks_after_commas_and_delimiters_within_quotes(tmp_path):
    path = put(tmp_path / 'x.csv', 'text, label\n"Hello, world", "country"\n"The ""tram""", town\n  "a\nb",c\n')
    assert [fields for _, fields in read_rows(path, ['text'], 'label')] == [
        ['Hello, world', 'country'], ['The "tram"', 'town'], ['a\nb', 'c']]
    path = put(tmp_path / 'x.csv', '"text, as it was, and is","a;b\tc";label\nd;e;f\n'.replace('is",', 'is";'))
    assert [fields for _, fields in read_rows(path, ['text, as it was, and is'], 'label')] == [['d', 'f']]


@pytest.mark.parametrize('texts, is_noted', [
    (['"He said ""no"" to it"', 'fine'], True), (['"He said ""no"" to it"', '"Fine," she said.'], False),
    (['"Home."', 'fine'], False), (['"""No,"" he said."', '"a ""b"""'], True), (['fine'], False)])
def test_a_tsv_with_doubled_quotes_is_noted(texts, is_noted, tmp_path):
    split = read('cola', put(tmp_path / 'x.tsv', tsv(['sentence', 'label'], *([text, 0] for text in texts))))
    assert split.texts[0] == texts and len(split.notes) == is_noted


def test_labels_of_one_frame_are_the_same_in_all_formats(tmp_path):
    pandas = pytest.importorskip('pandas')
    import_pyarrow()
    frame = pandas.DataFrame({'sentence1': ['a', 'b', 'c'], 'sentence2': ['d', 'e', 'f']})
    for values, expected in (([1., 0., 1.], [1, 0, 1]), ([-1., -1., -1.], None), ([1, 0, 1], [1, 0, 1])):
        frame['label'] = values
        frame.to_csv(tmp_path / 'x.csv', index=False)
        frame.to_parquet(tmp_path / 'x.parquet')
        frame.to_json(tmp_path / 'x.jsonl', orient='records', lines=True)
        for name in ('x.csv', 'x.parquet', 'x.jsonl'):
            assert read('rte', tmp_path / name).labels == expected


def test_what_may_not_be_read_is_not_missing(open_folder):
    """RACE without a test is read as such, but not where the folder of the test is locked, or a link to nothing."""
    for kind in ('train', 'dev', 'test'):
        put(open_folder / 'RACE' / kind / 'high' / '1.txt', json.dumps(passage('high', 1)))
    for kind in ('train', 'dev'):
        put(open_folder / 'rte' / f'{kind}.tsv', rte_tsv(TWO))
    put(open_folder / 'data' / 'x_val_2016_cloze.csv', '')
    assert load('race', open_folder)[2] is not None
    for task, place in (('race', 'RACE/test'), ('race', 'RACE/test/high'), ('rte', 'rte'), ('race', 'RACE')):
        with without_rights(open_folder / place), pytest.raises(PermissionError, match=f'{open_folder}/{place}'):
            load(task, open_folder)
    with without_rights(open_folder / 'data'), pytest.raises(PermissionError):
        load('rocstories', open_folder / 'data')
    for path in (as_parquet(open_folder / 'x.parquet', TWO), put(open_folder / 'x.jsonl', '{}')):
        with without_rights(path), pytest.raises(PermissionError, match=str(path)):
            read('rte', path)
    put(open_folder / 'save' / 'x' / 'config.json', '{}')
    with without_rights(open_folder / 'save' / 'x'), pytest.raises(PermissionError, match='save/x/config.json'):
        open_run(open_folder / 'save' / 'x', '', '')
    (open_folder / 'RACE' / 'test').rename(open_folder / 'RACE' / 'away')
    assert load('race', open_folder)[2] is None
    (open_folder / 'RACE' / 'test').symlink_to(open_folder / 'disk')
    (open_folder / 'rte' / 'test.tsv').symlink_to(open_folder / 'disk')
    for task in ('race', 'rte'):
        with pytest.raises(FileNotFoundError, match='test(.tsv)? is a link to nothing'):
            load(task, open_folder)


def test_passages_with_any_names_are_read(tmp_path):
    names = ['2.txt', '008.txt', '10.txt', '3_extra.txt', 'b.TXT', 'high9.txt']
    for name in names:
        put(tmp_path / 'high' / name, json.dumps(passage('high', name)))
    put(tmp_path / 'high' / '._2.txt', b'\0')
    assert read('race', tmp_path).texts[0][::2] == [f'high {name}\nruns.' for name in names]


def test_superglues_rte_and_folders_of_the_hub(tmp_path):
    rows = [{'premise': row['sentence1'], 'hypothesis': row['sentence2'], 'label': TWO_WAY[row['label']], 'idx': i}
            for i, row in enumerate(RTE)]
    for kind in ('train', 'val'):
        put(tmp_path / 'RTE' / f'{kind}.jsonl', jsonl(rows))
    put(tmp_path / 'RTE' / 'test.jsonl', jsonl([dict(list(row.items())[:2]) for row in rows]))
    train, valid, test = load('rte', tmp_path)
    assert train[:2] == valid[:2] == expected(RTE) and test[:2] == (expected(RTE)[0], None)
    for place in ('hub/data', 'hubs/sst2/data'):
        for kind in ('train', 'validation'):
            put(tmp_path / place / f'{kind}-00000-of-00001-b42a775f407cee45.jsonl', '{"sentence": "fine", "label": 1}')
        assert load('sst2', tmp_path / place.split('/')[0])[0].texts == (['fine'],)


PIECES = ('"', ',', '\n', '\r', '\r\n', '\0', '\t', 'x', '1', '', ' ', '\u2028', '\x1c', '\ud800', '\xff', '{', '}',
          '[', ':', 'null', '-1', '1e999', '\\u', '-')


@pytest.mark.parametrize('task, name, text', [
    ('rte', 'x.tsv', rte_tsv(TWO)), ('qqp', 'x.tsv', qqp_tsv(3)),
    ('cola', 'x.tsv', tsv(['a', 1, '', 'b'], ['a', 0, '*', 'c'])),
    ('rte', 'x.csv', as_csv([list(TWO[0])] + [list(row.values()) for row in TWO])), ('rte', 'x.jsonl', jsonl(TWO)),
    ('rte', 'x.json', json.dumps(TWO)), ('stsb', 'x.csv', tsv(['g', 'f', 'y', '1', '2.5', 'a b', 'c d'])),
    ('race', '1.txt', json.dumps(passage('high', 1))), ('sst2', 'stsa.binary.dev', '1 so good\n0 so bad\n')])
def test_a_damaged_file_is_read_or_named_in_one_line(tmp_path, task, name, text):
    rng, path = random.Random(0), tmp_path / name
    n_read = 0
    for _ in range(60):
        start, lost = rng.randrange(len(text)), rng.choice([0, 0, 1, 3, 30])
        pieces = ''.join(rng.choices(PIECES, k=rng.randrange(1, 4)))
        put(path, (text[:start] + pieces + text[start + lost:]).encode('utf-8', 'surrogatepass'))
        try:
            split = read(task, path)
        except (ValueError, OSError) as e:
            assert str(e).startswith(str(path)) and not re.search('[\r\n]', str(e))
        else:
            n_read += 1
            assert {len(field) for field in split.texts} == {len(split.texts[0])} and len(split.texts[0]) > 0
            assert split.labels is None or len(split.labels) == len(split.texts[0])
    assert 0 < n_read < 60  # the damage is neither too little nor too much


@pytest.mark.parametrize('article', [12, ['a', 'b']])
def test_an_article_that_is_no_text_is_named(tmp_path, article):
    row = dict(example_id='high1.txt', article=article, answer='A', question='what', options=['a', 'b', 'c', 'd'])
    with pytest.raises(ValueError, match='rows.jsonl, line 1') as error:
        read('race', put(tmp_path / 'rows.jsonl', jsonl([row])))
    one_line(error)


def test_the_questions_of_one_file_keep_their_order(tmp_path):
    """Its predictions are numbered as the file is, whatever the levels."""
    rows = [dict(example_id=f'{level}{i}.txt', article='so it was', answer='A', question=f'number {i}',
                 options=['a', 'b', 'c', 'd']) for i, level in enumerate(('high', 'middle', 'high'))]
    split = read('race', put(tmp_path / 'rows.jsonl', jsonl(rows)))
    assert split.texts[1] == ['number 0', 'number 1', 'number 2'] and not split.parts
