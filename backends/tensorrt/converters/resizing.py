"""Resizing, and sampling at places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS
from rewright.backends.tensorrt.enums import (
    InterpolationMode,
    ResizeCoordinateTransformation,
    ResizeRoundMode,
    SampleMode,
)
from rewright.backends.tensorrt.needs import OneOf, Query, Rank, That
from rewright.backends.tensorrt.shaping import (
    is_static,
)
from rewright.backends.tensorrt.tensor import Tensor
from rewright.backends.tensorrt.windows import argument

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
    given = argument(query, "scale_factors", None)
    scales = given if given is not None else [
        s for s in (argument(query, name, None) for name in ("scales", "scales_d", "scales_h",
                                                         "scales_w")) if s is not None
    ]  # fmt: skip
    if not scales or argument(query, "align_corners", False):
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
                scales_d: Any = None, scales_h: Any = None,
                scales_w: Any = None) -> Tensor:  # fmt: skip
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
