"""Depthwise convolutions: the Triton kernel beside cuDNN's, in channels-last memory, on a GPU.

    python -m benchmarks.depthwise [--dtype float16] [--only NAME] [--sweep] [--json FILE]

A row is a shape: microseconds of cuDNN, of the kernel with the blocks of its table, and how many
times as fast that is; beside them what the memory alone would take, at 4.8 TB/s. A CUDA graph of
20 calls is replayed, cuDNN and ours in turns, and the median of the replays counts. The error is
the largest one against float64, over the largest result. With ``--sweep`` several blocks are
timed for each shape, and the fastest named: that is what the table should say. That compiles each
of them, about half a second each, for every kernel size and stride.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from benchmarks.kernel_time import recorded, times
from rewright.backends.torch.kernels.depthwise import TABLE, Blocks, blocks_for, launch, takes
from rewright.ir.convolutions import innermost

BANDWIDTH: Final = 4.8e12


@attrs.frozen
class Shape:
    """A depthwise convolution of a known model."""

    name: str
    batch: int
    channels: int
    size: int
    kernel: int
    stride: int = 1


CONVNEXT: Final = ((128, 56), (256, 28), (512, 14), (1024, 7))
"""ConvNeXt-B: channels and sizes of its stages."""

MOBILENET: Final = (
    (32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (192, 28, 3, 1), (384, 14, 3, 1),
    (576, 14, 3, 2), (960, 7, 3, 1), (72, 56, 5, 2), (672, 14, 5, 1),
)  # fmt: skip
"""MobileNet v2 and v3 (5 x 5): channels, size, kernel, stride."""

SHAPES: Final = tuple(
    Shape(f"{model} {size}x{size}x{channels} k{kernel} s{stride} b{batch}", batch, channels, size,
          kernel, stride)
    for batch in (1, 32)
    for model, rows in (
        ("convnext", [(c, s, 7, 1) for c, s in CONVNEXT]),
        ("mobilenet", MOBILENET),
    )
    for channels, size, kernel, stride in rows
)  # fmt: skip

SWEPT: Final = tuple(
    Blocks(rows, pixels, channels, warps)
    for rows in (1, 2, 4)
    for pixels, channels, warps in ((16, 64, 4), (8, 64, 2), (8, 64, 4), (8, 128, 4), (4, 64, 2))
)
"""Each thread has 8 channels, or 4 where there are twice as many warps."""


def tensors(shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Image, weight and bias; the weight's channels are innermost."""
    drawn = torch.randn(shape.batch, shape.channels, shape.size, shape.size, device="cuda")
    image = drawn.to(dtype).contiguous(memory_format=torch.channels_last)
    sizes = (shape.channels, 1, shape.kernel, shape.kernel)
    weight = torch.empty_strided(sizes, innermost(sizes), dtype=dtype, device="cuda")
    weight.normal_(std=1 / shape.kernel)
    return image, weight, torch.randn(shape.channels, device="cuda", dtype=dtype)


def measured(shape: Shape, dtype: torch.dtype, swept: Sequence[Blocks]) -> dict[str, Any]:
    """The row of `shape`, with the times of the blocks `swept`."""
    image, weight, bias = tensors(shape, dtype)
    steps = [shape.stride] * 2, [shape.kernel // 2] * 2
    plain = weight.contiguous(memory_format=torch.channels_last)
    assert takes(image, weight, bias, *steps)

    def ours(blocks: Blocks | None = None) -> Tensor:
        return launch(image, weight, bias, *steps, False, blocks)

    def cudnn() -> Tensor:
        return torch.nn.functional.conv2d(image, plain, bias, *steps, 1, shape.channels)

    exact = torch.nn.functional.conv2d(
        image[:1].double(), weight.double(), bias.double(), *steps, 1, shape.channels
    )
    errors = [
        ((call()[:1].double() - exact).abs().max() / exact.abs().max()).item()
        for call in (cudnn, ours)
    ]
    calls: dict[Any, Callable[[], Tensor]] = {"cudnn": cudnn, "ours": ours}
    fitted = dict.fromkeys(blocks.over(shape.channels) for blocks in swept)
    calls |= {blocks: lambda blocks=blocks: ours(blocks) for blocks in fitted}
    found = times({name: recorded(call) for name, call in calls.items()})
    result = ours()
    return {
        "shape": shape.name,
        "numel": result.numel(),
        "cudnn_us": found["cudnn"],
        "ours_us": found["ours"],
        "memory_us": (image.nbytes + weight.nbytes + result.nbytes) / BANDWIDTH * 1e6,
        "cudnn_error": errors[0],
        "ours_error": errors[1],
        "blocks": attrs.astuple(blocks_for(result.numel(), shape.channels)),
        "swept": sorted((found[blocks], attrs.astuple(blocks)) for blocks in fitted),
    }


def table(rows: Iterable[Mapping[str, Any]]) -> None:
    """Prints rows as they come."""
    print(f"{'shape':36} {'numbers':>9} {'cuDNN':>7} {'ours':>7} {'x':>5} {'memory':>7}  errors")
    for row in rows:
        ratio = row["cudnn_us"] / row["ours_us"]
        print(
            f"{row['shape']:36} {row['numel']:9} {row['cudnn_us']:7.2f} {row['ours_us']:7.2f} "
            f"{ratio:5.2f} {row['memory_us']:7.2f}  {row['cudnn_error']:.1e} "
            f"{row['ours_error']:.1e}  {row['blocks']}",
            flush=True,
        )
        if row["swept"]:
            best = "  ".join(f"{us:.2f} {blocks}" for us, blocks in row["swept"][:4])
            print(f"{'':36} best: {best}", flush=True)


def main() -> None:
    """Times what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    parser.add_argument("--only", default="", help="shapes whose name has this in it")
    parser.add_argument("--sweep", action="store_true", help="time several blocks for each shape")
    parser.add_argument("--json", type=Path, help="write everything there")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA device")
    shapes = [shape for shape in SHAPES if args.only in shape.name]
    rows: list[dict[str, Any]] = []

    def made() -> Iterable[dict[str, Any]]:
        for shape in shapes:
            rows.append(measured(shape, getattr(torch, args.dtype), SWEPT if args.sweep else ()))
            yield rows[-1]

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args.dtype}, us per call")
    table(made())
    if args.json:
        facts = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        facts["table"] = [[least, attrs.astuple(blocks)] for least, blocks in TABLE]
        args.json.write_text(json.dumps({**facts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
