"""Depthwise convolutions and how far the kernel may be from them; for a GPU or an interpreter.

    TRITON_INTERPRET=1 python -m tests.backends.torch.depthwise_cases

runs the kernel on the CPU, and ends with an error where it is wrong.
"""

from __future__ import annotations

import itertools
import os

import attrs
import torch
from torch import Tensor

from rewright.backends.torch.kernels.depthwise import Blocks, is_innermost, launch, takes
from rewright.ir.convolutions import innermost

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SMALL = Blocks(1, 32, 16, 2)


@attrs.frozen
class Case:
    """A convolution, and how its launch is divided."""

    shape: tuple[int, int, int, int] = (2, 24, 9, 7)
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: tuple[int, int] = (1, 1)
    dtype: torch.dtype = torch.float16
    has_bias: bool = True
    relu: bool = False
    laid_out: bool = True
    blocks: Blocks | None = SMALL

    def arguments(self, device: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image, weight and bias."""
        made = torch.Generator().manual_seed(sum(self.shape) + sum(self.kernel))

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=made).to(device, self.dtype)

        channels = self.shape[1]
        image = draw(*self.shape).contiguous(memory_format=torch.channels_last)
        weight = draw(channels, 1, *self.kernel)
        if self.laid_out:
            strides = innermost(weight.shape)
            weight = torch.empty_strided(
                weight.shape, strides, dtype=self.dtype, device=device
            ).copy_(weight)
        assert is_innermost(weight) == self.laid_out
        return image, weight, draw(channels) if self.has_bias else None

    def check(self, found: Tensor, image: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """Sums in f32, rounded once: half an ulp, and what f32 loses of so many terms."""
        steps = (self.stride, self.padding, 1, self.shape[1])
        wide = [item.double().cpu() if item is not None else None for item in (image, weight, bias)]
        exact = torch.nn.functional.conv2d(*wide, *steps)
        size = torch.nn.functional.conv2d(*(None if t is None else t.abs() for t in wide), *steps)
        exact = exact.relu() if self.relu else exact
        kind = torch.finfo(self.dtype)
        rounds = not (IS_INTERPRETED and self.dtype == torch.bfloat16)  # it cuts off there
        allowed = (0.501 if rounds else 1.0) * kind.eps * exact.abs() + 2e-6 * size
        allowed += kind.smallest_normal * kind.eps
        assert found.dtype == self.dtype
        assert found.shape == exact.shape
        assert found.is_contiguous(memory_format=torch.channels_last)
        over = ((found.double().cpu() - exact).abs() / allowed).max().item()
        assert over <= 1, f"{self}: {over:.3g} times what is allowed"

    def run(self, device: str) -> None:
        """The kernel, launched on `device`, against float64."""
        image, weight, bias = self.arguments(device)
        steps = [self.stride] * 2, [*self.padding]
        assert takes(image, weight, bias, *steps)
        found = launch(image, weight, bias, *steps, self.relu, self.blocks)
        self.check(found, image, weight, bias)


BOTH = (torch.float16, torch.bfloat16)

CASES = [
    *(
        Case(kernel=(side, side), padding=(side // 2, side // 2), stride=stride, dtype=dtype)
        for side, stride, dtype in itertools.product((3, 5, 7), (1, 2), BOTH)
    ),
    *(
        Case(stride=stride, blocks=Blocks(rows, 16, 16, 1), relu=True)
        for rows, stride in itertools.product((2, 4), (1, 2))
    ),
    Case(kernel=(7, 7), padding=(3, 3), blocks=Blocks(4, 32, 16, 4)),
    Case(kernel=(3, 7), padding=(0, 3), has_bias=False),
    Case(kernel=(5, 3), padding=(4, 0), laid_out=False, relu=True),  # wider than it has to be
    Case(shape=(1, 8, 3, 3), kernel=(7, 7), padding=(2, 2)),  # one pixel; the kernel is larger
    Case(shape=(3, 40, 5, 1), stride=2),
    Case(shape=(1, 32, 4, 5), blocks=None, laid_out=False),  # by the table
]

if __name__ == "__main__":
    for case in CASES:
        case.run("cpu")
    print(f"{len(CASES)} right")
