"""The text of graphs, for people and for :mod:`rewright.ir.parser`.

    graph @block(%x: f16[s0, 128], %n: int(u0)) -> f16[s0, 64]
      where s0 in {1..8..32} = dim(%x, 0),
            u0 in {0..} = %n
      device cuda:0, stage fused
    {
      %qk = rw.linear(%x, @qk.weight) : f16[s0, 128]                     # model.py:41 (attn) by qkv
      %q, %k = aten.split.Tensor(%qk, 64, dim=1) : f16[s0, 64], f16[s0, 64]    # model.py:42 (attn)
      return %q {alias=%x |> aten.slice.Tensor(1, 0, 64)}
      writeback @cache = %k
    }
    constants {
      parameter @q.weight : f16[64, 128]
      parameter @k.weight : f16[64, 128] also @tied.weight
      buffer @cache : f16[s0, 64]
    }
    prepare {
      @qk.weight = aten.cat([@q.weight, @k.weight]) : f16[128, 128]
    }

* Types are stated for every result, so that nothing has to be inferred to read a text.
* Required arguments stand by position, and so do optional ones that are values as long as none is
  left out before; all others stand by name. Arguments at their default are left out.
* Names of values come from their hints, made unique; values without a hint are numbered.
* Each block has its own names: regions and recipes see nothing of the graph around them, except
  that ``@name`` in ``prepare`` is a source or an earlier recipe.

Printing never fails on a graph that is not well formed: a value that does not belong here prints
as ``%<hint>``, which can't be parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final

import attrs
import sympy

from rewright.ir.attributes import Operand, RegionRef, leaves
from rewright.ir.graph import Constant, Graph, Node, ResultSpec, SymbolInfo, Value, ViewStep
from rewright.ir.literals import format_attribute, format_key, format_name
from rewright.ir.ops import REQUIRED, Op, Param
from rewright.ir.sizes import format_expr
from rewright.ir.types import Type

WIDTH: Final = 100
"""A header that is longer gets a line for each input."""

_LAST_COLUMN: Final = 96
"""Locations start at one column, at most this far to the right."""

_STEP: Final = 8
"""That column is a multiple of this, so that few changes move all locations."""


# --------------------------------------------------------------------------- names


@attrs.define
class _Unique:
    """Makes names unique, in order of arrival."""

    taken: set[str] = attrs.field(factory=set)
    counts: dict[str, int] = attrs.field(factory=dict)

    def __call__(self, name: str) -> str:
        if name in self.taken:
            base = re.sub(r"_\d+$", "", name) or name
            while name in self.taken:
                self.counts[base] = self.counts.get(base, 0) + 1
                name = f"{base}_{self.counts[base]}"
        self.taken.add(name)
        return name


def _as_name(hint: str) -> str:
    """`hint` as a name: no punctuation, not a number."""
    name = re.sub(r"\W", "_", hint, flags=re.ASCII)
    if name.isdigit():
        return ""
    return f"_{name}" if name[:1].isdigit() else name


def value_names(graph: Graph) -> dict[Value, str]:
    """The names, with sigil, of the inputs and results of `graph` (not of its regions).

    In a prepare graph, recipes are called by the constant that they give: ``@name``.
    """
    names: dict[Value, str] = {}
    for name, value in zip(graph.prepared_names, graph.outputs, strict=False):
        if not value.is_constant:
            names.setdefault(value, f"@{format_name(name)}")
    unique, unnamed = _Unique(), 0
    results = (value for node in graph for value in node.results)
    for value in (*graph.inputs, *results):
        if value in names:
            continue
        name = _as_name(value.hint)
        if not name:
            name, unnamed = str(unnamed), unnamed + 1
        names[value] = f"%{unique(name)}"
    return names


def region_names(node: Node) -> list[str]:
    """The names, without sigil, of the regions of `node`."""
    unique = _Unique()
    return [unique(region.name) for region in node.regions]


def _name_of(value: Value, names: Mapping[Value, str]) -> str:
    known = names.get(value)
    if known is not None:
        return known
    if isinstance(value, Constant):
        return f"@{format_name(value.name)}"
    return f"%<{value.hint or 'unnamed'}>"


# --------------------------------------------------------------------------- the public functions


def print_graph(graph: Graph, *, locations: bool = True) -> str:
    """The text of `graph`, its constants and its recipes, without the data of tensors.

    Args:
        graph: a whole graph, or a region.
        locations: whether nodes say which line of the user's source they come from.
    """
    printer = _Printer()
    printer.graph(graph, f"graph @{format_name(graph.name)}")
    return printer.text(locations)


def print_node(node: Node, *, location: bool = False, regions: bool = False) -> str:
    """The line of one node, named as in its graph (a new hint shows after the next change of it).

    Args:
        node: a node; of one that is in no graph, the operands are not known by name.
        location: whether to add the user's source line.
        regions: whether its regions follow on lines of their own.
    """
    names = node.graph.analysis(value_names) if node.is_attached else {}
    printer = _Printer()
    if node.is_terminator:
        printer.ending(node.graph, names, "")
    else:
        printer.node(node, names, "", regions)
    return printer.text(location)


def print_excerpt(node: Node, *, around: int = 4) -> str:
    """The lines around `node` in its graph, with an arrow at its own."""
    names = node.graph.analysis(value_names)
    nodes = [*node.graph, node.graph.terminator]
    at = len(nodes) - 1 if node.is_terminator else node.graph.positions()[node]
    printer = _Printer()
    for other in nodes[max(at - around, 0) : at + around + 1]:
        margin = "-> " if other is node else "   "
        if other.is_terminator:
            printer.ending(node.graph, names, margin)
        else:
            printer.node(other, names, margin, regions=False)
    return printer.text(locations=True)


# --------------------------------------------------------------------------- lines


@attrs.define
class _Printer:
    """Collects lines; each is a text and a location."""

    lines: list[tuple[str, str]] = attrs.field(factory=list)

    def add(self, text: str, location: object = "") -> None:
        self.lines.append((text, str(location or "")))

    def text(self, locations: bool) -> str:
        """The lines, the locations among them starting at one column."""
        if not locations:
            return "\n".join(text for text, _ in self.lines)
        widths = [len(text) for text, location in self.lines if location]
        widest = max((width for width in widths if width <= _LAST_COLUMN - 2), default=0)
        step = _STEP if len(widths) > 1 else 1
        column = -(-(widest + 2) // step) * step
        return "\n".join(
            f"{f'{text}  '.ljust(column)}# {location}" if location else text
            for text, location in self.lines
        )

    # -- graphs and regions

    def graph(self, graph: Graph, head: str, margin: str = "", outer: Graph | None = None) -> None:
        """A graph with its constants and recipes, or a region of the graph `outer`."""
        names = value_names(graph)
        self.header(graph, head, names, margin, outer)
        for node in graph:
            self.node(node, names, f"{margin}  ", regions=True)
        self.ending(graph, names, f"{margin}  ")
        self.add(f"{margin}}}")
        self.constants(graph, margin)
        self.recipes(graph, margin)

    def header(
        self, graph: Graph, head: str, names: Mapping[Value, str], margin: str, outer: Graph | None
    ) -> None:
        inputs = [f"{names[value]}: {value.type}" for value in graph.inputs]
        returned = f") -> {_format_types([value.type for value in graph.outputs])}"
        clauses = [*_symbol_clauses(graph.symbols, names), *_place_clause(graph, outer)]
        line = f"{margin}{head}({', '.join(inputs)}{returned}"
        if len(line) + 2 > WIDTH and inputs:
            self.add(f"{margin}{head}(")
            for item in inputs:
                self.add(f"{margin}  {item},")
            line = f"{margin}{returned}"
        if not clauses:
            self.add(f"{line} {{")
            return
        self.add(line)
        for clause in clauses:
            self.add(f"{margin}  {clause}")
        self.add(f"{margin}{{")

    def node(self, node: Node, names: Mapping[Value, str], margin: str, regions: bool) -> None:
        """The line of a node and, where asked for, its regions."""
        inner = region_names(node) if node.regions else []
        self.add(margin + _format_node(node, names, inner), node.loc)
        if regions:
            for region, name in zip(node.regions, inner, strict=True):
                head = f"region ^{format_name(name)}"
                self.graph(region, head, f"{margin}  ", outer=node.graph)

    def ending(self, graph: Graph, names: Mapping[Value, str], margin: str) -> None:
        """What a graph returns and writes back."""
        specs = chain(graph.results, repeat(ResultSpec()))
        outputs = [
            f"{_name_of(value, names)}{_format_spec(spec, names)}"
            for value, spec in zip(graph.outputs, specs, strict=False)
        ]
        line = f"{margin}return {', '.join(outputs)}".rstrip()
        self.add(line, graph.terminator.loc)
        written = graph.terminator.operands[len(graph.outputs) :]
        for target, value in zip(graph.targets, written, strict=False):
            self.add(f"{margin}writeback {_name_of(target, names)} = {_name_of(value, names)}")

    # -- constants and recipes

    def constants(self, graph: Graph, margin: str) -> None:
        """The declarations of the sources."""
        sources = [constant for constant in graph.constants.values() if constant.is_source]
        if not sources:
            return
        self.add(f"{margin}constants {{")
        for source in sources:
            names = ", ".join(f"@{format_name(alias)}" for alias in source.aliases)
            also = f" also {names}" if names else ""
            self.add(f"{margin}  {source.kind} @{format_name(source.name)} : {source.type}{also}")
        self.add(f"{margin}}}")

    def recipes(self, graph: Graph, margin: str) -> None:
        """The recipes, in their order; what has two names gets the second on its own line."""
        if not graph.has_recipes:
            return
        prepare = graph.prepare
        names = value_names(prepare)
        recipes = dict(zip(prepare.prepared_names, prepare.outputs, strict=False))
        others: dict[Value, list[str]] = {}
        for name, value in recipes.items():
            root = _root(value, recipes)
            if names.get(root) != f"@{format_name(name)}":
                others.setdefault(root, []).append(name)

        def rename(values: Iterable[Value]) -> None:
            for value in values:
                for name in others.get(value, ()):
                    self.add(f"{margin}  @{format_name(name)} = {_name_of(value, names)}")

        self.add(f"{margin}prepare {{")
        rename(value for value in others if value.is_constant)
        for node in prepare:
            self.node(node, names, f"{margin}  ", regions=True)
            rename(node.results)
        self.add(f"{margin}}}")


def _root(value: Value, recipes: Mapping[str, Value]) -> Value:
    """The source or node's result that a chain of prepared constants ends in."""
    for _ in recipes:  # no longer, should the chain be a circle
        if isinstance(value, Constant):
            value = recipes.get(value.name, value)
    return value


# --------------------------------------------------------------------------- parts of a header


def _format_types(types: Sequence[Type]) -> str:
    return str(types[0]) if len(types) == 1 else f"({', '.join(map(str, types))})"


def _symbol_clauses(
    symbols: Mapping[sympy.Symbol, SymbolInfo], names: Mapping[Value, str]
) -> list[str]:
    """``where s0 in {1..32} = dim(%x, 0)``, a line for each symbol."""
    lines = []
    for at, (symbol, info) in enumerate(symbols.items()):
        ranges = ", ".join(map(str, info.ranges))
        equation = info.equation
        given = "" if equation in (symbol, None) else f" with {format_expr(equation)}"
        place = _name_of(info.binding, names)
        place = place if info.dim is None else f"dim({place}, {info.dim})"
        start = "      " if at else "where "
        end = "," if at + 1 < len(symbols) else ""
        lines.append(f"{start}{symbol} in {{{ranges}}}{given} = {place}{end}")
    return lines


def _place_clause(graph: Graph, outer: Graph | None) -> list[str]:
    """``device cuda:0, stage fused``, as far as they differ from those around it."""
    usual = outer or Graph()
    parts = [
        f"{name} {text}"
        for name, text, default in (
            ("device", graph.device, usual.device),
            ("stage", format_key(graph.stage), format_key(usual.stage)),
        )
        if text != default
    ]
    return [", ".join(parts)] if parts else []


# --------------------------------------------------------------------------- parts of a body


def _format_node(node: Node, names: Mapping[Value, str], regions: Sequence[str]) -> str:
    def show(leaf: Any) -> str:
        if isinstance(leaf, Operand) and leaf.index < len(node.operands):
            return _name_of(node.operands[leaf.index], names)
        if isinstance(leaf, RegionRef) and leaf.index < len(regions):
            return f"^{format_name(regions[leaf.index])}"
        return f"<{leaf}>"

    call = f"{node.op.name}({_format_arguments(node.op, node.op.params, node.attributes, show)})"
    if not node.results:
        return call
    results = ", ".join(_name_of(value, names) for value in node.results)
    return f"{results} = {call} : {', '.join(str(value.type) for value in node.results)}"


def _format_arguments(
    op: Op, params: Iterable[Param], attributes: Mapping[str, Any], show: Any
) -> str:
    left = dict(attributes)
    parts: list[str] = []
    positional = True
    for param in params:
        if param.name not in left:
            positional = False
            continue
        value = left.pop(param.name)
        by_place = param.default is REQUIRED or _holds_operand(value)
        positional = positional and by_place and not param.keyword_only
        text = format_attribute(value, show)
        parts.append(text if positional else f"{format_key(param.name)}={text}")
    for name, value in left.items():  # only a variadic op has more
        positional = positional and op.variadic and name == f"arg{len(parts)}"
        text = format_attribute(value, show)
        parts.append(text if positional else f"{format_key(name)}={text}")
    return ", ".join(parts)


def _holds_operand(attribute: Any) -> bool:
    return any(isinstance(leaf, Operand | RegionRef) for leaf in leaves(attribute))


def _format_spec(spec: ResultSpec, names: Mapping[Value, str]) -> str:
    """`` {strides=[1, s0], alias=%x |> aten.t()}``; nothing where there is nothing to say."""
    parts = []
    if spec.strides is not None:
        parts.append(f"strides={format_attribute(spec.strides)}")
    if spec.alias is not None:
        base = spec.alias
        start = f"output({base})" if isinstance(base, int) else _name_of(base, names)
        parts.append(f"alias={' |> '.join([start, *map(_format_view, spec.views)])}")
    if spec.shares is not None:
        parts.append(f"shares=output({spec.shares})")
    return f" {{{', '.join(parts)}}}" if parts else ""


def _format_view(step: ViewStep) -> str:
    arguments = _format_arguments(step.op, step.op.params[1:], step.attributes, str)
    pick = f"[{step.pick}]" if step.pick else ""
    return f"{step.op.name}({arguments}){pick}"
