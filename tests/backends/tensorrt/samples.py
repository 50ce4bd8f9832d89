"""Calls of torch operators with sample arguments, and graphs of one node made of them.

torch's own table of operators (`op_db`) has sample inputs for its public functions. They are run
and every operator that they call is kept, composite ones too, with its arguments.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from rewright.errors import RewrightError
from rewright.ir.builder import Builder
from rewright.ir.graph import Graph, SymbolInfo
from rewright.ir.ops import get_op, op_name
from rewright.ir.sizes import Range, symbol
from rewright.ir.types import TensorType

DTYPES: Final = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.bool,
)

FROM: Final[dict[str, str]] = {
    "_adaptive_avg_pool2d": "nn.functional.adaptive_avg_pool2d",
    "_adaptive_avg_pool3d": "nn.functional.adaptive_avg_pool3d",
    "_log_softmax": "log_softmax",
    "_native_batch_norm_legit": "native_batch_norm",
    "_native_batch_norm_legit_no_training": "nn.functional.batch_norm",
    "_prelu_kernel": "nn.functional.prelu",
    "_reshape_copy": "reshape",
    "_softmax": "softmax",
    "_to_copy": "to",
    "_unsafe_index": "_unsafe_masked_index",
    "constant_pad_nd": "constant_pad_nd",
    "grid_sampler": "nn.functional.grid_sample",
    "grid_sampler_2d": "grid_sampler_2d",
    "linalg_vector_norm": "linalg.vector_norm",
    "log_sigmoid_forward": "nn.functional.logsigmoid",
    "max_pool2d_with_indices": "max_pool2d_with_indices_backward",
    "native_group_norm": "nn.functional.group_norm",
    "threshold": "nn.functional.threshold",
    "take_along_dim": "take_along_dim",
}
"""Which entry of torch's table calls an operator, where the names don't tell."""


@attrs.frozen(eq=False)
class Sample:
    """One call of an operator."""

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@functools.cache
def _table() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for info in op_db:
        for name in {info.name, info.name.rpartition(".")[2], info.aten_name}:
            found.setdefault(name, []).append(info)
    return found


def base_name(op: str) -> str:
    """``aten.add.Tensor`` is ``add``."""
    name = op.split(".")[1]
    return name.removeprefix("__").removesuffix("__")


def samples_of(op: str, dtype: torch.dtype, limit: int = 6) -> list[Sample]:
    """Calls of `op` from torch's table, in which floats (or numbers) are `dtype`."""
    base = base_name(op)
    wanted = FROM.get(base, base)
    infos = _table().get(wanted, []) + _table().get(f"nn.functional.{wanted}", [])
    found: list[Sample] = []
    for info in {id(info): info for info in infos}.values():
        if dtype in info.dtypes and len(found) < limit:
            calls = (call for call in _calls(info, dtype) if call.op == op)
            found += itertools.islice(calls, limit - len(found))
    return found


def _calls(info: Any, dtype: torch.dtype) -> Iterator[Sample]:
    """Every operator that the samples of an entry call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(itertools.islice(info.sample_inputs("cpu", dtype), 40))
    for sample in samples[:: max(len(samples) // 12, 1)]:
        yield from _trace(lambda *a, _s=sample: info.op(*a, **_s.kwargs),
                          (sample.input, *sample.args))  # fmt: skip


def _trace(function: Callable[..., Any], args: Sequence[Any]) -> list[Sample]:
    flat, spec = pytree.tree_flatten(tuple(args))
    at = [i for i, item in enumerate(flat) if isinstance(item, torch.Tensor)]

    def run(*tensors: torch.Tensor) -> Any:
        given = list(flat)
        for index, tensor in zip(at, tensors, strict=True):
            given[index] = tensor
        return function(*pytree.tree_unflatten(given, spec))

    tensors = [flat[index].detach() for index in at]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            module = make_fx(run, pre_dispatch=True)(*tensors)
            recorder = _Recorder(module)
            recorder.run(*tensors)
    except Exception:  # samples of functions that look at values, or that torch can't trace
        return []
    return recorder.calls


class _Recorder(torch.fx.Interpreter):
    """Keeps every call of an operator."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.calls: list[Sample] = []

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, torch._ops.OpOverload):
            self.calls.append(Sample(op_name(target), tuple(args), dict(kwargs)))
        return super().call_function(target, args, kwargs)


# --------------------------------------------------------------------------- graphs of one node


@attrs.frozen(eq=False)
class Case:
    """A graph of one node, and the inputs of calls of it."""

    graph: Graph
    calls: tuple[tuple[torch.Tensor, ...], ...]


def static_case(sample: Sample, constants: Sequence[str] = ()) -> Case:
    """The call of a sample; arguments named in `constants` become constants of the graph."""
    return _case(sample, constants, {})


def dynamic_case(sample: Sample, constants: Sequence[str] = ()) -> Case | None:
    """The call with sizes that vary, as many as the operator lets; None where it lets none.

    Equal sizes vary together, from what they are in the sample up to twice that. The calls are at
    the least, typical and largest size.
    """
    tensors = [t for t in pytree.tree_leaves((sample.args, sample.kwargs)) if _is_tensor(t)]
    sizes = list(dict.fromkeys(n for t in tensors for n in t.shape if n > 1))
    for varying in ([sizes] if len(sizes) < 2 else [sizes, *([n] for n in sizes)]):
        try:
            if varying:
                return _case(sample, constants, {n: 2 * n for n in varying})
        except RewrightError:
            continue
    return None


def _is_tensor(item: Any) -> bool:
    return isinstance(item, torch.Tensor)


def _case(sample: Sample, constants: Sequence[str], largest: Mapping[int, int]) -> Case:
    op = get_op(sample.op)
    named = op.bind(sample.args, sample.kwargs)
    graph, given = Graph("main"), []
    symbols = {n: symbol(f"s{i}") for i, n in enumerate(largest)}

    def put(name: str, item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            if name in constants:
                return graph.add_constant(f"{name}{len(graph.constants)}",
                                          TensorType(item.dtype, tuple(item.shape)), data=item)  # fmt: skip
            shape = tuple(symbols.get(n, n) for n in item.shape)
            value = graph.add_input(TensorType(item.dtype, shape), f"x{len(given)}")
            given.append(item)
            for dim, n in enumerate(item.shape):
                if n in symbols and symbols[n] not in graph.symbols:
                    known = Range(n, n + n // 2, largest[n])
                    graph.symbols[symbols[n]] = SymbolInfo((known,), value, dim)
            return value
        if isinstance(item, list | tuple):
            return tuple(put(name, part) for part in item)
        return item

    arguments = {name: put(name, item) for name, item in named.items() if name != "generator"}
    node = Builder(graph).insert(op, arguments)
    graph.set_outputs(node.results)
    scales = [dict.fromkeys(largest, 1.0), dict.fromkeys(largest, 1.5), dict.fromkeys(largest, 2.0)]
    steps = scales if largest else [{}]
    calls = tuple(tuple(_grown(x, step) for x in given) for step in steps)
    return Case(graph, calls)


def _grown(x: torch.Tensor, step: Mapping[int, float]) -> torch.Tensor:
    """`x` repeated until its sizes have grown: so its values stay legal."""
    for dim, n in enumerate(x.shape):
        if n in step:
            wanted = n + n // 2 if step[n] == 1.5 else int(n * step[n])
            x = torch.cat([x, x], dim).narrow(dim, 0, wanted)
    return x
