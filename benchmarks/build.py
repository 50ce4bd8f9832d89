"""From an exported program to TensorRT engines: seconds, and peak memory as a multiple of weights.

    python benchmarks/build.py [resnet50 bert vit]

Full-size models with random weights, float16, batch 1 to 8. Each runs in a process of its own, so
that the peak is its own. Needs transformers and tensorrt_rtx, and no GPU.

Seconds are given as a/b: by the clock, and of all cores together, which other processes disturb
less. What is measured:

    import + passes   from the exported program to a partitioned graph
    key               the contents of weights hashed, for the engine cache
    define            TensorRT's network defined, layer by layer
    build             TensorRT's own work
    rest              generated code, engines kept, checks
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, tuple[Any, ...]]


def resnet50() -> Made:
    """ResNet-50 at 224 x 224."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig()), (torch.randn(2, 3, 224, 224).half(),)


def bert() -> Made:
    """BERT-base, 128 tokens."""
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig()), (torch.randint(0, 30000, (2, 128)),)


def vit() -> Made:
    """ViT-B/16 at 224 x 224."""
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig()), (torch.randn(2, 3, 224, 224).half(),)


MODELS: dict[str, Callable[[], Made]] = {"resnet50": resnet50, "bert": bert, "vit": vit}


def peak() -> float:
    """The peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


Seconds = tuple[float, float]


@contextmanager
def timed(into: dict[str, Seconds], name: str) -> Iterator[None]:
    """Adds the seconds of the block, by the clock and of all cores."""
    wall, cores = time.perf_counter(), time.process_time()
    yield
    before = into.get(name, (0.0, 0.0))
    into[name] = (
        before[0] + time.perf_counter() - wall,
        before[1] + time.process_time() - cores,
    )


def watch(module: Any, function: str, into: dict[str, Seconds], name: str) -> None:
    """Counts the seconds of a function of ours under a name."""
    inner = getattr(module, function)

    def counted(*args: Any, **kwargs: Any) -> Any:
        with timed(into, name):
            return inner(*args, **kwargs)

    setattr(module, function, counted)


def measure(name: str) -> dict[str, str]:
    """Compiles one model in this process."""
    import rewright
    from rewright import compiler
    from rewright.backends.tensorrt import together
    from rewright.backends.tensorrt.library import load

    warnings.simplefilter("ignore")
    model, args = MODELS[name]()
    model = model.eval().half()
    weights = sum(p.nbytes for p in model.parameters()) / 1e6
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(model, args, dynamic_shapes=({0: batch},))
    load("rtx")
    found: dict[str, Seconds] = {}
    for module, function, part in (
        (compiler, "import_exported", "import + passes"),
        (compiler, "run_pipeline", "import + passes"),
        (together, "key_of", "key"),
        (together, "emit", "define"),
        (together, "build_here", "build"),
    ):
        watch(module, function, found, part)
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(REWRIGHT_CACHE_DIR=folder, REWRIGHT_CACHE_SIZE="4GiB")
        with timed(found, "total"):
            program = rewright.compile_exported(
                exported, target="rtx", require_full_compilation=True
            )
    high = peak()
    total = found.pop("total")
    found["rest"] = (
        total[0] - sum(wall for wall, _ in found.values()),
        total[1] - sum(cores for _, cores in found.values()),
    )
    found["total"] = total
    return {
        "weights MB": f"{weights:.0f}",
        "engine MB": f"{sum(len(s.engine.data) for s in program.segments) / 1e6:.0f}",
        **{f"{part} s": f"{wall:.2f}/{cores:.2f}" for part, (wall, cores) in found.items()},
        "extra peak / weights": f"{(high - before) / weights:.2f}",
    }


def main() -> None:
    """Prints a row for each model."""
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2])))
        return
    for name in sys.argv[1:] or MODELS:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name], capture_output=True, text=True
        )
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        print(name, "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
