"""Why a rule did not fire: reasons that cost nothing until somebody reads them."""

from __future__ import annotations

from typing import Any


class NoMatch:
    """A refusal. It counts as false, and its text is put together only when it is shown.

        return NoMatch("{s} scales rows, not columns", s=s)

    Args:
        reason: the text, with ``{0}`` or ``{name}`` where arguments go (as in `str.format`).
        args: what goes in by number.
        kwargs: what goes in by name.
    """

    __slots__ = ("_args", "_kwargs", "_reason")

    def __init__(self, reason: str, /, *args: Any, **kwargs: Any) -> None:
        self._reason = reason
        self._args = args
        self._kwargs = kwargs

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        if not self._args and not self._kwargs:
            return self._reason
        return self._reason.format(*self._args, **self._kwargs)

    def __repr__(self) -> str:
        return f"NoMatch({str(self)!r})"
