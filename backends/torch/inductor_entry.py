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
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx import GraphModule, Interpreter
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from rewright.backends.torch.kernels.ahead import compiled_ahead

Run: TypeAlias = Callable[..., Sequence[Any]]
"""What was compiled: takes the module's arguments, returns its outputs."""

_AHEAD: Final = (
    "cpp_wrapper", "freezing", "fx_wrapper", "pattern_matcher", "pre_grad_custom_pass",
    "pre_grad_fusion_options",
)  # fmt: skip
"""Options that ask for something to be done ahead of AOTAutograd."""


def compile_fx_module(
    module: GraphModule, examples: Sequence[Any], options: Mapping[str, Any]
) -> Run:
    """Compiles `module` by Inductor.

    Args:
        module: mutates none of its arguments; returns a list of tensors and sizes.
        examples: fake tensors and symbolic sizes, all of one FakeTensorMode.
        options: of Inductor, by name; they hold for this compile. Those that ask for something
            ahead of AOTAutograd make it go torch's public way.

    Raises:
        Exception: any of torch's.
    """
    with torch.no_grad(), config.patch(dict(options)):
        if not any(getattr(config, name, None) for name in _AHEAD):
            return _compiled(module, examples)
    with torch.no_grad():
        return torch._inductor.standalone_compile(
            module,
            list(examples),
            dynamic_shapes="from_graph",
            options={"config_patches": dict(options)},
        )


def _compiled(module: GraphModule, examples: Sequence[Any]) -> Run:
    mode = _mode_of(module)
    with tracing(TracingContext(mode)), V.set_fake_mode(mode), enable_python_dispatcher():
        traced = _traced(module, examples, mode)
        by_us = config.use_joint_graph_passes and not _has_joint_passes_to_run()
        if by_us:
            _simplify(traced)
        joint = config.use_joint_graph_passes and not by_us
        with compiled_ahead(traced), config.patch(use_joint_graph_passes=joint):
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
    """What Inductor's joint-graph passes do without patterns.

    They trace their patterns first, of attention above all, whether or not patterns are wanted:
    half a second in each process.
    """
    remove_noop_ops(traced.graph)
    if config.joint_graph_constant_folding:
        constant_fold_uniform_value(traced)
