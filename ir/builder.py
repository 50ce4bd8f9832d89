"""Making nodes: arguments become operands and attributes, types are inferred.

    build = Builder(graph)
    y = build.call("aten.add.Tensor", x, 1.0)
    with build.at(node):
        z = build.call("aten.relu", y)          # just before `node`

Numbers and size expressions stay attributes; a Value becomes an operand wherever it stands, in
lists and records too; a Graph becomes a region.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sympy

from rewright.errors import RewrightError
from rewright.ir.attributes import LEAVES, Attributes, Operand, Record, RegionRef
from rewright.ir.graph import Graph, Node, SymbolInfo, Value
from rewright.ir.inference import infer_types
from rewright.ir.location import Location
from rewright.ir.ops import Op, get_op
from rewright.ir.sizes import Range, simplify, solve, symbol
from rewright.ir.types import ScalarType, TensorType, Type


class Builder:
    """Adds nodes to a graph, at a place.

    Args:
        graph: where nodes go.
        before: the node they go in front of; None for the end.
        loc: where nodes come from, unless a call says otherwise.
    """

    def __init__(
        self, graph: Graph, before: Node | None = None, loc: Location | None = None
    ) -> None:
        self.graph = graph
        self.before = before
        self.loc = loc

    @contextmanager
    def at(self, before: Node | None) -> Iterator[None]:
        """Nodes go in front of `before` (None: to the end) for a while."""
        self.before, saved = before, self.before
        try:
            yield
        finally:
            self.before = saved

    def call(
        self,
        op: Any,
        *args: Any,
        types: Sequence[Type] | None = None,
        hints: Sequence[str] = (),
        loc: Location | None = None,
        **kwargs: Any,
    ) -> Any:
        """Adds a node.

        Args:
            op: an op, its name, or the torch operator that it stands for.
            args: its arguments: values, graphs (regions), attributes, and lists of them.
            types: the types of the results; inferred by default.
            hints: names that the results would like to have.
            loc: where the node comes from; this builder's by default.
            kwargs: arguments by name.

        Returns:
            The result where the op has one by its nature, otherwise the tuple of its results.

        Raises:
            RewrightError: the arguments don't fit the op's parameters.
            InferenceError: no type can be given to the results.
        """
        found = op if isinstance(op, Op) else get_op(op)
        node = self.insert(found, found.bind(args, kwargs), types, hints=hints, loc=loc)
        return node.results[0] if found.results == 1 else node.results

    def insert(
        self,
        op: Op,
        named: Mapping[str, Any],
        types: Sequence[Type] | None = None,
        *,
        hints: Sequence[str] = (),
        loc: Location | None = None,
    ) -> Node:
        """Adds a node of `op` with arguments by name, as :meth:`Op.bind` gives them."""
        new: dict[sympy.Symbol, Range] = {}
        operands, attributes, regions = bind_operands(named)
        if types is None:
            types = infer_types(
                op,
                attributes,
                [value.type for value in operands],
                ranges={s: info.ranges for s, info in self.graph.symbols.items()},
                device=self.graph.device,
                regions=regions,
                fresh=lambda letter, known: self._new_symbol(letter, known, new),
            )
        node = Node(
            op, operands, attributes, types, regions=regions, loc=loc or self.loc, hints=hints
        )
        self.graph.insert(node, self.before)
        self._bind(node, new)
        return node

    def _new_symbol(
        self, letter: str, known: Range, new: dict[sympy.Symbol, Range]
    ) -> sympy.Symbol:
        taken = self.graph.symbols.keys() | new.keys()
        number = 1 + max((int(s.name[1:]) for s in taken if s.name[0] == letter), default=-1)
        made = symbol(f"{letter}{number}")
        new[made] = known
        return made

    def _bind(self, node: Node, new: Mapping[sympy.Symbol, Range]) -> None:
        """Enters the symbols that `node` makes into the graph's table."""
        for made, known in new.items():
            found = next(
                (value, dim)
                for value in node.results
                for equation, dim in equations(value.type)
                if solvable(equation, made)
            )
            self.graph.symbols[made] = SymbolInfo((known,), *found)


def equations(value_type: Type) -> list[tuple[Any, int | None]]:
    """The sizes of a type that are expressions, each with its dimension (None: a scalar)."""
    match value_type:
        case TensorType(_, shape):
            return [(d, at) for at, d in enumerate(shape) if isinstance(d, sympy.Basic)]
        case ScalarType(_, expr) if isinstance(expr, sympy.Basic):
            return [(expr, None)]
    return []


def solvable(equation: Any, unknown: sympy.Symbol) -> bool:
    """Whether a value for `equation` tells `unknown` (``Eq(u0, 1)`` is how torch says a bool)."""
    if isinstance(equation, sympy.Eq):
        return bool(equation == sympy.Eq(unknown, 1))
    return unknown in equation.free_symbols and solve(equation, unknown, 0) is not None


# --------------------------------------------------------------------------- arguments


def make_node(
    op: Op,
    args: Mapping[str, Any],
    types: Sequence[Type],
    loc: Location | None = None,
    hints: Sequence[str] = (),
) -> Node:
    """A node of `op`, not yet in a graph.

    Args:
        op: the op.
        args: its arguments by name, in the op's order, without those left at their default.
        types: the types of its results.
        loc: where it comes from.
        hints: names that its results would like to have.

    Raises:
        RewrightError: an argument is nothing that the IR can hold.
    """
    operands, attributes, regions = bind_operands(args)
    return Node(op, operands, attributes, types, regions=regions, loc=loc, hints=hints)


def bind_operands(
    args: Mapping[str, Any],
) -> tuple[tuple[Value, ...], Attributes, tuple[Graph, ...]]:
    """Arguments by name, taken apart into operands, attributes and regions.

    A value takes a new operand slot wherever it occurs, so that equal attributes mean equal
    wiring. Lists become tuples, dicts records.

    Raises:
        RewrightError: an argument is nothing that the IR can hold.
    """
    operands: list[Value] = []
    regions: list[Graph] = []

    def put(item: Any) -> Any:
        if isinstance(item, Value):
            operands.append(item)
            return _operand(len(operands) - 1)
        if isinstance(item, list | tuple):
            return tuple(put(part) for part in item)
        if isinstance(item, LEAVES) and not isinstance(item, Operand | RegionRef):
            return simplify(item)
        if isinstance(item, Graph):
            regions.append(item)
            return RegionRef(len(regions) - 1)
        if isinstance(item, Record):
            return Record(tuple((name, put(part)) for name, part in item.items))
        if isinstance(item, Mapping):
            return Record(tuple((str(name), put(part)) for name, part in item.items()))
        raise RewrightError(
            f"an argument is a {type(item).__name__}, which the IR can't hold",
            hint="pass values, numbers, size expressions, strings, dtypes, and lists of them; "
            "wrap any other object in rewright.ir.attributes.Opaque",
        )

    attributes = Attributes({name: put(item) for name, item in args.items()})
    return tuple(operands), attributes, tuple(regions)


_OPERANDS: Final = tuple(Operand(index) for index in range(256))


def _operand(index: int) -> Operand:
    return _OPERANDS[index] if index < len(_OPERANDS) else Operand(index)
