"""What a zoo entry is: a tiny model, the inputs it takes and the sizes that may vary.

An entry is data. Its inputs are declared once, as named `Arg`s whose shapes mix ints with
`Axis`es; from them come the example tensors (`Entry.inputs`) and the `dynamic_shapes` of
`torch.export` (`Entry.dynamic`).
"""

from __future__ import annotations

import importlib
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

Family = Literal["transformers", "diffusers"]
Kind = Literal[
    "encoder", "decoder", "moe", "ssm", "seq2seq", "vision", "audio", "unet", "vae", "dit"
]
Attention = Literal["eager", "sdpa"]
Settings = dict[str, Any]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]

EAGER: tuple[Attention, ...] = ("eager",)
SDPA: tuple[Attention, ...] = ("sdpa",)
BOTH: tuple[Attention, ...] = EAGER + SDPA


# ---- sizes ----------------------------------------------------------------------------------


@frozen
class Axis:
    """A size that may vary: `low <= size <= high`, always a multiple of `step`.

    `axis.times(2)`, in a shape, is twice the size.
    """

    name: str
    at: int  # where the example inputs are made, and the model is traced
    other: int  # a second size, to check a dynamic program
    low: int = 1
    high: int = 64
    step: int = 1
    factor: int = 1

    def times(self, factor: int) -> Axis:
        """This axis where a shape has a multiple of its size."""
        return evolve(self, factor=factor)

    def dim(self) -> Any:
        """The `torch.export.Dim` of this axis, or a multiple of one."""
        unit = self.name if self.step == 1 else f"{self.name}_by_{self.step}"
        dim = Dim(unit, min=-(-self.low // self.step), max=self.high // self.step)
        scale = self.step * self.factor
        return dim if scale == 1 else scale * dim


# ---- inputs ---------------------------------------------------------------------------------

Fill = Callable[[tuple[int, ...], torch.Generator], Tensor]


@frozen
class Arg:
    """A tensor argument: its shape, and how values are drawn for it."""

    shape: tuple[int | Axis, ...]
    fill: Fill

    def make(self, sizes: Mapping[str, int], rng: torch.Generator) -> Tensor:
        """The tensor for these sizes, on the CPU."""
        shape = (n.factor * sizes[n.name] if isinstance(n, Axis) else n for n in self.shape)
        return self.fill(tuple(shape), rng)

    def dims(self) -> dict[int, Any] | None:
        """The dynamic dimensions by position, or None where all are fixed."""
        return {i: n.dim() for i, n in enumerate(self.shape) if isinstance(n, Axis)} or None


Args = Mapping[str, Arg | Mapping[str, Arg]]


def ids(*shape: int | Axis, low: int = 3, high: int = 99) -> Arg:
    """Integers in [low, high); the default leaves out the special tokens."""
    return Arg(shape, lambda size, rng: torch.randint(low, high, size, generator=rng))


def mask(*shape: int | Axis) -> Arg:
    """An int64 padding mask [batch, seq]: the last row lacks its last two tokens."""

    def fill(size: tuple[int, ...], rng: torch.Generator) -> Tensor:
        value = torch.ones(size, dtype=torch.int64)
        value[-1, -2:] = 0
        return value

    return Arg(shape, fill)


def counting(size: int | Axis) -> Arg:
    """0, 1, 2 ...: positions."""
    return Arg((size,), lambda size, rng: torch.arange(*size))


def floats(*shape: int | Axis) -> Arg:
    """Standard normal values: pixels, samples, latents, embeddings."""
    return Arg(shape, lambda size, rng: torch.randn(size, generator=rng))


def steps(*shape: int | Axis) -> Arg:
    """Diffusion time steps, int64."""
    return ids(*shape, low=0, high=1000)


def levels(*shape: int | Axis) -> Arg:
    """Noise levels in (0, 1]: powers of two, so that a thousandfold is exact in bfloat16."""
    return Arg(shape, lambda size, rng: 0.5 ** torch.randint(0, 8, size, generator=rng))


def places(*shape: int | Axis) -> Arg:
    """Small whole numbers as floats: coordinates."""
    return Arg(shape, lambda size, rng: torch.randint(0, 16, size, generator=rng).float())


# ---- weights --------------------------------------------------------------------------------


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and running statistic a seeded value that the output depends on.

    Matrices get variance 1/fan-in and convolutions 2/fan-in, scales lie around 1, biases
    around 0; structured state-space parameters keep their values, perturbed. Returns `module`
    in eval mode.
    """
    rng = torch.Generator().manual_seed(seed)
    done: set[int] = set()  # tied parameters are drawn once
    with torch.no_grad():
        for owner in module.modules():
            statistics = [(n, b) for n, b in owner.named_buffers(recurse=False) if "running" in n]
            for name, value in [*owner.named_parameters(recurse=False), *statistics]:
                if id(value) not in done:
                    done.add(id(value))
                    noise = torch.randn(value.shape, generator=rng)
                    value.copy_(_draw(owner, name, value, noise))
    return module.eval()


def _draw(owner: nn.Module, name: str, old: Tensor, noise: Tensor) -> Tensor:
    """A value for one tensor, by its role, from standard normal noise."""
    if name in ("A_log", "D", "dt_bias"):  # state space: spectra and step sizes
        return old + 0.1 * noise
    if name.endswith(("bias", "running_mean")):
        return 0.1 * noise
    if name.endswith("running_var"):
        return 1.0 + 0.4 * noise.tanh()
    if old.ndim <= 1:  # norm weights, layer scales
        return 1.0 + 0.1 * noise
    if isinstance(owner, nn.Embedding):
        return 0.5 * noise
    if isinstance(owner, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return noise * math.sqrt(2 / old[0].numel())
    return noise / math.sqrt(old.shape[-1])


# ---- where models come from -----------------------------------------------------------------


@frozen
class Transformers:
    """A `transformers` model built from its config class."""

    model: str
    config: str
    settings: Settings
    attentions: tuple[Attention, ...] = BOTH
    wrap: Callable[[Any], nn.Module] | None = None
    family: Family = "transformers"

    def __call__(self, attn: Attention | None) -> nn.Module:
        library = importlib.import_module("transformers")
        config = getattr(library, self.config)(**self.settings)
        if attn is not None:
            config._attn_implementation = attn
        model: nn.Module = getattr(library, self.model)(config)
        return model if self.wrap is None else self.wrap(model)


@frozen
class Diffusers:
    """A `diffusers` model built from its constructor's settings."""

    model: str
    settings: Settings
    attentions: tuple[Attention, ...] = BOTH
    family: Family = "diffusers"

    def __call__(self, attn: Attention | None) -> nn.Module:
        library = importlib.import_module("diffusers")
        model: nn.Module = getattr(library, self.model)(**self.settings)
        if attn is not None and self.attentions == BOTH:
            parts = importlib.import_module("diffusers.models.attention_processor")
            processor = parts.AttnProcessor if attn == "eager" else parts.AttnProcessor2_0
            for module in model.modules():
                if isinstance(module, parts.Attention):
                    module.set_processor(processor())
        return model


# ---- entries --------------------------------------------------------------------------------


@frozen
class Tolerance:
    """The largest |error| over the largest |expected| of an output, by the dtype computed in."""

    float32: float = 1e-5
    float16: float = 1e-2
    bfloat16: float = 6e-2

    def of(self, dtype: torch.dtype) -> float:
        """The bound for a dtype; raises AttributeError for one that has none."""
        return float(getattr(self, str(dtype).removeprefix("torch.")))


@frozen
class Entry:
    """One tiny architecture."""

    name: str
    kind: Kind
    source: Transformers | Diffusers
    args: Args
    quick: bool = False  # in the subset for everyday test runs
    notes: str = ""
    float64: bool = True  # whether the model also computes in float64
    tolerance: Tolerance = Tolerance()
    upstream_failure: str = ""  # the first line of torch's error at a dynamic export
    seed: int = field()

    @seed.default
    def _seed(self) -> int:
        return zlib.crc32(self.name.encode())

    @property
    def family(self) -> Family:
        """The library the model comes from."""
        return self.source.family

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """The attention implementations that `build` accepts."""
        return self.source.attentions

    @property
    def axes(self) -> dict[str, Axis]:
        """The sizes that may vary, by name."""
        args = pytree.tree_leaves(dict(self.args))
        return {n.name: n for arg in args for n in arg.shape if isinstance(n, Axis)}

    @property
    def reproduce(self) -> str:
        """The command that shows a dynamic export of this entry."""
        return f"python -m tests.zoo {self.name} --dynamic"

    def build(self, attn: Attention | None = None) -> nn.Module:
        """The model in eval mode, float32, with seeded weights.

        `attn` picks the attention implementation; None leaves the library's default. Raises
        ImportError where the library is missing, ValueError where there is no such choice.
        """
        if attn is not None and attn not in self.attentions:
            raise ValueError(f"{self.name} has no {attn!r} attention, only {self.attentions}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return randomize(self.source(attn), self.seed)

    def inputs(
        self, *, dtype: torch.dtype = torch.float32, device: str = "cpu", **sizes: int
    ) -> Inputs:
        """Seeded example inputs: the first argument positional, the others by keyword.

        `sizes` names axes, as in `inputs(batch=3, seq=7)`; the others are at `Axis.at`.
        `dtype` is that of floating arguments. Raises ValueError for an axis it doesn't have.
        """
        if unknown := set(sizes) - set(self.axes):
            raise ValueError(f"{self.name} has no axis {sorted(unknown)}, only {list(self.axes)}")
        every = {name: axis.at for name, axis in self.axes.items()} | sizes
        rng = torch.Generator().manual_seed(self.seed)

        def make(arg: Arg) -> Tensor:
            value = arg.make(every, rng)
            return value.to(device, dtype if value.is_floating_point() else None)

        tree = pytree.tree_map(make, dict(self.args))
        return (tree.pop(next(iter(tree))),), tree

    def dynamic(self) -> dict[str, Any]:
        """The `dynamic_shapes` for torch.export, with every axis dynamic."""
        return dict(pytree.tree_map(lambda arg: arg.dims(), dict(self.args)))

    def export(self, dynamic: bool = False, attn: Attention | None = None) -> ExportedProgram:
        """Export the model, not strictly, at the example inputs."""
        args, kwargs = self.inputs()
        shapes = self.dynamic() if dynamic else None
        model = self.build(attn)
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
