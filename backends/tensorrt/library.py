"""The TensorRT library that is used: which one, and what it can do.

======================  =======================  ==============================================
`target`                library                  why
======================  =======================  ==============================================
``rtx``                 `tensorrt_rtx`           engines for every GPU that it supports
``rtx:8.9,12.0``        `tensorrt_rtx`           engines for these compute capabilities only
``tensorrt``            `tensorrt`               engines for the GPU of this machine
``cpu``                 none                     an engine runs on a GPU only
``cuda``                none                     Torch alone, on a GPU
``auto``                by the GPU               `tensorrt_rtx` where it supports the GPU, else
                                                 `tensorrt`, else none; on a CPU: none
======================  =======================  ==============================================

Versions differ in what they have, not only in numbers: ask :meth:`Library.has`.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from types import ModuleType
from typing import Any, Final

import attrs

from rewright.backends.tensorrt.enums import Name
from rewright.backends.tensorrt.log import LOG, logger_for
from rewright.errors import EngineError, SettingsError

Capability = tuple[int, int]


@attrs.frozen
class _Flavor:
    """One of the two packages.

    Attributes:
        package: what is imported.
        oldest: the oldest version that is supported.
        install: how to get it.
    """

    package: str
    oldest: tuple[int, ...]
    install: str


FLAVORS: Final[dict[str, _Flavor]] = {
    "rtx": _Flavor("tensorrt_rtx", (1, 5), "pip install 'tensorrt-rtx>=1.5'"),
    "tensorrt": _Flavor("tensorrt", (10, 3), "pip install 'tensorrt>=10.3'"),
}
"""The packages, by the name of their flavor."""


@attrs.frozen(eq=False)
class Library:
    """An imported TensorRT.

    Attributes:
        module: the module itself.
        flavor: a key of :data:`FLAVORS`.
        version: of the package, as numbers.
    """

    module: Any = attrs.field(repr=False)
    flavor: str
    version: tuple[int, ...]

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT for RTX."""
        return self.flavor == "rtx"

    @property
    def builds_sizes_from_values(self) -> bool:
        """Whether engines may have sizes that only a run tells.

        TensorRT for RTX defines the layer, `NonZero`, and has no kernel for it: the build fails.
        """
        return not self.is_rtx

    @property
    def name(self) -> str:
        """``tensorrt_rtx 1.7.1``."""
        shown = ".".join(map(str, self.version[:3]))
        return f"{FLAVORS[self.flavor].package} {shown}"

    @property
    def logger(self) -> Any:
        """The logger to make builders and runtimes with."""
        return logger_for(self.module)

    def has(self, path: str) -> bool:
        """Whether there is a class or a member of one: ``INetworkDefinition.add_cumulative``."""
        found = self.module
        for part in path.split("."):
            found = getattr(found, part, None)
            if found is None:
                return False
        return True

    def enum(self, name: Name) -> Any:
        """The member of TensorRT's enum that `name` stands for."""
        return getattr(getattr(self.module, type(name).__name__), name.name)

    def capabilities(self) -> tuple[Capability, ...]:
        """The compute capabilities that engines can be built for; empty where it is not said.

        Only TensorRT for RTX builds for a GPU that isn't there.
        """
        if not self.has("ComputeCapability"):
            return ()
        names = self.module.ComputeCapability.__members__
        found = (re.fullmatch(r"SM(\d+)(\d)", name) for name in names)
        return tuple(sorted((int(m[1]), int(m[2])) for m in found if m))


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of a version: ``1.7.1.116`` is ``(1, 7, 1, 116)``."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:4])


@cache
def load(flavor: str) -> Library:
    """Imports a library.

    Args:
        flavor: a key of :data:`FLAVORS`.

    Raises:
        EngineError: it is not installed, is too old, or can't be imported.
    """
    wanted = FLAVORS[flavor]
    try:
        module: ModuleType = importlib.import_module(wanted.package)
    except ModuleNotFoundError as error:
        if error.name != wanted.package:
            raise _broken(wanted, error) from error
        raise EngineError(f"{wanted.package} is not installed", hint=wanted.install) from None
    except Exception as error:  # whatever its own code raises, as with another numpy
        raise _broken(wanted, error) from error
    if not hasattr(module, "__version__"):
        raise EngineError(
            f"what is imported as {wanted.package} is no TensorRT: {module!r}",
            hint=f"rename a folder that is called so, or install it: {wanted.install}",
        )
    version = version_of(module.__version__)
    if version < wanted.oldest:
        raise EngineError(
            f"{wanted.package} {module.__version__} is too old",
            hint=wanted.install,
        )
    return Library(module, flavor, version)


def _broken(wanted: _Flavor, error: Exception) -> EngineError:
    return EngineError(
        f"{wanted.package} is installed, but can't be imported: {error}",
        hint=f"install it again: {wanted.install}",
    )


# --------------------------------------------------------------------------- choosing


@attrs.frozen
class Choice:
    """What was chosen for a target, and why.

    Attributes:
        library: the library, or None where parts run in Torch.
        reason: why, as the end of a sentence.
        capabilities: the compute capabilities to build for; empty: the library's default.
    """

    library: Library | None
    reason: str
    capabilities: tuple[Capability, ...] = ()

    def __str__(self) -> str:
        chosen = self.library.name if self.library else "no TensorRT"
        built = ", ".join(f"{major}.{minor}" for major, minor in self.capabilities)
        return f"{chosen}{f' for {built}' if built else ''}: {self.reason}"


def choose(target: str, gpu: Capability | None) -> Choice:
    """The library for a target; says so in the log, in one line.

    Args:
        target: as the table at the top of this module has it.
        gpu: the compute capability of the GPU that will run the program; None on a CPU.

    Raises:
        SettingsError: there is no such target, or a capability is not supported.
        EngineError: a library that was asked for by name can't be used.
    """
    choice = choice_for(target, gpu)
    LOG.info("target %r: %s", target, choice)
    return choice


def choice_for(target: str, gpu: Capability | None) -> Choice:
    """The same as :func:`choose`, without a word."""
    name, _, listed = target.partition(":")
    if name == "rtx":
        library = load("rtx")
        return Choice(library, "the target names it", _parse_capabilities(library, listed))
    if target == "tensorrt":
        return Choice(load("tensorrt"), "the target names it")
    if target == "cpu" or (target == "auto" and gpu is None):
        return Choice(None, "the program runs on the CPU, and an engine needs a GPU")
    if target == "cuda":
        return Choice(None, "the target names Torch on a GPU")
    if target == "auto":
        return _by_gpu(gpu)
    raise SettingsError(
        f"there is no target {target!r}",
        setting="target",
        hint="known: auto, cpu, cuda, rtx, rtx:8.9,12.0, tensorrt",
    )


def _by_gpu(gpu: Capability | None) -> Choice:
    """The first library that can build for `gpu` (None: one that is not known yet)."""
    refusals = []
    for flavor in FLAVORS:
        try:
            library = load(flavor)
        except EngineError as error:
            refusals.append(error.message)
            continue
        supported = library.capabilities()
        if gpu is None or not supported or gpu in supported:
            return Choice(
                library, _why(library, gpu, refusals), (gpu,) if supported and gpu else ()
            )
        shown = ", ".join(f"{major}.{minor}" for major, minor in supported)
        refusals.append(f"{library.name} supports {shown}, not {gpu[0]}.{gpu[1]}")
    return Choice(None, "; ".join(refusals))


def _why(library: Library, gpu: Capability | None, refusals: list[str]) -> str:
    if refusals:
        return "; ".join(refusals)
    return f"it supports {gpu[0]}.{gpu[1]}" if gpu else "it is installed"


def _parse_capabilities(library: Library, listed: str) -> tuple[Capability, ...]:
    """The capabilities of ``rtx:8.9,12.0``.

    Raises:
        SettingsError: one is not written so, or not supported.
    """
    supported = library.capabilities()
    found = []
    for text in filter(None, (part.strip() for part in listed.split(","))):
        match = re.fullmatch(r"(\d+)\.(\d)", text)
        capability = (int(match[1]), int(match[2])) if match else None
        if capability not in supported:
            shown = ", ".join(f"{major}.{minor}" for major, minor in supported)
            raise SettingsError(
                f"{library.name} can't build for compute capability {text}",
                setting="target",
                hint=f"it builds for {shown}",
            )
        found.append(capability)
    return tuple(dict.fromkeys(found))
