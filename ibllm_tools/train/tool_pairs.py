"""Hand-written tools of two or three arguments, as topics are written for one argument."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ibllm_tools.train.tool_intents import (
    Intent,
    Schema,
    add_options,
    make_tool,
    opaque_name,
    param_name,
    style_name,
    topic_value,
)
from ibllm_tools.train.tool_words import World, is_held, read_words

_LISTS = ("languages", "currencies", "days", "hours", "colours")


@dataclass(frozen=True)
class Pair:
    """What a tool of several arguments does, and how people ask for it.

    Attributes:
        topic: First name of the one-argument topic that it must not be offered beside.
        names: Names of the tool.
        params: For each argument its usual names.
        kinds: For each argument its kind: a topic's, or a list of `tool_words.psv`.
        descriptions: English, then Chinese.
        questions: English, then Chinese; `{a}`, `{b}`, `{c}` stand for the values.
        things: How an answer calls the result, English, then Chinese.
    """

    topic: str
    names: tuple[str, ...]
    params: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    descriptions: tuple[tuple[str, ...], tuple[str, ...]]
    questions: tuple[tuple[str, ...], tuple[str, ...]]
    things: tuple[str, str]


@cache
def read_pairs() -> tuple[Pair, ...]:
    """Read the hand-written tools of `tool_pairs.psv`."""
    text = (Path(__file__).parent / "tool_pairs.psv").read_text(encoding="utf-8")
    return tuple(_parse(line) for line in text.splitlines()[1:])


def _parse(line: str) -> Pair:
    topic, names, params, kinds, told, asked, told_zh, asked_zh, thing, thing_zh = line.split("|")
    return Pair(
        topic, tuple(names.split(",")), tuple(tuple(p.split(",")) for p in params.split(";")),
        tuple(kinds.split(",")), (tuple(told.split(";")), tuple(told_zh.split(";"))),
        (tuple(asked.split(";")), tuple(asked_zh.split(";"))), (thing, thing_zh),
    )  # fmt: skip


def is_held_pair(pair: Pair) -> bool:
    """Whether a pair is kept for the test."""
    return is_held(pair.names[-1])


def draw_pair(world: World) -> Pair:
    """A pair; the test also has pairs that training never shows."""
    held = [p for p in read_pairs() if is_held_pair(p)]
    open_ = [p for p in read_pairs() if not is_held_pair(p)]
    if held and world.test and world.rng.random() < 0.4:
        return world.rng.choice(held)
    return world.rng.choice(open_)


def pair_intent(world: World, pair: Pair, *, chinese: bool) -> Intent:
    """A wish for a hand-written tool of several arguments."""
    rng = world.rng
    words = rng.choice(pair.names).split("_")
    name = opaque_name(world) if rng.random() < 0.3 else style_name(world, words)
    told = rng.choice(pair.descriptions[chinese and rng.random() < 0.6])
    asked = pair.questions[chinese]
    question = asked[-1] if world.test else rng.choice(asked[:-1])
    values = _draw_values(world, pair, chinese=chinese)
    fields, arguments = _fill(world, pair, values)
    optional = add_options(world, fields, 0.1)
    return Intent(
        make_tool(name, told, fields, optional), _say(question, values), arguments,
        pair.topic, "pair", pair.things[chinese], "", chinese,
    )  # fmt: skip


def _draw_values(world: World, pair: Pair, *, chinese: bool) -> list[Any]:
    """One value for each argument, no two alike."""
    values: list[Any] = []
    while len(values) < len(pair.kinds):
        kind = pair.kinds[len(values)]
        if kind in _LISTS:
            value = world.pick(read_words()[kind + ("_zh" if chinese else "")])
        else:
            value = topic_value(world, kind, chinese=chinese)[0]
        if value not in values:
            values.append(value)
    return values


def _fill(world: World, pair: Pair, values: list[Any]) -> tuple[dict[str, Schema], dict[str, Any]]:
    """Parameters in any order, and the arguments in theirs; a rare name is always described."""
    rng = world.rng
    fields: dict[str, Schema] = {}
    arguments: dict[str, Any] = {}
    for i in rng.sample(range(len(values)), len(values)):
        usual = rng.choice(pair.params[i])
        key = param_name(world, usual)
        while key in fields:
            key = param_name(world)
        fields[key] = {"type": "integer" if isinstance(values[i], int) else "string"}
        if key != usual or rng.random() < 0.2:
            fields[key]["description"] = rng.choice(pair.params[i]).replace("_", " ")
        arguments[key] = values[i]
    return fields, arguments


def _say(question: str, values: list[Any]) -> str:
    parts = question.split("{")
    slots = {letter: str(value) for letter, value in zip("abc", values, strict=False)}
    return parts[0] + "".join(slots[part[0]] + part[2:] for part in parts[1:])
