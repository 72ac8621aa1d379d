"""What is odd about the files of two GLUE tasks: MNLI and MRPC."""

import os
from argparse import Namespace
from random import Random

from tasks.base import Files, Split, Task, files_of, find_folder, join, load_tables, read_tables, read_test
from tasks.readers import read_lines, read_rows

MRPC_SEED, N_MRPC_DEV = 42, 408  # of the split where GLUE's own of MRPC is not known
PAIR = (('sentence1', 'premise'), ('sentence2', 'hypothesis'))  # columns of entailment tasks
AX = Files(('diagnostic',), PAIR, ('gold_label', 'label'),
           patterns=('diagnostic', 'AX', 'diagnostic/diagnostic', 'AX/AX', 'diagnostic/{}', 'AX/{}', 'ax/{}'))


def load_mnli(task: Task, options: Namespace) -> tuple[Split, Split, Split | None]:
    """MNLI; the test also has GLUE's diagnostic examples, where they are, as the part AX."""
    train, valid, test = load_tables(task, options)
    folder = find_folder(options.data_dir, task.files)
    paths = files_of(folder, AX, 'test') or files_of(os.path.dirname(os.path.abspath(folder)), AX, 'test')
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
        return load_tables(of_glue, options)
    examples = read_tables(task, raw, labelled=True)
    n = len(examples.labels)
    ids_paths = [path for name in ('mrpc_dev_ids.tsv', 'dev_ids.tsv')
                 if os.path.isfile(path := os.path.join(folder, name))]
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
