"""Passes under a compile: settings, environment, both ways in, logging."""

import json

import pytest
import torch
from torch import nn

import rewright
from rewright.errors import ParseError, PassError, SettingsError
from rewright.passes import registry
from rewright.passes.compiling import NOTHING, Watch, pipeline_of
from rewright.passes.instruments import bisect
from rewright.passes.manager import Pipeline
from rewright.passes.pipelines import TEXTS
from rewright.passes.registry import get_pass, register_pass
from rewright.settings import Settings
from tests.passes import planted


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """Passes of the tests are known, variables are not set, nothing is compiled."""
    get_pass("dce")
    monkeypatch.setattr(registry, "_passes", {**registry._passes})
    register_pass(planted.PlantedUnary)
    register_pass(planted.PlantedCrash)
    for name in ("DUMP", "NUMERICS", "REPRODUCER", "VERIFY", "TIMING", "BISECT"):
        monkeypatch.delenv(f"REWRIGHT_{name}", raising=False)
    bisect.from_environment.cache_clear()
    torch.compiler.reset()


class Net(nn.Module):
    """Computes one thing twice, and another for nothing."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 4)

    def forward(self, ids):
        x = self.linear(self.table(ids))
        torch.tanh(x)
        return torch.relu(x) + torch.relu(x)


IDS = torch.tensor([[0, 4, 2]])


@pytest.fixture
def net():
    return Net().eval()


def compiled(net, **settings):
    return rewright.compile_exported(torch.export.export(net, (IDS,)), **settings)


def just_in_time(net, **options):
    options = {"on_error": "raise", **options}
    return torch.compile(net, backend="rewright", options=options)


def ops(program):
    return [node.op.name.removeprefix("aten.") for node in program.graph]


class TestPipeline:
    def test_the_default_one_runs(self, net):
        program = compiled(net)
        assert ops(program) == ["embedding", "rw.linear", "relu", "add.Tensor"]
        torch.testing.assert_close(program(IDS), net(IDS))

    def test_level_zero_leaves_the_graph(self, net):
        assert len(ops(compiled(net, optimization_level=0))) == 6

    @pytest.mark.parametrize("as_text", [True, False])
    def test_another(self, net, as_text):
        text = "default,planted-unary"
        pipeline = text if as_text else Pipeline.parse("cse,dce").append(planted.PlantedUnary())
        assert "leaky_relu" in ops(compiled(net, pipeline=pipeline))

    def test_just_in_time(self, net, tmp_path):
        options = {"pipeline": "planted-unary", "dump_ir": f"changed:{tmp_path}"}
        with torch.no_grad():
            just_in_time(net, **options)(IDS)
        assert "leaky_relu" in (tmp_path / "001-planted-unary.after.ir").read_text()

    def test_a_mistake_in_its_text(self, net):
        with pytest.raises(ParseError, match="there is no pass 'dse'"):
            compiled(net, pipeline="cse,dse")

    def test_something_else(self, net):
        with pytest.raises(SettingsError, match="is not a legal value of the setting 'pipeline'"):
            compiled(net, pipeline=3)

    @pytest.mark.parametrize("level", range(4))
    def test_the_target_chooses(self, level):
        settings = Settings(target="rtx", optimization_level=level, min_block_size=7)
        assert str(pipeline_of(settings)) == TEXTS["torch", level]
        ours, end = TEXTS["tensorrt", level], "partition{backends=[tensorrt],min_block_size=7}"
        first, moved = ours.removesuffix(",reinplace"), ",reinplace" if level else ""
        assert str(pipeline_of(settings, ["tensorrt"])) == f"{first},{end}{moved}"

    def test_exactness(self, net, monkeypatch):
        seen = []
        run = Pipeline.run

        def watched(*args, exactness, **others):
            seen.append(exactness)
            return run(*args, exactness=exactness, **others)

        monkeypatch.setattr(Pipeline, "run", watched)
        for word in ("exact", "refold", "fast-math"):
            compiled(net, exactness=word)
        assert [item.name for item in seen] == ["EXACT", "REFOLD", "FAST_MATH"]


class TestInstruments:
    def test_none_by_default(self):
        assert Watch.of(Settings(), {}) == NOTHING

    def test_settings_win_over_variables(self):
        watch = Watch.of(
            Settings(dump_ir="changed", numerics=1e-3),
            {"REWRIGHT_DUMP": "all:x", "REWRIGHT_NUMERICS": "1"},
        )
        assert watch.dump.what == "changed"
        assert watch.tolerance == 1e-3

    @pytest.mark.parametrize(
        ("variable", "value", "field", "expected"),
        [
            ("REWRIGHT_VERIFY", "1", "verify_each", True),
            ("REWRIGHT_VERIFY", "0", "verify_each", False),
            ("REWRIGHT_TIMING", "true", "timing", True),
            ("REWRIGHT_NUMERICS", "1", "numerics", True),
            ("REWRIGHT_NUMERICS", "0", "numerics", False),
            ("REWRIGHT_NUMERICS", "0.25", "tolerance", 0.25),
            ("REWRIGHT_REPRODUCER", "x", "reproduce", True),
        ],
    )
    def test_variables(self, variable, value, field, expected):
        assert getattr(Watch.of(Settings(), {variable: value}), field) == expected

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("REWRIGHT_VERIFY", "yes"),
            ("REWRIGHT_NUMERICS", "much"),
            ("REWRIGHT_BISECT", "half"),
            ("REWRIGHT_DUMP", "/tmp"),
        ],
    )
    def test_variables_that_make_no_sense(self, variable, value):
        with pytest.raises(SettingsError) as caught:
            Watch.of(Settings(), {variable: value})
        assert caught.value.setting == variable

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("dump_ir", ""),
            ("dump_ir", 3),
            ("verify_each", 1),
            ("numerics", -1.0),
            ("numerics", "1"),
            ("reproducer", 3),
            ("optimization_level", 4),
            ("optimization_level", True),
            ("exactness", "fast_math"),
        ],
    )
    def test_settings_that_make_no_sense(self, name, value):
        with pytest.raises(SettingsError) as caught:
            Settings(**{name: value})
        assert caught.value.setting == name

    def test_dump_by_the_environment(self, net, tmp_path, monkeypatch):
        monkeypatch.setenv("REWRIGHT_DUMP", f"all:{tmp_path}")
        compiled(net)
        with torch.no_grad():
            just_in_time(net)(IDS)
        assert json.loads((tmp_path / "manifest.json").read_text())["pipeline"] == TEXTS["torch", 2]
        assert (tmp_path / "graph-2" / "001-cse.before.ir").exists()

    def test_numerics_run_on_the_example_inputs(self, net, tmp_path):
        """Weights that make every number positive: then the wrong rule is right."""
        with torch.no_grad():
            net.linear.weight.zero_()
            net.linear.bias.fill_(1.0)
        compiled(net, pipeline="planted-unary", numerics=True)
        with torch.no_grad():
            net.linear.bias.fill_(-1.0)
        with pytest.raises(PassError, match="rule leaky-relu") as caught:
            compiled(net, pipeline="planted-unary", numerics=True, reproducer=tmp_path)
        assert caught.value.hint == "the graph was run on the example inputs"
        assert caught.value.where.startswith("tests/passes/test_compiling.py:")
        assert str(tmp_path) in caught.value.replay

    def test_numerics_just_in_time(self, net):
        with torch.no_grad():
            just_in_time(net, numerics=True)(IDS)
            torch.compiler.reset()
            with pytest.raises(PassError, match="rule leaky-relu"):
                just_in_time(net, numerics=True, pipeline="planted-unary")(IDS)

    def test_examples_out_of_range_are_not_used(self, caplog):
        class Double(nn.Module):
            def forward(self, x):
                return torch.relu(x) * 2

        size = torch.export.Dim("n", min=2, max=64)
        exported = torch.export.export(Double(), (torch.ones(32),), dynamic_shapes=({0: size},))
        with caplog.at_level("INFO", "rewright"):
            rewright.compile_exported(
                exported, [rewright.Input(min=(2,), opt=(4,), max=(8,))], numerics=True
            )
        assert "the example inputs are not used" in caplog.text

    def test_timing_and_verify(self, net, capsys):
        compiled(net, timing=True, verify_each=True)
        assert "timing of @main" in capsys.readouterr().err

    def test_a_failure_leaves_a_reproducer_in_the_dump(self, net, tmp_path):
        with pytest.raises(PassError, match=r"no table for aten.tanh") as caught:
            compiled(net, pipeline="planted-crash", dump_ir=f"changed:{tmp_path}")
        assert (tmp_path / "001-planted-crash.failed.ir").exists()
        assert f"--load {planted.__file__}" in caught.value.replay

    def test_bisect_by_the_environment(self, net, monkeypatch):
        monkeypatch.setenv("REWRIGHT_BISECT", "3")
        assert len(ops(compiled(net, pipeline="cse,dce"))) == 4
        assert len(ops(compiled(net, pipeline="cse,dce"))) == 5

    def test_a_failing_pass_falls_back_just_in_time(self, net):
        run = just_in_time(net, pipeline="planted-crash", on_error="eager")
        with torch.no_grad(), pytest.warns(rewright.errors.FallbackWarning, match="no table for"):
            torch.testing.assert_close(run(IDS), net(IDS))

    def test_rewrites_are_counted(self, net):
        before = rewright.stats()
        compiled(net, pipeline="planted-unary")
        assert (rewright.stats() - before).rewrites == 2


class TestLogging:
    def test_a_line_for_each_pass(self, net, caplog):
        with caplog.at_level("INFO", "rewright.passes"):
            compiled(net, pipeline="cse,dce")
        lines = [r.message for r in caplog.records if r.name == "rewright.passes"]
        assert len(lines) == 2
        assert lines[0].startswith("001 cse: 5 nodes, 0 rewrites, 0.")

    @pytest.mark.parametrize("logs", ["rewright", "+rewright", "rewright.passes"])
    def test_torch_logs(self, logs, fresh_python, monkeypatch):
        monkeypatch.setenv("TORCH_LOGS", logs)
        code = "import torch, logging; print(logging.getLogger('rewright.passes').level)"
        assert fresh_python(code) == ("10" if logs.startswith("+") else "20")


def test_misspelled_variables_are_warned_of(caplog):
    given = {"REWRIGHT_DUMPP": "all", "REWRIGHT_VERIFY": "0", "REWRIGHT_SHARD": "1/2", "HOME": "/"}
    Watch.of(Settings(), given)
    assert [record.getMessage() for record in caplog.records] == [
        "the environment variable REWRIGHT_DUMPP is not read: did you mean REWRIGHT_DUMP?"
    ]
