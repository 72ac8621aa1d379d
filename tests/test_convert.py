"""Checkpoints of the transformers library: the same numbers there and here."""

import json
import sys

import pytest
import torch
from reference import GOLDENS, assert_close
from test_generate import SIZE, fine_tuned

import generate
from checkpoint import load_state, read_config
from convert import main, parse_args
from model_pytorch import DEFAULT_CONFIG, DoubleHeadModel, dotdict
from zero_shot import with_positions

safetensors = pytest.importorskip('safetensors.torch', reason='needs pip install safetensors')
transformers = pytest.importorskip('transformers', reason='needs pip install transformers')

TOY = GOLDENS / 'loader' / 'model'
IDS = torch.randint(124, (3, 14), generator=torch.Generator().manual_seed(0))


def ours(path, *argv):
    """Hidden states and logits over the tokens of what lies in `path`, in the released layout."""
    model, encoder = generate.load_model(generate.parse_args(['--model_path', str(path), '--device', 'cpu', *argv]))
    with torch.no_grad():
        h = model.transformer(with_positions(model.transformer, IDS))
        return h, h @ model.transformer.embed.weight[:encoder.n_vocab].T


def theirs(folder):
    """The same from the library, which must miss no tensor and find none too many."""
    outputs = []
    for kind in (transformers.OpenAIGPTModel, transformers.OpenAIGPTLMHeadModel):
        model, info = kind.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        with torch.no_grad():
            outputs.append(model.eval()(IDS)[0])
    return outputs


def test_the_release_opens_in_transformers(tmp_path, capsys):
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE[:-2]]))
    h, logits = ours(TOY, *SIZE)
    their_h, their_logits = theirs(tmp_path / 'hf')
    assert_close(h, their_h)
    assert_close(logits, their_logits)
    tokenizer = transformers.OpenAIGPTTokenizer.from_pretrained(tmp_path / 'hf')
    assert tokenizer.convert_tokens_to_ids(['<unk>', 'cat</w>', '.</w>']) == [0, *(
        json.loads((TOY / 'encoder_bpe_40000.json').read_text())[token] for token in ('cat</w>', '.</w>'))]
    assert capsys.readouterr().out == f'OpenAIGPTLMHeadModel: {tmp_path / "hf"}\n'


def their_checkpoint(folder, kind, afn='gelu', **save_options):
    """A checkpoint of a toy network with random weights, biases and gains, saved by the library itself."""
    torch.manual_seed(1)
    config = transformers.OpenAIGPTConfig(vocab_size=124, n_positions=20, n_embd=16, n_layer=2, n_head=2, afn=afn)
    model = kind(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(mean=float('ln_' in name and name.endswith('weight')), std=0.2)
    model.save_pretrained(folder, **save_options)
    for here, there in (('encoder_bpe_40000.json', 'vocab.json'), ('vocab_40000.bpe', 'merges.txt')):
        (folder / there).write_bytes((TOY / here).read_bytes())
    return model


@pytest.mark.parametrize('afn', ['gelu', 'silu', 'relu'])
@pytest.mark.parametrize('kind', ['OpenAIGPTModel', 'OpenAIGPTLMHeadModel', 'OpenAIGPTDoubleHeadsModel'])
def test_their_checkpoint_becomes_a_release(tmp_path, kind, afn):
    model = their_checkpoint(tmp_path / 'hf', getattr(transformers, kind), afn)
    main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    h, logits = ours(tmp_path / 'model')                # n_head and the like are in hparams.json
    with torch.no_grad():
        their_h = getattr(model, 'transformer', model)(IDS)[0]
    assert_close(h, their_h)
    assert not list(tmp_path.rglob('*.part'))
    main(parse_args(['--to_transformers', str(tmp_path / 'again'), '--model_path', str(tmp_path / 'model')]))
    again_h, again_logits = theirs(tmp_path / 'again')
    assert_close(again_h, their_h, atol=0)
    assert_close(logits, again_logits)
    assert (tmp_path / 'again' / 'merges.txt').read_bytes() == (TOY / 'vocab_40000.bpe').read_bytes()


def test_old_checkpoints_with_mask_buffers_and_no_vocabulary(tmp_path, capsys):
    model = their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)
    masks = {f'h.{i}.attn.bias': torch.ones(1, 1, 20, 20) for i in range(2)}
    half = {name: p.half() for name, p in model.state_dict().items()}
    safetensors.save_file({**half, **masks}, tmp_path / 'hf' / 'model.safetensors')
    (tmp_path / 'hf' / 'vocab.json').unlink()
    main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    assert 'has no vocab.json and merges.txt' in capsys.readouterr().out
    for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe'):
        (tmp_path / 'model' / name).write_bytes((TOY / name).read_bytes())
    with torch.no_grad():
        assert_close(ours(tmp_path / 'model')[0], model(IDS)[0], atol=0.02)


def test_a_fine_tuned_run_opens_with_its_head(tmp_path):
    run = fine_tuned(tmp_path)[:4]
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), *run]))
    folder = tmp_path / 'save' / 'tuned'
    config, state = read_config(str(folder)), load_state(str(folder / 'best_params.pt'))
    n_vocab, n_ctx = config['n_vocab'], config['n_ctx']
    cfg = dotdict(DEFAULT_CONFIG, n_embd=16, n_head=4, n_layer=3)
    model = DoubleHeadModel(cfg, config['clf_token'], 'multiple_choice', n_vocab + 3 + n_ctx, n_ctx).eval()
    model.load_state_dict(state)
    X = torch.randint(n_vocab, (2, 2, 9), generator=torch.Generator().manual_seed(2))
    X[..., 0], X[..., 4], X[..., 8] = n_vocab, n_vocab + 1, n_vocab + 2
    with torch.no_grad():
        x = with_positions(model.transformer, X.flatten(0, 1)).unflatten(0, (2, 2))
        lm_logits, clf_logits = model(x)
        h = model.transformer(x)
        their_h = transformers.OpenAIGPTModel.from_pretrained(tmp_path / 'hf').eval()(X.flatten(0, 1))[0]
        their_lm_logits = transformers.OpenAIGPTLMHeadModel.from_pretrained(tmp_path / 'hf').eval()(X.flatten(0, 1))[0]
        double, info = transformers.OpenAIGPTDoubleHeadsModel.from_pretrained(tmp_path / 'hf', output_loading_info=True)
        out = double.eval()(X, mc_token_ids=torch.full((2, 2), 8))
    assert not any(info.values())
    assert_close(h, their_h)
    assert_close(lm_logits[:, :n_vocab + 3], their_lm_logits[:, :-1].flatten(0, 1))
    assert_close(clf_logits, out.mc_logits)
    vocabulary = json.loads((tmp_path / 'hf' / 'vocab.json').read_text())
    assert [vocabulary[token] for token in ('_start_', '_delimiter_', '_classify_')] == [124, 125, 126]
    with pytest.raises(ValueError, match='a fine-tuned network has no released layout'):
        main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))


def change_config(**changes):
    def change(folder):
        config = json.loads((folder / 'config.json').read_text())
        (folder / 'config.json').write_text(json.dumps({**config, **changes}))
    return change


def change_tensors(change):
    def rewrite(folder):
        tensors = safetensors.load_file(folder / 'model.safetensors')
        change(tensors)
        safetensors.save_file(tensors, folder / 'model.safetensors')
    return rewrite


@pytest.mark.parametrize('damage, words', [
    (lambda folder: (folder / 'config.json').unlink(), 'config.json is missing: want a folder written by save_pre'),
    (lambda folder: (folder / 'model.safetensors').unlink(), 'model.safetensors is missing'),
    (lambda folder: (folder / 'config.json').write_text('{'), 'config.json is not a json object'),
    (lambda folder: (folder / 'model.safetensors').write_bytes(b'x' * 99), 'is damaged, or not of safetensors'),
    (change_config(model_type='gpt2'), "model_type is 'gpt2', want 'openai-gpt'"),
    (change_config(layer_norm_epsilon=1e-6), 'layer_norm_epsilon is 1e-06, want 1e-05'),
    (change_config(n_head=3), 'n_head=3'),
    (change_config(afn='tanh'), "afn='tanh' is not an activation"),
    (change_config(n_layer=3), 'has no h.2.attn.c_attn.weight'),
    (change_tensors(lambda t: t.update({'h.1.ln_2.bias': torch.ones(15)})), r'h.1.ln_2.bias is \[15\], want \[16\]'),
    (change_tensors(lambda t: t.update({'positions_embed.weight': torch.ones(5)})), r'is \[5\], want \[-1, 16\]'),
    (change_tensors(lambda t: t.update({'lm_head.weight': torch.ones(124, 16)})), 'lm_head.weight is not tokens_embed'),
    (change_tensors(lambda t: t.update({'tokens_embed.weight': torch.ones(99, 16)})), 'has 124 tokens, model.safetens'),
], ids=range(13))
def test_a_damaged_checkpoint_gets_one_line_and_writes_nothing(tmp_path, damage, words):
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)
    damage(tmp_path / 'hf')
    with pytest.raises((ValueError, OSError), match=words) as error:
        main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    assert '\n' not in str(error.value) and not (tmp_path / 'model').exists()


def test_nothing_is_overwritten(tmp_path):
    their_checkpoint(tmp_path, transformers.OpenAIGPTModel)
    with pytest.raises(ValueError, match='has a params_shapes.json already'):
        main(parse_args(['--from_transformers', str(tmp_path), '--model_path', str(TOY)]))
    with pytest.raises(ValueError, match='has a model.safetensors already'):
        main(parse_args(['--to_transformers', str(tmp_path), '--model_path', str(TOY), *SIZE[:-2]]))


def test_without_safetensors_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(ValueError, match='pip install safetensors'):
        main(parse_args(['--to_transformers', str(tmp_path), '--model_path', str(TOY), *SIZE[:-2]]))
