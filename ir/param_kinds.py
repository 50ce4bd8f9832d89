"""Whether an argument is of the kind that a parameter says: roughly, as torch itself would take it.

Kinds are spelled as in torch's schemas (``Optional[List[int]]``) or as Python annotations
(``Sequence[int] | None``); what neither table below knows takes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import sympy
import torch

from rewright.ir.attributes import Operand
from rewright.ir.graph import Value
from rewright.ir.types import NoneType, OpaqueType, ScalarType, TensorType, Type

_Test: TypeAlias = Callable[[Any, Sequence[Value]], bool]


def accepts(kind: str, item: Any, operands: Sequence[Value]) -> bool:
    """Whether the attribute `item`, which may mention `operands`, can be an argument of `kind`."""
    return _test(kind)(item, operands)


@lru_cache(maxsize=512)
def _test(kind: str) -> _Test:
    if inner := _inside(kind, "Optional[", "]") or _inside(kind, "", " | None"):
        test = _test(inner)
        return lambda item, operands: _is_none(item, operands) or test(item, operands)
    if inner := _inside(kind, "List[", "]") or _inside(kind, "Sequence[", "]"):
        test = _test(inner)
        # Torch takes one number where a schema says `int[2]`, too.
        return lambda item, operands: (
            all(test(part, operands) for part in item)
            if isinstance(item, tuple)
            else test(item, operands)
        )
    return lambda item, operands: _is_a(kind, item, operands)


def _inside(kind: str, before: str, after: str) -> str:
    if kind.startswith(before) and kind.endswith(after):
        return kind.removeprefix(before).removesuffix(after)
    return ""


def _is_none(item: Any, operands: Sequence[Value]) -> bool:
    if isinstance(item, Operand):
        return item.index < len(operands) and isinstance(operands[item.index].type, NoneType)
    return item is None


def _is_a(kind: str, item: Any, operands: Sequence[Value]) -> bool:
    if kind not in _ATTRIBUTES:
        return True
    if isinstance(item, Operand):
        # A slot that isn't there is another check's fault.
        return item.index >= len(operands) or isinstance(
            operands[item.index].type, _VALUES.get(kind, ())
        )
    return isinstance(item, _ATTRIBUTES[kind])


_NUMBERS: Final = (bool, int, float, sympy.Basic)
_ENUMS: Final = (torch.dtype, torch.layout, torch.memory_format)  # ints to a schema

_ATTRIBUTES: Final[dict[str, tuple[type, ...]]] = {
    "Tensor": (*_NUMBERS, complex),  # torch makes a tensor of a number
    "int": (bool, int, sympy.Basic, *_ENUMS),
    "float": _NUMBERS,
    "complex": (*_NUMBERS, complex),
    "number": (*_NUMBERS, complex),
    "bool": (bool, int, sympy.Basic),
    "str": (str,),
    "Device": (torch.device, str),
}
"""The attributes that a kind takes."""

_VALUES: Final[dict[str, tuple[type[Type], ...]]] = {
    "Tensor": (TensorType, ScalarType, OpaqueType),
    "int": (ScalarType,),
    "float": (ScalarType,),
    "bool": (ScalarType,),
    "complex": (ScalarType, TensorType),
    "number": (ScalarType, TensorType),
    "str": (OpaqueType,),
}
"""The types of values that a kind takes."""
