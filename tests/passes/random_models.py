"""Random programs that look like models: blocks as people write them, and ops between them.

A program has at least 40 nodes over a batch of any size: activations, norms and attentions spelled
out and whole, convolutions, projections of one input, rotary embeddings, results by the pair,
constants that can be folded, views, and buffers and inputs that are written to. What jumps (a
comparison, a floor, an argmax) is only asked of numbers that no pass may move: inputs, integers,
and what is merely rearranged. So the error of a result is a matter of rounding.

A program comes from a :class:`random.Random`: a seed gives the same one everywhere, and hypothesis
can play one, too (``st.randoms``), and shrink it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

import attrs
import torch

from rewright.errors import RewrightError
from rewright.ir.graph import Graph
from rewright.ir.sizes import evaluate
from tests.passes import random_layers as layers
from tests.passes import random_ops as ops
from tests.passes.random_author import (
    BATCH,
    BOOL,
    FLOAT,
    FORMS,
    INT,
    LONG,
    MOST,
    ROWS,
    TOKENS,
    Author,
    numbers,
)

Block: TypeAlias = Callable[[Author], None]

BLOCKS: Final[Mapping[Block, int]] = {
    **dict.fromkeys(
        (
            ops.unary,
            ops.binary,
            ops.product,
            ops.with_number,
            ops.twice_with_number,
            ops.power,
            ops.cast,
        ),
        2,
    ),
    **dict.fromkeys(
        (ops.compare, ops.logic, ops.choose, ops.whole_numbers, ops.snap, ops.broadcast), 1
    ),
    **dict.fromkeys((ops.move, ops.cut_up), 3),
    **dict.fromkeys((ops.largest, ops.statistics, ops.together, ops.reduce, ops.accumulate), 1),
    **dict.fromkeys((layers.feed_forward, layers.normalize, layers.attend, layers.convolve), 3),
    **dict.fromkeys((layers.group_norm, layers.pool, layers.embed, layers.branch), 1),
    **dict.fromkeys((layers.from_constants, layers.count_up, layers.cache, layers.overwrite), 2),
}
"""The blocks, and how often each is written."""


# --------------------------------------------------------------------------- whole programs


@attrs.frozen
class Sample:
    """A program whose sources hold data, and inputs for it at two sizes of the batch."""

    graph: Graph
    inputs: tuple[tuple[torch.Tensor, ...], ...]


def write_program(chance: random.Random, nodes: int = 40) -> Sample:
    """A program of at least `nodes` nodes."""
    g = Author(chance)
    g.give(*(g.input(FLOAT, shape) for shape in FORMS))
    g.give(g.input(LONG, (BATCH, 5)), g.input(BOOL, ROWS), g.input(INT, TOKENS))
    blocks, weights = [*BLOCKS], [*BLOCKS.values()]
    while len(g.graph) < nodes:
        g.line += 1
        with suppress(RewrightError):
            chance.choices(blocks, weights)[0](g)
    made = [v for v in g.values if v.producer is not None]
    ends = [v for v in made if not v.has_uses] or made[-1:]
    ends += chance.sample(made, min(2, len(made)))
    pairs = [(target, value) for target, value in g.written.items() if target is not value]
    g.graph.set_outputs(list(dict.fromkeys(ends)), writebacks=pairs)
    return Sample(g.graph, tuple(_inputs(g, size) for size in (1, chance.randint(2, MOST))))


def _inputs(g: Author, size: int) -> tuple[torch.Tensor, ...]:
    return tuple(
        numbers(v.type.dtype, [evaluate(d, {BATCH: size}) for d in v.type.shape], 7 + at)
        for at, v in enumerate(g.graph.inputs)
    )
