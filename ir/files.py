"""Graphs in files: text in ``NAME.ir``, the data of sources beside it in ``NAME.safetensors``.

Where that is missing, ``weights.safetensors`` of the folder has the data of all graphs in it.
Dtypes that safetensors has no name for are stored as bytes; the type of the constant tells.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rewright.errors import ArtifactError, RewrightError
from rewright.ir.graph import Constant, Graph
from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_graph
from rewright.ir.types import TensorType

PathLike: TypeAlias = "str | os.PathLike[str]"

_NAMED: Final = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
    }
)
"""The dtypes that every safetensors can store."""

_PLAIN: Final = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)

_DUMP_AGAIN: Final = "the text and its weights are of one dump: dump the graph again"

SHARED_WEIGHTS: Final = "weights.safetensors"
"""The file with the data of sources that the graphs of a folder share."""


def _paths(path: PathLike) -> tuple[Path, Path]:
    """The two files of a graph. A dot in the name is no suffix: ``014-fuse.before``."""
    stem = os.fspath(path).removesuffix(".ir")
    return Path(f"{stem}.ir"), Path(f"{stem}.safetensors")


def dump_graph(graph: Graph, path: PathLike, *, weights: bool = True) -> Path:
    """Writes `graph` to ``NAME.ir`` and the data of its sources to ``NAME.safetensors``.

    Args:
        graph: what is written; one that holds opaque objects can't be read back.
        path: ``NAME`` or ``NAME.ir``; missing folders are made.
        weights: False writes the text only, and leaves a weight file that is there alone.

    Returns:
        The path of the text.

    Raises:
        RewrightError: the data of a source can't be stored (quantized, a tensor subclass).
    """
    text_path, weight_path = _paths(path)
    text_path.parent.mkdir(parents=True, exist_ok=True)
    text_path.write_text(f"{print_graph(graph)}\n", encoding="utf-8")
    if weights:
        dump_weights(graph, weight_path)
    return text_path


def dump_weights(graph: Graph, path: PathLike) -> None:
    """Writes the data of the sources of `graph` to `path`.

    Raises:
        RewrightError: the data of a source can't be stored (quantized, a tensor subclass).
    """
    save_file(_stored(graph), path)


def load_graph(path: PathLike, *, device: str | None = None) -> Graph:
    """The graph in ``NAME.ir``, with the data of its sources if that is there.

    Args:
        path: ``NAME`` or ``NAME.ir``.
        device: where the data is put; by default on each constant's own device.

    Raises:
        ParseError: the text is not a graph.
        ArtifactError: the weights can't be read, don't fit the text, or belong on a device that
            this machine does not have.
    """
    text_path, weight_path = _paths(path)
    graph = parse_graph(text_path.read_text(encoding="utf-8"), filename=str(text_path))
    shared_path = text_path.with_name(SHARED_WEIGHTS)
    if weight_path.exists():
        _bind_data(graph, weight_path, device)
    elif shared_path.exists():
        _bind_data(graph, shared_path, device, shared=True)
    return graph


def _stored(graph: Graph) -> dict[str, torch.Tensor]:
    """What goes to the file: one tensor for each source whose numbers are known."""
    stored: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for constant in graph.constants.values():
        data = constant.data
        if data is None or not constant.is_source or _has_no_numbers(data):
            continue
        if type(data) not in _PLAIN or data.is_quantized or data.layout is not torch.strided:
            raise RewrightError(
                f"@{constant.name} is a {type(data).__name__} that safetensors can't store",
                hint="write the text only: dump_graph(graph, path, weights=False)",
            )
        tensor = data.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:  # one memory can't be stored twice
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        known = tensor.dtype in _NAMED
        stored[constant.name] = tensor if known else tensor.reshape(-1).view(torch.uint8)
    return stored


def _has_no_numbers(data: torch.Tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return data.is_meta or isinstance(data, FakeTensor)


def _bind_data(graph: Graph, path: Path, device: str | None, *, shared: bool = False) -> None:
    """Gives sources their data. A shared file may have that of other graphs, too."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"the weights can't be read: {error}", path=path, hint=_DUMP_AGAIN
        ) from None
    for name, tensor in tensors.items():
        constant = graph.constants.get(name)
        if constant is None or not constant.is_source:
            if shared:
                continue
            raise ArtifactError(
                f"there are weights of @{name}, which is no source", path=path, hint=_DUMP_AGAIN
            )
        fitted = _fitted(constant, tensor, path)
        constant.data = _placed(constant, fitted, device or _home(constant, graph), path)


def _home(constant: Constant, graph: Graph) -> str:
    """The constant's own device."""
    own = constant.type.device if isinstance(constant.type, TensorType) else None
    return own or graph.device


def _fitted(constant: Constant, tensor: torch.Tensor, path: Path) -> torch.Tensor:
    """`tensor` in the dtype and shape that the type of `constant` states."""
    wanted = constant.type
    try:
        assert isinstance(wanted, TensorType)
        if tensor.dtype != wanted.dtype and tensor.dtype is torch.uint8:
            tensor = tensor.view(wanted.dtype).reshape([int(dim) for dim in wanted.shape])
        assert tensor.dtype == wanted.dtype
        assert tuple(tensor.shape) == wanted.shape
    except (AssertionError, RuntimeError, TypeError):
        raise ArtifactError(
            f"the weights of @{constant.name} are {tensor.dtype} of {tuple(tensor.shape)}, "
            f"but the text says {wanted}",
            path=path,
            hint=_DUMP_AGAIN,
        ) from None
    return tensor


def _placed(constant: Constant, tensor: torch.Tensor, device: str, path: Path) -> torch.Tensor:
    try:
        return tensor.to(device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise ArtifactError(
            f"@{constant.name} can't be put on {device}: {error}",
            path=path,
            hint='load_graph(path, device="cpu") reads it on any machine',
        ) from None
