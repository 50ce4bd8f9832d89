"""Programs for a device, and a new process that loads them and knows nothing of their models."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import rewright
from rewright.demo_models import MODELS
from tests.artifact.zoo import CASES
from tests.conftest import ROOT

_REFUSED = (
    {} if torch.__version__ >= "2.12" else {"cpu": ("llama",), "cuda": ("llama", "bert", "unet")}
)
"""Models whose numbers of tokens torch 2.11 can't export as sizes that vary, by device: the fused
attention of CUDA wants multiples of eight there."""

NAMES = (*MODELS, "perceptron", "tied", "folding")
"""The demo models, which have sizes that vary, and others with what an artifact must keep."""

CALLS = 5
"""How often each shape is called: as a warm-up or two, to be recorded, and as a replay."""


@attrs.frozen
class Place:
    """Where programs run, and how."""

    device: str
    cuda_graphs: str


def varies(name: str, device: str = "cpu") -> bool:
    """Whether a demo model is exported with sizes that vary."""
    return name not in _REFUSED.get(device, ())


def shapes(name: str, device: str = "cpu") -> Iterator[tuple[Tensor, ...]]:
    """Example arguments of a demo model, of several sizes within its ranges."""
    inputs = MODELS[name].inputs()
    yield inputs
    if not varies(name, device):
        return
    first, *others = inputs
    for batch, tokens in ((1, 8), (3, 17)):
        if name == "resnet":
            yield (torch.randn(batch, *first.shape[1:]),)
        elif name == "unet":
            yield torch.randn(batch, *first.shape[1:]), others[0], torch.randn(batch, 12, 64)
        else:
            yield (torch.randint(3, 500, (batch, tokens)), torch.ones(batch, tokens).long())[
                : len(inputs)
            ]


def _model(
    name: str, device: str
) -> tuple[nn.Module, Any, list[tuple[Tensor, ...]], Mapping[str, Any]]:
    """A model in eval mode on the CPU, its sizes that vary, arguments, and settings."""
    if name in MODELS:
        demo = MODELS[name]
        dynamic = demo.dynamic_shapes if varies(name, device) else None
        return demo.build(), dynamic, [*shapes(name, device)], {}
    case = CASES[name]
    torch.manual_seed(0)
    model, first = case.model().eval(), case.args()
    given = [first, *((first[0][:rows],) for rows in (1, 3) if case.dynamic_shapes)]
    return model, case.dynamic_shapes, given, case.settings


def _plain(tree: Any, device: str) -> list[Tensor]:
    return [t.detach().to(device) for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions on a GPU in f32, as products are by default: else numbers say little."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(cudnn.enabled, cudnn.benchmark, allow_tf32=False):
        yield


def save(name: str, place: Place, folder: Path) -> None:
    """Leaves a program in `folder`, with arguments, and what it and its model give for them.

    Raises:
        ImportError: the library of the model is not here.
    """
    model, dynamic, given, settings = _model(name, place.device)
    model = model.to(place.device).requires_grad_(False)
    given = [tuple(arg.to(place.device) for arg in args) for args in given]
    with torch.no_grad():
        exported = torch.export.export(model, given[0], dynamic_shapes=dynamic, strict=False)
        program = rewright.compile_exported(
            exported, **settings, cuda_graphs=place.cuda_graphs, on_error="raise"
        )
        with without_tf32():
            known = [
                {
                    "args": [arg.cpu() for arg in args],
                    "program": _plain(program(*args), "cpu"),
                    "model": _plain(model(*args), "cpu"),
                }
                for args in given
            ]
    program.save(folder / f"{name}.rw")
    torch.save(known, folder / f"{name}.pt")


def surroundings(folder: Path) -> dict[str, str]:
    """Variables of a new process: with more threads, torch takes sums in another order."""
    threads = str(torch.get_num_threads())
    return {"PYTHONPATH": str(ROOT / "src"), "HOME": str(folder), "OMP_NUM_THREADS": threads}


def in_fresh_process(folder: Path, place: Place) -> dict[str, Any]:
    """What a new process that can't import models found, by the name of the program."""
    environment = {**os.environ, **surroundings(folder)}
    done = subprocess.run(
        [sys.executable, "-c", _LOADER, str(folder), place.device, str(CALLS)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_LOADER = """
import json, sys, traceback, warnings
from pathlib import Path

for name in ("transformers", "diffusers", "tests", "tensorrt_rtx", "tensorrt"):
    sys.modules[name] = None
import torch
import rewright
from torch.utils import _pytree as pytree
from rewright.artifact.records import Record

torch.backends.cudnn.allow_tf32 = False
folder, device, calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def check(program, device, known, exact):
    args = [arg.to(device, copy=True) for arg in known["args"]]  # at another address each time
    result = program(*args)
    found = [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
    assert len(found) == len(known["program"]) == len(known["model"]) > 0
    for actual, same, wanted in zip(found, known["program"], known["model"]):
        assert actual.device.type == device and actual.dtype == wanted.dtype
        assert actual.shape == wanted.shape and actual.stride() == wanted.stride()
        actual = actual.cpu()
        assert not exact or torch.equal(actual, same)
        rtol, atol = (2e-2, 1e-2) if wanted.dtype is torch.bfloat16 else (2e-3, 2e-4)
        scale = max(1.0, float(wanted.abs().max()))
        for other in (same, wanted):
            torch.testing.assert_close(actual, other, rtol=rtol, atol=atol * scale)
    return result


def checked(path):
    known = torch.load(path.with_suffix(".pt"))
    rewright.reset_stats()
    program = rewright.load(path)
    made, result = 0, None
    for number in range(calls):
        for item in known:
            result = check(program, device, item, exact=device == "cpu")
            made += 1
    done = rewright.stats()
    counts = (done.graphs, done.nodes, done.fallbacks, done.fallback_reasons)
    assert counts[:3] == (0, 0, 0), counts
    graphs = program.cuda_graphs
    others = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    moved = [rewright.load(path, device=other) for other in others if graphs is None]
    moved += [rewright.load(path).to(device)]
    for other in moved:
        for item in known:
            check(other, other.graph.device.partition(":")[0], item, exact=False)
    return {
        "classes": "record" if isinstance(result, Record) else "plain",
        "calls": made,
        "shapes": len(known),
        "moved": len(moved),
        "captures": done.captures,
        "replays": 0 if graphs is None else graphs.replays,
        "refusal": None if graphs is None else graphs.refusal,
    }


found = {}
for path in sorted(folder.glob("*.rw")):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rewright.errors.RewrightWarning)
            found[path.stem] = checked(path)
    except Exception:
        found[path.stem] = {"error": traceback.format_exc()}
assert "rewright.demo_models" not in sys.modules
print(json.dumps(found))
"""
