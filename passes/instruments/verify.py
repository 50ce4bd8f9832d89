"""Verifies the graph after each pass that changed it: structure, types, stage, order of effects."""

from __future__ import annotations

import attrs

from rewright.errors import PassError, VerificationError
from rewright.ir.verifier import effect_order, verify
from rewright.passes.instruments.protocol import Instrument, PassRun
from rewright.passes.manager import Pass


@attrs.define(eq=False)
class VerifyEach(Instrument):
    """Refuses what a pass made, where it is not well formed.

    Attributes:
        retype: whether to infer every type anew and compare.
    """

    retype: bool = True
    _effects: tuple[str, ...] = attrs.field(default=(), init=False)

    def before(self, run: PassRun) -> None:
        """Checks what the pipeline is given, and notes the order of effects."""
        if run.is_whole:
            verify(run.graph, retype=self.retype)
        self._effects = effect_order(run.graph)

    def after(self, run: PassRun) -> None:
        """Checks what a pass left.

        Raises:
            PassError: the graph is not well formed, with the lines around each fault.
        """
        if not isinstance(run.step, Pass) or not (run.changed or run.step.gives_stage):
            return
        try:
            verify(run.graph, retype=self.retype, effects=self._effects)
        except VerificationError as error:
            raise PassError(
                f"pass {run.step} broke the graph: {error.message}",
                pass_name=str(run.step),
                op=error.op,
                where=error.where,
                excerpt=error.excerpt,
                hint=error.hint or "this is a bug in the pass",
            ) from error
