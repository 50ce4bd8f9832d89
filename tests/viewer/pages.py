"""What the tests of the viewer look at: a dump of a small program with modules and a segment."""

from pathlib import Path

import torch
from torch import nn

import rewright

SHOWN = """
graph @shown(%x: f32[4, 4]) -> f32[4, 4] {
  %a = aten.abs(%x) : f32[4, 4]    # net.py:1 (stem)
  %s = rw.segment([%a, @w], ^tensorrt_0, backend="tensorrt") : f32[4, 4]   # net.py:2 (body)
    region ^tensorrt_0(%p: f32[4, 4], %q: f32[4, 4]) -> f32[4, 4] {
      %m = aten.mul.Tensor(%p, %q) : f32[4, 4]    # net.py:2 (body.0) by halves
      %t = aten.tanh(%m) : f32[4, 4]    # net.py:3 (body.0)
      return %t
    }
  %c, %d = aten.split.Tensor(%s, 2) : f32[2, 4], f32[2, 4]  # net.py:4 (head)
  %e = aten.cat([%d, %c]) : f32[4, 4]   # "a b.py":5 (head) by swap, "odd # rule"
  return %e
}
constants {
  parameter @w : f32[4, 4]
}
""".lstrip()
"""A graph with what pages must tell apart: a region, two results, a location in quotes."""

BRANCHES = """
graph @branches(%x: f32[4], %p: bool[]) -> f32[4] {
  %n = aten.neg(%x) : f32[4]
  %c = higher_order.cond(%p, ^yes, ^no, [%n]) : f32[4]
    region ^yes(%a: f32[4]) -> f32[4] {
      %r = aten.relu(%a) : f32[4]
      return %r
    }
    region ^no(%a: f32[4]) -> f32[4] {
      %r = aten.tanh(%a) : f32[4]
      return %r
    }
  return %c
}
""".lstrip()
"""A conditional: two regions that call their values alike."""


class Net(nn.Module):
    """Two linear layers, each with what `fuse` and `cse` find something in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 4)

    def forward(self, x):
        y = self.first(x)
        y = torch.nn.functional.gelu(y) + torch.nn.functional.gelu(y)
        return self.second(y)


def dump(folder: Path, what: str = "changed") -> Path:
    """A dump of `Net` in `folder`."""
    torch.manual_seed(0)
    rewright.compile(Net().eval(), (torch.ones(2, 8),), dump_ir=f"{what}:{folder}")
    return folder
