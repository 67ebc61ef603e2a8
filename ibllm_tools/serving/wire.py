"""What clients send: OpenAI's requests, and what goes beyond them for media.

Parts of a message stay as they are here; `ibllm_tools.media` says what a medium may look like.
Settings that change nothing in an answer, such as `user`, are taken and left aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_TOOLS = 128
MAX_INPUTS = 2048
INT64 = 2**63

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Object = dict[str, Any]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Part(_Sent):
    """A part of a message: text, or a medium in OpenAI's, LangChain's or Anthropic's spelling.

    OpenAI's: `{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}`,
    `input_audio` with `{"data", "format"}`, `video_url`, and `file` with `{"file_data"}` for every
    other medium, such as a 3D shape. `modality` says what a medium is sensed as where its type
    does not (depth, thermal, imu, point, and text, which is sensed and not read); `weight` is its
    share where several media are mixed.
    """

    type: str
    text: str | None = None
    image_url: Object | str | None = None
    input_audio: Object | None = None
    video_url: Object | str | None = None
    file: Object | None = None
    modality: str | None = None
    weight: float | None = None


class Function(_Sent):
    """The function of a call: its name, and its arguments as JSON text."""

    name: str
    arguments: str = ""


class Call(_Sent):
    """A call that the assistant has made."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class Message(_Sent):
    """A message of a conversation."""

    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class FunctionTool(_Sent):
    """What the model is told of a function."""

    name: Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(_Sent):
    """A function that the model may call."""

    type: Literal["function"]
    function: FunctionTool


class StreamOptions(_Sent):
    """How an answer is streamed."""

    include_usage: bool | None = None


class CacheOptions(BaseModel):
    """The visual cache's settings for one answer."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(ge=1, le=1000)] = 10
    temperature: Annotated[Finite, Field(ge=0)] = 20.0
    weight: Annotated[Finite, Field(ge=0, le=1)] = 0.5


class ChatRequest(_Sent):
    """A request for an answer, or for several."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Finite, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=INT64)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=INT64)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=INT64)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Object | None = None
    parallel_tool_calls: bool | None = None
    response_format: Object | None = None
    frequency_penalty: Finite | None = None
    presence_penalty: Finite | None = None
    logit_bias: Mapping[str, Finite] | None = None
    modalities: list[str] | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    web_search_options: Any = None
    visual_cache: bool | CacheOptions | None = None
    """Beyond OpenAI's: the visual cache on, off, or set."""

    @model_validator(mode="after")
    def _refuse_what_is_not_done(self) -> ChatRequest:
        names = ("frequency_penalty", "presence_penalty", "logit_bias")
        found = [name for name in names if getattr(self, name)]
        others = ("functions", "function_call", "audio", "web_search_options")
        found += [name for name in others if getattr(self, name) is not None]
        found += ["modalities"] if set(self.modalities or ()) - {"text"} else []
        if found:
            raise ValueError(
                f"found {', '.join(found)}, which this server does not do; leave it out (in place "
                "of functions use tools)"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("found top_logprobs without logprobs; set logprobs to true")
        return self


class EmbeddingRequest(_Sent):
    """A request for embeddings.

    `input` is a text, a medium (a part as in messages), or a list of inputs; an input that is a
    list of texts and media itself is a mixture, by the weights of its parts, with one embedding.
    """

    model: str
    input: str | Part | list[str | int | Part | list[str | int | Part]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
