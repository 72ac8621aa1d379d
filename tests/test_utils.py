import argparse
import importlib.metadata
import json

import numpy as np
import pytest

from device import choose_device
from model_pytorch import DEFAULT_CONFIG
from utils import (
    ResultLogger,
    add_model_args,
    add_path_args,
    defaults_of_model,
    encode_dataset,
    encode_once,
    finish_paths,
    iter_data,
    make_path,
    run_script,
    write_whole,
)


class Lengths:
    def encode(self, texts):
        return [[len(text)] for text in texts]


def test_only_text_fields_are_encoded():
    train, test = encode_dataset((['a', 'bb'], ['ccc'], [1, 0]), (['dddd'], []), encoder=Lengths())
    assert train == [[[1], [2]], [[3]], [1, 0]] and test == [[[4]], []]


def encode_again(tmp_path, *splits, encoder=None):
    return encode_once(*splits, encoder=encoder, files=[tmp_path / 'merges'], folder=str(tmp_path / 'kept'))


def test_ids_are_remembered_for_exactly_what_they_came_from(tmp_path, monkeypatch):
    splits = ([['a', 'bb'], [1, 0]], [['ccc']])
    (tmp_path / 'merges').write_text('1')
    encoded = encode_again(tmp_path, *splits, encoder=Lengths())
    assert encoded == encode_dataset(*splits, encoder=Lengths())
    assert encode_again(tmp_path, *splits) == encoded                   # without an encoder, which None is
    for other in (([['a', 'bc'], [1, 0]], [['ccc']]), ([['a'], [1, 0]], [['bb', 'ccc']])):
        with pytest.raises(AttributeError):
            encode_again(tmp_path, *other)
    (tmp_path / 'merges').write_text('2')
    with pytest.raises(AttributeError):
        encode_again(tmp_path, *splits)
    (tmp_path / 'merges').write_text('1')
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: version(name) + '.1' * (name == 'ftfy'))
    with pytest.raises(AttributeError):
        encode_again(tmp_path, *splits)


def test_remembered_ids_that_were_damaged_are_not_believed(tmp_path):
    splits = [[['a', 'bb'], [1, 0]]]
    (tmp_path / 'merges').write_text('1')
    encoded = encode_again(tmp_path, *splits, encoder=Lengths())
    [kept] = (tmp_path / 'kept').iterdir()
    whole = kept.read_bytes()
    for damaged in (b'', whole[:-1], whole.replace(b'[2]', b'[3]'), whole + b'\n', b'\xff' + whole):
        kept.write_bytes(damaged)
        with pytest.raises(AttributeError):
            encode_again(tmp_path, *splits)
        assert encode_again(tmp_path, *splits, encoder=Lengths()) == encoded and kept.read_bytes() == whole


def test_batches():
    x, y = np.arange(7), np.arange(7) * 10
    assert [b.tolist() for b in iter_data(x, n_batch=3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [b.tolist() for b in iter_data(x, n_batch=3, truncate=True)] == [[0, 1, 2], [3, 4, 5]]
    assert [(a.tolist(), b.tolist()) for a, b in iter_data(x, y, n_batch=4)] == [
        ([0, 1, 2, 3], [0, 10, 20, 30]), ([4, 5, 6], [40, 50, 60])]
    assert len(list(iter_data(x, n_batch=2, max_batches=2))) == 2


def test_log_is_one_json_object_a_line_and_complete_at_once(tmp_path):
    path = tmp_path / 'new' / 'run.jsonl'
    logger = ResultLogger(str(path), lr=0.1, desc='run')
    logger.log(n_epochs=1, va_acc=50.)
    options, line = map(json.loads, path.read_text().splitlines())     # before it is closed
    assert options['lr'] == 0.1 and line['va_acc'] == 50. and line['time'] >= options['time']


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'a' / 'file'
    with write_whole(str(path)) as f:
        f.write('first')
    with pytest.raises(RuntimeError), write_whole(str(path)) as f:
        f.write('second')
        f.flush()
        raise RuntimeError
    assert path.read_text() == 'first' and len(list(path.parent.iterdir())) == 1


def test_make_path(tmp_path):
    assert make_path(str(tmp_path / 'a' / 'b' / 'f')).endswith('f') and (tmp_path / 'a' / 'b').is_dir()
    assert make_path('f') == 'f'


def test_the_model_folder_sets_defaults_and_the_command_line_wins(tmp_path):
    (tmp_path / 'hparams.json').write_text('{"n_embd": 64, "n_layer": 2}')
    parser = argparse.ArgumentParser()
    add_path_args(parser)
    add_model_args(parser, DEFAULT_CONFIG)
    argv = ['--model_path', str(tmp_path), '--n_layer', '3']
    defaults_of_model(parser, argv)
    args = finish_paths(parser.parse_args(argv))
    assert (args.n_embd, args.n_layer, args.n_head) == (64, 3, 12)
    assert args.encoder_path == str(tmp_path / 'encoder_bpe_40000.json') and args.bpe_path.endswith('vocab_40000.bpe')
    (tmp_path / 'hparams.json').write_text('{"n_heads": 4}')
    with pytest.raises(ValueError, match="hparams.json: 'n_heads' is no option"):
        defaults_of_model(parser, argv)
    (tmp_path / 'hparams.json').write_text('{')
    with pytest.raises(ValueError, match='hparams.json is not a json object'):
        defaults_of_model(parser, argv)


def test_a_device_that_is_not_there_is_named():
    assert choose_device('cpu', 'float32')[0].type == 'cpu'
    with pytest.raises(ValueError, match='--device tpu9'):
        choose_device('tpu9', 'float32')


@pytest.mark.parametrize('error, status, words', [
    (ValueError('n_ctx=4 is short'), 2, 'error: n_ctx=4 is short'),
    (FileNotFoundError('x is missing'), 2, 'x is missing'),
    (ArithmeticError('loss is nan'), 2, 'loss is nan'), (KeyboardInterrupt(), 130, 'interrupted')])
def test_a_mistake_ends_in_one_line(capsys, error, status, words):
    def main(_):
        raise error
    with pytest.raises(SystemExit) as end:
        run_script(main, lambda: None)
    err = capsys.readouterr().err
    assert end.value.code == status and words in err and err.count('\n') == 1


def test_a_bug_keeps_its_traceback():
    def main(_):
        raise TypeError('a bug')
    with pytest.raises(TypeError):
        run_script(main, lambda: None)
