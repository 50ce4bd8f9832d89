"""Many models in a short time: made ready side by side, then timed one after another on each GPU.

Most of a measurement is getting ready: building the model, loading what was compiled, comparing
results. That needs no quiet machine. So every model's process gets ready beside the others, and
waits at a gate; when all wait, the GPUs are idle, and each opens the gate for one model at a time.
"""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

_POLL: Final = 0.05
PER_MODEL: Final = 10.0
"""Seconds to keep for timing one model."""


def wait_at(gate: Path, model: str) -> None:
    """Says that `model` is ready, and comes back when it is its turn."""
    (gate / f"{model}.ready").touch()
    while not (gate / f"{model}.go").exists():
        time.sleep(_POLL)


@attrs.define
class _Runner:
    model: str
    process: subprocess.Popen[bytes]
    gate: Path

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def is_waiting(self) -> bool:
        return (self.gate / f"{self.model}.ready").exists() and not self.has_ended

    def go(self) -> None:
        (self.gate / f"{self.model}.go").touch()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[[str, Mapping[str, str], float], "subprocess.Popen[bytes]"]
"""Starts a model's process: its name, variables of the environment, seconds to get ready in."""


def run_together(
    models: Sequence[str],
    gpus: Sequence[str],
    gate: Path,
    deadline: float,
    start: Start,
    say: Callable[[str], None],
) -> None:
    """Starts all models, and times them by turns.

    Args:
        models: their names.
        gpus: a value of CUDA_VISIBLE_DEVICES each; models are dealt out among them.
        gate: an empty folder for signals.
        deadline: by the monotonic clock; what is not timed by then is stopped, and said.
        start: see `Start`.
        say: is told what happens.
    """
    lanes: list[deque[_Runner]] = [deque() for _ in gpus]
    turns = -(-len(models) // len(gpus))
    ready_by = deadline - PER_MODEL * turns
    for number, model in enumerate(models):
        lane = number % len(gpus)
        left = ready_by - time.monotonic()
        process = start(model, {"CUDA_VISIBLE_DEVICES": gpus[lane]}, left)
        lanes[lane].append(_Runner(model, process, gate))
    runners = [runner for lane in lanes for runner in lane]
    try:
        while any(not (r.has_ended or r.is_waiting) for r in runners):
            if time.monotonic() > ready_by:
                break
            time.sleep(_POLL)
        for runner in runners:
            if not (runner.has_ended or runner.is_waiting):
                runner.stop()
                say(f"{runner.model}: not ready in time")
        _take_turns(lanes, deadline, say)
    finally:
        for runner in runners:
            if not runner.has_ended:
                runner.stop()
                say(f"{runner.model}: stopped at the end of the time box")


def _take_turns(
    lanes: Sequence[deque[_Runner]], deadline: float, say: Callable[[str], None]
) -> None:
    at_work: list[_Runner | None] = [None] * len(lanes)
    while time.monotonic() < deadline:
        for number, lane in enumerate(lanes):
            runner = at_work[number]
            if runner is not None and runner.has_ended:
                say(f"{runner.model}: {runner.process.returncode}")
                at_work[number] = runner = None
            while runner is None and lane:
                following = lane.popleft()
                if following.is_waiting:
                    following.go()
                    at_work[number] = runner = following
        if not any(at_work) and not any(lanes):
            return
        time.sleep(_POLL)
