"""The inputs and outputs of an engine that was loaded, and what an input may be.

What is known of them comes from the engine itself; the graph adds the symbols for messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import sympy
import torch

from rewright.backends.tensorrt.device import Device
from rewright.backends.tensorrt.dtypes import TENSORRT
from rewright.backends.tensorrt.emitter import Port
from rewright.backends.tensorrt.library import Library
from rewright.errors import EngineError, InputError
from rewright.ir.sizes import evaluate, format_expr, free_symbols
from rewright.ir.types import DTYPE_NAMES, ScalarType, TensorType

Shape = tuple[int, ...]

_PYTHON: Final = {"int": (int,), "float": (int, float), "bool": (bool,)}


@attrs.frozen
class Bounds:
    """The sizes that an input may have in one profile; or its values, where they are sizes."""

    low: Shape
    high: Shape

    def hold(self, sizes: Sequence[int]) -> bool:
        """Whether all of `sizes` are inside."""
        return all(a <= n <= b for a, n, b in zip(self.low, sizes, self.high, strict=True))


@attrs.frozen(eq=False)
class Slot:
    """An input or output.

    Attributes:
        name: TensorRT's name.
        dtype: torch's dtype of it.
        shape: its shape; -1 where it varies.
        dims: the graph's shape, for messages; a number has the one that it is.
        kind: what it is for the caller where it is a number: ``int``, ``float`` or ``bool``.
        on_host: whether TensorRT reads or writes it in the host's memory.
        bounds: for each profile what it may be; empty where nothing varies.
    """

    name: str
    dtype: torch.dtype
    shape: Shape
    dims: tuple[Any, ...]
    kind: str | None
    on_host: bool
    bounds: tuple[Bounds, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether its shape varies."""
        return -1 in self.shape

    def tensor(self, given: Any, device: Device) -> torch.Tensor:
        """`given` as TensorRT can read it: dense, aligned, where it must be.

        Raises:
            InputError: it is of another kind, dtype, rank or shape, or elsewhere.
        """
        if self.kind is not None and isinstance(given, _PYTHON[self.kind]):
            where = torch.device("cpu") if self.on_host else device.torch_device
            # On a GPU a fill is a kernel, where a copy from the host would be waited for.
            return torch.full((), given, dtype=self.dtype, device=where)
        if not isinstance(given, torch.Tensor) or given.dtype != self.dtype:
            raise self._refused(given, device)
        if self.on_host:
            # Here alone the host waits for the GPU, if that is where the sizes were computed.
            given = given.detach().cpu()
        elif given.device != device.torch_device:
            raise self._refused(given, device)
        if given.shape != self.shape:
            self._check_static(given, device)
        if not given.is_contiguous() or given.is_neg():
            given = given.detach().resolve_neg().contiguous()
        if given.data_ptr() % device.alignment and not self.on_host:
            given = given.detach().clone(memory_format=torch.contiguous_format)
        return given

    def _check_static(self, given: torch.Tensor, device: Device) -> None:
        if given.dim() != len(self.shape):
            raise self._refused(given, device)
        for at, (wanted, size) in enumerate(zip(self.shape, given.shape, strict=True)):
            if wanted not in (-1, size):
                raise InputError(
                    f"dimension {at} of {self.name} is {size}, but the engine takes {wanted} only",
                    name=self.name,
                )

    def _refused(self, given: Any, device: Device) -> InputError:
        shape = ", ".join(format_expr(dim) for dim in self.dims)
        wanted = f"{DTYPE_NAMES[self.dtype]}[{shape}] on {device.torch_device}"
        found = repr(given) if isinstance(given, int | float) else f"a {type(given).__name__}"
        if isinstance(given, torch.Tensor):
            sizes = ", ".join(map(str, given.shape))
            found = f"{DTYPE_NAMES.get(given.dtype, given.dtype)}[{sizes}] on {given.device}"
        if self.kind is not None:
            wanted = f"a number ({self.kind})"
        return InputError(
            f"{self.name} must be {wanted}, not {found}",
            name=self.name,
        )

    def place(self, at: int) -> str:
        """What is varying, in words: ``dimension 0 (s0) of x``."""
        if self.kind is not None:
            return f"the value of {self.name}"
        if self.on_host:
            return f"value {at} of {self.name}"
        dim = self.dims[at]
        symbol = f" ({format_expr(dim)})" if isinstance(dim, sympy.Basic) else ""
        return f"dimension {at}{symbol} of {self.name}"


def read_slots(
    cuda_engine: Any, library: Library, inputs: Sequence[Port], outputs: Sequence[Port], name: str
) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
    """The inputs and outputs of an engine, in the graph's order.

    Raises:
        EngineError: the engine is not of this graph.
    """
    trt = library.module
    names = {cuda_engine.get_tensor_name(i) for i in range(cuda_engine.num_io_tensors)}
    ports = {port.name: port for port in (*inputs, *outputs)}
    # TensorRT drops inputs that nothing depends on from some engines, and keeps them in others.
    if not names <= ports.keys() or not {port.name for port in outputs} <= names:
        raise EngineError(
            f"the engine of @{name} has {', '.join(sorted(names))}, "
            f"the graph has {', '.join(sorted(ports))}",
            engine=name,
            hint="it was built from another graph: compile again",
        )
    dtypes = {getattr(trt.DataType, theirs): ours for ours, theirs in TENSORRT.items()}
    made = [
        tuple(_slot(cuda_engine, trt, port, dtypes) for port in group if port.name in names)
        for group in (inputs, outputs)
    ]
    for slot in (*made[0], *made[1]):
        wanted = ports[slot.name].value.type
        if isinstance(wanted, TensorType) and (wanted.dtype, wanted.rank) != (
            slot.dtype,
            len(slot.shape),
        ):
            raise EngineError(
                f"{slot.name} is {DTYPE_NAMES[slot.dtype]}{list(slot.shape)} in the engine of "
                f"@{name}, and {wanted} in the graph",
                engine=name,
                hint="it was built from another graph: compile again",
            )
    return made[0], made[1]


def _slot(cuda_engine: Any, trt: Any, port: Port, dtypes: Mapping[Any, torch.dtype]) -> Slot:
    name, stated = port.name, port.value.type
    kind: str | None = None
    dims: tuple[Any, ...] = ()
    if isinstance(stated, TensorType):
        dims = stated.shape
    elif isinstance(stated, ScalarType):
        kind, dims = stated.kind, () if stated.expr is None else (stated.expr,)
    shape = tuple(cuda_engine.get_tensor_shape(name))
    on_host = cuda_engine.get_tensor_location(name) == trt.TensorLocation.HOST
    is_input = cuda_engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
    bounds: tuple[Bounds, ...] = ()
    if is_input and (on_host or -1 in shape):
        count = cuda_engine.num_optimization_profiles
        bounds = tuple(_bounds(cuda_engine, name, number, on_host) for number in range(count))
    dtype = dtypes[cuda_engine.get_tensor_dtype(name)]
    return Slot(name, dtype, shape, dims, kind, on_host, bounds)


def _bounds(cuda_engine: Any, name: str, profile: int, on_host: bool) -> Bounds:
    if on_host:
        # The binding calls the first argument `name` and means the profile: only by position.
        found = cuda_engine.get_tensor_profile_values(profile, name)
    else:
        found = cuda_engine.get_tensor_profile_shape(name, profile)
    if len(found) != 3:
        raise EngineError(f"TensorRT gives no range for {name} in profile {profile}")
    low, _, high = (tuple(int(size) for size in sizes) for sizes in found)
    return Bounds(low, high)


# --------------------------------------------------------------------------- sizes of a call


def find_profile(slots: Sequence[Slot], sizes: Sequence[Shape], name: str) -> int:
    """The first profile that holds the sizes of a call; 0 where nothing varies.

    Args:
        slots: the inputs that vary.
        sizes: the shape (or the values) of each.
        name: the engine's.

    Raises:
        InputError: there is none; says which dimension is at fault, and what it may be. Or two
            inputs give one symbol different sizes.
    """
    _check_symbols(slots, sizes)
    count = max((len(slot.bounds) for slot in slots), default=0)
    pairs = list(zip(slots, sizes, strict=True))
    for number in range(count):
        if all(slot.bounds[number].hold(size) for slot, size in pairs):
            return number
    if not count:
        return 0
    for slot, size in pairs:
        for at, found in enumerate(size):
            ranges = [(each.low[at], each.high[at]) for each in slot.bounds]
            if not any(low <= found <= high for low, high in ranges):
                shown = " or ".join(f"{low} to {high}" for low, high in dict.fromkeys(ranges))
                raise InputError(
                    f"{slot.place(at)} is {found}, but the engine of @{name} takes {shown}",
                    name=slot.name,
                    hint="compile with a wider range, or with one more profile",
                )
    shown = ", ".join(f"{slot.name}{list(size)}" for slot, size in pairs)
    raise InputError(
        f"no profile of the engine of @{name} takes {shown} together",
        hint="each size alone is in the range of some profile: compile with one that holds all",
    )


def _check_symbols(slots: Sequence[Slot], sizes: Sequence[Shape]) -> None:
    """Raises where two dimensions that are one size in the graph are not."""
    known: dict[sympy.Symbol, tuple[int, str]] = {}
    derived = []
    for slot, shape in zip(slots, sizes, strict=True):
        dims = slot.dims if len(slot.dims) == len(shape) and not _is_data(slot) else ()
        for at, (dim, size) in enumerate(zip(dims, shape, strict=False)):
            if isinstance(dim, sympy.Symbol):
                first, place = known.setdefault(dim, (size, slot.place(at)))
                if first != size:
                    raise InputError(
                        f"{slot.place(at)} is {size}, but {place} is {first}", name=slot.name
                    )
            elif isinstance(dim, sympy.Basic):
                derived.append((slot, at, dim, size))
    values = {symbol: size for symbol, (size, _) in known.items()}
    for slot, at, dim, size in derived:
        if free_symbols([dim]) <= values.keys() and evaluate(dim, values) != size:
            raise InputError(
                f"{slot.place(at)} is {size}, and must be {evaluate(dim, values)}", name=slot.name
            )


def _is_data(slot: Slot) -> bool:
    """Whether what varies are a tensor's values, of which the graph's shape says nothing."""
    return slot.on_host and slot.kind is None
