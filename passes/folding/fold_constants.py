"""Moves what depends on constants alone out of the program, into the recipes of its constants.

    %y = f(@w, @v)              ->  @y = f(@w, @v)  (prepare)
    %y = f(arange(n), @w)       ->  @y = f(arange(n), @w)  (prepare)
    @a, @b of the same bits     ->  @a             for tensors that the program itself holds

Recipes run once, when a program is bound to its weights, and again for other weights. So nothing
here looks at a number, but for those that the program brings along (``kind`` ``constant``).

What a recipe gives is kept in memory beside its sources. Therefore a node stays where it is if

* its result would be much larger than the sources that it is made from (``expand``): `max_growth`;
* it is made from no source at all (``full``, ``arange``, ``eye``, and masks made from them) in few
  steps: its formula says more than its numbers, and costs little. A longer one, or any with
  `generated`, is folded as far as `small` allows;
* together with all others it would take more than `max_growth` times the memory of the sources.

Random nodes, nodes with effects, sizes that depend on data, and what only torch understands stay;
so does what reads a buffer that the program writes to.

Recipes in 16-bit floats are computed in f32 and rounded at their end. Where a program has to keep
its bits (``exactness="exact"``), a recipe holds one such rounding and no more; nowhere does one
compare, or turn into integers, what it has not rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs
import torch

from rewright.ir.attributes import Attributes, Opaque, leaves
from rewright.ir.contents import equal_contents
from rewright.ir.copying import copy_into
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.ops import SCALAR, Trait
from rewright.ir.types import ScalarType, TensorType
from rewright.passes.manager import Pass, PassContext
from rewright.passes.registry import register_pass
from rewright.passes.rule import EXACT, Exactness

_STAYS: Final = frozenset(
    {Trait.RANDOM, Trait.EFFECT, Trait.OPAQUE, Trait.DATA_DEPENDENT, Trait.STRUCTURAL}
)
_NARROW: Final = frozenset({torch.float16, torch.bfloat16, torch.complex32})
"""The dtypes that recipes compute in a wider one."""

_MANY: Final = 1 << 10
"""Steps are not counted any further."""

_HASHED: Final = 1 << 26
"""Constants of more bytes are not compared with one another."""


@register_pass
@attrs.frozen
class FoldConstants(Pass):
    """f(constants)  ->  a prepared constant

    Attributes:
        max_growth: a prepared constant is at most so many times as large as its sources.
        small: so many bytes are always allowed, unless they are only a repetition.
        max_bytes: no prepared constant is larger.
        generated: whether what is made from no source is folded, too, where it is `small`.
        doubles: whether that is done where it is computed in f64, which no engine can.
        steps: it is also done where it takes more nodes that compute than this.
    """

    max_growth: float = 2.0
    small: int = 1 << 18
    max_bytes: int = 1 << 31
    generated: bool = False
    doubles: bool = False
    steps: int = 8

    def run(self, graph: Graph, context: PassContext) -> None:
        """Folds the constants of `graph`; those of its regions are given to them from outside."""
        share_sources(graph)
        _Folding(graph, self, context.exactness).run()
        share_prepared(graph)


# --------------------------------------------------------------------------- sharing


def share_sources(graph: Graph) -> None:
    """Makes one of the tensors that the program brings along and that hold the same bits.

    Parameters and buffers stay apart: who changes one of two equal ones means that one.
    """
    pinned = _pinned(graph)
    lifted = {
        constant: constant.data
        for constant in graph.constants.values()
        if constant.kind == "constant" and constant.data is not None and constant not in pinned
    }
    for first, *others in equal_contents(lifted, max_bytes=_HASHED):
        for other in others:
            if other.type == first.type:
                other.replace_all_uses(first)
                graph.remove_constant(other)
                first.aliases = (*first.aliases, other.name, *other.aliases)


def share_prepared(graph: Graph) -> None:
    """Makes one of prepared constants that have the same recipe."""
    known: dict[Value, Constant] = {}
    pinned = _pinned(graph)
    for constant in [c for c in graph.constants.values() if not c.is_source]:
        first = known.setdefault(graph.recipe(constant), constant)
        if first is not constant and constant not in pinned:
            constant.replace_all_uses(first)
            graph.remove_constant(constant)


def _pinned(graph: Graph) -> set[Any]:
    """The constants that are written to, or whose memory the caller gets."""
    return {*graph.targets, *(spec.alias for spec in graph.results)}


# --------------------------------------------------------------------------- folding


@attrs.frozen
class _Known:
    """What is known of a value that depends on constants alone.

    Attributes:
        sources: what it is made from; none where it is generated.
        is_rounded: whether a recipe has rounded it wherever the program has: a recipe computes in
            f32 what the program computes in a 16-bit dtype, and rounds its end.
        steps: how many nodes compute it, counted again for each use; many are not told apart.
    """

    sources: frozenset[Constant] = frozenset()
    is_rounded: bool = True
    steps: int = 0


@attrs.define(eq=False)
class _Folding:
    graph: Graph
    options: FoldConstants
    exactness: Exactness
    known: dict[Value, _Known] = attrs.field(factory=dict)
    """The constants, and the results of the nodes that could be moved."""

    def run(self) -> None:
        written = set(self.graph.targets)
        constants = self.graph.constants.values()
        for constant in constants:
            if constant.is_source and constant not in written:
                self.known[constant] = _Known(frozenset((constant,)))
        if self.graph.has_recipes:
            for node in self.graph.prepare:
                self.note(node)
            for constant in constants:
                if not constant.is_source:
                    self.known[constant] = self.known[self.graph.recipe(constant)]
        movable = [node for node in self.graph if self.can_move(node)]
        moved = self.choose(movable)
        if moved:
            self.move(movable, moved)

    # -- what could be moved

    def can_move(self, node: Node) -> bool:
        """Whether `node` depends on constants alone, and could be computed by a recipe."""
        if not all(value in self.known for value in node.operands) or not _is_simple(node):
            return False
        is_rounded = all(self.known[value].is_rounded for value in node.operands)
        if not (is_rounded or node.op.has(Trait.MOVEMENT)) and (
            self.exactness == EXACT or not _is_smooth(node)
        ):
            return False
        self.note(node)
        return True

    def note(self, node: Node) -> None:
        """Notes what is known of the results of `node`, as a recipe gives them."""
        made = [self.known[value] for value in node.operands]
        is_rounded = not any(_dtype(value) in _NARROW for value in node.results)
        if node.op.has(Trait.MOVEMENT):
            is_rounded = all(item.is_rounded for item in made)
        sources = frozenset().union(*(item.sources for item in made))
        steps = sum(item.steps for item in made) + (not node.op.has(Trait.MOVEMENT))
        for value in node.results:
            self.known[value] = _Known(sources, is_rounded, min(steps, _MANY))

    # -- what is

    def choose(self, movable: list[Node]) -> dict[Node, list[Value]]:
        """The nodes to move, each with those of its results that the program goes on to use."""
        moved: dict[Node, list[Value]] = {}
        constants = self.graph.constants.values()
        sources = _bytes_of(c for c in constants if c.is_source)
        budget = max(self.options.max_growth * sources, self.options.small)
        budget -= _bytes_of(c for c in constants if not c.is_source)
        for node in reversed(movable):
            kept = [
                value for value in node.results if any(use.node not in moved for use in value.uses)
            ]
            if not any(value.has_uses for value in node.results):
                continue
            if kept:
                size = _bytes_of(kept)
                if size > budget or not self.is_worth_keeping(node, size):
                    continue
                budget -= size
            moved[node] = kept
        return moved

    def is_worth_keeping(self, node: Node, size: int) -> bool:
        """Whether to keep `size` bytes of the results of `node` in memory."""
        sources = self.known[node.results[0]].sources
        dtypes = map(_dtype, (*node.operands, *node.results))
        is_double = self.options.doubles and torch.float64 in dtypes
        is_long = self.known[node.results[0]].steps > self.options.steps
        if not sources and not (self.options.generated or is_double or is_long):
            return False
        allowed = self.options.max_growth * _bytes_of(sources)
        if not node.op.has(Trait.MOVEMENT):
            allowed = max(allowed, self.options.small)
        return size <= min(allowed, self.options.max_bytes)

    # -- moving

    def move(self, movable: list[Node], moved: dict[Node, list[Value]]) -> None:
        """Makes recipes of `moved` nodes, and of what they need; those it no longer needs go."""
        needed = set(moved)
        for node in reversed(movable):
            if node in needed:
                needed.update(v.owner for v in node.operands if isinstance(v.owner, Node))
        recipes = self.graph.prepare
        copies: dict[Value, Value] = {
            constant: constant if constant.is_source else self.graph.recipe(constant)
            for constant in self.graph.constants.values()
        }
        made = {_key(node): node for node in recipes}
        for node in movable:
            if node in needed:
                self.cook(node, copies, made)
        for node in [node for node in movable if node in moved]:
            for value in moved[node]:
                self.keep(value, copies[value])
        for node in reversed(movable):
            if node in moved:
                node.erase()

    def cook(self, node: Node, copies: dict[Value, Value], made: dict[Any, Node]) -> None:
        """Copies `node` into the recipes, unless it is there."""
        same = made.get(_key(node, copies))
        if same is None:
            (same,) = copy_into(self.graph.prepare, [node], copies)
            made[_key(same)] = same
        copies.update(zip(node.results, same.results, strict=True))

    def keep(self, value: Value, recipe: Value) -> None:
        """Makes a prepared constant, and puts it in the place of `value`."""
        constant = self.graph.add_prepared(self.name_of(value), recipe)
        value.replace_all_uses(constant)

    def name_of(self, value: Value) -> str:
        """A name after the largest source, which says where to look: ``fc.weight.t``."""
        assert isinstance(value.owner, Node)
        sources = sorted(self.known[value].sources, key=lambda c: (-_bytes_of([c]), c.index))
        first = sources[0].name if sources else "folded"
        base = f"{first}.{value.owner.op.name.split('.')[1].strip('_')}"
        taken = self.graph.constants
        return next(
            name
            for name in (base, *(f"{base}_{number}" for number in range(1, len(taken) + 2)))
            if name not in taken
        )


def _is_simple(node: Node) -> bool:
    """Whether a recipe can hold `node`: pure, of known sizes, and nothing that only torch knows."""
    if node.op is SCALAR:
        return isinstance(node.result.type, ScalarType) and not node.attributes.symbols()
    if node.op.traits & _STAYS or node.regions or not node.results:
        return False
    if node.attributes.symbols() or any(isinstance(leaf, Opaque) for leaf in _leaves(node)):
        return False
    return all(
        isinstance(value.type, TensorType) and value.type.is_static for value in node.results
    )


def _leaves(node: Node) -> Iterable[Any]:
    return (leaf for item in node.attributes.values() for leaf in leaves(item))


def _is_smooth(node: Node) -> bool:
    """Whether a small error of an operand makes for a small one: not where integers come out."""
    return all(
        dtype is not None and (dtype.is_floating_point or dtype.is_complex)
        for dtype in map(_dtype, node.results)
    )


def _dtype(value: Value) -> torch.dtype | None:
    return value.type.dtype if isinstance(value.type, TensorType) else None


def _bytes_of(values: Iterable[Value]) -> int:
    """The bytes of constants and results, all of known sizes."""
    return sum(
        value.type.nbytes
        for value in values
        if isinstance(value.type, TensorType) and isinstance(value.type.nbytes, int)
    )


def _key(node: Node, copies: dict[Value, Value] | None = None) -> Any:
    """What nodes that compute the same have in common, seen from the recipes."""
    operands = tuple(v if copies is None else copies[v] for v in node.operands)
    attributes: Attributes = node.attributes
    return node.op, attributes, operands, tuple(value.type for value in node.results)
