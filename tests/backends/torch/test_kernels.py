"""Kernels for CUDA: as operators on a CPU, and which nodes they take."""

import pytest
import torch

from rewright.backends.torch.implementations import implementation_of, implementations
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
    assert names == {"cudnn_conv_relu"}
    assert names.isdisjoint(item.name for item in implementations())
