"""Words and values that made-up tools are built from, divided into training and test.

A word belongs to the test if its checksum says so (one in eight); no test word ever stands in
the training rows as a tool's name, a parameter's name or a value.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


def is_held(text: str) -> bool:
    """Whether a text is kept for the test: one in eight, by checksum."""
    return zlib.crc32(text.encode()) % 8 == 0


@dataclass(frozen=True)
class World:
    """One side of the division: training words, or test words.

    Attributes:
        rng: Random source.
        test: Whether this is the side of the test.
    """

    rng: random.Random
    test: bool = False

    def pick(self, options: Sequence[str]) -> str:
        """Draw one option of this side."""
        mine = [o for o in options if is_held(o) == self.test]
        return self.rng.choice(mine or list(options))

    def make(self, maker: Callable[[random.Random], str]) -> str:
        """Draw from a maker until the text is of this side."""
        for _ in range(200):
            text = maker(self.rng)
            if is_held(text) == self.test:
                return text
        raise RuntimeError("no text of the wanted side was drawn")


@dataclass(frozen=True)
class Topic:
    """What one kind of tool does, and how people ask for it."""

    names: tuple[str, ...]
    params: tuple[str, ...]
    kind: str
    descriptions: tuple[str, ...]
    questions: tuple[str, ...]
    descriptions_zh: tuple[str, ...]
    questions_zh: tuple[str, ...]
    thing: str
    thing_zh: str


@cache
def read_words() -> dict[str, tuple[str, ...]]:
    """Read the lists of words and characters of `tool_words.psv`."""
    text = (Path(__file__).parent / "tool_words.psv").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines()]
    return {name: tuple(words.split(";")) for name, words in rows}


@cache
def read_topics() -> tuple[Topic, ...]:
    """Read the hand-written topics of `tool_topics.psv`."""
    text = (Path(__file__).parent / "tool_topics.psv").read_text(encoding="utf-8")
    topics = []
    for line in text.splitlines()[1:]:
        names, params, kind, told, asked, told_zh, asked_zh, thing, thing_zh = line.split("|")
        topics.append(
            Topic(
                tuple(names.split(",")), tuple(params.split(",")), kind,
                tuple(told.split(";")), tuple(asked.split(";")),
                tuple(told_zh.split(";")), tuple(asked_zh.split(";")), thing, thing_zh,
            )
        )  # fmt: skip
    return tuple(topics)


def pseudo_word(rng: random.Random) -> str:
    """A word that does not exist: one to three syllables."""
    syllables = rng.choice((1, 1, 2, 2, 3))
    return "".join(
        rng.choice(read_words()["openings"])
        + rng.choice(read_words()["vowels"])
        + rng.choice(read_words()["endings"])
        for _ in range(syllables)
    )


def any_word(rng: random.Random) -> str:
    """A real word or one that does not exist."""
    return rng.choice(read_words()["words"]) if rng.random() < 0.6 else pseudo_word(rng)


def integer(world: World) -> int:
    """A whole number of one to six digits; sometimes negative."""

    def draw(rng: random.Random) -> str:
        digits = rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
        value = rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
        return str(-value if rng.random() < 0.08 else value)

    return int(world.make(draw))


def latin_span(world: World) -> str:
    """One to six words in some casing, perhaps with digits or punctuation."""

    def draw(rng: random.Random) -> str:
        words = [any_word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 5)))]
        style = rng.random()
        if style < 0.35:
            words = [w.capitalize() for w in words]
        elif style < 0.42:
            words = [w.upper() for w in words]
        elif style < 0.5:
            words[0] = words[0].capitalize()
        text = " ".join(words)
        if rng.random() < 0.15:
            text += rng.choice((" 7", " 42", "-3", " 2000", "!", "?", " & Co", ".txt", ", Inc"))
        return text

    return world.make(draw)


def han_span(world: World) -> str:
    """Two to eight Chinese characters."""
    return world.make(
        lambda rng: "".join(rng.choices(read_words()["han"], k=rng.choice((2, 3, 4, 4, 5, 6, 8))))
    )


def kana_span(world: World) -> str:
    """Three to eight kana, perhaps with Chinese characters after them."""

    def draw(rng: random.Random) -> str:
        text = "".join(
            rng.choices(
                rng.choice((read_words()["hiragana"], read_words()["katakana"])),
                k=rng.randint(3, 8),
            )
        )
        return text + (
            "".join(rng.choices(read_words()["han"], k=2)) if rng.random() < 0.25 else ""
        )

    return world.make(draw)


def quoted_span(world: World) -> tuple[str, str]:
    """A span to copy and its script: latin, han or kana."""
    script = world.rng.choice(("latin", "latin", "han", "kana"))
    makers = {"latin": latin_span, "han": han_span, "kana": kana_span}
    return makers[script](world), script


def place(world: World, *, chinese: bool) -> str:
    """A place that exists or might."""
    if chinese:
        return (
            world.pick(read_words()["places_zh"])
            if world.rng.random() < 0.7
            else han_span(world)[:3]
        )
    if world.rng.random() < 0.55:
        return world.pick(read_words()["places"])
    return world.make(
        lambda rng: " ".join(pseudo_word(rng).capitalize() for _ in range(rng.choice((1, 1, 2))))
    )


def person(world: World, *, chinese: bool) -> str:
    """A person's name."""
    if chinese:
        return world.pick(read_words()["names_zh"])

    def draw(rng: random.Random) -> str:
        first = (
            rng.choice(read_words()["first_names"])
            if rng.random() < 0.7
            else pseudo_word(rng).capitalize()
        )
        last = (
            rng.choice(read_words()["last_names"])
            if rng.random() < 0.6
            else pseudo_word(rng).capitalize()
        )
        return first if rng.random() < 0.4 else f"{first} {last}"

    return world.make(draw)


def item(world: World, *, chinese: bool, food: bool = False) -> str:
    """An object or a dish."""
    if chinese:
        return world.pick(read_words()["foods_zh"] if food else read_words()["items_zh"])
    if world.rng.random() < 0.65:
        return world.pick(read_words()["foods"] if food else read_words()["items"])
    return world.make(
        lambda rng: f"{any_word(rng)} {pseudo_word(rng)}" if rng.random() < 0.4 else any_word(rng)
    )


FILE_ENDINGS = {
    "image": ("jpg", "png", "jpeg", "webp"),
    "audio": ("wav", "mp3", "ogg", "flac"),
    "video": ("mp4", "mov", "avi"),
    "shape": ("ply", "obj", "npy"),
    "depth": ("png", "npy"),
}


def attachment(world: World, kind: str) -> tuple[str, str]:
    """An attachment's id and how the user's text shows it."""
    rng = world.rng
    numbers = (1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
    name = f"{kind}-{rng.choice(numbers)}"
    if not world.test and rng.random() < 0.3:  # two digits are harder to copy
        name = f"{kind}-{rng.randint(10, 29)}"
    if rng.random() < 0.15:
        return name, f"[{name}]"
    stem = world.make(any_word)
    if rng.random() < 0.4:
        stem += rng.choice(("_1", "2", "-a", "_final", "03", "_2024", " copy"))
    return name, f"[{name}: {stem}.{rng.choice(FILE_ENDINGS[kind])}]"
