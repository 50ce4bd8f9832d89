"""What import makes simpler: torch's many spellings of one pure value become one.

    view, flatten, reshape_as ...             ->  aten.reshape      with every size stated
    clone, contiguous, detach, dropout(eval)  ->  nothing           values have no memory
    to, type_as, float ...                    ->  aten._to_copy     or nothing
    expand_as, expand(-1)                     ->  aten.expand       with every size stated

and what may not be imported at all: training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from rewright.errors import UnsupportedError
from rewright.ir.location import Location

RESHAPES: Final = frozenset(
    "aten.view aten._unsafe_view aten.reshape aten.view_as aten.reshape_as aten._reshape_alias "
    "aten.flatten.using_ints aten.unflatten.int aten.view_copy aten._reshape_copy "
    "aten.ravel".split()
)
"""Ops that keep the elements in order and only state another shape."""

IDENTITIES: Final = frozenset(
    "aten.clone aten.contiguous aten.detach aten.alias aten.lift aten.lift_fresh "
    "aten.lift_fresh_copy aten.alias_copy aten.detach_copy aten.resolve_conj aten.resolve_neg "
    "aten.dropout aten.feature_dropout aten.alpha_dropout aten.feature_alpha_dropout "
    "aten.positive".split()
)
"""Ops that give back the same numbers."""

CASTS: Final = frozenset(
    "aten.to.dtype aten.to.device aten.to.dtype_layout aten.to.other aten.to.prim_Device "
    "aten.to.prim_dtype aten.to.prim_other aten._to_copy aten.type_as "
    "prims.convert_element_type prims.device_put".split()
)
"""Ops that change the dtype or the device, or nothing."""

MAY_COPY: Final = frozenset(
    "aten.reshape aten.reshape_as aten.flatten.using_ints aten.ravel aten.contiguous "
    "aten.resolve_conj aten.resolve_neg aten.clone".split()
) | {name for name in CASTS if name.startswith("aten.")}
"""Ops whose schemas allow a view, but which copy where they must."""

RETURN_SELF: Final = (
    IDENTITIES - {"aten.detach", "aten.alias"} | CASTS | {"aten.flatten.using_ints"}
)
"""Ops that return their operand itself where there is nothing to do; others make a new tensor
that shares its memory (``view``, ``detach``, ``expand``)."""

EXPANDS: Final = frozenset("aten.expand aten.expand_as aten.expand_copy".split())

EACH_VIEWS: Final[Mapping[str, tuple[str, str]]] = {
    "aten.broadcast_tensors": ("aten.expand", "size"),
    "aten.atleast_1d.Sequence": ("aten.reshape", "shape"),
    "aten.atleast_2d.Sequence": ("aten.reshape", "shape"),
    "aten.atleast_3d.Sequence": ("aten.reshape", "shape"),
}
"""Ops that make a view of each tensor of a list: the one that makes one, and its parameter."""

DROPPED: Final = frozenset(
    "aten._assert_tensor_metadata aten.sym_constrain_range_for_size "
    "aten.sym_constrain_range".split()
)
"""Checks of what types already say."""

_OF_MEMORY: Final = {
    "pin_memory": None,
    "memory_format": None,
    "non_blocking": None,
    "cudnn_enable": None,
    "layout": torch.strided,
}
"""Arguments that say where and how memory lies, not what it holds: they mean nothing to a value.
Those of another value than the one given (None: any) are kept."""


def without_memory(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an ATen op without those about memory."""
    return {
        name: entry
        for name, entry in entries.items()
        if name not in _OF_MEMORY or (_OF_MEMORY[name] is not None and entry != _OF_MEMORY[name])
    }


_TRAINING: Final[Mapping[str, str]] = {
    "aten.dropout": "train",
    "aten.feature_dropout": "train",
    "aten.alpha_dropout": "train",
    "aten.feature_alpha_dropout": "train",
    "aten.native_dropout": "train",
    "aten.rrelu": "training",
    "aten.rrelu_": "training",
    "aten.rrelu_with_noise": "training",
    "aten.instance_norm": "use_input_stats",
    "aten.batch_norm": "training",
    "aten.cudnn_batch_norm": "training",
    "aten.native_batch_norm": "training",
    "aten._batch_norm_impl_index": "training",
    "aten._native_batch_norm_legit": "training",
    "aten._native_batch_norm_legit_functional": "training",
    "aten._batch_norm_with_update": "",
    "aten._batch_norm_with_update_functional": "",
    "aten._fused_dropout": "",
    "aten.lstm.input": "train",
    "aten.gru.input": "train",
    "aten.rnn_tanh.input": "train",
    "aten.rnn_relu.input": "train",
}
"""The parameter that says "training"; ``""`` where the op exists for nothing else."""

_RECURRENT: Final = ("aten.lstm", "aten.gru", "aten.rnn")


def refuse_training(name: str, named: Mapping[str, Any], loc: Location | None) -> None:
    """Refuses an op that trains: dropout that drops, batch norm that updates its statistics.

    Raises:
        UnsupportedError: naming the op and the user's line.
    """
    if name == "aten.scaled_dot_product_attention" and named.get("dropout_p"):
        raise _training(f"{name} drops at random", loc)
    flag = _TRAINING.get(name)
    if flag is None or (flag and not named.get(flag, False)):
        return
    if "norm" in name and named.get("running_mean") is None:
        return  # track_running_stats=False: eval mode, too, takes the batch's own statistics
    if name.startswith(_RECURRENT) and not named.get("dropout"):
        return
    if "dropout" in name and named.get("p") == 0:
        return
    what = "updates batch statistics" if "norm" in name else "drops at random"
    raise _training(f"{name} {what}", loc)


def _training(what: str, loc: Location | None) -> UnsupportedError:
    return UnsupportedError(
        f"{what}: the model is in training mode",
        where=loc,
        hint="call model.eval() before compiling; Rewright compiles inference",
    )
