"""Dtypes that engines have not: f64 above all, which positions and frequencies are computed in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rewright
from rewright.errors import PassError, SettingsError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from rewright.ir.segments import segments_of
from rewright.ir.types import TensorType
from rewright.ir.verifier import verify
from rewright.passes import Pipeline
from rewright.passes.compiling import pipeline_of
from rewright.settings import Settings
from rewright.testing import evaluate
from tests.backends.tensorrt.checking import refusals, rtx

pytestmark = pytest.mark.filterwarnings("ignore::rewright.errors.FallbackWarning")


class Rotary(torch.nn.Module):
    """Rotation by angles that are computed in f64 and cast down, as image transformers do.

    Args:
        counted: whether positions are counted here; else they are given.
    """

    def __init__(self, counted: bool) -> None:
        super().__init__()
        self.counted = counted
        self.project = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if self.counted:
            positions = torch.arange(x.shape[1])
        frequencies = 1.0 / 10000.0 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8)
        angles = torch.einsum("n,d->nd", positions.double(), frequencies)
        cos, sin = angles.cos().float(), angles.sin().float()
        a, b = self.project(x).chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


X, POSITIONS = torch.randn(2, 5, 8), torch.arange(5.0) + 1000


def _compile(model: torch.nn.Module, *args: Any, **settings: Any) -> rewright.CompiledProgram:
    pytest.importorskip("tensorrt_rtx")
    return rewright.compile(model.eval(), args, target="rtx", min_block_size=1, **settings)


@torch.no_grad()
def test_constants_are_computed_in_f64_and_nothing_of_it_is_left() -> None:
    model = Rotary(counted=True)
    program = _compile(model, X, POSITIONS, require_full_compilation=True)
    assert [node.op.name for node in program.graph] == ["rw.segment"]
    torch.testing.assert_close(evaluate(program, X, POSITIONS), model(X, POSITIONS))


@torch.no_grad()
def test_the_rest_stays_in_torch_and_the_reason_names_the_setting() -> None:
    model = Rotary(counted=False)
    program = _compile(model, X, POSITIONS)
    assert len([*segments_of(program.graph)]) >= 1
    assert "truncate_double=True" in str(program.report())
    torch.testing.assert_close(evaluate(program, X, POSITIONS), model(X, POSITIONS))


@torch.no_grad()
def test_truncate_double_makes_one_engine() -> None:
    model = Rotary(counted=False)
    program = _compile(model, X, POSITIONS, truncate_double=True, require_full_compilation=True)
    assert len([*segments_of(program.graph)]) == 1
    # angles of about 1000 in f32 are off by 6e-5
    torch.testing.assert_close(
        evaluate(program, X, POSITIONS), model(X, POSITIONS), rtol=1e-3, atol=1e-3
    )


class Doubled(torch.nn.Module):
    """Takes f64, gives f64, writes f64; a linear waits for none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros(4, 8, dtype=torch.float64))

    def forward(self, x: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        turned = torch.sin(p * 2 + 1)
        self.seen.add_(turned)
        return torch.relu(self.project(x)) * turned.float(), turned * 3


@torch.no_grad()
def test_casts_where_a_program_begins_and_ends_are_no_part_of_it() -> None:
    args = torch.randn(4, 8), torch.randn(4, 8, dtype=torch.float64)
    model = Doubled().eval()
    expected = model(*args)
    model.seen.zero_()
    program = _compile(model, *args, truncate_double=True, require_full_compilation=True)
    assert program.partition is not None
    assert len(program.partition.segments) == 1  # no engine for what does not wait for the cast
    left = program.partition.left
    assert [item.is_boundary for item in left] == [True] * 4
    assert sorted(item.reason for item in left) == [
        "%p is f64, and engines have none: it is cast where the program begins",
        "@seen is f64, and engines have none: it is cast where the program begins",
        "the result is f64, and engines have none: it is cast where the program ends",
        "the result is f64, and engines have none: it is cast where the program ends",
    ]
    assert all(item.where and "test_doubles.py" in item.where.file for item in left)
    assert "truncate_double=True" not in str(program.report())
    torch.testing.assert_close(evaluate(program, *args), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_else_stays_fails_full_compilation_still() -> None:
    model, args = Rotary(counted=False), (X, POSITIONS.double())
    with pytest.raises(PassError, match="truncate_double=True"):
        _compile(model, *args, require_full_compilation=True)
    with pytest.raises(PassError, match="torch_executed_ops has"):
        _compile(
            model, *args, require_full_compilation=True, truncate_double=True,
            torch_executed_ops=["aten._to_copy"],
        )  # fmt: skip


class Picks(torch.nn.Module):
    """Where what was computed in f64 is not zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(torch.relu(x.double() - 1)) * 2


@torch.no_grad()
def test_ops_that_mean_f64_say_so_with_the_setting_on() -> None:
    program = _compile(Picks(), X, truncate_double=True)
    report = program.report()
    assert "truncate_double=True" not in report
    assert "engines have no f64, and it is part of what aten.nonzero does" in report


def test_inputs_and_outputs_keep_their_dtypes() -> None:
    graph = parse_graph("""
        graph @main(%x: f64[4], %y: f32[4]) -> (f64[4], bool[4]) {
          %a = aten.mul.Tensor(%x, %y) : f64[4]
          %b = aten.exp(%a) : f64[4]
          %c = aten.gt.Scalar(%b, 1.0) : bool[4]
          return %b, %c
        }
    """)
    args = [torch.randn(4, dtype=torch.float64), torch.randn(4)]
    expected = interpret(graph, args).outputs
    run = Pipeline.parse("truncate-double,canonicalize,dce").run(graph)
    verify(graph)
    assert run.reports["truncate-double"] == 3
    kinds = {node.op.name: node.result.type.dtype for node in graph}  # type: ignore[union-attr]
    assert kinds["aten.mul.Tensor"] == kinds["aten.exp"] == torch.float32
    made = interpret(graph, args).outputs
    assert made[0].dtype is torch.float64
    torch.testing.assert_close(made[0], expected[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(made[1], expected[1])


def test_bits_stay_as_they_are() -> None:
    graph = parse_graph("""
        graph @main(%x: f64[4]) -> i64[4] {
          %a = aten.neg(%x) : f64[4]
          %b = aten.view.dtype(%a, i64) : i64[4]
          return %b
        }
    """)
    x = torch.randn(4, dtype=torch.float64)
    Pipeline.parse("truncate-double,dce").run(graph)
    verify(graph)
    made = interpret(graph, [x]).outputs[0]
    assert torch.equal(made.view(torch.float64), (-x.float()).double())


def test_the_pass_goes_before_ops_are_taken_apart() -> None:
    names = [
        step.name
        for step in pipeline_of(Settings(target="rtx", truncate_double=True), ["tensorrt"]).passes()
    ]
    assert names.index("fold-constants") < names.index("truncate-double")
    assert names.index("truncate-double") + 1 == names.index("decompose")


def test_the_setting_needs_engines() -> None:
    with pytest.raises(SettingsError, match="truncate_double"):
        Settings(target="cuda", truncate_double=True)


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (torch.float64, "truncate_double=True"),
        (torch.int16, "TensorRT has no i16"),
        (torch.complex64, "TensorRT has no c64"),
        (torch.uint8, "TensorRT has no u8"),
        (torch.uint16, "TensorRT has no u16"),
    ],
    ids=str,
)
def test_other_dtypes_are_refused_by_name(dtype: torch.dtype, reason: str) -> None:
    graph = Graph("main")
    x = graph.add_input(TensorType(dtype, (3,)), "x")
    graph.set_outputs([Builder(graph).call("aten.reshape", x, (3, 1))])
    (found,) = refusals(graph, rtx())
    assert reason in found
