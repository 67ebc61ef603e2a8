"""`ImageBindRetriever`: documents and media of any modality, by a query of any modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from ibllm_tools.embeddings.rows import Query, query_row, row_name
from ibllm_tools.vectorstores import Filter, ImageBindVectorStore

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableConfig

K = 4


class _Named(str):
    """A query's name, which is what callbacks and traces get, with the query itself."""

    __slots__ = ("query",)
    query: Query


class ImageBindRetriever(BaseRetriever):
    """Find documents and media by a text, a photo, a sound, a shape, or a mixture.

    Key init args:
        vectorstore: Where to search.
        k: How many documents to return; also a keyword of `invoke`.
        filter: Metadata that must be equal, or a function; also a keyword of `invoke`.
        min_score: Leave out documents whose cosine similarity is lower; also a keyword.

    Instantiate:
        ```python
        from ibllm_tools import ImageBindRetriever, ImageBindVectorStore

        store = ImageBindVectorStore()
        store.add_media(["dog.jpg", "boat.jpg", "car.ply"])
        retriever = ImageBindRetriever(vectorstore=store, k=2)
        ```

    Retrieve:
        ```python
        from pathlib import Path

        print(retriever.invoke("a dog"))
        print(retriever.invoke(Path("sea.ogg"), k=1))
        print(retriever.invoke([(Path("dog.ogg"), 0.3), ("the sea", 0.7)]))
        ```
        A `str` is a text, never a path: it may come from a user or an agent. A `Path` is opened,
        because the calling code names it; a content block opens what the media policy of the
        embeddings allows.

    Use in a chain:
        See `examples/answer_from_found_media.py`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: ImageBindVectorStore
    k: int = Field(default=K, ge=1)
    filter: Any = None
    min_score: float | None = None

    def invoke(
        self,
        input: Query,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Find documents.

        Args:
            input: A text, a `Path`, a content block, or a list of these, each with or without
                a weight.
            config: As for every runnable.
            kwargs: `k`, `filter` or `min_score`, in place of the retriever's own.

        Raises:
            MediaError: A medium of the query cannot be read.
        """
        return super().invoke(_named(input), config, **kwargs)

    async def ainvoke(
        self,
        input: Query,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Find documents outside the event loop; see `invoke`."""
        return await super().ainvoke(_named(input), config, **kwargs)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the interface's
        k: int | None = None,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
        min_score: float | None = None,
    ) -> list[Document]:
        found = self.vectorstore.similarity_search_with_score(
            _query_of(query), self.k if k is None else k, filter or self.filter
        )
        return self._good_enough(found, min_score)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - the interface's
        k: int | None = None,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
        min_score: float | None = None,
    ) -> list[Document]:
        found = await self.vectorstore.asimilarity_search_with_score(
            _query_of(query), self.k if k is None else k, filter=filter or self.filter
        )
        return self._good_enough(found, min_score)

    def _good_enough(
        self, found: list[tuple[Document, float]], min_score: float | None
    ) -> list[Document]:
        least = self.min_score if min_score is None else min_score
        return [document for document, score in found if least is None or score >= least]


def _named(query: Query) -> str:
    if isinstance(query, str):
        return query
    named = _Named(row_name(query_row(query)))
    named.query = query
    return named


def _query_of(query: str) -> Query:
    return query.query if isinstance(query, _Named) else query
