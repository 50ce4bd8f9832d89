"""Elements chosen by their values: networks for `tensorrt`, and why TensorRT for RTX has none.

No engine of `tensorrt` can be built here. The networks are defined with TensorRT for RTX, whose
layers have the same definition, and evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch

from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.segment import TensorRT
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.segments import segment_program
from rewright.ir.verifier import verify
from rewright.passes.partition.partition import partition
from tests.backends.tensorrt.api_check import api
from tests.backends.tensorrt.checking import evaluate, import_function, refusals, rtx

X = torch.tensor([[0.5, 0.0, -2.0], [0.0, 0.0, 3.0]])
DEEP = torch.arange(120.0).reshape(2, 3, 4, 5)
MASK = torch.tensor([[True, False, True, False]] * 2 + [[False] * 4])

CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "nonzero": (lambda x: x.nonzero(), (X,)),
    "nonzero of bools": (lambda x: x.nonzero(), (X > 0,)),
    "nonzero of nothing": (lambda x: x.nonzero(), (X * 0,)),
    "masked select": (torch.masked_select, (X, X > 0)),
    "masked select, broadcast": (torch.masked_select, (X, torch.tensor([True, False, True]))),
    "masked select of a broadcast": (torch.masked_select, (X[:1], X > 0)),
    "a mask of all dimensions": (lambda x: x[x > 0].sum(), (X,)),
    "a mask of the first": (lambda x, m: x[m], (DEEP, torch.tensor([False, True]))),
    "a mask of the last": (lambda x, m: x[:, :, :, m] * 2, (DEEP, torch.arange(5) > 1)),
    "a mask in the middle": (lambda x, m: x[:, m], (DEEP, MASK)),
    "sizes go on": (lambda x: (x[x > 0].unsqueeze(1) + 1).repeat(1, 3), (X,)),
}


def _classic() -> Library:
    return attrs.evolve(rtx(), flavor="tensorrt")


def _graph(name: str) -> tuple[Graph, tuple[Any, ...]]:
    function, args = CASES[name]
    graph = import_function(function, args)
    for node in [node for node in graph if node.op.name == "aten._assert_scalar"]:
        node.erase()  # what torch asserts of the size, it knows
    return graph, args


@pytest.mark.parametrize("name", CASES)
def test_networks_for_tensorrt(name: str) -> None:
    graph, args = _graph(name)
    assert refusals(graph, _classic()) == []
    (made,) = evaluate(emit(graph, _classic()), args)
    assert torch.equal(made, CASES[name][0](*args))


@pytest.mark.parametrize("name", CASES)
def test_one_engine_of_tensorrt_finds_the_size_and_computes_with_it(name: str) -> None:
    graph, args = _graph(name)
    assert partition(graph, [TensorRT(_classic())]).left == ()
    verify(graph)
    (segment,) = graph
    inner = segment_program(segment).graph
    made = evaluate(emit(inner, _classic()), args)
    for ours, theirs in zip(made, interpret(inner, list(args)).outputs, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(interpret(graph, list(args)).outputs[0], CASES[name][0](*args))


def test_the_size_stays_with_torch_where_rtx_builds_the_rest() -> None:
    graph, args = _graph("sizes go on")
    (left,) = partition(graph, [TensorRT(rtx())]).left
    assert left.op == "aten.index.Tensor"
    assert "target='tensorrt' has one" in left.reason
    assert [node.op.name for node in graph] == ["rw.segment", left.op, "rw.segment"]
    assert torch.equal(interpret(graph, list(args)).outputs[0], CASES["sizes go on"][0](*args))


@pytest.mark.parametrize("name", ["nonzero", "masked select", "a mask in the middle"])
def test_rtx_says_which_target_can(name: str) -> None:
    graph, _ = _graph(name)
    reasons = refusals(graph, rtx())
    assert len(reasons) == 1, "what follows, can have a size that torch has found"
    assert "depends on values" in reasons[0]
    assert "target='tensorrt'" in reasons[0]


def test_a_size_without_an_end_is_refused() -> None:
    graph, _ = _graph("nonzero")
    for symbol, info in graph.symbols.items():
        known = tuple(attrs.evolve(item, max=None) for item in info.ranges)
        graph.symbols[symbol] = attrs.evolve(info, ranges=known)
    (reason,) = refusals(graph, _classic())
    assert "torch._check(size <= max)" in reason


def test_the_layer_takes_one_tensor_in_every_version() -> None:
    """A choice of the indices' dtype came with 10.14, and is not used."""
    found = api().find("INetworkDefinition", "add_non_zero")
    assert len(found) == len(api().versions)
    assert all("input" in str(signature) for signature in found.values())
