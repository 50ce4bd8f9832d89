"""FX in, a pure graph out: the one importer that both frontends use.

It takes ATen-level FX as ``torch.export`` and a pre-dispatch trace give it (composite ops whole,
in-place ops and views still there), reads every type from torch's own metadata, and never
retraces. On the way in

* views and mutations become pure (:mod:`rewright.frontends.functional`);
* many spellings become one (:mod:`rewright.frontends.normalize`);
* size arithmetic leaves the graph: sizes are expressions in types and attributes;
* what only wraps (``no_grad`` regions, checkpoints) is inlined.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import sympy
import torch
import torch.fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from rewright.errors import FrontendError, RewrightError, UnsupportedError
from rewright.frontends import higher_order, mutation, normalize
from rewright.frontends.eager_strides import Place, restated
from rewright.frontends.functional import Alias, Storage
from rewright.frontends.literals import literal_number
from rewright.frontends.locations import location_of
from rewright.frontends.outputs import result_specs
from rewright.frontends.symbols import (
    SymbolTable,
    bind_inputs,
    bind_results,
    is_symbolic,
    scalar_kind,
)
from rewright.frontends.tensor_kinds import refuse_layout
from rewright.frontends.views import ALIAS, BASE, View
from rewright.ir.attributes import LEAVES, Opaque, Record, map_leaves
from rewright.ir.builder import make_node
from rewright.ir.graph import Constant, Graph, Value
from rewright.ir.location import Location
from rewright.ir.ops import Op, Trait, get_op, op_name
from rewright.ir.types import (
    NoneType,
    OpaqueType,
    ScalarType,
    TensorType,
    Type,
    cast_arguments,
    type_of_number,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@attrs.frozen
class Placeholder:
    """What one placeholder of the FX graph becomes.

    Attributes:
        name: of the input or the constant.
        kind: ``input``, ``literal`` (the value that torch specialised on, no part of the
            graph), or the kind of a constant: ``parameter``, ``buffer``, ``constant``.
        data: the tensor of a constant, if it is known now.
        same_as: the name of an earlier constant that is the very same tensor (tied weights).
    """

    name: str
    kind: str = "input"
    data: torch.Tensor | None = None
    same_as: str | None = None


def import_fx(
    module: torch.fx.GraphModule,
    placeholders: Sequence[Placeholder],
    *,
    name: str = "main",
    device: str | None = None,
    symbols: SymbolTable | None = None,
    written: Sequence[str | None] = (),
) -> Graph:
    """The graph that computes what `module` does.

    Args:
        module: ATen-level FX whose nodes carry torch's ``meta["val"]``.
        placeholders: one for each placeholder of `module`, in order.
        name: the graph's name.
        device: where the program shall run; by default where its tensors are. A CPU graph may
            be retargeted: values, constants and device arguments move along.
        symbols: ranges and examples of torch's symbols.
        written: for each result, the name of the input or constant that it is the new value of
            (in a program that was made functional before), or None.

    Returns:
        A graph in the ``imported`` normal form. Its inputs are the placeholders of kind
        ``input``, its outputs the flattened results.

    Raises:
        UnsupportedError: an op, a feature or a training mode that can't be imported; names the
            op and the user's source line.
    """
    table = symbols if symbols is not None else SymbolTable()
    home = _home_device(module)
    graph = Graph(name, device=device or home)
    importer = Importer(graph, table, home)
    importer.run_root(module, placeholders, written)
    return graph


def _home_device(module: torch.fx.GraphModule) -> str:
    """The device of the first tensors: accelerators first, since scalars stay on the CPU."""
    devices = [
        str(value.device)
        for node in module.graph.nodes
        if isinstance(value := node.meta.get("val"), torch.Tensor)
    ]
    return next((device for device in devices if device != "cpu"), "cpu")


class Importer:
    """One pass over the nodes of an FX graph, in order."""

    def __init__(
        self, graph: Graph, table: SymbolTable, home: str, outer: Importer | None = None
    ) -> None:
        self.graph = graph
        self.table = table
        self.home = home
        self.outer = outer
        self.env: dict[torch.fx.Node, Any] = {}
        self.loc: Location | None = None
        self.origins: dict[Value, Storage] = {}
        self.extra: dict[Any, Value] = {}
        self.fakes: dict[Value, torch.Tensor] = {}
        self.storages_known: bool = outer.storages_known if outer else True
        self.owner: torch.fx.GraphModule | None = None

    # -- whole graphs

    def run_root(
        self,
        module: torch.fx.GraphModule,
        placeholders: Sequence[Placeholder],
        written: Sequence[str | None],
    ) -> None:
        self.storages_known = _shares_storages(module)
        nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
        if len(nodes) != len(placeholders):
            raise FrontendError(f"{len(nodes)} placeholders, {len(placeholders)} described")
        for node, placeholder in zip(nodes, placeholders, strict=True):
            self.env[node] = self._enter(node, placeholder)
        bind_inputs(self.graph, self.table)
        returned = tree_leaves(self.run(module))
        strides = [self._strides(value) for value in _returned(module, self._device)]
        kept = [i for i in range(len(returned)) if i >= len(written) or written[i] is None]
        for index in sorted(set(range(len(returned))) - set(kept)):
            self._write(str(written[index]), returned[index])
        entries = [self.output(returned[index]) for index in kept]
        self.graph.set_outputs(
            self._returned(entries),
            results=result_specs(entries, [strides[index] for index in kept]),
            writebacks=[
                (origin, storage.value)
                for origin, storage in self.origins.items()
                if storage.version
            ],
        )

    def _returned(self, entries: Sequence[Any]) -> list[Value]:
        """The outputs' values; those that share memory as views of one value."""
        storages = [entry.storage for entry in entries if isinstance(entry, Alias)]
        return [
            entry.replay(self.emit)
            if isinstance(entry, Alias) and storages.count(entry.storage) > 1
            else self.argument(entry)
            for entry in entries
        ]

    def _write(self, name: str, entry: Alias) -> None:
        """Notes that a program which is functional already returns the new value of `name`."""
        for origin, storage in self.origins.items():
            known = origin.name if isinstance(origin, Constant) else origin.hint
            if known == name:
                storage.value = entry.read(self.emit)
                storage.version += 1
                return
        raise FrontendError(f"the program writes to {name}, which it doesn't take")

    def _strides(self, value: Any) -> tuple[Any, ...] | None:
        """Eager's strides of a result, where they are not those of a contiguous tensor."""
        if not isinstance(value, torch.Tensor):
            return None
        strides = tuple(self.table.expression(stride) for stride in value.stride())
        shape = [self.table.expression(size) for size in value.shape]
        return None if strides == contiguous_strides(shape) else strides

    def _enter(self, node: torch.fx.Node, placeholder: Placeholder) -> Any:
        value = node.meta.get("val")
        if placeholder.kind == "literal":
            return value
        if is_symbolic(value) or isinstance(value, bool | int | float):
            scalar = ScalarType(scalar_kind(value), self.table.expression(value))
            self.graph.add_input(scalar, placeholder.name)
            return scalar.expr
        if value is None:
            self.graph.add_input(NoneType(), placeholder.name)
            return None
        if not isinstance(value, torch.Tensor):
            raise UnsupportedError(
                f"the input {placeholder.name} is a {type(value).__name__}",
                hint="pass tensors, numbers, strings, None and containers of them",
            )
        refuse_layout(value, placeholder.name, placeholder.name)
        kind = self.type_of(value)
        assert isinstance(kind, TensorType)
        number = literal_number(node, placeholder.name, placeholder.data)
        if number is not None:
            return self._number(number, placeholder.data)
        origin = self._origin(placeholder, kind)
        return Alias(self._storage_of(origin, value))

    def _storage_of(self, origin: Value, value: torch.Tensor) -> Storage:
        """The storage of an input or constant; tied ones share theirs."""
        known = self.origins.get(origin)
        if known is None:
            known = self.origins[origin] = Storage(origin, origin)
        known.fakes.add(storage_id(value))
        return known

    def _origin(self, placeholder: Placeholder, value_type: TensorType) -> Value:
        if placeholder.kind == "input":
            return self.graph.add_input(value_type, placeholder.name)
        if placeholder.same_as is not None:
            constant = self.graph.constants[placeholder.same_as]
            constant.aliases = (*constant.aliases, placeholder.name)
            return constant
        data = placeholder.data
        if data is not None and str(data.device) == self.home != self.graph.device:
            data = data.to(self.graph.device)
        return self.graph.add_constant(
            placeholder.name, value_type, kind=placeholder.kind, data=data
        )

    def run(self, module: torch.fx.GraphModule) -> Any:
        """Imports the nodes of `module`, whose placeholders are known; returns its result."""
        self.owner, saved = module, self.owner
        for node in module.graph.nodes:
            if node.op == "output":
                self.owner = saved
                return self.entry(node.args[0])
            if node.op != "placeholder":
                self.env[node] = self._visit(node)
        raise FrontendError("the FX graph has no output node")

    def output(self, item: Any) -> Any:
        """An entry as an output: an alias, or the value of a number or None."""
        if isinstance(item, Alias):
            return item
        if isinstance(item, Value):
            return item
        return self.emit("rw.scalar", value=item, types=(type_of_number(item),))

    # -- nodes

    def _visit(self, node: torch.fx.Node) -> Any:
        self.loc = location_of(node) or self.loc
        if node.op == "get_attr":
            return self._attribute(node)
        if node.op != "call_function":
            raise FrontendError(f"an FX node of kind {node.op} in an ATen graph", where=self.loc)
        with self._blame(node):
            return self._call(node)

    @contextmanager
    def _blame(self, node: torch.fx.Node) -> Iterator[None]:
        """Adds the node and the user's line to errors that lack them."""
        try:
            yield
        except RewrightError as error:
            if error.where is None:
                error.where = f"{self.loc or 'an unknown line'} (node {node.name})"
            raise

    def _call(self, node: torch.fx.Node) -> Any:
        target = node.target
        if target is operator.getitem:
            container, index = self.entry(node.args[0]), self.entry(node.args[1])
            return container[index]
        if isinstance(target, HigherOrderOperator):
            return higher_order.run(self, node, target)
        value = node.meta.get("val")
        if isinstance(target, OpOverload):
            if _is_scalar(value) and not _reads_tensor(target):
                return self.table.expression(value)
            return self._overload(node, target, value)
        if _is_scalar(value):
            return self.table.expression(value)
        if getattr(target, "__module__", "").startswith(
            ("torch._C", "torch.autograd", "torch._functorch")
        ):
            return None  # grad mode, checks of versions: nothing that computes
        raise UnsupportedError(f"a call of {target!r} can't be imported")

    def _attribute(self, node: torch.fx.Node) -> Any:
        assert self.owner is not None
        held: Any = operator.attrgetter(str(node.target))(self.owner)
        if isinstance(held, torch.Tensor):
            number = literal_number(node, str(node.target), held)
            if number is not None:
                return self._number(number, held)
            return self._lifted(str(node.target), held)
        return held

    def _lifted(self, name: str, data: torch.Tensor) -> Alias:
        """A tensor that the FX module holds itself, as a constant (of the outermost graph)."""
        if self.outer is not None:
            outer = self.outer._lifted(name, data).read(self.outer.emit)
            return Alias.fresh(self.lift(outer))
        unique = name
        while unique in self.graph.constants and self.graph.constants[unique].data is not data:
            unique += "_"
        if unique not in self.graph.constants:
            self.graph.add_constant(unique, self.type_of(data), kind="constant", data=data)
        constant: Constant = self.graph.constants[unique]
        return Alias(self._storage_of(constant, data))

    def _number(self, number: bool | int | float, data: torch.Tensor | None) -> Alias:
        """A number that the model makes a tensor of, as a fill: what it is can be seen then."""
        assert data is not None
        kind = self.type_of(data)
        device = torch.device(self.graph.device if str(data.device) == self.home else data.device)
        return Alias.fresh(
            self.emit("aten.full", [], number, dtype=data.dtype, device=device, types=(kind,))
        )

    def lift(self, outer: Value | sympy.Basic) -> Value:
        """A value or size of the graph around this region, as an explicit input of the region."""
        if outer not in self.extra:
            kind = outer.type if isinstance(outer, Value) else ScalarType("int", outer)
            self.extra[outer] = self.graph.add_input(
                kind, "" if isinstance(outer, Value) else str(outer)
            )
        return self.extra[outer]

    def child(self, graph: Graph) -> Importer:
        """The importer of a region of this graph."""
        return Importer(graph, self.table, self.home, self)

    # -- arguments and types

    def entry(self, arg: Any) -> Any:
        """An FX argument with nodes replaced by what they became."""
        if isinstance(arg, torch.fx.Node):
            return self.env[arg]
        if isinstance(arg, list | tuple):
            return tuple(self.entry(item) for item in arg)
        if isinstance(arg, dict):
            return {key: self.entry(item) for key, item in arg.items()}
        return arg

    def argument(self, entry: Any) -> Any:
        """An entry as the argument of a node: values, attributes and tuples of them."""
        if isinstance(entry, Alias):
            return entry.read(self.emit)
        if isinstance(entry, tuple | list):
            return tuple(self.argument(item) for item in entry)
        if isinstance(entry, dict):
            return Record(tuple((key, self.argument(item)) for key, item in entry.items()))
        if is_symbolic(entry):
            return self.table.expression(entry)
        if isinstance(entry, torch.device):
            return self._device(entry)
        if entry is BASE or isinstance(entry, (Value, Graph, *LEAVES)):
            return entry
        return Opaque(entry, type(entry).__name__)

    def _device(self, device: torch.device) -> torch.device:
        moved = self.home != self.graph.device and str(device) == self.home
        return torch.device(self.graph.device) if moved else device

    def type_of(self, value: Any) -> Type:
        """The type of what torch recorded for a node: a fake tensor, a number, None."""
        if isinstance(value, torch.Tensor):
            place = str(value.device)
            return TensorType(
                value.dtype,
                tuple(d if type(d) is int else self.table.expression(d) for d in value.shape),
                None if place == self.home else place,
            )
        if value is None:
            return NoneType()
        if _is_scalar(value):
            return ScalarType(scalar_kind(value), self.table.expression(value))
        return OpaqueType(type(value).__name__)

    # -- operators

    def _overload(self, node: torch.fx.Node, target: OpOverload, value: Any) -> Any:
        op = get_op(target)
        if op.name in normalize.DROPPED:
            return None
        if op.name == "aten._assert_scalar" and self.entry(node.args[0]) is True:
            return None
        entries = op.bind(
            [self.entry(a) for a in node.args],
            {k: self.entry(a) for k, a in node.kwargs.items()},
        )
        if op.name.startswith("aten."):
            entries = normalize.without_memory(entries)
        normalize.refuse_training(op.name, entries, self.loc)
        if target._schema.is_mutable:
            return mutation.run(self, op, entries, value)
        return self.pure(op, entries, value, node.name)

    def pure(self, op: Op, entries: Mapping[str, Any], value: Any, hint: str) -> Any:
        """Imports an op that mutates nothing, and returns its entry (or tuple of entries)."""
        first = next(iter(entries.values()), None)
        kinds, structure = tree_flatten(value) if op.results != 0 else ([], None)
        types = tuple(self.type_of(item) for item in kinds)
        if isinstance(first, Alias):
            spelled = self._normal_form(op, first, types[0] if types else None, hint)
            if spelled is not None:
                lifted = op.name.startswith("aten.to.") and _is_lifted(first)
                if lifted and spelled[0] is first.read(self.emit) and not entries.get("copy"):
                    return first  # by what the op means: torch's fakes of such tensors are apart
                return self._aliased(op, first, spelled, value)
        named = {name: self.argument(entry) for name, entry in entries.items()}
        if op.has(Trait.OPAQUE):
            named = self.keep_layouts(named)
        results = self.insert(op, named, types, self._hints(hint, len(types)))
        made = [
            self._made(op, entries, types, pick, result, kinds[pick])
            for pick, result in enumerate(results)
        ]
        if structure is None:
            return None
        return _with_tuples(tree_unflatten(made, structure))

    def _made(
        self,
        op: Op,
        entries: Mapping[str, Any],
        types: tuple[Type, ...],
        pick: int,
        result: Value,
        value: Any,
    ) -> Any:
        """The entry of one result: a view of the operand whose memory eager gives it, or fresh."""
        base = self._base_of(op, entries, value, pick)
        if base is None:
            return self.fresh(result, value)
        base.storage.fakes.add(storage_id(value))
        if op.name in normalize.EACH_VIEWS:
            assert isinstance(result.type, TensorType)
            alone, shape = normalize.EACH_VIEWS[op.name]
            one = {"self": BASE, shape: result.type.shape}
            return base.derive(View(get_op(alone), one, (result.type,)), result)
        arguments = {
            name: BASE if entry is base else self.argument(_marked(entry, base))
            for name, entry in entries.items()
        }
        return base.derive(View(op, arguments, types, pick), result)

    def fresh(self, result: Value, value: Any) -> Any:
        """The entry of a result with memory of its own: an alias, a size, None or an object."""
        if isinstance(result.type, TensorType):
            alias = Alias.fresh(result)
            alias.storage.fakes.add(storage_id(value))
            self.fakes[result] = value
            return alias
        if isinstance(result.type, ScalarType):
            return result.type.expr
        return None if isinstance(result.type, NoneType) else result

    def _hints(self, hint: str, count: int) -> tuple[str, ...]:
        return (hint,) if count == 1 else tuple(f"{hint}_{i}" for i in range(count))

    def _normal_form(
        self, op: Op, first: Alias, new: Type | None, hint: str
    ) -> tuple[Value, View] | None:
        """The one spelling of what import makes simpler: its value, and it as a view."""
        if op.name in normalize.IDENTITIES:
            old = first.read(self.emit)
            return old, _renamed(op, old)
        if not isinstance(new, TensorType):
            return None
        if op.name in normalize.CASTS:
            old = first.read(self.emit)
            assert isinstance(old.type, TensorType)
            arguments = cast_arguments(old.type, new, self.graph.device)
            if not arguments:
                return old, _renamed(op, old)
            return self._step("aten._to_copy", old, arguments, new, hint)
        if op.name in normalize.RESHAPES or op.name in normalize.EXPANDS:
            reshape = op.name in normalize.RESHAPES
            old = first.read(self.emit)
            if old.type == new:
                return old, _renamed(op, old)
            spelled = ("aten.reshape", "shape") if reshape else ("aten.expand", "size")
            return self._step(spelled[0], old, {spelled[1]: new.shape}, new, hint)
        return None

    def _step(
        self, op: str, old: Value, arguments: dict[str, Any], new: Type, hint: str
    ) -> tuple[Value, View]:
        value = self.emit(op, old, types=(new,), hint=hint, **arguments)
        return value, View(get_op(op), {"self": BASE, **arguments}, (new,))

    def _aliased(self, op: Op, first: Alias, spelled: tuple[Value, View], value: Any) -> Alias:
        """The entry of a simplified op: an alias of its operand where eager's is one."""
        result, view = spelled
        always = op.name.endswith("dropout")
        if always or self._shares(op, first, value):
            first.storage.fakes.add(storage_id(value))
            return first.derive(view, result)
        self.fakes[result] = value
        return self.fresh(result, value)

    def _base_of(self, op: Op, entries: Mapping[str, Any], value: Any, pick: int) -> Alias | None:
        """The operand whose memory result number `pick` shares, or None.

        A view by its schema is one of its first argument. Composite ops share memory without
        saying so (``einsum``, ``meshgrid``): there torch's fake tensors tell. Of several operands
        with that memory it is the one in the result's own place (``broadcast_tensors(x[0], x)``).
        """
        if not isinstance(value, torch.Tensor) or not op.is_torch:
            return None
        first = next(iter(entries.values()), None)
        if isinstance(first, Alias) and self._shares(op, first, value):
            return first
        if not self.storages_known or op.has(Trait.OPAQUE):
            return None
        storage = storage_id(value)
        sharing = [
            leaf
            for entry in entries.values()
            for leaf in tree_leaves(entry)
            if isinstance(leaf, Alias) and storage in leaf.storage.fakes
        ]
        own = first[pick] if isinstance(first, tuple) and pick < len(first) else None
        return own if own in sharing else next(iter(sharing), None)

    def _shares(self, op: Op, first: Alias, value: torch.Tensor) -> bool:
        """Whether eager's result shares memory with the first operand.

        A view by its schema always does. ``reshape``, ``contiguous`` and ``to``, whose schemas
        only allow it, do where torch's own fake tensors say so; those of a program that was
        loaded from a file no longer know, and there only the unchanged layout tells.
        """
        if op.name not in normalize.MAY_COPY:
            schema = op.target._schema if op.is_torch else None
            return bool(schema and schema.arguments and schema.arguments[0].alias_info)
        if self.storages_known:
            return storage_id(value) in first.storage.fakes
        return op.name in normalize.CASTS or bool(value.is_contiguous())

    # -- adding nodes

    def emit(
        self,
        op: str | Op,
        /,
        *args: Any,
        types: tuple[Type, ...] | None = None,
        hint: str = "",
        **kwargs: Any,
    ) -> Any:
        """Adds a node; returns its result, or the tuple of its results."""
        found = get_op(op) if isinstance(op, str) else op
        named = found.bind(args, kwargs)
        results = self.insert(found, named, types, self._hints(hint, 1) if hint else ())
        return results[0] if len(results) == 1 else results

    def keep_layouts(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of an opaque op, whose code may depend on the memory that eager gives it.

        Import dropped ``contiguous()`` and ``clone()``, so a copy to eager's strides is stated.
        """
        return {name: map_leaves(item, self._in_eager_layout) for name, item in named.items()}

    def _in_eager_layout(self, item: Any) -> Any:
        fake = self.fakes.get(item) if isinstance(item, Value) else None
        if fake is None:
            return item
        strides = tuple(self.table.expression(stride) for stride in fake.stride())
        return self.emit("rw.layout", item, strides, types=(item.type,))

    def insert(
        self,
        op: Op,
        named: Mapping[str, Any],
        types: tuple[Type, ...] | None,
        hints: tuple[str, ...] = (),
    ) -> tuple[Value, ...]:
        """Adds a node of `op`; types are inferred unless given."""
        if types is None:
            types = mutation.infer(self.graph, op, named)
        node = make_node(op, dict(named), types, loc=self.loc, hints=hints)
        self.graph.insert(node)
        bind_results(self.graph, self.table, node.results)
        return node.results


def _renamed(op: Op, old: Value) -> View:
    """The view by an op that changes nothing: a new tensor of the same memory, or the operand."""
    if op.name in normalize.RETURN_SELF:
        return View(None, {}, ())
    return View(ALIAS, {"self": BASE}, (old.type,))


def _marked(entry: Any, base: Alias) -> Any:
    """`entry` with :data:`BASE` in the place of one alias."""
    if isinstance(entry, tuple):
        return tuple(_marked(item, base) for item in entry)
    return BASE if entry is base else entry


def _with_tuples(entry: Any) -> Any:
    """`entry` with tuples for lists, as entries have them."""
    if isinstance(entry, list | tuple):
        return tuple(_with_tuples(item) for item in entry)
    return entry


def storage_id(value: torch.Tensor) -> int:
    """What tells the storages of fake tensors apart."""
    return int(value.untyped_storage()._cdata)


def _is_lifted(alias: Alias) -> bool:
    """Whether it is a tensor from outside of the model, which the tracer has made a constant of."""
    origin = alias.storage.origin
    return isinstance(origin, Constant) and origin.kind == "constant"


def _shares_storages(module: torch.fx.GraphModule) -> bool:
    """Whether the fake tensors in `module` share storages as eager's tensors would.

    Those of a program that was loaded from a file don't; the first plain view tells.
    """
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if node.target in _PLAIN_VIEWS and isinstance(value, torch.Tensor):
            return storage_id(value) == storage_id(node.args[0].meta["val"])
    return True


_PLAIN_VIEWS: Final = (
    torch.ops.aten.view.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.permute.default,
    torch.ops.aten.select.int,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.t.default,
)


def _is_scalar(value: Any) -> bool:
    return is_symbolic(value) or isinstance(value, bool | int | float)


def _reads_tensor(target: OpOverload) -> bool:
    """Whether the number that `target` gives comes from the data of a tensor."""
    return op_name(target) in ("aten.item", "aten._local_scalar_dense", "aten.is_nonzero")


def _returned(module: torch.fx.GraphModule, place: Place) -> list[Any]:
    """Fake tensors, numbers and None for what `module` returns, flat, with eager's strides."""
    returned = next(n for n in module.graph.nodes if n.op == "output").args[0]
    known = restated(module, place)
    return [
        known.get(item, item.meta.get("val")) if isinstance(item, torch.fx.Node) else item
        for item in tree_leaves(returned)
    ]


def contiguous_strides(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The strides, in elements, of a contiguous tensor of `shape`."""
    strides: list[Any] = []
    step: Any = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * size
    return tuple(reversed(strides))
