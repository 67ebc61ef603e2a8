"""The one pass over a store: what the filters need of each row, in a few bytes.

Vectors for the search of near-duplicates lie in a file where they would not fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.data.cleaning.languages import (
    LANGUAGES,
    count_characters,
    count_words,
    detect_language,
)
from ibllm_tools.data.cleaning.options import CleaningOptions
from ibllm_tools.data.store import FeatureStore, StoredRow

TEXT_BATCH = 64
SCRATCH_BYTES = 256 * 2**20

Progress = Callable[[str, int, int], None]


class TextSenses(Protocol):
    """The text trunk of the store's encoder; `engine.Senses` is one."""

    def embed(self, rows: Any) -> Any: ...  # noqa: D102


@dataclass
class Survey:
    """What the filters need of N rows.

    Attributes:
        language: (N,) index into `LANGUAGES`.
        length: (N,) words; characters for Chinese.
        row_hash: (N,) the same for the same media and messages.
        media_hash: (N,) the same for the same media; 0 without media.
        text_hash: (N,) the same for the same answers.
        similarity: (N,) cosine of media and answers; NaN where it was not measured.
        vectors: (N, joint) mixed media as unit vectors; None if nothing needs them.
    """

    language: NDArray[np.uint8]
    length: NDArray[np.int32]
    row_hash: NDArray[np.uint64]
    media_hash: NDArray[np.uint64]
    text_hash: NDArray[np.uint64]
    similarity: NDArray[np.float32]
    vectors: NDArray[np.float16] | None


def survey_store(
    store: FeatureStore,
    options: CleaningOptions,
    senses: TextSenses | None,
    scratch: Path,
    tell: Progress,
) -> Survey:
    """Read every row once; `scratch` is a folder for what does not fit into memory."""
    n = len(store)
    survey = Survey(
        language=np.zeros(n, np.uint8),
        length=np.zeros(n, np.int32),
        row_hash=np.zeros(n, np.uint64),
        media_hash=np.zeros(n, np.uint64),
        text_hash=np.zeros(n, np.uint64),
        similarity=np.full(n, np.nan, np.float32),
        vectors=_scratch(n, store.joint_dim, scratch) if options.near_duplicate else None,
    )
    measured = senses if options.needs_similarity else None
    for batch in _batches(store):
        for index, row in batch:
            _note(survey, index, row)
        if measured is not None:
            _measure(survey, batch, measured, options)
        tell("reading", batch[-1][0] + 1, n)
    return survey


def _batches(store: FeatureStore) -> Iterator[list[tuple[int, StoredRow]]]:
    for start in range(0, len(store), TEXT_BATCH):
        yield [(i, store[i]) for i in range(start, min(start + TEXT_BATCH, len(store)))]


def _scratch(n: int, width: int, folder: Path) -> NDArray[np.float16]:
    """An array for vectors: in memory if it is small, else in a file."""
    if n * width * 2 <= SCRATCH_BYTES:
        return np.zeros((n, width), np.float16)
    return np.memmap(folder / "vectors", np.float16, "w+", shape=(n, width))


def _note(survey: Survey, index: int, row: StoredRow) -> None:
    """Write down what the filters need of a row."""
    text = text_of(row)
    language = detect_language(text)
    survey.language[index] = LANGUAGES.index(language)
    survey.length[index] = count_characters(text) if language == "zh" else count_words(text)
    survey.text_hash[index] = _hash(_folded(text).encode())
    whole = "\0".join(f"{turn['role']}\1{_folded(turn['content'])}" for turn in row.messages)
    survey.media_hash[index] = media = _media_hash(row)
    survey.row_hash[index] = _hash(f"{media}\0{whole}".encode())
    if survey.vectors is not None and row.media:
        survey.vectors[index] = _unit(row)


def _media_hash(row: StoredRow) -> int:
    """The same for the same media, whatever their order; 0 without media."""
    if not row.media:
        return 0
    vectors = row.features.numpy().astype(np.float16)
    parts = [
        f"{medium.modality} {medium.weight:g} ".encode() + vector.tobytes()
        for medium, vector in zip(row.media, vectors, strict=True)
    ]
    return _hash(b"\0".join(sorted(parts)))


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _unit(row: StoredRow) -> NDArray[np.float32]:
    mixed = row.mixed()
    assert mixed is not None, "a row with media has a mixed vector"
    vector: NDArray[np.float32] = mixed.numpy()
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def _measure(
    survey: Survey,
    batch: list[tuple[int, StoredRow]],
    senses: TextSenses,
    options: CleaningOptions,
) -> None:
    """Cosines of media and text of the rows whose language the text trunk knows."""
    from ibllm_tools.media import Text

    codes = {LANGUAGES.index(language) for language in options.judged}
    judged = [
        (index, row, text)
        for index, row in batch
        if row.media and survey.language[index] in codes and (text := text_of(row)).strip()
    ]
    if not judged:
        return
    texts = senses.embed([[Text(text=text)] for _, _, text in judged]).numpy()
    for (index, row, _), vector in zip(judged, texts, strict=True):
        survey.similarity[index] = float(_unit(row) @ vector)


def text_of(row: StoredRow) -> str:
    """What a row teaches to say: its answers."""
    answers = [turn["content"] for turn in row.messages if turn["role"] == "assistant"]
    return "\n".join(answers)
