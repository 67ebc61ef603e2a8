"""OpenAI's messages and parts to LangChain's messages and our content blocks. Opens nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core import messages as lc

from ibllm_tools.chat_models.messages import REASONING
from ibllm_tools.media import is_media

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from ibllm_tools.serving.wire import AssistantMessage, Call, Content, Message, Part

_EXTRAS = ("modality", "weight", "name")


def to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    """Bring a conversation to LangChain's form."""
    return [_message(message) for message in messages]


def _message(message: Message) -> BaseMessage:
    content = _content(message.content)
    if message.role == "user":
        return lc.HumanMessage(content, name=message.name)
    if message.role == "assistant":
        return _assistant(message, content)
    if message.role == "tool":
        return lc.ToolMessage(content, tool_call_id=message.tool_call_id, name=message.name)
    return lc.SystemMessage(content, name=message.name)


def _content(content: Content | None) -> Any:
    if not isinstance(content, list):
        return content or ""
    return [to_block(part) for part in content]


def _assistant(message: AssistantMessage, content: Any) -> lc.AIMessage:
    calls = [
        {"name": call.function.name, "args": _arguments(call), "id": call.id, "type": "tool_call"}
        for call in message.tool_calls or ()
    ]
    thought = message.reasoning_content
    return lc.AIMessage(
        content or message.refusal or "",
        tool_calls=calls,
        name=message.name,
        additional_kwargs={REASONING: thought} if thought else {},
    )


def _arguments(call: Call) -> dict[str, Any]:
    """The arguments of a call; what is no JSON object is kept as it is, under one name."""
    try:
        found = json.loads(call.function.arguments or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": call.function.arguments}


def to_block(part: Part) -> dict[str, Any]:
    """Bring a part to a content block; what is said about a medium goes into its `extras`."""
    held: dict[str, Any] = part.model_dump(exclude_none=True)
    if held["type"] == "refusal":
        return {"type": "text", "text": held["refusal"]}
    inner = held.get(held["type"])
    extras = dict(held["extras"]) if isinstance(held.get("extras"), dict) else {}
    for holder in (inner, held):
        if isinstance(holder, dict):
            extras |= {name: holder.pop(name) for name in _EXTRAS if name in holder}
    if extras:
        held["extras"] = extras
    # As it is, so that nobody on the way reads it in another way.
    return {"type": "non_standard", "value": held} if is_media(held) else held
