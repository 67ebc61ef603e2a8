"""What clients send: OpenAI's requests, and what goes beyond them for media.

Parts of a message stay as they are here; `ibllm_tools.media` says what a medium may look like.
Settings that change nothing in an answer, such as `user`, are taken and left aside.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_CHOICES = 16  # as many as the engine computes at a time
MAX_STOPS = 16
MAX_TOOLS = 128
MAX_INPUTS = 2048
INT64 = 2**63
NOT_DONE = (
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "presence_penalty",
    "web_search_options",
)

MediaType = Literal[
    "image_url",
    "input_audio",
    "video_url",
    "file",
    "image",
    "audio",
    "video",
    "input_image",
    "audio_url",
    "point_cloud",
    "point",
    "depth",
    "thermal",
    "imu",
    "non_standard",
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Object = dict[str, Any]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class TextPart(_Sent):
    """Text to be read; with `modality` "text" it is sensed by the encoder instead."""

    type: Literal["text"]
    text: str
    modality: Literal["text"] | None = None
    weight: float | None = None


class RefusalPart(_Sent):
    """What an assistant has said in place of an answer."""

    type: Literal["refusal"]
    refusal: str


class MediaPart(_Sent):
    """A medium in OpenAI's, LangChain's or Anthropic's spelling.

    OpenAI's: `{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}`,
    `input_audio` with `{"data", "format"}`, `video_url`, and `file` with `{"file_data"}` for every
    other medium, such as a 3D shape. `modality` says what a medium is sensed as where its type
    does not (depth, thermal, imu, point); `weight` is its share where several are mixed.
    """

    type: MediaType
    image_url: Object | str | None = None
    input_audio: Object | None = None
    video_url: Object | str | None = None
    file: Object | None = None
    modality: str | None = None
    weight: float | None = None


Part = Annotated[TextPart | RefusalPart | MediaPart, Field(discriminator="type")]
Content = str | list[Part]


class Function(_Sent):
    """The function of a call: its name, and its arguments as JSON text."""

    name: str
    arguments: str = ""


class Call(_Sent):
    """A call that the assistant has made."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class SystemMessage(_Sent):
    """What the model is told beforehand."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(_Sent):
    """What the user says and shows."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(_Sent):
    """What the model has said, called and thought."""

    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class ToolMessage(_Sent):
    """What a tool has answered; it may show media."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


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


class ToolName(_Sent):
    """A function by its name."""

    name: str


class NamedTool(_Sent):
    """The one function that is to be called."""

    type: Literal["function"]
    function: ToolName


class AllowedTools(_Sent):
    """Some of the functions, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedChoice(_Sent):
    """A choice among some of the functions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class TextFormat(_Sent):
    """An answer in plain text."""

    type: Literal["text"]


class JsonFormat(_Sent):
    """An answer that is a JSON object."""

    type: Literal["json_object"]


class NamedSchema(_Sent):
    """A JSON schema with a name."""

    name: Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Object = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(_Sent):
    """An answer that is JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


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
    tool_choice: (
        Literal["none", "auto", "required"]
        | Annotated[NamedTool | AllowedChoice, Field(discriminator="type")]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    response_format: (
        Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")] | None
    ) = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[Object, Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    functions: None = None
    function_call: None = None
    audio: None = None
    web_search_options: None = None
    visual_cache: bool | CacheOptions | None = None
    """Beyond OpenAI's: the visual cache on, off, or set."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_done(cls, sent: Any) -> Any:
        """Say what the types above would not say as well."""
        if isinstance(sent, dict):
            found = [name for name in NOT_DONE if sent.get(name)]
            found += ["modalities"] if sent.get("modalities") not in (None, [], ["text"]) else []
            if found:
                raise ValueError(
                    f"found {', '.join(found)}, which this server does not do; leave it out (in "
                    "place of functions use tools)"
                )
        return sent

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("found top_logprobs without logprobs; set logprobs to true")
        return self


Input = Annotated[str, Field(min_length=1)] | Part


class EmbeddingRequest(_Sent):
    """A request for embeddings.

    `input` is a text, a medium (a part as in messages), or a list of inputs; an input that is a
    list of texts and media itself is a mixture, by the weights of its parts, with one embedding.
    """

    model: str
    input: Input | Annotated[list[Input | list[Input]], Field(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _refuse_tokens(cls, given: Any) -> Any:
        """Say of token ids what the types above would not say as well."""
        first = given[0] if isinstance(given, list) and given else None
        first = first[0] if isinstance(first, list) and first else first
        if isinstance(first, int):
            raise ValueError(  # noqa: TRY004 - pydantic tells of ValueErrors alone
                "found token ids; expected texts, since ids of another model's tokenizer mean "
                "nothing here; in LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False"
            )
        return given
