"""Learn to name a small detector's boxes: see `naming` for what is learned.

```
scenes of four fifths of the photos ── boxes, crops ──> likeness: one direction a class
scenes of the other fifth ── boxes, likeness, logits ──> mix, threshold
```
The mix is learned on photos that the likeness did not learn from, which would be trusted too much
otherwise. All photos are of the split that trains.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ibllm_tools.checkpoints import CONFIG_NAME
from ibllm_tools.experts.naming import Namer, Proposals, one_box_a_thing, propose, shared_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ibllm_tools.train.detector_scenes import SceneMaker

N_SCENES = 2400
STRANGERS = 0.3  # share of things without a class in scenes for the likeness
FOLDS = 5
HELD = 0.5  # least overlap of a box with a thing that it is held to show
SHARPNESS = 40.0
TIES = 0.3  # how much the likeness is held to the words that it starts from
THRESHOLDS = tuple(i / 100 for i in range(10, 71, 5))
AIMS = (0.75, 0.9)
"""Shares of right counts and of empty scenes left alone that the threshold is chosen for."""


@dataclass(frozen=True)
class Sight:
    """What was proposed in a scene, and what is there.

    Attributes:
        proposals: N boxes.
        shows: (N,) the class that each box shows, or the number of classes for anything else.
        labels: Classes of all things of the scene.
    """

    proposals: Proposals
    shows: Tensor
    labels: list[int]


def fit_namer(
    data_dir: Path | str, folder: Path | str, work_dir: Path | str, *, n_scenes: int = N_SCENES
) -> Namer:
    """Learn to name the boxes of a detector, and write that into its folder.

    Args:
        data_dir: The training pack.
        folder: A detector as `train_detector` wrote it; gets `naming.safetensors` and a threshold.
        work_dir: Decoded photos.
        n_scenes: Scenes to learn from; a third as many choose the mix and the threshold.

    Raises:
        ConfigurationError: The pack is incomplete.
        CheckpointError: The detector cannot be loaded.
    """
    from transformers import RTDetrForObjectDetection

    from ibllm_tools.train.data import open_table
    from ibllm_tools.train.detector import scenes_of

    data_dir, folder = Path(data_dir), Path(folder)
    model = RTDetrForObjectDetection.from_pretrained(folder).float().eval()
    classes = [model.config.id2label[i] for i in range(model.config.num_labels)]
    photos = open_table(data_dir, Path(work_dir), "photos", "train")
    is_kept = np.arange(len(photos.concept)) % FOLDS == 0
    first = scenes_of(data_dir, photos.take(np.flatnonzero(~is_kept)), classes, strangers=STRANGERS)
    second = scenes_of(data_dir, photos.take(np.flatnonzero(is_kept)), classes)
    weight, bias = _fit_likeness(see(model, first, n_scenes, seed=1), _words(classes))
    sights = see(model, second, max(1, n_scenes // 3), seed=2)
    namer = _fit_mix(Namer(weight, bias, torch.zeros(3)), sights)
    namer.save(folder)
    _set_threshold(folder, choose_threshold(namer, sights))
    return namer


def see(model: Any, scenes: SceneMaker, count: int, seed: int) -> list[Sight]:
    """Propose boxes in scenes."""
    from ibllm_tools.train.detector import SIDE_PX, as_batch

    rng, sights = np.random.default_rng(seed), []
    n_classes = model.config.num_labels
    for _ in range(count):
        scene = scenes.make(rng, SIDE_PX, SIDE_PX)
        with torch.inference_mode():
            outputs = model(pixel_values=as_batch([scene])[0])
            proposals = propose(outputs, Image.fromarray(scene.pixels))
        x, y, w, h = torch.from_numpy(scene.boxes * SIDE_PX).unbind(-1)
        truth = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
        shows = torch.full((len(proposals.boxes),), n_classes)
        if len(truth) and len(shows):
            shared, nearest = shared_parts(proposals.boxes, truth)[0].max(-1)
            shows = torch.where(shared >= HELD, torch.from_numpy(scene.labels)[nearest], shows)
        sights.append(Sight(proposals, shows, scene.labels.tolist()))
    return sights


def _fit_likeness(sights: Sequence[Sight], words: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (C + 1, D) and constants (C + 1,) that tell crops apart, near to the words."""
    crops = torch.cat([s.proposals.crops for s in sights])
    shows = torch.cat([s.shows for s in sights])
    start = torch.cat([SHARPNESS * words, torch.zeros(1, words.shape[1])])
    weight, bias = start.clone().requires_grad_(), torch.zeros(len(start), requires_grad=True)

    def loss() -> Tensor:
        wrong = functional.cross_entropy(crops @ weight.T + bias, shows)
        return wrong + TIES * (weight - start).square().mean()

    _minimise([weight, bias], loss)
    return weight.detach(), bias.detach()


def _fit_mix(namer: Namer, sights: Sequence[Sight]) -> Namer:
    """Weigh the detector's opinion and the likeness: scores become how often they are right."""
    own = torch.cat([s.proposals.own for s in sights])
    like = namer.likeness(torch.cat([s.proposals.crops for s in sights]))
    shows = functional.one_hot(torch.cat([s.shows for s in sights]), own.shape[1] + 1)
    right, mix = shows[:, :-1].float(), torch.zeros(3, requires_grad=True)

    def loss() -> Tensor:
        logits = mix[0] * own + mix[1] * like + mix[2]
        return functional.binary_cross_entropy_with_logits(logits, right)

    _minimise([mix], loss)
    return replace(namer, mix=mix.detach())


def _minimise(values: list[Tensor], loss: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.LBFGS(values, max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def choose_threshold(namer: Namer, sights: Sequence[Sight]) -> float:
    """The threshold that comes nearest to both aims; of equals, that with most right counts."""

    def merit(threshold: float) -> tuple[float, float]:
        counted, empty = count_right(namer, sights, threshold)
        return min(counted / AIMS[0], empty / AIMS[1]), counted

    return max(THRESHOLDS, key=merit)


def count_right(namer: Namer, sights: Sequence[Sight], threshold: float) -> tuple[float, float]:
    """How often a shown class is counted right, and how often nothing is found where nothing is."""
    counted: list[bool] = []
    empty: list[bool] = []
    for sight in sights:
        scores, named = namer.logits(sight.proposals).sigmoid().max(-1)
        kept = one_box_a_thing(sight.proposals.boxes, scores)
        found = [int(named[i]) for i in kept if scores[i] >= threshold]
        shown = set(sight.labels)
        counted += [found.count(label) == sight.labels.count(label) for label in shown]
        if not sight.labels:
            empty.append(not found)
    return float(np.mean(counted or [False])), float(np.mean(empty or [True]))


def _set_threshold(folder: Path, threshold: float) -> None:
    path = folder / CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8"))
    config["detection_threshold"] = threshold
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _words(classes: Sequence[str]) -> Tensor:
    """Names of classes as vectors (C, D)."""
    from ibllm_tools.engine import open_senses
    from ibllm_tools.media.items import Text

    rows = [[Text(text=f"a photo of a {name}")] for name in classes]
    return open_senses(device="cpu").embed(rows)
