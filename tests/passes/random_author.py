"""What writes a random program: its graph so far, and the values that the next block may use."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import attrs
import torch

from rewright.errors import RewrightError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.location import Location
from rewright.ir.ops import Trait
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import TensorType

BATCH: Final = symbol("s0")
MOST: Final = 6
"""The largest batch that programs are run with."""

ROWS: Final = (BATCH, 8)
TOKENS: Final = (BATCH, 5, 8)
HEADS: Final = (BATCH, 2, 5, 4)
IMAGE: Final = (BATCH, 4, 6, 6)
FORMS: Final = (ROWS, TOKENS, HEADS, IMAGE)
"""The shapes that blocks take and give, so that one fits the next."""

FLOAT, HALF, WIDE = torch.float32, torch.float16, torch.float64
LONG, INT, BOOL = torch.int64, torch.int32, torch.bool
FLOATS: Final = (FLOAT, HALF, WIDE)

SMOOTH: Final = "relu neg tanh sigmoid sin cos abs gelu silu hardswish softplus mish erf atan"
"""Ops of one operand without jumps."""

_CONTINUOUS: Final = frozenset("aten.abs aten.neg aten.relu aten.maximum aten.minimum".split())
"""Ops besides movement that round nothing."""


@attrs.define(eq=False)
class Author:
    """Writes a program, block by block."""

    chance: random.Random
    graph: Graph = attrs.field(factory=Graph)
    values: list[Value] = attrs.field(factory=list)
    exact: set[Value] = attrs.field(factory=set)
    """Values that every spelling of the program gives the same bits for."""
    written: dict[Value, Value] = attrs.field(factory=dict)
    """The latest value of what is written to."""
    line: int = 0

    # -- what blocks are made of

    def call(self, op: str, *args: Any, **kwargs: Any) -> Any:
        """A node of an aten op; its result, or the tuple of them."""
        builder = Builder(self.graph, loc=Location("net.py", self.line))
        made = builder.call(f"aten.{op}", *args, **kwargs)
        for value in made if isinstance(made, tuple) else (made,):
            self._note(value)
        return made

    def _note(self, value: Value) -> None:
        node = value.producer
        assert node is not None
        keeps = node.op.has(Trait.MOVEMENT) or node.op.name in _CONTINUOUS
        keeps = keeps or value.type.dtype not in FLOATS
        if keeps and all(operand in self.exact for operand in node.operands):
            self.exact.add(value)

    def any(self, dtypes: Sequence[torch.dtype] = (FLOAT,), **wanted: Any) -> Value:
        """A value of one of `dtypes`, the newest more often than not.

        Args:
            dtypes: the dtypes.
            wanted: ``shape``: of that shape; ``rank``: of one of those ranks; ``exact``: whose
                bits no pass may change.
        """
        shape, ranks, exact = (wanted.get(name) for name in ("shape", "rank", "exact"))
        fitting = [
            v
            for v in self.values
            if v.type.dtype in dtypes
            and (shape is None or v.type.shape == shape)
            and (ranks is None or v.type.rank in ranks)
            and (not exact or v in self.exact)
        ]
        if not fitting:
            raise RewrightError("there is no such value")
        return fitting[-1] if self.chance.random() < 0.4 else self.chance.choice(fitting)

    def give(self, *values: Value) -> None:
        """Makes values something that later blocks may use."""
        self.values += values

    def weight(self, *shape: int, dtype: torch.dtype = FLOAT, kind: str = "parameter") -> Value:
        """A source; one that is there already, now and then."""
        wanted = TensorType(dtype, shape)
        known = [c for c in self.graph.constants.values() if c.type == wanted and c.kind == kind]
        known = [c for c in known if c not in self.written]
        if known and self.chance.random() < 0.25:
            return self.chance.choice(known)
        name = f"w{len(self.graph.constants)}"
        data = numbers(wanted.dtype, shape, self.chance.randrange(2**16), spread=0.5)
        value = self.graph.add_constant(name, wanted, kind=kind, data=data)
        self.exact.add(value)
        return value

    def input(self, dtype: torch.dtype, shape: Sequence[Any]) -> Value:
        """A new input."""
        value = self.graph.add_input(TensorType(dtype, tuple(shape)), "x")
        if BATCH in shape:
            info = SymbolInfo((Range(1, 3, MOST),), value, list(shape).index(BATCH))
            self.graph.symbols.setdefault(BATCH, info)
        self.exact.add(value)
        return value

    def dim(self, value: Value) -> int:
        """A dimension of `value` whose size is a number, from either end."""
        rank = value.type.rank
        known = [at for at, size in enumerate(value.type.shape) if isinstance(size, int)]
        if not known:
            raise RewrightError("all its dimensions vary")
        return self.chance.choice(known) - self.chance.choice((0, rank))

    def write(self, target: Value, value: Value) -> None:
        """Makes `value` what `target` holds from now on."""
        self.written[target] = value


def numbers(
    dtype: torch.dtype, shape: Sequence[int], seed: int, spread: float = 1.0
) -> torch.Tensor:
    """Numbers as models have them."""
    chance = torch.Generator().manual_seed(seed)
    if dtype == BOOL:
        return torch.rand(tuple(shape), generator=chance) < 0.5
    if dtype in (LONG, INT):
        return torch.randint(0, 9, tuple(shape), generator=chance).to(dtype)
    return (torch.randn(tuple(shape), generator=chance) * spread).to(dtype)
