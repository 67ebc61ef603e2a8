"""Videos to tensors: clips spread evenly, frames from each, crops along the longer side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.errors import MediaError
from ibllm_tools.preprocess.audio import spread_clips
from ibllm_tools.preprocess.config import PreprocessConfig
from ibllm_tools.preprocess.image import normalize_pixels

_LONGEST_ASPECT = 32


def video_spans(duration_s: float, config: PreprocessConfig) -> list[tuple[float, float]]:
    """Return (start, end) in seconds of each clip that the config asks for."""
    clips = spread_clips(duration_s, config.video_clip_s, config.video_clips)
    return [(float(start), float(end)) for start, end in clips]


def frames_to_crops(
    clips: Sequence[NDArray[np.uint8]], config: PreprocessConfig, name: str = "video"
) -> Tensor:
    """Scale, crop and normalise the frames of a video's clips.

    The shorter side is scaled to `image_px` (bilinear, without antialiasing, as in the
    reference); the crops lie side by side from left to right, or from top to bottom.

    Args:
        clips: Per clip (T, H, W, 3) uint8.
        config: Holds `image_px`, `video_crops` and the colour statistics.
        name: Names the video in errors.

    Returns:
        (clips · crops, 3, T, image_px, image_px) float32, the crops of a clip side by side.

    Raises:
        MediaError: The frames are more than 32 times as long as wide.

    Source: ImageBind (Girdhar et al., 2023), video preprocessing.
    """
    height, width = clips[0].shape[1:3]
    short, long = min(height, width), max(height, width)
    if long > _LONGEST_ASPECT * short:
        raise MediaError(
            f"{name}: found frames of {width}x{height} pixels, expected a longer side of at most "
            f"{_LONGEST_ASPECT} times the shorter; crop the video first"
        )
    long_px = math.floor(config.image_px * (long / short))
    size = (config.image_px, long_px) if width >= height else (long_px, config.image_px)
    crops = []
    for clip in clips:
        frames = _normalized(clip, config)  # (T, 3, H, W)
        scaled = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        crops.extend(_crop_along(scaled, config))
    return torch.stack(crops).transpose(1, 2).contiguous()


def _normalized(clip: NDArray[np.uint8], config: PreprocessConfig) -> Tensor:
    # Normalising is affine and the interpolation weights sum to 1, so their order is free.
    return normalize_pixels(torch.from_numpy(np.ascontiguousarray(clip)), config)


def _crop_along(frames: Tensor, config: PreprocessConfig) -> list[Tensor]:
    """Cut squares of `image_px` at even distances along the longer side of (T, 3, H, W)."""
    px, n = config.image_px, config.video_crops
    along = -1 if frames.shape[-1] >= frames.shape[-2] else -2
    spare = frames.shape[along] - px
    if n == 1:
        starts = [math.ceil(spare / 2)]
    else:
        starts = [math.ceil(spare * i / (n - 1)) for i in range(n)]
    return [frames.narrow(along, start, px) for start in starts]
