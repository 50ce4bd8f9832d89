"""Higher-order operators at import: inlined where they only wrap, regions where they branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sympy
import torch
from torch.utils._pytree import tree_leaves, tree_unflatten

from rewright.errors import UnsupportedError
from rewright.frontends.functional import Alias
from rewright.frontends.symbols import SymbolTable, bind_inputs, is_symbolic, scalar_kind
from rewright.ir.attributes import leaves, map_leaves
from rewright.ir.graph import Graph
from rewright.ir.ops import get_op
from rewright.ir.types import NoneType, ScalarType

if TYPE_CHECKING:
    from torch._ops import HigherOrderOperator

    from rewright.frontends.importer import Importer

_INLINED: Final[dict[str, tuple[int, int]]] = {
    "wrap": (0, 1),
    "wrap_with_set_grad_enabled": (1, 2),
    "wrap_activation_checkpoint": (0, 1),
    "tag_activation_checkpoint": (0, 1),
    "hints_wrapper": (0, 1),
    "strict_mode": (0, 1),
    "invoke_subgraph": (0, 2),
}
"""Operators that only wrap a subgraph: where it is among the arguments, and where its own
arguments begin."""

_EXTRA: Final[dict[str, str]] = {
    "cond": "operands",
    "while_loop": "additional_inputs",
    "scan": "additional_inputs",
    "map_impl": "pos_args",
}
"""The argument that takes what regions use from outside; it goes last to every region."""


def run(importer: Importer, node: torch.fx.Node, target: HigherOrderOperator) -> Any:
    """Imports one higher-order call; returns its entry (mostly a tuple).

    Raises:
        UnsupportedError: a wrapper around another program (a mutation that was made functional
            elsewhere, an operator of unknown calling convention with free sizes).
    """
    name = target.name()
    if name in _INLINED:
        return _inline(importer, node, *_INLINED[name])
    if name == "triton_kernel_wrapper_mutation":
        return _triton(importer, node)
    if name == "flat_apply" and _MOD_INDEX in node.args:
        return _index(importer, node)
    if name.startswith("auto_functionalized"):
        raise UnsupportedError(
            f"{name} stands for a custom op that mutates",
            hint="compile the ExportedProgram as torch.export gave it, before run_decompositions()",
        )
    return _with_regions(importer, node, target)


def _inline(importer: Importer, node: torch.fx.Node, at: int, first: int) -> Any:
    module = importer.entry(node.args[at])
    given = [importer.entry(arg) for arg in node.args[first:]]
    if len(given) == 1 and isinstance(given[0], tuple):
        given = list(given[0])
    names = [n for n in module.graph.nodes if n.op == "placeholder"]
    importer.env.update(zip(names, given, strict=True))
    return importer.run(module)


_MOD_INDEX: Final = "torch._dynamo._trace_wrapped_higher_order_op.ModIndex"
"""What torch.export makes of ``x[i]`` in a function that it gives to flex_attention: an autograd
function of torch's, whose forward is ``aten.index``."""


def _index(importer: Importer, node: torch.fx.Node) -> Any:
    leaves = [importer.entry(arg) for arg in node.args[2:]]
    (_, indexed, indices), _ = tree_unflatten(leaves, importer.entry(node.args[1]))
    entries = {"self": indexed, "indices": tuple(indices)}
    return importer.pure(get_op("aten.index.Tensor"), entries, node.meta["val"], node.name)


def _with_regions(importer: Importer, node: torch.fx.Node, target: HigherOrderOperator) -> Any:
    op = get_op(target)
    entries = op.bind(
        [importer.entry(arg) for arg in node.args],
        {key: importer.entry(arg) for key, arg in node.kwargs.items()},
    )
    modules = [leaf for leaf in leaves(tuple(entries.values())) if _is_module(leaf)]
    regions = [_region(importer, module) for module in modules]
    extra = list(dict.fromkeys(outer for child in regions for outer in child.extra))
    if extra and target.name() not in _EXTRA:
        raise UnsupportedError(f"{op.name} uses values from outside its region in a way unknown")
    for child in regions:
        _take_extra(child, extra)
    graphs = iter([child.graph for child in regions])
    named = {
        key: importer.argument(map_leaves(entry, lambda e: next(graphs) if _is_module(e) else e))
        for key, entry in entries.items()
    }
    if extra:
        where = _EXTRA[target.name()]
        named[where] = (*named.get(where, ()), *extra)
    value = node.meta.get("val")
    kinds = tuple(value) if isinstance(value, list | tuple) else (value,)
    types = tuple(importer.type_of(item) for item in kinds)
    named = importer.keep_layouts(named) if target.name() not in _EXTRA else named
    hints = tuple(f"{node.name}_{i}" for i in range(len(types)))
    results = importer.insert(op, named, types, hints if len(types) > 1 else (node.name,))
    made = [importer.fresh(r, v) for r, v in zip(results, kinds, strict=True)]
    return tuple(made) if isinstance(value, list | tuple) else made[0]


def _is_module(entry: Any) -> bool:
    return isinstance(entry, torch.fx.GraphModule)


def _region(importer: Importer, module: torch.fx.GraphModule) -> Importer:
    """The importer of a region, after it has run."""
    graph = Graph("region", device=importer.graph.device)
    child = importer.child(graph)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            child.env[node] = _parameter(child, node)
    bind_inputs(graph, importer.table)
    entries = [child.output(item) for item in tree_leaves(child.run(module))]
    for size in sorted(_free_sizes(graph), key=str):
        child.lift(size)
    _bind_lifted(graph, importer.table)
    graph.set_outputs([child.argument(entry) for entry in entries])
    return child


def _parameter(child: Importer, node: torch.fx.Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        alias = Alias.fresh(child.graph.add_input(child.type_of(value), node.name))
        alias.storage.fakes.add(int(value.untyped_storage()._cdata))
        return alias
    if value is None:
        child.graph.add_input(NoneType(), node.name)
        return None
    if is_symbolic(value) or isinstance(value, bool | int | float):
        kind = ScalarType(scalar_kind(value), child.table.expression(value))
        child.graph.add_input(kind, node.name)
        return kind.expr
    raise UnsupportedError(f"a region takes a {type(value).__name__}")


def _free_sizes(graph: Graph) -> set[sympy.Symbol]:
    """The symbols that a region mentions and that none of its inputs gives."""
    from rewright.ir.types import type_symbols

    mentioned: set[sympy.Symbol] = set()
    for value in graph.inputs:
        mentioned |= type_symbols(value.type)
    for node in graph.walk():
        mentioned |= node.attributes.symbols()
        for result in node.results:
            mentioned |= type_symbols(result.type)
    return mentioned - graph.symbols.keys()


def _bind_lifted(graph: Graph, table: SymbolTable) -> None:
    bind_inputs(graph, table)


def _take_extra(child: Importer, extra: list[Any]) -> None:
    """Gives a region every outside value that any of its siblings uses, in one order."""
    lifted = [child.lift(outer) for outer in extra]
    graph = child.graph
    kept = [value for value in graph.inputs if value not in lifted]
    graph.inputs[:] = [*kept, *lifted]
    for index, value in enumerate(graph.inputs):
        value.index = index
    _bind_lifted(graph, child.table)


def _triton(importer: Importer, node: torch.fx.Node) -> None:
    """A user's Triton kernel: its functional form, whose results are written back."""
    from torch._higher_order_ops.triton_kernel_wrap import (
        get_mutated_tensors,
        triton_kernel_wrapper_functional,
    )

    given: dict[str, Any] = dict(node.kwargs)
    entries = {key: importer.entry(value) for key, value in given.items()}
    metas: Any = torch.fx.node.map_arg(given["kwargs"], lambda n: n.meta["val"])
    mutated = get_mutated_tensors(
        given["kernel_idx"],
        given["constant_args_idx"],
        metas,
        given.get("tma_descriptor_metadata", {}),
    )
    named: dict[str, Any] = {key: importer.argument(entry) for key, entry in entries.items()}
    named = importer.keep_layouts(named)
    named["tensors_to_clone"] = tuple(mutated)
    written = [entries["kwargs"][name] for name in mutated]
    types = tuple(alias.read(importer.emit).type for alias in written)
    op = get_op(triton_kernel_wrapper_functional)
    results = importer.insert(op, named, types, tuple(str(name) for name in mutated))
    for alias, value in zip(written, results, strict=True):
        alias.write(value, importer.emit)
