"""Windows over pixels: TensorRT has two or three spatial dimensions, so one is taken as two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.backends.tensorrt.needs import Query
from rewright.backends.tensorrt.shaping import (
    unsqueeze,
)
from rewright.backends.tensorrt.tensor import Tensor


def spatial(numbers: Any, count: int, default: int = 1) -> tuple[int, ...]:
    """A number for each of `count` dimensions; torch takes one for all, and none for a default."""
    listed = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    if not listed:
        return (default,) * count
    return tuple(listed) * count if len(listed) == 1 else tuple(listed)


def widen(x: Tensor, count: int) -> Tensor:
    """`x` with a second spatial dimension, of 1, where `count` says that it has one."""
    return unsqueeze(x, (x.rank - 1,)) if count == 1 else x


def two(numbers: Sequence[int], first: int) -> tuple[int, ...]:
    """A number for each spatial dimension, with `first` for the added one."""
    return (first, *numbers) if len(numbers) == 1 else tuple(numbers)


def batched(x: Tensor, count: int) -> tuple[Tensor, bool]:
    """`x` with the batch dimension that torch lets out."""
    return (unsqueeze(x, (0,)), True) if x.rank == count + 1 else (x, False)


def argument(query: Query, name: str, default: Any) -> Any:
    """An argument of a node, or `default` where it is left out or the op has none."""
    found = query.arg(name)
    return default if found is None else found


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
        self.stride, self.dilation = two(stride, 1), two(dilation, 1)
        self.before, self.after = two(before, 0), two(after, 0)
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
