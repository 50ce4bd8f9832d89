"""Programs whose parameters are arguments: never a stale number, and nothing kept too long."""

import gc
import threading
import weakref

import pytest
import torch
from torch import Tensor, nn

import rewright
from rewright.backends.torch.specialize import Specializations
from tests.backends.torch.programs import program

TEXT = """
graph @main(%x: f32[3]) -> f32[3] {
  %y = aten.mul.Tensor(%x, @scale) : f32[3]
  %z = aten.add.Tensor(%y, @b) : f32[3]
  return %z
}
constants {
  parameter @w : f32[3]
  parameter @b : f32[3]
}
prepare {
  @scale = aten.exp(@w) : f32[3]
}
"""


def parameters() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))


@pytest.fixture
def made():
    return program(TEXT, late=("w", "b"))


def check(made, w: Tensor, b: Tensor) -> int:
    """That the numbers are right, and how many times constants were prepared."""
    before = rewright.stats()
    x = torch.randn(3)
    with torch.no_grad():
        expected = x * w.exp() + b
        actual = made(x, w, b)[0]
    torch.testing.assert_close(actual, expected)
    return (rewright.stats() - before).specializations


def test_each_set_of_parameters_is_prepared_once(made):
    first, second = parameters(), parameters()
    assert [check(made, *first) for _ in range(3)] == [1, 0, 0]
    assert [check(made, *second) for _ in range(2)] == [1, 0]
    assert check(made, *first) == 0


def test_a_parameter_that_is_passed_through_prepares_nothing(made):
    w, b = parameters()
    check(made, w, b)
    with torch.no_grad():
        b.add_(1)
    assert check(made, w, b) == 0
    assert check(made, w, parameters()[1]) == 0


def test_a_write_in_place_is_seen(made):
    w, b = parameters()
    check(made, w, b)
    with torch.no_grad():
        w.mul_(2)
    assert check(made, w, b) == 1
    nn.init.ones_(w)
    assert check(made, w, b) == 1
    assert check(made, w, b) == 0


def test_a_swap_of_data_is_seen(made):
    w, b = parameters()
    check(made, w, b)
    w.data = torch.randn(3)
    assert check(made, w, b) == 1


def test_a_swap_back_and_forth_is_seen(made):
    """Memory that was given back may be given out again, at the same address."""
    w, b = parameters()
    check(made, w, b)
    for _ in range(20):
        w.data = torch.randn(3)
        w.data = torch.randn(3)
        check(made, w, b)


def test_a_replaced_parameter_is_seen_although_its_id_may_come_again(made):
    for _ in range(50):
        w, b = parameters()
        assert check(made, w, b) == 1
        del w


def test_nothing_is_kept_of_parameters_that_died():
    prepared = []

    def specialize(sources):
        made = torch.exp(sources[0])
        prepared.append(weakref.ref(made))
        return lambda x: x * made

    cache = Specializations(specialize)
    w = torch.randn(3)
    cache.get([w])
    assert len(cache) == 1
    del w
    gc.collect()
    assert len(cache) == 0
    assert prepared[0]() is None


def test_a_parameter_that_died_leaves_no_garbage():
    """Reference counts alone free everything."""
    cache = Specializations(lambda sources: lambda: None)
    gc.collect()
    gc.disable()
    try:
        w = torch.randn(3)
        cache.get([w])
        owner = weakref.ref(cache)
        del w
        assert len(cache) == 0
        del cache
        assert owner() is None
    finally:
        gc.enable()


def test_the_oldest_of_too_many_goes():
    made = []
    cache = Specializations(lambda sources: made.append(sources[0].item()) or (lambda: None), 2)
    a, b, c = (torch.tensor(float(number)) for number in range(3))
    for each in (a, b, a, c, b, a):
        cache.get([each])
    assert made == [0.0, 1.0, 2.0, 0.0]
    assert len(cache) == 2


def test_inference_tensors_are_prepared_anew_and_said_so(made):
    with torch.inference_mode():
        w, b = torch.randn(3), torch.randn(3)
    with pytest.warns(UserWarning, match="inference tensors"):
        check(made, w, b)
    with torch.inference_mode():
        w.add_(1)
        check(made, w, b)


def test_many_threads_get_right_numbers(made):
    sets = [parameters() for _ in range(4)]
    wrong = []

    def work(number: int) -> None:
        x = torch.randn(3)
        for turn in range(50):
            w, b = sets[(number + turn) % 4]
            with torch.no_grad():
                if not torch.allclose(made(x, w, b)[0], x * w.exp() + b):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_gradients_are_off_where_parameters_are_passed(made):
    w, b = parameters()
    (y,) = made(torch.randn(3), w, b)
    assert not y.requires_grad
    assert torch.is_grad_enabled()


def test_without_recipes_parameters_are_just_arguments():
    text = """
    graph @main(%x: f32[3]) -> f32[3] {
      %y = aten.mul.Tensor(%x, @w) : f32[3]
      return %y
    }
    constants { parameter @w : f32[3] }
    """
    made = program(text, late=("w",))
    x, w = torch.randn(3), nn.Parameter(torch.randn(3))
    assert torch.equal(made(x, w)[0], x * w.detach())
    w.data.mul_(2)
    assert torch.equal(made(x, w)[0], x * w.detach())
    assert rewright.stats().specializations == 0
    assert "def forward(x, w):" in made.source
