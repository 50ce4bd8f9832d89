"""One example of a proof: the rule applied to it by the real driver, and its numbers compared."""

from __future__ import annotations

from functools import cached_property

import torch

from rewright.errors import RewrightError, RuleError
from rewright.ir.graph import Graph
from rewright.ir.types import TensorType
from rewright.ir.verifier import verify
from rewright.passes.driver import apply_rules
from rewright.passes.proof.draw import Reject
from rewright.passes.proof.examples import Example
from rewright.passes.proof.precision import (
    FEEDS,
    Errors,
    Feed,
    Sizes,
    feed,
    in_dtype,
    judge,
    odd_feed,
    run,
)
from rewright.passes.rule import EXACT, FAST_MATH, REFOLD, Rule


class Wrong(Exception):
    """A rule is wrong on an example.

    Args:
        what: what is wrong.
        example: what it is wrong on.
        after: what it made of that; None where it made nothing.
        is_numeric: whether it is the numbers that are wrong.
        is_rounding: whether they are no worse than those of a REFOLD rule may be.
    """

    def __init__(
        self,
        what: str,
        example: Example,
        after: Graph | None = None,
        *,
        is_numeric: bool = False,
        is_rounding: bool = False,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.example = example
        self.after = after
        self.is_numeric = is_numeric
        self.is_rounding = is_rounding


def check(rule: type[Rule], example: Example) -> bool:
    """Whether `rule` fires on `example`; where it does, it is right there.

    Raises:
        Wrong: it is not.
        Reject: torch can't run the example.
    """
    before, after = example.graph, example.graph.copy()
    run(before, feed(example, 0, _sizes(before)[0]))  # torch itself may refuse it
    try:
        applied = apply_rules(after, [rule], exactness=FAST_MATH)
    except RuleError as error:
        raise Wrong(error.message, example) from error
    if not applied.hits:
        return False
    _check_types(example, after)
    check_numbers(rule, example, after)
    return True


def _check_types(example: Example, after: Graph) -> None:
    """The rewritten graph is well formed, and what it gives is of the same types."""
    try:
        verify(after, retype=True)
    except RewrightError as error:
        raise Wrong(error.message, example, after) from error
    for old, new in zip(example.graph.outputs, after.outputs, strict=True):
        if old.type != new.type:
            raise Wrong(f"a {old.type} became a {new.type}", example, after)


def check_numbers(rule: type[Rule], example: Example, after: Graph) -> None:
    """The rewritten graph gives numbers as near to the pattern's as the rule's exactness asks."""
    errors = [Errors() for _ in example.graph.outputs]
    graphs = _Graphs(example, after)
    for sizes in _sizes(example.graph):
        for seed, spread in FEEDS:
            _compare(graphs, feed(example, seed, sizes, spread), errors, rule)
        if rule.exactness == EXACT:
            _compare_bits(graphs, odd_feed(example, sizes), errors)
    for index, (found, value) in enumerate(zip(errors, example.graph.outputs, strict=True)):
        assert isinstance(value.type, TensorType)
        dtype = value.type.dtype
        why = judge(found, dtype, rule.exactness, rule.tolerance)
        if why is not None:
            which = f" (root {index})" if len(errors) > 1 else ""
            near = rule.exactness == EXACT and judge(found, dtype, REFOLD, rule.tolerance) is None
            raise Wrong(why + which, example, after, is_numeric=True, is_rounding=near)


def _compare(graphs: _Graphs, numbers: Feed, errors: list[Errors], rule: type[Rule]) -> None:
    """Runs both graphs, and adds up how far they are from the truth."""
    own = run(graphs.before, numbers)
    exact = numbers.cast(torch.float64)
    truth = run(graphs.wide, exact)
    new = graphs.run_after(numbers)
    for found, *results in zip(errors, truth, own, new, strict=True):
        found.add(*results)
    if rule.exactness == REFOLD:
        for other in numbers.nearby():
            nearby = run(graphs.wide, other)
            for found, *results in zip(errors, truth, own, nearby, strict=True):
                found.add_rounding(*results)
    if any(result.dtype == torch.float64 for result in own):
        narrow = run(graphs.narrow, numbers.cast(torch.float32))
        shaken = [run(graphs.wide, other) for other in exact.shaken()]
        for found, *results in zip(errors, truth, narrow, *shaken, strict=True):
            found.add_estimate(*results)


def _compare_bits(graphs: _Graphs, numbers: Feed, errors: list[Errors]) -> None:
    """Runs both graphs on numbers of which no error can be told, only whether they stay."""
    try:
        own = run(graphs.before, numbers)
    except Reject:  # what the pattern's own ops refuse, the rule need not take
        return
    for found, *results in zip(errors, own, graphs.run_after(numbers), strict=True):
        found.add_bits(*results)


class _Graphs:
    """A graph before and after, and what the one before is in other dtypes."""

    def __init__(self, example: Example, after: Graph) -> None:
        self.example = example
        self.before = example.graph
        self.after = after

    @cached_property
    def wide(self) -> Graph:
        """The graph before, computing in float64."""
        return in_dtype(self.before, torch.float64)

    @cached_property
    def narrow(self) -> Graph:
        """The graph before, computing in float32."""
        return in_dtype(self.before, torch.float32)

    def run_after(self, numbers: Feed) -> tuple[torch.Tensor, ...]:
        """What the rule made gives.

        Raises:
            Wrong: torch refuses it, where it took the graph before.
        """
        try:
            return run(self.after, numbers)
        except Reject as reject:
            if "not implemented for" in str(reject):
                raise
            what = f"torch refuses the replacement: {reject}"
            raise Wrong(what, self.example, self.after) from reject


def _sizes(graph: Graph) -> list[Sizes]:
    """Numbers for the symbols of a graph: 1, sizes that coincide, others."""
    symbols = list(graph.symbols)
    return [dict.fromkeys(symbols, size) for size in ((1, 2, 3, 7) if symbols else (0,))]
