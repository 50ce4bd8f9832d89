"""A rule of one's own: declared, proved, run in a compile, and seen in its dump.

Run it: python examples/own_pass.py [FOLDER], and then: rewright view FOLDER
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import rewright
from rewright.passes import FLOATS, REFOLD, Rule, RulePass, Tensor, aten, register_pass


class TanhSigmoid(Rule):
    """0.5 * (tanh(0.5 * x) + 1)  ->  sigmoid(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        """What models that came from a library without a sigmoid compute."""
        return 0.5 * (aten.tanh(0.5 * x) + 1)

    def replace(self, x):
        """The same in one op."""
        return aten.sigmoid(x)


@register_pass
class NameSigmoids(RulePass):
    """sigmoids spelled out  ->  sigmoid"""

    rules = (TanhSigmoid,)


class Gated(nn.Module):
    """f32[n, 8] to f32[n, 8]: a gate between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The gate is a sigmoid, spelled out."""
        return 0.5 * (torch.tanh(0.5 * self.gate(x)) + 1) * self.value(x)


def main(folder: Path) -> None:
    """Proves the rule, compiles with it, and shows the difference that it made."""
    print(TanhSigmoid.prove())
    torch.manual_seed(0)
    model, x = Gated().eval(), torch.randn(4, 8)
    program = rewright.compile(
        model, (x,), pipeline="name-sigmoids,default", dump_ir=f"changed:{folder}"
    )
    torch.testing.assert_close(program(x), model(x))
    (diff,) = folder.glob("*-name-sigmoids.diff")
    print(f"\n{diff}:\n{diff.read_text()}")
    print(f"now: rewright view {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="rewright-dump-")))
