"""Where the vector of each medium lies, for all whole shards: 24 bytes per medium."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.data.store.shards import KEY_BYTES, Bytes

_Keys = NDArray[np.bytes_]


class KeyIndex:
    """Digests of 16 bytes, sorted, each with its shard and its row there."""

    def __init__(self) -> None:
        self._keys: _Keys = np.zeros(0, f"S{KEY_BYTES}")
        self._places: NDArray[np.int32] = np.zeros((0, 2), np.int32)

    def __len__(self) -> int:
        """Return the number of media."""
        return len(self._keys)

    def add(self, number: int, keys: Bytes, copied: Bytes) -> None:
        """Add the media of a shard, but for those that an earlier shard has.

        Args:
            number: Of the shard.
            keys: (n, 16) uint8.
            copied: (n,) uint8.
        """
        rows = np.flatnonzero(copied == 0).astype(np.int32)
        new = np.ascontiguousarray(keys[rows]).view(f"S{KEY_BYTES}").reshape(-1)
        places = np.stack([np.full_like(rows, number), rows], axis=1)
        joined = np.concatenate([self._keys, new])
        order = np.argsort(joined, kind="stable")
        self._keys = joined[order]
        self._places = np.concatenate([self._places, places])[order]

    def find(self, digest: str) -> tuple[int, int] | None:
        """Find the shard and row of a digest in hex; None if there is none."""
        if not len(self._keys):
            return None
        # As an array, so that zero bytes at the end are compared as they are stored.
        wanted = np.frombuffer(bytes.fromhex(digest), f"S{KEY_BYTES}")
        place = int(np.searchsorted(self._keys, wanted)[0])
        if place == len(self._keys) or self._keys[place] != wanted[0]:
            return None
        number, row = self._places[place]
        return int(number), int(row)
