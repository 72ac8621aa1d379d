"""Pre-training on toy text: loss, checkpoints, and the folder that comes out."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import GOLDENS
from test_datasets import write
from test_train import toy_stories

import corpus
import pretrain
import train
from datasets import TEST_NAME, VAL_NAME
from model_pytorch import (
    DEFAULT_CONFIG,
    LMModel,
    TransformerModel,
    dotdict,
    load_openai_pretrained_model,
    save_openai_pretrained_model,
)

ROOT = Path(__file__).parents[1]
TOY = GOLDENS / 'loader' / 'model'                     # 124 tokens, 24 positions, 3 blocks 16 wide


def argv_for(folder, *argv):
    """Options of a small run on the text in folder/text; some of them are replaced by argv."""
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


VOCABULARY = ['--encoder_path', f'{TOY}/encoder_bpe_40000.json', '--bpe_path', f'{TOY}/vocab_40000.bpe']


def test_a_repeated_text_is_learned(run, tmp_path):
    pytest.importorskip('subword_nmt')
    put(tmp_path, a='one two three four five six\n' * 200)     # 7 tokens again and again
    result = run('--vocab_size', '80', '--n_iter', '4', '--micro_batch', '4', '--log_every', '10', '--embd_pdrop', '0')
    perplexities = [line['va_ppl'] for line in result.log]
    assert perplexities[0] > 2 and perplexities[-1] < 1.1
    assert result.log[-1]['tr_loss'] < 0.2              # of the last updates alone


def test_validation_perplexity_by_hand(run, tmp_path):
    """The last sequence of the text, token by token through LMModel; the log is of the weights that were written."""
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
    """lm_loss in two micro-batches against cross entropy over all logits at once."""
    cfg = dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=2)
    model = LMModel(cfg, vocab=58, n_ctx=8).eval()
    tokens = torch.randint(50, (4, 9))
    x = torch.stack([tokens[:, :-1], torch.arange(50, 58).expand(4, 8)], dim=-1)
    plain = F.cross_entropy(model(x).flatten(0, 1), tokens[:, 1:].flatten())
    plain.backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    losses = [pretrain.lm_loss(model.transformer, part, 32) for part in tokens.split(2)]
    sum(losses).backward()
    assert sum(losses).item() == pytest.approx(plain.item(), abs=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-6, rtol=0)


def test_one_draw_of_the_table_a_step(monkeypatch):
    model = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=1), vocab=58, n_ctx=8)
    drawn = []
    model.drop.register_forward_hook(lambda *_: drawn.append(1))
    pretrain.lm_loss(model, torch.randint(50, (4, 9)), 32)
    assert len(drawn) == 1


def test_every_epoch_sees_the_training_text_from_another_offset(run, tmp_path, monkeypatch):
    put(tmp_path, a=random_text())
    tokens, _, _ = tokens_of(tmp_path, *VOCABULARY)
    seen, update = [], pretrain.Run.update
    monkeypatch.setattr(pretrain.Run, 'update', lambda self, batch: (seen.append(batch), update(self, batch))[1])
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
    """The log but for times."""
    lines = (json.loads(line) for line in (folder / 'log' / 'toy.jsonl').read_text().splitlines())
    return [{key: value for key, value in line.items() if key in ('n_updates', 'n_epochs', 'tr_loss', 'va_loss')}
            for line in lines]


def shards(folder):
    return [(folder / 'save' / 'toy' / f'params_{i}.npy').read_bytes() for i in range(10)]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_to_the_same_bits(run, tmp_path, number):
    put(tmp_path, a=random_text(60))
    options = [*VOCABULARY, '--n_iter', '4', '--checkpoint_minutes', '0']
    with subprocess.Popen([sys.executable, ROOT / 'pretrain.py', *argv_for(tmp_path, *options)], cwd=ROOT,
                          stderr=subprocess.PIPE, text=True) as process:
        log, deadline = tmp_path / 'log' / 'toy.jsonl', time.time() + 60
        while process.poll() is None and time.time() < deadline:
            if log.exists() and log.read_text().count('va_ppl') >= 2:
                break
            time.sleep(0.01)
        process.send_signal(number)
        error = process.communicate()[1]
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    assert number == signal.SIGKILL or 'with --resume continues' in error
    options = options[:-2]
    with pytest.raises(ValueError, match='interrupted run: add --resume'):
        run(*options)
    with pytest.raises(ValueError, match='--lr 0.01, now 0.02'):
        run(*options, '--resume', '--lr', '2e-2')
    run(*options, '--resume')
    resumed, resumed_log = shards(tmp_path), lines_of(tmp_path)
    assert not (tmp_path / 'save' / 'toy' / 'checkpoint.pt').exists()
    run(*options)
    assert shards(tmp_path) == resumed and lines_of(tmp_path) == resumed_log and len(resumed_log) > 4
    assert (tmp_path / 'save' / 'toy.1').exists()


def test_the_result_is_a_model_path(run, tmp_path):
    put(tmp_path, a=random_text())
    result = run(*VOCABULARY, '--n_ctx', '24')
    folder = Path(result.path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f'params_{i}.npy' for i in range(10)), 'params_shapes.json', 'hparams.json', 'encoder_bpe_40000.json',
         'vocab_40000.bpe'])
    loaded = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=1), vocab=124 + 24, n_ctx=24)
    load_openai_pretrained_model(loaded, path=folder)
    for name, p in result.model.named_parameters():
        assert torch.equal(p, loaded.get_parameter(name)), name
    args = train.parse_args(['--model_path', result.path])
    assert (args.n_embd, args.n_head, args.n_layer, args.n_ctx, args.afn) == (16, 2, 1, 24, 'gelu')
    assert args.encoder_path == f'{result.path}/encoder_bpe_40000.json'
    write(tmp_path / VAL_NAME, toy_stories(50, 0))
    write(tmp_path / TEST_NAME, toy_stories(11, 1))
    tuned = train.main(train.parse_args(
        ['--model_path', result.path, '--data_dir', str(tmp_path), '--n_valid', '10', '--n_iter', '1', '--save_dir',
         str(tmp_path / 'tuned'), '--log_dir', str(tmp_path / 'tuned'), '--device', 'cpu']))
    assert tuned.n_updates == 1


def test_init_goes_on_from_given_weights(run, tmp_path):
    """Without a step of any size the weights stay as they were, to the bit; vocabulary and sizes are the folder's."""
    put(tmp_path, a=random_text())
    first = run(*VOCABULARY)
    again = pretrain.main(pretrain.parse_args(
        ['--data_dir', f'{tmp_path}/text', '--save_dir', f'{tmp_path}/save', '--log_dir', f'{tmp_path}/log',
         '--token_dir', f'{tmp_path}/tokens', '--desc', 'more', '--init', first.path, '--n_iter', '1', '--lr', '0',
         '--n_proc', '1']))
    for i in range(10):
        assert Path(again.path, f'params_{i}.npy').read_bytes() == Path(first.path, f'params_{i}.npy').read_bytes()
    assert again.log[0]['va_ppl'] == pytest.approx(first.log[-1]['va_ppl'])
    adapted = run('--init', first.path, '--desc', 'other', '--n_ctx', '6')
    assert adapted.log[-1]['va_loss'] < first.log[0]['va_loss']


@pytest.mark.parametrize('n_special', [0, 3])
def test_weights_written_are_weights_read(tmp_path, n_special):
    model = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=12, n_head=3, n_layer=3), vocab=31 + n_special + 7, n_ctx=7)
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=1, std=0.2)                       # gains are positive, or they are not believed
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
    (dict(a='abc'), ['--init', 'absent'], 'absent/encoder_bpe_40000.json'),
    (dict(a='the cat sat\n' * 20), ['--init', str(TOY), *VOCABULARY, '--n_ctx', '25', '--n_head', '4'], '24 positions'),
    (dict(a='abc'), [*VOCABULARY, '--n_batch', '0'], '--n_batch 0'),
    (dict(a='abc'), [*VOCABULARY, '--micro_batch', '-1'], '--micro_batch -1'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--lr', '-1'], 'lr=-1'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--n_head', '3'], 'n_head=3'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--attn_pdrop', '2'], 'dropout'),
    (dict(a='the cat sat\n' * 20), [*VOCABULARY, '--lr', '1e30'], 'the loss is nan .* lower --lr')])
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
        run('--init', str(TOY), '--encoder_path', str(tmp_path / 'encoder.json'), '--n_head', '4', '--n_layer', '3')


def test_defaults_are_the_papers():
    args = pretrain.parse_args(['--data_dir', 'books', '--vocab_size', '40478'])
    paper = dict(n_ctx=512, n_batch=64, lr=2.5e-4, n_warmup=2000, n_iter=100, l2=0.01, max_grad_norm=1, n_embd=768,
                 n_head=12, n_layer=12, embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1, afn='gelu')
    assert {name: getattr(args, name) for name in paper} == paper
