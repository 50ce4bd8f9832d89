"""A double of TensorRT's runtime: it runs engines without a GPU, by evaluating their networks.

`double(version)` is a module with the runtime classes of one version of the API tables: what that
version has not is not there, and every call is checked against the table (the number of arguments)
and :data:`KINDS` (their types; compared with a real binding where one is installed). An "engine"
is a name under which a network is kept. ``execute_async_v3`` reads the addresses that were bound,
computes with :func:`rewright.testing.evaluate_network`, and writes to the addresses of outputs.

It is stricter than TensorRT: running on the default stream, in two threads at once, or with an
address that is null or not aligned fails.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import inspect
import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Final

import attrs
import torch

from rewright.backends.tensorrt.build import Engine
from rewright.backends.tensorrt.dtypes import TENSORRT
from rewright.backends.tensorrt.emitter import Emitted, Port
from rewright.backends.tensorrt.library import Library, version_of
from rewright.backends.tensorrt.profiles import profiles
from rewright.ir.graph import Graph
from rewright.testing import evaluate_network
from tests.backends.tensorrt.api_check import api

VERSIONS: Final = tuple(api().versions)
RTX: Final = VERSIONS[-1]
CLASSIC: Final = VERSIONS[0]

ENUMS: Final = (
    "DataType", "TensorIOMode", "TensorLocation", "CudaGraphStrategy", "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy", "EngineValidity", "EngineInvalidityDiagnostics",
)  # fmt: skip
VALUES: Final = {
    "EngineInvalidityDiagnostics": {
        "VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "OLD_CUDA_RUNTIME": 8,
        "INSUFFICIENT_GPU_MEMORY": 16, "MALFORMED_ENGINE": 32, "CUDA_ERROR": 64,
    },
    "EngineValidity": {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2},
}  # fmt: skip
"""The numbers of members, where they mean something."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_number,
    "Dims": lambda value: isinstance(value, tuple | list) and all(map(_is_number, value)),
    "buffer": lambda value: isinstance(value, bytes | bytearray | memoryview),
    "ILogger": lambda value: _is_a(value, "ILogger"),
    "IOutputAllocator": lambda value: value is None or _is_a(value, "IOutputAllocator"),
    "IRuntimeConfig": lambda value: _is_a(value, "IRuntimeConfig"),
    "IRuntimeCache": lambda value: _is_a(value, "IRuntimeCache"),
}
"""What may be given for a type of TensorRT's. Subclasses of int and tuple are fine, as there."""


def _is_a(value: Any, name: str) -> bool:
    return any(each.__name__ == name for each in type(value).__mro__)


@attrs.define(eq=False, slots=False)
class Kept:
    """A network that stands for an engine.

    Attributes:
        emitted: the network, with the memory of its weights.
        streamable: how many bytes of weights can be streamed.
    """

    on_device = False
    """Whether it computes where its tensors are; a network is evaluated on the CPU."""

    emitted: Emitted | None
    streamable: int = 0
    lock: Any = attrs.field(factory=threading.Lock)

    @functools.cached_property
    def tensors(self) -> dict[str, Any]:
        """The network's inputs and outputs by name."""
        net = self.emitted.net.definition
        inputs = [net.get_input(i) for i in range(net.num_inputs)]
        return {t.name: t for t in (*inputs, *map(net.get_output, range(net.num_outputs)))}

    @functools.cached_property
    def limits(self) -> list[dict[str, Any]]:
        """For each profile the limits by input."""
        made = profiles(self.emitted.graph, self.emitted.inputs)
        return [{item.name: item for item in each} for each in made] or [{}]

    @functools.cached_property
    def data_dependent(self) -> frozenset[str]:
        """The outputs whose sizes depend on what the inputs hold."""
        net = self.emitted.net.definition
        layers = [net.get_layer(i) for i in range(net.num_layers)]
        tainted: set[str] = set()
        for layer in layers:  # layers are added in order: producers first
            read = [layer.get_input(i) for i in range(layer.num_inputs)]
            made = [layer.get_output(i) for i in range(layer.num_outputs)]
            if layer.type.name == "NON_ZERO" or any(
                t is not None and t.name in tainted for t in read
            ):
                tainted.update(t.name for t in made if -1 in tuple(t.shape))
        return frozenset(tainted & self.tensors.keys())

    def is_host(self, name: str) -> bool:
        """Whether a tensor's values are sizes, which TensorRT reads in the host's memory."""
        tensor = self.tensors[name]
        return tensor.is_network_input and tensor.is_shape_tensor

    def compute(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs."""
        with self.lock:
            net = self.emitted.net
            return evaluate_network(net.definition, inputs, net.weights)


class KeptFunction(Kept):
    """A function of tensors, where they are, that stands for an engine.

    Args:
        function: takes the inputs by name; gives the outputs by name.
        graph: says what they are.
    """

    on_device = True

    def __init__(self, function: Callable[..., dict[str, torch.Tensor]], graph: Graph) -> None:
        super().__init__(None)
        self._function = function
        self.inputs = tuple(Port(value.hint, value) for value in graph.inputs)
        self.outputs = tuple(Port(f"out{i}", value) for i, value in enumerate(graph.outputs))
        self.limits = [
            {item.name: item for item in each} for each in profiles(graph, self.inputs)
        ] or [{}]
        self.data_dependent = frozenset()
        self.tensors = {
            port.name: SimpleNamespace(
                shape=[dim if isinstance(dim, int) else -1 for dim in port.value.type.shape],
                dtype=SimpleNamespace(name=TENSORRT[port.value.type.dtype]),
                is_network_input=port in self.inputs, is_network_output=port in self.outputs,
                is_shape_tensor=False,
            )
            for port in (*self.inputs, *self.outputs)
        }  # fmt: skip

    def compute(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._function(**inputs)


_kept: dict[bytes, Kept] = {}
_numbers = itertools.count()


def keep(emitted: Emitted, library: Library, streamable: int = 0) -> Engine:
    """An engine that computes a network, for a library of :func:`double`."""
    data = b"engine %d" % next(_numbers)
    _kept[data] = Kept(emitted, streamable)
    return Engine(data, library.name, emitted.inputs, emitted.outputs, 1,
                  emitted.net.definition.num_layers, 0.0, ())  # fmt: skip


def keep_function(kept: KeptFunction, library: Library) -> Engine:
    """An engine that computes a function, for a library of :func:`double`."""
    data = b"engine %d" % next(_numbers)
    _kept[data] = kept
    return Engine(data, library.name, kept.inputs, kept.outputs, 1, 1, 0.0, ())


# --------------------------------------------------------------------------- members


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


def _checked(owner: str, member: str, text: str, function: Any) -> Any:
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

    @takes("buffer")
    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        found = _kept.get(bytes(serialized_engine))
        if found is None:
            return self._fail("Serialized engine is damaged", "ICudaEngine")
        return self._module.ICudaEngine(found)

    @takes("buffer")
    def get_engine_validity(self, buffer: Any) -> Any:
        module, good = self._module, bytes(buffer) in _kept
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

    @takes("IRuntimeConfig")
    def create_execution_context(self, runtime_config: Any = None) -> Any:
        self._contexts += 1
        return self._module.IExecutionContext(self._of, self)

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
    def __init__(self, kept: Kept, engine: Any) -> None:
        self._of, self._engine = kept, engine
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
        found = []
        for name, tensor in self._of.tensors.items():
            if tensor.is_network_input and (
                (self._of.is_host(name) and name not in self._addresses)
                or (-1 in tuple(tensor.shape) and name not in self._shapes)
            ):
                found.append(name)
        return found

    @takes()
    def infer_shapes(self) -> list[str]:
        return self._missing()

    @takes("str")
    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self._of.tensors[name].is_network_input:
            return self._shapes.get(name, self._declared(name))
        if name in self._of.data_dependent:
            return self._declared(name)
        return tuple(self._of.compute(self._read(zeros=True))[name].shape)

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
            results = self._of.compute(self._read())
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


CLASSES: Final = (
    Runtime, ICudaEngine, IExecutionContext, IRuntimeConfig, IRuntimeCache, IOutputAllocator,
)  # fmt: skip


def public_members(owner: type) -> dict[str, Any]:
    """What a class of the double has of TensorRT's."""
    return {
        name: item
        for name, item in vars(owner).items()
        if isinstance(item, property) or hasattr(item, "kinds")
    }


# --------------------------------------------------------------------------- modules


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
            members[member] = item if is_property else _checked(name, member, text, item)
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


# --------------------------------------------------------------------------- the device


class HostStream:
    """A stream that only writes down who waits for whom."""

    def __init__(self, handle: int, events: list[tuple[str, int, int]]) -> None:
        self.cuda_stream = handle
        self._events = events

    def wait_stream(self, stream: Any) -> None:
        self._events.append(("wait", self.cuda_stream, stream.cuda_stream))

    def record_event(self, event: Any = None) -> Any:
        return self.cuda_stream

    def wait_event(self, event: Any) -> None:
        self._events.append(("wait", self.cuda_stream, event))

    def synchronize(self) -> None:
        self._events.append(("synchronize", self.cuda_stream, self.cuda_stream))


class HostDevice:
    """This process's memory as a GPU's."""

    torch_device = torch.device("cpu")
    alignment = 64  # what torch's allocator for CPUs gives

    def __init__(self, capability: tuple[int, int] = (8, 9)) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.is_capturing = False
        self._capability = capability
        self._handles = itertools.count(100)
        self._current = threading.local()
        self.no_memory = False

    def refusal(self) -> str | None:
        return None

    def capability(self) -> tuple[int, int]:
        return self._capability

    def active(self) -> Any:
        return nullcontext()

    def stream(self) -> Any:
        return getattr(self._current, "stream", None) or HostStream(0, self.events)

    @contextmanager
    def on(self, handle: int) -> Iterator[None]:
        """Callers of this thread work on another stream meanwhile."""
        before = getattr(self._current, "stream", None)
        self._current.stream = HostStream(handle, self.events)
        yield
        self._current.stream = before

    def new_stream(self) -> Any:
        return HostStream(next(self._handles), self.events)

    def capturing(self) -> bool:
        return self.is_capturing

    def empty(self, size: int, stream: Any, user: Any) -> torch.Tensor:
        if self.no_memory:
            raise RuntimeError("out of memory")
        return torch.empty(size, dtype=torch.uint8)


def declared(function: Any) -> int:
    """How many arguments a method of the double takes at most, without self."""
    return len(inspect.signature(function).parameters) - 1
