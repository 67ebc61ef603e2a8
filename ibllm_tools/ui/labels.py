"""How the parts of the page say what they are, in either language."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from ibllm_tools.ui.asking import WAYS
from ibllm_tools.ui.tray import AUTO, MAX_FILES, Attached

Say = Callable[[dict[str, str]], dict[str, Any]]
"""From the page's words to the properties of a part."""


class Labels:
    """Every part with words, and how it says them."""

    def __init__(self) -> None:
        """Begin with no parts."""
        self._said: list[tuple[Any, Say]] = []

    @property
    def parts(self) -> list[Any]:
        """The parts, in order."""
        return [part for part, _ in self._said]

    def add(self, part: Any, say: Say) -> None:
        """Let `say` set the properties of a part."""
        self._said.append((part, say))

    def name(self, part: Any, key: str, prop: str = "label") -> None:
        """Let a word be one property of a part."""
        self.add(part, lambda words: {prop: words[key]})

    def begin(self, words: dict[str, str]) -> None:
        """Let the page say these words before anything was chosen."""
        for part, say in self._said:
            for prop, value in say(words).items():
                setattr(part, prop, value)

    def updates(self, words: dict[str, str]) -> list[Any]:
        """What to send so that every part says these words."""
        return [gr.update(**say(words)) for _, say in self._said]


def heading(words: dict[str, str], model: str) -> str:
    """Title and subtitle."""
    subtitle = words["subtitle"].format(model=model)
    return f"<h1>{html.escape(words['title'])}</h1><p>{html.escape(subtitle)}</p>"


def ways(words: dict[str, str]) -> dict[str, Any]:
    """The ways to answer."""
    choices = [(words[way], way) for way in WAYS]
    return {"choices": choices, "label": words["how"], "info": words["how_info"]}


def row_label(held: Attached, words: dict[str, str]) -> str:
    """What stands at the weight of an attached file."""
    modality = words[held.modality or "unread"]
    return words["weight"].format(name=held.name, modality=modality)


def sense_choices(held: Attached, words: dict[str, str], *, fresh: bool) -> Any:
    """What a file could be sensed as; nothing to choose for most."""
    if not held.choices:
        return gr.update(visible=False, choices=[AUTO], value=AUTO)
    choices = [(words[modality], modality) for modality in held.choices]
    value = {"value": held.modality} if fresh else {}
    return gr.update(visible=True, choices=choices, label=words["sensed_as"], **value)


def filled(updates: list[Any], rest: Any) -> list[Any]:
    """One update for every row of the tray; those without a file get `rest`."""
    return [*updates, *[rest] * (MAX_FILES - len(updates))]
