"""Made-up tools, each with one wish that it serves and the arguments that the wish names.

Names, parameter names, wording and values are drawn anew for every row, so that the only way
to be right is to read what the tools say and to copy what the user says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ibllm_tools.train.tool_words import (
    World,
    Topic,
    any_word,
    attachment,
    integer,
    is_held,
    item,
    latin_span,
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
    return world.make(
        lambda r: any_word(r) if r.random() < 0.6 else f"{any_word(r)}_{any_word(r)}"
    )


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
        value, shown, script = _topic_value(world, topic.kind, chinese=chinese)
        key = param_name(world, rng.choice(topic.params))
        fields[key] = {"type": "integer" if topic.kind == "integer" else "string"}
        if rng.random() < 0.25:
            fields[key]["description"] = rng.choice(topic.params).replace("_", " ")
        arguments[key] = value
        question = question.replace("{v}", str(shown))
        if topic.kind in _MEDIA:
            question = _attach(world, question, str(value), topic.kind)
    optional = _add_options(world, fields, 0.15)
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


def _topic_value(world: World, kind: str, *, chinese: bool) -> tuple[Any, Any, str]:
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


def _add_options(world: World, fields: dict[str, Schema], chance: float) -> tuple[str, ...]:
    """Perhaps add optional parameters that the question does not name."""
    rng = world.rng
    added = []
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


_CALLS = (
    "Call {n} with {v}.", "Compute {n}({v}).", "Run {n} on {v}.", "Apply {n} to {v}.",
    "{n}({v}) = ?", "What does {n}({v}) give?", "Use the tool to find {n}({v}).",
    "What is {n} of {v}?", "I need the result of {n} for {v}.", "请用 {v} 调用 {n}。",
    "{n}({v}) 等于多少？", "Please evaluate {n} at {v}.", "Give me {n}({v}), using the tool.",
    "What do you get for {n}({v})?", "Tell me {n}({v}).",
)  # fmt: skip
_NUMBER_TOOLS = (
    "Compute the {w} number of an input", "Returns the {w} value of its input",
    "A secret {w} function", "Applies the {w} rule to numbers", "Gives the {w} sum of its inputs",
    "Combine whole numbers in a {w} way", "Multiplies in the {w} manner", "计算{w}值",
)  # fmt: skip


def number_intent(world: World) -> Intent:
    """A made-up function of one to three whole numbers, or of none."""
    rng = world.rng
    name = opaque_name(world)
    word = world.make(any_word)
    keys = _distinct_params(world, rng.choices((0, 1, 2, 3), (1, 5, 3, 1))[0])
    values = [integer(world) for _ in keys]
    mention = name if rng.random() < 0.75 else f"the {word} function"
    shown = rng.choice((", ", " and ", ", ")).join(map(str, values))
    frames = [f for f in _CALLS if (_has_frame_side(f)) == world.test and (values or "({v})" in f)]
    question = rng.choice(frames).replace("{n}", mention).replace("{v}", shown)
    fields: dict[str, Schema] = {key: {"type": "integer"} for key in keys}
    if keys and rng.random() < 0.2:
        fields[keys[0]] |= {"minimum": -10**6, "maximum": 10**6}
    told = rng.choice(_NUMBER_TOOLS).replace("{w}", word)
    arguments = dict(zip(keys, values, strict=True))
    task = "integer" if keys else "other"
    return Intent(make_tool(name, told, fields), question, arguments, name, task, "result")


def _has_frame_side(frame: str) -> bool:
    return frame in _CALLS[-4:]


def _distinct_params(world: World, count: int, usual: str = "") -> list[str]:
    keys: list[str] = []
    while len(keys) < count:
        key = param_name(world, usual if not keys else "")
        if key not in keys:
            keys.append(key)
    return keys


_MARKS = (('"', '"'), ("'", "'"), ("“", "”"), ("「", "」"), ("《", "》"), ('"', '"'))
_VERBS = (
    ("create", "add", "register", "make", "set up", "创建"), ("delete", "remove", "erase", "drop", "删除"),
    ("rename", "change", "update", "修改"), ("open", "show", "display", "打开"),
    ("print", "output", "write", "打印"), ("send", "submit", "forward", "发送"),
    ("archive", "store", "save", "保存"), ("check", "inspect", "verify", "检查"),
    ("find", "search", "locate", "查找"), ("cancel", "stop", "abort", "取消"),
    ("lock", "close", "seal", "锁定"), ("start", "launch", "begin", "启动"),
    ("count", "measure", "tally", "统计"), ("copy", "duplicate", "clone", "复制"),
)  # fmt: skip
_NOUNS = tuple(
    "customer|客户 team|团队 project|项目 file|文件 folder|文件夹 user|用户 product|产品 shop|商店 "
    "room|房间 group|小组 event|活动 course|课程 ticket|票 company|公司 channel|频道 playlist|歌单 "
    "invoice|发票 robot|机器人 server|服务器 plant|植物 song|歌曲 report|报告 contract|合同 label|标签 "
    "meeting|会议 student|学生 patient|病人 recipe|食谱 garden|花园 ship|船 train|火车 engine|引擎 "
    "letter|信 parcel|包裹 camera|相机 door|门 window|窗户 alarm|警报 sensor|传感器 budget|预算".split()
)


def record_intent(world: World) -> Intent:
    """Do something with a named thing: the span in quotation marks is the argument."""
    rng = world.rng
    verbs = rng.choice(_VERBS)
    noun, noun_zh = world.pick(_NOUNS).split("|")
    span, script = quoted_span(world)
    left, right = rng.choice(_MARKS)
    chinese = script == "han" and rng.random() < 0.6
    asked, told = rng.choice(verbs[:-1]), rng.choice(verbs[:-1])
    if chinese:
        frames = ("{v}{n}{q}。", "请{v}名为{q}的{n}。", "帮我{v}一个叫{q}的{n}。")
        question = rng.choice(frames).format(v=verbs[-1], n=noun_zh, q=left + span + right)
    else:
        trained = (
            "{v} the {n} {q}.", "{v} a {n} called {q}.", "Please {w} the {n} {q}.",
            "I want to {w} a {n} with the name {q}.", "Can you {w} {q}, the {n}?", "{v} {n}: {q}",
            "The {n} {q}: {w} it.", "{q} is a {n}. {v} it.",
        )  # fmt: skip
        tested = ("Would you {w} the {n} that is named {q}?", "Kindly {w} a new {n}, {q}.")
        question = rng.choice(tested if world.test else trained).format(
            v=asked.capitalize(), w=asked, n=noun, q=left + span + right
        )
    keys = _distinct_params(world, 1 + (rng.random() < 0.25), rng.choice(("name", "title", f"{noun}_name")))
    fields: dict[str, Schema] = {keys[0]: {"type": "string"}}
    arguments: dict[str, Any] = {keys[0]: span}
    if len(keys) == 2:
        arguments[keys[1]], question = _second_value(world, fields, keys[1], question, chinese=chinese)
    name = opaque_name(world) if rng.random() < 0.25 else style_name(world, [told.split()[0], noun])
    described = rng.choice(("{V} a {n}", "{V}s the {n} of that name", "Tool to {v} one {n}", "{V} {n}s by name"))
    text = described.format(V=told.capitalize(), v=told, n=noun)
    if chinese and rng.random() < 0.5:
        text = f"{verbs[-1]}一个{noun_zh}"
    optional = _add_options(world, fields, 0.15)
    return Intent(
        make_tool(name, text, fields, optional), question, arguments,
        f"{verbs[0]} {noun}", "quoted", noun_zh if chinese else noun, script, chinese,
    )  # fmt: skip


def _second_value(
    world: World, fields: dict[str, Schema], key: str, question: str, *, chinese: bool
) -> tuple[Any, str]:
    """A second argument and the question with it."""
    rng = world.rng
    kind = rng.choice(("number", "text", "flag"))
    shown = key.replace("_", " ")
    if kind == "number":
        number = integer(world)
        fields[key] = {"type": "integer"}
        return number, question + (f"{shown}是{number}。" if chinese else f" The {shown} is {number}.")
    if kind == "flag":
        flag = rng.random() < 0.5
        fields[key] = {"type": "boolean"}
        said = ("是" if flag else "否") if chinese else ("yes" if flag else "no")
        return flag, question + (f"{shown}：{said}。" if chinese else f" {shown.capitalize()}: {said}.")
    fields[key] = {"type": "string"}
    text = latin_span(world)
    frames = (f" Its {shown} is {text}.", f" {shown.capitalize()}: {text}.", f" Use {text} as {shown}.")
    return text, question + rng.choice(frames)


def lexical_intent(world: World) -> Intent:
    """A tool whose description shares a rare word with the question, and nothing else does."""
    rng = world.rng
    word = world.make(any_word)
    verb = rng.choice(("Shows", "Reads", "Checks", "Returns", "Gets", "Looks up", "Controls", "Manages"))
    extra = world.make(any_word)
    told = rng.choice((f"{verb} the {word} of the {extra}", f"{verb} {extra} {word}", f"{verb} anything about the {word}"))
    trained = (
        "What is the {w}?", "I want to know the {w}.", "How is the {w} today?", "Tell me about the {w}.",
        "Show me the {w}, please.", "{w}?", "Do something about the {w}.", "What about the {w} now?",
    )  # fmt: skip
    tested = ("Could you look at the {w} for me?", "I am curious about the {w}.")
    question = rng.choice(tested if world.test else trained).format(w=word)
    name = opaque_name(world) if rng.random() < 0.6 else style_name(world, ["get", extra])
    fields: dict[str, Schema] = {}
    optional = _add_options(world, fields, 0.3)
    return Intent(make_tool(name, told, fields, optional), question, {}, word, "other", word)


def form_intent(world: World) -> Intent:
    """Fill a form from a text: several fields of several kinds, perhaps nested."""
    rng = world.rng
    keys = _distinct_params(world, rng.randint(2, 4))
    fields: dict[str, Schema] = {}
    arguments: dict[str, Any] = {}
    said = []
    for key in keys:
        schema, value, shown = _form_field(world)
        fields[key] = schema
        arguments[key] = value
        said.append(f"{key.replace('_', ' ')} {rng.choice(('is', '=', ':'))} {shown}")
    order = said if rng.random() < 0.5 else rng.sample(said, len(said))
    noun = world.pick(_NOUNS).split("|")[0]
    lead = rng.choice((f"A {noun}: ", f"Extract the {noun}. ", f"Fill in the {noun}: ", f"New {noun}. ", ""))
    question = lead + rng.choice((", ", "; ", ". ")).join(order) + "."
    name = opaque_name(world) if rng.random() < 0.5 else style_name(world, [noun, "form"])
    told = rng.choice((f"Data of a {noun}", f"The {noun} found in the text", f"Store a {noun}"))
    return Intent(
        make_tool(name, told, fields), question, arguments, f"form {noun}", "form", noun
    )


def _form_field(world: World) -> tuple[Schema, Any, str]:
    """A field's schema, a value, and how the text says it."""
    rng = world.rng
    kind = rng.choice(("integer", "number", "text", "text", "person", "flag", "enum", "list", "object", "null"))
    if kind == "integer":
        number = integer(world)
        return {"type": "integer"}, number, str(number)
    if kind == "number":
        real = round(rng.uniform(0, 500), rng.choice((1, 1, 2)))
        return {"type": "number"}, real, str(real)
    if kind == "flag":
        flag = rng.random() < 0.5
        return {"type": "boolean"}, flag, "yes" if flag else "no"
    if kind == "enum":
        options = [world.make(any_word) for _ in range(rng.randint(2, 4))]
        chosen = rng.choice(options)
        return {"type": "string", "enum": options}, chosen, chosen
    if kind == "list":
        words = [world.make(any_word) for _ in range(rng.randint(1, 3))]
        return {"type": "array", "items": {"type": "string"}}, words, " and ".join(words)
    if kind == "object":
        inner = param_name(world)
        number = integer(world)
        schema = {"type": "object", "properties": {inner: {"type": "integer"}}, "required": [inner]}
        return schema, {inner: number}, f"{inner.replace('_', ' ')} {number}"
    if kind == "null":
        return {"anyOf": [{"type": "string"}, {"type": "null"}]}, None, "none"
    text = person(world, chinese=False) if kind == "person" else latin_span(world)
    return {"type": "string"}, text, text


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


def any_intent(world: World) -> Intent:
    """Any kind of tool and wish."""
    rng = world.rng
    makers: tuple[tuple[float, Callable[[], Intent]], ...] = (
        (6.0, lambda: topic_intent(world, draw_topic(world), chinese=rng.random() < 0.3)),
        (1.8, lambda: number_intent(world)),
        (2.0, lambda: record_intent(world)),
        (1.5, lambda: lexical_intent(world)),
        (0.7, lambda: form_intent(world)),
    )
    return rng.choices(makers, [w for w, _ in makers])[0][1]()
