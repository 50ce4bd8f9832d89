"""Depthwise convolutions: the operator on a CPU, which nodes get it, the kernel interpreted."""

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import warnings

import pytest
import torch

import rewright
from rewright.backends.torch.implementations import implementation_of
from rewright.backends.torch.kernels import depthwise
from rewright.backends.torch.prepare import prepare
from rewright.errors import FallbackWarning
from rewright.ir.convolutions import has_depthwise_kernel
from rewright.ir.parser import parse_graph
from rewright.ir.verifier import verify
from rewright.passes import Pipeline
from rewright.passes.layout import channels_last
from tests.backends.torch.depthwise_cases import Case
from tests.conftest import ROOT

ORDERS = [torch.channels_last, torch.contiguous_format]


# ------------------------------------------------------------------------ the operator


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("side", "stride", "padding", "bias", "relu"),
    [(3, 1, 1, True, False), (5, 2, 0, False, True), (7, 1, 3, True, True), (2, 3, 1, True, False)],
)
def test_it_is_torchs_on_a_cpu_and_keeps_the_order(order, side, stride, padding, bias, relu):
    x = torch.randn(2, 8, 9, 11).contiguous(memory_format=order)
    w, b = torch.randn(8, 1, side, side), torch.randn(8) if bias else None
    args = (x, w, b, [stride] * 2, [padding] * 2, relu)
    found = torch.ops.rewright_kernels.depthwise_conv(*args)
    expected = torch.nn.functional.conv2d(x, w, b, stride, padding, 1, 8)
    torch.testing.assert_close(found, expected.relu() if relu else expected)
    assert found.is_contiguous(memory_format=order)
    torch.library.opcheck(
        torch.ops.rewright_kernels.depthwise_conv.default,
        args,
        test_utils=["test_schema", "test_faketensor"],
    )


def half(**changes):
    """Arguments that the kernel takes but for `changes`."""
    image, weight, bias = Case(shape=(1, 16, 6, 6)).arguments("cpu")
    given = {"input": image, "weight": weight, "bias": bias, "stride": [1, 1], "padding": [1, 1]}
    return {**given, **changes}


def shifted(tensor):
    """The same, two bytes off."""
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:]
    return memory.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


CHANGES = {
    "nothing": ({}, True),
    "no bias": ({"bias": None}, True),
    "contiguous weight": ({"weight": half()["weight"].contiguous()}, True),
    "f32": ({"input": half()["input"].float()}, False),
    "two dtypes": ({"bias": half()["bias"].float()}, False),
    "contiguous image": ({"input": half()["input"].contiguous()}, False),
    "stride 3": ({"stride": [3, 3]}, False),
    "two strides": ({"stride": [1, 2]}, False),
    "4 x 4": ({"weight": torch.zeros(16, 1, 4, 4, dtype=torch.float16)}, False),
    "8 by 8 in two": ({"weight": torch.zeros(16, 2, 3, 3, dtype=torch.float16)}, False),
    "no result": (
        {"weight": torch.zeros(16, 1, 7, 7, dtype=torch.float16), "padding": [0, 0]},
        False,
    ),
    "unaligned": ({"input": shifted(half()["input"])}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_kernel_takes(name):
    change, taken = CHANGES[name]
    assert depthwise.takes(**half(**change)) == taken


def test_what_32_bits_cannot_count_is_torchs():
    empty = functools.partial(torch.empty, dtype=torch.float16, device="meta")
    image = empty(2**12, 8, 2**8, 2**8, memory_format=torch.channels_last)
    given = half(input=image, weight=empty(8, 1, 3, 3), bias=None)
    assert not depthwise.takes(**given)
    assert depthwise.takes(**{**given, "input": image[: 2**11]})


@pytest.fixture
def elsewhere(monkeypatch):
    """What CUDA's implementation does, without CUDA; launches are counted in a list."""
    launched = []

    def launch(*args):
        launched.append(args)
        return depthwise._by_torch(*args)

    monkeypatch.setattr(depthwise, "has_triton", lambda: True)
    monkeypatch.setattr(depthwise, "launch", launch)
    monkeypatch.setattr(depthwise, "_ready", set())
    monkeypatch.setattr(depthwise, "_refused", set())
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return launched


def call(**changes):
    given = [*half(**changes).values(), False]
    return depthwise._by_triton(*given), depthwise._by_torch(*given)


def test_nothing_is_compiled_while_a_graph_is_recorded(elsewhere, monkeypatch):
    for capturing, launches in ((True, 0), (False, 1), (True, 2)):
        monkeypatch.setattr(
            torch.cuda, "is_current_stream_capturing", lambda is_on=capturing: is_on
        )
        torch.testing.assert_close(*call())
        assert len(elsewhere) == launches
    torch.testing.assert_close(*call(bias=None))  # another form: not compiled yet
    assert len(elsewhere) == 2


def test_without_triton_and_for_other_tensors_it_is_torchs(elsewhere, monkeypatch):
    torch.testing.assert_close(*call(input=half()["input"].contiguous()))
    monkeypatch.setattr(depthwise, "has_triton", lambda: False)
    torch.testing.assert_close(*call())
    assert not elsewhere


def test_what_triton_cannot_compile_is_said_once(elsewhere, monkeypatch):
    def launch(*_):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(depthwise, "launch", launch)
    with pytest.warns(FallbackWarning, match="Failed to find C compiler"):
        torch.testing.assert_close(*call())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(*call())


def test_nobody_imports_the_kernel_before_it_is_launched(fresh_python):
    code = "import rewright.backends.torch.implementations as i, sys\n"
    code += "kernel = i.depthwise_conv.__module__ + '_triton'\n"
    code += "print(i.depthwise_conv.__name__, {'triton', kernel} & {*sys.modules})"
    assert fresh_python(code) == "depthwise_conv set()"


# ------------------------------------------------------------------------ blocks


@pytest.mark.parametrize("blocks", [blocks for _, blocks in depthwise.TABLE])
@pytest.mark.parametrize("channels", [8, 24, 40, 96, 128, 144, 960])
def test_blocks_fit_the_channels(blocks, channels):
    """A thread has one vector, or half of one: with more, Triton moves taps between threads."""
    found = blocks.over(channels)
    assert found.pixels * found.channels == blocks.pixels * blocks.channels
    assert found.pixels * found.channels / (32 * found.warps) in (4, 8)
    whole = -(-channels // found.channels) * found.channels
    assert whole <= -(-channels // blocks.channels) * blocks.channels
    assert whole - channels < 16


def test_the_table_has_blocks_for_everything():
    least = [numel for numel, _ in depthwise.TABLE]
    assert least == sorted(least, reverse=True) and least[-1] == 0


# ------------------------------------------------------------------------ the choice

TEXT = """
graph @main(%x: f16[2, 16, 9, 9], %z: f16[2, 16, 9, 9]) -> f16[2, 16, 9, 9] {
  %y = rw.conv(%x, @w, @b, STEPS, groups=16) : f16[2, 16, 9, 9]
  return %y
}
constants {
  parameter @w : f16[16, 1, 3, 3]
  parameter @b : f16[16]
}
""".replace("STEPS", "stride=[1, 1], padding=[1, 1], dilation=[1, 1]")
RELU = ("rw.conv(", "rw.conv_relu(")
RESIDUAL = ("@w, @b,", "@w, @b, %z,")


def changed(changes, device):
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    graph = parse_graph(text)
    verify(graph, retype=True)
    graph.device = device
    return graph


def laid_out_as_on(device, graph, monkeypatch, **options):
    """The pass on a graph for `device`, which torch need not know: types are those of a CPU."""
    asked = functools.partial(has_depthwise_kernel, device=device)
    monkeypatch.setattr(channels_last, "has_depthwise_kernel", lambda node, _: asked(node))
    graph.device = "cpu"
    done = Pipeline((channels_last.ChannelsLast(**options),)).run(graph)
    verify(graph, retype=True)
    return done.reports["channels-last"]


CHOSEN = [
    ([], "cuda:0", "depthwise"),
    ([RELU], "cuda", "depthwise_relu"),
    ([("f16", "bf16")], "cuda:1", "depthwise"),
    ([(", @b,", ",")], "cuda:0", "depthwise"),
    ([("1, 3, 3]", "1, 7, 5]"), ("padding=[1, 1]", "padding=[3, 2]")], "cuda:0", "depthwise"),
    ([("stride=[1, 1]", "stride=[2, 2]"), (" : f16[2, 16, 9, 9]", " : f16[2, 16, 5, 5]"),
      ("-> f16[2, 16, 9, 9]", "-> f16[2, 16, 5, 5]")], "cuda:0", "depthwise"),
    ([], "cpu", None),
    ([("f16", "f32")], "cuda:0", None),
    ([RELU, RESIDUAL], "cuda:0", None),
    ([("dilation=[1, 1]", "dilation=[2, 2]"), ("padding=[1, 1]", "padding=[2, 2]")], "cuda", None),
    ([("1, 3, 3]", "1, 9, 9]"), ("padding=[1, 1]", "padding=[4, 4]")], "cuda:0", None),
    ([("[16, 1, 3, 3]", "[16, 4, 3, 3]"), ("groups=16", "groups=4")], "cuda:0", None),
    ([("16", "12"), ("f12", "f16")], "cuda:0", None),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "device", "name"), CHOSEN)
def test_the_choice_and_the_memory_of_weights_agree(changes, device, name, monkeypatch):
    graph = changed(changes, device)
    (node,) = graph
    found = {by: implementation_of(node.op, node, by=by) for by in ("eager", "inductor", "")}
    assert [item and item.name for item in found.values()] == [
        name,
        name and f"{name}_in_order",
        None,
    ]
    assert has_depthwise_kernel(node, device) == (name is not None)
    laid_out_as_on(device, graph, monkeypatch, edges=True)
    verify(graph, retype=True)
    (node,) = (node for node in graph if node.op.name != "rw.layout")
    weight = node.arg("weight")
    assert name is None or weight.name == "w.channels_last"
    if name:
        given = torch.randn(weight.type.shape).to(weight.type.dtype)
        made = prepare(graph, {"w": given})[weight.name]
        assert depthwise.is_innermost(made) and torch.equal(made, given)
        graph.device = device
        assert implementation_of(node.op, node, by="eager").name == name


def test_a_region_lays_out_the_weights_that_the_kernel_reads(monkeypatch):
    """With one that is dense beside it, which gains; in eager code it all is in one order."""
    dense = "rw.conv(IN, @d, stride=[1, 1], padding=[1, 1], dilation=[1, 1]) : f16[2, 16, 9, 9]"
    first, second = (
        f"%{out} = {dense.replace('IN', of)}" for out, of in (("p", "%z"), ("q", "%p"))
    )
    graph = changed(
        [
            ("@b : f16[16]", "@b : f16[16]\n  parameter @d : f16[16, 16, 3, 3]"),
            ("  %y =", f"  {first}\n  {second}\n  %y ="),
            ("rw.conv(%x, @w", "rw.conv(%q, @w"),
        ],
        "cuda:0",
    )
    report = laid_out_as_on("cuda:0", graph, monkeypatch, everywhere=True)
    assert report.convolutions == 3
    recipes = dict(zip(graph.prepare.prepared_names, graph.prepare.outputs, strict=True))
    strides = {name: value.producer.attributes["strides"] for name, value in recipes.items()}
    assert strides == {"d.channels_last": (144, 1, 48, 16), "w.channels_last": (1, 16, 48, 16)}


def test_a_program_for_the_cpu_has_none_of_it():
    net = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16).half().eval()
    x = torch.randn(1, 16, 6, 6, dtype=torch.float16)
    program = rewright.compile(net, (x,))
    assert "implementation(" not in program.source
    with torch.no_grad():
        torch.testing.assert_close(program(x), net(x))


# ------------------------------------------------------------------------ the kernel


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_the_kernel_interpreted():
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT, os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "tests.backends.torch.depthwise_cases"],
        env={**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("right\n")
