"""What each op computes in where a program is lowered to a 16-bit dtype: data, one row per kind.

=============  ===================================================================================
kind           the op
=============  ===================================================================================
``LOWER``      computes in the 16-bit dtype: it gains, and accumulates in f32 inside
``FOLLOW``     in whatever its neighbours do: it is as right either way
``KEEP``       stays in f32, for the reason that stands beside it
=============  ===================================================================================

What stands nowhere here stays in f32: nobody has said that it may not. The division is that of
torch.autocast for CUDA, with three differences: norms and gates are lowered, for the ops of ours
and torch's kernels compute them in f32 inside; an op is never lowered because its neighbours are,
if it is not listed; and what autocast "promotes" follows the cheaper side here.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Final

import attrs

from rewright.ir.ops import Op, Trait


class Kind(enum.Enum):
    """What an op computes in."""

    LOWER = "lower"
    FOLLOW = "follow"
    KEEP = "keep"


@attrs.frozen
class Row:
    """What the table says of an op.

    Attributes:
        kind: what it computes in.
        reason: why it stays in f32.
        wide: the parameters that stay in f32 even where the op is lowered.
    """

    kind: Kind
    reason: str = ""
    wide: frozenset[str] = frozenset()


LOWER: Final = (
    "rw.linear rw.matmul rw.conv rw.conv_relu rw.attention rw.rope rw.gated "
    "rw.layer_norm rw.rms_norm rw.group_norm "
    "linear matmul mm bmm addmm baddbmm addbmm mv addmv dot bilinear einsum "
    "conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d "
    "scaled_dot_product_attention embedding "
    "layer_norm rms_norm group_norm native_layer_norm native_group_norm"
)
"""Products, attention, and norms that compute in f32 inside."""

FOLLOW: Final = (
    "add sub rsub mul div neg abs sign relu relu6 leaky_relu elu celu selu prelu hardtanh gelu "
    "silu mish sigmoid tanh hardswish hardsigmoid where clamp clamp_min clamp_max maximum minimum "
    "fmax fmin masked_fill lerp glu "
    "eq ne lt le gt ge isnan isinf isfinite logical_not logical_and logical_or "
    "argmax argmin amax amin max min sort topk argsort floor ceil round trunc "
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d "
    "upsample_bilinear2d upsample_bicubic2d upsample_linear1d upsample_trilinear3d "
    "constant_pad_nd pad reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d "
    "gather index index_select take_along_dim slice_scatter select_scatter tril triu "
    "im2col col2im channel_shuffle repeat_interleave"
)
"""What moves, selects, compares and adds numbers; and whatever has the trait MOVEMENT."""

KEEP: Final = {
    "a softmax adds exponentials": "softmax log_softmax _softmax _log_softmax softmin",
    "sums and statistics lose digits in 16 bits": (
        "sum mean var std var_mean std_mean prod nansum nanmean cumsum cumprod logsumexp "
        "logcumsumexp norm linalg_vector_norm linalg_norm dist cdist renorm normalize "
        "cosine_similarity pairwise_distance instance_norm trace"
    ),
    "small errors grow in it": (
        "exp exp2 expm1 log log2 log10 log1p pow sqrt rsqrt reciprocal square softplus "
        "log_sigmoid erf erfc erfinv digamma lgamma logit addcdiv addcmul sinh cosh tan acos asin "
        "atan atan2 acosh asinh atanh"
    ),
    "it takes angles": "sin cos polar",
    "it takes coordinates": "grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator",
    "a loss adds small numbers": (
        "cross_entropy_loss nll_loss nll_loss2d mse_loss l1_loss smooth_l1_loss huber_loss kl_div "
        "binary_cross_entropy binary_cross_entropy_with_logits poisson_nll_loss ctc_loss"
    ),
    "its errors add up from step to step": "lstm gru rnn_tanh rnn_relu",
}
"""Reasons to stay in f32, and the ops that have them."""

WIDE: Final = {
    "batch_norm": "weight bias running_mean running_var",
    "native_batch_norm": "weight bias running_mean running_var",
    "_native_batch_norm_legit_no_training": "weight bias running_mean running_var",
}
"""Ops that are lowered but for some parameters, which torch's kernels take in f32 then."""

UNKNOWN: Final = "the table of precisions does not list it"


def _full(name: str) -> str:
    return name if name.startswith("rw.") else f"aten.{name}"


_ROWS: Final[dict[str, Row]] = {
    **{_full(name): Row(Kind.LOWER) for name in LOWER.split()},
    **{_full(name): Row(Kind.FOLLOW) for name in FOLLOW.split()},
    **{
        _full(name): Row(Kind.KEEP, reason)
        for reason, names in KEEP.items()
        for name in names.split()
    },
    **{_full(name): Row(Kind.LOWER, wide=frozenset(names.split())) for name, names in WIDE.items()},
}


@lru_cache(maxsize=4096)
def row_of(op: Op) -> Row:
    """What the table says of `op`; its overloads are all alike."""
    known = _ROWS.get(op.name) or _ROWS.get(".".join(op.name.split(".")[:2]))
    if known is not None:
        return known
    return Row(Kind.FOLLOW) if op.has(Trait.MOVEMENT) else Row(Kind.KEEP, UNKNOWN)
