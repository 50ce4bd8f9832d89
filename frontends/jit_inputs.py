"""What Dynamo passes to a compiled graph: each flat input named, sorted and checked.

Parameters and buffers are inputs of a JIT graph, since one graph serves several instances of a
module. They become sources that are bound anew at every call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import attrs
import torch
import torch.fx

from rewright.errors import UnsupportedError
from rewright.frontends.compat import is_functorch_wrapped, is_wrapped_float, source_name
from rewright.frontends.importer import Placeholder
from rewright.frontends.locations import clean_path
from rewright.frontends.tensor_kinds import refuse_class, refuse_layout
from rewright.ir.signature import Argument, Signature


@attrs.frozen
class JitInput:
    """One flat input of Dynamo's graph.

    Attributes:
        name: of a parameter or buffer in its model (``layers.0.weight``); of another input, how
            its caller would write it (``cache['key']``).
        kind: ``parameter``, ``buffer`` or ``input``.
        wrapped_float: whether it is a Python float that comes as a tensor.
    """

    name: str
    kind: str
    wrapped_float: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether it becomes a source."""
        return self.kind != "input"


# --------------------------------------------------------------------------- names

_ROOT: Final = re.compile(r"^[LG]\['(\w+)'\]")
_WRAPPER: Final = re.compile(r"^___\w+\((.*)\)$")
_CELL: Final = re.compile(r"\.__closure__\[\d+\]\.cell_contents")


def describe_inputs(
    gm: torch.fx.GraphModule, example_inputs: Sequence[Any]
) -> tuple[JitInput, ...]:
    """The inputs of Dynamo's graph, in order, under names that differ."""
    taken: set[str] = set()
    described = []
    for node, example in zip(gm.graph.find_nodes(op="placeholder"), example_inputs, strict=True):
        source = source_name(node) or node.name
        kind = _kind(source, example)
        name = _unique(_input_name(source) if kind == "input" else _source_path(source), taken)
        described.append(JitInput(name, kind, is_wrapped_float(node)))
    return tuple(described)


def _kind(source: str, example: Any) -> str:
    if isinstance(example, torch.nn.Parameter):
        return "parameter"
    return "buffer" if "._buffers[" in source and isinstance(example, torch.Tensor) else "input"


def _source_path(source: str) -> str:
    """``L['self']._modules['fc']._parameters['weight']`` as ``fc.weight``."""
    return clean_path(_CELL.sub("", source)) or source


def _input_name(source: str) -> str:
    """``L['cache']['key']`` as ``cache['key']``."""
    while wrapped := _WRAPPER.match(source):
        source = wrapped[1]
    return _ROOT.sub(r"\1", source)


def _unique(name: str, taken: set[str]) -> str:
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique


def placeholders_of(inputs: Sequence[JitInput]) -> list[Placeholder]:
    """The inputs as the importer takes them; data is bound at every call."""
    return [
        Placeholder(
            item.name if item.is_constant else re.sub(r"\W+", "_", item.name).strip("_"), item.kind
        )
        for item in inputs
    ]


def signature_of(inputs: Sequence[JitInput]) -> Signature:
    """How the compiled program is called: flat, in Dynamo's order."""
    arguments = []
    count = 0
    for item in inputs:
        if item.is_constant:
            arguments.append(Argument(item.name, constant=item.name))
        else:
            arguments.append(Argument(item.name, input=count))
            count += 1
    return Signature(tuple(arguments))


# --------------------------------------------------------------------------- refusals

_NUMBERS: Final = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)


def refuse_unsupported(inputs: Sequence[JitInput], example_inputs: Sequence[Any]) -> None:
    """Refuses what is neither a plain tensor nor a number.

    Raises:
        UnsupportedError: naming the input.
    """
    for item, example in zip(inputs, example_inputs, strict=True):
        if isinstance(example, torch.Tensor):
            _refuse_tensor(item.name, example)
        elif not isinstance(example, _NUMBERS):
            raise UnsupportedError(
                f"the input {item.name} is a {type(example).__name__}",
                hint="pass tensors and numbers",
            )


def _refuse_tensor(name: str, tensor: torch.Tensor) -> None:
    refuse_layout(tensor, f"the input {name}", name)
    if is_functorch_wrapped(tensor):
        raise UnsupportedError(
            f"the input {name} is inside a torch.func transform (vmap, grad)",
            hint="compile the function that does the transform: torch.compile(vmap(f))",
        )
    refuse_class(tensor, f"the input {name}", name)


def refuse_gradients(inputs: Sequence[JitInput], example_inputs: Sequence[Any]) -> list[str]:
    """Refuses inputs that gradients are wanted for.

    Returns:
        The names of the parameters that are trainable, which is no reason to refuse.

    Raises:
        UnsupportedError: an input that is no parameter requires grad; names it.
    """
    trainable = []
    for item, example in zip(inputs, example_inputs, strict=True):
        if not isinstance(example, torch.Tensor) or not example.requires_grad:
            continue
        if not item.is_constant:
            raise UnsupportedError(
                f"the input {item.name} requires grad, and compiled graphs have no backward",
                hint="call the model under torch.no_grad(), or pass x.detach()",
            )
        trainable.append(item.name)
    return trainable
