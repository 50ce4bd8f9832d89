"""Core operators without a converter that no segment ever holds: by what they are gone, shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch.export import Dim, export

from rewright.backends.tensorrt.declaration import supports
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.refused import EARLIER
from rewright.frontends.export import import_exported
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Node
from rewright.ir.interpreter import interpret
from rewright.ir.ops import get_op
from rewright.ir.types import TensorType
from rewright.passes import Pipeline
from tests.backends.tensorrt.checking import check_graph, refusals, rtx

aten = torch.ops.aten
X = torch.rand(4, 6)
ROWS = ({0: Dim("rows", min=3, max=8)},)

IMPORTED: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], Any]] = {
    # the operator: what calls it, its arguments, their sizes
    "aten.sym_size.int": (lambda x: x.reshape(x.size(0) * 2, 3) + x.size(0), (X,), ROWS),
    "aten.sym_numel": (lambda x: x.sum() / x.numel(), (X,), ROWS),
    "aten.sym_stride.int": (lambda x: x * x.t().contiguous().stride(0), (X,), ROWS),
    "aten.sym_storage_offset": (lambda x: x * x[1:].storage_offset(), (X,), None),
    "aten.atan2.out": (lambda x, y: torch.atan2(x, y, out=torch.empty_like(x)), (X, X - 1), None),
}


@pytest.mark.parametrize("op", IMPORTED)
def test_by_the_import(op: str) -> None:
    function, args, sizes = IMPORTED[op]

    class Module(torch.nn.Module):
        def forward(self, *values: Any) -> Any:
            return function(*values)

    shapes = None if sizes is None else (sizes,)
    exported = export(Module().eval(), args, dynamic_shapes=shapes, strict=False)
    graph, _ = import_exported(exported, None)
    assert op not in {node.op.name for node in graph.walk()}
    assert refusals(graph, rtx()) == []
    check_graph(graph, [args], build=False)


def _pooled() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(2, 4, 6, 6)
    return x, aten.max_pool2d_with_indices(x, [2, 2], [2, 2])[1]


def _norm(x: torch.Tensor, dims: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mean(dims, keepdim=True), (x.var(dims, correction=0, keepdim=True) + 1e-5).rsqrt()


def _layer_norm() -> tuple[Any, ...]:
    x = torch.randn(3, 5)
    weight, bias = torch.randn(2, 5)
    return (torch.randn(3, 5), x, [5], *_norm(x, [1]), weight, bias, [True, True, True])


def _group_norm() -> tuple[Any, ...]:
    x = torch.randn(2, 4, 9)
    mean, rstd = (part.flatten(1) for part in _norm(x.reshape(2, 2, 18), [2]))
    return (torch.randn(2, 4, 9), x, mean, rstd, torch.randn(4), 2, 4, 9, 2, [True, True, True])


def _max_pool() -> tuple[Any, ...]:
    x, places = _pooled()
    return torch.randn(2, 4, 3, 3), x, [2, 2], [2, 2], [0, 0], [1, 1], False, places


DECOMPOSED = {
    "aten.max_pool2d_with_indices_backward": _max_pool,
    "aten.native_group_norm_backward": _group_norm,
    "aten.native_layer_norm_backward": _layer_norm,
}


@attrs.frozen
class _Backend:
    """What `decompose` asks: TensorRT's table of converters."""

    library: Library
    name: str = "tensorrt"

    def refuse(self, node: Node) -> str | None:
        refusal = supports(node, self.library)
        return None if refusal is None else str(refusal)


@pytest.mark.parametrize("op", DECOMPOSED)
def test_by_decompose(op: str) -> None:
    """What torch's definition makes of it, TensorRT takes, and computes the same numbers."""
    graph, given = Graph("main"), []

    def put(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            given.append(item)
            return graph.add_input(TensorType(item.dtype, tuple(item.shape)), f"x{len(given)}")
        return item

    arguments = get_op(op).bind(tuple(put(item) for item in DECOMPOSED[op]()), {})
    node = Builder(graph).insert(get_op(op), arguments)
    graph.set_outputs(node.results)
    expected = interpret(graph, given).outputs
    backend = _Backend(rtx())
    Pipeline.parse("decompose,dce").run(graph, backends={backend.name: backend})
    assert op not in {node.op.name for node in graph.walk()}
    assert refusals(graph, rtx()) == []
    check_graph(graph, [given], slack=5.0)
    for made, was in zip(interpret(graph, given).outputs, expected, strict=True):
        torch.testing.assert_close(made, was)


def test_each_is_shown() -> None:
    assert {*IMPORTED, *DECOMPOSED} == EARLIER.keys()
