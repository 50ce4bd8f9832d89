"""The ways to run a model that are compared.

Torch's are a table. Ours are named on the command line: ``NAME:WAY:setting=value,...``, where WAY
is ``jit`` (torch.compile with our backend) or ``aot`` (exported, compiled, saved and loaded).
"""

from __future__ import annotations

import ast
import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import torch
from torch import Tensor, nn

from benchmarks.gpu.models import Inputs

Run = Callable[[Inputs], Tensor]


@attrs.frozen
class Variant:
    """A way to run a model.

    Attributes:
        name: of the column.
        prepare: makes a function of the inputs; the first call may still compile.
        is_ours: whether it is compiled by Rewright.
        is_inductor: whether it counts among Inductor's modes.
        is_exported: whether the model is exported for it.
        settings: what it was told, for the record.
    """

    name: str
    prepare: Callable[[nn.Module, Inputs], Run]
    is_ours: bool = False
    is_inductor: bool = False
    is_exported: bool = False
    settings: Mapping[str, Any] = attrs.field(factory=dict)


# --------------------------------------------------------------------------- torch's


def _eager(model: nn.Module, example: Inputs) -> Run:
    return lambda inputs: model(**inputs)


def _eager_graph(model: nn.Module, example: Inputs) -> Run:
    """What a careful user does by hand: inputs are copied in, the result is the graph's memory."""
    if not next(model.parameters()).is_cuda:
        return _eager(model, example)
    static = {name: value.clone() for name, value in example.items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(**static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = model(**static)

    def run(inputs: Inputs) -> Tensor:
        for name, value in inputs.items():
            static[name].copy_(value)
        graph.replay()
        return result

    return run


def _inductor(**options: Any) -> Callable[[nn.Module, Inputs], Run]:
    def prepare(model: nn.Module, example: Inputs) -> Run:
        made = torch.compile(model, dynamic=False, options=options)
        return lambda inputs: made(**inputs)

    return prepare


_AUTOTUNED: Final = {"max_autotune": True, "coordinate_descent_tuning": True}

TORCHS: Final[Mapping[str, Variant]] = {
    variant.name: variant
    for variant in (
        Variant("eager", _eager),
        Variant("eager-graph", _eager_graph),
        Variant("inductor", _inductor(), is_inductor=True),
        Variant("inductor-ro", _inductor(**{"triton.cudagraphs": True}), is_inductor=True),
        Variant(
            "inductor-freeze-ro",
            _inductor(freezing=True, **{"triton.cudagraphs": True}),
            is_inductor=True,
        ),
        Variant(
            "inductor-max",
            _inductor(**_AUTOTUNED, **{"triton.cudagraphs": True}),
            is_inductor=True,
        ),
    )
}
"""By name; ``inductor-max`` is slow to compile and only run when asked for."""

DEFAULT: Final = ("eager", "eager-graph", "inductor", "inductor-ro", "inductor-freeze-ro")

OURS: Final = (
    "jit-eager:jit:optimization_level=2,cuda_graphs=on",
    "jit-inductor:jit:optimization_level=2,torch_backend=inductor,cuda_graphs=on",
    "aot-inductor:aot:optimization_level=3,torch_backend=inductor,cuda_graphs=on",
)
"""What is run of ours unless the command line says otherwise."""


# --------------------------------------------------------------------------- ours


def _jit(settings: Mapping[str, Any]) -> Callable[[nn.Module, Inputs], Run]:
    def prepare(model: nn.Module, example: Inputs) -> Run:
        options = {**settings, "on_error": "raise"}
        made = torch.compile(model, backend="rewright", dynamic=False, options=options)
        return lambda inputs: made(**inputs)

    return prepare


def _aot(settings: Mapping[str, Any]) -> Callable[[nn.Module, Inputs], Run]:
    def prepare(model: nn.Module, example: Inputs) -> Run:
        import rewright

        made: Any = rewright.compile(model, (), example, **settings)
        if hasattr(rewright, "load") and hasattr(made, "save"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "program.rw"
                made.save(path)
                made = rewright.load(path)
        return lambda inputs: made(**inputs)

    return prepare


_WAYS: Final = {"jit": _jit, "aot": _aot}


def ours(text: str) -> Variant:
    """A variant from ``NAME:WAY:setting=value,...``.

    Raises:
        ValueError: the text is not of that form.
    """
    parts = text.split(":", 2)
    if len(parts) < 2 or parts[1] not in _WAYS:
        raise ValueError(f"{text!r} is not NAME:jit:setting=value,... or NAME:aot:...")
    settings: dict[str, Any] = {}
    for item in filter(None, (parts[2] if len(parts) > 2 else "").split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} in {text!r} is not setting=value")
        settings[name] = _value(value)
    return Variant(
        parts[0], _WAYS[parts[1]](settings), is_ours=True, is_exported=parts[1] == "aot",
        settings=settings,
    )  # fmt: skip


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def chosen(names: Sequence[str], given: Sequence[str], device: str) -> list[Variant]:
    """The variants called `names`, and those of ours that `given` describes.

    On the CPU, graphs of ours are 'auto': there, 'on' is an error.

    Raises:
        ValueError: there is no such variant.
    """
    for name in names:
        if name not in TORCHS:
            raise ValueError(f"there is no variant {name!r}; there are {', '.join(TORCHS)}")
    if device == "cpu":
        given = [text.replace("cuda_graphs=on", "cuda_graphs=auto") for text in given]
    return [*(TORCHS[name] for name in names), *map(ours, given)]


def own_copy(model: nn.Module) -> nn.Module:
    """A copy for one variant, so that none changes what another runs."""
    return copy.deepcopy(model)
