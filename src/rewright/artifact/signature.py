"""Signatures, settings and reports as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from rewright.artifact.plain import NotPlainError, decode, encode
from rewright.artifact.trees import decode_tree, encode_tree
from rewright.errors import ArtifactError
from rewright.ir.location import Location
from rewright.ir.signature import Argument, Signature
from rewright.ir.trees import children
from rewright.passes.partition.report import LeftOut, PartitionReport, Port, SegmentReport
from rewright.passes.precision.report import NodePrecision, PrecisionReport
from rewright.settings import Options, Settings

if TYPE_CHECKING:
    from rewright.program import CompiledProgram


def encode_signature(signature: Signature) -> dict[str, Any]:
    """A signature as JSON.

    Raises:
        ArtifactError: it takes parameters as arguments, or holds what is no plain value.
    """
    arguments = []
    for argument in signature.arguments:
        if argument.constant is not None:
            raise ArtifactError(
                "this program takes its parameters as arguments, as torch.compile made it",
                hint="save what rewright.compile or rewright.compile_exported gives",
            )
        try:
            literal = encode(argument.literal)
        except NotPlainError as error:
            raise ArtifactError(
                f"the program was compiled for a value of {argument.name} that can't be saved: "
                f"{error}",
                hint="pass tensors, numbers, texts and None",
            ) from None
        arguments.append({"name": argument.name, "input": argument.input, "literal": literal})
    return {
        "arguments": arguments,
        "in": encode_tree(signature.in_spec, "the arguments"),
        "out": encode_tree(signature.out_spec, "the result"),
        "parameters": list(signature.parameter_names),
    }


def decode_signature(made: Mapping[str, Any]) -> Signature:
    """The signature that :func:`encode_signature` gave as `made`."""
    arguments = tuple(
        Argument(_text(item["name"]), _number(item["input"]), None, decode(item["literal"]))
        for item in made["arguments"]
    )
    in_spec = decode_tree(made["in"], "the arguments", replace=False)
    out_spec = decode_tree(made["out"], "the result", replace=True)
    if in_spec is not None:
        if in_spec.num_leaves != len(arguments):
            raise ValueError(f"{len(arguments)} arguments, and a tree of {in_spec.num_leaves}")
        if in_spec.type is not tuple or [c.type for c in children(in_spec)] != [tuple, dict]:
            raise ValueError("the arguments are no tuple and dict")
    names = tuple(_text(name) for name in made["parameters"])
    return Signature(arguments, in_spec, out_spec, names)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value


def _number(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise TypeError(f"{value!r:.80} is no number of an input")
    return value


# --------------------------------------------------------------------------- settings


def encode_settings(settings: Settings) -> dict[str, Any]:
    """The settings that differ from their defaults, as JSON."""
    given = {}
    for field in attrs.fields(Settings):
        value = getattr(settings, field.name)
        if value == field.default:
            continue
        if isinstance(value, Options):
            value = dict(value)
        elif field.name == "pipeline":
            value = str(value)
        given[field.name] = encode(value)
    return given


def decode_settings(made: Mapping[str, Any]) -> Settings:
    """The settings that :func:`encode_settings` gave as `made`.

    Raises:
        SettingsError: there is no such setting, or no such value of it.
    """
    return Settings.from_options({name: decode(value) for name, value in made.items()})


# --------------------------------------------------------------------------- what passes reported

_REPORTS: Final = {"partition": PartitionReport, "precision": PrecisionReport}
"""The reports of a program, by the attribute that has them."""

_NESTED: Final[Mapping[type, Mapping[str, type]]] = {
    PartitionReport: {"segments": SegmentReport, "left": LeftOut},
    SegmentReport: {"inputs": Port, "outputs": Port},
    PrecisionReport: {"nodes": NodePrecision},
}
"""The classes of what stands in reports, by field."""


def encode_reports(program: CompiledProgram) -> dict[str, Any]:
    """The reports of a program as JSON."""
    found = {name: getattr(program, name) for name in _REPORTS}
    return {
        name: None if report is None else attrs.asdict(report, value_serializer=_located)
        for name, report in found.items()
    }


def _located(_: Any, __: Any, value: Any) -> Any:
    return str(value) if isinstance(value, Location) else value


def decode_reports(made: Mapping[str, Any]) -> dict[str, Any]:
    """The reports that :func:`encode_reports` gave as `made`, by attribute."""
    return {
        name: None if made[name] is None else _decoded(kind, made[name])
        for name, kind in _REPORTS.items()
    }


def _decoded(kind: type, made: Mapping[str, Any]) -> Any:
    fields: dict[str, Any] = {}
    for name, value in made.items():
        inner = _NESTED.get(kind, {}).get(name)
        if inner is not None:
            value = tuple(_decoded(inner, item) for item in value)
        elif name == "where" and value is not None:
            value = Location.parse(value)
        fields[name] = value
    return kind(**fields)
