"""Just-in-time programs whose weights are folded: every change of a weight is seen."""

import copy
import gc
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import rewright
from tests.frontends.jit import jit, same

LEVEL_2 = {"optimization_level": 2}
X = torch.linspace(-2, 2, 2 * 3 * 36).reshape(2, 3, 6, 6)


class Folds(nn.Module):
    """Of its weights, a norm goes into a convolution, and a scale becomes a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.rand(4) + 1)
        for tensor in (self.norm.weight, self.norm.running_mean):
            nn.init.normal_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.fc(x) * torch.exp(-self.scale)


def folded(model: nn.Module) -> Callable[..., Tensor]:
    """`model`, compiled just in time at the level that folds."""
    return jit(model, options=LEVEL_2)


def agrees(compiled: Callable[..., Tensor], model: nn.Module) -> int:
    """That numbers are those of eager mode; how many times constants were prepared for it."""
    before = rewright.stats()
    with torch.no_grad():
        same(compiled(X), model(X))
    done = rewright.stats() - before
    assert done.fallbacks == 0, done.fallback_reasons
    return done.specializations


@pytest.fixture
def model() -> Folds:
    torch.manual_seed(0)
    return Folds().eval()


def replace_parameter(model: Folds) -> None:
    model.norm.weight = nn.Parameter(torch.randn(4))


def swap_data(model: Folds) -> None:
    model.conv.weight.data = torch.randn(4, 3, 3, 3)


def edit_in_place(model: Folds) -> None:
    with torch.no_grad():
        model.scale.mul_(-0.5)


def edit_a_part(model: Folds) -> None:
    with torch.no_grad():
        model.conv.weight[0, :, 1].zero_()


def edit_a_buffer(model: Folds) -> None:
    model.norm.running_mean += 1


def load_state(model: Folds) -> None:
    model.load_state_dict(Folds().state_dict())


def replace_module(model: Folds) -> None:
    model.conv = nn.Conv2d(3, 4, 3, bias=False)


def optimizer_step(model: Folds) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(X).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


CHANGES = (
    replace_parameter,
    swap_data,
    edit_in_place,
    edit_a_part,
    edit_a_buffer,
    load_state,
    replace_module,
    optimizer_step,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_what_is_folded_is_seen(model: Folds, change: Callable[[Folds], None]):
    compiled = folded(model)
    assert agrees(compiled, model) == 1
    assert agrees(compiled, model) == 0
    before = model(X).detach()
    change(model)
    assert agrees(compiled, model) == 1
    assert agrees(compiled, model) == 0
    assert not torch.allclose(model(X), before), "the change should matter"


def test_a_change_of_what_is_not_folded_prepares_nothing(model: Folds):
    compiled = folded(model)
    agrees(compiled, model)
    nn.init.zeros_(model.fc.bias)
    assert agrees(compiled, model) == 0


def test_each_instance_has_its_own_constants_and_both_one_graph(model: Folds):
    first, second = model, Folds().eval()
    before = rewright.stats()
    runs = [(folded(first), first), (folded(second), second)]
    assert [agrees(*run) for run in runs] == [1, 1]
    assert [agrees(*run) for run in runs] == [0, 0]
    nn.init.ones_(second.norm.weight)
    assert [agrees(*run) for run in runs] == [0, 1]
    assert (rewright.stats() - before).graphs == 1


def test_the_constants_of_an_instance_go_with_it(model: Folds):
    compiled = folded(model)
    agrees(compiled, model)
    for _ in range(3):
        other = Folds().eval()
        agrees(folded(other), other)
        del other
        gc.collect()
    assert agrees(compiled, model) == 0


def merge_lora(model: Folds, sign: int) -> None:
    """Adds the product of two small matrices to a weight, or takes it away again."""
    generator = torch.Generator().manual_seed(7)
    up, down = torch.randn(4, 2, generator=generator), torch.randn(2, 27, generator=generator)
    with torch.no_grad():
        model.conv.weight.add_((up @ down).reshape(4, 3, 3, 3), alpha=sign)


def test_a_lora_is_merged_and_taken_away(model: Folds):
    compiled, before = folded(model), copy.deepcopy(model)
    agrees(compiled, model)
    merge_lora(model, 1)
    assert agrees(compiled, model) == 1
    merge_lora(model, -1)
    assert agrees(compiled, model) == 1
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), before(X))


def test_threads_with_a_model_each(model: Folds):
    models = [model, *(Folds().eval() for _ in range(3))]
    runs = [folded(item) for item in models]
    for run, item in zip(runs, models, strict=True):
        agrees(run, item)
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.no_grad():
            for turn in range(20):
                models[number].scale.add_(0.01)
                found, expected = runs[number](X), models[number](X)
                if not torch.allclose(found, expected, atol=1e-5):
                    wrong.append(turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
