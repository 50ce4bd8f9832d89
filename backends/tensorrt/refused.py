"""Operators of torch's core that have no converter: what became of them before, or why not."""

from __future__ import annotations

from typing import Final

_GRADIENT: Final = "it computes a gradient, and programs here are for inference"
_RANDOM: Final = "TensorRT's random numbers are not torch's"
_COMPLEX: Final = "TensorRT has no complex numbers"

REFUSED: Final[dict[str, str]] = {
    "aten._adaptive_avg_pool2d_backward": _GRADIENT,
    "aten.avg_pool2d_backward": _GRADIENT,
    "aten.convolution_backward": _GRADIENT,
    "aten.embedding_dense_backward": _GRADIENT,
    "aten._fft_c2r": _COMPLEX,
    "aten._fft_r2c": _COMPLEX,
    "aten._local_scalar_dense": "it gives Python a number in the middle of a program",
    "aten.as_strided": "it reads memory by strides, and values have no memory",
    "aten.rand": _RANDOM,
    "aten.randn": _RANDOM,
    "aten.randperm": _RANDOM,
}
"""Why, by the name of the op."""

_SIZES: Final = "the import: an expression, which stands in types and attributes"
_TAKEN_APART: Final = "`decompose`, by torch's own definition of it"

EARLIER: Final[dict[str, str]] = {
    "aten.atan2.out": "the import: `aten.atan2`, and what it wrote to is its result",
    "aten.sym_numel": _SIZES,
    "aten.sym_size.int": _SIZES,
    "aten.sym_storage_offset": _SIZES,
    "aten.sym_stride.int": _SIZES,
    "aten.max_pool2d_with_indices_backward": _TAKEN_APART,
    "aten.native_group_norm_backward": _TAKEN_APART,
    "aten.native_layer_norm_backward": _TAKEN_APART,
}
"""By what an op is gone before segments are chosen, and what stands in its place."""

NO_MEANING: Final[dict[str, str]] = {
    "aten.sym_is_contiguous": "it asks about memory, and values have none; its answer has no use",
    "aten.resize_": "it changes the memory of a tensor, and values have none: never imported",
}
"""What other compilers list, and what graphs here can't hold."""
