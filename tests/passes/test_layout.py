"""Memory order of convolutions, where it is worth something, and what the boundary gives back."""

import re

import pytest
import torch
from torch import nn
from torch._inductor.utils import run_and_get_code

import rewright
from rewright.ir.parser import parse_graph
from rewright.ir.verifier import verify
from rewright.passes import Pipeline
from rewright.passes.compiling import pipeline_of
from rewright.passes.layout.channels_last import ChannelsLast, channels_last
from rewright.passes.layout.regions import regions_of
from rewright.settings import Settings
from tests.passes.graphs import graph, ops
from tests.zoo import ENTRIES
from tests.zoo.__main__ import check_sizes, relative_error, tensors

CONV = "stride=[1, 1], padding=[1, 1], dilation=[1, 1]"


def two(between: str, dtype: str = "bf16", device: str = "cpu"):
    """Two convolutions with something between them."""
    made = graph(
        f"""
        %a = rw.conv(%x, @w, {CONV}) : f32[2, 8, 16, 16]
        %b = {between} : f32[2, 8, 16, 16]
        %c = rw.conv(%b, @w, {CONV}) : f32[2, 8, 16, 16]
        return %c : f32[2, 8, 16, 16]
        """.replace("f32", dtype),
        f"%x: {dtype}[2, 8, 16, 16]",
        f"@w : {dtype}[8, 8, 3, 3]",
    )
    made.device = device
    return made


IMAGE = {"f32": 4, "bf16": 2, "f16": 2}
NORM = "rw.group_norm(%a, groups=2)"


def total(made, dtype):
    """What all regions of a graph would gain, in images."""
    size = 2 * 8 * 16 * 16 * IMAGE[dtype]
    return [region.gain / size for region in regions_of(made)]


@pytest.mark.parametrize(
    ("between", "dtype", "device", "gains"),
    [
        ("aten.relu(%a)", "bf16", "cpu", [2]),  # 2 convolutions of 2 images; in and out once
        ("aten.relu(%a)", "f16", "cuda:0", [2]),
        ("aten.relu(%a)", "f32", "cuda:0", []),
        (NORM, "bf16", "cpu", [2]),
        (NORM, "f16", "cuda:0", [0, 0]),  # in and out each time
        ("aten.softmax.int(%a, 1)", "bf16", "cpu", [0, 0]),
        ("aten.add.Tensor(%a, %x)", "bf16", "cpu", [2]),  # what enters, enters once
    ],
)
def test_what_a_region_gains(between, dtype, device, gains):
    assert total(two(between, dtype, device), dtype) == gains


def test_nothing_gains_nothing():
    made = two("aten.softmax.int(%a, 1)")
    before = str(made)
    report = Pipeline((ChannelsLast(),)).run(made).reports["channels-last"]
    assert (report.convolutions, report.entries, report.left) == (0, 0, 2)
    assert str(made) == before


def test_a_region_is_entered_once():
    made = two("aten.add.Tensor(%a, %x)")
    report = Pipeline((ChannelsLast(),)).run(made).reports["channels-last"]
    verify(made, retype=True)
    assert ops(made) == ["rw.layout", "rw.conv", "aten.add.Tensor", "rw.conv"]
    assert (report.convolutions, report.entries, report.left) == (2, 1, 0)
    assert report.saved == 2 * 2 * 8 * 16 * 16 * 2
    Pipeline((ChannelsLast(),)).run(made)
    assert ops(made).count("rw.layout") <= 2  # never to and fro


def test_strides():
    x = torch.empty(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    assert channels_last(x.shape) == x.stride()


@pytest.mark.parametrize(
    ("old", "new", "laid_out"),
    [
        ("", "", 1),
        ("@w : bf16[8, 8, 3, 3]", "@w : bf16[8, 4, 3, 3]", 0),  # in two groups
        ("[2, 8, 16, 16]", "[s0, 8, 16, 16]", 0),
    ],
)
def test_for_inductor_only_what_comes_from_outside_is_laid_out(old, new, laid_out):
    text = str(two("aten.relu(%a)")).replace(old, new)
    if "s0" in new:
        text = text.replace("{", "where s0 in {1..4} = dim(%x, 0) {", 1)
    if "[8, 4" in new:
        text = text.replace("dilation=[1, 1]", "dilation=[1, 1], groups=2")
    made = parse_graph(text)
    report = Pipeline((ChannelsLast(edges=True),)).run(made).reports["channels-last"]
    verify(made, retype=True)
    assert report.convolutions == 2 * laid_out
    assert ops(made).count("rw.layout") == report.entries == laid_out  # the image, once
    assert [*made.constants] == (["w", "w.channels_last"] if laid_out else ["w"])


@pytest.mark.slow
def test_inductor_copies_no_weight_and_no_image():
    """Its code for three convolutions in a row, with what it has to bring into its order."""
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 24, 3)).eval()
    x = torch.randn(2, 3, 24, 20)
    copies = {}
    for name, pipeline in (("edges", "default"), ("none", "fuse,fold-constants,dce")):
        program, codes = run_and_get_code(
            lambda text: rewright.compile(net, (x,), pipeline=text, torch_backend="inductor"),
            pipeline,
        )
        made = re.findall(r"empty_strided_cpu\(\(([\d, ]+)\)", "".join(codes))
        copies[name] = {"16, 3, 3, 3", "24, 16, 3, 3", "2, 3, 24, 20"}.intersection(made)
        with torch.no_grad():
            for given in (x, x.contiguous(memory_format=torch.channels_last)):
                same([program(given)], [net(x)])
    assert len(copies["none"]) == 3, "Inductor lays out weights by itself now"
    assert not copies["edges"]


def test_inductor_chooses_by_itself():
    names = [step.name for step in pipeline_of(Settings(optimization_level=2)).passes()]
    assert "channels-last" in names
    inductor = Settings(optimization_level=2, torch_backend="inductor")
    assert ChannelsLast(edges=True) in pipeline_of(inductor).passes()
    lowered = pipeline_of(Settings(optimization_level=2, precision="bf16"))
    names = [step.name for step in lowered.passes()]
    assert names[names.index("precision") + 1] == "channels-last"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3), nn.GroupNorm(4, 16), nn.SiLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(16, 8, 1),
        )  # fmt: skip

    def forward(self, x):
        y = self.convs(x)
        return y, y.flatten(2).transpose(1, 2), torch.nn.functional.adaptive_avg_pool2d(y, 1)


PIPELINE = "cse,canonicalize,fuse,fold-constants,canonicalize,fold-constants,cse,dce,"
PIPELINE += "channels-last{everywhere=True}"


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_program_keeps_its_numbers_and_strides(dynamic):
    net, x = Net().eval(), torch.randn(2, 3, 24, 20)
    batch = {0: torch.export.Dim("n", min=1, max=8)}
    before = rewright.stats()
    program = rewright.compile(
        net, (x,), dynamic_shapes=(batch,) if dynamic else None, pipeline=PIPELINE
    )
    assert [node.op.name for node in program.graph].count("rw.layout") >= 1
    assert sum(name.endswith(".channels_last") for name in program.graph.constants) == 3
    with torch.no_grad():
        for size in (1, 2, 5) if dynamic else (2,):
            x = torch.randn(size, 3, 24, 20)
            same(program(x), net(x))
            same(program(x.contiguous(memory_format=torch.channels_last)), net(x))
    done = rewright.stats() - before
    assert done.fallbacks == 0 and done.nodes > 0


@pytest.mark.slow
def test_inductor_takes_the_order_too():
    net, x = Net().eval(), torch.randn(2, 3, 24, 20)
    program = rewright.compile(net, (x,), pipeline=PIPELINE, torch_backend="inductor")
    with torch.no_grad():
        same(program(x), net(x))


def model(name: str, layouts: int) -> None:
    entry = ENTRIES[name]
    before = rewright.stats()
    program = rewright.compile_exported(entry.export(True), pipeline=PIPELINE)
    net = entry.build()
    assert [node.op.name for node in program.graph].count("rw.layout") == layouts
    with torch.no_grad():
        for sizes in check_sizes(entry, True):
            args, kwargs = entry.inputs(**sizes)
            expected, found = tensors(net(*args, **kwargs)), tensors(program(*args, **kwargs))
            assert relative_error(found, expected) <= entry.tolerance.float32
    assert (rewright.stats() - before).fallbacks == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layouts"), [("resnet", 1), ("unet2d", 5), ("vit", 0), ("convnext", 0)]
)
def test_models(name, layouts):
    model(name, layouts)
