"""Talk that needs no tool: what people also say where tools are offered.

The training lines stand in `tool_plain.psv` as `said|answer`, {p} for a person and {w} for a thing;
those of the test are worded otherwise and stand here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ibllm_tools.train.tool_words import World, item, person

Turn = tuple[str, str]

_TEST: tuple[str, ...] = (
    "Hello there!", "How are you today?", "Thanks a lot!", "What is your name?", "See you later.",
    "Tell me a short story about a {w}.", "Write a short poem about a {w}.", "What is a {w}?",
    "I feel happy about my {w}.", "My friend is called {p}.", "What kind of thing is a dog?",
    "Where can you find a boat?", "What sound does a cat make?", "你好！", "你叫什么名字？",
    "狗会发出什么声音？", "Are you a person?", "Is a train a vehicle?", "What is a piano used for?",
    "讲一个关于鱼的小故事。", "I love my {w}, it is very old.", "Who made you?",
)  # fmt: skip


@cache
def _read_lines() -> tuple[Turn, ...]:
    text = (Path(__file__).parent / "tool_plain.psv").read_text(encoding="utf-8")
    pairs = (line.split("|") for line in text.splitlines())
    return tuple((said, answer) for said, answer in pairs)


def draw_plain_turn(world: World) -> Turn:
    """Draw small talk that needs no tool."""
    said, answer = world.rng.choice(_read_lines())
    word = item(world, chinese="我" in said or "这" in said or "上" in said)
    name = person(world, chinese=False)
    return _fill(said, word, name), _fill(answer, word, name)


def draw_plain_test(world: World) -> str:
    """Draw what somebody says in a held-out case."""
    said = world.rng.choice(_TEST)
    return _fill(said, item(world, chinese=False), person(world, chinese=False))


def _fill(text: str, word: str, name: str) -> str:
    return text.replace("{w}", word).replace("{p}", name)
