"""What goes wrong under torch.compile is said once, by us, in words that help."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import rewright
from rewright.errors import (
    CompileError,
    DetachedWarning,
    FallbackWarning,
    FrontendError,
    RewrightError,
    SettingsError,
    UnsupportedError,
)
from rewright.frontends import dynamo
from tests.frontends.jit import Block, jit, same

X = torch.linspace(-2, 2, 32).reshape(4, 8)


def raised(function, *args, error: type[RewrightError] = RewrightError, **keywords):
    with pytest.raises(error) as caught:
        jit(function, **keywords)(*args)
    return caught.value


# --------------------------------------------------------------------------- settings


def test_an_unknown_option_is_refused_with_the_nearest_name():
    error = raised(torch.sin, X, error=SettingsError, options={"torch_backnd": "eager"})
    assert str(error) == (
        "there is no setting 'torch_backnd'\n  hint: did you mean 'torch_backend'?"
    )


@pytest.mark.parametrize("on_error", ["eager", "raise"])
def test_settings_errors_are_raised_whatever_on_error_says(on_error: str):
    options = {"torch_backend": "fast", "on_error": on_error}
    error = raised(torch.sin, X, error=SettingsError, options=options)
    assert error.setting == "torch_backend"


def test_an_unknown_mode_is_refused():
    compiled = torch.compile(torch.sin, backend="rewright", mode="max-autotun")
    with pytest.raises(SettingsError, match="did you mean 'max-autotune'"):
        compiled(X)


def test_a_mode_and_options_exclude_each_other():
    graph = torch.fx.symbolic_trace(torch.nn.Identity())
    with pytest.raises(SettingsError, match="both given"):
        dynamo.rewright_backend(graph, [X], mode="max-autotune", options={"device": "cpu"})


def test_a_device_where_the_model_is_not():
    error = raised(torch.sin, X, error=SettingsError, options={"device": "cuda"})
    assert "the model and its inputs are on cpu" in str(error)
    with torch.no_grad():
        same(jit(torch.sin, options={"device": "cpu"})(X), X.sin())


def test_errors_pass_dynamo_as_themselves():
    error = raised(torch.sin, X, options={"nonsense": 1})
    assert type(error).__name__ == "SettingsError"
    assert isinstance(error, SettingsError)
    assert "BackendCompilerFailed" not in repr(error) + str(error)
    assert "TORCHDYNAMO" not in str(error)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is SettingsError
        assert str(other) == str(error)
        assert other.setting == "nonsense"


# --------------------------------------------------------------------------- refusals


def test_training_mode_is_refused_at_its_line():
    def function(x):
        return torch.nn.functional.dropout(x, 0.5, training=True)

    error = raised(function, X, error=UnsupportedError)
    assert "training mode" in str(error)
    assert "test_dynamo_errors.py" in error.where
    assert "model.eval()" in error.hint


def test_batch_statistics_are_refused_with_their_module():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.BatchNorm1d(8)])

        def forward(self, x):
            return self.layers[0](x * 2)

    with torch.no_grad():
        error = raised(Model(), X, error=UnsupportedError)
    assert "batch statistics" in str(error)
    assert "layers.0" in error.where


@torch.library.custom_op("rewright_test::no_fake", mutates_args=())
def no_fake(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


NESTED = torch.nested.nested_tensor([torch.ones(2, 8), torch.ones(3, 8)])


@pytest.mark.parametrize(
    ("function", "argument", "named"),
    [
        (lambda x: no_fake(x), X, "no_fake.register_fake"),
        (lambda x: x * 2, X.to_sparse(), "does not support sparse Tensors"),
        (lambda x: x * 2, NESTED, "does not support strided NestedTensor"),
    ],
    ids=["no fake implementation", "sparse", "nested"],
)
def test_what_dynamo_refuses_before_a_backend_is_asked(function, argument, named: str):
    """Then the error is Dynamo's own, which says what and at which line."""
    with pytest.raises(torch._dynamo.exc.TorchDynamoException, match=named) as caught:
        jit(function)(argument)
    assert "test_dynamo_errors.py" in str(caught.value)
    assert rewright.stats().graphs == 0


@pytest.mark.parametrize("argument", [X.to_sparse(), NESTED], ids=["sparse", "nested"])
def test_what_dynamo_refuses_runs_in_eager_where_graphs_may_break(argument):
    with torch.no_grad():
        found = jit(lambda x: x * 2, fullgraph=False)(argument)
    assert found.layout == argument.layout
    assert rewright.stats().graphs == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.func.grad(lambda y: (y * y).sum())(x) + 1,
        lambda x: torch.func.vjp(torch.sin, x)[1](x)[0],
        lambda x: torch.func.jacrev(torch.sin)(x[0]),
    ],
    ids=["grad", "vjp", "jacrev"],
)
def test_gradients_inside_a_model_are_refused(function):
    with torch.no_grad():
        error = raised(function, X, error=UnsupportedError)
    assert error.message == (
        "a torch.func transform can't be compiled: it computes a gradient (grad, vjp, jacrev), "
        "and compiled graphs have no backward"
    )
    assert "test_dynamo_errors.py" in error.where
    assert "@torch.compiler.disable" in error.hint


def test_an_operator_that_torch_cant_trace_names_the_line(monkeypatch: pytest.MonkeyPatch):
    from rewright.frontends import compat

    def broken(self, target, args, kwargs):
        raise NotImplementedError("no meta kernel\nand more")

    monkeypatch.setattr(compat._Retracer, "call_function", broken)
    error = raised(lambda x: x.sin() + 1, X, error=FrontendError)
    assert error.message == (
        "torch could not trace this on fake tensors: NotImplementedError: no meta kernel"
    )
    assert "test_dynamo_errors.py" in error.where


def test_nested_tensors_are_refused():
    parts = [torch.ones(2, 8), torch.ones(3, 8)]
    nested = torch.nested.nested_tensor(parts, layout=torch.jagged)
    error = raised(lambda x: x * 2, nested, error=UnsupportedError)
    assert "the input x is a nested tensor" in str(error)


def test_sparse_tensors_are_refused():
    graph = torch.fx.symbolic_trace(torch.nn.Identity())
    with pytest.raises(UnsupportedError, match="the input input_1 is a sparse tensor"):
        dynamo.rewright_backend(graph, [X.to_sparse()], options={"on_error": "raise"})


def test_tensor_classes_are_refused():
    from torch.testing._internal.two_tensor import TwoTensor

    error = raised(lambda x: x * 2, TwoTensor(X, X), error=UnsupportedError)
    assert "the input x is a TwoTensor" in str(error)
    assert error.hint == "pass a plain torch.Tensor"


def test_distributed_tensors_are_refused(tmp_path):
    dist = pytest.importorskip("torch.distributed")
    from torch.distributed.tensor import DTensor, init_device_mesh

    dist.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path}/store")
    try:
        tensor = DTensor.from_local(X, init_device_mesh("cpu", (1,)))
        error = raised(lambda x: x * 2, tensor, error=UnsupportedError)
    finally:
        dist.destroy_process_group()
    assert "the input x is a DTensor" in str(error)
    assert "to_local" in error.hint


def test_tensors_inside_a_transform_are_refused():
    graph = torch.fx.symbolic_trace(torch.nn.Identity())
    with pytest.raises(UnsupportedError, match=r"input_1 is inside a torch\.func transform"):
        torch.vmap(lambda x: dynamo.rewright_backend(graph, [x], options={"on_error": "raise"}))(X)


# --------------------------------------------------------------------------- gradients


@pytest.fixture
def _not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamo._warned.clear()


def test_inputs_that_require_grad_are_refused():
    error = raised(lambda x: x * 2, X.clone().requires_grad_(), error=UnsupportedError)
    assert str(error) == (
        "the input x requires grad, and compiled graphs have no backward\n"
        "  hint: call the model under torch.no_grad(), or pass x.detach()"
    )


def test_inputs_that_require_grad_are_fine_without_gradients():
    x = X.clone().requires_grad_()
    with torch.no_grad():
        found = jit(lambda x: x * 2)(x)
    same(found, X * 2)


@pytest.mark.usefixtures("_not_warned")
def test_trainable_parameters_warn_once_and_outputs_are_detached():
    model = Block().eval()
    with pytest.warns(DetachedWarning, match="norm.weight and 3 more can be trained"):
        found = jit(model)(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jit(Block(16).eval())(torch.ones(1, 16))
    assert not found.requires_grad
    assert rewright.stats().fallbacks == 0
    same(found, model(X).detach())


@pytest.mark.usefixtures("_not_warned")
@pytest.mark.parametrize("decorated", [True, False])
def test_no_warning_where_there_are_no_gradients(decorated: bool):
    model = Block().eval()
    compiled = jit(torch.no_grad()(lambda x: model(x))) if decorated else jit(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if decorated:
            compiled(X)
        else:
            with torch.no_grad():
                compiled(X)


# --------------------------------------------------------------------------- falling back


def drops(x):
    y = x * 2
    return torch.nn.functional.dropout(y, 0.5, training=True)


def test_on_error_eager_warns_once_and_runs_the_graph():
    compiled = torch.compile(drops, backend="rewright")  # eager is the default
    with pytest.warns(FallbackWarning, match=r"aten\.dropout(.|\n)*test_dynamo_errors\.py"):
        compiled(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.manual_seed(0)
        found = compiled(X)
    torch.manual_seed(0)
    same(found, drops(X))
    done = rewright.stats()
    assert done.fallbacks == 1
    assert "aten.dropout" in done.fallback_reasons[0]
    assert "\n" not in done.fallback_reasons[0]


def test_a_graph_that_falls_back_has_gradients():
    compiled = torch.compile(lambda x: x * 2, backend="rewright")
    x = X.clone().requires_grad_()
    with pytest.warns(FallbackWarning, match="requires grad"):
        compiled(x).sum().backward()
    same(x.grad, torch.full_like(X, 2))


def test_bugs_of_ours_are_called_so(monkeypatch: pytest.MonkeyPatch):
    def broken(*args, **keywords):
        raise KeyError("oops")

    monkeypatch.setattr(dynamo, "import_fx", broken)
    error = raised(torch.sin, X, error=CompileError)
    assert "internal error while compiling: KeyError: 'oops'" in str(error)
    with pytest.warns(FallbackWarning, match="internal error"):
        same(jit(torch.sin, options={"on_error": "eager"})(X), X.sin())
    assert rewright.stats().fallbacks == 1
