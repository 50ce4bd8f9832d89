"""What fusion finds in small models of real architectures, and that their numbers stay."""

from collections import Counter

import pytest
import torch

import rewright
from tests.fusion_table import FUSE, MERGE
from tests.zoo import ENTRIES
from tests.zoo.__main__ import check_sizes, relative_error, tensors

FOUND = {
    # attentions, of which without a mask; norms; linears, before merging and after
    ("bert", "eager"): (2, 0, 5, 13, 9),
    ("bert", "sdpa"): (2, 0, 5, 13, 9),
    ("llama", "eager"): (2, 2, 5, 15, 9),
    ("llama", "sdpa"): (2, 2, 5, 15, 9),
    ("gpt2", "eager"): (2, 2, 5, 9, 9),
    ("vit", "eager"): (2, 2, 5, 14, 10),
    ("t5", "sdpa"): (6, 0, 12, 37, 23),
    ("whisper", "eager"): (6, 6, 12, 33, 23),
    ("clip", "sdpa"): (4, 2, 11, 28, 20),
    ("unet2d_condition", "eager"): (8, 8, 33, 50, 32),
}
DYNAMIC = {("llama", "eager"), ("bert", "sdpa"), ("vit", "eager")}


@pytest.mark.parametrize(("name", "attention"), FOUND, ids=["-".join(key) for key in FOUND])
def test_what_is_found_in_a_model(name: str, attention: str):
    entry = ENTRIES[name]
    dynamic = (name, attention) in DYNAMIC
    exported = entry.export(dynamic, attention)
    before = rewright.stats()
    program = rewright.compile_exported(exported, pipeline=f"{FUSE},{MERGE}", numerics=True)
    fused = rewright.compile_exported(exported, pipeline=FUSE).graph
    ops = Counter(node.op.name for node in fused)
    attentions = [node for node in fused if node.op.name == "rw.attention"]
    found = (
        len(attentions),
        sum("mask" not in node.attributes for node in attentions),
        ops["rw.layer_norm"] + ops["rw.rms_norm"] + ops["rw.group_norm"],
        ops["rw.linear"],
        sum(node.op.name == "rw.linear" for node in program.graph),
    )
    assert found == FOUND[name, attention]
    assert not any("softmax" in op or "scaled_dot" in op for op in ops)

    model = entry.build(attention)
    with torch.no_grad():
        for sizes in check_sizes(entry, dynamic):
            args, kwargs = entry.inputs(**sizes)
            actual, expected = tensors(program(*args, **kwargs)), tensors(model(*args, **kwargs))
            assert relative_error(actual, expected) <= entry.tolerance.float32
    done = rewright.stats() - before
    assert done.fallbacks == 0
    assert done.rewrites > 0
