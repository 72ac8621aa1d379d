"""What is odd about the files of four GLUE tasks: SST-2, MRPC, MNLI, QNLI."""

import os
from argparse import Namespace
from random import Random

from tasks.base import Files, Split, Task, files_of, find_folder, join, load_tables, read_tables, read_test, rows_of
from tasks.readers import read_lines, read_rows
from utils import is_there

MRPC_SEED, N_MRPC_DEV = 42, 408  # of the split where GLUE's own of MRPC is not known
QNLI_ROWS = {104743: 'v2', 5463: 'v2', 108436: 'v1', 5732: 'v1'}  # rows of the training and validation files
PAIR = (('sentence1', 'premise'), ('sentence2', 'hypothesis'))  # columns of entailment tasks
AX = Files(('diagnostic', 'AX', 'ax'), PAIR, ('gold_label', 'label'), patterns=('diagnostic', 'AX'))


def sst2_rows(files: Files, path: str, broken: list | None):
    """Place, sentence and label of each row of GLUE's files, or of Stanford's stsa.binary.*."""
    return stanford_rows(path) if os.path.basename(path).startswith('stsa.') else rows_of(files, path, broken)


def stanford_rows(path: str):
    """Rows of stsa.binary.*: the label, a blank, the sentence with escapes."""
    for number, line in enumerate(read_lines(path), start=1):
        label, blank, text = line.strip().partition(' ')
        if blank:
            text = text.replace('-lrb-', '(').replace('-rrb-', ')').replace('\\/', '/')
            yield f'line {number}', [text.strip(), label]
        elif label:
            raise ValueError(f'{path}, line {number}: not a label, a blank and a sentence')


def load_sst2(task: Task, options: Namespace) -> tuple[Split, Split, Split | None]:
    """SST-2, with a note where the training file is not GLUE's."""
    train, valid, test = load_tables(task, options)
    [path, *_] = files_of(find_folder(options.data_dir, task.files), task.files, 'train')
    if os.path.basename(path) == 'stsa.binary.train':
        train = train.noted(f'{path} has the sentences only, not the phrases that GLUE trains on')
    return train, valid, test


def load_qnli(task: Task, options: Namespace) -> tuple[Split, Split, Split | None]:
    """QNLI, with a note of its version: the paper's number is on v1, the server takes v2."""
    train, valid, test = load_tables(task, options)
    versions = {QNLI_ROWS.get(len(split.labels)) for split in (train, valid)}
    name = f'QNLI {versions.pop()}' if len(versions) == 1 and None not in versions else 'neither QNLI v1 nor v2'
    return train.noted(f'by the numbers of its rows this is {name}'), valid, test


def load_mnli(task: Task, options: Namespace) -> tuple[Split, Split, Split | None]:
    """MNLI; the test also has GLUE's diagnostic examples, where they are, as the part AX."""
    train, valid, test = load_tables(task, options)
    folder = find_folder(options.data_dir, task.files)
    paths = files_of(folder, AX, 'test')
    for above in (folder, os.path.dirname(os.path.abspath(folder))):
        for name in AX.folders:
            paths = paths or files_of(os.path.join(above, name), AX._replace(patterns=(*AX.patterns, '{}')), 'test')
    if test and paths:
        both = join({'': test, 'AX': read_tables(task._replace(files=AX), paths)})
        test = both._replace(parts={**test.parts, 'AX': both.parts['AX']})
    return train, valid, test


def load_mrpc(task: Task, options: Namespace) -> tuple[Split, Split, Split | None]:
    """MRPC: GLUE's files, or Microsoft's two with the ids of GLUE's validation examples or a split of our own."""
    folder = find_folder(options.data_dir, task.files)
    of_glue = task._replace(files=task.files._replace(patterns=('{}',)))
    raw = files_of(folder, task.files._replace(patterns=('msr_paraphrase_{}',)), 'train')
    if not raw or all(files_of(folder, of_glue.files, kind) for kind in ('train', 'validation')):
        train, valid, test = load_tables(of_glue, options)
        return train.noted(f'MRPC is split as the files in {folder} are'), valid, test
    examples = read_tables(task, raw, labelled=True)
    n = len(examples.labels)
    ids_paths = [path for name in ('mrpc_dev_ids.tsv', 'dev_ids.tsv')
                 if is_there(path := os.path.join(folder, name))]
    if ids_paths:
        chosen, how = chosen_rows(raw[0], ids_paths[0]), f'validation examples are those of {ids_paths[0]}'
    else:
        chosen = {*Random(MRPC_SEED).sample(range(n), min(N_MRPC_DEV, n // 4))}
        how = f'without mrpc_dev_ids.tsv {len(chosen)} validation examples are drawn at random, not those of GLUE'
    train, valid = examples.take([i for i in range(n) if i not in chosen]), examples.take(sorted(chosen))
    return train._replace(notes=(*examples.notes, f'MRPC is read from {raw[0]}: {how}')), valid, read_test(task, folder)


def chosen_rows(raw_path: str, ids_path: str) -> set[int]:
    """The rows of Microsoft's training file with the pairs of ids that another file lists. Each must be there."""
    wanted = {tuple(line.split()) for line in read_lines(ids_path) if line.strip()}
    ids = [tuple(pair) for _, (*pair, _) in read_rows(raw_path, ('#1 ID', '#2 ID'))]
    chosen = {i for i, pair in enumerate(ids) if pair in wanted}
    if not 0 < len(chosen) < len(ids) or {ids[i] for i in chosen} != wanted:
        raise ValueError(f'{ids_path} has {len(wanted)} pairs of ids, and {len(chosen)} of them are in {raw_path}')
    return chosen
