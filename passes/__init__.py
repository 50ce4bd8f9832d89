"""What may be done to a program: rules, the passes that apply them and the pass manager."""

if __name__ != "rewright.passes":
    raise ImportError("import rewright.passes, not passes")

from rewright.passes.driver import Applied, Observer, apply_rules, explain
from rewright.passes.facts import Size
from rewright.passes.handles import Handle
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.manager import Pass, PassContext, Pipeline, Repeat
from rewright.passes.ops import aten, ops, prims, rw
from rewright.passes.patterns import OpVar, either, maybe_cast, near
from rewright.passes.pipelines import default_pipeline
from rewright.passes.reasons import NoMatch
from rewright.passes.registry import all_passes, get_pass, register_pass
from rewright.passes.rewriting import Rewrite
from rewright.passes.rule import EXACT, FAST_MATH, REFOLD, Exactness, Rule
from rewright.passes.rule_pass import RulePass
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
    "Instrument",
    "Many",
    "Maybe",
    "NoMatch",
    "Observer",
    "OpVar",
    "Pass",
    "PassContext",
    "PassRun",
    "Pipeline",
    "Repeat",
    "Rest",
    "Rewrite",
    "Rule",
    "RulePass",
    "Scalar",
    "Size",
    "Tensor",
    "all_passes",
    "apply_rules",
    "aten",
    "default_pipeline",
    "either",
    "explain",
    "get_pass",
    "maybe_cast",
    "near",
    "ops",
    "prims",
    "register_pass",
    "rw",
]
