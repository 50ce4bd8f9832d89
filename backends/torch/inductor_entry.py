"""How Inductor is entered: behind AOTAutograd, in one trace.

Torch's public way in (``torch._inductor.standalone_compile``) runs a graph twice on fake tensors
before Inductor sees it: once to learn which arguments it mutates and which outputs are aliases,
once to make it functional and decompose it. A graph of ours mutates no argument, its aliases are
made outside, and nothing of the result is saved; so the second of these is all there is to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import TracingContext, tracing
from torch._inductor import compile_fx, config
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import constant_fold_uniform_value
from torch._inductor.fx_passes.post_grad import remove_noop_ops
from torch._inductor.virtualized import V
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.utils._sympy.symbol import SymT, symbol_is_type

from rewright.backends.torch.kernels.ahead import compiled_ahead

Run: TypeAlias = Callable[..., Sequence[Any]]
"""What was compiled: takes the module's arguments, returns its outputs."""

_AHEAD: Final = (
    "cpp_wrapper", "freezing", "fx_wrapper", "pattern_matcher", "pre_grad_custom_pass",
    "pre_grad_fusion_options",
)  # fmt: skip
"""Options that ask for something to be done ahead of AOTAutograd."""


_NEEDS_TOKENS: Final = "Could not find a token"
"""What torch says of operators whose effects have an order, which AOTAutograd makes values of."""


def compile_fx_module(
    module: GraphModule, examples: Sequence[Any], options: Mapping[str, Any]
) -> Run:
    """Compiles `module` by Inductor.

    Args:
        module: mutates none of its arguments; returns a list of tensors and sizes. None of them is
            given memory of an argument or of another one that it doesn't have in `module`: what
            is written to arguments afterwards may not reach it.
        examples: fake tensors and symbolic sizes, all of one FakeTensorMode.
        options: of Inductor, by name; they hold for this compile. Those that ask for something
            ahead of AOTAutograd make it go torch's public way.

    Raises:
        Exception: any of torch's.
    """
    options = {**options, **_without_cache(module)}
    with torch.no_grad(), config.patch(options):
        if not any(getattr(config, name, None) for name in _AHEAD):
            try:
                return _compiled_behind(module, examples)
            except Exception as error:
                if _NEEDS_TOKENS not in str(error):
                    raise
    with torch.no_grad():
        return torch._inductor.standalone_compile(
            module,
            list(examples),
            dynamic_shapes="from_graph",
            options={"config_patches": {"joint_graph_constant_folding": False, **options}},
        )


def _compiled_behind(module: GraphModule, examples: Sequence[Any]) -> Run:
    """`module` compiled from behind AOTAutograd."""
    mode = _mode_of(module)
    with tracing(TracingContext(mode)), V.set_fake_mode(mode), enable_python_dispatcher():
        traced = _traced(module, examples, mode)
        if config.use_joint_graph_passes:
            _simplify(traced)
        done = {
            "use_joint_graph_passes": config.use_joint_graph_passes and _has_joint_passes_to_run(),
            "joint_graph_constant_folding": False,
        }
        with compiled_ahead(traced), config.patch(done):
            code = compile_fx.compile_fx_forward(
                traced,
                examples,
                num_orig_model_outputs=compile_fx.get_num_model_outputs(traced),
                num_example_inputs=len(examples),
                # torch 2.11 takes the configuration, 2.13 a module that may have notes on it
                compiler_config_extra=compile_fx.create_compiler_config_extra(config),  # type: ignore[arg-type]
                is_inference=True,
            )
    return lambda *args: code([*args])


def _without_cache(module: GraphModule) -> dict[str, Any]:
    """No cache where a size has no example: its range is not in the key of Inductor's cache.

    So code for ``u0 >= 2`` would be found again where `u0` is 0 or 1.
    """
    env = _mode_of(module).shape_env
    ranges = env.var_to_range if env is not None else ()
    has = any(symbol_is_type(symbol, SymT.UNBACKED_INT) for symbol in ranges)
    return {"fx_graph_cache": False} if has else {}


def _mode_of(module: GraphModule) -> FakeTensorMode:
    """The mode that the values of `module` are in."""
    values = (node.meta.get("val") for node in module.graph.nodes)
    return next(value.fake_mode for value in values if isinstance(value, FakeTensor))


def _traced(module: GraphModule, examples: Sequence[Any], mode: FakeTensorMode) -> GraphModule:
    """`module` in the operators that Inductor has lowerings for, none of which mutates."""
    functional = dispatch_functionalize(Interpreter(module).run, FunctionalTensorMode())
    with mode, preserve_node_meta():
        traced = make_fx(functional, select_decomp_table())(*examples)
    traced.graph.eliminate_dead_code()
    return traced


def _has_joint_passes_to_run() -> bool:
    """Whether an option asks for more of Inductor's joint-graph passes than :func:`_simplify`."""
    custom = (config.joint_custom_pre_pass, config.joint_custom_post_pass)
    return any(custom) or config.auto_chunker.enable or not config.fallback_random


def _simplify(traced: GraphModule) -> None:
    """What Inductor's joint-graph passes do without patterns, but for the bodies of regions.

    They trace their patterns first, of attention above all, whether or not patterns are wanted:
    half a second in each process. And where they fold ``x + 0``, they give out `x` itself.
    """
    remove_noop_ops(traced.graph)
    if config.joint_graph_constant_folding:
        before = _memory(traced)
        constant_fold_uniform_value(traced)
        _part_outputs(traced, before)


def _memory(traced: GraphModule) -> list[Node | None]:
    """For each output the node that made its memory; None for a number."""
    return [_base(out) if isinstance(out, Node) else None for out in _outputs(traced)]


def _outputs(traced: GraphModule) -> list[Any]:
    outputs: Any = traced.graph.output_node().args[0]
    return [*outputs]


def _base(node: Node) -> Node:
    """`node`, or what it is a view of."""
    while (source := _viewed(node)) is not None:
        node = source
    return node


def _viewed(node: Node) -> Node | None:
    if not isinstance(node.target, OpOverload) or not node.args:
        return None
    is_view = any(made.alias_info is not None for made in node.target._schema.returns)
    return node.args[0] if is_view and isinstance(node.args[0], Node) else None


def _part_outputs(traced: GraphModule, before: Sequence[Node | None]) -> None:
    """Copies each output that has an argument's memory, or an earlier output's, and had its own."""
    outputs, after = _outputs(traced), _memory(traced)
    for number, (base, was) in enumerate(zip(after, before, strict=True)):
        if base is None or base is was:
            continue
        shared = base.op == "placeholder" or any(
            other is base and before[at] is not was for at, other in enumerate(after[:number])
        )
        if shared:
            with traced.graph.inserting_before(traced.graph.output_node()):
                copy = traced.graph.call_function(torch.ops.aten.clone.default, (outputs[number],))
            copy.meta.update(outputs[number].meta)
            outputs[number] = copy
    traced.graph.output_node().args = (outputs,)
