"""From bound vectors to what is injected: value projections, gates, closed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ibllm_tools.injection.forms import AdapterTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def gated_values(
    tokens: Tensor,
    projections: Sequence[Callable[[Tensor], Tensor]],
    gates: Tensor,
    head_dim: int,
    open_rows: Tensor | None = None,
) -> Tensor:
    """Compute the values that one-token adapters add to every attention result.

    Args:
        tokens: (L, B, dim) bound vector plus prefix query of each injected layer.
        projections: L value projections without LoRA, each (..., dim) -> (..., H_kv * D).
        gates: (L, H), before tanh.
        head_dim: D.
        open_rows: (B,) bool; rows that are False get zeros. All rows when None.

    Returns:
        (L, B, 1, H, D). Heads of a key-value group share its value.
    """
    projected = _project(tokens, projections)  # (L, B, H_kv * D)
    values = _heads(projected, gates.shape[-1], head_dim)  # (L, B, H, D)
    values = torch.tanh(gates).to(values.device)[:, None, :, None] * values
    if open_rows is not None:
        values = torch.where(open_rows.to(values.device)[None, :, None, None], values, 0)
    return values[:, :, None]


def adapter_tokens(
    tokens: Tensor,
    keys: Sequence[Callable[[Tensor], Tensor]],
    values: Sequence[Callable[[Tensor], Tensor]],
    gates: Tensor,
    head_dim: int,
    open_rows: Tensor | None = None,
) -> AdapterTokens:
    """Compute keys and values of adapters of more than one token.

    Args:
        tokens: (L, B, Q, dim).
        keys: L key projections without LoRA.
        values: L value projections without LoRA.
        gates: (L, H), before tanh.
        head_dim: D.
        open_rows: (B,) bool; all rows when None.
    """
    n_heads = gates.shape[-1]
    if open_rows is None:
        open_rows = torch.ones(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    return AdapterTokens(
        keys=_heads(_project(tokens, keys), n_heads, head_dim).transpose(2, 3),
        values=_heads(_project(tokens, values), n_heads, head_dim).transpose(2, 3),
        gates=torch.tanh(gates),
        open_rows=open_rows,
    )


def _project(tokens: Tensor, projections: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """Apply one projection per layer; the results are gathered on the tokens' device."""
    return torch.stack(
        [project(x).to(tokens.device) for project, x in zip(projections, tokens, strict=True)]
    )


def _heads(projected: Tensor, n_heads: int, head_dim: int) -> Tensor:
    """Split (..., H_kv * D) into (..., H, D), repeating each key-value head for its group."""
    heads = projected.reshape(*projected.shape[:-1], -1, head_dim)
    return heads.repeat_interleave(n_heads // heads.shape[-2], dim=-2)
