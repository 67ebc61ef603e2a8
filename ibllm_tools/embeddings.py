"""`ImageBindEmbeddings`: text, pictures, sounds, shapes and their mixtures in one vector space.

```
texts or media -> rows of items -> senses.embed, batch by batch -> unit vectors as Python floats
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media, MediaPolicy, Text, load

if TYPE_CHECKING:
    from ibllm_tools.engine import Senses
    from ibllm_tools.media import Item, Modality

Medium: TypeAlias = Mapping[str, Any] | str | os.PathLike[str]
"""A `Media` or another content block, the path of a file, or a URL that the policy allows."""

Row: TypeAlias = Medium | tuple[Medium, float] | Sequence[Medium | tuple[Medium, float]]
"""One medium, one with its weight, or a mixture of several."""

Vectors: TypeAlias = list[list[float]]


class ImageBindEmbeddings(BaseModel, Embeddings):
    """Embeddings of any modality in one space, so that a sound finds a picture.

    Every vector has length 1. Weights are read at the first call, and only those of the
    encoder trunks that the media need.

    Setup:
        Nothing to set up: `pocket`, a miniature model, comes with the package.

    Key init args:
        model: "pocket", a model folder, an encoder folder, or a Hugging Face hub id.
        device, dtype: Where and in which precision to run; see `ChatImageBindLLM`.
        batch_size: Rows per forward call.
        media_policy: Limits on media, and which folders and hosts a block may name.

    Instantiate:
        ```python
        from ibllm_tools import ImageBindEmbeddings

        embeddings = ImageBindEmbeddings()
        ```

    Embed texts:
        ```python
        vectors = embeddings.embed_documents(["dog", "sea"])
        ```

    Embed media and mixtures:
        ```python
        photo, sound, mixture = embeddings.embed_media(
            ["dog.jpg", "sea.ogg", [("dog.jpg", 0.5), ("sea.ogg", 0.5)]]
        )
        ```

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
        return self._embed([[Text(text=text)] for text in texts])

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
        return self._embed(rows, self._items)

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        """Embed pictures by path or URL: the convention that LangChain's vector stores look for."""
        return self.embed_media([self._block(uri, modality="image") for uri in uris])

    async def aembed_media(self, rows: Sequence[Row]) -> list[list[float]]:
        """Embed media in an executor thread; see `embed_media`."""
        return await run_in_executor(None, self.embed_media, rows)

    def _embed(self, rows: Sequence[Any], items: Callable[[Any], list[Item]] = list) -> Vectors:
        vectors: Vectors = []
        for start in range(0, len(rows), self.batch_size):
            # Read batch by batch, so that the media of one batch at a time are in memory.
            batch = [items(row) for row in rows[start : start + self.batch_size]]
            vectors.extend(self._senses().embed(batch).tolist())
        return vectors

    def _senses(self) -> Senses:
        from ibllm_tools.engine import open_senses

        return open_senses(self.model, device=self.device, dtype=self.dtype)

    def _items(self, row: Row) -> list[Item]:
        entries = [row] if _is_medium(row) or _is_weighted(row) else list(cast("Any", row))
        if not entries:
            raise MediaError("a row has no media; expected one or more; leave the row out")
        return [load(self._entry_block(entry), self.media_policy) for entry in entries]

    def _entry_block(self, entry: Any) -> Mapping[str, Any]:
        if not _is_weighted(entry):
            return self._block(entry)
        block = self._block(entry[0])
        return {**block, "extras": {**block.get("extras", {}), "weight": entry[1]}}

    def _block(self, medium: Medium, modality: Modality | None = None) -> Mapping[str, Any]:
        if isinstance(medium, Mapping):
            return medium
        if isinstance(medium, str) and (medium.startswith("data:") or "://" in medium):
            return {"type": modality or "file", "url": medium}
        return Media.from_path(medium, modality=modality, policy=self.media_policy)


def _is_medium(row: object) -> bool:
    return isinstance(row, (Mapping, str, os.PathLike))


def _is_weighted(row: object) -> bool:
    if not isinstance(row, tuple) or len(row) != 2:
        return False
    return _is_medium(row[0]) and isinstance(row[1], (int, float))
