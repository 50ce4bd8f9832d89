"""Networks and functions that stand for engines, under the names that are their bytes."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import attrs
import torch

from rewright.backends.tensorrt.build import Engine
from rewright.backends.tensorrt.dtypes import TENSORRT
from rewright.backends.tensorrt.emitter import Emitted, Port
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.profiles import profiles
from rewright.ir.graph import Graph
from rewright.testing import evaluate_network


@attrs.define(eq=False, slots=False)
class Kept:
    """A network that stands for an engine.

    Attributes:
        emitted: the network, with the memory of its weights.
        streamable: how many bytes of weights can be streamed.
        given: weights that it was given in the place of its own, by name.
    """

    on_device = False
    """Whether it computes where its tensors are; a network is evaluated on the CPU."""

    emitted: Emitted | None
    streamable: int = 0
    given: Mapping[str, torch.Tensor] = attrs.field(factory=dict)
    lock: Any = attrs.field(factory=threading.Lock)

    @functools.cached_property
    def tensors(self) -> dict[str, Any]:
        """The network's inputs and outputs by name."""
        net = self.emitted.net.definition
        inputs = [net.get_input(i) for i in range(net.num_inputs)]
        return {t.name: t for t in (*inputs, *map(net.get_output, range(net.num_outputs)))}

    @functools.cached_property
    def limits(self) -> list[dict[str, Any]]:
        """For each profile the limits by input."""
        made = profiles(self.emitted.graph, self.emitted.inputs)
        return [{item.name: item for item in each} for each in made] or [{}]

    @functools.cached_property
    def data_dependent(self) -> frozenset[str]:
        """The outputs whose sizes depend on what the inputs hold."""
        net = self.emitted.net.definition
        layers = [net.get_layer(i) for i in range(net.num_layers)]
        tainted: set[str] = set()
        for layer in layers:  # layers are added in order: producers first
            read = [layer.get_input(i) for i in range(layer.num_inputs)]
            made = [layer.get_output(i) for i in range(layer.num_outputs)]
            if layer.type.name == "NON_ZERO" or any(
                t is not None and t.name in tainted for t in read
            ):
                tainted.update(t.name for t in made if -1 in tuple(t.shape))
        return frozenset(tainted & self.tensors.keys())

    def is_host(self, name: str) -> bool:
        """Whether a tensor's values are sizes, which TensorRT reads in the host's memory."""
        tensor = self.tensors[name]
        return tensor.is_network_input and tensor.is_shape_tensor

    @property
    def named(self) -> dict[str, torch.Tensor]:
        """The weights that can be changed, by name: memory that the network refers to."""
        naming = self.emitted.net.naming
        return {} if naming is None else naming.weights

    def compute(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The outputs, with other contents for some weights."""
        given = weights or {}
        with self.lock:
            net, own = self.emitted.net, {name: self.named[name].clone() for name in given}
            try:
                for name, other in given.items():
                    self.named[name].copy_(other)
                return evaluate_network(net.definition, inputs, net.weights)
            finally:
                for name, before in own.items():
                    self.named[name].copy_(before)


class KeptFunction(Kept):
    """A function of tensors, where they are, that stands for an engine.

    Args:
        function: takes the inputs by name; gives the outputs by name.
        graph: says what they are.
    """

    on_device = True

    def __init__(self, function: Callable[..., dict[str, torch.Tensor]], graph: Graph) -> None:
        super().__init__(None)
        self._function = function
        self.inputs = tuple(Port(value.hint, value) for value in graph.inputs)
        self.outputs = tuple(Port(f"out{i}", value) for i, value in enumerate(graph.outputs))
        self.limits = [
            {item.name: item for item in each} for each in profiles(graph, self.inputs)
        ] or [{}]
        self.data_dependent = frozenset()
        self.tensors = {
            port.name: SimpleNamespace(
                shape=[dim if isinstance(dim, int) else -1 for dim in port.value.type.shape],
                dtype=SimpleNamespace(name=TENSORRT[port.value.type.dtype]),
                is_network_input=port in self.inputs, is_network_output=port in self.outputs,
                is_shape_tensor=False,
            )
            for port in (*self.inputs, *self.outputs)
        }  # fmt: skip

    def compute(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        assert not weights
        return self._function(**inputs)


_kept: dict[bytes, Kept] = {}
_numbers = itertools.count()


def keep(emitted: Emitted, library: Library, streamable: int = 0) -> Engine:
    """An engine that computes a network, for a library of :func:`double`."""
    data = b"engine %d" % next(_numbers)
    _kept[data] = Kept(emitted, streamable)
    naming = emitted.net.naming
    return Engine(data, library.name, emitted.inputs, emitted.outputs, 1,
                  emitted.net.definition.num_layers, 0.0, (),
                  form=naming.form() if naming else "")  # fmt: skip


def keep_with(old: Kept, weights: Mapping[str, torch.Tensor]) -> bytes:
    """The bytes of an engine with other weights."""
    data = b"engine %d" % next(_numbers)
    _kept[data] = attrs.evolve(old, given=dict(weights))
    return data


def keep_function(kept: KeptFunction, library: Library) -> Engine:
    """An engine that computes a function, for a library of :func:`double`."""
    data = b"engine %d" % next(_numbers)
    _kept[data] = kept
    return Engine(data, library.name, kept.inputs, kept.outputs, 1, 1, 0.0, ())


def find(data: bytes) -> Kept | None:
    """What stands for an engine of these bytes."""
    return _kept.get(data)
