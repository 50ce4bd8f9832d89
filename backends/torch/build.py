"""A graph made callable: its source written and run, its constants bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from rewright.backends.torch.boundary import Boundary
from rewright.backends.torch.codegen import Scope, Writer
from rewright.backends.torch.cuda_graphs import Graphs
from rewright.backends.torch.entry import EntryWriter, Parameters
from rewright.backends.torch.layouts import layouts_of
from rewright.backends.torch.liveness import Plan, plan
from rewright.backends.torch.prepare import prepare, recipe_sources
from rewright.backends.torch.refusal import Refusal, same_device
from rewright.backends.torch.runtime import alone
from rewright.backends.torch.source import Module, Names, targets, tuple_of
from rewright.backends.torch.specialize import Specializations
from rewright.backends.torch.staleness import Watch
from rewright.errors import CompileError, InputError
from rewright.ir.aliasing import roots_of
from rewright.ir.graph import Constant, Graph, Node, Value
from rewright.ir.segments import segment_program, segments_of
from rewright.ir.signature import Signature
from rewright.ir.types import TensorType
from rewright.settings import Settings
from rewright.statistics import record

if TYPE_CHECKING:
    from rewright.backends.torch.inductor import Part

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
        rebind: makes another ``call``, of other tensors for some sources, by name, and of the
            graph's own for the rest, all prepared anew; None where parameters are arguments.
        graphs: the CUDA graphs of its calls, where the settings ask for them.
    """

    call: Callable[..., Any]
    refuse: Refusal
    source: str
    specializations: Specializations | None = None
    rebind: Callable[[Mapping[str, Tensor]], Callable[..., Any]] | None = None
    graphs: Graphs | None = None

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
    *,
    prepared: Mapping[str, Tensor] | None = None,
) -> Built:
    """Makes `graph` callable by `signature`, at the level that `settings` choose.

    Args:
        graph: a whole program.
        signature: how it is called.
        settings: how it is compiled.
        inspect: is given the flat arguments of every call once they fit, and may raise.
        attached: what other backends made of segments; torch runs the others.
        prepared: all prepared constants, where they are known: no recipe is computed then, and the
            sources of recipes need no data, until the program is bound to other sources.

    Raises:
        CompileError: the graph can't be written as Python, or Inductor failed.
    """
    with _disable_current_modes(), torch.no_grad():
        return _Builder(graph, signature, settings, inspect, attached or {}, prepared).build()


@attrs.define(eq=False)
class _Builder:
    graph: Graph
    signature: Signature
    settings: Settings
    inspect: Inspect | None = None
    attached: Mapping[Node, Attached] = attrs.field(factory=dict)
    prepared: Mapping[str, Tensor] | None = None
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
        names = Names(parameters.names if parameters else ())
        module = Module(self._title(), names, self._without)
        self._write_bind(module, early, late)
        inspects = self.inspect is not None
        EntryWriter(module, self.graph, self.signature, parameters, late, cooked, inspects).write()
        namespace = module.run(self.graph.name)
        bind, refuse = namespace["bind"], Refusal(self.graph, self.signature)
        graphs = Graphs.of(self.graph, self.settings, late)
        if graphs is not None:
            bind = graphs.around(bind)

        def serve(forward: Callable[..., Any]) -> Callable[..., Any]:
            call: Callable[..., Any] = namespace["serve"](
                forward, alone(forward), refuse, self.inspect
            )
            return call

        def rebind(given: Mapping[str, Tensor]) -> Callable[..., Any]:
            with _disable_current_modes(), torch.no_grad():
                watch = Watch({c.name: given.get(c.name, c.data) for c in self._held()})
                return serve(watch.over(bind(self._bound(early, given))))

        if cooked:
            specializations = Specializations(self._specialize(bind, early, cooked))
            return Built(
                serve(specializations.forward), refuse, module.text(), specializations,
                graphs=graphs,
            )  # fmt: skip
        return Built(rebind({}), refuse, module.text(), rebind=rebind, graphs=graphs)

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
        is_compiled = self.settings.torch_backend == "inductor" and not segments_of(self.graph)
        compiles = self.settings.torch_backend == "inductor"
        layouts = layouts_of(self.graph)
        taken = ", ".join(scope.names[value] for value in (*self.graph.inputs, *late))
        with module.block("def bind(constants):"):
            for constant in early:
                text = f"constants[{constant.name!r}]"
                if constant.name in layouts and compiles:
                    text = f"restride({text}, {layouts[constant.name]!r})"
                elif is_compiled and not constant.is_source:
                    text += ".contiguous()"
                module.line(f"{scope.names[constant]} = {text}")
            self._write_attached(writer)
            self._write_outlined(writer)
            module.line()
            with module.block(f"def forward({taken}):"):
                if is_compiled:
                    self._write_compiled(writer, scope)
                else:
                    writer.graph(scope, self.plan)
                results = Boundary(writer, scope, roots_of(self.graph), not is_compiled).write()
                module.line(f"return {results[0] if len(results) == 1 else tuple_of(results)}")
            module.line()
            module.line("return forward")

    def _write_attached(self, writer: Writer) -> None:
        """What runs the segments of other backends, and the functions that stand in for it."""
        names, pairs = [], []
        for node, made in self.attached.items():
            (region,) = node.regions
            stand_in = writer.names.unique(f"{region.name}_in_torch")
            writer.module.line()
            writer.function(region, stand_in)
            name = writer.attached[node] = writer.names.unique(region.name)
            names.append(name)
            pairs.append(f"({writer.module.hold(region.name, made)}, {stand_in})")
        if names:
            writer.module.line()
            writer.module.line(f"{targets(names)} = bind_all(constants, {', '.join(pairs)})")

    def _write_outlined(self, writer: Writer) -> None:
        """A function for each segment that Inductor compiles."""
        for node in segments_of(self.graph):
            if node.attributes["backend"] != "inductor":
                continue
            made, (region,) = segment_program(node), node.regions
            scope = Scope(made.graph)
            taken = [writer.names.unique(value.hint or "value") for value in region.inputs]
            for value, index in zip(made.graph.inputs, made.inputs, strict=True):
                scope.names[value] = taken[index]
            for outside, parameter in zip(node.operands, taken, strict=True):
                if isinstance(outside, Constant) and outside.name in made.graph.constants:
                    scope.names[made.graph.constants[outside.name]] = parameter
            name = writer.attached[node] = writer.names.unique(region.name)
            inner = Writer(writer.module, writer.names)
            writer.module.line()
            with writer.module.block(f"def {name}({', '.join(taken)}):"):
                self._write_compiled(inner, scope)
                results = [scope.names[value] for value in made.graph.outputs]
                writer.module.line(f"return {tuple_of(results)}")

    def _write_compiled(self, writer: Writer, scope: Scope) -> None:
        """The call of what Inductor made of the scope's graph, its inputs made contiguous."""
        from rewright.backends.torch.inductor import Inductor, part_of, scalar_of

        graph = scope.graph
        what = self.plan if graph is self.graph else plan(graph)
        part = part_of(graph, self.arriving, layouts_of(self.graph))
        if not part.has_tensors:
            writer.graph(scope, what)
            return
        writer.bind_inputs(scope, {*part.sizes, *what.symbols})
        given = [scope.symbols[symbol] for symbol in part.sizes]
        given += [self._dense(scope, value, part) for value in graph.inputs]
        given += [
            scope.names[c] if self._is_laid_out(c, part) else self._dense(scope, c, part)
            for c in part.constants
        ]
        for value in part.values:
            scope.names[value] = writer.names.unique(value.hint or "value")
        for symbol in part.symbols:
            scope.symbols[symbol] = writer.names.unique(symbol.name)
        made = [*(scope.names[v] for v in part.values), *(scope.symbols[s] for s in part.symbols)]
        function = writer.module.hold("compiled", Inductor(part, self._options(), self._without))
        writer.module.line(f"{targets(made)} = {function}({', '.join(given)})")
        for value in graph.outputs:
            if node := scalar_of(value):
                scope.names[value] = writer.constant(scope, node.attributes["value"]).text

    @property
    def _without(self) -> frozenset[str]:
        return frozenset(self.settings.disabled_kernels)

    def _options(self) -> Mapping[str, Any]:
        """Inductor's options; graphs of its own would stand in the way of those of the program."""
        off = {} if self.settings.cuda_graphs == "off" else {"triton.cudagraphs": False}
        return {**self.settings.inductor_options, **off}

    def _is_laid_out(self, constant: Constant, part: Part) -> bool:
        """Whether a constant comes with the strides that Inductor was told of."""
        if constant.name in self.arriving:
            return False
        whole = self.graph.constants[constant.name] is constant
        return whole or constant in part.strides

    def _dense(self, scope: Scope, value: Value, part: Part) -> str:
        """A value in the layout that Inductor was told of."""
        name = scope.names[value]
        if value in part.strides:
            return f"restride({name}, {part.strides[value]!r})"
        return f"{name}.contiguous()" if isinstance(value.type, TensorType) else name

    # -- constants

    def _baked(self) -> list[Constant]:
        """The sources that something is computed or built from before a call."""
        return [*dict.fromkeys((*recipe_sources(self.graph), *self._built_from()))]

    def _built_from(self) -> list[Constant]:
        """The sources that other backends build from."""
        names = {name for made in self.attached.values() for name in made.constant_names}
        return [c for c in self.graph.constants.values() if c.name in names and c.is_source]

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

    def _held(self) -> list[Constant]:
        """The sources whose numbers a program keeps from before a call: edits don't reach it."""
        moved = (
            c
            for c in self.plan.constants
            if c.is_source and c.data is not None and not self._is_here(c, c.data)
        )
        return [*dict.fromkeys((*self._baked(), *moved))]

    def _bound(self, early: Sequence[Constant], given: Mapping[str, Tensor]) -> dict[str, Any]:
        """The tensors of the constants that a program keeps: sources as they are, and prepared.

        Args:
            early: the constants that are no arguments.
            given: other tensors for some sources.
        """
        known, self.prepared = self.prepared, None
        baked = self._baked() if known is None else self._built_from()
        needed = {c.name: c for c in (*early, *baked) if c.is_source}
        sources = {
            name: self._placed(constant, given.get(name, constant.data))
            for name, constant in needed.items()
        }
        if not self.graph.has_recipes:
            return sources
        if known is not None:
            constants = self.graph.constants
            return sources | {n: self._placed(constants[n], data) for n, data in known.items()}
        if not self.arriving:
            record(specializations=1)
        return sources | prepare(self.graph, sources)

    def _placed(self, constant: Constant, data: Tensor | None) -> Tensor:
        """The tensor of a source: never a copy, unless it lives on another device."""
        if data is None:
            raise CompileError(
                f"the constant @{constant.name} has no data",
                hint="bind its data before compiling, or pass it as an argument",
            )
        data = data.detach() if data.requires_grad else data
        return data if self._is_here(constant, data) else data.to(self._device(constant))

    def _is_here(self, constant: Constant, data: Tensor) -> bool:
        # One without data is read by nothing but segments that never run here.
        return data.is_meta or same_device(data.device, self._device(constant))

    def _device(self, constant: Constant) -> torch.device:
        """Where the program has a constant."""
        elsewhere = constant.type.device if isinstance(constant.type, TensorType) else None
        return torch.device(elsewhere or self.graph.device)
