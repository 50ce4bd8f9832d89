"""What the tests of the JIT frontend share."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import rewright

OPTIONS = {"on_error": "raise"}


def jit(model: Any, *, fullgraph: bool = True, **keywords: Any) -> Any:
    """`model` compiled by Rewright, whole, with errors raised."""
    options = {**OPTIONS, **keywords.pop("options", {})}
    return torch.compile(
        model, backend="rewright", fullgraph=fullgraph, options=options, **keywords
    )


@contextmanager
def compiles(graphs: int | None = None) -> Iterator[None]:
    """Asserts that within, graphs are compiled (this many, if said) and none falls back."""
    before = rewright.stats()
    yield
    done = rewright.stats() - before
    assert done.fallbacks == 0, done.fallback_reasons
    if graphs is None:
        assert done.graphs > 0
    else:
        assert done.graphs == graphs
    assert done.nodes > 0 or graphs == 0


def same(found: Any, expected: Any) -> None:
    """Asserts that two results are alike: structure, dtypes, strides and numbers."""
    torch.testing.assert_close(found, expected, check_stride=True, equal_nan=True)


def check(function: Callable[..., Any], *args: Any, graphs: int | None = 1, **keywords: Any) -> Any:
    """Compiles `function`, calls it without gradients, and compares with eager mode.

    What either writes to its arguments is compared, too.
    """
    mine, theirs = copy.deepcopy(args), copy.deepcopy(args)
    with torch.no_grad():
        expected = function(*theirs)
        with compiles(graphs):
            found = jit(function, **keywords)(*mine)
    same(found, expected)
    same(mine, theirs)
    return found


class Block(torch.nn.Module):
    """A small block with a linear layer, a norm and a buffer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.fc = torch.nn.Linear(width, width)
        self.register_buffer("scale", torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.nn.functional.gelu(self.fc(self.norm(x))) * self.scale


class Stack(torch.nn.Module):
    """Several blocks of one class, one after another."""

    def __init__(self, depth: int = 3, width: int = 8) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x
