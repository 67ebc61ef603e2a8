"""Scenes composed from photos: a background, pasted photos, and boxes that are known exactly.

```
photos of things ── crop, flip, colour, blur ─┐
photos of sea, trees, …, blurs, gradients ────┴─ paste with soft edges ── pixels, boxes, labels
```
Other things are pasted too, without a box, so that a detector learns to leave them alone. All
randomness comes from the generator that is given. This file does not know models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ibllm_tools.train.data import Table

Pixels = NDArray[np.uint8]

BLANK, WHOLE, SAME = 0.08, 0.12, 0.35  # shares of scenes: no thing, one that fills it, one class
STRANGER = 0.1  # share of the pasted things that have no class, by default
COUNT_WEIGHTS = (4, 4, 4, 3, 2)  # of one thing, two, …
LEAST_SIDE, MOST_SIDE = 0.26, 0.9  # of the scene's side
MAX_SHARED = 0.12  # of a thing that another one may cover
BLUR_PX = (20, 34)  # sides that a third of the photos are shrunk to and back


@dataclass(frozen=True)
class Scene:
    """One picture with all its objects.

    Attributes:
        pixels: (H, W, 3) uint8.
        boxes: (N, 4) float32: centre x and y, width and height, as shares of the picture.
        labels: (N,) int64 numbers of classes.
    """

    pixels: Pixels
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class _Place:
    """Where a thing goes, in pixels of the scene."""

    x: int
    y: int
    width: int
    height: int


class SceneMaker:
    """Composes scenes from the photos of one split.

    Args:
        photos: Rows of `photos.parquet`.
        classes: Concept ids of the classes, in the order of their numbers.
        backgrounds: Concept ids whose photos serve as backgrounds.
        augment: Change colours and sharpness strongly, as for training.
        strangers: Share of the pasted things that have no class.
    """

    def __init__(
        self,
        photos: Table,
        classes: Sequence[int],
        backgrounds: Sequence[int],
        *,
        augment: bool,
        strangers: float = STRANGER,
    ) -> None:
        """Sort the rows by what they serve for."""
        self._values = photos.values
        self._rows = [np.flatnonzero(photos.concept == concept) for concept in classes]
        known = np.isin(photos.concept, list(classes))
        behind = np.isin(photos.concept, list(backgrounds))
        self._behind = np.flatnonzero(behind)
        self._strangers = np.flatnonzero(~known & ~behind)
        self._augment, self._share = augment, strangers

    def make(self, rng: np.random.Generator, height: int, width: int) -> Scene:
        """Compose one scene of (height, width) pixels."""
        canvas = self._background(rng, height, width)
        boxes: list[tuple[float, float, float, float]] = []
        labels: list[int] = []
        for place, whole in _places(rng, height, width):
            label = self._draw_label(rng, labels)
            row = rng.choice(self._strangers if label is None else self._rows[label])
            _paste(rng, canvas, self._photo(rng, row, place), place, hard=whole)
            if label is not None:
                boxes.append(_box(place, height, width))
                labels.append(label)
        return Scene(
            canvas.clip(0, 255).astype(np.uint8),
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(labels, np.int64),
        )

    def _draw_label(self, rng: np.random.Generator, labels: list[int]) -> int | None:
        if len(self._strangers) and rng.random() < self._share:
            return None
        if labels and rng.random() < SAME:
            return labels[-1]
        return int(rng.integers(len(self._rows)))

    def _photo(self, rng: np.random.Generator, row: int, place: _Place) -> NDArray[np.float32]:
        """A photo as it will be pasted: (height, width, 3), 0 to 255."""
        photo = Image.fromarray(self._values[row])
        crop = _crop(rng, photo.width, 0.8 if self._augment else 0.92)
        if rng.random() < (1 / 3 if self._augment else 0.1):
            side = int(rng.integers(*BLUR_PX))
            photo = photo.resize((side, side), Image.Resampling.BILINEAR, box=crop)
            crop = None
        size = (place.width, place.height)
        pixels = np.asarray(photo.resize(size, Image.Resampling.BILINEAR, box=crop), np.float32)
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return _recolour(rng, pixels, 1.0 if self._augment else 0.3)

    def _background(self, rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
        kind = rng.random()
        if kind < 0.55 and len(self._behind):
            pixels = self._stretched(rng, rng.choice(self._behind), height, width, grain=64)
        elif kind < 0.7:
            row = rng.integers(len(self._values))
            pixels = self._stretched(rng, int(row), height, width, grain=int(rng.integers(3, 9)))
        elif kind < 0.85:
            pixels = _gradient(rng, height, width)
        else:
            pixels = _noise(rng, height, width)
        return _recolour(rng, pixels, 1.0)

    def _stretched(
        self, rng: np.random.Generator, row: int, height: int, width: int, grain: int
    ) -> NDArray[np.float32]:
        photo = Image.fromarray(self._values[row])
        crop = _crop(rng, photo.width, 0.5)
        if grain < photo.width:
            photo = photo.resize((grain, grain), Image.Resampling.BOX, box=crop)
            crop = None
        way = Image.Resampling.BICUBIC
        return np.array(photo.resize((width, height), way, box=crop), np.float32)


def _places(rng: np.random.Generator, height: int, width: int) -> list[tuple[_Place, bool]]:
    """Draw where things go; True for a thing that fills the scene."""
    kind = rng.random()
    if kind < BLANK:
        return []
    if kind < BLANK + WHOLE:
        return [(_Place(0, 0, width, height), True)]
    weights = np.asarray(COUNT_WEIGHTS, np.float64)
    n_things = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
    largest = MOST_SIDE if n_things == 1 else min(MOST_SIDE, 1.25 / math.sqrt(n_things))
    places: list[_Place] = []
    for _ in range(n_things):
        for attempt in range(20):
            place = _place(rng, height, width, largest * 0.95**attempt)
            if all(_shared(place, other) <= MAX_SHARED for other in places):
                places.append(place)
                break
    return [(place, False) for place in places]


def _place(rng: np.random.Generator, height: int, width: int, largest: float) -> _Place:
    largest = max(largest, 1.1 * LEAST_SIDE)
    side = math.exp(rng.uniform(math.log(LEAST_SIDE), math.log(largest)))
    ratio = math.exp(rng.uniform(-0.4, 0.4))
    unit = math.sqrt(height * width)
    wide = min(width, max(8, round(side * ratio * unit)))
    high = min(height, max(8, round(side / ratio * unit)))
    x, y = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
    return _Place(x, y, wide, high)


def _shared(a: _Place, b: _Place) -> float:
    """The share of the smaller thing that both cover."""
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    least = min(a.width * a.height, b.width * b.height)
    return max(0, wide) * max(0, high) / least


def _box(place: _Place, height: int, width: int) -> tuple[float, float, float, float]:
    x, y = place.x + place.width / 2, place.y + place.height / 2
    return x / width, y / height, place.width / width, place.height / height


def _crop(
    rng: np.random.Generator, side: int, least: float
) -> tuple[float, float, float, float] | None:
    wide, high = rng.uniform(least, 1.0, 2) * side
    x, y = rng.uniform(0, side - wide), rng.uniform(0, side - high)
    return x, y, x + wide, y + high


def _recolour(
    rng: np.random.Generator, pixels: NDArray[np.float32], strength: float
) -> NDArray[np.float32]:
    saturation = 1 + strength * rng.uniform(-0.5, 0.4)
    contrast = 1 + strength * rng.uniform(-0.25, 0.3)
    shift = 255 * strength * (rng.uniform(-0.08, 0.08) + 0.03 * rng.standard_normal(3))
    grey = pixels.mean(axis=2, keepdims=True)
    mixed = grey + (pixels - grey) * saturation
    changed: NDArray[np.float32] = (mixed * contrast + shift).astype(np.float32)
    return changed


def _paste(
    rng: np.random.Generator,
    canvas: NDArray[np.float32],
    photo: NDArray[np.float32],
    place: _Place,
    *,
    hard: bool,
) -> None:
    """Blend a photo into the canvas, with edges that are hard, soft or round."""
    part = canvas[place.y : place.y + place.height, place.x : place.x + place.width]
    if hard or rng.random() < 0.25:
        part[:] = photo
        return
    across, down = _depth(place.width), _depth(place.height)
    soft = float(rng.uniform(0.03, 0.22))
    if rng.random() < 0.3:  # an ellipse that touches the box's sides
        edge = 1 - np.hypot(1 - across[None, :], 1 - down[:, None])
    else:
        edge = np.minimum(across[None, :], down[:, None])
    alpha = np.clip(edge / soft, 0, 1)[..., None]
    part += alpha * (photo - part)


def _depth(n: int) -> NDArray[np.float64]:
    """How far inside each of n pixels is: about 0 at both ends, 1 in the middle."""
    depth: NDArray[np.float64] = 1 - np.abs((np.arange(n) + 0.5) / n * 2 - 1)
    return depth


def _gradient(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    first, last = rng.uniform(0, 255, (2, 3))
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    share = 0.5 + 0.7 * (math.cos(angle) * x[None, :] + math.sin(angle) * y[:, None])
    if rng.random() < 0.3:
        last = first
    mixed: NDArray[np.float32] = (first + (last - first) * share[..., None]).astype(np.float32)
    return mixed


def _noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    grain = int(rng.choice([4, 8, 16, 40]))
    coarse = rng.normal(rng.uniform(40, 215), rng.uniform(10, 60), (grain, grain, 3))
    picture = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    return np.array(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)
