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

from analysis import figure, legend_below, line_style
from common.shell import is_out_of_memory
from utils import read_text, write_whole

CPU_UNITS = {'avx2': 'AVX2', 'avx512f': 'AVX-512', 'amx_tile': 'AMX'}  # the name in Linux: the usual one
WAITING = 'Waiting for a GPU:'  # beginning of the last line of a report


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
                wait_for(device)
            except Exception as e:
                if not is_out_of_memory(e):
                    raise
                del running[name]
                continue
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] if name in running else [] for name, values in seconds.items()}


def wait_for(device):
    """Return when the device has computed what it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    elif device.type == 'mps':
        torch.mps.synchronize()


def spread(values, form='.2f'):
    """The median, and the smallest and the largest value in brackets."""
    return f'{np.median(values):{form}} ({min(values):{form}}–{max(values):{form}})'


def table(header, rows):
    """Lines of a Markdown table."""
    return ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header),
            *('| ' + ' | '.join(row) + ' |' for row in rows)]


def ratio_table(seconds, n, unit, bases=('plain',), more=(), cells=None):
    """A table of the speed relative to each of `bases`, of the seconds for `n` units, and of the units per second.

    seconds: name -> list with a time for each round, see `take_turns`. A ratio compares two times of the same round.
    more: headers of further columns, whose text is in cells: name -> list.
    """
    bases, rows = [base for base in bases if seconds.get(base)], []
    for name, values in seconds.items():
        if not values:
            rows.append([name, 'not enough memory beside the others', *[''] * (len(bases) + 1 + len(more))])
            continue
        ratios = [spread(np.divide(seconds[base], values)) for base in bases]
        rate = n / np.median(values)
        rows.append([name, *ratios, spread(values, '.3g'), f'{rate:.2f}' if rate < 100 else f'{rate:,.0f}',
                     *(cells[name] if more else ())])
    return table(['', *(f'times as fast as {base}' for base in bases), 'seconds', f'{unit}/s', *more], rows)


def provenance(command, device):
    """One line: the command that measured a section, the day, the commit, the machine and the versions."""
    packages = [f'{package} {importlib.metadata.version(package)}' for package in ('torch', 'transformers')
                if importlib.util.find_spec(package)]
    return (f'*`{command}`, {time.strftime("%Y-%m-%d")}, {commit()}: {machine(device)}, Python '
            f'{platform.python_version()}, {", ".join(packages)}*')


def machine(device):
    """The names of the GPU, if it is used, and of the processor, and the number of threads."""
    names = [torch.cuda.get_device_name(device)] if device.type == 'cuda' else []
    return ', '.join([*names, cpu_name(), f'{torch.get_num_threads()} threads'])


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
    """The commit of the code; says if Python files were changed since."""
    git = ['git', '-C', os.path.dirname(os.path.abspath(__file__))]
    try:
        name = subprocess.run([*git, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, 'diff', '--quiet', 'HEAD', '--', ':/*.py']).returncode
        return f'commit {name.strip()}' + (' with changes' if changed else '')
    except (OSError, subprocess.SubprocessError):
        return 'no commit'


def read_report(path):
    """Heading -> text of the sections of a report."""
    if not os.path.exists(path):
        return {}
    text = re.sub(f'^{WAITING}.*', '', read_text(path), flags=re.MULTILINE)
    parts = (part.partition('\n') for part in re.split(r'^## ', text, flags=re.MULTILINE)[1:])
    return {title: body.strip() for title, _, body in parts}


def write_report(path, introduction, sections, waiting):
    """Write sections (heading -> text), and a last line with the names in `waiting` if it is not empty."""
    parts = ['# Benchmarks', introduction, *(f'## {title}\n\n{text}' for title, text in sections.items())]
    if waiting:
        parts.append(f'{WAITING} {", ".join(waiting)}; `python scripts/bench.py --device cuda` measures them.')
    with write_whole(path) as f:
        f.write('\n\n'.join(parts) + '\n')


def draw(panels, path, heading):
    """Write a picture of panels (x label, title with unit, x, {name: y}), two in a row, under a heading.

    All axes are logarithmic with ticks at powers of two: a cost that doubles with the work is a straight line.
    """
    names = list(dict.fromkeys(name for *_, lines in panels for name in lines))
    with figure(path, (9, 3 * len(panels) / 2)) as fig:  # its error says what to do without matplotlib
        from matplotlib.ticker import LogLocator
        for ax, (x_label, title, x, lines) in zip(fig.subplots(len(panels) // 2, 2).flat, panels, strict=True):
            for name, y in lines.items():
                ax.plot(x, y, **line_style(names.index(name)), clip_on=False, label=name)
            ax.set_xscale('log', base=2)
            ax.set_yscale('log', base=2)
            values = np.log2([y for line in lines.values() for y in line])
            low, high = np.floor(values.min()), np.ceil(values.max())
            ax.set(title=title, xlabel=x_label, xlim=(x[0] / 1.2, x[-1] * 1.2),
                   ylim=(2 ** low, 2 ** max(high, low + 1)))
            for axis in ax.xaxis, ax.yaxis:
                axis.set(major_locator=LogLocator(2, numticks=9), major_formatter='{x:,g}')
        fig.suptitle(heading, fontsize='medium')
        legend_below(fig)
