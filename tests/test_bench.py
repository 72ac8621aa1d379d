"""The report of bench.py. Its figures depend on the machine and are not tested."""

import importlib.metadata
import re

import pytest
import torch

from model_pytorch import dotdict
from scripts import bench, contenders, report

NANOGPT = '''
from dataclasses import dataclass
import torch
import torch.nn as nn
import torch.nn.functional as F

@dataclass
class GPTConfig:
    block_size: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.wte = config, nn.Embedding(config.vocab_size, config.n_embd)
        nn.init.normal_(self.wte.weight, std=0.02)

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay)

    def forward(self, idx, targets=None):
        logits = self.wte(idx) @ self.wte.weight.T
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
'''  # the interface of nanoGPT's model.py, not its network


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch):
    """All machines have the same contenders."""
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: True)


@pytest.fixture
def nanogpt(tmp_path):
    """The path of a stand-in for a checkout of nanoGPT."""
    folder = tmp_path / 'nanoGPT'
    folder.mkdir()
    (folder / 'model.py').write_text(NANOGPT)
    return str(folder)


def toy_args(tmp_path, *argv):
    return bench.parse_args(['--toy', '--rounds', '1', '--device', 'cpu', '--out', str(tmp_path / 'B.md'), *argv])


def without_dropout(args):
    """`contenders.setup`, with rates of 0, so that two computations have the same result."""
    cfg, device = contenders.setup(args)
    return dotdict(cfg, **{name: 0. for name in cfg if name.endswith('pdrop')}), device


def measured(tmp_path, name):
    """The report after one section has been measured in this process."""
    bench.measure(toy_args(tmp_path), name)
    return report.read_report(tmp_path / 'B.md')


def test_the_report_keeps_other_sections(tmp_path, capsys):
    (tmp_path / 'B.md').write_text('# Benchmarks\n\nold words\n\n## A section of before (CPU)\n\nfigures\n\n'
                                   '## Fine-tuning step (GPU)\n\nfigures\n')
    measured(tmp_path, 'train')
    first = measured(tmp_path, 'evaluate')
    assert list(first) == ['A section of before (CPU)', 'Fine-tuning step (GPU)', 'Fine-tuning step (CPU)',
                           'Evaluation at batch 32 (CPU)']
    others = ['transformers'] * contenders.HAS_TRANSFORMERS
    for name in ('plain', 'train.py, float32', 'train.py, bfloat16', *others):
        assert re.search(rf'^\| {name} \|( [\d.]+ \([\d.]+–[\d.]+\) \|){{{2 + len(others)}}} [\d.,]+ \| [\d.]+ \|$',
                         first['Fine-tuning step (CPU)'], re.MULTILINE), name
    assert '`python scripts/bench.py --only train --rounds 1 --device cpu --toy`' in first['Fine-tuning step (CPU)']
    assert f'torch {importlib.metadata.version("torch")}' in first['Evaluation at batch 32 (CPU)']
    assert '## Evaluation' in capsys.readouterr().out

    again = measured(tmp_path, 'generate')
    assert '| generate.py | ' in again.pop('Generation, 100 tokens after 128 (CPU)') and again == first
    assert 'old words' not in (tmp_path / 'B.md').read_text(encoding='utf-8')


def test_what_cannot_be_measured_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    measured = []

    def run_apart(function, args, name):
        measured.append(name)
        if name == 'train':
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(bench, 'run_apart', run_apart)
    bench.main(toy_args(tmp_path, '--only', 'train', 'evaluate'))
    assert measured == ['train', 'evaluate'] and 'train is left out: not enough memory' in capsys.readouterr().out


def test_ratios_are_of_the_same_round():
    seconds = {'plain': [9., 1., 10., 4.], 'ours': [30., .5, 2., 4.]}  # the first round counts for nothing else
    header, _, _, ours = report.ratio_table(seconds, 8, 'examples', ('plain', 'port'))
    assert header == '|  | times as fast as plain | seconds | examples/s | first round |'
    assert ours == '| ours | 2.00 (1.00–5.00) | 2 (0.5–4) | 4.00 | 30 |'


def test_the_picture_has_a_panel_for_each_cost(tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    figures = []
    monkeypatch.setattr(report, 'legend_below', figures.append)
    report.draw([('examples', 'training step (s)', [1, 2, 4], {'plain': [0.5, 1, 2.5]}),
                 ('tokens', 'memory (GiB)', [64, 128], {'train.py': [2.6, 2.7], 'plain': [2.1, 3]})],
                tmp_path / 'bench.png', 'a machine, 2 threads')
    assert (tmp_path / 'bench.png').read_bytes().startswith(b'\x89PNG')
    assert [len(ax.lines) for ax in figures[0].axes] == [1, 2]


def test_contenders_take_turns_after_a_first_round():
    calls = []
    seconds = report.take_turns({name: lambda i, name=name: calls.append((i, name)) for name in 'ab'},
                                lambda i: [i], 2, torch.device('cpu'))
    assert calls == [(i, name) for i in range(3) for name in 'ab'] and [*map(len, seconds.values())] == [3, 3]


def test_drawn_stories_have_the_layout_of_real_ones():
    X, M, Y = contenders.get_batch(contenders.drawn_stories(50, 1000), 50, 0)
    assert X.shape == (50, 2, 77, 2) and set(Y.tolist()) == {0, 1}
    lengths = M.sum(-1).long()
    assert (X[..., 0].gather(-1, lengths[..., None] - 1) == 1002).all() and (X[:, :, 0, 0] == 1000).all()
    assert (X[:, 0, 5, 0] == X[:, 1, 5, 0]).all() and (X[:, 0] != X[:, 1]).any()
    assert (X[..., 1] == torch.arange(1003, 1080)).all()
    assert 45 < lengths.float().mean() < 60
    assert (contenders.get_batch(contenders.drawn_stories(2, 1000, 32, full=True), 2, 3)[1] == 1).all()


def test_contenders_take_the_same_training_step(tmp_path, monkeypatch):
    """Without dropout --plain, fast.py and the loss compute of another checkout lead to the same parameters."""
    args = toy_args(tmp_path, '--port', str(bench.ROOT))
    cfg, device = without_dropout(args)
    models, build = [], contenders.build
    monkeypatch.setattr(contenders, 'build', lambda *a: models.append(build(*a)) or models[-1])
    steps = contenders.training_steps(args, cfg, 12, device)
    assert [name for name in steps if name != 'transformers'] == ['plain', 'train.py, float32', 'train.py, bfloat16',
                                                                  'port']
    stories = contenders.drawn_stories(6, cfg.n_tokens, 12)
    for name in ('plain', 'train.py, float32', 'port'):
        step = steps[name]()
        for i in range(3):  # the first update has rate 0
            step(*contenders.get_batch(stories, 2, i))
    plain, *others = ([p.detach() for p in model.parameters()] for model in models)
    for other in others:
        assert max((a - b).abs().max() for a, b in zip(plain, other, strict=True)) < 1e-6
    assert any((p - q).abs().max() > 1e-5 for p, q in zip(plain, build(cfg, 12, device).parameters(), strict=True))


def test_contenders_take_the_same_step_of_pre_training(tmp_path, nanogpt):
    """Whole logits, chunks of them and towers give the same loss; nanoGPT's interface is called as it should."""
    args = toy_args(tmp_path, '--nanogpt', nanogpt)
    cfg, device = without_dropout(args)
    steps = contenders.lm_steps(args, cfg, 12, device, n_batch=2)
    assert list(steps) == ['plain', 'pretrain.py, float32', 'pretrain.py, bfloat16', 'nanoGPT, float32',
                           'nanoGPT, bfloat16']
    [tokens] = contenders.drawn_tokens(cfg, 4, 12, 0)
    losses = {name: [step(tokens).item() for _ in range(3)] for name, build in steps.items()
              for step in [build()]}
    assert losses['pretrain.py, float32'][0] == pytest.approx(losses['plain'][0], abs=1e-5)
    for values in losses.values():  # near log(200) at first, and all learn the one batch
        assert abs(values[0] - 5.3) < 0.5 and values[2] < values[0]
    assert losses['nanoGPT, float32'] == pytest.approx(losses['nanoGPT, bfloat16'], abs=0.02)


def test_memory_is_that_of_the_default_runs(tmp_path, nanogpt, monkeypatch):
    """With two towers or micro-batches of 8, of which the second finds gradients of the first."""
    calls = []
    monkeypatch.setattr(bench, 'run_apart', lambda function, *args: calls.append(args) or function(*args))
    monkeypatch.setattr(contenders, 'HAS_TRANSFORMERS', False)
    args = toy_args(tmp_path, '--port', str(bench.ROOT), '--nanogpt', nanogpt)
    lines = bench.bench_memory(args, *contenders.setup(args))
    names = ['fine-tuning: plain', 'fine-tuning: train.py, float32', 'fine-tuning: train.py, bfloat16',
             'fine-tuning: port', 'pre-training: plain', 'pre-training: pretrain.py, float32',
             'pre-training: pretrain.py, bfloat16', 'pre-training: nanoGPT, float32', 'pre-training: nanoGPT, bfloat16']
    assert [re.match(r'\| (.+) \| [\d.]+ \| \d+ \|$', line)[1] for line in lines[4:]] == names
    assert [(B, n_parts) for _, _, B, _, _, n_parts, _ in calls] == [(16, 2)] * 3 + [(8, 1)] + [(16, 2)] * 5


def test_toy_figures_do_not_replace_those_of_the_report():
    with pytest.raises(ValueError, match='--toy needs --out'):
        bench.parse_args(['--toy', '--only', 'evaluate'])


def test_a_folder_that_is_no_checkout_is_one_line(tmp_path):
    args = toy_args(tmp_path, '--port', str(tmp_path), '--only', 'train')
    with pytest.raises(FileNotFoundError, match='model_pytorch.py'):
        bench.measure(args, 'train')


def names_of_contenders(args, device):
    cfg, _ = contenders.setup(args)
    return ([name for name in contenders.training_steps(args, cfg, 12, device) if name != 'transformers'],
            list(contenders.lm_steps(args, cfg, 12, device, 2)))


@pytest.mark.parametrize('capability, half', [((9, 0), 'bfloat16'), ((7, 5), 'float16')])
def test_a_gpu_has_more_contenders(tmp_path, nanogpt, monkeypatch, capability, half):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert names_of_contenders(toy_args(tmp_path, '--nanogpt', nanogpt), torch.device('cuda')) == (
        ['plain', 'train.py, float32', f'train.py, {half}'],
        ['plain', 'pretrain.py, float32', f'pretrain.py, {half}', 'nanoGPT, float32', f'nanoGPT, {half}'])


def test_others_are_compiled_where_there_is_a_compiler(tmp_path, nanogpt, monkeypatch):
    args, cpu = bench.parse_args(['--nanogpt', nanogpt]), torch.device('cpu')
    for compiler in '/usr/bin/c++', None:
        monkeypatch.setattr(contenders.shutil, 'which', lambda name, path=compiler: path)
        names = [name for of_kind in names_of_contenders(args, cpu) for name in of_kind]
        dtypes = contenders.dtypes_of(cpu) if compiler else []
        assert [name for name in names if 'compiled' in name] == [
            f'{who}, compiled, {dtype}' for who in ('plain', 'plain', 'nanoGPT') for dtype in dtypes]


@pytest.mark.parametrize('flags, units', [('fpu avx2 avx512f amx_tile', 'AVX2, AVX-512, AMX'), ('fpu avx2', 'AVX2')])
def test_the_processor_and_its_units_are_named(monkeypatch, flags, units):
    fields = {'model name': 'model name : A CPU @ 2 GHz', 'flags': flags, 'cpu family': 'cpu family : 25',
              'model': 'model : 17'}
    monkeypatch.setattr(report, 'cpu_info', lambda field: fields[field].split())
    assert report.machine(torch.device('cpu')).startswith(f'A CPU @ 2 GHz (family 25, model 17, {units}), ')


@pytest.mark.slow
def test_all_sections_and_the_pictures(tmp_path):
    bench.main(toy_args(tmp_path))
    sections = report.read_report(tmp_path / 'B.md')
    assert (tmp_path / 'docs' / 'bench_cpu.png').stat().st_size > 10_000
    assert '![' in sections['Costs as the work grows (CPU)']
    assert sections['A small network, 4 blocks, 256 wide (CPU)'].count('| plain | 1.00') == 3
    assert '| fine-tuning: plain | 1.00 | ' in sections['Peak memory in training (CPU)']


@pytest.mark.slow
def test_the_cache_is_worth_having(tmp_path):
    """At full size, 100 tokens after 128."""
    args = bench.parse_args(['--rounds', '1', '--device', 'cpu'])
    lines = bench.bench_generate(args, *contenders.setup(args))
    assert float(re.search(r'generate.py \| ([\d.]+) \(', lines[-1])[1]) >= 5
