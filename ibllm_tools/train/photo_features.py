"""Photos, words and pictures of nothing known, encoded once for stages 1 and 2.

```
photos ── views ──┐
words  ── texts ──┼─ frozen encoder ─ PhotoFeatures ─ (features.FeatureSource) rows of a batch
noise, collages, strange objects ┘
```
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ibllm_tools.encoder import ImageBind
from ibllm_tools.preprocess import PreprocessConfig, pixels_to_views, tokenize
from ibllm_tools.train.augment import view_photos
from ibllm_tools.train.contrastive import clean_rows, encode_all
from ibllm_tools.train.data import PHOTO_PX, Table, read_scenes
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.nothing import empty_pictures
from ibllm_tools.train.words import CHINESE, ENGLISH

MILD_AREA = 0.5
LEAST_CROP_PX = 24
STRANGER_VIEWS = 12
N_COLLAGES = 600
N_EMPTY = 600


@dataclass(frozen=True)
class PhotoFeatures:
    """Features of the training photos and of what goes with them; all are unit vectors.

    Attributes:
        views: (V, N, joint); view 0 is without augmentation.
        concept: (N,) concept ids.
        nothing: (M, joint) of pictures that show nothing: flat, ramps, noise.
        collages: (K, joint) of pictures pasted together from sixteen photos.
        strangers: (S, joint) of objects that are no concept; S may be 0.
        words: (T, C, joint) of texts that name the concepts; T may be 0.
    """

    views: Tensor
    concept: Tensor
    nothing: Tensor
    collages: Tensor
    strangers: Tensor
    words: Tensor

    def cache_vectors(self, count: int, seed: int) -> Tensor:
        """Choose photo features for the visual cache, balanced over the concepts.

        One in ten shows nothing known, so that what is strange finds its like.
        """
        strange = torch.cat([self.nothing, self.collages, self.strangers])
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.concept), generator=generator)
        rank = torch.empty(len(order), dtype=torch.long)
        for concept in sorted(set(self.concept.tolist())):
            mine = order[self.concept[order] == concept]
            rank[mine] = torch.arange(len(mine))
        n_strange = min(count // 10, len(strange))
        picked = torch.randperm(len(strange), generator=generator)[:n_strange]
        chosen = torch.argsort(rank, stable=True)[: count - n_strange]
        return torch.cat([self.views[0, chosen.sort().values], strange[picked]])


def encode_photos(
    encoder: ImageBind,
    photos: Table,
    config: PreprocessConfig,
    path: Path,
    n_views: int = 3,
    seed: int = 0,
    *,
    facts: Sequence[Fact] = (),
    data_dir: Path | None = None,
) -> PhotoFeatures:
    """Encode all training photos in a few views, or read what an earlier call stored.

    Args:
        encoder: Frozen.
        photos: Training photos.
        config: Preprocessing.
        path: Where the features are stored.
        n_views: Views of each photo, the plain one included.
        seed: Of views and pictures.
        facts: Whose names are encoded as words.
        data_dir: Pack whose scenes give objects that are no concept; none when absent.
    """
    if path.is_file():
        return PhotoFeatures(**load_file(path))
    torch.manual_seed(seed)
    views = [encode_all(encoder, "image", lambda r: clean_rows(photos, r, config), len(photos))]

    def draw(rows: Tensor) -> Tensor:
        pixels = torch.from_numpy(photos.values[rows.numpy()])
        return _draw_views(pixels, config, least_area=MILD_AREA)

    views += [encode_all(encoder, "image", draw, len(photos)) for _ in range(n_views - 1)]
    found = PhotoFeatures(
        views=torch.stack(views),
        concept=torch.from_numpy(photos.concept),
        nothing=_encode_pixels(encoder, pixels_to_views(empty_pictures(N_EMPTY, config), config)),
        collages=_encode_pixels(encoder, _collages(photos, N_COLLAGES, config, seed)),
        strangers=_encode_strangers(encoder, data_dir, config),
        words=_encode_words(encoder, facts, config),
    )
    tables = {f.name: getattr(found, f.name).contiguous() for f in fields(found)}
    part = path.with_name(path.name + ".part")
    save_file(tables, part)
    part.replace(path)
    return found


def is_for_evaluation(category: str) -> bool:
    """Whether objects of a category that is no concept are kept out of training."""
    return zlib.crc32(category.encode()) % 2 == 1


def stranger_crops(data_dir: Path) -> Tensor:
    """Cut the objects that are no concept out of a pack's training scenes.

    Returns:
        (S, 64, 64, 3) uint8; S is 0 without scenes. Categories that are kept for evaluation
        are left out.
    """
    from PIL import Image

    crops = []
    for blob, objects in read_scenes(data_dir):
        picture = Image.open(io.BytesIO(blob)).convert("RGB")
        for found in json.loads(objects):
            if found["concept"] is not None or is_for_evaluation(found["coco"]):
                continue
            x, y, w, h = found["cxcywh"]
            side = max(w * picture.width, h * picture.height) * 1.1
            if side < LEAST_CROP_PX:
                continue
            left, top = x * picture.width - side / 2, y * picture.height - side / 2
            box = (
                max(0, int(left)), max(0, int(top)),
                min(picture.width, int(left + side) + 1), min(picture.height, int(top + side) + 1),
            )  # fmt: skip
            crops.append(np.asarray(picture.crop(box).resize((PHOTO_PX, PHOTO_PX))))
    if not crops:
        return torch.empty(0, PHOTO_PX, PHOTO_PX, 3, dtype=torch.uint8)
    return torch.from_numpy(np.stack(crops))


def _draw_views(pixels: Tensor, config: PreprocessConfig, least_area: float = 0.4) -> Tensor:
    """Draw two random views of each picture, which the encoder averages: (B, 2, 3, px, px)."""
    views = [view_photos(pixels, config, least_area=least_area) for _ in range(2)]
    return torch.stack(views, dim=1)


def _encode_pixels(encoder: ImageBind, pixels: Tensor) -> Tensor:
    return encode_all(encoder, "image", lambda r: pixels[r], len(pixels))


def _encode_strangers(
    encoder: ImageBind, data_dir: Path | None, config: PreprocessConfig
) -> Tensor:
    crops = stranger_crops(data_dir) if data_dir is not None else torch.empty(0)
    if not len(crops):
        return torch.empty(0, encoder.config.joint_dim)
    return _encode_pixels(encoder, _draw_views(crops.repeat(STRANGER_VIEWS, 1, 1, 1), config))


def _encode_words(encoder: ImageBind, facts: Sequence[Fact], config: PreprocessConfig) -> Tensor:
    texts = [[t.format(a=f.phrase, n=f.name) for f in facts] for t in ENGLISH]
    texts += [[t.format(z=f.name_zh) for f in facts] for t in CHINESE]
    if not facts:
        return torch.empty(0, 0, encoder.config.joint_dim)
    tokens = tokenize([text for row in texts for text in row], config)
    found = encode_all(encoder, "text", lambda r: tokens[r], len(tokens))
    return found.view(len(texts), len(facts), -1)


def _collages(photos: Table, count: int, config: PreprocessConfig, seed: int) -> Tensor:
    """Pictures of which every sixteenth is from another photo."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(photos), size=(count, 16))
    pixels = torch.from_numpy(photos.values[chosen.reshape(-1)])  # (count * 16, 64, 64, 3)
    tiles = pixels[:, 20:36, 20:36].reshape(count, 4, 4, 16, 16, 3)
    whole = tiles.permute(0, 1, 3, 2, 4, 5).reshape(count, 64, 64, 3)
    return view_photos(whole, config, least_area=0.8)
