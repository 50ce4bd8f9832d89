"""Layouts that torch's fake kernels state wrongly: outputs have eager's all the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rewright
from rewright.frontends.eager_strides import restated

from .checks import compare_results, export_and_compare

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.permute(0, 3, 1, 2),
    "height and width swapped": lambda x: x.transpose(2, 3),
    "one repeated": lambda x: x[:1].expand(3, -1, -1, -1),
}

OPS = {
    "roll": lambda x: x.roll(1, 1),
    "one_hot": lambda x: F.one_hot((x > 0).long(), 2),
    "batch_norm": lambda x: F.batch_norm(x, x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])),
    "index": lambda x: x[:, torch.tensor([0, 1])],
    "index of one": lambda x: x[torch.tensor([0])],
    "then elementwise": lambda x: (x.roll(1, 1) * 2 + 1).relu(),
    "then a view": lambda x: x.roll(1, 1).transpose(1, 2)[:, 1:],
    "then a split": lambda x: torch.split(x.roll(1, 1) + 1, 2, 1)[0],
    "then a copy": lambda x: (x.roll(1, 1) + 1).clone(memory_format=torch.contiguous_format),
    "then in place": lambda x: x.roll(1, 1).add_(1).mul_(2),
    "twice": lambda x: x.roll(1, 1).sin().roll(2, 2),
    "then conv": lambda x: F.conv2d(x.roll(1, 1), x.new_ones(2, x.shape[1], 1, 1)),
}


class Net(nn.Module):
    def __init__(self, layout: str, op: str) -> None:
        super().__init__()
        self.layout, self.op = layout, op

    def forward(self, x):
        return OPS[self.op](LAYOUTS[self.layout](x))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_outputs_have_eagers_strides(op, layout):
    export_and_compare(Net(layout, op), (torch.randn(2, 4, 6, 8),), on_error="raise")


@pytest.mark.parametrize("op", ["roll", "batch_norm", "then elementwise"])
def test_outputs_of_compiled_functions_have_eagers_strides(op):
    net, x = Net("height and width swapped", op), torch.randn(2, 4, 6, 8)
    before = rewright.stats()
    compiled = torch.compile(net, backend="rewright", options={"on_error": "raise"})
    compare_results(compiled(x), net(x))
    done = rewright.stats() - before
    assert (done.graphs, done.fallbacks) == (1, 0)
    assert done.nodes > 0


def test_what_torch_export_lost_is_as_its_own_module_has_it():
    class Lost(nn.Module):
        def forward(self, x):  # the fake roll is contiguous: torch.export drops contiguous()
            return x.permute(0, 3, 1, 2).roll(1, 1).contiguous()

    x = torch.randn(2, 4, 6, 8)
    exported = torch.export.export(Lost(), (x,))
    before = rewright.stats()
    program = rewright.compile_exported(exported, on_error="raise")
    assert program(x).stride() == exported.module()(x).stride()
    torch.testing.assert_close(program(x), Lost()(x))
    done = rewright.stats() - before
    assert (done.graphs, done.fallbacks) == (1, 0)
    assert done.nodes > 0


def test_only_what_may_be_wrong_is_looked_at():
    def nodes(layout: str, op: str) -> list[str]:
        module = torch.export.export(Net(layout, op), (torch.randn(2, 4, 6, 8),)).graph_module
        return [node.name for node in restated(module, lambda device: device)]

    assert nodes("contiguous", "then conv") == []
    assert nodes("channels last", "then elementwise") == ["roll", "mul", "add", "relu"]
    plain = torch.export.export(nn.Conv2d(4, 4, 1), (torch.randn(2, 4, 6, 8),)).graph_module
    assert restated(plain, lambda device: device) == {}
