"""The classes of TensorRT's runtime in the double: their members, and the types of arguments."""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Final

import torch

from rewright.backends.tensorrt.dtypes import TENSORRT
from tests.backends.tensorrt.kept import Kept, find, keep_with


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_number,
    "Dims": lambda value: isinstance(value, tuple | list) and all(map(_is_number, value)),
    "buffer": lambda value: isinstance(value, bytes | bytearray | memoryview),
    "ILogger": lambda value: _is_a(value, "ILogger"),
    "IOutputAllocator": lambda value: value is None or _is_a(value, "IOutputAllocator"),
    "ExecutionContextAllocationStrategy": lambda value: _is_a(
        value, "ExecutionContextAllocationStrategy"
    ),
    "IRuntimeConfig": lambda value: _is_a(value, "IRuntimeConfig"),
    "IRuntimeCache": lambda value: _is_a(value, "IRuntimeCache"),
    "Weights": lambda value: _is_a(value, "Weights"),
    "SerializationFlag": lambda value: _is_a(value, "SerializationFlag"),
    "ISerializationConfig": lambda value: _is_a(value, "ISerializationConfig"),
}
"""What may be given for a type of TensorRT's. Subclasses of int and tuple are fine, as there."""


def _is_a(value: Any, name: str) -> bool:
    return any(each.__name__ == name for each in type(value).__mro__)


def takes(*kinds: str) -> Callable[[Any], Any]:
    """Declares a method of TensorRT's, and the types of its arguments."""

    def declare(function: Any) -> Any:
        function.kinds = kinds
        return function

    return declare


def forms(text: str) -> list[tuple[int, int]]:
    """How many arguments each form of a method takes at least and at most."""
    found = []
    for form in text.split(" | "):
        names = [name for name in form.partition(")")[0].lstrip("(").split(", ") if name]
        if "*args" not in names:
            found.append((sum(not name.endswith("=") for name in names), len(names)))
    return found


def checked(owner: str, member: str, text: str, function: Any) -> Any:
    """`function` with its calls counted, checked and made to fail where a test wants that."""
    counts, returns = forms(text), text.rpartition("-> ")[2]

    def call(self: Any, *args: Any) -> Any:
        module = self._module
        if not any(low <= len(args) <= high for low, high in counts):
            raise TypeError(f"{owner}.{member} takes {text}, not {len(args)} arguments")
        for kind, arg in zip(function.kinds, args, strict=False):
            if not any(KINDS[each](arg) for each in kind.split("|")):
                raise TypeError(f"{owner}.{member} takes {function.kinds}, not {args}")
        module.calls[member] += 1
        complaint = module.failing.get(f"{owner}.{member}")
        if complaint is not None:
            return self._fail(complaint, returns)
        return function(self, *args)

    return functools.wraps(function)(call)


class Native:
    """What all of TensorRT's objects are here: they take no attributes that they don't have."""

    _module: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        object.__setattr__(self, name, value)

    def _log(self, text: str) -> None:
        self._module.logger.log(self._module.ILogger.Severity.ERROR, text)

    def _fail(self, complaint: str, returns: str = "bool") -> Any:
        if returns.startswith(("list", "List")):
            raise RuntimeError(complaint)
        self._log(complaint)
        return False if returns == "bool" else None


class Runtime(Native):
    @takes("ILogger")
    def __init__(self, logger: Any) -> None:
        assert KINDS["ILogger"](logger)
        self._module.logger = logger

    @property
    def engine_host_code_allowed(self) -> bool:
        return self._module.settings.get("engine_host_code_allowed", False)

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, allowed: bool) -> None:
        self._module.settings["engine_host_code_allowed"] = allowed

    @takes("buffer")
    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        kept = find(bytes(serialized_engine))
        if kept is None:
            return self._fail("Serialized engine is damaged", "ICudaEngine")
        return self._module.ICudaEngine(kept)

    @takes("buffer")
    def get_engine_validity(self, buffer: Any) -> Any:
        module, good = self._module, find(bytes(buffer)) is not None
        if good:
            return module.EngineValidity.VALID, 0
        return module.EngineValidity.INVALID, int(
            module.EngineInvalidityDiagnostics.MALFORMED_ENGINE
        )


class ICudaEngine(Native):
    def __init__(self, kept: Kept) -> None:
        self._of = kept
        self._budget = kept.streamable
        self._contexts = 0
        self._weights = dict(kept.given)

    @property
    def num_io_tensors(self) -> int:
        return len(self._of.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._of.limits)

    @property
    def streamable_weights_size(self) -> int:
        return self._of.streamable

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        if budget < 0 or self._contexts:
            self._log("the budget can't be set")
            return
        self._budget = budget

    @takes()
    def create_serialization_config(self) -> Any:
        return self._module.ISerializationConfig()

    @takes("ISerializationConfig")
    def serialize_with_config(self, arg0: Any) -> Any:
        assert "EXCLUDE_WEIGHTS" not in arg0._flags
        known = getattr(self._module.SerializationFlag, "__members__", {})
        keeps = "INCLUDE_REFIT" in arg0._flags or "INCLUDE_REFIT" not in known
        return memoryview(keep_with(self._of, self._weights if keeps else {}))

    @takes("int")
    def get_tensor_name(self, index: int) -> str:
        return list(self._of.tensors)[index]

    @takes("str")
    def get_tensor_mode(self, name: str) -> Any:
        is_input = self._of.tensors[name].is_network_input
        return getattr(self._module.TensorIOMode, "INPUT" if is_input else "OUTPUT")

    @takes("str")
    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._module.DataType, self._of.tensors[name].dtype.name)

    @takes("str")
    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of.tensors[name].shape)

    @takes("str")
    def get_tensor_location(self, name: str) -> Any:
        return getattr(self._module.TensorLocation, "HOST" if self._of.is_host(name) else "DEVICE")

    @takes("str", "int")
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Any:
        item = self._of.limits[profile_index][name]
        assert not item.is_value
        return [item.low, item.typical, item.high]

    @takes("int", "str")  # as the binding has it: the names of its arguments are swapped
    def get_tensor_profile_values(self, name: int, profile_index: str) -> Any:
        item = self._of.limits[name][profile_index]
        assert item.is_value
        return [list(item.low), list(item.typical), list(item.high)]

    @takes("IRuntimeConfig|ExecutionContextAllocationStrategy")
    def create_execution_context(self, chosen: Any = None) -> Any:
        self._contexts += 1
        strategy = chosen._strategy if _is_a(chosen, "IRuntimeConfig") else chosen
        name = getattr(strategy, "name", "STATIC")
        return self._module.IExecutionContext(self._of, name, self._weights)

    @takes()
    def create_runtime_config(self) -> Any:
        return self._module.IRuntimeConfig()


def _stored(name: str, enum_name: str) -> property:
    def get(self: Any) -> Any:
        return self.__dict__.get(f"_{name}")

    def put(self: Any, value: Any) -> None:
        if not isinstance(value, getattr(self._module, enum_name)):
            raise TypeError(f"{name} takes {enum_name}, not {value!r}")
        self.__dict__[f"_{name}"] = value
        self._module.settings[name] = value.name

    return property(get, put)


class IRuntimeConfig(Native):
    dynamic_shapes_kernel_specialization_strategy = _stored(
        "dynamic_shapes_kernel_specialization_strategy", "DynamicShapesKernelSpecializationStrategy"
    )
    cuda_graph_strategy = _stored("cuda_graph_strategy", "CudaGraphStrategy")

    _strategy: Any = None

    @takes("ExecutionContextAllocationStrategy")
    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self._strategy = strategy

    @takes()
    def create_runtime_cache(self) -> Any:
        return self._module.IRuntimeCache()

    @takes("IRuntimeCache")
    def set_runtime_cache(self, cache: Any) -> bool:
        self._module.settings["runtime_cache"] = cache
        return True


class IRuntimeCache(Native):
    def __init__(self) -> None:
        self._kernels = b"cache:"

    @takes("buffer")
    def deserialize(self, blob: Any) -> bool:
        if not bytes(blob).startswith(b"cache:"):
            return False
        self._kernels = bytes(blob)
        return True

    @takes()
    def serialize(self) -> Any:
        return memoryview(self._kernels + b"k" * self._module.calls["execute_async_v3"])


class IOutputAllocator(Native):
    def __init__(self) -> None:
        self.__dict__["_initialized"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a base class of Python's classes


class IExecutionContext(Native):
    def __init__(self, kept: Kept, strategy: str, weights: dict[str, torch.Tensor]) -> None:
        self._of, self._strategy, self._weights = kept, strategy, weights
        self._scratch = (0, 0)
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._busy = threading.Lock()

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    @takes("int", "int")
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < len(self._of.limits) or not stream_handle:
            return self._fail("there is no such profile, or this is the default stream")
        self._profile = profile_index
        self._shapes.clear()
        return True

    @takes("str", "Dims")
    def set_input_shape(self, name: str, shape: Any) -> bool:
        declared = self._declared(name)
        item = self._of.limits[self._profile].get(name)
        inside = item is None or (
            len(shape) == len(item.low)
            and all(a <= n <= b for a, n, b in zip(item.low, shape, item.high, strict=True))
        )
        fits = len(shape) == len(declared) and all(
            want in (-1, n) for want, n in zip(declared, shape, strict=True)
        )
        if not inside or not fits:
            return self._fail(
                f"the shape {tuple(shape)} of {name} is not in profile {self._profile}"
            )
        self._shapes[name] = tuple(shape)
        return True

    def _declared(self, name: str) -> tuple[int, ...]:
        return tuple(self._of.tensors[name].shape)

    @takes("str", "int")
    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._of.tensors or not memory:
            return self._fail(f"{memory} is no address for {name}")
        if memory % self._module.alignment and not self._of.is_host(name):
            return self._fail(f"the address of {name} is not aligned")
        self._addresses[name] = memory
        return True

    @takes("str", "IOutputAllocator")
    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        if output_allocator is None:
            self._allocators.pop(name)
        else:
            assert output_allocator._initialized, "IOutputAllocator.__init__ was not called"
            self._allocators[name] = output_allocator
        return True

    def _missing(self) -> list[str]:
        names = []
        for name, tensor in self._of.tensors.items():
            if tensor.is_network_input and (
                (self._of.is_host(name) and name not in self._addresses)
                or (-1 in tuple(tensor.shape) and name not in self._shapes)
            ):
                names.append(name)
        return names

    @takes()
    def infer_shapes(self) -> list[str]:
        return self._missing()

    @takes("str")
    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self._of.tensors[name].is_network_input:
            return self._shapes.get(name, self._declared(name))
        if name in self._of.data_dependent:
            return self._declared(name)
        return tuple(self._of.compute(self._read(zeros=True), self._weights)[name].shape)

    def _read(self, zeros: bool = False) -> dict[str, torch.Tensor]:
        made = {}
        for name, tensor in self._of.tensors.items():
            if not tensor.is_network_input:
                continue
            shape = self._shapes.get(name, tuple(tensor.shape))
            dtype = next(d for d, theirs in TENSORRT.items() if theirs == tensor.dtype.name)
            if zeros and not self._of.is_host(name):
                made[name] = torch.zeros(shape, dtype=dtype)
            else:
                on_host = self._of.is_host(name)
                held = self._memory(self._addresses[name], shape, dtype, on_host)
                made[name] = held if self._of.on_device else held.cpu().clone()
        return made

    def _memory(self, address: int, shape: Any, dtype: torch.dtype, on_host: bool) -> torch.Tensor:
        """The memory at an address."""
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        if on_host or self._module.device.type == "cpu":
            flat = torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=torch.uint8)
        else:
            about = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 2}
            raw = SimpleNamespace(__cuda_array_interface__=about)
            flat = torch.as_tensor(raw, device=self._module.device)
        return flat.view(dtype).view(shape)

    @takes()
    def update_device_memory_size_for_shapes(self) -> Any:
        """As much as the inputs of these shapes have."""
        if self._missing():
            return self._fail("not all shapes are specified", "int")
        return 64 + sum(4 * math.prod(shape) for shape in self._shapes.values())

    @takes("int", "int")
    def set_device_memory(self, memory: int, size: int) -> None:
        if self._strategy != "USER_MANAGED" or memory % self._module.alignment:
            self._log("this memory can't be set")
        self._scratch = (memory, size)

    def _scribble(self) -> bool:
        """Uses the scratch memory; False where there is too little."""
        if self._strategy != "USER_MANAGED":
            return True
        address, size = self._scratch
        self._scratch = (0, 0)  # it is the caller's again after the run
        if size < self.update_device_memory_size_for_shapes():
            return False
        self._memory(address, (size,), torch.uint8, False).fill_(255)
        return True

    @takes("int")
    def is_stream_capturable(self, stream: int) -> bool:
        return bool(stream)

    @takes("int")
    def execute_async_v3(self, stream_handle: int) -> bool:
        if not self._busy.acquire(blocking=False):
            return self._fail("the context is used by two threads at once")
        try:
            return self._execute(stream_handle)
        finally:
            self._busy.release()

    def _execute(self, handle: int) -> bool:
        outputs = [name for name, t in self._of.tensors.items() if t.is_network_output]
        placed = {*self._addresses, *self._allocators}
        if not handle or self._missing() or not placed >= self._of.tensors.keys():
            return self._fail("not all is specified, or this is the default stream")
        self._module.runs.append(handle)
        on_cpu = self._module.device.type == "cpu"
        with nullcontext() if on_cpu else torch.cuda.stream(torch.cuda.ExternalStream(handle)):
            if not self._scribble():
                return self._fail("there is too little scratch memory")
            results = self._of.compute(self._read(), self._weights)
            for name in outputs:
                result, address = results[name], self._addresses.get(name, 0)
                shape = tuple(result.shape)
                if name in self._allocators:
                    address = self._allocate(name, result, handle)
                    if not address:
                        return self._fail(f"no memory was given for {name}")
                self._memory(address, shape, result.dtype, False).copy_(result)
        return True

    def _allocate(self, name: str, result: torch.Tensor, handle: int) -> int:
        allocator, size = self._allocators[name], result.numel() * result.element_size()
        old = self._addresses.get(name, 0)
        address = allocator.reallocate_output_async(name, old, size, 256, handle)
        if address:
            assert address % 256 == 0
            allocator.notify_shape(name, tuple(result.shape))
        return address


class ISerializationConfig(Native):
    def __init__(self) -> None:
        self._flags: set[str] = set()

    @takes("SerializationFlag")
    def set_flag(self, flag: Any) -> bool:
        self._flags.add(flag.name)
        return True

    @takes("SerializationFlag")
    def clear_flag(self, flag: Any) -> bool:
        self._flags.discard(flag.name)
        return True


class Weights(Native):
    def __init__(self, dtype: Any, address: int, count: int) -> None:
        self._held = (dtype.name, address, count)


class Refitter(Native):
    """Gives an engine other contents for the weights that were named and marked."""

    @takes("ICudaEngine", "ILogger")
    def __init__(self, engine: Any, logger: Any) -> None:
        assert _is_a(engine, "ICudaEngine") and KINDS["ILogger"](logger)
        self._engine = engine
        self._given: dict[str, torch.Tensor] = {}

    @takes()
    def get_all_weights(self) -> list[str]:
        return [*self._engine._of.named]

    @takes("str", "Weights")
    def set_named_weights(self, name: str, weights: Any) -> bool:
        """Refuses what is not of the dtype and size that the engine has."""
        old = self._engine._of.named.get(name)
        dtype, address, count = weights._held
        if old is None or TENSORRT[old.dtype] != dtype or old.numel() != count:
            return self._fail(f"{name}: no such weights")
        raw = (ctypes.c_char * (count * old.element_size())).from_address(address)
        self._given[name] = torch.frombuffer(raw, dtype=old.dtype).clone().view(old.shape)
        return True

    @takes()
    def get_missing_weights(self) -> list[str]:
        return []

    @takes()
    def refit_cuda_engine(self) -> bool:
        self._engine._weights.update(self._given)
        return True


CLASSES: Final = (
    Runtime, ICudaEngine, IExecutionContext, IRuntimeConfig, IRuntimeCache, IOutputAllocator,
    ISerializationConfig, Refitter,
)  # fmt: skip


def public_members(owner: type) -> dict[str, Any]:
    """What a class of the double has of TensorRT's."""
    return {
        name: item
        for name, item in vars(owner).items()
        if isinstance(item, property) or hasattr(item, "kinds")
    }
