"""What a caller sees beyond numbers: memory that is shared, strides, inputs written to."""

import pytest
import torch

from tests.backends.torch.programs import program, shares

BACKENDS = ["eager", pytest.param("inductor", marks=pytest.mark.slow)]
pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def test_an_output_that_is_an_input_is_copied(backend):
    made = program("graph @main(%x: f32[4]) -> f32[4] { return %x }", backend=backend)
    x = torch.randn(4)
    (y,) = made(x)
    assert torch.equal(x, y)
    assert not shares(x, y)


def test_an_output_that_is_a_constant_is_copied(backend):
    text = "graph @main() -> f32[4] { return @w } constants { parameter @w : f32[4] }"
    w = torch.randn(4)
    (y,) = program(text, {"w": w}, backend=backend)()
    assert torch.equal(w, y)
    assert not shares(w, y)


def test_an_output_that_is_there_twice_is_two_tensors(backend):
    text = """
    graph @main(%x: f32[4]) -> (f32[4], f32[4]) {
      %y = aten.neg(%x) : f32[4]
      return %y, %y
    }
    """
    a, b = program(text, backend=backend)(torch.randn(4))
    assert torch.equal(a, b)
    assert not shares(a, b)


def test_a_view_that_eager_did_not_return_as_one_is_copied(backend):
    text = """
    graph @main(%x: f32[4, 2]) -> (f32[2, 4], f32[2], f32[8]) {
      %t = aten.transpose.int(%x, 0, 1) : f32[2, 4]
      %r = aten.select.int(%x, 0, 1) : f32[2]
      %v = aten.reshape(%x, [8]) : f32[8]
      return %t, %r, %v
    }
    """
    x = torch.randn(4, 2)
    outputs = program(text, backend=backend)(x)
    for output, expected in zip(outputs, (x.t(), x[1], x.flatten()), strict=True):
        assert torch.equal(output, expected)
        assert output.is_contiguous()
        assert not shares(output, x)


def test_outputs_that_eager_lets_share_memory_are_not_copied(backend):
    text = """
    graph @main(%x: f32[4, 6]) -> (f32[4, 3], f32[4, 3], f32[4, 3]) {
      %y = aten.neg(%x) : f32[4, 6]
      %a, %b = aten.split.Tensor(%y, 3, 1) : f32[4, 3], f32[4, 3]
      return %a {strides=[6, 1]}, %b {strides=[6, 1], shares=output(0)}, %a {strides=[6, 1]}
    }
    """
    x = torch.randn(4, 6)
    a, b, c = program(text, backend=backend)(x)
    assert torch.equal(torch.cat([a, b], 1), -x)
    assert shares(a, b)
    assert not shares(a, c)
    assert {a.stride(), b.stride(), c.stride()} == {(6, 1)}


def test_an_alias_is_made_from_its_base(backend):
    text = """
    graph @main(%x: f32[s0, 4]) -> (f32[s0, 4], f32[2*s0], f32[2], f32[s0, 2])
      where s0 in {2..8} = dim(%x, 0)
    {
      %a, %c = aten.split.Tensor(%x, 2, 1) : f32[s0, 2], f32[s0, 2]
      %f = aten.reshape(%a, [2*s0]) : f32[2*s0]
      %g = aten.slice.Tensor(%f, 0, 0, 2) : f32[2]
      return %x {alias=%x},
        %f {alias=%x |> aten.slice.Tensor(1, 0, 2) |> aten.reshape([2*s0])},
        %g {alias=output(1) |> aten.slice.Tensor(0, 0, 2)},
        %c {alias=%x |> aten.split.Tensor(2, 1)[1]}
    }
    """
    made = program(text, backend=backend)
    x = torch.randn(3, 4)
    same, flat, part, half = made(x)
    assert same is x
    assert torch.equal(flat, x[:, :2].flatten())
    assert shares(part, flat)
    assert torch.equal(half, x[:, 2:])
    x.zero_()
    assert not half.any()


def test_aliases_see_what_is_written_back(backend):
    text = """
    graph @main(%x: f32[4]) -> (f32[2], f32[4], f32[4]) {
      %y = aten.add.Tensor(%x, 1.0) : f32[4]
      %v = aten.slice.Tensor(%y, 0, 0, 2) : f32[2]
      return %v {alias=%x |> aten.slice.Tensor(0, 0, 2)}, %x, %y
      writeback %x = %y
    }
    """
    x = torch.zeros(4)
    view, old, new = program(text, backend=backend)(x)
    assert x.tolist() == [1.0] * 4
    assert view.tolist() == [1.0] * 2
    assert shares(view, x)
    assert old.tolist() == [0.0] * 4
    assert new.tolist() == [1.0] * 4
    assert not shares(new, x)


def test_write_backs_are_simultaneous(backend):
    text = """
    graph @main(%a: f32[2, 2], %b: f32[2, 2], %c: f32[2, 2]) -> () {
      %t = aten.transpose.int(%c, 0, 1) : f32[2, 2]
      return
      writeback %a = %b
      writeback %b = %a
      writeback %c = %t
    }
    """
    a, b, c = torch.randn(3, 2, 2)
    old = a.clone(), b.clone(), c.clone()
    assert program(text, backend=backend)(a, b, c) == []
    assert torch.equal(a, old[1])
    assert torch.equal(b, old[0])
    assert torch.equal(c, old[2].t())


def test_buffers_are_written_in_place(backend):
    text = """
    graph @main(%x: f32[]) -> f32[] {
      %n = aten.add.Tensor(@count, %x) : f32[]
      return %n
      writeback @count = %n
    }
    constants { buffer @count : f32[] }
    """
    count = torch.zeros(())
    made = program(text, {"count": count}, backend=backend)
    assert [made(torch.tensor(2.0))[0].item() for _ in range(3)] == [2.0, 4.0, 6.0]
    assert count.item() == 6.0


@pytest.mark.parametrize("strides", [(4, 1), (1, 3), (8, 2), (0, 1), (1, 0), (0, 0)])
def test_outputs_have_eagers_strides(backend, strides):
    text = f"""
    graph @main(%x: f32[3, 4]) -> f32[3, 4] {{
      %y = aten.neg(%x) : f32[3, 4]
      return %y {{strides=[{strides[0]}, {strides[1]}]}}
    }}
    """
    x = torch.randn(1, 1).expand(3, 4) if 0 in strides else torch.randn(3, 4)
    (y,) = program(text, backend=backend)(x)
    assert torch.equal(y, -x)
    assert y.stride() == strides


def test_strides_that_depend_on_sizes(backend):
    text = """
    graph @main(%x: f32[s0, s1]) -> (f32[s1, s0], f32[s1, s0])
      where s0 in {2..} = dim(%x, 0), s1 in {2..} = dim(%x, 1)
    {
      %y = aten.neg(%x) : f32[s0, s1]
      %t = aten.transpose.int(%y, 0, 1) : f32[s1, s0]
      return %t {strides=[1, s1]}, %t
    }
    """
    made = program(text, backend=backend)
    for shape in ((2, 3), (5, 4)):
        x = torch.randn(shape)
        a, b = made(x)
        assert torch.equal(a, -x.t())
        assert torch.equal(b, -x.t())
        assert a.stride() == (1, shape[1])
        assert b.is_contiguous()


def test_strides_of_dimensions_of_one_are_eagers_too(backend):
    text = """
    graph @main(%x: f32[1, 4]) -> f32[4, 1] {
      %y = aten.neg(%x) : f32[1, 4]
      %t = aten.transpose.int(%y, 0, 1) : f32[4, 1]
      return %t
    }
    """
    (y,) = program(text, backend=backend)(torch.randn(1, 4))
    assert y.stride() == (1, 1)


def test_outputs_that_are_no_tensors(backend):
    text = """
    graph @main(%x: f32[s0], %n: int(s1)) -> (none, int(s0 + s1), int, bool)
      where s0 in {1..} = dim(%x, 0), s1 in {0..} = %n
    {
      %a = rw.scalar(None) : none
      %b = rw.scalar(s0 + s1) : int(s0 + s1)
      %c = rw.scalar(7) : int
      %d = rw.scalar(True) : bool
      return %a, %b, %c, %d
    }
    """
    assert program(text, backend=backend)(torch.randn(3), 4) == [None, 7, 7, True]


def test_any_layout_of_inputs_is_right(backend):
    text = """
    graph @main(%x: f32[2, 3, 4, 4]) -> f32[2, 5, 4, 4] {
      %y = aten.conv2d(%x, @w, None, [1, 1], [1, 1]) : f32[2, 5, 4, 4]
      %z = aten.add.Tensor(%y, 1.0) : f32[2, 5, 4, 4]
      return %z
    }
    constants { parameter @w : f32[5, 3, 3, 3] }
    """
    w = torch.randn(5, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    made = program(text, {"w": w}, backend=backend)
    x = torch.randn(2, 3, 4, 4)
    expected = torch.nn.functional.conv2d(x, w, padding=1) + 1
    for given in (x, x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        (y,) = made(given)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        assert y.is_contiguous()
