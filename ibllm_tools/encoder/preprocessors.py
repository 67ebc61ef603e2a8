"""From a medium's tensor to tokens: patches, class token, position table.

Released names: `rgbt_stem`, `depth_stem`, `imu_stem`, `pos_embedding_helper`. A table made for
one size is resized by bicubic interpolation when the medium has another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibllm_tools.encoder.configuration import (
    AudioConfig,
    DepthConfig,
    ImuConfig,
    TextConfig,
    ThermalConfig,
    VisionConfig,
)
from ibllm_tools.encoder.stem import ConvStem
from ibllm_tools.errors import ConfigurationError

INIT_STD = 0.02


class PatchStem(nn.Module):
    """Cut an image (B, C, H, W) into patches and project each to `width`."""

    def __init__(self, n_channels: int, width: int, patch_px: int, stride_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(n_channels, width, patch_px, stride_px, bias=False)
        self.norm_layer = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens as a map (B, width, h, w)."""
        tokens = self.proj(x)
        return self.norm_layer(tokens.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]


class ClipStem(nn.Module):
    """Cut a clip (B, 3, T, H, W) or an image (B, 3, H, W) into patches of all frames."""

    def __init__(self, width: int, patch_px: int, n_frames: int) -> None:
        super().__init__()
        kernel = (n_frames, patch_px, patch_px)
        self.patch_px = patch_px
        self.proj = nn.Sequential(nn.Identity(), nn.Conv3d(3, width, kernel, kernel, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens as a map (B, width, h, w)."""
        weight: Tensor = self.proj.get_parameter("1.weight")  # (width, 3, T, p, p)
        if x.ndim == 4:  # a still image repeated over time, without repeating it
            return functional.conv2d(x, weight.sum(2), stride=self.patch_px)
        return functional.conv2d(x.flatten(1, 2), weight.flatten(1, 2), stride=self.patch_px)


class PositionTable(nn.Module):
    """A learnt vector per place of an (h, w) grid, the class token's first."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width))
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the table (1, 1 + h*w, width) for a grid, resized if it is another."""
        if grid == self.grid:
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        plane = rest.float().mT.reshape(1, -1, *self.grid)  # (1, width, h, w)
        plane = functional.interpolate(plane, size=grid, mode="bicubic")
        return torch.cat([first, plane.flatten(2).mT.to(first.dtype)], dim=1)


class GridPreprocessor(nn.Module):
    """Tokens of an image-like medium: [class token, patches] + positions."""

    def __init__(self, stem: nn.Module, name: str, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.stem_name = name
        self.add_module(name, stem)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)
        self.pos_embedding_helper = PositionTable(grid, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) or (B, C, T, H, W) to (B, 1 + h*w, width)."""
        stem = self.get_submodule(self.stem_name)
        if x.ndim == 5 and not isinstance(stem, ClipStem):  # frame by frame, then their mean
            frames = stem(x.transpose(1, 2).flatten(0, 1))  # (B*T, width, h, w)
            plane = frames.view(x.shape[0], -1, *frames.shape[1:]).mean(1)
        else:
            plane = stem(x)  # (B, width, h, w)
        positions = self.pos_embedding_helper((plane.shape[-2], plane.shape[-1]))
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), plane.flatten(2).mT], dim=1)
        return tokens + positions  # type: ignore[no-any-return]


class TextPreprocessor(nn.Module):
    """Token vectors plus learnt positions."""

    def __init__(self, vocab_size: int, n_context: int, width: int) -> None:
        super().__init__()
        self.n_context = n_context
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.pos_embed = nn.Parameter(torch.empty(1, n_context, width))
        nn.init.normal_(self.token_embedding.weight, std=INIT_STD)
        nn.init.normal_(self.pos_embed, std=0.01)
        # In the released state dict, though attention needs only to know that it is causal.
        mask = torch.full((n_context, n_context), -math.inf, device="cpu").triu(1)
        self.register_buffer("mask", mask)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ids (B, T) to (B, T, width)."""
        if tokens.shape[-1] > self.n_context:
            raise ConfigurationError(
                f"found {tokens.shape[-1]} text tokens, expected at most {self.n_context}; "
                f"cut the text"
            )
        return self.token_embedding(tokens) + self.pos_embed[:, : tokens.shape[-1]]  # type: ignore[no-any-return]


class WindowStem(nn.Module):
    """Project each window of a signal to `width`."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(n_features, width, bias=False)
        self.norm_layer = nn.LayerNorm(width)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (B, L, features) to (B, L, width)."""
        return self.norm_layer(self.proj(windows))  # type: ignore[no-any-return]


class ImuPreprocessor(nn.Module):
    """Tokens of a signal: [class token, windows] + positions."""

    def __init__(self, config: ImuConfig) -> None:
        super().__init__()
        self.window, self.n_samples = config.window, config.n_samples
        n_windows = config.n_samples // config.window
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + n_windows, config.width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.imu_stem = WindowStem(config.n_channels * config.window, config.width)
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)

    def forward(self, signal: Tensor) -> Tensor:
        """Map (B, channels, samples) to (B, 1 + L, width)."""
        if signal.shape[-1] != self.n_samples:
            raise ConfigurationError(
                f"found {signal.shape[-1]} IMU samples, expected {self.n_samples}; "
                f"resample the signal"
            )
        windows = signal.unfold(-1, self.window, self.window)  # (B, C, L, window)
        tokens = self.imu_stem(windows.transpose(1, 2).flatten(2))
        tokens = torch.cat([self.cls_token.expand(signal.shape[0], -1, -1), tokens], dim=1)
        return tokens + self.pos_embed


def vision_preprocessor(config: VisionConfig) -> GridPreprocessor:
    """Build the stem and position table for images and clips."""
    stem: nn.Module
    if config.stem_channels:
        stem = _conv_stem(3, config)
    else:
        stem = ClipStem(config.width, config.patch_px, config.n_frames)
    side = _cells(config.image_px, config.patch_px, config.patch_px, config.stem_channels)
    return GridPreprocessor(stem, "rgbt_stem", (side, side), config.width)


def audio_preprocessor(config: AudioConfig) -> GridPreprocessor:
    """Build the stem and position table for log-mel images."""
    grid = (
        _cells(config.n_mels, config.patch_px, config.stride_px, config.stem_channels),
        _cells(config.n_frames, config.patch_px, config.stride_px, config.stem_channels),
    )
    stem = _grey_stem(config, config.stride_px)
    return GridPreprocessor(stem, "rgbt_stem", grid, config.width)


def grey_preprocessor(config: DepthConfig | ThermalConfig, name: str) -> GridPreprocessor:
    """Build the stem and position table for images of one channel."""
    side = _cells(config.image_px, config.patch_px, config.patch_px, config.stem_channels)
    return GridPreprocessor(_grey_stem(config, config.patch_px), name, (side, side), config.width)


def text_preprocessor(config: TextConfig) -> TextPreprocessor:
    """Build the token and position tables."""
    return TextPreprocessor(config.vocab_size, config.n_context, config.width)


def _conv_stem(
    n_in: int, config: VisionConfig | AudioConfig | DepthConfig | ThermalConfig
) -> ConvStem:
    sizes = (config.width, config.stem_channels, config.stem_depths)
    return ConvStem(n_in, *sizes, pool=config.stem_pool)


def _grey_stem(config: AudioConfig | DepthConfig | ThermalConfig, stride_px: int) -> nn.Module:
    if config.stem_channels:
        return _conv_stem(1, config)
    return PatchStem(1, config.width, config.patch_px, stride_px)


def _cells(size: int, patch: int, stride: int, stem_channels: Sequence[int]) -> int:
    """Count the tokens along an axis of `size` pixels."""
    if stem_channels:
        return math.ceil(size / (1 << len(stem_channels)))
    if size < patch:
        raise ConfigurationError(f"size {size} is smaller than the patch {patch}; make it larger")
    return (size - patch) // stride + 1
