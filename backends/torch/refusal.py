"""The slow path of a call: which argument doesn't fit, why, and what to do about it.

Generated code checks arguments in a few comparisons. Where one fails it comes here: every check
is made once more, one argument at a time, and the first that doesn't fit is refused in words.
What only looked wrong to the fast checks (a ``Parameter`` where a tensor is expected) passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import sympy
import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec

from rewright.backends.torch.symbols import in_order, range_of
from rewright.backends.torch.trees import children, take_apart
from rewright.errors import InputError, did_you_mean
from rewright.ir.graph import Graph, SymbolInfo, Value
from rewright.ir.signature import Argument, Signature
from rewright.ir.sizes import evaluate, format_expr, solve
from rewright.ir.types import DTYPE_NAMES, ScalarType, TensorType

_PLAIN_TENSORS: Final = (Tensor, torch.nn.Parameter, torch.nn.Buffer)

_FIXED: Final = "arguments that the compile was not given stay at the model's defaults"

_INSTEAD: Final[Mapping[str, str]] = {
    "ndarray": "convert it with torch.from_numpy({name})",
    "list": "convert it with torch.tensor({name})",
    "int": "convert it with torch.tensor({name})",
    "float": "convert it with torch.tensor({name})",
    "DTensor": "pass {name}.full_tensor(), or {name}.to_local()",
    "NestedTensor": "pad it: {name}.to_padded_tensor(0)",
    "FakeTensor": "call the program with real tensors",
}
"""What to pass instead of an object of a class."""


@attrs.frozen
class Refusal:
    """Checks the arguments of a call of `graph` by `signature`, in words."""

    graph: Graph
    signature: Signature

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The flat arguments, in the signature's order.

        Raises:
            InputError: they don't fit; names the argument, what was expected and what came.
        """
        leaves = self.leaves(args, kwargs)
        for argument, leaf in zip(self.signature.arguments, leaves, strict=True):
            self._check(argument, leaf)
        self._check_sizes(leaves)
        return leaves

    # -- structure

    def leaves(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The flat arguments, of whatever kind they are.

        Raises:
            InputError: too many, too few, unknown ones, or nested otherwise.
        """
        in_spec = self.signature.in_spec
        if in_spec is None:
            self._check_count(args, kwargs)
            return list(args)
        leaves: list[Any] = []
        for name, spec, value in self._bound(in_spec, args, kwargs):
            leaves += take_apart(spec, value, name, name)
        return leaves

    def _check_count(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        names = [argument.name for argument in self.signature.arguments]
        if kwargs:
            raise InputError(
                f"{next(iter(kwargs))!r} is given by name", hint="pass all arguments by position"
            )
        if len(args) != len(names):
            raise InputError(
                f"the program takes {len(names)} arguments, got {len(args)}",
                hint=f"pass {', '.join(names)}",
            )

    def _bound(
        self, in_spec: TreeSpec, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[tuple[str, TreeSpec, Any]]:
        """Each argument's name, expected structure and value."""
        positional, named = children(in_spec)
        count = positional.num_children
        names = [*self.signature.parameter_names[:count]]
        names += [f"args[{index}]" for index in range(len(names), count)]
        specs = dict(zip(names, children(positional), strict=True))
        specs |= dict(zip(named.context, children(named), strict=True))
        if len(args) > count:
            raise InputError(
                f"the program takes {count} positional argument{'s'[: count != 1]}, "
                f"got {len(args)}",
                hint=f"{_pass(specs)}; {_FIXED}",
            )
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in specs:
                raise InputError(
                    f"there is no argument {name!r}",
                    name=name,
                    hint=_known(name, specs),
                )
            if name in given:
                raise InputError(f"{name} is given twice", name=name, hint=_pass(specs))
            given[name] = value
        for name in specs:
            if name not in given:
                raise InputError(f"{name} is missing", name=name, hint=_pass(specs))
        return [(name, spec, given[name]) for name, spec in specs.items()]

    # -- one argument

    def _check(self, argument: Argument, leaf: Any) -> None:
        if argument.input is not None:
            value_type = self.graph.inputs[argument.input].type
            if isinstance(value_type, TensorType):
                self._check_tensor(argument.name, value_type, leaf)
            elif isinstance(value_type, ScalarType):
                _check_scalar(argument.name, value_type, leaf)
        elif argument.constant is None and not _is_same(leaf, argument.literal):
            raise InputError(
                f"{argument.name} is {_shown(leaf)}, "
                f"but the program was compiled for {_shown(argument.literal)}",
                name=argument.name,
                hint="values other than tensors are fixed; compile another program for this one",
            )

    def _check_tensor(self, name: str, expected: TensorType, leaf: Any) -> None:
        _check_class(name, expected, leaf)
        if leaf.dtype != expected.dtype:
            raise InputError(
                f"{name} is {_spelled(leaf.dtype)}, expected {_spelled(expected.dtype)}",
                name=name,
                hint=f"convert it with {name}.to({expected.dtype})",
            )
        device = torch.device(expected.device or self.graph.device)
        if not same_device(leaf.device, device):
            raise InputError(
                f"{name} is on {leaf.device}, expected on {device}",
                name=name,
                hint=f"move it with {name}.to({str(device)!r}), "
                f"or compile with device={str(leaf.device)!r}",
            )
        if leaf.requires_grad and torch.is_grad_enabled():
            raise InputError(
                f"{name} requires grad, but the program computes no gradients",
                name=name,
                hint=f"call it under torch.no_grad(), or pass {name}.detach()",
            )
        _check_shape(name, expected, leaf)

    # -- sizes

    def _check_sizes(self, leaves: Sequence[Any]) -> None:
        """Whether there are sizes under which every input has the shape that it has."""
        given = {
            self.graph.inputs[argument.input]: (argument.name, leaf)
            for argument, leaf in zip(self.signature.arguments, leaves, strict=True)
            if argument.input is not None
        }
        bound = [s for s, info in self.graph.symbols.items() if info.binding in given]
        sizes: dict[sympy.Symbol, Any] = {}
        origin: dict[sympy.Symbol, str] = {}
        for symbol in in_order(self.graph, bound):
            info = self.graph.symbols[symbol]
            name, leaf = given[info.binding]
            what, size = _place(name, leaf, info.dim)
            sizes[symbol] = _solved(info, symbol, what, name, size, sizes)
            origin[symbol] = what
            _check_range(info, symbol, what, name, size, sizes[symbol])
        for value, (name, leaf) in given.items():
            _check_agreement(value, name, leaf, sizes, origin)


def _check_class(name: str, expected: TensorType, leaf: Any) -> None:
    kind = type(leaf).__name__
    if not isinstance(leaf, Tensor):
        raise InputError(
            f"{name} is {_shown(leaf)}, expected a tensor {expected}",
            name=name,
            hint=_INSTEAD[kind].format(name=name) if kind in _INSTEAD else None,
        )
    if leaf.is_nested:
        kind = "NestedTensor"
    elif type(leaf) in _PLAIN_TENSORS and leaf.layout is torch.strided:
        return
    elif type(leaf) in _PLAIN_TENSORS:
        raise InputError(
            f"{name} has the layout {leaf.layout}, expected a dense tensor {expected}",
            name=name,
            hint=f"pass {name}.to_dense()",
        )
    raise InputError(
        f"{name} is a {kind}, expected a plain tensor {expected}",
        name=name,
        hint=_INSTEAD.get(kind, "pass a plain torch.Tensor").format(name=name),
    )


def _check_shape(name: str, expected: TensorType, leaf: Tensor) -> None:
    """The rank, and the dims that are numbers."""
    if leaf.dim() != expected.rank:
        raise InputError(
            f"{name} has {leaf.dim()} dimensions {[*leaf.shape]}, expected {expected}", name=name
        )
    for dim, (size, known) in enumerate(zip(leaf.shape, expected.shape, strict=True)):
        if isinstance(known, int) and size != known:
            raise InputError(
                f"dimension {dim} of {name} is {size}, expected {known} ({name}: {expected})",
                name=name,
                hint="compile with this dimension dynamic, if it is to vary",
            )


def _check_scalar(name: str, expected: ScalarType, leaf: Any) -> None:
    if type(leaf).__name__ != expected.kind:
        raise InputError(
            f"{name} is {_shown(leaf)}, expected {expected.kind}",
            name=name,
            hint=f"pass {expected.kind}({name})",
        )
    is_fixed = expected.expr is not None and not isinstance(expected.expr, sympy.Basic)
    if is_fixed and not _is_same(leaf, expected.expr):
        raise InputError(
            f"{name} is {leaf}, but the program was compiled for {expected.expr}", name=name
        )


def _place(name: str, leaf: Any, dim: int | None) -> tuple[str, Any]:
    """What gives a size, in words, and the size."""
    return (name, leaf) if dim is None else (f"dimension {dim} of {name}", leaf.shape[dim])


def _solved(
    info: SymbolInfo,
    symbol: sympy.Symbol,
    what: str,
    name: str,
    size: Any,
    sizes: Mapping[Any, Any],
) -> Any:
    """The size that `symbol` stands for, from its equation."""
    held = info.equation
    if held == symbol:
        return size
    if held == sympy.Eq(symbol, 1):
        return int(size)
    solution = evaluate(solve(held, symbol, sympy.Integer(size)), sizes)
    if evaluate(held, {**sizes, symbol: solution}) != size:
        raise InputError(
            f"{what} is {size}, expected {format_expr(held)} for a whole number {symbol}", name=name
        )
    return solution


def _check_range(
    info: SymbolInfo, symbol: sympy.Symbol, what: str, name: str, size: Any, solution: Any
) -> None:
    known = range_of(info)
    if solution not in known:
        held = format_expr(info.equation)
        where = "" if held == symbol.name else f" for {held} = {size}"
        raise InputError(
            f"{what} is {size}, outside of its range: {symbol} is {solution}{where}, "
            f"expected {known.min if known.min is not None else '-inf'} to "
            f"{known.max if known.max is not None else 'inf'}",
            name=name,
            hint="compile with a wider range of this dimension"
            + (f": rewright.Input(min=..., name={name!r})" if solution == 0 else ""),
        )


def _check_agreement(
    value: Value,
    name: str,
    leaf: Any,
    sizes: Mapping[sympy.Symbol, Any],
    origin: Mapping[sympy.Symbol, str],
) -> None:
    """Whether the symbolic dims of an input are what the sizes make them."""
    places: list[tuple[Any, Any, int | None]]
    if isinstance(value.type, TensorType):
        places = [(dim, leaf.shape[at], at) for at, dim in enumerate(value.type.shape)]
    elif isinstance(value.type, ScalarType):
        places = [(value.type.expr, leaf, None)]
    else:
        return
    for held, size, dim in places:
        if not isinstance(held, sympy.Basic) or not held.free_symbols <= sizes.keys():
            continue
        expected = evaluate(held, sizes)
        if expected != size:
            what = name if dim is None else f"dimension {dim} of {name}"
            because = ", ".join(
                f"{s} is {sizes[s]} by {origin[s]}" for s in sorted(held.free_symbols, key=str)
            )
            raise InputError(
                f"{what} is {size}, expected {expected}: it is {format_expr(held)}, and {because}",
                name=name,
            )


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are one; no index means the current one, or 0 before there is any."""
    if a.type != b.type:
        return False
    return (a.index or 0) == (b.index or 0)


def _pass(specs: Mapping[str, Any]) -> str:
    return f"the arguments are {', '.join(specs)}" if specs else "it takes no arguments"


def _known(name: str, specs: Mapping[str, Any]) -> str:
    near = did_you_mean(name, specs)
    return near if near.endswith("?") else f"{near}; {_FIXED}"


def _is_same(value: Any, literal: Any) -> bool:
    """Whether a value is the very one that was compiled for: ``1``, ``True`` and ``1.0`` differ."""
    if type(value) is not type(literal):
        return False
    if isinstance(literal, float):
        return repr(value) == repr(literal)
    return bool(value == literal)


def _spelled(dtype: torch.dtype) -> str:
    return DTYPE_NAMES.get(dtype, str(dtype))


def _shown(value: Any) -> str:
    """A short text for a value of any kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, Tensor):
        return f"a tensor {_spelled(value.dtype)}{[*value.shape]}"
    return f"a {_class_name(type(value))}"


def _class_name(kind: type) -> str:
    """The name of a class, with its module unless that is Python's own."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
