"""Runs the graph before and after each pass, and names the rewrite that moved its numbers.

The outputs of the graph that the pipeline was given are the truth. A pass that moves an output
further from it than the tolerance is run again on the graph from before it, with ever fewer of its
rewrites, until the one that does it stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import attrs
import torch

from rewright.errors import InputError, PassError
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.printer import print_node
from rewright.passes.handles import name_of
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.instruments.samples import Samples, random_samples
from rewright.passes.manager import Pass, PassContext
from rewright.passes.matcher import Match
from rewright.passes.rewriting import Rewrite
from rewright.passes.rule import Rule
from rewright.passes.rule_pass import RulePass

TOLERANCES: Final[dict[torch.dtype, float]] = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
"""How far an output may move in one pass, by its dtype, as a part of its largest element."""

_SEED: Final = 0

Outputs: TypeAlias = tuple[Any, ...]


@attrs.frozen(order=True)
class Distance:
    """How far outputs are from what they should be.

    Attributes:
        tolerances: the largest error, in tolerances of its output; infinite where two outputs
            don't compare.
        error: that error, as a part of the largest element of its output.
    """

    tolerances: float = 0.0
    error: float = 0.0


_NONE: Final = Distance()
_INFINITE: Final = Distance(math.inf, math.inf)


@attrs.define(eq=False)
class Numerics(Instrument):
    """Fails the first pass that moves an output beyond the tolerance.

    Attributes:
        samples: what the graph is run on; drawn to fit it by default.
        tolerance: how far an output may move in one pass, as a part of its largest element; by
            default :data:`TOLERANCES`.
    """

    samples: Samples | None = None
    tolerance: float | None = None
    _chosen: Samples | None = attrs.field(default=None, init=False)
    _truth: Outputs = attrs.field(default=(), init=False)
    _distance: Distance = attrs.field(default=_NONE, init=False)
    _before: Graph | None = attrs.field(default=None, init=False)
    _state: Any = attrs.field(default=None, init=False)
    _alone: str | None = attrs.field(default=None, init=False)

    # -- hooks

    def before(self, run: PassRun) -> None:
        """Keeps the graph; for a whole pipeline, computes the truth.

        Raises:
            InputError: the graph can't be run on the samples.
        """
        if run.is_whole:
            self._chosen = self.samples or fitting_samples(run.graph)
            self._truth = outputs_of(run.graph, self._chosen)
            self._distance, self._state = _NONE, None
        if run.is_pass and self._state != _state(run.graph):
            self._before, self._state = run.graph.copy(), _state(run.graph)

    def after(self, run: PassRun) -> None:
        """Runs the graph and compares.

        Raises:
            PassError: an output moved; names the pass, rule, node and source line.
        """
        if not run.is_pass or not run.changed:
            return
        if isinstance(run.step, Pass) and run.step.moves_numbers:
            assert self._chosen is not None
            self._truth, self._distance = outputs_of(run.graph, self._chosen), _NONE
            return
        found = self._measure(run.graph)
        if self._moved(found):
            raise self._report(run, found)
        self._distance = found

    def after_failed(self, run: PassRun, error: PassError) -> None:
        """Narrows the replay to one rule, where that shows the failure by itself."""
        if run.is_pass and error.replay and self._alone:
            error.replay += f" --only {self._alone}"
            self._alone = None

    # -- numbers

    def _measure(self, graph: Graph) -> Distance:
        """How far the outputs of `graph` are from the truth."""
        assert self._chosen is not None
        try:
            outputs = outputs_of(graph, self._chosen)
        except Exception:  # what no longer runs has moved as far as can be
            return _INFINITE
        return distance(outputs, self._truth, self.tolerance)

    def _moved(self, found: Distance) -> bool:
        return found.tolerances > self._distance.tolerances + 1.0

    # -- which rewrite

    def _report(self, run: PassRun, found: Distance) -> PassError:
        """The error that says where the numbers moved."""
        assert isinstance(run.step, Pass)
        assert self._chosen is not None
        culprit = self._culprit(run)
        what = f"numbers moved in pass {run.name}"
        if culprit is not None:
            what += f", rule {culprit.rule.name} ({culprit.rule.location}), at {culprit.place}"
            if isinstance(run.step, RulePass) and self._shows_alone(run, culprit.rule.name):
                self._alone = culprit.rule.name
        was = self._distance.error
        return PassError(
            f"{what}: max error {found.error:.1e}, was {was:.1e} before this pass",
            pass_name=str(run.step),
            rule=culprit.rule.name if culprit else None,
            where=culprit.loc if culprit else None,
            node=culprit.text if culprit else None,
            hint=f"the graph was run on {self._chosen.origin}",
        )

    def _culprit(self, run: PassRun) -> _Limited | None:
        """The first rewrite with which the numbers move; None if they move without any."""
        good, bad = -1, run.applied.rewrites
        last: _Limited | None = None
        while bad - good > 1:
            middle = (good + bad) // 2
            watch = self._rerun(run, middle)
            if watch is None:
                good = middle
            else:
                bad, last = middle, watch
        if bad == 0:
            return None
        return last if last is not None and last.count == bad else self._rerun(run, bad)

    def _rerun(self, run: PassRun, limit: int) -> _Limited | None:
        """Runs the pass anew with its first `limit` rewrites; None if the numbers stay."""
        assert self._before is not None
        graph, watch = self._before.copy(), _Limited(limit)
        assert isinstance(run.step, Pass)
        run.step.run(graph, PassContext(run.exactness, watch))
        return watch if self._moved(self._measure(graph)) else None

    def _shows_alone(self, run: PassRun, rule: str) -> bool:
        """Whether the numbers move with no other rule than this."""
        assert self._before is not None
        assert isinstance(run.step, RulePass)
        graph = self._before.copy()
        attrs.evolve(run.step, only=(rule,)).run(graph, PassContext(run.exactness))
        return self._moved(self._measure(graph))


class _Limited:
    """Lets so many rewrites happen, and remembers the last."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.rule: type[Rule] = Rule
        self.place = self.text = self.loc = ""

    def may_rewrite(self, rule: type[Rule], match: Match) -> bool:
        """Whether one more is allowed; describes it while its node is still there."""
        if self.count >= self.limit:
            return False
        if self.count == self.limit - 1:
            root = match.roots[0]
            node = root.producer
            assert node is not None
            self.rule, self.place, self.text = rule, name_of(root), print_node(node)
            self.loc = str(node.loc or "")
        return True

    def on_rewrite(self, done: Rewrite) -> None:
        """Counts."""
        self.count += 1


def _state(graph: Graph) -> Any:
    return graph, graph.version, graph.stage


# --------------------------------------------------------------------------- running


def outputs_of(graph: Graph, samples: Samples) -> Outputs:
    """What `graph` returns and writes back, computed op by op with the same random numbers."""
    devices = [torch.device(graph.device)] if graph.device != "cpu" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(_SEED)
        done = interpret(graph, samples.inputs, constants=samples.constants)
    return (*done.outputs, *done.writebacks)


def fitting_samples(graph: Graph) -> Samples:
    """Random samples on which `graph` runs.

    Raises:
        InputError: none could be found.
    """
    drawn = random_samples(graph)
    try:
        outputs_of(graph, drawn)
    except (IndexError, RuntimeError):
        drawn = attrs.evolve(
            drawn, inputs=tuple(map(_lowered, drawn.inputs)), origin="random inputs, integers at 0"
        )
        try:
            outputs_of(graph, drawn)
        except Exception as error:
            raise InputError(
                f"@{graph.name} can't be run on random inputs: {error}",
                hint="give inputs that it can be run on",
            ) from error
    return drawn


def _lowered(item: Any) -> Any:
    """Zeros in the place of integers: an index that is always in range."""
    is_index = isinstance(item, torch.Tensor) and item.dtype in (torch.int64, torch.int32)
    return torch.zeros_like(item) if is_index else item


# --------------------------------------------------------------------------- comparing


def distance(
    outputs: Sequence[Any], truth: Sequence[Any], tolerance: float | None = None
) -> Distance:
    """How far `outputs` are from `truth`; integers, booleans and numbers have to be equal.

    Args:
        outputs: what a graph gave.
        truth: what it should have given.
        tolerance: the error that counts as one tolerance; by default that of the dtype.
    """
    if len(outputs) != len(truth):
        return _INFINITE
    pairs = zip(outputs, truth, strict=True)
    return max((_compare(one, true, tolerance) for one, true in pairs), default=_NONE)


def _compare(one: Any, true: Any, tolerance: float | None) -> Distance:
    if not isinstance(true, torch.Tensor):
        same = one == true or (one != one and true != true)
        return _NONE if same else _INFINITE
    if not isinstance(one, torch.Tensor) or (one.shape, one.dtype) != (true.shape, true.dtype):
        return _INFINITE
    if not (true.is_floating_point() or true.is_complex()):
        return _NONE if torch.equal(one, true) else _INFINITE
    allowed = TOLERANCES.get(true.dtype, 0.1) if tolerance is None else tolerance
    error = _relative(one, true)
    return Distance(error / allowed, error)


def _relative(one: torch.Tensor, true: torch.Tensor) -> float:
    """The largest difference, as a part of the largest element; infinities and nans must agree."""
    wide = torch.complex128 if true.is_complex() else torch.float64
    one, true = one.to(wide), true.to(wide)
    finite = true.isfinite()
    same = torch.equal(finite, one.isfinite()) and torch.equal(
        one[~finite].nan_to_num(), true[~finite].nan_to_num()
    )
    if not same:
        return math.inf
    if not finite.any():
        return 0.0
    difference = (one - true)[finite].abs().max().item()
    scale = true[finite].abs().max().item()
    return difference / scale if scale else (0.0 if difference == 0 else math.inf)
