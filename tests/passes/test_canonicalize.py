"""Canonicalization in whole compiles, and what its rules must not take for granted."""

from collections.abc import Iterator

import pytest
import torch

import rewright
from rewright.passes import Pipeline, Rule, apply_rules, aten
from rewright.passes.registry import all_rules
from rewright.passes.simplify import casts, identities, logic, scalars, shapes, slices
from rewright.passes.simplify.canonicalize import Canonicalize
from rewright.passes.simplify.casts import is_lossless
from tests.frontends.jit import compiles, jit
from tests.passes.graphs import graph, ops

SUBJECTS = (identities, casts, shapes, slices, logic, scalars)
PIPELINE = {"pipeline": "default,canonicalize,fold-constants,dce"}


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda module: module.__name__.split(".")[-1])
def test_every_rule_is_in_the_pass(subject):
    declared = {
        item
        for item in vars(subject).values()
        if isinstance(item, type)
        and item.__module__ == subject.__name__
        and item.__dict__.get("name")
    }
    assert declared == set(subject.RULES)
    assert declared <= set(Canonicalize.rules)
    assert all(all_rules()[rule.name] is rule for rule in declared)


def test_what_is_left_of_an_input_is_no_alias_of_it():
    """Eager gives a tensor of its own for ``x * 1``; writing to it must not write to x."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 3))

        def forward(self, x: torch.Tensor):
            turned = x.transpose(0, 1).transpose(0, 1)
            return x * 1, turned, torch.relu(x) * 1, self.weight * 1, self.weight.t()

    model, x = Model().eval(), torch.randn(4, 3)
    program = rewright.compile_exported(torch.export.export(model, (x,)), **PIPELINE)
    assert ops(program.graph) == ["aten.relu"]
    with torch.no_grad(), compiles(1):
        compiled = jit(model, options=PIPELINE)
        for found in (program(x), compiled(x)):
            owners = [memory(item) for item in found]
            known = {memory(x): "x", memory(model.weight): "weight"}
            names = [known.get(owner) for owner in owners]
            assert names == [None, "x", None, None, "weight"]
            assert len(set(owners)) == 5
            torch.testing.assert_close(found, model(x), check_stride=True)


def memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("narrow", [*casts._MANTISSA, *casts._MAGNITUDE], ids=str)
@pytest.mark.parametrize("wide", [*casts._MANTISSA, *casts._MAGNITUDE], ids=str)
def test_a_lossless_cast_gives_back_every_number(narrow: torch.dtype, wide: torch.dtype):
    found = numbers_of(narrow)
    back = found.to(wide).to(narrow)
    keeps = torch.equal(found.nan_to_num(7), back.nan_to_num(7))
    assert not is_lossless(narrow, wide) or keeps
    if narrow.itemsize <= 2 and not narrow.is_floating_point and not wide.is_floating_point:
        assert is_lossless(narrow, wide) == (keeps and fits(found, wide)), "it could be lossless"


def numbers_of(dtype: torch.dtype) -> torch.Tensor:
    """All numbers of a dtype of up to two bytes, the limits of a larger one."""
    if dtype is torch.bool:
        return torch.tensor([False, True])
    if dtype.itemsize <= 2:
        bits = torch.arange(2 ** (8 * dtype.itemsize)).to(
            {1: torch.uint8, 2: torch.int16}[dtype.itemsize]
        )
        return bits.view(dtype)
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    extra = (info.eps, 1 + info.eps, info.tiny) if dtype.is_floating_point else (info.max // 3,)
    return torch.tensor([info.min, info.max, 0, 1, *extra], dtype=dtype)


def fits(numbers: torch.Tensor, wide: torch.dtype) -> bool:
    """Whether a cast keeps the numbers themselves, and not only the way back."""
    return torch.equal(numbers.to(torch.int64), numbers.to(wide).to(torch.int64))


def test_rules_can_be_left_out():
    made = graph("%a = aten.mul.Tensor(%x, 1) : f32[4, 4]\nreturn %a : f32[4, 4]")
    Pipeline.parse("canonicalize{without=[drop-neutral-operand]}").run(made)
    assert ops(made) == ["aten.mul.Tensor"]
    Pipeline.parse("canonicalize{only=[drop-neutral-operand]}").run(made)
    assert ops(made) == []


def test_a_zero_in_a_pattern_is_no_negative_zero():
    class DropZero(Rule):
        """x + 0  ->  relu(x)"""

        def pattern(self, x):
            return x + 0

        def replace(self, x):
            return aten.relu(x)

    for number, fires in ((0, True), (0.0, True), (-0.0, False)):
        made = graph(f"%a = aten.add.Tensor(%x, {number}) : f32[4, 4]\nreturn %a : f32[4, 4]")
        assert apply_rules(made, [DropZero]).changed == fires, number
