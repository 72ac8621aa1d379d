"""Pre-training on toy text: loss, checkpoints, and the folder of the result."""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import finish, kill, run_two, start
from reference import assert_close, without_noise
from toy import NO_DROPOUT, ROOT, TOY, with_stories

import generate
import pretrain
import train
from common import corpus, workers
from common.checkpoint import Signals
from common.device import Ranks
from model_pytorch import (
    DEFAULT_CONFIG,
    LMModel,
    TransformerModel,
    dotdict,
    load_openai_pretrained_model,
    save_openai_pretrained_model,
)


def argv_for(folder, *argv):
    """Options of a small run on the text in folder/text; argv may replace some of them."""
    return ['--data_dir', f'{folder}/text', '--save_dir', f'{folder}/save', '--log_dir', f'{folder}/log', '--token_dir',
            f'{folder}/tokens', '--desc', 'toy', '--n_embd', '16', '--n_head', '2', '--n_layer', '1', '--n_ctx', '8',
            '--n_iter', '2', '--n_batch', '4', '--micro_batch', '2', '--log_every', '5', '--lr', '1e-2', '--n_proc',
            '1', '--device', 'cpu', *argv]


@pytest.fixture
def run(tmp_path):
    """A function that pre-trains on the files in tmp_path/text."""
    return lambda *argv: pretrain.main(pretrain.parse_args(argv_for(tmp_path, *argv)))


def put(folder, **texts):
    for name, text in texts.items():
        path = folder / 'text' / (name.replace('__', '/') + '.txt')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def random_text(n_lines=120):
    rng = np.random.RandomState(0)
    words = 'the cat dog sat ran and then a big red ball'.split()
    return '\n'.join(' '.join(rng.choice(words, 6)) for _ in range(n_lines))


def tokens_of(folder, *argv):
    return corpus.load_tokens(pretrain.parse_args(argv_for(folder, *argv)))


ENCODER = 'encoder_bpe_40000.json'
VOCABULARY = ['--encoder_path', f'{TOY}/encoder_bpe_40000.json', '--bpe_path', f'{TOY}/vocab_40000.bpe']


def test_the_bar_shows_the_loss_of_the_last_update(run, tmp_path, monkeypatch):
    shown, bars = [], []

    class Bar(workers.tqdm):
        def set_postfix(self, loss, **_):
            bars.append(self)
            shown.append(float(loss))
    monkeypatch.setattr(workers, 'tqdm', Bar)
    put(tmp_path, a=random_text())
    log = run(*VOCABULARY, '--n_iter', '1', '--log_every', '5').log
    assert len(shown) == log[-1]['n_updates'] and len({*map(id, bars)}) == 1
    assert np.mean(shown[:5]) == pytest.approx(log[0]['tr_loss'], abs=1e-3)


def test_a_run_says_what_it_does_and_how_long_it_takes(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workers, 'SAY_EVERY', 0)
    put(tmp_path, a=random_text())
    log = run(*VOCABULARY, '--n_iter', '1', '--log_every', '100').log
    out, err = capsys.readouterr()
    first, columns, *_ = out.splitlines()
    said = re.fullmatch(r'124 tokens in the vocabulary; ([\d,]+) tokens to train on, ([\d,]+) held out; '
                        r'updates 1 to (\d+) of 32 tokens, on cpu', first)
    n_train, n_valid, n_total = (int(text.replace(',', '')) for text in said.groups())
    assert n_train // 32 >= n_total == log[-1]['n_updates'] and n_valid % 8 == 0
    assert columns == 'epochs updates tr_loss va_loss va_ppl tokens/s'
    lines = re.findall(r'updates: (\d+) %, \d\d:\d\d left, loss=\d\.\d{3}\n', err)
    assert len(lines) > n_total // 2 and lines == sorted(lines, key=int)


def test_text_for_which_the_vocabulary_was_not_made_is_named(run, tmp_path, capsys):
    put(tmp_path, a='今天天气很好 the cat\n' * 40)
    run(*VOCABULARY, '--n_iter', '0.1')
    assert re.search(r'warning: \d\d\.\d % of the tokens are not in the vocabulary', capsys.readouterr().out)
    run('--vocab_size', '40', '--n_iter', '0.1', '--desc', 'learned')
    assert 'warning' not in capsys.readouterr().out


def test_a_repeated_text_is_learned(run, tmp_path):
    pytest.importorskip('subword_nmt')
    put(tmp_path, a='one two three four five six\n' * 200)     # a repeated sequence of 7 tokens
    result = run('--vocab_size', '80', '--n_iter', '4', '--n_batch', '4', '--micro_batch', '4', '--log_every', '10',
                 '--embd_pdrop', '0')
    perplexities = [line['va_ppl'] for line in result.log]
    assert perplexities[0] > 2 and perplexities[-1] < 1.1
    assert result.log[-1]['tr_loss'] < 0.2              # mean over the last updates only


def test_validation_perplexity_by_hand(run, tmp_path):
    """The last sequence of the text, token by token through LMModel; the log describes the written weights."""
    put(tmp_path, a=random_text())
    result = run(*VOCABULARY)
    tokens, _, n_vocab = tokens_of(tmp_path, *VOCABULARY)
    model = LMModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=1), vocab=n_vocab + 8, n_ctx=8).eval()
    load_openai_pretrained_model(model, path=result.path)
    n_valid = (len(tokens) - 1) // 8 // 100
    assert n_valid >= 1
    losses = []
    for i in range(n_valid):
        end = len(tokens) - 8 * i
        ids = torch.from_numpy(tokens[end - 9:end].astype(np.int64))
        x = torch.stack([ids[:-1], torch.arange(n_vocab, n_vocab + 8)], dim=1)
        losses += F.cross_entropy(model(x)[0], ids[1:], reduction='none').tolist()
    assert result.log[-1]['va_ppl'] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


def test_training_loss_and_gradient_are_the_plain_models(tmp_path):
    """LMLoss in two towers against cross entropy over all logits at once."""
    cfg = dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=2)
    model = LMModel(cfg, vocab=58, n_ctx=8).eval()
    tokens = torch.randint(50, (4, 9))
    x = torch.stack([tokens[:, :-1], torch.arange(50, 58).expand(4, 8)], dim=-1)
    plain = F.cross_entropy(model(x).flatten(0, 1), tokens[:, 1:].flatten())
    plain.backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    losses = [pretrain.LMLoss(model.transformer)(part, 32) for part in tokens.split(2)]
    sum(losses).backward()
    assert sum(losses).item() == pytest.approx(plain.item(), abs=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-6, rtol=0)


def test_one_draw_of_the_table_a_step(monkeypatch):
    model = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=1), vocab=58, n_ctx=8)
    drawn = []
    model.drop.register_forward_hook(lambda *_: drawn.append(1))
    pretrain.LMLoss(model)(torch.randint(50, (4, 9)), 32)
    assert len(drawn) == 1


def test_every_epoch_sees_the_training_text_from_another_offset(run, tmp_path, monkeypatch):
    put(tmp_path, a=random_text())
    tokens, _, _ = tokens_of(tmp_path, *VOCABULARY)
    seen, update = [], pretrain.update
    monkeypatch.setattr(pretrain, 'update', lambda model, opt, batch, *rest: (
        seen.append(batch), update(model, opt, batch, *rest))[1])
    run(*VOCABULARY)
    first, second = (torch.cat(seen[i:i + len(seen) // 2]) for i in (0, len(seen) // 2))
    n_sequences = (len(tokens) - 1) // 8
    n_train = n_sequences - n_sequences // 100
    assert len(first) == len(second) == n_train // 4 * 4
    ring = tokens[:len(tokens) - 1 - 8 * (n_sequences // 100)].tolist()
    ring = ' '.join(map(str, ring + ring[:8])) + ' '
    assert all(' '.join(map(str, row)) + ' ' in ring for row in first.tolist() + second.tolist())
    assert {tuple(row) for row in first.tolist()} != {tuple(row) for row in second.tolist()}


def lines_of(folder):
    """The log without times."""
    lines = (json.loads(line) for line in (folder / 'log' / 'toy.jsonl').read_text().splitlines())
    return [{key: value for key, value in line.items() if key in ('n_updates', 'n_epochs', 'tr_loss', 'va_loss')}
            for line in lines]


def shards(folder):
    return [(folder / 'save' / 'toy' / f'params_{i}.npy').read_bytes() for i in range(10)]


EVERY_UPDATE = ['--checkpoint_minutes', '0']


def start_run(folder, *argv, **kwargs):
    return start(folder, argv_for(folder, *VOCABULARY, '--n_iter', '4', *argv), name='pretrain', **kwargs)


@pytest.fixture
def whole(run, tmp_path):
    """The shards and the log of an uninterrupted run. Later runs of that name rename its folder."""
    put(tmp_path, a=random_text(60))
    run(*VOCABULARY, '--n_iter', '4')
    return shards(tmp_path), lines_of(tmp_path)


@pytest.mark.parametrize('number, where, n, n_updates', [
    (signal.SIGTERM, 'update', 7, 6), (signal.SIGINT, 'evaluate', 2, 10),
    (signal.SIGTERM, 'LMLoss', 18, 8),                  # the first half of update 9, which is then dropped
    (signal.SIGTERM, 'LMLoss', 1, 0)])                  # before any update the optimizer has no state
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(run, tmp_path, whole, number, where, n, n_updates):
    process = start_run(tmp_path, signal_at=(number, where, n))
    finish(process, 128 + number)
    assert f'stopped after update {n_updates} of' in (tmp_path / 'err').read_text()
    assert 'with --resume continues' in (tmp_path / 'err').read_text()
    assert len(lines_of(tmp_path)) == 1 + n_updates // 5 - (where == 'evaluate')  # a validation is broken off
    options = [*VOCABULARY, '--n_iter', '4']
    with pytest.raises(ValueError, match='interrupted run: add --resume'):
        run(*options)
    with pytest.raises(ValueError, match='--lr 0.01, now 0.02'):
        run(*options, '--resume', '--lr', '2e-2')
    run(*options, '--resume')
    assert shards(tmp_path) == whole[0] and lines_of(tmp_path) == whole[1] and len(whole[1]) > 4
    assert not (tmp_path / 'save' / 'toy' / 'checkpoint.pt').exists() and (tmp_path / 'save' / 'toy.1').exists()


@pytest.mark.parametrize('n_kills', [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_gives_the_same_bits(tmp_path, whole, n_kills):
    """While it starts, trains, validates or writes. A run is complete when all its shards are written."""
    moments, kills, began = random.Random(3), 0, tmp_path / 'began'
    while kills < n_kills:
        began.unlink(missing_ok=True)
        process = start_run(tmp_path, '--resume', *EVERY_UPDATE, touch_at_update=began)
        while process.exitcode is None and not began.exists():
            time.sleep(0.001)
        process.join(moments.uniform(0, 0.15))
        if kill(process):
            kills += 1
        else:
            assert shards(tmp_path) == whole[0] and lines_of(tmp_path) == whole[1]
            shutil.rmtree(tmp_path / 'save' / 'toy')
    finish(start_run(tmp_path, '--resume', *EVERY_UPDATE), 0)
    assert shards(tmp_path) == whole[0] and lines_of(tmp_path) == whole[1]


def test_a_run_whose_shards_are_not_all_written_is_not_complete(run, tmp_path, whole, monkeypatch):
    """If the disk was full after some shards, the run continues from its checkpoint."""
    options, save = [*VOCABULARY, '--n_iter', '4'], pretrain.save_openai_pretrained_model

    def disk_full(model, folder):
        save(model, folder)
        for i in range(4, 10):
            Path(folder, f'params_{i}.npy').unlink()
        raise OSError(28, 'No space left on device', f'{folder}/params_4.npy')

    monkeypatch.setattr(pretrain, 'save_openai_pretrained_model', disk_full)
    with pytest.raises(OSError, match='No space left on device'):
        run(*options)
    monkeypatch.undo()
    assert run(*options, '--resume').model is not None and shards(tmp_path) == whole[0]
    assert run(*options, '--resume').model is None                     # complete: there is nothing to do
    (tmp_path / 'save' / 'toy' / 'results.json').unlink()               # killed before its first checkpoint
    assert run(*options, '--resume').model is not None and shards(tmp_path) == whole[0]


def snapshots(folder):
    """{number of updates: {name of a file: its bytes}}"""
    return {int(path.name): {file.name: file.read_bytes() for file in path.iterdir()}
            for path in (folder / 'save' / 'toy' / 'snapshots').iterdir()}


def test_snapshots_are_model_paths_and_the_same_after_an_interruption(run, tmp_path):
    put(tmp_path, a=random_text(60))
    argv = ['--snapshots', '5', *EVERY_UPDATE]
    n_total = run(*VOCABULARY, '--n_iter', '4', *argv).log[-1]['n_updates']
    folder = tmp_path / 'save' / 'toy'
    whole, result = snapshots(tmp_path), {path.name: path.read_bytes() for path in folder.glob('*.*')}
    assert len(whole) == 5 and {0, 1, n_total} < {*whole} and n_total > 20
    for n, files in whole.items():
        assert sorted(files) == sorted(result)
        generate.main(generate.parse_args(['--model_path', str(folder / 'snapshots' / str(n)), '--prompt', 'the cat']))
    assert all(whole[n_total][name] == result[name] for name in {*result} - {'results.json'})
    assert len({files['params_3.npy'] for files in whole.values()}) > 3      # the first update has rate 0
    finish(start_run(tmp_path, *argv, signal_at=(signal.SIGTERM, 'update', 7)), 143)
    assert 0 < len(snapshots(tmp_path)) < 5
    run(*VOCABULARY, '--n_iter', '4', *argv, '--resume')
    assert snapshots(tmp_path) == whole
    shard = folder / 'snapshots' / '1' / 'params_3.npy'
    shard.write_bytes(shard.read_bytes()[:-1] + b'\1')
    with pytest.raises(ValueError, match='snapshots/1: these weights are not those that were written there'):
        generate.main(generate.parse_args(['--model_path', str(shard.parent), '--prompt', 'the cat']))


@pytest.mark.parametrize('name', ['params_7.npy', 'params_shapes.json', 'hparams.json', 'snapshots/1/params_0.npy'])
@pytest.mark.parametrize('damage', [os.remove, lambda path: path.write_bytes(path.read_bytes() + b' ')])
def test_a_complete_run_names_a_file_that_is_missing_or_changed(run, tmp_path, name, damage):
    put(tmp_path, a=random_text(60))
    argv = [*VOCABULARY, '--snapshots', '3']
    folder = Path(run(*argv).path)
    assert run(*argv, '--resume').model is None
    damage(folder / name)
    with pytest.raises(ValueError, match=f'{name} is not the file that the complete run wrote, or is missing'):
        run(*argv, '--resume')


@pytest.mark.parametrize('vocabulary', [VOCABULARY, ['--vocab_size', '60']])
def test_a_complete_run_is_that_of_the_same_text_only(run, tmp_path, vocabulary):
    put(tmp_path, a=random_text(60))
    run(*vocabulary)
    shutil.rmtree(tmp_path / 'tokens')  # it is not needed any more
    assert run(*vocabulary, '--resume').model is None and not (tmp_path / 'tokens').exists()
    put(tmp_path, a=random_text(61))
    with pytest.raises(ValueError, match='results.json: the complete run had other text'):
        run(*vocabulary, '--resume')


def test_half_an_epoch_makes_half_the_updates(run, tmp_path):
    put(tmp_path, a=random_text())
    whole, half = (run(*VOCABULARY, '--n_iter', n_iter).log[-1] for n_iter in ('1', '0.5'))
    assert half['n_updates'] == round(whole['n_updates'] / 2) > 5 and half['n_epochs'] == pytest.approx(0.5, abs=0.02)


def test_names_that_collide_are_refused_before_anything_is_moved(run, tmp_path, whole):
    tokens = sorted((tmp_path / 'tokens').iterdir())
    with pytest.raises(ValueError, match='--token_dir .*tokens.* lies in .*, which the run would replace'):
        run(*VOCABULARY, '--desc', 'tokens', '--save_dir', str(tmp_path))
    assert sorted((tmp_path / 'tokens').iterdir()) == tokens
    before = shards(tmp_path)
    for argv, name in ((['--model_path', f'{tmp_path}/save/toy'], 'model_path'),
                       (['--encoder_path', f'{tmp_path}/save/toy/{ENCODER}', *VOCABULARY[2:]], 'encoder_path')):
        with pytest.raises(ValueError, match=f'--{name} .* lies in .*/save/toy, which the run would replace'):
            run(*argv)
    assert shards(tmp_path) == before and not (tmp_path / 'save' / 'toy.1').exists()


def test_parameters_that_are_not_finite_are_not_written(run, tmp_path, monkeypatch):
    put(tmp_path, a=random_text(60))
    update, calls = pretrain.update, iter(range(1, 1000))

    def poisoned(runner, *args):
        loss = update(runner, *args)
        if next(calls) == 5:
            runner.model.h[0].mlp.c_fc.w.data[0, 0] = float('inf')
        return loss

    monkeypatch.setattr(pretrain, 'update', poisoned)
    with pytest.raises(ArithmeticError, match='after update 5: lower --lr'):
        run(*VOCABULARY, *EVERY_UPDATE)
    assert 'NaN' not in (tmp_path / 'log' / 'toy.jsonl').read_text()
    assert not list((tmp_path / 'save' / 'toy').glob('*.npy'))


def test_the_result_is_a_model_path(run, tmp_path):
    put(tmp_path, a=random_text())
    result = run(*VOCABULARY, '--n_ctx', '24')
    folder = Path(result.path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f'params_{i}.npy' for i in range(10)), 'params_shapes.json', 'hparams.json', 'encoder_bpe_40000.json',
         'vocab_40000.bpe', 'results.json'])
    loaded = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=1), vocab=124 + 24, n_ctx=24)
    load_openai_pretrained_model(loaded, path=folder)
    for name, p in result.model.named_parameters():
        assert torch.equal(p, loaded.get_parameter(name)), name
    args = train.parse_args(['--model_path', result.path])
    assert (args.n_embd, args.n_head, args.n_layer, args.n_ctx, args.afn) == (16, 2, 1, 24, 'gelu')
    assert args.encoder_path == f'{result.path}/encoder_bpe_40000.json'
    with_stories(tmp_path)
    tuned = train.main(train.parse_args(
        ['--model_path', result.path, '--data_dir', str(tmp_path), '--n_valid', '10', '--n_iter', '1', '--save_dir',
         str(tmp_path / 'tuned'), '--log_dir', str(tmp_path / 'tuned'), '--device', 'cpu']))
    assert tuned.n_updates == 1


WRITTEN = ('encoder_bpe_40000.json', 'vocab_40000.bpe', 'params_3.npy', 'hparams.json')


@pytest.mark.parametrize('name', WRITTEN)
def test_what_is_not_what_was_written_is_refused(run, tmp_path, name):
    """Another vocabulary of the same size, or other weights of the same shape, in the folder of a run."""
    put(tmp_path, a=random_text(60))
    folder = run(*VOCABULARY, '--n_ctx', '24').path
    path = Path(folder, name)
    if name == 'encoder_bpe_40000.json':
        tokens = json.loads(path.read_text())
        path.write_text(json.dumps(dict(zip(tokens, list(tokens.values())[::-1], strict=True))))
    elif name == 'params_3.npy':
        np.save(path, np.load(path) + 1e-3)
    elif name == 'hparams.json':
        path.write_text(path.read_text().replace('"n_head": 2', '"n_head": 4'))
    else:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text(''.join([lines[0], *lines[:0:-1]]))
    with_stories(tmp_path)
    what = dict(zip(WRITTEN, ('vocabulary', 'merges', 'weights', 'hparams'), strict=True))[name]
    for main in (lambda: run('--model_path', folder, '--desc', 'more'),
                 lambda: generate.main(generate.parse_args(['--model_path', folder, '--prompt', 'the cat'])),
                 lambda: train.main(train.parse_args(['--model_path', folder, '--data_dir', str(tmp_path), '--n_valid',
                                                      '10', '--save_dir', str(tmp_path), '--log_dir', str(tmp_path)]))):
        with pytest.raises(ValueError, match=f'these {what} are not those that were written there'):
            main()


def test_init_goes_on_from_given_weights(run, tmp_path):
    """With --lr 0 the weights stay the same bits. Vocabulary and sizes are those of the folder."""
    put(tmp_path, a=random_text())
    first = run(*VOCABULARY)
    again = pretrain.main(pretrain.parse_args(
        ['--data_dir', f'{tmp_path}/text', '--save_dir', f'{tmp_path}/save', '--log_dir', f'{tmp_path}/log',
         '--token_dir', f'{tmp_path}/tokens', '--desc', 'more', '--model_path', first.path, '--n_iter', '1',
         '--lr', '0', '--n_proc', '1']))
    for i in range(10):
        assert Path(again.path, f'params_{i}.npy').read_bytes() == Path(first.path, f'params_{i}.npy').read_bytes()
    assert again.log[0]['va_ppl'] == pytest.approx(first.log[-1]['va_ppl'])
    adapted = run('--model_path', first.path, '--desc', 'other', '--n_ctx', '6')
    assert adapted.log[-1]['va_loss'] < first.log[0]['va_loss']


def test_a_run_goes_on_only_from_the_weights_that_it_began_with(run, tmp_path, monkeypatch):
    """In another place they may lie."""
    put(tmp_path, a=random_text())
    one, other = run(*VOCABULARY, '--desc', 'one').path, run(*VOCABULARY, '--desc', 'other', '--seed', '1').path
    moved = shutil.copytree(one, tmp_path / 'moved')
    argv = ['--desc', 'more', *EVERY_UPDATE, '--resume', '--model_path']
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(pretrain, 'validate', lambda *_: sys.exit())  # after the checkpoint of update 4
        run(*argv, one)
    with pytest.raises(ValueError, match='had other data, another vocabulary or other weights'):
        run(*argv, other)
    assert run(*argv, str(moved)).log[-1]['n_updates'] > 5
    assert run(*argv, one).model is None  # it is complete
    with pytest.raises(ValueError, match='or other weights to start from: choose another --desc'):
        run(*argv, other)


@pytest.mark.parametrize('n_snapshots, updates', [
    (0, set()), (1, {19}), (2, {0, 19}), (3, {0, 1, 19}), (5, {0, 1, 3, 7, 19})])
def test_snapshots_are_as_many_as_were_asked_for(n_snapshots, updates):
    assert pretrain.snapshots_of(n_snapshots, 19) == updates


@pytest.mark.parametrize('n_special', [0, 3])
def test_weights_written_are_weights_read(tmp_path, n_special):
    model = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=12, n_head=3, n_layer=3), vocab=31 + n_special + 7, n_ctx=7)
    for p in model.parameters():
        torch.nn.init.normal_(p)
    save_openai_pretrained_model(model, tmp_path, n_special=n_special)
    other = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=12, n_head=3, n_layer=3), vocab=31 + 7, n_ctx=7)
    load_openai_pretrained_model(other, path=tmp_path)
    keep = [*range(31), *range(31 + n_special, 38 + n_special)]
    assert torch.equal(other.embed.weight, model.embed.weight[keep])
    for name, p in other.h.named_parameters():
        assert torch.equal(p, model.h.get_parameter(name)), name
    assert not list(tmp_path.glob('*.part'))


def test_the_released_layout_is_written_byte_for_byte(tmp_path):
    """The toy release, loaded and written again: the same shards and shapes."""
    model = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=4, n_layer=3), vocab=148, n_ctx=24)
    load_openai_pretrained_model(model, path=TOY)
    save_openai_pretrained_model(model, tmp_path)
    for i in range(10):
        np.testing.assert_array_equal(np.load(tmp_path / f'params_{i}.npy'), np.load(TOY / f'params_{i}.npy'))
    shapes, theirs = (json.loads((folder / 'params_shapes.json').read_text()) for folder in (tmp_path, TOY))
    assert shapes == theirs


@pytest.mark.parametrize('texts, argv, words', [
    (dict(a='the cat'), VOCABULARY, 'tokens, too few .* n_ctx=8: it could be [1-7]'),
    (dict(a='abc'), ['--vocab_size', '50', *VOCABULARY], 'give one vocabulary'),
    (dict(a='abc'), [], 'give one vocabulary'),
    (dict(a='abc'), ['--model_path', 'absent'], 'absent/encoder_bpe_40000.json'),
    (dict(a='the cat sat\n' * 20), ['--model_path', str(TOY), *VOCABULARY, '--n_ctx', '25', '--n_head', '4'],
     '24 positions'),
    (dict(a='abc'), [*VOCABULARY, '--n_batch', '0'], '--n_batch: 0'),
    (dict(a='abc'), [*VOCABULARY, '--micro_batch', '-1'], '--micro_batch: -1'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--lr', '-1'], '--lr: -1'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--n_head', '3'], 'n_head=3'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--attn_pdrop', '2'], '--attn_pdrop: 2'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--lr', '1e30'], 'after update .*: lower --lr')])
def test_a_mistake_gets_one_line(run, tmp_path, texts, argv, words):
    put(tmp_path, **texts)
    with pytest.raises((ValueError, OSError, ArithmeticError), match=words) as error:
        run(*argv)
    assert '\n' not in str(error.value)


def test_weights_of_another_vocabulary(run, tmp_path):
    put(tmp_path, a=random_text(40))
    tokens = json.loads((TOY / 'encoder_bpe_40000.json').read_text())
    (tmp_path / 'encoder.json').write_text(json.dumps({**tokens, 'more': len(tokens)}))
    with pytest.raises(ValueError, match='encoder.json has 125 tokens, the weights in .* are for 124'):
        run('--model_path', str(TOY), '--encoder_path', str(tmp_path / 'encoder.json'), '--n_head', '4',
            '--n_layer', '3')


def test_defaults_are_the_papers():
    args = pretrain.parse_args(['--data_dir', 'books', '--vocab_size', '40478'])
    paper = dict(n_ctx=512, n_batch=64, micro_batch=8, lr=2.5e-4, lr_warmup=2000, n_iter=100, l2=0.01, max_grad_norm=1,
                 n_embd=768, n_head=12, n_layer=12, embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1, afn='gelu')
    assert {name: getattr(args, name) for name in paper} == paper


def two_argv(folder, *argv):
    return argv_for(folder, *VOCABULARY, '--n_iter', '4', '--n_batch', '8', '--micro_batch', '2', '--desc', 'two',
                    *argv)


def weights_of(folder, desc):
    model = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=1), vocab=124 + 8, n_ctx=8)
    load_openai_pretrained_model(model, path=folder / 'save' / desc)
    return model.state_dict()


def test_two_processes_train_and_validate_as_one(run, tmp_path):
    put(tmp_path, a=random_text())
    one = run(*VOCABULARY, *NO_DROPOUT[:3], '--n_iter', '4', '--n_batch', '8', '--micro_batch', '2')
    run_two(tmp_path, *two_argv(tmp_path, *NO_DROPOUT[:3]), name='pretrain')
    assert '.' in (tmp_path / 'out0').read_text() and not (tmp_path / 'out1').read_text()
    two = json.loads((tmp_path / 'save' / 'two' / 'results.json').read_text())['log']
    assert len(two) == len(one.log) > 4 and two[-1]['n_updates'] == one.log[-1]['n_updates'] >= 20
    for name in ('tr_loss', 'va_loss', 'n_epochs', 'n_updates'):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one.log], abs=1e-6), name
    ours, theirs = (weights_of(tmp_path, desc) for desc in ('two', 'toy'))
    for name in ours:
        assert_close(without_noise(name, ours[name]), without_noise(name, theirs[name]), atol=1e-6, what=name)


def test_two_processes_stop_together_and_go_on_to_the_same_bits(tmp_path):
    """Each draws its own dropout, and has its generator in the checkpoint."""
    put(tmp_path, a=random_text(60))
    run_two(tmp_path, *two_argv(tmp_path, '--desc', 'toy'), name='pretrain')
    whole = shards(tmp_path), lines_of(tmp_path)
    stopped = two_argv(tmp_path, '--desc', 'toy', '--resume')
    shutil.rmtree(tmp_path / 'save' / 'toy')
    run_two(tmp_path, *stopped, name='pretrain', status=143, signal_at=(signal.SIGTERM, 'LMLoss', 14))
    assert 'stopped after update 7 of' in (tmp_path / 'err1').read_text()
    run_two(tmp_path, *stopped, name='pretrain')
    assert (shards(tmp_path), lines_of(tmp_path)) == whole


def test_a_killed_process_ends_the_others_and_the_run_goes_on_to_the_same_bits(tmp_path):
    put(tmp_path, a=random_text(60))
    run_two(tmp_path, *two_argv(tmp_path, '--desc', 'toy'), name='pretrain')
    whole = shards(tmp_path), lines_of(tmp_path)
    argv = two_argv(tmp_path, '--desc', 'toy', '--resume', *EVERY_UPDATE)
    shutil.rmtree(tmp_path / 'save' / 'toy')
    began = time.monotonic()
    run_two(tmp_path, *argv, name='pretrain', status=(2, -signal.SIGKILL), signal_at=(signal.SIGKILL, 'update', 7))
    assert time.monotonic() - began < 30 and 'error: another process of this run has ended' in (
        tmp_path / 'err0').read_text()
    run_two(tmp_path, *argv, name='pretrain')
    assert (shards(tmp_path), lines_of(tmp_path)) == whole


@pytest.mark.parametrize('argv, words', [
    (['--n_batch', '5'], '2 processes cannot share the 5 sequences of an update equally'),
    (['--n_batch', '200'], '2 processes cannot share the 11 sequences of an update equally')])
def test_processes_that_cannot_share_the_sequences_are_told_so(tmp_path, argv, words):
    put(tmp_path, a='the cat sat on the red ball\n' * 9)                # 11 sequences to train on
    run_two(tmp_path, *two_argv(tmp_path, *argv), name='pretrain', status=2)
    for rank in (0, 1):
        assert re.search(words, (tmp_path / f'err{rank}').read_text())


def test_processes_that_see_different_checkpoints_end(monkeypatch):
    """As with folders that two machines do not share."""
    ranks = Ranks()
    ranks.agree('checkpoints', 7)
    monkeypatch.setattr(ranks, 'gather', lambda value: [value, 0])
    with pytest.raises(ValueError, match='the processes have different checkpoints: give all machines the same'):
        ranks.agree('checkpoints', 7)


def test_a_signal_is_acknowledged_at_once(capfd):
    signals = Signals()
    signals.catch()
    os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err.endswith(': signal received: saving and stopping, a second one ends at once\n')
    assert signals.received == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
def test_one_failing_process_ends_the_run_with_its_own_message(tmp_path):
    """A real torchrun, whose process 1 alone fails in update 3."""
    put(tmp_path, a=random_text())
    (tmp_path / 'one_fails.py').write_text(
        'import os, pretrain\n'
        'from common.shell import run_script\n'
        'update, calls = pretrain.update, iter(range(1, 1000))\n'
        'def failing(*args):\n'
        '    if next(calls) == 3 and os.environ["RANK"] == "1":\n'
        '        raise ValueError("bad luck in process 1")\n'
        '    return update(*args)\n'
        'pretrain.update = failing\n'
        'run_script(pretrain.main, pretrain.parse_args())\n')
    began = time.monotonic()
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
                           str(tmp_path / 'one_fails.py'), *two_argv(tmp_path)], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
    assert done.returncode != 0 and 'error: bad luck in process 1' in done.stderr
    assert done.stderr.count('Traceback') <= 1          # torchrun's own
    assert time.monotonic() - began < 120
