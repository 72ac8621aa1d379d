"""The small model of model/sample: its perplexity on new text, and what pre-training adds on data/sample."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import pretrain
import train
from data import make_sample
from model_pytorch import DEFAULT_CONFIG, TransformerModel, dotdict, load_openai_pretrained_model
from text_utils import TextEncoder
from utils import read_json

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'model' / 'sample'


def run(folder, dataset, *argv):
    """Results of a run of train.py on made-up data, with the defaults of --dataset and the options argv."""
    dirs = [word for name in ('log', 'save', 'submission') for word in (f'--{name}_dir', str(folder / name))]
    return train.main(train.parse_args([
        '--dataset', dataset, '--desc', '-'.join([dataset, *argv]), '--data_dir', str(ROOT / 'data' / 'sample'),
        '--model_path', str(FOLDER), '--analysis', '--device', 'cpu', *dirs, *argv]))


@pytest.mark.slow
def test_pre_training_adds_25_points(tmp_path):
    short = '--n_iter', '1'                             # a third of the default, to save time
    tuned, scratch = (run(tmp_path, 'sample', *short, *argv).test_accuracy for argv in ([], ['--n_transfer', '-1']))
    assert scratch < 62                                 # near chance: the labelled stories are not enough
    assert tuned - scratch >= 25


def test_the_order_of_words_is_learnt_in_a_third_of_the_time(tmp_path):
    assert run(tmp_path, 'sample-cola', '--n_iter', '2').valid_score > 50         # the best constant answer: 0


@pytest.mark.slow
@pytest.mark.parametrize('name, least, gain', [('cola', 60, 15), ('rte', 90, 30), ('mrpc', 85, 20), ('stsb', 70, 50),
                                               ('race', 80, 40)])
def test_every_form_is_learnt_thanks_to_pre_training(name, least, gain, tmp_path):
    tuned, scratch = (run(tmp_path, f'sample-{name}', *argv).valid_score for argv in ([], ['--n_transfer', '-1']))
    assert tuned > least and tuned - scratch > gain


def test_perplexity_of_stories_it_has_not_seen():
    """Per token, in contiguous sequences as in training. The random choices of the generator set a lower limit."""
    text_encoder = TextEncoder(FOLDER / 'encoder_bpe_40000.json', FOLDER / 'vocab_40000.bpe')
    hparams = read_json(FOLDER / 'hparams.json')
    n_vocab, n_ctx = len(text_encoder.encoder), hparams['n_ctx']
    cfg = dotdict({**DEFAULT_CONFIG, **hparams})
    model = TransformerModel(cfg, vocab=n_vocab + n_ctx, n_ctx=n_ctx).eval()
    load_openai_pretrained_model(model, path=FOLDER)
    [ids] = text_encoder.encode(['\n'.join(make_sample.unlabelled(200, seed=12345))], verbose=False)
    ids = np.array(ids[:(len(ids) - 1) // n_ctx * n_ctx + 1])
    tokens = torch.from_numpy(np.stack([ids[i:i + n_ctx + 1] for i in range(0, len(ids) - 1, n_ctx)]))
    with torch.no_grad():
        loss = pretrain.LMLoss(model)(tokens, len(ids) - 1).item()
    assert 0 not in ids                                 # no character is unknown
    assert math.exp(loss) < 2.6


@pytest.mark.parametrize('name', ['hparams.json', 'params_shapes.json', 'encoder_bpe_40000.json', 'vocab_40000.bpe'])
def test_the_folder_is_complete_and_small(name):
    assert (FOLDER / name).is_file()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4e6
