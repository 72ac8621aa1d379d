"""The three tricks of common/cpu.py. test_shell.py tests when threads sleep, test_fast.py gelu inside a product."""

import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from toy import ROOT

from common import cpu

FAULTS = '''
import resource, torch
from common.device import choose_device
choose_device('cpu', 'float32')
for i in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2 ** 24 - 2 ** 10 * i)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='about the C library of GNU/Linux')
def test_freed_memory_serves_the_next_tensor():
    """In a process of its own, because the heap of this one has holes. 64 MiB are 16,384 pages. Each tensor is a little
    smaller than the last, because glibc before 2.38 does not give an aligned block its own place again."""
    out = subprocess.run([sys.executable, '-c', FAULTS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert min(map(int, out.split())) < 100 < max(map(int, out.split()))


@pytest.mark.parametrize('flags, vendor, expected', [
    ('avx2 avx512f avx512bw avx512dq avx512vl', 'AuthenticAMD', True), ('avx2', 'AuthenticAMD', False),
    ('avx2 avx512f avx512bw avx512dq avx512vl', 'GenuineIntel', False), ('', '', False)])
def test_onednn_multiplies_where_mkl_is_slow(monkeypatch, flags, vendor, expected):
    monkeypatch.setattr(cpu, 'cpu_info', {'flags': flags.split(), 'vendor_id': vendor.split()}.get)
    monkeypatch.setattr(cpu, 'has_onednn', lambda: True)
    assert cpu.uses_onednn.__wrapped__() == expected


@pytest.mark.skipif(not cpu.has_onednn(), reason='this torch was built without oneDNN')
@pytest.mark.parametrize('n, dtype', [(600, torch.float32), (4, torch.float32), (600, torch.float64)])
def test_a_product_is_that_of_torch_with_its_gradients(n, dtype):
    """Also of slices and of transposed matrices, which oneDNN may take for others."""
    g = torch.Generator().manual_seed(0)
    whole, b = torch.randn(n, 3 * n, generator=g, dtype=dtype), torch.randn(n, generator=g, dtype=dtype)
    x = torch.randn(2 * n, n, generator=g, dtype=dtype)
    for w in (whole[:, n:2 * n], whole[:, :n].T, whole[:, :n].contiguous()):
        ours, theirs = ([t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, b)]
                        + [w.detach().requires_grad_()] for _ in range(2))
        with patch.object(cpu, 'uses_onednn', lambda: True):
            y = cpu.product(ours[0], ours[2], ours[1])
            grads = torch.autograd.grad(y.square().sum(), ours, create_graph=True)
            sum(grad.square().sum() for grad in grads).backward()  # second derivatives
        expected = theirs[0] @ theirs[2] + theirs[1]
        their_grads = torch.autograd.grad(expected.square().sum(), theirs, create_graph=True)
        sum(grad.square().sum() for grad in their_grads).backward()
        assert y.dtype == dtype and ('Product' in y.grad_fn.name()) == (n == 600 and dtype == torch.float32)
        for a, c in zip((y, *grads, *(t.grad for t in ours)), (expected, *their_grads, *(t.grad for t in theirs)),
                        strict=True):
            assert (a - c).norm() < 1e-6 * c.norm()
