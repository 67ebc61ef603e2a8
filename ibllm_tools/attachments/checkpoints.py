"""Checkpoints without bytes: what a serializer would write of a medium becomes a file.

LangGraph saves an agent's input before any middleware sees it, and again at every step. Here
long base64 texts are taken out while a checkpoint is written, and put back when it is read.
"""

from __future__ import annotations

import base64
import binascii
import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.messages import BaseMessage

from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.errors import MediaError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.checkpoint.serde.base import SerializerProtocol

MIN_CHARS = 2048
"""Shorter texts stay in the checkpoint."""
_MARK = "ibllm-file:"
_ESCAPED = _MARK + "="
_REFERENCE = re.compile(_MARK + r"([0-9a-f]{64}):(.*)", re.DOTALL)
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)

Saver = TypeVar("Saver", bound="BaseCheckpointSaver[Any]")


class SlimSerializer:
    """Writes long base64 texts to files, and the rest as the wrapped serializer does."""

    def __init__(self, inner: SerializerProtocol, files: AttachmentFiles) -> None:
        """Wrap `inner`; bytes go to `files`."""
        self.inner = inner
        self.files = files

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialize `obj` without the bytes of its media."""
        return self.inner.dumps_typed(_walk(obj, self._shorten))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Deserialize, and put the bytes back in their places."""
        return _walk(self.inner.loads_typed(data), self._restore)

    def _shorten(self, text: str) -> str:
        if text.startswith(_MARK):
            return _ESCAPED + text  # nobody but this serializer makes a reference
        if len(text) < MIN_CHARS:
            return text
        head = _DATA_URL.match(text)
        prefix, body = text[: head.end()] if head else "", text[head.end() if head else 0 :]
        try:
            data = binascii.a2b_base64(body.encode("ascii"), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            return text
        if base64.b64encode(data).decode("ascii") != body:
            return text  # it could not be put back as it was
        return f"{_MARK}{self.files.put(data)}:{prefix}"

    def _restore(self, text: str) -> str:
        if text.startswith(_ESCAPED):
            return text.removeprefix(_ESCAPED)
        found = _REFERENCE.fullmatch(text)
        if found is None:
            return text
        try:
            data = self.files.get(found[1])
        except MediaError:  # cleaned: an old checkpoint can still be looked at
            return text
        return found[2] + base64.b64encode(data).decode("ascii")


def slim(saver: Saver, files: AttachmentFiles) -> Saver:
    """Return a copy of a checkpointer that keeps bytes of media in `files`.

    It shares the connection with the given one. Threads that it wrote must be read through a
    checkpointer made likewise. Applying it twice changes nothing.

    Args:
        saver: Any of LangGraph's checkpointers.
        files: The files of the `AttachmentMiddleware`.
    """
    if isinstance(saver.serde, SlimSerializer):
        return saver
    clone = copy.copy(saver)
    clone.serde = SlimSerializer(saver.serde, files)

    def with_allowlist(extra: Collection[tuple[str, ...]]) -> Any:
        return slim(saver.with_allowlist(extra), files)

    # LangGraph asks for it in strict mode; the wrapped serializer is what must be strict.
    vars(clone)["with_allowlist"] = with_allowlist
    return clone


def unslimmed(saver: Saver) -> Saver:
    """Return a copy of a checkpointer that reads what is stored, without reading files."""
    plain = copy.copy(saver)
    if isinstance(saver.serde, SlimSerializer):
        plain.serde = saver.serde.inner
        vars(plain).pop("with_allowlist", None)
    return plain


def used_files(saver: BaseCheckpointSaver[Any]) -> set[str]:
    """The SHA-256 of everything that any checkpoint of any thread refers to."""
    found: set[str] = set()
    for saved in unslimmed(saver).list(None):
        found.update(_references(saved.checkpoint["channel_values"]))
        found.update(_references([write[-1] for write in saved.pending_writes or ()]))
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if found := _REFERENCE.fullmatch(value):
            yield found[1]
    elif isinstance(value, BaseMessage):
        yield from _references([value.content, value.additional_kwargs, _artifact(value)])
    elif isinstance(value, Mapping):
        if isinstance(value.get("sha256"), str):
            yield value["sha256"]
        yield from _references(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _references(entry)


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    """Apply `change` to every text in plain containers and messages; copy only what changes."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, BaseMessage):
        return _walk_message(value, change)
    if type(value) is dict:
        changed = {key: _walk(held, change) for key, held in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    if type(value) in {list, tuple}:
        entries = [_walk(entry, change) for entry in value]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        return type(value)(entries)
    return value


def _walk_message(message: BaseMessage, change: Callable[[str], str]) -> BaseMessage:
    before = {"content": message.content, "additional_kwargs": message.additional_kwargs}
    if (artifact := _artifact(message)) is not None:
        before["artifact"] = artifact
    after = _walk(before, change)
    return message if after is before else message.model_copy(update=after)


def _artifact(message: BaseMessage) -> Any:
    return getattr(message, "artifact", None)
