"""Tensors of a network, with the operators that formulas are written in.

TensorRT promotes nothing: both sides of an operation must have one dtype and one rank. That is
seen to here, and only here, so that converters read as formulas:

    x * (x.to(torch.float32) + 3.0).clamp(0, 6)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import torch

from rewright.backends.tensorrt.dtypes import INTEGERS, is_narrow
from rewright.backends.tensorrt.enums import ActivationType as Act
from rewright.backends.tensorrt.enums import ElementWiseOperation as Binary
from rewright.backends.tensorrt.enums import UnaryOperation as Unary

if TYPE_CHECKING:
    from rewright.backends.tensorrt.network import Network


class Tensor:
    """A tensor of a network.

    Attributes:
        net: the network.
        dtype: its dtype, as torch's.
        shape: its dimensions as TensorRT knows them; -1 for those that vary.
        value: the numbers, where it is a constant. A constant's layer is made on first use.
    """

    __slots__ = ("_handle", "dtype", "net", "shape", "value")

    def __init__(
        self,
        net: Network,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        handle: Any,
        value: torch.Tensor | None = None,
    ) -> None:
        self.net = net
        self.dtype = dtype
        self.shape = shape
        self.value = value
        self._handle = handle

    @property
    def handle(self) -> Any:
        """TensorRT's own tensor."""
        if self._handle is None:
            assert self.value is not None
            self._handle = self.net.emit_constant(self.value)
        return self._handle

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.dtype.is_floating_point

    def __repr__(self) -> str:
        return f"<Tensor {self.dtype} {self.shape}>"

    # -- dtypes

    def to(self, dtype: torch.dtype) -> Tensor:
        """The same numbers as `dtype`, as torch casts them."""
        if dtype == self.dtype:
            return self
        if self.value is not None:
            return self.net.constant(self.value.to(dtype))
        return self.net.layer("add_cast", self, dtype)

    def wide(self) -> Tensor:
        """As ``f32``, if this is a 16-bit float: what torch computes formulas in."""
        return self.to(torch.float32) if is_narrow(self.dtype) else self

    def like(self, value: Any) -> Tensor:
        """A number or size as a constant of this tensor's dtype and rank."""
        if isinstance(value, Tensor):
            return value.to(self.dtype)
        return self.net.scalar(value, self.dtype, self.rank)

    # -- pointwise

    def unary(self, operation: Unary) -> Tensor:
        """``operation(self)``."""
        return self.net.layer("add_unary", self, operation)

    def activation(self, kind: Act, **constants: Any) -> Tensor:
        """``kind(self)``, with constants ``alpha`` and ``beta`` where it has some."""
        return self.net.layer("add_activation", self, kind, **constants)

    def binary(self, operation: Binary, other: Any) -> Tensor:
        """``operation(self, other)`` in the dtype that holds both; `other` may be a number."""
        a, b = aligned(self, other)
        return self.net.layer("add_elementwise", a, b, operation)

    def where(self, yes: Any, no: Any) -> Tensor:
        """For a bool tensor: elements of `yes` where it is true, of `no` elsewhere."""
        if not isinstance(yes, Tensor):
            yes = no.like(yes)
        yes, no = aligned(yes, no)
        rank = max(self.rank, yes.rank)
        parts = (ranked(part, rank) for part in (self, yes, no))
        return self.net.layer("add_select", *parts)

    def clamp(self, low: Any = None, high: Any = None) -> Tensor:
        """At least `low` and at most `high`."""
        x = self if low is None else self.binary(Binary.MAX, low)
        return x if high is None else x.binary(Binary.MIN, high)

    def __add__(self, other: Any) -> Tensor:
        return self.binary(Binary.SUM, other)

    def __sub__(self, other: Any) -> Tensor:
        return self.binary(Binary.SUB, other)

    def __rsub__(self, other: Any) -> Tensor:
        return self.like(other) - self

    def __mul__(self, other: Any) -> Tensor:
        return self.binary(Binary.PROD, other)

    def __truediv__(self, other: Any) -> Tensor:
        return self.binary(Binary.DIV, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return self.like(other) / self

    def __floordiv__(self, other: Any) -> Tensor:
        return self.binary(Binary.FLOOR_DIV, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return self.like(other) // self

    def __mod__(self, other: Any) -> Tensor:
        a, b = aligned(self, other)
        return a - (a // b) * b

    def __rmod__(self, other: Any) -> Tensor:
        return self.like(other) % self

    def __rpow__(self, other: Any) -> Tensor:
        return self.like(other) ** self

    def __pow__(self, other: Any) -> Tensor:
        return self.binary(Binary.POW, other)

    def __neg__(self) -> Tensor:
        return self.unary(Unary.NEG)

    def __lt__(self, other: Any) -> Tensor:
        return self.binary(Binary.LESS, other)

    def __gt__(self, other: Any) -> Tensor:
        return self.binary(Binary.GREATER, other)

    def __ge__(self, other: Any) -> Tensor:
        if self.dtype in INTEGERS:
            return ~(self < other)
        return (self > other) | self.equal(other)  # not `~(self < other)`: nan is not >= anything

    def __le__(self, other: Any) -> Tensor:
        if self.dtype in INTEGERS:
            return ~(self > other)
        return (self < other) | self.equal(other)

    def equal(self, other: Any) -> Tensor:
        """Whether elements are equal. Not ``==``, which is identity."""
        return self.binary(Binary.EQUAL, other)

    def __and__(self, other: Tensor) -> Tensor:
        return self.binary(Binary.AND, other)

    def __or__(self, other: Tensor) -> Tensor:
        return self.binary(Binary.OR, other)

    def __xor__(self, other: Tensor) -> Tensor:
        return self.binary(Binary.XOR, other)

    def __invert__(self) -> Tensor:
        return self.unary(Unary.NOT)

    __radd__ = __add__
    __rmul__ = __mul__


# --------------------------------------------------------------------------- legalization


def aligned(a: Tensor, b: Any) -> tuple[Tensor, Tensor]:
    """Two operands with one dtype and one rank; a number takes the dtype of the other."""
    if not isinstance(b, Tensor):
        b = a.like(b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    rank = max(a.rank, b.rank)
    return ranked(a.to(dtype), rank), ranked(b.to(dtype), rank)


def ranked(x: Tensor, rank: int) -> Tensor:
    """`x` with dimensions of 1 put before its own, up to `rank`."""
    from rewright.backends.tensorrt.shaping import unsqueeze

    return unsqueeze(x, range(rank - x.rank)) if rank > x.rank else x


def promoted(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors in the dtype that holds them all."""
    dtype = reduce(torch.promote_types, (x.dtype for x in tensors))
    return [x.to(dtype) for x in tensors]


ARITHMETIC: Final[dict[Any, Callable[..., Any]]] = {
    # what `emit_size` calls; Python's operators are Tensor's own
    torch.sym_max: lambda a, b: _either(Binary.MAX, a, b),
    torch.sym_min: lambda a, b: _either(Binary.MIN, a, b),
    torch.sym_not: operator.invert,
    torch.sym_float: lambda a: a.to(torch.float32),
    torch.sym_ite: lambda c, a, b: c.where(c.to(torch.int64).like(a), c.to(torch.int64).like(b)),
    torch.sym_sqrt: lambda a: a.to(torch.float32).unary(Unary.SQRT),
    operator.truediv: lambda a, b: _float(a) / _float(b),
    operator.abs: lambda a: a.unary(Unary.ABS),
    operator.eq: lambda a, b: _either(Binary.EQUAL, a, b),
    operator.ne: lambda a, b: ~_either(Binary.EQUAL, a, b),
    operator.pow: lambda a, b: a**b,
}
"""How functions of size expressions are computed on tensors, where an operator doesn't say it."""


def _either(operation: Binary, a: Any, b: Any) -> Tensor:
    """A commutative operation on a tensor and something else, in any order."""
    return a.binary(operation, b) if isinstance(a, Tensor) else b.binary(operation, a)


def _float(value: Any) -> Any:
    return value.to(torch.float32) if isinstance(value, Tensor) else float(value)
