"""Telling what a graph does while it does it.

A step is a custom event of LangGraph's stream: `{"step": name, "text": words, ...facts}`. Where
nobody streams, it goes nowhere.
"""

from __future__ import annotations

from typing import Any

from langgraph.config import get_stream_writer

MAX_TEXT = 300


def tell_step(step: str, text: str, **facts: Any) -> None:
    """Tell a step from within a node or tool.

    Args:
        step: Its name, one word; usually the node's.
        text: What happened, for people; what is longer than `MAX_TEXT` is cut.
        **facts: JSON values for programs.
    """
    get_stream_writer()({"step": step, "text": shortened(text, MAX_TEXT), **facts})


def shortened(text: str, n_chars: int) -> str:
    """A text on one line, cut to `n_chars`."""
    line = " ".join(text.split())
    return line if len(line) <= n_chars else f"{line[: n_chars - 1]}…"
