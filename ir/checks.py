"""What must hold of a well-formed graph, as a table of small checks.

A check is a function of a :class:`Scope` (one graph: the program's, its recipes, or a region)
that yields the faults it finds. All are linear in the size of the graph. The rows of
:data:`CHECKS` come in an order in which each may rely on those before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import attrs
import sympy

from rewright.errors import InferenceError
from rewright.ir.attributes import Attributes, Operand, RegionRef, leaves
from rewright.ir.builder import solvable
from rewright.ir.graph import Constant, Graph, Node, Use, Value
from rewright.ir.in_place import in_place
from rewright.ir.memory import Memory
from rewright.ir.ops import REQUIRED, RETURN, Trait
from rewright.ir.param_kinds import accepts
from rewright.ir.region_types import has_region_rule, region_types
from rewright.ir.sizes import Ranges, free_symbols, same_shape
from rewright.ir.types import TensorType, Type, type_symbols


@attrs.frozen
class Fault:
    """One thing that is wrong.

    Attributes:
        check: the name of the check that found it.
        message: what is wrong.
        graph: where.
        node: at which node, if at one.
    """

    check: str
    message: str
    graph: Graph
    node: Node | None = None


Finding: TypeAlias = "tuple[str, Node | None]"
Check: TypeAlias = "Callable[[Scope], Iterator[Finding]]"


class Scope:
    """One graph under check: its nodes, each with its number, and what may be used in it."""

    def __init__(self, graph: Graph, main: Graph, role: str) -> None:
        self.graph = graph
        self.main = main
        self.role = role
        """``main``, ``prepare`` or ``region``."""
        self.nodes = [*_linked(graph), graph.terminator]
        self.position = {node: index for index, node in enumerate(self.nodes)}

    @property
    def ranges(self) -> Ranges:
        """What is known of the graph's symbols."""
        return {symbol: info.ranges for symbol, info in self.graph.symbols.items()}

    def is_here(self, value: Value) -> bool:
        """Whether `value` is an input of the graph or a result of one of its nodes."""
        if isinstance(value, Constant):
            return False
        if isinstance(value.owner, Node):
            return value.owner in self.position
        return self.is_input(value)

    def is_input(self, value: Value) -> bool:
        """Whether `value` is an input of the graph."""
        inputs = self.graph.inputs
        return value.index < len(inputs) and inputs[value.index] is value

    def is_usable_constant(self, value: Value) -> bool:
        """Whether `value` is a constant that nodes here may use."""
        if not isinstance(value, Constant) or self.role == "region":
            return False
        known = self.main.constants.get(value.name) is value
        return known and (self.role == "main" or value.is_source)


def _linked(graph: Graph) -> Iterator[Node]:
    """The nodes of `graph` as they are linked, but no more than it counts."""
    node = graph.terminator._next
    for _ in range(len(graph)):
        if node is None or node is graph.terminator:
            return
        yield node
        node = node._next


# --------------------------------------------------------------------------- structure


def check_links(scope: Scope) -> Iterator[Finding]:
    """Nodes are linked both ways, know their graph, and are as many as it says."""
    graph, node, count = scope.graph, scope.graph.terminator, 0
    while count <= len(graph):
        following = node._next
        if following is None or following._prev is not node or following._graph is not graph:
            yield f"the list of nodes is broken after {node.op.name}", node
            return
        if following is graph.terminator:
            break
        node, count = following, count + 1
    if count != len(graph):
        yield f"the graph has {count} nodes, but counts {len(graph)}", None


def check_uses(scope: Scope) -> Iterator[Finding]:
    """A value's uses are exactly the places where it is an operand."""
    for node in scope.nodes:
        for index, value in enumerate(node.operands):
            if Use(node, index) not in value._uses:
                yield f"operand {index} doesn't know that it is used here", node
    for value in _values(scope):
        for user, index in value._uses:
            if user._graph is None:
                yield f"{_name(value)} is used by a {user.op.name} that is in no graph", user
            elif index >= len(user.operands) or user.operands[index] is not value:
                yield f"{_name(value)} claims to be operand {index}, and isn't", user


def check_definitions(scope: Scope) -> Iterator[Finding]:
    """Operands are made before they are used, in the same graph, or are constants."""
    for position, node in enumerate(scope.nodes):
        for index, value in enumerate(node.operands):
            if scope.is_usable_constant(value):
                continue
            if not scope.is_here(value):
                yield f"operand {index} ({_name(value)}) {_why_foreign(scope, value)}", node
            elif value.producer is not None and scope.position[value.producer] >= position:
                yield f"operand {index} ({_name(value)}) is used before it is made", node


def _why_foreign(scope: Scope, value: Value) -> str:
    if isinstance(value, Constant):
        return {
            "main": "is no constant of this graph",
            "prepare": "is no source: recipes are made from sources only",
            "region": "is a constant: regions take them as inputs",
        }[scope.role]
    if isinstance(value.owner, Node) and not value.owner.is_attached:
        return "is the result of a node that was erased, or never inserted"
    return "belongs to another graph" + (
        ": a region sees only its inputs" if scope.role == "region" else ""
    )


def check_slots(scope: Scope) -> Iterator[Finding]:
    """Attributes mention each operand and each region once, in order."""
    for node in scope.nodes:
        found = [leaf for item in node.attributes.values() for leaf in leaves(item)]
        for kind, count, noun in (
            (Operand, len(node.operands), "operand"),
            (RegionRef, len(node.regions), "region"),
        ):
            slots = [leaf.index for leaf in found if isinstance(leaf, kind)]
            if slots != list(range(count)):
                yield f"attributes mention {noun}s {slots}, of {count}", node


# --------------------------------------------------------------------------- calls


def check_arguments(scope: Scope) -> Iterator[Finding]:
    """Arguments have the names, the order and roughly the kinds of the op's parameters."""
    for node in scope.nodes:
        if node.op.variadic or node.op is RETURN:
            continue
        known = {param.name: param for param in node.op.params}
        if unknown := [name for name in node.attributes if name not in known]:
            yield f"{node.op.name} has no parameter {unknown[0]!r}", node
            continue
        for param in node.op.params:
            if param.name not in node.attributes:
                if param.default is REQUIRED:
                    yield f"the argument {param.name!r} is missing", node
            elif not accepts(param.kind, node.attributes[param.name], node.operands):
                yield f"the argument {param.name!r} is no {param.kind}", node
        if [*node.attributes] != [name for name in known if name in node.attributes]:
            yield f"the arguments are not in the order of {[*known]}", node


def check_results(scope: Scope) -> Iterator[Finding]:
    """A node has as many results as its op, and they know it."""
    for node in scope.nodes:
        if node.op.results not in (None, len(node.results)):
            yield f"{len(node.results)} results, where the op has {node.op.results}", node
        for index, value in enumerate(node.results):
            if value.owner is not node or value.index != index:
                yield f"result {index} doesn't know that it is one", node


def check_types(scope: Scope) -> Iterator[Finding]:
    """No dimension is negative."""
    for value in _values(scope):
        if isinstance(value.type, TensorType):
            for dim in value.type.shape:
                if isinstance(dim, int) and dim < 0:
                    yield f"{_name(value)} has the type {value.type}", value.producer


def check_regions(scope: Scope) -> Iterator[Finding]:
    """Regions know their node, hold only nodes, and fit the node's arguments and results."""
    for node in scope.nodes:
        for number, region in enumerate(node.regions):
            if region.parent is not node:
                yield f"region {number} belongs to another node", node
            if region.constants or region.targets:
                yield f"region {number} has constants or write-backs of its own", node
        if node.regions and has_region_rule(node.op):
            try:
                types = [value.type for value in node.operands]
                args = (node.op, node.attributes, tuple(types), node.regions, scope.ranges)
                count = len(region_types(*args)[0])
            except InferenceError as error:
                yield error.message, node
            else:
                if count != len(node.results):
                    yield f"{len(node.results)} results, where its regions give {count}", node


# --------------------------------------------------------------------------- sizes


def check_symbols(scope: Scope) -> Iterator[Finding]:
    """Each symbol in the table is bound by a value here, and the equations can be solved."""
    table = scope.graph.symbols
    for symbol, info in table.items():
        if not scope.is_here(info.binding):
            yield f"{symbol} is bound by a value that isn't in this graph", None
        elif symbol not in free_symbols([info.equation]):
            yield f"{symbol} is bound by {_name(info.binding)}, which doesn't mention it", None
    known: set[sympy.Symbol] = set()
    pending = [s for s, info in table.items() if isinstance(info.equation, sympy.Basic)]
    while pending:
        ready = [s for s in pending if _solvable_now(table[s].equation, s, known)]
        if not ready:
            yield f"the equations of {', '.join(map(str, pending))} can't be solved", None
            return
        known.update(ready)
        pending = [symbol for symbol in pending if symbol not in known]


def _solvable_now(equation: Any, symbol: sympy.Symbol, known: set[sympy.Symbol]) -> bool:
    return not (equation.free_symbols - known - {symbol}) and solvable(equation, symbol)


def check_sizes(scope: Scope) -> Iterator[Finding]:
    """Types and attributes mention only symbols that are known where they stand."""
    bound_at = {
        symbol: -1 if info.binding.producer is None else scope.position[info.binding.producer]
        for symbol, info in scope.graph.symbols.items()
        if scope.is_here(info.binding)
    }
    missing = len(scope.nodes)

    def late(symbols: set[sympy.Symbol], position: int) -> list[str]:
        return sorted(str(s) for s in symbols if bound_at.get(s, missing) > position)

    for value in scope.graph.inputs:
        for name in late(type_symbols(value.type), -1):
            yield f"the input {_name(value)} mentions {name}, which no input gives", None
    for position, node in enumerate(scope.nodes):
        for name in late(node.attributes.symbols(), position - 1):
            yield f"an attribute mentions {name}, which nothing before it gives", node
        for value in node.results:
            for name in late(type_symbols(value.type), position):
                yield f"the type of {_name(value)} mentions {name}, which nothing gives", node
    for number, spec in enumerate(scope.graph.results):
        mentioned = free_symbols(spec.strides or ())
        for step in spec.views:
            mentioned |= step.attributes.symbols()
        for name in late(mentioned, missing - 1):
            yield f"the spec of output {number} mentions {name}, which nothing gives", None


# --------------------------------------------------------------------------- ends


def check_constants(scope: Scope) -> Iterator[Finding]:
    """Constants have one name each; data and recipes have the types they say."""
    graph, prepare = scope.graph, scope.graph._prepare
    recipes = dict(zip(prepare.prepared_names, prepare.outputs, strict=False)) if prepare else {}
    if prepare is not None and len(prepare.prepared_names) != len(prepare.outputs):
        yield "the recipes are not as many as the prepared constants", prepare.terminator
    names = Counter(a for c in graph.constants.values() for a in (c.name, *c.aliases))
    for name in (name for name, count in names.items() if count > 1):
        yield f"two constants are called @{name}", None
    for name, constant in graph.constants.items():
        if constant.name != name or constant.owner is not graph:
            yield f"the constant @{constant.name} is entered as @{name}", None
        elif constant.is_source and constant.data is not None:
            held = TensorType(constant.data.dtype, tuple(constant.data.shape))
            if not _fits(held, constant.type, scope):
                yield f"@{name} has the type {constant.type}, but its data is {held}", None
        elif not constant.is_source and name not in recipes:
            yield f"@{name} is prepared, but has no recipe", None
        elif not constant.is_source and not _fits(recipes[name].type, constant.type, scope):
            yield f"@{name} has the type {constant.type}, its recipe {recipes[name].type}", None
    for name in recipes.keys() - graph.constants.keys():
        yield f"there is a recipe for @{name}, which is no constant", None


def check_recipes(scope: Scope) -> Iterator[Finding]:
    """Recipes take nothing, write nothing, and give the same whenever they run."""
    graph = scope.graph
    if graph.inputs or graph.targets or graph.constants:
        yield "recipes have inputs, constants or write-backs of their own", None
    for node in scope.nodes[:-1]:
        for trait in (Trait.RANDOM, Trait.EFFECT, Trait.DATA_DEPENDENT):
            if node.op.has(trait):
                yield f"a recipe can't be {trait.value}", node


def check_outputs(scope: Scope) -> Iterator[Finding]:
    """Each output has its spec; what is written back fits what it is written into."""
    graph, end = scope.graph, scope.graph.terminator
    count = len(end.operands)
    expected = Attributes({"values": tuple(Operand(i) for i in range(count))})
    if end.op is not RETURN or (count and end.attributes != expected):
        yield "the graph doesn't end with a return of its operands", end
    if len(graph.results) != len(graph.outputs):
        yield f"{len(graph.outputs)} outputs, but {len(graph.results)} specs", end
    for number, spec in enumerate(graph.results):
        if isinstance(spec.alias, int) and not 0 <= spec.alias < number:
            yield f"output {number} aliases output {spec.alias}, which is no earlier one", end
        elif isinstance(spec.alias, Value) and not _is_boundary(scope, spec.alias):
            yield f"output {number} aliases {_name(spec.alias)}, no input or constant", end
    if len(set(graph.targets)) != len(graph.targets):
        yield "a value is written back to twice", end
    for target, value in graph.writebacks:
        if not _is_boundary(scope, target) or (
            isinstance(target, Constant) and not target.is_source
        ):
            yield f"{_name(target)} is written back to, and is no input or source", end
        elif not _fits(value.type, target.type, scope):
            yield f"{_name(target)} is {target.type}, but {value.type} is written to it", end


def check_memory(scope: Scope) -> Iterator[Finding]:
    """What is computed in place overwrites nothing that is read afterwards."""
    if any(in_place(node.op) for node in scope.nodes):
        for conflict in Memory(scope.graph).conflicts():
            yield conflict.message, conflict.reader


def _is_boundary(scope: Scope, value: Value) -> bool:
    if isinstance(value, Constant):
        return scope.graph.constants.get(value.name) is value
    return scope.is_input(value) and value.owner is scope.graph


def _fits(held: Type, stated: Type, scope: Scope) -> bool:
    """Whether a value of type `held` may be one of type `stated`, wherever it is."""
    if not (isinstance(held, TensorType) and isinstance(stated, TensorType)):
        return held == stated
    shapes = same_shape(held.shape, stated.shape, scope.ranges)
    return held.dtype == stated.dtype and shapes is not False


# --------------------------------------------------------------------------- helpers


def _values(scope: Scope) -> Iterator[Value]:
    """The inputs, constants and results of a graph."""
    yield from scope.graph.inputs
    yield from scope.graph.constants.values()
    for node in scope.nodes:
        yield from node.results


def _name(value: Value) -> str:
    if isinstance(value, Constant):
        return f"@{value.name}"
    return f"%{value.hint}" if value.hint else f"a value of type {value.type}"


CHECKS: Final[dict[str, tuple[Check, frozenset[str]]]] = {
    name: (check, frozenset(roles.split()))
    for name, check, roles in (
        ("links", check_links, "main prepare region"),
        ("uses", check_uses, "main prepare region"),
        ("definitions", check_definitions, "main prepare region"),
        ("slots", check_slots, "main prepare region"),
        ("arguments", check_arguments, "main prepare region"),
        ("results", check_results, "main prepare region"),
        ("types", check_types, "main prepare region"),
        ("symbols", check_symbols, "main prepare region"),
        ("sizes", check_sizes, "main prepare region"),
        ("regions", check_regions, "main prepare region"),
        ("constants", check_constants, "main"),
        ("recipes", check_recipes, "prepare"),
        ("outputs", check_outputs, "main prepare region"),
        ("memory", check_memory, "main prepare region"),
    )
}
"""Each check by name, with the kinds of graph that it is for."""
