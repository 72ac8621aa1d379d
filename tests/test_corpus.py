"""corpus.py: token ids, files that are written only once, and input that is damaged, large or not text."""

import contextlib
import filecmp
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_books import write_books
from reference import GOLDENS
from toy import without_rights

from common import corpus, workers
from text_utils import TextEncoder

ROOT = Path(__file__).parents[1]
TOY = GOLDENS / 'loader' / 'model'                     # 124 tokens
VOCABULARY = dict(encoder_path=f'{TOY}/encoder_bpe_40000.json', bpe_path=f'{TOY}/vocab_40000.bpe')
LINES = ["Tom's dog didn't bark…", '', '  “Hello,” said Dr. Who &amp; left.\r', 'It cost $5 -- really?', 'naïve café']


def put(folder, **texts):
    """Write text files. Two underscores in a name stand for a slash."""
    for name, text in texts.items():
        path = folder / 'text' / (name.replace('__', '/') + '.txt')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def arguments(folder, **options):
    """The options of pretrain.py that corpus.py reads."""
    defaults = dict(data_dir=f'{folder}/text', token_dir=f'{folder}/tokens', vocab_size=None, n_proc=1, **VOCABULARY)
    return SimpleNamespace(**{**defaults, **options})


def tokens_of(folder, **options):
    return corpus.load_tokens(arguments(folder, **options))


def ids_of(text):
    """The ids of a text that ends in a newline."""
    encoder = TextEncoder(**VOCABULARY)
    return [*encoder.encode([text], verbose=False)[0], encoder.encoder['\n</w>']]


@pytest.mark.parametrize('piece, n_proc', [(1, 1), (30, 1), (2 ** 22, 1), (30, 2)])
def test_tokens_are_those_of_the_text_as_one(tmp_path, monkeypatch, piece, n_proc):
    """Files are read in the order of their names, and a newline token follows each line."""
    monkeypatch.setattr(corpus, 'PIECE', piece)
    put(tmp_path, a='\n'.join(LINES), b__c='\n\n' + '\n'.join(LINES[::-1]) + '\n\n', b__empty='')
    put(tmp_path, d=b'\xef\xbb\xbfthe end')
    tokens, _, n_vocab = tokens_of(tmp_path, n_proc=n_proc)
    assert tokens.tolist() == ids_of('\n'.join([*LINES, *LINES[::-1], 'the end']))
    assert isinstance(tokens, np.memmap) and tokens.dtype == np.uint16 and n_vocab == 124


@pytest.mark.parametrize('n_proc', [1, 2])
def test_a_long_line_is_cut_at_spaces_and_stays_one_line(tmp_path, monkeypatch, n_proc):
    monkeypatch.setattr(corpus, 'PIECE', 20)
    monkeypatch.setattr(corpus, 'LONGEST_LINE', 10)
    text = 'the cat sat “here” and ' * 30 + 'ended    ' + '\n' + 'the dog     ' * 9 + '\nthe end'
    put(tmp_path, a=text, b='the cat ' * 20)
    assert tokens_of(tmp_path, n_proc=n_proc)[0].tolist() == ids_of(text + '\n' + 'the cat ' * 20)
    put(tmp_path, b='fine\n' + 'é' * 20)
    with pytest.raises(ValueError, match='b.txt, line 2: more than 10 bytes without spaces between words are not text'):
        tokens_of(tmp_path)


def test_text_that_changes_while_it_is_read_is_said(tmp_path):
    """Otherwise its ids would be kept as those of the text before."""
    put(tmp_path, a='the cat sat')
    [[span]], _ = corpus.cut(f'{tmp_path}/text')
    put(tmp_path, a='the dog sat')
    with pytest.raises(ValueError, match='a.txt was changed while it was read: run again'):
        corpus.lines_of_span(span)


def test_small_files_share_a_piece(tmp_path, monkeypatch):
    put(tmp_path, **{f'{i:03}': 'the cat\n' for i in range(100)})
    monkeypatch.setattr(corpus, 'PIECE', 80)
    pieces, _ = corpus.cut(f'{tmp_path}/text')
    assert [len(piece) for piece in pieces] == [10] * 10


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(workers, 'SAY_EVERY', 0)
    assert [*workers.progress('adding', 'abcd')] == [*'abcd']
    assert ' 50 %, 00:00 left\n' in capsys.readouterr().err


def test_text_files_in_capitals_are_read_and_others_are_named(tmp_path, capsys):
    put(tmp_path, a='the cat', c='the end')
    text = tmp_path / 'text'
    tokens_of(tmp_path)
    assert capsys.readouterr().err == ''
    for name in ('._a.txt', '.hidden.txt', '~$a.txt', '.git/x.txt'):
        (text / name).parent.mkdir(exist_ok=True)
        (text / name).write_bytes(b'\0\5')
    (text / 'B.TXT').write_text('the dog')
    (text / 'notes.md').write_text('no text file')
    os.mkfifo(text / 'pipe.txt')
    (tmp_path / 'elsewhere').mkdir()
    (text / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'z.txt').write_text('so far')
    tokens, _, _ = tokens_of(tmp_path)
    assert tokens.tolist() == ids_of('the dog\nthe cat\nthe end\nso far')
    assert capsys.readouterr().err == f'{text}: ignored 2 files that are not *.txt: {text}/notes.md, {text}/pipe.txt\n'


@pytest.mark.parametrize('link, target, message', [
    ('b/link', '..', 'b/link is a link to a folder that it is in'), ('link', '.', 'link is a link to a folder'),
    ('b/to_c', '../c', 'b/to_c/to_b is a link to a folder'), ('gone.txt', 'nothing', 'gone.txt is a link to nothing'),
    ('part1', '/no/disk', 'part1 is a link to nothing'),
    ('z.txt', 'a.txt', 'c/to_b/c.txt is a link to another text of this folder, which would be read twice')])
def test_links_that_lead_back_or_nowhere_are_named(tmp_path, link, target, message):
    put(tmp_path, a='the cat', b__c='the end', c__d='the end')
    (tmp_path / 'text' / 'c' / 'to_b').symlink_to('../b' if 'to_c' in link else '../../text/b')
    (tmp_path / 'text' / link).symlink_to(target)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        corpus.text_files(f'{tmp_path}/text')


def test_a_folder_that_cannot_be_read_is_named(open_folder):
    put(open_folder, a='the cat', b__c='the end', b__d__e='the end')
    for place in ('text', 'text/b', 'text/b/d'):
        with without_rights(open_folder / place), pytest.raises(PermissionError, match=f'{open_folder}/{place}'):
            corpus.text_files(f'{open_folder}/text')
    assert len(corpus.text_files(f'{open_folder}/text')) == 3


def test_text_is_encoded_once_and_again_only_if_it_or_the_vocabulary_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, 'PIECE', 1)             # a piece for each file
    put(tmp_path, a='the cat sat', b='the dog ran')
    first, key, _ = tokens_of(tmp_path)
    encoded = []
    work = corpus.encode_piece
    monkeypatch.setattr(corpus, 'encode_piece', lambda *args: (encoded.append(args[-1][0]), work(*args)))
    again, same_key, _ = tokens_of(tmp_path)
    assert not encoded and same_key == key and again.tolist() == first.tolist()
    put(tmp_path, b='the dog sat')
    changed, other_key, _ = tokens_of(tmp_path)
    assert len(encoded) == 2 and other_key != key and changed.tolist() != first.tolist()
    for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe'):
        (tmp_path / name).write_bytes((TOY / name).read_bytes())
    copies = dict(encoder_path=f'{tmp_path}/encoder_bpe_40000.json', bpe_path=f'{tmp_path}/vocab_40000.bpe')
    assert tokens_of(tmp_path, **copies)[1] == other_key
    swapped = json.loads((tmp_path / 'encoder_bpe_40000.json').read_text())
    a, b = list(swapped)[3:5]
    swapped[a], swapped[b] = swapped[b], swapped[a]
    (tmp_path / 'encoder_bpe_40000.json').write_text(json.dumps(swapped))
    assert tokens_of(tmp_path, **copies)[1] not in (key, other_key)


def test_interrupted_encoding_continues_with_the_missing_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, 'PIECE', 1)
    text = 'the cat sat\nthe dog ran\nthe cat ran\nthe dog sat'
    put(tmp_path, a=text)
    encoded, work = [], corpus.encode_piece

    def interrupted_at_the_third(paths, key, job):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(job[1])
        work(paths, key, job)

    monkeypatch.setattr(corpus, 'encode_piece', interrupted_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        tokens_of(tmp_path)
    monkeypatch.setattr(corpus, 'encode_piece', lambda *args: (encoded.append(args[-1][1]), work(*args)))
    tokens, key, _ = tokens_of(tmp_path)
    assert len(encoded) == len(set(encoded)) == 4 and tokens.tolist() == ids_of(text)
    assert sorted(os.listdir(tmp_path / 'tokens')) == [f'{key}.npy']


@pytest.mark.parametrize('options', [{}, dict(vocab_size=30)])
def test_of_two_runs_that_encode_one_text_one_waits(tmp_path, monkeypatch, capfd, options):
    monkeypatch.setattr(corpus, 'PIECE', 1)
    for name in ('encode_piece', 'count_words'):
        work = getattr(corpus, name)
        monkeypatch.setattr(corpus, name, lambda *args, work=work: (time.sleep(0.02), work(*args)))
    put(tmp_path, **{f't{i:02}': 'the cat sat' for i in range(12)})
    context = multiprocessing.get_context('fork')
    runs = [context.Process(target=tokens_of, args=(tmp_path,), kwargs=options) for _ in range(2)]
    for process in runs:
        process.start()
    for process in runs:
        process.join(60)
    assert [process.exitcode for process in runs] == [0, 0] and 'waiting for it' in capfd.readouterr().err
    monkeypatch.setattr(corpus, 'encode_piece', None)
    tokens = tokens_of(tmp_path, **options)[0].tolist()
    assert tokens == tokens[:len(tokens) // 12] * 12 and len(set(tokens)) > 3


def test_hundreds_of_pieces_need_a_handful_of_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, 'PIECE', 1)
    put(tmp_path, **{f'{i:03}': 'the cat\n' for i in range(300)})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 50
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 12, before[1]))
    try:
        tokens, _, _ = tokens_of(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert tokens.tolist() == ids_of('the cat') * 300


@pytest.mark.parametrize('damage', [
    lambda b: b'', lambda b: b[:-1], lambda b: b[:-2], lambda b: b[:50], lambda b: b + b'\0', lambda b: b + b'\0\0',
    lambda b: b[:-2] + b'\x7c\0', lambda b: b[:-1] + b'\xff', lambda b: b.replace(b"'<u2'", b"'|O' "),
    lambda b: b.replace(b"'<u2'", b"'<f2'"), lambda b: b.replace(b',), }    ', b'99999,),}'),
    lambda b: b.replace(b'False', b'True '), lambda b: b[:6] + b'\3' + b[7:], lambda b: b[:10] + b'(' * 99 + b[109:],
    lambda b: b'PK\3\4' + b[4:], lambda b: b[:131] + bytes([b[131] ^ 1]) + b[132:]])
def test_a_damaged_token_file_is_one_line(tmp_path, damage):
    put(tmp_path, a='the cat sat\nthe end')
    key = tokens_of(tmp_path)[1]
    path = tmp_path / 'tokens' / f'{key}.npy'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f'{key}.npy is not as this program wrote it .*: remove it'):
        tokens_of(tmp_path)
    path.unlink()
    assert tokens_of(tmp_path)[0].tolist() == ids_of('the cat sat\nthe end')


@pytest.mark.parametrize('name', ['encoder_bpe_40000.json', 'vocab_40000.bpe', 'hashes.json'])
def test_a_learned_vocabulary_that_was_changed_is_named(tmp_path, name):
    """It is still a vocabulary, whose tokens would be encoded under another name."""
    put(tmp_path, a='the cat sat\nthe end\n' * 3)
    tokens = tokens_of(tmp_path, vocab_size=30)[0].tolist()
    [folder] = (tmp_path / 'tokens').glob('vocabulary-*')
    text = (folder / name).read_text()
    (folder / name).write_text({'encoder_bpe_40000.json': text.replace('"t"', '"T"'),
                                'vocab_40000.bpe': text.replace('t h', 't H'),
                                'hashes.json': text.replace('"hashes": ["', '"hashes": ["0')}[name])
    assert (folder / name).read_text() != text
    with pytest.raises(ValueError, match='vocabulary-30-'):
        tokens_of(tmp_path, vocab_size=30)
    for path in folder.iterdir():
        path.unlink()
    assert tokens_of(tmp_path, vocab_size=30)[0].tolist() == tokens


def test_what_a_killed_process_left_goes_when_the_file_is_made(tmp_path):
    put(tmp_path, a='the cat sat')
    key = tokens_of(tmp_path)[1]
    (tmp_path / 'tokens' / f'{key}.npy').unlink()
    (tmp_path / 'tokens' / f'{key}.npy.0123456789abcdef.part').write_bytes(b'half')
    tokens_of(tmp_path)
    assert os.listdir(tmp_path / 'tokens') == [f'{key}.npy']


@pytest.mark.parametrize('make', [os.mkfifo, lambda path: path.symlink_to('x'), os.mkdir])
def test_a_token_path_that_is_not_a_file_is_replaced_or_named(tmp_path, make):
    put(tmp_path, a='the cat sat\nthe end')
    key = tokens_of(tmp_path)[1]
    path = tmp_path / 'tokens' / f'{key}.npy'
    path.unlink()
    make(path)
    try:
        assert tokens_of(tmp_path)[0].tolist() == ids_of('the cat sat\nthe end')
    except IsADirectoryError as e:
        assert f'{key}.npy' in str(e)


def test_learned_vocabulary_has_the_form_of_the_released_one(tmp_path):
    pytest.importorskip('subword_nmt')
    put(tmp_path, a='Low lower LOWEST.\n' * 5, b="Newer, wider; it's new\n" * 3)
    args = arguments(tmp_path, vocab_size=45)
    tokens, _, n_vocab = corpus.load_tokens(args)
    encoder = TextEncoder(args.encoder_path, args.bpe_path)
    assert n_vocab == len(encoder.encoder) == 45
    names = [encoder.decoder[i] for i in range(45)]
    merges = [''.join(merge) for merge in encoder.bpe_ranks]
    chars = sorted(set("lowerlowest.newer,wider;it's") - {' '})
    assert names[0] == '<unk>' and names[-1] == '\n</w>' and names[-1 - len(merges):-1] == merges
    assert sorted(names[1:1 + len(chars)]) == chars and names[1] == 'w'
    assert names[1 + len(chars):1 + 2 * len(chars)] == [f'{char}</w>' for char in names[1:1 + len(chars)]]
    assert merges[0] == 'lo' and Path(args.bpe_path).read_text().startswith('#version: 0.2\nl o\n')
    assert encoder.decode(encoder.encode(['low wider'], verbose=False)[0]) == 'low wider'
    assert 0 not in tokens                              # there are no unknown characters
    written = os.stat(args.encoder_path).st_mtime_ns
    tokens_of(tmp_path, vocab_size=45)
    assert os.stat(args.encoder_path).st_mtime_ns == written


def test_a_small_text_gives_fewer_tokens_than_asked_for(tmp_path):
    pytest.importorskip('subword_nmt')
    put(tmp_path, a='ab ab cd\n')
    assert tokens_of(tmp_path, vocab_size=10)[2] == 10 and tokens_of(tmp_path, vocab_size=11)[2] == 11
    args = arguments(tmp_path, vocab_size=500)
    assert corpus.load_tokens(args)[2] == 11 == len(TextEncoder(args.encoder_path, args.bpe_path).encoder)


def test_text_without_pairs_gives_its_characters(tmp_path):
    pytest.importorskip('subword_nmt')
    put(tmp_path, a='a b c d\ne f g h\n')
    for vocab_size in (18, 30):
        assert tokens_of(tmp_path, vocab_size=vocab_size)[2] == 18  # two of each, <unk> and the newline


def test_merges_are_learned_from_the_most_frequent_words_and_characters_from_all(tmp_path, monkeypatch):
    pytest.importorskip('subword_nmt')
    monkeypatch.setattr(corpus, 'MAX_WORDS', 1)
    encoder, merges = corpus.learn_vocabulary(dict(ab=3, cd=2), 50)
    assert merges == '#version: 0.2\na b</w>\n' and {'c', 'd</w>', 'ab</w>'} < {*encoder} and 'cd</w>' not in encoder


@pytest.mark.parametrize('texts, options, words', [
    (None, {}, 'text is not a folder'), (dict(), {}, 'have no \\*.txt file'),
    (dict(a='', b='\n \n'), {}, 'the text is empty'), (dict(a='', b='\n \n'), dict(vocab_size=80), 'the text is empty'),
    (dict(a='&nbsp;\x01\n'), {}, 'the text is empty'), (dict(a='\x1b[0m'), dict(vocab_size=80), 'the text is empty'),
    (dict(a='fine', b=b'one\ntwo \xff'), {}, 'b.txt, line 2: byte 0xff is not UTF-8'),
    (dict(a=b'PK\x03\x04\x00\x00'), {}, 'a.txt, line 1: byte 0x00 is not UTF-8'),
    (dict(a='abc'), dict(vocab_size=5), '3 different characters, which alone make 8 tokens')])
def test_wrong_text_gets_one_line(tmp_path, texts, options, words):
    if texts is not None:
        (tmp_path / 'text').mkdir()
        put(tmp_path, **texts)
    with pytest.raises((ValueError, OSError), match=words) as error:
        tokens_of(tmp_path, **options)
    assert '\n' not in str(error.value)


def test_a_huge_binary_file_is_refused_within_two_seconds(tmp_path):
    put(tmp_path, a='')
    os.truncate(tmp_path / 'text' / 'a.txt', 10 ** 12)
    start = time.time()
    with pytest.raises(ValueError, match='a.txt, line 1: .* not text'):
        tokens_of(tmp_path)
    assert time.time() - start < 2


def in_new_process(options):
    """A process that encodes the text, with its output in our stderr."""
    code = ('import sys, json; from types import SimpleNamespace as S; from common.corpus import load_tokens; '
            'tokens, key, n = load_tokens(S(**json.loads(sys.argv[1]))); print(key, len(tokens), n)')
    command = [sys.executable, '-c', code, json.dumps(options)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def family(pid):
    """A process and all that it has started, also indirectly."""
    with contextlib.suppress(OSError):
        yield pid
        for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split():
            yield from family(int(child))


def used_by(processes):
    """MiB of the processes together, a shared page counted once (PSS), and the most files that one of them has open."""
    mib, n_files = 0, 0
    for pid in {pid for process in processes for pid in family(process.pid)}:
        with contextlib.suppress(OSError):              # it has ended
            rollup = Path(f'/proc/{pid}/smaps_rollup').read_text()
            mib += int(re.search(r'^Pss: +(\d+) kB', rollup, re.MULTILINE)[1]) / 1024
            n_files = max(n_files, sum(os.path.isfile(path) for path in Path(f'/proc/{pid}/fd').iterdir()))
    return mib, n_files


@pytest.mark.slow
def test_a_tenth_of_the_books_with_kills_and_two_runs_at_once(tmp_path):
    """1,100 files of 0.5 GB; the whole has 11,000. Of two runs, the one at work is killed twice."""
    pytest.importorskip('subword_nmt')
    assert write_books(tmp_path / 'text', 1100) > 5e8
    options = vars(arguments(tmp_path, n_proc=2, vocab_size=1000))
    pieces_done = 'tokens/vocabulary-*/counts/*-of-*', f'tokens/{"[0-9a-f]" * 32}/*-of-*'
    runs, n_kills, peak, most_files = [in_new_process(options)], 0, 0, 0
    while any(process.poll() is None for process in runs):
        n_done = len([*tmp_path.glob(pieces_done[min(n_kills, 1)])])
        if n_done > 5 and len(runs) == 1 + n_kills < 3:
            runs.append(in_new_process(options))                        # it waits
        if n_done > 30 and n_kills < 2:
            runs[n_kills].kill()
            n_kills += 1
        mib, n_files = used_by(runs)
        peak, most_files = max(peak, mib), max(most_files, n_files)
        time.sleep(0.2)
    answers = [process.communicate()[0].split() for process in runs]
    assert [process.returncode for process in runs] == [-9, -9, 0] and peak < 2048 and most_files < 20
    key, _, n_vocab = answers[-1]
    vocabulary, = tmp_path.glob('tokens/vocabulary-*')
    left = [name for name in os.listdir(tmp_path / 'tokens') if not name.startswith('.')]
    assert n_vocab == '1000' and sorted(left) == sorted([f'{key}.npy', vocabulary.name])
    again = in_new_process(options | dict(
        vocab_size=None, token_dir=f'{tmp_path}/again', encoder_path=f'{vocabulary}/encoder_bpe_40000.json',
        bpe_path=f'{vocabulary}/vocab_40000.bpe'))
    assert again.communicate()[0].split() == answers[-1]
    assert filecmp.cmp(tmp_path / 'tokens' / f'{key}.npy', tmp_path / 'again' / f'{key}.npy', shallow=False)
    print(f'peak {peak:.0f} MiB, {most_files} files')
