"""The graph: SSA values and nodes, in order, with exact uses.

    Graph > Node > Value

Nodes and values are compared by identity; types, attributes and ops by structure. Nodes form
a linked list, and every use is known as ``(node, index)``, so inserting, erasing and replacing
cost O(1) or O(uses). Values are pure: nothing here has strides or is mutated. What a program
mutates is said at the end of its graph, by the write-backs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import attrs
import sympy

from rewright.errors import VerificationError
from rewright.ir.attributes import Attributes, Operand, RegionRef, leaves, map_leaves
from rewright.ir.location import Location
from rewright.ir.sizes import Range
from rewright.ir.types import Type, size_at

if TYPE_CHECKING:
    import torch

    from rewright.ir.ops import Op

T = TypeVar("T")

_REPLACE_FIRST: Final = "replace its uses first: value.replace_all_uses(other)"


class Use(NamedTuple):
    """One place where a value is used: operand number `index` of `node`."""

    node: Node
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a use for


@attrs.define(eq=False, repr=False)
class Value:
    """A value: an input of a graph, a constant, or a result of a node.

    Attributes:
        hint: the name it would like to have in text; the printer makes names unique.
        owner: the node that makes it, or the graph that it enters.
        index: its number among the results of that node, or the inputs of that graph.
    """

    _type: Type
    owner: Node | Graph
    index: int
    hint: str = ""
    _uses: dict[Use, None] = attrs.field(factory=dict, init=False)

    @property
    def type(self) -> Type:
        """The type; assigning a new one counts as a change of the graph."""
        return self._type

    @type.setter
    def type(self, new: Type) -> None:
        if new != self._type:
            self._type = new
            self.graph._touch()

    @property
    def graph(self) -> Graph:
        """The graph that this value belongs to."""
        return self.owner.graph if isinstance(self.owner, Node) else self.owner

    @property
    def producer(self) -> Node | None:
        """The node that makes this value; None for inputs and constants."""
        return self.owner if isinstance(self.owner, Node) else None

    @property
    def is_input(self) -> bool:
        """Whether this is an input of its graph."""
        return not isinstance(self.owner, Node) and not isinstance(self, Constant)

    @property
    def is_constant(self) -> bool:
        """Whether this is a constant: a source or prepared from sources."""
        return isinstance(self, Constant)

    @property
    def uses(self) -> tuple[Use, ...]:
        """All uses, in the order in which they were made."""
        return tuple(self._uses)

    @property
    def has_uses(self) -> bool:
        """Whether anything uses this value."""
        return bool(self._uses)

    @property
    def users(self) -> tuple[Node, ...]:
        """The nodes that use this value, each once."""
        return tuple(dict.fromkeys(use.node for use in self._uses))

    @property
    def has_one_use(self) -> bool:
        """Whether there is exactly one use (being an output is a use)."""
        return len(self._uses) == 1

    @property
    def unique_user(self) -> Node | None:
        """The only node that uses this value, or None where there are none or several."""
        users = self.users
        return users[0] if len(users) == 1 else None

    @property
    def is_output(self) -> bool:
        """Whether the graph returns this value or writes it back."""
        return any(use.node.is_terminator for use in self._uses)

    def replace_all_uses(self, new: Value) -> None:
        """Makes every use of this value a use of `new`. O(uses)."""
        if new is not self:
            for use in self.uses:
                use.node.set_operand(use.index, new)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.hint or self.index}: {self._type}>"


@attrs.define(eq=False, repr=False)
class Constant(Value):
    """A constant: a source (a parameter or buffer, by name), or prepared from sources.

    Attributes:
        name: unique in the program, ``layers.3.weight``; printed ``@layers.3.weight``.
        kind: ``parameter``, ``buffer``, ``nonpersistent`` (a buffer that state dicts leave out),
            ``constant`` (a lifted tensor) or ``prepared``.
        data: the tensor of a source, never a copy; None where it is bound later or elided.
        aliases: other names of the same tensor (tied weights).
    """

    name: str = ""
    kind: str = "parameter"
    data: torch.Tensor | None = None
    aliases: tuple[str, ...] = ()

    @property
    def is_source(self) -> bool:
        """Whether this is a source and not prepared."""
        return self.kind != "prepared"


@attrs.frozen
class SymbolInfo:
    """What a graph knows of a symbol.

    The symbol's equation is ``binding.type.shape[dim] == size of the tensor`` (or, for `dim`
    None, ``binding.type.expr == the scalar``), where the left side may be ``2*s0 + 1``.

    Attributes:
        ranges: inclusive ranges, one per optimization profile.
        binding: the value that gives the symbol.
        dim: the dimension of `binding` that gives it; None where `binding` is a scalar.
    """

    ranges: tuple[Range, ...]
    binding: Value
    dim: int | None

    @property
    def equation(self) -> Any:
        """The left side of the equation; None where the type of `binding` has no such size."""
        return size_at(self.binding.type, self.dim)


@attrs.frozen
class ViewStep:
    """One view of a chain from a base tensor to an alias.

    Attributes:
        op: the view op; its first argument is the tensor so far.
        attributes: its other arguments.
        pick: which of its results goes on (a split has several).
    """

    op: Op
    attributes: Attributes
    pick: int = 0


@attrs.frozen
class ResultSpec:
    """What the caller must get back beyond the numbers of an output.

    Attributes:
        strides: eager's strides, where they differ from contiguous; dims may be symbolic.
        alias: the input or constant, or the earlier output (its number), whose memory it shares.
        views: the views that lead from there to it; empty where it is the very same tensor.
        shares: the number of an earlier output with which eager lets it share memory in some
            other way (two chunks of one tensor): they need not be copied apart.
    """

    strides: tuple[Any, ...] | None = None
    alias: Value | int | None = None
    views: tuple[ViewStep, ...] = ()
    shares: int | None = None


class Node:
    """An op applied to operands. Make one with :class:`~rewright.ir.builder.Builder`."""

    __slots__ = (
        *("__weakref__", "_graph", "_next", "_operands", "_prev"),
        *("attributes", "loc", "op", "regions", "results"),
    )

    def __init__(
        self,
        op: Op,
        operands: Sequence[Value],
        attributes: Attributes,
        types: Sequence[Type],
        *,
        regions: Sequence[Graph] = (),
        loc: Location | None = None,
        hints: Sequence[str] = (),
    ) -> None:
        self.op = op
        self.attributes = attributes
        self.regions = tuple(regions)
        self.loc = loc
        self.results = tuple(
            Value(t, self, i, hints[i] if i < len(hints) else "") for i, t in enumerate(types)
        )
        self._graph: Graph | None = None
        self._prev: Node | None = None
        self._next: Node | None = None
        self._operands = tuple(operands)
        for region in self.regions:
            region.parent = self
        for index, value in enumerate(self._operands):
            value._uses[Use(self, index)] = None

    # -- place

    @property
    def graph(self) -> Graph:
        """The graph that this node is in."""
        if self._graph is None:
            raise VerificationError(f"this {self.op.name} was erased, or never inserted")
        return self._graph

    @property
    def is_terminator(self) -> bool:
        """Whether this is the end of its graph, whose operands are the outputs."""
        return self._graph is not None and self._graph.terminator is self

    @property
    def is_pure(self) -> bool:
        """Whether this node may be removed, merged and moved freely."""
        from rewright.ir.ops import is_pure_call

        return is_pure_call(self.op, self.attributes)

    @property
    def is_attached(self) -> bool:
        """Whether this node is in a graph: False once it was erased."""
        return self._graph is not None

    def following(self) -> Iterator[Node]:
        """The nodes after this one, in order; they may be inserted, moved and erased meanwhile."""
        node = self._next
        while node is not None and not node.is_terminator:
            if node._graph is not None:
                yield node
            node = node._next

    def preceding(self) -> Iterator[Node]:
        """The nodes before this one, the nearest first."""
        node = self._prev
        while node is not None and not node.is_terminator:
            if node._graph is not None:
                yield node
            node = node._prev

    # -- operands

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values used, in order; change them with :meth:`set_operand`."""
        return self._operands

    @operands.setter
    def operands(self, _: object) -> None:
        raise AttributeError("operands are changed with set_operand(index, value)")

    def set_operand(self, index: int, value: Value) -> None:
        """Makes `value` operand number `index`."""
        old = self._operands[index]
        if old is value:
            return
        use = Use(self, index)
        del old._uses[use]
        value._uses[use] = None
        self._operands = (*self._operands[:index], value, *self._operands[index + 1 :])
        if self._graph is not None:
            self._graph._touch()

    def set_operands(self, operands: Sequence[Value]) -> None:
        """Replaces all operands; the attributes must fit them."""
        self._drop_uses()
        self._operands = tuple(operands)
        for index, value in enumerate(self._operands):
            value._uses[Use(self, index)] = None
        if self._graph is not None:
            self._graph._touch()

    def _drop_uses(self) -> None:
        for index, value in enumerate(self._operands):
            del value._uses[Use(self, index)]
        self._operands = ()

    # -- arguments by name

    @property
    def result(self) -> Value:
        """The only result.

        Raises:
            VerificationError: there are none or several.
        """
        if len(self.results) != 1:
            raise VerificationError(
                f"{self.op.name} has {len(self.results)} results, one was expected"
            )
        return self.results[0]

    def resolve(self, attribute: Any) -> Any:
        """`attribute` with operands and regions put in the place of their numbers."""

        def put(leaf: Any) -> Any:
            if isinstance(leaf, Operand):
                return self._operands[leaf.index]
            if isinstance(leaf, RegionRef):
                return self.regions[leaf.index]
            return leaf

        return map_leaves(attribute, put)

    def arg(self, name: str) -> Any:
        """The argument called `name`: a Value, a tuple of them, an attribute, or the default.

        Raises:
            KeyError: the op has no such parameter, or it was left out and has no default.
        """
        if name in self.attributes:
            return self.resolve(self.attributes[name])
        return self.op.param(name).default_or_raise()

    def arguments(self) -> dict[str, Any]:
        """The arguments that were given, by name, in the op's order."""
        return {name: self.resolve(value) for name, value in self.attributes.items()}

    # -- change

    def erase(self) -> None:
        """Takes this node out of its graph.

        Raises:
            VerificationError: a result is still used.
        """
        self.graph.erase([self])

    def move_before(self, anchor: Node) -> None:
        """Moves this node to just before `anchor`, in the same graph. O(1)."""
        graph = self.graph
        if anchor._graph is not graph:
            raise VerificationError(f"{anchor.op.name} is not a node of @{graph.name}")
        if anchor is not self:
            graph._unlink(self)
            graph._link(self, anchor)
            graph._touch()

    def __repr__(self) -> str:
        where = f" at {self.loc}" if self.loc else ""
        return f"<Node {self.op.name}{where}>"


_NO_STAGE: Final = "imported"


class Graph:
    """Nodes in order, from inputs and constants to outputs and write-backs.

    Attributes:
        name: printed ``@name``.
        inputs: what a caller passes, in order.
        constants: sources and prepared constants, by name.
        symbols: the sizes that types and attributes mention, in order of appearance.
        results: for each output, what the caller gets beyond the numbers.
        targets: the inputs and constants that are written back, in order.
        stage: the last normal form that was reached (:mod:`rewright.ir.stages`).
        device: where the program runs, ``cpu`` or ``cuda:0``.
        parent: the node whose region this graph is, or None.
    """

    def __init__(self, name: str = "main", *, device: str = "cpu", stage: str = _NO_STAGE) -> None:
        from rewright.ir.ops import RETURN

        self.name = name
        self.device = device
        self.stage = stage
        self.inputs: list[Value] = []
        self.constants: dict[str, Constant] = {}
        self.symbols: dict[sympy.Symbol, SymbolInfo] = {}
        self.results: tuple[ResultSpec, ...] = ()
        self.targets: tuple[Value, ...] = ()
        self.parent: Node | None = None
        self.prepared_names: list[str] = []
        self._prepare: Graph | None = None
        self._main: Graph | None = None
        self._version = 0
        self._analyses: dict[Callable[[Graph], Any], tuple[int, Any]] = {}
        self.terminator = Node(RETURN, (), Attributes(), ())
        self.terminator._graph = self
        self.terminator._prev = self.terminator._next = self.terminator
        self._length = 0

    # -- iteration

    def __iter__(self) -> Iterator[Node]:
        """The nodes in order; nodes may be inserted and erased meanwhile.

        A node that is moved takes along an iteration that stands at it.
        """
        node = self.terminator._next
        while node is not None and node is not self.terminator:
            if node._graph is not None:  # erased nodes still lead on to those that stay
                yield node
            node = node._next

    def __reversed__(self) -> Iterator[Node]:
        node = self.terminator._prev
        while node is not None and node is not self.terminator:
            if node._graph is not None:
                yield node
            node = node._prev

    def __len__(self) -> int:
        return self._length

    def walk(self) -> Iterator[Node]:
        """Every node, those of regions right after the node that holds them."""
        pending = [iter(self)]
        while pending:
            node = next(pending[-1], None)
            if node is None:
                pending.pop()
                continue
            yield node
            pending.extend(iter(region) for region in reversed(node.regions))

    @property
    def graph(self) -> Graph:
        """This graph; lets a Value ask its owner."""
        return self

    # -- versions and analyses

    @property
    def version(self) -> int:
        """Grows with every change to the graph, its regions and its recipes."""
        return self._version

    def _touch(self) -> None:
        graph: Graph | None = self
        while graph is not None:
            graph._version += 1
            parent = graph.parent
            if graph._main is not None:  # no `or`: a graph without nodes is false
                graph = graph._main
            else:
                graph = parent._graph if parent is not None else None

    def analysis(self, compute: Callable[[Graph], T]) -> T:
        """``compute(self)``, remembered until the graph changes."""
        known = self._analyses.get(compute)
        if known is None or known[0] != self._version:
            known = self._analyses[compute] = (self._version, compute(self))
        return known[1]

    # -- inputs, constants, outputs

    def add_input(self, value_type: Type, hint: str = "") -> Value:
        """A new last input."""
        value = Value(value_type, self, len(self.inputs), hint)
        self.inputs.append(value)
        self._touch()
        return value

    def add_constant(
        self,
        name: str,
        value_type: Type,
        *,
        kind: str = "parameter",
        data: torch.Tensor | None = None,
        aliases: Sequence[str] = (),
    ) -> Constant:
        """A new source called `name`.

        Raises:
            VerificationError: there is a constant of that name already.
        """
        if name in self.constants:
            raise VerificationError(f"there are two constants called @{name}")
        constant = Constant(
            value_type, self, len(self.constants), "", name, kind, data, tuple(aliases)
        )
        self.constants[name] = constant
        self._touch()
        return constant

    @property
    def prepare(self) -> Graph:
        """The recipes: a graph over the sources, whose outputs are the prepared constants."""
        if self._prepare is None:
            self._prepare = Graph("prepare", device=self.device, stage=self.stage)
            self._prepare._main = self
        return self._prepare

    @property
    def has_recipes(self) -> bool:
        """Whether any constant is prepared."""
        return self._prepare is not None and bool(self._prepare.prepared_names)

    def add_prepared(self, name: str, recipe: Value) -> Constant:
        """A new constant whose value is `recipe`, a value of :attr:`prepare`."""
        if recipe.graph is not self.prepare and not recipe.is_constant:
            raise VerificationError(f"the recipe of @{name} is not in the prepare graph")
        constant = self.add_constant(name, recipe.type, kind="prepared")
        self.prepare.prepared_names.append(name)
        self.prepare.set_outputs([*self.prepare.outputs, recipe])
        return constant

    def recipe(self, constant: Constant) -> Value:
        """The value of :attr:`prepare` that gives a prepared constant."""
        return self.prepare.outputs[self.prepare.prepared_names.index(constant.name)]

    def remove_constant(self, constant: Constant) -> None:
        """Takes out a constant that nothing uses (and its place among the recipes)."""
        if constant._uses or constant in self.targets:
            raise VerificationError(f"@{constant.name} is still used", hint=_REPLACE_FIRST)
        del self.constants[constant.name]
        if not constant.is_source:
            at = self.prepare.prepared_names.index(constant.name)
            outputs = list(self.prepare.outputs)
            del outputs[at], self.prepare.prepared_names[at]
            self.prepare.set_outputs(outputs)
        self._touch()

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What a caller gets back, in order."""
        operands = self.terminator.operands
        return operands[: len(operands) - len(self.targets)]

    @property
    def writebacks(self) -> tuple[tuple[Value, Value], ...]:
        """Pairs of an input or constant and the value that is written into it at the end."""
        return tuple(zip(self.targets, self.terminator.operands[len(self.outputs) :], strict=True))

    def set_outputs(
        self,
        outputs: Sequence[Value],
        *,
        results: Sequence[ResultSpec] | None = None,
        writebacks: Iterable[tuple[Value, Value]] = (),
    ) -> None:
        """Replaces outputs, their specs and the write-backs."""
        pairs = tuple(writebacks)
        self.results = tuple(results) if results is not None else (ResultSpec(),) * len(outputs)
        if len(self.results) != len(outputs):
            raise VerificationError(
                f"{len(outputs)} outputs, but {len(self.results)} specs",
                hint="give one ResultSpec for each output, or none at all",
            )
        self.targets = tuple(target for target, _ in pairs)
        self.terminator.attributes = Attributes(
            {"values": tuple(Operand(i) for i in range(len(outputs) + len(pairs)))}
        )
        self.terminator.set_operands([*outputs, *(value for _, value in pairs)])

    # -- nodes

    def insert(self, node: Node, before: Node | None = None) -> Node:
        """Puts `node` before another, or at the end. O(1).

        Raises:
            VerificationError: `node` is in a graph already, or `before` is not in this one.
        """
        if node._graph is not None:
            raise VerificationError(
                f"this {node.op.name} is in a graph already", hint="erase it there first"
            )
        if before is not None and before._graph is not self:
            raise VerificationError(f"{before.op.name} is not a node of @{self.name}")
        self._link(node, before or self.terminator)
        self._length += 1
        self._touch()
        return node

    def erase(self, nodes: Iterable[Node]) -> None:
        """Takes out `nodes`, all or none.

        Raises:
            VerificationError: a result of one is used by a node that stays, or one is not in this
                graph.
        """
        doomed = dict.fromkeys(nodes)
        for node in doomed:
            if node._graph is not self or node is self.terminator:
                raise VerificationError(
                    f"{node.op.name} can't be erased from @{self.name}",
                    hint="it is in another graph, or is the end of this one: see set_outputs",
                )
            for value in node.results:
                for use in value._uses:
                    if use.node not in doomed:
                        raise VerificationError(
                            f"can't erase {node.op.name}: {use.node.op.name} uses its result",
                            where=str(node.loc or ""),
                            hint=_REPLACE_FIRST,
                        )
        for node in doomed:
            self._unlink(node)
            node._drop_uses()
            node._graph = None
            self._length -= 1
        self._touch()

    def _link(self, node: Node, before: Node) -> None:
        previous = before._prev
        assert previous is not None
        node._graph = self
        node._prev, node._next = previous, before
        previous._next = before._prev = node

    def _unlink(self, node: Node) -> None:
        """Takes `node` out of the list; its own links stay, so that iteration survives."""
        assert node._prev is not None
        assert node._next is not None
        node._prev._next, node._next._prev = node._next, node._prev

    # -- whole graphs

    def positions(self) -> Mapping[Node, int]:
        """The number of each node in order; cached."""
        return self.analysis(_positions)

    def copy(self) -> Graph:
        """A copy that shares nothing but types, attributes and the tensors of sources."""
        from rewright.ir.copying import copy_graph

        return copy_graph(self)

    def __str__(self) -> str:
        from rewright.ir.printer import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self)} nodes>"


def _positions(graph: Graph) -> dict[Node, int]:
    return {node: index for index, node in enumerate(graph)}


def operands_of(attribute: Any) -> list[int]:
    """The operand numbers that `attribute` mentions, in order."""
    return [leaf.index for leaf in leaves(attribute) if isinstance(leaf, Operand)]
