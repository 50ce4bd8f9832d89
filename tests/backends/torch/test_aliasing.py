"""What may share memory is known before a program runs."""

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from rewright.backends.torch.implementations import implementations
from rewright.ir.aliasing import FRESH_OURS, may_alias, may_lend, roots_of
from rewright.ir.ops import get_op
from rewright.ir.parser import parse_graph
from tests.backends.torch.overloads import overloads_of

TEXT = """
graph @main(%x: f32[4, 4], %y: f32[4, 4]) -> f32[4, 4] {
  %add = aten.add.Tensor(%x, %y) : f32[4, 4]
  %t = aten.transpose.int(%x, 0, 1) : f32[4, 4]
  %r = aten.reshape(%t, [16]) : f32[16]
  %a, %b = aten.split.Tensor(%add, 2) : f32[2, 4], f32[2, 4]
  %d = aten.type_as(%x, %y) : f32[4, 4]
  %l = aten.linear(%x, @w) : f32[4, 4]
  %e = aten.expand_as(%x, %y) : f32[4, 4]
  %p = rw.rope(%x, %y, %y) : f32[4, 4]
  %o = rw.layout(%x, [1, 4]) : f32[4, 4]
  return %add
}
constants { parameter @w : f32[4, 4] }
"""


def test_roots_follow_views():
    graph = parse_graph(TEXT)
    x, y = graph.inputs
    roots = {v.hint: set(r) for v, r in roots_of(graph).items()}
    assert roots["x"] == {x}
    assert x not in roots["add"]
    assert roots["t"] >= {x}
    assert roots["r"] >= {x}
    assert y not in roots["r"]
    assert roots["a"] & roots["b"] & roots["add"], "two parts of one tensor"
    assert not roots["l"] & {x, y, graph.constants["w"]}, "a product is new"
    assert roots["d"] >= {x}, "a composite may return its argument"
    assert roots["o"] >= {x}, "and so may a reference of ours"
    assert not roots["p"] & {x, y}, "unless it is known not to"


def lenders(name, args, kwargs) -> set[tuple[int, str]]:
    """For each result that is in an argument's memory, its number and the argument's name."""
    op = get_op(name)
    named = op.bind(args, kwargs)
    returned = op.target(*args, **kwargs)
    results = pytree.tree_leaves(list(returned) if isinstance(returned, tuple) else returned)
    found = set()
    for number, result in enumerate(results):
        for param, value in named.items():
            for leaf in pytree.tree_leaves(value):
                if is_memory(leaf) and is_memory(result) and torch._C._is_alias_of(leaf, result):
                    found.add((number, param))
    return found


def is_memory(value) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.numel() > 0


def undeclared(op) -> set[str]:
    """The overloads behind an entry of torch's table that alias more than is known of them."""
    found = set()
    for target, args, kwargs in overloads_of(op):
        known = get_op(target)
        for number, param in lenders(known.name, args, kwargs):
            if not (may_alias(known, number) and may_lend(known, param)):
                found.add(f"{known.name}: result {number} is {param}")
    return found


@pytest.mark.filterwarnings("ignore")
def test_nothing_aliases_unknown_to_us_on_some():
    """A fortieth of torch's own table of operators with sample inputs."""
    assert set().union(*map(undeclared, op_db[7::40])) == set()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
@pytest.mark.filterwarnings("ignore")
def test_nothing_aliases_unknown_to_us(part):
    """A sixth of the table."""
    assert set().union(*map(undeclared, op_db[part::6])) == set()


def test_views_and_composites_are_seen_to_alias():
    """The test above would pass if nothing ever aliased; it does."""
    x = torch.randn(2, 3)
    assert lenders("aten.transpose.int", (x, 0, 1), {}) == {(0, "self")}
    assert lenders("aten.type_as", (x, x.clone()), {}) == {(0, "self")}
    assert lenders("aten.neg", (x,), {}) == set()


X = torch.randn(1, 4, 6, 6)
OURS = {
    "rw.linear": (X, torch.eye(6)),
    "rw.matmul": (X, torch.eye(6)),
    "rw.conv": (X, torch.randn(4, 4, 1, 1)),
    "rw.conv_relu": (X, torch.randn(4, 4, 1, 1)),
    "rw.attention": (X, X, X),
    "rw.layer_norm": (X,),
    "rw.rms_norm": (X,),
    "rw.group_norm": (X,),
    "rw.rope": (X, torch.ones(6, 6), torch.zeros(6, 6)),
    "rw.gated": (X, torch.ones_like(X)),
}


CONV = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}


@pytest.mark.parametrize("name", sorted(FRESH_OURS))
def test_ops_of_ours_that_are_new_whatever_computes_them(name: str):
    named = {"rw.group_norm": {"groups": 2}, "rw.conv": CONV, "rw.conv_relu": CONV}.get(name, {})
    functions = [get_op(name).target]
    functions += [item.function for item in implementations() if item.op == name]
    for function in functions:
        made = function(*OURS[name], **named)
        for given in OURS[name]:
            assert made.untyped_storage().data_ptr() != given.untyped_storage().data_ptr()
