"""Types of values: tensors, symbolic scalars, None, and opaque Python objects.

Types are values themselves: frozen, hashable, compared by structure. A tensor type is a dtype
and a shape, nothing of memory: no strides, no storage, no views.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final, TypeAlias

import attrs
import sympy
import torch
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from rewright.ir.sizes import Dim, format_expr, free_symbols, simplify, substitute

DTYPE_NAMES: Final[dict[torch.dtype, str]] = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "f8e4m3fn",
    torch.float8_e5m2: "f8e5m2",
    torch.float8_e4m3fnuz: "f8e4m3fnuz",
    torch.float8_e5m2fnuz: "f8e5m2fnuz",
    torch.float8_e8m0fnu: "f8e8m0fnu",
    torch.float4_e2m1fn_x2: "f4e2m1fnx2",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint64: "u64",
    torch.uint32: "u32",
    torch.uint16: "u16",
    torch.uint8: "u8",
    torch.bool: "bool",
    torch.complex128: "c128",
    torch.complex64: "c64",
    torch.complex32: "c32",
    torch.qint8: "qint8",
    torch.quint8: "quint8",
    torch.qint32: "qint32",
    **{
        getattr(torch, name): name
        for name in (
            *("quint4x2", "quint2x4", "bits1x8", "bits2x4", "bits4x2", "bits8", "bits16"),
            *(f"{kind}{bits}" for kind in ("int", "uint") for bits in range(1, 8)),
        )
    },
}
"""How dtypes are spelled in the text of the IR."""

DTYPES: Final[dict[str, torch.dtype]] = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def _simplified(dims: Iterable[Dim]) -> tuple[Dim, ...]:
    return tuple(simplify(dim) for dim in dims)


@attrs.frozen(slots=False)
class TensorType:
    """A tensor of `dtype` and `shape`.

    `device` is None on the program's own device, else the name of the device where it lives.
    """

    dtype: torch.dtype
    shape: tuple[Dim, ...] = attrs.field(converter=_simplified)
    device: str | None = None

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @cached_property
    def is_static(self) -> bool:
        """Whether every dimension is a number."""
        return all(isinstance(dim, int) for dim in self.shape)

    @cached_property
    def numel(self) -> Dim:
        """The number of elements; an expression where the shape is symbolic."""
        return simplify(math.prod(self.shape))

    @property
    def nbytes(self) -> Dim:
        """The bytes of the elements, one after another."""
        return simplify(self.numel * self.dtype.itemsize)

    @property
    def is_floating_point(self) -> bool:
        """Whether the elements are real floating-point numbers."""
        return self.dtype.is_floating_point

    def __str__(self) -> str:
        shape = ", ".join(format_expr(dim) for dim in self.shape)
        place = f" on {self.device}" if self.device else ""
        return f"{DTYPE_NAMES[self.dtype]}[{shape}]{place}"


def _exactly(expr: Any) -> Any:
    """What tells expressions apart: nan equals itself, and 0.0 is not -0.0."""
    return repr(expr) if isinstance(expr, float) else expr


@attrs.frozen
class ScalarType:
    """A Python number of `kind` ``int``, ``float`` or ``bool``.

    `expr` gives its value over the graph's symbols (or the number itself); None is a value
    that no symbol stands for.
    """

    kind: str = attrs.field(validator=attrs.validators.in_(("int", "float", "bool")))
    expr: Any = attrs.field(default=None, converter=simplify, eq=_exactly)

    def __str__(self) -> str:
        return self.kind if self.expr is None else f"{self.kind}({format_expr(self.expr)})"


@attrs.frozen
class NoneType:
    """The type of None."""

    def __str__(self) -> str:
        return "none"


@attrs.frozen
class OpaqueType:
    """A Python object that only torch understands (a packed weight, a string list ...)."""

    name: str

    def __str__(self) -> str:
        return f"object<{self.name}>"


Type: TypeAlias = "TensorType | ScalarType | NoneType | OpaqueType"


def type_symbols(value_type: Type) -> set[Any]:
    """The symbols that `value_type` mentions."""
    match value_type:
        case TensorType():
            return free_symbols(value_type.shape)
        case ScalarType():
            return free_symbols([value_type.expr])
    return set()


def size_at(value_type: Type, dim: int | None) -> Any:
    """Dimension `dim` of a tensor type, or (for None) what a scalar type is; None without one."""
    match value_type:
        case ScalarType(expr=expr) if dim is None:
            return expr
        case TensorType(shape=shape) if dim is not None and dim < len(shape):
            return shape[dim]
    return None


def kind_of(expr: sympy.Basic) -> str:
    """What Python number an expression gives: ``int``, ``float`` or ``bool``."""
    if isinstance(expr, Relational | BooleanFunction):  # not Boolean: that is every symbol
        return "bool"
    if expr.is_integer:
        return "int"
    parts = sympy.preorder_traversal(expr)
    return "float" if any(_is_float(part) for part in parts) else "int"


def _is_float(part: sympy.Basic) -> bool:
    if isinstance(part, sympy.Symbol):
        return not part.is_integer
    return isinstance(part, sympy.Float) or type(part).__name__.startswith(_FLOAT_FUNCTIONS)


_FLOAT_FUNCTIONS: Final = ("ToFloat", "IntTrueDiv", "FloatTrueDiv", "FloatPow", "OpaqueUnaryFn")


def type_of_number(value: Any) -> Type:
    """The type of a Python number, size expression, string or None as a value of the graph."""
    if value is None:
        return NoneType()
    if isinstance(value, bool | int | float):
        return ScalarType(type(value).__name__, value)
    if isinstance(value, sympy.Basic):
        return ScalarType(kind_of(value), value)
    return OpaqueType(type(value).__name__)


def substitute_type(value_type: Type, values: Mapping[Any, Any]) -> Type:
    """`value_type` with symbols replaced by expressions."""
    match value_type:
        case TensorType(dtype, shape, device):
            return TensorType(dtype, tuple(substitute(dim, values) for dim in shape), device)
        case ScalarType(kind, expr):
            return ScalarType(kind, substitute(expr, values))
    return value_type


def cast_arguments(old: TensorType, new: TensorType, device: str) -> dict[str, Any]:
    """The arguments of the ``aten._to_copy`` that leads from one type to another, if any."""
    arguments: dict[str, Any] = {}
    if old.dtype != new.dtype:
        arguments["dtype"] = new.dtype
    if old.device != new.device:
        arguments["device"] = torch.device(new.device or device)
    return arguments
