"""What the elements of a tensor are, as functions of their index.

==============  ===========================================================================
``Affine``      ``const + Σ factor[d] * index[d]``, an integer
``Condition``   all of some ``Affine >= 0``: a bool; of none at all, True
``Choice``      one number where a condition holds, another where it doesn't
==============  ===========================================================================

Dimensions are counted from the end (-1 is the last), so that broadcasting leaves them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs
import sympy

from rewright.ir.sizes import Dim


@attrs.frozen
class Affine:
    """``const + Σ factor * index``, over dimensions counted from the end."""

    const: Dim
    factors: frozenset[tuple[int, int]] = frozenset()

    @property
    def by_dim(self) -> dict[int, int]:
        """The factor of each dimension that has one."""
        return dict(self.factors)

    def plus(self, other: Affine, times: int = 1) -> Affine:
        """``self + times * other``."""
        total = self.by_dim
        for dim, factor in other.factors:
            total[dim] = total.get(dim, 0) + times * factor
        kept = frozenset((dim, factor) for dim, factor in total.items() if factor)
        return Affine(self.const + times * other.const, kept)

    def times(self, number: int) -> Affine:
        """``self * number``."""
        return Affine(0).plus(self, number)

    def moved(self, places: Mapping[int, int]) -> Affine:
        """This, where what was dimension `d` is now ``places[d]``."""
        return Affine(self.const, frozenset((places[dim], f) for dim, f in self.factors))


@attrs.frozen
class Condition:
    """All of `atoms` are at least 0; None is never."""

    atoms: frozenset[Affine] | None = frozenset()

    def both(self, other: Condition) -> Condition:
        """This and `other`."""
        if self.atoms is None or other.atoms is None:
            return NEVER
        return Condition(self.atoms | other.atoms)

    def negated(self) -> Condition | None:
        """The opposite, where that is a condition of this form."""
        if not self.atoms:
            return ALWAYS if self.atoms is None else NEVER
        if len(self.atoms) > 1:
            return None
        return Condition(frozenset(Affine(-1).plus(atom, -1) for atom in self.atoms))


ALWAYS: Final = Condition()
NEVER: Final = Condition(None)


@attrs.frozen
class Choice:
    """The number `yes` where `condition` holds, and `no` elsewhere."""

    condition: Condition
    yes: float
    no: float

    def map(self, function: Callable[[float], float]) -> Choice:
        """The same of other numbers."""
        return Choice(self.condition, function(self.yes), function(self.no))


Fact: TypeAlias = "Affine | Condition | Choice | None"


def number_fact(item: Any) -> Fact:
    """What a tensor of the number `item` is; None for what is no number."""
    if isinstance(item, bool):
        return ALWAYS if item else NEVER
    if isinstance(item, int | sympy.Basic):
        return Affine(item)
    return Choice(ALWAYS, item, item) if isinstance(item, float) else None


def mapped(fact: Fact, function: Callable[[Affine], Affine]) -> Fact:
    """`fact` with `function` done to each affine form in it."""
    match fact:
        case Affine():
            return function(fact)
        case Condition(atoms) if atoms is not None:
            return Condition(frozenset(function(atom) for atom in atoms))
        case Choice(condition, yes, no):
            inner = mapped(condition, function)
            assert isinstance(inner, Condition)
            return Choice(inner, yes, no)
    return fact


def dims_in(fact: Fact) -> set[int]:
    """The dimensions that `fact` depends on."""
    found: set[int] = set()

    def look(affine: Affine) -> Affine:
        found.update(dim for dim, _ in affine.factors)
        return affine

    mapped(fact, look)
    return found


def one_number(fact: Fact) -> float | None:
    """The number that all elements are, if they are one."""
    match fact:
        case Affine(const, factors) if not factors and isinstance(const, int):
            return float(const)
        case Choice(_, yes, no) if yes == no:
            return yes
    return None
