"""Opening a trained network: a run of train.py (--desc), or a folder of weights in the released layout (--model_path).

Vocabulary, merges and weights must belong together: their sizes are compared, and their hashes where they were written.
"""

import argparse
import os
import sys
from typing import NamedTuple

import torch

from common.checkpoint import MERGES, VOCABULARY, all_finite, load_state
from common.examples import SPECIAL
from model_pytorch import N_SHARDS, DoubleHeadModel, LMModel, load_openai_pretrained_model, open_release
from tasks.base import head_type
from text_utils import TextEncoder
from utils import check_file, read_sealed, sha256


class Trained(NamedTuple):
    """A trained network and what belongs to it."""
    model: torch.nn.Module  # in evaluation mode: DoubleHeadModel of a run, LMModel of a model folder
    encoder: TextEncoder  # the vocabulary alone, without special tokens
    options: argparse.Namespace  # n_embd, n_head, ..., of the network
    n_special: int  # rows between tokens and positions: 3 in a fine-tuned network, otherwise 0
    config: dict  # config.json of the run; empty for a model folder
    bpe_path: str  # the merges


def open_trained(args) -> Trained:
    """The network of --desc, a run in --save_dir, or of --model_path, a folder with weights in the released layout.

    Vocabulary and merges lie in the same folder; --encoder_path and --bpe_path, where given, take their place and must
    be the same. Raises ValueError or FileNotFoundError where files are missing, damaged, or do not belong together.
    """
    folder = os.path.join(args.save_dir, args.desc) if args.desc else args.model_path
    paths = args.encoder_path or os.path.join(folder, VOCABULARY), args.bpe_path or os.path.join(folder, MERGES)
    trained = open_run(folder, *paths) if args.desc else open_model_folder(folder, *paths, args)
    trained.model.eval()
    return trained


def open_run(folder, encoder_path, bpe_path) -> Trained:
    config_path, path = (os.path.join(folder, name) for name in ('config.json', 'best_params.pt'))
    check_file(config_path, hint=': --desc and --save_dir name a run of train.py that has been begun')
    config = read_sealed(config_path)
    encoder = TextEncoder(encoder_path, bpe_path)
    for kind, name in (('vocabulary', encoder_path), ('merges', bpe_path)):
        if sha256(name) != config[kind]:
            raise ValueError(f'{name} is not the {kind} that {os.path.basename(folder)} was trained with')
    written, state = written_hashes(folder), load_state(path)
    if not written:
        print(f'{folder} has no results.json: perhaps the run is not complete', file=sys.stderr)
    elif sha256(path) != written.get('parameters'):
        raise ValueError(f'{path} is not what the run wrote (results.json): it was damaged or replaced')
    options, n_special = argparse.Namespace(**config['options']), len(SPECIAL)
    model = DoubleHeadModel(options, config['clf_token'], head_type(config['form'], config['classes']),
                            vocab=config['n_vocab'] + n_special + config['n_ctx'], n_ctx=config['n_ctx'])
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, ValueError) as e:
        reason = str(e).splitlines()[-1].strip()[:120]
        raise ValueError(f'{path} holds the parameters of another network ({reason})') from None
    if not all_finite(state):
        raise ValueError(f'{path} holds parameters that are not finite: it is damaged, or the run diverged')
    return Trained(model, encoder, options, n_special, config, bpe_path)


def open_model_folder(folder, encoder_path, bpe_path, options) -> Trained:
    """The network whose weights lie in a folder in the released layout; options: its size."""
    encoder = TextEncoder(encoder_path, bpe_path)
    shapes = shapes_for(folder, encoder_path, encoder.n_vocab)
    n_stored, n_embd = shapes[0]
    if options.n_embd != n_embd or 12 * options.n_layer != len(shapes) - 2:
        raise ValueError(f'{folder} has {(len(shapes) - 2) // 12} blocks {n_embd} wide, which is not '
                         f'n_layer={options.n_layer}, n_embd={options.n_embd}')
    if written_hashes(folder):
        hash_model(folder, encoder_path, bpe_path)
    n_ctx = min(options.n_ctx, n_stored)
    model = LMModel(options, vocab=encoder.n_vocab + n_ctx, n_ctx=n_ctx)
    load_openai_pretrained_model(model, n_ctx=n_ctx, n_transfer=options.n_layer, path=folder)
    return Trained(model, encoder, options, 0, {}, bpe_path)


def add_special(text_encoder):
    """The vocabulary of a TextEncoder, {token: id}, with the special tokens appended."""
    return {**text_encoder.encoder, **{token: text_encoder.n_vocab + i for i, token in enumerate(SPECIAL)}}


def shapes_for(folder, encoder_path, n_vocab) -> list[list[int]]:
    """The shapes of the weights in a model folder. Raises ValueError if they are not for n_vocab tokens."""
    shapes, _ = open_release(folder)
    if shapes[1][0] != n_vocab:
        raise ValueError(f'{encoder_path} has {n_vocab} tokens, the weights in {folder} are for {shapes[1][0]}: they '
                         'do not belong together')
    return shapes


def hash_model(folder, encoder_path, bpe_path) -> dict:
    """Hashes of vocabulary, merges and the weights in a model folder.

    A folder that pretrain.py wrote has them in results.json. Raises ValueError where they differ.
    """
    shards = [os.path.join(folder, f'params_{i}.npy') for i in range(N_SHARDS)]
    hashes = dict(vocabulary=sha256(encoder_path), merges=sha256(bpe_path), weights=sha256(*shards))
    sizes = os.path.join(folder, 'hparams.json')
    found = {**hashes, 'hparams': sha256(sizes) if os.path.isfile(sizes) else None}
    for name, value in written_hashes(folder).items():
        if value != found.get(name):
            raise ValueError(f'{folder}: these {name} are not those that were written there (results.json): they were '
                             'damaged or replaced, or belong to another model')
    return hashes


def written_hashes(folder) -> dict:
    """The hashes in results.json of the run that wrote a folder; empty where there is no such file."""
    path = os.path.join(folder, 'results.json')
    return read_sealed(path)['hashes'] if os.path.lexists(path) else {}
