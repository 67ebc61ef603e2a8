"""Builds a visual cache on disk from any number of vectors, with a bounded part in memory.

```
blocks (n, D) ─ exact: one table of float16
              └ compressed: a sample trains the lists ─ chunks, each an index on disk ─ merged
```
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibllm_tools.cache.visual import (
    INDEX_FILE,
    SETTINGS_FILE,
    TRAIN_ROWS_PER_LIST,
    VisualCache,
    choose_lists,
    load_faiss,
    train_index,
    unit_rows,
)
from ibllm_tools.errors import ConfigurationError

CHUNK_ROWS = 1 << 18
MAX_TRAIN_ROWS = 1 << 18
MAX_EXACT = 200_000
N_PROBE = 16
QUERY_STRAY = 0.7
_COUNT_AT = 8  # an index file begins with 4 bytes of its kind, its width, its count

Table: TypeAlias = NDArray[Any]
Blocks: TypeAlias = Callable[[], Iterable[Table]]
Form: TypeAlias = Literal["exact", "compressed"]


def build_cache(
    blocks: Blocks,
    folder: str | Path,
    form: Form | None = None,
    *,
    n_lists: int | None = None,
    n_probe: int = N_PROBE,
    chunk_rows: int = CHUNK_ROWS,
) -> VisualCache:
    """Write a cache; the folder appears when it is whole.

    Args:
        blocks: Gives the vectors from the start, (n, D) at a time; called several times.
        folder: Made here.
        form: "exact" keeps every vector as float16, "compressed" one byte per value in
            inverted lists that stay on disk; by default exact up to 200,000 vectors.
        n_lists: Inverted lists; about 4 · sqrt(N) by default.
        n_probe: Lists that a search looks into.
        chunk_rows: Vectors in memory at once while a compressed cache is built.

    Raises:
        ConfigurationError: There are no vectors, or fewer than lists; the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise ConfigurationError(f"{folder} exists; choose another folder, or remove it")
    count = sum(len(block) for block in blocks())
    if count == 0:
        raise ConfigurationError("found no vectors for the cache, expected at least one")
    exact = form == "exact" or (form is None and count <= MAX_EXACT)
    n_lists = None if exact else choose_lists(count, n_lists)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if n_lists is None:
        table = np.concatenate([np.asarray(block, np.float16) for block in blocks()])
        VisualCache(table).save(part, torch.float16)
    else:
        _build_compressed(blocks, count, part, n_lists, n_probe, chunk_rows)
    part.replace(folder)
    return VisualCache.load(folder)


def _build_compressed(
    blocks: Blocks, count: int, folder: Path, n_lists: int, n_probe: int, chunk_rows: int
) -> None:
    faiss = load_faiss()
    n_sample = min(count, n_lists * TRAIN_ROWS_PER_LIST, max(MAX_TRAIN_ROWS, n_lists))
    empty = train_index(spread_rows(blocks, count, n_sample), n_lists)
    parts: list[Path] = []
    first = 0
    for chunk in _chunks(blocks(), chunk_rows):
        index = faiss.clone_index(empty)
        index.add_with_ids(unit_rows(chunk), np.arange(first, first + len(chunk), dtype=np.int64))
        first += len(chunk)
        parts.append(folder / f"chunk-{len(parts)}.faiss")
        faiss.write_index(index, str(parts[-1]))
    _merge(empty, parts, folder / INDEX_FILE, count)
    for path in parts:
        path.unlink()
    settings = {"kind": "compressed", "count": count, "dim": empty.d}
    settings["n_probe"] = min(n_probe, n_lists)
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _merge(empty: Any, parts: list[Path], target: Path, count: int) -> None:
    """Write one index file with the lists of several, list by list.

    FAISS ends an index file with its inverted lists: "ilar", the number of lists, the bytes of a
    code, "full", the size of each list, then each list's codes and ids.
    """
    faiss = load_faiss()
    faiss.write_index(empty, str(target))
    head = target.read_bytes()
    head = head[: head.rindex(b"ilar")]
    head = head[:_COUNT_AT] + struct.pack("<q", count) + head[_COUNT_AT + 8 :]
    indexes = [faiss.read_index(str(path), faiss.IO_FLAG_MMAP) for path in parts]
    lists = [index.invlists for index in indexes]
    n_lists, n_bytes = lists[0].nlist, lists[0].code_size
    sizes = [sum(part.list_size(i) for part in lists) for i in range(n_lists)]
    with target.open("wb") as file:
        file.write(head)
        file.write(b"ilar" + struct.pack("<qq", n_lists, n_bytes) + b"full")
        file.write(struct.pack(f"<q{n_lists}q", n_lists, *sizes))
        for i in range(n_lists):
            filled = [part for part in lists if part.list_size(i)]
            for part in filled:
                codes = faiss.rev_swig_ptr(part.get_codes(i), part.list_size(i) * n_bytes)
                file.write(codes.tobytes())
            for part in filled:
                file.write(faiss.rev_swig_ptr(part.get_ids(i), part.list_size(i)).tobytes())


def spread_rows(blocks: Blocks, count: int, n_rows: int) -> Table:
    """Take `n_rows` of `count` rows, spread evenly: (n_rows, D)."""
    wanted = np.unique(np.linspace(0, count - 1, n_rows).astype(np.int64))
    taken: list[Table] = []
    first = 0
    for block in blocks():
        inside = wanted[(wanted >= first) & (wanted < first + len(block))]
        taken.append(np.asarray(block[inside - first]))
        first += len(block)
    return np.concatenate(taken)


def _chunks(blocks: Iterable[Table], n_rows: int) -> Iterator[Table]:
    """Join and cut blocks to chunks of at most `n_rows`."""
    held: list[Table] = []
    for block in blocks:
        for first in range(0, len(block), n_rows):
            piece = block[first : first + n_rows]
            if sum(map(len, held)) + len(piece) > n_rows:
                yield np.concatenate(held)
                held = []
            held.append(piece)
    yield np.concatenate(held)


def recall_at(
    cache: VisualCache, blocks: Blocks, k: int, queries: Tensor | None = None, n_queries: int = 200
) -> float:
    """Share of the true k nearest vectors that a cache finds.

    Args:
        cache: Of the vectors of `blocks`, ids in their order.
        blocks: See `build_cache`.
        k: Neighbours; at most as many as there are vectors.
        queries: (B, D); by default stored vectors, pushed into a random direction as far as
            other modalities lie from images.
        n_queries: How many of these.
    """
    if queries is None:
        generator = torch.Generator().manual_seed(0)
        stored = torch.from_numpy(unit_rows(spread_rows(blocks, len(cache), n_queries)))
        push = torch.nn.functional.normalize(torch.randn(stored.shape, generator=generator), dim=-1)
        queries = stored + QUERY_STRAY * push
    queries, k = queries.float(), min(k, len(cache))
    scores, ids = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long)
    first = 0
    for block in blocks():
        found = queries @ torch.from_numpy(unit_rows(block)).T
        best = found.topk(min(k, found.shape[1]))
        scores = torch.cat([scores, best.values], dim=1)
        ids = torch.cat([ids, best.indices + first], dim=1)
        kept = scores.topk(min(k, scores.shape[1])).indices
        scores, ids = scores.gather(1, kept), ids.gather(1, kept)
        first += len(block)
    _, found_ids, _ = cache.search(queries, k)
    hits = (found_ids.cpu()[:, :, None] == ids[:, None]).any(dim=-1)
    return float(hits.float().mean())
