"""The double of TensorRT's runtime has what TensorRT has, as it has it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from tests.backends.tensorrt.api_check import api
from tests.backends.tensorrt.double import CLASSIC, ENUMS, RTX, VERSIONS, double
from tests.backends.tensorrt.native import CLASSES, forms, public_members

MEMBERS = [
    (owner, name, item)
    for owner in CLASSES
    for name, item in public_members(owner).items()
    if name != "__init__"
]
NAMED = [f"{owner.__name__}.{name}" for owner, name, _ in MEMBERS]

KINDS = {
    "str": ("str",),
    "SupportsInt": ("int",),
    "int": ("int",),
    "tuple": ("Dims",),
    "list": ("Dims",),
    "Dims": ("Dims",),
    "Buffer": ("buffer",),
    "buffer": ("buffer",),
    "ILogger": ("ILogger",),
    "ExecutionContextAllocationStrategy": ("ExecutionContextAllocationStrategy",),
    "IOutputAllocator": ("IOutputAllocator",),
    "IRuntimeConfig": ("IRuntimeConfig",),
    "IRuntimeCache": ("IRuntimeCache",),
    "Weights": ("Weights",),
    "SerializationFlag": ("SerializationFlag",),
    "ISerializationConfig": ("ISerializationConfig",),
}
"""What the double calls the types that stand in a binding's docstrings."""


@pytest.mark.parametrize(("owner", "name", "item"), MEMBERS, ids=NAMED)
def test_members_are_tensorrts(owner: type, name: str, item: Any) -> None:
    found = api().find(owner.__name__, name)
    assert found, "no version has it"
    for version, text in found.items():
        if isinstance(item, property):
            assert text.startswith("property"), VERSIONS[version]
            assert item.fset is None or text == "property rw", VERSIONS[version]
            continue
        least, most = _arguments(item)
        assert any(low <= most and least <= high for low, high in forms(text)), VERSIONS[version]
        assert len(item.kinds) == most


def _arguments(function: Any) -> tuple[int, int]:
    _, *parameters = inspect.signature(function).parameters.values()
    required = [p for p in parameters if p.default is inspect.Parameter.empty]
    return len(required), len(parameters)


@pytest.mark.parametrize(("owner", "name", "item"), MEMBERS, ids=NAMED)
def test_types_are_the_bindings(owner: type, name: str, item: Any) -> None:
    """Each argument has the type that the docstring of the real binding says."""
    trt = pytest.importorskip("tensorrt_rtx")
    real = getattr(getattr(trt, owner.__name__), name)
    if isinstance(item, property):
        assert isinstance(real, property)
        assert item.fset is None or real.fset is not None
        return
    ours = [kind.split("|")[0] for kind in item.kinds]
    written = [_kinds(line) for line in real.__doc__.splitlines() if f"{name}(self:" in line]
    assert any(each[: len(ours)] == ours for each in written), (ours, written)


def _kinds(line: str) -> list[str]:
    """The types of a docstring's ``name(self: C, a: module.T = default, ...) -> R``."""
    inside = line.partition("(")[2].rpartition(") ->")[0]
    types = re.findall(r"\w+: ([\w.:]+)", inside)[1:]
    names = [re.split(r"[.:]+", found)[-1] for found in types]
    return [KINDS.get(each, (each,))[0] for each in names]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_has_no_more_than_it_has(version: str) -> None:
    library, number = double(version), VERSIONS.index(version)
    for owner, name, _ in MEMBERS:
        has = number in api().find(owner.__name__, name)
        assert library.has(f"{owner.__name__}.{name}") == has
    for enum in ENUMS:
        assert library.has(enum) == (number in api().find(enum))
    assert library.name.startswith(version.rpartition(".")[0][:14])


def test_numbers_of_diagnostics() -> None:
    """What the runtime reads as bits are bits, as in the real binding."""
    trt = pytest.importorskip("tensorrt_rtx")
    for name in ("EngineInvalidityDiagnostics", "EngineValidity"):
        ours, theirs = getattr(double().module, name), getattr(trt, name)
        assert {k: int(v) for k, v in ours.__members__.items()} == {
            k: int(v) for k, v in theirs.__members__.items()
        }


def test_planted_mistakes_are_found() -> None:
    library = double(CLASSIC)
    runtime = library.module.Runtime(library.logger)
    with pytest.raises(TypeError, match="takes"):
        runtime.deserialize_cuda_engine("text")
    with pytest.raises(TypeError, match="not 2 arguments"):
        runtime.deserialize_cuda_engine(b"", 1)
    with pytest.raises(AttributeError):
        runtime.get_engine_validity(b"")  # this version has none
    with pytest.raises(AttributeError, match="has no max_thread"):
        runtime.max_thread = 3
    config = double(RTX).module.IRuntimeConfig()
    with pytest.raises(TypeError, match="takes CudaGraphStrategy"):
        config.cuda_graph_strategy = 1
