"""Other weights for a compiled program, without compiling it again.

A program holds some weights as they are, and of others what was made of them before any call:
folded constants, engines, copies on another device. Refitting makes all of that again, from tensors
that are given or from the program's own as they are now. Code stays what it is: no pass runs,
nothing is traced, and Inductor compiles nothing.

The new program is complete before it takes the place of the old one, in one assignment. So a call
computes with all old weights or with all new ones, and where refitting fails nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch

from rewright.errors import InputError, UnsupportedError, did_you_mean
from rewright.frontends.tensor_kinds import refuse_class, refuse_layout
from rewright.ir.graph import Constant, Graph
from rewright.ir.types import TensorType

if TYPE_CHECKING:
    from rewright.program import CompiledProgram

__all__ = ["refit"]


def refit(program: CompiledProgram, state_dict: Mapping[str, Any] | None, *, strict: bool) -> None:
    """Gives `program` other weights: see :meth:`~rewright.program.CompiledProgram.refit`.

    The caller sees to it that a program is refitted once at a time.
    """
    rebind = program._built.rebind
    if rebind is None:
        raise UnsupportedError(
            "the program takes its parameters as arguments, and can't be refitted",
            hint="edit or replace the parameters: every call computes with what they are",
        )
    if state_dict is not None and not isinstance(state_dict, Mapping):
        raise InputError(
            f"refit takes tensors by name, not a {type(state_dict).__name__}",
            hint="pass model.state_dict(), or nothing, after an edit in place",
        )
    engines = [segment.engine for segment in program.segments]
    try:
        with torch.inference_mode(False), torch.no_grad():
            given = _given(program, state_dict, strict) if state_dict is not None else {}
            _check_known(program.graph, given)
            call = rebind(given)
    except BaseException:
        for segment, engine in zip(program.segments, engines, strict=True):
            segment.engine = engine
        raise
    for graph in (program.graph, *(segment.graph for segment in program.segments)):
        for name in given.keys() & graph.constants.keys():
            graph.constants[name].data = given[name]
    program._built, program._call = attrs.evolve(program._built, call=call), call


def _given(
    program: CompiledProgram, state_dict: Mapping[str, Any], strict: bool
) -> dict[str, torch.Tensor]:
    """The tensors of `state_dict` by the names of the sources that they replace, checked."""
    graph = program.graph
    sources = [constant for constant in graph.constants.values() if constant.is_source]
    owners = {name: c for c in sources for name in (*c.aliases, c.name)}
    for name in state_dict:
        if name not in owners:
            raise InputError(
                f"the program has no weight {name!r}",
                name=str(name),
                hint=did_you_mean(str(name), owners),
            )
    if strict:
        _check_whole(sources, state_dict)
    given: dict[str, tuple[str, torch.Tensor]] = {}
    for name, value in state_dict.items():
        constant = owners[name]
        tensor = _checked(name, value, constant, graph)
        other, first = given.setdefault(constant.name, (name, tensor))
        if first is not tensor and not _is_one(first, tensor):
            raise InputError(
                f"{other!r} and {name!r} are one weight of the program, and two different tensors "
                "are given for it",
                name=name,
                hint="give the same numbers for both, or compile a model in which they are apart",
            )
    written = {target.name for target in graph.targets if isinstance(target, Constant)}
    return {
        name: _laid_out(tensor, graph.constants[name], program, name in written)
        for name, (_, tensor) in given.items()
    }


def _check_whole(sources: Iterable[Constant], state_dict: Mapping[str, Any]) -> None:
    """Refuses a state dict that lacks a parameter."""
    parameters = (constant for constant in sources if constant.kind == "parameter")
    missing = [c.name for c in parameters if not {c.name, *c.aliases} & state_dict.keys()]
    if missing:
        more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise InputError(
            f"the parameter {missing[0]!r}{more} not given",
            name=missing[0],
            hint="give them all; with strict=False, the program keeps those that are not given",
        )


def _check_known(graph: Graph, given: Mapping[str, torch.Tensor]) -> None:
    """Refuses a refit of a program that was saved without a source that it needs for it."""
    for constant in graph.constants.values():
        has_data = constant.data is not None and not constant.data.is_meta
        if constant.is_source and constant.uses and not (has_data or constant.name in given):
            raise InputError(
                f"the program has no data of the weight {constant.name!r}, which others are made "
                "from",
                name=constant.name,
                hint="give it to refit, too",
            )


def _checked(name: str, value: Any, constant: Constant, graph: Graph) -> torch.Tensor:
    """`value`, a tensor that can take the place of `constant`."""
    if not isinstance(value, torch.Tensor):
        raise InputError(
            f"the weight {name!r} is a {type(value).__name__}, not a tensor", name=name
        )
    refuse_layout(value, f"the weight {name}", name)
    refuse_class(value, f"the weight {name}", name)
    assert isinstance(constant.type, TensorType)
    there = torch.device(constant.type.device or graph.device)
    wanted = constant.type.dtype, tuple(constant.type.shape)
    if (value.dtype, tuple(value.shape)) != wanted or not _may_be_on(value.device, constant, there):
        found = TensorType(value.dtype, tuple(value.shape))
        kind = TensorType(*wanted)
        cast = [str(wanted[0])] if value.dtype != wanted[0] else []
        moved = [repr(str(there))] if value.device.type != there.type else []
        can_move = (cast or moved) and tuple(value.shape) == wanted[1]
        raise InputError(
            f"the weight {name!r} is {found} on {value.device}, and the program needs {kind} "
            f"on {there}",
            name=name,
            hint=f"pass it .to({', '.join((*moved, *cast))})" if can_move else None,
        )
    return value.detach()


def _may_be_on(device: torch.device, constant: Constant, there: torch.device) -> bool:
    """Whether a tensor on `device` is where the program is, or where it was moved from."""
    was = constant.data.device if constant.data is not None else there
    return any(
        device.type == d.type and (device.index or 0) == (d.index or 0) for d in (there, was)
    )


def _is_one(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one type are one, or hold the same numbers."""
    same = a.data_ptr() == b.data_ptr() and a.stride() == b.stride()
    return same or torch.equal(a, b.to(a.device))


def _laid_out(
    tensor: torch.Tensor, constant: Constant, program: CompiledProgram, is_written: bool
) -> torch.Tensor:
    """`tensor` itself; a copy where the program writes to it, or knows the strides by heart."""
    old = constant.data
    is_fixed = old is not None and program.settings.torch_backend == "inductor"
    if old is not None and is_fixed and tensor.stride() != old.stride():
        laid = torch.empty_strided(
            old.shape, old.stride(), dtype=tensor.dtype, device=tensor.device
        )
        return laid.copy_(tensor)
    return tensor.clone() if is_written else tensor
