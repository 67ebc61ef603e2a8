"""What the rows of stages 1 and 2 see: single things, mixes of two, and nothing known.

Sounds and shapes lie near photos and words, not on them, and stages 1 and 2 never see any.
Photos therefore stray, some single things are drawn between a concept's photos and its words,
and most rows are blended by the visual cache, which pulls every modality to the photos. Mixes
are not normalised, as at inference.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.cache import CacheSettings, VisualCache
from ibllm_tools.train.augment import uniform
from ibllm_tools.train.photo_features import PhotoFeatures, encode_photos

__all__ = ["FeatureNoise", "FeatureSource", "PhotoFeatures", "encode_photos", "faint"]
EVEN = (0.36, 0.64)
UNEVEN = (0.8, 0.95)


def faint(concept: int) -> int:
    """Write the second concept of a mix so that it is too faint to be named."""
    return -2 - concept


@dataclass(frozen=True)
class FeatureNoise:
    """How far drawn features stray from their photos.

    Attributes:
        spread: Largest length of the random vector added to a unit feature.
        stray: Largest share of another photo's feature that is mixed in.
        gap: Share of single things that are drawn between photos and words, as sounds and
            shapes lie.
        gap_spread: Largest length of the random vector added to these.
        gap_stray: Largest share of another concept mixed into these.
        blended: Share of batches that the visual cache blends, with settings drawn at random.
    """

    spread: float = 0.7
    stray: float = 0.2
    gap: float = 0.2
    gap_spread: float = 0.7
    gap_stray: float = 0.2
    blended: float = 0.55


class FeatureSource:
    """Draws features for rows that say which concepts they show."""

    def __init__(
        self,
        features: PhotoFeatures,
        cache: VisualCache,
        noise: FeatureNoise | None = None,
        *,
        blend_each: bool = True,
    ) -> None:
        """Sort the photos by concept.

        Args:
            features: What was encoded.
            cache: The visual cache.
            noise: How far rows stray.
            blend_each: The cache blends each medium before they are mixed (as pocket does);
                False blends the mix (as the released program does).
        """
        self.features, self.cache, self.blend_each = features, cache, blend_each
        self.noise = noise or FeatureNoise()
        concepts = features.concept
        self.rows = {int(c): torch.nonzero(concepts == c)[:, 0] for c in set(concepts.tolist())}
        self._anchors = self._find_anchors()
        self._worded = self._anchors.abs().sum(dim=(0, 2)) > 0  # (C,)

    def _find_anchors(self) -> Tensor:
        """Points that stand for each concept: (A, C, joint); its mean photo, then its texts."""
        views, words = self.features.views[0], self.features.words
        count = max(words.shape[1] if words.numel() else 0, 1 + max(self.rows))
        means = torch.zeros(count, views.shape[-1])
        for concept, mine in self.rows.items():
            means[concept] = F.normalize(views[mine].mean(0), dim=-1)
        if not words.numel():
            return means[None]
        absent = means.abs().sum(-1, keepdim=True) == 0
        means = torch.where(absent, F.normalize(words.mean(0), dim=-1), means)
        return torch.cat([means[None], words])

    @property
    def concepts(self) -> list[int]:
        """Concepts that rows can show: with photos, or with words alone."""
        found: list[int] = torch.nonzero(self._worded)[:, 0].tolist()
        return found

    def draw(self, shown: Tensor, rng: random.Random) -> Tensor:
        """Draw one feature a row.

        Args:
            shown: (B, 2) concept ids. (-1, -1) shows nothing known; a second id of -1 shows one
                thing, of `faint(c)` a second thing that is hardly there.
            rng: Chooses the photos.

        Returns:
            (B, joint): unit vectors, shorter where two are mixed.
        """
        generator = np.random.default_rng(rng.getrandbits(32))
        second_ids = torch.where(shown[:, 1] <= -2, -2 - shown[:, 1], shown[:, 1])
        first = self._single(shown[:, 0], generator)
        second = self._single(second_ids, generator)
        blend = self._draw_blend(rng)
        if self.blend_each:
            first, second = blend(first), blend(second)
        n = len(shown)
        share = torch.where(shown[:, 1:] <= -2, uniform(n, *UNEVEN, 1), uniform(n, *EVEN, 1))
        mixed = share * first + (1 - share) * second
        features = torch.where(second_ids[:, None] >= 0, mixed, first)
        return features if self.blend_each else blend(features)

    def _draw_blend(self, rng: random.Random) -> Callable[[Tensor], Tensor]:
        """Blend with the cache under settings drawn at random, or not at all."""
        settings = CacheSettings(
            k=rng.choice((5, 10, 30)),
            temperature=rng.choice((10.0, 20.0)),
            weight=rng.choice((0.3, 0.5, 0.7, 0.9)),
        )
        if rng.random() >= self.noise.blended:
            return lambda x: x
        return lambda x: self.cache.blend(x, settings)

    def _single(self, concepts: Tensor, generator: np.random.Generator) -> Tensor:
        n = len(concepts)
        seen = self._photos(concepts, generator)
        near = self._between(concepts, generator)
        has_photos = torch.tensor([c in self.rows for c in concepts.tolist()])
        x = torch.where(
            (torch.rand(n) < self.noise.gap)[:, None] | ~has_photos[:, None], near, seen
        )
        return torch.where(concepts[:, None] >= 0, x, self._unknown(n, generator))

    def _photos(self, concepts: Tensor, generator: np.random.Generator) -> Tensor:
        """Photos of concepts with some noise: (B, joint)."""
        n_views, n_photos, _ = self.features.views.shape
        rows = torch.zeros(len(concepts), dtype=torch.long)
        for i, concept in enumerate(concepts.tolist()):
            if concept in self.rows:
                mine = self.rows[concept]
                rows[i] = mine[int(generator.integers(len(mine)))]
        x = self.features.views[_draw(generator, n_views, len(rows)), rows]
        other = self.features.views[0, _draw(generator, n_photos, len(x))]
        stray = uniform(len(x), 0.0, self.noise.stray, 1)
        return _push((1 - stray) * x + stray * other, self.noise.spread)

    def _between(self, concepts: Tensor, generator: np.random.Generator) -> Tensor:
        """Points between a concept's photos and words, and far out: (B, joint)."""
        n, (n_anchors, _, _) = len(concepts), self._anchors.shape
        known = concepts.clamp(min=0)
        text = self._anchors[_draw(generator, n_anchors, n), known]
        share = uniform(n, 0.0, 1.0, 1)
        x = F.normalize((1 - share) * self._anchors[0, known] + share * text, dim=-1)
        ids = torch.tensor(self.concepts)
        others = ids[_draw(generator, len(ids), n)]
        other = self._anchors[_draw(generator, n_anchors, n), others]
        stray = uniform(n, 0.0, self.noise.gap_stray, 1)
        return _push(F.normalize((1 - stray) * x + stray * other, dim=-1), self.noise.gap_spread)

    def _unknown(self, count: int, generator: np.random.Generator) -> Tensor:
        """Features that show nothing known, of five kinds: (B, joint)."""
        features = self.features
        tables = [features.nothing, features.collages, features.strangers]
        tables = [table if len(table) else features.nothing for table in tables]
        found = [table[_draw(generator, len(table), count)] for table in tables]
        n_parts = int(generator.integers(3, 7))
        n_photos = features.views.shape[1]
        parts = [features.views[0, _draw(generator, n_photos, count)] for _ in range(n_parts)]
        crowd = F.normalize(torch.stack(parts).mean(0), dim=-1)
        ids = torch.tensor(self.concepts)
        anchors = [
            self._anchors[_draw(generator, len(self._anchors), count),
                          ids[_draw(generator, len(ids), count)]]
            for _ in range(n_parts + 2)
        ]  # fmt: skip
        centre = _push(F.normalize(torch.stack(anchors).mean(0), dim=-1), self.noise.gap_spread)
        anywhere = F.normalize(torch.randn_like(crowd), dim=-1)
        kinds = torch.stack([_push(found[0], 0.2), found[1], _push(found[2], 0.3), crowd, centre,
                             anywhere])  # fmt: skip
        shares = torch.tensor([0.25, 0.12, 0.33, 0.1, 0.1, 0.1])
        return kinds[torch.multinomial(shares, count, replacement=True), torch.arange(count)]


def _push(x: Tensor, spread: float) -> Tensor:
    """Add a random vector of at most a length; return unit vectors."""
    push = F.normalize(torch.randn_like(x), dim=-1) * uniform(len(x), 0.0, spread, 1)
    return F.normalize(x + push, dim=-1)


def _draw(generator: np.random.Generator, top: int, count: int) -> Tensor:
    return torch.from_numpy(generator.integers(top, size=count))
