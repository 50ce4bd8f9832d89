"""Where an FX node comes from: torch's metadata as a :class:`~rewright.ir.location.Location`."""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from typing import Any, Final

import torch
import torch.fx

from rewright.ir.location import Location

_FRAME: Final = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in')
_TORCH: Final = os.path.dirname(torch.__file__) + os.sep
_STEP: Final = re.compile(r"\.?_(?:modules|parameters|buffers)\['(?P<name>[^']*)'\]")


def location_of(node: torch.fx.Node) -> Location | None:
    """The user's line and module path of `node`, or None where torch recorded neither."""
    file, line = _innermost_frame(node.meta.get("stack_trace") or "")
    module = _module_path(node.meta.get("nn_module_stack") or {})
    return Location(file, line, module) if file or module else None


@lru_cache(maxsize=65536)
def _innermost_frame(trace: str) -> tuple[str, int]:
    """The innermost frame that is the user's: not torch's own, not generated code."""
    found = "", 0
    for frame in _FRAME.finditer(trace):
        file = frame["file"]
        generated = file.startswith("<")
        if not generated and not file.startswith((_TORCH, "torch/")):
            found = _shown(file), int(frame["line"])
    return found


@lru_cache(maxsize=4096)
def _shown(file: str) -> str:
    """`file` as people know it: from its package on, or relative to where they are."""
    for root in sorted((p for p in sys.path if p), key=len, reverse=True):
        if file.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(file, root)
    here = os.getcwd()
    return os.path.relpath(file, here) if file.startswith(here + os.sep) else file


def _module_path(stack: dict[str, Any]) -> str:
    if not stack:
        return ""
    last: Any = list(stack.values())[-1]
    return clean_path(str(last[0] if isinstance(last, tuple) else last))


@lru_cache(maxsize=65536)
def clean_path(path: str) -> str:
    """A module or tensor path without Dynamo's spelling.

    ``L['self']._modules['layers']._modules['0'].attn`` is ``layers.0.attn``.
    """
    path = _STEP.sub(r".\g<name>", path)
    path = re.sub(r"^[LG]\['(?:self|fn|mod|module)'\]", "", path)
    path = re.sub(r"^[LG]\['([^']+)'\]", r"\1", path)
    path = re.sub(r"\[['\"]?([^'\"\]]+)['\"]?\]", r".\1", path)
    return re.sub(r"\.+", ".", path).strip(".")
