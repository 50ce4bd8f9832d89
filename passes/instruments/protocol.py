"""The one protocol that every instrument is made over.

    class CountCasts(Instrument):
        def after(self, run):
            casts = sum(node.op.name == "aten._to_copy" for node in run.graph)
            print(run.step, casts)

    pipeline.run(graph, instruments=[CountCasts()])

The pipeline itself and its groups are runs like those of passes, with their passes as children:
so `before` and `after` are called around the whole, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from rewright.ir.graph import Graph
from rewright.passes.driver import Applied
from rewright.passes.manager import Pass, Pipeline, Step

if TYPE_CHECKING:
    from rewright.errors import PassError
    from rewright.passes.matcher import Match
    from rewright.passes.rewriting import Rewrite
    from rewright.passes.rule import Exactness, Rule


@attrs.define(eq=False)
class PassRun:
    """One run of a pass, a group, or a whole pipeline.

    Attributes:
        step: what runs.
        graph: what it runs on.
        exactness: the least exact rules that may fire.
        parent: the run of the group that it is in; None for a whole pipeline.
        number: which pass it is, in the order of running, from 1; 0 for groups. Passes that are
            skipped are counted, too.
        ran: how the passes that ran before are written.
        children: the runs in a group, in order, so far.
        skipped: whether an instrument left it out.
        changed: whether it changed the graph; known afterwards.
        seconds: how long it took, without the instruments; known afterwards.
        applied: what its rules did.
        watching: of a whole pipeline, the seconds that each instrument took, by name.
        failure: what it failed with.
        reports: of a whole pipeline, what passes want to say of it, by their names.
    """

    step: Step | Pipeline
    graph: Graph
    exactness: Exactness
    parent: PassRun | None = None
    number: int = 0
    ran: tuple[str, ...] = ()
    children: list[PassRun] = attrs.field(factory=list)
    skipped: bool = False
    changed: bool = False
    seconds: float = 0.0
    applied: Applied = attrs.field(factory=Applied)
    watching: dict[str, float] = attrs.field(factory=dict)
    failure: PassError | None = None
    reports: dict[str, Any] = attrs.field(factory=dict)

    @property
    def is_pass(self) -> bool:
        """Whether this is the run of one pass, and not of a group."""
        return isinstance(self.step, Pass)

    @property
    def is_whole(self) -> bool:
        """Whether this is the run of a whole pipeline."""
        return self.parent is None

    @property
    def whole(self) -> PassRun:
        """The run of the whole pipeline."""
        run = self
        while run.parent is not None:
            run = run.parent
        return run

    @property
    def name(self) -> str:
        """The name of the pass; ``pipeline`` and ``repeat`` for groups."""
        return self.step.name if isinstance(self.step, Pass) else type(self.step).__name__.lower()

    def passes(self) -> Iterator[PassRun]:
        """The runs of passes in this one, in order, without those that were skipped."""
        pending = [self]
        while pending:
            run = pending.pop()
            pending += reversed(run.children)
            if run.is_pass and not run.skipped:
                yield run


class Instrument:
    """Watches a pipeline run; derive from it and define what is of interest.

    Attributes:
        times_rules: whether it wants to know how long each rule took, which costs some time.
    """

    times_rules: ClassVar[bool] = False

    def should_run(self, run: PassRun) -> bool:
        """Whether a pass may run; asked before `before`, and not for groups."""
        return True

    def before(self, run: PassRun) -> None:
        """Called before a pass or group runs."""

    def after(self, run: PassRun) -> None:
        """Called after a pass or group has run; what it raises counts as the pass's failure."""

    def after_failed(self, run: PassRun, error: PassError) -> None:
        """Called in the place of `after`; may add to `error` what it knows."""

    def should_rewrite(self, run: PassRun, rule: type[Rule], match: Match) -> bool:
        """Whether a rule may be applied to what it matched."""
        return True

    def on_rewrite(self, run: PassRun, done: Rewrite) -> None:
        """Called after each rewrite."""
