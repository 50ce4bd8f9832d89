"""Non-maximum suppression against a plain one in Python."""

from typing import Any

import pytest
import torch

from tests.testing.networks import Net, out, trt

FORMATS = trt.BoundingBoxFormat.__members__


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes given by any two opposite corners."""
    shared = 1.0
    for k in (0, 1):
        first, second = (sorted((box[k], box[k + 2])) for box in (a, b))
        shared *= max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    areas = (abs((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b))
    return shared / (sum(areas) - shared)


def plain(boxes: Any, scores: Any, most: int, iou: float, least: float) -> list[tuple[int, ...]]:
    """Boxes (B, N, C, 4) and scores (B, N, C), as nested lists."""
    kept = []
    for batch, of_batch in enumerate(scores):
        found = []
        for label in range(len(of_batch[0])):
            left = [box for box in range(len(of_batch)) if of_batch[box][label] > least]
            taken: list[int] = []
            while left and len(taken) < most:
                best = max(left, key=lambda box: of_batch[box][label])
                taken.append(best)
                left = [
                    box for box in left
                    if box != best
                    and overlap(boxes[batch][box][label], boxes[batch][best][label]) <= iou
                ]  # fmt: skip
            found += [(of_batch[box][label], batch, label, box) for box in taken]
        kept += [tuple(row[1:]) for row in sorted(found, reverse=True)]
    return kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize(("most", "iou", "least"), [(10, 0.3, 0.205), (2, 0.5, 0), (10, 1, 0.505)])
def test_nms(
    most: int, iou: float, least: float, form: str, shared: bool, dtype: torch.dtype
) -> None:
    batch, count, labels = 2, 12, 3
    corners = torch.rand(batch, count, 1 if shared else labels, 4)
    if form == "CENTER_SIZES":
        corners[..., 2:] = corners[..., 2:] * 0.5 + 0.1
    corners = corners.to(dtype)
    # No two scores are the same: the order of those is not defined.
    scores = torch.randperm(batch * count * labels).reshape(batch, count, labels).add(1).div(100)
    scores = scores.to(dtype)
    net = Net()
    layer = net.network.add_nms(
        net.input(corners[:, :, 0] if shared else corners), net.input(scores),
        net.constant(torch.tensor(most, dtype=torch.int32)), trt.int64,
    )  # fmt: skip
    layer.bounding_box_format = FORMATS[form]
    layer.set_input(3, net.constant(float(iou)))
    layer.set_input(4, net.constant(float(least)))
    indices, number = net.evaluate(out(layer), out(layer, 1))
    boxes = corners.float().expand(batch, count, labels, 4)
    if form == "CENTER_SIZES":
        half = boxes[..., 2:] / 2
        boxes = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)
    expected = plain(boxes.tolist(), scores.float().tolist(), most, iou, least)
    assert [tuple(row) for row in indices.tolist()] == expected
    assert number.item() == len(expected) and number.dtype == torch.int32
