"""What a graph computes, as a text without the names that it happens to have.

    graph cuda:0 "fused"
      %0: f16[s0, 128]
      rw.linear(input=%0, weight=@0) -> %1: f16[s0, 64]
      return %1
      s0 in 1..8..32: s0 = (%0, 0)
    aten.cat.default(tensors=[@1, @2]) -> %2: f16[64, 128]
    @0: f16[64, 128] = %2
    @1: f16[32, 128]
    @2: f16[32, 128]

Two graphs have the same text exactly if they have the same ops, wiring, attributes, types, ranges,
recipes and ending, whatever their values, constants, symbols, regions and source lines are called.
It is for keys, and can't be read back. The contents of constants are not in it:
:class:`Canonical` lists the constants in the order of their numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import attrs
import sympy

from rewright.errors import UnsupportedError, VerificationError
from rewright.ir.attributes import (
    LEAVES,
    Attributes,
    Opaque,
    Operand,
    RegionRef,
    leaves,
    map_leaves,
)
from rewright.ir.graph import Constant, Graph, Node, ResultSpec, Value
from rewright.ir.literals import format_attribute, format_key, format_string
from rewright.ir.sizes import format_expr, free_symbols, substitute, symbol
from rewright.ir.types import Type, substitute_type, type_symbols

_LETTERS: Final = "suf"


@attrs.frozen
class Canonical:
    """The canonical form of a graph.

    Attributes:
        text: what it computes.
        constants: the constants that the text mentions, in the order of their numbers. Those that
            it gives a recipe for have their contents from it.
        given: those of them whose contents must be known besides.
    """

    text: str
    constants: tuple[Constant, ...]
    given: tuple[Constant, ...]


def canonical(graph: Graph, *, recipes: bool = True) -> Canonical:
    """The canonical form of `graph`.

    Args:
        graph: a whole graph.
        recipes: whether prepared constants are what their recipes say; otherwise they are given
            like sources.

    Raises:
        UnsupportedError: it holds a Python object, which has no text that tells it from others.
        VerificationError: it is not well formed.
    """
    writer = _Writer(graph, recipes)
    writer.block(graph, "")
    writer.recipes_and_constants()
    constants = tuple(writer.constants)
    given = tuple(c for c in constants if not writer.has_recipe(c))
    return Canonical("\n".join(writer.lines), constants, given)


@attrs.define(eq=False)
class _Writer:
    """Numbers values, constants and symbols as they come."""

    graph: Graph
    recipes: bool
    lines: list[str] = attrs.field(factory=list)
    values: dict[Value, str] = attrs.field(factory=dict)
    constants: dict[Constant, str] = attrs.field(factory=dict)
    symbols: dict[sympy.Symbol, sympy.Symbol] = attrs.field(factory=dict)
    types: dict[Type, str] = attrs.field(factory=dict)
    letters: Counter[str] = attrs.field(factory=Counter)

    # -- names

    def define(self, value: Value) -> str:
        """The number of a value that comes now."""
        name = self.values[value] = f"%{len(self.values)}"
        return name

    def name(self, value: Value) -> str:
        """The number of a value that was there before, or of a constant."""
        if isinstance(value, Constant):
            return self.constants.setdefault(value, f"@{len(self.constants)}")
        known = self.values.get(value)
        if known is None:
            raise VerificationError(f"{value!r} is used before it is there")
        return known

    def meet(self, found: Iterable[sympy.Symbol]) -> None:
        """Numbers new symbols."""
        for old in found:
            if old not in self.symbols:
                letter = old.name[0] if old.name[0] in _LETTERS else _LETTERS[0]
                self.symbols[old] = symbol(f"{letter}{self.letters[letter]}")
                self.letters[letter] += 1

    # -- parts

    def type(self, value_type: Type) -> str:
        """The text of a type."""
        known = self.types.get(value_type)
        if known is None:
            self.meet(_in_order(type_symbols(value_type)))
            known = self.types[value_type] = str(substitute_type(value_type, self.symbols))
        return known

    def expression(self, leaf: Any) -> Any:
        """A size with its symbols numbered."""
        self.meet(_in_order(free_symbols([leaf])))
        return substitute(leaf, self.symbols)

    def attribute(self, attribute: Any, node: Node | None) -> str:
        """The text of an attribute; operands and regions are those of `node`."""
        for leaf in leaves(attribute):
            if isinstance(leaf, Opaque) or not isinstance(leaf, LEAVES):
                raise UnsupportedError(
                    f"a {type(leaf).__name__} among the attributes has no text",
                    op=node.op.name if node else None,
                    where=node.loc if node else None,
                )

        def show(leaf: Any) -> str:
            if isinstance(leaf, RegionRef):
                return f"^{leaf.index}"
            assert isinstance(leaf, Operand)
            assert node is not None
            return self.name(node.operands[leaf.index])

        return format_attribute(map_leaves(attribute, self.expression), show)

    def arguments(self, attributes: Attributes, node: Node | None = None) -> str:
        """The text of attributes, by name."""
        return ", ".join(
            f"{format_key(name)}={self.attribute(item, node)}" for name, item in attributes.items()
        )

    # -- graphs

    def block(self, graph: Graph, margin: str) -> None:
        """A graph or a region."""
        self.lines.append(f"{margin}graph {graph.device} {format_string(graph.stage)}")
        inner = f"{margin}  "
        self.meet(graph.symbols)
        for value in graph.inputs:
            self.lines.append(f"{inner}{self.define(value)}: {self.type(value.type)}")
        for node in graph:
            self.node(node, inner)
        self.ending(graph, inner)

    def node(self, node: Node, margin: str) -> None:
        """A node and its regions."""
        call = f"{node.op.name}({self.arguments(node.attributes, node)})"
        results = ", ".join(
            f"{self.define(value)}: {self.type(value.type)}" for value in node.results
        )
        self.lines.append(f"{margin}{call} -> {results}")
        for region in node.regions:
            self.block(region, f"{margin}  ")

    def ending(self, graph: Graph, margin: str) -> None:
        """What a graph returns and writes back, and what its symbols are."""
        for value, spec in zip(graph.outputs, graph.results, strict=True):
            self.lines.append(f"{margin}return {self.name(value)}{self.spec(spec)}")
        for target, value in graph.writebacks:
            self.lines.append(f"{margin}writeback {self.name(target)} = {self.name(value)}")
        for item, info in graph.symbols.items():
            ranges = ", ".join(map(str, info.ranges))
            place = f"{self.name(info.binding)}, {info.dim}"
            equation = info.equation
            stated = None if equation is None else format_expr(self.expression(equation))
            self.lines.append(f"{margin}{self.symbols[item]} in {ranges}: {stated} = ({place})")

    def spec(self, spec: ResultSpec) -> str:
        """What a caller gets beyond the numbers of an output."""
        if spec == ResultSpec():
            return ""
        strides = None if spec.strides is None else self.attribute(spec.strides, None)
        alias = self.name(spec.alias) if isinstance(spec.alias, Value) else spec.alias
        views = [f"{v.op.name}({self.arguments(v.attributes)})[{v.pick}]" for v in spec.views]
        return f" strides {strides} alias {alias} |> {' |> '.join(views)} shares {spec.shares}"

    # -- constants

    def has_recipe(self, constant: Constant) -> bool:
        """Whether the text gives the recipe of a constant."""
        return self.recipes and not constant.is_source and constant.graph is self.graph

    def recipes_and_constants(self) -> None:
        """The recipes of the constants that were mentioned, then all constants."""
        for node in self.needed():
            self.node(node, "")
        done = 0
        while done < len(self.constants):  # a recipe may mention constants that are new
            constant = [*self.constants][done]
            recipe = f" = {self.name(self.recipe(constant))}" if self.has_recipe(constant) else ""
            self.lines.append(f"@{done}: {self.type(constant.type)}{recipe}")
            done += 1

    def recipe(self, constant: Constant) -> Value:
        """The value of the prepare graph that gives a constant."""
        return self.graph.recipe(constant)

    def needed(self) -> list[Node]:
        """The nodes of the recipes of the constants that were mentioned, in order."""
        pending: list[Value] = [*self.constants]
        seen: set[Value] = set()
        nodes: set[Node] = set()
        while pending:
            value = pending.pop()
            if value in seen:
                continue
            seen.add(value)
            if isinstance(value, Constant):
                if self.has_recipe(value):
                    pending.append(self.recipe(value))
            elif value.producer is not None and value.producer not in nodes:
                nodes.add(value.producer)
                pending += value.producer.operands
        return [node for node in self.graph.prepare if node in nodes] if nodes else []


def _in_order(found: Iterable[sympy.Symbol]) -> list[sympy.Symbol]:
    return sorted(found, key=lambda item: (item.name, sympy.default_sort_key(item)))
