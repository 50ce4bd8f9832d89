"""Torch's private interfaces that the Dynamo frontend stands on, each wrapped once.

Tried with torch 2.11 and 2.13. What may move between releases is here and nowhere else:

* :func:`retrace` turns Dynamo's graph into ATen-level FX, composite operators whole;
* :func:`tracing_lock` is torch's own, under which one thread traces at a time;
* :func:`source_name` tells where an input of that graph comes from;
* :func:`raise_through_dynamo` lets an error of ours reach the user as itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any, Final, NoReturn

import attrs
import sympy
import torch
import torch.fx
from torch._dynamo.exc import ShortenTraceback
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import PreDispatchTorchFunctionMode, make_fx
from torch.fx.experimental.symbolic_shapes import PropagateUnbackedSymInts, ShapeEnv
from torch.fx.traceback import preserve_node_meta
from torch.overrides import _get_current_function_mode_stack
from torch.utils._sympy.value_ranges import ValueRanges

from rewright.errors import FrontendError, RewrightError
from rewright.frontends.locations import location_of
from rewright.frontends.transforms import TRANSFORMS

# --------------------------------------------------------------------------- errors


def raise_through_dynamo(error: RewrightError, first_frame: FrameType | None) -> NoReturn:
    """Raises `error` so that the caller of a compiled model catches just that.

    Whatever a backend raises, Dynamo wraps in its own ``BackendCompilerFailed``, but for
    :class:`ShortenTraceback`: it only cuts the frames above `first_frame` off. So the error is
    raised as a subclass of its own class and that one.
    """
    cls: Any = type(error)
    passing = _passing_class(cls)
    shown = passing.__new__(passing)
    shown.args = error.args
    shown.__dict__.update(error.__dict__, first_useful_frame=first_frame)
    raise shown from error.__cause__


@lru_cache(maxsize=64)
def _passing_class(cls: Any) -> Any:
    """A class that is `cls`, and that Dynamo lets pass."""

    def reduce(self: RewrightError) -> Any:
        state = {k: v for k, v in self.__dict__.items() if k in _fields(cls)}
        return _plain, (cls, state)

    members = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce__": reduce}
    return type(cls.__name__, (cls, ShortenTraceback), members)


def _fields(cls: type[RewrightError]) -> set[str]:
    return set(cls("").__dict__)


def _plain(cls: type[RewrightError], state: dict[str, Any]) -> RewrightError:
    """The error itself, without Dynamo's class: what pickling and copying give."""
    error = cls.__new__(cls)
    error.args = (state["message"],)
    error.__dict__.update(state)
    return error


# --------------------------------------------------------------------------- inputs


def source_name(placeholder: torch.fx.Node) -> str | None:
    """Where Dynamo takes an input from: ``L['self']._modules['fc']._parameters['weight']``."""
    source = getattr(placeholder, "_dynamo_source", None)
    return None if source is None else str(source.name)


def is_wrapped_float(placeholder: torch.fx.Node) -> bool:
    """Whether the input is a Python float, which Dynamo passes as a tensor."""
    return bool(getattr(placeholder.meta.get("grapharg"), "pass_arg_as_tensor", False))


def is_functorch_wrapped(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is inside a vmap or grad transform that began outside the graph."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


# --------------------------------------------------------------------------- tracing


def tracing_lock() -> AbstractContextManager[Any]:
    """The lock that Dynamo holds while it compiles; the same thread may take it again.

    Whoever exports takes it, too: torch.export itself takes none, and two exports at once break
    each other's modes and leave fake tensors in the models. It comes before all locks of ours.
    """
    from torch._dynamo.convert_frame import compile_lock

    return compile_lock


@attrs.frozen
class Retraced:
    """Dynamo's graph at the level of ATen.

    Attributes:
        module: FX with ``meta["val"]``, stack traces and module stacks. Its placeholders are
            those of Dynamo's graph, in order.
        ranges: what is known of torch's size symbols.
        hints: their values in the example.
    """

    module: torch.fx.GraphModule
    ranges: Mapping[sympy.Symbol, ValueRanges[Any]]
    hints: Mapping[sympy.Symbol, Any]


def retrace(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Retraced:
    """Runs Dynamo's graph on fake tensors and records the operators that the dispatcher sees.

    This is what torch.export does for its training IR: recorded before autograd and autocast,
    composite operators (linear, attention, norms) stay whole and in-place operators in place.
    The sizes are Dynamo's symbols; what is assumed of them becomes guards of its frame.

    Raises:
        FrontendError: an operator can't be run on fake tensors; names the user's line.
    """
    context = TracingContext.try_get()
    mode = context.fake_mode if context is not None else None
    if mode is None:
        mode = FakeTensorMode(shape_env=ShapeEnv())
    interpreter = _Retracer(gm)

    def run(*inputs: Any) -> Any:
        return interpreter.run(*inputs)

    with mode, torch.no_grad(), preserve_node_meta(), _blaming(interpreter):
        nodes = gm.graph.find_nodes(op="placeholder")
        fakes = [_fake(*pair, mode, context) for pair in zip(nodes, example_inputs, strict=True)]
        module = make_fx(run, pre_dispatch=True)(*fakes)
    env = mode.shape_env
    if env is None:
        return Retraced(module, {}, {})
    return Retraced(module, dict(env.var_to_range), dict(env.backed_var_to_val))


def _fake(
    placeholder: torch.fx.Node,
    example: Any,
    mode: FakeTensorMode,
    context: TracingContext | None,
) -> Any:
    """A fake tensor of Dynamo's symbolic sizes; numbers are symbols already."""
    if not isinstance(example, torch.Tensor):
        return example
    sizes = context.tensor_to_context.get(example) if context is not None else None
    source = None if is_wrapped_float(placeholder) else getattr(placeholder, "_dynamo_source", None)
    fake = mode.from_tensor(
        example, static_shapes=sizes is None, symbolic_context=sizes, source=source
    )
    if is_wrapped_float(placeholder):
        # Dynamo's own symbol for the number: of a new one its guards would not know the source.
        fake.item_memo = getattr(placeholder.meta.get("example_value"), "item_memo", None)
    return fake


class _Retracer(PropagateUnbackedSymInts):
    """Interprets a graph, keeps the names of data-dependent sizes, and knows where it is."""

    node: torch.fx.Node | None = None

    def run_node(self, n: torch.fx.Node) -> Any:
        self.node = n
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if getattr(target, "__module__", None) == TRANSFORMS:
            return _record_transform(target, args, kwargs)
        if target in _CHECKPOINTS:
            return self._inline(args[0], args[1:])
        return super().call_function(target, args, kwargs)

    def _inline(self, body: torch.fx.GraphModule, args: Sequence[Any]) -> Any:
        """Runs the body of a call, and takes the blame for what fails there."""
        inner, here = _Retracer(body), self.node
        try:
            returned = inner.run(*args)
        except Exception:
            self.node = inner.node
            raise
        self.node = here
        return returned


_CHECKPOINTS: Final = (
    torch.ops.higher_order.tag_activation_checkpoint,
    torch.ops.higher_order.wrap_activation_checkpoint,
)
"""What ``torch.utils.checkpoint`` becomes: it says only what a backward would compute again."""


def _record_transform(target: Any, args: Any, kwargs: Any) -> Any:
    """Runs a call that begins, ends or enters a transform, and records it as torch.export does.

    Outside of an export these functions don't ask the tracer that is active.
    """
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, PreDispatchTorchFunctionMode):
            with torch._C.DisableTorchFunction():
                return mode.__torch_function__(target, (), args, kwargs)
    return target(*args, **kwargs)


@contextmanager
def _blaming(interpreter: _Retracer) -> Iterator[None]:
    """Names the user's line in what torch raises while it traces."""
    try:
        yield
    except RewrightError:
        raise
    except Exception as error:
        node = interpreter.node
        where = None if node is None else location_of(node)
        reason = str(error).strip().split("\n")[0]
        raise FrontendError(
            f"torch could not trace this on fake tensors: {type(error).__name__}: {reason}",
            op=None if node is None else _called(node.target),
            where=where,
            hint="an operator of your own needs a fake implementation: torch.library.register_fake",
        ) from error


@contextmanager
def outside_dynamo() -> Iterator[None]:
    """Within, nothing takes Dynamo's fake tensors and sizes for its own.

    Types are inferred with fake tensors, and Inductor compiles, in contexts of their own.
    """
    with tracing(None):
        yield


def _called(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
