"""The engines of a program's segments, built at the same time, and each of them once.

Segments that would be built from the same things (a layer that a model runs twice, say) share one
engine. Progress is shown while they are built, and Ctrl-C stops all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from rewright.backends.tensorrt.bars import bars
from rewright.backends.tensorrt.build import Engine, Job, build_here, build_together
from rewright.backends.tensorrt.cache import cached_engine, engine_for, key_of
from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.library import Library
from rewright.backends.tensorrt.options import BuildOptions
from rewright.backends.tensorrt.progress import Stop, Watcher
from rewright.backends.tensorrt.refitting import Naming
from rewright.ir.graph import Graph


@attrs.frozen(eq=False)
class Order:
    """An engine that is wanted.

    Attributes:
        graph: what it computes.
        library: the TensorRT to build it with.
        options: how.
        constants: the tensors of all constants of the graph, by name.
    """

    graph: Graph
    library: Library
    options: BuildOptions
    constants: Mapping[str, Tensor]


def engines_of(orders: Sequence[Order], workers: int | None = None) -> list[Engine]:
    """The engines for `orders`: kept ones, and new ones, built some at a time.

    Args:
        orders: what is wanted, in the order of the result.
        workers: so many builds at a time.

    Raises:
        ConversionError: a node can't be converted.
        EngineError: an engine could not be built.
        KeyboardInterrupt: Ctrl-C was pressed; all builds have stopped, and nothing is kept of
            those that had not ended.
    """
    if not orders:
        return []
    orders[0].library.logger  # noqa: B018 - one logger, made before there are threads
    keys = [key_of(o.graph, o.library, o.options, o.constants) for o in orders]
    first: dict[str, Order] = {}
    for key, order in zip(keys, orders, strict=True):
        if key is not None:
            first.setdefault(key, order)
    alone = [o for key, o in zip(keys, orders, strict=True) if key is None]
    wanted = [*((key, order) for key, order in first.items()), *((None, o) for o in alone)]
    with bars() as watcher:
        built = build_together([_job(*item) for item in wanted], workers=workers, watcher=watcher)
    made = {id(order): engine for (_, order), engine in zip(wanted, built, strict=True)}
    return [
        made[id(order)] if id(order) in made else _shared(first[str(key)], order, made)
        for key, order in zip(keys, orders, strict=True)
    ]


def _shared(other: Order, order: Order, made: Mapping[int, Engine]) -> Engine:
    return engine_for(order.graph, made[id(other)], other.graph)


def _job(key: str | None, order: Order) -> Job:
    def job(stop: Stop, watcher: Watcher | None) -> Engine:
        def build() -> Engine:
            naming = Naming() if order.options.refit else None
            emitted = emit(order.graph, order.library, order.constants, naming)
            return build_here(emitted, order.options, watcher, stop)

        # torch's modes are each thread's own
        with torch.inference_mode(False), torch.no_grad():
            return cached_engine(key, order.graph, order.options, build)

    return job
