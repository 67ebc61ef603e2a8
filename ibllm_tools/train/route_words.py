"""Fillers of the router's training questions, and how a question is put together."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ibllm_tools.routing import held_templates, template_of
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.phrasing import dress, lower_first, upper_first
from ibllm_tools.train.tool_words import World, item, person

_PICTURES = ("picture", "photo", "image", "picture", "photo", "snapshot", "scene")
_SOUNDS = ("recording", "audio", "sound", "clip", "voice message", "audio file", "message")
_VIDEOS = ("video", "film", "clip")
_PICTURES_ZH = ("图片", "照片", "图", "画面")
_SOUNDS_ZH = ("录音", "音频", "语音", "声音", "留言")
_VIDEOS_ZH = ("视频", "短片")
_BEFORE = (
    "I took this yesterday. ", "This is from my holiday. ", "My friend sent me this. ",
    "Here are the files. ", "Look. ", "See the attachment. ", "I have a question about this. ",
    "Please look at it carefully. ", "I am not sure about this. ", "One more thing. ",
    "Thanks. ", "OK, great. ", "Hello again. ", "It is for my homework. ",
    "We found it in the archive. ", "Attached is something. ",
)  # fmt: skip
_BEFORE_ZH = (
    "这是我昨天拍的。", "朋友发给我的。", "请看附件。", "我有个问题。", "请仔细看看。",
    "还有一件事。", "谢谢。", "很好。", "这是作业。", "我不太确定。",
)  # fmt: skip
_COLOURS = ("red", "small", "big", "white", "black", "old", "brown", "blue", "young", "green")


_GRAMMAR = 0.6
"""Share of questions from templates with choices."""


@dataclass(frozen=True)
class _Lines:
    """The lines of one list: those with choices, and those without."""

    plain: tuple[str, ...]
    wide: tuple[str, ...]


_KEPT: ContextVar[dict[str, _Lines] | None] = ContextVar("kept lines", default=None)


@cache
def _all_lists() -> dict[str, _Lines]:
    lines = (Path(__file__).parent / "route_phrases.psv").read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for line in lines[1:]:
        route, text = line.split("|")
        found.setdefault(route, []).append(text)
    return {route: _split(texts) for route, texts in found.items()}


def _split(texts: Sequence[str]) -> _Lines:
    wide = tuple(text for text in texts if "<" in text or "@" in text)
    return _Lines(tuple(text for text in texts if text not in wide), wide)


def _lists() -> dict[str, _Lines]:
    return _KEPT.get() or _all_lists()


@contextmanager
def only_lines(keep: Callable[[str], bool]) -> Iterator[None]:
    """Draw from a part of the templates alone; a list of which too few are kept stays whole.

    Args:
        keep: Whether a line of `route_phrases.psv` is kept.
    """
    kept = {}
    for route, lines in _all_lists().items():
        part = _split([text for text in (*lines.plain, *lines.wide) if keep(text)])
        kept[route] = part if part.plain and route[0] != "@" else lines
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


def phrases(route: str) -> tuple[str, ...]:
    """Templates of a route that have no choices; lists in Chinese end in `_zh`."""
    return _lists()[route].plain


def several_lists(*, chinese: bool) -> list[str]:
    """Names of the lists whose questions need several experts: `detector+speech`."""
    return [name for name in _lists() if "+" in name and name.endswith("_zh") == chinese]


def draw_template(rng: random.Random, route: str) -> str:
    """Draw a template of a route that no question of the test has.

    Its choices are made: `<a/b/c>`, and macros such as `@pic`.
    """
    while True:
        template = _expand(rng, route)
        if template_of(template) not in held_templates():
            return template


def _expand(rng: random.Random, route: str) -> str:
    wide = _lists()[route].wide
    if not wide or rng.random() > _GRAMMAR:
        return rng.choice(phrases(route))
    text = re.sub(r"@[a-z]+", lambda found: _macro(rng, found[0]), rng.choice(wide))
    text = re.sub(r"<([^<>]*)>", lambda found: rng.choice(found[1].split("/")), text)
    return upper_first(" ".join(text.split()))


def _macro(rng: random.Random, name: str) -> str:
    lines = _lists()[name]
    return rng.choice((*lines.plain, *lines.wide)[0].split("/"))


def draw_ids(rng: random.Random, kinds: Sequence[str], least: int) -> list[str]:
    """Draw ids of attachments: one of each kind, more of them until there are `least`."""
    held = list(kinds)
    while len(held) < least or (len(held) < 5 and rng.random() < 0.2):
        held.append(rng.choice((*kinds, "image", "audio")))
    rng.shuffle(held)
    counts: dict[str, int] = {}
    ids = []
    for kind in held:
        counts[kind] = counts.get(kind, 0) + 1
        ids.append(f"{kind}-{counts[kind]}")
    return ids


def fill(
    rng: random.Random,
    template: str,
    facts: Sequence[Fact],
    ids: Sequence[str],
    *,
    known: bool = False,
) -> str:
    """Fill the slots of a template.

    Args:
        rng: Random source.
        template: See `route_phrases.psv`.
        facts: Concepts that can be named.
        ids: Of the attachments, for `{i}`, `{j}` and `{k}`.
        known: Only concepts are named, and no other things.
    """
    chinese = bool(re.search("[\u4e00-\u9fff]", template))
    world = World(rng)
    first, second = rng.sample(list(facts), 2) if len(facts) > 1 else (facts[0], facts[0])
    named = list(rng.sample(list(ids), len(ids)))
    values = {"i": named[0], "j": named[1 % len(named)], "k": named[2 % len(named)]}
    values["p"] = person(world, chinese=chinese)
    if chinese:
        values |= {"m": rng.choice(_PICTURES_ZH), "u": rng.choice(_SOUNDS_ZH)}
        values |= {"v": rng.choice(_VIDEOS_ZH), "n": first.name_zh, "n2": second.name_zh}
        if not known and rng.random() < 0.25:
            values["n"] = item(world, chinese=True)
        return template.format(**values)
    values |= {"m": rng.choice(_PICTURES), "u": rng.choice(_SOUNDS), "v": rng.choice(_VIDEOS)}
    values |= {"n": first.plural, "s": first.name, "a": first.phrase}
    values |= {"n2": second.plural, "s2": second.name, "a2": second.phrase}
    if not known and rng.random() < 0.3:
        word = item(world, chinese=False)
        if rng.random() < 0.4:
            word = f"{rng.choice(_COLOURS)} {first.name}"
        article = "an" if word[0] in "aeiou" else "a"
        values |= {"n": f"{word}s", "s": word, "a": f"{article} {word}"}
    return template.format(**values)


def put(rng: random.Random, question: str, *, chinese: bool) -> str:
    """Put a question as different people would, sometimes with a sentence before it."""
    question = dress(rng, question, chinese=chinese)
    if rng.random() < 0.1:
        question = rng.choice(_BEFORE_ZH if chinese else _BEFORE) + question
    return question


_JOINTS = (
    "{0}, and {1}", "{0}, and {1}", "{0} And {1}", "{0} Also, {1}", "{0}\n{2}", "{0} {2}",
    "{0} {2}", "{0}, then {1}", "{0} Then: {2}", "{0}, plus: {1}", "First: {1}, then: {3}",
    "Two questions: {1}, and {3}", "{0}; {1}", "{0}, but also: {1}", "{0} After that, {1}",
    "{0} as well as: {1}", "1. {4} 2. {2}", "{0}, and by the way, {1}", "{0} And second, {1}",
    "{0} One more thing: {1}", "{0}, moreover {1}",
)  # fmt: skip
_JOINTS_ZH = (
    "{0}，{2}", "{0}？{2}", "{0}，另外，{2}", "{0}，还有，{2}", "先{0}，再{2}", "{0}，然后{2}",
    "{0}，同时{2}", "{0}，并且{2}", "两个问题：{0}？{2}", "{0}；{2}", "{0}。再问一下，{2}",
    "{0}，顺便{2}", "{0}，以及{2}", "一、{0}，二、{2}",
)  # fmt: skip


def join(rng: random.Random, first: str, second: str, *, chinese: bool) -> str:
    """Make one question of two."""
    if chinese:
        return rng.choice(_JOINTS_ZH).format(first.rstrip("？。"), "", second)
    form = rng.choice(_JOINTS)
    led = first if form[:4] in ("{0} ", "{0}\n") else first.rstrip("?.!")
    parts = led, lower_first(second), second, lower_first(second), first
    if form.startswith(("First", "Two")):
        parts = led, lower_first(first.rstrip("?.!")), second, lower_first(second), first
    return form.format(*parts)
