"""Real architectures as TensorRT engines; the table of docs/TENSORRT_MODELS.md.

python -m tests.tensorrt_models [--record FILE] [--write docs/TENSORRT_MODELS.md] [NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Final

import attrs
import torch

import rewright
from rewright.backends.tensorrt.emitter import emit
from rewright.backends.torch.prepare import prepare
from rewright.testing import evaluate
from tests.architectures import load, save
from tests.zoo import ENTRIES
from tests.zoo.__main__ import check_sizes, relative_error, tensors

MODELS: Final = (
    *("resnet", "vit", "bert", "gpt2", "llama", "t5", "clip", "whisper", "swin", "convnext"),
    *("unet2d_condition", "autoencoder_kl"),
)
"""One of each kind."""


@attrs.frozen
class Outcome:
    """What came of a model.

    Attributes:
        nodes: of the graph that was partitioned.
        segments: how many engines it is.
        left: nodes that stay in Torch.
        layers, casts, shuffles: of the networks.
        megabytes: of the engines.
        error: the largest relative error of the evaluated networks against eager, over all sizes.
        seconds: passes, conversion and build, without the export.
        reasons: why nodes stay in Torch.
        failure: the first line of the error; empty where all is well.
    """

    name: str
    nodes: int = 0
    segments: int = 0
    left: int = 0
    layers: int = 0
    casts: int = 0
    shuffles: int = 0
    megabytes: float = 0.0
    error: float = 0.0
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    failure: str = ""


def check(name: str, dynamic: bool = True, **settings: Any) -> Outcome:
    """Compiles a model for TensorRT for RTX, and evaluates its networks at all its sizes.

    Raises:
        AssertionError: numbers differ from eager.
    """
    entry = ENTRIES[name]
    model, exported = entry.build(), entry.export(dynamic)
    start = time.perf_counter()
    program = rewright.compile_exported(exported, target="rtx", **settings)
    seconds = time.perf_counter() - start
    worst = 0.0
    with torch.no_grad():
        for sizes in check_sizes(entry, dynamic):
            args, kwargs = entry.inputs(**sizes)
            expected = tensors(model(*args, **kwargs))
            worst = max(
                worst, relative_error(tensors(evaluate(program, *args, **kwargs)), expected)
            )
    assert worst <= entry.tolerance.float32 * 10, f"the relative error is {worst:.1e}"
    report, kinds = program.partition, Counter(_kinds(program))
    return Outcome(
        name, report.nodes, len(program.segments), len(report.left),
        sum(kinds.values()), kinds["CAST"], kinds["SHUFFLE"],
        sum(len(s.engine.data) for s in program.segments) / 1e6, worst, seconds,
        tuple(sorted({f"{left.op}: {left.reason}" for left in report.left})),
    )  # fmt: skip


def _kinds(program: rewright.CompiledProgram) -> list[str]:
    """The types of all layers of the networks."""
    found = []
    sources = {c.name: c.data for c in program.graph.constants.values() if c.data is not None}
    known = sources | prepare(program.graph, sources)
    for segment in program.segments:
        constants = {name: known[name] for name in segment.graph.constants}
        network = emit(segment.graph, segment.library, constants).net.definition
        found += [network.get_layer(at).type.name for at in range(network.num_layers)]
    return found


HEAD: Final = """\
# TensorRT: models

Tiny models with random weights of real architectures, with dynamic batch and sequence, compiled
with `target="rtx"`: real engines, built without a GPU. The networks that they were built from are
computed by the reference evaluator (`rewright.testing.evaluate`) at the smallest, largest and two
other sizes, and compared with eager, in float32. No engine was executed. Made by

    python -m tests.tensorrt_models --record docs/data/tensorrt_models.json \\
        --write docs/TENSORRT_MODELS.md

| model | nodes | engines | in Torch | layers | casts | shuffles | MB | error | seconds |
|---|---|---|---|---|---|---|---|---|---|
"""


def markdown(record: dict[str, dict[str, Any]]) -> str:
    """The page of docs/."""
    rows = [Outcome(**row) for row in record.values()]
    lines = []
    for r in rows:
        cells = [r.nodes, r.segments, r.left, r.layers, r.casts, r.shuffles]
        cells += [f"{r.megabytes:.2f}", f"{r.error:.0e}", f"{r.seconds:.1f}"]
        shown = [r.failure, *[""] * 8] if r.failure else cells
        lines.append(f"| {r.name} | " + " | ".join(map(str, shown)) + " |")
    reasons = [f"* {r.name}: {reason}" for r in rows for reason in r.reasons]
    if reasons:
        lines += ["", "What stays in Torch, and why:", "", *reasons]
    return HEAD + "\n".join(lines) + "\n"


def _line(row: Outcome) -> str:
    parts = f"{row.segments} engines, {row.left} nodes left, {row.layers} layers"
    return f"{row.name:18} {parts}, error {row.error:.1e}, {row.seconds:.1f} s"


def main() -> int:
    """Runs the command line; returns 1 where a model failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.tensorrt_models", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--record", type=Path, help="add the outcomes to this JSON file")
    parser.add_argument("--write", type=Path, help="write the record as a page here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    record: Any = load(options.record)
    for name in options.names or MODELS:
        try:
            row = check(name)
        except Exception as error:
            row = Outcome(name, failure=f"{type(error).__name__}: {error}".splitlines()[0])
        record[name] = attrs.asdict(row)
        if options.record:
            save(record, options.record)
        print(row.failure or _line(row), flush=True)
    if options.write:
        options.write.write_text(markdown(record))
    return any(row["failure"] for row in record.values())


if __name__ == "__main__":
    sys.exit(main())
