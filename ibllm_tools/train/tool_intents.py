"""Made-up tools, each with one wish that it serves and the arguments that the wish names.

Names, parameter names, wording and values are drawn anew for every row, so that the only way
to be right is to read what the tools say and to copy what the user says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ibllm_tools.train.tool_words import (
    Topic,
    World,
    any_word,
    attachment,
    integer,
    is_held,
    item,
    person,
    place,
    pseudo_word,
    quoted_span,
    read_topics,
)

Schema = dict[str, Any]


@dataclass(frozen=True)
class Intent:
    """A tool and a wish for it.

    Attributes:
        tool: In OpenAI's form.
        question: What the user writes.
        arguments: What the call must hold, in the order of the tool's properties.
        topic: Tools of one topic are never offered together.
        task: What has to be copied: integer, quoted, place, item, attachment, other.
        thing: How an answer calls the result.
        script: Of a quoted span.
        chinese: Whether the question is Chinese.
    """

    tool: Schema
    question: str
    arguments: dict[str, Any]
    topic: str
    task: str
    thing: str
    script: str = ""
    chinese: bool = False

    @property
    def name(self) -> str:
        """The tool's name."""
        return str(self.tool["function"]["name"])


def make_tool(
    name: str, description: str, fields: dict[str, Schema], optional: tuple[str, ...] = ()
) -> Schema:
    """A tool in OpenAI's form."""
    parameters: Schema = {"type": "object", "properties": fields}
    parameters["required"] = [f for f in fields if f not in optional]
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def style_name(world: World, words: list[str]) -> str:
    """Join words into an identifier of this side of the division, in some style."""
    rng = world.rng

    def draw(_: object) -> str:
        extra = rng.random()
        parts = list(words)
        if extra < 0.25:
            parts.append(any_word(rng))
        elif extra < 0.45:
            parts.insert(0, rng.choice(("get", "do", "run", "my", "find", "the", pseudo_word(rng))))
        elif extra < 0.55:
            parts.append(rng.choice(("v2", "tool", "api", "fn", "3", "service")))
        style = rng.random()
        if style < 0.65:
            return "_".join(parts)
        if style < 0.78:
            return parts[0] + "".join(p.capitalize() for p in parts[1:])
        if style < 0.88:
            return "".join(p.capitalize() for p in parts)
        return "-".join(parts)

    return world.make(draw)


def opaque_name(world: World) -> str:
    """A name that says nothing."""
    rng = world.rng
    return style_name(world, [any_word(rng) for _ in range(rng.choice((1, 1, 2)))])


def param_name(world: World, usual: str = "") -> str:
    """A parameter's name: the usual one, or any."""
    rng = world.rng
    if usual and not world.test and rng.random() < 0.6 and not is_held(usual):
        return usual
    return world.make(lambda r: any_word(r) if r.random() < 0.6 else f"{any_word(r)}_{any_word(r)}")


def topic_intent(world: World, topic: Topic, *, chinese: bool) -> Intent:
    """A wish for a hand-written topic."""
    rng = world.rng
    words = rng.choice(topic.names).split("_")
    name = opaque_name(world) if rng.random() < 0.3 else style_name(world, words)
    told_zh = chinese and rng.random() < 0.6
    told = rng.choice(topic.descriptions_zh if told_zh else topic.descriptions)
    asked = topic.questions_zh if chinese else topic.questions
    question = asked[-1] if world.test else rng.choice(asked[:-1])
    fields: dict[str, Schema] = {}
    arguments: dict[str, Any] = {}
    script = ""
    if topic.kind != "none":
        value, shown, script = topic_value(world, topic.kind, chinese=chinese)
        key = param_name(world, rng.choice(topic.params))
        fields[key] = {"type": "integer" if topic.kind == "integer" else "string"}
        if rng.random() < 0.25:
            fields[key]["description"] = rng.choice(topic.params).replace("_", " ")
        arguments[key] = value
        question = question.replace("{v}", str(shown))
        if topic.kind in _MEDIA:
            question = _attach(world, question, str(value), topic.kind)
    optional = add_options(world, fields, 0.15)
    if told.endswith("e") or rng.random() < 0.4:
        told += "."
    return Intent(
        make_tool(name, told, fields, optional), question, arguments,
        topic.names[0], _TASKS.get(topic.kind, "other"),
        topic.thing_zh if chinese else topic.thing, script, chinese,
    )  # fmt: skip


_MEDIA = ("image", "audio", "video", "shape", "media")
_TASKS = {
    "place": "place", "item": "item", "food": "item", "quoted": "quoted", "integer": "integer",
    "person": "person", **dict.fromkeys(_MEDIA, "attachment"),
}  # fmt: skip


def topic_value(world: World, kind: str, *, chinese: bool) -> tuple[Any, Any, str]:
    """A value, how the question shows it, and its script."""
    if kind in _MEDIA:
        actual = world.rng.choice(("image", "audio", "video", "shape")) if kind == "media" else kind
        name, _ = attachment(world, actual)
        return name, name, ""
    if kind == "integer":
        number = abs(integer(world)) if world.rng.random() < 0.9 else integer(world)
        return number, number, ""
    if kind == "quoted":
        text, script = quoted_span(world)
        return text, text, script
    if kind == "place":
        text = place(world, chinese=chinese)
    elif kind == "person":
        text = person(world, chinese=chinese)
    else:
        text = item(world, chinese=chinese, food=kind == "food")
    return text, text, ""


def _attach(world: World, question: str, name: str, kind: str) -> str:
    """Put the attachment's tag, and perhaps others', beside a question about it."""
    rng = world.rng
    actual = name.split("-", maxsplit=1)[0]
    tags = [_tag_for(world, name)]
    while rng.random() < 0.35 and len(tags) < 4:
        other = rng.choice(("image", "audio", "video", "shape"))
        other_id, other_tag = attachment(world, other)
        if other_id != name and all(other_id not in t for t in tags):
            tags.append(other_tag)
    rng.shuffle(tags)
    same_kind = [t for t in tags if t[1:].startswith(actual)]
    if len(same_kind) == 1 and kind != "media" and rng.random() < 0.6:
        words = _MENTIONS[actual]
        question = question.replace(name, rng.choice(words[1] if _has_han(question) else words[0]))
    joined = rng.choice((" ", "\n", " ")).join(tags)
    return f"{joined} {question}" if rng.random() < 0.5 else f"{question} {joined}"


_MENTIONS = {
    "image": (("this picture", "the image", "the photo", "this"), ("这张图片", "照片", "图片")),
    "audio": (("this recording", "the audio", "the sound", "this"), ("这段录音", "声音", "音频")),
    "video": (("this video", "the clip", "the video", "this"), ("这段视频", "视频")),
    "shape": (("this shape", "the 3D shape", "this"), ("这个形状", "形状")),
}


def _has_han(text: str) -> bool:
    return any("\u4e00" <= c <= "\u9fff" for c in text)


def _tag_for(world: World, name: str) -> str:
    kind = name.split("-", maxsplit=1)[0]
    other, tag = attachment(world, kind)
    return tag.replace(other, name, 1)


def add_options(world: World, fields: dict[str, Schema], chance: float) -> tuple[str, ...]:
    """Perhaps add optional parameters that the question does not name."""
    rng = world.rng
    added: list[str] = []
    while rng.random() < chance and len(added) < 2:
        key = param_name(world)
        kinds: tuple[Schema, ...] = (
            {"type": "string"},
            {"type": "boolean"},
            {"type": "integer"},
            {"enum": [any_word(rng), any_word(rng)], "type": "string"},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        )
        if key not in fields:
            fields[key] = rng.choice(kinds)
            added.append(key)
    return tuple(added)


def draw_topic(world: World) -> Topic:
    """A topic; the test also has topics that training never shows."""
    topics = read_topics()
    held = [t for t in topics if is_held_topic(t)]
    open_ = [t for t in topics if not is_held_topic(t)]
    if world.test and world.rng.random() < 0.4:
        return world.rng.choice(held)
    return world.rng.choice(open_)


def is_held_topic(topic: Topic) -> bool:
    """Whether a topic is kept for the test."""
    return is_held(topic.names[-1])
