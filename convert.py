"""Convert between the released layout and checkpoints of the `transformers` library (`openai-gpt`).

    python convert.py --from_transformers FOLDER --model_path OUT      # config.json, model.safetensors -> ten shards
    python convert.py --to_transformers FOLDER --model_path IN         # ten shards -> config.json, model.safetensors
    python convert.py --to_transformers FOLDER --desc RUN              # the same for a network that train.py fine-tuned

Only local folders are read, and nothing is unpickled: a checkpoint with pytorch_model.bin alone must first be opened
and saved again by the library. The vocabulary is converted too, from vocab.json and merges.txt or from tokenizer.json.
With the tokenizer.json that is written, the library gives nearly always the ids of `TextEncoder` (common/hf_files.py);
its own tokenizer splits many texts differently.

The special tokens of a fine-tuned network become the last tokens, which `generate` of the library never draws. Its head
becomes that of `OpenAIGPTDoubleHeadsModel` (multiple choice) or `OpenAIGPTForSequenceClassification`, with the same
logits; a network that was trained on numbers gives them in the unit of its labels. The library has no head that adds
both orders of two texts: of such a network the language model alone is written.
"""

from common import options
from common.options import NETWORK, Parser, finish_paths, parse_trained_args, refuse_options
from common.shell import begin_script, run_script


def parse_args(argv=None):
    parser = Parser('convert.py', __doc__, '(--from_transformers FOLDER | --to_transformers FOLDER) ')
    group = parser.add_argument_group('what to do').add_mutually_exclusive_group(required=True)
    group.add_argument('--from_transformers', metavar='FOLDER', help='convert this checkpoint to --model_path')
    group.add_argument('--to_transformers', metavar='FOLDER', help='convert --model_path, or the run --desc, to here')
    group = options.add_network_args(parser, 'model/', 'the folder in the released layout')
    options.add_dropout_args(group)  # config.json of the library has them
    args, given = parse_trained_args(parser, argv)
    if args.from_transformers:
        refuse_options(given, ('desc', 'n_ctx', *NETWORK), 'with --from_transformers')
        args.model_path = given.get('model_path', 'model/')  # here, not in the repository
        finish_paths(args)
    return args


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import contextlib
import json
import os

import torch

from common.examples import SPECIAL
from common.hf_files import read_tokenizer_json, tokenizer_json
from common.trained import open_trained
from model_pytorch import (
    DEFAULT_CONFIG,
    N_SHARDS,
    ClfHead,
    MultipleChoiceHead,
    TransformerModel,
    dotdict,
    save_openai_pretrained_model,
)
from text_utils import load_merges
from utils import check_file, errors_named, read_json, read_text, shown, write_whole

CONFIG = dict(model_type='openai-gpt', layer_norm_epsilon=1e-5)  # every config.json of this network has these
DEFAULTS = dict(vocab_size=40478, n_positions=512, n_embd=768, n_layer=12, n_head=12, afn='gelu')  # of the library
CARD = """---
library_name: transformers
tags: [openai-gpt]
---
GPT-1 as {architecture}, exported from {source} of a PyTorch reproduction.

```python
from transformers import AutoTokenizer, {architecture}
tokenizer = AutoTokenizer.from_pretrained({name!r})
model = {architecture}.from_pretrained({name!r})
```
"""


def import_safetensors():
    try:
        import safetensors.torch
    except ImportError:
        raise ValueError('checkpoints of transformers need the package safetensors: pip install safetensors') from None
    return safetensors.torch


def transformers_name(name: str) -> str:
    """h.0.attn.c_attn.w -> h.0.attn.c_attn.weight, h.0.ln_1.g -> h.0.ln_1.weight"""
    stem, _, last = name.rpartition('.')
    return f'{stem}.{dict(w="weight", g="weight", b="bias")[last]}'


@contextlib.contextmanager
def new_files(paths):
    """Refuse paths that exist already; after an error, remove those that have been written."""
    for path in paths:
        if os.path.lexists(path):
            raise ValueError(f'{path} exists already: name another folder, or delete it')
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                os.remove(path)
        raise


def read_library_config(path: str) -> dict:
    """The config.json of a checkpoint of this network. Raises FileNotFoundError or ValueError, also for another one."""
    config = {**CONFIG, **DEFAULTS, **read_json(path)}
    for key, value in CONFIG.items():
        if config[key] != value:
            raise ValueError(f'{path} is of another network: {key} is {config[key]!r}, want {value!r}')
    for key in ('vocab_size', 'n_positions', 'n_head'):
        if type(config[key]) is not int or config[key] < 1:
            raise ValueError(f'{path}: {key} is {config[key]!r}, want a number of at least 1')
    return config


def read_vocabulary(folder: str, n_tokens: int) -> tuple[str, str]:
    """The contents of our two files, vocabulary and merges, for a checkpoint of n_tokens. OSError or ValueError."""
    path, merges_path, both = (os.path.join(folder, name) for name in ('vocab.json', 'merges.txt', 'tokenizer.json'))
    if os.path.isfile(path) and os.path.isfile(merges_path):
        vocabulary, texts = read_json(path), (read_text(path), read_text(merges_path))
        load_merges(merges_path)
    elif os.path.isfile(both):  # all that the library writes since version 5
        path, (vocabulary, merges) = both, read_tokenizer_json(both)
        texts = json.dumps(vocabulary), '\n'.join(['#version: 0.2', *map(' '.join, merges), ''])
    else:
        raise FileNotFoundError(f'{folder}: vocab.json is missing, or merges.txt, and tokenizer.json too: save the '
                                'tokenizer there with its save_pretrained')
    if set(SPECIAL) & set(vocabulary):
        raise ValueError(f'{path} has {", ".join(SPECIAL)}: a fine-tuned network has no released layout')
    ids = [i for i in vocabulary.values() if type(i) is int]
    if len(ids) < len(vocabulary) or sorted(ids) != [*range(n_tokens)]:
        raise ValueError(f'{path} has {len(vocabulary)} tokens, but the weights beside it want {n_tokens} with the ids '
                         '0, 1, 2, ...')
    return texts


def read_checkpoint(path: str) -> dict:
    """{name in `OpenAIGPTModel`: tensor} from a file of safetensors. Raises FileNotFoundError or ValueError."""
    safetensors = import_safetensors()
    check_file(path, hint=': want a folder written by save_pretrained of transformers 4.35 or later')
    with errors_named(path), open(path, 'rb'):
        pass  # the library calls a file missing that it cannot open
    try:
        state = safetensors.load_file(path)
    except Exception as e:  # damaged files raise many types of exceptions
        raise ValueError(f'{path} is damaged, or not of safetensors ({str(e).splitlines()[0]})') from None
    tensors = {name.removeprefix('transformer.'): tensor for name, tensor in state.items()}
    if 'lm_head.weight' in tensors:  # the library writes one of the tied two, or both
        head = tensors.pop('lm_head.weight')
        if not torch.equal(tensors.setdefault('tokens_embed.weight', head), head):
            raise ValueError(f'{path}: lm_head is not tied to the embeddings, as in this network')
    return tensors


@torch.no_grad()
def build_network(config: dict, tensors: dict, path: str):
    """The network with the tensors of `path`, and its options. Removes the tensors that it uses from `tensors`."""
    def take(name, *shape):
        if name not in tensors:
            raise ValueError(f'{path} has no {name}')
        tensor = tensors.pop(name)
        if tensor.shape != shape:
            raise ValueError(f'{path}: {name} is {list(tensor.shape)}, but config.json beside it says {list(shape)}')
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise ValueError(f'{path}: {name} holds numbers that are not finite, or not floating-point')
        return tensor

    tokens = take('tokens_embed.weight', config['vocab_size'], config['n_embd'])
    positions = take('positions_embed.weight', config['n_positions'], config['n_embd'])
    n_layer = len({name.split('.')[1] for name in tensors if name.startswith('h.')})
    if not n_layer or config['n_layer'] != n_layer:
        raise ValueError(f'{path} has {n_layer} blocks, but config.json beside it has n_layer={config["n_layer"]!r}')
    afn = str(config['afn']).replace('silu', 'swish')  # the library uses both names
    cfg = dotdict(DEFAULT_CONFIG, n_embd=tokens.size(1), n_head=config['n_head'], n_layer=n_layer, afn=afn)
    model = TransformerModel(cfg, vocab=len(tokens) + len(positions), n_ctx=len(positions))
    model.embed.weight.copy_(torch.cat([tokens, positions]))
    for name, p in model.h.named_parameters(prefix='h'):
        p.copy_(take(transformers_name(name), *p.shape))
    return model, cfg


def from_transformers(folder: str, args):
    """Write the checkpoint in `folder`, with its vocabulary, to args.model_path."""
    hparams_path, *weights = (os.path.join(args.model_path, name) for name in (
        'hparams.json', 'params_shapes.json', *(f'params_{i}.npy' for i in range(N_SHARDS))))
    path = os.path.join(folder, 'model.safetensors')
    with new_files([hparams_path, args.encoder_path, args.bpe_path, *weights]):
        config = read_library_config(os.path.join(folder, 'config.json'))
        tensors = read_checkpoint(path)
        model, cfg = build_network(config, tensors, path)
        vocabulary, merges = read_vocabulary(folder, config['vocab_size'])
        sizes = {key: cfg[key] for key in ('n_embd', 'n_head', 'n_layer', 'afn')}
        texts = {args.encoder_path: vocabulary, args.bpe_path: merges,
                 hparams_path: json.dumps({**sizes, 'n_ctx': model.n_ctx})}
        for target, text in texts.items():
            with write_whole(target) as f:
                f.write(text)
        save_openai_pretrained_model(model, args.model_path)
    if tensors:
        print(f'{path}: not part of the network, and left out: {", ".join(sorted(tensors))}')
    print(f'weights in the released layout: {args.model_path}')


def without_bias(head: ClfHead, ln_bias, scale):
    """Weights W and a bias of the last layer normalisation that give the logits of the head without a bias of its own.

    The head of the library has no bias. The bias b of the logits W h + b goes into the layer normalisation before it,
    to whose bias pinv(W) b is added: the logits are the same, but the last hidden states differ by this constant, and
    with them what the language model predicts. ValueError if there are more classes than W can express.
    scale: mean and deviation of the labels if they are numbers, which the logits then become.
    """
    weight, bias = head.linear.weight.double(), head.linear.bias.double()
    if scale:
        mean, deviation = scale
        weight, bias = weight * deviation, bias * deviation + mean
    shift = torch.linalg.pinv(weight) @ bias
    if not torch.allclose(weight @ shift, bias, rtol=1e-5, atol=1e-5):
        raise ValueError(f'the library has no head with a bias, and that of {len(bias)} classes fits nowhere else')
    return weight.float(), (ln_bias.double() + shift).float()


def task_tensors(trained, tensors: dict) -> tuple[str, dict]:
    """Name of the class in the library, and its own options. Adds the tensors of the task head, or changes some."""
    head, config = getattr(trained.model, 'task_head', None), trained.config
    if isinstance(head, MultipleChoiceHead):
        for name, p in head.linear.named_parameters():
            tensors[f'multiple_choice_head.summary.{name}'] = p
        return 'OpenAIGPTDoubleHeadsModel', {}
    if isinstance(head, ClfHead):
        last = f'transformer.h.{trained.options.n_layer - 1}.ln_2.bias'
        tensors['score.weight'], tensors[last] = without_bias(
            head, tensors[last], config['scale'] if not config['classes'] else None)
        names = config['classes'] or ['number']
        return 'OpenAIGPTForSequenceClassification', dict(
            id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}, pad_token_id=0,
            problem_type='single_label_classification' if config['classes'] else 'regression')
    if head is not None:
        print(f'the {type(head).__name__} of the run is left out: OpenAIGPTLMHeadModel has no such head')
    return 'OpenAIGPTLMHeadModel', {}


@torch.no_grad()
def to_transformers(folder: str, args):
    """Write the network that the options name to `folder`, with its vocabulary, tokenizer and model card."""
    safetensors = import_safetensors()
    trained = open_trained(args)
    transformer, vocabulary = trained.model.transformer, dict(trained.encoder.encoder)
    special = range(len(vocabulary), len(vocabulary) + trained.n_special)  # rows after the vocabulary
    vocabulary.update(zip(SPECIAL, special, strict=False))
    we, n_ctx = transformer.embed.weight, transformer.n_ctx
    tensors = {f'transformer.{transformers_name(name)}': p for name, p in transformer.h.named_parameters(prefix='h')}
    tensors['transformer.tokens_embed.weight'] = we[:-n_ctx]
    tensors['transformer.positions_embed.weight'] = we[-n_ctx:]
    architecture, config = task_tensors(trained, tensors)
    config |= {**CONFIG, 'architectures': [architecture], 'vocab_size': len(vocabulary), 'n_positions': n_ctx}
    config |= {name: getattr(trained.options, name) for name in NETWORK}
    texts = {'vocab.json': vocabulary, 'merges.txt': read_text(trained.bpe_path), 'config.json': config,
             'generation_config.json': dict(suppress_tokens=[*special] or None, pad_token_id=0)}
    texts['tokenizer.json'] = tokenizer_json(vocabulary, load_merges(trained.bpe_path),
                                             architecture != 'OpenAIGPTLMHeadModel')
    unknown = trained.encoder.decoder[0]
    texts['tokenizer_config.json'] = dict(
        tokenizer_class='PreTrainedTokenizerFast', unk_token=unknown, pad_token=unknown, model_max_length=n_ctx,
        model_input_names=['input_ids', 'attention_mask'], clean_up_tokenization_spaces=False)
    name, source = (shown(os.path.basename(os.path.abspath(path))) for path in (folder, args.desc or args.model_path))
    texts['README.md'] = CARD.format(architecture=architecture, name=name, source=source)
    contents = {os.path.join(folder, name): (text if isinstance(text, str) else json.dumps(text, indent=1)).encode()
                for name, text in texts.items()}
    contents[os.path.join(folder, 'model.safetensors')] = safetensors.save(
        {name: p.contiguous() for name, p in tensors.items()}, metadata={'format': 'pt'})
    with new_files(contents):
        for path, content in contents.items():
            with write_whole(path, 'wb') as f:
                f.write(content)
    print(f'{architecture}: {folder}')


def main(args):
    if args.from_transformers:
        from_transformers(args.from_transformers, args)
    else:
        to_transformers(args.to_transformers, args)


if __name__ == '__main__':
    run_script(main, args)
