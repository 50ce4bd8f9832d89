"""TensorRT networks made by hand for tests, layer by layer, through TensorRT's own API."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rewright.testing import evaluate_network

trt = pytest.importorskip("tensorrt_rtx")

LOGGER = trt.Logger(trt.Logger.INTERNAL_ERROR)
BUILDER = trt.Builder(LOGGER)

DTYPES = {
    torch.float32: trt.float32,
    torch.float16: trt.float16,
    torch.bfloat16: trt.bfloat16,
    torch.int8: trt.int8,
    torch.int32: trt.int32,
    torch.int64: trt.int64,
    torch.bool: trt.bool,
    torch.uint8: trt.uint8,
    torch.float8_e4m3fn: trt.fp8,
}

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

#: How far a result may be from the same formula in float64, relative to 1 and to the value.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class Net:
    """A network under construction, and what must live as long as it."""

    def __init__(self) -> None:
        self.network = BUILDER.create_network(0)
        self.inputs: dict[str, torch.Tensor] = {}
        self._keep: list[torch.Tensor] = []

    def input(self, value: torch.Tensor, shape: Sequence[int] | None = None) -> Any:
        """A network input that will get ``value``; ``shape`` may have -1."""
        name = f"in{len(self.inputs)}"
        self.inputs[name] = value
        return self.network.add_input(name, DTYPES[value.dtype], tuple(shape or value.shape))

    def weights(self, value: torch.Tensor, dtype: Any = None) -> Any:
        value = value.contiguous()
        self._keep.append(value)
        return trt.Weights(dtype or DTYPES[value.dtype], value.data_ptr(), value.numel())

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> Any:
        value = torch.as_tensor(value, dtype=dtype)
        return self.network.add_constant(tuple(value.shape), self.weights(value)).get_output(0)

    def evaluate(self, *tensors: Any, **options: Any) -> list[torch.Tensor]:
        """The values of ``tensors``, as outputs of the network."""
        for tensor in tensors:
            self.network.mark_output(tensor)
        return list(evaluate_network(self.network, self.inputs, **options).values())


def out(layer: Any, index: int = 0) -> Any:
    """An output of a layer that TensorRT took."""
    assert layer is not None
    return layer.get_output(index)


def evaluate(build: Callable[[Net], Any]) -> torch.Tensor:
    """What the evaluator makes of the tensor that ``build`` returns."""
    net = Net()
    (value,) = net.evaluate(build(net))
    return value


def close(got: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None) -> None:
    """That ``got`` is ``expected`` (of any dtype), exactly but for floats."""
    assert list(got.shape) == list(expected.shape)
    if not got.is_floating_point():
        assert torch.equal(got, expected.to(got.dtype)), (got, expected)
        return
    limit = TOLERANCE[got.dtype] if tolerance is None else tolerance
    torch.testing.assert_close(
        got.double(), expected.double(), rtol=limit, atol=limit, equal_nan=True
    )
