"""Calls whose arguments come from what the media show: `{"name": "dog", "category": "animal"}`.

They are what structured output about a photo needs: a tool whose fields ask for parts of what
the model senses, under names and descriptions that change with every row.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ibllm_tools.train.knowledge import KINDS, Fact
from ibllm_tools.train.notes import note_of
from ibllm_tools.train.tool_intents import Schema, make_tool, opaque_name, style_name
from ibllm_tools.train.tool_talk import ToolChat, offer
from ibllm_tools.train.tool_wishes import any_intent
from ibllm_tools.train.tool_words import World

_QUESTIONS = (
    "What is in the {m}?", "Describe the {m}.", "What do you see?", "What do you hear?",
    "Report what the {m} shows.", "Tell me about this {m}.", "Analyse the {m}.",
    "Use the tool on what you see.", "Fill in the form for this {m}.", "What is this?",
    "Extract the data of the {m}.", "Identify the thing in the {m}.", "Classify this {m}.",
    "这是什么？", "描述一下这张图片。", "你看到什么？", "请填写表格。", "识别一下。",
)  # fmt: skip
_MEDIA = ("photo", "picture", "image", "sound", "recording", "shape", "clip", "file")
_NAMES = ("describe", "report", "record", "identify", "classify", "label", "note", "observe",
          "inspect", "tag", "catalog", "perceive", "analysis", "scene", "annotation")  # fmt: skip
_TOLD = (
    "Describes what is shown", "Report on the thing in the media", "What was perceived",
    "Records what is seen or heard", "The thing and its properties", "An annotation of a medium",
    "Save what the picture shows", "",
)  # fmt: skip
_UNKNOWN = "unknown"

Field = Callable[[random.Random, Fact | None], tuple[str, Schema, Any]]


def _name(rng: random.Random, fact: Fact | None) -> tuple[str, Schema, Any]:
    keys = ("name", "object", "thing", "subject", "item", "label", "what", "main_object", "title",
            "entity", "content")  # fmt: skip
    schema: Schema = {"type": "string"}
    if rng.random() < 0.4:
        schema["description"] = rng.choice(("what it is", "the main thing", "name of the object"))
    return rng.choice(keys), schema, fact.name if fact else _UNKNOWN


def _category(rng: random.Random, fact: Fact | None) -> tuple[str, Schema, Any]:
    keys = ("category", "kind", "type", "class", "group", "sort")
    schema: Schema = {"type": "string"}
    value = fact.kind if fact else _UNKNOWN
    if rng.random() < 0.6:
        options = rng.sample(sorted(KINDS), rng.randint(2, 5))
        if value not in options:
            options[rng.randrange(len(options))] = value
        schema["enum"] = options
    elif rng.random() < 0.4:
        schema["description"] = rng.choice(("what kind of thing it is", "animal, vehicle, ..."))
    return rng.choice(keys), schema, value


def _caption(_rng: random.Random, fact: Fact | None) -> tuple[str, Schema, Any]:
    keys = ("description", "caption", "summary", "text", "sentence", "answer")
    value = f"This is {fact.phrase}." if fact else "I am not sure what this is."
    return _rng.choice(keys), {"type": "string"}, value


def _is_kind(rng: random.Random, fact: Fact | None) -> tuple[str, Schema, Any]:
    kind = fact.kind if fact and rng.random() < 0.5 else rng.choice(sorted(KINDS))
    word = kind.replace(" ", "_")
    key = rng.choice((f"is_{word}", word, f"shows_{word}", f"has_{word}"))
    return key, {"type": "boolean"}, bool(fact and fact.kind == kind)


def _place(rng: random.Random, fact: Fact | None) -> tuple[str, Schema, Any]:
    keys = ("place", "location", "habitat", "where", "setting")
    return rng.choice(keys), {"type": "string"}, fact.place if fact else _UNKNOWN


_FIELDS: tuple[tuple[float, Field], ...] = (
    (5.0, _name), (3.0, _category), (1.5, _caption), (2.0, _is_kind), (1.0, _place),
)  # fmt: skip


def seen_chat(rng: random.Random, fact: Fact | None) -> ToolChat:
    """Draw one conversation: a question about media, and a call that says what they show.

    Args:
        rng: Random source.
        fact: What the media show; None where that is nothing known.
    """
    world = World(rng)
    fields: dict[str, Schema] = {}
    arguments: dict[str, Any] = {}
    for maker in _draw_fields(rng):
        key, schema, value = maker(rng, fact)
        if key not in fields:
            fields[key], arguments[key] = schema, value
    told = rng.choice(_TOLD)
    named = rng.random() < 0.7
    name = style_name(world, [rng.choice(_NAMES)]) if named else opaque_name(world)
    tool = make_tool(name, told, fields)
    tools = [tool]
    if rng.random() < 0.3:
        others = offer(world, [any_intent(world)], rng.choice((1, 2)))
        tools += [t for t in others if t["function"]["name"] != name]
        rng.shuffle(tools)
    question = rng.choice(_QUESTIONS).replace("{m}", rng.choice(_MEDIA))
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    said: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
    if rng.random() < 0.4:  # a call that is forced has no note
        said["reasoning_content"] = note_of([fact] if fact else [])
    return ToolChat(({"role": "user", "content": question}, said), tuple(tools))


def _draw_fields(rng: random.Random) -> Sequence[Field]:
    makers, weights = [f for _, f in _FIELDS], [w for w, _ in _FIELDS]
    return rng.choices(makers, weights, k=rng.choice((1, 1, 2, 2, 3, 4)))
