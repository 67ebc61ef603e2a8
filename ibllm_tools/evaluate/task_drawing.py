"""The tasks of `perception`: questions with media, the right route, and what is true.

Wordings are of this file alone; templates that the router is trained on are left out of it by a
test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ibllm_tools.evaluate.task_answers import Expected
from ibllm_tools.evaluate.task_scenes import Pack, Seen
from ibllm_tools.media import Media
from ibllm_tools.routing import Expert, Noun, noun_of

COUNTS = {
    "count": 14, "where": 8, "compare": 5, "total": 3,
    "words": 12, "has": 4, "nobody": 3,
    "name": 8, "exists": 8,
    "alike": 8, "matching": 4,
    "plain": 8,
    "count+words": 6, "name+words": 5, "name+count": 4,
}  # fmt: skip
"""How many tasks of each kind; 100 in all."""
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PLACES_ZH = {
    "top left": "左上", "top": "上", "top right": "右上", "left": "左", "middle": "中间",
    "right": "右", "bottom left": "左下", "bottom": "下", "bottom right": "右下",
}  # fmt: skip
_LOOKS = ("dog", "cat", "bird", "car", "bus", "train", "boat", "horse", "guitar", "airplane",
          "motorcycle", "chair", "clock", "frog", "lion", "bottle")  # fmt: skip
_SOUNDS = ("dog", "cat", "sea", "rain", "baby", "keyboard", "train", "helicopter", "piano")

Rng = np.random.Generator


@dataclass(frozen=True)
class Task:
    """A question about media.

    Attributes:
        kind: See `COUNTS`.
        question: English or Chinese.
        media: What is attached, in order.
        route: The right experts.
        expected: What a right answer says.
        scenes: The composed pictures among the media.
    """

    kind: str
    question: str
    media: tuple[Media, ...]
    route: tuple[Expert, ...]
    expected: Expected
    scenes: tuple[Seen, ...] = ()


def draw_tasks(pack: Pack, seed: int = 0, counts: dict[str, int] | None = None) -> list[Task]:
    """Draw tasks; the same seed gives the same ones.

    Args:
        pack: Where media come from.
        seed: Of all randomness.
        counts: How many of each kind; by default `COUNTS`.

    Raises:
        ConfigurationError: The pack cannot give a task.
    """
    tasks = []
    for kind, count in (COUNTS if counts is None else counts).items():
        rng = np.random.default_rng([seed, *kind.encode()])
        tasks += [_DRAW[kind](pack, rng, i % 4 == 3) for i in range(count)]
    return tasks


def _pick(rng: Rng, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _zh(noun: Noun) -> str:
    return noun.name_zh or noun.name


# what the detector finds


def _on_scene(kind: str, question: str, seen: Seen, expected: Expected) -> Task:
    return Task(kind, question, (seen.media,), ("detector",), expected, (seen,))


def _count(pack: Pack, rng: Rng, chinese: bool) -> Task:
    asked = pack.scene(rng, int(rng.choice([0, 1, 1, 2, 2, 3])))
    noun, n = noun_of(asked.name), asked.seen.count(asked.name)
    if chinese:
        question = _pick(rng, ("请数一下照片里的{}。", "图中一共有几个{}？")).format(_zh(noun))
    else:
        question = _pick(
            rng,
            ("How many {} did you find in the picture?", "Could you help me count the {} here?",
             "Please tell me how many {} you find in the image.",
             "Give me a count of the {} you can see."),
        ).format(noun.plural)  # fmt: skip
    expected = Expected(counts={asked.name: n})
    return _on_scene("count", question, asked.seen, expected)


def _where(pack: Pack, rng: Rng, chinese: bool) -> Task:
    asked = pack.scene(rng, 1, sure=True)
    noun, [(place, _)] = noun_of(asked.name), asked.seen.places[asked.name]
    if chinese:
        question = f"请告诉我{_zh(noun)}在图里的什么地方。"
    else:
        question = _pick(
            rng, ("Can you show me where the {} is?", "In what part of the image is the {}?",
                  "Where in the photo is the {} to be found?"),
        ).format(noun.name)  # fmt: skip
    words = (
        (place, _PLACES_ZH[place]) if "中" not in _PLACES_ZH[place] else (place, "中间", "center")
    )
    return _on_scene("where", question, asked.seen, Expected(words=[list(words)]))


def _compare(pack: Pack, rng: Rng, chinese: bool) -> Task:
    asked = pack.scene(rng, int(rng.choice([1, 2, 3])))
    noun, n = noun_of(asked.name), asked.seen.count(asked.name)
    claimed = n if rng.random() < 0.5 else n % 3 + 1
    if chinese:
        question = f"照片里的{_zh(noun)}是不是正好{claimed}个？"
    else:
        question = f"Is it right that the image has exactly {claimed} {noun.plural}?"
    expected = Expected(verdict=claimed == n)
    return _on_scene("compare", question, asked.seen, expected)


def _total(pack: Pack, rng: Rng, chinese: bool) -> Task:
    asked = pack.scene(rng, int(rng.choice([1, 2])))
    n = sum(map(len, asked.seen.places.values()))
    question = (
        "请检测这张图里一共有多少个物体。" if chinese else "Please count everything you can detect."
    )
    return _on_scene("total", question, asked.seen, Expected(counts={"": n}))


# what is said


def _words(pack: Pack, rng: Rng, chinese: bool) -> Task:
    said = pack.spoken(rng, int(rng.integers(1, 5)))
    if chinese:
        question = _pick(rng, ("她念了哪几个数字？", "请写出录音中的数字。"))
    else:
        question = _pick(
            rng,
            ("What is the person in the recording saying?",
             "Which digits can you hear in the clip?",
             "Tell me the number that the speaker says.", "Please transcribe this audio file."),
        )  # fmt: skip
    return Task("words", question, (said.media,), ("speech",), Expected(digits=said.digits))


def _has(pack: Pack, rng: Rng, chinese: bool) -> Task:
    said = pack.spoken(rng, int(rng.integers(2, 5)))
    others = [digit for digit in _DIGITS if digit not in said.digits]
    true = bool(rng.random() < 0.5)
    asked = _pick(rng, said.digits if true else others)
    if chinese:
        question = f"录音里有没有念到{asked}这个数？"
    else:
        question = f"Does someone say the number {asked} in the audio?"
    return Task("has", question, (said.media,), ("speech",), Expected(verdict=true))


def _nobody(pack: Pack, rng: Rng, chinese: bool) -> Task:
    known = [n for n in ("rain", "sea", "train", "keyboard") if n in pack.kinds("sounds")]
    media = pack.sound(rng, _pick(rng, known or pack.kinds("sounds")))
    question = "你能听出说了什么话吗？" if chinese else "What words did you hear in it?"
    expected = Expected(digits=(), words=[["nobody", "no one", "no speech", "no words", "没有人"]])
    return Task("nobody", question, (media,), ("speech",), expected)


# what is sensed


def _sensed(pack: Pack, rng: Rng) -> tuple[str, Media, bool]:
    """A thing, its photo, sound or shape, and whether it is heard."""
    kind = rng.random()
    if kind < 0.35:
        name = _pick(rng, [n for n in pack.kinds("sounds") if n in _SOUNDS] or pack.kinds("sounds"))
        return name, pack.sound(rng, name), True
    names = [n for n in pack.kinds("photos") if n in _LOOKS] or pack.kinds("photos")
    name = _pick(rng, names)
    return name, pack.photo(rng, name), False


def _called(name: str) -> list[str]:
    noun = noun_of(name)
    return [noun.name, noun.plural, _zh(noun), *noun.others]


def _name(pack: Pack, rng: Rng, chinese: bool) -> Task:
    name, media, heard = _sensed(pack, rng)
    if chinese:
        question = "这是什么东西发出的声音？" if heard else "你觉得这张图片里是什么？"
    else:
        question = "What sound is this?" if heard else "What is this a picture of?"
    return Task("name", question, (media,), ("answer",), Expected(words=[_called(name)]))


def _exists(pack: Pack, rng: Rng, chinese: bool) -> Task:
    name, media, heard = _sensed(pack, rng)
    true = bool(rng.random() < 0.5)
    own = _SOUNDS if heard else _LOOKS
    asked = name if true else _pick(rng, [other for other in own if other != name])
    noun = noun_of(asked)
    article = "an" if noun.name[0] in "aeiou" else "a"
    if chinese:
        question = f"里面听到的是{_zh(noun)}吗？" if heard else f"图片里看到的是不是{_zh(noun)}？"
    elif heard:
        question = f"Is the sound in this file of {article} {noun.name}?"
    else:
        question = f"Is {article} {noun.name} in this picture?"
    return Task("exists", question, (media,), ("answer",), Expected(verdict=true))


# what is alike


def _alike(pack: Pack, rng: Rng, chinese: bool) -> Task:
    names = [n for n in pack.kinds("photos", 2) if n in _LOOKS] or pack.kinds("photos", 2)
    same, other = (names[i] for i in rng.choice(len(names), 2, replace=False))
    first = bool(rng.random() < 0.5)
    query, like = pack.photos(rng, same, 2)
    pair = [like, pack.photo(rng, other)]
    media = (query, *(pair if first else pair[::-1]))
    right, wrong = ("image-2", "image-3") if first else ("image-3", "image-2")
    if chinese:
        question = "哪张照片看起来最像image-1？"
    else:
        question = "Which of these pictures is most similar to image-1?"
    expected = Expected(words=[[right]], absent=[wrong])
    return Task("alike", question, media, ("similarity",), expected)


def _matching(pack: Pack, rng: Rng, chinese: bool) -> Task:
    heard = [n for n in pack.kinds("sounds") if n in _SOUNDS and n in pack.kinds("photos")]
    name = _pick(rng, heard or pack.kinds("sounds"))
    seen = [n for n in pack.kinds("photos") if n != name and n in _LOOKS]
    other = _pick(rng, seen or [n for n in pack.kinds("photos") if n != name])
    first = bool(rng.random() < 0.5)
    pair = [pack.photo(rng, name), pack.photo(rng, other)]
    media = (pack.sound(rng, name), *(pair if first else pair[::-1]))
    right, wrong = ("image-1", "image-2") if first else ("image-2", "image-1")
    question = (
        "这个录音和哪张照片是配套的？"
        if chinese
        else "Which of the two photos goes with this recording?"
    )
    expected = Expected(words=[[right]], absent=[wrong])
    return Task("matching", question, media, ("similarity",), expected)


# what needs no media

_PLAIN = (
    ("What sound does a dog make?", ["bark", "barks", "woof"]),
    ("Which place do fish live in?", ["water", "sea", "river", "ocean"]),
    ("What do people use a chair for?", ["sit", "sitting"]),
    ("狗会发出什么声音？", ["汪"]),
    ("Hello! How are you today?", ["hello", "hi", "well", "fine", "good", "help", "you"]),
    ("Thank you so much for your help!", ["welcome", "pleasure", "glad", "problem"]),
    ("What is the name of the photographer?", ["cannot", "not", "unknown", "don't", "no"]),
    ("你好，今天怎么样？", ["好", "帮"]),
)


def _plain(pack: Pack, rng: Rng, chinese: bool) -> Task:  # noqa: ARG001 - all take the language
    question, words = _PLAIN[int(rng.integers(len(_PLAIN)))]
    names = [n for n in pack.kinds("photos") if n in _LOOKS] or pack.kinds("photos")
    media = pack.photo(rng, _pick(rng, names))
    return Task("plain", question, (media,), ("none",), Expected(words=[words]))


# what needs several


def _both(first: Task, second: Task, kind: str, question: str) -> Task:
    expected = Expected(
        counts={**first.expected.counts, **second.expected.counts},
        words=[*first.expected.words, *second.expected.words],
        digits=first.expected.digits or second.expected.digits,
    )
    order: Sequence[Expert] = ("answer", "detector", "speech")
    route = tuple(e for e in order if e in (*first.route, *second.route))
    media, scenes = (*first.media, *second.media), (*first.scenes, *second.scenes)
    return Task(kind, question, media, route, expected, scenes)


def _count_words(pack: Pack, rng: Rng, chinese: bool) -> Task:
    asked = pack.scene(rng, int(rng.choice([1, 2])))
    noun, n = noun_of(asked.name), asked.seen.count(asked.name)
    first = _on_scene("count", "", asked.seen, Expected(counts={asked.name: n}))
    if chinese:
        question = f"图片里有几个{_zh(noun)}？录音里的人说了什么？"
    else:
        question = (
            f"How many {noun.plural} are in the picture, and what does the person say in the "
            "recording?"
        )
    return _both(first, _words(pack, rng, chinese), "count+words", question)


def _name_words(pack: Pack, rng: Rng, chinese: bool) -> Task:
    names = [n for n in pack.kinds("photos") if n in _LOOKS] or pack.kinds("photos")
    name = _pick(rng, names)
    expected = Expected(words=[_called(name)])
    first = Task("name", "", (pack.photo(rng, name),), ("answer",), expected)
    question = (
        "图片里是什么？录音里说的是什么数字？"
        if chinese
        else "What do you see in the picture, and which numbers are spoken?"
    )
    return _both(first, _words(pack, rng, chinese), "name+words", question)


def _name_count(pack: Pack, rng: Rng, chinese: bool) -> Task:
    known = [n for n in pack.kinds("sounds") if n in _SOUNDS]
    name = _pick(rng, known or pack.kinds("sounds"))
    asked = pack.scene(rng, int(rng.choice([1, 2])))
    noun, n = noun_of(asked.name), asked.seen.count(asked.name)
    first = Task("name", "", (pack.sound(rng, name),), ("answer",), Expected(words=[_called(name)]))
    second = _on_scene("count", "", asked.seen, Expected(counts={asked.name: n}))
    if chinese:
        question = f"你听到什么声音？图片里有几个{_zh(noun)}？"
    else:
        question = f"What sound do you hear, and how many {noun.plural} are in the picture?"
    return _both(first, second, "name+count", question)


_DRAW: dict[str, Callable[[Pack, Rng, bool], Task]] = {
    "count": _count, "where": _where, "compare": _compare, "total": _total,
    "words": _words, "has": _has, "nobody": _nobody, "name": _name, "exists": _exists,
    "alike": _alike, "matching": _matching, "plain": _plain, "count+words": _count_words,
    "name+words": _name_words, "name+count": _name_count,
}  # fmt: skip
