"""What holds for all layers: inputs, weights, types, order, memory, refusals."""

import ast
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rewright.testing
from rewright.errors import EngineError, InputError, RewrightError, UnsupportedError
from rewright.testing import evaluate_network
from rewright.testing.plan import Plan, Scope, Step
from rewright.testing.table import LAYERS
from tests.testing.networks import BUILDER, FLOATS, Net, close, out, trt

UN, EW = trt.UnaryOperation, trt.ElementWiseOperation
SOURCE = Path(rewright.testing.__file__).parent


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_it_shares_no_code_with_what_makes_networks() -> None:
    """All that the evaluator reaches, by imports anywhere in its files, functions included."""
    found, waiting = set(), ["rewright.testing.evaluator"]
    while waiting:
        name = waiting.pop()
        path = SOURCE / f"{name.rpartition('.')[2]}.py"
        if name in found or not name.startswith("rewright.testing.") or not path.exists():
            continue
        found.add(name)
        for other in imports(path):
            assert not other.startswith(("tensorrt", "backends", "passes", "frontends", "ir."))
            if other.startswith("rewright") and other.split(".")[1:2] != ["testing"]:
                assert other.startswith("rewright.errors"), f"{name} imports {other}"
            waiting.append(other)
    families = {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in found} >= {"table", "graph", "weights", "attention"}
    assert found <= {f"rewright.testing.{family}" for family in families}


def test_every_type_of_layer_is_known_and_has_its_interface() -> None:
    assert LAYERS.keys() == trt.LayerType.__members__.keys()
    for kind, entry in LAYERS.items():
        assert entry.compute is not None or entry.reason, kind
        assert entry.interface is None or hasattr(trt, entry.interface), kind


# ---------------------------------------------------------------- inputs


def doubled(shape: Any = (-1, 3)) -> tuple[Any, Any]:
    network = BUILDER.create_network(0)
    tensor = network.add_input("x", trt.float32, shape)
    network.mark_output(out(network.add_elementwise(tensor, tensor, EW.SUM)))
    return network, tensor


@pytest.mark.parametrize(("inputs", "message"), [
    ({}, "no value is given for network input 'x'"),
    ({"x": torch.ones(2, 3), "X": torch.ones(1)}, "the network has no input 'X'"),
    ({"x": torch.ones(2, 3).double()}, "is torch.float32"),
    ({"x": torch.ones(2, 4)}, r"\[-1, 3\], but the value given is torch.float32\[2, 4\]"),
    ({"x": torch.ones(3)}, r"\[-1, 3\], but the value given is torch.float32\[3\]"),
    ({"x": torch.ones(2, 3, device="meta")}, "on meta"),
])  # fmt: skip
def test_wrong_inputs(inputs: dict[str, torch.Tensor], message: str) -> None:
    network, _ = doubled()
    with pytest.raises(InputError, match=message):
        evaluate_network(network, inputs)


def test_dimensions_of_one_name_are_equal() -> None:
    network = BUILDER.create_network(0)
    for name in ("a", "b"):
        tensor = network.add_input(name, trt.float32, (-1,))
        tensor.set_dimension_name(0, "n")
        network.mark_output(out(network.add_identity(tensor)))
    evaluate_network(network, {"a": torch.ones(2), "b": torch.ones(2)})
    with pytest.raises(InputError, match="dimension 'n' is 2 in 'a', but 3 in 'b'"):
        evaluate_network(network, {"a": torch.ones(2), "b": torch.ones(3)})


def test_a_profile_is_kept_to() -> None:
    network, _ = doubled()
    profile = BUILDER.create_optimization_profile()
    profile.set_shape("x", (2, 3), (4, 3), (6, 3))
    for size in (2, 6):
        evaluate_network(network, {"x": torch.ones(size, 3)}, profile=profile)
    for size in (1, 7):
        with pytest.raises(
            InputError, match=r"outside of its profile's range \[2, 3\] to \[6, 3\]"
        ):
            evaluate_network(network, {"x": torch.ones(size, 3)}, profile=profile)


def test_a_profile_of_a_shape_tensor_is_about_its_values() -> None:
    network = BUILDER.create_network(0)
    layer = network.add_shuffle(network.add_input("x", trt.float32, (-1,)))
    layer.set_input(1, network.add_input("sizes", trt.int64, (2,)))
    network.mark_output(out(layer))
    profile = BUILDER.create_optimization_profile()
    profile.set_shape("x", (4,), (12,), (12,))
    profile.set_shape_input("sizes", [1, 1], [3, 4], [3, 4])
    for sizes in ((3, 4), (2, 6)):
        inputs = {"x": torch.arange(12.0), "sizes": torch.tensor(sizes)}
        if sizes == (3, 4):
            (got,) = evaluate_network(network, inputs, profile=profile).values()
            assert got.shape == (3, 4)
        else:
            with pytest.raises(InputError, match="'sizes'"):
                evaluate_network(network, inputs, profile=profile)


def test_outputs_have_memory_of_their_own() -> None:
    x, weights = torch.ones(3), torch.ones(3)
    net = Net()
    tensor = net.input(x)
    got = net.evaluate(out(net.network.add_identity(tensor)), net.constant(weights))
    for each in got:
        each.fill_(7)
    assert x.tolist() == weights.tolist() == [1, 1, 1]


def test_a_network_without_outputs_is_refused() -> None:
    network = BUILDER.create_network(0)
    network.add_input("x", trt.float32, (1,))
    with pytest.raises(EngineError, match="no outputs"):
        evaluate_network(network, {"x": torch.ones(1)})


# ---------------------------------------------------------------- weights

WEIGHTS = [*FLOATS, torch.int8, torch.int32, torch.int64, torch.bool]


@pytest.mark.parametrize("dtype", WEIGHTS, ids=str)
@pytest.mark.parametrize("by_table", [False, True])
def test_weights_of_every_dtype(dtype: torch.dtype, by_table: bool) -> None:
    value = torch.randn(3, 5).mul(4).to(dtype)
    net = Net()
    constant = net.network.add_constant((3, 5), net.weights(value))
    constant.name = "table of numbers"
    twin = value.clone()
    table = {"table of numbers": twin.logical_not() if dtype == torch.bool else -twin}
    (got,) = net.evaluate(out(constant), **({"weights": table} if by_table else {}))
    assert torch.equal(got, table["table of numbers"] if by_table else value)


def test_fp8_weights_are_read_from_memory() -> None:
    value = torch.randn(4, 8).to(torch.float8_e4m3fn)
    net = Net()
    layer = net.network.add_dequantize(net.constant(value), net.constant(0.5), trt.float32)
    (got,) = net.evaluate(out(layer))
    assert torch.equal(got, value.float() * 0.5)


def test_kernels_by_table_and_numpy_weights() -> None:
    x = torch.randn(1, 2, 4, 4)
    kernel, bias = np.random.randn(3, 2, 1, 1).astype(np.float32), np.zeros(3, np.float32)
    net = Net()
    layer = net.network.add_convolution_nd(net.input(x), 3, (1, 1), kernel, bias)
    layer.name = "conv"
    del bias
    gc.collect()
    (got,) = net.evaluate(out(layer))
    close(got, torch.einsum("oi,nihw->nohw", torch.tensor(kernel[:, :, 0, 0]), x), 1e-5)
    table = {"conv.kernel": torch.zeros(3, 2, 1, 1), "conv.bias": torch.tensor([1.0, 2.0, 3.0])}
    (got,) = net.evaluate(weights=table)
    assert got[0, :, 0, 0].tolist() == [1, 2, 3] and got.std((2, 3)).sum() == 0


@pytest.mark.parametrize("value", [torch.ones(3), torch.ones(4).half()])
def test_a_table_of_other_weights_is_refused(value: torch.Tensor) -> None:
    net = Net()
    constant = net.network.add_constant((4,), net.weights(torch.ones(4)))
    constant.name = "c"
    with pytest.raises(EngineError, match=r"weights 'c' are 4 × torch\.float32 in the network"):
        net.evaluate(out(constant), weights={"c": value})


def test_placeholders_get_their_values_from_the_table() -> None:
    net = Net()
    constant = net.network.add_constant((4,), trt.Weights(trt.bfloat16, 0, 4))
    constant.name = "later"
    table = {"later": torch.arange(4).bfloat16()}
    assert net.evaluate(out(constant), weights=table)[0].tolist() == [0, 1, 2, 3]


def test_an_empty_constant() -> None:
    net = Net()
    constant = net.network.add_constant((0, 3), trt.Weights(trt.float32))
    assert list(net.evaluate(out(constant))[0].shape) == [0, 3]


# ---------------------------------------------------------------- types and refusals


def test_a_layer_that_tensorrt_refuses_is_named() -> None:
    net = Net()
    layer = net.network.add_elementwise(
        net.input(torch.ones(2)), net.input(torch.ones(2).half()), EW.SUM
    )
    layer.name = "mixed"
    with pytest.raises(RewrightError, match="mixed"):
        net.evaluate(out(layer))


def test_a_result_of_another_type_than_tensorrts_is_a_fault(monkeypatch: Any) -> None:
    """As if the evaluator had a formula wrong: for the shape, and for the dtype."""
    from rewright.testing import graph

    for wrong in (lambda layer, x: x[..., None], lambda layer, x: x.half()):
        entry = LAYERS["UNARY"].__class__("IUnaryLayer", wrong)
        monkeypatch.setattr(graph, "LAYERS", {**LAYERS, "UNARY": entry})
        net = Net()
        with pytest.raises(EngineError, match=r"evaluates to .* TensorRT gives .* \[2\]|\[2\]"):
            net.evaluate(out(net.network.add_unary(net.input(torch.ones(2)), UN.EXP)))


def test_a_layer_that_is_not_documented_is_refused_by_name() -> None:
    net = Net()
    hidden = net.input(torch.randn(1, 4, 8))
    layer = net.network.add_moe(
        hidden, net.input(torch.zeros(1, 4, 2, dtype=torch.int32)), net.input(torch.ones(1, 4, 2))
    )
    if layer is None:
        pytest.skip("this TensorRT adds no mixture of experts so")
    layer.name = "experts"
    with pytest.raises(UnsupportedError, match="MOE layer 'experts' can't be evaluated"):
        net.evaluate(out(layer))


def test_random_fills_repeat_and_have_their_range() -> None:
    runs = []
    for _ in range(2):
        net = Net()
        made = []
        for op, name in (
            (trt.FillOperation.RANDOM_UNIFORM, "u"),
            (trt.FillOperation.RANDOM_NORMAL, "n"),
        ):
            layer = net.network.add_fill((1000,), op, trt.float32)
            layer.name, layer.alpha, layer.beta = name, 3.0, 5.0
            made.append(out(layer))
        runs.append(net.evaluate(*made))
    (uniform, normal), again = runs
    assert torch.equal(uniform, again[0]) and torch.equal(normal, again[1])
    assert 3 <= uniform.min() < 3.1 and 4.9 < uniform.max() <= 5
    assert abs(normal.mean() - 3) < 0.6 and abs(normal.std() - 5) < 0.6


@pytest.mark.parametrize("kind", ["float32", "int32", "int64"])
def test_a_dynamic_fill_counts(kind: str) -> None:
    dtype = getattr(torch, kind)
    net = Net()
    layer = net.network.add_fill((0,), trt.FillOperation.LINSPACE, getattr(trt, kind))
    layer.set_input(0, net.input(torch.tensor([5])))
    layer.set_input(1, net.constant(torch.tensor(3).to(dtype)))
    layer.set_input(2, net.constant(torch.tensor([2]).to(dtype)))
    static = net.network.add_fill((4,), trt.FillOperation.LINSPACE, getattr(trt, kind))
    static.alpha, static.beta = (2, 3) if dtype == torch.int64 else (2.0, 3.0)
    got = net.evaluate(out(layer), out(static))
    assert got[0].tolist() == [3, 5, 7, 9, 11] and got[0].dtype == dtype
    assert got[1].tolist() == [2, 5, 8, 11] and got[1].dtype == dtype


# ---------------------------------------------------------------- order and memory


def test_a_deep_network_is_no_recursion() -> None:
    net = Net()
    tensor = net.input(torch.ones(1))
    one = net.constant([1.0])
    for _ in range(3000):
        tensor = out(net.network.add_elementwise(tensor, one, EW.SUM))
    assert net.evaluate(tensor)[0].item() == 3001


def test_a_layer_that_no_output_needs_is_not_computed() -> None:
    net = Net()
    tensor = net.input(torch.zeros(2, dtype=torch.int8))
    net.network.add_unary(tensor, UN.ERF)  # refused, were it computed
    assert net.evaluate(out(net.network.add_identity(tensor)))[0].tolist() == [0, 0]


class Chain:
    """Steps t0 -> t1 -> ..., each of which also reads the one before the last."""

    def __init__(self, length: int) -> None:
        self.alive: set[str] = set()
        self.most = 0
        self.steps = {f"t{k}": self._step(k) for k in range(1, length)}

    def _step(self, place: int) -> Step:
        name = f"t{place}"
        reads = tuple(f"t{k}" for k in (place - 1, place - 2) if k >= 0)

        def run(scope: Scope) -> list[torch.Tensor]:
            value = sum((scope[each] for each in reads), torch.zeros(1, dtype=torch.float64))
            self.alive.add(name)
            weakref.finalize(value, self.alive.discard, name)
            self.most = max(self.most, len(self.alive))
            return [value]

        return Step(reads, (name,), run, name)

    def step(self, name: str) -> Step | None:
        return self.steps.get(name)


def test_values_are_freed_after_their_last_use() -> None:
    chain = Chain(40)
    scope = Scope({"t0": torch.ones(1, dtype=torch.float64)})
    (got,) = Plan(chain, ["t39"], {"t0"}).run(scope)
    assert chain.most == 3
    assert scope.values.keys() == {"t0", "t39"}
    fibonacci = [1, 1]
    for _ in range(38):
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert got.item() == fibonacci[39]


def test_a_cycle_is_refused() -> None:
    made = {
        name: Step((other,), (name,), lambda scope: [], name)
        for name, other in (("a", "b"), ("b", "a"))
    }

    class Knot:
        def step(self, name: str) -> Step:
            return made[name]

    with pytest.raises(EngineError, match="depends on itself"):
        Plan(Knot(), ["a"], ())
