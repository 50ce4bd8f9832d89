"""The table of operators, as Markdown: what ``docs/OPERATORS.md`` holds.

python -m rewright.backends.tensorrt.operators_doc > docs/OPERATORS.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final

import torch
from torch._ops import OpOverloadPacket

from rewright.backends.tensorrt.declaration import Converter, converters
from rewright.backends.tensorrt.dtypes import COMPUTED, FLOATS, INTEGERS, QUANTIZED, names_of
from rewright.backends.tensorrt.needs import MAX_RANK, Dtypes
from rewright.backends.tensorrt.refused import EARLIER, NO_MEANING, REFUSED
from rewright.errors import UnsupportedError
from rewright.ir.ops import get_op, op_name

_HEAD = f"""\
# Operators that TensorRT is given

Made by `python -m rewright.backends.tensorrt.operators_doc`; a test keeps it up to date. The rows
are the declarations of the converters, which also decide, node by node, what goes to TensorRT, and
give the reason in a program's report where it does not.

For all of them, unless the last column says otherwise: at most {MAX_RANK} dimensions; sizes may
vary in any of them, and need a maximum; tensors are {names_of(COMPUTED)}.

{{count}} operators have a converter. Of those that torch tags as its core, {{refused}} have none:
they stand at the end, each with the reason, after {{earlier}} that are gone before TensorRT is
asked.

## Dtypes

Nothing is narrowed in silence.

| dtype | what is done |
|---|---|
"""

_DTYPES: Final = (
    (names_of(FLOATS), "computed with. What torch computes in f32 and rounds once, is cast so"),
    (names_of(INTEGERS), "computed with, exactly; i64 stays i64"),
    ("bool", "logic and choices; arithmetic as torch promotes it"),
    (
        "f64",
        "not in TensorRT. What is made of constants alone is computed in f64 when a program is "
        "prepared, and only its result is in the engine (optimization level 1 and above). "
        "The rest stays in Torch; `truncate_double=True` computes it in f32",
    ),
    (names_of(QUANTIZED), "between a quantize and a dequantize only"),
    ("u8", "cast from and to; computed with in Torch"),
    ("i16 u16 u32 u64", "stay in Torch: TensorRT has nothing of their width"),
    ("c32 c64 c128", "stay in Torch: TensorRT has no complex numbers"),
)
"""What is done about each dtype."""


def operators_doc() -> str:
    """The whole document."""
    known = [item for _, item in sorted(converters().items()) if not _is_unknown(item)]
    core = core_operators()
    counts = {
        "count": len(known),
        "refused": sum(op in REFUSED for op in core),
        "earlier": sum(op in EARLIER for op in core),
    }
    lines = [_HEAD.format(**counts).rstrip("\n")]
    lines += [f"| {dtype} | {text} |" for dtype, text in _DTYPES]
    lines.append("")
    families = sorted(known, key=lambda item: item.family)
    for family, rows in groupby(families, key=lambda item: item.family):
        lines += _section(family, rows)
    lines += _listed("Gone before", "operator | by", EARLIER)
    lines += _listed("Not given to TensorRT", "operator | why", {**REFUSED, **NO_MEANING})
    return "\n".join(lines[:-1]) + "\n"


def core_operators() -> list[str]:
    """The names of what torch tags as core ATen."""
    packets = (getattr(torch.ops.aten, name, None) for name in dir(torch.ops.aten))
    return [
        op_name(overload)
        for packet in packets
        if isinstance(packet, OpOverloadPacket)
        for overload in (getattr(packet, name) for name in packet.overloads())
        if torch.Tag.core in overload.tags
    ]


def _listed(title: str, columns: str, rows: Mapping[str, str]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"| {columns} |"
    yield "|---|---|"
    yield from (f"| `{op}` | {text} |" for op, text in sorted(rows.items()))
    yield ""


def _is_unknown(converter: Converter) -> bool:
    """Whether this version of torch lacks the operator."""
    try:
        get_op(converter.op)
    except UnsupportedError:
        return not converter.op.startswith("quantized_decomposed.")  # registered on import only
    return False


def _section(family: str, rows: Iterable[Converter]) -> Iterator[str]:
    yield f"## {family.capitalize()}\n"
    yield "| operators | layers | needs |"
    yield "|---|---|---|"
    merged: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        merged.setdefault((row.formula, _needs(row)), []).append(f"`{row.op}`")
    for (formula, needs), ops in merged.items():
        yield f"| {', '.join(ops)} | {_cell(formula)} | {_cell(needs)} |"
    yield ""


def _needs(converter: Converter) -> str:
    try:
        parameters = {param.name for param in get_op(converter.op).params} | {"out"}
    except UnsupportedError:
        parameters = {*converter.takes, "out"}
    rows = [need for need in converter.needs if isinstance(need, Dtypes)]
    by_dtypes: dict[str, list[str]] = {}
    for row in rows:
        if row.name in parameters and row.allowed != COMPUTED:
            by_dtypes.setdefault(names_of(row.allowed), []).append(row.name)
    shown = [f"{', '.join(names)}: {dtypes}" for dtypes, names in by_dtypes.items()]
    shown += [str(need) for need in converter.needs if not isinstance(need, Dtypes)]
    return "; ".join(dict.fromkeys(shown))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(operators_doc())
