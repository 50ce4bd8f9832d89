"""The middle of a gated MLP: SwiGLU, GEGLU and their kin.

    silu(g) * u                                ->  rw.gated(g, u, activation="silu")
    gelu(g) * u                                ->  rw.gated(g, u, activation="gelu")
    gelu(g, approximate="tanh") * u            ->  rw.gated(g, u, activation="gelu_tanh")
    relu(g) * u                                ->  rw.gated(g, u, activation="relu")

The activation must be named by then: see :mod:`rewright.passes.fusion.activations`.
"""

from __future__ import annotations

from typing import Any

from rewright.passes.handles import Handle
from rewright.passes.ops import aten, rw
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import FLOATS, Tensor


def _same_type(g: Handle, u: Handle) -> Any:
    """Whether gate and value are of one shape and dtype: then they are halves of one MLP."""
    if u.dtype != g.dtype:
        return NoMatch("{0} and {1} are not of one dtype", g, u)
    return (u.rank == g.rank and u.shape == g.shape) or NoMatch("{0} is not like {1}", u, g)


class _Gated(Rule):
    """A rule for one activation."""

    exactness = REFOLD

    def where(self, g, u):
        return _same_type(g, u)


class SwiGlu(_Gated):
    """silu(g) * u  ->  rw.gated(g, u, activation="silu")"""

    def pattern(self, g: Tensor(dtype=FLOATS), u):
        return aten.silu(g) * u

    def replace(self, g, u):
        return rw.gated(g, u, activation="silu")


class GeGlu(_Gated):
    """gelu(g) * u  ->  rw.gated(g, u, activation="gelu")"""

    def pattern(self, g: Tensor(dtype=FLOATS), u):
        return aten.gelu(g) * u

    def replace(self, g, u):
        return rw.gated(g, u, activation="gelu")


class TanhGeGlu(_Gated):
    """gelu(g, approximate="tanh") * u  ->  rw.gated(g, u, activation="gelu_tanh")"""

    def pattern(self, g: Tensor(dtype=FLOATS), u):
        return aten.gelu(g, approximate="tanh") * u

    def replace(self, g, u):
        return rw.gated(g, u, activation="gelu_tanh")


class ReGlu(_Gated):
    """relu(g) * u  ->  rw.gated(g, u, activation="relu")"""

    def pattern(self, g: Tensor(dtype=FLOATS), u):
        return aten.relu(g) * u

    def replace(self, g, u):
        return rw.gated(g, u, activation="relu")


RULES = (SwiGlu, GeGlu, TanhGeGlu, ReGlu)
