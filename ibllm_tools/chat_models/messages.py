"""LangChain messages to the engine's turns: role, text, calls, and the media of each turn.

```
message -> _parts (role, text, calls, media blocks) -> _Turns.add -> Conversation
```
Every spelling of a content block that LangChain knows is read here; nothing is opened.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, ToolMessage

from ibllm_tools.chat_models.provider import PROVIDER
from ibllm_tools.errors import MediaError
from ibllm_tools.media import is_media, load
from ibllm_tools.media.blocks import locate

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from ibllm_tools.media import MediaPolicy

Block = Mapping[str, Any]

REASONING = "reasoning_content"
"""Where a message keeps what the model thought; LangChain makes a `reasoning` block of it."""

_ROLES = {
    "ai": "assistant",
    "assistant": "assistant",
    "developer": "system",
    "function": "tool",
    "system": "system",
    "tool": "tool",
}
_SILENT = frozenset(
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
"""Blocks of a model's own answers that hold nothing to sense or to read."""
_RESULTS = frozenset({"custom_tool_call_output", "document", "json", "search_result"})
"""Blocks that tools return besides text and media; they are read as text."""


@dataclass(frozen=True)
class Conversation:
    """A conversation as the engine takes it.

    Attributes:
        turns: `{"role", "content", "reasoning_content"?, "tool_calls"?, "tool_call_id"?,
            "name"?}` in order.
        blocks: Every media block, in order.
        media: For each turn, which of `blocks` it is about; empty where nothing new came.
    """

    turns: list[dict[str, Any]]
    blocks: list[Block]
    media: list[list[int]]


@dataclass
class _Part:
    """What one message, or one tool result inside of a message, holds."""

    role: str
    texts: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    reasoning: str = ""
    call_id: str | None = None
    name: str | None = None


def read_messages(messages: Sequence[BaseMessage], policy: MediaPolicy) -> Conversation:
    """Read a conversation.

    Messages of one side in a row become one turn, because many chat templates refuse them; each
    tool result stays a turn of its own. Media of one turn, and of tool results in a row, are
    mixed.

    Raises:
        MediaError: A block is of no accepted kind; the message names what is accepted.
    """
    conversation = Conversation([], [], [])
    names: dict[str, str] = {}
    for message in messages:
        for part in _parts(message, policy):
            names.update({call["id"]: call["function"]["name"] for call in part.calls})
            part.name = part.name or names.get(part.call_id or "")
            _add(conversation, part)
    return conversation


def plain_text(message: BaseMessage) -> str:
    """The text of a message without media, calls and what is no text. Never raises."""
    return "\n".join(text for part in _parts(message, None) for text in part.texts if text)


def _add(conversation: Conversation, part: _Part) -> None:
    turns, media = conversation.turns, conversation.media
    first = len(conversation.blocks)
    conversation.blocks.extend(part.blocks)
    new = list(range(first, len(conversation.blocks)))
    follows = bool(turns) and turns[-1]["role"] == part.role
    before = media[-1] if follows else []
    text = "\n".join(filter(None, part.texts))
    if follows and part.role != "tool":
        turn = turns[-1]
        turn["content"] = "\n".join(filter(None, [turn["content"], text]))
        media[-1] = before + new
    else:
        turn = {"role": part.role, "content": text}
        turns.append(turn)
        media.append(before + new if new else [])
    if part.reasoning:
        turn["reasoning_content"] = turn.get("reasoning_content", "") + part.reasoning
    if part.calls:
        turn["tool_calls"] = [*turn.get("tool_calls", []), *part.calls]
    if part.role == "tool":
        turn.update({"tool_call_id": part.call_id or "", "name": part.name or ""})


def _parts(message: BaseMessage, policy: MediaPolicy | None) -> Iterator[_Part]:
    """Split a message; tool results inside of a user's, as Anthropic writes them, come first."""
    role = message.role if isinstance(message, ChatMessage) else message.type
    own = _Part(_ROLES.get(role, "user"), name=message.name)
    if isinstance(message, ToolMessage):
        own.call_id = message.tool_call_id
    if isinstance(message, AIMessage):
        own.calls = [_call(c["id"], c["name"], c["args"]) for c in message.tool_calls]
        own.reasoning = _reasoning(message)
    for block in _blocks(message):
        value = block.get("value") if block.get("type") == "non_standard" else block
        if not isinstance(value, Mapping):
            value = block
        kind = value.get("type")
        if kind == "tool_result" and isinstance(message, HumanMessage):
            yield _result_part(value, policy)
        elif kind == "tool_use" and isinstance(message, AIMessage) and not message.tool_calls:
            own.calls.append(_call(value.get("id"), str(value.get("name")), value.get("input")))
        else:
            _read_block(block, value, own, policy)
    if isinstance(message, ToolMessage) and message.status == "error":
        own.texts = _marked_as_error(own.texts)
    if own.role != "user" or own.texts or own.blocks or not _has_results(message):
        yield own


def _reasoning(message: AIMessage) -> str:
    """What the model thought before an answer of its own; other models think in other ways."""
    if message.response_metadata.get("model_provider", PROVIDER) != PROVIDER:
        return ""
    kept = message.additional_kwargs.get(REASONING)
    if isinstance(kept, str) or isinstance(message.content, str):
        return kept if isinstance(kept, str) else ""
    held = [block.get("reasoning") for block in message.content if isinstance(block, dict)]
    return "".join(text for text in held if isinstance(text, str))


def _has_results(message: BaseMessage) -> bool:
    return isinstance(message.content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in message.content
    )


def _blocks(message: BaseMessage) -> Sequence[Block]:
    if isinstance(message.content, list):
        return message.content_blocks
    restored = _restored(message.content) if isinstance(message, ToolMessage) else None
    return restored or [{"type": "text", "text": message.content}]


def _restored(content: str) -> list[Block] | None:
    """Blocks that LangGraph's tool node has written as JSON, because it knows no such block.

    Only bytes in the text itself are taken: a text that a tool found somewhere can open nothing.
    """
    if content[:1] not in "[{" or '"type"' not in content:
        return None
    try:
        found = json.loads(content)
    except ValueError:
        return None
    blocks = found if isinstance(found, list) else [found]
    if not any(is_media(block) for block in blocks):
        return None
    if all(isinstance(block, dict) and _is_inline(block) for block in blocks):
        return blocks
    return None


def _is_inline(block: Block) -> bool:
    if block.get("type") == "text":
        return True
    try:
        place = locate(block)
    except MediaError:
        return False
    held = place.where == "url" and str(place.value)[:5].lower() == "data:"
    return held or place.where == "base64"


def _read_block(block: Block, value: Block, part: _Part, policy: MediaPolicy | None) -> None:
    kind = value.get("type")
    if is_media(block):
        part.blocks.append(block)
    elif kind in {"text", "text-plain"} and isinstance(value.get("text"), str):
        part.texts.append(value["text"])
    elif kind == "text-plain" and isinstance(value.get("base64"), str):
        part.texts.append(_decoded(value["base64"]))
    elif kind in _RESULTS and part.role == "tool":
        part.texts.append(_readable(value))
    elif kind not in _SILENT and policy is not None:
        load(block, policy)  # raises a MediaError that names what is accepted


def _result_part(result: Block, policy: MediaPolicy | None) -> _Part:
    part = _Part("tool", call_id=str(result.get("tool_use_id", "")))
    content = result.get("content")
    if isinstance(content, str):
        part.texts.append(content)
    for block in content if isinstance(content, list) else []:
        if isinstance(block, Mapping):
            _read_block(block, block, part, policy)
    if result.get("is_error"):
        part.texts = _marked_as_error(part.texts)
    return part


def _call(call_id: Any, name: str, arguments: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "id": str(call_id or ""),
        "function": {"name": name, "arguments": arguments or {}},
    }


def _marked_as_error(texts: list[str]) -> list[str]:
    """Chat templates have no place for a status, so that the text says it."""
    if any("error" in text.lower() for text in texts):
        return texts
    return [f"Error: {text}" for text in texts] or ["Error"]


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        return ""


def _readable(block: Block) -> str:
    """A tool's structured result as text: the texts that it holds, or else its JSON."""
    held = block.get("content", block.get("output", block.get("text")))
    if isinstance(held, str):
        return held
    if isinstance(held, list):
        texts = [b["text"] for b in held if isinstance(b, Mapping) and "text" in b]
        if texts:
            return "\n".join(map(str, texts))
    value = {key: held for key, held in block.items() if key != "type"}
    return json.dumps(value.get("json", value), ensure_ascii=False, default=str)
