"""What rules about shapes compute: dimensions counted from the front, spans, orders.

Sizes may be ints or :class:`~rewright.passes.facts.Size`. Where an answer depends on sizes that
are not known, the functions raise :class:`~rewright.passes.facts.UnknownFact`, which a rule's
`where` and `replace` turn into a refusal.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from rewright.passes.handles import BoundOp
from rewright.passes.ops import aten
from rewright.passes.reasons import NoMatch


def from_front(dim: int, rank: int) -> int:
    """`dim` counted from the front, as torch counts it: a scalar has one dimension."""
    return dim % max(rank, 1)


# --------------------------------------------------------------------------- shapes


def same_sizes(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two shapes are equal, for all sizes."""
    return len(a) == len(b) and all(x == y for x, y in zip(a, b, strict=True))


def is_stated(sizes: Sequence[Any]) -> bool:
    """Whether each of the `sizes` is said, and none is left to torch by a -1."""
    return not any(isinstance(size, int) and size < 0 for size in sizes)


def reshaped(x: Any, shape: Sequence[Any]) -> Any:
    """``reshape(x, shape)``; a refusal where the sizes don't tell that the elements fit."""
    if not is_stated(shape) or math.prod(x.shape) != math.prod(shape):
        return NoMatch("nothing tells that {0} has {1} elements", x, shape)
    return aten.reshape(x, tuple(shape))


def is_known_equal(a: Any, b: Any) -> bool:
    """Whether two sizes are equal for all sizes; False where nothing tells."""
    return (a == b) is True


# --------------------------------------------------------------------------- orders


def order_of(op: BoundOp, rank: int) -> tuple[int, ...]:
    """The order of dimensions that a ``permute``, ``transpose.int`` or ``t`` gives."""
    order = list(range(rank))
    if op.name == "aten.permute":
        return tuple(dim % rank for dim in op.attributes["dims"])
    swapped = (0, 1) if op.name == "aten.t" else (op.attributes["dim0"], op.attributes["dim1"])
    if rank >= 2:
        a, b = (dim % rank for dim in swapped)
        order[a], order[b] = order[b], order[a]
    return tuple(order)


def reordered(x: Any, order: Sequence[int]) -> Any:
    """`x` with its dimensions in `order`: itself, a ``transpose.int`` of two, or a ``permute``."""
    moved = [at for at, dim in enumerate(order) if at != dim]
    if not moved:
        return x
    return aten.transpose.int(x, *moved) if len(moved) == 2 else aten.permute(x, tuple(order))


def is_canonical(op: BoundOp, rank: int) -> bool:
    """Whether `op` is written as :func:`reordered` writes it."""
    order = order_of(op, rank)
    moved = [at for at, dim in enumerate(order) if at != dim]
    if not moved:
        return False
    if len(moved) == 2:
        given = (op.attributes.get("dim0"), op.attributes.get("dim1"))
        return op.name == "aten.transpose.int" and given == (moved[0], moved[1])
    return bool(op.attributes["dims"] == order)


# --------------------------------------------------------------------------- spans


def span(size: Any, start: Any, end: Any) -> tuple[Any, Any]:
    """Where a slice from `start` to `end` begins and ends in a dimension, as torch clips them."""
    low = 0 if start is None else _clipped(start, size)
    high = size if end is None or _is_no_end(end) else _clipped(end, size)
    return low, high if low <= high else low


def _is_no_end(end: Any) -> bool:
    return isinstance(end, int) and end >= sys.maxsize


def _clipped(place: Any, size: Any) -> Any:
    counted = place + size if place < 0 else place
    if counted < 0:
        return 0
    return counted if counted <= size else size
