"""`ImageBindVectorStore`: documents and media of any modality, found by any modality."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from langchain_core.documents import Document
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore

from ibllm_tools.embeddings import ImageBindEmbeddings, Query, Row
from ibllm_tools.vectorstores.collection import Collection, Hit, diversify
from ibllm_tools.vectorstores.filters import Filter, matcher
from ibllm_tools.vectorstores.identity import identify, require_same
from ibllm_tools.vectorstores.queries import aquery_vector, media_embeddings, query_vector
from ibllm_tools.vectorstores.records import Record, media_records_of, records_of
from ibllm_tools.vectorstores.storage import read_store, write_store

if TYPE_CHECKING:
    import os

    from langchain_core.embeddings import Embeddings

    from ibllm_tools.embeddings.batches import Embedded

Scored = tuple[Document, float]


class ImageBindVectorStore(VectorStore):
    """Documents and media in one vector space: find a photo by a sound, a text by a shape.

    Search is exact (FAISS, inner product of unit vectors); a score is the cosine similarity, from
    -1 to 1, higher is better. Safe to use from several threads: a change is seen whole or not at
    all. Async methods embed and search outside the event loop.

    Setup:
        Nothing to set up: `pocket`, a miniature model, comes with the package.

    Key init args:
        embedding: `ImageBindEmbeddings()` by default. Others work too, for texts only.

    Instantiate:
        ```python
        from ibllm_tools import ImageBindVectorStore

        store = ImageBindVectorStore()
        ```

    Add and delete:
        ```python
        store.add_texts(["the sea on a windy day"], ids=["note"])
        store.add_media(["dog.jpg", "car.ply", "sea.ogg"], ids=["dog", "car", "sea"])
        store.delete(["note"])
        ```
        An id that is there already is replaced. The metadata of a medium say its `modality` and
        its `source`.

    Search:
        ```python
        from pathlib import Path

        found = store.similarity_search("waves", k=2, filter={"modality": "audio"})
        for document, score in store.similarity_search_with_score(Path("dog.ogg"), k=2):
            print(score, document.metadata["source"])
        ```
        A `str` is a text, whoever it comes from; a `Path`, a `Media` or a list of these, each
        with or without a weight, is a medium.

    Save and load:
        ```python
        store.save_local("index")
        store = ImageBindVectorStore.load_local("index")
        ```
        One file, replaced as a whole; nothing is pickled. A store of another encoder is refused.

    Use as a retriever:
        ```python
        retriever = store.as_retriever(search_kwargs={"k": 2})
        print(retriever.invoke("a dog"))
        ```
        `ImageBindRetriever` takes media as well, and `k` at each call.
    """

    def __init__(self, embedding: Embeddings | None = None) -> None:
        """Make an empty store that embeds with `embedding`."""
        self._embedding: Embeddings = ImageBindEmbeddings() if embedding is None else embedding
        self._collection = Collection()

    @property
    def embeddings(self) -> Embeddings:
        """What embeds documents and queries."""
        return self._embedding

    @property
    def count(self) -> int:
        """Number of documents."""
        return len(self._collection)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,  # noqa: ARG002 - the interface's
    ) -> list[str]:
        """Add texts, or replace those whose id is there already.

        Args:
            texts: The texts.
            metadatas: One dict per text.
            ids: One per text; None, or a None in it, makes a new one.
            kwargs: Ignored.

        Returns:
            The id of each text.

        Raises:
            ConfigurationError: The lists differ in length.
        """
        records = records_of(list(texts), metadatas, ids)
        return self._put(records, self._embedding.embed_documents([r.text for r in records]))

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,  # noqa: ARG002 - the interface's
    ) -> list[str]:
        """Add texts; see `add_texts`. When this is cancelled, none is added."""
        records = records_of(list(texts), metadatas, ids)
        vectors = await self._embedding.aembed_documents([r.text for r in records])
        return await run_in_executor(None, self._put, records, vectors)

    def add_media(
        self,
        media: Sequence[Row],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        texts: Sequence[str] | None = None,
        ids: list[str] | None = None,
    ) -> list[str]:
        """Add media of any modality, or mixtures.

        Args:
            media: Rows as for `ImageBindEmbeddings.embed_media`: paths, `Media`, other content
                blocks, URLs that the policy allows, or lists of these with or without weights.
            metadatas: One dict per row; `modality` and `source` are filled in.
            texts: What each document says, such as a caption; the medium's name by default.
                It is not embedded.
            ids: One per row; None, or a None in it, makes a new one.

        Returns:
            The id of each row.

        Raises:
            MediaError: A medium cannot be read; then none is added.
            ConfigurationError: The lists differ in length, or the embeddings take texts only.
        """
        records = media_records_of(media, metadatas, texts, ids)
        return self._put_media(records, media_embeddings(self._embedding).embed_rows(media))

    async def aadd_media(
        self,
        media: Sequence[Row],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        texts: Sequence[str] | None = None,
        ids: list[str] | None = None,
    ) -> list[str]:
        """Add media; see `add_media`. When this is cancelled, none is added."""
        records = media_records_of(media, metadatas, texts, ids)
        embedded = await media_embeddings(self._embedding).aembed_rows(media)
        return await run_in_executor(None, self._put_media, records, embedded)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:  # noqa: ARG002
        """Delete documents; ids that are not there are passed over. None deletes all."""
        self._collection.remove(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of ids, in their order, without those that are not there."""
        return self._collection.get(ids)

    def documents(self, filter: Filter | None = None) -> list[Document]:  # noqa: A002
        """Return all documents that fit the filter, in the order in which they were added."""
        return self._collection.documents(matcher(filter))

    def similarity_search(
        self,
        query: Query,
        k: int = 4,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,  # noqa: ARG002 - the interface's
    ) -> list[Document]:
        """Find the k documents that are most similar; see `similarity_search_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter)]

    def similarity_search_with_score(
        self,
        query: Query,
        k: int = 4,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,  # noqa: ARG002 - the interface's
    ) -> list[Scored]:
        """Find the k documents that are most similar, and their cosine similarity, best first.

        Args:
            query: A text (any `str`), a `Path`, a `Media` or other content block, or a list of
                these, each with or without a weight.
            k: At most so many.
            filter: Metadata that must be equal (a list: one of them), or a function that takes a
                document. As many of the others as asked for are found.
            kwargs: Ignored.

        Raises:
            MediaError: A medium of the query cannot be read.
            ConfigurationError: The query is a medium, and the embeddings take texts only.
        """
        return _scored(self._search(query_vector(self._embedding, query), k, filter))

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,  # noqa: ARG002 - the interface's
    ) -> list[Document]:
        """Find the k documents that are most similar to a vector."""
        return [hit.document for hit in self._search(embedding, k, filter)]

    def similarity_search_with_score_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
    ) -> list[Scored]:
        """Find the k documents that are most similar to a vector, and their similarity."""
        return _scored(self._search(embedding, k, filter))

    def max_marginal_relevance_search(
        self,
        query: Query,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,
    ) -> list[Document]:
        """Find k documents that are similar to the query and unlike each other.

        Args:
            query: As for `similarity_search_with_score`.
            k: At most so many.
            fetch_k: They are chosen from so many most similar ones.
            lambda_mult: 1 for similarity only, 0 for difference only.
            filter: As for `similarity_search_with_score`.
            kwargs: Ignored.
        """
        return self.max_marginal_relevance_search_by_vector(
            query_vector(self._embedding, query), k, fetch_k, lambda_mult, filter, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,  # noqa: A002 - LangChain's name
        **kwargs: Any,  # noqa: ARG002 - the interface's
    ) -> list[Document]:
        """Find k documents near a vector; see `max_marginal_relevance_search`."""
        hits = self._search(embedding, max(k, fetch_k), filter)
        return [hit.document for hit in diversify(embedding, hits, k, lambda_mult)]

    # the same outside the event loop

    async def asimilarity_search(self, query: Query, k: int = 4, **kwargs: Any) -> list[Document]:
        """Find documents outside the event loop; see `similarity_search`."""
        return [found for found, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search_with_score(
        self, query: Query, k: int = 4, **kwargs: Any
    ) -> list[Scored]:
        """Find documents outside the event loop; see `similarity_search_with_score`."""
        vector = await aquery_vector(self._embedding, query)
        hits = await run_in_executor(None, self._search, vector, k, kwargs.get("filter"))
        return _scored(hits)

    async def amax_marginal_relevance_search(
        self,
        query: Query,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Find documents outside the event loop; see `max_marginal_relevance_search`."""
        search = self.max_marginal_relevance_search_by_vector
        vector = await aquery_vector(self._embedding, query)
        return await run_in_executor(None, search, vector, k, fetch_k, lambda_mult, **kwargs)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of texts; see `add_texts`."""
        store = cls(embedding)
        store.add_texts(texts, metadatas, ids=ids, **kwargs)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of texts outside the event loop; see `add_texts`."""
        store = cls(embedding)
        await store.aadd_texts(texts, metadatas, ids=ids, **kwargs)
        return store

    @classmethod
    def from_media(
        cls, media: Sequence[Row], embedding: Embeddings | None = None, **kwargs: Any
    ) -> Self:
        """Make a store of media; see `add_media`."""
        store = cls(embedding)
        store.add_media(media, **kwargs)
        return store

    def save_local(self, folder_path: str | os.PathLike[str]) -> None:
        """Write the store to a folder, as one file that takes the place of the old one at once.

        Raises:
            ConfigurationError: A document's metadata hold what JSON cannot.
        """
        records, vectors = self._collection.snapshot()
        write_store(Path(folder_path), identify(self._embedding), records, vectors)

    @classmethod
    def load_local(
        cls, folder_path: str | os.PathLike[str], embeddings: Embeddings | None = None
    ) -> Self:
        """Read what `save_local` wrote.

        Args:
            folder_path: The folder.
            embeddings: Those that the store was made with; `ImageBindEmbeddings()` by default.

        Raises:
            CheckpointError: There is no store, it is damaged, or another encoder made it.
        """
        store = cls(embeddings)
        encoder, records, vectors = read_store(Path(folder_path))
        require_same(Path(folder_path), encoder, store.embeddings)
        store._collection.put(records, vectors)
        return store

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """From 0, nothing in common or opposite, to 1, the same: the cosine, cut at 0."""
        return lambda cosine: min(1.0, max(0.0, cosine))

    def _put(self, records: list[Record], vectors: list[list[float]]) -> list[str]:
        self._collection.put(records, vectors)
        return [record.id for record in records]

    def _put_media(self, records: list[Record], embedded: Sequence[Embedded]) -> list[str]:
        for record, found in zip(records, embedded, strict=True):
            record.metadata.setdefault("modality", "+".join(dict.fromkeys(found.modalities)))
        return self._put(records, [found.vector for found in embedded])

    def _search(self, vector: list[float], k: int, filter: Filter | None) -> list[Hit]:  # noqa: A002
        return self._collection.search(vector, k, matcher(filter))


def _scored(hits: list[Hit]) -> list[Scored]:
    return [(hit.document, hit.score) for hit in hits]
