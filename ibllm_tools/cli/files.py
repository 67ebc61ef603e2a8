"""The files of a command line: `FILE[:MODALITY][@WEIGHT]`, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError, MediaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibllm_tools.media import Item, Media

STDIN = "-"


def read_media(files: Sequence[str], modalities: Sequence[str]) -> list[Media]:
    """Read the files of a command line into content blocks.

    Args:
        files: `FILE[:MODALITY][@WEIGHT]`; "-" is standard input.
        modalities: None, one for all files, or one per file; stands behind a file's own.

    Raises:
        MediaError: A file cannot be read or is no medium.
        ConfigurationError: The modalities do not fit the number of files.
    """
    if len(modalities) not in {0, 1, len(files)}:
        raise ConfigurationError(
            f"found {len(modalities)} times --modality for {len(files)} files; "
            "give it once, or once per file"
        )
    per_file: list[str | None] = list(modalities) or [None]
    if len(per_file) == 1:
        per_file *= len(files)
    return [_read_medium(file, sensed) for file, sensed in zip(files, per_file, strict=True)]


def split_file(spec: str) -> tuple[str, str | None, float]:
    """Split `FILE[:MODALITY][@WEIGHT]`; a file of the whole name comes first.

    Returns:
        The path, the modality or None, and the weight.

    Raises:
        MediaError: What follows "@" is no number, and there is no file of that name.
    """
    from ibllm_tools.media import MODALITIES

    path, modality, weight = spec, None, 1.0
    head, at, tail = path.rpartition("@")
    if at and head and not Path(path).exists():
        try:
            path, weight = head, float(tail)
        except ValueError:
            raise MediaError(
                f"{spec}: found weight {tail!r}, expected a number above 0 after the last @; "
                "write for example dog.jpg@0.5 (there is no file of that name)"
            ) from None
    head, colon, tail = path.rpartition(":")
    if colon and head and tail in MODALITIES and not Path(path).exists():
        path, modality = head, tail
    return path, modality, weight


def _read_medium(spec: str, modality: str | None) -> Media:
    from ibllm_tools.media import Media

    path, own, weight = split_file(spec)
    sensed: Any = own or modality
    if path != STDIN:
        return Media.from_path(path, modality=sensed, weight=weight)
    data = sys.stdin.buffer.read()
    return Media.from_bytes(data, modality=sensed, weight=weight, name="standard input")


def load_media(media: Sequence[Media]) -> list[Item]:
    """Decode media under the default policy.

    Raises:
        MediaError: A medium cannot be decoded.
    """
    from ibllm_tools.media import load

    return [load(medium) for medium in media]
