"""What a model can do, read from its folder's configuration without its weights."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ibllm_tools.checkpoints import CONFIG_NAME, find_folder
from ibllm_tools.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_core.language_models.model_profile import ModelProfile

TOKENIZER = "tokenizer.json"
THOUGHT_MARKS = frozenset({"<|note|>", "<think>"})
"""Tokens of models that think before they answer."""


def model_profile(model: str, *, follows_urls: bool) -> ModelProfile:
    """Describe a model to LangChain.

    Args:
        model: "pocket", a folder or a hub id; of a hub id only what holds for all is known.
        follows_urls: Whether the media policy lists a host.
    """
    senses, n_context, thinks = _facts(model)
    profile: ModelProfile = {
        "name": model,
        "open_weights": True,
        "attachment": True,
        "text_inputs": True,
        "image_inputs": "vision" in senses,
        "image_url_inputs": "vision" in senses and follows_urls,
        "audio_inputs": "audio" in senses,
        "video_inputs": "vision" in senses,
        "pdf_inputs": False,
        "image_tool_message": "vision" in senses,
        "pdf_tool_message": False,
        "text_outputs": True,
        "image_outputs": False,
        "audio_outputs": False,
        "video_outputs": False,
        "reasoning_output": thinks,
        "tool_calling": True,
        "tool_choice": True,
        "tool_call_streaming": True,
        "structured_output": True,
        "temperature": True,
    }
    if n_context is not None:
        profile["max_input_tokens"] = profile["max_output_tokens"] = n_context
    return profile


class _Facts(NamedTuple):
    senses: frozenset[str] = frozenset({"vision", "audio"})
    n_context: int | None = None
    thinks: bool = False


def _facts(model: str) -> _Facts:
    try:
        folder = find_folder(model)
    except CheckpointError:  # told at the first answer; a profile never fails
        folder = None
    if folder is None:
        return _Facts()
    return _read(folder, (folder / CONFIG_NAME).stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(folder: Path, changed_ns: int) -> _Facts:  # noqa: ARG001
    config = _json(folder / CONFIG_NAME)
    trunks = config.get("encoder_config") or {"vision": {}, "audio": {}}
    llm = _json(folder / "llm" / CONFIG_NAME) or config.get("text_config") or config
    n_context = llm.get("max_position_embeddings")
    tokens = {entry.get("content") for entry in _json(folder / TOKENIZER).get("added_tokens", ())}
    return _Facts(
        frozenset(name for name, sizes in trunks.items() if sizes is not None),
        n_context if isinstance(n_context, int) else None,
        bool(tokens & THOUGHT_MARKS),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
