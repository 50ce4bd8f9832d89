"""The export frontend: a ``torch.export.ExportedProgram`` as a graph and its signature.

The training IR that ``torch.export.export`` gives is imported as it is, without retracing;
what ``run_decompositions()`` made of it is taken, too. Nothing of the program is changed, and
no weight is copied: sources share the memory of its state dict.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch.export.graph_signature import (
    ConstantArgument,
    CustomObjArgument,
    InputKind,
    InputSpec,
    OutputKind,
    TokenArgument,
)
from torch.utils._pytree import (
    MappingKey,
    SequenceKey,
    TreeSpec,
    keystr,
    tree_flatten,
)

from rewright.caller import user_line
from rewright.errors import FrontendError, UnsupportedError
from rewright.frontends.autocast import OFF, State, refuse_lost_autocast, resolve_autocast
from rewright.frontends.export_log import export_kept_quiet
from rewright.frontends.importer import Placeholder, import_fx
from rewright.frontends.inputs import narrow_ranges
from rewright.frontends.memory import share_memory
from rewright.frontends.symbols import SymbolTable
from rewright.frontends.tensor_kinds import refuse_class, refuse_layout
from rewright.frontends.transforms import flatten_transforms
from rewright.ir.graph import Constant, Graph
from rewright.ir.signature import Argument, Signature
from rewright.ir.trees import child_keys, children, is_leaf

_KINDS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
    InputKind.USER_INPUT: "input",
}

_MUTATIONS = {
    OutputKind.BUFFER_MUTATION,
    OutputKind.PARAMETER_MUTATION,
    OutputKind.USER_INPUT_MUTATION,
}


def export(
    model: Any, args: Any, kwargs: dict[str, Any], dynamic_shapes: Any
) -> torch.export.ExportedProgram:
    """``torch.export.export`` without gradients, its failures as errors of ours.

    Raises:
        FrontendError: `model` is no module, `args` no tuple, or torch can't export it.
    """
    if not isinstance(model, torch.nn.Module):
        raise FrontendError(
            f"expected a torch.nn.Module, not {type(model).__name__}",
            hint="rewright.compile_exported(exported) takes it"
            if isinstance(model, torch.export.ExportedProgram)
            else "put a function into the forward of a module",
        )
    if not isinstance(args, tuple):
        raise FrontendError(
            f"args is a {type(args).__name__}, expected a tuple", hint="for one argument: (x,)"
        )
    leaves, spec = tree_flatten((args, kwargs))
    for name, item in zip(leaf_names(spec, _parameters(model)), leaves, strict=True):
        if isinstance(item, torch.Tensor):
            refuse_layout(item, name, name)
            refuse_class(item, name, name)
    try:
        with torch.no_grad(), export_kept_quiet():
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes)
    except Exception as error:
        first, hint = _why_not(error)
        raise FrontendError(
            f"torch.export can't export the model: {first}",
            where=user_line(error.__traceback__.tb_next if error.__traceback__ else None),
            hint=hint,
        ) from error


_ADVICE: Final = (
    (
        r"Could not (?:guard on|extract specialized integer from) data-dependent expression",
        "the model needs a number that it computes, for an `if`, a size or int(): torch.cond or "
        "torch.where chooses, torch._check tells what holds, and "
        'torch.compile(model, backend="rewright") takes the model as it is',
    ),
    (
        r"You marked (?P<size>.+?) as dynamic but your code specialized it to be a constant "
        r"\((?P<value>[01])\)",
        "a size that is {value} in the example arguments can't vary: give examples where it is 2",
    ),
    (
        r"You marked (?P<size>.+?) as dynamic but your code specialized it to be a constant "
        r"\((?P<value>\d+)\)",
        "the model works where {size} is {value} only: leave it out of dynamic_shapes",
    ),
    (
        r"(?P<value>\d+) not in range \[",
        "the sizes of the example arguments must be in the ranges of dynamic_shapes",
    ),
    (r"missing a required argument: '(?P<name>\w+)'", "give {name} in args or kwargs"),
    (
        r"#dynamic-shapes-validation",
        "dynamic_shapes has the structure of the arguments: ({{0: batch}},), or names to these",
    ),
)
"""Patterns of torch's message, and what to do; the first that fits says it."""


def _why_not(error: Exception) -> tuple[str, str]:
    """What torch.export says, on one line, and a hint."""
    text = str(error)
    line = f"{type(error).__name__}: {text}".strip().splitlines()[0]
    for pattern, advice in _ADVICE:
        found = re.search(pattern, text)
        if found is not None:
            told = line if found[0] in line else f"{line.split('!')[0]}: {found[0]}"
            return told, advice.format(**found.groupdict())
    return line, (
        "torch's own error is the cause of this one; torch.compile(model, "
        'backend="rewright") takes what can\'t be exported whole'
    )


def import_exported(
    program: torch.export.ExportedProgram,
    inputs: Sequence[Any] | None = None,
    *,
    device: str | None = None,
    name: str = "main",
    around: State = OFF,
) -> tuple[Graph, Signature]:
    """The graph of an exported program, and how it is called.

    Args:
        program: what ``torch.export.export`` returned, or ``torch.export.load``.
        inputs: a :class:`~rewright.frontends.inputs.Input` or an example tensor for each tensor
            argument; they give the sizes their ranges.
        device: where to run; by default where the program was exported. Weights are moved.
        name: the graph's name.
        around: the autocast under which it was exported: torch's export has its dtypes, not its
            casts.

    Raises:
        FrontendError: `program` is no ExportedProgram.
        UnsupportedError: it can't be imported; names the op and the user's line.
        InputError: `inputs` don't fit it.
    """
    if not isinstance(program, torch.export.ExportedProgram):
        raise FrontendError(
            f"expected a torch.export.ExportedProgram, not {type(program).__name__}",
            hint="rewright.compile(model, args) exports and compiles in one call",
        )
    specs = program.graph_signature.input_specs
    if not around:
        refuse_lost_autocast(program.graph_module)
    module = flatten_transforms(resolve_autocast(program.graph_module, around))
    graph = import_fx(
        module,
        _placeholders(program, specs),
        name=name,
        device=device,
        symbols=_symbols(program),
        written=[
            spec.target if spec.kind in _MUTATIONS else None
            for spec in program.graph_signature.output_specs
        ],
    )
    _refuse_overlap(graph)
    signature = _signature(program, specs)
    if inputs is not None:
        narrow_ranges(graph, signature, inputs)
    return graph, signature


def _placeholders(
    program: torch.export.ExportedProgram, specs: Sequence[InputSpec]
) -> list[Placeholder]:
    seen: dict[Any, str] = {}
    placeholders = []
    for spec in specs:
        if spec.kind not in _KINDS or isinstance(spec.arg, CustomObjArgument | TokenArgument):
            raise UnsupportedError(
                f"the exported program takes {spec.arg.name}, a {spec.kind.name.lower()}",
                hint="effect tokens and script objects can't be compiled",
            )
        if spec.kind is InputKind.USER_INPUT:
            literal = isinstance(spec.arg, ConstantArgument)
            placeholders.append(Placeholder(spec.arg.name, "literal" if literal else "input"))
            continue
        assert spec.target is not None
        data = _data(program, spec.target)
        refuse_layout(data, spec.target, spec.target)
        refuse_class(data, spec.target, spec.target)
        data = data.detach()
        identity = _identity(data)
        # Anything else than a buffer has None.
        kind = "nonpersistent" if spec.persistent is False else _KINDS[spec.kind]
        placeholders.append(Placeholder(spec.target, kind, data, same_as=seen.get(identity)))
        seen.setdefault(identity, spec.target)
    return placeholders


def _refuse_overlap(graph: Graph) -> None:
    """Refuses a program that writes to a buffer which is a view of another one.

    Raises:
        UnsupportedError: naming both.
    """
    owners: dict[int, Constant] = {}
    for constant in graph.constants.values():
        if constant.data is None or not constant.data.numel():
            continue
        other = owners.setdefault(constant.data.untyped_storage().data_ptr(), constant)
        written = other is not constant and bool({other, constant} & set(graph.targets))
        if written and other.data is not None and share_memory(other.data, constant.data):
            raise UnsupportedError(
                f"{other.name} and {constant.name} share memory, and the model writes to one",
                hint="register a clone() of one of them, or index the whole in forward",
            )


def _data(program: torch.export.ExportedProgram, name: str) -> torch.Tensor:
    found = program.state_dict.get(name)
    if found is None:
        found = program.constants.get(name)
    if not isinstance(found, torch.Tensor):
        raise UnsupportedError(f"the exported program holds no tensor {name}")
    return found


def _identity(data: torch.Tensor) -> Any:
    """What tells tensors apart: the same memory, seen in the same way."""
    if data.numel() == 0:
        return id(data)
    return data.data_ptr(), data.dtype, tuple(data.shape), data.stride(), str(data.device)


def _symbols(program: torch.export.ExportedProgram) -> SymbolTable:
    hints: dict[Any, Any] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor) and value.fake_mode.shape_env:
            env = value.fake_mode.shape_env
            name = "backed_var_to_val" if hasattr(env, "backed_var_to_val") else "var_to_val"
            hints = dict(getattr(env, name))
            break
    return SymbolTable(dict(program.range_constraints), hints)


def _signature(program: torch.export.ExportedProgram, specs: Sequence[InputSpec]) -> Signature:
    in_spec, out_spec = program.call_spec.in_spec, program.call_spec.out_spec
    users = [spec for spec in specs if spec.kind is InputKind.USER_INPUT]
    names = _forward_names(program)
    paths = leaf_names(in_spec, names) if in_spec is not None else [s.arg.name for s in users]
    arguments = []
    count = 0
    for spec, path in zip(users, paths, strict=True):
        if isinstance(spec.arg, ConstantArgument):
            arguments.append(Argument(path, literal=spec.arg.value))
        else:
            arguments.append(Argument(path, input=count))
            count += 1
    return Signature(tuple(arguments), in_spec, out_spec, tuple(names))


def example_inputs(
    program: torch.export.ExportedProgram,
    signature: Signature,
    inputs: Sequence[Any] | None = None,
) -> list[Any] | None:
    """Inputs of the imported graph, in its order; None where they are not known.

    Args:
        program: an exported program.
        signature: how its graph is called.
        inputs: what a user said of the inputs: where it is a tensor for each, these.
    """
    wanted = [argument for argument in signature.arguments if argument.input is not None]
    if inputs is not None and all(isinstance(item, torch.Tensor) for item in inputs):
        return list(inputs) if len(inputs) == len(wanted) else None
    if program.example_inputs is None:
        return None
    leaves, spec = tree_flatten(program.example_inputs)
    if spec != signature.in_spec or len(leaves) != len(signature.arguments):
        return None
    pairs = zip(signature.arguments, leaves, strict=True)
    return [leaf for argument, leaf in pairs if argument.input is not None]


def _parameters(model: torch.nn.Module) -> list[str]:
    """The names of the parameters of ``forward``, as far as each stands for one argument."""
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _forward_names(program: torch.export.ExportedProgram) -> list[str]:
    root = program.module_call_graph[0].signature if program.module_call_graph else None
    return list(getattr(root, "forward_arg_names", None) or [])


def leaf_names(spec: TreeSpec, names: Sequence[str]) -> list[str]:
    """The name of every leaf of ``(args, kwargs)``, as a caller would write it: ``past[0].key``.

    Args:
        spec: the tree of ``(args, kwargs)``.
        names: the model's forward parameters.
    """
    found = []
    for path in _leaf_paths(spec):
        _, key, *rest = path
        if isinstance(key, MappingKey):
            first = str(key.key)
        elif isinstance(key, SequenceKey) and key.idx < len(names):
            first = names[key.idx]
        else:
            first = f"args{keystr((key,))}"
        found.append(first + keystr(tuple(rest)))
    return found


def _leaf_paths(spec: TreeSpec) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each leaf. No object of `spec` is made: a class may need its values."""
    if is_leaf(spec):
        yield ()
        return
    for key, child in zip(child_keys(spec), children(spec), strict=True):
        yield from ((key, *rest) for rest in _leaf_paths(child))
