"""Every file that is read, damaged in every way: the command goes well, or ends in one line and status 2.

A case is a seed: `draw` says which file is damaged how, and which command then reads it. Cases run one after the other
in a process of their own, whose memory is limited and which is killed when a case takes too long.
"""

import contextlib
import functools
import gzip
import io
import json
import math
import os
import pickle
import random
import re
import resource
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import before_call, finish, start_process
from toy import MERGES, TOY, VOCABULARY, with_stories

import analysis
import convert
import generate
import pretrain
import train
import zero_shot
from common import corpus
from common.shell import one_line_errors
from datasets import TEST_NAME, VAL_NAME

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='limits of memory as Linux has them')
LONGEST, MORE_MEMORY, MOST_MEMORY = 20, 2 ** 32, 2 ** 30              # seconds; bytes that can be had; that may be used

LONGEST_TEXT = 5000                                                    # more would be trained on, rightly, for minutes

SIZE = ['--n_layer', '1', '--n_embd', '16', '--n_head', '2', '--n_ctx', '16']
TRAIN = ['--data_dir', '.', '--model_path', 'model', '--n_valid', '10', '--n_batch', '20', '--n_gpu', '1',
         '--lr', '1e-2', '--n_iter', '1', '--submit']
PRETRAIN = ['--data_dir', 'corpus', '--token_dir', 'tokens', '--n_proc', '1', '--n_iter', '1', '--n_batch', '4',
            '--micro_batch', '4']
INIT, LEARN = [*PRETRAIN, '--model_path', 'model'], [*PRETRAIN, *SIZE, '--vocab_size', '60']
MODEL = [f'model/{name}' for name in (VOCABULARY, MERGES, 'params_shapes.json', 'params_0.npy', 'params_7.npy',
                                      'hparams.json')]
RUN = [f'save/done/{name}' for name in ('config.json', 'best_params.pt', VOCABULARY, MERGES, 'results.json')]
PIECE = '000000-of-000001'
COMMANDS = (                                                           # script, options, files that it reads
    ('train', [*TRAIN, '--desc', 'new'], [VAL_NAME, TEST_NAME, *MODEL]),
    ('train', [*TRAIN, '--desc', 'new', '--data_dir', 'tsv'], ['tsv/cloze_val.tsv', 'tsv/cloze_test.tsv']),
    ('train', ['--desc', 'done', '--predict', 'predict.csv'], ['predict.csv', *RUN]),
    ('train', [*TRAIN, '--desc', 'stopped', '--resume'], ['save/stopped/checkpoint.pt'] * 3),
    ('train', [*TRAIN, '--desc', 'done', '--resume'], ['save/done/results.json'] * 2),
    ('pretrain', [*INIT, '--desc', 'new'], ['corpus/a.txt', 'tokens/ids.npy', *MODEL]),
    ('pretrain', [*INIT, '--desc', 'new', '--token_dir', 'pieces'], [f'pieces/ids/{PIECE}']),
    ('pretrain', [*LEARN, '--desc', 'new', '--token_dir', 'learned'],
     [f'learned/WORDS/{name}' for name in (VOCABULARY, MERGES)] + ['learned/ids.npy']),
    ('pretrain', [*LEARN, '--desc', 'new', '--token_dir', 'pieces'], ['corpus/a.txt', f'pieces/WORDS/counts/{PIECE}']),
    ('pretrain', [*INIT, '--desc', 'half', '--resume'], ['save/half/checkpoint.pt'] * 3),
    ('pretrain', [*INIT, '--desc', 'pretrained', '--resume'], ['save/pretrained/results.json']),
    ('generate', ['--model_path', 'model', '--prompt', 'the cat'], MODEL),
    ('generate', ['--desc', 'done', '--prompt', 'the cat'], RUN),
    ('generate', ['--model_path', 'save/pretrained', '--gen_len', '3'],
     ['prompts.txt', 'save/pretrained/results.json']),
    ('generate', ['--model_path', 'model', '--score', 'text.txt', '--per_token'], ['text.txt', *MODEL]),
    ('zero_shot', ['--model_path', 'model', '--dataset', 'rocstories', '--data_dir', 'tsv'], ['tsv/cloze_val.tsv']),
    ('zero_shot', ['--model_path', 'model', '--dataset', 'sst2', '--data_dir', 'tables'], ['tables/dev.tsv']),
    ('zero_shot', ['--model_path', 'model', '--dataset', 'winograd', '--data_dir', 'tables'], ['tables/test.c.txt']),
    ('convert', ['--from_transformers', 'hf', '--model_path', 'out'],
     [f'hf/{name}' for name in ('config.json', 'model.safetensors', 'vocab.json', 'merges.txt')]),
    ('convert', ['--to_transformers', 'out', '--model_path', 'model'], MODEL),
    ('convert', ['--to_transformers', 'out', '--desc', 'done'], RUN),
    ('analysis', ['log/done.jsonl', 'log/other.jsonl', '--no_figures'], ['log/done.jsonl'] * 2),
    ('analysis', ['log/done.jsonl', 'log/other.jsonl'], ['log/other.jsonl']),
    ('rocstories', [], [TEST_NAME, 'submission/ROCStories.tsv', 'log/done.jsonl']),
)
PAIRS = [(command, name) for command in COMMANDS for name in command[2]]
SCRIPTS = dict(train=train, pretrain=pretrain, generate=generate, zero_shot=zero_shot, convert=convert,
               analysis=analysis)


def prepare(folder, _):
    """Make a folder with all the files, from real runs of the scripts."""
    torch.set_num_threads(1)
    os.chdir(folder)
    with_stories(folder)
    shutil.copytree(TOY, 'model')
    write('model/hparams.json', json.dumps(dict(n_embd=16, n_head=4, n_layer=3, n_ctx=24, afn='gelu')))
    for name, new in ((VAL_NAME, 'tsv/cloze_val.tsv'), (TEST_NAME, 'tsv/cloze_test.tsv')):
        write(new, Path(name).read_text().replace(',', '\t'))
    shutil.copy(TEST_NAME, 'predict.csv')
    write('corpus/a.txt', 'the cat sat with mom and dad in the park .\n\nold friend, new "rain"!\n' * 30)
    write('text.txt', 'the cat sat\n\nmom and dad like the rain .\n')
    write('prompts.txt', 'the cat\n')
    write('tables/dev.tsv', 'sentence\tlabel\nthe cat sat\t1\nold rain day\t0\n')
    write('tables/test.c.txt', 'the cat saw dad and he ran\nhe\ncat,dad\ncat\n\n')
    call('train', [*TRAIN, '--desc', 'done'])
    call('train', ['--desc', 'done', '--predict', 'predict.csv'])
    write('log/other.jsonl', Path('log/done.jsonl').read_text().replace('"seed": 42', '"seed": 7'))
    call('pretrain', INIT)
    call('pretrain', [*LEARN, '--desc', 'learned', '--token_dir', 'learned'])
    for name, argv in (('train', [*TRAIN, '--desc', 'stopped', '--submission_dir', 'unused']),
                       ('pretrain', [*INIT, '--desc', 'half'])):
        before_call(SCRIPTS[name], 'update', 2, stop)
        with pytest.raises(KeyboardInterrupt):
            call(name, [*argv, '--checkpoint_minutes', '0'])
    [tokens], [words] = Path('tokens').glob('*.npy'), Path('learned').glob('vocabulary-*')
    write(f'pieces/{tokens.stem}/{PIECE}', tokens.read_bytes())        # what an interruption leaves
    Path('pieces', words.name, 'counts').mkdir(parents=True)
    [piece], _ = corpus.cut('corpus')
    corpus.count_words((piece, f'pieces/{words.name}/counts/{PIECE}'))
    call('convert', ['--to_transformers', 'hf', '--model_path', 'model'])


def call(script, argv):
    if script == 'rocstories':
        return analysis.rocstories('.', 'submission/ROCStories.tsv', 'log/done.jsonl')
    return SCRIPTS[script].main(SCRIPTS[script].parse_args(argv))


def stop(*_):
    raise KeyboardInterrupt


def write(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode('utf-8', 'surrogatepass'))


# Damages: functions of the path of a file and a generator of random numbers

DEEP = 'DEEP'                                                          # becomes 100,000 brackets in the text of a file
ABSURD = (0, -1, 10 ** 9, 2 ** 63, 10 ** 30, 1.5, 1e308, math.inf, math.nan, True, None, '', 'x', '\ud800', '\0',
          '../x', '/', 'a' * 100_000, [], {}, [[]], [3, 'x'], {'x': 3}, DEEP)


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return open, ('unpickled', 'w')


def truncated(path, rng):
    path.write_bytes(path.read_bytes()[:rng.randrange(1, max(path.stat().st_size - 1, 2))])


def bits_flipped(path, rng):
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3))):
        data[rng.randrange(min(len(data), 1 << rng.randrange(4, 20)))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


PIECES = (b'\0', b'\xff', b'\xed\xa0\x80', b'\n', b'\r', b'"', b'\t', b',', b'-', b'9' * 30, b'\x1b[0m',
          '\u2028'.encode(), b'[' * 100_000, b'x' * 2 ** 21, b'\n' * 2 ** 18, b'\0' * 2 ** 21)


def piece_replaced(path, rng):
    data, n_lost = path.read_bytes(), rng.choice((0, 0, 1, 10, 100))
    place = rng.choice((0, rng.randrange(len(data)), len(data)))
    piece = (rng.choice(PIECES) * rng.choice((1, 1, 3)))[:LONGEST_TEXT if path.suffix == '.txt' else None]
    path.write_bytes(data[:place] + piece + data[place + n_lost:])


def swapped(path, rng):
    other = rng.choice(sorted({name for _, name in PAIRS}))
    path.write_bytes(existing(other).read_bytes())


def of_other_encoding(path, rng):
    text = path.read_bytes().decode('latin-1')
    path.write_bytes(rng.choice((text.encode('utf-16'), text.encode('utf-16-le'), gzip.compress(text.encode()),
                                 b'\xef\xbb\xbf' + text.encode(), text.replace('\n', '\r').encode('latin-1'))))


def replaced(make):
    def damage(path, rng):
        path.unlink()
        make(path)
    damage.__name__ = make.__name__
    return damage


def empty(path, rng):
    path.write_bytes(b'')


def pickled(path, rng):
    path.write_bytes(pickle.dumps(Trap()))


def torch_pickled(path, rng):
    torch.save({'state': Trap()}, path)


def symlink_loop(path):
    path.symlink_to(path.name)


def missing(path):
    pass


def grown(path, rng):
    """A TiB of zeros follows, which takes no room on the disk."""
    os.truncate(path, 2 ** 40)


def unreadable(path, rng):
    path.chmod(0)                                                      # root reads it all the same


def absurd_inside(value, rng):
    """Change one place in a json value; a list or dict inside is entered more often than replaced."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        if not (isinstance(value[key], dict | list) and value[key] and rng.random() < 0.7):
            break
        value = value[key]
    kind = rng.choice(('absurd', 'absurd', 'absurd', 'deleted', 'twice'))
    if kind == 'deleted':
        del value[key]
    elif kind == 'absurd' or not isinstance(value, dict):
        value[key] = rng.choice(ABSURD)
    else:
        value[f'{key}{rng.choice(("", "TWICE"))}'] = rng.choice(ABSURD)
        value[rng.choice(('extra', 'sub\nmit', '\ud800', 'n_head'))] = rng.choice(ABSURD)


def key_changed(path, _, place, value):
    """Change what one key has, inside the keys before it; DEEP stands for no such key."""
    whole = inside = json.loads(path.read_bytes())
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    if value == DEEP:
        del inside[place[-1]]
    write(path, as_json(whole))


def as_json(value):
    text = json.dumps(value, ensure_ascii=False).replace(f'"{DEEP}"', '[' * 100_000 + ']' * 100_000)
    return text.replace('TWICE', '')


def json_changed(path, rng):
    value = json.loads(path.read_bytes())
    if rng.random() < 0.15:
        value = rng.choice(ABSURD)
    else:
        absurd_inside(value, rng)
    write(path, as_json(value))


def line_changed(path, rng):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    absurd_inside(lines if rng.random() < 0.1 else rng.choice(lines), rng)
    write(path, ''.join(as_json(line) + '\n' for line in lines))


def field_changed(path, rng):
    lines = path.read_bytes().decode('utf-8', 'replace').split('\n')
    i, end = rng.randrange(len(lines)), next((end for end in '\t, ' if end in lines[0]), ' ')
    fields = lines[i].split(end)
    k = rng.randrange(len(fields))
    value = rng.choice((*map(str, ABSURD), 'nan', '１', '3', '&nbsp;', '"', 'x"y', '_', '\r', '[' * 10_000,
                        'e\u0301' * 9999, '<b>' * 3000, '.' * 30_000, "'" * 30_000, 'http://' * 3000, 'a-' * 9999))
    value = value[:LONGEST_TEXT if path.suffix == '.txt' else None]
    lines[i] = end.join(rng.choice(([*fields[:k], value, *fields[k + 1:]], fields[:k] + fields[k + 1:],
                                    [*fields, value], [fields[k]] * len(fields))))
    write(path, '\n'.join(lines))


TENSORS = (
    lambda x: x[None], lambda x: x.double(), lambda x: x.half(), lambda x: x.bool(), lambda x: x.cfloat(),
    lambda x: x[:0], lambda x: x.flatten()[:1], lambda x: x.to_sparse(), lambda x: x.to('meta'),
    lambda x: torch.tensor(3), lambda x: torch.full_like(x, math.nan), lambda x: torch.full_like(x, 10 ** 9),
    lambda x: torch.zeros(1).expand(x.shape), lambda x: torch.zeros(1).expand(2 ** 36),
    lambda x: torch.zeros(1, 1).expand(2 ** 20, 2 ** 20))


def tensor_changed(path, rng):
    state = value = torch.load(path, weights_only=True)
    if rng.random() < 0.05:
        state = rng.choice((torch.zeros(3), [state], *ABSURD))
    else:
        while True:
            key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
            if not (isinstance(value[key], dict | list) and value[key] and rng.random() < 0.9):
                break
            value = value[key]
        kind = rng.choice(('absurd', 'tensor', 'tensor', 'tensor', 'deleted', 'extra'))
        if kind == 'tensor' and isinstance(value[key], torch.Tensor):
            with contextlib.suppress(Exception):                       # not every change fits every tensor
                value[key] = rng.choice(TENSORS)(value[key])
        elif kind == 'deleted':
            del value[key]
        elif kind == 'extra' and isinstance(value, dict):
            value[rng.choice(('extra', 3, None))] = rng.choice(ABSURD)
        else:
            value[key] = rng.choice((*ABSURD, (), (1, 2)))
    torch.save(state, path, _use_new_zipfile_serialization=rng.random() < 0.8)


@functools.cache
def compressed(n_bytes):
    """So many zeros as zip files keep them, after the header of an array of numpy."""
    header, out = io.BytesIO(), zlib.compressobj(wbits=-15)
    np.lib.format.write_array_header_1_0(header, dict(descr='<u2', fortran_order=False, shape=(n_bytes // 2,)))
    first = out.compress(header.getvalue()) + out.flush(zlib.Z_FULL_FLUSH)
    part = out.compress(bytes(2 ** 24)) + out.flush(zlib.Z_FULL_FLUSH)
    return first + part * (n_bytes // 2 ** 24) + out.flush()


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zip_bomb(path, rng):
    """One member unpacks to more memory than may be used."""
    members, n_bytes = members_of(path), 3 * 2 ** 29
    large = rng.choice(list(members))
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in members.items():
            archive.writestr(name, compressed(n_bytes) if name == large else data)
        info = archive.getinfo(large)
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, n_bytes


def member_changed(path, rng):
    """Write the archive anew with one member damaged; its check sums are right."""
    members = members_of(path)
    name = rng.choice([*members, *[name for name in members if name.endswith('.pkl')] * 3])
    part = path.parent / 'member'
    part.write_bytes(members[name] or b'x')
    rng.choice((truncated, bits_flipped, piece_replaced, *[header_changed] * name.endswith('.npy')))(part, rng)
    members[name] = part.read_bytes()
    part.unlink()
    with zipfile.ZipFile(path, 'w', rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2))) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


HEADERS = (
    *(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}" for descr, order, shape in (
        ("'<f4'", False, '(1000000000000000,)'), ("'<u2'", False, '(1000000000,)'), ("'<f4'", False, '(-1,)'),
        ("'<f4'", True, '(1000000, 1000000, 1000000)'), ("'|O'", False, '(3,)'), ("'<f4'", False, '(1e9,)'),
        ("'|V2000000000'", False, '(3,)'), ("[('x', '<f4', (1000000000,))]", False, '(1,)'))),
    "{'descr': '<f4', 'shape': ()}", '', '{}', '(' * 9000, '-' * 9000 + '1', '[' * 60_000)


def header_changed(path, rng):
    data, header = path.read_bytes()[128:], rng.choice(HEADERS).encode()
    version, size = rng.choice(((1, 2), (2, 4), (3, 4), (9, 4)))
    n = min(len(header) + rng.choice((0, 0, 1, 40_000)), 2 ** (8 * size) - 1)
    path.write_bytes(b'\x93NUMPY' + bytes((version, 0)) + n.to_bytes(size, 'little') + header + data)


def safetensors_header_changed(path, rng):
    data = path.read_bytes()
    n = int.from_bytes(data[:8], 'little')
    header, rest = json.loads(data[8:8 + n]), data[8 + n:]
    absurd_inside(header, rng)
    new = as_json(header).encode('utf-8', 'surrogatepass')
    path.write_bytes(rng.choice((len(new), len(new), len(new), 2 ** 40, 2 ** 63)).to_bytes(8, 'little') + new + rest)


CONTENT = [truncated, bits_flipped, piece_replaced, piece_replaced, swapped, of_other_encoding, empty, pickled,
           torch_pickled]
ANY = [*CONTENT, grown, grown, unreadable, replaced(missing), replaced(Path.mkdir), replaced(os.mkfifo),
       replaced(symlink_loop)]
OF_KIND = {'.json': [json_changed], '.jsonl': [line_changed], '.csv': [field_changed], '.npy': [header_changed],
           '.pt': [tensor_changed] * 4 + [member_changed, zip_bomb],
           '.safetensors': [safetensors_header_changed]}
OF_KIND |= {'.bin': OF_KIND['.pt'], **dict.fromkeys(('.tsv', '.txt', '.bpe'), [field_changed])}


def draw(seed):
    """The command of a case, the file that it damages and the damage. Seeds in a row go round all files.

    Besides numbers there are the seeds of `each_key`.
    """
    if isinstance(seed, tuple):
        command, name, place, value = seed
        return command, name, functools.partial(key_changed, place=place, value=value), None
    rng = random.Random(seed)
    command, name = random.Random(seed // len(PAIRS)).sample(PAIRS, len(PAIRS))[seed % len(PAIRS)]
    suffix = '.json' if 'counts' in name else '.npy' if name.endswith(PIECE) else Path(name).suffix
    damages = OF_KIND[suffix] if rng.random() < 0.5 else CONTENT if name == 'prompts.txt' else ANY
    return command, name, rng.choice(damages), rng


def each_key(base):
    """Seeds that change each key of the json files that hold options, one by one."""
    for command, name in PAIRS:
        if name.endswith(('config.json', 'results.json', 'hparams.json')):
            whole = json.loads((base / name).read_bytes())
            places = [(key, *inner) for key, value in whole.items() for inner in
                      [(), *((k,) for k in (value if isinstance(value, dict) else ()))]]
            for place in places:
                for value in (DEEP, -1, 10 ** 30, math.nan, True, None, 'x', [], {'x': 3}):
                    yield command, name, place, value


def existing(name):
    """The file of a name in PAIRS, some of which have a hash in them."""
    for pattern in (name, name.replace('WORDS', 'vocabulary-*'), re.sub('/ids([./])', r'/*\1', name)):
        for path in sorted(Path('.').glob(pattern)):
            if path.is_file():
                return path
    raise FileNotFoundError(name)


def stamps():
    """What tells whether a file in the working directory was touched, by its path; None for a folder."""
    paths = {str(path): path.lstat() for path in Path('.').rglob('*')}
    return {path: None if stat.S_ISDIR(info.st_mode) else (info.st_mtime_ns, info.st_ino, info.st_size)
            for path, info in paths.items()}


class Copy:
    """A copy of the folder `base` as the working directory; a case changes it and `restore` mends what was touched."""

    def __init__(self, base, folder):
        self.base = base
        shutil.copytree(base, folder)
        os.chdir(folder)
        self.stamps = stamps()

    def touched(self):
        now = stamps()
        return sorted(path for path in {**self.stamps, **now} if self.stamps.get(path, 0) != now.get(path, 0))

    def restore(self):
        touched = self.touched()
        for path in map(Path, touched):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()
        for path in touched:
            if path in self.stamps and self.stamps[path] is None:
                os.mkdir(path)
            elif path in self.stamps:
                shutil.copy(self.base / path, path)
        if touched:
            self.stamps = stamps()


def run(seed):
    """Run the command of a case as from a shell: its status, None for a traceback, and what it wrote on stderr."""
    (script, argv, _), name, _, _ = draw(seed)
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [f'{script}.py']
    parse_args = SCRIPTS[script].parse_args if script in SCRIPTS else list
    main = SCRIPTS[script].main if script in SCRIPTS else functools.partial(call, script)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            with open(name if name == 'prompts.txt' else os.devnull, encoding='utf-8') as sys.stdin:
                with one_line_errors():
                    main(parse_args(argv))
        return 0, err.getvalue()
    except SystemExit as e:
        return e.code, err.getvalue()
    except BaseException as e:
        return None, f'{type(e).__name__}: {e}'[:300]


def judge(status, err, path, damage, copy):
    """What is wrong with the end of a case; an empty string if all is well."""
    lines = [line for line in re.split('[\n\r]+', err) if line and not re.search(r'%\||are no \*\.txt files', line)]
    if status is None:
        return f'traceback: {err}'
    if os.path.exists('unpickled'):
        return 'unpickled'
    changed = [file for file in copy.touched() if copy.stamps.get(file) and file != str(path)
               and not file.endswith('.lock') and (not os.path.isfile(file)
               or Path(file).read_bytes() != (copy.base / file).read_bytes())]
    if status == 0 and damage == 'truncated' and path.suffix in ('.json', '.npy', '.pt', '.bin', '.safetensors'):
        return 'a truncated file was taken'
    if status == 0 and damage == 'bits_flipped' and path.suffix == '.pt':
        results = [file for file in changed if file.startswith('submission')]
        results += [str(file) for file in Path('save/half').glob('params_*')
                    if file.read_bytes() != (copy.base / 'save/pretrained' / file.name).read_bytes()]
        return f'other results: {results}' if results else ''
    if status == 0:
        return ''
    if status != 2 or len(lines) != 1 or len(lines[0]) >= 500 or ' error: ' not in lines[0]:
        return f'status {status}, {len(lines)} lines: {lines}'[:500]
    words = (path.name, path.parent.name, *path.stem.split('_'), 'n_', 'afn', 'lower --lr', 'standard input',
             'the text is empty')
    if not any(word and word in lines[0] for word in words):
        return f'no name of a file: {lines[0]}'
    return f'{changed} changed, though it ended with {lines[0]}' if changed else ''


def run_case(copy, seed):
    """A dict that says how the case ended."""
    _, name, damage, rng = draw(seed)
    path = existing(name)
    damage(path, rng)
    with contextlib.suppress(OSError), open('/proc/self/clear_refs', 'w') as f:
        f.write('5')                                                   # the peak begins anew
    start = time.time()
    status, err = run(seed)
    end = dict(described(seed), status=status, seconds=time.time() - start, peak=of_process('VmHWM'), err=err[:500],
               wrong=judge(status, err, path, damage_name(damage), copy))
    copy.restore()
    return end


def described(seed):
    (script, argv, _), name, damage, _ = draw(seed)
    what = f'{script} {" ".join(argv)}: {name} {damage_name(damage)} {getattr(damage, "keywords", "")}'
    return dict(seed=str(seed)[:20], name=name, what=what)


def damage_name(damage):
    return getattr(damage, '__name__', 'key_changed')


def of_process(name):
    """A number of bytes in /proc/self/status."""
    return 1024 * int(re.search(rf'{name}:\s*(\d+)', Path('/proc/self/status').read_text())[1])


def work(base, folder, seeds, connection):
    """Run cases in a process of its own, and send how each ended."""
    torch.set_num_threads(1)
    copy = Copy(base, folder)
    limit = of_process('VmSize') + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for seed in seeds:
        connection.send(run_case(copy, seed))


def run_cases(base, folder, seeds):
    """How each case ended, in a list. A process that ends or hangs is replaced for the cases that are left."""
    ends, seeds = [], list(seeds)
    while len(ends) < len(seeds):
        process, connection = start_process(work, base, folder / str(len(ends)), seeds[len(ends):])
        wrong, waits = None, 60                                        # the first imports
        while not wrong and len(ends) < len(seeds):
            try:
                wrong = None if connection.poll(waits) else 'hangs'
                ends += [] if wrong else [connection.recv()]
                waits = LONGEST
            except EOFError:
                process.join()
                wrong = f'the process ended with {process.exitcode}'
        if wrong:
            ends.append(dict(described(seeds[len(ends)]), status=None, seconds=waits, peak=0, err='', wrong=wrong))
        process.kill()
        process.join()
    return ends


def table(ends):
    """Lines of a table: what came of the cases of each file."""
    by_file = defaultdict(list)
    for end in ends:
        by_file[end['name']].append(end)
    yield 'file | cases | ended well | one line, status 2 | traceback | hang | otherwise wrong | longest, s | peak, MiB'
    for name, of_file in [*sorted(by_file.items()), ('all', ends)]:
        n = Counter(end['wrong'].partition(':')[0] or end['status'] for end in of_file)
        rest = len(of_file) - n[0] - n[2] - n['traceback'] - n['hangs']
        numbers = (len(of_file), n[0], n[2], n['traceback'], n['hangs'], rest)
        yield ' | '.join([name, *map(str, numbers), f'{max(end["seconds"] for end in of_file):.1f}',
                          f'{max(end["peak"] for end in of_file) / 2 ** 20:.0f}'])


def check(base, folder, seeds):
    ends = run_cases(base, folder, seeds)
    for end in ends:
        if not end['wrong'] and end['peak'] > MOST_MEMORY:
            end['wrong'] = f'took {end["peak"] / 2 ** 20:.0f} MiB'
    print('\n'.join(table(ends)))
    wrong = [f'case {end["seed"]}: {end["what"]}: {end["wrong"]}' for end in ends if end['wrong']]
    assert not wrong, '\n'.join([f'{len(wrong)} of {len(ends)}:', *wrong])


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp('base')
    finish(start_process(prepare, folder)[0], 0)
    return folder


def test_damaged_files_get_one_line_or_do_no_harm(base, tmp_path):
    check(base, tmp_path, range(150))


def test_files_with_hashes_that_have_grown_or_are_of_another_run(base, tmp_path):
    """A terabyte is not read to compare its hash."""
    names = ('best_params.pt', 'ids.npy', 'learned/WORDS/encoder_bpe_40000.json', PIECE, 'results.json')
    seeds = {damage: [seed for seed in range(150, 5150) if draw(seed)[2] is damage and draw(seed)[1].endswith(names)]
             for damage in (grown, swapped)}
    check(base, tmp_path, seeds[grown][:16] + seeds[swapped][-16:])


@pytest.mark.slow
def test_thousands_of_damaged_files(base, tmp_path):
    check(base, tmp_path, range(150, 5150))


@pytest.mark.slow
def test_each_key_of_the_files_with_options(base, tmp_path):
    check(base, tmp_path, each_key(base))
