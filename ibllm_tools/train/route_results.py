"""Answers from experts' results: counts, places, spoken words, likeness, nothing found.

An answer repeats what was found, in one form for every wording, and then says what follows:
`There are 3 dogs (left, top, middle) and 1 cat (right), so yes.`
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ibllm_tools.routing import (
    answer_messages,
    asked_nouns,
    conclude,
    conclude_speech,
    held_templates,
    say_likeness,
    say_objects,
    say_pair,
    say_senses,
    say_speech,
    template_of,
)
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.route_words import draw_template, fill, join, put
from ibllm_tools.train.talk_seen import Scene, exists_turn, what_turn
from ibllm_tools.train.tool_talk import ToolChat


@dataclass(frozen=True)
class Read:
    """Part of a question, and what its expert tells.

    Attributes:
        question: The part.
        told: From the whole question, the expert's line and the answer that it gives.
    """

    question: str
    told: Callable[[str], tuple[str, str]]


_CHINESE_SHARE = 0.36
_PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom",
           "bottom right")  # fmt: skip
_PLACES_ZH = ("左上", "上", "右上", "左", "中间", "右", "左下", "下", "右下")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS_ZH = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九")
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SENTENCES = (
    "the train leaves at noon", "please call me back", "good morning everyone",
    "i will be there soon", "the meeting starts now", "do not forget the keys",
    "it is raining again", "we have found the dog", "thank you for your help",
    "my number has changed", "dinner is ready", "the door is open", "turn left at the house",
)  # fmt: skip
_SENTENCES_ZH = ("明天见", "请给我回电话", "会议现在开始", "今天下雨了", "门开着", "谢谢你的帮助")
_BOTH = 0.45
"""Share of questions that need two experts."""
_PICTURES = ("image-1", "image-1", "image-1", "image-2", "video-1", "image-3")
_SOUNDS = ("audio-1", "audio-1", "audio-1", "audio-2", "video-1", "audio-3")


def draw_read(rng: random.Random, facts: Sequence[Fact]) -> ToolChat:
    """Draw a question with results and its answer."""
    chinese = rng.random() < _CHINESE_SHARE
    makers: dict[Callable[..., Read], float] = {_senses: 3, _objects: 5, _speech: 5, _likeness: 1}
    if rng.random() < _BOTH:
        chosen = [rng.choices(list(makers), list(makers.values()))[0]]
        chosen.append(rng.choice([maker for maker in makers if maker not in chosen]))
    else:
        chosen = [rng.choices((_objects, _speech, _likeness), (5, 3, 2))[0]]
    parts = {maker: maker(rng, facts, chinese=chinese) for maker in chosen}
    question = parts[chosen[0]].question
    if len(chosen) > 1:
        question = join(rng, question, parts[chosen[1]].question, chinese=chinese)
    question = put(rng, question, chinese=chinese)
    told = [parts[maker].told(question) for maker in makers if maker in parts]
    lines, answers = [line for line, _ in told], [answer for _, answer in told]
    said = ("" if chinese else " ").join(answers)
    return ToolChat((*answer_messages(question, lines), {"role": "assistant", "content": said}))


# objects


def _objects(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    if rng.random() < 0.35:
        return _judged(rng, facts, chinese=chinese)
    template = draw_template(rng, "detector_zh" if chinese else "detector")
    id_ = rng.choice(_PICTURES)
    question = fill(rng, template, facts, [id_], known=True)
    scene = _scene(rng, facts, asked_nouns(question), chinese=chinese)
    return Read(question, _found(rng, id_, scene, facts, chinese=chinese))


def _scene(
    rng: random.Random, facts: Sequence[Fact], asked: Sequence[str], *, chinese: bool
) -> dict[str, list[str]]:
    """What is in a picture, and where."""
    names = [name for name in asked if rng.random() < 0.85]
    others = [f.name for f in facts if f.name not in asked]
    names += rng.sample(others, min(len(others), rng.choice((0, 0, 1, 1, 2, 3))))
    places = _PLACES_ZH if chinese else _PLACES
    count = {name: rng.choices(range(1, 10), (6, 6, 5, 4, 3, 2, 1, 1, 1))[0] for name in names}
    return {name: rng.choices(places, k=count[name]) for name in names}


def _found(
    rng: random.Random,
    id_: str,
    scene: Mapping[str, Sequence[str]],
    facts: Sequence[Fact],
    *,
    chinese: bool,
) -> Callable[[str], tuple[str, str]]:
    """The detector at work; sometimes it does not know what is asked for."""
    known = rng.random() > 0.06
    classes = None if known else [fact.name for fact in facts[rng.randrange(2) :: 2]]

    def told(question: str) -> tuple[str, str]:
        asked = asked_nouns(question, classes)
        so = conclude(question, scene, classes)
        line = say_objects(id_, scene, asked, chinese=chinese, so=so)
        return line, tell_objects(line, chinese=chinese)

    return told


def tell_objects(line: str, *, chinese: bool) -> str:
    """The answer from a line of `say_objects`: what it says, as a sentence."""
    if chinese:
        told = line.split("：", 1)[1]
        is_whole = told.startswith(("没有", "什么也没有", "一共"))
        return f"图里{told}。" if is_whole else f"图里有{told}。"
    told = line.split(": ", 1)[1]
    return f"There {'is' if told.startswith(('1 ', 'nothing')) else 'are'} {told}."


_MORE = ("Are there more {n} than {n2}?", "Are there more {n} than {n2} in the {m}?",
         "Does it show more {n} than {n2}?", "Are the {n} more than the {n2}?",
         "Do the {n} outnumber the {n2}?")  # fmt: skip
_MORE_ZH = ("{n}比{n2}多吗？", "{m}里的{n}比{n2}多吗？", "是不是{n}比{n2}多？")
_WHICH = ("Which is there more of, {n} or {n2}?", "Do you see more {n} or more {n2}?",
          "Are there more {n} or more {n2}?", "Which are more, the {n} or the {n2}?")  # fmt: skip
_WHICH_ZH = ("{n}和{n2}哪个多？", "{n}多还是{n2}多？", "{m}里{n}和{n2}，哪个更多？")
_EXACT = ("Are there exactly {c} {n}?", "Are there {c} {n} in the {m}?", "Is it {c} {n}?",
          "I count {c} {n}. Is that right?", "Are there really {c} {n}?")  # fmt: skip
_EXACT_ZH = ("是不是有{c}个{n}？", "{m}里有{c}个{n}吗？", "正好有{c}个{n}吗？")
_OVER = ("Are there more than {c} {n}?", "Does the {m} have more than {c} {n}?",
         "Do you see more than {c} {n}?")  # fmt: skip
_OVER_ZH = ("{n}超过{c}个吗？", "{m}里的{n}多于{c}个吗？", "有{c}个以上的{n}吗？")
_SIDES = ("left", "right", "top", "bottom")
_SIDES_ZH = ("左", "右", "上", "下")
_SIDE = ("Is the {s} on the {c}?", "Is the {s} at the {c} of the {m}?", "Is there {a} on the {c}?",
         "Do you find {a} at the {c}?", "Is a {s} on the {c} side of the {m}?")  # fmt: skip
_SIDE_ZH = ("{n}在{c}边吗？", "{m}的{c}边有{n}吗？", "{n}是不是在{c}边？")
_ANY = ("Are there any {n}?", "Is there {a} in the {m}?", "Do you see any {n}?",
        "Does the {m} show {a}?", "Can you find any {n} there?")  # fmt: skip
_ANY_ZH = ("有{n}吗？", "{m}里有没有{n}？", "你看到{n}了吗？", "{m}里出现{n}了吗？")


def _judged(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    """Questions whose answer follows from counts or places."""
    kinds = ((_MORE, _MORE_ZH), (_WHICH, _WHICH_ZH), (_EXACT, _EXACT_ZH), (_OVER, _OVER_ZH),
             (_SIDE, _SIDE_ZH), (_ANY, _ANY_ZH))  # fmt: skip
    english, han = rng.choices(kinds, (3, 3, 5, 3, 3, 3))[0]
    n = rng.randint(1, 6)
    numbers = (*_COUNTS, *map(str, range(10)))
    word = rng.choice((str(n), _DIGITS_ZH[n])) if chinese else rng.choice(numbers[n::10])
    if english is _SIDE:
        word = rng.choice(_SIDES_ZH if chinese else _SIDES)
    template = _not_held(rng, han if chinese else english).replace("{c}", word)
    id_ = rng.choice(_PICTURES)
    question = fill(rng, template, facts, [id_], known=True)
    asked = asked_nouns(question)
    scene = _scene(rng, facts, asked, chinese=chinese)
    if english is _EXACT and asked and rng.random() < 0.5:
        scene[asked[0]] = rng.choices(_PLACES_ZH if chinese else _PLACES, k=n)
    return Read(question, _found(rng, id_, scene, facts, chinese=chinese))


def _not_held(rng: random.Random, templates: Sequence[str]) -> str:
    """A template that no question of the test has."""
    return rng.choice([t for t in templates if template_of(t) not in held_templates()])


# speech


def _words(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> list[str]:
    share = rng.random()
    if share < 0.12:
        return []
    if share < 0.2:
        return [rng.choice(facts).name for _ in range(rng.randint(1, 5))]
    if share < 0.65:
        return rng.choices(_DIGITS, k=rng.randint(1, 7))
    if share < 0.75:
        return [str(rng.randrange(10)) for _ in range(rng.randint(1, 7))]
    if chinese and share < 0.9:
        return [rng.choice(_SENTENCES_ZH)]
    return rng.choice(_SENTENCES).split()


_HAS = ("Does the voice say {c}?", "Is the word {c} said?", "Do you hear the word {c}?",
        "Is {c} among the spoken words?", "Does the speaker say {c} in the {u}?")  # fmt: skip
_HAS_ZH = ("里面说到{c}了吗？", "{u}里有{c}这个词吗？", "他说了{c}吗？")
_EDGE = {
    "first": ("What is the first word?", "What does the voice say first?",
              "Which is the first digit that is spoken?", "With which word does the {u} begin?"),
    "last": ("What is the last word?", "What does the voice say last?", "Which digit comes last?",
             "With which word does the {u} end?"),
}  # fmt: skip
_EDGE_ZH = {
    "first": ("第一个词是什么？", "最先说的是什么？"),
    "last": ("最后一个词是什么？", "最后说的是什么？"),
}
_N_WORDS = ("How many words are said?", "How many words does the speaker say?",
            "How many digits are spoken?", "How many numbers are read out in the {u}?")  # fmt: skip
_N_WORDS_ZH = ("一共说了几个词？", "说了几个数字？")


def _speech(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    words = _words(rng, facts, chinese=chinese)
    kind = rng.choices(("plain", "has", "edge", "count"), (5.5, 2.5, 1.2, 0.8))[0]
    template = _ask_speech(rng, kind, words, chinese=chinese)
    id_ = rng.choice(_SOUNDS)
    question = fill(rng, template, facts, [id_], known=True)
    text = " ".join(words)

    def told(whole: str) -> tuple[str, str]:
        line = say_speech(id_, text, chinese=chinese, so=conclude_speech(whole, text))
        return line, tell_speech(line, chinese=chinese)

    return Read(question, told)


def tell_speech(line: str, *, chinese: bool) -> str:
    """The answer from a line of `say_speech`: the words as they are, and what follows."""
    if chinese:
        told = line.split("：", 1)[1]
        return f"说的是：{told}。" if told[0] == "“" else f"{told}。"
    told = line.split(": ", 1)[1]
    return f"It says: {told}." if told[0] == '"' else f"N{told[1:]}."


def _ask_speech(rng: random.Random, kind: str, words: Sequence[str], *, chinese: bool) -> str:
    """A question's template."""
    if kind == "has":
        true = bool(words) and rng.random() < 0.5
        return _not_held(rng, _HAS_ZH if chinese else _HAS).replace(
            "{c}", rng.choice(words if true else _DIGITS)
        )
    if kind == "edge":
        edge = rng.choice(("first", "last"))
        return _not_held(rng, (_EDGE_ZH if chinese else _EDGE)[edge])
    if kind == "count":
        return _not_held(rng, _N_WORDS_ZH if chinese else _N_WORDS)
    return draw_template(rng, "speech_zh" if chinese else "speech")


# likeness and senses


def _likeness(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    kinds = rng.choices(("image", "image", "audio", "shape"), k=rng.choice((2, 2, 3, 4)))
    ids = [f"{kind}-{kinds[: i + 1].count(kind)}" for i, kind in enumerate(kinds)]
    if rng.random() < 0.3:
        return _pair(rng, facts, ids, chinese=chinese)
    template = draw_template(rng, "similarity_zh" if chinese else "similarity")
    question = fill(rng, template, facts, ids, known=True)
    query, *others = rng.sample(ids, len(ids))
    if rng.random() < 0.25:
        fact = rng.choice(facts)
        query, others = f'"{fact.phrase}"', ids
    scores = {id_: round(rng.uniform(-0.1, 0.99), 2) for id_ in others}
    best = max(scores, key=lambda id_: scores[id_])
    line = say_likeness(query, scores, chinese=chinese)
    best = line.rsplit("：" if chinese else ": ", 1)[1].split(" ")[0]
    score = f"{scores[best]:.2f}"
    if chinese:
        said = f"和{query}最接近的是{best}（{score}）。"
    else:
        said = f"The closest to {query} is {best} ({score})."
    return Read(question, lambda _: (line, said))


_ALIKE = ("How similar are {i} and {j}?", "Are {i} and {j} alike?", "How alike are they?",
          "Do {i} and {j} match?", "What is the similarity of {i} and {j}?", "Compare {i} and {j}.",
          "Are these two similar?", "How well do they fit together?", "Do they belong together?",
          "Is {i} like {j}?")  # fmt: skip
_ALIKE_ZH = (
    "{i}和{j}像吗？",
    "{i}和{j}有多相似？",
    "比较{i}和{j}。",
    "这两个有多像？",
    "它们相配吗？",
)


def _pair(rng: random.Random, facts: Sequence[Fact], ids: Sequence[str], *, chinese: bool) -> Read:
    first, second = ids[:2]
    template = rng.choice(_ALIKE_ZH if chinese else _ALIKE)
    question = fill(rng, template, facts, [first, second], known=True)
    score = round(rng.uniform(-0.1, 0.99), 2)
    high = score > rng.uniform(0.2, 0.7)
    line = say_pair(first, second, score, high=high, chinese=chinese)
    if chinese:
        said = f"{first}和{second}的相似度是{score:.2f}（{'高' if high else '低'}）。"
    else:
        level = "high" if high else "low"
        said = f"The similarity of {first} and {second} is {score:.2f} ({level})."
    return Read(question, lambda _: (line, said))


def _senses(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    """What a model senses, said as pocket says it; sometimes two things, or nothing known."""
    n = rng.choices((0, 1, 2), (1, 6, 1))[0]
    scene = Scene(tuple(rng.sample(list(facts), min(n, len(facts)))))
    if rng.random() < 0.15:
        question, said = exists_turn(rng, scene, facts, chinese)
    else:
        question, said = what_turn(rng, scene, chinese)
    if rng.random() < 0.5:
        template = draw_template(rng, "answer_zh" if chinese else "answer")
        question = fill(rng, template, facts, ["image-1"], known=True)
    return Read(question, lambda _: (say_senses(said, chinese=chinese), said))
