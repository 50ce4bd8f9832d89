"""The pass ``channels-last``: convolutions in the memory order that their kernels want.

    conv(%x, @w)  ->  conv(rw.layout(%x, channels last), @w.channels_last)

Values have no memory; torch's have, and its kernels hand the order on from one to the next. So a
region of convolutions needs one ``rw.layout`` where something enters it, weights in the same order
(once, in ``prepare``), and nothing in between. At its end whoever reads takes any order, and the
boundary gives callers eager's strides.

Which regions gain is counted in bytes (:mod:`~rewright.passes.layout.regions`); where a device and
dtype gain at all is a table (:mod:`~rewright.passes.layout.table`). Engines choose orders
themselves. So does Inductor, between nodes; but what comes from outside it brings into its order
in every call, weights too. So for Inductor the pass does only that (``edges``): weights once, in
``prepare``, and inputs where they come in, which costs nothing where a caller has them so.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from rewright.ir.builder import Builder
from rewright.ir.convolutions import has_depthwise_kernel, innermost
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.types import TensorType
from rewright.passes.layout.edges import convolutions_of, is_ordered_by_inductor
from rewright.passes.layout.regions import Region, is_convolution, regions_of
from rewright.passes.manager import Pass, PassContext
from rewright.passes.registry import register_pass

RULE: Final = "channels-last"
"""What the locations of new nodes name."""


@attrs.frozen
class LayoutReport:
    """What the pass did.

    Attributes:
        convolutions: how many are channels-last now.
        entries: how many values are brought into that order.
        saved: bytes that are not moved in a call of typical sizes.
        left: how many regions would gain nothing.
    """

    convolutions: int = 0
    entries: int = 0
    saved: int = 0
    left: int = 0


@register_pass
@attrs.frozen
class ChannelsLast(Pass):
    """conv(x, w)  ->  conv of x and w in channels-last memory, where bytes are saved

    Attributes:
        min_saved: so many bytes a call of typical sizes must save for a region to be converted.
        everywhere: whether to do so, too, where the table does not say that it gains.
        edges: whether only weights and inputs are to be laid out, for Inductor orders the rest,
            where it does: :func:`~rewright.passes.layout.edges.is_ordered_by_inductor`.
        depthwise: whether weights of depthwise convolutions are laid out for the kernel of ours.
    """

    min_saved: int = 1
    everywhere: bool = False
    edges: bool = False
    depthwise: bool = True

    def run(self, graph: Graph, context: PassContext) -> None:
        """Converts the regions of `graph` that gain; leaves a report."""
        if self.edges:
            context.reports[self.name] = _edges(graph, self.depthwise)
            return
        regions = regions_of(graph, self.everywhere)
        chosen = [region for region in regions if region.gain >= self.min_saved]
        memory = _Memory(graph, self.depthwise)
        for region in chosen:
            memory.convert(region)
        context.reports[self.name] = LayoutReport(
            sum(len(region.convolutions) for region in chosen),
            sum(not isinstance(value, Constant) for value, _ in memory.made),
            sum(region.gain for region in chosen),
            len(regions) - len(chosen),
        )


def _edges(graph: Graph, depthwise: bool) -> LayoutReport:
    """Lays out what convolutions take from outside, if Inductor will compute them so.

    It computes none of those that a kernel of ours takes, so their weights are, in any case.
    """
    found, is_ordered = convolutions_of(graph), is_ordered_by_inductor(graph)
    if not is_ordered:
        found = [node for node in found if depthwise and has_depthwise_kernel(node, graph.device)]
    memory = _Memory(graph, depthwise)
    for node in found:
        memory.weigh(node)
        image = node.operands[0]
        if is_ordered and image.is_input and all(is_convolution(user) for user in image.users):
            for user in image.users:
                memory.enter(user, 0)
    entries = sum(not isinstance(value, Constant) for value, _ in memory.made)
    return LayoutReport(convolutions=len(found), entries=entries)


@attrs.define(eq=False)
class _Memory:
    graph: Graph
    depthwise: bool
    made: dict[tuple[Value, tuple[Any, ...]], Value] = attrs.field(factory=dict)
    """What is laid out, by what it was and the strides that it has now."""

    def convert(self, region: Region) -> None:
        for node, at in region.entries:
            self.enter(node, at)
        for node in region.convolutions:
            self.weigh(node)
        for value in region.returned:
            self._returned(value)

    def enter(self, node: Node, at: int) -> None:
        """Lays out operand number `at` of `node`."""
        self._put(node, at, channels_last(_shape(node.operands[at])))

    def _put(self, node: Node, at: int, strides: tuple[Any, ...]) -> None:
        value = node.operands[at]
        node.set_operand(at, self._laid_out(value, strides, node))
        if isinstance(value, Constant) and not value.is_source and not value.has_uses:
            self.graph.remove_constant(value)

    def weigh(self, node: Node) -> None:
        """Lays out the weight of the convolution `node`."""
        at = node.attributes["weight"].index
        weight = node.operands[at]
        is_ours = self.depthwise and has_depthwise_kernel(node, self.graph.device)
        self._put(node, at, innermost(_shape(weight)) if is_ours else channels_last(_shape(weight)))

    def _returned(self, value: Value) -> None:
        """`value` with contiguous strides where it is returned, along sizes of 1, too.

        Where a shape depends on sizes, the boundary asks whether memory is contiguous, and torch
        overlooks such dimensions.
        """
        assert isinstance(value.type, TensorType)
        if value.type.is_static or 1 not in value.type.shape:
            return
        end = self.graph.terminator
        build = Builder(self.graph, loc=value.producer.loc if value.producer else None)
        made = _layout(build, value, contiguous(value.type.shape))
        for at, returned in enumerate(end.operands):
            if returned is value:
                end.set_operand(at, made)

    def _laid_out(self, value: Value, strides: tuple[Any, ...], user: Node) -> Value:
        key = value, strides
        if key not in self.made:
            if isinstance(value, Constant) and value not in self.graph.targets:
                self.made[key] = self._prepared(value, strides)
            else:
                self.made[key] = self._entered(value, strides, user)
        return self.made[key]

    def _entered(self, value: Value, strides: tuple[Any, ...], user: Node) -> Value:
        """`value`, brought into order right behind what makes it."""
        made = value.producer
        behind = iter(self.graph) if made is None else made.following()
        loc = (made or user).loc
        build = Builder(self.graph, next(behind, None), loc=loc.made_by(RULE) if loc else None)
        return _layout(build, value, strides)

    def _prepared(self, value: Value, strides: tuple[Any, ...]) -> Constant:
        """A constant, brought into order before the program runs."""
        assert isinstance(value, Constant)
        source = value if value.is_source else self.graph.recipe(value)
        recipe = _layout(Builder(self.graph.prepare), source, strides)
        taken, base = self.graph.constants, f"{value.name}.channels_last"
        names = (base, *(f"{base}_{number}" for number in range(1, len(taken) + 2)))
        return self.graph.add_prepared(next(name for name in names if name not in taken), recipe)


def _layout(build: Builder, value: Value, strides: tuple[Any, ...]) -> Value:
    hint = [f"{value.hint}_laid_out"] if value.hint else []
    made: Value = build.call("rw.layout", value, strides, hints=hint)
    return made


def _shape(value: Value) -> tuple[Any, ...]:
    assert isinstance(value.type, TensorType)
    return value.type.shape


def channels_last(shape: Any) -> tuple[Any, ...]:
    """The strides of ``[n, c, h, w]`` with channels next to one another, as torch counts them."""
    _, channels, height, width = shape
    return (channels * height * width, 1, channels * width, channels)


def contiguous(shape: Any) -> tuple[Any, ...]:
    """The strides of a contiguous tensor ``[n, c, h, w]``."""
    _, channels, height, width = shape
    return (channels * height * width, height * width, width, 1)
