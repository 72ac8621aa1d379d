"""Log-probabilities against numbers computed by hand and the plain model, and the zero-shot tasks."""

import math

import pytest
import torch
from reference import assert_close, toy_language_model
from toy import HEADER, TOY, toy_stories, write

import fast
import generate
import zero_shot
from datasets import TEST_NAME, VAL_NAME
from model_pytorch import DEFAULT_CONFIG, TransformerModel, dotdict
from trained import open_trained
from zero_shot import log_probs, mean_log_probs, score_texts, windows, with_positions

SIZE = ['--model_path', str(TOY), '--n_embd', '16', '--n_head', '4', '--n_layer', '3', '--device', 'cpu']
N_VOCAB = 124


def score_args(*argv):
    return generate.parse_args([*SIZE, '--score', *argv])


def task_args(task, folder, *argv):
    return zero_shot.parse_args(['--task', task, '--data_dir', str(folder), *SIZE, *argv])


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


def test_cloze_takes_the_ending_with_the_higher_mean(tmp_path, capsys):
    rows = [row[:5] + [row[5] + ' and old dad', *row[6:]] for row in toy_stories(12, 0)[1:]]
    write(tmp_path / VAL_NAME, [HEADER, *rows])
    write(tmp_path / TEST_NAME, [row[:-1] for row in toy_stories(3, 1)])
    args = task_args('cloze', tmp_path)
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
    assert out == [f'cloze accuracy {accuracy:.2f} on 12 examples of {tmp_path / VAL_NAME}'] + out[1:]
    args = generate.parse_args([*SIZE, '--zero_shot', 'cloze', '--data_dir', str(tmp_path)])
    assert generate.main(args) == [accuracy]
    assert capsys.readouterr().out.splitlines() == out


def test_files_without_labels_are_refused(tmp_path):
    for name in (VAL_NAME, TEST_NAME):
        write(tmp_path / name, [row[:-1] for row in toy_stories(3, 1)])
    with pytest.raises(ValueError, match='neither of the two Story Cloze files has labels'):
        zero_shot.main(task_args('cloze', tmp_path))


def test_texts_that_do_not_fit_are_cut_and_counted(toy):
    """The beginning of a context, and the end of a continuation of n_ctx tokens or more."""
    transformer, encoder = toy
    story, ending = 'cat dad mom ball park ' * 10, 'mom ' * 30
    problems = [[(story, 'happy'), (story, 'sad mom')], [('cat', 'dad'), ('cat dad', ending)], [('cat', 'dad')] * 2,
                [('cat', 'dad'), ('cat', ending)]]
    means, n_contexts_cut, n_continuations_cut = mean_log_probs(transformer, encoder, problems)
    ids = encoder.encode([story, 'happy', 'sad mom', 'dad', ending])
    assert (n_contexts_cut, n_continuations_cut) == (2, 2) and len(ids[4]) == 30
    for k, ids_of_ending in enumerate(ids[1:3]):
        kept = ids[0][-(24 - len(ids_of_ending)):]
        assert_close(means[0, k], plain_log_probs(transformer, kept + ids_of_ending, len(kept)).mean(), atol=1e-5)
    assert_close(means[1, 1], plain_log_probs(transformer, ids[3] + ids[4][:23], 1).mean(), atol=1e-5)
    with pytest.raises(ValueError, match="x.csv, example 2: '&nbsp;' has no tokens"):
        mean_log_probs(transformer, encoder, [[('cat', 'dad')] * 2, [('cat', '&nbsp;'), ('cat', 'dad')]], 'x.csv')


def test_cuts_are_printed(tmp_path, capsys):
    """Both kinds of cuts are counted."""
    rows = toy_stories(3, 0)
    rows[2][5] = 'mom ' * 30
    write(tmp_path / VAL_NAME, rows)
    write(tmp_path / TEST_NAME, [row[:-1] for row in toy_stories(3, 1)])
    zero_shot.main(task_args('cloze', tmp_path))
    assert capsys.readouterr().out.splitlines()[1:] == [
        'n_ctx=24 is too short for 1 of them: the beginning of a context was cut off',
        'n_ctx=24 is too short for 1 of them: the end of a continuation was cut off']


def test_sst2_asks_for_very_positive_or_very_negative(tmp_path, capsys):
    (tmp_path / 'dev.tsv').write_text('sentence\tlabel\na "good day \t1\nold rain \t0\n', encoding='utf-8')
    [(path, problems, labels)] = zero_shot.sst2(str(tmp_path))
    assert problems == [[('a "good day very', 'negative'), ('a "good day very', 'positive')],
                        [('old rain very', 'negative'), ('old rain very', 'positive')]]
    assert labels == [1, 0] and path.endswith('dev.tsv')
    [accuracy] = zero_shot.main(task_args('sst2', tmp_path))
    assert accuracy in (0, 50, 100) and 'on 2 examples' in capsys.readouterr().out


@pytest.mark.parametrize('text', [
    'sentence\tlabel\nit is good\t1\nbad\t0\n\n', '\nsentence\tlabel\n\nit is good\t1\n\t\nbad\t0',
    'Sentence\tLabel\nit is good\t1\nbad\t0\n', '\ufeffLABEL\tindex\t Sentence\r\n1\t7\tit is good\r\n0\t8\tbad\r\n'])
def test_blank_lines_and_capitals_are_read(tmp_path, text):
    (tmp_path / 'dev.tsv').write_bytes(text.encode())
    [(_, problems, labels)] = zero_shot.sst2(str(tmp_path))
    assert [choices[0][0] for choices in problems] == ['it is good very', 'bad very'] and labels == [1, 0]


def test_winograd_scores_the_rest_after_each_candidate(tmp_path, capsys):
    (tmp_path / 'winograd.tsv').write_text('sentence\tcandidate1\tcandidate2\tlabel\n'
                                           'the cat sat on mom as _ was old.\tthe cat\tmom\t2\n', encoding='utf-8')
    [(_, problems, labels)] = zero_shot.winograd(str(tmp_path))
    assert problems == [[('the cat sat on mom as the cat', ' was old.'), ('the cat sat on mom as mom', ' was old.')]]
    assert labels == [1]
    assert zero_shot.main(task_args('winograd', tmp_path))[0] in (0, 100)


@pytest.mark.parametrize('task, text, words', [
    ('sst2', None, 'dev.tsv is missing'),
    ('sst2', '', 'dev.tsv, line 1: no column sentence, label'),
    ('sst2', 'sentence\tlabel\n', 'dev.tsv has a header but no rows'),
    ('sst2', 'text\tlabel\nx\t1\n', 'dev.tsv, line 1: no column sentence'),
    ('sst2', 'sentence\tlabel\na\t1\nb\n', 'dev.tsv, line 3: 1 columns, the header has 2'),
    ('sst2', 'sentence\tlabel\na\t2\n', "dev.tsv, line 2: label '2' is not 0 or 1"),
    ('sst2', 'sentence\tlabel\n\t1\nbad\t0\n', 'dev.tsv, line 2: sentence is empty'),
    ('sst2', 'sentence\tlabel\nbad\t0\n\n&nbsp;\t1\n', 'dev.tsv, line 4: sentence is empty: .&nbsp;. has no tokens'),
    ('winograd', 'sentence\tcandidate1\tcandidate2\tlabel\n_ was old\ta\t \t1\n', 'line 2: candidate2 is empty'),
    ('winograd', 'sentence\tcandidate1\tcandidate2\tlabel\nx was old\ta\tb\t1\n', 'line 2: the sentence must have _'),
    ('winograd', 'sentence\tcandidate1\tcandidate2\tlabel\nold was _ \ta\tb\t1\n', 'line 2: the sentence must have _'),
    ('cloze', None, 'has no Story Cloze val file')])
def test_a_wrong_table_gets_one_line(tmp_path, task, text, words):
    if text is not None:
        (tmp_path / {'sst2': 'dev.tsv', 'winograd': 'winograd.tsv'}[task]).write_text(text, encoding='utf-8')
    with pytest.raises((ValueError, OSError), match=words) as error:
        zero_shot.main(task_args(task, tmp_path))
    assert '\n' not in str(error.value)


def test_options_without_effect_are_refused():
    with pytest.raises(ValueError, match='--model_path has no effect with --desc'):
        zero_shot.parse_args(['--task', 'sst2', '--desc', 'x', '--model_path', 'model/'])
    with pytest.raises(ValueError, match='--task'):
        zero_shot.parse_args([])
