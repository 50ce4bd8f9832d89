"""``torch.func`` transforms made plain: FX in, FX out, without ``vmap`` regions.

    _vmap_increment_nesting(3, 'error')
    b = _add_batch_dim(x, 0, 1)            ->   s = aten.sum.dim_IntList(x, [1])
    s = aten.sum(b)
    y = _remove_batch_dim(s, 1, 3, 0)
    _vmap_decrement_nesting()

Both frontends leave a transform as calls around operators on tensors that lack a dimension.
Each such region is run on fake tensors and replaced by the operators that reach them below the
transform. Composite operators inside come out in parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Final

import torch
import torch.fx
from torch._guards import detect_fake_mode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from rewright.errors import UnsupportedError
from rewright.frontends.locations import location_of

TRANSFORMS: Final = "torch._functorch.predispatch"
"""The module of torch's whose functions begin, end and enter transforms."""


def is_transform(node: torch.fx.Node) -> bool:
    """Whether `node` is one of the calls that make up a transform."""
    return getattr(node.target, "__module__", None) == TRANSFORMS


def flatten_transforms(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """`module` without transforms.

    Args:
        module: ATen-level FX whose nodes carry ``meta["val"]``; it is not changed.

    Returns:
        `module` itself where there is no transform in it, otherwise a new module with the same
        placeholders and outputs.

    Raises:
        UnsupportedError: a transform that computes a gradient, or one that torch can't run on fake
            tensors; names the user's line.
    """
    if not any(map(is_transform, module.graph.nodes)):
        return module
    graph = torch.fx.Graph()
    output = graph.graph_copy(module.graph, {}, return_output_node=True)
    assert isinstance(output, tuple)
    graph.output(output[0]).meta.update(output[1].meta)
    flat = torch.fx.GraphModule(module, graph)
    flat.meta.update(module.meta)
    for region in list(_regions(graph)):
        _flatten(flat, region)
    return flat


def _regions(graph: torch.fx.Graph) -> Iterator[list[torch.fx.Node]]:
    """The nodes of each outermost transform, from where it begins to where it ends."""
    region: list[torch.fx.Node] = []
    depth = 0
    for node in graph.nodes:
        depth += _step(node)
        if depth or is_transform(node):
            region.append(node)
        if region and not depth:
            yield region
            region = []


def _step(node: torch.fx.Node) -> int:
    """How much deeper `node` goes into transforms."""
    if not is_transform(node):
        return 0
    name = str(getattr(node.target, "__name__", ""))
    return 1 if "increment" in name or "enter" in name else -("decrement" in name or "exit" in name)


def _flatten(module: torch.fx.GraphModule, region: Sequence[torch.fx.Node]) -> None:
    """Replaces `region` by what it does below its transforms."""
    inside = set(region)
    used = dict.fromkeys(n for node in region for n in node.all_input_nodes if n not in inside)
    returned = [node for node in region if any(user not in inside for user in node.users)]
    traced = _trace(module, region, list(used), returned)
    with module.graph.inserting_before(region[0]):
        made = _copy_into(module, traced, list(used))
    for node, value in zip(returned, made, strict=True):
        node.replace_all_uses_with(value, delete_user_cb=lambda user: user not in inside)
    for node in reversed(region):
        module.graph.erase_node(node)


def _trace(
    module: torch.fx.GraphModule,
    region: Sequence[torch.fx.Node],
    used: Sequence[torch.fx.Node],
    returned: Sequence[torch.fx.Node],
) -> torch.fx.GraphModule:
    """The region as FX of its own, recorded below its transforms."""
    graph = torch.fx.Graph()
    known = {node: graph.placeholder(node.name) for node in used}
    for node in region:
        known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(tuple(known[node] for node in returned))
    interpreter = torch.fx.Interpreter(torch.fx.GraphModule(module, graph))
    values = [node.meta.get("val") for node in used]

    def run(*inputs: object) -> object:
        return interpreter.run(*inputs)

    refuse_gradient_transforms(region)
    try:
        with detect_fake_mode(values) or nullcontext(), torch.no_grad(), preserve_node_meta():
            return make_fx(run)(*values)
    except Exception as error:
        raise _refused(region, str(error).strip().split("\n")[0]) from error


def refuse_gradient_transforms(nodes: Iterable[torch.fx.Node]) -> None:
    """Refuses transforms that compute a gradient, at any level of FX.

    Raises:
        UnsupportedError: there is one; names the user's line.
    """
    listed = list(nodes)
    for at, node in enumerate(listed):
        if getattr(node.target, "__name__", "") == "_grad_increment_nesting":
            raise _refused(listed[at:], _GRADIENT)  # what follows has a line, if this has none


_GRADIENT: Final = (
    "it computes a gradient (grad, vjp, jacrev), and compiled graphs have no backward"
)


def _refused(region: Sequence[torch.fx.Node], reason: str) -> UnsupportedError:
    """What to say of a transform that can't be run on fake tensors."""
    return UnsupportedError(
        f"a torch.func transform can't be compiled: {reason}",
        where=next(filter(None, map(location_of, region)), None),
        hint="call it outside of the compiled model, or in a function under "
        "@torch.compiler.disable; vmap, jvp and jacfwd can be compiled",
    )


def _copy_into(
    module: torch.fx.GraphModule, traced: torch.fx.GraphModule, inputs: Sequence[torch.fx.Node]
) -> list[torch.fx.Node]:
    """Copies the nodes of `traced` to where its owner is inserting; returns its results."""
    known = dict(zip(traced.graph.find_nodes(op="placeholder"), inputs, strict=True))
    for node in traced.graph.nodes:
        if node.op == "output":
            return [known[item] for item in node.args[0]]
        if node.op != "placeholder":
            known[node] = module.graph.node_copy(node, known.__getitem__)
            if node.op == "get_attr":
                known[node].target = _hold(module, str(node.target), getattr(traced, node.target))
    raise AssertionError("an FX graph ends with its output")


def _hold(module: torch.fx.GraphModule, name: str, value: object) -> str:
    """The name by which `module` holds `value` from now on."""
    unique, count = name, 0
    while hasattr(module, unique):
        count += 1
        unique = f"{name}_{count}"
    setattr(module, unique, value)
    return unique
