"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rewright.backends.tensorrt.declaration import Call, converts
from rewright.backends.tensorrt.dtypes import FLOATS
from rewright.backends.tensorrt.enums import MatrixOperation
from rewright.backends.tensorrt.needs import That
from rewright.backends.tensorrt.shaping import squeeze, unsqueeze
from rewright.backends.tensorrt.tensor import Tensor, promoted, ranked


def matmul(a: Tensor, b: Tensor, *, transpose_b: bool = False) -> Tensor:
    """``a @ b``, or ``a @ bᵀ``, of two dimensions or more; those before the last two broadcast."""
    rank = max(a.rank, b.rank)
    op = MatrixOperation.TRANSPOSE if transpose_b else MatrixOperation.NONE
    a, b = promoted((a, b))
    return a.net.layer(
        "add_matrix_multiply", ranked(a, rank), MatrixOperation.NONE, ranked(b, rank), op
    )


_FLOATS_IN: Final = dict.fromkeys(
    "self mat1 mat2 mat input weight bias a b batch1 batch2 vec vec2 other tensor out".split(),
    FLOATS,
)


@converts("rw.linear", "aten.linear", dtypes=_FLOATS_IN)
def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """MATRIX_MULTIPLY by the transpose, then SUM"""
    x = unsqueeze(input, (0,)) if input.rank == 1 else input
    if weight.rank == 1:
        product = matmul(x, unsqueeze(weight, (1,)))
        product = squeeze(product, (x.rank - 1,))
    else:
        product = matmul(x, weight, transpose_b=True)
    if bias is not None:
        product = product + bias
    return squeeze(product, (0,)) if input.rank == 1 else product


@converts("rw.matmul", "aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot",
          dtypes=_FLOATS_IN)  # fmt: skip
def matmul_(call: Call, self: Any = None, other: Any = None, a: Any = None, b: Any = None,
            mat2: Any = None, vec: Any = None, tensor: Any = None) -> Tensor:  # fmt: skip
    """MATRIX_MULTIPLY"""
    left = next(x for x in (self, a) if x is not None)
    right = next(x for x in (other, b, mat2, vec, tensor) if x is not None)
    return product_of(left, right)


def product_of(a: Tensor, b: Tensor) -> Tensor:
    """``torch.matmul(a, b)``: a vector is a row on the left and a column on the right."""
    left = unsqueeze(a, (0,)) if a.rank == 1 else a
    right = unsqueeze(b, (1,)) if b.rank == 1 else b
    product = matmul(left, right)
    gone = [product.rank - 2] * (a.rank == 1) + [product.rank - 1] * (b.rank == 1)
    return squeeze(product, gone)


@converts("aten.addmm", "aten.addmv", dtypes=_FLOATS_IN)
def addmm(call: Call, self: Tensor, mat1: Any = None, mat2: Any = None, mat: Any = None,
          vec: Any = None, beta: Any = 1, alpha: Any = 1) -> Tensor:  # fmt: skip
    """MATRIX_MULTIPLY, then SUM"""
    left = mat if mat1 is None else mat1
    product = product_of(left, vec if mat2 is None else mat2)
    return _added(self, product, beta, alpha)


@converts("aten.baddbmm", dtypes=_FLOATS_IN)
def baddbmm(call: Call, self: Tensor, batch1: Tensor, batch2: Tensor, beta: Any,
            alpha: Any) -> Tensor:  # fmt: skip
    """MATRIX_MULTIPLY, then SUM"""
    return _added(self, matmul(batch1, batch2), beta, alpha)


def _added(x: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    product = product if alpha == 1 else product * float(alpha)
    if beta == 0:  # torch does not even look at nan then
        return product
    return (x if beta == 1 else x * float(beta)) + product


@converts("aten.outer", "aten.ger", dtypes=_FLOATS_IN)
def outer(call: Call, self: Tensor, vec2: Tensor) -> Tensor:
    """PROD of a column and a row"""
    return unsqueeze(self, (1,)) * unsqueeze(vec2, (0,))


@converts(
    "aten.einsum",
    dtypes={"tensors": FLOATS, "out": FLOATS},
    needs=[
        That("small letters only", lambda query: query.arg("equation").islower()),
        That("no order of its own", lambda query: query.arg("path") is None),
    ],
)
def einsum(call: Call, equation: str, tensors: Sequence[Tensor], path: Any) -> Tensor:
    """EINSUM"""
    return call.net.layer("add_einsum", promoted(tensors), equation.replace(" ", ""))
