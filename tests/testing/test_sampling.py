"""Resize and grid sample against torch's own, and against formulas where torch has none."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.testing.networks import FLOATS, Net, close, out, trt

INTERPOLATION, SAMPLE = trt.InterpolationMode.__members__, trt.SampleMode.__members__
COORDINATE = trt.ResizeCoordinateTransformation.__members__
ROUND, SELECTOR = trt.ResizeRoundMode.__members__, trt.ResizeSelector.__members__


def resized(x: torch.Tensor, sizes: Any = None, dynamic: bool = False, **options: Any) -> Any:
    net = Net()
    layer = net.network.add_resize(net.input(x))
    for name, value in options.items():
        setattr(layer, name, value)
    if dynamic:
        layer.set_input(1, net.input(torch.tensor(sizes)))
    elif sizes is not None:
        layer.shape = sizes
    (got,) = net.evaluate(out(layer))
    return got


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("spatial", [((5, 6), (8, 4)), ((5, 6), (3, 13)), ((3, 4, 5), (6, 3, 8))])
@pytest.mark.parametrize("align", [False, True])
def test_linear(align: bool, spatial: Any, dynamic: bool, dtype: torch.dtype) -> None:
    old, new = spatial
    x = torch.randn(2, 3, *old).to(dtype)
    mode = "ALIGN_CORNERS" if align else "HALF_PIXEL"
    got = resized(x, (2, 3, *new), dynamic, resize_mode=INTERPOLATION["LINEAR"],
                  coordinate_transformation=COORDINATE[mode])  # fmt: skip
    kind = "bilinear" if len(old) == 2 else "trilinear"
    close(got, F.interpolate(x.double(), new, mode=kind, align_corners=align),
          None if dtype != torch.float32 else 1e-5)  # fmt: skip


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("new", [(8, 4), (3, 13), (10, 12)])
def test_cubic(align: bool, new: Any) -> None:
    x = torch.randn(2, 3, 5, 6)
    mode = "ALIGN_CORNERS" if align else "HALF_PIXEL"
    got = resized(x, (2, 3, *new), resize_mode=INTERPOLATION["CUBIC"],
                  coordinate_transformation=COORDINATE[mode])  # fmt: skip
    close(got, F.interpolate(x.double(), new, mode="bicubic", align_corners=align), 1e-5)


def test_cubic_without_what_is_outside() -> None:
    """Weights of the neighbours that exist, by Keys' formula, made to sum to 1 again."""
    x = torch.randn(1, 1, 4, 4)
    got = resized(
        x, (1, 1, 4, 7), resize_mode=INTERPOLATION["CUBIC"], cubic_coeff=-0.5,
        coordinate_transformation=COORDINATE["HALF_PIXEL"], exclude_outside=True,
    )  # fmt: skip

    def weight(d: float, a: float = -0.5) -> float:
        d = abs(d)
        if d <= 1:
            return ((a + 2) * d - (a + 3)) * d * d + 1
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0

    columns = []
    for j in range(7):
        place = (j + 0.5) * 4 / 7 - 0.5
        weights = torch.tensor([weight(place - k) for k in range(4)], dtype=torch.float64)
        columns.append(x[0, 0].double() @ (weights / weights.sum()))
    close(got[0, 0], torch.stack(columns, 1), 1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("new", [(10, 12), (3, 4), (7, 5)])
def test_nearest_as_torch_has_it(new: Any, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 5, 6).to(dtype)
    got = resized(x, (2, 3, *new))
    close(got, F.interpolate(x.double(), new, mode="nearest"))
    got = resized(x, (2, 3, *new), coordinate_transformation=COORDINATE["HALF_PIXEL"],
                  nearest_rounding=ROUND["HALF_UP"])  # fmt: skip
    close(got, F.interpolate(x.double(), new, mode="nearest-exact"))


@pytest.mark.parametrize(("rounding", "expected"), [
    # (i + 0.5) * 2 - 0.5 is 0.5, 2.5, 4.5
    ("HALF_UP", [1, 3, 5]), ("HALF_DOWN", [0, 2, 4]), ("FLOOR", [0, 2, 4]), ("CEIL", [1, 3, 5]),
])  # fmt: skip
def test_nearest_rounding(rounding: str, expected: list[int]) -> None:
    x = torch.arange(6.0).reshape(1, 1, 6)
    got = resized(x, (1, 1, 3), coordinate_transformation=COORDINATE["HALF_PIXEL"],
                  nearest_rounding=ROUND[rounding])  # fmt: skip
    assert got.flatten().tolist() == expected


def test_scales_and_asymmetric() -> None:
    x = torch.randn(1, 2, 4, 5)
    got = resized(x, scales=[1, 1, 1.9, 2.0], resize_mode=INTERPOLATION["LINEAR"],
                  coordinate_transformation=COORDINATE["ASYMMETRIC"])  # fmt: skip
    assert list(got.shape) == [1, 2, 7, 10]
    rows = torch.arange(7).double() * 4 / 7
    columns = (torch.arange(10).double() * 0.5).clamp(max=4)
    rows = rows.clamp(max=3)
    expected = torch.zeros(1, 2, 7, 10, dtype=torch.float64)
    for i, r in enumerate(rows.tolist()):
        for j, c in enumerate(columns.tolist()):
            r0, c0 = int(r), int(c)
            r1, c1 = min(r0 + 1, 3), min(c0 + 1, 4)
            top = x[0, :, r0, c0] * (1 - c + c0) + x[0, :, r0, c1] * (c - c0)
            low = x[0, :, r1, c0] * (1 - c + c0) + x[0, :, r1, c1] * (c - c0)
            expected[0, :, i, j] = top * (1 - r + r0) + low * (r - r0)
    close(got, expected, 1e-5)


@pytest.mark.parametrize(("selector", "expected"), [("FORMULA", 2.5), ("UPPER", 0.0)])
def test_resize_to_one_pixel(selector: str, expected: float) -> None:
    x = torch.arange(6.0).reshape(1, 1, 6)
    got = resized(x, (1, 1, 1), resize_mode=INTERPOLATION["LINEAR"],
                  coordinate_transformation=COORDINATE["HALF_PIXEL"],
                  selector_for_single_pixel=SELECTOR[selector])  # fmt: skip
    assert got.item() == expected


def sampled(x: Any, grid: Any, mode: str, border: str, align: bool) -> torch.Tensor:
    net = Net()
    layer = net.network.add_grid_sample(net.input(x), net.input(grid))
    layer.interpolation_mode, layer.sample_mode = INTERPOLATION[mode], SAMPLE[border]
    layer.align_corners = align
    (got,) = net.evaluate(out(layer))
    return got


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("border", ["FILL", "CLAMP", "REFLECT"])
@pytest.mark.parametrize("mode", ["NEAREST", "LINEAR", "CUBIC"])
def test_grid_sample(mode: str, border: str, align: bool) -> None:
    x, grid = torch.randn(2, 3, 5, 6), torch.rand(2, 4, 7, 2) * 3 - 1.5
    got = sampled(x, grid, mode, border, align)
    kernel = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}[mode]
    zeros = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}[border]
    close(got, F.grid_sample(x.double(), grid.double(), kernel, zeros, align), 2e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_grid_sample_of_volumes(dtype: torch.dtype) -> None:
    x, grid = torch.randn(1, 2, 3, 4, 5).to(dtype), (torch.rand(1, 2, 3, 4, 3) * 2 - 1).to(dtype)
    got = sampled(x, grid, "LINEAR", "CLAMP", True)
    close(got, F.grid_sample(x.double(), grid.double(), "bilinear", "border", True),
          None if dtype != torch.float32 else 1e-5)  # fmt: skip
