"""`FeatureStore`: examples and the vectors of their media, read from disk as they are asked for."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ibllm_tools.data.store.identity import EncoderIdentity
from ibllm_tools.data.store.shards import Half, Shard
from ibllm_tools.errors import CheckpointError
from ibllm_tools.media import MODALITIES, Modality
from ibllm_tools.mix import mix

STORE_FILE = "store.json"
FORMAT_VERSION = 1
_EXPECTED = "expected a feature store, as `ibllm embed SOURCE --out FOLDER` writes it"


@dataclass(frozen=True)
class StoredMedium:
    """One medium of a stored row: its key, what it was sensed as, its weight in the mix."""

    key: str
    modality: Modality
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class StoredRow:
    """One example with the vectors of its media.

    Attributes:
        id: As in the source.
        messages: `{"role", "content"}` in order.
        media: What the vectors are of; () for a row of text only.
        features: (m, joint) float32, a unit vector per medium.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    media: tuple[StoredMedium, ...]
    features: Tensor

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What each medium was sensed as."""
        return tuple(medium.modality for medium in self.media)

    @property
    def weights(self) -> tuple[float, ...]:
        """Each medium's weight in the mix."""
        return tuple(medium.weight for medium in self.media)

    def mixed(self) -> Tensor | None:
        """Mix the media by their weights: (joint,) float32; None for text only."""
        if not self.media:
            return None
        rows = torch.zeros(len(self.media), dtype=torch.long)
        return mix(self.features, torch.tensor(self.weights), rows, 1)[0]


class FeatureStore:
    """A read-only list of `StoredRow`s in one or several folders.

    It may be handed to worker processes; each maps the files anew.
    """

    def __init__(self, folders: tuple[Path, ...], *, partial: bool = False) -> None:
        """Open folders that hold shards; see `open`."""
        self.folders, self._partial = folders, partial
        self.about = [_read_about(folder, partial=partial) for folder in folders]
        self.encoder = EncoderIdentity.from_dict(self.about[0]["encoder"])
        for folder, about in zip(folders, self.about, strict=True):
            require_encoder(folder, EncoderIdentity.from_dict(about["encoder"]), self.encoder)
        self._shards = [
            Shard(folder, number)
            for folder, about in zip(folders, self.about, strict=True)
            for number in range(about["shards"])
        ]
        self._ends = list(accumulate(len(shard) for shard in self._shards))

    @classmethod
    def open(cls, *folders: str | Path, partial: bool = False) -> FeatureStore:
        """Open one or several stores as one list of rows.

        Args:
            *folders: Each a store, or a folder of the parts that several processes wrote.
            partial: Open a store that is still being written: its whole shards.

        Raises:
            CheckpointError: A folder is no store, is not complete, or the encoders differ.
        """
        parts = [part for folder in folders for part in _parts(Path(folder).expanduser())]
        if not parts:
            raise CheckpointError(f"found no folder, {_EXPECTED}")
        return cls(tuple(parts), partial=partial)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> StoredRow:
        """Read a row; a negative index counts from the end."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = bisect_right(self._ends, place)
        shard = self._shards[number]
        row = shard.row(place - (self._ends[number] - len(shard)))
        numbers = [medium["feature"] for medium in row["media"]]
        features = torch.from_numpy(shard.features[numbers].astype(np.float32))
        media = (StoredMedium(m["key"], m["modality"], m["weight"]) for m in row["media"])
        return StoredRow(row["id"], tuple(row["messages"]), tuple(media), features)

    def __iter__(self) -> Iterator[StoredRow]:
        """Read all rows in order."""
        return (self[index] for index in range(len(self)))

    @property
    def joint_dim(self) -> int:
        """Width of the vectors."""
        return self.encoder.joint_dim

    def mixed(self, index: int) -> Tensor | None:
        """Mix the media of a row by their weights: (joint,) float32; None for text only."""
        return self[index].mixed()

    def vectors(self, modality: Modality | None = None) -> Iterator[Half]:
        """Read each different medium's vector once, shard by shard.

        Args:
            modality: Only of this one; all by default.

        Yields:
            (n, joint) float16; mapped from disk where nothing is left out.
        """
        for shard in self._shards:
            wanted = shard.copied == 0
            if modality is not None:
                wanted &= shard.modality == MODALITIES.index(modality)
            if wanted.any():
                yield shard.features if wanted.all() else shard.features[wanted]

    def count(self, modality: Modality | None = None) -> int:
        """Count the different media, of one modality or all."""
        counts = (
            int(((s.copied == 0) & ((modality is None) | (s.modality == _code(modality)))).sum())
            for s in self._shards
        )
        return sum(counts)

    def require(self, encoder: EncoderIdentity) -> None:
        """Refuse to be used with another encoder than the one that made the vectors.

        Raises:
            CheckpointError: The fingerprints differ.
        """
        require_encoder(self.folders[0], self.encoder, encoder)

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What was read, kept and skipped: of the sources, then of each folder's encoding."""
        found = [report for about in self.about for report in about.get("sources", [])]
        return [*found, *(about["report"] for about in self.about if "report" in about)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folders, self._partial)


def _reopen(folders: tuple[Path, ...], partial: bool) -> FeatureStore:
    return FeatureStore(folders, partial=partial)


def _code(modality: Modality | None) -> int:
    return -1 if modality is None else MODALITIES.index(modality)


def require_encoder(folder: Path, found: EncoderIdentity, expected: EncoderIdentity) -> None:
    """Compare a store's encoder with the one in use.

    Raises:
        CheckpointError: They differ in weights, preprocessing or width.
    """
    if (found.fingerprint, found.joint_dim) != (expected.fingerprint, expected.joint_dim):
        raise CheckpointError(
            f"{folder}: its features are of the encoder {found.name} ({found.fingerprint}, width "
            f"{found.joint_dim}), expected {expected.name} ({expected.fingerprint}, width "
            f"{expected.joint_dim}); embed the data again with this encoder, into another folder"
        )


def read_store_file(folder: Path) -> dict[str, Any]:
    """Read a store's `store.json`.

    Raises:
        CheckpointError: It is missing, damaged, or of another version.
    """
    path = folder / STORE_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        version, _ = about["format"], EncoderIdentity.from_dict(about["encoder"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {_EXPECTED}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: found format {version}, expected {FORMAT_VERSION}")
    return dict(about)


def _read_about(folder: Path, *, partial: bool) -> dict[str, Any]:
    from ibllm_tools.data.store.shards import count_shards

    about, found = read_store_file(folder), count_shards(folder)
    if not about.get("complete"):
        if not partial:
            raise CheckpointError(
                f"{folder} is not complete ({found} shards so far); run the command that fills it "
                "again, it goes on where it was stopped"
            )
        return {**about, "shards": found}
    if found != about["shards"]:
        raise CheckpointError(
            f"{folder}: found {found} shards, expected {about['shards']}; copy the store again"
        )
    return about


def is_store(folder: str | Path) -> bool:
    """Whether a folder is a feature store, or the parts of one."""
    path = Path(folder).expanduser()
    return (path / STORE_FILE).is_file() or any(path.glob(f"part-*-of-*/{STORE_FILE}"))


def part_name(index: int, count: int) -> str:
    """Name the folder of one of several processes that fill a store."""
    return f"part-{index}-of-{count}"


def _parts(folder: Path) -> list[Path]:
    """The store itself, or the parts of it that several processes wrote."""
    found = [path for path in sorted(folder.glob("part-*-of-*")) if path.is_dir()]
    if (folder / STORE_FILE).is_file() or not found:
        return [folder]
    count = int(found[0].name.rpartition("-")[2])
    wanted = [folder / part_name(index, count) for index in range(count)]
    if missing := [part.name for part in wanted if part not in found]:
        raise CheckpointError(f"{folder} has no {', '.join(missing)}; let that process finish")
    return wanted
