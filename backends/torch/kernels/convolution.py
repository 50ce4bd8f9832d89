"""Convolution, bias, residual and ReLU in one kernel of cuDNN's, as one operator of torch's.

Torch has ``aten.cudnn_convolution_relu`` and ``aten.cudnn_convolution_add_relu``, without fake
implementations, so that nothing can trace them. The operator here has one, whose result is in
channels-last memory; Inductor calls it as it is, and gives it its inputs in that order where they
are traced so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

_LIBRARY: Final = torch.library.Library("rewright_kernels", "FRAGMENT")
_LIBRARY.define(
    "conv_relu(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int[] stride, "
    "int[] padding, int[] dilation, int groups) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
)

_log: Final = logging.getLogger(__name__)

_refused: Final[set[tuple[object, ...]]] = set()
"""Convolutions that cuDNN turned out to have no such kernel for."""


def _by_torch(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    *steps: Any,
) -> Tensor:
    """What it computes, in the ops that it is made of."""
    stride, padding, dilation, groups = steps
    made = torch.convolution(
        input, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups
    )
    made = made if residual is None else made + residual
    return made.relu_().contiguous(memory_format=torch.channels_last)


def _by_cudnn(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    *steps: Any,
) -> Tensor:
    if _refused and _key(input, weight, residual, steps) in _refused:
        return _by_torch(input, weight, bias, residual, *steps)
    order = torch.channels_last
    image, kernel = input.contiguous(memory_format=order), weight.contiguous(memory_format=order)
    try:
        if residual is None:
            made = torch.ops.aten.cudnn_convolution_relu(image, kernel, bias, *steps)
        else:
            added = residual.contiguous(memory_format=order)
            made = torch.ops.aten.cudnn_convolution_add_relu(
                image, kernel, added, 1.0, bias, *steps
            )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # "unable to find an engine": which, only a try can tell
        _refuse(input, weight, residual, steps, error)
        return _by_torch(input, weight, bias, residual, *steps)
    return made.contiguous(memory_format=order)


def _refuse(
    input: Tensor, weight: Tensor, residual: Tensor | None, steps: Any, error: RuntimeError
) -> None:
    """Notes a convolution that cuDNN refused, and says so: once as a warning, then as info."""
    level = logging.INFO if _refused else logging.WARNING
    _refused.add(_key(input, weight, residual, steps))
    stride, padding, dilation, groups = steps
    _log.log(
        level,
        "cuDNN has no kernel of convolution, %s and relu for %s %s by %s (stride %s, padding %s, "
        "dilation %s, groups %s): torch runs them one by one. %s; further ones are logged at INFO",
        "bias" if residual is None else "residual",
        input.dtype, [*input.shape], [*weight.shape], stride, padding, dilation, groups,
        (str(error).splitlines() or [type(error).__name__])[0],
    )  # fmt: skip


def _key(input: Tensor, weight: Tensor, residual: Tensor | None, steps: Any) -> tuple[object, ...]:
    return (*input.shape, *weight.shape, str(steps), input.dtype, residual is None)


def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    *steps: Any,
) -> Tensor:
    stride, padding, dilation, _ = steps
    places = zip(input.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    sizes = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in places]
    shape = (input.shape[0], weight.shape[0], *sizes)
    return torch.empty(
        shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last
    )


_LIBRARY.impl("conv_relu", _by_torch, "CompositeExplicitAutograd")
_LIBRARY.impl("conv_relu", _by_cudnn, "CUDA")
torch.library.register_fake("rewright_kernels::conv_relu", _fake, lib=_LIBRARY)


def conv_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """``relu(conv(input, weight, bias) + residual)`` over two dimensions.

    Args:
        input: ``[n, channels, h, w]``.
        weight: ``[out, channels/groups, *kernel]``.
        bias: ``[out]``; cuDNN is given zeros where there is none.
        residual: like the result.
        stride: one number for each of both dimensions; so `padding` and `dilation`.
        padding: zeros on both sides.
        dilation: steps between elements of the kernel.
        groups: how many parts the channels come in.

    Returns:
        ``[n, out, *spatial]`` in channels-last memory.
    """
    made: Tensor = torch.ops.rewright_kernels.conv_relu(
        input, weight, bias, residual, stride, padding, dilation, groups
    )
    return made
