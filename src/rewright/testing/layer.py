"""A layer of a network as the functions that compute it see it.

``INetworkDefinition.get_layer`` gives every layer as a bare ``ILayer``. Setting the ``__class__``
of that Python object to the layer's own interface gives its attributes back; other objects for
the same layer do not change.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import torch

from rewright.errors import EngineError, UnsupportedError
from rewright.testing.dtypes import torch_dtype
from rewright.testing.weights import read_weights

__all__ = ["Compute", "Layer", "binding_of", "dims_or_none", "static_shape"]

Tensor: TypeAlias = torch.Tensor

#: What computes a layer: from the layer and its inputs (None for a missing optional one) to its
#: output, or to a tuple of its outputs.
Compute: TypeAlias = Callable[..., Tensor | tuple[Tensor, ...]]


def binding_of(network: Any) -> ModuleType:
    """The module that ``network``'s class lives in: `tensorrt` or `tensorrt_rtx`, whichever made
    it. Both may be loaded, and their types don't mix.
    """
    return sys.modules[type(network).__module__]


def dims_or_none(read: Callable[[], Any]) -> tuple[int, ...] | None:
    """The dimensions that ``read`` gives; None where they are unset or not known.

    The binding says "unset" by None, by an exception, or by a Dims of negative length, depending
    on the version and the attribute.
    """
    try:
        dims = read()
        return None if dims is None else tuple(dims)
    except (RuntimeError, ValueError):
        return None


def static_shape(tensor: Any, where: str) -> tuple[int, ...]:
    """The shape TensorRT infers for an ``ITensor``, with -1 where it is only known at run time.

    Raises:
        EngineError: TensorRT refuses the layer that makes the tensor.
    """
    shape = dims_or_none(lambda: tensor.shape)
    if shape is None:
        raise EngineError(
            f"TensorRT can't infer the shape of tensor {tensor.name!r}",
            where=where,
            hint="the layer, or one before it, is not legal; TensorRT's log says why",
        )
    return shape


class Layer:
    """A layer with its own interface's attributes.

    Args:
        native: the ``ILayer``; its Python class is changed.
        interface: the name of its interface, as ``"IConvolutionLayer"``; None leaves it.
        table: the side table of weights, by layer name.
    """

    def __init__(self, native: Any, interface: str | None, table: Mapping[str, Tensor]) -> None:
        self.kind: str = native.type.name  # before the cast: IPoolingLayer.type is another
        self.name: str = native.name
        if interface is not None:
            native.__class__ = getattr(binding_of(native), interface)
        self.native = native
        self._table = table

    @property
    def where(self) -> str:
        """The layer, for messages."""
        return f"layer {self.name!r} ({self.kind})"

    def refuse(self, why: str) -> UnsupportedError:
        """The error to raise where this layer can't be computed."""
        return UnsupportedError(
            f"{self.kind} layer {self.name!r} can't be evaluated: {why}",
            op=self.kind,
            where=self.where,
            hint="run the built engine instead",
        )

    def fault(self, what: str) -> EngineError:
        """The error to raise where TensorRT would fail, or may do anything, at run time."""
        return EngineError(f"{self.kind} layer {self.name!r}: {what}", where=self.where)

    def option(self, attribute: str) -> str:
        """The name of an attribute's enum member."""
        name: str = getattr(self.native, attribute).name
        return name

    def dims(self, attribute: str) -> tuple[int, ...] | None:
        """An attribute of type Dims; None where it is unset, or not there in this version."""
        return dims_or_none(lambda: getattr(self.native, attribute, None))

    def axes(self, rank: int, attribute: str = "axes") -> tuple[int, ...]:
        """The axes of a bitmask attribute, ascending."""
        mask = int(getattr(self.native, attribute))
        return tuple(axis for axis in range(rank) if mask >> axis & 1)

    def weights(self, role: str, shape: Iterable[int] | None = None) -> Tensor | None:
        """The weights of attribute ``role``, reshaped to ``shape`` where one is given; None where
        the layer has none.
        """
        key = self.name if role == "weights" else f"{self.name}.{role}"
        flat = read_weights(getattr(self.native, role), self.where, key, self._table)
        return flat if flat is None or shape is None else flat.reshape(tuple(shape))

    def output_dtype(self, index: int = 0) -> torch.dtype:
        """The torch dtype that holds the values of an output."""
        return torch_dtype(self.native.get_output(index).dtype)

    def output_kind(self, index: int = 0) -> str:
        """The name of an output's ``trt.DataType``."""
        name: str = self.native.get_output(index).dtype.name
        return name

    def input_kind(self, index: int = 0) -> str:
        """The name of an input's ``trt.DataType``."""
        name: str = self.native.get_input(index).dtype.name
        return name

    @property
    def rank(self) -> int:
        """The rank of output 0."""
        return len(static_shape(self.native.get_output(0), self.where))
