"""The pass ``precision``: a program in f32, f16 or bf16, with what has to stay in f32.

    precision{to=fp16}                          products, attention, norms in f16; softmax in f32
    precision{to=bf16,modules=[head]}           all in `head` stays in f32
    precision{to=fp32}                          a program in 16 bits, computed in f32

Inputs, outputs and write-backs keep their dtypes, so a caller sees the model's own. What computes
in what is decided in :mod:`~rewright.passes.precision.assignment` by the table of
:mod:`~rewright.passes.precision.table`, and done in :mod:`~rewright.passes.precision.casting`.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from rewright.errors import PassError, did_you_mean
from rewright.ir.graph import Graph
from rewright.passes.manager import Pass, PassContext
from rewright.passes.partition.assignment import Overrides
from rewright.passes.precision.assignment import decide
from rewright.passes.precision.casting import recast
from rewright.passes.precision.floats import PRECISIONS
from rewright.passes.precision.report import report_of
from rewright.passes.registry import register_pass
from rewright.passes.rule import Rule
from rewright.passes.simplify.casts import DropCast, MergeCasts


@register_pass
@attrs.frozen
class Precision(Pass):
    """f32  ->  f16 or bf16, where that is as good; or the other way

    Attributes:
        to: ``fp32``, ``fp16`` or ``bf16``.
        ops: names of ops that stay in f32, globs.
        modules: paths of modules that stay in f32 with all that is in them, globs.
    """

    moves_numbers: ClassVar[bool] = True

    to: str = "fp16"
    ops: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.to not in PRECISIONS:
            raise PassError(
                f"pass {self.name} can't lower to {self.to!r}",
                pass_name=self.name,
                hint=did_you_mean(self.to, PRECISIONS),
            )

    def run(self, graph: Graph, context: PassContext) -> None:
        """Gives `graph` its dtypes; leaves a report.

        Raises:
            PassError: `ops` has a name that no op has.
        """
        wanted = PRECISIONS[self.to]
        overrides = Overrides(self.ops, self.modules, prefix="full_precision")
        decisions = decide(graph, wanted, overrides)
        weights = recast(graph, wanted, decisions)
        context.apply_rules(graph, self.all_rules())
        context.reports[self.name] = report_of(graph, self.to, decisions, weights)

    @classmethod
    def all_rules(cls) -> tuple[type[Rule], ...]:
        """The rules that tidy up: a bool that becomes f32 and then f16 becomes f16."""
        return (DropCast, MergeCasts)
