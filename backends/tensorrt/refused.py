"""Operators that TensorRT is not given, although torch counts them among its core: and why."""

from __future__ import annotations

from typing import Final

_GRADIENT: Final = "it computes a gradient, and programs here are for inference"
_SIZES: Final = "sizes are expressions, which the graph has no nodes for"
_RANDOM: Final = "TensorRT's random numbers are not torch's"
_COMPLEX: Final = "TensorRT has no complex numbers"

REFUSED: Final[dict[str, str]] = {
    "aten._adaptive_avg_pool2d_backward": _GRADIENT,
    "aten.avg_pool2d_backward": _GRADIENT,
    "aten.convolution_backward": _GRADIENT,
    "aten.embedding_dense_backward": _GRADIENT,
    "aten.max_pool2d_with_indices_backward": _GRADIENT,
    "aten.native_group_norm_backward": _GRADIENT,
    "aten.native_layer_norm_backward": _GRADIENT,
    "aten._fft_c2r": _COMPLEX,
    "aten._fft_r2c": _COMPLEX,
    "aten._local_scalar_dense": "it gives Python a number in the middle of a program",
    "aten.as_strided": "it reads memory by strides, and values have no memory",
    "aten.nonzero": "its size depends on values, which TensorRT for RTX can't build",
    "aten.rand": _RANDOM,
    "aten.randn": _RANDOM,
    "aten.randperm": _RANDOM,
    "aten.atan2.out": "it writes to an argument, and graphs are pure",
    "aten.sym_is_contiguous": _SIZES,
    "aten.sym_numel": _SIZES,
    "aten.sym_size.int": _SIZES,
    "aten.sym_storage_offset": _SIZES,
    "aten.sym_stride.int": _SIZES,
}
"""Why, by the name of the op."""
