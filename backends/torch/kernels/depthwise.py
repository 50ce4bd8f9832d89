"""Depthwise convolution over two dimensions, as one operator of torch's.

cuDNN's kernel for 16-bit images in channels-last memory takes four times as long as the memory
would. Ours is Triton's (:mod:`~rewright.backends.torch.kernels.depthwise_triton`), which is
imported where it is first launched; what it does not take, or what it is not there for, torch's
own convolution computes. The result has its image's memory order, whoever computes it.

Nothing is timed: the blocks of a launch follow from its sizes, by a table, so that a CUDA graph
can record it. What was not compiled before a recording is torch's in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from rewright.caller import warn
from rewright.errors import FallbackWarning
from rewright.ir.convolutions import (
    DEPTHWISE_CHANNELS,
    DEPTHWISE_DTYPES,
    DEPTHWISE_SIDES,
    DEPTHWISE_STRIDES,
)

_LIBRARY: Final = torch.library.Library("rewright_kernels", "FRAGMENT")
_LIBRARY.define(
    "depthwise_conv(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, "
    "bool relu) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
)

_ALIGNED: Final = 16
"""Bytes of one load: where memory must begin."""

_INT32: Final = 2**31
"""Places are counted in 32 bits."""


@attrs.frozen
class Blocks:
    """How a launch is divided.

    Attributes:
        rows: of the result, of each thread.
        pixels: of each program, in each of those rows; a power of 2.
        channels: of each program; a power of 2.
        warps: of each program; a thread has ``pixels * channels / (32 * warps)`` channels.
    """

    rows: int
    pixels: int
    channels: int
    warps: int

    def over(self, channels: int) -> Blocks:
        """The same for so many channels in all: blocks of fewer where those leave less over."""
        fits = [
            self.channels >> by for by in range(3) if self.channels >> by >= 2 * DEPTHWISE_CHANNELS
        ]
        best = min(fits, key=lambda each: (-(-channels // each) * each, -each))
        return attrs.evolve(self, channels=best, pixels=self.pixels * self.channels // best)


TABLE: Final = (
    (1_000_000, Blocks(4, 16, 64, 4)),
    (0, Blocks(2, 8, 64, 4)),
)
"""The blocks, by how many numbers the result has at least: the fastest of 15 for ConvNeXt's shapes
on an H200 (``python -m benchmarks.depthwise --sweep``). Few numbers need many small programs, to
fill the GPU; many of them gain from lines that are read once for several rows."""


def blocks_for(numel: int, channels: int) -> Blocks:
    """The blocks for a result of `numel` numbers in `channels` channels."""
    return next(blocks for least, blocks in TABLE if numel >= least).over(channels)


# --------------------------------------------------------------------------- torch's


def _order(input: Tensor) -> torch.memory_format:
    is_last = input.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def _by_torch(input: Tensor, weight: Tensor, bias: Tensor | None, *steps: Any) -> Tensor:
    """What it computes, in the ops that it is made of."""
    stride, padding, relu = steps
    made = torch.convolution(
        input, weight.contiguous(), bias, stride, padding, [1, 1], False, [0, 0], weight.shape[0]
    )
    return (made.relu_() if relu else made).contiguous(memory_format=_order(input))


def _fake(input: Tensor, weight: Tensor, bias: Tensor | None, *steps: Any) -> Tensor:
    stride, padding, _ = steps
    shape = _shape(input, weight, stride, padding)
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=_order(input))


def _shape(
    input: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, ...]:
    """The result's."""
    places = zip(input.shape[2:], weight.shape[2:], stride, padding, strict=True)
    return (*input.shape[:2], *((size + 2 * p - k) // s + 1 for size, k, s, p in places))


# --------------------------------------------------------------------------- Triton's


@cache
def has_triton() -> bool:
    """Whether triton is installed; it is not imported for that."""
    return find_spec("triton") is not None


def takes(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> bool:
    """Whether the kernel can compute it, wherever the tensors are."""
    given = [each for each in (input, weight, bias) if each is not None]
    is_aligned = all(each.data_ptr() % _ALIGNED == 0 for each in given)
    return is_aligned and _suits(given, stride, padding)


def _suits(given: Sequence[Tensor], stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether the kernel can compute it, if memory begins where it should."""
    input, weight, *_ = given
    return (
        input.dtype in DEPTHWISE_DTYPES
        and all(each.dtype == input.dtype for each in given)
        and input.is_contiguous(memory_format=torch.channels_last)
        and weight.shape[:2] == (input.shape[1], 1)
        and weight.shape[0] % DEPTHWISE_CHANNELS == 0
        and all(side in DEPTHWISE_SIDES for side in weight.shape[2:])
        and tuple(stride) in DEPTHWISE_STRIDES
        and _is_countable(input, _shape(input, weight, stride, padding), padding)
    )


def _is_countable(input: Tensor, shape: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether there is a result, and 32 bits count all that a program may look at for it.

    That is the image with its padding, and the rows of threads that reach over its end.
    """
    high, wide = (size + 2 * pad + 16 for size, pad in zip(input.shape[2:], padding, strict=True))
    return min(shape) > 0 and input.shape[0] * input.shape[1] * high * wide < _INT32


def is_innermost(weight: Tensor) -> bool:
    """Whether the memory of ``[channels, 1, kh, kw]`` is that of ``[kh, kw, channels]``."""
    return weight.permute(2, 3, 1, 0).is_contiguous()


def launch(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    relu: bool = False,
    blocks: Blocks | None = None,
) -> Tensor:
    """What :func:`depthwise_conv` says, by the kernel, on the current device.

    Args:
        input: as there, and so the rest; what the kernel takes (:func:`takes`).
        weight: read fastest where its channels are innermost (:func:`is_innermost`).
        bias: may be None.
        stride: 1 or 2, twice.
        padding: of both dimensions.
        relu: whether negative results become 0.
        blocks: how the work is divided; by the table where it isn't given.
    """
    from rewright.backends.torch.kernels.depthwise_triton import convolve

    shape = _shape(input, weight, stride, padding)
    result = torch.empty(
        shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last
    )
    by = blocks or blocks_for(result.numel(), shape[1])
    places = shape[0] * -(-shape[2] // by.rows) * shape[3]
    innermost = is_innermost(weight)
    convolve[-(-places // by.pixels), -(-shape[1] // by.channels)](
        input,
        weight if innermost else weight.contiguous(),
        bias if bias is not None else weight,  # not read
        result,
        *input.shape[2:],
        *shape[2:],
        shape[1] // DEPTHWISE_CHANNELS,
        places,
        *padding,
        *weight.shape[2:],
        stride[0],
        innermost,
        bias is not None,
        relu,
        by.rows,
        by.pixels,
        by.channels,
        num_warps=by.warps,
    )
    return result


_ready: Final[set[tuple[object, ...]]] = set()
"""What was compiled, and ran."""

_refused: Final[set[tuple[object, ...]]] = set()
"""What triton turned out not to compile here."""


def _by_triton(input: Tensor, weight: Tensor, bias: Tensor | None, *steps: Any) -> Tensor:
    stride, padding, relu = steps
    if not (has_triton() and takes(input, weight, bias, stride, padding)):
        return _by_torch(input, weight, bias, *steps)
    key = _compiled_for(input, weight, bias, *steps)
    with torch.cuda.device(input.device):
        if key in _ready:
            return launch(input, weight, bias, stride, padding, relu)
        if key in _refused or torch.cuda.is_current_stream_capturing():
            return _by_torch(input, weight, bias, *steps)
        try:
            made = launch(input, weight, bias, stride, padding, relu)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no C compiler, a GPU that triton has no code for: many kinds
            _refused.add(key)
            warn(
                f"Triton can't compile the depthwise convolution of {tuple(weight.shape)} for "
                f"{input.device}, and torch's own runs in its place: {error}",
                FallbackWarning,
            )
            return _by_torch(input, weight, bias, *steps)
    _ready.add(key)
    return made


def _compiled_for(
    input: Tensor, weight: Tensor, bias: Tensor | None, *steps: Any
) -> tuple[object, ...]:
    """What each compiled form of the kernel is for."""
    stride, padding, relu = steps
    shape = _shape(input, weight, stride, padding)
    blocks = blocks_for(math.prod(shape), shape[1])
    kinds = (is_innermost(weight), bias is None, relu)
    return (input.device, input.dtype, *weight.shape[2:], stride[0], *kinds, blocks)


def compiles(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    relu: bool = False,
) -> dict[object, Callable[[], Any]]:
    """What a call with (fake) tensors like these compiles, by what it is for: one kernel, or none.

    It is launched for it once, with a result of one pixel: that compiles what any size needs.
    """
    if input.device.type != "cuda" or not has_triton():
        return {}
    if not all(isinstance(size, int) for each in (input, weight) for size in each.shape):
        return {}
    given = [each for each in (input, weight, bias) if each is not None]
    if not _suits(given, stride, padding):
        return {}
    key = _compiled_for(input, weight, bias, stride, padding, relu)
    shape = _shape(input, weight, stride, padding)

    def compile_kernel() -> None:
        like: dict[str, Any] = {"dtype": input.dtype, "device": input.device}
        small = torch.empty(
            (1, input.shape[1], *weight.shape[2:]), memory_format=torch.channels_last, **like
        )
        taps = torch.empty_strided(weight.shape, weight.stride(), **like)
        some = torch.empty(weight.shape[:1], **like) if bias is not None else None
        with torch.cuda.device(input.device), torch.no_grad():
            launch(small, taps, some, stride, (0, 0), relu, blocks_for(math.prod(shape), shape[1]))

    return {} if key in _ready | _refused else {key: compile_kernel}


_LIBRARY.impl("depthwise_conv", _by_torch, "CompositeExplicitAutograd")
_LIBRARY.impl("depthwise_conv", _by_triton, "CUDA")
torch.library.register_fake("rewright_kernels::depthwise_conv", _fake, lib=_LIBRARY)


def depthwise_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    relu: bool = False,
) -> Tensor:
    """Each channel convolved (cross-correlated) with a kernel of its own, over two dimensions.

    Args:
        input: ``[n, channels, h, w]``.
        weight: ``[channels, 1, kh, kw]``, of the same dtype.
        bias: ``[channels]``.
        stride: one number for each of both dimensions; so `padding`.
        padding: zeros on both sides.
        relu: whether negative results become 0.

    Returns:
        ``[n, channels, oh, ow]``, in channels-last memory where `input` is in it, else contiguous.
    """
    made: Tensor = torch.ops.rewright_kernels.depthwise_conv(
        input, weight, bias, stride, padding, relu
    )
    return made
