"""What one call may set besides its messages, in the engine's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.decoding import Sampling

ANSWER_SETTINGS = (
    "logprobs",
    "max_tokens",
    "model",
    "n",
    "seed",
    "temperature",
    "timeout",
    "top_k",
    "top_logprobs",
    "top_p",
    "visual_cache",
)
"""Fields of the chat model that one call may change: `chat.invoke(messages, temperature=0.7)`."""
CALL_SETTINGS = ("parallel_tool_calls", "response_format", "tool_choice", "tools")
"""What only a call has; `bind_tools` and `with_structured_output` set it."""
MAX_TOP_LOGPROBS = 20
BATCH_CONCURRENCY = 32
"""Calls that `batch` has under way where `max_concurrency` says nothing: the engine's slots, and
as many whose media are being read."""

# Handed on by LangChain itself; they change nothing in the answer.
_IGNORED = frozenset(
    {"ls_structured_output_format", "stream", "stream_usage", "structured_output_format"}
)


def merge_settings(
    defaults: Mapping[str, Any], stop: list[str] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Put what a call gives over the model's own settings.

    Raises:
        ConfigurationError: A call gives what it may not set, or a value out of range.
    """
    unknown = given.keys() - {*ANSWER_SETTINGS, *CALL_SETTINGS} - _IGNORED
    if unknown:
        raise ConfigurationError(
            f"a call got {sorted(unknown)}; it may set "
            f"{sorted((*ANSWER_SETTINGS, *CALL_SETTINGS))} and stop"
        )
    settings = {name: given.get(name, defaults[name]) for name in ANSWER_SETTINGS}
    settings |= {name: given.get(name) for name in CALL_SETTINGS}
    settings["stop"] = tuple(defaults["stop"] or () if stop is None else stop)
    if not isinstance(settings["n"], int) or settings["n"] < 1:
        raise ConfigurationError(f"n is {settings['n']!r}; expected a number of answers, 1 or more")
    top = settings["top_logprobs"]
    if top is not None and not 0 <= top <= MAX_TOP_LOGPROBS:
        raise ConfigurationError(f"top_logprobs is {top}; expected 0 to {MAX_TOP_LOGPROBS}")
    return settings


def as_sampling(settings: Mapping[str, Any], stop: tuple[str, ...]) -> Sampling:
    """The engine's sampling of merged settings.

    Raises:
        ConfigurationError: A value is out of its range.
    """
    from ibllm_tools.decoding import MAX_TOKENS, Sampling

    options: dict[str, Any] = {}
    if settings["logprobs"] or settings["top_logprobs"]:
        options["logprobs"] = settings["top_logprobs"] or 0
    return Sampling(
        temperature=settings["temperature"],
        top_p=settings["top_p"],
        top_k=settings["top_k"],
        max_tokens=settings["max_tokens"] or MAX_TOKENS,
        seed=settings["seed"],
        stop=stop,
        timeout_s=settings["timeout"],
        **options,
    )


def as_cache_settings(value: bool | dict[str, Any] | None) -> CacheSettings | bool | None:
    """The visual cache's settings.

    Raises:
        ConfigurationError: A key or a value does not fit.
    """
    if not isinstance(value, dict):
        return value
    from ibllm_tools.cache import CacheSettings

    try:
        return CacheSettings(**value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"visual_cache={value} does not fit: {error}; "
            'use for example {"k": 10, "temperature": 20.0, "weight": 0.5}'
        ) from error


def with_concurrency(config: Any) -> Any:
    """Fill in `max_concurrency` of a config; LangChain's own default suits remote models."""
    if isinstance(config, list | tuple):
        return [with_concurrency(one) for one in config]
    if (config or {}).get("max_concurrency") is not None:
        return config
    return {**(config or {}), "max_concurrency": BATCH_CONCURRENCY}
