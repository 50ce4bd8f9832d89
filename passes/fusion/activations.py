"""Activations from their formulas.

    x/2 * (1 + erf(x / √2))                    ->  gelu(x)
    x/2 * (1 + tanh(√(2/π) (x + 0.044715 x³))) ->  gelu(x, approximate="tanh")
    x * sigmoid(x)                             ->  silu(x)
    x * tanh(softplus(x))                      ->  mish(x)
    x * (relu6(x + 3) / 6)                     ->  hardswish(x)
    relu6(x + 3) / 6                           ->  hardsigmoid(x)

CLIP's ``x * sigmoid(1.702 x)`` is a third GELU, which torch has no op for: it stays.
"""

from __future__ import annotations

import math

from rewright.passes.ops import aten
from rewright.passes.patterns import either, near
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import FLOATS, Tensor


class ErfGelu(Rule):
    """x/2 * (1 + erf(x / sqrt(2)))  ->  gelu(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        scaled = either(x / near(math.sqrt(2)), x * near(1 / math.sqrt(2)))
        inner = either(aten.erf(scaled) + 1, 1 + aten.erf(scaled))
        half, chance = either(x * 0.5, x / 2), either(inner * 0.5, inner / 2)
        return either(half * inner, x * chance, (x * inner) * 0.5, (x * inner) / 2)

    def replace(self, x):
        return aten.gelu(x)


class TanhGelu(Rule):
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))  ->  gelu(x, approximate="tanh")"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        cube = either(x**3, x * x * x, x**2 * x)
        root = near(math.sqrt(2 / math.pi), 1e-5)
        inner = either(
            (x + cube * near(0.044715)) * root,
            x * root * (x * x * near(0.044715) + 1),
            x * root * (x * near(0.044715) * x + 1),
        )
        outer = aten.tanh(inner) + 1
        return either((x * 0.5) * outer, x * (outer * 0.5), (x * outer) * 0.5)

    def replace(self, x):
        return aten.gelu(x, approximate="tanh")


class SigmoidSilu(Rule):
    """x * sigmoid(x)  ->  silu(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * aten.sigmoid(x)

    def replace(self, x):
        return aten.silu(x)


class SoftplusMish(Rule):
    """x * tanh(softplus(x))  ->  mish(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * aten.tanh(aten.softplus(x))

    def replace(self, x):
        return aten.mish(x)


def _relu6(x):
    return either(aten.hardtanh(x, 0.0, 6.0), aten.clamp(x, 0, 6), aten.relu6(x))


class Relu6Hardswish(Rule):
    """x * (relu6(x + 3) / 6)  ->  hardswish(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        inner = _relu6(x + 3)
        return either(x * (inner / 6), (x * inner) / 6, x * aten.hardsigmoid(x))

    def replace(self, x):
        return aten.hardswish(x)


class Relu6Hardsigmoid(Rule):
    """relu6(x + 3) / 6  ->  hardsigmoid(x)"""

    exactness = REFOLD
    priority = -1

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return _relu6(x + 3) / 6

    def replace(self, x):
        return aten.hardsigmoid(x)


RULES = (ErfGelu, TanhGelu, SigmoidSilu, SoftplusMish, Relu6Hardswish, Relu6Hardsigmoid)
