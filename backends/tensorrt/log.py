"""TensorRT's log: one logger for the process, which keeps what each thread caused.

TensorRT has one logger per process (a second one is refused), and reports most mistakes only
there: a setter returns None and logs. So whoever defines a network or builds an engine asks
afterwards what was logged meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

LOG: Final = logging.getLogger("rewright.tensorrt")

_NOISE: Final = ("catchCudaError",)
"""Follows every API error on a machine without a GPU, and says nothing of it."""

_KEPT: Final = 4096


@attrs.frozen
class Record:
    """One line of TensorRT's log.

    Attributes:
        number: grows by one with each line.
        level: a level of Python's `logging`.
        text: the line.
        thread: the thread that TensorRT was called in, or one of its own.
    """

    number: int
    level: int
    text: str
    thread: int

    @property
    def is_error(self) -> bool:
        """Whether something went wrong."""
        return self.level >= logging.ERROR


@attrs.define(eq=False)
class Journal:
    """The latest lines of TensorRT's log; hands them on to Python's `logging`."""

    _records: deque[Record] = attrs.field(factory=lambda: deque(maxlen=_KEPT))
    _lock: Any = attrs.field(factory=threading.Lock)
    _count: int = 0

    def write(self, level: int, text: str) -> None:
        """Takes a line; called by TensorRT, from any thread."""
        if any(noise in text for noise in _NOISE):
            return
        with self._lock:
            self._count += 1
            self._records.append(Record(self._count, level, text, threading.get_ident()))
        # Errors are raised by who caused them, with the node; here they are background.
        LOG.log(min(level, logging.INFO), "%s", text)

    @property
    def position(self) -> int:
        """The number of the last line."""
        return self._count

    def since(self, position: int, *, thread: int | None = None) -> list[Record]:
        """The lines after `position`, of one thread if given."""
        if self._count == position:
            return []
        with self._lock:
            return [
                record
                for record in self._records
                if record.number > position and thread in (None, record.thread)
            ]

    def errors(self, position: int, *, thread: int | None = None) -> list[str]:
        """The texts of the errors after `position`, each once, in order."""
        found = self.since(position, thread=thread)
        return list(dict.fromkeys(record.text for record in found if record.is_error))


JOURNAL: Final = Journal()
"""The journal of this process."""

_loggers: dict[str, Any] = {}


def logger_for(trt: Any) -> Any:
    """The logger of ours for a TensorRT module: always the same one."""
    name = trt.__name__
    if name not in _loggers:
        _loggers[name] = _make_logger(trt)
    return _loggers[name]


def _make_logger(trt: Any) -> Any:
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.CRITICAL,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):
        """Hands every line to the journal."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = levels[severity]
            if level > logging.DEBUG or LOG.isEnabledFor(logging.DEBUG):
                JOURNAL.write(level, text)

    return Logger()


_watching: dict[int, int] = {}
"""How many blocks of each thread watch now."""


@contextmanager
def watching() -> Iterator[Any]:
    """A function that gives the errors since the block began.

    Of all threads, for TensorRT has some of its own; but not of those that watch for themselves.
    """
    start, own = JOURNAL.position, threading.get_ident()
    _watching[own] = _watching.get(own, 0) + 1
    others: set[int] = set()

    def errors() -> list[str]:
        others.update(thread for thread in [*_watching] if thread != own)
        found = [r for r in JOURNAL.since(start) if r.is_error and r.thread not in others]
        return list(dict.fromkeys(record.text for record in found))

    try:
        yield errors
    finally:
        _watching[own] -= 1
        if not _watching[own]:
            del _watching[own]
