"""Constants in safetensors: memory that several share stands there once, and is mapped back.

What is stored is not tensors but *runs*: stretches of memory that constants look at. A weight of
its own is one run, and stands in the file under its name with its dtype and shape, for anyone to
read. Tied weights and views of one memory share a run; a run that is no contiguous tensor of one
constant (a permuted weight, shared memory, a dtype that safetensors has no name for) stands there
as bytes. The manifest says for each constant where in which run it lies, and with what strides.

A header of safetensors is never parsed here: it follows from the manifest, and must be the bytes
that the file has.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from rewright.artifact.container import ALIGNMENT, Container, damaged
from rewright.digest import CHUNK
from rewright.errors import ArtifactError

FILES: Final = ("weights", "prepared", "sources")
"""The files, by what they are for: sources that a call reads, prepared constants, and sources
that only `prepare` reads. Memory that several kinds share stands in the first."""

_NAMES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""The dtypes that every safetensors can store. Others are stored as bytes."""

_SIZES: Final = {name: dtype.itemsize for dtype, name in _NAMES.items()}

_PLAIN: Final = (Tensor, torch.nn.Parameter, torch.nn.Buffer)

_WIDEST: Final = 16
"""Bytes of the widest element."""

_SPARSE: Final = 2
"""A constant that looks at less than one in so many bytes of a memory is stored by itself."""


def file_name(kind: str) -> str:
    """The member with the constants of a kind."""
    return f"{kind}.safetensors"


@attrs.frozen
class Stored:
    """A run as it stands in a file.

    Attributes:
        name: of the tensor in the file.
        dtype: as safetensors names it.
        shape: of the tensor in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        total = _SIZES[self.dtype]
        for size in self.shape:
            total *= size
        return total


@attrs.frozen
class Place:
    """Where a constant lies.

    Attributes:
        kind: which file.
        run: the number of its run there; -1 for one without elements.
        offset: its first element's first byte in the run.
        strides: its strides, in elements.
    """

    kind: str
    run: int
    offset: int
    strides: tuple[int, ...]


# --------------------------------------------------------------------------- collecting


@attrs.define(eq=False)
class _Run:
    """A stretch of one memory, and the constants that look at it."""

    memory: Tensor
    start: int
    stop: int
    constants: list[str]
    kind: str = ""
    stored: Stored | None = None


@attrs.frozen
class Collected:
    """The constants of a program, as runs.

    Attributes:
        runs: in the order of the files, by kind.
        places: of the constants, by name.
    """

    runs: Mapping[str, tuple[_Run, ...]]
    places: Mapping[str, Place]

    def stored(self, kind: str) -> list[Stored]:
        """The runs of a file, as they stand there."""
        return [run.stored for run in self.runs[kind] if run.stored is not None]

    def header(self, kind: str) -> bytes:
        """The header of a file."""
        return header(self.stored(kind))

    def size(self, kind: str) -> int:
        """The bytes of a file."""
        return len(self.header(kind)) + sum(stored.nbytes for stored in self.stored(kind))

    def pieces(self, kind: str) -> Iterator[memoryview]:
        """The bytes of a file, header first."""
        yield memoryview(self.header(kind))
        for run in self.runs[kind]:
            yield from _pieces(run)


def collect(kinds: Mapping[str, Mapping[str, Tensor]]) -> Collected:
    """How the constants of a program are stored.

    Args:
        kinds: the constants of each of :data:`FILES`, by name.

    Raises:
        ArtifactError: one has no elements that can be stored: a sparse, quantized or fake one, or
            one of a tensor subclass.
    """
    kind_of = {name: kind for kind, held in kinds.items() for name in held}
    tensors = {n: _plain(n, held[n]) for held in kinds.values() for n in sorted(held)}
    runs = [*_runs(tensors)]
    for run in runs:
        run.kind = min((kind_of[name] for name in run.constants), key=FILES.index)
        run.stored = _stored(run, tensors)
    ordered = {
        kind: tuple(sorted((run for run in runs if run.kind == kind), key=_order)) for kind in FILES
    }
    places = {
        name: Place(kind_of[name], -1, 0, tensor.stride()) for name, tensor in tensors.items()
    }
    for kind, held in ordered.items():
        for number, run in enumerate(held):
            for name in run.constants:
                offset = _span(tensors[name])[0] - run.start
                places[name] = Place(kind, number, offset, tensors[name].stride())
    return Collected(ordered, {name: places[name] for name in sorted(places)})


def _plain(name: str, data: Tensor) -> Tensor:
    """`data` as memory that can be stored as it is."""
    if type(data) not in _PLAIN or data.is_quantized or data.layout is not torch.strided:
        what = f"a {type(data).__name__} with layout {data.layout} and dtype {data.dtype}"
        raise ArtifactError(
            f"the constant @{name} is {what}, which can't be saved",
            hint="store it as plain dense tensors in the model",
        )
    if data.is_meta:
        raise ArtifactError(f"the constant @{name} is on the device meta, and has no data")
    data = data.detach().resolve_conj().resolve_neg()
    start, stop = _span(data)
    # Of a slice of something much larger only the slice is kept.
    if stop - start > _SPARSE * data.numel() * data.itemsize:
        return data.contiguous()
    return data


def _span(data: Tensor) -> tuple[int, int]:
    """The first byte that a tensor looks at, and the one after the last, in its storage."""
    start = int(data.storage_offset()) * data.itemsize
    if not data.numel():
        return start, start
    dims = zip(data.shape, data.stride(), strict=True)
    return start, start + (sum((dim - 1) * int(s) for dim, s in dims) + 1) * data.itemsize


def _runs(tensors: Mapping[str, Tensor]) -> Iterator[_Run]:
    """The runs that tensors look at; those that overlap are one."""
    memories: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            place = (str(tensor.device), tensor.untyped_storage().data_ptr())
            memories.setdefault(place, []).append(name)
    for names in memories.values():
        run: _Run | None = None
        for name in sorted(names, key=lambda name: (*_span(tensors[name]), name)):
            start, stop = _span(tensors[name])
            if run is not None and start < run.stop:
                run.stop = max(run.stop, stop)
                run.constants.append(name)
                continue
            if run is not None:
                yield run
            run = _Run(tensors[name], start, stop, [name])
        if run is not None:
            yield run


def _stored(run: _Run, tensors: Mapping[str, Tensor]) -> Stored:
    first = min(run.constants)
    whole = tensors[first]
    is_whole = whole.is_contiguous() and _span(whole)[1] == run.stop
    is_whole = is_whole and all(_is_same(tensors[name], whole) for name in run.constants)
    if is_whole and whole.dtype in _NAMES:
        return Stored(first, _NAMES[whole.dtype], tuple(whole.shape))
    looking = (tensors[name] for name in run.constants)
    if any((_span(data)[0] - run.start) % data.itemsize for data in looking):
        run.start -= run.start % _WIDEST  # of several dtypes, each must start at a whole element
    return Stored(first, "U8", (run.stop - run.start,))


def _is_same(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.shape, one.stride(), one.storage_offset()) == (
        *(other.dtype, other.shape, other.stride(), other.storage_offset()),
    )


def _order(run: _Run) -> tuple[int, str]:
    """Runs whose size is a multiple of the alignment come first, so that most are aligned."""
    assert run.stored is not None
    size = run.stop - run.start
    return -min(size & -size, ALIGNMENT), run.stored.name


def _pieces(run: _Run) -> Iterator[memoryview]:
    """The bytes of a run, a chunk at a time: from a GPU, too."""
    storage = run.memory.untyped_storage()
    for start in range(run.start, run.stop, CHUNK):
        size = min(CHUNK, run.stop - start)
        with torch.inference_mode(False), torch.no_grad():
            raw = torch.empty(0, dtype=torch.uint8, device=run.memory.device)
            yield raw.set_(storage, start, (size,), (1,)).cpu().numpy().data


# --------------------------------------------------------------------------- safetensors


def header(stored: Sequence[Stored]) -> bytes:
    """The header of a safetensors file with these tensors, one right after the other.

    It is padded with spaces, as the format allows, so that data is aligned where the file is.
    """
    entries: dict[str, Any] = {}
    at = 0
    for item in stored:
        offsets = [at, at + item.nbytes]
        entries[item.name] = {"dtype": item.dtype, "shape": item.shape, "data_offsets": offsets}
        at += item.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


# --------------------------------------------------------------------------- reading


@attrs.define(eq=False)
class Weights:
    """The runs of an artifact, mapped: read from the file as they are first used.

    What is written to them stays in this process, in copies of single pages.

    Attributes:
        container: the artifact.
        files: the runs of each file.
    """

    container: Container
    files: Mapping[str, Sequence[Stored]]
    _map: mmap.mmap | None = attrs.field(default=None, init=False)
    _starts: dict[str, list[int]] = attrs.field(factory=dict, init=False)
    _runs: dict[tuple[str, int, str], Tensor] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Checks the headers.

        Raises:
            ArtifactError: a file is not what the manifest says.
        """
        for kind, stored in self.files.items():
            self._starts[kind] = self._check(kind, stored)

    def _check(self, kind: str, stored: Sequence[Stored]) -> list[int]:
        """Where the runs of a file start in the artifact."""
        path, name = self.container.path, file_name(kind)
        if len({item.name for item in stored}) != len(stored):
            raise damaged(path, f"{name} has a tensor twice")
        member = self.container.members[name]
        head = header(stored)
        at, end = member.offset + len(head), member.offset + member.size
        starts = []
        for item in stored:
            starts.append(at)
            at += item.nbytes
        if at != end or self.container.read_part(name, 0, len(head)) != head:
            raise damaged(path, f"{name} does not hold what the manifest says")
        return starts

    def tensor(self, place: Place, dtype: torch.dtype, shape: Sequence[int], device: str) -> Tensor:
        """The tensor of a constant. Those that share a run share memory.

        Raises:
            ValueError: it does not lie within its run.
            ArtifactError: it can't be put on `device`.
        """
        dims = [*zip(shape, place.strides, strict=True)]
        if any(size < 0 or stride < 0 for size, stride in dims):
            raise ValueError("a constant has a negative size or stride")
        if 0 in shape:
            return torch.empty_strided(tuple(shape), place.strides, dtype=dtype, device=device)
        run = self._run(place.kind, place.run, device)
        span = (sum((size - 1) * stride for size, stride in dims) + 1) * dtype.itemsize
        if place.offset < 0 or place.offset + span > run.numel() or place.offset % dtype.itemsize:
            raise ValueError("a constant does not lie within the memory that was stored for it")
        start = run.storage_offset() + place.offset
        made = torch.empty(0, dtype=dtype, device=device)
        storage = run.untyped_storage()
        return made.set_(storage, start // dtype.itemsize, tuple(shape), place.strides)

    def _run(self, kind: str, number: int, device: str) -> Tensor:
        """The bytes of a run, on a device."""
        key = (kind, number, device)
        if key not in self._runs:
            if number < 0:
                raise ValueError("a constant with elements lies nowhere")
            start = self._starts[kind][number]
            size = self.files[kind][number].nbytes
            mapped = torch.frombuffer(self._mapped(), dtype=torch.uint8, count=size, offset=start)
            # Few and small: what is not aligned would be computed with in other steps, and so
            # round differently from the weights that were saved.
            self._runs[key] = _on(device, mapped.clone() if start % ALIGNMENT else mapped)
        return self._runs[key]

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            number = self.container.file.fileno()
            self._map = mmap.mmap(number, 0, access=mmap.ACCESS_COPY)
        return self._map


def _on(device: str, data: Tensor) -> Tensor:
    try:
        return data.to(device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise ArtifactError(
            f"constants can't be put on {device}: {error}",
            hint='rewright.load(path, device="cpu") loads it on any machine',
        ) from None
