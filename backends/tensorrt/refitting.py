"""Other weights for an engine that is built: no second build, where the engine was made for it.

    engine_refit=True   the weights that come from the program's constants are named and marked
    refit               the network is defined again from the new constants, which takes no build;
                        where it is the same but for its weights, these are given to the engine

Converters transpose, cast and scale constants while a network is defined. So a weight of the
network is none of the program's, but made from some: which ones is found by watching what torch
computes meanwhile. Its name is theirs, ``layers.0.fc.weight``, with a number where several weights
come from the same; its new contents are what the converters make of the new constants.

Literals (epsilons, sizes) are not marked, and are part of the *form* of the network, as all calls
of TensorRT are: where other constants would lead to another form, the engine can't be refitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rewright.backends.tensorrt.dtypes import TENSORRT
from rewright.backends.tensorrt.library import Library
from rewright.errors import EngineError
from rewright.ir.graph import Graph

if TYPE_CHECKING:
    from rewright.backends.tensorrt.build import Engine
    from rewright.backends.tensorrt.loading import Loaded

NEEDS_DRIVER: Final = (
    "TensorRT for RTX builds engines that can be refitted only where there is a CUDA driver: "
    "leave engine_refit out here"
)


class _Origins(TorchDispatchMode):
    """Notes what is computed from which constants, by the memory that holds it."""

    def __init__(self) -> None:
        super().__init__()
        self._of: dict[int, tuple[str, ...]] = {}
        self._storages: list[Any] = []  # kept: an address must not be used again meanwhile

    def of(self, tensor: torch.Tensor) -> tuple[str, ...]:
        """The names of the constants that `tensor` comes from."""
        return self._of.get(tensor.untyped_storage()._cdata, ())

    def note(self, tensor: torch.Tensor, names: tuple[str, ...]) -> None:
        """`tensor` comes from the constants `names`."""
        storage = tensor.untyped_storage()
        self._of[storage._cdata] = names
        self._storages.append(storage)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        names = tuple(sorted({name for tensor in given for name in self.of(tensor)}))
        if names:
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.note(leaf, names)
        return result


class Naming:
    """Names the weights of a network, as it is defined, by the constants that they come from.

    A network is defined within ``with naming:``, in one thread.

    Attributes:
        weights: the tensors of the weights that are named, by name.
    """

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self._origins = _Origins()
        self._names: dict[int, tuple[torch.dtype, int]] = {}
        self._pending: list[tuple[Any, str]] = []
        self._calls = hashlib.sha256()

    def __enter__(self) -> Naming:
        """Watches what torch computes in this thread."""
        self._origins.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Watches no more."""
        self._origins.__exit__(kind, error, trace)
        self._origins = _Origins()

    def enter(self, name: str, data: torch.Tensor) -> torch.Tensor:
        """A constant of the program, in memory of its own: others may hold the same now."""
        if self._origins.of(data):
            data = data.clone()
        self._origins.note(data, (name,))
        return data

    def own(self, dense: torch.Tensor) -> torch.Tensor:
        """`dense`, or a copy: TensorRT tells weights by their address, so one has one size."""
        known = self._names.get(dense.data_ptr())
        if known is None or known == (dense.dtype, dense.numel()):
            return dense
        return dense.clone()

    def take(self, weights: Any, dense: torch.Tensor) -> None:
        """Takes weights that the next layer is going to use.

        Args:
            weights: TensorRT's object.
            dense: the memory that it refers to.
        """
        origins = self._origins.of(dense)
        described = f"{dense.dtype} {tuple(dense.shape)} {'+'.join(origins)}"
        self._calls.update(described.encode())
        if not origins:
            # A literal: another one makes another network.
            self._calls.update(dense.reshape(-1).view(torch.uint8).numpy().tobytes())
            return
        if dense.data_ptr() in self._names:
            return
        name = base = "+".join(origins)
        number = 1
        while name in self.weights:
            number += 1
            name = f"{base}.{number}"
        self._names[dense.data_ptr()] = (dense.dtype, dense.numel())
        self.weights[name] = dense
        self._pending.append((weights, name))

    def tell(self, said: str) -> None:
        """Takes what TensorRT is told of a layer, as text."""
        self._calls.update(f"{said}\n".encode())

    def settle(self, definition: Any) -> None:
        """Names and marks the weights of a layer that now is there.

        Raises:
            EngineError: TensorRT refused a name.
        """
        for weights, name in self._pending:
            named = definition.set_weights_name(weights, name)
            if not named or not definition.mark_weights_refittable(name):
                raise EngineError(f"TensorRT can't make the weights {name} refittable")
        self._pending.clear()

    def form(self) -> str:
        """A digest of the network, but for the contents of the weights that are named."""
        return self._calls.hexdigest()


# --------------------------------------------------------------------------- refitting


def refitted_weights(
    graph: Graph, library: Library, engine: Engine, constants: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights of `engine` for other constants, by name, dense and on the CPU.

    Args:
        graph: what the engine was built from.
        library: the TensorRT that it was built with.
        engine: the engine.
        constants: a tensor for each constant of the graph.

    Raises:
        EngineError: the engine can't be refitted to these; says why.
        ConversionError: these constants can't be in a network.
    """
    from rewright.backends.tensorrt.emitter import emit

    if not engine.form:
        raise EngineError(
            f"the engine of @{graph.name} was not built to be refitted",
            engine=graph.name,
            hint="compile with engine_refit=True, or have it built anew",
        )
    naming = Naming()
    with torch.inference_mode(False), torch.no_grad():
        emit(graph, library, constants, naming)
    if naming.form() != engine.form:
        raise EngineError(
            f"the new weights of @{graph.name} would make another network, not only other numbers",
            engine=graph.name,
            hint="have it built anew",
        )
    return naming.weights


def refit_engine(loaded: Loaded, weights: Mapping[str, torch.Tensor]) -> None:
    """Gives an engine other weights. None of its contexts may be running.

    Args:
        loaded: the engine, in TensorRT's hands.
        weights: as :func:`refitted_weights` gives them.

    Raises:
        EngineError: TensorRT refused; the engine is in no known state then.
    """
    asker, library, trt = loaded.asker, loaded.asker.library, loaded.asker.library.module
    refitter = trt.Refitter(loaded.cuda_engine, library.logger)
    held = asker.ask("list the weights", refitter.get_all_weights)
    missing = sorted(weights.keys() - {*held})
    if missing:
        raise EngineError(
            f"the engine of @{asker.name} does not hold {', '.join(missing)}, and can't be given "
            "other contents for it",
            engine=asker.name,
            hint="have it built anew",
        )
    for name, tensor in weights.items():
        dtype = getattr(trt.DataType, TENSORRT[tensor.dtype])
        given = trt.Weights(dtype, tensor.data_ptr(), tensor.numel())
        asker.ask(f"set the weights {name}", refitter.set_named_weights, name, given)
    left = asker.ask("list what is missing", refitter.get_missing_weights)
    if left:
        raise EngineError(
            f"the engine of @{asker.name} needs new contents for {', '.join(left)}, too",
            engine=asker.name,
            hint="have it built anew",
        )
    asker.ask("refit the engine", refitter.refit_cuda_engine)
