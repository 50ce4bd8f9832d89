"""The table of a run, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.gpu.report import best, markdown, number, ratio

Row = Mapping[str, Any]


def table(found: Mapping[str, Any]) -> str:
    """What ``results.md`` says of what ``results.json`` has: the image, its parts, the start."""
    rows = found["rows"]
    parts = [_about(found)]
    timed = {name: row for name, row in rows.items() if "ms" in row}
    if timed:
        parts += [_images(timed), _parts(timed), _starts(timed)]
    failed = [f"* {name}: {row['error_text']}" for name, row in rows.items() if "error_text" in row]
    if "no_reference" in found:
        failed.append(f"* the reference, so there are no errors: {found['no_reference']}")
    fallbacks = [
        f"* {name}: {reason}" for name, row in timed.items() for reason in row["our_fallbacks"]
    ]
    parts += ["Failures\n\n" + "\n".join(failed)] * bool(failed)
    parts += ["Not run as compiled\n\n" + "\n".join(fallbacks)] * bool(fallbacks)
    return "\n\n".join(parts)


def _about(found: Mapping[str, Any]) -> str:
    what, machine = found["what"], found["machine"]
    size = "a tiny model" if what["tiny"] else "Stable Diffusion 1.5, 512 x 512"
    lines = [f"{size}, {what['steps']} steps of {what['scheduler']}, {what['precision']}"]
    if machine:
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        lines.append(f"{machine['gpu']}; CUDA {machine['cuda']}; {versions}; {machine['date']}")
    return "\n".join(lines)


def _images(rows: Mapping[str, Row]) -> str:
    other = best(rows, lambda row: row["inductor"])
    lines = [
        [
            name,
            number(row["ms"] / 1e3),
            " to ".join(number(each / 1e3) for each in row["ms_quartiles"]),
            str(row["rounds"]),
            number(ratio(rows, name), ".2f"),
            number(row.get("error_latents"), ".2e"),
            number(row.get("error_image"), ".2e"),
        ]
        for name, row in rows.items()
    ]
    head = [
        "variant", "seconds per image", "quartiles", "images", "x Inductor's best",
        "error of the latents", "error of the image",
    ]  # fmt: skip
    return (
        "Seconds per image (median), as many times as fast as Inductor's best mode"
        f"{f' ({other})' if other else ''}, and relative L2 errors against float32 from the same "
        "noise.\n\n" + markdown(head, lines)
    )


def _parts(rows: Mapping[str, Row]) -> str:
    names = [*dict.fromkeys(part for row in rows.values() for part in row["parts_ms"])]
    lines = [
        [name, *(number(row["parts_ms"].get(part), ".1f") for part in names)]
        for name, row in rows.items()
    ]
    return (
        "Milliseconds of an image in each part (medians; on the device, between events around its "
        "calls; the rest is the scheduler, the guidance and waiting).\n\n"
        + markdown(["variant", *names], lines)
    )


def _starts(rows: Mapping[str, Row]) -> str:
    head = [
        "variant", "cold", "in this run", "compiled beside", "graphs", "graph breaks",
        "graphs that Inductor did not capture", "our captures", "peak of allocated memory, MiB",
    ]  # fmt: skip
    keys = ("graphs", "graph_breaks", "inductor_skipped_graphs", "our_captures")
    lines = [
        [
            name,
            number(row.get("cold_s"), ".1f"),
            number(row["first_image_s"], ".1f"),
            number(row.get("cold_beside"), "d"),
            *(number(row[key], "d") for key in keys),
            number(row.get("peak_allocated_mb"), ".0f"),
        ]
        for name, row in rows.items()
    ]
    return "Seconds until the first image, compiling included.\n\n" + markdown(head, lines)
