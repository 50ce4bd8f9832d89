"""A graph made callable: its source written and run, its constants bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from rewright.backends.torch.aliasing import roots_of
from rewright.backends.torch.boundary import Boundary
from rewright.backends.torch.codegen import Scope, Writer
from rewright.backends.torch.entry import EntryWriter, Parameters
from rewright.backends.torch.liveness import Plan, plan
from rewright.backends.torch.prepare import prepare, recipe_sources
from rewright.backends.torch.refusal import Refusal, same_device
from rewright.backends.torch.runtime import alone
from rewright.backends.torch.source import Module, Names, targets, tuple_of
from rewright.backends.torch.specialize import Specializations
from rewright.errors import CompileError, InputError
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.signature import Signature
from rewright.ir.types import TensorType
from rewright.settings import Settings
from rewright.statistics import record

Inspect: TypeAlias = Callable[[Sequence[Any]], None]
"""Looks at the flat arguments of a call before it is made."""


class Attached(Protocol):
    """What another backend made of a segment."""

    @property
    def constant_names(self) -> tuple[str, ...]:
        """The constants that it is made from."""
        ...

    def bind(
        self, constants: Mapping[str, Tensor], in_torch: Callable[..., Any]
    ) -> Callable[..., Any]:
        """What runs the segment with `constants`: takes its operands, returns its results."""
        ...


@attrs.frozen(eq=False)
class Built:
    """A graph made callable.

    Attributes:
        call: takes the model's arguments, checks them, and returns the model's result.
        refuse: says what is wrong with arguments, for a call that Python itself refused.
        source: the generated Python source.
        specializations: what is prepared for each set of parameters, where they are arguments.
    """

    call: Callable[..., Any]
    refuse: Refusal
    source: str
    specializations: Specializations | None = None

    def explain(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Says what is wrong with the arguments of a call that Python refused, if they are.

        Raises:
            InputError: they don't fit the signature.
        """
        try:
            self.refuse(args, kwargs)
        except InputError as error:
            raise error from None


def build(
    graph: Graph,
    signature: Signature,
    settings: Settings,
    inspect: Inspect | None = None,
    attached: Mapping[Node, Attached] | None = None,
) -> Built:
    """Makes `graph` callable by `signature`, at the level that `settings` choose.

    Args:
        graph: a whole program.
        signature: how it is called.
        settings: how it is compiled.
        inspect: is given the flat arguments of every call once they fit, and may raise.
        attached: what other backends made of segments; torch runs the others.

    Raises:
        CompileError: the graph can't be written as Python, or Inductor failed.
    """
    with _disable_current_modes(), torch.no_grad():
        return _Builder(graph, signature, settings, inspect, attached or {}).build()


@attrs.define(eq=False)
class _Builder:
    graph: Graph
    signature: Signature
    settings: Settings
    inspect: Inspect | None = None
    attached: Mapping[Node, Attached] = attrs.field(factory=dict)
    plan: Plan = attrs.field(init=False)
    arriving: frozenset[str] = attrs.field(init=False)
    """The names of the sources that are arguments."""

    @plan.default
    def _plan(self) -> Plan:
        return plan(self.graph)

    @arriving.default
    def _arriving(self) -> frozenset[str]:
        names = (argument.constant for argument in self.signature.arguments)
        return frozenset(name for name in names if name is not None)

    def build(self) -> Built:
        late = [c for c in self.plan.constants if c.name in self.arriving]
        early = [c for c in self.plan.constants if c.name not in self.arriving]
        cooked = [c for c in self._baked() if c.name in self.arriving]
        parameters = Parameters.of(self.signature)
        module = Module(self._title(), Names(parameters.names if parameters else ()))
        self._write_bind(module, early, late)
        inspects = self.inspect is not None
        EntryWriter(module, self.graph, self.signature, parameters, late, cooked, inspects).write()
        namespace = module.run(self.graph.name)
        specializations = None
        if cooked:
            specializations = Specializations(self._specialize(namespace["bind"], early, cooked))
            forward = specializations.forward
        else:
            forward = namespace["bind"](self._bound(early, {}))
        refuse = Refusal(self.graph, self.signature)
        call = namespace["serve"](forward, alone(forward), refuse, self.inspect)
        return Built(call, refuse, module.text(), specializations)

    def _title(self) -> str:
        count = len(self.graph.constants)
        return (
            f"{self.graph.name}: {len(self.graph)} nodes and {count} constants "
            f"on {self.graph.device}, by torch_backend={self.settings.torch_backend!r}"
        )

    # -- source

    def _write_bind(
        self, module: Module, early: Sequence[Constant], late: Sequence[Constant]
    ) -> None:
        """``bind``, which makes the function that computes the graph with its constants."""
        writer, scope = Writer(module, Names(["bind", "constants", "forward"])), Scope(self.graph)
        for value in (*self.graph.inputs, *self.plan.constants):
            hint = value.name if isinstance(value, Constant) else value.hint
            scope.names[value] = writer.names.unique(hint or "value")
        is_compiled = self.settings.torch_backend == "inductor"
        taken = ", ".join(scope.names[value] for value in (*self.graph.inputs, *late))
        with module.block("def bind(constants):"):
            for constant in early:
                text = f"constants[{constant.name!r}]"
                if is_compiled and not constant.is_source:
                    text += ".contiguous()"
                module.line(f"{scope.names[constant]} = {text}")
            self._write_attached(writer)
            module.line()
            with module.block(f"def forward({taken}):"):
                if is_compiled:
                    self._write_compiled(writer, scope)
                else:
                    writer.graph(scope, self.plan)
                results = Boundary(writer, scope, roots_of(self.graph)).write()
                module.line(f"return {results[0] if len(results) == 1 else tuple_of(results)}")
            module.line()
            module.line("return forward")

    def _write_attached(self, writer: Writer) -> None:
        """What runs the segments of other backends, and the functions that stand in for it."""
        for node, made in self.attached.items():
            (region,) = node.regions
            stand_in = writer.names.unique(f"{region.name}_in_torch")
            writer.module.line()
            writer.function(region, stand_in)
            name = writer.attached[node] = writer.names.unique(region.name)
            held = writer.module.hold(region.name, made)
            writer.module.line()
            writer.module.line(f"{name} = {held}.bind(constants, {stand_in})")

    def _write_compiled(self, writer: Writer, scope: Scope) -> None:
        """The call of what Inductor made of the graph, its inputs made contiguous."""
        from rewright.backends.torch.inductor import Inductor, part_of, scalar_of

        part = part_of(self.graph, self.arriving)
        if not part.has_tensors:
            writer.graph(scope, self.plan)
            return
        writer.bind_inputs(scope, {*part.sizes, *self.plan.symbols})
        given = [scope.symbols[symbol] for symbol in part.sizes]
        given += [self._dense(scope, value) for value in self.graph.inputs]
        given += [
            self._dense(scope, c) if c.name in self.arriving else scope.names[c]
            for c in part.constants
        ]
        for value in part.values:
            scope.names[value] = writer.names.unique(value.hint or "value")
        for symbol in part.symbols:
            scope.symbols[symbol] = writer.names.unique(symbol.name)
        made = [*(scope.names[v] for v in part.values), *(scope.symbols[s] for s in part.symbols)]
        function = writer.module.hold("compiled", Inductor(part, self.settings.inductor_options))
        writer.module.line(f"{targets(made)} = {function}({', '.join(given)})")
        for value in self.graph.outputs:
            if node := scalar_of(value):
                scope.names[value] = writer.constant(scope, node.attributes["value"]).text

    def _dense(self, scope: Scope, value: Value) -> str:
        """A value in the layout that Inductor was told of."""
        name = scope.names[value]
        return f"{name}.contiguous()" if isinstance(value.type, TensorType) else name

    # -- constants

    def _baked(self) -> list[Constant]:
        """The sources that something is computed or built from before a call."""
        names = {name for made in self.attached.values() for name in made.constant_names}
        used = (c for c in self.graph.constants.values() if c.name in names and c.is_source)
        return [*dict.fromkeys((*recipe_sources(self.graph), *used))]

    def _specialize(
        self,
        bind: Callable[..., Any],
        early: Sequence[Constant],
        cooked: Sequence[Constant],
    ) -> Callable[[Sequence[Tensor]], Callable[..., Any]]:
        """Makes the program for the values that the sources `cooked` have."""
        names = [constant.name for constant in cooked]

        def specialize(values: Sequence[Tensor]) -> Callable[..., Any]:
            arrived = dict(zip(names, values, strict=True))
            return bind(self._bound(early, arrived))

        return specialize

    def _bound(self, early: Sequence[Constant], arrived: Mapping[str, Tensor]) -> dict[str, Any]:
        """The tensors of the constants that a program keeps: sources as they are, and prepared."""
        needed = [c for c in early if c.is_source]
        needed += [c for c in self._baked() if c.name not in arrived]
        sources = {**{c.name: self._placed(c) for c in needed}, **arrived}
        if not self.graph.has_recipes:
            return sources
        if not arrived:
            record(specializations=1)
        return sources | prepare(self.graph, sources)

    def _placed(self, constant: Constant) -> Tensor:
        """The tensor of a source: never a copy, unless it lives on another device."""
        if constant.data is None:
            raise CompileError(
                f"the constant @{constant.name} has no data",
                hint="bind its data before compiling, or pass it as an argument",
            )
        data = constant.data.detach() if constant.data.requires_grad else constant.data
        elsewhere = constant.type.device if isinstance(constant.type, TensorType) else None
        device = torch.device(elsewhere or self.graph.device)
        return data if same_device(data.device, device) else data.to(device)
