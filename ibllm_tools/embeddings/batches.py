"""Rows of media become unit vectors, in bounded memory.

```
row ─ load, preprocess (threads, a few rows ahead) ─ tensors ─ batch ─ encode
```
A decoded medium is dropped as soon as its small tensor is made; a batch is closed by what it
costs to encode, not by its number of rows.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ibllm_tools.errors import IbllmError
from ibllm_tools.preprocess import MediaBatch, preprocess

if TYPE_CHECKING:
    from ibllm_tools.engine import Senses
    from ibllm_tools.media import Item, Modality

MAX_LOADERS = 4
_CLIPPED = ("audio", "video")

Wanted = TypeVar("Wanted")


@dataclass(frozen=True)
class Embedded:
    """One row's vector, and what it was made of.

    Attributes:
        vector: Of length 1.
        modalities: What each medium of the row was sensed as.
    """

    vector: list[float]
    modalities: tuple[Modality, ...]


@dataclass(frozen=True)
class _Prepared:
    """The preprocessed media of one row, each with its weight."""

    media: list[tuple[Modality, torch.Tensor, float]]

    @property
    def cost(self) -> int:
        """How many pictures' worth of work this is: a sound or video counts its clips."""
        return sum(len(x) if name in _CLIPPED else 1 for name, x, _ in self.media)


def embed_rows(
    rows: Iterable[Wanted],
    read: Callable[[Wanted], Iterable[Item]],
    senses: Senses,
    *,
    batch_size: int,
    loaders: int = MAX_LOADERS,
    stop: Event | None = None,
) -> Iterator[Embedded | Exception]:
    """Embed rows in their order; what goes wrong with one row takes its place.

    Args:
        rows: Anything that `read` understands.
        read: Opens and decodes the media of a row, one after another.
        senses: The encoder.
        batch_size: Pictures per forward call.
        loaders: Threads that load ahead; 0 loads in this thread.
        stop: When set, no further medium is read and the iterator ends.
    """
    stop = stop or Event()

    def prepare(row: Wanted) -> _Prepared | Exception:
        try:
            return _prepare(read(row), senses, stop)
        except Exception as error:  # noqa: BLE001 - it is handed on, in the row's place
            return error

    batch: list[_Prepared | Exception] = []
    cost = 0
    for prepared in _ahead(rows, prepare, min(loaders, os.cpu_count() or 1)):
        if stop.is_set():
            return
        batch.append(prepared)
        cost += prepared.cost if isinstance(prepared, _Prepared) else 0
        if cost >= batch_size or len(batch) >= batch_size:
            yield from _encode(batch, senses)
            batch, cost = [], 0
    yield from _encode(batch, senses)


def _prepare(items: Iterable[Item], senses: Senses, stop: Event) -> _Prepared:
    media = []
    for item in items:
        media.append((item.modality, preprocess(item, senses.config), float(item.weight)))
        if stop.is_set():
            break
    return _Prepared(media)


def _ahead(
    rows: Iterable[Wanted], work: Callable[[Wanted], Any], n_threads: int
) -> Iterator[_Prepared | Exception]:
    """Give `work(row)` in order; threads are as many rows ahead as there are threads."""
    if n_threads < 1:
        yield from map(work, rows)
        return
    waiting: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(n_threads, "ibllm-load")
    try:
        for row in rows:
            waiting.append(pool.submit(work, row))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _encode(batch: list[_Prepared | Exception], senses: Senses) -> Iterator[Embedded | Exception]:
    """Encode a batch; where the encoder refuses it, row by row."""
    ready = [row for row in batch if isinstance(row, _Prepared)]
    found: Iterator[Embedded | Exception] = iter(_encode_together(ready, senses))
    for row in batch:
        yield row if isinstance(row, Exception) else next(found)


def _encode_together(rows: list[_Prepared], senses: Senses) -> list[Embedded | Exception]:
    if not rows:
        return []
    try:
        vectors = senses.embed_batch(_collate(rows)).tolist()
    except IbllmError as error:
        if len(rows) == 1:
            return [error]
        return [_encode_together([row], senses)[0] for row in rows]
    return [
        Embedded(vector, tuple(name for name, _, _ in row.media))
        for vector, row in zip(vectors, rows, strict=True)
    ]


def _collate(rows: list[_Prepared]) -> MediaBatch:
    found: dict[Modality, list[tuple[torch.Tensor, int, float]]] = {}
    for index, row in enumerate(rows):
        for name, x, weight in row.media:
            found.setdefault(name, []).append((x, index, weight))
    return MediaBatch(
        n_rows=len(rows),
        inputs={name: torch.stack([e[0] for e in found[name]]) for name in found},
        rows={name: torch.tensor([e[1] for e in found[name]]) for name in found},
        weights={name: torch.tensor([e[2] for e in found[name]]) for name in found},
    )
