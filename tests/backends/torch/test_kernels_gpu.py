"""Kernels for CUDA against their references, and what a compiled program launches."""

import re
from collections import Counter

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import rewright
from rewright.backends.torch.kernels import convolution

pytestmark = pytest.mark.gpu

BOTH = [torch.float16, torch.bfloat16]
CUDA = "cuda"


def image(n, c, h, w, dtype):
    made = torch.randn(n, c, h, w, device=CUDA)
    return made.to(dtype).contiguous(memory_format=torch.channels_last)


def apart(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(
    ("c", "out", "kernel", "stride", "size"),
    [(64, 64, 3, 1, 56), (64, 256, 1, 1, 56), (256, 512, 1, 2, 28), (512, 512, 3, 2, 14)],
)
def test_conv_relu(c, out, kernel, stride, size, added, dtype):
    x, pad = image(2, c, size, size, dtype), kernel // 2
    w = image(out, c, kernel, kernel, dtype) * 0.05
    b = torch.randn(out, device=CUDA, dtype=dtype)
    steps = [stride] * 2, [pad] * 2, [1, 1]
    exact = nn.functional.conv2d(x.double(), w.double(), b.double(), *steps)
    z = image(*exact.shape, dtype) if added else None
    exact = torch.relu(exact + z.double() if added else exact)
    found = convolution.conv_relu(x, w, b, z, *steps, 1)
    plain = nn.functional.conv2d(x, w, b, *steps)
    plain = torch.relu(plain + z if added else plain)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert apart(found, exact) <= 1.1 * apart(plain, exact) + 1e-5
    assert not convolution._refused


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)) for _ in range(2)
        )
        self.norm, self.end = nn.GroupNorm(8, 64), nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.first(x) + x)
        return self.end(nn.functional.silu(self.norm(torch.relu(self.second(x)))))


def launched(program, x):
    program(x)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        program(x)
        torch.cuda.synchronize()
    return Counter({item.key: item.count for item in seen.key_averages()})


@pytest.mark.slow
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_a_program_copies_nothing_and_is_right(order):
    net = Net().eval().to(CUDA, torch.float16)
    x = torch.randn(4, 8, 32, 32, device=CUDA, dtype=torch.float16)
    x = x.contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=order)
    with torch.no_grad():
        exact, plain = net.double()(x.double()), net.half()(x)
        program = rewright.compile(net, (x,), torch_backend="inductor")
        kernels = launched(program, x)
        assert apart(program(x), exact) <= 1.2 * apart(plain, exact)
        # a kernel named after nothing but a convolution brings its image into another order
        moved = [n for n in kernels if re.search(r"direct_copy|fused_convolution_\d+$", n)]
        assert len(moved) <= (order is torch.contiguous_format), moved  # the result's own order
