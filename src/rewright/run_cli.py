"""``rewright run`` and ``rewright bench``: a saved program, called on random or given inputs."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from rewright.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import sympy

    from rewright.ir.graph import Graph
    from rewright.program import CompiledProgram

__all__ = ["bench", "bench_parser", "run", "run_parser"]


# --------------------------------------------------------------------------- arguments


def run_parser() -> argparse.ArgumentParser:
    """The arguments of ``rewright run``."""
    made = argparse.ArgumentParser(
        prog="rewright run",
        description="Call a saved program once, and show what it takes and gives.",
        epilog="example: rewright run bert.rw --random --size s0=4",
    )
    _add_common(made)
    made.add_argument(
        "--inputs", metavar="FILE.safetensors", type=Path,
        help="tensors by the names of arguments; those that are not in it are drawn",
    )  # fmt: skip
    made.add_argument(
        "--random", action="store_true", help="draw inputs that fit (asked for, lest the numbers "
        "be taken for something)",
    )  # fmt: skip
    made.add_argument(
        "--save", metavar="FILE.safetensors", type=Path, help="write the results there"
    )
    return made


def bench_parser() -> argparse.ArgumentParser:
    """The arguments of ``rewright bench``."""
    made = argparse.ArgumentParser(
        prog="rewright bench",
        description="Call a saved program over and over on random inputs, and say how long it "
        "takes.",
        epilog="example: rewright bench bert.rw --size s0=8 --seconds 5",
    )
    _add_common(made)
    made.add_argument("--warmup", metavar="N", type=int, default=5, help="calls before (default 5)")
    made.add_argument(
        "--seconds", metavar="S", type=float, default=2.0, help="how long to measure (default 2)"
    )
    made.add_argument(
        "--runs", metavar="N", type=int, help="how many calls to measure, in the place of seconds"
    )
    return made


def _add_common(made: argparse.ArgumentParser) -> None:
    made.add_argument("file", metavar="FILE", type=Path, help="what program.save() wrote")
    made.add_argument("--device", help="where to run (default: where it was compiled for)")
    made.add_argument(
        "--size", metavar="SYMBOL=N", action="append", default=[],
        help="a size that varies, by the name that `rewright inspect` shows: s0=4",
    )  # fmt: skip
    made.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    made.add_argument("--json", action="store_true", help="write JSON")


# --------------------------------------------------------------------------- calling


@attrs.frozen
class _Call:
    """A program with arguments for it."""

    program: CompiledProgram
    named: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self) -> Any:
        return self.program(*self.args, **self.kwargs)


def _call(options: argparse.Namespace, given: Mapping[str, Any]) -> _Call:
    """The program of a file, with the inputs that are given and others drawn.

    Raises:
        InputError: an input or size is unknown, an input can't be drawn, or the file is not
            compiled yet.
        ArtifactError: the file is no artifact.
    """
    from torch.utils._pytree import tree_unflatten

    import rewright
    from rewright.passes.instruments.samples import random_samples

    if options.file.suffix == ".pt2":
        raise InputError(
            "this is an exported program, which is not compiled yet",
            where=options.file,
            hint=f"rewright compile {options.file} -o {options.file.with_suffix('.rw')}",
        )
    program = rewright.load(options.file, options.device)
    graph, signature = program.graph, program.signature
    drawn = random_samples(graph, seed=options.seed, sizes=_sizes(options.size, graph)).inputs
    named = {a.name: drawn[a.input] for a in signature.arguments if a.input is not None}
    for name, value in given.items():
        if name not in named:
            raise InputError(
                f"the program has no tensor argument {name!r}", hint=did_you_mean(name, named)
            )
        named[name] = value.to(graph.device)
    leaves = [named[a.name] if a.input is not None else a.literal for a in signature.arguments]
    if signature.in_spec is None:
        return _Call(program, named, tuple(leaves), {})
    args, kwargs = tree_unflatten(leaves, signature.in_spec)
    return _Call(program, named, tuple(args), kwargs)


def _sizes(texts: Iterable[str], graph: Graph) -> dict[sympy.Symbol, int]:
    known = {str(symbol): symbol for symbol in graph.symbols}
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdecimal():
            raise InputError(f"{text!r} gives no size", where="--size", hint="write --size s0=4")
        if name not in known:
            raise InputError(
                f"the program has no size {name!r}", where="--size", hint=did_you_mean(name, known)
            )
        found[known[name]] = int(number)
    return found


def _given(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"the inputs can't be read: {error}", where=path) from None


def _synchronize(program: CompiledProgram) -> None:
    if program.graph.device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


# --------------------------------------------------------------------------- run


def run(argv: Sequence[str]) -> int:
    """``rewright run``; returns the exit status."""
    import torch
    from rich.console import Console
    from torch.utils._pytree import keystr, tree_flatten_with_path

    parsing = run_parser()
    options = parsing.parse_args(argv)
    if not options.random and options.inputs is None:
        parsing.error("give --random, or --inputs FILE.safetensors")
    with Console(stderr=True).status(f"loading {options.file} ...") as status:
        call = _call(options, _given(options.inputs))
        status.update("running ...")
        start = time.perf_counter()
        with torch.no_grad():
            result = call()
        _synchronize(call.program)
        seconds = time.perf_counter() - start
    leaves = tree_flatten_with_path(result)[0]
    outputs = {f"result{keystr(path)}": leaf for path, leaf in leaves}
    if options.save is not None:
        _save(outputs, options.save)
    inputs = {name: _about(value) for name, value in call.named.items()}
    made = {name: _about(value) for name, value in outputs.items()}
    if options.json:
        text = json.dumps({"inputs": inputs, "outputs": made, "seconds": seconds}, indent=2)
        sys.stdout.write(f"{text}\n")
        return 0
    rows = [(name, "in", about) for name, about in inputs.items()]
    rows += [(name, "out", about) for name, about in made.items()]
    _show(
        ["name", "", "type", "min", "mean", "max", "not finite"],
        [[name, way, *(str(about.get(key, "")) for key in _KEYS)] for name, way, about in rows],
    )
    sys.stdout.write(f"the first call took {_time(seconds)} on {call.program.graph.device}\n")
    return 0


_KEYS = ("type", "min", "mean", "max", "not_finite")


def _about(value: Any) -> dict[str, Any]:
    """The type of a value, and of a tensor the range of its elements."""
    import torch

    from rewright.ir.types import DTYPE_NAMES

    if not isinstance(value, torch.Tensor):
        return {"type": f"{type(value).__name__} {value}"}
    about: dict[str, Any] = {"type": f"{DTYPE_NAMES.get(value.dtype, value.dtype)}{[*value.shape]}"}
    if value.numel() and not value.is_complex():
        numbers = value.detach().double()
        finite = numbers[numbers.isfinite()]
        if finite.numel():
            facts = {"min": finite.min(), "mean": finite.mean(), "max": finite.max()}
            about |= {name: float(f"{float(fact):.5g}") for name, fact in facts.items()}
        about["not_finite"] = numbers.numel() - finite.numel()
    return about


def _save(outputs: Mapping[str, Any], path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {
        k: v.detach().cpu().contiguous().clone()
        for k, v in outputs.items()
        if isinstance(v, torch.Tensor)
    }
    try:
        save_file(tensors, path)
    except Exception as error:  # safetensors raises its own kind for files that can't be written
        raise InputError(f"the results can't be written: {error}", where=path) from None


# --------------------------------------------------------------------------- bench


def bench(argv: Sequence[str]) -> int:
    """``rewright bench``; returns the exit status."""
    from rich.console import Console
    from rich.progress import Progress

    parsing = bench_parser()
    options = parsing.parse_args(argv)
    if options.runs is not None and options.runs < 1:
        parsing.error("--runs must be 1 or more")
    console = Console(stderr=True)
    with console.status(f"loading {options.file} ..."):
        call = _call(options, {})
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        times = _measure(call, options, bars)
    cuts = statistics.quantiles(times, n=20, method="inclusive") if len(times) > 1 else times * 19
    mean = statistics.fmean(times)
    facts = {"median": cuts[9], "p5": cuts[0], "p95": cuts[18], "mean": mean}
    about = {"device": call.program.graph.device, "runs": len(times), "calls_per_second": 1 / mean}
    shapes = {name: _about(value)["type"] for name, value in call.named.items()}
    if options.json:
        sys.stdout.write(json.dumps({**about, **facts, "inputs": shapes}, indent=2) + "\n")
        return 0
    for name, kind in shapes.items():
        sys.stdout.write(f"{name}: {kind}\n")
    _show(
        ["median", "5 %", "95 %", "mean", "calls/s", "runs", "device"],
        [[*map(_time, facts.values()), f"{1 / mean:.1f}", str(len(times)), str(about["device"])]],
    )
    return 0


def _measure(call: _Call, options: argparse.Namespace, bars: Any) -> list[float]:
    """The seconds of each call, after the warm-up."""
    import torch

    times: list[float] = []
    with torch.no_grad():
        for _ in range(max(options.warmup, 1)):
            call()
        _synchronize(call.program)
        bar = bars.add_task("measuring", total=options.runs or options.seconds)
        end = time.perf_counter() + options.seconds
        while len(times) < options.runs if options.runs else not times or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            _synchronize(call.program)
            times.append(time.perf_counter() - start)
            bars.update(bar, completed=len(times) if options.runs else sum(times))
    return times


# --------------------------------------------------------------------------- text


def _time(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: coloured on a terminal, columns of text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*head, box=None, padding=(0, 2, 0, 0), header_style="dim")
        for row in rows:
            table.add_row(*row)
        Console(highlight=False, markup=False).print(table)
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
