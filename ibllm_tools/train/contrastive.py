"""What all parts of stage 0 share: encoding in batches, losses, and which weights learn how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ibllm_tools.encoder import ImageBind, PointGroups
from ibllm_tools.preprocess import PreprocessConfig, pixels_to_views
from ibllm_tools.train.augment import clean_photos
from ibllm_tools.train.data import Table

SCALE = 16.0
SMOOTHING = 0.1


@contextmanager
def fast_cpu() -> Iterator[None]:
    """Train in bf16 with plain attention products: several times faster for short sequences."""
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def encode(encoder: ImageBind, modality: str, x: Tensor | PointGroups) -> Tensor:
    """Encode a batch to unit vectors (B, joint) in float32."""
    if isinstance(x, Tensor) and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return F.normalize(encoder.head(modality, x).float(), dim=-1)


def row_batches(n_rows: int, size: int) -> list[Tensor]:
    """Split the row numbers 0 .. n_rows-1 into runs of at most `size`."""
    return [torch.arange(i, min(i + size, n_rows)) for i in range(0, n_rows, size)]


@torch.no_grad()
def encode_all(
    encoder: ImageBind,
    modality: str,
    batches: Callable[[Tensor], Any],
    n_rows: int,
    size: int = 256,
) -> Tensor:
    """Encode rows 0 .. n_rows-1 in evaluation mode; `batches` maps row numbers to inputs."""
    was_training = encoder.training
    encoder.eval()
    with fast_cpu():
        parts = [encode(encoder, modality, batches(r)) for r in row_batches(n_rows, size)]
    encoder.train(was_training)
    return torch.cat(parts) if parts else torch.empty(0)


def cross_entropy(
    features: Tensor, anchors: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Contrast features with one anchor a class; rows may have weights."""
    scores = SCALE * features @ anchors.T
    if weights is None:
        return F.cross_entropy(scores, labels, label_smoothing=SMOOTHING)
    losses = F.cross_entropy(scores, labels, label_smoothing=SMOOTHING, reduction="none")
    return (losses * weights).mean()


def is_inner_matrix(name: str, weight: Tensor) -> bool:
    """Choose for Muon: the convolutions before a normalisation, and the blocks' matrices."""
    if weight.ndim == 4:
        return ".stages." in name and weight.shape[1] > 3
    return weight.ndim == 2 and "blocks" in name and "rgbt" not in name


def trunk_parts(encoder: ImageBind, trunk: str) -> nn.ModuleDict:
    """The modules of one trunk, as one module that can be trained and saved."""
    parts: dict[str, nn.Module] = {}
    for name, module in encoder.named_children():
        if isinstance(module, nn.ModuleDict) and trunk in module:
            parts[name] = module[trunk]
    if trunk == "point":
        parts["point_trunk"] = encoder.point_trunk
    return nn.ModuleDict(parts)


def clean_rows(photos: Table, rows: Tensor, config: PreprocessConfig) -> Tensor:
    """Photos of some rows as the encoder sees them without augmentation."""
    pixels = clean_photos(torch.from_numpy(photos.values[rows.numpy()]), config)
    return pixels_to_views(pixels, config)


def accuracy(features: Tensor, anchors: Tensor, table: Table) -> float:
    """Share of rows whose nearest anchor is their concept."""
    if not len(table):
        return float("nan")
    guess = (features @ anchors.T).argmax(1)
    return float((guess == torch.from_numpy(table.concept)).float().mean())
