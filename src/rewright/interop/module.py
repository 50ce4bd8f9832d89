"""What makes a compiled program a module of torch's, at home in a larger model.

``model.encoder = program`` works as with any module, and what a model does to its modules means
for a program:

==========================  ======================================================================
``eval()``                  nothing: it computes as the model did when it was captured
``train()``                 an error: there is no training mode in it
``to(device)``, ``cuda()``  it moves, weights and all: built again there from the same graph
``half()``, ``to(dtype)``   an error, where that would change a dtype: convert the model first
``state_dict()``            its sources, parameters and buffers, by the model's own names
``load_state_dict()``       ``refit``, with what there is for it
``parameters()``            none: nothing in it can be trained
hooks of ``forward``        are called
``copy.deepcopy``           a program of its own, with weights of its own
``pickle``                  an error: ``save`` writes a file
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
        if torch.compiler.is_compiling():
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
            return {name: c.data.detach() for name, c in sources if c.data is not None}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update((prefix + name, data) for name, data in self._states().items())

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
        missing_keys += [prefix + c.name for c in {*sources.values()} if c not in found]
        if strict and len(found) < len({*sources.values()}):
            return  # torch raises then, and nothing may have changed
        if not given:
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
            f"the program can't go there: {str(error).splitlines()[0]}", setting="device"
        ) from error


def _copied(given: Any, constant: Constant) -> Any:
    """A copy of what a state dict has for a constant, where that is."""
    if not isinstance(given, Tensor) or constant.data is None:
        return given
    return given.detach().to(constant.data.device, copy=True)
