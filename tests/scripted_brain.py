"""A chat model that says what it was told to say: the brain of agents in tests."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

Step = str | AIMessage | Callable[[list[BaseMessage]], str | AIMessage]


class ScriptedBrain(BaseChatModel):
    """Plays `script`, step by step; a step may be a function of the messages so far."""

    script: Sequence[Any] = ()
    seen: list[list[BaseMessage]] = Field(default_factory=list)
    offered: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools, **kwargs):
        self.offered[:] = [tool.name for tool in tools]
        return self

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        step = self.script[len(self.seen) % len(self.script)]
        self.seen.append(list(messages))
        said = step(messages) if callable(step) else step
        message = AIMessage(said) if isinstance(said, str) else said.model_copy(deep=True)
        return ChatResult(generations=[ChatGeneration(message=message)])


def call(name: str, /, **args: Any) -> AIMessage:
    """An answer that calls one tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call-{name}"}])


def result(messages: list[BaseMessage]) -> str:
    """What the last tool said."""
    return f"It says: {messages[-1].text}"
