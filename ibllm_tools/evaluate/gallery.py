"""What is shown to the model: media with their concepts, from parquet files of the pack's schema.

Any subset of the files will do, any list of concepts, and any names of splits. What is missing
is told in a sentence, never by an error. This file does not know models.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibllm_tools.errors import ConfigurationError, MediaError, MissingExtraError
from ibllm_tools.media import Media

if TYPE_CHECKING:
    from ibllm_tools.train.data import Concept
    from ibllm_tools.train.knowledge import Fact

KINDS = ("photos", "sounds", "shapes")
COLUMNS = {"photos": "jpeg", "sounds": "ogg", "shapes": "points"}
MODALITIES = {"photos": "image", "sounds": "audio", "shapes": "point"}
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Exhibit:
    """One medium and what it shows.

    Attributes:
        kind: photos, sounds or shapes.
        medium: The content block.
        concept: Its place in the gallery's facts.
        group: Rows of one recording share it.
        row: Its number in the file's split.
    """

    kind: str
    medium: Media
    concept: int
    group: str
    row: int


@dataclass
class Gallery:
    """All media of one split.

    Attributes:
        folder: Where they come from.
        split: Which split.
        facts: What can be said about each concept.
        rows: Exhibits of each kind; a kind without data has none.
        notes: Why a kind has none, and how many rows could not be read.
        known: Names that the model learnt; None where its folder does not say.
    """

    folder: Path
    split: str
    facts: list[Fact]
    rows: dict[str, list[Exhibit]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    known: frozenset[str] | None = None

    def is_known(self, exhibit: Exhibit) -> bool:
        """Tell whether the model ever had a chance to learn this concept's name."""
        return self.known is None or self.facts[exhibit.concept].name in self.known

    def shown(self, kind: str, limit: int | None = None) -> list[Exhibit]:
        """Return exhibits of a kind, or a repeatable sample of them, in the file's order."""
        return sample(self.rows.get(kind, []), limit)

    def everything(self, limit: int | None = None) -> list[Exhibit]:
        """Return exhibits of all kinds, up to `limit` of each."""
        return [exhibit for kind in KINDS for exhibit in self.shown(kind, limit)]


def sample(rows: Sequence[Any], limit: int | None, seed: int = SAMPLE_SEED) -> list[Any]:
    """Draw `limit` rows in their order; all where there are no more."""
    if limit is None or len(rows) <= limit:
        return list(rows)
    chosen = random.Random(seed).sample(range(len(rows)), limit)  # noqa: S311
    return [rows[i] for i in sorted(chosen)]


def open_gallery(
    folder: Path | str,
    split: str = "val",
    *,
    kinds: Sequence[str] = KINDS,
    limit: int | None = None,
    model: str = "pocket",
) -> Gallery:
    """Read the media of a split.

    Args:
        folder: Holds any of photos.parquet, sounds.parquet and shapes.parquet.
        split: The `split` column's value; a file without that column belongs to every split.
        kinds: Which files to read.
        limit: Media per kind, a repeatable sample.
        model: Whose `concepts.json` says what it knows.

    Raises:
        ConfigurationError: There is no such folder.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    from ibllm_tools.train.knowledge import facts_for

    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder}: found no folder, expected one with parquet files such as photos.parquet"
        )
    notes: list[str] = []
    frames = {kind: _read(folder, kind, split, notes) for kind in kinds}
    concepts = _concepts(folder, [f for f in frames.values() if f is not None])
    gallery = Gallery(folder, split, facts_for(concepts), notes=notes, known=_known(model))
    for kind, frame in frames.items():
        if frame is not None:
            gallery.rows[kind] = _exhibits(kind, frame, concepts, limit, notes)
    return gallery


def _read(folder: Path, kind: str, split: str, notes: list[str]) -> Any:
    """The table of a kind in a split, or None with a note."""
    try:
        import pandas as pd
        import pyarrow as pa  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "pandas", "train") from error
    path = folder / f"{kind}.parquet"
    if not path.is_file():
        notes.append(f"{kind}: {folder} has no {path.name}")
        return None
    frame = pd.read_parquet(path)
    missing = {COLUMNS[kind]} - set(frame.columns)
    if missing or not {"concept", "concept_id"} & set(frame.columns):
        found = ", ".join(map(str, frame.columns))
        notes.append(
            f"{kind}: found the columns {found}; expected {COLUMNS[kind]} and concept or concept_id"
        )
        return None
    if "split" in frame.columns:
        names = sorted(frame.split.astype(str).unique())
        frame = frame[frame.split == split]
        if not len(frame):
            notes.append(f"{kind}: no rows of split {split!r}; the file has {', '.join(names)}")
            return None
    return frame.reset_index(drop=True)


def _concepts(folder: Path, frames: Sequence[Any]) -> list[Concept]:
    """The concept list of the folder, or the names that its tables hold."""
    from ibllm_tools.train.data import Concept, read_concepts

    if (folder / "concepts.json").is_file():
        return read_concepts(folder)
    pairs: dict[str, int | None] = {}
    for frame in frames:
        ids = frame.concept_id if "concept_id" in frame.columns else [None] * len(frame)
        names = frame.concept if "concept" in frame.columns else [f"concept {i}" for i in ids]
        pairs.update(zip(map(str, names), ids, strict=True))
    order = sorted(pairs, key=lambda name: (pairs[name] is None, pairs[name] or 0, name))
    found = []
    for place, name in enumerate(order):
        given = pairs[name]
        found.append(Concept(place if given is None else int(given), name, name))
    return found


def _exhibits(
    kind: str, frame: Any, concepts: Sequence[Concept], limit: int | None, notes: list[str]
) -> list[Exhibit]:
    places = {c.name: i for i, c in enumerate(concepts)}
    by_id = {c.id: i for i, c in enumerate(concepts)}
    named = "concept" in frame.columns
    keys = frame.concept.astype(str) if named else frame.concept_id.astype(int)
    found = [(places if named else by_id).get(key) for key in keys]
    groups = frame.group.astype(str) if "group" in frame.columns else frame.index.astype(str)
    blobs = frame[COLUMNS[kind]]
    exhibits, bad = [], 0
    for i in sample(range(len(frame)), limit):
        medium = _medium(kind, blobs[i]) if found[i] is not None else None
        if medium is None or found[i] is None:
            bad += 1
        else:
            exhibits.append(Exhibit(kind, medium, int(found[i]), str(groups[i]), i))
    if bad:
        notes.append(f"{kind}: left out {bad} rows (damaged media, or a concept not in the list)")
    return exhibits


def _medium(kind: str, blob: bytes) -> Media | None:
    """The content block of a stored medium; None if it is damaged."""
    from ibllm_tools.media import load

    try:
        if kind == "shapes":
            points = np.frombuffer(blob, "<f2").reshape(-1, 3).astype(np.float32)
            medium = Media.from_array(points, "point")
        else:
            medium = Media.from_bytes(blob, modality=MODALITIES[kind])  # type: ignore[arg-type]
        load(medium)
    except (MediaError, ValueError, TypeError):
        return None
    return medium


def _known(model: str) -> frozenset[str] | None:
    from ibllm_tools.checkpoints import find_folder

    folder = find_folder(model)
    path = folder / "concepts.json" if folder else None
    if path is None or not path.is_file():
        return None
    entries = json.loads(path.read_text(encoding="utf-8"))
    return frozenset(str(entry.get("name", entry.get("name_en"))) for entry in entries)
