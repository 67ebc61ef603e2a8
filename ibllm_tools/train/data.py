"""Training data as memory-mapped arrays: photos, sounds and shapes of the concept pack.

Parquet files of the pack's schema are decoded once into a work folder; every later step
reads plain NumPy arrays. This file does not know models or losses.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ibllm_tools.errors import ConfigurationError, MissingExtraError

PHOTO_PX = 64
RATE_HZ = 16_000
SOUND_S = 5
SHAPE_POINTS = 2048
SPLITS = ("train", "val", "heldout")


@dataclass(frozen=True)
class Concept:
    """One everyday thing that the pack shows, plays or holds as a shape."""

    id: int
    name: str
    name_zh: str


@dataclass(frozen=True)
class Table:
    """Decoded rows of one modality.

    Attributes:
        values: photos (N, 64, 64, 3) uint8; sounds (N, 80000) int16 at 16 kHz, zero padded;
            shapes (N, 2048, 3) float16. Memory-mapped.
        length: (N,) valid samples of each sound, points of each shape, 1 for a photo.
        concept: (N,) concept ids.
        subtype: Finer names, one a row.
        extra: One word a row: `up` of a shape, the source pixels of a photo, a sound's group.
    """

    values: NDArray[Any]
    length: NDArray[np.int64]
    concept: NDArray[np.int64]
    subtype: list[str]
    extra: list[str]

    def __len__(self) -> int:
        return len(self.concept)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return some rows, in memory."""
        return Table(
            values=np.ascontiguousarray(self.values[rows]),
            length=self.length[rows],
            concept=self.concept[rows],
            subtype=[self.subtype[i] for i in rows],
            extra=[self.extra[i] for i in rows],
        )


@dataclass(frozen=True)
class _Kind:
    file: str
    column: str
    extra: str
    shape: tuple[int, ...]
    dtype: type
    decode: Callable[[bytes], tuple[NDArray[Any], int]]


def read_concepts(data_dir: Path) -> list[Concept]:
    """Read the concept list of a pack (`concepts.json`)."""
    path = data_dir / "concepts.json"
    if not path.is_file():
        raise ConfigurationError(
            f"{data_dir}: found no concepts.json, expected a data pack; pass its folder with --data"
        )
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Concept(r["id"], r["name_en"], r["name_zh"]) for r in rows]


def read_text(data_dir: Path, split: str = "train") -> list[dict[str, str]]:
    """Read the text rows of one split: kind, lang, instruction, input, output."""
    frame = read_parquet(data_dir / "text.parquet")
    frame = frame[frame.split == split]
    columns = ["kind", "lang", "instruction", "input", "output"]
    rows: list[dict[str, str]] = frame[columns].fillna("").to_dict("records")
    return rows


def open_table(data_dir: Path, work_dir: Path, kind: str, split: str) -> Table:
    """Decode one modality of one split, or map what an earlier call decoded.

    Args:
        data_dir: Folder with the pack's parquet files.
        work_dir: Folder for the decoded arrays.
        kind: `photos`, `sounds` or `shapes`.
        split: `train`, `val` or `heldout`.

    Raises:
        ConfigurationError: An unknown kind or split, or the file is absent.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    if kind not in _KINDS or split not in SPLITS:
        raise ConfigurationError(
            f"found table {kind!r}, split {split!r}; expected one of {sorted(_KINDS)} and {SPLITS}"
        )
    folder = work_dir / "arrays"
    stem = folder / f"{kind}-{split}"
    if not stem.with_suffix(".json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _decode_table(data_dir, stem, _KINDS[kind], split)
    meta = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    return Table(
        values=np.load(stem.with_suffix(".npy"), mmap_mode="r"),
        length=np.asarray(meta["length"], dtype=np.int64),
        concept=np.asarray(meta["concept"], dtype=np.int64),
        subtype=meta["subtype"],
        extra=meta["extra"],
    )


def _decode_table(data_dir: Path, stem: Path, kind: _Kind, split: str) -> None:
    frame = read_parquet(data_dir / kind.file)
    frame = frame[frame.split == split].reset_index(drop=True)
    part = stem.with_suffix(".part.npy")
    out = np.lib.format.open_memmap(
        part, mode="w+", dtype=kind.dtype, shape=(len(frame), *kind.shape)
    )
    lengths = []
    bar = Console(stderr=True)  # stdout may be read by a program
    rows = track(frame[kind.column], description=f"decoding {stem.name}", console=bar)
    for i, blob in enumerate(rows):
        value, length = kind.decode(blob)
        out[i, : len(value)] = value
        lengths.append(length)
    out.flush()
    part.replace(stem.with_suffix(".npy"))
    meta = {
        "length": lengths,
        "concept": frame.concept_id.astype(int).tolist(),
        "subtype": frame.subtype.fillna("").astype(str).tolist(),
        "extra": frame[kind.extra].astype(str).tolist(),
    }
    write_atomic(stem.with_suffix(".json"), json.dumps(meta).encode())


def _decode_photo(blob: bytes) -> tuple[NDArray[Any], int]:
    from PIL import Image

    image = Image.open(io.BytesIO(blob)).convert("RGB")
    if image.size != (PHOTO_PX, PHOTO_PX):
        image = image.resize((PHOTO_PX, PHOTO_PX))
    return np.asarray(image), 1


def _decode_sound(blob: bytes) -> tuple[NDArray[Any], int]:
    import av

    with av.open(io.BytesIO(blob), "r") as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    wave = np.concatenate([f.to_ndarray().reshape(-1) for f in frames])[: RATE_HZ * SOUND_S]
    return wave, len(wave)


def _decode_shape(blob: bytes) -> tuple[NDArray[Any], int]:
    points = np.frombuffer(blob, "<f2").reshape(-1, 3)[:SHAPE_POINTS]
    return points, len(points)


_KINDS = {
    "photos": _Kind(
        "photos.parquet", "jpeg", "src_px", (PHOTO_PX, PHOTO_PX, 3), np.uint8, _decode_photo
    ),
    "sounds": _Kind(
        "sounds.parquet", "ogg", "group", (RATE_HZ * SOUND_S,), np.int16, _decode_sound
    ),
    "shapes": _Kind("shapes.parquet", "points", "up", (SHAPE_POINTS, 3), np.float16, _decode_shape),
}


def read_parquet(path: Path) -> Any:
    """Read a table of the pack as a pandas frame.

    Raises:
        ConfigurationError: There is no such file.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    try:
        import pandas as pd
        import pyarrow as pa  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "pandas", "train") from error
    if not path.is_file():
        raise ConfigurationError(f"{path}: found no file, expected a table of the data pack")
    return pd.read_parquet(path)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a killed run never sees half of it."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def hold_out(table: Table, kind: str, share: float, seed: int) -> tuple[Table, Table]:
    """Split a training table into rows to learn from and rows to choose settings on.

    The choice is by a hash, so that it does not depend on the order; the sounds of one
    recording stay together.

    Returns:
        The larger part and the held-out part.
    """
    keys = table.extra if kind == "sounds" else [f"{kind}-{i}" for i in range(len(table))]
    marks = np.array([zlib.crc32(f"{seed}/{key}".encode()) % 10_000 for key in keys])
    held = marks < share * 10_000
    return table.take(np.flatnonzero(~held)), table.take(np.flatnonzero(held))


def class_weights(concepts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Sampling probability of every row: classes weigh by the square root of their size."""
    labels = np.asarray(concepts)
    counts = np.bincount(labels).astype(np.float64)
    weights: NDArray[np.float64] = 1.0 / np.sqrt(counts[labels])
    weights /= weights.sum()
    return weights


def read_scenes(data_dir: Path, split: str = "train") -> list[tuple[bytes, str]]:
    """Read the scenes of a pack: each a JPEG and the JSON of its objects; empty if it has none."""
    path = data_dir / "scenes.parquet"
    if not path.is_file():
        return []
    frame = read_parquet(path)
    frame = frame[frame.split == split]
    return list(zip(frame.jpeg, frame.objects, strict=True))
