"""Fetch the released GPT-1 weights and vocabulary (MIT licence, 468 MB) and check every byte of them.

The files are those of the public repository openai/finetune-transformer-lm at commit a69b5c4. Each file is compared
with its git blob id there before it gets its final name, so it does not matter where it came from. Run again to
continue a download that was interrupted. In a folder with copies of the files, --check tells whether they are right.
In the end the network is run, and compared with hidden states that OpenAI's code gave with these weights.
"""
import hashlib
import signal
import sys
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.options import Parser
from common.shell import begin_script, run_script
from utils import errors_named

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
LARGEST = 4 * 11_653_479 + 1_024  # bytes of a params_*.npy: a tenth of 116,534,784 float32, and at most this header
REPOSITORY = 'https://raw.githubusercontent.com/openai/finetune-transformer-lm/master/model'
PAUSES = (1, 2, 4)  # seconds to wait before each new try
TIMEOUT, BLOCK = 30, 2 ** 16  # a try ends if the answer, or any BLOCK bytes of the file, take more seconds
RECORDED = ROOT / 'model' / 'released.npz'  # what OpenAI's code gave; `about` in it says by whom, and the licence
TOLERANCE = 3e-5  # of hidden states, which are up to 3; another implementation was within 1.5e-5


def git_blob_id(path):
    """The id (40 hex digits) that git gives to the content of a file."""
    digest = hashlib.sha1(b'blob %d\0' % path.stat().st_size, usedforsecurity=False)
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, lambda: digest).hexdigest()


def is_released(path, name):
    """True if there is a file at `path`, and it is the released file of this name. One that is too long is not read."""
    return path.is_file() and path.stat().st_size <= LARGEST and git_blob_id(path) == FILES[name]


def in_time(function, *args):
    """function(*args), or ConnectionError after TIMEOUT seconds, also if a server sends a byte from time to time."""
    def stop(*_):
        raise ConnectionError(f'too slow: {TIMEOUT} s for {BLOCK:,} bytes')
    if not hasattr(signal, 'SIGALRM'):  # on Windows only the time without any byte is limited
        return function(*args)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    try:
        return function(*args)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an HTTPError: urllib would read all of its body, which may be endless."""

    def redirect_request(self, *args):
        return None


def receive(url, have):
    """Yield (offset, block) of the file at `url`, from byte `have` on, or from 0 if the server ignores Range.

    Raises ConnectionError if another try may help, otherwise ValueError.
    """
    request = Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        with in_time(build_opener(NoRedirects).open, request, None, TIMEOUT) as response:
            offset = have if response.status == 206 else 0
            end = offset + (response.length or 0)
            while block := in_time(response.read, BLOCK):
                yield offset, block
                offset += len(block)
        if offset < end:  # read does not raise when the connection closes early
            raise ConnectionError(f'connection closed after {offset:,} of {end:,} bytes')
    except HTTPError as e:
        if e.code == 416 and have:  # no bytes follow
            return
        if e.code in (408, 429) or e.code >= 500:
            raise ConnectionError(f'{url}: {e}') from e
        raise ValueError(f'{url}: {e}; name a mirror with --from') from e
    except (OSError, HTTPException) as e:
        raise ConnectionError(f'{url}: {str(e) or repr(e)}') from e


def fetch(url, part):
    """Download `url` to the file `part`, after the bytes that it has, until it is the released file."""
    for pause in (*PAUSES, None):
        have = part.stat().st_size if part.exists() else 0
        try:
            with (open(part, 'ab') as f, tqdm(desc=part.stem, initial=have, unit='B', unit_scale=True, leave=False,
                                              disable=None) as bar):
                for offset, block in receive(url, have):
                    if offset + len(block) > LARGEST:
                        break
                    if offset != f.tell():  # the server ignores Range and sends the whole file
                        f.seek(offset)
                        f.truncate()
                    with errors_named(str(part)):
                        f.write(block)
                    bar.update(len(block))
            break
        except ConnectionError as e:
            if pause is None:
                raise ConnectionError(f'{e}; run again to continue') from e
            print(f'{e}; trying again in {pause} s', file=sys.stderr)
            time.sleep(pause)
    if not is_released(part, part.stem):
        size = part.stat().st_size
        part.unlink()
        raise ValueError(f'{url} is not the released file ({size:,} bytes), so it was removed: run again, or name a '
                         'mirror with --from')


def compare(folder):
    """Compare the network in a folder with RECORDED: the states of the last tokens, and the greedy continuation.

    Returns the largest difference of the states.
    """
    try:
        import numpy as np
        import torch

        from common.trained import open_trained
        from generate import parse_args, sample
        from zero_shot import with_positions
    except ImportError as e:
        raise ValueError(f'{e}, so the network was not compared: pip install -r requirements.txt, then run again with '
                         '--check') from None
    with np.load(RECORDED) as arrays:
        recorded = {name: arrays[name] for name in arrays.files}
    texts, prompt = [recorded['ids_0'], recorded['ids_1']], recorded['prompt'].tolist()
    trained = open_trained(parse_args(['--model_path', str(folder)]))
    network, n_vocab = trained.model.transformer, trained.encoder.n_vocab
    n_embd = network.embed.weight.size(1)
    if n_embd != recorded['h'].shape[1] or max(map(np.max, texts)) >= n_vocab or max(map(len, texts)) > network.n_ctx:
        raise ValueError(f'the network in {folder} is another one: {n_vocab} tokens, {network.n_ctx} positions, '
                         f'{n_embd} wide')
    with torch.no_grad():
        h = [network(with_positions(network, torch.from_numpy(ids)[None]))[0, -1] for ids in texts]  # (C,) each
    difference = (torch.stack(h) - torch.from_numpy(recorded['h'])).abs().max().item()
    advice = ('If the files are the release, this program or its torch is at fault: python -m pytest '
              'tests/test_model.py tests/test_generate.py')
    if not difference <= TOLERANCE:  # also for nan
        raise ValueError(f"the network in {folder} does not give the hidden states that OpenAI's code gave: largest "
                         f'difference {difference:.1g}, not within {TOLERANCE:.0e}. {advice}')
    made = torch.cat([*sample(network, n_vocab, prompt, len(recorded['continuation']), temperature=0)]).tolist()
    if made != recorded['continuation'].tolist():
        raise ValueError(f'the network in {folder} gives the right hidden states, but continues {prompt} with {made}. '
                         f'{advice}')
    return difference


def fetch_all(names, to, source):
    """Fetch these files to the folder `to`. Raises what `fetch` raises."""
    if not source.startswith(('http://', 'https://')):
        raise ValueError(f'--from {source}: not an address with http:// or https://')
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        part = to / f'{name}.part'
        if part.is_symlink() or not part.is_file():
            part.unlink(missing_ok=True)  # to write into a link or a pipe would do harm
        fetch(f'{source.rstrip("/")}/{name}', part)
        part.replace(to / name)
        print(f'{name}: {(to / name).stat().st_size:,} bytes, right', flush=True)
    print(f'{len(FILES)} of {len(FILES)} files are right in {to}', flush=True)


def main(args):
    """Fetch the files that a folder lacks, or only print which ones; then compare the network. Exit status 1 if --check
    finds a wrong file."""
    to = args.model_path
    wrong = [name for name in FILES if not is_released(to / name, name)]
    if args.check:
        listed = ', '.join(f'{name} is {"wrong" if (to / name).is_file() else "missing"}' for name in wrong)
        result = f'not the release: {listed}' if wrong else f'the release: {len(FILES)} blob ids are right'
        print(f'{to} is {result}', flush=True)
        if 'missing' in listed:
            sys.exit(1)
    else:
        fetch_all(wrong, to, args.source)
    difference = compare(to)  # files with other bytes may hold the same network
    print(f"the network in {to} gives the hidden states that OpenAI's code gave: largest difference {difference:.1g}")
    if wrong and args.check:
        sys.exit(1)


def parse_args(argv=None):
    parser = Parser('model/download.py', __doc__)
    group = parser.add_argument_group('files')
    group.add_argument('--model_path', type=Path, metavar='FOLDER', default=ROOT / 'model', help='folder for the files')
    group.add_argument('--from', dest='source', metavar='URL', default=REPOSITORY, help="address of a mirror's folder")
    group.add_argument('--check', action='store_true', help='only print whether the folder is the release, and compare '
                       'the network in it; exit status 1 if it is not the release, 2 if the network is another one')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_script(main, begin_script(parse_args))
