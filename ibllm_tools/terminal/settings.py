"""What a chat begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ibllm_tools.attachments.threads import data_folder

FIRST_THREAD = "main"


@dataclass(frozen=True)
class ChatSettings:
    """Settings of a chat.

    Attributes:
        thread: The thread that goes on, or begins.
        threads: A SQLite file or a `postgresql://` address; None as `open_threads` says.
        folder: Where attachments and the history of typed lines lie.
        files: To attach to the first message: `FILE[:MODALITY][@WEIGHT]`.
        agent: None for the chat model alone, "media" for the media agent, or an agent's name.
        model: "pocket", a model folder, or a hub id.
        device: As in torch; None chooses.
        dtype: Precision; None chooses.
        temperature: 0 is greedy.
        max_tokens: Longest answer; None for the model's own.
    """

    thread: str = FIRST_THREAD
    threads: str | None = None
    folder: Path = field(default_factory=data_folder)
    files: tuple[str, ...] = ()
    agent: str | None = None
    model: str = "pocket"
    device: str | None = None
    dtype: str | None = None
    temperature: float = 0.0
    max_tokens: int | None = None
