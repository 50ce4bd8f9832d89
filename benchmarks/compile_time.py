"""What a compile costs before anything is built: import, passes, partition, and each one's share.

    python -m benchmarks.compile_time [resnet50 bert vit sd15-unet] [--level 2] [--dynamic]

Full-size models with random float32 weights, exported on the CPU; the export is not counted. Every
row is a process of its own, so that nothing is known from an earlier compile: ``cold`` is the first
compile of a process, ``again`` the same once more. The rows ``rtx`` end in a partition for TensorRT
for RTX; no engine is built. Shares are of the passes' own time in the first compile;
``start`` is what comes before the first pass: the pass library is loaded, once in a process.

Seconds are of the clock, and in brackets of the processor: where the machine has other work, only
these can be compared.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
import torch
from torch import nn

Made = tuple[nn.Module, dict[str, torch.Tensor]]


def resnet50() -> Made:
    """ResNet-50 at 224 x 224."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig()), {"pixel_values": _noise(3, 224, 224)}


def bert() -> Made:
    """BERT-base, 128 tokens and a mask."""
    from transformers import BertConfig, BertModel

    ids = torch.randint(0, 30000, (2, 128))
    return BertModel(BertConfig()), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def vit() -> Made:
    """ViT-B/16 at 224 x 224."""
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig()), {"pixel_values": _noise(3, 224, 224)}


def sd15_unet() -> Made:
    """The UNet of Stable Diffusion 1.5, for images of 512 x 512."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    given = {"sample": _noise(4, 64, 64), "timestep": torch.tensor(7)}
    return model, {**given, "encoder_hidden_states": _noise(77, 768)}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(2, *shape)


MODELS: Final[dict[str, Callable[[], Made]]] = {
    "resnet50": resnet50,
    "bert": bert,
    "vit": vit,
    "sd15-unet": sd15_unet,
}

ROWS: Final = {
    "level 1": {"optimization_level": 1},
    "level 2": {"optimization_level": 2},
    "level 3": {"optimization_level": 3},
    "rtx, level 2": {"optimization_level": 2, "target": "rtx"},
}
"""The settings of each row."""


@attrs.frozen
class Spent:
    """Seconds of the clock and of the processor."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:5.2f} ({self.cpu:5.2f})"


@attrs.frozen
class Cost:
    """What one compile took: the import, all passes, and each pass by name."""

    nodes: int
    importing: Spent
    passes: Spent
    each: Counter[str]

    @property
    def total(self) -> Spent:
        """Import and passes."""
        wall = self.importing.wall + self.passes.wall
        return Spent(wall, self.importing.cpu + self.passes.cpu)


def exported(make: Callable[[], Made], dynamic: bool = False) -> torch.export.ExportedProgram:
    """A model of :data:`MODELS` in eval mode, exported."""
    model, inputs = make()
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = {name: {0: batch} if item.ndim else None for name, item in inputs.items()}
    with torch.no_grad():
        return torch.export.export(
            model.eval(), (), inputs, dynamic_shapes=shapes if dynamic else None, strict=False
        )


def measure(program: torch.export.ExportedProgram, settings: dict[str, Any]) -> Cost:
    """Imports `program` and runs the passes of a compile with `settings`."""
    from rewright.frontends.export import import_exported
    from rewright.passes.compiling import run_pipeline
    from rewright.settings import Settings
    from rewright.targets import target_of

    chosen = Settings(**settings)
    backends = target_of(chosen).backends
    gc.collect()
    graph, importing = _timed(lambda: import_exported(program)[0])
    run, passes = _timed(lambda: run_pipeline(graph, chosen, backends=backends))
    each = Counter({"start": passes.wall - run.seconds})
    for child in run.children:
        each[child.name] += child.seconds
    return Cost(sum(1 for _ in graph.walk()), importing, passes, each)


def _timed(function: Callable[[], Any]) -> tuple[Any, Spent]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = function()
    return made, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def row(program: torch.export.ExportedProgram, label: str) -> None:
    """Measures and prints one row, in this process."""
    first, again = measure(program, ROWS[label]), measure(program, ROWS[label])
    shares = (f"{name} {spent / first.passes.wall:.0%}" for name, spent in first.each.most_common())
    print(
        f"  {label:13}{first.total}{again.total}   import {first.importing} "
        f"passes {first.passes}  {first.nodes:5} nodes   {', '.join(shares)}",
        flush=True,
    )


def main() -> None:
    """Prints a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)} (all)")
    parser.add_argument("--level", type=int, choices=(1, 2, 3), help="only the rows of this level")
    parser.add_argument("--dynamic", action="store_true", help="a batch of 1 to 8")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # rows are forked
    labels = [x for x in ROWS if options.level in (None, ROWS[x]["optimization_level"])]
    print("seconds (of the processor):      cold         again")
    for name in options.names or MODELS:
        program, spent = _timed(lambda name=name: exported(MODELS[name], options.dynamic))
        print(f"{name}: exported in {spent.wall:.1f} s")
        for label in labels:
            child = multiprocessing.get_context("fork").Process(target=row, args=(program, label))
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit(f"{name}, {label}: exit status {child.exitcode}")


if __name__ == "__main__":
    main()
