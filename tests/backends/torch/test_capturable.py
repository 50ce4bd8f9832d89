"""Why a program can't be captured: found in its graph, with the node and the user's line."""

import pytest

from rewright.backends.torch.capturable import obstacle
from rewright.ir.parser import parse_graph


def found(body: str, *, head: str = "", end: str = "", late: tuple[str, ...] = ()) -> str | None:
    """What is in the way of a program on cuda:0, as text."""
    graph = parse_graph(
        f"graph @main(%x: f32[4]{head}) -> f32[4]\n  device cuda:0\n{{\n{body}\n}}\n{end}"
    )
    made = obstacle(graph, [graph.constants[name] for name in late])
    return None if made is None else str(made)


RELU = "%y = aten.relu(%x) : f32[4]"


def test_plain_work_can_be_captured():
    assert found(f"{RELU}\nreturn %y") is None


def test_a_program_that_computes_nothing_is_left_alone():
    assert found("return %x") == "it computes nothing"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("%y = aten.bernoulli(%x) : f32[4]", "aten.bernoulli draws random numbers"),
        ("%y = aten.dropout(%x, 0.5, True) : f32[4]", "aten.dropout draws random numbers"),
        ("%y = aten.dropout(%x, 0.5, False) : f32[4]", None),
        (
            "%s = aten.sum(%x) : f32[]; %f = aten.item(%s) : float; "
            "%y = aten.add.Tensor(%x, %f) : f32[4]",
            "aten.item gives Python a number that is on the device",
        ),
        (
            "%p = aten.any(%x) : bool[]; %y = higher_order.cond(%p, ^a, ^b, [%x]) : f32[4]; "
            "region ^a(%v: f32[4]) -> f32[4] {; %r = aten.relu(%v) : f32[4]; return %r }; "
            "region ^b(%v: f32[4]) -> f32[4] {; %r = aten.neg(%v) : f32[4]; return %r }",
            "higher_order.cond lets Python decide by a number that is on the device",
        ),
        ("%p = aten.any(%x) : bool[]; aten._assert_async(%p); %y = aten.relu(%x) : f32[4]", None),
        (
            '%y = aten.relu(%x) : f32[4]; aten._print("here")',
            "aten._print has an effect, which a replay would not repeat",
        ),
    ],
)
def test_nodes(body, reason):
    body = body.replace("; ", "\n")
    assert found(f"{body}\nreturn %y") == reason


def test_a_size_that_the_values_give():
    text = """
    graph @main(%x: f32[4]) -> i64[u0, 1]
      where u0 in {0..} = dim(%i, 0)
      device cuda:0
    {
      %i = aten.nonzero(%x) : i64[u0, 1]             # model.py:41 (layers.3)
      return %i
    }
    """
    assert str(obstacle(parse_graph(text))) == (
        "aten.nonzero gives the size u0, which depends on the values of its operands "
        "(model.py:41 (layers.3))"
    )


def test_inputs_and_copies_across_devices():
    assert found(f"{RELU}\nreturn %y", head=", %n: f32[] on cpu") == "the input %n is on cpu"
    down = "%c = aten.to.device(%x, cpu, f32) : f32[4] on cpu\n%y = aten.relu(%x) : f32[4]"
    up = "%u = aten.to.device(%c, cuda:0, f32) : f32[4]\n%y = aten.add.Tensor(%x, %u) : f32[4]"
    there_and_back = f"{down.splitlines()[0]}\n{up}\nreturn %y"
    assert found(there_and_back) == "aten.to.device copies from cuda:0 to cpu"
    constant = "constants {{ constant @k : {} on cpu }}"
    made = "%c = aten.neg(@k) : f32[4] on cpu"
    assert found(f"{made}\n{up}\nreturn %y", end=constant.format("f32[4]")) == (
        "aten.to.device copies from cpu to cuda:0"
    )


def test_a_number_on_the_cpu_is_read_when_it_is_recorded():
    body = "%y = aten.mul.Tensor(%x, @k) : f32[4]\nreturn %y"
    end = "constants { buffer @k : f32[] on cpu }"
    assert found(body, end=end) is None
    assert found(body, end=end, late=("k",)) == "@k, which comes with each call, is on cpu"


def test_another_gpu():
    body = "%c = aten.to.device(%x, cuda:1, f32) : f32[4] on cuda:1\n"
    body += "%y = aten.to.device(%c, cuda:0, f32) : f32[4]\nreturn %y"
    assert found(body) == "aten.to.device runs on cuda:1, and the program on cuda:0"


def test_what_a_region_holds_is_looked_at():
    body = """
    %y = rw.segment([%x], ^body, backend="torch") : f32[4]
      region ^body(%v: f32[4]) -> f32[4] {
        %r = aten.bernoulli(%v) : f32[4]
        return %r
      }
    return %y
    """
    assert found(body) == "aten.bernoulli draws random numbers"
    assert found(body.replace('"torch"', '"tensorrt"')) == "rw.segment runs an engine of tensorrt"
