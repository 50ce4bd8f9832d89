"""Reductions, softmax, normalization, top-k, running sums and contractions against torch."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rewright.errors import EngineError
from tests.testing.networks import FLOATS, Net, close, out, trt

RED = trt.ReduceOperation.__members__
TORCH_REDUCE = {
    "SUM": torch.sum, "AVG": torch.mean, "MAX": torch.amax, "MIN": torch.amin,
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", sorted(TORCH_REDUCE))
def test_reduce_of_a_dynamic_shape(op: str, dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 40).to(dtype)
    net = Net()
    layer = net.network.add_reduce(net.input(x, (-1, 5, -1)), RED[op], 0b101, True)
    (got,) = net.evaluate(out(layer))
    close(
        got,
        TORCH_REDUCE[op](x.double(), (0, 2), keepdim=True),
        1e-5 if dtype.itemsize == 4 else None,
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize(("op", "expected"), [
    ("SUM", -7), ("PROD", 28), ("MAX", 2), ("MIN", -7), ("AVG", -2),
])  # fmt: skip
def test_reduce_of_integers(op: str, expected: int, dtype: torch.dtype) -> None:
    net = Net()
    tensor = net.input(torch.tensor([-7, 2, -2], dtype=dtype))
    (got,) = net.evaluate(out(net.network.add_reduce(tensor, RED[op], 0b1, False)))
    assert got.item() == expected and got.dtype == dtype


def test_reduce_of_integers_wraps() -> None:
    x = torch.tensor([2**30, 2**30, 2**30], dtype=torch.int32)
    for op, expected in (("SUM", 3 * 2**30 - 2**32), ("PROD", 0)):
        net = Net()
        (got,) = net.evaluate(out(net.network.add_reduce(net.input(x), RED[op], 0b1, False)))
        assert got.item() == expected


@pytest.mark.parametrize(("op", "expected"), [
    ("SUM", 0.0), ("PROD", 1.0), ("MAX", -torch.inf), ("MIN", torch.inf), ("AVG", torch.nan),
])  # fmt: skip
def test_reduce_of_nothing(op: str, expected: float) -> None:
    net = Net()
    tensor = net.input(torch.zeros(0, 2), (-1, 2))
    (got,) = net.evaluate(out(net.network.add_reduce(tensor, RED[op], 0b1, False)))
    close(got, torch.tensor([expected, expected]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax(axis: int, dtype: torch.dtype) -> None:
    x = torch.randn(3, 4, 5).mul(5).to(dtype)
    net = Net()
    layer = net.network.add_softmax(net.input(x))
    layer.axes = 1 << axis
    (got,) = net.evaluate(out(layer))
    close(got, x.double().softmax(axis))


def test_ragged_softmax() -> None:
    x, bounds = torch.randn(2, 3, 6), torch.tensor([[[2], [6], [1]], [[3], [4], [5]]]).int()
    net = Net()
    layer = net.network.add_ragged_softmax(net.input(x), net.input(bounds))
    (got,) = net.evaluate(out(layer))
    for item in range(2):
        for row in range(3):
            count = int(bounds[item, row])
            close(got[item, row, :count], x[item, row, :count].double().softmax(-1))
            assert not got[item, row, count:].any()


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_cumulative(exclusive: bool, reverse: bool, dtype: torch.dtype) -> None:
    x = torch.randn(3, 7).mul(3).to(dtype)
    net = Net()
    layer = net.network.add_cumulative(
        net.input(x), net.constant(1), trt.CumulativeOperation.SUM, exclusive, reverse
    )
    (got,) = net.evaluate(out(layer))
    wide = x.double()
    expected = torch.zeros_like(wide)
    for place in range(7):
        span = slice(place + exclusive, None) if reverse else slice(0, place + 1 - exclusive)
        expected[:, place] = wide[:, span].sum(1)
    close(got, expected)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
def test_topk(dtype: torch.dtype, largest: bool, dynamic: bool) -> None:
    x = torch.randperm(60).reshape(3, 20).to(dtype)
    net = Net()
    op = trt.TopKOperation.MAX if largest else trt.TopKOperation.MIN
    layer = net.network.add_topk(net.input(x), op, 1 if dynamic else 4, 0b10, trt.int64)
    if dynamic:
        layer.set_input(1, net.input(torch.tensor(4, dtype=torch.int32)))
    values, places = net.evaluate(out(layer), out(layer, 1))
    expected = x.topk(4, 1, largest)
    close(values, expected.values)
    assert torch.equal(places, expected.indices)


def test_topk_takes_the_first_of_equals_and_refuses_too_large_a_k() -> None:
    x = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0]])
    for k, ok in ((3, True), (6, False)):
        net = Net()
        layer = net.network.add_topk(net.input(x), trt.TopKOperation.MAX, 1, 0b10)
        layer.set_input(1, net.input(torch.tensor(k, dtype=torch.int32)))
        if ok:
            _, places = net.evaluate(out(layer), out(layer, 1))
            assert places.tolist() == [[1, 2, 4]] and places.dtype == torch.int32
        else:
            with pytest.raises(EngineError, match="k is 6, but axis 1 has size 5"):
                net.evaluate(out(layer))


def normalized(x: Any, scale: Any, bias: Any, axes: int, groups: int, v2: bool) -> torch.Tensor:
    net = Net()
    add = net.network.add_normalization_v2 if v2 else net.network.add_normalization
    layer = add(net.input(x), net.input(scale), net.input(bias), axes)
    layer.num_groups, layer.epsilon = groups, 1e-3
    (got,) = net.evaluate(out(layer))
    return got


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layer_and_instance_normalization(dtype: torch.dtype, v2: bool) -> None:
    x = (torch.randn(2, 6, 4, 5) * 3 + 1).to(dtype)
    scale, bias = torch.randn(1, 1, 4, 5).to(dtype), torch.randn(1, 1, 4, 5).to(dtype)
    got = normalized(x, scale, bias, 0b1100, 1, v2)
    close(got, F.layer_norm(x.double(), (4, 5), scale[0, 0].double(), bias[0, 0].double(), 1e-3))
    scale, bias = torch.randn(1, 6, 1, 1).to(dtype), torch.randn(1, 6, 1, 1).to(dtype)
    got = normalized(x, scale, bias, 0b1100, 1, v2)
    flat = [each.double().flatten() for each in (scale, bias)]
    close(got, F.instance_norm(x.double(), None, None, *flat, eps=1e-3))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_group_normalization(dtype: torch.dtype) -> None:
    x = (torch.randn(2, 6, 4, 5) * 3 + 1).to(dtype)
    scale, bias = torch.randn(1, 6, 1, 1).to(dtype), torch.randn(1, 6, 1, 1).to(dtype)
    flat = [each.double().flatten() for each in (scale, bias)]
    got = normalized(x, scale, bias, 0b1100, 3, True)
    close(got, F.group_norm(x.double(), 3, *flat, eps=1e-3))
    # Version 1 has a scale for each group, not for each channel.
    scale, bias = scale[:, ::2], bias[:, ::2]
    flat = [each.double().flatten().repeat_interleave(2) for each in (scale, bias)]
    got = normalized(x, scale, bias, 0b1100, 3, False)
    close(got, F.group_norm(x.double(), 3, *flat, eps=1e-3))


OPS = trt.MatrixOperation.__members__


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_matrix_multiply(dtype: torch.dtype) -> None:
    a, b = torch.randn(2, 1, 5, 7).to(dtype), torch.randn(1, 3, 6, 7).to(dtype)
    net = Net()
    layer = net.network.add_matrix_multiply(
        net.input(a, (-1, 1, -1, 7)), OPS["NONE"], net.input(b), OPS["TRANSPOSE"]
    )
    (got,) = net.evaluate(out(layer))
    close(got, a.double() @ b.double().mT, 1e-5 if dtype.itemsize == 4 else None)


def test_half_precision_accumulates_in_float32() -> None:
    """4096 products of 1: f16 would stop at 2048, where its steps are 2."""
    for dtype in (torch.float16, torch.bfloat16):
        a, b = torch.ones(1, 4096, dtype=dtype), torch.ones(4096, 1, dtype=dtype)
        net = Net()
        left, right = net.input(a), net.input(b)
        product = net.network.add_matrix_multiply(left, OPS["NONE"], right, OPS["NONE"])
        total = net.network.add_reduce(left, RED["SUM"], 0b10, True)
        assert [each.item() for each in net.evaluate(out(product), out(total))] == [4096.0] * 2


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("equation", [
    "bhid,bhjd->bhij", "ij,jk,kl->il", "...ij,...jk->...ik", "ii->i", "ij->", "bi,bj->bij", "ij,jk",
])  # fmt: skip
def test_einsum(equation: str, dtype: torch.dtype) -> None:
    sizes = dict(b=2, h=3, i=4, j=4, d=5, k=6, l=3)
    terms = equation.split("->")[0].split(",")
    shapes = [
        [2] * ("." in term) + [sizes[label] for label in term if label != "."] for term in terms
    ]
    operands = [torch.randn(shape).to(dtype) for shape in shapes]
    net = Net()
    layer = net.network.add_einsum([net.input(each) for each in operands], equation)
    (got,) = net.evaluate(out(layer))
    close(got, torch.einsum(equation, *(each.double() for each in operands)),
          1e-5 if dtype.itemsize == 4 else 4e-2)  # fmt: skip
