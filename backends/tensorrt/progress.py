"""What a build tells while it runs, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import attrs


class Watcher(Protocol):
    """Is told of the phases of a build. Called from the thread of the build."""

    def started(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase began."""

    def stepped(self, phase: str, step: int) -> None:
        """A phase made a step."""

    def finished(self, phase: str) -> None:
        """A phase ended."""


@attrs.define(eq=False)
class Stop:
    """Asks a build to stop; it does at its next step."""

    _event: threading.Event = attrs.field(factory=threading.Event)

    def ask(self) -> None:
        """Asks the build to stop."""
        self._event.set()

    @property
    def asked(self) -> bool:
        """Whether it was asked to."""
        return self._event.is_set()


def monitor(trt: Any, stop: Stop, watcher: Watcher | None) -> Any:
    """TensorRT's progress monitor, which hands phases on and stops when asked.

    Args:
        trt: the TensorRT module.
        stop: what stops the build.
        watcher: what is told of its phases.
    """

    class Monitor(trt.IProgressMonitor):
        """Passes on what TensorRT says."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if watcher is not None:
                watcher.started(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if watcher is not None:
                watcher.stepped(phase_name, step)
            return not stop.asked

        def phase_finish(self, phase_name: str) -> None:
            if watcher is not None:
                watcher.finished(phase_name)

    return Monitor()


def interruptible(work: Callable[[], Any], stop: Stop) -> Any:
    """``work()`` in a thread of its own, so that Ctrl-C arrives here and stops it.

    TensorRT's build is one call in which Python sees no signals.

    Raises:
        KeyboardInterrupt: it was asked for; `work` has ended.
    """
    result: list[Any] = []
    failure: list[BaseException] = []
    ended = threading.Event()  # Thread.join() forgets a thread that it was interrupted over

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="tensorrt-build", daemon=True)
    thread.start()
    try:
        while not ended.wait(0.05):
            pass
    except KeyboardInterrupt:
        stop.ask()
        ended.wait()
        raise
    if failure:
        raise failure[0]
    return result[0]
