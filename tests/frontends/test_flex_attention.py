"""flex_attention by both ways: its functions are regions, which torch calls under vmap."""

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import rewright
from tests.frontends.jit import check, compiles, same

BIAS = torch.linspace(-1, 1, 128).reshape(2, 64)
MASKED = torch.arange(64) % 3 == 0


def causal(b, h, i, j):
    return i >= j


def not_masked(b, h, i, j):
    return MASKED[j] | (i == j)


def relative(score, b, h, i, j):
    return score + 0.1 * (i - j)


def biased(score, b, h, i, j):
    return score * BIAS[h, i]


def mask(function):
    return create_block_mask(function, None, None, 64, 64, device="cpu", BLOCK_SIZE=32)


CASES = {
    "plain": {},
    "score": {"score_mod": relative},
    "captured score": {"score_mod": biased},
    "mask": {"block_mask": mask(causal)},
    "captured mask": {"block_mask": mask(not_masked)},
    "both": {"score_mod": biased, "block_mask": mask(causal), "scale": 0.3},
    "sums": {"score_mod": relative, "block_mask": mask(causal), "return_lse": True},
}


class Attention(nn.Module):
    def __init__(self, keywords: dict) -> None:
        super().__init__()
        self.keywords = keywords

    def forward(self, q, k, v):
        return flex_attention(q, k, v, **self.keywords)


def inputs() -> list[torch.Tensor]:
    return [torch.randn(2, 2, 64, 16) for _ in range(3)]


def exported(keywords: dict, **settings):
    """Compiled by way of torch.export, and compared with eager."""
    model, args = Attention(keywords), inputs()
    with torch.no_grad():
        with compiles(1):
            program = rewright.compile_exported(
                torch.export.export(model, tuple(args)), on_error="raise", **settings
            )
            found = program(*args)
        same(found, model(*args))
    return program


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.*flex_attention.*")
def test_just_in_time(case: str):
    check(Attention(CASES[case]), *inputs())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.*flex_attention.*")
def test_exported(case: str):
    program = exported(CASES[case])
    (node,) = [n for n in program.graph if n.op.name == "higher_order.flex_attention"]
    assert len(node.regions) == 2, "the mask's function is a region as the score's is"
    assert rewright.ir.parser.parse_graph(str(program.graph))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["both", "captured mask"])
@pytest.mark.filterwarnings("ignore:.*flex_attention.*")
def test_by_inductor(case: str):
    check(Attention(CASES[case]), *inputs(), options={"torch_backend": "inductor"})
    exported(CASES[case], torch_backend="inductor")
