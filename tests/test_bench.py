"""What `bench.py` writes; its figures are the machine's."""

import re
from types import SimpleNamespace

import pytest
import torch

from model_pytorch import DEFAULT_CONFIG, dotdict
from scripts import bench


def toy(tmp_path, *argv):
    bench.main(bench.parse_args(['--toy', '--rounds', '1', '--device', 'cpu', '--out', str(tmp_path / 'B.md'), *argv]))
    return bench.read_report(tmp_path / 'B.md')


def test_the_report_has_what_was_measured_and_names_what_was_not(tmp_path, capsys):
    toy(tmp_path, '--only', 'train')
    first = toy(tmp_path, '--only', 'evaluate')
    assert len(first) == 2 * len(bench.SECTIONS)                        # a CPU's sections and a GPU's
    figures = {title for title, text in first.items() if text != bench.NOT_MEASURED}
    assert figures == {'Training step at batch 8 (CPU)', 'Evaluation at batch 32 (CPU)'}
    for name in ('plain', 'train.py, float32', 'train.py, bfloat16', 'transformers'):
        assert re.search(rf'^\| {name} \| [\d.]+ \([\d.]+–[\d.]+\) \| [\d.]+ \| ',
                         first['Training step at batch 8 (CPU)'], re.MULTILINE), name
    assert all('`python scripts/bench.py --only' in first[title] for title in figures)
    assert all(torch.__version__ in first[title] for title in figures)

    again = toy(tmp_path, '--only', 'generate')
    assert 'the same tokens' in again['Generation, 100 tokens after 128 (CPU)']
    assert all(again[title] == first[title] for title in figures)       # sections measured before stay
    assert '## Generation' in capsys.readouterr().out


def test_without_stories_sections_say_what_they_need(tmp_path):
    toy(tmp_path, '--only', 'startup')
    report = toy(tmp_path, '--only', 'run')
    assert all('needs the Story Cloze files' in report[f'{title} (CPU)']
               for title in ('From the command to the first update', 'A complete fine-tuning run'))


def test_ratios_are_of_the_same_round():
    rows = bench.ratio_table({'plain': [1., 10., 4.], 'ours': [.5, 2., 4.]}, 8, 'examples', ('plain', 'absent'))
    assert rows[-1] == '| ours | 2.00 (0.50–4.00) | 4.00 | 2.00 (1.00–5.00) |' and 'absent' not in rows[0]


def test_drawn_stories_have_the_layout_of_real_ones():
    X, M, Y = bench.make_batch(50, 77, 1000)
    assert X.shape == (50, 2, 77, 2) and set(Y.tolist()) == {0, 1}
    lengths = M.sum(-1).long()
    assert (X[..., 0].gather(-1, lengths[..., None] - 1) == 1002).all() and (X[:, :, 0, 0] == 1000).all()
    assert 45 < lengths.float().mean() < 60
    assert (bench.make_batch(2, 32, 1000, full=True)[1] == 1).all()


def test_another_checkout_takes_its_turns(tmp_path):
    args = bench.parse_args(['--toy', '--against', str(bench.ROOT)])
    steps = bench.contenders(args, dotdict(DEFAULT_CONFIG, **bench.TOY, n_tokens=20), 12, torch.device('cpu'))
    steps['against']()(*bench.make_batch(2, 12, 20))


@pytest.mark.slow
def test_all_sections_and_the_pictures(tmp_path):
    report = toy(tmp_path)
    assert (tmp_path / 'bench_cpu.png').stat().st_size > 10_000
    assert '![' in report['Costs as the work grows (CPU)']
    assert '| bfloat16 | ' in report['What --dtype does to the numbers (CPU)']


@pytest.mark.slow
def test_the_cache_is_worth_having():
    """At full size, 100 tokens after 128."""
    lines = bench.bench_generate(SimpleNamespace(toy=False, rounds=1), dotdict(DEFAULT_CONFIG, n_tokens=bench.N_TOKENS),
                                 torch.device('cpu'))
    assert 'the same tokens' in lines[0]
    assert float(re.search(r'generate.py .* ([\d.]+) \([^|]*\) \|$', lines[-1])[1]) >= 5
