"""Tasks added as rows of TASKS: train.py trains, resumes, predicts and scores each head, fast and with --plain."""

import json
import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference import assert_close
from toy import NO_DROPOUT, TOY, WORDS, toy_argv, toy_stories

import fast
import train
from common.device import Ranks
from common.predict import scores_of
from common.trained import open_trained
from datasets import FORMS, Examples, encode_texts, fit_n_ctx, kept_lengths, sequence_lengths, to_arrays, transform_roc
from model_pytorch import DEFAULT_CONFIG, DoubleHeadModel, dotdict
from scripts import tables
from tasks import TASKS
from tasks.base import NO_LABEL, Split, Task
from tasks.metrics import scores, trivial_score

# Typed by hand: forms and metrics from sections 3.3 and 4 of the paper, the numbers of classes from Hugging Face's data
# sets, names of files and what they have for a class from GLUE's rules for submissions. A tower is ours to choose, but
# not the batch: 32, section 4.1.
FACTS = {  # form, classes, metrics, {part of the test: file}, what the file has for each class, n_batch, n_gpu
    'rocstories': ('choices', ['0', '1'], ['accuracy'], {'': 'ROCStories.tsv'}, ['0', '1'], 8, 4),
    'cola': ('text', ['unacceptable', 'acceptable'], ['matthews', 'accuracy'], {'': 'CoLA.tsv'}, ['0', '1'], 32, 1),
    'sst2': ('text', ['negative', 'positive'], ['accuracy'], {'': 'SST-2.tsv'}, ['0', '1'], 32, 1),
    'mrpc': ('both', ['not_equivalent', 'equivalent'], ['f1', 'accuracy'], {'': 'MRPC.tsv'}, ['0', '1'], 32, 1),
    'stsb': ('both', [], ['pearson', 'spearman'], {'': 'STS-B.tsv'}, [], 32, 1),
    'qqp': ('both', ['not_duplicate', 'duplicate'], ['f1', 'accuracy'], {'': 'QQP.tsv'}, ['0', '1'], 32, 1),
    'mnli': ('pair', ['entailment', 'neutral', 'contradiction'], ['accuracy'],
             {'matched': 'MNLI-m.tsv', 'mismatched': 'MNLI-mm.tsv', 'AX': 'AX.tsv'},
             ['entailment', 'neutral', 'contradiction'], 32, 1),
    'qnli': ('pair', ['entailment', 'not_entailment'], ['accuracy'], {'': 'QNLI.tsv'},
             ['entailment', 'not_entailment'], 32, 1),
    'rte': ('pair', ['entailment', 'not_entailment'], ['accuracy'], {'': 'RTE.tsv'},
            ['entailment', 'not_entailment'], 32, 1),
    'wnli': ('pair', ['not_entailment', 'entailment'], ['accuracy'], {'': 'WNLI.tsv'}, ['0', '1'], 32, 1),
    'snli': ('pair', ['entailment', 'neutral', 'contradiction'], ['accuracy'], {'': 'SNLI.tsv'},
             ['entailment', 'neutral', 'contradiction'], 32, 1),
    'scitail': ('pair', ['entails', 'neutral'], ['accuracy'], {'': 'SciTail.tsv'}, ['entails', 'neutral'], 32, 1),
    'race': ('question', ['A', 'B', 'C', 'D'], ['accuracy'], {'': 'RACE.tsv'}, ['A', 'B', 'C', 'D'], 1, 32),
}
TABLES = {  # of the paper: the scores of its model, in the order of the columns
    '2': {('mnli', 'matched'): 82.1, ('mnli', 'mismatched'): 81.4, ('snli', ''): 89.9, ('scitail', ''): 88.3,
          ('qnli', ''): 88.1, ('rte', ''): 56.0},
    '3': {('rocstories', ''): 86.5, ('race', 'middle'): 62.9, ('race', 'high'): 57.4, ('race', ''): 59.0},
    '4': {('cola', ''): 45.4, ('sst2', ''): 91.3, ('mrpc', ''): 82.3, ('stsb', ''): 82.0, ('qqp', ''): 70.3},
}
TABLE_5 = {  # CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, and their mean
    'full': (45.4, 91.3, 82.3, 82.0, 70.3, 81.8, 88.1, 56.0, 74.7),
    'no_pretraining': (18.9, 84.0, 79.4, 30.9, 65.5, 75.7, 71.2, 53.8, 59.9),
    'no_lm': (47.9, 92.0, 84.9, 83.2, 69.8, 81.1, 86.9, 54.4, 75.0),
}


@pytest.mark.parametrize('name', FACTS)
def test_a_row_is_as_the_paper_and_the_rules_of_glue_have_it(name, tmp_path):
    form, classes, metrics, submission, written, n_batch, n_gpu = FACTS[name]
    task = TASKS[name]
    assert (task.form, [*task.classes], [*task.metrics]) == (form, classes, metrics)
    assert task.submission == submission and [*task.submission] == [*submission]
    one_of_each = torch.eye(len(classes) or 1)
    assert task.answers(one_of_each, (2.4, 1.), task.written) == (written or ['3.400'])
    args = train.parse_args(['--dataset', name, '--model_path', str(tmp_path)])
    assert (args.n_batch, args.n_gpu, args.n_iter, args.lr, args.lr_warmup) == (n_batch, n_gpu, 3, 6.25e-5, 0.002)
    assert (args.lr_schedule, args.lm_coef, args.clf_pdrop, args.n_ctx) == ('warmup_linear', 0.5, 0.1, 512)


def test_all_rows_but_the_made_up_ones_are_checked():
    assert [name for name in TASKS if not name.startswith('sample')] == [*FACTS]
    assert [name for name, task in TASKS.items() if task.zero_shot] == ['rocstories', 'cola', 'sst2', 'race']
    assert TASKS['stsb'].limits == (0, 5) and not any(task.ties_by_cost for task in TASKS.values())


@pytest.mark.parametrize('table', TABLES)
def test_each_table_has_the_tasks_and_the_scores_of_the_paper(table):
    assert tables.parse_args([table]).datasets == [*dict.fromkeys(name for name, _ in TABLES[table])]
    for (name, part), score in TABLES[table].items():
        assert TASKS[name].paper[part]['full'] == score
        assert TASKS[name].paper_set == ('test' if name in ('snli', 'scitail', 'race', 'rocstories') else
                                         'GLUE test of QNLI v1' if name == 'qnli' else 'GLUE test')


@pytest.mark.parametrize('row', TABLE_5)
def test_table_5_has_the_tasks_and_the_scores_of_the_paper(row):
    names = tables.parse_args(['5']).datasets
    assert names == ['cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte']
    *scores_of_row, mean = TABLE_5[row]
    assert [TASKS[name].paper[''][row] for name in names] == scores_of_row
    assert np.mean(scores_of_row) == pytest.approx(mean, abs=0.051)


def test_no_other_score_is_said_to_be_of_the_paper():
    published = {(name, part, row) for name, task in TASKS.items() for part, rows in task.paper.items() for row in rows}
    of_tables = {(*key, 'full') for table in TABLES.values() for key in table}
    of_table_5 = {(name, '', row) for name in tables.parse_args(['5']).datasets for row in TABLE_5}
    assert published == of_tables | of_table_5


N_FIELDS = {'text': 1, 'pair': 2, 'both': 2, 'choices': 4, 'question': 5}  # the last two: with three answers
ROWS = {  # form, classes, metrics
    'text': ('text', ('bad', 'fair', 'good'), ('accuracy',)),
    'pair': ('pair', ('entailment', 'neutral', 'contradiction'), ('accuracy',)),
    'both': ('both', ('no', 'yes'), ('accuracy',)),
    'number': ('both', (), ('pearson', 'spearman')),
    'choices': ('choices', ('A', 'B', 'C'), ('accuracy',)),
    'question': ('question', ('A', 'B', 'C'), ('accuracy',)),
}


def made_up(row, n, seed):
    """A Split of texts of 1 to 6 words; the label is the word that the last text ends with. Some questions have the
    same context."""
    rng = np.random.RandomState(seed)
    form, classes, _ = ROWS[row]
    labels = rng.randint(len(classes) or 5, size=n).tolist()
    fields = [[' '.join(rng.choice(WORDS, rng.randint(1, 7))) for _ in range(n)] for _ in range(N_FIELDS[form])]
    has_answers = form in ('choices', 'question')
    for i, label in enumerate(labels):
        index = label - len(classes) if has_answers else -1  # the right answer ends with the word
        fields[index][i] += f' {WORDS[7 if has_answers else label]}'
        if form == 'question' and i % 3:
            fields[0][i] = fields[0][i - 1]
    return Split(tuple(fields), labels if classes else [label / 2 for label in labels])


TRAINING_NUMBERS = made_up('number', 40, 0).labels


def row_of(splits, form, classes, metrics, submission, **more):
    """A row of TASKS with these three splits, of which the last is also what is read with --predict."""
    return Task(None, form, classes, metrics, submission, loader=lambda task, options: splits,
                reader=lambda task, path, options: splits[-1], **more)


@pytest.fixture(params=ROWS)
def task(request, monkeypatch):
    """The name of a task that is a row of TASKS for this test."""
    form, classes, metrics = ROWS[request.param]
    splits = [made_up(request.param, n, seed) for seed, n in enumerate((40, 10, 11))]
    monkeypatch.setitem(TASKS, 'made_up', row_of(splits, form, classes, metrics, {'': 'made_up.tsv'}))
    return 'made_up'


def run(folder, task, *argv):
    return train.main(train.parse_args(toy_argv(folder, '--dataset', task, '--n_ctx', '20', *argv)))


def test_every_head_trains_fast_as_it_does_plain(task, tmp_path):
    """The losses of 20 updates, the scores of two evaluations and the logits of the test examples."""
    argv = [*NO_DROPOUT, '--analysis', '--lr', '1e-3']
    fast = run(tmp_path, task, '--desc', 'fast', *argv)
    plain = run(tmp_path, task, '--desc', 'plain', '--plain', *argv)
    assert len(fast.losses) == 20 and np.isfinite(fast.losses).all()
    assert_close(torch.tensor(fast.losses), torch.tensor(plain.losses))
    both = [torch.tensor(results.test_logits) for results in (fast, plain)]
    if TASKS[task].head == 'multiple_choice':  # a bias that all choices share has no gradient
        both = [logits.log_softmax(1) for logits in both]
    assert_close(*both)
    assert fast.test_score == pytest.approx(plain.test_score, abs=1e-3)
    for a, b in zip(fast.log, plain.log, strict=True):
        assert a['va_cost'] == pytest.approx(b['va_cost'], abs=1e-5)


def test_every_head_learns_and_predicts_in_the_names_of_its_classes(task, tmp_path, capsys):
    results = run(tmp_path, task, *NO_DROPOUT, '--analysis', '--n_iter', '8', '--lr', '4e-3', '--lm_coef', '0')
    row = TASKS[task]
    first, last = results.losses[0][0], np.mean([loss for loss, _ in results.losses[-10:]])
    assert last < 0.9 * first
    _, *lines = (tmp_path / 'submission' / 'made_up.tsv').read_text().splitlines()
    predictions = [line.split('\t')[1] for line in lines]
    logits = torch.tensor(results.test_logits)
    if row.classes:
        assert logits.shape == (11, len(row.classes))
        assert predictions == [row.classes[i] for i in logits.argmax(1)]
        assert results.test_accuracy == results.test_score
    else:
        mean, std = json.loads((tmp_path / 'save' / task / 'config.json').read_text())['scale']
        assert (mean, std) == (np.mean(TRAINING_NUMBERS), np.std(TRAINING_NUMBERS))
        assert predictions == [f'{x * std + mean:.3f}' for x in logits[:, 0].numpy()] and results.test_accuracy is None
    assert f'made_up Test {row.metrics[0].title()}:  {results.test_score:.2f}' in capsys.readouterr().out
    again = run(tmp_path, task, '--desc', task, '--predict', 'any')
    assert_close(again.logits, logits)
    assert again.scores[row.metrics[0]] == pytest.approx(results.test_score)
    network = open_trained(train.parse_args(['--desc', task, '--predict', 'any', '--save_dir', f'{tmp_path}/save']))
    assert network.config['form'] == row.form and tuple(network.config['classes']) == row.classes


def test_the_batches_of_these_tests_are_ragged(task, tmp_path):
    _, data = train.load_data(train.parse_args(toy_argv(tmp_path, '--dataset', task)))
    X, M = data.train.batch(range(40))
    assert X.shape == (40, data.train.lengths.shape[1], data.n_ctx, 2)
    assert (M.sum(-1) == data.train.lengths).all() and len(set(M.sum(-1).flatten())) > 3
    assert ((X[..., 0] == data.clf_token).sum(-1) == 1).all()


ENCODER = {'a': 0, 'b': 1, '_start_': 2, '_delimiter_': 3, '_classify_': 4}


@pytest.mark.parametrize('form, fields, expected', [
    ('text', [[0, 1]], [[2, 0, 1, 4]]),
    ('pair', [[0], [1, 1]], [[2, 0, 3, 1, 1, 4]]),
    ('both', [[0], [1, 1]], [[2, 0, 3, 1, 1, 4], [2, 1, 1, 3, 0, 4]]),
    ('choices', [[0], [1], [1, 1]], [[2, 0, 3, 1, 4], [2, 0, 3, 1, 1, 4]]),
    ('question', [[0], [0, 1], [1], []], [[2, 0, 0, 1, 3, 1, 4], [2, 0, 0, 1, 3, 4]])])
def test_sequences_of_each_form(form, fields, expected):
    X, M = to_arrays([FORMS[form](*fields)], ENCODER, 8)
    assert [x[m > 0].tolist() for x, m in zip(X[0, ..., 0], M[0], strict=True)] == expected
    assert (X[..., 1] == np.arange(5, 13)).all()


def test_stories_are_packed_as_choices_are():
    fields = [[[0] * 3, [1] * 2], [[1], [0, 0]], [[0], [1] * 4]]
    n_ctx, max_len, n_cut = fit_n_ctx([fields], 20)
    assert (n_ctx, max_len, n_cut) == (2 + 4 + 3, 8, 0)
    examples = Examples('choices', fields, None, ENCODER, n_ctx, max_len)
    for ours, theirs in zip(examples.batch(range(2)), transform_roc(*fields, ENCODER, max_len, n_ctx), strict=True):
        assert (ours == theirs).all()


@pytest.mark.parametrize('form, n_ctx, lengths, expected', [
    ('text', 10, [12], [8]), ('text', 10, [8], [8]),
    ('pair', 9, [9, 2], [4, 2]), ('pair', 9, [2, 9], [2, 4]), ('both', 9, [9, 8], [3, 3]), ('pair', 9, [3, 3], [3, 3]),
    ('choices', 20, [9, 3, 4], [8, 3, 4]), ('choices', 20, [3, 9, 4], [3, 8, 4]),
    ('question', 20, [9, 3, 5, 2], [9, 3, 5, 2]),  # all 17 fit beside three special tokens
    ('question', 20, [99, 3, 5, 2], [9, 3, 5, 2]),  # the context alone is cut
    ('question', 20, [99, 30, 5, 2], [7, 5, 5, 2]),  # and a question, with the answer to half of n_ctx
    ('question', 20, [99, 3, 30, 2], [7, 3, 7, 2]), ('question', 20, [99, 30, 30, 2], [7, 5, 5, 2]),
    ('question', 20, [2, 12, 3, 1], [2, 12, 3, 1]), ('question', 20, [2, 13, 3, 1], [2, 12, 3, 1]),
    ('question', 20, [99, 0, 4, 5], [12, 0, 4, 5])])
def test_what_each_field_keeps(form, n_ctx, lengths, expected):
    assert kept_lengths(form, np.array([lengths]), n_ctx, n_ctx // 2 - 2).tolist() == [expected]


@pytest.mark.parametrize('form', FORMS)
def test_what_is_cut_still_ends_in_the_classify_token(form):
    """What fits is not cut, each text keeps a token, and a second cut to what the first needs changes nothing."""
    rng = np.random.RandomState(0)
    lengths = rng.randint(1, 30, size=(500, N_FIELDS[form]))
    for n_ctx in range(7, 30):
        kept = kept_lengths(form, lengths, n_ctx, n_ctx // 2 - 2)
        needed = sequence_lengths(form, kept).max(1)
        assert needed.max() <= n_ctx and (kept >= 1).all() and (kept <= lengths).all()
        fits = sequence_lengths(form, lengths).max(1) <= n_ctx
        if form != 'choices':  # a story has a length of its own for each field
            assert (kept == lengths)[fits].all() and (needed == n_ctx)[~fits].all()
        assert (kept_lengths(form, lengths, needed.max(), n_ctx // 2 - 2) == kept).all()


class Words:
    """Encodes a text as the ids of its words; remembers the texts."""

    def __init__(self):
        self.encoder, self.seen = {}, []

    def encode(self, texts, verbose=True):
        self.seen += texts
        return [[self.encoder.setdefault(word, len(self.encoder)) for word in text.split()] for text in texts]


def test_examples_that_are_cut_are_counted_for_each_split(tmp_path, monkeypatch, capsys):
    splits = [Split(([' '.join(['cat'] * n) for n in lengths],), [i % 2 for i in range(len(lengths))])
              for lengths in ([3, 30] * 10, [3, 3, 30, 29], [3])]
    row = row_of(splits, 'text', ('no', 'yes'), ('accuracy',), {'': 'x.tsv'})
    monkeypatch.setitem(TASKS, 'made_up', row._replace(reader=lambda task, path, options: splits[1]))
    run(tmp_path, 'made_up', '--n_iter', '1')
    out = capsys.readouterr().out
    for words in ('10 of 20 training', '2 of 4 validation'):
        assert f'warning: {words} examples are longer than n_ctx=20 allows: their texts are cut' in out
    assert 'test examples are longer' not in out
    run(tmp_path, 'made_up', '--predict', 'any')
    assert '2 of 4 examples are longer than the n_ctx=20 of the run allows' in capsys.readouterr().out


def test_each_distinct_text_is_encoded_and_stored_once():
    encoder, fields = Words(), (['a b', 'c', 'a b', ''], ['c', 'a b', 'd e f', 'c'])
    first, second = encode_texts(fields, encoder)
    assert encoder.seen == ['a b', 'c', '', 'd e f'] and first.ids is second.ids and len(first.ids) == 6
    assert [[*first], [*second]] == [[[0, 1], [2], [0, 1], []], [[2], [0, 1], [3, 4, 5], [2]]]
    assert first.ids.dtype == np.uint16 and first.lengths.tolist() == [2, 1, 2, 0]
    assert [[*field] for field in encode_texts(([], ['', '']), encoder)] == [[], [[], []]]


def questions(contexts, n_ctx=40):
    """Examples of the form question with three answers; contexts: a number for each example."""
    rng = np.random.RandomState(1)
    fields = [[' '.join(WORDS[(7 * c + i) % 17] for i in range(6 + c % 3)) for c in contexts],
              *([' '.join(rng.choice(WORDS, rng.randint(0, 4))) for _ in contexts] for _ in range(4))]
    words = Words()
    words.encode([' '.join(WORDS)])
    encoder = {**words.encoder, '_start_': 20, '_delimiter_': 21, '_classify_': 22}
    return Examples('question', encode_texts(fields, words), None, encoder, n_ctx, None)


@pytest.mark.parametrize('n_batch', [1, 4, 6, 100])
def test_questions_about_one_context_are_in_one_group(n_batch):
    contexts = [0, 1, 0, 2, 1, 0, *[3] * 19, 4]
    batches = questions(contexts).batches(len(contexts), n_batch)
    assert sorted(i for batch in batches for i in batch.flat) == list(range(len(contexts)))
    assert max(batch.size for batch in batches) <= n_batch
    groups = [group for batch in batches for group in batch]
    assert all(len({contexts[i] for i in group}) == 1 for group in groups)
    sizes = sorted(len(group) for group in groups)
    assert sizes == {1: [1] * 26, 4: [1, 1, 2, 3, 3, 4, 4, 4, 4], 6: [1, 1, 1, 2, 3, 6, 6, 6],
                     100: [1, 1, 2, 3, 3, 8, 8]}[n_batch]
    assert [len(batch) for batch in questions([0, 1, 2, 3, 4]).batches(4, 3)] == [3, 1]  # the first four of five


def test_a_group_has_the_logits_of_each_question_and_computes_the_context_once(monkeypatch):
    examples = questions([0, 1, 0, 2, 1, 0, 3, 3, 3, 4, 5, 5])
    torch.manual_seed(0)
    model = DoubleHeadModel(dotdict(DEFAULT_CONFIG, n_embd=16, n_head=4, n_layer=2), 22, 'multiple_choice', 63, 40)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    n_rows, hidden_rows = [0], fast.hidden_rows

    def counted(transformer, packing, *args, **kwargs):
        n_rows[0] += len(packing.ids)
        return hidden_rows(transformer, packing, *args, **kwargs)
    monkeypatch.setattr(fast, 'hidden_rows', counted)
    logits, rows = {}, {}

    def logits_of(plain, n_batch, ranks):
        args = SimpleNamespace(n_batch=n_batch, n_gpu=1, plain=plain)
        return train.evaluate(SimpleNamespace(args=args, ranks=ranks, autocast=nullcontext()),
                              model if plain else fast.use_fast_layers(model), examples, 12)
    for name, plain, n_batch, size in (('plain', True, 1, 1), ('alone', False, 6, 1), ('groups', False, 6, 8)):
        monkeypatch.setattr('common.examples.LARGEST_GROUP', size)
        n_rows[0] = 0
        logits[name] = logits_of(plain, n_batch, Ranks())
        rows[name] = n_rows[0]
    assert logits['plain'].std() > 0.02
    assert_close(logits['alone'], logits['plain'], atol=1e-5)
    assert_close(logits['groups'], logits['plain'], atol=1e-5)
    monkeypatch.setattr(Ranks, 'sum', lambda self, logits: logits)  # two processes, one after the other
    both = [Ranks(), Ranks()]
    for rank, ranks in enumerate(both):
        ranks.rank, ranks.size = rank, 2
    parts = [logits_of(False, 6, ranks) for ranks in both]
    assert_close(sum(parts), logits['groups'], atol=1e-6)
    assert all(0 < (part != 0).any(1).sum() < 12 for part in parts)  # each computed some of the questions
    contexts = examples.kept[:, 0] + 1  # with the token _start_
    once = {row: n for row, n in zip(examples.fields[0].rows.tolist(), contexts, strict=True)}
    assert rows['plain'] == 0 and rows['alone'] - rows['groups'] >= contexts.sum() - sum(once.values()) > 40


def test_constant_predictions_have_no_correlation():
    assert scores(['pearson', 'spearman'], [1., 2.], [3., 3.]) == dict(pearson=0, spearman=0)
    assert scores(['pearson'], [1., 2., 4.], [2., 4., 8.])['pearson'] == pytest.approx(100)


def test_the_words_of_stories_belong_to_their_task(toy, tmp_path):
    """Options and messages are the same for all tasks."""
    toy('--desc', 'one')
    config = json.loads((tmp_path / 'save' / 'one' / 'config.json').read_text())
    assert config['form'] == 'choices' and config['classes'] == ['0', '1'] and len(toy_stories(3, 0)) == 4
    assert math.isfinite(config['n_ctx']) and (tmp_path / 'save' / 'one' / 'vocab_40000.bpe').read_bytes() == (
        TOY / 'vocab_40000.bpe').read_bytes()


def two_classes(n, seed, **about):
    """Texts of which the last word is the class, 0 in three of four."""
    labels = [int(i % 4 == 3) for i in range(n)]
    rng = np.random.RandomState(seed)
    return Split(([' '.join([*rng.choice(WORDS[8:], 3), WORDS[label]]) for label in labels],), labels, **about)


@pytest.fixture
def parts(monkeypatch):
    """A task whose validation and test examples have two parts, and whose classes are written in two ways."""
    splits = [two_classes(40, 0, notes=('one row was left out',)),
              two_classes(12, 1, parts={'near': slice(0, 8), 'far': slice(8, 12)}),
              two_classes(10, 2, parts={'near': slice(0, 4), 'far': slice(4, 10)})]
    row = row_of(splits, 'text', ('no', 'yes'), ('f1', 'accuracy'),
                 {'near': 'near.tsv', 'far': 'far.tsv', 'other': 'other.tsv'}, written=('0', '1'))
    monkeypatch.setitem(TASKS, 'made_up', row)
    return splits


def test_parts_are_scored_and_written_by_themselves(parts, tmp_path, capsys):
    results = run(tmp_path, 'made_up', *NO_DROPOUT, '--analysis', '--n_iter', '8', '--lr', '4e-3', '--lm_coef', '0')
    predictions = torch.tensor(results.test_logits).argmax(1).tolist()
    out = capsys.readouterr().out
    assert 'warning: one row was left out' in out and 'made_up Valid F1' in out
    for name, where in (('near', slice(0, 4)), ('far', slice(4, 10))):
        lines = (tmp_path / 'submission' / f'{name}.tsv').read_text().splitlines()
        assert lines == ['index\tprediction', *(f'{i}\t{p}' for i, p in enumerate(predictions[where]))]
    assert not (tmp_path / 'submission' / 'other.tsv').exists()
    line = json.loads((tmp_path / 'log' / 'made_up.jsonl').read_text().splitlines()[-1])
    values = scores(['f1', 'accuracy'], parts[2].labels, predictions)
    assert line['test_score'] == line['test_f1'] == results.test_score == pytest.approx(values['f1'])
    assert line['test_acc'] == pytest.approx(values['accuracy']) and max(predictions) == 1
    far = scores(['f1'], parts[2].labels[4:], predictions[4:])['f1']
    assert line['test_score_far'] == pytest.approx(far)
    assert results.valid_trivial == pytest.approx(100 * 2 * 3 / (12 + 3))  # F1 of always `yes`, 3 of 12
    assert f'(the best constant answer: {results.valid_trivial:.2f})' in out
    again = run(tmp_path, 'made_up', '--predict', 'any')
    header, row = open(again.path).read().splitlines()[:2]
    assert header.split('\t') == ['index', 'prediction', 'no', 'yes']
    assert row.split('\t')[1] == ('no', 'yes')[predictions[0]]


def test_examples_without_a_gold_label_are_predicted_but_not_scored(parts, tmp_path):
    labels = parts[2].labels
    parts[2] = parts[2]._replace(labels=[NO_LABEL if i in (1, 7) else label for i, label in enumerate(labels)])
    results = run(tmp_path, 'made_up', *NO_DROPOUT, '--analysis', '--n_iter', '4', '--lr', '4e-3', '--lm_coef', '0')
    kept = [i for i in range(10) if i not in (1, 7)]
    logits, gold = torch.tensor(results.test_logits), [labels[i] for i in kept]
    assert len(logits) == 10 and results.test_score == pytest.approx(scores(['f1'], gold, logits.argmax(1)[kept])['f1'])
    cost = torch.nn.functional.cross_entropy(logits[kept], torch.tensor(gold)).item()
    assert results.test['test_cost'] == pytest.approx(cost, rel=1e-5)
    assert results.test_trivial == pytest.approx(trivial_score('f1', gold, 2))
    assert len((tmp_path / 'submission' / 'far.tsv').read_text().splitlines()) == 1 + 6
    again = run(tmp_path, 'made_up', '--predict', 'any')
    assert len(again.logits) == 10 and again.scores['f1'] == pytest.approx(results.test_score)


def test_a_network_with_one_answer_for_all_is_named(parts, tmp_path, capsys):
    results = run(tmp_path, 'made_up', *NO_DROPOUT, '--n_iter', '1', '--lr', '0')
    assert results.degenerate == ('the same answer' in capsys.readouterr().out)
    assert results.degenerate and results.valid_score in (0, results.valid_trivial)


def test_a_task_may_have_no_test_file(parts, tmp_path, monkeypatch, capsys):
    row = TASKS['made_up']._replace(loader=lambda task, options: (*parts[:2], None))
    monkeypatch.setitem(TASKS, 'made_up', row)
    results = run(tmp_path, 'made_up', '--analysis', '--n_iter', '1')
    assert 'warning: there is no test file' in capsys.readouterr().out and results.test_score is None
    assert not (tmp_path / 'submission').exists()


def test_predictions_of_an_earlier_run_are_kept(parts, tmp_path):
    argv = ['--submit', '--n_iter', '1', '--lr', '1e-2']
    run(tmp_path, 'made_up', *argv, '--seed', '1')
    before = (tmp_path / 'submission' / 'near.tsv').read_text()
    run(tmp_path, 'made_up', *argv, '--seed', '2', '--desc', 'other')
    assert (tmp_path / 'submission' / 'near.1.tsv').read_text() == before
    assert (tmp_path / 'submission' / 'near.tsv').exists()


def test_all_numbers_equal_is_an_error(tmp_path, monkeypatch):
    splits = [made_up('number', n, seed) for seed, n in enumerate((40, 10, 11))]
    splits[0] = splits[0]._replace(labels=[2.5] * 40)
    row = row_of(splits, 'both', (), ('pearson',), {'': 'made_up.tsv'})
    monkeypatch.setitem(TASKS, 'made_up', row)
    with pytest.raises(ValueError, match='all 40 training examples have the same number, 2.5'):
        run(tmp_path, 'made_up')
    splits[0] = splits[0]._replace(labels=[0.1] * 40)  # whose deviation is not 0 in floating point
    with pytest.raises(ValueError, match='have the same number, 0.1'):
        run(tmp_path, 'made_up')


def test_a_complete_run_of_other_data_is_not_taken_for_this_one(parts, tmp_path):
    run(tmp_path, 'made_up', '--n_iter', '1')
    assert run(tmp_path, 'made_up', '--n_iter', '1', '--resume').n_updates == 10
    parts[2] = parts[2]._replace(labels=parts[2].labels[::-1])
    with pytest.raises(ValueError, match='results.json: the complete run had other data'):
        run(tmp_path, 'made_up', '--n_iter', '1', '--resume')


def test_numbers_are_written_within_their_limits():
    row = Task(None, 'both', (), ('pearson',), {}, limits=(0., 5.))
    logits = torch.tensor([[-3.], [0.5], [3.]])
    assert row.answers(logits, (2., 1.5)) == ['0.000', '2.750', '5.000']
    assert row._replace(limits=()).answers(logits, (2., 1.5)) == ['-2.500', '2.750', '6.500']
    assert row._replace(limits=()).answers(logits, (2e-4, 1e-4)) == ['-0.000100', '0.000250', '0.000500']
    assert row._replace(limits=()).answers(logits, (1.7e9, 20.)) == [
        '1699999940.000', '1700000010.000', '1700000060.000']


def test_the_score_is_that_of_the_numbers_that_are_written():
    """Within the limits: GLUE scores the file."""
    logits, labels, scale = torch.tensor([[-9.], [0.], [1.], [9.]]), np.array([-1., 0., 1., 0.5]), (3., 1.)
    found = scores_of(TASKS['stsb'], logits, labels, scale, {})
    written = np.array(TASKS['stsb'].answers(logits, scale), float)
    assert written.tolist() == [0, 3, 4, 5]
    assert found['score'] == pytest.approx(100 * np.corrcoef(labels, written)[0, 1])


def test_the_folder_of_a_task_comes_before_files_beside_it(tmp_path):
    """These may be of another task with the same columns."""
    (tmp_path / 'RTE').mkdir()
    for folder in (tmp_path, tmp_path / 'RTE'):
        for kind in ('train', 'dev'):
            (folder / f'{kind}.tsv').write_text(f'sentence1\tsentence2\tlabel\nin {folder.name}\tb\tentailment\n')
    options = SimpleNamespace(data_dir=str(tmp_path))
    assert TASKS['rte'].load(options)[0].texts[0] == ['in RTE']


def test_metrics_are_those_of_the_paper():
    labels, predictions = [1, 1, 1, 0, 0, 1], [1, 0, 1, 1, 0, 1]  # 3 true and 1 false positive, 1 false negative
    values = scores(['accuracy', 'f1', 'matthews'], labels, predictions)
    assert values == pytest.approx(dict(accuracy=100 * 4 / 6, f1=75, matthews=100 * (3 - 1) / np.sqrt(4 * 4 * 2 * 2)))
    assert scores(['matthews', 'f1'], labels, [0] * 6) == dict(matthews=0, f1=0)
    assert scores(['spearman'], [1, 2, 3], [1, 10, 100])['spearman'] == pytest.approx(100)
    assert trivial_score('f1', labels, 2) == pytest.approx(80) and trivial_score('matthews', labels, 2) == 0
    assert trivial_score('accuracy', [2, 2, 0], 3) == pytest.approx(100 * 2 / 3)
    assert trivial_score('pearson', [1., 2.], 0) == 0
