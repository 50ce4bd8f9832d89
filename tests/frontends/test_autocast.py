"""Autocast regions become explicit casts that compute what eager mode does."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rewright
from rewright.errors import UnsupportedError
from rewright.frontends.autocast import (
    OFF,
    ambient_autocast,
    autocast_set_to,
    resolve_autocast,
)
from rewright.ir.inference import clear_cache

X = torch.linspace(-2, 2, 32).reshape(4, 8)
W = torch.linspace(-1, 1, 64).reshape(8, 8)
BF16 = torch.bfloat16


class Wrapped(nn.Module):
    """A function as a module, for torch.export."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def exported(function, *args, **keywords) -> torch.fx.GraphModule:
    return torch.export.export(Wrapped(function), args, **keywords).graph_module


def targets(module: torch.fx.GraphModule) -> list[str]:
    return [str(n.target) for n in module.graph.nodes if n.op == "call_function"]


def check(function, *args, **keywords) -> torch.fx.GraphModule:
    """The resolved graph of `function`, after a comparison with eager mode."""
    module = exported(function, *args, **keywords)
    resolved = resolve_autocast(module)
    resolved.graph.lint()
    for node in resolved.graph.nodes:
        assert node.op in ("get_attr", "output") or "val" in node.meta, node
    assert not any("autocast" in target for target in targets(resolved))
    torch.testing.assert_close(resolved(*args), tuple(function(*args)), rtol=0, atol=0)
    return resolved


def test_casts_of_a_linear_layer():
    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            return (F.linear(x, w),)

    resolved = check(function, X, W)
    assert targets(resolved) == ["aten.to.dtype", "aten.to.dtype", "aten.linear.default"]
    linear = next(n for n in resolved.graph.nodes if "linear" in str(n.target))
    assert [n.meta["val"].dtype for n in linear.args] == [BF16, BF16]
    assert "test_autocast.py" in linear.args[0].meta["stack_trace"]


def test_a_graph_without_autocast_is_returned_as_it_is():
    module = exported(lambda x: (x * 2,), X)
    assert resolve_autocast(module) is module


def test_the_module_given_is_not_changed():
    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            return (x @ w,)

    module = exported(function, X, W)
    before = str(module.graph)
    resolve_autocast(module)
    assert str(module.graph) == before


def test_nested_disabled_and_other_dtypes():
    def function(x, w):
        a = x @ w
        with torch.autocast("cpu", dtype=BF16):
            b = a @ w
            with torch.autocast("cpu", enabled=False):
                c = x @ w
            with torch.autocast("cpu", dtype=torch.float16):
                d = x @ w
            e = x @ w
        return a, b, c, d, e, x @ w

    check(function, X, W)


def test_policies_other_than_lower_precision():
    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            low = F.linear(x, w)
            promoted = torch.cat([x, low])
            f32 = F.mse_loss(low, low * 2)
            kept = F.layer_norm(low, (8,)), torch.softmax(low, -1), F.gelu(low) + x
            attended = F.scaled_dot_product_attention(low[None], x[None], x[None])
        return low, promoted, f32, *kept, attended

    check(function, X, W)


def test_a_composite_operator_is_cast_inside():
    """einsum has no autocast kernel on the CPU, the bmm in it has one."""

    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            return torch.einsum("ij,kj->ik", x, w), x.reshape(2, 16).softmax(-1)

    resolved = check(function, X, W)
    assert "aten.einsum.default" not in targets(resolved)
    assert "aten.softmax.int" in targets(resolved), "nothing in it is cast: it stays whole"


def test_several_results():
    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            values, places = torch.max(x @ w, -1)
            first, second = (x @ w).split(4, -1)
        return values, places, first, second

    check(function, X, W)


def test_bodies_of_cond():
    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            y = torch.cond(x.sum() > 0, lambda x, w: x @ w, lambda x, w: (x * 2) @ w, (x, w))
        z = torch.cond(x.sum() > 0, lambda x, w: x @ w, lambda x, w: (x * 2) @ w, (x, w))
        return y, z

    check(function, X, W)


def test_symbolic_sizes():
    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            return torch.einsum("ij,jk->ik", x, w) * x.shape[0], x @ w

    module = exported(function, X, W, dynamic_shapes=(({0: torch.export.Dim.AUTO}, None),))
    resolved = resolve_autocast(module)
    for rows in (3, 9):
        x = torch.rand(rows, 8)
        torch.testing.assert_close(resolved(x, W), function(x, W), rtol=0, atol=0)


def test_autocast_of_another_device_changes_nothing():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    enter = graph.call_function(
        torch.amp.autocast_mode._enter_autocast, ("cuda", torch.float16, True, False)
    )
    y = graph.call_function(torch.ops.aten.matmul.default, (x, x))
    graph.call_function(torch.amp.autocast_mode._exit_autocast, (enter,))
    graph.output((y,))
    for node in (x, y):
        node.meta["val"] = torch.empty(8, 8, device="meta")
    resolved = resolve_autocast(torch.fx.GraphModule({}, graph))
    assert targets(resolved) == ["aten.matmul.default"]


def test_calls_that_are_alike_are_asked_once(monkeypatch: pytest.MonkeyPatch):
    from rewright.frontends import autocast

    def function(x, w):
        with torch.autocast("cpu", dtype=BF16):
            for _ in range(5):
                x = F.linear(x, w)
            return (x,)

    asked = []
    trace = autocast._trace
    monkeypatch.setattr(autocast, "_trace", lambda *args: asked.append(args[0]) or trace(*args))
    check(function, X, W)
    assert len(asked) == 2, "once for f32 operands, once for bf16 ones"


# --------------------------------------------------------------------------- the state around


def test_ambient_autocast():
    assert ambient_autocast() == OFF
    with torch.autocast("cpu", dtype=BF16):
        assert ambient_autocast() == {"cpu": BF16}
        with autocast_set_to(OFF):
            assert ambient_autocast() == OFF
            assert (X @ W).dtype is torch.float32
        assert ambient_autocast() == {"cpu": BF16}
        assert (X @ W).dtype is BF16


def test_state_is_restored_after_an_error():
    cached = torch.is_autocast_cache_enabled()
    with pytest.raises(RuntimeError, match="shapes"), autocast_set_to({"cpu": torch.float16}):
        X @ X
    assert ambient_autocast() == OFF
    assert torch.get_autocast_dtype("cpu") is BF16
    assert torch.is_autocast_cache_enabled() == cached


def test_a_state_around_the_whole_module():
    with torch.autocast("cpu", dtype=BF16):
        module = exported(lambda x, w: (F.linear(x, w),), X, W)
    resolved = resolve_autocast(module, {"cpu": BF16})
    assert targets(resolved) == ["aten.to.dtype", "aten.to.dtype", "aten.linear.default"]


def test_what_was_exported_under_autocast_lost_it():
    with torch.autocast("cpu", dtype=BF16):
        program = torch.export.export(Wrapped(lambda x, w: F.linear(x, w).sin()), (X, W))
    with pytest.raises(UnsupportedError, match=r"exported under autocast.*\n.*test_autocast.py"):
        rewright.compile_exported(program)
    lowered = torch.export.export(Wrapped(lambda x: F.linear(x, x)), (X.to(BF16),))
    rewright.compile_exported(lowered)
    with torch.autocast("cpu", dtype=BF16):  # is nothing to a program that was exported before
        inside = torch.export.export(Inside(), (X, W))
    assert rewright.compile_exported(inside)(X, W).dtype is BF16


class Inside(nn.Module):
    """A region of its own."""

    def forward(self, x, w):
        with torch.autocast("cpu", dtype=BF16):
            return F.linear(x, w)


class Mixed(nn.Module):
    """What autocast lowers, what it leaves, a product of weights, and a norm that folds."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.left, self.right = nn.Parameter(W.clone()), nn.Parameter(W.t().contiguous())

    def forward(self, x):
        return self.norm(self.fc(x)), x @ (self.left @ self.right)


def test_autocast_around_a_compile_is_compiled_in():
    model = Mixed().eval().requires_grad_(False)
    with torch.autocast("cpu", dtype=BF16):
        program = rewright.compile(model, (X,), optimization_level=0)
        expected = model(X)
    assert {item.dtype for item in expected} == {BF16}
    for actual, wanted in zip(program(X), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_autocast_around_a_compile_of_something_exported_is_nothing(tmp_path):
    """Nor does it reach types that are remembered, prepared constants, or other forms."""
    clear_cache()
    model = Mixed().eval().requires_grad_(False)
    exported = torch.export.export(model, (X,))
    with torch.autocast("cpu", dtype=BF16):
        program = rewright.compile_exported(exported)
        assert any(not c.is_source for c in program.graph.constants.values())
        program.refit()
        program.save(tmp_path / "a.rw")
        forms = (
            program,
            rewright.load(tmp_path / "a.rw"),
            program.to_exported_program().module(),
            program.to_torchscript((X,)),
            rewright.compile_exported(exported),
        )
    forms += (rewright.compile_exported(exported),)
    for made in forms:
        for actual, wanted in zip(made(X), model(X), strict=True):
            torch.testing.assert_close(actual, wanted)
