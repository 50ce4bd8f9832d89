"""A program as plain FX: what torch's own exporters, tracers and compilers take.

    portable(graph, signature, engines)      every node of the program, as operators of ATen
    around(graph, signature, call)           one call of the program, and what callers see around it

Either takes the model's arguments, nested as they are, and returns the model's result. Inputs and
buffers that the model writes to are written to, and outputs that alias something are made by the
same views from it. Prepared constants are buffers: their recipes are not part of it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.fx
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils._pytree import TreeSpec

from rewright.backends.torch.entry import Parameters
from rewright.backends.torch.implementations import implementation_of
from rewright.backends.torch.liveness import is_computed, plan
from rewright.backends.torch.prepare import prepared_now
from rewright.errors import UnsupportedError
from rewright.ir.aliasing import Roots, roots_of
from rewright.ir.calls import torch_arguments
from rewright.ir.fx_export import FxWriter, as_lists, world_of
from rewright.ir.graph import Constant, Graph, Node, ResultSpec, Value, ViewStep
from rewright.ir.ops import call_args
from rewright.ir.signature import Signature
from rewright.ir.sizes import same, simplify
from rewright.ir.types import TensorType

EngineCall = Callable[["ProgramWriter", Node], Sequence[Any]]
"""Writes the call of a segment's engine; gives what stands for its results."""

OpCall = Callable[["ProgramWriter"], tuple[Mapping[Value, Any], Mapping[Value, Any]]]
"""Writes the call of a whole program; gives what stands for the outputs that are no aliases, and
for the new contents of what is written to."""


def portable(
    graph: Graph,
    signature: Signature,
    engines: Mapping[Node, EngineCall] | None = None,
    *,
    out_spec: TreeSpec | None = None,
) -> torch.fx.GraphModule:
    """The whole program as a module of ATen operators, which needs nothing of ours.

    Args:
        graph: a program whose sources have data.
        signature: how it is called.
        engines: writes the calls of the segments that are not to stand inline.
        out_spec: the tree of the result, where that is not the signature's.

    Raises:
        UnsupportedError: it can't be said in FX.
    """
    writer = ProgramWriter(graph, signature, engines or {})
    writer.inputs()
    writer.constants()
    writer.nodes(plan(graph).nodes)
    fresh = {value: frozenset([value]) for node in writer.engines for value in node.results}
    return writer.finish({**roots_of(graph), **fresh}, out_spec)


def around(graph: Graph, signature: Signature, call: OpCall) -> torch.fx.GraphModule:
    """A module that calls a program once and does the rest in plain sight: writes and aliases.

    Args:
        graph: the program.
        signature: how it is called.
        call: writes the call.

    Raises:
        UnsupportedError: a size that outputs need is known only inside.
    """
    writer = ProgramWriter(graph, signature, {})
    writer.inputs()
    seen = {*graph.targets, *(s.alias for s in graph.results if isinstance(s.alias, Value))}
    for constant in graph.constants.values():
        if constant in seen:
            writer.values[constant] = writer.source(constant)
    outputs, written = call(writer)
    writer.values.update(outputs)
    return writer.finish(None, None, written)


class ProgramWriter(FxWriter):
    """Writes a program with its calling convention into FX.

    Args:
        graph: the program.
        signature: how it is called.
        engines: as :func:`portable` takes them.

    Attributes:
        fresh: for each output that is no alias, what stands for it.
    """

    def __init__(
        self, graph: Graph, signature: Signature, engines: Mapping[Node, EngineCall]
    ) -> None:
        root = torch.nn.Module()
        super().__init__(graph, torch.fx.Graph(), root, world_of(graph), _function_of)
        self.signature = signature
        self.engines = engines
        self.fresh: dict[int, Any] = {}

    # -- what comes in

    def inputs(self) -> None:
        """A placeholder for every leaf of the arguments."""
        for argument in self.signature.arguments:
            if argument.constant is not None:
                raise UnsupportedError(
                    f"the weight {argument.constant} is an argument of this program",
                    hint="compile ahead of time, with rewright.compile",
                )
            if argument.input is None:
                self.placeholder(argument.name, argument.literal)
            else:
                value = self.graph.inputs[argument.input]
                self.values[value] = self.input(value, argument.name)

    def constants(self) -> None:
        """Sources under their names, and what is prepared as buffers beside them."""
        needed = plan(self.graph).constants
        for constant in needed:
            if constant.is_source:
                self.values[constant] = self.own(constant)
        cooked = [constant for constant in needed if not constant.is_source]
        if cooked:
            made = prepared_now(self.graph)
            for number, constant in enumerate(cooked):
                data = self._data(constant, made.get(constant.name)).contiguous()
                self.values[constant] = self.hold(f"prepared.constant_{number}", data)

    def source(self, constant: Constant) -> torch.fx.Node:
        """A source; one that is written to is a buffer."""
        as_parameter = constant.kind == "parameter" and constant not in self.graph.targets
        return self.hold(constant.name, self._data(constant, constant.data), as_parameter)

    def own(self, constant: Constant) -> torch.fx.Node:
        """A source that shares no memory with the program's, where the program writes to it."""
        if constant not in self.graph.targets:
            return self.source(constant)
        return self.hold(constant.name, self._data(constant, constant.data).clone())

    def _data(self, constant: Constant, data: torch.Tensor | None) -> torch.Tensor:
        if data is None or data.is_meta:
            raise UnsupportedError(
                f"the constant @{constant.name} has no data",
                hint="a program that is loaded has what was saved of its weights",
            )
        elsewhere = constant.type.device if isinstance(constant.type, TensorType) else None
        return data.detach().to(elsewhere or self.graph.device)

    # -- nodes

    def node(self, node: Node) -> Sequence[Any]:
        """What stands for the results of `node`; an engine's call is written by its own."""
        write = self.engines.get(node)
        return super().node(node) if write is None else write(self, node)

    # -- what goes out

    def finish(
        self,
        roots: Roots | None,
        out_spec: TreeSpec | None,
        written: Mapping[Value, Any] | None = None,
    ) -> torch.fx.GraphModule:
        """Writes back, makes the aliases, and returns the module.

        Args:
            roots: whose memory each value may use; None: all are tensors of their own.
            out_spec: as :func:`portable` takes it.
            written: the new contents of what is written to; None: those that the graph says.
        """
        graph, specs = self.graph, [*enumerate(self.graph.results)]
        for number, spec in specs:
            if is_computed(spec):
                self.fresh[number] = self._own(number, spec, roots)
        for target, new in (self._contents(roots) if written is None else written).items():
            self._aten("copy_", self.values[target], new)
        for number, spec in specs:
            if not is_computed(spec):
                self.fresh[number] = self._alias(spec)
        self.fx.output([self.fresh[number] for number, _ in specs])
        self._take_nested(out_spec or self.signature.out_spec)
        module = torch.fx.GraphModule(self.root, self.fx, graph.name)
        module.eval()
        return module

    def _own(self, number: int, spec: ResultSpec, roots: Roots | None) -> Any:
        """An output that shares memory with nothing that a caller has."""
        value = self.graph.outputs[number]
        made = self.values[value]
        if roots is None or not isinstance(value.type, TensorType):
            return made
        others = {*self.graph.inputs, *self.graph.constants.values()}
        for earlier in self.fresh:
            if spec.shares is None:
                others.add(self.graph.outputs[earlier])
                others |= roots[self.graph.outputs[earlier]]
        shared = value in others or not roots[value].isdisjoint(others)
        return self._laid_out(value.type, spec, made, shared)

    def _laid_out(self, found: TensorType, spec: ResultSpec, made: Any, shared: bool) -> Any:
        """An output at eager's strides, where they are those of a dense tensor; copied if told."""
        order = self._order(found, spec)
        if found.rank == 0 or order is None:
            return self._aten("clone", made) if shared else made
        if order != [*range(found.rank)]:
            made = self._aten("permute", made, order)
        if shared:
            made = self._aten("clone", made, memory_format=torch.contiguous_format)
        else:
            made = self._aten("contiguous", made)
        if order != [*range(found.rank)]:
            made = self._aten("permute", made, [order.index(dim) for dim in range(found.rank)])
        return made

    def _order(self, found: TensorType, spec: ResultSpec) -> list[int] | None:
        """The dimensions from the outermost to the innermost; None where memory has holes."""
        if spec.strides is None:
            return [*range(found.rank)]
        order: list[int] = []
        stride: Any = 1
        left = [*range(found.rank)]
        while left:
            fitting = [dim for dim in left if same(spec.strides[dim], stride)]
            if not fitting:
                return None
            # Of two that fit, the one of size 1 comes first: the stride stays what it is.
            dim = next((d for d in fitting if found.shape[d] == 1), fitting[-1])
            order.insert(0, dim)
            left.remove(dim)
            stride = simplify(stride * found.shape[dim])
        return order

    def _contents(self, roots: Roots | None) -> dict[Value, Any]:
        """What is written, copied where a write before it could change it."""
        pairs = [(target, value) for target, value in self.graph.writebacks if target is not value]
        targets = frozenset(target for target, _ in pairs)
        found = {}
        for target, value in pairs:
            found[target] = self.values[value]
            if roots is not None and not roots[value].isdisjoint(targets):
                found[target] = self._aten("clone", found[target])
        return found

    def _alias(self, spec: ResultSpec) -> Any:
        base = spec.alias
        assert base is not None
        made = self.fresh[base] if isinstance(base, int) else self.values[base]
        for step in spec.views:
            made = self._view(made, step)
        return made

    def _view(self, base: Any, step: ViewStep) -> Any:
        rest = torch_arguments(step.attributes, self._size, self.opaque)
        named = {step.op.params[0].name: base, **rest}
        args, kwargs = call_args(step.op, named)
        made = self.fx.call_function(step.op.target, tuple(as_lists(args)), as_lists(kwargs))
        if step.op.results == 1:
            return made
        return self.fx.call_function(operator.getitem, (made, step.pick))

    def _size(self, leaf: Any) -> Any:
        return self.size(leaf) if hasattr(leaf, "free_symbols") else leaf

    def _aten(self, name: str, *args: Any, **kwargs: Any) -> torch.fx.Node:
        target = getattr(torch.ops.aten, name).default
        return self.fx.call_function(target, args, kwargs)

    # -- the calling convention

    def _take_nested(self, out_spec: TreeSpec | None) -> None:
        """Lets the module take and return what is nested as the signature says."""
        in_spec = self.signature.in_spec
        if in_spec is None:
            return
        parameters = Parameters.of(self.signature)
        if parameters is None:
            raise UnsupportedError(
                "the program's parameters have names that Python can't spell",
                where=", ".join(argument.name for argument in self.signature.arguments),
            )
        names = [*parameters.positional, *parameters.named]
        self.fx.set_codegen(_PyTreeCodeGen(_PyTreeInfo(names, in_spec, out_spec)))


def _function_of(node: Node) -> Callable[..., Any] | None:
    """What torch computes `node` by, in words that any process of torch's knows."""
    found = implementation_of(node.op, node)
    if found is not None:
        return found.function
    if node.op.name.startswith(_FUNCTIONAL):  # clones, and the user's own op that mutates
        function: Callable[..., Any] = node.op.target
        return function
    return None


_FUNCTIONAL: Final = "rw.functional."
