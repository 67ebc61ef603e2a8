"""What clients get: OpenAI's objects, built as plain dicts and described for the API's document."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one on Python 3.11

FinishReason = Literal["stop", "length", "tool_calls"]


class Usage(TypedDict):
    """Tokens; media take none and are counted apart, by modality, under `media`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, Any]
    completion_tokens_details: dict[str, int]


class CalledFunction(TypedDict):
    """A function's name and its arguments as JSON text."""

    name: NotRequired[str]
    arguments: str


class ToolCall(TypedDict):
    """A call; only parts of a streamed one have an index."""

    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: CalledFunction
    index: NotRequired[int]


class Said(TypedDict):
    """A message, or what one event adds to it."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    refusal: NotRequired[None]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    annotations: NotRequired[list[Any]]


class Logprobs(TypedDict):
    """The tokens of an answer with their probabilities."""

    content: list[dict[str, Any]]
    refusal: None


class Choice(TypedDict):
    """One answer."""

    index: int
    message: Said
    logprobs: Logprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    """The answers to one request."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str
    service_tier: Literal["default"]


class ChunkChoice(TypedDict):
    """A part of one answer."""

    index: int
    delta: Said
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(TypedDict):
    """One event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    service_tier: Literal["default"]
    usage: NotRequired[Usage | None]


class Embedding(TypedDict):
    """One vector of length 1: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    """The vectors of all inputs, in order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """All models that are served."""

    object: Literal["list"]
    data: list[Model]


class Problem(TypedDict):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(TypedDict):
    """An error as every endpoint gives it."""

    error: Problem


def new_id(prefix: str) -> str:
    """A fresh id, such as `chatcmpl-…`."""
    return f"{prefix}{uuid.uuid4().hex}"


def usage_of(n_prompt: int, n_completion: int, n_reasoning: int, media: Mapping[str, int]) -> Usage:
    """The usage of a request."""
    prompt: dict[str, Any] = {"cached_tokens": 0, "audio_tokens": 0}
    if media:
        prompt["media"] = dict(media)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": n_reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
