"""What may be done to a program: rules, the passes that apply them and the pass manager."""

if __name__ != "rewright.passes":
    raise ImportError("import rewright.passes, not passes")

from rewright.passes.driver import Applied, Observer, apply_rules, explain
from rewright.passes.facts import Size
from rewright.passes.handles import Handle
from rewright.passes.ops import aten, ops, prims, rw
from rewright.passes.patterns import OpVar, either, maybe_cast, near
from rewright.passes.reasons import NoMatch
from rewright.passes.rewriting import Rewrite
from rewright.passes.rule import EXACT, FAST_MATH, REFOLD, Exactness, Rule
from rewright.passes.variables import FLOATS, Attr, Const, Many, Maybe, Rest, Scalar, Tensor

__all__ = [
    "EXACT",
    "FAST_MATH",
    "FLOATS",
    "REFOLD",
    "Applied",
    "Attr",
    "Const",
    "Exactness",
    "Handle",
    "Many",
    "Maybe",
    "NoMatch",
    "Observer",
    "OpVar",
    "Rest",
    "Rewrite",
    "Rule",
    "Scalar",
    "Size",
    "Tensor",
    "apply_rules",
    "aten",
    "either",
    "explain",
    "maybe_cast",
    "near",
    "ops",
    "prims",
    "rw",
]
