"""Where a model's files lie, what they weigh, and whether they changed. Reads no weights."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ibllm_tools.errors import CheckpointError

POCKET = "pocket"
POCKET_FOLDER = Path(__file__).parent / POCKET
CONFIG_NAME = "config.json"

_LOADING = threading.RLock()
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file: where it lies, its size, and its number of values by dtype.

    Dtypes are named as in the format: F32, F16, BF16 and so on.
    """

    path: Path
    n_bytes: int
    n_values: dict[str, int]


def find_folder(model: str) -> Path | None:
    """Find the local folder of a model: "pocket" or a path; None for a hub id.

    Raises:
        CheckpointError: `model` looks like a path but is no model folder.
    """
    folder = POCKET_FOLDER if model == POCKET else Path(model).expanduser()
    if (folder / CONFIG_NAME).is_file():
        return folder
    if model == POCKET:
        raise CheckpointError(
            f"the package has no pocket weights in {folder}; reinstall ibllm-tools, or build "
            "them with `ibllm train pocket --data DIR --out DIR`"
        )
    if folder.exists():
        raise CheckpointError(
            f"{folder} has no {CONFIG_NAME}; expected a folder made by save_pretrained or "
            "`ibllm convert`"
        )
    if not _is_hub_id(model):
        raise CheckpointError(
            f'{model!r} is no folder here and no hub id; use "pocket", a model folder, or '
            "an id such as user/name"
        )
    return None


def _is_hub_id(model: str) -> bool:
    owner, slash, name = model.partition("/")
    return bool(owner and name and slash) and "/" not in name and not model.startswith((".", "~"))


def fingerprint(model: str) -> str:
    """Tell one state of a model's files from another, by names, sizes and times of change.

    Returns:
        A short text that changes when a file of a local folder does. A hub id, or a folder
        that is not there, stands for itself.
    """
    try:
        folder = find_folder(model)
    except CheckpointError:
        return model
    if folder is None:
        return model
    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        if path.is_file():
            digest.update(f"{path}{status.st_size}{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def weight_files(folder: Path) -> list[WeightFile]:
    """List the safetensors files of a folder with their sizes, from their headers alone.

    Raises:
        CheckpointError: A file's header is broken.
    """
    return [_weigh(path) for path in sorted(folder.rglob("*.safetensors"))]


def _weigh(path: Path) -> WeightFile:
    try:
        with path.open("rb") as file:
            (n_header,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(min(n_header, _MAX_HEADER_BYTES)))
        header.pop("__metadata__", None)
        n_values: Counter[str] = Counter()
        for tensor in header.values():
            n_values[tensor["dtype"]] += prod(tensor["shape"])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no whole safetensors file ({error}); fetch or convert it again"
        ) from error
    return WeightFile(path, path.stat().st_size, dict(n_values))


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Load a model alone, and without a bar for each weight; answers may go to a terminal.

    transformers switches settings of the whole process while it loads; two loads at once can lose
    tied weights.
    """
    from transformers.utils import logging

    with _LOADING:
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()
