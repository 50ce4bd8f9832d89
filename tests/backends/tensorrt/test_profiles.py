"""Several ranges of sizes: an engine has a profile for each, and each call the one that fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import rewright
from rewright import Input
from rewright.backends.tensorrt.build import Engine
from rewright.backends.tensorrt.runtime import EngineRunner
from rewright.errors import InputError
from tests.backends.tensorrt import kept
from tests.backends.tensorrt.checking import rtx
from tests.backends.tensorrt.running import Bench

ROWS, COLUMNS = torch.export.Dim("rows", min=1, max=64), torch.export.Dim("columns", min=1, max=64)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x)).sum(0) + torch.tanh(y.float()).mean()


SMALL = Input(min=(1, 8), opt=(2, 8), max=(4, 8))
LARGE = Input(min=(16, 8), opt=(32, 8), max=(64, 8))


@pytest.fixture
def runners(fake: Bench, monkeypatch: pytest.MonkeyPatch) -> list[EngineRunner]:
    """Engines are the double's; those that are loaded."""
    made: list[EngineRunner] = []

    def build_here(emitted: Any, *_: Any) -> Engine:
        return kept.keep(emitted, fake.library)

    def load(engine: Engine, _: Any, name: str, *__: Any, **___: Any) -> EngineRunner:
        made.append(EngineRunner(engine, fake.library, name=name, device=fake.device))
        made[-1].load()
        return made[-1]

    monkeypatch.setattr("rewright.backends.tensorrt.together.build_here", build_here)
    monkeypatch.setattr("rewright.targets._load", load)
    return made


def _compiled(net: Net, inputs: Any) -> rewright.CompiledProgram:
    exported = torch.export.export(
        net, (torch.randn(2, 8), torch.randn(3)), dynamic_shapes=({0: ROWS}, {0: COLUMNS})
    )
    return rewright.compile_exported(exported, inputs, target="rtx", min_block_size=1)


def test_each_call_has_the_profile_that_fits(runners: list[EngineRunner], fake: Bench) -> None:
    net = Net().eval()
    other = Input(min=(1,), opt=(3,), max=(9,))
    program = _compiled(net, [[SMALL, LARGE], other])
    (segment,) = program.segments
    (runner,) = runners
    assert str(program.graph.symbols) and "s0 in {1..2..4 | 16..32..64}" in program.report()
    calls, chosen = fake.library.module.calls, []
    for rows in (1, 4, 16, 64, 2):
        x, y = torch.randn(rows, 8), torch.randn(5)
        with torch.no_grad():
            torch.testing.assert_close(program(x, y), net(x, y), rtol=1e-5, atol=1e-5)
        chosen.append(calls["set_optimization_profile_async"])
    assert chosen == [0, 0, 1, 1, 2], "TensorRT is told of another profile, and only then"
    assert segment.engine is not None and runner.counters.runs == 5
    for rows in (5, 15, 65):
        with pytest.raises(InputError, match=rf"dimension 0 .*of x is {rows}"):
            program(torch.randn(rows, 8), torch.randn(5))


def test_ranges_of_several_inputs_go_together(runners: list[EngineRunner]) -> None:
    net = Net().eval()
    program = _compiled(
        net,
        [
            [SMALL, LARGE],
            [Input(min=(1,), opt=(1,), max=(2,)), Input(min=(4,), opt=(5,), max=(9,))],
        ],
    )
    for rows, columns in ((4, 2), (64, 9)):
        x, y = torch.randn(rows, 8), torch.randn(columns)
        with torch.no_grad():
            torch.testing.assert_close(program(x, y), net(x, y), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="profile"):
        program(torch.randn(4, 8), torch.randn(9))


def test_a_real_engine_has_them() -> None:
    from rewright.backends.tensorrt.build import build_engine

    rtx()
    with pytest.warns(rewright.errors.FallbackWarning):
        program = _compiled(Net().eval(), [[SMALL, LARGE], Input(min=(1,), opt=(3,), max=(9,))])
    (segment,) = program.segments
    assert segment.engine is not None and segment.engine.profiles == 2
    constants = {name: c.data for name, c in segment.graph.constants.items() if c.data is not None}
    one = build_engine(segment.graph, segment.library, constants=constants)
    assert one.profiles == 2


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="one input has 2 ranges, and another 3"):
        _compiled(Net().eval(), [[SMALL, LARGE], [Input((3,))] * 3])
    with pytest.raises(InputError, match="one input has 0 ranges"):
        _compiled(Net().eval(), [[], Input((3,))])
