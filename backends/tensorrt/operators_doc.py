"""The table of operators, as Markdown: what ``docs/OPERATORS.md`` holds.

python -m rewright.backends.tensorrt.operators_doc > docs/OPERATORS.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby

from rewright.backends.tensorrt.declaration import Converter, converters
from rewright.backends.tensorrt.dtypes import COMPUTED, names_of
from rewright.backends.tensorrt.needs import MAX_RANK, Dtypes
from rewright.backends.tensorrt.refused import REFUSED
from rewright.errors import UnsupportedError
from rewright.ir.ops import get_op

_HEAD = f"""\
# Operators that TensorRT is given

Made by `python -m rewright.backends.tensorrt.operators_doc`; a test keeps it up to date. The rows
are the declarations of the converters, which also decide, node by node, what goes to TensorRT, and
give the reason in a program's report where it does not.

For all of them, unless the last column says otherwise: at most {MAX_RANK} dimensions; sizes may
vary in any of them, and need a maximum; tensors are {names_of(COMPUTED)}.
There is no f64 and no complex number in TensorRT, and nothing is narrowed in silence.

{{count}} operators have a converter.
"""


def operators_doc() -> str:
    """The whole document."""
    known = [item for _, item in sorted(converters().items()) if not _is_unknown(item)]
    lines = [_HEAD.format(count=len(known))]
    families = sorted(known, key=lambda item: item.family)
    for family, rows in groupby(families, key=lambda item: item.family):
        lines += _section(family, rows)
    lines += ["## Not given to TensorRT\n", "| operator | why |", "|---|---|"]
    lines += [f"| `{op}` | {reason} |" for op, reason in sorted(REFUSED.items())]
    return "\n".join(lines) + "\n"


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
