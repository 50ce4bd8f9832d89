"""Networks quantized as PT2E exports them, compiled whole: int8 and fp8, per tensor and channel.

The quantizers of PT2E are in a package of their own by now, so the operators that they export are
called here: activations quantized and dequantized, weights kept in 8 bits and dequantized.
"""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import nn
from torch.export import Dim

import rewright
from rewright.backends.tensorrt.build import build_network
from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.options import BuildOptions
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph
from rewright.ir.segments import segments_of
from rewright.ir.types import TensorType
from rewright.testing import evaluate
from tests.backends.tensorrt.checking import assert_same, refusals, rtx
from tests.backends.tensorrt.checking import evaluate as evaluate_emitted

pytestmark = pytest.mark.filterwarnings("ignore::rewright.errors.FallbackWarning")

Q = torch.ops.quantized_decomposed
INT8, FP8 = (-128, 127, torch.int8), (-448, 448, torch.float8_e4m3fn)
WEIGHTS = {torch.int8: (-127, 127, torch.int8), torch.float8_e4m3fn: FP8}
"""Weights in int8 leave out the least number, as the quantizers do."""


class Fake(nn.Module):
    """An activation through its 8 bits."""

    def __init__(self, scale: float, limits: tuple[int, int, torch.dtype]) -> None:
        super().__init__()
        self.scale, self.limits = scale, limits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = Q.quantize_per_tensor(x, self.scale, 0, *self.limits)
        return Q.dequantize_per_tensor(q, self.scale, 0, *self.limits)


class Weight(nn.Module):
    """A weight in 8 bits, with a scale for each channel along `axis`, or one for all."""

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype, axis: int | None) -> None:
        super().__init__()
        self.limits, self.axis = WEIGHTS[dtype], axis
        largest = self.limits[1]
        if axis is None:
            self.scale = float(weight.abs().max()) / largest
            q = Q.quantize_per_tensor(weight, self.scale, 0, *self.limits)
        else:
            rest = [d for d in range(weight.dim()) if d != axis]
            self.register_buffer("scales", weight.abs().amax(rest) / largest)
            self.register_buffer("zeros", torch.zeros(weight.shape[axis], dtype=torch.int64))
            q = Q.quantize_per_channel(weight, self.scales, self.zeros, axis, *self.limits)
        self.register_buffer("q", q)

    def forward(self) -> torch.Tensor:
        if self.axis is None:
            return Q.dequantize_per_tensor(self.q, self.scale, 0, *self.limits)
        return Q.dequantize_per_channel(self.q, self.scales, self.zeros, self.axis, *self.limits)


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, dtype: torch.dtype, axis: int | None) -> None:
        super().__init__()
        limits = INT8 if dtype is torch.int8 else FP8
        step = 0.03 if dtype is torch.int8 else 0.01
        self.fakes = nn.ModuleList(Fake(step * n, limits) for n in (1, 2, 2, 3))
        shapes = ((8, 3, 3, 3), (16, 8, 3, 3), (10, 16))
        self.weights = nn.ModuleList(
            Weight(torch.randn(shape) / shape[1] ** 0.5, dtype, axis) for shape in shapes
        )
        self.biases = nn.ParameterList(torch.randn(shape[0]) for shape in shapes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, last = (weight() for weight in self.weights)
        x = nn.functional.conv2d(self.fakes[0](x), first, self.biases[0], padding=1).relu()
        x = nn.functional.conv2d(self.fakes[1](x), second, self.biases[1], stride=2).relu()
        x = self.fakes[2](x).mean((2, 3))
        return nn.functional.linear(self.fakes[3](x), last, self.biases[2])


CASES = {
    "int8 per channel": (torch.int8, 0),
    "int8 per tensor": (torch.int8, None),
    "fp8 per tensor": (torch.float8_e4m3fn, None),
}


@pytest.mark.parametrize(("dtype", "axis"), CASES.values(), ids=CASES)
@torch.no_grad()
def test_one_engine_that_computes_the_same(dtype: torch.dtype, axis: int | None) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = Net(dtype, axis).eval()
    x = torch.randn(2, 3, 9, 9)
    program = rewright.compile(
        model, (x,), target="rtx", require_full_compilation=True,
        dynamic_shapes=({0: Dim("batch", min=1, max=8)},),
    )  # fmt: skip
    (segment,) = segments_of(program.graph)
    ops = [node.op.name for node in segment.regions[0]]
    kind = "tensor" if axis is None else "channel"
    assert sum("dequantize" in op for op in ops) == 7, "the weights stay in 8 bits"
    assert ops.count(f"quantized_decomposed.dequantize_per_{kind}") >= 3
    for size in (1, 2, 8):
        given = torch.randn(size, 3, 9, 9)
        expected = model(given)
        # one step of the last activation's grid is the largest error of a rounding that flips
        torch.testing.assert_close(evaluate(program, given), expected, rtol=2e-2, atol=2e-2)


def test_fp8_per_channel() -> None:
    """Torch's own kernel refuses fp8 with a zero point for each channel; so, by the formula."""
    graph = Graph("main")
    x = graph.add_input(TensorType(torch.float32, (4, 8)), "x")
    q = torch.randn(6, 8).to(torch.float8_e4m3fn)
    scales, zeros = torch.rand(6) + 0.5, torch.zeros(6, dtype=torch.int64)
    constants = [
        graph.add_constant(name, TensorType(data.dtype, tuple(data.shape)), data=data)
        for name, data in {"q": q, "scales": scales, "zeros": zeros}.items()
    ]
    build = Builder(graph)
    weight = build.call(
        "quantized_decomposed.dequantize_per_channel", *constants, 0, *FP8,
        types=[TensorType(torch.float32, (6, 8))],
    )  # fmt: skip
    graph.set_outputs([build.call("rw.linear", x, weight)])
    assert refusals(graph, rtx()) == []
    emitted = emit(graph, rtx())
    given = torch.randn(4, 8)
    assert_same(evaluate_emitted(emitted, [given]), [given @ (q.float() * scales[:, None]).T])
    assert build_network(emitted, BuildOptions(optimization_level=0)).data
