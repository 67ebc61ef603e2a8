"""The 3D trunk of Point-Bind, with PointBERT or I2P-MAE as point encoder.

Sources: Yu et al., 2022, "Point-BERT" (arXiv 2111.14819); Zhang et al., 2023, "Learning 3D
Representations from 2D Pre-trained Models via Image-to-Point Masked Autoencoders"
(arXiv 2212.06785); Guo et al., 2023, "Point-Bind & Point-LLM" (arXiv 2309.00615).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibllm_tools.encoder.blocks import MLP_RATIO, DropPath, Mlp, rising
from ibllm_tools.encoder.configuration import PointConfig
from ibllm_tools.encoder.grouping import PointGroups, gather_points, group_points

FAR_PENALTY = -100000.0  # added to the scores of pairs outside the radius


class PointNet(nn.Module):
    """One vector per group of points: two shared layers, their maximum beside each, two more."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        n_in, first, second, third, n_out = widths
        self.first_conv = _shared_mlp(n_in, first, second)
        self.second_conv = _shared_mlp(2 * second, third, n_out)

    def forward(self, groups: Tensor) -> Tensor:
        """Map (B, G, K, C) to (B, G, C')."""
        x = self.first_conv(groups.flatten(0, 1).mT)  # (B*G, C, K)
        whole = x.amax(-1, keepdim=True).expand_as(x)
        x = self.second_conv(torch.cat([whole, x], dim=1))
        return x.amax(-1).unflatten(0, groups.shape[:2])  # type: ignore[no-any-return]


class PointAttention(nn.Module):
    """Multi-head self-attention without query, key and value biases."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Attend within (B, T, C); `bias` (B, 1, T, T) is added to the scores."""
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, H, T, D) each
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class PointBlock(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, n_heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, MLP_RATIO * width)
        self.attn = PointAttention(width, n_heads)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), bias))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class PointBlocks(nn.Module):
    """A stack of blocks; the positions are added before each one."""

    def __init__(self, width: int, n_heads: int, drop_paths: Sequence[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PointBlock(width, n_heads, rate) for rate in drop_paths)

    def forward(self, x: Tensor, positions: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        for block in self.blocks:
            x = block(x + positions, bias)
        return x


class PointBert(nn.Module):
    """PointBERT: the feature joins the class token and the maximum over group tokens."""

    def __init__(self, config: PointConfig) -> None:
        super().__init__()
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.encoder = PointNet((3, *config.mlp_channels, config.mlp_out))
        self.reduce_dim = nn.Linear(config.mlp_out, width)
        self.pos_embed = _position_mlp(config.pos_hidden, width)
        drop_paths = rising(config.drop_path, config.n_layers)
        self.blocks = PointBlocks(width, config.n_heads, drop_paths)
        self.norm = nn.LayerNorm(width)

    def forward(self, groups: PointGroups) -> Tensor:
        """Map the groups of B clouds to features (B, 2 * width)."""
        cell, center = _group_coordinates(groups, self.cls_token.dtype)
        tokens = self.reduce_dim(self.encoder(cell))
        n_rows = tokens.shape[0]
        tokens = torch.cat([self.cls_token.expand(n_rows, -1, -1), tokens], dim=1)
        positions = torch.cat([self.cls_pos.expand(n_rows, -1, -1), self.pos_embed(center)], dim=1)
        tokens = self.norm(self.blocks(tokens, positions))  # (B, 1 + G, width)
        return torch.cat([tokens[:, 0], tokens[:, 1:].amax(1)], dim=-1)


class HierarchicalEncoder(nn.Module):
    """Levels of ever fewer and wider tokens; attention reaches as far as the level's radius."""

    def __init__(self, config: PointConfig) -> None:
        super().__init__()
        widths = config.level_widths
        self.radius = config.level_radius
        first = PointNet((3, *config.mlp_channels, widths[0]))
        others = [PointNet((n, n, n, out, out)) for n, out in pairwise(widths)]
        self.token_embed = nn.ModuleList([first, *others])
        self.encoder_pos_embeds = nn.ModuleList(_position_mlp(width, width) for width in widths)
        rates = iter(rising(config.drop_path, sum(config.level_layers)))
        self.encoder_blocks = nn.ModuleList(
            PointBlocks(width, config.n_heads, [next(rates) for _ in range(n_layers)])
            for width, n_layers in zip(widths, config.level_layers, strict=True)
        )

    def forward(self, groups: PointGroups) -> Tensor:
        """Map the groups of B clouds to the last level's tokens (B, G, C)."""
        dtype = self.encoder_pos_embeds[0][0].weight.dtype  # type: ignore[index]
        cell, center = _group_coordinates(groups, torch.float32)
        tokens = self.token_embed[0](cell.to(dtype))
        for level, blocks in enumerate(self.encoder_blocks):
            if level:
                center = gather_points(center, groups.centers[level])
                below = gather_points(tokens, groups.neighbours[level])  # (B, G, K, C)
                tokens = self.token_embed[level](below)
            far = torch.cdist(center, center) >= self.radius[level]
            bias = (FAR_PENALTY * far).to(dtype).unsqueeze(1)
            positions = self.encoder_pos_embeds[level](center.to(dtype))
            tokens = blocks(tokens, positions, bias)
        return tokens  # type: ignore[no-any-return]


class I2pMae(nn.Module):
    """I2P-MAE: the feature adds mean and maximum of the last level's tokens."""

    def __init__(self, config: PointConfig) -> None:
        super().__init__()
        self.h_encoder = HierarchicalEncoder(config)
        self.norm = nn.LayerNorm(config.level_widths[-1])

    def forward(self, groups: PointGroups) -> Tensor:
        """Map the groups of B clouds to features (B, C)."""
        tokens = self.norm(self.h_encoder(groups))
        return tokens.mean(1) + tokens.amax(1)  # type: ignore[no-any-return]


class PointTrunk(nn.Module):
    """A point encoder and the projection of its feature."""

    def __init__(self, config: PointConfig) -> None:
        super().__init__()
        self.config = config
        bert = config.encoder == "pointbert"
        n_features = 2 * config.width if bert else config.level_widths[-1]
        self.point_encoder = PointBert(config) if bert else I2pMae(config)
        self.pc_projection = nn.Parameter(torch.empty(n_features, config.projection_dim))
        nn.init.normal_(self.pc_projection, std=config.projection_dim**-0.5)

    def forward(self, clouds: Tensor | PointGroups) -> tuple[Tensor, Tensor]:
        """Map (B, N, 3), or clouds grouped before, to (B, C) features and (B, P) projections."""
        groups = clouds if isinstance(clouds, PointGroups) else group_points(clouds, self.config)
        feature = self.point_encoder(groups)
        return feature, feature @ self.pc_projection


def _group_coordinates(groups: PointGroups, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Coordinates of level 0: (B, G, K, 3) about each centre, and the centres (B, G, 3)."""
    xyz = groups.xyz.float()
    center = gather_points(xyz, groups.centers[0])
    cell = gather_points(xyz, groups.neighbours[0]) - center.unsqueeze(2)
    return cell.to(dtype), center.to(dtype)


def _shared_mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(n_in, hidden, 1),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv1d(hidden, n_out, 1),
    )


def _position_mlp(hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))
