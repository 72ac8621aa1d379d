"""Token ids against those of the packages of 2018, fast code against plain code, and wrong input."""

import csv
import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from text_utils import TextEncoder, clean, get_pairs, has_tokens, load_ftfy, load_rules, split_chunk, text_standardize

ROOT = Path(__file__).parents[1]
GOLDENS = Path(__file__).parent / 'goldens'
SHARED = ROOT.parent / 'shared'
TOY = GOLDENS / 'loader' / 'model'
VOCABULARY, MERGES = 'encoder_bpe_40000.json', 'vocab_40000.bpe'


def read_jsonl(name):
    return [json.loads(line) for line in (GOLDENS / name).read_text(encoding='utf-8').splitlines()]


@pytest.fixture(scope='module')
def toy():
    """Encoder with the 124 tokens of the made-up vocabulary."""
    return TextEncoder(TOY / VOCABULARY, TOY / MERGES)


@pytest.fixture(scope='module')
def real():
    """Encoder with the released vocabulary."""
    for folder in (ROOT / 'model', SHARED / 'openai-model'):
        if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
            return TextEncoder(folder / VOCABULARY, folder / MERGES)
    pytest.skip('the released vocabulary is not in model/: python model/download.py fetches it')


@pytest.fixture(scope='module')
def broad(tmp_path_factory):
    """Encoder whose vocabulary has printable ASCII, some merges, and a few other letters."""
    folder = tmp_path_factory.mktemp('vocabulary')
    letters = [chr(c) for c in range(33, 127)] + list('éñßµ°’…')
    merges = [('t', 'h'), ('th', 'e</w>'), ('a', 'n'), ('an', 'd</w>'), ("'", 's</w>'), ('i', 'n'), ('in', 'g</w>')]
    tokens = ['<unk>', '\n</w>', *letters, *(c + '</w>' for c in letters), *map(''.join, merges)]
    (folder / VOCABULARY).write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding='utf-8')
    (folder / MERGES).write_text('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges), encoding='utf-8')
    return TextEncoder(folder / VOCABULARY, folder / MERGES)


# The functions of the original, without caches and shortcuts.

def plain_standardize(text):
    for old, new in (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")):
        text = text.replace(old, new)
    text = re.sub('''(-+|~+|!+|"+|;+|\\?+|\\++|,+|\\)+|\\(+|\\+|\\/+|\\*+|\\[+|\\]+|}+|{+|\\|+|_+)''', r' \1 ', text)
    text = re.sub(r'\s*\n\s*', ' \n ', text)
    return re.sub(r'[^\S\n]+', ' ', text).strip()


def plain_bpe(token, bpe_ranks):
    word = tuple(token[:-1]) + (token[-1] + '</w>',)
    while pairs := get_pairs(word):
        first, second = min(pairs, key=lambda pair: bpe_ranks.get(pair, float('inf')))
        if (first, second) not in bpe_ranks:
            break
        merged, i = [], 0
        while i < len(word):
            is_pair = word[i:i + 2] == (first, second)
            merged.append(first + second if is_pair else word[i])
            i += 2 if is_pair else 1
        word = tuple(merged)
    return '\n</w>' if token == '\n ' else ' '.join(word)


def plain_tokens(text):
    pieces = plain_standardize(load_ftfy()(text)).split(' ')
    return [token for piece in pieces if piece for token in (['\n '] if piece == '\n' else split_chunk(piece))]


def plain_encode(text, encoder):
    return [encoder.encoder.get(symbol, 0) for token in plain_tokens(text)
            for symbol in plain_bpe(token.lower(), encoder.bpe_ranks).split(' ')]


# 2018

def test_tokens_are_those_of_spacy_2_0_11_and_ftfy_4_4_3():
    """The texts of encode.jsonl and 400 random mixtures, processed by the old packages under Python 3.6."""
    for golden in read_jsonl('tokens_2018.jsonl'):
        assert plain_tokens(golden['text']) == golden['tokens'], golden['text']


def test_ids_of_2018(real):
    for golden in read_jsonl('encode.jsonl'):
        assert real.encode([golden['text']], verbose=False) == [golden['ids']], golden


def test_ids_of_2018_with_the_toy_vocabulary(toy):
    golden = json.loads((GOLDENS / 'loader' / 'encode.json').read_text(encoding='utf-8'))
    assert toy.encode(golden['sentences'], verbose=False) == golden['ids']
    fixed = map(load_ftfy(), golden['sentences'])
    assert [text_standardize(text) for text in fixed] == golden['standardized']
    assert [plain_tokens(text) for text in golden['sentences']] == golden['tokens']
    assert {word: toy.bpe(word) for word in golden['bpe']} == golden['bpe']


def test_all_ids_of_rocstories(real):
    run = SHARED / 'goldens/e2e/lm_coef_0/run.json'
    if not (SHARED / 'rocstories').is_dir() or not run.is_file():
        pytest.skip('needs the stories, which may not be passed on, in ../shared/rocstories')
    fields = {}
    for kind in ('val', 'test'):
        name = f'cloze_test_{kind}__spring2016 - cloze_test_ALL_{kind}.csv'
        with open(SHARED / 'rocstories' / name, encoding='utf-8') as f:
            rows = list(csv.reader(f))[1:]
        texts = [' '.join(row[1:5]) for row in rows], [row[5] for row in rows], [row[6] for row in rows]
        fields[kind] = [real.encode(field, verbose=False) for field in texts]
    split = json.loads((GOLDENS / 'split.json').read_text(encoding='utf-8'))
    splits = {name: [[field[row] for row in split[rows]] for field in fields['val']]
              for name, rows in (('tr', 'train_rows'), ('va', 'valid_rows'))} | {'te': fields['test']}
    for name, sha256 in json.loads(run.read_text(encoding='utf-8'))['sha256_token_ids'].items():
        ids = json.dumps(splits[name], separators=(',', ':'))
        assert hashlib.sha256(ids.encode()).hexdigest() == sha256, name


@pytest.mark.parametrize(('chunk', 'tokens'), [
    ('May.', ['May.']), ('June.', ['June', '.']), ("this'll", ["this'll"]), ("she'll", ['she', "'ll"]),
    ('``code``', ['``', 'code', '``']), ('lol:D', ['lol', ':', 'D']), ('2017:LF', ['2017:LF']), ("it.'So", ["it.'So"]),
    ('html>.', ['html>.']), ('ab:.', ['ab', ':', '.']), ('B.C.', ['B.C.']), ('ABC.', ['ABC', '.']), ('1.', ['1', '.']),
    ('5km.', ['5', 'km', '.']), ('(5€', ['(', '5', '€']), ('US$5', ['US$', '5']), ('20°C.', ['20', '°', 'C', '.']),
    ('no.........', ['no', '.........']), ('ab..c', ['ab', '..', 'c']), ("James'.", ['James', "'", '.']),
    ("google.com's", ["google.com's"]), ("8.8.8.8's", ["8.8.8.8's"]), ("172.16.0.1's", ['172.16.0.1', "'s"]),
    ('http://u@x.org/?a=b', ['http://u@x.org/?a=b']), ("u@x.org's", ["u@x.org's"]), ('x.org:', ['x.org', ':']),
    ('x.org/a\u203f', ['x.org/a\u203f']), ('x.org,a\u0301', ['x.org,a\u0301']), ('x.org,²', ['x.org,²']),
    ('ok\U0001f600', ['ok', '\U0001f600']), ('ok\U0001f97a', ['ok\U0001f97a']),  # emoji of 2012 and of 2018
])
def test_tokens_of_a_chunk(chunk, tokens):
    assert split_chunk(chunk) == tokens


def test_a_backslash_is_not_set_off_by_spaces():
    assert text_standardize('a\\b/c—d…') == 'a\\b / c - d...'


# Fast code against plain code

ODD = [
    '\n', '\r\n', '\t', '  ', '\u2028', '\x85', '\x1c', '\xa0', '\x00', '\x1b[0m', '\ud83d\ude00', '\ud800', '\ufffd',
    '&amp;', '&lt;', '<b>', 'Ã©', 'â€™', '…', '—', '``', "''", "n't", "'s", 'May.', 'DON’T', 'dont', 'a@b.co/x',
    'www.a.org', 'http://', '1.2.3.4', '5km', 'US$', ':)', '(ಠ_ಠ)', 'İ', 'ΣΑΣ', 'ñ', '</w>', '<unk>', '_start_',
    'the', 'x',
]
pieces = st.sampled_from(ODD) | st.text(max_size=8) | st.text('ab.,\'"-:@/ \n', max_size=8)
texts = st.lists(pieces, max_size=8).map(''.join)
any_texts = texts | st.text(max_size=60) | st.text(st.characters(categories=['Cs', 'Cc', 'Cn', 'Co', 'Zs', 'Mn', 'So']))


@given(texts)
@settings(max_examples=200, deadline=None)
def test_caches_and_shortcuts_leave_the_ids_alone(broad, text):
    for _ in range(2):  # the second result comes from the cache
        assert broad.encode([text], verbose=False) == [plain_encode(text, broad)]


typographic = st.lists(st.sampled_from([*'‘’“”—…–éßÿàâãÃ€\r\n  abC.;&#<>', '&amp;', 'a&b', ' é ', '“é”', 'é”…'])
                       ).map(''.join)


@given(typographic | texts)
@settings(max_examples=1000, deadline=None)
@example('Charlotte Brontë…”')
@example('é “a”')
def test_cleaning_is_ftfys(text):
    assert clean(text) == load_ftfy()(text)


def test_ordinary_text_is_cleaned_without_ftfy(monkeypatch):
    text = 'He’d said: “No — at the café, señor…” & left AT&T, “Brontë.”\r\n'
    expected = load_ftfy()(text)
    monkeypatch.setattr('text_utils.load_ftfy', None)
    assert clean(text) == expected


NOTHING = st.sampled_from(['&nbsp;', '&#160;', '&#7;', '\x1b[36m', '\x01', '\ufeff', ' ', '\u200b'])


@given(texts | st.lists(NOTHING).map(''.join))
@settings(max_examples=200, deadline=None)
@example('&nbsp;')
@example('\x1b[36m')
def test_a_text_has_tokens_if_it_has_ids(broad, text):
    assert has_tokens(text) == bool(broad.encode([text], verbose=False)[0])


@given(texts)
@settings(max_examples=200, deadline=None)
def test_standardizing_is_the_originals(text):
    assert text_standardize(text) == plain_standardize(text)


@given(st.lists(st.integers(0, 2 ** 30), max_size=12), st.text('abc', min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_bpe_merges_in_the_originals_order(toy, choices, token):
    """The merges are in any order, so that a merge may create a pair whose own merge has an earlier rank."""
    encoder = pickle.loads(pickle.dumps(toy))
    symbols, merges = ['a', 'b', 'c', 'a</w>', 'b</w>', 'c</w>'], []
    for choice in choices:
        first, second = symbols[choice % len(symbols)], symbols[choice // 997 % len(symbols)]
        if not first.endswith('</w>'):
            merges.append((first, second))
            symbols.append(first + second)
    for order in (merges, merges[::-1]):
        encoder.bpe_ranks = {merge: rank for rank, merge in enumerate(order)}
        assert encoder.bpe(token) == plain_bpe(token, encoder.bpe_ranks)


# Any text

def check_any_text(encoder, text):
    ids, = encoder.encode([text], verbose=False)
    assert all(0 <= i < len(encoder.encoder) for i in ids)
    decoded = encoder.decode(ids)
    assert encoder.decode(encoder.encode([decoded], verbose=False)[0]) == decoded


@given(any_texts)
@settings(max_examples=300, deadline=None)
@example('Mr. Smith DON\'T\nlike "U.S." cafés; \ufffd\U0001f600x')
def test_decoded_text_encodes_to_the_same_text(broad, text):
    check_any_text(broad, text)


@pytest.mark.slow
@given(any_texts)
@settings(max_examples=10_000, deadline=None)
def test_decoded_text_encodes_to_the_same_text_many_examples(broad, text):
    check_any_text(broad, text)


LONG = {
    'letters': 'abcdefghij', 'digits': '1', 'quotes': '"', 'dots': '.', 'labels': 'a.', 'users': 'a@',
    'hosts': 'a@b.c#', 'colons': ':', 'possessives': "'s", 'hyphens': 'a-', 'units': '5km', 'spaces': ' ',
    'newlines': '\n', 'circles': 'Ⓐ', 'accents': 'é', 'unknown': '\U0001fae0', 'surrogates': '\ud800',
    'entities': '&', 'escapes': '\x1b[',
}


@pytest.mark.parametrize('unit', LONG.values(), ids=LONG.keys())
def test_time_is_linear_in_the_length_of_a_chunk(broad, unit):
    """20,000 characters take less than a second; quadratic time would be up to minutes."""
    text = 'x' + unit * (20_000 // len(unit)) + '1'
    start = time.process_time()
    broad.encode([text], verbose=False)
    text_standardize(text)
    assert time.process_time() - start < 5


# Use and misuse

def test_importing_is_quick():
    code = 'import sys, text_utils; sys.exit(bool({"spacy", "ftfy", "torch", "numpy"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_progress_is_shown_on_request_and_on_a_terminal_only(toy, monkeypatch):
    for is_terminal in (True, False):
        for verbose in (True, False):
            stderr = io.StringIO()
            stderr.isatty = lambda is_terminal=is_terminal: is_terminal
            monkeypatch.setattr(sys, 'stderr', stderr)
            toy.encode(['the cat'] * 3, verbose=verbose)
            assert ('0/3' in stderr.getvalue()) == (is_terminal and verbose)


def test_decode(toy):
    assert toy.decode(toy.encode(['The cat sat.\n  She ran'], verbose=False)[0]) == 'the cat sat .\nshe ran'
    assert toy.decode(toy.encode(['the §§ cat'], verbose=False)[0]) == 'the \ufffd \ufffd cat'
    assert toy.decode([]) == ''


def test_decode_names_special_tokens_that_were_added(toy):
    encoder = pickle.loads(pickle.dumps(toy))
    for name in ('_start_', '_delimiter_', '_classify_'):
        encoder.encoder[name] = len(encoder.encoder)
    cat, = encoder.encode(['the cat'], verbose=False)
    assert encoder.decode([124, *cat, 125, *cat, 126]) == '_start_ the cat _delimiter_ the cat _classify_'
    with pytest.raises(ValueError, match='id 127 is not one of'):
        encoder.decode([3, 127])
    with pytest.raises(ValueError, match='id -1 is not one of'):
        encoder.decode([-1])


def test_texts_must_be_a_list_of_str(toy):
    with pytest.raises(ValueError, match=r'encode\(\[text\]\)'):
        toy.encode('one text')
    for bad in (None, float('nan'), b'bytes', ['nested']):
        with pytest.raises(ValueError, match=f'text 1 is {type(bad).__name__}, not str'):
            toy.encode(['a text', bad], verbose=False)


@pytest.mark.parametrize(('content', 'says'), [
    (b'', 'line 1 column 1'), (b'{"a": 0, "b"', 'line 1 column 13'), (b'["a", "b"]', 'object'), (b'{}', 'object'),
    (b'{"a": "0"}', 'object'), (b'{"a": 0, "b": true}', 'object'), (b'{"a": 0.0}', 'object'), (b'[' * 100_000, 'json'),
    (b'{"a": 1, "b": 2}', 'the ids 0, 1, 2'), (b'{"a": 0, "b": 0}', 'the ids 0, 1, 2'),
    (b'{"a": 0,\n"\xe9": 1}', 'line 2: byte 0xe9 is not UTF-8'), ('{"a": 0}'.encode('utf-16'), 'line 1: not UTF-8'),
])
def test_a_bad_vocabulary_is_one_line(tmp_path, content, says):
    path = tmp_path / 'vocabulary.json'
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        TextEncoder(path, TOY / MERGES)
    assert str(path) in str(caught.value) and says in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(('content', 'says'), [
    (b'', 'line 1'), (b'a b\nab c\n', 'line 1'), (b'#version: 0.2\na b\nab\n', 'a merge has 2 symbols'),
    (b'#version: 0.2\na b c\n', 'not 3'), (b'#version: 0.2\na b\n\nc d\n', 'not 0'),
    (b'#version\na \xff\n', 'line 2'),
])
def test_bad_merges_are_one_line(tmp_path, content, says):
    path = tmp_path / 'merges.bpe'
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        TextEncoder(TOY / VOCABULARY, path)
    assert str(path) in str(caught.value) and says in str(caught.value) and '\n' not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    for paths in ((tmp_path / 'no', TOY / MERGES), (TOY / VOCABULARY, tmp_path / 'no')):
        with pytest.raises(FileNotFoundError, match='no is missing, or is not a file: python model/download'):
            TextEncoder(*paths)
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path, tmp_path / 'pipe', Path('/dev/zero')):
        for paths in ((path, TOY / MERGES), (TOY / VOCABULARY, path)):
            with pytest.raises(FileNotFoundError, match=f'{re.escape(str(path))} is missing, or is not a file'):
                TextEncoder(*paths)


def test_text_after_the_last_newline_of_the_merges_is_ignored(tmp_path):
    path = tmp_path / 'merges.bpe'
    for end in (b'\r\n', b'\n', b'\r'):
        path.write_bytes(end.join([b'#version: 0.2', b't h', b'th e</w>']))
        assert TextEncoder(TOY / VOCABULARY, path).bpe_ranks == {('t', 'h'): 0}


def test_packages_that_would_give_other_ids_are_refused(monkeypatch):
    import ftfy
    monkeypatch.setattr(ftfy, '__version__', '6.3.1')
    with pytest.raises(ValueError, match='ftfy 6.3.1 .* pip install ftfy==4.4.3'):
        load_ftfy.__wrapped__()
    from spacy.lang.en.tokenizer_exceptions import TOKENIZER_EXCEPTIONS
    monkeypatch.setitem(TOKENIZER_EXCEPTIONS, 'Feb.uary', [])
    with pytest.raises(ValueError, match='spaCy .* other English exceptions'):
        load_rules.__wrapped__()
