"""Calls of TensorRT's runtime, whose failures become errors with what TensorRT logged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs

from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.log import JOURNAL
from rewright.errors import EngineError


@attrs.frozen
class Asker:
    """Calls TensorRT for one engine.

    Attributes:
        library: the TensorRT.
        name: the engine's.
    """

    library: Library
    name: str

    def ask(self, doing: str, call: Callable[..., Any], *args: Any) -> Any:
        """What TensorRT returns.

        Args:
            doing: what for, as in "could not <doing>".
            call: TensorRT's function.
            args: its arguments, by position: their names differ between versions.

        Raises:
            EngineError: it returned False or None, raised, or logged an error in this thread.
        """
        position = JOURNAL.position
        result = self._call(doing, call, args)
        if result is None or result is False:
            raise self.failure(doing, position)
        return result

    def tell(self, doing: str, call: Callable[..., Any], *args: Any) -> None:
        """As :meth:`ask`, for what returns nothing: setters."""
        self._call(doing, call, args)

    def _call(self, doing: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        position = JOURNAL.position
        try:
            result = call(*args)
        except (RuntimeError, ValueError) as error:
            raise self.failure(doing, position, str(error)) from error
        # Some refusals are only logged, and what is returned is True or nothing at all.
        if JOURNAL.position != position and JOURNAL.errors(position, thread=threading.get_ident()):
            raise self.failure(doing, position)
        return result

    def failure(self, doing: str, position: int, also: str = "") -> EngineError:
        """An error with the log since `position`: this thread's lines, or else those of all."""
        errors = JOURNAL.errors(position, thread=threading.get_ident())
        texts = errors or JOURNAL.errors(position)
        if also and not any(also in text for text in texts):
            texts = [*texts, also]
        return EngineError(
            f"{self.library.name} could not {doing} of @{self.name}: "
            f"{' | '.join(texts) or 'it does not say why'}",
            engine=self.name,
        )
