"""Scripts in a shell: options are read before torch is imported, and errors end in one line and an exit status.

What they print goes through `Console`, so that no console, no closed output and no data can do harm. Ctrl-C while a run
trains is the business of checkpoint.py.
"""

import contextlib
import os
import re
import signal
import sys

CONTROLS = {i: f'\\x{i:02x}' for i in (*range(32), *range(127, 160)) if chr(i) not in '\n\t'}
BAR_MOVES = re.compile(r'(\r|\n*(\x1b\[A)+\Z)?')  # how tqdm moves to the place of a bar
NO_MEMORY = ("can't allocate memory", 'not enough memory', 'out of memory', 'Storage size calculation overflowed')

for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    if getattr(sys, name) is None:  # closed, as by daemons: the file gets its number, the lowest that is free
        setattr(sys, name, open(os.devnull, mode))
        os.set_inheritable(getattr(sys, name).fileno(), True)


def printable(text, stream=None) -> str:
    """The text with control characters, which could steer a terminal, as codes like \\x1b, and with a question mark for
    each character that the stream, by default sys.stdout, cannot encode."""
    encoding = getattr(stream or sys.stdout, 'encoding', None) or 'utf-8'
    return text.translate(CONTROLS).encode(encoding, 'replace').decode(encoding)


class Console:
    """A text stream that writes what is `printable` to another one. bars: the movements of tqdm's bars stay."""

    def __init__(self, stream, bars=False):
        self.stream, self.bars = stream, bars

    def write(self, text):
        if self.bars and not self.stream.isatty():
            text = text.strip('\r ')  # a log file shows no movements
        n = len(BAR_MOVES.match(text)[0]) if self.bars else 0
        return self.stream.write(text[:n] + printable(text[n:], self.stream))

    def __getattr__(self, name):
        return getattr(self.stream, name)


def end_interrupted(*_):
    """Handler of SIGINT until `run_script` begins.

    A KeyboardInterrupt while torch is imported would end in a traceback, or be caught by a library that tries imports.
    """
    os.write(2, f'{os.path.basename(sys.argv[0])}: interrupted\n'.encode())
    os._exit(130)


def begin_script(parse_args):
    """`parse_args()`; called before the imports that take seconds, so that --help and mistakes are answered at once."""
    sys.stdout, sys.stderr = Console(sys.stdout), Console(sys.stderr, bars=True)
    os.environ['MPLBACKEND'] = 'agg'  # figures are files; Jupyter leaves the name of a backend that may not be there
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not under nohup, or with &
        signal.signal(signal.SIGINT, end_interrupted)
    with one_line_errors():
        args = parse_args()
    if getattr(args, 'n_embd', 768) < 512 and 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', '1000')  # waiting threads soon sleep; cpu.py says why
    return args


def run_script(main, args, advice=''):
    """`main(args)`; from here on Ctrl-C is a KeyboardInterrupt. advice: for when there is not enough memory."""
    with one_line_errors(advice):
        if signal.getsignal(signal.SIGINT) is end_interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main(args)


@contextlib.contextmanager
def one_line_errors(advice=''):
    """In this context, an error that a user can correct ends the program with one line on stderr and exit status 2.

    advice: the end of the line when there is not enough memory. An exception with an attribute `status` gives the exit
    status; others end in a traceback.
    """
    try:
        yield
        print(end='', flush=True)
        return
    except SystemExit as e:  # --help
        message, status = '', e.code
    except BrokenPipeError:
        message, status = 'stopped: the reader of the output has ended', 141
    except KeyboardInterrupt:
        message, status = 'interrupted', 130
    except Exception as e:
        if is_out_of_memory(e):
            message, status = ': '.join(filter(None, ['error: not enough memory', str(e), advice])), 2
        elif isinstance(e, (ValueError, OSError, ArithmeticError)):
            message, status = f'error: {e}', 2
        elif hasattr(e, 'status'):
            message, status = str(e), e.status
        else:
            raise
    if message:
        message = f'{os.path.basename(sys.argv[0])}: {" ".join(message.split())}'
        print(message if len(message) < 500 else f'{message[:300]} ... {message[-150:]}', file=sys.stderr)
    try:
        print(end='', flush=True)
    except OSError:  # at exit Python would flush again and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def is_out_of_memory(e) -> bool:
    """True for an exception of Python, numpy or torch that says that there is not enough memory."""
    return (isinstance(e, MemoryError) or type(e).__name__ == 'OutOfMemoryError'
            or isinstance(e, RuntimeError) and any(words in str(e) for words in NO_MEMORY))
