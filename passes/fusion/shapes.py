"""Questions about shapes that several fusions ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def is_one(dim: Any) -> bool:
    """Whether `dim` is 1 for all sizes: a symbolic one may be, and is not asked."""
    return isinstance(dim, int) and dim == 1


def broadcasts_to(shape: Sequence[Any], wanted: Sequence[Any]) -> Any:
    """Whether `shape` broadcasts to `wanted`, and leaves it as it is.

    Raises:
        UnknownFact: it depends on the sizes.
    """
    if len(shape) > len(wanted):
        return False
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return all(is_one(dim) or dim == size for dim, size in pairs)
