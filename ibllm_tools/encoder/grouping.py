"""Farthest points and nearest neighbours: which points form which group.

Knows coordinates only. Indices do not change when a cloud is rotated, moved or scaled evenly
(up to rounding), so a trainer may compute them once and reuse them; see `PointGroups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ibllm_tools.encoder.configuration import PointConfig
from ibllm_tools.errors import ConfigurationError

ORIGIN_SQUARED = 1e-3  # PointNet++'s CUDA sampling never picks points nearer to the origin


@dataclass(frozen=True)
class PointGroups:
    """A batch of clouds with its groups; level l groups the centres of level l-1.

    Attributes:
        xyz: (B, N, 3) points.
        centers: per level (B, G) indices into the level below (the points, for level 0).
        neighbours: per level (B, G, K) indices into the level below, nearest first.
    """

    xyz: Tensor
    centers: tuple[Tensor, ...]
    neighbours: tuple[Tensor, ...]

    def select(self, rows: Tensor) -> PointGroups:
        """Take some clouds of the batch, in the order of the indices `rows`."""
        centers = tuple(index[rows] for index in self.centers)
        return PointGroups(self.xyz[rows], centers, tuple(index[rows] for index in self.neighbours))

    def to(self, device: torch.device | str) -> PointGroups:
        """Move all tensors to a device."""
        centers = tuple(index.to(device) for index in self.centers)
        neighbours = tuple(index.to(device) for index in self.neighbours)
        return PointGroups(self.xyz.to(device), centers, neighbours)


def group_points(xyz: Tensor, config: PointConfig) -> PointGroups:
    """Find the groups that a point encoder of this config reads.

    PointBERT: `n_groups` farthest points from `fps_start`, `group_size` neighbours each.
    I2P-MAE: three such levels, sampled by the rule of PointNet++ (see `farthest_points`).

    Args:
        xyz: (B, N, 3) float; computed in float32 whatever the dtype.
        config: Sizes of the encoder.

    Raises:
        ConfigurationError: A cloud has fewer points than the encoder groups.
    """
    if config.encoder == "pointbert":
        counts: Sequence[tuple[int, int]] = [(config.n_groups, config.group_size)]
    else:
        counts = list(zip(config.level_n_groups, config.level_group_sizes, strict=True))
    below, centers, neighbours = xyz.float(), [], []
    for level, (n_groups, size) in enumerate(counts):
        if below.shape[1] < max(n_groups, size):
            raise ConfigurationError(
                f"found {below.shape[1]} points, expected at least {max(n_groups, size)} "
                f"for {n_groups} groups of {size}; sample more points"
            )
        start = config.fps_start if level == 0 else 0
        skip = config.encoder == "i2pmae"
        center = farthest_points(below, n_groups, start=start, skip_origin=skip)
        chosen = gather_points(below, center)
        centers.append(center)
        neighbours.append(nearest_points(below, chosen, size)[0])
        below = chosen
    return PointGroups(xyz, tuple(centers), tuple(neighbours))


def farthest_points(xyz: Tensor, n: int, *, start: int = 0, skip_origin: bool = False) -> Tensor:
    """Pick `n` points, each the farthest from those picked before.

    Args:
        xyz: (B, N, 3) float32.
        n: How many to pick.
        start: Index of the first.
        skip_origin: Never pick points whose squared norm is at most 1e-3 (but for the first),
            as the CUDA operation of PointNet++ does.

    Returns:
        (B, n) int64.

    Source: Eldar et al., 1997; PointNet++ (Qi et al., 2017).
    """
    x, y, z = xyz.unbind(-1)
    x, y, z = x.contiguous(), y.contiguous(), z.contiguous()  # (B, N) each: planes are fast
    nearest = torch.full_like(x, torch.inf)
    if skip_origin:
        nearest[x * x + y * y + z * z <= ORIGIN_SQUARED] = -1
    picked = torch.empty(xyz.shape[0], n, dtype=torch.long, device=xyz.device)
    last = torch.full((xyz.shape[0], 1), start, dtype=torch.long, device=xyz.device)
    for i in range(n):
        picked[:, i : i + 1] = last
        dx, dy, dz = x - x.gather(1, last), y - y.gather(1, last), z - z.gather(1, last)
        nearest = torch.minimum(nearest, dx * dx + dy * dy + dz * dz)
        last = nearest.argmax(-1, keepdim=True)
    return picked


def nearest_points(xyz: Tensor, centers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the `k` points nearest to each centre, nearest first, lower index first on ties.

    Args:
        xyz: (B, N, 3) float32.
        centers: (B, G, 3) float32.
        k: How many.

    Returns:
        Indices (B, G, k) int64 and euclidean distances (B, G, k).
    """
    distance = torch.cdist(centers, xyz, compute_mode="donot_use_mm_for_euclid_dist")
    index = distance.topk(k, largest=False, sorted=False).indices.sort(-1).values
    ascending, order = distance.gather(-1, index).sort(dim=-1, stable=True)
    return index.gather(-1, order), ascending


def gather_points(values: Tensor, index: Tensor) -> Tensor:
    """Take rows of (B, N, C) by indices (B, ...) into (B, ..., C)."""
    flat = index.flatten(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).view(*index.shape, values.shape[-1])
