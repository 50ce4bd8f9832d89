"""Prepared constants: the recipes of a graph, computed from its sources.

Folding moves constant arithmetic here from the middle of a program, where each step would have
rounded to its dtype. Done once, it is done in ``f32`` where the dtype is a 16-bit float, and
rounded once, at the end. What holds the same bits is kept once, and what is on the way to a
constant no longer than needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from rewright.errors import UnsupportedError
from rewright.ir.attributes import Operand
from rewright.ir.calls import flat_results, torch_arguments
from rewright.ir.contents import equal_contents
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.ops import SCALAR, Trait, call
from rewright.ir.sizes import evaluate
from rewright.ir.types import TensorType

_WIDE: Final[Mapping[torch.dtype, torch.dtype]] = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.complex32: torch.complex64,
}
"""What 16-bit numbers are computed in."""

_BITS: Final = frozenset(["aten.view.dtype", "aten.view_as_real", "aten.view_as_complex"])
"""Ops that look at how numbers are stored."""


def recipe_sources(graph: Graph) -> tuple[Constant, ...]:
    """The sources that the recipes of `graph` read, in the graph's order."""
    if not graph.has_recipes:
        return ()
    read = {value for node in graph.prepare for value in node.operands}
    read.update(graph.prepare.outputs)
    return tuple(c for c in graph.constants.values() if c.is_source and c in read)


def prepare(graph: Graph, sources: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The prepared constants of `graph`, by name.

    Args:
        graph: a graph with recipes.
        sources: the sources that they read, by name.

    Raises:
        UnsupportedError: a recipe holds a region.
    """
    if not graph.has_recipes:
        return {}
    with torch.inference_mode(False), torch.no_grad(), torch._C._DisableAutocast():
        return _shared(_Kitchen(graph, sources).run())


def prepared_now(graph: Graph) -> dict[str, Tensor]:
    """The prepared constants of `graph`, by name, of its sources as they are.

    Where these were not saved with it, the prepared constants are those that it was loaded with.

    Raises:
        UnsupportedError: a recipe holds a region.
    """
    if lacks_sources(graph):
        constants = graph.constants.values()
        return {c.name: c.data for c in constants if not c.is_source and c.data is not None}
    return prepare(graph, {c.name: _at_home(c, graph) for c in recipe_sources(graph)})


def lacks_sources(graph: Graph) -> bool:
    """Whether the recipes of `graph` read a source that has no data."""
    return any(c.data is None or c.data.is_meta for c in recipe_sources(graph))


def _at_home(constant: Constant, graph: Graph) -> Tensor:
    """The data of a source where the program has it."""
    assert constant.data is not None
    elsewhere = constant.type.device if isinstance(constant.type, TensorType) else None
    return constant.data if elsewhere else constant.data.to(graph.device)


def _shared(made: dict[str, Tensor]) -> dict[str, Tensor]:
    """`made`, with one tensor for all that hold the same bits in the same order of memory."""
    alike: dict[tuple[int, ...], dict[str, Tensor]] = {}
    for name, tensor in made.items():
        alike.setdefault(tensor.stride(), {})[name] = tensor
    for group in alike.values():
        for first, *others in equal_contents(group):
            made.update((other, made[first]) for other in others)
    return made


@attrs.define(eq=False)
class _Kitchen:
    """Computes recipes, in order."""

    graph: Graph
    sources: Mapping[str, Tensor]
    values: dict[Value, Any] = attrs.field(factory=dict)
    """What later nodes use."""
    waiting: Counter[Value] = attrs.field(factory=Counter)
    """How many uses of a value are still to come."""

    def run(self) -> dict[str, Tensor]:
        recipes = self.graph.prepare
        names: dict[Value, list[str]] = {}
        for name, value in zip(recipes.prepared_names, recipes.outputs, strict=True):
            names.setdefault(value, []).append(name)
        self.waiting.update(value for node in recipes for value in self._operands(node))
        made: dict[str, Tensor] = {}
        for constant in recipes.outputs:
            if isinstance(constant, Constant):
                self._serve(constant, names, made)
        for node in recipes:
            self._node(node)
            for value in node.results:
                self._serve(value, names, made)
            self._forget(node)
        return {name: made[name] for name in recipes.prepared_names}

    def _serve(
        self, value: Value, names: Mapping[Value, list[str]], made: dict[str, Tensor]
    ) -> None:
        for name in names.get(value, ()):
            made[name] = _rounded(self._value(value), self.graph.constants[name])

    def _operands(self, node: Node) -> Iterable[Value]:
        """The values that `node` uses; for a prepared constant, its recipe."""
        for value in node.operands:
            if isinstance(value, Constant) and not value.is_source:
                yield self.graph.recipe(value)
            else:
                yield value

    def _forget(self, node: Node) -> None:
        """Drops what nothing after `node` uses."""
        for value in self._operands(node):
            self.waiting[value] -= 1
        for value in (*self._operands(node), *node.results):
            if not self.waiting[value]:
                self.values.pop(value, None)

    def _value(self, value: Value) -> Any:
        if isinstance(value, Constant):
            if value.is_source:
                return self.sources[value.name].detach()
            return self._value(self.graph.recipe(value))
        return self.values[value]

    def _node(self, node: Node) -> None:
        if node.regions:
            raise UnsupportedError(
                "a recipe of constants holds a region", op=node.op.name, where=node.loc
            )
        if node.op is SCALAR:
            self.values[node.result] = evaluate(node.attributes["value"], {})
            return
        widen = not (node.op.has(Trait.MOVEMENT) or _needs_exact(node))

        def put(leaf: Any) -> Any:
            if isinstance(leaf, Operand):
                operand = node.operands[leaf.index]
                value = self._value(operand)
                return _widened(value) if widen else self._exact(node, operand, value)
            return _WIDE.get(leaf, leaf) if widen and isinstance(leaf, torch.dtype) else leaf

        returned = call(node.op, torch_arguments(node.attributes, put))
        results: Sequence[Any] = flat_results(returned)
        self.values.update(zip(node.results, results, strict=True))

    def _exact(self, node: Node, operand: Value, value: Any) -> Any:
        return _rounded(value, operand) if _needs_exact(node) else value


def _needs_exact(node: Node) -> bool:
    """Whether the dtypes of operands are part of what `node` means."""
    return node.op.name in _BITS or node.op.has(Trait.OPAQUE)


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in _WIDE:
        return value.to(_WIDE[value.dtype])
    return value


def _rounded(value: Any, like: Value) -> Any:
    """`value` in the dtype that `like` has."""
    return value.to(like.type.dtype) if isinstance(like.type, TensorType) else value
