"""Writes through views: every op that torch knows as a view, and the composites that are one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
from torch import nn
from torch.export import Dim

import rewright
from rewright.errors import UnsupportedError

from .checks import export_and_compare

aten = torch.ops.aten


@attrs.frozen
class Sample:
    """A call that makes a view of `x`.

    Attributes:
        args: what follows `x`; or ``(make,)``, which makes the view itself.
        shape, dtype: of `x`.
        varies: whether torch.export can leave the first size open (it can't for conjugates).
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict)
    shape: tuple[int, ...] = (4, 6)
    dtype: torch.dtype = torch.float32
    varies: bool = True

    def view(self, target: Any, x: torch.Tensor) -> torch.Tensor:
        if self.args and callable(self.args[0]):
            made = self.args[0](target, x)
        else:
            made = target(x, *self.args, **self.kwargs)
        return made[1] if isinstance(made, list | tuple) else made

    def tensor(self, first: int | None = None) -> torch.Tensor:
        shape = (first or self.shape[0], *self.shape[1:]) if self.shape else ()
        return torch.randn(shape, dtype=self.dtype)


def S(*args: Any, **kwargs: Any) -> Sample:
    own = {k: kwargs.pop(k) for k in ("shape", "dtype", "varies") if k in kwargs}
    return Sample(args, kwargs, **own)


COMPLEX = torch.complex64
CUBE = (4, 2, 6)
F32 = torch.float32

VIEWS: dict[str, Sample] = {
    "_conj": S(dtype=COMPLEX, varies=False),
    "_neg_view": S(varies=False),
    "_reshape_alias": S((6, 4), (4, 1), varies=False),
    "adjoint": S(dtype=COMPLEX, varies=False),
    "alias": S(),
    "as_strided": S((2, 3), (6, 1), 1, varies=False),
    "broadcast_to": S(lambda op, x: op(x, x.shape)),
    "chunk": S(2, 1),
    "conj": S(dtype=COMPLEX, varies=False),
    "contiguous": S(),
    "detach": S(),
    "diagonal": S(1),
    "dsplit.array": S([1, 4], shape=CUBE),
    "dsplit.int": S(3, shape=CUBE),
    "expand": S(lambda op, x: op(x, x.shape)),
    "expand_as": S(lambda op, x: op(x, x + 1)),
    "flatten.using_ints": S(),
    "hsplit.array": S([1, 4]),
    "hsplit.int": S(3),
    "imag": S(dtype=COMPLEX),
    "linalg_diagonal": S(offset=1, shape=CUBE),
    "mH": S(dtype=COMPLEX, varies=False),
    "mT": S(shape=CUBE),
    "matrix_H": S(dtype=COMPLEX, varies=False),
    "moveaxis.int": S(0, 2, shape=CUBE),
    "moveaxis.intlist": S([0, 1], [2, 0], shape=CUBE),
    "movedim.int": S(0, 2, shape=CUBE),
    "movedim.intlist": S([0, 1], [2, 0], shape=CUBE),
    "narrow": S(1, 2, 3),
    "numpy_T": S(shape=CUBE),
    "permute": S([1, 2, 0], shape=CUBE),
    "positive": S(),
    "ravel": S(),
    "real": S(dtype=COMPLEX),
    "reshape": S((-1, 3)),
    "reshape_as": S(lambda op, x: op(x, x.T + 1)),
    "resolve_conj": S(),
    "resolve_neg": S(),
    "select.int": S(1, -2),
    "slice.Tensor": S(1, 1, 6, 2),
    "split.Tensor": S(2, 1),
    "split.sizes": S([1, 3, 2], 1),
    "split_with_sizes": S([1, 3, 2], 1),
    "squeeze": S(shape=(4, 1, 6)),
    "squeeze.dim": S(1, shape=(4, 1, 6)),
    "squeeze.dims": S([1, 2], shape=(4, 1, 1)),
    "swapaxes": S(0, 1),
    "swapdims": S(0, 1),
    "t": S(),
    "tensor_split.indices": S([1, 4], 1),
    "tensor_split.sections": S(4, 1),
    "to.device": S("cpu", F32),
    "to.dtype": S(F32),
    "to.dtype_layout": S(dtype=F32),
    "to.other": S(lambda op, x: op(x, x + 1)),
    "transpose.int": S(0, 1),
    "unbind.int": S(1),
    "unflatten.int": S(1, (2, 3)),
    "unfold": S(1, 2, 3),
    "unsqueeze": S(1),
    "view": S((-1, 3)),
    "view.dtype": S(torch.int32),
    "view_as": S(lambda op, x: op(x, x + 1)),
    "view_as_complex": S(shape=(4, 2)),
    "view_as_real": S(dtype=COMPLEX),
    "vsplit.array": S([1, 3], varies=False),
    "vsplit.int": S(2, varies=False),
    # not in their schemas
    "atleast_1d": S(shape=()),
    "atleast_2d": S(shape=(4,)),
    "atleast_3d": S(),
    "atleast_3d.Sequence": S(lambda op, x: op([x + 1, x])),
    "broadcast_tensors": S(lambda op, x: op([x[0], x])),
    "conj_physical": S(),
    "dropout": S(0.5, False),
    "sum_to_size": S(lambda op, x: op(x, x.shape)),
    "type_as": S(lambda op, x: op(x, x + 1)),
    "unsafe_chunk": S(2, 1),
    "unsafe_split.Tensor": S(2, 1),
    "unsafe_split_with_sizes": S([1, 3, 2], 1),
}
"""For every op that gives its operand's memory back: a call."""

ELSEWHERE = {
    "of sparse tensors": "_indices _sparse_broadcast_to _values ccol_indices coalesce col_indices "
    "crow_indices indices row_indices values",
    "of nested tensors": "_nested_get_values _nested_view_from_buffer _nested_view_from_jagged",
    "of autograd and autocast": "_fw_primal _make_dual _unpack_dual _autocast_to_full_precision "
    "_autocast_to_reduced_precision slice_inverse",
    "of named tensors": "align_as align_to align_to.ellipsis_idx diagonal.Dimname "
    "flatten.DimnameList flatten.named_out_dim flatten.using_names refine_names rename "
    "select.Dimname squeeze.dimname transpose.Dimname unbind.Dimname unflatten.Dimname",
    "of torch's own tests": "_test_autograd_multiple_dispatch_view",
    "that torch.export makes a copy of": "lift_fresh",
    "of a GPU's host memory": "pin_memory",
    "with places known at run time, which torch.export can't trace": "narrow.Tensor",
    "with sizes known at run time, refused below": "tensor_split.tensor_indices_or_sections",
}
"""View ops that no inference program has, or that another test is about."""


def schemas_of_views() -> Iterator[str]:
    """The ops of aten that mutate nothing and whose results alias an argument."""
    for full in torch._C._dispatch_get_all_op_names():
        if not full.startswith("aten::"):
            continue
        name, _, overload = full.removeprefix("aten::").partition(".")
        schema = torch._C._get_schema(f"aten::{name}", overload)
        if not schema.is_mutable and any(r.alias_info is not None for r in schema.returns):
            yield f"{name}.{overload}" if overload else name


def test_every_view_of_torch_is_tried_or_named():
    known = {*VIEWS, *(name for names in ELSEWHERE.values() for name in names.split())}
    assert set(schemas_of_views()) - known == set()


def target(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


class Writes(nn.Module):
    """Writes through a view to an input, or to a value; a second view sees it."""

    def __init__(self, name: str, sample: Sample, computed: bool) -> None:
        super().__init__()
        self.name, self.sample, self.computed = name, sample, computed

    def forward(self, x):
        base = x + 1 if self.computed else x
        other = self.sample.view(target(self.name), base)
        v = self.sample.view(target(self.name), base)
        v.add_(1)
        v.copy_(v * v)
        v.mul_(2)
        return base, v, other + 0


@pytest.mark.parametrize("of", ["input", "value"])
@pytest.mark.parametrize("name", VIEWS)
def test_writes_go_through(name, of):
    sample = VIEWS[name]
    dynamic = sample.varies and sample.shape != ()
    export_and_compare(
        Writes(name, sample, of == "value"),
        (sample.tensor(),),
        *([(sample.tensor(5),)] if dynamic else []),
        dynamic_shapes=({0: Dim.DYNAMIC},) if dynamic else None,
        on_error="raise",
    )


def test_a_view_that_a_composite_hides_is_written_through():
    class Grid(nn.Module):
        def forward(self, x):
            base = x + 1
            torch.meshgrid(base[:1], base, indexing="ij")[1].mul_(2)
            return base

    export_and_compare(Grid(), (torch.randn(4),), on_error="raise")


REFUSED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "expand": (lambda x: x[0].expand(3, 6), "aten.expand.*repeats elements"),
    "broadcast_to": (lambda x: x[0].broadcast_to(3, 6), "aten.broadcast_to.*repeats elements"),
    "meshgrid": (lambda x: torch.meshgrid(x[0], x[1], indexing="ij")[0], "aten.meshgrid.indexing"),
    "unfold": (lambda x: x.unfold(1, 3, 1), "aten.unfold.*its windows overlap"),
    "einsum": (lambda x: torch.einsum("ij->ji", x), "aten.einsum, which has no inverse"),
}


def test_a_write_through_a_split_at_places_in_a_tensor_is_refused():
    class Net(nn.Module):
        def forward(self, x, at):
            torch.tensor_split(x, at, 1)[0].add_(1)
            return x

    exported = torch.export.export(Net(), (torch.randn(4, 6), torch.tensor([1, 3])))
    with pytest.raises(UnsupportedError, match="tensor_indices_or_sections, which has no inverse"):
        rewright.compile_exported(exported)


@pytest.mark.parametrize("name", REFUSED)
def test_a_write_that_has_no_place_is_refused_by_op_and_line(name):
    make, message = REFUSED[name]

    class Net(nn.Module):
        def forward(self, x):
            make(x).zero_()
            return x

    exported = torch.export.export(Net(), (torch.randn(4, 6),))
    with pytest.raises(UnsupportedError, match=message) as error:
        rewright.compile_exported(exported)
    assert "test_views.py" in str(error.value)
    assert error.value.hint


# --------------------------------------------------------------------------- the same tensor

RENAMES: dict[str, Callable[[torch.Tensor], Any]] = {
    "itself": lambda x: x,
    "view": lambda x: x.view(4, 6),
    "view_as": lambda x: x.view_as(x),
    "reshape": lambda x: x.reshape(4, 6),
    "detach": lambda x: x.detach(),
    "index": lambda x: x[...],
    "slice": lambda x: x[:],
    "expand": lambda x: x.expand(4, 6),
    "expand_as": lambda x: x.expand_as(x),
    "broadcast_to": lambda x: x.broadcast_to(4, 6),
    "contiguous": lambda x: x.contiguous(),
    "to": lambda x: x.to(torch.float32),
    "type_as": lambda x: x.type_as(x),
    "flatten": lambda x: x.flatten(1),
    "dropout": lambda x: torch.dropout(x, 0.5, False),
    "atleast_2d": lambda x: torch.atleast_2d(x),
    "real": lambda x: x.view_as(x).real,
    "movedim": lambda x: x.movedim(0, 0),
    "clone": lambda x: x.clone(),
    "in place": lambda x: x.mul_(2),
    "twice": lambda x: (x[...], x, x[...].view(4, 6), x.contiguous()),
    "of each other": lambda x: [y := x * 2, y, y[...], y.view(4, 6), y.t(), y.t()[...]],
}


def identities(results: list[torch.Tensor], x: torch.Tensor) -> list[int]:
    """For every result the number of the first tensor, counted from `x`, that it is."""
    tensors = [x, *results]
    return [next(n for n, other in enumerate(tensors) if other is item) for item in results]


@pytest.mark.parametrize("name", RENAMES)
def test_outputs_are_the_same_objects_as_in_eager(name):
    function = RENAMES[name]

    class Net(nn.Module):
        def forward(self, x):
            made = function(x)
            return made if isinstance(made, list | tuple) else [made]

    before = rewright.stats()
    program = rewright.compile(Net(), (torch.randn(4, 6),), on_error="raise")
    done = rewright.stats() - before
    assert (done.graphs, done.fallbacks, done.nodes) == (1, 0, len(program.graph))
    ours, theirs = torch.randn(4, 6), torch.randn(4, 6)
    actual, expected = program(ours), Net()(theirs)
    assert identities(list(actual), ours) == identities(list(expected), theirs)
    places = [item.data_ptr() == ours.data_ptr() for item in actual]
    assert places == [item.data_ptr() == theirs.data_ptr() for item in expected]


@pytest.mark.parametrize("name", ["itself", "view_as", "detach", "index"])
def test_a_compiled_function_returns_new_tensors_where_eager_does(name):
    torch.compiler.reset()
    function = RENAMES[name]
    compiled = torch.compile(
        lambda x: (function(x), x + 1), backend="rewright", options={"on_error": "raise"}
    )
    before, x = rewright.stats(), torch.randn(4, 6)
    result = compiled(x)[0]
    assert (result is x) == (function(x) is x)
    assert result.data_ptr() == x.data_ptr()
    done = rewright.stats() - before
    assert done.fallbacks == 0
    assert done.nodes > 0
