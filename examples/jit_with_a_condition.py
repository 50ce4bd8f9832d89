"""Just in time: a model that decides in Python what it computes, and one that decides in the graph.

Run it: python examples/jit_with_a_condition.py
"""

import torch
from torch import Tensor, nn

import rewright


class Branching(nn.Module):
    """f32[n, 16] to f32[n, 4]; `if` on a Python value, and torch.cond on a tensor's."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor, fast: bool) -> Tensor:
        """`fast` is known while tracing: one graph for each. The mean is not: both go into it."""
        if fast:
            return self.small(x)
        return torch.cond(
            x.mean() > 0, lambda x: self.large(x).relu(), lambda x: self.large(x).tanh(), (x,)
        )


def main() -> None:
    """Compiles by torch.compile, calls each way, and shows what became of it."""
    torch.manual_seed(0)
    model = Branching().eval()
    compiled = torch.compile(model, backend="rewright", options={"on_error": "raise"})
    ways = {
        "fast": (torch.randn(3, 16), True),
        "mean above zero": (torch.rand(3, 16), False),
        "mean below zero": (-torch.rand(3, 16), False),
        "another size": (torch.rand(7, 16), False),
    }
    with torch.no_grad():
        for name, (x, fast) in ways.items():
            error = (compiled(x, fast) - model(x, fast)).abs().max()
            counted = rewright.stats()
            print(f"{name:16} off by {error:.1e}; {counted.graphs} graphs so far, "
                  f"{counted.fallbacks} fell back")  # fmt: skip
            torch.testing.assert_close(compiled(x, fast), model(x, fast))


if __name__ == "__main__":
    main()
