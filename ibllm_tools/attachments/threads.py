"""Where threads are kept: a SQLite file of this user, or a PostgreSQL database."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.attachments.checkpoints import slim
from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.errors import MissingExtraError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

THREADS = "IBLLM_THREADS"
"""Variable of the environment: a SQLite file, or a `postgresql://` address."""
_DATABASES = ("postgresql://", "postgres://")


def data_folder() -> Path:
    """The folder of this package in this user's data, which the operating system keeps."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "ibllm-tools"


@asynccontextmanager
async def open_threads(
    place: str | os.PathLike[str] | None = None, files: AttachmentFiles | None = None
) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Open a checkpointer that outlives this process, and keeps bytes of media in files.

    Args:
        place: A SQLite file or a `postgresql://` address; by default what `IBLLM_THREADS` says,
            or else a file in this user's data folder.
        files: Where bytes of media go; by default beside the threads of this user.

    Raises:
        MissingExtraError: The package that such a place needs is not installed.
    """
    wanted = str(place or os.environ.get(THREADS) or data_folder() / "threads.sqlite")
    kept = files or AttachmentFiles(data_folder() / "attachments")
    opened = _postgres(wanted) if wanted.startswith(_DATABASES) else _sqlite(Path(wanted))
    async with opened as saver:
        yield slim(saver, kept)


@asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    try:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError as error:
        raise MissingExtraError("langgraph-checkpoint-sqlite", "chat") from error
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)  # before SQLite would make it for everybody to read
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def _postgres(address: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    try:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    except ImportError as error:
        raise MissingExtraError("langgraph-checkpoint-postgres", "agents") from error
    async with AsyncPostgresSaver.from_conn_string(address) as saver:
        await saver.setup()
        yield saver
