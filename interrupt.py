"""What a script imports first: an interrupt while it imports torch, which takes seconds, is one line.

A KeyboardInterrupt there would end in a traceback, or be caught by a library that tries an import.
"""

import os
import signal
import sys


def end_interrupted(*_):
    """Handler of SIGINT until `utils.run_script` begins."""
    os.write(2, f'{os.path.basename(sys.argv[0])}: interrupted\n'.encode())
    os._exit(130)


def begin_script():
    """Install the handler, unless SIGINT is ignored (nohup, &)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_interrupted)
