"""What is told about a concept, and questions about concepts that need no media.

Place, sound, use, kind, size, the other language's word, stories, poems, comparisons.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ibllm_tools.train.knowledge import (
    KIND_PHRASES,
    KIND_PLURALS,
    KINDS,
    Fact,
    are_alien,
    bigger,
)
from ibllm_tools.train.phrasing import dress, upper_first
from ibllm_tools.train.seen_words import texts
from ibllm_tools.train.tales import poem, story

Turn = tuple[str, str]
"""One question and its answer."""

_ITS = ("it", "它")
_LIVING = ("animal", "human", "plant")


def ask_topic(rng: random.Random, topic: str, it: str, fact: Fact | None, *, chinese: bool) -> str:
    """Word a question about one topic.

    Args:
        rng: Random source.
        topic: What `draw_topic` draws.
        it: "it", "它", or a concept's phrase or Chinese name.
        fact: What it is about, so that only living things are said to live; None if unknown.
        chinese: The language.
    """
    frames = texts(f"topic_{topic}", chinese=chinese)
    living = fact is None or fact.kind in _LIVING
    if topic == "place" and living and rng.random() < 0.35:
        lives = texts("lives", chinese=chinese)
        frames = lives if it in _ITS else (lives[0], lives[2])
    elif it in _ITS and rng.random() < 0.2:
        frames = texts(f"it_only_{topic}", chinese=chinese)
    question = rng.choice(frames).format(it=it)
    if it in _ITS and rng.random() < 0.25:
        question = _follow(rng, question, chinese=chinese)
    return dress(rng, question, chinese=chinese)


def _follow(rng: random.Random, question: str, *, chinese: bool) -> str:
    if chinese:
        return (
            question
            if question[0] in "那再来"
            else rng.choice(("那", "那么，", "还有，")) + question
        )
    before = rng.choice(("And ", "And ", "OK, and ", "Also: ", "Then ", "By the way, "))
    return before + question[:1].lower() + question[1:]


def draw_topic(rng: random.Random, *, chinese: bool) -> str:
    """Draw what to ask about."""
    names = ("sound", "use", "place", "kind", "english" if chinese else "chinese", "story", "poem",
             "about")  # fmt: skip
    return rng.choices(names, (4, 3, 4, 3, 2.5, 1, 1, 1.5))[0]


def tell(rng: random.Random, fact: Fact, topic: str, *, chinese: bool) -> str:
    """Say one thing about a fact."""
    if topic == "story":
        return story(rng, fact, chinese=chinese)
    if topic == "poem":
        return poem(rng, fact, chinese=chinese)
    return (_tell_zh if chinese else _tell_en)(fact, topic)


def _tell_en(fact: Fact, topic: str) -> str:
    name, kind = upper_first(fact.phrase), KIND_PHRASES[fact.kind]
    place = f"You can find {fact.phrase} {fact.place}."
    answers = {
        "sound": fact.sound if "no sound" not in fact.sound else f"{fact.sound} {fact.use}",
        "use": fact.use,
        "place": place,
        "kind": f"{name} is {kind}.",
        "chinese": f"{name} is {fact.name_zh} in Chinese.",
        "about": f"{name} is {kind}. {place} {fact.use}",
    }
    return answers[topic]


def _tell_zh(fact: Fact, topic: str) -> str:
    zh = fact.name_zh
    place = f"{zh}常在{fact.place_zh}。"
    answers = {
        "sound": fact.sound_zh
        if "不出声" not in fact.sound_zh
        else f"{fact.sound_zh}{fact.use_zh}",
        "use": fact.use_zh,
        "place": place,
        "kind": f"{zh}属于{fact.kind_zh}。",
        "english": f"{zh}的英语是 {fact.name}。",
        "about": f"{zh}属于{fact.kind_zh}。{place}{fact.use_zh}",
    }
    return answers[topic]


def knowledge_turn(rng: random.Random, facts: Sequence[Fact], chinese: bool) -> Turn:
    """A question about concepts that are named, so that no media are needed."""
    share = rng.random()
    if share < 0.15:
        return is_a_turn(rng, rng.choice(facts), chinese=chinese)
    if share < 0.35 and len(facts) > 1:
        first, second = rng.sample(list(facts), 2)
        return compare_turn(rng, first, second, chinese=chinese)
    fact = rng.choice(facts)
    if share < 0.43:
        return translate_turn(rng, fact, chinese=chinese)
    topic = draw_topic(rng, chinese=chinese)
    it = fact.name_zh if chinese else fact.phrase
    question = ask_topic(rng, topic, it, fact, chinese=chinese)
    return question, tell(rng, fact, topic, chinese=chinese)


def translate_turn(rng: random.Random, fact: Fact, *, chinese: bool) -> Turn:
    """Ask for the word in the language of the question."""
    if chinese:
        frames = ("{n} 用中文怎么说？", "{n} 是什么意思？", "英语单词 {n} 的中文是什么？")
        question = rng.choice(frames).format(n=fact.name)
        return dress(rng, question, chinese=True), f"{fact.name} 的中文是{fact.name_zh}。"
    frames = ("What does {z} mean?", "What is {z} in English?", "Translate {z} into English.")
    question = rng.choice(frames).format(z=fact.name_zh)
    return dress(rng, question, chinese=False), f"{fact.name_zh} means {fact.phrase}."


def is_a_turn(rng: random.Random, fact: Fact, *, chinese: bool, it: str = "") -> Turn:
    """Ask whether a concept is of a kind; half yes, and a no is never arguable.

    Args:
        rng: Random source.
        fact: The concept.
        chinese: The language.
        it: How the question calls it; its own name by default.
    """
    kind = fact.kind
    if rng.random() < 0.5:
        kind = rng.choice([k for k in KINDS if are_alien(k, fact.kind)])
    if chinese:
        frames = ("{it}是{k}吗？", "{it}属于{k}吗？", "{it}算不算{k}？")
        question = rng.choice(frames).format(it=it or fact.name_zh, k=KINDS[kind])
        told = f"{fact.name_zh}属于{fact.kind_zh}。"
        return dress(rng, question, chinese=True), (
            "是的，" if kind == fact.kind else "不是，"
        ) + told
    frames = ("Is {it} {k}?", "Would you say {it} is {k}?", "Is it true that {it} is {k}?")
    question = rng.choice(frames).format(it=it or fact.phrase, k=KIND_PHRASES[kind])
    told = f"{fact.phrase} is {KIND_PHRASES[fact.kind]}."
    return dress(rng, question, chinese=False), ("Yes, " if kind == fact.kind else "No, ") + told


def compare_turn(
    rng: random.Random, first: Fact, second: Fact, *, chinese: bool, both: bool = False
) -> Turn:
    """Compare two concepts by size, or say what sets them apart.

    Args:
        rng: Random source.
        first: One concept.
        second: The other.
        chinese: The language.
        both: The question does not name them, since the media show both.
    """
    by_size = rng.random() < 0.6 and bool(first.size_m and second.size_m)
    names = [f.name_zh if chinese else f.phrase for f in (first, second)]
    question = _ask_comparison(rng, names, by_size=by_size, chinese=chinese, both=both)
    tell_it = _tell_size if by_size else _tell_difference
    return dress(rng, question, chinese=chinese), tell_it(first, second, chinese=chinese)


def _ask_comparison(
    rng: random.Random, names: Sequence[str], *, by_size: bool, chinese: bool, both: bool
) -> str:
    if chinese and by_size:
        frames = ("哪个更大？", "谁更大？", "两个当中哪个更大？", "哪一个大一些？")
        if not both:
            frames = (
                "{0}和{1}哪个更大？",
                "{0}大还是{1}大？",
                "谁更大，{0}还是{1}？",
                "比较{0}和{1}的大小。",
            )
    elif chinese:
        frames = ("它们有什么不同？", "它们有什么区别？", "比较一下它们。", "两者有什么不一样？")
        if not both:
            frames = ("{0}和{1}有什么不同？", "{0}和{1}有什么区别？", "比较一下{0}和{1}。")
    elif by_size:
        frames = ("Which is bigger?", "Which one is larger?", "Which of the two is bigger?",
                  "What is bigger?")  # fmt: skip
        if not both:
            frames = ("Which is bigger, {0} or {1}?", "What is larger, {0} or {1}?",
                      "Compare the size of {0} and {1}.", "Is {0} or {1} bigger?")  # fmt: skip
    else:
        frames = ("What is the difference?", "How do they differ?", "Compare them.",
                  "What is the difference between them?", "Compare the two.")  # fmt: skip
        if not both:
            frames = ("What is the difference between {0} and {1}?", "How is {0} unlike {1}?",
                      "Compare {0} and {1}.", "What sets {0} and {1} apart?")  # fmt: skip
    return rng.choice(frames).format(*names)


def _tell_size(first: Fact, second: Fact, *, chinese: bool) -> str:
    big = bigger(first, second)
    if big is None:
        if chinese:
            return f"{first.name_zh}和{second.name_zh}差不多大。"
        return f"{upper_first(first.phrase)} and {second.phrase} are about the same size."
    small = second if big is first else first
    if chinese:
        return f"{big.name_zh}比{small.name_zh}大。"
    return f"{upper_first(big.phrase)} is bigger than {small.phrase}."


def _tell_difference(first: Fact, second: Fact, *, chinese: bool) -> str:
    alike = first.kind == second.kind
    if chinese:
        if alike:
            return f"它们都属于{first.kind_zh}。{first.use_zh}{second.use_zh}"
        return (
            f"{first.name_zh}属于{first.kind_zh}，{second.name_zh}属于{second.kind_zh}。"
            f"{first.use_zh}{second.use_zh}"
        )
    if alike:
        return f"Both are {KIND_PLURALS[first.kind]}. {first.use} {second.use}"
    kinds = [KIND_PHRASES[f.kind] for f in (first, second)]
    return (
        f"{upper_first(first.phrase)} is {kinds[0]}, and {second.phrase} is {kinds[1]}. "
        f"{first.use} {second.use}"
    )
