"""Kernels of ours compile in a thread while Inductor compiles, and nobody hears of failures."""

import logging
import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from rewright.backends.torch.kernels import ahead, depthwise

OP = torch.ops.rewright_kernels.depthwise_conv.default


@pytest.fixture
def with_triton(monkeypatch):
    monkeypatch.setattr(depthwise, "has_triton", lambda: True)
    monkeypatch.setattr(depthwise, "_ready", set())


def like(*shape, dtype=torch.float16, device="cuda"):
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)


def calls(**changes):
    """An FX graph that convolves twice with one kernel and once with another."""
    sides = changes.pop("sides", (7, 7, 3))
    with FakeTensorMode():
        images = [like(2, 64, 14, 14, **changes) for _ in sides]
        weights = [like(64, 1, side, side, **changes) for side in sides]

        def program(images, weights):
            pairs = zip(images, weights, strict=True)
            return [OP(x, w, None, [1, 1], [w.shape[2] // 2] * 2, False) for x, w in pairs]

        return make_fx(program)(images, weights)


def test_each_kernel_is_compiled_once_while_the_caller_goes_on(with_triton, monkeypatch):
    goes_on, threads = threading.Event(), []

    def compiles(*args):
        def compile_kernel():
            assert goes_on.wait(30), "the caller waited"
            threads.append(threading.current_thread())

        return dict.fromkeys(depthwise.compiles(*args), compile_kernel)

    monkeypatch.setattr(ahead, "_COMPILES", {OP: compiles})
    with ahead.compiled_ahead(calls()):
        goes_on.set()
    assert len(threads) == 2, "and all are there at the end"
    assert threading.main_thread() not in threads


def test_a_failure_is_left_to_the_first_launch(with_triton, monkeypatch, caplog):
    def fails():
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(ahead, "_COMPILES", {OP: lambda *_: {"one": fails}})
    with caplog.at_level(logging.DEBUG, "rewright"), ahead.compiled_ahead(calls()):
        pass
    assert "ahead of its first launch: no C compiler" in caplog.text


@pytest.mark.parametrize(
    "changes", [{"dtype": torch.float32}, {"device": "cpu"}, {"sides": ()}], ids=str
)
def test_what_torch_computes_is_not_compiled(with_triton, changes):
    module = calls(**changes)
    found = [
        depthwise.compiles(*torch.fx.map_arg(node.args, lambda a: a.meta["val"]))
        for node in module.graph.find_nodes(op="call_function", target=OP)
    ]
    assert not any(found)
    with ahead.compiled_ahead(module):
        pass


def test_without_triton_nothing_is_loaded(monkeypatch):
    monkeypatch.setattr(depthwise, "has_triton", lambda: False)
    before = threading.active_count()
    ahead.load_triton()
    assert threading.active_count() == before
