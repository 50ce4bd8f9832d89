"""TensorRT's data types, and the torch dtypes that hold their values here.

Keys are the names of ``trt.DataType``'s members: their integers differ between versions.

The 4-bit types have no torch dtype with one element per value, so they are *held* in a wider one:
INT4 in int8 (-8 to 7), FP4 in float32 (the 15 values of E2M1). Inputs and outputs of a network
with such a type are given and returned so.
"""

from typing import Any

import torch

__all__ = ["FP4_VALUES", "HELD_AS", "INTEGER_RANGE", "to_fp4", "torch_dtype", "unpack_4bit"]

HELD_AS: dict[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "FP8": torch.float8_e4m3fn,
    "E8M0": torch.float8_e8m0fnu,
    "INT4": torch.int8,
    "FP4": torch.float32,
}

INTEGER_RANGE: dict[str, tuple[int, int]] = {"INT8": (-128, 127), "INT4": (-8, 7)}

# E2M1: one sign bit, two of exponent (bias 1), one of mantissa. The index is the low three bits.
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype that holds values of ``dtype``, a member of ``trt.DataType``."""
    return HELD_AS[dtype.name]


def to_fp4(x: torch.Tensor) -> torch.Tensor:
    """``x`` (float32) rounded to the nearest FP4 value, ties to even, saturating at 6."""
    grid = torch.tensor(FP4_VALUES)
    magnitude = x.abs().clamp(max=FP4_VALUES[-1])
    upper = torch.bucketize(magnitude, grid).clamp(max=len(FP4_VALUES) - 1)
    lower = (upper - 1).clamp(min=0)
    below, above = magnitude - grid[lower], grid[upper] - magnitude
    # An even index has mantissa bit 0: that is the even neighbour.
    take_lower = (below < above) | ((below == above) & (lower % 2 == 0))
    return torch.where(take_lower, grid[lower], grid[upper]).copysign(x)


def unpack_4bit(packed: torch.Tensor, kind: str, count: int) -> torch.Tensor:
    """``count`` values of INT4 or FP4 out of ``packed`` (uint8, two values a byte, the first in
    the low half): a flat tensor of the dtype that holds ``kind``.
    """
    nibbles = torch.stack([packed & 0xF, packed >> 4], dim=-1).flatten()[:count].long()
    if kind == "INT4":
        return torch.where(nibbles > 7, nibbles - 16, nibbles).to(torch.int8)
    return torch.tensor(FP4_VALUES + tuple(-value for value in FP4_VALUES))[nibbles]
