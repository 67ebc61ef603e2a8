"""`chat_in_terminal`: opens threads, screen and lines, and runs a session."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING

from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.threads import open_threads
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.terminal.reading import Lines, PipedLines, TypedLines
from ibllm_tools.terminal.screen import Screen, is_terminal
from ibllm_tools.terminal.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from ibllm_tools.terminal.session import ReadFiles
    from ibllm_tools.terminal.settings import ChatSettings


def chat_in_terminal(
    settings: ChatSettings,
    read_files: ReadFiles,
    *,
    screen: Screen | None = None,
    lines: Lines | None = None,
) -> bool:
    """Chat until the person leaves or the lines end.

    Args:
        settings: What it begins with.
        read_files: Reads what the person attaches.
        screen: By default standard output.
        lines: By default what the person types, or the lines of a pipe.

    Returns:
        Whether all went well; a person at a terminal has seen what did not.

    Raises:
        MissingExtraError: The extra `[chat]` is not installed.
        ConfigurationError: There is no such agent, or the thread's name cannot be one, or its
            folder cannot be written.
    """
    return asyncio.run(_chat(settings, read_files, screen or Screen(), lines))


async def _chat(
    settings: ChatSettings, read_files: ReadFiles, screen: Screen, lines: Lines | None
) -> bool:
    _check_folder(settings.folder)
    files = AttachmentFiles(settings.folder / "attachments")
    async with open_threads(settings.threads, files) as saver:
        session = Session(settings, saver, screen, read_files)
        if lines is None and is_terminal():
            lines = TypedLines(settings.folder / "typed-lines", session.status)
        piped = lines or PipedLines()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they would tear the conversation apart
            await session.run(piped, settings.files)
    return piped.drops or not screen.failed


def _check_folder(folder: Path) -> None:
    """Make the folder where the talk and its media are kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: found no folder that can be made ({error.strerror}), and the talk is kept "
            "there; set XDG_DATA_HOME to one that can"
        ) from error
