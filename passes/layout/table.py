"""Where convolutions gain from channels-last memory, and what hands it on: data, per device.

Kernels for convolutions of four dimensions want the channels of a pixel side by side: tensor cores
in cuDNN, and oneDNN's on a CPU. Given contiguous memory they bring their input into that order, and
their result back, in every call. Where both come in that order already, nothing is moved.
"""

from __future__ import annotations

from typing import Final

import torch

from rewright.ir.graph import Node
from rewright.ir.ops import Op, Trait

GAINS: Final[dict[str, frozenset[torch.dtype]]] = {
    "cpu": frozenset({torch.bfloat16}),
    "cuda": frozenset({torch.float16, torch.bfloat16}),
}
"""By kind of device, the dtypes in which a convolution gains.

On a CPU without instructions for it, bf16 runs four times as fast so (ResNet-50, batch 1: 4.0 s to
1.05 s on one core), and f32 as fast as before (172 ms to 161 ms, which is noise there).
"""

CONVOLUTIONS: Final = frozenset({"rw.conv", "rw.conv_relu", "aten.conv2d", "aten.convolution"})
"""What is looked at as a convolution, where it has two spatial dimensions."""

_HANDS_ON: Final = (
    "batch_norm max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d "
    "_adaptive_avg_pool2d upsample_nearest2d upsample_bilinear2d _upsample_nearest_exact2d "
    "constant_pad_nd pad cat split split_with_sizes chunk narrow slice"
)
"""Besides what is elementwise: ops of aten whose kernels give what they take."""

_ALSO: Final[dict[str, frozenset[str]]] = {
    "cpu": frozenset({"rw.group_norm", "aten.group_norm", "aten.native_group_norm"}),
    "cuda": frozenset(),
}
"""What hands it on only here: CUDA's group norm takes and gives contiguous memory."""

_NAMES: Final = frozenset(f"aten.{name}" for name in _HANDS_ON.split())


def gains(device: str, dtype: torch.dtype) -> bool:
    """Whether convolutions in `dtype` gain on `device` (``cuda:0``)."""
    return dtype in GAINS.get(_kind(device), frozenset())


def hands_on(node: Node, device: str) -> bool:
    """Whether `node`, given channels-last memory, gives such memory."""
    return _op_hands_on(node.op) or node.op.name in _ALSO.get(_kind(device), frozenset())


def _op_hands_on(op: Op) -> bool:
    return op.has(Trait.ELEMENTWISE) or ".".join(op.name.split(".")[:2]) in _NAMES


def _kind(device: str) -> str:
    return device.partition(":")[0]
