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


class PooledConv(nn.Module):
    """A convolution at full height and width, max-pooling, then residual convolutions.

    Slower than a strided block of the same width, and more accurate: what is small is seen
    before the grid is halved.

    Source: the shape of the networks of "94% on CIFAR-10 in 3.29 Seconds" (Jordan, 2024).
    """

    def __init__(self, n_in: int, n_out: int, depth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, 1, 1, bias=False)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.norm = nn.BatchNorm2d(n_out)
        self.act = nn.GELU()
        self.after = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out), nn.GELU()
            )
            for _ in range(2 * depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, ceil(H/2), ceil(W/2))."""
        x = self.act(self.norm(self.pool(self.conv(x))))
        for first, second in zip(self.after[::2], self.after[1::2], strict=True):
            x = x + second(first(x))
        return x


class ConvStem(nn.Module):
    """Residual convolution stages that turn a picture into a grid of tokens.

    Args:
        n_in: Channels of the picture (3 for photos, 1 for log-mel and depth).
        n_out: Width of the trunk behind the stem.
        channels: Width of each stage. Every stage halves height and width; the first
            one does it with a plain convolution.
        depths: Residual blocks of each stage (0 is allowed for the first one).
        pool: Halve by max-pooling behind a full-size convolution, not by strides.

    Source: "Early Convolutions Help Transformers See Better" (Xiao et al., 2021) for the
    idea; residual blocks as in He et al. (2015).
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        channels: Sequence[int],
        depths: Sequence[int],
        *,
        pool: bool = False,
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
            if pool:
                stages.append(PooledConv(previous, width, depth))
            else:
                stages.append(ResidualConv(previous, width, stride=2))
                stages += [ResidualConv(width, width) for _ in range(depth - 1)]
            previous = width
        self.stages = nn.Sequential(*stages)
        self.proj = nn.Conv2d(previous, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, H, W) to (B, n_out, H', W'), halved once per stage (rounded up)."""
        return self.proj(self.stages(x))  # type: ignore[no-any-return]
