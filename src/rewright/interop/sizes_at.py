"""What a graph returns for given inputs, as far as sizes tell: for fake kernels of operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch

from rewright.errors import UnsupportedError
from rewright.ir.fx_sizes import emit_size, emit_solution
from rewright.ir.graph import Graph, ResultSpec, Value
from rewright.ir.sizes import hull
from rewright.ir.types import ScalarType, TensorType


class SizesAt:
    """The sizes of a graph at given inputs, ints or torch's SymInts.

    Args:
        graph: says what is what.
        inputs: a tensor (fake ones do) or number for each input of `graph`.
        fresh: makes a size that only a run tells; gets its least and greatest value.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Sequence[Any],
        fresh: Callable[[int, int | None], Any] | None = None,
    ) -> None:
        self.graph = graph
        self.inputs = inputs
        self.fresh = fresh
        self._known: dict[sympy.Symbol, Any] = {}

    def __call__(self, expr: Any) -> Any:
        """The number that a size expression is."""
        if not isinstance(expr, sympy.Basic):
            return expr
        return emit_size(expr, _call, {s: self._symbol(s) for s in expr.free_symbols})

    def _symbol(self, symbol: sympy.Symbol) -> Any:
        if symbol not in self._known:
            self._known[symbol] = self._found(symbol)
        return self._known[symbol]

    def _found(self, symbol: sympy.Symbol) -> Any:
        info = self.graph.symbols[symbol]
        if not info.binding.is_input:
            if self.fresh is None:
                raise UnsupportedError(f"the size {symbol} is known only when the program has run")
            covered = hull(info.ranges)
            return self.fresh(covered.min or 0, covered.max)
        held = self.inputs[info.binding.index]
        if info.dim is not None:
            held = held.shape[info.dim]
        return emit_solution(info.equation, symbol, held, _call, self._symbol)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def empty_like(value: Value, sizes: SizesAt, spec: ResultSpec | None = None) -> torch.Tensor:
    """An empty tensor of a value's type, at eager's strides where `spec` knows them.

    A number is a tensor without dimensions.
    """
    device = sizes.graph.device
    match value.type:
        case TensorType(dtype, dims, elsewhere):
            shape = [sizes(dim) for dim in dims]
            place = elsewhere or device
            if spec is None or spec.strides is None:
                return torch.empty(shape, dtype=dtype, device=place)
            strides = [sizes(stride) for stride in spec.strides]
            return torch.empty_strided(shape, strides, dtype=dtype, device=place)
        case ScalarType(kind):
            return torch.empty((), dtype=NUMBER_DTYPES[kind])
    raise UnsupportedError(f"an operator of torch's can't return {value.type}")


NUMBER_DTYPES = {"int": torch.int64, "float": torch.float64, "bool": torch.bool}
"""How numbers travel as tensors."""
