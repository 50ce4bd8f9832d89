"""Conditionals and loops as TensorRT's own."""

from __future__ import annotations

import torch
from torch._higher_order_ops import while_loop
from torch._higher_order_ops.scan import scan
from torch.export import Dim

from tests.backends.tensorrt.checking import check, import_function, refusals, rtx

BATCH = {0: Dim("batch", min=1, max=8)}


def test_cond() -> None:
    def choose(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin() + 1, lambda x: x * 2, (x,))

    x = torch.rand(3, 4)
    check(choose, (x,), (-x,))


def test_cond_with_sizes_that_vary() -> None:
    def choose(x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
        return torch.cond(flag, lambda x: x.cos() * x.shape[0], lambda x: x.clone(), (x,))

    yes, no = torch.tensor(True), torch.tensor(False)
    sizes = (torch.rand(3, 4), torch.rand(1, 4), torch.rand(8, 4))
    calls = [(x, flag) for x in sizes for flag in (yes, no)]
    check(choose, *calls, dynamic=(BATCH, None))


def test_while_loop() -> None:
    def doubled(x: torch.Tensor) -> torch.Tensor:
        start = torch.zeros((), dtype=torch.int64)
        return while_loop(
            lambda i, x: (i < 5) & (x.sum() < 100), lambda i, x: (i + 1, x * 2), (start, x)
        )[1]

    check(doubled, (torch.rand(3),), (torch.full((3,), 30.0),), (torch.full((3,), 50.0),))


def test_scan() -> None:
    def running(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def step(carry: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            total = carry + row
            return total, total * 2

        return scan(step, torch.zeros(4), x)

    check(running, (torch.rand(5, 4),))


def test_what_keeps_a_region_out_is_named() -> None:
    def choose(x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
        def rounded(x: torch.Tensor) -> torch.Tensor:
            return (x.double() * 2).float()

        return torch.cond(flag, rounded, lambda x: x.cos(), (x,))

    graph = import_function(choose, (torch.rand(3), torch.tensor(True)))
    (reason,) = refusals(graph, rtx())
    assert "a region of it has aten._to_copy (tests/backends/tensorrt/checking.py:" in reason
    assert "TensorRT has no f64" in reason
