"""Stable Diffusion 1.5 from text to image, 512 x 512: eager mode, Inductor's modes and ours.

    python -m benchmarks.stable_diffusion --out results/sd --time-box 200
    python -m benchmarks.stable_diffusion --out R --prepare           # only compile
    python -m benchmarks.stable_diffusion --out R --variants eager inductor-ro inductor-max \\
        --ours "new:jit:optimization_level=3,torch_backend=inductor,cuda_graphs=on"
    python -m benchmarks.stable_diffusion --device cpu --tiny --steps 2    # tries the benchmark

diffusers' own pipeline with random weights in half precision; the text encoder, the U-Net and the
VAE's decoder are each run by the variant. Every variant compiles in a process of its own, all at
the same time; then they make images in turns. ``OUT/results.md`` has the seconds per image, where
they go, the error against float32 from the same noise, and the seconds until the first image;
``OUT/results.json`` has all of it, ``OUT/logs`` what each process printed.

A variant that finds no folder of its own in the cache compiles cold, and its seconds are kept in
``OUT/cold``; they are those of a machine where the others compile, too. ``--cold`` empties the
cache. A run that was stopped while it compiled finds much of it done the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu import report
from benchmarks.gpu.variants import TORCHS, Variant, chosen
from benchmarks.stable_diffusion import table, turns
from benchmarks.stable_diffusion.painter import REFERENCE, refuse
from benchmarks.stable_diffusion.pipeline import SCHEDULERS

DEFAULT: Final = ("eager", "inductor", "inductor-ro")
OURS: Final = ("ours:jit:optimization_level=3,torch_backend=inductor,cuda_graphs=on",)
"""What ``torch.compile(pipe.unet, backend="rewright", mode="reduce-overhead")`` stands for."""

FOR_IMAGES: Final = 30.0
"""Seconds of the time box that are kept for making images once all is compiled."""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.stable_diffusion", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--variants", nargs="*", default=[*DEFAULT], help=f"of torch: {', '.join(TORCHS)}")
    add("--ours", nargs="*", default=[*OURS], help="NAME:jit:setting=value,...")
    add("--out", type=Path, default=Path("benchmarks/results/latest-sd"), help="folder of results")
    add("--cache", type=Path, help="folder of compiled kernels; default: OUT/cache")
    add("--time-box", type=float, default=1e5, help="seconds for all of it")
    add("--rounds", type=int, default=10, help="images of each variant")
    add("--steps", type=int, default=50, help="of the scheduler")
    add("--scheduler", default="pndm", choices=[*SCHEDULERS], help="default: SD 1.5's own")
    add("--device", default="cuda", choices=("cuda", "cpu"))
    add("--tiny", action="store_true", help="models of one layer")
    add("--prepare", action="store_true", help="only compile")
    add("--cold", action="store_true", help="empty the cache first")
    add("--work", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the command line asks for."""
    given = options(arguments)
    given.out = given.out.resolve()
    given.cache = (given.cache or given.out / "cache").resolve()
    variants = chosen(given.variants, given.ours, given.device)
    refuse(variants)
    if given.work:
        name, number = given.work
        with Connection(int(number)) as pipe:
            _work(given, next((v for v in variants if v.name == name), None), pipe)
        return
    deadline = time.monotonic() + given.time_box
    workers = _started(given, variants)
    try:
        turns.get_ready([*workers.values()], deadline - FOR_IMAGES, _say)
        _note_cold(given.out, workers)
        if not given.prepare:
            _measure(given, workers, deadline)
    finally:
        turns.end([*workers.values()])


def _say(text: str) -> None:
    print(text, flush=True)


def _reference(given: argparse.Namespace) -> Path:
    return given.cache / REFERENCE / "tensors.pt"


# --------------------------------------------------------------------------- the one that waits


def _started(given: argparse.Namespace, variants: Sequence[Variant]) -> dict[str, turns.Worker]:
    """A process for each variant, and one for the reference, at work."""
    compiling = [v.name for v in variants if v.is_ours or v.is_inductor]
    threads = max(2, (os.cpu_count() or 2) // max(len(compiling), 1))
    command = [
        "-m", "benchmarks.stable_diffusion", "--out", str(given.out), "--cache", str(given.cache),
        "--steps", str(given.steps), "--scheduler", given.scheduler, "--device", given.device,
        *(["--tiny"] * given.tiny),
        "--variants", *given.variants, "--ours", *given.ours, "--work",
    ]  # fmt: skip
    workers = {}
    for name in (*([] if given.prepare else [REFERENCE]), *(v.name for v in variants)):
        folder = given.cache / name
        if given.cold:
            shutil.rmtree(folder, ignore_errors=True)
        is_cold = name in compiling and not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        worker = turns.Worker.start(
            name, [*command, name], turns.environment(folder, threads),
            given.out / "logs" / f"{name}.log",
        )  # fmt: skip
        if is_cold:
            worker.row.update(cold_beside=len(compiling) - 1, cold_threads=threads)
        workers[name] = worker
    return workers


def _note_cold(out: Path, workers: Mapping[str, turns.Worker]) -> None:
    """Keeps the seconds of cold compiles, and finds those of earlier runs."""
    for name, worker in workers.items():
        row, path = worker.row, out / "cold" / f"{name}.json"
        if "cold_beside" in row and "first_image_s" in row:
            keys = ("settings", "cold_beside", "cold_threads")
            report.write(path, {"cold_s": row["first_image_s"], **{key: row[key] for key in keys}})
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        if found["settings"] == row.get("settings"):
            row.update(found)


def _measure(
    given: argparse.Namespace, workers: Mapping[str, turns.Worker], deadline: float
) -> None:
    painters = [worker for name, worker in workers.items() if name != REFERENCE]
    expected = workers[REFERENCE]
    for worker in painters:
        if worker.is_well and expected.is_well:
            worker.ask(turns.LAST_IMAGE, "compare", str(_reference(given)))
    found: dict[str, Any] = {
        "machine": next((w.machine for w in painters if w.machine), {}),
        "what": {
            "steps": given.steps, "scheduler": given.scheduler, "tiny": given.tiny,
            "precision": "float16" if given.device == "cuda" else "float32",
        },
    }  # fmt: skip
    if not expected.is_well:
        found["no_reference"] = expected.row["error_text"]
    for _ in (0, *turns.take_turns(painters, given.rounds, deadline, _say)):
        found["rows"] = {worker.name: turns.summary(worker) for worker in painters}
    report.write(given.out / "results.json", found)
    text = table.table(found)
    (given.out / "results.md").write_text(text + "\n")
    print(text)


# --------------------------------------------------------------------------- those that work


def _work(given: argparse.Namespace, variant: Variant | None, pipe: Connection) -> None:
    """What a process does: the reference, if there is no variant."""
    import traceback

    import torch

    from benchmarks.gpu.models import Place
    from benchmarks.gpu.timing import machine
    from benchmarks.stable_diffusion.painter import Painter, reference

    try:
        if given.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device here; try --device cpu --tiny")
        dtype = torch.float16 if given.device == "cuda" else torch.float32
        place = Place(torch.device(given.device), dtype, given.tiny)
        if variant is None:
            torch.save(reference(place, given.scheduler, given.steps), _reference(given))
            pipe.send({})
            return
        painter = Painter.of(place, given.scheduler, given.steps)
        painter.start(variant)
        painter.warm_up()
        pipe.send({"row": painter.row, "machine": dict(machine(place))})

        def paint(seed: int) -> Mapping[str, Any]:
            painted = painter.paint(seed)
            return {"seconds": painted.seconds, "parts": dict(painted.parts)}

        def compare(path: str) -> Mapping[str, Any]:
            painter.compare(torch.load(path))
            return {"row": painter.row}

        turns.serve(pipe, {"paint": paint, "compare": compare})
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        trace = traceback.format_exc()
        print(trace, flush=True)
        pipe.send({"row": {"error_text": text, "traceback": trace[-3000:]}})


if __name__ == "__main__":
    main()
