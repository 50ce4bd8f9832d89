"""Layers that move elements, against torch's own indexing."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rewright.errors import EngineError
from tests.testing.networks import FLOATS, Net, close, out, trt

MOVED = [*FLOATS, torch.int32, torch.int64, torch.bool, torch.int8]
SAMPLE, GATHER, SCATTER = (
    each.__members__ for each in (trt.SampleMode, trt.GatherMode, trt.ScatterMode)
)


def values(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(shape).mul(9).to(dtype)


@pytest.mark.parametrize("dtype", MOVED, ids=str)
def test_dynamic_shuffle_to_sizes_computed_in_the_network(dtype: torch.dtype) -> None:
    x = values(dtype, 4, 3, 5)
    net = Net()
    tensor = net.input(x, (-1, 3, -1))
    sizes = out(net.network.add_shape(tensor))
    flat = net.network.add_concatenation([
        out(net.network.add_slice(sizes, (2,), (1,), (1,))), net.constant([-1]),
    ])  # fmt: skip
    layer = net.network.add_shuffle(tensor)
    layer.first_transpose = (2, 0, 1)
    layer.set_input(1, out(flat))
    layer.second_transpose = (1, 0)
    got, shape = net.evaluate(out(layer), sizes)
    close(got, x.permute(2, 0, 1).reshape(5, -1).T)
    assert shape.tolist() == [4, 3, 5] and shape.dtype == torch.int64


def test_reshape_of_an_empty_tensor() -> None:
    net = Net()
    tensor = net.input(torch.zeros(0, 4), (-1, 4))
    for sizes in ((-1, 2, 2), (0, 2, 2)):
        layer = net.network.add_shuffle(tensor)
        layer.reshape_dims = sizes
        net.network.mark_output(out(layer))
    last = net.network.add_identity(tensor)
    assert [list(each.shape) for each in net.evaluate(out(last))] == [[0, 2, 2], [0, 2, 2], [0, 4]]


@pytest.mark.parametrize("dtype", MOVED, ids=str)
def test_squeeze_and_unsqueeze(dtype: torch.dtype) -> None:
    x = values(dtype, 1, 4, 1, 3)
    net = Net()
    tensor = net.input(x)
    less = net.network.add_squeeze(tensor, net.constant([0, -2]))
    none = net.network.add_squeeze(tensor)
    more = net.network.add_unsqueeze(tensor, net.constant([1, -1]))
    got = net.evaluate(out(less), out(none), out(more))
    close(got[0], x.reshape(4, 3))
    close(got[1], x.reshape(4, 3))
    close(got[2], x.reshape(1, 1, 4, 1, 3, 1))


@pytest.mark.parametrize("dtype", [*MOVED, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_concatenation(axis: int, dtype: torch.dtype) -> None:
    parts = [torch.randn(2, 3).to(dtype), torch.randn(2, 3).to(dtype)]
    net = Net()
    layer = net.network.add_concatenation([net.input(part) for part in parts])
    layer.axis = axis
    (got,) = net.evaluate(out(layer))
    assert got.dtype == dtype
    close(got.float(), torch.cat([part.float() for part in parts], axis))


@pytest.mark.parametrize("dtype", MOVED, ids=str)
@pytest.mark.parametrize("mode", ["WRAP", "CLAMP", "REFLECT", "FILL"])
def test_slice_out_of_bounds_is_torch_pad(mode: str, dtype: torch.dtype) -> None:
    x = values(dtype, 2, 4, 5)
    fill = torch.tensor(3).to(dtype)
    net = Net()
    layer = net.network.add_slice(net.input(x), (0, -2, -3), (2, 7, 10), (1, 1, 1))
    layer.mode = SAMPLE[mode]
    if mode == "FILL":
        layer.set_input(4, net.constant(fill))
    (got,) = net.evaluate(out(layer))
    mode = {"WRAP": "circular", "CLAMP": "replicate", "REFLECT": "reflect", "FILL": "constant"}[
        mode
    ]
    more = {"value": fill.item()} if mode == "constant" else {}
    close(got, F.pad(x.double()[None], [3, 2, 2, 1], mode, **more)[0])


def test_slice_out_of_bounds_with_strict_bounds_is_refused() -> None:
    net = Net()
    layer = net.network.add_slice(net.input(torch.randn(4), (-1,)), (0,), (5,), (1,))
    with pytest.raises(EngineError, match="leave axis 0 of size 4"):
        net.evaluate(out(layer))


def test_slice_of_a_dynamic_shape() -> None:
    x = torch.randn(6, 5)
    net = Net()
    tensor = net.input(x, (-1, 5))
    start = net.input(torch.tensor([5, 0]))
    size = net.input(torch.tensor([3, 2]))
    layer = net.network.add_slice(tensor, (0, 0), (0, 0), (-2, 2))
    layer.set_input(1, start)
    layer.set_input(2, size)
    (got,) = net.evaluate(out(layer))
    close(got, x[[5, 3, 1]][:, [0, 2]])


@pytest.mark.parametrize("dtype", MOVED, ids=str)
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
def test_gather_of_every_mode(dtype: torch.dtype, index: torch.dtype) -> None:
    x = values(dtype, 3, 4, 5)
    rows = torch.tensor([[2, 0], [1, 3]], dtype=index)
    net = Net()
    tensor = net.input(x, (-1, 4, 5))
    made = []
    for mode, indices, axis, batch in (
        ("DEFAULT", rows, 1, 0),
        ("ELEMENT", torch.zeros(2, 4, 5, dtype=index) + 1, 0, 0),
        ("ND", rows, 0, 0),
        ("ND", torch.tensor([[1], [0], [3]], dtype=index), 0, 1),
    ):
        layer = net.network.add_gather_v2(tensor, net.input(indices), GATHER[mode])
        if mode != "ND":
            layer.axis = axis
        layer.num_elementwise_dims = batch
        made.append(out(layer))
    got = net.evaluate(*made)
    close(got[0], x[:, rows.long()])
    close(got[1], x[[1, 1]])
    close(got[2], x[[2, 1], [0, 3]])
    close(got[3], x[torch.arange(3), [1, 0, 3]])


def test_gather_out_of_bounds_reads_zero() -> None:
    x = torch.randn(3, 2) + 5
    indices = torch.tensor([0, 7, -1, -4])
    net = Net()
    layer = net.network.add_gather(net.input(x), net.input(indices), 0)
    (got,) = net.evaluate(out(layer))
    close(got, torch.stack([x[0], torch.zeros(2), x[2], torch.zeros(2)]))


@pytest.mark.parametrize("dtype", MOVED, ids=str)
def test_scatter(dtype: torch.dtype) -> None:
    x = values(dtype, 3, 5)
    rows, updates = torch.tensor([[1, 0, -1], [2, 3, 4]]), values(dtype, 2, 3)
    places, cells = torch.tensor([[2, 0], [0, 3]]), values(dtype, 2)
    whole, lines = torch.tensor([[2], [0]]), values(dtype, 2, 5)
    net = Net()
    tensor = net.input(x)
    element = net.network.add_scatter(
        tensor, net.input(rows), net.input(updates), SCATTER["ELEMENT"]
    )
    element.axis = 1
    nd = net.network.add_scatter(tensor, net.input(places), net.input(cells), SCATTER["ND"])
    wide = net.network.add_scatter(tensor, net.input(whole), net.input(lines), SCATTER["ND"])
    got = net.evaluate(out(element), out(nd), out(wide))
    close(got[0], x.scatter(1, rows % 5, updates))
    expected = x.clone()
    expected[[2, 0], [0, 3]] = cells
    close(got[1], expected)
    expected = x.clone()
    expected[[2, 0]] = lines
    close(got[2], expected)


def test_scatter_out_of_bounds_is_refused() -> None:
    net = Net()
    layer = net.network.add_scatter(
        net.input(torch.zeros(3)), net.input(torch.tensor([3])), net.input(torch.ones(1)),
        SCATTER["ELEMENT"],
    )  # fmt: skip
    with pytest.raises(EngineError, match="out of bounds"):
        net.evaluate(out(layer))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("pre", "post"), [((1, 2), (0, 3)), ((-1, 0), (2, -2))])
def test_padding(pre: Any, post: Any, dtype: torch.dtype) -> None:
    x = values(dtype, 1, 2, 4, 5)
    net = Net()
    (got,) = net.evaluate(out(net.network.add_padding_nd(net.input(x), pre, post)))
    close(got, F.pad(x, [pre[1], post[1], pre[0], post[0]]))


@pytest.mark.parametrize(("batch", "sequence"), [(1, 0), (0, 1), (0, 2)])
def test_reverse_sequence(batch: int, sequence: int) -> None:
    x = torch.randn(4, 3, 5)
    lengths = torch.tensor([1, 0, x.shape[sequence], 2][: x.shape[batch]])
    net = Net()
    layer = net.network.add_reverse_sequence(net.input(x), net.input(lengths))
    layer.batch_axis, layer.sequence_axis = batch, sequence
    (got,) = net.evaluate(out(layer))
    expected = x.clone()
    for item, length in enumerate(lengths.tolist()):
        row = x.select(batch, item)
        along = sequence - (batch < sequence)
        turned = row.narrow(along, 0, length).flip(along)
        expected.select(batch, item).narrow(along, 0, length).copy_(turned)
    close(got, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_non_zero(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 1, 0], [2, 0, 3]])
    net = Net()
    kind = trt.int32 if dtype == torch.int32 else trt.int64
    (got,) = net.evaluate(out(net.network.add_non_zero(net.input(x), kind)))
    assert got.tolist() == [[0, 1, 1], [1, 0, 2]] and got.dtype == dtype


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot(axis: int) -> None:
    indices = torch.tensor([[0, 3, 1], [2, 1, 3]])
    net = Net()
    layer = net.network.add_one_hot(
        net.input(indices, (-1, 3)), net.constant([0.0, 1.0]), net.constant(4), axis
    )
    (got,) = net.evaluate(out(layer))
    close(got, F.one_hot(indices, 4).movedim(-1, axis))
