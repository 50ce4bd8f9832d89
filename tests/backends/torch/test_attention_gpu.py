"""Attention by the kernels of the table, against float64, on a GPU."""

import pytest
import torch

import rewright
from rewright.backends.torch.kernels import attention

pytestmark = pytest.mark.gpu

CUDA = "cuda"


def tensors(*shapes, dtype):
    return [torch.randn(shape, device=CUDA, dtype=dtype) for shape in shapes]


def apart(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("keys", [49, 50, 77])
def test_efficient_takes_masks_of_any_length(keys, batch, dtype):
    q, k, v = tensors((8, 4, 33, 32), (8, 4, keys, 32), (8, 4, keys, 32), dtype=dtype)
    (bias,) = tensors((batch, 4, 33, keys), dtype=dtype)
    seen = torch.rand(batch, 1, 33, keys, device=CUDA) < 0.7
    seen[..., 0] = True
    for mask in (bias, seen, None, seen[:, :, :1]):
        given = None if mask is None else mask if mask.dtype == torch.bool else mask.double()
        exact = torch.nn.functional.scaled_dot_product_attention(
            q.double(), k.double(), v.double(), given
        )
        plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        found = attention.efficient(q, k, v, mask, None)
        assert apart(found, exact) <= 1.2 * apart(plain, exact) + 1e-4


@pytest.mark.parametrize("scale", [None, 0.3])
def test_flash(scale):
    q, k, v = tensors(*[(1, 12, 100, 64)] * 3, dtype=torch.float16)
    exact = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), scale=scale
    )
    assert apart(attention.flash(q, k, v, scale), exact) < 2e-3
    turned = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in (q, k, v)]
    assert apart(attention.flash(*turned, scale), exact) < 2e-3


class Window(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = torch.nn.Linear(64, 192)
        self.bias = torch.nn.Parameter(torch.randn(1, 2, 49, 49))

    def forward(self, x):
        q, k, v = self.qkv(x).view(-1, 49, 3, 2, 32).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, self.bias)
        return y.transpose(1, 2).reshape(-1, 49, 64)


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_program_uses_it(backend):
    net = Window().eval().requires_grad_(False).to(CUDA, torch.float16)
    (x,) = tensors((8, 49, 64), dtype=torch.float16)
    program = rewright.compile(net, (x,), torch_backend=backend, cuda_graphs="on")
    if backend == "eager":
        assert "efficient_attention" in program.source
    exact = net.double()(x.double())
    assert apart(program(x), exact) < 2e-3
