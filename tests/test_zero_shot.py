"""Log-probabilities against numbers computed by hand and the plain model, and the zero-shot tasks."""

import json
import math

import numpy as np
import pytest
import torch
from reference import assert_close, toy_language_model
from toy import HEADER, TOY, toy_stories, write

import fast
import generate
import zero_shot
from common.trained import open_trained
from datasets import TEST_NAME, VAL_NAME
from model_pytorch import DEFAULT_CONFIG, TransformerModel, dotdict
from tasks.metrics import METRICS
from zero_shot import best_threshold, log_probs, mean_log_probs, score_texts, windows, with_positions

SIZE = ['--model_path', str(TOY), '--n_embd', '16', '--n_head', '4', '--n_layer', '3', '--device', 'cpu']
N_VOCAB = 124


def score_args(*argv):
    return generate.parse_args([*SIZE, '--score', *argv])


def task_args(task, folder, *argv):
    return zero_shot.parse_args(['--dataset', task, '--data_dir', str(folder), *SIZE, *argv])


@pytest.fixture
def toy():
    return toy_language_model()


def test_each_token_is_scored_by_what_precedes_it():
    """A network without blocks or positions, three tokens: after 0 the logits are (1, 0, 0), after 1 they are
    (0, 1, 0), after 2 they are all 0, so that the text 0 0 2 1 has the probabilities e/(e+2), 1/(e+2) and 1/3."""
    network = TransformerModel(dotdict(DEFAULT_CONFIG, n_embd=2, n_layer=0), vocab=3 + 4, n_ctx=4).eval()
    with torch.no_grad():
        network.embed.weight.copy_(torch.tensor([[1., 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]]))
    e = math.e
    [scores] = score_texts(network, 3, [[0, 0, 2, 1]])
    assert_close(scores, torch.tensor([e / (e + 2), 1 / (e + 2), 1 / 3]).log(), atol=1e-6)
    [[ending]] = log_probs(network, 3, [[([0, 0, 2, 1], 3)]])
    assert_close(ending, torch.tensor([1 / 3]).log(), atol=1e-6)


def plain_log_probs(transformer, ids, first):
    """The same from all logits, one sequence at a time."""
    with torch.no_grad():
        logits = transformer(with_positions(transformer, torch.tensor([ids])))[0] @ transformer.embed.weight[:N_VOCAB].T
    return logits.log_softmax(-1)[torch.arange(first - 1, len(ids) - 1), torch.tensor(ids[first:], dtype=torch.long)]


def test_shared_and_packed_steps_give_the_plain_models_numbers(toy, monkeypatch):
    """40 examples of two choices with a common beginning, 4 to 24 tokens long; chunks of 7 rows."""
    monkeypatch.setattr(fast, 'LM_CHUNK', 7)
    transformer, _ = toy
    draw = torch.Generator().manual_seed(3)
    examples = []
    for i in range(40):
        length, first = 3 + i % 20, 1 + i % 3
        ids = torch.randint(N_VOCAB, (length,), generator=draw).tolist()
        examples.append([(ids + [5], first), (ids + [7] * (1 + i % 2), first + 1)])
    for choices, results in zip(examples, log_probs(transformer, N_VOCAB, examples), strict=True):
        for (ids, first), scores in zip(choices, results, strict=True):
            assert_close(scores, plain_log_probs(transformer, ids, first), atol=1e-5)


def test_probabilities_of_all_tokens_add_up_to_one(toy):
    transformer, _ = toy
    results = log_probs(transformer, N_VOCAB, [[([40, 64, i], 2)] for i in range(N_VOCAB)])
    assert sum(scores.exp().item() for [scores] in results) == pytest.approx(1, abs=1e-5)


def test_a_long_text_is_scored_in_windows(toy):
    transformer, _ = toy
    for n in (0, 1, 2, 9, 10, 11, 15, 16, 37):
        text, scored = list(range(n)), []
        for [(ids, first)] in windows(text, 10):
            assert len(ids) <= 10 and first >= (1 if ids[0] == 0 else 5)
            scored += ids[first:]
        assert scored == text[1:]
    text = torch.randint(N_VOCAB, (50,), generator=torch.Generator().manual_seed(0)).tolist()
    [scores] = score_texts(transformer, N_VOCAB, [text])
    assert_close(scores[:23], plain_log_probs(transformer, text[:24], 1), atol=1e-5)
    assert_close(scores[23:35], plain_log_probs(transformer, text[12:36], 12), atol=1e-5)
    assert len(scores) == 49


def test_score_prints_each_line_and_the_total(tmp_path, capsys):
    path = tmp_path / 'text.txt'
    path.write_text('the cat sat.\n\nI\nmom found a ball\n', encoding='utf-8')
    scores = generate.main(score_args(str(path), '--per_token'))
    header, *lines = (line.split('\t') for line in capsys.readouterr().out.splitlines())
    tokens, lines = [line for line in lines if not line[0]], [line for line in lines if line[0]]
    assert header == ['line', 'tokens', 'log-probability (nats)', 'per token', 'perplexity']
    assert [line[0] for line in lines] == ['1', '3', '4', 'total'] and [len(s) for s in scores] == [4, 0, 3]
    trained = open_trained(score_args(str(path)))
    transformer, encoder = trained.model.transformer, trained.encoder
    [ids] = encoder.encode(['the cat sat.'])
    expected = plain_log_probs(transformer, ids, 1)
    assert [float(p) for *_, p in tokens[:4]] == pytest.approx(expected.tolist(), abs=1e-4)
    assert [token for _, token, _ in tokens[:4]] == [repr(encoder.decoder[i]) for i in ids[1:]]
    assert [float(x) for x in lines[0][1:]] == pytest.approx(
        [4, expected.sum().item(), expected.mean().item(), math.exp(-expected.mean())], abs=1e-2)
    everything = torch.cat(scores)
    assert [float(x) for x in lines[3][1:]] == pytest.approx(
        [7, everything.sum().item(), everything.mean().item(), math.exp(-everything.mean())], abs=1e-2)
    assert lines[1][1:] == ['0', '0.0000', 'nan', 'nan']


@pytest.mark.parametrize('data, words', [(b'', 'has no text'), (b'\xef\xbb\xbf \n\n', 'has no text'),
                                         (b'cat\xff\xfe', 'line 1: byte 0xff is not UTF-8')])
def test_a_file_without_text_gets_one_line(tmp_path, data, words):
    (tmp_path / 'bad.txt').write_bytes(data)
    with pytest.raises(ValueError, match=words):
        generate.main(score_args(str(tmp_path / 'bad.txt')))
    with pytest.raises(FileNotFoundError):
        generate.main(score_args(str(tmp_path / 'absent.txt')))


def test_a_line_without_tokens_is_named(tmp_path, capsys):
    """`&nbsp;` is not a blank line, but cleaning makes it one."""
    path = tmp_path / 'text.txt'
    path.write_bytes('\ufeffmom dad\r\n\r\n&nbsp;\r\nmom dad\n'.encode())
    scores = generate.main(score_args(str(path)))
    shown = capsys.readouterr()
    assert [len(p) for p in scores] == [1, 0, 1]
    assert [line.split('\t')[0] for line in shown.out.splitlines()[1:]] == ['1', '3', '4', 'total']
    assert shown.err == f'{path}, line 3: no tokens, so no score\n'


def test_scores_that_are_not_finite_end_the_run(toy):
    """No ending is chosen from numbers that are not finite."""
    transformer, encoder = toy
    with torch.no_grad():
        transformer.h[0].mlp.c_fc.b[0] = torch.nan
    with pytest.raises(ArithmeticError, match='log-probabilities are not finite'):
        score_texts(transformer, N_VOCAB, [[40, 64, 84]])
    with pytest.raises(ArithmeticError, match='log-probabilities are not finite'):
        mean_log_probs(transformer, encoder, [[('cat', 'dad'), ('cat', 'mom')]])


def test_a_network_of_one_position_has_no_scores(tmp_path):
    (tmp_path / 'text.txt').write_text('the cat')
    with pytest.raises(ValueError, match='n_ctx=1: must be at least 2'):
        generate.main(score_args(str(tmp_path / 'text.txt'), '--n_ctx', '1'))


def test_rocstories_takes_the_ending_with_the_higher_mean(tmp_path, capsys):
    rows = [row[:5] + [row[5] + ' and old dad', *row[6:]] for row in toy_stories(12, 0)[1:]]
    write(tmp_path / VAL_NAME, [HEADER, *rows])
    write(tmp_path / TEST_NAME, [row[:-1] for row in toy_stories(3, 1)])
    args = task_args('rocstories', tmp_path)
    [accuracy] = zero_shot.main(args)                   # the test file has no labels
    trained, right = open_trained(args), []
    transformer, encoder = trained.model.transformer, trained.encoder
    for _, *sentences, ending1, ending2, label in rows:
        [story, *endings] = encoder.encode([' '.join(sentences), ending1, ending2])
        story = story[-(24 - max(map(len, endings))):]
        means = [plain_log_probs(transformer, story + ending, len(story)).mean() for ending in endings]
        right.append(int(means[1] > means[0]) + 1 == int(label))
    assert accuracy == pytest.approx(100 * sum(right) / 12) and 0 < accuracy < 100
    out = capsys.readouterr().out.splitlines()
    assert out == [f'rocstories accuracy {accuracy:.2f} on 12 examples of {tmp_path / VAL_NAME} (the best constant '
                   'answer: 50.00)'] + out[1:]


def test_files_without_labels_are_refused(tmp_path):
    for name in (VAL_NAME, TEST_NAME):
        write(tmp_path / name, [row[:-1] for row in toy_stories(3, 1)])
    with pytest.raises(ValueError, match='neither of the two Story Cloze files has labels'):
        zero_shot.main(task_args('rocstories', tmp_path))


def test_texts_that_do_not_fit_are_cut_and_counted(toy):
    """The beginning of a context, and the end of a continuation of n_ctx tokens or more."""
    transformer, encoder = toy
    story, ending = 'cat dad mom ball park ' * 10, 'mom ' * 30
    problems = [[(story, 'happy'), (story, 'sad mom')], [('cat', 'dad'), ('cat dad', ending)], [('cat', 'dad')] * 2,
                [('cat', 'dad'), ('cat', ending)]]
    means, n_cut = mean_log_probs(transformer, encoder, problems)
    ids = encoder.encode([story, 'happy', 'sad mom', 'dad', ending])
    assert n_cut == 3 and len(ids[4]) == 30
    for k, ids_of_ending in enumerate(ids[1:3]):
        kept = ids[0][-(24 - len(ids_of_ending)):]
        assert_close(means[0, k], plain_log_probs(transformer, kept + ids_of_ending, len(kept)).mean(), atol=1e-5)
    assert_close(means[1, 1], plain_log_probs(transformer, ids[3] + ids[4][:23], 1).mean(), atol=1e-5)
    with pytest.raises(ValueError, match="x.csv, example 2: '&nbsp;' has no tokens"):
        mean_log_probs(transformer, encoder, [[('cat', 'dad')] * 2, [('&nbsp;', 'mom'), ('cat', 'dad')]], 'x.csv')


@pytest.mark.parametrize('total', [False, True])
def test_an_empty_continuation_is_never_chosen(toy, total):
    """RACE has options without text."""
    values, _ = mean_log_probs(*toy, [[('cat', ' '), ('cat', 'dad')], [('dad', 'cat'), ('dad', '')]], total=total)
    assert values.isneginf().tolist() == [[True, False], [False, True]]


def test_the_probability_of_a_word_is_that_of_all_its_tokens(toy):
    """The toy vocabulary has `positive` and `negative` only as letters; the mean would favour the longer one."""
    transformer, encoder = toy
    problems = [[('the cat very', word) for word in ('dad', 'sad mom')]]
    totals, _ = mean_log_probs(transformer, encoder, problems, total=True)
    context, *words = encoder.encode(['the cat very', 'dad', 'sad mom'])
    assert len(words[0]) < len(words[1])
    for value, word in zip(totals[0], words, strict=True):
        assert_close(value, plain_log_probs(transformer, context + word, len(context)).sum(), atol=1e-5)


def test_a_model_in_training_mode_is_refused(toy):
    transformer, encoder = toy
    transformer.train()
    with pytest.raises(ValueError, match='call its eval'):
        score_texts(transformer, encoder.n_vocab, encoder.encode(['the cat']))
    with pytest.raises(ValueError, match='call its eval'):
        next(generate.sample(transformer, encoder.n_vocab, encoder.encode(['the cat'])[0], 2))




def test_cuts_are_printed(tmp_path, capsys):
    rows = toy_stories(3, 0)
    rows[2][5] = 'mom ' * 30
    write(tmp_path / VAL_NAME, rows)
    write(tmp_path / TEST_NAME, [row[:-1] for row in toy_stories(3, 1)])
    zero_shot.main(task_args('rocstories', tmp_path))
    assert capsys.readouterr().out.splitlines()[1:] == [
        'n_ctx=24 is too short for 1 of them: their texts are cut']


def test_sst2_asks_for_very_positive_or_very_negative(tmp_path, capsys, monkeypatch):
    totals = []
    (tmp_path / 'dev.tsv').write_text('sentence\tlabel\na "good day \t1\nold rain \t0\nsad rain\t0\n', encoding='utf-8')
    (tmp_path / 'test.tsv').write_text('index\tsentence\n0\tthe cat\n', encoding='utf-8')
    [(source, problems, labels, parts)] = zero_shot.sst2(str(tmp_path))        # the test has no labels
    assert problems[:2] == [[('a "good day very', 'negative'), ('a "good day very', 'positive')],
                            [('old rain very', 'negative'), ('old rain very', 'positive')]]
    assert (source, labels, parts) == (f'{tmp_path} (validation)', [1, 0, 0], {})
    monkeypatch.setattr(zero_shot, 'mean_log_probs', lambda *args, total, choose=zero_shot.mean_log_probs: (
        totals.append(total), choose(*args, total=total))[1])
    [accuracy] = zero_shot.main(task_args('sst2', tmp_path))
    assert totals == [True]
    assert capsys.readouterr().out == (f'sst2 accuracy {accuracy:.2f} on 3 examples of {tmp_path} (validation) '
                                       '(the best constant answer: 66.67)\n')


def write_passage(path, n, **changes):
    """A file of RACE with n questions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passage = dict(article='old sad day ' * 8 + '.\nmom found a ball', id='x.txt', answers=['B', 'D', 'D'][:n],
                   questions=['the cat found _ .', 'who sat ?', 'mom likes'][:n],
                   options=[['dad', 'mom', 'a ball', 'rain'], ['the cat', 'old dad', 'sad mom', 'a day'],
                            ['rain', '', 'dad', 'the park']][:n])
    path.write_text(json.dumps({**passage, **changes}), encoding='utf-8')


def test_race_takes_the_most_probable_answer_after_article_and_question(tmp_path, capsys):
    write_passage(tmp_path / 'RACE' / 'dev' / 'middle' / '3.txt', 3)
    write_passage(tmp_path / 'RACE' / 'dev' / 'high' / '1.txt', 2)
    [(source, problems, labels, parts)] = zero_shot.race(str(tmp_path))
    assert problems[0] == [(f'{"old sad day " * 8}.\nmom found a ball the cat found _ .', answer)
                           for answer in ('dad', 'mom', 'a ball', 'rain')]
    assert labels == [1, 3, 3, 1, 3] and parts == {'middle': slice(0, 3), 'high': slice(3, 5)}
    assert 'RACE/dev/middle/3.txt, question 3: option B is empty' in capsys.readouterr().out
    trained = open_trained(task_args('race', tmp_path))
    transformer, encoder, chosen = trained.model.transformer, trained.encoder, []
    for choices in problems:
        [context, *answers] = encoder.encode([choices[0][0], *(answer for _, answer in choices)])
        means = [plain_log_probs(transformer, kept + answer, len(kept)).mean() if answer else -math.inf
                 for answer in answers for kept in [context[-(24 - len(answer)):]]]
        chosen.append(max(range(4), key=means.__getitem__))
    right = [answer == label for answer, label in zip(chosen, labels, strict=True)]
    [accuracy] = zero_shot.main(task_args('race', tmp_path))
    assert accuracy == pytest.approx(100 * sum(right) / 5)
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f'race accuracy {100 * sum(of) / len(of):.2f} on {len(of)} examples of {source}{part} (the best constant '
        f'answer: {constant})' for of, part, constant in ((right, '', '60.00'), (right[:3], ', middle', '66.67'),
                                                  (right[3:], ', high', '50.00'))]
    assert lines[3:] == ['n_ctx=24 is too short for 5 of them: their texts are cut']


def matthews(labels, above):
    return 100 * METRICS['matthews'](labels, above.astype(int))


def brute_force(values, labels):
    """The best Matthews correlation of all thresholds, by the definition."""
    best = 0.
    for threshold in values:
        best = max(best, matthews(labels, values > threshold))
    return best


def test_the_threshold_is_the_best_of_all():
    draw = np.random.RandomState(0)
    for i in range(60):
        n, unit = 3 + i % 20, 1 if i % 2 else 7
        values, labels = draw.randint(-6, 0, n) / unit, np.append(draw.randint(0, 2, n - 2), [0, 1])
        threshold = best_threshold(values, labels)
        found = matthews(labels, values > threshold)
        assert found == pytest.approx(brute_force(values, labels)) and threshold not in values
    assert best_threshold(np.array([-3., -1., -2., -4.]), np.array([0, 1, 1, 0])) == -2.5
    assert best_threshold(np.array([-3., -1., -2., -4.]), np.array([1, 0, 0, 1])) == -math.inf     # worse than constant
    assert best_threshold(np.array([-2., -2.]), np.array([0, 1])) == -math.inf
    assert best_threshold(np.array([-2.]), np.array([1])) == -math.inf


def test_cola_applies_the_threshold_of_the_training_sentences(tmp_path, capsys):
    texts = ['the cat sat', 'cat the', 'mom and dad like the park', 'rain rain', 'dad', 'old sad day', 'a friend']
    rows = [(text, i % 2) for i, text in enumerate(texts)]
    for name, some in (('train.tsv', rows), ('dev.tsv', rows[1:6])):
        (tmp_path / name).write_text(''.join(f'x\t{label}\t\t{text}\n' for text, label in some), encoding='utf-8')
    (tmp_path / 'test.tsv').write_text('index\tsentence\n0\tthe cat\n', encoding='utf-8')
    [found] = zero_shot.main(task_args('cola', tmp_path))
    trained = open_trained(task_args('cola', tmp_path))
    encoder, transformer, labels = trained.encoder, trained.model.transformer, np.array([label for _, label in rows])
    values = np.array([plain_log_probs(transformer, ids, 1).mean().item() if len(ids) > 1 else 0.
                       for ids in encoder.encode(texts)])              # `dad` is one token
    threshold = best_threshold(values, labels)
    expected = [matthews(labels[part], values[part] > threshold)
                for part in (slice(None), slice(1, 6))]
    assert found == pytest.approx(expected[1]) and expected[0] == pytest.approx(brute_force(values, labels))
    assert capsys.readouterr().out.splitlines() == [
        f'cola threshold {threshold:.4f} nats a token, which is the best for the first of these files',
        f'cola matthews {expected[0]:.2f} on 7 examples of {tmp_path} (training) (the best constant answer: 0.00)',
        f'cola matthews {expected[1]:.2f} on 5 examples of {tmp_path} (validation) (the best constant answer: 0.00)']


@pytest.mark.parametrize('text', [
    'sentence\tlabel\nit is good\t1\nbad\t0\n\n', '\nsentence\tlabel\n\nit is good\t1\n\t\nbad\t0',
    'Sentence\tLabel\nit is good\t1\nbad\t0\n', '\ufeffLABEL\tindex\t Sentence\r\n1\t7\tit is good\r\n0\t8\tbad\r\n'])
def test_blank_lines_and_capitals_are_read(tmp_path, text):
    (tmp_path / 'dev.tsv').write_bytes(text.encode())
    [(_, problems, labels, _)] = zero_shot.sst2(str(tmp_path))
    assert [choices[0][0] for choices in problems] == ['it is good very', 'bad very'] and labels == [1, 0]


RECORDS = ('The cat saw dad because it was old.\nit\ndad,The cat\nThe cat\n\n'
           'Mom asked dad if [MASK]  was sad. \n[MASK]\n Mom , dad \n dad \n\n')


@pytest.mark.parametrize('text', [RECORDS, RECORDS.rstrip(), RECORDS.replace('\n', '\r\n'), f'\ufeff\n{RECORDS}\n\n'])
def test_records_of_five_lines_are_read(tmp_path, capsys, text):
    """DPRD and WSC273; candidates come in the order of the alphabet."""
    for name in ('DPRD/train.c.txt', 'WSC273/wsc273.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding='utf-8', newline='')
    files = zero_shot.winograd(str(tmp_path))
    assert [file.source for file in files] == [str(tmp_path / 'DPRD/train.c.txt'), str(tmp_path / 'WSC273/wsc273.txt')]
    assert files[0].problems == [
        [('The cat saw dad because The cat', ' was old.'), ('The cat saw dad because dad', ' was old.')],
        [('Mom asked dad if Mom', '  was sad.'), ('Mom asked dad if dad', '  was sad.')]]
    assert files[0].labels == [0, 1] and files[0][1:] == files[1][1:]
    assert len(zero_shot.main(task_args('winograd', tmp_path))) == 2
    assert capsys.readouterr().out.count(' on 2 examples of ') == 2


@pytest.mark.parametrize('sentence, before', [
    ('Mom saw dad as he was sad that he sat.', 'Mom saw dad as '), ('Near he then, mom saw Dad.', 'Near '),
    ('He said they like mom, but they saw dad. they', 'He said they like mom, but they saw dad. ')])
def test_the_pronoun_after_both_candidates_is_meant(sentence, before):
    pronoun = sentence[len(before):].split()[0].strip('.')
    at = zero_shot.find_pronoun(sentence, pronoun, ['mom', 'dad'])
    assert sentence[:at.start] == before and sentence[at] == pronoun
    assert zero_shot.find_pronoun('Mom saw dad there', 'he', ['mom', 'dad']) is None


FILES = {'sst2': 'dev.tsv', 'winograd': 'test.c.txt', 'race': 'dev/high/1.txt'}


@pytest.mark.parametrize('kind, text, words', [
    ('sst2', None, 'has no validation file of SST-2: looked for dev, '),
    ('sst2', '', 'dev.tsv, line 1: no column sentence'),
    ('sst2', 'sentence\tlabel\n', 'dev.tsv has no examples'),
    ('sst2', 'text\tlabel\nx\t1\n', 'dev.tsv, line 1: no column sentence'),
    ('sst2', 'sentence\tlabel\na\t1\nb\n', 'dev.tsv, line 3: 1 columns, not 2'),
    ('sst2', 'sentence\tlabel\na\t2\n', "dev.tsv, line 2: label '2' is not one of"),
    ('winograd', None, 'has none of train.c.txt, test.c.txt, wsc273.txt'),
    ('winograd', '\n\n', 'test.c.txt has no schemas'),
    ('winograd', RECORDS + 'a\nb\nc\n\n', 'test.c.txt, line 11: 3 lines up to a blank one, a record has 4'),
    ('winograd', RECORDS[:-1] + RECORDS, 'test.c.txt, line 6: 8 lines up to a blank one'),
    ('winograd', RECORDS.replace('dad,The cat', 'The cat'), 'line 1: 1 different candidates between commas, want 2'),
    ('winograd', RECORDS.replace('dad,The cat', '\x01,The cat'), 'line 1: the answer .* or one of them'),
    ('winograd', RECORDS.replace(' dad \n\n', 'x\n\n'), "line 6: the answer 'x' is none of the candidates"),
    ('winograd', RECORDS.replace('it\n', 'its\n'), "line 1: 'its' is not a word of the sentence"),
    ('winograd', RECORDS.replace('it was old.', 'it'), 'line 1: the answer .* what comes after the pronoun is empty'),
    ('race', None, 'has no validation file of RACE: looked for dev/middle/'),
    ('race', '{"article": "x"}', '1.txt is no passage of RACE'),
    ('rocstories', None, 'has no Story Cloze val file')])
def test_a_wrong_file_gets_one_line(tmp_path, kind, text, words):
    if text is not None:
        path = tmp_path / FILES[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    with pytest.raises((ValueError, OSError), match=words) as error:
        zero_shot.main(task_args(kind, tmp_path))
    assert '\n' not in str(error.value)


def test_files_without_labels_have_no_score(tmp_path):
    write_passage(tmp_path / 'dev' / 'middle' / '1.txt', 1, answers=[''])
    with pytest.raises(ValueError, match='has no examples with labels'):
        zero_shot.main(task_args('race', tmp_path))


def test_options_without_effect_are_refused():
    with pytest.raises(ValueError, match='--model_path has no effect with --desc'):
        zero_shot.parse_args(['--dataset', 'sst2', '--desc', 'x', '--model_path', 'model/'])
    with pytest.raises(ValueError, match='--dataset'):
        zero_shot.parse_args([])


def test_blimp_compares_sums_after_a_newline_by_phenomenon(toy, tmp_path, capsys):
    """Two paradigms of one phenomenon and one of another; unlike a mean, a sum prefers the shorter of two sentences."""
    def row(term, good, bad):
        return json.dumps(dict(linguistics_term=term, sentence_good=good, sentence_bad=bad)) + '\n'

    tmp_path /= 'BLiMP [1]'  # not a pattern
    (tmp_path / 'data').mkdir(parents=True)
    pairs = {'a_1': [('agreement', 'the cat sat', 'the cat sat and dad'), ('agreement', 'dad and the cat sat', 'dad')],
             'a_2': [('agreement', 'mom sad', 'mom sad day'), ('agreement', 'old', 'old day')],
             'b': [('islands', 'the ball and the day', 'ball')]}
    for name, rows in pairs.items():
        (tmp_path / 'data' / f'{name}.jsonl').write_text(''.join(row(*pair) for pair in rows))
    found = zero_shot.main(task_args('blimp', tmp_path))
    assert found == [75, 0, 50] and zero_shot.main(task_args('blimp', tmp_path / 'data')) == found
    assert capsys.readouterr().out.splitlines()[:3] == [
        'blimp agreement 75.00 on 2 paradigms', 'blimp islands 0.00 on 1 paradigms',
        'blimp accuracy 50.00, mean of 3 paradigms (by chance: 50.00)']
    long = 'cat ' * 30
    (tmp_path / 'data' / 'b.jsonl').write_text(row('islands', f'{long} sat', f'{long} ball') + row('islands', '', ''))
    zero_shot.main(task_args('blimp', tmp_path))
    assert 'n_ctx=24 is too short for 1 of the pairs: their sentences are cut' in capsys.readouterr().out
    transformer, encoder = toy
    assert zero_shot.mean_log_probs(transformer, encoder, [[('the cat', ''), ('the cat', '')]])[0].isneginf().all()
    newline = encoder.encoder['\n</w>']
    [ids] = encoder.encode(['the cat sat'])
    [[p]] = log_probs(transformer, N_VOCAB, [[([newline, *ids], 1)]], n_batch=3)
    assert_close(p, plain_log_probs(transformer, [newline, *ids], 1))


def test_perplexity_of_a_folder_by_token_word_and_byte(tmp_path, capsys):
    """Two lines and a blank one between them: their tokens and newlines are one sequence, longer than n_ctx."""
    text = 'The cat sat and dad found the ball in the park.\n\nMom like to play in the rain, oh yes.\n'
    (tmp_path / 'a.txt').write_text(text)
    trained = open_trained(task_args('perplexity', tmp_path))
    transformer, encoder = trained.model.transformer, trained.encoder
    first, _, second, _ = encoder.encode(text.split('\n'))
    ids = [*first, encoder.encoder['\n</w>'], *second, encoder.encoder['\n</w>']]
    assert len(ids) > transformer.n_ctx
    [scores] = score_texts(transformer, N_VOCAB, [ids])
    nats = -scores.double().sum().item()
    found = zero_shot.main(task_args('perplexity', tmp_path))
    assert found == pytest.approx([nats / (len(ids) - 1), nats / 20, nats / math.log(2) / len(text)], rel=1e-5)
    assert f'a.txt: {len(ids) - 1} tokens' in capsys.readouterr().out
    (tmp_path / 'b.txt').write_text('\n')
    assert zero_shot.main(task_args('perplexity', tmp_path)) == found
    assert 'b.txt: no tokens to score' in capsys.readouterr().out
    (tmp_path / 'a.txt').write_text('')
    with pytest.raises(ValueError, match='the texts are empty'):
        zero_shot.main(task_args('perplexity', tmp_path))
