"""Programs with engines: what is built, what stays in Torch and why, and what runs where."""

import logging
from functools import partial

import pytest
import torch
from torch import nn

import rewright
from rewright import targets
from rewright.errors import EngineError, FallbackWarning, PassError, SettingsError
from rewright.ir.segments import segments_of
from rewright.settings import Settings
from rewright.targets import resolved, target_of
from rewright.testing import evaluate

pytest.importorskip("tensorrt_rtx")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        h = torch.relu(self.up(x))
        return self.norm(x + self.down(h)), h.sum(-1)


X = torch.linspace(-2, 2, 32).reshape(4, 8)
BATCH = torch.export.Dim("batch", min=1, max=16)


@pytest.fixture
def net():
    return Net().eval()


def compiled(net, x=X, **settings):
    with (
        pytest.warns(FallbackWarning, match="no CUDA device")
        if not torch.cuda.is_available()
        else _no()
    ):
        return rewright.compile(net, (x,), **({"target": "rtx"} | settings))


def _no():
    from contextlib import nullcontext

    return nullcontext()


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_program_is_one_engine_and_computes_the_same(net):
    program = compiled(net, dynamic_shapes=({0: BATCH},))
    assert len(program.segments) == 1 and program.partition.left == ()
    assert program.segments[0].engine.data
    for size in (1, 4, 16):
        x = torch.randn(size, 8)
        same(evaluate(program, x), net(x))
        same(program(x), net(x))
    assert "engine     tensorrt_0" in program.report()


def test_the_rest_stays_in_torch_for_a_reason(net):
    program = compiled(net, torch_executed_ops=["aten.relu"], min_block_size=1)
    assert [left.op for left in program.partition.left] == ["aten.relu"]
    assert len(program.segments) == 2
    same(evaluate(program, X), net(X))
    same(program(X), net(X))
    assert "torch_executed_ops has 'aten.relu'" in program.report()


def test_modules_stay_in_torch(net):
    program = compiled(net, torch_executed_modules=["down"], min_block_size=1)
    assert {left.where.module for left in program.partition.left} == {"down"}


def test_small_parts_are_given_back(net):
    program = rewright.compile(net, (X,), target="rtx", min_block_size=100)
    assert not program.segments and "min_block_size is 100" in program.report()


def test_full_compilation_is_insisted_on(net):
    with pytest.raises(PassError, match=r"(?s)would stay in Torch.*aten\.relu") as caught:
        rewright.compile(
            net, (X,), target="rtx", torch_executed_ops=["aten.relu"], require_full_compilation=True
        )
    assert "require_full_compilation" in caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="an engine may run here")
def test_an_engine_that_must_run(net):
    with pytest.raises(EngineError, match="no CUDA device"):
        rewright.compile(net, (X,), target="rtx", on_engine_error="raise")


def test_writes_and_aliases_stay_at_the_boundary():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", torch.zeros(8))

        def forward(self, x):
            y = torch.tanh(x) * 2 + x.sin()
            self.total.add_(y.sum(0))
            return y, x

    eager, net = Counter().eval(), Counter().eval()
    program = compiled(net)
    for run in (program, partial(evaluate, program), program):
        same(run(X), eager(X))
        same(net.total, eager.total)
    (segment,) = program.segments
    assert segment.constant_names == (), "an engine would hold the numbers of its build"


def test_just_in_time_each_set_of_parameters_has_its_engine(net):
    options = {"target": "rtx", "on_error": "raise"}
    other = Net().eval()
    fast = torch.compile(Net.forward, backend="rewright", options=options)
    with torch.no_grad():
        with pytest.warns(FallbackWarning):
            first = fast(net, X)
        same(first, net(X))
        same(fast(other, X), other(X))
        net.up.weight.mul_(2)
        same(fast(net, X), net(X))
    assert rewright.stats().specializations >= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "rtx:8"}, "not a legal value"),
        ({"target": "rtx:1.0"}, "can't build for compute capability 1.0"),
        ({"min_block_size": 4}, "runs all in Torch"),
        ({"target": "rtx", "min_block_size": 0}, "not a legal value"),
        ({"target": "rtx", "torch_executed_ops": "aten.relu"}, "not a legal value"),
        ({"target": "rtx", "engine_timing_cache": "times"}, "no timing cache"),
        ({"target": "rtx", "engine_version_compatible": True}, "for other versions"),
        ({"target": "rtx", "engine_hardware_compatible": "ampere+"}, "hardware compatibility"),
        ({"target": "rtx", "engine_hardware_compatible": "pascal+"}, "not a legal value"),
        ({"target": "rtx", "engine_weight_budget": -1}, "not a legal value"),
        ({"target": "rtx", "engine_workspace": 0}, "not a legal value"),
        ({"target": "rtx", "engine_timing_cache": 3}, "not a legal value"),
        ({"engine_refit": True}, "runs all in Torch"),
        ({"target": "rtx", "min_block_size": 2, "pipeline": "partition"}, "partition of its own"),
    ],
    ids=str,
)
def test_settings_that_can_not_be(net, settings, message):
    with pytest.raises(SettingsError, match=message):
        rewright.compile(net, (X,), **settings)


def test_an_engine_that_was_built_is_found_again(net, tmp_path, monkeypatch):
    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "1GiB")
    first = compiled(net)
    assert (rewright.stats().cache_hits, rewright.stats().cache_misses) == (0, 1)
    again = compiled(net)
    assert (rewright.stats().cache_hits, rewright.stats().cache_misses) == (1, 1)
    assert again.segments[0].engine.data == first.segments[0].engine.data
    compiled(Net().eval())  # other weights
    assert rewright.stats().cache_misses == 2


def _missing(flavor):
    raise EngineError("tensorrt_rtx is not installed", hint="pip install 'tensorrt-rtx>=1.5'")


def test_a_library_that_is_missing_is_an_error(net, monkeypatch):
    """A target that names it is no wish: nothing runs in Torch instead, unless that was asked."""
    monkeypatch.setattr("rewright.backends.tensorrt.library.load", _missing)
    with pytest.raises(EngineError, match="not installed") as caught:
        rewright.compile(net, (X,), target="rtx")
    assert "pip install" in caught.value.hint
    fast = torch.compile(net, backend="rewright", options={"target": "rtx", "on_error": "eager"})
    with torch.no_grad(), pytest.warns(FallbackWarning, match="not installed"):
        found = fast(X)
    same(found, net(X))


def test_settings_reach_the_build(net):
    program = compiled(
        net, target="rtx:8.9", engine_weight_budget=0, engine_workspace=1 << 30,
        engine_optimization_level=1,
    )  # fmt: skip
    (segment,) = program.segments
    assert segment.options.weight_streaming and segment.options.capabilities == ((8, 9),)
    assert (segment.options.workspace, segment.options.optimization_level) == (1 << 30, 1)
    assert segment.load.keywords == {"budget": 0}


# --------------------------------------------------------------------------- beside Inductor


class Mixed(nn.Module):
    """Parts for both: a convolution whose weight is no dense tensor, a buffer that is written."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.conv.weight = nn.Parameter(self.conv.weight.to(memory_format=torch.channels_last))
        self.out = nn.Linear(8, 4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        h = torch.erf(self.conv(x)).mean((2, 3))
        y = torch.softmax(self.out(torch.sinh(h) * x.shape[0]), -1)
        self.seen.add_(y.sum(0))
        return y, y.argmax(-1), h.t()


MANY = ["aten.sinh", "rw.conv*", "aten.conv*"]


@pytest.mark.parametrize(
    "apart", [["aten.erf"], pytest.param(MANY, marks=pytest.mark.slow)], ids=["one", "many"]
)
def test_the_rest_is_compiled_by_inductor(apart):
    net, eager = Mixed().eval(), Mixed().eval()
    eager.load_state_dict(net.state_dict())
    program = compiled(
        net, torch.randn(2, 3, 6, 6), torch_backend="inductor", torch_executed_ops=apart,
        min_block_size=1, dynamic_shapes=({0: BATCH},),
    )  # fmt: skip
    backends = [node.attributes["backend"] for node in segments_of(program.graph)]
    assert {*backends} == {"tensorrt", "inductor"}
    assert len(program.segments) == backends.count("tensorrt")
    assert {left.op for left in program.partition.left}, "what Inductor runs is left out of engines"
    for run in (program, partial(evaluate, program)):
        for size in (2, 16):
            x = torch.randn(size, 3, 6, 6)
            same(run(x), eager(x))
            same(net.seen, eager.seen)


def test_inductor_may_have_all_of_it(net):
    """Where no engine is worth it."""
    program = rewright.compile(
        net, (X,), target="rtx", torch_backend="inductor", min_block_size=100
    )
    assert not program.segments
    same(program(X), net(X))


def test_inductor_beside_engines_just_in_time(net):
    options = {
        "target": "rtx", "torch_backend": "inductor", "torch_executed_ops": ["aten.relu"],
        "min_block_size": 1, "on_error": "raise",
    }  # fmt: skip
    fast = torch.compile(Net.forward, backend="rewright", options=options)
    with torch.no_grad():
        with pytest.warns(FallbackWarning):
            first = fast(net, X)
        same(first, net(X))
        other = Net().eval()
        same(fast(other, X), other(X))


@pytest.mark.parametrize("target", ["auto", "cpu", "rtx"])
def test_one_line_of_the_log_says_what_was_chosen(target, caplog):
    with caplog.at_level(logging.INFO, "rewright.tensorrt"):
        target_of(resolved(Settings(target=target), "cpu"))
    (line,) = caplog.messages
    assert line.startswith(f"target {target!r}")
    assert ("no TensorRT" in line) is (target != "rtx")


@pytest.mark.parametrize(
    ("target", "gpu", "found", "why"),
    [
        ("auto", (8, 9), "rtx:8.9", "it supports 8.9"),
        ("auto", (9, 0), "auto", "not 9.0; tensorrt is not installed"),
        ("auto", None, "auto", "no TensorRT"),
        ("cuda", (8, 9), "cuda", "no TensorRT"),
        ("rtx", (8, 9), "rtx", "the target names it"),
    ],
)
def test_auto_follows_the_gpu(target, gpu, found, why, caplog, monkeypatch):
    monkeypatch.setattr(targets, "_capability", lambda device: gpu)
    with caplog.at_level(logging.INFO, "rewright.tensorrt"):
        made = resolved(Settings(target=target), "cuda:0")
    assert made.target == found
    (line,) = caplog.messages
    assert why in line


def test_settings_about_engines_need_engines(monkeypatch):
    given = Settings(target="auto", min_block_size=4)
    monkeypatch.setattr(targets, "_capability", lambda device: (8, 9))
    assert resolved(given, "cuda:0").min_block_size == 4
    monkeypatch.setattr(targets, "_capability", lambda device: (9, 0))
    with pytest.raises(SettingsError, match="the target 'auto' runs all in Torch"):
        resolved(given, "cuda:0")
    with pytest.raises(SettingsError, match="the target 'cuda' runs all in Torch"):
        Settings(target="cuda", min_block_size=4)


@pytest.mark.parametrize(
    ("setting", "others"),
    [
        ("torch_executed_modules", {"target": "rtx"}),
        ("full_precision_modules", {"target": "cpu", "precision": "bf16"}),
    ],
)
@pytest.mark.filterwarnings("ignore::rewright.errors.FallbackWarning")
def test_a_module_that_is_not_there_is_warned_of(setting, others, net, caplog):
    """By one text, for each setting that names modules: ahead of time and just in time."""
    given = {setting: ["dwon", "up"], **others}
    rewright.compile(net, (X,), **given)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(net, backend="rewright", options=given)(X)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    text = f"{setting} has 'dwon', and no module in @main is called so: did you mean 'down'?"
    assert lines == [text, text]
