"""A talk as a file: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from ibllm_tools.attachments.records import Attachment
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.terminal.attached import ids_of
from ibllm_tools.terminal.talking import STOPPED

FORMS = (".md", ".json")


def transcript(
    thread: str, messages: Sequence[BaseMessage], held: dict[str, Attachment], form: str
) -> str:
    """Write a talk down.

    Args:
        thread: Its name.
        messages: What was said.
        held: Its attachments.
        form: One of `FORMS`.
    """
    saved = datetime.now(UTC).isoformat(timespec="seconds")
    if form == ".json":
        talk = {
            "thread": thread,
            "saved": saved,
            "messages": [_as_json(message) for message in messages],
            "attachments": list(held.values()),
        }
        return json.dumps(talk, ensure_ascii=False, indent=2) + "\n"
    parts = [f"# {thread}", f"Saved {saved}."]
    for message in messages:
        parts += _as_markdown(message, held)
    return "\n\n".join(parts) + "\n"


def form_of(path: Path) -> str:
    """The form that a file's name asks for.

    Raises:
        ConfigurationError: There is no such form.
    """
    if path.suffix.lower() not in FORMS:
        raise ConfigurationError(
            f"{path}: found the ending {path.suffix!r}; expected {' or '.join(FORMS)}"
        )
    return path.suffix.lower()


def write(path: Path, data: bytes, *, over: bool) -> None:
    """Write a file; one that is there stays unless it is to be written over.

    Raises:
        ConfigurationError: It is there, or cannot be written.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path}: found a folder or device; expected the name of a file")
    if path.exists() and not over:
        raise ConfigurationError(f"{path}: found a file; /save -f {path} writes over it")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from error


def _as_json(message: BaseMessage) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.type, "text": message.text}
    if ids := ids_of(message):
        told["attachments"] = ids
    if isinstance(message, AIMessage):
        if message.tool_calls:
            told["tool_calls"] = message.tool_calls
        if thought := message.additional_kwargs.get("reasoning_content"):
            told["reasoning"] = thought
        if message.additional_kwargs.get(STOPPED):
            told["stopped"] = True
    if isinstance(message, ToolMessage):
        told["tool"] = message.name
    return told


def _as_markdown(message: BaseMessage, held: dict[str, Attachment]) -> list[str]:
    text = message.text.strip()
    if isinstance(message, HumanMessage):
        parts = [f"**You:** {text}"]
        for id_ in ids_of(message):
            record = held.get(id_)
            if record is not None:
                kind, weight = record["modality"], record["weight"]
                parts.append(f"- {id_}: {record['name'] or kind} ({kind}, weight {weight:g})")
        return ["\n".join(parts)]
    if isinstance(message, ToolMessage):
        return [f"> {message.name}: " + text.replace("\n", "\n> ")]
    if isinstance(message, AIMessage):
        calls = [f"> → {call['name']} {json.dumps(call['args'], ensure_ascii=False)}"
                 for call in message.tool_calls]  # fmt: skip
        return [*calls, *([text] if text else [])]
    return [text] if text else []
