"""How a node is called in torch: its arguments in torch's form, its results as a flat tuple."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from torch._ops import OpOverload

from rewright.ir.attributes import Attributes, Opaque, Record
from rewright.ir.ops import Op


def torch_arguments(
    attributes: Attributes,
    put: Callable[[Any], Any],
    hold: Callable[[Opaque], Any] = attrgetter("value"),
) -> dict[str, Any]:
    """`attributes` as torch takes them, records as dicts.

    Args:
        attributes: the attributes of a node.
        put: gives what stands for a leaf (an operand, a region, a size, a number).
        hold: gives what stands for an opaque object: by default the object itself.
    """

    def argument(item: Any) -> Any:
        if isinstance(item, tuple):
            return tuple(argument(part) for part in item)
        if isinstance(item, Record):
            return {name: argument(part) for name, part in item.items}
        return hold(item) if isinstance(item, Opaque) else put(item)

    return {name: argument(item) for name, item in attributes.items()}


def flat_results(returned: Any) -> tuple[Any, ...]:
    """What torch returned, as the results of a node: lists in tuples are taken apart."""
    if not isinstance(returned, list | tuple):
        return (returned,)
    flat: list[Any] = []
    for item in returned:
        flat.extend(item if isinstance(item, list | tuple) else (item,))
    return tuple(flat)


def nests_results(op: Op) -> bool:
    """Whether torch may return lists inside a tuple for `op`: then :func:`flat_results` matters."""
    if isinstance(op.target, OpOverload):
        returns = op.target._schema.returns
        return len(returns) > 1 and any(str(item.type).startswith("List[") for item in returns)
    return op.name.startswith("rw.functional.")


_BARE: Final[Mapping[str, frozenset[int]]] = {
    "higher_order.while_loop": frozenset((0,)),  # cond_fn
    "higher_order.flex_attention": frozenset((0, 1)),  # score_mod, mask_mod
}


def returns_bare(op: Op, region: int) -> bool:
    """Whether torch expects region number `region` of `op` to return its one result by itself.

    All others return tuples.
    """
    return region in _BARE.get(op.name, ())
