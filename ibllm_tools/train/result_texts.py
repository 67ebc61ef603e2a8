"""Whole results of the toolkit's tools, around the lines that begin them."""

from __future__ import annotations

import random
import re

from ibllm_tools.routing import asked_nouns, is_chinese, kind_of_id
from ibllm_tools.routing.tool_texts import Thing, boxes_text, times_text
from ibllm_tools.train.tool_words import any_word

ENDINGS = {"image": ("jpg", "jpg", "png"), "audio": ("ogg", "wav", "flac", "mp3"),
            "video": ("mp4", "webm"), "shape": ("ply", "obj"), "depth": ("png",),
            "thermal": ("png",)}  # fmt: skip

Tooled = tuple[str, str, str]
"""A tool's name, the id or words that it is given, what it answers."""


def tool_text(rng: random.Random, name: str, line: str) -> Tooled:
    """A call, and its whole result, from the line that begins it."""
    if name == "find_similar":
        quoted = re.search(r'"(.+?)"', line)
        ids = re.findall(r"[a-z]+-\d+", line)
        given = quoted[1] if quoted else ids[0]
        others = ids if quoted else ids[1:]
        names = ", ".join(f"{id_} {draw_file(rng, id_)}" for id_ in others)
        return name, given, f"{line}\nnames: {names}"
    id_ = re.findall(r"[a-z]+-\d+", line)[0]
    more = _boxes(rng, line) if name == "detect_objects" else _times(rng, line)
    text = "\n".join(filter(None, [line, more]))
    drawn = "objects in" if name == "detect_objects" else "words of"
    if more:
        text += f" [image-{rng.randint(2, 6)}: {drawn} {id_}.png]"
    return name, id_, text


_COUNTED = re.compile(r"(\d+) ([a-z ]+) \(|([\u4e00-\u9fff]+)(\d+)（")


def _boxes(rng: random.Random, line: str) -> str:
    """Boxes of what a line tells, and sometimes of more."""
    size = rng.randint(100, 1600), rng.randint(100, 1200)
    things: list[Thing] = []
    for count, noun, noun_zh, count_zh in _COUNTED.findall(line):
        names = asked_nouns(noun or noun_zh) or [noun or noun_zh]
        things += [_thing(rng, names[0], size) for _ in range(int(count or count_zh))]
    if rng.random() < 0.3:
        things.append(_thing(rng, rng.choice(("person", "car", "clock", "bird")), size))
    return boxes_text(things, size)


def _thing(rng: random.Random, name: str, size: tuple[int, int]) -> Thing:
    x, y = sorted(rng.choices(range(size[0]), k=2)), sorted(rng.choices(range(size[1]), k=2))
    return name, rng.uniform(0.3, 0.99), (x[0], y[0], x[1], y[1])


def _times(rng: random.Random, line: str) -> str:
    """The language of what is said, and when."""
    said = re.search('"(.*)"|“(.*)”', line)
    if said is None:
        return ""
    words = (said[1] or said[2] or "").split()
    language = "zh" if is_chinese(" ".join(words)) else "en"
    if len(words) < 3 or rng.random() < 0.7:
        return times_text(language, [(0.0, 1.0, "")])
    cut, end = rng.randint(1, len(words) - 1), rng.uniform(0.5, 4)
    parts = [(0.0, end, " ".join(words[:cut])), (end, end + 2, " ".join(words[cut:]))]
    return times_text(language, parts)


def draw_file(rng: random.Random, id_: str) -> str:
    """The name of a file that somebody attached."""
    kind = kind_of_id(id_)
    ending = rng.choice(ENDINGS.get(kind or "image", ("bin",)))
    words = kind or "file", any_word(rng), any_word(rng), f"{any_word(rng)} {rng.randint(1, 99)}"
    stem = rng.choice((*words, f"IMG_{rng.randint(0, 9999):04d}", "照片", "录音"))
    return f"{stem}.{ending}"
