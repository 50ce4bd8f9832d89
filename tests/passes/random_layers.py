"""Blocks of random programs as people write models: layers, attention, caches, counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch

from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, Value
from rewright.ir.location import Location
from rewright.ir.types import TensorType
from tests.passes.random_author import (
    BATCH,
    BOOL,
    FLOAT,
    IMAGE,
    LONG,
    ROWS,
    SMOOTH,
    TOKENS,
    Author,
    numbers,
)

# --------------------------------------------------------------------------- blocks of models


def project(g: Author, x: Value, out: int, bias: bool = True) -> Value:
    """A linear layer, whole or as products."""
    into = x.type.shape[-1]
    weight, added = g.weight(out, into), g.weight(out) if bias else None
    if g.chance.random() < 0.6:
        return g.call("linear", x, weight, *([added] if bias else []))
    made = g.call("matmul", x, g.call("t", weight))
    return g.call("add.Tensor", made, added) if bias else made


def gelu_spelled(g: Author, x: Value) -> Value:
    half = g.call("mul.Tensor", x, 0.5)
    if g.chance.random() < 0.5:
        inner = g.call("erf", g.call("div.Tensor", x, 2**0.5))
    else:
        cube = g.call("mul.Tensor", g.call("pow.Tensor_Scalar", x, 3.0), 0.044715)
        inner = g.call(
            "tanh", g.call("mul.Tensor", g.call("add.Tensor", x, cube), 0.7978845608028654)
        )
    return g.call("mul.Tensor", half, g.call("add.Tensor", inner, 1.0))


def activate(g: Author, x: Value) -> Value:
    match g.chance.randrange(4):
        case 0:
            return gelu_spelled(g, x)
        case 1:
            return g.call("mul.Tensor", x, g.call("sigmoid", x))
        case 2:
            return g.call("gelu", x, approximate=g.chance.choice(("none", "tanh")))
        case _:
            return g.call(g.chance.choice("relu silu tanh hardswish".split()), x)


def feed_forward(g: Author) -> None:
    x = g.any(shape=g.chance.choice((ROWS, TOKENS)))
    wide = project(g, x, 16, g.chance.random() < 0.5)
    if g.chance.random() < 0.4:
        wide = g.call("mul.Tensor", activate(g, wide), project(g, x, 16, bias=False))
    else:
        wide = activate(g, wide)
    g.give(g.call("add.Tensor", x, project(g, wide, 8)))


def normalize(g: Author) -> None:
    x = g.any(shape=g.chance.choice((ROWS, TOKENS)))
    weight, bias = g.weight(8), g.weight(8)
    match g.chance.randrange(4):
        case 0:
            made = g.call("layer_norm", x, [8], weight, bias, 1e-5)
        case 1:
            mean = g.call("mean.dim", x, [-1], True)
            apart = g.call("sub.Tensor", x, mean)
            var = g.call("mean.dim", g.call("pow.Tensor_Scalar", apart, 2), [-1], True)
            std = g.call("sqrt", g.call("add.Tensor", var, 1e-5))
            made = g.call("mul.Tensor", g.call("div.Tensor", apart, std), weight)
            made = g.call("add.Tensor", made, bias)
        case 2:
            square = g.call("mean.dim", g.call("pow.Tensor_Scalar", x, 2), [-1], True)
            scale = g.call("rsqrt", g.call("add.Tensor", square, 1e-6))
            made = g.call("mul.Tensor", weight, g.call("mul.Tensor", x, scale))
        case _:
            made = g.call("rms_norm", x, [8], weight, 1e-6)
    g.give(made)


def split_heads(g: Author, x: Value) -> Value:
    return g.call("transpose.int", g.call("reshape", x, [BATCH, 5, 2, 4]), 1, 2)


def rotate(g: Author, x: Value, cos: Value, sin: Value) -> Value:
    first, second = (g.call("slice.Tensor", x, -1, *at) for at in ((0, 2), (2, 2**63 - 1)))
    turned = g.call("cat", [g.call("neg", second), first], -1)
    left = g.call("mul.Tensor", x, cos)
    return g.call("add.Tensor", left, g.call("mul.Tensor", turned, sin))


def mask(g: Author) -> Value | None:
    """A mask of attention: none, causal, of a value, or one that masks nothing."""
    match g.chance.randrange(4):
        case 0:
            return g.call("tril", g.call("ones", [5, 5], dtype=BOOL, device=torch.device("cpu")))
        case 1:
            at = g.call("arange", 5, device=torch.device("cpu"))
            rows, columns = g.call("unsqueeze", at, 1), g.call("unsqueeze", at, 0)
            return g.call(g.chance.choice(("le.Tensor", "ge.Tensor")), rows, columns)
        case 2:
            return g.call("zeros", [5, 5], dtype=FLOAT, device=torch.device("cpu"))
    return None


def attend(g: Author) -> None:
    x = g.any(shape=TOKENS)
    query, key, value = (split_heads(g, project(g, x, 8, g.chance.random() < 0.5)) for _ in "qkv")
    if g.chance.random() < 0.4:
        angles = g.weight(5, 4)
        cos, sin = g.call("cos", angles), g.call("sin", angles)
        query, key = rotate(g, query, cos, sin), rotate(g, key, cos, sin)
    masked = mask(g)
    if g.chance.random() < 0.4:
        made = g.call("scaled_dot_product_attention", query, key, value, masked)
    else:
        scores = g.call("matmul", query, g.call("transpose.int", key, -2, -1))
        scores = g.call(
            *g.chance.choice((("mul.Tensor", scores, 0.5), ("div.Tensor", scores, 2.0)))
        )
        if masked is not None and masked.type.dtype == BOOL:
            scores = g.call("masked_fill.Scalar", scores, g.call("logical_not", masked), -1e9)
        elif masked is not None:
            scores = g.call("add.Tensor", scores, masked)
        made = g.call("matmul", g.call("softmax.int", scores, -1), value)
    merged = g.call("reshape", g.call("transpose.int", made, 1, 2), [BATCH, 5, 8])
    g.give(made, g.call("add.Tensor", x, project(g, merged, 8)))


def convolve(g: Author) -> None:
    x = g.any(shape=IMAGE)
    bias = [g.weight(4)] if g.chance.random() < 0.5 else []
    made = g.call("conv2d", x, g.weight(4, 4, 3, 3), *(bias or [None]), [1, 1], [1, 1])
    if g.chance.random() < 0.7:
        made = batch_norm(g, made)
    g.give(activate(g, made) if g.chance.random() < 0.6 else made)


def batch_norm(g: Author, x: Value) -> Value:
    spread = g.weight(4, kind="buffer")
    positive = g.call("add.Tensor", g.call("abs", spread), 0.5)
    given = (g.weight(4), g.weight(4), g.weight(4, kind="buffer"), positive)
    return g.call("batch_norm", x, *given, False, 0.1, 1e-5, False)


def group_norm(g: Author) -> None:
    made = g.call("group_norm", g.any(shape=IMAGE), 2, g.weight(4), g.weight(4), 1e-5)
    g.give(g.call("silu", made) if g.chance.random() < 0.5 else made)


def pool(g: Author) -> None:
    x = g.any(shape=IMAGE)
    small = g.call(g.chance.choice(("avg_pool2d", "max_pool2d")), x, [2, 2])
    grown = g.call("upsample_nearest2d.vec", small, None, [2.0, 2.0])
    g.give(g.call("add.Tensor", x, grown))


def embed(g: Author) -> None:
    tokens = g.any((LONG,), shape=(BATCH, 5), exact=True)
    safe = g.call("remainder.Scalar", tokens, 7)
    g.give(g.call("embedding", g.weight(7, 8), safe), safe)


def from_constants(g: Author) -> None:
    """Arithmetic on weights, which folding computes beforehand."""
    x, weight = g.any(shape=g.chance.choice((ROWS, TOKENS))), g.weight(8)
    if g.chance.random() < 0.5:
        weight = g.call("cat", [g.call("slice.Tensor", weight, 0, 0, 4), g.weight(4)], 0)
    made = g.call("add.Tensor", g.call("mul.Tensor", weight, 2.0), g.call("full", [8], 0.5))
    g.give(
        g.call("mul.Tensor", x, made) if g.chance.random() < 0.5 else g.call("add.Tensor", x, made)
    )


def branch(g: Author) -> None:
    """A ``cond`` on an exact number."""
    x, test = g.any(shape=ROWS), g.any((LONG,), exact=True)
    pred = g.call("gt.Scalar", g.call("amax", test), 3)
    regions = []
    for op in g.chance.sample(SMOOTH.split(), 2):
        region = Graph(f"{op}_branch")
        inner = region.add_input(x.type, "x")
        region.symbols[BATCH] = attrs.evolve(g.graph.symbols[BATCH], binding=inner, dim=0)
        region.set_outputs([Builder(region).call(f"aten.{op}", inner)])
        regions.append(region)
    builder = Builder(g.graph, loc=Location("net.py", g.line))
    g.give(builder.call("higher_order.cond", pred, *regions, [x])[0])


# --------------------------------------------------------------------------- what is written to


def _writable(g: Author, shape: Sequence[Any], dtype: torch.dtype) -> Value:
    """Something that may be written to; what is already, now and then."""
    known = [t for t in g.written if t.type == TensorType(dtype, tuple(shape))]
    if known and g.chance.random() < 0.6:
        return g.chance.choice(known)
    if BATCH not in shape and g.chance.random() < 0.6:
        name = f"b{len(g.graph.constants)}"
        data = numbers(dtype, shape, g.chance.randrange(2**16))
        made = g.graph.add_constant(name, TensorType(dtype, tuple(shape)), kind="buffer", data=data)
        g.exact.add(made)
    else:
        made = g.input(dtype, shape)
    g.written[made] = made
    return made


def count_up(g: Author) -> None:
    """A counter, and a running mean."""
    steps = _writable(g, (), LONG)
    g.write(steps, g.call("add.Tensor", g.written[steps], 1))
    mean = _writable(g, (8,), FLOAT)
    kept = g.call("mul.Tensor", g.written[mean], 0.9)
    new = g.call("mean.dim", g.any(shape=ROWS), [0])
    if g.chance.random() < 0.3:
        g.give(g.call("add.Tensor", g.any(shape=ROWS), g.written[mean]))  # after the write began
    g.write(mean, g.call("add.Tensor", kept, new, alpha=0.1))


def cache(g: Author) -> None:
    """Rows written into a cache at places, and the whole of it read."""
    target = _writable(g, g.chance.choice(((6, 8), (BATCH, 6, 8))), FLOAT)
    old, rank = g.written[target], target.type.rank
    if rank == 3:
        rows = g.call("slice.Tensor", g.any(shape=TOKENS), 1, 0, 2)
    else:
        rows = g.call("mean.dim", g.call("slice.Tensor", g.any(shape=TOKENS), 1, 0, 2), [0])
    at = g.call("arange.start", 1, 3, device=torch.device("cpu"))
    match g.chance.randrange(4):
        case 0:
            new = g.call("index_copy", old, rank - 2, at, rows)
        case 1:
            new = g.call("index_put", old, [None] * (rank - 2) + [at], rows)
        case 2:
            new = g.call("slice_scatter", old, rows, rank - 2, 2, 4)
        case _:  # through a view, as the importer spells it
            view = g.call("select.int", old, rank - 2, 1)
            changed = g.call("add.Tensor", view, g.call("select.int", rows, rank - 2, 0))
            new = g.call("select_scatter", old, changed, rank - 2, 1)
    g.write(target, new)
    read = g.chance.choice((new, new, old))
    if g.chance.random() < 0.7:
        g.give(g.call("mean.dim", g.call("sin", read), [-2]) if rank == 3 else g.call("t", read))


def overwrite(g: Author) -> None:
    """A whole input, changed step by step, some steps of them read."""
    target = _writable(g, g.chance.choice((ROWS, TOKENS)), FLOAT)
    steps = [g.written[target]]
    for _ in range(g.chance.choice((1, 2, 3))):
        op = g.chance.choice("mul.Tensor sub.Tensor masked_fill.Scalar tanh".split())
        old = steps[-1]
        if op == "masked_fill.Scalar":
            new = g.call(
                op, old, g.call("gt.Scalar", g.any(exact=True, shape=old.type.shape), 0), 0.5
            )
        elif op == "tanh":
            new = g.call(op, old)
        else:
            new = g.call(op, old, g.chance.choice((0.5, g.any(shape=old.type.shape))))
        steps.append(new)
    g.write(target, steps[-1])
    g.give(*(step for step in steps[1:] if g.chance.random() < 0.5))
