"""What "equals eager" means: numbers, structure, strides, aliasing, mutation, and no fallback."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

import rewright
from rewright.ir.parser import parse_graph
from rewright.ir.verifier import verify
from rewright.program import CompiledProgram

Args = Sequence[Any]


def export_and_compare(
    module: nn.Module,
    *calls: Args,
    dynamic_shapes: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    **settings: Any,
) -> CompiledProgram:
    """Exports `module` on the first of `calls`, compiles, and compares every call with eager.

    Two copies of the module run side by side, so that mutated buffers are compared, too.
    """
    module = module.eval()
    eager = copy.deepcopy(module)
    kwargs = dict(kwargs or {})
    with torch.no_grad():
        exported = torch.export.export(
            module, fresh(calls[0]), fresh(kwargs), dynamic_shapes=dynamic_shapes, strict=False
        )
        before = rewright.stats()
        program = rewright.compile_exported(exported, **settings)
        verify(program.graph, stage="imported", retype=True)
        text = str(program.graph)
        assert str(parse_graph(text)) == text
        for call in calls:
            compare_call(program, eager, call, kwargs)
    done = rewright.stats() - before
    assert done.nodes > 0
    assert done.graphs == 1
    assert done.fallbacks == 0
    for (name, ours), (_, theirs) in zip(
        exported.named_buffers(), eager.named_buffers(), strict=False
    ):
        torch.testing.assert_close(ours, theirs, msg=lambda m, name=name: f"buffer {name}: {m}")
    return program


def fresh(values: Any) -> Any:
    """A copy of arguments, tensors cloned with their strides."""

    def copied(item: Any) -> Any:
        if not isinstance(item, torch.Tensor):
            return item
        return torch.empty_strided(
            item.shape, item.stride(), dtype=item.dtype, device=item.device
        ).copy_(item)

    return tree_map(copied, tuple(values) if isinstance(values, list) else values)


def compare_call(program: Any, eager: nn.Module, args: Args, kwargs: Mapping[str, Any]) -> None:
    """One call of both on equal inputs: results, their memory, and the inputs afterwards."""
    ours, theirs = fresh(tuple(args)), fresh(tuple(args))
    our_kwargs, their_kwargs = fresh(dict(kwargs)), fresh(dict(kwargs))
    actual = program(*ours, **our_kwargs)
    expected = eager(*theirs, **their_kwargs)
    compare_results(actual, expected)
    torch.testing.assert_close(_tensors((ours, our_kwargs)), _tensors((theirs, their_kwargs)))
    assert memory_map(actual, (ours, our_kwargs)) == memory_map(expected, (theirs, their_kwargs))


def _tensors(values: Any) -> list[torch.Tensor]:
    return [item for item in tree_flatten(values)[0] if isinstance(item, torch.Tensor)]


def compare_results(actual: Any, expected: Any) -> None:
    """Structure, types, numbers and strides of two results."""
    flat, spec = tree_flatten(actual)
    wanted, wanted_spec = tree_flatten(expected)
    assert spec == wanted_spec, f"{spec} is not {wanted_spec}"
    for a, b in zip(flat, wanted, strict=True):
        assert type(a) is type(b), f"{type(a)} is not {type(b)}"
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b)
            assert a.stride() == b.stride() or a.numel() <= 1, f"{a.stride()} != {b.stride()}"
        else:
            assert a == b or (a != a and b != b), f"{a} is not {b}"


def memory_map(results: Any, inputs: Any) -> list[Any]:
    """For every result: the first input or result that has its storage, and where it is in it."""
    owners = [
        item.untyped_storage().data_ptr() if isinstance(item, torch.Tensor) else -1
        for item in tree_flatten((inputs, results))[0]
    ]
    inputs_count = len(tree_flatten(inputs)[0])
    found = []
    for at, item in enumerate(tree_flatten(results)[0]):
        if isinstance(item, torch.Tensor) and item.numel():
            owner = owners.index(owners[inputs_count + at])
            found.append((owner, item.storage_offset() if owner < inputs_count else None))
        else:
            found.append(None)
    return found
