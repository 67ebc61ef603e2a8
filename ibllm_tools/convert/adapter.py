"""The released adapter (`7B.pth`) → the adapter's weights and the model's config.

A filtered file holds the bridge, the prefix queries and every `llama.` key with bias, gate, lora
or norm in it. A whole checkpoint also holds the encoder (`image_bind.*`) and the base LLaMA,
which are left out here: they come from their own files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ibllm_tools.convert.files import on_meta, refuse_misfits
from ibllm_tools.errors import CheckpointError
from ibllm_tools.model import ImageBindLLM, ImageBindLLMConfig
from ibllm_tools.model.loading import ADAPTER_FILE
from ibllm_tools.model.released import (
    BRIDGE,
    DELTAS,
    LINEARS,
    NORMS,
    adapter_config,
    adapter_state,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ibllm_tools.encoder import ImageBindConfig

TUNED = ("bias", "gate", "lora", "norm")
_OUR_BLOCK = re.compile(r"bind_network\.blocks\.(\d+)\.(\w+)\.(weight|bias)")
_OUR_DELTA = re.compile(r"llm\.model\.layers\.(\d+)\.(.+)\.(lora_a|lora_b|weight|bias)")
Part = Literal["adapter", "encoder", "base"]


def part_of_key(key: str) -> Part | None:
    """Tell which part of a whole checkpoint a key belongs to; None if to none."""
    if key.startswith("image_bind."):
        return "encoder"
    if key.startswith("llama."):
        return "adapter" if any(word in key for word in TUNED) else "base"
    is_own = key.startswith("image_bind_") or key == "prefix_query.weight"
    return "adapter" if is_own else None


def adapter_part(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Keep the adapter's own weights of a filtered or whole checkpoint.

    Raises:
        CheckpointError: Names keys that belong to no part.
    """
    refuse_misfits(source, unexpected=[key for key in tensors if part_of_key(key) is None])
    return {key: value for key, value in tensors.items() if part_of_key(key) == "adapter"}


def read_adapter_config(
    adapter: Mapping[str, Tensor], text_config: Any, encoder: ImageBindConfig | None, source: str
) -> ImageBindLLMConfig:
    """Read an adapter's sizes and check every name and shape; no weight is read.

    Raises:
        CheckpointError: Names the missing, unexpected and misshapen keys.
    """
    shapes = on_meta(adapter)
    config = adapter_config(shapes, text_config, encoder_config=encoder)
    if encoder is not None and encoder.joint_dim != config.joint_dim:
        raise CheckpointError(
            f"{source} binds vectors of width {config.joint_dim}, the encoder's have "
            f"{encoder.joint_dim}; use the encoder that the adapter was trained with"
        )
    found = _renamed(shapes, config, source)
    expected = _expected(config)
    refuse_misfits(
        source,
        missing=map(released_name, expected.keys() - found.keys()),
        unexpected=map(released_name, found.keys() - expected.keys()),
        misshapen=[
            f"{released_name(key)} {list(found[key].shape)} instead of {list(expected[key].shape)}"
            for key in expected.keys() & found.keys()
            if found[key].shape != expected[key].shape
        ],
    )
    return config


def write_adapter(
    adapter: Mapping[str, Tensor],
    config: ImageBindLLMConfig,
    folder: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the adapter's weights by our names."""
    state = adapter_state(adapter, config)
    cast = {key: value.to(dtype or value.dtype).contiguous() for key, value in state.items()}
    save_file(cast, folder / ADAPTER_FILE, metadata={"format": "pt"})


def released_name(key: str) -> str:
    """The name in the released file of one of our adapter weights, for messages."""
    if match := _OUR_BLOCK.fullmatch(key):
        part = {ours: theirs for theirs, ours in BRIDGE.items()}[match[2]]
        return f"image_bind_{part}_{int(match[1]) + 1}.{match[3]}"
    if match := _OUR_DELTA.fullmatch(key):
        owner = {ours: theirs for theirs, ours in {**LINEARS, **NORMS}.items()}[match[2]]
        if match[3] in DELTAS.values():
            place, _, matrix = owner.partition(".")
            rank_side = {ours: theirs for theirs, ours in DELTAS.items()}[match[3]]
            return f"llama.layers.{match[1]}.{place}.lora_{matrix}_{rank_side}"
        return f"llama.layers.{match[1]}.{owner}.{match[3]}"
    return {
        "bind_network.proj.weight": "image_bind_proj.weight",
        "bind_network.proj.bias": "image_bind_proj.bias",
        "prefix_query": "prefix_query.weight",
        "gates": "llama.layers.*.attention.gate",
        "llm.model.norm.weight": "llama.norm.weight",
    }.get(key, key)


def _renamed(
    shapes: Mapping[str, Tensor], config: ImageBindLLMConfig, source: str
) -> dict[str, Tensor]:
    """Rename all keys, naming every one that has no counterpart."""
    unknown = []
    for key in shapes:
        if not key.endswith(".gate"):  # gates are stacked, so only all of them fit
            try:
                adapter_state({key: shapes[key]}, config)
            except (CheckpointError, LookupError, ValueError):
                unknown.append(key)
    refuse_misfits(source, unexpected=unknown)
    try:
        return adapter_state(shapes, config)
    except KeyError as error:
        missing = [f"llama.layers.{layer}.attention.gate" for layer in error.args]
        refuse_misfits(source, missing=missing)
        raise


def _expected(config: ImageBindLLMConfig) -> dict[str, Tensor]:
    """The adapter's weights of a model of this config, on the meta device."""
    from transformers import AutoModelForCausalLM

    bare = ImageBindLLMConfig.from_dict({**config.to_dict(), "encoder_config": None})
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(bare.text_config)
        return ImageBindLLM(bare, llm).adapter_state_dict()
