"""An optional convolutional stem for small trunks.

The released ImageBind cuts its input into patches with one wide convolution. Small trunks
learn much faster from few examples when a short stack of residual convolutions makes the
tokens instead. The stem is off in every released configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ResidualConv(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one may halve the grid."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride != 1 else nn.Identity(),
                nn.Conv2d(n_in, n_out, 1, bias=False),
                nn.BatchNorm2d(n_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, ceil(H/stride), ceil(W/stride))."""
        y = self.act(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.act(y + self.shortcut(x))  # type: ignore[no-any-return]


class ConvStem(nn.Module):
    """Residual convolution stages that turn a picture into a grid of tokens.

    Args:
        n_in: Channels of the picture (3 for photos, 1 for log-mel and depth).
        n_out: Width of the trunk behind the stem.
        channels: Width of each stage. Every stage halves height and width; the first
            one does it with a plain convolution.
        depths: Residual blocks of each stage (0 is allowed for the first one).

    Source: "Early Convolutions Help Transformers See Better" (Xiao et al., 2021) for the
    idea; residual blocks as in He et al. (2015).
    """

    def __init__(
        self, n_in: int, n_out: int, channels: Sequence[int], depths: Sequence[int]
    ) -> None:
        super().__init__()
        first = channels[0]
        stages: list[nn.Module] = [
            nn.Conv2d(n_in, first, 3, 2, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            *(ResidualConv(first, first) for _ in range(depths[0])),
        ]
        previous = first
        for width, depth in zip(channels[1:], depths[1:], strict=True):
            stages.append(ResidualConv(previous, width, stride=2))
            stages += [ResidualConv(width, width) for _ in range(depth - 1)]
            previous = width
        self.stages = nn.Sequential(*stages)
        self.proj = nn.Conv2d(previous, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, H', W'), halved once per stage (rounded up)."""
        return self.proj(self.stages(x))  # type: ignore[no-any-return]
