"""Real models: saved here, loaded where their classes are not, and called; with engines, too."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import rewright
from rewright.demo_models import MODELS
from rewright.errors import EngineError, FallbackWarning
from rewright.testing import evaluate
from tests.artifact.fresh import (
    CALLS,
    NAMES,
    Place,
    in_fresh_process,
    save,
    shapes,
    surroundings,
    varies,
)
from tests.artifact.zoo import CASES, Pair, Scores, assert_equal, leaves

LOADER = """
import sys, warnings
from pathlib import Path
blocked = {blocked!r}
for name in blocked:
    sys.modules[name] = None
import torch, rewright
from torch.utils import _pytree as pytree
from rewright.artifact.records import Record
folder = Path({folder!r})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for path in sorted(folder.glob("*.rw")):
        program = rewright.load(path)
        rewright.reset_stats()
        kinds = set()
        for number, (args, expected) in enumerate(torch.load(path.with_suffix(".pt"))):
            result = program(*args)
            kinds.add(f"{{type(result).__module__}}.{{type(result).__name__}}")
            found = [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
            assert len(found) == len(expected) > 0
            for a, b in zip(found, expected):
                assert a.dtype == b.dtype and torch.equal(a, b), (path.name, number)
        done = rewright.stats()
        assert (done.graphs, done.nodes, done.fallbacks, done.specializations) == (0, 0, 0, 0)
        print(path.stem, *kinds)
assert "rewright.demo_models" not in sys.modules
print("warnings", sum("records with the same fields" in str(w.message) for w in caught))
"""


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """A folder with the demo models as programs, and what they give."""
    folder = tmp_path_factory.mktemp("demos")
    for name, model in MODELS.items():
        dynamic = model.dynamic_shapes if varies(name) else None
        with torch.no_grad():
            exported = torch.export.export(
                model.build(), model.inputs(), dynamic_shapes=dynamic, strict=False
            )
            program = rewright.compile_exported(exported)
            known = [
                (args, [t for t in leaves(program(*args)) if isinstance(t, torch.Tensor)])
                for args in shapes(name)
            ]
        program.save(folder / f"{name}.rw")
        torch.save(known, folder / f"{name}.pt")
    return folder


def run(folder, *blocked):
    code = LOADER.format(folder=str(folder), blocked=blocked)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PATH": "", **surroundings(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


# --------------------------------------------------------------------------- on every device


PLACES = {
    "cpu": Place("cpu", "auto"),
    "cuda": Place("cuda", "off"),
    "cuda-graphs": Place("cuda", "on"),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.gpu if place.device == "cuda" else pytest.mark.slow)
        for name, place in PLACES.items()
    ],
)
def elsewhere(request, tmp_path_factory):
    """What a new process says of programs for a device, by name; where, and what can't be had."""
    place = PLACES[request.param]
    if place.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    folder = tmp_path_factory.mktemp(request.param)
    missing = {}
    for name in NAMES:
        try:
            save(name, place, folder)
        except ImportError as error:  # of a library of models
            missing[name] = str(error)
    return place, missing, in_fresh_process(folder, place)


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_process_computes_the_same(elsewhere, name):
    place, missing, found = elsewhere
    if name in missing:
        pytest.skip(missing[name])
    done = found[name]
    assert "error" not in done, done["error"]
    assert done["classes"] == ("record" if name in ("bert", "llama", "unet") else "plain")
    assert done["calls"] == CALLS * done["shapes"] and done["moved"] >= 1
    if place.cuda_graphs == "on":
        assert done["refusal"] is None
        assert done["captures"] >= done["shapes"] and done["replays"] >= done["shapes"]
    else:
        assert done["captures"] == 0


RECORD = "rewright.artifact.records.Record"


def test_classes_of_a_model_need_not_be_there(tmp_path):
    class Model(nn.Module):
        def forward(self, x):
            return Scores(x, Pair(x + 1, [x * 2]))

    programs = {
        "own": rewright.compile(Model(), (torch.ones(2, 3),)),
        **{name: CASES[name].compile() for name in ("folding", "perceptron", "branching")},
    }
    for name, program in programs.items():
        program.save(tmp_path / f"{name}.rw")
        args = CASES[name].args() if name in CASES else (torch.ones(2, 3),)
        torch.save([(args, leaves(program(*args)))], tmp_path / f"{name}.pt")
    found = run(tmp_path, "transformers", "diffusers", "tests", "tensorrt_rtx")
    assert found.pop("warnings") == "1"
    assert found == {name: RECORD if name == "own" else "torch.Tensor" for name in programs}


@pytest.mark.slow
def test_demo_models_load_where_no_library_is(demos):
    found = run(demos, "transformers", "diffusers")
    assert found == {
        "resnet": "torch.Tensor",
        "bert": RECORD,
        "llama": RECORD,
        "unet": RECORD,
        "warnings": "3",
    }


@pytest.mark.slow
def test_demo_models_have_their_libraries_classes_where_these_are(demos):
    found = run(demos)
    assert found.pop("warnings") == "0"
    assert {name: kind.rpartition(".")[2] for name, kind in found.items()} == {
        "resnet": "Tensor",
        "bert": "BaseModelOutputWithPoolingAndCrossAttentions",
        "llama": "CausalLMOutputWithPast",
        "unet": "UNet2DConditionOutput",
    }


@pytest.mark.slow
def test_a_cache_comes_out(tmp_path):
    transformers = pytest.importorskip("transformers")
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    register_dynamic_cache_export_support()

    class Caching(nn.Module):
        def forward(self, x):
            cache = transformers.DynamicCache()
            cache.update(x, x + 1, 0)
            return x * 2, cache

    x = torch.randn(1, 2, 1, 4)
    program = rewright.compile_exported(torch.export.export(Caching(), (x,), strict=False))
    program.save(tmp_path / "a.rw")
    result = rewright.load(tmp_path / "a.rw")(x)
    assert type(result[1]) is transformers.DynamicCache
    assert_equal(leaves(result), leaves(program(x)))


# --------------------------------------------------------------------------- engines


@pytest.fixture(scope="module")
def engine_program():
    """A program whose weights an engine holds."""
    pytest.importorskip("tensorrt_rtx")
    x = torch.randn(4, 8)
    with pytest.warns(FallbackWarning):
        program = CASES["perceptron"].compile(target="rtx")
    assert len(program.segments) == 1
    return program, x


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where no engine runs")
def test_engines_come_along_and_what_cannot_run_here_says_so_once(engine_program, tmp_path):
    program, x = engine_program
    path = tmp_path / "a.rw"
    program.save(path)
    rewright.reset_stats()
    with pytest.warns(FallbackWarning, match="its engine can't run here") as found:
        loaded = rewright.load(path)
    assert len([w for w in found if w.category is FallbackWarning]) == 1
    done = rewright.stats()
    assert (done.fallbacks, done.graphs, done.cache_misses, done.cache_hits) == (1, 0, 0, 0)
    (segment,), (before,) = loaded.segments, program.segments
    assert segment.engine.data == before.engine.data
    assert [p.name for p in segment.engine.inputs] == [p.name for p in before.engine.inputs]
    assert_equal([loaded(x)], [program(x)])
    torch.testing.assert_close(evaluate(loaded, x), loaded(x), rtol=1e-4, atol=1e-5)
    assert loaded.report() == program.report()
    again = tmp_path / "b.rw"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where no engine runs")
def test_an_engine_that_cannot_run_is_an_error_where_that_was_asked_for(engine_program, tmp_path):
    program, _ = engine_program
    program.save(tmp_path / "a.rw")
    with pytest.raises(EngineError, match="finds no CUDA device"):
        rewright.load(tmp_path / "a.rw", on_engine_error="raise")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where no engine runs")
def test_without_the_library_a_program_runs_in_torch(engine_program, tmp_path, monkeypatch):
    from rewright.backends.tensorrt import library

    program, x = engine_program
    program.save(tmp_path / "a.rw")
    library.load.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    try:
        with pytest.warns(FallbackWarning, match="tensorrt_rtx"):
            loaded = rewright.load(tmp_path / "a.rw")
    finally:
        monkeypatch.undo()
        library.load.cache_clear()
    assert_equal([loaded(x)], [program(x)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where no engine runs")
def test_weights_are_left_to_engines_where_there_is_no_fallback(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx")
    with pytest.warns(FallbackWarning):
        small = CASES["perceptron"].compile(target="rtx", fallback="none")
    with pytest.warns(FallbackWarning):
        whole = CASES["perceptron"].compile(target="rtx")
    x = torch.randn(3, 8)
    assert_equal([small(x)], [whole(x)])  # here its weights are at hand
    small.save(tmp_path / "small.rw")
    whole.save(tmp_path / "whole.rw")
    with pytest.raises(EngineError, match="finds no CUDA device"):
        rewright.load(tmp_path / "small.rw")
    with pytest.raises(EngineError, match="fallback='none': torch finds no CUDA device"):
        rewright.load(tmp_path / "small.rw", on_engine_error="torch")
    from rewright.cli import main

    sizes = {}
    for name in ("small", "whole"):
        main(["inspect", "--json", str(tmp_path / f"{name}.rw")])
        made = json.loads(capsys.readouterr().out)
        sizes[name] = {part: made["parts"][part]["bytes"] for part in made["parts"]}
        program = {"small": small, "whole": whole}[name]
        assert program.report().to_json()["parts"] == made["parts"]
        assert len(made["engines"]) == 1 and made["engines"][0]["library"].startswith("tensorrt")
    assert sizes["whole"]["weights"] > 4 * (8 * 16 + 16 * 4)
    assert sizes["small"]["weights"] < 100 and sizes["small"]["prepared"] < 100
    assert sizes["small"]["left_out"] >= sizes["whole"]["weights"]
    assert sizes["small"]["engines"] > 0


@pytest.mark.tensorrt_gpu
def test_a_stored_engine_runs(engine_program, tmp_path):
    _, x = engine_program
    program = CASES["perceptron"].compile(target="rtx", device="cuda", fallback="none")
    program.save(tmp_path / "a.rw")
    loaded = rewright.load(tmp_path / "a.rw")
    assert rewright.stats().fallbacks == 0
    assert_equal([loaded(x.cuda())], [program(x.cuda())])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where no engine runs")
def test_where_an_engine_runs_no_weights_are_needed(tmp_path, monkeypatch):
    """What stands for TensorRT's runtime evaluates the network that the engine was built from."""
    pytest.importorskip("tensorrt_rtx")
    from rewright import targets
    from rewright.backends.tensorrt.emitter import emit
    from rewright.testing import evaluate_network

    with pytest.warns(FallbackWarning):
        program = CASES["perceptron"].compile(target="rtx", fallback="none")
    program.save(tmp_path / "a.rw")
    (segment,), loads = program.segments, []
    weights = {name: c.data for name, c in segment.graph.constants.items()}

    def load(engine, library, name, **_):
        loads.append(engine.data)
        emitted = emit(segment.graph, library, weights)
        names = [port.name for port in engine.inputs]

        def run(*values):
            given = dict(zip(names, values, strict=True))
            outputs = evaluate_network(emitted.net.definition, given, emitted.net.weights)
            return [outputs[port.name] for port in engine.outputs]

        return run

    monkeypatch.setattr(targets, "_load", load)
    rewright.reset_stats()
    loaded = rewright.load(tmp_path / "a.rw")
    assert loads == [segment.engine.data]
    assert rewright.stats().fallbacks == 0
    assert all(c.data is None or c.data.is_meta for c in loaded.graph.constants.values())
    assert not loaded.state_dict()
    loaded.load_state_dict(loaded.state_dict())
    for rows in (1, 5):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(loaded(x), program(x), rtol=1e-4, atol=1e-5)
    loaded.save(tmp_path / "b.rw")
    assert (tmp_path / "b.rw").read_bytes() == (tmp_path / "a.rw").read_bytes()
