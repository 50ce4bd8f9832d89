"""What partitioning is told, just in time: it does what it says, and shows in stats and reports."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import rewright
from rewright import compiler
from rewright.errors import EngineError, FallbackWarning
from rewright.program import CompiledProgram
from rewright.testing import evaluate
from tests.frontends.jit import jit

pytest.importorskip("tensorrt_rtx")

X = torch.linspace(-2, 2, 32).reshape(4, 8)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CompiledProgram]]:
    """The programs that are compiled."""
    made: list[CompiledProgram] = []
    original = compiler.compile_graph

    def spy(*args, **keywords):
        made.append(original(*args, **keywords))
        return made[-1]

    monkeypatch.setattr(compiler, "compile_graph", spy)
    torch.compiler.reset()
    return made


def run(programs: list[CompiledProgram], **options: object) -> CompiledProgram:
    """The program of a net that is run just in time; its numbers are eager's."""
    torch.manual_seed(0)
    model = Net().eval()
    before = rewright.stats()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # no engine runs here, without a GPU
        found = jit(model, options={"target": "rtx", **options})(X)
        torch.testing.assert_close(found, model(X), rtol=1e-5, atol=1e-5)
    (program,) = programs
    done = rewright.stats() - before
    assert (done.graphs, done.segments) == (1, max(len(program.segments), 1))
    assert done.nodes > 0
    assert all(segment.engine.data for segment in program.segments), "engines are built"
    assert str(program.report()).count("  engine  ") == len(program.segments)
    return program


def stays(program: CompiledProgram) -> list[str]:
    """The ops that Torch runs itself, in order."""
    return [node.op.name for node in program.graph if node.op.name != "rw.segment"]


def test_all_of_it_is_one_engine(programs):
    program = run(programs)
    assert len(program.segments) == 1
    assert stays(program) == []
    assert program.partition.left == ()


@pytest.mark.parametrize(("size", "segments"), [(1, 1), (15, 1), (16, 0)])
def test_the_least_size_of_a_segment(programs, size: int, segments: int):
    program = run(programs, min_block_size=size)
    assert len(program.segments) == segments
    assert len(stays(program)) == (0 if segments else 15)
    if not segments:
        assert "min_block_size" in str(program.report())


def test_small_segments_are_given_back(programs):
    """A stretch between two ops that stay is one op long."""
    program = run(programs, torch_executed_ops=("aten.tanh", "rw.layer_norm"), min_block_size=3)
    apart = run_again(programs, torch_executed_ops=("aten.tanh", "rw.layer_norm"), min_block_size=1)
    assert len(program.segments) < len(apart.segments)
    assert len(stays(program)) > len(stays(apart))


def run_again(programs: list[CompiledProgram], **options: object) -> CompiledProgram:
    """Another program, with other options."""
    programs.clear()
    torch.compiler.reset()
    return run(programs, **options)


def test_ops_that_torch_runs(programs):
    program = run(programs, torch_executed_ops=("aten.tanh",), min_block_size=1)
    assert stays(program) == ["aten.tanh"] * 3
    assert len(program.segments) == 4
    assert [left.op for left in program.partition.left] == ["aten.tanh"] * 3
    assert "torch_executed_ops" in str(program.report())


def test_modules_that_torch_runs(programs):
    program = run(programs, torch_executed_modules=("layers.1",), min_block_size=1)
    assert len(program.segments) == 2
    assert len(stays(program)) == 5
    assert "torch_executed_modules" in str(program.report())
    inner = run_again(programs, torch_executed_modules=("layers.*.norm",), min_block_size=1)
    assert stays(inner) == ["rw.layer_norm"] * 3
    none = run_again(programs, torch_executed_modules=("layers.7",))
    assert stays(none) == []


REFUSED = "rtx:7.5"
"""A target for which TensorRT refuses products in f32, as it builds."""


def test_a_graph_whose_engine_cant_be_built_runs_in_eager_mode():
    """Engines wait for parameters, so that this shows in a call and not in the compile."""
    torch.compiler.reset()
    model = Net().eval()
    before = rewright.stats()
    compiled = jit(model, options={"target": REFUSED, "on_error": "eager"})
    with torch.no_grad():
        with pytest.warns(FallbackWarning, match="eager mode, because it failed.*FP32 GEMM"):
            torch.testing.assert_close(compiled(X), model(X))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.testing.assert_close(compiled(X + 1), model(X + 1))
    done = rewright.stats() - before
    assert done.fallbacks == 1
    assert "FP32 GEMM" in done.fallback_reasons[-1]


@pytest.mark.parametrize("options", [{"on_error": "raise"}, {"on_engine_error": "raise"}])
@pytest.mark.parametrize("model", [Net().eval(), lambda x: (x @ x.mT).relu().exp()])
def test_an_engine_that_cant_be_built_is_an_error_where_that_is_wanted(model, options):
    torch.compiler.reset()
    compiled = jit(model, options={"on_error": "eager", "target": REFUSED, **options})
    with torch.no_grad(), pytest.raises(EngineError, match="FP32 GEMM"):
        compiled(X)


@torch.no_grad()
def test_a_float_that_varies_is_an_input_of_the_engine(programs):
    def function(x, scale):
        return (x * scale + 1).relu().exp() * scale

    compiled = jit(function, options={"target": "rtx"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # no engine runs here, without a GPU
        for scale in (2.5, 0.5, 0.25):
            torch.testing.assert_close(compiled(X, scale), function(X, scale))
    program = programs[-1]
    assert [len(program.segments), *stays(program)] == [1, "rw.scalar"]  # the number itself
    (made,) = evaluate(program, X, 0.75)
    torch.testing.assert_close(made, function(X, 0.75))


@torch.no_grad()
def test_an_integer_without_an_end_stays_and_the_reason_says_what_to_do(programs):
    def function(x, times):
        return (x * times + 1).relu().exp().tanh()

    compiled = jit(function, options={"target": "rtx"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        for times in (2, 3, 5):
            torch.testing.assert_close(compiled(X, times), function(X, times))
    program = programs[-1]
    assert len(program.segments) == 1
    assert "torch._check(size <= max)" in program.partition.left[0].reason
