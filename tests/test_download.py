"""model/download.py against a small web server on this machine, and with a made-up network. The last tests are of the
released files."""
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from reference import SHARED
from toy import ROOT, TOY

from common.shell import Console, run_script
from common.trained import open_trained
from generate import parse_args

CONTENT = {'params_0.npy': bytes(range(256)) * 2000, 'vocab.bpe': b'#version: 0.2\nt h\n'}  # 512,000 and 18 bytes
# computed once with `git hash-object`, so that git_blob_id is not tested against itself
BLOB_IDS = {
    'params_0.npy': '85ca3d5aeed19f818566b9244ef5ad7d1d11174a',
    'vocab.bpe': 'a5c16e52402a19980636c2f7fff32468757410ff',
}


RIGHT = "gives the hidden states that OpenAI's code gave"


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under /model/; attributes of the server switch on its faults."""

    def do_GET(self):
        server, asked = self.server, self.headers.get('Range')
        server.requests.append((self.path, asked))
        name = self.path.removeprefix('/model/')
        if server.statuses or name not in server.content:
            return self.send_error(server.statuses.pop(0) if server.statuses else 404)
        if server.hostile:
            return server.hostile(self)
        data = server.content[name]
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked and server.ranges else 0
        if start and start >= len(data):
            return self.send_error(416)
        answer(self, 206 if start else 200, Content_Length=len(data) - start)
        cut = server.cuts.pop(0) if server.cuts else None  # close the connection after this many bytes
        self.wfile.write(data[start:][:cut])
        if server.stall:
            self.wfile.flush()
            server.stall.wait(20)

    def log_message(self, *args):
        pass


def answer(handler, status=200, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace('_', '-'), str(value))
    handler.end_headers()


@pytest.fixture
def server():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.content, server.requests, server.statuses, server.cuts = dict(CONTENT), [], [], []
    server.ranges, server.stall, server.hostile = True, None, None
    server.handle_error = lambda *_: None  # the client ends the connection
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
    monkeypatch.setattr(module, 'compare', lambda folder: 3e-6)
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(sys, 'argv', ['model/download.py'])
    return module


def run(download, to, source, *options):
    """The exit status; what is printed goes to sys.stdout and sys.stderr."""
    args = download.parse_args(['--model_path', str(to), '--from', str(source), *options])
    try:
        with contextlib.redirect_stderr(Console(sys.stderr)):
            run_script(download.main, args)
        return 0
    except SystemExit as e:
        return e.code


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
    assert capsys.readouterr().out.endswith(
        f'2 of 2 files are right in {to}\nthe network in {to} {RIGHT}: largest difference 3e-06\n')


def test_a_cut_connection_is_continued_by_this_run_and_by_the_next(download, server, tmp_path, capsys):
    server.cuts = [1000] * 4
    assert run(download, tmp_path, server.url) == 2
    assert 'closed after 4,000 of 512,000 bytes; run again to continue' in one_line(capsys)
    assert contents(tmp_path) == {'params_0.npy.part': CONTENT['params_0.npy'][:4000]}
    server.cuts = [300_000]
    assert run(download, tmp_path, server.url) == 0
    assert [asked for _, asked in server.requests] == [
        None, 'bytes=1000-', 'bytes=2000-', 'bytes=3000-', 'bytes=4000-', 'bytes=304000-', None]
    assert contents(tmp_path) == CONTENT


def test_a_server_that_ignores_range_sends_the_file_from_the_beginning(download, server, tmp_path):
    server.ranges, server.cuts = False, [300_000]
    assert run(download, tmp_path, server.url) == 0
    assert [asked for _, asked in server.requests] == [None, 'bytes=300000-', None]  # the last is for vocab.bpe
    assert contents(tmp_path) == CONTENT


def test_a_complete_part_needs_no_more_bytes(download, server, tmp_path):
    (tmp_path / 'params_0.npy.part').write_bytes(CONTENT['params_0.npy'])
    assert run(download, tmp_path, server.url) == 0
    assert [asked for _, asked in server.requests] == ['bytes=512000-', None] and contents(tmp_path) == CONTENT


@pytest.mark.parametrize('part', [CONTENT['params_0.npy'] + b'more', b'<!DOCTYPE html>'], ids=['long', 'other'])
def test_a_wrong_part_is_removed_and_the_next_run_begins_again(download, server, tmp_path, part, capsys):
    (tmp_path / 'params_0.npy.part').write_bytes(part)
    assert run(download, tmp_path, server.url) == 2
    assert 'is not the released file' in one_line(capsys) and contents(tmp_path) == {}
    assert run(download, tmp_path, server.url) == 0 and contents(tmp_path) == CONTENT


def test_wrong_content_is_refused_and_the_file_in_place_stays(download, server, tmp_path, capsys):
    (tmp_path / 'params_0.npy').write_bytes(b'old')
    (tmp_path / 'vocab.bpe').write_bytes(CONTENT['vocab.bpe'])
    server.content['params_0.npy'] = b'version https://git-lfs.github.com/spec/v1\n'
    assert run(download, tmp_path, server.url) == 2
    assert f'{server.url}/params_0.npy is not the released file (43 bytes' in one_line(capsys)
    assert contents(tmp_path) == {**CONTENT, 'params_0.npy': b'old'}
    server.content['params_0.npy'] = CONTENT['params_0.npy']
    assert run(download, tmp_path, server.url) == 0
    assert contents(tmp_path) == CONTENT
    assert server.requests == [('/model/params_0.npy', None)] * 2  # vocab.bpe was right


def test_a_busy_server_is_asked_again_but_not_one_that_refuses(download, server, tmp_path, capsys):
    server.statuses = [503, 429]
    assert run(download, tmp_path, server.url) == 0
    assert len(server.requests) == 4
    (tmp_path / 'vocab.bpe').unlink()
    server.statuses = [403]
    assert run(download, tmp_path, server.url) == 2
    assert 'HTTP Error 403' in one_line(capsys)
    del server.content['vocab.bpe']
    assert run(download, tmp_path, server.url) == 2
    assert len(server.requests) == 6
    line = one_line(capsys)
    assert f'{server.url}/vocab.bpe: HTTP Error 404' in line and '--from' in line


@pytest.mark.parametrize('source, words', [
    ('ftp://127.0.0.1/model', 'not an address with http:// or https://'),
    ('no/such/folder', 'not an address with http:// or https://'),
    ('http://', 'no host given'),
    ('http://127.0.0.1:port/', "nonnumeric port: 'port'"),
    ('http://127.0.0.1:1/model', 'Connection refused'),
])
def test_a_wrong_address_is_one_line(download, tmp_path, source, words, capsys):
    assert run(download, tmp_path, source) == 2
    assert words in one_line(capsys)
    assert not any(contents(tmp_path).values())


def test_check_says_in_one_line_whether_a_folder_is_the_release(download, server, tmp_path, capsys):
    (tmp_path / 'params_0.npy').write_bytes(b'old')
    assert run(download, tmp_path, server.url, '--check') == 1
    assert capsys.readouterr().out == f'{tmp_path} is not the release: params_0.npy is wrong, vocab.bpe is missing\n'
    assert server.requests == [] and contents(tmp_path) == {'params_0.npy': b'old'}
    assert run(download, tmp_path, server.url) == 0
    capsys.readouterr()
    assert run(download, tmp_path, server.url, '--check') == 0
    assert capsys.readouterr().out == (f'{tmp_path} is the release: 2 blob ids are right\n'
                                       f'the network in {tmp_path} {RIGHT}: largest difference 3e-06\n')
    (tmp_path / 'params_0.npy').write_bytes(b'old')  # the network is compared nevertheless
    assert run(download, tmp_path, server.url, '--check') == 1
    assert capsys.readouterr().out.endswith(f'params_0.npy is wrong\nthe network in {tmp_path} {RIGHT}: largest '
                                            'difference 3e-06\n')


@pytest.mark.skipif(sys.platform == 'win32', reason='makes named pipes')
def test_pipes_links_and_huge_files_are_neither_read_nor_written(download, server, tmp_path, capsys):
    os.mkfifo(tmp_path / 'params_0.npy')
    with open(tmp_path / 'vocab.bpe', 'wb') as f:
        f.truncate(10 ** 13)  # reading it would take hours
    assert run(download, tmp_path, server.url, '--check') == 1
    assert 'params_0.npy is missing, vocab.bpe is wrong' in capsys.readouterr().out
    os.mkfifo(tmp_path / 'params_0.npy.part')
    (tmp_path / 'victim').write_bytes(b'keep')
    (tmp_path / 'vocab.bpe.part').symlink_to('victim')
    assert run(download, tmp_path, server.url) == 0
    assert contents(tmp_path) == {**CONTENT, 'victim': b'keep'}
    (tmp_path / 'vocab.bpe').rename(tmp_path / 'vocab.bpe.part')
    os.truncate(tmp_path / 'vocab.bpe.part', 10 ** 13)
    assert [run(download, tmp_path, server.url) for _ in range(2)] == [2, 0]
    assert contents(tmp_path) == {**CONTENT, 'victim': b'keep'}


OK, BLOCK, CONTINUE = b'HTTP/1.1 200 OK\r\n', b'x' * 100_000, b'HTTP/1.1 100 Continue\r\n\r\n'
CHUNKED = OK + b'Transfer-Encoding: chunked\r\n\r\n'
# what a server sends at first, what it repeats for ever, the seconds between, and words of the error
HOSTILE = {
    'endless': (OK + b'\r\n', BLOCK, 0, 'is not the released file'),
    'endless chunks': (CHUNKED, b'186a0\r\n' + BLOCK + b'\r\n', 0, 'is not the released file'),
    'another range': (b'HTTP/1.1 206 Partial\r\nContent-Range: bytes 10000000-10000004/10000005\r\n'
                      b'Content-Length: 5\r\n\r\nxxxxx', b'', 0, 'is not the released file'),
    'said to be huge': (OK + b'Content-Length: 10000000000000\r\n\r\nx', b'', 0, 'bytes; run again to continue'),
    'cut chunk': (CHUNKED + b'186a0\r\nx', b'', 0, 'IncompleteRead'),
    'dripping file': (OK + b'Content-Length: 512000\r\n\r\n', b'1', .02, 'too slow'),
    'dripping header': (OK + b'X-Long: ', b'1', .02, 'too slow'),
    'dripping chunk size': (CHUNKED, b'1', .02, 'too slow'),
    'slow continue': (b'', CONTINUE, .02, 'too slow'),
    'fast continue': (b'', CONTINUE * 1000, 0, 'too slow'),
    'redirect with endless body': (b'HTTP/1.1 302 Found\r\nLocation: /model/params_0.npy\r\n\r\n', BLOCK, 0,
                                   'HTTP Error 302'),
    'words for the terminal': (b'HTTP/1.1 404 \x1b[2J\x1b]0;x\x07\r\nContent-Length: 0\r\n\r\n', b'', 0,
                               '404: \\x1b[2J\\x1b]0;x\\x07'),
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_server_gets_little_time_and_little_room(download, server, tmp_path, monkeypatch, capsys, kind):
    first, repeated, pause, words = HOSTILE[kind]

    def hostile(handler):
        handler.wfile.write(first)
        while repeated:
            handler.wfile.write(repeated)
            time.sleep(pause)
    monkeypatch.setattr(download, 'LARGEST', 600_000)
    monkeypatch.setattr(download, 'TIMEOUT', 0.3)
    server.hostile = hostile
    begun = time.monotonic()
    assert run(download, tmp_path, server.url) == 2
    assert words in one_line(capsys) and time.monotonic() - begun < 10
    assert all(path.stat().st_size <= 600_000 for path in tmp_path.iterdir())
    server.hostile = None
    monkeypatch.setattr(download, 'TIMEOUT', 30)
    run(download, tmp_path, server.url)  # it removes wrong bytes
    assert run(download, tmp_path, server.url) == 0 and contents(tmp_path) == CONTENT


def test_the_bound_holds_every_released_file():
    assert load().LARGEST == 46_613_916 + 1024


def test_a_folder_that_cannot_be_made_is_one_line(download, server, tmp_path, capsys):
    (tmp_path / 'file').write_bytes(b'')
    assert run(download, tmp_path / 'file' / 'model', server.url) == 2
    assert f"Not a directory: '{tmp_path / 'file' / 'model'}'" in one_line(capsys)


DRIVER = '''
import importlib.util, signal, sys
spec = importlib.util.spec_from_file_location('download', {path!r})
download = importlib.util.module_from_spec(spec)
spec.loader.exec_module(download)
download.FILES, download.PAUSES = {files!r}, (0,)
signal.signal(signal.SIGINT, signal.default_int_handler)  # SIGINT is ignored if the tests run in the background
{before}
sys.argv = ['model/download.py', *{argv!r}]
download.run_script(download.main, download.begin_script(download.parse_args))
'''


def start(to, source, before=''):
    code = DRIVER.format(path=str(ROOT / 'model' / 'download.py'), files=BLOB_IDS, before=before,
                         argv=['--model_path', str(to), '--from', source])
    return subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == 'win32', reason='sends SIGINT')
def test_ctrl_c_keeps_the_part_and_says_how_to_continue(download, server, tmp_path):
    server.cuts, server.stall = [400_000], threading.Event()  # after that the server sends nothing
    process = start(tmp_path, server.url)
    part = tmp_path / 'params_0.npy.part'
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == 'download.py: interrupted\n'
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
    assert (process.returncode, process.stderr.count(b'\n')) == (141, 1)


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a limit on the size of files')
def test_a_full_disk_gets_one_line(server, tmp_path):
    process = start(tmp_path, server.url,
                    before='import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))')
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert re.fullmatch(rf"download.py: error: \[Errno \d+\] File too large: '{tmp_path}/\S+.part'\n", err)


def test_git_blob_id_is_that_of_git(download, tmp_path):
    (tmp_path / 'empty').write_bytes(b'')
    assert download.git_blob_id(tmp_path / 'empty') == 'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'


def made_up(folder, monkeypatch, change=None, **recorded):
    """download.compare for a toy network in `folder`, and numbers made for it in float64, of which some may differ.

    change: what to do with the network, in the released layout, before it is compared.
    """
    shutil.copytree(TOY, folder, dirs_exist_ok=True)
    (folder / 'hparams.json').write_text(json.dumps(dict(n_embd=16, n_head=4, n_layer=3)))
    network = open_trained(parse_args(['--model_path', str(folder)])).model.transformer.double()

    def states(ids):
        rows = torch.tensor([[i, 124 + place] for place, i in enumerate(ids)])
        return network(rows[None])[0]
    ids, made, prompt = [[5, 9, 100], [123, 0, 40, 40, 7, *range(19)]], [], [40, 64]
    with torch.no_grad():
        for _ in range(17):
            logits = states(prompt + made)[-1] @ network.embed.weight[:124].T
            made.append(logits.argmax().item())
        h = torch.stack([states(text)[-1] for text in ids]).float().numpy()
    recorded = dict(ids_0=np.array(ids[0]), ids_1=np.array(ids[1]), h=h, prompt=np.array(prompt),
                    continuation=np.array(made)) | {name: f(h) if name == 'h' else f for name, f in recorded.items()}
    np.savez(folder / 'recorded.npz', **recorded)
    if change:
        change(folder)
    module = load()
    monkeypatch.setattr(module, 'RECORDED', folder / 'recorded.npz')
    return module.compare


def rewrite(name, change):
    def rewritten(folder):
        shard = np.load(folder / name)
        change(shard)
        np.save(folder / name, shard)
    return rewritten


def test_the_right_network_gives_the_recorded_numbers(tmp_path, monkeypatch):
    assert 0 < made_up(tmp_path, monkeypatch)(tmp_path) < 5e-6


def swap_ends(shard):
    shard[[0, -1]] = shard[[-1, 0]]


@pytest.mark.parametrize('change, recorded, words', [
    (rewrite('params_5.npy', swap_ends), {}, "does not give the hidden states that OpenAI's code gave: largest"),
    (None, dict(h=lambda h: h + np.float32(1e-4)), 'difference 0.0001, not within 3e-05'),
    (None, dict(h=lambda h: h * np.float32('nan')), 'largest difference nan'),
    (None, dict(continuation=np.arange(17)), r'right hidden states, but continues \[40, 64\] with \['),
    (None, dict(h=lambda h: h[:, :8]), 'is another one: 124 tokens, 24 positions, 16 wide'),
    (None, dict(ids_0=np.array([124])), 'is another one: 124 tokens'),
    (None, dict(ids_0=np.zeros(25, int)), 'is another one: 124 tokens, 24 positions'),
    (lambda folder: (folder / 'params_5.npy').write_bytes(b'old'), {}, 'params_5.npy is truncated or not'),
], ids=range(8))
def test_a_wrong_network_is_told_what_is_wrong(tmp_path, monkeypatch, change, recorded, words):
    compare = made_up(tmp_path, monkeypatch, change, **recorded)
    with pytest.raises(ValueError, match=words) as error:
        compare(tmp_path)
    assert '\n' not in str(error.value) and str(tmp_path) in str(error.value)


def test_without_torch_the_line_says_how_to_compare(download, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, 'compare', load().compare)
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert run(download, tmp_path, server.url) == 2
    assert 'was not compared: pip install -r requirements.txt' in one_line(capsys)
    assert contents(tmp_path) == CONTENT


def test_the_recorded_numbers_are_those_of_the_released_size():
    with np.load(load().RECORDED) as recorded:
        arrays = {name: recorded[name] for name in recorded.files}
    assert arrays['h'].shape == (2, 768) and arrays['h'].dtype == np.float32
    assert [arrays[f'ids_{i}'].shape for i in (0, 1)] == [(22,), (41,)]
    assert b'Apache' in arrays['about'].item() and load().RECORDED.stat().st_size < 8000
    if not (SHARED / 'goldens' / 'released.npz').is_file():
        pytest.skip('the whole recording is not beside the repository')
    with np.load(SHARED / 'goldens' / 'released.npz') as whole:
        for i in (0, 1):
            assert (arrays[f'ids_{i}'] == whole[f'ids_{i}']).all() and (arrays['h'][i] == whole[f'h_{i}'][-1]).all()


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / 'model' / 'params_9.npy').is_file(),
                    reason='needs the released weights: python model/download.py')
def test_the_released_network_gives_what_openais_code_gave():
    load().main(load().parse_args(['--check']))


@pytest.mark.parametrize('name', ['params_shapes.json', 'encoder_bpe_40000.json', 'vocab_40000.bpe'])
def test_the_released_files_have_the_ids_in_the_list(name):
    folders = ROOT / 'model', ROOT.parent / 'shared' / 'openai-model'
    path = next((folder / name for folder in folders if (folder / name).exists()), None)
    if path is None:
        pytest.skip(f'no {name}: python model/download.py fetches it')
    released = load()
    assert released.git_blob_id(path) == released.FILES[name]
    assert len(released.FILES) == 13
