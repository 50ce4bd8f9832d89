"""Whether two tensors share memory: not only a range of addresses, but a byte.

A strided tensor lies at ``start + i0*s0 + i1*s1 + ... + b``, for each index ``i`` within its shape
and each byte ``b`` of an element. Two of them meet where such sums are equal: a linear equation in
bounded whole numbers. That is hard in general and easy for the layouts that models make, whose
strides are nearly nested: there a greatest common divisor or the first few choices decide.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

import torch

_MOST_CHOICES: Final = 2_000
"""How many partial sums are looked at (about a millisecond) before two tensors count as sharing."""


def share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a byte belongs to both tensors, which are strided.

    The answer is exact, but where the layouts are too contrived to tell in bounded time: there
    it is True.
    """
    if not a.numel() or not b.numel():
        return False
    (start, end), (other, other_end) = span(a), span(b)
    if end <= other or other_end <= start:
        return False
    # start + (a's terms) = other + (b's terms); with b's counted down from their ends, all are
    # on one side:  (a's terms) + (b's terms) = the last byte of b - start
    terms: Counter[int] = Counter()
    for tensor in (a, b):
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            terms[stride * tensor.itemsize] += size - 1
        terms[1] += tensor.itemsize - 1
    found = _Sums([(step, most) for step, most in sorted(terms.items()) if step and most])
    return found.reach(other_end - 1 - start)


def span(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of the first byte and after the last one of a tensor that has elements."""
    start = tensor.data_ptr()
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.itemsize


class _Sums:
    """The numbers ``c1*x1 + c2*x2 + ...`` for whole numbers ``0 <= x <= most``.

    Args:
        terms: pairs ``(c, most)``, with ``c`` growing.
    """

    def __init__(self, terms: list[tuple[int, int]]) -> None:
        self.terms = terms
        self.largest = [0]  # of the sums of the first n terms
        self.divisor = [0]  # of all of them
        for step, most in terms:
            self.largest.append(self.largest[-1] + step * most)
            self.divisor.append(math.gcd(self.divisor[-1], step))
        self.choices = _MOST_CHOICES

    def reach(self, total: int) -> bool:
        """Whether `total` is one of them; True, too, where that is not found out in time."""
        return self._reach(len(self.terms), total)

    def _reach(self, count: int, total: int) -> bool:
        """Whether the first `count` terms make `total`: the largest step is chosen first."""
        if total < 0 or total > self.largest[count]:
            return False
        if total == 0:
            return True
        if total % self.divisor[count]:
            return False
        step, most = self.terms[count - 1]
        below = self.largest[count - 1]
        first, last = max(0, -((below - total) // step)), min(most, total // step)
        for times in range(last, first - 1, -1):
            self.choices -= 1
            if self.choices < 0 or self._reach(count - 1, total - step * times):
                return True
        return False
