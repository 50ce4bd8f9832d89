"""Asking the `where` of a rule: yes, or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rewright.errors import RewrightError, RuleError
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
    hint = error.hint if isinstance(error, RewrightError) else None
    return RuleError(
        f"rule {rule.name}: `{method}` failed at {name_of(root)} "
        f"{node.op.name if node else ''}: {what}",
        rule=rule.name,
        where=f"{rule.location}, at {node.loc}" if node and node.loc else rule.location,
        hint=hint,
    )
