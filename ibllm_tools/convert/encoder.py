"""ImageBind's checkpoint, with or without the 3D trunk → the encoder's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ibllm_tools.convert.files import read_weights
from ibllm_tools.encoder import ImageBind, ImageBindConfig, PointConfig
from ibllm_tools.encoder.released import encoder_name
from ibllm_tools.encoder.storage import check_fit, trunk_of_key, write_trunk
from ibllm_tools.errors import CheckpointError

INSIDE_LLM = "image_bind."


def read_encoder(path: Path, point: Path | None = None) -> dict[str, Tensor]:
    """Read an encoder's weights by their names in `ImageBind`; nothing is held in memory yet.

    Args:
        path: `imagebind_huge.pth`, or an ImageBind-LLM checkpoint that has a copy inside.
        point: A Point-Bind checkpoint, from which only the 3D trunk is taken.

    Raises:
        CheckpointError: A file cannot be read, or has no weights of an encoder.
    """
    tensors = _encoder_part(read_weights(path), str(path))
    if point is not None:
        found = _encoder_part(read_weights(point), str(point))
        cloud = {key: value for key, value in found.items() if trunk_of_key(key) == "point"}
        if not cloud:
            raise CheckpointError(f"{point} has no 3D trunk; expected a Point-Bind checkpoint")
        tensors = {k: v for k, v in tensors.items() if trunk_of_key(k) != "point"} | cloud
    return tensors


def encoder_config(tensors: dict[str, Tensor]) -> ImageBindConfig:
    """The released sizes, with the point encoder that the weights have, or none."""
    if any(".h_encoder." in key for key in tensors):
        return ImageBindConfig(point=PointConfig(encoder="i2pmae"))
    has_points = any(trunk_of_key(key) == "point" for key in tensors)
    return ImageBindConfig(point=PointConfig() if has_points else None)


def check_encoder(tensors: dict[str, Tensor], config: ImageBindConfig, source: str) -> None:
    """Compare names and shapes with those of the config.

    Raises:
        CheckpointError: Names the missing, unexpected and misshapen keys.
    """
    with torch.device("meta"):
        expected = ImageBind(config).state_dict()
    check_fit(expected, tensors, source)


def write_encoder(
    tensors: dict[str, Tensor],
    config: ImageBindConfig,
    folder: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Write one trunk after another, the config last."""
    folder.mkdir(parents=True, exist_ok=True)
    for trunk in config.trunks:
        own = {key: value for key, value in tensors.items() if trunk_of_key(key) == trunk}
        write_trunk(folder, trunk, own, dtype)
    config.save_pretrained(folder)


def _encoder_part(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename a file's weights; from an ImageBind-LLM checkpoint take only the copy inside."""
    if any(key.startswith(INSIDE_LLM) for key in tensors):
        tensors = {key: value for key, value in tensors.items() if key.startswith(INSIDE_LLM)}
    named = {encoder_name(key): value for key, value in tensors.items()}
    found = {key: value for key, value in named.items() if key is not None}
    if not any(trunk_of_key(key) for key in found):
        raise CheckpointError(
            f"{source} has no weights of ImageBind; expected imagebind_huge.pth or a checkpoint "
            f"with keys under {INSIDE_LLM}*"
        )
    return found
