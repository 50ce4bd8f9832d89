"""Rewright: a declarative graph-rewriting compiler for PyTorch inference.

    fast = torch.compile(model, backend="rewright")         # just in time; needs no import
    program = rewright.compile(model, args)                 # ahead of time

The names below load their module when they are first used, so importing this package costs next
to nothing; TensorRT loads when a program first needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rewright import errors as errors
from rewright.errors import RewrightError as RewrightError
from rewright.interop.on_import import declare_with_torch

if TYPE_CHECKING:  # what type checkers see; `_PUBLIC` is what runs
    from rewright.artifact.loading import load as load
    from rewright.compiler import compile as compile
    from rewright.compiler import compile_exported as compile_exported
    from rewright.frontends.inputs import Input as Input
    from rewright.program import CompiledProgram as CompiledProgram
    from rewright.settings import Settings as Settings
    from rewright.statistics import Statistics as Statistics
    from rewright.statistics import reset_stats as reset_stats
    from rewright.statistics import stats as stats

__version__ = "0.1.0"

# Public name -> the module that defines it.
_PUBLIC = {
    "CompiledProgram": "rewright.program",
    "Input": "rewright.frontends.inputs",
    "Settings": "rewright.settings",
    "Statistics": "rewright.statistics",
    "compile": "rewright.compiler",
    "compile_exported": "rewright.compiler",
    "load": "rewright.artifact.loading",
    "reset_stats": "rewright.statistics",
    "stats": "rewright.statistics",
}

__all__ = ["RewrightError", "__version__", "errors", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


declare_with_torch()  # so that torch.export.load knows what our exported programs call
