"""Autocast regions made explicit: FX in, FX out, with ``aten.to.dtype`` where torch casts.

    _enter_autocast('cpu', bfloat16)            x_ = aten.to.dtype(x, bfloat16)
    y = aten.linear(x, w)                  ->   w_ = aten.to.dtype(w, bfloat16)
    _exit_autocast(...)                         y = aten.linear(x_, w_)

Which operands torch casts, and to what, is not written here: each op is run by torch's own
autocast kernel on fake tensors, and what that kernel calls is recorded. Both spellings of a
region are known: the pair of calls that Dynamo leaves, and the ``wrap_with_autocast`` that
torch.export makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, Final

import attrs
import torch
import torch.fx
from torch._C import DispatchKey, DispatchKeySet
from torch._guards import detect_fake_mode
from torch._ops import HigherOrderOperator, OpOverload
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast
from torch.fx.experimental.proxy_tensor import make_fx

from rewright.errors import UnsupportedError
from rewright.frontends.locations import location_of

State = Mapping[str, torch.dtype]
"""The device types for which autocast is on, each with the dtype it casts to."""

OFF: Final[State] = MappingProxyType({})

_KERNELS: Final = {"cpu": DispatchKey.AutocastCPU, "cuda": DispatchKey.AutocastCUDA}
"""Where torch's autocast kernels for a device type are registered."""

_COMPOSITE: Final = DispatchKey.CompositeImplicitAutograd
"""Where the kernels of operators that are made of others are registered."""

_REGION: Final = "wrap_with_autocast"

_LOWER: Final = (torch.float16, torch.bfloat16)
"""The dtypes that autocast casts to."""


def ambient_autocast() -> State:
    """The autocast that is on at this moment in this thread."""
    return {
        device: torch.get_autocast_dtype(device)
        for device in _KERNELS
        if torch.is_autocast_enabled(device)
    }


@contextmanager
def autocast_set_to(state: State) -> Iterator[None]:
    """Within, autocast is as `state` says on every device type, and casts are not cached."""
    saved = ambient_autocast()
    dtypes = {device: torch.get_autocast_dtype(device) for device in _KERNELS}
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    _set(state, dtypes)
    try:
        yield
    finally:
        _set(saved, dtypes)
        torch.set_autocast_cache_enabled(cached)


def _set(state: State, dtypes: Mapping[str, torch.dtype]) -> None:
    for device, dtype in dtypes.items():
        torch.set_autocast_enabled(device, device in state)
        torch.set_autocast_dtype(device, state.get(device, dtype))


def resolve_autocast(module: torch.fx.GraphModule, around: State = OFF) -> torch.fx.GraphModule:
    """`module` with explicit casts and no autocast regions.

    Args:
        module: ATen-level FX whose nodes carry ``meta["val"]``; it is not changed.
        around: the autocast that is on around the whole module.

    Returns:
        `module` itself where there is nothing to resolve; otherwise a new module with the same
        placeholders and outputs, bodies of higher-order operators included.
    """
    if not around and not any(map(_is_autocast, _nodes(module))):
        return module
    return _Resolver(_CastMemo()).resolve(module, around)


def refuse_lost_autocast(module: torch.fx.GraphModule) -> None:
    """Refuses a graph that was exported under autocast: torch.export does not keep it.

    Its operators would compute in other dtypes than the graph says. What is inside of a region,
    whose body is a module of its own, is as it should be.

    Raises:
        UnsupportedError: an operator that autocast lowers has operands in f32 and a result in 16
            bits.
    """
    for node in module.graph.nodes:
        value, target = node.meta.get("val"), node.target
        if not (isinstance(value, torch.Tensor) and value.dtype in _LOWER):
            continue
        known = (item.meta.get("val") for item in node.all_input_nodes)
        floats = {v.dtype for v in known if isinstance(v, torch.Tensor) and v.is_floating_point()}
        key = _KERNELS.get(value.device.type)
        if floats != {torch.float32} or key is None or not isinstance(target, OpOverload):
            continue
        if _has_kernel(target, key):
            raise UnsupportedError(
                f"the program was exported under autocast, which torch.export does not keep: "
                f"{target} gives {value.dtype} of {torch.float32}",
                where=location_of(node),
                hint="rewright.compile(model, args) under autocast keeps it; so does an export "
                "outside of autocast, with the region inside of forward",
            )


def _nodes(module: torch.fx.GraphModule) -> Iterator[torch.fx.Node]:
    """The nodes of `module` and of every graph in it."""
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            yield from part.graph.nodes


def _is_autocast(node: torch.fx.Node) -> bool:
    target = node.target
    if isinstance(target, HigherOrderOperator):
        return target.name() == _REGION
    return target in (_enter_autocast, _exit_autocast)


def _entered(state: State, device: str, dtype: torch.dtype | None, enabled: bool) -> State:
    """The state inside a region that begins in `state`."""
    rest = {other: known for other, known in state.items() if other != device}
    return {**rest, device: dtype or torch.get_autocast_dtype(device)} if enabled else rest


# --------------------------------------------------------------------------- the rewriting


@attrs.frozen
class _Body:
    """A get_attr of a subgraph: copied when the operator that runs it is."""

    name: str
    module: torch.fx.GraphModule


class _Resolver:
    """Copies one FX graph, casts added; a body of a higher-order operator gets its own."""

    def __init__(self, memo: _CastMemo) -> None:
        self.memo = memo
        self.graph = torch.fx.Graph()
        self.attributes: dict[str, Any] = {}
        self.state: State = OFF

    def resolve(self, module: torch.fx.GraphModule, state: State) -> torch.fx.GraphModule:
        """The copy of `module`, run in `state`."""
        self.state = state
        env: dict[torch.fx.Node, Any] = {}
        for node in module.graph.nodes:
            if node.op in ("placeholder", "output"):
                env[node] = self._copy(node, env)
            else:
                env[node] = self._visit(node, env, module)
        made = torch.fx.GraphModule(self.attributes, self.graph)
        made.meta.update(module.meta)
        return made

    def _inline(self, module: torch.fx.GraphModule, operands: list[Any]) -> Any:
        """Copies the nodes of `module` to the end of the graph; returns what it returns."""
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        env: dict[torch.fx.Node, Any] = dict(zip(inputs, operands, strict=True))
        for node in module.graph.nodes:
            if node.op == "output":
                return _mapped(node.args[0], env)
            if node.op != "placeholder":
                env[node] = self._visit(node, env, module)
        raise AssertionError("an FX graph ends with its output")

    def _copy(self, node: torch.fx.Node, env: Mapping[torch.fx.Node, Any]) -> torch.fx.Node:
        return self.graph.node_copy(node, lambda old: env[old])

    def _visit(
        self, node: torch.fx.Node, env: dict[torch.fx.Node, Any], owner: torch.fx.GraphModule
    ) -> Any:
        """What stands for `node` in the copy: a node, or a container of nodes."""
        if node.op == "get_attr":
            return self._attribute(node, owner)
        if node.target is _enter_autocast:
            outside = self.state
            self.state = _entered(outside, *node.args[:3])  # type: ignore[arg-type]
            return outside
        if node.target is _exit_autocast:
            self.state = env[node.args[0]]  # type: ignore[index]
            return None
        if isinstance(node.target, HigherOrderOperator):
            return self._higher_order(node, env)
        args, kwargs = _mapped(node.args, env), _mapped(node.kwargs, env)
        if _is_pick(node) and not isinstance(args[0], torch.fx.Node):
            return args[0][args[1]]
        return self._call(node, args, kwargs)

    def _attribute(self, node: torch.fx.Node, owner: torch.fx.GraphModule) -> Any:
        held: Any = owner
        for part in str(node.target).split("."):
            held = getattr(held, part)
        if isinstance(held, torch.fx.GraphModule):
            return _Body(str(node.target), held)
        made = self.graph.create_node(
            "get_attr", self._hold(str(node.target), held), (), {}, node.name
        )
        made.meta = dict(node.meta)
        return made

    def _hold(self, name: str, value: Any) -> str:
        """The name by which the copy holds `value`: `name`, or one like it."""
        unique = name = name.replace(".", "_")
        count = 0
        while self.attributes.get(unique, value) is not value:
            count += 1
            unique = f"{name}_{count}"
        self.attributes[unique] = value
        return unique

    def _higher_order(self, node: torch.fx.Node, env: dict[torch.fx.Node, Any]) -> Any:
        args = _mapped(node.args, env)
        if _is_autocast(node):
            outside = self.state
            self.state = _entered(outside, *args[:3])
            result = self._inline(args[4].module, list(args[5:]))
            self.state = outside
            return result
        return self._emit(node, args, _mapped(node.kwargs, env))

    def _emit(self, node: torch.fx.Node, args: Any, kwargs: Any) -> torch.fx.Node:
        """A call of the operator of `node` on other arguments."""
        args, kwargs = self._bodies(args), self._bodies(kwargs)
        made = self.graph.create_node("call_function", node.target, args, kwargs, node.name)
        made.meta = dict(node.meta)
        self._retype(made)
        return made

    def _retype(self, made: torch.fx.Node) -> None:
        """Gives a node the value of its dtype without autocast.

        What traced it may have been under another autocast than the region says (Dynamo's regions
        are recorded, not entered), and what comes after took its dtype from there.
        """
        known, target = made.meta.get("val"), made.target
        if not (isinstance(known, torch.Tensor) and known.is_floating_point()):
            return
        if not isinstance(target, OpOverload) or torch.Tag.dynamic_output_shape in target.tags:
            return
        value = self.memo.run(target, made.args, made.kwargs)
        if isinstance(value, torch.Tensor) and value.dtype != known.dtype:
            made.meta["val"] = value

    def _bodies(self, arg: Any) -> Any:
        """`arg` with a node in place of every subgraph, which is resolved in this state."""
        if isinstance(arg, _Body):
            resolved = _Resolver(self.memo).resolve(arg.module, self.state)
            return self.graph.get_attr(self._hold(arg.name, resolved))
        if isinstance(arg, tuple | list):
            return type(arg)(self._bodies(item) for item in arg)
        if isinstance(arg, dict):
            return {key: self._bodies(item) for key, item in arg.items()}
        return arg

    # -- one operator

    def _call(self, node: torch.fx.Node, args: Any, kwargs: Any) -> Any:
        target = node.target
        if not self.state or not isinstance(target, OpOverload) or _casts_nothing(target):
            return self._emit(node, args, kwargs)
        operands = _Operands.of(args, kwargs)
        key = _kernel(target, operands, self.state)
        if key is not None:
            recipe = self.memo.casts(target, operands, key, self.state)
            return self._replay(recipe, operands.nodes, node)
        parts = self.memo.parts(target, operands, self.state)
        if parts is None:
            return self._emit(node, args, kwargs)
        return self._inline_parts(parts, operands.nodes, node)

    def _replay(
        self, recipe: torch.fx.Graph, operands: list[torch.fx.Node], node: torch.fx.Node
    ) -> Any:
        """Adds what an autocast kernel calls: casts, and the operator as the last."""
        nodes = list(recipe.nodes)
        env: dict[torch.fx.Node, Any] = dict(zip(nodes, operands, strict=False))
        calls = [item for item in nodes if item.op == "call_function"]
        for item in calls:
            args, kwargs = _mapped(item.args, env), _mapped(item.kwargs, env)
            env[item] = made = self._emit(item, args, kwargs)
            made.meta = dict(node.meta)
            if item is not calls[-1]:
                made.meta["val"] = self.memo.run(item.target, args, kwargs)
            else:
                self._retype(made)
        return _mapped(nodes[-1].args[0], env)

    def _inline_parts(
        self, parts: torch.fx.GraphModule, operands: list[torch.fx.Node], node: torch.fx.Node
    ) -> Any:
        """Adds what a composite operator is made of, each part cast by itself."""
        for item in parts.graph.nodes:
            item.meta = {**node.meta, "val": item.meta.get("val")}
        return self._inline(parts, operands)


def _is_pick(node: torch.fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def _mapped(arg: Any, env: Mapping[torch.fx.Node, Any]) -> Any:
    """An FX argument with what stands for its nodes, which need not be a node."""
    if isinstance(arg, torch.fx.Node):
        return env[arg]
    if isinstance(arg, tuple | list):
        return tuple(_mapped(item, env) for item in arg)
    if isinstance(arg, dict):
        return {key: _mapped(item, env) for key, item in arg.items()}
    return arg


# --------------------------------------------------------------------------- what torch casts


@attrs.frozen
class _Operands:
    """The arguments of a call, with the nodes among them as a list."""

    nodes: list[torch.fx.Node]
    call: Callable[..., Any]
    """``call(function, values)``: calls `function` with `values` in the place of the nodes."""
    key: Any
    """Equal for calls that autocast treats alike: by dtypes and devices, not by shapes."""

    @classmethod
    def of(cls, args: Any, kwargs: Any) -> _Operands:
        """The operands of ``target(*args, **kwargs)``."""
        nodes: list[torch.fx.Node] = []
        constants: list[Any] = []

        def note(leaf: Any) -> None:
            if isinstance(leaf, torch.fx.Node):
                nodes.append(leaf)
            constants.append(None if isinstance(leaf, torch.fx.Node) else leaf)

        torch.fx.node.map_aggregate((args, kwargs), note)

        def call(function: Callable[..., Any], values: Any) -> Any:
            filled = iter(values)
            put = torch.fx.node.map_aggregate(
                (args, kwargs), lambda x: next(filled) if isinstance(x, torch.fx.Node) else x
            )
            return function(*put[0], **put[1])

        return cls(nodes, call, (repr(constants), tuple(_kind(n.meta.get("val")) for n in nodes)))

    @property
    def values(self) -> list[Any]:
        """The fake tensors and numbers that torch recorded for the nodes."""
        return [node.meta.get("val") for node in self.nodes]


def _kind(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.device.type, value.dim()
    return type(value)


def _kernel(target: OpOverload, operands: _Operands, state: State) -> DispatchKey | None:
    """The key of the autocast kernel that torch runs for `target`; None where there is none."""
    devices = {value.device.type for value in operands.values if isinstance(value, torch.Tensor)}
    for device in devices & state.keys():
        if _has_kernel(target, _KERNELS[device]):
            return _KERNELS[device]
    return None


def _has_kernel(target: OpOverload, key: DispatchKey) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), key)


def _casts_nothing(target: OpOverload) -> bool:
    """Whether `target` can't compute in another dtype: a view, a cast, a question about sizes."""
    returns = target._schema.returns
    return any(r.alias_info is not None for r in returns) or not any(
        "Tensor" in str(r.type) for r in returns
    )


class _CastMemo:
    """What torch's autocast kernels do, asked once for calls that are alike."""

    def __init__(self) -> None:
        self._casts: dict[Any, torch.fx.Graph] = {}
        self._whole: set[Any] = set()

    def casts(
        self, target: OpOverload, operands: _Operands, key: DispatchKey, state: State
    ) -> torch.fx.Graph:
        """What the autocast kernel of `target` calls, as a graph over the operands' nodes."""
        known = (target, operands.key, key, tuple(state.items()))
        if known not in self._casts:
            self._casts[known] = _trace(target, operands, key, state).graph
        return self._casts[known]

    def parts(
        self, target: OpOverload, operands: _Operands, state: State
    ) -> torch.fx.GraphModule | None:
        """What a composite `target` is made of, if autocast casts inside; None if it can stay."""
        known = (target, operands.key, tuple(state.items()))
        if known in self._whole or not _has_kernel(target, _COMPOSITE):
            return None
        self._whole.add(known)  # before asking: some operators are made of themselves
        parts = _trace(target, operands, _COMPOSITE, state)
        if not any(self._is_cast(node, state) for node in parts.graph.nodes):
            return None
        self._whole.remove(known)
        return parts

    def _is_cast(self, node: torch.fx.Node, state: State) -> bool:
        target = node.target
        if not isinstance(target, OpOverload) or _casts_nothing(target):
            return False
        operands = _Operands.of(node.args, node.kwargs)
        if _kernel(target, operands, state) is not None:
            return True
        return self.parts(target, operands, state) is not None

    def run(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What `target` gives on the fake tensors of its operands."""
        operands = _Operands.of(args, kwargs)
        with _fakes_of(operands), torch.no_grad(), autocast_set_to(OFF):
            return operands.call(target, operands.values)


def _trace(
    target: OpOverload, operands: _Operands, key: DispatchKey, state: State
) -> torch.fx.GraphModule:
    """What the kernel of `target` for `key` calls, on the operands' fake tensors."""

    def run(*values: Any) -> Any:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            return target.redispatch(DispatchKeySet(key), *args, **kwargs)

        return operands.call(kernel, values)

    with _fakes_of(operands), torch.no_grad(), autocast_set_to(state):
        return make_fx(run, pre_dispatch=True)(*operands.values)


def _fakes_of(operands: _Operands) -> Any:
    return detect_fake_mode(operands.values) or nullcontext()
