"""From a content block to a stored attachment: the media policy decides what may be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ibllm_tools.attachments.records import Attachment
from ibllm_tools.media import Media, MediaPolicy
from ibllm_tools.media.blocks import Located, locate
from ibllm_tools.media.sources import check_size, read

if TYPE_CHECKING:
    from ibllm_tools.attachments.files import AttachmentFiles

_NAMELESS = re.compile(r"\w+ block")
_MAX_EXTRAS = 16
_MAX_TEXT = 200
_OWN = frozenset({"modality", "weight", "name", "filename", "title"})


def read_block(block: Mapping[str, Any], files: AttachmentFiles, policy: MediaPolicy) -> Attachment:
    """Store the bytes of a medium.

    Args:
        block: A media block in any accepted spelling.
        files: Where the bytes go.
        policy: Limits, and which folders and hosts the block may name.

    Returns:
        A record without an id.

    Raises:
        MediaError: The block is not valid, not allowed, too large, or of no known format.
    """
    located = locate(block)
    name = "" if _NAMELESS.fullmatch(located.name) else located.name
    if located.where == "text":
        data, mime = str(located.value).encode(), "text/plain"
        check_size(len(data), policy, located.name)
        media = Media.from_text(str(located.value))
    else:
        data, declared = read(located, policy)
        media = Media.from_bytes(
            data, mime_type=declared, modality=located.modality, name=located.name
        )
        mime = media["mime_type"]
    return {
        "id": "",
        "sha256": files.put(data),
        "modality": media.modality,
        "mime_type": mime,
        "name": name,
        "weight": located.weight,
        "n_bytes": len(data),
        "extras": _options(located),
    }


def _options(located: Located) -> dict[str, Any]:
    """Options that reading may need; anything long or nested is no option."""
    kept = {
        key: value
        for key, value in located.extras.items()
        if key not in _OWN
        and isinstance(value, (str, int, float, bool))
        and len(str(value)) <= _MAX_TEXT
    }
    return dict(list(kept.items())[:_MAX_EXTRAS])
