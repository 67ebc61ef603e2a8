"""Wishes put together from frames: the wanted name stands between words that change all the time.

What is copied from a question ends where other words go on ("the streets of Oslo busy"), so a
model has to meet many words after a name. Tools that hand-written topics describe have few; here
a frame of `tool_frames.psv` takes its words from the lists of `tool_words.psv`. The tool says in
its description some of these words, so that it fits.
"""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path

from ibllm_tools.train.tool_intents import (
    Intent,
    Schema,
    add_options,
    make_tool,
    opaque_name,
    param_name,
    topic_value,
)
from ibllm_tools.train.tool_words import World, read_words

_LISTS = {
    "adj": "adjectives", "verb": "verbs", "adv": "adverbs", "noun": "nouns",
    **{name: name for name in ("zadj", "zverb", "zadv", "znoun")},
}  # fmt: skip
_USUAL = {
    "place": ("city", "place", "location", "where", "region"), "item": ("item", "thing", "object"),
    "food": ("food", "dish", "meal"), "person": ("person", "name", "who", "contact"),
}  # fmt: skip
_TOLD = (
    "Tells {w} about a {k}", "For questions on {w}", "Anything about {w} of a {k}", "{w}",
    "Looks up {w}", "Helps with {w}", "Use this for {w}",
)  # fmt: skip
_TOLD_ZH = ("查询{w}", "关于{w}的工具", "处理{w}", "{w}")
_TITLES = ("Mr ", "Mrs ", "my friend ", "our boss ", "Doctor ", "")
_SLOT = re.compile(r"\{(\w+)\}")


@cache
def read_frames() -> dict[str, tuple[str, ...]]:
    """Read the frames of each kind of value; Chinese ones end in `_zh`."""
    lines = (Path(__file__).parent / "tool_frames.psv").read_text(encoding="utf-8").splitlines()
    kinds: dict[str, list[str]] = {}
    for line in lines:
        kind, frame = line.split("|")
        kinds.setdefault(kind, []).append(frame)
    return {kind: tuple(frames) for kind, frames in kinds.items()}


def frame_intent(world: World, *, chinese: bool) -> Intent:
    """A tool for a wish of made-up words around a place, a thing, a dish or a person."""
    rng = world.rng
    kind = rng.choices(("place", "item", "food", "person"), (4, 4, 2, 1))[0]
    frames = read_frames()
    if chinese:
        frame = rng.choice(frames["place_zh" if kind == "place" else "item_zh"])
        kind = kind if kind in ("place", "food") else "item"
    else:
        frame = rng.choice(frames[kind])
    question, words = fill_frame(rng, frame)
    value, shown, _ = topic_value(world, kind, chinese=chinese)
    question = question.replace("{p0}", rng.choice(_TITLES)).replace("{v}", str(shown))
    question = question[0].upper() + question[1:] if rng.random() < 0.95 else question
    told = (" " if not chinese else "和").join(words[:2]) or kind
    lead = rng.choice(_TOLD_ZH if chinese else _TOLD)
    key = param_name(world, rng.choice(_USUAL[kind]))
    fields: dict[str, Schema] = {key: {"type": "string"}}
    if rng.random() < 0.4:
        fields[key]["description"] = rng.choice(_USUAL[kind])
    optional = add_options(world, fields, 0.1)
    tool = make_tool(opaque_name(world), lead.format(w=told, k=kind), fields, optional)
    task = {"place": "place", "person": "person"}.get(kind, "item")
    return Intent(tool, question, {key: value}, f"frame {told}", task, told, "", chinese)


def fill_frame(rng: random.Random, frame: str) -> tuple[str, list[str]]:
    """Fill all slots of a frame but that of the value; return the text and the words."""
    words: list[str] = []
    drawn: dict[str, str] = {}

    def fill(match: re.Match[str]) -> str:
        slot = match[1]
        if slot not in _LISTS:
            return match[0]
        if slot not in drawn:
            drawn[slot] = rng.choice(read_words()[_LISTS[slot]])
            words.append(drawn[slot])
        return drawn[slot]

    return _SLOT.sub(fill, frame), words
