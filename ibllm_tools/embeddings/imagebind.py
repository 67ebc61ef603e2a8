"""`ImageBindEmbeddings`: LangChain's embeddings for texts, media and mixtures."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ibllm_tools.embeddings.rows import Row, entries_of, entry_block, medium_block, query_row
from ibllm_tools.media import MediaPolicy, Text, load

if TYPE_CHECKING:
    from ibllm_tools.embeddings.batches import Embedded
    from ibllm_tools.embeddings.rows import Query
    from ibllm_tools.engine import Senses
    from ibllm_tools.media import Item


class ImageBindEmbeddings(BaseModel, Embeddings):
    """Embeddings of any modality in one space, so that a sound finds a picture.

    Every vector has length 1. Weights are read at the first call, and only those of the
    encoder trunks that the media need.

    Setup:
        Nothing to set up: `pocket`, a miniature model, comes with the package.

    Key init args:
        model: "pocket", a model folder, an encoder folder, or a Hugging Face hub id.
        device, dtype: Where and in which precision to run; see `ChatImageBindLLM`.
        batch_size: Pictures per forward call; a sound or a video counts as its clips. Memory
            is bounded by this and not by the number of media.
        media_policy: Limits on media, and which folders and hosts a block may name.

    Instantiate:
        ```python
        from ibllm_tools import ImageBindEmbeddings

        embeddings = ImageBindEmbeddings()
        ```

    Embed texts:
        ```python
        vectors = embeddings.embed_documents(["dog", "sea"])
        vector = embeddings.embed_query("a dog by the sea")
        ```

    Embed media and mixtures:
        ```python
        photo, sound, mixture = embeddings.embed_media(
            ["dog.jpg", "sea.ogg", [("dog.jpg", 0.5), ("sea.ogg", 0.5)]]
        )
        ```

    Async:
        ```python
        import asyncio

        vectors = asyncio.run(embeddings.aembed_media(["dog.jpg", "sea.ogg"]))
        ```
        Work runs outside the event loop. A cancelled call returns at once; its thread stops
        at the next medium.

    Search:
        See `ImageBindVectorStore`.

    Source: ImageBind (Girdhar et al., 2023, arXiv 2305.05665).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = "pocket"
    device: str | None = None
    dtype: str | None = None
    batch_size: int = Field(default=32, ge=1)
    media_policy: MediaPolicy = Field(default_factory=MediaPolicy)

    @field_validator("model", mode="before")
    @classmethod
    def _accept_path(cls, model: object) -> object:
        return str(model) if isinstance(model, os.PathLike) else model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts with the encoder's text trunk.

        Args:
            texts: Of any length; the trunk reads the first tokens that fit its context.

        Returns:
            One unit vector per text.
        """
        return [found.vector for found in self._strictly(texts, _text, loaders=0)]

    def embed_query(self, text: str) -> list[float]:
        """Embed one text; the same as one of `embed_documents`."""
        return self.embed_documents([text])[0]

    def embed_media(self, rows: Sequence[Row]) -> list[list[float]]:
        """Embed media of any modality, and mixtures.

        Args:
            rows: Each row is a medium, `(medium, weight)`, or a list of these to be mixed. A
                medium is a `Media`, a content block, the path of a file (opened, because the
                calling code names it), or a URL (followed only if the policy lists its host).

        Returns:
            One unit vector per row.

        Raises:
            MediaError: A medium cannot be read, or a row has none.
        """
        return [found.vector for found in self.embed_rows(rows)]

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        """Embed pictures by path or URL: the convention that LangChain's vector stores look for.

        Raises:
            MediaError: One is no picture, or a URL that the policy does not list.
        """
        return [found.vector for found in self._strictly(uris, self._picture)]

    def embed_mixed_query(self, query: Query) -> list[float]:
        """Embed what someone searches by: a text, a medium, or a mixture.

        Args:
            query: A row as for `embed_media`, but every `str` is a text and opens nothing.

        Raises:
            MediaError: A medium cannot be read, or the query is empty.
        """
        if isinstance(query, str):
            return self.embed_query(query)
        return self.embed_media([query_row(query)])[0]

    def embed_rows(self, rows: Iterable[Row]) -> list[Embedded]:
        """Embed media as `embed_media` does, and tell what each was sensed as."""
        return self._strictly(rows, self._items)

    def iter_rows(self, rows: Iterable[Row]) -> Iterator[Embedded | Exception]:
        """Embed media as they are asked for; a row that cannot be read gives its error instead.

        Args:
            rows: As for `embed_media`; may be a generator.

        Yields:
            One result per row, in order.
        """
        yield from self._embed(rows, self._items)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts outside the event loop; see `embed_documents`."""
        return [found.vector for found in await self._astrictly(texts, _text, loaders=0)]

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text outside the event loop."""
        return (await self.aembed_documents([text]))[0]

    async def aembed_media(self, rows: Sequence[Row]) -> list[list[float]]:
        """Embed media outside the event loop; see `embed_media`."""
        return [found.vector for found in await self.aembed_rows(rows)]

    async def aembed_image(self, uris: list[str]) -> list[list[float]]:
        """Embed pictures outside the event loop; see `embed_image`."""
        return [found.vector for found in await self._astrictly(uris, self._picture)]

    async def aembed_mixed_query(self, query: Query) -> list[float]:
        """Embed a query outside the event loop; see `embed_mixed_query`."""
        if isinstance(query, str):
            return await self.aembed_query(query)
        return (await self.aembed_media([query_row(query)]))[0]

    async def aembed_rows(self, rows: Iterable[Row]) -> list[Embedded]:
        """Embed media outside the event loop; see `embed_rows`."""
        return await self._astrictly(rows, self._items)

    def fingerprint(self) -> str:
        """Tell this encoder from others: changes when its weights or preprocessing do.

        The same on every device and in every dtype.

        Raises:
            CheckpointError: There is no such model.
        """
        from ibllm_tools.data.store.identity import identify_encoder

        senses = self._senses()
        return identify_encoder(senses.encoder, senses.config).fingerprint

    async def _astrictly(
        self, rows: Iterable[Any], read: Callable[[Any], Iterable[Item]], loaders: int | None = None
    ) -> list[Embedded]:
        """Embed in an executor thread; when this is cancelled, the thread stops soon after."""
        stop = Event()
        try:
            return await run_in_executor(None, self._strictly, rows, read, loaders, stop)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _strictly(
        self,
        rows: Iterable[Any],
        read: Callable[[Any], Iterable[Item]],
        loaders: int | None = None,
        stop: Event | None = None,
    ) -> list[Embedded]:
        """Embed all rows; the first problem is raised."""
        vectors = []
        for found in self._embed(rows, read, loaders, stop):
            if isinstance(found, Exception):
                raise found
            vectors.append(found)
        return vectors

    def _embed(
        self,
        rows: Iterable[Any],
        read: Callable[[Any], Iterable[Item]],
        loaders: int | None = None,
        stop: Event | None = None,
    ) -> Iterator[Embedded | Exception]:
        if isinstance(rows, Sequence) and not rows:
            return
        from ibllm_tools.embeddings.batches import MAX_LOADERS, embed_rows

        if loaders is None:
            alone = isinstance(rows, Sequence) and len(rows) == 1
            loaders = 0 if alone else MAX_LOADERS
        size = self.batch_size
        yield from embed_rows(
            rows, read, self._senses(), batch_size=size, loaders=loaders, stop=stop
        )

    def _senses(self) -> Senses:
        from ibllm_tools.engine import open_senses

        return open_senses(self.model, device=self.device, dtype=self.dtype)

    def _items(self, row: Row) -> Iterator[Item]:
        """Open and decode the media of a row one by one."""
        for entry in entries_of(row):
            yield load(entry_block(entry, self.media_policy), self.media_policy)

    def _picture(self, uri: str) -> list[Item]:
        block: Mapping[str, Any] = medium_block(uri, self.media_policy, modality="image")
        return [load(block, self.media_policy)]


def _text(text: str) -> list[Item]:
    return [Text(text=text)]
