"""Facts about convolutions that passes and backends both ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from rewright.ir.graph import Node
from rewright.ir.types import TensorType

DEPTHWISE_DTYPES: Final = (torch.float16, torch.bfloat16)
DEPTHWISE_SIDES: Final = (3, 5, 7)
"""Of the kernels of depthwise convolutions, lines and columns."""

DEPTHWISE_STRIDES: Final = ((1, 1), (2, 2))
DEPTHWISE_CHANNELS: Final = 8
"""What one load brings: the number of channels is a multiple of it."""


def has_depthwise_kernel(node: Node, device: str) -> bool:
    """Whether `node` is a convolution that a kernel of ours computes on `device` (``cuda:0``).

    One filter for each channel, over two dimensions: 3, 5 or 7 wide, in steps of 1 or 2, without
    dilation, in 16 bits on CUDA. The kernel wants images in channels-last memory, and weights
    ``[channels, 1, kh, kw]`` in that of ``[kh, kw, channels]``: the pass that lays out memory and
    the backend have to mean the same convolutions.
    """
    if node.op.name not in ("rw.conv", "rw.conv_relu") or device.partition(":")[0] != "cuda":
        return False
    types = [value.type for value in node.operands]
    image, weight = types[0], node.arg("weight").type
    if not isinstance(image, TensorType) or not isinstance(weight, TensorType) or image.rank != 4:
        return False
    given = node.attributes
    return (
        image.dtype in DEPTHWISE_DTYPES
        and {item.dtype for item in types if isinstance(item, TensorType)} == {image.dtype}
        and weight.is_static
        and weight.shape[0] == image.shape[1] == given.get("groups", 1)
        and weight.shape[0] % DEPTHWISE_CHANNELS == 0
        and weight.shape[1] == 1
        and all(side in DEPTHWISE_SIDES for side in weight.shape[2:])
        and tuple(given["stride"]) in DEPTHWISE_STRIDES
        and tuple(given["dilation"]) == (1, 1)
        and all(isinstance(size, int) for size in given["padding"])
        and not given.get("transposed", False)
        and given.get("residual") is None
    )


def innermost(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """The strides of a weight ``[channels, 1, kh, kw]`` in the memory of ``[kh, kw, channels]``."""
    channels, _, _, width = shape
    return (1, channels, width * channels, channels)
