"""OpenAI's messages and parts to LangChain's messages and our content blocks. Opens nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from ibllm_tools.media import is_media
from ibllm_tools.serving.problems import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from ibllm_tools.serving.wire import Call, Message, Part

_EXTRAS = ("modality", "weight", "name")


def to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    """Bring a conversation to LangChain's form.

    Raises:
        ApiError: A message lacks its content, or the id of the call that it answers.
    """
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Message, place: str) -> BaseMessage:
    if message.content is None and message.role != "assistant":
        raise invalid(
            f"{place}: found no content; expected a text or a list of parts", f"{place}.content"
        )
    content = _content(message)
    if message.role == "user":
        return HumanMessage(content, name=message.name)
    if message.role in {"system", "developer"}:
        return SystemMessage(content, name=message.name)
    if message.role == "assistant":
        return _assistant(message, content)
    call_id = message.tool_call_id
    if message.role == "tool" and call_id is None:
        raise invalid(
            f"{place}: found no tool_call_id; expected the id of the call that this answers",
            f"{place}.tool_call_id",
        )
    return ToolMessage(content, tool_call_id=call_id or "", name=message.name)


def _content(message: Message) -> Any:
    if not isinstance(message.content, list):
        return message.content or message.refusal or ""
    return [to_block(part) for part in message.content]


def _assistant(message: Message, content: Any) -> AIMessage:
    calls = [
        {"name": call.function.name, "args": _arguments(call), "id": call.id, "type": "tool_call"}
        for call in message.tool_calls or ()
    ]
    thought = message.reasoning_content
    kept = {"reasoning_content": thought} if thought else {}
    return AIMessage(content, tool_calls=calls, name=message.name, additional_kwargs=kept)


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
        return {"type": "text", "text": str(held.get("refusal", ""))}
    inner = held.get(held["type"])
    extras = dict(held["extras"]) if isinstance(held.get("extras"), dict) else {}
    for holder in (inner, held):
        if isinstance(holder, dict):
            extras |= {name: holder.pop(name) for name in _EXTRAS if name in holder}
    if extras:
        held["extras"] = extras
    # As it is, so that nobody on the way reads it in another way.
    return {"type": "non_standard", "value": held} if is_media(held) else held
