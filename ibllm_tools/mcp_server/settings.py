"""What a server is made of: models, limits, and folders that clients may read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ibllm_tools.chat_models import ChatImageBindLLM
from ibllm_tools.embeddings import ImageBindEmbeddings
from ibllm_tools.media import MediaPolicy

if TYPE_CHECKING:
    from ibllm_tools.toolkit.experts import Experts

MAX_FILES = 20_000


class McpSettings(BaseModel):
    """Settings of an MCP server.

    Attributes:
        chat: Any chat model that perceives; by default pocket.
        embeddings: What compares media; by default those of the chat model.
        detector: A detector, a checkpoint, True, or False; None for the one that ships.
        recognizer: Likewise a recognizer.
        allowed_dirs: Folders below which every client may read media.
        client_roots: Whether a client's own roots count as allowed folders. They are what the
            client says: fit for a client that started this process, not for a network.
        limits: Limits on every medium; its `allowed_dirs` and `allowed_hosts` are not used.
        index_dir: Where indexes of folders lie; by default in the user's cache folder.
        max_files: Most files of a folder that is searched.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    chat: Any = Field(default_factory=ChatImageBindLLM)
    embeddings: ImageBindEmbeddings | None = None
    detector: Any = None
    recognizer: Any = None
    allowed_dirs: tuple[Path, ...] = ()
    client_roots: bool = True
    limits: MediaPolicy = Field(default_factory=MediaPolicy)
    index_dir: Path | None = None
    max_files: int = Field(default=MAX_FILES, ge=1)

    def comparer(self) -> ImageBindEmbeddings:
        """The embeddings to use."""
        if self.embeddings is not None:
            return self.embeddings
        chat = self.chat
        if isinstance(chat, ChatImageBindLLM):
            return ImageBindEmbeddings(model=chat.model, device=chat.device, dtype=chat.dtype)
        return ImageBindEmbeddings()

    def experts(self) -> Experts:
        """The detector and recognizer; nothing is loaded yet."""
        from ibllm_tools.toolkit.experts import Experts

        return Experts(self.detector, self.recognizer)
