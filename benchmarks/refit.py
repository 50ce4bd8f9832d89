"""Other weights for a compiled program: what a refit costs, against a compile.

    python -m benchmarks.refit [resnet50 bert]

Full-size models with random float32 weights on the CPU, one thread. ``compile`` starts from the
exported program, and knows nothing of an earlier one but what Rewright remembers of ops; the export
is not counted. ``refit`` gives the program another state dict; ``refit()`` prepares its constants
again from the weights that it has, which is what follows an edit in place. ``watch`` is what one
call pays to notice such an edit. Medians, in milliseconds of the processor; in brackets as a part
of the compile.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

import rewright
from benchmarks.compile_time import MODELS, exported
from rewright.backends.torch.staleness import Watch

ROUNDS = 5
CALLS = 2000


def milliseconds(function: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The median processor time of some runs."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return median(times) * 1e3


def watch_cost(program: rewright.CompiledProgram) -> tuple[int, float]:
    """How many sources recipes are made of, and the microseconds that watching them takes."""
    from rewright.backends.torch.prepare import recipe_sources

    def nothing() -> None:
        return None

    watched = Watch({c.name: c.data for c in recipe_sources(program.graph)}).over(nothing)

    def run(function: Callable[[], None]) -> Callable[[], None]:
        return lambda: [function() for _ in range(CALLS)] and None

    cost = milliseconds(run(watched)) - milliseconds(run(nothing))
    return len(recipe_sources(program.graph)), cost / CALLS * 1e3


def row(name: str) -> str:
    """The costs of one model."""
    exports = exported(MODELS[name])
    made: list[rewright.CompiledProgram] = []
    cold = milliseconds(lambda: made.append(rewright.compile_exported(exports)), 1)
    warm = milliseconds(lambda: made.append(rewright.compile_exported(exports)), 3)
    program = made[-1]
    other = {key: value.detach().clone() for key, value in exports.state_dict.items()}
    given = milliseconds(lambda: program.refit(other))
    again = milliseconds(program.refit)
    sources, watch = watch_cost(program)
    prepared = sum(not c.is_source for c in program.graph.constants.values())
    return (
        f"{name:9} compile {cold:7.0f}, once more {warm:7.0f}   refit {given:6.1f} "
        f"({given / warm:.1%})   refit() {again:6.1f} ({again / warm:.1%})   "
        f"{prepared} constants of {sources} weights, watch {watch:.1f} us a call"
    )


def main() -> None:
    """Prints a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="MODEL", help="resnet50 bert by default")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in options.names or ("resnet50", "bert"):
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
