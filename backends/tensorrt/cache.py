"""Engines kept between processes: found again by what they were built from.

The key of an engine is the SHA-256 of everything that it depends on, and of nothing else:

* what the graph computes (:mod:`rewright.ir.canonical`: ops, wiring, attributes, types, ranges,
  recipes), whatever it calls its values, constants and lines;
* the contents of its constants;
* the build options;
* the library, its version, and the GPU wherever an engine is made for the one that is there;
* the source of the code between a graph and its network: ours, and that of converters declared
  elsewhere. So a converter that was changed never gets an engine from before.

An engine is kept as its bytes and, as JSON, the rest of :class:`Engine`; ports are numbers of
inputs and outputs of the graph, and are found again in the graph that is at hand.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import attrs
import torch

from rewright.backends.contents import tensor_digests
from rewright.backends.tensorrt.build import Engine
from rewright.backends.tensorrt.declaration import converter_of
from rewright.backends.tensorrt.emitter import Port
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.log import LOG
from rewright.backends.tensorrt.options import BuildOptions
from rewright.errors import CompileError, UnsupportedError
from rewright.ir.canonical import Canonical, canonical
from rewright.ir.graph import Graph, Value
from rewright.statistics import record
from rewright.store import Entry, Store, default_store

_SOURCES: Final = ("rewright.ir", "rewright.backends")
"""The packages that make a network of a graph."""

_BEGAN: Final = time.time()


def key_of(
    graph: Graph, library: Library, options: BuildOptions, constants: Mapping[str, torch.Tensor]
) -> str | None:
    """As :func:`engine_key`; None where there is no key, which the log says."""
    try:
        return engine_key(graph, library, options, constants)
    except (CompileError, OSError) as error:
        LOG.info("the engine of @%s can't be kept: %s", graph.name, error)
        return None


def cached_engine(
    key: str | None,
    graph: Graph,
    options: BuildOptions,
    build: Callable[[], Engine],
    *,
    store: Store | None = None,
) -> Engine:
    """The engine of a graph: the one that is kept, or else what `build` gives, which is kept then.

    Counts in ``rewright.stats()`` as a cache hit or miss. Whatever goes wrong with the cache is a
    line in the log and never an error: the engine is built.

    Args:
        key: as :func:`key_of` gave it; None: it is not kept.
        graph: what the engine computes.
        options: how it is built.
        build: builds it.
        store: where engines are kept; by default where the environment says.

    Raises:
        SettingsError: the environment asks for a cache of a size that is none.
    """
    store = store or default_store()
    if key is None or not store.limit:
        return build()
    engine = _kept(store, key, graph)
    if engine is not None:
        record(cache_hits=1)
        LOG.info("took @%s from the cache: %.1f MB", graph.name, len(engine.data) / 1e6)
        return engine
    engine = build()
    record(cache_misses=1)
    _keep(store, key, engine, graph, options)
    return engine


def _keep(store: Store, key: str, engine: Engine, graph: Graph, options: BuildOptions) -> None:
    target = ", ".join(f"{major}.{minor}" for major, minor in options.capabilities)
    about = f"@{graph.name}, {engine.library}{f' for {target}' if target else ''}"
    try:
        store.put(key, engine.data, {"about": about, "engine": describe_engine(engine, graph)})
    except (TypeError, ValueError, MemoryError) as error:
        LOG.warning("the engine of @%s can't be kept: %r", graph.name, error)


def _kept(store: Store, key: str, graph: Graph) -> Engine | None:
    try:
        entry = store.get(key)
    except MemoryError:
        LOG.warning("there is no memory to read the engine of @%s from the cache", graph.name)
        return None
    if entry is None:
        return None
    try:
        return restore_engine(entry, graph)
    except (LookupError, TypeError, ValueError) as error:
        store.discard(key, f"it describes no engine of this graph: {error!r}")
        return None


# --------------------------------------------------------------------------- keys


def engine_key(
    graph: Graph, library: Library, options: BuildOptions, constants: Mapping[str, torch.Tensor]
) -> str:
    """The key of an engine: 64 hexadecimal digits.

    Raises:
        UnsupportedError: something that the engine depends on can't be told from others like it.
    """
    prepared = (c for c in graph.constants.values() if not c.is_source and c.has_uses)
    form = canonical(graph, recipes=not all(c.name in constants for c in prepared))
    parts = {
        "graph": form.text,
        "constants": _contents(form, constants),
        "options": _plain(options),
        "library": [library.flavor, *library.version],
        "gpu": None if library.is_rtx and options.capabilities else _gpu(graph.device),
        "code": [_our_code(), *_code_of_others(graph)],
        "host": [torch.__version__, sys.platform, platform.machine()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _contents(form: Canonical, constants: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Digests of the constants that are given, by their numbers; nothing where there is no data."""
    data = {c: constants.get(c.name, c.data) for c in form.given}
    known = {c: tensor for c, tensor in data.items() if tensor is not None}
    digests = dict(zip(known, tensor_digests([*known.values()]), strict=True))
    numbers = {constant: number for number, constant in enumerate(form.constants)}
    return {str(numbers[constant]): found.hex() for constant, found in digests.items()}


def _gpu(device: str) -> list[Any] | None:
    """What an engine that is built for a GPU of this machine depends on."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(device if device.startswith("cuda") else None)
    return [found.name, found.major, found.minor, found.multi_processor_count, found.total_memory]


@cache
def _our_code() -> str:
    total = hashlib.sha256()
    for package in _SOURCES:
        (folder,) = import_module(package).__path__
        for path in sorted(Path(folder).rglob("*.py")):
            total.update(f"{path.relative_to(folder)} {_digest_of_file(path)}\n".encode())
    return total.hexdigest()


def _code_of_others(graph: Graph) -> list[str]:
    """The source files of converters of others that `graph` needs."""
    ops = {node.op.name: node.op for node in graph.walk()}
    found = (converter_of(op) for op in ops.values())
    functions = [converter.convert for converter in found if converter is not None]
    modules = {f.__module__: f for f in functions if not f.__module__.startswith("rewright.")}
    return [_code_of(modules[name]) for name in sorted(modules)]


def _code_of(function: Callable[..., Any]) -> str:
    try:
        return _digest_of_file(Path(inspect.getfile(function)))
    except (OSError, TypeError):
        raise UnsupportedError(
            f"the converter {function.__qualname__} has no source file", where=function.__module__
        ) from None


def _digest_of_file(path: Path) -> str:
    """A digest of a source file.

    Raises:
        UnsupportedError: it was written since this process began, which may run what was before.
    """
    if path.stat().st_mtime > _BEGAN:
        raise UnsupportedError(
            f"{path.name} was changed while the program runs",
            where=path,
            hint="start the process again: what is cached must be what the file says",
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    """`value` as JSON that tells it from other values.

    Raises:
        UnsupportedError: there is none.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {"mapping": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    if attrs.has(type(value)):
        return {
            field.name: _plain(getattr(value, field.name)) for field in attrs.fields(type(value))
        }
    raise UnsupportedError(f"a {type(value).__name__} among the build options has no text")


# --------------------------------------------------------------------------- engines as entries

_PORTS: Final = ("inputs", "outputs")


def describe_engine(engine: Engine, graph: Graph) -> dict[str, Any]:
    """All of an engine but its bytes, as JSON.

    Args:
        engine: the engine.
        graph: the graph that it was built from.

    Raises:
        ValueError: it was built from another graph.
    """
    described = {
        field.name: getattr(engine, field.name)
        for field in attrs.fields(Engine)
        if field.name not in ("data", *_PORTS)
    }
    for name in _PORTS:
        numbers = _numbers(_values(graph)[name], getattr(engine, name))
        described[name] = [
            attrs.asdict(port, recurse=False, filter=lambda field, _: field.name != "value")
            | {"number": number}
            for port, number in zip(getattr(engine, name), numbers, strict=True)
        ]
    return described


def restore_engine(entry: Entry, graph: Graph) -> Engine:
    """The engine that an entry holds, with ports of `graph`.

    Raises:
        LookupError, TypeError, ValueError: it holds none, or one of another graph.
    """
    described = dict(entry.metadata["engine"])
    fields: dict[str, Any] = {
        name: tuple(_port(port, _values(graph)[name]) for port in described.pop(name))
        for name in _PORTS
    }
    fields |= _tuples(described)
    return Engine(data=entry.data, **fields)


def engine_for(graph: Graph, engine: Engine, other: Graph) -> Engine:
    """The engine of `other`, which computes the same as `graph`, as that of `graph`.

    Raises:
        ValueError: the engine was built from another graph.
    """
    ports: dict[str, Any] = {
        name: tuple(
            attrs.evolve(port, value=_values(graph)[name][number])
            for port, number in zip(
                getattr(engine, name),
                _numbers(_values(other)[name], getattr(engine, name)),
                strict=True,
            )
        )
        for name in _PORTS
    }
    return attrs.evolve(engine, **ports)


def _values(graph: Graph) -> dict[str, Sequence[Value]]:
    """The values that ports stand for, by the name of the field of an engine."""
    return {"inputs": graph.inputs, "outputs": graph.terminator.operands}


def _numbers(values: Sequence[Value], ports: Sequence[Port]) -> list[int]:
    """The number of each port's value, in order: a value that stands twice has two ports."""
    numbers: list[int] = []
    for port in ports:
        start = numbers[-1] + 1 if numbers else 0
        found = next((n for n in range(start, len(values)) if values[n] is port.value), None)
        if found is None:
            raise ValueError(f"the port {port.name} is of another graph")
        numbers.append(found)
    return numbers


def _port(described: Mapping[str, Any], values: Sequence[Value]) -> Port:
    fields = dict(described)
    number = fields.pop("number")
    if number < 0:
        raise ValueError(f"there is no port {number}")
    return Port(value=values[number], **{name: _tuples(item) for name, item in fields.items()})


def _tuples(value: Any) -> Any:
    """`value`, as JSON gives it, with tuples for lists."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return value
