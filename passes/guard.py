"""What is asked when all of a pattern has matched: about users outside, then the rule's `where`."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

from rewright.errors import RewrightError, RuleError
from rewright.ir.graph import Node, Value
from rewright.passes.constraints import Shown
from rewright.passes.facts import Unknown, UnknownFact, ranges_of
from rewright.passes.handles import Asking, name_of, wrap
from rewright.passes.ops import interpreting
from rewright.passes.reasons import NoMatch

if TYPE_CHECKING:
    from rewright.passes.matcher import Match
    from rewright.passes.rule import Rule


def handles(match: Match) -> dict[str, Any]:
    """What the variables are bound to, as the methods of a rule see it."""
    ranges = ranges_of(match.roots[0].graph)
    return {name: wrap(item, ranges) for name, item in match.bound.items()}


def ask_users(match: Match, shared: Set[Node], alone: Sequence[Value]) -> NoMatch | None:
    """None where the match may be replaced as far as others go; otherwise the reason.

    Args:
        match: the match.
        shared: those of its nodes that others may use: they stay for them.
        alone: further values that only the match may use.
    """
    if len(set(match.roots)) != len(match.roots):
        return NoMatch("two roots are one value")
    matched, given = set(match.nodes), set(match.roots)
    roots = {value.producer for value in given}
    gone = [node for node in match.nodes if node in roots or node not in shared]
    inside = [value for node in gone for value in node.results if value not in given]
    for value in (*inside, *alone):
        if any(use.node not in matched for use in value.uses):
            return NoMatch("{0} has {1}", Shown(value), _Uses(value))
    # relu(x) * relu(x) is relu(g) * u, too, but one of the two is what the other is made of: the
    # replacement would compute it once more, and it would stay.
    bound = {part for item in match.bound.values() for part in _values(item)}
    for value in inside:
        if value in bound:
            return NoMatch("{0} would stay, for it is an operand of the match, too", Shown(value))
    for node in match.nodes:
        for symbol, info in node.graph.symbols.items():
            if info.binding.owner is node:
                return NoMatch("{0} gives the size {1}", Shown(node.results[0]), symbol)
    return None


def _values(item: Any) -> tuple[Value, ...]:
    """The values that a variable is bound to."""
    parts = item if isinstance(item, tuple | list) else (item,)
    return tuple(part for part in parts if isinstance(part, Value))


class _Uses:
    """How often a value is used, as messages say it."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value = value

    def __str__(self) -> str:
        count = len(self.value.uses)
        output = ", one as an output" if self.value.is_output else ""
        return f"{count} use{'s' * (count != 1)}{output}"


def ask_guard(rule: type[Rule], match: Match) -> NoMatch | None:
    """None where the rule's `where` says True; otherwise the reason.

    Raises:
        RuleError: `where` failed, or tried to make a node.
    """
    try:
        with interpreting(Asking()):
            answer = rule.call("where", handles(match))
            if isinstance(answer, NoMatch):
                return answer
            if not isinstance(answer, Unknown) and answer is not None:
                return None if answer else NoMatch("`where` is false")
    except UnknownFact as unknown:
        return NoMatch("`where` can't be told: {0}", unknown)
    except RewrightError as error:
        raise failed(rule, match, "where", error) from error
    except Exception as error:
        raise failed(rule, match, "where", error) from error
    if answer is None:
        return NoMatch("`where` returned None, which is no yes")
    return NoMatch("`where` can't be told: {0}", UnknownFact(answer.condition))


def failed(rule: type[Rule], match: Match, method: str, error: Exception) -> RuleError:
    """The error that says that a method of a rule failed, at which node."""
    root = match.roots[0]
    node = root.producer
    what = error.message if isinstance(error, RewrightError) else f"{type(error).__name__}: {error}"
    mend = f"let `{method}` bear all that the pattern lets in, or narrow the pattern"
    hint = error.hint if isinstance(error, RewrightError) else mend
    return RuleError(
        f"rule {rule.name}: `{method}` failed at {name_of(root)} "
        f"{node.op.name if node else ''}: {what}",
        rule=rule.name,
        where=f"{rule.location}, at {node.loc}" if node and node.loc else rule.location,
        hint=hint,
    )
