"""Programs in the making: instructions, registers, choices (see :mod:`rewright.passes.matcher`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rewright.passes.matcher import (
    REFUSED,
    START,
    TRACE,
    Choices,
    Instruction,
    Registers,
)
from rewright.passes.reasons import NoMatch
from rewright.passes.variables import Pattern


def refuse(registers: Registers, at: int, reason: str, *args: Any) -> int:
    """Refuses; keeps the reason if somebody asked for it."""
    trace = registers[TRACE]
    if trace is not None:
        trace.append((at, NoMatch(reason, *args)))
    return REFUSED


class Label:
    """The number of an instruction that is not written yet."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0


def with_item(registers: Registers, register: int, item: Any) -> Registers:
    """A copy of `registers` with one of them changed."""
    changed = registers.copy()
    changed[register] = item
    return changed


class Program:
    """A list of instructions that is being written."""

    def __init__(self) -> None:
        self.code: list[Instruction] = []
        self.size = START + 1

    def register(self) -> int:
        """A new register."""
        self.size += 1
        return self.size - 1

    def add(self, instruction: Instruction) -> int:
        """Writes an instruction; gives the number of the next."""
        self.code.append(instruction)
        return len(self.code)

    def choose(
        self, parts: Sequence[Pattern], end: Label, write: Callable[[Pattern], None]
    ) -> None:
        """Writes code for each of `parts`, of which one has to pass."""
        for part in parts[:-1]:
            other = self.fork()
            write(part)
            self.add(lambda _registers, _choices: end.at)
            other.at = len(self.code)
        write(parts[-1])
        end.at = len(self.code)

    def fork(self) -> Label:
        """Goes on, and on refusal from the label, which the caller sets."""
        other, after = Label(), len(self.code) + 1

        def fork(registers: Registers, choices: Choices) -> int:
            choices.append((other.at, registers.copy()))
            return after

        self.add(fork)
        return other
