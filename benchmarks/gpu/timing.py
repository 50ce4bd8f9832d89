"""How one model is measured: every variant in one process, in turns.

The method: inputs rotate among a few sets, as a user's do; every timing is of a batch of calls long
enough for the clock, between two events of the device; variants take turns in each round, in
another order each time, so that a clock that drifts favours none; medians and quartiles are over
rounds.
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import torch
from torch import Tensor, nn

from benchmarks.gpu.models import Case, Inputs, Place, widened
from benchmarks.gpu.variants import Run, Variant, own_copy

SETS: Final = 3
"""So many sets of inputs take turns."""


@attrs.frozen
class Plan:
    """How much is measured.

    Attributes:
        rounds: of all variants.
        batch: the seconds that a batch of calls takes about.
        cache: where compiled kernels are kept, a folder for each model and variant.
    """

    rounds: int = 30
    batch: float = 0.012
    cache: Path = Path("/tmp/gpu-benchmark-cache")


Row = dict[str, Any]


@contextlib.contextmanager
def cache_of(plan: Plan, case: Case, variant: Variant) -> Iterator[None]:
    """Torch's compile caches in a folder of their own, so that no variant warms up another's."""
    folder = plan.cache / case.name / variant.name
    names = {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": folder / "triton"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(path) for name, path in names.items()})
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def model_of(case: Case, place: Place) -> nn.Module:
    """The model, the same weights each time."""
    torch.manual_seed(0)
    return case.build(place)


def inputs_of(case: Case, place: Place, count: int = SETS) -> list[Inputs]:
    """Sets of inputs, the same each time."""
    torch.manual_seed(1)
    return [case.inputs(place) for _ in range(count)]


def reference(case: Case, place: Place, model: nn.Module, inputs: Sequence[Inputs]) -> list[Tensor]:
    """The results in float32, computed by eager mode without TF32."""
    wide = model_of(case, attrs.evolve(place, dtype=torch.float32))
    wide.load_state_dict(model.state_dict())
    for (_, target), (_, source) in zip(wide.named_buffers(), model.named_buffers(), strict=True):
        target.copy_(source)
    with exact_float32():
        results = []
        for given in inputs:
            _reset(case, wide)
            results.append(wide(**widened(given)).double().cpu())
    return results


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Without TF32."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    cudnn = torch.backends.cudnn
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with cudnn.flags(cudnn.enabled, cudnn.benchmark, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _reset(case: Case, model: nn.Module) -> None:
    if case.before is not None:
        case.before(model)


def error_of(results: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The relative L2 norm of the difference, over all results."""
    pairs = [(a.double().cpu(), b) for a, b in zip(results, expected, strict=True)]
    difference = sum(float((a - b).square().sum()) for a, b in pairs)
    return (difference / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5


# --------------------------------------------------------------------------- one variant


@attrs.define
class Contestant:
    """A variant that is ready to be timed."""

    variant: Variant
    model: nn.Module
    run: Run
    row: Row
    times: list[float] = attrs.field(factory=list)
    calls: int = 1


def start(
    case: Case, variant: Variant, place: Place, model: nn.Module, inputs: Sequence[Inputs],
    plan: Plan,
) -> Contestant:  # fmt: skip
    """Compiles a variant and makes its first calls, which are timed apart."""
    own = own_copy(model)
    before = _reserved(place)
    began = time.perf_counter()
    with cache_of(plan, case, variant):
        run = variant.prepare(own, inputs[0])
        _reset(case, own)
        run(inputs[0])
        _wait(place)
        first = time.perf_counter() - began
        for given in (*inputs, *inputs):  # graphs are recorded within the first few calls
            run(given)
        _wait(place)
    row: Row = {"first_call_s": first, "settings": dict(variant.settings)}
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run(inputs[0])
        _wait(place)
        row["peak_allocated_mb"] = torch.cuda.max_memory_allocated() / 2**20
        row["reserved_mb"] = (_reserved(place) - before) / 2**20
    return Contestant(variant, own, run, row)


def _reserved(place: Place) -> int:
    return torch.cuda.memory_reserved() if place.device.type == "cuda" else 0


def _wait(place: Place) -> None:
    if place.device.type == "cuda":
        torch.cuda.synchronize()


def batch_ms(place: Place, run: Run, inputs: Sequence[Inputs], calls: int) -> float:
    """Milliseconds per call of `calls` calls, back to back."""
    if place.device.type != "cuda":
        began = time.perf_counter()
        for number in range(calls):
            run(inputs[number % len(inputs)])
        return (time.perf_counter() - began) * 1e3 / calls
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for number in range(calls):
        run(inputs[number % len(inputs)])
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / calls


def latency_ms(place: Place, run: Run, given: Inputs) -> float:
    """Milliseconds of one call until its result is there, by the host's clock."""
    _wait(place)
    began = time.perf_counter()
    run(given)
    _wait(place)
    return (time.perf_counter() - began) * 1e3


# --------------------------------------------------------------------------- one model


def measure(
    case: Case, variants: Sequence[Variant], place: Place, plan: Plan,
    say: Callable[[str], None], deadline: float = float("inf"),
    gate: Callable[[], None] | None = None,
) -> dict[str, Row]:  # fmt: skip
    """The rows of a model's variants; one that fails has its error as its row.

    Ours get ready first, then torch's in their order; none is begun that would not be ready by the
    deadline if it took as long as the slowest before it. All that could be is ready when `gate` is
    called; it comes back when the machine is quiet.
    """
    torch._dynamo.config.recompile_limit = 256  # each variant compiles the same code again
    model, inputs = model_of(case, place), inputs_of(case, place)
    with torch.no_grad():
        expected = reference(case, place, model, inputs)
        gc.collect()
        rows: dict[str, Row] = {}
        ready: list[Contestant] = []
        slowest = 0.0
        for variant in sorted(variants, key=lambda variant: not variant.is_ours):
            began = time.monotonic()
            if began + slowest > deadline:
                say(f"{case.name}: no time left for {variant.name}")
                continue
            made = _started(case, variant, place, model, inputs, plan, rows)
            if made is None:
                say(f"  {variant.name}: {rows[variant.name]['error_text']}")
                continue
            results = []
            for given in inputs:
                _reset(case, made.model)
                results.append(made.run(given).clone())
            made.row["error"] = error_of(results, expected)
            say(f"  {variant.name}: {made.row['first_call_s']:.1f} s, {made.row['error']:.2e}")
            ready.append(made)
            slowest = max(slowest, time.monotonic() - began)
        if gate is not None:
            gate()
        _rounds(case, ready, place, inputs, plan)
    rows.update({made.variant.name: _summary(made) for made in ready})
    return {variant.name: rows[variant.name] for variant in variants if variant.name in rows}


def _started(
    case: Case, variant: Variant, place: Place, model: nn.Module, inputs: Sequence[Inputs],
    plan: Plan, rows: dict[str, Row],
) -> Contestant | None:  # fmt: skip
    if variant.is_exported and case.not_exported is not None:
        rows[variant.name] = {"error_text": f"not tried: {case.not_exported}"}
        return None
    try:
        return start(case, variant, place, model, inputs, plan)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        rows[variant.name] = {"error_text": text, "traceback": traceback.format_exc()[-3000:]}
        gc.collect()
        return None


def _rounds(
    case: Case, ready: Sequence[Contestant], place: Place, inputs: Sequence[Inputs], plan: Plan
) -> None:
    for made in ready:
        _reset(case, made.model)
        one = batch_ms(place, made.run, inputs, 3)
        made.calls = max(3, min(int(plan.batch * 1e3 / max(one, 1e-3)) + 1, case.most or 10_000))
        made.row["calls"] = made.calls
        made.row["latencies"] = []
    for number in range(plan.rounds):
        at = number % max(len(ready), 1)
        for made in (*ready[at:], *ready[:at]):
            _reset(case, made.model)
            made.times.append(batch_ms(place, made.run, inputs, made.calls))
            _reset(case, made.model)
            given = inputs[number % len(inputs)]
            made.row["latencies"].append(latency_ms(place, made.run, given))


def _summary(made: Contestant) -> Row:
    low, middle, high = quartiles(made.times)
    latencies = made.row.pop("latencies")
    return {
        **made.row, "ms": middle, "ms_quartiles": [low, high], "ms_least": min(made.times),
        "latency_ms": statistics.median(latencies), "rounds": len(made.times),
        "ours": made.variant.is_ours, "inductor": made.variant.is_inductor,
    }  # fmt: skip


def quartiles(times: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    if len(times) < 2:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


def machine(place: Place) -> Mapping[str, Any]:
    """What the numbers were measured on."""
    import platform

    versions = {"torch": torch.__version__, "python": platform.python_version()}
    for name in ("transformers", "diffusers", "timm", "triton"):
        with contextlib.suppress(Exception):
            versions[name] = __import__(name).__version__
    gpu = torch.cuda.get_device_name() if place.device.type == "cuda" else "none (CPU)"
    return {
        "gpu": gpu, "versions": versions, "cuda": torch.version.cuda,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }  # fmt: skip
