"""Layers that decide: assertion, non-maximum suppression."""

from typing import TypeAlias

import torch

from rewright.errors import EngineError
from rewright.testing.layer import Layer

__all__ = ["assertion", "nms"]

Tensor: TypeAlias = torch.Tensor


def assertion(layer: Layer, condition: Tensor) -> tuple[Tensor, ...]:
    """Nothing; an error with the layer's message where an element of ``condition`` is False."""
    if not bool(condition.all()):
        raise EngineError(f"assertion failed: {layer.native.message}", where=layer.where)
    return ()


def nms(
    layer: Layer,
    boxes: Tensor,
    scores: Tensor,
    limit: Tensor,
    iou_threshold: Tensor | None = None,
    score_threshold: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The (batch, class, box) indices (N, 3) of the boxes that are kept, and N.

    For each batch item and class, boxes of a score above the threshold are taken in descending
    order of it, unless they overlap one already taken by more than ``iou_threshold``. boxes are (B,
    N, 4), or (B, N, C, 4) with boxes of their own for each class; scores (B, N, C). Within a batch
    item, the result is in descending order of score.
    """
    overlap = 0.0 if iou_threshold is None else float(iou_threshold)
    least = 0.0 if score_threshold is None else float(score_threshold)
    most = int(limit)
    corners = _corners(layer, boxes.float())
    per_class = corners if corners.dim() == 4 else corners.unsqueeze(2).expand(*scores.shape, 4)
    kept: list[tuple[int, int, int]] = []
    for batch in range(scores.shape[0]):
        found = [
            (float(scores[batch, box, label]), label, box)
            for label in range(scores.shape[2])
            for box in _suppressed(
                per_class[batch, :, label], scores[batch, :, label].float(), overlap, least,
                most, layer.native.topk_box_limit,
            )
        ]  # fmt: skip
        found.sort(key=lambda entry: -entry[0])
        kept += [(batch, label, box) for _, label, box in found]
    indices = torch.tensor(kept, dtype=layer.output_dtype(0)).reshape(-1, 3)
    return indices, torch.tensor(len(kept), dtype=layer.output_dtype(1))


def _corners(layer: Layer, boxes: Tensor) -> Tensor:
    """Boxes as (left, top, right, bottom)."""
    form = layer.option("bounding_box_format")
    first, second = boxes[..., :2], boxes[..., 2:]
    if form == "CENTER_SIZES":
        first, second = first - second / 2, first + second / 2
    elif form != "CORNER_PAIRS":
        raise layer.refuse(f"bounding box format {form} is not known here")
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _suppressed(
    boxes: Tensor, scores: Tensor, overlap: float, least: float, most: int, considered: int
) -> list[int]:
    ranked = scores.sort(descending=True, stable=True).indices
    candidates = [int(box) for box in ranked if scores[box] > least][:considered]
    taken: list[int] = []
    for box in candidates:
        if len(taken) == most:
            break
        if all(_iou(boxes[box], boxes[other]) <= overlap for other in taken):
            taken.append(box)
    return taken


def _iou(a: Tensor, b: Tensor) -> float:
    """The area two boxes share, by the area of both together."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    shared = float(sides.prod())
    both = float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - shared
    return shared / both if both > 0 else 0.0
