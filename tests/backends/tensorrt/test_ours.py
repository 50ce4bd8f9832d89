"""Our own ops (`rw.*`) and quantization as TensorRT's layers: against their references."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, SymbolInfo
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import TensorType
from tests.backends.tensorrt.checking import check, check_graph, refusals, rtx

S0 = symbol("s0")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def _check(op: str, dtype: torch.dtype, *args: Any, constants: tuple[int, ...] = (),
           vary: int | None = None, **attributes: Any) -> None:  # fmt: skip
    """Checks one node; sizes in a tuple stand for a random tensor; `vary` is a size that varies."""
    graph, inputs, calls = Graph("main"), [], []
    for number, arg in enumerate(args):
        if arg is None:
            inputs.append(None)
            continue
        tensor = torch.randn(arg).to(dtype) if isinstance(arg, tuple) else arg
        if number in constants:
            kind = TensorType(tensor.dtype, tuple(tensor.shape))
            inputs.append(graph.add_constant(f"c{number}", kind, data=tensor))
            continue
        shape = tuple(S0 if size == vary else size for size in tensor.shape)
        value = graph.add_input(TensorType(tensor.dtype, shape), f"x{number}")
        if S0 in shape and S0 not in graph.symbols:
            known = Range(1, vary, 2 * vary)  # type: ignore[operator]
            graph.symbols[S0] = SymbolInfo((known,), value, shape.index(S0))
        inputs.append(value)
        calls.append(tensor)
    graph.set_outputs([Builder(graph).call(op, *inputs, **attributes)])
    assert refusals(graph, rtx()) == []
    steps = [calls] if vary is None else [[_at(x, vary, n) for x in calls] for n in (1, vary)]
    check_graph(graph, steps, slack=2.0)


def _at(x: torch.Tensor, vary: int, size: int) -> torch.Tensor:
    for dim in range(x.dim()):
        if x.shape[dim] == vary:
            x = x.narrow(dim, 0, size)
    return x


CASES: dict[str, tuple[Any, ...]] = {
    # name: op, shapes of the operands, attributes, number of constants, a size that varies
    "linear": ("rw.linear", [(5, 7, 8), (6, 8), (6,)], {}, (1, 2), 5),
    "linear vector": ("rw.linear", [(8,), (6, 8)], {}, (), None),
    "matmul": ("rw.matmul", [(5, 3, 4), (4, 6)], {}, (), 5),
    "matmul vectors": ("rw.matmul", [(4,), (4,)], {}, (), None),
    "conv 1d": ("rw.conv", [(5, 4, 9), (6, 4, 3), (6,)],
                dict(stride=[2], padding=[1], dilation=[1]), (1, 2), 5),
    "conv 2d": ("rw.conv", [(5, 4, 9, 8), (6, 2, 3, 3), (6,)],
                dict(stride=[1, 2], padding=[1, 0], dilation=[2, 1], groups=2), (1, 2), 5),
    "conv 2d, weights given": ("rw.conv", [(2, 4, 9, 8), (6, 4, 3, 3), (6,)],
                               dict(stride=[1, 1], padding=[1, 1], dilation=[1, 1]), (), None),
    "conv transposed": ("rw.conv", [(2, 4, 5, 6), (4, 3, 3, 3), (3,)],
                        dict(stride=[2, 2], padding=[1, 1], dilation=[1, 1], transposed=True,
                             output_padding=[1, 0]), (1, 2), None),
    "layer norm": ("rw.layer_norm", [(5, 7, 8), (8,), (8,)], dict(dims=1, eps=1e-5), (1, 2), 5),
    "layer norm, two dims": ("rw.layer_norm", [(5, 7, 8), (7, 8), None], dict(dims=2), (1,), 5),
    "layer norm, plain": ("rw.layer_norm", [(5, 8), None, None], dict(dims=1), (), 5),
    "rms norm": ("rw.rms_norm", [(5, 7, 8), (8,)], dict(dims=1, eps=1e-6), (1,), 7),
    "group norm": ("rw.group_norm", [(5, 8, 3, 4), (8,), (8,)], dict(groups=4), (1, 2), 5),
    "group norm, silu": ("rw.group_norm", [(2, 8, 6), (8,), (8,)], dict(groups=2, silu=True),
                         (1, 2), 6),
    "gated": ("rw.gated", [(5, 8), (5, 8)], dict(activation="gelu_tanh"), (), 5),
    "rope": ("rw.rope", [(5, 2, 3, 8), (1, 1, 3, 8), (1, 1, 3, 8)], {}, (), 5),
    "rope, part": ("rw.rope", [(5, 2, 3, 8), (3, 4), (3, 4)], dict(interleaved=True), (), 5),
    "attention": ("rw.attention", [(2, 4, 5, 16), (2, 4, 7, 16), (2, 4, 7, 16)], {}, (), 7),
    "attention, causal": ("rw.attention", [(2, 4, 5, 16), (2, 4, 7, 16), (2, 4, 7, 16)],
                          dict(causal=True, scale=0.5), (), 5),
    "attention, grouped": ("rw.attention", [(2, 4, 5, 16), (2, 2, 5, 16), (2, 2, 5, 16)],
                           dict(causal=True), (), 5),
    "attention, added mask": ("rw.attention", [(2, 4, 5, 16), (2, 4, 7, 16), (2, 4, 7, 16),
                                               (2, 1, 5, 7)], {}, (), 7),
    "attention, window": ("rw.attention", [(2, 4, 6, 16), (2, 4, 6, 16), (2, 4, 6, 16)],
                          dict(window=2, causal=True), (), 6),
    "attention, three dims": ("rw.attention", [(4, 5, 16), (4, 7, 16), (4, 7, 16)],
                              dict(causal=True), (), 7),
    "attention, wider values": ("rw.attention", [(2, 4, 5, 16), (2, 4, 7, 16), (2, 4, 7, 6)],
                                {}, (), 7),
    "attention, one batch of keys": ("rw.attention", [(3, 4, 5, 16), (1, 4, 7, 16), (1, 4, 7, 16)],
                                     {}, (), 7),
    "attention, fewer dims of keys": ("rw.attention", [(3, 4, 5, 16), (4, 7, 16), (4, 7, 16)],
                                      {}, (), 7),
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_op(name: str, dtype: torch.dtype) -> None:
    op, shapes, attributes, constants, vary = CASES[name]
    _check(op, dtype, *shapes, constants=constants, vary=vary, **attributes)


def test_one_head_of_queries_for_many_of_keys() -> None:
    q, k = torch.randn(2, 1, 5, 16), torch.randn(2, 4, 7, 16)
    check(lambda q, k: torch.nn.functional.scaled_dot_product_attention(q, k, k), [q, k])


@pytest.mark.parametrize("rank", [3, 4])
def test_queries_that_see_no_key_give_zeros(rank: int) -> None:
    """Where a bool mask hides every key; softmax of nothing would be nan."""
    mask = torch.tensor([[True, False, True], [False, False, False]])
    lead = (2,) * (rank - 2)
    _check("rw.attention", torch.float32, (*lead, 2, 8), (*lead, 3, 8), (*lead, 3, 8), mask)


QUANTIZED = {
    # how scales are given, the dtype, its limits
    "int8 per tensor": ("per tensor", torch.int8, -128, 127),
    "int8 per channel": ("per channel", torch.int8, -128, 127),
    "int8 symmetric": ("per channel", torch.int8, -127, 127),
    "fp8 per tensor": ("per tensor", torch.float8_e4m3fn, -448, 448),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_linear(name: str) -> None:
    """What PT2E exports: weights and activations through Q and DQ."""
    import torch.ao.quantization.fx._decomposed

    graph = Graph("main")
    x = graph.add_input(TensorType(torch.float32, (4, 8)), "x")
    w = graph.add_constant("w", TensorType(torch.float32, (6, 8)), data=torch.randn(6, 8))
    kind, dtype, low, high = QUANTIZED[name]
    build = Builder(graph)

    def through(value: Any, channels: int | None) -> Any:
        limits: tuple[Any, ...] = (low, high, dtype)
        scale: tuple[Any, ...] = (0.02, 0)
        name = "per_tensor"
        if channels is not None:
            name = "per_channel"
            scales = graph.add_constant("s", TensorType(torch.float32, (channels,)),
                                        data=torch.rand(channels) * 0.03 + 0.01)  # fmt: skip
            zeros = graph.add_constant("z", TensorType(torch.int64, (channels,)),
                                       data=torch.zeros(channels, dtype=torch.int64))  # fmt: skip
            scale = (scales, zeros, 0)
        q = build.call(f"quantized_decomposed.quantize_{name}", value, *scale, *limits)
        return build.call(f"quantized_decomposed.dequantize_{name}", q, *scale, *limits)

    product = build.call(
        "rw.linear", through(x, None), through(w, 6 if kind == "per channel" else None)
    )
    graph.set_outputs([product])
    assert refusals(graph, rtx()) == []
    check_graph(graph, [(torch.randn(4, 8),)], slack=5.0)


def test_asymmetric_quantization_is_refused() -> None:
    import torch.ao.quantization.fx._decomposed

    graph = Graph("main")
    x = graph.add_input(TensorType(torch.float32, (4, 8)), "x")
    q = Builder(graph).call(
        "quantized_decomposed.quantize_per_tensor", x, 0.1, 3, -128, 127, torch.int8
    )
    graph.set_outputs([q])
    (reason,) = refusals(graph, rtx())
    assert "zero points of 0" in reason
