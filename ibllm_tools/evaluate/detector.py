"""How well a detector finds what composed scenes show: mean average precision, counts, blanks.

```
photos of a split -> scenes with known boxes -> detector -> matched by class, score and overlap
scenes.parquet    -> real photos with boxes  ->
```
Everything goes through `detect`, as a user would call it.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ibllm_tools.evaluate.results import Measure, Section, Target, share
from ibllm_tools.evaluate.scorecard import Scorecard
from ibllm_tools.experts.boxes import overlap as overlap_of_two

if TYPE_CHECKING:
    from ibllm_tools.experts.protocols import Detector

Boxes = NDArray[np.float32]
OVERLAP = 0.5
LEAST_SCORE = 0.02
MIN_AP = 0.6
SEED = 11


@dataclass(frozen=True)
class Picture:
    """A picture, and what it shows.

    Attributes:
        image: RGB.
        names: N classes.
        boxes: (N, 4) x0, y0, x1, y1 in pixels.
    """

    image: Image.Image
    names: list[str]
    boxes: Boxes


@dataclass(frozen=True)
class Found:
    """What a detector found: N classes, scores 0 to 1, and boxes (N, 4) in pixels."""

    names: list[str]
    scores: list[float]
    boxes: Boxes

    def above(self, threshold: float) -> list[str]:
        """The classes with at least a score."""
        return [n for n, s in zip(self.names, self.scores, strict=True) if s >= threshold]


def overlap(box: Boxes, others: Boxes) -> Boxes:
    """Intersection over union of one box (4,) with others (N, 4)."""
    return np.asarray([overlap_of_two(tuple(box), tuple(other)) for other in others], np.float32)


def average_precision(
    name: str, pictures: Sequence[Picture], found: Sequence[Found], least: float = OVERLAP
) -> float:
    """Area under the curve of precision over recall of one class, precision made monotonic.

    Each true box counts once, for the likeliest detection that overlaps it by `least`.

    Returns:
        NaN where no picture shows the class.
    """
    truth = [p.boxes[[n == name for n in p.names]] for p in pictures]
    n_true = sum(len(boxes) for boxes in truth)
    if not n_true:
        return float("nan")
    hits = _hits(name, truth, found, least)
    right = np.cumsum(hits)
    recall, precision = right / n_true, right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _hits(
    name: str, truth: Sequence[Boxes], found: Sequence[Found], least: float
) -> NDArray[np.float64]:
    """Which detections of a class, the likeliest first, meet a true box that none met before."""
    ranked = sorted(
        (-score, i, j)
        for i, f in enumerate(found)
        for j, (n, score) in enumerate(zip(f.names, f.scores, strict=True))
        if n == name
    )
    met = [np.zeros(len(boxes), bool) for boxes in truth]
    hits = np.zeros(len(ranked))
    for place, (_, i, j) in enumerate(ranked):
        if not len(truth[i]):
            continue
        overlaps = np.where(met[i], 0.0, overlap(found[i].boxes[j], truth[i]))
        best = int(overlaps.argmax())
        if overlaps[best] >= least:
            met[i][best], hits[place] = True, 1.0
    return hits


def look(detector: Detector, pictures: Sequence[Picture]) -> list[Found]:
    """Detect in every picture, down to very small scores."""
    found = []
    for picture in pictures:
        seen = detector.detect(picture.image, threshold=LEAST_SCORE).detections
        found.append(
            Found(
                [d.label for d in seen],
                [d.score for d in seen],
                np.asarray([d.box for d in seen], np.float32).reshape(-1, 4),
            )
        )
    return found


def composed(data_dir: Path, split: str, classes: Sequence[str], count: int) -> list[Picture]:
    """Compose scenes from the photos of a split."""
    from ibllm_tools.train.detector import SIDE_PX, open_scenes, read_scene

    with TemporaryDirectory() as work:
        maker = open_scenes(data_dir, Path(work), split, classes, augment=False)
        rng = np.random.default_rng(SEED)
        scenes = [maker.make(rng, SIDE_PX, SIDE_PX) for _ in range(count)]
    pictures = []
    for scene in scenes:
        shown = read_scene(scene, classes)
        boxes = np.asarray([box for _, box in shown], np.float32).reshape(-1, 4)
        pictures.append(Picture(Image.fromarray(scene.pixels), [n for n, _ in shown], boxes))
    return pictures


def photographed(data_dir: Path, classes: Sequence[str]) -> list[Picture]:
    """Read the pack's real scenes; objects of other classes have no box."""
    import pandas as pd

    path = data_dir / "scenes.parquet"
    if not path.is_file():
        return []
    pictures = []
    for row in pd.read_parquet(path).itertuples():
        image = Image.open(io.BytesIO(row.jpeg)).convert("RGB")
        held = [o for o in json.loads(row.objects) if o.get("concept") in classes]
        corners = [_corners(o["cxcywh"], image.size) for o in held]
        boxes = np.asarray(corners, np.float32).reshape(-1, 4)
        pictures.append(Picture(image, [str(o["concept"]) for o in held], boxes))
    return pictures


def _corners(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    x, y, w, h = box
    width, height = size
    return [
        (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height,
    ]  # fmt: skip


def evaluate_detector(
    data_dir: Path | str,
    model: str | None = None,
    *,
    split: str = "val",
    limit: int = 400,
    device: str | None = None,
) -> Scorecard:
    """Score a detector on scenes composed from a split, and on the pack's real scenes.

    Args:
        data_dir: Folder with photos.parquet, concepts.json and perhaps scenes.parquet.
        model: A checkpoint; by default the one that ships.
        split: Whose photos the scenes are made of.
        limit: Scenes to compose.
        device: As in torch.

    Raises:
        ConfigurationError: The data are missing.
        CheckpointError: The detector cannot be loaded.
    """
    from ibllm_tools.experts import open_detector

    data_dir, started = Path(data_dir), time.perf_counter()
    detector = open_detector(model, device)
    classes = detector.classes() or ()
    pictures = composed(data_dir, split, classes, limit)
    real = photographed(data_dir, classes)
    sections = [
        _precision("scenes", "Composed scenes", detector, pictures, classes, MIN_AP),
        _counts(detector, pictures),
    ]
    if real:
        sections.append(_precision("real", "Real photos (COCO)", detector, real, classes, None))
    command = f"ibllm eval detector --data {data_dir}" + (f" --model {model}" if model else "")
    return Scorecard(
        model=model or "pocket_detector",
        data=str(data_dir),
        split=split,
        limit=limit,
        through="detect",
        command=command,
        versions={name: version(name) for name in ("torch", "transformers", "numpy")},
        media={"composed scenes": len(pictures), "real photos": len(real)},
        sections=sections,
        seconds=time.perf_counter() - started,
    )


def _precision(
    key: str,
    title: str,
    detector: Detector,
    pictures: Sequence[Picture],
    classes: Sequence[str],
    target: float | None,
) -> Section:
    section = Section(key, title)
    found = look(detector, pictures)
    scores = {name: average_precision(name, pictures, found) for name in classes}
    known = [value for value in scores.values() if not np.isnan(value)]
    n_boxes = sum(len(p.names) for p in pictures)
    mean = float(np.mean(known)) if known else None
    goal = None if target is None else Target(low=target)
    section.measures.append(
        Measure("map50", "mean average precision, overlap 0.5", n_boxes, mean, target=goal)
    )
    for name, value in scores.items():
        n_true = sum(p.names.count(name) for p in pictures)
        if n_true:
            section.measures.append(Measure(f"ap50.{name}", name, n_true, value))
    return section


def _counts(detector: Detector, pictures: Sequence[Picture]) -> Section:
    """Whether each class is counted right at the detector's own threshold."""
    section = Section("counts", "How many, at its own threshold")
    right, empty = [], []
    for picture in pictures:
        seen = [d.label for d in detector.detect(picture.image).detections]
        if picture.names:
            right += [seen.count(n) == picture.names.count(n) for n in sorted(set(picture.names))]
        else:
            empty.append(not seen)
    section.measures.append(share("count", "number of a thing that is shown", right))
    section.measures.append(share("empty", "nothing found where nothing is", empty))
    return section
