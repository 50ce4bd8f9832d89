"""A graph as ATen-level FX: what other tools of torch's, Inductor first of all, take.

Ops of ours are calls of their references, segments stand inline, and every node carries what
torch's passes look for in its ``meta``: a fake value, the user's line, the module path.
"""

from __future__ import annotations

import itertools
import keyword
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import sympy
import torch
import torch.fx

from rewright.errors import InputError
from rewright.ir.attributes import Opaque, Operand, RegionRef
from rewright.ir.calls import flat_results, nests_results, returns_bare, torch_arguments
from rewright.ir.dispatched import dispatched_form
from rewright.ir.fakes import FakeWorld, example_sizes
from rewright.ir.fx_sizes import emit_size, emit_solution
from rewright.ir.graph import Constant, Graph, Node, SymbolInfo, Value
from rewright.ir.location import Location
from rewright.ir.ops import SCALAR, SEGMENT, call_args
from rewright.ir.sizes import Range


def to_fx(
    graph: Graph,
    *,
    constants: Literal["attributes", "inputs"] = "attributes",
    sizes: Literal["computed", "inputs"] = "computed",
    function_of: Callable[[Node], Callable[..., Any] | None] = lambda _: None,
    fixed: Mapping[sympy.Symbol, float] | None = None,
) -> torch.fx.GraphModule:
    """An FX module that computes what `graph` does.

    It takes the inputs of the graph in order, and returns a flat list: the outputs, then the
    values that are written back. It writes to nothing itself.

    ``meta["val"]`` of every node is a fake value of its type, all in one FakeTensorMode, where
    sizes have the typical value of their range as hint; strides are those of contiguous tensors.
    Symbols of a region count as those outside of the same name.

    Args:
        graph: a whole program, of any stage.
        constants: ``attributes``: sources are parameters and buffers of the module, and recipes
            are part of it. ``inputs``: :func:`constant_inputs` are taken after the inputs.
        sizes: ``computed``: sizes come from the shapes of inputs. ``inputs``:
            :func:`size_inputs` are taken, as ints, before the inputs; Inductor needs that where
            no input has a dimension that is just the symbol.
        function_of: for a node of ours, what computes it; None: its reference.
        fixed: symbols that are just a number in the module. Torch has no hints for floats, and
            can't tell how large another one is.

    Raises:
        InputError: a source has no data (with ``attributes``).
        UnsupportedError: a size is computed in a way that FX has no word for.
    """
    world = world_of(graph, fixed)
    root = torch.nn.Module()
    exporter = FxWriter(graph, torch.fx.Graph(), root, world, function_of)
    if sizes == "inputs":
        for symbol in size_inputs(graph):
            exporter.sizes[symbol] = exporter.placeholder(symbol.name, world.number(symbol))
    for value in graph.inputs:
        exporter.values[value] = exporter.input(value, value.hint or f"input_{value.index}")
    if constants == "inputs":
        for constant in constant_inputs(graph):
            exporter.values[constant] = exporter.input(constant, constant.name)
    else:
        exporter.hold_constants()
    exporter.fx.output(exporter.body())
    module = torch.fx.GraphModule(root, exporter.fx, graph.name)
    module.meta["rewright"] = graph.name
    return module


def constant_inputs(graph: Graph) -> tuple[Constant, ...]:
    """The constants that nodes of `graph` use, recipes not counted, in their order."""
    used = {value for node in (*graph, graph.terminator) for value in node.operands}
    return tuple(constant for constant in graph.constants.values() if constant in used)


def size_inputs(graph: Graph) -> tuple[sympy.Symbol, ...]:
    """The symbols that inputs of `graph` give, in the order of its table."""
    return tuple(symbol for symbol, info in graph.symbols.items() if info.binding.is_input)


def world_of(graph: Graph, fixed: Mapping[sympy.Symbol, float] | None = None) -> FakeWorld:
    """Fake values over the symbols of `graph` and all its regions, but for those `fixed`."""
    ranges: dict[sympy.Symbol, tuple[Range, ...]] = {}
    for region in (*(r for node in graph.walk() for r in node.regions), graph):
        ranges |= {symbol: info.ranges for symbol, info in region.symbols.items()}
    sizes = example_sizes(ranges, typical=True)
    return FakeWorld(ranges, ranges, graph.device, sizes, cached=True, fixed=fixed)


class FxWriter:
    """Writes one graph (a program, its recipes, a region) into one FX graph.

    Args:
        graph: what is written.
        fx: what it is written to.
        root: holds what nodes of `fx` get by name.
        world: where the fake values of ``meta`` live.
        function_of: as :func:`to_fx` takes it.

    Attributes:
        values: what stands for each value of `graph` that there is so far.
        sizes: what stands for each symbol.
    """

    def __init__(
        self,
        graph: Graph,
        fx: torch.fx.Graph,
        root: torch.nn.Module,
        world: FakeWorld,
        function_of: Callable[[Node], Callable[..., Any] | None],
    ) -> None:
        self.graph = graph
        self.function_of = function_of
        self.fx = fx
        self.root = root
        self.world = world
        self.values: dict[Value, Any] = {}
        self.sizes: dict[sympy.Symbol, Any] = {}
        self.loc: Location | None = None
        self._taken = {"self", "torch", "device", "inf", "nan", "pytree", "fx_pytree"}

    # -- nodes of FX

    def placeholder(self, name: str, val: Any) -> torch.fx.Node:
        """A parameter of the module's forward, called `name` or nearly so."""
        return self._described(self.fx.placeholder(self._unique(name)), val)

    def _unique(self, name: str) -> str:
        """`name` as a parameter of the module's forward, which no other one has."""
        stem = "".join(char if char.isalnum() else "_" for char in name)
        stem = stem if stem.isidentifier() and not keyword.iskeyword(stem) else f"_{stem}"
        numbered = (f"{stem}_{number}" for number in itertools.count(1))
        unique = next(name for name in itertools.chain([stem], numbered) if name not in self._taken)
        self._taken.add(unique)
        return unique

    def input(self, value: Value, name: str) -> torch.fx.Node:
        """The parameter that an input or constant of the graph becomes."""
        return self.placeholder(name, self.world.new(value.type))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Arithmetic on sizes: a node, or the number where all of `args` are."""
        if not any(isinstance(arg, torch.fx.Node) for arg in args):
            return function(*args)
        vals = [arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg for arg in args]
        return self._described(self.fx.call_function(function, args), function(*vals))

    def _described(self, node: torch.fx.Node, val: Any) -> torch.fx.Node:
        """Gives `node` its meta."""
        node.meta["val"] = node.meta["example_value"] = val
        if self.loc is not None:
            node.meta["rewright"] = str(self.loc)
            if self.loc.file:
                line = f'  File "{self.loc.file}", line {self.loc.line}, in forward\n'
                node.meta["stack_trace"] = line
            if self.loc.module:
                stack = {self.loc.module: (self.loc.module, "torch.nn.modules.module.Module")}
                node.meta["nn_module_stack"] = stack
        return node

    # -- constants

    def hold_constants(self) -> None:
        """Sources as attributes of the module, then the recipes."""
        graph = self.graph
        for constant in graph.constants.values():
            if constant.is_source and constant.uses:
                self.values[constant] = self._held(constant)
        if graph.has_recipes:
            recipes = FxWriter(graph.prepare, self.fx, self.root, self.world, self.function_of)
            recipes.values = self.values
            recipes.nodes()
            for name, value in zip(
                graph.prepare.prepared_names, graph.prepare.outputs, strict=True
            ):
                self.values[graph.constants[name]] = self.values[value]

    def _held(self, constant: Constant) -> torch.fx.Node:
        if constant.data is None:
            raise InputError(
                f"the constant @{constant.name} has no data",
                name=constant.name,
                hint="bind it, or take it as an input with constants='inputs'",
            )
        held = self.hold(constant.name, constant.data, constant.kind == "parameter")
        return self._described(held, self.world.new(constant.type))

    def hold(self, name: str, data: torch.Tensor, as_parameter: bool = False) -> torch.fx.Node:
        """`data` as a parameter or buffer of the module, called `name` (with dots: a path)."""
        *path, last = name.split(".")
        holder = self.root
        for part in path:
            if not hasattr(holder, part):
                holder.add_module(part, torch.nn.Module())
            holder = getattr(holder, part)
        if as_parameter:
            holder.register_parameter(last, torch.nn.Parameter(data, requires_grad=False))
        else:
            holder.register_buffer(last, data)
        return self.fx.get_attr(name)

    # -- nodes of the IR

    def body(self) -> list[Any]:
        """All nodes; returns what the graph returns."""
        self.nodes()
        return [self.values[value] for value in self.graph.terminator.operands]

    def nodes(self, wanted: Iterable[Node] | None = None) -> None:
        """All nodes, or those that are `wanted`, in order."""
        for node in self.graph if wanted is None else wanted:
            self.loc = node.loc
            for value, result in zip(node.results, self.node(node), strict=True):
                self.values[value] = result

    def node(self, node: Node) -> Sequence[Any]:
        """What stands for the results of `node`."""
        arguments = torch_arguments(
            node.attributes, lambda leaf: self._argument(node, leaf), self.opaque
        )
        if node.op is SCALAR:
            return [arguments["value"]]
        if node.op is SEGMENT:
            return self._inline(node.regions[0], arguments["operands"])
        types = [value.type for value in node.results]
        args, kwargs = call_args(node.op, arguments)
        given = self.function_of(node)
        dispatched = dispatched_form(node.op) if given is None else None
        target = given or dispatched or node.op.target
        if nests_results(node.op):
            target = _Flat(target)
        if node.op.is_torch or dispatched is not None:
            args, kwargs = as_lists(args), as_lists(kwargs)
        vals = [self.world.new(item) for item in types]
        made = self.fx.call_function(target, tuple(args), kwargs)
        if node.op.results == 1:
            return [self._described(made, vals[0])]
        self._described(made, tuple(vals))
        return [
            self._described(self.fx.call_function(operator.getitem, (made, index)), val)
            for index, val in enumerate(vals)
        ]

    def _argument(self, node: Node, leaf: Any) -> Any:
        if isinstance(leaf, Operand):
            return self.values[node.operands[leaf.index]]
        if isinstance(leaf, RegionRef):
            return self._region(node, leaf.index)
        if isinstance(leaf, sympy.Basic):
            return self.size(leaf)
        return leaf

    def opaque(self, opaque: Opaque) -> torch.fx.Node:
        """An object that FX has no literal for, as an attribute of the module."""
        return self._attribute("object", opaque.value)

    def _attribute(self, stem: str, held: Any) -> torch.fx.Node:
        """`held` as an attribute of the module, under a new name."""
        names = (f"{stem}_{number}" for number in itertools.count())
        name = next(name for name in names if not hasattr(self.root, name))
        setattr(self.root, name, held)
        return self.fx.get_attr(name)

    def size(self, expr: Any) -> Any:
        """A size expression as a node, or the number it is."""
        for symbol in sorted(expr.free_symbols, key=str):
            if symbol not in self.sizes:
                self.sizes[symbol] = self._solved(symbol, self.graph.symbols[symbol])
        return emit_size(expr, self.call, self.sizes)

    def _solved(self, symbol: sympy.Symbol, info: SymbolInfo) -> Any:
        """`symbol`, from the value that gives it."""
        held = self.values[info.binding]
        if info.dim is not None:
            held = self.call(torch.ops.aten.sym_size.int, held, info.dim)
        return emit_solution(info.equation, symbol, held, self.call, self.size)

    # -- regions

    def _inline(self, region: Graph, arguments: Sequence[Any]) -> list[Any]:
        inner = FxWriter(region, self.fx, self.root, self.world, self.function_of)
        inner.values = dict(zip(region.inputs, arguments, strict=True))
        inner.nodes()
        return [inner.values[value] for value in region.outputs]

    def _region(self, node: Node, number: int) -> torch.fx.Node:
        """A region as a submodule, which is how FX gives it to a higher-order operator."""
        region, root = node.regions[number], torch.nn.Module()
        inner = FxWriter(region, torch.fx.Graph(), root, self.world, self.function_of)
        for value in region.inputs:
            inner.values[value] = inner.input(value, value.hint or f"input_{value.index}")
        returned = inner.body()
        inner.fx.output(returned[0] if returns_bare(node.op, number) else tuple(returned))
        return self._attribute("region", torch.fx.GraphModule(root, inner.fx, region.name))


class _Flat:
    """Calls a function, and takes lists among its results apart."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "call")

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return flat_results(self.function(*args, **kwargs))


def as_lists(arguments: Any) -> Any:
    """Tuples as lists, as torch's schemas have them."""
    if isinstance(arguments, Mapping):
        return {name: as_lists(item) for name, item in arguments.items()}
    if isinstance(arguments, list | tuple):
        return [as_lists(item) for item in arguments]
    return arguments
