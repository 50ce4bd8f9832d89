import sys

import pytest
import torch
from torch.utils import _pytree as pytree

from rewright.demo_models import MODELS

BY_NAME = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def tensors(tree):
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@BY_NAME
def test_it_exports_with_dynamic_shapes(model):
    if model is MODELS["llama"] and torch.__version__ < "2.12":
        pytest.skip("torch.export before 2.12 refuses the dynamic sequence of this model")
    program = torch.export.export(
        model.build(), model.inputs(), dynamic_shapes=model.dynamic_shapes, strict=False
    )
    with torch.no_grad():
        expected = tensors(model.build()(*model.inputs()))
        actual = tensors(program.module()(*model.inputs()))
    assert expected and all(output.isfinite().all() for output in expected)
    torch.testing.assert_close(actual, expected)
    assert program.range_constraints


@BY_NAME
def test_another_input_gives_another_output(model):
    first, *others = model.inputs()
    changed = first.flip(-1)
    with torch.no_grad():
        network = model.build()
        a, b = tensors(network(first, *others)), tensors(network(changed, *others))
    assert all((x - y).abs().max() > 1e-2 * x.abs().max() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ["bert", "llama", "unet"])
def test_a_missing_library_is_named_with_what_to_install(name, monkeypatch):
    for library in ("transformers", "diffusers"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install 'rewright\[bench\]'"):
        MODELS[name].build()


def test_the_residual_network_needs_torch_only(fresh_python):
    code = "import sys, rewright.demo_models as d; d.MODELS['resnet'].build(); "
    code += "print([m for m in ('transformers', 'diffusers') if m in sys.modules])"
    assert fresh_python(code) == "[]"
