"""Kernels for CUDA: as operators on a CPU, and which nodes they take."""

import logging

import pytest
import torch

from rewright.backends.torch.implementations import implementation_of, implementations
from rewright.backends.torch.kernels import convolution
from rewright.ir.parser import parse_graph

STEPS = [
    ([1, 1], [1, 1], [1, 1], 3),
    ([2, 2], [0, 1], [1, 2], 3),
    ([1, 1], [0, 0], [1, 1], 1),
]


@pytest.mark.parametrize(("stride", "padding", "dilation", "kernel"), STEPS)
@pytest.mark.parametrize("added", [False, True])
def test_conv_relu_is_an_operator(stride, padding, dilation, kernel, added):
    x, w, b = torch.randn(2, 8, 9, 7), torch.randn(16, 8, kernel, kernel), torch.randn(16)
    conv = torch.nn.functional.conv2d(x, w, b, stride, padding, dilation)
    z = torch.randn_like(conv) if added else None
    args = (x, w, b, z, stride, padding, dilation, 1)
    found = torch.ops.rewright_kernels.conv_relu(*args)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, torch.relu(conv + z if added else conv))
    torch.library.opcheck(
        torch.ops.rewright_kernels.conv_relu.default,
        args,
        test_utils=["test_schema", "test_faketensor"],
    )


def test_what_cudnn_refuses_runs_in_torch_and_is_said(monkeypatch, caplog):
    """On a CPU it refuses all: with a NotImplementedError, which is a RuntimeError, too."""
    monkeypatch.setattr(convolution, "_refused", set())
    w, b, steps = torch.randn(16, 8, 3, 3), torch.randn(16), ([1, 1], [1, 1], [1, 1], 1)
    with caplog.at_level(logging.INFO, "rewright.backends.torch.kernels"):
        for size, residual in ((7, False), (7, False), (9, True)):
            x = torch.randn(2, 8, size, size)
            conv = torch.nn.functional.conv2d(x, w, b, 1, 1)
            z = torch.randn_like(conv) if residual else None
            found = convolution._by_cudnn(x, w, b, z, *steps)
            torch.testing.assert_close(found, torch.relu(conv if z is None else conv + z))
    first, second = caplog.records
    assert (first.levelno, second.levelno) == (logging.WARNING, logging.INFO)
    assert "bias and relu for torch.float32 [2, 8, 7, 7] by [16, 8, 3, 3]" in first.getMessage()
    assert "residual and relu" in second.getMessage()


CONV = """
graph @main(%x: f16[2, 16, 8, 8], %z: f16[2, 16, 8, 8], %w: f16[16, 16, 3, 3], %b: f16[16])
  -> f16[2, 16, 8, 8] {
  %y = rw.conv_relu(%x, %w, %b, MORE, STEPS) : f16[2, 16, 8, 8]
  return %y
}
""".replace("STEPS", "stride=[1, 1], padding=[1, 1], dilation=[1, 1]")


def node_of(text: str, device: str):
    graph = parse_graph(text)
    graph.device = device
    return next(iter(graph))


@pytest.mark.parametrize(
    ("device", "change", "taken"),
    [
        ("cuda:0", ("", ""), True),
        ("cuda:1", ("MORE", "%z"), True),
        ("cpu", ("", ""), False),
        ("cuda:0", ("f16", "f32"), False),
        ("cuda:0", ("(%x, %w, %b, ", "(%x, %w, "), False),
    ],
)
def test_cudnn_takes_what_it_has_a_kernel_for(device, change, taken):
    text = CONV.replace(*change) if change[0] else CONV
    node = node_of(text.replace("MORE, ", ""), device)
    found = {by: implementation_of(node.op, node, by=by) for by in ("eager", "inductor", "")}
    assert [item is not None for item in found.values()] == [taken, taken, False]
    if taken:
        assert found["eager"].name == "cudnn_conv_relu"


def test_device_kernels_are_declared_apart():
    names = {item.name for item in implementations("cuda")}
    ours = {f"depthwise{relu}{order}" for relu in ("", "_relu") for order in ("", "_in_order")}
    assert names == {"cudnn_conv_relu", "efficient_attention", "flash_attention", *ours}
    assert names.isdisjoint(item.name for item in implementations())


ATTENTION = """
graph @main(%q: f16[2, 4, 49, 32], %k: f16[2, 4, KEYS, 32], %v: f16[2, 4, KEYS, 32]MASK)
  -> f16[2, 4, 49, 32] {
  %y = rw.attention(%q, %k, %vGIVENMORE) : f16[2, 4, 49, 32]
  return %y
}
"""


@pytest.mark.parametrize(
    ("keys", "mask", "more", "device", "name"),
    [
        (49, "f16[1, 4, 49, 49]", "", "cuda:0", "efficient_attention"),
        (49, "bool[2, 1, 49, 49]", "", "cuda:0", "efficient_attention"),
        (49, "f16[1, 4, 49, 49]", "", "cpu", "scaled_dot_product_attention"),
        (48, "f16[1, 4, 49, 48]", "", "cuda:0", "scaled_dot_product_attention"),
        (49, "", "", "cuda:0", "flash_attention"),
        (900, "", "", "cuda:0", "scaled_dot_product_attention"),
        (49, "", ", causal=True", "cuda:0", "scaled_dot_product_attention"),
    ],
)
def test_attention_goes_where_the_table_says(keys, mask, more, device, name):
    text = ATTENTION.replace("KEYS", str(keys)).replace("MORE", more)
    text = text.replace("MASK", f", %m: {mask}" if mask else "")
    node = node_of(text.replace("GIVEN", ", %m" if mask else ""), device)
    for by in ("eager", "inductor"):
        assert implementation_of(node.op, node, by).name == name
    wide = node_of(text.replace("GIVEN", ", %m" if mask else "").replace("f16", "f32"), "cuda:0")
    assert implementation_of(wide.op, wide, "eager").name == "scaled_dot_product_attention"
