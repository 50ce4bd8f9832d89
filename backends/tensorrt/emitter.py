"""From a graph to a network: node by node, each result compared with the type that the IR says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import attrs
import torch

from rewright.backends.tensorrt.declaration import Call, arguments, converter_of, supports
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.network import Network
from rewright.backends.tensorrt.sizes import SizeTable
from rewright.backends.tensorrt.tensor import Tensor
from rewright.backends.torch.prepare import prepare
from rewright.errors import ConversionError
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.ops import SCALAR
from rewright.ir.printer import value_names
from rewright.ir.sizes import same
from rewright.ir.types import DTYPE_NAMES, ScalarType, TensorType

if TYPE_CHECKING:
    from rewright.backends.tensorrt.refitting import Naming

STRUCTURAL: Final = frozenset((SCALAR.name,))
"""Ops that are numbers and no layers."""

_SCALARS: Final = {"int": torch.int64, "bool": torch.bool, "float": torch.float32}


@attrs.frozen
class Port:
    """An input or output of a network.

    Attributes:
        name: TensorRT's name for it, unique.
        value: the value of the graph.
    """

    name: str
    value: Value


@attrs.define(eq=False)
class Emitted:
    """A graph as a network.

    Attributes:
        net: the network.
        graph: the graph.
        inputs: a port for each input of the graph that is a tensor or a number.
        outputs: a port for each output, then for each value that is written back.
    """

    net: Network
    graph: Graph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def emit(
    graph: Graph,
    library: Library,
    constants: Mapping[str, torch.Tensor] | None = None,
    naming: Naming | None = None,
) -> Emitted:
    """Defines a network that computes `graph`.

    Args:
        graph: a graph of which TensorRT supports every node.
        library: the TensorRT to use.
        constants: the tensors of constants that have no data of their own, by name. Prepared
            ones are computed where they are missing here.
        naming: names the weights that come from constants, so that they can be changed later.

    Raises:
        ConversionError: a node is not supported, TensorRT refused a layer, or gave a tensor
            that is not what the graph says.
    """
    with naming or nullcontext():
        net = Network(library, graph.name, naming)
        return _Emitter(graph, net, dict(constants or {})).run()


class Scope:
    """The values of one graph (or region) in a network, and its conversion node by node.

    Args:
        net: the network.
        graph: the graph.
    """

    def __init__(self, net: Network, graph: Graph) -> None:
        self.net = net
        self.graph = graph
        self.values: dict[Value, Any] = {}
        self.sizes = SizeTable(net, graph, self.bound)

    def tensor(self, value: Value) -> Any:
        """What stands for a value: a number or expression where it is one, else a tensor."""
        if isinstance(value.type, ScalarType) and value.type.expr is not None:
            return value.type.expr
        return self.bound(value)

    def bound(self, value: Value) -> Any:
        """What a value was given or converted to."""
        if value in self.values:
            return self.values[value]
        raise self.net.error(f"%{value.hint or value.index} is not there yet")

    def as_tensor(self, value: Value) -> Tensor:
        """A value as a tensor, also where it is a number."""
        found = self.tensor(value)
        if isinstance(found, Tensor) or not isinstance(value.type, ScalarType):
            return found
        from rewright.backends.tensorrt.shaping import reshape

        return reshape(self.net.sizes.tensor(found).to(_SCALARS[value.type.kind]), ())

    def run(self) -> None:
        """Converts every node."""
        outer, self.net.sizes = getattr(self.net, "sizes", None), self.sizes
        for node in self.graph:
            with self.net.at(node):
                self._node(node)
        if outer is not None:
            self.net.sizes = outer

    def _node(self, node: Node) -> None:
        if node.op is SCALAR:
            self.values[node.result] = node.attributes["value"]
            return
        refusal = supports(node, self.net.library)
        converter = converter_of(node.op)
        if refusal is not None or converter is None:
            raise self.net.error(f"TensorRT does not take {node.op.name}: {refusal}")
        call = Call(self.net, node)
        returned = converter.convert(call, **arguments(call, converter, self.tensor))
        results = returned if isinstance(returned, list | tuple) else (returned,)
        if len(results) != len(node.results):
            raise self.net.error(f"its converter gave {len(results)} results")
        for value, result in zip(node.results, results, strict=True):
            if result is not None:
                self._check(value, result)
                self.values[value] = result

    def _check(self, value: Value, result: Tensor) -> None:
        """Raises where TensorRT's dtype or shape is not what the graph says."""
        expected = value.type
        if not isinstance(expected, TensorType):
            return
        ranges = {symbol: info.ranges for symbol, info in self.graph.symbols.items()}
        fits = (
            result.dtype == expected.dtype
            and result.rank == len(expected.shape)
            and not any(
                made >= 0 and same(made, dim, ranges) is False
                for made, dim in zip(result.shape, expected.shape, strict=True)
            )
        )
        if not fits:
            made = f"{DTYPE_NAMES[result.dtype]}{list(result.shape)}"
            raise self.net.error(f"TensorRT makes {made} of it, the graph says {expected}")


@attrs.define(eq=False)
class _Emitter:
    graph: Graph
    net: Network
    constants: dict[str, torch.Tensor]

    def run(self) -> Emitted:
        names = value_names(self.graph)
        scope = Scope(self.net, self.graph)
        self.net.sizes = scope.sizes
        self._bind_constants(scope)
        inputs = tuple(self._input(scope, value, names) for value in self.graph.inputs)
        scope.run()
        outputs = self._outputs(scope, names)
        return Emitted(self.net, self.graph, tuple(p for p in inputs if p), outputs)

    # -- inputs and constants

    def _input(self, scope: Scope, value: Value, names: Mapping[Value, str]) -> Port | None:
        match value.type:
            case TensorType(dtype, shape):
                dims = [dim if isinstance(dim, int) else -1 for dim in shape]
            case ScalarType(kind):
                dtype, dims = _SCALARS[kind], []
            case _:
                return None
        port = Port(names[value].lstrip("%"), value)
        made = self.net.add_input(port.name, dtype, dims)
        scope.values[value] = made
        return port

    def _bind_constants(self, scope: Scope) -> None:
        used = [c for c in self.graph.constants.values() if c.has_uses]
        missing = [c for c in used if not c.is_source and c.name not in self.constants]
        if missing:
            self.constants |= prepare(self.graph, self._sources())
        for constant in used:
            data, naming = self._data(constant), self.net.naming
            if naming is not None:
                data = naming.enter(constant.name, data)
            scope.values[constant] = self.net.constant(data)

    def _sources(self) -> dict[str, torch.Tensor]:
        return {
            c.name: self._data(c)
            for c in self.graph.constants.values()
            if c.is_source and (c.data is not None or c.name in self.constants)
        }

    def _data(self, constant: Constant) -> torch.Tensor:
        data = self.constants.get(constant.name, constant.data)
        if data is None:
            raise ConversionError(
                f"the constant @{constant.name} has no data",
                backend="tensorrt",
                hint="bind its data before building",
            )
        return data.detach()

    # -- outputs

    def _outputs(self, scope: Scope, names: Mapping[Value, str]) -> tuple[Port, ...]:
        taken = {port.lstrip("%") for port in names.values()}
        ports, seen = [], set()
        for number, value in enumerate(self.graph.terminator.operands):
            result = scope.as_tensor(value)
            if value.producer is None or id(result.handle) in seen or not _is_own(result, value):
                result = self.net.layer("add_identity", result)
            seen.add(id(result.handle))
            name = f"out{number}"
            while name in taken:
                name += "_"
            self.net.mark_output(name, result)
            ports.append(Port(name, value))
        return tuple(ports)


def _is_own(result: Tensor, value: Value) -> bool:
    """Whether a tensor was made for `value` alone, and is no input or constant passed through."""
    return result.value is None and not result.handle.is_network_input
