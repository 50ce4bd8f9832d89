"""Rules: a pattern, an optional guard, a replacement; each ordinary Python over ops.

    class FoldScale(Rule):
        \"\"\"(x @ w) * s  ->  x @ (w * s)      for constant w, s\"\"\"
        exactness = REFOLD

        def pattern(self, x, w: Const(rank=2), s: Const(rank=1)):
            return aten.mm(x, w) * s

        def where(self, w, s):                  # takes by name what it needs
            return s.shape[0] == w.shape[1]

        def replace(self, x, w, s):
            return aten.mm(x, w * s)

* ``pattern`` is called once, when the class is declared, with variables
  (:mod:`rewright.passes.patterns`). Further methods ``pattern_<name>`` are other spellings. It
  returns the node to replace, or a tuple of several roots that share variables.
* ``where`` and ``replace`` get what the variables are bound to, by name: values
  (:class:`~rewright.passes.handles.Handle`), attributes, None. ``where`` returns True where the
  rule applies; False, a :class:`~rewright.passes.reasons.NoMatch`, or a fact that is unknown
  refuse.
* ``replace`` returns the value that stands in for the root, or one for each root; or a NoMatch.
  Its type must be the root's.
* ``example(self, draw)`` is for few rules: it says what some variables are, where a proof can't
  find out by itself (:mod:`rewright.passes.proof.prove`).
"""

from __future__ import annotations

import enum
import os
import re
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rewright.errors import RuleError
from rewright.passes import declaration
from rewright.passes.declaration import Spelling

if TYPE_CHECKING:
    from rewright.passes.proof.draw import Draw
    from rewright.passes.proof.prove import Proof


class Exactness(enum.IntEnum):
    """What a rule may do to numbers."""

    EXACT = 0
    """The same bits, as the ops' references on the CPU compute them; any nan is any other. The
    kernels of a backend may round otherwise for other strides or sizes of the same numbers: what
    order a product of matrices adds up in is not the rule's."""
    REFOLD = 1
    """Rounding moves, and does not grow; constants are recombined in at least f32."""
    FAST_MATH = 2
    """Numbers may change more; such rules fire only where asked for."""


EXACT: Final = Exactness.EXACT
REFOLD: Final = Exactness.REFOLD
FAST_MATH: Final = Exactness.FAST_MATH


class Rule:
    """A rewrite rule: declare it as a class (see :mod:`rewright.passes.rule`).

    A class without a `pattern` is a base for others and no rule by itself.

    Attributes:
        name: kebab-case of the class's name, unless stated.
        exactness: what it may do to numbers; EXACT unless stated.
        priority: rules of higher priority are tried first, then in order of declaration.
        tolerance: of a FAST_MATH rule, the error that is allowed, relative to the largest number.
        shared: whether nodes inside of a match may have other users (and then stay for them).
        location: where it was declared, ``passes/fusion/mlp.py:31``.
        spellings: its patterns.
    """

    name: ClassVar[str] = ""
    exactness: ClassVar[Exactness] = EXACT
    priority: ClassVar[int] = 0
    tolerance: ClassVar[float] = 1e-3
    shared: ClassVar[bool] = False
    location: ClassVar[str] = ""
    spellings: ClassVar[tuple[Spelling, ...]] = ()
    _takes: ClassVar[dict[str, tuple[str, ...]]] = {}
    _only: ClassVar[Any] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "pattern") and not any(n.startswith("pattern_") for n in dir(cls)):
            return
        if not vars(cls).get("name"):
            cls.name = kebab_case(cls.__name__)
        cls.location = _declared_at(cls)
        try:
            cls._declare()
        except RuleError as error:
            raise RuleError(
                f"rule {cls.name}: {error.message}",
                rule=cls.name,
                where=cls.location,
                hint=error.hint,
            ) from error.__cause__

    @classmethod
    def _declare(cls) -> None:
        if not isinstance(cls.exactness, Exactness):
            raise RuleError(
                f"exactness is {cls.exactness!r}", hint="write EXACT, REFOLD or FAST_MATH"
            )
        if not hasattr(cls, "replace"):
            raise RuleError("there is no `replace`", hint="say what the pattern becomes")
        cls._only = rule = cls()
        cls.spellings = declaration.read_spellings(rule)
        methods = [name for name in ("where", "replace") if hasattr(cls, name)]
        cls._takes = {
            name: declaration.parameters_of(name, getattr(rule, name)) for name in methods
        }
        declaration.check_uses(cls.spellings, cls._takes)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuleError(
            f"rule {self.name} assigns self.{name}: rules keep no state",
            rule=self.name,
            where=self.location,
            hint="compute it in each method that needs it, or make it a class attribute",
        )

    # -- what others ask of a rule

    @classmethod
    def equation(cls) -> str:
        """What the rule does, on one line: the first of its docstring, or its pattern."""
        lines = (vars(cls).get("__doc__") or "").strip().splitlines()
        return lines[0] if lines else "; ".join(repr(s.roots[0]) for s in cls.spellings)

    @classmethod
    def takes(cls, method: str) -> tuple[str, ...]:
        """The variables that ``where`` or ``replace`` asks for; none where it is not defined."""
        return cls._takes.get(method, ())

    @classmethod
    def call(cls, method: str, bound: dict[str, Any]) -> Any:
        """Calls ``where`` or ``replace`` with those of `bound` that it asks for."""
        return getattr(cls._only, method)(**{name: bound[name] for name in cls._takes[method]})

    @classmethod
    def given(cls, draw: Draw) -> dict[str, Any]:
        """What the rule's ``example`` says of its variables, for a proof; nothing by default."""
        make = getattr(cls._only, "example", None)
        return dict(make(draw)) if make is not None else {}

    @classmethod
    def prove(cls, **options: Any) -> Proof:
        """Proves the rule on generated graphs: see :func:`rewright.passes.proof.prove.prove`."""
        from rewright.passes.proof.prove import prove

        return prove(cls, **options)


def is_rule(item: object) -> bool:
    """Whether `item` is a rule that can be applied, and not a base of rules."""
    return isinstance(item, type) and issubclass(item, Rule) and bool(item.spellings)


def kebab_case(name: str) -> str:
    """``FuseRMSNorm2d`` as ``fuse-rms-norm2d``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _declared_at(cls: type) -> str:
    """The file and line of the statement that declares `cls`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name in ("__init_subclass__", "__new__"):
        frame = frame.f_back
    return f"{short_path(frame.f_code.co_filename)}:{frame.f_lineno}"


def short_path(path: str) -> str:
    """A source file as messages show it: below the package, or the working directory."""
    for base in (os.path.dirname(os.path.dirname(__file__)), os.getcwd()):
        inside = os.path.relpath(path, base)
        if not inside.startswith(os.pardir):
            return inside
    return path
