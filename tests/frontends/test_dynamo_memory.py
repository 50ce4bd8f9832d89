"""What is compiled is let go, and so is what it was compiled from."""

import gc
import weakref

import torch

from tests.frontends.jit import Block, Stack, compiles, jit

X = torch.linspace(-2, 2, 32).reshape(4, 8)


def run(model: torch.nn.Module, graphs: int = 1) -> None:
    with torch.no_grad(), compiles(graphs):
        jit(model)(X.clone())


def collected(references: list[weakref.ref]) -> bool:
    gc.collect()
    return all(reference() is None for reference in references)


def test_reset_frees_programs():
    from rewright import compiler

    graphs: list[weakref.ref] = []
    original = compiler.compile_graph

    def spy(graph, *args, **keywords):
        program = original(graph, *args, **keywords)
        graphs.append(weakref.ref(program))
        return program

    compiler.compile_graph = spy
    try:
        model = Block().eval()
        run(model)
    finally:
        compiler.compile_graph = original
    gc.collect()
    assert len(graphs) == 1
    assert graphs[0]() is not None, "the model may be called again"
    torch.compiler.reset()
    assert collected(graphs)


def test_parameters_are_freed_with_their_model():
    """Bound at every call: a program that outlives a model keeps none of its weights."""
    keeper = Block().eval()
    run(keeper)
    model = Block().eval()
    run(model, graphs=0)
    parameters = [weakref.ref(value) for value in model.state_dict(keep_vars=True).values()]
    del model
    run(keeper, graphs=0)
    assert collected(parameters)


def test_example_inputs_are_not_kept():
    model = Block().eval()
    x = X.clone()
    with torch.no_grad():
        jit(model)(x)
    reference = [weakref.ref(x)]
    del x
    assert collected(reference)


def test_many_models_do_not_pile_up():
    gc.collect()
    for _ in range(3):
        run(Stack(2).eval())
        torch.compiler.reset()
    gc.collect()
    before = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    for _ in range(5):
        run(Stack(2).eval())
        torch.compiler.reset()
    gc.collect()
    after = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    assert after <= before + 5
