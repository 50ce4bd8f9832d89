"""What `where` and `replace` see of a match: values with operators, sizes, ops to call again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from rewright.errors import RuleError
from rewright.ir.attributes import Attributes
from rewright.ir.builder import bind_operands
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.inference import infer_types
from rewright.ir.location import Location
from rewright.ir.ops import Op
from rewright.ir.printer import value_names
from rewright.ir.sizes import Ranges
from rewright.ir.types import ScalarType, TensorType, Type
from rewright.passes.facts import ranges_of, unwrap_sizes, wrap_sizes
from rewright.passes.ops import Expression, call


class Handle(Expression):
    """A value of the graph, with operators. In `where` it can only be asked, not computed with."""

    __slots__ = ("_ranges", "value")

    def __init__(self, value: Value, ranges: Ranges) -> None:
        self.value = value
        self._ranges = ranges

    @property
    def type(self) -> Type:
        """The type of the value."""
        return self.value.type

    @property
    def is_number(self) -> bool:  # type: ignore[override]
        """Whether this is a scalar and not a tensor."""
        return isinstance(self.value.type, ScalarType)

    def _tensor_type(self) -> TensorType:
        found = self.value.type
        if not isinstance(found, TensorType):
            raise RuleError(f"{self} is a {found}, not a tensor")
        return found

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensor."""
        return self._tensor_type().dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        """The dimensions: ints, and a :class:`~rewright.passes.facts.Size` for each other."""
        found = self._tensor_type()
        return found.shape if found.is_static else wrap_sizes(found.shape, self._ranges)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return self._tensor_type().rank

    @property
    def is_constant(self) -> bool:
        """Whether this is a source, or prepared from sources."""
        return self.value.is_constant

    @property
    def is_floating_point(self) -> bool:
        """Whether the elements are real floating-point numbers."""
        return self._tensor_type().is_floating_point

    def to(self, dtype: torch.dtype) -> Any:
        """This tensor in `dtype`: itself, or a cast of it."""
        return self if self.dtype == dtype else call("aten._to_copy", self, dtype=dtype)

    def wide(self) -> Any:
        """This tensor in at least f32: what constants are recombined in."""
        narrow = self.is_floating_point and self.dtype.itemsize < 4
        return self.to(torch.float32) if narrow else self

    def __str__(self) -> str:
        return name_of(self.value)

    def __repr__(self) -> str:
        return f"<{self}: {self.type}>"


def name_of(value: Value) -> str:
    """The name of a value in the text of its graph."""
    if isinstance(value, Constant):
        return f"@{value.name}"
    producer = value.producer
    known = {} if producer and not producer.is_attached else value.graph.analysis(value_names)
    return known.get(value, f"%{value.hint or value.index}")


@attrs.frozen
class BoundOp:
    """An op that an `OpVar` captured, with the attributes that the pattern did not mention.

    Attributes:
        op: the op.
        attributes: what a call of it gets besides the operands, by parameter name.
    """

    op: Op
    attributes: Attributes

    @property
    def name(self) -> str:
        """The name of the op."""
        return self.op.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call(self.op, *args, **{**self.attributes, **kwargs})

    def __str__(self) -> str:
        return self.op.name


# --------------------------------------------------------------------------- in and out


def wrap(item: Any, ranges: Ranges) -> Any:
    """What a variable is bound to, as a rule sees it."""
    if isinstance(item, Value):
        return Handle(item, ranges)
    if isinstance(item, tuple):
        return tuple(wrap(part, ranges) for part in item)
    if isinstance(item, dict):
        return {name: wrap(part, ranges) for name, part in item.items()}
    return wrap_sizes(item, ranges)


def unwrap(item: Any) -> Any:
    """What a rule passes on, as the IR takes it."""
    if isinstance(item, Handle):
        return item.value
    if isinstance(item, list | tuple):
        return tuple(unwrap(part) for part in item)
    return unwrap_sizes(item)


# --------------------------------------------------------------------------- what calls mean


class Asking:
    """In `where`, a call of an op is a mistake."""

    def call(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        raise RuleError(
            f"`where` computes {op.name}: it asks about types, and makes no nodes",
            hint="compare .shape, .dtype, .rank; for the same value, `a is b` of variables is "
            "said in the pattern by using one variable twice",
        )


class Making:
    """In `replace`, a call of an op makes a node, which enters the graph if all goes well.

    Args:
        graph: where the nodes will be.
        loc: where they come from.
    """

    def __init__(self, graph: Graph, loc: Location) -> None:
        self.graph = graph
        self.loc = loc
        self.nodes: list[Node] = []
        self._ranges = ranges_of(graph)

    def call(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        named = op.bind(
            [unwrap(arg) for arg in args], {name: unwrap(arg) for name, arg in kwargs.items()}
        )
        operands, attributes, regions = bind_operands(named)
        types = infer_types(
            op,
            attributes,
            [value.type for value in operands],
            ranges=self._ranges,
            device=self.graph.device,
            regions=regions,
            fresh=lambda *_: _unknown_size(op),
        )
        node = Node(op, operands, attributes, types, regions=regions, loc=self.loc)
        self.nodes.append(node)
        results = tuple(Handle(value, self._ranges) for value in node.results)
        return results[0] if op.results == 1 else results

    def discard(self) -> None:
        """Forgets the nodes, which leaves the graph as it was."""
        for node in reversed(self.nodes):
            node.set_operands(())
        self.nodes.clear()


def _unknown_size(op: Op) -> Any:
    """Refuses what would bring a new symbol into the graph.

    Raises:
        RuleError: always.
    """
    raise RuleError(
        f"{op.name} gives a size or number that only a run can tell, and a replacement can't",
        hint="its type could not be the root's for all sizes; do it in a pass by hand, whose "
        "Builder names the new size",
    )
