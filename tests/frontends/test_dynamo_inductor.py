"""torch_backend="inductor" on what Inductor is known to get wrong, or to be told too little of."""

import pytest
import torch
from torch import nn

import rewright
from tests.frontends.jit import check, compiles, jit, same

X = torch.linspace(-2, 2, 32).reshape(4, 8)
INDUCTOR = {"torch_backend": "inductor"}

pytestmark = pytest.mark.slow


@torch.library.custom_op("rewright_test::raise_", mutates_args=("x",))
def raise_(x: torch.Tensor, by: int) -> None:
    x.add_(by)


@raise_.register_fake
def _(x, by):
    return None


@torch.library.custom_op("rewright_test::mix_", mutates_args=("x", "y", "zs"))
def mix_(x: torch.Tensor, y: torch.Tensor | None, zs: list[torch.Tensor]) -> torch.Tensor:
    for z in zs:
        x.add_(z)
        z.mul_(2)
    if y is not None:
        y.copy_(x)
    return x.sum()


@mix_.register_fake
def _(x, y, zs):
    return x.new_empty(())


VIEWS = {
    "itself": lambda x: x,
    "select": lambda x: x.select(0, 1),
    "slice": lambda x: x[1:3],
    "strided": lambda x: x[:, ::2],
    "transpose": lambda x: x.t(),
    "diagonal": lambda x: x.diagonal(),
    "reshape": lambda x: x.view(-1)[3:7],
    "chunk": lambda x: x.chunk(2, 1)[1],
    "unbind": lambda x: x.unbind(0)[2],
    "unsqueeze": lambda x: x[None, 1],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_custom_op_that_writes_through_a_view(view: str):
    def function(x):
        made = x * 2
        raise_(VIEWS[view](made), 3)
        raise_(VIEWS[view](x), 1)
        return made + 0, x + 1

    check(function, X, options=INDUCTOR)


def test_a_custom_op_that_writes_to_several_views():
    def function(x, y):
        made = x + 1
        a = mix_(made[0], made[1], [y[0], y[1:3].t()[0, :1]])
        b = mix_(x[:, 0], None, [x[:, 1]])
        return made, a, b, y * 2

    check(function, X, X + 5, options=INDUCTOR)


def test_a_custom_op_that_writes_through_a_view_exported():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.zeros(4, 8))

        def forward(self, x):
            raise_(self.state[1], 3)
            raise_(x.select(1, 2), 2)
            return self.state + x

    model, mine, theirs = Model(), X.clone(), X.clone()
    with torch.no_grad():
        with compiles(1):
            program = rewright.compile_exported(
                torch.export.export(model, (X.clone(),)), **INDUCTOR, on_error="raise"
            )
            found = program(mine)
        written = model.state.clone()
        model.state.zero_()
        same(found, model(theirs))
    same(mine, theirs)
    same(written, model.state)


def test_results_of_every_kind():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(8.0))

        def forward(self, x):
            y = x.sin()
            self.table.add_(y[0])
            numbers = (3, 2.5, None, x.shape[0] * 2 + 1, x.shape[0] / 2)
            return y, y, y[0], x, x.t(), self.table, self.table[2:], numbers, {"y": (y, y * 2)}

    for dynamic in (False, True):
        check(Model(), X, dynamic=dynamic, options=INDUCTOR)


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True, capture_scalar_outputs=True)
def test_sizes_and_numbers_that_data_decides():
    def function(x):
        places = torch.nonzero(x > 0)
        number = x[0, 0].item()
        torch._check(number > -5)
        count = (x > 0).sum().item()
        torch._check(count >= 0)
        return places + 1, torch.zeros(count * 2 + 1), x[x > 0] * number, count, number

    compiled = jit(function, options=INDUCTOR)
    with torch.no_grad(), compiles(1):
        for x in (X, X.abs() + 1):
            same(compiled(x), function(x))


def test_a_branch_with_two_dynamic_sizes():
    def function(x):
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))

    compiled = jit(function, dynamic=True, options=INDUCTOR)
    with torch.no_grad(), compiles(1):
        for x in (X + 1, X - 1, X[:3, :5] + 1):
            same(compiled(x), function(x))
