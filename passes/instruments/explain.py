"""Says of one rule where it fired, and why not elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

import attrs

from rewright.errors import SettingsError, did_you_mean
from rewright.ir.graph import Graph
from rewright.passes.driver import explain
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.manager import Pass, Pipeline
from rewright.passes.registry import HOW_TO_KNOW, all_rules
from rewright.passes.rule import Rule


@attrs.define(eq=False)
class Explain(Instrument):
    """Explains a rule after each pass that has it; where no pass has it, before them all.

    Attributes:
        name: the name of the rule.
        out: where to; standard error by default.
    """

    name: str
    out: TextIO | None = None

    def before(self, run: PassRun) -> None:
        """Finds the rule.

        Raises:
            SettingsError: there is none of that name.
        """
        if not run.is_whole:
            return
        assert isinstance(run.step, Pipeline)
        rules = {rule.name: rule for step in run.step.passes() for rule in step.all_rules()}
        if self.name in rules:
            return
        rules |= all_rules()
        if self.name not in rules:
            raise SettingsError(
                f"there is no rule {self.name!r} to explain",
                setting="explain",
                hint=did_you_mean(self.name, rules, otherwise=HOW_TO_KNOW),
            )
        self._write(f"rule {self.name}, which no pass of the pipeline has")
        self._explain(run.graph, rules[self.name])

    def after(self, run: PassRun) -> None:
        """Explains the rule, if it is one of the pass's."""
        if not isinstance(run.step, Pass):
            return
        for rule in run.step.all_rules():
            if rule.name == self.name:
                hits = run.applied.hits[rule.name]
                times = "once" if hits == 1 else f"{hits} times"
                self._write(f"rule {rule.name} fired {times} in {run.number:03} {run.step}")
                self._explain(run.graph, rule)

    def _explain(self, graph: Graph, rule: type[Rule]) -> None:
        for line in explain(graph, rule):
            self._write(f"  {line}")

    def _write(self, line: str) -> None:
        (self.out or sys.stderr).write(f"{line}\n")
