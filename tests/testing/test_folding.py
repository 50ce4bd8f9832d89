"""The evaluator against TensorRT's own arithmetic, where TensorRT computes on the host."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.testing.folding import differences
from tests.testing.networks import DTYPES, FLOATS, TOLERANCE, Net, evaluate, out, trt

NAN, INF = float("nan"), float("inf")
EW, UN, ACT = trt.ElementWiseOperation, trt.UnaryOperation, trt.ActivationType
RED, SAMPLE, GATHER = trt.ReduceOperation, trt.SampleMode, trt.GatherMode

SPECIAL = [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -1.5, -2.5, 0.3, -0.7, 7.25, -100, 60, NAN, INF]
SPECIAL += [-INF, 1e-3, 88.0, 1e4]


def special(dtype: torch.dtype) -> torch.Tensor:
    """Numbers that formulas differ at. TensorRT folds f16 in float32, so nothing may overflow."""
    values = torch.tensor(SPECIAL)
    if dtype == torch.float16:
        values = values[((values.abs() < 4) & (values.abs() != 1e-3)) | ~values.isfinite()]
    return values.to(dtype)


def agrees(build: Callable[[Net], Any], tolerance: float = 0.0) -> None:
    """That the evaluator and TensorRT compute the same of ``build``, at least one element."""
    ours = evaluate(build)
    assert 0 < ours.numel() <= 64
    places = differences(build, ours, tolerance)
    assert not places, [(place, ours.flatten()[place].item()) for place in places]


def test_the_oracle_can_say_no() -> None:
    values = torch.tensor([1.0, NAN, INF, 2.0, 3.0])
    wrong = torch.tensor([1.0, 1.0, -INF, NAN, 3.0 + 1e-6])
    assert differences(lambda net: net.constant(values), wrong) == [1, 2, 3, 4]
    assert differences(lambda net: net.constant(values), wrong, 1e-5) == [1, 2, 3]
    assert differences(lambda net: net.constant([1, 2, 3]), torch.tensor([1, 3, 2])) == [1, 2]
    flags = torch.tensor([True, False])
    assert differences(lambda net: net.constant(flags), torch.tensor([True, True])) == [1]


FLOAT_UNARY = sorted(set(UN.__members__) - {"NOT"})


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", FLOAT_UNARY)
def test_unary(op: str, dtype: torch.dtype) -> None:
    values = special(dtype)
    agrees(lambda net: out(net.network.add_unary(net.constant(values), UN.__members__[op])),
           TOLERANCE[dtype])  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("op", ["ABS", "NEG", "SIGN"])
def test_unary_of_integers(op: str, dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, -1, 7, -9, 2**31 - 1, -(2**31) + 1], dtype=dtype)
    agrees(lambda net: out(net.network.add_unary(net.constant(values), UN.__members__[op])))


def test_not() -> None:
    values = torch.tensor([True, False])
    agrees(lambda net: out(net.network.add_unary(net.constant(values), UN.NOT)))


ARITHMETIC = ["SUM", "PROD", "MAX", "MIN", "SUB", "DIV", "POW", "FLOOR_DIV"]
COMPARISONS = ["EQUAL", "GREATER", "LESS"]


def pairs(left: torch.Tensor, right: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """All pairs of two vectors' elements, in parts that TensorRT folds."""
    a, b = (each.flatten() for each in torch.meshgrid(left, right, indexing="ij"))
    return list(zip(a.split(60), b.split(60), strict=True))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS)
def test_elementwise(op: str, dtype: torch.dtype) -> None:
    values = special(dtype)
    for a, b in pairs(values, values):
        agrees(lambda net, a=a, b=b: out(net.network.add_elementwise(
            net.constant(a), net.constant(b), EW.__members__[op])), TOLERANCE[dtype])  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("op", ARITHMETIC)
def test_elementwise_of_integers(op: str, dtype: torch.dtype) -> None:
    left = torch.tensor([0, 1, -1, 2, -2, 3, 7, -7, 20, -20], dtype=dtype)
    # TensorRT refuses a division by a constant 0.
    right = torch.tensor([1, -1, 2, -2, 3, -3, 5], dtype=dtype)
    if op == "POW":
        left = left[left != 0]
    for a, b in pairs(left, right):
        agrees(lambda net, a=a, b=b: out(net.network.add_elementwise(
            net.constant(a), net.constant(b), EW.__members__[op])))  # fmt: skip


@pytest.mark.parametrize("op", ["AND", "OR", "XOR", "EQUAL"])
def test_elementwise_of_bools(op: str) -> None:
    a, b = torch.tensor([0, 0, 1, 1]).bool(), torch.tensor([0, 1, 0, 1]).bool()
    agrees(lambda net: out(net.network.add_elementwise(
        net.constant(a), net.constant(b), EW.__members__[op])))  # fmt: skip


def test_elementwise_broadcasts() -> None:
    a, b = torch.randn(3, 1, 2), torch.randn(1, 4, 2)
    agrees(lambda net: out(net.network.add_elementwise(net.constant(a), net.constant(b), EW.SUB)))


@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 1.3), (-0.5, 2.0), (2.0, -0.25), (0.0, 1.0)])
@pytest.mark.parametrize("kind", sorted(ACT.__members__))
def test_activation(kind: str, alpha: float, beta: float) -> None:
    def build(net: Net) -> Any:
        layer = net.network.add_activation(
            net.constant(torch.tensor(SPECIAL)), ACT.__members__[kind]
        )
        layer.alpha, layer.beta = alpha, beta
        return out(layer)

    agrees(build, 2e-6)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("axes", [0b001, 0b010, 0b100, 0b101, 0b111])
@pytest.mark.parametrize("op", ["SUM", "PROD", "MAX", "MIN", "AVG"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64], ids=str)
def test_reduce(op: str, axes: int, keep: bool, dtype: torch.dtype) -> None:
    values = (torch.randn(2, 3, 4) * 5).to(dtype)

    def build(net: Net) -> Any:
        return out(net.network.add_reduce(net.constant(values), RED.__members__[op], axes, keep))

    # The order of a float's sum is TensorRT's own.
    agrees(build, 3e-6)


MATRICES = [
    ((3, 4), (4, 2), "NONE", "NONE"),
    ((4, 3), (4, 2), "TRANSPOSE", "NONE"),
    ((3, 4), (2, 4), "NONE", "TRANSPOSE"),
    ((2, 3, 4), (1, 4, 2), "NONE", "NONE"),
    ((3, 4), (4,), "NONE", "VECTOR"),
    ((4,), (4, 2), "VECTOR", "NONE"),
    ((4,), (4,), "VECTOR", "VECTOR"),
    ((2, 4), (2, 4, 3), "VECTOR", "NONE"),
    ((2, 4), (2, 4), "VECTOR", "VECTOR"),
]


@pytest.mark.parametrize(("left", "right", "op0", "op1"), MATRICES)
def test_matrix_multiply(left: Any, right: Any, op0: str, op1: str) -> None:
    a, b = torch.randn(left), torch.randn(right)
    kinds = trt.MatrixOperation.__members__
    agrees(lambda net: out(net.network.add_matrix_multiply(
        net.constant(a), kinds[op0], net.constant(b), kinds[op1])), 3e-6)  # fmt: skip


SHUFFLES = [
    ((1, 0, 2), (6, 4), None, True),
    (None, (0, -1), (1, 0), True),
    ((2, 0, 1), (0, -1), None, True),
    ((2, 1, 0), (2, 2, 0, -1), (3, 2, 1, 0), True),
    (None, (4, 3, 2), (1, 2, 0), False),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
@pytest.mark.parametrize(("first", "sizes", "second", "placeholder"), SHUFFLES)
def test_shuffle(
    first: Any, sizes: Any, second: Any, placeholder: bool, dtype: torch.dtype
) -> None:
    values = torch.arange(24).reshape(2, 3, 4).to(dtype)

    def build(net: Net) -> Any:
        layer = net.network.add_shuffle(net.constant(values))
        layer.zero_is_placeholder = placeholder
        if first:
            layer.first_transpose = first
        layer.reshape_dims = sizes
        if second:
            layer.second_transpose = second
        return out(layer)

    agrees(build)


SLICES = [
    ((1, 0), (2, 3), (1, 1), "STRICT_BOUNDS"),
    ((2, 3), (2, 2), (-2, -1), "STRICT_BOUNDS"),
    ((-2, -3), (7, 7), (1, 1), "CLAMP"),
    ((-2, -3), (7, 7), (1, 1), "WRAP"),
    ((-5, -9), (6, 7), (2, 3), "REFLECT"),
    ((4, 7), (7, 7), (-1, -2), "REFLECT"),
    ((-2, -3), (7, 7), (1, 1), "FILL"),
    ((4, 7), (6, 6), (-2, -3), "FILL"),
    ((0, 0), (5, 6), (3, 2), "WRAP"),
    ((0, 0), (5, 6), (-3, -2), "WRAP"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
@pytest.mark.parametrize(("start", "size", "stride", "mode"), SLICES)
def test_slice(start: Any, size: Any, stride: Any, mode: str, dtype: torch.dtype) -> None:
    values = torch.arange(1, 13).reshape(3, 4).to(dtype)

    def build(net: Net) -> Any:
        layer = net.network.add_slice(net.constant(values), start, size, stride)
        layer.mode = SAMPLE.__members__[mode]
        # Filled with the default, 0: of constants, TensorRT can fill with nothing else.
        return out(layer)

    agrees(build)


@pytest.mark.parametrize("mode", ["CLAMP", "WRAP", "REFLECT", "FILL"])
def test_slice_of_one_element(mode: str) -> None:
    def build(net: Net) -> Any:
        layer = net.network.add_slice(net.constant([[3.0]]), (-2, 0), (5, 1), (1, 1))
        layer.mode = SAMPLE.__members__[mode]
        return out(layer)

    agrees(build)


def test_slice_with_axes() -> None:
    values = torch.arange(24.0).reshape(2, 3, 4)

    def build(net: Net) -> Any:
        layer = net.network.add_slice(net.constant(values), (1, 3), (2, 4), (1, -1))
        layer.axes = (1, 2)
        return out(layer)

    agrees(build)


def test_slice_with_every_part_an_input() -> None:
    values = torch.arange(24.0).reshape(2, 3, 4)

    def build(net: Net) -> Any:
        layer = net.network.add_slice(net.constant(values), (0, 0), (1, 1), (1, 1))
        for place, part in ((1, [2, 0]), (2, [2, 3]), (3, [-1, 1]), (5, [-2, 2])):
            layer.set_input(place, net.constant(part))
        return out(layer)

    agrees(build)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool], ids=str)
def test_concatenation(axis: int, dtype: torch.dtype) -> None:
    shape = [2, 2, 2]
    shape[axis] = 3
    parts = [torch.randint(2, size).to(dtype) for size in ([2, 2, 2], shape)]

    def build(net: Net) -> Any:
        layer = net.network.add_concatenation([net.constant(part) for part in parts])
        layer.axis = axis
        return out(layer)

    agrees(build)


GATHERS = [
    ("DEFAULT", (3, 4), [2, 0, -1], 0, 0),
    ("DEFAULT", (3, 4), [[2, 0], [1, 1]], 1, 0),
    ("DEFAULT", (3, 4, 2), [[2, 0], [1, 1]], 1, 0),
    ("DEFAULT", (3, 4), 1, 1, 0),
    ("DEFAULT", (2, 4, 3), [[2, 0], [1, 1]], 1, 1),
    ("DEFAULT", (2, 4, 3), [[2, 0], [1, 1]], 2, 1),
    ("ELEMENT", (3, 4), [[2, 0, 1, 1], [0, 0, 2, -1]], 0, 0),
    ("ELEMENT", (3, 4), [[2, 0], [1, 3], [-1, 0]], 1, 0),
    ("ND", (3, 4), [[2, 0], [1, 3]], 0, 0),
    ("ND", (3, 4), [[2], [0]], 0, 0),
    ("ND", (3, 2, 2), [[[2, 0], [1, 1]]], 0, 0),
    ("ND", (2, 3, 2), [[2], [0]], 0, 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
@pytest.mark.parametrize(("mode", "shape", "indices", "axis", "batch"), GATHERS)
def test_gather(
    mode: str, shape: Any, indices: Any, axis: int, batch: int, dtype: torch.dtype
) -> None:
    values = torch.randn(shape).mul(9).to(dtype)

    def build(net: Net) -> Any:
        layer = net.network.add_gather_v2(
            net.constant(values), net.constant(indices), GATHER.__members__[mode]
        )
        layer.num_elementwise_dims = batch
        if mode != "ND":
            layer.axis = axis
        return out(layer)

    agrees(build)


def test_select() -> None:
    flags = torch.tensor([True, False, True])
    a, b = torch.randn(3), torch.randn(1)
    agrees(lambda net: out(net.network.add_select(
        net.constant(flags), net.constant(a), net.constant(b))))  # fmt: skip


NUMBERS = [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64]


@pytest.mark.parametrize("target", [*NUMBERS, torch.bool], ids=str)
@pytest.mark.parametrize("source", [*NUMBERS, torch.bool], ids=str)
def test_cast(source: torch.dtype, target: torch.dtype) -> None:
    values = torch.tensor([0, 1, -1, 2.7, -2.7, 0.4, -0.4, 1000, 77777, -0.0]).to(source)
    values = values[values.double().abs() < 60000] if torch.float16 in (source, target) else values

    def build(net: Net) -> Any:
        return out(net.network.add_cast(net.constant(values), DTYPES[target]))

    agrees(build)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_a_float_beyond_an_integer_saturates(dtype: torch.dtype) -> None:
    limit = -float(torch.iinfo(dtype).min)
    values = torch.tensor([limit, 2 * limit, INF, limit * (1 - 2**-20), -limit, -2 * limit, -INF])

    def build(net: Net) -> Any:
        return out(net.network.add_cast(net.constant(values), DTYPES[dtype]))

    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    assert evaluate(build).tolist() == [high, high, high, int(values[3]), low, low, low]
    if dtype == torch.int32:  # differences of i64 overflow
        agrees(build)


def test_one_hot_of_negative_indices() -> None:
    agrees(lambda net: out(net.network.add_one_hot(
        net.constant([-1, -4, -5, 1]), net.constant([0.0, 1.0]), net.constant(4), 1)))  # fmt: skip


def test_a_wide_integer_keeps_its_low_bits() -> None:
    values = torch.tensor([2**31, 2**32 + 5, -(2**31) - 1, 2**40 - 3])
    agrees(lambda net: out(net.network.add_cast(net.constant(values), trt.int32)))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_one_hot(axis: int) -> None:
    indices = torch.tensor([[0, 3, 1], [2, 4, 9]])
    values = torch.tensor([-1.0, 5.0])

    def build(net: Net) -> Any:
        depth = net.constant(5)
        return out(net.network.add_one_hot(
            net.constant(indices), net.constant(values), depth, axis))  # fmt: skip

    agrees(build)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64], ids=str)
def test_linspace(dtype: torch.dtype) -> None:
    def build(net: Net) -> Any:
        layer = net.network.add_fill((3, 4), trt.FillOperation.LINSPACE, DTYPES[dtype])
        layer.set_input(1, net.constant(torch.tensor(-7).to(dtype)))
        layer.set_input(2, net.constant(torch.tensor([10, 3]).to(dtype)))
        return out(layer)

    agrees(build)


def test_shape_arithmetic() -> None:
    def build(net: Net) -> Any:
        shape = out(net.network.add_shape(net.constant(torch.zeros(3, 5, 2))))
        return out(net.network.add_elementwise(shape, shape, EW.PROD))

    agrees(build)


def test_squeeze_unsqueeze_and_identity() -> None:
    values = torch.randn(1, 3, 1)
    agrees(lambda net: out(net.network.add_squeeze(net.constant(values), net.constant([-1]))))
    agrees(lambda net: out(net.network.add_unsqueeze(net.constant(values), net.constant([1, -1]))))
    agrees(lambda net: out(net.network.add_identity(net.constant(values))))


def test_scale() -> None:
    values = torch.rand(2, 3, 2, 2) + 0.5
    shift, factor, power = (torch.rand(3) + 0.5 for _ in range(3))

    def build(net: Net) -> Any:
        weights = (net.weights(each) for each in (shift, factor, power))
        return out(net.network.add_scale_nd(
            net.constant(values), trt.ScaleMode.CHANNEL, *weights, 1))  # fmt: skip

    agrees(build, 2e-6)


@pytest.mark.parametrize("taken", [True, False])
def test_conditional(taken: bool) -> None:
    def build(net: Net) -> Any:
        fork = net.network.add_if_conditional()
        fork.set_condition(net.constant(taken))
        entry = out(fork.add_input(net.constant([1.0, 2.0])))
        branches = (out(net.network.add_unary(entry, op)) for op in (UN.EXP, UN.NEG))
        return out(fork.add_output(*branches))

    agrees(build, 1e-6)
