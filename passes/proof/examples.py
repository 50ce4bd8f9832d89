"""What examples are made of: a graph, the arguments of a node in the making, ops to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import attrs
import torch

from rewright.ir.attributes import Attributes, Operand
from rewright.ir.calls import flat_results, torch_arguments
from rewright.ir.graph import Graph
from rewright.ir.ops import Op, call, get_op
from rewright.ir.types import TensorType, Type
from rewright.passes.proof.attribute_samples import DTYPES
from rewright.passes.proof.draw import Draw, Reject
from rewright.passes.proof.proposals import Key, Open
from rewright.passes.proof.templates import NUMBERS


@attrs.define(eq=False)
class Example:
    """A graph made from a pattern.

    Attributes:
        graph: the graph; its outputs are the roots (and what a broken guard adds).
        domains: what the elements of an input or constant are, as templates say it; by its
            number, or name.
        chosen: the alternatives that were taken, as ids of the patterns.
        bound: the dtypes of the tensors that each variable is bound to, by its name.
    """

    graph: Graph
    domains: dict[int | str, str] = attrs.field(factory=dict)
    chosen: set[int] = attrs.field(factory=set)
    bound: dict[str, set[torch.dtype]] = attrs.field(factory=dict)

    def types(self) -> tuple[TensorType, ...]:
        """The types of its inputs and constants."""
        leaves = (*self.graph.inputs, *self.graph.constants.values())
        return tuple(value.type for value in leaves if isinstance(value.type, TensorType))

    def shapes(self) -> tuple[Any, ...]:
        """What tells examples of different shapes apart."""
        return tuple(item.shape for item in self.types())

    def dtypes(self) -> set[torch.dtype]:
        """The dtypes of its inputs and constants."""
        return {item.dtype for item in self.types()}


@attrs.define
class Places:
    """The arguments of a node in the making.

    Attributes:
        op: its op.
        fixed: what stands where it is known.
        opened: the places that are still to be drawn.
        repeated: further places of what is opened, by what is drawn there.
        captured: the names of the parameters that a Rest or an OpVar captures.
        results: how many results the node must have, where its op does not say.
    """

    op: Op
    fixed: dict[Key, Any]
    opened: list[Open] = attrs.field(factory=list)
    repeated: dict[Key, Open] = attrs.field(factory=dict)
    captured: list[str] = attrs.field(factory=list)
    results: int | None = None

    def named(self, fixed: Mapping[Key, Any] | None = None) -> dict[str, Any]:
        """The arguments by name, in the op's order, lists put together."""
        gathered: dict[str, Any] = {}
        for (name, index), item in (self.fixed if fixed is None else fixed).items():
            if index is None:
                gathered[name] = item
            else:
                gathered.setdefault(name, {})[index] = item
        for name, item in gathered.items():
            if isinstance(item, dict):
                gathered[name] = tuple(item[index] for index in sorted(item))
        return self.op.bind((), gathered)


def types_by_running(op: Op, attributes: Attributes, operands: Sequence[Type]) -> tuple[Type, ...]:
    """The types of the results of `op`, found by running it on tensors of ones and zeros.

    Raises:
        Exception: whatever torch says against it.
    """
    tensors = []
    for item in operands:
        assert isinstance(item, TensorType)
        shape: Any = item.shape
        fill = int(item.dtype.is_floating_point)
        tensors.append(torch.full(shape, fill, dtype=item.dtype))
    arguments = torch_arguments(
        attributes, lambda leaf: tensors[leaf.index] if isinstance(leaf, Operand) else leaf
    )
    with torch.no_grad():
        results = flat_results(call(op, arguments))
    if not all(isinstance(result, torch.Tensor) for result in results):
        raise TypeError(f"{op.name} gives something that is no tensor")
    return tuple(TensorType(result.dtype, tuple(result.shape)) for result in results)


def other_than(value: Any, draw: Draw) -> Any:
    """An attribute of the same kind as `value`, but not equal to it.

    Raises:
        Reject: none is known.
    """
    match value:
        case bool():
            return not value
        case int():
            return value + draw.choice((1, -1, 2))
        case float():
            return value * draw.choice((0.5, 2.0, 1.01)) + draw.choice((0.0, 1.0))
        case torch.dtype():
            return draw.choice([dtype for dtype in DTYPES if dtype != value])
        case str():
            known = [v for v in NUMBERS["approximate"] + NUMBERS["activation"] if v != value]
            return draw.choice(known)
        case (_, *_):
            at = draw.choice(range(len(value)))
            return (*value[:at], other_than(value[at], draw), *value[at + 1 :])
    raise Reject(f"nothing is known besides {value!r}")


@cache
def some_ops() -> tuple[Op, ...]:
    """Ops to choose from where a pattern goes by traits."""
    return tuple(get_op(f"aten.{name}") for name in _SOME.split())


_SOME: Final = (
    "relu tanh sigmoid neg exp abs gelu silu add.Tensor mul.Tensor sub.Tensor maximum minimum "
    "sum.dim_IntList mean.dim amax softmax.int reshape permute transpose.int unsqueeze flip "
    "squeeze.dim slice.Tensor select.int cat bitwise_and.Tensor logical_or"
)
