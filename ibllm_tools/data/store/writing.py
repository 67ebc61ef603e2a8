"""`FeatureWriter`: adds examples and their vectors to a store, shard by shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ibllm_tools.data.examples import SourceReport
from ibllm_tools.data.store.identity import EncoderIdentity
from ibllm_tools.data.store.index import KeyIndex
from ibllm_tools.data.store.journal import Block, Journal, key_bytes
from ibllm_tools.data.store.reading import (
    FORMAT_VERSION,
    STORE_FILE,
    FeatureStore,
    read_store_file,
    require_encoder,
)
from ibllm_tools.data.store.shards import (
    KEY_BYTES,
    Half,
    Shard,
    count_shards,
    features_path,
    rows_path,
    write_arrays,
)
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import MODALITIES, Modality

SHARD_ROWS = 16384


class Medium(Protocol):
    """What a row says of a medium: a `MediaRef` or a `StoredMedium`."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def modality(self) -> Modality: ...  # noqa: D102
    @property
    def weight(self) -> float: ...  # noqa: D102


class Row(Protocol):
    """An example: an `Example` of a source, or a `StoredRow`."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def messages(self) -> Sequence[Mapping[str, str]]: ...  # noqa: D102
    @property
    def media(self) -> Sequence[Medium]: ...  # noqa: D102


class FeatureWriter:
    """Fills the folder of a `FeatureStore`; a context manager.

    ```python
    with FeatureWriter(folder, store.encoder) as writer:
        for row in store:
            writer.append(row, row.features)
        writer.finish()
    ```
    A folder that was not finished is continued: `seen` tells how many examples it has, counting
    those that were skipped.
    """

    def __init__(
        self,
        folder: str | Path,
        encoder: EncoderIdentity,
        *,
        shard_rows: int = SHARD_ROWS,
        about: dict[str, Any] | None = None,
    ) -> None:
        """Open a folder to fill.

        Args:
            folder: Made if needed.
            encoder: Whose vectors are written.
            shard_rows: Examples per shard.
            about: More for `store.json`, such as what the source was; a folder that was begun
                with other values is refused.

        Raises:
            CheckpointError: The folder holds features of another encoder, or is damaged.
            ConfigurationError: The folder is something else, finished, or was begun from
                another source.
        """
        self.folder, self.encoder, self._shard_rows = Path(folder), encoder, shard_rows
        self._about = {"format": FORMAT_VERSION, "encoder": encoder.to_dict(), "dtype": "float16"}
        self._about |= {"shard_rows": shard_rows, **(about or {})}
        self._begin()
        self._index, self._failed = KeyIndex(), dict[str, tuple[str, str]]()
        self._journal = Journal(self.folder, encoder.joint_dim)
        self._open_shards: dict[int, Shard] = {}
        self.seen, self.last_id = 0, ""
        self._totals = SourceReport()
        self._number = count_shards(self.folder)
        for number in range(self._number):
            self._recall(Shard(self.folder, number))
        self._start_shard()
        if self.until_shard_ends <= 0:  # stopped before a full shard was closed
            self._close_shard()

    def _begin(self) -> None:
        """Write `store.json`, or compare the one that is there."""
        path = self.folder / STORE_FILE
        if not path.is_file():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise ConfigurationError(
                    f"{self.folder} is not empty and no feature store; choose another folder"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_about({"complete": False})
            return
        found = read_store_file(self.folder)
        require_encoder(self.folder, EncoderIdentity.from_dict(found["encoder"]), self.encoder)
        if found.get("complete"):
            raise ConfigurationError(f"{self.folder} is finished; choose another folder")
        for name, wanted in self._about.items():
            if name != "encoder" and found.get(name) != wanted:
                raise ConfigurationError(
                    f"{self.folder} was begun with {name} {found.get(name)!r}, found {wanted!r} "
                    "now; go on with the same, or choose another folder"
                )

    def _recall(self, shard: Shard) -> None:
        """Take over what a whole shard has."""
        number = len(self._open_shards)
        self._open_shards[number] = shard
        self._index.add(number, shard.keys, shard.copied)
        self._failed |= {key: (why[0], why[1]) for key, why in shard.about["failed"].items()}
        self.seen, self.last_id = shard.about["seen"], shard.about["last_id"]
        self._totals.merge(SourceReport(**shard.about["report"]))

    def _start_shard(self) -> None:
        """Open the next shard, or the one that was being filled."""
        if rows_path(self.folder, self._number).is_file():  # stopped while closing it
            rows_path(self.folder, self._number).unlink()
        blocks = self._journal.reopen(self._number)
        self._keys: list[str] = [key for block in blocks for key in block.keys]
        self._rows = {key: row for row, key in enumerate(self._keys)}
        self._modality = [code for block in blocks for code in block.modality]
        self._copied = [flag for block in blocks for flag in block.copied]
        self._ends = [end for block in blocks for end in block.ends]
        self._shard_failed: dict[str, list[str]] = {}
        for block in blocks:
            self._shard_failed |= block.failed
        self._failed |= {key: (why[0], why[1]) for key, why in self._shard_failed.items()}
        self._report = SourceReport(**blocks[-1].report) if blocks else SourceReport()
        if blocks:
            self.seen, self.last_id = blocks[-1].seen, blocks[-1].last_id
        self._vectors: list[Half] = []
        self._lines: list[bytes] = []
        self._block = Block(self._number)

    @property
    def until_shard_ends(self) -> int:
        """Examples that still fit into the open shard."""
        return (self._number + 1) * self._shard_rows - self.seen

    @property
    def report(self) -> SourceReport:
        """What became of the examples so far."""
        total = SourceReport()
        total.merge(self._totals)
        total.merge(self._report)
        return total

    def append(self, row: Row, vectors: Tensor, digests: Sequence[str] | None = None) -> None:
        """Add an example.

        Args:
            row: `id`, `messages` and `media`.
            vectors: (m, joint) float, one per medium; made unit vectors here.
            digests: What tells each medium from others; by default its key and vector do.
                A medium that the store has is not stored again.

        Raises:
            ConfigurationError: The vectors do not fit the row or the encoder, or are not finite.
        """
        units = self._units(row, vectors)
        digests = digests or [_digest(m, v) for m, v in zip(row.media, units, strict=True)]
        media = [
            {
                "key": medium.key,
                "modality": medium.modality,
                "weight": medium.weight,
                "feature": self.add(digest, medium.modality, unit),
            }
            for medium, digest, unit in zip(row.media, digests, units, strict=True)
        ]
        entry = {"id": row.id, "messages": [dict(m) for m in row.messages], "media": media}
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        self._lines.append(line)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(line))
        self._block.ends.append(self._ends[-1])
        self._report.kept += 1
        self._count(row.id)

    def skip(self, row_id: str, reason: str, why: str) -> None:
        """Leave an example out, and say why."""
        self._report.skip(row_id, reason, why)
        self._count(row_id)

    def add(self, digest: str, modality: Modality, unit: Half) -> int:
        """Store a vector, unless the open shard has it; returns its row there.

        Args:
            digest: 32 hex digits that tell the medium from others.
            modality: What it was sensed as.
            unit: (joint,) float16, of length 1.
        """
        if digest in self._rows:
            return self._rows[digest]
        row = self._rows[digest] = len(self._keys)
        copied = int(self._index.find(digest) is not None)
        code = MODALITIES.index(modality)
        for whole, block, value in (
            (self._keys, self._block.keys, digest),
            (self._modality, self._block.modality, code),
            (self._copied, self._block.copied, copied),
        ):
            whole.append(value)  # type: ignore[arg-type]
            block.append(value)  # type: ignore[arg-type]
        self._vectors.append(unit)
        return row

    def fail(self, digest: str, reason: str, why: str) -> None:
        """Remember that a medium cannot be encoded."""
        self._failed[digest] = (reason, why)
        self._block.failed[digest] = self._shard_failed[digest] = [reason, why]

    def failure(self, digest: str) -> tuple[str, str] | None:
        """Reason and explanation why a medium cannot be encoded; None if it did not fail."""
        return self._failed.get(digest)

    def knows(self, digest: str) -> bool:
        """Whether a medium was encoded, or failed to be."""
        known = digest in self._rows or digest in self._failed
        return known or self._index.find(digest) is not None

    def vector(self, digest: str) -> Half:
        """Read a vector that the store has: (joint,) float16."""
        if digest in self._rows:
            row, n_written = self._rows[digest], len(self._keys) - len(self._vectors)
            return self._journal.feature(row) if row < n_written else self._vectors[row - n_written]
        place = self._index.find(digest)
        assert place is not None, "asked for a vector that the store does not have"
        vector: Half = self._open_shards[place[0]].features[place[1]]
        return vector

    def commit(self) -> None:
        """Write what was added since the last call; a run that is killed goes on from here."""
        block = self._block
        if block.seen == 0:
            return
        block.report = self._report.as_dict()
        self._journal.add(block, self._vectors, self._lines)
        self._vectors, self._lines, self._block = [], [], Block(self._number)
        if self.until_shard_ends <= 0:
            self._close_shard()

    def finish(self, sources: Iterable[dict[str, Any]] = ()) -> FeatureStore:
        """Write the rest and open the store.

        Args:
            sources: Reports of the sources, to be kept in `store.json`.
        """
        self.commit()
        if self._report.read:
            self._close_shard()
        self._journal.remove()
        media = {
            name: sum(
                int(((s.modality == code) & (s.copied == 0)).sum())
                for s in self._open_shards.values()
            )
            for code, name in enumerate(MODALITIES)
        }
        rows = sum(len(shard) for shard in self._open_shards.values())
        counts = {"rows": rows, "media": {name: n for name, n in media.items() if n}}
        summary = {"shards": self._number, "counts": counts, "sources": list(sources)}
        self._write_about({"complete": True, **summary, "report": self.report.as_dict()})
        return FeatureStore.open(self.folder)

    def close(self) -> None:
        """Close the files; a store that is not finished can be continued."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _count(self, row_id: str) -> None:
        self._report.read += 1
        self.seen, self.last_id = self.seen + 1, row_id
        self._block.seen, self._block.last_id = self.seen, row_id
        if self.until_shard_ends <= 0:
            self.commit()

    def _close_shard(self) -> None:
        features, number = self._journal.features(), self._number
        rows_path(self.folder, number).write_bytes(self._journal.rows())
        arrays = {
            "features": features,
            "keys": key_bytes(self._keys),
            "modality": np.asarray(self._modality, np.uint8),
            "copied": np.asarray(self._copied, np.uint8),
            "row_ends": np.asarray(self._ends, np.int64),
        }
        about = {"seen": self.seen, "last_id": self.last_id, "failed": self._shard_failed}
        about["report"] = self._report.as_dict()
        write_arrays(features_path(self.folder, number), arrays, about)
        self._journal.remove()
        self._number += 1
        self._recall(Shard(self.folder, number))
        self._start_shard()

    def _units(self, row: Row, vectors: Tensor) -> list[Half]:
        expected = (len(row.media), self.encoder.joint_dim)
        if not row.media:
            return []
        if tuple(vectors.shape) != expected or not vectors.isfinite().all():
            raise ConfigurationError(
                f"row {row.id}: found vectors of shape {tuple(vectors.shape)}, expected finite "
                f"ones of shape {expected}"
            )
        units = torch.nn.functional.normalize(vectors.float(), dim=-1)
        return list(units.half().cpu().numpy())

    def _write_about(self, more: dict[str, Any]) -> None:
        path = self.folder / STORE_FILE
        part = path.with_name(path.name + ".part")
        text = json.dumps({**self._about, **more}, indent=2, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)


def _digest(medium: Medium, unit: Half) -> str:
    digest = hashlib.blake2b(f"{medium.modality}\0{medium.key}\0".encode(), digest_size=KEY_BYTES)
    digest.update(unit.tobytes())
    return digest.hexdigest()
