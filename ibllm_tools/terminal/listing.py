"""Which threads there are."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ibllm_tools.attachments.checkpoints import unslimmed
from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

_NAME = re.compile(r"[\w][\w .-]{0,63}")


class Thread(NamedTuple):
    """A thread and when it was last used."""

    name: str
    changed: datetime


def check_name(name: str) -> str:
    """Return a thread's name.

    Raises:
        ConfigurationError: It cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"found the thread name {name!r}; expected letters, digits, spaces, dots and dashes, "
            "64 at most, such as holiday-photos"
        )
    return name


async def threads(saver: BaseCheckpointSaver[Any]) -> list[Thread]:
    """All threads, the latest first."""
    found: dict[str, Thread] = {}
    async for saved in unslimmed(saver).alist(None):
        name = str(saved.config["configurable"]["thread_id"])
        changed = datetime.fromisoformat(saved.checkpoint["ts"])
        if name not in found or found[name].changed < changed:
            found[name] = Thread(name, changed)
    return sorted(found.values(), key=lambda thread: thread.changed, reverse=True)


def free_name(taken: list[str]) -> str:
    """The next free name, such as talk-2."""
    n = 1
    while f"talk-{n}" in taken:
        n += 1
    return f"talk-{n}"
