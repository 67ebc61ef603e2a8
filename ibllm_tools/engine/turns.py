"""Which token of a conversation is said with which media.

The tokens of a message with media, and of the messages after it up to the next one with media, get
that message's media; so does what stands before the first media. A conversation about one photo is
then what the released model computes: the photo in every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ibllm_tools.media import Item

SHIFT = 2  # tokens that a tokenizer may join across the end of a message


def media_by_turn(
    messages: Sequence[Mapping[str, Any]], media: Sequence[Item] | Sequence[Sequence[Item]]
) -> list[tuple[int, Sequence[Item]]]:
    """Find the messages that have media.

    Args:
        messages: A conversation.
        media: One list per message, or one list for the last message of the user.

    Returns:
        (number of the message, its media) in order.

    Raises:
        ConfigurationError: A list per message, but not as many as messages.
    """
    flat = [entry for entry in media if not isinstance(entry, Sequence)]
    if len(flat) == len(media):
        last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=0)
        return [(last, flat)] if flat else []
    if flat or len(media) != len(messages):
        raise ConfigurationError(
            f"found media for {len(media)} messages and {len(messages)} messages; expected one "
            "list of media per message, an empty one for a message without"
        )
    rows = [entry for entry in media if isinstance(entry, Sequence)]
    return [(index, items) for index, items in enumerate(rows) if items]


def index_media(
    ids: Sequence[int], starts: Sequence[int], encode_first: Callable[[int], Sequence[int]]
) -> list[int] | None:
    """Say for each token of a prompt which media it gets.

    Args:
        ids: (T,) token ids of the conversation.
        starts: Numbers of the messages that have media, in order.
        encode_first: Encodes the first n messages alone.

    Returns:
        (T,) numbers from 0 to len(starts) - 1; None if there is only one medium, or if the
        template writes messages differently once others follow: then all get the latest.
    """
    if len(starts) < 2:
        return None
    index = [0] * len(ids)
    for number, start in enumerate(starts[1:], 1):
        first = _end_of(encode_first, start, ids)
        if first is None:
            return [len(starts) - 1] * len(ids)
        index[first:] = [number] * (len(ids) - first)
    return index


def _end_of(
    encode_first: Callable[[int], Sequence[int]], n_messages: int, ids: Sequence[int]
) -> int | None:
    """Where the first messages end within `ids`; None if they are no beginning of it."""
    try:
        part = encode_first(n_messages)
    except Exception:  # noqa: BLE001  # a template may refuse a conversation that breaks off here
        return None
    pairs = enumerate(zip(part, ids, strict=False))
    shared = next((i for i, (one, other) in pairs if one != other), min(len(part), len(ids)))
    return shared if shared >= len(part) - SHIFT else None
