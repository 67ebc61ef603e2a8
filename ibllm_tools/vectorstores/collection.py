"""`Collection`: records and their unit vectors in memory, safe to use from several threads.

Ids of documents are texts, those of FAISS numbers; a record that is replaced gets a new number,
so that the old one stays until the new one is in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ibllm_tools.errors import ConfigurationError, ModelError
from ibllm_tools.vectorstores.records import Record

Vectors = NDArray[np.float32]


class Hit(NamedTuple):
    """A document that a search found, its cosine similarity, and its vector (D,)."""

    document: Document
    score: float
    vector: Vectors


class Collection:
    """Records by id, and a FAISS index of their vectors. Every call is whole or not at all."""

    def __init__(self) -> None:
        """Make an empty collection; its width is that of the first vectors."""
        self._lock = threading.RLock()
        self._index: Any = None
        self._records: dict[int, Record] = {}
        self._numbers: dict[str, int] = {}
        self._next = 0

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._records)

    def put(self, records: Sequence[Record], vectors: Any) -> None:
        """Add records, or replace those of the same id; of a repeated id the last counts.

        Args:
            records: The records.
            vectors: (N, D) numbers, one row per record; normalised here.

        Raises:
            ConfigurationError: The vectors have another width than those before.
            ModelError: A vector is not finite.
        """
        last = {record.id: place for place, record in enumerate(records)}
        places = sorted(last.values())
        units = unit_rows(vectors, len(records))[places]
        if not places:
            return
        with self._lock:
            index = self._index_for(units.shape[1])
            numbers = np.arange(self._next, self._next + len(places), dtype=np.int64)
            index.add_with_ids(np.ascontiguousarray(units), numbers)
            self._index, self._next = index, self._next + len(places)
            old = [self._numbers[i] for i in last if i in self._numbers]
            self._drop(old)
            for place, number in zip(places, numbers.tolist(), strict=True):
                self._records[number] = records[place]
                self._numbers[records[place].id] = number

    def remove(self, ids: Iterable[str] | None) -> None:
        """Remove records; ids that are not there are passed over. None removes all."""
        with self._lock:
            wanted = list(self._numbers) if ids is None else dict.fromkeys(ids)
            numbers = [self._numbers.pop(i) for i in wanted if i in self._numbers]
            self._drop(numbers)

    def get(self, ids: Iterable[str]) -> list[Document]:
        """Return documents in the order of their ids; ids that are not there are passed over."""
        with self._lock:
            found = [self._numbers[i] for i in dict.fromkeys(ids) if i in self._numbers]
            return [self._records[number].document() for number in found]

    def documents(self, keep: Callable[[Record], bool] | None = None) -> list[Document]:
        """Return all documents that `keep` accepts, in the order in which they were added."""
        with self._lock:
            records = list(self._records.values())
        return [record.document() for record in records if keep is None or keep(record)]

    def search(self, query: Any, k: int, keep: Callable[[Record], bool] | None = None) -> list[Hit]:
        """Find the k records of the highest cosine similarity, best first.

        Args:
            query: (D,) numbers.
            k: At most so many.
            keep: Only records that it accepts can be found.

        Raises:
            ConfigurationError: The query has another width than the vectors.
            ModelError: The query is not finite.
        """
        row = unit_rows([query], 1)
        with self._lock:
            if self._index is None or not self._records or k < 1:
                return []
            self._index_for(row.shape[1])
            allowed = None if keep is None else self._numbers_of(keep)
            n_found = min(k, len(self._records) if allowed is None else len(allowed))
            if not n_found:
                return []
            scores, numbers = self._index.search(row, n_found, params=_only(allowed))
            return [
                self._hit(int(number), float(score))
                for score, number in zip(scores[0], numbers[0], strict=True)
                if number >= 0
            ]

    def snapshot(self) -> tuple[list[Record], Vectors]:
        """Return all records and their vectors (N, D) as they are now."""
        with self._lock:
            if self._index is None or not self._records:
                return [], np.zeros((0, 0), np.float32)
            numbers = np.fromiter(self._records, np.int64, len(self._records))
            return list(self._records.values()), self._index.reconstruct_batch(numbers)

    def _index_for(self, width: int) -> Any:
        """The index, or a new one of this width where there is none or an empty one."""
        if self._index is None or not self._records:
            from ibllm_tools.cache.visual import load_faiss

            faiss = load_faiss()
            return faiss.IndexIDMap2(faiss.IndexFlatIP(width))
        if width != self._index.d:
            raise ConfigurationError(
                f"found a vector of width {width}, expected {self._index.d} as in this store; "
                "use the embeddings that it was made with"
            )
        return self._index

    def _drop(self, numbers: list[int]) -> None:
        if numbers:
            self._index.remove_ids(np.asarray(numbers, np.int64))
            for number in numbers:
                del self._records[number]

    def _numbers_of(self, keep: Callable[[Record], bool]) -> list[int]:
        return [number for number, record in self._records.items() if keep(record)]

    def _hit(self, number: int, score: float) -> Hit:
        return Hit(self._records[number].document(), score, self._index.reconstruct(number))


def _only(numbers: list[int] | None) -> Any:
    if numbers is None:
        return None
    from ibllm_tools.cache.visual import load_faiss

    faiss = load_faiss()
    return faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.asarray(numbers, np.int64)))


def unit_rows(vectors: Any, count: int) -> Vectors:
    """Return `count` rows normalised to length 1, (count, D) float32; zeros stay zeros.

    Raises:
        ConfigurationError: There are more or fewer rows, or they are no table.
        ModelError: A value is NaN or infinite.
    """
    try:
        table = np.asarray(vectors, np.float32)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"vectors: {error}; expected rows of equal width") from error
    if not count and not table.size:
        return table.reshape(0, 0)
    if table.ndim != 2 or len(table) != count or not table.shape[1]:
        raise ConfigurationError(
            f"found vectors of shape {table.shape}, expected ({count}, width): one per document"
        )
    if not np.isfinite(table).all():
        raise ModelError("the embeddings gave NaN or infinity; expected finite vectors")
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    units: Vectors = table / lengths
    return units


def diversify(query: Any, hits: Sequence[Hit], k: int, lambda_mult: float) -> list[Hit]:
    """Choose k hits that are near the query and unlike each other.

    Each step takes the hit with the highest
    `lambda_mult * similarity to the query - (1 - lambda_mult) * highest similarity to a chosen`.

    Args:
        query: (D,) numbers.
        hits: From `Collection.search`.
        k: At most so many.
        lambda_mult: 1 for nearness only, 0 for difference only.

    Source: maximal marginal relevance (Carbonell and Goldstein, 1998).
    """
    if not hits or k < 1:
        return []
    vectors = np.stack([hit.vector for hit in hits])  # (N, D)
    nearness = vectors @ unit_rows([query], 1)[0]
    chosen = [int(nearness.argmax())]
    redundancy = vectors @ vectors[chosen[0]]
    while len(chosen) < min(k, len(hits)):
        worth = lambda_mult * nearness - (1 - lambda_mult) * redundancy
        worth[chosen] = -np.inf
        chosen.append(int(worth.argmax()))
        redundancy = np.maximum(redundancy, vectors @ vectors[chosen[-1]])
    return [hits[place] for place in chosen]
