"""Log-probabilities of text, and the paper's zero-shot heuristics (section 5) that need nothing else.

Natural logarithms (nats), over the tokens of the vocabulary: special and position rows count as impossible. There is no
start token, so the first token of a text has no probability.
"""

import csv
import os
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

import fast
from datasets import find_cloze_file, read_cloze
from utils import iter_data

N_BATCH = 16                                            # examples at a time


def with_positions(transformer, ids: Tensor, start: int = 0) -> Tensor:
    """Token ids (N, T) of the steps start, start + 1, ... -> network input (N, T, 2)."""
    positions = transformer.vocab - transformer.n_ctx + start + torch.arange(ids.size(1), device=ids.device)
    return torch.stack([ids, positions.expand_as(ids)], dim=-1)


@torch.no_grad()
def log_probs(transformer, n_vocab: int, examples: list) -> list[list[Tensor]]:
    """Log-probabilities of tokens, each given those before it.

    examples: lists of K choices (ids, first), with the same K everywhere and at most n_ctx ids. ids[first:] are scored,
    first >= 1. Returns as many lists of K tensors (len(ids) - first,). Steps that the choices of an example begin with
    are computed once, and logits only before scored tokens, `fast.LM_CHUNK` rows at a time.
    """
    we = transformer.embed.weight
    results = [None] * len(examples)
    longest_first = sorted(range(len(examples)), key=lambda i: -max(len(ids) for ids, _ in examples[i]))
    for batch in iter_data(longest_first, n_batch=N_BATCH, verbose=sys.stderr.isatty()):
        choices = [choice for i in batch for choice in examples[i]]
        N, K, T = len(choices), len(examples[batch[0]]), max(len(ids) for ids, _ in choices)
        X, M = torch.zeros(N, T, dtype=torch.long), torch.zeros(N, T)
        before = torch.zeros(N, T, dtype=torch.bool)                   # the steps that predict a scored token
        for n, (ids, first) in enumerate(choices):
            X[n, :len(ids)] = torch.tensor(ids)
            M[n, :len(ids)] = 1
            before[n, first - 1:len(ids) - 1] = True
        X_choices, M_choices = (t.unflatten(0, (-1, K)) for t in (with_positions(transformer, X), M))
        packing = fast.to_device(fast.pack(X_choices, M_choices, clf_token=-1, share=K > 1), we.device)
        h = fast.hidden_rows(transformer, packing, we)                 # (R, C)
        rows = packing.row_of[before.to(we.device)]                    # (L,)
        targets = X[:, 1:][before[:, :-1]].to(we.device)               # (L,)
        found = [F.linear(h[row], we[:n_vocab]).float().log_softmax(-1).gather(1, target[:, None]).squeeze(1)
                 for row, target in iter_data(rows, targets, n_batch=fast.LM_CHUNK)]
        found = iter(torch.cat(found).cpu().split(before.sum(1).tolist()))
        for i in batch:
            results[i] = [next(found) for _ in range(K)]
    return results


def windows(ids: list[int], n_ctx: int) -> list:
    """Examples for `log_probs`, of one choice each, that score every token but the first of a text once.

    A text longer than n_ctx is cut into windows; a token beyond the first one has at least n_ctx // 2 before it.
    """
    cut, start, first = [], 0, 1
    while first < len(ids):
        cut.append([(ids[start:start + n_ctx], first - start)])
        first = start + n_ctx
        start = first - n_ctx // 2
    return cut


def score_texts(transformer, n_vocab: int, texts: list) -> list[Tensor]:
    """Log-probabilities of the tokens of each text (a list of ids) but its first: (len(text) - 1,) each."""
    cut = [windows(text, transformer.n_ctx) for text in texts]
    found = iter(log_probs(transformer, n_vocab, [example for examples in cut for example in examples]))
    return [torch.cat([torch.empty(0), *(next(found)[0] for _ in examples)]) for examples in cut]


def mean_log_probs(transformer, encoder, problems: list) -> tuple[Tensor, int]:
    """Mean log-probability of each continuation given its context.

    problems: N lists of K pairs (context, continuation), all texts. Returns (N, K), and how many problems do not fit
    into n_ctx: their contexts lose their beginnings.
    """
    pairs = [pair for choices in problems for pair in choices]
    contexts, continuations = (encoder.encode(texts, verbose=False) for texts in zip(*pairs, strict=True))
    n_ctx, K, examples, n_cut = transformer.n_ctx, len(problems[0]), [], 0
    for i in range(len(problems)):
        choices = list(zip(contexts, continuations, strict=True))[i * K:(i + 1) * K]
        if not all(context and continuation for context, continuation in choices):
            raise ValueError(f'example {i + 1} has a text without tokens')
        n_cut += any(len(context) + len(continuation) > n_ctx for context, continuation in choices)
        choices = [(context[-max(n_ctx - len(continuation), 1):], continuation[:n_ctx - 1])
                   for context, continuation in choices]
        examples.append([(context + continuation, len(context)) for context, continuation in choices])
    found = log_probs(transformer, encoder.n_vocab, examples)
    return torch.stack([torch.stack([p.mean() for p in choices]) for choices in found]), n_cut


def read_tsv(path: str, columns: tuple) -> list[list[str]]:
    """The named columns of each row of a tab-separated file with a header. Raises ValueError with file and line."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} is missing: --data_dir names its folder')
    with open(path, encoding='utf-8-sig', newline='') as f:
        try:
            header, *rows = csv.reader(f, delimiter='\t', quoting=csv.QUOTE_NONE)
        except (ValueError, csv.Error) as e:                           # an empty file, or bytes that are not UTF-8
            raise ValueError(f'{path} is no table of tab-separated UTF-8 text ({e})') from None
    missing = [name for name in columns if name not in header]
    if missing or not rows:
        raise ValueError(f'{path}: want a first line with {", ".join(columns)}, separated by tabs, and rows below it')
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f'{path}, line {line}: {len(row)} columns, the header has {len(header)}')
    return [[row[header.index(name)].strip() for name in columns] for row in rows]


def read_label(path: str, line: int, label: str, choices: tuple) -> int:
    """Which of the `choices` the label is."""
    if label not in choices:
        raise ValueError(f'{path}, line {line}: label {label!r} is not {" or ".join(choices)}')
    return choices.index(label)


def cloze(data_dir: str):
    """Story Cloze Test: the ending that is more probable after the story. The labelled ones of its two files."""
    files = []
    for kind in ('val', 'test'):
        path = find_cloze_file(data_dir, kind)
        stories, endings1, endings2, labels = read_cloze(path)
        if labels is not None:
            files.append((path, [[(story, ending) for ending in endings] for story, *endings
                                 in zip(stories, endings1, endings2, strict=True)], labels))
    return files


def sst2(data_dir: str):
    """SST-2: `positive` or `negative` after the sentence and `very`. Reads GLUE's dev.tsv: sentence, label 0 or 1."""
    path = os.path.join(data_dir, 'dev.tsv')
    rows = read_tsv(path, ('sentence', 'label'))
    labels = [read_label(path, line, label, ('0', '1')) for line, (_, label) in enumerate(rows, start=2)]
    return [(path, [[(f'{sentence} very', word) for word in ('negative', 'positive')] for sentence, _ in rows], labels)]


def winograd(data_dir: str):
    """Winograd schemas: the candidate in place of the pronoun after which the rest of the sentence is more probable.

    Reads winograd.tsv: sentence (with `_` for the pronoun), candidate1, candidate2, label 1 or 2.
    """
    path = os.path.join(data_dir, 'winograd.tsv')
    rows = read_tsv(path, ('sentence', 'candidate1', 'candidate2', 'label'))
    problems, labels = [], []
    for line, (sentence, *candidates, label) in enumerate(rows, start=2):
        before, pronoun, rest = sentence.partition('_')
        if not pronoun or not rest.strip():
            raise ValueError(f'{path}, line {line}: want a sentence with _ for the pronoun and words after it')
        problems.append([(before + candidate, rest) for candidate in candidates])
        labels.append(read_label(path, line, label, ('1', '2')))
    return [(path, problems, labels)]


ZERO_SHOT = {'cloze': cloze, 'sst2': sst2, 'winograd': winograd}      # data_dir -> [(path, problems, labels), ...]
