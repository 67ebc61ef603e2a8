"""Photo features for stages 1 and 2: encoded once, then drawn with noise.

The encoder is frozen, so every photo is encoded once in a few views. What a language model is
trained on is drawn from these: single photos, mixes of two, pictures of nothing. Noise widens
each photo's neighbourhood, since sounds and shapes lie near photos, not on them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.cache import CacheSettings, VisualCache
from ibllm_tools.encoder import ImageBind
from ibllm_tools.preprocess import PreprocessConfig
from ibllm_tools.preprocess.image import normalize_pixels
from ibllm_tools.train.augment import uniform, view_photos
from ibllm_tools.train.contrastive import clean_rows, encode_all
from ibllm_tools.train.data import Table

MILD_AREA = 0.6
BLINDLY_BLENDED = 0.5


@dataclass(frozen=True)
class PhotoFeatures:
    """Features of the training photos.

    Attributes:
        views: (V, N, joint) unit vectors; view 0 is without augmentation.
        concept: (N,) concept ids.
        nothing: (M, joint) features of pictures that show nothing.
    """

    views: Tensor
    concept: Tensor
    nothing: Tensor

    def cache_vectors(self, count: int, seed: int) -> Tensor:
        """Choose photo features for the visual cache, balanced over the concepts."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.concept), generator=generator)
        rank = torch.empty(len(order), dtype=torch.long)
        for concept in sorted(set(self.concept.tolist())):
            mine = order[self.concept[order] == concept]
            rank[mine] = torch.arange(len(mine))
        chosen = torch.argsort(rank, stable=True)[:count]
        return self.views[0, chosen.sort().values]


def encode_photos(
    encoder: ImageBind,
    photos: Table,
    config: PreprocessConfig,
    path: Path,
    n_views: int = 3,
    seed: int = 0,
) -> PhotoFeatures:
    """Encode all training photos in a few views, or read what an earlier call stored."""
    if path.is_file():
        return PhotoFeatures(**load_file(path))
    torch.manual_seed(seed)
    views = [encode_all(encoder, "image", lambda r: clean_rows(photos, r, config), len(photos))]

    def draw(rows: Tensor) -> Tensor:
        pixels = torch.from_numpy(photos.values[rows.numpy()])
        return view_photos(pixels, config, least_area=MILD_AREA)

    views += [encode_all(encoder, "image", draw, len(photos)) for _ in range(n_views - 1)]
    pictures = empty_pictures(512, config)
    nothing = encode_all(encoder, "image", lambda r: pictures[r], len(pictures))
    found = PhotoFeatures(torch.stack(views), torch.from_numpy(photos.concept), nothing)
    part = path.with_name(path.name + ".part")
    save_file({"views": found.views, "concept": found.concept, "nothing": nothing}, part)
    part.replace(path)
    return found


def empty_pictures(count: int, config: PreprocessConfig) -> Tensor:
    """Pictures that show nothing: flat colours, ramps, noise of several grains."""
    px = config.image_px
    flat = torch.rand(count, 1, 1, 3).expand(-1, px, px, -1)
    ramp = torch.linspace(0, 1, px).view(1, px, 1, 1)
    kinds = []
    for i in range(count):
        grain = (1, 2, 4, 8)[i % 4]
        noise = torch.rand(1, 3, px // grain, px // grain)
        noise = F.interpolate(noise, size=px).permute(0, 2, 3, 1)
        share = (0.0, 0.1, 0.5, 1.0)[(i // 4) % 4]
        picture = flat[i : i + 1] * (1 - share) + noise * share
        if (i // 16) % 3 == 0:
            picture = 0.5 * picture + 0.5 * ramp
        kinds.append(picture)
    return normalize_pixels((torch.cat(kinds) * 255).byte(), config)


@dataclass(frozen=True)
class FeatureNoise:
    """How far drawn features stray from their photos.

    Attributes:
        spread: Largest length of the random vector added to a unit feature.
        stray: Largest share of another photo's feature that is mixed in.
    """

    spread: float = 0.7
    stray: float = 0.2


class FeatureSource:
    """Draws features for rows that say which concepts they show."""

    def __init__(
        self,
        features: PhotoFeatures,
        cache: VisualCache,
        settings: CacheSettings,
        noise: FeatureNoise | None = None,
    ) -> None:
        """Sort the photos by concept."""
        self.features, self.cache, self.settings = features, cache, settings
        self.noise = noise or FeatureNoise()
        concepts = features.concept
        self.rows = {int(c): torch.nonzero(concepts == c)[:, 0] for c in set(concepts.tolist())}

    def draw(self, shown: Tensor, rng: random.Random) -> Tensor:
        """Draw one feature a row.

        Args:
            shown: (B, 2) concept ids; -1 for none. (-1, -1) shows nothing known.
            rng: Chooses the photos.

        Returns:
            (B, joint): unit vectors, shorter where two photos are mixed without retrieval.
        """
        generator = np.random.default_rng(rng.getrandbits(32))
        first = self._single(shown[:, 0], generator)
        second = self._single(shown[:, 1], generator)
        share = uniform(len(shown), 0.38, 0.62, 1)
        mixed = share * first + (1 - share) * second
        features = torch.where(shown[:, 1:] >= 0, mixed, first)
        if rng.random() < BLINDLY_BLENDED:
            features = self.cache.blend(features, self.settings)
        return features

    def _single(self, concepts: Tensor, generator: np.random.Generator) -> Tensor:
        n_views, n_photos, _ = self.features.views.shape
        rows = torch.zeros(len(concepts), dtype=torch.long)
        for i, concept in enumerate(concepts.tolist()):
            if concept >= 0:
                mine = self.rows[concept]
                rows[i] = mine[int(generator.integers(len(mine)))]
        view = torch.from_numpy(generator.integers(n_views, size=len(rows)))
        x = self.features.views[view, rows]
        other = self.features.views[0, torch.from_numpy(generator.integers(n_photos, size=len(x)))]
        stray = uniform(len(x), 0.0, self.noise.stray, 1)
        x = (1 - stray) * x + stray * other
        push = F.normalize(torch.randn_like(x), dim=-1) * uniform(len(x), 0.0, self.noise.spread, 1)
        x = F.normalize(x + push, dim=-1)
        return torch.where(concepts[:, None] >= 0, x, self._nothing(len(x), generator))

    def _nothing(self, count: int, generator: np.random.Generator) -> Tensor:
        """Features that show nothing known: empty pictures, or random directions."""
        chosen = generator.integers(len(self.features.nothing), size=count)
        pictures = self.features.nothing[torch.from_numpy(chosen)]
        anywhere = F.normalize(torch.randn_like(pictures), dim=-1)
        return torch.where(torch.rand(count, 1) < 0.5, pictures, anywhere)
