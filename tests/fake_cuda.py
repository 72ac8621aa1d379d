"""A device of the type `cuda` without a GPU, which refuses what a GPU would refuse and counts what it would wait for.

    with FakeCuda() as gpu:
        x = torch.ones(3, device='cuda')
        x + torch.ones(3)  # RuntimeError: add mixes devices
        x.sum().item()  # works, and is in gpu.waits

A tensor `on the device` is one on the CPU whose dispatch keys are those of CUDA, so that each operation on it comes
to FakeCuda, which computes it on the CPU. `x.device` is cuda:0, and torch.autocast('cuda') casts by the rules below. It
finds, in forward and backward passes, in the optimizer and in torch's own Python code:

- operations on tensors of both devices, except those with a number (0 dimensions) on the host, as CUDA has it;
- operations that only a CPU has: those of oneDNN, and those for which torch's table of operations lists no CUDA;
- reading a tensor without a copy to the host (`numpy`), and a generator of the other device;
- places where the CPU waits for the GPU, as `waits`: Counter of 'FILE FUNCTION: WHAT'. These are reading numbers,
  operations whose results have a shape that depends on numbers (nonzero, a boolean index), and copies in either
  direction, except those with non_blocking to the device, of pinned memory.

It cannot find what depends on a GPU's kernels: wrong numbers, missing dtypes, limits of sizes, operations that are not
deterministic; nor memory, speed, streams and races between them, CUDA graphs, torch.compile, NCCL, and several GPUs. A
kernel that waits by itself is not seen, except `multinomial`, nor is torch.save. Not computed here: deep copies,
in-place changes of a shape, and copies to another device that gradients flow through.
"""

import os
import re
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torchgen
from torch.optim.optimizer import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

attention = pytest.importorskip('torch.nn.attention', reason='this torch is too old for fake_cuda.py')
ROOT = Path(__file__).parents[1]
CUDA, CPU = torch.device('cuda:0'), torch.device('cpu')
DEPENDS_ON_NUMBERS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def on_device(value) -> bool:
    return isinstance(value, torch.Tensor) and torch._C._dispatch_keys(value).has(torch._C.DispatchKey.CUDA)


def each(function, value):
    """The value with function(x) in place of each x in its lists, tuples and dicts."""
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)([each(function, x) for x in value])
    return {k: each(function, x) for k, x in value.items()} if isinstance(value, dict) else function(value)


def tensors_in(*values) -> list:
    found = []
    each(lambda x: found.append(x) if isinstance(x, torch.Tensor) else None, values)
    return found


def is_cuda(device) -> bool:
    return device is not None and torch.device(device).type == 'cuda'


def with_keys(tensor, device):
    """The same memory, as a tensor on the host or on the device."""
    return torch.Tensor._make_subclass(torch.Tensor, tensor, device_for_backend_keys=device)


def cpu_only() -> set[str]:
    """The operations that have a kernel for a CPU and none for CUDA, from the table that torch is built from."""
    table = Path(torchgen.__file__).parent / 'packaged' / 'ATen' / 'native' / 'native_functions.yaml'
    found = set()
    for block in table.read_text().split('\n- func: ')[1:]:
        keys = {key for line in re.findall(r'^    ([\w, ]+):', block, re.MULTILINE) for key in line.split(', ')}
        has_cuda = 'structured_delegate' in block or any(key == 'CUDA' or 'Composite' in key for key in keys)
        if keys & {'CPU', 'MkldnnCPU'} and not has_cuda:
            found.add(f'aten::{block.split("(")[0]}')
    return found


class FakeGenerator(torch.Generator):
    """A generator that may be on the device."""

    def __new__(cls, device='cpu'):
        generator = super().__new__(cls, 'cpu')
        generator.fake = is_cuda(device)
        return generator


class FakeCuda(TorchDispatchMode):
    """The context; see above. `waits`: how often the CPU has waited, by the place in this repository."""

    def __init__(self):
        super().__init__()
        self.waits, self.in_call, self.cpu_only = Counter(), True, cpu_only()

    def __enter__(self):
        group = Optimizer._group_tensors_by_device_and_dtype

        def group_by_device(*args, **kwargs):
            return {(CUDA, dtype): value for (_, dtype), value in group(*args, **kwargs).items()}

        answers = {'is_available': True, 'is_bf16_supported': True, 'get_device_name': 'a fake GPU',
                   'get_device_capability': (9, 0)}
        with ExitStack() as stack:
            for name, value in answers.items():
                stack.enter_context(patch.object(torch.cuda, name, lambda *_, value=value: value))
            stack.enter_context(patch('torch.Generator', FakeGenerator))
            stack.enter_context(patch.object(Optimizer, group.__name__, staticmethod(group_by_device)))
            # torch chooses between the other ones by the true device
            stack.enter_context(attention.sdpa_kernel(attention.SDPBackend.MATH))
            super().__enter__()
            stack.push(super().__exit__)
            stack.enter_context(Calls(self))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def wait(self, what):
        """Count a wait at the innermost function of this repository."""
        frame = sys._getframe(1)
        while frame and not (is_ours(frame.f_code.co_filename) and frame.f_code.co_name[0] != '<'):
            frame = frame.f_back
        place = f'{os.path.relpath(frame.f_code.co_filename, ROOT)} {frame.f_code.co_name}' if frame else 'elsewhere'
        self.waits[f'{place}: {what}'] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors, name, originals = tensors_in(args, kwargs), func.name(), {}
        on = [tensor for tensor in tensors if on_device(tensor)]
        if on:
            self.check(func, name, args, tensors, on)

        def to_host(value):
            if not on_device(value):
                return value
            host = with_keys(value, CPU)
            originals[id(host)] = value, host
            return host

        def to_device(value):
            if not isinstance(value, torch.Tensor):
                return value
            return originals[id(value)][0] if id(value) in originals else with_keys(value, CUDA)

        out = func(*each(to_host, args), **each(to_host, kwargs)) if on else func(*args, **kwargs)
        if name == 'aten::copy_':
            return args[0]
        # without tensors: torch's C++ code asks for the true device of those that it works on
        made_inside = not tensors and self.in_call and kwargs.get('device') in (None, CPU)
        return each(to_device, out) if on or made_inside else out

    def check(self, func, name, args, tensors, on):
        """Refuse what CUDA would refuse, and count a wait."""
        if name in self.cpu_only or not name.startswith('aten::'):
            raise NotImplementedError(f'{name} has no kernel for CUDA')
        indices = [t for t in args[1] if t is not None] if name.startswith(('aten::index.', 'aten::index_put')) else []
        host = [tensor for tensor in tensors if tensor.ndim and not on_device(tensor)]
        if name == 'aten::copy_':
            if len(on) < 2:
                self.copy(args[1], len(args) > 2 and args[2])
        elif any(not any(tensor is index for index in indices) for tensor in host):
            devices = [('cuda' if on_device(tensor) else 'cpu', tuple(tensor.shape)) for tensor in tensors]
            raise RuntimeError(f'{name} mixes devices: {devices}')
        elif host:
            self.wait('index from the host')
        if name == 'aten::_local_scalar_dense':
            self.wait('number')
        elif name == 'aten::multinomial':  # its kernel checks that the probabilities are valid
            self.wait('multinomial')
        elif indices:
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.wait('boolean index')
        elif DEPENDS_ON_NUMBERS & {*func.tags}:
            self.wait(name.removeprefix('aten::'))

    def copy(self, tensor, non_blocking):
        """Count a copy of `tensor` to the other device, unless the CPU does not wait for it."""
        if on_device(tensor):
            self.wait('copy to the host')
        elif not (non_blocking and getattr(tensor, 'is_fake_pinned', False)):
            self.wait('copy to the device')

    def move(self, tensor, device, non_blocking=False):
        """The tensor on a device; the same one if it is there."""
        if device.type == 'meta' or is_cuda(device) == on_device(tensor):
            return tensor
        if tensor.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError('gradients through a copy to another device')
        self.copy(tensor, non_blocking)
        return with_keys(tensor.detach().clone(), device)


class Calls(TorchFunctionMode):
    """What FakeCuda has to know about calls from Python: devices that they ask for."""

    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, '__name__', '')
        first = args[0] if args else None
        if name == '__get__' and func in (torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__):
            value = CUDA if on_device(first) else func(first)
            return value if func == torch.Tensor.device.__get__ else value.type == 'cuda'
        if func is torch.Tensor.backward:
            # with this mode, for the Python code of autograd functions
            with self, patch('torch.autograd.has_torch_function', lambda _: False):
                return torch.autograd.backward(first, kwargs.pop('gradient', None), **kwargs)
        if name in METHODS and isinstance(first, torch.Tensor):
            return getattr(self, name)(func, *args, **kwargs)
        if name in ('__repr__', '__format__') and on_device(first):  # torch turns the modes off
            self.gpu.wait('copy to the host')
            return func(with_keys(first, CPU), *args[1:])
        if name in ('numpy', '__array__') and on_device(first):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if torch.is_autocast_enabled('cuda'):
            args, kwargs = autocast(name, args, kwargs)
        asked = kwargs.get('device')
        if is_cuda(asked):
            kwargs['device'] = CPU
        outer, self.gpu.in_call = self.gpu.in_call, any(map(on_device, tensors_in(args, kwargs)))
        generator = kwargs.get('generator')
        if generator is not None and getattr(generator, 'fake', False) != (self.gpu.in_call or is_cuda(asked)):
            raise RuntimeError(f'{name}: the generator is not on the device of the tensors')
        try:
            out = func(*args, **kwargs)
        finally:
            self.gpu.in_call = outer
        if asked is None:
            return out
        if name in ('tensor', 'as_tensor', 'asarray', 'new_tensor'):  # of numbers on the host
            return self.gpu.move(out, torch.device(asked))
        return with_keys(out, CUDA) if is_cuda(asked) and not on_device(out) else out

    def to(self, func, tensor, *args, **kwargs):
        copy = kwargs.pop('copy', False)
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        if args and isinstance(args[0], torch.Tensor):
            device = CUDA if on_device(args[0]) else CPU
        if dtype is not None or memory_format is not None or copy:
            pinned = getattr(tensor, 'is_fake_pinned', False)
            tensor = func(tensor, dtype=dtype or tensor.dtype, copy=copy,
                          memory_format=memory_format or torch.preserve_format)
            tensor.is_fake_pinned = pinned
        return tensor if device is None else self.gpu.move(tensor, device, non_blocking)

    def cpu(self, func, tensor, **kwargs):
        return self.gpu.move(tensor, CPU)

    def cuda(self, func, tensor, device=None, non_blocking=False, **kwargs):
        return self.gpu.move(tensor, CUDA, non_blocking)

    def pin_memory(self, func, tensor, *args):
        if on_device(tensor):
            raise RuntimeError("cannot pin 'cuda' tensors: only those on the host")
        tensor = tensor.clone()
        tensor.is_fake_pinned = True
        return tensor

    def tolist(self, func, tensor):
        if on_device(tensor):
            self.gpu.wait('numbers')
        return func(tensor)


def autocast(name, args, kwargs):
    """The arguments of a call as torch.autocast('cuda') makes them: its own rules look at the true device."""
    dtype = torch.get_autocast_dtype('cuda') if name in LOWER else torch.float32 if name in FLOAT32 else None
    if name in SETS_DTYPE and on_device(args[0]) and args[0].is_floating_point():
        return args, {'dtype': torch.float32, **{k: v for k, v in kwargs.items() if k != 'dtype' or v is not None}}
    if dtype is None:
        return args, kwargs

    def cast(value):
        is_cast = on_device(value) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(dtype) if is_cast else value
    return each(cast, args), each(cast, kwargs)


# the operations of ATen/autocast_mode.h that occur here
LOWER = {'matmul', '__matmul__', '__rmatmul__', 'mm', 'addmm', 'bmm', 'baddbmm', 'linear', 'einsum',
         'scaled_dot_product_attention'}
FLOAT32 = {'layer_norm', 'cross_entropy', 'nll_loss', 'mse_loss', 'exp', 'log', 'pow', '__pow__', 'rsqrt', 'logsumexp'}
SETS_DTYPE = {'softmax', 'log_softmax', 'sum', 'cumsum', 'prod', 'vector_norm', 'linalg_vector_norm'}
METHODS = ('to', 'cpu', 'cuda', 'pin_memory', 'tolist')


def is_ours(path) -> bool:
    """True for a file of the product."""
    return path.startswith(f'{ROOT}{os.sep}') and not re.search('(^|/)(tests|site-packages)/', path[len(str(ROOT)):])
