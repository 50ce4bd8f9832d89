"""The parts of a graph that would be channels-last, what that costs and what it gains, in bytes.

A region is a set of convolutions that are joined by what hands the order on. Outside of one, each
convolution moves its input and its result within the call; inside, only what enters and leaves is
moved, once each. So

    gain = sum over convolutions of (input + result)  -  sum over what enters or leaves of its size

and a region is converted where that is above zero: never for one convolution between linears, and
never for those that stand apart by norms that undo it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import sympy

from rewright.ir.fakes import example_sizes
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.sizes import evaluate
from rewright.ir.types import TensorType
from rewright.passes.facts import ranges_of
from rewright.passes.layout.table import CONVOLUTIONS, gains, hands_on

_UNKNOWN: Final = 64
"""What is taken for a size that only a run can tell."""


@attrs.define(eq=False)
class Region:
    """Convolutions that are joined.

    Attributes:
        convolutions: in order.
        entries: the uses of values from outside, operand number `index` of a node.
        exits: values that are used outside.
        returned: values that the graph returns or writes back.
        gain: in bytes, of a call of typical sizes.
    """

    convolutions: list[Node] = attrs.field(factory=list)
    entries: list[tuple[Node, int]] = attrs.field(factory=list)
    exits: list[Value] = attrs.field(factory=list)
    returned: list[Value] = attrs.field(factory=list)
    gain: int = 0


def regions_of(graph: Graph, everywhere: bool = False) -> list[Region]:
    """The regions of `graph`, whether they save bytes or not.

    Args:
        graph: a whole program.
        everywhere: whether to look at convolutions, too, of which the table of devices and dtypes
            does not say that they gain.
    """
    inside = _Inside(graph, everywhere)
    return inside.regions() if inside.convolutions else []


def is_convolution(node: Node) -> bool:
    """Whether `node` is a convolution over two dimensions, with a constant weight."""
    if node.op.name not in CONVOLUTIONS:
        return False
    result, weight = node.result.type, node.arg("weight")
    return (
        isinstance(result, TensorType)
        and result.rank == 4
        and isinstance(weight, Constant)
        and weight not in node.graph.targets
    )


@attrs.define(eq=False)
class _Inside:
    """Which values would be channels-last.

    Attributes:
        graph: the graph.
        everywhere: whether convolutions count of which no table says that they gain.
        convolutions: those that count.
        values: what they give, and what is handed on from there.
    """

    graph: Graph
    everywhere: bool = False
    convolutions: list[Node] = attrs.field(factory=list)
    values: set[Value] = attrs.field(factory=set)
    _sizes: dict[sympy.Symbol, int] = attrs.field(init=False)

    @_sizes.default
    def _typical(self) -> dict[sympy.Symbol, int]:
        ranges = ranges_of(self.graph)
        return {
            **dict.fromkeys(self.graph.symbols, _UNKNOWN),
            **example_sizes(ranges, typical=True),
        }

    def __attrs_post_init__(self) -> None:
        for node in self.graph:
            if is_convolution(node) and self._gains(node.result):
                self.convolutions.append(node)
            elif not self._passes(node):
                continue
            self.values.update(value for value in node.results if _rank(value) == 4)

    def _gains(self, result: Value) -> bool:
        assert isinstance(result.type, TensorType)
        return self.everywhere or gains(self.graph.device, result.type.dtype)

    def _passes(self, node: Node) -> bool:
        return hands_on(node, self.graph.device) and not self.values.isdisjoint(node.operands)

    def regions(self) -> list[Region]:
        """The parts that are joined, each with what it gains."""
        if not self.convolutions:
            return []
        import networkx as nx  # a tenth of a second, for programs of images alone

        links: nx.Graph = nx.Graph()
        nodes = dict.fromkeys(v.producer for v in self._in_order())
        links.add_nodes_from(nodes)
        for node in nodes:
            assert node is not None
            links.add_edges_from((v.producer, node) for v in node.operands if v in self.values)
        place = {node: at for at, node in enumerate(nodes)}
        groups = [sorted(g, key=place.__getitem__) for g in nx.connected_components(links)]
        return [self._region(group) for group in groups]

    def _in_order(self) -> Iterator[Value]:
        for node in self.graph:
            yield from (value for value in node.results if value in self.values)

    def _region(self, nodes: list[Node]) -> Region:
        region = Region([node for node in nodes if node in {*self.convolutions}])
        for node in region.convolutions:
            if not _is_depthwise(node):
                region.gain += self._bytes(node.operands[0]) + self._bytes(node.result)
        entered: set[Value] = set()
        for node in nodes:
            for at, value in enumerate(node.operands):
                if self._enters(node, at, value):
                    region.entries.append((node, at))
                    entered.add(value)
        given = [v for node in nodes for v in node.results if v in self.values]
        region.exits = [value for value in given if self._leaves(value)]
        region.returned = [value for value in given if value.is_output]
        region.gain -= sum(map(self._bytes, (*entered, *region.exits)))
        return region

    def _enters(self, node: Node, at: int, value: Value) -> bool:
        """Whether operand number `at` comes from outside, as large as an image."""
        if value in self.values or _rank(value) != 4:
            return False
        if node in self.convolutions:
            return at == 0
        return not isinstance(value, Constant) and value.type == node.results[0].type

    def _leaves(self, value: Value) -> bool:
        """Whether somebody needs `value` in the order of its dimensions."""
        if self._is_pixel(value):
            return False
        return any(
            user.is_terminator
            or not (self.values.intersection(user.results) or _ends_in_channels(user))
            for user in value.users
        )

    def _is_pixel(self, value: Value) -> bool:
        """Whether it has one pixel, and so the same memory in both orders."""
        assert isinstance(value.type, TensorType)
        return value.type.shape[2:] == (1, 1)

    def _bytes(self, value: Value) -> int:
        assert isinstance(value.type, TensorType)
        return int(evaluate(value.type.nbytes, self._sizes))


def _rank(value: Value) -> int:
    return value.type.rank if isinstance(value.type, TensorType) else 0


def _is_depthwise(node: Node) -> bool:
    """Whether each channel is convolved by itself: torch has kernels of its own for that."""
    groups, image = node.attributes.get("groups", 1), node.operands[0].type
    assert isinstance(image, TensorType)
    return bool(groups != 1 and groups == image.shape[1])


def _ends_in_channels(node: Node) -> bool:
    """Whether `node` puts channels last by itself, which is a view of such memory."""
    dims = node.attributes.get("dims")
    return bool(node.op.name == "aten.permute" and dims and dims[-1] in (1, -3))
