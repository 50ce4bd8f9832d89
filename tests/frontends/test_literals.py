"""Numbers that a forward makes tensors of stand in the graph as numbers."""

import torch
from torch import nn

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
    program = export_and_compare(Numbers(), (X,))
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


def test_only_what_the_tracer_named_is_a_number():
    number = torch.tensor(2.0)
    assert literal_number("layer.lifted_tensor_0", number) == 2.0
    assert literal_number("_tensor_constant12", number) == 2.0
    assert literal_number("layer.scale", number) is None
    assert literal_number("lifted_tensor_0", torch.tensor([2.0])) is None
    assert literal_number("lifted_tensor_0", torch.tensor(2j)) is None
    assert literal_number("lifted_tensor_0", None) is None
