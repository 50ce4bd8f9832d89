"""How generated code calls an op: by a binding of torch where it is the same operator.

An overload called from Python (``torch.ops.aten.add.Tensor(x, y)``) costs about half as much
again as torch's own binding (``torch.add(x, y)``), and reads worse. A binding takes all the
overloads of its name, and may have other defaults, so it is used only where it is *seen* to come
to the operator that was meant: both are called on meta tensors, and what they hand to torch's
dispatcher must be the same. The answer is remembered per op and kinds of arguments.
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
from torch.utils._pytree import tree_leaves

from rewright.ir.aliasing import is_composite
from rewright.ir.ops import Op


@attrs.frozen
class Argument:
    """An argument as source, and a sample of the kind of thing that it will be.

    Attributes:
        text: the source.
        sample: a meta tensor, a number, a tuple of them ...; None where the kind can't be told
            (also for what really is None).
        parts: the elements of a tuple, as source.
    """

    text: str
    sample: Any
    parts: tuple[str, ...] = ()

    @property
    def is_sizes(self) -> bool:
        """Whether this is a tuple of integers."""
        return type(self.sample) is tuple and all(type(item) is int for item in self.sample)

    @property
    def is_one_size(self) -> bool:
        """Whether this is a tuple of one integer, for which torch takes the integer."""
        return self.is_sizes and len(self.sample) == 1


@attrs.frozen
class Binding:
    """A Python function of torch's that computes an op.

    Attributes:
        text: its source, ``torch.relu``; of a method only the name, ``expand``.
        function: the function itself; a method takes its tensor first.
        is_method: whether to write ``x.expand(...)``.
        spread: whether a tuple of sizes is written as several arguments, ``x.expand(4, 8)``,
            which torch parses faster.
        bare: whether a tuple of one size is written as the size, ``torch.sum(x, 1)``; likewise.
    """

    text: str
    function: Callable[..., Any] = attrs.field(eq=False, repr=False)
    is_method: bool = False
    spread: bool = False
    bare: bool = False

    def call(self, args: Sequence[Argument], kwargs: Mapping[str, Argument]) -> str:
        """Source that calls it."""
        if self.spread:
            texts = [args[0].text, *args[1].parts]
        else:
            texts = [self._text(item) for item in args]
        texts += [f"{name}={self._text(item)}" for name, item in kwargs.items()]
        if self.is_method:
            return f"{texts[0]}.{self.text}({', '.join(texts[1:])})"
        return f"{self.text}({', '.join(texts)})"

    def _text(self, item: Argument) -> str:
        return item.parts[0] if self.bare and item.is_one_size else item.text

    def forms(
        self, args: Sequence[Argument], kwargs: Mapping[str, Argument]
    ) -> Iterator[tuple[Binding, list[Any], dict[str, Any]]]:
        """The ways to write a call of it, best first, each with the samples it then passes."""
        plain = [item.sample for item in args]
        named = {name: item.sample for name, item in kwargs.items()}
        if self.is_method and len(args) == 2 and not kwargs and args[1].is_sizes:
            yield attrs.evolve(self, spread=True), [plain[0], *plain[1]], {}
        if any(item.is_one_size for item in (*args, *kwargs.values())):
            yield (
                attrs.evolve(self, bare=True),
                [item.sample[0] if item.is_one_size else item.sample for item in args],
                {n: i.sample[0] if i.is_one_size else i.sample for n, i in kwargs.items()},
            )
        yield self, plain, named


_MODULES: Final[Mapping[str, Any]] = {
    name: getattr(torch._C, name)
    for name in ("_VariableFunctions", "_nn", "_linalg", "_fft", "_special")
}
"""Where torch keeps its bindings, by the names that generated source imports."""

_lock = threading.Lock()
_known: dict[Any, Binding | None] = {}


def binding_of(op: Op, args: Sequence[Argument], kwargs: Mapping[str, Argument]) -> Binding | None:
    """A binding that is `op` for arguments of these kinds, or None.

    Args:
        op: any op.
        args: its arguments by position.
        kwargs: its arguments by name.
    """
    if not isinstance(op.target, OpOverload) or op.target.namespace != "aten":
        return None
    named = tuple((name, _kind(item.sample)) for name, item in kwargs.items())
    key = (op, tuple(_kind(item.sample) for item in args), named)
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


def _find(
    target: OpOverload, args: Sequence[Argument], kwargs: Mapping[str, Argument]
) -> Binding | None:
    samples = [item.sample for item in args]
    once = not is_composite(target)
    meant = _observe(target, samples, {n: item.sample for n, item in kwargs.items()}, once)
    if meant is None:
        return None
    for binding in candidates(target):
        if binding.is_method and not (samples and isinstance(samples[0], Tensor)):
            continue
        for form, given, named in binding.forms(args, kwargs):
            if meant == _observe(form.function, given, named, once):
                return form
    return None


def _kind(value: Any) -> Any:
    """What of an argument may decide how a binding parses it."""
    if isinstance(value, Tensor):
        return Tensor, value.dim() == 0, value.is_floating_point()
    if isinstance(value, list | tuple):
        return tuple, len(value) == 1, frozenset(map(_kind, value))
    return type(value)


# --------------------------------------------------------------------------- the observation


class _Enough(BaseException):
    """Leaves a call whose first dispatch says all; no code under it may catch that."""


def _observe(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], once: bool
) -> tuple[Any, ...] | None:
    """What a call dispatches and returns, in comparable form; None where it can't be called.

    With `once`, only what it dispatches first: an operator with a kernel of its own does nothing
    else, and need not be computed.
    """
    observer = _Observer([*args, *kwargs.values()], once)
    try:
        with observer:
            returned = observer.described(function(*args, **kwargs))
    except _Enough:
        returned = None
    except Exception:  # whatever a binding says of arguments that it doesn't take
        return None
    return (*observer.seen, returned)


class _Observer(TorchDispatchMode):
    """Notes every operator that reaches torch's dispatcher, tensors by where they come from."""

    def __init__(self, given: Sequence[Any], once: bool) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self._once = once
        self._tensors: list[Tensor] = []  # kept, so that their ids stay theirs
        self._names: dict[int, str] = {}
        for index, item in enumerate(tree_leaves(given)):
            self._name(item, f"argument {index}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append((func, self.described((args, kwargs or {}))))
        if self._once:
            raise _Enough
        returned = func(*args, **(kwargs or {}))
        for index, item in enumerate(tree_leaves(returned)):
            self._name(item, f"result {index} of {len(self.seen)}")
        return returned

    def _name(self, item: Any, name: str) -> None:
        if isinstance(item, Tensor):
            self._tensors.append(item)
            self._names.setdefault(id(item), name)

    def described(self, value: Any) -> Any:
        """`value` in comparable form."""
        if isinstance(value, Tensor):
            return self._names.get(id(value)) or _content(value)
        if isinstance(value, list | tuple):
            return tuple(map(self.described, value))
        if isinstance(value, dict):
            return {name: self.described(item) for name, item in value.items()}
        return type(value), repr(value)


def _content(tensor: Tensor) -> Any:
    """A tensor that was made on the way: a number that torch wrapped."""
    values = None if tensor.is_meta or tensor.numel() > 1 else repr(tensor.tolist())
    return tensor.dtype, tuple(tensor.shape), tensor.device, values
