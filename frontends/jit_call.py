"""A compiled JIT graph as Dynamo calls it: flat arguments in, flat results out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch

from rewright.caller import warn
from rewright.errors import CompileError, FallbackWarning, InputError, RewrightError, SettingsError
from rewright.frontends.jit_inputs import JitInput
from rewright.frontends.memory import share_memory, span
from rewright.ir.graph import Constant, Graph
from rewright.ir.signature import Signature
from rewright.statistics import record_fallback


@attrs.frozen
class OverlapCheck:
    """Finds an input that is written to and shares memory with another one.

    Values are pure inside a program, so it can't see a write to one input in another. Dynamo
    passes the very same tensor once; views of one tensor come here.

    Attributes:
        names: of all flat arguments.
        mutated: the numbers of those that are written to.
        watched: the numbers of those that are compared. Parameters that nobody writes to
            are not among them.
    """

    names: tuple[str, ...]
    mutated: frozenset[int]
    watched: tuple[int, ...]

    @classmethod
    def of(cls, graph: Graph, inputs: Sequence[JitInput]) -> OverlapCheck | None:
        """The check for `graph`, or None where it writes to no input."""
        targets = {
            value.name if isinstance(value, Constant) else value.index for value in graph.targets
        }
        keys: list[Any] = []
        for item in inputs:
            keys.append(
                item.name if item.is_constant else sum(isinstance(key, int) for key in keys)
            )
        mutated = frozenset(at for at, key in enumerate(keys) if key in targets)
        watched = [
            at for at, item in enumerate(inputs) if item.kind != "parameter" or at in mutated
        ]
        return cls(tuple(i.name for i in inputs), mutated, tuple(watched)) if mutated else None

    @classmethod
    def of_signature(cls, graph: Graph, signature: Signature) -> OverlapCheck | None:
        """The check for a program with that signature, or None where it writes to no input."""
        numbers = {value.index for value in graph.targets if not isinstance(value, Constant)}
        mutated = frozenset(
            at for at, argument in enumerate(signature.arguments) if argument.input in numbers
        )
        names = tuple(argument.name for argument in signature.arguments)
        return cls(names, mutated, tuple(range(len(names)))) if mutated else None

    def refuse(self, args: Sequence[Any]) -> None:
        """Refuses flat arguments of which a written one overlaps another one.

        Raises:
            InputError: naming both.
        """
        if len(args) == len(self.names) and (pair := self.find(args)):
            raise _overlapping(*pair)

    def find(self, args: Sequence[Any]) -> tuple[str, str] | None:
        """The names of a written input and of one that overlaps it, or None."""
        spans = sorted(
            (*span(args[at]), at)
            for at in self.watched
            if isinstance(args[at], torch.Tensor) and args[at].numel()
        )
        group: list[int] = []  # inputs whose address ranges hang together
        reached = 0
        for start, end, at in spans:
            if start >= reached:
                group.clear()
            elif (other := self._collision(args, at, group)) is not None:
                first, second = sorted((at, other))
                return self.names[first], self.names[second]
            group.append(at)
            reached = max(reached, end)
        return None

    def _collision(self, args: Sequence[Any], at: int, group: Sequence[int]) -> int | None:
        for other in group:
            if self.mutated & {at, other} and share_memory(args[at], args[other]):
                return other
        return None


@attrs.define
class JitCall:
    """What Dynamo calls in the place of its graph, where the program alone is not enough.

    Attributes:
        program: takes the flat arguments, numbers in the place of wrapped floats.
        floats: the numbers of the arguments that are wrapped floats.
        overlap: what has to be checked before a call, if anything.
        eager: Dynamo's graph, for calls that the check refuses, and for all calls where the
            program can't be made for the parameters that came.
        on_error: what to do with these: ``eager`` or ``raise``.
    """

    program: Callable[..., Any]
    floats: tuple[int, ...] = ()
    overlap: OverlapCheck | None = None
    eager: Callable[..., Any] | None = None
    on_error: str = "eager"
    _has_failed: bool = attrs.field(default=False, init=False)

    def __call__(self, *args: Any) -> Any:
        if self._has_failed and self.eager is not None:
            return self.eager(*args)
        try:
            return self._run(args)
        except Exception as error:
            # What is made for parameters is made at their first call: engines, too.
            may_fall_back = self.eager is not None and self.on_error == "eager"
            if not may_fall_back or not getattr(error, "ran_nothing", False):
                raise
            if isinstance(error, SettingsError):
                raise
            self._has_failed = True
            warn_of_eager(as_ours(error))
        assert self.eager is not None
        return self.eager(*args)

    def _run(self, args: Sequence[Any]) -> Any:
        if self.overlap is not None and (pair := self.overlap.find(args)):
            return self._refuse(pair, args)
        if self.floats:
            numbers = list(args)
            for at in self.floats:
                numbers[at] = args[at].item()
            args = numbers
        return self.program(*args)

    def _refuse(self, pair: tuple[str, str], args: Sequence[Any]) -> Any:
        error = _overlapping(*pair)
        if self.on_error == "raise":
            raise error
        record_fallback(" ".join(str(error).split()))
        warn(f"a graph runs in eager mode: {error}", FallbackWarning)
        assert self.eager is not None
        return self.eager(*args)


def _overlapping(one: str, other: str) -> InputError:
    return InputError(
        f"the inputs {one} and {other} share memory, and the model writes to one",
        name=one,
        hint="pass a clone() of one of them",
    )


# --------------------------------------------------------------------------- failures


def as_ours(error: Exception) -> RewrightError:
    """`error` itself, or what an error that nobody meant looks like to the user."""
    if isinstance(error, RewrightError):
        return error
    ours = CompileError(
        f"internal error while compiling: {type(error).__name__}: {error}",
        hint="this is a bug in Rewright; options={'on_error': 'eager'} runs the graph in eager "
        "mode. The traceback is logged at level DEBUG",
    )
    ours.__cause__ = error
    return ours


def warn_of_eager(failure: RewrightError) -> None:
    """Says that a graph runs in eager mode, and why."""
    record_fallback(" ".join(str(failure).split()))
    warn(
        f"a graph runs in eager mode, because it failed to compile: {failure}\n"
        "  options={'on_error': 'raise'} makes this an error",
        FallbackWarning,
    )
