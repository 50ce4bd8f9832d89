"""The Stable Diffusion benchmark: tried with models of one layer on the CPU."""

import json
import os
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe

import pytest
import torch

from benchmarks.gpu.models import Place
from benchmarks.gpu.variants import chosen
from benchmarks.stable_diffusion import painter, pipeline, table, turns
from benchmarks.stable_diffusion.__main__ import options

PLACE = Place(torch.device("cpu"), torch.float32, tiny=True)
JIT = "ours:jit:optimization_level=3,cuda_graphs=on"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """More of them wait for one another longer than such small models take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected():
    return painter.reference(PLACE, "pndm", steps=2)


@pytest.fixture(scope="module")
def eager():
    made = painter.Painter.of(PLACE, "pndm", 2)
    made.start(chosen(["eager"], [], "cpu")[0])
    return made


# --------------------------------------------------------------------------- the pipeline


def test_the_sizes_are_those_of_stable_diffusion():
    pipe = pipeline.build(Place(torch.device("meta")))
    counts = {
        part.model: sum(p.numel() for p in getattr(pipe, part.model).parameters())
        for part in painter.PARTS
    }
    assert counts == {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863}
    assert pipe.vae.config.scaling_factor == 0.18215
    assert pipe.vae_scale_factor * pipe.unet.config.sample_size == 512


def test_the_tokenizer_frames_letters_and_fills_up():
    tokens = pipeline.tokenizer()("a cat", padding="max_length", max_length=77).input_ids
    assert len(tokens) == 77
    assert tokens[0] == 49406
    assert tokens[5:] == [49407] * 72
    assert len({*tokens[1:5]}) == 4  # "a", which ends a word, and "c", "a", "t" of another


# --------------------------------------------------------------------------- one variant


def test_an_eager_image_is_the_reference_and_its_parts_add_up(eager, expected):
    eager.compare(expected)
    assert eager.row["error_latents"] == eager.row["error_image"] == 0
    painted = eager.paint(3)
    assert {*painted.parts} == {"text encoder", "U-Net", "VAE", painter.REST}
    assert all(seconds > 0 for seconds in painted.parts.values())
    assert sum(painted.parts.values()) == pytest.approx(painted.seconds)


def test_the_error_of_another_image_is_seen(eager, expected):
    other = eager.keep(1)
    assert not torch.equal(other["latents"], expected["latents"])
    eager.compare(other)
    assert eager.row["error_latents"] > 0.1
    assert eager.row["error_image"] > 0.1


def test_each_part_is_compiled_by_ours_and_the_image_stays_the_same(expected):
    (ours,) = chosen([], [JIT], "cpu")
    torch._dynamo.utils.counters.clear()
    made = painter.Painter.of(PLACE, "pndm", 2)
    made.start(ours)
    made.warm_up()
    made.compare(expected)
    torch.compiler.reset()
    row = made.row
    assert (row["graphs"], row["graph_breaks"], row["our_fallbacks"]) == (3, 0, [])
    assert 0 < row["error_latents"] < 1e-5
    assert 0 < row["error_image"] < 1e-5
    assert row["ours"] and row["settings"]["optimization_level"] == 3


def test_an_image_of_nans_is_refused(eager):
    bias = eager.pipe.vae.decoder.conv_out.bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the image of seed 5 is not finite"):
        eager.paint(5)
    with torch.no_grad():
        bias.copy_(before)
    eager.paint(5)


def test_what_is_no_drop_in_is_refused():
    for names, ours in ((["eager-graph"], []), ([], ["mine:aot:optimization_level=2"])):
        with pytest.raises(ValueError, match=r"dropped in by torch\.compile"):
            painter.refuse(chosen(names, ours, "cpu"))
    given = options([])
    painter.refuse(chosen(given.variants, given.ours, given.device))


# --------------------------------------------------------------------------- turns

WORKER = """
import sys, time
from multiprocessing.connection import Connection
name, order, number = sys.argv[1:]
with Connection(int(number)) as pipe:
    if name == "late":
        time.sleep(100)
    if name == "broken":
        raise SystemExit(3)
    pipe.send({"row": {"first_image_s": 1.5}, "machine": {"gpu": "G"}})
    painted = 0
    while True:
        try:
            question, seed = pipe.recv()
        except EOFError:
            break
        painted += 1
        if name == "dies" and painted == 2:
            raise SystemExit(4)
        with open(order, "a") as log:
            log.write(f"{name}{seed - 100} ")
        pipe.send({"seconds": 0.25 * painted, "parts": {"U-Net": 0.125 * painted}})
"""


def test_workers_get_ready_side_by_side_and_take_turns(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    order, said = tmp_path / "order", []
    workers = {
        name: turns.Worker.start(
            name, [str(tmp_path / "worker.py"), name, str(order)], os.environ,
            tmp_path / "logs" / f"{name}.log",
        )
        for name in ("a", "b", "broken", "dies", "late")
    }  # fmt: skip
    try:
        in_time = [worker for worker in workers.values() if worker.name != "late"]
        turns.get_ready(in_time, time.monotonic() + 60, said.append)
        turns.get_ready([workers["late"]], time.monotonic() + 0.1, said.append)
        assert sorted(said) == [
            "a: ready, 1.5 s until the first image", "b: ready, 1.5 s until the first image",
            "broken: the process ended with 3; see its log",
            "dies: ready, 1.5 s until the first image", "late: not ready in time",
        ]  # fmt: skip
        by = time.monotonic() + 60
        assert [*turns.take_turns([*workers.values()], 3, by, said.append)] == [1, 2, 3]
        assert order.read_text().split() == ["a0", "b0", "dies0", "b1", "a1", "a2", "b2"]
        assert "dies: the process ended with 4; see its log" in said
        assert [*turns.take_turns([workers["a"]], 3, time.monotonic() - 1, said.append)] == []
        assert said[-1] == "the time is over after 0 rounds"
    finally:
        turns.end([*workers.values()])
    assert workers["a"].process.returncode == 0
    row = turns.summary(workers["a"])
    assert (row["ms"], row["ms_least"], row["ms_most"], row["rounds"]) == (500, 250, 750, 3)
    assert row["parts_ms"] == {"U-Net": 250}
    assert "ms" not in turns.summary(workers["late"])
    assert workers["a"].machine == {"gpu": "G"}


def test_questions_are_answered_until_the_other_end_is_closed():
    here, there = Pipe()
    answers = {"add": lambda a, b: {"sum": a + b}}
    thread = threading.Thread(target=turns.serve, args=(there, answers))
    thread.start()
    here.send(("add", 2, 3))
    assert here.recv() == {"sum": 5}
    here.close()
    thread.join(5)
    assert not thread.is_alive()


# --------------------------------------------------------------------------- the table


def row(ms: float, **more) -> dict:
    return {
        "ms": ms, "ms_quartiles": [ms - 1, ms + 1], "rounds": 5, "inductor": False,
        "parts_ms": {"U-Net": ms / 2}, "first_image_s": 8.0, "graphs": 3, "graph_breaks": 0,
        "inductor_skipped_graphs": 0, "our_captures": 0, "our_fallbacks": [], **more,
    }  # fmt: skip


def test_the_table_compares_with_the_best_mode_of_inductor():
    rows = {
        "eager": row(1200.0),
        "fast": row(400.0, inductor=True, cold_s=70.25, cold_beside=2),
        "slow": row(500.0, inductor=True),
        "ours": row(320.0, error_latents=1.25e-3, our_fallbacks=["no CUDA graph: one"]),
        "bad": {"error_text": "it broke"},
    }
    what = {"steps": 50, "scheduler": "pndm", "tiny": False, "precision": "float16"}
    text = table.table({"rows": rows, "what": what, "machine": {}, "no_reference": "no room"})
    assert "Stable Diffusion 1.5, 512 x 512, 50 steps of pndm, float16" in text
    assert "best mode (fast)" in text
    assert "| ours | 0.320 | 0.319 to 0.321 | 5 | 1.25 | 1.25e-03 |  |" in text
    assert "| eager | 1.200 | 1.199 to 1.201 | 5 | 0.33 |  |  |" in text
    assert "| ours | 160.0 |" in text
    assert "| fast | 70.2 | 8.0 | 2 | 3 |" in text
    assert "* bad: it broke" in text
    assert "there are no errors: no room" in text
    assert "* ours: no CUDA graph: one" in text


@pytest.mark.slow
def test_the_whole_command_compiles_cold_once(tmp_path):
    command = [
        sys.executable, "-m", "benchmarks.stable_diffusion", "--device", "cpu", "--tiny",
        "--out", str(tmp_path), "--steps", "2", "--rounds", "2", "--variants", "eager",
        "--ours", JIT, "bad:jit:nonsense=1",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": "src:."}

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], cwd=turns.ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    prepared = run("--prepare")
    assert "ours: ready" in prepared and "reference" not in prepared
    assert not (tmp_path / "results.json").exists()
    cold = json.loads((tmp_path / "cold" / "ours.json").read_text())["cold_s"]
    printed = run()
    assert "bad: SettingsError: there is no setting 'nonsense'" in printed
    found = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert found["ours"]["cold_s"] == cold
    assert found["ours"]["rounds"] == found["eager"]["rounds"] == 2
    assert 0 < found["ours"]["error_image"] < 1e-5
    assert "| ours |" in (tmp_path / "results.md").read_text()
