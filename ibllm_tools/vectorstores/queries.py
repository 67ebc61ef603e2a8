"""From a query of any kind to its vector; embeddings of texts only refuse media."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from ibllm_tools.embeddings import ImageBindEmbeddings, Query


def media_embeddings(embeddings: Embeddings) -> ImageBindEmbeddings:
    """Return embeddings that take media.

    Raises:
        ConfigurationError: They take texts only.
    """
    if hasattr(embeddings, "embed_rows"):
        return cast("ImageBindEmbeddings", embeddings)
    raise ConfigurationError(
        f"found media, but {type(embeddings).__name__} embeds texts only; "
        "make the store with ImageBindEmbeddings()"
    )


def query_vector(embeddings: Embeddings, query: Query) -> list[float]:
    """Embed a query: a `str` as a text, anything else as media.

    Raises:
        MediaError: A medium cannot be read.
        ConfigurationError: It is a medium, and the embeddings take texts only.
    """
    if isinstance(query, str):
        return embeddings.embed_query(query)
    return media_embeddings(embeddings).embed_mixed_query(query)


async def aquery_vector(embeddings: Embeddings, query: Query) -> list[float]:
    """Embed a query outside the event loop; see `query_vector`."""
    if isinstance(query, str):
        return await embeddings.aembed_query(query)
    return await media_embeddings(embeddings).aembed_mixed_query(query)
