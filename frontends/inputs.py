"""What a user says of the inputs of an exported program: ranges of sizes, typical sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import sympy
import torch

from rewright.errors import InputError
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.signature import Argument, Signature
from rewright.ir.sizes import Range, solve
from rewright.ir.types import DTYPE_NAMES, TensorType


def _shape(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(type(size) is int for size in value):
        raise InputError(
            f"a shape is a tuple of ints, not {value!r}", hint="for example Input(min=(1, 8))"
        )
    if any(size < 0 for size in value):
        raise InputError(f"a size can't be negative: {value!r}")
    return tuple(value)


@attrs.frozen
class Input:
    """One input tensor with a range of shapes.

    ``Input(min=(1, 8), opt=(4, 64), max=(32, 512))`` lets both dimensions vary within these
    bounds; `opt` is the shape to be fastest at. ``Input((4, 64))`` fixes the shape. A list of
    Inputs in the place of one gives several ranges; engines are made to be fast in each.

    Args:
        min, opt, max: shapes, all of one rank. A missing `opt` is taken from the export's
            example; missing bounds stay as exported.
        dtype: checked against the exported program, if given.
        name: the argument meant, where inputs are given out of order.

    Raises:
        InputError: shapes of different ranks, or not ``min <= opt <= max``.
    """

    min: tuple[int, ...] | None = attrs.field(default=None, converter=_shape)
    opt: tuple[int, ...] | None = attrs.field(default=None, converter=_shape, kw_only=True)
    max: tuple[int, ...] | None = attrs.field(default=None, converter=_shape, kw_only=True)
    dtype: torch.dtype | None = attrs.field(default=None, kw_only=True)
    name: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.min is not None and self.opt is None and self.max is None:
            object.__setattr__(self, "opt", self.min)
            object.__setattr__(self, "max", self.min)
        shapes = [s for s in (self.min, self.opt, self.max) if s is not None]
        if len({len(shape) for shape in shapes}) > 1:
            raise InputError(f"min, opt and max have different ranks: {self}")
        for sizes in zip(*shapes, strict=True):
            if list(sizes) != sorted(sizes):
                raise InputError(f"an Input needs min <= opt <= max in every dimension: {self}")

    @classmethod
    def of(cls, value: Any) -> Input:
        """`value` as an Input: an Input itself, or a tensor, whose shape is the typical one.

        Raises:
            InputError: anything else.
        """
        if isinstance(value, Input):
            return value
        if isinstance(value, torch.Tensor):
            return cls(opt=tuple(value.shape), dtype=value.dtype)
        raise InputError(
            f"inputs must be tensors or rewright.Input, not {type(value).__name__}",
            hint="for example rewright.Input(min=(1, 8), opt=(4, 64), max=(32, 512))",
        )


def narrow_ranges(graph: Graph, signature: Signature, inputs: Sequence[Any]) -> None:
    """Sets the ranges of a graph's symbols as `inputs` say.

    Args:
        graph: an imported graph; its symbol table is changed.
        signature: names its arguments.
        inputs: one :class:`Input` or tensor for each tensor argument, in order; those with a
            name may stand anywhere and be few. A list of Inputs in the place of one gives a range
            for each: what is made for ranges (an engine's profiles) is made for the first of
            each list together, for the second of each, and so on.

    Raises:
        InputError: a wrong number, an unknown name, a dtype or size that doesn't fit.
    """
    if not isinstance(inputs, list | tuple):
        raise InputError(
            f"inputs is a {type(inputs).__name__}, expected a list of tensors or rewright.Input",
            hint="put it into a list: inputs=[...]",
        )
    arguments = [a for a in signature.arguments if a.input is not None]
    before, made = dict(graph.symbols), []
    for chosen in _alternatives(inputs):
        graph.symbols.update(before)
        for argument, given in _pairs(graph, arguments, chosen):
            assert argument.input is not None
            _narrow(graph, graph.inputs[argument.input], argument.name, given)
        made.append(dict(graph.symbols))
    for symbol, info in before.items():
        found = [table[symbol].ranges for table in made]
        same = all(ranges == found[0] for ranges in found)
        ranges = found[0] if same else tuple(known for each in found for known in each)
        graph.symbols[symbol] = SymbolInfo(ranges, info.binding, info.dim)


def _alternatives(inputs: Sequence[Any]) -> list[list[Input]]:
    """The inputs that belong together: those of the first range, of the second, and so on."""
    lists = [
        [Input.of(each) for each in item] if isinstance(item, list | tuple) else [Input.of(item)]
        for item in inputs
    ]
    count = max(1, *map(len, lists)) if lists else 1
    for item in lists:
        if len(item) not in (1, count):
            raise InputError(
                f"one input has {len(item)} ranges, and another {count}",
                hint="give each input as many, or one that goes with all",
            )
    return [[item[number % len(item)] for item in lists] for number in range(count)]


def _pairs(
    graph: Graph, arguments: list[Argument], inputs: list[Input]
) -> list[tuple[Argument, Input]]:
    tensors = [
        a
        for a in arguments
        if a.input is not None and isinstance(graph.inputs[a.input].type, TensorType)
    ]
    names = {a.name: a for a in tensors}
    unnamed = [item for item in inputs if item.name is None]
    if unnamed and len(unnamed) != len(inputs):
        raise InputError("name all inputs or none", hint=f"the arguments are {[*names]}")
    if unnamed and len(inputs) != len(tensors):
        raise InputError(
            f"{len(inputs)} inputs are described, the program takes {len(tensors)} tensors",
            hint=f"describe {[*names]} in this order, or name those you mean with Input(name=...)",
        )
    if unnamed:
        return list(zip(tensors, unnamed, strict=True))
    for item in inputs:
        if item.name not in names:
            from rewright.errors import did_you_mean

            raise InputError(
                f"the program has no tensor argument {item.name!r}",
                hint=did_you_mean(item.name or "", names),
            )
    return [(names[item.name], item) for item in inputs if item.name is not None]


def _narrow(graph: Graph, value: Value, name: str, given: Input) -> None:
    assert isinstance(value.type, TensorType)
    if given.dtype is not None and given.dtype != value.type.dtype:
        raise InputError(
            f"{name} was exported as {DTYPE_NAMES[value.type.dtype]}, "
            f"but is described as {DTYPE_NAMES.get(given.dtype, given.dtype)}",
            hint="export the model with an example of the dtype that it will be called with",
        )
    for shape in (given.min, given.opt, given.max):
        if shape is not None and len(shape) != value.type.rank:
            raise InputError(f"{name} has {value.type.rank} dimensions, not {len(shape)}: {given}")
    for at, dim in enumerate(value.type.shape):
        points = [s[at] if s is not None else None for s in (given.min, given.opt, given.max)]
        if isinstance(dim, int):
            _check_static(name, at, dim, points)
        else:
            _narrow_dim(graph, name, at, dim, points)


def _check_static(name: str, at: int, dim: int, points: list[int | None]) -> None:
    if any(point is not None and point != dim for point in points):
        raise InputError(
            f"dimension {at} of {name} is {dim} in the exported program and can't vary",
            hint=f"export with dynamic_shapes={{{name!r}: {{{at}: torch.export.Dim.AUTO}}}}",
        )


def _narrow_dim(
    graph: Graph, name: str, at: int, dim: sympy.Basic, points: list[int | None]
) -> None:
    unknown = list(dim.free_symbols)
    if len(unknown) != 1:
        raise InputError(f"dimension {at} of {name} is {dim}: give ranges for its parts instead")
    solved = [None if p is None else solve(dim, unknown[0], p) for p in points]
    info = graph.symbols[unknown[0]]
    graph.symbols[unknown[0]] = SymbolInfo(
        tuple(_within(old, solved, name, at) for old in info.ranges), info.binding, info.dim
    )


def _interval(known: Range) -> str:
    if known.max is None:
        return f"{known.min} or more"
    return f"{known.min} to {known.max}"


def _within(old: Range, points: list[Any], name: str, at: int) -> Range:
    low, opt, high = points
    # A least size of 1 is an unstated one (see SymbolTable.least): 0 may be asked for.
    lowest = 0 if old.min == 1 else old.min
    for point in (low, opt, high):
        below = point is not None and lowest is not None and point < lowest
        above = point is not None and old.max is not None and point > old.max
        if below or above:
            raise InputError(
                f"dimension {at} of {name} was exported for {_interval(old)}, not {point}",
                hint="export with a torch.export.Dim of a larger range",
            )
    least = old.min if low is None else low
    most = old.max if high is None else high
    typical = old.opt if opt is None else opt
    if typical is not None and (
        (least is not None and typical < least) or (most is not None and typical > most)
    ):
        typical = most if opt is None and most is not None and typical > most else least
    return Range(least, typical, most)
