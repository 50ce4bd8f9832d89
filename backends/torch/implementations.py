"""How torch computes the ops of ours: implementations, declared beside the reference.

An op of ``rw.`` means what its reference function says (:mod:`rewright.ir.rw_ops`), and without
an implementation that is what runs. An implementation is another function of the same
parameters, for the nodes that its condition accepts; the first declared one that does is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

import attrs
import torch
from torch import Tensor
from torch._C import _nn

from rewright.backends.torch.kernels import attention as attention_kernels
from rewright.backends.torch.kernels import convolution as conv_kernels
from rewright.backends.torch.kernels.depthwise import depthwise_conv
from rewright.backends.torch.runtime import restride
from rewright.ir.convolutions import has_depthwise_kernel
from rewright.ir.graph import Node
from rewright.ir.ops import Op
from rewright.ir.rw_ops import ACTIVATIONS
from rewright.ir.types import TensorType

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class Implementation:
    """A function that computes an op.

    Attributes:
        op: the op's name.
        name: the function's name, unique among all.
        function: takes the op's parameters.
        when: whether it can take a node; it is given the node.
        by: what may run it, ``eager`` (generated Python) or ``inductor``; all, and other tools of
            torch's, too, where this is empty.
        device: the kind of device that it runs on; any where this is empty.
        kernel: the name that the setting ``disabled_kernels`` knows it by; empty where it can't be
            switched off.
    """

    op: str
    name: str
    function: Callable[..., Any]
    when: Callable[[Node], bool]
    by: frozenset[str] = frozenset()
    device: str = ""
    kernel: str = ""

    def takes(self, node: Node, by: str, without: Collection[str] = ()) -> bool:
        """Whether it computes `node` where `by` runs the program, `without` some kernels."""
        if (self.by and by not in self.by) or self.kernel in without:
            return False
        is_here = node.graph.device.partition(":")[0] == self.device
        return (is_here or not self.device) and self.when(node)


_table: Final[dict[str, list[Implementation]]] = {}
_by_name: Final[dict[str, Implementation]] = {}


def implements(
    op: str,
    *,
    when: Callable[[Node], bool] = lambda _: True,
    by: Collection[str] = (),
    device: str = "",
    kernel: str = "",
) -> Callable[[F], F]:
    """Declares a function as an implementation of the op called `op`; see its attributes.

    Raises:
        ValueError: another implementation has the function's name.
    """

    def declare(function: F) -> F:
        name = function.__name__
        made = Implementation(op, name, function, when, frozenset(by), device, kernel)
        if made.name in _by_name:
            raise ValueError(f"there are two implementations called {made.name}")
        _by_name[made.name] = made
        _table.setdefault(op, []).append(made)
        return function

    return declare


def implementations(device: str = "") -> tuple[Implementation, ...]:
    """All that are declared for one kind of device, or for all of them, in order."""
    return tuple(item for item in _by_name.values() if item.device == device)


def implementation_of(
    op: Op, node: Node | None, by: str = "", without: Collection[str] = ()
) -> Implementation | None:
    """What computes `node` where `by` runs it, or None where that is the op's own function.

    Args:
        op: the op.
        node: a node of it; None gives None.
        by: what runs it, see `Implementation.by`.
        without: kernels that are switched off.
    """
    if node is None:
        return None
    return next((item for item in _table.get(op.name, ()) if item.takes(node, by, without)), None)


def implementation(name: str) -> Callable[..., Any]:
    """The function of the implementation called `name`; generated source asks for it."""
    return _by_name[name].function


# --------------------------------------------------------------------------- the table


@implements("rw.layout")
def restrided(input: Tensor, strides: Sequence[int]) -> Tensor:
    """The same numbers at these strides, copied only where they are not there already."""
    return restride(input, strides)


def _takes_sdpa(node: Node) -> bool:
    """Torch has one mask, of the query's dtype or bool; and a causal one, but not both."""
    query, mask = node.operands[0].type, node.attributes.get("mask")
    if node.attributes.get("window") is not None:
        return False
    if mask is None:
        return True
    held = node.operands[mask.index].type
    assert isinstance(query, TensorType)
    assert isinstance(held, TensorType)
    return held.dtype in (torch.bool, query.dtype) and not node.attributes.get("causal", False)


@implements(
    "rw.attention",
    when=lambda node: attention_kernels.kernel_of(node) == "efficient",
    by=("eager", "inductor"),
    device="cuda",
    kernel="attention",
)
def efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """Torch's memory-efficient kernel, where it was measured to be the fastest."""
    return attention_kernels.efficient(query, key, value, mask, scale)


@implements(
    "rw.attention",
    when=lambda node: attention_kernels.kernel_of(node) == "flash",
    by=("eager", "inductor"),
    device="cuda",
    kernel="attention",
)
def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """Torch's flash attention, where it was measured to be the fastest."""
    return attention_kernels.flash(query, key, value, scale)


@implements("rw.attention", when=_takes_sdpa)
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """Torch's own, which picks a fused kernel: it has those for four dimensions only."""
    few = query.dim() == 3
    if few:
        query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
        mask = mask.unsqueeze(0) if mask is not None and mask.dim() == 3 else mask
    grouped = query.dim() > 3 and bool(query.shape[-3] != key.shape[-3])
    if isinstance(scale, torch.SymFloat):  # one kernel for any, where torch's takes a number
        query, scale = query * scale, 1.0
    result = _nn.scaled_dot_product_attention(
        query, key, value, mask, is_causal=causal, scale=scale, enable_gqa=grouped
    )
    return result.squeeze(0) if few else result


def _one_dtype(node: Node) -> bool:
    """Whether all operands are of one dtype: torch's kernels ask for that."""
    types = [value.type for value in node.operands]
    return len({item.dtype for item in types if isinstance(item, TensorType)}) == 1


@implements("rw.layer_norm", when=_one_dtype)
def layer_norm(
    input: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    dims: int = 1,
    eps: float = 1e-5,
) -> Tensor:
    """Torch's own, one kernel."""
    return torch.layer_norm(input, input.shape[-dims:], weight, bias, eps)


@implements("rw.rms_norm", when=_one_dtype)
def rms_norm(
    input: Tensor, weight: Tensor | None = None, *, dims: int = 1, eps: float = 1e-6
) -> Tensor:
    """Torch's own."""
    return torch.rms_norm(input, input.shape[-dims:], weight, eps)


@implements("rw.group_norm", when=_one_dtype)
def group_norm(
    input: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
    silu: bool = False,
) -> Tensor:
    """Torch's own, one kernel; SiLU after it."""
    normalised = torch.group_norm(input, groups, weight, bias, eps)
    return torch.nn.functional.silu(normalised, inplace=True) if silu else normalised


def _takes_cudnn(node: Node) -> bool:
    """Whether cuDNN has one kernel for it: on tensor cores, with a bias, of whole vectors."""
    image, weight, result = node.operands[0].type, node.arg("weight").type, node.result.type
    residual = node.arg("residual")
    assert isinstance(image, TensorType)
    return (
        _one_dtype(node)
        and node.arg("bias") is not None
        and image.dtype in (torch.float16, torch.bfloat16)
        and image.rank == 4
        and image.is_static
        and node.attributes.get("groups", 1) == 1
        and all(channels % 8 == 0 for channels in weight.shape[:2])
        and (residual is None or residual.type == result)
    )


@implements("rw.conv_relu", when=_takes_cudnn, by=("eager", "inductor"), device="cuda")
def cudnn_conv_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """One kernel of cuDNN's, in channels-last memory."""
    given = [*stride], [*padding], [*dilation]
    return conv_kernels.conv_relu(input, weight, bias, residual, *given, groups)


def _takes_depthwise(node: Node) -> bool:
    """Whether the kernel of ours computes it, given channels-last memory."""
    return has_depthwise_kernel(node, node.graph.device)


@implements("rw.conv", when=_takes_depthwise, by=("eager",), device="cuda", kernel="depthwise")
def depthwise(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    **_: Any,
) -> Tensor:
    """One kernel of ours, where the image is in channels-last memory; torch's where it is not."""
    return depthwise_conv(input, weight, bias, [*stride], [*padding])


@implements("rw.conv", when=_takes_depthwise, by=("inductor",), device="cuda", kernel="depthwise")
def depthwise_in_order(input: Tensor, *args: Any, **named: Any) -> Tensor:
    """The same, of an image that Inductor brings into that order: what makes it does that."""
    return depthwise(input.contiguous(memory_format=torch.channels_last), *args, **named)


@implements("rw.conv_relu", when=_takes_depthwise, by=("eager",), device="cuda", kernel="depthwise")
def depthwise_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    **_: Any,
) -> Tensor:
    """A ReLU at its end."""
    return depthwise_conv(input, weight, bias, [*stride], [*padding], relu=True)


@implements(
    "rw.conv_relu", when=_takes_depthwise, by=("inductor",), device="cuda", kernel="depthwise"
)
def depthwise_relu_in_order(input: Tensor, *args: Any, **named: Any) -> Tensor:
    """The same, of an image that Inductor brings into order."""
    return depthwise_relu(input.contiguous(memory_format=torch.channels_last), *args, **named)


@implements("rw.rope", when=_one_dtype)
def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """In the dtype of `x`: rounded twice, and not cast to and fro."""
    rotary = cos.shape[-1]
    whole = rotary == x.shape[-1]
    turned = x if whole else x[..., :rotary]
    if interleaved:
        even, odd = turned[..., 0::2], turned[..., 1::2]
        rotated = torch.stack((-odd, even), -1).flatten(-2)
    else:
        low, high = turned[..., : rotary // 2], turned[..., rotary // 2 :]
        rotated = torch.cat((-high, low), -1)
    result = torch.addcmul(turned * cos, rotated, sin)
    return result if whole else torch.cat((result, x[..., rotary:]), -1)


def _halves(node: Node) -> bool:
    """Whether gate and value are of one shape and dtype."""
    gate, up = (value.type for value in node.operands)
    return gate == up


@implements("rw.gated", when=_halves)
def gated(gate: Tensor, up: Tensor, *, activation: str = "silu") -> Tensor:
    """The activation, and a product in its place."""
    return ACTIVATIONS[activation](gate).mul_(up)
