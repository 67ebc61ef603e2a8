"""Boxes of a small detector, named with the help of ImageBind's encoder.

```
RT-DETR -> boxes, own scores of the classes ────────────────┐
              └─ crops -> encoder -> likeness to each class ─┴─ logistic mix -> one box a thing
```
A detector of a million weights finds where things are long before it tells them apart; the
encoder that ships tells them apart already, so both are asked. The likeness is linear in the
encoder's space: one direction a class, and one for anything else, so that strangers are left
alone. How much each opinion weighs is learned (`naming_fit`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ibllm_tools.experts.boxes import RawBoxes

if TYPE_CHECKING:
    from PIL import Image as PilImage

NAMING_FILE = "naming.safetensors"
LEAST_BOX_SCORE = 0.08  # of a box that is looked at by the encoder
MAX_SHARED = 0.75  # overlap of two boxes of which the encoder sees but one
VOTES_FROM = 0.6  # overlap of boxes whose opinions count for one box
MAX_OVERLAP = 0.5  # of two boxes that are held to be one thing
MAX_INSIDE = 0.7  # share of a box within a surer one; both are held to be one thing
MAX_BOXES = 24
LEAST_PX = 4
ASKED = 2.0
"""What is asked for is likelier to be there than any other class: so much is added to its logit.

Of things that a question counts, 78 % are counted right with it and 61 % without (500 composed
scenes); of things that are not there 92 % are still told absent (95 %).
"""


@dataclass(frozen=True)
class Proposals:
    """Boxes that may hold something.

    Attributes:
        boxes: (N, 4) x0, y0, x1, y1 in pixels.
        own: (N, C) logits of the detector, the largest of all boxes at that place.
        crops: (N, D) what the encoder makes of each, of length 1.
    """

    boxes: Tensor
    own: Tensor
    crops: Tensor


@dataclass(frozen=True)
class Namer:
    """What was learned about naming.

    Attributes:
        weight: (C + 1, D) directions of the classes in the encoder's space; the last is for
            anything else.
        bias: (C + 1,) of the same.
        mix: (3,) weights of the detector's logit and of the likeness's logarithm, and a constant.
    """

    weight: Tensor
    bias: Tensor
    mix: Tensor

    @classmethod
    def load(cls, folder: Path) -> Namer:
        """Read the file that `save` wrote."""
        from safetensors.torch import load_file

        return cls(**load_file(folder / NAMING_FILE))

    def save(self, folder: Path) -> None:
        """Write `naming.safetensors` beside a detector's weights."""
        from safetensors.torch import save_file

        save_file(vars(self), folder / NAMING_FILE)

    def find(
        self,
        outputs: Any,
        picture: PilImage.Image,
        classes: list[str],
        asked: Collection[str] = (),
    ) -> RawBoxes:
        """Name the boxes that a detector proposes.

        Args:
            outputs: Of an RT-DETR for one picture: logits (1, Q, C) and boxes (1, Q, 4).
            picture: RGB.
            classes: Names of the C classes.
            asked: Those of them that are looked for.

        Returns:
            One box a thing, the surest first, with its likeliest class and how likely that is.
        """
        proposals = propose(outputs, picture)
        prior = torch.tensor([ASKED * (name in asked) for name in classes])
        scores, named = (self.logits(proposals) + prior).sigmoid().max(-1)
        kept = one_box_a_thing(proposals.boxes, scores)
        names = [classes[int(named[i])] for i in kept]
        return RawBoxes(proposals.boxes[kept], scores[kept], names)

    def likeness(self, crops: Tensor) -> Tensor:
        """Logarithms of how much crops (N, D) are like each class: (N, C)."""
        shares: Tensor = (crops @ self.weight.T + self.bias).log_softmax(-1)
        return shares[:, :-1]

    def logits(self, proposals: Proposals) -> Tensor:
        """How likely each box holds a thing of each class: (N, C), before the sigmoid."""
        own, like, constant = self.mix
        mixed: Tensor = own * proposals.own + like * self.likeness(proposals.crops) + constant
        return mixed


def propose(outputs: Any, picture: PilImage.Image) -> Proposals:
    """Choose the boxes that may hold something, and show their crops to the encoder."""
    logits = outputs.logits[0].float().cpu()
    x, y, w, h = outputs.pred_boxes[0].float().cpu().unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).clamp(0, 1)
    corners = corners * torch.tensor([*picture.size, *picture.size])
    scores = logits.sigmoid().amax(-1)
    large = (corners[:, 2:] - corners[:, :2]).amin(-1) >= LEAST_PX
    chosen = torch.nonzero((scores >= LEAST_BOX_SCORE) & large).flatten()
    boxes = corners[chosen]
    kept = _surest(scores[chosen], shared_parts(boxes, boxes)[0] >= MAX_SHARED)[:MAX_BOXES]
    boxes = boxes[kept]
    votes = shared_parts(boxes, corners)[0] >= VOTES_FROM  # (N, Q)
    own = torch.where(votes[:, :, None], logits[None], -torch.inf).amax(1)
    return Proposals(boxes, own, _see(boxes, picture))


def one_box_a_thing(boxes: Tensor, scores: Tensor) -> list[int]:
    """Which of boxes (N, 4) with scores (N,) stay, the surest first: one of those that coincide."""
    union, inside = shared_parts(boxes, boxes)
    return _surest(scores, (union >= MAX_OVERLAP) | (inside >= MAX_INSIDE))


def _surest(scores: Tensor, is_same: Tensor) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if not is_same[i, kept].any():
            kept.append(i)
    return kept


def shared_parts(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """What boxes (N, 4) and others (M, 4) share, of their union and of the smaller one: (N, M)."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    first, second = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, others))
    both = first[:, None] + second[None] - shared
    return shared / both, shared / torch.minimum(first[:, None], second[None])


def _see(boxes: Tensor, picture: PilImage.Image) -> Tensor:
    from ibllm_tools.engine import open_senses
    from ibllm_tools.media.items import Image

    senses = open_senses(device="cpu")
    crops = [[Image(pixels=_square(picture, tuple(box)))] for box in boxes.tolist()]
    return senses.embed(crops) if crops else torch.zeros(0, senses.encoder.config.joint_dim)


def _square(picture: PilImage.Image, box: tuple[float, float, float, float]) -> PilImage.Image:
    """What is in a box, as a square: the encoder would look at its middle alone."""
    side = max(1, round(max(box[2] - box[0], box[3] - box[1])))
    return picture.resize((side, side), box=box)
