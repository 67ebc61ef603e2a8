"""Who answers: the chat model alone, the media agent, or an agent by name. All share threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import HumanMessage, trim_messages
from langchain_core.runnables.config import run_in_executor

from ibllm_tools.agent_graphs import NAMES, open_graph
from ibllm_tools.attachments import AttachmentMiddleware
from ibllm_tools.attachments.lookup import attachments_of
from ibllm_tools.attachments.messages import IDS
from ibllm_tools.attachments.records import tag_of
from ibllm_tools.chat_models import ChatImageBindLLM
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media_agent import create_media_agent

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ModelRequest, ModelResponse
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

    from ibllm_tools.terminal.settings import ChatSettings

MEDIA_AGENT = "media"
AGENTS = (MEDIA_AGENT, *NAMES)
ANSWER_TOKENS = 256


class Brains:
    """Makes graphs over one thread store."""

    def __init__(self, settings: ChatSettings, saver: BaseCheckpointSaver[Any]) -> None:
        """Hold what the graphs share; nothing is loaded."""
        self._settings = settings
        self._saver = saver
        self._folder = settings.folder / "attachments"
        self.attachments = AttachmentMiddleware(self._folder)
        self.chat = ChatImageBindLLM(
            model=settings.model,
            device=settings.device,
            dtype=settings.dtype,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
        )

    def set_cache(self, cache: bool | dict[str, Any] | None) -> None:
        """Set the visual cache of what answers from now on."""
        self.chat = self.chat.model_copy(update={"visual_cache": cache})

    def open(self, agent: str | None) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Make the graph of an agent; None is the chat model alone.

        Raises:
            ConfigurationError: There is no such agent.
        """
        shared: dict[str, Any] = {
            "checkpointer": self._saver,
            "attachments_dir": self._folder,
        }
        if agent is None:
            return self.plain()
        if agent == MEDIA_AGENT:
            return create_media_agent(self.chat, middleware=[FittingHistory(self.chat)], **shared)
        if agent not in NAMES:
            raise ConfigurationError(
                f"found no agent {agent!r}; expected one of {', '.join(AGENTS)}, or off"
            )
        return open_graph(agent, model=self.chat, **shared)

    def plain(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The chat model alone, which also reads and mends threads."""
        around = [self.attachments, WithoutTags(), FittingHistory(self.chat)]
        return create_agent(self.chat, [], middleware=around, checkpointer=self._saver)


class _AroundModel(AgentMiddleware[Any, Any, Any]):
    """Changes what the model is asked."""

    def changed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        raise NotImplementedError

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Ask with the changed request."""
        return handler(self.changed(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Ask with the changed request."""
        return await handler(await run_in_executor(None, self.changed, request))


class WithoutTags(_AroundModel):
    """Hides names of files from a model that is given the media themselves.

    A model should tell what it perceives, and not what a file is called.
    """

    def changed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """Take the tags of attachments out of what people said."""
        held = attachments_of(request.state)
        messages = [_untagged(message, held) for message in request.messages]
        return request.override(messages=messages)


def _untagged(message: Any, held: Any) -> Any:
    ids = message.additional_kwargs.get(IDS)
    if not isinstance(message, HumanMessage) or not ids:
        return message
    text = str(message.text)
    for id_ in ids:
        text = text.replace(tag_of(held[id_]), "") if id_ in held else text
    text = " ".join(text.split(" ")).strip()
    if isinstance(message.content, str):
        return message.model_copy(update={"content": text})
    media = [part for part in message.content if _is_medium(part)]
    return message.model_copy(update={"content": [{"type": "text", "text": text}, *media]})


def _is_medium(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") != "text"


class FittingHistory(_AroundModel):
    """Leaves out the oldest turns of a conversation that no longer fits the model."""

    def __init__(self, chat: ChatImageBindLLM) -> None:
        """Count with the model's own tokenizer."""
        super().__init__()
        self._chat = chat

    def changed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """Keep the latest turns that leave room for an answer."""
        size = (self._chat.profile or {}).get("max_input_tokens")
        if size is None:
            return request
        answer = min(self._chat.max_tokens or ANSWER_TOKENS, size // 2)
        messages: list[Any] = list(request.messages)
        count = self._chat.get_num_tokens_from_messages
        listed = count(messages[-1:], request.tools) - count(messages[-1:])
        room = max(size - answer - listed, size // 4)
        kept: list[Any] = trim_messages(
            messages, max_tokens=room, token_counter=self._chat, start_on="human"
        )
        return request.override(messages=kept or messages[-1:])
