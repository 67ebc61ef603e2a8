"""Messages with media to messages with tags, and back for models that have senses.

```
HumanMessage [text, image block]  -> "What is this? [image-1: photo.jpg]" + attachments
ToolMessage text, artifact media  -> artifact without bytes (`unload`) -> text + tag (`attach`)
tagged message                    -> text + the media themselves (`show`), for one model call
```
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, ToolMessage

from ibllm_tools.attachments.lookup import find
from ibllm_tools.attachments.records import (
    Attachment,
    Attachments,
    is_record,
    media_of,
    numbered,
    tag_of,
)
from ibllm_tools.errors import MediaError
from ibllm_tools.media import Modality, is_media
from ibllm_tools.media.blocks import locate

IDS = "attachments"
"""Key of a message's `additional_kwargs`: the ids of its attachments."""
_UNNUMBERED = "unnumbered_attachments"
_SEEN = "tool_media_for_model"
_MAX_DEPTH = 3

Store = Callable[[Mapping[str, Any]], Attachment]
"""Stores a block's bytes and returns a record without an id; raises `MediaError`."""


def attach(
    messages: Sequence[AnyMessage], held: Attachments, store: Store
) -> tuple[list[AnyMessage], dict[str, Attachment]]:
    """Turn the media of messages into attachments.

    Args:
        messages: A conversation; what was attached before is passed over.
        held: The attachments so far.
        store: Stores the bytes of a block.

    Returns:
        The messages that changed, under their old ids, and the new attachments.
    """
    new: dict[str, Attachment] = {}
    changed: list[AnyMessage] = []
    told: AnyMessage
    for message in messages:
        known = {**held, **new}
        if isinstance(message, HumanMessage) and _has_media(message):
            told, records = _human(message, known, store)
        elif isinstance(message, ToolMessage) and _UNNUMBERED in message.additional_kwargs:
            told, records = _tool(message, known)
        else:
            continue
        changed.append(told)
        new.update({record["id"]: record for record in records})
    return changed, new


def unload(message: ToolMessage, store: Store) -> ToolMessage:
    """Take the bytes of a tool's media out of its result; `attach` gives them their ids.

    Media in the content are meant for the model, media in the artifact for people.
    """
    records: list[Attachment] = []

    def stored(block: Mapping[str, Any]) -> dict[str, Any]:
        record = store(block)
        records.append(record)
        return {"type": "attachment", "sha256": record["sha256"], "name": record["name"]}

    content, n_shown = message.content, 0
    if isinstance(content, list):
        content, n_shown = _without_media(content, stored)
    artifact = _unloaded(message.artifact, stored, _MAX_DEPTH)
    if not records:
        return message
    kwargs = {**message.additional_kwargs, _UNNUMBERED: records, _SEEN: n_shown}
    return message.model_copy(
        update={"content": content, "artifact": artifact, "additional_kwargs": kwargs}
    )


def show(
    messages: Sequence[AnyMessage],
    held: Attachments,
    read: Callable[[Attachment], bytes],
    senses: Collection[Modality],
    *,
    n_last: int,
    tools: bool,
    plain: bool,
) -> list[AnyMessage]:
    """Put media back beside their tags, for one call of a model that can sense them.

    Args:
        messages: A conversation with tags.
        held: Its attachments.
        read: Reads the bytes of one; those that are gone stay tags.
        senses: What the model takes.
        n_last: So many of the latest attachments are shown.
        tools: Whether the model takes pictures in tool results.
        plain: Whether blocks should hold what LangChain's standard names, and no more.
    """
    shown: list[AnyMessage] = []
    left = n_last
    for message in reversed(messages):
        ids = [id_ for id_ in _ids(message, tools=tools) if _fits(held.get(id_), senses)]
        ids = ids[max(0, len(ids) - left) :]
        left -= len(ids)
        blocks = [block for id_ in ids for block in _block(held[id_], read, plain=plain)]
        if blocks:
            text = {"type": "text", "text": message.text}
            message = message.model_copy(update={"content": [text, *blocks]})
        shown.append(message)
    return shown[::-1]


def ids_of(message: BaseMessage) -> list[str]:
    """The attachments that came with a message."""
    return _listed(message, IDS)


def ids_for_people(messages: Sequence[AnyMessage]) -> list[str]:
    """The attachments that tools drew for people; the model has not been shown them."""
    held = [message for message in messages if isinstance(message, ToolMessage)]
    return [
        id_
        for message in held
        for id_ in _listed(message, IDS)
        if id_ not in _listed(message, _SEEN)
    ]


def drawn_since_asked(messages: Sequence[AnyMessage]) -> list[str]:
    """Of `ids_for_people` those that came after the last question of a person."""
    asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    return ids_for_people(messages[asked[-1] :]) if asked else []


def _has_media(message: BaseMessage) -> bool:
    content = message.content
    return isinstance(content, list) and any(is_media(block) for block in content)


def _human(
    message: HumanMessage, known: Attachments, store: Store
) -> tuple[HumanMessage, list[Attachment]]:
    parts: list[tuple[str, bool]] = []  # text, and whether it is a tag
    others: list[Any] = []
    records: list[Attachment] = []
    for block in message.content:
        if isinstance(block, str):
            parts.append((block, False))
        elif is_media(block):
            held = {**known, **{record["id"]: record for record in records}}
            tag, record = _tagged(block, held, store)
            parts.append((tag, True))
            records += [record] if record else []
        elif block.get("type") == "text" and isinstance(block.get("text"), str):
            parts.append((block["text"], False))
        else:
            others.append(block)
    text = _joined(parts)
    content: Any = [{"type": "text", "text": text}, *others] if others else text
    ids = list(dict.fromkeys(record["id"] for record in records))
    kwargs = {**message.additional_kwargs, IDS: ids}
    told = message.model_copy(update={"content": content, "additional_kwargs": kwargs})
    return told, records


def _tagged(
    block: Mapping[str, Any], held: Attachments, store: Store
) -> tuple[str, Attachment | None]:
    """The tag of a person's medium; one that cannot be read says why, and the talk goes on."""
    try:
        located = locate(block)
        again = located.where == "file_id"
        record = find(held, str(located.value)) if again else numbered(store(block), held)
    except MediaError as error:
        return f"[refused attachment: {clean_reason(error)}]", None
    return tag_of(record), record


def clean_reason(error: MediaError) -> str:
    """An error's text that cannot end the tag in which it stands."""
    return " ".join(str(error).replace("[", "(").replace("]", ")").split())


def _joined(parts: Sequence[tuple[str, bool]]) -> str:
    """Texts on lines of their own; a tag on the line of its neighbour."""
    joined, after_tag = "", True
    for text, is_tag in parts:
        if not text:
            continue
        gap = "" if not joined else " " if is_tag or after_tag else "\n"
        joined, after_tag = joined + gap + text, is_tag
    return joined


def _tool(message: ToolMessage, known: Attachments) -> tuple[ToolMessage, list[Attachment]]:
    kwargs = dict(message.additional_kwargs)
    unnumbered, n_shown = kwargs.pop(_UNNUMBERED), kwargs.pop(_SEEN, 0)
    records: list[Attachment] = []
    # A caller of a served agent may write what it likes into a message.
    for record in filter(is_record, unnumbered if isinstance(unnumbered, list) else []):
        held = {**known, **{other["id"]: other for other in records}}
        records.append(numbered(record, held))
    ids = [record["id"] for record in records]
    # Media of the content come first; those of the artifact are for people.
    kwargs.update({IDS: ids, _SEEN: ids[:n_shown] if isinstance(n_shown, int) else []})
    tags = " ".join(dict.fromkeys(tag_of(record) for record in records))
    content: Any
    if isinstance(message.content, str):
        content = f"{message.content} {tags}".strip()
    else:
        content = [*message.content, {"type": "text", "text": tags}]
    told = message.model_copy(update={"content": content, "additional_kwargs": kwargs})
    return told, records


def _without_media(
    content: list[Any], stored: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> tuple[Any, int]:
    kept: list[Any] = []
    n_media = 0
    for block in content:
        if not is_media(block):
            kept.append(block)
            continue
        try:
            stored(block)
            n_media += 1
        except MediaError as error:
            reason = f"[refused attachment: {clean_reason(error)}]"
            kept.append({"type": "text", "text": reason})
    if all(isinstance(block, str) or block.get("type") == "text" for block in kept):
        texts = [block if isinstance(block, str) else block["text"] for block in kept]
        return "\n".join(texts), n_media
    return kept, n_media


def _unloaded(value: Any, stored: Callable[[Mapping[str, Any]], dict[str, Any]], depth: int) -> Any:
    """An artifact without the bytes of the media blocks in it."""
    if depth == 0:
        return value
    if isinstance(value, Mapping):
        if is_media(value) and value.get("type") != "text":
            try:
                return stored(value)
            except MediaError as error:
                return {"type": "attachment", "refused": str(error)}
        changed = {key: _unloaded(held, stored, depth - 1) for key, held in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    if isinstance(value, list):
        entries = [_unloaded(entry, stored, depth - 1) for entry in value]
        same = all(new is old for new, old in zip(entries, value, strict=True))
        return value if same else entries
    return value


def _ids(message: BaseMessage, *, tools: bool) -> list[str]:
    if isinstance(message, HumanMessage):
        return _listed(message, IDS)
    return _listed(message, _SEEN) if isinstance(message, ToolMessage) and tools else []


def _listed(message: BaseMessage, key: str) -> list[str]:
    """Ids that a message keeps; a caller of a served agent may write what it likes there."""
    found = message.additional_kwargs.get(key)
    return [id_ for id_ in found if isinstance(id_, str)] if isinstance(found, list) else []


def _fits(record: Attachment | None, senses: Collection[Modality]) -> bool:
    return record is not None and record["modality"] in senses


def _block(
    record: Attachment, read: Callable[[Attachment], bytes], *, plain: bool
) -> Iterator[dict[str, Any]]:
    try:
        media = media_of(record, read(record))
    except MediaError:
        return
    if plain:
        yield {key: media[key] for key in ("type", "base64", "mime_type")}
    else:
        yield media
