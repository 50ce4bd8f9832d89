"""Graphs of one node, with the calls that they are compared in: made of samples of operators.

==============  ================================================================================
sizes           least, typical and largest in the calls
==============  ================================================================================
``fixed``       those of the sample; then once more with strides that no dense tensor has
``grown``       n, 1.5 n and 2 n, for each size n of the sample that is above 1
``from one``    1, n and 2 n
``from none``   0, n and 2 n
==============  ================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import torch
from torch.utils import _pytree as pytree

from rewright.errors import InferenceError, RewrightError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, SymbolInfo
from rewright.ir.ops import get_op
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import TensorType
from tests.backends.tensorrt.samples import Sample

Sizes = Mapping[int, tuple[int, int, int]]

VARIED: Final = {
    "grown": lambda n: (n, n + n // 2, 2 * n),
    "from one": lambda n: (1, n, 2 * n),
    "from none": lambda n: (0, n, 2 * n),
}
"""The least, typical and largest that a size of a sample becomes."""

MODES: Final = ("fixed", *VARIED)


@attrs.frozen(eq=False)
class Case:
    """A graph of one node, and the inputs of calls of it."""

    graph: Graph
    calls: tuple[tuple[torch.Tensor, ...], ...]


def case_of(
    sample: Sample, mode: str, constants: Sequence[str] = (), unused: Sequence[int] = ()
) -> Case | str:
    """The calls of a sample in a mode, or why there are none.

    Equal sizes vary together, and as many as the operator lets.

    Args:
        sample: a call.
        mode: a row of the table above.
        constants: arguments that become constants of the graph.
        unused: numbers of results that are no outputs of it.
    """
    if mode == "fixed":
        try:
            return _case(sample, constants, unused, {})
        except InferenceError:
            return "torch has no such call"  # tables of samples know nothing of dtypes
    leaves = pytree.tree_leaves((sample.args, sample.kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    sizes = list(dict.fromkeys(n for t in tensors for n in t.shape if n > 1))
    for varying in [sizes] if len(sizes) < 2 else [sizes, *([n] for n in sizes)]:
        try:
            if varying:
                return _case(sample, constants, unused, {n: VARIED[mode](n) for n in varying})
        except (RewrightError, RuntimeError):  # torch's own rule asks for the values of a tensor
            continue
    return f"no size may vary {mode}" if sizes else "there is no size above 1 to vary"


def _case(sample: Sample, constants: Sequence[str], unused: Sequence[int], varying: Sizes) -> Case:
    op = get_op(sample.op)
    named = op.bind(sample.args, sample.kwargs)
    graph, given = Graph("main"), []
    symbols = {n: symbol(f"s{i}") for i, n in enumerate(varying)}

    def put(name: str, item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            if name in constants:
                kind = TensorType(item.dtype, tuple(item.shape))
                return graph.add_constant(f"{name}{len(graph.constants)}", kind, data=item)
            shape = tuple(symbols.get(n, n) for n in item.shape)
            value = graph.add_input(TensorType(item.dtype, shape), f"x{len(given)}")
            given.append(item)
            for dim, n in enumerate(item.shape):
                if n in symbols and symbols[n] not in graph.symbols:
                    known = Range(*varying[n])
                    graph.symbols[symbols[n]] = SymbolInfo((known,), value, dim)
            return value
        if isinstance(item, list | tuple):
            return tuple(put(name, part) for part in item)
        return item

    arguments = {name: put(name, item) for name, item in named.items() if name != "generator"}
    node = Builder(graph).insert(op, arguments)
    graph.set_outputs([x for i, x in enumerate(node.results) if i not in unused])
    if not varying:
        return Case(graph, (tuple(given), tuple(map(_strided, given))))
    steps = [{n: sizes[at] for n, sizes in varying.items()} for at in range(3)]
    return Case(graph, tuple(tuple(_sized(x, step) for x in given) for step in steps))


def _sized(x: torch.Tensor, step: Mapping[int, int]) -> torch.Tensor:
    """`x` with other sizes: cut, or repeated, so that its values stay legal."""
    for dim, n in enumerate(x.shape):
        if n in step:
            x = torch.cat([x, x], dim).narrow(dim, 0, step[n])
    return x.contiguous()


def _strided(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, every other element of memory, dimensions in the opposite order."""
    if not x.dim():
        return x
    order = [*range(x.dim())][::-1]
    room = torch.zeros(*(x.permute(order).shape), 2, dtype=x.dtype)
    view = room[..., 0].permute(order)
    view.copy_(x)
    return view
