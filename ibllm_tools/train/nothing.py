"""Inputs that show nothing: pictures, sounds and clouds of noise, and how a table gets such rows.

They are one more class beside the concepts, so that noise in any modality lies near pictures of
nothing and not near some concept.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.encoder import ImageBind
from ibllm_tools.preprocess import PreprocessConfig, pixels_to_views
from ibllm_tools.preprocess.image import normalize_pixels
from ibllm_tools.train.contrastive import encode_all
from ibllm_tools.train.data import Table


def encode_nothing(encoder: ImageBind, config: PreprocessConfig, count: int = 240) -> Tensor:
    """The direction of pictures that show nothing: (joint,), of length 1."""
    pictures = pixels_to_views(empty_pictures(count, config), config)
    found = encode_all(encoder, "image", lambda r: pictures[r], len(pictures))
    return F.normalize(found.mean(0), dim=-1)


def with_nothing(table: Table, values: NDArray[np.number], concept: int) -> Table:
    """Append rows that show nothing, as one more concept.

    Args:
        table: Rows of one modality.
        values: (K, ...) in the form of the table's values.
        concept: Id of the class of nothing.
    """
    count = len(values)
    return Table(
        values=np.concatenate([np.asarray(table.values), values.astype(table.values.dtype)]),
        length=np.concatenate([table.length, np.full(count, values.shape[1])]),
        concept=np.concatenate([table.concept, np.full(count, concept)]),
        subtype=[*table.subtype, *[""] * count],
        extra=[*table.extra, *[""] * count],
    )


def noise_sounds(count: int, n_samples: int, seed: int) -> NDArray[np.int16]:
    """Silence and noise of several colours and levels, steady or in bursts: (count, n_samples)."""
    generator = np.random.default_rng(seed)
    sounds = np.zeros((count, n_samples), np.int16)
    for i in range(count):
        if i % 6 == 0:
            continue  # silence
        spectrum = np.fft.rfft(generator.standard_normal(n_samples))
        falls = (0.0, 0.0, 0.5, 1.0)[i % 4]  # white, pink, brown
        spectrum /= np.arange(1, len(spectrum) + 1) ** falls
        wave = np.fft.irfft(spectrum, n_samples)
        level = 10 ** generator.uniform(-2.5, -0.3)
        wave *= level / np.abs(wave).max()
        if i % 3 == 0:
            steps = generator.random(generator.integers(4, 40)) < 0.5
            wave *= np.repeat(steps, -(-n_samples // len(steps)))[:n_samples]
        sounds[i] = (wave * 32767).astype(np.int16)
    return sounds


def noise_shapes(count: int, n_points: int, seed: int) -> NDArray[np.float32]:
    """Scattered points in balls, boxes, shells and bell curves: (count, n_points, 3)."""
    generator = np.random.default_rng(seed)
    shapes = np.zeros((count, n_points, 3), np.float32)
    for i in range(count):
        points = generator.standard_normal((n_points, 3))
        if i % 4 == 0:
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            points *= generator.random((n_points, 1)) ** (1 / 3)
        elif i % 4 == 1:
            points = generator.uniform(-1, 1, (n_points, 3))
        elif i % 4 == 2:
            centres = generator.uniform(-1, 1, (generator.integers(2, 30), 3))
            chosen = generator.integers(len(centres), size=n_points)
            points = centres[chosen] + points * generator.uniform(0.05, 0.5)
        points *= generator.uniform(0.6, 1.0, 3)
        shapes[i] = points / np.linalg.norm(points, axis=1).max()
    return shapes


def empty_pictures(count: int, config: PreprocessConfig) -> Tensor:
    """Pictures that show nothing: flat colours and greys, ramps, noise of several grains."""
    px = config.image_px
    flat = torch.rand(count, 1, 1, 3).expand(-1, px, px, -1)
    ramp = torch.linspace(0, 1, px).view(1, px, 1, 1)
    kinds = []
    for i in range(count):
        grain = (1, 1, 2, 4, 8)[i % 5]
        noise = torch.rand(1, 3, px // grain, px // grain)
        if i % 10 == 1:
            noise = (0.5 + 0.25 * torch.randn_like(noise)).clamp(0, 1)
        noise = F.interpolate(noise, size=px).permute(0, 2, 3, 1)
        share = (0.0, 0.1, 0.5, 1.0)[(i // 5) % 4]
        ground = flat[i : i + 1]
        if (i // 20) % 3 == 0:
            grey = (0.0, 0.5, 1.0, float(torch.rand(())))[(i // 60) % 4]
            ground = torch.full_like(ground, grey)
        picture = ground * (1 - share) + noise * share
        if (i // 20) % 3 == 1:
            picture = 0.5 * picture + 0.5 * ramp
        kinds.append(picture)
    return normalize_pixels((torch.cat(kinds) * 255).byte(), config)
