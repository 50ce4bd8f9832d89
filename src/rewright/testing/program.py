"""Compiled programs run by the reference evaluator: what their engines would compute, anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from rewright.testing.evaluator import evaluate_network

if TYPE_CHECKING:
    from rewright.backends.tensorrt.emitter import Emitted
    from rewright.backends.tensorrt.segment import Segment
    from rewright.program import CompiledProgram


def evaluate(program: CompiledProgram, /, *args: Any, **kwargs: Any) -> Any:
    """Calls `program`, its TensorRT segments computed from their networks, by no engine.

    The networks are those that the engines were built from; what Torch runs, Torch runs here, too.
    So a wrong number is the converter's if it shows here, and a kernel's if it does not.

    Args:
        program: what a compile returned.
        args, kwargs: as the program itself takes them, on the CPU.

    Returns:
        What the program returns.

    Raises:
        InputError: the arguments don't fit.
        EngineError: a network contradicts itself.
    """
    from rewright.backends.torch.build import build
    from rewright.ir.segments import segments_of

    nodes = {node.regions[0].name: node for node in segments_of(program.graph)}
    attached = {nodes[segment.name]: _Evaluated(segment) for segment in program.segments}
    built = build(program.graph, program.signature, program.settings, None, attached)
    return built.call(*args, **kwargs)


@attrs.frozen
class _Evaluated:
    """A segment that is evaluated.

    Attributes:
        segment: the segment of the program.
    """

    segment: Segment

    @property
    def constant_names(self) -> tuple[str, ...]:
        """The constants that its network has."""
        return self.segment.constant_names

    def bind(
        self, constants: Mapping[str, Tensor], in_torch: Callable[..., Any]
    ) -> Callable[..., Any]:
        """What evaluates the network with `constants`."""
        from rewright.backends.tensorrt.emitter import emit

        segment = self.segment
        given = {name: constants[name] for name in segment.graph.constants}
        emitted = emit(segment.graph, segment.library, given)
        return lambda *operands: _run(emitted, [operands[at] for at in segment.inputs])


def _run(emitted: Emitted, inputs: list[Any]) -> list[Any]:
    known = dict(zip(emitted.graph.inputs, inputs, strict=True))
    given = {port.name: _tensor(known[port.value]) for port in emitted.inputs}
    outputs = evaluate_network(emitted.net.definition, given, emitted.net.weights)
    return [outputs[port.name] for port in emitted.outputs]


def _tensor(value: Any) -> Tensor:
    return value.contiguous() if isinstance(value, Tensor) else torch.tensor(value)
