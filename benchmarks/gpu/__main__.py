"""Models on a GPU: eager mode, Inductor's modes and ours, in one run.

    python -m benchmarks.gpu --out results/today                      # everything
    python -m benchmarks.gpu --out R --prepare 14                     # compile, 14 at a time
    python -m benchmarks.gpu --out R --time-box 540                   # measure; may be repeated
    python -m benchmarks.gpu --out R --together                       # several GPUs, little time
    python -m benchmarks.gpu --out R bert-b1x128 --variants inductor-ro \\
        --ours "new:jit:optimization_level=3,torch_backend=inductor,cuda_graphs=on" --again
    python -m benchmarks.gpu --device cpu --tiny                      # tries the benchmark itself

Each model is measured in a process of its own, all its variants in turns, and its result is written
to ``OUT/MODEL.json`` at once; what is there already is not measured again (``--again`` does).
``OUT/results.json`` and ``OUT/results.md`` have all of it.

``--prepare N`` measures cold compiles first, N processes at a time, each with an empty cache of its
own, and leaves the caches to the measurement, which then starts fast. With more than one at a time
the seconds are those of a busy machine, and are recorded with N.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import report
from benchmarks.gpu.together import run_together, wait_at
from benchmarks.gpu.variants import DEFAULT, OURS, TORCHS, Variant, chosen

ROOT = Path(__file__).resolve().parents[2]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("models", nargs="*", help="default: all that can be built here")
    add("--variants", nargs="*", default=[*DEFAULT], help=f"of torch: {', '.join(TORCHS)}")
    add("--ours", nargs="*", default=[*OURS], help="NAME:jit|aot:setting=value,...")
    add("--out", type=Path, default=Path("benchmarks/results/latest"), help="folder of results")
    add("--cache", type=Path, help="folder of compiled kernels; default: OUT/cache")
    add("--time-box", type=float, default=float("inf"), help="seconds, then no more is begun")
    add("--rounds", type=int, default=30, help="of all variants in turn")
    add("--batch", type=float, default=0.012, help="seconds of calls in one timing")
    add("--device", default="cuda", choices=("cuda", "cpu"))
    add("--tiny", action="store_true", help="models of one layer")
    add("--again", action="store_true", help="measure what was measured before, too")
    add("--prepare", type=int, metavar="N", help="only compile, N at a time")
    add("--together", action="store_true", help="get all models ready at once, on all GPUs")
    add("--merge", action="store_true", help="only write the tables")
    add("--work", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


# --------------------------------------------------------------------------- the one that waits


def main() -> None:
    """Runs what the command line asks for."""
    given = options()
    given.cache = (given.cache or given.out / "cache").resolve()
    given.out = given.out.resolve()
    if given.work:
        _work(given)
        return
    from benchmarks.gpu.models import CASES

    unknown = [name for name in given.models if name not in CASES]
    if unknown:
        raise SystemExit(f"there is no model {unknown[0]!r}; there are {', '.join(CASES)}")
    models = []
    for name in given.models or CASES:
        if reason := CASES[name].is_here():
            print(reason, file=sys.stderr)
            if given.models:
                raise SystemExit(2)
        else:
            models.append(name)
    variants = chosen(given.variants, given.ours, given.device)
    deadline = time.monotonic() + given.time_box
    if given.prepare:
        _prepare(given, models, variants, deadline)
    elif given.together:
        _measure_together(given, models, variants, deadline)
    elif not given.merge:
        _measure(given, models, variants, deadline)
    merged = report.merge(given.out, CASES)
    if merged["models"]:
        print((given.out / "results.md").read_text())


def _command(given: argparse.Namespace, *work: str) -> list[str]:
    return [
        sys.executable, "-m", "benchmarks.gpu", "--out", str(given.out),
        "--cache", str(given.cache), "--device", given.device, "--rounds", str(given.rounds),
        "--batch", str(given.batch), *(["--tiny"] if given.tiny else []),
        "--variants", *given.variants, "--ours", *given.ours, "--work", *work,
    ]  # fmt: skip


def _environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", **more}


def _open(
    given: argparse.Namespace, models: Sequence[str], variants: Sequence[Variant]
) -> Iterator[str]:
    """The models that are still to be measured."""
    for model in models:
        known = report.read(given.out, model)
        done = all(report.is_done(known, v.name, v.settings) for v in variants)
        if done and not given.again:
            print(f"{model}: measured before", flush=True)
        else:
            yield model


def _measure_together(
    given: argparse.Namespace, models: Sequence[str], variants: Sequence[Variant], deadline: float
) -> None:
    logs = given.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as gate:

        def start(model: str, more: Mapping[str, str], left: float) -> subprocess.Popen[bytes]:
            with (logs / f"{model}.log").open("wb") as log:
                command = _command(given, "time", model, f"{left - 5:.0f}", gate)
                more = {**more, "OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "2"}
                return subprocess.Popen(
                    command, cwd=ROOT, env=_environment(**more), stdout=log, stderr=log
                )

        run_together(
            [*_open(given, models, variants)], _gpus(given.device), Path(gate),
            min(deadline, time.monotonic() + 1e6), start, lambda text: print(text, flush=True),
        )  # fmt: skip


def _gpus(device: str) -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES, one for each GPU."""
    if device != "cuda":
        return [""]
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]


def _measure(
    given: argparse.Namespace, models: Sequence[str], variants: Sequence[Variant], deadline: float
) -> None:
    for model in _open(given, models, variants):
        left = deadline - time.monotonic()
        if left < 20:
            print(f"{model}: no time left", flush=True)
            continue
        print(f"{model}:", flush=True)
        left = min(left, 1e6)
        try:
            subprocess.run(
                _command(given, "time", model, f"{left - 15:.0f}"), cwd=ROOT, env=_environment(),
                timeout=left,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"{model}: stopped at the end of the time box", flush=True)


def _prepare(
    given: argparse.Namespace, models: Sequence[str], variants: Sequence[Variant], deadline: float
) -> None:
    """Cold compiles, several at a time; those of models that take long come first."""
    from benchmarks.gpu.models import CASES

    slow = [name for name in ("sd15-unet", "swin-b8", "convnext-b1") if name in models]
    ordered = sorted(models, key=lambda name: (name not in slow, list(CASES).index(name)))
    compiled = [v for v in variants if v.is_ours or v.is_inductor]
    waiting = deque(
        (model, variant.name)
        for model in ordered
        for variant in compiled
        if given.again or not (given.out / "cold" / f"{model}--{variant.name}.json").exists()
    )
    threads = str(max(1, (os.cpu_count() or 1) // given.prepare))
    running: list[tuple[subprocess.Popen[bytes], str]] = []
    logs = given.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    while waiting or running:
        while waiting and len(running) < given.prepare and time.monotonic() < deadline:
            model, name = waiting.popleft()
            with (logs / f"{model}--{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    _command(given, "compile", model, name), cwd=ROOT, stdout=log, stderr=log,
                    env=_environment(
                        TORCHINDUCTOR_COMPILE_THREADS=threads, OMP_NUM_THREADS=threads
                    ),
                )  # fmt: skip
            running.append((process, f"{model} {name}"))
        time.sleep(0.2)
        late = time.monotonic() > deadline
        for process, name in [*running]:
            if process.poll() is None and not late:
                continue
            if process.poll() is None:
                process.kill()
            running.remove((process, name))
            print(f"{name}: {'stopped' if late else process.returncode}", flush=True)
        if late:
            print(f"no time left for {len(waiting)} compiles", flush=True)
            return


# --------------------------------------------------------------------------- those that work


def _work(given: argparse.Namespace) -> None:
    import torch

    from benchmarks.gpu.models import CASES, Place
    from benchmarks.gpu.timing import Plan, machine, measure

    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here; --device cpu --tiny tries the benchmark")
    kind, model, *rest = given.work
    dtype = torch.float16 if given.device == "cuda" else torch.float32
    place = Place(torch.device(given.device), dtype, given.tiny)
    plan = Plan(given.rounds, given.batch, given.cache)
    variants = chosen(given.variants, given.ours, given.device)
    if kind == "compile":
        (name,) = rest
        _compile(given, model, next(v for v in variants if v.name == name), place, plan)
        return
    deadline = time.monotonic() + float(rest[0])
    gate = functools.partial(wait_at, Path(rest[1]), model) if len(rest) > 1 else None
    rows = measure(
        CASES[model], variants, place, plan, lambda text: print(text, flush=True), deadline, gate
    )
    about = machine(place)
    for row in rows.values():
        row["measured"] = about["date"]
    known = report.read(given.out, model)
    result: dict[str, Any] = {"model": model, "machine": about, "rows": {**known["rows"], **rows}}
    report.write(given.out / f"{model}.json", result)


def _compile(
    given: argparse.Namespace, model: str, variant: Variant, place: Any, plan: Any
) -> None:
    """One cold compile; the seconds of building the model are not counted."""
    import shutil

    import torch

    from benchmarks.gpu.models import CASES
    from benchmarks.gpu.timing import inputs_of, model_of, start

    case = CASES[model]
    shutil.rmtree(plan.cache / model / variant.name, ignore_errors=True)
    with torch.no_grad():
        made = model_of(case, place)
        inputs = inputs_of(case, place)
        made(**inputs[0])  # CUDA and its libraries are loaded by now
        contestant = start(case, variant, place, made, inputs, plan)
    seconds = contestant.row["first_call_s"]
    report.write(
        given.out / "cold" / f"{model}--{variant.name}.json",
        {"cold_s": seconds, "cold_threads": _threads()},
    )
    print(json.dumps({"model": model, "variant": variant.name, "cold_s": seconds}))


def _threads() -> int:
    """How many threads Inductor compiles with: fewer where other compiles run beside."""
    return int(os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", os.cpu_count() or 1))


if __name__ == "__main__":
    main()
