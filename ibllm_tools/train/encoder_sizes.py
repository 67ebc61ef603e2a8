"""Sizes of pocket's encoder: a small ImageBind with convolutional stems."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ibllm_tools.encoder import ImageBind, ImageBindConfig
from ibllm_tools.preprocess import PreprocessConfig


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of pocket's encoder and of its preprocessing."""

    joint_dim: int = 256
    image_px: int = 64
    n_points: int = 2048
    text_context: int = 32
    text_merges: int = 7688
    vision: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 256,
            "n_layers": 2,
            "n_heads": 4,
            "stem_channels": (24, 64, 256, 256),
            "stem_depths": (0, 1, 1, 1),
            "stem_pool": True,
        }
    )
    text: dict[str, Any] = field(
        default_factory=lambda: {"width": 128, "n_layers": 2, "n_heads": 4}
    )
    audio: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 192,
            "n_layers": 3,
            "n_heads": 3,
            "drop_path": 0.1,
            "stem_channels": (16, 32, 64, 128, 192),
            "stem_depths": (0, 1, 1, 1, 0),
            "stem_pool": True,
        }
    )
    depth: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 160,
            "n_layers": 2,
            "n_heads": 4,
            "stem_channels": (16, 32, 96, 160),
            "stem_depths": (0, 1, 1, 1),
        }
    )
    point: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 192,
            "n_layers": 4,
            "n_heads": 3,
            "drop_path": 0.1,
            "n_groups": 64,
            "group_size": 32,
            "mlp_channels": (32, 64, 128),
            "mlp_out": 128,
            "projection_dim": 256,
        }
    )

    def preprocessing(self) -> PreprocessConfig:
        """Return the preprocessing that fits these sizes."""
        return PreprocessConfig(
            image_px=self.image_px,
            image_zooms=(0.94, 0.8),
            image_flips=True,
            depth_px=self.image_px,
            depth_unit_range=True,
            thermal_px=self.image_px,
            n_points=self.n_points,
            text_context=self.text_context,
            text_merges=self.text_merges,
            text_special_tokens=False,
            video_crops=1,
        )

    def build(self) -> ImageBind:
        """Build the encoder with fresh weights; it has no thermal and no IMU trunk."""
        side = {"image_px": self.image_px, "patch_px": self.image_px // 4}
        vocab = 512 + self.text_merges + 2
        config = ImageBindConfig.only(
            joint_dim=self.joint_dim,
            vision={**side, **self.vision},
            text={"vocab_size": vocab, "n_context": self.text_context, **self.text},
            audio=self.audio,
            depth={**side, **self.depth},
            point=self.point,
        )
        encoder = ImageBind(config)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return encoder
