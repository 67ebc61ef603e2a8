"""`AttachmentStore`: attachments outside of an agent, for tools that are called directly."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.reading import read_block
from ibllm_tools.attachments.records import Attachment, numbered
from ibllm_tools.media import MediaPolicy

if TYPE_CHECKING:
    import os


class AttachmentStore:
    """Attachments by id, kept in this object; their bytes lie in files.

    ```python
    from ibllm_tools import AttachmentStore, ImageBindLLMToolkit, Media

    store = AttachmentStore()
    dog = store.add(Media.from_path("dog.jpg"))
    tools = ImageBindLLMToolkit(attachments=store).get_tools()
    print(tools[0].invoke({"question": "What is this?", "attachments": [dog]}))
    ```
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        media_policy: MediaPolicy | None = None,
    ) -> None:
        """Keep bytes in `folder`, or in the user's private cache folder."""
        self.files = AttachmentFiles(folder)
        self._policy = media_policy or MediaPolicy()
        self._held: dict[str, Attachment] = {}
        self._lock = Lock()

    @property
    def attachments(self) -> dict[str, Attachment]:
        """A copy of what is attached, by id."""
        with self._lock:
            return dict(self._held)

    def add(self, block: Mapping[str, Any]) -> str:
        """Attach a `Media` or another content block.

        Returns:
            Its id, such as `image-1`.

        Raises:
            MediaError: It is not valid or not allowed.
        """
        record = read_block(block, self.files, self._policy)
        with self._lock:
            record = numbered(record, self._held)
            self._held[record["id"]] = record
        return record["id"]
