"""Small networks of many layers against torch modules: layers together, with dynamic shapes."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.testing.networks import FLOATS, Net, close, out, trt

EW, UN, ACT = trt.ElementWiseOperation, trt.UnaryOperation, trt.ActivationType
PLAIN, TURNED = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE


class Emitter(Net):
    """Just enough to write models down."""

    def linear(self, x: Any, layer: nn.Linear) -> Any:
        weight, bias = (each.detach()[None] for each in (layer.weight, layer.bias[None]))
        product = self.network.add_matrix_multiply(x, PLAIN, self.constant(weight), TURNED)
        return self.binary(out(product), self.constant(bias), EW.SUM)

    def binary(self, a: Any, b: Any, op: Any) -> Any:
        return out(self.network.add_elementwise(a, b, op))

    def norm(self, x: Any, layer: nn.LayerNorm) -> Any:
        scale, bias = (
            self.constant(each.detach()[None, None]) for each in (layer.weight, layer.bias)
        )
        made = self.network.add_normalization_v2(x, scale, bias, 0b100)
        made.epsilon = layer.eps
        return out(made)

    def heads(self, x: Any, count: int) -> Any:
        made = self.network.add_shuffle(x)
        made.reshape_dims = (0, 0, count, -1)
        made.second_transpose = (0, 2, 1, 3)
        return out(made)

    def attention(self, x: Any, layer: nn.MultiheadAttention) -> Any:
        size, count = layer.embed_dim, layer.num_heads
        packed = nn.Linear(size, 3 * size, dtype=layer.in_proj_weight.dtype)
        packed.weight, packed.bias = layer.in_proj_weight, layer.in_proj_bias
        joint = self.linear(x, packed)
        shape = out(self.network.add_shape(x))
        parts = []
        for start in (0, size, 2 * size):
            made = self.network.add_slice(joint, (0, 0, start), (0, 0, 0), (1, 1, 1))
            made.set_input(2, shape)
            parts.append(self.heads(out(made), count))
        factor = torch.full((1, 1, 1, 1), 1 / math.sqrt(size // count), dtype=packed.weight.dtype)
        query = self.binary(parts[0], self.constant(factor), EW.PROD)
        made = self.network.add_attention(
            query, *parts[1:], trt.AttentionNormalizationOp.SOFTMAX, False
        )
        back = self.network.add_shuffle(made.get_output(0))
        back.first_transpose = (0, 2, 1, 3)
        back.reshape_dims = (0, 0, -1)
        return self.linear(out(back), layer.out_proj)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("sizes", [(1, 1), (2, 7), (3, 16)])
def test_a_transformer_layer_of_dynamic_batch_and_length(sizes: Any, dtype: torch.dtype) -> None:
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True
    ).eval()  # fmt: skip
    for each in layer.parameters():
        nn.init.normal_(each, std=0.2)
    layer = layer.to(dtype)
    x = torch.randn(*sizes, 32).to(dtype)
    net = Emitter()
    tensor = net.input(x, (-1, -1, 32))
    first = net.binary(
        tensor, net.attention(net.norm(tensor, layer.norm1), layer.self_attn), EW.SUM
    )
    wide = net.linear(net.norm(first, layer.norm2), layer.linear1)
    gelu = out(net.network.add_activation(wide, ACT.GELU_ERF))
    (got,) = net.evaluate(net.binary(first, net.linear(gelu, layer.linear2), EW.SUM))
    with torch.no_grad():
        expected = layer.double()(x.double())
    # Rounding accumulates over some fifteen layers.
    close(got, expected, {4: 1e-5, 2: 0.02 if dtype == torch.float16 else 0.15}[dtype.itemsize])


def test_a_residual_block_of_dynamic_sizes() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(4, 8, 3, 2, 1)
            self.second = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
            self.short = nn.Conv2d(4, 8, 1, 2)
            self.up = nn.ConvTranspose2d(8, 4, 2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.second(torch.relu(self.first(x))) + self.short(x)
            y = nn.functional.max_pool2d(y, 3, 1, 1)
            return self.up(nn.functional.silu(y)).mean((2, 3))

    block, x = Block().eval(), torch.randn(2, 4, 10, 14)
    net = Net()

    def convolved(tensor: Any, layer: Any, add: Any) -> Any:
        kernel, bias = net.weights(layer.weight.detach()), net.weights(layer.bias.detach())
        made = add(tensor, layer.out_channels, layer.kernel_size, kernel, bias)
        made.stride_nd, made.padding_nd, made.num_groups = layer.stride, layer.padding, layer.groups
        return out(made)

    conv, deconv = net.network.add_convolution_nd, net.network.add_deconvolution_nd
    tensor = net.input(x, (-1, 4, -1, -1))
    main = out(net.network.add_activation(convolved(tensor, block.first, conv), ACT.RELU))
    main = convolved(main, block.second, conv)
    total = net.network.add_elementwise(main, convolved(tensor, block.short, conv), EW.SUM)
    pooled = net.network.add_pooling_nd(out(total), trt.PoolingType.MAX, (3, 3))
    pooled.padding_nd = (1, 1)
    gate = net.network.add_activation(out(pooled), ACT.SIGMOID)
    silu = net.network.add_elementwise(out(pooled), out(gate), EW.PROD)
    grown = convolved(out(silu), block.up, deconv)
    (got,) = net.evaluate(
        out(net.network.add_reduce(grown, trt.ReduceOperation.AVG, 0b1100, False))
    )
    with torch.no_grad():
        close(got, block.double()(x.double()), 1e-5)
