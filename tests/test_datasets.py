"""Reading, splitting and packing give the results of the original, and bad files are refused."""

import csv
import gzip
import hashlib
import io
import json

import numpy as np
import pytest
from reference import GOLDENS, SHARED, Golden
from sklearn.model_selection import train_test_split
from toy import HEADER, as_csv, folder_of, story, write

from datasets import (
    SPLIT_SEED,
    VAL_NAME,
    find_cloze_file,
    fit_n_ctx,
    read_cloze,
    rocstories,
    transform_roc,
)


def test_split_is_that_of_the_original():
    golden = json.loads((GOLDENS / 'split.json').read_text())
    rows = range(golden['n_rows_val_file'])
    train, valid = train_test_split(rows, test_size=golden['n_valid'], random_state=SPLIT_SEED)
    assert train == golden['train_rows'] and valid == golden['valid_rows']


@pytest.mark.skipif(not (SHARED / 'rocstories').is_dir(), reason='the ROCStories files may not be redistributed')
def test_the_real_files_give_the_texts_of_the_original():
    golden = json.loads((GOLDENS / 'split.json').read_text())
    splits = dict(zip(('train', 'valid', 'test'), rocstories(str(SHARED / 'rocstories')), strict=True))
    for name, sha256 in golden['sha256_of_text'].items():
        split, field = name.split('_')
        texts = splits[split][('story', 'end1', 'end2').index(field)]
        joined = json.dumps(texts, ensure_ascii=False, separators=(',', ':')).encode()
        assert hashlib.sha256(joined).hexdigest() == sha256, name
    assert splits['train'][3] == golden['train_labels'] and splits['valid'][3] == golden['valid_labels']


def test_rocstories_splits_the_labelled_file(tmp_path):
    train, valid, test = rocstories(str(folder_of(tmp_path)), n_valid=5)
    assert [len(field) for field in train + valid + test] == [15] * 4 + [5] * 4 + [20] * 3
    assert test[0][3] == ' '.join(story(3)[1:5]) and test[2][3] == 'Ending 3b.'
    for s, e1, e2, y in zip(*train, strict=True):
        i = int(s.split()[4].rstrip(','))
        assert (e1, e2, y) == (f'Ending {i}a.', f'Ending {i}b.', i % 2)
    assert len(rocstories(str(tmp_path), n_train=7, n_valid=5)[0][0]) == 7
    assert len(rocstories(str(folder_of(tmp_path, n=1600)), n_valid=5)[0][0]) == 1595  # not cut to 1497
    folder_of(tmp_path)
    with pytest.raises(ValueError, match='has 20 stories, so n_valid=20'):
        rocstories(str(tmp_path), n_valid=20)


@pytest.mark.parametrize('group', ['short', 'mixed', 'full'])
def test_packing_is_that_of_the_original(group):
    golden = Golden('transform')
    c = golden.config
    g = c.groups[group]
    encoder = dict.fromkeys(range(c.n_vocab), 0)
    encoder |= {'_start_': c.start, '_delimiter_': c.delimiter, '_classify_': c.classify}
    fields = list(zip(*g['triples'], strict=True))
    n_ctx, max_len, n_cut = fit_n_ctx([[[field] for field in triple] for triple in g['triples']], g['n_ctx_argument'])
    assert (n_ctx, max_len) == (g['n_ctx_computed'], g['max_len'])
    assert n_cut == sum(any(len(field) > max_len for field in triple) for triple in g['triples'])
    X, M = transform_roc(*fields, encoder, max_len, n_ctx)
    np.testing.assert_array_equal(X, golden.arrays[f'{group}/xmb'])
    np.testing.assert_array_equal(M, golden.arrays[f'{group}/mmb'])
    assert X.dtype == np.int32 and M.dtype == np.float32


def test_too_short_a_context_is_refused():
    with pytest.raises(ValueError, match='n_ctx=4'):
        fit_n_ctx([([[1]], [[2]], [[3]])], 4)


@pytest.mark.parametrize('name', [
    VAL_NAME, 'cloze_test_val__winter2018-cloze_test_ALL_val - 1 - 1.csv', 'cloze_test_ALL_val.csv',
    'cloze_test_val__spring2016.csv', 'val_spring2016.csv', 'Cloze_Test_VAL.CSV', 'cloze_test_spring2016-val.csv',
    'cloze_test_ALL_val.tsv', 'cloze_val.csv', 'ClozeTestVal.csv'])
def test_every_name_under_which_the_file_circulates(tmp_path, name):
    rows = [HEADER, story(0), story(1, 2)]
    write(tmp_path / name, rows, delimiter='\t' if name.endswith('tsv') else ',')
    test = name.replace('val', 'test').replace('VAL', 'TEST').replace('Val', 'Test')
    write(tmp_path / test, rows[:1])
    for stray in (f'._{name}', f'~${name}', f'._{test}', 'latest_val_copy.csv'):
        (tmp_path / stray).write_bytes(b'\0\5\x16\7')
    (tmp_path / 'ROCStories_winter2017 - ROCStories_winter2017.csv').write_text('storyid,storytitle\n')
    assert find_cloze_file(str(tmp_path), 'test') == str(tmp_path / test)
    path = find_cloze_file(str(tmp_path), 'val')
    assert path == str(tmp_path / name)
    assert read_cloze(path, labelled=True)[3] == [0, 1]


def test_the_hand_out_of_2016_comes_first_and_a_tie_is_refused(tmp_path):
    late, early = 'cloze_test_val__winter2018.csv', 'cloze_test_val__spring2016.csv'
    for name in (late, early):
        (tmp_path / name).touch()
    assert find_cloze_file(str(tmp_path), 'val').endswith(early)
    (tmp_path / 'val_spring2016.csv').touch()
    with pytest.raises(ValueError, match='several val files'):
        find_cloze_file(str(tmp_path), 'val')
    with pytest.raises(FileNotFoundError, match='no Story Cloze test file: looked for "cloze_test_test__spring2016'):
        find_cloze_file(str(tmp_path), 'test')
    with pytest.raises(FileNotFoundError, match='absent'):
        find_cloze_file(str(tmp_path / 'absent'), 'val')


def test_other_names_are_not_story_files(tmp_path):
    for name in ('latest_val_copy.csv', 'contest_val_2016.csv', '.cloze_test.csv', 'cloze_test.csv.gz'):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match='no Story Cloze test file: looked for'):
        find_cloze_file(str(tmp_path), 'test')
    (tmp_path / 'cloze_test.csv').touch()
    assert find_cloze_file(str(tmp_path), 'test') == str(tmp_path / 'cloze_test.csv')
    (tmp_path / 'cloze_test_test.csv').touch()
    assert find_cloze_file(str(tmp_path), 'test') == str(tmp_path / 'cloze_test_test.csv')


@pytest.mark.parametrize('columns', [slice(None), slice(1, None), slice(None, -1), slice(1, -1)])
def test_id_and_label_columns_may_be_absent(tmp_path, columns):
    path = write(tmp_path / 'cloze.csv', [row[columns] for row in (HEADER, story(0), story(1, 2))])
    stories, ends1, ends2, labels = read_cloze(path)
    assert stories[1] == ' '.join(story(1)[1:5]) and (ends1[0], ends2[1]) == ('Ending 0a.', 'Ending 1b.')
    assert labels == ([0, 1] if columns.stop is None else None)
    if labels is None:
        with pytest.raises(ValueError, match='line 1: no column AnswerRightEnding'):
            read_cloze(path, labelled=True)


def respelled(data, delimiter):
    return as_csv(csv.reader(io.StringIO(data.decode(), newline='')), delimiter).encode()


@pytest.mark.parametrize('change', [
    lambda b: b'\xef\xbb\xbf' + b, lambda b: b.replace(b'\n', b'\r\n'), lambda b: b + b'\n\n', lambda b: b.rstrip(),
    lambda b: b'\n' + b.replace(b'\n', b'\n \n'), lambda b: b + b',,,,,,,\n' * 2, lambda b: b + b',,\n, ,,,,,,,,\n',
    lambda b: b.replace(b'Input', b'INPUT').replace(b'Answer', b' answer'),
    lambda b: b'\xef\xbb\xbfsep=,\r\n' + b, lambda b: respelled(b, ';'), lambda b: b'sep=;\n' + respelled(b, ';'),
    lambda b: b.replace(b'"', b'').replace(b', ', b'_').replace(b',', b'\t').replace(b'_', b', ')],
    ids=['byte-order mark', 'CRLF', 'blank lines at the end', 'no last newline', 'blank lines', "Excel's blank rows",
         'other blank rows', 'header in other case', 'sep=,', 'semicolons', 'sep=;', 'tabs'])
def test_harmless_variants_read_the_same(tmp_path, change):
    path = tmp_path / 'cloze.csv'
    rows = [[field.replace('"', '') for field in row] for row in (HEADER, story(0), story(1, 2))]
    expected = read_cloze(write(path, rows))
    path.write_bytes(change(path.read_bytes()))
    assert read_cloze(str(path)) == expected and read_cloze(str(path), labelled=True) == expected


@pytest.mark.parametrize('rows', [
    ['1 Ana_Bo_He_She_"Come home now!_Bo sang._1', '2 Cy_Cy_Cy_Mom_He said "ouch"_Cy slept._2'],
    ['1 Ana_Bo_He_She_"Come home now!_Bo sang._1', '2 Cy_Cy_Cy_Mom_It was over."_Cy slept._2', '3 D_D_D_D_D_D_1'],
    ['1 Ana_"Come home," she said._He_She_Home._Bo sang._1'], ['1 Ana_"Come home now."_Bo_She_Bo_Bo_1']])
def test_quotes_between_tabs_are_text(tmp_path, rows):
    rows = [row.split('_') for row in rows]
    path = tmp_path / 'cloze.tsv'
    path.write_text(''.join('\t'.join(row) + '\n' for row in [HEADER[1:], *rows]))
    assert read_cloze(str(path)) == (
        [' '.join(row[:4]) for row in rows], [row[4] for row in rows], [row[5] for row in rows],
        [int(row[6]) - 1 for row in rows])


@pytest.mark.parametrize('field, words', [
    ('a\ttab', 'line 2: 9 columns, not 8: is a delimiter or a line break inside a field.'),
    ('"a\ttab"', 'line 2: 9 columns, not 8'),
    ('a\nbreak', 'line 2: 3 columns, not 8')])
def test_a_tab_or_a_line_break_between_tabs_is_refused(tmp_path, field, words):
    path = tmp_path / 'cloze.tsv'
    row = story(0)
    row[2] = field
    path.write_text(''.join('\t'.join(row) + '\n' for row in [HEADER, row]), newline='')
    with pytest.raises(ValueError, match=words) as error:
        read_cloze(str(path))
    assert str(path) in str(error.value)


def test_an_empty_label_column_counts_as_missing(tmp_path):
    path = write(tmp_path / 'cloze.csv', [HEADER, story(0, ''), story(1, ' ')])
    assert read_cloze(path)[3] is None and read_cloze(path, labelled=False)[3] is None
    with pytest.raises(ValueError, match='AnswerRightEnding is empty in all rows: this is not the file with'):
        read_cloze(path, labelled=True)


def test_fields_of_several_lines_leave_the_line_numbers_right(tmp_path):
    row = story(0)
    row[2] = 'A\nB\r\nC'
    path = write(tmp_path / 'cloze.csv', [HEADER, row, [], story(1, 3)])
    with pytest.raises(ValueError, match='line 6 .story 2.: AnswerRightEnding'):
        read_cloze(path)


def test_line_separators_inside_a_sentence_are_text(tmp_path):
    row = story(0)
    row[2] = 'A line\u2028separator, a\x0btab\nand a newline.'
    assert row[2] in read_cloze(write(tmp_path / 'cloze.csv', [HEADER, row]))[0][0]


def with_field(i, value):
    row = story(1)
    row[i] = value
    return [HEADER, story(0), row, story(2)]


@pytest.mark.parametrize('rows, words', [
    (with_field(7, '3'), "line 3 .story 2.: AnswerRightEnding is '3', not 1 or 2"),
    (with_field(7, ''), "line 3 .story 2.: AnswerRightEnding is ''"),
    (with_field(2, '  '), 'line 3 .story 2.: InputSentence2 is empty'),
    (with_field(3, '&nbsp;'), "line 3 .story 2.: InputSentence3 is empty: '&nbsp;' has no tokens"),
    (with_field(4, '\x01\x02'), 'line 3 .story 2.: InputSentence4 is empty'),
    (with_field(5, '\x1b[36m'), 'line 3 .story 2.: RandomFifthSentenceQuiz1 is empty'),
    (with_field(6, '\ufeff \u2028'), 'line 3 .story 2.: RandomFifthSentenceQuiz2 is empty'),
    (with_field(6, ''), 'line 3 .story 2.: RandomFifthSentenceQuiz2 is empty'),
    ([HEADER, story(0), story(1)[:-1]], 'line 3: 7 columns, not 8'),
    ([HEADER, story(0) + ['x']], 'line 2: 9 columns'),
    ([HEADER], 'has no stories'),
    ([story(0), story(1)], 'line 1: no column InputSentence1'),
    ([[name for name in HEADER if name != 'InputSentence3'], story(0)[:-1]], 'line 1: no column InputSentence3'),
    ([], 'line 1: no column InputSentence1')])
def test_a_bad_row_is_named(tmp_path, rows, words):
    path = write(tmp_path / 'cloze.csv', rows)
    with pytest.raises(ValueError, match=words) as error:
        read_cloze(path, labelled=True)
    assert path in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('data, words', [
    (as_csv([HEADER, story(0)]).encode('utf-16'), 'line 1: not UTF-8 text, but UTF-16: save it as UTF-8'),
    (as_csv([HEADER, story(0)]).encode('utf-16-be'), 'line 1: not UTF-8 text, but UTF-16: save it as UTF-8'),
    (as_csv([HEADER, story(0)]).encode('utf-16-le'), 'line 1: not UTF-8 text, but UTF-16: save it as UTF-8'),
    (gzip.compress(as_csv([HEADER, story(0)]).encode()), 'but compressed by gzip: gunzip it first'),
    (b'PK\x03\x04\x14\x00\x06\x00', 'but a zip archive or .xlsx: unpack it, or save it as CSV'),
    (as_csv([HEADER, story(0)]).encode() + b'id,caf\xe9', 'line 3: byte 0xe9 is not UTF-8'),
    (as_csv([HEADER]).encode() + b'id,"never closed', 'line 2: unexpected end of data'),
    (as_csv([HEADER]).encode() + b'id,"' + b'x' * (2 ** 24 + 9) + b'"', 'line 2: field larger than'),
    (b'', 'line 1: no column')])
def test_bad_bytes_are_named(tmp_path, data, words):
    path = tmp_path / 'cloze.csv'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        read_cloze(str(path))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a file'):
        read_cloze(str(tmp_path))
