"""Regions of torch.func transforms become plain operators that compute the same."""

import pytest
import torch
from torch import nn

import rewright
from rewright.errors import UnsupportedError
from rewright.frontends.transforms import flatten_transforms, is_transform

X = torch.linspace(-2, 2, 32).reshape(4, 8)


def exported(function, *args, **keywords) -> torch.fx.GraphModule:
    class Model(nn.Module):
        def forward(self, *args):
            return function(*args)

    return torch.export.export(Model(), args, **keywords).graph_module


def check(function, *args) -> torch.fx.GraphModule:
    flat = flatten_transforms(exported(function, *args))
    flat.graph.lint()
    assert not any(map(is_transform, flat.graph.nodes))
    torch.testing.assert_close(flat(*args), function(*args))
    return flat


def test_vmap():
    flat = check(lambda x: (torch.vmap(lambda row: row.sum() * row)(x) + 1,), X)
    made = [n for n in flat.graph.nodes if "sum" in str(n.target)]
    assert "test_transforms.py" in made[0].meta["stack_trace"]


def test_nested_and_several():
    def function(x):
        y = torch.vmap(torch.vmap(lambda a: a.sin() * 2))(x)
        return torch.vmap(lambda a, b: (a @ b, a), in_dims=(0, 1))(y, y.t())

    check(function, X)


def test_what_a_region_uses_from_outside():
    def function(x):
        shift = x.sum()
        return (torch.vmap(lambda row: row * shift + torch.arange(8))(x),)

    check(function, X)


def test_symbolic_sizes():
    def function(x):
        return (torch.vmap(lambda row: row.softmax(-1))(x) * x.shape[0],)

    flat = flatten_transforms(
        exported(function, X, dynamic_shapes=(({0: torch.export.Dim.AUTO},),))
    )
    for rows in (2, 7):
        x = torch.rand(rows, 8)
        torch.testing.assert_close(flat(x), function(x))


def test_an_exported_program_with_vmap_compiles():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return torch.vmap(lambda row: self.fc(row) * torch.tensor(2.0))(x)

    model = Model().eval()
    program = rewright.compile(model, (X,))
    with torch.no_grad():
        torch.testing.assert_close(program(X + 1), model(X + 1))


def test_a_graph_without_transforms_is_returned_as_it_is():
    module = exported(lambda x: (x * 2,), X)
    assert flatten_transforms(module) is module


def test_the_module_given_is_not_changed():
    module = exported(lambda x: (torch.vmap(torch.sin)(x),), X)
    before = str(module.graph)
    flatten_transforms(module)
    assert str(module.graph) == before


def test_a_transform_that_fails_names_its_line(monkeypatch: pytest.MonkeyPatch):
    from rewright.frontends import transforms

    def broken(*args, **keywords):
        raise RuntimeError("no batching rule\nand more")

    module = exported(lambda x: (torch.vmap(torch.sin)(x),), X)
    monkeypatch.setattr(transforms, "make_fx", broken)
    with pytest.raises(UnsupportedError, match="no batching rule") as caught:
        flatten_transforms(module)
    assert "test_transforms.py" in caught.value.where
