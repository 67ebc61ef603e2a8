"""PLY files: ASCII and binary of both byte orders, with or without faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.media.arrays import text_rows, too_many
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import decoding, problem
from ibllm_tools.media.shapes.meshes import MAX_CORNERS, Mesh, bare, check_indices, fan, fans

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 64 * 2**10


@dataclass
class _Property:
    name: str
    kind: str
    count_kind: str = ""


@dataclass
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def is_flat(self) -> bool:
        return not any(item.count_kind for item in self.properties)


def read_ply(data: bytes, policy: MediaPolicy, name: str) -> Mesh:
    """Read the vertices and faces of a PLY file.

    Raises:
        MediaError: The header is not PLY, or claims more than follows or than is allowed.
    """
    with decoding(name, "a PLY file"):
        order, elements, offset = _header(data, name)
        for element in elements:
            if element.count > policy.max_points:
                raise too_many(name, policy.max_points, f"{element.name} elements")
        reader = _Reader(data, offset, order, policy, name)
        return _mesh(reader, elements, name)


def _bad_header(name: str, found: str) -> Exception:
    return problem(name, f"a PLY header with {found}", "a PLY 1.0 header", "export it again")


def _header(data: bytes, name: str) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header", 0, _MAX_HEADER)
    stop = data.find(b"\n", end)
    if end < 0 or stop < 0:
        raise _bad_header(name, "no end")
    order: str | None = None
    elements: list[_Element] = []
    for line in data[:end].decode("latin1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in {"comment", "obj_info"}:
            continue
        if words[0] == "format" and len(words) == 3:
            order = _ORDERS.get(words[1])
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal():
            elements.append(_Element(words[1], int(words[2][:18])))
        elif words[0] == "property" and elements:
            elements[-1].properties.append(_property(words, name))
        else:
            raise _bad_header(name, "a line that is not understood")
    if order is None or len(elements) > 100:
        raise _bad_header(name, "no known format")
    return order, elements, stop + 1


def _property(words: list[str], name: str) -> _Property:
    if len(words) == 3 and words[1] in _TYPES:
        return _Property(words[2], _TYPES[words[1]])
    known = len(words) == 5 and words[1] == "list" and words[2] in _TYPES and words[3] in _TYPES
    if not known or _TYPES[words[2]][0] == "f":
        raise _bad_header(name, "a property that is not understood")
    return _Property(words[4], _TYPES[words[3]], _TYPES[words[2]])


def _mesh(reader: _Reader, elements: list[_Element], name: str) -> Mesh:
    vertices: NDArray[np.float64] | None = None
    triangles = np.empty((0, 3), np.int64)
    for element in elements:
        if element.name == "vertex" and element.is_flat and vertices is None:
            vertices = _coordinates(reader, element, name)
        elif element.name == "face" and element.count:
            triangles = reader.triangles(element)
        else:
            reader.skip(element)
        if vertices is not None and element.name == "face":
            break
    if vertices is None or not len(vertices):
        raise _bad_header(name, "no vertices")
    check_indices(triangles, len(vertices), name)
    return Mesh(vertices, triangles) if len(triangles) else bare(vertices)


def _coordinates(reader: _Reader, element: _Element, name: str) -> NDArray[np.float64]:
    names = [item.name for item in element.properties]
    if not {"x", "y", "z"} <= set(names):
        raise _bad_header(name, "vertices without x, y and z")
    return reader.columns(element, [names.index(axis) for axis in "xyz"])


class _Reader:
    """Reads element after element, from lines of text or from packed values."""

    def __init__(
        self, data: bytes, offset: int, order: str, policy: MediaPolicy, name: str
    ) -> None:
        self._data = data
        self._offset = offset
        self._order = order
        self._policy = policy
        self._name = name
        self._rows = text_rows(data[offset:], name) if not order else iter(())

    def columns(self, element: _Element, columns: list[int]) -> NDArray[np.float64]:
        """(N, len(columns)) of an element without lists."""
        if not self._order:
            lines = self._lines(element)
            if not lines:
                return np.empty((0, len(columns)))
            if len(lines[-1].split()) < len(element.properties):
                raise self._short(element, "the last line is cut off")
            return np.loadtxt(lines, np.float64, ndmin=2, usecols=columns, comments=None)
        packed = self._packed(self._dtype(element), element)
        chosen = [packed[f"p{column}"].astype(np.float64) for column in columns]
        return np.stack(chosen, axis=1)

    def triangles(self, element: _Element) -> NDArray[np.int64]:
        """(F, 3) from the one list property of corner indices; other properties are left out."""
        lists = [i for i, item in enumerate(element.properties) if item.count_kind]
        if not lists:
            self.skip(element)
            return np.empty((0, 3), np.int64)
        if not self._order:
            return fans(self._ascii_rows(element, lists[0]), self._policy, self._name)
        regular = self._regular(element, lists[0])
        if regular is not None:
            return regular
        return fans(self._binary_rows(element, lists[0]), self._policy, self._name)

    def skip(self, element: _Element) -> None:
        """Move past an element that is not needed."""
        if not self._order:
            self._lines(element)
        elif element.is_flat:
            self._packed(self._dtype(element), element)
        else:
            self._binary_rows(element, None)

    def _short(self, element: _Element, found: str) -> Exception:
        return problem(
            self._name,
            f"a header that claims {element.count:,} {element.name} elements where {found}",
            "all of them",
            "it is cut off: export or upload it again",
        )

    def _dtype(self, element: _Element) -> np.dtype[Any]:
        return np.dtype(
            [(f"p{i}", self._order + item.kind) for i, item in enumerate(element.properties)]
        )

    def _packed(self, dtype: np.dtype[Any], element: _Element) -> NDArray[Any]:
        size = element.count * dtype.itemsize
        if size > len(self._data) - self._offset:
            raise self._short(element, f"{len(self._data) - self._offset:,} bytes follow")
        packed = np.frombuffer(self._data, dtype, element.count, self._offset)
        self._offset += size
        return packed

    def _lines(self, element: _Element) -> list[str]:
        lines = list(islice(self._rows, element.count))
        if len(lines) < element.count:
            raise self._short(element, f"{len(lines):,} lines follow")
        return lines

    def _ascii_rows(self, element: _Element, wanted: int) -> list[list[int]]:
        """The values of the list property `wanted`, line by line."""
        rows = []
        for line in self._lines(element):
            words = line.split()
            position = 0
            for i, item in enumerate(element.properties[: wanted + 1]):
                length = int(words[position]) if item.count_kind else 1
                position += bool(item.count_kind)
                if i == wanted:
                    row = [int(word) for word in words[position : position + length]]
                    if len(row) != length:
                        raise self._short(element, "a line is too short")
                    rows.append(row)
                position += length
        return rows

    def _regular(self, element: _Element, wanted: int) -> NDArray[np.int64] | None:
        """The fast way: every list is as long as the first, as in any triangle mesh."""
        item = element.properties[wanted]
        if sum(bool(other.count_kind) for other in element.properties) != 1:
            return None
        before = self._dtype(_Element("", 1, element.properties[:wanted])).itemsize
        count_kind = np.dtype(self._order + item.count_kind)
        start = self._offset + before
        if start + count_kind.itemsize > len(self._data):
            raise self._short(element, "nothing follows")
        corners = int(np.frombuffer(self._data, count_kind, 1, start)[0])
        if not 3 <= corners <= MAX_CORNERS:
            return None
        fields: list[Any] = []
        for i, other in enumerate(element.properties):
            if i == wanted:
                fields += [("n", count_kind), ("v", self._order + item.kind, (corners,))]
            else:
                fields.append((f"p{i}", self._order + other.kind))
        dtype = np.dtype(fields)
        if element.count * dtype.itemsize > len(self._data) - self._offset:
            return None
        packed = np.frombuffer(self._data, dtype, element.count, self._offset)
        if not (packed["n"] == corners).all():
            return None
        self._offset += element.count * dtype.itemsize
        return fan(packed["v"].astype(np.int64))

    def _binary_rows(self, element: _Element, wanted: int | None) -> list[list[int]]:
        """The slow way, for lists of different lengths; row by row."""
        rows = []
        for _ in range(element.count):
            for i, item in enumerate(element.properties):
                length = int(self._values(item.count_kind, 1, element)[0]) if item.count_kind else 1
                values = self._values(item.kind, length, element)
                if i == wanted:
                    rows.append([int(value) for value in values[: MAX_CORNERS + 1]])
        return rows

    def _values(self, kind: str, count: int, element: _Element) -> NDArray[Any]:
        dtype = np.dtype(self._order + kind)
        if not 0 <= count * dtype.itemsize <= len(self._data) - self._offset:
            raise self._short(element, f"{len(self._data) - self._offset:,} bytes follow")
        values = np.frombuffer(self._data, dtype, count, self._offset)
        self._offset += count * dtype.itemsize
        return values
