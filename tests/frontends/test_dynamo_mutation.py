"""What a model writes to and what its results share memory with are as in eager mode."""

import pytest
import torch
from torch import nn

from rewright.errors import FallbackWarning, InputError
from tests.frontends.jit import check, compiles, jit, same

X = torch.linspace(-2, 2, 32).reshape(4, 8)


def shares(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


# --------------------------------------------------------------------------- writes


def whole(x):
    x.add_(1)
    return x * 2


def part(x):
    x[0].mul_(3)
    x[:, 1:3] = 5
    return x.sum()


def through_views(x):
    view = x.view(-1)[4:12].view(2, 4)
    view.t().add_(1)
    return view, x + view.sum()


def by_index(x):
    x[torch.tensor([0, 2])] = 0
    x[x > 1] = 1
    x.index_add_(0, torch.tensor([1]), torch.ones(1, 8))
    return x + torch.tensor([1.0, 2.0]).repeat(4)


def an_intermediate(x):
    y = x * 2
    row = y[1]
    y.add_(1)
    row.zero_()
    return y, row


def with_out(x):
    y = torch.empty_like(x)
    torch.sin(x, out=y)
    return y


def transposed(x):
    x.t().copy_(torch.arange(32.0).reshape(8, 4))
    return x[0]


def twice(x):
    x.add_(1)
    y = x * 2
    x.mul_(y)
    return x, y


FUNCTIONS = [
    whole,
    part,
    through_views,
    by_index,
    an_intermediate,
    with_out,
    transposed,
    twice,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_writes(function, dynamic: bool):
    check(function, X.clone(), dynamic=dynamic)


def test_writes_into_containers():
    def function(x, cache):
        cache["k"].mul_(2)
        cache["new"] = x + cache["k"]
        return x[0]

    check(function, X, {"k": torch.ones(4, 8)})


def test_writes_to_buffers_persist():
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))
            self.register_buffer("history", torch.zeros(4, 8))

        def forward(self, x):
            self.count += 1
            self.history.index_copy_(0, self.count.view(1) - 1, x[:1])
            return x * self.count

    compiled_model, eager = Counter(), Counter()
    count, history = compiled_model.count, compiled_model.history
    compiled = jit(compiled_model)
    with torch.no_grad(), compiles(1):
        for step in range(3):
            same(compiled(X + step), eager(X + step))
    same(dict(compiled_model.named_buffers()), dict(eager.named_buffers()))
    assert compiled_model.count is count, "written in place, not replaced"
    assert compiled_model.history is history


def test_batch_norm_in_eval_mode_writes_nothing():
    model = nn.BatchNorm1d(8)
    model(X * 3 + 1)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check(model, X)
    same(dict(model.state_dict()), before)


def test_writes_to_an_expanded_input_are_refused_as_in_eager():
    x = torch.ones(1, 8).expand(4, 8)
    with torch.no_grad(), pytest.raises(RuntimeError):
        jit(whole)(x)


# --------------------------------------------------------------------------- memory


def test_results_that_are_the_input():
    def function(x, y):
        return x, y + 1, [x]

    with torch.no_grad(), compiles(1):
        found = jit(function)(X, X)
    assert found[0] is X
    assert found[2][0] is X


def test_results_that_are_views_of_the_input():
    def function(x):
        return x.view(-1), x.t(), x[1:3, ::2], x.detach(), x.unsqueeze(0).expand(3, 4, 8)

    found = check(function, X)
    with torch.no_grad():
        found = jit(function)(X)
    assert all(shares(view, X) for view in found)


def test_results_that_are_views_of_each_other():
    def function(x):
        y = x * 2
        return y, y.t(), y[0]

    found = check(function, X)
    assert shares(found[0], found[1])
    assert shares(found[0], found[2])


def test_one_result_twice():
    def function(x):
        y = x + 1
        return y, y

    found = check(function, X)
    assert found[0] is found[1]


def test_a_written_input_is_returned():
    def function(x):
        x.add_(1)
        return x.view(8, 4), x

    x = X.clone()
    with torch.no_grad(), compiles(1):
        view, same_one = jit(function)(x)
    assert same_one is x
    assert shares(view, x)
    same(x, X + 1)


def test_results_have_strides_of_eager():
    def function(x):
        y = x.permute(1, 0) * 2
        return y, torch.nn.functional.conv2d(
            x.view(1, 2, 4, 4).contiguous(memory_format=torch.channels_last), torch.ones(2, 2, 1, 1)
        )

    check(function, X)


def test_constants_are_returned_fresh():
    def function(x):
        return torch.arange(3), torch.tensor([1.0, 2.0]), x + 1

    compiled = jit(function)
    with torch.no_grad(), compiles(1):
        compiled(X)[1].zero_()
        same(compiled(X), function(X))


# --------------------------------------------------------------------------- overlap


def reads_and_writes(x, y):
    x.add_(1)
    return y * 2


def test_the_same_tensor_twice():
    x, y = X.clone(), X.clone()
    with torch.no_grad(), compiles(1):
        same(jit(reads_and_writes)(x, x), reads_and_writes(y, y))
    same(x, y)


def test_parts_that_do_not_meet():
    both, copy = torch.ones(4, 8), torch.ones(4, 8)
    with torch.no_grad(), compiles(1):
        same(
            jit(reads_and_writes)(both[:, :3], both[:, 3:6]),
            reads_and_writes(copy[:, :3], copy[:, 3:6]),
        )
    same(both, copy)


def test_overlapping_inputs_one_of_them_written_are_refused():
    base = X.clone()
    with torch.no_grad(), pytest.raises(InputError) as caught:
        jit(reads_and_writes)(base, base[1:3])
    assert str(caught.value) == (
        "the inputs x and y share memory, and the model writes to one\n"
        "  hint: pass a clone() of one of them"
    )
    same(base, X)


def test_overlapping_inputs_run_in_eager_mode_if_allowed():
    x, y = X.clone(), X.clone()
    compiled = jit(reads_and_writes, options={"on_error": "eager"})
    with torch.no_grad():
        with pytest.warns(FallbackWarning, match="the inputs x and y share memory"):
            found = compiled(x, x[1:3])
        same(found, reads_and_writes(y, y[1:3]))
    same(x, y)


def test_overlapping_inputs_none_of_them_written():
    check(lambda x: x * 2, X)
    with torch.no_grad(), compiles(1):
        same(jit(lambda x, y: x.sum() + y)(X, X[1:3]), X.sum() + X[1:3])
