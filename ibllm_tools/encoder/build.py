"""Assembles the modules of one trunk from its config."""

from __future__ import annotations

from typing import Any

from torch import nn

from ibllm_tools.encoder.blocks import Trunk
from ibllm_tools.encoder.configuration import ImageBindConfig
from ibllm_tools.encoder.heads import EndTokenHead, FirstTokenHead, postprocessor
from ibllm_tools.encoder.point_trunk import PointTrunk
from ibllm_tools.encoder.preprocessors import (
    INIT_STD,
    ImuPreprocessor,
    audio_preprocessor,
    grey_preprocessor,
    text_preprocessor,
    vision_preprocessor,
)


def build_trunk(trunk: str, config: ImageBindConfig) -> dict[str, nn.Module]:
    """Build a trunk's modules, by the name of the part that holds them; postprocessor last."""
    sizes: Any = config.trunks[trunk]
    if trunk == "point":
        body: dict[str, nn.Module] = {"point_trunk": PointTrunk(sizes)}
        head: nn.Module = FirstTokenHead(sizes.projection_dim, config.joint_dim)
    else:
        body = {
            "modality_preprocessors": _preprocessor(trunk, sizes),
            "modality_trunks": _transformer(trunk, sizes),
        }
        head = _head(trunk, sizes, config.joint_dim)
    parts = {**body, "modality_heads": head}
    for module in parts.values():
        module.apply(_initialise)
    return {**parts, "modality_postprocessors": postprocessor(trunk)}


def _preprocessor(trunk: str, sizes: Any) -> nn.Module:
    if trunk == "vision":
        return vision_preprocessor(sizes)
    if trunk == "text":
        return text_preprocessor(sizes)
    if trunk == "audio":
        return audio_preprocessor(sizes)
    if trunk == "imu":
        return ImuPreprocessor(sizes)
    return grey_preprocessor(sizes, "depth_stem" if trunk == "depth" else "rgbt_stem")


def _transformer(trunk: str, sizes: Any) -> Trunk:
    """Vision norms its tokens first; all but vision and text have a learnt key and value."""
    return Trunk(
        sizes.width,
        sizes.n_layers,
        sizes.n_heads,
        sizes.drop_path,
        pre_norm=trunk == "vision",
        kv_bias=trunk not in ("vision", "text"),
        causal=trunk == "text",
    )


def _head(trunk: str, sizes: Any, joint_dim: int) -> nn.Module:
    if trunk == "text":
        return EndTokenHead(sizes.width, joint_dim)
    dropout = sizes.head_dropout if trunk == "imu" else None
    return FirstTokenHead(sizes.width, joint_dim, dropout)


def _initialise(module: nn.Module) -> None:
    """Draw linear weights as ViT does; other modules set their own."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
