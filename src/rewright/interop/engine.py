"""Engines outside of a program: as bytes for other runtimes, and as an operator that carries them.

``rewright::engine`` takes an engine as a tensor of bytes, the constants that its segment is made
of, and a text that says what it is: the segment's graph and the engine's ports, as JSON. So it
needs nothing else in the process that loads it, and where the engine can't run, the segment does,
in Torch, and says so once.
"""

from __future__ import annotations

import functools
import json
import operator
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from rewright.caller import warn
from rewright.errors import EngineError, FallbackWarning, RewrightError, UnsupportedError
from rewright.interop.operators import NAMESPACE, declare
from rewright.interop.sizes_at import SizesAt, empty_like
from rewright.ir.graph import Constant, Graph, Node
from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_graph
from rewright.ir.segments import segments_of
from rewright.ir.signature import Argument, Signature
from rewright.ir.types import ScalarType, TensorType

if TYPE_CHECKING:
    from rewright.backends.tensorrt.build import Engine
    from rewright.backends.tensorrt.segment import Segment
    from rewright.interop.portable import EngineCall, ProgramWriter
    from rewright.program import CompiledProgram

FORMAT: Final = 1
"""The version of what ``about`` says."""


# --------------------------------------------------------------------------- one engine, as bytes


@attrs.frozen
class Binding:
    """An input or output of an engine.

    Attributes:
        name: by which TensorRT knows it.
        dtype: of its elements.
        shape: its dimensions; a text (an expression over sizes) where one varies.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]


@attrs.frozen
class EngineFile:
    """An engine, and what a runtime needs to know of it.

    Attributes:
        data: what TensorRT deserializes.
        library: what it was built with, and must be run with: ``tensorrt_rtx 1.7.1``.
        inputs: in the order of the program's arguments.
        outputs: in the order of the program's results.
    """

    data: bytes = attrs.field(repr=lambda data: f"{len(data)} bytes")
    library: str
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]


def single_engine(program: CompiledProgram) -> EngineFile:
    """The engine of a program that is one segment of TensorRT's, and nothing else.

    Raises:
        UnsupportedError: it is not; names the segments, and the nodes outside.
        EngineError: the engine is not built yet.
    """
    graph = program.graph
    outside = [node for node in graph if node not in {*segments_of(graph)}]
    if len(program.segments) != 1 or outside:
        raise UnsupportedError(
            f"@{graph.name} is no single TensorRT engine: it has "
            f"{_named('segment', [s.name for s in program.segments])} and "
            f"{_named('node', [n.op.name for n in outside])} in Torch",
            hint="program.report() says why these stay in Torch; to_exported_program() takes both",
        )
    (segment,) = program.segments
    engine = segment.engine
    if engine is None:
        raise EngineError(f"the engine of {segment.name} is not built yet", engine=segment.name)
    returned = {*segment.graph.outputs}
    if len(graph.outputs) != len(returned) or graph.targets:
        raise UnsupportedError(
            f"@{graph.name} writes to its inputs, or returns aliases: an engine can do neither",
            hint="call the program",
        )
    return EngineFile(
        engine.data, engine.library, _bindings(engine.inputs), _bindings(engine.outputs)
    )


def _named(what: str, names: Sequence[str]) -> str:
    if not names:
        return f"no {what}s"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{len(names)} {what}{'s' * (len(names) > 1)} ({shown})"


def _bindings(ports: Sequence[Any]) -> tuple[Binding, ...]:
    found = []
    for port in ports:
        value_type = port.value.type
        assert isinstance(value_type, TensorType)
        shape = tuple(dim if isinstance(dim, int) else str(dim) for dim in value_type.shape)
        found.append(Binding(port.name, value_type.dtype, shape))
    return tuple(found)


# --------------------------------------------------------------------------- writing the operator


def engine_calls(program: CompiledProgram) -> dict[Node, EngineCall]:
    """What writes the call of each of the program's engines.

    Raises:
        EngineError: one is not built yet.
    """
    if not program.segments:
        return {}
    declare()
    from rewright.backends.tensorrt.segment import NAME

    nodes = [n for n in segments_of(program.graph) if n.attributes["backend"] == NAME]
    return {
        node: functools.partial(_write, segment)
        for node, segment in zip(nodes, program.segments, strict=True)
    }


def _write(segment: Segment, writer: ProgramWriter, node: Node) -> Sequence[Any]:
    engine = segment.engine
    if engine is None:
        raise EngineError(f"the engine of {segment.name} is not built yet", engine=segment.name)
    outside = {v.name: writer.values[v] for v in node.operands if isinstance(v, Constant)}
    operands = [node.operands[at] for at in segment.inputs]
    tensors = [writer.values[v] for v in operands if isinstance(v.type, TensorType)]
    sizes = [writer.values[v] for v in operands if isinstance(v.type, ScalarType)]
    data = torch.frombuffer(bytearray(engine.data), dtype=torch.uint8)
    made = writer.fx.call_function(
        getattr(torch.ops, NAMESPACE).engine.default,
        (
            tensors,
            sizes,
            writer.hold(f"engines.{segment.name}", data),
            [outside[name] for name in segment.constant_names],
            _about(segment, engine),
        ),
    )
    numbers = range(len(node.results))
    return [writer.fx.call_function(operator.getitem, (made, number)) for number in numbers]


def _about(segment: Segment, engine: Engine) -> str:
    from rewright.backends.tensorrt.cache import describe_engine

    return json.dumps(
        {
            "format": FORMAT,
            "graph": print_graph(segment.graph, locations=False),
            "engine": describe_engine(engine, segment.graph),
        }
    )


# --------------------------------------------------------------------------- running it

_runners: Final[Any] = WeakIdKeyDictionary()
"""What runs an engine, by the tensor of its bytes."""
_lock: Final = threading.RLock()


@functools.lru_cache(maxsize=256)
def _graph_of(about: str) -> Graph:
    """The segment's graph.

    Raises:
        UnsupportedError: a later version of ours wrote it.
    """
    described = json.loads(about)
    if described["format"] != FORMAT:
        raise UnsupportedError(
            f"an engine was written in the format {described['format']}, known is {FORMAT}",
            hint="load it with the rewright that exported it, or a later one",
        )
    return parse_graph(described["graph"])


def _inputs(graph: Graph, tensors: Sequence[Tensor], sizes: Sequence[Any]) -> list[Any]:
    left, rest = iter(tensors), iter(sizes)
    return [next(left if isinstance(v.type, TensorType) else rest) for v in graph.inputs]


def real_engine(
    tensors: Sequence[Tensor],
    sizes: Sequence[int],
    engine: Tensor,
    constants: Sequence[Tensor],
    about: str,
) -> list[Tensor]:
    """Runs the engine; or its segment in Torch, where the engine can't run."""
    run = _runner(engine, constants, about)
    return list(run(*_inputs(_graph_of(about), tensors, sizes)))


def _runner(engine: Tensor, constants: Sequence[Tensor], about: str) -> Callable[..., Any]:
    key = (about, engine.data_ptr(), *(constant.data_ptr() for constant in constants))
    known = _runners.get(engine)
    if known is None or known[0] != key:
        with _lock:
            known = _runners.get(engine)
            if known is None or known[0] != key:
                known = _runners[engine] = key, _load(engine, constants, about)
    run: Callable[..., Any] = known[1]
    return run


def _load(engine: Tensor, constants: Sequence[Tensor], about: str) -> Callable[..., Any]:
    graph = _graph_of(about)
    try:
        return _load_engine(engine, constants, graph, about)
    except EngineError as error:
        from rewright.statistics import record_fallback

        record_fallback(f"segment {graph.name} runs in Torch: {error.message}")
        warn(
            f"segment {graph.name} runs in Torch, for its engine can't run here: {error}",
            FallbackWarning,
        )
    return _in_torch(graph, constants)


def _load_engine(
    engine: Tensor, constants: Sequence[Tensor], graph: Graph, about: str
) -> Callable[..., Any]:
    from rewright.backends.tensorrt.cache import restore_engine
    from rewright.backends.tensorrt.library import FLAVORS, choose
    from rewright.backends.tensorrt.runtime import load_runner
    from rewright.store import Entry

    described = json.loads(about)["engine"]
    built_with = described["library"]
    package = built_with.split()[0]
    flavor = next((name for name, known in FLAVORS.items() if known.package == package), None)
    if flavor is None:
        raise EngineError(f"it was built with {built_with}, which is not known here")
    if not engine.is_cuda and not torch.cuda.is_available():
        raise EngineError("torch finds no CUDA device here")
    library = choose(flavor, None).library
    assert library is not None  # a library that is named is there, or an error
    data = engine.detach().cpu().numpy().tobytes()
    try:
        found = restore_engine(Entry("", data, {"engine": described}), graph)
    except (LookupError, TypeError, ValueError) as error:
        raise EngineError(f"what is said of the engine is damaged: {error}") from error
    weights = dict(zip(graph.constants, constants, strict=True))
    return load_runner(found, library, name=graph.name, weights=weights)


def _in_torch(graph: Graph, constants: Sequence[Tensor]) -> Callable[..., Any]:
    """What runs the segment in Torch."""
    from rewright.backends.torch.build import build
    from rewright.settings import Settings

    bound = graph.copy()
    for constant, data in zip(bound.constants.values(), constants, strict=True):
        constant.data = data
    arguments = [Argument(f"input_{n}", input=n) for n in range(len(bound.inputs))]
    try:
        return build(bound, Signature(tuple(arguments)), Settings()).call
    except RewrightError as error:
        raise EngineError(
            f"the segment {graph.name} can't run in Torch either: {error}", engine=graph.name
        ) from error


def fake_engine(
    tensors: Sequence[Tensor],
    sizes: Sequence[Any],
    engine: Tensor,
    constants: Sequence[Tensor],
    about: str,
) -> list[Tensor]:
    """Empty tensors of the shapes that the engine would return."""
    graph = _graph_of(about)
    at = SizesAt(graph, _inputs(graph, tensors, sizes))
    device = tensors[0].device if tensors else torch.device(graph.device)
    return [empty_like(value, at).to(device) for value in graph.outputs]
