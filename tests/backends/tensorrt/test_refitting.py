"""Other weights for engines that are there: which weights come from what, and what is refused.

Engines that can be refitted are built, and refitted, where there is a CUDA driver. Here networks
are defined by the real library, which takes the names and marks; the refitter is the double's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import torch

from rewright.backends.tensorrt.build import Engine, build_engine
from rewright.backends.tensorrt.emitter import emit
from rewright.backends.tensorrt.options import BuildOptions
from rewright.backends.tensorrt.refitting import Naming, refitted_weights
from rewright.backends.tensorrt.runtime import EngineRunner
from rewright.backends.tensorrt.segment import Segment
from rewright.errors import EngineError
from rewright.ir.graph import Graph
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from tests.backends.tensorrt import kept
from tests.backends.tensorrt.checking import assert_same, rtx
from tests.backends.tensorrt.running import Bench

NET = """\
graph @net(%x: f32[s0, 3, 4, 4]) -> f32[s0, 5]
  where s0 in {1..8} = dim(%x, 0)
{
  %a = rw.conv(%x, @conv, @bias, stride=[1, 1], padding=[1, 1], dilation=[1, 1]) : f32[s0, 6, 4, 4]
  %b = aten.relu(%a) : f32[s0, 6, 4, 4]
  %c = aten.mean.dim(%b, [2, 3]) : f32[s0, 6]
  %t = aten.permute(@w, [1, 0]) : f32[6, 5]
  %d = aten.mm(%c, %t) : f32[s0, 5]
  %e = aten.mul.Tensor(%d, 2.5) : f32[s0, 5]
  %f = aten.add.Tensor(%e, @half) : f32[s0, 5]
  return %f
}
constants {
  parameter @conv : f32[6, 3, 3, 3]
  parameter @bias : f32[6]
  parameter @w : f32[5, 6]
  parameter @half : f16[5]
}
"""

LOOKED_AT = """\
graph @rows(%x: f32[4, 3]) -> f32[2, 3]
{
  %a = aten.index.Tensor(%x, [@places]) : f32[2, 3]
  %b = aten.relu(%a) : f32[2, 3]
  return %b
}
constants {
  buffer @places : i64[2]
}
"""


def _graph() -> Graph:
    return parse_graph(NET)


def _constants(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "conv": torch.randn(6, 3, 3, 3), "bias": torch.randn(6), "w": torch.randn(5, 6),
        "half": torch.randn(5).half(),
    }  # fmt: skip


def _named(graph: Graph, constants: Mapping[str, torch.Tensor]) -> Naming:
    naming = Naming()
    emit(graph, rtx(), constants, naming)
    return naming


def test_weights_have_the_names_of_the_constants_that_they_come_from() -> None:
    constants = _constants(0)
    found = _named(_graph(), constants).weights
    assert {*found} == {"conv", "bias", "w", "half"}
    assert found["conv"].data_ptr() == constants["conv"].data_ptr(), "no copy without need"
    assert found["half"].dtype == torch.float32, "cast by a converter"
    assert torch.equal(found["w"].flatten(), constants["w"].mT.flatten()) or torch.equal(
        found["w"].flatten(), constants["w"].flatten()
    )
    assert 2.5 not in [w.flatten()[0].item() for w in found.values()], "a literal has no name"
    marked = emit(_graph(), rtx(), constants, naming := Naming()).net.definition
    assert all(marked.are_weights_marked_refittable(name) for name in naming.weights)


def test_constants_that_are_the_same_today_have_weights_of_their_own() -> None:
    text = (
        "graph @g(%x: f32[4]) -> f32[4]\n{\n  %a = aten.mul.Tensor(%x, @p) : f32[4]\n"
        "  %b = aten.add.Tensor(%a, @q) : f32[4]\n  return %b\n}\n"
        "constants {\n  parameter @p : f32[4]\n  parameter @q : f32[4]\n}\n"
    )
    one = torch.ones(4)
    found = _named(parse_graph(text), {"p": one, "q": one}).weights
    assert {*found} == {"p", "q"}
    assert found["p"].data_ptr() != found["q"].data_ptr()
    part = torch.randn(8)
    found = _named(parse_graph(text), {"p": part[:4], "q": part[4:]}).weights
    assert torch.equal(found["q"], part[4:])


def test_one_constant_may_make_several_weights() -> None:
    text = (
        "graph @g(%x: f32[4], %y: f16[4]) -> (f32[4], f16[4])\n{\n"
        "  %a = aten.mul.Tensor(%x, @p) : f32[4]\n"
        "  %c = aten._to_copy(@p, dtype=f16) : f16[4]\n"
        "  %b = aten.add.Tensor(%y, %c) : f16[4]\n  return %a, %b\n}\n"
        "constants {\n  parameter @p : f32[4]\n}\n"
    )
    found = _named(parse_graph(text), {"p": torch.randn(4)}).weights
    assert len(found) <= 2
    assert {name.partition(".")[0] for name in found} == {"p"}


def test_the_form_is_all_but_the_contents_of_weights() -> None:
    forms = {_named(_graph(), _constants(seed)).form() for seed in range(3)}
    assert len(forms) == 1
    other = parse_graph(str(_graph()).replace("2.5", "2.25"))
    assert _named(other, _constants(0)).form() not in forms


def test_what_was_not_built_for_it_is_not_refitted() -> None:
    graph = _graph()
    engine = Engine(b"", rtx().name, (), (), 1, 1, 0.0, ())
    with pytest.raises(EngineError, match="not built to be refitted") as caught:
        refitted_weights(graph, rtx(), engine, _constants(1))
    assert "engine_refit=True" in str(caught.value.hint)


def test_another_network_is_no_other_weights() -> None:
    """A converter that looks at numbers: indices below 0 are counted from the end."""
    graph = parse_graph(LOOKED_AT)
    engine = attrs.evolve(
        Engine(b"", rtx().name, (), (), 1, 1, 0.0, ()),
        form=_named(graph, {"places": torch.tensor([0, 2])}).form(),
    )
    same = refitted_weights(graph, rtx(), engine, {"places": torch.tensor([1, 3])})
    assert [w.flatten().tolist() for w in same.values()] == [[1, 3]]
    longer = attrs.evolve(engine, form="f" * 64)
    with pytest.raises(EngineError, match="another network"):
        refitted_weights(graph, rtx(), longer, {"places": torch.tensor([1, 3])})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_where_there_is_no_driver_the_build_says_so() -> None:
    graph = _graph()
    with pytest.raises(EngineError, match="could not build @net") as caught:
        build_engine(graph, rtx(), BuildOptions(refit=True), constants=_constants(0))
    assert "CUDA driver" in str(caught.value.hint)
    assert build_engine(graph, rtx(), constants=_constants(0)).form == ""


# --------------------------------------------------------------------------- segments


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, fake: Bench) -> list[Engine]:
    """What is built, by the double."""
    made: list[Engine] = []

    def build_here(emitted: Any, *_: Any) -> Engine:
        made.append(kept.keep(emitted, fake.library))
        return made[-1]

    monkeypatch.setattr("rewright.backends.tensorrt.together.build_here", build_here)
    return made


def _segment(fake: Bench, refit: bool = True) -> Segment:
    def load(engine: Engine, _: Any, name: str, weights: Any = None, /) -> EngineRunner:
        runner = EngineRunner(
            engine, fake.library, name=name, device=fake.device, weights=weights
        )  # fmt: skip
        runner.load()
        return runner

    return Segment("net", _graph(), (0,), rtx(), BuildOptions(refit=refit), load, "raise")


def _expected(constants: Mapping[str, torch.Tensor], x: torch.Tensor) -> list[Any]:
    graph = _graph()
    for name, tensor in constants.items():
        graph.constants[name].data = tensor
    return interpret(graph, [x]).outputs


def test_a_segment_is_refitted_without_a_build(fake: Bench, builds: list[Engine]) -> None:
    segment, first, second = _segment(fake), _constants(1), _constants(2)
    before = segment.bind(first, lambda *_: pytest.fail("it runs in Torch"))
    after = segment.bind(second, lambda *_: pytest.fail("it runs in Torch"))
    assert len(builds) == 1
    held, third = segment.engine, _constants(3)
    assert held is not None and held.data != builds[0].data, "the bytes have the new weights"
    again = segment.bind(third, lambda *_: pytest.fail("it runs in Torch"))
    assert len(builds) == 1
    for size in (1, 8):
        x = torch.randn(size, 3, 4, 4)
        assert_same(after(x), _expected(second, x))
        assert_same(before(x), _expected(first, x))  # what was bound before goes on
        assert_same(again(x), _expected(third, x))
    fresh = EngineRunner(held, fake.library, device=fake.device)
    assert_same(fresh(x), _expected(second, x))


def test_a_segment_without_refit_is_built_again(fake: Bench, builds: list[Engine]) -> None:
    segment, x = _segment(fake, refit=False), torch.randn(2, 3, 4, 4)
    for seed in (1, 2):
        run = segment.bind(_constants(seed), lambda *_: None)
        assert_same(run(x), _expected(_constants(seed), x))
        assert len(builds) == seed


def test_an_engine_that_can_not_be_loaded_is_built_again(fake: Bench, builds: list[Engine]) -> None:
    segment, x = _segment(fake), torch.randn(2, 3, 4, 4)
    segment.bind(_constants(1), lambda *_: None)
    fake.library.module.failing["Refitter.refit_cuda_engine"] = "no such thing"
    run = segment.bind(_constants(2), lambda *_: pytest.fail("it runs in Torch"))
    assert len(builds) == 2
    assert_same(run(x), _expected(_constants(2), x))


def test_a_runner_that_is_closed_keeps_its_weights(fake: Bench) -> None:
    graph, new = _graph(), _constants(3)
    emitted = emit(graph, rtx(), _constants(1), Naming())
    engine = kept.keep(emitted, fake.library)
    weights = refitted_weights(graph, rtx(), engine, new)
    runner = EngineRunner(engine, fake.library, device=fake.device, weights=weights)
    x = torch.randn(2, 3, 4, 4)
    for _ in range(2):
        assert_same(runner(x), _expected(new, x))
        runner.close()


@pytest.mark.parametrize("call", ["set_named_weights", "refit_cuda_engine"])
def test_refusals_of_tensorrt_are_errors(fake: Bench, call: str) -> None:
    graph = _graph()
    engine = kept.keep(emit(graph, rtx(), _constants(1), Naming()), fake.library)
    weights = refitted_weights(graph, rtx(), engine, _constants(2))
    fake.library.module.failing[f"Refitter.{call}"] = "no such thing"
    with pytest.raises(EngineError, match="no such thing"):
        EngineRunner(engine, fake.library, device=fake.device, weights=weights).load()


def test_weights_that_an_engine_has_not_are_refused(fake: Bench) -> None:
    engine = kept.keep(emit(_graph(), rtx(), _constants(1), Naming()), fake.library)
    runner = EngineRunner(
        engine, fake.library, device=fake.device, weights={"other": torch.ones(2)}
    )
    with pytest.raises(EngineError, match="does not hold other"):
        runner.load()


def test_engines_for_later_versions_bring_their_runtime(fake: Bench) -> None:
    engine = kept.keep(emit(_graph(), rtx(), _constants(1)), fake.library)
    package, _, _ = fake.library.name.partition(" ")
    old = attrs.evolve(engine, library=f"{package} 1.0.0")
    with pytest.raises(EngineError, match="it was built with"):
        EngineRunner(old, fake.library, device=fake.device).load()
    portable = attrs.evolve(old, version_compatible=True)
    EngineRunner(portable, fake.library, device=fake.device).load()
    assert fake.library.module.settings["engine_host_code_allowed"] is True
    newer = attrs.evolve(portable, library=f"{package} 99.0.0")
    with pytest.raises(EngineError, match="it was built with"):
        EngineRunner(newer, fake.library, device=fake.device).load()
