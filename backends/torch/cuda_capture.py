"""Recording and replaying CUDA graphs: what touches the device, and nothing else.

All graphs of a program share one memory pool, so they may use the same memory one after the other,
never at once. A program therefore replays them one at a time: on the host by its lock, on the
device by an event that a stream waits for where it is another one than the last replay's.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import torch

_log: Final = logging.getLogger(__name__)

_recording: Final = threading.Lock()
"""One recording at a time: each begins by waiting for the device, which would break another."""


class Recording(Protocol):
    """What was recorded."""

    def replay(self) -> None:
        """Runs it again, on the current stream."""
        ...

    def reset(self) -> None:
        """Gives back its memory."""
        ...


class Recorder(Protocol):
    """Records what a function launches on `device`."""

    device: torch.device

    def is_busy(self) -> bool:
        """Whether the caller records the current stream itself."""
        ...

    def record(
        self, run: Callable[..., Any], args: Sequence[Any], is_first: bool
    ) -> tuple[Recording, Any]:
        """Records ``run(*args)``, which computes nothing yet.

        Args:
            run: what is recorded; has run before, in this thread, on arguments like these.
            args: its arguments, whose memory replays will use.
            is_first: whether no other recording is kept, so that a new pool is needed.

        Returns:
            The recording, and what `run` returned: memory that a replay fills.

        Raises:
            RuntimeError: it can't be recorded; the device is as it was before.
        """
        ...

    def begin(self) -> None:
        """The current stream waits for what was done between the last begin and end."""
        ...

    def end(self) -> None:
        """Marks what the next begin waits for."""
        ...


class CudaRecorder:
    """Records on a CUDA device.

    Args:
        device: the device, ``cuda:0``.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self._index = self.device.index or 0
        self._pool: Any = None
        self._side: Any = None
        self._done: Any = None
        self._stream: Any = None
        self._handle: int | None = None

    def is_busy(self) -> bool:
        """Whether the caller records the current stream itself."""
        return torch.cuda.is_current_stream_capturing()

    # -- replays

    def begin(self) -> None:
        """The current stream waits for what was done between the last begin and end."""
        handle = torch._C._cuda_getCurrentRawStream(self._index)
        if handle == self._handle:
            return
        stream = torch.cuda.current_stream(self._index)
        if self._done is None:
            self._done = torch.cuda.Event()
        else:
            stream.wait_event(self._done)
        self._stream, self._handle = stream, handle

    def end(self) -> None:
        """Marks what the next begin waits for."""
        self._done.record(self._stream)

    # -- recordings

    def record(
        self, run: Callable[..., Any], args: Sequence[Any], is_first: bool
    ) -> tuple[Recording, Any]:
        """Records ``run(*args)``: see :class:`Recorder`."""
        with _recording, torch.cuda.device(self._index), torch.no_grad():
            torch.cuda.synchronize()
            if is_first or self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            if self._side is None:
                self._side = torch.cuda.Stream(self._index)
            with _workspaces_apart(), _no_collection(), torch.cuda.stream(self._side):
                return self._record(run, args)

    def _record(self, run: Callable[..., Any], args: Sequence[Any]) -> tuple[Recording, Any]:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may allocate and free meanwhile: only this one is watched.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            returned = run(*args)
            graph.capture_end()
        except BaseException:
            self._clean_up(graph)
            raise
        return graph, returned

    def _clean_up(self, graph: torch.cuda.CUDAGraph) -> None:
        """Leaves the device as it was before a recording that failed.

        Torch ends a broken recording with an error before it has told its allocator and, up to
        2.11, its random generator that it is over. The allocator is told here; the generator is
        set right by the end of another recording, one that can't fail.
        """
        with contextlib.suppress(RuntimeError):
            graph.capture_end()
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            with contextlib.suppress(RuntimeError, AttributeError):
                getattr(torch._C, name)(self._index, self._pool)
        graph.reset()
        self._pool = None
        try:
            torch.cuda.synchronize()
            after = torch.cuda.CUDAGraph()
            after.capture_begin(capture_error_mode="thread_local")
            torch.zeros(1, device=self.device)
            after.capture_end()
            after.reset()
        except RuntimeError:
            _log.warning("CUDA is in no good state after a failed capture", exc_info=True)
        self._side = None


@contextlib.contextmanager
def _workspaces_apart() -> Iterator[None]:
    """Gives a recording scratch memory of cuBLAS of its own, from its pool.

    Torch keeps one for each stream. Recordings that share it could not run at once, though they
    belong to programs that know nothing of each other.
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: it may free what a recording must not see freed."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
