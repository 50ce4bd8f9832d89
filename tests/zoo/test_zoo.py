"""The zoo keeps its promises: enough models, tiny, seeded, sensitive, of any declared size."""

import re

import pytest
import torch

from tests.zoo import ALL, ENTRIES, QUICK, export
from tests.zoo.__main__ import check_sizes, outcome, tensors

KEY_BIAS = re.compile(r"\b(k|key|k_proj|k_lin|to_k)\.bias$")
BY_NAME = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())


def test_names_are_unique():
    assert len(ENTRIES) == len(ALL)


def test_there_are_enough_models_and_few_fail_upstream():
    families = [entry.family for entry in ALL]
    failing = [entry.family for entry in ALL if entry.upstream_failure]
    assert families.count("transformers") >= 28 and families.count("diffusers") >= 7
    assert failing.count("transformers") <= 2 and failing.count("diffusers") == 0


def test_the_quick_subset_has_every_kind():
    assert {entry.kind for entry in QUICK.values()} == {entry.kind for entry in ALL}
    assert 3 * len(QUICK) <= 1.2 * len(ENTRIES)


@BY_NAME
def test_sizes_are_legal(entry):
    for axis in entry.axes.values():
        for size in (axis.at, axis.other, axis.low, axis.high):
            assert axis.low <= size <= axis.high and size % axis.step == 0


@BY_NAME
def test_eager_runs_at_every_size(entry):
    if entry.upstream_failure:
        pytest.skip("its sizes are fixed")
    model = entry.build()
    assert sum(t.nbytes for t in [*model.parameters(), *model.buffers()]) < 5e6
    assert not model.training
    for sizes in check_sizes(entry, dynamic=True):
        args, kwargs = entry.inputs(**sizes)
        with torch.no_grad():
            outputs = tensors(model(*args, **kwargs))
        assert outputs and all(output.isfinite().all() for output in outputs)


@BY_NAME
def test_weights_and_inputs_are_seeded(entry):
    first, second = entry.build().state_dict(), entry.build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(map(torch.equal, tensors(entry.inputs()), tensors(entry.inputs())))


@BY_NAME
def test_weights_move_the_output(entry):
    """What has no gradient is a key's bias, which softmax cancels, or one that no path uses."""
    model = entry.build()
    args, kwargs = entry.inputs()
    outputs = [output for output in tensors(model(*args, **kwargs)) if output.is_floating_point()]
    pull = sum((output * torch.randn_like(output)).mean() for output in outputs)
    pull.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    still = [n for n, grad in grads.items() if grad is None or grad.abs().max() < 1e-9]
    assert len([name for name in still if not KEY_BIAS.search(name)]) <= 3, still


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "pixart"])
def test_attention_can_be_chosen(name, attn):
    targets = [str(node.target) for node in ENTRIES[name].export(attn=attn).graph.nodes]
    fused = "aten.scaled_dot_product_attention.default" in targets
    assert fused == (attn == "sdpa")


def test_an_attention_it_has_not_is_refused():
    with pytest.raises(ValueError, match="mpnet has no 'sdpa' attention"):
        ENTRIES["mpnet"].build("sdpa")


def test_an_axis_it_has_not_is_refused():
    with pytest.raises(ValueError, match=r"vit has no axis \['seq'\], only \['batch'\]"):
        ENTRIES["vit"].inputs(seq=3)


def test_sizes_and_dtype_reach_the_inputs():
    args, kwargs = ENTRIES["controlnet"].inputs(height=8, width=16, dtype=torch.float16)
    assert args[0].shape == (2, 4, 8, 16) and args[0].dtype == torch.float16
    assert kwargs["controlnet_cond"].shape == (2, 3, 16, 32)
    assert kwargs["timestep"].dtype == torch.int64


@pytest.mark.parametrize("name", ["bert", "resnet"])
def test_a_dynamic_export_has_the_declared_symbols(name):
    entry = ENTRIES[name]
    program = export(entry, dynamic=True)
    symbols = {symbol for size in program.range_constraints for symbol in size.free_symbols}
    assert len(symbols) == len(entry.axes)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@BY_NAME
def test_the_exported_program_equals_eager(entry, dynamic):
    good, line = outcome(entry, dynamic, None)
    assert good, line
