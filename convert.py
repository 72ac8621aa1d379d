"""Convert between the released layout and checkpoints of the `transformers` library (`openai-gpt`).

    python convert.py --from_transformers FOLDER --model_path OUT      # config.json, model.safetensors -> ten shards
    python convert.py --to_transformers FOLDER --model_path IN         # ten shards -> config.json, model.safetensors
    python convert.py --to_transformers FOLDER --desc RUN              # the same for a network that train.py fine-tuned

Only local folders are read, and nothing is unpickled. pytorch_model.bin and checkpoints of several files can be read.
The vocabulary is converted too (to or from vocab.json and merges.txt). tokenizer.json, which is written where it can
express the vocabulary, gives nearly always the ids of `TextEncoder` (see hf_files.py); without it the library's own
tokenizer splits many texts differently.

The special tokens of a fine-tuned network become the last tokens, which `generate` of the library never draws. Its head
becomes that of `OpenAIGPTDoubleHeadsModel` (multiple choice) or `OpenAIGPTForSequenceClassification`, with the same
logits; a network that was trained on numbers gives them in the unit of its labels. The library has no head that adds
both orders of two texts: of such a network the language model alone is written.
"""

from common.options import (
    NETWORK,
    Parser,
    add_dropout_args,
    add_network_args,
    finish_paths,
    parse_trained_args,
    refuse_options,
)
from common.shell import begin_script, run_script


def parse_args(argv=None):
    parser = Parser('convert.py', __doc__, '(--from_transformers FOLDER | --to_transformers FOLDER) ')
    group = parser.add_argument_group('what to do').add_mutually_exclusive_group(required=True)
    group.add_argument('--from_transformers', metavar='FOLDER', help='convert this checkpoint to --model_path')
    group.add_argument('--to_transformers', metavar='FOLDER', help='convert --model_path, or the run --desc, to here')
    group = add_network_args(parser, 'model/', 'the folder in the released layout')
    add_dropout_args(group)                                            # config.json of the library has them
    args, given = parse_trained_args(parser, argv)
    if args.from_transformers:
        refuse_options(given, ('desc', 'n_ctx', *NETWORK), 'with --from_transformers')
        finish_paths(args)
    return args


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import contextlib
import json
import os
import re

import torch

from common.checkpoint import is_plain, load_state
from common.hf_files import model_card, tokenizer_json
from common.trained import open_trained
from datasets import SPECIAL
from model_pytorch import (
    DEFAULT_CONFIG,
    N_SHARDS,
    ClfHead,
    MultipleChoiceHead,
    TransformerModel,
    dotdict,
    save_openai_pretrained_model,
)
from text_utils import load_merges, load_vocabulary
from utils import read_json, read_text, write_whole

CONFIG = dict(model_type='openai-gpt', layer_norm_epsilon=1e-5)  # every config.json of this network has these
WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')
EXPORTED = ('vocab.json', 'merges.txt', 'config.json', 'generation_config.json', 'tokenizer.json',
            'tokenizer_config.json', 'README.md', 'model.safetensors')
BUFFERS = re.compile(r'h\.\d+\.attn\.bias|position_ids').fullmatch  # of old checkpoints; not parameters


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


def refuse_to_overwrite(*paths):
    for path in paths:
        if os.path.lexists(path):
            raise ValueError(f'{path} exists already: name another folder, or delete it')


@contextlib.contextmanager
def all_or_none(paths):
    """After an error, remove those of the paths that have been written. None of them existed before."""
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                os.remove(path)
        raise


def read_library_config(path: str) -> dict:
    """The config.json of a checkpoint of this network. Raises FileNotFoundError or ValueError, also for another one."""
    config = {**CONFIG, 'n_head': DEFAULT_CONFIG.n_head, 'afn': DEFAULT_CONFIG.afn, **read_json(path)}
    for key, value in CONFIG.items():
        if config[key] != value:
            raise ValueError(f'{path} is of another network: {key} is {config[key]!r}, want {value!r}')
    if type(config['n_head']) is not int or config['n_head'] < 1:
        raise ValueError(f'{path}: n_head is {config["n_head"]!r}, want a number of at least 1')
    return config


def read_weights(path: str) -> dict:
    """{name: tensor} from one file. Raises FileNotFoundError or ValueError."""
    if path.endswith('.bin'):
        state = load_state(path)
        if not isinstance(state, dict) or not all(isinstance(name, str) and is_plain(state[name]) for name in state):
            raise ValueError(f'{path} does not hold tensors by name')
        return state
    safetensors = import_safetensors()
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} is missing, or is not a file')
    try:
        return safetensors.load_file(path)
    except Exception as e:  # damaged files raise many types of exceptions
        raise ValueError(f'{path} is damaged, or not of safetensors ({str(e).splitlines()[0]})') from None


def read_checkpoint(folder: str) -> tuple[str, dict]:
    """The path of the weights in the folder, and {name in `OpenAIGPTModel`: tensor}."""
    names = [name for name in WEIGHTS if os.path.isfile(os.path.join(folder, name))]
    if not names:
        raise FileNotFoundError(f'{folder} has none of {", ".join(WEIGHTS)}: want a folder written by save_pretrained')
    path = os.path.join(folder, names[0])
    if path.endswith('.index.json'):
        files, state = read_json(path).get('weight_map'), {}
        if not isinstance(files, dict) or any(name != os.path.basename(str(name)) for name in files.values()):
            raise ValueError(f'{path}: want a weight_map with the names of files in this folder')
        for name in sorted(set(files.values())):
            state |= read_weights(os.path.join(folder, name))  # `build_network` refuses missing tensors
    else:
        state = read_weights(path)
    tensors = {name.removeprefix('transformer.'): tensor for name, tensor in state.items()}
    if 'lm_head.weight' in tensors:  # the library writes one of the tied two, or both
        head = tensors.pop('lm_head.weight')
        if not torch.equal(tensors.setdefault('tokens_embed.weight', head), head):
            raise ValueError(f'{path}: lm_head.weight is not tokens_embed.weight, as it is in this network')
    return path, {name: tensor for name, tensor in tensors.items() if not BUFFERS(name)}


@torch.no_grad()
def build_network(config: dict, tensors: dict, path: str):
    """The network with the tensors of `path`, and its options. Removes the tensors that it uses from `tensors`."""
    def take(name, shape):
        if name not in tensors:
            raise ValueError(f'{path} has no {name}')
        tensor = tensors.pop(name)
        sizes = [-1 if want == -1 and size > 0 else size for size, want in zip(tensor.shape, shape, strict=False)]
        if tensor.dim() != len(shape) or sizes != list(shape):
            raise ValueError(f'{path}: {name} is {list(tensor.shape)}, want {list(shape)} (-1 is any number)')
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise ValueError(f'{path}: {name} holds numbers that are not finite, or not floating-point')
        return tensor

    n_layer = len({name.split('.')[1] for name in tensors if name.startswith('h.')})
    tokens = take('tokens_embed.weight', (-1, -1))
    positions = take('positions_embed.weight', (-1, tokens.size(1)))
    for key, size in (('vocab_size', len(tokens)), ('n_positions', len(positions)), ('n_embd', tokens.size(1)),
                      ('n_layer', n_layer)):
        if config.get(key, size) != size or type(config.get(key, size)) is not int:
            raise ValueError(f'{path} has {key}={size}, but config.json beside it has {key}={config[key]!r}')
    afn = str(config['afn']).replace('silu', 'swish')  # the library uses both names
    cfg = dotdict(DEFAULT_CONFIG, n_embd=tokens.size(1), n_head=config['n_head'], n_layer=max(n_layer, 1), afn=afn)
    model = TransformerModel(cfg, vocab=len(tokens) + len(positions), n_ctx=len(positions))
    model.embed.weight.copy_(torch.cat([tokens, positions]))
    for name, p in model.h.named_parameters(prefix='h'):
        p.copy_(take(transformers_name(name), p.shape))
    return model, cfg


def from_transformers(folder: str, args):
    """Write the checkpoint in `folder`, and its vocabulary if it has one, to args.model_path."""
    hparams_path, *weights = (os.path.join(args.model_path, name) for name in (
        'hparams.json', 'params_shapes.json', *(f'params_{i}.npy' for i in range(N_SHARDS))))
    refuse_to_overwrite(hparams_path, *weights)
    config = read_library_config(os.path.join(folder, 'config.json'))
    path, tensors = read_checkpoint(folder)
    model, cfg = build_network(config, tensors, path)
    vocab_path, merges_path, texts = os.path.join(folder, 'vocab.json'), os.path.join(folder, 'merges.txt'), {}
    if os.path.lexists(vocab_path) or os.path.lexists(merges_path):
        texts = {args.encoder_path: read_text(vocab_path), args.bpe_path: read_text(merges_path)}
        refuse_to_overwrite(*texts)
        vocabulary = load_vocabulary(vocab_path)
        load_merges(merges_path)
        if len(vocabulary) != model.vocab - model.n_ctx:
            raise ValueError(f'{vocab_path} has {len(vocabulary)} tokens, {path} has {model.vocab - model.n_ctx}')
        if set(SPECIAL) & set(vocabulary):
            raise ValueError(f'{vocab_path} has {", ".join(SPECIAL)}: a fine-tuned network has no released layout')
    sizes = {key: cfg[key] for key in ('n_embd', 'n_head', 'n_layer', 'afn')}
    texts[hparams_path] = json.dumps({**sizes, 'n_ctx': model.n_ctx})
    with all_or_none([*texts, *weights]):
        for target, text in texts.items():
            with write_whole(target) as f:
                f.write(text)
        save_openai_pretrained_model(model, args.model_path)
    if tensors:
        print(f'{path}: not part of the network, and left out: {", ".join(sorted(tensors))}')
    if args.encoder_path not in texts:
        print(f'{folder} has no vocab.json and merges.txt: {args.encoder_path} and {args.bpe_path} are missing')
    print(f'weights in the released layout: {args.model_path}')


def without_bias(head: ClfHead, ln_bias, scale):
    """Weights W and a bias of the last layer normalisation that give the logits of the head without a bias of its own.

    The head of the library has no bias. The bias b of the logits W h + b goes into the layer normalisation before it,
    to whose bias pinv(W) b is added: the logits are the same, but the last hidden states differ by this constant, and
    with them what the language model predicts. None if W cannot express b: it has fewer independent rows than classes.
    scale: mean and deviation of the labels if they are numbers, which the logits then become.
    """
    weight, bias = head.linear.weight.double(), head.linear.bias.double()
    if scale:
        mean, deviation = scale
        weight, bias = weight * deviation, bias * deviation + mean
    moved = ln_bias.double() + torch.linalg.pinv(weight) @ bias
    weight, moved = weight.float(), moved.float()
    error = (weight.double() @ (moved.double() - ln_bias.double()) - bias).abs().max()
    return (weight, moved) if error <= 1e-5 * bias.abs().max().clamp(min=1) else None


def task_tensors(trained, tensors: dict) -> tuple[str, dict]:
    """Name of the class in the library, and its own options. Adds the tensors of the task head, or changes some."""
    head, config = getattr(trained.model, 'task_head', None), trained.config
    if isinstance(head, MultipleChoiceHead):
        for name, p in head.linear.named_parameters():
            tensors[f'multiple_choice_head.summary.{name}'] = p
        return 'OpenAIGPTDoubleHeadsModel', {}
    if isinstance(head, ClfHead):
        last = f'transformer.h.{trained.options.n_layer - 1}.ln_2.bias'
        if found := without_bias(head, tensors[last], config['scale'] if not config['classes'] else None):
            tensors['score.weight'], tensors[last] = found
            names = config['classes'] or ['number']
            return 'OpenAIGPTForSequenceClassification', dict(
                id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}, pad_token_id=0,
                problem_type='single_label_classification' if config['classes'] else 'regression')
        print('the bias of the classes cannot be expressed by the weights, and the library has no head with a bias')
    if head is not None:
        print(f'the {type(head).__name__} of the run is left out: OpenAIGPTLMHeadModel has no such head')
    return 'OpenAIGPTLMHeadModel', {}


def tokenizer_files(vocabulary, trained, architecture) -> dict:
    """tokenizer.json and its options; nothing, with a word, if the library cannot have this vocabulary."""
    try:
        text = tokenizer_json(vocabulary, load_merges(trained.bpe_path), architecture != 'OpenAIGPTLMHeadModel')
    except ValueError as e:  # of the vocabulary, or of the version of spaCy
        print(f'without tokenizer.json, so that ids of the library differ from those of the training: {e}')
        return {}
    unknown = trained.encoder.decoder[0]
    return {'tokenizer.json': text, 'tokenizer_config.json': dict(
        tokenizer_class='PreTrainedTokenizerFast', unk_token=unknown, pad_token=unknown,
        model_max_length=trained.model.transformer.n_ctx, model_input_names=['input_ids', 'attention_mask'],
        clean_up_tokenization_spaces=False)}


@torch.no_grad()
def to_transformers(folder: str, args):
    """Write the network that the options name to `folder`, with its vocabulary, tokenizer and model card."""
    refuse_to_overwrite(*(os.path.join(folder, name) for name in EXPORTED))
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
    for name in ('n_embd', 'n_head', 'n_layer', 'afn', 'embd_pdrop', 'attn_pdrop', 'resid_pdrop'):
        config[name] = getattr(trained.options, name)
    texts = {'vocab.json': vocabulary, 'merges.txt': read_text(trained.bpe_path), 'config.json': config,
             'generation_config.json': dict(suppress_tokens=[*special] or None, pad_token_id=0)}
    texts |= tokenizer_files(vocabulary, trained, architecture)
    source = os.path.join(args.save_dir, args.desc) if args.desc else args.model_path
    texts['README.md'] = model_card(os.path.basename(os.path.abspath(folder)), source, trained.config, architecture,
                                    'tokenizer.json' in texts)
    contents = {os.path.join(folder, name): (text if isinstance(text, str) else json.dumps(text, indent=1)).encode()
                for name, text in texts.items()}
    contents[os.path.join(folder, 'model.safetensors')] = safetensors.save(
        {name: p.contiguous() for name, p in tensors.items()}, metadata={'format': 'pt'})
    with all_or_none(contents):
        for path, content in contents.items():
            with write_whole(path, 'wb') as f:
                f.write(content)
    print(f'{architecture}: {folder}')


def main(args):
    """Convert one way or the other."""
    if args.from_transformers:
        from_transformers(args.from_transformers, args)
    else:
        to_transformers(args.to_transformers, args)


if __name__ == '__main__':
    run_script(main, args)
