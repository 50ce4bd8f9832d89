"""How a node is called in torch: its arguments in torch's form, its results as a flat tuple."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch._ops import OpOverload

from rewright.ir.attributes import Attributes, Opaque, Record
from rewright.ir.ops import Op


def torch_arguments(attributes: Attributes, put: Callable[[Any], Any]) -> dict[str, Any]:
    """`attributes` as torch takes them: records are dicts, opaque objects themselves.

    Args:
        attributes: the attributes of a node.
        put: gives what stands for any other leaf (an operand, a region, a size).
    """
    return {name: torch_argument(item, put) for name, item in attributes.items()}


def torch_argument(item: Any, put: Callable[[Any], Any]) -> Any:
    """One attribute as torch takes it; see :func:`torch_arguments`."""
    if isinstance(item, tuple):
        return tuple(torch_argument(part, put) for part in item)
    if isinstance(item, Record):
        return {name: torch_argument(part, put) for name, part in item.items}
    return item.value if isinstance(item, Opaque) else put(item)


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
