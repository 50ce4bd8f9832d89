"""A wrong rule in the pipeline of a twelve-layer BERT: found by two tools, without a hand."""

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from rewright.frontends.export import example_inputs, import_exported
from rewright.ir.files import dump_graph
from rewright.passes.instruments.samples import Samples, save_samples
from tests.passes import planted
from tests.zoo import text

ROOT = Path(__file__).resolve().parents[2]
PLANTED = Path(__file__).with_name("planted.py")
PASSES = "cse,planted-fusions,dce"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A BERT of twelve layers as a file, with weights and the example inputs beside it."""
    (entry,) = [entry for entry in text.ENTRIES if entry.name == "bert"]
    deep = {**entry.source.settings, "num_hidden_layers": 12}
    entry = attrs.evolve(entry, source=attrs.evolve(entry.source, settings=deep))
    exported = entry.export(attn="sdpa")
    graph, signature = import_exported(exported)
    folder = tmp_path_factory.mktemp("bert")
    path = dump_graph(graph, folder / "bert.ir")
    samples = Samples(tuple(example_inputs(exported, signature)), origin="the example inputs")
    save_samples(samples, folder / "bert.samples.safetensors")
    return path


def rewright(*arguments: object) -> subprocess.CompletedProcess:
    """Runs the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "rewright", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
    )


def test_numerics_names_pass_rule_node_and_line(bert, tmp_path):
    done = rewright(
        *("opt", bert, "--load", PLANTED, "--passes", PASSES, "--numerics"),
        *("--reproducer", tmp_path),
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith(
        "rewright opt: numbers moved in pass planted-fusions, rule drop-mask (tests/passes/"
        "planted.py:"
    )
    assert "at %scaled_dot_product_attention_7: max error " in lines[0]
    assert "  node: %scaled_dot_product_attention_7 = aten.scaled_dot_product" in lines[1]
    assert "(encoder.layer.7.attention.self)" in lines[2]
    (replay,) = [line for line in lines if line.startswith("  replay: rewright opt ")]
    assert replay.endswith("--numerics --only drop-mask")


def test_bisect_lands_on_the_same_rewrite(bert):
    command = [sys.executable, "-m", "rewright", "opt", bert, "--load", PLANTED]
    command += ["--passes", PASSES, "--numerics"]
    done = rewright("bisect", "--quiet", "--", *command)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth, last = done.stdout.splitlines()
    assert first == "pass 2: planted-fusions on @main"
    assert second.endswith(f"rule drop-mask ({planted.DropMask.location})")
    assert third.startswith("node: %scaled_dot_product_attention_7 = ")
    assert fourth.endswith("(encoder.layer.7.attention.self)")
    assert last.startswith("replay: REWRIGHT_BISECT=2.")
