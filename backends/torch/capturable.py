"""Whether a program can be captured into a CUDA graph, found out by looking at it.

A replay launches the kernels that were recorded, on the same addresses, and runs no Python. So a
program is left alone where Python decides or makes something anew in every call: random numbers
(their seeds would be those of the capture), numbers and sizes that are read back from the device,
effects, values on the CPU. Every check here is one row of a table; what none of them sees (an
operator that waits for the device inside) fails while it is being captured, which is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs
import torch
from torch._ops import OpOverload

from rewright.backends.torch.liveness import plan
from rewright.ir.attributes import Operand
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.ops import SCALAR, SEGMENT, Trait, is_pure_call
from rewright.ir.types import ScalarType, TensorType

_ON_DEVICE: Final = ("aten._assert", "aten._functional_assert", "aten.sym_constrain")
_SIZES_ONLY: Final = "aten._functional_sym_constrain"
_TORCH: Final = "torch"


@attrs.frozen
class Obstacle:
    """Why a program can't be captured.

    Attributes:
        reason: what stands in the way, as a sentence without its full stop.
        where: the user's line, or nothing.
    """

    reason: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.where})" if self.where else self.reason


def obstacle(graph: Graph, late: Sequence[Constant] = ()) -> Obstacle | None:
    """The first thing that keeps `graph`, a whole program on CUDA, from being captured.

    Arguments and write-backs come first, then nodes in order, those of regions included.

    Args:
        graph: the program.
        late: the constants that come with each call.
    """
    return next(_obstacles(graph, late), None)


def _obstacles(graph: Graph, late: Sequence[Constant]) -> Iterator[Obstacle]:
    for value in graph.inputs:
        if place := _elsewhere(value, graph):
            yield Obstacle(f"the input %{value.hint or value.index} is on {place}")
    for constant in late:
        if place := _elsewhere(constant, graph):
            yield Obstacle(f"@{constant.name}, which comes with each call, is on {place}")
    for value in graph.targets:
        if place := _elsewhere(value, graph):
            yield Obstacle(f"it writes to a tensor on {place}")
    if not plan(graph).nodes:
        yield Obstacle("it computes nothing")
    sized = _sized(graph)
    for node in graph.walk():
        for check in _CHECKS:
            if reason := check(node, sized, graph):
                yield Obstacle(f"{node.op.name} {reason}", str(node.loc or ""))


Sized = Mapping[Node, str]
"""The nodes that give a size only once they have run, and its name."""


def _sized(graph: Graph) -> Sized:
    graphs = [graph, *(region for node in graph.walk() for region in node.regions)]
    made: dict[Node, str] = {}
    for part in graphs:
        for symbol, info in part.symbols.items():
            if (node := info.binding.producer) is not None and node.op is not SCALAR:
                made[node] = symbol.name
    return made


# --------------------------------------------------------------------------- devices


def _place(value: Value, graph: Graph) -> str | None:
    """The device of a tensor; None of what is no tensor."""
    if not isinstance(value.type, TensorType):
        return None
    return value.type.device or graph.device


def _elsewhere(value: Value, graph: Graph) -> str | None:
    """The device of a tensor that is not on the program's."""
    place = _place(value, graph)
    return None if place is None or _is_same(place, graph.device) else place


def _is_same(one: str, other: str) -> bool:
    a, b = torch.device(one), torch.device(other)
    return a.type == b.type and (a.index or 0) == (b.index or 0)


def _moves(node: Node, sized: Sized, graph: Graph) -> str | None:
    """Copies between devices; a number on the CPU is read when the kernel is recorded.

    What is computed on the CPU from constants alone stays what it was, and may be recorded.
    """
    to = {_place(value, graph) for value in node.results} - {None}
    outside = [value for value in node.operands if _elsewhere(value, graph)]
    inside = [v for v in node.operands if _place(v, graph) and v not in outside]
    for place in to:
        assert place is not None
        if torch.device(place).type == "cuda" and not _is_same(place, graph.device):
            return f"runs on {place}, and the program on {graph.device}"
        if not _is_same(place, graph.device) and inside:
            return f"copies from {graph.device} to {place}"
        if _is_same(place, graph.device):
            for value in outside:
                if not _is_read_at_once(node, value):
                    return f"copies from {_place(value, graph)} to {graph.device}"
    return None


def _is_read_at_once(node: Node, value: Value) -> bool:
    """Whether torch passes a tensor on the CPU to the kernel as a number."""
    assert isinstance(value.type, TensorType)
    moved = "device" in node.attributes
    return value.type.rank == 0 and node.op.has(Trait.ELEMENTWISE) and not moved


# --------------------------------------------------------------------------- nodes


def _random(node: Node, sized: Sized, graph: Graph) -> str | None:
    if node.op.has(Trait.RANDOM) and not is_pure_call(node.op, node.attributes):
        return "draws random numbers"
    return None


def _reads_size(node: Node, sized: Sized, graph: Graph) -> str | None:
    if node in sized:
        return f"gives the size {sized[node]}, which depends on the values of its operands"
    return None


def _reads_number(node: Node, sized: Sized, graph: Graph) -> str | None:
    if node.op is SCALAR or not any(isinstance(r.type, ScalarType) for r in node.results):
        return None
    if any(isinstance(value.type, TensorType) for value in node.operands):
        return "gives Python a number that is on the device"
    return None


def _decides(node: Node, sized: Sized, graph: Graph) -> str | None:
    found: list[Value] = []
    if node.op.name == "higher_order.cond":
        test = node.attributes["pred"]
        found = [node.operands[test.index]] if isinstance(test, Operand) else []
    elif node.op.name == "higher_order.while_loop":
        found = [*node.resolve(node.attributes["cond_fn"]).terminator.operands]
    if any(isinstance(value.type, TensorType) for value in found):
        return "lets Python decide by a number that is on the device"
    return None


def _effect(node: Node, sized: Sized, graph: Graph) -> str | None:
    if not node.op.has(Trait.EFFECT) or node.op.has(Trait.STRUCTURAL):
        return None
    if node.op.name.startswith((*_ON_DEVICE, _SIZES_ONLY)):
        return None
    return "has an effect, which a replay would not repeat"


def _unsafe(node: Node, sized: Sized, graph: Graph) -> str | None:
    target = node.op.target
    if isinstance(target, OpOverload) and torch.Tag.cudagraph_unsafe in target.tags:
        return "is tagged cudagraph_unsafe by its library"
    return None


def _engine(node: Node, sized: Sized, graph: Graph) -> str | None:
    """An engine's execution context is lent to one call, and a graph would keep its memory."""
    if node.op is SEGMENT and node.attributes["backend"] != _TORCH:
        return f"runs an engine of {node.attributes['backend']}"
    return None


_CHECKS: Final[tuple[Callable[[Node, Sized, Graph], str | None], ...]] = (
    _engine,
    _random,
    _reads_size,
    _reads_number,
    _decides,
    _effect,
    _unsafe,
    _moves,
)
