"""What shapes the operands of an op have to one another, as data; for making examples of patterns.

A template gives, by parameter, a shape of letters. The same letter is the same size, a capital one
of at least 2, ``*B`` any number of dimensions, ``g*c`` a product, a digit itself; of an attribute,
a letter is its value and ``(m n)`` a tuple. Before a colon stands what the elements are:

=========  ========================================
``+``      positive
``~``      around 1, however large others are
``i``      integers
``i<v``    integers from 0 up to the size ``v``
``b``      booleans
=========  ========================================

What is normalised has at least 2 elements: the variance of one is 0, and torch's kernels then give
noise for the reference's exact zeros.

Ops that are not here take operands that broadcast with one another; what doesn't fit is refused by
type inference, and another example is tried. So this table only has to make good guesses likely.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Template: TypeAlias = "Mapping[str, str]"


def _conv(spatial: str, kernel: str) -> list[Template]:
    return [
        {"input": f"n c {spatial}", "weight": f"o c {kernel}", "bias": "o", "groups": "1"},
        {"input": f"n g*c {spatial}", "weight": f"g*o c {kernel}", "bias": "g*o", "groups": "g"},
    ]


def _unbatched(spatial: str, kernel: str) -> list[Template]:
    return [{"input": f"c {spatial}", "weight": f"o c {kernel}", "bias": "o", "groups": "1"}]


def _conv_transpose(spatial: str, kernel: str) -> list[Template]:
    return [{"input": f"n c {spatial}", "weight": f"c o {kernel}", "bias": "o", "groups": "1"}]


_LINEAR: Final[list[Template]] = [{"input": "*B i", "weight": "o i", "bias": "o"}]
_MATMUL: Final[list[tuple[str, str]]] = [("*B n k", "k m"), ("n k", "k m"), ("*B n k", "*B k m")]
_REDUCTIONS: Final = (
    "aten.mean.dim aten.sum.dim_IntList aten.amax aten.amin aten.softmax.int aten.log_softmax.int "
    "aten._softmax aten.cumsum aten.var.correction aten.std.correction aten.linalg_vector_norm "
    "aten.argmax aten.any.dim"
)
_NORM: Final[dict[str, str]] = {"weight": "*N", "bias": "*N"}
_HEADS: Final[dict[str, str]] = {"key": "*B h k d", "value": "*B h k e"}
_BATCH_NORM: Final[list[Template]] = [
    {
        "input": "n c *S",
        **dict.fromkeys(("weight", "bias", "running_mean"), "c"),
        "running_var": "+: c",
    }
]
_MASKS: Final[list[str]] = ["*B h q k", "q k", "b: q k", "b: *B 1 q k"]

UNCHECKED: Final[tuple[str, ...]] = (
    *("aten.batch_norm", "aten.native_batch_norm"),
    "aten._native_batch_norm_legit_no_training",
)
"""Ops of which torch does not check that shapes fit, so that none but these may be tried."""

TEMPLATES: Final[dict[str, list[Template]]] = {
    "aten.linear": _LINEAR,
    "rw.linear": _LINEAR,
    "aten.mm": [{"self": "n k", "mat2": "k m"}],
    "aten.bmm": [{"self": "b n k", "mat2": "b k m"}],
    "aten.mv": [{"self": "n k", "vec": "k"}],
    "aten.dot": [{"self": "k", "tensor": "k"}],
    "aten.addmm": [
        {"self": shape, "mat1": "n k", "mat2": "k m"} for shape in ("m", "n m", "1 m", "n 1")
    ],
    "aten.baddbmm": [
        {"self": shape, "batch1": "b n k", "batch2": "b k m"} for shape in ("b n m", "m", "n m")
    ],
    "aten.matmul": [{"self": a, "other": b} for a, b in _MATMUL],
    "rw.matmul": [{"a": a, "b": b} for a, b in _MATMUL],
    "aten.conv1d": _conv("l", "k") + _unbatched("l", "k"),
    "aten.conv2d": _conv("h w", "k l") + _unbatched("h w", "k l"),
    "aten.conv3d": _conv("d h w", "k l m"),
    "aten.convolution": _conv("h w", "k l") + _conv("l", "k"),
    "rw.conv": _conv("h w", "k l") + _conv("l", "k"),
    "rw.conv_relu": _conv("h w", "k l") + _conv("l", "k"),
    "aten.conv_transpose1d": _conv_transpose("l", "k"),
    "aten.conv_transpose2d.input": _conv_transpose("h w", "k l"),
    **dict.fromkeys(UNCHECKED, _BATCH_NORM),
    "aten.instance_norm": [{"input": "n c *S", "weight": "c", "bias": "c"}],
    "aten.layer_norm": [
        {"input": f"*B {over}", "normalized_shape": f"({over})", "weight": over, "bias": over}
        for over in ("N", "N", "m N")
    ],
    "aten.native_layer_norm": [
        {"input": "*B N", "normalized_shape": "(N)", "weight": "N", "bias": "N"}
    ],
    "aten.rms_norm": [{"input": "*B n", "normalized_shape": "(n)", "weight": "n"}],
    "rw.layer_norm": [
        {"input": "*B N", "weight": "N", "bias": "N", "dims": "1"},
        {"input": "*B m N", "weight": "m N", "bias": "m N", "dims": "2"},
    ],
    "rw.rms_norm": [
        {"input": "*B n", "weight": "n", "dims": "1"},
        {"input": "*B m n", "weight": "m n", "dims": "2"},
    ],
    "aten.group_norm": [{"input": "n g*C *S", "num_groups": "g", "weight": "g*C", "bias": "g*C"}],
    "rw.group_norm": [{"input": "n g*C *S", "groups": "g", "weight": "g*C", "bias": "g*C"}],
    "aten.scaled_dot_product_attention": [
        {"query": "*B h q d", **_HEADS, "attn_mask": mask} for mask in _MASKS
    ],
    "rw.attention": [
        {"query": f"*B {heads} q d", **_HEADS, "mask": mask}
        for heads, mask in (*(("h", mask) for mask in _MASKS), ("g*h", "q k"))
    ],
    "rw.rope": [
        {"x": "*B t 2*d", "cos": "~: t 2*d", "sin": "~: t 2*d"},
        {"x": "*B t 4*d", "cos": "~: t 2*d", "sin": "~: t 2*d"},
    ],
    "aten.embedding": [{"weight": "v d", "indices": "i<v: *B"}],
    "aten.index_select": [{"self": "v *S", "dim": "0", "index": "i<v: n"}],
    "aten.gather": [{"self": "v *S", "dim": "0", "index": "i<v: n *S"}],
    "aten.where.self": [
        {"condition": f"b: {condition}", "self": "*B", "other": other}
        for condition, other in (("*B", "*B"), ("1", "*B"), ("*B", ""))
    ],
    "aten.masked_fill.Scalar": [{"self": "*B", "mask": "b: *B"}],
    "aten.masked_fill.Tensor": [{"self": "*B", "mask": "b: *B", "value": ""}],
    "aten.logical_and": [{"self": "b: *B", "other": "b: *B"}],
    "aten.logical_or": [{"self": "b: *B", "other": "b: *B"}],
    "aten.logical_not": [{"self": "b: *B"}],
    "aten.sqrt": [{"self": "+: *B"}],
    "aten.rsqrt": [{"self": "+: *B"}],
    "aten.log": [{"self": "+: *B"}],
    "aten.cat": [{"tensors": "n m *B"}, {"tensors": "n"}],
    "aten.stack": [{"tensors": "*B"}],
    "aten.t": [{"self": "n m"}],
    "aten.transpose.int": [{"self": "*B n m"}],
    "aten.permute": [{"self": "n m *B"}],
    "aten.glu": [{"self": "*B 2*n"}],
    "aten.max_pool2d": [{"self": "n c h w"}],
    "aten.avg_pool2d": [{"self": "n c h w"}],
    "aten.upsample_nearest2d.vec": [{"input": "n c h w"}],
    **{name: [{"self": "*B n"}] for name in _REDUCTIONS.split()},
}
"""By op: shapes of its operands that fit each other."""

SMALL: Final[frozenset[str]] = frozenset("gkl")
"""Letters for numbers that should be small: groups, kernels (and inner dimensions)."""

LEFT_OUT: Final[frozenset[str]] = frozenset(
    "layout device pin_memory memory_format non_blocking generator cudnn_enabled cudnn_enable "
    "out implicit sparse scale_grad_by_freq".split()
)
"""Parameters that say nothing of numbers: left at their defaults, or false."""

NUMBERS: Final[dict[str, tuple[Any, ...]]] = {
    "eps": (1e-5, 1e-6, 1e-3),
    "momentum": (0.1,),
    "alpha": (1, 2, 0.5),
    "beta": (1, 2, 0.5),
    "exponent": (2, 3, 2.0, 0.5),
    "negative_slope": (0.01, 0.2),
    "fill": (*(-3.4028234663852886e38,) * 5, -1e4),
    "scale": (0.5, 0.25, 2.0),
    "dropout_p": (0.0,),
    "p": (2,),
    **dict.fromkeys(("aten.dropout:p", "aten.native_dropout:p", "aten.feature_dropout:p"), (0.5,)),
    "ord": (2,),
    "approximate": ("none", "tanh"),
    "activation": ("silu", "gelu", "gelu_tanh", "relu", "sigmoid"),
    "rounding_mode": ("floor", "trunc"),
    "mode": ("constant",),
    "correction": (0, 1),
    "min": (-1.0, 0.0),
    "max": (1.0, 6.0),
    "start": (0, 1),
    "end": (2, 9223372036854775807),
    "step": (1, 2),
    "index": (0, -1),
    "length": (1, 2),
    "chunks": (1, 2, 3),
    "split_size": (1, 2),
    "repeats": (1, 2),
    "diagonal": (0, 1, -1),
    "k": (1,),
    "window": (1, 2, 3),
    "groups": (1,),
    "num_groups": (1, 2),
    "train": (False,),
    "training": (False,),
    "transposed": (False,),
    "ceil_mode": (False,),
    "enable_gqa": (False,),
}
"""By parameter (of an op, where it differs from others'): values that make sense."""

SPATIAL: Final[dict[str, tuple[int, ...]]] = {
    "stride": (1, 1, 2),
    "padding": (0, 1),
    "dilation": (1, 1, 2),
    "output_padding": (0,),
    "kernel_size": (1, 2),
}
"""By parameter: values for each spatial dimension."""

KINDS: Final[dict[str, tuple[Any, ...]]] = {
    "bool": (False, True),
    "int": (0, 1, 2, -1),
    "float": (0.5, 2.0, 1e-3, 1.0),
    "number": (2, 0.5, 3.0, -1.5, 1),
    "str": ("none",),
}
"""By kind: values for any other parameter."""
