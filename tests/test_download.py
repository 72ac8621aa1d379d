"""model/download.py against a small web server on this machine. All tests but the last use made-up files."""
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTENT = {'params_0.npy': bytes(range(256)) * 2000, 'vocab.bpe': b'#version: 0.2\nt h\n'}   # 512,000 and 18 bytes
# computed once with `git hash-object`, so that git_blob_id is not tested against itself
BLOB_IDS = {
    'params_0.npy': '85ca3d5aeed19f818566b9244ef5ad7d1d11174a',
    'vocab.bpe': 'a5c16e52402a19980636c2f7fff32468757410ff',
}


class Handler(BaseHTTPRequestHandler):
    """Serves server.content under /model/; attributes of the server switch on its faults."""

    def do_GET(self):
        asked = self.headers.get('Range')
        self.server.requests.append((self.path, asked))
        if self.server.statuses:
            return self.send_error(self.server.statuses.pop(0))
        name = self.path.removeprefix('/model/')
        if name not in self.server.content:
            return self.send_error(404)
        if self.server.hostile:
            return self.server.hostile(self)
        data = self.server.content[name]
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked and self.server.ranges else 0
        if start and start >= len(data):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
        self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None      # close the connection after this many bytes
        self.wfile.write(data[start:][:cut])
        if self.server.stall:
            self.wfile.flush()
            self.server.stall.wait(20)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.content, server.requests, server.statuses, server.cuts = dict(CONTENT), [], [], []
    server.ranges, server.stall, server.hostile = True, None, None
    server.url = f'http://127.0.0.1:{server.server_port}/model'
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
    yield server
    if server.stall:
        server.stall.set()
    server.shutdown()
    server.server_close()


def load():
    spec = importlib.util.spec_from_file_location('download', ROOT / 'model' / 'download.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def download(monkeypatch):
    module = load()
    monkeypatch.setattr(module, 'FILES', BLOB_IDS)
    monkeypatch.setattr(module, 'PAUSES', (0, 0, 0))
    monkeypatch.setenv('no_proxy', '*')
    return module


def run(download, to, source, *options):
    return download.main(download.parse_args(['--model_path', str(to), '--from', str(source), *options]))


def one_line(capsys):
    """The last line on stderr, which has no traceback."""
    err = capsys.readouterr().err
    assert 'Traceback' not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith('download.py: ')
    return line


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize('slash', ['', '/'])
def test_downloads_each_file_once(download, server, tmp_path, slash, capsys):
    to = tmp_path / 'new' / 'model'
    assert run(download, to, server.url + slash) == 0
    assert contents(to) == CONTENT
    assert server.requests == [('/model/params_0.npy', None), ('/model/vocab.bpe', None)]
    assert run(download, to, server.url + slash) == 0
    assert len(server.requests) == 2
    assert f'2 of 2 files are right in {to}' in capsys.readouterr().out


def test_a_cut_connection_is_resumed_with_the_missing_bytes_only(download, server, tmp_path):
    server.cuts = [300_000, 200_000]
    assert run(download, tmp_path, server.url) == 0
    assert contents(tmp_path) == CONTENT
    assert server.requests[:3] == [('/model/params_0.npy', None), ('/model/params_0.npy', 'bytes=300000-'),
                                   ('/model/params_0.npy', 'bytes=500000-')]


def test_gives_up_after_a_few_cuts_and_the_next_run_continues(download, server, tmp_path, capsys):
    server.cuts = [1000] * 4
    assert run(download, tmp_path, server.url) == 2
    assert 'closed after 4,000 of 512,000 bytes; run again to continue' in one_line(capsys)
    assert contents(tmp_path) == {'params_0.npy.part': CONTENT['params_0.npy'][:4000]}
    assert run(download, tmp_path, server.url) == 0
    assert server.requests[4] == ('/model/params_0.npy', 'bytes=4000-')
    assert contents(tmp_path) == CONTENT


def test_a_server_that_ignores_range_sends_the_file_from_the_beginning(download, server, tmp_path):
    server.ranges = False
    server.cuts = [300_000]
    assert run(download, tmp_path, server.url) == 0
    assert [asked for _, asked in server.requests] == [None, 'bytes=300000-', None]      # the last is for vocab.bpe
    assert contents(tmp_path) == CONTENT


def test_a_complete_part_is_used_as_it_is(download, server, tmp_path):
    (tmp_path / 'params_0.npy.part').write_bytes(CONTENT['params_0.npy'])
    assert run(download, tmp_path, server.url) == 0
    assert server.requests == [('/model/params_0.npy', 'bytes=512000-'), ('/model/vocab.bpe', None)]
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize('part', [CONTENT['params_0.npy'] + b'more', b'<!DOCTYPE html>'], ids=['long', 'other'])
def test_a_part_of_something_else_is_dropped_and_the_file_fetched(download, server, tmp_path, part, capsys):
    (tmp_path / 'params_0.npy.part').write_bytes(part)
    assert run(download, tmp_path, server.url) == 0
    assert [asked for _, asked in server.requests] == [f'bytes={len(part)}-', None, None]
    assert 'params_0.npy.part was not a part of the released file' in capsys.readouterr().err
    assert contents(tmp_path) == CONTENT


def test_wrong_content_is_refused_and_the_next_try_starts_clean(download, server, tmp_path, capsys):
    server.content['params_0.npy'] = b'version https://git-lfs.github.com/spec/v1\n'
    assert run(download, tmp_path, server.url) == 2
    assert f'{server.url}/params_0.npy is not the released file (43 bytes, blob id ' in one_line(capsys)
    assert contents(tmp_path) == {}
    server.content['params_0.npy'] = CONTENT['params_0.npy']
    assert run(download, tmp_path, server.url) == 0
    assert server.requests[-2] == ('/model/params_0.npy', None)


def test_a_wrong_file_stays_until_a_right_one_replaces_it(download, server, tmp_path, capsys):
    (tmp_path / 'params_0.npy').write_bytes(b'old')
    (tmp_path / 'vocab.bpe').write_bytes(CONTENT['vocab.bpe'])
    server.statuses = [404]
    assert run(download, tmp_path, server.url) == 2
    assert (tmp_path / 'params_0.npy').read_bytes() == b'old'
    assert run(download, tmp_path, server.url) == 0
    assert f'{tmp_path / "params_0.npy"}: wrong, fetching it again' in capsys.readouterr().out
    assert contents(tmp_path) == CONTENT
    assert {path for path, _ in server.requests} == {'/model/params_0.npy'}      # vocab.bpe was not fetched


def test_a_busy_server_is_asked_again_but_not_one_that_refuses(download, server, tmp_path, capsys):
    server.statuses = [503, 429]
    assert run(download, tmp_path, server.url) == 0
    assert len(server.requests) == 4
    (tmp_path / 'vocab.bpe').unlink()
    server.statuses = [403]
    assert run(download, tmp_path, server.url) == 2
    assert len(server.requests) == 5
    assert 'HTTP Error 403' in one_line(capsys)


def test_a_missing_file_is_one_line(download, server, tmp_path, capsys):
    del server.content['vocab.bpe']
    assert run(download, tmp_path, server.url) == 2
    line = one_line(capsys)
    assert f'{server.url}/vocab.bpe: HTTP Error 404' in line and '--from' in line
    assert contents(tmp_path) == {'params_0.npy': CONTENT['params_0.npy']}


def test_the_second_source_is_asked_where_the_first_has_no_such_file(download, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'SOURCES', (f'{server.url}/nowhere', server.url))
    assert download.main(download.parse_args(['--model_path', str(tmp_path)])) == 0
    assert contents(tmp_path) == CONTENT
    monkeypatch.setattr(download, 'SOURCES', (f'{server.url}/nowhere', f'{server.url}/nowhere/2'))
    (tmp_path / 'vocab.bpe').unlink()
    assert download.main(download.parse_args(['--model_path', str(tmp_path)])) == 2


@pytest.mark.parametrize('source, words', [
    ('ftp://127.0.0.1/model', 'neither a folder nor an address'),
    ('no/such/folder', 'neither a folder nor an address'),
    ('http://', 'no host given'),
    ('http://127.0.0.1:port/', "nonnumeric port: 'port'; correct the address"),
    ('http://127.0.0.1:1/model', 'Connection refused; run again to continue'),
])
def test_a_wrong_address_is_one_line(download, tmp_path, source, words, capsys):
    assert run(download, tmp_path, source) == 2
    assert words in one_line(capsys)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize('inside', ['.', 'model'])
def test_copies_from_a_clone_or_its_model_folder(download, tmp_path, inside):
    (tmp_path / 'clone' / inside).mkdir(parents=True)
    for name, data in CONTENT.items():
        (tmp_path / 'clone' / inside / name).write_bytes(data)
    assert run(download, tmp_path / 'to', tmp_path / 'clone') == 0
    assert contents(tmp_path / 'to') == CONTENT


def test_a_clone_with_a_wrong_or_missing_file_is_refused(download, tmp_path, capsys):
    clone = tmp_path / 'clone'
    clone.mkdir()
    (clone / 'params_0.npy').write_bytes(CONTENT['params_0.npy'][:-1])
    assert run(download, tmp_path / 'to', clone) == 2
    assert f'{clone / "params_0.npy"} is not the released file (511,999 bytes' in one_line(capsys)
    assert contents(tmp_path / 'to') == {}
    (clone / 'params_0.npy').write_bytes(CONTENT['params_0.npy'])
    assert run(download, tmp_path / 'to', clone) == 2
    assert f'no vocab.bpe in {clone}' in one_line(capsys)


def test_check_says_in_one_line_whether_a_folder_is_the_release(download, server, tmp_path, capsys):
    (tmp_path / 'params_0.npy').write_bytes(b'old')
    assert run(download, tmp_path, server.url, '--check') == 1
    assert capsys.readouterr().out == f'{tmp_path} is not the release: params_0.npy is wrong, vocab.bpe is missing\n'
    assert server.requests == [] and contents(tmp_path) == {'params_0.npy': b'old'}
    assert run(download, tmp_path, server.url) == 0
    capsys.readouterr()
    assert run(download, tmp_path, server.url, '--check') == 0
    assert capsys.readouterr().out == f'{tmp_path} is the release: 2 blob ids are right\n'


@pytest.mark.skipif(sys.platform == 'win32', reason='makes named pipes')
def test_pipes_links_and_huge_files_are_neither_read_nor_written(download, server, tmp_path, capsys):
    os.mkfifo(tmp_path / 'params_0.npy')
    with open(tmp_path / 'vocab.bpe', 'wb') as f:
        f.truncate(10 ** 13)                        # reading it would take hours
    assert run(download, tmp_path, server.url, '--check') == 1
    assert 'params_0.npy is missing, vocab.bpe is wrong' in capsys.readouterr().out
    assert run(download, tmp_path / 'to', tmp_path) == 2
    assert f'no params_0.npy in {tmp_path}' in one_line(capsys)
    (tmp_path / 'params_0.npy').unlink()
    (tmp_path / 'params_0.npy').write_bytes(CONTENT['params_0.npy'])
    assert run(download, tmp_path / 'to', tmp_path) == 2
    assert 'vocab.bpe is not the released file: 10,000,000,000,000 bytes' in one_line(capsys)
    (tmp_path / 'victim').write_bytes(b'keep')
    (tmp_path / 'vocab.bpe.part').symlink_to('victim')
    assert run(download, tmp_path, server.url) == 2
    assert 'vocab.bpe.part is a link or not a regular file' in one_line(capsys)
    assert (tmp_path / 'victim').read_bytes() == b'keep'
    (tmp_path / 'vocab.bpe.part').unlink()
    with open(tmp_path / 'vocab.bpe.part', 'wb') as f:
        f.truncate(10 ** 13)
    assert run(download, tmp_path, server.url) == 0


def answer(handler, status=200, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace('_', '-'), value)
    handler.end_headers()


def endless(handler):
    answer(handler)
    with suppress(OSError):
        while True:
            handler.wfile.write(b'x' * 100_000)


def endless_chunks(handler):
    answer(handler, Transfer_Encoding='chunked')
    with suppress(OSError):
        while True:
            handler.wfile.write(b'186a0\r\n' + b'x' * 100_000 + b'\r\n')


def far_away(handler):
    answer(handler, 206, Content_Range=f'bytes {10 ** 13}-{10 ** 13 + 4}/{10 ** 13 + 5}', Content_Length='5')
    handler.wfile.write(b'x' * 5)


def said_to_be_huge(handler):
    answer(handler, Content_Length=str(10 ** 13))
    handler.wfile.write(CONTENT['params_0.npy'])


def drip(handler, before=b''):
    with suppress(OSError):
        handler.wfile.write(before)
        while True:
            handler.wfile.write(b'1')
            time.sleep(0.02)


def dripping_body(handler):
    answer(handler, Content_Length='512000')
    drip(handler)


def dripping_headers(handler):
    drip(handler, b'HTTP/1.1 200 OK\r\nX-Long: ')


def dripping_chunk(handler):
    answer(handler, Transfer_Encoding='chunked')
    drip(handler)


def informational(handler):
    with suppress(OSError):
        while True:
            handler.wfile.write(b'HTTP/1.1 100 Continue\r\n\r\n')
            time.sleep(0.02)


@pytest.mark.parametrize('hostile, words', [
    (endless, 'is not the released file'), (endless_chunks, 'is not the released file'),
    (far_away, 'asked for byte 0 and on, the server answers with 10,000,000,000,000 and on; run again'),
    (said_to_be_huge, 'bytes; run again to continue'), (dripping_body, 'bytes in 0.3 s; run again to continue'),
    (dripping_headers, 'only 0 bytes in 0.3 s; run again'), (dripping_chunk, 'only 0 bytes in 0.3 s; run again'),
    (informational, 'only 0 bytes in 0.3 s; run again')])
def test_a_hostile_server_gets_little_time_and_little_room(download, server, tmp_path, monkeypatch, capsys, hostile,
                                                           words):
    monkeypatch.setattr(download, 'SHARD', 600_000)
    monkeypatch.setattr(download, 'WINDOW', 0.3)
    server.hostile = hostile
    begun = time.monotonic()
    assert run(download, tmp_path, server.url) == 2
    assert words in one_line(capsys) and time.monotonic() - begun < 10
    assert all(path.stat().st_size <= 600_000 for path in tmp_path.iterdir())
    server.hostile = None
    assert run(download, tmp_path, server.url) == 0 and contents(tmp_path) == CONTENT


def test_the_bounds_hold_every_released_file():
    released = load()
    for name in released.FILES:
        numbers = released.SHARD - 1024 if name.startswith('params_') and name.endswith('.npy') else 0
        assert numbers in (0, 46_613_916) and not released.too_long(name, numbers + 128)
    assert released.too_long('params_0.npy', 46_700_000) and released.too_long('vocab_40000.bpe', 458_496)


def test_a_folder_that_cannot_be_made_is_one_line(download, server, tmp_path, capsys):
    (tmp_path / 'file').write_bytes(b'')
    assert run(download, tmp_path / 'file' / 'model', server.url) == 2
    assert f'{tmp_path / "file" / "model"}: Not a directory; make room or name another' in one_line(capsys)


DRIVER = '''
import importlib.util, signal, sys
spec = importlib.util.spec_from_file_location('download', {path!r})
download = importlib.util.module_from_spec(spec)
spec.loader.exec_module(download)
download.FILES, download.PAUSES = {files!r}, (0,)
signal.signal(signal.SIGINT, signal.default_int_handler)       # SIGINT is ignored if the tests run in the background
{before}
sys.exit(download.main(download.parse_args({argv!r})))
'''


def start(to, source, before=''):
    code = DRIVER.format(path=str(ROOT / 'model' / 'download.py'), files=BLOB_IDS, before=before,
                         argv=['--model_path', str(to), '--from', source])
    return subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == 'win32', reason='sends SIGINT')
def test_ctrl_c_keeps_the_part_and_says_how_to_continue(download, server, tmp_path):
    server.cuts, server.stall = [400_000], threading.Event()             # after that the server sends nothing
    process = start(tmp_path, server.url)
    part = tmp_path / 'params_0.npy.part'
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == 'interrupted; the bytes received are kept: run the same command to continue\n'
    kept = part.read_bytes()
    assert 0 < len(kept) <= 400_000 and CONTENT['params_0.npy'].startswith(kept)
    server.stall.set()
    assert run(download, tmp_path, server.url) == 0
    assert server.requests[1] == ('/model/params_0.npy', f'bytes={len(kept)}-')


def test_a_closed_pipe_does_not_end_in_a_traceback(tmp_path):
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, ROOT / 'model' / 'download.py', '--check', '--model_path', tmp_path]
    process = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (process.returncode, process.stderr) == (141, b'')


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a limit on the size of files')
def test_a_full_disk_gets_one_line(server, tmp_path):
    process = start(tmp_path, server.url,
                    before='import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))')
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err == (f'download.py: {tmp_path}: File too large; make room or name another folder with --model_path, '
                   'then run again\n')


def test_git_blob_id_is_that_of_git(download, tmp_path):
    (tmp_path / 'empty').write_bytes(b'')
    assert download.git_blob_id(tmp_path / 'empty') == 'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'


@pytest.mark.parametrize('name', ['params_shapes.json', 'encoder_bpe_40000.json', 'vocab_40000.bpe'])
def test_the_released_files_have_the_ids_in_the_list(name):
    folders = ROOT / 'model', ROOT.parent / 'shared' / 'openai-model'
    path = next((folder / name for folder in folders if (folder / name).exists()), None)
    if path is None:
        pytest.skip(f'no {name}: python model/download.py fetches it')
    released = load()
    assert released.git_blob_id(path) == released.FILES[name] and path.stat().st_size == released.SIZES[name]
    assert len(released.FILES) == 13
