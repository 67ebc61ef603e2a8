"""Fillers of the router's training questions, and how a question is put together."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.phrasing import dress
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


@cache
def phrases() -> dict[str, tuple[str, ...]]:
    """Templates by route; those in Chinese end in `_zh`."""
    lines = (Path(__file__).parent / "route_phrases.psv").read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for line in lines[1:]:
        route, text = line.split("|")
        found.setdefault(route, []).append(text)
    return {route: tuple(texts) for route, texts in found.items()}


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


def join(rng: random.Random, first: str, second: str, *, chinese: bool) -> str:
    """Make one question of two."""
    if chinese:
        return first.rstrip("？。") + rng.choice(("，", "？", "，另外，", "，还有，")) + second
    joint = rng.choice((", and ", " And ", " Also, ", "\n", " ", ", then ", " Then: "))
    if joint[0] == ",":
        first = first.rstrip("?.!")
    lower = joint.strip() in ("and", ", and", ", then", "Also,", "And")
    return first + joint + (second[:1].lower() + second[1:] if lower else second)
