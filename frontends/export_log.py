"""What torch says while it exports, kept back: where it fails, the error says it, on a few lines.

A failing torch.export prints the graph that it had so far, once for each of its layers, and warns
in its log; then it raises an error that says the same. What is kept back goes to our own log, at
level DEBUG, if the export fails, and to where it was meant for if it does not.
"""

from __future__ import annotations

import builtins
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

_log: Final = logging.getLogger(__name__)


class _Kept:
    """Keeps back what one thread logs and prints, unless somebody has asked for it.

    Attributes:
        is_asked_for: whether ``TORCH_LOGS`` names something of torch's.
        records: what was logged, with the handlers that it was meant for.
        printed: what was printed.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        logs = os.environ.get("TORCH_LOGS", "").split(",")
        self.is_asked_for = any(name and "rewright" not in name for name in logs)
        self.records: list[tuple[logging.Handler, logging.LogRecord]] = []
        self.printed: list[str] = []

    def passes(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        """What `handler` filters by."""
        if record.thread != self.thread or record.levelno < logging.WARNING:
            return True
        if self.is_asked_for or logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            return True
        self.records.append((handler, record))
        return False

    def print(self, *values: Any, **options: Any) -> None:
        """In the place of the built-in."""
        kept = threading.get_ident() == self.thread and not self.is_asked_for
        if kept and options.get("file") is sys.stderr:
            self.printed.append(" ".join(map(str, values)))
        else:
            builtins.print(*values, **options)  # noqa: T201 - as torch would

    def texts(self) -> list[str]:
        """All that was kept, each text once."""
        logged = (record.getMessage() for _, record in self.records)
        return [*dict.fromkeys(text.strip() for text in (*logged, *self.printed))]


@contextmanager
def torch_log_kept() -> Iterator[_Kept]:
    """Keeps torch's log back, while it loads what was exported, say.

    Not what ``TORCH_LOGS`` asks for, and nothing of other threads.
    """
    kept = _Kept()
    filters = [(handler, partial(kept.passes, handler)) for handler in _handlers()]
    for handler, made in filters:
        handler.addFilter(made)
    try:
        yield kept
    except Exception:
        for text in kept.texts():
            _log.debug("torch said before it failed: %s", text)
        kept.records.clear()
        kept.printed.clear()
        raise
    finally:
        for handler, made in filters:
            handler.removeFilter(made)
        for handler, record in kept.records:
            handler.handle(record)
        for text in kept.printed:
            sys.stderr.write(f"{text}\n")


def _handlers() -> list[logging.Handler]:
    """Those of all loggers of torch's: what has an alias in ``TORCH_LOGS`` has one of its own."""
    known = logging.root.manager.loggerDict
    loggers = [known[name] for name in [*known] if f"{name}.".startswith("torch.")]
    return [*dict.fromkeys(h for found in loggers for h in getattr(found, "handlers", ()))]


@contextmanager
def export_kept_quiet() -> Iterator[None]:
    """Keeps back what torch logs and prints while it exports: under its tracing lock, or alone."""
    from torch.export import _trace  # which torch itself imports when it first exports

    module = vars(_trace)
    before = module.get("print")
    with torch_log_kept() as kept:
        module["print"] = kept.print
        try:
            yield
        finally:
            if before is None:
                del module["print"]
            else:
                module["print"] = before
