"""Meshes turned into points: sampled over their surface, by area, always the same way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.media.arrays import too_many
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem

N_SURFACE_POINTS = 8192
MAX_CORNERS = 64
_SEED = 0


@dataclass(frozen=True, eq=False)
class Mesh:
    """Vertices and, if the file has any, triangles.

    Attributes:
        vertices: (V, 3) float64.
        triangles: (F, 3) int64 indices into `vertices`; F is 0 for a bare cloud.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int64]


def bare(vertices: NDArray[np.float64]) -> Mesh:
    """Return a mesh without faces."""
    return Mesh(vertices, np.empty((0, 3), np.int64))


def fan(polygons: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cut (P, K) polygons of K corners into (P x (K-2), 3) triangles around their first corner."""
    corners = polygons.shape[1]
    parts = [polygons[:, [0, i, i + 1]] for i in range(1, corners - 1)]
    return np.stack(parts, axis=1).reshape(-1, 3) if parts else np.empty((0, 3), np.int64)


def fans(polygons: list[list[int]], policy: MediaPolicy, name: str) -> NDArray[np.int64]:
    """Cut polygons of any number of corners into (F, 3) triangles.

    Raises:
        MediaError: A polygon has very many corners, or there are too many triangles.
    """
    groups: dict[int, list[list[int]]] = {}
    for polygon in polygons:
        groups.setdefault(len(polygon), []).append(polygon)
    if any(size > MAX_CORNERS for size in groups):
        raise problem(name, "a face of very many corners", "polygons", "triangulate the mesh")
    if sum((size - 2) * len(group) for size, group in groups.items()) > 2 * policy.max_points:
        raise too_many(name, 2 * policy.max_points, "triangles")
    parts = [fan(np.array(group, np.int64)) for size, group in groups.items() if size >= 3]
    return np.concatenate(parts) if parts else np.empty((0, 3), np.int64)


def joined(
    vertices: NDArray[np.float64], polygons: list[list[int]], policy: MediaPolicy, name: str
) -> Mesh:
    """Return the mesh of `vertices` and `polygons`, whose indices are checked."""
    triangles = fans(polygons, policy, name)
    check_indices(triangles, len(vertices), name)
    return Mesh(vertices, triangles)


def check_indices(triangles: NDArray[np.int64], n_vertices: int, name: str) -> None:
    """Raise `MediaError` if a face names a vertex that does not exist."""
    if triangles.size and (triangles.min() < 0 or triangles.max() >= n_vertices):
        raise problem(
            name,
            "a face that names a vertex which is not there",
            f"indices into {n_vertices:,} vertices",
            "export the mesh again",
        )


def sample_surface(mesh: Mesh, n_points: int = N_SURFACE_POINTS) -> NDArray[np.float64]:
    """Draw points evenly over the surface; the same mesh always gives the same points.

    Args:
        mesh: A mesh with finite vertices and valid triangles.
        n_points: How many points to draw.

    Returns:
        (n_points, 3) float64; the vertices themselves if the mesh has no face or no area.

    Source: Osada et al., *Shape Distributions* (2002): a triangle by area, then
    (1-sqrt(r1)) a + sqrt(r1)(1-r2) b + sqrt(r1) r2 c.
    """
    if not len(mesh.triangles):
        return mesh.vertices
    a, b, c = (mesh.vertices[mesh.triangles[:, corner]] for corner in range(3))
    # Scaled first, so that the area of huge or tiny meshes neither overflows nor vanishes.
    scale = max(float(np.abs(mesh.vertices).max()), 1e-300)
    areas = np.linalg.norm(np.cross((b - a) / scale, (c - a) / scale), axis=1)
    total = float(areas.sum())
    if not total > 0:
        return mesh.vertices
    random = np.random.Generator(np.random.PCG64(_SEED))
    picks = np.searchsorted(np.cumsum(areas), random.random(n_points) * total, side="right")
    picks = np.minimum(picks, len(areas) - 1)
    root, along = np.sqrt(random.random((n_points, 1))), random.random((n_points, 1))
    return (1 - root) * a[picks] + root * (1 - along) * b[picks] + root * along * c[picks]
