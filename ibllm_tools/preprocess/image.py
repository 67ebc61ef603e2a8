"""Pictures to tensors: photos, disparity maps and thermal images."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

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
        (3, image_px, image_px) float32 with CLIP's mean and standard deviation; where the config
        asks for several views, (views, 3, image_px, image_px).

    Source: CLIP (Radford et al., 2021), image preprocessing, as ImageBind uses it.
    """
    px = config.image_px
    squares = [resize_and_crop(image, round(px / zoom)) for zoom in config.image_zooms]
    views = [centre_square(normalize_pixels(_to_tensor(s), config), px) for s in squares]
    return views[0] if _is_single(config) else _with_mirrored(torch.stack(views), config)


def pixels_to_views(pixels: Tensor, config: PreprocessConfig) -> Tensor:
    """Cut the views that the config asks for out of pictures that are pixels already.

    Args:
        pixels: (B, 3, image_px, image_px), normalised.
        config: Holds `image_zooms` and `image_flips`.

    Returns:
        (B, views, 3, image_px, image_px), or `pixels` where one whole view is asked for.
    """
    if _is_single(config) and config.image_zooms == (1.0,):
        return pixels
    px = config.image_px
    views = []
    for zoom in config.image_zooms:
        size = round(px / zoom)
        larger = functional.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
        views.append(centre_square(larger, px))
    if _is_single(config):
        return views[0]
    return _with_mirrored(torch.stack(views, dim=1), config)


def centre_square(pixels: Tensor, px: int) -> Tensor:
    """Cut the centre square of side `px` out of (..., H, W)."""
    top, left = (pixels.shape[-2] - px) // 2, (pixels.shape[-1] - px) // 2
    return pixels[..., top : top + px, left : left + px]


def _to_tensor(picture: PIL.Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture))


def _is_single(config: PreprocessConfig) -> bool:
    return len(config.image_zooms) == 1 and not config.image_flips


def _with_mirrored(views: Tensor, config: PreprocessConfig) -> Tensor:
    """(..., views, 3, H, W) and, where the config says so, the same mirrored."""
    return torch.cat([views, views.flip(-1)], dim=-4) if config.image_flips else views


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
