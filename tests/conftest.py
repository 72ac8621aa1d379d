import os
import signal
import tempfile
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'                     # faster for toy tensors, and sums are the same in the processes
                                                        # that tests start
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from toy import toy_run, with_stories  # noqa: E402

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)    # under nohup, and after & in a script, both are ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def seeded():
    """Random numbers of a test do not depend on the tests before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def open_folder():
    """A folder that another user may read; those of pytest are the user's own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def folder(tmp_path):
    """A folder with toy stories."""
    return with_stories(tmp_path)


@pytest.fixture
def toy(folder):
    """A function that runs train.main on toy stories, in a folder of its own."""
    return lambda *argv: toy_run(folder, *argv)
