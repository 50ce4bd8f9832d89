"""Floats of a module under ``dynamic=True`` are symbols of Dynamo's, and stay the same ones."""

import pytest
import torch
from torch import nn

import rewright


class Branches(nn.Module):
    """Operators, and Python itself, that ask how large a float is."""

    def __init__(self):
        super().__init__()
        self.low, self.high = -0.5, 1.5

    def forward(self, x):
        y = nn.functional.hardtanh(x, self.low, self.high)  # refuses low > high
        z = nn.functional.leaky_relu(x, self.high)
        return y + z * self.low + (1 if self.high > 0.2 else 3)


class Blend(nn.Module):
    """An operator that torch traces in one of two ways, by how large its float is."""

    high = 0.3

    def forward(self, x):
        return torch.lerp(x, x.cos(), self.high)


class Attention(nn.Module):
    """A kernel that takes its float as a plain number."""

    high = 0.3

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x.cos(), x, scale=self.high)


@pytest.mark.parametrize("torch_backend", ["eager", "inductor"])
@pytest.mark.parametrize(
    "model", [Branches(), Blend(), Attention()], ids=lambda m: type(m).__name__
)
def test_floats_that_are_compared(model, torch_backend):
    x = torch.randn(2, 3, 4, 5)
    options = {"on_error": "raise", "torch_backend": torch_backend}
    fast = torch.compile(model.eval(), backend="rewright", dynamic=True, options=options)
    with torch.no_grad():
        for model.high in (1.5, 0.7, 0.1):
            torch.testing.assert_close(fast(x), model(x))
    assert rewright.stats().nodes > 0 and rewright.stats().fallbacks == 0


@pytest.mark.parametrize("torch_backend", ["eager", "inductor"])
def test_floats_keep_their_64_bits(torch_backend):
    """Inductor hands a float to its kernels in 32 bits, where it is left a symbol."""
    x = torch.ones(3, dtype=torch.float64)

    def scaled(x, factor):
        return x * factor, factor * 2

    options = {"on_error": "raise", "torch_backend": torch_backend}
    fast = torch.compile(scaled, backend="rewright", dynamic=True, options=options)
    for factor in (0.7, 0.1):
        found, number = fast(x, factor)
        assert torch.equal(found, x * factor)
        assert number == factor * 2
    assert rewright.stats().nodes > 0 and rewright.stats().fallbacks == 0


def test_a_float_that_64_bits_are_compared_with_keeps_its_own():
    x = torch.full((2,), 0.7, dtype=torch.float64)  # in 32 bits it is less than that

    def compared(x, number):
        return x > number, x <= number

    options = {"on_error": "raise", "torch_backend": "inductor"}
    fast = torch.compile(compared, backend="rewright", dynamic=True, options=options)
    above, below = fast(x, 0.7)
    assert not above.any() and below.all()
