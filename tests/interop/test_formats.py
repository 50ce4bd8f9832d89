"""Programs in torch's own formats, loaded by processes that know nothing of the model."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import register_dataclass, tree_leaves

import rewright
from rewright.backends.tensorrt.library import FLAVORS
from rewright.demo_models import MODELS
from rewright.errors import EngineError, InputError, UnsupportedError
from tests.artifact.fresh import varies, without_tf32

BANNED = ("rewright", "transformers", "diffusers", "tests")
"""What a process needs none of."""

LOAD = """
import sys, torch
torch.backends.cudnn.allow_tf32 = False
{first}
calls = 0
for folder, format in zip(sys.argv[1::2], sys.argv[2::2]):
    if format == "pt2":
        model = torch.export.load(folder + "/program.pt2").module()
    elif format == "pt":
        model = torch.jit.load(folder + "/program.pt")
    else:
        model = torch._inductor.aoti_load_package(folder + "/package.pt2")
    for inputs, expected in torch.load(folder + "/" + format + ".calls"):
        results = torch.utils._pytree.tree_leaves(model(*inputs))
        results = [item for item in results if isinstance(item, torch.Tensor)]
        assert len(results) == len(expected) > 0
        for result, wanted in zip(results, expected):
            close = dict(rtol=2e-3, atol=1e-3) if wanted.is_cuda else dict()
            torch.testing.assert_close(result, wanted, **close)
            assert result.device == wanted.device
            assert result.stride() == wanted.stride()
        calls += 1
assert not [name for name in sys.modules if name.startswith({banned})]
print(calls)
"""


def fresh_process(*loads: str, first: str = "", banned: tuple[str, ...] = BANNED) -> int:
    """How many calls a new process makes right.

    It is given folders, each followed by a format: it loads the program, and makes the calls that
    :func:`keep_calls` left there.
    """
    source = Path(rewright.__file__).parents[1]
    code = LOAD.format(first=first, banned=banned)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *loads],
        env={**os.environ, "PYTHONPATH": str(source)},
        cwd=loads[0],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def keep_calls(
    folder: Path, format: str, made: Callable[..., Any], calls: list[tuple[Tensor, ...]]
) -> None:
    """Leaves inputs and right results for :func:`fresh_process`."""
    kept = []
    for inputs in calls:
        given = tuple(item.clone() for item in inputs)
        results = [item for item in tree_leaves(made(*given)) if isinstance(item, Tensor)]
        kept.append((inputs, [item.clone() for item in results]))
    torch.save(kept, folder / f"{format}.calls")


def resized(name: str, batch: int, tokens: int) -> tuple[Tensor, ...]:
    """Other inputs of a demo model, where its sizes allow it."""
    found = []
    for item, sizes in zip(MODELS[name].inputs(), MODELS[name].dynamic_shapes, strict=True):
        for dim, size in ((0, batch), (1, tokens)):
            if sizes is not None and dim in sizes:
                item = item.repeat_interleave(8, dim).narrow(dim, 0, size)
        found.append(item.contiguous())
    return tuple(found)


def save_demo(name: str, folder: Path, device: str) -> int:
    """A demo model as .pt2, at three sizes if it has some, and as TorchScript; how many calls."""
    folder.mkdir()
    model = MODELS[name]
    is_dynamic = varies(name, device)
    sizes = [(5, 17), (1, 8)] if is_dynamic else []
    inputs, *others = (
        tuple(item.to(device) for item in given)
        for given in (model.inputs(), *(resized(name, *size) for size in sizes))
    )
    dynamic = model.dynamic_shapes if is_dynamic else None
    made = rewright.compile(model.build().to(device), inputs, dynamic_shapes=dynamic)
    exported = made.to_exported_program()
    assert len(exported.range_constraints) == len(made.graph.symbols)
    assert bool(made.graph.symbols) == is_dynamic
    torch.export.save(exported, folder / "program.pt2")
    keep_calls(folder, "pt2", made, [inputs, *others])
    made.to_torchscript(inputs).save(folder / "program.pt")
    keep_calls(folder, "pt", made, [inputs])
    return len(others) + 2


@pytest.mark.parametrize(
    ("names", "device"),
    [
        (("resnet",), "cpu"),
        pytest.param(("bert", "llama", "unet"), "cpu", marks=pytest.mark.slow),
        pytest.param(("resnet",), "cuda", marks=pytest.mark.gpu),
        pytest.param(("bert", "llama", "unet"), "cuda", marks=pytest.mark.gpu),
    ],
)
def test_demo_models_in_a_fresh_process(names, device, tmp_path):
    if "unet" in names:
        pytest.importorskip("transformers")
        pytest.importorskip("diffusers")
    loads, calls = [], 0
    with without_tf32():
        for name in names:
            calls += save_demo(name, tmp_path / name, device)
            loads += [str(tmp_path / name), "pt2", str(tmp_path / name), "pt"]
    assert fresh_process(*loads) == calls


# --------------------------------------------------------------------------- what programs do


class Everything(nn.Module):
    """Writes to a buffer and an input, returns views, numbers and None, nested."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, flag: bool, *, cache: dict[str, Tensor]) -> dict[str, Any]:
        self.calls.add_(1)
        cache["k"].mul_(2 if flag else 3)
        y = self.fc(x) + self.calls
        return {
            "y": [y, y.t()],
            "same": x,
            "number": (x.shape[0] * 2 + 1, None),
            "rest": x[:, 1:],
            "cache": cache["k"],
        }


def everything() -> tuple[rewright.CompiledProgram, nn.Module]:
    model = Everything().eval()
    sizes = {"x": {0: Dim("n", min=1, max=9)}, "flag": None, "cache": {"k": None}}
    inputs = (torch.randn(3, 4), True), {"cache": {"k": torch.ones(3)}}
    return rewright.compile(model, *inputs, dynamic_shapes=sizes), model


def test_writes_views_and_numbers_are_kept(tmp_path):
    made, model = everything()
    exported = made.to_exported_program()
    torch.export.save(exported, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for count, size in enumerate((3, 1, 9), 1):
        x, k = torch.randn(size, 4), torch.full((3,), 5.0)
        got = loaded(x, True, cache={"k": k})
        expected = model(x, True, cache={"k": torch.full((3,), 5.0)})
        torch.testing.assert_close(got, expected)
        assert got["same"] is x or got["same"].data_ptr() == x.data_ptr()
        assert got["rest"].data_ptr() == x[:, 1:].data_ptr()
        assert got["cache"].data_ptr() == k.data_ptr() and k[0] == 10
        assert got["y"][1].data_ptr() == got["y"][0].data_ptr()
        assert dict(loaded.named_buffers())["calls"].item() == count
    with pytest.raises((AssertionError, RuntimeError)):
        loaded(torch.randn(10, 4), True, cache={"k": torch.ones(3)})


def test_sizes_that_belong_together(tmp_path):
    class Halves(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x.view(-1, 2, x.shape[1]).sum(1) @ y

    half = Dim("half", min=2, max=16)
    made = rewright.compile(
        Halves(), (torch.randn(8, 6), torch.randn(6, 4)), dynamic_shapes=({0: 2 * half}, {})
    )
    loaded = made.to_exported_program().module()
    x, y = torch.randn(22, 6), torch.randn(6, 4)
    assert torch.equal(loaded(x, y), made(x, y))
    with pytest.raises((AssertionError, RuntimeError)):
        loaded(torch.randn(7, 6), y)


def test_prepared_weights_are_computed_once():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)).eval()
    model[1].running_mean.uniform_()
    x = torch.randn(1, 2, 8, 8)
    made = rewright.compile(model, (x,), optimization_level=2)
    exported = made.to_exported_program()
    names = {*exported.state_dict, *exported.constants}
    assert made.prepared_bytes and any("prepared" in name for name in names)
    torch.testing.assert_close(exported.module()(x), model(x).detach())


def test_weights_are_not_copied():
    model = nn.Linear(64, 64).eval()
    exported = rewright.compile(model, (torch.randn(2, 64),)).to_exported_program()
    assert exported.state_dict["weight"].data_ptr() == model.weight.data_ptr()


@pytest.mark.slow  # imports transformers
def test_results_of_classes_become_dicts():
    transformers = pytest.importorskip("transformers")
    made = rewright.compile(MODELS["bert"].build(), MODELS["bert"].inputs())
    results = made(*MODELS["bert"].inputs())
    assert isinstance(results, transformers.utils.ModelOutput)
    plain = made.to_exported_program().module()(*MODELS["bert"].inputs())
    assert type(plain) is dict and [*plain] == [*results]


def test_what_torchscript_can_not_say():
    made, _ = everything()
    with pytest.raises(UnsupportedError, match="by tracing tensors only"):
        made.to_torchscript()
    plain = rewright.compile(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    with pytest.raises(InputError, match="1 examples were expected, not 2: input"):
        plain.to_torchscript([torch.randn(2, 4)] * 2)


def test_torchscript_of_a_program_that_writes():
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.total.add_(x)
            return self.total * 2

    made = rewright.compile(Adds().eval(), (torch.ones(3),))
    traced = made.to_torchscript()
    state = {name: value.clone() for name, value in traced.named_buffers()}
    first, second = traced(torch.ones(3)).clone(), traced(torch.ones(3))
    assert torch.equal(second - first, torch.full((3,), 2.0))
    assert len(state) == 1


@pytest.mark.slow
def test_a_package_of_aotinductor_in_a_fresh_process(tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).eval()
    made = rewright.compile(
        model, (torch.randn(3, 4),), dynamic_shapes=({0: Dim("n", min=1, max=9)},)
    )
    path = tmp_path / "package.pt2"
    assert made.aoti_package(path) == str(path)
    keep_calls(tmp_path, "aoti", made, [(torch.randn(n, 4),) for n in (3, 1, 9)])
    assert fresh_process(str(tmp_path), "aoti") == 3


# --------------------------------------------------------------------------- engines


@pytest.fixture(scope="module")
def engine_program() -> tuple[rewright.CompiledProgram, nn.Module]:
    pytest.importorskip(FLAVORS["rtx"].package)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    made = rewright.compile(
        model,
        (torch.randn(3, 8),),
        dynamic_shapes=({0: Dim("n", min=1, max=9)},),
        target="rtx",
        min_block_size=1,
    )
    return made, model


@pytest.mark.filterwarnings("ignore::rewright.errors.FallbackWarning")
def test_engines_travel_in_exported_programs(engine_program, tmp_path):
    made, model = engine_program
    exported = made.to_exported_program()
    assert str(exported.graph).count("rewright.engine") == 1
    torch.export.save(exported, tmp_path / "program.pt2")
    keep_calls(tmp_path, "pt2", model, [(torch.randn(n, 8),) for n in (3, 1, 9)])
    done = fresh_process(str(tmp_path), "pt2", first="import rewright", banned=("transformers",))
    assert done == 3


def test_operators_are_there_whichever_is_imported_first(fresh_python):
    """Torch first is what the test above does."""
    code = "import sys, rewright; print('torch' in sys.modules); import torch"
    printed = fresh_python(f"{code}; print(torch.ops.rewright.engine, torch.__spec__.loader)")
    assert printed.startswith("False\nrewright.engine") and "SourceFileLoader" in printed


def test_an_engine_by_itself(engine_program, tmp_path):
    made, _ = engine_program
    found = made.single_engine()
    assert found.data == made.engine_bytes() == made.segments[0].engine.data
    assert [(b.name, b.dtype, b.shape) for b in found.inputs] == [
        ("input", torch.float32, ("s0", 8))
    ]
    assert [(b.name, b.dtype, b.shape) for b in found.outputs] == [
        ("out0", torch.float32, ("s0", 4))
    ]
    assert found.library.startswith("tensorrt_rtx")
    # Without a GPU its runtime reads no engine, so the header is what can be seen of it here.
    assert found.data.startswith(b"vtrt") and len(found.data) > 4096


def test_programs_that_are_no_engine(engine_program):
    plain = rewright.compile(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    with pytest.raises(UnsupportedError, match=r"no segments and 1 node .* in Torch"):
        plain.engine_bytes()
    made, _ = engine_program
    with pytest.raises(UnsupportedError, match="has TensorRT engines"):
        made.to_torchscript()
    with pytest.raises(UnsupportedError, match="has TensorRT engines"):
        made.aoti_package("unused.pt2")
    engine = made.segments[0].engine
    try:
        made.segments[0].engine = None
        with pytest.raises(EngineError, match="not built yet"):
            made.engine_bytes()
    finally:
        made.segments[0].engine = engine


def test_the_engines_operator_keeps_torchs_rules(engine_program):
    made, _ = engine_program
    exported = made.to_exported_program()
    (node,) = [n for n in exported.graph.nodes if "rewright" in str(n.target)]
    held = {**exported.state_dict, **exported.constants}
    constants = [value for name, value in held.items() if not name.startswith("engines")]
    args = ([torch.randn(3, 8)], [], held["engines.tensorrt_0"], constants, node.args[4])
    with pytest.warns(rewright.errors.FallbackWarning, match="runs in Torch"):
        torch.library.opcheck(node.target, args, test_utils=["test_schema", "test_faketensor"])


def test_an_engine_of_a_later_format(engine_program):
    from rewright.interop.engine import _graph_of

    with pytest.raises(UnsupportedError, match="format 2, known is 1"):
        _graph_of('{"format": 2}')


class Writing(nn.Module):
    """Counts calls in a buffer, and fills a part of an input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x[1:] = 0
        return x + self.calls


def test_exporting_leaves_the_program_and_the_examples_as_they_are():
    made, x = rewright.compile(Writing(), (torch.ones(3),)), torch.ones(3)
    scripted = made.to_torchscript([x])
    exported = made.to_exported_program().module()
    assert x.tolist() == [1, 1, 1]
    assert made.state_dict()["calls"].item() == 0
    for call in (scripted, exported, made):  # each counts for itself
        given = torch.ones(3)
        assert call(given).tolist() == [2, 1, 1]
        assert given.tolist() == [1, 0, 0]


def test_examples_that_do_not_fit():
    made = rewright.compile(nn.Linear(4, 4), (torch.ones(2, 4),))
    with pytest.raises(InputError, match=r"dimension 1 of input is 5, expected 4"):
        made.to_torchscript([torch.ones(2, 5)])


@dataclasses.dataclass
class Batch:
    x: Tensor
    more: list[Tensor]


def test_sizes_that_vary_within_a_class_of_arguments():
    class Adding(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            return batch.x + batch.more[0]

    register_dataclass(Batch, serialized_type_name="tests.interop.Batch")
    n = Dim("n", min=1, max=8)
    given = Batch(torch.ones(3), [torch.ones(3)])
    made = rewright.compile(Adding(), (given,), dynamic_shapes=([{0: n}, [{0: n}]],))
    other = Batch(torch.ones(5), [torch.arange(5.0)])
    assert torch.equal(made.to_exported_program().module()(other), made(other))
