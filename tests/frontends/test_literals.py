"""Numbers that a forward makes tensors of stand in the graph as numbers."""

import pytest
import torch
from torch import nn

import rewright
from rewright.frontends.literals import literal_number
from tests.frontends.checks import export_and_compare
from tests.frontends.jit import compiles, jit, same

X = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]])


class Numbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.tensor(2.0)

    def forward(self, x):
        masked = torch.where(x > 0, torch.tensor(0.0), torch.tensor(float("-inf")))
        total = torch.tensor(1.0)
        total += 2
        half = torch.tensor(0.1, dtype=torch.float16)
        row = torch.tensor([1, 2, 3])
        return masked.softmax(-1), x * half, total, torch.tensor(True), x + row, x * self.kept


def test_numbers_are_fills():
    program = export_and_compare(Numbers(), (X,), optimization_level=1)
    fills = [node for node in program.graph if node.op.name == "aten.full"]
    assert [node.attributes["fill_value"] for node in fills] == [
        0.0,
        float("-inf"),
        1.0,
        0.0999755859375,  # what 0.1 is in f16
        True,
    ]
    # a list is no number, and an attribute is the module's own
    assert {constant.type.shape for constant in program.graph.constants.values()} == {(3,), ()}
    assert any(name.endswith("kept") for name in program.graph.constants)


def test_a_caller_may_write_to_such_a_result():
    program = export_and_compare(Numbers(), (X,))
    program(X)[2].add_(5)
    assert program(X)[2] == 3


def test_numbers_in_the_jit():
    model = Numbers()
    compiled = jit(model)
    with torch.no_grad(), compiles(1):
        same(compiled(X), model(X))


class Counter:
    def __init__(self) -> None:
        self.calls = torch.tensor(0)


def test_a_tensor_from_outside_is_no_number():
    counter = Counter()

    class Counting(nn.Module):
        def forward(self, x):
            counter.calls.add_(1)
            return x + counter.calls

    exported = torch.export.export(Counting(), (X,), strict=False)
    counter.calls.zero_()
    program = rewright.compile_exported(exported)
    for call in (1, 2, 3):
        assert torch.equal(program(X), X + call)


@pytest.mark.parametrize("copies", [False, True])
def test_a_cast_that_does_nothing_is_the_tensor_from_outside(copies):
    counter = Counter()

    class Counting(nn.Module):
        def forward(self, x):
            calls = counter.calls.to(x.device, torch.int64, copy=copies)
            calls.add_(1)
            return x + calls

    exported = torch.export.export(Counting(), (X,), strict=False)
    counter.calls.zero_()
    program = rewright.compile_exported(exported)
    for call in (1, 2, 3):
        assert torch.equal(program(X), X + (1 if copies else call))


def _node(*targets) -> torch.fx.Node:
    graph = torch.fx.Graph()
    made = graph.placeholder("constant")
    for target in targets:
        graph.call_function(target, (made,))
    return made


def test_only_what_the_tracer_named_is_a_number():
    number = torch.tensor(2.0)
    node = _node(torch.ops.aten.lift_fresh_copy.default)
    assert literal_number(node, "layer.lifted_tensor_0", number) == 2.0
    assert literal_number(node, "_tensor_constant12", number) == 2.0
    assert literal_number(node, "layer.scale", number) is None
    assert literal_number(node, "lifted_tensor_0", torch.tensor([2.0])) is None
    assert literal_number(node, "lifted_tensor_0", torch.tensor(2j)) is None
    assert literal_number(node, "lifted_tensor_0", None) is None
    assert literal_number(_node(torch.ops.aten.relu.default), "lifted_tensor_0", number) is None
