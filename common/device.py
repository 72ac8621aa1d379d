"""The device, the dtype of matrix products, random seeds, and the processes of torchrun."""

import contextlib
import gc
import os
import random
import sys
import traceback
import warnings

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from common.cpu import cpu_info, keep_freed_memory

PEER_ENDED = ('closed by peer', 'reset by peer', 'Broken pipe', 'remote process exited')  # in errors of gloo, NCCL
TORCHRUN = {'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0'}  # its variables, as they are without it
HOW_TO_START = f'unset {" ".join(TORCHRUN)} for one process, or start several with torchrun'
DTYPES = {'float32': None, 'tf32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}  # dtype of autocast


def choose_device(name: str, dtype: str, deterministic: bool = False):
    """The torch device of --device, and the context in which the forward passes of --dtype run.

    tf32 rounds the inputs of matrix products on CUDA; float32 does not. bfloat16 and float16 use autocast.
    deterministic: torch refuses operations that may give other bits each time. Raises ValueError for a device
    or dtype that torch does not have.
    """
    if deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # cuBLAS reads the variable when it starts
        torch.use_deterministic_algorithms(True)
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    context = contextlib.nullcontext()
    try:
        device = torch.device(name)
        if device.type not in ('cuda', 'mps', 'cpu', 'xpu'):
            raise RuntimeError('choose cuda, mps or cpu')
        torch.empty(1, device=device)
        if DTYPES[dtype]:
            with warnings.catch_warnings(action='ignore'):  # old versions warn of a dtype before they refuse it
                context = torch.autocast(device.type, dtype=DTYPES[dtype])
                with context:
                    pass
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f'--device {name}, --dtype {dtype}: {str(e).splitlines()[0][:150]}') from None
    if device.type == 'cpu':
        keep_freed_memory()
    torch.set_float32_matmul_precision('high' if dtype == 'tf32' else 'highest')
    return device, context


def device_of(args, ranks=None):
    """`choose_device` with the options, in one of the processes of `ranks`. An args.dtype of auto becomes the best one,
    because the files of a run record it."""
    ranks = ranks or Ranks()
    name = ranks.device(args.device)
    if args.dtype == 'auto':
        args.dtype = best_dtype(choose_device(name, 'float32')[0])
        if ranks.rank == 0:
            print(f'--dtype auto: {args.dtype}', file=sys.stderr)
    return choose_device(name, args.dtype, args.deterministic)


def best_dtype(device) -> str:
    """The dtype for --dtype auto: bfloat16 where its products are at least twice as fast as those of float32."""
    if device.type == 'cuda':
        is_fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        is_fast = device.type == 'cpu' and not {'amx_bf16', 'avx512_bf16'}.isdisjoint(cpu_info('flags'))
    return 'bfloat16' if is_fast else 'float32'


def grad_scaler(device, dtype: str):
    """A scaler of the loss for float16, in which small gradients become zero. It does nothing for other dtypes."""
    enabled = dtype == 'float16'
    if not hasattr(torch.amp, 'GradScaler'):  # before torch 2.3 there is one for CUDA alone
        return torch.cuda.amp.GradScaler(enabled=enabled)
    return torch.amp.GradScaler(device.type, enabled=enabled)


NO_SCALING = grad_scaler(torch.device('cpu'), 'float32')


def set_seed(seed: int):
    """Seed the generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def update_by_parts(loss_of, parts, runner, opt, autocast, scaler):
    """One update from the gradients of the parts of a batch, which are computed one after the other and added up.

    loss_of: a function from a part to its loss, by way of `runner`, the network or DistributedDataParallel around it.
    """
    runner.train()
    for i, part in enumerate(parts, start=1):
        # processes exchange their gradients once an update, after the last part
        waits = isinstance(runner, DistributedDataParallel) and i < len(parts)
        with runner.no_sync() if waits else contextlib.nullcontext():
            with autocast:
                loss = loss_of(part)
            scaler.scale(loss).backward()
    scaler.step(opt)
    scaler.update()
    opt.zero_grad()


class Ranks:
    """The `size` processes of a run, of which this is number `rank`, and on its machine number `local_rank`."""

    def __init__(self, rank=0, size=1, local_rank=0):
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.has_begun = False  # the process group; a group that was there before is not ours to end

    @classmethod
    def of_torchrun(cls):
        """The processes that torchrun has started; without it there is one."""
        given = [os.environ.get(name, default) for name, default in TORCHRUN.items()]
        if not (all(value.isdecimal() for value in given) and max(int(given[0]), int(given[2])) < int(given[1])):
            found = ', '.join(f'{name}={value}' for name, value in zip(TORCHRUN, given, strict=True))
            raise ValueError(f'the environment has {found}, which torchrun does not set so: {HOW_TO_START}')
        return cls(*map(int, given))

    def device(self, name: str) -> str:
        """--device of this process: with torchrun, each process on a machine has a GPU of its own."""
        if self.size > 1 and name in ('auto', 'cuda') and torch.cuda.is_available():
            return f'cuda:{self.local_rank}'
        return 'cpu' if self.size > 1 and name == 'auto' else name

    def join(self, device):
        """Begin the process group, which uses NCCL between GPUs and gloo otherwise, if there is none."""
        if self.size > 1 and not dist.is_initialized():
            if 'MASTER_ADDR' not in os.environ:
                raise ValueError(f'the environment has WORLD_SIZE={self.size}, but no MASTER_ADDR: {HOW_TO_START}')
            if device.type == 'cuda':
                torch.cuda.set_device(device)  # where NCCL moves the objects of `gather`
            dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
            self.has_begun = True

    def leave(self):
        """End the process group, if `join` began it. Raises ConnectionError instead of torch's error if another process
        has ended.

        DistributedDataParallel is freed first, also where the frames of an exception refer to it: freed later, it would
        end the group while it holds Python's lock, for which gloo's threads may wait.
        """
        error = sys.exc_info()[1]
        if self.has_begun:
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
        """The largest number of all processes, for each index of the list."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def gather(self, value) -> list:
        """The values of all processes."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def agree(self, what: str, value):
        """Raise ValueError if the processes have different values."""
        if len({*self.gather(value)}) > 1:
            raise ValueError(f'the processes have different {what}: give all machines the same options and files')
