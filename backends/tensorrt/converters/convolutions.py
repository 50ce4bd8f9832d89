"""Convolutions, pooling, resizing, sampling: what works on a window of pixels.

TensorRT has these for two and three spatial dimensions. One is taken as two, of which the first
is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS
from rewright.backends.tensorrt.enums import (
    InterpolationMode,
    PoolingType,
    ResizeCoordinateTransformation,
    ResizeRoundMode,
    SampleMode,
)
from rewright.backends.tensorrt.enums import ReduceOperation as Reduce
from rewright.backends.tensorrt.needs import Need, Numbers, OneOf, Query, Rank, Static, That, Unused
from rewright.backends.tensorrt.reducing import reduce
from rewright.backends.tensorrt.shaping import (
    is_static,
    narrow,
    permute,
    shape_of,
    squeeze,
    transpose,
    unsqueeze,
)
from rewright.backends.tensorrt.tensor import Tensor

# --------------------------------------------------------------------------- one dimension as two


def spatial(numbers: Any, count: int, default: int = 1) -> tuple[int, ...]:
    """A number for each of `count` dimensions; torch takes one for all, and none for a default."""
    listed = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    if not listed:
        return (default,) * count
    return tuple(listed) * count if len(listed) == 1 else tuple(listed)


def _widen(x: Tensor, count: int) -> Tensor:
    return unsqueeze(x, (x.rank - 1,)) if count == 1 else x


def _two(numbers: Sequence[int], first: int) -> tuple[int, ...]:
    return (first, *numbers) if len(numbers) == 1 else tuple(numbers)


# --------------------------------------------------------------------------- convolution

_CONV_FLOATS: Final = {
    name: FLOATS for name in ("input", "weight", "bias", "self", "out")
}
_CHANNELS: Final = That(
    "channels that do not vary",
    lambda query: isinstance(
        query.tensors("input")[0].shape[1 - query.tensors("weight")[0].rank], int
    ),
)


def _strides_or_dilates(query: Query) -> bool:
    if not _arg(query, "transposed", False) and "conv_transpose" not in query.node.op.name:
        return True
    wide = any(step != 1 for step in spatial(query.arg("stride"), 1))
    return not (wide and any(step != 1 for step in spatial(query.arg("dilation"), 1)))


def _arg(query: Query, name: str, default: Any) -> Any:
    found = query.arg(name)
    return default if found is None else found


_NOT_BOTH: Final = That("no stride with dilation, transposed", _strides_or_dilates)
_OUTPUT_PADDING: Final = That(
    "output_padding not above padding",
    lambda query: all(
        extra <= pad
        for extra, pad in zip(
            spatial(_arg(query, "output_padding", ()), 3, 0),
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
                groups: int, transposed: bool, output_padding: Sequence[int]) -> Tensor:  # fmt: skip
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
                   padding: Any, output_padding: Any, groups: int, dilation: Any) -> Tensor:  # fmt: skip
    """DECONVOLUTION"""
    count = weight.rank - 2
    window = Window(
        spatial(stride, count), spatial(padding, count, 0), spatial(padding, count, 0),
        spatial(dilation, count), groups,
    )  # fmt: skip
    return deconvolve(call, input, weight, bias, window, spatial(output_padding, count, 0))


class Window:
    """Where the windows of a convolution or pooling lie, in two or three dimensions."""

    def __init__(
        self,
        stride: Sequence[int],
        before: Sequence[int],
        after: Sequence[int],
        dilation: Sequence[int],
        groups: int = 1,
    ) -> None:
        self.stride, self.dilation = _two(stride, 1), _two(dilation, 1)
        self.before, self.after = _two(before, 0), _two(after, 0)
        self.groups = groups

    def settings(self) -> dict[str, Any]:
        """The attributes of a layer with weights."""
        return {
            "stride_nd": self.stride,
            "dilation_nd": self.dilation,
            "pre_padding": self.before,
            "post_padding": self.after,
            "num_groups": self.groups,
        }


def convolve(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None,
              window: Window) -> Tensor:  # fmt: skip
    count = weight.rank - 2
    x, alone = _batched(x, count)
    kernel = _widen(weight.to(x.dtype), count)
    maps = kernel.shape[0]
    made = _weighted(call, "add_convolution_nd", _widen(x, count), maps, kernel, bias, window)
    made = squeeze(made, (made.rank - 2,)) if count == 1 else made
    return squeeze(made, (0,)) if alone else made


def deconvolve(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window,
                extra: Sequence[int]) -> Tensor:  # fmt: skip
    count = weight.rank - 2
    x, alone = _batched(x, count)
    window.after = tuple(
        pad - more for pad, more in zip(window.after, _two(extra, 0), strict=True)
    )
    # TensorRT finds no types for a bf16 deconvolution, in any version so far
    exact = torch.float32 if x.dtype is torch.bfloat16 else x.dtype
    kernel = _widen(weight.to(exact), count)
    maps = kernel.shape[1] * window.groups
    made = _weighted(call, "add_deconvolution_nd", _widen(x.to(exact), count), maps, kernel, bias,
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


# --------------------------------------------------------------------------- pooling

_POOL: Final[tuple[Need, ...]] = (
    Rank("self", 2, 5),
    Numbers("kernel_size"),
)


def _batched(x: Tensor, count: int) -> tuple[Tensor, bool]:
    """`x` with the batch dimension that torch lets out."""
    return (unsqueeze(x, (0,)), True) if x.rank == count + 1 else (x, False)


def _pool(call: Call, x: Tensor, kind: PoolingType, count: int, kernel: Any, stride: Any,
          padding: Any, ceil: bool, **settings: Any) -> Tensor:  # fmt: skip
    size = spatial(kernel, count)
    step = spatial(stride, count) if stride not in ([], (), None) else size
    pad = spatial(padding, count, 0)
    x, alone = _batched(x, count)
    after = _after(call, size, step, pad) if ceil else pad
    window = Window(step, pad, after, (1,) * count)
    made = call.net.layer(
        "add_pooling_nd", _widen(x, count), kind, _two(size, 1),
        stride_nd=window.stride, pre_padding=window.before, post_padding=window.after, **settings,
    )  # fmt: skip
    made = squeeze(made, (made.rank - 2,)) if count == 1 else made
    return squeeze(made, (0,)) if alone else made


def _after(call: Call, size: Sequence[int], step: Sequence[int],
           pad: Sequence[int]) -> tuple[int, ...]:  # fmt: skip
    """Padding at the far side with which no window is cut: what `ceil_mode` means.

    torch leaves out a window that would start in that padding; TensorRT's own rounding does not.
    """
    count = len(size)
    had, made = call.shape("self")[-count:], call.sizes[-count:]
    return tuple(
        max((out - 1) * s + k - have - p, 0)
        for out, s, k, have, p in zip(made, step, size, had, pad, strict=True)
    )


def _static_if_ceil(query: Query) -> bool:
    return not query.arg("ceil_mode") or is_static(query.tensors("self")[0].shape[1:])


_CEIL: Final = That("a fixed size with ceil_mode", _static_if_ceil)
_POOLED: Final = {"self": FLOATS, "out": FLOATS}


def _max_pooling(count: int) -> Callable[..., Tensor]:
    def compute(call: Call, self: Tensor, kernel_size: Any, stride: Any, padding: Any,
                dilation: Any, ceil_mode: bool) -> Tensor:  # fmt: skip
        return _pool(call, self, PoolingType.MAX, count, kernel_size, stride, padding, ceil_mode)

    return compute


def _with_indices(count: int) -> Callable[..., tuple[Tensor, None]]:
    pooled = _max_pooling(count)
    return lambda call, self, kernel_size, stride, padding, dilation, ceil_mode: (
        pooled(call, self, kernel_size, stride, padding, dilation, ceil_mode),
        None,
    )


def _undilated(query: Query) -> bool:
    return all(step == 1 for step in spatial(query.arg("dilation"), 1))


_UNDILATED: Final = That("no dilation", _undilated)


def _average_pooling(count: int) -> Callable[..., Tensor]:
    def compute(call: Call, self: Tensor, kernel_size: Any, stride: Any, padding: Any,
                ceil_mode: bool, count_include_pad: bool,
                divisor_override: Any = None) -> Tensor:  # fmt: skip
        size = spatial(kernel_size, count)
        padded = any(spatial(padding, count, 0))
        over = padded and count_include_pad
        x = _pool(call, self, PoolingType.AVERAGE, count, kernel_size, stride, padding, ceil_mode,
                  average_count_excludes_padding=not over)  # fmt: skip
        return x if divisor_override is None else x * (math.prod(size) / divisor_override)

    return compute


def _average_reason(query: Query) -> bool:
    """Whether TensorRT divides as torch does: a window cut by `ceil_mode` counts no such padding."""
    if not query.arg("ceil_mode") and _arg(query, "divisor_override", None) is None:
        return True
    return not any(spatial(query.arg("padding"), 1, 0)) and (
        _arg(query, "divisor_override", None) is None or not query.arg("ceil_mode")
    )


_AVERAGE: Final = That("no padding with ceil_mode or divisor_override", _average_reason)

for _count in (1, 2, 3):
    converts(f"aten.max_pool{_count}d", dtypes=_POOLED, needs=[*_POOL, _CEIL, _UNDILATED],
             formula="POOLING MAX")(_max_pooling(_count))  # fmt: skip
    converts(f"aten.avg_pool{_count}d", dtypes=_POOLED, needs=[*_POOL, _CEIL, _AVERAGE],
             formula="POOLING AVERAGE")(_average_pooling(_count))  # fmt: skip
    if _count > 1:
        converts(f"aten.max_pool{_count}d_with_indices", dtypes=_POOLED,
                 needs=[*_POOL, _CEIL, _UNDILATED, Unused((1,), "places of maxima")],
                 formula="POOLING MAX")(_with_indices(_count))  # fmt: skip


# --------------------------------------------------------------------------- adaptive pooling


def _adaptive(query: Query) -> bool:
    (found,) = query.tensors("self")
    wanted = _output_size(query.node.op.name, query.arg("output_size"))
    return all(
        out == 1 or isinstance(have, int)
        for out, have in zip(wanted, found.shape[-len(wanted) :], strict=True)
    )


def _output_size(op: str, size: Any) -> tuple[Any, ...]:
    return spatial(size, int(op.rstrip("d")[-1]))


_ADAPTIVE: Final = That("a fixed size, or an output of 1", _adaptive)


@converts(
    *(f"aten.{name}{count}d" for name in ("adaptive_avg_pool", "_adaptive_avg_pool")
      for count in (1, 2, 3) if (name, count) != ("_adaptive_avg_pool", 1)),
    dtypes=_POOLED,
    needs=[Numbers("output_size"), _ADAPTIVE],
)  # fmt: skip
def adaptive_average(call: Call, self: Tensor, output_size: Any) -> Tensor:
    """REDUCE to 1; POOLING where windows are equal; else MATRIX_MULTIPLY by averages"""
    wanted = _output_size(call.node.op.name, output_size)
    had = call.shape("self")[-len(wanted) :]
    first = self.rank - len(wanted)
    ones = [first + i for i, out in enumerate(wanted) if out == 1]
    x = reduce(self, Reduce.AVG, ones, True)
    for index, (out, have) in enumerate(zip(wanted, had, strict=True)):
        if out != 1 and out != have:
            x = _averaged(x, first + index, have, out)
    return x


def _averaged(x: Tensor, axis: int, have: int, out: int) -> Tensor:
    """Windows of one dimension averaged: ``floor(i*have/out)`` to ``ceil((i+1)*have/out)``."""
    from rewright.backends.tensorrt.converters.products import matmul

    weights = torch.zeros(out, have)
    for i in range(out):
        low, high = i * have // out, -(-(i + 1) * have // out)
        weights[i, low:high] = 1 / (high - low)
    last = transpose(x, axis, x.rank - 1)
    made = matmul(last, x.net.constant(weights.to(x.dtype)), transpose_b=True)
    return transpose(made, axis, x.rank - 1)


# --------------------------------------------------------------------------- resizing

_RESIZES: Final[dict[str, tuple[InterpolationMode, tuple[int, ...]]]] = {
    "nearest": (InterpolationMode.NEAREST, (1, 2, 3)),
    "linear": (InterpolationMode.LINEAR, (1,)),
    "bilinear": (InterpolationMode.LINEAR, (2,)),
    "trilinear": (InterpolationMode.LINEAR, (3,)),
    "bicubic": (InterpolationMode.CUBIC, (2,)),
}


def _whole_scale(query: Query) -> bool:
    """Whether the scale that torch samples with is the ratio of the sizes."""
    given = _arg(query, "scale_factors", None)
    scales = given if given is not None else [
        s for s in (_arg(query, name, None) for name in ("scales", "scales_d", "scales_h",
                                                         "scales_w")) if s is not None
    ]  # fmt: skip
    if not scales or _arg(query, "align_corners", False):
        return True
    (found,) = query.tensors("input" if query.node.op.name.endswith(".vec") else "self")
    made = query.tensors("out")[0].shape[-len(scales) :]
    return all(
        float(scale).is_integer()
        or (isinstance(have, int) and isinstance(out, int) and have * scale == out)
        for scale, have, out in zip(scales, found.shape[-len(scales) :], made, strict=True)
    )


_WHOLE: Final = That("a scale that is the ratio of the sizes", _whole_scale)


def _resizing(mode: InterpolationMode) -> Callable[..., Tensor]:
    def compute(call: Call, input: Any = None, self: Any = None, output_size: Any = None,
                align_corners: bool = False, scale_factors: Any = None, scales: Any = None,
                scales_d: Any = None, scales_h: Any = None, scales_w: Any = None) -> Tensor:  # fmt: skip
        x = self if input is None else input
        nearest = mode is InterpolationMode.NEAREST
        coordinates = (
            ResizeCoordinateTransformation.ASYMMETRIC if nearest
            else ResizeCoordinateTransformation.ALIGN_CORNERS if align_corners
            else ResizeCoordinateTransformation.HALF_PIXEL
        )  # fmt: skip
        settings: dict[str, Any] = {"resize_mode": mode, "coordinate_transformation": coordinates}
        if nearest:
            settings["nearest_rounding"] = ResizeRoundMode.FLOOR
        if mode is InterpolationMode.CUBIC:
            settings["cubic_coeff"] = -0.75
        return _resized(call, x, settings)

    return compute


def _resized(call: Call, x: Tensor, settings: dict[str, Any]) -> Tensor:
    if is_static(call.sizes):
        return call.net.layer("add_resize", x, shape=call.sizes, **settings)
    vector = call.net.sizes.vector(call.sizes)
    return call.net.layer("add_resize", x, inputs={1: vector}, **settings)


for _kind, (_mode, _counts) in _RESIZES.items():
    for _count in _counts:
        converts(f"aten.upsample_{_kind}{_count}d.vec", f"aten.upsample_{_kind}{_count}d",
                 dtypes={"input": FLOATS, "self": FLOATS, "out": FLOATS}, needs=[_WHOLE],
                 formula=f"RESIZE {_mode.name}")(_resizing(_mode))  # fmt: skip

# --------------------------------------------------------------------------- sampling

_INTERPOLATION: Final = (
    InterpolationMode.LINEAR,
    InterpolationMode.NEAREST,
    InterpolationMode.CUBIC,
)
_OUTSIDE: Final = (SampleMode.FILL, SampleMode.CLAMP, SampleMode.REFLECT)


@converts(
    *("aten.grid_sampler", "aten.grid_sampler_2d"),
    dtypes={"input": FLOATS, "grid": FLOATS, "out": FLOATS},
    needs=[
        OneOf("interpolation_mode", (0, 1, 2)),
        OneOf("padding_mode", (0, 1, 2)),
        Rank("input", 4),
    ],
)
def grid_sample(call: Call, input: Tensor, grid: Tensor, interpolation_mode: int,
                padding_mode: int, align_corners: bool) -> Tensor:  # fmt: skip
    """GRID_SAMPLE"""
    return call.net.layer(
        "add_grid_sample", input, grid.to(input.dtype),
        interpolation_mode=_INTERPOLATION[interpolation_mode], align_corners=align_corners,
        sample_mode=_OUTSIDE[padding_mode],
    )  # fmt: skip


