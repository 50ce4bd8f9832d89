"""This process's memory in the place of a GPU's, and streams that say who waits for whom."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch


class HostStream:
    """A stream that only writes down who waits for whom."""

    def __init__(self, handle: int, events: list[tuple[str, int, int]]) -> None:
        self.cuda_stream = handle
        self._events = events

    def wait_stream(self, stream: Any) -> None:
        self._events.append(("wait", self.cuda_stream, stream.cuda_stream))

    def record_event(self, event: Any = None) -> Any:
        return self.cuda_stream

    def wait_event(self, event: Any) -> None:
        self._events.append(("wait", self.cuda_stream, event))

    def synchronize(self) -> None:
        self._events.append(("synchronize", self.cuda_stream, self.cuda_stream))


class HostDevice:
    """This process's memory as a GPU's."""

    torch_device = torch.device("cpu")
    alignment = 64  # what torch's allocator for CPUs gives

    def __init__(self, capability: tuple[int, int] = (8, 9)) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.is_capturing = False
        self._capability = capability
        self._handles = itertools.count(100)
        self._current = threading.local()
        self.no_memory = False

    def refusal(self) -> str | None:
        return None

    def capability(self) -> tuple[int, int]:
        return self._capability

    def active(self) -> Any:
        return nullcontext()

    def stream(self) -> Any:
        return getattr(self._current, "stream", None) or HostStream(0, self.events)

    @contextmanager
    def on(self, handle: int) -> Iterator[None]:
        """Callers of this thread work on another stream meanwhile."""
        before = getattr(self._current, "stream", None)
        self._current.stream = HostStream(handle, self.events)
        yield
        self._current.stream = before

    def new_stream(self) -> Any:
        return HostStream(next(self._handles), self.events)

    def capturing(self) -> bool:
        return self.is_capturing

    def empty(self, size: int, stream: Any, user: Any) -> torch.Tensor:
        if self.no_memory:
            raise RuntimeError("out of memory")
        return torch.empty(size, dtype=torch.uint8)
