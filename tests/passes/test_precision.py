"""What computes in what: the table, the user's words, the boundary, masks, and the report."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from torch import nn
from torch.utils._pytree import tree_map_only

import rewright
from rewright.errors import PassError, SettingsError
from rewright.ir.interpreter import interpret
from rewright.ir.ops import get_op
from rewright.ir.verifier import verify
from rewright.passes import Pipeline
from rewright.passes.precision.precision import Precision
from rewright.passes.precision.table import KEEP, Kind, row_of
from rewright.testing import evaluate
from tests.passes.graphs import graph, only
from tests.passes.random_graphs import Case, cases
from tests.zoo import ENTRIES
from tests.zoo.__main__ import check_sizes, relative_error, tensors

TOLERANCE = {"fp16": 2e-2, "bf16": 5e-2}
"""The relative error of small models against f32, as docs/PRECISION_AND_LAYOUT.md states it."""


def lowered(of, to="fp16", **options):
    """What the pass says of `of`, which it changes."""
    run = Pipeline((Precision(to, **options),)).run(of)
    verify(of, retype=True)
    return run.reports["precision"]


def dtypes(of, op):
    """The dtypes of the operands and results of the only node of an op, as a set."""
    node = only(of, op)
    return {v.type.dtype for v in (*node.operands, *node.results)}


# --------------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Kind.KEEP, "aten.softmax.int aten.sum.dim_IntList aten.exp aten.log aten.mse_loss "
         "aten.pow.Tensor_Scalar aten.erfinv aten.bucketize.Tensor"),
        (Kind.LOWER, "rw.attention rw.layer_norm rw.linear rw.conv aten.addmm aten.bmm"),
        (Kind.FOLLOW, "aten.permute aten.add.Tensor aten.relu aten.max_pool2d aten.where.self"),
    ],
)  # fmt: skip
def test_kinds_of_ops(kind, names):
    assert {row_of(get_op(name)).kind for name in names.split()} == {kind}


def test_no_op_stays_for_two_reasons():
    names = Counter(name for group in KEEP.values() for name in group.split())
    assert max(names.values()) == 1


def test_parameters_that_stay_wide():
    g = graph(
        """
        %y = aten.batch_norm(%x, @g, @b, @m, @v, False, 0.1, 1e-05, True) : f32[2, 4, 8]
        return %y : f32[2, 4, 8]
        """,
        "%x: f32[2, 4, 8]",
        "@g : f32[4]; @b : f32[4]; @m : f32[4]; @v : f32[4]",
    )
    lowered(g)
    norm = only(g, "aten.batch_norm")
    assert [v.type.dtype for v in norm.operands] == [torch.float16] + [torch.float32] * 4
    assert norm.result.type.dtype is torch.float16


# --------------------------------------------------------------------------- what means its dtype


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("aten.softmax.int(%x, -1, dtype=f32)", "it states its dtype"),
        ("aten.bernoulli(%x)", "it draws random numbers, which depend on the dtype"),
        ("aten.mul.Tensor(%x, 1e10)", "1e+10 is beyond the dtype"),
        ("aten.tan(%x)", "small errors grow in it"),
        ("aten.bessel(%x)", "the table of precisions does not list it"),
    ],
)
def test_why_a_node_stays(line, reason):
    line = line.replace("aten.bessel", "aten.special_bessel_j0")
    g = graph(f"%y = {line} : f32[4, 4]\nreturn %y : f32[4, 4]")
    report = lowered(g)
    assert [(node.dtype, node.reason) for node in report.kept] == [("f32", reason)]


def test_wider_numbers_stay():
    g = graph("%y = aten.relu(%x) : f64[4, 4]\nreturn %y : f64[4, 4]", "%x: f64[4, 4]")
    (kept,) = lowered(g).kept
    assert (kept.dtype, kept.reason) == ("f64", "it computes in float64")


def test_what_a_program_computes_in_f32_next_to_16_bits_stays():
    body = """
        %h = aten._to_copy(%x, dtype=f32) : f32[4, 4]
        %s = aten.mul.Tensor(%h, %h) : f32[4, 4]
        %l = rw.linear(%s, @w) : f32[4, 4]
        %n = aten._to_copy(%l, dtype=f16) : f16[4, 4]
        %y = aten.relu(%n) : f16[4, 4]
        return %y : f16[4, 4]
    """
    g = graph(body, "%x: f16[4, 4]", "@w : f32[4, 4]")
    report = lowered(g, "bf16")
    assert dtypes(g, "rw.linear") == {torch.float32}
    assert dtypes(g, "aten.relu") == {torch.bfloat16}
    assert "the program computes it in f32, next to 16 bits" in {n.reason for n in report.kept}


# --------------------------------------------------------------------------- the user's words


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x):
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(Block(), Block()), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x)).softmax(-1)


@pytest.fixture
def net():
    return Net().eval()


X = torch.randn(3, 8)


def test_modules_and_ops_stay_in_full_precision(net):
    program = rewright.compile(
        net,
        (X,),
        precision="bf16",
        full_precision_modules=["body.0", "head"],
        full_precision_ops=["aten.gelu"],
    )
    reasons = {
        (node.where.module.rpartition(".")[0] or node.where.module, node.reason)
        for node in program.precision.kept
        if "linear" in node.op
    }
    assert reasons == {
        ("body.0", "full_precision_modules has 'body.0'"),
        ("head", "full_precision_modules has 'head'"),
    }
    gelus = [node for node in program.precision.nodes if node.op == "aten.gelu"]
    assert {node.dtype for node in gelus} == {"f32"}
    with torch.no_grad():
        torch.testing.assert_close(program(X), net(X), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "'fp8' is not a legal value of the setting 'precision'"),
        ({"precision": True}, "True is not a legal value"),
        ({"full_precision_ops": ["aten.gelu"]}, "full_precision_ops is given, but precision is"),
        ({"precision": "fp32", "full_precision_modules": ["a"]}, "full_precision_modules is given"),
        ({"precision": "fp16", "full_precision_ops": "aten.gelu"}, "not a legal value"),
        ({"precision": "fp16", "pipeline": "precision{to=bf16}"}, "a pipeline with that pass"),
    ],
)
def test_bad_settings_are_refused(net, options, message):
    with pytest.raises(SettingsError, match=message):
        rewright.compile(net, (X,), **options)


def test_bad_options_are_refused(net):
    with pytest.raises(PassError, match="can't lower to 'fp17'") as caught:
        Precision("fp17")
    assert "fp16" in caught.value.hint
    with pytest.raises(PassError, match=r"full_precision_ops has 'aten\.gelo'"):
        rewright.compile(net, (X,), precision="fp16", full_precision_ops=["aten.gelo"])


# --------------------------------------------------------------------------- compiles


@pytest.mark.parametrize("to", ["fp16", "bf16"])
@pytest.mark.parametrize("level", [0, 2])
def test_ahead_of_time(net, to, level):
    before = rewright.stats()
    program = rewright.compile(net, (X,), precision=to, optimization_level=level)
    with torch.no_grad():
        expected, found = net(X), program(X)
        assert found.dtype == expected.dtype and found.stride() == expected.stride()
        assert 0 < relative_error([found], [expected]) < TOLERANCE[to]
        net.head.weight.mul_(0.5)
        program.refit()
        assert relative_error([program(X)], [net(X)]) < TOLERANCE[to]
    assert program.precision.weights == 10
    done = rewright.stats() - before
    assert done.fallbacks == 0 and done.nodes > 0


def test_just_in_time(net):
    compiled = torch.compile(
        net, backend="rewright", options={"precision": "fp16", "on_error": "raise"}
    )
    before = rewright.stats()
    with torch.no_grad():
        assert 0 < relative_error([compiled(X)], [net(X)]) < TOLERANCE["fp16"]
        net.head.weight.mul_(0.5)
        assert relative_error([compiled(X)], [net(X)]) < TOLERANCE["fp16"]
    done = rewright.stats() - before
    assert done.fallbacks == 0 and done.nodes > 0


def test_a_program_of_16_bits_in_f32(net):
    exact = net(X.half().float())
    half = Net().eval()
    half.load_state_dict(net.state_dict())
    half = half.half()
    program = rewright.compile(half, (X.half(),), precision="fp32")
    assert {node.dtype for node in program.precision.nodes} <= {"f32", "cast", "-"}
    with torch.no_grad():
        found = program(X.half())
        assert found.dtype is torch.float16
        weights = {n: p.half().float() for n, p in net.state_dict().items()}
        net.load_state_dict(weights)
        torch.testing.assert_close(found, net(X.half().float()).half(), rtol=1e-3, atol=0)
    assert exact.shape == found.shape


def test_buffers_that_are_written_keep_their_dtype():
    class Counter16(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(8, 8)
            self.register_buffer("last", torch.zeros(3, 8))

        def forward(self, x):
            y = self.lin(x) + self.last
            self.last.copy_(y)
            return y

    model, twin = Counter16(), Counter16()
    twin.load_state_dict(model.state_dict())
    program = rewright.compile(model, (X,), precision="fp16")
    with torch.no_grad():
        for _ in range(2):
            assert relative_error([program(X)], [twin(X)]) < TOLERANCE["fp16"]
    assert model.last.dtype is torch.float32
    assert relative_error([model.last], [twin.last]) < TOLERANCE["fp16"]


def test_numbers_may_move_while_they_are_watched(net):
    program = rewright.compile(net, (X,), precision="bf16", numerics=True)
    assert program.precision.totals["bf16"] > 0


# --------------------------------------------------------------------------- masks


@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min, -1e9])
@pytest.mark.parametrize("to", ["fp16", "bf16"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_additive_masks(lowest, to, by_hand):
    class Attention(nn.Module):
        def forward(self, x, mask):
            if by_hand:
                return (x @ x.mT * 0.25 + mask).softmax(-1) @ x
            return nn.functional.scaled_dot_product_attention(x, x, x, mask)

    x = torch.randn(2, 2, 6, 16)
    mask = torch.zeros(6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), lowest)
    if lowest != -torch.inf:
        mask[2] = lowest  # a query that sees nothing sees all alike: in f16, by its scores
    program = rewright.compile(Attention(), (x, mask), precision=to)
    found, expected = program(x, mask), Attention()(x, mask)
    assert found.isfinite().all()
    sees = torch.arange(6) != 2 if to == "fp16" else torch.arange(6) >= 0
    assert relative_error([found[..., sees, :]], [expected[..., sees, :]]) < TOLERANCE[to]


def test_a_mask_among_the_buffers_is_cut_off_beforehand():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            lowest = torch.finfo(torch.float32).min
            self.register_buffer("bias", torch.full((4, 4), lowest).triu(1))

        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x, self.bias)

    x = torch.randn(1, 1, 4, 8)
    program = rewright.compile(Masked(), (x,), precision="fp16")
    assert not any("clamp" in node.op.name for node in program.graph)
    assert relative_error([program(x)], [Masked()(x)]) < TOLERANCE["fp16"]


# --------------------------------------------------------------------------- the report


def test_the_report_counts_every_node_once(net):
    program = rewright.compile(net, (X,), precision="fp16")
    report = program.precision
    assert sum(report.totals.values()) == len(report.nodes)
    plain = report.to_json()
    assert plain["totals"] == report.totals and len(plain["nodes"]) == len(report.nodes)
    text = str(report)
    assert f"precision fp16, {len(report.nodes)} nodes: " in text
    assert "a softmax adds exponentials" in text
    assert rewright.compile(net, (X,)).precision is None


# --------------------------------------------------------------------------- whatever the graph


@pytest.mark.parametrize("to", ["fp16", "bf16", "fp32"])
@settings(max_examples=15, deadline=None, suppress_health_check=[*HealthCheck])
@given(case=cases())
def test_types_at_the_boundary_stay(to: str, case: Case):
    g = case.graph.copy()
    report = lowered(g, to)
    assert len(report.nodes) == len(g) == sum(report.totals.values())
    assert [v.type for v in g.inputs] == [v.type for v in case.graph.inputs]
    assert [v.type for v in g.outputs] == [v.type for v in case.graph.outputs]
    for node in g:
        for value in node.operands:
            made = value.producer
            if made is not None and made.op is node.op and node.op.name == "aten._to_copy":
                assert node.attributes != made.attributes, "a pair of casts"
    try:
        expected = interpret(case.graph, case.inputs[0])
    except (NotImplementedError, RuntimeError, IndexError):  # types say less than kernels do
        reject()
    found = interpret(g, case.inputs[0])
    for old, new in zip(expected.outputs, found.outputs, strict=True):
        if isinstance(old, torch.Tensor):
            assert (old.dtype, old.shape) == (new.dtype, new.shape)


# --------------------------------------------------------------------------- models

QUICK = ("bert",)


def in_16_bits(name: str, to: str) -> None:
    """Compiles one model to 16 bits: as near to 32 bits as a tolerance, or as the cast model is.

    A mixture of experts may ask another expert than in 32 bits, and a similarity near zero loses
    its digits, in whatever way a model is cast.
    """
    entry = ENTRIES[name]
    if entry.upstream_failure:
        pytest.skip(entry.upstream_failure)
    model, dtype = entry.build(), {"fp16": torch.float16, "bf16": torch.bfloat16}[to]
    program = rewright.compile_exported(entry.export(True), precision=to)
    assert program.precision.totals[{"fp16": "f16", "bf16": "bf16"}[to]] > 10
    calls = [entry.inputs(**sizes) for sizes in check_sizes(entry, True)]
    errors = []
    with torch.no_grad():
        expected = [tensors(model(*args, **kwargs)) for args, kwargs in calls]
        for wanted, (args, kwargs) in zip(expected, calls, strict=True):
            found = tensors(program(*args, **kwargs))
            assert [item.dtype for item in found] == [item.dtype for item in wanted]
            errors.append(relative_error(found, wanted))
        if max(errors) >= TOLERANCE[to]:
            model.to(dtype)
            low = [tensors(model(*cast(a, dtype), **cast(k, dtype))) for a, k in calls]
            low = [cast(found, torch.float32) for found in low]
            assert max(errors) < 1.25 * max(map(relative_error, low, expected)), name


def cast(tree: Any, dtype: torch.dtype) -> Any:
    """`tree` with all floating tensors of `dtype`."""
    return tree_map_only(
        torch.Tensor, lambda item: item.to(dtype) if item.is_floating_point() else item, tree
    )


@pytest.mark.parametrize("name", QUICK)
def test_models(name):
    in_16_bits(name, "fp16")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ENTRIES)
def test_all_models(name, to):
    in_16_bits(name, to)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rewright.errors.FallbackWarning")
def test_an_engine_in_16_bits():
    pytest.importorskip("tensorrt_rtx")
    entry = ENTRIES["bert"]
    program = rewright.compile_exported(
        entry.export(True), target="rtx", precision="fp16", require_full_compilation=True
    )
    args, kwargs = entry.inputs(**check_sizes(entry, True)[0])
    with torch.no_grad():
        expected = tensors(entry.build()(*args, **kwargs))
        found = tensors(evaluate(program, *args, **kwargs))
    assert len(program.segments) == 1
    assert [item.dtype for item in found] == [item.dtype for item in expected]
    assert 0 < relative_error(found, expected) < TOLERANCE["fp16"]
