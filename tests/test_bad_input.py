"""Options out of range, and files that are not what they should be: one line that says what and where."""

import csv
import io
import json
import os
import shutil
import signal

import numpy as np
import pytest
from forked import before_call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import HEADER, TOY, VOCABULARY, as_csv, story, toy_argv, toy_stories, with_stories, write

import analysis
import train
from common.checkpoint import Stopped
from datasets import VAL_NAME, read_cloze
from text_utils import has_tokens

NEW, RESUME = ['--n_iter', '1'], ['--desc', 'stopped', '--resume']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with stories, a model folder, a complete run `done` and a stopped one `stopped`."""
    folder = with_stories(tmp_path_factory.mktemp('trained'))
    shutil.copytree(TOY, folder / 'model')
    (folder / 'model' / 'hparams.json').write_text('{"n_layer": 3, "afn": "gelu"}')
    main(folder, '--desc', 'done', '--analysis')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, 'update', train.update)                   # put back at the end
        before_call(train, 'update', 12, lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Stopped):
            main(folder, '--desc', 'stopped', '--analysis', '--checkpoint_minutes', '0')
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it, to be damaged; it is the working directory."""
    copy = tmp_path / 'copy'
    shutil.copytree(trained, copy)
    monkeypatch.chdir(copy)
    return copy


def arguments(folder, *argv):
    """Relative paths: a run can be resumed in a copy."""
    argv = [*toy_argv(folder, '--model_path', 'model'), *argv]
    return [os.path.relpath(arg, folder) if arg.startswith(str(folder)) else arg for arg in argv]


def main(folder, *argv):
    before = os.getcwd()
    os.chdir(folder)
    try:
        return train.main(train.parse_args(arguments(folder, *argv)))
    finally:
        os.chdir(before)


def one_line(raised, *words):
    message = str(raised.value)
    assert '\n' not in message and len(message) < 500
    assert any(word in message for word in words), message


def test_each_byte_of_a_header_of_numpy(folder):
    """Two bits of every byte before the numbers of a shard."""
    path = folder / 'model' / 'params_3.npy'
    intact = path.read_bytes()
    model = train.DoubleHeadModel(train.parse_args(arguments(folder)), 126, 'multiple_choice', 124 + 3 + 14, 14)
    noticed = 0
    for i in range(128):
        for bit in (i % 8, (i + 3) % 8):
            data = bytearray(intact)
            data[i] ^= 1 << bit
            path.write_bytes(data)
            try:
                train.load_openai_pretrained_model(model, 14, 3, path=str(folder / 'model'))
            except (ValueError, OSError) as e:
                assert '\n' not in str(e)
                noticed += 1
    assert noticed > 100                                                # the rest is padding


@pytest.mark.parametrize('option, value', [
    *[(name, '0') for name in ('n_batch', 'n_gpu', 'n_iter', 'n_embd', 'n_head', 'n_layer', 'n_ctx', 'n_valid')],
    *[(name, '-3') for name in ('n_batch', 'n_gpu', 'n_iter', 'n_ctx', 'n_transfer', 'seed')],
    *[(f'{name}_pdrop', value) for name in ('embd', 'attn', 'resid', 'clf') for value in ('1', '-1', 'nan')],
    *[(name, value) for name in ('lr', 'lm_coef', 'l2', 'e', 'checkpoint_minutes') for value in ('-1', 'nan', 'inf')],
    *[(name, value) for name in ('b1', 'b2') for value in ('1.5', 'nan')],
    ('lr_warmup', 'nan'), ('max_grad_norm', 'nan'), ('n_ctx', '4'), ('n_head', '7'), ('seed', str(2 ** 32)),
    ('desc', '../x'), ('desc', '/x'), ('desc', '.x'), ('seeds', '1-10000000000'), ('seeds', str(2 ** 32)),
    ('afn', 'foo'), ('lr_schedule', 'foo'), ('opt', 'sgd'), ('dtype', 'int8'), ('device', 'tpu'), ('dataset', 'foo'),
    ('lr', 'fast'), ('n_iter', '2.5'), ('seeds', '9-3'), ('seeds', 'x'), ('seeds', '1,1'), ('n_valid', '1000')])
def test_an_option_out_of_range_is_named_before_anything_is_written(tmp_path, option, value):
    with_stories(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError) as raised:
        train.main(train.parse_args(toy_argv(tmp_path, f'--{option}={value}')))
    one_line(raised, option)
    assert value in str(raised.value) and sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize('text, words', [
    (f'{{"n_ctx": {10 ** 30}}}', 'n_ctx: 1000000000000000000000000000000: must be'),
    ('[]', 'not a json object'), ('{"n_embd": "wide"}', 'n_embd: invalid'), ('{"n_embd": [16]}', 'n_embd: invalid'),
    ('{"submit": true}', "'submit' is no option"), ('{"afn": "foo"}', "afn='foo'"), ('{"n_embd": 0}', 'n_embd')])
def test_wrong_options_of_the_model_folder_are_named(tmp_path, text, words):
    with_stories(tmp_path)
    shutil.copytree(TOY, tmp_path / 'model')
    (tmp_path / 'model' / 'hparams.json').write_text(text)
    argv = [arg for arg in toy_argv(tmp_path, '--model_path', str(tmp_path / 'model')) if arg not in ('--n_embd', '16')]
    with pytest.raises(ValueError, match=words) as raised:
        train.main(train.parse_args(argv))
    assert '\n' not in str(raised.value)


def test_a_vocabulary_of_another_model_is_refused(folder):
    tokens = json.loads((folder / 'model' / VOCABULARY).read_text())
    tokens['one more'] = len(tokens)
    (folder / 'model' / VOCABULARY).write_text(json.dumps(tokens))
    with pytest.raises(ValueError, match='has 125 tokens, the weights in model are for 124'):
        main(folder, *NEW)
    del tokens['one more']
    (folder / 'model' / VOCABULARY).write_text(json.dumps(dict(zip(tokens, list(tokens.values())[::-1], strict=True))))
    with pytest.raises(ValueError, match='had other data, another vocabulary or other weights'):
        main(folder, *RESUME)


def test_what_makes_an_accuracy_mean_little_is_said(tmp_path, capsys):
    rows = toy_stories(50, 0)
    for row in rows[1:]:
        row[5:7], row[7] = sorted(row[5:7]), '1'
    with_stories(tmp_path)
    write(tmp_path / VAL_NAME, rows)
    train.main(train.parse_args(toy_argv(tmp_path, '--n_iter', '1', '--n_ctx', '20')))
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith('warning: ')]
    assert warnings == [f'warning: {text}' for text in (
        *(f'{n} of {n} {name} examples are longer than n_ctx=20 allows: their texts are cut'
          for n, name in ((40, 'training'), (10, 'validation'), (11, 'test'))),
        'the network gives all validation examples the same answer')]


FIELD = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=8).map(str.strip).filter(has_tokens)
ROWS = st.lists(st.tuples(FIELD, FIELD, FIELD, st.sampled_from('12')), min_size=1, max_size=4)


FEW_OR_MANY = pytest.mark.parametrize('n', [300, pytest.param(5000, marks=pytest.mark.slow)])
EXAMPLES = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@FEW_OR_MANY
def test_any_story_comes_back_exactly(tmp_path, n):
    path = tmp_path / 'cloze.csv'

    @settings(EXAMPLES, max_examples=n)
    @given(ROWS, st.sampled_from(('\n', '\r\n')), st.booleans())
    def comes_back(rows, end, bom):
        out = io.StringIO(newline='')
        writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([HEADER, *([str(i), a, b, a, b, b, c, y] for i, (a, b, c, y) in enumerate(rows))])
        path.write_bytes(b'\xef\xbb\xbf' * bom + out.getvalue().encode())
        assert read_cloze(str(path), labelled=True) == (
            [' '.join((a, b, a, b)) for a, b, _, _ in rows], [b for _, b, _, _ in rows], [c for _, _, c, _ in rows],
            [int(y) - 1 for *_, y in rows])
    comes_back()


PIECES = ('"', '""', ',', '\n', '\r', '\r\n', '\0', '\t', 'x', '1', '3', '', ' ', '\u2028', '\x1c', '\ud800', '\xff')


@FEW_OR_MANY
def test_a_damaged_file_is_read_or_its_line_is_named(tmp_path, n):
    """A piece of three stories is replaced by other characters, some of which are no UTF-8."""
    path = tmp_path / 'cloze.csv'
    text = as_csv([HEADER, story(0), story(1, 2), story(2)])

    @settings(EXAMPLES, max_examples=n)
    @given(st.integers(0, 400), st.integers(0, 40), st.lists(st.sampled_from(PIECES), max_size=4))
    def is_named(place, n_lost, pieces):
        path.write_bytes((text[:place] + ''.join(pieces) + text[place + n_lost:]).encode('utf-8', 'surrogatepass'))
        try:
            stories, *endings, labels = read_cloze(str(path), labelled=True)
        except ValueError as e:
            assert str(e).startswith(f'{path}, line ') or str(e) == f'{path} has no stories'
            assert '\n' not in str(e)
        else:
            assert len(stories) == len(endings[0]) == len(endings[1]) == len(labels) <= 4 and set(labels) <= {0, 1}
            assert all(text.strip() for field in (stories, *endings) for text in field)
    is_named()


@pytest.mark.parametrize('lines, words', [
    (['{"seed": 1}'], 'does not hold the options'), (['3'], 'is not an object'), ([], 'does not hold the options'),
    (['{"seed": 1, "n_iter": 1, "time": 0}', '{"va_acc": "high"}'], 'is not a finite number'),
    (['{"seed": 1, "n_iter": 1, "time": 0}', '{"va_acc": NaN}'], 'is not a finite number'),
    (['{"seed": 1, "n_iter": 1, "time": 0}', '{"va_acc"'], 'is not json')])
def test_a_log_that_is_none_is_named(tmp_path, lines, words):
    path = tmp_path / 'x.jsonl'
    path.write_text(''.join(f'{line}\n' for line in lines))
    with pytest.raises(ValueError, match=words) as raised:
        analysis.main(analysis.parse_args([str(path)]))
    assert str(path) in str(raised.value)


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('{"lr": 1}\n{"va_acc": 50.0}\n{"va_acc": 6')
    assert analysis.read_log(str(path)) == [{'lr': 1}, {'va_acc': 50.}]


@pytest.mark.parametrize('text', ['index\tprediction\n0\tx\n', 'index\tprediction\n0\n', 'index\tprediction\n0\t"a\n',
                                  'x' * 200_000, 'x', '', 'index\tprediction\n0\t\0\n', 'index\tanswer\n0\t1\n'])
def test_predictions_that_are_none_are_named(tmp_path, text):
    path = tmp_path / 'p.tsv'
    path.write_text(text)
    with pytest.raises(ValueError, match='p.tsv is not a submission') as raised:
        analysis.read_predictions(str(path))
    assert '\n' not in str(raised.value)


def test_a_wrong_number_of_predictions_is_named(folder):
    np.savetxt('submission/ROCStories.tsv', np.zeros((3, 2)), '%d', '\t', header='index\tprediction', comments='')
    with pytest.raises(ValueError, match='has 3 predictions'):
        analysis.rocstories('.', 'submission/ROCStories.tsv', 'log/done.jsonl')
