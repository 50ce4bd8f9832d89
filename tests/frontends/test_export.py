"""compile_exported: structures, scalars, dynamic sizes, control flow, constants."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.testing._internal.two_tensor import TwoTensor

import rewright
from rewright import Input
from rewright.errors import (
    CompileError,
    FrontendError,
    InputError,
    SettingsError,
    UnsupportedError,
)
from rewright.frontends.export_log import torch_log_kept
from rewright.interop import formats

from .checks import compare_call, export_and_compare, fresh

AUTO = Dim.AUTO


def module_of(function, **members):
    """A module whose forward is `function`, called with the module first."""

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in members.items():
                if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                    self.register_buffer(name, value)
                else:
                    setattr(self, name, value)

    Wrapped.forward = function
    return Wrapped()


# --------------------------------------------------------------------------- structure


def test_nested_arguments_and_results():
    def forward(self, pair, options, *, scale, extra=None):
        a, (b, c) = pair
        return {"sum": a + b * scale["s"], "rest": [c, (options["k"] - 1, None)], "n": 3}

    a, b, c = torch.randn(3), torch.randn(3), torch.randn(2)
    program = export_and_compare(
        module_of(forward),
        ((a, (b, c)), {"k": torch.randn(2), "unused": torch.randn(1)}),
        kwargs={"scale": {"s": torch.tensor(2.0)}, "extra": None},
    )
    assert [argument.name for argument in program.signature.arguments[:3]] == [
        "pair[0]",
        "pair[1][0]",
        "pair[1][1]",
    ]


def test_arguments_by_position_and_by_keyword():
    module = module_of(lambda self, x, y, mask=None: x * 2 + y if mask is None else x + mask)
    module.forward = lambda x, y, mask=None: x * 2 + y if mask is None else x + mask
    x, y = torch.randn(3), torch.randn(3)
    program = rewright.compile_exported(torch.export.export(module, (x, y)))
    expected = x * 2 + y
    torch.testing.assert_close(program(x, y), expected)
    torch.testing.assert_close(program(x, y=y), expected)
    torch.testing.assert_close(program(y=y, x=x), expected)


@dataclass
class Output:
    """A user's own result class, known to pytree."""

    first: torch.Tensor
    second: torch.Tensor


torch.export.register_dataclass(Output, serialized_type_name="tests.frontends.test_export.Output")


def test_results_of_a_users_class():
    module = module_of(lambda self, x: Output(x + 1, x * 2))
    x = torch.randn(3)
    program = rewright.compile_exported(torch.export.export(module, (x,)))
    result = program(x)
    assert isinstance(result, Output)
    torch.testing.assert_close(result.second, x * 2)


def test_scalars_none_and_constants_as_inputs_and_outputs():
    def forward(self, x, n, f, flag, text, nothing):
        assert text == "mean"
        y = x * n + f if flag else x
        return y, n, f, None, x.shape[0], x.shape[0] * 2 + 1, self.table

    module = module_of(forward, table=torch.arange(3.0))
    args = (torch.randn(4, 2), 3, 0.5, True, "mean", None)
    export_and_compare(
        module,
        args,
        (torch.randn(7, 2), *args[1:]),
        dynamic_shapes=({0: AUTO}, None, None, None, None, None),
    )


def test_a_literal_must_stay_what_it_was():
    module = module_of(lambda self, x, n: x * n)
    program = rewright.compile_exported(torch.export.export(module, (torch.ones(2), 3)))
    with pytest.raises(InputError, match=r"n.*3"):
        program(torch.ones(2), 4)


def test_symbolic_integer_input():
    def forward(self, x, n):
        return x[:, :n] * n

    export_and_compare(
        module_of(forward),
        (torch.randn(4, 8), 3),
        (torch.randn(4, 8), 5),
        dynamic_shapes=(None, Dim.DYNAMIC),
    )


def test_empty_result_and_no_tensors():
    export_and_compare(module_of(lambda self, x: [x[1:]]), (torch.ones(1),))
    export_and_compare(module_of(lambda self, x: (x.new_zeros(0, 3), x[:0])), (torch.ones(2),))


# --------------------------------------------------------------------------- constants


def test_tied_weights_are_one_constant():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids))

    program = export_and_compare(Tied(), (torch.tensor([[1, 2, 3]]),))
    assert len(program.graph.constants) == 1


def test_sources_are_not_copied():
    module = nn.Linear(8, 8)
    exported = torch.export.export(module, (torch.randn(2, 8),))
    program = rewright.compile_exported(exported)
    weight = program.graph.constants["weight"].data
    assert weight.data_ptr() == module.weight.data_ptr()
    with torch.no_grad():
        module.weight.zero_()
        module.bias.fill_(3.0)
    torch.testing.assert_close(program(torch.randn(2, 8)), torch.full((2, 8), 3.0))


def test_lifted_and_non_persistent_constants():
    class Lifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.full((3,), 2.0), persistent=False)
            self.plain = torch.tensor([1.0, 2.0, 3.0])

        def forward(self, x):
            return x * self.scale + self.plain + torch.tensor([5.0, 6.0, 7.0])

    export_and_compare(Lifted(), (torch.randn(2, 3),))


# --------------------------------------------------------------------------- sizes


def test_derived_sizes():
    s = Dim("s", min=2, max=16)
    module = module_of(lambda self, x, y: x.sum() + y[1:].view(-1, 2).sum(1))
    program = export_and_compare(
        module,
        (torch.randn(4), torch.randn(9)),
        (torch.randn(7), torch.randn(15)),
        dynamic_shapes=({0: s}, {0: 2 * s + 1}),
    )
    with pytest.raises(InputError, match="y"):
        program(torch.randn(4), torch.randn(8))
    with pytest.raises(InputError):
        program(torch.randn(4), torch.randn(11))


def test_a_size_that_only_a_derived_dimension_gives():
    s = Dim("s", min=1, max=16)
    module = module_of(lambda self, y: y[1:].reshape(-1, 2) * y.shape[0])
    program = export_and_compare(
        module, (torch.randn(9),), (torch.randn(21),), dynamic_shapes=({0: 2 * s + 1},)
    )
    with pytest.raises(InputError, match=r"2\*s0 \+ 1"):
        program(torch.randn(8))


def test_sizes_outside_their_range_are_refused_by_name():
    batch = Dim("batch", min=2, max=8)
    module = module_of(lambda self, x: x * 2)
    program = export_and_compare(module, (torch.randn(4, 3),), dynamic_shapes=({0: batch},))
    with pytest.raises(InputError, match=r"dimension 0 of x.*9.*8"):
        program(torch.randn(9, 3))


@pytest.mark.parametrize(
    ("dim", "taken", "refused"),
    [
        (Dim.AUTO, [1, 2, 3, 50], [0]),
        (Dim.DYNAMIC, [1, 2, 3, 50], [0]),
        (Dim("b"), [1, 2, 3, 50], [0]),
        (Dim("b", max=8), [1, 2, 8], [0, 9]),
        (Dim("b", min=1, max=8), [1, 2, 8], [0, 9]),
        (Dim("b", min=2, max=8), [1, 2, 8], [0, 9]),
        (Dim("b", min=3, max=8), [3, 8], [0, 1, 2, 9]),
        (Dim("b", min=4), [4, 50], [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_the_least_size(dim, taken, refused):
    program = export_and_compare(
        module_of(lambda self, x: torch.softmax(x * 2, 0).sum(1)),
        (torch.randn(4, 3),),
        *[(torch.randn(size, 3),) for size in taken],
        dynamic_shapes=({0: dim},),
        on_error="raise",
    )
    for size in refused:
        with pytest.raises(InputError, match=f"dimension 0 of x is {size}, outside of its range"):
            program(torch.randn(size, 3))


def test_size_zero_is_taken_where_it_is_asked_for():
    module = module_of(lambda self, x: (x * 2).sum(1))
    exported = torch.export.export(module, (torch.randn(4, 3),), dynamic_shapes=({0: AUTO},))
    before = rewright.stats()
    program = rewright.compile_exported(exported, on_error="raise")
    with pytest.raises(InputError, match=r"(?s)dimension 0 of x is 0.*1 to inf.*Input\(min="):
        program(torch.randn(0, 3))
    program = rewright.compile_exported(
        exported, [Input(min=(0, 3), opt=(4, 3), max=(8, 3))], on_error="raise"
    )
    for size in (0, 1, 2, 8):
        compare_call(program, module, (torch.randn(size, 3),), {})
    with pytest.raises(InputError, match=r"dimension 0 of x is 9.*0 to 8"):
        program(torch.randn(9, 3))
    done = rewright.stats() - before
    assert (done.graphs, done.fallbacks, done.nodes) == (2, 0, 4)


@pytest.mark.parametrize("least", [0, 1, 3])
def test_an_input_cannot_go_below_what_was_exported(least):
    module = module_of(lambda self, x: x * 2)
    dim = Dim("b", min=4, max=8)
    exported = torch.export.export(module, (torch.randn(5, 3),), dynamic_shapes=({0: dim},))
    with pytest.raises(InputError, match=f"was exported for 4 to 8, not {least}"):
        rewright.compile_exported(exported, [Input(min=(least, 3), max=(8, 3))])


def test_size_one_and_rest_of_the_range():
    batch, length = Dim("batch", min=1, max=8), Dim("length", min=1, max=32)
    module = module_of(
        lambda self, x: torch.softmax(x @ x.transpose(1, 2), -1).reshape(x.shape[0], -1)
    )
    shapes = [(2, 5, 3), (1, 1, 3), (8, 32, 3), (1, 32, 3), (8, 1, 3)]
    export_and_compare(
        module,
        *[(torch.randn(shape),) for shape in shapes],
        dynamic_shapes=({0: batch, 1: length},),
    )


def test_data_dependent_sizes():
    def forward(self, x):
        n = x.to(torch.int64).abs().max().item()
        torch._check(n >= 0)
        torch._check(n < 100)
        kept = torch.nonzero(x > 0)
        return kept, torch.zeros(n) + 1, x[x > 0].sum(), n

    export_and_compare(
        module_of(forward),
        (torch.randn(6, 2) * 5,),
        (torch.ones(6, 2),),
        (-torch.ones(6, 2),),
    )


def test_float_and_bool_from_data():
    def forward(self, x):
        total, positive = x.sum().item(), (x > 0).any().item()
        return x * total, total, positive

    export_and_compare(module_of(forward), (torch.randn(5),), (-torch.ones(5),))


def test_runtime_assertions_stay():
    def forward(self, x):
        n = x.sum().to(torch.int64).item()
        torch._check(n > 3)
        return x.new_ones(n)

    program = export_and_compare(module_of(forward), (torch.ones(5),))
    with pytest.raises(Exception, match="u0 >= 4"):
        program(torch.zeros(5))


# --------------------------------------------------------------------------- Input


def test_inputs_give_sizes_their_ranges():
    module = module_of(lambda self, x: x * 2)
    exported = torch.export.export(module, (torch.randn(4, 3),), dynamic_shapes=({0: AUTO},))
    program = rewright.compile_exported(
        exported, [Input(min=(1, 3), opt=(8, 3), max=(32, 3), dtype=torch.float32)]
    )
    (info,) = program.graph.symbols.values()
    assert str(info.ranges[0]) == "1..8..32"
    assert "{1..8..32}" in str(program.graph)
    with pytest.raises(InputError, match="32"):
        program(torch.randn(33, 3))
    torch.testing.assert_close(program(torch.ones(32, 3)), torch.full((32, 3), 2.0))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([Input(min=(1, 3), max=(9, 5))], r"dimension 1 of x is 3 .*can't vary"),
        ([Input(min=(1,), max=(9,))], "has 2 dimensions, not 1"),
        ([Input((4, 3), dtype=torch.float16)], "exported as f32.*described as f16"),
        ([Input((4, 3)), Input((4, 3))], "2 inputs are described, the program takes 1"),
        ([Input((4, 3), name="y")], "no tensor argument 'y'"),
        ([Input((4, 3), name="x"), Input((4, 3))], "name all inputs or none"),
        ([3], "must be tensors or rewright.Input, not int"),
        (Input((4, 3)), "inputs is a Input, expected a list"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    module = module_of(lambda self, x: x * 2)
    exported = torch.export.export(module, (torch.randn(4, 3),), dynamic_shapes=({0: AUTO},))
    with pytest.raises(InputError, match=message):
        rewright.compile_exported(exported, inputs)


def test_an_input_is_checked_when_it_is_made():
    with pytest.raises(InputError, match="min <= opt <= max"):
        Input(min=(4,), opt=(2,), max=(8,))
    with pytest.raises(InputError, match="a tuple of ints"):
        Input(min=3)
    with pytest.raises(InputError, match="can't be negative"):
        Input(min=(-2, 4))
    with pytest.raises(InputError, match="different ranks"):
        Input(min=(4,), max=(8, 2))


# --------------------------------------------------------------------------- control flow


def test_cond_with_sizes_and_weights_from_outside():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.cond(
                x.sum() > 0,
                lambda v: self.a(v) * v.shape[0],
                lambda v: self.b(v).sin() + v.shape[0] // 2,
                (x,),
            )

    export_and_compare(
        Branches(),
        (torch.ones(3, 4),),
        (-torch.ones(5, 4),),
        dynamic_shapes=({0: AUTO},),
    )


def test_nested_cond():
    def forward(self, x):
        def inner(v):
            return torch.cond(v.max() > 2, lambda u: u * 2, lambda u: u - 1, (v,))

        return torch.cond(x.sum() > 0, inner, lambda v: v.cos(), (x,))

    calls = [(torch.ones(3) * scale,) for scale in (1.0, 5.0, -1.0)]
    export_and_compare(module_of(forward), *calls)


def test_while_loop():
    from torch._higher_order_ops.while_loop import while_loop

    def forward(self, x):
        return while_loop(lambda i, v: i < 4, lambda i, v: (i + 1, v * 2 + i), (torch.tensor(0), x))

    export_and_compare(module_of(forward), (torch.ones(3),))


def test_grad_mode_regions_are_inlined():
    def forward(self, x):
        with torch.no_grad():
            y = x * 2
        with torch.enable_grad():
            return y + 1

    program = export_and_compare(module_of(forward), (torch.ones(3),))
    assert [node.op.name for node in program.graph] == ["aten.mul.Tensor", "aten.add.Tensor"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_regions_become_casts(dtype):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            y = self.linear(x)
            with torch.autocast("cpu", dtype=dtype):
                z = self.linear(y) @ y
                z = torch.softmax(z, -1) + y
                with torch.autocast("cpu", enabled=False):
                    w = self.linear(y)
            return y, z, w

    program = export_and_compare(Mixed(), (torch.randn(8, 8),), optimization_level=1)
    assert sum(node.op.name == "aten._to_copy" for node in program.graph) >= 3


# --------------------------------------------------------------------------- custom ops


@torch.library.custom_op("rewright_tests::twice", mutates_args=())
def twice(x: torch.Tensor, factor: float) -> torch.Tensor:
    assert x.is_contiguous(), "this op reads memory as it lies"
    return x * 2 * factor


@twice.register_fake
def _(x, factor):
    return torch.empty_like(x)


@torch.library.custom_op("rewright_tests::bump_", mutates_args=("x",))
def bump_(x: torch.Tensor, by: torch.Tensor) -> None:
    x.add_(by)


def test_custom_ops_stay_whole_and_see_eagers_layout():
    def forward(self, x):
        y = twice(x.t().contiguous(), 0.5)
        return y + twice(x.t().clone(memory_format=torch.contiguous_format), 2.0)

    program = export_and_compare(module_of(forward), (torch.randn(3, 5),))
    names = [node.op.name for node in program.graph]
    assert names.count("rewright_tests.twice") == 2


def test_custom_ops_that_mutate():
    def forward(self, x):
        y = x + 1
        bump_(y, x)
        bump_(y[0], torch.ones(5))
        bump_(self.total, x[0])
        return y, self.total + 0

    export_and_compare(module_of(forward, total=torch.zeros(5)), (torch.randn(3, 5),))


@torch.library.custom_op("rewright_tests::nested", mutates_args=())
def nested(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return x * 2, [x + 1]


@nested.register_fake
def _(x):
    return torch.empty_like(x), [torch.empty_like(x)]


def test_nested_results_of_a_custom_op():
    export_and_compare(module_of(lambda self, x: nested(x)), (torch.ones(3),))


def test_complex_and_fft():
    def forward(self, x):
        z = torch.fft.rfft(x) * (1 + 2j)
        return torch.fft.irfft(z, n=x.shape[-1]), z.real, z.imag, z.abs(), torch.conj(z) + 1

    export_and_compare(module_of(forward), (torch.randn(3, 8),))


def test_quantized_weights():
    def forward(self, x):
        q = torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)
        return torch.dequantize(q)

    module = module_of(forward)
    try:
        torch.export.export(module, (torch.randn(3, 8),))
    except Exception:
        pytest.skip("this torch can't export quantized tensors itself")
    export_and_compare(module, (torch.randn(3, 8),))


def test_random_ops_keep_their_order():
    def forward(self, x):
        return torch.rand_like(x), torch.randn(3), torch.bernoulli(x.sigmoid())

    module = module_of(forward)
    x = torch.randn(4)
    program = rewright.compile_exported(torch.export.export(module, (x,)))
    torch.manual_seed(7)
    ours = program(x)
    torch.manual_seed(7)
    torch.testing.assert_close(ours, module(x))


# --------------------------------------------------------------------------- functional programs


def test_a_program_that_was_made_functional_before():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x):
            self.count.add_(x.sum(0))
            x.mul_(2)
            return self.count * x

    module = Counts()
    x = torch.randn(3, 2)
    exported = torch.export.export(module, (fresh((x,))[0],)).run_decompositions()
    program = rewright.compile_exported(exported)
    eager = Counts()
    compare_call(program, eager, (x,), {})
    compare_call(program, eager, (x,), {})


def test_a_program_loaded_from_a_file(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
    x = torch.randn(2, 3, 6, 6)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "model.pt2")
    program = rewright.compile_exported(torch.export.load(tmp_path / "model.pt2"))
    torch.testing.assert_close(program(x), module(x).detach())


# --------------------------------------------------------------------------- refused


def test_training_mode_is_refused_with_the_line():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)

        def forward(self, x, which):
            return self.drop(x) if which else self.norm(x)

    module = Net().train()
    for which, what in ((True, "drops at random"), (False, "updates batch statistics")):
        exported = torch.export.export(module, (torch.randn(3, 4), which))
        with pytest.raises(UnsupportedError, match=what) as error:
            rewright.compile_exported(exported)
        assert "test_export.py" in str(error.value)
        assert "model.eval()" in str(error.value)


def test_batch_norm_without_running_statistics_is_no_training():
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    export_and_compare(norm, (torch.randn(3, 4),))


def test_not_an_exported_program():
    with pytest.raises(FrontendError, match=r"(?s)ExportedProgram, not Linear.*rewright\.compile"):
        rewright.compile_exported(nn.Linear(2, 2))


class Picks(nn.Module):
    def forward(self, d):
        return d["a"][0] * 2


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # these are prototypes, torch says
    ROWS = torch.eye(3).to_sparse_csr()
    NESTED = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    JAGGED = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (nn.Linear(4, 4), torch.ones(3, 4), "args is a Tensor, expected a tuple"),
        (lambda x: x, (torch.ones(3),), "expected a torch.nn.Module, not function"),
        (nn.Linear(4, 4), (torch.ones(3, 5),), "torch.export can't export the model"),
        (nn.ReLU(), (NESTED,), r"input is a nested tensor, .*to_padded_tensor\(input, 0.0\)"),
        (nn.ReLU(), (JAGGED,), r"input is a nested tensor \(jagged\), .*to_padded_tensor"),
        (nn.ReLU(), (torch.eye(3).to_sparse(),), r"input is a sparse tensor \(COO\).*to_dense"),
        (nn.ReLU(), (ROWS,), r"input is a sparse tensor \(CSR\)"),
        (nn.ReLU(), (torch.eye(3).to_mkldnn(),), "input is a tensor in oneDNN's own layout"),
        (nn.ReLU(), (TwoTensor(torch.ones(2), torch.ones(2)),), "input is a TwoTensor, a tensor"),
        (Picks(), ({"a": [torch.eye(3).to_sparse()]},), r"d\['a'\]\[0\] is a sparse tensor"),
    ],
)
def test_what_cannot_be_exported(model, args, message):
    with pytest.raises((FrontendError, UnsupportedError), match=f"(?s){message}"):
        rewright.compile(model, args)


@pytest.mark.parametrize(
    ("rows", "sizes", "message", "hint"),
    [
        (1, {0: Dim("b", min=1, max=8)}, "specialized it to be a constant (1)", "where it is 2"),
        (2, {1: Dim("c", min=2, max=8)}, "specialized it to be a constant (4)", "c is 4 only"),
        (2, {0: Dim("b", min=4, max=8)}, "2 not in range [4, 8]", "in the ranges"),
        (2, {"x": {0: Dim("b")}}, "dynamic_shapes", "structure of the arguments"),
    ],
)
def test_dynamic_shapes_that_do_not_fit_say_what_to_do(rows, sizes, message, hint):
    shapes = sizes if "x" in sizes else (sizes,)
    with pytest.raises(FrontendError) as caught:
        rewright.compile(nn.Linear(4, 4), (torch.ones(rows, 4),), dynamic_shapes=shapes)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_arguments_may_all_be_given_by_name():
    model = nn.Linear(4, 4)
    program = rewright.compile(model, kwargs={"input": torch.ones(3, 4)})
    torch.testing.assert_close(program(input=torch.ones(3, 4)), model(torch.ones(3, 4)).detach())
    with pytest.raises(FrontendError, match="give input in args or kwargs"):
        rewright.compile(model)


def test_an_exported_program_has_a_compile_of_its_own():
    exported = torch.export.export(nn.ReLU(), (torch.ones(3),))
    with pytest.raises(FrontendError, match="compile_exported"):
        rewright.compile(exported)


def test_a_tensor_in_the_place_of_a_dict_is_refused_without_a_warning():
    program = rewright.compile(Picks(), ({"a": [torch.ones(3)]},))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong, got in ((torch.ones(3), "a Tensor"), ([torch.ones(3)], "a list"), (3, "a int")):
            with pytest.raises(InputError, match=f"d: expected a dict, got {got}"):
                program(wrong)
        with pytest.raises(InputError, match=r"d\['a'\]: expected a list of 1, got a Tensor"):
            program({"a": torch.ones(3)})
    torch.testing.assert_close(program({"a": [torch.ones(3)]}), torch.full((3,), 2.0))


def test_a_sparse_buffer_is_refused_by_name():
    module = module_of(lambda self, x: torch.sparse.mm(self.w, x), w=torch.eye(4).to_sparse())
    exported = torch.export.export(module, (torch.ones(4, 4),))
    with pytest.raises(UnsupportedError, match="w is a sparse tensor"):
        rewright.compile_exported(exported)


def test_attention_dropout_and_instance_statistics_are_training():
    def attend(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    norm = nn.InstanceNorm1d(3, affine=True, track_running_stats=True).train()
    for module, args in (
        (module_of(attend), (torch.ones(1, 2, 3),)),
        (norm, (torch.ones(2, 3, 4),)),
    ):
        exported = torch.export.export(module, args)
        with pytest.raises(UnsupportedError, match="training mode"):
            rewright.compile_exported(exported)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(SettingsError, match="finds no CUDA device"):
        rewright.compile(nn.Linear(4, 4), (torch.ones(3, 4),), device="cuda")


def test_unknown_settings_are_refused():
    exported = torch.export.export(nn.Linear(2, 2), (torch.randn(1, 2),))
    with pytest.raises(SettingsError, match="torch_backend"):
        rewright.compile_exported(exported, torch_backnd="eager")


def test_compile_exports_and_compiles():
    module = nn.Linear(4, 2)
    program = rewright.compile(module, (torch.randn(3, 4),), dynamic_shapes=({0: AUTO},))
    x = torch.randn(5, 4)
    torch.testing.assert_close(program(x), module(x).detach())


@pytest.mark.slow  # imports transformers
def test_a_cache_of_transformers_as_an_argument():
    from transformers import DynamicCache
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    register_dynamic_cache_export_support()

    class Model(nn.Module):
        def forward(self, x, cache):
            keys, values = cache.update(x, x * 2, 0)
            return keys.sum(2) + values.sum(2), cache

    def cache(length: int) -> DynamicCache:
        made = DynamicCache()
        made.update(torch.ones(1, 2, length, 4), torch.ones(1, 2, length, 4), 0)
        return made

    x, n = torch.ones(1, 2, 1, 4), Dim("n", min=1, max=32)
    shapes = ({}, [[{2: n}], [{2: n}]])
    exported = torch.export.export(Model(), (x, cache(3)), dynamic_shapes=shapes)
    program = rewright.compile_exported(exported)
    names = [argument.name for argument in program.signature.arguments]
    assert names == ["x", "cache['key_cache'][0]", "cache['value_cache'][0]"]
    for made in (program, program.to_exported_program().module()):
        result, _ = made(x, cache(7))
        torch.testing.assert_close(result, Model()(x, cache(7))[0])
    assert type(program(x, cache(7))[1]) is DynamicCache
    with pytest.raises(InputError, match=r"cache\['key_cache'\]\[0\] is 33"):
        program(x, cache(33))


# --------------------------------------------------------------------------- torch's own log


class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:  # what torch.export can't follow
            return x.relu()
        return x


SHAPES = logging.getLogger("torch.fx.experimental.symbolic_shapes")


@pytest.fixture
def heard():
    """What torch's logs say, as texts; that of sizes has handlers of its own."""
    texts, handler = [], logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    loggers = (logging.getLogger("torch"), SHAPES)
    for logger in loggers:
        logger.addHandler(handler)
    yield texts
    for logger in loggers:
        logger.removeHandler(handler)


def test_torch_s_log_does_not_hide_why_an_export_failed(heard, capsys, caplog):
    model, args = Branches().eval(), (torch.ones(3),)
    with caplog.at_level(logging.DEBUG, "rewright"), pytest.raises(FrontendError) as caught:
        rewright.compile(model, args)
    assert capsys.readouterr().err == "" and heard == []
    assert "data-dependent" in caught.value.message
    file, _, line = caught.value.where.partition(":")
    text = (Path.cwd() / file).read_text().splitlines()[int(line.split()[0]) - 1]
    assert text.strip() == "if x.sum() > 0:  # what torch.export can't follow"
    assert "torch.cond" in caught.value.hint
    assert 'def forward(self, arg0_1: "f32[3]")' in caplog.text, "it is in our log"
    with pytest.raises(Exception, match="data-dependent"):
        torch.export.export(model, args)
    assert "def forward(" in capsys.readouterr().err, "torch's own call says what it did"


def test_what_torch_says_of_an_export_that_works_is_heard(heard):
    with torch_log_kept():
        SHAPES.warning("first")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(SHAPES.warning, "of another thread").result()
        assert heard == ["of another thread"]
    assert heard == ["of another thread", "first"]

    @torch_log_kept()
    def fails():
        SHAPES.warning("second")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert heard[2:] == []


def test_what_torch_logs_asks_for_is_heard_at_once(heard, monkeypatch):
    for asked, number in (("dynamic", 1), ("+rewright", 0), ("", 0)):
        monkeypatch.setenv("TORCH_LOGS", asked)
        heard.clear()
        with torch_log_kept():
            SHAPES.warning("now")
            assert len(heard) == number


def test_torch_s_log_does_not_hide_that_a_program_can_not_be_exported(heard, capsys, monkeypatch):
    program = rewright.compile(nn.Linear(4, 4).eval(), (torch.ones(3, 4),))
    monkeypatch.setattr(formats, "portable", lambda *_, **__: Branches())
    with pytest.raises(CompileError, match=r"torch\.export can't export @main"):
        program.to_exported_program()
    assert capsys.readouterr().err == "" and heard == []
