"""Media of one call, in memory: the toolkit finds them there as it finds attachments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.reading import read_block
from ibllm_tools.attachments.records import clean_name
from ibllm_tools.attachments.store import AttachmentStore
from ibllm_tools.errors import MediaError
from ibllm_tools.media import MediaPolicy


class _FilesInMemory(AttachmentFiles):
    """Bytes by their SHA-256; nothing is written."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self._bytes[sha256] = data
        return sha256

    def get(self, sha256: str) -> bytes:
        try:
            return self._bytes[sha256]
        except KeyError:
            raise MediaError(f"{sha256[:12]}…: found no such medium in this call") from None


class HeldMedia(AttachmentStore):
    """Attachments that are called what their files are called, for one call."""

    def __init__(self, limits: MediaPolicy) -> None:
        """Hold nothing yet."""
        super().__init__(media_policy=limits)
        self.files = _FilesInMemory()

    def add(self, block: Mapping[str, Any]) -> str:
        """Hold a medium.

        Returns:
            Its name, by which the tools call it.

        Raises:
            MediaError: It is damaged, too large, or no medium.
        """
        record = read_block(block, self.files, self._policy)
        name = clean_name(record["name"]).replace(":", " ").strip() or record["modality"]
        with self._lock:
            self._held[name] = {**record, "id": name}
        return name
