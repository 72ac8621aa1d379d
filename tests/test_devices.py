"""Training, evaluation, generation and scoring on `cuda`, without a GPU: see fake_cuda.py for what this can find.

`waits` has the places at which the CPU waits for the GPU, which may then have nothing to do. They are counted exactly,
so that a new one needs a reason here.
"""

import inspect
import textwrap
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fake_cuda import FakeCuda, on_device
from test_fast import HEADS, build, of_head
from test_pretrain import VOCABULARY, argv_for, put, random_text
from toy import TOY, toy_run

import fast
import generate
import model_pytorch
import pretrain
import train
import zero_shot
from common import cpu
from common.device import choose_device, grad_scaler
from opt import OpenAIAdam

SIZE = ['--model_path', str(TOY), '--n_embd', '16', '--n_head', '4', '--n_layer', '3', '--device', 'cuda']
N_PARAMETERS = 37  # of the toy network without a head

# What waits in train.py and pretrain.py, and why. Once a run, each parameter:
BUILD, BUILD_LM = (f'{name}.py build: copy to the device' for name in ('train', 'pretrain'))
# train.py, after FETCH_EVERY updates and at the end of an epoch: losses, so that a run that diverges ends soon
FETCH = 'train.py fetch_losses: numbers'
# float16, each update: torch's GradScaler asks whether the gradients are finite, and may skip the update
SCALER = 'common/device.py update_by_parts: number'
# each evaluation: the logits of all examples
LOGITS = 'common/predict.py evaluate: copy to the host'
# each file of parameters: each of them must be finite; in float16 a checkpoint has the scale of the loss and its age
FINITE, SCALE = 'common/checkpoint.py all_finite: number', 'common/checkpoint.py save: number'
# the table of the best parameters, to which later positions are added
KEPT = 'train.py evaluate_and_log: copy to the host'
# --submit: the best parameters; --resume: the parameters, and the state of the optimizer
BEST, RESTORE, MOMENTS = (f'{place}: copy to the device' for place in (
    'train.py finish', 'common/checkpoint.py restore', 'opt.py load_state_dict'))
# pretrain.py, each line of the log, or about the time that is left: mean losses
LOG_LM, VALID_LM = 'pretrain.py validate_and_log: number', 'pretrain.py validate: number'
# pretrain.py, the result, each parameter: it must be finite; the pieces of the shards
SAVE_LM = [f'model_pytorch.py save_openai_pretrained_model: {what}' for what in ('number', 'copy to the host')]
# --plain, each tower: X, M and Y are moved, and model_pytorch.py refuses sequences without a classify token
PLAIN = {'train.py forward: copy to the device': 3, 'model_pytorch.py states_at: number': 1}


@pytest.mark.parametrize('plain', [False, True], ids=['fast', 'plain'])
@pytest.mark.parametrize('head', [*HEADS, 'inference'], ids=str)
def test_an_evaluation_and_an_update_of_each_head(head, plain):
    """Logits and losses are those of the CPU, up to rounding."""
    X, M, Y = of_head(('classification', 3) if head == 'inference' else head, 4)

    def results(name, dtype, gpu):
        torch.manual_seed(0)
        model, (device, autocast) = build(head), choose_device(name, dtype)
        runner = train.Losses(model.to(device), 0.5, plain)
        opt = OpenAIAdam(model.parameters(), 1e-3, 'warmup_constant', 0, 10, l2=0.01, max_grad_norm=1)
        with torch.no_grad(), autocast:
            model.eval()
            logits = model(X.to(device))[1] if plain else fast.task_logits(model, X, M)
        gpu.waits.clear()
        losses = train.update(runner, opt, [X, M, Y], 2, autocast, grad_scaler(device, dtype))
        waits = dict(gpu.waits)
        assert {on_device(t) for t in (losses, logits, *model.parameters())} == {name == 'cuda'}
        return waits, [*losses.tolist(), *logits.flatten().tolist()]

    _, expected = results('cpu', 'float32', SimpleNamespace(waits={}))
    for dtype, error in ('float32', 1e-5), ('bfloat16', 0.1), ('float16', 0.01):
        with FakeCuda() as gpu:
            waits, found = results('cuda', dtype, gpu)
        expected_waits = {place: 2 * n for place, n in PLAIN.items()} if plain else {}
        assert waits == expected_waits | ({SCALER: 1} if dtype == 'float16' else {})
        assert found == pytest.approx(expected, rel=error, abs=error)


SMALL = ['--n_layer', '1', '--n_valid', '26', '--n_batch', '4']  # three updates in an epoch
N_SMALL, N_STATE = 13 + 2, 13 + 3  # parameters, and names of them: the decoder is the table


@pytest.mark.parametrize('argv, more', [
    ([], {}), (['--dtype', 'bfloat16', '--lm_coef', '0'], {}), (['--dtype', 'float16'], {SCALER: 6, SCALE: 2})],
    ids=['float32', 'bfloat16', 'float16'])
def test_fine_tuning(folder, monkeypatch, argv, more):
    """Six updates in two epochs, two evaluations of two splits and one of the test file, a checkpoint at the end."""
    monkeypatch.setattr(train, 'FETCH_EVERY', 2)
    with FakeCuda() as gpu:
        results = toy_run(folder, *SMALL, *argv, '--device', 'cuda', '--submit')
    assert len(results.losses) == 6 and results.test_score is not None
    n_files = 2  # of parameters: the best ones, of the first epoch, and the checkpoint
    assert results.best_epoch == 1 and gpu.waits == {
        BUILD: N_SMALL, FETCH: 4, LOGITS: 5, FINITE: n_files * N_STATE, KEPT: 1,
        BEST: N_STATE, **more}


def test_a_run_is_continued(folder, monkeypatch):
    """With the losses of a run that was not interrupted."""
    argv = [*SMALL, '--device', 'cuda', '--n_iter', '1', '--dtype', 'float16', '--checkpoint_minutes', '0']
    with FakeCuda():
        expected = toy_run(folder, *argv).losses

    class Killed(Exception):
        pass

    def killed(*args):
        if len(calls) == 2:
            raise Killed
        calls.append(1)
        return update(*args)
    calls, update = [], train.update
    monkeypatch.setattr(train, 'update', killed)
    with FakeCuda(), pytest.raises(Killed):
        toy_run(folder, *argv, '--desc', 'again')
    monkeypatch.undo()
    with FakeCuda() as gpu:
        assert toy_run(folder, *argv, '--desc', 'again', '--resume').losses == expected
    assert [gpu.waits[place] for place in (RESTORE, MOMENTS, FETCH, SCALER)] == [N_STATE, 3 * N_SMALL, 1, 1]


@pytest.mark.parametrize('dtype, more', [('bfloat16', {}), ('float16', {SCALER: 12, SCALE: 2})])
def test_pre_training(tmp_path, dtype, more):
    """Twelve updates, three lines in the log."""
    put(tmp_path, a=random_text(40))
    with FakeCuda() as gpu:
        log = pretrain.main(pretrain.parse_args(argv_for(tmp_path, *VOCABULARY, '--n_iter', '1', '--device', 'cuda',
                                                         '--dtype', dtype))).log
    assert [line['n_updates'] for line in log] == [5, 10, 12]
    assert gpu.waits == {BUILD_LM: 13, LOG_LM: 3, VALID_LM: 3, FINITE: 13, SAVE_LM[0]: 14, SAVE_LM[1]: 23, **more}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_generation(dtype):
    """Each token asks whether the logits are finite, and torch.multinomial waits too; top-k and top-p add up on the
    CPU, because a sum on a GPU may be another one each time."""
    with FakeCuda() as gpu:
        texts = generate.main(generate.parse_args([*SIZE, '--dtype', dtype, '--prompt', 'the cat', '--gen_len', '4',
                                                   '--topk', '5', '--topp', '0.9', '--n_samples', '2']))
    assert len(texts) == 2
    assert gpu.waits == {
        'generate.py main: copy to the device': N_PARAMETERS, 'generate.py sample: copy to the device': 1,
        'generate.py sample: number': 4, 'generate.py sample: multinomial': 4,
        'generate.py logits_to_probs: copy to the host': 4, 'generate.py logits_to_probs: copy to the device': 4,
        'generate.py continue_prompt: numbers': 1}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_scoring(folder, dtype):
    """A wait for each batch: for the scores."""
    (folder / 'lines').write_text('the cat sat\n' * 3 + 'and dad found new red ball in the park ' * 3)
    with FakeCuda() as gpu:
        generate.main(generate.parse_args([*SIZE, '--dtype', dtype, '--score', str(folder / 'lines')]))
        assert gpu.waits == {'generate.py main: copy to the device': N_PARAMETERS,
                             'zero_shot.py log_probs: copy to the host': 1}
        gpu.waits.clear()
        zero_shot.main(zero_shot.parse_args(['--dataset', 'rocstories', '--data_dir', str(folder), *SIZE, '--dtype',
                                             dtype]))
        assert gpu.waits == {'zero_shot.py main: copy to the device': N_PARAMETERS,
                             'zero_shot.py log_probs: copy to the host': 5}


class MaskInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.ones(4)


@pytest.mark.parametrize('fault', [
    lambda x: x.masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), 0),
    lambda x: x.add_(torch.ones(4)),
    lambda x: torch.cat([x, torch.ones(4, 4)]),
    lambda x: F.embedding(torch.tensor([1, 2]), x),
    lambda x: F.embedding(x.long(), torch.ones(4, 4)),
    lambda x: x.gather(0, torch.tensor([[1]])),
    lambda x: torch.ones(4) @ x,
    lambda x: x.index_put_((x[0].long(),), torch.ones(4)),
    lambda x: MaskInBackward.apply(x.requires_grad_()).sum().backward(),
    lambda x: torch.rand(4, device='cuda', generator=torch.Generator()),
    lambda x: torch.multinomial(x, 1, generator=torch.Generator()),
    lambda x: x.numpy(),
    lambda x: x.pin_memory(),
    lambda x: cpu.onednn(x, x),
    lambda x: torch.histogram(x, 3)])
def test_what_a_gpu_would_refuse_is_refused(fault):
    with FakeCuda(), pytest.raises((RuntimeError, TypeError, NotImplementedError)):
        fault(torch.ones(4, 4, device='cuda'))


@pytest.mark.parametrize('compute, waits', [
    (lambda x: x + torch.tensor(1.) + 1, []),
    (lambda x: x.masked_fill(torch.ones(4, device=x.device) > 0, 0), []),
    (lambda x: torch.ones(4).pin_memory().to(x.device, non_blocking=True) + x, []),
    (lambda x: torch.ones(4).to(x.device, non_blocking=True) + x, ['copy to the device']),
    (lambda x: torch.tensor([1.], device='cuda') + x, ['copy to the device']),
    (lambda x: torch.zeros(4, 4).copy_(x), ['copy to the host']),
    (lambda x: x.cpu() + torch.ones(4), ['copy to the host']),
    (lambda x: float(x.sum()), ['number']),
    (lambda x: x.any() and 1, ['number']),
    (lambda x: x.tolist(), ['numbers']),
    (lambda x: x.nonzero(), ['nonzero']),
    (lambda x: x[x > 0], ['boolean index']),
    (lambda x: x[torch.tensor([1, 2])], ['index from the host']),
    (lambda x: x.unique(), ['_unique2']),
    (lambda x: torch.equal(x, x), ['equal'])])
def test_what_waits_is_counted(compute, waits):
    with FakeCuda() as gpu:
        compute(torch.ones(4, 4, device='cuda'))
    assert gpu.waits == {f'elsewhere: {what}': 1 for what in waits}


def attend():
    model = model_pytorch.Attention(16, 4, model_pytorch.dotdict(n_head=2, attn_pdrop=0.1, resid_pdrop=0.1)).to('cuda')
    model(torch.ones(1, 4, 16, device='cuda'))


def lm_loss():
    cfg = model_pytorch.dotdict(model_pytorch.DEFAULT_CONFIG, n_embd=16, n_head=2, n_layer=1)
    network = model_pytorch.TransformerModel(cfg, 20, 4)
    pretrain.LMLoss(network.to('cuda'))(torch.zeros(1, 5, dtype=torch.long, device='cuda'), 4)


@pytest.mark.parametrize('owner, name, text, call', [
    (model_pytorch.Attention, 'attend', ', device=w.device', attend),
    (pretrain.LMLoss, 'forward', ', device=ids.device', lm_loss)])
def test_a_line_without_its_device_is_found(monkeypatch, owner, name, text, call):
    """A mask, and positions, that are made on the CPU."""
    with FakeCuda():
        call()
        function = getattr(owner, name)
        source, names = textwrap.dedent(inspect.getsource(function)), {}
        assert source.count(text) == 1
        exec(source.replace(text, ''), function.__globals__, names)
        monkeypatch.setattr(owner, name, names[name])
        with pytest.raises(RuntimeError, match='mixes devices'):
            call()
