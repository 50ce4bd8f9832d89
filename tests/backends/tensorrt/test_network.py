"""What is checked after each layer, and what a version of TensorRT can't do."""

from __future__ import annotations

import ctypes
import gc
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from rewright.backends.tensorrt import declaration
from rewright.backends.tensorrt.declaration import converters, supports
from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.enums import ElementWiseOperation
from rewright.backends.tensorrt.library import Library, version_of
from rewright.backends.tensorrt.network import Network
from rewright.errors import ConversionError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph
from rewright.ir.types import TensorType
from rewright.testing import evaluate_network
from tests.backends.tensorrt.api_check import api
from tests.backends.tensorrt.checking import check, rtx


def _graph(op: str, *sizes: int, **attributes: Any) -> Graph:
    graph = Graph("main")
    x = graph.add_input(TensorType(torch.float32, sizes), "x")
    graph.set_outputs([Builder(graph).call(op, x, **attributes)])
    return graph


# --------------------------------------------------------------------------- checks


def test_a_setter_that_only_logs_is_an_error() -> None:
    """TensorRT keeps the old axis and says so in its log alone."""
    net = Network(rtx())
    x = net.add_input("x", torch.float32, (2, 3))
    with pytest.raises(ConversionError, match="refused add_concatenation"):
        net.layer("add_concatenation", [x, x], axis=-1)


def test_what_tensorrt_refuses_names_the_layer() -> None:
    net = Network(rtx())
    x, y = (net.add_input(name, torch.float32, (2, size)) for name, size in (("x", 3), ("y", 4)))
    with pytest.raises(ConversionError, match=r"refused add_elementwise: .*"):
        net.layer("add_elementwise", x, y, ElementWiseOperation.SUM)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda call, self: self.to(torch.float16),
        lambda call, self: call.net.layer("add_shuffle", self, reshape_dims=(6,)),
    ],
    ids=["dtype", "shape"],
)
def test_a_wrong_converter_is_found_at_its_node(wrong: Any, monkeypatch: Any) -> None:
    known = converters()["aten.relu"]
    monkeypatch.setitem(declaration._converters, "aten.relu", attrs.evolve(known, convert=wrong))
    with pytest.raises(ConversionError, match=r"TensorRT makes .* the graph says f32\[2, 3\]"):
        emit(_graph("aten.relu", 2, 3), rtx())


def test_weights_live_as_long_as_the_network() -> None:
    """TensorRT refers to their memory and copies nothing."""
    graph = Graph("main")
    data = torch.randn(64, 64)
    expected = data.clone()
    w = graph.add_constant("w", TensorType(torch.float32, (64, 64)), data=data)
    x = graph.add_input(TensorType(torch.float32, (64, 64)), "x")
    graph.set_outputs([Builder(graph).call("aten.add.Tensor", x, w)])
    emitted = emit(graph, rtx())
    del graph, w, data
    gc.collect()
    [torch.randn(64, 64) for _ in range(64)]  # would take the memory, if it were free
    zeros = torch.zeros(64, 64)
    made = evaluate_network(emitted.net.definition, {"x": zeros}, {})
    assert torch.equal(next(iter(made.values())), expected)


def test_constants_are_not_copied() -> None:
    data = torch.randn(8, 8)
    net = Network(rtx())
    _ = net.constant(data).handle
    (kept,) = net.weights.values()
    assert kept.data_ptr() == data.data_ptr()
    assert ctypes.c_float.from_address(kept.data_ptr()).value == data[0, 0].item()


def test_outputs_that_are_inputs_constants_or_twice_the_same() -> None:
    c = torch.arange(3.0)
    check(lambda x: (x, x + 1, x, c.clone(), x.shape[0]), (torch.randn(3),))


# --------------------------------------------------------------------------- other versions


def _library(name: str) -> Library:
    """A stand-in for a version of TensorRT: it has the names that version has, and does nothing."""
    package, _, version = name.partition(" ")
    number = api().versions.index(name)
    module = SimpleNamespace(__name__=package)
    for owner, members in api().classes.items():
        if number in api().find(owner):
            found = {m: object() for m in members if m and number in api().find(owner, m)}
            setattr(module, owner, SimpleNamespace(**found))
    return Library(module, "rtx" if package == "tensorrt_rtx" else "tensorrt", version_of(version))


OLD, NEW = "tensorrt 10.3.0", "tensorrt 11.4.0.106"


def test_what_an_old_version_lacks_is_refused_with_the_reason() -> None:
    (node,) = _graph("aten.cumsum", 2, 3, dim=1)
    assert supports(node, _library(NEW)) is None
    assert str(supports(node, _library(OLD))) == "tensorrt 10.3.0 has no add_cumulative"


@pytest.mark.parametrize("version", api().versions)
def test_every_version_takes_the_usual(version: str) -> None:
    for op, attributes in {"aten.relu": {}, "aten.softmax.int": {"dim": 1}, "aten.t": {}}.items():
        (node,) = _graph(op, 2, 3, **attributes)
        assert supports(node, _library(version)) is None


def test_reasons() -> None:
    cases = {
        "aten.pixel_shuffle": None,
        "aten.as_strided": "reads memory by strides",
        "aten.fft_fft": "no converter",
    }
    graph = Graph("main")
    x = graph.add_input(TensorType(torch.float32, (1, 4, 2, 2)), "x")
    build = Builder(graph)
    build.call("aten.pixel_shuffle", x, 2)
    build.call("aten.as_strided", x, (2,), (1,))
    build.call("aten.fft_fft", x)
    for node in graph:
        reason = supports(node, rtx())
        wanted = cases[node.op.name]
        assert (reason is None) == (wanted is None)
        assert wanted is None or wanted in str(reason)
