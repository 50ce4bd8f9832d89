"""A segment of a program that TensorRT runs: its engine, and what happens where that can't run.

Engines are built when constants are bound: once for a program of its own, once for each set of
parameters where these are arguments. One that can't be loaded here is reported once, with the
reason, and its segment runs in Torch from the IR that it was built from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
from torch import Tensor

from rewright.backends.tensorrt.build import Engine
from rewright.backends.tensorrt.declaration import supports
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.log import LOG
from rewright.backends.tensorrt.options import BuildOptions
from rewright.backends.tensorrt.refitting import refitted_weights
from rewright.backends.tensorrt.together import Order, engines_of
from rewright.caller import warn
from rewright.errors import EngineError, FallbackWarning
from rewright.ir.graph import Graph, Node
from rewright.ir.segments import segment_program
from rewright.statistics import record_fallback

NAME: Final = "tensorrt"
"""What segments call this backend."""

Run = Callable[..., Sequence[Any]]
"""Takes the operands of a segment and returns its results."""


@attrs.frozen
class TensorRT:
    """What partitioning asks of this backend.

    Attributes:
        library: the TensorRT that engines are built with.
    """

    library: Library
    name: str = NAME

    @property
    def tells_sizes(self) -> bool:
        """Whether engines may have sizes that only a run tells."""
        return self.library.builds_sizes_from_values

    def refuse(self, node: Node) -> str | None:
        """Why TensorRT can't take `node`; None if it can."""
        refusal = supports(node, self.library)
        return None if refusal is None else str(refusal)


class Runner(Protocol):
    """An engine that is loaded: takes tensors in the order of its inputs."""

    def __call__(self, *values: Any) -> Sequence[Any]:
        """The outputs."""
        ...

    def serialized(self) -> bytes:
        """The engine's bytes, with the weights that it has now."""
        ...


class Load(Protocol):
    """Makes an engine callable here."""

    def __call__(
        self,
        engine: Engine,
        library: Library,
        name: str,
        weights: Mapping[str, Tensor] | None = None,
        /,
    ) -> Runner:
        """The engine of the segment called `name`, ready to run.

        Args:
            engine: the engine.
            library: the TensorRT that it was built with.
            name: what errors call it.
            weights: those that it is to have in the place of its own, by name.

        Raises:
            EngineError: it can't run here; says why.
        """
        ...


@attrs.define(eq=False)
class Segment:
    """A segment, and its engines.

    Attributes:
        name: of its region.
        graph: its program, with constants.
        inputs: which operands the engine takes.
        library: what engines are built with.
        options: how.
        load: makes an engine run here.
        on_engine_error: ``torch`` runs the segment in Torch where its engine can't run; ``raise``
            raises.
        engine: the engine that was built or refitted last; None before constants are bound.
    """

    name: str
    graph: Graph
    inputs: tuple[int, ...]
    library: Library
    options: BuildOptions
    load: Load
    on_engine_error: str = "torch"
    engine: Engine | None = None
    backend: str = NAME
    _has_warned: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(
        cls,
        node: Node,
        library: Library,
        options: BuildOptions,
        load: Load,
        on_engine_error: str = "torch",
    ) -> Segment:
        """The segment of a ``rw.segment`` node."""
        program = segment_program(node)
        graph = program.graph
        return cls(graph.name, graph, program.inputs, library, options, load, on_engine_error)

    @property
    def constant_names(self) -> tuple[str, ...]:
        """The constants that engines are built from."""
        return tuple(self.graph.constants)

    @classmethod
    def bind_all(
        cls, pairs: Sequence[tuple[Segment, Run]], constants: Mapping[str, Tensor]
    ) -> list[Run]:
        """What runs each of several segments, their engines built at the same time.

        Args:
            pairs: segments, and what runs each in Torch.
            constants: a tensor for each of their constants, by name.

        Raises:
            ConversionError: TensorRT refuses a layer.
            EngineError: an engine can't be built; or can't run here, where that is an error.
            KeyboardInterrupt: Ctrl-C was pressed; all builds have stopped.
        """
        runs = {segment: segment._refitted(constants) for segment, _ in pairs}
        wanted = [(segment, in_torch) for segment, in_torch in pairs if runs[segment] is None]
        built = engines_of([segment._order(constants) for segment, _ in wanted])
        for (segment, in_torch), engine in zip(wanted, built, strict=True):
            runs[segment] = segment._ready(engine, in_torch)
        return [run for segment, _ in pairs if (run := runs[segment]) is not None]

    def bind(self, constants: Mapping[str, Tensor], in_torch: Run) -> Run:
        """Builds the engine for `constants`, and gives what runs the segment.

        An engine that was built to be refitted, for other constants, is built once: it is loaded
        anew, and given these weights. So what was bound before goes on as it was.

        Args:
            constants: a tensor for each of the segment's constants, by name.
            in_torch: runs the segment in Torch.

        Raises:
            ConversionError: TensorRT refuses a layer.
            EngineError: the engine can't be built; or can't run here, where that is an error.
        """
        return self.bind_all([(self, in_torch)], constants)[0]

    def _given(self, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: constants[name] for name in self.graph.constants}

    def _order(self, constants: Mapping[str, Tensor]) -> Order:
        return Order(self.graph, self.library, self.options, self._given(constants))

    def _refitted(self, constants: Mapping[str, Tensor]) -> Run | None:
        """What runs the engine that is there with the weights of `constants`; None: build one."""
        if self.engine is None or not self.engine.form:
            return None
        given = self._given(constants)
        try:
            weights = refitted_weights(self.graph, self.library, self.engine, given)
            runner = self.load(self.engine, self.library, self.name, weights)
            self.engine = attrs.evolve(self.engine, data=runner.serialized())
        except EngineError as error:
            LOG.info("%s is built anew: %s", self.name, error.message)
            return None
        return self._calling(runner)

    def _ready(self, engine: Engine, in_torch: Run) -> Run:
        """What runs the segment: its `engine`, or Torch."""
        self.engine = engine
        try:
            return self._calling(self.load(engine, self.library, self.name))
        except EngineError as error:
            if self.on_engine_error == "raise":
                raise
            self._report(error)
            return in_torch

    def _calling(self, runner: Runner) -> Run:
        inputs = self.inputs
        return lambda *operands: runner(*(operands[at] for at in inputs))

    def _report(self, error: EngineError) -> None:
        """Says once that the engine can't run here."""
        if self._has_warned:
            return
        self._has_warned = True
        record_fallback(f"segment {self.name} runs in Torch: {error.message}")
        warn(
            f"segment {self.name} runs in Torch, for its engine can't run here: {error}\n"
            "  on_engine_error='raise' makes this an error",
            FallbackWarning,
        )
