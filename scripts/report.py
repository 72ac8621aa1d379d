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
    device_name = torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name()
    packages = [f'{package} {importlib.metadata.version(package)}' for package in ('torch', 'transformers')
                if importlib.util.find_spec(package)]
    return (f'*`{command}`, {time.strftime("%Y-%m-%d")}: {device_name}, {torch.get_num_threads()} threads, Python '
            f'{platform.python_version()}, {", ".join(packages)}*')


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
