"""The shard that is being filled: files that only grow, and a journal of how far they are valid.

```
open.features   float16 values        open.rows   lines        open.journal   a line per block
```
A process that is killed leaves at most what its last block wrote; `reopen` cuts that off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from ibllm_tools.data.store.shards import KEY_BYTES, Half

_NAMES = ("features", "rows", "journal")
_VALUE_BYTES = 2


@dataclass
class Block:
    """What one block adds to the open shard.

    Attributes:
        number: Of the shard.
        seen: Examples of the source so far, kept or not, in all shards.
        last_id: Of the last example; tells that the source is the same when a run goes on.
        keys: Digest of each new vector's medium, in hex.
        modality: What each was sensed as, by its place in `MODALITIES`.
        copied: 1 for vectors that an earlier shard has.
        ends: Where each new row's line ends, in bytes of the shard's rows.
        failed: Digests of media that cannot be encoded, and why.
        report: The report of the examples of this shard so far.
    """

    number: int
    seen: int = 0
    last_id: str = ""
    keys: list[str] = field(default_factory=list)
    modality: list[int] = field(default_factory=list)
    copied: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    failed: dict[str, list[str]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The growing files of the open shard."""

    def __init__(self, folder: Path, width: int) -> None:
        """Open or make the files in `folder`, for vectors of `width` values."""
        self._paths = {name: folder / f"open.{name}" for name in _NAMES}
        self._width = width
        self._files: dict[str, BufferedWriter] = {}

    def reopen(self, number: int) -> list[Block]:
        """Read the valid blocks of shard `number` and cut off what lies behind them.

        Files of another shard are left over from closing it, and are removed.
        """
        blocks = list(self._valid_blocks(number))
        if not blocks:
            self.remove()
        n_features = sum(len(block.keys) for block in blocks)
        sizes = {
            "features": n_features * self._width * _VALUE_BYTES,
            "rows": max((end for block in blocks for end in block.ends), default=0),
        }
        for name, path in self._paths.items():
            path.touch()
            if name in sizes:
                with path.open("r+b") as file:
                    file.truncate(sizes[name])
        lines = b"".join(_line(vars(block)) for block in blocks)
        self._paths["journal"].write_bytes(lines)
        self._files = {name: path.open("ab") for name, path in self._paths.items()}
        return blocks

    def _valid_blocks(self, number: int) -> Iterator[Block]:
        """Blocks in order, up to the first that is cut off or says more than the files hold."""
        if not all(path.is_file() for path in self._paths.values()):
            return
        sizes = {name: path.stat().st_size for name, path in self._paths.items()}
        n_features = 0
        for line in self._paths["journal"].read_bytes().splitlines(keepends=True):
            try:
                block = Block(**json.loads(line))
            except (ValueError, TypeError):
                return
            n_features += len(block.keys)
            missing = n_features * self._width * _VALUE_BYTES > sizes["features"]
            if not line.endswith(b"\n") or block.number != number or missing:
                return
            if block.ends and block.ends[-1] > sizes["rows"]:
                return
            yield block

    def add(self, block: Block, vectors: list[Half], lines: list[bytes]) -> None:
        """Write one block: what it adds first, its journal line last."""
        self._write("features", b"".join(vector.tobytes() for vector in vectors))
        self._write("rows", b"".join(lines))
        self._write("journal", _line(vars(block)))

    def features(self) -> Half:
        """Read the vectors so far, (n, width)."""
        data = np.fromfile(self._paths["features"], np.float16)
        return data.reshape(-1, self._width)

    def feature(self, row: int) -> Half:
        """Read one vector."""
        n_bytes = self._width * _VALUE_BYTES
        with self._paths["features"].open("rb") as file:
            file.seek(row * n_bytes)
            return np.frombuffer(file.read(n_bytes), np.float16)

    def rows(self) -> bytes:
        """Read the lines so far."""
        return self._paths["rows"].read_bytes()

    def remove(self) -> None:
        """Close and delete the files."""
        self.close()
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what they hold stays."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _write(self, name: str, data: bytes) -> None:
        self._files[name].write(data)
        self._files[name].flush()


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"


def key_bytes(keys: list[str]) -> Any:
    """Digests in hex as (n, 16) uint8."""
    joined = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8)
    return joined.reshape(-1, KEY_BYTES).copy()
