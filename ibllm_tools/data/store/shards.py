"""One shard of a feature store: its two files, written at once and read from disk as needed.

```
rows-00000.jsonl             a line per example: id, messages, media
features-00000.safetensors   features (n, joint) float16    keys (n, 16) uint8
                             modality (n,) uint8            copied (n,) uint8
                             row_ends (rows,) int64, where each line ends
                             metadata: examples seen, the report, media that failed
```
A shard exists once its safetensors file does. `copied` marks vectors that an earlier shard has.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.errors import CheckpointError

METADATA = "ibllm"
KEY_BYTES = 16
_DTYPES: dict[str, Any] = {"F16": np.float16, "U8": np.uint8, "I64": np.int64}

Half = NDArray[np.float16]
Bytes = NDArray[np.uint8]


def features_path(folder: Path, number: int) -> Path:
    """Name the file of a shard's vectors."""
    return folder / f"features-{number:05d}.safetensors"


def rows_path(folder: Path, number: int) -> Path:
    """Name the file of a shard's examples."""
    return folder / f"rows-{number:05d}.jsonl"


def count_shards(folder: Path) -> int:
    """Count the whole shards of a folder."""
    number = 0
    while features_path(folder, number).is_file():
        number += 1
    return number


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]], about: dict[str, Any]) -> None:
    """Write a safetensors file so that it appears whole or not at all."""
    from safetensors.numpy import save_file

    part = path.with_name(path.name + ".part")
    save_file(arrays, part, metadata={METADATA: json.dumps(about, sort_keys=True)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


class Shard:
    """A shard's arrays and rows, mapped into memory."""

    features: Half
    keys: Bytes
    modality: Bytes
    copied: Bytes

    def __init__(self, folder: Path, number: int) -> None:
        """Map the files of a shard.

        Raises:
            CheckpointError: A file is missing or damaged.
        """
        path, self._rows_path = features_path(folder, number), rows_path(folder, number)
        try:
            arrays, about = _map_arrays(path)
            self.about: dict[str, Any] = json.loads(about[METADATA])
            self.features, self.keys = arrays["features"], arrays["keys"]
            self.modality, self.copied = arrays["modality"], arrays["copied"]
            self._ends: NDArray[np.int64] = arrays["row_ends"]
            self._rows = _map_bytes(self._rows_path)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise CheckpointError(
                f"{path}: {error}; expected a shard of a feature store, is the copy complete?"
            ) from error
        if len(self._rows) != (self._ends[-1] if len(self._ends) else 0):
            raise CheckpointError(
                f"{self._rows_path}: found {len(self._rows)} bytes, expected {self._ends[-1]}; "
                "copy the store again"
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._ends)

    def row(self, index: int) -> dict[str, Any]:
        """Read one row."""
        first = int(self._ends[index - 1]) if index else 0
        line = bytes(self._rows[first : int(self._ends[index])])
        row: dict[str, Any] = json.loads(line)
        return row


def _map_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Map the tensors of a safetensors file; the arrays cannot be written to."""
    data = _map_bytes(path)
    (n_header,) = struct.unpack("<Q", bytes(data[:8]))
    header: dict[str, Any] = json.loads(bytes(data[8 : 8 + n_header]))
    about: dict[str, str] = header.pop("__metadata__", {})
    body = data[8 + n_header :]
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in header.items():
        first, last = tensor["data_offsets"]
        if last > len(body):
            raise ValueError(f"{name} ends behind the end of the file")
        arrays[name] = body[first:last].view(_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return arrays, about


def _map_bytes(path: Path) -> Bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # nothing cannot be mapped
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
