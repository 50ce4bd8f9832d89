"""A compiled program: what a compile returns and a caller calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rewright.frontends.inputs import Input as Input

if TYPE_CHECKING:
    from rewright.backends.tensorrt.segment import Segment
    from rewright.backends.torch.build import Built
    from rewright.ir.graph import Graph
    from rewright.ir.signature import Signature
    from rewright.passes.partition.report import PartitionReport
    from rewright.settings import Settings

__all__ = ["CompiledProgram", "Input"]


class CompiledProgram:
    """A program that is called like the model that it was compiled from.

    It takes the model's arguments, by position or by name, and returns what the model returns,
    with eager's strides and aliasing; inputs and buffers that the model writes to are written to.
    It computes no gradients, and is not affected by autocast around the call: what the model was
    captured with is in the program. Calls may come from many threads.

    Attributes:
        graph: the program's IR; not to be changed.
        signature: how arguments and results are nested around it.
        settings: what it was compiled with.
        source: the generated Python source.
        segments: the parts that TensorRT runs, with their engines.
        partition: which backend runs what, and why the rest stays in Torch; None where all of
            it runs in Torch.
    """

    def __init__(
        self,
        graph: Graph,
        signature: Signature,
        settings: Settings,
        built: Built,
        segments: tuple[Segment, ...] = (),
        partition: PartitionReport | None = None,
    ) -> None:
        self.graph = graph
        self.signature = signature
        self.settings = settings
        self.source: str = built.source
        self.segments = segments
        self.partition = partition
        self._call: Callable[..., Any] = built.call
        self._built = built

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program.

        Raises:
            InputError: the arguments don't fit; names the one, what was expected and what came.
        """
        try:
            return self._call(*args, **kwargs)
        except TypeError:
            # Too many, too few or unknown arguments are Python's to find and ours to explain.
            self._built.explain(args, kwargs)
            raise

    @property
    def prepared_bytes(self) -> int:
        """The bytes of the prepared constants; those that are views of their sources included."""
        types = [c.type for c in self.graph.constants.values() if not c.is_source]
        return sum(getattr(found, "nbytes", 0) for found in types)

    def report(self) -> str:
        """What was compiled, in a few lines of text."""
        sources = sum(constant.is_source for constant in self.graph.constants.values())
        prepared = len(self.graph.constants) - sources
        kept = f" ({_size(self.prepared_bytes)})" if prepared else ""
        sizes = [
            f"{symbol} in {{{' | '.join(map(str, info.ranges))}}}"
            for symbol, info in self.graph.symbols.items()
        ]
        return "\n".join(
            [
                f"program {self.graph.name} on {self.graph.device}",
                f"  nodes      {sum(1 for _ in self.graph.walk())}",
                f"  constants  {sources} sources, {prepared} prepared{kept}",
                f"  symbols    {', '.join(sizes) or 'none'}",
                f"  backend    torch ({self.settings.torch_backend})",
                *(f"  engine     {_engine(segment)}" for segment in self.segments),
                *([str(self.partition)] if self.partition is not None else []),
            ]
        )

    def __repr__(self) -> str:
        return f"<CompiledProgram {self.graph.name}: {len(self.graph)} nodes>"


def _engine(segment: Segment) -> str:
    engine = segment.engine
    if engine is None:
        return f"{segment.name}: not built yet, its weights come with the first call"
    return (
        f"{segment.name}: {engine.layers} layers, {_size(len(engine.data))}, "
        f"built by {engine.library} in {engine.seconds:.1f} s"
    )


def _size(count: float) -> str:
    """A number of bytes as people read it: ``1.5 MiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
