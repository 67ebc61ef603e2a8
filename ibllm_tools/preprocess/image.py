"""Pictures to tensors: photos, disparity maps and thermal images."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibllm_tools.preprocess.config import PreprocessConfig

_LONGEST_ASPECT = 8


def resize_and_crop(picture: PIL.Image.Image, px: int) -> PIL.Image.Image:
    """Scale the shorter side to `px` (bicubic) and cut the centre square.

    A picture more than eight times as long as wide is scaled within its centre only, so that
    memory stays bounded whatever its shape.

    Args:
        picture: Any mode that Pillow resizes: RGB, L, F.
        px: Side of the result.
    """
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    long_px = px * long // short
    start_px = round((long_px - px) / 2)
    if long > _LONGEST_ASPECT * short:
        start, stop = start_px * long / long_px, (start_px + px) * long / long_px
        wide = (start, 0.0, stop, float(height))
        tall = (0.0, start, float(width), stop)
        box = wide if width > height else tall
        return picture.resize((px, px), PIL.Image.Resampling.BICUBIC, box=box)
    if width > height:
        size, corner = (long_px, px), (start_px, 0)
    else:
        size, corner = (px, long_px), (0, start_px)
    scaled = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    return scaled.crop((*corner, corner[0] + px, corner[1] + px))


def normalize_pixels(pixels: Tensor, config: PreprocessConfig) -> Tensor:
    """Normalise a batch of pictures of any size with the colour statistics.

    Args:
        pixels: (..., H, W, 3) uint8.
        config: Holds `image_mean` and `image_std`.

    Returns:
        (..., 3, H, W) float32, contiguous.
    """
    mean = torch.tensor(config.image_mean, device=pixels.device)
    std = torch.tensor(config.image_std, device=pixels.device)
    values = (pixels.float() / 255.0 - mean) / std
    return values.movedim(-1, -3).contiguous()


def image_to_pixels(image: PIL.Image.Image, config: PreprocessConfig) -> Tensor:
    """Scale, crop and normalise one RGB picture.

    Returns:
        (3, image_px, image_px) float32 with CLIP's mean and standard deviation.

    Source: CLIP (Radford et al., 2021), image preprocessing, as ImageBind uses it.
    """
    square = resize_and_crop(image, config.image_px)
    return normalize_pixels(torch.from_numpy(np.array(square)), config)


def map_to_pixels(values: NDArray[np.float32], px: int) -> Tensor:
    """Scale and crop a map of one channel: disparity or temperature.

    Nothing is normalised, and no value leaves the range of the input.

    Args:
        values: (H, W) float32.
        px: Side of the result.

    Returns:
        (1, px, px) float32.
    """
    picture = PIL.Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    square = np.array(resize_and_crop(picture, px))
    return torch.from_numpy(square.clip(values.min(), values.max()))[None]


def stretch_disparity(maps: Tensor) -> Tensor:
    """Stretch each map to [0, 1]: nearest 1, farthest 0. A flat map becomes zeros.

    Args:
        maps: (..., H, W) float disparity in any unit.

    Returns:
        (..., H, W), same dtype.
    """
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    return (maps - low) / span
