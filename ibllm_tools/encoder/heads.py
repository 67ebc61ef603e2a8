"""From the last block's tokens to the joint space: pool, norm, project, normalise, scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibllm_tools.encoder.blocks import NORM_EPS

MAX_LOGIT_SCALE = 100.0
INITIAL_LOG_SCALES = {
    "text": math.log(1 / 0.07),
    "audio": math.log(20.0),
    "depth": math.log(5.0),
    "thermal": math.log(10.0),
    "imu": math.log(5.0),
    "point": 0.0,
}


class FirstTokenHead(nn.Sequential):
    """Norm, class token (or the vector itself), optional dropout, projection without bias."""

    def __init__(self, width: int, joint_dim: int, dropout: float | None = None) -> None:
        pooled = [nn.Identity()] if dropout is None else [nn.Identity(), nn.Dropout(dropout)]
        norm = nn.LayerNorm(width, eps=NORM_EPS)
        super().__init__(norm, *pooled, nn.Linear(width, joint_dim, bias=False))

    def forward(self, x: Tensor, _media: Tensor) -> Tensor:  # type: ignore[override]
        """Map tokens (B, T, C) or vectors (B, C) to (B, joint)."""
        x = x[:, 0] if x.ndim == 3 else x
        for layer in self:
            x = layer(x)
        return x


class EndTokenHead(nn.Module):
    """Norm and projection of the token that ends each text: the one with the largest id."""

    def __init__(self, width: int, joint_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(width, eps=NORM_EPS), nn.Linear(width, joint_dim, bias=False)
        )

    def forward(self, x: Tensor, media: Tensor) -> Tensor:
        """Map tokens (B, T, C) and their ids (B, T) to (B, joint)."""
        rows = torch.arange(x.shape[0], device=x.device)
        return self.proj(x[rows, media.argmax(-1)])  # type: ignore[no-any-return]


class Normalise(nn.Module):
    """Scale each vector to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, joint) to (B, joint)."""
        return functional.normalize(x, dim=-1)


class LogitScale(nn.Module):
    """Multiply by exp(scale), at most 100; learnt for text, fixed for the others."""

    def __init__(self, log_scale: float, *, learnt: bool) -> None:
        super().__init__()
        value = torch.tensor(log_scale, dtype=torch.float32, device="cpu")
        if learnt:
            self.log_logit_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_logit_scale", value)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, joint) to (B, joint)."""
        return self.log_logit_scale.exp().clamp(max=MAX_LOGIT_SCALE) * x


def postprocessor(trunk: str) -> nn.Sequential:
    """Build the normalisation of a trunk's result, with its logit scale if it has one."""
    if trunk not in INITIAL_LOG_SCALES:
        return nn.Sequential(Normalise())
    scale = LogitScale(INITIAL_LOG_SCALES[trunk], learnt=trunk == "text")
    return nn.Sequential(Normalise(), scale)
