"""Arguments that don't fit: one error of ours, which names the argument and says what to do."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rewright.errors import InputError
from tests.backends.torch.programs import program

TEXT = """
graph @main(%x: f32[s0, 4], %y: f32[2*s0 + 1, s1], %m: bool[s1], %n: int(u0), %z: f32[3]) -> f32[3]
  where s0 in {2..8} = dim(%x, 0), s1 in {1..} = dim(%y, 1), u0 in {-4..4} = %n
{
  %r = aten.neg(%z) : f32[3]
  return %r
}
"""


class Tagged(Tensor):
    """A subclass of the user's."""


def good() -> dict[str, object]:
    return {
        "x": torch.randn(2, 4),
        "y": torch.randn(5, 3),
        "m": torch.ones(3, dtype=torch.bool),
        "n": -2,
        "z": torch.randn(3),
    }


@pytest.fixture(scope="module")
def made():
    return program(TEXT)


def error(made, **changed) -> InputError:
    """The error of a call with some arguments changed."""
    with pytest.raises(InputError) as caught:
        made(*{**good(), **changed}.values())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_what_fits_is_taken(made):
    given = good()
    assert torch.equal(made(*given.values())[0], -given["z"])


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("z", 1.5, "z is 1.5, expected a tensor f32[3]", "torch.tensor(z)"),
        ("z", [1.0], "z is a list, expected a tensor f32[3]", "torch.tensor(z)"),
        ("z", np.ones(3), "z is a numpy.ndarray, expected a tensor", "torch.from_numpy(z)"),
        ("z", None, "z is None, expected a tensor f32[3]", None),
        ("z", torch.ones(3).double(), "z is f64, expected f32", "z.to(torch.float32)"),
        ("m", torch.ones(3), "m is f32, expected bool", "m.to(torch.bool)"),
        ("z", torch.ones(3, 1), "z has 2 dimensions [3, 1], expected f32[3]", None),
        ("x", torch.ones(()), "x has 0 dimensions [], expected f32[s0, 4]", None),
        ("z", torch.ones(4), "dimension 0 of z is 4, expected 3", "dynamic"),
        ("x", torch.ones(2, 5), "dimension 1 of x is 5, expected 4", "dynamic"),
        (
            "x",
            torch.ones(1, 4),
            "dimension 0 of x is 1, outside of its range: s0 is 1, expected 2 to 8",
            "wider range",
        ),
        ("x", torch.ones(9, 4), "s0 is 9, expected 2 to 8", "wider range"),
        ("y", torch.ones(5, 0), "s1 is 0, expected 1 to inf", "wider range"),
        ("n", 5, "n is 5, outside of its range: u0 is 5, expected -4 to 4", "wider range"),
        (
            "y",
            torch.ones(7, 3),
            "dimension 0 of y is 7, expected 5: it is 2*s0 + 1, and s0 is 2 by dimension 0 of x",
            None,
        ),
        (
            "m",
            torch.ones(4, dtype=torch.bool),
            "dimension 0 of m is 4, expected 3: it is s1, and s1 is 3 by dimension 1 of y",
            None,
        ),
        ("n", 2.0, "n is 2.0, expected int", "int(n)"),
        ("n", torch.tensor(2), "n is a tensor i64[], expected int", "int(n)"),
        ("n", True, "n is True, expected int", "int(n)"),
        ("z", torch.ones(3, device="meta"), "z is on meta, expected on cpu", "z.to('cpu')"),
        ("z", torch.ones(3).to_sparse(), "z has the layout torch.sparse_coo", "z.to_dense()"),
        ("x", torch.ones(2, 4).to_sparse_csr(), "layout torch.sparse_csr", "x.to_dense()"),
        ("z", torch.ones(3).to_mkldnn(), "layout torch._mkldnn", "z.to_dense()"),
        ("z", Tagged(torch.ones(3)), "z is a Tagged, expected a plain tensor", "torch.Tensor"),
        (
            "z",
            torch.ones(3, requires_grad=True),
            "z requires grad, but the program computes no gradients",
            "torch.no_grad(), or pass z.detach()",
        ),
    ],
)
def test_one_argument_that_does_not_fit(made, name, value, message, hint):
    found = error(made, **{name: value})
    assert found.name == name
    assert message in found.message
    assert (hint is None and found.hint is None) or hint in found.hint


@pytest.mark.filterwarnings("ignore:.*nested tensors.*")
def test_nested_tensors_are_refused(made):
    ragged = [torch.ones(2, 4), torch.ones(3, 4)]
    for layout in (torch.strided, torch.jagged):
        found = error(made, x=torch.nested.nested_tensor(ragged, layout=layout))
        assert "x is a NestedTensor, expected a plain tensor f32[s0, 4]" in found.message
        assert "to_padded_tensor" in found.hint


def test_fake_tensors_are_refused(made):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        z = torch.ones(3)
    assert "z is a FakeTensor" in error(made, z=z).message


def test_distributed_tensors_are_refused(made):
    from torch.distributed.tensor import DTensor

    z = torch.Tensor._make_wrapper_subclass(DTensor, (3,), dtype=torch.float32)
    found = error(made, z=z)
    assert "z is a DTensor, expected a plain tensor f32[3]" in found.message
    assert "full_tensor" in found.hint


def test_a_size_that_can_not_be():
    text = """
    graph @main(%y: f32[2*s0 + 1]) -> f32[2*s0 + 1]
      where s0 in {0..} with 2*s0 + 1 = dim(%y, 0)
    {
      %r = aten.neg(%y) : f32[2*s0 + 1]
      return %r
    }
    """
    made = program(text)
    assert made(torch.ones(5))[0].shape == (5,)
    with pytest.raises(InputError, match=r"dimension 0 of y is 4, expected 2\*s0 \+ 1 for a whole"):
        made(torch.ones(4))
    with pytest.raises(InputError, match=r"s0 is 9 for 2\*s0 \+ 1 = 19, expected 0 to 8"):
        program(text.replace("{0..}", "{0..8}"))(torch.ones(19))


def test_grad_is_refused_only_where_it_would_be_lost(made):
    z = torch.ones(3, requires_grad=True)
    given = {**good(), "z": z}
    with torch.no_grad():
        assert not made(*given.values())[0].requires_grad
    with torch.inference_mode():
        made(*given.values())


@pytest.mark.parametrize("count", [0, 4, 6])
def test_a_wrong_number_of_arguments(made, count):
    given = [*good().values(), None][:count]
    with pytest.raises(InputError, match=f"takes 5 arguments, got {count}") as caught:
        made(*given)
    assert caught.value.hint == "pass x, y, m, n, z"


def test_flat_arguments_have_no_names(made):
    with pytest.raises(InputError, match="'z' is given by name"):
        made(*[*good().values()][:4], z=torch.ones(3))


def test_a_type_error_of_torch_stays_one():
    """Only errors about the arguments become ours."""
    text = """
    graph @main(%x: f32[2]) -> f32[2] {
      %y = mylib.fails(%x) : f32[2]
      return %y
    }
    """
    library = torch.library.Library("mylib", "FRAGMENT")
    library.define("fails(Tensor x) -> Tensor")

    def fails(x: Tensor) -> Tensor:
        raise TypeError("not in the mood")

    library.impl("fails", fails, "CPU")
    with pytest.raises(TypeError, match="not in the mood"):
        program(text)(torch.ones(2))


def test_parameters_pass_for_tensors(made):
    given = {**good(), "z": nn.Parameter(torch.ones(3), requires_grad=False)}
    assert torch.equal(made(*given.values())[0], -torch.ones(3))
