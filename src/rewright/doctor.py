"""``rewright doctor``: what this machine has of what Rewright can use, and what to do where not."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, Final, Literal

import attrs

import rewright
from rewright.errors import RewrightError

__all__ = ["CHECKS", "Finding", "examine", "main", "parser"]

Status = Literal["ok", "absent", "warning", "failure"]

_OLDEST_PYTHON: Final = (3, 10)
_OLDEST_TORCH: Final = (2, 11)
_TOLERANCE: Final = 1e-4
_ENGINE_TOLERANCE: Final = 1e-2
"""Engines may compute products in TF32."""


@attrs.frozen
class Finding:
    """One line of what was found.

    Attributes:
        check: what was looked at.
        status: ``absent`` is what programs can do without; ``warning`` costs something;
            ``failure`` makes compiles fail.
        found: what there is.
        advice: what to do; empty where all is well.
    """

    check: str
    status: Status
    found: str
    advice: str = ""


# --------------------------------------------------------------------------- the checks


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    is_old = sys.version_info < _OLDEST_PYTHON
    yield Finding(
        "python", "failure" if is_old else "ok", found, "install Python 3.10 or newer" * is_old
    )


def _package() -> Iterator[Finding]:
    found = entry_points(group="torch_dynamo_backends")
    if any(point.name == "rewright" for point in found):
        yield Finding("rewright", "ok", f"{rewright.__version__}, known to torch.compile")
    else:
        yield Finding(
            "rewright",
            "warning",
            f'{rewright.__version__}, not installed: torch.compile(backend="rewright") needs '
            "`import rewright.frontends.dynamo` first",
            "pip install rewright, or pip install -e . in a clone",
        )


def _torch() -> Iterator[Finding]:
    import torch

    numbers = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if numbers < _OLDEST_TORCH:
        yield Finding("torch", "failure", torch.__version__, "pip install 'torch>=2.11'")
    else:
        yield Finding("torch", "ok", torch.__version__)


def _cxx() -> Iterator[Finding]:
    named = os.environ.get("CXX")
    found = next(
        (path for name in (named, "g++", "clang++") if name and (path := shutil.which(name))), None
    )
    if found:
        yield Finding("C++ compiler", "ok", found)
    else:
        yield Finding(
            "C++ compiler",
            "absent",
            'none; torch_backend="inductor" compiles C++ on a CPU',
            "install g++ (apt-get install g++), or set CXX, if you want Inductor",
        )


def _cuda() -> Iterator[Finding]:
    import torch

    if torch.version.cuda is None:
        yield Finding(
            "CUDA", "absent", "this torch is built for CPUs",
            "for a GPU, install a torch with CUDA: https://pytorch.org/get-started",
        )  # fmt: skip
        return
    if not torch.cuda.is_available():
        yield Finding(
            "CUDA", "warning", f"torch is built for CUDA {torch.version.cuda}, and finds no device",
            "check nvidia-smi, the driver's version, and CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
        return
    yield Finding("CUDA", "ok", torch.version.cuda)
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        held = f"{about.total_memory / 2**30:.0f} GiB"
        found = f"{about.name}, capability {about.major}.{about.minor}, {held}"
        yield Finding(f"GPU {number}", "ok", found)


def _tensorrt() -> Iterator[Finding]:
    from rewright.backends.tensorrt.library import FLAVORS, load

    for flavor in FLAVORS:
        try:
            library = load(flavor)
        except RewrightError as error:
            is_missing = "is not installed" in error.message
            yield Finding(
                f"TensorRT {flavor}", "absent" if is_missing else "failure", error.message,
                error.hint or "",
            )  # fmt: skip
            continue
        yield _engine(flavor, library.name, library.capabilities())


def _engine(flavor: str, name: str, capabilities: Sequence[tuple[int, int]]) -> Finding:
    """Builds an engine of one layer, and runs it where there is a GPU."""
    import torch

    check = f"TensorRT {flavor}"
    has_gpu = torch.cuda.is_available()
    if not has_gpu and not capabilities:
        return Finding(
            check, "absent", f"{name}; builds only where a GPU is",
            "pip install 'tensorrt-rtx>=1.5' builds without one",
        )  # fmt: skip
    gpu = torch.cuda.get_device_capability() if has_gpu else None
    if gpu is not None and capabilities and gpu not in capabilities:
        shown = ", ".join(f"{major}.{minor}" for major, minor in capabilities)
        return Finding(
            check, "absent", f"{name}; supports {shown}, and this GPU is {gpu[0]}.{gpu[1]}",
            'use target="tensorrt"' if flavor == "rtx" else "",
        )  # fmt: skip
    start = time.perf_counter()
    try:
        with _without_cache():
            error = _error_of("cuda" if has_gpu else "cpu", target=flavor, **_raising(has_gpu))
    except RewrightError as failure:
        return Finding(check, "failure", f"{name}; {failure.message}", failure.hint or _REPORT)
    seconds = time.perf_counter() - start
    if not has_gpu:
        return Finding(
            check, "ok", f"{name}; builds engines here ({seconds:.1f} s), which run where a GPU is"
        )
    if not error <= _ENGINE_TOLERANCE:
        return Finding(
            check, "failure", f"{name}; an engine's results are off by {error:.1e}", _REPORT
        )
    return Finding(check, "ok", f"{name}; builds and runs engines here ({seconds:.1f} s)")


def _raising(has_gpu: bool) -> Mapping[str, Any]:
    return {"on_engine_error": "raise" if has_gpu else "torch", "require_full_compilation": True}


def _cache() -> Iterator[Finding]:
    from rewright.store import default_store, format_size

    store = default_store()
    if not store.limit:
        yield Finding(
            "cache", "warning", "off: REWRIGHT_CACHE_SIZE is 0", "unset it to keep engines"
        )
        return
    entries = store.entries()
    damaged = [info.key[:12] for info in entries if info.fault]
    size = f"{format_size(store.size())} of {format_size(store.limit)}"
    held = f"{store.folder}: {len(entries)} entries, {size}"
    if damaged:
        yield Finding(
            "cache", "warning", f"{held}; {len(damaged)} damaged",
            f"rewright cache rm {' '.join(damaged[:8])}",
        )  # fmt: skip
    elif not _is_writable(str(store.folder)):
        yield Finding(
            "cache", "warning", f"{held}; it can't be written to",
            "set REWRIGHT_CACHE_DIR to a folder of yours",
        )  # fmt: skip
    else:
        yield Finding("cache", "ok", held)


def _is_writable(folder: str) -> bool:
    while not os.path.exists(folder):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    return os.access(folder, os.W_OK | os.X_OK)


def _ahead() -> Iterator[Finding]:
    import torch

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        start = time.perf_counter()
        error = _error_of(device, target=device)
        yield _compared(f"compile on {device}", error, time.perf_counter() - start)


def _just_in_time() -> Iterator[Finding]:
    import torch

    import rewright.frontends.dynamo  # noqa: F401 - registers itself with torch

    model, x = _model(), torch.linspace(-1, 1, 32).reshape(4, 8)
    start = time.perf_counter()
    options: dict[str, Any] = {"on_error": "raise", "target": "cpu"}
    with torch.no_grad():
        compiled: Any = torch.compile(model, backend="rewright", options=options)
        error = float((compiled(x) - model(x)).abs().max())
    yield _compared("torch.compile", error, time.perf_counter() - start)


def _compared(check: str, error: float, seconds: float) -> Finding:
    if not error <= _TOLERANCE:
        return Finding(check, "failure", f"results are off by {error:.1e}", _REPORT)
    return Finding(check, "ok", f"{seconds:.1f} s, results as in eager")


_REPORT: Final = "please report it with the output of `rewright doctor --json`"

CHECKS: Final[Mapping[str, Callable[[], Iterator[Finding]]]] = {
    "python": _python,
    "rewright": _package,
    "torch": _torch,
    "C++ compiler": _cxx,
    "CUDA": _cuda,
    "TensorRT": _tensorrt,
    "cache": _cache,
    "compile": _ahead,
    "torch.compile": _just_in_time,
}
"""What is looked at, in order."""


def examine(checks: Mapping[str, Callable[[], Iterator[Finding]]] = CHECKS) -> Iterator[Finding]:
    """What each check finds; one that fails itself is a finding, too."""
    for name, check in checks.items():
        try:
            yield from check()
        except RewrightError as error:
            yield Finding(name, "failure", error.message, error.hint or _REPORT)
        except Exception as error:  # whatever is broken here is what the doctor is asked about
            yield Finding(name, "failure", f"{type(error).__name__}: {error}", _REPORT)


# --------------------------------------------------------------------------- a small compile


def _model() -> Any:
    import torch

    torch_state = torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)
        ).eval()
    finally:
        torch.random.set_rng_state(torch_state)


def _error_of(device: str, **settings: Any) -> float:
    """The largest difference from eager of a small model compiled with `settings`."""
    import warnings

    import torch

    model, x = _model().to(device), torch.linspace(-1, 1, 32, device=device).reshape(4, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an engine does not run without a GPU is no news
        program = rewright.compile(model, (x,), **settings)
        return float((program(x) - model(x)).abs().max())


@contextmanager
def _without_cache() -> Iterator[None]:
    """An engine from the cache would tell nothing of whether one can be built."""
    before = os.environ.get("REWRIGHT_CACHE_SIZE")
    os.environ["REWRIGHT_CACHE_SIZE"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["REWRIGHT_CACHE_SIZE"]
        else:
            os.environ["REWRIGHT_CACHE_SIZE"] = before


# --------------------------------------------------------------------------- the command

_MARKS: Final[Mapping[Status, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "absent": ("--", "dim"),
    "warning": ("!!", "yellow"),
    "failure": ("XX", "bold red"),
}
"""How a status is shown: a mark, and its style on a terminal."""


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright doctor",
        description="Look at what this machine has, compile a small model, and say what to do "
        "where something is wrong. The exit status is 1 where a compile would fail.",
        epilog="example: rewright doctor --json > doctor.json",
    )
    made.add_argument("--json", action="store_true", help="write JSON")
    return made


def main(argv: Sequence[str]) -> int:
    """``rewright doctor``; returns the exit status."""
    from rich.console import Console

    options = parser().parse_args(argv)
    found: list[Finding] = []
    console = Console(highlight=False)
    with Console(stderr=True).status("looking ..."):
        for finding in examine():
            found.append(finding)
            if not options.json:
                _show(finding, console)
    if options.json:
        sys.stdout.write(json.dumps([attrs.asdict(each) for each in found], indent=2) + "\n")
    return int(any(each.status == "failure" for each in found))


def _show(finding: Finding, console: Any) -> None:
    from rich.text import Text

    mark, style = _MARKS[finding.status]
    first, *more = finding.found.splitlines() or [""]
    line = Text.assemble((f"{mark}  ", style), (f"{finding.check:<18}", "bold"), first)
    for text in more:
        line.append(f"\n{'':22}{text}")
    if finding.advice:
        line.append(f"\n{'':22}-> {finding.advice}", "cyan")
    console.print(line, soft_wrap=True)
