"""Products of matrices: the spellings of ``rw.linear`` and ``rw.matmul``.

    linear(x, w, b)                            ->  rw.linear(x, w, b)
    addmm(b, x, w)                             ->  rw.linear(x, wᵀ, b)
    matmul(x, wᵀ), mm(x, wᵀ)                   ->  rw.linear(x, w)
    matmul(x, w), mm(x, w)                     ->  rw.linear(x, wᵀ)         for a constant matrix w
    matmul(a, b), mm, bmm, mv, dot             ->  rw.matmul(a, b)
    linear(x, w) + b                           ->  linear(x, w, b)          for a vector b
    reshape(linear(reshape(x), w, b), [*s, n]) ->  linear(reshape(x, [*s, k]), w, b)

A transposed constant becomes a recipe, and a view there: no bytes are copied for it. There is no
``linear`` with an activation: no backend has one that keeps the numbers (cuBLASLt's GELU is the
tanh's), and TensorRT fuses the activation after it by itself.
"""

from __future__ import annotations

from typing import Any

from rewright.passes.handles import Handle
from rewright.passes.ops import aten, rw
from rewright.passes.patterns import OpVar, either
from rewright.passes.rule import REFOLD, Rule
from rewright.passes.variables import Attr, Const, Maybe, Tensor


class TorchLinear(Rule):
    """linear(x, w, b)  ->  rw.linear(x, w, b)"""

    def pattern(self, x, w, b: Maybe):
        return aten.linear(x, w, b)

    def replace(self, x, w, b):
        return rw.linear(x, w, b)


class TorchAddmm(Rule):
    """addmm(b, x, w)  ->  rw.linear(x, transpose(w), b)"""

    def pattern(self, b: Tensor(rank=1), x, w):
        return aten.addmm(b, x, w)

    def where(self, b, w):
        return b.shape[0] == w.shape[1]

    def replace(self, b, x, w):
        return rw.linear(x, aten.transpose.int(w, 0, 1), b)


class ProductWithTransposed(Rule):
    """matmul(x, transpose(w))  ->  rw.linear(x, w)"""

    priority = 2

    def pattern(self, x, w: Tensor(rank=2), _product: OpVar(aten.matmul, aten.mm)):
        ways = (
            *(aten.t(w), aten.numpy_T(w), aten.mT(w)),
            *(aten.transpose.int(w, 0, 1), aten.transpose.int(w, 1, 0)),
        )
        return _product(x, either(*(way.shared() for way in ways)))

    def replace(self, x, w):
        return rw.linear(x, w)


class ProductWithConstant(Rule):
    """matmul(x, w)  ->  rw.linear(x, transpose(w))      for a constant matrix w"""

    priority = 1

    def pattern(self, x, w: Const(rank=2), _product: OpVar(aten.matmul, aten.mm)):
        return _product(x, w)

    def replace(self, x, w):
        return rw.linear(x, aten.transpose.int(w, 0, 1))


class TorchMatmul(Rule):
    """matmul(a, b)  ->  rw.matmul(a, b)      and mm, bmm, mv, dot"""

    def pattern(self, a, b, _product: OpVar(aten.matmul, aten.mm, aten.bmm, aten.mv, aten.dot)):
        return _product(a, b)

    def replace(self, a, b):
        return rw.matmul(a, b)


class AddBias(Rule):
    """linear(x, w) + b  ->  linear(x, w, b)      for a vector b"""

    exactness = REFOLD

    def pattern(self, x, w, b: Tensor(rank=1)):
        return rw.linear(x, w) + b

    def where(self, x, w, b):
        return b.dtype == x.dtype and b.shape[0] == w.shape[0]

    def replace(self, x, w, b):
        return rw.linear(x, w, b)


class LinearOfRows(Rule):
    """reshape(linear(reshape(x), w, b), [*s, n])  ->  linear(reshape(x, [*s, k]), w, b)"""

    def pattern(self, x, w, b: Maybe, _flat: Attr, shape: Attr):
        rows = aten.reshape(x, _flat).shared()
        return aten.reshape(rw.linear(rows, w, b), shape)

    def where(self, w, shape):
        return len(shape) > 0 and shape[-1] == w.shape[0]

    def replace(self, x, w, b, shape):
        wanted = (*shape[:-1], w.shape[1])
        return rw.linear(in_shape(x, wanted), w, b)


def in_shape(x: Handle, shape: tuple[Any, ...]) -> Any:
    """`x` in `shape`: itself, where it is known to have that already."""
    return x if x.rank == len(shape) and x.shape == shape else aten.reshape(x, shape)


RULES = (
    TorchLinear,
    TorchAddmm,
    ProductWithTransposed,
    ProductWithConstant,
    TorchMatmul,
    AddBias,
    LinearOfRows,
)
