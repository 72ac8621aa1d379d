"""Log-probabilities of text, and tasks that need no training, after section 5 of the paper.

    python zero_shot.py --task cloze --data_dir data/sample/ --model_path model/sample/      # also sst2, winograd

Prints for how many examples, in percent, the language model gives the right choice the highest probability. The paper
has the tasks sst2 and winograd, and RACE, which it scores as cloze is scored here. Logarithms are natural (nats). The
first token of a text has no probability, because there is no start token; special and position rows have none either.
"""

if __name__ == '__main__':
    from interrupt import begin_script
    begin_script()

import os
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

import fast
from datasets import find_cloze_file, read_cloze
from device import add_device_args, choose_device
from readers import find_columns, read_table
from text_utils import has_tokens
from trained import open_trained, parse_trained_args
from utils import Parser, iter_data, run_script

N_BATCH = 16                                            # examples in a batch
DATA_HELP = ("folder with the Story Cloze files, GLUE's dev.tsv (sentence, label) or winograd.tsv (sentence with _ for "
             'the pronoun, candidate1, candidate2, label 1 or 2); the first line has the names of the columns')


def parse_args(argv=None):
    parser = Parser(__doc__)
    parser.add_argument('--task', required=True, choices=TASKS, help='task to evaluate')
    parser.add_argument('--data_dir', default='data/', help=DATA_HELP)
    add_device_args(parser)
    return parse_trained_args(parser, argv)


def with_positions(transformer, ids: Tensor, start: int = 0) -> Tensor:
    """Token ids (N, T), the first at position `start` -> input of the network (N, T, 2)."""
    positions = transformer.vocab - transformer.n_ctx + start + torch.arange(ids.size(1), device=ids.device)
    return torch.stack([ids, positions.expand_as(ids)], dim=-1)


@torch.no_grad()
def log_probs(transformer, n_vocab: int, examples: list) -> list[list[Tensor]]:
    """Log-probability of each token given the tokens before it.

    examples: lists of K choices (ids, first), with the same K everywhere and at most n_ctx ids. ids[first:] are scored,
    first >= 1. Returns a list of K tensors (len(ids) - first,) for each example. The common beginning of an example's
    choices is computed once, and logits only where needed, `fast.LM_CHUNK` rows at a time. Raises ArithmeticError if a
    number is not finite.
    """
    if transformer.n_ctx < 2:
        raise ValueError(f'n_ctx={transformer.n_ctx}: must be at least 2, because the first token has no score')
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
        X_choices, M_choices = with_positions(transformer, X).unflatten(0, (-1, K)), M.unflatten(0, (-1, K))
        pack = fast.pack_shared if K > 1 else fast.pack
        packing = fast.to_device(pack(X_choices, M_choices, clf_token=-1), we.device)
        h = fast.hidden_rows(transformer, packing, we)                 # (R, C)
        rows = packing.row_of[before.to(we.device)]                    # (L,)
        targets = X[:, 1:][before[:, :-1]].to(we.device)               # (L,)
        scores = [F.linear(h[row], we[:n_vocab]).float().log_softmax(-1).gather(1, target[:, None]).squeeze(1)
                  for row, target in iter_data(rows, targets, n_batch=fast.LM_CHUNK)]
        scores = torch.cat(scores).cpu()                               # (L,)
        if not scores.isfinite().all():
            raise ArithmeticError('log-probabilities are not finite: try --dtype float32')
        scores = scores.split(before.sum(1).tolist())                  # N tensors
        for n, i in enumerate(batch):
            results[i] = list(scores[n * K:(n + 1) * K])
    return results


def windows(ids: list[int], n_ctx: int) -> list:
    """Examples for `log_probs`, each of one choice, that score every token of a text once, except the first.

    A text longer than n_ctx is cut into windows. After the first, scored tokens follow n_ctx // 2 tokens or more.
    """
    cut, start, first = [], 0, 1
    while first < len(ids):
        cut.append([(ids[start:start + n_ctx], first - start)])
        first = start + n_ctx
        start = first - n_ctx // 2
    return cut


def score_texts(transformer, n_vocab: int, texts: list) -> list[Tensor]:
    """Log-probabilities of the tokens of each text (a list of ids) except its first: (len(text) - 1,) each."""
    examples = [window for text in texts for window in windows(text, transformer.n_ctx)]
    scores = [p for [p] in log_probs(transformer, n_vocab, examples)]
    return list(torch.cat([torch.empty(0), *scores]).split([max(len(text) - 1, 0) for text in texts]))


def mean_log_probs(transformer, encoder, problems: list, source: str = 'problems') -> tuple[Tensor, int, int]:
    """Mean log-probability of each continuation given its context.

    problems: N lists of K pairs of texts (context, continuation). If a pair is longer than n_ctx, the beginning of the
    context is cut off, and also the end of a continuation of n_ctx tokens or more. Returns (N, K), and the numbers of
    problems with a cut context and with a cut continuation. Raises ValueError, naming `source`, if a text is empty.
    """
    n_ctx, examples, n_contexts_cut, n_continuations_cut = transformer.n_ctx, [], 0, 0
    for number, choices in enumerate(problems, start=1):
        texts = [text for pair in choices for text in pair]
        ids = encoder.encode(texts, verbose=False)
        if not all(ids):
            raise ValueError(f'{source}, example {number}: {texts[ids.index([])]!r} has no tokens')
        contexts, continuations = ids[0::2], ids[1::2]
        ends = [continuation[:n_ctx - 1] for continuation in continuations]
        beginnings = [context[-(n_ctx - len(end)):] for context, end in zip(contexts, ends, strict=True)]
        n_contexts_cut += int(beginnings != contexts)
        n_continuations_cut += int(ends != continuations)
        examples.append([(start + end, len(start)) for start, end in zip(beginnings, ends, strict=True)])
    scores = log_probs(transformer, encoder.n_vocab, examples)
    return torch.tensor([[p.mean() for p in choices] for choices in scores]), n_contexts_cut, n_continuations_cut


def read_examples(path: str, columns: tuple, classes: tuple) -> list[tuple[str, list[str], int]]:
    """File and line, texts in `columns`, index of the label in `classes`, of each row. ValueError for a wrong row."""
    header, rows = read_table(path)
    indices, examples = find_columns(path, header, (*columns, 'label')), []
    if not rows:
        raise ValueError(f'{path} has a header but no rows')
    for line, row in rows:
        *texts, label = [row[index].strip() for index in indices]
        for name, text in zip(columns, texts, strict=True):
            if not has_tokens(text):
                raise ValueError(f'{path}, line {line}: {name} is empty: {text[:40]!r} has no tokens')
        if label not in classes:
            raise ValueError(f'{path}, line {line}: label {label!r} is not {" or ".join(classes)}')
        examples.append((f'{path}, line {line}', texts, classes.index(label)))
    return examples


def cloze(data_dir: str) -> list:
    """Story Cloze Test: the ending that is more probable after the story. Ignores files without labels."""
    files = []
    for kind in ('val', 'test'):
        path = find_cloze_file(data_dir, kind)
        stories, endings1, endings2, labels = read_cloze(path)
        if labels is not None:
            files.append((path, [[(story, ending) for ending in endings] for story, *endings
                                 in zip(stories, endings1, endings2, strict=True)], labels))
    if not files:
        raise ValueError(f'{data_dir}: neither of the two Story Cloze files has labels')
    return files


def sst2(data_dir: str) -> list:
    """SST-2: `positive` or `negative` after the sentence and `very`. Reads GLUE's dev.tsv: sentence, label 0 or 1."""
    path = os.path.join(data_dir, 'dev.tsv')
    rows = read_examples(path, ('sentence',), ('0', '1'))
    problems = [[(f'{sentence} very', word) for word in ('negative', 'positive')] for _, [sentence], _ in rows]
    return [(path, problems, [label for *_, label in rows])]


def winograd(data_dir: str) -> list:
    """Winograd schemas: the candidate for the pronoun after which the rest is more probable. Reads winograd.tsv."""
    path, problems = os.path.join(data_dir, 'winograd.tsv'), []
    rows = read_examples(path, ('sentence', 'candidate1', 'candidate2'), ('1', '2'))
    for line, (sentence, *candidates), _ in rows:
        before, pronoun, rest = sentence.partition('_')
        if not pronoun or not rest.strip():
            raise ValueError(f'{line}: the sentence must have _ for the pronoun, and words after it')
        problems.append([(before + candidate, rest) for candidate in candidates])
    return [(path, problems, [label for *_, label in rows])]


TASKS = {'cloze': cloze, 'sst2': sst2, 'winograd': winograd}          # each: data_dir -> [(path, problems, labels)]


def main(args) -> list[float]:
    """Print and return the accuracy, in percent, on each file of the task."""
    device, autocast = choose_device(args.device, args.dtype, args.deterministic)
    trained = open_trained(args)
    transformer, accuracies = trained.model.to(device).transformer, []
    for path, problems, labels in TASKS[args.task](args.data_dir):
        with autocast:
            means, *n_cut = mean_log_probs(transformer, trained.encoder, problems, path)
        accuracies.append((means.argmax(1) == torch.tensor(labels)).double().mean().item() * 100)
        print(f'{args.task} accuracy {accuracies[-1]:.2f} on {len(labels)} examples of {path}')
        for n, what in zip(n_cut, ('the beginning of a context', 'the end of a continuation'), strict=True):
            if n:
                print(f'n_ctx={transformer.n_ctx} is too short for {n} of them: {what} was cut off')
    return accuracies


if __name__ == '__main__':
    run_script(main, parse_args)
