import contextlib
import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference import needs_float16

import train
from common import device
from common.device import DTYPES, choose_device, grad_scaler
from common.shell import run_script
from tasks.readers import table_rows
from utils import (
    ResultLogger,
    encode_dataset,
    iter_data,
    make_path,
    read_json,
    read_sealed,
    read_text,
    write_sealed,
    write_whole,
)

ROOT = Path(__file__).parents[1]


class Lengths:
    """Encodes a text of n characters as n times the number n."""
    encoder = {}

    def encode(self, texts, verbose=True):
        return [[len(text)] * len(text) for text in texts]


def test_only_text_fields_are_encoded():
    train, test = encode_dataset((['a', 'bb'], ['ccc'], [1, 0]), (['dddd'], []), encoder=Lengths())
    assert train == [[[1], [2, 2]], [[3, 3, 3]], [1, 0]] and test == [[[4] * 4], []]


def test_batches():
    x, y = np.arange(7), np.arange(7) * 10
    assert [b.tolist() for b in iter_data(x, n_batch=3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [b.tolist() for b in iter_data(x, n_batch=3, truncate=True)] == [[0, 1, 2], [3, 4, 5]]
    assert [(a.tolist(), b.tolist()) for a, b in iter_data(x, y, n_batch=4)] == [
        ([0, 1, 2, 3], [0, 10, 20, 30]), ([4, 5, 6], [40, 50, 60])]
    assert len(list(iter_data(x, n_batch=2, max_batches=2))) == 2


def test_log_is_one_json_object_a_line_and_complete_at_once(tmp_path):
    path = tmp_path / 'new' / 'run.jsonl'
    logger = ResultLogger(str(path), lr=0.1, desc='run')
    logger.log(n_epochs=1, va_acc=50.)
    options, line = map(json.loads, path.read_text().splitlines())     # the log is not closed yet
    assert options['lr'] == 0.1 and line['va_acc'] == 50. and line['time'] >= options['time']


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'a' / 'file'
    with write_whole(str(path)) as f:
        f.write('first')
    with pytest.raises(RuntimeError), write_whole(str(path)) as f:
        f.write('second')
        f.flush()
        raise RuntimeError
    assert path.read_text() == 'first' and len(list(path.parent.iterdir())) == 1


def test_temporary_names_are_random_and_links_are_not_followed(tmp_path):
    names = set()
    for _ in range(2):
        with write_whole(str(tmp_path / 'file')) as f:
            names.add(f.name)
    assert len(names) == 2 and all(name.startswith(f'{tmp_path}/file.') and name.endswith('.part') for name in names)
    (tmp_path / 'victim').write_text('keep')
    (tmp_path / f'file.{os.getpid()}.part').symlink_to('victim')
    (tmp_path / 'link').symlink_to('victim')
    for name in ('file', 'link'):
        with write_whole(str(tmp_path / name)) as f:
            f.write('new')
    assert (tmp_path / 'victim').read_text() == 'keep' and (tmp_path / 'link').read_text() == 'new'


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        with write_whole(str(tmp_path / 'file')) as f:
            f.write('x')
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / 'file').st_mode) == 0o640


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), OSError('9 requested, 4 written')])
def test_a_full_disk_names_the_file_that_stays(tmp_path, monkeypatch, error):
    path = tmp_path / 'file'
    path.write_text('first')

    def full(_):
        raise error

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError) as raised, write_whole(str(path)) as f:
        f.write('second')
    assert str(path) in str(raised.value) and 'None' not in str(raised.value)
    assert path.read_text() == 'first' and os.listdir(tmp_path) == ['file']


def test_arrays_that_do_not_fit_name_their_file(tmp_path):
    """The error of numpy has neither an errno nor a file name."""
    code = (f'import numpy as np, resource, utils\nresource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))\n'
            f'with utils.write_whole("{tmp_path}/x.npy", "wb") as f: np.save(f, np.zeros(9999))')
    err = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE, text=True).stderr
    assert f'{tmp_path}/x.npy' in err.splitlines()[-1] and 'None' not in err.splitlines()[-1]
    assert os.listdir(tmp_path) == []


def test_a_log_on_a_full_disk_keeps_whole_lines_and_says_where(tmp_path):
    path = tmp_path / 'run.jsonl'
    logger = ResultLogger(str(path), lr=0.1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (20, 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
        try:
            with pytest.raises(OSError, match='run.jsonl'):
                logger.log(text='x' * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(path.read_text().splitlines()) == 1


READERS = [read_text, read_json, lambda path: list(table_rows(path))]


@pytest.mark.parametrize('read', READERS)
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'loop').symlink_to('loop')
    for path in (tmp_path, tmp_path / 'pipe', tmp_path / 'loop', tmp_path / 'absent', '/dev/zero'):
        with pytest.raises(FileNotFoundError, match='is missing, or is not a file'):
            read(str(path))


@pytest.mark.parametrize('read', READERS)
def test_a_file_of_absurd_size_is_refused_before_it_is_read(tmp_path, read):
    with open(tmp_path / 'huge', 'wb') as f:
        f.truncate(10 ** 12)
    start = time.time()
    with pytest.raises(ValueError, match='huge has 1,000,000,000,000 bytes, but such a file has at most'):
        read(str(tmp_path / 'huge'))
    assert time.time() - start < 1


@pytest.mark.parametrize('data, words', [
    (b'[' * 10 ** 6, 'not a json object'), (b'{"a":' * 10 ** 6, 'not a json object'), (b'[1]', 'not a json object'),
    (b'{"a": 1' + b'0' * 5000 + b'}', 'not a json object'), (b'{"a": \xff}', 'line 1: byte 0xff is not UTF-8'),
    ('{"a": 1}'.encode('utf-16'), 'UTF-16: save it as UTF-8'), (b'\x1f\x8b\x08', 'gzip')])
def test_wrong_json_gets_one_line(tmp_path, data, words):
    (tmp_path / 'x.json').write_bytes(data)
    with pytest.raises(ValueError, match=words) as error:
        read_json(str(tmp_path / 'x.json'))
    assert 'x.json' in str(error.value) and '\n' not in str(error.value)


def test_a_table_gives_lines_and_fields(tmp_path):
    (tmp_path / 'dev.tsv').write_bytes(b'\xef\xbb\xbfSentence\tLabel\n"good\t1\n\n\t0\n')
    assert list(table_rows(tmp_path / 'dev.tsv')) == [(1, ['Sentence', 'Label']), (2, ['"good', '1']), (4, ['', '0'])]
    (tmp_path / 'dev.csv').write_bytes(b'Sentence,Label\r\n"go,\r\nod",1\r\n,\r\n\r\nbad,0')
    assert list(table_rows(tmp_path / 'dev.csv')) == [
        (1, ['Sentence', 'Label']), (2, ['go,\r\nod', '1']), (4, []), (6, ['bad', '0'])]
    (tmp_path / 'dev.csv').write_bytes(b'')
    assert list(table_rows(tmp_path / 'dev.csv')) == []


def test_make_path(tmp_path):
    assert make_path(str(tmp_path / 'a' / 'b' / 'f')).endswith('f') and (tmp_path / 'a' / 'b').is_dir()
    assert make_path('f') == 'f'


def test_the_model_folder_sets_defaults_and_the_command_line_wins(tmp_path):
    (tmp_path / 'hparams.json').write_text('{"n_embd": 96, "n_layer": 2}')
    argv = ['--model_path', str(tmp_path), '--n_layer', '3']
    args = train.parse_args(argv)
    assert (args.n_embd, args.n_layer, args.n_head) == (96, 3, 12)
    assert args.encoder_path == str(tmp_path / 'encoder_bpe_40000.json') and args.bpe_path.endswith('vocab_40000.bpe')
    (tmp_path / 'hparams.json').write_text('{"n_heads": 4}')
    with pytest.raises(ValueError, match="hparams.json: 'n_heads' is no option"):
        train.parse_args(argv)
    (tmp_path / 'hparams.json').write_text('{')
    with pytest.raises(ValueError, match='hparams.json is not a json object'):
        train.parse_args(argv)


def test_a_device_that_is_not_there_is_named():
    assert choose_device('cpu', 'float32')[0].type == 'cpu'
    for name in ('tpu9', 'meta', 'hpu', 'xla'):
        with pytest.raises(ValueError, match=f'--device {name}') as raised:
            choose_device(name, 'float32')
        assert len(str(raised.value)) < 250


@pytest.mark.parametrize('flags, chosen', [
    (['avx512f'], 'float32'), (['avx512f', 'avx512_bf16'], 'bfloat16'), (['amx_bf16'], 'bfloat16')])
def test_the_automatic_dtype_is_fast(monkeypatch, capsys, flags, chosen):
    monkeypatch.setattr(device, 'cpu_info', lambda field: flags)
    args = train.parse_args(['--device', 'cpu', '--dtype', 'auto'])
    _, autocast = device.device_of(args)
    assert capsys.readouterr().err == f'--dtype auto: {args.dtype}\n' and args.dtype == chosen
    with autocast:
        assert str((torch.ones(2, 2) @ torch.ones(2, 2)).dtype) == f'torch.{args.dtype}'


def test_a_dtype_that_torch_lacks_is_refused_before_anything_is_computed(monkeypatch):
    class Autocast(contextlib.nullcontext):
        def __init__(self, *_, **__):                                  # what torch 2.0.1 does for float16 on a CPU
            warnings.warn('Disabling autocast.', stacklevel=1)

        def __enter__(self):
            raise RuntimeError('AutocastCPU only support Bfloat16')

    monkeypatch.setattr(torch, 'autocast', Autocast)
    with pytest.raises(ValueError, match='--device cpu, --dtype float16: AutocastCPU only support Bfloat16'):
        choose_device('cpu', 'float16')


@pytest.mark.parametrize('is_old', [pytest.param(False, marks=needs_float16), True])
def test_the_loss_is_scaled_in_float16_alone(monkeypatch, is_old):
    if is_old:                                                         # torch 2.0.1 has a scaler for CUDA alone
        monkeypatch.delattr(torch.amp, 'GradScaler', raising=False)
        monkeypatch.setattr(torch.cuda.amp, 'GradScaler', lambda enabled: SimpleNamespace(is_enabled=lambda: enabled))
    for dtype in DTYPES:
        assert grad_scaler(torch.device('cpu'), dtype).is_enabled() == (dtype == 'float16')


@pytest.mark.parametrize('error, status, words', [
    (ValueError('n_ctx=4 is short'), 2, 'error: n_ctx=4 is short'),
    (FileNotFoundError('x is missing'), 2, 'x is missing'),
    (ArithmeticError('loss is nan'), 2, 'loss is nan'), (KeyboardInterrupt(), 130, 'interrupted'),
    (ValueError('two\nlines'), 2, 'error: two lines'), (BrokenPipeError(), 141, 'the reader of the output has ended'),
    (MemoryError(), 2, 'not enough memory'), (type('OutOfMemoryError', (RuntimeError,), {})('CUDA'), 2, 'memory: CUDA'),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 bytes"), 2, 'not enough memory')])
def test_a_mistake_ends_in_one_line(capsys, error, status, words):
    def main(_):
        raise error
    with pytest.raises(SystemExit) as end:
        run_script(main, None)
    err = capsys.readouterr().err
    assert end.value.code == status and words in err and err.count('\n') == 1


@pytest.mark.parametrize('allocate', [
    lambda: np.zeros(10 ** 17), lambda: torch.empty(10 ** 17), lambda: torch.empty(10 ** 10, 10 ** 10),
    lambda: bytearray(10 ** 17)], ids=['numpy', 'torch', "torch's sizes", 'Python'])
def test_memory_that_is_not_there_is_one_line(capsys, allocate):
    with pytest.raises(SystemExit) as end:
        run_script(lambda _: allocate(), None)
    err = capsys.readouterr().err
    assert end.value.code == 2 and 'not enough memory' in err and err.count('\n') == 1


@pytest.mark.parametrize('error', [TypeError('a bug'), RuntimeError('another')])
def test_a_bug_keeps_its_traceback(error):
    def main(_):
        raise error
    with pytest.raises(type(error)):
        run_script(main, None)


SCRIPT = """
from common import shell
args = shell.begin_script(dict)
import time
IMPORTING
def main(args):
    WORK
shell.run_script(main, args)
"""


def script(work='', importing='', **kwargs):
    code = SCRIPT.replace('WORK', work or 'pass').replace('IMPORTING', importing)
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONUNBUFFERED'}
    return subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True,
                            **kwargs)


@pytest.mark.parametrize('importing, work', [
    ('print(1, flush=True); time.sleep(9)', ''), ('', 'print(1, flush=True); time.sleep(9)'),
    ('try: print(1, flush=True) or time.sleep(9)\nexcept KeyboardInterrupt: pass', '')],
    ids=['imports', 'main', 'imports that catch it'])
def test_an_interrupt_is_one_line_at_any_time(importing, work):
    with script(work, importing, stdout=subprocess.PIPE,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == '-c: interrupted\n' and process.returncode == 130


@pytest.mark.parametrize('work, status', [
    ('print("x" * 10 ** 6)', 141), ('print("x")', 141), ('print("x"); raise SystemExit(3)', 3),
    ('print("x"); raise ValueError("no")', 2)])
def test_a_closed_pipe_does_not_end_in_a_traceback(work, status):
    read, write = os.pipe()
    os.close(read)
    with script(work, stdout=write) as process:
        os.close(write)
        err = process.communicate(timeout=20)[1]
    message = {141: 'stopped: the reader of the output has ended', 2: 'error: no', 3: ''}[status]
    assert err == (f'-c: {message}\n' if message else '') and process.returncode == status


def test_output_to_a_full_disk_is_one_line_and_status_2():
    with open('/dev/full', 'w') as full, script('print("x")', stdout=full) as process:
        err = process.communicate(timeout=20)[1]
        assert err == '-c: error: [Errno 28] No space left on device\n' and process.returncode == 2


def test_a_sealed_file_that_was_changed_or_renamed_is_refused(tmp_path):
    path, value = tmp_path / 'config.json', dict(b=[1, 0.1, None], a={'x': 'é'})
    write_sealed(path, value)
    assert read_sealed(path) == value
    whole = path.read_text()
    (tmp_path / 'results.json').write_text(whole)
    for name, text in (('results.json', whole), ('config.json', whole.replace('0.1', '0.2')), ('config.json', '{}'),
                       ('config.json', json.dumps(value)), ('config.json', whole.replace('"a"', '"c"'))):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f'{name} is not as this program wrote it: .* version; look'):
            read_sealed(tmp_path / name, hint='; look')
    path.write_text(json.dumps(json.loads(whole), indent=4))           # other spaces are no other value
    assert read_sealed(path) == value
