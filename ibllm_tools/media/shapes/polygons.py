"""OBJ, OFF and STL files: vertices and triangles."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.media.arrays import read_table, text_rows, too_many
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import decoding, problem
from ibllm_tools.media.shapes.meshes import Mesh, joined

_OBJ_VERTEX = re.compile(rb"(?m)^[ \t]*v[ \t]+([^\r\n#]*)")
_OBJ_FACE = re.compile(rb"(?m)^[ \t]*f[ \t]+([^\r\n#]*)")
_STL_VERTEX = re.compile(rb"(?mi)^[ \t]*vertex[ \t]+([^\r\n]*)")
_STL_TRIANGLE = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("extra", "<u2")])
_STL_HEADER = 84


def read_obj(data: bytes, policy: MediaPolicy, name: str) -> Mesh:
    """Read the vertices and faces of a Wavefront OBJ file; material files are never opened.

    Raises:
        MediaError: It has no vertices, more than allowed, or a face that names a missing one.
    """
    with decoding(name, "an OBJ file"):
        rows = _found(_OBJ_VERTEX, data, policy, name, "vertices")
        if not rows:
            raise problem(name, "no vertices", "lines like `v 0 0 1`", "export it again")
        vertices = read_table(b"\n".join(rows), policy.max_points, name, (0, 1, 2))
        faces = _found(_OBJ_FACE, data, policy, name, "faces")
        polygons = [_obj_corners(face, len(vertices)) for face in faces]
        return joined(vertices, polygons, policy, name)


def _found(
    pattern: re.Pattern[bytes], data: bytes, policy: MediaPolicy, name: str, what: str
) -> list[bytes]:
    rows = []
    for match in pattern.finditer(data):
        rows.append(match[1])
        if len(rows) > policy.max_points:
            raise too_many(name, policy.max_points, what)
    return rows


def _obj_corners(face: bytes, n_vertices: int) -> list[int]:
    """Corner indices from 0; OBJ counts from 1, and negative ones from the end."""
    numbers = [int(word.split(b"/")[0]) for word in face.split()]
    return [number - 1 if number > 0 else n_vertices + number for number in numbers]


def read_off(data: bytes, policy: MediaPolicy, name: str) -> Mesh:
    """Read the vertices and faces of an OFF file.

    Raises:
        MediaError: The counts are missing, too large, or more than what follows.
    """
    with decoding(name, "an OFF file"):
        word = re.match(rb"\s*(?:ST)?C?N?4?OFF\b", data)
        lines = text_rows(data[word.end() :] if word else data, name)
        counts = [int(word) for word in next(lines, "").split()[:2]]
        if len(counts) != 2 or min(counts) < 0 or not counts[0]:
            raise problem(name, "no counts", "numbers of vertices and faces", "export it again")
        if max(counts) > policy.max_points:
            raise too_many(name, policy.max_points, "vertices or faces")
        rows = [line for line, _ in zip(lines, range(sum(counts)), strict=False)]
        if len(rows) < sum(counts):
            raise problem(
                name,
                f"a header that claims {sum(counts):,} lines where {len(rows):,} follow",
                "all of them",
                "it is cut off: export or upload it again",
            )
        vertices = np.loadtxt(rows[: counts[0]], np.float64, ndmin=2, usecols=(0, 1, 2))
        polygons = [_off_corners(row) for row in rows[counts[0] :]]
        return joined(vertices, polygons, policy, name)


def _off_corners(row: str) -> list[int]:
    words = row.split()
    corners = [int(word) for word in words[1 : 1 + int(words[0])]]
    if len(corners) != int(words[0]):
        raise ValueError("a face with too few corners")
    return corners


def read_stl(data: bytes, policy: MediaPolicy, name: str) -> Mesh:
    """Read the triangles of an STL file, binary or ASCII.

    Raises:
        MediaError: A binary file whose triangle count does not account for its bytes, an ASCII
            file without whole triangles, or more triangles than allowed.
    """
    with decoding(name, "an STL file"):
        is_text = data[:5].lower() == b"solid" and b"facet" in data[:4096]
        corners = (_ascii_stl if is_text else _binary_stl)(data, policy, name)
        vertices = corners.reshape(-1, 3)
        return Mesh(vertices, np.arange(len(vertices), dtype=np.int64).reshape(-1, 3))


def _ascii_stl(data: bytes, policy: MediaPolicy, name: str) -> NDArray[np.float64]:
    if b"endsolid" not in data[-4096:].lower():
        raise problem(name, "no endsolid", "a complete STL file", "it is cut off: export it again")
    limit = policy.max_points
    rows = []
    for match in _STL_VERTEX.finditer(data):
        rows.append(match[1])
        if len(rows) > 3 * limit:
            raise too_many(name, limit, "triangles")
    if not rows or len(rows) % 3:
        raise problem(name, f"{len(rows):,} corners", "three for each triangle", "export it again")
    return read_table(b"\n".join(rows), 3 * limit, name, (0, 1, 2))


def _binary_stl(data: bytes, policy: MediaPolicy, name: str) -> NDArray[np.float64]:
    count = int.from_bytes(data[80:_STL_HEADER], "little") if len(data) >= _STL_HEADER else 0
    left = len(data) - _STL_HEADER
    if not count or count * _STL_TRIANGLE.itemsize > left:
        raise problem(
            name,
            f"a header that claims {count:,} triangles where {max(left, 0) // 50:,} follow",
            "all of them",
            "it is cut off or no STL file: export it again",
        )
    if count > policy.max_points:
        raise too_many(name, policy.max_points, "triangles")
    triangles = np.frombuffer(data, _STL_TRIANGLE, count, _STL_HEADER)
    return triangles["corners"].astype(np.float64)
