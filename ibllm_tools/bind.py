"""The bind network: one vector of the joint space becomes one vector of the LLM's width.

Nothing here knows media, layers or tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

RMS_EPS = 1e-6
LEGACY_EPS = 1e-5


class BindBlock(nn.Module):
    """One residual block: `x + down(silu(gate(n)) * up(n))` with `n = norm(x)`."""

    def __init__(self, dim: int, hidden_dim: int, *, legacy: bool) -> None:
        super().__init__()
        self.norm: nn.Module
        if legacy:
            self.norm = nn.LayerNorm(dim, eps=LEGACY_EPS)
        else:
            self.norm = nn.RMSNorm(dim, eps=RMS_EPS)
        self.gate = nn.Linear(dim, hidden_dim, bias=legacy)
        self.down = nn.Linear(hidden_dim, dim, bias=legacy)
        self.up = nn.Linear(dim, hidden_dim, bias=legacy)

    def forward(self, x: Tensor) -> Tensor:
        """Refine vectors of shape (..., dim)."""
        normed = self.norm(x)
        refined: Tensor = self.down(F.silu(self.gate(normed)) * self.up(normed))
        return x + refined


class BindNetwork(nn.Module):
    """A linear map from the joint space to the LLM's width, then residual SwiGLU blocks.

    Args:
        joint_dim: Width of the encoder's joint space.
        dim: Width of the LLM.
        n_blocks: Number of residual blocks.
        hidden_dim: Inner width of a block; 4 x `dim` when None.
        legacy: Use LayerNorm and biases, as the first released weights do,
            instead of RMSNorm without bias.

    Source: ImageBind-LLM (arXiv 2309.03905), section 3.1, in the released code's form.
    """

    def __init__(
        self,
        joint_dim: int,
        dim: int,
        *,
        n_blocks: int = 3,
        hidden_dim: int | None = None,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        hidden_dim = hidden_dim or 4 * dim
        self.proj = nn.Linear(joint_dim, dim)
        self.blocks = nn.ModuleList(
            BindBlock(dim, hidden_dim, legacy=legacy) for _ in range(n_blocks)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Bind features.

        Args:
            features: (..., joint_dim), mixed and blended, in the scale of the encoder.

        Returns:
            (..., dim) vectors to be injected into the LLM.
        """
        x: Tensor = self.proj(features)
        for block in self.blocks:
            x = block(x)
        return x
