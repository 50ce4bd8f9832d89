"""Saving and loading a large program: seconds, and memory that is anonymous or backed by the file.

    python benchmarks/artifact.py [GIGABYTES] [FOLDER]      # defaults: 5, and a temporary folder

A program of that many bytes is saved. Fresh processes load and call it, with checksums and without;
each says how long that took and what ``/proc/self/smaps_rollup`` (Linux) says of its memory, beyond
what a process has that loads and calls a small program in the same way. Anonymous memory is what
nobody else can have; memory backed by the file may be dropped at any time. Reading the file
sequentially, once, is measured in the same run, for comparison.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WIDTH = 4096


def memory() -> dict[str, int]:
    """Bytes of resident memory: all of it, and what is anonymous."""
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    found = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}
    return {"anonymous": found["Anonymous"], "file": found["Rss"] - found["Anonymous"]}


def loading(path: str, small: str, verify: bool) -> None:
    """Loads and calls both programs; prints what the large one took."""
    import torch

    import rewright

    x = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rewright.load(small, verify=verify)(x[:, :8])
        before = memory()
        start = time.perf_counter()
        program = rewright.load(path, verify=verify)
        seconds = time.perf_counter() - start
        loaded = memory()
        start = time.perf_counter()
        result = program(x)
        call = time.perf_counter() - start
        called = memory()
    print(json.dumps({
        "load": seconds,
        "call": call,
        "loaded": {kind: loaded[kind] - before[kind] for kind in before},
        "called": {kind: called[kind] - before[kind] for kind in before},
        "result": float(result.double().abs().sum()),
    }))  # fmt: skip


def saving(path: str, small: str, gigabytes: float) -> None:
    """Compiles and saves both programs; prints what the large one took."""
    import torch
    from torch import nn

    import rewright

    layers = max(1, round(gigabytes * 1e9 / (4 * WIDTH * WIDTH)))
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers))).eval()
    x = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    little = rewright.compile(nn.Linear(8, 8).eval(), (x[:, :8],))
    little.save(small)
    program = rewright.compile(model, (x,))
    before = memory()
    start = time.perf_counter()
    program.save(path)
    seconds = time.perf_counter() - start
    after = memory()
    print(json.dumps({
        "save": seconds,
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "anonymous": after["anonymous"] - before["anonymous"],
        "result": float(program(x).double().abs().sum()),
    }))  # fmt: skip


def in_a_process(*arguments: object) -> dict:
    """What a fresh process prints that runs this file so."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def read_once(path: Path) -> float:
    """Seconds to read a file from start to end."""
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass
    return time.perf_counter() - start


def main() -> None:
    """Prints the table."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        path, small = Path(folder) / "large.rw", Path(folder) / "small.rw"
        saved = in_a_process("save", path, small, gigabytes)
        weights = saved["weights"]
        print(f"{weights / 1e9:.2f} GB of weights; file {path.stat().st_size / 1e9:.2f} GB")
        print(f"{'':24}{'seconds':>9}{'anonymous':>20}{'file-backed':>20}")

        def row(what: str, seconds: float, kinds: dict[str, int] | None = None) -> None:
            shares = (
                f"{b / 1e6:9.1f} MB {100 * b / weights:5.1f} %" for b in (kinds or {}).values()
            )
            print(f"{what:24}{seconds:9.2f}  {'  '.join(shares)}")

        row("save", saved["save"], {"anonymous": saved["anonymous"]})
        row("read the file once", read_once(path))
        for verify in (True, False):
            got = in_a_process("load", path, small, int(verify))
            what = "checksums" if verify else "no checksums"
            row(f"load, {what}", got["load"], got["loaded"])
            row("  and one call", got["call"], got["called"])
            if got["result"] != saved["result"]:
                raise SystemExit("what was loaded computes something else")


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        loading(sys.argv[2], sys.argv[3], sys.argv[4] == "1")
    elif sys.argv[1:2] == ["save"]:
        saving(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        main()
