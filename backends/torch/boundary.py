"""The end of a program: what the caller gets beyond numbers, and what is written back.

Values have no memory, but a caller sees it. So, in this order,

1. an output that eager returns as a tensor of its own is copied if it shares memory with an
   input, a constant or another output, and brought to eager's strides if it has others;
2. values are written back into inputs and buffers, copied before if a write could change them;
   those that were computed there (:mod:`rewright.ir.in_place`) are there already;
3. an output that eager returns as an alias is made by the same views from what it aliases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from rewright.backends.torch.codegen import Argument, Scope, Writer
from rewright.backends.torch.liveness import is_computed
from rewright.backends.torch.source import literal, tuple_of
from rewright.ir.aliasing import Roots
from rewright.ir.graph import Graph, ResultSpec, Value, ViewStep
from rewright.ir.memory import memory_of
from rewright.ir.ops import call
from rewright.ir.types import TensorType


@attrs.define(eq=False)
class Boundary:
    """Writes the end of a program.

    Attributes:
        writer: writes the function that it is the end of.
        scope: the names of the graph's values, all computed.
        roots: whose memory each value may use.
        is_in_place: whether nodes were computed in the memory that they may take.
    """

    writer: Writer
    scope: Scope
    roots: Roots
    is_in_place: bool = True
    _outputs: dict[int, str] = attrs.field(factory=dict, init=False)

    @property
    def graph(self) -> Graph:
        """The graph whose end this is."""
        return self.scope.graph

    def write(self) -> list[str]:
        """Writes it all; returns the names of the outputs."""
        self.writer.heading("results")
        specs = [*enumerate(self.graph.results)]
        for number, spec in specs:
            if is_computed(spec):
                self._outputs[number] = self._fresh(number, spec)
        self._write_back()
        for number, spec in specs:
            if not is_computed(spec):
                self._outputs[number] = self._alias(spec)
        return [self._outputs[number] for number, _ in specs]

    # -- outputs of their own

    def _fresh(self, number: int, spec: ResultSpec) -> str:
        value = self.graph.outputs[number]
        name = self.scope.names[value]
        if not isinstance(value.type, TensorType):
            return name
        name = self._copied(name, value, self._neighbours(number))
        return self._restrided(name, value.type, spec)

    def _neighbours(self, number: int) -> dict[str, Value]:
        """What an output may not share memory with: inputs, constants, earlier outputs."""
        roots = self.roots[self.graph.outputs[number]]
        outside = (*self.graph.inputs, *self.graph.constants.values())
        near = {self.scope.names[root]: root for root in outside if root in roots}
        for earlier, name in self._outputs.items():
            if self._group(earlier) != self._group(number):
                near[name] = self.graph.outputs[earlier]
        return near

    def _group(self, number: int) -> int:
        """The first of the outputs that eager lets share memory with this one."""
        shared = self.graph.results[number].shares
        return number if shared is None else self._group(shared)

    def _copied(self, name: str, value: Value, near: Mapping[str, Value]) -> str:
        """`value`, copied where it shares memory with one of `near`; its name."""
        rivals = [n for n, other in near.items() if self._may_share(value, other)]
        if not rivals:
            return name
        copy = self.writer.names.unique(f"{name}_own")
        if any(near[rival] is value for rival in rivals):
            self.writer.module.line(f"{copy} = {name}.clone()")
        else:
            test = " or ".join(f"_is_alias_of({name}, {rival})" for rival in rivals)
            self.writer.module.line(f"{copy} = {name}.clone() if {test} else {name}")
        return copy

    def _may_share(self, a: Value, b: Value) -> bool:
        return not self.roots[a].isdisjoint(self.roots[b])

    def _restrided(self, name: str, value_type: TensorType, spec: ResultSpec) -> str:
        """An output at eager's strides; None in the spec means contiguous ones."""
        line = self.writer.module.line
        if value_type.rank == 0:
            return name
        if spec.strides is None and not _has_ones(value_type):
            with self.writer.module.block(f"if not {name}.is_contiguous():"):
                line(f"{name} = {name}.contiguous()")
            return name
        strides = spec.strides or _contiguous(value_type)
        text = tuple_of(literal(s, self.writer.module, self.scope.symbols) for s in strides)
        with self.writer.module.block(f"if {name}.stride() != {text}:"):
            line(f"{name} = restride({name}, {text})")
        return name

    # -- write-backs

    def _write_back(self) -> None:
        known = [(pair, self._is_there(*pair)) for pair in self.graph.writebacks]
        pending = [(*pair, there) for pair, there in known if there is not True]
        targets = {self.scope.names[target]: target for target, *_ in pending}
        copies = []
        for target, value, there in pending:
            mine = self.scope.names[target]
            rivals = {n: t for n, t in targets.items() if n != mine or there is False}
            copies.append((mine, self._copied(self.scope.names[value], value, rivals), there))
        for name, made, there in copies:
            if there is None:
                with self.writer.module.block(f"if not _is_alias_of({made}, {name}):"):
                    self.writer.module.line(f"{name}.copy_({made})")
            else:
                self.writer.module.line(f"{name}.copy_({made})")

    def _is_there(self, target: Value, value: Value) -> bool | None:
        """Whether a value is in the memory that it is to be written to; None: torch knows."""
        if target is value or not self.is_in_place:
            return target is value
        place = memory_of(self.graph).places.get(value)
        if place is None or place.root is not target or place.steps:
            return False
        return True if place.sure else None

    # -- aliases

    def _alias(self, spec: ResultSpec) -> str:
        base = spec.alias
        if isinstance(base, int):
            name, value = self._outputs[base], self.graph.outputs[base]
        else:
            assert base is not None
            name, value = self.scope.names[base], base
        if not spec.views:
            return name
        sample = self.writer.sample(self.scope, value.type, 0)
        view = Argument(name, sample)
        for step in spec.views:
            view = self._view(view, step)
        alias = self.writer.names.unique(f"{name}_view")
        self.writer.module.line(f"{alias} = {view.text}")
        return alias

    def _view(self, base: Argument, step: ViewStep) -> Argument:
        """One view of the chain: its source, and what it makes of the sample."""
        rest = {n: self.writer.constant(self.scope, v) for n, v in step.attributes.items()}
        first = step.op.params[0].name
        text = self.writer.call(step.op, {first: base, **rest})
        made = call(step.op, {first: base.sample, **{n: a.sample for n, a in rest.items()}})
        if isinstance(made, Sequence):
            return Argument(f"{text}[{step.pick}]", made[step.pick])
        return Argument(text, made)


def _has_ones(value_type: TensorType) -> bool:
    """Whether the shape is known, and has dims whose strides ``is_contiguous`` overlooks."""
    return value_type.is_static and any(dim in (0, 1) for dim in value_type.shape)


def _contiguous(value_type: TensorType) -> tuple[int, ...]:
    """The strides of a contiguous tensor of a static shape, as torch counts them."""
    strides = []
    stride = 1
    for size in reversed(value_type.shape):
        strides.append(stride)
        stride *= max(int(size), 1)
    return tuple(reversed(strides))
