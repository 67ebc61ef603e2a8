"""One turn: a message goes to a graph, and what comes back is told as events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

STOPPED = "stopped"
"""Key of a message's `additional_kwargs`: the answer was cut off by the person."""
_MODEL = "model"
_NOTHING_SAID = "(stopped)"


@dataclass(frozen=True)
class Token:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Thought:
    """A piece of what the model notes before it answers."""

    text: str


@dataclass(frozen=True)
class Step:
    """Something that an agent did."""

    text: str


Event = Token | Thought | Step


async def talk(
    graph: CompiledStateGraph[Any, Any, Any, Any], message: HumanMessage, config: Any
) -> AsyncIterator[Event]:
    """Run one turn.

    Args:
        graph: Who answers.
        message: What the person said, with media.
        config: Names the thread.

    Yields:
        Pieces of the answer as they come, and the steps that lead to it.
    """
    said = False
    last = ""
    modes: Any = ["messages", "updates", "custom"]
    asked = {"messages": [message]}
    # Saved before each next step: what was asked survives a terminal that is closed meanwhile.
    run = graph.astream(asked, config, stream_mode=modes, durability="sync")
    async for mode, data in run:
        if mode == "custom":
            # The answer itself is told as an answer.
            if isinstance(data, dict) and data.get("text") and data.get("step") != "answer":
                yield Step(f"{data.get('step', 'step')}: {data['text']}")
        elif mode == "messages":
            for event in _pieces(*data):
                said = said or isinstance(event, Token)
                yield event
        else:
            for told in _new_messages(data):
                for event in _steps(told):
                    yield event
                if isinstance(told, AIMessage) and not told.tool_calls:
                    last = told.text
    if not said and last:  # an agent that tells its answer as a whole
        yield Token(last)


def _pieces(chunk: BaseMessage, about: dict[str, Any]) -> list[Event]:
    """Pieces of what the model says to the person, and not of what tools ask models."""
    if about.get("langgraph_node") != _MODEL or not isinstance(chunk, AIMessageChunk):
        return []
    thought = chunk.additional_kwargs.get("reasoning_content")
    events: list[Event] = [Thought(str(thought))] if thought else []
    return [*events, Token(chunk.text)] if chunk.text else events


def _new_messages(update: Any) -> list[BaseMessage]:
    found: list[BaseMessage] = []
    for values in update.values() if isinstance(update, dict) else ():
        messages = values.get("messages") if isinstance(values, dict) else None
        found += [m for m in messages or () if isinstance(m, BaseMessage)]
    return found


def _steps(message: BaseMessage) -> list[Step]:
    if isinstance(message, AIMessage):
        return [Step(f"{call['name']}({_shown(call['args'])})") for call in message.tool_calls]
    if isinstance(message, ToolMessage) and message.text:
        return [Step(f"{message.name}: {message.text}")]
    return []


def _shown(args: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())


async def history(
    graph: CompiledStateGraph[Any, Any, Any, Any], config: Any
) -> tuple[list[BaseMessage], dict[str, Any]]:
    """The messages and attachments of a thread; empty for a new one."""
    values = (await graph.aget_state(config)).values
    return list(values.get("messages", ())), dict(values.get("attachments", {}))


async def mend(
    graph: CompiledStateGraph[Any, Any, Any, Any], config: Any, said: str | None = None
) -> bool:
    """Close a turn that was cut off, so that the talk can go on from there.

    What is left is the question, and what was said so far; half done calls of tools go.

    Args:
        graph: The plain graph.
        config: Names the thread.
        said: What came of the answer; None where it is not known.

    Returns:
        Whether there was anything to mend.
    """
    messages, _ = await history(graph, config)
    places = [n for n, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not places:
        return False
    rest = messages[places[-1] + 1 :]
    if rest and isinstance(rest[-1], AIMessage) and not rest[-1].tool_calls:
        return False
    gone = [RemoveMessage(id=message.id) for message in rest if message.id]
    stopped = AIMessage(said or _NOTHING_SAID, additional_kwargs={STOPPED: True})
    await graph.aupdate_state(config, {"messages": [*gone, stopped]}, as_node=_MODEL)
    return True


async def change(
    graph: CompiledStateGraph[Any, Any, Any, Any], config: Any, values: dict[str, Any]
) -> None:
    """Write messages or attachments into a thread."""
    await graph.aupdate_state(config, values, as_node=_MODEL)
