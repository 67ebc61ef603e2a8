"""Wishes for made-up tools: functions of numbers, named records, rare words, forms to fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ibllm_tools.train.tool_frames import frame_intent
from ibllm_tools.train.tool_intents import (
    Intent,
    Schema,
    add_options,
    draw_topic,
    make_tool,
    opaque_name,
    param_name,
    style_name,
    topic_intent,
)
from ibllm_tools.train.tool_pairs import draw_pair, pair_intent
from ibllm_tools.train.tool_words import (
    World,
    any_word,
    integer,
    latin_span,
    person,
    quoted_span,
    read_words,
)

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
        fields[keys[0]] |= {"minimum": -(10**6), "maximum": 10**6}
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
    ("create", "add", "register", "make", "set up", "创建"),
    ("delete", "remove", "erase", "drop", "删除"),
    ("rename", "change", "update", "修改"), ("open", "show", "display", "打开"),
    ("print", "output", "write", "打印"), ("send", "submit", "forward", "发送"),
    ("archive", "store", "save", "保存"), ("check", "inspect", "verify", "检查"),
    ("find", "search", "locate", "查找"), ("cancel", "stop", "abort", "取消"),
    ("lock", "close", "seal", "锁定"), ("start", "launch", "begin", "启动"),
    ("count", "measure", "tally", "统计"), ("copy", "duplicate", "clone", "复制"),
)  # fmt: skip
_NOUNS = tuple(pair.replace("=", "|") for pair in read_words()["records"])


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
    keys = _distinct_params(
        world, 1 + (rng.random() < 0.25), rng.choice(("name", "title", f"{noun}_name"))
    )
    fields: dict[str, Schema] = {keys[0]: {"type": "string"}}
    arguments: dict[str, Any] = {keys[0]: span}
    if len(keys) == 2:
        arguments[keys[1]], question = _second_value(
            world, fields, keys[1], question, chinese=chinese
        )
    name = opaque_name(world) if rng.random() < 0.25 else style_name(world, [told.split()[0], noun])
    described = rng.choice(
        ("{V} a {n}", "{V}s the {n} of that name", "Tool to {v} one {n}", "{V} {n}s by name")
    )
    text = described.format(V=told.capitalize(), v=told, n=noun)
    if chinese and rng.random() < 0.5:
        text = f"{verbs[-1]}一个{noun_zh}"
    optional = add_options(world, fields, 0.15)
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
        return number, question + (
            f"{shown}是{number}。" if chinese else f" The {shown} is {number}."
        )
    if kind == "flag":
        flag = rng.random() < 0.5
        fields[key] = {"type": "boolean"}
        said = ("是" if flag else "否") if chinese else ("yes" if flag else "no")
        return flag, question + (
            f"{shown}：{said}。" if chinese else f" {shown.capitalize()}: {said}."
        )
    fields[key] = {"type": "string"}
    text = latin_span(world)
    frames = (
        f" Its {shown} is {text}.",
        f" {shown.capitalize()}: {text}.",
        f" Use {text} as {shown}.",
    )
    return text, question + rng.choice(frames)


def lexical_intent(world: World) -> Intent:
    """A tool whose description shares a rare word with the question, and nothing else does."""
    rng = world.rng
    word = world.make(any_word)
    verb = rng.choice(
        ("Shows", "Reads", "Checks", "Returns", "Gets", "Looks up", "Controls", "Manages")
    )
    extra = world.make(any_word)
    told = rng.choice(
        (
            f"{verb} the {word} of the {extra}",
            f"{verb} {extra} {word}",
            f"{verb} anything about the {word}",
        )
    )
    trained = (
        "What is the {w}?", "I want to know the {w}.", "How is the {w} today?",
        "Tell me about the {w}.",
        "Show me the {w}, please.", "{w}?", "Do something about the {w}.",
        "What about the {w} now?",
    )  # fmt: skip
    tested = ("Could you look at the {w} for me?", "I am curious about the {w}.")
    question = rng.choice(tested if world.test else trained).format(w=word)
    name = opaque_name(world) if rng.random() < 0.6 else style_name(world, ["get", extra])
    fields: dict[str, Schema] = {}
    optional = add_options(world, fields, 0.3)
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
    lead = rng.choice(
        (f"A {noun}: ", f"Extract the {noun}. ", f"Fill in the {noun}: ", f"New {noun}. ", "")
    )
    question = lead + rng.choice((", ", "; ", ". ")).join(order) + "."
    name = opaque_name(world) if rng.random() < 0.5 else style_name(world, [noun, "form"])
    told = rng.choice((f"Data of a {noun}", f"The {noun} found in the text", f"Store a {noun}"))
    return Intent(make_tool(name, told, fields), question, arguments, f"form {noun}", "form", noun)


def _form_field(world: World) -> tuple[Schema, Any, str]:
    """A field's schema, a value, and how the text says it."""
    rng = world.rng
    kind = rng.choice(
        ("integer", "number", "text", "text", "person", "flag", "enum", "list", "object", "null")
    )
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


def any_intent(world: World) -> Intent:
    """Any kind of tool and wish."""
    rng = world.rng
    makers: tuple[tuple[float, Callable[[], Intent]], ...] = (
        (6.0, lambda: topic_intent(world, draw_topic(world), chinese=rng.random() < 0.3)),
        (1.5, lambda: pair_intent(world, draw_pair(world), chinese=rng.random() < 0.3)),
        (1.8, lambda: number_intent(world)),
        (2.0, lambda: record_intent(world)),
        (1.5, lambda: lexical_intent(world)),
        (0.7, lambda: form_intent(world)),
        (0.0 if world.test else 3.0, lambda: frame_intent(world, chinese=rng.random() < 0.4)),
    )
    return rng.choices(makers, [w for w, _ in makers])[0][1]()
