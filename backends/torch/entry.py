"""The way into a program: arguments taken apart and checked, results put together.

    def call(x, *, mask):
        try:
            s0, x_1 = x.shape
            fits = (
                type(x) is Tensor
                and x.dtype is torch.float32
                and ...
            )
        except Exception:
            fits = False
        if not fits:
            x, mask = refuse((x,), {"mask": mask})
        ...

The model's own signature is Python's to bind; the checks are a few comparisons in one
expression. Whatever they don't like goes to :mod:`~rewright.backends.torch.refusal`, which says
why or lets it pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from keyword import iskeyword

import attrs
import sympy
import torch

from rewright.backends.torch.source import Module, Names, targets, tuple_of
from rewright.backends.torch.symbols import in_order, range_of, solution
from rewright.backends.torch.trees import Unpacker, build, children
from rewright.ir.graph import Constant, Graph, Value
from rewright.ir.signature import Signature
from rewright.ir.sizes import to_python
from rewright.ir.types import ScalarType, TensorType


@attrs.frozen
class Parameters:
    """The parameters of the generated function.

    Attributes:
        positional: names of those given by position.
        by_position_only: how many of them have no name that a caller knows.
        named: those given by name only.
    """

    positional: tuple[str, ...]
    by_position_only: int
    named: tuple[str, ...]

    @classmethod
    def of(cls, signature: Signature) -> Parameters | None:
        """The parameters of `signature`; None where Python can't spell them all."""
        if signature.in_spec is None:
            names = Names()
            flat = tuple(names.unique(argument.name) for argument in signature.arguments)
            return cls(flat, len(flat), ())
        positional, named = children(signature.in_spec)
        count = positional.num_children
        known = signature.parameter_names[:count]
        if not all(map(_is_parameter, (*known, *named.context))):
            return None
        if len(known) < count:  # then Python allows no names before those that have none
            names = Names([*known, *named.context])
            known = tuple(names.unique(f"arg{index}") for index in range(count))
            return cls(known, count, tuple(named.context))
        return cls(tuple(known), 0, tuple(named.context))

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.positional, *self.named)

    def text(self) -> str:
        """As they stand in a ``def``."""
        parts = [*self.positional]
        if self.by_position_only:
            parts.insert(self.by_position_only, "/")
        if self.named:
            parts += ["*", *self.named]
        return ", ".join(parts)


def _is_parameter(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and not iskeyword(name)


@attrs.define(eq=False)
class EntryWriter:
    """Writes ``serve``, which makes the function that callers call.

    Attributes:
        module: what it is written to; its names know those of the parameters.
        graph, signature: the program.
        parameters: of the function; None lets it take anything, and check it the slow way.
        late: the constants that arrive with each call, in the order in which ``forward`` takes
            them.
        cooked: those that recipes are made of; where there are any, ``forward`` takes a tuple of
            them first.
        inspects: whether ``inspect`` is to see the flat arguments once they fit.
    """

    module: Module
    graph: Graph
    signature: Signature
    parameters: Parameters | None
    late: Sequence[Constant] = ()
    cooked: Sequence[Constant] = ()
    inspects: bool = False
    names: Names = attrs.field(init=False)
    tests: list[str] = attrs.field(factory=list, init=False)
    leaves: list[str] = attrs.field(factory=list, init=False)
    symbols: dict[sympy.Symbol, str] = attrs.field(factory=dict, init=False)
    _fixed: dict[str, str] = attrs.field(init=False)

    @names.default
    def _local(self) -> Names:
        return Names(self._parameter_names())

    @_fixed.default
    def _own_names(self) -> dict[str, str]:
        return {name: self.names.unique(name) for name in _OWN}

    def _parameter_names(self) -> tuple[str, ...]:
        return self.parameters.names if self.parameters else ("args", "kwargs")

    def write(self) -> None:
        """The whole of ``serve``."""
        self.module.line()
        self.module.line()
        given = ", ".join(self._fixed[name] for name in _OWN[:4])
        with self.module.block(f"def serve({given}):"):
            parameters = self.parameters.text() if self.parameters else "*args, **kwargs"
            with self.module.block(f"def call({parameters}):"):
                if self.parameters:
                    self._check(self.parameters)
                else:
                    self._refuse("args, kwargs")
                if self.inspects:
                    self.module.line(f"{self._fixed['inspect']}({tuple_of(self.leaves)})")
                self._forward()
            self.module.line()
            self.module.line("return call")

    def _spell(self, name: str) -> str:
        """How to write a reserved name where a parameter may have it."""
        hidden = name in self._parameter_names()
        return self.module.define(name, name) if hidden else name

    def _refuse(self, arguments: str) -> None:
        """Checks the arguments once more, in words."""
        if not self.leaves:
            self.leaves = [self.names.unique(a.name) for a in self.signature.arguments]
        call = f"{self._fixed['refuse']}({arguments})"
        self.module.line(f"{targets(self.leaves)} = {call}" if self.leaves else call)

    def _check(self, own: Parameters) -> None:
        line, block, fits = self.module.line, self.module.block, self._fixed["fits"]
        with block("try:"):
            self._unpack(own)
            self._test_arguments()
            self._test_sizes()
            line(f"{fits} = (")
            for number, test in enumerate(self.tests or ["True"]):
                line(f"    and {test}" if number else f"    {test}")
            line(")")
        with block(f"except {self._spell('Exception')}:"):
            line(f"{fits} = False")
        with block(f"if not {fits}:"):
            named = ", ".join(f"{name!r}: {name}" for name in own.named)
            self._refuse(f"{tuple_of(own.positional)}, {{{named}}}")

    def _unpack(self, own: Parameters) -> None:
        if self.signature.in_spec is None:
            self.leaves = [*own.positional]
            return
        unpacker = Unpacker(self.module, self.names, self._spell, self.tests, self.leaves)
        positional, named = children(self.signature.in_spec)
        for spec, name in zip(children(positional), own.positional, strict=True):
            unpacker.unpack(spec, name)
        for spec, name in zip(children(named), own.named, strict=True):
            unpacker.unpack(spec, name)

    def _inputs(self) -> list[tuple[str, Value]]:
        """The name and graph input of every argument that has one."""
        pairs = zip(self.leaves, self.signature.arguments, strict=True)
        return [(n, self.graph.inputs[a.input]) for n, a in pairs if a.input is not None]

    def _test_arguments(self) -> None:
        """One argument at a time, without its sizes; whether gradients are asked for at last."""
        trainable = []
        for name, argument in zip(self.leaves, self.signature.arguments, strict=True):
            if argument.input is not None:
                value_type = self.graph.inputs[argument.input].type
                if isinstance(value_type, TensorType):
                    self.tests += self._tensor_tests(name, value_type)
                    if value_type.dtype.is_floating_point or value_type.dtype.is_complex:
                        trainable.append(f"{name}.requires_grad")
                elif isinstance(value_type, ScalarType):
                    kind = self._spell(value_type.kind)
                    self.tests.append(f"{self._spell('type')}({name}) is {kind}")
            elif argument.constant is None:
                self.tests.append(self._literal_test(name, argument.literal))
        if trainable:
            asked = trainable[0] if len(trainable) == 1 else f"({' or '.join(trainable)})"
            self.tests.append(f"not ({self._spell('is_grad_enabled')}() and {asked})")

    def _tensor_tests(self, name: str, expected: TensorType) -> list[str]:
        dtype, strided = str(expected.dtype), "torch.strided"
        return [
            f"{self._spell('type')}({name}) is {self._spell('Tensor')}",
            f"{name}.dtype is {self.module.define(dtype.removeprefix('torch.'), dtype)}",
            f"{name}.layout is {self.module.define('strided', strided)}",
            self._device_test(name, torch.device(expected.device or self.graph.device)),
        ]

    def _device_test(self, name: str, device: torch.device) -> str:
        if device.type == "cpu":
            return f"{name}.is_cpu"
        if device.type == "cuda":
            return f"{name}.is_cuda and {name}.get_device() == {device.index or 0}"
        return f"{name}.device == {self.module.define('device', f'torch.device({str(device)!r})')}"

    def _literal_test(self, name: str, value: object) -> str:
        if value is None or isinstance(value, bool):
            return f"{name} is {value}"
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return f"{name} is {self.module.define(str(value), str(value))}"
        if isinstance(value, int | str) or (isinstance(value, float) and value):
            kind = self._spell(type(value).__name__)
            return f"{self._spell('type')}({name}) is {kind} and {name} == {value!r}"
        return "False"  # whatever else it may be is compared in words

    # -- sizes

    def _test_sizes(self) -> None:
        """Shapes are taken apart into sizes; then each size is checked."""
        held: list[tuple[str, object]] = []
        places: dict[tuple[Value, int | None], str] = {}
        for name, value in self._inputs():
            if isinstance(value.type, TensorType):
                self._take_shape(name, value, value.type, held, places)
            elif isinstance(value.type, ScalarType) and value.type.expr is not None:
                places[value, None] = name
                held.append((name, value.type.expr))
        given = [s for s, i in self.graph.symbols.items() if (i.binding, i.dim) in places]
        for symbol in in_order(self.graph, given):
            info = self.graph.symbols[symbol]
            size = places[info.binding, info.dim]
            text = solution(info, symbol, size, self.symbols)
            if text != size:
                self.symbols[symbol] = self.names.unique(symbol.name)
                self.module.line(f"{self.symbols[symbol]} = {text}")
            else:
                self.symbols[symbol] = size
        self._test_ranges(given)
        for size, expr in held:
            self._test_size(size, expr)

    def _take_shape(
        self,
        name: str,
        value: Value,
        value_type: TensorType,
        held: list[tuple[str, object]],
        places: dict[tuple[Value, int | None], str],
    ) -> None:
        """Names for the sizes of a tensor; a static shape is compared at once."""
        if value_type.is_static:
            shape = tuple_of(str(dim) for dim in value_type.shape)
            self.tests.append(f"{name}.shape == {shape}")
            return
        sizes = [self.names.unique(f"{name}_{dim}") for dim in range(value_type.rank)]
        self.module.line(f"{targets(sizes)} = {name}.shape")
        held += zip(sizes, value_type.shape, strict=True)
        for dim, size in enumerate(sizes):
            places[value, dim] = size

    def _test_ranges(self, given: Sequence[sympy.Symbol]) -> None:
        for symbol in given:
            info, name = self.graph.symbols[symbol], self.symbols[symbol]
            known = range_of(info)
            low = known.min if info.dim is None or (known.min or 0) > 0 else None
            if low is not None and known.max is not None:
                self.tests.append(f"{low} <= {name} <= {known.max}")
            elif low is not None:
                self.tests.append(f"{name} >= {low}")
            elif known.max is not None:
                self.tests.append(f"{name} <= {known.max}")

    def _test_size(self, size: str, expr: object) -> None:
        """Whether a size is what the symbols make it; trivially true of one that gives one."""
        if isinstance(expr, sympy.Symbol) and self.symbols.get(expr) == size:
            return
        if not isinstance(expr, sympy.Basic):
            self.tests.append(f"{size} == {expr!r}")
        elif expr.free_symbols <= self.symbols.keys():
            self.tests.append(f"{size} == {to_python(expr, self.symbols)}")

    # -- the call

    def _forward(self) -> None:
        inputs: dict[int, str] = {}
        sources: dict[str, str] = {}
        for leaf, argument in zip(self.leaves, self.signature.arguments, strict=True):
            if argument.input is not None:
                inputs[argument.input] = leaf
            elif argument.constant is not None:
                sources[argument.constant] = leaf
        given = [inputs[index] for index in range(len(self.graph.inputs))]
        given += [sources[constant.name] for constant in self.late]
        if self.cooked:
            given.insert(0, tuple_of(sources[constant.name] for constant in self.cooked))
        alone = f"{self._spell('_is_any_autocast_enabled')}()"
        if sources:
            alone += f" or {self._spell('is_grad_enabled')}()"
        run = self.names.unique("run")
        forward, forward_alone = self._fixed["forward"], self._fixed["forward_alone"]
        self.module.line(f"{run} = {forward_alone} if {alone} else {forward}")
        self._return(f"{run}({', '.join(given)})")

    def _return(self, call: str) -> None:
        results = [self.names.unique("result") for _ in self.graph.outputs]
        if self.signature.out_spec is None:
            returned = f"[{', '.join(results)}]"
        else:
            returned = build(self.signature.out_spec, iter(results), self.module)
        as_computed = results[0] if len(results) == 1 else tuple_of(results)
        if returned == as_computed:
            self.module.line(f"return {call}")
            return
        if results:
            call = f"{as_computed if len(results) == 1 else targets(results)} = {call}"
        self.module.line(call)
        self.module.line(f"return {returned}")


_OWN = ("forward", "forward_alone", "refuse", "inspect", "fits")
"""Names that ``serve`` uses for itself, as far as no parameter has them."""
