"""A compiled program: what a compile returns and a caller calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.compiler import is_compiling

from rewright.backends.torch.source import note_place
from rewright.errors import RewrightError
from rewright.frontends.inputs import Input as Input
from rewright.interop.module import ProgramModule, is_traced

if TYPE_CHECKING:
    import torch

    from rewright.artifact.parts import Part
    from rewright.backends.tensorrt.segment import Segment
    from rewright.backends.torch.build import Built
    from rewright.backends.torch.cuda_graphs import GraphCounts
    from rewright.interop.engine import EngineFile
    from rewright.ir.graph import Graph
    from rewright.ir.signature import Signature
    from rewright.passes.partition.report import PartitionReport
    from rewright.passes.precision.report import PrecisionReport
    from rewright.report import Report
    from rewright.settings import Settings

__all__ = ["CompiledProgram", "Input"]


class CompiledProgram(ProgramModule):
    """A program that is called like the model that it was compiled from.

    It takes the model's arguments, by position or by name, and returns what the model returns,
    with eager's strides and aliasing; inputs and buffers that the model writes to are written to.
    It computes no gradients, and is not affected by autocast around the call: what the model was
    captured with is in the program. Calls may come from many threads. As a part of a larger model
    it is a module, with the state dict of the model that it was compiled from: what ``to``,
    ``train`` and others do is the table in :mod:`rewright.interop.module`.

    Attributes:
        graph: the program's IR; not to be changed.
        signature: how arguments and results are nested around it.
        settings: what it was compiled with.
        source: the generated Python source.
        segments: the parts that TensorRT runs, with their engines.
        partition: which backend runs what, and why the rest stays in Torch; None where all of
            it runs in Torch.
        precision: which node computes in what, and why; None where that is as the model has it.
    """

    def __init__(
        self,
        graph: Graph,
        signature: Signature,
        settings: Settings,
        built: Built,
        segments: tuple[Segment, ...] = (),
        partition: PartitionReport | None = None,
        precision: PrecisionReport | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.signature = signature
        self.settings = settings
        self.source: str = built.source
        self.segments = segments
        self.partition = partition
        self.precision = precision
        self._call: Callable[..., Any] = built.call
        self._built = built

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program.

        Raises:
            InputError: the arguments don't fit; names the one, what was expected and what came.
        """
        if is_compiling() and is_traced():
            return self.traced(*args, **kwargs)
        if self._forward_hooks or self._forward_pre_hooks:
            return super().__call__(*args, **kwargs)
        try:
            return self._call(*args, **kwargs)
        except TypeError:
            # Too many, too few or unknown arguments are Python's to find and ours to explain.
            self._built.explain(args, kwargs)
            raise
        except RewrightError:
            raise
        except Exception as error:
            note_place(error)
            raise

    def refit(self, state_dict: Mapping[str, Any] | None = None, *, strict: bool = True) -> None:
        """Makes anew what the program holds of its weights, for other ones or after an edit.

        Folded constants are prepared again, and engines refitted or built again; no pass runs.
        Calls in other threads compute with all old weights or with all new ones. Where this fails,
        the program stays as it was.

        Tensors are held, not copied, as in a compile; but of a buffer that the program writes to,
        it makes a copy of its own. Tied weights are one: any of their names will do.

        Args:
            state_dict: tensors by the names of parameters and buffers, as
                ``model.state_dict()`` gives them. None: the weights that the program has, as they
                are now. An edit in place of one that is folded shows only after this; a call warns
                of it (:class:`~rewright.errors.StaleWeightsWarning`).
            strict: whether every parameter must be given. Buffers need not be, as not all of them
                are in a state dict; what is not given stays. A name that the program does not know
                is an error in either case.

        Raises:
            InputError: a name is unknown, a parameter is missing, or a tensor is not of the shape,
                dtype and device that the program needs.
            EngineError: an engine can't be built.
        """
        from rewright.refit import refit

        with self._weights:
            refit(self, state_dict, strict=strict)

    @property
    def cuda_graphs(self) -> GraphCounts | None:
        """What became of the calls, where they are to be captured into CUDA graphs; else None."""
        graphs = self._built.graphs
        return graphs.counts if graphs is not None else None

    def save(self, path: str | os.PathLike[str], *, sources: bool = True) -> None:
        """Writes the program to a file, which :func:`rewright.load` reads on any machine.

        The file is a zip of JSON, the graph's text, safetensors and engines; it holds no code, and
        is the same bytes whenever the same program is saved. Weights are saved as they are now. A
        file that is there is replaced once the new one is whole.

        Args:
            path: the file; ``.rw`` is the usual ending.
            sources: whether to keep the weights that only prepared constants were made of: without
                them the file is smaller, and what is loaded can't be refitted.

        Raises:
            ArtifactError: the program holds what has no text (a Triton kernel, a script object, a
                sparse or quantized constant), or the file can't be written.
        """
        from rewright.artifact.saving import save

        with self._weights:
            save(self, path, sources=sources)

    # -- the ecosystem's formats; docs/DEPLOY.md compares them

    def to_exported_program(self) -> torch.export.ExportedProgram:
        """The program as torch has it, for ``torch.export.save``; sizes that vary still do.

        What comes out needs nothing of ours, and no class of the model's: results of classes (a
        transformers ModelOutput) become dicts by field. Only TensorRT's engines are an operator of
        ours each: there, ``import rewright`` comes before ``torch.export.load``.

        Raises:
            UnsupportedError: something in it can't be said in FX.
            CompileError: torch can't export it.
        """
        from rewright.frontends.compat import tracing_lock
        from rewright.interop.formats import to_exported_program

        with tracing_lock(), self._weights:
            return to_exported_program(self)

    def to_torchscript(
        self, examples: Sequence[torch.Tensor] | None = None
    ) -> torch.jit.ScriptModule:
        """The program as TorchScript, traced for the sizes of the examples.

        It takes the tensor arguments, flat and in order, and returns a tensor or a tuple of them.

        Args:
            examples: a tensor for each tensor argument; by default of typical sizes.

        Raises:
            UnsupportedError: it has engines, or takes or returns what is no tensor.
            InputError: the examples are too many or too few, or don't fit.
            CompileError: torch can't trace it.
        """
        from rewright.frontends.compat import tracing_lock
        from rewright.interop.formats import to_torchscript

        with tracing_lock(), self._weights:
            return to_torchscript(self, examples)

    def aoti_package(
        self, path: str | os.PathLike[str], options: Mapping[str, Any] | None = None
    ) -> str:
        """Compiles the program by AOTInductor to a package that C++ can load, without Python.

        Args:
            path: of the package, which ends in ``.pt2``.
            options: of Inductor, by name.

        Returns:
            The path.

        Raises:
            UnsupportedError: it has engines, or something in it can't be said in FX.
            CompileError: torch can't compile it.
        """
        from rewright.frontends.compat import tracing_lock
        from rewright.interop.formats import aoti_package

        with tracing_lock(), self._weights:
            return aoti_package(self, path, options)

    def single_engine(self) -> EngineFile:
        """The engine of a program that is one, with its bindings, for TensorRT's own runtimes.

        Raises:
            UnsupportedError: it is not one engine: names the segments, and the nodes outside.
            EngineError: the engine is not built yet.
        """
        from rewright.interop.engine import single_engine

        with self._weights:
            return single_engine(self)

    def engine_bytes(self) -> bytes:
        """The bytes of :meth:`single_engine`, as trtexec takes them in a file."""
        return self.single_engine().data

    @property
    def prepared_bytes(self) -> int:
        """The bytes of the part *prepared* (:data:`~rewright.artifact.parts.PARTS`)."""
        return self._parts()["prepared"].bytes

    def _parts(self) -> dict[str, Part]:
        """How much there is of each part of the program."""
        from rewright.artifact.contents import held_kinds, parts_of

        engines = {s.engine.data for s in self.segments if s.engine is not None}
        kinds = held_kinds(self.graph, fallback=self.settings.fallback == "torch")
        return parts_of(self.graph, kinds, map(len, engines))

    def report(self) -> Report:
        """What was compiled: which backend runs what, and what to change to get more into it.

        ``print(program.report())`` is plain text; ``.show()`` prints tables where standard output
        is a terminal, ``.to_html()`` gives a page, and ``.to_json()`` plain data.
        """
        from rewright.report import report_of

        return report_of(self)

    def __repr__(self) -> str:
        count = len(self.graph)
        return f"<CompiledProgram {self.graph.name}: {count} node{'s' * (count != 1)}>"
