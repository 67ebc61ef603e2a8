"""Transformer blocks of the ImageBind trunks; knows nothing of modalities.

Pre-norm blocks x + attn(norm(x)), x + mlp(norm(x)). Parameter names equal the released ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6  # of all norms in the trunks and heads
MLP_RATIO = 4


class DropPath(nn.Module):
    """Stochastic depth: in training a sample skips this branch with probability `rate`.

    Source: Huang et al., 2016, "Deep networks with stochastic depth".
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole samples of (B, ...) and scale the others up."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep


class Attention(nn.Module):
    """Multi-head self-attention, optionally with one learnt extra key and value."""

    def __init__(self, width: int, n_heads: int, *, kv_bias: bool, causal: bool) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.bias_k: Tensor | None
        self.bias_v: Tensor | None
        if kv_bias:
            self.bias_k = nn.Parameter(torch.empty(1, 1, width))
            self.bias_v = nn.Parameter(torch.empty(1, 1, width))
            nn.init.xavier_normal_(self.bias_k)
            nn.init.xavier_normal_(self.bias_v)
        else:
            self.bias_k = self.bias_v = None
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within (B, T, C)."""
        q, k, v = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(x.shape[0], 1, -1)], dim=1)  # (B, T+1, C)
            v = torch.cat([v, self.bias_v.expand(x.shape[0], 1, -1)], dim=1)
        q, k, v = (self._heads(part) for part in (q, k, v))  # (B, H, T, D)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.fc2(functional.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(
        self, width: int, n_heads: int, drop_path: float, *, kv_bias: bool, causal: bool
    ) -> None:
        super().__init__()
        self.attn = Attention(width, n_heads, kv_bias=kv_bias, causal=causal)
        self.norm_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, MLP_RATIO * width)
        self.norm_2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.drop_path(self.attn(self.norm_1(x)))
        return x + self.drop_path(self.mlp(self.norm_2(x)))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """A stack of blocks, with an optional norm before the first.

    The drop-path rate rises linearly from 0 at the first block to `drop_path` at the last.
    """

    def __init__(
        self,
        width: int,
        n_layers: int,
        n_heads: int,
        drop_path: float = 0.0,
        *,
        pre_norm: bool,
        kv_bias: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        norm = nn.LayerNorm(width, eps=NORM_EPS) if pre_norm else nn.Identity()
        self.pre_transformer_layer = nn.Sequential(norm)
        self.blocks = nn.ModuleList(
            Block(width, n_heads, rate, kv_bias=kv_bias, causal=causal)
            for rate in rising(drop_path, n_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = self.pre_transformer_layer(x)
        for block in self.blocks:
            x = block(x)
        return x


def rising(last: float, count: int) -> list[float]:
    """Values from 0 to `last` in equal steps."""
    return [last * i / max(count - 1, 1) for i in range(count)]
