"""Each rule for a type against the reference of its op, run on fake tensors."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewright.errors import InferenceError
from rewright.ir import inference
from rewright.ir.builder import bind_operands
from rewright.ir.graph import Graph
from rewright.ir.ops import get_op
from rewright.ir.sizes import Range
from rewright.ir.type_rules import _RULES, plain_type
from rewright.ir.types import TensorType
from tests.ir.building import S0, S1, f32, flag

RANGES = {S0: (Range(2, 8, 32),), S1: (Range(2, None, 64),)}


def half(*shape):
    return TensorType(torch.float16, shape)


def both(op, *args, **kwargs):
    """What the rule says, and what the reference does: its type, or None where it refuses."""
    found, graph = get_op(op), Graph()

    def value(item):
        return graph.add_input(item) if isinstance(item, TensorType) else item

    named = found.bind([value(a) for a in args], {k: value(a) for k, a in kwargs.items()})
    operands, attributes, _ = bind_operands(named)
    types = tuple(operand.type for operand in operands)
    try:
        (run,) = inference._memoized(found, attributes, types, RANGES, "cpu").types
    except InferenceError:
        run = None
    return plain_type(op, attributes, types), run


PLAIN = [
    ("rw.linear", f32(S0, 5, 8), f32(3, 8)),
    ("rw.linear", half(8), half(3, 8), half(3)),
    ("rw.linear", f32(2, S1), f32(S0, S1), f32(S0)),
    ("rw.layer_norm", half(2, S0, 8), f32(8), f32(8)),
    ("rw.layer_norm", f32(2, 5, 8), f32(5, 8), None, 2),
    ("rw.rms_norm", half(S0, 8), half(8)),
    ("rw.rms_norm", f32(8)),
    ("rw.group_norm", half(S0, 6, 4, 4), half(6), f32(6), 3),
    ("rw.group_norm", f32(2, 6), None, None, 2),
    ("rw.attention", half(S0, 4, 7, 8), half(S0, 4, 9, 8), half(S0, 4, 9, 6)),
    ("rw.attention", f32(4, 7, 8), f32(2, 9, 8), f32(2, 9, 8), flag(7, 9)),
    ("rw.attention", f32(2, 4, S0, 8), f32(2, 4, S1, 8), f32(2, 4, S1, 8), half(2, 1, 1, S1)),
    ("rw.attention", f32(2, 4, S0, 8), f32(2, 1, S0, 8), f32(2, 1, S0, 8), flag(1)),
]


def call(op, *args):
    """The arguments of a case, those by name as torch takes them."""
    names = {"rw.layer_norm": ("dims", 3), "rw.group_norm": ("groups", 3)}
    if op in names and len(args) > names[op][1]:
        name, at = names[op]
        return op, args[:at], {name: args[at]}
    return op, args, {}


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_a_rule_tells_the_type_of_a_plain_call(case):
    op, args, named = call(*case)
    told, run = both(op, *args, **named)
    assert told == run
    assert told is not None


def test_every_rule_has_a_plain_call():
    assert {op for op, *_ in PLAIN} == {*_RULES}


WRONG = st.sampled_from(["size", "dtype", "rank", "device", "dims"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_rule_says_what_the_reference_says_or_nothing(data):
    """Plain calls with one thing changed: sizes, dtypes, ranks, devices, attributes."""
    op, args, named = call(*data.draw(st.sampled_from(PLAIN)))
    held = [at for at, item in enumerate(args) if isinstance(item, TensorType)]
    at, what = data.draw(st.sampled_from(held)), data.draw(WRONG)
    item = args[at]
    if what == "size" and item.rank:
        dim = data.draw(st.integers(0, item.rank - 1))
        size = data.draw(st.sampled_from([0, 1, 2, 3, 8, 12, S0, S1]))
        shape = (*item.shape[:dim], size, *item.shape[dim + 1 :])
        item = TensorType(item.dtype, shape, item.device)
    elif what == "dtype":
        other = data.draw(st.sampled_from([torch.bool, torch.int64, torch.float64, torch.float16]))
        item = TensorType(other, item.shape, item.device)
    elif what == "rank":
        shape = data.draw(st.sampled_from([item.shape[1:], (1, *item.shape), (2, *item.shape)]))
        item = TensorType(item.dtype, shape, item.device)
    elif what == "device":
        item = TensorType(item.dtype, item.shape, "meta")
    elif named:
        named = {name: data.draw(st.integers(-1, 5)) for name in named}
    told, run = both(op, *args[:at], item, *args[at + 1 :], **named)
    if told is not None:
        assert told == run
