"""`Record`: a document as a store keeps it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from langchain_core.documents import Document

from ibllm_tools.embeddings import Row
from ibllm_tools.embeddings.rows import row_name, row_source
from ibllm_tools.errors import ConfigurationError


@dataclass(frozen=True)
class Record:
    """A stored document; never handed out itself, so that nobody can change it."""

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def document(self) -> Document:
        """Make a document of its own."""
        return Document(id=self.id, page_content=self.text, metadata=deepcopy(self.metadata))


def records_of(
    texts: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str | None] | None,
) -> list[Record]:
    """Make a record of each text, with an id of its own where none is given.

    Raises:
        ConfigurationError: The lists differ in length.
    """
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != len(texts):
            raise ConfigurationError(
                f"found {len(values)} {name} for {len(texts)} documents; expected one for each"
            )
    return [
        Record(
            id=str(ids[place] or uuid.uuid4()) if ids is not None else str(uuid.uuid4()),
            text=text,
            metadata=deepcopy(dict(metadatas[place])) if metadatas is not None else {},
        )
        for place, text in enumerate(texts)
    ]


def media_records_of(
    media: Sequence[Row],
    metadatas: Sequence[Mapping[str, Any]] | None,
    texts: Sequence[str] | None,
    ids: Sequence[str | None] | None,
) -> list[Record]:
    """Make a record of each row of media: its name as the text, its path or URL as `source`.

    Raises:
        ConfigurationError: The lists differ in length.
    """
    if texts is not None and len(texts) != len(media):
        raise ConfigurationError(
            f"found {len(texts)} texts for {len(media)} media; expected one for each"
        )
    records = records_of(texts or [row_name(row) for row in media], metadatas, ids)
    for record, row in zip(records, media, strict=True):
        source = row_source(row)
        if source is not None:
            record.metadata.setdefault("source", source)
    return records
