"""What follows a convolution, for libraries that compute both in one kernel.

    relu(conv(x, w, b))                        ->  rw.conv_relu(x, w, b)
    relu(conv(x, w, b) + z)                    ->  rw.conv_relu(x, w, b, z)

By a pass of its own, ``fuse-conv-relu``, behind the other fusions: whatever knows the op by its
reference alone computes the same as before.
"""

from __future__ import annotations

from rewright.passes.ops import aten, rw
from rewright.passes.patterns import either
from rewright.passes.reasons import NoMatch
from rewright.passes.rule import Rule
from rewright.passes.variables import FLOATS, Attr, Maybe, Tensor


class ConvAddRelu(Rule):
    """relu(conv(x, w, b) + z)  ->  rw.conv_relu(x, w, b, z)"""

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        w,
        b: Maybe,
        z,
        stride: Attr,
        padding: Attr,
        dilation: Attr,
        groups: Maybe(Attr),
    ):
        y = rw.conv(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return aten.relu(either(y + z, z + y))

    def where(self, x, z):
        return (x.dtype == z.dtype and x.rank == z.rank) or NoMatch("{0} is no residual", z)

    def replace(self, x, w, b, z, stride, padding, dilation, groups):
        steps = {"stride": stride, "padding": padding, "dilation": dilation}
        return rw.conv_relu(x, w, b, z, groups=1 if groups is None else groups, **steps)


class ConvRelu(Rule):
    """relu(conv(x, w, b))  ->  rw.conv_relu(x, w, b)"""

    def pattern(
        self,
        x: Tensor(dtype=FLOATS),
        w,
        b: Maybe,
        stride: Attr,
        padding: Attr,
        dilation: Attr,
        groups: Maybe(Attr),
    ):
        y = rw.conv(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return aten.relu(y)

    def replace(self, x, w, b, stride, padding, dilation, groups):
        steps = {"stride": stride, "padding": padding, "dilation": dilation}
        return rw.conv_relu(x, w, b, groups=1 if groups is None else groups, **steps)


RULES = (ConvAddRelu, ConvRelu)
