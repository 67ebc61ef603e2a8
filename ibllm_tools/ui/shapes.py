"""A point cloud as a glTF file that a browser can turn: a small octahedron for every point."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_SHOWN = 4096
_SIZE = 0.008  # of the cloud's longest side
_CORNERS = np.array(
    [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], np.float32
)
_FACES = np.array(
    [
        (0, 2, 4),
        (2, 1, 4),
        (1, 3, 4),
        (3, 0, 4),
        (2, 0, 5),
        (1, 2, 5),
        (3, 1, 5),
        (0, 3, 5),
    ],
    np.uint32,
)
_LOW, _HIGH = np.array((0.12, 0.25, 0.75)), np.array((1.0, 0.62, 0.20))
_TURN = [0.0, 0.3, 0.0, 0.954]  # a quaternion: 35 degrees, so that depth is seen at once
_FLOAT, _UINT = 5126, 5125  # component types of glTF
_VERTICES, _INDICES = 34962, 34963


def write_cloud(xyz: NDArray[np.float32], path: Path) -> None:
    """Write points as binary glTF, coloured by height.

    Args:
        xyz: (N, 3) float32; of more than 4096 points an even part is shown.
        path: Ends with .glb.

    Source: glTF 2.0 specification, sections 3 and 4.4 (GLB).
    """
    if len(xyz) > MAX_SHOWN:
        xyz = xyz[np.linspace(0, len(xyz) - 1, MAX_SHOWN).astype(int)]
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    unit = (xyz - (low + high) / 2) / max(float((high - low).max()), 1e-9)  # (N, 3)
    corners = unit[:, None] + _SIZE * _CORNERS  # (N, 6, 3)
    faces = _FACES[None] + 6 * np.arange(len(unit), dtype=np.uint32)[:, None, None]
    height = unit[:, 1:2] - unit[:, 1].min()
    height = height / max(float(height.max()), 1e-9)
    colours = np.repeat(_LOW + (_HIGH - _LOW) * height, 6, axis=0)
    # Vertex colours are linear, those above are meant for the eye.
    path.write_bytes(_glb(corners.reshape(-1, 3), colours**2.2, faces.reshape(-1)))


def _glb(
    corners: NDArray[np.floating], colours: NDArray[np.floating], indices: NDArray[np.uint32]
) -> bytes:
    """Join vertices (V, 3), their colours (V, 3) and triangles (3 T) to one file."""
    tables = [corners.astype("<f4"), colours.astype("<f4"), indices.astype("<u4")]
    starts = np.cumsum([0, *(table.nbytes for table in tables)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": table.nbytes, "target": target}
        for start, table, target in zip(
            starts, tables, (_VERTICES, _VERTICES, _INDICES), strict=False
        )
    ]
    accessors = [
        {"bufferView": 0, "componentType": _FLOAT, "count": len(corners), "type": "VEC3"}
        | {"min": tables[0].min(axis=0).tolist(), "max": tables[0].max(axis=0).tolist()},
        {"bufferView": 1, "componentType": _FLOAT, "count": len(colours), "type": "VEC3"},
        {"bufferView": 2, "componentType": _UINT, "count": len(indices), "type": "SCALAR"},
    ]
    material = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}}
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}
    scene = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": _TURN}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material | {"extensions": {"KHR_materials_unlit": {}}}],
        "extensionsUsed": ["KHR_materials_unlit"],
        "buffers": [{"byteLength": starts[-1]}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    parts = [(b"JSON", text), (b"BIN\0", b"".join(table.tobytes() for table in tables))]
    chunks = [struct.pack("<I4s", len(data), kind) + data for kind, data in parts]
    return b"".join([struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))), *chunks])
