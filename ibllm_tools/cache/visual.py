"""`VisualCache`: retrieval from image embeddings, and the blend with what was retrieved.

query (B, D) ── top k by inner product ── weighted average ── blended with the query (B, D)

The vectors lie in a FAISS index: exact for up to some hundred thousand, inverted lists of bytes
(`VisualCache.compressed`), read from disk as needed, for millions.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.cache.settings import CacheSettings
from ibllm_tools.errors import CheckpointError, ConfigurationError

_KINDS = ("exact", "compressed", "faiss")
SETTINGS_FILE = "cache.json"
_VECTORS_FILE = "vectors.safetensors"
INDEX_FILE = "index.faiss"
_ADD_ROWS = 1 << 16
TRAIN_ROWS_PER_LIST = 64
_READ_SLACK_BYTES = 1 << 20
_SOURCE_LINE = re.compile(r"^Error in .* at \S+:\d+: (Error: )?")
_reading = threading.Lock()


class VisualCache:
    """Image embeddings that other modalities are pulled towards.

    Searching is safe from several threads. Row i of a batch is what it is alone.
    """

    def __init__(self, vectors: Tensor | NDArray[np.float32]) -> None:
        """Build an exact cache.

        Args:
            vectors: (N, D) float, N at least 1; normalised here.

        Raises:
            ConfigurationError: The vectors are not a finite table.
        """
        units = unit_rows(vectors)
        index = load_faiss().IndexFlatIP(units.shape[1])
        index.add(units)
        self._index, self._kind = index, "exact"
        self._folder: Path | None = None

    @classmethod
    def _around(cls, index: Any, kind: str, folder: Path | None = None) -> VisualCache:
        cache = cls.__new__(cls)
        cache._index, cache._kind, cache._folder = index, kind, folder
        return cache

    @classmethod
    def compressed(
        cls, vectors: Tensor | NDArray[np.float32], n_lists: int | None = None, n_probe: int = 16
    ) -> VisualCache:
        """Build a cache for millions: inverted lists, one byte per value.

        Args:
            vectors: (N, D) float; a memory-mapped array is read in pieces.
            n_lists: Inverted lists; about 4 · sqrt(N) by default.
            n_probe: Lists that a search looks into; more finds more and takes longer.

        Raises:
            ConfigurationError: The vectors are not a finite table, or are fewer than the lists.

        Source: IVF with an 8-bit scalar quantiser (Douze et al., "The Faiss library", 2024).
        """
        n, _ = _table_shape(vectors)
        n_lists = choose_lists(n, n_lists)
        step = max(1, n // (n_lists * TRAIN_ROWS_PER_LIST))
        index = train_index(vectors[::step], n_lists)
        for first in range(0, n, _ADD_ROWS):
            index.add(unit_rows(vectors[first : first + _ADD_ROWS]))
        index.nprobe = min(n_probe, n_lists)
        return cls._around(index, "compressed")

    def __len__(self) -> int:
        """Return the number of vectors."""
        return int(self._index.ntotal)

    @property
    def kind(self) -> str:
        """One of "exact", "compressed", and "faiss" for another index."""
        return self._kind

    @property
    def lists(self) -> dict[str, int]:
        """Number of inverted lists and how many a search looks into; empty without lists."""
        if not hasattr(self._index, "nlist"):
            return {}
        return {"n_lists": int(self._index.nlist), "n_probe": int(self._index.nprobe)}

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._index.d)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Find the vectors with the largest inner products.

        Args:
            queries: (B, D) float, any device.
            k: Vectors per query; at most as many as there are.

        Returns:
            Similarities (B, k) float32, descending; ids (B, k) int64; vectors (B, k, D)
            float32. A compressed cache may find fewer: id -1, similarity -inf, zeros.

        Raises:
            ConfigurationError: The queries have another width.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ConfigurationError(
                f"visual cache: found queries of shape {tuple(queries.shape)}, expected "
                f"(rows, {self.dim}); was it built with another encoder?"
            )
        rows = queries.detach().float().cpu().contiguous()
        k = min(k, len(self))
        _, ids, vectors = self._index.search_and_reconstruct(rows.numpy(), k)
        return _sorted_hits(rows, torch.from_numpy(ids), torch.from_numpy(vectors), queries.device)

    def blend(self, queries: Tensor, settings: CacheSettings | None = None) -> Tensor:
        """Pull embeddings towards their nearest images.

        Args:
            queries: (B, D) float.
            settings: The defaults of `CacheSettings` by default.

        Returns:
            (B, D), dtype and device of the queries.

        Raises:
            ConfigurationError: The queries have another width.

        Source: ImageBind-LLM (Han et al., 2023), section 3.4 and Eq. 4; form "code" is that of
        the released program.
        """
        settings = settings or CacheSettings()
        similarities, _, vectors = self.search(queries, settings.k)
        original = queries.float()
        if settings.form == "paper":
            shares = similarities.masked_fill(similarities.isinf(), 0.0)
        else:
            shares = (settings.temperature * similarities).softmax(dim=-1)
        retrieved = (shares[..., None] * vectors).sum(dim=1)  # (B, D)
        if settings.form == "code":
            retrieved = F.normalize(retrieved, dim=-1)
        blended = (1.0 - settings.weight) * original + settings.weight * retrieved
        if settings.form == "code":
            blended = F.normalize(blended, dim=-1)
        return blended.to(queries.dtype)

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the cache as `cache.json` and its vectors.

        Args:
            folder: Made if needed.
            dtype: How an exact cache stores its vectors, float16 takes half the space.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self._kind == "exact":
            vectors = torch.from_numpy(self._index.reconstruct_n(0, len(self)))
            save_file({"vectors": vectors.to(dtype)}, folder / _VECTORS_FILE)
        elif self._folder is None:
            load_faiss().write_index(self._index, str(folder / INDEX_FILE))
        elif self._folder.resolve() != folder.resolve():  # its lists lie there, not in memory
            shutil.copyfile(self._folder / INDEX_FILE, folder / INDEX_FILE)
        settings = {"kind": self._kind, "count": len(self), "dim": self.dim}
        if self._kind == "compressed":
            settings["n_probe"] = self._index.nprobe
        text = json.dumps(settings, indent=2) + "\n"
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> VisualCache:
        """Open what `save` wrote; a compressed cache stays on disk and is read as needed.

        Raises:
            CheckpointError: A file is missing, damaged, or does not fit the others.
        """
        folder = Path(folder)
        settings = _read_settings(folder / SETTINGS_FILE)
        if settings.get("kind") == "exact":
            vectors = _read_vectors(folder / _VECTORS_FILE)
            index = load_faiss().IndexFlatIP(vectors.shape[1])
            index.add(vectors)
        else:
            index = _read_index(folder / INDEX_FILE, mapped=settings.get("kind") == "compressed")
            if settings.get("n_probe"):
                index.nprobe = int(settings["n_probe"])
        found, expected = (index.ntotal, index.d), (settings.get("count"), settings.get("dim"))
        if found != expected:
            raise CheckpointError(
                f"{folder}: found {found[0]} vectors of width {found[1]}, but {SETTINGS_FILE} "
                f"says {expected[0]} of {expected[1]}; build the cache again"
            )
        kind = str(settings["kind"])
        return cls._around(index, kind, folder if kind == "compressed" else None)

    @classmethod
    def from_faiss(cls, path: str | Path) -> VisualCache:
        """Open a FAISS index file, such as the released `knn.index`.

        What the file may allocate is bounded by its own size.

        Raises:
            CheckpointError: The file is missing or damaged, or ranks by something else than
                the inner product.
        """
        index = _read_index(Path(path), mapped=False)
        return cls._around(index, "exact" if type(index).__name__ == "IndexFlatIP" else "faiss")


@lru_cache(maxsize=4)
def _opened(folder: Path, _changed_ns: int) -> VisualCache:
    return VisualCache.load(folder)


def open_cache(folder: str | Path) -> VisualCache:
    """Open a cache, or return the one that this process has open; see `VisualCache.load`."""
    path = Path(folder).expanduser().resolve()
    settings = path / SETTINGS_FILE
    return _opened(path, settings.stat().st_mtime_ns if settings.is_file() else 0)


def choose_lists(n: int, n_lists: int | None) -> int:
    """The number of inverted lists for `n` vectors; about 4 · sqrt(n) by default.

    Raises:
        ConfigurationError: There are fewer vectors than lists.
    """
    n_lists = n_lists or max(1, min(int(4 * n**0.5), n // 39))
    if n < n_lists:
        raise ConfigurationError(f"n_lists: found {n_lists} for {n} vectors, expected at most {n}")
    return n_lists


def train_index(sample: Tensor | NDArray[Any], n_lists: int) -> Any:
    """Make an empty index of inverted lists of bytes, trained on a sample (n, D)."""
    faiss = load_faiss()
    layout = f"IVF{n_lists},SQ8"
    index = faiss.index_factory(sample.shape[1], layout, faiss.METRIC_INNER_PRODUCT)
    index.train(unit_rows(sample))
    return index


def _sorted_hits(
    rows: Tensor, ids: Tensor, vectors: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the similarities anew, so that they do not depend on the batch, and sort."""
    missing = ids < 0
    vectors = vectors.masked_fill(missing[..., None], 0.0)
    similarities = (rows[:, None] * vectors).sum(dim=-1).masked_fill(missing, -torch.inf)
    similarities, order = similarities.sort(dim=-1, descending=True, stable=True)
    vectors = vectors.take_along_dim(order[..., None], dim=1)
    return similarities.to(device), ids.take_along_dim(order, 1).to(device), vectors.to(device)


def _table_shape(vectors: Tensor | NDArray[Any]) -> tuple[int, int]:
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ConfigurationError(
            f"visual cache: found vectors of shape {tuple(vectors.shape)}, expected (count, width)"
        )
    return int(vectors.shape[0]), int(vectors.shape[1])


def unit_rows(vectors: Tensor | NDArray[Any]) -> NDArray[np.float32]:
    """Return normalised float32 rows, in C order."""
    _table_shape(vectors)
    table = torch.as_tensor(vectors).detach().float().cpu()
    if not table.isfinite().all():
        raise ConfigurationError("visual cache: found NaN or infinity, expected finite vectors")
    return np.ascontiguousarray(F.normalize(table, dim=-1).numpy())


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{path}: {problem}; expected the JSON that `VisualCache.save` writes"
        ) from problem
    if not isinstance(settings, dict) or settings.get("kind") not in _KINDS:
        raise CheckpointError(f"{path}: expected an object whose kind is one of {_KINDS}")
    return settings


def _read_vectors(path: Path) -> NDArray[np.float32]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        table = load_file(path)["vectors"]
    except (OSError, KeyError, SafetensorError) as problem:
        raise CheckpointError(
            f"{path}: {problem}; expected a safetensors file with one tensor `vectors`"
        ) from problem
    if table.ndim != 2 or 0 in table.shape or not table.is_floating_point():
        raise CheckpointError(f"{path}: found shape {tuple(table.shape)}, expected (count, width)")
    if not table.isfinite().all():
        raise CheckpointError(f"{path}: found NaN or infinity; build the cache again")
    return np.ascontiguousarray(table.float().numpy())


def _read_index(path: Path, *, mapped: bool) -> Any:
    """Read a FAISS file; it cannot ask for more memory than it is long."""
    if not path.is_file():
        raise CheckpointError(f"{path}: not a file; expected a FAISS index such as knn.index")
    faiss = load_faiss()
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0
    with _reading:
        before = _limit_allocation(faiss, path.stat().st_size + _READ_SLACK_BYTES)
        try:
            index = faiss.read_index(str(path), flags)
        except (RuntimeError, MemoryError) as problem:
            reason = _SOURCE_LINE.sub("", str(problem)).strip()
            raise CheckpointError(
                f"{path}: {reason}; expected a FAISS index, is the download complete?"
            ) from problem
        finally:
            _limit_allocation(faiss, before)
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or index.ntotal < 1:
        raise CheckpointError(
            f"{path}: found {index.ntotal} vectors ranked by metric {index.metric_type}, expected "
            f"at least one, ranked by inner product ({faiss.METRIC_INNER_PRODUCT})"
        )
    return index


def _limit_allocation(faiss: Any, n_bytes: int | None) -> int | None:
    """Bound each vector that FAISS reads, where this version can; return the bound before."""
    if n_bytes is None or not hasattr(faiss, "set_deserialization_vector_byte_limit"):
        return None
    before = int(faiss.get_deserialization_vector_byte_limit())
    faiss.set_deserialization_vector_byte_limit(n_bytes)
    return before


@lru_cache(maxsize=1)
def load_faiss() -> Any:
    """Import FAISS after torch; on macOS their two OpenMP runtimes must not both start threads."""
    import faiss

    if sys.platform == "darwin":
        faiss.omp_set_num_threads(1)
    return faiss
