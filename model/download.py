"""Fetch the released GPT-1 weights and vocabulary (MIT licence, 468 MB) and check every byte of them.

The files are those of the public repository openai/finetune-transformer-lm at commit a69b5c4. Each file is compared
with its git blob id there before it gets its final name, so it does not matter where it came from. Run again to
continue a download that was interrupted.
"""
import argparse
import hashlib
import os
import re
import shutil
import sys
import threading
import time
from http.client import HTTPException, InvalidURL
from pathlib import Path
from queue import Empty, Queue
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

FILES = {
    'params_shapes.json': '29fac299ae848d7e447be84a33345edcf1b5353c',
    'encoder_bpe_40000.json': '9dc3f0af5a80956e57dc8d9401e16dfadcade7c2',
    'vocab_40000.bpe': '0023a687b3d4d0b795a5e97cc914bdabb5a253df',
    'params_0.npy': '84d83ac1f1cc878f56f33b167482c184491875d2',
    'params_1.npy': '0f19f4d4cda3d8f908e3faffd2cb2a8b9a4039da',
    'params_2.npy': '25bc19c72fdff69505a828ec6d73b32063532148',
    'params_3.npy': '5b2e6958d42a930966c9d602a012eb846ca67c83',
    'params_4.npy': '87ad158987e307e6aa64952610f466d750b73bc7',
    'params_5.npy': '74f3853316bba327229605dbedfe921996f11448',
    'params_6.npy': '5ef44e40bc076d0c9686d1273d54cbc16c3f0980',
    'params_7.npy': 'd8d5c8d3bee9b20a677605ac1fe6c7af4df57c94',
    'params_8.npy': 'f980f4b393716f396ae5ae6401708dcf4f270dc9',
    'params_9.npy': 'd389eb2074dd74754444b8062aba78b49f6a9053',
}
SIZES = {'params_shapes.json': 1_478, 'encoder_bpe_40000.json': 815_973, 'vocab_40000.bpe': 458_495}
SHARD = 4 * 11_653_479 + 1_024       # most bytes of a params_*.npy: a tenth of 116,534,784 float32, and a header
REPOSITORY = 'https://raw.githubusercontent.com/openai/finetune-transformer-lm'
# master is asked if the host does not resolve the abbreviated commit; the blob ids decide what is accepted
SOURCES = (f'{REPOSITORY}/a69b5c4/model', f'{REPOSITORY}/master/model')
PAUSES = (1, 2, 4)                   # seconds to wait before each new try
TIMEOUT = 30                         # seconds without a byte that end a try
WINDOW, LEAST = 30, 30_000           # a try also ends if LEAST bytes take longer than WINDOW seconds
CHUNK = 1 << 18                      # most bytes to read at a time


def git_blob_id(path):
    """The id (40 hex digits) that git gives to the content of a file. Raises OSError if it cannot be read."""
    digest = hashlib.sha1(b'blob %d\0' % Path(path).stat().st_size, usedforsecurity=False)
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, lambda: digest).hexdigest()


def too_long(name, size):
    """Whether `size` bytes are more than the released file can have."""
    return size > SIZES.get(name, SHARD)


def state(path):
    """'right', 'wrong' or 'missing': how the file at `path` compares with the released file of that name."""
    if not path.is_file():
        return 'missing'
    wrong = too_long(path.name, path.stat().st_size) or git_blob_id(path) != FILES[path.name]
    return 'wrong' if wrong else 'right'


def refuse(part, source):
    """Remove `part`, which came from `source` and is not the released file; always raises ValueError."""
    size, blob_id = part.stat().st_size, git_blob_id(part)
    part.unlink()
    raise ValueError(f'{source} is not the released file ({size:,} bytes, blob id {blob_id}, should be '
                     f'{FILES[part.stem]}), so it was removed: run again, or name a mirror or a clone with --from')


def receive(url, have):
    """Yield (offset, total, block) of the file at `url` from byte `have` on, or from 0 if the server ignores Range.

    `block` are the bytes at `offset`; `total` is the size of the file, or None if the server does not say it. Yields
    nothing if the file ends at `have` (status 416). Raises ConnectionError if another try may help, FileNotFoundError
    for status 404, PermissionError for other refusals, ValueError for a bad address.
    """
    try:
        request = Request(url, headers={'Range': f'bytes={have}-'} if have else {})
        with urlopen(request, timeout=TIMEOUT) as response:
            offset, total = 0, response.length
            if response.status == 206:
                content_range = re.match(r'bytes (\d+)-\d+/(\d+)', response.headers['Content-Range'] or '')
                offset, total = map(int, content_range.groups()) if content_range else (have, None)
                if offset not in (0, have):
                    raise ConnectionError(f'asked for byte {have:,} and on, the server answers with {offset:,} and on')
            while block := response.read1(CHUNK):   # read1, unlike read, returns the bytes that have arrived
                yield offset, total, block
                offset += len(block)
        if total is not None and offset < total:    # read1 does not raise when the connection closes early
            raise ConnectionError(f'connection closed after {offset:,} of {total:,} bytes')
    except (InvalidURL, ValueError) as e:
        raise ValueError(f'{url}: {e}; correct the address given with --from') from e
    except HTTPError as e:
        if e.code == 416 and have:
            return
        if e.code in (408, 429) or e.code >= 500:
            raise ConnectionError(f'{url}: {e}') from e
        kind = FileNotFoundError if e.code == 404 else PermissionError
        raise kind(f'{url}: {e}; name a mirror or a clone with --from') from e
    except (OSError, HTTPException) as e:
        reason = getattr(e, 'reason', e)
        raise ConnectionError(f'{url}: {getattr(reason, "strerror", None) or reason or repr(e)}') from e


def receive_in_time(url, have):
    """What `receive` yields, read in a thread. Raises ConnectionError if LEAST bytes take longer than WINDOW seconds.

    TIMEOUT does not stop a server that sends a single byte from time to time, in its headers or in the file.
    """
    queue = Queue(maxsize=16)

    def work():
        try:
            for item in receive(url, have):
                queue.put(item)
            queue.put(None)
        except Exception as e:
            queue.put(e)

    threading.Thread(target=work, daemon=True).start()
    start, n = time.monotonic(), 0
    while True:
        try:
            item = queue.get(timeout=max(start + WINDOW - time.monotonic(), 0))
        except Empty:
            raise ConnectionError(f'{url}: only {n:,} bytes in {WINDOW} s') from None
        if item is None:
            return
        if isinstance(item, Exception):
            raise item
        yield item
        n += len(item[-1])
        if n >= LEAST:
            start, n = time.monotonic(), 0


def fetch(url, part):
    """Download `url` to the file `part`, continuing after the bytes that it has, until its blob id is right.

    Raises what `receive` raises, ValueError if the content is wrong, OSError if the file cannot be written.
    """
    with tqdm(desc=part.stem, unit='B', unit_scale=True, leave=False, disable=None) as bar:
        for pause in (*PAUSES, None):
            bar.initial = bar.n = have = part.stat().st_size if part.exists() else 0
            try:
                with open(part, 'ab') as f:
                    for offset, bar.total, block in receive_in_time(url, have):
                        if too_long(part.stem, offset + len(block)):
                            break
                        if offset != f.tell():      # the server ignores Range and sends the whole file
                            f.seek(offset)
                            f.truncate()
                        f.write(block)
                        bar.update(offset + len(block) - bar.n)
            except ConnectionError as e:
                if pause is None:
                    raise ConnectionError(f'{e}; run again to continue, or name a mirror or a clone with --from') from e
                bar.write(f'{e}; trying again in {pause} s', file=sys.stderr)
                time.sleep(pause)
                continue
            if git_blob_id(part) == FILES[part.stem]:
                return
            if not have or pause is None:
                refuse(part, url)
            part.unlink()                           # the bytes of an earlier try may be wrong: start from byte 0
            bar.write(f'{part.name} was not a part of the released file and was removed', file=sys.stderr)


def copy(folder, part):
    """Copy the file from `folder`, a clone or its model folder, to `part`. Raises ValueError if it is wrong."""
    source = next((f for f in (folder / 'model' / part.stem, folder / part.stem) if f.is_file()), None)
    if source is None:
        raise FileNotFoundError(f'no {part.stem} in {folder} or {folder / "model"}; name the folder of a '
                                'clone of openai/finetune-transformer-lm with --from')
    if too_long(part.stem, source.stat().st_size):
        raise ValueError(f'{source} is not the released file: {source.stat().st_size:,} bytes are too many')
    shutil.copyfile(source, part)
    if git_blob_id(part) != FILES[part.stem]:
        refuse(part, source)


def get(name, to, source):
    """Put file `name` into folder `to` from `source`: a base URL, a folder, or None for OpenAI's own."""
    part = to / f'{name}.part'
    if part.is_symlink() or part.exists() and not part.is_file():
        raise ValueError(f'{part} is a link or not a regular file, and nothing is written to it: remove it')
    if part.exists() and too_long(name, part.stat().st_size):
        part.unlink()
    if source and not source.startswith(('http://', 'https://')):
        copy(Path(source).expanduser(), part)
    else:
        bases = (source.rstrip('/'),) if source else SOURCES
        for base in bases:
            try:
                fetch(f'{base}/{name}', part)
                break
            except FileNotFoundError:
                if base == bases[-1]:
                    raise
            finally:
                if part.exists() and not part.stat().st_size:       # an empty file is not worth keeping
                    part.unlink()
    part.replace(to / name)


def check_or_fetch(to, source, only_check):
    """Fetch the files that `to` lacks, or only print which ones. Returns 0 if all files are right, otherwise 1."""
    if source and not source.startswith(('http://', 'https://')) and not Path(source).expanduser().is_dir():
        raise ValueError(f'--from {source}: neither a folder nor an address with http:// or https://')
    states = {name: state(to / name) for name in FILES}
    wanted = [name for name in FILES if states[name] != 'right']
    if only_check:
        faults = ', '.join(f'{name} is {states[name]}' for name in wanted)
        result = f'not the release: {faults}' if wanted else f'the release: {len(FILES)} blob ids are right'
        print(f'{to} is {result}', flush=True)
        return 1 if wanted else 0
    to.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        if states[name] == 'wrong':
            print(f'{to / name}: wrong, fetching it again')
        get(name, to, source)
        print(f'{name}: {(to / name).stat().st_size:,} bytes, right', flush=True)
    print(f'{len(FILES)} of {len(FILES)} files are right in {to}', flush=True)
    return 0


def main(args):
    """Returns the exit status: 0 all files right, 1 --check found a wrong one, 2 error, 130 and 141 interrupted."""
    try:
        return check_or_fetch(args.model_path, args.source, args.check)
    except BrokenPipeError:                         # the reader of the output has ended, for example | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print('interrupted; the bytes received are kept: run the same command to continue', file=sys.stderr)
        return 130
    except (OSError, ValueError) as e:
        if isinstance(e, OSError) and e.errno:      # from the file system; `receive` words those of the network
            path = e.filename2 or e.filename or args.model_path
            e = f'{path}: {e.strerror}; make room or name another folder with --model_path, then run again'
        print(f'download.py: {e}', file=sys.stderr)
        return 2


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_argument_group('files')
    group.add_argument('--model_path', type=Path, metavar='FOLDER', default=Path(__file__).resolve().parent,
                       help='folder for the files (default: the folder of this script)')
    group.add_argument('--from', dest='source', metavar='URL_OR_FOLDER',
                       help="address of a mirror's folder, or a local clone (default: OpenAI's repository)")
    group.add_argument('--check', action='store_true',
                       help='only print whether the folder is the release; exit status 1 if it is not')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main(parse_args()))
