"""What `ChatImageBindLLM` is before it answers: settings, identity, abilities, token counts."""

from __future__ import annotations

from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.config import run_in_executor
from langchain_core.utils import from_env
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from ibllm_tools import __version__
from ibllm_tools.chat_models.capabilities import model_profile
from ibllm_tools.chat_models.messages import plain_text, read_messages
from ibllm_tools.chat_models.provider import PROVIDER
from ibllm_tools.chat_models.settings import ANSWER_SETTINGS, MAX_TOP_LOGPROBS
from ibllm_tools.chat_models.tools import as_tools
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import MediaPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from typing import Self

    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.language_models.model_profile import ModelProfile
    from langchain_core.messages import AIMessageChunk, BaseMessage
    from langchain_core.outputs import LLMResult

    from ibllm_tools.engine import Engine

DEFAULT_MODEL = "pocket"
_STATE: ContextVar[tuple[str, str] | None] = ContextVar("ibllm_checkpoint_state", default=None)
"""A model and the state of its files, looked up outside of the event loop that asks for it."""


class ConfiguredChatModel(BaseChatModel):
    """What `ChatImageBindLLM` is set to; it says there what each field means."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    model: str = Field(default_factory=from_env("IBLLM_MODEL", default=DEFAULT_MODEL))
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    seed: int | None = None
    n: int = Field(default=1, ge=1)
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    timeout: float | None = Field(default=None, gt=0)
    device: str | None = Field(default_factory=from_env("IBLLM_DEVICE", default=None))
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
    def _check_streaming(self) -> Self:
        if self.streaming and self.n > 1:
            raise ValueError(f"{several(self.n)}; set streaming=False or n=1")
        return self

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
        names = ("device", "dtype", "stop", *ANSWER_SETTINGS)
        params = {name: getattr(self, name) for name in names}
        policy = self.media_policy.model_dump(mode="json")
        known = _STATE.get()
        _, state = known if known and known[0] == self.model else _look_up(self.model)
        return {**params, "checkpoint": state, "media_policy": policy}

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Answer as LangChain's own method does, which needs the state of the model's files."""
        token = _STATE.set(await run_in_executor(None, _look_up, self.model))
        try:
            return await super().agenerate(*args, **kwargs)
        finally:
            _STATE.reset(token)

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[AIMessageChunk]:
        """Stream as LangChain's own method does; see `agenerate`."""
        _STATE.set(await run_in_executor(None, _look_up, self.model))
        try:
            chunks = cast("AsyncGenerator[AIMessageChunk]", super().astream(*args, **kwargs))
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        finally:
            _STATE.set(None)  # an iterator may be closed in another context

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        return params

    def _resolve_model_profile(self) -> ModelProfile:
        return model_profile(self.model, follows_urls=bool(self.media_policy.allowed_hosts))

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text by the model's own tokenizer, without special tokens."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        ids: list[int] = self._engine(self.model).tokenizer.encode(text, add_special_tokens=False)
        return ids

    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[Any] | None = None,
    ) -> int:
        """Count the tokens of a prompt as the model's chat template writes it.

        Media cost none, however long their base64 is. The method serves as `token_counter` of
        `trim_messages` and `SummarizationMiddleware`: a part of a conversation that the template
        refuses is counted by its texts.

        Args:
            messages: Any part of a conversation.
            tools: Tools that the prompt would list.
        """
        from jinja2 import TemplateError

        if not messages:
            return 0
        turns = read_messages(messages, self.media_policy).turns
        try:
            return len(self._engine(self.model).prompt_ids(turns, as_tools(tools or ())))
        except (TemplateError, ConfigurationError):
            return sum(len(self.get_token_ids(plain_text(message))) for message in messages)

    def _engine(self, model: str) -> Engine:
        from ibllm_tools.engine import open_engine

        return open_engine(model, device=self.device, dtype=self.dtype)


def several(n: int) -> str:
    """Say why `n` answers are refused where one is streamed."""
    return f"n is {n}, but several answers cannot be streamed"


def _look_up(model: str) -> tuple[str, str]:
    """A model, and what tells this state of its files from others; reads the folder."""
    from ibllm_tools.checkpoints import fingerprint

    return model, fingerprint(model)
