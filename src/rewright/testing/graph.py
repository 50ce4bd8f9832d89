"""The layers of a network, as the steps that make its tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch

from rewright.errors import EngineError, RewrightError
from rewright.testing.control import Construct, conditional_step, loop_step, owner_of
from rewright.testing.dtypes import torch_dtype
from rewright.testing.layer import Layer, static_shape
from rewright.testing.plan import Scope, Step
from rewright.testing.table import LAYERS

__all__ = ["Graph", "fits"]

Tensor: TypeAlias = torch.Tensor

#: Layer types whose outputs are made by a whole construct.
_CONSTRUCTS = {"LOOP_OUTPUT": loop_step, "CONDITIONAL_OUTPUT": conditional_step}

#: Layer types whose outputs a loop sets at each iteration.
_SET_BY_LOOP = ("RECURRENCE", "ITERATOR")


def fits(value: Tensor, shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Whether a value has a dtype, and a shape in which -1 stands for any size."""
    return (
        value.dtype == dtype
        and value.dim() == len(shape)
        and all(want in (-1, size) for want, size in zip(shape, value.shape, strict=True))
    )


class Graph:
    """A network's producers (`rewright.testing.plan.Producers`).

    Args:
        network: an ``INetworkDefinition``.
        table: the side table of weights.
    """

    def __init__(self, network: Any, table: Mapping[str, Tensor]) -> None:
        self._made_by: dict[str, Layer] = {}
        self._steps: dict[str, Step] = {}
        self._owner: dict[str, Construct] = {}
        # By the binding's object for a loop or conditional: the same one as long as it lives, for
        # which this dict is there.
        constructs: dict[Any, Construct] = {}
        #: Assertions make nothing, so nothing would demand them.
        self.assertions: list[Step] = []
        for index in range(network.num_layers):
            native = network.get_layer(index)
            known = LAYERS.get(native.type.name)
            layer = Layer(native, known.interface if known else None, table)
            for place in range(native.num_outputs):
                self._made_by[native.get_output(place).name] = layer
            owner = owner_of(layer)
            if owner is not None:
                construct = constructs.setdefault(owner, Construct())
                construct.layers.setdefault(layer.kind, []).append(layer)
                self._owner[layer.name] = construct
            if layer.kind == "ASSERTION":
                self.assertions.append(self._layer_step(layer))
        self._constructs = constructs

    def step(self, name: str) -> Step | None:
        """The step that makes a tensor; None for a network input, and for what loops set."""
        if name in self._steps:
            return self._steps[name]
        layer = self._made_by.get(name)
        if layer is None or layer.kind in _SET_BY_LOOP:
            return None
        if layer.kind in _CONSTRUCTS:
            step = self._construct_step(layer)
        else:
            step = self._layer_step(layer)
        self._steps.update((made, step) for made in step.makes)
        return step

    def is_conditional(self, name: str) -> bool:
        """Whether a tensor has a value only within a loop or a branch: set by its boundary."""
        layer = self._made_by.get(name)
        return layer is not None and layer.kind in (*_SET_BY_LOOP, "CONDITIONAL_INPUT")

    def _construct_step(self, layer: Layer) -> Step:
        step = _CONSTRUCTS[layer.kind](self, self._owner[layer.name])

        def run(scope: Scope) -> Sequence[Tensor]:
            results = step.run(scope)
            for name, value in zip(step.makes, results, strict=True):
                maker = self._made_by[name]
                _check(maker, maker.native.get_output(0), value)
            return results

        return attrs.evolve(step, run=run)

    def _layer_step(self, layer: Layer) -> Step:
        known = LAYERS.get(layer.kind)
        if known is None or known.compute is None:
            raise layer.refuse(known.reason if known else "this layer type is not known here")
        compute = known.compute
        source = layer if known.inputs_of is None else known.inputs_of(layer, self._made_by)
        natives = [source.native.get_input(place) for place in range(source.native.num_inputs)]
        inputs = [None if native is None else native.name for native in natives]
        outputs = [layer.native.get_output(place) for place in range(layer.native.num_outputs)]

        def run(scope: Scope) -> Sequence[Tensor]:
            values = [None if name is None else scope[name] for name in inputs]
            try:
                made = compute(layer, *values)
            except RewrightError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
                shapes = [None if v is None else f"{v.dtype}{list(v.shape)}" for v in values]
                raise layer.fault(f"can't be computed of {shapes}: {error}") from error
            results = made if isinstance(made, tuple) else (made,)
            for tensor, value in zip(outputs, results, strict=True):
                _check(layer, tensor, value)
            return results

        return Step(
            reads=tuple(dict.fromkeys(name for name in inputs if name is not None)),
            makes=tuple(tensor.name for tensor in outputs),
            run=run,
            where=layer.where,
        )


def _check(layer: Layer, tensor: Any, value: Tensor) -> None:
    """That a computed value has the type that TensorRT gives its tensor."""
    shape, dtype = static_shape(tensor, layer.where), torch_dtype(tensor.dtype)
    if not fits(value, shape, dtype):
        raise EngineError(
            f"{layer.kind} layer {layer.name!r} evaluates to {value.dtype}{list(value.shape)}, "
            f"but TensorRT gives {tensor.name!r} the type {dtype}{list(shape)}",
            where=layer.where,
            hint="this is a fault of rewright.testing: please report it with the network",
        )
