"""The GPU benchmark and its profiler: tried with models of one layer on the CPU."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import gpu_profile
from benchmarks.gpu import report, timing, together, variants
from benchmarks.gpu.__main__ import ROOT, options
from benchmarks.gpu.models import CASES, Place

PLACE = Place(torch.device("cpu"), torch.float32, tiny=True)
AOT = "aot:aot:optimization_level=2,cuda_graphs=on"
JIT = "jit:jit:optimization_level=2,cuda_graphs=on"


def test_variants_of_ours_are_read_from_text():
    (eager, made) = variants.chosen(
        ["eager"], ["new:jit:optimization_level=3,exactness=exact"], "cuda"
    )
    assert (eager.name, eager.is_ours) == ("eager", False)
    assert (made.name, made.is_ours) == ("new", True)
    assert made.settings == {"optimization_level": 3, "exactness": "exact"}
    for text in ("new", "new:export:x=1", "new:jit:optimization_level"):
        with pytest.raises(ValueError, match="is not"):
            variants.ours(text)
    with pytest.raises(ValueError, match="there is no variant 'fast'"):
        variants.chosen(["fast"], [], "cuda")


def test_a_tiny_model_with_a_state_is_measured_in_turns(tmp_path):
    plan = timing.Plan(rounds=2, batch=0.001, cache=tmp_path)
    made = variants.chosen(
        ["eager"], [JIT, "aot:aot:optimization_level=2", "bad:jit:nonsense=1"], "cpu"
    )
    said = []
    rows = timing.measure(CASES["llama1b-decode"], made, PLACE, plan, said.append)
    torch.compiler.reset()
    assert {*rows} == {"eager", "jit", "aot", "bad"}
    assert "there is no setting 'nonsense'" in rows["bad"]["error_text"]
    assert "not tried: a loaded program has a cache of its own" in rows["aot"]["error_text"]
    for each in ("eager", "jit"):
        row = rows[each]
        assert row["error"] < 1e-5
        assert row["rounds"] == 2
        assert row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1]
        assert row["latency_ms"] > 0
    assert rows["jit"]["ours"]
    assert not rows["eager"]["ours"]
    json.dumps(rows)


def test_every_model_says_what_it_needs_or_is_built():
    torch.manual_seed(0)
    for case in CASES.values():
        if case.is_here() is not None:
            assert f"pip install {case.library}" in case.is_here()
            continue
        with torch.no_grad():
            result = case.build(PLACE)(**case.inputs(PLACE))
        assert result.isfinite().all(), case.name


def row(ms: float, **more) -> dict:
    return {"ms": ms, "error": 1e-3, "settings": {}, **more}


@pytest.fixture
def results(tmp_path):
    about = {"gpu": "G", "cuda": "13", "versions": {"torch": "2"}, "date": "2026-01-01 00:00 UTC"}
    rows = {
        "one": {"fast": row(2.0, inductor=True), "slow": row(3.0, inductor=True)},
        "two": {"fast": row(5.0, inductor=True), "slow": row(4.0, inductor=True)},
    }
    rows["one"]["mine"] = row(1.0, ours=True)
    rows["two"]["mine"] = row(8.0, ours=True)
    rows["two"]["other"] = row(4.0, ours=True)
    rows["one"]["other"] = {"error_text": "it broke", "settings": {}}
    for name, each in rows.items():
        report.write(tmp_path / f"{name}.json", {"model": name, "machine": about, "rows": each})
    report.write(tmp_path / "cold" / "one--mine.json", {"cold_s": 7.5})
    return tmp_path


def test_ratios_are_to_the_best_mode_of_inductor(results):
    made = report.merge(results, ["one", "two", "three"])["summary"]
    assert made["mine"]["ratios"] == {"one": 2.0, "two": 0.5}
    assert made["mine"]["geometric_mean"] == pytest.approx(1.0)
    assert made["best of ours"]["ratios"] == {"one": 2.0, "two": 1.0}
    assert made["best of ours"]["geometric_mean"] == pytest.approx(2**0.5)
    assert made["best of ours"]["without_the_best"] == pytest.approx(1.0)
    assert made["other"]["models"] == 1
    assert json.loads((results / "results.json").read_text())["summary"] == made
    text = (results / "results.md").read_text()
    assert "| one | 2.000 | 3.000 | 1.000 | failed | fast | 2.00 |  |" in text
    assert "* one, other: it broke" in text
    assert "| one |  |  | 7.5 |  |" in text


def test_what_is_measured_is_not_measured_again(results):
    known = report.read(results, "one")
    assert report.is_done(known, "mine", {})
    assert not report.is_done(known, "mine", {"optimization_level": 3})
    assert not report.is_done(known, "new", {})
    assert report.read(results, "three") == {"model": "three", "rows": {}}


def test_quartiles():
    assert timing.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert timing.quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64", "gemm"),
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT", "gemm"),
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16", "convolution"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<__half>", "copy"),
        ("triton_per_fused_add_native_layer_norm_3", "norm"),
        ("triton_poi_fused_gelu_2", "pointwise"),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", "pointwise"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("triton_poi_fused_convert_element_type_1", "copy"),
        ("void at::native::reduce_kernel<512, 1>", "reduction"),
        ("something_new", "other"),
    ],
)
def test_kernels_are_classed_by_their_names(kernel, kind):
    assert gpu_profile.class_of(kernel) == kind


def test_time_is_attributed_to_nodes_and_lines(tmp_path, capsys):
    path = tmp_path / "profile.json"
    arguments = ["--device", "cpu", "--tiny", "--variants", "eager", "--calls", "3"]
    gpu_profile.main(["resnet50-b1", *arguments, "--json", str(path)])
    torch.compiler.reset()
    made = json.loads(path.read_text())["variants"]
    assert {*made} == {"eager", "ours"}
    assert made["ours"]["failure"] is None
    assert made["eager"]["classes_us"]["convolution"] > 0
    nodes = made["ours"]["nodes_us"]
    assert any("conv" in node and "modeling_resnet.py:" in node for node in nodes)
    assert "us per call, line" in capsys.readouterr().out


def test_options_have_defaults_that_exist():
    given = options([])
    assert variants.chosen(given.variants, given.ours, given.device)


@pytest.mark.slow
def test_the_whole_command_measures_resumes_and_prepares(tmp_path):
    command = [
        sys.executable, "-m", "benchmarks.gpu", "bert-b1x128", "--device", "cpu", "--tiny",
        "--out", str(tmp_path), "--rounds", "2", "--variants", "eager", "--ours", JIT, AOT,
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": "src:."}

    def run(*more: str) -> str:
        done = subprocess.run([*command, *more], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "bert-b1x128 jit: 0" in run("--prepare", "2")
    assert "| bert-b1x128 |" in run()
    assert "bert-b1x128: measured before" in run()
    assert "| bert-b1x128 |" in run("--merge")
    found = json.loads((tmp_path / "results.json").read_text())["models"]["bert-b1x128"]["rows"]
    assert found["jit"]["cold_s"] > 0
    assert found["jit"]["error"] < 1e-5
    assert found["aot"]["error"] < 1e-5


WORKER = """
import sys, time
from pathlib import Path
from benchmarks.gpu.together import wait_at
gate, model = Path(sys.argv[1]), sys.argv[2]
if model == "broken":
    raise SystemExit(3)
if model == "late":
    time.sleep(100)
wait_at(gate, model)
with open(gate / "log", "a") as log:
    log.write(f"{model} begins\\n")
    log.flush()
    time.sleep(0.2)
    log.write(f"{model} ends\\n")
"""


def test_models_get_ready_together_and_are_timed_in_turns(tmp_path):
    said, places = [], {}

    def start(model, more, left):
        places[model] = more["CUDA_VISIBLE_DEVICES"]
        assert 0 < left < 30
        return subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), model], cwd=ROOT)

    models = ["one", "broken", "two", "late", "three"]
    deadline = time.monotonic() + 3 * together.PER_MODEL + 5
    together.run_together(models, ["0", "1"], tmp_path, deadline, start, said.append)
    assert places == {"one": "0", "broken": "1", "two": "0", "late": "1", "three": "0"}
    assert sorted(said) == ["late: not ready in time", "one: 0", "three: 0", "two: 0"]
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [f"{m} {did}" for m in ("one", "two", "three") for did in ("begins", "ends")]
