"""torch.utils.checkpoint in a compiled model: what it wraps just runs."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rewright.errors import UnsupportedError
from tests.frontends.jit import Block, check, compiles, jit, same

X = torch.linspace(-2, 2, 32).reshape(4, 8)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_blocks(reentrant: bool, dynamic: bool):
    check(Checkpointed(reentrant).eval(), X, dynamic=dynamic)


def test_blocks_with_gradients_enabled():
    model = Checkpointed(False).eval().requires_grad_(False)
    with compiles(1):
        found = jit(model)(X)
    same(found, model(X))


def test_nodes_know_their_module():
    from rewright import compiler

    places = []
    original = compiler.compile_graph

    def spy(graph, *args, **keywords):
        places.extend(node.loc.module for node in graph if node.op.name == "aten.linear")
        return original(graph, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "compile_graph", spy)
        check(Checkpointed(False).eval(), X)
    assert places == [f"blocks.{number}.fc" for number in range(3)]


def test_several_results_and_values_from_outside():
    def function(x, y):
        def body(x):
            return x * y.sum(), x.shape[0], x.cos()

        a, rows, b = checkpoint(body, x, use_reentrant=False)
        return a + b * rows

    check(function, X, X + 1, dynamic=True)


def test_nested():
    def inner(x):
        return checkpoint(lambda y: y.sin() * 2, x, use_reentrant=False) + 1

    check(lambda x: checkpoint(inner, x, use_reentrant=False), X)


def test_what_fails_inside_is_blamed_at_its_line():
    def body(x):
        return torch.nn.functional.dropout(x, 0.5, training=True)

    with pytest.raises(UnsupportedError, match="training mode") as caught:
        jit(lambda x: checkpoint(body, x, use_reentrant=False))(X)
    assert f"test_dynamo_checkpoint.py:{body.__code__.co_firstlineno + 1}" in caught.value.where
