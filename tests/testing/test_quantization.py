"""Quantize, dequantize and dynamic quantize against formulas written out."""

from typing import Any

import pytest
import torch

from rewright.errors import EngineError
from rewright.testing.dtypes import FP4_VALUES, to_fp4, unpack_4bit
from tests.testing.networks import FLOATS, Net, close, out, trt

E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
E4M3 = E4M3[E4M3.isfinite()].double().unique()


def nearest(x: torch.Tensor, grid: Any) -> torch.Tensor:
    """The value of a sorted grid that is nearest to each x; no ties in what is given."""
    grid = torch.as_tensor(grid, dtype=torch.float64)
    return grid[(x.double()[..., None] - grid).abs().argmin(-1)]


#: shape of a scale of a tensor (8, 64), its axis, and the sizes of its blocks
SCALES = {
    "tensor": ((), None, (8, 64)),
    "axis 0": ((8, 1), 0, (1, 64)),
    "axis 1": ((1, 64), 1, (8, 1)),
    "blocks along 1": ((8, 4), None, (1, 16)),
    "blocks along 0": ((2, 64), None, (4, 1)),
}


def scale_of(granularity: str) -> tuple[torch.Tensor, int | None, torch.Tensor]:
    """A scale as TensorRT takes it, its axis, and the scale of each element."""
    shape, axis, block = SCALES[granularity]
    scale = torch.rand(shape).add(0.1).half().float()
    spread = scale
    for along, size in enumerate(block if shape else ()):
        spread = spread.repeat_interleave(size, along)
    return (scale if axis is None else scale.flatten()), axis, spread


def quantized(x: torch.Tensor, scale: torch.Tensor, axis: int | None, kind: Any, back: Any) -> Any:
    net = Net()
    quantize = net.network.add_quantize(net.input(x), net.constant(scale), kind)
    restore = net.network.add_dequantize(out(quantize), net.constant(scale), back)
    if axis is not None:
        quantize.axis = restore.axis = axis
    return net.evaluate(out(quantize), out(restore))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("granularity", sorted(SCALES))
def test_int8(granularity: str, dtype: torch.dtype) -> None:
    x, (scale, axis, wide) = torch.randn(8, 64).mul(30).to(dtype), scale_of(granularity)
    back = {torch.float32: trt.float32, torch.float16: trt.float16}.get(dtype, trt.bfloat16)
    got, restored = quantized(x, scale, axis, trt.int8, back)
    expected = torch.round(x.float() / wide).clamp(-128, 127)
    assert got.dtype == torch.int8 and restored.dtype == dtype
    assert torch.equal(got.float(), expected)
    close(restored, expected.double() * wide.double())


def test_int8_rounds_ties_to_even_and_saturates() -> None:
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 500, -500, 127.5]])
    got, _ = quantized(x, torch.tensor(1.0), None, trt.int8, trt.float32)
    assert got.tolist() == [[0, 2, 2, 0, -2, 127, -128, 127]]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("granularity", ["tensor", "axis 0", "axis 1"])
def test_fp8(granularity: str, dtype: torch.dtype) -> None:
    x, (scale, axis, wide) = torch.randn(8, 64).mul(30).to(dtype), scale_of(granularity)
    back = {torch.float32: trt.float32, torch.float16: trt.float16}.get(dtype, trt.bfloat16)
    got, restored = quantized(x, scale, axis, trt.fp8, back)
    assert got.dtype == torch.float8_e4m3fn
    expected = nearest((x.float() / wide).clamp(-448, 448), E4M3)
    # Where x / scale lies just between two values, float32 may round it to either side of the tie.
    step = (got.double() - expected).abs() / expected.abs().clamp(min=2**-6)
    assert (step > 0).float().mean() < 0.01 and step.max() <= 0.125
    close(restored, got.double() * wide.double())


def test_fp8_saturates() -> None:
    x = torch.tensor([[1e4, -1e4, 448.0, 0.0]])
    got, _ = quantized(x, torch.tensor(1.0), None, trt.fp8, trt.float32)
    assert got.float().tolist() == [[448.0, -448.0, 448.0, 0.0]]


@pytest.mark.parametrize("kind", ["int4", "fp4"])
def test_four_bits(kind: str) -> None:
    x, scale = torch.randn(8, 64).mul(3), torch.rand(8).add(0.5)
    got, restored = quantized(x, scale, 0, getattr(trt, kind), trt.float32)
    wide = x / scale[:, None]
    if kind == "int4":
        expected = torch.round(wide).clamp(-8, 7).double()
    else:
        expected = nearest(wide, sorted({*FP4_VALUES, *(-each for each in FP4_VALUES)}))
    close(got.double(), expected, 0)
    close(restored, expected * scale.double()[:, None])


def test_fp4_ties_go_to_the_even_mantissa() -> None:
    x = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 9.0, -0.75, -5.0])
    assert to_fp4(x).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, -1.0, -4.0]


@pytest.mark.parametrize("kind", ["int4", "fp4"])
def test_packed_weights(kind: str) -> None:
    """A 4-bit constant, two values a byte, read from memory."""
    packed = torch.randint(0, 256, (4 * 32 // 2,), dtype=torch.uint8)
    scale = torch.rand(4, 2).add(0.5)
    net = Net()
    net._keep.append(packed)
    weights = trt.Weights(getattr(trt, kind), packed.data_ptr(), 128)
    constant = net.network.add_constant((4, 32), weights)
    layer = net.network.add_dequantize(out(constant), net.constant(scale), trt.float32)
    (got,) = net.evaluate(out(layer))
    numbers = []
    for byte in packed.tolist():
        for nibble in (byte & 15, byte >> 4):
            if kind == "int4":
                numbers.append(float(nibble - 16 if nibble > 7 else nibble))
            else:
                numbers.append(FP4_VALUES[nibble & 7] * (-1 if nibble > 7 else 1))
    plain = torch.tensor(numbers, dtype=torch.float64).reshape(4, 32)
    close(got, plain * scale.double().repeat_interleave(16, 1))
    # The side table gives them unpacked.
    table = {constant.name: unpack_4bit(packed, kind.upper(), 128).reshape(4, 32) * 0}
    assert not net.evaluate(weights=table)[0].any()


def test_weight_only_quantization_of_a_matrix_multiply() -> None:
    x, w = torch.randn(3, 32), torch.randint(-128, 128, (32, 4)).to(torch.int8)
    scale = torch.rand(4).add(0.1)
    net = Net()
    layer = net.network.add_dequantize(net.constant(w), net.constant(scale), trt.float32)
    layer.axis = 1
    none = trt.MatrixOperation.NONE
    product = net.network.add_matrix_multiply(net.input(x), none, out(layer), none)
    (got,) = net.evaluate(out(product))
    close(got, x.double() @ (w.double() * scale.double()), 1e-4)


def test_dynamic_quantize_to_fp4() -> None:
    x, outer = torch.randn(4, 32).mul(5), torch.tensor(0.02)
    net = Net()
    layer = net.network.add_dynamic_quantize(net.input(x), 1, 16, trt.fp4, trt.fp8)
    layer.set_input(1, net.constant(outer))
    got, scale = net.evaluate(out(layer), out(layer, 1))
    assert list(scale.shape) == [4, 2] and scale.dtype == torch.float8_e4m3fn
    amax = x.reshape(4, 2, 16).abs().amax(-1)
    close(scale.double(), nearest(amax / 6 / outer, E4M3), 0)
    spread = (scale.double() * outer.double()).repeat_interleave(16, 1)
    # Within half of the widest step of FP4, which is 2.
    assert ((got.double() * spread - x.double()).abs() <= 1.0001 * spread).all()
    assert set(got.abs().flatten().tolist()) <= set(FP4_VALUES)


def test_dynamic_quantize_to_fp8_with_powers_of_two() -> None:
    x = torch.randn(4, 64).mul(50)
    x[0, :32] = 0
    net = Net()
    layer = net.network.add_dynamic_quantize(net.input(x), 1, 32, trt.fp8, trt.DataType.E8M0)
    got, scale = net.evaluate(out(layer), out(layer, 1))
    assert scale.dtype == torch.float8_e8m0fnu and got.dtype == torch.float8_e4m3fn
    amax = x.reshape(4, 2, 32).abs().amax(-1)
    ratio = amax / scale.float()
    assert ((ratio <= 448) & (ratio > 224)).flatten()[1:].all()
    restored = got.float() * scale.float().repeat_interleave(32, 1)
    assert ((restored - x).abs() <= x.abs() / 16 + 1e-6).all()


def test_a_zero_point_is_refused() -> None:
    net = Net()
    layer = net.network.add_quantize(net.input(torch.ones(2, 2)), net.constant(0.5), trt.int8)
    layer.set_input(2, net.input(torch.tensor(3, dtype=torch.int8)))
    with pytest.raises(EngineError, match="zero point"):
        net.evaluate(out(layer))
