"""Sets of training rows, and the stream that mixes them.

The stream is one long list: which row stands at a place follows from the seed and the place
alone. Whoever reads places n, n + 1, ... therefore continues a run exactly, in any number of
processes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ibllm_tools.data.examples import Example, MediaRef
from ibllm_tools.data.store import FeatureStore

BLOCK = 4096
"""Shares are kept exactly in every block of this many draws."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainingRow:
    """One conversation and what it shows.

    Attributes:
        id: As in its source.
        messages: `{"role", "content"}` in order.
        modalities: What its media are; () for text only.
        feature: (joint,) float32, mixed; None for text only or where `media` is given.
        media: Media that are still to be encoded.
    """

    id: str
    messages: Sequence[dict[str, str]]
    modalities: tuple[str, ...] = ()
    feature: Tensor | None = None
    media: tuple[MediaRef, ...] = ()


class Rows(Protocol):
    """A list of training rows."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> TrainingRow: ...


class StoredRows:
    """The rows of a feature store; several media of a row are mixed by their weights."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.store)

    def __getitem__(self, index: int) -> TrainingRow:
        """Read a row from disk."""
        row = self.store[index]
        return TrainingRow(row.id, row.messages, row.modalities, row.mixed())


class ExampleRows:
    """Examples of a data file; their media are opened when a row is drawn."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._examples)

    def __getitem__(self, index: int) -> TrainingRow:
        """Give a row, its media unread."""
        example = self._examples[index]
        modalities = tuple(medium.modality for medium in example.media)
        return TrainingRow(example.id, example.messages, modalities, media=example.media)


class Stream(Dataset[TrainingRow]):
    """An endless mixture of sets, of which the first `length` rows are used.

    Without shares every row of every set comes once per pass, in an order drawn anew for each
    pass. With shares the sets are drawn in these proportions, and each set's rows pass by pass.

    Args:
        sets: What to mix.
        shares: Relative to each other, one per set; None for one draw per row.
        length: Rows in the stream.
        seed: Of all orders.
    """

    def __init__(
        self, sets: Sequence[Rows], shares: Sequence[float] | None, length: int, seed: int
    ) -> None:
        self._sets, self._length, self._seed = list(sets), length, seed
        self._ends = list(accumulate(map(len, sets)))
        self._quota = None if shares is None else block_quota(shares)
        self._cumulated = None if self._quota is None else np.cumsum(self._quota)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def __getitem__(self, place: int) -> TrainingRow:
        """Read the row at a place."""
        number, index = self.locate(place)
        return self._sets[number][index]

    def locate(self, place: int) -> tuple[int, int]:
        """Which set, and which of its rows, stands at a place."""
        if self._quota is None or self._cumulated is None:
            turn, offset = divmod(place, self._ends[-1])
            index = int(_order(self._seed, -1, turn, self._ends[-1])[offset])
            number = bisect_right(self._ends, index)
            return number, index - (self._ends[number - 1] if number else 0)
        block, offset = divmod(place, BLOCK)
        slots = _order(self._seed, -2, block, BLOCK)
        slot = int(slots[offset])
        number = int(np.searchsorted(self._cumulated, slot, side="right"))
        first = int(self._cumulated[number] - self._quota[number])
        drawn = block * int(self._quota[number]) + slot - first
        turn, at = divmod(drawn, len(self._sets[number]))
        return number, int(_order(self._seed, number, turn, len(self._sets[number]))[at])


def block_quota(shares: Sequence[float]) -> Indices:
    """How many of every `BLOCK` draws fall on each set; at least one, `BLOCK` in all."""
    parts = np.asarray(shares, dtype=np.float64)
    exact = parts / parts.sum() * BLOCK
    quota: Indices = np.maximum(1, np.floor(exact)).astype(np.int64)
    for number in np.argsort(quota - exact)[: max(0, BLOCK - int(quota.sum()))]:
        quota[number] += 1
    quota[int(np.argmax(quota))] += BLOCK - int(quota.sum())
    return quota


@lru_cache(maxsize=16)
def _order(seed: int, number: int, turn: int, length: int) -> Indices:
    """The order of one pass over a set."""
    found: Indices = np.random.default_rng([seed, number + 2, turn]).permutation(length)
    return found
