"""Activations that models spell out, said by one op.

x * sigmoid(x)                  ->  silu(x)
x * tanh(softplus(x))           ->  mish(x)
x * clamp(x + 3, 0, 6) / 6      ->  hardswish(x)
"""

from rewright.passes import FLOATS, REFOLD, Rule, RulePass, Tensor, aten, either, register_pass


class FuseSilu(Rule):
    """x * sigmoid(x)  ->  silu(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * aten.sigmoid(x)

    def replace(self, x):
        return aten.silu(x)


class FuseMish(Rule):
    """x * tanh(softplus(x))  ->  mish(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        return x * aten.tanh(aten.softplus(x))

    def replace(self, x):
        return aten.mish(x)


class FuseHardswish(Rule):
    """x * clamp(x + 3, 0, 6) / 6  ->  hardswish(x)"""

    exactness = REFOLD

    def pattern(self, x: Tensor(dtype=FLOATS)):
        six = either(aten.clamp(x + 3, 0, 6), aten.hardtanh(x + 3, 0, 6))
        return x * six / 6

    def replace(self, x):
        return aten.hardswish(x)


@register_pass
class NameActivations(RulePass):
    """activations spelled out  ->  silu, mish, hardswish"""

    rules = (FuseSilu, FuseMish, FuseHardswish)
