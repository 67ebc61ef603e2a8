"""Point clouds: centred, scaled to radius 1, and brought to a fixed number of points."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibllm_tools.preprocess.config import PreprocessConfig


def normalize_points(points: Tensor) -> Tensor:
    """Move each cloud's mean to the origin and scale its largest radius to 1.

    Args:
        points: (..., N, 3) float. A cloud whose points all coincide becomes zeros.

    Returns:
        (..., N, 3), same dtype.

    Source: PointNet (Qi et al., 2017), input normalisation.
    """
    centred = points - points.mean(dim=-2, keepdim=True)
    radius = centred.square().sum(dim=-1).amax(dim=-1).sqrt()
    radius = torch.where(radius > 0, radius, torch.ones_like(radius))
    return centred / radius[..., None, None]


def resample_points(points: Tensor, n_points: int, seed: int = 0) -> Tensor:
    """Bring a cloud to `n_points` points.

    More points are thinned by a seeded choice without repeats, in their order. Fewer points
    are all kept and repeated in turn. The right number is returned unchanged.

    Args:
        points: (N, 3), N at least 1.
        n_points: Points wanted.
        seed: Seed of the choice; the same seed gives the same points.

    Returns:
        (n_points, 3), same dtype.
    """
    n = points.shape[0]
    if n <= n_points:
        return points[torch.arange(n_points, device=points.device) % n]
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(n, generator=generator)[:n_points].sort().values
    return points[kept.to(points.device)]


def farthest_points(
    points: NDArray[np.floating], n_points: int, start: int = 0
) -> NDArray[np.intp]:
    """Choose points one by one, each the farthest from those chosen before.

    Args:
        points: (N, 3) cloud.
        n_points: How many to choose.
        start: Index of the first one.

    Returns:
        (n_points,) indices into `points`.

    Source: PointNet++ (Qi et al., 2017), section 3.2.
    """
    nearest = np.full(points.shape[0], np.inf)
    chosen = np.empty(n_points, dtype=np.intp)
    for i in range(n_points):
        chosen[i] = start
        offset = points - points[start]
        nearest = np.minimum(nearest, (offset * offset).sum(axis=-1))
        start = int(nearest.argmax())
    return chosen


def points_to_cloud(points: Tensor, config: PreprocessConfig) -> Tensor:
    """Bring a cloud to the form that the point trunk expects.

    Args:
        points: (N, 3) float, N at least 1.
        config: Holds `n_points`.

    Returns:
        (n_points, 3) float32, mean 0 before thinning, largest radius 1.
    """
    cloud = normalize_points(points.double())
    return resample_points(cloud, config.n_points).float()
