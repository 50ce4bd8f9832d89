"""A network being defined: layers with what TensorRT says of them checked at once.

TensorRT reports a mistake by a line in its log, by None instead of a layer, or by a shape that
can't be read, and often all is quiet until the build. So :meth:`Network.layer` asks for all of
it after each layer, and names the node at fault.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import sympy
import torch

from rewright.backends.tensorrt.dtypes import BOOL, TENSORRT, why_not
from rewright.backends.tensorrt.enums import Name, NetworkDefinitionCreationFlag
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.log import JOURNAL
from rewright.backends.tensorrt.shaping import squeeze
from rewright.backends.tensorrt.tensor import Tensor, ranked
from rewright.errors import ConversionError, EngineError
from rewright.ir.graph import Node
from rewright.ir.printer import print_node

if TYPE_CHECKING:
    from rewright.backends.tensorrt.refitting import Naming
    from rewright.backends.tensorrt.sizes import SizeTable

_LONGEST_NAME: Final = 4096


class Network:
    """A strongly typed network, growing.

    Attributes:
        library: the TensorRT that it is defined with.
        definition: TensorRT's own object.
        weights: the tensors of constants by the names of their layers. TensorRT refers to their
            memory, so they must live until the engine is built, and stay as they are.
        node: the node that is being converted, for names and errors.
        sizes: what stands for the sizes of the graph that is being converted.
        naming: names the weights that an engine may be refitted with; None where it is not.
    """

    sizes: SizeTable

    def __init__(self, library: Library, name: str = "main", naming: Naming | None = None) -> None:
        trt = library.module
        flag = library.enum(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.library = library
        self.builder = trt.Builder(library.logger)
        definition = self.builder.create_network(1 << int(flag))
        if definition is None:
            raise EngineError(f"{library.name} can't make a network")
        self.definition = definition
        self.definition.name = name
        self.weights: dict[str, torch.Tensor] = {}
        self.node: Node | None = None
        self.naming = naming
        self._kept: list[Any] = []
        self._constants: dict[int, Tensor] = {}
        self._numbers: dict[tuple[str, torch.dtype, int], Tensor] = {}
        self._names: dict[str, int] = {}
        self._position = JOURNAL.position

    # -- context

    @contextmanager
    def at(self, node: Node) -> Iterator[None]:
        """Layers belong to `node` meanwhile."""
        outer, self.node = self.node, node
        try:
            yield
        finally:
            self.node = outer

    def unique_name(self, suffix: str = "") -> str:
        """A name for a layer: the module path, the node, and a number where there are several.

        ``layers.3.attn/linear_1/aten.linear``, ``layers.3.attn/linear_1/aten.linear.1`` ...
        """
        parts = [suffix]
        if self.node is not None:
            hint = self.node.results[0].hint if self.node.results else ""
            module = self.node.loc.module if self.node.loc else ""
            parts = [module, hint, self.node.op.name, suffix]
        # a layer without a name breaks the build of some engines
        name = "/".join(filter(None, parts))[: _LONGEST_NAME - 16] or "graph"
        seen = self._names.get(name, 0)
        self._names[name] = seen + 1
        return f"{name}.{seen}" if seen else name

    def error(self, message: str, hint: str | None = None) -> ConversionError:
        """An error about the node that is being converted."""
        node = self.node
        return ConversionError(
            message,
            backend="tensorrt",
            op=node.op.name if node else None,
            node=print_node(node) if node else None,
            where=node.loc if node else None,
            hint=hint,
        )

    def check_log(self, doing: str) -> None:
        """Raises what TensorRT logged as an error since the last time, in this thread.

        Raises:
            ConversionError: there was something.
        """
        if JOURNAL.position == self._position:
            return
        errors = JOURNAL.errors(self._position, thread=threading.get_ident())
        self._position = JOURNAL.position
        if errors:
            raise self.error(f"{self.library.name} refused {doing}: {' | '.join(errors)}")

    # -- layers

    def layer(
        self,
        method: str,
        *args: Any,
        inputs: Mapping[int, Tensor | None] | None = None,
        **settings: Any,
    ) -> Any:
        """Adds a layer.

        Args:
            method: of TensorRT's network: ``add_softmax``.
            args: its arguments; tensors, dtypes, enum names and torch tensors (as weights) are
                put into TensorRT's terms.
            inputs: tensors for further inputs of the layer, by number.
            settings: attributes of the layer to set, by name.

        Returns:
            Its output; a tuple where it has several.

        Raises:
            ConversionError: TensorRT refused it.
        """
        if self.naming is not None:
            # Also makes the layers of constants, which name weights of their own, before.
            self.naming.tell(f"{method}{_told(args)}")
        layer = getattr(self.definition, method)(*map(self.native, args))
        if layer is None:
            self.check_log(method)
            raise self.error(f"{self.library.name} refused {method} without a reason")
        return self.finish(method, layer, inputs, settings)

    def finish(
        self,
        what: str,
        layer: Any,
        inputs: Mapping[int, Tensor | None] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Any:
        """Sets up a layer, names it and reads its outputs back; see :meth:`layer`."""
        layer.name = self.unique_name()
        self._kept.append(layer)
        for name, value in (settings or {}).items():
            setattr(layer, name, self.native(value))
        for number, tensor in (inputs or {}).items():
            if tensor is not None:
                layer.set_input(number, tensor.handle)
        if self.naming is not None:
            told = f"{what} {layer.name} {_told(list((settings or {}).items()))}"
            self.naming.tell(f"{told} {_told(list((inputs or {}).items()))}")
            self.naming.settle(self.definition)
        outputs = tuple(
            self.read(layer.get_output(i), what, layer.name, i) for i in range(layer.num_outputs)
        )
        self.check_log(what)
        return outputs[0] if len(outputs) == 1 else outputs

    def read(self, handle: Any, what: str, name: str = "", number: int = 0) -> Tensor:
        """TensorRT's tensor `handle` with the shape and dtype that TensorRT gives it.

        Raises:
            ConversionError: it has none.
        """
        if name:
            handle.name = f"{name}:{number}"
        try:
            shape = tuple(int(dim) for dim in handle.shape)
        except (RuntimeError, ValueError):
            self.check_log(what)
            raise self.error(f"{self.library.name} finds no shape for {what}") from None
        return Tensor(self, self.torch_dtype(handle.dtype), shape, handle)

    def native(self, value: Any) -> Any:
        """`value` in TensorRT's terms."""
        if isinstance(value, Tensor):
            return value.handle
        if isinstance(value, Name):
            return self.library.enum(value)
        if isinstance(value, torch.dtype):
            return self.trt_dtype(value)
        if isinstance(value, torch.Tensor):
            return self.weights_of(value)
        if isinstance(value, list):
            return [self.native(item) for item in value]
        return value

    # -- dtypes and weights

    def trt_dtype(self, dtype: torch.dtype) -> Any:
        """TensorRT's member for `dtype`.

        Raises:
            ConversionError: it has none.
        """
        if dtype not in TENSORRT:
            raise self.error(why_not(dtype))
        return getattr(self.library.module.DataType, TENSORRT[dtype])

    def torch_dtype(self, dtype: Any) -> torch.dtype:
        """torch's dtype for TensorRT's."""
        for ours, name in TENSORRT.items():
            if getattr(self.library.module.DataType, name) == dtype:
                return ours
        raise self.error(f"TensorRT gives the dtype {dtype}, which torch has not")

    def weights_of(self, value: torch.Tensor) -> Any:
        """TensorRT's weights for a tensor: its own memory where it is dense and on the CPU."""
        dense = value.detach().cpu().contiguous()
        dtype = self.trt_dtype(dense.dtype)
        if not dense.numel():
            return self.library.module.Weights(dtype)
        if self.naming is not None:
            dense = self.naming.own(dense)
        self._kept.append(dense)
        weights = self.library.module.Weights(dtype, dense.data_ptr(), dense.numel())
        if self.naming is not None:
            self.naming.take(weights, dense)
        return weights

    def constant(self, value: torch.Tensor) -> Tensor:
        """`value` as a tensor of the network; no layer is made before it is used."""
        known = self._constants.get(id(value))
        if known is None:
            known = Tensor(self, value.dtype, tuple(value.shape), None, value)
            self._constants[id(value)] = known
            self._kept.append(value)
        return known

    def scalar(self, value: Any, dtype: torch.dtype, rank: int = 0) -> Tensor:
        """A number, size or tensor of no dimensions as `dtype`, with `rank` dimensions of 1."""
        if isinstance(value, Tensor):
            return ranked(value.to(dtype), rank)
        if not isinstance(value, sympy.Basic):
            key = (repr(value), dtype, rank)
            if key not in self._numbers:
                self._numbers[key] = self.constant(_as_torch_casts(value, dtype, rank))
            return self._numbers[key]
        size = self.sizes.tensor(value).to(dtype)
        return ranked(size, rank) if rank else squeeze(size, (0,))

    def emit_constant(self, value: torch.Tensor) -> Any:
        """A constant layer; gives TensorRT's tensor."""
        dense = value.detach().cpu().contiguous()
        emitted = self.layer("add_constant", tuple(dense.shape), dense)
        self.weights[emitted.handle.name.rpartition(":")[0]] = dense
        return emitted.handle

    def keep(self, thing: Any) -> None:
        """Keeps `thing` alive as long as the network."""
        self._kept.append(thing)

    # -- inputs and outputs

    def add_input(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        """A new input; -1 stands for dimensions that vary.

        Raises:
            ConversionError: TensorRT refused it.
        """
        handle = self.definition.add_input(name, self.trt_dtype(dtype), tuple(shape))
        if handle is None:
            self.check_log("add_input")
            raise self.error(f"{self.library.name} refused the input {name}")
        return self.read(handle, "add_input")

    def mark_output(self, name: str, tensor: Tensor) -> None:
        """Makes `tensor` an output called `name`. Each output needs a tensor of its own."""
        tensor.handle.name = name
        self.definition.mark_output(tensor.handle)
        self.check_log("mark_output")


def _as_torch_casts(number: Any, dtype: torch.dtype, rank: int) -> torch.Tensor:
    """A number as an operand of torch's operators: integers wrap around, floats become infinite."""
    shape = (1,) * rank
    if dtype.is_floating_point:
        return torch.full(shape, number, dtype=torch.float64).to(dtype)
    if isinstance(number, int) and dtype not in BOOL:
        kind = torch.iinfo(dtype)
        number = (number - kind.min) % (1 << kind.bits) + kind.min
    return torch.full(shape, number, dtype=dtype)


def _told(argument: Any) -> str:
    """What TensorRT is told, as text: all but the contents of weights."""
    if isinstance(argument, Tensor):
        return str(argument.handle.name)
    if isinstance(argument, torch.Tensor):
        return "weights"
    if isinstance(argument, list | tuple):
        return f"[{', '.join(map(_told, argument))}]"
    return repr(argument)
