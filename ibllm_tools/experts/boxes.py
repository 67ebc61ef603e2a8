"""Boxes of objects: from what models give to what is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ibllm_tools.errors import ModelError
from ibllm_tools.experts.results import Detection, Detections

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

MAX_DETECTIONS = 100
MAX_OVERLAP = 0.5  # of two boxes of one label that are held to be one object


class RawBoxes(NamedTuple):
    """Boxes as a model gives them: (N, 4) x0 y0 x1 y1 in pixels, (N,) scores, N labels."""

    boxes: Tensor
    scores: Tensor
    labels: list[str]


def to_detections(raw: RawBoxes, size: tuple[int, int], model: str) -> Detections:
    """Clip boxes to the picture, drop empty ones, and keep the `MAX_DETECTIONS` surest.

    Args:
        raw: What the model gave.
        size: (width, height) of the picture in pixels.
        model: The checkpoint's name.

    Raises:
        ModelError: A box or score is NaN or infinite.
    """
    width, height = size
    boxes, scores = raw.boxes.float().cpu(), raw.scores.float().cpu()
    if not bool(boxes.isfinite().all() and scores.isfinite().all()):
        raise ModelError(f"{model} gave boxes of NaN or infinity; open it with dtype='float32'")
    found = []
    for box, score, label in zip(boxes.tolist(), scores.tolist(), raw.labels, strict=True):
        x0, x1 = (round(min(max(x, 0.0), width), 2) for x in box[::2])
        y0, y1 = (round(min(max(y, 0.0), height), 2) for y in box[1::2])
        if x1 > x0 and y1 > y0:
            score = round(min(max(score, 0.0), 1.0), 4)
            found.append(Detection(label=label, score=score, box=(x0, y0, x1, y1)))
    found.sort(key=lambda detection: -detection.score)
    return Detections(
        detections=found[:MAX_DETECTIONS], width_px=width, height_px=height, model=model
    )


def without_doubles(detections: Detections) -> Detections:
    """Drop boxes that overlap a surer one of the same label by more than `MAX_OVERLAP`.

    Detectors of the DETR family do this by themselves; open-vocabulary ones do not.
    """
    kept: list[Detection] = []
    for found in detections.detections:
        same = (other.box for other in kept if other.label == found.label)
        if _largest_overlap(found.box, same) <= MAX_OVERLAP:
            kept.append(found)
    return detections.model_copy(update={"detections": kept})


Box = tuple[float, float, float, float]


def _largest_overlap(box: Box, others: Iterable[Box]) -> float:
    return max((overlap(box, other) for other in others), default=0.0)


def overlap(a: Box, b: Box) -> float:
    """Return the intersection over the union of two boxes, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)
