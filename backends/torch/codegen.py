"""A graph as straight-line Python that a person can read.

    def forward(x, mask):
        s0 = x.shape[0]

        # layers.0.attn
        q = _nn.linear(x, q_weight, q_bias)                         # model.py:41
        scores = torch.matmul(q, k)                                 # model.py:43
        del q, k

Every node is one statement; values keep the names that the graph hints at, and are let go after
their last use. Branches and loops are Python's own; other regions become nested functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from keyword import iskeyword
from typing import Any, Final

import attrs
import sympy
import torch

from rewright.backends.torch.calls import Argument, binding_of
from rewright.backends.torch.implementations import implementation_of
from rewright.backends.torch.liveness import Plan, plan
from rewright.backends.torch.source import Module, Names, literal, targets, tuple_of
from rewright.backends.torch.symbols import in_order, solution, typical, typical_size
from rewright.ir.attributes import Operand, Record, RegionRef
from rewright.ir.calls import returns_bare
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.in_place import InPlace, in_place
from rewright.ir.location import Location
from rewright.ir.memory import memory_of
from rewright.ir.ops import SCALAR, SEGMENT, Op, call_args
from rewright.ir.sizes import evaluate, format_expr
from rewright.ir.types import ScalarType, TensorType, Type

_LOCATION_COLUMN = 72
_TO_THE_END = 2**63 - 1


@attrs.define(eq=False)
class Scope:
    """What generated code can see: the names of a graph's values and sizes.

    Attributes:
        graph: the graph.
        names: of the values that are there.
        wanted: names that values are to have once they are made.
        symbols: names of the sizes that are there.
        sizes: typical sizes, for samples.
    """

    graph: Graph
    names: dict[Value, str] = attrs.field(factory=dict)
    wanted: dict[Value, str] = attrs.field(factory=dict)
    symbols: dict[sympy.Symbol, str] = attrs.field(factory=dict)
    sizes: dict[sympy.Symbol, int] = attrs.field(init=False)

    @sizes.default
    def _typical(self) -> dict[sympy.Symbol, int]:
        return typical(self.graph)


@attrs.define(eq=False)
class Writer:
    """Writes the statements of one function.

    Attributes:
        module: what it is written to.
        names: the function's local names.
        attached: what runs a segment that another backend made something of, by name.
    """

    module: Module
    names: Names = attrs.field(factory=Names)
    attached: dict[Node, str] = attrs.field(factory=dict)
    _place: Location = attrs.field(factory=Location, init=False)
    _samples: dict[Any, Any] = attrs.field(factory=dict, init=False)

    # -- graphs

    def graph(self, scope: Scope, what: Plan) -> None:
        """The statements of a graph whose inputs and constants have their names in `scope`."""
        given = self.bind_inputs(scope, what.symbols)
        for node in what.nodes:
            self._locate(node.loc)
            self._node(scope, node)
            for value in node.results:
                for symbol in given.get(value, ()):
                    self._bind_size(scope, symbol)
            gone = [name for value in what.freed[node] if _is_name(name := scope.names[value])]
            if gone:
                self.module.line(f"del {', '.join(gone)}")

    def bind_inputs(
        self, scope: Scope, symbols: Collection[sympy.Symbol]
    ) -> dict[Value, list[sympy.Symbol]]:
        """Assigns those of `symbols` that inputs give; returns which values give the others."""
        given: dict[Value, list[sympy.Symbol]] = {}
        for symbol in in_order(scope.graph, symbols):
            binding = scope.graph.symbols[symbol].binding
            if binding in scope.names:
                self._bind_size(scope, symbol)
            else:
                given.setdefault(binding, []).append(symbol)
        return given

    def _bind_size(self, scope: Scope, symbol: sympy.Symbol) -> None:
        """Assigns a size, from the value that gives it."""
        info = scope.graph.symbols[symbol]
        held = scope.names[info.binding]
        size = held if info.dim is None else f"{held}.shape[{info.dim}]"
        text = solution(info, symbol, size, scope.symbols)
        name = scope.symbols[symbol] = self.names.unique(symbol.name)
        self.module.line(f"{name} = {text}")

    def function(self, graph: Graph, name: str, bare: bool = False) -> None:
        """A function that computes `graph` (a region).

        Args:
            graph: the region.
            name: of the function.
            bare: whether it returns its one result by itself; otherwise a tuple.
        """
        inner = Writer(self.module, self.names)
        scope = Scope(graph)
        for value in graph.inputs:
            scope.names[value] = self.names.unique(value.hint or "value")
        parameters = ", ".join(scope.names[value] for value in graph.inputs)
        with self.module.block(f"def {name}({parameters}):"):
            inner.graph(scope, plan(graph))
            results = [scope.names[value] for value in graph.terminator.operands]
            self.module.line(f"return {results[0] if bare else tuple_of(results)}")

    def heading(self, text: str) -> None:
        """A comment that begins a paragraph."""
        self.module.line()
        self.module.line(f"# {_on_one_line(text)}")

    def _locate(self, loc: Location | None) -> None:
        """A heading where another module of the user's begins."""
        module = loc.module if loc else ""
        if module != self._place.module:
            self.heading(module or "(no module)")
            self._place = Location(module=module)

    def statement(self, text: str, loc: Location | None) -> None:
        """One statement, with the user's line where it is another than before."""
        if loc and loc.file and (loc.file, loc.line) != (self._place.file, self._place.line):
            self._place = attrs.evolve(loc)
            text = f"{text.ljust(_LOCATION_COLUMN)}  # {_on_one_line(loc.file)}:{loc.line}"
        self.module.line(text)

    # -- nodes

    def _node(self, scope: Scope, node: Node) -> None:
        special = _SPECIAL.get(node.op.name)
        if special is not None:
            special(self, scope, node)
        elif (form := in_place(node.op)) is not None:
            _write(self, scope, node, form)
        else:
            self._assign(scope, node, self._call(scope, node))

    def _assign(self, scope: Scope, node: Node, text: str) -> None:
        names = self.results(scope, node)
        if node.op.results == 1:
            text = f"{names[0]} = {text}"
        elif names:
            text = f"{targets(names)} = {text if _returns_flat(node.op) else f'flat({text})'}"
        self.statement(text, node.loc)

    def results(self, scope: Scope, node: Node) -> list[str]:
        """Names for the results of `node`."""
        form = in_place(node.op)
        base = (form.pure if form else node.op).name.split(".")[1]
        for value in node.results:
            wanted = scope.wanted.get(value)
            scope.names[value] = wanted or self.names.unique(value.hint or base)
        return [scope.names[value] for value in node.results]

    def _call(self, scope: Scope, node: Node) -> str:
        """The expression that computes `node`."""
        functions = [self.names.unique(f"{node.op.name.split('.')[-1]}_body") for _ in node.regions]
        for number, (region, name) in enumerate(zip(node.regions, functions, strict=True)):
            self.function(region, name, returns_bare(node.op, number))
        slots = count()

        def of(leaf: Any) -> Argument:
            if isinstance(leaf, RegionRef):
                return Argument(functions[leaf.index], None)
            return self.leaf(scope, node, leaf, next(slots))

        named = {name: self._argument(value, of) for name, value in node.attributes.items()}
        if node.op.name == "aten.slice.Tensor" and (sliced := _subscript(node, named)):
            return sliced
        return self.call(node.op, named, node)

    def arguments(self, scope: Scope, node: Node) -> dict[str, Argument]:
        """The arguments of a node without regions, by name."""
        slots = count()
        return {
            name: self._argument(value, lambda leaf: self.leaf(scope, node, leaf, next(slots)))
            for name, value in node.attributes.items()
        }

    def call(self, op: Op, named: Mapping[str, Argument], node: Node | None = None) -> str:
        """The expression that computes `op` on arguments by name."""
        args, kwargs = call_args(op, named)
        binding = binding_of(op, args, kwargs)
        if binding is not None:
            return binding.call(args, kwargs)
        texts = [item.text for item in args] + [f"{n}={item.text}" for n, item in kwargs.items()]
        implementation = implementation_of(op, node, "eager", self.module.without)
        short = op.name.removeprefix("aten.")
        if implementation is None:
            function = self.module.define(short, f"operator({op.name!r})")
        else:
            function = self.module.define(short, f"implementation({implementation.name!r})")
        return f"{function}({', '.join(texts)})"

    # -- arguments

    def _argument(self, attribute: Any, of: Any) -> Argument:
        """An attribute, `of` giving what its leaves are."""
        if isinstance(attribute, tuple):
            parts = [self._argument(item, of) for item in attribute]
            texts = tuple(part.text for part in parts)
            return Argument(tuple_of(texts), tuple(part.sample for part in parts), texts)
        if isinstance(attribute, Record):
            items = [(name, self._argument(item, of)) for name, item in attribute.items]
            text = ", ".join(f"{name!r}: {item.text}" for name, item in items)
            return Argument(f"{{{text}}}", {name: item.sample for name, item in items})
        return of(attribute)

    def leaf(self, scope: Scope, node: Node, leaf: Any, slot: int = 0) -> Argument:
        if isinstance(leaf, Operand):
            value = node.operands[leaf.index]
            return Argument(scope.names[value], self.sample(scope, value.type, slot))
        return self.constant(scope, leaf)

    def constant(self, scope: Scope, attribute: Any) -> Argument:
        """An attribute that holds no operand."""

        def of(leaf: Any) -> Argument:
            text = literal(leaf, self.module, scope.symbols)
            is_size = isinstance(leaf, sympy.Basic)
            return Argument(text, evaluate(leaf, scope.sizes) if is_size else leaf)

        return self._argument(attribute, of)

    def sample(self, scope: Scope, value_type: Type, slot: int) -> Any:
        """Something of the type: a meta tensor or a number; another one for another `slot`."""
        match value_type:
            case TensorType():
                shape = tuple(typical_size(dim, scope.sizes) for dim in value_type.shape)
                key = (value_type.dtype, shape, slot)
                if key not in self._samples:
                    made = torch.empty(shape, dtype=value_type.dtype, device="meta")
                    self._samples[key] = made
                return self._samples[key]
            case ScalarType():
                return {"int": 2, "float": 2.0, "bool": True}[value_type.kind]
        return None


def _returns_flat(op: Op) -> bool:
    """Whether what torch returns for `op` are its results: a tuple, or one list."""
    return op.results is not None or (op.is_torch and len(op.target._schema.returns) == 1)


def _is_name(text: str) -> bool:
    """Whether `text` is a variable, and not the text of a number."""
    return text.isidentifier() and not iskeyword(text)


def _subscript(node: Node, named: Mapping[str, Argument]) -> str | None:
    """A slice as Python writes it, ``x[:, 2:4]``."""
    value_type = node.operands[0].type
    dim = node.attributes.get("dim", 0)
    if not isinstance(value_type, TensorType) or not isinstance(dim, int):
        return None
    given = [node.attributes.get(name) for name in ("start", "end", "step")]
    start, end, step = (
        "" if value in (None, skipped) else named[name].text
        for name, value, skipped in zip(
            ("start", "end", "step"), given, (0, _TO_THE_END, 1), strict=True
        )
    )
    before = ":, " * (dim % value_type.rank)
    return f"{named['self'].text}[{before}{start}:{end}{':' + step if step else ''}]"


# --------------------------------------------------------------------------- in place


def _write(writer: Writer, scope: Scope, node: Node, form: InPlace) -> None:
    """A node whose result takes the memory of an operand."""
    named = writer.arguments(scope, node)
    taken = {result: scope.names[operand] for result, operand in form.taken(node)}
    if form.by is not None and form.by.results == 1 and len(taken) == 1:
        text = writer.call(form.by, named)
        writer.statement(f"{writer.results(scope, node)[0]} = {text}", node.loc)
        return
    if form.by is not None:
        writer.statement(writer.call(form.by, named), node.loc)
    elif form.view is not None and not memory_of(node.graph).is_settled(node):
        rest = {name: item for name, item in named.items() if name != "src"}
        sliced = _subscript(node, rest) if form.view.name == "aten.slice.Tensor" else None
        view = sliced or writer.call(form.view, rest)
        writer.statement(f"{view}.copy_({named['src'].text})", node.loc)
    for name, held in zip(writer.results(scope, node), taken.values(), strict=True):
        writer.module.line(f"{name} = {held}")


# --------------------------------------------------------------------------- control flow


def _scalar(writer: Writer, scope: Scope, node: Node) -> None:
    """A number, a size or None: written where it is used."""
    value = node.attributes.get("value")
    scope.names[node.result] = writer.constant(scope, value).text


def _texts(scope: Scope, node: Node, writer: Writer, name: str) -> list[str]:
    """The elements of a list argument."""
    parts = node.attributes.get(name, ())
    return [writer.leaf(scope, node, part).text for part in parts]


def _branch(
    writer: Writer, region: Graph, given: Sequence[str], names: Sequence[str], anew: bool = True
) -> None:
    """The statements of a region in place.

    Args:
        writer: writes them.
        region: the region.
        given: what its inputs are called.
        names: what its outputs shall be called.
        anew: whether nothing has these names yet, so that values may have them from the start.
    """
    before = len(writer.module)
    inner = Scope(region, dict(zip(region.inputs, given, strict=True)))
    ends = region.terminator.operands
    if anew:
        made_here = {v: n for v, n in zip(ends, names, strict=True) if v.producer}
        inner.wanted = {value: name for value, name in made_here.items() if ends.count(value) == 1}
    writer.graph(inner, plan(region))
    pairs = [(n, inner.names[v]) for n, v in zip(names, ends, strict=True)]
    pairs = [(name, made) for name, made in pairs if name != made]
    if pairs:
        left, right = zip(*pairs, strict=True)
        writer.module.line(f"{', '.join(left)} = {', '.join(right)}")
    own = {inner.names[v]: None for v in ends if v.producer and v not in inner.wanted}
    if gone := [name for name in own if _is_name(name)]:
        writer.module.line(f"del {', '.join(gone)}")
    if len(writer.module) == before:
        writer.module.line("pass")


def _cond(writer: Writer, scope: Scope, node: Node) -> None:
    """``if`` and ``else``."""
    given = _texts(scope, node, writer, "operands")
    test = writer.leaf(scope, node, node.attributes["pred"]).text
    names = writer.results(scope, node)
    for head, which in ((f"if {test}:", "true_fn"), ("else:", "false_fn")):
        with writer.module.block(head):
            _branch(writer, node.resolve(node.attributes[which]), given, names)


def _while(writer: Writer, scope: Scope, node: Node) -> None:
    """``while``, its condition computed at the top of the body."""
    start = _texts(scope, node, writer, "carried_inputs")
    given = _texts(scope, node, writer, "additional_inputs")
    names = writer.results(scope, node)
    goes_on = writer.names.unique("goes_on")
    test, body = (node.resolve(node.attributes[name]) for name in ("cond_fn", "body_fn"))
    writer.module.line(f"{', '.join(names)} = {', '.join(start)}")
    with writer.module.block("while True:"):
        _branch(writer, test, [*names, *given], [goes_on])
        with writer.module.block(f"if not {goes_on}:"):
            writer.module.line("break")
        _branch(writer, body, [*names, *given], names, anew=False)


_TORCHS_WORDS: Final = "Runtime assertion failed for expression"
"""How torch begins the message of a check whose author gave none."""


def _check(writer: Writer, scope: Scope, node: Node) -> None:
    """``if not ...: check_failed(...)``, which costs less than the operator, and says where."""
    condition, message = node.attributes["self"], str(node.attributes["assert_msg"])
    test = writer.leaf(scope, node, condition).text
    stated = format_expr(condition) if isinstance(condition, sympy.Basic) else "its condition"
    own = "" if message.startswith(_TORCHS_WORDS) else message
    given = [repr(text) for text in (own, stated, str(node.loc or ""))]
    sizes = sorted(condition.free_symbols, key=str) if isinstance(condition, sympy.Basic) else ()
    given += [f"{symbol.name}={scope.symbols[symbol]}" for symbol in sizes]
    with writer.module.block(f"if not {test}:"):
        writer.module.line(f"check_failed({', '.join(given)})")


def _segment(writer: Writer, scope: Scope, node: Node) -> None:
    """A function of its own, or what another backend made of it."""
    name = writer.attached.get(node)
    if name is None:
        name = writer.names.unique(f"{node.attributes['backend']}_segment")
        writer.function(node.resolve(node.attributes["body"]), name)
    given = ", ".join(_texts(scope, node, writer, "operands"))
    names = writer.results(scope, node)
    writer.module.line(f"{targets(names)} = {name}({given})" if names else f"{name}({given})")


_SPECIAL: Mapping[str, Callable[[Writer, Scope, Node], None]] = {
    SCALAR.name: _scalar,
    SEGMENT.name: _segment,
    "aten._assert_scalar": _check,
    "higher_order.cond": _cond,
    "higher_order.while_loop": _while,
}
"""Ops that become statements of their own kind."""


def _on_one_line(text: str) -> str:
    """`text` for a comment: what follows a line break would be code, whoever wrote it."""
    return " ".join(text.splitlines())
