"""Compiled programs inside torch.compile and torch.export."""

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import rewright
from rewright.errors import CompileError, UnsupportedError
from rewright.interop.call import traceable


class Stateful(nn.Module):
    """Counts calls in a buffer, writes to an input, returns views and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, flag: bool = True, *, cache: dict[str, Tensor]) -> dict:
        self.calls.add_(1)
        cache["k"].mul_(2)
        y = self.fc(x) + self.calls
        return {
            "y": y,
            "transposed": y.t(),
            "same": x,
            "size": x.shape[0] * 2,
            "rest": x[:, 1:],
            "none": None,
        }


class Around(nn.Module):
    """Uses all that `Stateful` returns."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, k: Tensor) -> tuple:
        k = k * 1
        found = self.inner(x.relu(), cache={"k": k})
        again = self.inner(found["y"], cache={"k": k})
        return found["y"] * found["size"], found["rest"].sum(), k, again["transposed"] + 1


class Plain(nn.Module):
    """A derived size, and a convolution whose result is channels-last where the input is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[:, ::2]


class Noisy(nn.Module):
    """Draws random numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def stateful() -> tuple[rewright.CompiledProgram, nn.Module]:
    model = Stateful().eval()
    made = rewright.compile(
        model,
        (torch.randn(3, 4),),
        {"cache": {"k": torch.ones(3)}},
        dynamic_shapes={"x": {0: Dim("n", min=1, max=9)}, "cache": {"k": None}},
    )
    return made, model


@pytest.mark.parametrize(
    "backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_a_model_around_it_compiles_whole(backend):
    made, model = stateful()
    around = Around(made).eval()
    torch._dynamo.reset()
    fast = torch.compile(around, backend=backend, fullgraph=True, dynamic=True)
    k = torch.ones(3)
    with torch.no_grad():
        for size in (3, 5):
            x = torch.randn(size, 4)
            model.calls.fill_(7)
            expected = around(x, k)
            counted = model.calls.item()
            model.calls.fill_(7)
            got = fast(x, k)
            assert model.calls.item() == counted == 9, "each call counts once"
            torch.testing.assert_close(got, expected)
    assert torch.equal(k, torch.ones(3))


def test_one_operator_stands_for_it():
    made = rewright.compile(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    targets = []

    def backend(module, examples):
        targets.extend(str(n.target) for n in module.graph.nodes if n.op == "call_function")
        return module

    torch._dynamo.reset()
    fast = torch.compile(lambda x: made(x) * 2, backend=backend, fullgraph=True)
    x = torch.randn(2, 4)
    assert torch.equal(fast(x), made(x) * 2)
    assert sum("rewright.call" in target for target in targets) == 1
    assert not any("linear" in target for target in targets)


@pytest.mark.parametrize("model", ["plain", "random"])
def test_the_operator_keeps_torchs_rules(model):
    """Torch's own checks: schema, fake tensors against real ones, no aliases."""
    if model == "plain":
        module, x = Plain().eval(), torch.randn(2, 2, 8, 8)
        sizes = {0: Dim("n", min=1, max=9), 2: 2 * Dim("h", min=2, max=9)}
    else:
        module, x, sizes = Noisy().eval(), torch.randn(6, 4), {0: Dim("n", min=1, max=9)}
    made = rewright.compile(module, (x,), dynamic_shapes=(sizes,))
    graph, held = traceable(made)
    (call,) = [n for n in graph.graph.nodes if "rewright" in str(n.target)]
    name = str(call.target).split(".")[1]
    assert name == ("call_random" if model == "random" else "call")
    args = ([x], [], [], call.args[3])
    utils = ["test_schema", "test_faketensor"]
    torch.library.opcheck(call.target, args, test_utils=utils)
    assert held is not None


def test_channels_last_is_said_beforehand():
    model = Plain().eval()
    x = torch.randn(2, 2, 8, 8).contiguous(memory_format=torch.channels_last)
    made = rewright.compile(model, (x,))
    torch._dynamo.reset()
    fast = torch.compile(lambda x: made(x).relu(), backend="aot_eager", fullgraph=True)
    assert fast(x).stride() == made(x).relu().stride()


def test_a_program_that_is_gone():
    made = rewright.compile(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    graph, held = traceable(made)
    x = torch.randn(2, 4)
    assert torch.equal(graph(x), made(x))
    del held, made
    import gc

    gc.collect()
    with pytest.raises(CompileError, match="is gone"):
        graph(x)


def test_handles_tell_programs_apart():
    """Torch's cache of compiled code must not mistake one program for another."""

    def handle(program):
        graph, held = traceable(program)
        (call,) = [n for n in graph.graph.nodes if "rewright" in str(n.target)]
        return call.args[3], held

    x = torch.randn(2, 4)
    one, held = handle(rewright.compile(nn.Linear(4, 4).eval(), (x,)))
    same, kept = handle(rewright.compile(nn.Linear(4, 4).eval(), (x,)))
    other, also = handle(rewright.compile(nn.Linear(4, 5).eval(), (x,)))
    assert one.split("-")[0] == same.split("-")[0] != other.split("-")[0]
    assert one != same
    assert all([held, kept, also])


def test_gradients_are_refused_in_words():
    made = rewright.compile(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    torch._dynamo.reset()
    fast = torch.compile(lambda x: made(x * 2).sum(), backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="gradient"):
        fast(torch.randn(2, 4, requires_grad=True)).backward()


def test_a_model_around_it_is_exported_with_its_operators(tmp_path):
    program = rewright.compile(
        Plain().eval(), (torch.randn(2, 2, 8, 8),), dynamic_shapes=({0: Dim("n", min=1, max=9)},)
    )
    model = nn.Sequential(nn.ReLU(), program).eval()
    sizes = {"input": {0: Dim("n", min=1, max=9)}}
    exported = torch.export.export(model, (torch.randn(2, 2, 8, 8),), dynamic_shapes=sizes)
    assert "rewright" not in str(exported.graph)
    torch.export.save(exported, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    x = torch.randn(5, 2, 8, 8)
    assert torch.equal(loaded(x), model(x))
    with pytest.raises(UnsupportedError, match="strict=True"):
        torch.export.export(model, (torch.randn(2, 2, 8, 8),), strict=True)


def test_buffers_that_are_written_are_no_constants():
    made, _ = stateful()
    with pytest.raises(UnsupportedError, match=r"writes to buffers \(calls\)"):
        torch.export.export(Around(made).eval(), (torch.randn(3, 4), torch.ones(3)))


def test_numbers_that_only_a_run_tells():
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> tuple:
            return (x > 0).sum().item(), x.nonzero(), x.shape[0] * 2

    program = rewright.compile(
        Counting(), (torch.randn(6),), dynamic_shapes=({0: Dim("n", min=1, max=9)},)
    )
    call = torch.compile(lambda x: program(x), backend="aot_eager", fullgraph=True)
    for x in (torch.randn(6), torch.ones(5), -torch.ones(4)):
        count, places, double = call(x)
        assert (count, double) == (int((x > 0).sum()), len(x) * 2)
        assert torch.equal(places, x.nonzero())
