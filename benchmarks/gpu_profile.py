"""Where the time of a model goes on a GPU: by class of kernel, by kernel, by line of its source.

    python -m benchmarks.gpu_profile bert-b32x128 --json bert.json
    python -m benchmarks.gpu_profile vit-b32 --variants inductor-freeze-ro --ours \\
        "level2:jit:optimization_level=2,torch_backend=inductor,cuda_graphs=on"
    python -m benchmarks.gpu_profile resnet50-b1 --device cpu --tiny

The variants are those of ``benchmarks.gpu``, side by side. Kernels are classed by name, by the
first row of a table that fits. By line: a variant of ours with ``torch_backend=eager`` runs once
more with its nodes marked, without graphs, and each kernel counts for the node that launched it,
with the user's line and module. Inductor's kernels carry the names of what they fuse.

On the CPU, the time of an operator itself takes the place of a kernel's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu.models import CASES, Case, Inputs, Place
from benchmarks.gpu.timing import inputs_of, machine, model_of
from benchmarks.gpu.variants import TORCHS, Run, Variant, chosen, own_copy

CLASSES: Final[Mapping[str, str]] = {
    "attention": r"fmha|flash|attention|sdpa|mem_eff",
    "convolution": r"conv(?!ert)|fprop|dgrad|implicit_gemm|winograd|im2col",
    "gemm": r"gemm|gemv|cutlass|cublas|splitk|nvjet|triton_tem|::(add|b|ba)?mm$|::linear|matmul",
    "norm": r"norm|welford",
    "softmax": r"softmax",
    "reduction": r"reduce|triton_(red|per)|::(sum|mean|amax|argmax)",
    "pooling": r"pool",
    "index": r"index|gather|scatter|embedding",
    "copy": r"memcpy|copy|transpose|nchw|nhwc|clone|contiguous|catarray|::cat|convert",
    "fill": r"memset|fill|zero|arange",
    "pointwise": r"elementwise|triton_poi|vectorized|unrolled|::(add|mul|sub|div|gelu|silu|relu)",
    "views": r"::(view|reshape|t|permute|expand|as_strided|select|slice|unsqueeze|empty)",
}
"""What a kernel's name says of it; the first row that fits counts."""

_RULES: Final = [(name, re.compile(text, re.IGNORECASE)) for name, text in CLASSES.items()]
_MARK: Final = "node:"

PROFILED: Final = "ours:jit:optimization_level=2"


def class_of(kernel: str) -> str:
    """The class of a kernel, by its name."""
    return next((name for name, rule in _RULES if rule.search(kernel)), "other")


@attrs.define
class Profile:
    """Where a variant's time goes, in microseconds per call.

    Attributes:
        kernels: by name.
        counts: launches per call, by name.
        nodes: by node: op, line and module.
        failure: why there is nothing here, if so.
    """

    kernels: Counter[str] = attrs.field(factory=Counter)
    counts: Counter[str] = attrs.field(factory=Counter)
    nodes: Counter[str] = attrs.field(factory=Counter)
    failure: str | None = None

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(self.kernels.values()))

    def classes(self) -> Counter[str]:
        """By class of kernel."""
        made: Counter[str] = Counter()
        for name, time in self.kernels.items():
            made[class_of(name)] += time
        return made

    def as_json(self) -> dict[str, Any]:
        """Everything, sorted by time."""
        return {
            "total_us": self.total,
            "launches": sum(self.counts.values()),
            "classes_us": dict(self.classes().most_common()),
            "kernels": [
                {"name": name, "us": us, "launches": self.counts[name], "class": class_of(name)}
                for name, us in self.kernels.most_common()
            ],
            "nodes_us": dict(self.nodes.most_common()),
            "failure": self.failure,
        }


# --------------------------------------------------------------------------- marking nodes


@contextlib.contextmanager
def marked_nodes() -> Iterator[None]:
    """Programs that are compiled meanwhile mark what each of their nodes does for the profiler."""
    from rewright.backends.torch.codegen import Scope, Writer
    from rewright.ir.graph import Node

    plain = Writer._assign

    def assign(writer: Writer, scope: Scope, node: Node, text: str) -> None:
        mark = writer.module.hold("mark", record_function)
        where = f" {node.loc}" if node.loc else ""
        with writer.module.block(f"with {mark}({_MARK + node.op.name + where!r}):"):
            plain(writer, scope, node, text)

    Writer._assign = assign  # type: ignore[method-assign]
    try:
        yield
    finally:
        Writer._assign = plain  # type: ignore[method-assign]


# --------------------------------------------------------------------------- profiling


def profiled(place: Place, run: Callable[[], object], calls: int) -> Profile:
    """The profile of a function that was called before."""
    on_gpu = place.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        for _ in range(calls):
            run()
        if on_gpu:
            torch.cuda.synchronize()
    made = Profile()
    for event in found.events() or ():
        if event.name.startswith(_MARK):
            if event.device_type == DeviceType.CPU:
                time = event.device_time_total if on_gpu else event.cpu_time_total
                made.nodes[event.name.removeprefix(_MARK)] += time / calls
        elif not getattr(event, "is_user_annotation", False):
            _note(made, event, on_gpu, calls)
    return made


def _note(made: Profile, event: Any, on_gpu: bool, calls: int) -> None:
    """Counts a kernel; on the CPU, an operator."""
    if on_gpu:
        if event.device_type != DeviceType.CUDA:
            return
        time = event.time_range.elapsed_us()
    else:
        if not event.name.startswith("aten::"):
            return
        time = event.self_cpu_time_total
    made.kernels[event.name] += time / calls
    made.counts[event.name] += 1 / calls  # type: ignore[assignment]


def profile_variant(case: Case, variant: Variant, place: Place, calls: int) -> Profile:
    """A variant's profile; nodes are marked where the variant can be."""
    torch._dynamo.reset()
    model, inputs = model_of(case, place), inputs_of(case, place, 1)
    with torch.no_grad():
        made = _profile(case, variant, place, model, inputs[0], calls)
        if variant.is_ours and variant.settings.get("torch_backend", "eager") == "eager":
            torch._dynamo.reset()
            plain = chosen([], [_text(variant)], place.device.type)[0]
            with marked_nodes():
                made.nodes = _profile(case, plain, place, model, inputs[0], calls).nodes
    return made


def _text(variant: Variant) -> str:
    """The variant without graphs, which hide who launched a kernel."""
    kept = {n: v for n, v in variant.settings.items() if not n.startswith("cuda_graphs")}
    return f"{variant.name}:jit:{','.join(f'{name}={value}' for name, value in kept.items())}"


def _profile(
    case: Case, variant: Variant, place: Place, model: Any, given: Inputs, calls: int
) -> Profile:
    own = own_copy(model)
    run: Run = variant.prepare(own, given)
    for _ in range(5):
        if case.before is not None:
            case.before(own)
        run(given)
    return profiled(place, lambda: run(given), calls)


# --------------------------------------------------------------------------- tables


def tables(found: Mapping[str, Profile], top: int) -> str:
    """Markdown: classes side by side, then each variant's kernels and nodes."""
    parts = [_classes(found)]
    for name, made in found.items():
        if made.failure is not None:
            parts.append(f"{name}: failed: {made.failure}")
            continue
        lines = [
            f"{us:9.1f}  {made.counts[kernel]:6.1f}  {class_of(kernel):12} {kernel[:110]}"
            for kernel, us in made.kernels.most_common(top)
        ]
        parts.append("\n".join([f"{name}: us per call, launches, class, kernel", *lines]))
        if made.nodes:
            lines = [f"{us:9.1f}  {node[:140]}" for node, us in made.nodes.most_common(top)]
            parts.append("\n".join([f"{name}: us per call, node and line", *lines]))
            lines = [f"{us:9.1f}  {line}" for line, us in by_line(made.nodes).most_common(top)]
            parts.append("\n".join([f"{name}: us per call, line", *lines]))
    return "\n\n".join(parts)


def by_line(nodes: Mapping[str, float]) -> Counter[str]:
    """The times of nodes by the user's line, whatever module ran it."""
    made: Counter[str] = Counter()
    for node, time in nodes.items():
        line = re.search(r"[^\s(]+:\d+", node)
        made[line[0] if line else "(no line)"] += time
    return made


def _classes(found: Mapping[str, Profile]) -> str:
    classes = {name: made.classes() for name, made in found.items()}
    rows = sorted({row for each in classes.values() for row in each}, key=lambda row: -max(
        each[row] for each in classes.values()
    ))  # fmt: skip
    width = max(len(name) for name in (*found, "convolution")) + 2
    lines = ["".join([f"{'us per call':14}", *(f"{name:>{width}}" for name in found)])]
    for row in rows:
        cells = (f"{classes[name][row]:{width}.1f}" for name in found)
        lines.append("".join([f"{row:14}", *cells]))
    lines.append("".join([f"{'all':14}", *(f"{made.total:{width}.1f}" for made in found.values())]))
    launches = (f"{sum(made.counts.values()):{width}.1f}" for made in found.values())
    lines.append("".join([f"{'launches':14}", *launches]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_profile", description=__doc__.splitlines()[0]
    )
    parser.add_argument("model", choices=[*CASES])
    parser.add_argument("--variants", nargs="*", default=["inductor"], help=", ".join(TORCHS))
    parser.add_argument("--ours", nargs="*", default=[PROFILED], help="NAME:WAY:setting=value,...")
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--top", type=int, default=25, help="rows of the longer tables")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="a model of one layer")
    parser.add_argument("--json", type=Path, help="where to write all of it")
    given = parser.parse_args(arguments)
    case = CASES[given.model]
    if reason := case.is_here():
        raise SystemExit(reason)
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here; --device cpu --tiny tries the tool")
    dtype = torch.float16 if given.device == "cuda" else torch.float32
    place = Place(torch.device(given.device), dtype, given.tiny)
    found: dict[str, Profile] = {}
    for variant in chosen(given.variants, given.ours, given.device):
        try:
            found[variant.name] = profile_variant(case, variant, place, given.calls)
        except Exception as error:  # one that fails is a row that says so
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            found[variant.name] = Profile(failure=text)
    print(tables(found, given.top))
    if given.json is not None:
        made = {name: each.as_json() for name, each in found.items()}
        content = {"model": given.model, "machine": machine(place), "variants": made}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
