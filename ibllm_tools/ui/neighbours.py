"""What the visual cache pulls in for media: its nearest pictures, named by the nearest concept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ibllm_tools.checkpoints import POCKET_FOLDER, find_folder

if TYPE_CHECKING:
    from torch import Tensor

    from ibllm_tools.cache import CacheSettings, VisualCache
    from ibllm_tools.media import Media, MediaPolicy

CONCEPTS = "concepts.json"
N_SHOWN = 5
_BAR_CELLS = 8


@dataclass(frozen=True)
class Neighbour:
    """One picture of the cache.

    Attributes:
        names: What it looks like, by language: the concept whose text embedding is nearest.
        similarity: Cosine of the angle to what was sensed.
        share: Its part of what is blended in, 0 to 1.
    """

    names: dict[str, str]
    similarity: float
    share: float


@dataclass(frozen=True)
class Sensor:
    """A model whose cache is looked into.

    Attributes:
        model: "pocket", a folder, or a hub id.
        device: As in torch.
        dtype: As a text.
    """

    model: str
    device: str | None = None
    dtype: str | None = None

    def cache(self) -> VisualCache | None:
        """The model's own cache, if it has one."""
        cache: VisualCache | None = self._model().cache
        return cache

    def settings(self) -> CacheSettings:
        """The cache's settings as the model's folder has them."""
        from ibllm_tools.model.sensing import cache_settings

        return cache_settings(self._model().config)

    def on_by_default(self) -> bool:
        """Whether the model uses its cache where nothing is said."""
        return bool(self._model().config.use_cache_by_default)

    def look(
        self, media: Sequence[Media], settings: CacheSettings, policy: MediaPolicy
    ) -> list[tuple[str, list[Neighbour]]]:
        """Find the pictures that an answer about `media` is pulled towards.

        Args:
            media: What is asked about.
            settings: The cache's, as the answer has them.
            policy: Limits on decoding.

        Returns:
            The name of each query, and its neighbours, nearest first: every medium is one, or
            the mixture, as the model blends them. Empty without a cache.
        """
        import torch

        from ibllm_tools.embeddings import ImageBindEmbeddings

        cache = self.cache()
        if cache is None or not media:
            return []
        embeddings = ImageBindEmbeddings(
            model=self.model, device=self.device, dtype=self.dtype, media_policy=policy
        )
        apart = bool(self._model().config.cache_before_mixing)
        rows = [[medium] for medium in media] if apart else [list(media)]
        queries = torch.tensor(embeddings.embed_media(rows))
        similarities, _, vectors = cache.search(queries, settings.k)
        names, concepts = _concepts(self)
        nearest = (vectors @ concepts.T).argmax(dim=-1)  # (B, k)
        found = []
        for row, query in enumerate(rows):
            shares = _shares(similarities[row], settings)
            hits = [
                Neighbour(names[int(place)], float(near), float(share))
                for place, near, share in zip(nearest[row], similarities[row], shares, strict=True)
                if near > -torch.inf  # a compressed cache may find fewer
            ]
            found.append((" + ".join(medium.name for medium in query), hits))
        return found

    def _model(self) -> Any:
        from ibllm_tools.engine import open_engine

        return open_engine(self.model, device=self.device, dtype=self.dtype).model


def _shares(similarities: Tensor, settings: CacheSettings) -> Tensor:
    """How the retrieved vectors are weighted, (k,); see `VisualCache.blend`."""
    if settings.form == "code":
        return (settings.temperature * similarities).softmax(dim=-1)
    weights = similarities.masked_fill(similarities.isinf(), 0.0)
    shares: Tensor = weights / weights.abs().sum().clamp_min(1e-9)
    return shares


@lru_cache(maxsize=4)
def _concepts(sensor: Sensor) -> tuple[list[dict[str, str]], Tensor]:
    """The names of concepts, and the embeddings (C, D) of their English ones."""
    import torch

    from ibllm_tools.embeddings import ImageBindEmbeddings

    folders = [folder for folder in (find_folder(sensor.model), POCKET_FOLDER) if folder]
    path = next(folder / CONCEPTS for folder in folders if (folder / CONCEPTS).is_file())
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = [{"en": row["name"], "zh": row.get("name_zh") or row["name"]} for row in rows]
    embeddings = ImageBindEmbeddings(model=sensor.model, device=sensor.device, dtype=sensor.dtype)
    return names, torch.tensor(embeddings.embed_documents([name["en"] for name in names]))


def as_markdown(
    found: Sequence[tuple[str, Sequence[Neighbour]]], words: dict[str, str], language: str
) -> str:
    """Tables of the nearest neighbours, one for each query."""
    tables = []
    for name, hits in found:
        rows = [
            f"| {_cell(hit.names.get(language, hit.names['en']))} "
            f"| {hit.similarity:.2f} | {_bar(hit.share)} {hit.share:.0%} |"
            for hit in hits[:N_SHOWN]
        ]
        more = [f"| … +{len(hits) - N_SHOWN} | | |"] if len(hits) > N_SHOWN else []
        head = f"| {words['looks_like']} | {words['similarity']} | {words['share']} |"
        tables.append("\n".join([f"**{_cell(name)}**\n", head, "|:--|--:|:--|", *rows, *more]))
    return "\n\n".join(tables)


def _bar(share: float) -> str:
    full = round(share * _BAR_CELLS)
    return "█" * full + "░" * (_BAR_CELLS - full)


def _cell(text: str) -> str:
    """A text that stays in its cell."""
    return "".join(" " if c in "|\r\n" else f"\\{c}" if c in "\\`*_[]<>" else c for c in text)
