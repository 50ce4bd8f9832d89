"""Digests of tensors: by what they hold, and once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from rewright.backends import contents
from rewright.backends.contents import tensor_digests
from rewright.digest import CHUNK
from rewright.errors import UnsupportedError
from rewright.ir.types import DTYPE_NAMES


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_known", {})


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is hashed."""
    sizes: list[int] = []
    real = contents.digests

    def watch(sources):  # type: ignore[no-untyped-def]
        sizes.extend(length for length, _ in sources)
        return real(sources)

    monkeypatch.setattr(contents, "digests", watch)
    return sizes


def one(tensor: Tensor) -> bytes:
    return tensor_digests([tensor])[0]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "another memory": torch.clone,
    "transposed memory": lambda x: x.mT.contiguous().mT,
    "part of a larger one": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "every second": lambda x: x.repeat_interleave(2, 0)[::2],
    "a parameter": nn.Parameter,
    "an offset": lambda x: torch.cat([x.flatten(), x.flatten()])[x.numel() :].view_as(x),
    "of inference mode": torch.inference_mode()(torch.clone),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_does_not_matter(layout: str) -> None:
    x = torch.randn(6, 4)
    assert one(LAYOUTS[layout](x)) == one(x)


def test_expanded_conjugated_and_negated() -> None:
    x = torch.randn(1, 4)
    assert one(x.expand(3, 4)) == one(x.repeat(3, 1))
    z = torch.randn(3, dtype=torch.complex64)
    assert one(z.conj()) == one(z.conj().resolve_conj()) != one(z)
    assert one(z.conj().imag) == one(z.conj().imag.resolve_neg()) != one(z.imag)


def test_everything_else_does() -> None:
    x = torch.arange(24.0).reshape(4, 6)
    last, zero = x.clone(), x.clone()
    last[3, 5] += 1e-5
    zero[0, 0] = -0.0
    others = [
        x, x.mT, x.flatten(), x.unsqueeze(0), x[:3], x.view(torch.int32), x.double(), last, zero,
        torch.zeros(0), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int8), torch.tensor(0.0),
    ]  # fmt: skip
    found = tensor_digests(others)
    for a, b in combinations(range(len(others)), 2):
        assert found[a] != found[b], (a, b)


@pytest.mark.parametrize("dtype", [d for d in DTYPE_NAMES if "q" not in str(d)], ids=str)
def test_every_dtype(dtype: torch.dtype) -> None:
    raw = torch.arange(64, dtype=torch.uint8)
    try:
        x, y = raw.view(dtype), (raw + 1).view(dtype)
    except RuntimeError:
        pytest.skip("torch makes no such tensor from bytes")
    assert one(x) != one(y)
    assert one(x) == one(raw.clone().view(dtype))


def test_large_ones_in_chunks() -> None:
    x = torch.zeros(5 << 20)  # 20 MiB
    before = one(x)
    x.view(-1)[-1] = 1
    assert one(x) != before
    assert one(x) == one(x.clone()) == one(x.view(1024, -1).mT.contiguous().mT.reshape(-1))


# --------------------------------------------------------------------------- once


def test_each_version_is_hashed_once(hashed: list[int]) -> None:
    x = torch.randn(100, 10)
    first = one(x)
    assert one(x) == one(x.detach()) == one(nn.Parameter(x)) == first
    assert hashed == [4000]
    x[3, 3] += 1
    assert one(x) != first
    assert hashed == [4000, 4000]
    x.add_(0)
    one(x)
    assert len(hashed) == 3, "written to, as far as torch knows"


def test_views_are_known_apart(hashed: list[int]) -> None:
    x = torch.randn(4, 4)
    assert len({one(x), one(x.mT), one(x[:2]), one(x.view(2, 8)), one(x.view(torch.int32))}) == 5
    assert len(hashed) == 5


def test_writes_that_torch_does_not_count_are_found() -> None:
    for x in (torch.randn(1000, 100), torch.randn(100, 1000).mT, torch.randn(3)):
        first, version = one(x), x._version
        x.data.copy_(torch.randn_like(x))
        assert x._version == version
        assert one(x) != first


def test_tensors_that_count_no_writes_are_hashed_each_time(hashed: list[int]) -> None:
    with torch.inference_mode():
        x = torch.zeros(10)
    first = one(x)
    with torch.inference_mode():
        x[3] = 1
    assert one(x) != first
    assert len(hashed) == 2
    assert not contents._known


def test_freed_memory_is_forgotten(hashed: list[int]) -> None:
    x = torch.randn(1000)
    one(x)
    del x
    gc.collect()
    keep = torch.randn(10)
    one(keep)
    assert len(contents._known) == 1
    for _ in range(50):  # the allocator gives the same address again
        one(torch.randn(1000))
    assert len(hashed) == 52


def test_several_at_once(hashed: list[int]) -> None:
    tensors = [torch.randn(n + 1, 3) for n in range(5)]
    known = one(tensors[2])
    found = tensor_digests(tensors)
    assert found[2] == known
    assert found == [one(t.clone()) for t in tensors]
    assert tensor_digests([]) == []


# --------------------------------------------------------------------------- refused


def _fake() -> Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.empty(3)


REFUSED = {
    "meta": lambda: torch.empty(3, device="meta"),
    "fake": _fake,
    "sparse": lambda: torch.eye(3).to_sparse(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.qint8),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_bytes_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedError, match="no elements that can be hashed"):
        tensor_digests([torch.ones(2), REFUSED[kind]()])


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    x = torch.randn(5 << 20)
    assert one(x.cuda()) == one(x)
    assert x.nbytes > CHUNK
