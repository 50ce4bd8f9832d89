"""Engines are found again by what they were built from, and never for anything else."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import re
import time
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import rewright
from rewright import store as store_module
from rewright.backends.tensorrt import cache
from rewright.backends.tensorrt.build import Engine, build_engine
from rewright.backends.tensorrt.cache import cached_engine, engine_for, engine_key, key_of
from rewright.backends.tensorrt.declaration import converters
from rewright.backends.tensorrt.emitter import Port
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.options import BuildOptions
from rewright.errors import EngineError, SettingsError, UnsupportedError
from rewright.ir.attributes import Attributes, Opaque
from rewright.ir.graph import Graph
from rewright.ir.parser import parse_graph
from rewright.store import Store
from tests.backends.tensorrt.checking import rtx

BLOCK = """\
graph @block(%x: f32[s0, 8], %y: f32[s0, 8]) -> (f32[s0, 8], f32[s0, 8])
  where s0 in {1..4..32} = dim(%x, 0)
{
  %a = rw.linear(%x, @w) : f32[s0, 8]
  %b = aten.add.Tensor(%a, %y, alpha=2) : f32[s0, 8]
  %c = aten.mul.Tensor(%b, @v) : f32[s0, 8]
  return %c, %b
}
constants {
  parameter @p : f32[8, 8]
  buffer @v : f32[8]
}
prepare {
  @w = aten.mul.Tensor(@p, 2.0) : f32[8, 8]
}
"""
LIBRARY = Library(None, "rtx", (1, 7, 1, 116))
OPTIONS = BuildOptions(capabilities=((8, 9),))
_OUR_CODE = cache._our_code.__wrapped__


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever edits the source while tests run gets the same outcomes."""
    monkeypatch.setattr(cache, "_our_code", lambda: "our code")


def _graph(text: str = BLOCK, seed: int = 0) -> Graph:
    graph = parse_graph(text)
    for constant in sorted(graph.constants.values(), key=lambda c: str(c.type)):
        if constant.is_source:
            generator = torch.Generator().manual_seed(seed)
            shape = [int(dim) for dim in constant.type.shape]  # type: ignore[union-attr]
            constant.data = torch.randn(shape, generator=generator).to(constant.type.dtype)  # type: ignore[union-attr]
    return graph


def _key(
    graph: Graph | None = None,
    library: Library = LIBRARY,
    options: BuildOptions = OPTIONS,
    constants: Mapping[str, torch.Tensor] | None = None,
) -> str:
    return engine_key(graph or _graph(), library, options, constants or {})


# --------------------------------------------------------------------------- keys

CHANGES = {
    "wiring": ("rw.linear(%x, @w)", "rw.linear(%y, @w)"),
    "order of operands": ("(%a, %y, alpha", "(%y, %a, alpha"),
    "op": ("mul.Tensor(%b", "sub.Tensor(%b"),
    "attribute": ("alpha=2", "alpha=3"),
    "class of an attribute": ("alpha=2", "alpha=2.0"),
    "dtype": ("%x: f32[s0, 8]", "%x: f16[s0, 8]"),
    "dtype of a constant": ("@v : f32", "@v : f16"),
    "least size": ("1..4..32", "2..4..32"),
    "typical size": ("1..4..32", "1..5..32"),
    "largest size": ("1..4..32", "1..4..33"),
    "profiles": ("1..4..32", "1..4..32, 1..4..32"),
    "order of outputs": ("return %c, %b", "return %b, %c"),
    "write-back": ("return %c, %b", "return %c, %b\n  writeback %y = %a"),
    "recipe": ("(@p, 2.0)", "(@p, 2.5)"),
}


def _changed(name: str) -> Graph:
    old, new = CHANGES[name]
    assert old in BLOCK
    return _graph(BLOCK.replace(old, new))


def _with_bit(name: str) -> Graph:
    graph = _graph()
    data = graph.constants[name].data
    assert data is not None
    data.view(torch.int32)[-1] ^= 1
    return graph


def test_no_two_differences_share_a_key() -> None:
    keys = {
        "base": _key(),
        **{name: _key(_changed(name)) for name in CHANGES},
        "bit of a constant": _key(_with_bit("v")),
        "bit of what a recipe reads": _key(_with_bit("p")),
        "another flavor": _key(library=Library(None, "tensorrt", (1, 7, 1, 116))),
        "another version": _key(library=Library(None, "rtx", (1, 7, 2, 116))),
        "another build": _key(library=Library(None, "rtx", (1, 7, 1, 117))),
        "another target": _key(options=BuildOptions(capabilities=((12, 0),))),
        "another order of targets": _key(options=BuildOptions(capabilities=((12, 0), (8, 9)))),
        "more targets": _key(options=BuildOptions(capabilities=((8, 9), (12, 0)))),
    }
    for one, other in combinations(keys, 2):
        assert keys[one] != keys[other], (one, other)


def test_constants_that_change_places_change_the_key() -> None:
    text = (
        "graph @g(%x: f32[2]) -> f32[2]\n{\n  %a = aten.mul.Tensor(%x, @p) : f32[2]\n"
        "  %b = aten.add.Tensor(%a, @q) : f32[2]\n  return %b\n}\n"
        "constants {\n  parameter @p : f32[2]\n  parameter @q : f32[2]\n}\n"
    )
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    keys = {
        _key(parse_graph(text), constants={"p": p, "q": q})
        for p, q in ((one, two), (two, one), (one, one), (two, two))
    }
    assert len(keys) == 4


@pytest.mark.parametrize("field", attrs.fields(BuildOptions), ids=lambda field: field.name)
def test_every_option_is_in_the_key(field: Any) -> None:
    """Also those that are added later."""
    given = getattr(OPTIONS, field.name)
    other = {bool: not given, tuple: ((12, 0),)}.get(type(given), 3)
    assert _key(options=attrs.evolve(OPTIONS, **{field.name: other})) != _key()


NAMES = {
    "graph": ("@block", "@other"),
    "values": (r"%(\w+)", r"%other_\1"),
    "constants": (r"@(\w+)", r"@layers.\1"),
    "symbols": (r"\bs0\b", "s77"),
    "kinds of sources": ("parameter|buffer", "constant"),
    "aliases": (r"(@p : .*)", r"\1 also @tied"),
    "locations": (r"(%[abc] = .*)", r"\1  # model.py:7 (layers.0) by fold"),
}


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_in_the_key(name: str) -> None:
    text = re.sub(*NAMES[name], BLOCK)
    assert text != BLOCK
    assert _key(_graph(text)) == _key()


def test_the_same_contents_elsewhere_in_memory() -> None:
    graph = _graph()
    for constant in graph.constants.values():
        if constant.data is not None:
            constant.data = (
                constant.data.clone().mT.contiguous().mT
                if constant.name == "p"
                else (constant.data.clone())
            )
    assert _key(graph) == _key()


def test_data_may_be_given_instead_of_bound() -> None:
    bare = parse_graph(BLOCK)
    data = {c.name: c.data for c in _graph().constants.values() if c.data is not None}
    assert _key(bare, constants=data) == _key()
    assert _key(bare) != _key()
    other = {**data, "v": torch.zeros(8)}
    assert _key(_graph(), constants=other) != _key(), "what is given comes first"


def test_prepared_constants_may_be_given() -> None:
    """Then their recipes and sources don't matter."""
    graph, weight = _graph(), torch.randn(8, 8)
    given = _key(graph, constants={"w": weight})
    assert given == _key(_with_bit("p"), constants={"w": weight.clone()})
    assert given == _key(_changed("recipe"), constants={"w": weight})
    assert given != _key(graph, constants={"w": weight + 1})
    assert given != _key(graph)


def test_the_gpu_is_in_the_key_of_what_is_built_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    classic, anywhere = Library(None, "tensorrt", (10, 3, 0)), BuildOptions()
    before = {
        "classic": _key(library=classic), "default": _key(options=anywhere), "named": _key(),
    }  # fmt: skip
    monkeypatch.setattr(cache, "_gpu", lambda device: ["a GPU", 8, 9])
    assert _key(library=classic) != before["classic"]
    assert _key(options=anywhere) != before["default"]
    assert _key() == before["named"], "this engine is for any GPU of that capability"


def test_our_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _key()
    monkeypatch.setattr(cache, "_our_code", lambda: "changed")
    assert _key() != before


def test_every_file_of_our_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_package_of_the_test"
    (package / "inner").mkdir(parents=True)
    files = [package / "__init__.py", package / "one.py", package / "inner/two.py"]
    for path in files:
        path.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cache, "_SOURCES", (package.name,))
    monkeypatch.setattr(cache, "_BEGAN", time.time() + 60)
    found = {_OUR_CODE()}
    for path in files:
        path.write_text("x = 1\n")
        found.add(_OUR_CODE())
    files[1].rename(package / "three.py")
    found.add(_OUR_CODE())
    assert len(found) == 5
    monkeypatch.setattr(cache, "_BEGAN", 1.0)
    with pytest.raises(UnsupportedError, match="while the program runs"):
        _OUR_CODE()


def test_our_own_files_are_found() -> None:
    for package in cache._SOURCES:
        (folder,) = importlib.import_module(package).__path__
        assert [*Path(folder).rglob("*.py")]
    assert "rewright.backends" in cache._SOURCES
    assert "rewright.ir" in cache._SOURCES


def test_the_code_of_others_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that somebody declared elsewhere, and changes."""
    monkeypatch.setattr(cache, "_BEGAN", time.time() + 60)
    ours, path = cache.converter_of, tmp_path / "theirs.py"
    keys = {_key()}
    for number in (1, 2):
        path.write_text(f"def convert(call):\n    return {number}\n")
        theirs = attrs.evolve(converters()["rw.linear"], convert=_convert_of(path))
        monkeypatch.setattr(
            cache,
            "converter_of",
            lambda op, theirs=theirs: theirs if op.name == "rw.linear" else ours(op),
        )
        keys.add(_key())
    assert len(keys) == 3


def _convert_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("theirs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.convert


# --------------------------------------------------------------------------- kept engines


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store_module, "_warned", set())
    return Store(tmp_path / "cache")


def _engine(graph: Graph, data: bytes = b"engine") -> Engine:
    """An engine with something in every field."""
    made = {
        str: "text", "str": "text", int: 7, "int": 7, float: 0.5, "float": 0.5,
    }  # fmt: skip
    fields = {
        field.name: made.get(field.type, ("a", "b"))
        for field in attrs.fields(Engine)
        if field.name not in ("data", "inputs", "outputs")
    }
    inputs = tuple(Port(f"in{n}", value) for n, value in enumerate(graph.inputs))
    operands = graph.terminator.operands
    outputs = tuple(Port(f"out{n}", value) for n, value in enumerate(operands))
    return Engine(data=data, inputs=inputs, outputs=outputs, **fields)  # type: ignore[arg-type]


def _get(store: Store, graph: Graph, engine: Engine | None = None) -> Engine:
    def build() -> Engine:
        if engine is None:
            raise EngineError("nobody should build this")
        return engine

    key = key_of(graph, LIBRARY, OPTIONS, {})
    return cached_engine(key, graph, OPTIONS, build, store=store)


def _same(a: Engine, b: Engine) -> bool:
    names = [f.name for f in attrs.fields(Engine) if f.name not in ("inputs", "outputs")]
    return all(getattr(a, name) == getattr(b, name) for name in names)


def test_every_field_of_an_engine_is_kept(store: Store) -> None:
    """Also those that are added later: an engine from the cache is what was built."""
    graph = _graph()
    built = _engine(graph, bytes(range(256)) * 100)
    assert _get(store, graph, built) is built
    found = _get(store, graph)
    assert found is not built
    assert _same(found, built)
    assert found.inputs == built.inputs
    assert found.outputs == built.outputs
    counted = rewright.stats()
    assert (counted.cache_hits, counted.cache_misses) == (1, 1)


def test_ports_are_those_of_the_graph_at_hand(store: Store) -> None:
    graph = _graph()
    built = _engine(graph)
    built = attrs.evolve(built, inputs=built.inputs[1:])  # an input that is no tensor has none
    _get(store, graph, built)
    other = _graph(re.sub(*NAMES["values"], BLOCK))
    found = _get(store, other)
    assert [(p.name, p.value) for p in found.inputs] == [("in1", other.inputs[1])]
    assert [p.value for p in found.outputs] == [*other.outputs]
    assert [p.name for p in found.outputs] == ["out0", "out1"]


def test_a_value_that_is_returned_twice_has_two_ports(store: Store) -> None:
    text = BLOCK.replace("return %c, %b", "return %b, %b\n  writeback %y = %b")
    graph = _graph(text)
    _get(store, graph, _engine(graph))
    found = _get(store, graph)
    assert [p.name for p in found.outputs] == ["out0", "out1", "out2"]
    assert {p.value for p in found.outputs} == {graph.outputs[0]}


def test_an_engine_is_that_of_another_graph_which_is_the_same() -> None:
    graph, other = _graph(), _graph(re.sub(*NAMES["values"], BLOCK))
    engine = _engine(graph)
    found = engine_for(other, engine, graph)
    assert _same(found, engine)
    assert [port.name for port in found.inputs] == [port.name for port in engine.inputs]
    assert [port.value for port in found.inputs] == other.inputs
    with pytest.raises(ValueError, match="another graph"):
        engine_for(graph, found, graph)


@pytest.mark.parametrize("damage", ["cut", "bit", "metadata", "other ports"])
def test_what_is_damaged_is_built_anew(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    graph = _graph()
    _get(store, graph, _engine(graph, b"first" * 100))
    (path,) = store.folder.iterdir()
    key, data = path.stem, path.read_bytes()
    entry = store.get(key)
    assert entry is not None
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "bit":
        path.write_bytes(data[:-10] + bytes([data[-10] ^ 8]) + data[-9:])
    elif damage == "metadata":
        store.put(key, b"whole, but no engine", {"about": "something else"})
    else:
        text = json.dumps(entry.metadata).replace('"number": 1', '"number": 9')
        store.put(key, entry.data, json.loads(text))
    second = _engine(graph, b"second")
    assert _get(store, graph, second) is second
    assert _same(_get(store, graph), second)
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    counted = rewright.stats()
    assert (counted.cache_hits, counted.cache_misses) == (1, 2)


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    with pytest.raises(EngineError, match="nobody"):
        _get(store, _graph())
    assert not store.folder.exists()
    assert rewright.stats().cache_misses == 0


def test_where_nothing_can_be_kept_engines_are_built(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.folder.write_text("a file in the way of the folder")
    graph = _graph()
    for _ in range(2):
        engine = _engine(graph)
        assert _get(store, graph, engine) is engine
    assert caplog.text.count("can't be written to") == 1
    assert rewright.stats().cache_hits == 0


@pytest.mark.parametrize("member", ["get", "put"])
def test_without_memory_for_the_cache_engines_are_built(
    store: Store, member: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Store, member, fail)
    graph = _graph()
    engine = _engine(graph)
    assert _get(store, graph, engine) is engine
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "@block" in record.getMessage()


def test_what_has_no_key_is_built(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rewright.tensorrt")
    graph = _graph()
    node = next(iter(graph))
    node.attributes = Attributes({**node.attributes, "bias": Opaque(object(), "thing")})
    engine = _engine(graph)
    assert _get(store, graph, engine) is engine
    assert "@block can't be kept: a Opaque" in caplog.text
    sparse = _graph()
    sparse.constants["v"].data = torch.eye(8).to_sparse()
    assert _get(store, sparse, engine) is engine
    assert not store.folder.exists()


def test_an_engine_of_another_graph_is_not_kept(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    graph = _graph()
    engine = _engine(graph.copy())
    assert _get(store, graph, engine) is engine
    assert "is of another graph" in caplog.text
    assert not store.folder.exists()


def test_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _graph()
    engine = _engine(graph)

    def get() -> Engine:
        return cached_engine(key_of(graph, LIBRARY, OPTIONS, {}), graph, OPTIONS, lambda: engine)

    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path / "here"))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "0")
    assert get() is engine
    assert not (tmp_path / "here").exists()
    assert rewright.stats().cache_misses == 0, "nothing was looked for"
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "1M")
    assert get() is engine
    assert _same(get(), engine)
    assert get() is not engine
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "large")
    with pytest.raises(SettingsError, match="REWRIGHT_CACHE_SIZE"):
        get()


def test_a_real_engine(store: Store) -> None:
    library = rtx()
    graph = _graph()
    built = cached_engine(
        key_of(graph, library, OPTIONS, {}), graph, OPTIONS,
        lambda: build_engine(graph, library, OPTIONS), store=store,
    )  # fmt: skip
    other = _graph(re.sub(*NAMES["values"], BLOCK))

    def fail() -> Engine:
        raise AssertionError("it is there")

    key = key_of(other, library, OPTIONS, {})
    found = cached_engine(key, other, OPTIONS, fail, store=store)
    assert _same(found, built)
    assert [p.name for p in found.inputs] == [p.name for p in built.inputs]
    assert [p.value for p in found.inputs] == other.inputs
    (info,) = store.entries()
    assert info.metadata["about"] == f"@block, {library.name} for 8.9"
