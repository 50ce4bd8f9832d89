"""What a compile may be told: one frozen class, every field documented where it is declared.

Nothing here is global and nothing is ignored: an unknown name, an illegal value or two settings
that contradict each other raise :class:`~rewright.errors.SettingsError`. A setting stands here
only once the compiler honours it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs

from rewright import setting_values as legal
from rewright.errors import SettingsError, did_you_mean
from rewright.setting_values import Options, choice, flag, setting

__all__ = ["Options", "SettingRow", "Settings"]


@attrs.frozen
class SettingRow:
    """One setting, described as a row of a table.

    ``legal`` says which values are legal: the choices, or words.
    """

    name: str
    default: str
    legal: str
    doc: str


_KEPT = 32

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

    torch_backend: Literal["eager", "inductor"] = choice(
        "eager",
        "inductor",
        default="eager",
        doc="What runs the parts that stay in Torch: generated straight-line Python that calls "
        "the operators one by one, or code compiled by Inductor.",
    )
    device: str | None = setting(
        legal.DEVICE,
        default=None,
        doc="The device to run on. None: the one that the program was captured on. "
        "Another one moves the program's constants and device arguments there.",
    )
    target: str = setting(
        legal.TARGET,
        default="auto",
        doc="What to compile for: it selects the pipeline and the backends. 'auto' follows the "
        "program's device: on a GPU that an installed TensorRT supports it builds engines with "
        "that, anywhere else all runs in Torch, as with 'cpu' and 'cuda'; 'rtx' builds engines "
        "with TensorRT for RTX, here and without a GPU; 'tensorrt' with TensorRT, for the GPU of "
        "this machine.",
    )
    on_error: Literal["eager", "raise"] = choice(
        "eager",
        "raise",
        default="eager",
        doc="What torch.compile(backend='rewright') does with a graph that fails to compile: "
        "run it in eager mode after one warning, or raise. Ahead-of-time compiles always raise.",
    )
    min_block_size: int = setting(
        legal.COUNT,
        default=3,
        doc="Parts of a program with fewer nodes that compute something stay in Torch.",
    )
    torch_executed_ops: tuple[str, ...] = setting(
        legal.GLOBS,
        default=(),
        doc="Operators that stay in Torch: 'aten.softmax.int', 'aten.softmax', 'aten.*norm*'.",
    )
    torch_executed_modules: tuple[str, ...] = setting(
        legal.GLOBS,
        default=(),
        doc="Modules that stay in Torch with all that is in them, by path: 'layers.*.attn'.",
    )
    torch_executed_nodes: tuple[str, ...] = setting(
        legal.GLOBS,
        default=(),
        doc="Single nodes that stay in Torch: the name of a result, 'linear_3', or a source line, "
        "'model.py:41'.",
    )
    require_full_compilation: bool = flag(
        doc="Fail, with the reasons, where anything would stay in Torch, but for casts of float64 "
        "that comes in or goes out. Needs a target that has engines.",
    )
    on_engine_error: Literal["torch", "raise"] = choice(
        "torch",
        "raise",
        default="torch",
        doc="What to do with a segment whose engine can't run here: run it in Torch, operator by "
        "operator, after one warning that says why; or raise.",
    )
    fallback: Literal["torch", "none"] = choice(
        "torch",
        "none",
        default="torch",
        doc="Whether a saved program can run its segments in Torch. 'none' leaves the weights that "
        "only segments read out of the file, as their engines have them: on a machine where an "
        "engine can't run, loading it is an error, and it can't be refitted.",
    )
    engine_optimization_level: int | None = setting(
        legal.ENGINE_LEVEL,
        default=None,
        doc="TensorRT's builder optimization level; None: TensorRT's default.",
    )
    engine_workspace: int | None = setting(
        legal.BYTES,
        default=None,
        doc="The most scratch memory that a layer of an engine may use; None: TensorRT's default.",
    )
    engine_refit: bool = flag(
        doc="Build engines whose weights can be changed without another build: program.refit() "
        "then gives them the new ones. They may be slower, as no kernel can count on the weights. "
        "With TensorRT for RTX it takes a CUDA driver to build them.",
    )
    engine_weight_budget: int | None = setting(
        legal.BUDGET,
        default=None,
        doc="The most bytes of its weights that an engine keeps on the GPU; the rest is streamed "
        "from the host as it runs. None: all of them are on the GPU.",
    )
    engine_version_compatible: bool = flag(
        doc="Build engines that later versions of TensorRT can run, too. Needs target='tensorrt'.",
    )
    engine_hardware_compatible: str | None = setting(
        legal.HARDWARE,
        default=None,
        doc="Build engines for other GPUs than this machine's, too: for all from Ampere on, or for "
        "those of the same compute capability. Needs target='tensorrt'; with 'rtx', the target "
        "says which GPUs.",
    )
    engine_timing_cache: str | None = setting(
        legal.FILE,
        default=None,
        doc="A file that keeps how fast kernels were, so that later builds on this GPU are faster. "
        "Needs target='tensorrt': TensorRT for RTX times no kernels as it builds.",
    )
    precision: str | None = setting(
        legal.PRECISION,
        default=None,
        doc="What to compute in: 'fp16' and 'bf16' lower products, attention, norms and what is "
        "between them, and leave in float32 what needs it; 'fp32' computes a program of 16 bits "
        "in float32. Inputs and outputs keep their dtypes. None: as the program is.",
    )
    full_precision_ops: tuple[str, ...] = setting(
        legal.GLOBS,
        default=(),
        doc="Operators that stay in float32, whatever `precision` says: 'aten.gelu', 'rw.*norm'.",
    )
    full_precision_modules: tuple[str, ...] = setting(
        legal.GLOBS,
        default=(),
        doc="Modules that stay in float32 with all that is in them, by path: 'layers.*.mlp'.",
    )
    truncate_double: bool = flag(
        doc="Compute in float32 what a program computes in float64 and engines could not take. "
        "Inputs and outputs keep their dtypes; what depends on constants alone is computed in "
        "float64 in any case, and rounded once. Off: float64 stays in Torch.",
    )
    inductor_options: Options = setting(  # noqa: RUF009 - an attrs.field, of an immutable default
        legal.INDUCTOR_OPTIONS,
        default=Options(),
        doc="Options for Inductor, for this compile only. Needs torch_backend='inductor'.",
    )
    disabled_kernels: tuple[str, ...] = setting(
        legal.KERNELS,
        default=(),
        doc="Kernels that Torch is to do without on a GPU, to see what each of them is worth: "
        "'attention' is the table that says which of torch's kernels computes it, 'conv-relu' "
        "cuDNN's convolution with a ReLU at its end, 'depthwise' a convolution of ours in Triton. "
        "Torch's own choice stands in for each.",
    )
    cuda_graphs: Literal["off", "auto", "on"] = choice(
        "off",
        "auto",
        "on",
        default="off",
        doc="Whether calls are captured into CUDA graphs, whole, across all segments: 'auto' does "
        "so on CUDA where nothing stands in the way (the report says what does); 'on' warns where "
        "something does, and refuses a program on the CPU.",
    )
    cuda_graphs_kept: int = setting(
        legal.COUNT,
        default=_KEPT,
        doc="The most CUDA graphs that a program keeps: one for each set of shapes, and of "
        "parameters where these are arguments. Needs cuda_graphs.",
    )

    pipeline: Any = setting(  # noqa: RUF009 - an attrs.field, of an immutable default
        legal.PIPELINE,
        default=None,
        doc="The passes to run, in order. None: the default ones of the target, which the name "
        "'default' stands for in a text: 'default,my-fusions'.",
    )
    optimization_level: int = setting(
        legal.LEVEL,
        default=2,
        doc="Which default pipeline to run: 0 does only what a program can't run without, 1 drops "
        "what is computed twice or in vain, 2 simplifies, fuses and folds constants, 3 merges "
        "projections, too. Ahead of time, what is folded of weights holds until refit().",
    )
    exactness: Literal["exact", "refold", "fast-math"] = choice(
        "exact",
        "refold",
        "fast-math",
        default="refold",
        doc="What rewrite rules may do to numbers: keep every bit, as far as an operator's kernel "
        "gives the same for other strides and sizes; round otherwise and no worse, constants "
        "recombined in at least float32; or trade accuracy for speed.",
    )
    dump_ir: str | None = setting(
        legal.TEXT,
        default=None,
        doc="Show the graph around passes: 'all', 'changed' or names of passes, 'cse,fuse', on "
        "standard error; 'changed:DIR' writes numbered files to a folder. Also REWRIGHT_DUMP.",
    )
    verify_each: bool = flag(
        doc="Verify the graph after each pass that changed it. Also REWRIGHT_VERIFY=1.",
    )
    timing: bool = flag(
        doc="Print where the time of the passes and rules went. Also REWRIGHT_TIMING=1.",
    )
    numerics: bool | float = setting(
        legal.NUMERICS,
        default=False,
        doc="Run the graph before and after each pass, and fail where its numbers move beyond a "
        "tolerance, naming the rule. Also REWRIGHT_NUMERICS.",
    )
    reproducer: str | None = setting(
        legal.FOLDER,
        default=None,
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
