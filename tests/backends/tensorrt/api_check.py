"""Reads our source for the names of TensorRT's that it uses, and looks them up in the API tables.

What is looked up:

* ``x.layer("add_softmax", a, axes=1)``: the method, how many arguments it takes, and the
  attributes of the layer that it gives;
* ``trt.DataType``, ``library.module.BuilderFlag.WEIGHT_STREAMING``: classes and members;
* attributes of variables that are called what TensorRT's objects are called (``config``, ...);
* ``has("INetworkDefinition.add_cumulative")``: the name must be in some version. A name that is
  not in all versions has to stand in such a test somewhere.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

TABLES: Final = Path(__file__).parent / "api/tables.json"
SOURCE: Final = Path(__file__).parents[3] / "backends/tensorrt"

OBJECTS: Final = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "definition": "INetworkDefinition",
    "profile": "IOptimizationProfile",
    "handle": "ITensor",
    "layer": "ILayer",
    "loop": "ILoop",
    "conditional": "IIfConditional",
    "recurrence": "IRecurrenceLayer",
    "runtime": "Runtime",
    "cuda_engine": "ICudaEngine",
    "execution": "IExecutionContext",
    "_execution": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
    "refitter": "Refitter",
    "serialization": "ISerializationConfig",
}
"""The classes of variables and attributes, by their names."""

COMES_WITH: Final = {
    "CudaGraphStrategy": "IRuntimeConfig.create_runtime_cache",
    "DynamicShapesKernelSpecializationStrategy": "IRuntimeConfig.create_runtime_cache",
    "EngineInvalidityDiagnostics": "Runtime.get_engine_validity",
    "EngineValidity": "Runtime.get_engine_validity",
}
"""Classes that came with a member, for which it is enough to ask."""

MODULES: Final = ("trt", "module")
"""What TensorRT's module is called."""


class Api:
    """The API of all supported versions."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.versions: list[str] = table["versions"]
        self.classes: dict[str, dict[str, Any]] = table["classes"]

    def find(self, owner: str, member: str = "") -> dict[int, str]:
        """What a member is in each version that has it: its kind or signatures."""
        found = self.classes.get(owner, {}).get(member)
        if found is None:
            return {}
        if isinstance(found, str):
            return dict.fromkeys(range(len(self.versions)), found)
        return {number: text for text, numbers in found.items() for number in numbers}

    def missing(self, owner: str, member: str = "") -> list[str]:
        """The versions that lack a member."""
        found = self.find(owner, member)
        return [name for number, name in enumerate(self.versions) if number not in found]


@cache
def api() -> Api:
    """The tables of the repository."""
    return Api(json.loads(TABLES.read_text()))


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Our modules about TensorRT, parsed."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def asked_names(tree: ast.AST) -> set[str]:
    """The names that a module asks for before it uses them."""
    asked = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in ("has", "Feature") and node.args:
            (first, *_) = node.args
            if isinstance(first, ast.Constant):
                asked.add(first.value)
    return asked


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def faults(tree: ast.AST, guarded: set[str], tables: Api) -> list[str]:
    """What is wrong with the names of TensorRT's in a module."""
    found = [f"nothing is called {name}" for name in asked_names(tree) if not _known(name, tables)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) == "layer":
            found += _layer_faults(node, guarded, tables)
        elif isinstance(node, ast.Attribute):
            found += _attribute_faults(node, guarded, tables)
    return found


def _known(path: str, tables: Api) -> bool:
    owner, _, member = path.partition(".")
    return bool(tables.find(owner, member))


def _absent(owner: str, member: str, guarded: set[str], tables: Api) -> list[str]:
    missing = tables.missing(owner, member)
    name = f"{owner}.{member}" if member else owner
    asked = {name, owner, COMES_WITH.get(owner, owner)} & guarded
    if not missing or (tables.find(owner, member) and asked):
        return []
    return [f"{name} is not in {', '.join(missing)}"]


def _layer_faults(call: ast.Call, guarded: set[str], tables: Api) -> list[str]:
    first = call.args[0] if call.args else None
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return []
    method = first.value
    found = _absent("INetworkDefinition", method, guarded, tables)
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    settings = {k.arg for k in call.keywords if k.arg and k.arg != "inputs"}
    for number, text in tables.find("INetworkDefinition", method).items():
        version = tables.versions[number]
        forms = [form for form in text.split(" | ") if "*args" not in form]
        if not starred and not any(_takes(form, len(call.args) - 1) for form in forms):
            found.append(f"{method} takes other arguments in {version}: {text}")
        result = forms[-1].rpartition("-> ")[2]
        for setting in settings:
            kind = {**tables.find("ILayer", setting), **tables.find(result, setting)}.get(number)
            if kind != "property rw":
                found.append(f"{result}.{setting} can't be set in {version}")
    return found


def _takes(form: str, count: int) -> bool:
    """Whether a method of the form ``(a, b=) -> C`` takes `count` arguments."""
    names = [name for name in form.partition(")")[0].lstrip("(").split(", ") if name]
    return sum(not name.endswith("=") for name in names) <= count <= len(names)


def _attribute_faults(node: ast.Attribute, guarded: set[str], tables: Api) -> list[str]:
    match node.value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            if name in MODULES and node.attr in tables.classes:
                return _absent(node.attr, "", guarded, tables)
            if name in MODULES and node.attr not in ("__name__", "__version__"):
                return [f"TensorRT has no {node.attr}"]
            if name in OBJECTS:
                return _member_faults(OBJECTS[name], node.attr, guarded, tables)
            if name in tables.classes and not node.attr.startswith("__"):
                return _absent(name, node.attr, guarded, tables) if _of_module(node.value) else []
    return []


def _of_module(node: ast.AST) -> bool:
    """Whether a class is named by way of TensorRT's module."""
    match node:
        case ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in MODULES
    return False


def _member_faults(owner: str, member: str, guarded: set[str], tables: Api) -> list[str]:
    owners = {"ILayer": [owner, "IAttention"], "IRecurrenceLayer": [owner, "ILayer"]}.get(
        owner, [owner]
    )
    if any(not _absent(each, member, guarded, tables) for each in owners):
        return []
    if owner == "ILayer" and tables.find("IAttention", member):
        return []  # an attention is made only where there is one
    return _absent(owner, member, guarded, tables)
