"""A vector store on disk: one file, replaced as a whole, so that a crash leaves the old or the new.

```
store.zip ─┬─ store.json        format, encoder, number and width of the vectors
           ├─ documents.jsonl   one document a line: id, text, metadata
           └─ vectors.npy       (N, D) float32, row i belongs to line i
```
Nothing is unpickled, and the zip's checksums tell damage.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ibllm_tools.errors import CheckpointError, ConfigurationError, MediaError
from ibllm_tools.media.arrays import read_npy
from ibllm_tools.vectorstores.collection import Vectors
from ibllm_tools.vectorstores.records import Record

STORE_FILE = "store.zip"
FORMAT_VERSION = 1
_ABOUT, _DOCUMENTS, _VECTORS = "store.json", "documents.jsonl", "vectors.npy"
_STALE_S = 3600.0


def write_store(
    folder: Path, encoder: dict[str, Any], records: Sequence[Record], vectors: Vectors
) -> None:
    """Write a store; the one that was there is kept until the new one is whole on the disk.

    Raises:
        ConfigurationError: A document's metadata holds what JSON cannot.
    """
    about = {
        "format": FORMAT_VERSION,
        "encoder": encoder,
        "count": len(records),
        "width": int(vectors.shape[1]),
    }
    lines = "".join(_line(record) for record in records)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    unfinished = folder / f".{STORE_FILE}.{uuid.uuid4().hex}"
    try:
        with unfinished.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_ABOUT, json.dumps(about, indent=2))
                archive.writestr(_DOCUMENTS, lines, zipfile.ZIP_DEFLATED)
                with archive.open(_VECTORS, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, vectors, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / STORE_FILE)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(folder)


def read_store(folder: Path) -> tuple[dict[str, Any], list[Record], Vectors]:
    """Read a store: its encoder, its records, and their vectors (N, D).

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    path = folder / STORE_FILE
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(_ABOUT))
            records = list(_records(archive.read(_DOCUMENTS)))
            vectors = read_npy(archive.read(_VECTORS), _VECTORS)
        encoder, expected = dict(about["encoder"]), (about["count"], about["width"])
        found = (len(records), vectors.shape[1])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: found no such file; expected a store as `save_local` writes it"
        ) from error
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        MediaError,
    ) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected a store as `save_local` writes it; "
            "fetch or make it again"
        ) from error
    if about.get("format") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: found format {about.get('format')!r}, expected {FORMAT_VERSION}; "
            "it was written by another version of ibllm-tools"
        )
    if found != expected or len(vectors) != len(records):
        raise CheckpointError(
            f"{path}: found {found[0]} documents and vectors of shape {vectors.shape}, but "
            f"{_ABOUT} says {expected[0]} of width {expected[1]}; make the store again"
        )
    return encoder, records, vectors.astype(np.float32)


def _line(record: Record) -> str:
    values = {"id": record.id, "text": record.text, "metadata": record.metadata}
    try:
        # Names of files may hold bytes that are no Unicode; as escapes they come back as they were.
        return json.dumps(values, allow_nan=True) + "\n"
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"document {record.id!r}: metadata cannot be saved ({error}); expected what JSON "
            "holds: texts, numbers, true, false, null, lists and dicts with text keys"
        ) from error


def _records(data: bytes) -> Iterator[Record]:
    for line in data.splitlines():
        values = json.loads(line)
        yield Record(str(values["id"]), str(values["text"]), dict(values["metadata"]))


def _remove_stale(folder: Path) -> None:
    """Remove what a process that was killed while writing has left."""
    for path in folder.glob(f".{STORE_FILE}.*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Let the new name of the file reach the disk, where the system can be asked to."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
