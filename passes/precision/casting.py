"""Doing what was decided: nodes get their dtypes, and casts where neighbours differ.

    %y = f(%x)        ->  %y = f(to(%x, f16)) : f16[...]
    @w                ->  @w.f16 = to(@w, f16)      (prepare)
    to(%x, f32)       ->  %x                        where casts no longer are between dtypes
    to(%m, f16)       ->  to(where(isinf(%m), %m, clamp(%m, -65504, 65504)), f16)
                                                    where the program puts larger numbers into %m

A value is cast once to each dtype, right behind what makes it; constants are cast when they are
prepared. Outputs and write-backs have the dtypes that they had.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import torch

from rewright.ir.builder import Builder
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.location import Location
from rewright.ir.types import DTYPE_NAMES, TensorType
from rewright.passes.precision.assignment import Decision, Decisions, wide_operands
from rewright.passes.precision.floats import EXCHANGED, in_dtype, is_float_cast
from rewright.passes.precision.reach import ORDINARY, Reach, reach_of

RULE: Final = "precision"
"""What the locations of new nodes name."""


def recast(graph: Graph, wanted: torch.dtype, decisions: Decisions) -> int:
    """Gives the nodes of `graph` the dtypes that were decided, in place.

    Returns:
        How many constants are cast when the program is prepared.
    """
    casting = _Casting(graph, wanted, decisions, reach_of(graph))
    casting.run()
    return sum(isinstance(cast, Constant) for cast in casting.casts.values())


@attrs.define(eq=False)
class _Casting:
    graph: Graph
    wanted: torch.dtype
    decisions: Decisions
    reach: Reach
    original: dict[Value, torch.dtype] = attrs.field(factory=dict)
    """The dtypes that values had, where they have another now."""
    stand_ins: dict[Value, Value] = attrs.field(factory=dict)
    """What stands for the result of a cast that is no longer one."""
    casts: dict[tuple[Value, torch.dtype], Value] = attrs.field(factory=dict)

    def run(self) -> None:
        dropped = []
        for node in self.graph:
            if is_float_cast(node) and self._drops(node):
                self.stand_ins[node.result] = self._standing(node.operands[0])
                dropped.append(node)
            else:
                self._node(node)
        self._end()
        self.graph.erase(dropped)
        self._sweep()

    # -- nodes

    def _drops(self, node: Node) -> bool:
        """Whether a cast of the program's own is left to those who use its result.

        It stays where it rounds to the very dtype that was asked for.
        """
        held = self._standing(node.operands[0]).type
        to = node.attributes["dtype"]
        rounds = isinstance(held, TensorType) and held.dtype is torch.float32
        return not (rounds and to is self.wanted and to is not torch.float32)

    def _node(self, node: Node) -> None:
        decision = self.decisions.get(node, Decision())
        wide = wide_operands(node) if decision.dtype is self.wanted else frozenset()
        for at, value in enumerate(node.operands):
            dtype = decision.dtype or self._dtype(value)
            if at in wide:
                dtype = torch.float32
            node.set_operand(at, self._wanted(value, dtype, node))
        if decision.dtype is None:
            return
        for value in node.results:
            new = in_dtype(value.type, decision.dtype)
            if new != value.type:
                assert isinstance(value.type, TensorType)
                self.original[value] = value.type.dtype
                value.type = new

    def _end(self) -> None:
        """Outputs and write-backs in the dtypes that they had."""
        end = self.graph.terminator
        for at, value in enumerate(end.operands):
            end.set_operand(at, self._wanted(value, self._dtype(value), end))

    def _dtype(self, value: Value) -> torch.dtype | None:
        """The dtype that `value` had in the program."""
        held = value.type.dtype if isinstance(value.type, TensorType) else None
        return self.original.get(value, held)

    def _standing(self, value: Value) -> Value:
        return self.stand_ins.get(value, value)

    # -- casts

    def _wanted(self, value: Value, dtype: torch.dtype | None, user: Node) -> Value:
        """`value` in `dtype`."""
        held = self._standing(value)
        if not isinstance(held.type, TensorType) or held.type.dtype not in EXCHANGED:
            return held
        if dtype is None or held.type.dtype is dtype:
            return held
        key = (held, dtype)
        if key not in self.casts:
            if isinstance(held, Constant) and held not in self.graph.targets:
                self.casts[key] = self._prepared(held, dtype)
            else:
                where = self._behind(held)
                build = Builder(self.graph, where, loc=_loc(held.producer or user))
                self.casts[key] = self._cast(build, held, dtype, self._is_beyond(held, dtype))
        return self.casts[key]

    def _prepared(self, constant: Constant, dtype: torch.dtype) -> Constant:
        """A constant, cast before the program runs."""
        graph = self.graph
        source = constant if constant.is_source else graph.recipe(constant)
        build = Builder(graph.prepare)
        recipe = self._cast(build, source, dtype, self._is_beyond(constant, dtype))
        return graph.add_prepared(self._name(f"{constant.name}.{DTYPE_NAMES[dtype]}"), recipe)

    def _name(self, wanted: str) -> str:
        taken = self.graph.constants
        numbered = (f"{wanted}_{number}" for number in range(1, len(taken) + 2))
        return next(name for name in (wanted, *numbered) if name not in taken)

    def _is_beyond(self, value: Value, dtype: torch.dtype) -> bool:
        """Whether `value` may hold finite numbers that `dtype` has not."""
        largest = torch.finfo(dtype).max
        assert isinstance(value.type, TensorType)
        narrows = torch.finfo(value.type.dtype).max > largest
        return narrows and self.reach.get(value, ORDINARY) > largest

    def _cast(self, build: Builder, value: Value, dtype: torch.dtype, is_beyond: bool) -> Value:
        """A cast; of what may be beyond the dtype, to its lowest and largest number."""
        hints = [_hint(value, dtype)]
        if is_beyond:
            largest = torch.finfo(dtype).max
            bounded = build.call("aten.clamp", value, -largest, largest)
            infinite = build.call("aten.isinf", value)
            value = build.call("aten.where.self", infinite, value, bounded)
        cast: Value = build.call("aten._to_copy", value, dtype=dtype, hints=hints)
        return cast

    def _behind(self, value: Value) -> Node | None:
        """The node in front of which a cast of `value` stands."""
        node = value.producer
        behind: Iterator[Node] = iter(self.graph) if node is None else node.following()
        return next(behind, None)

    # -- what is left over

    def _sweep(self) -> None:
        """Takes out prepared constants that only had to be cast, and recipes nobody needs."""
        graph = self.graph
        if not graph.has_recipes:
            return
        kept = {*graph.targets, *(spec.alias for spec in graph.results)}
        used = {value for node in graph.prepare for value in node.operands}
        for constant in [*graph.constants.values()]:
            if constant.is_source or constant.has_uses or constant in used or constant in kept:
                continue
            graph.remove_constant(constant)
        for node in reversed(graph.prepare):
            if not any(value.has_uses for value in node.results) and node.is_pure:
                node.erase()


def _hint(value: Value, dtype: torch.dtype) -> str:
    return f"{value.hint}_{DTYPE_NAMES[dtype]}" if value.hint else ""


def _loc(node: Node) -> Location | None:
    return node.loc.made_by(RULE) if node.loc is not None else None
