"""How generated code calls an op: by a binding of torch where it is the same operator.

An overload called from Python (``torch.ops.aten.add.Tensor(x, y)``) costs about half as much
again as torch's own binding (``torch.add(x, y)``), and reads worse. A binding takes all the
overloads of its name, so it is used only where it is *seen* to reach the operator that was
meant: both are called on meta tensors, and what they hand to torch's dispatcher first must be
the same. Nothing is computed by that, and the answer is remembered per op and kinds of arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from rewright.ir.ops import Op


@attrs.frozen
class Binding:
    """A Python function of torch's that computes an op.

    Attributes:
        text: its source, ``torch.relu``; of a method only the name, ``expand``.
        function: the function itself; a method takes its tensor first.
        is_method: whether to write ``x.expand(...)``.
    """

    text: str
    function: Callable[..., Any] = attrs.field(eq=False, repr=False)
    is_method: bool = False

    def call(self, args: Sequence[str]) -> str:
        """Source that calls it with `args` (positional ones first)."""
        if self.is_method:
            return f"{args[0]}.{self.text}({', '.join(args[1:])})"
        return f"{self.text}({', '.join(args)})"


_MODULES: Final[Mapping[str, Any]] = {
    "_VariableFunctions": torch._C._VariableFunctions,
    "_nn": torch._C._nn,
    "_linalg": torch._C._linalg,
    "_fft": torch._C._fft,
    "_special": torch._C._special,
}
"""Where torch keeps its bindings, by the names that generated source imports."""

_lock = threading.Lock()
_known: dict[Any, Binding | None] = {}


def binding_of(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Binding | None:
    """A binding that is `op` for arguments of these kinds, or None.

    Args:
        op: any op.
        args: sample arguments: meta tensors, numbers, tuples of them ...
        kwargs: the same, by name.
    """
    if not isinstance(op.target, OpOverload) or op.target.namespace != "aten":
        return None
    key = (op, tuple(map(_kind, args)), tuple((n, _kind(value)) for n, value in kwargs.items()))
    with _lock:
        if key not in _known:
            _known[key] = _find(op.target, args, kwargs)
        return _known[key]


def candidates(target: OpOverload) -> Iterator[Binding]:
    """The bindings that have the name of `target`: functions first, then a method."""
    name = target.overloadpacket.__name__
    for module, functions in _MODULES.items():
        function = getattr(functions, name, None)
        if function is not None:
            is_public = getattr(torch, name, None) is function
            yield Binding(f"torch.{name}" if is_public else f"{module}.{name}", function)
    method = getattr(torch._C.TensorBase, name, None)
    if callable(method) and getattr(Tensor, name) is method:
        yield Binding(name, method, is_method=True)


def _find(target: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Binding | None:
    meant = _first_dispatch(target, args, kwargs)
    for binding in candidates(target):
        if binding.is_method and not (args and isinstance(args[0], Tensor)):
            continue
        if meant is not None and _same(meant, _first_dispatch(binding.function, args, kwargs)):
            return binding
    return None


# --------------------------------------------------------------------------- the observation


class _Dispatched(BaseException):
    """Leaves a call at its first dispatch; no code under it may catch that."""


class _Observer(TorchDispatchMode):
    """Stops at the first operator that reaches torch's dispatcher."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise _Dispatched(func, args, kwargs or {})


def _first_dispatch(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    """What a call dispatches first, or what it returns without; None where it can't be called."""
    try:
        with _Observer():
            return ("returned", function(*args, **kwargs))
    except _Dispatched as seen:
        return seen.args
    except Exception:  # whatever a binding says of arguments that it doesn't take
        return None


def _same(a: Any, b: Any) -> bool:
    """Whether two observations agree: the same tensors, numbers and operators."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or _same_tensor(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    return type(a) is type(b) and (a is b or repr(a) == repr(b))


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors made on the way (a wrapped number, an alias) are alike."""
    alike = a.dtype == b.dtype and a.shape == b.shape and a.device == b.device
    return alike and (a.is_meta or torch.equal(a, b))


def _kind(value: Any) -> Any:
    """What of an argument may decide how a binding parses it."""
    if isinstance(value, Tensor):
        return Tensor, value.dim() == 0, value.is_floating_point()
    if isinstance(value, list | tuple):
        return tuple, len(value) == 1, frozenset(map(_kind, value))
    return type(value)
