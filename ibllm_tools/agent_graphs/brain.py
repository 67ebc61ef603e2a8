"""Who answers: a model with senses looks for itself, any other one asks pocket by `perceive`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from langchain.agents.middleware.types import AgentState
from langchain_core.messages import HumanMessage
from langgraph.config import get_stream_writer

from ibllm_tools.agent_graphs.state import Shelf
from ibllm_tools.attachments import AttachmentMiddleware
from ibllm_tools.attachments.records import Attachment, media_of, merge, tag_of
from ibllm_tools.attachments.senses import senses_of
from ibllm_tools.chat_models import ChatImageBindLLM
from ibllm_tools.media_agent import SYSTEM_PROMPT

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph

MAX_MODEL_CALLS, MAX_TOOL_CALLS = 6, 8


def open_model(model: str | BaseChatModel | None) -> BaseChatModel:
    """The chat model of a name: pocket by default.

    Args:
        model: A chat model; "pocket", a folder or a hub id; or a name for `init_chat_model`,
            such as "openai:gpt-5".

    Raises:
        ValueError: `init_chat_model` does not know the provider.
        ImportError: The package of the provider is missing.
    """
    if model is None:
        return ChatImageBindLLM()
    if not isinstance(model, str):
        return model
    if ":" in model and not Path(model).exists():
        from langchain.chat_models import init_chat_model

        opened: BaseChatModel = init_chat_model(model)
        return opened
    return ChatImageBindLLM(model=model)


class _HeldState(AgentState[Any]):
    """The state of the agent within a graph: the graph hands it the attachments."""

    attachments: NotRequired[Annotated[dict[str, Attachment], merge]]


class _Handed(AttachmentMiddleware):
    state_schema = _HeldState


class Brain:
    """A chat model with what it needs to answer about attachments."""

    def __init__(self, model: str | BaseChatModel | None, shelf: Shelf) -> None:
        """Open `model`; where it is no `ChatImageBindLLM`, pocket perceives for it."""
        self.model = open_model(model)
        own = isinstance(self.model, ChatImageBindLLM)
        self.perceiver: BaseChatModel = self.model if own else ChatImageBindLLM()
        self._shelf = shelf
        self._agent: CompiledStateGraph[Any, Any, Any, Any] | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is a `ChatImageBindLLM`, which mixes what it perceives."""
        return self.perceiver is self.model

    @property
    def has_senses(self) -> bool:
        """Whether the model takes any medium by itself."""
        return senses_of(self.model) is not None

    def senses(self, records: Sequence[Attachment]) -> bool:
        """Whether the model itself takes all of these attachments."""
        senses = senses_of(self.model)
        found = [record["modality"] for record in records]
        return bool(found) and senses is not None and senses.modalities.issuperset(found)

    def media(self, records: Sequence[Attachment]) -> list[Any]:
        """The content blocks of attachments, as the model takes them.

        Raises:
            MediaError: Their bytes are gone.
        """
        blocks = [media_of(record, self._shelf.files.get(record["sha256"])) for record in records]
        if self.is_own:
            return list(blocks)
        return [{key: block[key] for key in ("type", "base64", "mime_type")} for block in blocks]

    def answer(self, question: str, records: Sequence[Attachment]) -> str:
        """Answer a question about attachments.

        Args:
            question: With the tags of the attachments.
            records: What it is about.
        """
        if self.senses(records):
            asked = without_tags(question, records) if self.is_own else question
            return self.model.invoke([HumanMessage([asked, *self.media(records)])]).text
        if not records:
            return self.model.invoke([HumanMessage(question)]).text
        if self._agent is None:
            self._agent = self._perceiving_agent()
        held = {record["id"]: record for record in records}
        told: Any = {"messages": [HumanMessage(question)], "attachments": held}
        return _streamed(self._agent, told)

    def _perceiving_agent(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        from langchain.agents import create_agent
        from langchain.agents.middleware import ModelCallLimitMiddleware, ToolCallLimitMiddleware

        from ibllm_tools.agent_graphs.telling import TellingTools
        from ibllm_tools.toolkit import ImageBindLLMToolkit

        kit = ImageBindLLMToolkit(
            chat=self.perceiver,
            detector=False,
            recognizer=False,
            media_policy=self._shelf.policy,
        )
        handed = _Handed(self._shelf.files.folder, media_policy=self._shelf.policy)
        return create_agent(
            self.model,
            [tool for tool in kit.get_tools() if tool.name == "perceive"],
            system_prompt=SYSTEM_PROMPT,
            middleware=[
                handed,
                TellingTools(),
                ModelCallLimitMiddleware(run_limit=MAX_MODEL_CALLS),
                ToolCallLimitMiddleware(run_limit=MAX_TOOL_CALLS),
            ],
        )


def _streamed(agent: CompiledStateGraph[Any, Any, Any, Any], told: Any) -> str:
    """Run an agent within a node, and pass its steps on."""
    tell, answer = get_stream_writer(), ""
    events: Any = agent.stream(told, stream_mode=["custom", "values"])
    for kind, event in events:
        if kind == "custom":
            tell(event)
        else:
            answer = event["messages"][-1].text
    return answer


def without_tags(text: str, records: Sequence[Attachment]) -> str:
    """A question without the tags of its attachments, which say nothing to who senses them."""
    for record in records:
        text = text.replace(tag_of(record), "")
    return " ".join(text.split())
