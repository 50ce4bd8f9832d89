"""One variant of the pipeline: every model compiled by it, and where the time of an image goes.

What a careful user would do, the same for every variant: the text encoder, the U-Net and the VAE's
decoder are compiled with static shapes, and before each call of one Inductor's graphs are told that
a new step begins. Without that they would take the results of the last call, which the pipeline may
still hold, for ones to keep. (Nothing that the pipeline keeps from step to step is in a graph's
memory: the guided noise and the repeated embeddings are made outside. So nothing is cloned.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import torch
from torch import Tensor, nn

from benchmarks.gpu.models import Place
from benchmarks.gpu.timing import error_of, exact_float32
from benchmarks.gpu.variants import Variant
from benchmarks.stable_diffusion.pipeline import GUIDANCE, PROMPT, build

WARM: Final = 3
"""Images after the first one until every graph is recorded: a decoder runs once per image."""

Call = Callable[..., Any]


@attrs.frozen
class Part:
    """A model of the pipeline.

    Attributes:
        name: in tables.
        model: the attribute of the pipeline.
        method: what the pipeline calls.
        arguments: the names of those that the pipeline gives by position.
    """

    name: str
    model: str
    method: str
    arguments: tuple[str, ...]


PARTS: Final = (
    Part("text encoder", "text_encoder", "forward", ("input_ids",)),
    Part("U-Net", "unet", "forward", ("sample", "timestep")),
    Part("VAE", "vae", "decode", ("z",)),
)
REFERENCE: Final = "reference"
"""What is made in float32, to compare with."""

REST: Final = "rest"
"""The scheduler, the guidance, and what the host does while the device waits."""


# --------------------------------------------------------------------------- where time goes


@attrs.define
class Clock:
    """The device's time in each part, between events; on the CPU, the host's.

    Attributes:
        device: whose time it is.
        spans: part, beginning, end.
    """

    device: torch.device
    spans: list[tuple[str, Any, Any]] = attrs.field(factory=list)

    def now(self) -> Any:
        """This moment in the device's stream of work."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Comes back when the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def taken(self) -> dict[str, float]:
        """Seconds in each part since the last time; the device must be idle."""
        seconds = dict.fromkeys((part.name for part in PARTS), 0.0)
        for name, begin, end in self.spans:
            on_host = isinstance(begin, float)
            seconds[name] += end - begin if on_host else begin.elapsed_time(end) / 1e3
        self.spans.clear()
        return seconds


class Stage(nn.Module):
    """A compiled model in the pipeline; it answers what else is asked of one (config, dtype)."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def __getattr__(self, name: str) -> Any:
        """What the stage has, or else its model."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, *args: Any, **given: Any) -> Any:
        """As the model's."""
        return self.call(*args, **given)


def compile_parts(pipe: Any, variant: Variant, clock: Clock) -> None:
    """Puts what `variant` makes of each model in its place."""
    for part in PARTS:
        model = getattr(pipe, part.model)
        if part.method == "forward":
            call = _timed(variant.prepare(model, {}), part, clock)
            setattr(pipe, part.model, Stage(model, call))
        else:
            call = _timed(variant.prepare(getattr(model, part.method), {}), part, clock)
            setattr(model, part.method, call)


def _timed(run: Call, part: Part, clock: Clock) -> Call:
    def call(*args: Any, **given: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        begin = clock.now()
        result = run({**dict(zip(part.arguments, args, strict=False)), **given})
        clock.spans.append((part.name, begin, clock.now()))
        return result

    return call


# --------------------------------------------------------------------------- images


@attrs.frozen
class Painted:
    """What an image took.

    Attributes:
        seconds: by the host's clock, the device idle before and after.
        parts: seconds of them in each part, and the rest.
    """

    seconds: float
    parts: Mapping[str, float]


@attrs.define
class Painter:
    """A pipeline that makes images; `row` says what became of it."""

    pipe: Any
    place: Place
    steps: int
    clock: Clock
    row: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, place: Place, scheduler: str, steps: int) -> Painter:
        """An eager one, CUDA and its libraries loaded."""
        made = cls(build(place, scheduler), place, steps, Clock(place.device))
        torch.compiler.cudagraph_mark_step_begin()  # imports Inductor: in no variant's time
        made.paint(0, steps=2)
        return made

    def start(self, variant: Variant) -> Painted:
        """Compiles, and makes the first image; its seconds are those of both."""
        began = time.perf_counter()
        compile_parts(self.pipe, variant, self.clock)
        painted = self.paint(1)
        self.row = {
            "first_image_s": time.perf_counter() - began, "settings": dict(variant.settings),
            "ours": variant.is_ours, "inductor": variant.is_inductor,
        }  # fmt: skip
        return painted

    def warm_up(self) -> None:
        """Makes images until nothing is compiled or recorded any more; notes what was."""
        for seed in range(WARM):
            self.paint(2 + seed)
        if self.place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.paint(1)
            self.row["peak_allocated_mb"] = torch.cuda.max_memory_allocated() / 2**20
        self.row.update(compiled())

    def latents(self, seed: int) -> Tensor:
        """Noise to begin with, the same numbers on every device and in every precision."""
        unet = self.pipe.unet
        shape = (1, unet.config.in_channels, *(unet.config.sample_size,) * 2)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(self.place.device, self.place.dtype).to(unet.dtype)

    def paint(self, seed: int, steps: int | None = None) -> Painted:
        """Makes an image from the noise of `seed`.

        Raises:
            FloatingPointError: it is not finite.
        """
        latents = self.latents(seed)
        self.clock.wait()
        self.clock.spans.clear()
        began = time.perf_counter()
        image = self.pipe(
            PROMPT, num_inference_steps=steps or self.steps, guidance_scale=GUIDANCE,
            latents=latents, output_type="pt",
        ).images  # fmt: skip
        self.clock.wait()
        seconds = time.perf_counter() - began
        if not image.isfinite().all():
            raise FloatingPointError(f"the image of seed {seed} is not finite")
        parts = self.clock.taken()
        return Painted(seconds, {**parts, REST: seconds - sum(parts.values())})

    def keep(self, seed: int) -> dict[str, Tensor]:
        """The last latents of an image, and what is decoded from them, before it is clamped."""
        vae = self.pipe.vae
        decode, found = vae.decode, {}

        def keeping(z: Tensor, **given: Any) -> Any:
            result = decode(z, **given)
            found.update(latents=z.double().cpu(), image=result[0].double().cpu())
            return result

        vae.decode = keeping
        try:
            self.paint(seed)
        finally:
            vae.decode = decode
        return found

    def compare(self, expected: Mapping[str, Tensor], seed: int = 0) -> None:
        """Notes the errors of an image, relative in L2."""
        found = self.keep(seed)
        for name, tensor in expected.items():
            self.row[f"error_{name}"] = error_of([found[name]], [tensor])


def reference(place: Place, scheduler: str, steps: int, seed: int = 0) -> dict[str, Tensor]:
    """What :meth:`Painter.keep` gives where all is computed in float32, of the same weights."""
    pipe = build(place, scheduler)
    for part in PARTS:
        getattr(pipe, part.model).float()
    with exact_float32():
        return Painter(pipe, place, steps, Clock(place.device)).keep(seed)


def compiled() -> dict[str, Any]:
    """What was compiled in this process, by Dynamo's, Inductor's and our own count."""
    import rewright

    counters = torch._dynamo.utils.counters
    ours = rewright.stats()
    return {
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "inductor_skipped_graphs": counters["inductor"]["cudagraph_skips"],
        "our_captures": ours.captures,
        "our_fallbacks": [*ours.fallback_reasons],
    }


def refuse(variants: Sequence[Variant]) -> None:
    """Says what can't be put into a pipeline.

    Raises:
        ValueError: one of `variants` can't.
    """
    for variant in variants:
        if variant.name == "eager-graph" or variant.is_exported:
            raise ValueError(
                f"{variant.name}: a pipeline's models are dropped in by torch.compile or run "
                "eagerly; take another variant of torch, or NAME:jit:..."
            )
