"""The words of questions and answers, from `phrases.psv`: one list name, text and answer a line.

{m} stands for a word for the medium, {M} for it with its article, {a} and {z} for what is
seen in English and Chinese, {n} for a concept that is asked for, {k} for a kind, {it} for what
is talked about. Lists in Chinese end in `_zh`. This file knows no facts.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

KIND_WORDS = {
    "animal": ("animal", "creature", "living thing"),
    "human": ("human", "kind of being", "living thing"),
    "vehicle": ("vehicle", "means of transport"),
    "device": ("device", "machine", "thing"),
    "furniture": ("piece of furniture", "thing"),
    "household object": ("household object", "thing", "object"),
    "musical instrument": ("instrument", "musical instrument"),
    "part of nature": ("part of nature", "thing"),
    "plant": ("plant", "living thing"),
    "building": ("building", "structure"),
}


@cache
def _read_lists() -> dict[str, tuple[tuple[str, str], ...]]:
    lines = (Path(__file__).parent / "phrases.psv").read_text(encoding="utf-8").splitlines()
    lists: dict[str, list[tuple[str, str]]] = {}
    for line in lines[1:]:
        name, text, answer = line.split("|")
        lists.setdefault(name, []).append((text, answer))
    return {name: tuple(rows) for name, rows in lists.items()}


def pairs(name: str, *, chinese: bool) -> tuple[tuple[str, str], ...]:
    """Questions of a list, each with its answer."""
    return _read_lists()[name + "_zh" if chinese else name]


def texts(name: str, *, chinese: bool) -> tuple[str, ...]:
    """Texts of a list."""
    return tuple(text for text, _ in pairs(name, chinese=chinese))
