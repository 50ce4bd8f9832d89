"""Calls of torch operators with sample arguments.

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

from rewright.ir.ops import op_name

DTYPES: Final = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.uint8,
)
"""What tensors of samples are: all that TensorRT computes with, and what it only casts."""

MIXED: Final = {
    torch.float32: torch.int64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float16,
    torch.int64: torch.float32,
    torch.int32: torch.int64,
    torch.bool: torch.float32,
}
"""What a second operand is, beside a first one of each dtype, where torch promotes."""

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
    "prims.broadcast_in_dim": lambda t: [(t(3, 1), (2, 3, 4), (1, 2)), (t(), (2, 3), ())],
    "prims.convert_element_type": lambda t: [
        (t(3, 4), dtype) for dtype in (torch.float16, torch.int32, torch.bool, torch.uint8)
    ],
    "prims.div": lambda t: [(t(3, 4), t(3, 4)), (t(3, 4), 2)],
    "prims.sum": lambda t: [(t(3, 4, 5), [0, 2]), (t(3), None), (t(3), [0])],
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
def _table() -> dict[str, list[int]]:
    """The numbers of the entries of torch's table, by each name of theirs."""
    found: dict[str, list[int]] = {}
    for number, info in enumerate(op_db):
        for name in {info.name, info.name.rpartition(".")[2], info.aten_name}:
            found.setdefault(name, []).append(number)
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
    entries = [e for name in FROM.get(base, base).split() for e in _table().get(name, [])]
    found: list[Sample] = []
    for composite, entry in itertools.product((True, False), entries):
        if dtype in op_db[entry].dtypes and len(found) < limit:
            calls = (call for call in _calls(entry, dtype, composite) if call.op == op)
            found += itertools.islice(calls, limit - len(found))
    return found


def mixed(sample: Sample, dtype: torch.dtype) -> Sample | None:
    """A sample in which every tensor of `dtype` but the first is another; None: there is none."""
    leaves, spec = pytree.tree_flatten((sample.args, dict(sample.kwargs)))
    at = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor) and x.dtype is dtype]
    if len(at) < 2 or dtype not in MIXED:
        return None
    put = [x.to(MIXED[dtype]) if i in at[1:] else x for i, x in enumerate(leaves)]
    args, kwargs = pytree.tree_unflatten(put, spec)
    return Sample(sample.op, args, kwargs)


def _make(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.testing.make_tensor(shape, dtype=dtype, device="cpu", low=-3, high=3)


def _with_number(op: str, sample: Sample, dtype: torch.dtype) -> Sample:
    number = True if dtype is torch.bool else 2 if not dtype.is_floating_point else 1.5
    return Sample(op, (sample.args[0], number, *sample.args[2:]), sample.kwargs)


def _calls(entry: int, dtype: torch.dtype, composite: bool) -> Iterator[Sample]:
    """Every operator that the samples of an entry call: with composite ones whole, or without."""
    for number in range(len(_samples(entry, dtype))):
        yield from _traced(entry, dtype, composite, number)


@functools.lru_cache(maxsize=64)
def _samples(entry: int, dtype: torch.dtype) -> list[Any]:
    """About a dozen of the samples of an entry, and the same ones whoever asks."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        samples = list(itertools.islice(op_db[entry].sample_inputs("cpu", dtype), 40))
    return samples[:: max(len(samples) // 12, 1)]


@functools.lru_cache(maxsize=1024)
def _traced(entry: int, dtype: torch.dtype, composite: bool, number: int) -> list[Sample]:
    """What one sample calls."""
    sample = _samples(entry, dtype)[number]

    def run(*args: Any) -> Any:
        return op_db[entry].op(*args, **sample.kwargs)

    return _trace(run, (sample.input, *sample.args), composite)


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
