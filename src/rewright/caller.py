"""The user's own line among the frames of a call: what warnings point at, and errors name.

:func:`warnings.warn` counts frames, and between a line of the user's and one of ours there may be
any number of torch's; its ``skip_file_prefixes`` is of Python 3.12.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
import warnings
from functools import lru_cache
from types import FrameType, TracebackType
from typing import Final

from rewright.errors import RewrightWarning

__all__ = ["GENERATED", "is_users", "user_frame", "user_line", "warn"]

_OURS: Final = os.path.dirname(__file__) + os.sep
_PYTHON: Final = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")
)
_PACKAGES: Final = ("site-packages", "dist-packages")
"""Folders inside of Python's own library that hold others' code."""

GENERATED: Final = ".generated.py"
"""The end of what tracebacks call the file of Python that we make of a graph."""

_MADE: Final = ("<string>", "<eval_with_key>", "<frozen ")
"""What stands for a file in code that was made by torch or Python. What is typed at a prompt is
the user's, and so is the script of ``python -c``."""


def warn(message: str, category: type[RewrightWarning] = RewrightWarning) -> None:
    """Warns at the line of the user's that the call came from: the innermost outside torch and us.

    Where there is none, as in a thread of ours, it is the line that calls this.

    Args:
        message: the warning.
        category: its class.
    """
    here = sys._getframe(1)
    frame = user_frame(here) or here
    known = frame.f_globals
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=known.get("__name__") or "<unknown>",
        registry=known.setdefault("__warningregistry__", {}),
    )


def user_frame(start: FrameType) -> FrameType | None:
    """The innermost of the user's frames, from `start` outwards; None where there is none."""
    return next((frame for frame, _ in traceback.walk_stack(start) if _is_users(frame)), None)


def user_line(trace: TracebackType | None) -> str | None:
    """The innermost of the user's lines that an error came through: ``net.py:12 (forward)``.

    Args:
        trace: of the error; what is above it, up to where it was caught, is no part of it.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(trace) if _is_users(frame)]
    if not frames:
        return None
    frame, line = frames[-1]
    file = frame.f_code.co_filename
    shown = os.path.relpath(file) if file.startswith(os.getcwd() + os.sep) else file
    return f"{shown}:{line} ({frame.f_code.co_name})"


def _is_users(frame: FrameType) -> bool:
    file, name = frame.f_code.co_filename, frame.f_globals.get("__name__")
    return is_users(file) or (file == "<string>" and name == "__main__")


@lru_cache(maxsize=4096)
def is_users(file: str) -> bool:
    """Whether `file` is neither ours, nor torch's, nor Python's own, nor made by one of these."""
    torch = sys.modules.get("torch")
    theirs = (os.path.dirname(torch.__file__) + os.sep,) if torch and torch.__file__ else ()
    if file.startswith((*_MADE, *theirs, _OURS)) or file.endswith(GENERATED):
        return False
    is_python = os.path.realpath(file).startswith(_PYTHON)
    return not is_python or any(f"{os.sep}{name}{os.sep}" in file for name in _PACKAGES)
