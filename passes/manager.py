"""Passes, and pipelines of them as data: printed, parsed, edited, compared, and run.

    pipeline = Pipeline.parse("canonicalize,repeat{max=4}(fold-constants,cse,dce),fuse")
    pipeline = pipeline.insert_after("fuse", "my-fusions{limit=3}").remove("cse")
    pipeline.run(graph)

A pass is a frozen attrs class whose fields are its options; an instance is one step of a pipeline:

    @register_pass
    @attrs.frozen
    class FoldConstants(Pass):
        \"\"\"op(constants)  ->  a recipe in `prepare`\"\"\"

        max_growth: float = 2.0

        def run(self, graph, context):
            ...

Nobody reports whether a pass changed something: the graph's version tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

from rewright.errors import PassError, did_you_mean
from rewright.ir.graph import Graph
from rewright.passes.driver import Applied, Observer, apply_rules
from rewright.passes.rule import REFOLD, Exactness, Rule, kebab_case

if TYPE_CHECKING:
    from rewright.passes.instruments.protocol import Instrument, PassRun
    from rewright.passes.partition.backend import SegmentBackend

DEFAULT_ROUNDS = 8
"""So often a group is repeated at most, unless it says otherwise."""


@attrs.define(eq=False)
class PassContext:
    """What a pass is run with, besides its options.

    Attributes:
        exactness: the least exact rules that may fire.
        observer: is told of each rewrite, and may forbid it.
        timed: whether to measure the time that each rule takes.
        applied: what rules have done so far in this run.
        backends: those that a program may be partitioned for, by name.
        reports: what passes want to say of the whole run, by their names.
    """

    exactness: Exactness = REFOLD
    observer: Observer | None = None
    timed: bool = False
    applied: Applied = attrs.field(factory=Applied)
    backends: Mapping[str, SegmentBackend] = attrs.field(factory=dict)
    reports: dict[str, Any] = attrs.field(factory=dict)

    def apply_rules(self, graph: Graph, rules: Sequence[type[Rule]]) -> Applied:
        """Applies `rules` until none applies, watched and counted by the instruments.

        Raises:
            RuleError: as :func:`rewright.passes.driver.apply_rules`.
        """
        done = apply_rules(
            graph, rules, exactness=self.exactness, observer=self.observer, timed=self.timed
        )
        self.applied.hits.update(done.hits)
        for name, seconds in done.seconds.items():
            self.applied.seconds[name] = self.applied.seconds.get(name, 0.0) + seconds
        self.applied.visits += done.visits
        self.applied.erased += done.erased
        return done


@attrs.frozen
class Pass:
    """One step of a pipeline. Derive from it, state options as attrs fields, and define `run`.

    Attributes:
        name: how pipelines call it: kebab-case of the class's name, unless stated.
        needs_stage: the stage (:mod:`rewright.ir.stages`) that a graph must have reached before.
        gives_stage: the stage that a graph has reached afterwards; the verifier holds it to that.
        may_be_skipped: False where a program can't run without this pass, so that no instrument
            leaves it out.
        moves_numbers: whether results change on purpose (another precision): what watches numbers
            compares with what this pass left, from there on.
    """

    name: ClassVar[str] = ""
    needs_stage: ClassVar[str | None] = None
    gives_stage: ClassVar[str | None] = None
    may_be_skipped: ClassVar[bool] = True
    moves_numbers: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not vars(cls).get("name"):
            cls.name = kebab_case(cls.__name__)

    def run(self, graph: Graph, context: PassContext) -> None:
        """Changes `graph` in place.

        Args:
            graph: a whole program.
            context: how rules are to be applied.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no run(graph, context)")

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (vars(cls).get("__doc__") or "").strip().partition("\n")[0]

    @classmethod
    def all_rules(cls) -> tuple[type[Rule], ...]:
        """The rules that this pass may apply."""
        return ()

    def __str__(self) -> str:
        """As pipelines write it: ``partition{min_block_size=3}``."""
        from rewright.passes.pipeline_text import format_step

        return format_step(self)


def _tuple(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(steps)


@attrs.frozen
class Repeat:
    """Steps that are repeated until they change nothing any more.

    Attributes:
        steps: what is repeated, in order.
        max: so often at most.
    """

    steps: tuple[Step, ...] = attrs.field(converter=_tuple)
    max: int = attrs.field(default=DEFAULT_ROUNDS, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.steps:
            raise PassError("a repeat has no steps", hint="write repeat(a,b)")
        if self.max < 1:
            raise PassError(f"a repeat can't run {self.max} times", hint="max is at least 1")

    def __str__(self) -> str:
        from rewright.passes.pipeline_text import format_step

        return format_step(self)


Step: TypeAlias = "Pass | Repeat"
Added: TypeAlias = "Pass | Repeat | Pipeline | str"
"""What can be put into a pipeline; text is parsed."""
Named: TypeAlias = "str | type[Pass]"
"""How a pass in a pipeline is found: by its name, or its class."""


@attrs.frozen
class Pipeline:
    """Steps in order. Immutable: each edit gives a new one.

    Edits go by the names of passes, and find them in groups, too. Where a name occurs several
    times, `insert_before` means the first, `insert_after` the last, and the others mean all.

    Attributes:
        steps: the steps.
    """

    steps: tuple[Step, ...] = attrs.field(default=(), converter=_tuple)

    @classmethod
    def parse(cls, text: str, named: Mapping[str, Pipeline] | None = None) -> Pipeline:
        """The pipeline that prints as `text`.

        Args:
            text: steps, one after another; see :mod:`rewright.passes.pipeline_text`.
            named: pipelines whose names may stand for their steps.

        Raises:
            ParseError: `text` is no pipeline, or names a pass or option that there is not.
        """
        from rewright.passes.pipeline_text import parse_pipeline

        return parse_pipeline(text, named)

    def __str__(self) -> str:
        return ",".join(map(str, self.steps))

    def passes(self) -> Iterator[Pass]:
        """Every pass in order, those in groups once."""
        pending = [*reversed(self.steps)]
        while pending:
            step = pending.pop()
            if isinstance(step, Repeat):
                pending += reversed(step.steps)
            else:
                yield step

    # -- edits

    def append(self, *added: Added) -> Pipeline:
        """With `added` at the end."""
        return Pipeline((*self.steps, *_steps(added)))

    def insert_before(self, name: Named, *added: Added) -> Pipeline:
        """With `added` before the first pass called `name`.

        Raises:
            PassError: there is none.
        """
        first = self._find(name)[0]
        return self._edit(lambda at, step: (*_steps(added), step) if at == first else (step,))

    def insert_after(self, name: Named, *added: Added) -> Pipeline:
        """With `added` after the last pass called `name`.

        Raises:
            PassError: there is none.
        """
        last = self._find(name)[-1]
        return self._edit(lambda at, step: (step, *_steps(added)) if at == last else (step,))

    def replace(self, name: Named, *added: Added) -> Pipeline:
        """With `added` in the place of every pass called `name`.

        Raises:
            PassError: there is none.
        """
        found = self._find(name)
        return self._edit(lambda at, step: _steps(added) if at in found else (step,))

    def remove(self, name: Named) -> Pipeline:
        """Without the passes called `name`, and without groups that this empties.

        Raises:
            PassError: there is none.
        """
        return self.replace(name)

    def map(self, change: Callable[[Pass], Pass]) -> Pipeline:
        """With what `change` makes of each pass."""
        return self._edit(lambda _, step: (change(step),))

    def _find(self, name: Named) -> list[int]:
        """The numbers of the passes called `name`, in the order of :meth:`passes`."""
        wanted = name if isinstance(name, str) else name.name
        found = [at for at, step in enumerate(self.passes()) if step.name == wanted]
        if not found:
            known = [step.name for step in self.passes()]
            raise PassError(
                f"there is no pass {wanted!r} in the pipeline {str(self) or 'with no steps'}",
                hint=did_you_mean(wanted, known),
            )
        return found

    def _edit(self, change: Callable[[int, Pass], tuple[Step, ...]]) -> Pipeline:
        """With each pass, given with its number, replaced by the steps that `change` says."""
        numbers = iter(range(sum(1 for _ in self.passes())))

        def edit(steps: Sequence[Step]) -> Iterator[Step]:
            for step in steps:
                if not isinstance(step, Repeat):
                    yield from change(next(numbers), step)
                elif inner := tuple(edit(step.steps)):
                    yield attrs.evolve(step, steps=inner)

        return Pipeline(tuple(edit(self.steps)))

    # -- running

    def run(
        self,
        graph: Graph,
        *,
        instruments: Sequence[Instrument] = (),
        exactness: Exactness = REFOLD,
        backends: Mapping[str, SegmentBackend] = MappingProxyType({}),
    ) -> PassRun:
        """Runs all passes on `graph`, in place.

        Args:
            graph: a whole program.
            instruments: what watches; see :mod:`rewright.passes.instruments.protocol`.
            exactness: the least exact rules that may fire.
            backends: those that the program may be partitioned for, by name.

        Returns:
            What was done, as a tree.

        Raises:
            PassError: a pass failed; names it and what ran before. The graph may be anything.
        """
        from rewright.passes.execution import execute

        return execute(self, graph, instruments, exactness, backends)


def _steps(added: Sequence[Added]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for item in added:
        if isinstance(item, str):
            item = Pipeline.parse(item)
        if isinstance(item, Pipeline):
            steps += item.steps
        elif isinstance(item, Pass | Repeat):
            steps.append(item)
        else:
            raise PassError(
                f"{item!r} is no step of a pipeline",
                hint="give a pass (an instance, not its class), a Repeat, a Pipeline or text",
            )
    return tuple(steps)
