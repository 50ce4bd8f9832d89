"""Running a pipeline: passes in order, groups to their fixpoint, instruments around each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final

from rewright.errors import PassError, RewrightError
from rewright.ir.graph import Graph
from rewright.ir.stages import STAGES
from rewright.passes.driver import Observer
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.manager import Pass, PassContext, Pipeline, Repeat, Step
from rewright.passes.matcher import Match
from rewright.passes.partition.backend import SegmentBackend
from rewright.passes.rewriting import Rewrite
from rewright.passes.rule import Exactness, Rule

_log: Final = logging.getLogger("rewright.passes")


def execute(
    pipeline: Pipeline,
    graph: Graph,
    instruments: Sequence[Instrument],
    exactness: Exactness,
    backends: Mapping[str, SegmentBackend] = MappingProxyType({}),
) -> PassRun:
    """Runs all passes of `pipeline` on `graph`, in place: see :meth:`Pipeline.run`."""
    return _Execution(graph, tuple(instruments), exactness, backends).whole(pipeline)


class _Execution:
    """One run of one pipeline."""

    def __init__(
        self,
        graph: Graph,
        instruments: tuple[Instrument, ...],
        exactness: Exactness,
        backends: Mapping[str, SegmentBackend],
    ) -> None:
        self.graph = graph
        self.instruments = instruments
        self.exactness = exactness
        self.backends = backends
        self.reports: dict[str, Any] = {}
        self.count = 0
        self.ran: list[str] = []
        self.watching: dict[str, float] = {}
        self.timed = any(item.times_rules for item in instruments)

    # -- groups

    def whole(self, pipeline: Pipeline) -> PassRun:
        """Runs a whole pipeline."""
        run = PassRun(pipeline, self.graph, self.exactness, watching=self.watching)
        run.reports = self.reports
        self.group(run, pipeline.steps, rounds=1)
        return run

    def group(self, run: PassRun, steps: Sequence[Step], rounds: int) -> None:
        """Runs `steps` until they change nothing, at most `rounds` times."""
        before = self.graph.version
        self.tell("before", run)
        try:
            started = perf_counter()
            for _ in range(rounds):
                version = self.graph.version
                for step in steps:
                    self.step(step, run)
                if self.graph.version == version:
                    break
            else:
                if isinstance(run.step, Repeat):
                    _log.info("%s still changed the graph after %d rounds", run.step, rounds)
            run.seconds = perf_counter() - started
            run.changed = self.graph.version != before
            self.tell("after", run)
        except Exception as error:
            self.fail(run, error)

    def step(self, step: Step, parent: PassRun) -> None:
        """Runs a pass or a group, as part of another."""
        run = PassRun(step, self.graph, self.exactness, parent)
        parent.children.append(run)
        if isinstance(step, Repeat):
            self.group(run, step.steps, step.max)
        else:
            self.leaf(run, step)

    # -- passes

    def leaf(self, run: PassRun, step: Pass) -> None:
        """Runs one pass, unless an instrument says no."""
        self.count += 1
        run.number = self.count
        run.ran = tuple(self.ran)
        if not self.wanted(run, step):
            run.skipped = True
            _log.debug("%03d %s: skipped", run.number, step)
            return
        self.tell("before", run)
        try:
            self.call(run, step)
            self.ran.append(str(step))
            self.tell("after", run)
        except Exception as error:
            self.fail(run, error)
        if _log.isEnabledFor(logging.INFO):
            _log.info(_LINE, run.number, step, len(self.graph), run.applied.rewrites, run.seconds)

    def wanted(self, run: PassRun, step: Pass) -> bool:
        """Whether every instrument lets the pass run; all are asked, as some count."""
        answers = [item.should_run(run) for item in self.instruments]
        return all(answers) or not step.may_be_skipped

    def call(self, run: PassRun, step: Pass) -> None:
        """Runs the pass itself, and notes what it did."""
        graph, version = self.graph, self.graph.version
        _check_stage(graph, step)
        observer = _observer(self.instruments, run)
        context = PassContext(
            self.exactness, observer, self.timed, run.applied, self.backends, self.reports
        )
        started = perf_counter()
        try:
            step.run(graph, context)
        finally:
            run.seconds = perf_counter() - started
            run.changed = graph.version != version
        if step.gives_stage is not None:
            graph.stage = step.gives_stage

    # -- instruments

    def tell(self, hook: str, run: PassRun, *args: Any) -> None:
        """Calls a hook of every instrument, and notes how long it takes."""
        for item in self.instruments:
            started = perf_counter()
            try:
                getattr(item, hook)(run, *args)
            finally:
                name = type(item).__name__.lower()
                spent = self.watching.get(name, 0.0) + perf_counter() - started
                self.watching[name] = spent

    def fail(self, run: PassRun, error: Exception) -> None:
        """Raises what becomes of `error`, after every instrument has been told."""
        failure = as_pass_error(run, error)
        run.failure = failure
        for item in self.instruments:
            try:
                item.after_failed(run, failure)
            except Exception:
                _log.exception("%s failed after pass %s", type(item).__name__, run.name)
        if failure is error:
            raise error
        raise failure from error


_LINE: Final = "%03d %s: %d nodes, %d rewrites, %.4f s"


def _check_stage(graph: Graph, step: Pass) -> None:
    """Refuses a graph that has not reached the stage that the pass starts from."""
    order = [*STAGES]
    if step.needs_stage is None or order.index(graph.stage) >= order.index(step.needs_stage):
        return
    raise PassError(
        f"pass {step} needs a graph that is {step.needs_stage}, and this one is {graph.stage}",
        hint=f"run a pass before that makes graphs {step.needs_stage}",
    )


def as_pass_error(run: PassRun, error: Exception) -> PassError:
    """`error` as the failure of the pass that `run` is about; one that is that already, itself."""
    if isinstance(error, PassError) and error.pass_name is not None:
        if error.ran is None and run.is_pass:
            error.ran = ", ".join(run.ran) or None
        return error
    ours = isinstance(error, RewrightError)
    what = error.message if isinstance(error, RewrightError) else f"{type(error).__name__}: {error}"
    is_pass_error = isinstance(error, PassError)
    return PassError(
        what if is_pass_error else f"pass {run.step} failed: {what}",
        pass_name=str(run.step),
        ran=", ".join(run.ran) or None,
        where=getattr(error, "where", None),
        node=getattr(error, "node", None),
        op=getattr(error, "op", None),
        excerpt=getattr(error, "excerpt", None),
        hint=getattr(error, "hint", None) if ours else "this is a bug in the pass",
    )


class _Observer:
    """Hands on what a driver tells to the instruments."""

    def __init__(
        self, run: PassRun, asked: Sequence[Instrument], told: Sequence[Instrument]
    ) -> None:
        self.run = run
        self.asked = asked
        self.told = told

    def may_rewrite(self, rule: type[Rule], match: Match) -> bool:
        """Whether every instrument lets `rule` be applied; all are asked."""
        answers = [item.should_rewrite(self.run, rule, match) for item in self.asked]
        return all(answers)

    def on_rewrite(self, done: Rewrite) -> None:
        """Tells every instrument."""
        for item in self.told:
            item.on_rewrite(self.run, done)


def _observer(instruments: Sequence[Instrument], run: PassRun) -> Observer | None:
    """What a driver is watched by; None where no instrument looks at single rewrites."""
    asked = [i for i in instruments if type(i).should_rewrite is not Instrument.should_rewrite]
    told = [i for i in instruments if type(i).on_rewrite is not Instrument.on_rewrite]
    return _Observer(run, asked, told) if asked or told else None
