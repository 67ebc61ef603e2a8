"""The attachments of a thread: those that wait for the next message, and those that were sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from ibllm_tools.attachments.messages import IDS
from ibllm_tools.attachments.records import Attachment
from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media
from ibllm_tools.media.blocks import check_weight


@dataclass(frozen=True)
class Shown:
    """One attachment as a person sees it.

    Attributes:
        number: Its place in the list, from 1.
        name: The file's name, or its id.
        modality: What it is sensed as.
        weight: Its weight in a mix.
        id: Its id in the thread; None while it waits.
    """

    number: int
    name: str
    modality: str
    weight: float
    id: str | None

    def __str__(self) -> str:
        place = "waits for the next message" if self.id is None else f"sent as {self.id}"
        return f"{self.number}  {self.name}  {self.modality}  weight {self.weight:g}  {place}"


class Waiting:
    """Media that go with the next message."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.media: list[Media] = []

    def take(self) -> list[Media]:
        """Hand out what waits; then nothing does."""
        media, self.media = self.media, []
        return media

    def weigh(self, index: int, weight: float) -> None:
        """Set the weight of one."""
        medium = self.media[index]
        self.media[index] = Media({**medium, "extras": {**medium["extras"], "weight": weight}})


def listed(
    messages: Sequence[BaseMessage], held: dict[str, Attachment], waiting: Waiting
) -> list[Shown]:
    """All attachments: those of messages in their order, then those that wait."""
    ids = [id_ for message in messages for id_ in ids_of(message) if id_ in held]
    sent = [(held[id_], id_) for id_ in dict.fromkeys(ids)]
    shown = [
        Shown(n, record["name"] or id_, record["modality"], record["weight"], id_)
        for n, (record, id_) in enumerate(sent, start=1)
    ]
    return shown + [
        Shown(n, medium.name, medium.modality, medium.weight, None)
        for n, medium in enumerate(waiting.media, start=len(shown) + 1)
    ]


def held_by_id(held: dict[str, Attachment]) -> list[Shown]:
    """Everything in a thread, also what agents made, such as pictures of boxes."""
    return [
        Shown(n, record["name"] or id_, record["modality"], record["weight"], id_)
        for n, (id_, record) in enumerate(held.items(), start=1)
    ]


def ids_of(message: BaseMessage) -> list[str]:
    """The ids of the attachments that came with a message."""
    found = message.additional_kwargs.get(IDS)
    return [id_ for id_ in found if isinstance(id_, str)] if isinstance(found, list) else []


def choose(shown: Sequence[Shown], named: str | None) -> Shown:
    """Find the attachment that a person names by number, id or name; the latest of that name.

    Args:
        shown: The list that the person sees.
        named: Its name; None will do where there is one alone.

    Raises:
        MediaError: There is none of that name.
    """
    fitting = [
        entry
        for entry in shown
        if named is None or named in {str(entry.number), entry.id, entry.name}
    ]
    if not shown:
        raise MediaError("found no attachment; /attach FILE adds one")
    if not fitting or (named is None and len(fitting) > 1):
        names = ", ".join(f"{entry.number} ({entry.name})" for entry in shown)
        found = f"no attachment {named!r}" if named else "several attachments"
        raise MediaError(f"found {found}; expected one of: {names}")
    return fitting[-1]


def weighed(value: str, name: str) -> float:
    """Read a weight.

    Raises:
        MediaError: It is no number above 0.
    """
    try:
        return check_weight(float(value), name)
    except ValueError as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(
            f"{name}: found weight {value!r}; expected a number above 0, such as 0.5"
        ) from None


def without(messages: Sequence[BaseMessage], id_: str) -> list[BaseMessage]:
    """The messages that change when an attachment goes: those that it came with."""
    changed: list[BaseMessage] = []
    for message in messages:
        ids = ids_of(message)
        if id_ in ids:
            kwargs: dict[str, Any] = {**message.additional_kwargs}
            kwargs[IDS] = [other for other in ids if other != id_]
            changed.append(message.model_copy(update={"additional_kwargs": kwargs}))
    return changed
