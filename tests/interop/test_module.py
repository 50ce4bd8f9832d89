"""A compiled program as a part of larger models."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import rewright
from rewright.errors import InputError, RewrightError, UnsupportedError


class Encoder(nn.Module):
    """Something with weights that fold, and a tied one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.tied = self.fc.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x)) @ self.tied


class Model(nn.Module):
    """A model around an encoder, compiled or not."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


SIZES = ({0: Dim("n", min=1, max=16)},)


@pytest.fixture
def encoder() -> nn.Module:
    return Encoder().eval()


@pytest.fixture
def program(encoder: nn.Module) -> rewright.CompiledProgram:
    return rewright.compile(encoder, (torch.randn(3, 4),), dynamic_shapes=SIZES)


def test_it_is_a_module_of_a_model(encoder, program):
    model = Model(program).eval()
    assert dict(model.named_children())["encoder"] is program
    x = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.equal(model(x), model.head(program(x)))
        torch.testing.assert_close(model(x), model.head(encoder(x)))
    assert [name for name, _ in model.named_parameters()] == ["head.weight", "head.bias"]
    assert not program.training
    assert nn.Sequential(program, model.head).eval()(x).shape == (5, 2)
    assert "CompiledProgram" in repr(model)


def test_its_state_dict_is_the_models_own(encoder, program):
    assert program.state_dict().keys() == encoder.state_dict().keys()
    for name, value in encoder.state_dict().items():
        assert torch.equal(program.state_dict()[name], value), name
    assert "encoder.fc.weight" in Model(program).state_dict()


def test_a_checkpoint_is_loaded_by_a_refit(program):
    other = Model(Encoder()).eval()
    model = Model(program).eval()
    model.load_state_dict(other.state_dict())
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), other(x))
    with torch.no_grad():
        other.encoder.fc.bias.zero_()
    assert model.encoder.state_dict()["fc.bias"].any(), "the program holds copies"


def test_a_checkpoint_that_does_not_fit(program):
    state = Model(Encoder()).state_dict()
    del state["encoder.fc.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*encoder\.fc\.bias"):
        Model(program).load_state_dict(state)
    state["encoder.fc.bias"] = torch.zeros(7)
    with pytest.raises(RuntimeError, match=r"the weight 'fc\.bias'"):
        Model(program).load_state_dict(state)
    state["encoder.fc.bias"], state["encoder.more"] = torch.zeros(4), torch.zeros(4)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*encoder\.more"):
        Model(program).load_state_dict(state)


class Rotary(nn.Module):
    """A buffer that state dicts have, and one that they leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("kept", torch.randn(4))
        self.register_buffer("made", torch.randn(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.kept + self.made


def test_buffers_that_are_not_persistent_are_in_no_state_dict(tmp_path):
    model = Rotary().eval()
    x, path = torch.randn(2, 4), tmp_path / "a.rw"
    program = rewright.compile(model, (x,))
    program.save(path)
    for made in (program, rewright.load(path)):
        assert made.state_dict().keys() == model.state_dict().keys()
        other = Rotary().eval()
        other.made = model.made
        made.load_state_dict(other.state_dict())
        torch.testing.assert_close(made(x), other(x))
        other.made = torch.zeros(4)
        made.refit({"made": other.made}, strict=False)
        torch.testing.assert_close(made(x), other(x))


def test_a_part_of_a_checkpoint_is_loaded_where_that_was_asked_for(encoder, program):
    bias = torch.randn(4)
    found = Model(program).load_state_dict({"encoder.fc.bias": bias}, strict=False)
    assert "encoder.norm.weight" in found.missing_keys
    with torch.no_grad():
        encoder.fc.bias.copy_(bias)
    x = torch.randn(3, 4)
    torch.testing.assert_close(program(x), encoder(x))


def test_a_checkpoint_of_meta_tensors(program):
    state = {name: data.to("meta") for name, data in program.state_dict().items()}
    with pytest.raises(RuntimeError, match="on meta, and the program needs"):
        program.load_state_dict(state)


def test_a_program_without_sources_and_checkpoints(encoder, program, tmp_path):
    program.save(tmp_path / "a.rw", sources=False)
    loaded = rewright.load(tmp_path / "a.rw")
    own = loaded.state_dict()
    assert own.keys() < program.state_dict().keys()
    x = torch.randn(3, 4)
    before = loaded(x)
    loaded.load_state_dict({name: data.clone() for name, data in own.items()})
    with pytest.raises(RuntimeError, match=r"saved without .* of its weights(.|\n)*hint: give"):
        loaded.load_state_dict({name: data + 1 for name, data in own.items()})
    assert torch.equal(loaded(x), before)
    other = Encoder().eval()
    loaded.load_state_dict(other.state_dict())
    torch.testing.assert_close(loaded(x), other(x))


def test_the_models_own_names_are_no_attributes(program):
    """Not silently so: functional_call would set them, and nothing would look at them."""
    assert not hasattr(program, "fc") and not hasattr(program, "nothing")
    with pytest.raises(AttributeError, match=r"no attribute 'fc': .*program\.refit\(state_dict\)"):
        program.fc  # noqa: B018
    x = torch.randn(3, 4)
    with pytest.raises(AttributeError) as caught:
        torch.func.functional_call(program, {"fc.bias": torch.zeros(4)}, (x,))
    assert "functional_call can't" in str(caught.value.__cause__)
    linear = rewright.compile(nn.Linear(4, 4).eval(), (x,))
    zeros = {name: torch.zeros_like(data) for name, data in linear.state_dict().items()}
    with pytest.raises(UnsupportedError, match=r"'weight' of .* can't be set(.|\n)*refit"):
        torch.func.functional_call(linear, zeros, (x,))
    assert linear(x).any()


def test_torchscript_can_not_read_it(program):
    with pytest.raises(UnsupportedError, match=r"(.|\n)*to_torchscript"):
        torch.jit.script(nn.Sequential(program))


def test_there_is_no_training_mode(program):
    model = Model(program)
    with pytest.raises(UnsupportedError, match="no training mode"):
        model.train()
    assert model.eval().encoder is program
    with pytest.raises(UnsupportedError, match="compiled already"):
        program.compile()


@pytest.mark.parametrize("change", [nn.Module.half, nn.Module.double, nn.Module.bfloat16])
def test_dtypes_stay(program, change):
    with pytest.raises(UnsupportedError, match=r"computes in torch\.float32") as caught:
        change(Model(program))
    assert caught.value.hint == "convert the model, and compile that"
    assert Model(program).float().encoder is program


def test_a_half_program_is_a_half_program():
    model = nn.Linear(4, 4).eval().bfloat16()
    made = rewright.compile(model, (torch.randn(2, 4, dtype=torch.bfloat16),))
    assert made.bfloat16() is made
    with pytest.raises(UnsupportedError, match=r"bfloat16.*torch\.float32"):
        made.float()


def test_it_keeps_its_data(program):
    with pytest.raises(UnsupportedError, match="can't do without its weights"):
        program.to("meta")
    assert program.to("cpu") is program
    assert program.cpu().share_memory() is program


def test_moving_needs_a_device(program):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises((RewrightError, AssertionError, RuntimeError)):
        Model(program).to("cuda")
    x = torch.randn(2, 4)
    assert program(x).device.type == "cpu"


@pytest.mark.gpu
def test_it_moves_to_a_gpu_and_back(encoder, program):
    model = Model(program).eval().to("cuda")
    assert model.encoder is program and program.graph.device == "cuda:0"
    x = torch.randn(5, 4)
    torch.testing.assert_close(program(x.cuda()).cpu(), encoder(x).detach())
    assert {value.device.type for value in model.state_dict().values()} == {"cuda"}
    with pytest.raises(InputError):
        program(x)
    model.cpu()
    assert torch.equal(program(x), encoder(x).detach())


def test_hooks_are_called(program):
    x, seen = torch.randn(5, 4), []
    expected = program(x)
    before = program.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    after = program.register_forward_hook(lambda module, args, result: seen.append(result))
    assert torch.equal(program(x / 2), expected)
    assert torch.equal(seen[0], expected)
    before.remove()
    after.remove()
    assert torch.equal(program(x), expected) and len(seen) == 1


def test_a_deep_copy_has_its_own_weights(encoder, program):
    x = torch.randn(5, 4)
    expected = program(x)
    model = Model(program).eval()
    other = copy.deepcopy(model)
    assert other.encoder is not program
    with torch.no_grad():
        encoder.fc.bias.zero_()
    program.refit()
    assert torch.equal(other.encoder(x), expected)
    assert not torch.equal(program(x), expected)


def test_a_pickle_is_refused(program):
    with pytest.raises(UnsupportedError, match="can't be pickled"):
        pickle.dumps(Model(program))


def test_several_programs_of_one_model_at_once(encoder):
    programs = [rewright.compile(encoder, (torch.randn(n, 4),)) for n in (1, 2, 3)]
    model = nn.ModuleList(programs)
    for n, made in enumerate(programs, 1):
        x = torch.randn(n, 4)
        torch.testing.assert_close(made(x), encoder(x).detach())
        with pytest.raises(InputError):
            made(torch.randn(n + 1, 4))
    assert len(model.state_dict()) == 3 * len(programs[0].state_dict())


def test_inference_mode_inside_and_out(encoder, program):
    x = torch.randn(5, 4)
    with torch.inference_mode():
        inside = program(x)
        assert inside.is_inference()
        program.refit(encoder.state_dict())
    assert torch.equal(program(x), inside)
    assert not program(x).is_inference()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert program(x).dtype == torch.float32


def _work(made: rewright.CompiledProgram, expected: list, calls: int, wrong: list) -> None:
    for number in range(calls):
        x, y = expected[number % len(expected)]
        if not torch.equal(made(x), y):
            wrong.append(x.shape)


def mixed_shapes(made: rewright.CompiledProgram, threads: int, calls: int) -> list:
    """The shapes of wrong results, of so many threads with so many calls each."""
    expected = [(x, made(x)) for x in (torch.randn(n, 4) for n in range(1, 17))]
    wrong: list = []
    workers = [
        threading.Thread(target=_work, args=(made, expected[number:] + expected, calls, wrong))
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong


def test_threads_with_mixed_shapes(program):
    before = rewright.stats()
    assert mixed_shapes(program, threads=8, calls=50) == []
    assert (rewright.stats() - before).graphs == 0, "nothing was compiled again"


@pytest.mark.slow
@pytest.mark.parametrize("torch_backend", ["eager", "inductor"])
def test_many_calls_from_many_threads_take_no_memory(encoder, torch_backend, record_property):
    made = rewright.compile(
        encoder, (torch.randn(3, 4),), dynamic_shapes=SIZES, torch_backend=torch_backend
    )
    assert mixed_shapes(made, threads=8, calls=1000) == []
    before = _resident()
    for _ in range(3):
        assert mixed_shapes(made, threads=8, calls=1000) == []
    grown = _resident() - before
    record_property("grown", grown)
    print(f"{torch_backend}: 24000 calls, {before} bytes resident before, grown by {grown}")
    assert grown < 4 << 20


def _resident() -> int:
    """The bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Noting(nn.Module):
    """Writes to a buffer; calls `also` as it is traced."""

    def __init__(self, also=lambda: None) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.also = also

    def forward(self, x: Tensor) -> Tensor:
        self.also()
        self.calls.add_(1)
        return self.fc(x)


def elsewhere(function):
    """What `function` returns in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_calls_while_another_thread_exports():
    """Torch's flag that something is exported is one for all threads."""
    x = torch.randn(2, 4)
    program = rewright.compile(Noting().eval(), (x,))
    expected, found = program(x), []

    def call() -> None:
        assert torch.compiler.is_compiling()
        found.append(elsewhere(lambda: program(x)))

    rewright.compile(Noting(call).eval(), (x,))
    assert found and all(torch.equal(item, expected) for item in found)


def test_threads_may_compile_at_once():
    models = [nn.Sequential(nn.Linear(4, 4), nn.GELU()).eval() for _ in range(4)]
    x = torch.randn(2, 4)
    with ThreadPoolExecutor(4) as pool:
        programs = [*pool.map(lambda model: rewright.compile(model, (x,)), models)]
        exported = [*pool.map(lambda program: program.to_exported_program(), programs)]
    for model, program, made in zip(models, programs, exported, strict=True):
        torch.testing.assert_close(program(x), model(x))
        torch.testing.assert_close(made.module()(x), program(x))


def test_a_device_that_is_not_here(program):
    with pytest.raises(RewrightError, match="can't go there"):
        program.to("xpu" if torch.cuda.is_available() else "cuda")


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


def test_what_is_made_in_inference_mode_runs_outside(tmp_path):
    made = rewright.compile(Counter(), (torch.zeros(2),))
    made.save(tmp_path / "counter.rw")
    with torch.inference_mode():
        copied, loaded = copy.deepcopy(made), rewright.load(tmp_path / "counter.rw")
        assert copied(torch.zeros(2)).tolist() == loaded(torch.zeros(2)).tolist() == [1, 1]
    assert copied(torch.zeros(2)).tolist() == loaded(torch.zeros(2)).tolist() == [2, 2]
