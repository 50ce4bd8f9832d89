"""One compiled graph, many parameters: what a JIT must not bake in."""

import copy
from collections.abc import Callable

import pytest
import torch

import rewright
from tests.frontends.jit import Block, Stack, compiles, jit, same

X = torch.linspace(-2, 2, 32).reshape(4, 8)


def agrees(compiled: torch.nn.Module, model: torch.nn.Module, x: torch.Tensor = X) -> None:
    with torch.no_grad():
        same(compiled(x), model(x))


def test_two_instances_of_one_class_share_a_graph():
    first, second = Block().eval(), Block().eval()
    with compiles(1):
        agrees(jit(first), first)
        agrees(jit(second), second)
        agrees(jit(first), first)


def test_repeated_blocks_compiled_one_by_one_share_a_graph():
    model = Stack().eval()
    eager = copy.deepcopy(model)
    for block in model.blocks:
        block.compile(backend="rewright", fullgraph=True, options={"on_error": "raise"})
    with compiles(1):
        agrees(model, eager)
    with compiles(0):
        agrees(model, eager, X + 1)


def test_compile_repeated_blocks_of_diffusers():
    from diffusers import ModelMixin

    class Model(Stack, ModelMixin):
        _repeated_blocks = ["Block"]  # noqa: RUF012 - as diffusers spells it

    model = Model().eval()
    eager = copy.deepcopy(model)
    model.compile_repeated_blocks(backend="rewright", fullgraph=True, options={"on_error": "raise"})
    with compiles(1):
        agrees(model, eager)


def replace_parameter(model: Block) -> None:
    model.fc.weight = torch.nn.Parameter(torch.randn(8, 8))


def swap_data(model: Block) -> None:
    model.fc.weight.data = torch.randn(8, 8)


def edit_in_place(model: Block) -> None:
    with torch.no_grad():
        model.fc.weight.mul_(-0.5)


def load_state(model: Block) -> None:
    model.load_state_dict(Block().state_dict())


def replace_buffer(model: Block) -> None:
    model.scale = torch.rand(8)


def replace_module(model: Block) -> None:
    model.fc = torch.nn.Linear(8, 8)


def tie(model: Block) -> None:
    model.norm.weight = model.norm.bias


CHANGES = [
    replace_parameter,
    swap_data,
    edit_in_place,
    load_state,
    replace_buffer,
    replace_module,
    tie,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("torch_backend", ["eager", "inductor"])
def test_a_change_between_calls_is_seen(change: Callable[[Block], None], torch_backend: str):
    model = Block().eval()
    compiled = jit(model, options={"torch_backend": torch_backend})
    with compiles():
        agrees(compiled, model)
        before = model(X).detach()
        change(model)
        agrees(compiled, model)
    assert not torch.allclose(model(X), before), "the change should matter"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_model_moved_to_another_dtype(dtype: torch.dtype):
    model = Block().eval()
    compiled = jit(model)
    with compiles(2):
        agrees(compiled, model)
        model.to(dtype)
        agrees(compiled, model, X.to(dtype))


def test_a_module_added_as_lora_does():
    class LoRA(torch.nn.Module):
        def __init__(self, base: torch.nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.down = torch.nn.Linear(8, 2, bias=False)
            self.up = torch.nn.Linear(2, 8, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + self.up(self.down(x))

    model = Block().eval()
    compiled = jit(model)
    with compiles(2):
        agrees(compiled, model)
        before = model(X).detach()
        model.fc = LoRA(model.fc)
        agrees(compiled, model)
    assert not torch.allclose(model(X), before)


def test_a_changed_python_number_recompiles():
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(8, 8)
            self.factor = 2.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) * self.factor

    model = Scaled().eval()
    compiled = jit(model)
    with compiles():
        for factor in (2.0, 3.0, -1.5):
            model.factor = factor
            agrees(compiled, model)


def test_parameters_are_sources_by_name_and_are_not_copied():
    """The program names them as the model does, so that dumps and messages read well."""
    from rewright import compiler

    seen = []
    original = compiler.compile_graph

    def spy(graph, *args, **keywords):
        seen.append(graph)
        return original(graph, *args, **keywords)

    model = Stack(1).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "compile_graph", spy)
        agrees(jit(model), model)
    (graph,) = seen
    assert set(graph.constants) == {f"blocks.0.{name}" for name in model.blocks[0].state_dict()}
    assert graph.constants["blocks.0.fc.weight"].kind == "parameter"
    assert graph.constants["blocks.0.scale"].kind == "buffer"
    assert all(constant.data is None for constant in graph.constants.values())
    assert rewright.stats().fallbacks == 0
