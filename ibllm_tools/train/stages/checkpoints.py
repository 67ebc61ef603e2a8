"""Checkpoints on disk: which are whole, which is the newest, which can go.

A checkpoint is whole once its `done.json` is there, written last, and the files that it lists
have the sizes that it says. A process that is killed while it writes leaves none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from ibllm_tools.model.loading import ADAPTER_FILE

DONE_FILE = "done.json"
_NAME = re.compile(r"checkpoint-([0-9]+)")


def mark_done(folder: Path) -> None:
    """Say that a checkpoint is whole."""
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != DONE_FILE
    }
    begun = folder / f"{DONE_FILE}.part"
    begun.write_text(json.dumps({"files": sizes}, indent=2) + "\n", encoding="utf-8")
    os.replace(begun, folder / DONE_FILE)  # noqa: PTH105 - atomic on every system


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint was written to its end and nothing of it is missing."""
    try:
        sizes = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))["files"]
        return ADAPTER_FILE in sizes and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def list_checkpoints(out: Path) -> list[Path]:
    """The checkpoint folders in a run's folder, oldest step first, whole or not."""
    found = [
        (int(m[1]), path) for path in out.glob("checkpoint-*") if (m := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def newest_whole(out: Path) -> Path | None:
    """The newest checkpoint that is whole; None if there is none."""
    return next((path for path in reversed(list_checkpoints(out)) if is_whole(path)), None)


def prune(out: Path, keep: int) -> None:
    """Remove all but the newest `keep` whole checkpoints, and halves that are older than these."""
    whole = [path for path in list_checkpoints(out) if is_whole(path)]
    kept = whole[-keep:]
    for path in list_checkpoints(out):
        if kept and path not in kept and _step(path) < _step(kept[-1]):
            shutil.rmtree(path, ignore_errors=True)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
