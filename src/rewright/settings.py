"""What a compile may be told: one frozen class, every field documented where it is declared.

Nothing here is global and nothing is ignored: an unknown name, an illegal value or two settings
that contradict each other raise :class:`~rewright.errors.SettingsError`. A setting stands here
only once the compiler honours it.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, final

import attrs

from rewright.errors import SettingsError, did_you_mean

__all__ = ["Options", "SettingRow", "Settings"]

Scalar: TypeAlias = bool | int | float | str | None


@final
class Options(Mapping[str, Scalar]):
    """An immutable mapping from names to plain values: hashable, ordered by name, picklable."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Scalar] = MappingProxyType({})) -> None:
        self._items = {name: items[name] for name in sorted(items)}

    def __getitem__(self, name: str) -> Scalar:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


@attrs.frozen
class SettingRow:
    """One setting, described as a row of a table.

    ``legal`` says which values are legal: the choices, or words.
    """

    name: str
    default: str
    legal: str
    doc: str


def _illegal(name: str, value: object, legal: str) -> SettingsError:
    return SettingsError(
        f"{value!r} is not a legal value of the setting {name!r}",
        setting=name,
        hint=f"legal values: {legal}",
    )


def _choice(*choices: str, default: str, doc: str) -> Any:
    """A setting that is one of a few words."""
    legal = ", ".join(map(repr, choices))

    def check(_: "Settings", attribute: "attrs.Attribute[str]", value: object) -> None:
        if not isinstance(value, str) or value not in choices:
            raise _illegal(attribute.name, value, legal)

    return attrs.field(default=default, validator=check, metadata={"legal": legal, "doc": doc})


def _flag(*, doc: str) -> Any:
    """A setting that is on or off; off by default."""

    def check(_: "Settings", attribute: "attrs.Attribute[bool]", value: object) -> None:
        if not isinstance(value, bool):
            raise _illegal(attribute.name, value, _FLAG)

    return attrs.field(default=False, validator=check, metadata={"legal": _FLAG, "doc": doc})


def _value(
    *,
    default: Any,
    legal: str,
    doc: str,
    converter: Callable[[Any], Any],
) -> Any:
    """A setting that `converter` checks and brings into its canonical form."""
    return attrs.field(default=default, converter=converter, metadata={"legal": legal, "doc": doc})


_FLAG = "True, False"
_LEVEL = "0, 1, 2, 3"
_NUMERICS = "True, False, or a tolerance above 0"
_PATH = "None, or the path of a folder"
_PIPELINE = "None, a rewright.passes.Pipeline, or its text"
_TEXT = "None, or a text"
_TARGET = "'auto', 'cpu', 'cuda', 'rtx', 'rtx:8.9,12.0' (compute capabilities), 'tensorrt'"
_COUNT = "an integer, at least 1"
_KEPT = 32
_BYTES = "None, or a number of bytes above 0"
_BUDGET = "None, or a number of bytes, 0 among them"
_HARDWARE = "None, 'ampere+', 'same-capability'"
_FILE = "None, or the path of a file"
_ENGINE_LEVEL = "None, or 0 to 5"
KERNELS = ("attention", "conv-relu", "depthwise")
"""The choices of kernels that can be switched off."""

_KERNELS = f"a sequence of {', '.join(map(repr, KERNELS))}"
_GLOBS = "a sequence of names, in which * stands for anything"
_PRECISION = "None, 'fp32', 'fp16', 'bf16'"
_DEVICE = "None, 'cpu', 'cuda', 'cuda:N', or such a torch.device"
_INDUCTOR_OPTIONS = "a mapping from names of torch._inductor.config to plain values"


def _device(value: object) -> str | None:
    """The canonical text of a device. torch is not imported: ``str(torch.device)`` is text."""
    if value is None:
        return None
    text = str(value)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise _illegal("device", value, _DEVICE)
    return text


def _target(value: object) -> str:
    """The target; which compute capabilities there are, the library knows."""
    if isinstance(value, str) and re.fullmatch(
        r"auto|cpu|cuda|tensorrt|rtx(:\d+\.\d(,\s*\d+\.\d)*)?", value
    ):
        return value
    raise _illegal("target", value, _TARGET)


def _count(name: str) -> Callable[[object], int]:
    """A converter of numbers that are at least 1."""

    def convert(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        raise _illegal(name, value, _COUNT)

    return convert


def _bytes(name: str, least: int, legal: str) -> Callable[[object], int | None]:
    def convert(value: object) -> int | None:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value is None or (is_number and value >= least):  # type: ignore[operator]
            return value  # type: ignore[return-value]
        raise _illegal(name, value, legal)

    return convert


def _hardware(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value in ("ampere+", "same-capability")):
        return value
    raise _illegal("engine_hardware_compatible", value, _HARDWARE)


def _file(name: str) -> Callable[[object], str | None]:
    def convert(value: object) -> str | None:
        if value is None or (isinstance(value, str | os.PathLike) and str(value)):
            return None if value is None else str(value)
        raise _illegal(name, value, _FILE)

    return convert


def _engine_level(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 6):
        return value
    raise _illegal("engine_optimization_level", value, _ENGINE_LEVEL)


def _globs(name: str) -> Callable[[object], tuple[str, ...]]:
    """A converter of names: a single text is no sequence of letters."""

    def convert(value: object) -> tuple[str, ...]:
        if isinstance(value, Sequence | frozenset | set) and not isinstance(value, str | bytes):
            ordered = sorted(value) if isinstance(value, frozenset | set) else value
            if all(isinstance(item, str) and item for item in ordered):
                return tuple(ordered)
        raise _illegal(name, value, _GLOBS)

    return convert


def _kernels(value: object) -> tuple[str, ...]:
    if not isinstance(value, Collection) or isinstance(value, str | bytes | Mapping):
        raise _illegal("disabled_kernels", value, _KERNELS)
    for name in value:
        if name not in KERNELS:
            raise SettingsError(
                f"there is no kernel {name!r} to switch off",
                setting="disabled_kernels",
                hint=did_you_mean(str(name), KERNELS),
            )
    return tuple(sorted({*value}))


def _precision(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value in ("fp32", "fp16", "bf16")):
        return value
    raise _illegal("precision", value, _PRECISION)


def _level(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 3:
        return value
    raise _illegal("optimization_level", value, _LEVEL)


def _numerics(value: object) -> bool | float:
    if isinstance(value, bool) or (isinstance(value, float) and value > 0):
        return value
    raise _illegal("numerics", value, _NUMERICS)


def _pipeline(value: Any) -> Any:
    """A pipeline, or its text. What it means is known to `rewright.passes`, which is above this."""
    if value is None or isinstance(value, str) or hasattr(value, "steps"):
        return value
    raise _illegal("pipeline", value, _PIPELINE)


def _dump_ir(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise _illegal("dump_ir", value, _TEXT)


def _reproducer(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str | os.PathLike) and str(value):
        return str(value)
    raise _illegal("reproducer", value, _PATH)


def _inductor_options(value: object) -> Options:
    """The options as plain values, their names known to the installed Inductor."""
    if isinstance(value, Options):
        return value
    if not isinstance(value, Mapping):
        raise _illegal("inductor_options", value, _INDUCTOR_OPTIONS)
    if value:
        from torch._inductor import list_options

        known = list_options()
        for name, option in value.items():
            if name not in known:
                raise SettingsError(
                    f"Inductor has no option {name!r}",
                    setting="inductor_options",
                    hint=did_you_mean(str(name), known),
                )
            if not isinstance(option, Scalar):
                raise SettingsError(
                    f"the Inductor option {name!r} has the value {option!r}",
                    setting="inductor_options",
                    hint="bool, int, float, str and None can be given here",
                )
    return Options(value)


# What each `mode` of torch.compile stands for. The Inductor options are torch's own.
_AUTOTUNED: Mapping[str, object] = MappingProxyType(
    {
        "torch_backend": "inductor",
        "optimization_level": 3,
        "inductor_options": {"max_autotune": True, "coordinate_descent_tuning": True},
    }
)

_MODES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "default": {},
        "reduce-overhead": {
            "torch_backend": "inductor",
            "optimization_level": 3,
            "cuda_graphs": "auto",
        },
        "max-autotune-no-cudagraphs": _AUTOTUNED,
        "max-autotune": {**_AUTOTUNED, "cuda_graphs": "auto"},
    }
)


_ELSEWHERE = {
    "mode": "a mode is an argument of torch.compile, and stands for settings: reduce-overhead for "
    + ", ".join(f"{name}={value!r}" for name, value in _MODES["reduce-overhead"].items()),
    "options": "settings are keywords here: **options",
}
"""What torch.compile takes besides a backend, and no compile takes as a setting."""

_ONLY_WITH_ENGINES = (
    "min_block_size",
    "torch_executed_ops",
    "torch_executed_modules",
    "torch_executed_nodes",
    "require_full_compilation",
    "on_engine_error",
    "fallback",
    "truncate_double",
    "engine_optimization_level",
    "engine_workspace",
    "engine_refit",
    "engine_weight_budget",
    "engine_version_compatible",
    "engine_hardware_compatible",
    "engine_timing_cache",
)
"""Settings that would be ignored where all runs in Torch, and so are refused there."""


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of one compile. Immutable, hashable, and all keywords.

    ``attrs.evolve(settings, target="cpu")`` gives a changed copy, checked like a new one.
    The fields and their legal values: ``rewright settings``, or :meth:`describe`.
    """

    torch_backend: Literal["eager", "inductor"] = _choice(
        "eager",
        "inductor",
        default="eager",
        doc="What runs the parts that stay in Torch: generated straight-line Python that calls "
        "the operators one by one, or code compiled by Inductor.",
    )
    device: str | None = _value(
        default=None,
        legal=_DEVICE,
        converter=_device,
        doc="The device to run on. None: the one that the program was captured on. "
        "Another one moves the program's constants and device arguments there.",
    )
    target: str = _value(
        default="auto",
        legal=_TARGET,
        converter=_target,
        doc="What to compile for: it selects the pipeline and the backends. 'auto' follows the "
        "program's device: on a GPU that an installed TensorRT supports it builds engines with "
        "that, anywhere else all runs in Torch, as with 'cpu' and 'cuda'; 'rtx' builds engines "
        "with TensorRT for RTX, here and without a GPU; 'tensorrt' with TensorRT, for the GPU of "
        "this machine.",
    )
    on_error: Literal["eager", "raise"] = _choice(
        "eager",
        "raise",
        default="eager",
        doc="What torch.compile(backend='rewright') does with a graph that fails to compile: "
        "run it in eager mode after one warning, or raise. Ahead-of-time compiles always raise.",
    )
    min_block_size: int = _value(
        default=3,
        legal=_COUNT,
        converter=_count("min_block_size"),
        doc="Parts of a program with fewer nodes that compute something stay in Torch.",
    )
    torch_executed_ops: tuple[str, ...] = _value(
        default=(),
        legal=_GLOBS,
        converter=_globs("torch_executed_ops"),
        doc="Operators that stay in Torch: 'aten.softmax.int', 'aten.softmax', 'aten.*norm*'.",
    )
    torch_executed_modules: tuple[str, ...] = _value(
        default=(),
        legal=_GLOBS,
        converter=_globs("torch_executed_modules"),
        doc="Modules that stay in Torch with all that is in them, by path: 'layers.*.attn'.",
    )
    torch_executed_nodes: tuple[str, ...] = _value(
        default=(),
        legal=_GLOBS,
        converter=_globs("torch_executed_nodes"),
        doc="Single nodes that stay in Torch: the name of a result, 'linear_3', or a source line, "
        "'model.py:41'.",
    )
    require_full_compilation: bool = _flag(
        doc="Fail, with the reasons, where anything would stay in Torch, but for casts of float64 "
        "that comes in or goes out. Needs a target that has engines.",
    )
    on_engine_error: Literal["torch", "raise"] = _choice(
        "torch",
        "raise",
        default="torch",
        doc="What to do with a segment whose engine can't run here: run it in Torch, operator by "
        "operator, after one warning that says why; or raise.",
    )
    fallback: Literal["torch", "none"] = _choice(
        "torch",
        "none",
        default="torch",
        doc="Whether a saved program can run its segments in Torch. 'none' leaves the weights that "
        "only segments read out of the file, as their engines have them: on a machine where an "
        "engine can't run, loading it is an error, and it can't be refitted.",
    )
    engine_optimization_level: int | None = _value(
        default=None,
        legal=_ENGINE_LEVEL,
        converter=_engine_level,
        doc="TensorRT's builder optimization level; None: TensorRT's default.",
    )
    engine_workspace: int | None = _value(
        default=None,
        legal=_BYTES,
        converter=_bytes("engine_workspace", 1, _BYTES),
        doc="The most scratch memory that a layer of an engine may use; None: TensorRT's default.",
    )
    engine_refit: bool = _flag(
        doc="Build engines whose weights can be changed without another build: program.refit() "
        "then gives them the new ones. They may be slower, as no kernel can count on the weights. "
        "With TensorRT for RTX it takes a CUDA driver to build them.",
    )
    engine_weight_budget: int | None = _value(
        default=None,
        legal=_BUDGET,
        converter=_bytes("engine_weight_budget", 0, _BUDGET),
        doc="The most bytes of its weights that an engine keeps on the GPU; the rest is streamed "
        "from the host as it runs. None: all of them are on the GPU.",
    )
    engine_version_compatible: bool = _flag(
        doc="Build engines that later versions of TensorRT can run, too. Needs target='tensorrt'.",
    )
    engine_hardware_compatible: str | None = _value(
        default=None,
        legal=_HARDWARE,
        converter=_hardware,
        doc="Build engines for other GPUs than this machine's, too: for all from Ampere on, or for "
        "those of the same compute capability. Needs target='tensorrt'; with 'rtx', the target "
        "says which GPUs.",
    )
    engine_timing_cache: str | None = _value(
        default=None,
        legal=_FILE,
        converter=_file("engine_timing_cache"),
        doc="A file that keeps how fast kernels were, so that later builds on this GPU are faster. "
        "Needs target='tensorrt': TensorRT for RTX times no kernels as it builds.",
    )
    precision: str | None = _value(
        default=None,
        legal=_PRECISION,
        converter=_precision,
        doc="What to compute in: 'fp16' and 'bf16' lower products, attention, norms and what is "
        "between them, and leave in float32 what needs it; 'fp32' computes a program of 16 bits "
        "in float32. Inputs and outputs keep their dtypes. None: as the program is.",
    )
    full_precision_ops: tuple[str, ...] = _value(
        default=(),
        legal=_GLOBS,
        converter=_globs("full_precision_ops"),
        doc="Operators that stay in float32, whatever `precision` says: 'aten.gelu', 'rw.*norm'.",
    )
    full_precision_modules: tuple[str, ...] = _value(
        default=(),
        legal=_GLOBS,
        converter=_globs("full_precision_modules"),
        doc="Modules that stay in float32 with all that is in them, by path: 'layers.*.mlp'.",
    )
    truncate_double: bool = _flag(
        doc="Compute in float32 what a program computes in float64 and engines could not take. "
        "Inputs and outputs keep their dtypes; what depends on constants alone is computed in "
        "float64 in any case, and rounded once. Off: float64 stays in Torch.",
    )
    inductor_options: Options = _value(  # noqa: RUF009 - an attrs.field, of an immutable default
        default=Options(),
        legal=_INDUCTOR_OPTIONS,
        converter=_inductor_options,
        doc="Options for Inductor, for this compile only. Needs torch_backend='inductor'.",
    )
    disabled_kernels: tuple[str, ...] = _value(
        default=(),
        legal=_KERNELS,
        converter=_kernels,
        doc="Kernels that Torch is to do without on a GPU, to see what each of them is worth: "
        "'attention' is the table that says which of torch's kernels computes it, 'conv-relu' "
        "cuDNN's convolution with a ReLU at its end, 'depthwise' a convolution of ours in Triton. "
        "Torch's own choice stands in for each.",
    )
    cuda_graphs: Literal["off", "auto", "on"] = _choice(
        "off",
        "auto",
        "on",
        default="off",
        doc="Whether calls are captured into CUDA graphs, whole, across all segments: 'auto' does "
        "so on CUDA where nothing stands in the way (the report says what does); 'on' warns where "
        "something does, and refuses a program on the CPU.",
    )
    cuda_graphs_kept: int = _value(
        default=_KEPT,
        legal=_COUNT,
        converter=_count("cuda_graphs_kept"),
        doc="The most CUDA graphs that a program keeps: one for each set of shapes, and of "
        "parameters where these are arguments. Needs cuda_graphs.",
    )

    pipeline: Any = _value(  # noqa: RUF009 - an attrs.field, of an immutable default
        default=None,
        legal=_PIPELINE,
        converter=_pipeline,
        doc="The passes to run, in order. None: the default ones of the target, which the name "
        "'default' stands for in a text: 'default,my-fusions'.",
    )
    optimization_level: int = _value(
        default=2,
        legal=_LEVEL,
        converter=_level,
        doc="Which default pipeline to run: 0 does only what a program can't run without, 1 drops "
        "what is computed twice or in vain, 2 simplifies, fuses and folds constants, 3 merges "
        "projections, too. Ahead of time, what is folded of weights holds until refit().",
    )
    exactness: Literal["exact", "refold", "fast-math"] = _choice(
        "exact",
        "refold",
        "fast-math",
        default="refold",
        doc="What rewrite rules may do to numbers: keep every bit, as far as an operator's kernel "
        "gives the same for other strides and sizes; round otherwise and no worse, constants "
        "recombined in at least float32; or trade accuracy for speed.",
    )
    dump_ir: str | None = _value(
        default=None,
        legal=_TEXT,
        converter=_dump_ir,
        doc="Show the graph around passes: 'all', 'changed' or names of passes, 'cse,fuse', on "
        "standard error; 'changed:DIR' writes numbered files to a folder. Also REWRIGHT_DUMP.",
    )
    verify_each: bool = _flag(
        doc="Verify the graph after each pass that changed it. Also REWRIGHT_VERIFY=1.",
    )
    timing: bool = _flag(
        doc="Print where the time of the passes and rules went. Also REWRIGHT_TIMING=1.",
    )
    numerics: bool | float = _value(
        default=False,
        legal=_NUMERICS,
        converter=_numerics,
        doc="Run the graph before and after each pass, and fail where its numbers move beyond a "
        "tolerance, naming the rule. Also REWRIGHT_NUMERICS.",
    )
    reproducer: str | None = _value(
        default=None,
        legal=_PATH,
        converter=_reproducer,
        doc="Where to write, when a pass fails, the graph that it was given and a command that "
        "shows the failure again. None: the folder of dump_ir, if any. Also REWRIGHT_REPRODUCER.",
    )

    def __attrs_post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.inductor_options and self.torch_backend != "inductor":
            raise SettingsError(
                f"inductor_options are given, but torch_backend is {self.torch_backend!r}",
                setting="inductor_options",
                hint="set torch_backend='inductor', or leave inductor_options out",
            )
        for name in ("full_precision_ops", "full_precision_modules"):
            if getattr(self, name) and self.precision not in ("fp16", "bf16"):
                raise SettingsError(
                    f"{name} is given, but precision is {self.precision!r}",
                    setting=name,
                    hint="set precision='fp16' or 'bf16', or leave it out",
                )
        if self.cuda_graphs != "off" and self.inductor_options.get("triton.cudagraphs"):
            raise SettingsError(
                f"cuda_graphs is {self.cuda_graphs!r}, and Inductor is to capture graphs, too",
                setting="cuda_graphs",
                hint="leave out triton.cudagraphs: cuda_graphs captures the whole program",
            )
        if self.cuda_graphs == "off" and self.cuda_graphs_kept != _KEPT:
            raise SettingsError(
                "cuda_graphs_kept is given, but cuda_graphs is 'off'",
                setting="cuda_graphs_kept",
                hint="set cuda_graphs='auto' or 'on', or leave it out",
            )
        if self.cuda_graphs == "on" and self.target == "cpu":
            raise SettingsError(
                "cuda_graphs is 'on', but target is 'cpu'",
                setting="cuda_graphs",
                hint="'auto' captures on CUDA and does nothing elsewhere",
            )
        plain = self.target in ("cpu", "cuda")
        if plain and self.device and self.target != self.device.partition(":")[0]:
            raise SettingsError(
                f"target is {self.target!r}, but device is {self.device!r}",
                setting="target",
                hint="leave target out: 'auto' follows the device",
            )
        if self.target != "auto":  # which may stand for engines: the device says
            self.check_engines()

    def check_engines(self) -> None:
        """Refuses settings about engines where the target has none.

        Raises:
            SettingsError: names the first such setting.
        """
        fields = attrs.fields_dict(type(self))
        for name in () if self.uses_tensorrt else _ONLY_WITH_ENGINES:
            if getattr(self, name) != fields[name].default:
                raise SettingsError(
                    f"{name} is given, but the target {self.target!r} runs all in Torch",
                    setting=name,
                    hint="set target='rtx' or target='tensorrt', or leave it out",
                )

    @property
    def uses_tensorrt(self) -> bool:
        """Whether the target has engines."""
        return self.target == "tensorrt" or self.target.startswith("rtx")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Settings":
        """The settings that ``options`` gives by name, the rest at their defaults.

        Raises:
            SettingsError: for an unknown name, with the nearest known one; for an illegal value.
        """
        known = [field.name for field in attrs.fields(cls)]
        for name in options:
            if name not in known:
                raise SettingsError(
                    f"there is no setting {name!r}",
                    setting=str(name),
                    hint=_ELSEWHERE.get(name) or did_you_mean(str(name), known),
                )
        return cls(**options)

    @classmethod
    def from_mode(cls, mode: str) -> "Settings":
        """The settings that a ``mode`` of torch.compile stands for.

        ==========================  =============  =====  ============  ================
        mode                        torch_backend  level  cuda_graphs   inductor_options
        ==========================  =============  =====  ============  ================
        default                     eager          2      off           none
        reduce-overhead             inductor       3      auto          none
        max-autotune-no-cudagraphs  inductor       3      off           autotuning
        max-autotune                inductor       3      auto          autotuning
        ==========================  =============  =====  ============  ================

        Raises:
            SettingsError: for another mode.
        """
        if mode not in _MODES:
            raise SettingsError(
                f"there is no mode {mode!r}", setting="mode", hint=did_you_mean(str(mode), _MODES)
            )
        return cls.from_options(_MODES[mode])

    @classmethod
    def describe(cls) -> tuple[SettingRow, ...]:
        """Each setting, in the order of declaration: what the docs and the CLI show."""
        return tuple(
            SettingRow(
                name=field.name,
                default=repr(field.default),
                legal=field.metadata["legal"],
                doc=field.metadata["doc"],
            )
            for field in attrs.fields(cls)
        )
