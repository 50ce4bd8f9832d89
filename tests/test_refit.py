"""Weights that change under a compiled program: refit, and what is noticed without it."""

import copy
import gc
import threading
import warnings
import weakref

import pytest
import torch
from torch import Tensor, nn

import rewright
from rewright.errors import EngineError, InputError, StaleWeightsWarning, UnsupportedError
from rewright.program import CompiledProgram

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Net(nn.Module):
    """A convolution that its norm is folded into, and a linear layer that is held as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("scale", torch.rand(2), persistent=False)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3))) * self.scale


def compiled(model: nn.Module, *args: Tensor, **settings) -> CompiledProgram:
    """`model` compiled at level 2, on its own weights."""
    exported = torch.export.export(model.eval(), args or (X,))
    return rewright.compile_exported(exported, **{"optimization_level": 2, **settings})


def agrees(program: CompiledProgram, model: nn.Module, x: Tensor = X) -> None:
    """That both compute the same, without a warning and with nothing in eager mode."""
    before = rewright.stats()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(program(x), model(x))
    assert (rewright.stats() - before).fallbacks == 0


@pytest.fixture
def pair() -> tuple[CompiledProgram, Net]:
    """A program, and another model of the same class."""
    torch.manual_seed(0)
    program = compiled(Net())
    assert any(not c.is_source for c in program.graph.constants.values()), "the norm is folded"
    other = Net().eval()
    other.scale = next(c.data for n, c in program.graph.constants.items() if n == "scale")
    return program, other


# --------------------------------------------------------------------------- other weights


@pytest.mark.parametrize(
    "torch_backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_the_weights_of_another_model(torch_backend: str):
    program = compiled(first := Net().eval(), torch_backend=torch_backend)
    second = Net().eval()
    second.scale = first.scale
    agrees(program, first)
    program.refit(second.state_dict())
    agrees(program, second)
    assert not torch.allclose(program(X), first(X))
    program.refit(first.state_dict())
    agrees(program, first)


@pytest.mark.slow
def test_other_strides_under_inductor():
    program = compiled(Net(), torch_backend="inductor")
    given = {name: value.clone() for name, value in Net().state_dict().items()}
    given["fc.weight"] = given["fc.weight"].t().contiguous().t()
    program.refit(given)
    expected = Net().eval()
    expected.load_state_dict(given)
    expected.scale = program.graph.constants["scale"].data
    agrees(program, expected)


def test_tensors_are_held_and_not_copied(pair):
    program, other = pair
    program.refit(other.state_dict())
    with torch.no_grad():
        other.fc.bias.add_(1)
    agrees(program, other)
    assert program.graph.constants["fc.weight"].data.data_ptr() == other.fc.weight.data_ptr()


def test_nothing_of_the_old_weights_is_kept(pair):
    program, other = pair
    old = [weakref.ref(program.graph.constants[n].data) for n in ("conv.weight", "fc.weight")]
    program.refit(other.state_dict())
    gc.collect()
    assert [reference() for reference in old] == [None, None]


def test_some_of_the_weights(pair):
    program, other = pair
    state = {n: c.data.clone() for n, c in program.graph.constants.items() if c.is_source}
    some = {"norm.bias": torch.ones(4), "scale": torch.ones(2)}
    with pytest.raises(InputError, match=r"the parameter 'conv.weight' and 4 more are not given"):
        program.refit(some)
    program.refit(some, strict=False)
    other.load_state_dict({**state, **some}, strict=False)
    other.scale = some["scale"]
    agrees(program, other)


def wrong(**change: Tensor | object) -> dict[str, object]:
    """A state dict in which some entries are others."""
    return {**Net().state_dict(), **{name.replace("_", "."): v for name, v in change.items()}}


REFUSED = {
    "unknown": ({"norm.wieght": torch.ones(4)}, r"no weight 'norm.wieght'", "'norm.weight'"),
    "shape": (wrong(fc_bias=torch.ones(3)), r"'fc.bias' is f32\[3\] on cpu, .* f32\[2\]", None),
    "dtype": (wrong(fc_bias=torch.ones(2).double()), r"is f64\[2\] on cpu", ".to(torch.float32)"),
    "device": (wrong(fc_bias=torch.ones(2, device="meta")), "on meta, .* on cpu", ".to('cpu')"),
    "kind": (wrong(fc_bias=[1.0, 2.0]), "'fc.bias' is a list, not a tensor", None),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("strict", [True, False])
def test_what_does_not_fit_is_refused_and_changes_nothing(pair, case: str, strict: bool):
    program, _ = pair
    given, message, hint = REFUSED[case]
    before = program(X)
    with pytest.raises(InputError, match=message) as caught:
        program.refit(given, strict=strict)
    assert caught.value.name in given
    assert hint is None or hint in caught.value.hint
    assert torch.equal(program(X), before)


def test_a_source_that_was_left_out_must_be_given(pair):
    """As in a program that was loaded without what its constants were prepared from."""
    program, other = pair
    graph, given = program.graph, other.state_dict()
    graph.constants["norm.weight"].data = None
    for state in (None, {"fc.bias": given["fc.bias"]}):
        with pytest.raises(InputError, match=r"no data of the weight 'norm.weight'"):
            program.refit(state, strict=False)
    program.refit(given)
    agrees(program, other)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.down.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


def test_tied_weights_are_one():
    x, other = torch.randn(2, 4), Tied().eval()
    program = compiled(Tied(), x)
    program.refit(other.state_dict())
    agrees(program, other, x)
    program.refit({"down.weight": torch.ones(4, 4)})
    with torch.no_grad():
        other.up.weight.fill_(1)
    agrees(program, other, x)
    apart = {"up.weight": torch.ones(4, 4), "down.weight": torch.zeros(4, 4)}
    with pytest.raises(InputError, match=r"'up.weight' and 'down.weight' are one"):
        program.refit(apart)


class Counter(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.fc(x) + self.calls


def test_a_buffer_that_is_written_to_is_the_programs_own():
    x, given = torch.randn(2, 4), Counter().state_dict()
    given["calls"] += 10
    program = compiled(Counter(), x)
    program(x)
    program.refit(given)
    for calls in (11, 12):
        expected = nn.functional.linear(x, given["fc.weight"], given["fc.bias"]) + calls
        torch.testing.assert_close(program(x), expected)
    assert given["calls"] == 10
    program.refit()
    torch.testing.assert_close(program(x), expected + 1)


def test_in_inference_mode(pair):
    program, other = pair
    with torch.inference_mode():
        program.refit(other.state_dict())
    agrees(program, other)
    with torch.inference_mode():
        given = {name: value.clone() * 2 for name, value in other.state_dict().items()}
        program.refit(given)
    other.load_state_dict(given)
    agrees(program, other)


# --------------------------------------------------------------------------- edits in place


def test_an_edit_in_place_is_noticed_once_and_taken_over_by_refit():
    model = Net().eval()
    program = compiled(model)
    agrees(program, model)
    before = program(X)
    with torch.no_grad():
        model.norm.weight.mul_(2)
        model.conv.bias.add_(1)
    with pytest.warns(StaleWeightsWarning, match=r"conv.bias and 1 more were edited") as caught:
        assert torch.equal(program(X), before), "what is folded holds"
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(X)
    program.refit()
    agrees(program, model)
    nn.init.zeros_(model.norm.weight)
    with pytest.warns(StaleWeightsWarning, match=r"norm.weight was edited"):
        program(X)


def test_an_edit_of_what_is_not_folded_shows_at_once():
    model = Net().eval()
    program = compiled(model)
    with torch.no_grad():
        model.fc.weight.mul_(-1)
    agrees(program, model)


def test_a_program_without_folded_weights_sees_every_edit():
    model = Net().eval()
    program = compiled(model, optimization_level=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    agrees(program, model)


# --------------------------------------------------------------------------- threads, failures


def test_calls_in_flight_see_old_weights_or_new_ones(pair):
    program, other = pair
    states = [{n: c.data for n, c in program.graph.constants.items() if c.is_source}]
    states.append({**other.state_dict(), "scale": torch.full((2,), 5.0)})
    legal = []
    for state in states:
        program.refit(state)
        legal.append(program(X))
    assert not torch.allclose(*legal)
    stop, wrong_results, calls = threading.Event(), [], [0] * 3

    def work(number: int) -> None:
        while not stop.is_set():
            found = program(X)
            calls[number] += 1
            if not any(torch.equal(found, item) for item in legal):
                wrong_results.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(100):
        program.refit(states[turn % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong_results
    assert all(calls)


def test_parameters_that_are_arguments_are_not_refitted():
    from tests.backends.torch.programs import program as build

    text = """
    graph @main(%x: f32[3]) -> f32[3] {
      %y = aten.mul.Tensor(%x, @e) : f32[3]
      return %y
    }
    constants { parameter @w : f32[3] }
    prepare { @e = aten.exp(@w) : f32[3] }
    """
    built = build(text, late=("w",))
    with pytest.raises(UnsupportedError, match="takes its parameters as arguments"):
        built.refit()


# --------------------------------------------------------------------------- engines


@pytest.fixture
def in_engine(tmp_path, monkeypatch) -> tuple[CompiledProgram, Net]:
    """A program of one segment, whose engine has been built without a GPU; and its model."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("REWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("REWRIGHT_CACHE_SIZE", "1GiB")
    model = Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rewright.errors.FallbackWarning)
        program = compiled(model, target="rtx", min_block_size=1)
    return program, model


def test_engines_are_made_again(in_engine):
    from rewright.testing import evaluate

    program, model = in_engine
    (segment,) = program.segments
    first = segment.engine
    other = Net().eval()
    other.scale = model.scale
    program.refit(other.state_dict())
    assert segment.engine is not first
    assert segment.engine.data != first.data
    with torch.no_grad():
        torch.testing.assert_close(evaluate(program, X), other(X))
        torch.testing.assert_close(program(X), other(X))
    before = rewright.stats()
    program.refit(model.state_dict())
    assert (rewright.stats() - before).cache_hits == 1, "an engine for these weights is at hand"
    assert segment.engine.data == first.data


def test_an_engine_that_can_not_run_changes_nothing(in_engine):
    program, model = in_engine
    (segment,) = program.segments
    engine = segment.engine

    def fail(*_: object) -> None:
        raise EngineError("no room")

    segment.load, segment.on_engine_error = fail, "raise"
    with pytest.raises(EngineError, match="no room"):
        program.refit(Net().state_dict())
    assert segment.engine is engine
    with torch.no_grad():
        torch.testing.assert_close(program(X), model(X))
    assert program.graph.constants["fc.weight"].data.data_ptr() == model.fc.weight.data_ptr()


def test_what_is_no_state_dict(pair):
    program, _ = pair
    with pytest.raises(InputError, match="refit takes tensors by name, not a list"):
        program.refit([torch.zeros(2)])
    with pytest.raises(InputError, match="has no weight 3"):
        program.refit({3: torch.zeros(2)})


def test_copies_and_files_have_old_weights_or_new_ones(pair, tmp_path):
    program, other = pair
    states = [{n: t.clone() for n, t in held.state_dict().items()} for held in (program, other)]
    program.refit(states[1], strict=False)
    right = [program(X)]
    program.refit(states[0], strict=False)
    right.append(program(X))
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for state in states:
                program.refit(state, strict=False)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for number in range(15):
            program.save(tmp_path / f"{number}.rw")
            loaded = rewright.load(tmp_path / f"{number}.rw", verify=False)
            for made in (loaded, copy.deepcopy(program)):
                assert any(torch.allclose(made(X), result) for result in right)
    finally:
        done.set()
        thread.join()
