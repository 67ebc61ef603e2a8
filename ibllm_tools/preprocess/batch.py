"""From decoded items to one batch: which tensor belongs to which row, and how much it weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ibllm_tools.errors import MediaError
from ibllm_tools.media import (
    MODALITIES,
    Audio,
    Depth,
    Image,
    Imu,
    Item,
    Modality,
    Points,
    Text,
    Thermal,
    Video,
)
from ibllm_tools.preprocess.audio import audio_to_clips
from ibllm_tools.preprocess.config import PreprocessConfig
from ibllm_tools.preprocess.image import image_to_pixels, map_to_pixels, stretch_disparity
from ibllm_tools.preprocess.imu import imu_to_signal
from ibllm_tools.preprocess.points import points_to_cloud
from ibllm_tools.preprocess.text import tokenize
from ibllm_tools.preprocess.video import frames_to_crops, video_spans


def preprocess(item: Item, config: PreprocessConfig) -> Tensor:
    """Turn one decoded item into the tensor that its trunk expects.

    Returns:
        With the default sizes, float32 unless said otherwise: image (3, 224, 224); video
        (15, 3, 2, 224, 224); audio (3, 1, 128, 204); depth and thermal (1, 224, 224);
        imu (6, 2000); point (8192, 3); text (77,) int64.

    Raises:
        MediaError: The item cannot be read, or its shape cannot be used.
    """
    match item:
        case Image():
            return image_to_pixels(item.pixels, config)
        case Video():
            spans = video_spans(item.duration_s, config)
            return frames_to_crops(item.frames(spans, config.video_frames), config, item.name)
        case Audio():
            return audio_to_clips(torch.as_tensor(item.samples), item.rate_hz, config)
        case Depth():
            disparity = map_to_pixels(item.disparity, config.depth_px)
            return stretch_disparity(disparity) if config.depth_unit_range else disparity
        case Thermal():
            return map_to_pixels(item.values, config.thermal_px)
        case Imu():
            return imu_to_signal(torch.as_tensor(item.signal), config)
        case Points():
            return points_to_cloud(torch.as_tensor(item.xyz), config)
        case Text():
            return tokenize([item.text], config)[0]
    raise MediaError(f"found {type(item).__name__}, expected an item of {', '.join(MODALITIES)}")


@dataclass(frozen=True)
class MediaBatch:
    """The media of a batch of prompts, grouped by modality.

    Attributes:
        n_rows: Prompts in the batch; a row may have no media, or several of any modality.
        inputs: Per modality the stacked tensors (K, ...) of `preprocess`.
        rows: Per modality (K,) int64, the row that each tensor belongs to.
        weights: Per modality (K,) float32, the weight of each tensor within its row.
    """

    n_rows: int
    inputs: dict[Modality, Tensor] = field(default_factory=dict)
    rows: dict[Modality, Tensor] = field(default_factory=dict)
    weights: dict[Modality, Tensor] = field(default_factory=dict)

    @classmethod
    def collate(cls, rows: Sequence[Sequence[Item]], config: PreprocessConfig) -> MediaBatch:
        """Preprocess and stack the items of every row.

        Raises:
            MediaError: An item cannot be read; the message names it.
        """
        found: dict[Modality, list[tuple[Tensor, int, float]]] = {}
        for index, items in enumerate(rows):
            for item in items:
                entry = (preprocess(item, config), index, item.weight)
                found.setdefault(item.modality, []).append(entry)
        return cls(
            n_rows=len(rows),
            inputs={name: torch.stack([e[0] for e in found[name]]) for name in found},
            rows={name: torch.tensor([e[1] for e in found[name]]) for name in found},
            weights={name: torch.tensor([float(e[2]) for e in found[name]]) for name in found},
        )

    @property
    def has_media(self) -> Tensor:
        """(n_rows,) bool: which rows have at least one medium."""
        present = torch.zeros(self.n_rows, dtype=torch.bool)
        for rows in self.rows.values():
            present[rows.cpu()] = True
        return present

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MediaBatch:
        """Return the batch on another device; `dtype` is for the inputs that are floats.

        Row numbers and tokens stay int64, weights stay float32.
        """
        return MediaBatch(
            n_rows=self.n_rows,
            inputs={
                name: x.to(device=device, dtype=dtype if x.is_floating_point() else None)
                for name, x in self.inputs.items()
            },
            rows={name: x.to(device=device) for name, x in self.rows.items()},
            weights={name: x.to(device=device) for name, x in self.weights.items()},
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n_rows
