"""Plain numbers beside tensors: as torch takes them, whatever the dtype of the tensor holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rewright.backends.tensorrt.emitter import emit
from tests.backends.tensorrt.checking import check, evaluate, import_function, refusals, rtx

Function = Callable[[torch.Tensor], torch.Tensor]

BEYOND: dict[str, Function] = {
    "a mask": lambda x: (x == 0).to(x.dtype) * -1e9,
    "times a large number": lambda x: x * 1e6,
    "over a large number": lambda x: x / 1e6,
    "over a small number": lambda x: x / 1e-6,
    "a large number over": lambda x: 1e5 / x,
    "plus": lambda x: x + 1e5,
    "minus": lambda x: x - 1e300,
    "from": lambda x: 1e5 - x,
    "rounded": lambda x: x // 1e6,
    "remainder": lambda x: torch.remainder(x, 1e5),
    "a constant": lambda x: x * torch.tensor(1e6),
    "beyond f32": lambda x: x * 1e39,
}
"""Functions of numbers that ``f16`` can't hold."""


@pytest.mark.parametrize("name", BEYOND)
def test_a_number_that_f16_can_not_hold(name: str) -> None:
    x = torch.tensor([1e-4, 1.0, 0.0, 2e4, -3.0, 1e-6], dtype=torch.float16)
    graph = import_function(BEYOND[name], [x])
    (made,) = evaluate(emit(graph, rtx()), [x])
    torch.testing.assert_close(made, BEYOND[name](x), rtol=1e-3, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("number", [2**31, 2**33 + 5, -(2**40)])
def test_integers_wrap_around(number: int) -> None:
    x = torch.tensor([1, -5, 100], dtype=torch.int32)
    check(lambda x: (x + number, x * number, x > number), [x], build=False)


def test_bytes_are_what_a_network_takes_and_gives() -> None:
    x = torch.tensor([1.0, 3.7, 200.2])
    check(lambda x: x.to(torch.uint8), [x])
    check(lambda x: x.float() / 255, [x.to(torch.uint8)])
    graph = import_function(lambda x: x.to(torch.uint8).float(), [x])
    assert refusals(graph, rtx()) == [
        "aten._to_copy: it needs: a result that is only returned, where it is u8"
    ]
