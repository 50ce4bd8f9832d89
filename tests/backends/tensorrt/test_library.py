"""Which TensorRT is used, and what is said where there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rewright.backends.tensorrt import library as libraries
from rewright.backends.tensorrt.library import choose, load, version_of
from rewright.errors import EngineError, SettingsError

H200, ADA = (9, 0), (8, 9)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    load.cache_clear()
    yield
    load.cache_clear()


def _module(name: str, version: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    for key, value in members.items():
        setattr(module, key, value)
    return module


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: installs stand-ins for the two packages; None: not installed."""

    def put(rtx: str | None = None, tensorrt: str | None = None) -> None:
        found = {}
        if rtx is not None:
            names = {"NONE": 0, "CURRENT": 1, "SM89": 89, "SM120": 120}
            capability = SimpleNamespace(__members__=names)
            found["tensorrt_rtx"] = _module("tensorrt_rtx", rtx, ComputeCapability=capability)
        if tensorrt is not None:
            found["tensorrt"] = _module("tensorrt", tensorrt)

        def fetch(name: str) -> ModuleType:
            if name not in found:
                raise ModuleNotFoundError(f"no {name}", name=name)
            return found[name]

        monkeypatch.setattr(libraries.importlib, "import_module", fetch)

    return put


def test_the_real_one() -> None:
    pytest.importorskip("tensorrt_rtx")
    found = load("rtx")
    assert found.is_rtx
    assert found.version >= (1, 5)
    assert found.name.startswith("tensorrt_rtx 1.")
    assert found.has("INetworkDefinition.add_softmax")
    assert not found.has("INetworkDefinition.add_plugin_v3")
    assert ADA in found.capabilities()
    assert H200 not in found.capabilities()


def test_importing_the_backend_loads_no_tensorrt(fresh_python: Any) -> None:
    code = (
        "import sys, rewright.backends.tensorrt.declaration as d; d.converters();"
        "print([name for name in sys.modules if name.startswith('tensorrt')])"
    )
    assert fresh_python(code).strip() == "[]"


def test_missing(install: Any) -> None:
    install()
    with pytest.raises(EngineError, match="tensorrt_rtx is not installed") as error:
        load("rtx")
    assert "pip install" in str(error.value)


@pytest.mark.parametrize(("rtx", "tensorrt", "flavor"), [("1.4.0.76", None, "rtx"),
                                                         (None, "10.0.1", "tensorrt")])  # fmt: skip
def test_too_old(install: Any, rtx: str, tensorrt: str, flavor: str) -> None:
    install(rtx, tensorrt)
    with pytest.raises(EngineError, match="too old"):
        load(flavor)


@pytest.mark.parametrize(
    "error",
    [
        OSError("libnvinfer.so: cannot open shared object file"),
        AttributeError("module 'numpy' has no attribute 'bool'"),  # 8.6 with a newer numpy
        RuntimeError("no driver"),
    ],
)
def test_broken(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(libraries.importlib, "import_module", fetch)
    with pytest.raises(EngineError, match=f"can't be imported: {error}"):
        load("tensorrt")


def test_a_folder_of_that_name_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries.importlib, "import_module", ModuleType)
    with pytest.raises(EngineError, match="imported as tensorrt is no TensorRT") as error:
        load("tensorrt")
    assert "rename a folder" in str(error.value)


CHOICES = {
    # target, GPU, rtx, tensorrt: what is chosen, and why
    ("auto", None, "1.7.1", "11.4"): (None, "needs a GPU"),
    ("cpu", ADA, "1.7.1", "11.4"): (None, "needs a GPU"),
    ("auto", ADA, "1.7.1", "11.4"): ("rtx", "supports 8.9"),
    ("cuda", ADA, "1.7.1", None): (None, "names Torch on a GPU"),
    ("auto", H200, "1.7.1", "11.4"): ("tensorrt", "supports 8.9, 12.0, not 9.0"),
    ("auto", H200, "1.7.1", None): (None, "not 9.0; tensorrt is not installed"),
    ("auto", ADA, None, "10.3.0"): ("tensorrt", "tensorrt_rtx is not installed"),
    ("auto", ADA, None, None): (None, "tensorrt is not installed"),
    ("rtx", H200, "1.7.1", "11.4"): ("rtx", "names it"),
    ("rtx:8.9,12.0", None, "1.7.1", None): ("rtx", "names it"),
    ("tensorrt", ADA, "1.7.1", "11.4"): ("tensorrt", "names it"),
}


@pytest.mark.parametrize("case", CHOICES, ids=str)
def test_choice(case: Any, install: Any, caplog: pytest.LogCaptureFixture) -> None:
    target, gpu, rtx, tensorrt = case
    flavor, why = CHOICES[case]
    install(rtx, tensorrt)
    with caplog.at_level(logging.INFO, "rewright.tensorrt"):
        choice = choose(target, gpu)
    assert (choice.library.flavor if choice.library else None) == flavor
    assert why in choice.reason
    (line,) = caplog.messages
    assert target in line
    assert why in line


def test_capabilities_of_a_target(install: Any) -> None:
    install("1.7.1")
    assert choose("rtx:8.9,12.0", None).capabilities == ((8, 9), (12, 0))
    assert choose("rtx", None).capabilities == ()
    assert choose("auto", ADA).capabilities == (ADA,)
    with pytest.raises(SettingsError, match=r"can't build for compute capability 9\.0"):
        choose("rtx:9.0", None)


def test_unknown_target(install: Any) -> None:
    install("1.7.1")
    with pytest.raises(SettingsError, match="no target 'tpu'"):
        choose("tpu", None)


def test_versions() -> None:
    assert version_of("1.7.1.116") == (1, 7, 1, 116)
    assert version_of("11.4.0.106.post1") == (11, 4, 0, 106)
