"""What is remembered of an attachment: plain JSON values, fit for any checkpointer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from ibllm_tools.media import MODALITIES, Media, Modality

_KINDS: dict[Modality, str] = {"point": "shape"}
_MAX_NAME = 60


class Attachment(TypedDict):
    """One medium of a conversation.

    Attributes:
        id: What the LLM calls it, such as `image-1`.
        sha256: Names the content.
        modality: What it is sensed as.
        mime_type: What the bytes are.
        name: The file's name for people, or "".
        weight: Its weight in a mix.
        n_bytes: Its size.
        extras: Options of reading, such as `units`.
    """

    id: str
    sha256: str
    modality: Modality
    mime_type: str
    name: str
    weight: float
    n_bytes: int
    extras: dict[str, Any]


Attachments = Mapping[str, Attachment]


def is_record(value: object) -> bool:
    """Whether a value has the keys and types of an attachment."""
    if not isinstance(value, Mapping) or set(value) != set(Attachment.__annotations__):
        return False
    texts = all(isinstance(value[key], str) for key in ("id", "sha256", "mime_type", "name"))
    numbers = all(isinstance(value[key], (int, float)) for key in ("weight", "n_bytes"))
    known = value["modality"] in MODALITIES and isinstance(value["extras"], Mapping)
    return texts and numbers and known


def kind_of(modality: Modality) -> str:
    """How ids of a modality begin."""
    return _KINDS.get(modality, modality)


def next_id(modality: Modality, taken: Iterable[str]) -> str:
    """The next free id, such as `image-2`."""
    kind = kind_of(modality)
    numbers = [id_.removeprefix(f"{kind}-") for id_ in taken if id_.startswith(f"{kind}-")]
    return f"{kind}-{max((int(n) for n in numbers if n.isdecimal()), default=0) + 1}"


def numbered(record: Attachment, held: Attachments) -> Attachment:
    """Give a record its id: the one that the same medium has already, or the next."""
    for other in held.values():
        if {**other, "id": ""} == {**record, "id": ""}:
            return other
    return {**record, "id": next_id(record["modality"], held)}


def merge(held: Attachments | None, new: Attachments | None) -> dict[str, Attachment]:
    """The reducer of the state: attachments are added, never lost."""
    return {**(held or {}), **(new or {})}


def tag_of(record: Attachment) -> str:
    """How the LLM sees an attachment: `[image-1: photo.jpg]`."""
    name = clean_name(record["name"])
    return f"[{record['id']}: {name}]" if name else f"[{record['id']}]"


def clean_name(name: str) -> str:
    """A name that cannot end its tag or begin another one."""
    text = re.sub(r"[\[\]\s]+", " ", name)
    text = "".join(c for c in text if c.isprintable()).strip()
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 1] + "…"


def media_of(record: Attachment, data: bytes, weight: float | None = None) -> Media:
    """The content block of an attachment.

    Args:
        record: The attachment.
        data: Its bytes.
        weight: Its weight in a mix; by default the one that it was attached with.

    Raises:
        MediaError: The bytes are not what the record says.
    """
    weight = record["weight"] if weight is None else weight
    name = record["name"] or record["id"]
    if record["modality"] == "text":
        return Media.from_text(data.decode("utf-8"), weight=weight, name=name)
    media = Media.from_bytes(
        data,
        mime_type=record["mime_type"],
        modality=record["modality"],
        weight=weight,
        name=name,
    )
    media["extras"].update(record["extras"])
    return media
