"""3D shapes as points: clouds as they are, meshes sampled over their surface."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.media.arrays import check_finite, read_npy, read_table, to_float32, too_many
from ibllm_tools.media.formats import Format
from ibllm_tools.media.items import Points
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem
from ibllm_tools.media.shapes.meshes import Mesh, bare, sample_surface
from ibllm_tools.media.shapes.ply import read_ply
from ibllm_tools.media.shapes.polygons import read_obj, read_off, read_stl
from ibllm_tools.media.shapes.torchfile import read_torch_tensor

_MAX_COLUMNS = 16


def read_points(
    data: bytes, format_: Format, policy: MediaPolicy, name: str, weight: float = 1.0
) -> Points:
    """Decode a 3D shape.

    A mesh is sampled over its surface to 8192 points, always the same ones; a cloud keeps its
    points and their order. A file whose faces use less than half of its vertices is a cloud. Of
    an array or table with more than three columns (normals, colours) the first three are taken.
    Nothing is centred or scaled.

    Raises:
        MediaError: It is damaged or cut off, has no points or more than allowed, or holds NaN or
            infinity.
    """
    mesh = _read(data, format_, policy, name)
    if not len(mesh.vertices):
        raise problem(name, "no points", "at least one", "export the shape again")
    check_finite(mesh.vertices, name)
    to_float32(mesh.vertices, name)
    is_mesh = 2 * len(np.unique(mesh.triangles)) >= len(mesh.vertices)
    xyz = to_float32(sample_surface(mesh) if is_mesh else mesh.vertices, name)
    return Points(np.ascontiguousarray(xyz), weight=weight, name=name)


def _read(data: bytes, format_: Format, policy: MediaPolicy, name: str) -> Mesh:
    if format_.name == "ply":
        return read_ply(data, policy, name)
    if format_.name == "obj":
        return read_obj(data, policy, name)
    if format_.name == "off":
        return read_off(data, policy, name)
    if format_.name == "stl":
        return read_stl(data, policy, name)
    if format_.name == "xyz":
        return bare(_columns(read_table(data, policy.max_points, name), policy, name))
    if format_.name == "pt":
        tensor = read_torch_tensor(data, _MAX_COLUMNS * policy.max_points, name)
        return bare(_columns(tensor, policy, name))
    return bare(_columns(read_npy(data, name), policy, name))


def _columns(values: NDArray[Any], policy: MediaPolicy, name: str) -> NDArray[np.float64]:
    """(N, 3) from (N, 3) or more columns; leading axes of one are dropped."""
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or not 3 <= values.shape[1] <= _MAX_COLUMNS:
        raise problem(
            name,
            f"values of shape {str(values.shape)[:60]}",
            "(N, 3): one row x, y, z for each point",
            "transpose or reshape it",
        )
    if len(values) > policy.max_points:
        raise too_many(name, policy.max_points, "points")
    return values[:, :3].astype(np.float64)
