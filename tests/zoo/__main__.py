"""Export entries of the zoo and compare each program with eager.

    python -m tests.zoo [NAME ...] [--quick] [--static | --dynamic] [--attn eager|sdpa]

Prints, for each entry and mode, the nodes of the graph, the seconds of the export and the
outcome; a dynamic program also runs at its other, smallest and largest sizes. The exit
status is 1 where an outcome is not as declared.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import ENTRIES, QUICK
from .entry import Attention, Entry


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of a tree of outputs, in order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def relative_error(actual: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """The largest |error| over |expected|, tensor by tensor; raises on other differences."""
    worst = 0.0
    for a, e in zip(actual, expected, strict=True):
        if a.shape != e.shape or a.dtype != e.dtype:
            raise ValueError(f"{a.dtype} {list(a.shape)}, not {e.dtype} {list(e.shape)}")
        if not e.isfinite().all():
            raise ValueError("eager's output isn't finite")
        error = (a.double() - e.double()).abs().max() / e.double().abs().max().clamp(min=1e-30)
        worst = max(worst, float(error))
    return worst


def check_sizes(entry: Entry, dynamic: bool) -> list[dict[str, Any]]:
    """The sizes at which to run a program: where it was traced and, dynamic, elsewhere."""
    axes = entry.axes.values()
    if not dynamic:
        return [{}]
    return [
        {axis.name: getattr(axis, at) for axis in axes} for at in ("at", "other", "low", "high")
    ]


def check(entry: Entry, dynamic: bool, attn: Attention | None) -> str:
    """Export, run, compare outputs and mutated buffers; raises where anything differs."""
    start = time.perf_counter()
    program = entry.export(dynamic, attn)
    seconds = time.perf_counter() - start
    model, module = entry.build(attn), program.module()
    worst = 0.0
    with torch.no_grad():
        for sizes in check_sizes(entry, dynamic):
            args, kwargs = entry.inputs(**sizes)
            expected, actual = tensors(model(*args, **kwargs)), tensors(module(*args, **kwargs))
            worst = max(worst, relative_error(actual, expected))
    buffers = dict(module.named_buffers())
    kept = [(buffers[name], buffer) for name, buffer in model.named_buffers() if name in buffers]
    worst = max(worst, relative_error(*zip(*kept, strict=True)) if kept else 0.0)
    if worst > entry.tolerance.float32:
        raise ValueError(f"error {worst:.1e}")
    size = sum(t.nbytes for t in [*model.parameters(), *model.buffers()]) / 1e6
    nodes = len(program.graph.nodes)
    return f"{nodes:5} nodes  {seconds:5.1f} s  {size:4.2f} MB  error {worst:.0e}"


def outcome(entry: Entry, dynamic: bool, attn: Attention | None) -> tuple[bool, str]:
    """Whether an entry does as declared, and a line that says what it does."""
    known = entry.upstream_failure if dynamic else ""
    try:
        line = check(entry, dynamic, attn)
    except Exception as error:  # reported, whatever it is
        first = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return first == known, f"{'known' if first == known else 'FAILED'}  {first}"
    return not known, f"{'WORKS' if known else 'ok'}  {line}"


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries (all)")
    parser.add_argument("--quick", action="store_true", help="only the quick subset")
    parser.add_argument("--attn", choices=("eager", "sdpa"), help="where a model has the choice")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--static", action="store_true", help="only static shapes")
    mode.add_argument("--dynamic", action="store_true", help="only dynamic shapes")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ENTRIES):
        parser.error(f"no entry {', '.join(sorted(unknown))}; there are {', '.join(ENTRIES)}")

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    modes = [True] if options.dynamic else [False] if options.static else [False, True]
    failures = 0
    for name in options.names or (QUICK if options.quick else ENTRIES):
        entry = ENTRIES[name]
        attn = options.attn if options.attn in entry.attentions else None
        for dynamic in modes:
            good, line = outcome(entry, dynamic, attn)
            failures += not good
            print(f"{name:18}{'dynamic' if dynamic else 'static':9}{line}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
