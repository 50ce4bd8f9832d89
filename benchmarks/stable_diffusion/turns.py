"""Variants side by side: each compiles in a process of its own, then they make images in turns.

Compiling takes most of the time and needs no quiet machine; so all compile at once, and while one
makes an image to be timed, the others wait for word. A process each also keeps them apart: Dynamo
looks through everything that was compiled of a function in each call, so variants in one process
would slow one another down.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from benchmarks.gpu.timing import quartiles

ROOT = Path(__file__).resolve().parents[2]

Say = Callable[[str], None]
Row = dict[str, Any]

LAST_IMAGE: Final = 60.0
"""Seconds that one image may take before its process is given up."""

_PATIENCE: Final = 10.0


@attrs.define
class Worker:
    """A process that makes images when asked.

    Attributes:
        name: of its variant.
        process: the process.
        pipe: to it.
        row: what is known of the variant.
        machine: what it runs on, once it has said so.
        timings: seconds of each image, and of its parts.
    """

    name: str
    process: subprocess.Popen[bytes]
    pipe: Connection
    row: Row = attrs.field(factory=dict)
    machine: Mapping[str, Any] = attrs.field(factory=dict)
    timings: list[tuple[float, Mapping[str, float]]] = attrs.field(factory=list)

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> Worker:
        """Starts one, which is told the number of its end of the pipe."""
        here, there = Pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *command, str(there.fileno())], cwd=ROOT, stdout=file,
                stderr=file, env=dict(environment), pass_fds=[there.fileno()],
            )  # fmt: skip
        there.close()
        return cls(name, process, here)

    @property
    def is_well(self) -> bool:
        """Whether nothing went wrong so far."""
        return "error_text" not in self.row

    def receive(self) -> Any:
        """What it says; one that ended without a word has an error as its row."""
        try:
            said = self.pipe.recv()
        except (EOFError, OSError):
            code = self.process.wait()
            said = {"row": {"error_text": f"the process ended with {code}; see its log"}}
        self.row.update(said.get("row", {}))
        self.machine = said.get("machine", self.machine)
        return said

    def ask(self, seconds: float, *question: Any) -> Any:
        """Its answer; one that takes longer is stopped."""
        try:
            self.pipe.send(question)
        except OSError:  # it is gone
            return self.receive()
        if not self.pipe.poll(seconds):
            self.stop(f"no answer to {question[0]!r} within {seconds:.0f} s")
            return {}
        return self.receive()

    def stop(self, why: str) -> None:
        """Ends the process; `why` is its row's error."""
        self.process.kill()
        self.process.wait()
        self.row["error_text"] = why


def end(workers: Sequence[Worker]) -> None:
    """Lets them end by themselves, and after a while ends them."""
    for worker in workers:
        worker.pipe.close()  # who waits for a question ends
    until = time.monotonic() + _PATIENCE
    for worker in workers:
        try:
            worker.process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


# --------------------------------------------------------------------------- the one that waits


def get_ready(workers: Sequence[Worker], by: float, say: Say) -> None:
    """Comes back when each worker is ready, has failed, or was stopped at the time `by`."""
    waiting = {worker.pipe: worker for worker in workers}
    while waiting:
        left = by - time.monotonic()
        found = wait([*waiting], max(left, 0))
        for pipe in found:
            worker = waiting.pop(pipe)
            worker.receive()
            seconds = worker.row.get("first_image_s")
            took = "" if seconds is None else f", {seconds:.1f} s until the first image"
            say(f"{worker.name}: {worker.row.get('error_text', 'ready' + took)}")
        if not found and left <= 0:
            for worker in waiting.values():
                worker.stop("not ready in time")
                say(f"{worker.name}: not ready in time")
            return


def take_turns(workers: Sequence[Worker], rounds: int, by: float, say: Say) -> Iterator[int]:
    """Rounds of images, one of each worker in a round, each time in another order.

    Yields the number of rounds so far, after each.
    """
    for number in range(rounds):
        ready = [worker for worker in workers if worker.is_well]
        at = number % max(len(ready), 1)
        for worker in (*ready[at:], *ready[:at]):
            if time.monotonic() > by:
                say(f"the time is over after {number} rounds")
                return
            answer = worker.ask(LAST_IMAGE, "paint", 100 + number)
            if "seconds" in answer:
                worker.timings.append((answer["seconds"], answer["parts"]))
            else:
                say(f"{worker.name}: {worker.row.get('error_text')}")
        yield number + 1


def summary(worker: Worker) -> Row:
    """The row of a variant: medians over its images."""
    if not worker.timings:
        return dict(worker.row)
    times = [seconds * 1e3 for seconds, _ in worker.timings]
    low, middle, high = quartiles(times)
    parts = [part for _, part in worker.timings]
    return {
        **worker.row, "ms": middle, "ms_quartiles": [low, high], "ms_least": min(times),
        "ms_most": max(times), "rounds": len(times),
        "parts_ms": {name: median(each[name] for each in parts) * 1e3 for name in parts[0]},
    }  # fmt: skip


# --------------------------------------------------------------------------- those that work


def serve(pipe: Connection, answers: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Answers questions until nobody asks any more."""
    while True:
        try:
            question, *given = pipe.recv()
        except EOFError:
            return
        pipe.send(dict(answers[question](*given)))


def environment(folder: Path, threads: int) -> dict[str, str]:
    """Of a process whose compiled code is kept in `folder`, none of it another's."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {
        **os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"), "REWRIGHT_CACHE_DIR": str(folder / "rewright"),
        "TORCHINDUCTOR_COMPILE_THREADS": str(threads), "OMP_NUM_THREADS": str(threads // 2 or 1),
    }  # fmt: skip
