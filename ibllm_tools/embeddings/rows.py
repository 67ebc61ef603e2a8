"""What a row of media may be, and the content blocks that it stands for. Decodes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeAlias, cast

from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media, MediaPolicy, Modality
from ibllm_tools.media.blocks import locate


@dataclass(frozen=True)
class MediaFile:
    """A file that is read only when its turn comes, unlike a `Media`.

    Attributes:
        path: The file; opened, because the calling code names it.
        modality: What to sense it as; by default, what its content is.
        weight: Its weight in a mix.
    """

    path: str | os.PathLike[str]
    modality: Modality | None = None
    weight: float = 1.0


Medium: TypeAlias = Mapping[str, Any] | MediaFile | str | os.PathLike[str]
"""A `Media` or another content block, a file, or a URL that the policy allows."""

Row: TypeAlias = Medium | tuple[Medium, float] | Sequence[Medium | tuple[Medium, float]]
"""One medium, one with its weight, or a mixture of several."""

Query: TypeAlias = Row
"""A row in which a `str` is always a text, never a path: it may come from a user or an agent."""


def entries_of(row: Row) -> list[Medium | tuple[Medium, float]]:
    """List what is mixed in a row.

    Raises:
        MediaError: The row is empty or no row at all.
    """
    if is_medium(row) or _is_weighted(row):
        return [cast("Any", row)]
    if not isinstance(row, Sequence):
        raise MediaError(
            f"a row is of type {type(row).__name__}; expected a medium, (medium, weight) or a list"
        )
    if not row:
        raise MediaError("a row has no media; expected one or more; leave the row out")
    return list(cast("Sequence[Any]", row))


def entry_block(entry: Medium | tuple[Medium, float], policy: MediaPolicy) -> Mapping[str, Any]:
    """Return the content block of one entry of a row; a file is read.

    Raises:
        MediaError: The entry is no medium, or its file cannot be read.
    """
    if not _is_weighted(entry):
        return medium_block(cast("Medium", entry), policy)
    medium, weight = cast("tuple[Medium, float]", entry)
    block = medium_block(medium, policy)
    return {**block, "extras": {**block.get("extras", {}), "weight": weight}}


def medium_block(
    medium: Medium, policy: MediaPolicy, modality: Modality | None = None
) -> Mapping[str, Any]:
    """Return the content block of a medium; a file is read.

    Raises:
        MediaError: It is no medium, or its file cannot be read.
    """
    if isinstance(medium, Mapping):
        return medium
    if isinstance(medium, str) and is_url(medium):
        return {"type": modality or "file", "url": medium}
    if isinstance(medium, MediaFile):
        return Media.from_path(
            medium.path, modality=medium.modality, weight=medium.weight, policy=policy
        )
    if not isinstance(medium, (str, os.PathLike)):
        raise MediaError(
            f"found {type(medium).__name__} in a row; expected a content block, a path or a URL"
        )
    return Media.from_path(medium, modality=modality, policy=policy)


def query_row(query: Query) -> Row:
    """Turn a query into a row of media: every `str` in it becomes a text to be sensed.

    Raises:
        MediaError: The query is empty, or holds an empty text.
    """
    return [_query_entry(entry) for entry in entries_of(query)]


def _query_entry(entry: Medium | tuple[Medium, float]) -> Medium | tuple[Medium, float]:
    if isinstance(entry, str):
        return Media.from_text(entry)
    if _is_weighted(entry):
        medium, weight = cast("tuple[Medium, float]", entry)
        return (Media.from_text(medium), weight) if isinstance(medium, str) else (medium, weight)
    return entry


def row_source(row: Row) -> str | list[str] | None:
    """Tell where a row's media come from: paths or URLs; one for one medium; None if unknown."""
    found = [_source(entry) for entry in entries_of(row)]
    named = [source for source in found if source]
    return named[0] if named and len(found) == 1 else named or None


def row_name(row: Row) -> str:
    """Name a row for people: its media's names, joined by " + "."""
    return " + ".join(_name(entry) for entry in entries_of(row))


def _medium_of(entry: Medium | tuple[Medium, float]) -> Medium:
    return cast("tuple[Medium, float]", entry)[0] if _is_weighted(entry) else cast("Medium", entry)


def _source(entry: Medium | tuple[Medium, float]) -> str | None:
    medium = _medium_of(entry)
    if isinstance(medium, MediaFile):
        return os.fspath(medium.path)
    if isinstance(medium, Mapping):
        located = locate(medium)
        shown = located.where in {"url", "path"} and not str(located.value).startswith("data:")
        return str(located.value) if shown else None
    source = os.fspath(medium)
    return None if source.startswith("data:") else source


def _name(entry: Medium | tuple[Medium, float]) -> str:
    medium, source = _medium_of(entry), _source(entry)
    if isinstance(medium, Mapping):
        located = locate(medium)
        return str(located.value) if located.where == "text" else located.name
    return PurePath(source).name if source else "medium"


def is_url(text: str) -> bool:
    """Tell a URL from a path."""
    return text.startswith("data:") or "://" in text


def is_medium(row: object) -> bool:
    """Tell a single medium from a row of several."""
    return isinstance(row, (Mapping, MediaFile, str, os.PathLike))


def _is_weighted(row: object) -> bool:
    if not isinstance(row, tuple) or len(row) != 2:
        return False
    return is_medium(row[0]) and isinstance(row[1], (int, float))
