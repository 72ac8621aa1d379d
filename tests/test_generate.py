"""generate.py: the cache against the plain model, the drawn tokens, and the command line."""

import io
import json
import re
import sys

import pytest
import torch
from reference import assert_close, needs_float16, toy_language_model
from toy import TOY, VOCABULARY, toy_run, with_stories

import generate
from common.trained import open_trained
from generate import CachedModel, logits_to_probs, main, parse_args, sample
from zero_shot import with_positions

SIZE = ['--n_embd', '16', '--n_head', '4', '--n_layer', '3', '--device', 'cpu']
N_VOCAB = 124


def toy_args(*argv):
    return parse_args(['--model_path', str(TOY), *SIZE, *argv])


@pytest.fixture
def toy():
    return toy_language_model()


def plain_logits(transformer, ids):
    """Logits (N, T, n_vocab) of the whole sequences (N, T), without a cache."""
    with torch.no_grad():
        return transformer(with_positions(transformer, ids)) @ transformer.embed.weight[:N_VOCAB].T


@pytest.mark.parametrize('pieces', [[24], [1] * 24, [9] + [1] * 15, [5, 1, 7, 11]], ids=str)
def test_cached_logits_are_those_of_the_plain_model(toy, pieces):
    transformer, _ = toy
    ids = torch.randint(N_VOCAB, (3, 24), generator=torch.Generator().manual_seed(0))
    expected = plain_logits(transformer, ids)
    model, end = CachedModel(transformer, N_VOCAB, n_samples=3), 0
    for piece in ids.split(pieces, dim=1):
        end += piece.size(1)
        assert_close(model(piece), expected[:, end - 1], atol=1e-5)


def test_samples_share_the_prompt(toy):
    transformer, _ = toy
    ids = torch.randint(N_VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
    ids[:, :7] = ids[0, :7]
    expected, model = plain_logits(transformer, ids), CachedModel(transformer, N_VOCAB, n_samples=3)
    assert_close(model(ids[:1, :7]), expected[:1, 6], atol=1e-5)
    for t in range(7, 12):
        assert_close(model(ids[:, t:t + 1]), expected[:, t], atol=1e-5)


def test_greedy_continuation_is_that_of_recomputing_the_prefix(toy):
    transformer, _ = toy
    for prompt in ([40, 64, 84], [5], [1, 2, 3, 4, 5, 6, 7, 8, 9]):
        ids = torch.tensor([prompt])
        while ids.size(1) < 24:
            ids = torch.cat([ids, plain_logits(transformer, ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
        made = [int(i) for i in sample(transformer, N_VOCAB, prompt, 100, temperature=0)]
        assert prompt + made == ids[0].tolist()


def test_position_and_special_rows_are_never_drawn(tmp_path):
    """Not even if they were by far the most probable ones."""
    transformer = open_trained(parse_args(fine_tuned(tmp_path))).model.transformer
    with torch.no_grad():
        transformer.embed.weight[N_VOCAB:] *= 50
        h = transformer(with_positions(transformer, torch.tensor([[40, 64, 84]])))
        logits = (h @ transformer.embed.weight.T)[0, -1]
    assert logits.argmax() >= N_VOCAB
    drawn = torch.stack(list(sample(transformer, N_VOCAB, [40, 64, 84], 10, n_samples=500, temperature=5.)))
    assert drawn.max() < N_VOCAB and len(drawn.unique()) > 100


PROBS = torch.tensor([[.1, .4, .2, .3]])


@pytest.mark.parametrize('options, expected', [
    ({}, [.1, .4, .2, .3]),
    (dict(temperature=0), [0, 1, 0, 0]),
    (dict(temperature=.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
    (dict(temperature=1e-30), [0, 1, 0, 0]),
    (dict(topk=1), [0, 1, 0, 0]),
    (dict(topk=2), [0, 4 / 7, 0, 3 / 7]),
    (dict(topk=9), [.1, .4, .2, .3]),
    (dict(topp=.39), [0, 1, 0, 0]),
    (dict(topp=.41), [0, 4 / 7, 0, 3 / 7]),
    (dict(topp=.71), [0, 4 / 9, 2 / 9, 3 / 9]),
    (dict(topk=3, topp=.5), [0, 4 / 7, 0, 3 / 7]),      # of the three tokens left, two have 7/9
    (dict(temperature=1e-46), [0, 1, 0, 0]), (dict(temperature=1e-39), [0, 1, 0, 0]), (dict(topp=1e-46), [0, 1, 0, 0]),
    (dict(temperature=1e300), [.25, .25, .25, .25]),
    (dict(topk=2, topp=.5), [0, 1, 0, 0])])             # of the two tokens left, one has 4/7
def test_probabilities_by_hand(options, expected):
    assert_close(logits_to_probs(PROBS.log() + 7, **options), torch.tensor([expected]).float(), atol=1e-6)


def test_an_id_that_is_no_token_is_named(toy):
    transformer, _ = toy
    with pytest.raises(ValueError, match=f'id 500 is not in the table, whose {transformer.vocab} rows'):
        list(sample(transformer, N_VOCAB, [3, 500], 2))


@pytest.mark.parametrize('options', [dict(temperature=-1), dict(temperature=float('nan')), dict(topk=-1), dict(topp=0),
                                     dict(topp=1.1)], ids=str)
def test_wrong_options_of_the_draw_are_refused(options):
    with pytest.raises(ValueError, match='want temperature >= 0'):
        logits_to_probs(PROBS.log(), **options)


def test_drawn_as_often_as_probable(toy):
    """The first draw of 20,000 samples against the probabilities."""
    transformer, _ = toy
    [drawn] = sample(transformer, N_VOCAB, [40, 64], 1, n_samples=20_000, topk=5)
    probs = logits_to_probs(plain_logits(transformer, torch.tensor([[40, 64]]))[:, -1], topk=5)[0]
    assert_close(torch.bincount(drawn, minlength=N_VOCAB) / 20_000, probs, atol=0.015)


def test_the_same_seed_gives_the_same_text_and_another_does_not(capsys):
    texts = [main(toy_args('--prompt', 'The cat sat', '--n_samples', '2', '--seed', seed)) for seed in '112']
    assert texts[0] == texts[1] != texts[2] and texts[0][0] != texts[0][1]
    out = capsys.readouterr().out
    assert f'--- sample 1 ---\n{texts[0][0]}\n--- sample 2 ---\n{texts[0][1]}\n' in out
    assert main(toy_args('--prompt', 'The cat sat', '--greedy')) == main(
        toy_args('--prompt', 'The cat sat', '--temperature', '0', '--seed', '5'))


def test_a_full_context_ends_the_text_with_a_message(capsys):
    main(toy_args('--prompt', 'I like mom', '--gen_len', '40'))
    shown = capsys.readouterr()
    n_prompt, n_new, n_asked, n_ctx = (int(re.search(pattern, shown.err)[1]) for pattern in (
        r'the (\d+) of the prompt', r'after (\d+)', r'of (\d+) tokens', r'n_ctx=(\d+)'))
    assert n_prompt + n_new == n_ctx == 24 and n_asked == 40
    main(toy_args('--prompt', 'I like mom', '--gen_len', '5', '--n_ctx', '6'))
    assert 'stopped' in capsys.readouterr().err         # n_ctx may be smaller than that of the weights
    main(toy_args('--prompt', 'I like mom', '--gen_len', '2'))
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('argv, words', [
    (['--prompt', 'cat ' * 24], 'n_ctx=24 leaves room for 1 to 23'),
    (['--prompt', 'cat', '--gen_len', '0'], 'gen_len: 0: must be at least 1'),
    (['--prompt', 'cat', '--n_samples', '0'], 'n_samples: 0: must be at least 1'),
    (['--prompt', 'cat', '--seed', '-1'], 'seed: -1: must be at least 0'),
    (['--prompt', 'cat', '--n_head', '3'], 'n_head=3'),
    (['--prompt', 'cat', '--n_embd', '32'], '16 wide, which is not'),
    (['--prompt', 'cat', '--device', 'tpu'], '--device tpu')])
def test_a_mistake_gets_one_line(argv, words):
    with pytest.raises((ValueError, OSError), match=words) as error:
        main(toy_args(*argv))
    assert '\n' not in str(error.value)


def test_a_vocabulary_of_other_weights_is_refused(tmp_path):
    tokens = json.loads((TOY / VOCABULARY).read_text())
    (tmp_path / 'more.json').write_text(json.dumps({**tokens, 'extra': len(tokens)}))
    with pytest.raises(ValueError, match='has 125 tokens, the weights in .* are for 124: they do not belong'):
        main(toy_args('--prompt', 'cat', '--encoder_path', str(tmp_path / 'more.json')))


def test_an_empty_prompt_continues_a_new_line(toy, tmp_path, capsys):
    _, encoder = toy
    transformer = open_trained(toy_args()).model.transformer
    [text] = main(toy_args('--prompt', ' ', '--greedy', '--gen_len', '6'))
    after_new_line = sample(transformer, N_VOCAB, [encoder.encoder['\n</w>']], 6, temperature=0)
    assert text == encoder.decode([int(i) for i in after_new_line])
    tokens = json.loads((TOY / VOCABULARY).read_text())
    (tmp_path / 'none.json').write_text(json.dumps({token.replace('\n', '¶'): i for token, i in tokens.items()}))
    with pytest.raises(ValueError, match='the prompt is empty and the vocabulary has no newline'):
        main(toy_args('--prompt', '', '--encoder_path', str(tmp_path / 'none.json')))


def test_every_line_of_standard_input_is_a_prompt(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('the cat\n\nmom found\n'))
    assert len(main(toy_args('--gen_len', '3'))) == 2
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr(sys, 'stdin', io.StringIO('the cat\n' + 'cat ' * 30 + '\nmom\n'))
    with pytest.raises(ValueError, match='prompt 2: the prompt has 30 tokens'):
        main(toy_args('--gen_len', '3'))


def fine_tuned(folder):
    """Train a toy run in `folder`. Returns the options that name it."""
    toy_run(with_stories(folder), '--desc', 'tuned', '--n_iter', '1')
    return ['--desc', 'tuned', '--save_dir', str(folder / 'save'), '--device', 'cpu']


def test_a_fine_tuned_run_generates(tmp_path, capsys):
    args = parse_args([*fine_tuned(tmp_path), '--prompt', 'the cat', '--gen_len', '4', '--greedy'])
    trained = open_trained(args)
    transformer, encoder = trained.model.transformer, trained.encoder
    saved = torch.load(tmp_path / 'save' / 'tuned' / 'best_params.pt', weights_only=True)
    assert torch.equal(transformer.embed.weight, saved['transformer.embed.weight'])
    assert transformer.vocab == 124 + 3 + transformer.n_ctx
    [ids] = encoder.encode(['the cat'])
    made = sample(transformer, N_VOCAB, ids, 4, temperature=0)
    text = encoder.decode([int(i) for i in made])
    assert main(args) == [text]
    (tmp_path / 'save' / 'tuned').rename(tmp_path / 'sent')             # a run needs only its folder
    moved = ['--desc', 'sent', '--save_dir', str(tmp_path), '--device', 'cpu']
    assert main(parse_args([*moved, '--prompt', 'the cat', '--gen_len', '4', '--greedy'])) == [text]


def test_a_vocabulary_given_for_a_run_is_used_and_checked(tmp_path):
    """An earlier version ignored it."""
    run = [*fine_tuned(tmp_path), '--prompt', 'the cat', '--gen_len', '2']
    tokens = json.loads((TOY / VOCABULARY).read_text())
    reversed_ids = {token: len(tokens) - 1 - i for token, i in tokens.items()}
    (tmp_path / 'reversed.json').write_text(json.dumps(reversed_ids))
    with pytest.raises(ValueError, match='reversed.json is not the vocabulary that tuned was trained with'):
        main(parse_args([*run, '--encoder_path', str(tmp_path / 'reversed.json')]))
    (tmp_path / 'same.json').write_bytes((TOY / VOCABULARY).read_bytes())
    assert len(main(parse_args([*run, '--encoder_path', str(tmp_path / 'same.json')]))) == 1


@pytest.mark.parametrize('argv, words', [
    (['--desc', 'x', '--model_path', str(TOY)], '--model_path has no effect with --desc'),
    (['--desc', 'x', '--model_path', 'model/'], '--model_path has no effect with --desc'),
    (['--desc', 'x', '--n_ctx', '9'], '--n_ctx has no effect with --desc'),
    (['--desc', 'x', '--afn', 'relu'], '--afn has no effect with --desc'),
    (['--save_dir', 'save/'], '--save_dir has no effect without --desc'),
    (['--score', 'x', '--gen_len', '40'], '--gen_len has no effect with --score'),
    (['--per_token'], '--per_token has no effect without --score')])
def test_an_option_without_effect_is_refused(argv, words):
    """Also if its value is the default."""
    with pytest.raises(ValueError, match=words) as error:
        parse_args(argv)
    assert '\n' not in str(error.value)


def test_a_console_that_lacks_a_character_shows_a_question_mark(monkeypatch):
    """Here U+FFFD, which stands for an unknown symbol and is not in cp1252."""
    monkeypatch.setattr(generate, 'sample', lambda *_: iter([torch.tensor([0, 5]), torch.tensor([0, 5])]))
    console = io.TextIOWrapper(io.BytesIO(), encoding='cp1252')
    monkeypatch.setattr(sys, 'stdout', console)
    texts = main(toy_args('--prompt', 'mom', '--n_samples', '2', '--gen_len', '2'))
    console.flush()
    shown = console.buffer.getvalue().decode('cp1252')
    assert '\ufffd' in texts[0] and texts[0].replace('\ufffd', '?') in shown and texts[1] in shown


def test_a_prompt_that_is_no_text_is_refused(monkeypatch):
    """In a C locale Python reads bytes that are not UTF-8 as halves of characters."""
    with pytest.raises(ValueError, match='the prompt is not UTF-8 text'):
        main(toy_args('--prompt', 'caf\udce9', '--gen_len', '2'))
    monkeypatch.setattr(sys, 'stdin', io.StringIO('mom\ncaf\udce9\n'))
    with pytest.raises(ValueError, match='prompt 2: the prompt is not UTF-8 text'):
        main(toy_args('--gen_len', '2'))


@pytest.mark.parametrize('temperature', [0., 1.])
def test_logits_that_are_not_finite_end_generation(toy, temperature):
    """Neither the greedy choice nor a draw hides them."""
    transformer, _ = toy
    with torch.no_grad():
        transformer.h[2].ln_2.b[0] = torch.inf
    with pytest.raises(ArithmeticError, match='logits are not finite'):
        list(sample(transformer, N_VOCAB, [40, 64], 3, temperature=temperature))


def test_more_candidates_than_tokens_are_all_tokens():
    assert_close(logits_to_probs(PROBS.log(), topk=10**30), PROBS)


@pytest.mark.parametrize('dtype', ['bfloat16', pytest.param('float16', marks=needs_float16)])
def test_half_precision_generates(dtype):
    assert main(toy_args('--prompt', 'the cat', '--gen_len', '4', '--dtype', dtype))[0]
