"""What fusion finds in every model of the zoo; the table of docs/FUSION.md.

python -m tests.fusion_table [NAME ...] [--dynamic]
python -m tests.fusion_table --write docs/FUSION.md
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch

import rewright
from rewright.ir.graph import Graph, Node, Value
from rewright.ir.types import TensorType
from rewright.passes import Pipeline, explain
from rewright.passes.registry import all_rules
from tests.zoo import ENTRIES, QUICK, Entry

FUSE = "cse,canonicalize,fuse,cse,dce"
"""What the numbers of attentions and norms are about."""

MERGE = "fold-constants,fuse-projections,fold-constants,canonicalize,cse,dce"
"""What follows; it merges linears."""

SDPA = "aten.scaled_dot_product_attention"
SOFTMAX = ("aten.softmax.int", "aten._softmax")
PRODUCTS = ("aten.matmul", "aten.bmm", "rw.matmul")
NORMS = ("layer_norm", "rms_norm", "group_norm")
ROOTS = ("aten.rsqrt",)
"""What a norm that is spelled out has, once."""

WAY = ("aten._to_copy", "aten.reshape")
"""What may stand between a softmax and the product with the values."""


@attrs.frozen
class Row:
    """What came of one model.

    Attributes:
        name: of the model, with its attention implementation.
        before: nodes as imported.
        after: nodes after the whole pipeline.
        attentions: how many were found.
        attentions_expected: how many there are.
        norms: how many were found.
        norms_expected: how many there are.
        linears: how many there were before some were merged.
        merged: how many fewer there are after.
        casts: casts between floating-point dtypes that are left.
        causal: attentions whose mask was proved to be a triangle, or nothing.
        misses: for each that was not found, where it is and why.
    """

    name: str
    before: int = 0
    after: int = 0
    attentions: int = 0
    attentions_expected: int = 0
    norms: int = 0
    norms_expected: int = 0
    linears: int = 0
    merged: int = 0
    casts: int = 0
    causal: int = 0
    misses: tuple[str, ...] = ()


def imported(entry: Entry, attention: str | None, dynamic: bool = False) -> Graph:
    """The graph of an entry, as it is imported."""
    exported = entry.export(dynamic, attention)
    return rewright.compile_exported(exported, pipeline="").graph


def measure(name: str, graph: Graph) -> Row:
    """Runs the pipeline on `graph`, in place, and counts."""
    before = len(graph)
    attentions, norms = len(attention_roots(graph)), len(norm_roots(graph))
    Pipeline.parse(FUSE).run(graph)
    ops = Counter(node.op.name for node in graph)
    misses = tuple(_misses(graph))
    linears = ops["rw.linear"]
    masks = [node for node in graph if node.op.name == "rw.attention"]
    Pipeline.parse(MERGE).run(graph)
    return Row(
        name,
        before,
        len(graph),
        ops["rw.attention"],
        attentions,
        sum(ops[f"rw.{norm}"] for norm in NORMS),
        norms,
        linears,
        linears - sum(node.op.name == "rw.linear" for node in graph),
        sum(_is_float_cast(node) for node in graph),
        sum("mask" not in node.attributes for node in masks),
        misses,
    )


def attention_roots(graph: Graph) -> list[Node]:
    """The attentions of `graph`: torch's op, and products with the result of a softmax."""
    return [
        node
        for node in graph
        if node.op.name == SDPA or (node.op.name in PRODUCTS and _is_softmax(node.operands[0]))
    ]


def _is_softmax(value: Value) -> bool:
    while value.producer is not None and value.producer.op.name in WAY:
        value = value.producer.operands[0]
    return value.producer is not None and value.producer.op.name in SOFTMAX


def norm_roots(graph: Graph) -> list[Node]:
    """The norms of `graph` that are no batch norms: torch's ops, and reciprocal square roots."""
    names = {*(f"aten.{norm}" for norm in NORMS), *ROOTS}
    return [node for node in graph if node.op.name in names and not _is_made(node)]


def _is_made(node: Node) -> bool:
    """Whether a rule made `node`: the square root of a folded batch norm is none of the model's."""
    return node.loc is not None and bool(node.loc.rules)


def _is_float_cast(node: Node) -> bool:
    if node.op.name != "aten._to_copy":
        return False
    types = (node.operands[0].type, node.results[0].type)
    return all(isinstance(item, TensorType) and item.is_floating_point for item in types)


def _misses(graph: Graph) -> Iterator[str]:
    """A line for each attention and norm that is left, with the reason that a rule gives."""
    rules = all_rules()
    for node in attention_roots(graph):
        rule = "torch-attention" if node.op.name == SDPA else "attention-formula"
        yield explain(graph, rules[rule], node)[0]
    for root in norm_roots(graph):
        for user in root.results[0].users if root.op.name in ROOTS else (root,):
            yield explain(graph, rules["rms-norm-formula"], user)[0]


def rows(names: list[str], dynamic: bool) -> Iterator[Row]:
    """A row for each model and attention implementation."""
    for name in names:
        entry = ENTRIES[name]
        for attention in entry.attentions or (None,):
            title = name if attention is None else f"{name} {attention}"
            yield measure(title, imported(entry, attention, dynamic))


def markdown(found: list[Row], dynamic: bool) -> str:
    """The page of docs/."""
    total = {
        field: sum(getattr(row, field) for row in found)
        for field in ("attentions", "attentions_expected", "norms", "norms_expected")
    }
    lines = [
        "# What fusion finds",
        "",
        "Written by `python -m tests.fusion_table --write docs/FUSION.md`: every model of the zoo,",
        f"exported with {'dynamic' if dynamic else 'static'} shapes in float32, through",
        f"`{FUSE}`, then `{MERGE}`.",
        "",
        "An attention is torch's op, or a softmax that is multiplied with something; a norm is",
        "torch's op, or a reciprocal square root. *Without mask* are attentions whose mask was",
        "proved to hide nothing, or to be causal. *Merged* linears share their input with others.",
        "",
        f"Attentions: {total['attentions']} of {total['attentions_expected']} found. "
        f"Norms: {total['norms']} of {total['norms_expected']}.",
        "",
        f"torch {torch.__version__}.",
        "",
        "| model | nodes | attentions | without mask | norms | linears merged | casts left |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.before} → {row.after} "
        f"| {row.attentions} / {row.attentions_expected} | {row.causal} "
        f"| {row.norms} / {row.norms_expected} | {row.merged} of {row.linears} | {row.casts} |"
        for row in found
    ]
    missing = [row for row in found if row.misses]
    if missing:
        lines += ["", "## What is left, and why", ""]
    for row in missing:
        places = dict(map(_place_and_reason, reversed(row.misses)))
        lines += [f"* {row.name}, `{place}`: {why}" for place, why in places.items()]
    return "\n".join(lines) + "\n"


def _place_and_reason(line: str) -> tuple[str, str]:
    """The source line and the reason of a miss: layers are told once."""
    place, _, why = line.partition("): ")
    return place.split("(")[-1], why


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fusion_table", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--write", type=Path, help="write the page here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = []
    for row in rows(options.names or list(QUICK if options.quick else ENTRIES), options.dynamic):
        found.append(row)
        print(
            f"{row.name:24} {row.before:4} -> {row.after:4}  attentions {row.attentions}/"
            f"{row.attentions_expected}  norms {row.norms}/{row.norms_expected}  "
            f"merged {row.merged}  casts {row.casts}",
            flush=True,
        )
    if options.write:
        options.write.write_text(markdown(found, options.dynamic))
    return 0


if __name__ == "__main__":
    sys.exit(main())
