"""From a batch of media to one vector per row: encode each modality once, then mix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.cache import CacheSettings
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.mix import mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from ibllm_tools.encoder import ImageBind
    from ibllm_tools.model.configuration import ImageBindLLMConfig
    from ibllm_tools.preprocess import MediaBatch

POINT_DIVISOR = 5.0
WEIGHT_EPS = 1e-6


def mixed_features(
    batch: MediaBatch, encoder: ImageBind, refine: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Encode and mix a batch that has media: (B, joint); rows without media are zeros.

    Args:
        batch: Preprocessed media.
        encoder: The encoder.
        refine: Changes unit vectors (K, joint) of single media before they are mixed.
    """
    embeddings = [encoder.encode(name, x) for name, x in batch.inputs.items()]
    if refine is not None:
        embeddings = [refine(F.normalize(x.float(), dim=-1)).to(x.dtype) for x in embeddings]
    weights = [batch.weights[name] for name in batch.inputs]
    rows = [batch.rows[name] for name in batch.inputs]
    return mix(embeddings, weights, rows, batch.n_rows)


def mixed_heads(batch: MediaBatch, encoder: ImageBind) -> Tensor:
    """Mix the embeddings before their normalisation, points divided by 5: (B, joint).

    Source: the released ImageBind-LLM's image generation.
    """
    heads = {name: encoder.head(name, x).float() for name, x in batch.inputs.items()}
    first = next(iter(heads.values()))
    total = first.new_zeros(batch.n_rows, first.shape[-1])
    norm = first.new_zeros(batch.n_rows, 1)
    for name, head in heads.items():
        rows, weights = batch.rows[name].to(head.device), batch.weights[name].to(head)[:, None]
        scale = POINT_DIVISOR if name == "point" else 1.0
        total.index_add_(0, rows, head / scale * weights)
        norm.index_add_(0, rows, weights)
    return total / (norm + WEIGHT_EPS)


def with_zero_images(batch: MediaBatch, encoder: ImageBind) -> MediaBatch:
    """Give rows without media an all-zero image, as in the released text-only training.

    Raises:
        ConfigurationError: The encoder has no vision trunk.
    """
    bare = (~batch.has_media).nonzero().flatten()
    if not len(bare):
        return batch
    vision = encoder.config.vision
    if vision is None:
        raise ConfigurationError(
            'text_only="zero_image" needs a vision trunk, and the encoder has none; use "none"'
        )
    images, weights = (
        torch.zeros(len(bare), 3, vision.image_px, vision.image_px),
        torch.ones(len(bare)),
    )
    old = batch.inputs.get("image")
    if old is not None:
        images = torch.cat([old, images.to(old)])
        bare = torch.cat([batch.rows["image"], bare.to(old.device)])
        weights = torch.cat([batch.weights["image"], weights.to(old.device)])
    return type(batch)(
        n_rows=batch.n_rows,
        inputs={**batch.inputs, "image": images},
        rows={**batch.rows, "image": bare},
        weights={**batch.weights, "image": weights},
    )


def cache_settings(config: ImageBindLLMConfig) -> CacheSettings:
    """The visual cache's settings as the config has them."""
    return CacheSettings(
        k=config.cache_k,
        temperature=config.cache_temperature,
        weight=config.cache_weight,
        form=config.cache_form,
    )
