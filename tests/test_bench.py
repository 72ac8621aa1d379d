"""The report of bench.py. Its figures depend on the machine and are not tested."""

import importlib.metadata
import io
import re
from types import SimpleNamespace

import pytest
import torch
from reference import needs_float16
from toy import TOY, toy_argv

import analysis
import fast
import pretrain
import train
from model_pytorch import TransformerModel
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
'''                                                     # the interface of nanoGPT's model.py, not its network


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch):
    """All machines have the same contenders."""
    monkeypatch.setattr(contenders, 'cpu_has_bfloat16', lambda: True)


@pytest.fixture
def nanogpt(tmp_path):
    """The path of a stand-in for a checkout of nanoGPT."""
    folder = tmp_path / 'nanoGPT'
    folder.mkdir()
    (folder / 'model.py').write_text(NANOGPT)
    return str(folder)


def toy_args(tmp_path, *argv):
    return bench.parse_args(['--toy', '--rounds', '1', '--device', 'cpu', '--out', str(tmp_path / 'B.md'), *argv])


def measured(tmp_path, name):
    """The report after one section has been measured in this process."""
    bench.measure(toy_args(tmp_path), name)
    return report.read_report(tmp_path / 'B.md')


def test_the_report_keeps_measured_sections_and_names_missing_ones(tmp_path, capsys):
    (tmp_path / 'B.md').write_text('# Benchmarks\n\nold words\n\n## Generation, 100 tokens after 128 (CPU)\n\n'
                                   'Not measured.\n\n## A section of before (CPU)\n\nfigures\n\n'
                                   '## Fine-tuning step (GPU)\n\nNot measured.\n')
    measured(tmp_path, 'train')
    first = measured(tmp_path, 'evaluate')
    assert list(first) == ['Fine-tuning step (CPU)', 'Evaluation at batch 32 (CPU)', 'A section of before (CPU)']
    others = ['transformers'] * contenders.has_transformers()
    for name in ('plain', 'train.py, float32', 'train.py, bfloat16', *others):
        assert re.search(rf'^\| {name} \|( [\d.]+ \([\d.]+–[\d.]+\) \|){{{2 + len(others)}}} [\d.,]+ \|$',
                         first['Fine-tuning step (CPU)'], re.MULTILINE), name
    assert '`python scripts/bench.py --only train --rounds 1 --device cpu --toy`' in first['Fine-tuning step (CPU)']
    assert f'torch {importlib.metadata.version("torch")}' in first['Evaluation at batch 32 (CPU)']
    assert '## Evaluation' in capsys.readouterr().out

    again = measured(tmp_path, 'generate')
    assert 'the same tokens' in again.pop('Generation, 100 tokens after 128 (CPU)') and again == first
    text = (tmp_path / 'B.md').read_text(encoding='utf-8')
    assert 'Not measured' not in text and 'old words' not in text
    *_, last = text.splitlines()
    assert last == ('Waiting for a GPU: train, memory, pretrain, evaluate, correct, precision, startup, run, generate, '
                    'curves; `python scripts/bench.py --device cuda` measures them.')


def test_sections_measured_on_a_gpu_are_not_named_as_missing(tmp_path):
    path, sections = tmp_path / 'B.md', {'Fine-tuning step (GPU)': 'figures'}
    report.write_report(path, 'Words.', sections, [])
    assert path.read_text() == '# Benchmarks\n\nWords.\n\n## Fine-tuning step (GPU)\n\nfigures\n'
    assert report.read_report(path) == sections
    measured(tmp_path, 'evaluate')
    assert 'Waiting for a GPU: memory, pretrain, evaluate, correct, ' in path.read_text()


def test_without_stories_a_complete_run_is_left_out(tmp_path, capsys):
    bench.main(toy_args(tmp_path, '--only', 'run'))
    assert 'run is left out: it needs the Story Cloze files' in capsys.readouterr().out
    assert not (tmp_path / 'B.md').exists()


def test_what_cannot_be_measured_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    measured = []

    def run_apart(function, args, name=None):
        if function is bench.speed:
            return 'cuda', 1e13
        measured.append(name)
        if name == 'train':
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(bench, 'run_apart', run_apart)
    bench.main(toy_args(tmp_path, '--only', 'train', 'load', 'evaluate'))
    assert measured == ['train', 'evaluate']
    out = capsys.readouterr().out
    assert 'load is left out: it does not use a GPU' in out and 'train is left out: not enough memory' in out


def test_times_of_a_run_come_from_its_log(folder, monkeypatch):
    in_process = SimpleNamespace(run=lambda command, check: train.main(train.parse_args(command[2:])))
    monkeypatch.setattr(bench, 'subprocess', in_process)
    seconds, *parts = bench.seconds_of_run([*toy_argv(folder), '--submit', '--desc', 'timed'],
                                           folder / 'log' / 'timed.jsonl')
    assert len(parts) == 4 and min(parts) > 0           # start, two epochs, predictions
    assert sum(parts) == pytest.approx(seconds)


def test_ratios_are_of_the_same_round():
    seconds = {'plain': [1., 10., 4.], 'ours': [.5, 2., 4.], 'large': []}
    header, _, _, ours, large = report.ratio_table(seconds, 8, 'examples', ('plain', 'large'), ['share'],
                                                   {'plain': ['50 %'], 'ours': ['60 %']})
    assert header == '|  | times as fast as plain | seconds | examples/s | share |'
    assert ours == '| ours | 2.00 (1.00–5.00) | 2 (0.5–4) | 4.00 | 60 % |'
    assert large == '| large | not enough memory beside the others |  |  |  |'


def test_the_picture_has_plain_numbers_at_powers_of_two(tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    figures = []
    monkeypatch.setattr(report, 'legend_below', lambda fig: figures.append(fig) or analysis.legend_below(fig))
    lengths = [64, 128, 256, 512]
    report.draw([('examples', 'training step (s)', [1, 2, 4, 8, 16, 32], {'plain': [0.5, 1, 2.5, 5, 10, 20]}),
                 ('tokens', 'memory (GiB)', lengths, {'train.py': [2.6, 2.7, 2.8, 3.4], 'plain': [2.1, 3, 4.7, 8.9]})],
                tmp_path / 'bench.png', 'a machine, 2 threads')
    assert (tmp_path / 'bench.png').read_bytes().startswith(b'\x89PNG')
    [fig] = figures
    for ax, labels in zip(fig.axes, (['1 2 4 8 16 32', '0.5 1 2 4 8 16 32'], ['64 128 256 512', '2 4 8 16']),
                          strict=True):
        for axis, limits, expected in zip((ax.xaxis, ax.yaxis), (ax.get_xlim(), ax.get_ylim()), labels, strict=True):
            shown = [tick for tick in axis.get_majorticklocs() if limits[0] <= tick <= limits[1]]
            assert ' '.join(map(axis.get_major_formatter(), shown)) == expected
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ['plain', 'train.py']
    colours = {line.get_label(): line.get_color() for line in fig.axes[1].lines}
    assert fig.axes[0].lines[0].get_color() == colours['plain'] != colours['train.py']
    assert fig.get_suptitle() == 'a machine, 2 threads'


def test_contenders_take_turns_and_the_first_round_is_not_counted():
    calls = []
    seconds = report.take_turns({name: lambda i, name=name: calls.append((i, name)) for name in 'ab'},
                                lambda i: [i], 2, torch.device('cpu'), 'test')
    assert calls == [(i, name) for i in range(3) for name in 'ab'] and [*map(len, seconds.values())] == [2, 2]


def test_a_contender_that_needs_too_much_memory_is_left_out():
    def large(i):
        if i == 1:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    def wrong(i):
        raise RuntimeError('another error')

    cpu = torch.device('cpu')
    seconds = report.take_turns({'large': large, 'small': lambda i: None}, lambda i: [i], 2, cpu, 'test')
    assert seconds['large'] == [] and len(seconds['small']) == 2
    with pytest.raises(RuntimeError, match='another error'):
        report.take_turns({'wrong': wrong}, lambda i: [i], 1, cpu, 'test')


def test_drawn_stories_have_the_layout_of_real_ones():
    X, M, Y = bench.get_batch(bench.drawn_stories(50, 77, 1000), 50, 0)
    assert X.shape == (50, 2, 77, 2) and set(Y.tolist()) == {0, 1}
    lengths = M.sum(-1).long()
    assert (X[..., 0].gather(-1, lengths[..., None] - 1) == 1002).all() and (X[:, :, 0, 0] == 1000).all()
    assert (X[:, 0, 5, 0] == X[:, 1, 5, 0]).all() and (X[:, 0] != X[:, 1]).any()
    assert (X[..., 1] == torch.arange(1003, 1080)).all()
    assert 45 < lengths.float().mean() < 60
    assert (bench.get_batch(bench.drawn_stories(2, 32, 1000, full=True), 2, 3)[1] == 1).all()


def test_contenders_take_the_same_training_step(tmp_path, monkeypatch):
    """Without dropout --plain, fast.py and the loss compute of another checkout lead to the same parameters."""
    args = toy_args(tmp_path, '--against', str(bench.ROOT))
    cfg, device = bench.setup(args)
    cfg = contenders.without_dropout(cfg)
    models, build = [], contenders.build
    monkeypatch.setattr(contenders, 'build', lambda *a: models.append(build(*a)) or models[-1])
    steps = bench.training_steps(args, cfg, 12, device)
    assert [name for name in steps if name != 'transformers'] == ['plain', 'train.py, float32', 'train.py, bfloat16',
                                                                  'port']
    stories = bench.drawn_stories(6, 12, cfg.n_tokens)
    for name in ('plain', 'train.py, float32', 'port'):
        step = steps[name]()
        for i in range(3):                              # the first update has rate 0
            step(*bench.get_batch(stories, 2, i))
    plain, *others = ([p.detach() for p in model.parameters()] for model in models)
    for other in others:
        assert max((a - b).abs().max() for a, b in zip(plain, other, strict=True)) < 1e-6
    assert any((p - q).abs().max() > 1e-5 for p, q in zip(plain, build(cfg, 12, device).parameters(), strict=True))


def test_contenders_take_the_same_step_of_pre_training(tmp_path, nanogpt):
    """Whole logits, chunks of them and towers give the same loss; nanoGPT's interface is called as it should."""
    args = toy_args(tmp_path, '--against', nanogpt)
    cfg, device = bench.setup(args)
    steps = contenders.lm_steps(args, contenders.without_dropout(cfg), 12, device, n_batch=2)
    assert {name: step.dtype for name, step in steps.items()} == {
        'plain': 'float32', 'pretrain.py, float32': 'float32', 'pretrain.py, bfloat16': 'bfloat16',
        'nanoGPT, float32': 'float32', 'nanoGPT, bfloat16': 'bfloat16'}
    [tokens] = contenders.drawn_tokens(cfg, 4, 12, 0)
    losses = {name: [step(tokens).item() for _ in range(3)] for name, (_, build) in steps.items()
              for step in [build()]}
    assert losses['pretrain.py, float32'][0] == pytest.approx(losses['plain'][0], abs=1e-5)
    for values in losses.values():                      # near log(200) at first, and all learn the one batch
        assert abs(values[0] - 5.3) < 0.5 and values[2] < values[0]
    assert losses['nanoGPT, float32'] == pytest.approx(losses['nanoGPT, bfloat16'], abs=0.02)


def test_pre_training_is_reported_with_its_share_of_the_arithmetic(tmp_path, nanogpt, monkeypatch):
    args = toy_args(tmp_path, '--against', nanogpt)
    monkeypatch.setattr(bench, 'matmul_flops', lambda device, autocast, product: 1e10)
    bench.measure(args, 'pretrain')
    text = report.read_report(tmp_path / 'B.md')['Pre-training step (CPU)']
    assert '--against nanoGPT --toy`' in text and str(tmp_path) not in text
    assert '|  | times as fast as plain | times as fast as nanoGPT, float32 | seconds | tokens/s | of matrix' in text
    assert re.search(r'^\| pretrain.py, float32 \| .* \| \d+ % \|$', text, re.MULTILINE)


def test_operations_of_a_step_are_those_of_its_matrix_products():
    """6 for each parameter, of which biases, gains and positions are few, and attention's two products."""
    model = TransformerModel(bench.dotdict(bench.DEFAULT_CONFIG, n_layer=1), vocab=1000 + 64, n_ctx=64)
    C, T = 768, 64
    products = 2 * T * C * (12 * C + 1000) + 2 * 2 * T * T * C             # of the forward pass; backward twice as many
    assert T * pretrain.flops_of_token(model) == pytest.approx(3 * products, rel=0.02)


def test_checkouts_are_recognised_by_their_files(tmp_path, nanogpt):
    args = toy_args(tmp_path, '--against', nanogpt, str(bench.ROOT))
    assert contenders.checkouts(args) == {'nanoGPT': nanogpt, 'port': str(bench.ROOT)}
    (tmp_path / 'nanoGPT' / 'model.py').write_text('class Other: pass\n')
    with pytest.raises(ValueError, match='nanoGPT is no checkout of the port .* or of nanoGPT'):
        bench.main(args)


def test_a_gpu_has_more_contenders(tmp_path, nanogpt, monkeypatch):
    args, gpu = toy_args(tmp_path, '--against', nanogpt), torch.device('cuda')
    monkeypatch.setattr(contenders, 'can_compile', lambda device: True)
    for capability, half, dtypes in (((9, 0), 'bfloat16', ['float32', 'tf32', 'bfloat16']),
                                     ((7, 5), 'float16', ['float32', 'float16'])):
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device, c=capability: c)
        cfg = bench.setup(args)[0]
        ours = [f'train.py, {dtype}' for dtype in dtypes]
        assert [name for name in contenders.training_steps(args, cfg, 12, gpu) if name != 'transformers'] == [
            'plain', f'plain, {half}', *ours, f'plain, {half}, compiled']
        assert list(contenders.lm_steps(args, cfg, 12, gpu, 2)) == [
            'plain', f'plain, {half}', *(f'pretrain.py, {dtype}' for dtype in dtypes),
            *(f'nanoGPT, {dtype}' for dtype in dtypes), f'plain, {half}, compiled', f'nanoGPT, {half}, compiled']


@pytest.mark.parametrize('name, peak', [('NVIDIA H100 80GB HBM3', 989e12), ('NVIDIA H100 PCIe', 756e12),
                                        ('NVIDIA A100-SXM4-40GB', 312e12), ('Tesla T4', None)])
def test_the_peak_of_known_gpus(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: name)
    assert report.bf16_peak(torch.device('cuda')) == peak and report.bf16_peak(torch.device('cpu')) is None


@pytest.mark.parametrize('flags, units', [('fpu avx2 avx512f amx_tile', 'AVX2, AVX-512, AMX'), ('fpu avx2', 'AVX2'),
                                          ('fpu', 'without AVX2')])
def test_the_units_of_the_processor_are_named(monkeypatch, flags, units):
    text = f'processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nflags\t\t: {flags}\npower management:\n\n'
    monkeypatch.setattr(report, 'open', lambda *_, **__: io.StringIO(text), raising=False)
    assert report.cpu_name() == f'A CPU @ 2 GHz ({units})'


def test_both_loaders_load_the_same(tmp_path, monkeypatch):
    cfg, _ = bench.setup(toy_args(tmp_path))
    torch.manual_seed(1)
    contenders.save_weights(cfg, tmp_path)
    models = []
    for load in contenders.LOADERS.values():
        models.append(TransformerModel(cfg, vocab=cfg.n_tokens + 512))
        load(models[-1], tmp_path)
    assert all(map(torch.equal, *(model.parameters() for model in models)))
    monkeypatch.setattr(bench, 'run_apart', lambda function, *args: function(*args))
    bench.measure(toy_args(tmp_path), 'load')
    assert re.search(r'^\| load_openai_pretrained_model \|( [\d.e-]+ \([^|]*\) \|){2} [\d.,]+ \| \d+ \|$',
                     (tmp_path / 'B.md').read_text(), re.MULTILINE)


def test_books_are_encoded_by_both_libraries(tmp_path, monkeypatch, capsys):
    """With the vocabulary of the sample, where there is no other."""
    pytest.importorskip('tokenizers', reason='needs pip install transformers')
    args = toy_args(tmp_path, '--model_path', str(tmp_path))
    bench.measure(args, 'encode')
    text = (tmp_path / 'B.md').read_text()
    speeds = dict(re.findall(r'^\| ([\w.]+) \| [\d.]+ \([^|]*\) \| [^|]* \| ([\d,.]+) \|$', text, re.MULTILINE))
    assert [*speeds] == ['tokenizers', 'text_utils.TextEncoder']
    assert all(float(speed.replace(',', '')) > 5000 for speed in speeds.values())
    assert float(re.search(r'the ids of 2018 for ([\d.]+) % of these lines', text)[1]) > 95
    lines = contenders.books(3, 5000)
    assert len({len(part) for part in lines}) == 1 and 12_000 < sum(map(len, sum(lines, []))) < 18_000
    assert len({*sum(lines, [])}) > 50

    monkeypatch.setattr(bench.importlib.util, 'find_spec', {}.get)
    bench.main(toy_args(tmp_path, '--only', 'encode'))
    assert 'encode is left out: it compares with the library tokenizers' in capsys.readouterr().out


def test_peaks_of_the_default_updates(tmp_path):
    args = toy_args(tmp_path)
    assert 100 < bench.default_peak(args, 'train.py') <= bench.default_peak(args, 'pretrain.py')       # of one process


def test_the_estimate_grows_with_rounds_and_falls_with_speed(tmp_path):
    args = toy_args(tmp_path, '--rounds', '5')
    whole = bench.minutes_for(args, bench.SECTIONS, bench.REFERENCE_FLOPS)
    assert 60 < whole < 180
    assert 10 < bench.minutes_for(args, bench.SECTIONS, 5e13) < 30
    train, run = ([bench.minutes_for(toy_args(tmp_path, '--rounds', str(n)), [name], bench.REFERENCE_FLOPS)
                   for n in (5, 11)] for name in ('train', 'run'))
    assert train[1] > 1.5 * train[0] and run[1] == run[0]


def test_errors_are_small_in_float32_and_seen(tmp_path, monkeypatch):
    args = toy_args(tmp_path)
    errors, same = bench.errors_in(args, 'float32', False, False)
    assert len(errors) == 6 and max(errors) < 1e-5 and same
    errors, _ = bench.errors_in(args, 'bfloat16', False, False)
    assert 1e-5 < min(errors) and max(errors) < 0.1
    right = fast.double_head_losses
    monkeypatch.setattr(fast, 'double_head_losses', lambda *a: (1.01 * right(*a)[0], *right(*a)[1:]))
    errors, _ = bench.errors_in(args, 'float32', False, False)
    assert [error > 1e-3 for error in errors] == [False, True, False, False, False, True]          # gradients


@needs_float16
def test_errors_in_float16_are_those_of_a_loss_that_is_scaled(tmp_path):
    errors, _ = bench.errors_in(toy_args(tmp_path), 'float16', True, False)
    assert 1e-7 < min(errors) and max(errors) < 0.01


def test_real_stories_need_the_released_vocabulary(folder):
    args = bench.parse_args(['--data_dir', str(folder), '--model_path', str(TOY)])
    assert not bench.has_stories(args)                  # 124 tokens


@pytest.mark.slow
def test_all_sections_and_the_pictures(tmp_path):
    bench.main(toy_args(tmp_path))
    sections = report.read_report(tmp_path / 'B.md')
    assert (tmp_path / 'bench_cpu.png').stat().st_size > 10_000
    assert '![' in sections['Costs as the work grows (CPU)']
    assert '| train.py, bfloat16 | ' in sections['Numbers in each --dtype (CPU)']
    assert '| plain | ' in sections['Peak memory in training (CPU)']


@pytest.mark.slow
def test_the_cache_is_worth_having(tmp_path):
    """At full size, 100 tokens after 128."""
    args = bench.parse_args(['--rounds', '1', '--device', 'cpu'])
    lines = bench.bench_generate(args, *bench.setup(args))
    assert 'the same tokens' in lines[0]
    assert float(re.search(r'generate.py \| ([\d.]+) \(', lines[-1])[1]) >= 5
