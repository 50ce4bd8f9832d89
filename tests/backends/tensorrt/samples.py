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

from rewright.errors import InferenceError, RewrightError
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
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d": "adaptive_avg_pool3d",
    "_cdist_forward": "cdist",
    "_log_softmax": "log_softmax",
    "_native_batch_norm_legit": "native_batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "_pad_circular": "pad",
    "_pdist_forward": "pdist",
    "_prelu_kernel": "prelu",
    "_reshape_copy": "reshape",
    "_scaled_dot_product_flash_attention_for_cpu": "scaled_dot_product_attention",
    "_softmax": "softmax",
    "_to_copy": "to",
    "_unsafe_view": "matmul",
    "clip": "clamp",
    "col2im": "fold",
    "convolution": "conv1d conv2d conv3d conv_transpose2d",
    "fix": "trunc",
    "ger": "outer",
    "grid_sampler": "grid_sample",
    "im2col": "unfold",
    "index": "index __getitem__",
    "linalg_vector_norm": "vector_norm",
    "log_sigmoid_forward": "logsigmoid",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "native_group_norm": "group_norm",
    **{f"{kind}_pad{n}d": "pad" for kind in ("reflection", "replication") for n in (1, 2, 3)},
    **{f"upsample_{kind}": "interpolate upsample_bilinear upsample_nearest" for kind in (
        "nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d",
        "bicubic2d")},
}  # fmt: skip
"""Which entries of torch's table call an operator, where the names don't tell."""

NUMBERS: Final = {".Scalar": "Tensor", ".Scalar_mode": "Tensor_mode"}
"""Overloads that take a number where another takes a tensor."""

Make = Callable[..., torch.Tensor]
EXTRA: Final[dict[str, Callable[[Make], list[tuple[Any, ...]]]]] = {
    # of which torch's table has nothing
    "aten._native_batch_norm_legit.no_stats": lambda t: [(t(3, 4, 5), t(4), t(4), True, 0.1, 1e-5)],
    "aten._safe_softmax": lambda t: [(t(3, 4), 1)],
    "aten._unsafe_index.Tensor": lambda t: [(t(3, 4), [None, torch.tensor([1, 3, 0])])],
    "aten._unsafe_index_put": lambda t: [(t(3, 4), [torch.tensor([2, 0])], t(2, 4))],
    "aten._native_batch_norm_legit": lambda t: [
        (t(3, 4, 5), t(4), t(4), t(4), t(4) * t(4) + 1, False, 0.1, 1e-5)
    ],
    "aten._native_batch_norm_legit_no_training": lambda t: [
        (t(3, 4, 5), t(4), None, t(4), t(4) * t(4) + 1, 0.1, 1e-5)
    ],
    "aten._pad_circular": lambda t: [(t(2, 3, 4, 5), [1, 2, 0, 1])],
    "aten._reshape_copy": lambda t: [(t(3, 4), (2, 6))],
    "aten.col2im": lambda t: [(t(2, 18, 15), (4, 5), (2, 3), (1, 1), (1, 0), (1, 1))],
    **{f"aten.{name}": lambda t: [
        (t(10, 3), torch.randint(10, (7,)), torch.tensor([0, 2, 2, 5]), False, mode)
        for mode in (0, 1, 2)
    ] for name in ("_embedding_bag", "embedding_bag", "_embedding_bag_forward_only")},
    "aten.embedding_bag.padding_idx": lambda t: [
        (t(10, 3), torch.randint(10, (7,)), torch.tensor([0, 2, 2, 5]), False, mode, False,
         None, False, None)
        for mode in (0, 1, 2)
    ],
    "aten.fix": lambda t: [(t(3, 4),)],
    "aten.floor_divide.Scalar": lambda t: [(t(3, 4), 2), (t(3, 4), -2)],
    "aten.ger": lambda t: [(t(3), t(4))],
    "aten._weight_norm": lambda t: [(t(4, 3, 2), t(4, 1, 1)), (t(4, 3, 2), t(1, 1, 2), 2)],
    "aten.alias": lambda t: [(t(3, 4),)],
    "aten.bitwise_and.Scalar_Tensor": lambda t: [(True, t(3, 4))],
    "aten.bitwise_or.Scalar_Tensor": lambda t: [(False, t(3, 4))],
    "aten.bitwise_xor.Scalar_Tensor": lambda t: [(True, t(3, 4))],
    "aten.clamp_max": lambda t: [(t(3, 4), 1)],
    "aten.clamp_min": lambda t: [(t(3, 4), 1)],
    "aten.clamp": lambda t: [(t(3, 4), -1, 1), (t(3, 4), None, 0), (t(3, 4), 1)],
    "aten.clip": lambda t: [(t(3, 4), -1, 1), (t(3, 4), None, 0)],
    "aten.clip.Tensor": lambda t: [(t(3, 4), t(4), None), (t(3, 4), None, t(3, 1))],
    "aten.contiguous": lambda t: [(t(3, 4),)],
    "aten.copy": lambda t: [(t(3, 4), t(4)), (t(3, 4), t(3, 4).float())],
    "aten.detach": lambda t: [(t(3, 4),)],
    "aten.detach_copy": lambda t: [(t(3, 4),)],
    "aten.alias_copy": lambda t: [(t(3, 4),)],
    "aten.dropout": lambda t: [(t(3, 4), 0.5, False)],
    "aten.feature_dropout": lambda t: [(t(3, 4), 0.5, False)],
    "aten.alpha_dropout": lambda t: [(t(3, 4), 0.5, False)],
    "aten.native_dropout": lambda t: [(t(3, 4), 0.5, False)],
    "aten.empty_strided": lambda t: [((3, 4), (4, 1))],
    "aten.new_empty_strided": lambda t: [(t(2), (3, 4), (4, 1))],
    "aten.fill.Tensor": lambda t: [(t(3, 4), t())],
    "aten.lift_fresh": lambda t: [(t(3),)],
    "aten.lift_fresh_copy": lambda t: [(t(3),)],
    "aten.meshgrid": lambda t: [([t(3), t(4)],)],
    "aten.native_channel_shuffle": lambda t: [(t(2, 6, 3), 3)],
    "aten.channel_shuffle": lambda t: [(t(2, 6, 3, 4), 2)],
    "aten.numpy_T": lambda t: [(t(3, 4, 5),)],
    "aten.pow.Scalar": lambda t: [(2, t(3, 4)), (0.5, t(3, 4))],
    "aten.pow.Tensor_Scalar": lambda t: [(t(3, 4), n) for n in (2, 0.5, -1, 3, 1, 0, 1.7)],
    "aten.split.sizes": lambda t: [(t(5, 4), [2, 3])],
    "aten.type_as": lambda t: [(t(3, 4), torch.rand(2)), (torch.rand(3), t(2))],
    "aten.where.Scalar": lambda t: [(t(3, 4) > 0, 1.5, 2)],
    "aten.where.ScalarOther": lambda t: [(t(3, 4) > 0, t(3, 4), 2)],
    "aten.where.ScalarSelf": lambda t: [(t(3, 4) > 0, 2, t(4))],
}  # fmt: skip

ELSEWHERE: Final = frozenset(
    f"aten._scaled_dot_product_{name}_attention" for name in ("cudnn", "efficient", "flash")
) | {"aten._scaled_dot_product_fused_attention_overrideable"}
"""Operators that torch runs on a GPU only."""


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
    if op in EXTRA:
        return [Sample(op, args, {}) for args in EXTRA[op](functools.partial(_make, dtype))]
    for ending, other in NUMBERS.items():
        if op.endswith(ending):
            tensors = samples_of(op.removesuffix(ending) + f".{other}", dtype, limit)
            return [_with_number(op, sample, dtype) for sample in tensors]
    if op.startswith("aten.__"):
        return [Sample(op, (_make(dtype, 3, 4), _make(dtype, 4)), {})]
    base = base_name(op)
    infos = [info for name in FROM.get(base, base).split() for info in _table().get(name, [])]
    found: list[Sample] = []
    for composite, info in itertools.product((True, False), infos):
        if dtype in info.dtypes and len(found) < limit:
            calls = (call for call in _calls(info, dtype, composite) if call.op == op)
            found += itertools.islice(calls, limit - len(found))
    return found


def _make(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.testing.make_tensor(shape, dtype=dtype, device="cpu", low=-3, high=3)


def _with_number(op: str, sample: Sample, dtype: torch.dtype) -> Sample:
    number = True if dtype is torch.bool else 2 if not dtype.is_floating_point else 1.5
    return Sample(op, (sample.args[0], number, *sample.args[2:]), sample.kwargs)


def _calls(info: Any, dtype: torch.dtype, composite: bool) -> Iterator[Sample]:
    """Every operator that the samples of an entry call: with composite ones whole, or without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(itertools.islice(info.sample_inputs("cpu", dtype), 40))
    for sample in samples[:: max(len(samples) // 12, 1)]:
        yield from _trace(lambda *a, _s=sample: info.op(*a, **_s.kwargs),
                          (sample.input, *sample.args), composite)  # fmt: skip


def _trace(function: Callable[..., Any], args: Sequence[Any], composite: bool) -> list[Sample]:
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
            module = make_fx(run, pre_dispatch=composite)(*tensors)
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


def static_case(
    sample: Sample, constants: Sequence[str] = (), unused: Sequence[int] = ()
) -> Case | None:
    """The call of a sample.

    Arguments named in `constants` become constants of the graph; results of the numbers `unused`
    are no outputs of it.

    None where torch has no such call: the table above knows nothing of dtypes.
    """
    try:
        return _case(sample, constants, unused, {})
    except InferenceError:
        return None


def dynamic_case(
    sample: Sample, constants: Sequence[str] = (), unused: Sequence[int] = ()
) -> Case | None:
    """The call with sizes that vary, as many as the operator lets; None where it lets none.

    Equal sizes vary together, from what they are in the sample up to twice that. The calls are at
    the least, typical and largest size.
    """
    tensors = [t for t in pytree.tree_leaves((sample.args, sample.kwargs)) if _is_tensor(t)]
    sizes = list(dict.fromkeys(n for t in tensors for n in t.shape if n > 1))
    for varying in [sizes] if len(sizes) < 2 else [sizes, *([n] for n in sizes)]:
        try:
            if varying:
                return _case(sample, constants, unused, {n: 2 * n for n in varying})
        except (RewrightError, RuntimeError):  # torch's own rule asks for the values of a tensor
            continue
    return None


def _is_tensor(item: Any) -> bool:
    return isinstance(item, torch.Tensor)


def _case(
    sample: Sample,
    constants: Sequence[str],
    unused: Sequence[int],
    largest: Mapping[int, int],
) -> Case:
    op = get_op(sample.op)
    named = op.bind(sample.args, sample.kwargs)
    graph, given = Graph("main"), []
    symbols = {n: symbol(f"s{i}") for i, n in enumerate(largest)}

    def put(name: str, item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            if name in constants:
                kind = TensorType(item.dtype, tuple(item.shape))
                return graph.add_constant(f"{name}{len(graph.constants)}", kind, data=item)
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
    graph.set_outputs([x for i, x in enumerate(node.results) if i not in unused])
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
