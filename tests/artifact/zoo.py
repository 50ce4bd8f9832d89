"""Small programs that between them have all that an artifact must keep."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

import rewright
from rewright.program import CompiledProgram


@dataclasses.dataclass
class Scores:
    logits: Tensor
    hidden: Tensor
    loss: Tensor | None = None


pytree.register_dataclass(Scores, serialized_type_name="zoo.Scores")

Pair = collections.namedtuple("Pair", ["first", "second"])


class Tied(nn.Module):
    """Two names of one weight, and a view of it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("first", self.embed.weight.detach()[:4])
        self.register_buffer("turned", self.embed.weight.detach().t())

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.head(x), x @ self.turned, x @ self.first.t()


class Counting(nn.Module):
    """Writes to a buffer and to an argument; returns a view of each and of an output."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("cache", torch.zeros(4, 6))

    def forward(self, x, into):
        self.calls += 1
        self.cache[:, :3] = x
        into.mul_(2)
        y = x + self.calls
        return y, y.t(), self.cache[1:], into


class Nested(nn.Module):
    """Takes and gives nests, by position and by name; a number, and None."""

    def forward(self, batch, *, scale: float, pair, names=None):
        x = batch["x"] * scale + pair[0]
        made = Scores(x, x.relu(), None)
        return {"scores": made, "pair": Pair(x, (pair[1],)), "none": None, "list": [x, 7]}


class Dtypes(nn.Module):
    """A constant of each kind, some without elements or dimensions."""

    DTYPES = (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.int8),
        *(torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32),
        *(torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
    )

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        for number, dtype in enumerate(self.DTYPES):
            data = (torch.rand(3, 5, generator=rng) * 7).to(dtype)
            self.register_buffer(f"c{number}", data)
        self.register_buffer("nothing", torch.empty(0, 3))
        self.register_buffer("point", torch.tensor(2.5))
        self.register_buffer("wide", torch.ones(1, 5).expand(3, 5))
        self.register_buffer("apart", torch.arange(60.0).view(3, 20)[:, ::4])
        self.register_buffer("conjugate", torch.randn(3, 5, dtype=torch.complex64).conj())

    def forward(self, x):
        given = [getattr(self, f"c{number}") for number in range(len(self.DTYPES))]
        made = [x + c.to(torch.complex128).real for c in given]
        empty = torch.cat([self.nothing, x[:, :3]])
        return (*made, empty, x * self.point + self.wide * self.apart, self.conjugate * x)


class Branching(nn.Module):
    """A branch on data, with a weight in it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: self.fc(y), lambda y: y.sin(), (x,))


class Folding(nn.Module):
    """Convolution and normalization, which fold; weights of two dtypes, one of odd size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 7).to(torch.bfloat16)

    def forward(self, x):
        y = self.norm(self.conv(x)).relu()
        return self.head(y.mean((2, 3)).to(torch.bfloat16))


class Perceptron(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))


@attrs.frozen
class Case:
    """A program: its model, example arguments, and how it is compiled."""

    model: Callable[[], nn.Module]
    args: Callable[[], tuple[Any, ...]]
    kwargs: Callable[[], dict[str, Any]] = dict
    dynamic_shapes: Any = None
    settings: dict[str, Any] = attrs.field(factory=dict)

    def compile(self, **settings: Any) -> CompiledProgram:
        """The program. Weights are drawn from a seed."""
        torch.manual_seed(0)
        return rewright.compile(
            self.model().eval(),
            self.args(),
            self.kwargs(),
            dynamic_shapes=self.dynamic_shapes,
            **{**self.settings, **settings},
        )


def _floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


ROWS = Dim("rows", min=1, max=32)

CASES = {
    "perceptron": Case(Perceptron, lambda: (_floats(4, 8),), dynamic_shapes=({0: ROWS},)),
    "tied": Case(Tied, lambda: (torch.arange(6).view(2, 3),)),
    "counting": Case(Counting, lambda: (_floats(4, 3), _floats(5))),
    "nested": Case(
        Nested,
        lambda: ({"x": _floats(2, 3)},),
        lambda: {"scale": 0.5, "pair": Pair(_floats(2, 3), _floats(2)), "names": None},
    ),
    "dtypes": Case(Dtypes, lambda: (_floats(3, 5).double(),)),
    "branching": Case(Branching, lambda: (_floats(3, 4),)),
    "folding": Case(Folding, lambda: (_floats(2, 3, 8, 8),), settings={"optimization_level": 2}),
    "channels": Case(
        lambda: Folding().to(memory_format=torch.channels_last), lambda: (_floats(1, 3, 8, 8),)
    ),
}


def leaves(tree: Any) -> list[Any]:
    """The leaves of a result, those of classes that are no pytrees, too."""
    return pytree.tree_leaves(tree)


def assert_equal(actual: Any, expected: Any) -> None:
    """Two flat results are the same, to the bit, and laid out the same."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        if isinstance(b, Tensor):
            assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
            raw = [t.contiguous().view(-1).view(torch.uint8) for t in (a, b)]
            assert torch.equal(*raw)
        else:
            assert type(a) is type(b) and a == b
