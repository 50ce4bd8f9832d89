"""Sizes inside a network: symbols read off the inputs' shapes, expressions computed from them.

A size is an int, an expression over the graph's symbols, or a tensor ``i64[1]`` of the network.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import sympy
import torch

from rewright.backends.tensorrt.enums import UnaryOperation as Unary
from rewright.backends.tensorrt.tensor import ARITHMETIC, Tensor
from rewright.errors import UnsupportedError
from rewright.ir.fx_sizes import emit_size
from rewright.ir.graph import Graph, Value
from rewright.ir.sizes import simplify, solve

if TYPE_CHECKING:
    from rewright.backends.tensorrt.network import Network

Size: TypeAlias = "int | sympy.Basic | Tensor"
Sizes: TypeAlias = "Sequence[Size]"


def _integer(operation: Unary) -> Callable[[Tensor], Tensor]:
    return lambda x: x.unary(operation).to(torch.int64) if x.is_floating_point else x


_ROUNDING: Final[dict[Any, Callable[[Tensor], Tensor]]] = {
    math.floor: _integer(Unary.FLOOR),
    math.ceil: _integer(Unary.CEIL),
    math.trunc: lambda x: x.to(torch.int64),
    round: _integer(Unary.ROUND),
}


class SizeTable:
    """What stands for each symbol and expression of a graph in a network.

    Args:
        net: the network.
        graph: binds the symbols.
        value: gives the tensor of a value of `graph`.
    """

    def __init__(self, net: Network, graph: Graph, value: Callable[[Value], Any]) -> None:
        self.net = net
        self.graph = graph
        self._value = value
        self._known: dict[Any, Tensor] = {}
        self._shapes: dict[int, Tensor] = {}

    def tensor(self, size: Size) -> Tensor:
        """`size` as ``i64[1]`` (``f32[1]`` or ``bool[1]`` for such expressions)."""
        size = simplify(size)
        if isinstance(size, Tensor):
            return size
        if not isinstance(size, sympy.Basic):
            return self.net.constant(torch.tensor([size]))
        if size not in self._known:
            symbols = {item: self._symbol(item) for item in size.free_symbols}
            self._known[size] = emit_size(size, self._call, symbols)
        return self._known[size]

    def vector(self, sizes: Sizes) -> Tensor:
        """Sizes as one ``i64`` tensor of one dimension."""
        from rewright.backends.tensorrt.shaping import cat

        parts: list[Tensor] = []
        pending: list[int] = []

        def flush() -> None:
            if pending:
                parts.append(self.net.constant(torch.tensor(pending)))
                pending.clear()

        for size in sizes:
            if isinstance(size, int):
                pending.append(size)
            else:
                flush()
                parts.append(self.tensor(size))
        flush()
        if not parts:
            return self.net.constant(torch.zeros(0, dtype=torch.int64))
        return parts[0] if len(parts) == 1 else cat(parts, 0)

    def of(self, x: Tensor, dim: int) -> Size:
        """Dimension `dim` of a tensor of the network."""
        if x.shape[dim] >= 0:
            return x.shape[dim]
        known = self._shapes.get(id(x))
        if known is None:
            known = self._shapes[id(x)] = self.net.layer("add_shape", x)
            self.net.keep(x)
        return self.net.layer("add_slice", known, (dim % x.rank,), (1,), (1,))

    def _symbol(self, symbol: sympy.Symbol) -> Tensor:
        """The number that `symbol` stands for, by its equation."""
        if symbol in self._known:
            return self._known[symbol]
        info = self.graph.symbols.get(symbol)
        if info is None:
            raise self.net.error(f"nothing says what the size {symbol} is")
        given = self._value(info.binding)
        if info.dim is None:
            from rewright.backends.tensorrt.shaping import reshape

            right: Any = reshape(given, (1,))
        else:
            right = self.of(given, info.dim)
            right = right if isinstance(right, Tensor) else self.tensor(right)
        dummy = sympy.Dummy("size", integer=True)
        solved = solve(info.equation, symbol, dummy)
        if solved is None:
            raise self.net.error(f"the size {symbol} can't be found from {info.equation}")
        self._known[dummy] = right
        symbols = {item: self._symbol(item) for item in simplify(solved).free_symbols}
        self._known[symbol] = emit_size(solved, self._call, symbols)
        return self._known[symbol]

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """One step of a size's arithmetic; what is all numbers is computed."""
        if not any(isinstance(arg, Tensor) for arg in args):
            return function(*args)
        if function in _ROUNDING:
            return _ROUNDING[function](*args)
        step = ARITHMETIC.get(function, function)
        if step is function and function not in OPERATORS:
            raise UnsupportedError(f"TensorRT can't compute {function} of a size")
        return step(*args)


OPERATORS: Final = frozenset(
    (
        *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod),
        *(operator.neg, operator.lt, operator.le, operator.gt, operator.ge),
        *(operator.and_, operator.or_),
    )
)
"""Python's operators that tensors have themselves."""
