"""Measure contenders in turn, make tables of their times, and write a report that keeps earlier measurements."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import time

import numpy as np
import torch
from tqdm import tqdm

from shell import is_out_of_memory
from utils import read_text, write_whole

CPU_UNITS = {'avx2': 'AVX2', 'avx512f': 'AVX-512', 'amx_tile': 'AMX'}    # as Linux and as people call them
# TFLOP/s in bfloat16 without sparsity, from the data sheets; the first name that fits counts
BF16_PEAKS = {'H100 PCIe': 756, 'H100 NVL': 835, 'H100': 989, 'H200': 989, 'A100': 312, 'L40S': 362, 'RTX 4090': 165,
              'RTX 3090': 71}
WAITING = 'Waiting for a GPU:'                          # beginning of the last line of a report


def take_turns(contenders, inputs, rounds, device, what):
    """Seconds of each contender in each round: name -> list. One more round at the beginning is not counted.

    contenders: name -> function. inputs: number of the round -> arguments of the functions; not measured. The list of a
    contender that needs more memory than there is stays empty.
    """
    seconds, running = {name: [] for name in contenders}, dict(contenders)
    for i in tqdm(range(rounds + 1), desc=what, ncols=80, leave=False, disable=None):
        for name, run in list(running.items()):
            arguments = inputs(i)
            start = time.perf_counter()
            try:
                run(*arguments)
                if device.type == 'cuda':
                    torch.cuda.synchronize(device)
                elif device.type == 'mps':
                    torch.mps.synchronize()
            except Exception as e:
                if not is_out_of_memory(e):
                    raise
                del running[name]
                continue
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] if name in running else [] for name, values in seconds.items()}


def spread(values, form='.2f'):
    """The median, and the smallest and the largest value in brackets."""
    return f'{np.median(values):{form}} ({min(values):{form}}–{max(values):{form}})'


def table(header, rows):
    """Lines of a Markdown table."""
    return ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header),
            *('| ' + ' | '.join(row) + ' |' for row in rows)]


def ratio_table(seconds, n, unit, bases=('plain',), more=(), cells=None):
    """A table of the speed relative to each of `bases`, of the seconds for `n` units, and of the units per second.

    seconds: name -> list with a time for each round, see `take_turns`. A ratio is that of two times of the same round.
    more: headers of further columns, whose text is in cells: name -> list.
    """
    bases, rows = [base for base in bases if seconds.get(base)], []
    for name, values in seconds.items():
        if values:
            rate = n / np.median(values)
            rows.append([name, *(spread(np.divide(seconds[base], values)) for base in bases), spread(values, '.3g'),
                         f'{rate:.2f}' if rate < 100 else f'{rate:,.0f}', *(cells[name] if more else ())])
        else:
            rows.append([name, 'not enough memory beside the others', *[''] * (len(bases) + 1 + len(more))])
    return table(['', *(f'times as fast as {base}' for base in bases), 'seconds', f'{unit}/s', *more], rows)


def provenance(command, device):
    """A line about when, where and with which command and code a section was measured."""
    machine = f'{torch.cuda.get_device_name(device)}, {cpu_name()}' if device.type == 'cuda' else cpu_name()
    packages = [f'{package} {importlib.metadata.version(package)}' for package in ('torch', 'transformers')
                if importlib.util.find_spec(package)]
    return (f'*`{command}`, {time.strftime("%Y-%m-%d")}, {commit()}: {machine}, {torch.get_num_threads()} threads, '
            f'Python {platform.python_version()}, {", ".join(packages)}*')


def cpu_name():
    """The name of the processor and its units for vectors and matrices, from Linux; elsewhere what Python knows."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as f:
            values = dict(re.split(r'\s*:\s*', line.strip(), maxsplit=1) for line in f if ':' in line)
        units = [unit for flag, unit in CPU_UNITS.items() if flag in values['flags'].split()]
        return f'{values["model name"]} ({", ".join(units) or "without AVX2"})'
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def commit():
    """The commit that the code is of, and whether Python files were changed since."""
    git = ['git', '-C', os.path.dirname(os.path.abspath(__file__))]
    try:
        name = subprocess.run([*git, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, 'diff', '--quiet', 'HEAD', '--', ':/*.py']).returncode
        return f'commit {name.strip()}' + (' with changes' if changed else '')
    except (OSError, subprocess.SubprocessError):
        return 'no commit'


def bf16_peak(device):
    """Operations a second that the maker of a GPU states for dense products in bfloat16; None where it is not known."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else ''
    return next((1e12 * peak for part, peak in BF16_PEAKS.items() if part in name), None)


def read_report(path):
    """Heading -> text of the sections of a report, without the "Not measured." of older versions."""
    if not os.path.exists(path):
        return {}
    text = re.sub(f'^{WAITING}.*', '', read_text(path), flags=re.MULTILINE)
    parts = (part.partition('\n') for part in re.split(r'^## ', text, flags=re.MULTILINE)[1:])
    return {title: body.strip() for title, _, body in parts if not body.strip().startswith('Not measured.')}


def write_report(path, introduction, sections, waiting):
    """Write sections (heading -> text), and a last line with the names in `waiting` if it is not empty."""
    parts = ['# Benchmarks', introduction, *(f'## {title}\n\n{text}' for title, text in sections.items())]
    if waiting:
        parts.append(f'{WAITING} {", ".join(waiting)}; `python scripts/bench.py --device cuda` measures them.')
    with write_whole(path) as f:
        f.write('\n\n'.join(parts) + '\n')


def draw(panels, path):
    """Write a picture of panels (x label, y label, x, {name: y}), three in a row."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(13, 7.5), layout='constrained')
    for axis, (x_label, y_label, x, lines) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        for name, y in lines.items():
            axis.plot(x, y, 'o-', label=name)
        axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    with write_whole(path, 'wb') as f:
        figure.savefig(f, dpi=100, format='png')
