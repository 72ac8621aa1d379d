"""Where and how precisely to compute: the device, the dtype of matrix products, seeds, and torchrun's processes."""

import contextlib
import gc
import os
import random
import sys
import traceback

import numpy as np
import torch
import torch.distributed as dist

PEER_ENDED = ('closed by peer', 'reset by peer', 'Broken pipe', 'remote process exited')       # gloo's words, NCCL's
DTYPES = {'float32': None, 'tf32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}     # autocast to


def add_device_args(parser):
    """Where and how precisely to compute: --device, --dtype, --deterministic."""
    group = parser.add_argument_group('device')
    group.add_argument('--device', default='auto', help='cuda, mps, cpu, cuda:1, ...; auto takes the first there is')
    group.add_argument('--dtype', default='float32', choices=DTYPES, help='of matrix products; parameters, softmax and '
                       'losses stay float32. float16 is for GPUs without bfloat16, and scales the loss')
    group.add_argument('--deterministic', action='store_true', help='on CUDA, only algorithms that give the same '
                       'bits each time (slower); a CPU does so anyway')


def choose_device(name: str, dtype: str, deterministic: bool = False):
    """The torch device of --device, and the context that --dtype's forward passes run in.

    float32 is strict. tf32 rounds the inputs of matrix products on CUDA. bfloat16 and float16 are autocast.
    deterministic: torch refuses what would not give the same bits twice. Raises ValueError for a device that is not
    there.
    """
    if deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')    # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True)
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f'--device {name}: {str(e).splitlines()[0]}') from None
    torch.set_float32_matmul_precision('high' if dtype == 'tf32' else 'highest')
    if DTYPES[dtype]:
        return device, torch.autocast(device.type, dtype=DTYPES[dtype])
    return device, contextlib.nullcontext()


def grad_scaler(device, dtype: str):
    """Scales the loss in float16, whose gradients would become zero otherwise; does nothing for other dtypes."""
    return torch.amp.GradScaler(device.type, enabled=dtype == 'float16')


NO_SCALING = grad_scaler(torch.device('cpu'), 'float32')


def set_seed(seed: int):
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def memory_of(device) -> int:
    """Bytes of memory that the device has; of a CPU, what a container may take of it."""
    if device.type == 'cuda':
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == 'mps':
        return torch.mps.recommended_max_memory()
    if not hasattr(os, 'sysconf'):                                     # Windows: not known, so not limited
        return sys.maxsize
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    try:
        with open('/sys/fs/cgroup/memory.max', encoding='ascii') as f:
            return min(memory, int(f.read()))
    except (OSError, ValueError):                                      # no such limit, or 'max'
        return memory


class Ranks:
    """The processes of a run: `size` of them, this one being `rank`. Without torchrun, one."""

    def __init__(self):
        self.rank, self.size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))

    def device(self, name: str) -> str:
        """--device of this process: torchrun's processes on one machine take its GPUs in turn."""
        if self.size > 1 and name in ('auto', 'cuda') and torch.cuda.is_available():
            return f'cuda:{os.environ["LOCAL_RANK"]}'
        return 'cpu' if self.size > 1 and name == 'auto' else name

    def join(self, device):
        """Meet the other processes; with NCCL between GPUs, gloo otherwise."""
        if self.size > 1 and not dist.is_initialized():
            if device.type == 'cuda':
                torch.cuda.set_device(device)                          # where NCCL moves the objects of `gather`
            dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo')

    def leave(self):
        """End the process group. Raises ConnectionError instead of torch's error if another process has ended.

        DistributedDataParallel must be freed before: it would end the group while it holds Python's lock, and gloo's
        threads may wait for that lock. The frames of an exception under way can keep it alive.
        """
        error = sys.exc_info()[1]
        if dist.is_initialized():
            traceback.clear_frames(sys.exc_info()[2])
            gc.collect()
            dist.destroy_process_group()
        if isinstance(error, RuntimeError) and any(words in str(error) for words in PEER_ENDED):
            raise ConnectionError('another process of this run has ended: its own message, if any, says why') from None

    def sum(self, tensor):
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, numbers: list, device) -> list:
        """The largest of all processes' numbers, at each place of the list."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def gather(self, value) -> list:
        """The value of every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def agree(self, what: str, value):
        """Raise ValueError if the processes have different values."""
        if len({*self.gather(value)}) > 1:
            raise ValueError(f'the processes have different {what}: give all machines the same options and files')
