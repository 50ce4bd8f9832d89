"""A user's Triton kernel stays whole, and sees the memory that eager gives it."""

import pytest
import torch
from torch import nn

from .checks import export_and_compare
from .jit import check

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def _kernel():
    import triton
    import triton.language as tl

    @triton.jit
    def add_rows(x, y, out, n, block: tl.constexpr):
        at = tl.program_id(0) * block + tl.arange(0, block)
        inside = at < n
        total = tl.load(x + at, mask=inside) + tl.load(y + at, mask=inside)
        tl.store(out + at, total, mask=inside)

    return add_rows


ADD_ROWS = _kernel() if torch.cuda.is_available() else None


def _add(x, y):
    out = torch.empty_like(x)
    n = x.numel()
    torch.library.wrap_triton(ADD_ROWS)[(n // 16 + 1,)](x, y, out, n, block=16)
    return out


def _module():
    class Adds(nn.Module):
        def forward(self, x, y):
            total = _add(x.t().contiguous(), y)
            return total * 2, _add(total, total)

    return Adds()


def test_a_triton_kernel_in_an_exported_program():
    x, y = torch.randn(7, 5, device="cuda"), torch.randn(5, 7, device="cuda")
    program = export_and_compare(_module(), (x, y))
    assert any("triton" in node.op.name for node in program.graph)


def test_a_triton_kernel_under_torch_compile():
    x, y = torch.randn(7, 5, device="cuda"), torch.randn(5, 7, device="cuda")
    check(_module(), x, y)
