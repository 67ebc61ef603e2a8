"""Finding the attachment that an LLM names; every refusal tells it what it can do instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ibllm_tools.attachments.records import Attachment, Attachments, media_of
from ibllm_tools.errors import MediaError
from ibllm_tools.media.problems import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ibllm_tools.attachments.files import AttachmentFiles
    from ibllm_tools.media import Media

STATE_KEY = "attachments"
_MAX_LISTED = 20
_ID = re.compile(r"[a-z]+-\d+")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_FILE = re.compile(r"\S*([\\/]\S*|\.[A-Za-z0-9]{2,4})")

_FILES: ContextVar[AttachmentFiles | None] = ContextVar("ibllm_attachment_files", default=None)


class AttachmentError(MediaError):
    """An LLM named what is no attachment of this conversation; the message says which are."""


@contextmanager
def serving(files: AttachmentFiles) -> Iterator[None]:
    """Tools that run inside find their attachments' bytes in `files`."""
    token = _FILES.set(files)
    try:
        yield
    finally:
        _FILES.reset(token)


def served_files() -> AttachmentFiles | None:
    """The files of the agent that runs this tool, if one does."""
    return _FILES.get()


def attachments_of(state: Any) -> Attachments:
    """The attachments in an agent's state; empty where there are none."""
    found = state.get(STATE_KEY) if isinstance(state, Mapping) else getattr(state, STATE_KEY, None)
    return found if isinstance(found, Mapping) else {}


def open_attachment(held: Attachments, named: str, files: AttachmentFiles) -> Media:
    """Return the content block of the attachment that an LLM names.

    Raises:
        AttachmentError: It is no id of this conversation; a path or URL is never opened.
        MediaError: Its bytes are no longer there.
    """
    record = find(held, named)
    return media_of(record, files.get(record["sha256"]))


def find(held: Attachments, named: str) -> Attachment:
    """Return the record of an id; also of its tag, `[image-1: photo.jpg]`.

    Raises:
        AttachmentError: It is no id of this conversation.
    """
    id_ = named.strip().removeprefix("[").removesuffix("]").partition(":")[0].strip()
    if id_ in held and "://" not in named:
        return held[id_]
    if looks_like_place(named):
        raise AttachmentError(
            f"{shown(named)} is a path or URL; expected the id of an attachment, because tools "
            f"open no files and no addresses; {listed(held)}"
        )
    raise AttachmentError(f"there is no attachment {shown(named)}; {listed(held)}")


def looks_like_id(text: str) -> bool:
    """Whether a text has the form of an id."""
    return _ID.fullmatch(text.strip().strip("[]").partition(":")[0].strip()) is not None


def looks_like_place(text: str) -> bool:
    """Whether a text would be a path or a URL, if anything opened it."""
    text = text.strip()
    return (
        "://" in text
        or text[:5].lower() == "data:"
        or text.startswith(("/", "~", "./", "../", "\\"))
        or _DRIVE.match(text) is not None
        or _FILE.fullmatch(text) is not None
    )


def listed(held: Attachments) -> str:
    """What an LLM can name instead."""
    if not held:
        return "this conversation has no attachments; ask the user to attach one"
    shown_ids = [
        f"{id_} ({record['name']})" if record["name"] else id_
        for id_, record in list(held.items())[-_MAX_LISTED:]
    ]
    return f"use one of these ids: {', '.join(shown_ids)}"
