"""Whole runs of train.py: toy runs from a test, and the original's complete runs on the real files."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import SHARED, Golden, assert_close, without_noise
from toy import toy_argv, toy_stories, write

import train
from common.shell import one_line_errors
from datasets import TEST_NAME


def test_a_run_writes_and_prints_what_the_original_does(toy, tmp_path, capsys):
    results = toy('--desc', 'first', '--analysis')
    out = capsys.readouterr().out.splitlines()
    options, *lines, result = map(json.loads, (tmp_path / 'log' / 'first.jsonl').read_text().splitlines())
    assert options['lr'] == 1e-2 and options['n_gpu'] == 2 and options['desc'] == 'first'
    assert [(line['n_epochs'], line['n_updates']) for line in lines] == [(1, 10), (2, 20)]
    for line in lines:
        assert ('{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_acc:.2f} {va_acc:.2f}'.format(**line)) in out
    rows = [row.split('\t') for row in (tmp_path / 'submission' / 'ROCStories.tsv').read_text().splitlines()]
    assert rows[0] == ['index', 'prediction'] and [row[0] for row in rows[1:]] == [str(i) for i in range(11)]
    right = [int(row[1]) == (i % 2 == 0) for i, row in enumerate(rows[1:])]
    assert f'ROCStories Test Accuracy:  {100 * sum(right) / 11:.2f}' in out
    assert f'ROCStories Valid Accuracy: {max(line["va_acc"] for line in lines):.2f}' in out
    assert result['test_acc'] == results.test_accuracy
    assert results.test_accuracy == pytest.approx(100.) and len(results.losses) == 20
    assert results.losses[-1][0] < results.losses[0][0]
    assert not list(tmp_path.rglob('*.part')) and not (tmp_path / 'save' / 'first' / 'checkpoint.pt').exists()


def test_costs_are_means_over_examples_of_the_best_model(toy, tmp_path):
    """The logged validation loss, from the saved parameters, example by example through the plain model."""
    results = toy('--n_iter', '1')
    args = train.parse_args(toy_argv(tmp_path))
    task, data = train.load_data(args)
    n_ctx = data.n_ctx + len(data.positions)            # those that training did not need are kept for later texts
    model = train.build_model(args, task, data.n_vocab, n_ctx, data.clf_token).eval()
    model.load_state_dict(torch.load(results.best_path, weights_only=True))
    X, _ = map(torch.from_numpy, data.valid.batch(range(10)))
    Y = torch.from_numpy(data.valid.labels)
    losses = [torch.nn.functional.cross_entropy(model(x[None])[1], y[None]).item() for x, y in zip(X, Y, strict=True)]
    assert results.log[0]['va_cost'] == pytest.approx(np.mean(losses), abs=1e-5)
    assert data.n_ctx < 24                              # as long as the data, not as allowed


def test_the_same_seed_gives_the_same_run_and_another_does_not(toy):
    a, b, c = toy('--desc', 'a'), toy('--desc', 'b'), toy('--desc', 'c', '--seed', '1')
    assert a.losses == b.losses != c.losses
    assert torch.equal(*(torch.load(run.best_path, weights_only=True)['transformer.embed.weight'] for run in (a, b)))


def test_batches_and_special_rows_consume_numpys_generator_as_the_original_does(toy, monkeypatch):
    orders = []
    shuffle = np.random.shuffle
    monkeypatch.setattr(np.random, 'shuffle', lambda x: (shuffle(x), orders.append(x.copy())))
    toy('--seed', '7')
    np.random.seed(7)
    np.random.randn(3, 16)
    for order in orders:
        expected = np.arange(40)
        np.random.mtrand._rand.shuffle(expected)        # what sklearn.utils.shuffle does
        assert order.tolist() == expected.tolist()
    assert len(orders) == 2


def test_towers_give_one_update():
    """1, 2 and 4 towers of the same batch: the same parameters after 5 updates of goldens/train_steps."""
    golden = Golden('train_steps')
    c = golden.config
    after = []
    for n_towers in (1, 2, 4):
        model = golden.model()
        opt = train.OpenAIAdam(model.parameters(), c.lr, c.lr_schedule, c.lr_warmup, c.n_updates_total, c.b1, c.b2, c.e,
                               c.l2, c.vector_l2, c.max_grad_norm)
        runner = train.Losses(model, c.lm_coef)
        for i in range(5):
            losses = train.update(runner, opt, [golden[key][i] for key in 'XMY'], n_towers, nullcontext())
            assert_close(losses[0], golden['step/clf_losses'][i].mean())
            assert_close(losses[1], golden['step/lm_losses'][i].mean())
        after.append(dict(model.named_parameters()))
    for name, p in after[0].items():
        for other in after[1:]:
            assert_close(without_noise(name, other[name]), without_noise(name, p), atol=2e-6, what=name)
        theirs = golden.parameter(name, 'after/5/')
        assert_close(without_noise(name, p.detach()), without_noise(name, theirs), atol=2e-6, what=name)


def test_every_tower_draws_its_own_dropout():
    golden = Golden('dropout')
    losses = train.Losses(golden.model(), 0.5)
    drawn = []
    losses.model.transformer.drop.register_forward_hook(lambda _, args, out: drawn.append(out.detach() == 0))
    opt = torch.optim.SGD(losses.parameters(), lr=0.)
    train.update(losses, opt, [golden[key] for key in 'XMY'], 4, nullcontext())
    assert len(drawn) == 4 and not torch.equal(drawn[0], drawn[1])


def test_a_saved_run_predicts_any_file_of_stories(toy, tmp_path, capsys):
    trained = toy('--desc', 'kept', '--submit')
    again = toy('--desc', 'kept', '--predict', str(tmp_path / TEST_NAME))
    assert_close(again.logits, torch.tensor(trained.test_logits))
    assert again.accuracy == 100 and 'accuracy 100.00' in capsys.readouterr().out
    unlabelled = [[*row[1:6], *row[6:7]] for row in toy_stories(5, 3)]
    unlabelled[1:] = [['cat', 'sat', 'the', 'cat', 'sad', 'happy']] * 4
    unlabelled.append(['the old cat ' * 40, *unlabelled[1][1:]])           # longer than the run's n_ctx
    found = toy('--desc', 'kept', '--predict', write(tmp_path / 'more.csv', unlabelled))
    rows = [row.split('\t') for row in Path(found.path).read_text().splitlines()]
    assert rows[0] == ['index', 'prediction', 'p0', 'p1'] and len(rows) == 6 and found.accuracy is None
    for row in rows[1:]:
        p = [float(x) for x in row[2:]]
        assert sum(p) == pytest.approx(1, abs=2e-6) and int(row[1]) == np.argmax(p)
    assert '1 of 5 examples are longer than the n_ctx' in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match='other/config.json is missing'):
        toy('--desc', 'other', '--predict', str(tmp_path / TEST_NAME))


def test_a_second_run_keeps_the_files_of_the_first(toy, tmp_path, capsys):
    first = toy('--desc', 'twice')
    log = Path(first.log_path).read_text()
    toy('--desc', 'twice', '--seed', '1')
    for _ in range(2):
        toy('--desc', 'lr.01', '--n_iter', '1')
    assert (tmp_path / 'log' / 'lr.01.1.jsonl').exists() and (tmp_path / 'save' / 'lr.01.1').is_dir()
    assert (tmp_path / 'log' / 'twice.1.jsonl').read_text() == log
    assert (tmp_path / 'save' / 'twice.1' / 'best_params.pt').exists()
    assert 'earlier run are now in' in capsys.readouterr().out


def test_a_second_run_sets_the_first_aside_where_all_files_are_in_one_folder(folder, toy):
    """Its predictions lie in its folder, which is renamed."""
    for _ in range(3):
        toy('--desc', 'a', '--seeds', '1-2', '--n_iter', '1', '--submit',
            *(f'--{kind}_dir={folder}/all' for kind in ('log', 'save', 'submission')))
    names = {path.relative_to(folder / 'all').as_posix() for path in (folder / 'all').rglob('*')}
    assert {f'a-{seed}{n}/ROCStories.tsv' for seed in (1, 2) for n in ('', '.1', '.2')} <= names
    assert {f'a-{seed}{n}.jsonl' for seed in (1, 2) for n in ('', '.1', '.2')} <= names


def test_options_of_the_task_and_the_model_folder():
    args = train.parse_args(['--dataset', 'sample'])
    assert args.data_dir == 'data/sample/' and args.desc == 'sample'
    args = train.parse_args([])
    reference = dict(seed=42, n_iter=3, n_batch=8, max_grad_norm=1, lr=6.25e-5, lr_warmup=0.002, n_ctx=512, n_embd=768,
                     n_head=12, n_layer=12, embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1, clf_pdrop=0.1, l2=0.01,
                     vector_l2=False, n_gpu=4, opt='adam', afn='gelu', lr_schedule='warmup_linear', n_transfer=12,
                     lm_coef=0.5, b1=0.9, b2=0.999, e=1e-8, n_valid=374, log_dir='log/', save_dir='save/',
                     data_dir='data/', submission_dir='submission/', encoder_path='model/encoder_bpe_40000.json',
                     bpe_path='model/vocab_40000.bpe')
    assert {name: getattr(args, name) for name in reference} == reference
    assert train.parse_args(['--analysis']).submit


@pytest.mark.parametrize('argv, words', [
    (['--data_dir', 'absent'], 'absent is not a folder'),
    (['--model_path', 'absent'], 'encoder_bpe_40000.json'),
    (['--n_batch', '100'], 'do not fill one batch'),
    (['--n_valid', '50'], 'n_valid=50'),
    (['--n_ctx', '4'], 'n_ctx=4'),
    (['--n_head', '7'], 'n_head=7'),
    (['--lr', 'nan'], '--lr: nan'),
    (['--n_transfer', '-2'], '--n_transfer: -2'),
    (['--n_ctx', '600'], ''),
    (['--device', 'tpu'], '--device tpu')])
def test_a_wrong_option_gets_one_line_and_loses_nothing(toy, tmp_path, argv, words):
    if words:
        with pytest.raises((ValueError, OSError), match=words) as error:
            toy(*argv)
        assert '\n' not in str(error.value)
        assert not (tmp_path / 'log' / 'rocstories.jsonl').exists()
    else:
        toy(*argv)                                      # more than is stored is allowed if the data does not need it


def test_when_memory_runs_out_the_same_training_in_smaller_towers_is_named(capsys):
    with pytest.raises(SystemExit), one_line_errors('half of --n_batch'):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    err = capsys.readouterr().err
    assert 'error: not enough memory: Default' in err and err.endswith('9 bytes: half of --n_batch\n')


E2E = SHARED / 'goldens' / 'e2e'


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / 'rocstories').is_dir(), reason='the ROCStories files may not be redistributed')
@pytest.mark.parametrize('name, n_close, tolerance', [('lm_coef_0', 110, 1e-5), ('default_lr', 60, 1e-4),
                                                      ('lr_1e-3', 60, 1e-4)])
def test_a_complete_run_of_the_original(name, n_close, tolerance, tmp_path, monkeypatch):
    """The reference's runs on the real files, from small random weights. Each takes minutes.

    Training is chaotic: beside a run in float64, two correct runs in float32 are off by 5e-7 at update 120, 7e-5 at 140
    and 1e-3 at 160. So the first losses are compared; the rest is judged by costs and accuracies of whole sets.
    """
    golden = json.loads((E2E / name / 'run.json').read_text())
    theirs = np.load(E2E / name / 'arrays.npz')
    recipe = golden['recipe']
    write_shards(tmp_path, recipe['shard_seed'], n_embd=64, n_layer=2)
    build_model = train.build_model

    def with_their_classifier(args, *rest):
        model = build_model(args, *rest)
        w = np.random.RandomState(recipe['clf_seed']).standard_normal([args.n_embd, 1]) * 0.02
        with torch.no_grad():
            model.task_head.linear.weight.copy_(torch.from_numpy(w.T))
        return model

    monkeypatch.setattr(train, 'build_model', with_their_classifier)
    orders = []
    shuffle = np.random.shuffle
    monkeypatch.setattr(np.random, 'shuffle', lambda x: (shuffle(x), orders.append(x.copy())))
    vocabulary = SHARED / 'openai-model'
    results = train.main(train.parse_args(golden['argv'] + [
        '--data_dir', str(SHARED / 'rocstories'), '--model_path', str(tmp_path), '--device', 'cpu',
        '--encoder_path', str(vocabulary / 'encoder_bpe_40000.json'), '--bpe_path', str(vocabulary / 'vocab_40000.bpe'),
        '--log_dir', str(tmp_path / 'log'), '--save_dir', str(tmp_path / 'save'),
        '--submission_dir', str(tmp_path / 'submission')]))
    assert results.n_ctx == golden['n_ctx'] and results.n_updates == golden['n_updates_total']
    np.testing.assert_array_equal(orders, theirs['permutations'])
    clf, lm = np.array(results.losses, dtype=float).T
    np.testing.assert_allclose(clf[:n_close], theirs['clf_loss'][:n_close], atol=tolerance, rtol=0)
    if theirs['lm_loss'].size:
        np.testing.assert_allclose(lm[:n_close], theirs['lm_loss'][:n_close], atol=tolerance, rtol=0)
    else:
        first = [float(x) for x in golden['epoch_lines'][0].split()]
        log = results.log[0]
        ours = [log[key] for key in ('n_epochs', 'n_updates', 'tr_cost', 'va_cost', 'tr_acc', 'va_acc')]
        np.testing.assert_allclose(ours[:4], first[:4], atol=0.02, rtol=0)
        np.testing.assert_allclose(ours[4:], first[4:], atol=2.5, rtol=0)  # accuracies in percent
    accuracy = float(golden['printed'][1].split()[-1])
    assert results.test_accuracy == pytest.approx(accuracy, abs=2.5)


def write_shards(path, seed, n_embd, n_layer, n_vocab=40478, n_ctx=512):
    """Random weights in the released layout, by the recipe of goldens/e2e."""
    C = n_embd
    shapes = [[n_ctx, C], [n_vocab, C]] + [[1, C, 3 * C], [3 * C], [1, C, C], [C], [C], [C],
                                           [1, C, 4 * C], [4 * C], [1, 4 * C, C], [C], [C], [C]] * n_layer
    rng = np.random.RandomState(seed)
    flat = np.concatenate([(rng.standard_normal(shape) * 0.02 + (i > 1 and (i - 2) % 12 in (4, 10))).astype(np.float32)
                           .ravel() for i, shape in enumerate(shapes)])
    for i, shard in enumerate(np.array_split(flat, 10)):
        np.save(path / f'params_{i}.npy', shard)
    (path / 'params_shapes.json').write_text(json.dumps(shapes))
