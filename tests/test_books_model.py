"""The network in model/books: it has read books, and the files beside it say how to use it."""

import pytest
import torch
from toy import ROOT

import generate
import train
import zero_shot
from common.trained import open_trained
from utils import read_json

FOLDER = str(ROOT / 'model' / 'books')
OWN = ['--dataset', 'own', '--train', 'x.csv', '--text', 'a', '--label', 'b']
# made up for this test, as sentences of a novel
SENTENCES = ['He opened the door and went into the room.', 'She looked at him for a long time without a word.',
             'The old man was sitting by the fire with his hat in his hand.']
PAIRS = [('The children were in the garden.', 'The children was in the garden.'),
         ('She had seen him before.', 'She had saw him before.'),
         ('He gave these books to his sister.', 'He gave this books to his sister.'),
         ('The woman asked him to help her.', 'The woman asked he to help her.'),
         ('They did not know what to say.', 'They did not knew what to say.')]


@pytest.fixture(scope='module')
def trained():
    return open_trained(generate.parse_args(['--model_path', FOLDER, '--prompt', 'x', '--device', 'cpu']))


def scores(trained, texts):
    """Log-probabilities of each text after a newline token."""
    newline = trained.encoder.encoder['\n</w>']
    ids = [[newline, *of_text] for of_text in trained.encoder.encode(texts, verbose=False)]
    return zero_shot.score_texts(trained.model.transformer, trained.encoder.n_vocab, ids)


def test_sentences_of_a_novel_are_expected(trained):
    """Without training a token takes log 8192 = 9.0 nats, with the frequencies of tokens alone 6.6."""
    nats = -torch.cat(scores(trained, SENTENCES)).mean().item()
    assert 2 < nats < 4


def test_grammar_is_preferred(trained):
    good, bad = (torch.tensor([p.sum().item() for p in scores(trained, side)]) for side in zip(*PAIRS, strict=True))
    assert (good > bad).all()


def test_its_size_and_its_rate_are_defaults_of_the_scripts():
    assert read_json(f'{FOLDER}/hparams.json') == dict(n_embd=256, n_head=4, n_layer=4, n_ctx=256, afn='gelu', lr=3e-4)
    args = train.parse_args([*OWN, '--model_path', FOLDER])
    assert (args.n_embd, args.n_layer, args.n_ctx, args.lr) == (256, 4, 256, 3e-4)


def test_own_data_begins_with_it_where_there_is_no_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.parse_args(OWN).model_path == f'{ROOT}/model/books/'
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'params_shapes.json').write_text('[]')
    assert train.parse_args(OWN).model_path == 'model/' and train.parse_args([]).model_path == 'model/'
