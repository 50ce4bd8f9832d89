"""A whole graph compiled by Inductor.

Inductor is given what the program's end needs: the outputs that are no aliases, the values that
are written back, and sizes that only the graph knows. Constants stay inputs, so that none is
copied. Options hold for one compile, and never globally.

Inductor may assume more of a size than its range says ("is not 1"). Torch's own callers guard
for that; whoever calls it alone has to. So every variant knows what was assumed, and a call with
other sizes makes another variant. Of a float Inductor can assume nothing: where it asks how large
one is, or would round it, a variant is for one number.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import sympy
import torch

from rewright.backends.torch.implementations import implementation_of
from rewright.backends.torch.kernels.ahead import load_triton
from rewright.backends.torch.layouts import entered, layouts_of
from rewright.backends.torch.liveness import is_computed, plan, spec_symbols
from rewright.caller import warn
from rewright.errors import CompileError, FallbackWarning
from rewright.ir.builder import Builder
from rewright.ir.copying import copy_with_map
from rewright.ir.fx_export import constant_inputs, size_inputs, to_fx
from rewright.ir.graph import Constant, Graph, Node, SymbolInfo, Value
from rewright.ir.ops import SCALAR
from rewright.ir.sizes import Range, to_python
from rewright.ir.types import ScalarType, TensorType

DEFAULTS: Final[Mapping[str, Any]] = {
    "fallback_random": True,
    "pattern_matcher": False,
    "triton.autotune_at_compile_time": False,
}
"""Options that every compile starts from; ``inductor_options`` has the last word.

* Random numbers are eager's.
* Patterns are matched by our passes alone. Inductor's took a tenth of the U-Net's compile and made
  none of five programs faster that had been through ours.
* Kernels are timed when they first run, as under ``torch.compile``. Torch's API for one graph would
  time them while the source is written, and so compile one after another instead of side by side.
"""

_VARIANTS: Final = 16
"""So many variants are made for one graph, before sizes are taken one by one. Where each is for one
float, the last so many are kept."""

_FEW: Final = 4
"""With so many variants for one float each, the user hears of it."""

_FLOAT: Final = 0.5
"""What a float is taken for before the first call, where Inductor asks how large it is."""

_compiling: Final = threading.RLock()


def start_workers(device: str) -> None:
    """Starts the processes that Inductor compiles kernels in, where it does so for `device`.

    They take seconds to be there, and until then it compiles one kernel after another; so what
    comes before Inductor in a compile goes on while they start. Torch does the same when its own
    backend is called.
    """
    if device.partition(":")[0] != "cpu":
        with contextlib.suppress(ImportError):  # no public name
            from torch._inductor.async_compile import maybe_warm_pool

            maybe_warm_pool()
        load_triton()


@attrs.frozen(eq=False)
class Part:
    """The part of a graph that Inductor compiles, and how it is called.

    Attributes:
        graph: a copy, with the outputs that are needed.
        sizes: the sizes that it takes first.
        inputs: the inputs of the original, which it takes next.
        constants: the constants that it takes last, after the inputs: those of the original.
        strides: of the constants and inputs (of the original) whose memory is stated; the others
            are passed contiguous.
        values: the values of the original that it returns.
        symbols: the sizes that it returns after them.
    """

    graph: Graph
    sizes: tuple[sympy.Symbol, ...]
    inputs: tuple[Value, ...]
    constants: tuple[Constant, ...]
    strides: Mapping[Value, tuple[int, ...]]
    values: tuple[Value, ...]
    symbols: tuple[sympy.Symbol, ...]

    @property
    def has_tensors(self) -> bool:
        """Whether it returns any; Inductor takes nothing else."""
        return any(isinstance(value.type, TensorType) for value in self.values)


def part_of(
    graph: Graph, arriving: Collection[str], layouts: Mapping[str, tuple[int, ...]] | None = None
) -> Part:
    """What Inductor is given of `graph`.

    Args:
        graph: a whole program.
        arriving: the names of the sources that come with each call, in memory of any layout.
        layouts: the strides of prepared constants, by name, where they are known.
    """
    known = layouts_of(graph) if layouts is None else layouts
    values = [v for v, spec in zip(graph.outputs, graph.results, strict=True) if is_computed(spec)]
    values += [value for target, value in graph.writebacks if target is not value]
    stated = [node for value in values if (node := scalar_of(value))]
    values = [v for v in dict.fromkeys(values) if v.producer and not scalar_of(v)]
    wanted = spec_symbols(graph.results).union(*(node.attributes.symbols() for node in stated))
    symbols = [s for s in graph.symbols if s in wanted and graph.symbols[s].binding.producer]
    copy, copies = copy_with_map(graph)
    build = Builder(copy)
    made = [build.call(SCALAR, symbol, types=[ScalarType("int", symbol)]) for symbol in symbols]
    copy.set_outputs([*(copies[value] for value in values), *made])
    inputs = entered(copy)
    running = {*plan(copy).nodes}
    copy.erase([node for node in copy if node not in running])
    originals = {copies[c]: c for c in graph.constants.values()}
    constants = tuple(originals[c] for c in constant_inputs(copy))
    strides: dict[Value, tuple[int, ...]] = {
        c: c.data.stride() for c in constants if c.data is not None and c.name not in arriving
    }
    strides |= {c: known[c.name] for c in constants if c.name in known}
    strides |= {graph.inputs[number]: order for number, order in inputs.items()}
    for constant in copy.constants.values():  # they come with each call, and may be replaced
        constant.data = None
    return Part(
        copy,
        size_inputs(copy),
        tuple(graph.inputs),
        constants,
        strides,
        tuple(values),
        tuple(symbols),
    )


def scalar_of(value: Value) -> Node | None:
    """The node that states `value`, where it is a number, a size or None."""
    node = value.producer
    return node if node is not None and node.op is SCALAR else None


class Inductor:
    """A part of a graph, compiled; and compiled again where sizes break what was assumed.

    Called with the sizes, inputs and constants of the part; returns its values and sizes.

    Args:
        part: what to compile.
        options: of Inductor, by name.
        without: the kernels that it may not call, by name.

    Raises:
        CompileError: Inductor can't.
    """

    def __init__(
        self, part: Part, options: Mapping[str, Any], without: Collection[str] = ()
    ) -> None:
        self._part = part
        self._without = without
        self._options = {**DEFAULTS, **options}
        self._fixes_floats = bool(_floats(part.sizes)) and _has_doubles(part.graph)
        self._variants: list[_Variant] = [
            self._compile(part.graph, dict.fromkeys(_floats(part.sizes), _FLOAT))
        ]

    def __call__(self, *args: Any) -> Sequence[Any]:
        """Runs the variant that fits the sizes."""
        sizes = args[: len(self._part.sizes)]
        for variant in self._variants:
            if variant.fits(sizes):
                return variant.run(*args)
        return self._for(sizes).run(*args)

    def __len__(self) -> int:
        return len(self._variants)

    def _for(self, sizes: Sequence[Any]) -> _Variant:
        """A new variant, for `sizes` (floats among them) and whatever else it is good for."""
        with _compiling:
            for variant in self._variants:  # another thread may have made it
                if variant.fits(sizes):
                    return variant
            fixed = len(self._variants) >= _VARIANTS and not self._fixes_floats
            given = dict(zip(self._part.sizes, sizes, strict=True))
            floats = {symbol: given[symbol] for symbol in _floats(self._part.sizes)}
            made = self._compile(_typical_at(self._part, given, fixed), floats)
            kept = self._variants
            if self._fixes_floats:  # there is no end of them
                if len(kept) == _FEW:
                    _warn_of_floats(self._part)
                kept = kept[-_VARIANTS + 1 :]
            self._variants = [*kept, made]
            return made

    def _compile(self, graph: Graph, floats: Mapping[sympy.Symbol, float]) -> _Variant:
        with _compiling:
            try:
                return self._compile_for(graph, floats)
            except Exception as error:
                raise CompileError(
                    f"Inductor can't compile @{graph.name}: {_first_line(error)}",
                    hint="compile with torch_backend='eager'",
                ) from error

    def _compile_for(self, graph: Graph, floats: Mapping[sympy.Symbol, float]) -> _Variant:
        """A variant for any floats; for `floats` where Inductor asks how large they are."""
        if not self._fixes_floats:
            try:
                return _compiled(graph, {}, self._part, self._options, self._without)
            except Exception as error:
                if not floats:
                    raise
                with contextlib.suppress(Exception):
                    made = _compiled(graph, floats, self._part, self._options, self._without)
                    self._fixes_floats = True
                    return made
                raise error from None
        return _compiled(graph, floats, self._part, self._options, self._without)


@attrs.frozen(eq=False)
class _Variant:
    """One result of Inductor's.

    Attributes:
        run: takes the sizes, inputs and constants.
        fits: whether it is right for given sizes.
        assumed: what it takes for granted of sizes, in words.
    """

    run: Callable[..., Sequence[Any]]
    fits: Callable[[Sequence[int]], bool]
    assumed: tuple[str, ...]


def _compiled(
    graph: Graph,
    floats: Mapping[sympy.Symbol, float],
    part: Part,
    options: Mapping[str, Any],
    without: Collection[str],
) -> _Variant:
    def function_of(node: Node) -> Callable[..., Any] | None:
        """What torch computes `node` by: Inductor has kernels for that, not for a reference."""
        found = implementation_of(node.op, node, "inductor", without)
        return found.function if found is not None else None

    # Importing Inductor takes a second, which a program that it doesn't compile shall not pay.
    from rewright.backends.torch.inductor_entry import compile_fx_module

    module = to_fx(graph, constants="inputs", sizes="inputs", function_of=function_of, fixed=floats)
    placeholders = module.graph.find_nodes(op="placeholder")
    for constant, node in zip(reversed(part.constants), reversed(placeholders), strict=False):
        if constant in part.strides:
            _lay_out(node, part.strides[constant])
    for value, node in zip(part.inputs, placeholders[len(part.sizes) :], strict=False):
        if value in part.strides:
            _lay_out(node, part.strides[value])
    again = _split_shared(module)
    examples = [node.meta["val"] for node in module.graph.find_nodes(op="placeholder")]
    symbols = tuple(
        symbol if symbol in floats else size.node.expr
        for symbol, size in zip(part.sizes, examples, strict=False)
    )
    compiled = compile_fx_module(module, examples, options)

    def run(*args: Any) -> Sequence[Any]:
        return compiled(*args, *(args[number] for number in again))

    conditions = [to_python(condition) for condition in _assumed(examples, symbols)]
    conditions += [f"repr({s.name}) == '{number!r}'" for s, number in floats.items()]
    return _Variant(run, _predicate(conditions, symbols), tuple(conditions))


def _split_shared(module: torch.fx.GraphModule) -> list[int]:
    """Gives every mask of ``flex_attention`` inputs of its own, where our passes merged equal ones.

    Inductor's kernel for the CPU declares each by the name of its buffer, and two of one buffer
    once; then it doesn't compile.

    Returns:
        The numbers of the inputs that `module` takes again, after all others.
    """
    target = torch.ops.higher_order.flex_attention
    inputs = module.graph.find_nodes(op="placeholder")
    again: list[int] = []
    for node in module.graph.find_nodes(op="call_function", target=target):
        seen: set[torch.fx.Node] = set()

        def own(argument: torch.fx.Node, seen: set[torch.fx.Node] = seen) -> torch.fx.Node:
            if argument not in seen or argument not in inputs:
                seen.add(argument)
                return argument
            again.append(inputs.index(argument))
            with module.graph.inserting_after(module.graph.find_nodes(op="placeholder")[-1]):
                copy = module.graph.placeholder(f"{argument.name}_{len(again)}")
            fake = argument.meta["val"]
            copy.meta.update(argument.meta)
            _lay_out(copy, fake.stride())  # anew: a tracer knows tensors apart as objects
            return copy

        node.args = torch.fx.map_arg(node.args, own)
    if again:
        module.recompile()
    return again


def _lay_out(node: torch.fx.Node, strides: Sequence[int]) -> None:
    """Gives a placeholder these strides, and a fake tensor of its own."""
    fake = node.meta["val"]
    with fake.fake_mode:
        made = torch.empty_strided(fake.shape, strides, dtype=fake.dtype, device=fake.device)
    node.meta["val"] = node.meta["example_value"] = made


def _assumed(examples: Sequence[Any], symbols: Sequence[sympy.Symbol]) -> list[sympy.Basic]:
    """What torch noted in the ShapeEnv of `examples` about `symbols`."""
    sizes = (size for size in examples[: len(symbols)] if isinstance(size, torch.SymInt))
    env = next((size.node.shape_env for size in sizes), None)
    conditions = (guard.expr for guard in env.guards) if env is not None else ()
    return [c for c in conditions if c.free_symbols and c.free_symbols <= {*symbols}]


def _predicate(
    conditions: Sequence[str], symbols: Sequence[sympy.Symbol]
) -> Callable[[Sequence[int]], bool]:
    """Whether `conditions` (Python source) hold for sizes."""
    names = ", ".join(f"{symbol.name}" for symbol in symbols)
    test = " and ".join(conditions) or "True"
    made: Callable[..., bool] = eval(f"lambda {names}: {test}", {"math": math})
    return lambda sizes: made(*sizes)


def _has_doubles(graph: Graph) -> bool:
    """Whether anything is in 64 bits: Inductor hands floats to its kernels in 32."""
    types = (v.type for node in graph.walk() for v in (*node.operands, *node.results))
    doubles = (torch.float64, torch.complex128)
    return any(isinstance(kind, TensorType) and kind.dtype in doubles for kind in types)


def _warn_of_floats(part: Part) -> None:
    names = ", ".join(symbol.name for symbol in _floats(part.sizes))
    warn(
        f"Inductor has to know how large a float of @{part.graph.name} is ({names}), and compiles "
        "the graph for each number anew: pass a tensor in its place, or compile with "
        "torch_backend='eager'",
        FallbackWarning,
    )


def _floats(symbols: Iterable[sympy.Symbol]) -> list[sympy.Symbol]:
    return [symbol for symbol in symbols if not symbol.is_integer]


def _typical_at(part: Part, sizes: Mapping[sympy.Symbol, int], fixed: bool) -> Graph:
    """A copy of the part's graph, with `sizes` as the typical ones, or the only ones."""
    graph = part.graph.copy()
    for symbol, size in sizes.items():
        if not symbol.is_integer:
            continue
        info = graph.symbols[symbol]
        known = (
            (Range(size, size, size),) if fixed else tuple(_around(r, size) for r in info.ranges)
        )
        graph.symbols[symbol] = SymbolInfo(known, info.binding, info.dim)
    return graph


def _around(known: Range, size: int) -> Range:
    return attrs.evolve(known, opt=size) if size in known else known


def _first_line(error: Exception) -> str:
    """What torch says; of an error whose text is no sentence (a KeyError's), its class too."""
    line = next(iter(str(error).strip().splitlines()), "")
    return line if " " in line else f"{type(error).__name__}: {line}"
