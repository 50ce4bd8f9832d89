"""Conditionals and loops: regions as TensorRT's own control flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import torch

from rewright.backends.tensorrt.declaration import Call, converts, supports
from rewright.backends.tensorrt.dtypes import COMPUTED
from rewright.backends.tensorrt.enums import LoopOutput, TripLimit
from rewright.backends.tensorrt.needs import Query, That
from rewright.backends.tensorrt.shaping import reshape
from rewright.backends.tensorrt.tensor import Tensor
from rewright.ir.graph import Graph
from rewright.ir.types import ScalarType, TensorType

_ANY: Final = {"out": COMPUTED}


@attrs.frozen
class _Taken:
    """TensorRT takes every node of the regions."""

    def reason(self, query: Query) -> str | None:
        for region in query.node.regions:
            for node in region:
                refusal = supports(node, query.library)
                if refusal is not None:
                    loc = node.loc
                    line = f" ({loc.file}:{loc.line})" if loc is not None and loc.file else ""
                    return f"a region of it has {node.op.name}{line}: {refusal}"
        return None

    def __str__(self) -> str:
        return "regions of which TensorRT takes every node"


def _tensors_only(query: Query) -> bool:
    """Whether regions take and give nothing but tensors and numbers."""
    values = [
        value
        for region in query.node.regions
        for value in (*region.inputs, *region.terminator.operands)
    ]
    return all(isinstance(value.type, TensorType | ScalarType) for value in values)


_TAKEN: Final = _Taken()
_PLAIN: Final = That("regions of tensors and numbers", _tensors_only)


def _tensor(call: Call, item: Any) -> Tensor:
    """An argument of a region as a tensor; a size is one without dimensions."""
    if isinstance(item, Tensor):
        return item
    kind = torch.bool if isinstance(item, bool) else torch.int64
    return call.net.scalar(item, torch.float32 if isinstance(item, float) else kind)


def _run(call: Call, region: Graph, arguments: Sequence[Tensor]) -> list[Tensor]:
    """The results of a region for arguments, its nodes converted here."""
    from rewright.backends.tensorrt.emitter import Scope

    scope = Scope(call.net, region)
    scope.values.update(zip(region.inputs, arguments, strict=True))
    scope.run()
    results = [scope.as_tensor(value) for value in region.outputs]
    # a branch must have a layer of its own even where it only hands an argument on
    return [call.net.layer("add_identity", result) for result in results]


@converts("higher_order.cond", dtypes=_ANY, needs=[_PLAIN, _TAKEN])
def cond(call: Call, pred: Any, true_fn: Graph, false_fn: Graph,
         operands: Sequence[Any]) -> list[Tensor]:  # fmt: skip
    """IF_CONDITIONAL"""
    net = call.net
    conditional = net.definition.add_if_conditional()
    conditional.name = net.unique_name("if")
    chosen = reshape(_tensor(call, pred).to(torch.bool), ())
    net.finish("set_condition", conditional.set_condition(chosen.handle))
    inner = [
        net.finish("add_input", conditional.add_input(_tensor(call, item).handle))
        for item in operands
    ]
    branches = [_run(call, region, inner) for region in (true_fn, false_fn)]
    net.keep(conditional)
    return [
        net.finish("add_output", conditional.add_output(yes.handle, no.handle))
        for yes, no in zip(*branches, strict=True)
    ]


@converts("higher_order.while_loop", dtypes=_ANY, needs=[_PLAIN, _TAKEN])
def while_loop(call: Call, cond_fn: Graph, body_fn: Graph, carried_inputs: Sequence[Any],
               additional_inputs: Sequence[Any]) -> list[Tensor]:  # fmt: skip
    """LOOP, WHILE"""
    net = call.net
    loop = net.definition.add_loop()
    loop.name = net.unique_name("loop")
    net.keep(loop)
    extra = [_tensor(call, item) for item in additional_inputs]
    recurrences, carried = _recur(call, loop, carried_inputs)
    (goes_on,) = _run(call, cond_fn, [*carried, *extra])
    going = reshape(goes_on, ())
    net.finish("add_trip_limit", loop.add_trip_limit(going.handle, net.native(TripLimit.WHILE)))
    _feed(recurrences, _run(call, body_fn, [*carried, *extra]))
    return [_last(call, loop, tensor) for tensor in carried]


@converts("higher_order.scan", dtypes=_ANY, needs=[_PLAIN, _TAKEN])
def scan(call: Call, combine_fn: Graph, init: Sequence[Any], xs: Sequence[Any],
         additional_inputs: Sequence[Any]) -> list[Tensor]:  # fmt: skip
    """LOOP, COUNT, an ITERATOR for each sequence"""
    net = call.net
    loop = net.definition.add_loop()
    loop.name = net.unique_name("loop")
    net.keep(loop)
    times = call.node.arg("xs")[0].type.shape[0]
    count = net.scalar(times, torch.int32)
    net.finish("add_trip_limit", loop.add_trip_limit(count.handle, net.native(TripLimit.COUNT)))
    extra = [_tensor(call, item) for item in additional_inputs]
    recurrences, carried = _recur(call, loop, init)
    parts = [net.finish("add_iterator", loop.add_iterator(x.handle, 0, False)) for x in xs]
    results = _run(call, combine_fn, [*carried, *parts, *extra])
    _feed(recurrences, results[: len(carried)])
    kind = net.native(LoopOutput.CONCATENATE)
    rows = [
        net.finish("add_loop_output", loop.add_loop_output(row.handle, kind, 0), {1: count})
        for row in results[len(carried) :]
    ]
    return [*(_last(call, loop, tensor) for tensor in carried), *rows]


def _recur(call: Call, loop: Any, initial: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """What goes around a loop: its layers, and the tensors that its body sees."""
    layers = [loop.add_recurrence(_tensor(call, item).handle) for item in initial]
    return layers, [call.net.finish("add_recurrence", layer) for layer in layers]


def _feed(recurrences: Sequence[Any], values: Sequence[Tensor]) -> None:
    for recurrence, value in zip(recurrences, values, strict=True):
        recurrence.set_input(1, value.handle)


def _last(call: Call, loop: Any, tensor: Tensor) -> Tensor:
    """What goes around, when the loop has ended."""
    kind = call.net.native(LoopOutput.LAST_VALUE)
    return call.net.finish("add_loop_output", loop.add_loop_output(tensor.handle, kind, 0))
