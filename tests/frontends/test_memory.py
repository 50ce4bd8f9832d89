"""Whether two strided tensors share a byte; what that means for inputs that are written to."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rewright
from rewright.errors import InputError
from rewright.frontends.memory import share_memory

from .checks import compare_call

BUFFER = torch.zeros(64, dtype=torch.int32)


def places(tensor: torch.Tensor) -> set[int]:
    """The addresses of all bytes, one by one."""
    found = {tensor.data_ptr()}
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        found = {at + i * stride * tensor.itemsize for at in found for i in range(size)}
    return {at + b for at in found for b in range(tensor.itemsize)} if tensor.numel() else set()


@st.composite
def views(draw) -> torch.Tensor:
    """A view of the buffer, of four or of two bytes an element, overlapping itself or not."""
    dims = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=3))
    size, stride = [d[0] for d in dims], [d[1] for d in dims]
    offset = draw(st.integers(0, 9))
    buffer = BUFFER.view(torch.int16) if draw(st.booleans()) else BUFFER
    return torch.as_strided(buffer, size, stride, offset)


@settings(max_examples=400, deadline=None)
@given(views(), views())
def test_it_is_exact(a, b):
    assert share_memory(a, b) == bool(places(a) & places(b))


def test_interleaved_and_nested_layouts():
    x = torch.zeros(8, 6)
    assert not share_memory(x[::2], x[1::2])
    assert not share_memory(x[:, :3], x[:, 3:])
    assert not share_memory(x[:, 1::2], x[:, ::2])
    assert not share_memory(x.t()[:3], x.t()[3:])
    assert share_memory(x[::2], x[::3])
    assert share_memory(x[:, :4], x[:, 3:])
    assert share_memory(x.diagonal(), x[5])
    assert not share_memory(x.diagonal(), x[0, 1:])


def test_two_storages_of_one_memory():
    array = torch.zeros(8).numpy()
    assert share_memory(torch.from_numpy(array), torch.from_numpy(array[4:]))
    assert not share_memory(torch.from_numpy(array[::2]), torch.from_numpy(array[1::2]))


def test_what_is_hard_to_tell_counts_as_shared_and_costs_little():
    # Sums of these strides have no small common divisor: a knapsack.
    primes = [10007, 10009, 10037, 10039, 10061, 10067, 10069, 10079, 10091, 10093, 10099, 10103]
    big = torch.empty(400_000, dtype=torch.int8)
    a = torch.as_strided(big, [3] * 12, primes, 0)
    b = torch.as_strided(big, [3] * 12, [p + 2 for p in primes], 5003)
    start = time.perf_counter()
    share_memory(a, b)
    assert time.perf_counter() - start < 0.5


class Writes(nn.Module):
    def forward(self, x, y):
        x.add_(1)
        return x + y


@pytest.mark.parametrize(
    "cut", [lambda z: (z[::2], z[1::2]), lambda z: (z[:4], z[4:]), lambda z: (z[1::2], z[::2])]
)
def test_inputs_that_lie_between_each_other_are_taken(cut):
    before = rewright.stats()
    program = rewright.compile(Writes(), (torch.zeros(4), torch.ones(4)), on_error="raise")
    z, w = torch.arange(8.0), torch.arange(8.0)
    torch.testing.assert_close(program(*cut(z)), Writes()(*cut(w)))
    torch.testing.assert_close(z, w)
    compare_call(program, Writes(), (torch.zeros(4), torch.ones(4)), {})
    done = rewright.stats() - before
    assert (done.graphs, done.fallbacks, done.nodes) == (1, 0, 2)


def test_inputs_of_which_one_element_is_the_same_are_refused():
    program = rewright.compile(Writes(), (torch.zeros(4), torch.ones(4)), on_error="raise")
    z = torch.zeros(12)
    with pytest.raises(InputError, match="x and y share memory, and the model writes to one"):
        program(z[:8:2], z[6::1][:4])


def test_buffers_that_lie_between_each_other_are_compiled():
    class Buffers(nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.zeros(6)
            self.register_buffer("even", whole[::2])
            self.register_buffer("odd", whole[1::2])

        def forward(self, x):
            self.even += x
            return self.even + self.odd

    module, eager, before = Buffers(), Buffers(), rewright.stats()
    program = rewright.compile(module, (torch.ones(3),), on_error="raise")
    for _ in range(2):
        torch.testing.assert_close(program(torch.ones(3)), eager(torch.ones(3)))
    torch.testing.assert_close(module.odd, torch.zeros(3))
    assert (rewright.stats() - before).fallbacks == 0
