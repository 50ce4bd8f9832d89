"""The setting that switches kernels off, to see what each is worth."""

import pytest
import torch

import rewright
from rewright.backends.torch import inductor
from rewright.backends.torch.implementations import implementation_of, implementations
from rewright.backends.torch.layouts import layouts_of
from rewright.errors import SettingsError
from rewright.ir.convolutions import innermost
from rewright.ir.parser import parse_graph
from rewright.ir.verifier import verify
from rewright.passes.compiling import pipeline_of
from rewright.passes.fusion import FuseConvRelu
from rewright.passes.layout.channels_last import ChannelsLast
from rewright.setting_values import KERNEL_NAMES
from rewright.settings import Settings
from tests.backends.torch.test_depthwise import changed, laid_out_as_on

MASKED = """
graph @main(%q: f16[2, 4, 49, 32], %m: f16[1, 4, 49, 49]) -> f16[2, 4, 49, 32] {
  %y = rw.attention(%q, %q, %q, %m) : f16[2, 4, 49, 32]
  return %y
}
"""


def steps(**settings):
    return {type(step): step for step in pipeline_of(Settings(**settings)).passes()}


def test_the_names_are_those_of_the_table():
    """And of the pass that is left out."""
    named = {item.kernel for item in implementations("cuda") if item.kernel}
    assert {*KERNEL_NAMES} == {*named, "conv-relu"}
    assert not any(item.kernel for item in implementations())


@pytest.mark.parametrize("by", ["eager", "inductor"])
def test_attention_is_torchs_own_choice(by):
    graph = parse_graph(MASKED)
    verify(graph)
    graph.device = "cuda:0"
    (node,) = graph
    assert implementation_of(node.op, node, by).name == "efficient_attention"
    left = implementation_of(node.op, node, by, {"attention"})
    assert left.name == "scaled_dot_product_attention"
    assert implementation_of(node.op, node, by, {"depthwise"}).name == "efficient_attention"


@pytest.mark.parametrize("edges", [False, True])
def test_depthwise_convolutions_are_torchs_and_their_weights_in_its_order(edges, monkeypatch):
    graph = changed([], "cuda:0")
    (node,) = graph
    by = "inductor" if edges else "eager"
    assert implementation_of(node.op, node, by) is not None
    assert implementation_of(node.op, node, by, {"depthwise"}) is None
    more = {} if edges else {"everywhere": True, "min_saved": -(10**9)}
    for is_ours in (True, False):
        graph = changed([], "cuda:0")
        laid_out_as_on("cuda:0", graph, monkeypatch, edges=edges, depthwise=is_ours, **more)
        weight = next(node for node in graph if node.op.name == "rw.conv").arg("weight")
        strides = layouts_of(graph).get(weight.name)
        assert (strides == innermost((16, 1, 3, 3))) == is_ours


@pytest.mark.parametrize("torch_backend", ["eager", "inductor"])
def test_the_pipeline_leaves_them_out(torch_backend):
    ours = steps(torch_backend=torch_backend)
    assert FuseConvRelu in ours
    assert ours[ChannelsLast].depthwise
    left = steps(torch_backend=torch_backend, disabled_kernels=["conv-relu", "depthwise"])
    assert FuseConvRelu not in left
    assert not left[ChannelsLast].depthwise
    assert left[ChannelsLast].edges == ours[ChannelsLast].edges


@pytest.mark.parametrize("torch_backend", ["eager", "inductor"])
def test_a_program_is_told(torch_backend, monkeypatch):
    """That a compile asks without them: on a CPU, where there are none, by who is asked."""
    asked = []

    def spy(op, node, by="", without=()):
        asked.append((by, set(without)))
        return implementation_of(op, node, by, without)

    from rewright.backends.torch import codegen

    monkeypatch.setattr(codegen, "implementation_of", spy)
    monkeypatch.setattr(inductor, "implementation_of", spy)
    rewright.compile(
        torch.nn.LayerNorm(8), (torch.randn(2, 8),), torch_backend=torch_backend,
        disabled_kernels={"attention"}, optimization_level=2,
    )  # fmt: skip
    assert asked
    assert all(pair == (torch_backend, {"attention"}) for pair in asked)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["depthwize"], "did you mean 'depthwise'"),
        ("depthwise", "a sequence of 'attention', 'conv-relu', 'depthwise'"),
        ({"depthwise": True}, "a sequence of"),
        (3, "a sequence of"),
        ([3], "no kernel 3"),
    ],
)
def test_wrong_names_are_refused(given, said):
    with pytest.raises(SettingsError, match=said):
        Settings(disabled_kernels=given)


def test_names_are_kept_in_order_once():
    assert Settings(disabled_kernels=["depthwise", "attention", "depthwise"]).disabled_kernels == (
        "attention",
        "depthwise",
    )
