import threading

import pytest
import sympy
import torch

from rewright.errors import InferenceError
from rewright.ir import inference
from rewright.ir.builder import bind_operands
from rewright.ir.graph import Graph
from rewright.ir.inference import cache_info, clear_cache, infer_types
from rewright.ir.ops import functional_form, get_op
from rewright.ir.sizes import Range, evaluate, symbol
from rewright.ir.types import NoneType, OpaqueType, ScalarType, TensorType
from tests.ir.building import S0, S1, S2, f32, flag, i64

RANGES = {S0: (Range(1, 8, 32),), S1: (Range(2, None, 64),), S2: (Range(0, None, None),)}


@pytest.fixture(autouse=True)
def _forgotten():
    clear_cache()


def types(op, *args, ranges=RANGES, device="cpu", fresh=None, **kwargs):
    """The result types of a call in which types stand for values."""
    found = get_op(op) if isinstance(op, str) else op
    graph = Graph()

    def value(item):
        if isinstance(item, list):
            return [value(part) for part in item]
        is_type = isinstance(item, TensorType | ScalarType)
        return graph.add_input(item) if is_type else item

    named = found.bind([value(a) for a in args], {k: value(a) for k, a in kwargs.items()})
    operands, attributes, regions = bind_operands(named)
    return infer_types(
        found,
        attributes,
        [operand.type for operand in operands],
        ranges=ranges,
        device=device,
        regions=regions,
        fresh=fresh,
    )


def half(*shape):
    return TensorType(torch.float16, shape)


def _name(item):
    return item[0] if isinstance(item, tuple) and item[:1] and isinstance(item[0], str) else ""


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("aten.add.Tensor", f32(S0, 5), f32(1, 5)), f32(S0, 5)),
        (("aten.add.Tensor", f32(S0, 1), f32(S1)), f32(S0, S1)),
        (("aten.add.Tensor", half(S0), f32()), half(S0)),
        (("aten.add.Tensor", half(S0), f32(1)), f32(S0)),
        (("aten.add.Tensor", i64(S0), 1.5), f32(S0)),
        (("aten.eq.Scalar", f32(S0), 0), flag(S0)),
        (("aten.where.self", flag(S0, 1), f32(S0, S1), f32()), f32(S0, S1)),
        (("aten.reshape", f32(S0, S1, 64), [S0 * S1, 64]), f32(S0 * S1, 64)),
        (("aten.reshape", f32(S0, S1, 64), [-1, 64]), f32(S0 * S1, 64)),
        (("aten.reshape", f32(S0 * S1, 64), [S0, -1, 64]), f32(S0, S1, 64)),
        (("aten.expand", f32(S0, 1, 5), [-1, S1, 5]), f32(S0, S1, 5)),
        (("aten.slice.Tensor", f32(S0, S1), 1, 1), f32(S0, S1 - 1)),
        (("aten.cat", [f32(S0, 5), f32(S1, 5)]), f32(S0 + S1, 5)),
        (("aten.matmul", f32(S0, 8, S1, 4), f32(S0, 8, 4, S1)), f32(S0, 8, S1, S1)),
        (("aten.linear", f32(S0, S1, 4), f32(8, 4), f32(8)), f32(S0, S1, 8)),
        (("aten.conv2d", f32(S0, 3, S1, 9), f32(8, 3, 1, 1)), f32(S0, 8, S1, 9)),
        (("aten.pad", f32(S0, S1), [1, 2]), f32(S0, S1 + 3)),
        (
            ("aten.upsample_nearest2d.vec", f32(S0, 3, S1, S1), None, [2.0, 2.0]),
            f32(S0, 3, 2 * S1, 2 * S1),
        ),
        (("aten.arange", S1), i64(S1)),
        (("aten.full", [S0, 2], 0.0), f32(S0, 2)),
        (("aten.max.dim", f32(S0, S1), 1, True), (f32(S0, 1), i64(S0, 1))),
        (("aten.split.Tensor", f32(S0, 5), 2, 1), (f32(S0, 2), f32(S0, 2), f32(S0, 1))),
        (("rw.linear", half(S0, 4), half(8, 4)), half(S0, 8)),
        (
            ("rw.attention", half(S0, 4, S1, 8), half(S0, 2, S2, 8), half(S0, 2, S2, 6)),
            half(S0, 4, S1, 6),
        ),
        (("rw.group_norm", f32(S0, 8, S1, S1)), f32(S0, 8, S1, S1)),
        (("rw.return", []), ()),
    ],
    ids=_name,
)
def test_types_over_sizes(call, expected):
    kwargs = {"groups": 2} if call[0] == "rw.group_norm" else {}
    assert types(*call, **kwargs) == (expected if isinstance(expected, tuple) else (expected,))


@pytest.mark.parametrize(
    ("call", "guard"),
    [
        (("aten.add.Tensor", f32(S0, 5), f32(S1, 5)), "s0 == s1"),
        (("aten.add.Tensor", f32(S0, 5), f32(3, 5)), "s0 == 3"),
        (("aten.reshape", f32(S0, 8), [-1, 16]), "Mod(8*s0, 16) == 0"),
        (("aten.cat", [f32(S0, 2), f32(S1, 2)], 1), "s1 == s0"),
        (("aten.squeeze.dim", f32(S0, 5), 0), "s0 != 1"),
        (("aten.squeeze", f32(S0, 5)), "s0 != 1"),
        (("aten.unbind.int", f32(S0, 5)), "s0 is one number"),
        (("aten.narrow", f32(S1, 5), 0, 0, 5), "5 <= s1"),
        (("aten.slice.Tensor", f32(S1, 5), 0, 0, S1 - 5), "expression over them gave the size"),
    ],
)
def test_what_holds_for_some_sizes_only_is_refused_and_says_for_which(call, guard):
    with pytest.raises(InferenceError, match="depends on the sizes") as caught:
        types(*call)
    assert guard in caught.value.guard
    assert guard in str(caught.value)
    assert caught.value.op == call[0]
    assert str(call[1] if not isinstance(call[1], list) else call[1][0]) in str(caught.value)


def rightly_sliced(call):
    """Whether the size of ``x[0:4]`` is right for every size, or no size is given (torch 2.11)."""
    try:
        dim = types(*call)[0].shape[0]
    except InferenceError as error:
        return error.guard is not None
    return [evaluate(dim, {S0: size}) for size in (1, 4, 9)] == [1, 4, 4]


@pytest.mark.skipif(
    torch.__version__ < "2.12", reason="there torch's shape rule of slice wants the size itself"
)
def test_ranges_decide_what_they_can():
    sliced = ("aten.slice.Tensor", f32(S0, 5), 0, 0, 4)
    assert rightly_sliced(sliced)
    assert types(*sliced, ranges={S0: (Range(4, None, 32),)}) == (f32(4, 5),)
    assert types(*sliced, ranges={S0: (Range(1, None, 4),)}) == (f32(S0, 5),)
    with pytest.raises(InferenceError) as caught:
        types("aten.conv2d", f32(1, 3, S2, 9), f32(8, 3, 3, 1), ranges={S2: (Range(0),)})
    assert "s2" in caught.value.guard
    fits = types("aten.conv2d", f32(1, 3, S2, 9), f32(8, 3, 3, 1), ranges={S2: (Range(3),)})
    assert fits == (f32(1, 8, S2 - 2, 9),)


def test_a_size_that_may_be_one_is_never_guessed_not_to_be():
    squeeze = ("aten.squeeze.dims", f32(S0, 1, S1), [0, 1])
    assert types(*squeeze, ranges={S0: (Range(2),)}) == (f32(S0, S1),)
    assert types(*squeeze, ranges={S0: (Range(1, None, 1),)}) == (f32(S1),)
    with pytest.raises(InferenceError):
        types(*squeeze, ranges={S0: (Range(1, None, 2),)})


def test_operands_that_never_fit_are_refused_in_our_names():
    with pytest.raises(InferenceError) as caught:
        types("aten.mm", f32(S0, 64), f32(32, 64))
    assert caught.value.guard is None
    assert "f32[s0, 64]" in str(caught.value)
    assert "u0" not in str(caught.value)


def test_a_failure_is_not_logged_by_torch(caplog, capfd):
    with pytest.raises(InferenceError):
        types("aten.pad", f32(S0, 3), [1, 2, 3, 4, 5, 6])
    with pytest.raises(InferenceError):
        types("aten.mm", f32(S0, 64), f32(32, 64))
    assert not [r for r in caplog.records if r.levelname != "DEBUG"]
    assert capfd.readouterr().err == ""


def test_symbols_of_data_dependent_results_are_named_by_the_caller():
    asked = []

    def fresh(letter, known):
        asked.append((letter, known))
        return symbol(f"{letter}{40 + len(asked)}")

    u41, u42 = symbol("u41"), symbol("u42")
    assert types("aten.nonzero", f32(S0, 2), fresh=fresh) == (i64(u41, 2),)
    assert types("aten.nonzero", f32(S0, 2), fresh=fresh) == (i64(u42, 2),)  # remembered, anew
    assert types("aten.item", f32(), fresh=fresh) == (ScalarType("float", symbol("f43")),)
    assert types("aten.item", i64(), fresh=fresh) == (ScalarType("int", symbol("u44")),)
    flagged = types("aten.item", flag(), fresh=fresh)
    assert flagged == (ScalarType("bool", sympy.Eq(symbol("u45"), 1)),)
    assert asked[0] == ("u", Range(0, None, 64))
    assert asked[3] == ("u", Range(None, None, None))
    with pytest.raises(InferenceError, match="only a run can tell"):
        types("aten.nonzero", f32(S0, 2))


def test_torch_names_of_new_symbols_never_meet_ours():
    """Torch calls its first new symbol u0, which is a name of ours as well."""
    u0, u7 = symbol("u0"), symbol("u7")
    ranges = {u0: (Range(0, None, 9),)}
    assert types("aten.nonzero", f32(u0, 2), ranges=ranges, fresh=lambda *_: u7) == (i64(u7, 2),)
    assert types("aten.relu", f32(u0, 2), ranges=ranges) == (f32(u0, 2),)
    assert types("aten.cat", [f32(u0, 2), f32(S0, 2)]) == (f32(u0 + S0, 2),)


def test_numbers_as_operands():
    u0 = symbol("u0")
    assert types("aten.mul.Tensor", i64(S0), ScalarType("float", symbol("f0"))) == (f32(S0),)
    assert types("aten.arange", ScalarType("int", S0)) == (i64(S0),)
    assert types("aten.mul.Tensor", f32(S0), ScalarType("int")) == (f32(S0),)
    found = types("aten.arange", ScalarType("int"), fresh=lambda *_: u0, ranges={u0: (Range(0),)})
    assert isinstance(found[0], TensorType)


def test_devices():
    on_cpu = TensorType(torch.float32, (), "cpu")
    assert types("aten.mul.Tensor", f32(S0), on_cpu, device="cuda:0") == (f32(S0),)
    assert types("aten.add.Tensor", on_cpu, 1.0, device="cuda:0") == (on_cpu,)
    assert types("aten.arange", 3, device="cuda:0") == (TensorType(torch.int64, (3,), "cpu"),)
    there = torch.device("cuda:0")
    assert types("aten.arange", 3, device="cuda:0") != types("aten.arange", 3, device="cpu")
    assert inference.infer_types(
        get_op("aten.arange"),
        bind_operands({"end": 3, "device": there})[1],
        [],
        ranges={},
        device="cuda:0",
    ) == (i64(3),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, ScalarType("int", 3)),
        (True, ScalarType("bool", True)),
        (0.5, ScalarType("float", 0.5)),
        (S0, ScalarType("int", S0)),
        (S0 * 2 > 3, ScalarType("bool", S0 * 2 > 3)),
        (symbol("f0") / 2, ScalarType("float", symbol("f0") / 2)),
        (None, NoneType()),
        ("nearest", OpaqueType("str")),
    ],
)
def test_scalars(value, expected):
    assert types("rw.scalar", value) == (expected,)


def test_results_that_are_none_and_lists_in_tuples():
    given = [f32(2, 3, 4, 4), f32(2, 3, 4, 4), f32(3, 3, 1, 1), None, [1, 1], [0, 0], [1, 1]]
    backward = types("aten.convolution_backward", *given, False, [0, 0], 1, [True, True, False])
    assert backward == (f32(2, 3, 4, 4), f32(3, 3, 1, 1), NoneType())


def test_the_pure_form_of_a_mutating_op():
    form = functional_form(torch.ops.aten.index_put_.default)
    assert types(form, f32(S0, 2), [i64(3)], f32(3, 2)) == (f32(S0, 2),)


def test_an_op_without_a_shape_rule():
    with torch.library._scoped_library("rewright_test", "FRAGMENT") as library:
        library.define("no_rule(Tensor x) -> Tensor")
        library.impl("no_rule", lambda x: x.clone(), "CPU")
        with pytest.raises(InferenceError, match="no shape rule") as caught:
            types(torch_op("rewright_test.no_rule"), f32(2))
        assert "register_fake" in caught.value.hint


def torch_op(name):
    return get_op(name)


def test_a_shape_rule_that_looks_at_a_size_is_asked_with_an_example():
    """A user's rule may branch on a size: fine where the ranges decide, else refused."""
    with torch.library._scoped_library("rewright_test", "FRAGMENT") as library:
        library.define("branches(Tensor x) -> Tensor")
        library.impl("branches", lambda x: x.clone(), "CPU")

        def rule(x):
            return x.new_empty(x.shape) if x.shape[0] * x.shape[1] >= x.shape[0] else x[:1]

        torch.library.register_fake("rewright_test::branches", rule, lib=library)
        op = torch_op("rewright_test.branches")
        above = {S0: (Range(1, None, 8),), S1: (Range(1, None, 8),)}
        assert types(op, f32(3, 4)) == (f32(3, 4),)
        with pytest.raises(InferenceError) as caught:
            types(op, f32(S0, S1), ranges={S0: (Range(0, None, 8),), S1: (Range(0, None, 8),)})
        assert "s0" in caught.value.guard
        assert types(op, f32(S0, 1), ranges=above) == (f32(S0, 1),)


# ---- remembering


def test_types_are_remembered_by_op_attributes_types_ranges_and_device():
    call = ("aten.sum.dim_IntList", f32(S0, 4), [1])
    types(*call)
    assert (cache_info().hits, cache_info().misses) == (0, 1)
    types(*call)
    assert (cache_info().hits, cache_info().misses) == (1, 1)
    types(*call, ranges={**RANGES, S1: (Range(5),)})  # a symbol that is not mentioned
    assert cache_info().misses == 1
    for other in (
        lambda: types("aten.sum.dim_IntList", f32(S0, 4), [0]),
        lambda: types("aten.sum.dim_IntList", f32(S0, 5), [1]),
        lambda: types("aten.sum.dim_IntList", f32(S1, 4), [1]),
        lambda: types(*call, ranges={S0: (Range(2, None, 3),)}),
        lambda: types(*call, device="cuda:0"),
        lambda: types("aten.mean.dim", f32(S0, 4), [1]),
    ):
        before = cache_info().misses
        other()
        assert cache_info().misses == before + 1


def test_attributes_that_python_calls_equal_are_told_apart():
    assert types("aten.full", [2], 1) == (i64(2),)
    assert types("aten.full", [2], 1.0) == (f32(2),)
    assert types("aten.full", [2], True) == (flag(2),)


def test_pointwise_ops_are_asked_once_for_all_shapes_of_a_rank():
    types("aten.mul.Tensor", f32(S0, 4), f32(4))
    types("aten.mul.Tensor", f32(8, S1), f32(S1))
    types("aten.mul.Tensor", f32(3, 4), f32(4))
    assert (cache_info().hits, cache_info().misses) == (2, 1)


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(inference, "_MAX_TYPES", 3)
    for size in range(5):
        types("aten.sum", f32(size))
    assert cache_info().size == 3


def test_threads_may_infer_at_once():
    found, errors = [], []

    def work(number):
        try:
            for size in range(20):
                shape = (S0 + size, number % 3 + 1)
                found.append(types("aten.sum.dim_IntList", f32(*shape), [1]) == (f32(S0 + size),))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert found == [True] * 120
    assert cache_info().misses == 60


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_alone_is_any_cuda_device(device):
    assert types("aten.relu", f32(2, S0), device=device) == (f32(2, S0),)
    assert types("aten.arange", 4, device=device) == (TensorType(torch.int64, (4,), "cpu"),)
