"""Torch's own file formats: exported programs, TorchScript, AOTInductor packages.

What each can and can't do is the table of docs/DEPLOY.md.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from rewright.backends.torch.refusal import Refusal
from rewright.errors import CompileError, InputError, UnsupportedError
from rewright.frontends.autocast import OFF, autocast_set_to
from rewright.frontends.export_log import export_kept_quiet
from rewright.interop.engine import engine_calls
from rewright.interop.portable import portable
from rewright.interop.shapes import (
    dynamic_shapes,
    example_leaves,
    is_plain,
    nested,
    plain_spec,
)
from rewright.ir.graph import Constant
from rewright.ir.signature import Argument, Signature
from rewright.ir.types import TensorType

if TYPE_CHECKING:
    from rewright.program import CompiledProgram


def to_exported_program(program: CompiledProgram) -> torch.export.ExportedProgram:
    """The program as torch's exported program; its dynamic sizes stay dynamic.

    Args:
        program: a program, compiled ahead of time.

    Raises:
        UnsupportedError: something of it can't be said in FX.
        CompileError: torch can't export it.
    """
    graph, signature = program.graph, program.signature
    out_spec = signature.out_spec
    if out_spec is not None and not is_plain(out_spec):
        out_spec = plain_spec(out_spec)
    module = portable(graph, signature, engine_calls(program), out_spec=out_spec)
    args, kwargs = nested(signature, example_leaves(graph, signature))
    shapes = dynamic_shapes(graph, signature)
    return _export(graph.name, module, args, kwargs, shapes)


def _export(
    name: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any
) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad(), autocast_set_to(OFF), export_kept_quiet():
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:
        raise CompileError(
            f"torch.export can't export @{name}: {_first_line(error)}",
            hint="torch's own error is the cause of this one",
        ) from error


def to_torchscript(
    program: CompiledProgram, examples: Sequence[Tensor] | None = None
) -> torch.jit.ScriptModule:
    """The program as TorchScript, for the sizes of the examples.

    It takes the tensor arguments, flat and in order, and returns the result's tensors, as a tuple
    where there are several: TorchScript knows no other classes.

    Args:
        program: a program, compiled ahead of time.
        examples: a tensor for each tensor argument; by default of typical sizes.

    Raises:
        UnsupportedError: it has engines, or takes or returns what is no tensor.
        InputError: the examples are too many or too few, or don't fit.
        CompileError: torch can't trace it.
    """
    graph, signature = program.graph, program.signature
    if program.segments:
        raise UnsupportedError(
            f"@{graph.name} has TensorRT engines, and TorchScript has no place for them",
            hint="use to_exported_program(), or compile with target='cpu'",
        )
    if not all(isinstance(value.type, TensorType) for value in graph.outputs):
        raise UnsupportedError(
            f"@{graph.name} returns numbers or None, and TorchScript by tracing tensors only",
            hint="use to_exported_program()",
        )
    arguments = [a for a in signature.arguments if a.input is not None]
    flat = Signature(tuple(Argument(a.name, input=a.input) for a in arguments))
    given = list(examples) if examples is not None else example_leaves(graph, flat)
    _check_tensors(given, arguments)
    Refusal(graph, flat)(given, {})
    if graph.targets:  # tracing runs the program
        given = [tensor.clone() for tensor in given]
    with _Quiet(), torch.no_grad(), autocast_set_to(OFF):
        # Exported first, at these sizes: then all that is left to trace is operators of ATen.
        exported = _export(graph.name, portable(graph, flat), tuple(given), {}, None)
        _spell_fills(exported.graph)
        module = _Flat(exported.module(check_guards=False))
        names = {target.name for target in graph.targets if isinstance(target, Constant)}
        written = [b for name, b in module.body.named_buffers() if name in names]
        before = [buffer.clone() for buffer in written]
        try:
            traced: torch.jit.ScriptModule = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, tuple(given), check_trace=False
            )
        except Exception as error:
            raise CompileError(
                f"torch.jit can't trace @{graph.name}: {_first_line(error)}",
                hint="torch's own error is the cause of this one",
            ) from error
        for buffer, data in zip(written, before, strict=True):
            buffer.copy_(data)
    return traced


def _spell_fills(graph: torch.fx.Graph) -> None:
    """Fills with a tensor, as copies: torch.jit.trace would call an operator that there isn't."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.fill.Tensor):
        node.target = torch.ops.aten.copy.default


class _Flat(torch.nn.Module):
    """Returns one tensor or a tuple of them, where a module returns a list."""

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *args: Any) -> Any:
        """What the body returns."""
        results = self.body(*args)
        return results[0] if len(results) == 1 else tuple(results)


def _check_tensors(given: Sequence[Any], arguments: Sequence[Argument]) -> None:
    if len(given) != len(arguments):
        raise InputError(
            f"{len(arguments)} examples were expected, not {len(given)}: "
            f"{', '.join(argument.name for argument in arguments)}",
            hint="give a tensor for each, in this order",
        )
    for item, argument in zip(given, arguments, strict=True):
        if not isinstance(item, Tensor):
            raise UnsupportedError(
                f"{argument.name} is a {type(item).__name__}, and tracing takes tensors only",
                hint="use to_exported_program()",
            )


class _Quiet(warnings.catch_warnings):
    """Torch warns of its own deprecations, and of every size that a trace fixes."""

    def __enter__(self) -> Any:
        log = super().__enter__()
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        return log


def aoti_package(
    program: CompiledProgram,
    path: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
) -> str:
    """Compiles the program with AOTInductor into a package; needs a C++ compiler.

    Args:
        program: a program, compiled ahead of time.
        path: of the package, ``.pt2``.
        options: of Inductor, by name.

    Returns:
        The path.

    Raises:
        UnsupportedError: it has engines.
        CompileError: torch can't compile it.
    """
    if program.segments:
        raise UnsupportedError(
            f"@{program.graph.name} has TensorRT engines, which AOTInductor can't package",
            hint="use to_exported_program(), or compile with target='cpu'",
        )
    exported = to_exported_program(program)
    try:
        with torch.no_grad(), autocast_set_to(OFF):
            return str(
                torch._inductor.aoti_compile_and_package(
                    exported,
                    package_path=os.fspath(path),
                    inductor_configs=dict(options or {}),
                )
            )
    except Exception as error:
        raise CompileError(
            f"AOTInductor can't compile @{program.graph.name}: {_first_line(error)}",
            hint="torch's own error is the cause of this one",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(f"{type(error).__name__}: {error}".strip().splitlines()), "")
