"""Single ops of random programs: elementwise, views, reductions, several results."""

from __future__ import annotations

from typing import Final

from tests.passes.random_author import (
    BOOL,
    FLOAT,
    FLOATS,
    FORMS,
    INT,
    LONG,
    ROWS,
    SMOOTH,
    TOKENS,
    Author,
)

# --------------------------------------------------------------------------- single ops

_NUMBERS: Final = (1, 0, -1, 2, 1.0, 0.5, -0.25, 0.0)


def unary(g: Author) -> None:
    x = g.any(FLOATS)
    g.give(g.call(g.chance.choice(SMOOTH.split()), x))


def binary(g: Author) -> None:
    x = g.any(FLOATS)
    other = g.any((x.type.dtype,), shape=x.type.shape)
    g.give(g.call(g.chance.choice("add.Tensor sub.Tensor maximum minimum".split()), x, other))


def product(g: Author) -> None:
    x = g.any()
    g.give(g.call("mul.Tensor", x, g.call("tanh", g.any(shape=x.type.shape))))


def with_number(g: Author) -> None:
    x = g.any((*FLOATS, LONG, INT))
    number = g.chance.choice(_NUMBERS if x.type.dtype in FLOATS else (1, 0, -1, 2))
    g.give(g.call(g.chance.choice("add.Tensor sub.Tensor mul.Tensor".split()), x, number))


def twice_with_number(g: Author) -> None:
    with_number(g)
    x = g.values[-1]
    ops, numbers = "add.Tensor mul.Tensor div.Tensor".split(), (1, 2, 0.5, -4.0)
    if x.type.dtype not in FLOATS:  # made a float, they would stay one in float64
        ops, numbers = ops[:2], (1, 2, 3, -4)
    g.give(g.call(g.chance.choice(ops), x, g.chance.choice(numbers)))


def power(g: Author) -> None:
    g.give(g.call("pow.Tensor_Scalar", g.call("tanh", g.any()), g.chance.choice((1, 2, 3, 2.0))))


def cast(g: Author) -> None:
    x = g.any(FLOATS)
    there = g.call("_to_copy", x, dtype=g.chance.choice(FLOATS))
    g.give(g.call("_to_copy", there, dtype=x.type.dtype) if g.chance.random() < 0.5 else there)


def compare(g: Author) -> None:
    x = g.any((FLOAT, LONG, INT), exact=True)
    op = g.chance.choice("eq ne lt le gt ge".split())
    if g.chance.random() < 0.5:
        g.give(g.call(f"{op}.Scalar", x, g.chance.choice((0, 1, -0.5))))
    else:
        other = g.any((x.type.dtype,), shape=x.type.shape, exact=True)
        g.give(g.call(f"{op}.Tensor", x, other))


def logic(g: Author) -> None:
    x = g.any((BOOL,))
    op = g.chance.choice("logical_and logical_or bitwise_xor.Tensor logical_not".split())
    g.give(g.call(op, x, *([] if "not" in op else [g.any((BOOL,), shape=x.type.shape)])))


def choose(g: Author) -> None:
    test = g.any((BOOL,))
    x = g.any(shape=test.type.shape)
    other = g.any(shape=x.type.shape)
    fill = g.chance.choice((0.0, -1.0))
    g.give(
        g.call("where.self", test, x, other)
        if g.chance.random() < 0.5
        else g.call("masked_fill.Scalar", x, test, fill)
    )


def whole_numbers(g: Author) -> None:
    x = g.any((LONG, INT))
    op = g.chance.choice(("remainder.Scalar", "floor_divide", "bitwise_and.Scalar", "clamp"))
    g.give(g.call(op, x, *((0, 3) if op == "clamp" else (g.chance.choice((2, 3)),))))


def snap(g: Author) -> None:
    g.give(g.call(g.chance.choice("floor ceil round sign".split()), g.any(exact=True)))


def move(g: Author) -> None:
    x = g.any((*FLOATS, LONG, BOOL), rank=(2, 3, 4))
    at = g.dim(x)
    match g.chance.randrange(7):
        case 0:
            order = g.chance.sample(range(x.type.rank), x.type.rank)
            moved = g.call("permute", x, order)
            if g.chance.random() < 0.7:
                moved = g.call("permute", moved, [order.index(d) for d in range(len(order))])
        case 1:
            moved = g.call("transpose.int", x, at, g.dim(x))
        case 2:
            moved = g.call("reshape", x, [x.type.shape[0], -1])
        case 3:
            moved = g.call("slice.Tensor", x, at, *g.chance.choice(((0, 2), (1, 3), (-2, None))))
        case 4:
            there = g.call("unsqueeze", x, at)
            moved = g.call("squeeze.dim", there, at) if g.chance.random() < 0.5 else there
        case 5:
            moved = g.call("select.int", x, at, g.chance.choice((0, -1)))
        case _:
            moved = g.call("flip", x, [at])
    if moved.type.rank <= 4:
        g.give(moved)


def broadcast(g: Author) -> None:
    x = g.any(shape=g.chance.choice(FORMS))
    part = g.call("slice.Tensor", x, -1, 0, 1)
    g.give(g.call("add.Tensor", x, g.call("expand", part, list(x.type.shape))))


# --------------------------------------------------------------------------- several results


def cut_up(g: Author) -> None:
    x = g.any((FLOAT, LONG), shape=g.chance.choice(FORMS))
    match g.chance.randrange(3):
        case 0:
            parts = g.call("split.Tensor", x, 2, -1)
        case 1:
            parts = g.call("chunk", x, 2, -1)
        case _:
            parts = g.call("split_with_sizes", x, [1, x.type.shape[-1] - 1], -1)
    order = g.chance.choice((parts, parts[::-1], parts[:1]))
    g.give(g.call("cat", list(order), -1), parts[-1])


def largest(g: Author) -> None:
    x = g.any(exact=True, rank=(2, 3, 4))
    op = g.chance.choice(("topk", "max.dim", "sort"))
    found, where = g.call(op, x, 2, -1) if op == "topk" else g.call(op, x, -1)
    g.give(found, where)


def statistics(g: Author) -> None:
    x = g.any(shape=g.chance.choice(FORMS))
    variance, mean = g.call("var_mean.correction", x, [-1], correction=0, keepdim=True)
    g.give(g.call("sub.Tensor", x, mean), g.call("mul.Tensor", x, g.call("tanh", variance)))


def together(g: Author) -> None:
    x = g.any((FLOAT, LONG), rank=(2, 3))
    parts = [x, *(g.any((x.type.dtype,), shape=x.type.shape) for _ in range(2))]
    made = g.call(g.chance.choice(("cat", "stack")), parts, g.dim(x))
    g.give(g.call("slice.Tensor", made, -1, 0, 8))


def reduce(g: Author) -> None:
    x = g.any(shape=g.chance.choice(FORMS))
    op = g.chance.choice("sum.dim_IntList mean.dim amax".split())
    kept = g.call(op, x, [g.dim(x)], True)
    g.give(g.call("sub.Tensor", x, kept) if g.chance.random() < 0.7 else kept)


def accumulate(g: Author) -> None:
    x = g.any(shape=g.chance.choice((ROWS, TOKENS)))
    g.give(g.call("mul.Tensor", g.call("cumsum", x, -1), 0.25))
