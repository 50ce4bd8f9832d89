"""``program.save(path)``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

import rewright
from rewright.artifact.container import FORMAT, Writer
from rewright.artifact.contents import (
    Kinds,
    kinds_of,
    op_names,
    opaque_part,
    parts_of,
    text_of,
)
from rewright.artifact.parts import encode_parts
from rewright.artifact.plain import dumps
from rewright.artifact.signature import encode_reports, encode_settings, encode_signature
from rewright.artifact.weights import FILES, Collected, collect, file_name
from rewright.backends.torch.prepare import prepared_now
from rewright.errors import ArtifactError
from rewright.ir.graph import Constant, Graph

if TYPE_CHECKING:
    from rewright.program import CompiledProgram

PathLike = str | os.PathLike[str]


def save(program: CompiledProgram, path: PathLike, *, sources: bool = True) -> None:
    """Writes `program` to a file: see :meth:`~rewright.program.CompiledProgram.save`."""
    graph, settings = program.graph, program.settings
    signature = encode_signature(program.signature)
    _check_text(graph)
    kinds = kinds_of(graph, fallback=settings.fallback == "torch", sources=sources)
    constants = _constants(graph, kinds)
    engines = [*_engines(program)]
    text = text_of(graph)
    members: dict[str, Any] = {}
    with _written(Path(path)) as file:
        writer = Writer(file)

        def add(name: str, size: int, pieces: Any) -> None:
            members[name] = {"size": size, "digest": writer.add(name, size, pieces)}

        add("program.ir", len(text), [text])
        for engine in engines:
            data = engine.pop("data")
            if engine["member"] not in members:  # several segments may share one
                add(engine["member"], len(data), [data])
        for kind in FILES:
            add(file_name(kind), constants.size(kind), constants.pieces(kind))
        manifest = {
            "format": FORMAT,
            "producer": _producer(program),
            "members": members,
            "settings": encode_settings(settings),
            "signature": signature,
            "constants": _described(constants),
            "left_out": sorted(constant.name for constant in kinds.left_out),
            "engines": engines,
            "reports": encode_reports(program),
            "operators": op_names(graph),
            "summary": _summary(graph, kinds, members),
        }
        writer.finish(dumps(manifest))


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once it is whole."""
    number, unfinished = -1, ""
    try:
        number, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(unfinished, 0o666 & ~mask)  # as open() would have made it
        os.replace(unfinished, path)
    except OSError as error:
        raise ArtifactError(
            f"the artifact can't be written: {error.strerror or error}", path=path
        ) from error
    finally:
        if unfinished:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)


def _check_text(graph: Graph) -> None:
    found = opaque_part(graph)
    if found is not None:
        what, node = found
        raise ArtifactError(
            f"the program can't be saved: {what}",
            where=node.loc if node is not None else None,
            hint="Triton kernels and script objects have no text; the rest of the model can be "
            "compiled and saved without them",
        )


# --------------------------------------------------------------------------- constants


def _constants(graph: Graph, kinds: Kinds) -> Collected:
    prepared = prepared_now(graph) if kinds.prepared else {}
    return collect(
        {
            kind: {
                c.name: _data(c, c.data if c.is_source else prepared.get(c.name)) for c in constants
            }
            for kind, constants in kinds.stored().items()
        }
    )


def _data(constant: Constant, data: Tensor | None) -> Tensor:
    if data is None:
        raise ArtifactError(
            f"the constant @{constant.name} has no data, and the program can't be saved",
            hint="a program whose file has no sources is saved without them: sources=False",
        )
    return data


def _described(constants: Collected) -> dict[str, Any]:
    """The runs of each file, and where constants lie in them."""
    return {
        "runs": {
            kind: [[run.name, run.dtype, list(run.shape)] for run in constants.stored(kind)]
            for kind in FILES
        },
        "places": {
            name: [place.kind, place.run, place.offset, list(place.strides)]
            for name, place in constants.places.items()
        },
    }


# --------------------------------------------------------------------------- engines


def _engines(program: CompiledProgram) -> Iterator[dict[str, Any]]:
    if not program.segments:
        return
    from rewright.backends.tensorrt.cache import describe_engine

    names: dict[bytes, str] = {}
    for segment in program.segments:
        engine = segment.engine
        if engine is None:
            raise ArtifactError(f"the engine of {segment.name} is not built yet")
        yield {
            "segment": segment.name,
            "member": names.setdefault(engine.data, f"engines/{len(names):04d}.engine"),
            "engine": describe_engine(engine, segment.graph),
            "data": engine.data,
        }


# --------------------------------------------------------------------------- what inspect shows


def _producer(program: CompiledProgram) -> dict[str, Any]:
    libraries = sorted({s.engine.library for s in program.segments if s.engine is not None})
    return {
        "rewright": rewright.__version__,
        "torch": str(torch.__version__),
        "tensorrt": libraries,
    }


def _summary(graph: Graph, kinds: Kinds, members: Mapping[str, Any]) -> dict[str, Any]:
    engines = [item["size"] for name, item in members.items() if name.startswith("engines/")]
    return {
        "parts": encode_parts(parts_of(graph, kinds, engines)),
        "name": graph.name,
        "device": graph.device,
        "inputs": [[value.hint, str(value.type)] for value in graph.inputs],
        "outputs": [str(value.type) for value in graph.outputs],
        "writebacks": len(graph.targets),
        "symbols": {
            str(symbol): [str(known) for known in info.ranges]
            for symbol, info in graph.symbols.items()
        },
    }
