"""Generated source: how it reads, and that it computes what the interpreter does."""

import re

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from rewright.errors import CheckError
from rewright.ir.interpreter import interpret
from rewright.ir.parser import parse_graph
from tests.backends.torch.programs import program, random_data

MLP = """
graph @mlp(%x: f32[s0, 8], %mask: bool[s0, 1]) -> f32[s0, 4]
  where s0 in {1..16} = dim(%x, 0)
{
  %h = aten.linear(%x, @up.weight, @up.bias) : f32[s0, 8]     # model.py:10 (block.up)
  %a, %b = aten.chunk(%h, 2, dim=-1) : f32[s0, 4], f32[s0, 4]  # model.py:11 (block)
  %g = aten.gelu(%a, approximate="tanh") : f32[s0, 4]          # model.py:12 (block)
  %m = aten.mul.Tensor(%g, %b) : f32[s0, 4]                    # model.py:12 (block)
  %y = aten.masked_fill.Scalar(%m, %mask, 0.0) : f32[s0, 4]    # model.py:13 (block)
  return %y
}
constants {
  parameter @up.weight : f32[8, 8]
  parameter @up.bias : f32[8]
}
"""


def body(source: str) -> list[str]:
    """The statements of ``forward`` and its comments, without indentation and trailing space."""
    text = source.split("def forward")[1].split("return forward")[0]
    lines = [re.sub(r"\s+#", "  #", line.strip()) for line in text.split("\n")[1:]]
    return [line.strip() for line in lines if line.strip()]


def run_both(text: str, *inputs, **constants):
    """What the program gives and what the interpreter gives."""
    graph = parse_graph(text)
    random_data(graph)
    for name, data in constants.items():
        graph.constants[name].data = data
    data = {c.name: c.data for c in graph.constants.values() if c.is_source}
    made = program(text, data)
    copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    expected = interpret(graph, copies).outputs
    return made(*inputs), expected


def assert_equal(text: str, *inputs, atol: float = 0, **constants) -> None:
    actual, expected = run_both(text, *inputs, **constants)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=atol, equal_nan=True)


def test_source_is_straight_lines_with_places_and_frees():
    assert body(program(MLP).source) == [
        "# block.up",
        "h = _nn.linear(x, up_weight, up_bias)  # model.py:10",
        "# block",
        "a, b = torch.chunk(h, 2, -1)  # model.py:11",
        "del h",
        "g = _nn.gelu(a, approximate='tanh')  # model.py:12",
        "del a",
        "m = torch.mul(g, b)",
        "del g, b",
        "y = torch.masked_fill(m, mask, 0.0)  # model.py:13",
        "del m",
        "# results",
        "if not y.is_contiguous():",
        "y = y.contiguous()",
        "return y",
    ]


def test_source_runs_as_it_stands():
    made = program(MLP)
    namespace: dict = {}
    exec(made.source, namespace)
    constants = {name: c.data for name, c in made.graph.constants.items()}
    forward = namespace["bind"](constants)
    x, mask = torch.randn(3, 8), torch.rand(3, 1) > 0.5
    assert torch.equal(forward(x, mask), made(x, mask)[0])


def test_numbers_are_the_interpreters():
    assert_equal(MLP, torch.randn(5, 8), torch.rand(5, 1) > 0.5)


def test_values_are_freed_after_their_last_use():
    """With n chained steps, no more than a few tensors are alive at once."""
    steps = "\n".join(f"  %v{i + 1} = aten.relu(%v{i}) : f32[1000]" for i in range(50))
    text = f"graph @main(%v0: f32[1000]) -> f32[1000] {{\n{steps}\n  return %v50\n}}"
    made = program(text)
    alive: list[int] = []
    storages = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            storages.append(StorageWeakRef(result.untyped_storage()))
            alive.append(sum(not storage.expired() for storage in storages))
            return result

    with Watch():
        made(torch.randn(1000))
    assert len(alive) >= 50
    assert max(alive) <= 3  # the input, what is read and what is made


def test_what_nothing_needs_is_not_computed():
    text = """
    graph @main(%x: f32[4]) -> f32[4] {
      %a = aten.relu(%x) : f32[4]
      %b = aten.sin(%a) : f32[4]
      %y, %i = aten.sort(%x) : f32[4], i64[4]
      return %y
    }
    """
    lines = body(program(text).source)
    assert lines[:2] == ["y, i = torch.sort(x)", "del i"]


def test_random_numbers_are_drawn_even_where_nothing_needs_them():
    text = """
    graph @main(%x: f32[4]) -> f32[4] {
      %a = aten.rand_like(%x) : f32[4]
      %y = aten.rand_like(%x) : f32[4]
      return %y
    }
    """
    made, x = program(text), torch.zeros(4)
    torch.manual_seed(3)
    torch.rand_like(x)
    expected = torch.rand_like(x)
    torch.manual_seed(3)
    assert torch.equal(made(x)[0], expected)


def test_asserts_run():
    text = """
    graph @main(%x: f32[4]) -> f32[4] {
      %t = aten.lt.Scalar(%x, 1.0) : bool[4]
      %a = aten.all(%t) : bool[]
      aten._assert_async.msg(%a, "x is too large")
      return %t
    }
    """.replace("-> f32[4]", "-> bool[4]")
    made = program(text)
    made(torch.zeros(4))
    with pytest.raises(RuntimeError, match="x is too large"):
        made(torch.full((4,), 2.0))


def test_checks_of_numbers_say_what_is_false():
    text = """
    graph @main(%x: f32[4]) -> f32[u0]
      where u0 in {..} = %n, f0 in {..} = %f
    {
      %s = aten.sum(%x) : f32[]
      %f = aten.item(%s) : float(f0)
      aten._assert_scalar(f0 > -5.0, "the sum is too small")
      %t = aten.gt.Scalar(%x, 0) : bool[4]
      %c = aten.sum(%t) : i64[]
      %n = aten.item(%c) : int(u0)
      aten._assert_scalar(u0 >= 2, "Runtime assertion failed for expression u0 >= 2 on node 'ge'")
      %y = aten.ones([u0]) : f32[u0]
      return %y
    }
    """
    made = program(text)
    assert made(torch.ones(4))[0].shape == (4,)
    with pytest.raises(CheckError) as small:
        made(torch.full((4,), -2.0))
    assert small.value.message == "the sum is too small: f0 > -5.0 is false, where f0 is -8.0"
    with pytest.raises(CheckError) as few:
        made(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert few.value.message == (
        "a check that the model makes failed: u0 >= 2 is false, where u0 is 1"
    )


@pytest.mark.parametrize(
    ("arguments", "python"),
    [
        ("1, 0, 2", "x[:, :2]"),
        ("1, 1, 9223372036854775807", "x[:, 1:]"),
        ("-1, -2", "x[:, -2:]"),
        ("0, 1, 3, 2", "x[1:3:2]"),
        ("0", "x[:]"),
    ],
)
def test_slices_are_written_as_python_does(arguments, python):
    x = torch.randn(4, 5)
    expected = eval(python)
    shape = ", ".join(map(str, expected.shape))
    text = f"""
    graph @main(%x: f32[4, 5]) -> f32[{shape}] {{
      %y = aten.slice.Tensor(%x, {arguments}) : f32[{shape}]
      %z = aten.neg(%y) : f32[{shape}]
      return %z
    }}
    """
    made = program(text)
    assert f"y = {python}" in made.source
    assert torch.equal(made(x)[0], -expected)


# --------------------------------------------------------------------------- sizes


def test_sizes_are_bound_once_and_written_as_python():
    text = """
    graph @main(%x: f32[2*s0 + 1, s1]) -> (f32[2*s1*s0 + s1], int(s0//2), f32[s0])
      where s0 in {0..8} with 2*s0 + 1 = dim(%x, 0), s1 in {1..} = dim(%x, 1)
    {
      %y = aten.reshape(%x, [2*s1*s0 + s1]) : f32[2*s1*s0 + s1]
      %z = aten.neg(%y) : f32[2*s1*s0 + s1]
      %n = rw.scalar(s0//2) : int(s0//2)
      %f = aten.full([s0], 1.0) : f32[s0]
      return %z, %n, %f
    }
    """
    made = program(text)
    assert made.source.count("s0 = ") == 2  # checked on entry, used in forward
    x = torch.randn(7, 2)
    z, n, f = made(x)
    assert torch.equal(z, -x.flatten())
    assert n == 1
    assert f.shape == (3,)


def test_sizes_that_a_node_gives():
    text = """
    graph @main(%x: f32[s0]) -> (i64[u0], int(u1), f32[u1])
      where s0 in {1..} = dim(%x, 0), u0 in {0..} = dim(%i, 0), u1 in {0..} = %n
    {
      %i = aten.nonzero(%x) : i64[u0, 1]
      %j = aten.reshape(%i, [u0]) : i64[u0]
      %m = aten.max(%j) : i64[]
      %n = aten.item(%m) : int(u1)
      %f = aten.full([u1], 2.0) : f32[u1]
      return %j, %n, %f
    }
    """
    j, n, f = program(text)(torch.tensor([0.0, 1.0, 0.0, 5.0]))
    assert j.tolist() == [1, 3]
    assert n == 3
    assert f.tolist() == [2.0] * 3


# --------------------------------------------------------------------------- regions

BRANCHES = """
graph @main(%p: bool[], %x: f32[s0]) -> (f32[s0], f32[s0])
  where s0 in {1..} = dim(%x, 0)
{
  %a, %b = higher_order.cond(%p, ^yes, ^no, [%x, @w]) : f32[s0], f32[s0]
  region ^yes(%x: f32[s1], %w: f32[1]) -> (f32[s1], f32[s1])
    where s1 in {1..} = dim(%x, 0)
  {
    %y = aten.mul.Tensor(%x, s1) : f32[s1]
    %z = aten.add.Tensor(%y, %w) : f32[s1]
    return %z, %y
  }
  region ^no(%x: f32[s1], %w: f32[1]) -> (f32[s1], f32[s1])
    where s1 in {1..} = dim(%x, 0)
  {
    %y = aten.neg(%x) : f32[s1]
    return %y, %x
  }
  return %a, %b
}
constants {
  parameter @w : f32[1]
}
"""


def test_cond_is_an_if():
    assert "if p:" in body(program(BRANCHES).source)
    for p in (True, False):
        assert_equal(BRANCHES, torch.tensor(p), torch.randn(3))


def test_a_branch_that_returns_its_operand_lends_no_memory():
    x = torch.randn(3)
    _, b = program(BRANCHES)(torch.tensor(False), x)
    assert torch.equal(b, x)
    b.zero_()
    assert not torch.equal(b, x)


def test_a_branch_that_does_nothing():
    text = """
    graph @main(%p: bool[], %x: f32[2]) -> f32[2] {
      higher_order.cond(%p, ^yes, ^no, [%x])
      region ^yes(%x: f32[2]) -> () { return }
      region ^no(%x: f32[2]) -> () { return }
      %y = aten.neg(%x) : f32[2]
      return %y
    }
    """
    assert_equal(text, torch.tensor(True), torch.randn(2))


LOOP = """
graph @main(%i: i64[], %x: f32[3]) -> (i64[], f32[3])
{
  %j, %y = higher_order.while_loop(^test, ^body, [%i, %x], [@w]) : i64[], f32[3]
  region ^test(%i: i64[], %x: f32[3], %w: f32[3]) -> bool[]
  {
    %t = aten.lt.Scalar(%i, 5) : bool[]
    return %t
  }
  region ^body(%i: i64[], %x: f32[3], %w: f32[3]) -> (i64[], f32[3])
  {
    %k = aten.add.Tensor(%i, 1) : i64[]
    %s = aten.mul.Tensor(%x, %w) : f32[3]
    %z = aten.add.Tensor(%s, %i) : f32[3]
    return %k, %z
  }
  return %j, %y
}
constants {
  parameter @w : f32[3]
}
"""


@pytest.mark.parametrize("start", [0, 4, 5, 9])
def test_while_loop_is_a_while(start):
    assert "while True:" in body(program(LOOP).source)
    assert_equal(LOOP, torch.tensor(start), torch.randn(3))


def test_a_loop_that_does_not_run_lends_no_memory():
    i, x = torch.tensor(9), torch.randn(3)
    j, y = program(LOOP)(i, x)
    j.add_(1)
    y.zero_()
    assert i.item() == 9
    assert x.abs().sum() > 0


def test_a_loop_may_exchange_what_it_carries():
    text = """
    graph @main(%i: i64[], %x: f32[2], %y: f32[2]) -> (i64[], f32[2], f32[2])
    {
      %j, %a, %b = higher_order.while_loop(^test, ^body, [%i, %x, %y], []) : i64[], f32[2], f32[2]
      region ^test(%i: i64[], %x: f32[2], %y: f32[2]) -> bool[]
      {
        %t = aten.lt.Scalar(%i, 3) : bool[]
        return %t
      }
      region ^body(%i: i64[], %x: f32[2], %y: f32[2]) -> (i64[], f32[2], f32[2])
      {
        %k = aten.add.Tensor(%i, 1) : i64[]
        return %k, %y, %x
      }
      return %j, %a, %b
    }
    """
    assert_equal(text, torch.tensor(0), torch.randn(2), torch.randn(2))


def test_scan_goes_through_torch():
    text = """
    graph @main(%c: f32[2], %x: f32[5, 2]) -> (f32[2], f32[5, 2])
    {
      %d, %y = higher_order.scan(^step, [%c], [%x], [@w]) : f32[2], f32[5, 2]
      region ^step(%c: f32[2], %x: f32[2], %w: f32[2]) -> (f32[2], f32[2])
      {
        %s = aten.mul.Tensor(%c, %w) : f32[2]
        %n = aten.add.Tensor(%s, %x) : f32[2]
        %o = aten.neg(%n) : f32[2]
        return %n, %o
      }
      return %d, %y
    }
    constants {
      parameter @w : f32[2]
    }
    """
    assert "def scan_body(" in program(text).source
    assert_equal(text, torch.randn(2), torch.randn(5, 2))


def test_map_goes_through_torch():
    text = """
    graph @main(%x: f32[4, 3], %y: f32[3]) -> f32[4, 3]
    {
      %z = higher_order.map_impl(^f, [%x], [%y]) : f32[4, 3]
      region ^f(%x: f32[3], %y: f32[3]) -> f32[3]
      {
        %s = aten.mul.Tensor(%x, %y) : f32[3]
        return %s
      }
      return %z
    }
    """
    assert_equal(text, torch.randn(4, 3), torch.randn(3))


def test_a_segment_is_a_function():
    text = """
    graph @main(%x: f32[4]) -> f32[4]
    {
      %y = rw.segment([%x, @w], ^body, backend="torch") : f32[4]
      region ^body(%x: f32[4], %w: f32[4]) -> f32[4]
      {
        %s = aten.mul.Tensor(%x, %w) : f32[4]
        %t = aten.relu(%s) : f32[4]
        return %t
      }
      return %y
    }
    constants {
      parameter @w : f32[4]
    }
    """
    assert "y, = torch_segment(x, w)" in body(program(text).source)
    assert_equal(text, torch.randn(4))


# --------------------------------------------------------------------------- ops of all kinds


def test_ops_of_ours_run_by_their_reference():
    text = """
    graph @main(%x: f32[2, 4], %c: f32[2, 4], %s: f32[2, 4]) -> f32[2, 4] {
      %y = rw.rope(%x, %c, %s) : f32[2, 4]
      return %y
    }
    """
    assert_equal(text, *torch.randn(3, 2, 4))


def test_functional_forms_leave_their_operands_alone():
    text = """
    graph @main(%x: f32[3]) -> (f32[3], f32[3]) {
      %y = rw.functional.aten.add_.Tensor(%x, 1.0) : f32[3]
      %z = aten.neg(%x) : f32[3]
      return %y, %z
    }
    """
    assert_equal(text, torch.randn(3))


def test_ops_that_nest_lists_in_their_results():
    x = torch.randn(2, 3, 5)
    weights = [torch.randn(20, 5), torch.randn(20, 5), torch.randn(20), torch.randn(20)]
    text = """
    graph @main(%x: f32[2, 3, 5], %h: f32[1, 2, 5], %c: f32[1, 2, 5]) -> f32[2, 3, 5] {
      %y, %g, %k = aten.lstm.input(%x, [%h, %c], %W) : f32[2, 3, 5], f32[1, 2, 5], f32[1, 2, 5]
      return %y
    }
    constants {
      parameter @a : f32[20, 5]
      parameter @b : f32[20, 5]
      parameter @d : f32[20]
      parameter @e : f32[20]
    }
    """
    text = text.replace("%W", "[@a, @b, @d, @e], True, 1, 0.0, False, False, True")
    hidden = torch.randn(2, 1, 2, 5)
    data = dict(zip("abde", weights, strict=True))
    assert_equal(text, x, hidden[0], hidden[1], atol=1e-6, **data)


def test_complex_numbers_and_special_floats():
    text = """
    graph @main(%x: c64[3]) -> (c64[3], f32[3]) {
      %y = aten.mul.Tensor(%x, complex(0.0, -1.0)) : c64[3]
      %r = aten.real(%x) : f32[3]
      %z = aten.nan_to_num(%r, nan=1.0, posinf=inf, neginf=-inf) : f32[3]
      return %y, %z
    }
    """
    assert_equal(text, torch.randn(3, dtype=torch.complex64))


def test_names_are_python_identifiers_and_hide_nothing():
    text = """
    graph @main(%torch: f32[2], %class: f32[2], %_nn: f32[2], %type: f32[2]) -> f32[2] {
      %len = aten.add.Tensor(%torch, %class) : f32[2]
      %x_0 = aten.mul.Tensor(%len, %_nn) : f32[2]
      %forward = aten.sub.Tensor(%x_0, %type) : f32[2]
      %max = aten.gelu(%forward) : f32[2]
      return %max
    }
    """
    assert_equal(text, *torch.randn(4, 2))


def test_constants_may_have_any_name():
    text = """
    graph @main(%forward: f32[2]) -> f32[2] {
      %a = aten.add.Tensor(%forward, @constants) : f32[2]
      %b = aten.add.Tensor(%a, @bind) : f32[2]
      %c = aten.add.Tensor(%b, @a.b) : f32[2]
      %d = aten.add.Tensor(%c, @a_b) : f32[2]
      return %d
    }
    constants {
      parameter @constants : f32[2]
      parameter @bind : f32[2]
      parameter @a.b : f32[2]
      parameter @a_b : f32[2]
    }
    """
    assert_equal(text, torch.randn(2))


def test_a_traceback_shows_the_generated_line():
    text = """
    graph @lookup(%t: f32[4, 2], %i: i64[3]) -> f32[3, 2] {
      %y = aten.embedding(%t, %i) : f32[3, 2]    # model.py:7
      return %y
    }
    """
    import traceback

    try:
        program(text)(torch.randn(4, 2), torch.tensor([0, 9, 1]))
    except Exception as error:
        shown = "".join(traceback.format_exception(error))
        assert "lookup.generated.py" in shown
        assert "y = torch.embedding(t, i)" in shown
    else:
        pytest.fail("an index out of range was taken")
