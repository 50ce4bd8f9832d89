"""Views and mutations: what eager does to memory, the compiled program does too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rewright
from rewright.errors import InputError, UnsupportedError

from .checks import export_and_compare


class Case(nn.Module):
    """A module with two buffers, for functions that use them."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("cache", torch.zeros(4, 6))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.function(self, x)


def add_in_place(m, x):
    y = x * 2
    y.add_(1)
    return y


def write_through_views(m, x):
    y = x + 1
    y[0].mul_(3)
    y[:, 1:4].zero_()
    y.view(-1)[2:5].add_(7)
    y.t()[3].fill_(0.5)
    return y


def old_views_see_new_values(m, x):
    y = x + 1
    row, flat = y[1], y.view(2, 12)
    y.mul_(2)
    return row + 1, flat.sum()


def write_through_a_split(m, x):
    y = x + 1
    a, b, c = y.split([1, 2, 1])
    b.mul_(10)
    u, v = y.chunk(2, dim=1)
    v.neg_()
    p = y.unbind(0)
    p[3].fill_(9)
    return y, a, b, c, u


def write_through_a_permutation(m, x):
    y = (x + 1).view(2, 2, 6)
    z = y.permute(2, 0, 1)
    z[1].add_(5)
    z.transpose(0, 2)[0].mul_(2)
    y.unsqueeze(1).squeeze(1).sub_(1)
    return y, z


def write_a_diagonal(m, x):
    y = x + 1
    y.diagonal().fill_(0)
    y[:, :4].diagonal(1).add_(3)
    return y


def write_to_an_input(m, x):
    x.add_(1)
    x[0].zero_()
    return x * 2


def write_to_an_input_and_return_it(m, x):
    x.mul_(2)
    return x, x[1]


def write_to_a_buffer(m, x):
    m.cache.add_(x)
    m.count += 1
    return m.cache * 2, m.count.clone()


def write_to_a_slice_of_a_buffer(m, x):
    m.cache[:, 1:3] = x[:, 1:3]
    m.cache[2] = 5
    return m.cache.sum()


def index_put(m, x):
    y = x.clone()
    y[torch.tensor([0, 2])] = 1.0
    y[:, torch.tensor([1, 3])] += 2.0
    y[x > 0] = -1.0
    return y


def scatter_in_place(m, x):
    index = torch.tensor([[0, 1, 2, 0, 1, 2]])
    return (x + 0).scatter_(0, index, 3.0).index_fill_(1, torch.tensor([0, 5]), 8.0)


def clone_is_apart(m, x):
    y = x.clone()
    y.add_(1)
    return x + y


def contiguous_may_share(m, x):
    y = x.contiguous()
    y.add_(1)
    z = x.t().contiguous()
    z.add_(1)
    return x + 0, z


def reshape_may_share(m, x):
    y = x + 0
    y.reshape(6, 4).add_(1)
    y.t().reshape(-1).add_(100)
    return y


def cast_in_place(m, x):
    y = x.to(torch.float32)
    y.add_(1)
    z = (x > 0).to(torch.int32)
    z.mul_(2)
    return x + 0, z


def promote_in_place(m, x):
    y = (x > 0).to(torch.int64)
    y += (x > 1).to(torch.int32)
    w = x.half()
    w += x
    return y, w


def rename_in_place(m, x):
    y = x + 1
    row = y[0]
    y.unsqueeze_(0)
    y.transpose_(1, 2)
    row.add_(1)
    return y, row


def out_variants(m, x):
    y = torch.empty_like(x)
    torch.add(x, 1, out=y)
    torch.mul(y, 2, out=y)
    return y


def copy_with_a_cast(m, x):
    y = torch.zeros(4, 6, dtype=torch.float64)
    y.copy_(x)
    y[1:3].copy_(x[0])
    return y


def activations_in_place(m, x):
    return nn.functional.relu(x - 1, inplace=True), nn.functional.silu(x + 1, inplace=True)


def return_views_of_the_input(m, x):
    return x, x.view(-1), x.t(), x[1], x[:, 2:4], x.reshape(2, 12), x.expand(3, 4, 6)


def return_views_of_each_other(m, x):
    y = x * 2
    return y, y.t(), y[0], y, y.view(-1)


def return_parts_of_a_hidden_whole(m, x):
    a, b = (x * 2).chunk(2, dim=1)
    return a, b


def return_copies_not_views(m, x):
    return x.clone(), x.t().contiguous(), x.t().reshape(-1), x + 0


def return_a_buffer(m, x):
    return m.cache, m.cache[0], x, x + 1


def return_a_mutated_view_of_a_buffer(m, x):
    m.cache.mul_(0).add_(x)
    return m.cache.view(-1), m.cache


def return_strides(m, x):
    return (x * 2).t(), (x + 1).t().contiguous().t(), x.view(2, 2, 6).permute(2, 0, 1) * 2


def swap_through_an_input(m, x):
    top = x[0].clone()
    x[0] = x[1]
    x[1] = top
    return x.sum()


def complex_views(m, x):
    z = torch.view_as_complex((x + 1).view(4, 3, 2))
    z.mul_(1j)
    real = torch.view_as_real(z)
    real[..., 0].add_(1)
    return z.abs(), real


def masked_fill_through_a_view(m, x):
    y = x + 0
    y.view(2, 2, 6)[0].masked_fill_(x[:2] > 0, -1.0)
    return y


def composites_see_new_values(m, x):
    y = x + 0
    torch.movedim(y, 0, 1)[0] = 9
    v = torch.einsum("ij->ji", y)
    y.mul_(2)
    return v + 0, y


def foreach_in_place(m, x):
    parts = [x + 0, x + 1]
    torch._foreach_mul_(parts, 2.0)
    torch._foreach_add_(parts, parts)
    return parts


CASES = [item for item in list(globals().values()) if getattr(item, "__code__", None)
         and item.__code__.co_varnames[:2] == ("m", "x")]  # fmt: skip


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_memory_is_as_eager_leaves_it(function, dynamic):
    x = torch.randn(4, 6)
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    export_and_compare(Case(function), (x,), (torch.randn(4, 6),), dynamic_shapes=shapes)


def test_writing_to_an_expanded_tensor_is_refused():
    class Writes(nn.Module):
        def forward(self, x):
            y = x.expand(3, 4)
            y[0].add_(1)
            return y

    with pytest.raises(Exception, match="expand"):
        export_and_compare(Writes(), (torch.randn(1, 4),))


def test_a_write_that_cannot_be_placed_is_refused():
    def function(m, x):
        y = x + 0
        torch.einsum("ij->ji", y).zero_()
        return y

    with pytest.raises(UnsupportedError, match="einsum, which has no inverse"):
        export_and_compare(Case(function), (torch.randn(4, 6),))


def test_inputs_that_overlap_a_written_one_are_refused():
    class Writes(nn.Module):
        def forward(self, x, y):
            x.add_(1)
            return x + y

    program = export_and_compare(Writes(), (torch.zeros(3), torch.ones(3)))
    z = torch.zeros(4)
    for pair in ((z[:3], z[:3]), (z[:3], z[1:])):
        with pytest.raises(InputError, match="x and y share memory"):
            program(*pair)
    program(torch.zeros(3), torch.ones(3))


def test_buffers_that_overlap_a_written_one_are_refused():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("whole", torch.zeros(3))
            self.register_buffer("part", self.whole[1:])

        def forward(self, x):
            self.whole += x
            self.part.mul_(2)
            return self.whole * 2

    exported = torch.export.export(Views(), (torch.ones(3),))
    with pytest.raises(UnsupportedError, match="share memory, and the model writes to one"):
        rewright.compile_exported(exported)
