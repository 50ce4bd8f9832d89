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


OLD_INDUCTOR = pytest.mark.skipif(
    torch.__version__ < "2.12", reason="there Inductor can't compare floats that it is not told"
)


@pytest.mark.parametrize("torch_backend", ["eager", pytest.param("inductor", marks=OLD_INDUCTOR)])
def test_floats_that_are_compared(torch_backend):
    model, x = Branches().eval(), torch.randn(4, 5)
    options = {"on_error": "raise", "torch_backend": torch_backend}
    fast = torch.compile(model, backend="rewright", dynamic=True, options=options)
    with torch.no_grad():
        for model.high in (1.5, 0.7, 0.1):
            torch.testing.assert_close(fast(x), model(x))
    assert rewright.stats().nodes > 0 and rewright.stats().fallbacks == 0
