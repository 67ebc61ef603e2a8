"""A folder of media with captions beside them: `dog.jpg` and `dog.txt`.

Also img2dataset's output as files, and Hugging Face's imagefolder with its metadata file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ibllm_tools.data.placing import modality_of_name
from ibllm_tools.data.rows import Fault, Row

CAPTION_SUFFIXES = (".txt", ".caption")
MAX_CAPTION_BYTES = 2**20


def read_folder(folder: Path) -> Iterator[Row | Fault]:
    """Give one row for each medium below `folder`, in the order of names.

    Links to folders are not followed; links to files are, if they stay below the media root.
    """
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            if modality_of_name(name) or path.suffix.lower() == ".npy":
                yield _row(path, path.relative_to(folder).as_posix())


def _row(path: Path, where: str) -> Row | Fault:
    stem = path.with_name(path.name.split(".", 1)[0])
    beside = (
        file.with_name(file.name + suffix)
        for suffix in CAPTION_SUFFIXES
        for file in (path.with_suffix(""), stem)
    )
    captions = next((file for file in beside if file.is_file()), None)
    if captions is None:
        return Fault(where, "no caption file", f"expected {path.stem}.txt beside it")
    if captions.is_symlink():
        return Fault(where, "caption file is a link", captions.name)
    try:
        with captions.open("rb") as file:
            text = file.read(MAX_CAPTION_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return Fault(where, "broken text", f"{captions.name}: {type(error).__name__}")
    return Row(where, {"id": where, "path": str(path.absolute()), "caption": text})
