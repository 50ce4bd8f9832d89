"""Dtypes: what TensorRT has for each of torch's, and what is done about the rest.

===========================  ==================================================================
torch                        in TensorRT
===========================  ==================================================================
f32 f16 bf16 i32 i64 bool    the same: computed with
i8 f8e4m3fn                  the same: only between quantize and dequantize
u8                           the same: only as what a cast takes or gives
f64                          refused: f32 would change the numbers; constants are prepared in f64,
                             and the setting `truncate_double` makes the rest f32
complex numbers              refused
i16, u16, u32, u64           refused: there is nothing of their width
===========================  ==================================================================
"""

from __future__ import annotations

from typing import Any, Final

import torch

from rewright.ir.types import DTYPE_NAMES

TENSORRT: Final[dict[torch.dtype, str]] = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BF16",
    torch.int64: "INT64",
    torch.int32: "INT32",
    torch.bool: "BOOL",
    torch.int8: "INT8",
    torch.uint8: "UINT8",
    torch.float8_e4m3fn: "FP8",
}
"""The member of TensorRT's ``DataType`` for each dtype that it has."""

FLOATS: Final = frozenset((torch.float32, torch.float16, torch.bfloat16))
INTEGERS: Final = frozenset((torch.int64, torch.int32))
NUMBERS: Final = FLOATS | INTEGERS
BOOL: Final = frozenset((torch.bool,))
COMPUTED: Final = NUMBERS | BOOL
"""What layers compute with."""
QUANTIZED: Final = frozenset((torch.int8, torch.float8_e4m3fn))


def names_of(dtypes: Any) -> str:
    """Dtypes as text, in the order in which torch's are listed in the IR: ``f32 f16 bf16``."""
    return " ".join(name for dtype, name in DTYPE_NAMES.items() if dtype in dtypes)


def why_not(dtype: torch.dtype) -> str:
    """Why a tensor of `dtype` can't be in a network."""
    name = DTYPE_NAMES[dtype]
    if dtype is torch.float64:
        return (
            "TensorRT has no f64, and f32 would change the numbers: truncate_double=True allows it"
        )
    return f"TensorRT has no {name}"


def is_narrow(dtype: torch.dtype) -> bool:
    """Whether torch computes formulas of `dtype` in ``f32`` and rounds once, at the end."""
    return dtype in (torch.float16, torch.bfloat16)
