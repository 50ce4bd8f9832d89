"""A double of TensorRT's runtime: it runs engines without a GPU, by evaluating their networks.

`double(version)` is a module with the runtime classes of one version of the API tables: what that
version has not is not there, and every call is checked against the table (the number of arguments)
and ``KINDS`` in `native.py` (their types; compared with a real binding where one is installed). An
"engine" is a name under which a network is kept (`kept.py`). ``execute_async_v3`` reads the
addresses that were bound, computes with :func:`rewright.testing.evaluate_network`, and writes to
the addresses of outputs.

It is stricter than TensorRT: running on the default stream, in two threads at once, or with an
address that is null or not aligned fails.
"""

from __future__ import annotations

import enum
from collections import Counter
from types import SimpleNamespace
from typing import Any, Final

import torch

from rewright.backends.tensorrt.library import Library, version_of
from tests.backends.tensorrt.api_check import api
from tests.backends.tensorrt.native import CLASSES, Weights, checked

VERSIONS: Final = tuple(api().versions)
RTX: Final = VERSIONS[-1]
CLASSIC: Final = VERSIONS[0]

ENUMS: Final = (
    "DataType", "TensorIOMode", "TensorLocation", "CudaGraphStrategy", "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy", "EngineValidity", "EngineInvalidityDiagnostics",
    "ExecutionContextAllocationStrategy", "HardwareCompatibilityLevel", "BuilderFlag",
    "SerializationFlag",
)  # fmt: skip
VALUES: Final = {
    "EngineInvalidityDiagnostics": {
        "VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "OLD_CUDA_RUNTIME": 8,
        "INSUFFICIENT_GPU_MEMORY": 16, "MALFORMED_ENGINE": 32, "CUDA_ERROR": 64,
    },
    "EngineValidity": {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2},
}  # fmt: skip
"""The numbers of members, where they mean something."""


def _class_of(base: type, number: int, module: Any) -> type | None:
    """The class as one version has it; None where that has none."""
    name = base.__name__
    if number not in api().find(name):
        return None
    members = {}
    for member, item in vars(base).items():
        public = isinstance(item, property) or (hasattr(item, "kinds") and member != "__init__")
        text = api().find(name, member).get(number)
        if not public:
            members[member] = item
        elif text is not None:
            is_property = isinstance(item, property)
            members[member] = item if is_property else checked(name, member, text, item)
    members.pop("__dict__", None)
    members.pop("__weakref__", None)
    return type(name, base.__bases__, {**members, "_module": module})


class _Logger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


def double(version: str = RTX, device: torch.device | None = None) -> Library:
    """A TensorRT without a GPU.

    Its ``module`` has, beyond TensorRT's names: ``calls`` (how often each method was called),
    ``failing`` (texts by ``Class.method``: these methods fail and log them), ``runs`` (the streams
    of the runs), ``settings`` (of runtime configurations).

    Args:
        version: one of :data:`VERSIONS`.
        device: where addresses are; None: in this process's memory.
    """
    number, (package, _, text) = VERSIONS.index(version), version.partition(" ")
    module = SimpleNamespace(
        __name__=f"double of {version}", __version__=text, ILogger=type("ILogger", (_Logger,), {}),
        calls=Counter(), failing={}, runs=[], settings={}, device=device or torch.device("cpu"),
        alignment=64 if device is None else 256,
    )  # fmt: skip
    module.Weights = type("Weights", (Weights,), {"_module": module})
    module.ILogger.log = lambda self, severity, text: None
    for name in ENUMS:
        kinds = {m: api().find(name, m).get(number) for m in api().classes.get(name, {})}
        known = [member for member, kind in kinds.items() if kind == "enum"]
        members = {m: VALUES.get(name, {}).get(m, i) for i, m in enumerate(known)}
        if members:
            setattr(module, name, enum.IntEnum(name, members))
    for base in CLASSES:
        made = _class_of(base, number, module)
        if made is not None:
            setattr(module, base.__name__, made)
    flavor = "rtx" if package == "tensorrt_rtx" else "tensorrt"
    return Library(_Hashable(module), flavor, version_of(text))


class _Hashable:
    """A module: hashed by identity."""

    def __init__(self, found: SimpleNamespace) -> None:
        self.__dict__ = found.__dict__
