"""A segment of a program that TensorRT runs: its engine, and what happens where that can't run.

Engines are built when constants are bound: once for a program of its own, once for each set of
parameters where these are arguments. One that can't be loaded here is reported once, with the
reason, and its segment runs in Torch from the IR that it was built from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import torch
from torch import Tensor

from rewright.backends.tensorrt.build import BuildOptions, Engine, build_engine
from rewright.backends.tensorrt.cache import cached_engine
from rewright.backends.tensorrt.declaration import supports
from rewright.backends.tensorrt.library import Library
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

    def refuse(self, node: Node) -> str | None:
        """Why TensorRT can't take `node`; None if it can."""
        refusal = supports(node, self.library)
        return None if refusal is None else str(refusal)


class Load(Protocol):
    """Makes an engine callable here: takes tensors in the order of its inputs."""

    def __call__(
        self, engine: Engine, library: Library, name: str
    ) -> Callable[..., Sequence[Tensor]]:
        """The engine of the segment called `name`, ready to run.

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
        engine: the engine that was built last; None before constants are bound.
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

    def bind(self, constants: Mapping[str, Tensor], in_torch: Run) -> Run:
        """Builds the engine for `constants`, and gives what runs the segment.

        Args:
            constants: a tensor for each of the segment's constants, by name.
            in_torch: runs the segment in Torch.

        Raises:
            ConversionError: TensorRT refuses a layer.
            EngineError: the engine can't be built; or can't run here, where that is an error.
        """
        given = {name: constants[name] for name in self.graph.constants}
        self.engine = engine = self._build(given)
        try:
            run = self.load(engine, self.library, self.name)
        except EngineError as error:
            if self.on_engine_error == "raise":
                raise
            self._report(error)
            return in_torch
        inputs = self.inputs
        return lambda *operands: run(*(operands[at] for at in inputs))

    def _build(self, constants: Mapping[str, Tensor]) -> Engine:
        def build() -> Engine:
            return build_engine(self.graph, self.library, self.options, constants=constants)

        with torch.inference_mode(False), torch.no_grad():
            return cached_engine(self.graph, self.library, self.options, constants, build)

    def _report(self, error: EngineError) -> None:
        """Says once that the engine can't run here."""
        if self._has_warned:
            return
        self._has_warned = True
        record_fallback(f"segment {self.name} runs in Torch: {error.message}")
        warnings.warn(
            f"segment {self.name} runs in Torch, for its engine can't run here: {error}\n"
            "  on_engine_error='raise' makes this an error",
            FallbackWarning,
            stacklevel=2,
        )
