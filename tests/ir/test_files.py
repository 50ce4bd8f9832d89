"""Graphs in files: text and weights come back as they were."""

from pathlib import Path

import pytest
import torch

from rewright.errors import ArtifactError, ParseError, RewrightError
from rewright.ir.files import dump_graph, load_graph
from rewright.ir.graph import Graph
from rewright.ir.types import TensorType
from tests.ir.compare import assert_same


def graph_with(**data: torch.Tensor) -> Graph:
    """A graph that has the tensors as sources."""
    graph = Graph("weights")
    for name, tensor in data.items():
        kind = TensorType(tensor.dtype, tuple(tensor.shape))
        graph.add_constant(name, kind, data=tensor)
    graph.set_outputs([*graph.constants.values()])
    return graph


def test_text_and_weights_come_back(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    graph = graph_with(
        plain=torch.randn(3),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        transposed=base.t(),
        part=base[1:, ::2],
        scalar=torch.tensor(3),
        empty=torch.zeros(0, 5),
        flags=torch.tensor([True, False]),
        half=torch.randn(3, dtype=torch.bfloat16),
        small=torch.randn(3).to(torch.float8_e4m3fn),
        scale=torch.tensor([1.0, 4.0]).to(torch.float8_e8m0fnu),
        words=torch.tensor([0, 1, 65535], dtype=torch.uint16),
        wave=torch.randn(2, 2, dtype=torch.complex128).conj(),
        point=torch.tensor(1 + 2j, dtype=torch.complex64),
        noisy=torch.tensor([float("nan"), -0.0, float("inf")]),
    )
    graph.add_constant("@odd name/", TensorType(torch.float32, (1,)), data=torch.ones(1))
    path = dump_graph(graph, tmp_path / "deep" / "014-fuse.before")
    assert path == tmp_path / "deep" / "014-fuse.before.ir"
    loaded = load_graph(path)
    assert_same(graph, loaded)
    for name, constant in graph.constants.items():
        found, data = loaded.constants[name].data, constant.data
        assert found is not None
        assert found.dtype == data.dtype
        assert found.shape == data.shape
        wanted = data.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(found.reshape(-1).view(torch.uint8), wanted), name


def test_weights_can_be_left_out(tmp_path: Path) -> None:
    graph = graph_with(w=torch.randn(3))
    dump_graph(graph, tmp_path / "g.ir", weights=False)
    assert [path.name for path in tmp_path.iterdir()] == ["g.ir"]
    assert load_graph(tmp_path / "g").constants["w"].data is None


def test_what_has_no_numbers_is_left_out(tmp_path: Path) -> None:
    graph = graph_with(w=torch.randn(3), m=torch.empty(3, device="meta"))
    graph.add_constant("later", TensorType(torch.float32, (3,)))
    loaded = load_graph(dump_graph(graph, tmp_path / "g"))
    assert [n for n, c in loaded.constants.items() if c.data is not None] == ["w"]


def test_prepared_constants_are_made_again(tmp_path: Path) -> None:
    graph = graph_with(w=torch.randn(3))
    prepared = graph.add_prepared("p", graph.constants["w"])
    prepared.data = torch.ones(3)
    assert load_graph(dump_graph(graph, tmp_path / "g")).constants["p"].data is None


def test_weights_can_be_put_elsewhere(tmp_path: Path) -> None:
    graph = graph_with(w=torch.randn(3))
    graph.device = "cuda:0"
    path = dump_graph(graph, tmp_path / "g")
    assert load_graph(path, device="cpu").constants["w"].data.device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ArtifactError, match="@w can't be put on cuda:0") as caught:
            load_graph(path)
        assert caught.value.hint is not None
        assert 'device="cpu"' in caught.value.hint


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantized_tensors_are_refused(tmp_path: Path) -> None:
    graph = graph_with(q=torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8))
    with pytest.raises(RewrightError, match="@q is a Tensor that safetensors can't store"):
        dump_graph(graph, tmp_path / "g")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "f32[3]",
            "f32[4]",
            r"the weights of @w are torch.float32 of \(3,\), but the text says f32",
        ),
        ("f32[3]", "f16[3]", r"but the text says f16\[3\]"),
        ("@w", "@v", "there are weights of @w, which is no source"),
    ],
)
def test_weights_must_fit_the_text(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = dump_graph(graph_with(w=torch.randn(3)), tmp_path / "g")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        load_graph(path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = dump_graph(graph_with(w=torch.randn(3)), tmp_path / "g")
    (tmp_path / "g.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="the weights can't be read") as caught:
        load_graph(path)
    assert caught.value.path == str(tmp_path / "g.safetensors")
    path.write_text("graph")
    with pytest.raises(ParseError) as parse:
        load_graph(path)
    assert parse.value.file == str(path)
