"""The models of the demo as text: what is printed reads back, and computes the same numbers."""

import pytest
import torch
from torch.utils import _pytree as pytree

from rewright.demo_models import MODELS
from rewright.frontends.export import import_exported
from rewright.ir.files import dump_graph, load_graph
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from rewright.ir.printer import print_graph
from rewright.ir.verifier import verify

OLD_EXPORT = "torch.export before 2.12 refuses the dynamic sequence of this model"


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_a_model_reads_back_and_computes_the_same(model, dynamic, tmp_path):
    if dynamic and model is MODELS["llama"] and torch.__version__ < "2.12":
        pytest.skip(OLD_EXPORT)
    network, inputs = model.build(), model.inputs()
    exported = torch.export.export(
        network, inputs, dynamic_shapes=model.dynamic_shapes if dynamic else None, strict=False
    )
    graph, _ = import_exported(exported)
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text
    loaded = load_graph(dump_graph(graph, tmp_path / "model"))
    verify(loaded, retype=True)
    assert print_graph(loaded) == text
    given = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    assert len(given) == len(graph.inputs)
    with torch.no_grad():
        expected, actual = interpret(graph, given), interpret(loaded, given)
        eager = pytree.tree_leaves(network(*inputs))
    torch.testing.assert_close(actual.outputs, expected.outputs, rtol=0, atol=0)
    tensors = [output for output in actual.outputs if isinstance(output, torch.Tensor)]
    torch.testing.assert_close(tensors, [x for x in eager if isinstance(x, torch.Tensor)])
