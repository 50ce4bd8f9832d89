"""From an exported program to TensorRT engines: seconds, and peak memory as a multiple of weights.

    python benchmarks/build.py [resnet50 bert vit]

Full-size models with random weights, float16, batch 1 to 8. Each runs in a process of its own, so
that the peak is its own. Needs transformers and tensorrt_rtx, and no GPU.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
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


def measure(name: str) -> dict[str, float]:
    """Compiles one model in this process."""
    import rewright
    from rewright.backends.tensorrt.library import load
    from rewright.frontends.export import import_exported
    from rewright.passes.compiling import run_pipeline
    from rewright.settings import Settings
    from rewright.targets import target_of

    warnings.simplefilter("ignore")
    model, args = MODELS[name]()
    model = model.eval().half()
    weights = sum(p.nbytes for p in model.parameters()) / 1e6
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(model, args, dynamic_shapes=({0: batch},))
    load("rtx")
    before = peak()
    start = time.perf_counter()
    program = rewright.compile_exported(exported, target="rtx", require_full_compilation=True)
    total = time.perf_counter() - start
    high = peak()
    settings = Settings(target="rtx")
    start = time.perf_counter()
    graph, _ = import_exported(exported)
    run_pipeline(graph, settings, backends=target_of(settings).backends)
    passes = time.perf_counter() - start
    build = sum(segment.engine.seconds for segment in program.segments)
    return {
        "weights MB": weights,
        "engine MB": sum(len(s.engine.data) for s in program.segments) / 1e6,
        "import + passes s": passes,
        "convert s": total - passes - build,
        "build s": build,
        "total s": total,
        "extra peak / weights": (high - before) / weights,
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
        print(name, " ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
