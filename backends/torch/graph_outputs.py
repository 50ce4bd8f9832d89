"""What a caller gets of a program whose memory is used again: copies, and views of its own tensors.

A recorded program writes its results to the same memory in every replay. So results are copied
before the next one; those that share memory share it in the copies, too. What is a view of an
argument or of a constant is no copy, but the same view of what the caller passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

Make: TypeAlias = Callable[[Sequence[Any], Sequence[Tensor], Sequence[Any]], Any]
"""Makes one result of a call's arguments, the copies, and the results made before it."""


@attrs.frozen(eq=False)
class Outputs:
    """How the results of a call are made.

    Attributes:
        sources: the memory that is copied in every call.
        makers: one for each result.
        is_bare: whether there is one result, by itself.
    """

    sources: tuple[Tensor, ...]
    makers: tuple[Make, ...]
    is_bare: bool

    @classmethod
    def of(
        cls, returned: Any, given: Sequence[Any], constants: Sequence[Tensor], copied: bool = True
    ) -> Outputs:
        """How to make the results of calls like one that returned `returned`.

        Args:
            returned: a result, or a tuple of results.
            given: the arguments that it was called with.
            constants: the tensors that it knew.
            copied: whether other results than aliases are in memory that will be used again.
        """
        is_bare = not isinstance(returned, tuple)
        results = (returned,) if is_bare else returned
        planner = _Planner(results, given, constants, copied)
        makers = tuple(planner.maker(number) for number in range(len(results)))
        return cls(tuple(planner.sources), makers, is_bare)

    def deliver(self, args: Sequence[Any]) -> Any:
        """The results of a call with `args`, once its memory is filled (on the current stream)."""
        fresh = copies(self.sources)
        made: list[Any] = []
        for make in self.makers:
            made.append(make(args, fresh, made))
        return made[0] if self.is_bare else tuple(made)


def copies(sources: Sequence[Tensor]) -> list[Tensor]:
    """Tensors with the numbers and strides of `sources`, in memory of their own."""
    if len(sources) < _MANY:
        return [s.clone() if _is_dense(s) else _empty_like(s).copy_(s) for s in sources]
    made = [_empty_like(source) for source in sources]
    torch._foreach_copy_(made, list(sources))
    return made


_MANY = 3
"""From so many on, one launch for all copies costs less than one for each."""


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one stretch of memory: a clone has the same strides then."""
    expected = 1
    for step, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if step != expected:
                return False
            expected *= size
    return True


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )


def _memory(tensor: Tensor) -> int:
    """The address of a tensor's storage; 0 of an empty one."""
    return tensor.untyped_storage().data_ptr() if tensor.numel() else 0


@attrs.define(eq=False)
class _Planner:
    results: Sequence[Any]
    given: Sequence[Any]
    constants: Sequence[Tensor]
    copied: bool
    sources: list[Tensor] = attrs.field(factory=list)
    _arguments: Mapping[int, int] = attrs.field(init=False)
    _known: frozenset[int] = attrs.field(init=False)
    _groups: dict[int, list[int]] = attrs.field(init=False)
    _places: dict[int, int] = attrs.field(factory=dict, init=False)

    @_arguments.default
    def _addresses(self) -> Mapping[int, int]:
        pairs = ((at, t) for at, t in enumerate(self.given) if isinstance(t, Tensor))
        return {_memory(tensor): at for at, tensor in pairs if _memory(tensor)}

    @_known.default
    def _constant_addresses(self) -> frozenset[int]:
        return frozenset(map(_memory, self.constants)) - {0}

    @_groups.default
    def _by_memory(self) -> dict[int, list[int]]:
        """The results that are copied, by the memory that they share."""
        groups: dict[int, list[int]] = {}
        for number, result in enumerate(self.results):
            if isinstance(result, Tensor) and _memory(result):
                groups.setdefault(_memory(result), []).append(number)
        return groups

    def maker(self, number: int) -> Make:
        """How to make a result."""
        result = self.results[number]
        if not isinstance(result, Tensor):
            return lambda args, fresh, made: result
        for earlier in range(number):
            if self.results[earlier] is result:
                return lambda args, fresh, made: made[earlier]
        for at, argument in enumerate(self.given):
            if argument is result:
                return lambda args, fresh, made: args[at]
        memory = _memory(result)
        if memory in self._arguments:
            return _view_of(self._arguments[memory], self.given[self._arguments[memory]], result)
        if memory in self._known:
            if any(result is constant for constant in self.constants):
                return lambda args, fresh, made: result
            return lambda args, fresh, made: _again(result)
        if not self.copied:
            return lambda args, fresh, made: result
        group = self._groups.get(memory, [number])
        if len(group) == 1 and (_is_dense(result) or not _overlaps(result)):
            at = len(self.sources)
            self.sources.append(result)
            return lambda args, fresh, made: fresh[at]
        return self._part(memory, group, result)

    def _part(self, memory: int, group: Sequence[int], result: Tensor) -> Make:
        """A result that lies in memory with others, or over itself: all of that is copied."""
        spans = [_span(self.results[number]) for number in group]
        start, end = min(low for low, _ in spans), max(high for _, high in spans)
        start -= start % _ALIGNMENT  # so that every dtype finds its elements at whole offsets
        if memory not in self._places:
            self._places[memory] = len(self.sources)
            span = torch.empty(0, dtype=torch.uint8, device=result.device)
            storage = result.untyped_storage()
            self.sources.append(span.set_(storage, start, (end - start,), (1,)))
        at = self._places[memory]
        offset = int(result.storage_offset()) - start // result.itemsize
        kind = result.dtype, tuple(result.shape), result.stride()
        return lambda args, fresh, made: _in_storage(fresh[at], offset, *kind)


_ALIGNMENT = 16


def _span(tensor: Tensor) -> tuple[Any, Any]:
    """The first byte of a tensor in its storage, and the one after its last."""
    start = tensor.storage_offset()
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return start * tensor.itemsize, (start + last + 1) * tensor.itemsize


def _overlaps(tensor: Tensor) -> bool:
    """Whether two elements may be at one place."""
    reach = 0
    for step, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if step <= reach:
                return True
            reach += step * (size - 1)
    return False


def _again(tensor: Tensor) -> Tensor:
    """Another tensor object of the same memory."""
    return tensor.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _in_storage(
    owner: Tensor, offset: int, dtype: torch.dtype, shape: Sequence[int], strides: Sequence[int]
) -> Tensor:
    """A tensor in the memory of `owner`, `offset` elements after the storage's start."""
    made = torch.empty(0, dtype=dtype, device=owner.device)
    return made.set_(owner.untyped_storage(), offset, tuple(shape), tuple(strides))


def _view_of(at: int, argument: Tensor, result: Tensor) -> Make:
    """The view of argument number `at` that `result` is of `argument`."""
    shape, strides, dtype = tuple(result.shape), result.stride(), result.dtype
    ahead = result.storage_offset() * result.itemsize
    ahead -= argument.storage_offset() * argument.itemsize
    if dtype == argument.dtype:
        step = ahead // result.itemsize
        return lambda args, fresh, made: args[at].as_strided(
            shape, strides, args[at].storage_offset() + step
        )

    def make(args: Sequence[Any], fresh: Sequence[Tensor], made: Sequence[Any]) -> Tensor:
        start = args[at].storage_offset() * args[at].itemsize + ahead
        return _in_storage(args[at], start // dtype.itemsize, dtype, shape, strides)

    return make
