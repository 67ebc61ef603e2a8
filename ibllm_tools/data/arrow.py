"""Columnar files: parquet, and the folders that Hugging Face's `save_to_disk` writes.

Both are read batch by batch through pyarrow. A `datasets` object is read through itself, with
media left undecoded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ibllm_tools.data.columns import is_known_column
from ibllm_tools.data.rows import Fault, Row
from ibllm_tools.errors import DataError, MissingExtraError
from ibllm_tools.media.problems import shown

BATCH_ROWS = 64
STATE_FILE, SPLITS_FILE = "state.json", "dataset_dict.json"


def read_parquet(path: Path, name: str) -> Iterator[Row | Fault]:
    """Read the known columns of a parquet file; memory holds one batch of rows.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = _pyarrow()
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [column for column in names if is_known_column(column)]
            if not columns:
                yield _no_column(name, names)
                return
            batches = file.iter_batches(batch_size=BATCH_ROWS, columns=columns)
            yield from _rows(batches, name)
    except (OSError, pa.ArrowException) as error:
        yield Fault(name, "file is damaged", shown(" ".join(str(error).split())))


def read_saved(folder: Path, name: str, split: str | None = None) -> Iterator[Row | Fault]:
    """Read a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Raises:
        DataError: The folder holds several splits and none was chosen, or a broken index.
        MissingExtraError: pyarrow is not installed.
    """
    pa = _pyarrow()
    index = 0
    for file in _data_files(_split_folder(folder, split)):
        try:
            with pa.memory_map(str(file)) as source:
                for batch in _stream(source):
                    for row in _rows([batch], name, index):
                        yield row
                        index += 1
        except (OSError, pa.ArrowException) as error:
            why = shown(" ".join(str(error).split()))
            yield Fault(f"{name}/{file.name}", "file is damaged", why)


def read_object(dataset: Any) -> Iterator[Row | Fault]:
    """Read a `datasets.Dataset` or `IterableDataset`; pictures and sounds stay encoded."""
    for name, feature in dict(getattr(dataset, "features", None) or {}).items():
        if dataclasses.is_dataclass(feature) and getattr(feature, "decode", None) is True:
            undecoded = dataclasses.replace(feature, decode=False)  # type: ignore[type-var]
            dataset = dataset.cast_column(name, undecoded)
    for index, fields in enumerate(dataset):
        yield Row(f"dataset:{index + 1}", fields)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / STATE_FILE).is_file() or (folder / SPLITS_FILE).is_file()


def _stream(source: Any) -> Iterator[Any]:
    """Slices of the record batches of an Arrow stream."""
    from pyarrow import ipc

    for batch in ipc.open_stream(source):
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _rows(batches: Any, name: str, first: int = 0) -> Iterator[Row | Fault]:
    index = first
    for batch in batches:
        known = [column for column in batch.schema.names if is_known_column(column)]
        for fields in batch.select(known).to_pylist():
            index += 1
            yield Row(f"{name}:{index}", fields)


def _no_column(name: str, names: list[str]) -> Fault:
    why = f"found columns {shown(', '.join(names))}, expected for example image and caption"
    return Fault(name, "no known column names", why)


def _split_folder(folder: Path, split: str | None) -> Path:
    if not (folder / SPLITS_FILE).is_file():
        return folder
    splits = _json(folder / SPLITS_FILE).get("splits")
    names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
    wanted = split or ("train" if "train" in names else None)
    if wanted not in names or Path(wanted).name != wanted:
        raise DataError(f"{folder}: found split {wanted}, expected one of {names}; pass split=")
    return folder / wanted


def _data_files(folder: Path) -> list[Path]:
    """The files that the index lists; each must lie in the folder itself."""
    state = _json(folder / STATE_FILE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(
            f"{folder}: found a dataset with an index over its rows, as old releases of "
            "`datasets` save it; expected plain rows; call flatten_indices() and save it again"
        )
    listed = state.get("_data_files")
    entries = listed if isinstance(listed, list) else []
    names = [e.get("filename") if isinstance(e, dict) else None for e in entries]
    files = [folder / name for name in names if isinstance(name, str) and Path(name).name == name]
    if not files or len(files) != len(entries):
        raise DataError(f"{folder}: found no usable {STATE_FILE}; save the dataset again")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: found no readable JSON ({error}); save the dataset again") from (
            error
        )
    if not isinstance(value, dict):
        raise DataError(f"{path}: found no object; save the dataset again")
    return value


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    return pa
