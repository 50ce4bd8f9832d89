"""Layers that compute element by element, in every dtype, against torch in float64."""

from typing import Any

import pytest
import torch

from rewright.errors import UnsupportedError
from tests.testing.networks import DTYPES, FLOATS, TOLERANCE, Net, close, out, trt

UN, EW, ACT = trt.UnaryOperation, trt.ElementWiseOperation, trt.ActivationType

UNARY = {
    "EXP": (torch.exp, -3, 3), "LOG": (torch.log, 0.1, 9), "SQRT": (torch.sqrt, 0, 9),
    "RECIP": (torch.reciprocal, 0.2, 4), "ABS": (torch.abs, -4, 4), "NEG": (torch.neg, -4, 4),
    "SIN": (torch.sin, -4, 4), "COS": (torch.cos, -4, 4), "TAN": (torch.tan, -1, 1),
    "SINH": (torch.sinh, -3, 3), "COSH": (torch.cosh, -3, 3), "ASIN": (torch.asin, -1, 1),
    "ACOS": (torch.acos, -1, 1), "ATAN": (torch.atan, -4, 4), "ASINH": (torch.asinh, -4, 4),
    "ACOSH": (torch.acosh, 1, 9), "ATANH": (torch.atanh, -0.9, 0.9),
    "CEIL": (torch.ceil, -4, 4), "FLOOR": (torch.floor, -4, 4), "ERF": (torch.erf, -2, 2),
    "SIGN": (torch.sign, -4, 4), "ROUND": (torch.round, -4, 4), "ISINF": (torch.isinf, -4, 4),
    "ISNAN": (torch.isnan, -4, 4),
}  # fmt: skip


def test_every_unary_operation_is_tried() -> None:
    assert UNARY.keys() | {"NOT"} == UN.__members__.keys()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", sorted(UNARY))
def test_unary(op: str, dtype: torch.dtype) -> None:
    function, low, high = UNARY[op]
    x = torch.empty(4, 30).uniform_(low, high).to(dtype)
    net = Net()
    (got,) = net.evaluate(out(net.network.add_unary(net.input(x, (-1, 30)), UN.__members__[op])))
    close(got, function(x.double()))


ELEMENTWISE = {
    "SUM": torch.add, "SUB": torch.sub, "PROD": torch.mul, "DIV": torch.div, "MAX": torch.maximum,
    "MIN": torch.minimum, "FLOOR_DIV": torch.floor_divide, "GREATER": torch.gt, "LESS": torch.lt,
    "EQUAL": torch.eq, "POW": torch.pow,
}  # fmt: skip


def test_every_elementwise_operation_is_tried() -> None:
    assert ELEMENTWISE.keys() | {"AND", "OR", "XOR"} == EW.__members__.keys()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", sorted(ELEMENTWISE))
def test_elementwise(op: str, dtype: torch.dtype) -> None:
    # Eighths, so that a quotient in float64 has the same floor as one in float32.
    a = torch.randint(1, 40, (3, 1, 8)).div(8).to(dtype)
    b = torch.randint(1, 40, (1, 5, 8)).div(8).to(dtype)
    net = Net()
    layer = net.network.add_elementwise(net.input(a, (-1, 1, 8)), net.input(b), EW.__members__[op])
    (got,) = net.evaluate(out(layer))
    # The greatest power here is 5 ** 5.
    close(got, ELEMENTWISE[op](a.double(), b.double()))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int8], ids=str)
def test_integers_are_exact_and_wrap(dtype: torch.dtype) -> None:
    big = torch.iinfo(dtype).max
    a, b = (
        torch.tensor([big, -7, 7, big // 2 + 1], dtype=dtype),
        torch.tensor([1, 2, -2, 2], dtype=dtype),
    )
    net = Net()
    left, right = net.input(a), net.input(b)
    ops = ("SUM", "PROD", "DIV", "FLOOR_DIV")
    got = net.evaluate(*(
        out(net.network.add_elementwise(left, right, EW.__members__[op])) for op in ops
    ))  # fmt: skip
    low = -big - 1
    assert [each.tolist() for each in got] == [
        [low, -5, 5, big // 2 + 3],
        [big, -14, -14, low],
        [big, -3, -3, (big // 2 + 1) // 2],
        [big, -4, -4, (big // 2 + 1) // 2],
    ]


@pytest.mark.parametrize("op", ["DIV", "FLOOR_DIV"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_integer_quotients_that_overflow_or_do_not_exist(op: str, dtype: torch.dtype) -> None:
    low = torch.iinfo(dtype).min
    a, b = torch.tensor([low, 5, 7], dtype=dtype), torch.tensor([-1, 0, -1], dtype=dtype)
    net = Net()
    layer = net.network.add_elementwise(net.input(a), net.input(b), EW.__members__[op])
    (got,) = net.evaluate(out(layer))
    assert got.tolist() == [low, 0, -7]


F = torch.nn.functional
ACTIVATION = {
    "RELU": F.relu, "SIGMOID": torch.sigmoid, "TANH": torch.tanh,
    "LEAKY_RELU": lambda x: F.leaky_relu(x, 0.7), "ELU": lambda x: F.elu(x, 0.7),
    "SELU": lambda x: 1.3 * F.elu(x, 0.7), "SOFTSIGN": F.softsign,
    "SOFTPLUS": lambda x: 0.7 * 1.3 * F.softplus(x, 1.3), "CLIP": lambda x: x.clamp(0.7, 1.3),
    "HARD_SIGMOID": lambda x: (0.7 * x + 1.3).clamp(0, 1),
    "SCALED_TANH": lambda x: 0.7 * torch.tanh(1.3 * x),
    "THRESHOLDED_RELU": lambda x: F.threshold(x, 0.7, 0), "GELU_ERF": F.gelu,
    "GELU_TANH": lambda x: F.gelu(x, approximate="tanh"),
}  # fmt: skip


def test_every_activation_is_tried() -> None:
    assert ACTIVATION.keys() == ACT.__members__.keys()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", sorted(ACTIVATION))
def test_activation(kind: str, dtype: torch.dtype) -> None:
    x = torch.randn(5, 40).mul(2).to(dtype)
    net = Net()
    layer = net.network.add_activation(net.input(x), ACT.__members__[kind])
    layer.alpha, layer.beta = 0.7, 1.3
    (got,) = net.evaluate(out(layer))
    close(got, ACTIVATION[kind](x.double()))


def test_relu_of_integers_and_no_other_activation() -> None:
    x = torch.tensor([-3, 0, 5], dtype=torch.int32)
    net = Net()
    (got,) = net.evaluate(out(net.network.add_activation(net.input(x), ACT.RELU)))
    assert got.tolist() == [0, 0, 5] and got.dtype == torch.int32


def test_a_meaning_that_is_not_documented_is_refused() -> None:
    """TensorRT takes int8 for some functions of floats: dequantized first, nobody says how."""
    net = Net()
    layer = net.network.add_unary(net.input(torch.ones(3, dtype=torch.int8)), UN.ERF)
    layer.name = "erf of int8"
    with pytest.raises(UnsupportedError, match="UNARY layer 'erf of int8' can't be evaluated"):
        net.evaluate(out(layer))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """1 + erf(x) in f16 would lose what is left at x = -2."""
    x = torch.linspace(-3, -1, 50).to(dtype)
    net = Net()
    (got,) = net.evaluate(out(net.network.add_activation(net.input(x), ACT.GELU_ERF)))
    steps = 64 if dtype == torch.float32 else 1
    limit = torch.finfo(dtype).eps * steps
    torch.testing.assert_close(got.double(), F.gelu(x.double()), rtol=limit, atol=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_parametric_relu(dtype: torch.dtype) -> None:
    x, slopes = torch.randn(2, 3, 4).to(dtype), torch.randn(1, 3, 1).to(dtype)
    net = Net()
    layer = net.network.add_parametric_relu(net.input(x), net.constant(slopes))
    (got,) = net.evaluate(out(layer))
    close(got, F.prelu(x.double(), slopes.double().flatten()))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32, torch.bool, torch.int8], ids=str)
def test_select_broadcasts(dtype: torch.dtype) -> None:
    flags = torch.tensor([[True], [False]])
    a, b = torch.randn(2, 3).mul(9).to(dtype), torch.randn(1, 3).mul(9).to(dtype)
    net = Net()
    layer = net.network.add_select(net.input(flags), net.input(a), net.input(b))
    (got,) = net.evaluate(out(layer))
    close(got, torch.where(flags, a, b))


CASTS = [*FLOATS, torch.int32, torch.int64, torch.bool, torch.int8, torch.uint8]


@pytest.mark.parametrize("target", CASTS, ids=str)
@pytest.mark.parametrize("source", CASTS, ids=str)
def test_cast(source: torch.dtype, target: torch.dtype) -> None:
    x = torch.tensor([0, 1, 2.75, 7.5, 100]).to(source)
    net = Net()
    (got,) = net.evaluate(out(net.network.add_cast(net.input(x), DTYPES[target])))
    numbers = [bool(each) if target == torch.bool else int(each) for each in x.tolist()]
    if target.is_floating_point:
        assert got.tolist() == x.tolist()
    else:
        assert got.tolist() == numbers
    assert got.dtype == target


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("mode", "axis", "shape"), [
    ("UNIFORM", 1, (1,)), ("CHANNEL", 1, (1, 3, 1, 1)), ("CHANNEL", 0, (2, 1, 1, 1)),
    ("ELEMENTWISE", 1, (1, 3, 4, 5)),
])  # fmt: skip
def test_scale(mode: str, axis: int, shape: Any, dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 4, 5).to(dtype)
    shift, factor, power = (torch.rand(shape).add(0.5).to(dtype) for _ in range(3))
    net = Net()
    layer = net.network.add_scale_nd(
        net.input(x), trt.ScaleMode.__members__[mode], net.weights(shift), net.weights(factor),
        net.weights(power), axis,
    )  # fmt: skip
    plain = net.network.add_scale(
        net.input(x),
        trt.ScaleMode.UNIFORM,
        trt.Weights(DTYPES[dtype]),
        net.weights(factor.flatten()[:1]),
        trt.Weights(DTYPES[dtype]),
    )
    got = net.evaluate(out(layer), out(plain))
    wide = x.double()
    expected = (wide * factor.double() + shift.double()) ** power.double()
    close(got[0], expected, 2 * TOLERANCE[dtype])
    close(got[1], wide * factor.double().flatten()[0])
