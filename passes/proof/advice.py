"""What to write so that a rule holds: which exactness, and of what dtypes its variables must be.

A rule that is wrong on one example is tried on examples of every dtype. Where it is right in some
and wrong in others, the variables are found that tell the two apart, and how to declare them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs
import torch

from rewright.ir.types import DTYPE_NAMES
from rewright.passes.declaration import Spelling
from rewright.passes.proof.checking import Wrong
from rewright.passes.proof.examples import Example
from rewright.passes.proof.precision import DTYPES
from rewright.passes.rule import Rule
from rewright.passes.variables import FLOATS, Const, Many, Maybe, Tensor, Variable

Dtypes = Collection[torch.dtype]


@attrs.frozen
class Trial:
    """One example that the rule fired on.

    Attributes:
        spelling: the pattern that it was made from.
        dtypes: of what the tensors are that each variable is bound to.
        is_right: whether the rule is right there, or would be with the advised exactness.
    """

    spelling: Spelling
    dtypes: Mapping[str, frozenset[torch.dtype]]
    is_right: bool

    @classmethod
    def of(cls, spelling: Spelling, example: Example, is_right: bool) -> Trial:
        """What became of `example`."""
        bound = {name: frozenset(found) for name, found in example.bound.items() if found}
        return cls(spelling, bound, is_right)

    def is_within(self, names: Iterable[str], allowed: Dtypes) -> bool:
        """Whether the variables called `names` are of `allowed` dtypes only."""
        return all(self.dtypes.get(name, frozenset()) <= set(allowed) for name in names)

    @property
    def kinds(self) -> frozenset[torch.dtype]:
        """The dtypes of all its variables."""
        return frozenset().union(*self.dtypes.values())


def advice(rule: type[Rule], wrong: Wrong, trials: Sequence[Trial]) -> str | None:
    """What to do about a rule that is wrong, on one line; None where nothing is known to help.

    Args:
        rule: the rule.
        wrong: what is wrong with it.
        trials: what became of examples of every dtype.
    """
    said = []
    if wrong.is_rounding:
        said.append(
            f"an {rule.exactness.name} rule keeps every bit, and REFOLD would allow this: if that "
            "is meant, write `exactness = REFOLD` in the rule"
        )
    for spelling in dict.fromkeys(trial.spelling for trial in trials if not trial.is_right):
        own = [trial for trial in trials if trial.spelling is spelling]
        found = _restriction(rule, spelling, own, is_numeric=wrong.is_numeric)
        if found:
            said.append(found)
            break
    return "; ".join(said) or None


def _restriction(
    rule: type[Rule], spelling: Spelling, trials: Sequence[Trial], *, is_numeric: bool
) -> str:
    """Which dtypes the rule is right in, and how to say that it is for these."""
    right = [trial for trial in trials if trial.is_right]
    wrong = [trial for trial in trials if not trial.is_right]
    bad = _alone(wrong)
    good = _alone(right) - bad
    if not good:
        return ""
    names = [name for name in spelling.variables if any(name in t.dtypes for t in trials)]
    if not bad:
        odd = [n for n in names if any(len(t.kinds) > 1 and n in t.dtypes for t in wrong)]
        equal = " == ".join(f"{name}.dtype" for name in odd)
        return f"it is wrong only where dtypes differ: let `where` ask for {equal}"
    # A coarse dtype hides an error: no reason to be for that one only.
    hidden = good & {*FLOATS} if is_numeric and bad & {*FLOATS} else set()
    good -= hidden
    if not good:
        return ""
    facts = f"it is right in {_listed(good)} and wrong in {_listed(bad)}"
    few, allowed = _telling(names, good, right, wrong, hidden)
    more = ", ".join(f"{n}: {_declared(spelling.variables[n], allowed)}" for n in few)
    said = f"{facts}: to keep it off these, write `{more}` in `{spelling.name}`"
    if any(trial.is_within(few, allowed) for trial in wrong):
        equal = " == ".join(f"{name}.dtype" for name in names)
        said += f", and let `where` ask for {equal}"
    return said


def _alone(trials: Iterable[Trial]) -> set[torch.dtype]:
    """The dtypes of trials that have but one."""
    return {dtype for trial in trials if len(trial.kinds) == 1 for dtype in trial.kinds}


def _telling(
    names: Sequence[str],
    good: Dtypes,
    right: Sequence[Trial],
    wrong: Sequence[Trial],
    hidden: Dtypes,
) -> tuple[list[str], list[torch.dtype]]:
    """The fewest variables whose dtypes tell right from wrong, and what these must be."""
    for name in names:
        seen = {d for trial in right for d in trial.dtypes.get(name, ())}
        allowed = seen - {d for trial in wrong for d in trial.dtypes.get(name, ())} - set(hidden)
        # An absent variable tells nothing.
        if allowed >= set(good) and all(name in trial.dtypes for trial in wrong):
            return [name], _ordered(allowed)
    return [*names], _ordered(good)


def _ordered(dtypes: Dtypes) -> list[torch.dtype]:
    known = [dtype for dtype in DTYPES if dtype in dtypes]
    return known + sorted(set(dtypes) - set(known), key=str)


def _listed(dtypes: Dtypes) -> str:
    return " ".join(DTYPE_NAMES[dtype] for dtype in _ordered(dtypes))


# --------------------------------------------------------------------------- declarations


def _declared(variable: Variable, dtypes: Sequence[torch.dtype]) -> str:
    """How `variable` is declared so that it is of `dtypes` only."""
    if isinstance(variable, Maybe | Many):
        parts = [_declared(variable.inner, dtypes)]
        if isinstance(variable, Many):
            parts += [f"min={variable.min}"] if variable.min else []
            parts += [f"max={variable.max}"] if variable.max is not None else []
        return f"{type(variable).__name__}({', '.join(parts)})"
    if not isinstance(variable, Tensor):
        return f"{type(variable).__name__}(...)"
    parts = [f"dtype={_dtypes_in_code(dtypes)}"]
    if variable.rank:
        parts.append(f"rank={variable.rank[0] if len(variable.rank) == 1 else variable.rank}")
    parts += ["one_use=True"] if variable.one_use else []
    parts += ["where=..."] if variable.where is not None else []
    return f"{'Const' if isinstance(variable, Const) else 'Tensor'}({', '.join(parts)})"


def _dtypes_in_code(dtypes: Sequence[torch.dtype]) -> str:
    if set(dtypes) == set(FLOATS):
        return "FLOATS"
    has_floats = set(dtypes) > set(FLOATS)
    named = [str(dtype) for dtype in dtypes if not (has_floats and dtype in FLOATS)]
    if len(named) == 1 and not has_floats:
        return named[0]
    return f"({', '.join(['*FLOATS'] * has_floats + named)})"
