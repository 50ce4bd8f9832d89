"""TensorRT's own arithmetic, without a GPU.

To infer shapes, TensorRT computes constant expressions on the host. Where the size of a tensor
depends on such an expression, the size that TensorRT infers says what the expression's value is.
So a comparison of an expression with expected values, made of TensorRT's own layers, can be read.

TensorRT folds tensors of at most 64 elements, and some types of layer only.
"""

from collections.abc import Callable
from typing import Any

import torch

from tests.testing.networks import Net, out, trt

PER_READ = 8

EW, UN = trt.ElementWiseOperation, trt.UnaryOperation


def differences(
    build: Callable[[Net], Any], expected: torch.Tensor, tolerance: float = 0.0
) -> list[int]:
    """The places, of the flattened tensor that ``build`` returns, at which TensorRT computes
    something else than ``expected``. NaN equals NaN here.

    Args:
        tolerance: the greatest difference relative to 1 and to the value; 0 for equality.

    Raises:
        NotFolded: TensorRT does not compute this expression while inferring shapes.
    """
    places: list[int] = []
    for start in range(0, expected.numel(), PER_READ):
        count = min(PER_READ, expected.numel() - start)
        net = Net()
        flat = out(_reshaped(net, build(net), (expected.numel(),)))
        part = out(net.network.add_slice(flat, (start,), (count,), (1,)))
        agrees = _agrees(net, part, expected.flatten()[start : start + count], tolerance)
        places += [start + k for k, size in enumerate(_read(net, agrees)) if size != 2]
    return places


class NotFolded(Exception):
    """TensorRT leaves this expression to the engine."""


def _reshaped(net: Net, tensor: Any, shape: tuple[int, ...]) -> Any:
    layer = net.network.add_shuffle(tensor)
    layer.reshape_dims = shape
    return layer


def _agrees(net: Net, part: Any, expected: torch.Tensor, tolerance: float) -> Any:
    """1 where ``part`` agrees, else less: i64."""
    network = net.network
    one = net.constant([1] * expected.numel())
    if not expected.is_floating_point():
        # Comparisons of integers are not folded.
        wide = out(network.add_cast(part, trt.int64))
        away = out(network.add_elementwise(wide, net.constant(expected.long()), EW.SUB))
        size = out(network.add_unary(away, UN.ABS))
        return out(
            network.add_elementwise(one, out(network.add_elementwise(size, one, EW.MIN)), EW.SUB)
        )
    wide = out(network.add_cast(part, trt.float32))
    want = expected.float()
    agrees = out(network.add_elementwise(wide, net.constant(want), EW.EQUAL))
    if tolerance:
        limit = net.constant(tolerance * (1 + want.abs()).nan_to_num(1, 1, 1))
        away = out(network.add_elementwise(wide, net.constant(want), EW.SUB))
        near = out(network.add_elementwise(out(network.add_unary(away, UN.ABS)), limit, EW.LESS))
        agrees = out(network.add_elementwise(agrees, near, EW.OR))
    # Not through a comparison with a NaN: the constant says where one is expected.
    nan = out(network.add_unary(wide, UN.ISNAN))
    both = out(network.add_elementwise(nan, net.constant(want.isnan()), EW.AND))
    agrees = out(network.add_elementwise(agrees, both, EW.OR))
    return out(network.add_cast(agrees, trt.int64))


def _read(net: Net, flags: Any) -> list[int]:
    """The sizes that TensorRT infers for a tensor as large as 1 + flag along each axis."""
    network = net.network
    (count,) = flags.shape
    sizes = out(network.add_elementwise(flags, net.constant([1] * count), EW.SUM))
    layer = network.add_fill((1,) * count, trt.FillOperation.LINSPACE, trt.float32)
    layer.set_input(0, sizes)
    layer.set_input(1, net.constant(0.0))
    layer.set_input(2, net.constant([0.0] * count))
    try:
        inferred = list(layer.get_output(0).shape)
    except RuntimeError as error:
        raise NotFolded(str(error)) from error
    if -1 in inferred:
        raise NotFolded(f"sizes {inferred}")
    return inferred
