"""Every binding that generated code may use computes what the overload computes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from rewright.backends.torch.calls import Argument, binding_of
from rewright.ir.ops import get_op
from tests.backends.torch.overloads import overloads_of

NAMESPACE = {
    "torch": torch,
    "inf": math.inf,
    "nan": math.nan,
    **{
        name: getattr(torch._C, name)
        for name in ("_VariableFunctions", "_nn", "_linalg", "_fft", "_special")
    },
}


def argument(value: Any, names: dict[str, Any]) -> Argument:
    """`value` as generated code gives it: tensors by name, anything else as a literal."""
    if isinstance(value, Tensor):
        name = f"t{len(names)}"
        names[name] = value
        sample = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return Argument(name, sample)
    if isinstance(value, list | tuple):
        parts = [argument(item, names) for item in value]
        texts = tuple(part.text for part in parts)
        text = f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
        return Argument(text, tuple(part.sample for part in parts), texts)
    if isinstance(value, torch.device):
        return Argument(f"torch.device({str(value)!r})", value)
    return Argument(repr(value), value)


def call(name: str, *args: Any, **kwargs: Any) -> tuple[str | None, Any]:
    """The source that is used for a call, and what it gives."""
    names: dict[str, Any] = {}
    given = [argument(arg, names) for arg in args]
    named = {key: argument(arg, names) for key, arg in kwargs.items()}
    binding = binding_of(get_op(name), given, named)
    if binding is None:
        return None, None
    text = binding.call(given, named)
    return text, eval(text, {**NAMESPACE, **names})


X = torch.randn(3, 4)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "text"),
    [
        ("aten.relu", (X,), {}, "torch.relu(t0)"),
        ("aten.add.Tensor", (X, X), {"alpha": 2}, "torch.add(t0, t1, alpha=2)"),
        ("aten.add.Tensor", (X, 2.5), {}, "torch.add(t0, 2.5)"),
        ("aten.linear", (X, torch.randn(2, 4)), {}, "_nn.linear(t0, t1)"),
        ("aten.linalg_det", (X[:, :3],), {}, "_linalg.linalg_det(t0)"),
        ("aten.fft_fft", (X,), {}, "_fft.fft_fft(t0)"),
        ("aten.special_erfcx", (X,), {}, "_special.special_erfcx(t0)"),
        ("aten.expand", (X, (2, 3, 4)), {}, "t0.expand(2, 3, 4)"),
        ("aten.sum.dim_IntList", (X, (1,), True), {}, "torch.sum(t0, 1, True)"),
        ("aten.split.Tensor", (X, 2), {"dim": 1}, "_VariableFunctions.split(t0, 2, dim=1)"),
        ("aten.pow.Scalar", (2, X), {}, "torch.pow(2, t0)"),
    ],
)
def test_a_call_reads_like_torch(name, args, kwargs, text):
    assert call(name, *args, **kwargs)[0] == text


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("aten.mul.Scalar", (X, 2)),  # torch.mul(x, 2) is mul.Tensor
        ("aten.slice.Tensor", (X, 1, 0, 2)),  # there is no function of that name
        ("aten._local_scalar_dense", (X[0, 0],)),
        ("prims.sin", (X,)),
    ],
)
def test_what_is_another_operator_is_not_used(name, args):
    assert call(name, *args) == (None, None)


def test_the_operator_decides_and_not_the_name():
    """One name, several overloads: ``max`` of a tensor, along a dimension, of two tensors."""
    for name, args in (("aten.max", (X,)), ("aten.max.dim", (X, 1)), ("aten.max.other", (X, X))):
        text, value = call(name, *args)
        assert text.startswith("torch.max(")
        assert_same(value, get_op(name).target(*args))


# --------------------------------------------------------------------------- all of torch


def assert_same(actual: Any, expected: Any) -> None:
    """Equal to the last bit, in the same memory layout."""
    ours, theirs = pytree.tree_leaves(tuple_of(actual)), pytree.tree_leaves(tuple_of(expected))
    assert len(ours) == len(theirs)
    for a, e in zip(ours, theirs, strict=True):
        if isinstance(e, Tensor):
            assert (a.dtype, a.layout) == (e.dtype, e.layout)
            if a.layout is torch.strided:
                assert a.stride() == e.stride()
            torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)
        else:
            assert type(a) is type(e)
            assert a == e or (a != a and e != e)


def tuple_of(value: Any) -> Any:
    """Named tuples as plain ones."""
    return tuple(value) if isinstance(value, tuple) else value


def is_settled(target: OpOverload, args: Any, kwargs: Any, expected: Any) -> bool:
    """Whether the operator itself gives the same bits twice (LAPACK's gelsy does not)."""
    torch.manual_seed(7)
    try:
        assert_same(target(*args, **kwargs), expected)
    except AssertionError:
        return False
    return True


def check(op: Any) -> set[str]:
    """Compares the overloads behind `op` that have a binding; their names."""
    bound: set[str] = set()
    for target, args, kwargs in overloads_of(op):
        if "empty" in str(target):
            continue  # what is in new memory is anybody's guess
        torch.manual_seed(7)
        text, value = call(get_op(target).name, *args, **kwargs)
        if text is None:
            continue
        torch.manual_seed(7)
        expected = target(*args, **kwargs)
        if is_settled(target, args, kwargs, expected):
            assert_same(value, expected)
            bound.add(str(target))
    return bound


@pytest.mark.filterwarnings("ignore")
def test_bindings_compute_what_overloads_do_on_some():
    """A fortieth of torch's own table of operators with sample inputs."""
    assert len(set().union(*map(check, op_db[::40]))) > 10


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
@pytest.mark.filterwarnings("ignore")
def test_bindings_compute_what_overloads_do(part):
    """A sixth of the table; about 560 overloads have a binding in all of it."""
    assert len(set().union(*map(check, op_db[part::6]))) > 100
