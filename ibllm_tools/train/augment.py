"""Random views of photos, sounds and shapes, batch by batch.

Everything is vectorised and driven by torch's global generator, which the training loop seeds
for every step. This file does not know encoders.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.preprocess import PreprocessConfig
from ibllm_tools.preprocess.audio import log_mel
from ibllm_tools.preprocess.image import normalize_pixels, stretch_disparity

BLUR_PX = 32
SHIFT_SAMPLES = 160
FRAME_SAMPLES = 400


def uniform(n: int, low: float, high: float, *axes: int) -> Tensor:
    """Draw (n, 1, ...) numbers between two bounds, with as many ones as `axes`."""
    return torch.empty(n, *axes).uniform_(low, high)


def clean_photos(photos: Tensor, config: PreprocessConfig) -> Tensor:
    """Turn photos (B, 64, 64, 3) uint8 into normalised pixels (B, 3, px, px)."""
    x = normalize_pixels(photos, config)
    if x.shape[-1] != config.image_px:
        x = F.interpolate(x, size=config.image_px, mode="bilinear", antialias=True)
    return x


def view_photos(
    photos: Tensor, config: PreprocessConfig, px: int | None = None, least_area: float = 0.4
) -> Tensor:
    """Draw random views: crop, flip, colour, and blur for a third of the rows.

    Args:
        photos: (B, 64, 64, 3) uint8.
        config: Pixel statistics and size.
        px: Side of the views; `config.image_px` by default.
        least_area: Smallest share of the picture that a crop keeps.

    Returns:
        (B, 3, px, px) float32, normalised.
    """
    n, px = len(photos), px or config.image_px
    x = clean_photos(photos, config)
    if px < x.shape[-1]:
        x = F.interpolate(x, size=px, mode="area")
    side = uniform(n, least_area, 1.0).sqrt()
    ratio = uniform(n, -0.22, 0.22).exp()
    wide, high = (side * ratio).clamp(max=1.0), (side / ratio).clamp(max=1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = wide * torch.where(torch.rand(n) < 0.5, 1.0, -1.0)
    theta[:, 1, 1] = high
    theta[:, 0, 2] = uniform(n, -1, 1) * (1 - wide)
    theta[:, 1, 2] = uniform(n, -1, 1) * (1 - high)
    grid = F.affine_grid(theta, [n, 3, px, px], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    n_blurred = n // 3
    if px > BLUR_PX:
        small = F.interpolate(x[:n_blurred], size=BLUR_PX, mode="area")
        x[:n_blurred] = F.interpolate(small, size=px, mode="bilinear")
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(n, 0.5, 1.4, 1, 1, 1)
    x = x * uniform(n, 0.75, 1.3, 1, 1, 1) + uniform(n, -0.3, 0.3, 1, 1, 1)
    return x + 0.08 * torch.randn(n, 3, 1, 1)


def paste_boxes(photos: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a box of another photo into a share of the photos (CutMix).

    Returns:
        The photos (B, C, H, W), the rows (B,) that the boxes come from, and how much (B,) of
        each photo is still its own.
    """
    n, _, height, width = photos.shape
    other = torch.randperm(n)
    side = uniform(n, 0.25, 0.7) * (torch.rand(n) < share)
    rows = torch.arange(height) / height
    top, left = (torch.rand(n) * (1 - side) for _ in range(2))
    tall = (rows >= top[:, None]) & (rows < (top + side)[:, None])  # (B, H)
    columns = torch.arange(width) / width
    wide = (columns >= left[:, None]) & (columns < (left + side)[:, None])
    box = (tall[:, :, None] & wide[:, None, :])[:, None]
    own = 1 - box.float().mean(dim=(1, 2, 3))
    return torch.where(box, photos[other], photos), other, own


def strange_photos(photos: Tensor) -> Tensor:
    """Make pictures of nothing known: patches of several photos in disorder, or noise.

    Args:
        photos: (B, C, H, W), normalised; height and width are divisible by 4.

    Returns:
        (B, C, H, W): three quarters patchwork, the rest noise of two grains.
    """
    n, channels, height, width = photos.shape
    patches = F.unfold(photos, (height // 4, width // 4), stride=(height // 4, width // 4))
    patches = patches.transpose(1, 2).reshape(n * 16, -1)[torch.randperm(n * 16)]
    made = F.fold(
        patches.reshape(n, 16, -1).transpose(1, 2),
        (height, width), (height // 4, width // 4), stride=(height // 4, width // 4),
    )  # fmt: skip
    n_noise = n // 4
    grain = torch.where(torch.rand(n_noise, 1, 1, 1) < 0.5, 1.0, 0.0)
    fine = torch.randn(n_noise, channels, height, width)
    coarse = F.interpolate(torch.randn(n_noise, channels, height // 4, width // 4), size=height)
    strength = uniform(n_noise, 0.0, 1.2, 1, 1, 1)
    made[:n_noise] = strength * (grain * fine + (1 - grain) * coarse)
    made[:n_noise] += torch.randn(n_noise, channels, 1, 1)
    return made


def whole_mels(waves: Tensor, config: PreprocessConfig) -> Tensor:
    """Compute the log-mel bins of whole sounds, so that clips can be cut from them.

    Frames are centred one by one, so a cut of these bins equals the bins of the cut clip.

    Args:
        waves: (B, S) int16.
        config: Rate and mel bins.

    Returns:
        (B, mels, T) float16, not normalised.
    """
    mel = log_mel(waves.float() / 32768, config.audio_rate_hz, config.audio_mels)
    return mel.half()


def count_frames(length: Tensor) -> Tensor:
    """Count the whole frames in sounds of `length` samples."""
    return 1 + (length.clamp(min=FRAME_SAMPLES) - FRAME_SAMPLES) // SHIFT_SAMPLES


def view_mels(
    mels: Tensor, n_frames: Tensor, config: PreprocessConfig, mixed: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw random views of sounds: a clip, a gain, noise, another sound, masked bands and times.

    Args:
        mels: (B, mels, T) log-mel bins of whole sounds.
        n_frames: (B,) valid frames.
        config: Audio sizes and statistics.
        mixed: Share of the rows that another row of the batch is mixed into.

    Returns:
        (B, 1, mels, frames) float32, normalised; the rows (B,) that were mixed in; how much
        (B,) of each view is its own. Frames beyond a short sound are zero before
        normalisation, as preprocessing makes them.
    """
    n = len(mels)
    clip = int((config.audio_clip_s * config.audio_rate_hz - FRAME_SAMPLES) // SHIFT_SAMPLES) + 1
    start = (torch.rand(n) * ((n_frames - clip).clamp(min=0) + 1)).long()
    index = (start[:, None] + torch.arange(clip)).clamp(max=mels.shape[-1] - 1)
    x = mels.gather(2, index[:, None].expand(-1, mels.shape[1], -1)).float()
    loud = x.amax(dim=(1, 2), keepdim=True)
    noise = loud - uniform(n, 6.0, 16.0, 1, 1) + torch.rand_like(x).clamp(min=1e-4).log()
    x = torch.where(torch.rand(n, 1, 1) < 0.3, torch.logaddexp(x, noise), x)
    other, share = torch.randperm(n), uniform(n, 0.5, 1.0)
    share = torch.where(torch.rand(n) < mixed, share, torch.ones(n))
    level = ((1 - share) / share).clamp(min=1e-9).log() * 2.0  # of the power
    partner = x[other] - loud[other] + loud + level[:, None, None]
    x = torch.logaddexp(x, partner) + uniform(n, -2.5, 1.5, 1, 1)
    inside = torch.arange(clip) < torch.maximum(n_frames, n_frames[other] * (share < 1))[:, None]
    x = F.pad(x * inside[:, None], (0, config.audio_frames - clip))
    x = ((x - config.audio_mean) / config.audio_std)[:, None]
    return mask_bands(x, widest_mels=20, widest_frames=36), other, share


def mask_bands(mel: Tensor, widest_mels: int, widest_frames: int) -> Tensor:
    """Blank two bands of mel bins and two of frames in each image (SpecAugment)."""
    n, _, n_mels, n_frames = mel.shape
    fill = mel.mean(dim=(1, 2, 3), keepdim=True)
    for _ in range(2):
        for axis, size, widest in ((2, n_mels, widest_mels), (3, n_frames, widest_frames)):
            width = (torch.rand(n) * widest).long()
            start = (torch.rand(n) * (size - width)).long()
            place = torch.arange(size)
            band = (place >= start[:, None]) & (place < (start + width)[:, None])
            shape = [n, 1, size, 1] if axis == 2 else [n, 1, 1, size]
            mel = torch.where(band.view(shape), fill, mel)
    return mel


def turns(n: int, full: Tensor) -> Tensor:
    """Draw rotation matrices (n, 3, 3): about y with a small tilt, or any where `full`."""
    angle = uniform(n, -math.pi, math.pi)
    zero, one = torch.zeros(n), torch.ones(n)
    c, s = angle.cos(), angle.sin()
    about_y = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], 1).view(n, 3, 3)
    t = uniform(n, -0.25, 0.25)
    tilt = torch.stack([one, zero, zero, zero, t.cos(), -t.sin(), zero, t.sin(), t.cos()], 1)
    any_turn = torch.linalg.qr(torch.randn(n, 3, 3)).Q
    any_turn = any_turn * any_turn.det().sign()[:, None, None]
    return torch.where(full[:, None, None], any_turn, tilt.view(n, 3, 3) @ about_y)


def view_clouds(clouds: Tensor, full_share: float = 0.15) -> Tensor:
    """Draw random views of clouds (B, N, 3): turns, stretch, jitter; same point order."""
    n = len(clouds)
    x = clouds @ turns(n, torch.rand(n) < full_share)
    x = x * (1 + uniform(n, -0.15, 0.15, 1, 3))
    x = x * torch.where(torch.rand(n, 1, 1) < 0.5, 1.0, -1.0) ** torch.tensor([1.0, 0.0, 0.0])
    x = x + 0.01 * torch.randn_like(x)
    radius: Tensor = x.norm(dim=-1).amax(1)
    return x / radius[:, None, None]


def render_depth(clouds: Tensor, px: int, full_share: float = 0.1) -> Tensor:
    """Render disparity maps of clouds from random sides.

    Each point becomes a small square; the nearest one wins; the background is farthest.

    Args:
        clouds: (B, N, 3) with largest radius 1.
        px: Side of the maps.
        full_share: Share of views from any side instead of from around.

    Returns:
        (B, 1, px, px) float32, stretched to [0, 1].
    """
    n = len(clouds)
    x = clouds @ turns(n, torch.rand(n) < full_share)
    distance = uniform(n, 2.2, 4.0, 1)
    z = distance - x[..., 2]  # (B, N), the camera looks along -z
    zoom = uniform(n, 0.8, 1.05, 1) * (distance - 1.0)
    u = ((x[..., 0] / z * zoom + 1) * px / 2).long()
    v = ((1 - x[..., 1] / z * zoom) * px / 2).long()
    inside = (u >= 0) & (u < px) & (v >= 0) & (v < px)
    cell = (v * px + u).clamp(0, px * px - 1)
    near = torch.where(inside, 1 / z, torch.zeros_like(z))
    far = 1 / (distance + 1.5)
    plane = far.expand(n, px * px).clone()
    plane = plane.scatter_reduce(1, cell, near, "amax").view(n, 1, px, px)
    return stretch_disparity(F.max_pool2d(plane, 3, 1, 1))
