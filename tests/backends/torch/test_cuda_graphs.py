"""Which calls are recorded and replayed, and that callers can't tell: on the CPU, by emulation."""

import gc
import threading
import warnings
import weakref

import attrs
import pytest
import torch
from torch import Tensor, nn

import rewright
from rewright.backends.torch import build
from rewright.backends.torch.cuda_graphs import Graphs
from rewright.backends.torch.graph_families import Family, Role
from rewright.errors import FallbackWarning, SettingsError
from rewright.settings import Settings
from tests.backends.torch.emulated import Emulated, emulate
from tests.backends.torch.programs import program, shares


@pytest.fixture
def recorder(monkeypatch):
    """Programs that are compiled from here on have graphs, made by this."""
    made = Emulated()
    monkeypatch.setattr(build.Graphs, "of", emulate(made))
    return made


@pytest.fixture
def small(recorder, monkeypatch):
    """The same with room for two graphs."""
    of = emulate(recorder)
    two = Settings(cuda_graphs="auto", cuda_graphs_kept=2)
    monkeypatch.setattr(build.Graphs, "of", lambda graph, _, late: of(graph, two, late))
    return recorder


def counts(made) -> tuple[int, int, int, int]:
    found = made.cuda_graphs
    return found.runs, found.captures, found.replays, found.kept


AFFINE = """
graph @main(%x: f32[s0, 3]) -> f32[s0, 3] where s0 in {1..} = dim(%x, 0) {
  %y = aten.mul.Tensor(%x, @w) : f32[s0, 3]
  %z = aten.add.Tensor(%y, 1.0) : f32[s0, 3]
  return %z
}
constants { parameter @w : f32[3] }
"""


def test_a_call_runs_then_is_recorded_then_replayed(recorder):
    w = torch.randn(3)
    made = program(AFFINE, {"w": w})
    x = torch.randn(2, 3)
    for _ in range(5):
        x.copy_(torch.randn(2, 3))
        assert torch.equal(made(x)[0], x * w + 1)
    assert counts(made) == (1, 1, 4, 1)
    assert rewright.stats().captures == 1
    assert "cuda graphs 1 kept; 1 captures, 4 replays, 1 plain" in made.report()


def test_results_are_the_callers_to_keep(recorder):
    made = program(AFFINE)
    x = torch.randn(2, 3)
    kept = []
    for number in range(6):
        x.fill_(number)
        kept.append((made(x)[0], x.clone()))
    w = made.graph.constants["w"].data
    for result, given in kept:
        assert torch.equal(result, given * w + 1)
    assert len({result.data_ptr() for result, _ in kept}) == 6


def test_an_input_that_moves_is_copied_and_its_memory_not_kept(recorder):
    made = program(AFFINE)
    w = made.graph.constants["w"].data
    inputs = [torch.randn(2, 3) for _ in range(6)]
    for x in inputs:
        assert torch.equal(made(x)[0], x * w + 1)
    assert counts(made) == (2, 1, 4, 1)
    gone = [weakref.ref(x) for x in inputs]
    del x, inputs
    gc.collect()
    assert not any(reference() for reference in gone)


def test_each_shape_and_layout_has_a_graph(recorder):
    made = program(AFFINE)
    w = made.graph.constants["w"].data
    for x in (torch.randn(2, 3), torch.randn(4, 3), torch.randn(3, 4).t()):
        for _ in range(3):
            assert torch.equal(made(x)[0], x * w + 1)
    assert counts(made) == (3, 3, 6, 3)


def test_expanded_and_overlapping_inputs_can_move(recorder):
    made = program(AFFINE)
    w = made.graph.constants["w"].data
    for views in (lambda: torch.randn(1, 3).expand(4, 3), lambda: torch.randn(6).unfold(0, 3, 1)):
        for _ in range(5):
            x = views()
            assert torch.equal(made(x)[0], x * w + 1)
    assert counts(made) == (4, 2, 6, 2)


def test_an_edit_in_place_is_seen_and_a_replaced_weight_recorded_again(recorder):
    w = torch.randn(3)
    made = program(AFFINE, {"w": w})
    x = torch.randn(2, 3)
    for _ in range(3):
        made(x)
    w.mul_(2)
    assert torch.equal(made(x)[0], x * w + 1)
    assert counts(made) == (1, 1, 3, 1)
    w.data = torch.randn(3)
    for _ in range(3):
        assert torch.equal(made(x)[0], x * w + 1)
    assert counts(made)[:2] == (2, 2)


def test_parameters_that_are_arguments_have_graphs_by_their_address(recorder):
    made = program(AFFINE, late=("w",))
    x = torch.randn(2, 3)
    sets = [torch.randn(3), torch.randn(3)]
    for _ in range(3):
        for w in sets:
            assert torch.equal(made(x, w)[0], x * w + 1)
    assert counts(made) == (2, 2, 4, 2)
    sets[0].neg_()
    assert torch.equal(made(x, sets[0])[0], x * sets[0] + 1)
    assert counts(made) == (2, 2, 5, 2)


PREPARED = """
graph @main(%x: f32[3]) -> f32[3] {
  %y = aten.mul.Tensor(%x, @scale) : f32[3]
  return %y
}
constants { parameter @w : f32[3] }
prepare { @scale = aten.exp(@w) : f32[3] }
"""


def test_graphs_go_with_the_parameters_that_they_were_recorded_for(recorder):
    made = program(PREPARED, late=("w",))
    x, w = torch.randn(3), nn.Parameter(torch.randn(3))
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(made(x, w)[0], x * w.exp())
        assert counts(made) == (1, 1, 2, 1)
        w.add_(1)
        for _ in range(2):
            torch.testing.assert_close(made(x, w)[0], x * w.exp())
    assert counts(made) == (2, 2, 3, 1)
    del w
    assert counts(made)[3] == 0


COUNTER = """
graph @main(%x: f32[3], %cache: f32[3]) -> (f32[3], f32[3]) {
  %n = aten.add.Tensor(@count, 1) : f32[]
  %c = aten.add.Tensor(%cache, %x) : f32[3]
  %y = aten.mul.Tensor(%c, %n) : f32[3]
  return %y, %c {alias=%cache}
  writeback @count = %n
  writeback %cache = %c
}
constants { buffer @count : f32[] }
"""


@pytest.mark.parametrize("homes", [1, 2, 6], ids=lambda n: f"{n} caches in turn")
def test_what_is_written_is_written_once_a_call(recorder, homes):
    count = torch.zeros(())
    made = program(COUNTER, {"count": count})
    caches = [torch.zeros(3) for _ in range(homes)]
    sums = [torch.zeros(3) for _ in range(homes)]
    for number in range(30):
        x, at = torch.randn(3), number % homes
        sums[at] = sums[at] + x
        version = caches[at]._version, count._version
        y, c = made(x, caches[at])
        assert torch.equal(y, sums[at] * (number + 1))
        assert c is caches[at]
        assert torch.equal(c, sums[at])
        assert caches[at]._version > version[0]
        assert count._version > version[1]
    assert count == 30
    assert counts(made)[1] <= 2 * homes
    assert counts(made)[2] > 10


class Views(nn.Module):
    """Results of every kind: arguments, constants, views of these and of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.randn(6))

    def forward(self, x: Tensor, n: int) -> tuple:
        y = x * 2
        return x, x[1:], self.b[2:], y, y[0], y.t(), torch.ones(2).expand(3, 2), n, x.sum()


def test_results_alias_what_they_alias_without_graphs(recorder):
    model = Views().eval()
    made = rewright.compile(model, (torch.randn(4, 3), 5), cuda_graphs="auto")
    for _ in range(5):
        x = torch.randn(4, 3)
        base = torch.zeros(20)
        x = base[8:].view(4, 3).copy_(x)  # not at the start of its memory
        actual, expected = made(x, 5), model(x, 5)
        for a, e in zip(actual, expected, strict=True):
            assert torch.equal(a, e) if isinstance(e, Tensor) else a == e
            assert not isinstance(e, Tensor) or a.stride() == e.stride()
        assert actual[0] is x
        assert shares(actual[1], x)
        assert actual[1].data_ptr() == x[1:].data_ptr()
        assert shares(actual[2], model.b)
        assert shares(actual[3], actual[4])
        assert shares(actual[3], actual[5])
        actual[3].fill_(7)
        assert (actual[4] == 7).all()
        assert not shares(actual[3], x)
    assert counts(made)[2] == 3


def test_numbers_are_part_of_the_key(recorder):
    text = """
    graph @main(%x: f32[2], %a: float(f0)) -> f32[2] where f0 in {..} = %a {
      %y = aten.copysign.Scalar(%x, f0) : f32[2]
      return %y
    }
    """
    made = program(text)
    x = torch.ones(2)
    for _ in range(3):
        assert made(x, 0.0)[0].tolist() == [1, 1]
        assert made(x, -0.0)[0].tolist() == [-1, -1]
    assert counts(made) == (2, 2, 4, 2)


def test_no_more_graphs_are_kept_than_allowed_and_idle_ones_make_room(small):
    made = program(AFFINE)
    inputs = [torch.randn(rows, 3) for rows in (1, 2, 3, 4)]
    for _ in range(4):
        for x in inputs:
            made(x)
    assert counts(made)[1] == 2  # the others run plainly: nothing is recorded over and over
    assert counts(made)[3] == 2
    for _ in range(30):
        made(inputs[3])
    _, captures, replays, kept = counts(made)
    assert (captures, kept) == (3, 2)
    assert replays > 15
    assert small.firsts == [True, False, False]


def test_shapes_that_never_come_again_are_forgotten(small):
    made = program(AFFINE)
    for rows in range(1, 60):
        made(torch.randn(rows, 3))
    captor = made._built.graphs
    assert captor.clock == 59
    assert counts(made) == (59, 0, 0, 0)


def test_a_failed_recording_is_said_once_and_the_call_runs(recorder):
    made = program(AFFINE)
    w = made.graph.constants["w"].data
    x = torch.randn(2, 3)
    recorder.failures = [RuntimeError("operation not permitted\nwhen stream is capturing")] * 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            assert torch.equal(made(x)[0], x * w + 1)
    (warning,) = [item for item in caught if item.category is FallbackWarning]
    reason = "RuntimeError: operation not permitted when stream is capturing"
    assert reason in str(warning.message)
    assert rewright.stats().fallbacks == 1
    assert reason in rewright.stats().fallback_reasons[0]
    assert counts(made)[1:] == (0, 0, 0)
    assert reason in made.cuda_graphs.refusal
    assert "cuda graphs none: capturing failed" in made.report()


def test_a_recording_that_failed_by_chance_is_tried_again(recorder):
    made = program(AFFINE)
    x = torch.randn(2, 3)
    recorder.failures = [RuntimeError("another thread synchronized")]
    for _ in range(4):
        made(x)
    assert counts(made)[1] == 1
    assert rewright.stats().fallbacks == 0


def test_a_caller_who_records_gets_a_plain_run(recorder):
    made = program(AFFINE)
    x = torch.randn(2, 3)
    recorder.busy = True
    for _ in range(4):
        made(x)
    assert counts(made) == (0, 0, 0, 0)


def test_threads_take_turns(recorder):
    w = torch.randn(3)
    made = program(AFFINE, {"w": w})
    wrong = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for number in range(60):
            x = torch.randn(1 + (seed + number) % 3, 3, generator=generator)
            result = made(x)[0]
            if not torch.equal(result, x * w + 1):
                wrong.append((seed, number))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    runs, captures, replays, _ = counts(made)
    assert captures <= 6
    assert runs + replays == 480
    assert replays > 300


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
def test_a_graph_serves_calls_in_any_mode(recorder, mode):
    made = program(AFFINE)
    w = made.graph.constants["w"].data
    for _ in range(3):
        with mode():
            x = torch.randn(2, 3)
            assert torch.equal(made(x)[0], x * w + 1)
        x = torch.randn(2, 3)
        y = made(x)[0]
        assert torch.equal(y, x * w + 1)
        assert not y.is_inference()


def test_an_argument_that_is_written_to_may_have_more_homes():
    family = Family((Role(), Role(is_written=True), Role(is_constant=True), Role(is_tensor=False)))
    memory = [[torch.empty(1) for _ in range(3)] for _ in range(5)]
    for tensors in memory[:2]:
        family.note([*tensors, 7])
    assert family.moving == (0,)
    for tensors in memory[2:]:
        family.note([*tensors, 7])
    assert family.moving == (0, 1)
    assert family.key([*memory[4], 7]) == (memory[4][2].data_ptr(),)


# --------------------------------------------------------------------------- settings


def test_on_the_cpu_auto_does_nothing_and_on_is_an_error():
    model, x = nn.Linear(3, 3).eval(), torch.randn(2, 3)
    made = rewright.compile(model, (x,), cuda_graphs="auto")
    assert made.cuda_graphs is None
    assert "cuda graphs" not in made.report()
    with pytest.raises(SettingsError, match="cuda_graphs is 'on', but the program runs on cpu"):
        rewright.compile(model, (x,), cuda_graphs="on")
    compiled = torch.compile(model, backend="rewright", options={"cuda_graphs": "on"})
    with torch.no_grad(), pytest.raises(SettingsError, match="runs on cpu"):
        compiled(x)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cuda_graphs": "always"}, "'always' is not a legal value"),
        ({"cuda_graphs_kept": 4}, "cuda_graphs_kept is given, but cuda_graphs is 'off'"),
        ({"cuda_graphs": "on", "cuda_graphs_kept": 0}, "0 is not a legal value"),
        ({"cuda_graphs": "on", "target": "cpu"}, "cuda_graphs is 'on', but target is 'cpu'"),
        (
            {
                "cuda_graphs": "auto",
                "torch_backend": "inductor",
                "inductor_options": {"triton.cudagraphs": True},
            },
            "Inductor is to capture graphs, too",
        ),
    ],
)
def test_settings_that_contradict_each_other(given, said):
    with pytest.raises(SettingsError, match=said):
        Settings(**given)


def test_off_leaves_a_program_as_it_is():
    made = program(AFFINE)
    assert made.cuda_graphs is None
    assert Graphs.of(made.graph, Settings(), []) is None
    assert attrs.evolve(Settings(), cuda_graphs="auto").cuda_graphs_kept == 32
