"""A random program through every pipeline, compared with eager and with float64.

What a pipeline makes of a program may round otherwise than the program itself. So the truth is the
program in float64; its own error against that, and what the rounding of its inputs makes of it, say
how exact it is at all, and nothing that a pipeline makes of it may be much worse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs
import torch

import rewright
from rewright.compiler import compile_graph
from rewright.ir.graph import Constant, Graph, Node
from rewright.ir.interpreter import interpret
from rewright.ir.types import TensorType
from rewright.ir.verifier import verify
from rewright.passes import PassRun, Pipeline
from rewright.passes.compiling import pipeline_of
from rewright.passes.partition.partition import partition
from rewright.passes.pipelines import TEXTS
from rewright.passes.proof.precision import FLOATING, Errors, Feed, in_dtype, ulp
from rewright.settings import Settings
from tests.backends.torch.programs import flat_signature
from tests.passes.random_models import Sample

Results = tuple[torch.Tensor, ...]

LEVELS: Final = tuple(str(pipeline_of(Settings(optimization_level=n))) for n in range(4))
ENGINES: Final = tuple(
    dict.fromkeys(
        text.removesuffix(",reinplace") for (runs, _), text in TEXTS.items() if runs != "torch"
    )
)
PIPELINES: Final = (*LEVELS, *ENGINES)
"""The texts of the pipelines: of the levels, and of programs with engines, before partition."""

_TIMES: Final = 6.0
_ULPS: Final = 16.0


class Moved(AssertionError):
    """A pipeline moved the numbers of a program."""


@attrs.frozen
class HalfTaker:
    """A backend that takes half of all ops, so that programs fall into segments."""

    name: str = "half"

    def refuse(self, node: Node) -> str | None:
        taken = sum(map(ord, node.op.name)) % 2 and not node.regions
        return None if taken else f"it takes no {node.op.name}"


@attrs.define
class Tally:
    """What was done over a run: rewrites by rule, and nodes compiled.

    Attributes:
        programs: how many programs were run.
        nodes: nodes of compiled programs.
        rewrites: how often rules fired, by name.
    """

    programs: int = 0
    nodes: int = 0
    rewrites: Counter[str] = attrs.field(factory=Counter)

    def count(self, run: PassRun) -> None:
        """Adds the rewrites of a run."""
        if run.is_pass:
            self.rewrites.update(run.applied.hits)
        for child in run.children:
            self.count(child)

    def __str__(self) -> str:
        fired = "\n".join(f"  {count:7} {name}" for name, count in self.rewrites.most_common())
        return f"{self.programs} programs, {self.nodes} nodes compiled, rewrites:\n{fired}"


def check(sample: Sample, tally: Tally, *pipelines: Pipeline | str) -> None:
    """Runs a program through pipelines; one of those for engines is then partitioned.

    Raises:
        Moved: results are not what they were; names the pipeline and the result.
    """
    expected = [_Expected.of(sample.graph, inputs) for inputs in sample.inputs]
    for text in pipelines:
        graph = separate(sample.graph)
        tally.count((Pipeline.parse(text) if isinstance(text, str) else text).run(graph))
        verify(graph, retype=True)
        if text in ENGINES:
            partition(graph, [HalfTaker()], min_block_size=2)
            Pipeline.parse("reinplace").run(graph)
            verify(graph)
        _run(str(text), graph, sample, expected, tally)
    tally.programs += 1


def separate(graph: Graph) -> Graph:
    """A copy of `graph` with sources of its own, which a run may write to."""
    copy = graph.copy()
    for constant in copy.constants.values():
        if constant.data is not None:
            constant.data = constant.data.clone()
    return copy


def _run(
    name: str,
    graph: Graph,
    sample: Sample,
    expected: Sequence[_Expected],
    tally: Tally,
) -> None:
    """Compiles `graph`, runs it on each of the inputs, and judges the results."""
    kept = {t: t.data.clone() for t in graph.targets if isinstance(t, Constant)}
    before = rewright.stats()
    program = compile_graph(graph, flat_signature(graph), Settings(optimization_level=0))
    done = rewright.stats() - before
    assert done.graphs == 1 and done.nodes > 0 and done.fallbacks == 0, done
    tally.nodes += done.nodes
    for inputs, wanted in zip(sample.inputs, expected, strict=True):
        given = [item.clone() for item in inputs]
        outputs = program(*given)
        written = [t.data if isinstance(t, Constant) else given[t.index] for t in graph.targets]
        wanted.judge(name, (*outputs, *written))
        for constant, data in kept.items():
            constant.data.copy_(data)


# --------------------------------------------------------------------------- what is expected


@attrs.frozen
class _Result:
    """One result of a program, as it is and as it should be.

    Attributes:
        own: what the program gives itself.
        truth: what it gives in float64.
        errors: its own error, with what the rounding of its inputs makes of it.
    """

    own: torch.Tensor
    truth: torch.Tensor
    errors: Errors

    def judge(self, new: torch.Tensor) -> str:
        """What is wrong with `new` in its place; empty if nothing is."""
        if (self.own.dtype, self.own.shape) != (new.dtype, new.shape):
            return f"is {new.dtype} {tuple(new.shape)}"
        if torch.equal(self.own, new):
            return ""
        errors = Errors()
        errors.add(self.truth, self.own, new)
        if errors.broken or self.own.dtype not in FLOATING:
            return errors.broken
        own, scale = self.errors.own, self.errors.scale
        if errors.new <= max(_TIMES * own, _ULPS * ulp(scale, self.own.dtype)):
            return ""
        return f"is off by {errors.new:.3g}, the program's own by {own:.3g}, of up to {scale:.3g}"


@attrs.frozen
class _Expected:
    """What a program gives on some inputs."""

    results: tuple[_Result, ...]

    @classmethod
    def of(cls, graph: Graph, inputs: Results) -> _Expected:
        """What `graph` gives, on these inputs and on those around."""
        sources = {n: c.data for n, c in graph.constants.items() if c.data is not None}
        feed, wide = Feed(inputs, sources), widened(graph)
        near = (*feed.nearby()[:1], *feed.cast(torch.float64).shaken()[:1])
        truths, *others = (_results(wide, item.cast(torch.float64)) for item in (feed, *near))
        results = []
        for own, truth, *nearby in zip(_results(graph, feed), truths, *others, strict=True):
            errors = Errors()
            errors.add(truth, own, own)
            for item in nearby:
                errors.add_rounding(truth, own, item)
            results.append(_Result(own, truth, errors))
        return cls(tuple(results))

    def judge(self, name: str, found: Results) -> None:
        """Compares what a pipeline's program gave.

        Raises:
            Moved: it is further off than the program itself.
        """
        for at, (result, new) in enumerate(zip(self.results, found, strict=True)):
            if wrong := result.judge(new):
                raise Moved(f"{name}: result {at} {wrong}")


def _results(graph: Graph, feed: Feed) -> Results:
    run = interpret(graph, feed.inputs, constants=feed.constants)
    return (*run.outputs, *run.writebacks)


def widened(graph: Graph) -> Graph:
    """`graph` in float64, its regions too."""
    wide = in_dtype(graph, torch.float64)
    for region in (region for node in wide.walk() for region in node.regions):
        for value in region.inputs:
            if isinstance(value.type, TensorType) and value.type.dtype in FLOATING:
                value.type = attrs.evolve(value.type, dtype=torch.float64)
    return wide
