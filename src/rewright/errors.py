"""Every error that Rewright raises on purpose, in one small hierarchy.

    RewrightError
      InputError             the values given to a program
        CheckError           a check that the model makes of its values failed
      SettingsError          the settings given to a compile
      ParseError             IR or pipeline text
      ArtifactError          a saved program
      EngineError            building, loading or running a TensorRT engine
      RuleError              a rewrite rule that is not well declared
      CompileError
        FrontendError        a torch graph could not be imported
        UnsupportedError     an operator or feature that can't be compiled
        InferenceError       no type could be given to a node
        VerificationError    the IR is not well formed
        PassError            a pass failed
        ConversionError      a node could not be given to a backend

and every warning, in another:

    RewrightWarning
      FallbackWarning        a graph runs in eager mode, because it failed to compile
      DetachedWarning        trainable parameters, whose gradients a compiled graph can't give
      StaleWeightsWarning    a weight was edited, and a program holds what was made of it before

Each error says what went wrong, where, and what to do next, and keeps the parts as attributes.
Nodes, values and paths are kept as text, so that an error can be pickled and keeps no graph alive.

This module is the bottom of the package: it imports nothing of ours, and nothing heavy.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "CheckError",
    "CompileError",
    "ConversionError",
    "DetachedWarning",
    "EngineError",
    "FallbackWarning",
    "FrontendError",
    "InferenceError",
    "InputError",
    "ParseError",
    "PassError",
    "RewrightError",
    "RewrightWarning",
    "RuleError",
    "SettingsError",
    "StaleWeightsWarning",
    "UnsupportedError",
    "VerificationError",
    "did_you_mean",
]


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint for an unknown ``name``: the nearest known name, or all of them.

    Args:
        name: what was given.
        known: what could have been.
        otherwise: said in the place of all known names, where these would fill a screen.

    >>> did_you_mean("torch_backnd", ["device", "torch_backend"])
    "did you mean 'torch_backend'?"
    """
    names = sorted(set(known))
    by_folded = {candidate.casefold(): candidate for candidate in names}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {by_folded[near[0]]!r}?"
    if otherwise:
        return otherwise
    return "known names: " + ", ".join(names) if names else "no names are known here"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


class RewrightError(Exception):
    """The root: catch it to catch everything that Rewright raises on purpose.

    Args:
        message: what went wrong, without a final full stop.
        where: what it happened at: a source location, a node, a file. Kept as ``str(where)``.
        hint: what to do next.
    """

    def __init__(
        self, message: str, *, where: object | None = None, hint: str | None = None
    ) -> None:
        # Only `message` goes to `args`. The rest is in `__dict__`, which pickle and copy restore.
        super().__init__(message)
        self.message = message
        self.where = _text(where)
        self.hint = hint

    def details(self) -> list[tuple[str, str]]:
        """The lines under the message, as (label, text); text may have several lines."""
        rows = [("where", self.where), ("hint", self.hint)]
        return [(label, text) for label, text in rows if text]

    def __str__(self) -> str:
        lines = [self.message]
        for label, text in self.details():
            start = f"  {label}: "
            # Later lines of a text stand under its first.
            block = start + text.replace("\n", "\n" + " " * len(start))
            lines += [line.rstrip() for line in block.split("\n")]
        return "\n".join(lines)


class InputError(RewrightError, ValueError):
    """A value given to a program or to a compile has the wrong shape, dtype, device or size.

    Args:
        name: the input's name.
    """

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.name = name


class CheckError(InputError, RuntimeError):
    """A check that the model makes while it runs (``torch._check``) failed.

    It is a RuntimeError, too, which is what eager mode raises there.
    """


class SettingsError(RewrightError, ValueError):
    """A setting is unknown, has an illegal value, or contradicts another.

    Args:
        setting: the setting's name.
    """

    def __init__(
        self,
        message: str,
        *,
        setting: str | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.setting = setting


class ParseError(RewrightError):
    """A text (IR, or a pipeline) is not in its language. Shows the line, with a caret.

    Args:
        file: the file's name; ``<string>`` stands for one that is not known.
        line: counted from 1.
        column: counted from 1, in characters.
        source: the text of that line.
    """

    def __init__(
        self,
        message: str,
        *,
        file: object | None = None,
        line: int | None = None,
        column: int | None = None,
        source: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.file = _text(file)
        self.line = line
        self.column = column
        self.source = None if source is None else source.rstrip("\n")
        where = self.file
        if line is not None:
            where = f"{where or '<string>'}:{line}" + ("" if column is None else f":{column}")
        super().__init__(message, where=where, hint=hint)

    def details(self) -> list[tuple[str, str]]:
        """The position with the line and a caret below it, then the hint."""
        rows = super().details()
        if self.line is None or self.source is None:
            return rows
        number = str(self.line)
        shown = f"{number} | {self.source}"
        if self.column is not None:
            # Keep tabs, so that the caret lines up however wide they are shown.
            before = self.source[: self.column - 1].ljust(self.column - 1)
            blank = "".join("\t" if char == "\t" else " " for char in before)
            shown += f"\n{' ' * len(number)} | {blank}^"
        (label, position), *rest = rows
        return [(label, f"{position}\n{shown}"), *rest]


class ArtifactError(RewrightError):
    """A saved program is damaged, too new, or can't be loaded here.

    Args:
        path: the artifact's file.
    """

    def __init__(
        self,
        message: str,
        *,
        path: object | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        self.path = _text(path)
        super().__init__(message, where=where if where is not None else path, hint=hint)


class EngineError(RewrightError):
    """A TensorRT engine could not be built, loaded or run.

    Args:
        engine: the name of its segment.
    """

    def __init__(
        self,
        message: str,
        *,
        engine: str | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.engine = engine


class RuleError(RewrightError):
    """A rewrite rule is not well declared.

    Args:
        rule: the rule's name.
    """

    def __init__(
        self,
        message: str,
        *,
        rule: str | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.rule = rule


class CompileError(RewrightError):
    """A program could not be compiled.

    Args:
        op: the operator at fault, as ``aten.nonzero``.
        node: the node at fault, as IR text.
        where: the user's source line and module path, where they are known.
    """

    def __init__(
        self,
        message: str,
        *,
        op: object | None = None,
        node: object | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.op = _text(op)
        self.node = _text(node)

    def details(self) -> list[tuple[str, str]]:
        """The node, where it comes from, and what to do."""
        rows = super().details()
        return [("node", self.node), *rows] if self.node else rows


class FrontendError(CompileError):
    """A graph from TorchDynamo or torch.export could not be imported."""


class UnsupportedError(CompileError):
    """An operator or a feature that can't be compiled."""


class InferenceError(CompileError):
    """No type could be given to a node: its operands don't fit, or a size would be guarded on.

    Args:
        guard: the condition on sizes that would have to be assumed; None where that isn't it.
    """

    def __init__(
        self,
        message: str,
        *,
        guard: str | None = None,
        op: object | None = None,
        node: object | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, op=op, node=node, where=where, hint=hint)
        self.guard = guard


class VerificationError(CompileError):
    """The IR is not well formed.

    Args:
        excerpt: the lines of the graph around the fault.
    """

    def __init__(
        self,
        message: str,
        *,
        excerpt: str | None = None,
        op: object | None = None,
        node: object | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, op=op, node=node, where=where, hint=hint)
        self.excerpt = excerpt

    def details(self) -> list[tuple[str, str]]:
        """The graph around the fault stands last, as it is the longest."""
        rows = super().details()
        return [*rows, ("graph", "\n" + self.excerpt)] if self.excerpt else rows


class PassError(CompileError):
    """A pass failed.

    Args:
        pass_name: the pass, as it is written in a pipeline.
        rule: the rule at fault, where one is known to be.
        ran: the passes that had run before it, as they are written in a pipeline.
        excerpt: the lines of the graph around the fault.
        replay: a command that shows the same failure again.
    """

    def __init__(
        self,
        message: str,
        *,
        pass_name: str | None = None,
        rule: str | None = None,
        ran: str | None = None,
        excerpt: str | None = None,
        replay: str | None = None,
        op: object | None = None,
        node: object | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, op=op, node=node, where=where, hint=hint)
        self.pass_name = pass_name
        self.rule = rule
        self.ran = ran
        self.excerpt = excerpt
        self.replay = replay

    def details(self) -> list[tuple[str, str]]:
        """What ran before and how to replay it follow the hint; the graph stands last."""
        added = [("after", self.ran), ("replay", self.replay)]
        rows = super().details() + [(label, text) for label, text in added if text]
        return [*rows, ("graph", "\n" + self.excerpt)] if self.excerpt else rows


class ConversionError(CompileError):
    """A node could not be given to a backend that had said it takes it.

    Args:
        backend: the backend's name.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        op: object | None = None,
        node: object | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, op=op, node=node, where=where, hint=hint)
        self.backend = backend


class RewrightWarning(UserWarning):
    """The root of every warning that Rewright gives."""


class FallbackWarning(RewrightWarning):
    """A graph failed to compile and runs in eager mode: right, but no faster than before."""


class DetachedWarning(RewrightWarning):
    """A graph was compiled with gradients enabled: what it returns is detached from autograd."""


class StaleWeightsWarning(RewrightWarning):
    """A weight was edited in place, and a program still holds what was made of it before."""
