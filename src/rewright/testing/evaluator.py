"""`evaluate_network`: what a network computes, by TensorRT's documentation and nothing else."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from rewright.errors import EngineError, InputError, UnsupportedError, did_you_mean
from rewright.testing.dtypes import torch_dtype
from rewright.testing.graph import Graph, fits
from rewright.testing.plan import Plan, Scope, Step, order

__all__ = ["evaluate_network"]

Tensor: TypeAlias = torch.Tensor


def evaluate_network(
    network: Any,
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
    profile: Any | None = None,
) -> dict[str, Tensor]:
    """Compute the outputs of a TensorRT network on the CPU, without an engine.

    Args:
        network: an ``INetworkDefinition`` of any TensorRT package. It is read, not changed, and
            must still have the memory that its weights were given in.
        inputs: a tensor for each network input, by name, of its exact dtype. Only CPU tensors.
        weights: the values of weights by layer name, for a constant; by ``"<layer name>.kernel"``,
            ``.bias``, ``.shift``, ``.scale`` or ``.power`` for other layers. Those not in it are
            read from the network.
        profile: an ``IOptimizationProfile`` whose ranges the inputs must keep to.

    Returns:
        For each network output, by name in the network's order, a tensor of its own memory.

    Raises:
        InputError: an input is missing, unknown, or not of its tensor's type.
        UnsupportedError: a layer whose meaning is not documented, or not known here.
        EngineError: TensorRT refuses a layer, or the layer can't be computed of these values, or
            an assertion fails; or what was computed is not of the type that TensorRT infers.
    """
    values = _checked_inputs(network, inputs, profile)
    graph = Graph(network, weights or {})
    wanted = [network.get_output(index).name for index in range(network.num_outputs)]
    if not wanted:
        raise EngineError(
            "the network has no outputs", hint="mark its results: network.mark_output(tensor)"
        )
    with torch.no_grad():
        scope = Scope(dict(values))
        for assertion in graph.assertions:
            _assert(graph, assertion, scope)
        results = Plan(graph, wanted, values).run(scope)
        # Views of inputs, of weights or of one another would change with them.
        return {
            name: result.clone(memory_format=torch.contiguous_format)
            for name, result in zip(wanted, results, strict=True)
        }


def _assert(graph: Graph, assertion: Step, scope: Scope) -> None:
    steps = order(graph, assertion.reads, scope)
    if any(graph.is_conditional(name) for step in (*steps, assertion) for name in step.reads):
        raise UnsupportedError(
            "an assertion inside a loop or a branch can't be evaluated", where=assertion.where
        )
    inner = Scope({}, scope)
    Plan(graph, assertion.reads, scope).run(inner)
    assertion.run(inner)


def _checked_inputs(
    network: Any, inputs: Mapping[str, Tensor], profile: Any | None
) -> dict[str, Tensor]:
    tensors = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        tensors[tensor.name] = tensor
    for name in inputs:
        if name not in tensors:
            raise InputError(
                f"the network has no input {name!r}", name=name, hint=did_you_mean(name, tensors)
            )
    named: dict[str, tuple[str, int]] = {}
    for name, tensor in tensors.items():
        if name not in inputs:
            raise InputError(f"no value is given for network input {name!r}", name=name)
        value = inputs[name]
        shape, dtype = tuple(tensor.shape), torch_dtype(tensor.dtype)
        if value.device.type != "cpu" or not fits(value, shape, dtype):
            raise InputError(
                f"network input {name!r} is {dtype}{list(shape)}, but the value given is "
                f"{value.dtype}{list(value.shape)} on {value.device}",
                name=name,
                hint="give a CPU tensor of the input's dtype and shape; -1 stands for any size",
            )
        _check_named(tensor, value, named)
        if profile is not None:
            _check_profile(tensor, value, profile)
    return {name: inputs[name].detach() for name in tensors}


def _check_named(tensor: Any, value: Tensor, named: dict[str, tuple[str, int]]) -> None:
    """Dimensions of one name must be equal."""
    for axis, size in enumerate(value.shape):
        label = tensor.get_dimension_name(axis)
        if not label:
            continue
        first, expected = named.setdefault(label, (tensor.name, size))
        if size != expected:
            raise InputError(
                f"dimension {label!r} is {expected} in {first!r}, but {size} in {tensor.name!r}",
                name=tensor.name,
            )


def _check_profile(tensor: Any, value: Tensor, profile: Any) -> None:
    """That a shape is in the profile's range; of a shape tensor, that its values are."""
    if tensor.is_shape_tensor:
        ranges, got = profile.get_shape_input(tensor.name), value.flatten().tolist()
    else:
        ranges, got = profile.get_shape(tensor.name), list(value.shape)
    low, high = ([*ranges[0]], [*ranges[2]]) if ranges else (got, got)
    if not all(a <= size <= b for a, size, b in zip(low, got, high, strict=True)):
        raise InputError(
            f"network input {tensor.name!r} is {got}, outside of its profile's range {low} to "
            f"{high}",
            name=tensor.name,
        )
