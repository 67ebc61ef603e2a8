"""`/v1/embeddings`: texts, media and mixtures of them in one space."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

from ibllm_tools.embeddings import ImageBindEmbeddings
from ibllm_tools.embeddings.rows import query_row
from ibllm_tools.serving.conversation import to_block
from ibllm_tools.serving.problems import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from ibllm_tools.serving.replies import Embedding, EmbeddingList
    from ibllm_tools.serving.settings import ServeSettings
    from ibllm_tools.serving.wire import EmbeddingRequest, Part


class EmbeddingModel:
    """The encoder of one model that is served; loads at its first use."""

    def __init__(self, name: str, source: str, settings: ServeSettings) -> None:
        self.name = name
        self._embeddings = ImageBindEmbeddings(
            model=source,
            device=settings.device,
            dtype=settings.dtype,
            media_policy=settings.policy,
        )

    def embed(self, asked: EmbeddingRequest, stop: Event) -> EmbeddingList:
        """Embed all inputs; takes a while, so call it in a thread.

        Args:
            asked: The request.
            stop: When set, nobody waits any more, and what is left is not embedded.

        Raises:
            ApiError: An input is none, or the dimensions cannot be had.
            MediaError: A medium cannot be read or is not allowed.
        """
        rows = [[_entry_of(part) for part in _parts(one)] for one in _inputs(asked)]
        vectors: list[list[float]] = []
        for found in self._embeddings.iter_rows([query_row(row) for row in rows]):
            if isinstance(found, Exception):
                raise found
            vectors.append(found.vector)
            if len(vectors) == 1:
                _check_dimensions(asked.dimensions, len(found.vector))
            if stop.is_set():
                break
        n_tokens = sum(self._count(row) for row in rows)
        return {
            "object": "list",
            "data": [
                _entry(index, vector, asked.encoding_format) for index, vector in enumerate(vectors)
            ],
            "model": self.name,
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }

    def _count(self, row: Sequence[Any]) -> int:
        """Tokens of the texts in a row that the encoder reads."""
        from ibllm_tools.engine import open_senses
        from ibllm_tools.preprocess.text import clip_tokenizer

        own = self._embeddings
        config = open_senses(own.model, own.device, own.dtype).config
        tokenizer, longest = clip_tokenizer(config.text_merges), config.text_context
        texts = [part if isinstance(part, str) else part.get("text") for part in row]
        return sum(min(len(tokenizer.encode(text)) + 2, longest) for text in texts if text)


def _inputs(asked: EmbeddingRequest) -> Sequence[Any]:
    return asked.input if isinstance(asked.input, list) else [asked.input]


def _parts(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _entry_of(part: str | Part) -> Any:
    """A part of an input, as a query's: there a `str` is always a text and names no file."""
    if isinstance(part, str):
        return part
    if part.type == "refusal":
        return part.refusal
    if part.type == "text" and part.modality is None:
        part = part.model_copy(update={"modality": "text"})
    block = to_block(part)
    return block["value"] if block.get("type") == "non_standard" else block


def _check_dimensions(wanted: int | None, held: int) -> None:
    if wanted is not None and wanted != held:
        raise invalid(
            f"found dimensions {wanted}; this model's vectors have {held}, and cutting them off "
            "would break them; leave dimensions out",
            "dimensions",
        )


def _entry(index: int, vector: list[float], encoding: str | None) -> Embedding:
    given: Any = vector
    if encoding == "base64":
        given = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return {"object": "embedding", "index": index, "embedding": given}
