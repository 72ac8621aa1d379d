"""Measure contenders in turn, make tables of their times, and write a report that keeps earlier measurements."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import time

import numpy as np
import torch
from tqdm import tqdm

from analysis import figure, legend_below, line_style
from utils import read_text, write_whole

WAITING = 'Waiting for a GPU:'                          # beginning of the last line of a report


def take_turns(contenders, inputs, rounds, device, what):
    """Seconds of each contender in each round: name -> list. One more round at the beginning is not counted.

    contenders: name -> function. inputs: number of the round -> arguments of the functions; not measured.
    """
    seconds = {name: [] for name in contenders}
    for i in tqdm(range(rounds + 1), desc=what, ncols=80, leave=False, disable=None):
        for name, run in contenders.items():
            arguments = inputs(i)
            start = time.perf_counter()
            run(*arguments)
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def spread(values):
    """The median, and the smallest and the largest value in brackets."""
    return f'{np.median(values):.2f} ({min(values):.2f}–{max(values):.2f})'


def table(header, rows):
    """Lines of a Markdown table."""
    return ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header),
            *('| ' + ' | '.join(row) + ' |' for row in rows)]


def ratio_table(seconds, n, unit, bases=('plain',)):
    """A table of the seconds for `n` units, of the units per second, and of the speed relative to each of `bases`.

    seconds: name -> list with a time for each round. A ratio is that of two times of the same round.
    """
    bases = [base for base in bases if base in seconds]
    rows = [[name, spread(values), f'{n / np.median(values):.2f}',
             *(spread(np.divide(seconds[base], values)) for base in bases)] for name, values in seconds.items()]
    return table(['', 'seconds', f'{unit}/s', *(f'times as fast as {base}' for base in bases)], rows)


def provenance(command, device):
    """A line about when, where and with which command a section was measured."""
    packages = [f'{package} {importlib.metadata.version(package)}' for package in ('torch', 'transformers')
                if importlib.util.find_spec(package)]
    return (f'*`{command}`, {time.strftime("%Y-%m-%d")}: {machine(device)}, Python {platform.python_version()}, '
            f'{", ".join(packages)}*')


def machine(device):
    """The name of the processor or GPU, and the number of threads."""
    device_name = torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name()
    return f'{device_name}, {torch.get_num_threads()} threads'


def cpu_name():
    """The name of the processor from Linux, or from Python on other systems."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as f:
            return next(line.split(':', 1)[1].strip() for line in f if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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


def draw(panels, path, heading):
    """Write a picture of panels (x label, title with unit, x, {name: y}), two in a row, under a heading.

    All axes are logarithmic with ticks at powers of two: a cost that doubles with the work is a straight line.
    """
    from matplotlib.ticker import LogLocator
    names = list(dict.fromkeys(name for *_, lines in panels for name in lines))
    with figure(path, (9, 3 * len(panels) / 2)) as fig:
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
