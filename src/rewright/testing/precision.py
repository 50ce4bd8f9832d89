"""How a layer's dtypes become torch's: one place for the choice that all layers share.

A floating-point layer is computed in float32 and rounded once, to the dtype of its output. This is
what TensorRT's kernels do within a layer (products, reductions and normalizations of f16 and bf16
accumulate in float32; transcendental functions are evaluated in float32). What TensorRT fuses over
several layers it may round less often than this.
"""

import functools
from collections.abc import Callable

import torch

__all__ = ["in_float32", "wide"]


def wide(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32 where it is a narrower float, else ``x``."""
    return x.float() if x.is_floating_point() else x


def in_float32(
    function: Callable[..., torch.Tensor],
) -> Callable[..., torch.Tensor]:
    """``function`` with its floating-point tensors widened to float32, and its floating-point
    result rounded to the dtype of its first tensor.
    """

    @functools.wraps(function)
    def rounded_once(*args: object) -> torch.Tensor:
        first = next(arg for arg in args if isinstance(arg, torch.Tensor))
        out = function(*(wide(arg) if isinstance(arg, torch.Tensor) else arg for arg in args))
        return out.to(first.dtype) if out.is_floating_point() else out

    return rounded_once
