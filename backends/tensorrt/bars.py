"""Progress bars of builds, on standard error, where that is a terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from rewright.backends.tensorrt.progress import Watcher


class Bars:
    """A bar for each phase of a build while it lasts; a :class:`Watcher`, for several threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[tuple[int, str], TaskID] = {}
        self._lock = threading.Lock()

    def started(self, phase: str, parent: str | None, steps: int) -> None:
        """Shows a bar, below that of its parent."""
        with self._lock:
            indent = "  " if parent else ""
            task = self._progress.add_task(f"{indent}{phase}", total=max(steps, 1))
            self._tasks[threading.get_ident(), phase] = task

    def stepped(self, phase: str, step: int) -> None:
        """Moves the bar on."""
        with self._lock:
            task = self._tasks.get((threading.get_ident(), phase))
            if task is not None:
                self._progress.update(task, completed=step + 1)

    def finished(self, phase: str) -> None:
        """Takes the bar away."""
        with self._lock:
            task = self._tasks.pop((threading.get_ident(), phase), None)
            if task is not None:
                self._progress.remove_task(task)


@contextmanager
def bars(console: Console | None = None) -> Iterator[Watcher | None]:
    """What shows the builds of a block: None where nobody would see it.

    Args:
        console: where to; standard error by default.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)
