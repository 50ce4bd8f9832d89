"""Models of the zoo as one network each: evaluated against their graphs, and built."""

from __future__ import annotations

from typing import Final

import pytest
import torch
from torch.utils import _pytree as pytree

from rewright.frontends.export import import_exported
from rewright.ir.graph import Graph
from tests.backends.tensorrt.checking import check_graph, refusals, rtx
from tests.zoo import ENTRIES, Entry
from tests.zoo.__main__ import check_sizes

QUICK: Final = ("bert", "resnet", "vit")
WHOLE: Final = (
    *("gpt2", "llama", "mistral", "gemma3", "t5", "bart", "whisper", "clip", "swin", "convnext"),
    *("deberta_v2", "modernbert", "mobilenet_v2", "segformer", "unet2d_condition"),
    *("autoencoder_kl", "mamba", "mixtral"),
)
IN_PARTS: Final = {
    "flux": "no f64",
    "qwen2_moe": "histc has no converter",
}
"""Models of which TensorRT takes not everything, and a word of the reason."""

MODELS: Final = [
    *QUICK,
    *(pytest.param(name, marks=pytest.mark.slow) for name in WHOLE),
]


def _graph(entry: Entry) -> tuple[Graph, bool]:
    """The graph of an entry, and whether its sizes vary (torch can't export all of them so)."""
    dynamic = not entry.upstream_failure
    return import_exported(entry.export(dynamic), None)[0], dynamic


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    entry = ENTRIES[name]
    graph, dynamic = _graph(entry)
    assert refusals(graph, rtx()) == []
    calls = [
        [x for x in pytree.tree_leaves(entry.inputs(**sizes)) if isinstance(x, torch.Tensor)]
        for sizes in check_sizes(entry, dynamic)
    ]
    check_graph(graph, calls, slack=5.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_PARTS)
def test_what_stays_in_torch_has_a_reason(name: str) -> None:
    graph, _ = _graph(ENTRIES[name])
    reasons = refusals(graph, rtx())
    assert any(IN_PARTS[name] in reason for reason in reasons)
    assert len(reasons) < len(graph) / 3
