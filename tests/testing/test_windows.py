"""Convolution, deconvolution, pooling and LRN against torch in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rewright.errors import UnsupportedError
from tests.testing.networks import FLOATS, Net, close, out, trt

CONV = {2: F.conv2d, 3: F.conv3d}
DECONV = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
MODES = trt.PaddingMode.__members__


def padded(x: torch.Tensor, pre: Any, post: Any, value: float = 0.0) -> torch.Tensor:
    amounts = [amount for pair in zip(pre[::-1], post[::-1], strict=True) for amount in pair]
    return F.pad(x, amounts, value=value)


def convolved(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, inputs: bool = False,
    deconvolution: bool = False, **attributes: Any,
) -> torch.Tensor:  # fmt: skip
    net = Net()
    tensor = net.input(x, (-1, x.shape[1], *[-1] * (x.dim() - 2)))
    maps = kernel.shape[0] if not deconvolution else kernel.shape[1] * attributes["num_groups"]
    add = net.network.add_convolution_nd
    if deconvolution:
        add = net.network.add_deconvolution_nd
    empty = trt.Weights()
    given = (empty, empty) if inputs else (
        net.weights(kernel), empty if bias is None else net.weights(bias)
    )  # fmt: skip
    layer = add(tensor, maps, tuple(kernel.shape[2:]), *given)
    if inputs:
        layer.set_input(1, net.constant(kernel))
        if bias is not None:
            layer.set_input(2, net.constant(bias))
    for name, value in attributes.items():
        setattr(layer, name, value)
    (got,) = net.evaluate(out(layer))
    return got


CONVOLUTIONS = [
    # kernel, channels, groups, stride, dilation, pre, post
    ((3, 3), (4, 6), 1, (1, 1), (1, 1), (1, 1), (1, 1)),
    ((3, 2), (4, 6), 2, (2, 1), (1, 2), (2, 0), (0, 3)),
    ((1, 5), (4, 4), 4, (1, 3), (1, 1), (0, 2), (1, 2)),
    ((3, 3), (4, 8), 4, (2, 2), (2, 2), (2, 2), (2, 2)),
    ((3, 2, 1), (4, 6), 2, (1, 2, 1), (1, 1, 1), (1, 0, 0), (0, 1, 0)),
]


@pytest.mark.parametrize("as_inputs", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("window", "channels", "groups", "stride", "dilation", "pre", "post"), CONVOLUTIONS
)
def test_convolution(
    window: Any, channels: Any, groups: int, stride: Any, dilation: Any, pre: Any, post: Any,
    dtype: torch.dtype, as_inputs: bool,
) -> None:  # fmt: skip
    x = torch.randn(2, channels[0], *(9, 8, 7)[: len(window)]).to(dtype)
    kernel = torch.randn(channels[1], channels[0] // groups, *window).mul(0.3).to(dtype)
    bias = torch.randn(channels[1]).to(dtype)
    got = convolved(
        x, kernel, bias, as_inputs, num_groups=groups, stride_nd=stride, dilation_nd=dilation,
        pre_padding=pre, post_padding=post,
    )  # fmt: skip
    expected = CONV[len(window)](
        padded(x.double(), pre, post), kernel.double(), bias.double(), stride, 0, dilation, groups
    )
    close(got, expected, None if dtype != torch.float32 else 1e-5)


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize(("size", "window", "stride"), [(7, 3, 2), (8, 3, 2), (9, 4, 3), (6, 2, 1)])
def test_padding_modes_of_convolution(mode: str, size: int, window: int, stride: int) -> None:
    """Against a sum over windows written out, at the places that the header's formulas give."""
    x, kernel = torch.randn(1, 1, size, size), torch.randn(1, 1, window, window)
    got = convolved(x, kernel, None, padding_mode=MODES[mode], stride_nd=(stride, stride),
                    padding_nd=(1, 1))  # fmt: skip
    if mode.startswith("SAME"):
        count = -(-size // stride)
        total = (size - 1) // stride * stride + window - size
        first = total // 2 if mode == "SAME_UPPER" else total - total // 2
    else:
        rest = size + 2 - window
        count = (rest // stride if mode == "EXPLICIT_ROUND_DOWN" else -(-rest // stride)) + 1
        first = 1
    wide = F.pad(x.double(), [20, 20, 20, 20])[0, 0]
    expected = torch.stack([
        torch.stack([
            (wide[r : r + window, c : c + window] * kernel[0, 0].double()).sum()
            for c in (20 - first + stride * j for j in range(count))
        ])
        for r in (20 - first + stride * i for i in range(count))
    ])  # fmt: skip
    close(got[0, 0], expected, 1e-5)


def test_same_padding_that_would_be_negative_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="SAME_UPPER"):
        convolved(torch.randn(1, 1, 6, 6), torch.randn(1, 1, 1, 1), None,
                  padding_mode=MODES["SAME_UPPER"], stride_nd=(4, 4))  # fmt: skip


DECONVOLUTIONS = [
    # kernel, channels, groups, stride, pre, post
    ((3, 3), (4, 6), 1, (1, 1), (0, 0), (0, 0)),
    ((3, 2), (4, 6), 2, (2, 3), (1, 0), (0, 0)),
    ((4, 4), (4, 4), 4, (2, 2), (1, 1), (1, 1)),
    ((3, 2, 2), (4, 6), 2, (2, 1, 2), (1, 0, 1), (0, 1, 1)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("window", "channels", "groups", "stride", "pre", "post"), DECONVOLUTIONS)
def test_deconvolution(
    window: Any, channels: Any, groups: int, stride: Any, pre: Any, post: Any, dtype: torch.dtype
) -> None:
    x = torch.randn(2, channels[0], *(4, 5, 3)[: len(window)]).to(dtype)
    kernel = torch.randn(channels[0], channels[1] // groups, *window).mul(0.3).to(dtype)
    bias = torch.randn(channels[1]).to(dtype)
    got = convolved(
        x, kernel, bias, deconvolution=True, num_groups=groups, stride_nd=stride, pre_padding=pre,
        post_padding=post,
    )  # fmt: skip
    full = DECONV[len(window)](x.double(), kernel.double(), bias.double(), stride, groups=groups)
    expected = padded(full, [-each for each in pre], [-each for each in post])
    close(got, expected, None if dtype != torch.float32 else 1e-5)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (4, 2), (5, 2), (1, 2), (2, 3)])
def test_deconvolution_of_mode_same(mode: str, window: int, stride: int) -> None:
    x, kernel = torch.randn(1, 1, 5, 5), torch.randn(1, 1, window, window)
    got = convolved(x, kernel, None, deconvolution=True, num_groups=1, stride_nd=(stride, stride),
                    padding_mode=MODES[mode])  # fmt: skip
    full = F.conv_transpose2d(x.double(), kernel.double(), None, stride)
    total = max(window - stride, 0)
    first = total // 2 if mode == "SAME_UPPER" else total - total // 2
    stop = full.shape[2] - (total - first)
    close(got, full[:, :, first:stop, first:stop], 1e-5)


def pooled(x: torch.Tensor, kind: str, window: Any, **attributes: Any) -> torch.Tensor:
    net = Net()
    kinds = trt.PoolingType.__members__
    layer = net.network.add_pooling_nd(net.input(x), kinds[kind], window)
    for name, value in attributes.items():
        setattr(layer, name, value)
    (got,) = net.evaluate(out(layer))
    return got


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("window", "stride", "pad"), [
    ((3, 3), (2, 2), (1, 1)), ((2, 3), (2, 1), (0, 1)), ((3, 2, 3), (1, 2, 3), (1, 0, 1)),
])  # fmt: skip
def test_max_pooling(window: Any, stride: Any, pad: Any, ceil: bool, dtype: torch.dtype) -> None:
    x = (torch.randn(2, 3, *(7, 8, 6)[: len(window)]) - 5).to(dtype)
    mode = MODES["EXPLICIT_ROUND_UP" if ceil else "EXPLICIT_ROUND_DOWN"]
    got = pooled(x, "MAX", window, stride_nd=stride, padding_nd=pad, padding_mode=mode)
    torch_pool = {2: F.max_pool2d, 3: F.max_pool3d}[len(window)]
    close(got, torch_pool(x.double(), window, stride, pad, ceil_mode=ceil))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize(("window", "stride", "pad"), [
    ((3, 3), (2, 2), (1, 1)), ((2, 3), (2, 2), (0, 1)), ((3, 2, 3), (1, 2, 3), (1, 0, 1)),
])  # fmt: skip
def test_average_pooling(
    window: Any, stride: Any, pad: Any, exclusive: bool, ceil: bool, dtype: torch.dtype
) -> None:
    x = torch.randn(2, 3, *(7, 8, 6)[: len(window)]).to(dtype)
    mode = MODES["EXPLICIT_ROUND_UP" if ceil else "EXPLICIT_ROUND_DOWN"]
    got = pooled(x, "AVERAGE", window, stride_nd=stride, padding_nd=pad, padding_mode=mode,
                 average_count_excludes_padding=exclusive)  # fmt: skip
    torch_pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(window)]
    expected = torch_pool(x.double(), window, stride, pad, ceil, not exclusive)
    close(got, expected)


def test_blended_pooling_and_asymmetric_padding() -> None:
    x = torch.randn(1, 2, 6, 6)
    got = pooled(x, "MAX_AVERAGE_BLEND", (3, 3), stride_nd=(2, 2), pre_padding=(0, 1),
                 post_padding=(1, 0), blend_factor=0.25)  # fmt: skip
    wide = x.double()
    highest = F.max_pool2d(padded(wide, (0, 1), (1, 0), -torch.inf), 3, 2)
    total = F.avg_pool2d(padded(wide, (0, 1), (1, 0)), 3, 2, divisor_override=1)
    count = F.avg_pool2d(padded(torch.ones_like(wide), (0, 1), (1, 0)), 3, 2, divisor_override=1)
    close(got, 0.75 * highest + 0.25 * total / count)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_lrn(dtype: torch.dtype) -> None:
    x = torch.randn(2, 7, 3, 3).to(dtype)
    net = Net()
    (got,) = net.evaluate(out(net.network.add_lrn(net.input(x), 3, 0.7, 0.6, 1.5)))
    squares = F.pad(x.double().square(), [0, 0, 0, 0, 1, 1])
    near = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    close(got, x.double() / (1.5 + 0.7 / 3 * near) ** 0.6)
