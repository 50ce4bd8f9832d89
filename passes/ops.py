"""Ops as functions: what patterns are made of, and what replacements call.

    aten.mm(x, w)               aten.mean.dim(x, [-1], keepdim=True)
    rw.linear(x, w, b)          ops("torchvision").nms(boxes, scores, 0.5)
    (x + 1) * w                 -x, x @ w, x ** 2, x > 0

In a rule's `pattern` a call describes a node; in its `replace` it makes one. Operators mean what
torch makes of them at import:

===============  ==============================  ===================  ==========================
``x + y``        ``aten.add.Tensor``             ``x @ y``            ``aten.matmul``
``x - y``        ``aten.sub.Tensor``             ``-x``               ``aten.neg``
``1 - x``        ``aten.rsub.Scalar``            ``x ** 2``           ``aten.pow.Tensor_Scalar``
``x * y``        ``aten.mul.Tensor``             ``x ** y``           ``aten.pow.Tensor_Tensor``
``x / y``        ``aten.div.Tensor``             ``2 ** x``           ``aten.pow.Scalar``
``1 / x``        ``aten.reciprocal``             ``x > y``, ``x == y``  ``aten.gt.Tensor``, ...
``2 / x``        ``aten.reciprocal``, times 2    ``x > 0``, ``x == 0``  ``aten.gt.Scalar``, ...
===============  ==============================  ===================  ==========================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol

import torch

from rewright.errors import RuleError, UnsupportedError, did_you_mean
from rewright.ir.ops import Op, get_op, known_ops
from rewright.passes.facts import Size

# --------------------------------------------------------------------------- what a call means


class Interpretation(Protocol):
    """What a call of an op means at the moment: a node described, or a node made."""

    def call(self, op: Op, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The result of ``op(*args, **kwargs)``."""


_current: ContextVar[Interpretation | None] = ContextVar("interpretation", default=None)


@contextmanager
def interpreting(interpretation: Interpretation) -> Iterator[None]:
    """Calls of ops mean what `interpretation` says, in this thread, for a while."""
    token = _current.set(interpretation)
    try:
        yield
    finally:
        _current.reset(token)


def is_interpreting() -> bool:
    """Whether a method of a rule is running in this thread."""
    return _current.get() is not None


def call(op: Op | str, *args: Any, **kwargs: Any) -> Any:
    """``op(*args, **kwargs)``, as the method of a rule that is running now means it.

    Raises:
        RuleError: no method of a rule is running.
    """
    found = op if isinstance(op, Op) else get_op(op)
    interpretation = _current.get()
    if interpretation is None:
        raise RuleError(
            f"{found.name} was called outside of a rule",
            hint="ops are called in the methods `pattern` and `replace` of a Rule",
        )
    return interpretation.call(found, args, kwargs)


# --------------------------------------------------------------------------- namespaces


class OpCall:
    """An op, or a family of overloads, by name: ``aten.mean``, ``aten.mean.dim``."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, overload: str) -> OpCall:
        if overload.startswith("__"):
            raise AttributeError(overload)
        return OpCall(f"{self._name}.{overload}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call(self.op, *args, **kwargs)

    @property
    def op(self) -> Op:
        """The op of this name.

        Raises:
            RuleError: there is none; names the overloads if there are some.
        """
        try:
            return get_op(self._name)
        except UnsupportedError:
            raise RuleError(f"there is no op {self._name}", hint=_overloads(self._name)) from None

    def __repr__(self) -> str:
        return self._name


def overloads_of(op: Op) -> str | None:
    """A hint that names the other overloads of `op`, if it has any."""
    if not op.is_torch:
        return None
    namespace, packet = op.name.split(".")[:2]
    names = _overload_names(namespace, packet, op.target.overloadpacket)
    others = [name for name in names if name != op.name]
    return f"there are also {', '.join(others)}" if others else None


def _overloads(name: str) -> str:
    namespace, packet = name.split(".")[:2]
    found = getattr(getattr(torch.ops, namespace), packet, None)
    if found is None or namespace == "rw":
        known = {op.name for op in known_ops()} | set(_torch_names(namespace))
        imported = f"import the library that registers {name} before the rule is declared"
        return did_you_mean(name, known, otherwise=imported)
    return f"write one of {', '.join(_overload_names(namespace, packet, found))}"


def _torch_names(namespace: str) -> list[str]:
    """What torch has under `namespace`, without overloads: ``aten.relu``."""
    names = (name.split(".")[0] for name in torch._C._dispatch_get_all_op_names())
    return [name.replace("::", ".") for name in names if name.startswith(f"{namespace}::")]


def _overload_names(namespace: str, packet: str, found: Any) -> list[str]:
    """The names of the overloads of a torch operator that take and return tensors."""
    names = []
    for overload in found.overloads():
        schema = getattr(found, overload)._schema
        kinds = [str(item.type) for item in (*schema.arguments[:1], *schema.returns[:1])]
        if "out" not in overload and all("Tensor" in kind for kind in kinds):
            name = f"{namespace}.{packet}"
            names.append(name if overload == "default" else f"{name}.{overload}")
    return names


class Ops:
    """The ops of a library, as attributes."""

    __slots__ = ("_namespace",)

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def __getattr__(self, name: str) -> OpCall:
        if name.startswith("__"):
            raise AttributeError(name)
        return OpCall(f"{self._namespace}.{name}")

    def __repr__(self) -> str:
        return f"ops({self._namespace!r})"


def ops(namespace: str) -> Ops:
    """The ops registered with torch under `namespace`."""
    return Ops(namespace)


aten: Final = Ops("aten")
prims: Final = Ops("prims")
rw: Final = Ops("rw")


# --------------------------------------------------------------------------- operators


class Expression:
    """Something with operators, which are calls of ops: a pattern, or a value in `replace`."""

    __slots__ = ()

    is_number = False
    """Whether this stands for a number and not for a tensor."""

    def __add__(self, other: Any) -> Any:
        return _either_order("aten.add.Tensor", self, other)

    def __radd__(self, other: Any) -> Any:
        return _either_order("aten.add.Tensor", self, other)

    def __sub__(self, other: Any) -> Any:
        return _difference(self, other)

    def __rsub__(self, other: Any) -> Any:
        return _difference(other, self)

    def __mul__(self, other: Any) -> Any:
        return _either_order("aten.mul.Tensor", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _either_order("aten.mul.Tensor", self, other)

    def __truediv__(self, other: Any) -> Any:
        return _quotient(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _quotient(other, self)

    def __matmul__(self, other: Any) -> Any:
        return call("aten.matmul", self, other)

    def __pow__(self, other: Any) -> Any:
        return _power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return _power(other, self)

    def __neg__(self) -> Any:
        return call("aten.neg", self)

    def __lt__(self, other: Any) -> Any:
        return _compare("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return _compare("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return _compare("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return _compare("ge", self, other)

    def __eq__(self, other: object) -> Any:
        return _compare("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return _compare("ne", self, other)

    __hash__ = object.__hash__  # `==` is an op; identity is what tells expressions apart


def _is_number(item: Any) -> bool:
    if isinstance(item, Expression):
        return item.is_number
    return isinstance(item, int | float | complex | Size)


def _number_first(a: Any, b: Any) -> bool:
    return _is_number(a) and not _is_number(b)


def _either_order(op: str, a: Any, b: Any) -> Any:
    return call(op, b, a) if _number_first(a, b) else call(op, a, b)


def _difference(a: Any, b: Any) -> Any:
    return call("aten.rsub.Scalar", b, a) if _number_first(a, b) else call("aten.sub.Tensor", a, b)


def _quotient(a: Any, b: Any) -> Any:
    if not _number_first(a, b):
        return call("aten.div.Tensor", a, b)
    inverse = call("aten.reciprocal", b)
    return inverse if isinstance(a, int | float) and a == 1 else inverse * a


def _power(a: Any, b: Any) -> Any:
    if _number_first(a, b):
        return call("aten.pow.Scalar", a, b)
    return call(f"aten.pow.Tensor_{'Scalar' if _is_number(b) else 'Tensor'}", a, b)


_MIRRORED: Final = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


def _compare(sign: str, a: Any, b: Any) -> Any:
    if _number_first(a, b):
        a, b, sign = b, a, _MIRRORED[sign]
    return call(f"aten.{sign}.{'Scalar' if _is_number(b) else 'Tensor'}", a, b)
