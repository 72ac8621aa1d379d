"""Checkpoints of the transformers library give the same numbers in the library and in this repository."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys

import pytest
import torch
from reference import GOLDENS, assert_close
from toy import ROOT, TOY, toy_run, with_stories

import convert
import generate
from common.checkpoint import load_state
from common.hf_files import tokenizer_json
from common.trained import add_special, open_trained
from convert import main, parse_args
from datasets import FORMS, to_arrays
from model_pytorch import DEFAULT_CONFIG, DoubleHeadModel, dotdict
from utils import read_sealed
from zero_shot import with_positions

safetensors = pytest.importorskip('safetensors.torch', reason='needs pip install safetensors')
transformers = pytest.importorskip('transformers', reason='needs pip install transformers')
tokenizers = pytest.importorskip('tokenizers', reason='needs pip install transformers')
if not transformers.is_torch_available():
    pytest.skip('this version of transformers refuses this version of torch', allow_module_level=True)

SIZE = ['--n_embd', '16', '--n_head', '4', '--n_layer', '3']
IDS = torch.randint(124, (3, 14), generator=torch.Generator().manual_seed(0))


def ours(path, *argv):
    """Hidden states and logits over the tokens, from the folder `path` in the released layout."""
    trained = open_trained(generate.parse_args(['--model_path', str(path), *argv]))
    transformer = trained.model.transformer
    with torch.no_grad():
        h = transformer(with_positions(transformer, IDS))
        return h, h @ transformer.embed.weight[:trained.encoder.n_vocab].T


def theirs(folder):
    """The same from the library, which must not report missing or unexpected tensors."""
    outputs = []
    for kind in (transformers.OpenAIGPTModel, transformers.OpenAIGPTLMHeadModel):
        model, info = kind.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        with torch.no_grad():
            outputs.append(model.eval()(IDS)[0])
    return outputs


def test_the_release_opens_in_transformers(tmp_path, capsys):
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    h, logits = ours(TOY, *SIZE)
    their_h, their_logits = theirs(tmp_path / 'hf')
    assert_close(h, their_h)
    assert_close(logits, their_logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
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
    for name, library_name in (('encoder_bpe_40000.json', 'vocab.json'), ('vocab_40000.bpe', 'merges.txt')):
        (folder / library_name).write_bytes((TOY / name).read_bytes())
    return model


def test_a_head_of_its_own_is_refused(tmp_path):
    """The decoder of this network is the table of embeddings."""
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTLMHeadModel)
    path = tmp_path / 'hf' / 'model.safetensors'
    tensors = safetensors.load_file(path)
    table = next(tensor for name, tensor in tensors.items() if name.endswith(('tokens_embed.weight', 'lm_head.weight')))
    safetensors.save_file({**tensors, 'transformer.tokens_embed.weight': table.clone(), 'lm_head.weight': table + 1},
                          path)
    with pytest.raises(ValueError, match='lm_head is not tied'):
        main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    assert not (tmp_path / 'model').exists()


@pytest.mark.parametrize('afn', ['gelu', 'silu', 'relu'])
@pytest.mark.parametrize('kind', ['OpenAIGPTModel', 'OpenAIGPTLMHeadModel', 'OpenAIGPTDoubleHeadsModel'])
def test_their_checkpoint_becomes_a_release(tmp_path, kind, afn):
    model = their_checkpoint(tmp_path / 'hf', getattr(transformers, kind), afn)
    main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    h, logits = ours(tmp_path / 'model')  # the sizes are in hparams.json
    with torch.no_grad():
        their_h = getattr(model, 'transformer', model)(IDS)[0]
    assert_close(h, their_h)
    assert not list(tmp_path.rglob('*.part'))
    main(parse_args(['--to_transformers', str(tmp_path / 'again'), '--model_path', str(tmp_path / 'model')]))
    again_h, again_logits = theirs(tmp_path / 'again')
    assert_close(again_h, their_h, atol=0)
    assert_close(logits, again_logits)
    assert (tmp_path / 'again' / 'merges.txt').read_bytes() == (TOY / 'vocab_40000.bpe').read_bytes()


def test_old_checkpoints_in_half_precision_with_mask_buffers(tmp_path, capsys):
    model = their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)
    masks = {f'h.{i}.attn.bias': torch.ones(1, 1, 20, 20) for i in range(2)}
    half = {name: p.half() for name, p in model.state_dict().items()}
    safetensors.save_file({**half, **masks}, tmp_path / 'hf' / 'model.safetensors')
    main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    assert 'left out: h.0.attn.bias, h.1.attn.bias\n' in capsys.readouterr().out
    with torch.no_grad():
        assert_close(ours(tmp_path / 'model')[0], model(IDS)[0], atol=0.02)


def test_a_fine_tuned_run_opens_with_its_head(tmp_path):
    toy_run(with_stories(tmp_path), '--desc', 'tuned', '--n_iter', '1')
    run = ['--desc', 'tuned', '--save_dir', str(tmp_path / 'save')]
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), *run]))
    folder = tmp_path / 'save' / 'tuned'
    config, state = read_sealed(folder / 'config.json'), load_state(str(folder / 'best_params.pt'))
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


def saved_again(folder, again):
    """The files in `folder`, as the library of today writes them: vocabulary and merges are in tokenizer.json alone."""
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(again)
    architecture, = json.loads((folder / 'config.json').read_text())['architectures']
    getattr(transformers, architecture).from_pretrained(folder).save_pretrained(again)
    for name in ('vocab.json', 'merges.txt'):  # which it wrote before version 5
        (again / name).unlink(missing_ok=True)


@pytest.mark.parametrize('merges', ['pairs', 'texts'])
def test_what_the_library_saved_again_comes_back(tmp_path, merges):
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    saved_again(tmp_path / 'hf', tmp_path / 'again')
    path = tmp_path / 'again' / 'tokenizer.json'
    content = json.loads(path.read_text())
    pairs = [merge.split(' ') if isinstance(merge, str) else merge for merge in content['model']['merges']]
    content['model']['merges'] = pairs if merges == 'pairs' else [' '.join(pair) for pair in pairs]
    path.write_text(json.dumps(content))
    main(parse_args(['--from_transformers', str(tmp_path / 'again'), '--model_path', str(tmp_path / 'back')]))
    assert_close(ours(tmp_path / 'back')[0], ours(TOY, *SIZE)[0], atol=0)
    assert (tmp_path / 'back' / 'vocab_40000.bpe').read_bytes() == (TOY / 'vocab_40000.bpe').read_bytes()
    vocabularies = [(folder / 'encoder_bpe_40000.json').read_text() for folder in (tmp_path / 'back', TOY)]
    assert json.loads(vocabularies[0]) == json.loads(vocabularies[1])


@pytest.mark.parametrize('head, form', [('multiple_choice', 'choices'), (('classification', 3), 'text')])
def test_a_fine_tuned_export_saved_again_is_not_a_language_model(tmp_path, monkeypatch, head, form):
    monkeypatch.setattr(convert, 'open_trained', open_with_head(head, form, CLASSES))
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    saved_again(tmp_path / 'hf', tmp_path / 'again')
    with pytest.raises(ValueError, match='tokenizer.json has _start_.*: a fine-tuned network has no released layout'):
        main(parse_args(['--from_transformers', str(tmp_path / 'again'), '--model_path', str(tmp_path / 'model')]))
    assert not (tmp_path / 'model').exists()


@pytest.mark.parametrize('changes, words', [
    (dict(type='WordPiece'), 'does not hold vocabulary and merges'), (dict(end_of_word_suffix=None), 'does not hold'),
    (dict(merges=['a b c']), 'does not hold'), (dict(merges=[['a', 5]]), 'does not hold'),
    (dict(merges=[['a b', 'c']]), 'does not hold'), (dict(merges=None), 'does not hold'),
    (dict(vocab=['a']), 'does not hold'), (dict(vocab={'a': 0}), 'has 1 tokens, but the weights beside it want 124'),
    (dict(vocab={str(i): float(i) for i in range(124)}), 'with the ids 0, 1, 2'),
    (dict(vocab={str(i): i // 2 for i in range(124)}), 'with the ids 0, 1, 2')], ids=range(10))
def test_a_wrong_tokenizer_json_is_one_line(tmp_path, changes, words):
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)
    vocabulary = json.loads((tmp_path / 'hf' / 'vocab.json').read_text())
    (tmp_path / 'hf' / 'vocab.json').unlink()
    model = dict(type='BPE', end_of_word_suffix='</w>', vocab=vocabulary, merges=[]) | changes
    (tmp_path / 'hf' / 'tokenizer.json').write_text(json.dumps(dict(model=model)))
    with pytest.raises(ValueError, match=f'tokenizer.json .*{words}') as error:
        main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    assert '\n' not in str(error.value) and not (tmp_path / 'model').exists()


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)

    def refuse(path, *args, **kwargs):
        if str(path).endswith('.safetensors'):
            raise PermissionError(13, 'Permission denied', path)
        return open(path, *args, **kwargs)
    monkeypatch.setattr(convert, 'open', refuse, raising=False)
    with pytest.raises(PermissionError, match='Permission denied.*model.safetensors'):
        main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))


def test_an_export_has_the_same_bytes_each_time_and_merges_as_texts(tmp_path):
    """Hundreds of texts in a set have another order in each process. Merges as pairs are read since tokenizers 0.20."""
    digests = set()
    for seed in '0123':
        code = ('import sys, hashlib; sys.path.insert(0, sys.argv[1]); from common.hf_files import tokenizer_json;'
                'from datasets import SPECIAL; text = tokenizer_json({token: i for i, token in enumerate('
                '["<unk>", "a", "b</w>", "ab</w>", *SPECIAL])}, [("a", "b</w>")], True);'
                'print(hashlib.sha256(text.encode()).hexdigest(), \'"merges": ["a b</w>"]\' in text)')
        done = subprocess.run([sys.executable, '-c', code, str(ROOT)], check=True, capture_output=True, text=True,
                              env={**os.environ, 'PYTHONHASHSEED': seed})
        digests.add(done.stdout)
    assert len(digests) == 1 and digests.pop().endswith(' True\n')


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
    (lambda folder: (folder / 'config.json').unlink(), 'config.json is missing'),
    (lambda folder: (folder / 'model.safetensors').unlink(), 'model.safetensors is missing, .*: want a folder'),
    (lambda folder: (folder / 'vocab.json').unlink(), 'vocab.json is missing.*tokenizer.json too: save the tokenizer'),
    (lambda folder: (folder / 'config.json').write_text('{'), 'config.json is not a json object'),
    (lambda folder: (folder / 'config.json').write_text('[' * 100_000), 'config.json is not a json object'),
    (lambda folder: (folder / 'config.json').write_bytes(b'\xff'), 'config.json, line 1: byte 0xff is not UTF-8'),
    (lambda folder: (folder / 'model.safetensors').write_bytes(b'x' * 99), 'is damaged, or not of safetensors'),
    (lambda folder: (folder / 'merges.txt').write_text('a b'), 'merges.txt, line 1: no header'),
    (change_config(model_type='gpt2'), "model_type is 'gpt2', want 'openai-gpt'"),
    (change_config(layer_norm_epsilon=1e-6), 'layer_norm_epsilon is 1e-06, want 1e-05'),
    (change_config(n_head=3), 'n_head=3'),
    (change_config(n_head=-2), 'n_head is -2, want a number of at least 1'),
    (change_config(vocab_size=124.), 'vocab_size is 124.0, want a number'),
    (change_config(n_positions=0), 'n_positions is 0, want a number'),
    (change_config(n_head=True), 'n_head is True, want a number'),
    (change_config(n_head='2'), "n_head is '2', want a number"),
    (change_config(afn='tanh'), "afn='tanh' is not an activation"),
    (change_config(afn=['gelu']), 'is not an activation'),
    (change_config(n_layer=1), 'has 2 blocks, but config.json beside it has n_layer=1'),
    (change_config(n_layer=3), 'has 2 blocks, but config.json beside it has n_layer=3'),
    (change_config(n_layer=10**9), 'has 2 blocks, but config.json beside it has n_layer=1000000000'),
    (change_config(n_positions=512), r'is \[20, 16\], but config.json beside it says \[512, 16\]'),
    (change_config(vocab_size=125), r'is \[124, 16\], but'),
    (change_config(n_embd=None), r'is \[124, 16\], but config.json beside it says \[124, None\]'),
    (change_tensors(lambda t: t.update({'h.999999999.x': torch.ones(1)})), 'has 3 blocks, but'),
    (change_tensors(lambda t: [t.pop(name) for name in list(t) if name.startswith('h.')]), 'has 0 blocks, but'),
    (change_tensors(lambda t: t.pop('h.1.ln_1.weight')), 'has no h.1.ln_1.weight'),
    (change_tensors(lambda t: t.update({'h.1.ln_2.bias': torch.ones(15)})), r'h.1.ln_2.bias is \[15\], but'),
    (change_tensors(lambda t: t.update({'h.1.ln_2.bias': torch.ones(16) / 0})), 'h.1.ln_2.bias holds numbers'),
    (change_tensors(lambda t: t.update({'h.1.ln_2.bias': torch.ones(16).double() * 1e300})), 'not finite'),
    (change_tensors(lambda t: t.update({'h.1.ln_2.bias': torch.ones(16, dtype=torch.int8)})), 'not floating-point'),
    (change_tensors(lambda t: t.update({'positions_embed.weight': torch.ones(5)})), r'is \[5\], but'),
    (change_tensors(lambda t: t.update({'positions_embed.weight': torch.ones(0, 16)})), r'is \[0, 16\], but'),
], ids=range(33))
def test_a_damaged_checkpoint_gets_one_line_and_writes_nothing(tmp_path, damage, words):
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)
    damage(tmp_path / 'hf')
    with pytest.raises((ValueError, OSError), match=words) as error:
        main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    assert '\n' not in str(error.value) and not (tmp_path / 'model').exists()


def test_tensors_that_are_not_converted_are_named(tmp_path, capsys):
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTDoubleHeadsModel)
    main(parse_args(['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model')]))
    assert ('not part of the network, and left out: multiple_choice_head.summary.bias, '
            'multiple_choice_head.summary.weight\n') in capsys.readouterr().out


def open_with_head(head_type, form='text', classes=(), scale=None):
    """`open_trained` whose network has a random task head and special rows, as a run has."""
    def opened(args):
        trained = open_trained(args)
        cfg = dotdict(DEFAULT_CONFIG, n_embd=16, n_head=4, n_layer=3)
        model, ours = DoubleHeadModel(cfg, 126, head_type, 124 + 3 + 24, 24).eval(), trained.model.transformer
        with torch.no_grad():
            model.transformer.embed.weight.copy_(torch.cat(
                [ours.embed.weight[:124], torch.randn(3, 16), ours.embed.weight[124:]]))
            model.transformer.h.load_state_dict(ours.h.state_dict())
            model.task_head.linear.weight.normal_()
            model.task_head.linear.bias.normal_(std=3.)
        config = dict(options=dict(dataset='toy', lr=1e-3), form=form, classes=list(classes), scale=scale)
        made.append(trained._replace(model=model, n_special=3, config=config))
        return made[-1]
    made = []
    opened.made = made
    return opened


TEXTS = ['the cat sat.', 'Mom & dad "like" the park!', "don't", 'a ball\nin the rain', 'the cat sat ...']
CLASSES = ('bad', 'good', 'so-so')


@pytest.mark.parametrize('form, classes, scale', [('text', CLASSES, None), ('pair', CLASSES[:2], None),
                                                  ('text', (), [2.7, 1.5]), ('pair', (), [-100., 0.01])])
def test_a_classifier_gives_its_logits_in_transformers(tmp_path, monkeypatch, capsys, form, classes, scale):
    """From the ids of `to_arrays`, with padding at the end, and from texts with the exported tokenizer."""
    opened = open_with_head(('classification', len(classes) or 1), form, classes, scale)
    monkeypatch.setattr(convert, 'open_trained', opened)
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    assert capsys.readouterr().out == f'OpenAIGPTForSequenceClassification: {tmp_path / "hf"}\n'
    [trained] = opened.made
    encoder = add_special(trained.encoder)
    fields = [trained.encoder.encode(TEXTS), trained.encoder.encode(TEXTS[::-1])][:1 if form == 'text' else 2]
    X, M = to_arrays([FORMS[form](*example) for example in zip(*fields, strict=True)], encoder, 24)
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / 'hf', output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    with torch.no_grad():
        expected = trained.model(torch.from_numpy(X))[1]
        if scale:
            expected = expected * scale[1] + scale[0]
        logits = model.eval()(torch.from_numpy(X[:, 0, :, 0]).long(), attention_mask=torch.from_numpy(M[:, 0])).logits
        batch = tokenizer(*[TEXTS, TEXTS[::-1]][:len(fields)], padding=True, truncation=True, return_tensors='pt')
        of_texts = model(**batch).logits
    assert not any(info.values()) and M.sum() < M.size
    assert_close(logits, expected, atol=1e-5 * max(1, expected.abs().max()))
    assert [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)] == [
        row[mask > 0].tolist() for row, mask in zip(X[:, 0, :, 0], M[:, 0], strict=True)]
    assert_close(of_texts, expected, atol=1e-5 * max(1, expected.abs().max()))
    if classes:
        assert model.config.id2label == dict(enumerate(classes)) and model.config.label2id['good'] == 1
    assert model.config.problem_type == ('single_label_classification' if classes else 'regression')
    assert type(run_code(tmp_path)) is type(model)


def run_code(folder):
    """The model after the code in the model card of folder/hf has run, as its reader would run it."""
    code, names = (folder / 'hf' / 'README.md').read_text(encoding='utf-8').split('```')[1], {}
    with contextlib.chdir(folder):
        exec(code.removeprefix('python'), names)
    return names['model']


def test_a_head_that_the_library_lacks_is_left_out_with_a_word(tmp_path, monkeypatch, capsys):
    opened = open_with_head(('similarity', 2), 'both', ['0', '1'])
    monkeypatch.setattr(convert, 'open_trained', opened)
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    assert capsys.readouterr().out == (
        'the SimilarityHead of the run is left out: OpenAIGPTLMHeadModel has no such head\n'
        f'OpenAIGPTLMHeadModel: {tmp_path / "hf"}\n')
    assert_close(theirs(tmp_path / 'hf')[0], ours(TOY, *SIZE)[0])


def test_more_classes_than_the_width_are_refused(tmp_path, monkeypatch):
    """17 classes of 16 hidden states have more biases than the weights can express."""
    opened = open_with_head(('classification', 17), 'text', [f'class {i}' for i in range(17)])
    monkeypatch.setattr(convert, 'open_trained', opened)
    with pytest.raises(ValueError, match='no head with a bias'):
        main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    assert not (tmp_path / 'hf').exists()


def test_special_tokens_are_not_generated(tmp_path, monkeypatch):
    """Not even where they are the most probable."""
    opened = open_with_head('multiple_choice', 'choices', '01')
    monkeypatch.setattr(convert, 'open_trained', opened)
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf').eval()
    with torch.no_grad():
        model.transformer.tokens_embed.weight[124:] *= 100
        best = model(IDS).logits[:, -1].argmax(-1)
    made = model.generate(IDS, max_new_tokens=10, do_sample=False)
    assert (best >= 124).any() and made.shape == (3, 24) and made.max() < 124


@pytest.mark.parametrize('text, n', [('', 0), ('  \n ', 0), ('the cat', 2), ("don't", 2), ('mom\n\n dad', 3),
                                     ('ｔｈｅ ｃａｔ！', 3)])
def test_the_tokenizer_splits_and_joins_as_the_encoder(tmp_path, text, n):
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(TOY), *SIZE]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    [ids] = open_trained(generate.parse_args(['--model_path', str(TOY), *SIZE])).encoder.encode([text])
    assert tokenizer(text).input_ids == ids and (len(ids) >= n if n else not ids)


def test_the_tokenizer_gives_the_ids_of_2018_for_nearly_all_golden_texts():
    """With a vocabulary of single characters, ids show how texts are split. Most of these texts were made to be
    difficult. Random characters end neither in a panic of the library nor in another number of lines."""
    goldens = [json.loads(line) for line in (GOLDENS / 'tokens_2018.jsonl').read_text(encoding='utf-8').splitlines()]
    words = [['\n' if token == '\n ' else token.lower() for token in golden['tokens']] for golden in goldens]
    characters = sorted({character for tokens in words for token in tokens for character in token})
    symbols = [character + end for character in characters for end in ('', '</w>')]
    vocabulary = {symbol: i for i, symbol in enumerate(['<unk>', *symbols])}
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json(vocabulary, [], False))
    same = 0
    for golden, tokens in zip(goldens, words, strict=True):
        symbols = [symbol for token in tokens for symbol in (*token[:-1], token[-1] + '</w>')]
        same += tokenizer.encode(golden['text']).tokens == symbols
    assert same >= 578 and len(goldens) == 650
    draw = random.Random(0)
    for _ in range(300):
        text = ''.join(draw.choice(characters + list('  \n.\'"')) for _ in range(draw.randrange(12)))
        assert len(tokenizer.encode(text).ids) <= 3 * len(text)


def test_a_vocabulary_that_the_library_cannot_hold_is_refused(tmp_path):
    shutil.copytree(TOY, tmp_path / 'model')
    with open(tmp_path / 'model' / 'vocab_40000.bpe', 'a', encoding='utf-8') as f:
        f.write('zz zz\n')
    with pytest.raises(ValueError, match='the merge zz zz makes a token that is not in the vocabulary'):
        main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model'), *SIZE]))
    assert not (tmp_path / 'hf').exists()


def test_the_code_in_the_model_card_opens_the_network(tmp_path):
    toy_run(with_stories(tmp_path), '--desc', 'tuned', '--n_iter', '1')
    run = ['--desc', 'tuned', '--save_dir', str(tmp_path / 'save')]
    main(parse_args(['--to_transformers', str(tmp_path / 'hf'), *run]))
    card = (tmp_path / 'hf' / 'README.md').read_text(encoding='utf-8')
    assert 'GPT-1 as OpenAIGPTDoubleHeadsModel, exported from tuned of a PyTorch reproduction.' in card
    assert str(tmp_path) not in card  # paths of this computer tell a reader nothing
    assert type(run_code(tmp_path)) is transformers.OpenAIGPTDoubleHeadsModel


@pytest.mark.parametrize('direction', ['to', 'from'])
def test_after_a_failed_write_no_file_is_left(tmp_path, monkeypatch, direction):
    """The disk becomes full at the last file."""
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)
    argv = {'to': ['--to_transformers', str(tmp_path / 'new'), '--model_path', str(TOY), *SIZE],
            'from': ['--from_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'new')]}[direction]
    replace = os.replace

    def full(source, target):
        if os.path.basename(target) in ('model.safetensors', 'params_9.npy'):
            raise OSError(28, 'No space left on device', target)
        replace(source, target)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left'):
        main(parse_args(argv))
    assert list((tmp_path / 'new').iterdir()) == []
    monkeypatch.setattr(os, 'replace', replace)
    main(parse_args(argv))  # nothing is in the way of a second try


def test_hints_name_the_folder_at_hand(tmp_path):
    (tmp_path / 'mine').mkdir()
    with pytest.raises(FileNotFoundError, match=f'download.py --model_path {tmp_path / "mine"} fetches'):
        main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'mine')]))
    shutil.copytree(TOY, tmp_path / 'mine', dirs_exist_ok=True)
    (tmp_path / 'mine' / 'vocab_40000.bpe').unlink()
    with pytest.raises(FileNotFoundError, match=f'40000.bpe is missing.*--model_path {tmp_path / "mine"} fetches'):
        main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'mine'), *SIZE]))


@pytest.mark.parametrize('name', ['encoder_bpe_40000.json', 'vocab_40000.bpe', 'params_3.npy'])
def test_nothing_is_exported_without_a_vocabulary_or_weights(tmp_path, name):
    """An earlier version exported only the weights, with exit status 0."""
    shutil.copytree(TOY, tmp_path / 'model')
    (tmp_path / 'model' / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'{name} is missing') as error:
        main(parse_args(['--to_transformers', str(tmp_path / 'hf'), '--model_path', str(tmp_path / 'model'), *SIZE]))
    assert '\n' not in str(error.value) and not (tmp_path / 'hf').exists()


@pytest.mark.parametrize('argv, words', [
    (['--to_transformers', 'x', '--desc', 'y', '--model_path', 'model/'], '--model_path has no effect with --desc'),
    (['--to_transformers', 'x', '--save_dir', 'save/'], '--save_dir has no effect without --desc'),
    (['--from_transformers', 'x', '--n_layer', '2'], '--n_layer has no effect with --from_transformers'),
    (['--from_transformers', 'x', '--desc', 'y'], '--desc has no effect with --from_transformers')])
def test_an_option_without_effect_is_refused(argv, words):
    with pytest.raises(ValueError, match=words):
        parse_args(argv)


def test_nothing_is_overwritten(tmp_path):
    their_checkpoint(tmp_path / 'hf', transformers.OpenAIGPTModel)
    argv = ['--from_transformers', str(tmp_path / 'hf')]
    with pytest.raises(ValueError, match='exists already'):
        main(parse_args([*argv, '--model_path', str(TOY)]))
    (tmp_path / 'mine.json').write_text('{}')
    with pytest.raises(ValueError, match='mine.json exists already'):
        main(parse_args([*argv, '--model_path', str(tmp_path / 'new'), '--encoder_path', str(tmp_path / 'mine.json')]))
    assert (tmp_path / 'mine.json').read_text() == '{}' and not (tmp_path / 'new').exists()
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / 'params_4.npy').write_text('mine')
    with pytest.raises(ValueError, match='params_4.npy exists already'):
        main(parse_args([*argv, '--model_path', str(tmp_path / 'new')]))
    assert (tmp_path / 'new' / 'params_4.npy').read_text() == 'mine'
    for name in ('vocab.json', 'merges.txt', 'config.json', 'generation_config.json', 'tokenizer.json', 'README.md',
                 'tokenizer_config.json', 'model.safetensors'):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text('')
        with pytest.raises(ValueError, match=f'{name} exists already'):
            main(parse_args(['--to_transformers', str(tmp_path / name), '--model_path', str(TOY), *SIZE]))


def test_without_safetensors_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(ValueError, match='pip install safetensors'):
        main(parse_args(['--to_transformers', str(tmp_path), '--model_path', str(TOY), *SIZE]))
