"""Boxes of a small detector, named in ImageBind's space.

```
RT-DETR -> boxes that hold something -> one box a thing -> crops -> encoder -> nearest words
score = (the box's best class score) x (share of the word among all concepts)
```
A detector of a million weights finds where things are long before it tells them apart; the
encoder that ships tells them apart already. A crop that is nearest to another concept gets a
small share, so that strangers are left alone.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import normalize

from ibllm_tools.checkpoints import POCKET_FOLDER
from ibllm_tools.experts.boxes import RawBoxes, overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image as PilImage
    from torch import Tensor

LEAST_BOX_SCORE = 0.15
MAX_OVERLAP = 0.55  # of two boxes that are held to be one thing
MAX_BOXES = 24
SURE = 0.5
"""The score at which a box of the small detector surely holds something."""
LEAST_PX = 4
SHARPNESS = 40.0


def find_and_name(outputs: Any, picture: PilImage.Image, classes: Sequence[str]) -> RawBoxes:
    """Name the boxes that a detector proposes, by the encoder of pocket.

    Args:
        outputs: Of an RT-DETR for one picture: logits (1, Q, C) and boxes (1, Q, 4).
        picture: RGB.
        classes: Concepts of pocket that are named; boxes of others get small scores.

    Returns:
        One box a thing, with its likeliest class and its score.
    """
    boxes, scores = _propose(outputs, picture.size)
    if not len(boxes):
        return RawBoxes(boxes, scores, [])
    shares = _shares(boxes, picture, classes)
    best, named = shares.max(1)
    return RawBoxes(boxes, (scores / SURE).clamp(max=1.0) * best, [classes[int(i)] for i in named])


def _propose(outputs: Any, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The boxes (N, 4) in pixels that hold something, one a thing, and their scores (N,)."""
    width, height = size
    scores = outputs.logits[0].float().sigmoid().amax(-1).cpu()
    x, y, w, h = outputs.pred_boxes[0].float().cpu().unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).clamp(0, 1)
    corners = corners * torch.tensor([width, height, width, height])
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if scores[i] < LEAST_BOX_SCORE or len(kept) == MAX_BOXES:
            break
        box = tuple(corners[i].tolist())
        if min(box[2] - box[0], box[3] - box[1]) < LEAST_PX:
            continue
        if all(overlap(box, tuple(corners[j].tolist())) < MAX_OVERLAP for j in kept):
            kept.append(i)
    return corners[kept], scores[kept]


def _shares(boxes: Tensor, picture: PilImage.Image, classes: Sequence[str]) -> Tensor:
    """How much each crop is like each class (N, C), as a share of all concepts."""
    from ibllm_tools.engine import open_senses
    from ibllm_tools.media.items import Image

    crops = [[Image(pixels=_square(picture, tuple(box)))] for box in boxes.tolist()]
    names, words = _words()
    seen = open_senses(device="cpu").embed(crops)
    shares = (SHARPNESS * seen @ words.T).softmax(-1)
    return shares[:, [names.index(name) for name in classes]]


def _square(picture: PilImage.Image, box: tuple[float, float, float, float]) -> PilImage.Image:
    """What is in a box, as a square: the encoder would look at its middle alone."""
    side = max(1, round(max(box[2] - box[0], box[3] - box[1])))
    return picture.resize((side, side), box=box)


@cache
def _words() -> tuple[tuple[str, ...], Tensor]:
    """Names of pocket's concepts, and their words as vectors (C, D)."""
    from ibllm_tools.engine import open_senses
    from ibllm_tools.media.items import Text

    concepts = json.loads((POCKET_FOLDER / "concepts.json").read_text(encoding="utf-8"))
    senses, rows = open_senses(device="cpu"), []
    for concept in concepts:
        phrase = concept["phrase"]
        texts = [phrase, concept["name"], f"a photo of {phrase}", *concept["synonyms"][:2]]
        rows.append(senses.embed([[Text(text=text)] for text in texts]).mean(0))
    return tuple(c["name"] for c in concepts), normalize(torch.stack(rows), dim=-1)
