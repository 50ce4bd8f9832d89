"""A compiled program as a user meets it."""

import re
import sys
import threading
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import rewright
from rewright.errors import CompileError, InputError, SettingsError
from rewright.program import CompiledProgram


class Counter(nn.Module):
    """A layer that counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return torch.relu(self.fc(x)) + self.calls


def compiled(model: nn.Module, *args: Tensor, dynamic_shapes=None, **settings) -> CompiledProgram:
    exported = torch.export.export(model.eval(), args, dynamic_shapes=dynamic_shapes)
    before = rewright.stats()
    made = rewright.compile_exported(exported, **settings)
    done = rewright.stats() - before
    assert (done.graphs, done.fallbacks) == (1, 0)
    assert done.nodes > 0
    return made


def test_it_is_called_like_the_model():
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    made = compiled(model, torch.randn(3, 4))
    x = torch.randn(3, 4)
    y = made(x)
    assert torch.equal(y, model(x).detach())
    assert not y.requires_grad


def test_export_and_compile_in_one_call():
    model, x = nn.Linear(4, 2), torch.randn(3, 4)
    made = rewright.compile(model, (x,), dynamic_shapes=({0: Dim("n", min=1, max=8)},))
    x = torch.randn(8, 4)
    assert torch.equal(made(x), model(x).detach())


def test_buffers_are_those_of_the_exported_program():
    model = Counter().eval()
    exported = torch.export.export(model, (torch.randn(2, 4),))
    made = rewright.compile_exported(exported)
    x = torch.randn(2, 4)
    for _ in range(3):
        made(x)
    assert exported.state_dict["calls"].item() == 3
    assert model.calls.item() == 3, "torch.export keeps the model's own buffers"


def test_weights_are_never_copied():
    model = nn.Linear(64, 64)
    made = compiled(model, torch.randn(2, 64))
    held = made.graph.constants["weight"].data
    assert held.data_ptr() == model.weight.data_ptr()
    x = torch.randn(2, 64)
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(made(x), model.bias.detach().expand(2, 64))


def test_it_runs_in_every_mode():
    model = nn.Linear(4, 4)
    made = compiled(model, torch.randn(2, 4))
    x = torch.randn(2, 4)
    expected = model(x).detach()
    assert torch.equal(made(x), expected)
    with torch.no_grad():
        assert torch.equal(made(x), expected)
    with torch.inference_mode():
        assert torch.equal(made(x), expected)
        assert torch.equal(made(x.clone()), expected)


def test_autocast_around_a_call_changes_nothing():
    model = nn.Linear(4, 4)
    made = compiled(model, torch.randn(2, 4))
    x = torch.randn(2, 4)
    expected = made(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(x), expected)
        assert torch.is_autocast_enabled("cpu")
        with pytest.raises(InputError):
            made(x.double())
        assert torch.is_autocast_enabled("cpu")
        assert model(x).dtype == torch.bfloat16


def test_calls_from_many_threads():
    sizes = {0: Dim("n", min=1, max=64)}
    made = compiled(
        nn.Sequential(nn.Linear(4, 8), nn.Tanh()), torch.randn(3, 4), dynamic_shapes=(sizes,)
    )
    wrong: list[int] = []

    def work(number: int) -> None:
        x = torch.randn(number + 1, 4)
        expected = made(x)
        for _ in range(100):
            if not torch.equal(made(x), expected):
                wrong.append(number)
            try:
                made(x.double())
            except InputError:
                continue
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_program_is_freed_with_its_last_user():
    made = compiled(nn.Linear(4, 4), torch.randn(2, 4))
    made(torch.randn(2, 4))
    references = [weakref.ref(made), weakref.ref(made.graph)]
    import gc

    del made
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_what_a_program_says_of_itself():
    size = Dim("n", min=2, max=8)
    made = compiled(Counter(), torch.randn(3, 4), dynamic_shapes=({0: size},))
    report = made.report()
    assert "constants  3 weights (" in report and "prepared" not in report
    assert f"graph      {len(made.graph)} nodes, " in report
    assert "s0 in {" in report
    assert "torch (eager)" in report
    assert repr(made) == f"<CompiledProgram main: {len(made.graph)} nodes>"
    assert made.settings.torch_backend == "eager"
    assert "def forward(x):" in made.source
    assert [argument.name for argument in made.signature.arguments] == ["x"]


def test_settings_are_checked():
    exported = torch.export.export(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    with pytest.raises(SettingsError, match="torch_backnd") as caught:
        rewright.compile_exported(exported, torch_backnd="eager")
    assert caught.value.hint == "did you mean 'torch_backend'?"


def test_a_constant_without_data_is_refused():
    from rewright.compiler import compile_graph
    from rewright.ir.parser import parse_graph
    from rewright.ir.signature import Signature
    from rewright.settings import Settings

    text = "graph @main() -> f32[2] { return @w } constants { parameter @w : f32[2] }"
    with pytest.raises(CompileError, match="the constant @w has no data"):
        compile_graph(parse_graph(text), Signature(()), Settings())


@pytest.mark.slow
def test_inductor_computes_the_same():
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    sizes = {0: Dim("n", min=1, max=64)}
    made = compiled(model, torch.randn(3, 4), dynamic_shapes=(sizes,), torch_backend="inductor")
    assert "_compiled(" in made.source
    for size in (1, 2, 64):
        x = torch.randn(size, 4)
        torch.testing.assert_close(made(x), model(x).detach())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors take notes from Python 3.11 on")
def test_an_error_of_a_call_says_which_line_it_comes_from():
    class Words(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.embedding(input, self.weight) * 2

    rewright.compile(nn.ReLU().eval(), (torch.ones(3),))(torch.ones(3))  # of the same name
    program = rewright.compile(Words(10, 4).eval(), (torch.zeros(3, dtype=torch.long),))
    for _ in range(2):
        with pytest.raises(IndexError, match="out of range") as caught:
            program(torch.full((3,), 50))
        (note,) = caught.value.__notes__
        assert re.fullmatch(
            r"in main\.generated\.py:\d+: .*torch\.embedding\(.*\)  # .*test_program\.py:\d+", note
        )
