"""Elements chosen by their values, of which there are as many as a run finds.

TensorRT's layer is NON_ZERO. TensorRT for RTX defines it and can't build it, so there these nodes
stay in Torch, and the reason names the target that takes them. The engines of `tensorrt` itself
can't be built without its GPU: tests evaluate the networks, and look the calls up in the API tables
of each version.
"""

from __future__ import annotations

import torch

from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import BOOL
from rewright.backends.tensorrt.enums import GatherMode
from rewright.backends.tensorrt.needs import Rank
from rewright.backends.tensorrt.shaping import expand, transpose
from rewright.backends.tensorrt.tensor import Tensor


def places_of(x: Tensor) -> Tensor:
    """The coordinates of what is not zero, a row for each, in the order of memory."""
    found = x.net.layer("add_non_zero", x)  # i32: a choice of dtype came with version 10.14 only
    return transpose(found, 0, 1)


@converts("aten.nonzero", needs=[Rank("self", 1)])
def nonzero(call: Call, self: Tensor) -> Tensor:
    """NON_ZERO"""
    return places_of(self).to(torch.int64)


@converts("aten.masked_select", dtypes={"mask": BOOL}, needs=[Rank("out", 1, 1)])
def masked_select(call: Call, self: Tensor, mask: Tensor) -> Tensor:
    """NON_ZERO, GATHER of elements by their coordinates"""
    given = [call.shape("self"), call.shape("mask")]
    rank = max(map(len, given))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in given]
    sizes = [a if b == 1 else b for a, b in zip(*padded, strict=True)]
    x, chosen = expand(self, sizes), expand(mask, sizes)
    return call.net.layer("add_gather_v2", x, places_of(chosen), GatherMode.ND)
