"""Convolutions and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS
from rewright.backends.tensorrt.needs import Query, Rank, Static, That
from rewright.backends.tensorrt.shaping import (
    squeeze,
    unsqueeze,
)
from rewright.backends.tensorrt.tensor import Tensor
from rewright.backends.tensorrt.windows import Window, argument, batched, spatial, two, widen

# --------------------------------------------------------------------------- convolution

_CONV_FLOATS: Final = dict.fromkeys(("input", "weight", "bias", "self", "out"), FLOATS)
_CHANNELS: Final = That(
    "channels that do not vary",
    lambda query: isinstance(
        query.tensors("input")[0].shape[1 - query.tensors("weight")[0].rank], int
    ),
)


def _strides_or_dilates(query: Query) -> bool:
    if not argument(query, "transposed", False) and "conv_transpose" not in query.node.op.name:
        return True
    wide = any(step != 1 for step in spatial(query.arg("stride"), 1))
    return not (wide and any(step != 1 for step in spatial(query.arg("dilation"), 1)))


_NOT_BOTH: Final = That("no stride with dilation, transposed", _strides_or_dilates)
_OUTPUT_PADDING: Final = That(
    "output_padding not above padding",
    lambda query: all(
        extra <= pad
        for extra, pad in zip(
            spatial(argument(query, "output_padding", ()), 3, 0),
            spatial(query.arg("padding"), 3, 0),
            strict=False,
        )
    ),
)


@converts(
    "rw.conv",
    "aten.convolution",
    dtypes=_CONV_FLOATS,
    needs=[Rank("input", 2, 5), Static("weight"), _CHANNELS, _NOT_BOTH, _OUTPUT_PADDING],
)
def convolution(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None,
                stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
                groups: int, transposed: bool,
                output_padding: Sequence[int]) -> Tensor:  # fmt: skip
    """CONVOLUTION, DECONVOLUTION"""
    count = weight.rank - 2
    window = Window(
        spatial(stride, count), spatial(padding, count, 0), spatial(padding, count, 0),
        spatial(dilation, count), groups,
    )  # fmt: skip
    if transposed:
        return deconvolve(call, input, weight, bias, window, spatial(output_padding, count, 0))
    return convolve(call, input, weight, bias, window)


@converts(
    *("aten.conv1d", "aten.conv2d", "aten.conv3d"),
    *("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding"),
    dtypes=_CONV_FLOATS,
    needs=[Rank("input", 2, 5), Static("weight"), _CHANNELS],
)
def conv(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
         padding: Any, dilation: Any, groups: int) -> Tensor:  # fmt: skip
    """CONVOLUTION"""
    count = weight.rank - 2
    dilations = spatial(dilation, count)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        before, after = [t // 2 for t in total], [t - t // 2 for t in total]
    else:
        before = after = spatial(0 if padding == "valid" else padding, count)  # type: ignore[assignment]
    window = Window(spatial(stride, count), tuple(before), tuple(after), dilations, groups)
    return convolve(call, input, weight, bias, window)


@converts(
    "aten.conv_transpose1d", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input",
    dtypes=_CONV_FLOATS,
    needs=[Rank("input", 2, 5), Static("weight"), _CHANNELS, _NOT_BOTH, _OUTPUT_PADDING],
)  # fmt: skip
def conv_transpose(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
                   padding: Any, output_padding: Any, groups: int,
                   dilation: Any) -> Tensor:  # fmt: skip
    """DECONVOLUTION"""
    count = weight.rank - 2
    window = Window(
        spatial(stride, count), spatial(padding, count, 0), spatial(padding, count, 0),
        spatial(dilation, count), groups,
    )  # fmt: skip
    return deconvolve(call, input, weight, bias, window, spatial(output_padding, count, 0))


def convolve(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None,
             window: Window) -> Tensor:  # fmt: skip
    """A convolution of `x`, which may lack its batch dimension, with its own zeros around it."""
    count = weight.rank - 2
    x, alone = batched(x, count)
    kernel = widen(weight.to(x.dtype), count)
    maps = kernel.shape[0]
    made = _weighted(call, "add_convolution_nd", widen(x, count), maps, kernel, bias, window)
    made = squeeze(made, (made.rank - 2,)) if count == 1 else made
    return squeeze(made, (0,)) if alone else made


def deconvolve(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window,
               extra: Sequence[int]) -> Tensor:  # fmt: skip
    """The transpose of a convolution; `extra` is added to the size at the far side."""
    count = weight.rank - 2
    x, alone = batched(x, count)
    window.after = tuple(pad - more for pad, more in zip(window.after, two(extra, 0), strict=True))
    # TensorRT finds no types for a bf16 deconvolution, in any version so far
    exact = torch.float32 if x.dtype is torch.bfloat16 else x.dtype
    kernel = widen(weight.to(exact), count)
    maps = kernel.shape[1] * window.groups
    made = _weighted(call, "add_deconvolution_nd", widen(x.to(exact), count), maps, kernel, bias,
                     window)  # fmt: skip
    made = squeeze(made, (made.rank - 2,)) if count == 1 else made
    return (squeeze(made, (0,)) if alone else made).to(call.dtype)


def _weighted(call: Call, method: str, x: Tensor, maps: int, kernel: Tensor, bias: Tensor | None,
              window: Window) -> Tensor:  # fmt: skip
    """A layer with a kernel and a bias, which are weights where they are constant."""
    offset = None if bias is None else bias.to(x.dtype)
    none = torch.empty(0, dtype=x.dtype)
    fixed = kernel.value
    weights = none if fixed is None else fixed
    inline = offset is not None and offset.value is not None and fixed is not None
    biases = offset.value if inline and offset is not None else none
    inputs = {} if fixed is not None else {1: kernel}
    made = call.net.layer(
        method, x, maps, kernel.shape[2:], weights, biases, inputs=inputs, **window.settings()
    )
    if offset is None or inline:
        return made
    return made + unsqueeze(offset, range(1, made.rank - 1))
