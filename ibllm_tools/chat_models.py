"""`ChatImageBindLLM`: an LLM with senses as a LangChain chat model.

```
messages -> _split_messages -> turns (text) + blocks (media of the latest message that has any)
         -> media.load -> engine.stream -> pieces -> _stream, _generate -> AIMessage(Chunk)
```

Weights are read at the first answer, once per folder, device and dtype in the process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from ibllm_tools import __version__
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import MediaPolicy, is_media, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.language_models.model_profile import ModelProfile
    from langchain_core.messages import BaseMessage
    from langchain_core.messages.ai import UsageMetadata

    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.decoding import Sampling
    from ibllm_tools.engine import Engine, Finish
    from ibllm_tools.media import Item

PROVIDER = "imagebind"
DEFAULT_MODEL = "pocket"

_ROLES = {"human": "user", "ai": "assistant", "system": "system"}
# Blocks of a model's own answers that hold nothing to sense or to read.
_SILENT_BLOCKS = frozenset(
    {
        "invalid_tool_call",
        "reasoning",
        "redacted_thinking",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "thinking",
        "tool_call",
        "tool_call_chunk",
        "tool_use",
    }
)
# Settings that one call may change: `chat.invoke(messages, temperature=0.7)`.
_CALL_SETTINGS = frozenset(
    {"max_tokens", "model", "seed", "temperature", "timeout", "top_k", "top_p", "visual_cache"}
)
# Handed on by LangChain itself; they change nothing in the answer.
_CALL_IGNORED = frozenset({"stream", "stream_usage", "ls_structured_output_format"})


class ChatImageBindLLM(BaseChatModel):
    """A chat model that sees, hears and feels: ImageBind-LLM in LangChain.

    Setup:
        Nothing to set up: `pocket`, a miniature model, comes with the package and runs
        offline on a CPU.

        ```bash
        pip install ibllm-tools
        ```

    Key init args, completion params:
        temperature: 0 (default) takes the most likely token; above 0 samples.
        max_tokens: Upper bound of the answer's tokens.
        top_p, top_k, seed: Sampling, as usual. One seed gives one answer.
        stop: The answer ends before any of these texts (alias `stop_sequences`).
        timeout: Seconds after which an answer ends with what it has.

    Key init args, client params:
        model: "pocket", a folder, or a Hugging Face hub id.
        device, dtype: Where and in which precision to run ("cpu", "cuda:0"; "float32",
            "bfloat16", "float16"). By default an accelerator in bfloat16 where there is
            one, else the CPU in float32.
        visual_cache: True or False switches the visual cache, a dict such as
            `{"k": 10, "temperature": 20.0, "weight": 0.5}` sets it, None leaves the
            model folder's setting.
        media_policy: Limits on media, and which folders and hosts a message may name
            (none by default; `base64` and `Media.from_path` always work).

    Instantiate:
        ```python
        from ibllm_tools import ChatImageBindLLM, Media

        chat = ChatImageBindLLM(temperature=0, max_tokens=64)
        ```

    Invoke:
        ```python
        from langchain_core.messages import HumanMessage

        photo = Media.from_path("dog.jpg")
        answer = chat.invoke([HumanMessage(["What is in the photo?", photo])])
        answer.text
        ```

    Stream:
        ```python
        for chunk in chat.stream([HumanMessage(["What is in the photo?", photo])]):
            print(chunk.text, end="", flush=True)
        ```

    Async:
        ```python
        answer = await chat.ainvoke([HumanMessage(["What is in the photo?", photo])])
        ```

    Image, audio, video, 3D input:
        A message holds standard content blocks (`image`, `audio`, `video`, `file`), OpenAI's
        and older forms of them, or `Media` objects. `extras` says what the type does not:
        `{"modality": "depth", "weight": 0.5}`. Several media of one message are mixed by
        their weights. Each answer is about the media of the latest message that has any,
        so a follow-up question keeps the picture, and a new picture takes its place.

    Token usage:
        `answer.usage_metadata` counts text tokens. A medium takes no place in the prompt;
        `input_token_details` counts media apart, by modality: `{"image": 1, "audio": 1}`.

    Response metadata:
        `answer.response_metadata` has `model_name`, `model_provider` and `finish_reason`
        ("stop", "length" or "timeout").

    Source: ImageBind-LLM (Han et al., 2023, arXiv 2309.03905).
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    model: str = DEFAULT_MODEL
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    seed: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    timeout: float | None = Field(default=None, gt=0)
    device: str | None = None
    dtype: str | None = None
    visual_cache: bool | dict[str, Any] | None = None
    media_policy: MediaPolicy = Field(default_factory=MediaPolicy)
    streaming: bool = False
    max_retries: int | None = Field(default=None, exclude=True)
    """Accepted so that this model can take another's place; a local model has no retries."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """Accepted so that this model can take another's place; a local model needs no key."""

    @field_validator("model", mode="before")
    @classmethod
    def _accept_path(cls, model: object) -> object:
        return str(model) if hasattr(model, "__fspath__") else model

    @field_validator("stop", mode="before")
    @classmethod
    def _accept_one_stop(cls, stop: object) -> object:
        return [stop] if isinstance(stop, str) else stop

    @field_validator("visual_cache", mode="before")
    @classmethod
    def _accept_settings(cls, value: object) -> object:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value

    @model_validator(mode="after")
    def _set_ibllm_version(self) -> Self:
        self._add_version("ibllm-tools", __version__)
        return self

    @property
    def _llm_type(self) -> str:
        return "imagebind-llm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on: LangChain's response cache is keyed by it."""
        from ibllm_tools.checkpoints import fingerprint

        names = ("device", "dtype", "stop", "visual_cache", *sorted(_CALL_SETTINGS))
        params = {name: getattr(self, name) for name in names}
        policy = self.media_policy.model_dump(mode="json")
        return {**params, "checkpoint": fingerprint(self.model), "media_policy": policy}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        return params

    def _resolve_model_profile(self) -> ModelProfile:
        return {
            "name": self.model,
            "open_weights": True,
            "text_inputs": True,
            "image_inputs": True,
            "image_url_inputs": bool(self.media_policy.allowed_hosts),
            "audio_inputs": True,
            "video_inputs": True,
            "pdf_inputs": False,
            "image_tool_message": True,
            "text_outputs": True,
            "tool_calling": False,
            "structured_output": False,
            "temperature": True,
        }

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = list(self._stream(messages, stop, run_manager, **kwargs))
        last = chunks[-1].message
        message = AIMessage(
            content="".join(str(chunk.message.content) for chunk in chunks),
            response_metadata=last.response_metadata,
            usage_metadata=last.usage_metadata if isinstance(last, AIMessageChunk) else None,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain calls it back
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        settings = self._settings(stop, kwargs)
        turns, blocks = _split_messages(messages, self.media_policy)
        items = [load(block, self.media_policy) for block in blocks]
        pieces = self._engine(settings["model"]).stream(
            turns, items, _sampling(settings), _cache_settings(settings["visual_cache"])
        )
        for piece in pieces:
            if piece.finish is None:
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece.text))
            else:
                yield _last_chunk(piece.text, piece.finish, items, settings["model"])

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text by the model's own tokenizer, without special tokens."""
        ids: list[int] = self._engine(self.model).tokenizer.encode(text, add_special_tokens=False)
        return ids

    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[Any] | None = None,
    ) -> int:
        """Count the tokens of a prompt as the model's chat template writes it. Media cost none.

        Raises:
            ConfigurationError: `tools` are given; this model takes none.
        """
        if tools:
            raise ConfigurationError("tools were given, but this model calls none; leave them out")
        turns, _ = _split_messages(messages, self.media_policy)
        return len(self._engine(self.model).prompt_ids(turns))

    def _engine(self, model: str) -> Engine:
        from ibllm_tools.engine import open_engine

        return open_engine(model, device=self.device, dtype=self.dtype)

    def _settings(self, stop: list[str] | None, overrides: dict[str, Any]) -> dict[str, Any]:
        unknown = overrides.keys() - _CALL_SETTINGS - _CALL_IGNORED
        if unknown:
            raise ConfigurationError(
                f"a call got {sorted(unknown)}; it may set {sorted(_CALL_SETTINGS)} and stop"
            )
        settings = {name: overrides.get(name, getattr(self, name)) for name in _CALL_SETTINGS}
        return {**settings, "stop": tuple(self.stop or () if stop is None else stop)}


def _split_messages(
    messages: Sequence[BaseMessage], policy: MediaPolicy
) -> tuple[list[dict[str, str]], list[Mapping[str, Any]]]:
    """Split messages into turns of text and the media blocks that the answer is about.

    Messages of one role in a row become one turn, because many chat templates refuse them.
    The media are those of the latest message that has any.
    """
    turns: list[dict[str, str]] = []
    latest: list[Mapping[str, Any]] = []
    for message in messages:
        text, blocks = _split_message(message, policy)
        role = _ROLES.get(message.type, "user")
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = "\n".join(filter(None, [turns[-1]["content"], text]))
        else:
            turns.append({"role": role, "content": text})
        latest = blocks or latest
    return turns, latest


def _split_message(
    message: BaseMessage, policy: MediaPolicy
) -> tuple[str, list[Mapping[str, Any]]]:
    if isinstance(message.content, str):
        return message.content, []
    texts: list[str] = []
    media: list[Mapping[str, Any]] = []
    for block in message.content_blocks:
        if is_media(block):
            media.append(block)
        elif block["type"] in {"text", "text-plain"} and "text" in block:
            texts.append(block["text"])
        elif not _is_silent(block):
            load(block, policy)  # raises a MediaError that names what is accepted
    return "\n".join(texts), media


def _is_silent(block: Mapping[str, Any]) -> bool:
    value = block.get("value")
    kind = value.get("type") if isinstance(value, dict) else block["type"]
    return kind in _SILENT_BLOCKS


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    from ibllm_tools.decoding import MAX_TOKENS, Sampling

    return Sampling(
        temperature=settings["temperature"],
        top_p=settings["top_p"],
        top_k=settings["top_k"],
        max_tokens=settings["max_tokens"] or MAX_TOKENS,
        seed=settings["seed"],
        stop=settings["stop"],
        timeout_s=settings["timeout"],
    )


def _cache_settings(value: bool | dict[str, Any] | None) -> CacheSettings | bool | None:
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


def _last_chunk(
    text: str, finish: Finish, items: Sequence[Item], model: str
) -> ChatGenerationChunk:
    # Names and counts come once, in this chunk: LangChain adds up what several chunks say.
    usage: UsageMetadata = {
        "input_tokens": finish.n_input_tokens,
        "output_tokens": finish.n_output_tokens,
        "total_tokens": finish.n_input_tokens + finish.n_output_tokens,
    }
    if items:
        counts = Counter(item.modality for item in items)
        usage["input_token_details"] = dict(counts)  # type: ignore[typeddict-item]
    metadata = {
        "model_name": model,
        "model_provider": PROVIDER,
        "finish_reason": finish.reason,
    }
    message = AIMessageChunk(
        content=text, usage_metadata=usage, response_metadata=metadata, chunk_position="last"
    )
    return ChatGenerationChunk(message=message)
