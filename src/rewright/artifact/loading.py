"""``rewright.load(path)``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from rewright.artifact.container import Container, damaged, open_container
from rewright.artifact.contents import BANNED, TRUSTED, kinds_of, op_names
from rewright.artifact.manifest import read_manifest
from rewright.artifact.signature import decode_reports, decode_settings, decode_signature
from rewright.artifact.weights import FILES, Place, Stored, Weights
from rewright.backends.torch.build import build
from rewright.errors import ArtifactError, EngineError, RewrightError, SettingsError
from rewright.frontends.jit_call import OverlapCheck
from rewright.ir.graph import Graph
from rewright.ir.parser import parse_graph
from rewright.ir.retarget import retarget
from rewright.ir.signature import Signature
from rewright.ir.types import TensorType
from rewright.ir.verifier import verify
from rewright.program import CompiledProgram
from rewright.settings import Settings

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    *,
    on_engine_error: str | None = None,
    ops: Sequence[str] = (),
    trust_code: bool = False,
    verify: bool = True,
) -> CompiledProgram:
    """The program that :meth:`~rewright.program.CompiledProgram.save` wrote to a file.

    It needs neither the model's code nor a compile: no pass runs, and constants are mapped, so
    that the system reads them from the file when they are first used and may drop them again.
    What Inductor had compiled it compiles anew, or takes from its own local cache.

    Nothing in a file is ever executed as code, and no module is imported because a file names it
    (but the libraries' classes of results that ``docs/ARTIFACT.md`` lists). A call runs the
    operators that the file names; those of torch are taken, other ones must be allowed by `ops`.
    Do not write to the file while the program lives; a new one may take its place.

    Args:
        path: the file.
        device: where to run; by default where it was compiled for. Another one moves constants
            and device arguments there.
        on_engine_error: as the setting; by default as it was set when the program was compiled.
        ops: namespaces of operators, besides torch's own, that the program may call:
            ``("mylib",)``. Import the library that registers them first.
        trust_code: must be False: no file holds binaries that might be trusted.
        verify: whether to compare all checksums, which reads the file once: about a second for
            each two gigabytes. Without, damaged weights go unnoticed.

    Raises:
        ArtifactError: the file is no artifact, damaged, of a newer format, or can't be loaded here.
        SettingsError: `device`, `on_engine_error` or `ops` has an illegal value, or `trust_code` is
            given.
        EngineError: an engine can't run here, where that is an error.
    """
    if trust_code:
        raise SettingsError(
            "trust_code is given, but artifacts hold no compiled code",
            setting="trust_code",
            hint="leave it out: what Inductor compiled on this machine is in its own cache",
        )
    if isinstance(ops, str) or not all(isinstance(item, str) for item in ops):
        raise SettingsError(
            f"ops is {ops!r}, and not a sequence of names",
            setting="ops",
            hint='for one library: ops=("mylib",)',
        )
    name = os.fspath(path)
    try:
        file = open(name, "rb")  # noqa: SIM115 - closed below; the mapping holds its own
    except OSError as error:
        raise ArtifactError(
            f"the artifact can't be opened: {error.strerror or error}", path=name
        ) from error
    changed = {"device": device, "on_engine_error": on_engine_error}
    changed = {setting: value for setting, value in changed.items() if value is not None}
    with file, _explained(name), torch.inference_mode(False), torch.no_grad():
        container = open_container(name, file)
        manifest = read_manifest(container)
        if verify:
            _check_digests(container, manifest)
        return _load(container, manifest, changed, ops)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Whatever a file that nobody wrote so makes go wrong, as an error that names the file."""
    try:
        yield
    except (ArtifactError, EngineError) as error:
        if isinstance(error, ArtifactError) and error.path is None:
            error.path, error.where = path, error.where or path
        raise
    except SettingsError:
        raise
    except RewrightError as error:
        raise ArtifactError(
            f"the program in the artifact can't be loaded: {error.message}",
            path=path,
            where=f"{path}, {error.where}" if error.where else path,
            hint=error.hint or "copy it again, or save the program again",
        ) from error
    except (MemoryError, OSError) as error:
        raise ArtifactError(f"the artifact can't be loaded: {error}", path=path) from error
    except Exception as error:
        # A file is data of anybody's: nothing that it makes this code run into is a bug to a
        # user, but a file that is not well formed. The cause stays attached.
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise damaged(path, what[:300]) from error


def _check_digests(container: Container, manifest: Mapping[str, Any]) -> None:
    stated = manifest["members"]
    found = container.digests([*stated])
    for name, digest in zip(stated, found, strict=True):
        if stated[name]["digest"] != digest:
            raise damaged(container.path, f"{name} does not pass its checksum")


def _load(
    container: Container,
    manifest: Mapping[str, Any],
    changed: Mapping[str, Any],
    ops: Sequence[str],
) -> CompiledProgram:
    settings = _settings(manifest, changed)
    graph = _graph(container, ops)
    signature = decode_signature(manifest["signature"])
    _check_signature(signature, graph)
    if "device" in changed:
        assert settings.device is not None
        retarget(graph, settings.device)
    _check_device(graph.device)
    prepared = _bind_constants(graph, settings, manifest, container)
    attached: Any = {}
    if manifest["engines"]:
        from rewright.artifact.engines import stored_segments

        attached = stored_segments(graph, settings, manifest["engines"], container)
    overlap = OverlapCheck.of_signature(graph, signature)
    inspect = overlap.refuse if overlap is not None else None
    built = build(graph, signature, settings, inspect, attached, prepared=prepared)
    for name, data in prepared.items():
        graph.constants[name].data = data  # for another save, should the sources not be there
    return CompiledProgram(
        graph,
        signature,
        settings,
        built,
        tuple(attached.values()),
        **decode_reports(manifest["reports"]),
    )


_TEXT_OPTIONS: Final = frozenset(
    f"max_autotune_{what}"
    for what in ("gemm_backends", "conv_backends", "gemm_search_space", "flex_search_space")
)
"""Options of Inductor that are texts and name no program, folder or host."""


def _settings(manifest: Mapping[str, Any], changed: Mapping[str, Any]) -> Settings:
    settings = decode_settings(manifest["settings"])
    for name, value in settings.inductor_options.items():
        if isinstance(value, str) and name not in _TEXT_OPTIONS:
            raise ArtifactError(
                f"the artifact sets Inductor's option {name!r} to {value!r:.80}, which might make "
                "it run another program",
                hint="compile without it: a loaded file must not choose what is executed",
            )
    if "device" in changed and settings.target in ("cpu", "cuda"):
        changed = {**changed, "target": "auto"}
    return attrs.evolve(settings, **changed)


def _check_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ArtifactError(
            f"the program runs on {device}, but torch finds no CUDA device here",
            hint='rewright.load(path, device="cpu") moves it to the CPU',
        )


# --------------------------------------------------------------------------- the graph


def _graph(container: Container, ops: Sequence[str]) -> Graph:
    text = container.read("program.ir").decode("utf-8")
    graph = parse_graph(text, filename="program.ir")
    for name in op_names(graph):
        space = name.partition(".")[0]
        if name in BANNED or (space not in TRUSTED and space not in ops):
            raise ArtifactError(
                f"the program calls {name}, an operator that is none of torch's own computations",
                hint=f"rewright.load(path, ops=({space!r},)) allows the operators of {space}, "
                "once the library that registers them is imported"
                if name not in BANNED
                else "a program that opens files is not loaded",
            )
    verify(graph)
    return graph


def _check_signature(signature: Signature, graph: Graph) -> None:
    numbers = [a.input for a in signature.arguments if a.input is not None]
    if sorted(numbers) != [*range(len(graph.inputs))]:
        raise ValueError("the arguments are not the inputs of the graph")
    if signature.out_spec is not None and signature.out_spec.num_leaves != len(graph.outputs):
        raise ValueError("the tree of the result has other leaves than the graph has outputs")


# --------------------------------------------------------------------------- constants


def _bind_constants(
    graph: Graph, settings: Settings, manifest: Mapping[str, Any], container: Container
) -> dict[str, Tensor]:
    """Gives sources their data; returns the prepared constants that a call needs."""
    made = manifest["constants"]
    runs = {kind: [_stored(item) for item in made["runs"][kind]] for kind in FILES}
    places = {name: _place(item) for name, item in made["places"].items()}
    kinds = kinds_of(graph, fallback=settings.fallback == "torch")
    left_out = {constant.name for constant in kinds.left_out}
    if left_out != {*manifest["left_out"]}:
        raise ValueError("constants are left out that should be there")
    weights = Weights(container, runs)
    prepared: dict[str, Tensor] = {}
    for name, constant in graph.constants.items():
        found = constant.type
        if name not in places and name not in left_out:
            continue
        if not isinstance(found, TensorType) or not found.is_static:
            raise ValueError(f"the constant @{name} has no size")
        if name in left_out:
            data = torch.empty(found.shape, dtype=found.dtype, device="meta")
        else:
            device = found.device or graph.device
            data = weights.tensor(places[name], found.dtype, found.shape, device)
        if constant.is_source:
            constant.data = data
        else:
            prepared[name] = data
    if unknown := [name for name in places if name not in graph.constants]:
        raise ValueError(f"there is no constant @{unknown[0]}")
    for constant in (*kinds.weights, *kinds.prepared):
        if constant.data is None and constant.name not in prepared:
            raise ValueError(f"the constant @{constant.name} is missing")
    return prepared


def _stored(item: Any) -> Stored:
    name, dtype, shape = item
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the tensor {name!r:.80} has a size that is none")
    return Stored(name, dtype, tuple(shape))


def _place(item: Any) -> Place:
    kind, run, offset, strides = item
    if kind not in FILES or not all(type(n) is int for n in (run, offset, *strides)):
        raise ValueError("a constant is stored nowhere")
    return Place(kind, run, offset, tuple(strides))
