"""`/cache`: words for the settings of the visual cache."""

from __future__ import annotations

import json
from typing import Any

from ibllm_tools.chat_models.settings import as_cache_settings
from ibllm_tools.checkpoints import CONFIG_NAME, find_folder
from ibllm_tools.errors import ConfigurationError

Cache = bool | dict[str, Any] | None
"""What `ChatImageBindLLM.visual_cache` takes; None leaves the model's own setting."""
KEYS = {"k": "k", "t": "temperature", "alpha": "weight", "α": "weight"}


def changed(cache: Cache, model: str, words: tuple[str, ...]) -> Cache:
    """Apply the words of `/cache` to a setting.

    Args:
        cache: The setting so far.
        model: The model, whose own values stand for those that are not given.
        words: Such as `on`, `off`, or `k 5 t 20 alpha 0.7`.

    Raises:
        ConfigurationError: The words do not fit, or a value is out of range.
    """
    if words in {("on",), ("off",)}:
        return words == ("on",)
    names, values = words[::2], words[1::2]
    if len(words) % 2 or any(name not in KEYS for name in names):
        raise ConfigurationError(
            f"/cache: found {' '.join(words)!r}; expected on, off, or values such as "
            "k 5 t 20 alpha 0.7"
        )
    settings = dict(cache) if isinstance(cache, dict) else _own(model)
    for name, value in zip(names, values, strict=True):
        try:
            settings[KEYS[name]] = int(value) if name == "k" else float(value)
        except ValueError:
            raise ConfigurationError(f"/cache {name}: found {value!r}; expected a number") from None
    as_cache_settings(settings)
    return settings


def described(cache: Cache) -> str:
    """The setting in words."""
    if isinstance(cache, dict):
        return f"cache k {cache['k']} t {cache['temperature']:g} alpha {cache['weight']:g}"
    return {None: "cache as the model has it", True: "cache on", False: "cache off"}[cache]


def _own(model: str) -> dict[str, Any]:
    """The values in a model folder; the usual ones for a hub id."""
    folder = find_folder(model)
    config = {} if folder is None else json.loads((folder / CONFIG_NAME).read_text("utf-8"))
    return {
        "k": config.get("cache_k", 10),
        "temperature": config.get("cache_temperature", 20.0),
        "weight": config.get("cache_weight", 0.5),
    }
