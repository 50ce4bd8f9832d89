"""What makes a compiled program a module of torch's, at home in a larger model.

``model.encoder = program`` works as with any module, and what a model does to its modules means
for a program:

==========================  ======================================================================
``eval()``                  nothing: it computes as the model did when it was captured
``train()``                 an error: there is no training mode in it
``to(device)``, ``cuda()``  it moves, weights and all: built again there from the same graph
``half()``, ``to(dtype)``   an error, where that would change a dtype: convert the model first
``state_dict()``            its parameters and persistent buffers, by the model's own names
``load_state_dict()``       ``refit``, with what there is for it
``functional_call``         an error, as is setting a weight or module of the model's: ``refit``
``parameters()``            none: nothing in it can be trained
hooks of ``forward``        are called
``copy.deepcopy``           a program of its own, with weights of its own
``pickle``                  an error: ``save`` writes a file
``torch.jit.script``        an error: ``to_torchscript``, or ``torch.jit.trace``
==========================  ======================================================================

Under ``torch.compile`` a call is one operator (:mod:`rewright.interop.call`). Under
``torch.export`` it is the program's own operators, so that what is exported can be saved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from rewright.errors import RewrightError, SettingsError, UnsupportedError
from rewright.ir.graph import Constant

if TYPE_CHECKING:
    from rewright.backends.torch.build import Built
    from rewright.ir.graph import Graph
    from rewright.ir.signature import Signature
    from rewright.program import CompiledProgram
    from rewright.settings import Settings

T = TypeVar("T", bound="ProgramModule")

_STATE = ("parameter", "buffer")
"""The kinds of constants that a state dict has."""

_NO_ATTRIBUTES = (
    "the weights and modules of a model are no attributes of its program, and "
    "torch.func.functional_call can't replace them; program.state_dict() has the weights, and "
    "program.refit(state_dict) gives it other ones"
)


class ProgramModule(torch.nn.Module):
    """The module's side of a compiled program. Not for use by itself."""

    graph: Graph
    signature: Signature
    settings: Settings
    segments: tuple[Any, ...]
    _built: Built
    _call: Callable[..., Any]
    _traceable: Any

    def __init__(self) -> None:
        super().__init__()
        super().train(False)
        # No submodule: a state dict has its weights once.
        self.__dict__["_traceable"] = None
        self._handle: object | None = None
        # Held while weights are changed, and while several are read that must belong together.
        self._weights = threading.RLock()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program; see :meth:`__call__`, which is faster."""
        if torch.compiler.is_compiling() and is_traced():
            return self.traced(*args, **kwargs)
        try:
            return self._call(*args, **kwargs)
        except TypeError:
            # Too many, too few or unknown arguments are Python's to find and ours to explain.
            self._built.explain(args, kwargs)
            raise

    # -- modes and places

    def train(self: T, mode: bool = True) -> T:
        """Refuses training mode.

        Raises:
            UnsupportedError: `mode` is true.
        """
        if mode:
            raise UnsupportedError(
                f"the compiled program {self.graph.name} has no training mode",
                hint="call train() on the parts of the model that are to be trained",
            )
        return self

    def compile(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses: it is compiled.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"the program {self.graph.name} is compiled already",
            hint="torch.compile(model) of a model around it works",
        )

    def _apply(self: T, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> T:
        """Moves to where `fn` moves a tensor; all of torch's ``to`` and the like come here.

        Raises:
            UnsupportedError: `fn` changes dtypes, or takes the data away.
        """
        here = torch.device(self.graph.device)
        states = self._states().values()
        dtypes = {data.dtype for data in states if data.device == here} or {torch.float32}
        for dtype in sorted(dtypes, key=str):
            probe = _probed(fn, torch.empty(0, dtype=dtype, device=here))
            if probe.dtype != dtype:
                raise UnsupportedError(
                    f"the program {self.graph.name} computes in {dtype}, and can't be made to "
                    f"compute in {probe.dtype}",
                    hint="convert the model, and compile that",
                )
            if probe.device.type == "meta":
                raise UnsupportedError(
                    f"the program {self.graph.name} can't do without its weights",
                    hint="a program has no meta device",
                )
        if probe.device != here:
            self._move(str(probe.device))
        return self

    def _move(self, device: str) -> None:
        from rewright.interop.moving import moved

        with self._weights:
            made = moved(self, device)
            self.__dict__["_traceable"] = self._handle = None
            for name in _MOVED:
                setattr(self, name, getattr(made, name))

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        """A program of its own, whose weights are copies."""
        from rewright.interop.moving import moved

        with self._weights:
            made: T = moved(self, self.graph.device, copies=True)
        memo[id(self)] = made
        return made

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuses: pickles run code when they are loaded.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"the compiled program {self.graph.name} can't be pickled",
            hint="program.save(path) writes a file, and rewright.load(path) reads it",
        )

    # -- weights

    def _sources(self) -> dict[str, Constant]:
        """Parameters and buffers by all their names."""
        held = [c for c in self.graph.constants.values() if c.kind in _STATE]
        return {name: c for c in held for name in (c.name, *c.aliases)}

    def _states(self) -> dict[str, Tensor]:
        with self._weights:
            sources = self._sources().items()
            return {
                name: c.data.detach() for name, c in sources if c.data is not None and _is_there(c)
            }

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update((prefix + name, data) for name, data in self._states().items())

    def __getattr__(self, name: str) -> Any:
        """Says of the model's own names, which ``torch.func.functional_call`` asks for, too, why
        they are not there.

        Raises:
            AttributeError: always, but for what a module has under that name.
        """
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if not self._has_source_in(name):
                raise
            raise AttributeError(
                f"the compiled program {self.graph.name} has no attribute {name!r}: "
                f"{_NO_ATTRIBUTES}",
                name=name,
                obj=self,
            ) from error

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses weights and modules of the model's, which a call would not look at.

        Raises:
            UnsupportedError: `name` is one of the model's.
        """
        if isinstance(value, Tensor | torch.nn.Module) and self._has_source_in(name):
            raise UnsupportedError(
                f"{name!r} of the compiled program {self.graph.name} can't be set",
                hint=_NO_ATTRIBUTES,
            )
        super().__setattr__(name, value)

    def _has_source_in(self, name: str) -> bool:
        """Whether `name` is a weight of the model, or a module that has one."""
        built = "graph" in self.__dict__
        return built and any(c.partition(".")[0] == name for c in self._sources())

    def __prepare_scriptable__(self) -> NoReturn:  # what torch.jit.script asks first
        raise UnsupportedError(
            f"torch.jit.script can't read the compiled program {self.graph.name}",
            hint="program.to_torchscript(examples), or torch.jit.trace of a model around it",
        )

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = [name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)]
        sources = self._sources()
        given = {name: state_dict[prefix + name] for name in names if name in sources}
        unexpected_keys += [prefix + name for name in names if name not in sources]
        found = {sources[name] for name in given}
        missing = [c for c in dict.fromkeys(sources.values()) if c not in found]
        absent = [c for c in missing if not _is_there(c)]
        if absent and all(_is_held(data, sources[name]) for name, data in given.items()):
            # Its own state dict, which has none of what it was saved without.
            missing_keys += [prefix + c.name for c in missing if _is_there(c)]
            return
        missing_keys += [prefix + c.name for c in missing]
        if absent:
            error_msgs.append(_without_sources(self.graph, len(absent)))
        if absent or not given:
            return
        program = cast("CompiledProgram", self)
        try:
            # Copies: a module keeps nothing of a state dict that it loads.
            program.refit({n: _copied(t, sources[n]) for n, t in given.items()}, strict=False)
        except RewrightError as error:
            error_msgs.append(str(error))

    # -- for those who trace

    def traced(self, *args: Any, **kwargs: Any) -> Any:
        """A call, for torch to look into."""
        if not torch.compiler.is_exporting():
            self._wrap()
        elif torch.compiler.is_dynamo_compiling():
            self._refuse_strict()
        else:
            self._write_out()
        return self._traceable(*args, **kwargs)

    def _wrap(self) -> None:
        """Makes the module that calls this program by one operator."""
        if self._handle is None:
            from rewright.interop.call import traceable

            with torch._C.DisableTorchFunction(), _disable_current_modes():
                self.__dict__["_traceable"], self._handle = traceable(cast("CompiledProgram", self))

    def _write_out(self) -> None:
        """Makes the module of the program's own operators."""
        from rewright.interop.engine import engine_calls
        from rewright.interop.portable import portable

        written = [target.name for target in self.graph.targets if isinstance(target, Constant)]
        if written:
            raise UnsupportedError(
                f"the program {self.graph.name} writes to buffers ({', '.join(written)}), which "
                "the export of a model around it would take for constants",
                hint="export it alone, with program.to_exported_program()",
            )
        with (
            self._weights,
            torch._C.DisableTorchFunction(),
            _disable_current_modes(),
            torch.no_grad(),
        ):
            engines = engine_calls(cast("CompiledProgram", self))
            made = portable(self.graph, self.signature, engines)
        self.__dict__["_traceable"] = made
        self._handle = None

    def _refuse_strict(self) -> None:
        """Says that Dynamo's kind of export can't do it: weights must be the model's own there.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"torch.export(strict=True) can't export a model around the program {self.graph.name}",
            hint="leave strict at False",
        )

    # Dynamo runs these when it meets them, and doesn't look inside: what assume_constant_result
    # does to a function, which takes seconds to import. What they make is read off this object,
    # for Dynamo takes no module as a constant.
    _wrap._dynamo_marked_constant = True  # type: ignore[attr-defined]
    _refuse_strict._dynamo_marked_constant = True  # type: ignore[attr-defined]


_MOVED = ("graph", "settings", "source", "segments", "_call", "_built")
"""What is another after a move."""


def is_traced() -> bool:
    """Whether a call is traced, where torch says that something is: it may be in another thread.

    Dynamo answers for itself, and never comes to the second question.
    """
    return torch.compiler.is_dynamo_compiling() or torch._C._len_torch_dispatch_stack() > 0


def _probed(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """What `fn` makes of a tensor.

    Raises:
        SettingsError: there is no device of the kind that it goes to.
    """
    try:
        with torch.no_grad():
            return fn(tensor)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise SettingsError(
            f"the program can't go there: {str(error).splitlines()[0]}",
            setting="device",
            hint="it stays where it was; `rewright doctor` says what this machine has",
        ) from error


def _without_sources(graph: Graph, absent: int) -> str:
    """What to do about weights that neither a program nor a state dict has."""
    return (
        f"the program {graph.name} was saved without {absent} of its weights, which only prepared "
        "constants or engines are made of (sources=False, fallback='none'), so it can't be given a "
        "part of them\n  hint: give it all weights of the model at once, as model.state_dict() has "
        "them; a program that is saved with all of them takes any"
    )


def _is_there(constant: Constant) -> bool:
    """Whether the program has the numbers of a source, and was not saved without them."""
    return constant.data is not None and not constant.data.is_meta


def _is_held(given: Any, constant: Constant) -> bool:
    """Whether the program has just these numbers."""
    held = constant.data
    return (
        isinstance(given, Tensor)
        and held is not None
        and not given.is_meta
        and not held.is_meta
        and (given.dtype, given.shape) == (held.dtype, held.shape)
        and torch.equal(given.to(held.device), held)
    )


def _copied(given: Any, constant: Constant) -> Any:
    """A copy of what a state dict has for a constant, where that is."""
    if not isinstance(given, Tensor) or given.is_meta or constant.data is None:
        return given
    return given.detach().to(constant.data.device, copy=True)
