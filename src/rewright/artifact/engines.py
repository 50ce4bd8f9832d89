"""Segments of TensorRT whose engines come from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
from torch import Tensor

from rewright.artifact.container import Container
from rewright.backends.tensorrt.build import BuildOptions, Engine
from rewright.backends.tensorrt.cache import restore_engine
from rewright.backends.tensorrt.library import FLAVORS, Library, version_of
from rewright.backends.tensorrt.segment import NAME, Segment
from rewright.errors import EngineError, RewrightError
from rewright.ir.graph import Graph, Node
from rewright.ir.segments import segments_of
from rewright.settings import Settings
from rewright.store import Entry
from rewright.targets import target_of

Run = Callable[..., Sequence[Any]]


@attrs.define(eq=False)
class StoredSegment(Segment):
    """A segment that runs a stored engine, until it is bound to other constants.

    Attributes:
        stored: the engine; None once it was bound.
        is_alone: whether the file has no weights for Torch.
    """

    stored: Engine | None = None
    is_alone: bool = False

    @classmethod
    def bind_all(
        cls, pairs: Sequence[tuple[Segment, Run]], constants: Mapping[str, Tensor]
    ) -> list[Run]:
        """What runs each of several segments: stored engines, and built ones for the others."""
        built = [pair for pair in pairs if getattr(pair[0], "stored", None) is None]
        made = super().bind_all(built, constants) if built else []
        runs = {id(segment): run for (segment, _), run in zip(built, made, strict=True)}
        for segment, in_torch in pairs:
            if isinstance(segment, StoredSegment) and segment.stored is not None:
                engine, segment.stored = segment.stored, None
                runs[id(segment)] = segment._run_stored(engine, in_torch)
        return [runs[id(segment)] for segment, _ in pairs]

    def _run_stored(self, engine: Engine, in_torch: Run) -> Run:
        try:
            return self._ready(engine, in_torch)
        except EngineError as error:
            if not self.is_alone:
                raise
            raise EngineError(
                f"{self.name} can't run here, and its file has no weights for Torch, as it was "
                f"compiled with fallback='none': {error.message}",
                where=error.where,
                hint=error.hint,
            ) from error


def stored_segments(
    graph: Graph, settings: Settings, described: Sequence[Any], container: Container
) -> dict[Node, StoredSegment]:
    """The segments of a program that is loaded, with their engines.

    Args:
        graph: the program; its constants have their data.
        settings: how it was compiled.
        described: what the manifest says of each engine.
        container: has their bytes.

    Raises:
        ValueError, LookupError, TypeError: an engine is missing, or belongs to another graph.
    """
    known = {item["segment"]: item for item in described}
    nodes = [n for n in segments_of(graph) if n.attributes["backend"] == NAME]
    if {node.regions[0].name for node in nodes} != known.keys() or len(known) != len(described):
        raise ValueError("the engines are not those of the segments")
    try:
        made: dict[Node, Segment] = target_of(settings).attach(graph, settings)
    except RewrightError as error:
        made = {node: _without_library(node, settings, described, error) for node in nodes}
    return {
        node: _stored(segment, known[segment.name], settings, container)
        for node, segment in made.items()
    }


def _stored(
    segment: Segment, described: Mapping[str, Any], settings: Settings, container: Container
) -> StoredSegment:
    entry = Entry("", container.read(described["member"]), {"engine": described["engine"]})
    engine = restore_engine(entry, segment.graph)
    return StoredSegment(
        segment.name,
        segment.graph,
        segment.inputs,
        segment.library,
        segment.options,
        segment.load,
        "raise" if settings.fallback == "none" else settings.on_engine_error,
        stored=engine,
        is_alone=settings.fallback == "none",
    )


def _without_library(
    node: Node, settings: Settings, described: Sequence[Any], error: RewrightError
) -> Segment:
    """A segment where the TensorRT that built it can't be had: it says why when it is loaded."""

    def load(*_: Any) -> NoReturn:
        raise EngineError(error.message, where=error.where, hint=error.hint)

    built_with = str(described[0]["engine"]["library"])
    flavor = next(
        (f for f, info in FLAVORS.items() if info.package == built_with.split()[0]), "rtx"
    )
    library = Library(None, flavor, version_of(built_with.partition(" ")[2]))
    return Segment.of(node, library, BuildOptions(), load, settings.on_engine_error)
