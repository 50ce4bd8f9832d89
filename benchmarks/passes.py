"""What the pass manager and its instruments cost, against the rules run by hand.

    python -m benchmarks.passes [--nodes 5000]

Every row runs the same rules on a fresh copy of the same graph, each beside a run by hand; the
median counts. ``by hand`` calls ``apply_rules`` and nothing else: with no instruments, a pipeline
should cost the same. What each instrument adds is printed beside it.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.rewrite import FuseGelu, MergeScales, make_graph, make_rules
from rewright.ir.graph import Graph
from rewright.passes import Instrument, Pipeline, RulePass, apply_rules
from rewright.passes.instruments.bisect import Bisect, Limit
from rewright.passes.instruments.dump import Dump, DumpSpec
from rewright.passes.instruments.numerics import Numerics
from rewright.passes.instruments.reproducer import Reproducer
from rewright.passes.instruments.timing import Timing
from rewright.passes.instruments.verify import VerifyEach

ROUNDS = 8


class Fuse(RulePass):
    """Two rules that fire, and 198 that don't."""

    rules = (FuseGelu, MergeScales, *make_rules(198))


def by_hand(graph: Graph) -> None:
    """The rules, without a pipeline."""
    apply_rules(graph, Fuse.rules)


def in_pipeline(make: Callable[[], list[Instrument]]) -> Callable[[Graph], None]:
    """The rules in a pipeline of one pass, watched."""

    def run(graph: Graph) -> None:
        Pipeline([Fuse()]).run(graph, instruments=make())

    return run


def seconds(run: Callable[[Graph], None], graph: Graph) -> float:
    """The processor time of one run, on a copy of `graph`."""
    fresh = graph.copy()
    gc.collect()
    gc.disable()
    started = time.process_time()
    run(fresh)
    spent = time.process_time() - started
    gc.enable()
    return spent


def measure(run: Callable[[Graph], None], graph: Graph) -> tuple[float, float]:
    """The median time of a row, and the median of its ratios to a run by hand right beside it."""
    times, ratios = [], []
    for number in range(ROUNDS):
        pair = [run, by_hand] if number % 2 else [by_hand, run]
        spent = {item: seconds(item, graph) for item in pair}
        times.append(spent[run])
        ratios.append(spent[run] / spent[by_hand])
    return median(times), median(ratios)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=5000)
    options = parser.parse_args()
    graph = make_graph(options.nodes, foldable=True)
    print(f"{options.nodes} nodes, {len(Fuse.rules)} rules")
    with TemporaryDirectory() as folder, open("/dev/null", "w") as nothing:
        spec = DumpSpec("changed", Path(folder))
        rows = {
            "no instruments": in_pipeline(list),
            "bisect": in_pipeline(lambda: [Bisect(Limit())]),
            "reproducer": in_pipeline(lambda: [Reproducer(Path(folder))]),
            "timing": in_pipeline(lambda: [Timing(nothing)]),
            "verify": in_pipeline(lambda: [VerifyEach()]),
            "dump": in_pipeline(lambda: [Dump(spec)]),
            "numerics": in_pipeline(lambda: [Numerics()]),
        }
        for name, run in rows.items():
            spent, ratio = measure(run, graph)
            print(f"  {name:16} {spent * 1e3:9.1f} ms  {ratio:6.2f}")


if __name__ == "__main__":
    main()
