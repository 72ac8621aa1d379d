"""Between the released layout and the checkpoints of the `transformers` library (`openai-gpt`, safetensors).

    python convert.py --from_transformers FOLDER --model_path OUT      # config.json, model.safetensors -> ten shards
    python convert.py --to_transformers FOLDER --model_path IN         # ten shards -> config.json, model.safetensors
    python convert.py --to_transformers FOLDER --desc RUN              # the same of a network that train.py fine-tuned

Only local folders are read. The vocabulary (there vocab.json and merges.txt) goes along; the tokenizer of that library
splits some texts in another way than `TextEncoder`, so feed it ids. Of a fine-tuned network the special rows become the
last tokens, and a multiple-choice head is that of `OpenAIGPTDoubleHeadsModel`.
"""

import argparse
import json
import os

import torch

from checkpoint import load_state, read_config
from datasets import SPECIAL
from model_pytorch import (
    DEFAULT_CONFIG,
    TransformerModel,
    dotdict,
    load_openai_pretrained_model,
    read_shapes,
    save_openai_pretrained_model,
)
from text_utils import load_merges, load_vocabulary
from utils import Parser, add_model_args, add_path_args, defaults_of_model, finish_paths, run_script, write_whole

CONFIG = dict(model_type='openai-gpt', layer_norm_epsilon=1e-5)     # what this network is, among those of the library


def parse_args(argv=None):
    parser = Parser(__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument('--from_transformers', metavar='FOLDER', help='write this checkpoint to --model_path')
    group.add_argument('--to_transformers', metavar='FOLDER', help='write --model_path, or the run --desc, to here')
    parser.add_argument('--desc', help='with --to_transformers: the run of train.py to take')
    parser.add_argument('--save_dir', default='save/', help='the --save_dir of that run')
    add_path_args(parser)
    add_model_args(parser, DEFAULT_CONFIG)
    defaults_of_model(parser, argv)
    return finish_paths(parser.parse_args(argv))


def import_safetensors():
    try:
        import safetensors.torch
    except ImportError:
        raise ValueError('checkpoints of transformers need the package safetensors: pip install safetensors') from None
    return safetensors


def transformers_name(name: str) -> str:
    """h.0.attn.c_attn.w -> h.0.attn.c_attn.weight, h.0.ln_1.g -> h.0.ln_1.weight"""
    stem, _, last = name.rpartition('.')
    return f'{stem}.{dict(w="weight", g="weight", b="bias")[last]}'


def refuse_to_overwrite(folder: str, name: str):
    if os.path.exists(os.path.join(folder, name)):
        raise ValueError(f'{folder} has a {name} already: name another folder, or delete it')


def copy_text(source: str, target: str):
    with open(source, encoding='utf-8', newline='') as f, write_whole(target) as g:
        g.write(f.read())


def read_checkpoint(folder: str):
    """config.json as a dict, and the tensors of model.safetensors by their names in `OpenAIGPTModel`."""
    safetensors = import_safetensors()
    config_path, path = (os.path.join(folder, name) for name in ('config.json', 'model.safetensors'))
    for name in (config_path, path):
        if not os.path.isfile(name):
            raise FileNotFoundError(f'{name} is missing: want a folder written by save_pretrained of transformers')
    with open(config_path, encoding='utf-8') as f:
        try:
            config = dict(json.load(f))
        except (ValueError, TypeError):
            raise ValueError(f'{config_path} is not a json object') from None
    for key, value in CONFIG.items():
        if config.get(key, value) != value:
            raise ValueError(f'{config_path} is of another network: {key} is {config[key]!r}, want {value!r}')
    try:
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as e:
        raise ValueError(f'{path} is damaged, or not of safetensors ({e})') from None
    tensors = {name.removeprefix('transformer.'): tensor for name, tensor in tensors.items()}
    if 'lm_head.weight' in tensors:                                    # tied: the library keeps one of the two, or both
        tokens = tensors.setdefault('tokens_embed.weight', tensors['lm_head.weight'])
        if not torch.equal(tokens, tensors['lm_head.weight']):
            raise ValueError(f'{path}: lm_head.weight is not tokens_embed.weight, as it is in this network')
    return config, tensors


@torch.no_grad()
def from_transformers(folder: str, args):
    """Write the checkpoint in `folder` to args.model_path, with its vocabulary where it has one."""
    refuse_to_overwrite(args.model_path, 'params_shapes.json')
    config, tensors = read_checkpoint(folder)

    def tensor(name, shape):
        if name not in tensors:
            raise ValueError(f'{folder}: model.safetensors has no {name}')
        found = tensors[name].shape
        if len(found) != len(shape) or any(want not in (-1, n) for n, want in zip(found, shape, strict=True)):
            raise ValueError(f'{folder}: {name} is {list(found)}, want {list(shape)} (-1 is any number)')
        return tensors[name]

    tokens = tensor('tokens_embed.weight', (-1, -1))
    positions = tensor('positions_embed.weight', (-1, tokens.size(1)))
    afn = {'silu': 'swish'}.get(config.get('afn'), config.get('afn', DEFAULT_CONFIG.afn))
    cfg = dotdict(DEFAULT_CONFIG, n_embd=tokens.size(1), afn=afn, **{
        key: config.get(key, DEFAULT_CONFIG[key]) for key in ('n_head', 'n_layer')})
    model = TransformerModel(cfg, vocab=len(tokens) + len(positions), n_ctx=len(positions))
    model.embed.weight.copy_(torch.cat([tokens, positions]))
    for name, p in model.h.named_parameters(prefix='h'):
        p.copy_(tensor(transformers_name(name), p.shape))

    vocab_path, merges_path = (os.path.join(folder, name) for name in ('vocab.json', 'merges.txt'))
    if os.path.isfile(vocab_path) and os.path.isfile(merges_path):
        vocabulary = load_vocabulary(vocab_path)
        load_merges(merges_path)
        if len(vocabulary) != len(tokens):
            raise ValueError(f'{vocab_path} has {len(vocabulary)} tokens, model.safetensors has {len(tokens)}')
        if set(SPECIAL) & set(vocabulary):
            raise ValueError(f'{vocab_path} has {", ".join(SPECIAL)}: a fine-tuned network has no released layout')
        copy_text(vocab_path, args.encoder_path)
        copy_text(merges_path, args.bpe_path)
    else:
        print(f'{folder} has no vocab.json and merges.txt, so {args.encoder_path} and {args.bpe_path} are not written')
    with write_whole(os.path.join(args.model_path, 'hparams.json')) as f:
        json.dump({**{key: cfg[key] for key in ('n_embd', 'n_head', 'n_layer', 'afn')}, 'n_ctx': len(positions)}, f)
    save_openai_pretrained_model(model, args.model_path)
    print(f'weights in the released layout: {args.model_path}')


def load_parameters(args):
    """What is to be written: options of the network, its parameters by name, n_ctx, and how many rows are special."""
    if args.desc:
        folder = os.path.join(args.save_dir, args.desc)
        config, state = read_config(folder), load_state(os.path.join(folder, 'best_params.pt'))
        return argparse.Namespace(**config['options']), state, config['n_ctx'], len(SPECIAL)
    n_ctx, n_vocab = (rows for rows, _ in read_shapes(args.model_path)[:2])
    model = TransformerModel(args, vocab=n_vocab + n_ctx, n_ctx=n_ctx)
    load_openai_pretrained_model(model, n_transfer=args.n_layer, path=args.model_path)
    return args, {f'transformer.{name}': p.detach() for name, p in model.named_parameters()}, n_ctx, 0


def to_transformers(folder: str, args):
    """Write the network that the options name to `folder`, with its vocabulary where it has one."""
    refuse_to_overwrite(folder, 'model.safetensors')
    safetensors = import_safetensors()
    options, state, n_ctx, n_special = load_parameters(args)
    we = state['transformer.embed.weight']
    tensors = {transformers_name(name): p.contiguous() for name, p in state.items() if '.h.' in name}
    tensors['transformer.tokens_embed.weight'] = we[:-n_ctx].contiguous()        # special rows are the last tokens
    tensors['transformer.positions_embed.weight'] = we[-n_ctx:].contiguous()
    architecture = 'OpenAIGPTLMHeadModel'
    if len(state.get('task_head.linear.weight', '')) == 1:             # as that of the library, one score a choice
        architecture = 'OpenAIGPTDoubleHeadsModel'
        for name in ('weight', 'bias'):
            tensors[f'multiple_choice_head.summary.{name}'] = state[f'task_head.linear.{name}']
    config = {**CONFIG, 'architectures': [architecture], 'vocab_size': len(we) - n_ctx, 'n_positions': n_ctx}
    config |= {key: getattr(options, key) for key in ('n_embd', 'n_head', 'n_layer', 'afn', 'embd_pdrop', 'attn_pdrop',
                                                      'resid_pdrop')}
    if os.path.isfile(options.encoder_path) and os.path.isfile(options.bpe_path):
        vocabulary = load_vocabulary(options.encoder_path)
        if len(vocabulary) + n_special != config['vocab_size']:
            raise ValueError(f'{options.encoder_path} has {len(vocabulary)} tokens, the weights have '
                             f'{config["vocab_size"] - n_special}: they do not belong together')
        for token in SPECIAL[:n_special]:
            vocabulary[token] = len(vocabulary)
        with write_whole(os.path.join(folder, 'vocab.json')) as f:
            json.dump(vocabulary, f)
        copy_text(options.bpe_path, os.path.join(folder, 'merges.txt'))
    else:
        print(f'{options.encoder_path} or {options.bpe_path} is missing: {folder} gets no vocabulary')
    with write_whole(os.path.join(folder, 'config.json')) as f:
        json.dump(config, f, indent=1)
    with write_whole(os.path.join(folder, 'model.safetensors'), 'wb') as f:
        f.write(safetensors.torch.save(tensors, metadata={'format': 'pt'}))
    print(f'{architecture}: {folder}')


def main(args):
    """Convert one way or the other."""
    if args.from_transformers:
        from_transformers(args.from_transformers, args)
    else:
        to_transformers(args.to_transformers, args)


if __name__ == '__main__':
    run_script(main, parse_args)
