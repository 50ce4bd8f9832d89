"""Every model of the zoo by both ways, against eager; the table of docs/ARCHITECTURES.md.

python -m tests.architectures [--quick] [--device cuda] [--ways ...] [--numerics] [NAME ...]
python -m tests.architectures --record docs/data/architectures.json --write docs/ARCHITECTURES.md

A record keeps the newest outcome of each model, way and machine, and is saved after each one:
so the table can be made in parts, and on several machines.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import torch

import rewright
from tests.zoo import ENTRIES, QUICK, Entry
from tests.zoo.__main__ import check_sizes, relative_error, tensors

WAYS = ("export", "export-dynamic", "jit", "jit-dynamic")


@attrs.frozen
class Outcome:
    """What came of one model, one way.

    Attributes:
        nodes: IR nodes compiled, over all graphs.
        graphs: graphs compiled.
        error: the largest relative error against eager, over all sizes.
        seconds: export and compile (the JIT: the first call).
        failure: the first line of the error; empty where all is well.
        upstream: whether torch.export itself failed, as the zoo says it does.
    """

    name: str
    way: str
    nodes: int = 0
    graphs: int = 0
    error: float = 0.0
    seconds: float = 0.0
    failure: str = ""
    upstream: bool = False


def check(entry: Entry, way: str, device: str = "cpu", **settings: Any) -> Outcome:
    """Compiles `entry` one way and compares it with eager at all its sizes.

    Raises:
        AssertionError: something fell back, nothing was compiled, or numbers differ.
    """
    torch._dynamo.reset()
    dynamic = way.endswith("dynamic")
    model = entry.build().to(device)
    before, start = rewright.stats(), time.perf_counter()
    run = _exported(entry, dynamic, device, settings) if way.startswith("export") else None
    if run is None:
        run = torch.compile(
            entry.build().to(device),
            backend="rewright",
            dynamic=dynamic,
            options={"on_error": "raise", **settings},
        )
    seconds = time.perf_counter() - start
    worst = 0.0
    with torch.no_grad():
        for index, sizes in enumerate(check_sizes(entry, dynamic)):
            args, kwargs = entry.inputs(device=device, **sizes)
            expected = tensors(model(*args, **kwargs))
            start = time.perf_counter()
            actual = tensors(run(*args, **kwargs))
            seconds += (time.perf_counter() - start) * (index == 0)
            worst = max(worst, relative_error(actual, expected))
    done = rewright.stats() - before
    assert done.fallbacks == 0, done.fallback_reasons
    assert done.nodes > 0
    bound = entry.tolerance.float32 * (1 if device == "cpu" else 100)
    assert worst <= bound, f"the relative error is {worst:.1e}"
    return Outcome(entry.name, way, done.nodes, done.graphs, worst, seconds)


def _exported(entry: Entry, dynamic: bool, device: str, settings: dict[str, Any]) -> Any:
    """A CPU export, compiled for `device`: the example stays where it was exported."""
    exported = entry.export(dynamic)
    return rewright.compile_exported(exported, device=device, **settings)


def outcomes(
    names: Iterable[str], ways: Iterable[str], device: str, **settings: Any
) -> Iterator[Outcome]:
    """One outcome for each model and way; failures are reported, not raised."""
    for name in names:
        entry = ENTRIES[name]
        for way in ways:
            try:
                yield check(entry, way, device, **settings)
            except Exception as error:
                first = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                known = way == "export-dynamic" and first == entry.upstream_failure
                yield Outcome(name, way, failure=first, upstream=known)


def environment(
    device: str, torch_backend: str, optimization_level: int, numerics: bool = False
) -> str:
    """What a table of outcomes holds for."""
    parts = [
        f"torch {torch.__version__.partition('+')[0]}",
        torch.cuda.get_device_name() if device.startswith("cuda") else "CPU",
        *(["Inductor"] if torch_backend == "inductor" else []),
        f"level {optimization_level}",
        *(["numbers compared after each pass"] if numerics else []),
    ]
    return ", ".join(parts)


Record = dict[str, dict[str, dict[str, Any]]]
"""By environment, and by ``"model way"``: the fields of an outcome."""


def load(where: Path | None) -> Record:
    """The record in a file; an empty one if there is none yet."""
    return json.loads(where.read_text()) if where and where.exists() else {}


def save(record: Record, where: Path) -> None:
    """Writes the record, whole or not at all."""
    part = where.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(where)


HEAD: Final = """\
# Architectures

Tiny models with random weights of real architectures, float32, compiled and compared with eager by
`python -m tests.architectures --record docs/data/architectures.json --write docs/ARCHITECTURES.md`:
number of nodes, and largest relative error over all outputs. The dynamic columns run one program at
four sizes: the example's, another, the smallest and the largest. Nothing fell back. Level 2 is what
a compile does by default. Where numbers were compared after each pass, too (`--numerics`), none
moved beyond the tolerance of its dtype.
"""


def markdown(record: Record) -> str:
    """The page of docs/ that states every outcome."""
    return HEAD + "".join(
        f"\n## {where}\n\n{_table([Outcome(**row) for row in rows.values()])}"
        for where, rows in record.items()
    )


def _table(rows: list[Outcome]) -> str:
    done = {(row.name, row.way): row for row in rows}
    lines = ["| model | library | " + " | ".join(WAYS) + " |", "|---|---|" + "---|" * len(WAYS)]
    for name, entry in ENTRIES.items():
        cells = [_cell(done.get((name, way))) for way in WAYS]
        lines.append(f"| {name} | {entry.family} | " + " | ".join(cells) + " |")
    if failing := [row for row in rows if row.failure]:
        lines += ["", "What fails, and the command that shows it:", ""]
        lines += [
            f"* {row.name}, {row.way}: {row.failure}"
            + (f" (torch.export itself: `{ENTRIES[row.name].reproduce}`)" if row.upstream else "")
            for row in failing
        ]
    return "\n".join(lines) + "\n"


def _cell(row: Outcome | None) -> str:
    if row is None:
        return "not run"
    if row.failure:
        return "fails upstream" if row.upstream else "FAILS"
    return f"{row.nodes} nodes, {row.error:.0e}"


def main() -> int:
    """Runs the command line; returns 1 where something fails that is not known upstream."""
    parser = argparse.ArgumentParser(prog="python -m tests.architectures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--torch-backend", default="eager", choices=("eager", "inductor"))
    parser.add_argument("--optimization-level", type=int, default=2, choices=range(4))
    parser.add_argument("--numerics", action="store_true", help="compare after each pass, too")
    parser.add_argument("--record", type=Path, help="add the outcomes to this JSON file")
    parser.add_argument("--write", type=Path, help="write the record as a page here")
    parser.add_argument("--limit", type=float, default=1e9, help="start nothing after S seconds")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.backends.cudnn.allow_tf32 = False  # float32 is compared as float32
    names = options.names or list(QUICK if options.quick else ENTRIES)
    start = time.perf_counter()
    rows = []
    record = load(options.record)
    settings = {
        "torch_backend": options.torch_backend,
        "optimization_level": options.optimization_level,
        "numerics": options.numerics,
    }
    here = record.setdefault(environment(options.device, **settings), {})
    for row in outcomes(names, options.ways, options.device, **settings):
        rows.append(row)
        here[f"{row.name} {row.way}"] = attrs.asdict(row)
        if options.record:
            save(record, options.record)
        result = row.failure or f"{row.nodes} nodes, error {row.error:.1e}, {row.seconds:.1f} s"
        print(f"{row.name:18} {row.way:15} {result}", flush=True)
        if time.perf_counter() - start > options.limit:
            print("stopped: out of time")
            break
    if options.write:
        options.write.write_text(markdown(record))
    bad = [row for row in rows if row.failure and not row.upstream]
    print(f"{len(rows)} runs, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
