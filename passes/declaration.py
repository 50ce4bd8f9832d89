"""From the methods of a rule to patterns, and what is checked on the way.

A rule is checked when its class is declared, not when it first runs: each mistake below is a
RuleError that names the rule, its file and line, and what to do.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from functools import reduce
from operator import and_
from typing import Any, Final

import attrs

from rewright.errors import RuleError, did_you_mean
from rewright.ir.ops import REQUIRED, Op, Param
from rewright.passes.ops import interpreting, overloads_of
from rewright.passes.patterns import (
    Either,
    ListPattern,
    Literal,
    NodePattern,
    OpVar,
    ResultPattern,
    as_pattern,
    children,
    postorder,
    take_rest,
    walk,
)
from rewright.passes.variables import Maybe, Pattern, Tensor, Variable, as_variable


@attrs.frozen(eq=False)
class Spelling:
    """One pattern of a rule.

    Attributes:
        name: of the method, ``pattern`` or ``pattern_<name>``.
        variables: by name, in order.
        roots: what the replacement replaces, in order: nodes, results of nodes, alternatives.
    """

    name: str
    variables: dict[str, Variable]
    roots: tuple[Pattern, ...]


# --------------------------------------------------------------------------- calls in `pattern`


class _Describing:
    """Calls of ops describe nodes."""

    def call(self, op: Op, args: Sequence[Any], kwargs: dict[str, Any]) -> NodePattern:
        rest = take_rest(kwargs)
        if op.variadic:
            raise RuleError(f"{op.name} takes any arguments: rules can't describe it")
        given = _by_name(op, args, kwargs)
        named = {}
        for param in op.params:
            if param.name in given:
                named[param.name] = as_pattern(given[param.name])
                _check_kind(op, param, named[param.name])
            elif param.default is REQUIRED and rest is None:
                raise RuleError(
                    f"the pattern leaves {param.name!r} of {op.name} open",
                    hint=_how_to_give(op, param),
                )
        return NodePattern(op, named, rest)


def _by_name(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    positional = [param.name for param in op.params if not param.keyword_only]
    if len(args) > len(positional):
        raise RuleError(
            f"{op.name} takes {len(positional)} positional arguments, the pattern gives "
            f"{len(args)}",
            hint=overloads_of(op),
        )
    given = dict(zip(positional, args, strict=False))
    known = {param.name for param in op.params}
    for name in kwargs:
        if name not in known:
            raise RuleError(f"{op.name} has no parameter {name!r}", hint=did_you_mean(name, known))
        if name in given:
            raise RuleError(f"the pattern gives {name!r} of {op.name} twice")
    return given | dict(kwargs)


def _how_to_give(op: Op, param: Param) -> str:
    kind = "a value" if param.takes_tensors else "an attribute"
    annotation = "" if param.takes_tensors else ": Attr"
    hint = f"it is {kind}: state it, or capture it in a parameter `{param.name}{annotation}`"
    others = overloads_of(op)
    return f"{hint}; {others}" if others else hint


def _check_kind(op: Op, param: Param, pattern: Pattern) -> None:
    """Refuses a tensor where only an attribute can be."""
    if isinstance(pattern, Tensor) and not _may_hold_values(param):
        raise RuleError(
            f"{pattern!r} stands for a tensor, but {param.name!r} of {op.name} is an attribute "
            f"({param.kind})",
            hint="; ".join(filter(None, [f"annotate it: `{pattern!r}: Attr`", overloads_of(op)])),
        )


_ATTRIBUTES: Final = ("int", "float", "bool", "str", "number", "ScalarType", "Device", "Layout")


def _may_hold_values(param: Param) -> bool:
    return param.takes_tensors or not any(kind in param.kind for kind in _ATTRIBUTES)


# --------------------------------------------------------------------------- spellings


def read_spellings(rule: Any) -> tuple[Spelling, ...]:
    """The patterns of `rule`: its method ``pattern``, then all called ``pattern_<name>``.

    Args:
        rule: an instance of a Rule class.

    Raises:
        RuleError: a pattern is not well formed.
    """
    names = [name for name in _names_in_order(type(rule)) if _is_spelling(name)]
    return tuple(_read(getattr(rule, name)) for name in names)


def _is_spelling(name: str) -> bool:
    return name == "pattern" or name.startswith("pattern_")


def _names_in_order(cls: type) -> list[str]:
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        names.update(dict.fromkeys(vars(base)))
    return list(names)


def _read(method: Callable[..., Any]) -> Spelling:
    variables = _variables(method)
    with interpreting(_Describing()):
        try:
            returned = method(**variables)
        except (AttributeError, TypeError) as error:  # torch's functions and methods raise these
            raise RuleError(
                f"`{method.__name__}` can't be read: {error}",
                hint="a pattern is made of ops, as aten.relu(x), and of Python's operators: "
                "functions and methods of torch take tensors, and a variable is none",
            ) from error
    several = isinstance(returned, tuple | list)
    roots = tuple(returned) if several else (returned,)
    spelling = Spelling(method.__name__, variables, tuple(_root(root) for root in roots))
    _check_bound(spelling)
    _check_purity(spelling)
    _check_connected(spelling)
    return spelling


def _variables(method: Callable[..., Any]) -> dict[str, Variable]:
    try:
        parameters = inspect.signature(method, eval_str=True).parameters
    except NameError as error:
        raise RuleError(
            f"an annotation of `{method.__name__}` can't be read: {error}",
            hint="with `from __future__ import annotations`, names in annotations have to be "
            "those of the module",
        ) from error
    made = {}
    for name, parameter in parameters.items():
        if parameter.kind not in _PLAIN or parameter.default is not inspect.Parameter.empty:
            raise RuleError(
                f"the parameter {name!r} of `{method.__name__}` can't be a variable",
                hint="give it a plain name, with a constraint as annotation and no default",
            )
        annotated = parameter.annotation is not inspect.Parameter.empty
        made[name] = as_variable(parameter.annotation if annotated else Tensor).renamed(name)
    return made


_PLAIN: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _root(item: Any) -> Pattern:
    if isinstance(item, NodePattern):
        root = as_pattern(item)
    elif isinstance(item, ResultPattern):
        root = item
    elif isinstance(item, Either):
        root = Either(tuple(_root(part) for part in item.alternatives))
    else:
        raise RuleError(
            f"a pattern returns nodes, not {item!r}",
            hint="a rule starts from a node; call an op, and return its result",
        )
    return root


# --------------------------------------------------------------------------- checks of patterns


def _check_bound(spelling: Spelling) -> None:
    mentioned = {id(item) for item in walk(*spelling.roots)}
    always = _bound(spelling.roots)
    for name, variable in spelling.variables.items():
        if id(variable) not in mentioned:
            raise RuleError(
                f"the variable {name!r} of `{spelling.name}` is never bound",
                hint="use it in the pattern, or take it out of the parameters",
            )
        if id(variable) not in always and not isinstance(variable, Maybe):
            raise RuleError(
                f"the variable {name!r} of `{spelling.name}` is bound in some alternatives only",
                hint=f"bind it in all, or annotate it `{name}: Maybe(...)`: None where it is not",
            )


def _bound(roots: Sequence[Pattern]) -> frozenset[int]:
    """The ids of all patterns that every match of `roots` goes through."""
    known: dict[int, frozenset[int]] = {}
    for pattern in postorder(*roots):
        parts = [known[id(part)] for part in children(pattern)]
        if isinstance(pattern, Either):
            inner = frozenset.intersection(*parts)
        else:
            inner = frozenset().union(*parts)
        known[id(pattern)] = inner | {id(pattern)}
    return frozenset().union(*(known[id(root)] for root in roots))


def _places(patterns: Sequence[Pattern], counted: Set[int] = frozenset()) -> Counter[int]:
    """At how many places every match has a pattern, at least, by its id.

    Args:
        patterns: what is matched.
        counted: ids of the patterns whose parts are counted already.
    """
    always = _bound(patterns)
    places = Counter(id(pattern) for pattern in patterns)
    for item in walk(*patterns):
        if id(item) not in always or id(item) in counted:
            continue
        if isinstance(item, Either):
            ways = [_places((part,), always | counted) for part in item.alternatives]
            places += reduce(and_, ways)
        else:
            places.update(id(part) for part in children(item))
    return places


def root_nodes(root: Pattern) -> tuple[NodePattern, ...]:
    """The nodes that a root may be a result of."""
    match root:
        case NodePattern():
            return (root,)
        case ResultPattern(node, _):
            return (node,)
        case Either(parts):
            return tuple(node for part in parts for node in root_nodes(part))
    return ()


def _check_purity(spelling: Spelling) -> None:
    roots = {id(node) for root in spelling.roots for node in root_nodes(root)}
    for item in walk(*spelling.roots):
        ops = () if not isinstance(item, NodePattern) or id(item) in roots else named_ops(item)
        for op in ops:
            if not op.is_pure:
                raise RuleError(
                    f"{op.name} has effects or random results, so it can't be inside a pattern",
                    hint="it may only be what the pattern returns",
                )


def named_ops(node: NodePattern) -> tuple[Op, ...]:
    """The ops that `node` names; none if it goes by traits."""
    return node.op.ops if isinstance(node.op, OpVar) else (node.op,)


def _check_connected(spelling: Spelling) -> None:
    """Every root has something in common with those before it, else any two nodes would do."""
    known = {id(item) for item in walk(spelling.roots[0])}
    for root in spelling.roots[1:]:
        inside = {id(item) for item in walk(root) if not isinstance(item, Literal | ListPattern)}
        if not inside & known:
            raise RuleError(
                f"the roots of `{spelling.name}` have no variable in common: {root!r}",
                hint="roots of one rule share an operand",
            )
        known |= inside


# --------------------------------------------------------------------------- `where`, `replace`


def parameters_of(called: str, method: Callable[..., Any]) -> tuple[str, ...]:
    """The names that a `where` or `replace` asks for.

    Raises:
        RuleError: one is no plain parameter.
    """
    parameters = inspect.signature(method).parameters
    for name, parameter in parameters.items():
        if parameter.kind not in _PLAIN:
            raise RuleError(f"`{called}` takes *{name}", hint="name the variables that it needs")
    return tuple(parameters)


def check_uses(spellings: Sequence[Spelling], methods: Mapping[str, Sequence[str]]) -> None:
    """Checks that methods ask for variables there are, and that no captured attribute is lost.

    Args:
        spellings: the patterns of a rule.
        methods: for `where` and `replace`, the names that they take.

    Raises:
        RuleError: a name is unknown, or an attribute is captured and ignored.
    """
    for spelling in spellings:
        for method, names in methods.items():
            for name in names:
                if name not in spelling.variables:
                    raise RuleError(
                        f"`{method}` asks for {name!r}, which `{spelling.name}` does not bind",
                        hint=did_you_mean(name, spelling.variables),
                    )
        used = {name for names in methods.values() for name in names}
        places = _places(spelling.roots)
        for name, variable in spelling.variables.items():
            if not variable.is_attribute or name in used or name.startswith("_"):
                continue
            if places[id(variable)] < 2:  # in two places it says that these are the same
                raise RuleError(
                    f"{name!r} is captured and then ignored, so any value would match",
                    hint=f"take it in `where` or `replace`, or call it `_{name}` if any will do",
                )
