"""Several media of one prompt become one vector: a weighted sum in the joint space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_EPSILON = 1e-6


def mix(
    embeddings: Tensor | Sequence[Tensor],
    weights: Tensor | Sequence[Tensor],
    rows: Tensor | Sequence[Tensor],
    n_rows: int,
) -> Tensor:
    """Add up the embeddings of each row.

    Each embedding is normalised, its weight divided by (the row's sum of weights + 1e-6). The
    sum is not normalised again.

    Args:
        embeddings: (K, D) float, or a list of (K_i, D), one for each modality, to be joined.
        weights: (K,) float, above 0, or a list of (K_i,).
        rows: (K,) int64, the row of each embedding, or a list of (K_i,).
        n_rows: Rows wanted, B.

    Returns:
        (B, D), same dtype; zeros for a row without embeddings. Row i is what it is alone.

    Source: ImageBind-LLM (Han et al., 2023), section 3.3, as released.
    """
    joined = _joined(embeddings)
    rows = _joined(rows).to(joined.device)
    units = F.normalize(joined.float(), dim=-1)
    weights = _joined(weights).to(units)
    totals = units.new_zeros(n_rows).index_add_(0, rows, weights)
    shares = weights / (totals[rows] + _EPSILON)
    mixed = units.new_zeros(n_rows, units.shape[-1]).index_add(0, rows, units * shares[:, None])
    return mixed.to(joined.dtype)


def _joined(parts: Tensor | Sequence[Tensor]) -> Tensor:
    return parts if isinstance(parts, Tensor) else torch.cat(list(parts))
