"""What can be proved of a mask: whether it hides nothing, or is a triangle.

What its elements are is found by :mod:`rewright.passes.fusion.elements`; here is what that means
for queries (dimension -2) and keys (dimension -1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch

from rewright.ir.graph import Value
from rewright.ir.sizes import Dim
from rewright.ir.types import TensorType
from rewright.passes.facts import ranges_of
from rewright.passes.fusion.affine import ALWAYS, NEVER, Affine, Choice, Condition
from rewright.passes.fusion.elements import Study
from rewright.passes.proof.draw import Computed

if TYPE_CHECKING:
    from rewright.ir.builder import Builder
    from rewright.passes.proof.draw import Draw

__all__ = [
    "ALWAYS",
    "CAUSAL",
    "HIDDEN",
    "NEVER",
    "example",
    "leaves_something",
    "leaves_something_seen",
    "sees",
]

HIDDEN: Final = -1e30
"""A number added to a score that is not above this hides it: no score comes near to it."""


def sees(mask: Value) -> Condition | None:
    """When a query (dimension -2) sees a key (dimension -1) through `mask`; None if unknown.

    A floating mask is added to scores. It counts where it is 0 for what is seen and hides all else;
    whether every query sees something is for the caller to know, since a row in which all is hidden
    by the same finite number is not hidden at all.

    Args:
        mask: a mask of ``rw.attention``.
    """
    study = Study(ranges_of(mask.graph))
    fact = study.of(mask)
    found: Condition | None = None
    match fact:
        case Condition():
            found = fact
        case Choice(condition, yes, no) if yes == 0 and no == 0:
            found = ALWAYS
        case Choice(condition, yes, no) if yes == 0 and no <= HIDDEN:
            found = condition
        case Choice(condition, yes, no) if no == 0 and yes <= HIDDEN:
            found = condition.negated()
    assert isinstance(mask.type, TensorType)
    return None if found is None else study.simplified(found, mask.type.shape)


def leaves_something(hidden: Value) -> bool:
    """Whether it is known that `hidden`, True where a key is hidden, leaves every query a key."""
    study = Study(ranges_of(hidden.graph))
    fact = study.of(hidden)
    seen = fact.negated() if isinstance(fact, Condition) else None
    assert isinstance(hidden.type, TensorType)
    return seen is not None and study.simplified(seen, hidden.type.shape) in (ALWAYS, CAUSAL)


def leaves_something_seen(mask: Value) -> bool:
    """Whether it is known that `mask`, which is added to scores, leaves every query a key."""
    return sees(mask) in (ALWAYS, CAUSAL)


CAUSAL: Final = Condition(frozenset([Affine(0, frozenset({(-2, 1), (-1, -1)}))]))
"""Query ``i`` sees key ``j`` where ``i - j >= 0``."""


# --------------------------------------------------------------------------- examples


def example(draw: Draw, queries: Dim, keys: Dim) -> Any:
    """A mask for the proof of a rule: a triangle, all, or something of the kind that is neither."""
    bound = draw.choice((0, 0, 0, 1, -1))
    floating = draw.chance(0.5)
    kind = draw.choice(("triangle", "triangle", "all", "band"))

    def make(build: Builder) -> Any:
        rows = build.call("aten.unsqueeze", build.call("aten.arange", queries), 1)
        columns = build.call("aten.unsqueeze", build.call("aten.arange", keys), 0)
        seen = build.call("aten.le.Tensor", build.call("aten.add.Tensor", columns, bound), rows)
        if kind == "all":
            seen = build.call("aten.ge.Scalar", build.call("aten.add.Tensor", columns, rows), 0)
        elif kind == "band":
            near = build.call("aten.add.Tensor", columns, 2)
            above = build.call("aten.gt.Tensor", near, rows)
            seen = build.call("aten.bitwise_and.Tensor", seen, above)
        if not floating:
            return build.call("aten.unsqueeze", seen, 0)
        shown, hidden = (build.call("aten.full", (), x, dtype=draw.dtype) for x in (0.0, -math.inf))
        return build.call("aten.where.self", seen, shown, hidden)

    shape = (queries, keys) if floating else (1, queries, keys)
    return Computed(TensorType(draw.dtype if floating else torch.bool, shape), make)
