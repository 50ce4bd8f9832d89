"""Kernels of ours in Triton compile while Inductor compiles the rest of a program.

Triton compiles a kernel when it is first launched, and its first compile in a process takes more
than a second: it builds its binding of the driver, too. Most of that is other processes' and
compilers' time, which Python need not wait for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, map_arg

from rewright.backends.torch.kernels import depthwise

_log: Final = logging.getLogger(__name__)

_COMPILES: Final[Mapping[OpOverload, Callable[..., Mapping[Any, Callable[[], Any]]]]] = {
    torch.ops.rewright_kernels.depthwise_conv.default: depthwise.compiles,
}
"""For operators of ours: what is compiled for a call with fake tensors, each by what it is for."""


def load_triton() -> None:
    """Starts to load Triton and its binding of the driver, which nothing has to wait for."""
    if depthwise.has_triton():
        threading.Thread(target=_load_triton, name="rewright-triton", daemon=True).start()


def _load_triton() -> None:
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # no driver, no C compiler: whoever launches a kernel says so
        _log.debug("Triton's driver can't be loaded: %s", error)


@contextmanager
def compiled_ahead(module: GraphModule) -> Iterator[None]:
    """Compiles the kernels that calls in `module` launch, while the caller goes on.

    What can't be compiled is left to the first launch, which says so. At the end all are compiled,
    or a CUDA graph might be recorded while another thread launches something.

    Args:
        module: with fake tensors as ``meta["val"]``.
    """
    found: dict[Any, Callable[[], Any]] = {}
    for target, compiles in _COMPILES.items():
        for node in module.graph.find_nodes(op="call_function", target=target):
            args, keywords = map_arg((node.args, node.kwargs), lambda each: each.meta["val"])
            found |= compiles(*args, **keywords)
    if not found:
        yield
        return
    with ThreadPoolExecutor(1, "rewright-kernels") as pool:
        for compile_kernel in found.values():
            pool.submit(compile_kernel).add_done_callback(_note)
        yield


def _note(done: Future[Any]) -> None:
    if (error := done.exception()) is not None:
        _log.debug("a kernel did not compile ahead of its first launch: %s", error)
