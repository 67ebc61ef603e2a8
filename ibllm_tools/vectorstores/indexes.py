"""Where the index of a folder of media lies, and how it is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ibllm_tools.errors import CheckpointError
from ibllm_tools.vectorstores.storage import STORE_FILE
from ibllm_tools.vectorstores.store import ImageBindVectorStore

if TYPE_CHECKING:
    from ibllm_tools.embeddings import ImageBindEmbeddings


def indexes_folder() -> Path:
    """The folder of all indexes, in the user's cache folder."""
    usual = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return (Path(usual) if usual else Path.home() / ".cache") / "ibllm" / "search"


def index_place(folder: Path, model: str, base: Path | None = None) -> Path:
    """Tell where the index of a folder lies for a model.

    Args:
        folder: The folder of media.
        model: The model that encodes it.
        base: Below which folder; by default in the user's cache folder.
    """
    key = f"{folder.resolve()}\0{model}".encode("utf-8", "surrogateescape")
    return (base or indexes_folder()) / hashlib.sha256(key).hexdigest()[:16]


def open_index(
    place: Path,
    embeddings: ImageBindEmbeddings,
    *,
    renew: bool,
    say: Callable[[str], None] | None = None,
) -> ImageBindVectorStore:
    """Open an index, or an empty one where there is none.

    Args:
        place: Its folder.
        embeddings: Of the model that encodes.
        renew: Whether one that does not fit is made anew.
        say: Told why it is made anew.

    Raises:
        CheckpointError: It does not fit, and is not to be made anew.
    """
    if not (place / STORE_FILE).is_file():
        return ImageBindVectorStore(embeddings)
    try:
        return ImageBindVectorStore.load_local(place, embeddings)
    except CheckpointError as error:
        if not renew:
            raise
        if say is not None:
            say(f"indexing anew: {error}")
        return ImageBindVectorStore(embeddings)
