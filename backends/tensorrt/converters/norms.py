"""Normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from rewright.backends.tensorrt.converters.common import wide
from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS
from rewright.backends.tensorrt.enums import ActivationType as Act
from rewright.backends.tensorrt.enums import ReduceOperation as Reduce
from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.needs import Constant, Need, OneOf, Rank, That, Unused
from rewright.backends.tensorrt.reducing import mask_of, mean, reduce
from rewright.backends.tensorrt.shaping import reshape, unsqueeze
from rewright.backends.tensorrt.tensor import Tensor

_NORM: Final = dict.fromkeys(
    ("input", "weight", "bias", "running_mean", "running_var", "out"), FLOATS
)

_ALONE: Final = Unused((1, 2), "the mean and deviation")


def normalize(call: Call, x: Tensor, axes: Sequence[int], scale: Tensor, bias: Tensor, eps: float,
              groups: int = 1) -> Tensor:  # fmt: skip
    """``(x - mean) / sqrt(var + eps) * scale + bias`` along `axes`, by a normalization layer."""
    latest = call.library.has("INetworkDefinition.add_normalization_v2")
    method = "add_normalization_v2" if latest else "add_normalization"
    arguments = (x, scale.to(x.dtype), bias.to(x.dtype), mask_of(axes))
    return call.net.layer(method, *arguments, epsilon=float(eps), num_groups=groups)


def _layer_norm(call: Call, x: Tensor, weight: Tensor | None, bias: Tensor | None, dims: int,
                eps: float) -> Tensor:  # fmt: skip
    if x.rank < 2:
        deeper = _layer_norm(call, unsqueeze(x, (0,)), weight, bias, dims, eps)
        return reshape(deeper, call.sizes)
    axes = tuple(range(x.rank - dims, x.rank))
    scale, shift = (
        _side(call, x, axes, given, fill) for given, fill in ((weight, 1.0), (bias, 0.0))
    )
    return normalize(call, x, axes, scale, shift, eps)


def _side(call: Call, x: Tensor, axes: Sequence[int], given: Tensor | None,
          fill: float) -> Tensor:  # fmt: skip
    """A scale or bias with the rank of `x`; one of ones or zeros where none is given."""
    if given is None:
        sizes = [call.shape("input")[axis - x.rank] for axis in axes]
        given = call.net.constant(torch.full(sizes, fill, dtype=x.dtype))
    return unsqueeze(given, range(x.rank - given.rank))


_STATIC_TAIL: Final = That(
    "normalized dimensions that do not vary",
    lambda query: all(
        isinstance(dim, int) for dim in query.tensors("input")[0].shape[-_count(query.node) :]
    ),
)


def _count(node: Any) -> int:
    shape = node.attributes.get("normalized_shape")
    return len(shape) if shape is not None else node.arg("dims")


@converts("rw.layer_norm", dtypes=_NORM, needs=[_STATIC_TAIL])
def layer_norm(call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None, dims: int,
               eps: float) -> Tensor:  # fmt: skip
    """NORMALIZATION"""
    return _layer_norm(call, input, weight, bias, dims, eps)


@converts("aten.layer_norm", dtypes=_NORM, needs=[_STATIC_TAIL])
def aten_layer_norm(call: Call, input: Tensor, normalized_shape: Sequence[int],
                    weight: Tensor | None, bias: Tensor | None, eps: float,
                    cudnn_enable: Any) -> Tensor:  # fmt: skip
    """NORMALIZATION"""
    return _layer_norm(call, input, weight, bias, len(normalized_shape), eps)


@converts("aten.native_layer_norm", dtypes=_NORM,
          needs=[_STATIC_TAIL, _ALONE])  # fmt: skip
def native_layer_norm(call: Call, input: Tensor, normalized_shape: Sequence[int],
                      weight: Tensor | None, bias: Tensor | None,
                      eps: float) -> tuple[Tensor, None, None]:  # fmt: skip
    """NORMALIZATION"""
    return _layer_norm(call, input, weight, bias, len(normalized_shape), eps), None, None


@converts("rw.rms_norm", dtypes=_NORM)
@wide
def rms_norm(call: Call, input: Tensor, weight: Tensor | None, dims: int, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight"""
    return _rms_norm(input, weight, dims, eps)


@converts("aten.rms_norm", dtypes=_NORM)
@wide
def aten_rms_norm(call: Call, input: Tensor, normalized_shape: Sequence[int],
                  weight: Tensor | None, eps: float | None) -> Tensor:  # fmt: skip
    """x / sqrt(mean(x²) + eps) * weight"""
    # torch's default is the eps of the dtype that it computes in, which is f32 here
    tiny = torch.finfo(torch.float32).eps if eps is None else eps
    return _rms_norm(input, weight, len(normalized_shape), tiny)


def _rms_norm(x: Tensor, weight: Tensor | None, dims: int, eps: float) -> Tensor:
    power = mean(x * x, range(x.rank - dims, x.rank))
    scaled = x * (power + float(eps)).unary(Unary.SQRT).unary(Unary.RECIP)
    return scaled if weight is None else scaled * weight


@converts("aten._weight_norm", dtypes={"v": FLOATS, "g": FLOATS})
@wide
def weight_norm(call: Call, v: Tensor, g: Tensor, dim: int) -> Tensor:
    """g * v / norm(v), the norm of each slice along a dimension"""
    axes = [axis for axis in range(v.rank) if axis != dim % v.rank]
    length = reduce(v * v, Reduce.SUM, axes, True).unary(Unary.SQRT)
    return v * (g / length)


# --------------------------------------------------------------------------- over channels

_CHANNELS: Final = That(
    "channels that do not vary",
    lambda query: isinstance(query.tensors("input")[0].shape[1], int),
)


def _group_norm(call: Call, x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None,
                eps: float) -> Tensor:  # fmt: skip
    """A normalization of groups, whose scales TensorRT's versions take differently."""
    if x.rank == 2:
        return reshape(_group_norm(call, unsqueeze(x, (2,)), groups, weight, bias, eps),
                       call.sizes)  # fmt: skip
    if x.rank == 3:
        deeper = _group_norm(call, unsqueeze(x, (3,)), groups, weight, bias, eps)
        return reshape(deeper, call.sizes)
    latest = call.library.has("INetworkDefinition.add_normalization_v2")
    spatial = (1,) * (x.rank - 2)
    sizes = (1, call.shape("input")[1] if latest else groups, *spatial)
    one, zero = (call.net.constant(torch.full(sizes, fill, dtype=x.dtype)) for fill in (1.0, 0.0))
    scale, shift = (
        None if side is None else reshape(side, (1, side.shape[0], *spatial))
        for side in (weight, bias)
    )
    axes = range(2, x.rank)
    if latest:
        return normalize(call, x, axes, one if scale is None else scale,
                         zero if shift is None else shift, eps, groups)  # fmt: skip
    made = normalize(call, x, axes, one, zero, eps, groups)
    made = made if scale is None else made * scale
    return made if shift is None else made + shift


@converts("rw.group_norm", dtypes=_NORM, needs=[_CHANNELS, Rank("input", 2, 5)])
def group_norm(call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int,
               eps: float, silu: bool) -> Tensor:  # fmt: skip
    """NORMALIZATION of groups, then x * sigmoid(x) where asked for"""
    made = _group_norm(call, input, groups, weight, bias, eps)
    if not silu:
        return made
    x = made.wide()
    return (x * x.activation(Act.SIGMOID)).to(call.dtype)


@converts("aten.group_norm", dtypes=_NORM, needs=[_CHANNELS, Rank("input", 2, 5)])
def aten_group_norm(call: Call, input: Tensor, num_groups: int, weight: Tensor | None,
                    bias: Tensor | None, eps: float, cudnn_enabled: Any) -> Tensor:  # fmt: skip
    """NORMALIZATION of groups"""
    return _group_norm(call, input, num_groups, weight, bias, eps)


@converts("aten.native_group_norm", dtypes=_NORM,
          needs=[_CHANNELS, Rank("input", 2, 5), _ALONE])  # fmt: skip
def native_group_norm(call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None,
                      group: int, eps: float, N: Any, C: Any,
                      HxW: Any) -> tuple[Tensor, None, None]:  # fmt: skip
    """NORMALIZATION of groups"""
    return _group_norm(call, input, group, weight, bias, eps), None, None


@converts("aten.instance_norm", dtypes=_NORM,
          needs=[_CHANNELS, Rank("input", 3, 5), OneOf("use_input_stats", (True,))])  # fmt: skip
def instance_norm(call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None,
                  running_mean: Any, running_var: Any, use_input_stats: bool, momentum: Any,
                  eps: float, cudnn_enabled: Any) -> Tensor:  # fmt: skip
    """NORMALIZATION of each channel"""
    return _group_norm(call, input, call.shape("input")[1], weight, bias, eps)


# --------------------------------------------------------------------------- batches

_STATISTICS: Final[tuple[Need, ...]] = (
    *(Constant(name) for name in ("running_mean", "running_var")),
    That(
        "statistics of its own",
        lambda query: bool(query.tensors("running_mean")) and not _trains(query.node),
    ),
)


def _trains(node: Any) -> bool:
    return any(node.attributes.get(name) for name in ("training", "train"))


def _batch_norm(call: Call, x: Tensor, weight: Tensor | None, bias: Tensor | None,
                running_mean: Tensor, running_var: Tensor, eps: float) -> Tensor:  # fmt: skip
    """``x * scale + shift`` for each channel; both are computed now, in ``f32``."""
    per_channel = (-1, *(1,) * (x.rank - 2))
    mean_, var_ = (side.value.float() for side in (running_mean, running_var))  # type: ignore[union-attr]
    inverse = torch.rsqrt(var_ + float(eps))
    fixed = all(side is None or side.value is not None for side in (weight, bias))
    if fixed:
        scale = inverse if weight is None else inverse * weight.value.float()  # type: ignore[union-attr]
        shift = -mean_ * scale if bias is None else bias.value.float() - mean_ * scale  # type: ignore[union-attr]
        return _affine(call, x, scale, shift, per_channel)
    made = _affine(call, x, inverse, -mean_ * inverse, per_channel).wide()
    for side, apply in ((weight, Tensor.__mul__), (bias, Tensor.__add__)):
        made = made if side is None else apply(made, unsqueeze(side, range(1, x.rank - 1)))
    return made.to(call.dtype)


def _affine(call: Call, x: Tensor, scale: torch.Tensor, shift: torch.Tensor,
            per_channel: tuple[int, ...]) -> Tensor:  # fmt: skip
    wide_x = x.wide()
    sides = [call.net.constant(side.to(wide_x.dtype).reshape(per_channel))
             for side in (scale, shift)]  # fmt: skip
    return (wide_x * sides[0] + sides[1]).to(call.dtype)


@converts("aten.batch_norm", dtypes=_NORM, needs=_STATISTICS)
def batch_norm(call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None,
               running_mean: Tensor, running_var: Tensor, training: Any, momentum: Any, eps: float,
               cudnn_enabled: Any) -> Tensor:  # fmt: skip
    """x * scale + shift"""
    return _batch_norm(call, input, weight, bias, running_mean, running_var, eps)


@converts("aten._native_batch_norm_legit.no_stats", dtypes=_NORM,
          needs=[_ALONE])  # fmt: skip
def batch_norm_of_batch(call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None,
                        training: Any, momentum: Any,
                        eps: float) -> tuple[Tensor, None, None]:  # fmt: skip
    """(x - mean) / sqrt(var + eps) over the batch and its pixels"""
    x, axes = input.wide(), [axis for axis in range(input.rank) if axis != 1]
    centred = x - mean(x, axes)
    made = centred / (mean(centred * centred, axes) + float(eps)).unary(Unary.SQRT)
    for side, apply in ((weight, Tensor.__mul__), (bias, Tensor.__add__)):
        made = made if side is None else apply(made, unsqueeze(side.wide(), range(1, x.rank - 1)))
    return made.to(call.dtype), None, None


@converts("aten.native_batch_norm", "aten._native_batch_norm_legit_no_training",
          "aten._native_batch_norm_legit", dtypes=_NORM,
          needs=[*_STATISTICS, _ALONE])  # fmt: skip
def native_batch_norm(call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None,
                      running_mean: Tensor, running_var: Tensor, training: Any = False,
                      momentum: Any = None, eps: float = 0.0) -> tuple[Tensor,
                      None, None]:  # fmt: skip
    """x * scale + shift"""
    made = _batch_norm(call, input, weight, bias, running_mean, running_var, eps)
    return made, None, None
