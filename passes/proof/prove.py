"""Rules prove themselves: on many small graphs made from their patterns, by the real driver.

For each pattern of a rule, and each dtype that it can be met with,

* examples are made (:mod:`rewright.passes.proof.sampling`) until enough of them fire, with shapes
  that differ and sizes that often coincide, 1 among them, and some with a symbolic size;
* on each, the rule must fire, the graph must verify, its types must be inferred again, and its
  outputs must be of the same types as before;
* before and after are run on the same numbers, and compared: bit by bit where the rule is EXACT,
  else by their errors against float64 (:func:`~rewright.passes.proof.precision.judge`);
* every alternative in the pattern must have been taken;
* for every guard (:mod:`rewright.passes.proof.guards`, and ``where``) there must be an example
  that breaks only this one, on which the rule does not fire.

What can't be made from the pattern, a rule makes itself:

    def example(self, draw):                # types of tensors, attributes; the others are drawn
        n, k = draw.sizes(2)
        return {"x": draw.tensor(n, k), "dims": (1, 0)}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import torch

from rewright.errors import RuleError
from rewright.ir.graph import Graph
from rewright.ir.sizes import symbol
from rewright.ir.types import DTYPE_NAMES
from rewright.passes.declaration import Spelling
from rewright.passes.driver import apply_rules
from rewright.passes.index import index_of, plans_of
from rewright.passes.patterns import Either, walk
from rewright.passes.proof.advice import Trial, advice
from rewright.passes.proof.checking import Wrong, check
from rewright.passes.proof.draw import Draw, Reject, draw_for
from rewright.passes.proof.examples import Example
from rewright.passes.proof.guards import Guard, guards_of
from rewright.passes.proof.precision import DTYPES, FLOATING, one_thread
from rewright.passes.proof.sampling import Sampler
from rewright.passes.rule import FAST_MATH, Rule, is_rule
from rewright.passes.variables import Pattern

INSTANCES: Final = 24
SHAPES: Final = 3

_PER_DTYPE: Final = 4
_TRIES: Final = 60
_TURNS: Final = 4
"""So often one goes through the legal dtypes for the examples that are still missing."""
_HOPELESS: Final = 14
"""After so many tries that did not fire, a dtype is taken to be illegal (if others are legal)."""
_PATIENCE: Final = 40
"""The same for floating-point dtypes: if one is legal, it would be odd if another were not."""
_NOTHING: Final[dict[int, Pattern]] = {}
_SYMBOLS: Final = (symbol("s0"),)


@attrs.frozen
class Proof:
    """What was shown of a rule.

    Attributes:
        rule: its name.
        instances: examples on which it fired and was right.
        shapes: how many different shapes they had.
        dtypes: of what they were.
        symbolic: how many of them had a symbolic size.
        near_misses: guards for which there was an example that they alone refused.
        vacuous: guards that nothing could break, since the ops themselves demand as much.
    """

    rule: str
    instances: int
    shapes: int
    dtypes: tuple[torch.dtype, ...]
    symbolic: int
    near_misses: tuple[str, ...]
    vacuous: tuple[str, ...] = ()

    def __str__(self) -> str:
        dtypes = " ".join(DTYPE_NAMES[dtype] for dtype in self.dtypes)
        vacuous = f", {len(self.vacuous)} vacuous" if self.vacuous else ""
        return (
            f"{self.rule}: {self.instances} instances ({self.symbolic} symbolic) of "
            f"{self.shapes} shapes in {dtypes}; {len(self.near_misses)} near misses{vacuous}"
        )


def prove(rule: type[Rule], *, instances: int = INSTANCES, seed: int = 0) -> Proof:
    """Proves `rule`, or says what is wrong with it.

    Args:
        rule: a rule.
        instances: how many examples it must fire on, at least.
        seed: of all that is drawn.

    Raises:
        RuleError: the rule is wrong on an example, which the message shows; or it could not be
            shown right: too few examples fire, an alternative was never taken, or a guard never
            refused.
    """
    if not is_rule(rule):
        raise RuleError(
            f"{rule.__name__} has no `pattern`, so there is nothing to prove",
            rule=rule.__name__,
            where=rule.location or rule.__module__,
            hint=f"its methods are {', '.join(n for n in vars(rule) if not n.startswith('_'))}",
        )
    with one_thread():
        return _Prover(rule, instances, seed).run()


class _Prover:
    """One proof in the making."""

    def __init__(self, rule: type[Rule], instances: int, seed: int) -> None:
        self.rule = rule
        self.wanted = instances
        self.seed = seed
        self.fired: list[tuple[Example, torch.dtype]] = []
        self.symbolic = 0
        self.refused_by_where = False
        self.taken: set[int] = set()
        self.rejected: Counter[str] = Counter()

    def run(self) -> Proof:
        """The proof.

        Raises:
            RuleError: there is none.
        """
        try:
            return self.prove()
        except Wrong as wrong:
            advised = advice(self.rule, wrong, [*self.trials()])
            cause = wrong.__cause__
            raise self.wrong(wrong.what, wrong.example.graph, wrong.after, advised) from cause

    def prove(self) -> Proof:
        """The proof.

        Raises:
            Wrong: the rule is wrong on an example.
            RuleError: there is no proof for another reason.
        """
        for spelling in self.rule.spellings:
            self.fire(spelling)
            self.take_all(spelling)
            self.fire_symbolic(spelling)
        shapes = {example.shapes() for example, _ in self.fired}
        if len(self.fired) < self.wanted or len(shapes) < SHAPES:
            raise self.unproved(
                f"it fired on {len(self.fired)} examples of {len(shapes)} shapes, and "
                f"{self.wanted} of {SHAPES} are needed"
            )
        near, vacuous = self.miss()
        dtypes = tuple(dtype for dtype in DTYPES if any(dtype == d for _, d in self.fired))
        count = len(self.fired)
        return Proof(self.rule.name, count, len(shapes), dtypes, self.symbolic, near, vacuous)

    # -- examples that fire

    def fire(self, spelling: Spelling) -> None:
        """Makes examples of each dtype, then more of those that work, until there are enough."""
        wanted = -(-self.wanted // len(self.rule.spellings))
        counts = {d: self.fire_some(spelling, d, _PER_DTYPE, "first") for d in DTYPES}
        legal = [dtype for dtype, count in counts.items() if count]
        missing = wanted - sum(counts.values())
        for turn in range(_TURNS):
            share = -(-missing // len(legal)) if legal and missing > 0 else 0
            for dtype in legal if share else ():
                missing -= self.fire_some(spelling, dtype, share, f"more{turn or ''}")

    def fire_some(self, spelling: Spelling, dtype: torch.dtype, wanted: int, what: str) -> int:
        """Makes up to `wanted` examples that fire; gives how many there were."""
        count = 0
        for number, draw in enumerate(self.draws(spelling, dtype, what)):
            patience = _PATIENCE if dtype in FLOATING else _HOPELESS
            if count >= wanted or (self.fired and not count and number > patience):
                break
            count += self.attempt(spelling, draw)
        return count

    def draws(
        self, spelling: Spelling, dtype: torch.dtype, what: str, tries: int = _TRIES, **options: Any
    ) -> Iterator[Draw]:
        """Sources of chance, each with its own seed."""
        for number in range(tries):
            seed = f"{self.rule.name} {spelling.name} {dtype} {what} {number} {self.seed}"
            yield draw_for(seed, dtype, **options)

    def attempt(
        self,
        spelling: Spelling,
        draw: Draw,
        forced: Mapping[int, Pattern] = _NOTHING,
        *,
        wild: bool = False,
    ) -> bool:
        """Makes one example and checks it; whether the rule fired on it.

        Args:
            spelling: a pattern of the rule.
            draw: chance.
            forced: alternatives to take.
            wild: whether to forget some of what the rule's own `example` says.
        """
        given = self.rule.given(draw)
        if wild:
            given = {name: item for name, item in given.items() if draw.chance(0.5)}
        try:
            example = Sampler(spelling, draw, given=given, forced=forced).run()
            if draw.dtype not in example.dtypes():
                raise Reject(f"no tensor is {DTYPE_NAMES[draw.dtype]}")
            if not check(self.rule, example):
                self.note_refusal(example.graph)
                return False
        except Reject as reject:
            self.rejected[str(reject)] += 1
            return False
        self.fired.append((example, draw.dtype))
        self.taken |= example.chosen
        return True

    def take_all(self, spelling: Spelling) -> None:
        """Makes sure that each alternative was taken by an example that fired."""
        for either in walk(*spelling.roots):
            if not isinstance(either, Either):
                continue
            for number, part in enumerate(either.alternatives):
                if id(part) not in self.taken and not self.take(spelling, either, number):
                    raise self.unproved(f"the alternative {part!r} was never taken")

    def take(self, spelling: Spelling, either: Either, number: int) -> bool:
        """Whether an example can be found that takes one alternative of `either`."""
        forced = {id(either): either.alternatives[number]}
        return any(
            self.attempt(spelling, draw, forced)
            for dtype in DTYPES
            for draw in self.draws(spelling, dtype, f"alternative {number}")
        )

    def fire_symbolic(self, spelling: Spelling) -> None:
        """Makes examples with a symbolic size; a rule may refuse them all."""
        dtype = self.fired[-1][1] if self.fired else torch.float32
        found = 0
        for draw in self.draws(spelling, dtype, "symbolic", _HOPELESS * 2, symbols=_SYMBOLS):
            count = len(self.fired)
            if self.attempt(spelling, draw) and self.fired[count][0].graph.symbols:
                found += 1
            if found >= _PER_DTYPE:
                break
        self.symbolic += found

    def note_refusal(self, graph: Graph) -> None:
        """Remembers why the rule did not fire."""
        index = index_of((self.rule,), FAST_MATH)
        for node in graph:
            for plan in index.of_op(node.op):
                refusals: list[Any] = []
                if plan.match(node, refusals) is None:
                    at, why = max(refusals, key=lambda refusal: refusal[0])
                    self.rejected[str(why)] += 1
                    self.refused_by_where |= plan.asks_where and at == len(plan.code) - 1

    # -- near misses

    def miss(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """An example for each guard that only it refuses; and the guards that nothing breaks."""
        near: list[str] = []
        vacuous: list[str] = []
        for spelling in self.rule.spellings:
            for guard in guards_of(spelling, shared=self.rule.shared):
                (near if self.breaks(spelling, guard) else vacuous).append(guard.text)
        if self.rule.takes("where"):
            if not self.refused_by_where and not self.search_refusal():
                raise self.unproved("`where` never refused an example, so nothing shows it needed")
            near.append("where")
        return tuple(near), tuple(vacuous)

    def breaks(self, spelling: Spelling, guard: Guard) -> bool:
        """Whether an example breaks only `guard` and is refused; False where none is legal."""
        only_illegal, fired = True, None
        for number, dtype in enumerate(dict.fromkeys(dtype for _, dtype in self.fired)):
            if only_illegal and number >= 2:
                break
            for draw in self.draws(spelling, dtype, guard.text, _HOPELESS):
                try:
                    given = {
                        name: item
                        for name, item in self.rule.given(draw).items()
                        if name != getattr(guard.pattern, "name", None)
                    }
                    example = Sampler(spelling, draw, guard=guard, given=given).run()
                except Reject as reject:
                    only_illegal &= reject.illegal
                    self.rejected[str(reject)] += 1
                    continue
                only_illegal = False
                if not self.fires(spelling, example.graph):
                    return True
                fired = example.graph
        if only_illegal or (guard.kind == "kind" and fired is None):
            return False  # the op takes nothing else there
        if fired is not None:
            raise self.wrong(f"it fires although this is broken: {guard.text}", fired)
        raise self.unproved(f"no example was found that breaks only this: {guard.text}")

    def fires(self, spelling: Spelling, graph: Graph) -> bool:
        """Whether the rule fires on a copy of `graph`, because of this spelling."""
        try:
            if not apply_rules(graph.copy(), [self.rule], exactness=FAST_MATH).hits:
                return False
        except RuleError:
            return True
        plans = [plan for plan in plans_of(self.rule) if plan.spelling is spelling]
        return any(plan.match(node) for node in graph for plan in plans)

    def search_refusal(self) -> bool:
        """Whether `where` refuses some example."""
        for spelling in self.rule.spellings:
            for dtype in DTYPES:
                for draw in self.draws(spelling, dtype, "refusal"):
                    self.attempt(spelling, draw, wild=True)
                    if self.refused_by_where:
                        return True
        return False

    # -- errors

    def trials(self) -> Iterator[Trial]:
        """What becomes of a few examples of each dtype, for advice on a rule that is wrong."""
        for spelling in self.rule.spellings:
            for dtype in DTYPES:
                found = 0
                for draw in self.draws(spelling, dtype, "trial", _HOPELESS * 2):
                    count = len(self.fired)
                    try:
                        if self.attempt(spelling, draw):
                            yield Trial.of(spelling, self.fired[count][0], is_right=True)
                            found += 1
                    except Wrong as wrong:
                        yield Trial.of(spelling, wrong.example, is_right=wrong.is_rounding)
                        found += 1
                    if found >= _PER_DTYPE * 2:
                        break

    def wrong(
        self, what: str, before: Graph, after: Graph | None = None, hint: str | None = None
    ) -> RuleError:
        """The error for a rule that is wrong."""
        what = what.removeprefix(f"rule {self.rule.name}").lstrip(": ")
        shown = str(before) if after is None else f"{before}\nbecame\n{after}"
        return RuleError(
            f"rule {self.rule.name} is wrong: {what}\n{shown}",
            rule=self.rule.name,
            where=self.rule.location,
            hint=hint,
        )

    def unproved(self, what: str) -> RuleError:
        """The error for a rule that could not be shown right."""
        common = "; ".join(reason for reason, _ in self.rejected.most_common(4))
        return RuleError(
            f"rule {self.rule.name} is not proved: {what}",
            rule=self.rule.name,
            where=self.rule.location,
            hint="state constraints, or define `example(self, draw)`"
            + (f"; most examples failed because: {common}" if common else ""),
        )
