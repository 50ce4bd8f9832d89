"""Memory that import costs: the rise of peak resident memory, as a share of the weights.

    python benchmarks/import_memory.py [GIGABYTES]      # default: 1

A model of that many bytes is exported; then the process's peak is reset (Linux), the program is
imported and called, and the rise of the peak over what was resident before is printed. The
rise of the call alone, which any way of running the model has, is shown beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import rewright

WIDTH = 4096


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` or ``VmHWM`` (the peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this needs Linux's /proc")


def reset_peak() -> None:
    """Lets the peak start again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Prints the rise."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    layers = max(1, round(gigabytes * 1e9 / (4 * WIDTH * WIDTH)))
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers))).eval()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    x = torch.randn(1, WIDTH)
    # A small model first: modules that load and caches that fill are no cost of this one.
    small = torch.export.export(nn.Linear(8, 8), (torch.randn(1, 8),))
    rewright.compile_exported(small)(torch.randn(1, 8))
    with torch.no_grad():
        model(x)
        exported = torch.export.export(model, (x,))
        reset_peak()
        before = resident("VmRSS")
        program = rewright.compile_exported(exported)
        compiled = resident("VmHWM") - before
        result = program(x)
        called = resident("VmHWM") - before
        torch.testing.assert_close(result, model(x))
    print(f"weights            {weights / 1e9:8.3f} GB in {layers} layers")
    for what, rise in (("compile raised by", compiled), ("and with one call", called)):
        print(f"{what}  {rise / 1e6:8.1f} MB  {100 * rise / weights:6.2f} % of the weights")


if __name__ == "__main__":
    main()
