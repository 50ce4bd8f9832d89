"""A program as one operator of torch, for those who compile or trace a model around it.

Programs have handles, made of the text of their graphs: torch's caches of compiled code are asked
by them, and what torch compiled for one program must never serve another. Programs are held
weakly; whoever calls one has it.

The operator writes to nothing. What the program writes to is among its arguments, buffers too, and
their new contents are among its results; the writes are made outside, where torch sees them.
"""

from __future__ import annotations

import hashlib
import operator
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import attrs
import sympy
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rewright.backends.torch.liveness import is_computed
from rewright.errors import CompileError, UnsupportedError
from rewright.interop.operators import declare
from rewright.interop.portable import ProgramWriter, around
from rewright.interop.shapes import nested
from rewright.interop.sizes_at import NUMBER_DTYPES, SizesAt, empty_like
from rewright.ir.graph import Constant, Graph, Value
from rewright.ir.ops import SCALAR, Trait
from rewright.ir.types import NoneType, ScalarType, TensorType

if TYPE_CHECKING:
    from rewright.program import CompiledProgram

_programs: Final[weakref.WeakValueDictionary[str, _Served]] = weakref.WeakValueDictionary()
_lock: Final = threading.Lock()


@attrs.define(eq=False)
class _Served:
    """A program behind its operator.

    Attributes:
        program: the program, weakly.
        returned: the numbers of the outputs that the operator returns.
        written: what it returns the new contents of after them: inputs and constants.
        lock: held while the program's own buffers stand in for others.
    """

    program: weakref.ref[CompiledProgram]
    returned: tuple[int, ...]
    written: tuple[Value, ...]
    lock: threading.RLock = attrs.field(factory=threading.RLock)

    @property
    def alive(self) -> CompiledProgram:
        """The program.

        Raises:
            CompileError: it is gone.
        """
        program = self.program()
        if program is None:
            raise _gone()
        return program

    @property
    def buffers(self) -> tuple[Constant, ...]:
        """The constants that it writes to."""
        return tuple(value for value in self.written if isinstance(value, Constant))


def _inputs(graph: Graph, tensors: Sequence[Tensor], sizes: Sequence[Any]) -> list[Any]:
    """The inputs of the graph, of which tensors and sizes came apart."""
    left, rest = iter(tensors), iter(sizes)
    return [_next(value, left, rest) for value in graph.inputs]


def _next(value: Value, tensors: Iterator[Tensor], sizes: Iterator[Any]) -> Any:
    match value.type:
        case TensorType():
            return next(tensors)
        case ScalarType():
            return next(sizes)
    return None


def traceable(program: CompiledProgram) -> tuple[torch.fx.GraphModule, object]:
    """A module that torch can trace: it calls `program` by one operator.

    Returns:
        The module, and what must be kept as long as it is called.

    Raises:
        UnsupportedError: the program's outputs can't be said in FX, or an input is a float or bool.
    """
    declare()
    graph = program.graph
    for argument in program.signature.arguments:
        found = None if argument.input is None else graph.inputs[argument.input].type
        if isinstance(found, ScalarType) and found.kind != "int":
            raise UnsupportedError(
                f"{argument.name} is a {found.kind} that varies: torch can't trace the call",
                hint="give it as a tensor",
            )
    numbered = enumerate(graph.results)
    computed = [n for n, s in numbered if is_computed(s)]
    returned = [n for n in computed if not _is_known(graph, graph.outputs[n])]
    written = [target for target, value in graph.writebacks if target is not value]
    served = _Served(weakref.ref(program), tuple(returned), tuple(written))
    handle = _register(served, graph)
    is_random = any(node.op.has(Trait.RANDOM) for node in graph.walk())
    target = getattr(torch.ops.rewright, "call_random" if is_random else "call").default

    def write(writer: ProgramWriter) -> tuple[Mapping[Value, Any], Mapping[Value, Any]]:
        inputs = graph.inputs
        tensors = [writer.values[v] for v in inputs if isinstance(v.type, TensorType)]
        sizes = [writer.values[v] for v in inputs if isinstance(v.type, ScalarType)]
        buffers = [writer.values[buffer] for buffer in served.buffers]
        made = writer.fx.call_function(target, (tensors, buffers, sizes, handle))
        given = [*(graph.outputs[n] for n in returned), *written]
        items = [
            _item(writer, value, writer.fx.call_function(operator.getitem, (made, number)))
            for number, value in enumerate(given)
        ]
        known = [graph.outputs[n] for n in computed if n not in returned]
        outputs = {value: _stated(writer, value) for value in known}
        outputs.update(zip(given[: len(returned)], items, strict=False))
        return outputs, dict(zip(written, items[len(returned) :], strict=True))

    return around(graph, program.signature, write), served


def _is_known(graph: Graph, value: Value) -> bool:
    """Whether an output is there before anything runs: None, or a number of the inputs' sizes."""
    node = value.producer
    if node is None or node.op is not SCALAR:
        return isinstance(value.type, NoneType)
    free = getattr(node.attributes["value"], "free_symbols", ())
    return all(graph.symbols[symbol].binding.is_input for symbol in free)


def _stated(writer: ProgramWriter, value: Value) -> Any:
    """What stands for an output that is known without running anything."""
    node = value.producer
    if node is None or node.op is not SCALAR:
        return None
    stated = node.attributes["value"]
    return writer.size(stated) if isinstance(stated, sympy.Basic) else stated


def _item(writer: ProgramWriter, value: Value, item: torch.fx.Node) -> torch.fx.Node:
    """A result of the operator as the program returns it: numbers travel as tensors."""
    if not isinstance(value.type, ScalarType):
        return item
    return writer.fx.call_function(torch.ops.aten._local_scalar_dense.default, (item,))


def _register(served: _Served, graph: Graph) -> str:
    """A handle for a program: the same in every process that compiles the same programs."""
    text = hashlib.sha256(str(graph).encode()).hexdigest()[:16]
    with _lock:
        number = 0
        while f"{text}-{number}" in _programs:
            number += 1
        _programs[f"{text}-{number}"] = served
    return f"{text}-{number}"


def _served(handle: str) -> _Served:
    found = _programs.get(handle)
    if found is None:
        raise _gone()
    return found


def _gone() -> CompileError:
    return CompileError(
        "a compiled program that traced code calls is gone",
        hint="keep the program as long as what was compiled around it",
    )


# --------------------------------------------------------------------------- kernels


def real_call(
    tensors: Sequence[Tensor], buffers: Sequence[Tensor], sizes: Sequence[int], handle: str
) -> list[Tensor]:
    """Runs a program: its outputs, then the new contents of what it writes to."""
    served = _served(handle)
    inputs = _inputs(served.alive.graph, tensors, sizes)
    for target in served.written:
        if target not in served.buffers:
            inputs[target.index] = inputs[target.index].clone()
    with served.lock if buffers else nullcontext(), _lent(served.buffers, buffers):
        made = _run(served, inputs)
        for target in served.written:
            if isinstance(target, Constant):
                assert target.data is not None
                made.append(target.data.detach().clone())
            else:
                made.append(inputs[target.index])
    return made


@contextmanager
def _lent(buffers: Sequence[Constant], given: Sequence[Tensor]) -> Iterator[None]:
    """The program's buffers hold what is given for a while, and then again what they held."""
    held = [buffer.data.detach() for buffer in buffers if buffer.data is not None]
    with torch.no_grad():
        saved = [item.clone() for item in held]
        for item, new in zip(held, given, strict=True):
            if item.data_ptr() != new.data_ptr():
                item.copy_(new)
        try:
            yield
        finally:
            for item, before in zip(held, saved, strict=True):
                item.copy_(before)


def _run(served: _Served, inputs: Sequence[Any]) -> list[Tensor]:
    program = served.alive
    signature, graph = program.signature, program.graph
    leaves = [a.literal if a.input is None else inputs[a.input] for a in signature.arguments]
    args, kwargs = nested(signature, leaves)
    results = tree_leaves(program(*args, **kwargs))
    return [_own(graph, number, results[number]) for number in served.returned]


def _own(graph: Graph, number: int, made: Any) -> Tensor:
    """Output `number` as a tensor that shares memory with no other: torch relies on that."""
    value_type = graph.outputs[number].type
    if isinstance(value_type, ScalarType):
        return torch.tensor(made, dtype=NUMBER_DTYPES[value_type.kind])
    assert isinstance(made, Tensor)
    return made.clone() if graph.results[number].shares is not None else made


def fake_call(
    tensors: Sequence[Tensor], buffers: Sequence[Tensor], sizes: Sequence[Any], handle: str
) -> list[Tensor]:
    """Empty tensors of the shapes that the program would return."""
    served = _served(handle)
    graph = served.alive.graph
    at = SizesAt(graph, _inputs(graph, tensors, sizes), _new_size)
    made = [empty_like(graph.outputs[n], at, graph.results[n]) for n in served.returned]
    return [*made, *(empty_like(target, at) for target in served.written)]


def _new_size(least: int, most: int | None) -> Any:
    return torch.library.get_ctx().new_dynamic_size(min=least, max=most)
