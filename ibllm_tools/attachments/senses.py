"""Which media a chat model takes, told by its profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibllm_tools.checkpoints import CONFIG_NAME, find_folder
from ibllm_tools.errors import CheckpointError
from ibllm_tools.media import Modality

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_BY_FLAG: dict[str, Modality] = {
    "image_inputs": "image",
    "audio_inputs": "audio",
    "video_inputs": "video",
}


@dataclass(frozen=True)
class SensesOfModel:
    """What a chat model takes.

    Attributes:
        modalities: Media that it takes in a person's message; never empty.
        tool_images: Whether it takes pictures in a tool's result.
        plain: Whether it knows standard blocks only.
    """

    modalities: frozenset[Modality]
    tool_images: bool
    plain: bool


def senses_of(model: BaseChatModel) -> SensesOfModel | None:
    """Read a model's profile; None for a model of text alone, or of which nothing is known."""
    from ibllm_tools.chat_models import ChatImageBindLLM

    profile: Mapping[str, Any] = getattr(model, "profile", None) or {}
    if isinstance(model, ChatImageBindLLM):
        # It mixes media of tool results into what it perceives: they stay tags.
        return SensesOfModel(_trunks(model.model), tool_images=False, plain=False)
    found = frozenset(sense for flag, sense in _BY_FLAG.items() if profile.get(flag))
    if not found:
        return None
    return SensesOfModel(found, bool(profile.get("image_tool_message")), plain=True)


_OF_TRUNK: dict[str, frozenset[Modality]] = {
    "audio": frozenset({"audio"}),
    "depth": frozenset({"depth"}),
    "imu": frozenset({"imu"}),
    "point": frozenset({"point"}),
    "text": frozenset({"text"}),
    "thermal": frozenset({"thermal"}),
    "vision": frozenset({"image", "video"}),
}


def _trunks(model: str) -> frozenset[Modality]:
    """The modalities for which a model folder has an encoder trunk; the usual ones if unknown."""
    try:
        folder = find_folder(model)
        text = (folder / CONFIG_NAME).read_text("utf-8") if folder is not None else "{}"
        held = json.loads(text).get("encoder_config") or {}
    except (CheckpointError, OSError, ValueError):
        held = {}
    names = [name for name in _OF_TRUNK if held.get(name) is not None] or ["vision", "audio"]
    return frozenset().union(*(_OF_TRUNK[name] for name in names))
