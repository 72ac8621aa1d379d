"""The report of bench.py. Its figures depend on the machine and are not tested."""

import importlib.metadata
import re
from types import SimpleNamespace

import pytest
import torch
from toy import TOY, toy_argv

import train
from scripts import bench, report


def toy_args(tmp_path, *argv):
    return bench.parse_args(['--toy', '--rounds', '1', '--device', 'cpu', '--out', str(tmp_path / 'B.md'), *argv])


def measured(tmp_path, name):
    """The report after one section has been measured in this process."""
    bench.measure(toy_args(tmp_path), name)
    return report.read_report(tmp_path / 'B.md')


def test_the_report_keeps_measured_sections_and_names_missing_ones(tmp_path, capsys):
    (tmp_path / 'B.md').write_text('# Benchmarks\n\nold words\n\n## Generation, 100 tokens after 128 (CPU)\n\n'
                                   'Not measured.\n\n## A section of before (CPU)\n\nfigures\n\n'
                                   '## Training step at batch 8 (GPU)\n\nNot measured.\n')
    measured(tmp_path, 'train')
    first = measured(tmp_path, 'evaluate')
    assert list(first) == ['Training step at batch 8 (CPU)', 'Evaluation at batch 32 (CPU)',
                           'A section of before (CPU)']
    for name in ('plain', 'train.py, float32', 'train.py, bfloat16', *['transformers'] * bench.has_transformers()):
        assert re.search(rf'^\| {name} \| [\d.]+ \([\d.]+–[\d.]+\) \| [\d.]+ \| ',
                         first['Training step at batch 8 (CPU)'], re.MULTILINE), name
    assert '`python scripts/bench.py --only train --rounds 1 --toy`' in first['Training step at batch 8 (CPU)']
    assert f'torch {importlib.metadata.version("torch")}' in first['Evaluation at batch 32 (CPU)']
    assert '## Evaluation' in capsys.readouterr().out

    again = measured(tmp_path, 'generate')
    assert 'the same tokens' in again.pop('Generation, 100 tokens after 128 (CPU)') and again == first
    text = (tmp_path / 'B.md').read_text(encoding='utf-8')
    assert 'Not measured' not in text and 'old words' not in text
    *_, last = text.splitlines()
    assert last == ('Waiting for a GPU: train, memory, evaluate, precision, startup, run, generate, curves; `python '
                    'scripts/bench.py --device cuda` measures them.')


def test_sections_measured_on_a_gpu_are_not_named_as_missing(tmp_path):
    path, sections = tmp_path / 'B.md', {'Training step at batch 8 (GPU)': 'figures'}
    report.write_report(path, 'Words.', sections, [])
    assert path.read_text() == '# Benchmarks\n\nWords.\n\n## Training step at batch 8 (GPU)\n\nfigures\n'
    assert report.read_report(path) == sections
    measured(tmp_path, 'train')
    assert 'Waiting for a GPU: memory, evaluate, precision, startup, run, generate, curves;' in path.read_text()


def test_without_stories_a_complete_run_is_left_out(tmp_path, capsys):
    bench.main(toy_args(tmp_path, '--only', 'run'))
    assert 'run is left out: it needs the Story Cloze files' in capsys.readouterr().out
    assert not (tmp_path / 'B.md').exists()


def test_times_of_a_run_come_from_its_log(folder, monkeypatch):
    in_process = SimpleNamespace(run=lambda command, check: train.main(train.parse_args(command[2:])))
    monkeypatch.setattr(bench, 'subprocess', in_process)
    seconds, *parts = bench.seconds_of_run([*toy_argv(folder), '--submit', '--desc', 'timed'],
                                           folder / 'log' / 'timed.jsonl')
    assert len(parts) == 4 and min(parts) > 0           # start, two epochs, predictions
    assert sum(parts) == pytest.approx(seconds)


def test_ratios_are_of_the_same_round():
    rows = report.ratio_table({'plain': [1., 10., 4.], 'ours': [.5, 2., 4.]}, 8, 'examples', ('plain', 'absent'))
    assert rows[-1] == '| ours | 2.00 (0.50–4.00) | 4.00 | 2.00 (1.00–5.00) |' and 'absent' not in rows[0]


def test_contenders_take_turns_and_the_first_round_is_not_counted():
    calls = []
    seconds = report.take_turns({name: lambda i, name=name: calls.append((i, name)) for name in 'ab'},
                                lambda i: [i], 2, torch.device('cpu'), 'test')
    assert calls == [(i, name) for i in range(3) for name in 'ab'] and [*map(len, seconds.values())] == [2, 2]


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
    cfg.update({name: 0. for name in cfg if name.endswith('pdrop')})
    models, build = [], bench.build
    monkeypatch.setattr(bench, 'build', lambda *a: models.append(build(*a)) or models[-1])
    steps = bench.training_steps(args, cfg, 12, device)
    assert [name for name in steps if name != 'transformers'] == ['plain', 'train.py, float32', 'train.py, bfloat16',
                                                                  'against']
    stories = bench.drawn_stories(6, 12, cfg.n_tokens)
    for name in ('plain', 'train.py, float32', 'against'):
        step = steps[name]()
        for i in range(3):                              # the first update has rate 0
            step(*bench.get_batch(stories, 2, i))
    plain, *others = ([p.detach() for p in model.parameters()] for model in models)
    for other in others:
        assert max((a - b).abs().max() for a, b in zip(plain, other, strict=True)) < 1e-6
    assert any((p - q).abs().max() > 1e-5 for p, q in zip(plain, build(cfg, 12, device).parameters(), strict=True))


def test_real_stories_need_the_released_vocabulary(folder):
    args = bench.parse_args(['--data_dir', str(folder), '--model_path', str(TOY)])
    assert not bench.has_stories(args)                  # 124 tokens


@pytest.mark.slow
def test_all_sections_and_the_pictures(tmp_path):
    bench.main(toy_args(tmp_path))
    sections = report.read_report(tmp_path / 'B.md')
    assert (tmp_path / 'bench_cpu.png').stat().st_size > 10_000
    assert '![' in sections['Costs as the work grows (CPU)']
    assert '| train.py, bfloat16 | ' in sections['What --dtype does to the numbers (CPU)']
    assert '| plain | ' in sections['Peak memory, training at batch 20 (CPU)']


@pytest.mark.slow
def test_the_cache_is_worth_having(tmp_path):
    """At full size, 100 tokens after 128."""
    args = bench.parse_args(['--rounds', '1', '--device', 'cpu'])
    lines = bench.bench_generate(args, *bench.setup(args))
    assert 'the same tokens' in lines[0]
    assert float(re.search(r'generate.py .* ([\d.]+) \([^|]*\) \|$', lines[-1])[1]) >= 5
