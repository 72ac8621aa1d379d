"""Log-probabilities of text, and tasks that need no training, after section 5 of the paper.

    python zero_shot.py --dataset rocstories --data_dir data/sample/ --model_path model/sample/

    rocstories  the ending of a story with the higher mean log-probability of its tokens after the story
    cola        a sentence is acceptable if the mean log-probability of its tokens is above a threshold, which is the
                one with the best Matthews correlation on the training file
    race        the answer with the highest mean log-probability after the article and the question
    sst2        `positive` or `negative`, whichever is more probable after the sentence and `very`
    winograd    the candidate in place of the pronoun after which the rest has the higher mean log-probability
    blimp       of two sentences that differ in grammar the one with the higher log-probability after a newline token
    perplexity  no task: how well the network predicts the *.txt files of a folder, per token, word and byte

Prints scores in percent, beside that of the best constant answer. The paper has cola, race, sst2 and winograd (section
5); blimp is that of Warstadt et al., 2020 (simple LM method). Logarithms are natural (nats). The first token of a text
has no probability, because there is no start token; special and position rows have none either.
"""

from common.options import Parser, add_computing_args, add_dropout_args, add_network_args, parse_trained_args
from common.shell import begin_script, run_script
from tasks import TASKS

NAMES = [*(name for name, task in TASKS.items() if task.zero_shot), 'winograd', 'blimp', 'perplexity']


def parse_args(argv=None):
    parser = Parser('zero_shot.py', __doc__, '--dataset NAME ')
    group = parser.add_argument_group('data')
    group.add_argument('--dataset', required=True, choices=NAMES, metavar='NAME',
                       help=f'task to evaluate: {", ".join(NAMES)}')
    group.add_argument('--data_dir', default='data/', metavar='FOLDER', help='the Story Cloze files; the files of '
                       'CoLA, RACE or SST-2 (see tasks/__init__.py); train.c.txt, test.c.txt (DPRD) or wsc273.txt for '
                       'winograd; the *.jsonl of BLiMP; *.txt for perplexity')
    add_network_args(parser, 'model/', 'the weights, in the released layout')
    add_dropout_args(parser, hidden=True)
    add_computing_args(parser)
    return parse_trained_args(parser, argv)[0]


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import itertools
import math
import os
import re
import stat
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import fast
from common.corpus import text_files
from common.device import device_of
from common.examples import find_cloze_file, read_cloze
from common.trained import open_trained
from tasks.base import find_folder, read_kind, read_test
from tasks.metrics import scores, trivial_score
from tasks.race import race_files, read_questions
from tasks.readers import read_lines, read_rows
from text_utils import has_tokens
from utils import HIDDEN, at_terminal, is_there, iter_data, read_text

N_BATCH = 16  # examples in a batch


class Problems(NamedTuple):
    """Examples of one file."""
    source: str  # name of the file for messages
    problems: list  # of each example the pairs of texts (context, continuation) to choose from; CoLA: the text
    labels: list  # which of them is right; CoLA: 1 is acceptable
    parts: dict = {}  # name -> slice of the examples that are also scored by themselves


def with_positions(transformer, ids: Tensor, start: int = 0) -> Tensor:
    """Token ids (N, T), the first at position `start` -> input of the network (N, T, 2)."""
    positions = transformer.vocab - transformer.n_ctx + start + torch.arange(ids.size(1), device=ids.device)
    return torch.stack([ids, positions.expand_as(ids)], dim=-1)


@torch.no_grad()
def log_probs(transformer, n_vocab: int, examples: list, n_batch: int = N_BATCH) -> list[list[Tensor]]:
    """Log-probability of each token given the tokens before it.

    examples: lists of K choices (ids, first), with the same K everywhere and at most n_ctx ids. ids[first:] are scored,
    first >= 1. Returns a list of K tensors (len(ids) - first,) for each example. The common beginning of an example's
    choices is computed once, and logits only where needed, `fast.LM_CHUNK` rows at a time. Raises ArithmeticError if a
    number is not finite, ValueError in training mode.
    """
    fast.check_evaluates(transformer)
    if transformer.n_ctx < 2:
        raise ValueError(f'n_ctx={transformer.n_ctx}: must be at least 2, because the first token has no score')
    we = transformer.embed.weight
    results = [None] * len(examples)
    longest_first = sorted(range(len(examples)), key=lambda i: -max(len(ids) for ids, _ in examples[i]))
    for batch in iter_data(longest_first, n_batch=n_batch, verbose=at_terminal()):
        choices = [choice for i in batch for choice in examples[i]]
        N, K, T = len(choices), len(examples[batch[0]]), max(len(ids) for ids, _ in choices)
        X, M = torch.zeros(N, T, dtype=torch.long), torch.zeros(N, T)
        before = torch.zeros(N, T, dtype=torch.bool)  # the steps that predict a scored token
        for n, (ids, first) in enumerate(choices):
            X[n, :len(ids)] = torch.tensor(ids)
            M[n, :len(ids)] = 1
            before[n, first - 1:len(ids) - 1] = True
        X_choices, M_choices = with_positions(transformer, X).unflatten(0, (-1, K)), M.unflatten(0, (-1, K))
        pack = fast.pack_shared if K > 1 else fast.pack
        packing = pack(X_choices, M_choices, clf_token=-1)  # on the CPU, which then does not wait for a GPU
        rows, targets = (fast.move(t, we.device) for t in (packing.row_of[before], X[:, 1:][before[:, :-1]]))  # (L,)
        h = fast.hidden_rows(transformer, fast.to_device(packing, we.device), we)  # (R, C)
        scores = [fast.product(h[row], we[:n_vocab].T).float().log_softmax(-1).gather(1, target[:, None]).squeeze(1)
                  for row, target in iter_data(rows, targets, n_batch=fast.LM_CHUNK)]
        scores = torch.cat([torch.empty(0), *(of_chunk.cpu() for of_chunk in scores)])  # (L,)
        if not scores.isfinite().all():
            raise ArithmeticError('log-probabilities are not finite: try --dtype float32')
        scores = scores.split(before.sum(1).tolist())  # N tensors
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


def mean_log_probs(transformer, encoder, problems: list, source: str = 'problems', total=False) -> tuple[Tensor, int]:
    """Mean log-probability of each continuation given its context, or with total their sum; -inf without tokens.

    problems: N lists of K pairs of texts (context, continuation). If a pair is longer than n_ctx, the beginning of the
    context is cut off, and also the end of a continuation of n_ctx tokens or more. Returns (N, K), and the number of
    problems with a text that is cut. Raises ValueError, naming `source`, if a context is empty.
    """
    n_ctx, examples, n_cut = transformer.n_ctx, [], 0
    for number, choices in enumerate(problems, start=1):
        texts = list(dict.fromkeys(text for pair in choices for text in pair))  # most contexts are the same
        ids = dict(zip(texts, encoder.encode(texts, verbose=False), strict=True))
        examples.append([])
        for context, continuation in choices:
            if not ids[context]:
                raise ValueError(f'{source}, example {number}: {context[:40]!r} has no tokens')
            end = ids[continuation][:n_ctx - 1]
            start = ids[context][-(n_ctx - len(end)):]
            examples[-1].append((start + end, len(start)))
        n_cut += any(len(ids[context] + ids[continuation]) > n_ctx for context, continuation in choices)
    found = log_probs(transformer, encoder.n_vocab, examples)
    score = torch.sum if total else torch.mean
    return torch.tensor([[score(p) if len(p) else -math.inf for p in choices] for choices in found]), n_cut


def cloze(data_dir: str) -> list[Problems]:
    """Story Cloze Test: the ending that is more probable after the story. Ignores files without labels."""
    files = []
    for kind in ('val', 'test'):
        path = find_cloze_file(data_dir, kind)
        stories, endings1, endings2, labels = read_cloze(path)
        if labels is not None:
            files.append(Problems(path, [[(story, ending) for ending in endings] for story, *endings
                                         in zip(stories, endings1, endings2, strict=True)], labels))
    if not files:
        raise ValueError(f'{data_dir}: neither of the two Story Cloze files has labels')
    return files


def labelled_splits(name: str, data_dir: str) -> list:
    """(name for messages, Split) of the validation and test examples of a task that have labels; prints their notes."""
    task = TASKS[name]
    if name == 'race':
        folder = find_folder(data_dir, task.files, 'validation', race_files)
        paths = (race_files(folder, task.files, kind) for kind in ('validation', 'test'))
        valid, test = (read_questions(task, of_kind) if of_kind else None for of_kind in paths)
    else:
        folder = find_folder(data_dir, task.files, 'validation')
        valid, test = read_kind(task, folder, 'validation', labelled=True), read_test(task, folder)
    splits = {'validation': valid, 'test': test}.items()
    found = [(f'{folder} ({kind})', split) for kind, split in splits if split and split.labels is not None]
    if not found:
        raise ValueError(f'{folder} has no examples with labels')
    for note in (note for _, split in found for note in split.notes):
        print(f'warning: {note}')
    return found


def sst2(data_dir: str) -> list[Problems]:
    """SST-2: `positive` or `negative` after the sentence and `very`."""
    return [Problems(name, [[(f'{sentence} very', word) for word in ('negative', 'positive')]
                            for sentence in split.texts[0]], split.labels)
            for name, split in labelled_splits('sst2', data_dir)]


def race(data_dir: str) -> list[Problems]:
    """RACE: the answer that is the most probable after article and question; middle and high also by themselves."""
    return [Problems(name, [[(f'{article} {question}', answer) for answer in answers]
                            for article, question, *answers in zip(*split.texts, strict=True)],
                     split.labels, split.parts) for name, split in labelled_splits('race', data_dir)]


def find_pronoun(sentence: str, pronoun: str, candidates) -> slice | None:
    """Where the pronoun that is asked for is: its first occurrence after both candidates, else its first; None without.

    51 of the 1,880 sentences of DPRD have it several times, and this is the one that is meant in all of them.
    """
    found = [match.span() for match in re.finditer(rf'(?<!\w){re.escape(pronoun)}(?!\w)', sentence)]
    last = max(sentence.lower().find(candidate.lower()) for candidate in candidates)
    return next((slice(*span) for span in found if span[0] > last), slice(*found[0]) if found else None)


def read_records(path: str) -> Problems:
    """The schemas of DPRD and WSC273: a line each for sentence, pronoun, candidates with a comma, answer, a blank."""
    problems, labels = [], []
    numbered = enumerate(read_lines(path), start=1)
    for is_blank, lines in itertools.groupby(numbered, lambda line: line[1].isspace()):
        if is_blank:
            continue
        numbers, record = zip(*lines, strict=True)
        where = f'{path}, line {numbers[0]}'
        if len(record) != 4:
            raise ValueError(f'{where}: {len(record)} lines up to a blank one, a record has 4: sentence, pronoun, '
                             'candidates, answer')
        sentence, pronoun, candidates, answer = (line.strip() for line in record)
        # in the order of the alphabet, because WSC273 lists the right one first, which an equal score would choose
        candidates = sorted({candidate.strip() for candidate in candidates.split(',')})
        if len(candidates) != 2:
            raise ValueError(f'{where}: {len(candidates)} different candidates between commas, want 2')
        at = find_pronoun(sentence, pronoun, candidates)
        if at is None:
            raise ValueError(f'{where}: {pronoun[:40]!r} is not a word of the sentence')
        if answer not in candidates or not all(map(has_tokens, (*candidates, sentence[at.stop:]))):
            raise ValueError(f'{where}: the answer {answer[:40]!r} is none of the candidates, or one of them or what '
                             'comes after the pronoun is empty')
        problems.append([(sentence[:at.start] + candidate, sentence[at.stop:]) for candidate in candidates])
        labels.append(candidates.index(answer))
    if not problems:
        raise ValueError(f'{path} has no schemas')
    return Problems(path, problems, labels)


def winograd(data_dir: str) -> list[Problems]:
    """Winograd schemas: the candidate for the pronoun after which the rest is more probable."""
    names = ('train.c.txt', 'test.c.txt', 'wsc273.txt')
    paths = [os.path.join(data_dir, folder, name) for folder in ('', 'DPRD', 'WSC273') for name in names]
    files = [read_records(path) for path in paths if is_there(path)]
    if not files:
        raise FileNotFoundError(f'{data_dir} has none of {", ".join(names)}, nor have its folders DPRD and WSC273')
    return files


def cola(data_dir: str) -> list[Problems]:
    """CoLA: the training sentences, then the validation sentences. Each is one text without a context."""
    folder = find_folder(data_dir, TASKS['cola'].files)
    train = read_kind(TASKS['cola'], folder, 'train', labelled=True)
    return [Problems(name, split.texts[0], split.labels)
            for name, split in [(f'{folder} (training)', train), *labelled_splits('cola', folder)]]


def best_threshold(values, labels) -> float:
    """The threshold for which `values > threshold` has the highest Matthews correlation with the labels, 0 or 1.

    It lies halfway between two values; it is -inf, so that all are of class 1, if none beats a constant answer.
    """
    order = np.argsort(-values, kind='stable')
    values, labels = values[order], labels[order].astype(float)
    n, positive = np.arange(1, len(values)), labels.sum()  # (N-1,): the first n are predicted to be 1
    hits = labels.cumsum()[:-1]
    # the correlation of two columns of 0 and 1 from their sums: N * sum(xy) - sum(x) * sum(y), over the deviations
    numerator = len(values) * hits - n * positive
    deviations = np.sqrt(n * (len(values) - n) * positive * (len(values) - positive))
    matthews = np.where(values[:-1] > values[1:], numerator / np.maximum(deviations, 1), 0.)
    if not (matthews > 0).any():
        return -math.inf
    best = matthews.argmax()
    return float(values[best] + values[best + 1]) / 2


def text_means(transformer, encoder, texts) -> np.ndarray:
    """Mean log-probability of the tokens of each text but the first, (N,); 0 for a text of one token or none."""
    found = score_texts(transformer, encoder.n_vocab, encoder.encode(texts, verbose=False))
    return np.array([p.double().mean().item() if len(p) else 0. for p in found])


def blimp(transformer, encoder, data_dir: str, every: int = 1) -> list[float]:
    """Print and return the accuracy of each phenomenon of BLiMP, the mean of its paradigms, and the mean of all.

    data_dir: with a file *.jsonl for each paradigm, or above them. every: take each `every`-th pair.
    """
    folders = [os.path.join(data_dir, folder) for folder in ('', 'data', 'BLiMP/data')]
    paths = [[os.path.join(folder, name) for name in sorted(os.listdir(folder))
              if name.endswith('.jsonl') and not name.startswith(HIDDEN)]
             for folder in folders if is_there(folder, stat.S_ISDIR)]
    if not any(paths):
        raise FileNotFoundError(f'{data_dir} has no *.jsonl: BLiMP has one for each of its 67 paradigms')
    if '\n</w>' not in encoder.encoder:
        raise ValueError('the vocabulary has no newline, after which the sentences are scored')
    newline, of_phenomenon, found, n_cut = encoder.encoder['\n</w>'], defaultdict(list), [], 0
    for path in tqdm(next(filter(None, paths)), ncols=80, leave=False, disable=None):
        rows = [row for _, row in read_rows(path, ('linguistics_term', 'sentence_good', 'sentence_bad'))]
        if not rows:
            raise ValueError(f'{path} has no sentences')
        terms, *sides, _ = zip(*rows[::every], strict=True)
        good, bad = (encoder.encode(side, verbose=False) for side in sides)
        pairs = [[([newline, *ids][:transformer.n_ctx], 1) for ids in pair] for pair in zip(good, bad, strict=True)]
        n_cut += sum(max(map(len, pair)) >= transformer.n_ctx for pair in zip(good, bad, strict=True))
        sums = np.array([[p.double().sum().item() for p in pair]
                         for pair in log_probs(transformer, encoder.n_vocab, pairs, n_batch=256)])
        found.append(100 * float((sums[:, 0] > sums[:, 1]).mean()))
        of_phenomenon[terms[0]].append(found[-1])
    means = {phenomenon: float(np.mean(values)) for phenomenon, values in sorted(of_phenomenon.items())}
    for phenomenon, mean in means.items():
        print(f'blimp {phenomenon} {mean:.2f} on {len(of_phenomenon[phenomenon])} paradigms')
    mean = float(np.mean(found))
    print(f'blimp accuracy {mean:.2f}, mean of {len(found)} paradigms (by chance: 50.00)')
    if n_cut:
        print(f'n_ctx={transformer.n_ctx} is too short for {n_cut} of the pairs: their sentences are cut')
    return [*means.values(), mean]


def perplexity(transformer, encoder, data_dir: str) -> list[float]:
    """Print how well the texts of a folder are predicted; returns nats a token, nats a word and bits a byte of all.

    As pretrain.py reads them: a text is one sequence with a newline token after each line that has tokens. After the
    first n_ctx tokens each scored token follows n_ctx // 2 tokens or more. Words are what is between white space.
    """
    newline, totals = encoder.encoder.get('\n</w>', 0), np.zeros(4)
    for path in tqdm(text_files(data_dir), ncols=80, leave=False, disable=None):
        text = read_text(path)
        ids = [token for line in encoder.encode(text.split('\n'), verbose=False) if line for token in (*line, newline)]
        if len(ids) < 2:
            print(f'{os.path.basename(path)}: no tokens to score')
            continue
        [scores] = score_texts(transformer, encoder.n_vocab, [ids])
        row = np.array([-scores.double().sum().item(), len(scores), len(text.split()), len(text.encode())])
        totals += row
        print_perplexity(os.path.basename(path), *row)
    if not totals.all():
        raise ValueError(f'{data_dir}: the texts are empty')
    return print_perplexity('all texts', *totals)


def print_perplexity(name, nats, n_tokens, n_words, n_bytes) -> list[float]:
    """Print and return the three numbers of `perplexity`."""
    token, word, byte = float(nats / n_tokens), float(nats / n_words), float(nats / math.log(2) / n_bytes)
    print(f'{name}: {n_tokens:.0f} tokens, {token:.3f} nats a token (perplexity {math.exp(min(token, 700)):.2f}), '
          f'{word:.3f} nats a word (perplexity {math.exp(min(word, 700)):.4g}), {byte:.3f} bits a byte')
    return [token, word, byte]


PROBLEMS = {'rocstories': cloze, 'cola': cola, 'race': race, 'sst2': sst2, 'winograd': winograd}  # each takes data_dir


def print_scores(task: str, metric: str, problems: Problems, predictions) -> float:
    """Print the score of all examples and of each part, beside that of the best constant answer; returns the first."""
    labels, found = np.array(problems.labels), []
    n_class = max(labels.max(), predictions.max()) + 1
    for part, where in {'': slice(None), **problems.parts}.items():
        found.append(scores([metric], labels[where], predictions[where])[metric])
        print(f'{task} {metric} {found[-1]:.2f} on {len(labels[where])} examples of {problems.source}'
              f'{part and f", {part}"} (the best constant answer: '
              f'{trivial_score(metric, labels[where], n_class):.2f})')
    return found[0]


def main(args, every: int = 1) -> list[float]:
    """Print and return the accuracy, or for cola the Matthews correlation, in percent, on each file of the task; for
    blimp and perplexity what these functions return. every: as `blimp` takes it."""
    device, autocast = device_of(args)
    trained = open_trained(args)
    transformer, found = fast.use_fast_layers(trained.model.to(device).transformer), []
    if args.dataset not in PROBLEMS:
        with autocast:
            return (blimp(transformer, trained.encoder, args.data_dir, every) if args.dataset == 'blimp' else
                    perplexity(transformer, trained.encoder, args.data_dir))
    files = PROBLEMS[args.dataset](args.data_dir)
    if args.dataset == 'cola':
        with autocast:
            train, *means = (text_means(transformer, trained.encoder, file.problems) for file in files)
        threshold = best_threshold(train, np.array(files[0].labels))
        print(f'cola threshold {threshold:.4f} nats a token, which is the best for the first of these files')
        print_scores('cola', 'matthews', files[0], (train > threshold).astype(int))
        return [print_scores('cola', 'matthews', file, (values > threshold).astype(int))
                for file, values in zip(files[1:], means, strict=True)]
    for file in files:
        with autocast:
            # `negative` may be several tokens, and what counts is the probability of the word
            values, n_cut = mean_log_probs(transformer, trained.encoder, file.problems, file.source,
                                           total=args.dataset == 'sst2')
        found.append(print_scores(args.dataset, 'accuracy', file, values.argmax(1).numpy()))
        if n_cut:
            print(f'n_ctx={transformer.n_ctx} is too short for {n_cut} of them: their texts are cut')
    return found


if __name__ == '__main__':
    run_script(main, args)
