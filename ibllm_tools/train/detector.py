"""The recipe of the small detector that ships: scenes composed from the pack's photos.

```
photos ── crops ──> looks: the backbone learns the classes
       └─ scenes ─> boxes: the whole RT-DETR learns to find ──> folder
```
So few steps teach it where things are, and which only half; `ibllm_tools.experts.naming_fit` then
learns to name its boxes with the help of pocket's encoder.
Source: Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection" (2023), in transformers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ibllm_tools.train.data import Table, open_table, read_concepts
from ibllm_tools.train.detector_scenes import STRANGER, Scene, SceneMaker
from ibllm_tools.train.loop import Run, Schedule, run_stage

CLASSES = (
    "dog", "cat", "bird", "person", "car", "airplane", "boat", "motorcycle", "clock", "bottle",
)  # fmt: skip
BACKGROUNDS = ("sea", "tree", "rain", "house", "fire")
SIDE_PX = 128
CROP_PX = 64
BATCH, CROPS = 8, 96
MINUTES = 40.0


@dataclass(frozen=True)
class DetectorOptions:
    """Everything that shapes a run besides its folders.

    Attributes:
        seed: Seed of all randomness.
        classes: Concepts of the pack that are found.
        looks: Schedule of the backbone's classes on crops.
        boxes: Schedule of the detector on scenes.
        width: Channels of the first stage of the backbone.
    """

    seed: int = 0
    classes: tuple[str, ...] = CLASSES
    looks: Schedule = field(default_factory=lambda: Schedule(900, 2e-3, 60, decay_from=0.3))
    boxes: Schedule = field(
        default_factory=lambda: Schedule(
            12_000, 7e-4, 150, decay_from=0.4, clip=0.5, save_every=150
        )
    )
    width: int = 32

    def scaled(self, factor: float) -> DetectorOptions:
        """Make both stages longer or shorter."""
        looks, boxes = (
            replace(s, steps=max(1, round(s.steps * factor))) for s in (self.looks, self.boxes)
        )
        return replace(self, looks=looks, boxes=boxes)


def build_detector(options: DetectorOptions) -> Any:
    """Build the untrained detector: an RT-DETR of about two million parameters."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    w = options.width
    backbone = RTDetrResNetConfig(
        embedding_size=w,
        hidden_sizes=[w, 2 * w, 3 * w, 4 * w],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    names = dict(enumerate(options.classes))
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=96,
        encoder_in_channels=[2 * w, 3 * w, 4 * w],
        encoder_ffn_dim=192,
        encoder_attention_heads=4,
        d_model=96,
        num_queries=30,
        decoder_in_channels=[96, 96, 96],
        decoder_ffn_dim=192,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_n_points=4,
        num_denoising=20,
        hidden_expansion=0.5,
        freeze_backbone_batch_norms=False,
        id2label=names,
        label2id={name: i for i, name in names.items()},
        initializer_range=0.1,
        weight_loss_vfl=2.0,  # classes are harder to learn here than places
    )
    model = RTDetrForObjectDetection(config)
    _start_large(model)
    return model


@torch.no_grad()
def _start_large(model: Any) -> None:
    """Undo a start that is meant for pretrained parts: norms of the neck near zero.

    With it a thousand steps come as far as two thousand do without.
    """
    for name, module in model.model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and not name.startswith("backbone"):
            nn.init.ones_(module.weight)
    last = model.model.enc_bbox_head.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


class Looks(nn.Module):
    """The backbone with a head that is thrown away: which class does a crop show, or none?"""

    def __init__(self, backbone: Any, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.LazyLinear(n_classes + 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Score crops (B, 3, H, W) for each class and for none: (B, C + 1)."""
        found: Tensor = self.head(self.backbone(pixels).feature_maps[-1].mean((2, 3)))
        return found


class Crops:
    """Draws photos of the classes, and some of other things."""

    def __init__(self, photos: Table, concepts: Sequence[int]) -> None:
        self._values = photos.values
        rows = [np.flatnonzero(photos.concept == c) for c in concepts]
        self._rows = [*rows, np.flatnonzero(~np.isin(photos.concept, list(concepts)))]

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Draw crops (B, 3, 64, 64) of 0 to 1, moved, mirrored and recoloured, and classes (B,)."""
        labels = rng.integers(len(self._rows), size=count)
        pixels = np.stack([self._values[rng.choice(self._rows[label])] for label in labels])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        x = torch.where(
            torch.from_numpy(rng.random(count) < 0.5)[:, None, None, None], x.flip(3), x
        )
        turn = torch.zeros(count, 2, 3)
        scale = torch.from_numpy(rng.uniform(0.7, 1.25, (count, 2))).float()
        turn[:, 0, 0], turn[:, 1, 1] = scale[:, 0], scale[:, 1]
        turn[:, :, 2] = torch.from_numpy(rng.uniform(-0.25, 0.25, (count, 2))).float()
        grid = functional.affine_grid(turn, list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
        gain = torch.from_numpy(rng.uniform(0.7, 1.3, (count, 3, 1, 1))).float()
        return (x * gain).clamp(0, 1), torch.from_numpy(labels)


def as_batch(scenes: Sequence[Scene]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pixels (B, 3, H, W) of 0 to 1 and the labels that RT-DETR takes."""
    pixels = torch.from_numpy(np.stack([s.pixels for s in scenes])).permute(0, 3, 1, 2)
    labels = [
        {"class_labels": torch.from_numpy(s.labels), "boxes": torch.from_numpy(s.boxes)}
        for s in scenes
    ]
    return pixels.float() / 255, labels


def open_scenes(
    data_dir: Path, work_dir: Path, split: str, classes: Sequence[str], *, augment: bool
) -> SceneMaker:
    """Open a split of the pack's photos as a source of scenes."""
    photos = open_table(data_dir, work_dir, "photos", split)
    return scenes_of(data_dir, photos, classes, augment=augment)


def scenes_of(
    data_dir: Path,
    photos: Table,
    classes: Sequence[str],
    *,
    augment: bool = False,
    strangers: float = STRANGER,
) -> SceneMaker:
    """Take photos as a source of scenes; `strangers` is the share of things of no class."""
    ids = concept_ids(data_dir)
    return SceneMaker(
        photos,
        [ids[name] for name in classes],
        [ids[name] for name in BACKGROUNDS if name in ids],
        augment=augment,
        strangers=strangers,
    )


def concept_ids(data_dir: Path) -> dict[str, int]:
    """Numbers of the pack's concepts by name."""
    return {concept.name: concept.id for concept in read_concepts(data_dir)}


def train_detector(
    data_dir: Path | str,
    out_dir: Path | str,
    work_dir: Path | str,
    *,
    minutes: float = MINUTES,
    seed: int = 0,
    options: DetectorOptions | None = None,
) -> Path:
    """Train the detector; a run that was stopped goes on.

    Args:
        data_dir: The training pack.
        out_dir: The folder to write: weights, config and image processor of transformers.
        work_dir: Decoded photos, checkpoints and `log.txt`.
        minutes: About how long to train on one core; scales the steps.
        seed: Seed of all randomness.
        options: Classes and steps; overrides `minutes` and `seed`.

    Returns:
        `out_dir`.

    Raises:
        ConfigurationError: The pack is incomplete.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    options = options or DetectorOptions(seed).scaled(minutes / MINUTES)
    data_dir, out_dir, work_dir = Path(data_dir), Path(out_dir), Path(work_dir)
    run = Run(work_dir, options.seed)
    torch.manual_seed(run.step_seed("detector", -1))
    model = build_detector(options)
    _learn_looks(run, data_dir, options, model)
    scenes = open_scenes(data_dir, work_dir, "train", options.classes, augment=True)

    def boxes_loss(rng: random.Random, _share: float) -> Tensor:
        generator = np.random.default_rng(rng.getrandbits(32))
        made = [scenes.make(generator, SIDE_PX, SIDE_PX) for _ in range(BATCH)]
        pixels, labels = as_batch(made)
        with torch.autocast("cpu", torch.bfloat16):
            loss: Tensor = model(pixel_values=pixels, labels=labels).loss
        return loss.float()

    average = Average(model, options.boxes.steps)
    run_stage(
        run, "boxes", {"model": model.train(), "average": average}, options.boxes,
        average.after(boxes_loss), lr_scale=lambda n: 0.5 if "backbone" in n else 1.0,
        report_every=250,
    )  # fmt: skip
    average.copy_to(model)
    save_detector(out_dir, model.eval())
    run.say(f"saved {out_dir}")
    return out_dir


def _learn_looks(run: Run, data_dir: Path, options: DetectorOptions, model: Any) -> None:
    ids = concept_ids(data_dir)
    photos = open_table(data_dir, run.work_dir, "photos", "train")
    crops = Crops(photos, [ids[name] for name in options.classes])
    looks = Looks(model.model.backbone.model, len(options.classes))
    looks(torch.zeros(2, 3, CROP_PX, CROP_PX))  # sizes of the head

    def looks_loss(rng: random.Random, _share: float) -> Tensor:
        pixels, labels = crops.draw(np.random.default_rng(rng.getrandbits(32)), CROPS)
        with torch.autocast("cpu", torch.bfloat16):
            scores = looks(pixels)
        return functional.cross_entropy(scores.float(), labels, label_smoothing=0.05)

    run_stage(run, "looks", {"looks": looks.train()}, options.looks, looks_loss, report_every=100)


class Average(nn.Module):
    """A moving average of a model's weights, which finds better than the weights themselves."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__()
        self._model = [model]  # a list, so that it is no part of this module
        self._keep = 1 - 1 / max(2.0, min(1000.0, steps / 12))
        for name, value in model.state_dict().items():
            self.register_buffer(name.replace(".", "/"), value.clone())

    def after(self, loss: Callable[[random.Random, float], Tensor]) -> Any:
        """Wrap a step's loss: weights of the step before are averaged first."""

        def averaged(rng: random.Random, share: float) -> Tensor:
            self._take(0.0 if share < 0.02 else self._keep)
            return loss(rng, share)

        return averaged

    @torch.no_grad()
    def _take(self, keep: float) -> None:
        for name, value in self._model[0].state_dict().items():
            mine = self.get_buffer(name.replace(".", "/"))
            if value.is_floating_point():
                mine.lerp_(value, 1 - keep)
            else:
                mine.copy_(value)

    def copy_to(self, model: nn.Module) -> None:
        """Give a model the averaged weights."""
        model.load_state_dict({n.replace("/", "."): v for n, v in self.named_buffers()})


def save_detector(folder: Path, model: Any) -> None:
    """Write weights in half precision, config, and the image processor of transformers."""
    from transformers import RTDetrImageProcessorPil

    model.half().save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)
    model.float()


def read_scene(scene: Scene, classes: Sequence[str]) -> list[tuple[str, NDArray[np.float32]]]:
    """Names and boxes (x0, y0, x1, y1) in pixels of what a scene shows."""
    height, width = scene.pixels.shape[:2]
    size = np.asarray([width, height, width, height], np.float32)
    found = []
    for label, (x, y, w, h) in zip(scene.labels, scene.boxes, strict=True):
        corners = np.asarray([x - w / 2, y - h / 2, x + w / 2, y + h / 2], np.float32)
        found.append((classes[int(label)], corners * size))
    return found
