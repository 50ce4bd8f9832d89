"""The flat inputs of a JIT graph, under the names that their users know."""

import pytest
import torch
from torch import nn

from rewright.frontends.jit_inputs import (
    JitInput,
    describe_inputs,
    placeholders_of,
    signature_of,
)
from tests.frontends.jit import Stack

X = torch.ones(2, 8)


def described(function, *args, dynamic: bool = False) -> list[JitInput]:
    """The inputs of the only graph that Dynamo makes of `function`."""
    found: list[JitInput] = []

    def backend(gm, example_inputs):
        found.extend(describe_inputs(gm, example_inputs))
        return gm.forward

    torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)(*args)
    return found


def names(function, *args, kind: str = "input", **keywords) -> list[str]:
    return [i.name for i in described(function, *args, **keywords) if i.kind == kind]


def test_parameters_and_buffers_are_named_as_in_the_model():
    model = Stack(1)

    def by_call(x):
        return model(x)

    for function, prefix in ((model, ""), (model.forward, ""), (by_call, "model.")):
        parameters = names(function, X, kind="parameter")
        assert set(parameters) == {prefix + name for name, _ in model.named_parameters()}
        assert names(function, X, kind="buffer") == [f"{prefix}blocks.0.scale"]


def test_arguments_are_named_as_a_caller_writes_them():
    found = names(
        lambda x, pair, cache: x + pair[1][0] + cache["key"],
        X,
        (0, [X + 1]),
        {"key": X + 2},
    )
    assert found == ["x", "pair[1][0]", "cache['key']"]


def test_sizes_and_numbers():
    found = described(lambda x, n, f: x.reshape(-1) * n * f, X, 3, 0.5, dynamic=True)
    assert [(i.name, i.wrapped_float) for i in found] == [
        ("x.size()[0]", False),
        ("x.size()[1]", False),
        ("x", False),
        ("n", False),
        ("f", True),
    ]


def test_a_parameter_of_a_list_and_one_passed_by_hand():
    weights = nn.ParameterList([nn.Parameter(X)])
    assert names(lambda x: x + weights[0], X, kind="parameter") == ["weights.0"]
    assert names(lambda w: w * 2, nn.Parameter(X), kind="parameter") == ["w"]


def test_equal_names_are_told_apart():
    graph = torch.fx.Graph()
    for name in ("a", "b"):
        node = graph.placeholder(name)
        node._dynamo_source = type("Source", (), {"name": "L['x']"})()
    graph.output(())
    found = describe_inputs(torch.fx.GraphModule({}, graph), [X, X])
    assert [item.name for item in found] == ["x", "x_1"]


def test_placeholders_and_signature():
    inputs = [
        JitInput("fc.weight", "parameter"),
        JitInput("cache['key']", "input"),
        JitInput("fc.scale", "buffer"),
        JitInput("n", "input"),
    ]
    assert [(p.name, p.kind, p.data) for p in placeholders_of(inputs)] == [
        ("fc.weight", "parameter", None),
        ("cache_key", "input", None),
        ("fc.scale", "buffer", None),
        ("n", "input", None),
    ]
    signature = signature_of(inputs)
    assert signature.in_spec is None
    assert [(a.name, a.input, a.constant) for a in signature.arguments] == [
        ("fc.weight", None, "fc.weight"),
        ("cache['key']", 0, None),
        ("fc.scale", None, "fc.scale"),
        ("n", 1, None),
    ]


@pytest.mark.parametrize("source", ["L['___stack0']", "G['__import_x'].weight"])
def test_any_source_has_a_name(source: str):
    graph = torch.fx.Graph()
    graph.placeholder("a")._dynamo_source = type("Source", (), {"name": source})()
    graph.output(())
    (item,) = describe_inputs(torch.fx.GraphModule({}, graph), [X])
    assert item.name
    assert placeholders_of([item])[0].name.isidentifier()
