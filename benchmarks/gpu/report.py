"""From the results of single models, one file each, to one table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Result = dict[str, Any]


def read(folder: Path, model: str) -> Result:
    """What is known of a model: its rows, by variant."""
    path = folder / f"{model}.json"
    return json.loads(path.read_text()) if path.exists() else {"model": model, "rows": {}}


def write(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(half, path)


def is_done(result: Result, variant: str, settings: Mapping[str, Any]) -> bool:
    """Whether a variant with these settings is measured; one that failed is, too."""
    row = result["rows"].get(variant)
    return row is not None and row.get("settings", dict(settings)) == dict(settings)


def merge(folder: Path, models: Iterable[str]) -> dict[str, Any]:
    """All results with the seconds of cold compiles; writes ``results.json`` and ``results.md``."""
    found: dict[str, Result] = {}
    for model in models:
        result = read(folder, model)
        for variant, row in result["rows"].items():
            path = folder / "cold" / f"{model}--{variant}.json"
            if path.exists():
                row.update(json.loads(path.read_text()))
        if result["rows"]:
            found[model] = result
    merged = {"models": found, "summary": summary(found)}
    write(folder / "results.json", merged)
    (folder / "results.md").write_text(table(found) + "\n")
    return merged


# --------------------------------------------------------------------------- numbers


def best(rows: Mapping[str, Row], wanted: Callable[[Row], Any]) -> str | None:
    """The fastest of the variants that `wanted` takes, by name."""
    timed = {name: row["ms"] for name, row in rows.items() if "ms" in row and wanted(row)}
    return min(timed, key=lambda name: timed[name]) if timed else None


def ratio(rows: Mapping[str, Row], ours: str | None) -> float | None:
    """How many times as fast as Inductor's best mode a variant is."""
    other = best(rows, lambda row: row.get("inductor"))
    if ours is None or other is None or "ms" not in rows.get(ours, {}):
        return None
    return float(rows[other]["ms"] / rows[ours]["ms"])


def geometric_mean(values: Iterable[float]) -> float | None:
    """The geometric mean; None of nothing."""
    numbers = [*values]
    return math.exp(sum(map(math.log, numbers)) / len(numbers)) if numbers else None


def summary(found: Mapping[str, Result]) -> dict[str, Any]:
    """For each variant of ours, and for the best of them on each model: means of the ratios."""
    names = dict.fromkeys(
        name for result in found.values() for name, row in result["rows"].items() if row.get("ours")
    )
    made: dict[str, Any] = {}
    for name in (*names, "best of ours"):
        ratios = {}
        for model, result in found.items():
            rows = result["rows"]
            which = best(rows, lambda row: row.get("ours")) if name == "best of ours" else name
            if (value := ratio(rows, which)) is not None:
                ratios[model] = value
        ordered = sorted(ratios.values())
        made[name] = {
            "models": len(ratios),
            "geometric_mean": geometric_mean(ordered),
            "without_the_best": geometric_mean(ordered[:-1]),
            "least": ordered[0] if ordered else None,
            "ratios": ratios,
        }
    return made


# --------------------------------------------------------------------------- the table


def number(value: float | None, form: str = ".3f") -> str:
    """A cell; empty for None."""
    return "" if value is None else format(value, form)


def _cell(rows: Mapping[str, Row], name: str) -> str:
    row = rows.get(name, {})
    if "error_text" in row:
        return "failed"
    return number(row.get("ms"))


def table(found: Mapping[str, Result]) -> str:
    """Markdown: milliseconds, ratios to Inductor's best mode, errors and compile seconds."""
    if not found:
        return "no results"
    order = [name for result in found.values() for name in result["rows"]]
    names = [*dict.fromkeys(order)]
    mine = [n for n in names if any(r["rows"].get(n, {}).get("ours") for r in found.values())]
    parts = [_machines(found)]
    head = ["model", *names, "Inductor's best", *(f"× {name}" for name in mine)]
    lines = []
    for model, result in found.items():
        rows = result["rows"]
        other = best(rows, lambda row: row.get("inductor")) or ""
        cells = [model, *(_cell(rows, name) for name in names), other]
        lines.append([*cells, *(number(ratio(rows, name), ".2f") for name in mine)])
    means = summary(found)
    gap = [""] * (len(names) + 1)
    tail = [number(means[name]["geometric_mean"], ".3f") for name in mine]
    lines.append(["geometric mean", *gap, *tail])
    parts.append(
        "Milliseconds per call (median over rounds), and how many times as fast as Inductor's best "
        "mode of the same model.\n\n" + markdown(head, lines)
    )
    whole = means["best of ours"]
    parts.append(
        f"Best of ours: geometric mean {number(whole['geometric_mean'])}, without its best model "
        f"{number(whole['without_the_best'])}, least {number(whole['least'])}, over "
        f"{whole['models']} models."
    )
    for title, key, form in (
        ("Error against float32 (relative L2)", "error", ".2e"),
        ("Seconds of a cold compile and first call", "cold_s", ".1f"),
        ("Seconds of a first call with warm caches", "first_call_s", ".1f"),
        ("Milliseconds of one call with the host waiting", "latency_ms", ".3f"),
        ("Peak of allocated memory, MiB", "peak_allocated_mb", ".0f"),
    ):
        lines = [
            [model, *(number(result["rows"].get(name, {}).get(key), form) for name in names)]
            for model, result in found.items()
        ]
        parts.append(f"{title}\n\n" + markdown(["model", *names], lines))
    failed = [
        f"* {model}, {name}: {row['error_text']}"
        for model, result in found.items()
        for name, row in result["rows"].items()
        if "error_text" in row
    ]
    if failed:
        parts.append("Failures\n\n" + "\n".join(failed))
    return "\n\n".join(parts)


def _machines(found: Mapping[str, Result]) -> str:
    lines = []
    for result in found.values():
        machine = result["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        line = f"{machine['gpu']}; CUDA {machine['cuda']}; {versions}"
        if line not in lines:
            lines.append(line)
    dates = sorted(result["machine"]["date"] for result in found.values())
    return "\n".join([*lines, f"{dates[0]} to {dates[-1]}"])


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table, numbers to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
