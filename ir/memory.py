"""Where values are in memory, and whether a write there is seen by who must not see it.

Values are pure; a node of ``rw.in_place`` (:mod:`rewright.ir.in_place`) computes one that takes the
memory of an operand. That is right as long as nothing that has lain there is read afterwards:

    %new = rw.in_place.aten.index_copy(@cache, 2, %at, %keys)
    %y = aten.tanh(@cache)      # wrong: reads what was there before

*Whose* memory a value may use is told by its roots (:mod:`rewright.ir.aliasing`), which err to the
safe side. *Where* it is, its :class:`Place`, is only said where it is known: through views.

One read of old memory is harmless, and frequent: a write through a view, which the importer spells

    %row = aten.select.int(@cache, 0, 3)
    %new = rw.in_place.aten.index_put(%row, ...)
    %all = rw.in_place.aten.select_scatter(@cache, %new, 0, 3)

What the second line wrote is what the third would put there: it is *settled*, and does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import attrs
import torch

from rewright.ir.aliasing import Roots, roots_of
from rewright.ir.attributes import Attributes, Operand
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.in_place import InPlace, in_place
from rewright.ir.ops import Op, get_op
from rewright.ir.types import TensorType

Step: TypeAlias = tuple[Any, ...]
"""One view: how it selects or rearranges elements, in a form in which equal views are equal."""


@attrs.frozen
class Place:
    """Where a value is.

    Attributes:
        root: the input, constant or result whose memory it is in.
        steps: the views that lead there.
        sure: False where a step may have copied, and torch decides in each call (a reshape).
    """

    root: Value
    steps: tuple[Step, ...] = ()
    sure: bool = True

    def then(self, *steps: Step, sure: bool = True) -> Place:
        """The place that further views lead to."""
        made = [*self.steps]
        for step in steps:
            made[-1:] = _joined(made[-1], step) if made else _kept(step)
        return Place(self.root, tuple(made), self.sure and sure)

    def is_within(self, other: Place) -> bool:
        """Whether all of it is known to be in another place."""
        same = self.root is other.root and self.sure and other.sure
        return same and self.steps[: len(other.steps)] == other.steps


@attrs.frozen
class Conflict:
    """A write that must not be.

    Attributes:
        writer: the node that writes.
        reader: the node that still reads what has been there, or the writer itself.
        message: what is wrong.
    """

    writer: Node
    reader: Node
    message: str


class Memory:
    """Where the values of a graph are, and what is wrong with its writes.

    Args:
        graph: a whole program.
        forms: ops that nodes are taken to have in the place of their own.

    Attributes:
        roots: whose memory each value may use.
        places: where each value is, as far as that is known.
    """

    def __init__(self, graph: Graph, forms: Mapping[Node, Op] = MappingProxyType({})) -> None:
        self.graph = graph
        self.forms = forms
        self.roots: Roots = roots_of(graph, forms)
        self.places: dict[Value, Place] = {}
        for value in (*graph.inputs, *graph.constants.values()):
            self.places[value] = Place(value)
        for node in graph:
            self._place(node)

    def form(self, node: Node) -> InPlace | None:
        """How `node` is computed in place; None if it isn't."""
        return in_place(self.forms.get(node, node.op))

    def is_settled(self, node: Node) -> bool:
        """Whether what `node` is to put into a view is there already."""
        form = self.form(node)
        if form is None or form.view is None:
            return False
        ((_, base),) = form.taken(node)
        goal, source = self._view(node, form, base), self.places.get(_source(node))
        return goal is not None and goal == source and goal.sure

    # -- places

    def _place(self, node: Node) -> None:
        form = self.form(node)
        if form is not None:
            for result, operand in form.taken(node):
                if operand in self.places:
                    self.places[result] = self.places[operand]
        elif is_view(node) and (base := node.operands[0]) in self.places:
            for index, result in enumerate(node.results):
                made = _step(node.op.name, node.attributes, base.type, result.type, index)
                if made is not None:
                    self.places[result] = self.places[base].then(*made[0], sure=made[1])

    def _view(self, node: Node, form: InPlace, base: Value) -> Place | None:
        """The place that `node`, which writes into a view of `base`, writes to."""
        place = self.places.get(base)
        if place is None or form.view is None:
            return place
        made = _step(form.view.name, node.attributes, base.type, _source(node).type, 0)
        return None if made is None else place.then(*made[0], sure=made[1])

    # -- conflicts

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong with the writes of the graph. About linear in its size."""
        last = _last_uses(self.graph)
        ending: dict[int, list[Value]] = {}
        for value, at in last.items():
            ending.setdefault(at, []).append(value)
        alive: dict[Value, dict[Value, None]] = {}
        stale: dict[Value, list[tuple[Node, Place]]] = {}
        for value in (*self.graph.inputs, *self.graph.constants.values()):
            if value in last:
                alive.setdefault(value, {})[value] = None
        for at, node in enumerate((*self.graph, self.graph.terminator)):
            settled = self.is_settled(node)
            for value in _read(node):
                is_base = settled and value is not _source(node)
                for writer, place in stale.get(value, ()):
                    if not (is_base and place.is_within(self.places[_source(node)])):
                        message = f"{_name(node)} reads what {_name(writer)} has overwritten"
                        yield Conflict(writer, node, message)
            form = self.form(node)
            if form is not None and not settled:
                yield from self._write(node, form, alive, stale)
            for result in node.results:
                for root in self.roots[result] if result in last else ():
                    alive.setdefault(root, {})[result] = None
            for value in ending.get(at, ()):
                stale.pop(value, None)
                for root in self.roots[value]:
                    alive.get(root, {}).pop(value, None)

    def _write(
        self,
        node: Node,
        form: InPlace,
        alive: Mapping[Value, Iterable[Value]],
        stale: dict[Value, list[tuple[Node, Place]]],
    ) -> Iterator[Conflict]:
        """Notes what a write leaves stale."""
        taken = [operand for _, operand in form.taken(node)]
        others = [value for value in node.operands if value not in taken]
        for number, operand in enumerate(taken):
            place = self._view(node, form, operand)
            if place is None or place.root not in self.graph.targets:
                yield Conflict(node, node, f"{_name(node)} writes to no input or source")
                return
            for other in (*others, *taken[:number]):
                if not self.roots[operand].isdisjoint(self.roots[other]):
                    yield Conflict(node, node, f"{_name(node)} reads what it writes")
            for root in self.roots[operand]:
                for value in alive.get(root, ()):
                    stale.setdefault(value, []).append((node, place))


def memory_of(graph: Graph) -> Memory:
    """The memory of `graph`, remembered until it changes."""
    return graph.analysis(Memory)


def _name(node: Node) -> str:
    return node.op.name


def _source(node: Node) -> Value:
    """What a node puts into a view."""
    operand = node.attributes["src"]
    assert isinstance(operand, Operand)
    return node.operands[operand.index]


def _read(node: Node) -> Iterable[Value]:
    """The values that `node` reads: at the end, not those outputs that are made of others."""
    if not node.is_terminator:
        return dict.fromkeys(node.operands)
    graph = node.graph
    own = (v for v, spec in zip(graph.outputs, graph.results, strict=True) if spec.alias is None)
    return dict.fromkeys((*own, *(value for target, value in graph.writebacks)))


def _last_uses(graph: Graph) -> dict[Value, int]:
    """The number of the node that uses each value last."""
    last: dict[Value, int] = {}
    for at, node in enumerate((*graph, graph.terminator)):
        last.update((value, at) for value in _read(node))
    return last


# --------------------------------------------------------------------------- steps

_TO_THE_END: Final = 2**63 - 1

_RESHAPES: Final = frozenset("aten.reshape aten.unsqueeze aten.squeeze.dim aten.squeeze.dims "
                             "aten.squeeze".split())  # fmt: skip
"""Views that keep the order of elements: only the shape matters."""

_PERMUTATIONS: Final = frozenset(
    "aten.permute aten.transpose.int aten.t aten.movedim.int aten.swapaxes".split()
)

_SELECTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "aten.slice.Tensor": {"dim": 0, "start": None, "end": None, "step": 1},
    "aten.select.int": {"dim": 0, "index": 0},
    "aten.diagonal": {"offset": 0, "dim1": 0, "dim2": 1},
    "aten.split.Tensor": {"split_size": 1, "dim": 0},
    "aten.split_with_sizes": {"split_sizes": (), "dim": 0},
    "aten.unbind.int": {"dim": 0},
}
"""Views that select elements, and the defaults of their arguments."""

_DIMS: Final = ("dim", "dim1", "dim2")
_SAME: Final = {"start": {None: 0}, "end": {None: _TO_THE_END}}
"""Arguments that say the same."""


def is_view(node: Node) -> bool:
    """Whether `node` is a view of its first operand, or may be one, in a known place."""
    name = node.op.name
    return name in _RESHAPES or name in _PERMUTATIONS or name in _SELECTIONS


def _step(
    name: str, attributes: Attributes, base: Any, made: Any, index: int
) -> tuple[tuple[Step, ...], bool] | None:
    """The steps that a view takes, and whether it is one for sure.

    Args:
        name: of the op.
        attributes: its arguments.
        base, made: the types of what is viewed, and of the view.
        index: which result it is.
    """
    if not (isinstance(base, TensorType) and isinstance(made, TensorType)):
        return None
    if name in _RESHAPES:
        sure = _without_ones(base) == _without_ones(made)
        return (("shape", base.shape, made.shape),), sure
    if name in _PERMUTATIONS:
        return (("order", _order(name, attributes, base.rank)),), True
    given = {key: attributes.get(key, value) for key, value in _SELECTIONS[name].items()}
    for key in _DIMS:
        if key in given:
            given[key] %= base.rank
    for key, same in _SAME.items():
        if key in given:
            given[key] = same.get(given[key], given[key])
    return ((name, index, *given.items()),), True


def _without_ones(kind: TensorType) -> tuple[Any, ...]:
    return tuple(size for size in kind.shape if size != 1)


def _order(name: str, attributes: Attributes, rank: int) -> tuple[int, ...]:
    """Which dimension of the operand each dimension of a permutation is, asked of torch."""
    op = get_op(name)
    probe = torch.empty(tuple(range(2, 2 + rank)), device="meta")
    rest = {key: item for key, item in attributes.items() if not isinstance(item, Operand)}
    return tuple(size - 2 for size in op.target(probe, **rest).shape)


def _joined(one: Step, two: Step) -> tuple[Step, ...]:
    """Two steps as few as they can be: what is put back in order has moved nothing."""
    if one[0] == two[0] == "shape":
        return _kept(("shape", one[1], two[2]))
    if one[0] == two[0] == "order":
        return _kept(("order", tuple(one[1][dim] for dim in two[1])))
    return one, two


def _kept(step: Step) -> tuple[Step, ...]:
    """A step, if it is one."""
    if step[0] == "shape":
        return (step,) if step[1] != step[2] else ()
    if step[0] == "order":
        return (step,) if step[1] != tuple(range(len(step[1]))) else ()
    return (step,)
