"""Near-duplicates in embedding space, in bounded memory.

The best rows come first. A row is a near-duplicate if a better row that stays is at least as
similar as the threshold. So rows that stay are all less similar than it to each other, and a
long chain of slowly changing pictures (the frames of a film) does not become one group.

Up to `PART_ROWS` rows are compared as they are. More are first parted by k-means into groups of
about that size, each row joining its nearest two, so that rows on a border meet; the comparison
within a group is exact again. At a threshold of 0.9 or more little is missed: two rows that close
have nearly the same nearest centres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PART_ROWS = 16_384
BLOCK_ROWS = 512
_SAMPLES_PER_PART = 256
_ROUNDS = 10

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Gather = Callable[[Rows], Floats]


@dataclass(frozen=True)
class NearDuplicates:
    """What was found.

    Attributes:
        leader: (N,) int64: the row that stays in its place; -1 for a row that stays itself.
        similarity: (N,) float32: how similar that row is; NaN for a row that stays.
    """

    leader: Rows
    similarity: Floats


def find_near_duplicates(
    gather: Gather, quality: Floats, threshold: float, *, part_rows: int = PART_ROWS, seed: int = 0
) -> NearDuplicates:
    """Find the rows that a better row stands for.

    Args:
        gather: Returns the unit vectors (n, D) float32 of the rows asked for; they may lie on
            disk.
        quality: (N,) float32; the better row of two stays. Of equal ones, the earlier.
        threshold: Least cosine of near-duplicates.
        part_rows: Most rows compared as they are; bounds the memory to about
            `part_rows * D * 4` bytes, twice.
        seed: For k-means.
    """
    n = len(quality)
    found = NearDuplicates(np.full(n, -1, np.int64), np.full(n, np.nan, np.float32))
    order = np.argsort(-quality, kind="stable")
    for part in _parts(gather, order, part_rows, seed):
        _compare(gather, part[found.leader[part] < 0], threshold, found)
    _follow(found)
    return found


def _compare(gather: Gather, rows: Rows, threshold: float, found: NearDuplicates) -> None:
    """Compare rows, best first, with those that stay; block by block."""
    import faiss

    index = None
    staying: list[Rows] = []
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        vectors = np.ascontiguousarray(gather(block))
        if index is None:
            index = faiss.IndexFlatIP(vectors.shape[1])
        if index.ntotal:
            scores, nearest = index.search(vectors, 1)
            leaders = np.concatenate(staying)[nearest[:, 0]]
            near = scores[:, 0] >= threshold
            found.leader[block[near]] = leaders[near]
            found.similarity[block[near]] = scores[near, 0]
            block, vectors = block[~near], vectors[~near]
        stays = _within(block, vectors, threshold, found)
        staying.append(block[stays])
        index.add(np.ascontiguousarray(vectors[stays]))


def _within(
    block: Rows, vectors: Floats, threshold: float, found: NearDuplicates
) -> NDArray[np.bool_]:
    """Compare the rows of a block with each other; True for those that stay."""
    scores = vectors @ vectors.T
    stays = np.ones(len(block), bool)
    for place in range(len(block)):
        if not stays[place]:
            continue
        near = np.flatnonzero(scores[place, place + 1 :] >= threshold) + place + 1
        near = near[stays[near]]
        stays[near] = False
        found.leader[block[near]] = block[place]
        found.similarity[block[near]] = scores[place, near]
    return stays


def _follow(found: NearDuplicates) -> None:
    """Point each row at one that stays: a leader in one group may have gone in another."""
    for _ in range(64):
        gone = (found.leader >= 0) & (found.leader[found.leader] >= 0)
        if not gone.any():
            return
        found.leader[gone] = found.leader[found.leader[gone]]


def _parts(gather: Gather, order: Rows, part_rows: int, seed: int) -> Iterator[Rows]:
    """Groups of rows that may be near-duplicates, each in the order of `order`."""
    if len(order) <= part_rows:
        yield order
        return
    n_parts = 2 * -(-len(order) // part_rows)
    homes = _homes(gather, order, n_parts, seed)  # (N, 2), by place in `order`
    for part in range(n_parts):
        places = np.flatnonzero((homes == part).any(1))
        # A group of many alike rows may be large; its comparison only gets longer.
        if len(places):
            yield order[places]


def _homes(gather: Gather, order: Rows, n_parts: int, seed: int) -> NDArray[np.int32]:
    """The nearest two centres of each row."""
    import faiss

    draw = np.random.default_rng(seed)
    n_samples = min(len(order), _SAMPLES_PER_PART * n_parts)
    sample = gather(np.sort(draw.choice(order, n_samples, replace=False)))
    kmeans = faiss.Kmeans(
        sample.shape[1], n_parts, niter=_ROUNDS, seed=seed, spherical=True, verbose=False
    )
    kmeans.train(np.ascontiguousarray(sample))
    homes = np.empty((len(order), 2), np.int32)
    for start in range(0, len(order), BLOCK_ROWS):
        rows = order[start : start + BLOCK_ROWS]
        _, nearest = kmeans.index.search(np.ascontiguousarray(gather(rows)), 2)
        homes[start : start + len(rows)] = nearest
    return homes
