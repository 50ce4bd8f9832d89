"""Pure forms of mutating ops as operators of torch: their schemas, numbers and shapes."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from rewright.errors import UnsupportedError
from rewright.ir.calls import flat_results
from rewright.ir.dispatched import dispatched_form
from rewright.ir.ops import functional_form, get_op

LIBRARY = torch.library.Library("rewright_dispatched_test", "FRAGMENT")
LIBRARY.define(
    "blend_.by(Tensor(a!) x, Tensor(b!)? y, Tensor(c!)[] zs, SymInt n, *, float f=1., "
    'str s="(a!)", ScalarType? dtype=None) -> (Tensor(a!), Tensor, Tensor[])'
)
LIBRARY.define(
    "inplace_(Tensor(a!) self) -> Tensor(a!)",
    tags=(torch.Tag.needs_fixed_stride_order, torch.Tag.pointwise),
)
LIBRARY.define("scalars_(Scalar x, Tensor(a!)?[] many) -> ()")


def blend_(x, y, zs, n, *, f=1.0, s="(a!)", dtype=None):
    x.add_(n)
    if y is not None:
        y.mul_(f)
    for z in zs:
        z.neg_()
    return x, x.sum(), [z * 2 for z in zs]


LIBRARY.impl("blend_.by", blend_, "CompositeExplicitAutograd")
BLEND = torch.ops.rewright_dispatched_test.blend_.by


def test_the_schema_has_no_aliases_and_returns_what_was_mutated():
    assert str(dispatched_form(functional_form(BLEND))._schema) == (
        "rewright_rewright_dispatched_test::blend_.by(Tensor x, Tensor? y, Tensor[] zs, SymInt n, "
        '*, float f=1., str s="(a!)", ScalarType? dtype=None) '
        "-> (Tensor, Tensor[], Tensor, Tensor[], Tensor[])"
    )


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("fake", [True, False])
def test_it_computes_what_the_functional_form_does(given: bool, fake: bool):
    form = functional_form(BLEND)
    args = [torch.ones(2), torch.ones(3) if given else None, [torch.ones(4), torch.ones(5)], 3]
    expected = flat_results(form.target(*args, f=4.0))
    if fake:
        mode = FakeTensorMode()
        args = [
            mode.from_tensor(a)
            if isinstance(a, torch.Tensor)
            else [mode.from_tensor(z) for z in a]
            if isinstance(a, list)
            else a
            for a in args
        ]
    found = flat_results(dispatched_form(form)(*args, f=4.0))
    assert [t.shape for t in found] == [t.shape for t in expected]
    if not fake:
        assert all(map(torch.equal, found, expected))
        assert args[0].tolist() == [1.0, 1.0], "arguments stay as they are"


def test_one_operator_for_each_op_and_none_for_others():
    form = functional_form(BLEND)
    assert dispatched_form(form) is dispatched_form(form)
    assert dispatched_form(get_op("aten.relu")) is None


def test_tags_say_how_it_is_called():
    form = dispatched_form(functional_form(torch.ops.rewright_dispatched_test.inplace_.default))
    assert set(form.tags) == {torch.Tag.needs_fixed_stride_order}
    assert str(form._schema).endswith("inplace_(Tensor self) -> Tensor")


def test_torch_finds_the_operator_sound():
    form = dispatched_form(functional_form(BLEND))
    args = (torch.ones(2), torch.ones(3), [torch.ones(4)], 3)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(form, args, test_utils=checks)


def test_a_list_that_may_hold_none_is_refused():
    target = torch.ops.rewright_dispatched_test.scalars_.default
    with pytest.raises(UnsupportedError, match="scalars_ mutates 'many'"):
        dispatched_form(functional_form(target))
