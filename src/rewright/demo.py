"""``rewright demo``: four models, compiled by both ways, compared with eager."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch.utils._pytree import tree_leaves

import rewright
from rewright.demo_models import MODELS, DemoModel
from rewright.errors import CompileError
from rewright.ir.graph import Graph

__all__ = ["Row", "main", "measure"]

EXCERPT_LINES = 9


@attrs.frozen
class Row:
    """One line of the table: a model compiled by one of the two ways.

    Attributes:
        nodes: IR nodes after import.
        constants: parameters and buffers that the graph uses.
        symbols: symbolic sizes.
        trace_seconds: what torch took to export the model (None where it can't be told apart).
        compile_seconds: import and compile; for the JIT, all of the first call.
        error: the largest absolute difference from eager, over all outputs.
        graph: the final IR, for the excerpt.
    """

    model: str
    way: str
    nodes: int
    constants: int
    symbols: int
    trace_seconds: float | None
    compile_seconds: float
    error: float
    graph: Graph | None


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="rewright demo",
        description="Compile four small models by both ways and compare them with eager.",
        epilog="example: rewright demo bert --torch-backend inductor",
    )
    made.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    made.add_argument("--torch-backend", choices=("eager", "inductor"), default="eager")
    return made


def main(argv: Sequence[str]) -> int:
    """Runs the demo; returns the exit status: 1 where a model fell back or is wrong."""
    parsing = parser()
    options = parsing.parse_args(argv)
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parsing.error(f"no model {unknown[0]!r}: choose from {', '.join(MODELS)}")
    chosen = [MODELS[name] for name in options.models or MODELS]
    console = Console()
    rows: list[Row] = []
    with console.status("compiling ...") as status:
        for model in chosen:
            status.update(f"compiling {model.name}: {model.summary} ...")
            rows += measure(model, torch_backend=options.torch_backend)
    console.print(_table(rows))
    last = next(row for row in reversed(rows) if row.graph is not None)
    console.print(f"\nHow it looks inside ({last.model}, dynamic sizes, as exported):\n")
    console.print(_excerpt(last.graph), highlight=False, markup=False, soft_wrap=True)
    counted = rewright.stats()
    console.print(
        f"\n{counted.graphs} graphs, {counted.nodes} nodes compiled, {counted.fallbacks} fallbacks"
    )
    wrong = [row for row in rows if not row.error < 1e-3]
    for row in wrong:
        console.print(f"[red]{row.model} ({row.way}) is off by {row.error:.2e}[/red]")
    return 1 if wrong or counted.fallbacks else 0


def measure(model: DemoModel, *, torch_backend: str = "eager") -> list[Row]:
    """Compiles `model` ahead of time and just in time; a row for each.

    Raises:
        CompileError: nothing of the model was compiled.
    """
    module, inputs = model.build(), model.inputs()
    with torch.no_grad():
        expected = module(*inputs)
        return [
            _ahead_of_time(model, module, inputs, expected, torch_backend),
            _just_in_time(model, module, inputs, expected, torch_backend),
        ]


def _ahead_of_time(
    model: DemoModel, module: Any, inputs: tuple[Any, ...], expected: Any, torch_backend: str
) -> Row:
    start = time.perf_counter()
    exported = torch.export.export(module, inputs, dynamic_shapes=model.dynamic_shapes)
    traced = time.perf_counter()
    program = rewright.compile_exported(exported, torch_backend=torch_backend)
    compiled = time.perf_counter()
    error = largest_error(program(*inputs), expected)
    graph = program.graph
    return Row(
        model.name,
        "export",
        len(graph),
        len(graph.constants),
        len(graph.symbols),
        traced - start,
        compiled - traced,
        error,
        graph,
    )


def _just_in_time(
    model: DemoModel, module: Any, inputs: tuple[Any, ...], expected: Any, torch_backend: str
) -> Row:
    before = rewright.stats()
    compiled: Any = torch.compile(
        module,
        backend="rewright",
        options={"on_error": "raise", "torch_backend": torch_backend},
        dynamic=True,
    )
    start = time.perf_counter()
    actual = compiled(*inputs)
    seconds = time.perf_counter() - start
    done = rewright.stats() - before
    if not done.nodes:
        raise CompileError(f"nothing of {model.name} was compiled")
    error = largest_error(actual, expected)
    return Row(model.name, "torch.compile", done.nodes, 0, 0, None, seconds, error, None)


def largest_error(actual: Any, expected: Any) -> float:
    """The largest absolute difference between two results, over all their tensors."""
    pairs = zip(tree_leaves(actual), tree_leaves(expected), strict=True)
    return max(
        float((a.double() - b.double()).abs().max())
        for a, b in pairs
        if isinstance(a, torch.Tensor) and a.numel()
    )


def _table(rows: Sequence[Row]) -> Table:
    # Without a frame it fits into 80 columns, which a pipe or a log has.
    table = Table(
        title="Rewright demo", title_justify="left",
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    table.add_column("model")
    table.add_column("way")
    for heading in ("nodes", "constants", "symbols", "trace s", "compile s", "max error"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            row.way,
            str(row.nodes),
            str(row.constants or "-"),
            str(row.symbols or "-"),
            "-" if row.trace_seconds is None else f"{row.trace_seconds:.2f}",
            f"{row.compile_seconds:.2f}",
            f"{row.error:.1e}",
        )
    return table


def _excerpt(graph: Graph | None) -> str:
    """The signature of `graph` and its first nodes, as text."""
    lines = str(graph).splitlines()
    body = lines.index("{")
    return "\n".join([*lines[: body + 1 + EXCERPT_LINES], "  ..."])
