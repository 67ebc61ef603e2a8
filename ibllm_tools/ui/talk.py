"""One person's conversation: what the model reads, and what the page shows of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.media import load

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from ibllm_tools.media import Media, MediaPolicy

INLINE = ("image", "depth", "thermal", "audio", "video")


@dataclass
class Talk:
    """A conversation; every browser tab has its own.

    Attributes:
        history: Messages with their media, as the model reads them.
        shown: Messages as Gradio's chatbot takes them.
    """

    history: list[BaseMessage] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)

    def show(self, content: Any, role: str = "assistant", **metadata: Any) -> dict[str, Any]:
        """Append a message to what is shown; with a `title` it can be folded."""
        message = {"role": role, "content": content}
        if metadata:
            message["metadata"] = metadata
        self.shown.append(message)
        return message

    def drop(self, message: dict[str, Any]) -> None:
        """Take a shown message away."""
        self.shown[:] = [held for held in self.shown if held is not message]

    def problem(self, words: dict[str, str], text: str) -> None:
        """Show in plain words what did not work."""
        self.show(f"**{words['problem']}**\n\n{plain(text)}")


def pictured(media: Media, path: str, words: dict[str, str], policy: MediaPolicy) -> Any:
    """What the page shows for an attachment: itself, or a shape that can be turned.

    Args:
        media: The attachment.
        path: Where its upload lies.
        words: The page's words.
        policy: Limits on decoding.

    Raises:
        MediaError: The shape does not decode.
    """
    if media.modality != "point":
        return {"path": path, "alt_text": media.name}
    import gradio as gr

    from ibllm_tools.media import Points
    from ibllm_tools.ui.shapes import cloud

    item = load(media, policy)
    assert isinstance(item, Points)
    return gr.HTML(cloud(item.xyz, words["shape"].format(name=media.name)))


def new_file(folder: Path, name: str) -> Path:
    """A path that nobody can guess, in a folder of its own."""
    parent = folder / secrets.token_hex(16)
    parent.mkdir(parents=True, mode=0o700)
    return parent / (Path(name).name or "file")


def plain(text: str) -> str:
    """A text in which Markdown finds nothing to format, and HTML nothing to open."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]#|~$" else c for c in text)
