"""Three tricks for processors: when each applies, why, and what it gains. No result changes by more than rounding.

GOMP_SPINCOUNT, which shell.py sets before torch is imported: for networks less than 512 wide. Torch's threads wait for
    each other by spinning for milliseconds. On a busy machine they take the core from the thread that they wait for:
    two threads were six times slower than one. At full size, on a quiet machine, spinning is a tenth faster.
`keep_freed_memory`: wherever the C library is glibc. Otherwise glibc gives tensors of more than 32 MB back to the
    system, which must clear each page of the next one: on a virtual machine this took 0.4 of the 6 s of processor time
    of a training step with 4 stories.
`product`: on AMD processors with AVX-512. Torch multiplies float32 with MKL, which uses only AVX2 there; oneDNN is
    twice as fast. At full size a training step took 1.9 s instead of 3.4 s on an EPYC.
"""

import contextlib
import ctypes
import functools

import torch
import torch.nn.functional as F

LARGE = 2 ** 18  # numbers in a matrix; for fewer, the 15 us that oneDNN needs to start are too long


def keep_freed_memory():
    """Let this process keep the memory that it frees, for its next tensors. Does nothing where there is no glibc."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries, and Windows
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block gets pages of its own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: free pages stay here


def cpu_info(field: str) -> list[str]:
    """The words of a field, such as 'flags', in Linux's description of the processor; empty on other systems."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as f:
            return next((line.split() for line in f if line.startswith(field)), [])
    except OSError:
        return []


def has_onednn() -> bool:
    """True if this torch has the operator of `onednn`, which it lacks before 2.1 and where it was built without."""
    try:
        return onednn(torch.ones(1, 1), torch.ones(1, 1)).item() == 1
    except (AttributeError, RuntimeError):
        return False


@functools.cache
def uses_onednn() -> bool:
    """True on AMD processors with AVX-512, where torch has oneDNN."""
    has_avx512 = {'avx512f', 'avx512bw', 'avx512dq', 'avx512vl'} <= set(cpu_info('flags'))
    return has_avx512 and 'AuthenticAMD' in cpu_info('vendor_id') and has_onednn()


def product_dtype(x):
    """The dtype in which torch multiplies x (R, nx) here: that of autocast where it is on, otherwise that of x."""
    one = x[:1, :1].detach()
    return (one @ one.T).dtype


def is_for_onednn(x, w, dtypes=(torch.float32,)) -> bool:
    """True if oneDNN is to multiply x and w: large matrices in one of these dtypes, on a CPU that gains by it."""
    is_large = max(x.numel(), w.numel()) >= LARGE
    return is_large and x.device.type == 'cpu' and uses_onednn() and product_dtype(x) in dtypes


def product(x, w, b=None):
    """x @ w, or x @ w + b, by the faster of torch's two libraries: x (R, nx), w (nx, nf), b (nf,)."""
    if is_for_onednn(x, w):
        return OneDNNProduct.apply(x, w, b)
    return x @ w if b is None else b.addmm(x, w)


def add_product(out, x, w):
    """out += x @ w. Torch can add to out only in the dtype of x, and oneDNN cannot. Where they cannot, a CPU adds 4,096
    rows of out at a time, so that there is no second matrix as large as out."""
    if x.dtype == out.dtype and not is_for_onednn(x, w):
        out.addmm_(x, w)
        return
    n_rows = 4096 if out.device.type == 'cpu' else len(out)
    for piece, rows in zip(out.split(n_rows), x.split(n_rows), strict=True):
        piece += product(rows, w)


def gelu_of_product(x, w, b):
    """gelu(x @ w + b), without gradients. oneDNN applies gelu before it writes: a tenth of an evaluation."""
    if is_for_onednn(x, w, (torch.float32, torch.bfloat16)):
        dtype = product_dtype(x)
        if dtype == w.dtype or len(x) >= len(w):  # casting w costs as much as the gelu of len(w) rows
            return onednn(x.to(dtype), w.to(dtype), b.to(dtype), 'gelu')
    return F.gelu(product(x, w, b), approximate='tanh')


def onednn(x, w, b=None, act='none'):
    """act(x @ w + b) by oneDNN, without gradients; torch has this operator for its compiler."""
    if not (w.is_contiguous() or w.T.is_contiguous()):  # for a slice oneDNN takes minutes
        w = w.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, w.T, b, act, [], 'tanh')


class OneDNNProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return onednn(x, w, b)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        needs_x, needs_w, needs_b = ctx.needs_input_grad
        return (product(grad, w.T) if needs_x else None, product(x.T, grad) if needs_w else None,
                grad.sum(0) if needs_b else None)
