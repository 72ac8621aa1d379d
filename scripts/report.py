"""Measure contenders in turn, make tables of their times, and write a report that keeps earlier measurements."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import time

import numpy as np
import torch

from analysis import figure, legend_below, line_style
from common.checkpoint import commit_of_code
from common.cpu import cpu_info
from utils import read_text, write_whole

# the name in Linux: the usual one
CPU_UNITS = {'avx2': 'AVX2', 'avx512f': 'AVX-512', 'avx512_bf16': 'AVX512-BF16', 'amx_tile': 'AMX'}


def take_turns(contenders, inputs, rounds, device):
    """Seconds of each contender in each round: name -> list. There is one more round at the beginning, in which caches
    are filled and compiled contenders are compiled.

    contenders: name -> function. inputs: number of the round -> arguments of the functions; not measured.
    """
    seconds = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, run in contenders.items():
            arguments = inputs(i)
            start = time.perf_counter()
            run(*arguments)
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
            elif device.type == 'mps':
                torch.mps.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values, form='.2f'):
    """The median, and the smallest and the largest value in brackets."""
    return f'{np.median(values):{form}} ({min(values):{form}}–{max(values):{form}})'


def table(header, rows):
    """Lines of a Markdown table."""
    return ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header),
            *('| ' + ' | '.join(row) + ' |' for row in rows)]


def ratio_table(seconds, n, unit, bases=('plain',)):
    """A table of the speed relative to each of `bases`, of the seconds for `n` units, of the units per second, and of
    the seconds of the first round, which counts in no other column. seconds: as `take_turns` returns them."""
    bases = [base for base in bases if base in seconds]
    first, seconds = ({name: values[part] for name, values in seconds.items()} for part in (0, slice(1, None)))
    rows = [[name, *(spread(np.divide(seconds[base], values)) for base in bases), spread(values, '.3g'),
             f'{n / np.median(values):,.2f}', f'{first[name]:.3g}'] for name, values in seconds.items()]
    return table(['', *(f'times as fast as {base}' for base in bases), 'seconds', f'{unit}/s', 'first round'], rows)


def provenance(command, device):
    """One line: the command that measured a section, the day, the commit, the machine and the versions."""
    packages = [f'{package} {importlib.metadata.version(package)}' for package in ('torch', 'transformers')
                if importlib.util.find_spec(package)]
    return (f'*`{command}`, {time.strftime("%Y-%m-%d")}, commit {commit_of_code()}: {machine(device)}, Python '
            f'{platform.python_version()}, {", ".join(packages)}*')


def machine(device):
    """The names of the GPU, if it is used, and of the processor with its units, and the number of threads."""
    names = [torch.cuda.get_device_name(device)] if device.type == 'cuda' else []
    units = [unit for flag, unit in CPU_UNITS.items() if flag in cpu_info('flags')]
    kind = [f'{field.split()[-1]} {cpu_info(field)[-1]}' for field in ('cpu family', 'model') if cpu_info(field)]
    names.append(f'{" ".join(cpu_info("model name")[3:]) or platform.machine()} ({", ".join(kind + units)})')
    return f'{", ".join(names)}, {torch.get_num_threads()} threads'


def read_report(path):
    """Heading -> text of the sections of a report."""
    text = read_text(path) if os.path.exists(path) else ''
    parts = (part.partition('\n') for part in re.split(r'^## ', text, flags=re.MULTILINE)[1:])
    return {title: body.strip() for title, _, body in parts}


def write_report(path, introduction, sections):
    """Write sections: heading -> text."""
    parts = ['# Benchmarks', introduction, *(f'## {title}\n\n{text}' for title, text in sections.items())]
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
                ax.plot(x, y, **line_style(names.index(name)), label=name)
            ax.set_xscale('log', base=2)
            ax.set_yscale('log', base=2)
            values = np.log2([y for line in lines.values() for y in line])
            # whole powers of two, so that each axis has two ticks at least
            limits = 2 ** np.floor(values.min()), 2 ** np.floor(values.max() + 1)
            ax.set(title=title, xlabel=x_label, ylim=limits)
            for axis in ax.xaxis, ax.yaxis:
                axis.set(major_locator=LogLocator(2, numticks=9), major_formatter='{x:,g}')
        fig.suptitle(heading, fontsize='medium')
        legend_below(fig)
